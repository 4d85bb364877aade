//! Promises that the Temporary Access Pass policy changes only in the properties that are to
//! change, and that Graph's result was read again and compared.
//!
//! Planning is pure and lists every difference; only these are sent. Must never write a list of
//! targets that it has not just read.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::check::{self, CheckError};
use crate::run::Session;
use tapwave_core::backoff::exponential;
use tapwave_core::ids::GroupId;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_graph::{Graph, GraphError, Policy, PolicyPatch, Target};
use tapwave_ledger::PolicyRecord;

const ALL: &str = "all";

/// What to change in the policy; `None` leaves a property as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChange {
    pub enabled: Option<bool>,
    pub default_lifetime: Option<u32>,
    pub min_lifetime: Option<u32>,
    pub max_lifetime: Option<u32>,
    pub length: Option<u32>,
    pub one_time: Option<bool>,
    pub include: Option<Scope>,
    pub exclude: Option<Scope>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    Add(Vec<Target>),
    Only(Vec<Target>),
    Remove(Vec<Target>),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub property: &'static str,
    pub before: Value,
    pub after: Value,
}

/// A change, worked out against the policy as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyPlan {
    pub before: Policy,
    pub after: Policy,
    pub differences: Vec<Difference>,
    patch: PolicyPatch,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{name} cannot be {value}: give {least} to {most}")]
    Value { name: &'static str, value: u32, least: u32, most: u32 },
    #[error(
        "the lifetimes do not fit: minimum {min}, default {default} and maximum {max} minutes must rise in this order; change them together"
    )]
    Order { min: u32, default: u32, max: u32 },
    #[error(
        "the policy includes everyone already, so a group more changes nothing; --only narrows it to the group"
    )]
    Everyone,
    #[error("everyone cannot be excluded; tapwave policy disable turns passes off")]
    ExcludeAll,
    #[error(transparent)]
    Group(#[from] CheckError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(
        "Graph took the change, but still shows another {}", properties.join(", ")
    )]
    NotTaken { properties: Vec<&'static str> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Concern {
    #[error("the policy is disabled, so nobody can use a pass (EIDSCA.AT01 expects it enabled)")]
    Disabled,
    #[error(
        "multi-use passes are allowed tenant-wide (EIDSCA.AT02 and CIS expect one-time); device enrolment needs them, so narrow who is included and turn them off afterwards"
    )]
    MultiUse,
    #[error("passes may live {minutes} minutes, more than eight hours")]
    Long { minutes: u32 },
    #[error("passes live {minutes} minutes by default, more than eight hours")]
    LongDefault { minutes: u32 },
    #[error("everyone in the tenant is included; name a group with policy include GROUP --only")]
    Everyone,
    #[error("nobody is included, so nobody can have a pass")]
    Nobody,
}

impl PolicyChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what can be checked without the policy.
    pub fn check(&self) -> Result<(), PolicyError> {
        let lifetimes = limits::LIFETIME_MINUTES;
        within("--min-lifetime", self.min_lifetime, &lifetimes)?;
        within("--default-lifetime", self.default_lifetime, &lifetimes)?;
        within("--max-lifetime", self.max_lifetime, &lifetimes)?;
        within("--length", self.length, &limits::PASS_LENGTH)?;
        let min = self.min_lifetime.unwrap_or(*lifetimes.start());
        let max = self.max_lifetime.unwrap_or(*lifetimes.end());
        in_order(min, self.default_lifetime.unwrap_or(min), max)
    }

    pub fn plan(&self, before: Policy) -> Result<PolicyPlan, PolicyError> {
        self.check()?;
        let mut after = before.clone();
        if let Some(enabled) = self.enabled {
            after.state = Some(if enabled { "enabled" } else { "disabled" }.to_owned());
        }
        after.default_length = self.length.or(before.default_length);
        after.is_usable_once = self.one_time.or(before.is_usable_once);
        after.minimum_lifetime_in_minutes =
            self.min_lifetime.or(before.minimum_lifetime_in_minutes);
        after.maximum_lifetime_in_minutes =
            self.max_lifetime.or(before.maximum_lifetime_in_minutes);
        after.default_lifetime_in_minutes =
            self.default_lifetime.or(before.default_lifetime_in_minutes);
        if self.min_lifetime.or(self.max_lifetime).or(self.default_lifetime).is_some() {
            let PolicyRecord {
                min_lifetime_minutes: min,
                max_lifetime_minutes: max,
                default_lifetime_minutes: default,
                ..
            } = check::bounds(&after);
            in_order(min, default, max)?;
        }
        if let Some(scope) = &self.include {
            scope.change(&mut after.include_targets, true)?;
        }
        if let Some(scope) = &self.exclude {
            scope.change(&mut after.exclude_targets, false)?;
        }
        Ok(PolicyPlan::between(before, after))
    }
}

