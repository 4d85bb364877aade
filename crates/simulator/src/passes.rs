//! Promises passes that live and die by the tenant's clock, and a log in which nothing that
//! happened to one is ever changed or missing.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::answer::{SimulatedRefusal, precise};
use super::policy::PassPolicy;
use tapwave_core::clock::later;
use tapwave_core::ids::UserId;

/// A pass that exists, used up or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LivePass {
    pub method: String,
    pub code: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it begins to be good.
    pub start: Timestamp,
    /// For how long it is.
    pub lifetime_minutes: u32,
    /// Good for one sign-in.
    pub one_time: bool,
    /// Somebody has signed in with it.
    pub used: bool,
}

/// Whether a pass can be used, and why, in Graph's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Usability {
    /// It can.
    EnabledByPolicy,
    /// The policy is off, or the user is not in its scope.
    DisabledByPolicy,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// Its one sign-in has been.
    OneTimeUsed,
}

/// What became of the 201 that carried a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplyFate {
    /// The caller never saw it.
    Never,
    /// Part of it was sent; the code may have been in it.
    Partly,
    /// All of it was sent.
    Whole,
}

/// One thing that happened to one pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum PassEvent {
    /// It was made.
    Minted {
        method: String,
        code: String,
        /// Whether the caller was told.
        shown: ReplyFate,
        lifetime_minutes: u32,
        start: Timestamp,
        /// Good for one sign-in.
        one_time: bool,
        /// The id in the 201, if it is another than the one the pass has.
        #[serde(skip_serializing_if = "Option::is_none")]
        told: Option<String>,
        /// Somebody else made it.
        elsewhere: bool,
    },
    /// A newer one took its place.
    Replaced { method: String },
    /// It was deleted by its id, or with its user.
    Deleted {
        method: String,
        /// Somebody else did it.
        elsewhere: bool,
    },
    /// Somebody signed in with it.
    Used { method: String },
}

/// A line of the tenant's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// When, on the tenant's clock.
    pub at: Timestamp,
    pub user: UserId,
    /// The user's UPN at that time.
    pub upn: String,
    pub event: PassEvent,
}

impl LivePass {
    /// When it ends to be good.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        later(self.start, Duration::from_mins(u64::from(self.lifetime_minutes)))
    }

    pub(super) fn usability(&self, in_scope: bool, now: Timestamp) -> Usability {
        if self.one_time && self.used {
            Usability::OneTimeUsed
        } else if now >= self.ends() {
            Usability::Expired
        } else if !in_scope {
            Usability::DisabledByPolicy
        } else if now < self.start {
            Usability::NotYetValid
        } else {
            Usability::EnabledByPolicy
        }
    }

    /// The pass as Graph shows it; the code in the 201 alone.
    pub(super) fn shown(
        &self,
        usability: Usability,
        omit_is_usable: bool,
        with_code: bool,
    ) -> Map<String, Value> {
        let usable = usability == Usability::EnabledByPolicy;
        let Value::Object(mut shown) = json!({
            "id": self.method,
            "isUsable": usable,
            "methodUsabilityReason": format!("{usability:?}"),
            "temporaryAccessPass": with_code.then_some(&self.code),
            "createdDateTime": precise(self.created),
            "startDateTime": precise(self.start),
            "lifetimeInMinutes": self.lifetime_minutes,
            "isUsableOnce": self.one_time,
        }) else {
            return Map::new();
        };
        if omit_is_usable {
            shown.remove("isUsable");
        }
        shown
    }
}

/// What a POST asks for, with the policy's defaults in what it left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PassRequest {
    pub(super) start: Timestamp,
    pub(super) lifetime_minutes: u32,
    pub(super) one_time: bool,
}

impl PassRequest {
    pub(super) fn read(
        body: Option<&[u8]>,
        policy: &PassPolicy,
        now: Timestamp,
    ) -> Result<Self, SimulatedRefusal> {
        let body = object(body)?;
        let mut request = Self {
            start: now,
            lifetime_minutes: policy.default_lifetime,
            one_time: policy.one_time,
        };
        for (name, value) in &body {
            match name.as_str() {
                "@odata.type" => {}
                // `null` means what leaving out means.
                "startDateTime" | "lifetimeInMinutes" | "isUsableOnce" if value.is_null() => {}
                "startDateTime" => request.start = read_start(value, now)?,
                "lifetimeInMinutes" => request.lifetime_minutes = read_lifetime(value, policy)?,
                "isUsableOnce" => request.one_time = read_one_time(value, policy)?,
                _ => {
                    return Err(SimulatedRefusal::method(format!(
                        "The property '{name}' does not exist on type \
                         'microsoft.graph.temporaryAccessPassAuthenticationMethod'. Make sure to \
                         only use property names that are defined by the type."
                    )));
                }
            }
        }
        Ok(request)
    }
}

