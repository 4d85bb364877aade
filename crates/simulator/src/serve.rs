//! Promises each resource's own behaviour: the policy, the passes, users, groups and mail.
//! By the time a request is here it has passed its quota and its faults.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Reply, SimulatedRefusal};
use super::listing::{Filter, Item};
use super::passes::{LivePass, PassEvent, PassRequest, object};
use super::target::RequestTarget;
use super::tenant::{AcceptedMail, PassOrigin, Tenant, Visit, context};
use tapwave_core::clock::earlier;
use tapwave_core::limits;
use tapwave_graph::transport::{Method, Request};

type Served = Result<Reply, SimulatedRefusal>;

const USER_CAST: &str = "microsoft.graph.user";

impl Tenant {
    pub(super) fn serve(
        &mut self,
        visit: &Visit,
        request: &Request,
        target: &RequestTarget,
    ) -> Served {
        if !self.options.another_tenant {
            return self.serve_here(visit, request, target);
        }
        let home = std::mem::take(&mut self.directory);
        let served = self.serve_here(visit, request, target);
        self.directory = home;
        served
    }

    fn serve_here(&mut self, visit: &Visit, request: &Request, target: &RequestTarget) -> Served {
        let body = request.body.as_deref();
        match (request.method, target.path().as_slice()) {
            (Method::Post, ["$batch"]) => self.batch(visit, request),
            (_, ["policies", "authenticationMethodsPolicy", rest @ ..]) => {
                self.serve_policy(request.method, rest, body)
            }
            (_, ["users", user, "authentication", "temporaryAccessPassMethods", rest @ ..]) => {
                self.serve_passes(visit, request, user, rest)
            }
            (Method::Post, ["users", user, "checkMemberGroups"]) => {
                self.check_groups(visit.now, user, body)
            }
            (Method::Post, ["users", user, "sendMail"]) => self.send_mail(visit.now, user, body),
            (Method::Get, ["users", rest @ ..]) => self.serve_users(visit.now, target, rest),
            (Method::Get, ["groups", rest @ ..]) => {
                self.serve_groups(visit.now, request, target, rest)
            }
            (_, path) => {
                Err(SimulatedRefusal::unknown_segment(path.first().copied().unwrap_or_default()))
            }
        }
    }

    fn serve_policy(&mut self, method: Method, path: &[&str], body: Option<&[u8]>) -> Served {
        let ["authenticationMethodConfigurations", name] = path else {
            return Err(SimulatedRefusal::unknown_segment(
                path.first().copied().unwrap_or_default(),
            ));
        };
        if !name.eq_ignore_ascii_case("temporaryAccessPass") {
            return Err(SimulatedRefusal::missing(name));
        }
        match method {
            Method::Get => Ok(Reply::json(200, self.policy.shown(&self.options.base))),
            Method::Patch => {
                self.policy.patch(&object(body)?)?;
                Ok(Reply::empty(204))
            }
            Method::Post | Method::Delete => Err(not_allowed()),
        }
    }

    fn serve_passes(
        &mut self,
        visit: &Visit,
        request: &Request,
        user: &str,
        rest: &[&str],
    ) -> Served {
        let person = self.directory.find(user, visit.now)?;
        match (request.method, rest) {
            (Method::Get, []) => {
                let pass = self.listed(person, visit.now);
                let pass: Vec<_> = pass
                    .map(|pass| self.show(pass, person, visit.now, false))
                    .into_iter()
                    .collect();
                let what = format!("users('{user}')/authentication/temporaryAccessPassMethods");
                let context = context(&self.options.base, &what);
                Ok(Reply::json(200, json!({"@odata.context": context, "value": pass})))
            }
            (Method::Get, [method]) => {
                let listed = self.listed(person, visit.now).filter(|pass| pass.method == **method);
                let shown = listed.map(|pass| self.show(pass, person, visit.now, false));
                let shown = shown.ok_or_else(|| self.no_method(method))?;
                Ok(Reply::json(200, self.entity(user, shown)))
            }
            (Method::Delete, [method]) => {
                self.not_an_admin(person)?;
                let holder = self.directory.person(person);
                if !holder.replica.deletes(holder.pass.as_ref(), method, visit.now) {
                    return Err(self.no_method(method));
                }
                let deleted = |method| PassEvent::Deleted { method, elsewhere: false };
                self.drop_pass(visit.now, person, deleted);
                Ok(Reply::empty(204))
            }
            (Method::Post, []) => self.issue(visit, person, user, request.body.as_deref()),
            _ => Err(not_allowed()),
        }
    }