impl Scope {
    fn change(&self, list: &mut Vec<Target>, including: bool) -> Result<(), PolicyError> {
        match self {
            Self::Only(only) => {
                // A target that stays keeps its registration flag.
                let keep = |wanted: &Target| {
                    list.iter().find(|held| same(held, wanted)).unwrap_or(wanted).clone()
                };
                *list = only.iter().map(keep).collect();
            }
            Self::Add(more) if including && more.iter().any(Target::is_everyone) => {
                if !list.iter().any(Target::is_everyone) {
                    *list = vec![Target::everyone()];
                }
            }
            Self::Add(more) if !including && more.iter().any(Target::is_everyone) => {
                return Err(PolicyError::ExcludeAll);
            }
            Self::Add(more) => {
                if including && list.iter().any(Target::is_everyone) {
                    return Err(PolicyError::Everyone);
                }
                for target in more {
                    if !list.iter().any(|held| same(held, target)) {
                        list.push(target.clone());
                    }
                }
            }
            Self::Remove(some) => list.retain(|held| !some.iter().any(|gone| same(held, gone))),
        }
        Ok(())
    }
}

impl PolicyPlan {
    fn between(before: Policy, after: Policy) -> Self {
        fn changed<T: PartialEq + Clone>(before: &T, after: &T) -> Option<T> {
            (before != after).then(|| after.clone())
        }
        let patch = PolicyPatch {
            state: changed(&before.state, &after.state).flatten(),
            default_length: changed(&before.default_length, &after.default_length).flatten(),
            default_lifetime_in_minutes: changed(
                &before.default_lifetime_in_minutes,
                &after.default_lifetime_in_minutes,
            )
            .flatten(),
            minimum_lifetime_in_minutes: changed(
                &before.minimum_lifetime_in_minutes,
                &after.minimum_lifetime_in_minutes,
            )
            .flatten(),
            maximum_lifetime_in_minutes: changed(
                &before.maximum_lifetime_in_minutes,
                &after.maximum_lifetime_in_minutes,
            )
            .flatten(),
            is_usable_once: changed(&before.is_usable_once, &after.is_usable_once).flatten(),
            include_targets: changed(&before.include_targets, &after.include_targets),
            exclude_targets: changed(&before.exclude_targets, &after.exclude_targets),
        };
        let differences = differences(&before, &after);
        Self { before, after, differences, patch }
    }

    pub const fn patch(&self) -> &PolicyPatch {
        &self.patch
    }

