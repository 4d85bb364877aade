//! Promises a directory of users and nested groups that is found by id or by any spelling of
//! a UPN without being searched, and that can be seen as it was some time ago.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{SimulatedRefusal, precise};
use super::passes::LivePass;
use super::replica::Replica;
use tapwave_core::ids::{GroupId, UserId};

/// A user as the directory keeps one; its moments are in the tenant's time. Everything may
/// be changed under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryUser {
    pub upn: String,
    /// The name people see.
    pub display_name: Option<String>,
    pub mail: Option<String>,
    pub other_mails: Vec<String>,
    pub manager: Option<String>,
    /// Whether sign-in is allowed.
    pub enabled: bool,
    /// `Member` or `Guest`.
    pub user_type: Option<String>,
    /// How the user signs in; decides who is an external guest.
    pub identities: Vec<DirectoryIdentity>,
    /// Such as `de-DE`.
    pub preferred_language: Option<String>,
    /// Synchronised from an on-premises directory.
    pub on_premises: Option<bool>,
    /// Holds a role above the caller's: passes are refused with 403.
    pub admin: bool,
    /// When the account was made.
    pub created: Timestamp,
    /// Before this moment every call about the user answers 404.
    pub appears_at: Timestamp,
}

/// One way to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryIdentity {
    /// `userPrincipalName`, `federated`, `emailAddress`, …
    pub sign_in_type: String,
    /// Who vouches; `ExternalAzureAD` for guests from another tenant.
    pub issuer: String,
    pub assigned_id: Option<String>,
}

impl DirectoryUser {
    /// An ordinary, enabled member.
    #[must_use]
    pub fn named(upn: impl Into<String>, display_name: impl Into<String>) -> Self {
        let upn = upn.into();
        let domain = upn.split_once('@').map_or("contoso.example", |(_, domain)| domain).to_owned();
        Self {
            display_name: Some(display_name.into()),
            mail: Some(upn.clone()),
            other_mails: Vec::new(),
            manager: None,
            enabled: true,
            user_type: Some("Member".into()),
            identities: vec![DirectoryIdentity {
                sign_in_type: "userPrincipalName".into(),
                issuer: domain,
                assigned_id: Some(upn.clone()),
            }],
            preferred_language: None,
            on_premises: None,
            admin: false,
            created: Timestamp::UNIX_EPOCH,
            appears_at: Timestamp::MIN,
            upn,
        }
    }

    /// A guest from another tenant, who can hold no pass.
    #[must_use]
    pub fn external_guest(upn: impl Into<String>, display_name: impl Into<String>) -> Self {
        Self {
            user_type: Some("Guest".into()),
            identities: vec![DirectoryIdentity {
                sign_in_type: "federated".into(),
                issuer: "ExternalAzureAD".into(),
                assigned_id: None,
            }],
            ..Self::named(upn, display_name)
        }
    }

    /// Whether the user is an external guest, by how the user signs in and not by the type.
    #[must_use]
    pub fn is_external_guest(&self) -> bool {
        self.identities
            .iter()
            .any(|one| one.sign_in_type == "federated" && one.issuer == "ExternalAzureAD")
    }
}

/// A user, the id, and the one pass there can be.
#[derive(Debug)]
pub(super) struct DirectoryPerson {
    pub(super) id: UserId,
    pub(super) user: DirectoryUser,
    pub(super) pass: Option<LivePass>,
    /// What reads show of it.
    pub(super) replica: Replica,
    groups: Vec<Edge>,
}

#[derive(Debug)]
pub(super) struct DirectoryGroup {
    pub(super) id: GroupId,
    /// The id's text, which policies compare.
    pub(super) text: String,
    pub(super) name: String,
    pub(super) hidden: bool,
    pub(super) dissolved: bool,
    people: Vec<Edge>,
    children: Vec<Edge>,
    parents: Vec<Edge>,
}

/// A membership from one moment until another.
#[derive(Debug, Clone, Copy)]
struct Edge {
    other: usize,
    since: Timestamp,
    until: Timestamp,
}

impl Edge {
    fn holds(&self, at: Timestamp) -> bool {
        self.since <= at && at < self.until
    }
}

/// Everybody, indexed.
#[derive(Debug, Default)]
pub(super) struct Directory {
    people: Vec<DirectoryPerson>,
    by_id: HashMap<UserId, usize>,
    by_upn: HashMap<String, usize>,
    groups: Vec<DirectoryGroup>,
    group_by_id: HashMap<GroupId, usize>,
}

