//! Promises one door to Graph: a request goes in, a response or a broken exchange comes out.
//!
//! Never retries, never follows a redirect, never prints a header or a body. What an answer
//! means is judged in `verdict`; when a request may go is decided by `limiter`.

use futures::future::BoxFuture;
use jiff::Timestamp;
use zeroize::Zeroizing;

use tapwave_core::ids::ClientRequestId;

/// The HTTP methods Graph's pass, policy and directory calls use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads; may be repeated.
    Get,
    /// Creates or asks; never repeated by the transport.
    Post,
    /// Changes a policy.
    Patch,
    /// Removes by id; may be repeated.
    Delete,
}

impl Method {
    /// The method's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// One request, relative to the configured Graph endpoint.
#[derive(Clone)]
pub struct Request {
    pub method: Method,
    /// Path and query below `/v1.0`, beginning with `/`, percent-encoded.
    pub target: String,
    /// Sends `ConsistencyLevel: eventual`, which advanced directory queries demand.
    pub eventual: bool,
    pub body: Option<Vec<u8>>,
    pub client_request_id: ClientRequestId,
}

/// An answer whose status line and whole body arrived.
pub struct Response {
    pub status: u16,
    /// `Retry-After` as sent: seconds, a fraction of seconds, or an HTTP date.
    pub retry_after: Option<String>,
    /// `Date`: Graph's own clock.
    pub date: Option<Timestamp>,
    /// `request-id`, which Microsoft's support asks for.
    pub request_id: Option<String>,
    /// `x-ms-throttle-limit-percentage`, 0.8–1.8, seen above 80 % load on some services. The
    /// limiter does not heed it: slowing down for it cost more than the refusals it spared.
    pub load: Option<f64>,
    /// The body; may hold a pass, so it is wiped when dropped.
    pub body: Zeroizing<Vec<u8>>,
}

/// An exchange that brought no usable response. The texts hold no header, body or query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// No byte of the request was sent, for want of a connection or because the address that
    /// gives tokens is out of reach: it certainly had no effect.
    #[error("could not reach Graph: {0}")]
    NotSent(String),
    /// Some of it was sent and no whole answer came back: it may or may not have had effect.
    #[error("lost the answer: {0}")]
    Lost(String),
    /// An access token was refused, so nothing was sent.
    #[error("could not sign in: {0}")]
    SignIn(String),
    /// Something on the way let nothing through: no byte reached Graph.
    #[error("{0}")]
    Between(String),
    /// Something on the way answered in Graph's place. What it did with the request, nobody knows.
    #[error("{0}")]
    Stranger(String),
}

/// The door itself. An exchange ends by itself: the implementation bounds its time.
pub trait Transport: Send + Sync {
    /// Sends once and waits for the whole answer.
    fn exchange<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, Broken>>;

    /// The origin and base path requests go to, such as `https://graph.microsoft.com/v1.0`;
    /// a `nextLink` must begin with it.
    fn base(&self) -> &str;

    /// Makes sure that whatever a request needs is at hand, so that the next one goes out
    /// without a wait of its own.
    fn prepare(&self) -> BoxFuture<'_, Result<(), Broken>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Drops a token that Graph refused. True if another may be had, so that one more try
    /// makes sense.
    fn renew_token(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }
}

/// A door that is shut, for work that asks Graph nothing and therefore signs in nowhere.
pub struct Shut;

impl Transport for Shut {
    fn exchange<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        let why = "this command was not to ask Graph anything, and has not signed in";
        Box::pin(std::future::ready(Err(Broken::SignIn(why.to_owned()))))
    }

    fn base(&self) -> &'static str {
        ""
    }
}