    pub fn is_empty(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Sends a change and waits until Graph shows it.
pub async fn apply(plan: &PolicyPlan, session: &Session) -> Result<Policy, PolicyError> {
    session.stop.begin_work();
    session.graph.patch_policy(&plan.patch).await?;
    for difference in &plan.differences {
        tracing::info!(
            change = "policy",
            property = difference.property,
            before = %difference.before,
            after = %difference.after,
        );
    }
    for look in 0.. {
        let found = session.graph.policy().await?;
        let wrong: Vec<_> =
            differences(&found, &plan.after).iter().map(|one| one.property).collect();
        let is_changed =
            |property: &&str| plan.differences.iter().any(|one| one.property == *property);
        let properties: Vec<_> = wrong.into_iter().filter(is_changed).collect();
        if properties.is_empty() {
            return Ok(found);
        }
        if look + 1 == limits::POLICY_LOOKS {
            return Err(PolicyError::NotTaken { properties });
        }
        session.clock.sleep(exponential(limits::READ_BACKOFF, look, Duration::MAX)).await;
    }
    unreachable!("the loop ends within its looks")
}

/// Targets as people name them: `all`, a group's id, or its unique name. A group that is to be
/// removed may be gone from the directory, so that its id is not looked up.
pub async fn targets(
    graph: &Graph,
    wanted: &[String],
    removing: bool,
) -> Result<Vec<Target>, PolicyError> {
    let mut targets = Vec::with_capacity(wanted.len());
    for name in wanted {
        targets.push(match name.parse::<GroupId>() {
            _ if name.eq_ignore_ascii_case(ALL) => Target::everyone(),
            Ok(id) if removing => Target::group(id),
            _ => Target::group(check::resolve(graph, name).await?.id),
        });
    }
    Ok(targets)
}

/// The names of the policy's groups by id, without those that may not be read.
pub async fn names(
    graph: &Graph,
    policies: &[&Policy],
) -> Result<BTreeMap<String, String>, GraphError> {
    let mut names = BTreeMap::new();
    let lists = policies.iter().flat_map(|it| it.include_targets.iter().chain(&it.exclude_targets));
    for target in lists.filter(|target| !target.is_user()).take(limits::MAX_GROUPS) {
        let Ok(id) = target.id.parse::<GroupId>() else { continue };
        if names.contains_key(&target.id) {
            continue;
        }
        match graph.group(id).await {
            Ok(Some(group)) => {
                let name = group.display_name.as_deref().map(plain);
                names.insert(target.id.clone(), name.unwrap_or_default());
            }
            Ok(None) => {
                names.insert(target.id.clone(), "gone from the directory".to_owned());
            }
            // Without the permission to read names, ids must do.
            Err(GraphError::Refused { .. }) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

pub fn concerns(policy: &Policy) -> Vec<Concern> {
    let bounds = check::bounds(policy);
    let mut concerns = Vec::new();
    if policy.state.as_deref() != Some("enabled") {
        concerns.push(Concern::Disabled);
    }
    if !bounds.one_time {
        concerns.push(Concern::MultiUse);
    }
    if bounds.max_lifetime_minutes > limits::WORKING_DAY_MINUTES {
        concerns.push(Concern::Long { minutes: bounds.max_lifetime_minutes });
    }
    if bounds.default_lifetime_minutes > limits::WORKING_DAY_MINUTES {
        concerns.push(Concern::LongDefault { minutes: bounds.default_lifetime_minutes });
    }
    if policy.include_targets.iter().any(Target::is_everyone) {
        concerns.push(Concern::Everyone);
    } else if policy.include_targets.is_empty() {
        concerns.push(Concern::Nobody);
    }
    concerns
}

fn differences(before: &Policy, after: &Policy) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |property, before: Value, after: Value| {
        if before != after {
            differences.push(Difference { property, before, after });
        }
    };
    compare("state", json!(before.state), json!(after.state));
    compare("defaultLength", json!(before.default_length), json!(after.default_length));
    compare(
        "minimumLifetimeInMinutes",
        json!(before.minimum_lifetime_in_minutes),
        json!(after.minimum_lifetime_in_minutes),
    );
    compare(
        "defaultLifetimeInMinutes",
        json!(before.default_lifetime_in_minutes),
        json!(after.default_lifetime_in_minutes),
    );
    compare(
        "maximumLifetimeInMinutes",
        json!(before.maximum_lifetime_in_minutes),
        json!(after.maximum_lifetime_in_minutes),
    );
    compare("isUsableOnce", json!(before.is_usable_once), json!(after.is_usable_once));
    compare("includeTargets", ids(&before.include_targets), ids(&after.include_targets));
    compare("excludeTargets", ids(&before.exclude_targets), ids(&after.exclude_targets));
    differences
}

/// Sorted, since Graph keeps no order.
fn ids(targets: &[Target]) -> Value {
    let mut ids: Vec<String> = targets.iter().map(|target| target.id.to_lowercase()).collect();
    ids.sort_unstable();
    json!(ids)
}

fn same(one: &Target, other: &Target) -> bool {
    one.id.eq_ignore_ascii_case(&other.id)
}

fn within(
    name: &'static str,
    value: Option<u32>,
    bounds: &RangeInclusive<u32>,
) -> Result<(), PolicyError> {
    match value.filter(|value| !bounds.contains(value)) {
        None => Ok(()),
        Some(value) => {
            Err(PolicyError::Value { name, value, least: *bounds.start(), most: *bounds.end() })
        }
    }
}

fn in_order(min: u32, default: u32, max: u32) -> Result<(), PolicyError> {
    if min <= default && default <= max {
        Ok(())
    } else {
        Err(PolicyError::Order { min, default, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "11111111-2222-4333-8444-555555555555";

    fn policy() -> Policy {
        serde_json::from_value(json!({
            "state": "enabled", "defaultLength": 8, "minimumLifetimeInMinutes": 60,
            "maximumLifetimeInMinutes": 480, "defaultLifetimeInMinutes": 60,
            "isUsableOnce": false,
            "includeTargets": [{"id": GROUP, "targetType": "group", "isRegistrationRequired": true}],
            "excludeTargets": []
        }))
        .expect("a policy")
    }

    fn group() -> Target {
        Target::group(GROUP.parse().expect("an id"))
    }

    #[test]
    fn a_patch_holds_what_changes_and_nothing_else() {
        let change =
            PolicyChange { max_lifetime: Some(600), length: Some(8), ..PolicyChange::default() };
        let plan = change.plan(policy()).expect("a plan");
        assert_eq!(plan.differences.len(), 1);
        assert_eq!(json!(plan.patch), json!({"maximumLifetimeInMinutes": 600}));
        assert!(
            PolicyChange { enabled: Some(true), ..PolicyChange::default() }
                .plan(policy())
                .expect("one")
                .is_empty()
        );
    }

    #[test]
    fn lifetimes_are_checked_against_what_stays() {
        let plan = |change: PolicyChange| {
            change.plan(policy()).map(drop).map_err(|error| error.to_string())
        };
        for change in [
            PolicyChange { min_lifetime: Some(61), ..PolicyChange::default() },
            PolicyChange { max_lifetime: Some(59), ..PolicyChange::default() },
            PolicyChange { default_lifetime: Some(481), ..PolicyChange::default() },
            PolicyChange { min_lifetime: Some(9), ..PolicyChange::default() },
            PolicyChange { max_lifetime: Some(43_201), ..PolicyChange::default() },
            PolicyChange { length: Some(7), ..PolicyChange::default() },
            PolicyChange { length: Some(49), ..PolicyChange::default() },
        ] {
            assert!(plan(change.clone()).is_err(), "{change:?}");
        }
        for change in [
            PolicyChange { min_lifetime: Some(10), ..PolicyChange::default() },
            PolicyChange {
                max_lifetime: Some(43_200),
                default_lifetime: Some(43_200),
                ..PolicyChange::default()
            },
            PolicyChange { length: Some(48), ..PolicyChange::default() },
        ] {
            assert_eq!(plan(change), Ok(()));
        }
    }

    #[test]
    fn targets_keep_what_they_carry_and_are_not_doubled() {
        let include = |scope| PolicyChange { include: Some(scope), ..PolicyChange::default() };
        assert!(include(Scope::Add(vec![group()])).plan(policy()).expect("one").is_empty());
        assert!(include(Scope::Only(vec![group()])).plan(policy()).expect("one").is_empty());
        let all = include(Scope::Add(vec![Target::everyone()])).plan(policy()).expect("a plan");
        assert_eq!(
            json!(all.patch),
            json!({"includeTargets": [{"id": "all_users", "targetType": "group"}]})
        );
        let narrower = include(Scope::Add(vec![group()])).plan(all.after);
        assert!(matches!(narrower, Err(PolicyError::Everyone)));
        let none = include(Scope::Remove(vec![group()])).plan(policy()).expect("a plan");
        assert_eq!(json!(none.patch), json!({"includeTargets": []}));
    }

    #[test]
    fn everyone_is_never_excluded() {
        let change = PolicyChange {
            exclude: Some(Scope::Add(vec![Target::everyone()])),
            ..PolicyChange::default()
        };
        assert!(matches!(change.plan(policy()), Err(PolicyError::ExcludeAll)));
    }

    #[test]
    fn auditors_hear_of_what_they_look_for() {
        let mut policy = policy();
        assert_eq!(concerns(&policy), [Concern::MultiUse]);
        policy.is_usable_once = Some(true);
        assert_eq!(concerns(&policy), []);
        policy.maximum_lifetime_in_minutes = Some(481);
        policy.include_targets = vec![Target::everyone()];
        policy.state = None;
        assert_eq!(
            concerns(&policy),
            [Concern::Disabled, Concern::Long { minutes: 481 }, Concern::Everyone]
        );
    }
}
