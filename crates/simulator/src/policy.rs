//! Promises the Temporary Access Pass policy: its documented defaults, its bounds, and who is
//! in its scope. What a PATCH leaves out keeps its value, and a PATCH that is wrong in one
//! place changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::SimulatedRefusal;
use tapwave_core::ids::{GroupId, UserId};
use tapwave_core::limits;

const TYPE: &str = "#microsoft.graph.temporaryAccessPassAuthenticationMethodConfiguration";
/// The target that means everyone; its kind is group.
pub(super) const ALL_USERS: &str = "all_users";

/// The policy's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassPolicy {
    /// Whether passes can be used at all.
    pub enabled: bool,
    /// Bytes in a code, 8–48.
    pub default_length: u32,
    /// Minutes a pass lives when a request does not say.
    pub default_lifetime: u32,
    /// Fewest minutes that may be asked for.
    pub minimum_lifetime: u32,
    /// Most minutes that may be asked for.
    pub maximum_lifetime: u32,
    /// Forces every pass to be good for one sign-in.
    pub one_time: bool,
    /// Who may have a pass.
    pub include: Vec<PolicyTarget>,
    /// Who may not, whatever `include` says.
    pub exclude: Vec<PolicyTarget>,
}

/// A user, a group with all inside it, or everyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTarget {
    /// An object id, or `all_users`.
    pub id: String,
    /// What the id names.
    pub kind: TargetKind,
}

/// What a target's id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TargetKind {
    /// One user.
    User,
    /// A group, transitively; or everyone.
    Group,
}

impl PolicyTarget {
    /// Everyone.
    #[must_use]
    pub fn everyone() -> Self {
        Self { id: ALL_USERS.into(), kind: TargetKind::Group }
    }

    /// A group by its id.
    #[must_use]
    pub fn group(id: GroupId) -> Self {
        Self { id: id.to_string(), kind: TargetKind::Group }
    }

    /// A user by id.
    #[must_use]
    pub fn user(id: UserId) -> Self {
        Self { id: id.to_string(), kind: TargetKind::User }
    }
}

impl Default for PassPolicy {
    /// Enabled for everyone, otherwise as a fresh tenant has it.
    fn default() -> Self {
        Self {
            enabled: true,
            default_length: 8,
            default_lifetime: 60,
            minimum_lifetime: 60,
            maximum_lifetime: 480,
            one_time: false,
            include: vec![PolicyTarget::everyone()],
            exclude: Vec::new(),
        }
    }
}

impl PassPolicy {
    /// The policy as GET shows it.
    pub(super) fn shown(&self, base: &str) -> Value {
        let path = "policies/authenticationMethodsPolicy/authenticationMethodConfigurations";
        let kind = |kind| if kind == TargetKind::User { "user" } else { "group" };
        let include = |target: &PolicyTarget| json!({"id": target.id, "targetType": kind(target.kind), "isRegistrationRequired": false});
        let exclude =
            |target: &PolicyTarget| json!({"id": target.id, "targetType": kind(target.kind)});
        json!({
            "@odata.context": format!("{base}/$metadata#{path}/$entity"),
            "@odata.type": TYPE,
            "id": "TemporaryAccessPass",
            "state": if self.enabled { "enabled" } else { "disabled" },
            "defaultLifetimeInMinutes": self.default_lifetime,
            "defaultLength": self.default_length,
            "minimumLifetimeInMinutes": self.minimum_lifetime,
            "maximumLifetimeInMinutes": self.maximum_lifetime,
            "isUsableOnce": self.one_time,
            "excludeTargets": self.exclude.iter().map(exclude).collect::<Value>(),
            "includeTargets@odata.context": format!(
                "{base}/$metadata#{path}('TemporaryAccessPass')/microsoft.graph.\
                 temporaryAccessPassAuthenticationMethodConfiguration/includeTargets"
            ),
            "includeTargets": self.include.iter().map(include).collect::<Value>(),
        })
    }

