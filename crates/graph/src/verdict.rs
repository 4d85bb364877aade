//! Promises that what one exchange with Graph means is decided in one pure place.
//!
//! The distinction that matters: a write that certainly had no effect may be tried again at
//! once, one whose effect nobody knows may not. Only what is known to be without effect
//! counts as such: a request of which no byte was sent, and the statuses 400, 401, 403, 404
//! and 429. Everything else that is not a success is unsettled, and so is whatever somebody
//! else than Graph said.

use std::time::Duration;

use jiff::Timestamp;

use super::between::{GRAPH, Intermediary};
use super::transport::{Broken, Response};
use super::wire;
use tapwave_core::clock;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::limits;
use tapwave_core::shown::plain;

/// What is said when a budget is refused for longer than anybody should wait.
pub(super) const THROTTLED_THROUGHOUT: &str =
    "it has thrown every request back for too long (HTTP 429)";

/// What came of one exchange.
pub struct Verdict {
    /// Done is a 2xx whose whole body arrived.
    pub effect: Effect<Response, Refusal>,
    /// How long Graph asks us to wait before the next, with a 429 or a 503; absent when it does
    /// not say.
    pub wait: Option<Duration>,
    /// What stands between us and Graph, and told this in its place or let nothing through. It
    /// concerns every request alike.
    pub between: Option<String>,
}

/// A definite no, in Graph's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (HTTP {status}, {code})")]
pub struct Refusal {
    pub status: u16,
    /// Graph's error code, such as `badRequest`; only the message tells most cases apart.
    pub code: String,
    /// Graph's message, control characters removed and shortened.
    pub message: String,
    /// What we make of it.
    pub kind: RefusalKind,
    pub request_id: Option<String>,
}

/// The refusals that call for different advice. Matched softly by words seen on the wire
/// (users' reports): whatever does not match is [`RefusalKind::Other`], never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The lifetime is outside the policy.
    Lifetime,
    /// The policy demands one-time passes.
    OneTime,
    /// The start lies in the past.
    StartPast,
    /// The policy is off, or the user is outside of it.
    PolicyScope,
    /// External guests get no pass.
    Guest,
    /// A pass is there and must be deleted first.
    AlreadyThere,
    /// A permission is missing, or the user holds an admin role above the caller.
    Forbidden,
    /// The tenant lacks a licence.
    Licence,
    /// The pass is gone.
    MethodGone,
    /// The user is not, or not yet, there.
    UserGone,
    /// Anything else.
    Other,
}

/// Judges one exchange. `now` is only used for a `Retry-After` date when the answer has no
/// `Date` of its own.
#[must_use]
pub fn judge(exchange: Result<Response, Broken>, now: Timestamp) -> Verdict {
    let response = match exchange {
        Ok(response) => response,
        Err(broken) => {
            let between = match &broken {
                Broken::Between(why) | Broken::Stranger(why) => Some(why.clone()),
                Broken::NotSent(_) | Broken::Lost(_) | Broken::SignIn(_) => None,
            };
            return Verdict { effect: broken.into(), wait: None, between };
        }
    };
    if let Some(page) = Intermediary::page(GRAPH, response.status, None, None, &response.body) {
        let why = page.to_string();
        let effect = Effect::Unsettled { why: why.clone() };
        return Verdict { effect, wait: None, between: Some(why) };
    }
    let wait = response
        .retry_after
        .as_deref()
        .and_then(|text| retry_after(text, response.date.unwrap_or(now)));
    let effect = match response.status {
        200..=299 => Effect::Done(response),
        429 => Obstacle::new(ObstacleKind::Throttled, "throttled (HTTP 429)").into(),
        401 => Obstacle::new(ObstacleKind::SignIn, refusal(&response).to_string()).into(),
        400 | 403 | 404 if wire::error(&response.body).is_some() => {
            Effect::Refused(refusal(&response))
        }
        // Graph says why (documented): whoever says no without that may have let the request through.
        status @ (400 | 403 | 404) => Effect::Unsettled {
            why: format!("HTTP {status} without Graph's reason, so that it may not be from Graph"),
        },
        status => Effect::Unsettled { why: format!("Graph answered with HTTP {status}") },
    };
    Verdict { effect, wait, between: None }
}

impl From<Broken> for Effect<Response, Refusal> {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::NotSent(why) => Obstacle::new(ObstacleKind::Unreachable, why).into(),
            Broken::SignIn(why) => Obstacle::new(ObstacleKind::SignIn, why).into(),
            Broken::Between(why) => Obstacle::new(ObstacleKind::Between, why).into(),
            Broken::Lost(why) | Broken::Stranger(why) => Self::Unsettled { why },
        }
    }
}

/// Reads `Retry-After`: whole seconds, a fraction of seconds, or an HTTP date as seen from
/// `date`. At most [`limits::LONGEST_RETRY_AFTER`]; `None` for what is none of these.
#[must_use]
pub fn retry_after(text: &str, date: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            Duration::from_secs_f64(seconds.min(limits::LONGEST_RETRY_AFTER.as_secs_f64()))
        }
        Ok(_) => return None,
        Err(_) => {
            let moment = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
            clock::span(date, moment)
        }
    };
    Some(wait.min(limits::LONGEST_RETRY_AFTER))
}

fn refusal(response: &Response) -> Refusal {
    let (code, message) = match wire::error(&response.body) {
        Some(error) => (plain(&error.code), plain(&error.message)),
        None => ("no Graph error".to_owned(), "the answer is not from Graph".to_owned()),
    };
    let kind = kind(response.status, &code, &message);
    let request_id = response.request_id.as_deref().map(plain);
    Refusal { status: response.status, code, message, kind, request_id }
}