    fn issue(&mut self, visit: &Visit, person: usize, user: &str, body: Option<&[u8]>) -> Served {
        let request = PassRequest::read(body, &self.policy, visit.now);
        // Who may not have a pass is told so, however wrong the rest is.
        self.not_an_admin(person)?;
        if self.directory.person(person).user.is_external_guest() {
            let message = "Temporary Access Pass cannot be added to an external guest user.";
            return Err(SimulatedRefusal::method(message));
        }
        let in_scope = self.in_scope(person, visit.now);
        if !self.policy.enabled || !in_scope && self.options.refuse_outside_policy {
            return Err(SimulatedRefusal::method(
                "Converged UserCredentialPolicy does not allow creating or updating this \
                 authentication method. AuthMethodType [TemporaryAccessPass].",
            ));
        }
        let request = request?;
        let holder = self.directory.person(person);
        let held = holder.pass.is_some() || holder.replica.still_counts(visit.now);
        if held && self.options.second_post == super::options::SecondPost::Rejected {
            return Err(SimulatedRefusal::method(
                "A Temporary Access Pass already exists for this user. Delete the existing pass \
                 before adding another.",
            ));
        }
        self.mint_pass(visit.now, person, request, &PassOrigin::Asked(visit.clone()));
        let holder = self.directory.person(person);
        let pass = holder.pass.as_ref().map(|pass| self.show(pass, person, visit.now, true));
        let mut pass = pass.unwrap_or_default();
        if let Some(id) = holder.replica.other_id() {
            pass.insert("id".into(), json!(id));
        }
        Ok(Reply::json(201, self.entity(user, pass)))
    }

    fn entity(&self, user: &str, mut pass: Map<String, Value>) -> Value {
        let what = format!("users('{user}')/authentication/temporaryAccessPassMethods/$entity");
        pass.insert("@odata.context".into(), context(&self.options.base, &what));
        Value::Object(pass)
    }

    /// The pass that reads show of a user.
    fn listed(&self, person: usize, now: Timestamp) -> Option<&LivePass> {
        let holder = self.directory.person(person);
        holder.replica.listed(holder.pass.as_ref(), now)
    }

    fn show(
        &self,
        pass: &LivePass,
        person: usize,
        now: Timestamp,
        code: bool,
    ) -> Map<String, Value> {
        let usability = pass.usability(self.in_scope(person, now), now);
        pass.shown(usability, self.options.omit_is_usable, code)
    }

    /// 404 for a pass.
    fn no_method(&mut self, method: &str) -> SimulatedRefusal {
        // Nobody has written down which of Graph's two codes this is.
        let code = if self.rng.bool() { "resourceNotFound" } else { "Request_ResourceNotFound" };
        SimulatedRefusal { code, twice: true, ..SimulatedRefusal::missing(method) }
    }

    fn not_an_admin(&self, person: usize) -> Result<(), SimulatedRefusal> {
        if self.directory.person(person).user.admin {
            return Err(SimulatedRefusal::forbidden());
        }
        Ok(())
    }

    /// Transitive and current; hidden and unknown groups are left out without a word.
    fn check_groups(&self, now: Timestamp, user: &str, body: Option<&[u8]>) -> Served {
        let body = object(body)?;
        let wrong = |message: String| SimulatedRefusal::new(400, "Request_BadRequest", message);
        let ids = body.get("groupIds").and_then(Value::as_array);
        let ids = ids.ok_or_else(|| wrong("Invalid or missing groupIds.".into()))?;
        if ids.len() > limits::GROUPS_PER_CHECK {
            let message = "The number of groupIds exceeds the maximum allowed of 20.";
            return Err(wrong(message.into()));
        }
        let mut asked = Vec::with_capacity(ids.len());
        for id in ids {
            let id = id.as_str().and_then(|id| Uuid::try_parse(id).ok());
            asked.push(id.ok_or_else(|| wrong("Invalid GUID specified in groupIds.".into()))?);
        }
        let person = self.directory.find(user, now)?;
        if self.options.missing_group_fails {
            for id in &asked {
                self.directory.group(&id.to_string())?;
            }
        }
        let groups = self.directory.groups_of(person, now);
        let known = groups.iter().map(|&group| &self.directory.groups()[group]);
        let found: Vec<&str> = known
            .filter(|group| !group.hidden)
            .filter(|group| asked.iter().any(|id| tapwave_core::ids::GroupId::new(*id) == group.id))
            .map(|group| group.text.as_str())
            .collect();
        let context = context(&self.options.base, "Collection(Edm.String)");
        Ok(Reply::json(200, json!({"@odata.context": context, "value": found})))
    }