/// The JSON object of a body; Graph refuses none at all and anything else.
pub(super) fn object(body: Option<&[u8]>) -> Result<Map<String, Value>, SimulatedRefusal> {
    let body = body.filter(|body| !body.is_empty()).ok_or_else(|| {
        SimulatedRefusal::new(400, "BadRequest", "Empty Payload. JSON content expected.")
    })?;
    serde_json::from_slice(body).map_err(|_| {
        let message = "Unable to read JSON request payload. Please ensure Content-Type header is \
                       set and payload is of valid JSON format.";
        SimulatedRefusal::new(400, "BadRequest", message)
    })
}

fn read_start(value: &Value, now: Timestamp) -> Result<Timestamp, SimulatedRefusal> {
    let past = || {
        SimulatedRefusal::method(
            "Invalid StartDateTime specified. StartDateTime can not be a time in the past.",
        )
    };
    // A time without an offset does not parse as a moment; Graph's reports show the same
    // words for it as for the past.
    let start: Timestamp = value.as_str().and_then(|text| text.parse().ok()).ok_or_else(past)?;
    if start < now { Err(past()) } else { Ok(start) }
}

fn read_lifetime(value: &Value, policy: &PassPolicy) -> Result<u32, SimulatedRefusal> {
    let (least, most) = (policy.minimum_lifetime, policy.maximum_lifetime);
    let lifetime = value.as_u64().and_then(|number| u32::try_from(number).ok());
    lifetime.filter(|lifetime| (least..=most).contains(lifetime)).ok_or_else(|| {
        SimulatedRefusal::method(format!(
            "Invalid LifetimeInMinutes specified. The valid range between {least} and {most}."
        ))
    })
}

fn read_one_time(value: &Value, policy: &PassPolicy) -> Result<bool, SimulatedRefusal> {
    match value.as_bool() {
        Some(false) if policy.one_time => Err(SimulatedRefusal::method(
            "Invalid IsUsableOnce specified. Tenant Policy does not allow multiple use temporary \
             access pass method.",
        )),
        Some(one_time) => Ok(one_time),
        None => Err(SimulatedRefusal::method("Invalid IsUsableOnce specified.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T08:00:00.5Z".parse().expect("a time")
    }

    fn read(body: &str, policy: &PassPolicy) -> Result<PassRequest, String> {
        PassRequest::read(Some(body.as_bytes()), policy, now()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_is_left_out_or_null_comes_from_the_policy() {
        let policy = PassPolicy::default();
        let plain = PassRequest { start: now(), lifetime_minutes: 60, one_time: false };
        assert_eq!(read("{}", &policy), Ok(plain));
        let nulls = r#"{"startDateTime":null,"lifetimeInMinutes":null,"isUsableOnce":null}"#;
        assert_eq!(read(nulls, &policy), Ok(plain));
        let forced = PassPolicy { one_time: true, ..policy };
        assert_eq!(read("{}", &forced), Ok(PassRequest { one_time: true, ..plain }));
    }

    #[test]
    fn refusals_are_in_graphs_words() {
        let policy = PassPolicy { one_time: true, ..PassPolicy::default() };
        for (body, part) in [
            ("", "Empty Payload"),
            ("[]", "Unable to read JSON"),
            (r#"{"lifetimeInMinutes":59}"#, "The valid range between 60 and 480."),
            (r#"{"lifetimeInMinutes":"60"}"#, "LifetimeInMinutes"),
            (r#"{"isUsableOnce":false}"#, "does not allow multiple use"),
            (r#"{"startDateTime":"2026-03-01T08:00:00Z"}"#, "time in the past"),
            (r#"{"startDateTime":"2026-03-02T08:00:00"}"#, "time in the past"),
            (r#"{"length":8}"#, "'length'"),
        ] {
            let message = read(body, &policy).expect_err("a refusal");
            assert!(message.contains(part), "{body}: {message}");
        }
    }

    #[test]
    fn a_pass_lives_by_the_clock() {
        let minute = |minutes| later(now(), Duration::from_mins(minutes));
        let pass = LivePass {
            method: "m".into(),
            code: "c".into(),
            created: now(),
            start: minute(10),
            lifetime_minutes: 60,
            one_time: true,
            used: false,
        };
        let used = LivePass { used: true, ..pass.clone() };
        assert_eq!(pass.usability(true, minute(9)), Usability::NotYetValid);
        assert_eq!(pass.usability(true, minute(10)), Usability::EnabledByPolicy);
        assert_eq!(pass.usability(false, minute(10)), Usability::DisabledByPolicy);
        assert_eq!(used.usability(true, minute(10)), Usability::OneTimeUsed);
        assert_eq!(pass.usability(true, minute(70)), Usability::Expired);
    }
}