fn kind(status: u16, code: &str, message: &str) -> RefusalKind {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().all(|word| message.contains(word));
    match status {
        // Such as Authentication_RequestFromNonPremiumTenantOrB2CTenant.
        403 if says(&["license"]) || says(&["premium"]) => RefusalKind::Licence,
        403 => RefusalKind::Forbidden,
        404 if says(&["method"]) || says(&["authentication", "not found"]) => {
            RefusalKind::MethodGone
        }
        404 if code.eq_ignore_ascii_case("Request_ResourceNotFound")
            || says(&["user", "not"])
            || says(&["resource", "not exist"]) =>
        {
            RefusalKind::UserGone
        }
        400 if says(&["lifetimeinminutes"]) => RefusalKind::Lifetime,
        400 if says(&["isusableonce"]) => RefusalKind::OneTime,
        400 if says(&["start", "past"]) || says(&["time in the past"]) => RefusalKind::StartPast,
        400 if says(&["external guest"]) => RefusalKind::Guest,
        400 if says(&["credentialpolicy"]) => RefusalKind::PolicyScope,
        400 if says(&["already"]) || says(&["existing", "delete"]) => RefusalKind::AlreadyThere,
        _ => RefusalKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn response(status: u16, body: &str) -> Response {
        Response {
            status,
            retry_after: None,
            date: None,
            request_id: None,
            load: None,
            body: Zeroizing::new(body.as_bytes().to_vec()),
        }
    }

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn only_what_is_known_to_be_without_effect_counts_as_such() {
        let now = Timestamp::UNIX_EPOCH;
        for status in 100..=599 {
            let error = r#"{"error":{"code":"c","message":"m"}}"#;
            let effect = judge(Ok(response(status, error)), now).effect;
            let harmless = matches!(effect, Effect::Refused(_) | Effect::NoEffect(_));
            assert_eq!(harmless, [400, 401, 403, 404, 429].contains(&status), "{status}");
        }
        let lost = judge(Err(Broken::Lost("reset".into())), now).effect;
        assert!(matches!(lost, Effect::Unsettled { .. }));
        let not_sent = judge(Err(Broken::NotSent("refused".into())), now).effect;
        assert!(matches!(not_sent, Effect::NoEffect(_)));
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let date = moment("2026-03-01T08:00:00Z");
        let seconds = |text| retry_after(text, date).map(|wait| wait.as_secs_f64());
        assert_eq!(seconds("17"), Some(17.0));
        assert_eq!(seconds(" 0.25 "), Some(0.25));
        assert_eq!(seconds("Sun, 01 Mar 2026 08:00:30 GMT"), Some(30.0));
        assert_eq!(seconds("Sun, 01 Mar 2026 07:00:00 GMT"), Some(0.0));
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("NaN"), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("1e300"), Some(limits::LONGEST_RETRY_AFTER.as_secs_f64()));
    }

    #[test]
    fn refusals_seen_on_the_wire_are_told_apart() {
        let kind_of = |status, code: &str, message: &str| {
            let body = serde_json::json!({"error": {"code": code, "message": message}});
            match judge(Ok(response(status, &body.to_string())), Timestamp::UNIX_EPOCH).effect {
                Effect::Refused(refusal) => refusal.kind,
                _ => panic!("not a refusal"),
            }
        };
        for (status, code, message, kind) in [
            (
                400,
                "badRequest",
                "Invalid LifetimeInMinutes specified. The valid range between 60 and 480.",
                RefusalKind::Lifetime,
            ),
            (
                400,
                "badRequest",
                "Invalid IsUsableOnce specified. Tenant Policy does not allow multiple use temporary access pass method.",
                RefusalKind::OneTime,
            ),
            (
                400,
                "badRequest",
                "Converged UserCredentialPolicy does not allow creating or updating this authentication method. AuthMethodType [TemporaryAccessPass].",
                RefusalKind::PolicyScope,
            ),
            (
                400,
                "badRequest",
                "Temporary Access Pass cannot be added to an external guest user.",
                RefusalKind::Guest,
            ),
            (
                400,
                "badRequest",
                "startDateTime can not be a time in the past",
                RefusalKind::StartPast,
            ),
            (403, "accessDenied", "Request Authorization failed", RefusalKind::Forbidden),
            (
                403,
                "Authentication_RequestFromNonPremiumTenantOrB2CTenant",
                "Neither tenant is B2C or tenant doesn't have premium license",
                RefusalKind::Licence,
            ),
            (
                404,
                "Request_ResourceNotFound",
                "Resource '7' does not exist or one of its queried reference-property objects are not present.",
                RefusalKind::UserGone,
            ),
            (
                404,
                "itemNotFound",
                "The authentication method was not found",
                RefusalKind::MethodGone,
            ),
            (400, "badRequest", "Something new", RefusalKind::Other),
        ] {
            assert_eq!(kind_of(status, code, message), kind, "{message}");
        }
    }

    #[test]
    fn a_page_is_nobodys_word_for_graph_whatever_its_status() {
        for status in [200, 201, 302, 400, 401, 403, 404, 407, 511] {
            let page = response(status, "\u{feff} <html><title>Acme\x1b[31m</title>Blocked</html>");
            let Verdict { effect, between, .. } = judge(Ok(page), Timestamp::UNIX_EPOCH);
            assert!(matches!(effect, Effect::Unsettled { .. }), "{status}");
            let between = between.expect("somebody in between");
            assert!(between.contains("Acme\\u{1b}[31m"), "{status}: {between}");
        }
        for status in [429, 500, 502, 503, 504] {
            let page = response(status, "<html>later</html>");
            assert_eq!(judge(Ok(page), Timestamp::UNIX_EPOCH).between, None, "{status}");
        }
    }
}