    /// Takes a PATCH, or leaves everything as it was.
    pub(super) fn patch(&mut self, body: &Map<String, Value>) -> Result<(), SimulatedRefusal> {
        if body.get("@odata.type").and_then(Value::as_str) != Some(TYPE) {
            return Err(refused(
                "A type must be given in '@odata.type' to update the configuration",
            ));
        }
        let mut changed = self.clone();
        for (name, value) in body {
            changed.set(name, value)?;
        }
        let (least, most) = (changed.minimum_lifetime, changed.maximum_lifetime);
        if least > most || !(least..=most).contains(&changed.default_lifetime) {
            return Err(refused(
                "DefaultLifetimeInMinutes must be between MinimumLifetimeInMinutes and \
                 MaximumLifetimeInMinutes",
            ));
        }
        *self = changed;
        Ok(())
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), SimulatedRefusal> {
        match name {
            "@odata.type" | "@odata.context" | "id" | "includeTargets@odata.context" => {}
            "state" => {
                self.enabled = match value.as_str() {
                    Some("enabled") => true,
                    Some("disabled") => false,
                    _ => return Err(refused("Invalid State specified")),
                }
            }
            "isUsableOnce" => {
                self.one_time =
                    value.as_bool().ok_or_else(|| refused("Invalid IsUsableOnce specified"))?;
            }
            "defaultLength" => self.default_length = number(name, value, 8..=48)?,
            "defaultLifetimeInMinutes" => {
                self.default_lifetime = number(name, value, limits::LIFETIME_MINUTES)?;
            }
            "minimumLifetimeInMinutes" => {
                self.minimum_lifetime = number(name, value, limits::LIFETIME_MINUTES)?;
            }
            "maximumLifetimeInMinutes" => {
                self.maximum_lifetime = number(name, value, limits::LIFETIME_MINUTES)?;
            }
            "includeTargets" => self.include = targets(value)?,
            "excludeTargets" => self.exclude = targets(value)?,
            _ => {
                return Err(refused(format!(
                    "The property '{name}' does not exist on type '{}'. Make sure to only use \
                     property names that are defined by the type",
                    &TYPE[1..]
                )));
            }
        }
        Ok(())
    }
}

fn refused(message: impl Into<String>) -> SimulatedRefusal {
    SimulatedRefusal::method(format!("{}.", message.into()))
}

fn number(
    name: &str,
    value: &Value,
    within: std::ops::RangeInclusive<u32>,
) -> Result<u32, SimulatedRefusal> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|number| within.contains(number)).ok_or_else(|| {
        refused(format!(
            "Invalid {name} specified. The valid range is between {} and {}",
            within.start(),
            within.end()
        ))
    })
}

fn targets(value: &Value) -> Result<Vec<PolicyTarget>, SimulatedRefusal> {
    let target = |value: &Value| {
        let kind = match value["targetType"].as_str() {
            Some("user") => TargetKind::User,
            Some("group") => TargetKind::Group,
            _ => return Err(refused("Invalid TargetType specified")),
        };
        let id = value["id"].as_str().unwrap_or_default();
        if !(id == ALL_USERS && kind == TargetKind::Group || Uuid::try_parse(id).is_ok()) {
            return Err(refused(format!("Invalid target id '{id}' specified")));
        }
        Ok(PolicyTarget { id: id.to_owned(), kind })
    };
    value
        .as_array()
        .ok_or_else(|| refused("Invalid targets specified"))?
        .iter()
        .map(target)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(body: &Value) -> Result<PassPolicy, String> {
        let mut policy = PassPolicy::default();
        let before = policy.clone();
        match policy.patch(body.as_object().expect("an object")) {
            Ok(()) => Ok(policy),
            Err(refusal) => {
                assert_eq!(policy, before, "a refused PATCH changed something");
                Err(refusal.message)
            }
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_alone() {
        let body = json!({"@odata.type": TYPE, "state": "disabled", "defaultLength": 12});
        let policy = patched(&body).expect("a policy");
        let expected = PassPolicy { enabled: false, default_length: 12, ..PassPolicy::default() };
        assert_eq!(policy, expected);
    }

    #[test]
    fn a_wrong_patch_changes_nothing() {
        for (body, part) in [
            (json!({"state": "disabled"}), "@odata.type"),
            (json!({"@odata.type": TYPE, "state": "disabled", "length": 12}), "'length'"),
            (json!({"@odata.type": TYPE, "defaultLength": 7}), "defaultLength"),
            (json!({"@odata.type": TYPE, "minimumLifetimeInMinutes": 500}), "between"),
            (json!({"@odata.type": TYPE, "maximumLifetimeInMinutes": 43_201}), "43200"),
            (json!({"@odata.type": TYPE, "isUsableOnce": null}), "IsUsableOnce"),
            (
                json!({"@odata.type": TYPE, "includeTargets": [{"id": "x", "targetType": "user"}]}),
                "'x'",
            ),
            (
                json!({"@odata.type": TYPE, "includeTargets": [{"id": ALL_USERS, "targetType": "user"}]}),
                "all_users",
            ),
        ] {
            let message = patched(&body).expect_err("a refusal");
            assert!(message.contains(part), "{message}");
        }
    }
}