    fn send_mail(&mut self, now: Timestamp, user: &str, body: Option<&[u8]>) -> Served {
        let mut body = object(body)?;
        let person = self.directory.find(user, now)?;
        let message = body.remove("message").filter(Value::is_object).ok_or_else(|| {
            SimulatedRefusal::new(400, "ErrorInvalidRequest", "The Message property is required.")
        })?;
        let to = message["toRecipients"].as_array().is_some_and(|to| !to.is_empty());
        if !to {
            let text = "At least one recipient isn't valid., A message can't be sent because it \
                        contains no recipients.";
            return Err(SimulatedRefusal::new(400, "ErrorInvalidRecipients", text));
        }
        let from = self.directory.person(person).id;
        self.mails.push(AcceptedMail { at: now, from, message });
        Ok(Reply::empty(202))
    }

    fn serve_users(&mut self, now: Timestamp, target: &RequestTarget, rest: &[&str]) -> Served {
        let select = target.option("$select");
        match rest {
            [] => self.list_users(now, target),
            [user] => {
                let person = self.directory.find(user, now)?;
                let mut shown = self.directory.person(person).shown(select)?;
                let context = context(&self.options.base, "users/$entity");
                shown.insert("@odata.context".into(), context);
                Ok(Reply::json(200, Value::Object(shown)))
            }
            [user, "manager"] => {
                let person = self.directory.find(user, now)?;
                let manager = self.directory.person(person).user.manager.as_deref();
                let manager = manager.and_then(|upn| self.directory.find_upn(upn, now));
                let manager = manager.ok_or_else(|| SimulatedRefusal::missing("manager"))?;
                let mut shown = self.directory.person(manager).shown(select)?;
                let context = context(&self.options.base, "directoryObjects/$entity");
                shown.insert("@odata.context".into(), context);
                shown.insert("@odata.type".into(), json!("#microsoft.graph.user"));
                Ok(Reply::json(200, Value::Object(shown)))
            }
            [_, segment, ..] => Err(SimulatedRefusal::unknown_segment(segment)),
        }
    }

    fn list_users(&mut self, now: Timestamp, target: &RequestTarget) -> Served {
        let filter = target.option("$filter").map(Filter::parse).transpose()?;
        let people = match &filter {
            None => {
                let seen = |index: &usize| self.directory.person(*index).user.appears_at <= now;
                (0..self.directory.people().len()).filter(seen).collect()
            }
            Some(filter) => self.matching_people(now, filter)?,
        };
        let items = || people.into_iter().map(Item::Person).collect();
        let page = self.chains.page(&self.options, target, items)?;
        self.show_page(target, &page, "users", false)
    }

