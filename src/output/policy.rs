//! Promises the policy as people and scripts read it: `tapwave.policy/1`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::{Report, shown};
use tapwave_graph::sign_in::permissions::Grants;
use tapwave_graph::{Policy, Target};
use tapwave_pipeline::check::Problem;
use tapwave_pipeline::policy::{Difference, concerns};

/// What the policy's groups are called, by id.
pub type GroupNames = BTreeMap<String, String>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyJson<'a> {
    schema: &'static str,
    state: Option<&'a str>,
    default_length: Option<u32>,
    minimum_lifetime_in_minutes: Option<u32>,
    default_lifetime_in_minutes: Option<u32>,
    maximum_lifetime_in_minutes: Option<u32>,
    is_usable_once: Option<bool>,
    include_targets: Vec<Named<'a>>,
    exclude_targets: Vec<Named<'a>>,
    warnings: Vec<String>,
    /// What was asked to change; empty for `show`.
    changes: &'a [Difference],
    /// Whether these changes were made and seen.
    applied: bool,
}

impl<'a> PolicyJson<'a> {
    fn of(
        policy: &'a Policy,
        names: &'a GroupNames,
        changes: &'a [Difference],
        applied: bool,
    ) -> Self {
        let all = |targets: &'a [Target]| targets.iter().map(|it| named(it, names)).collect();
        Self {
            schema: "tapwave.policy/1",
            state: policy.state.as_deref(),
            default_length: policy.default_length,
            minimum_lifetime_in_minutes: policy.minimum_lifetime_in_minutes,
            default_lifetime_in_minutes: policy.default_lifetime_in_minutes,
            maximum_lifetime_in_minutes: policy.maximum_lifetime_in_minutes,
            is_usable_once: policy.is_usable_once,
            include_targets: all(&policy.include_targets),
            exclude_targets: all(&policy.exclude_targets),
            warnings: concerns(policy).iter().map(ToString::to_string).collect(),
            changes,
            applied,
        }
    }
}

#[derive(Serialize)]
struct PolicyAccess<'a> {
    schema: &'static str,
    verdict: &'static str,
    graph: &'a str,
    who: Option<&'a str>,
    tenant: Option<&'a str>,
    kind: &'static str,
    permissions: Option<&'a [String]>,
    problems: Vec<String>,
    policy: PolicyJson<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named<'a> {
    #[serde(flatten)]
    target: &'a Target,
    display_name: Option<&'a str>,
}

impl Report {
    /// The policy and what an auditor would ask about it.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn policy(
        &self,
        policy: &Policy,
        names: &GroupNames,
        changes: &[Difference],
        applied: bool,
    ) -> io::Result<()> {
        if self.is_json() {
            return self.json(&PolicyJson::of(policy, names, changes, applied));
        }
        let mut out = io::stdout().lock();
        for (name, value) in lines(policy, names) {
            writeln!(out, "{name:<17} {value}")?;
        }
        drop(out);
        for concern in concerns(policy) {
            self.warn(concern);
        }
        Ok(())
    }

    /// What `check --access` found: `tapwave.access/1`.
    ///
    /// # Errors
    /// If stdout takes no more.
    pub fn access(
        &self,
        graph: &str,
        grants: &Grants,
        policy: &Policy,
        names: &GroupNames,
        problems: &[Problem],
    ) -> io::Result<()> {
        let claims = grants.claims();
        let who = claims.and_then(|claims| claims.who.as_deref());
        let tenant = claims.and_then(|claims| claims.tenant.as_deref());
        if self.is_json() {
            return self.json(&PolicyAccess {
                schema: "tapwave.access/1",
                verdict: if problems.is_empty() { "ready" } else { "problems" },
                graph,
                who,
                tenant,
                kind: grants.kind(),
                permissions: claims.map(|claims| &claims.permissions[..]),
                problems: problems.iter().map(ToString::to_string).collect(),
                policy: PolicyJson::of(policy, names, &[], false),
            });
        }
        let mut out = io::stdout().lock();
        let unknown = || "the token does not say".to_owned();
        writeln!(out, "{:<17} {graph}", "graph")?;
        writeln!(out, "{:<17} {}", "tenant", tenant.map_or_else(unknown, shown))?;
        writeln!(out, "{:<17} {}", "signed in as", who.map_or_else(unknown, shown))?;
        let permissions = match claims {
            Some(claims) => shown(&claims.permissions.join(" ")),
            None => unknown(),
        };
        writeln!(out, "{:<17} {}: {permissions}", "permissions", grants.kind())?;
        drop(out);
        self.policy(policy, names, &[], false)?;
        for problem in problems {
            self.error(format_args!("every row {problem}"));
        }
        Ok(())
    }

    /// Every difference as a line of words.
    pub fn differences(&self, differences: &[Difference], names: &GroupNames) {
        for Difference { property, before, after } in differences {
            let (before, after) = (value(before, names), value(after, names));
            self.info(format_args!("{property}: {before} → {after}"));
        }
    }
}

fn named<'a>(target: &'a Target, names: &'a GroupNames) -> Named<'a> {
    Named { target, display_name: names.get(&target.id).map(String::as_str) }
}

fn lines(policy: &Policy, names: &GroupNames) -> [(&'static str, String); 8] {
    let minutes = |value: Option<u32>| value.map_or_else(unsaid, |it| format!("{it} minutes"));
    let list = |targets: &[Target]| match targets {
        [] => "nobody".to_owned(),
        some => some.iter().map(|it| target(&it.id, names)).collect::<Vec<_>>().join(", "),
    };
    let uses = match policy.is_usable_once {
        Some(true) => "one-time alone".to_owned(),
        Some(false) => "multi-use allowed".to_owned(),
        None => unsaid(),
    };
    [
        ("state", policy.state.as_deref().map_or_else(unsaid, shown)),
        ("uses", uses),
        ("minimum lifetime", minutes(policy.minimum_lifetime_in_minutes)),
        ("default lifetime", minutes(policy.default_lifetime_in_minutes)),
        ("maximum lifetime", minutes(policy.maximum_lifetime_in_minutes)),
        ("length", policy.default_length.map_or_else(unsaid, |it| format!("{it} characters"))),
        ("included", list(&policy.include_targets)),
        ("excluded", list(&policy.exclude_targets)),
    ]
}

fn unsaid() -> String {
    "not said by Graph".to_owned()
}

fn target(id: &str, names: &GroupNames) -> String {
    match names.get(id) {
        Some(name) => format!("{} ({})", shown(name), shown(id)),
        None if id.eq_ignore_ascii_case("all_users") => "everyone".to_owned(),
        None => shown(id),
    }
}

fn value(value: &Value, names: &GroupNames) -> String {
    match value {
        Value::Null => unsaid(),
        Value::String(text) => shown(text),
        Value::Array(ids) if ids.is_empty() => "nobody".to_owned(),
        Value::Array(ids) => {
            let each = ids.iter().filter_map(Value::as_str).map(|id| target(id, names));
            each.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