impl Directory {
    /// Adds a user, or puts the new data in place of one with the same UPN.
    pub(super) fn add(&mut self, id: UserId, user: DirectoryUser) -> UserId {
        let key = user.upn.to_lowercase();
        if let Some(&known) = self.by_upn.get(&key) {
            self.people[known].user = user;
            return self.people[known].id;
        }
        self.by_upn.insert(key, self.people.len());
        self.by_id.insert(id, self.people.len());
        let replica = Replica::default();
        self.people.push(DirectoryPerson { id, user, pass: None, replica, groups: Vec::new() });
        id
    }

    /// Changes a user; the UPN may change too. False when there is none of that name.
    pub(super) fn amend(&mut self, upn: &str, change: impl FnOnce(&mut DirectoryUser)) -> bool {
        let Some(index) = self.by_upn.remove(&upn.to_lowercase()) else { return false };
        change(&mut self.people[index].user);
        self.by_upn.insert(self.people[index].user.upn.to_lowercase(), index);
        true
    }

    pub(super) fn add_group(&mut self, id: GroupId, name: String) -> GroupId {
        self.group_by_id.insert(id, self.groups.len());
        let text = id.to_string();
        let (people, children, parents) = Default::default();
        let (hidden, dissolved) = (false, false);
        self.groups.push(DirectoryGroup {
            id,
            text,
            name,
            hidden,
            dissolved,
            people,
            children,
            parents,
        });
        id
    }

    /// Deletes a group; its members are members no more. False when there is none.
    pub(super) fn dissolve(&mut self, id: GroupId) -> bool {
        let Some(index) = self.group_by_id.remove(&id) else { return false };
        self.groups[index].dissolved = true;
        true
    }

    /// Makes a user a direct member from a moment on.
    pub(super) fn join(&mut self, at: Timestamp, upn: &str, group: GroupId) -> bool {
        let person = self.by_upn.get(&upn.to_lowercase());
        let (Some(&person), Some(&group)) = (person, self.group_by_id.get(&group)) else {
            return false;
        };
        let edge = |other| Edge { other, since: at, until: Timestamp::MAX };
        self.people[person].groups.push(edge(group));
        self.groups[group].people.push(edge(person));
        true
    }

    /// Ends a user's direct membership.
    pub(super) fn leave(&mut self, at: Timestamp, upn: &str, group: GroupId) -> bool {
        let person = self.by_upn.get(&upn.to_lowercase());
        let (Some(&person), Some(&group)) = (person, self.group_by_id.get(&group)) else {
            return false;
        };
        end(&mut self.people[person].groups, group, at)
            && end(&mut self.groups[group].people, person, at)
    }

    /// Makes one group a direct member of another from a moment on; circles are allowed.
    pub(super) fn nest(&mut self, at: Timestamp, inner: GroupId, outer: GroupId) -> bool {
        let inner = self.group_by_id.get(&inner);
        let (Some(&inner), Some(&outer)) = (inner, self.group_by_id.get(&outer)) else {
            return false;
        };
        let edge = |other| Edge { other, since: at, until: Timestamp::MAX };
        self.groups[inner].parents.push(edge(outer));
        self.groups[outer].children.push(edge(inner));
        true
    }

    pub(super) fn person(&self, index: usize) -> &DirectoryPerson {
        &self.people[index]
    }

    pub(super) fn person_mut(&mut self, index: usize) -> &mut DirectoryPerson {
        &mut self.people[index]
    }

    pub(super) fn people(&self) -> &[DirectoryPerson] {
        &self.people
    }

    pub(super) fn groups(&self) -> &[DirectoryGroup] {
        &self.groups
    }

    pub(super) fn group_mut(&mut self, id: GroupId) -> Option<&mut DirectoryGroup> {
        self.group_by_id.get(&id).map(|&index| &mut self.groups[index])
    }

    /// A group by its id's text.
    pub(super) fn group(&self, id: &str) -> Result<usize, SimulatedRefusal> {
        let known = id.parse().ok().and_then(|id: GroupId| self.group_by_id.get(&id));
        known.copied().ok_or_else(|| SimulatedRefusal::missing(id))
    }

    /// A user who can be seen, by id or UPN.
    pub(super) fn find(&self, name: &str, now: Timestamp) -> Result<usize, SimulatedRefusal> {
        self.seen(self.index(name), now).ok_or_else(|| SimulatedRefusal::missing(name))
    }

    /// A user who can be seen, by UPN alone.
    pub(super) fn find_upn(&self, upn: &str, now: Timestamp) -> Option<usize> {
        self.seen(self.by_upn.get(&upn.to_lowercase()).copied(), now)
    }

    /// A user who can be seen, by id alone.
    pub(super) fn find_id(&self, id: &str, now: Timestamp) -> Option<usize> {
        let index = id.parse().ok().and_then(|id: UserId| self.by_id.get(&id).copied());
        self.seen(index, now)
    }