    fn matching_people(
        &self,
        now: Timestamp,
        filter: &Filter,
    ) -> Result<Vec<usize>, SimulatedRefusal> {
        let mut found: Vec<usize> = match filter.property.as_str() {
            "userPrincipalName" => {
                let find = |upn: &String| self.directory.find_upn(upn, now);
                filter.values.iter().filter_map(find).collect()
            }
            "id" => {
                let find = |id: &String| self.directory.find_id(id, now);
                filter.values.iter().filter_map(find).collect()
            }
            property => return Err(unsupported(property)),
        };
        // The answer's order is the directory's, not the question's.
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn serve_groups(
        &mut self,
        now: Timestamp,
        request: &Request,
        target: &RequestTarget,
        rest: &[&str],
    ) -> Served {
        match rest {
            [] => self.list_groups(target),
            [id] => {
                let group = self.directory.group(id)?;
                let mut shown = self.show_group(group, target.option("$select"))?;
                let context = context(&self.options.base, "groups/$entity");
                shown.insert("@odata.context".into(), context);
                Ok(Reply::json(200, Value::Object(shown)))
            }
            [id, "transitiveMembers", tail @ ..] => {
                let group = self.directory.group(id)?;
                self.members(now, request, target, group, tail)
            }
            [_, segment, ..] => Err(SimulatedRefusal::unknown_segment(segment)),
        }
    }

    fn list_groups(&mut self, target: &RequestTarget) -> Served {
        let filter = target.option("$filter").map(Filter::parse).transpose()?;
        let groups = self.directory.groups().iter().enumerate();
        let found: Vec<Item> = match &filter {
            None => groups
                .filter(|(_, group)| !group.dissolved)
                .map(|(index, _)| Item::Group(index))
                .collect(),
            // Names are no keys: several groups may have one, and case does not tell them apart.
            Some(Filter { property, values }) if property == "displayName" => groups
                .filter(|(_, group)| !group.dissolved)
                .filter(|(_, group)| {
                    values.iter().any(|name| name.to_lowercase() == group.name.to_lowercase())
                })
                .map(|(index, _)| Item::Group(index))
                .collect(),
            Some(Filter { property, .. }) => return Err(unsupported(property)),
        };
        let page = self.chains.page(&self.options, target, || found)?;
        self.show_page(target, &page, "groups", false)
    }

    /// The members as an index sees them that may lag.
    fn members(
        &mut self,
        now: Timestamp,
        request: &Request,
        target: &RequestTarget,
        group: usize,
        tail: &[&str],
    ) -> Served {
        let seen = earlier(now, self.options.membership_lag);
        let (cast, counted) = match tail {
            [] => (false, false),
            ["$count"] => (false, true),
            [USER_CAST] => (true, false),
            [USER_CAST, "$count"] => (true, true),
            [segment, ..] => return Err(SimulatedRefusal::unknown_segment(segment)),
        };
        let count_asked = target.option("$count") == Some("true");
        let paging = target.option("$skiptoken").is_some();
        if (cast || counted || count_asked) && !request.eventual
            || cast && !counted && !count_asked && !paging
        {
            return Err(SimulatedRefusal::new(
                400,
                "Request_UnsupportedQuery",
                "The specified query is not supported on index. To use it, set the \
                 'ConsistencyLevel' request header to 'eventual' and the '$count' query parameter \
                 to 'true'.",
            ));
        }
        let find = || {
            let (people, groups) = self.directory.members_of(group, seen);
            let visible = |index: &usize| self.directory.person(*index).user.appears_at <= seen;
            let people = people.into_iter().filter(visible).map(Item::Person);
            let groups = groups.into_iter().filter(|_| !cast).map(Item::Group);
            people.chain(groups).collect::<Vec<_>>()
        };
        if counted {
            return Ok(Reply::text(200, find().len().to_string()));
        }
        let page = self.chains.page(&self.options, target, find)?;
        let set = if cast { "users" } else { "directoryObjects" };
        self.show_page(target, &page, set, !cast)
    }

    fn show_page(
        &self,
        target: &RequestTarget,
        page: &super::listing::ListingPage,
        set: &str,
        typed: bool,
    ) -> Served {
        let select = target.option("$select");
        let show = |item: &Item| {
            let (mut shown, kind) = match *item {
                Item::Person(index) => (self.directory.person(index).shown(select)?, "user"),
                Item::Group(index) => (self.show_group(index, None)?, "group"),
            };
            if typed {
                shown.insert("@odata.type".into(), json!(format!("#microsoft.graph.{kind}")));
            }
            Ok(shown)
        };
        let show_selected = |item: &Item| match *item {
            Item::Group(index) if !typed => self.show_group(index, select),
            _ => show(item),
        };
        let value = page
            .items
            .iter()
            .map(show_selected)
            .collect::<Result<Vec<_>, SimulatedRefusal>>()?
            .into();
        Ok(Reply::json(200, page.shown(&self.options, target, set, value)))
    }

    fn show_group(
        &self,
        group: usize,
        select: Option<&str>,
    ) -> Result<Map<String, Value>, SimulatedRefusal> {
        let group = &self.directory.groups()[group];
        let names = select.unwrap_or("id,displayName,description,visibility,securityEnabled");
        names
            .split(',')
            .map(str::trim)
            .map(|name| {
                let value = match name {
                    "id" => json!(group.text),
                    "displayName" => json!(group.name),
                    "visibility" => json!(group.hidden.then_some("HiddenMembership")),
                    "securityEnabled" => json!(true),
                    "mailEnabled" => json!(false),
                    "groupTypes" => json!([]),
                    "description" | "mail" => Value::Null,
                    _ => {
                        let message = format!(
                            "Could not find a property named '{name}' on type 'microsoft.graph.group'."
                        );
                        return Err(SimulatedRefusal::new(400, "BadRequest", message));
                    }
                };
                Ok((name.to_owned(), value))
            })
            .collect()
    }
}

fn not_allowed() -> SimulatedRefusal {
    SimulatedRefusal::new(
        405,
        "Request_BadRequest",
        "Specified HTTP method is not allowed for the request target.",
    )
}

fn unsupported(property: &str) -> SimulatedRefusal {
    let message =
        format!("Unsupported or invalid query filter clause specified for property '{property}'.");
    SimulatedRefusal::new(400, "Request_UnsupportedQuery", message)
}
