//! Promises answers in Graph's shapes: errors with `code`, `message` and `innerError`,
//! entities with their context. Must never decide anything.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Broken, Response};

/// What came of a request.
pub struct SimulatedAnswer {
    /// What the caller gets.
    pub response: Result<Response, Broken>,
    /// How long after the tenant has acted.
    pub after: Duration,
    /// The answer that was under way when the connection broke in the middle of its body; a
    /// server on a real wire sends half of it.
    pub cut: Option<Response>,
}

/// A status and a body, before the headers.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Body,
    pub(super) retry_after: Option<String>,
    pub(super) load: Option<f64>,
    /// By how many seconds its date is ahead of the tenant's clock.
    pub(super) misdated: i64,
}

/// What a reply says.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    Text(String),
    Json(Value),
}

impl Body {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Empty => Vec::new(),
            Self::Text(text) => text.into_bytes(),
            Self::Json(value) => value.to_string().into_bytes(),
        }
    }
}

impl Reply {
    pub(super) fn json(status: u16, value: Value) -> Self {
        Self { status, body: Body::Json(value), retry_after: None, load: None, misdated: 0 }
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, body: Body::Empty, retry_after: None, load: None, misdated: 0 }
    }

    pub(super) fn text(status: u16, text: String) -> Self {
        Self { status, body: Body::Text(text), retry_after: None, load: None, misdated: 0 }
    }
}

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct SimulatedRefusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// The authentication-method service says it again inside `innerError`.
    pub(super) twice: bool,
}

impl SimulatedRefusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), twice: false }
    }

    /// 400 `badRequest` as the authentication-method service words it.
    pub(super) fn method(message: impl Into<String>) -> Self {
        Self { twice: true, ..Self::new(400, "badRequest", message) }
    }

    /// 403 for a permission that is missing, or a target with a higher role.
    pub(super) fn forbidden() -> Self {
        Self { twice: true, ..Self::new(403, "accessDenied", "Request Authorization failed") }
    }

    /// 404 for a directory object.
    pub(super) fn missing(name: &str) -> Self {
        let message = format!(
            "Resource '{name}' does not exist or one of its queried reference-property objects \
             are not present."
        );
        Self::new(404, "Request_ResourceNotFound", message)
    }

    /// 400 for a path that is no resource.
    pub(super) fn unknown_segment(segment: &str) -> Self {
        let message = format!("Resource not found for the segment '{segment}'.");
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn into_reply(
        self,
        now: Timestamp,
        request_id: &str,
        client: ClientRequestId,
    ) -> Reply {
        let mut inner = json!({
            "date": plain_date(now),
            "request-id": request_id,
            "client-request-id": client.to_string(),
        });
        if self.twice {
            inner["message"] = Value::from(self.message.as_str());
        }
        Reply::json(
            self.status,
            json!({"error": {"code": self.code, "message": self.message, "innerError": inner}}),
        )
    }
}

/// The reply as the transport gives it.
pub(super) fn response(reply: Reply, now: Timestamp, request_id: String) -> Response {
    Response {
        status: reply.status,
        retry_after: reply.retry_after,
        // An HTTP date has whole seconds.
        date: Timestamp::from_second(now.as_second().saturating_add(reply.misdated)).ok(),
        request_id: Some(request_id),
        load: reply.load,
        body: Zeroizing::new(reply.body.into_bytes()),
    }
}

/// A moment as the directory writes it: seven digits of a second, `Z`.
pub(super) fn precise(moment: Timestamp) -> String {
    let ticks = moment.subsec_nanosecond() / 100;
    format!("{}.{ticks:07}Z", moment.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// A moment as `innerError` writes it: no fraction and no offset.
fn plain_date(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// A moment moved by a signed amount; the end of time it would pass, if it would.
pub(super) fn shifted(moment: Timestamp, by: SignedDuration) -> Timestamp {
    let end = if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    moment.checked_add(by).unwrap_or(end)
}