    /// Any user, also one who cannot be seen yet.
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        if let Ok(id) = Uuid::try_parse(name)
            && let Some(&index) = self.by_id.get(&UserId::new(id))
        {
            return Some(index);
        }
        self.by_upn.get(&name.to_lowercase()).copied()
    }

    fn seen(&self, index: Option<usize>, now: Timestamp) -> Option<usize> {
        index.filter(|&index| self.people[index].user.appears_at <= now)
    }

    /// Every group that a user is in at a moment, directly or through others.
    pub(super) fn groups_of(&self, person: usize, at: Timestamp) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        let mut open: Vec<usize> = holding(&self.people[person].groups, at).collect();
        while let Some(group) = open.pop() {
            if !found.contains(&group) && !self.groups[group].dissolved {
                found.push(group);
                open.extend(holding(&self.groups[group].parents, at));
            }
        }
        found
    }

    /// Everybody in a group at a moment, directly or through others, each once, in the order
    /// in which they came; and the groups inside.
    pub(super) fn members_of(&self, group: usize, at: Timestamp) -> (Vec<usize>, Vec<usize>) {
        let (mut people, mut groups) = (Vec::new(), vec![group]);
        let (mut known, mut next) = (HashSet::new(), 0);
        while let Some(&group) = groups.get(next) {
            next += 1;
            people.extend(holding(&self.groups[group].people, at).filter(|one| known.insert(*one)));
            for child in holding(&self.groups[group].children, at) {
                if !groups.contains(&child) && !self.groups[child].dissolved {
                    groups.push(child);
                }
            }
        }
        groups.remove(0);
        (people, groups)
    }
}

fn holding(edges: &[Edge], at: Timestamp) -> impl Iterator<Item = usize> {
    edges.iter().filter(move |edge| edge.holds(at)).map(|edge| edge.other)
}

fn end(edges: &mut [Edge], other: usize, at: Timestamp) -> bool {
    let found = edges.iter_mut().find(|edge| edge.other == other && edge.until == Timestamp::MAX);
    found.is_some_and(|edge| {
        edge.until = at;
        true
    })
}

/// What Graph shows of a user when nothing is selected. `accountEnabled`, `userType` and
/// `identities` are not among them.
const SHOWN_UNASKED: &[&str] = &[
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
];

impl DirectoryPerson {
    /// The user as JSON, with the selected properties alone.
    pub(super) fn shown(
        &self,
        select: Option<&str>,
    ) -> Result<Map<String, Value>, SimulatedRefusal> {
        let names: Vec<&str> = match select {
            Some(select) => select.split(',').map(str::trim).collect(),
            None => SHOWN_UNASKED.to_vec(),
        };
        names
            .into_iter()
            .map(|name| {
                let value = self.property(name).ok_or_else(|| {
                    let message = format!(
                        "Could not find a property named '{name}' on type 'microsoft.graph.user'."
                    );
                    SimulatedRefusal::new(400, "BadRequest", message)
                })?;
                Ok((name.to_owned(), value))
            })
            .collect()
    }

    fn property(&self, name: &str) -> Option<Value> {
        let user = &self.user;
        Some(match name {
            "id" => json!(self.id),
            "userPrincipalName" => json!(user.upn),
            "displayName" => json!(user.display_name),
            "givenName" => json!(self.name_parts().0),
            "surname" => json!(self.name_parts().1),
            "mail" => json!(user.mail),
            "otherMails" => json!(user.other_mails),
            "accountEnabled" => json!(user.enabled),
            "userType" => json!(user.user_type),
            "preferredLanguage" => json!(user.preferred_language),
            "onPremisesSyncEnabled" => json!(user.on_premises),
            "createdDateTime" => json!(precise(user.created)),
            "identities" => user.identities.iter().map(DirectoryIdentity::shown).collect(),
            "businessPhones" => json!([]),
            "jobTitle" | "mobilePhone" | "officeLocation" | "department" | "companyName"
            | "employeeId" | "usageLocation" | "employeeHireDate" | "city" | "country" => {
                Value::Null
            }
            _ => return None,
        })
    }

    fn name_parts(&self) -> (Option<&str>, Option<&str>) {
        match self.user.display_name.as_deref() {
            Some(name) => {
                name.split_once(' ').map_or((Some(name), None), |(a, b)| (Some(a), Some(b)))
            }
            None => (None, None),
        }
    }
}

impl DirectoryIdentity {
    fn shown(&self) -> Value {
        json!({
            "signInType": self.sign_in_type,
            "issuer": self.issuer,
            "issuerAssignedId": self.assigned_id,
        })
    }
}
