//! The permission to send one mail, with the connection for it where there is one.

use tokio::sync::SemaphorePermit;

use super::connection::IdleConnection;
use tapwave_graph::limiter::Permit;

/// Which characters an address may have before its `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    /// The relay lacks SMTPUTF8.
    Ascii,
    Any,
}

/// Why a relay of [`Scripts::Ascii`] cannot take an address; completes "the address …".
pub const NEEDS_UTF8: &str = "has letters outside ASCII before its @, and the relay lacks \
                              SMTPUTF8; give another address, or a relay that has it";

/// The permission to send one mail now.
pub(super) struct SendPermit<'a> {
    pub(super) admission: Permit,
    /// One of the connections that the relay allows.
    pub(super) slot: Option<SemaphorePermit<'a>>,
}

/// The permission to send one mail, over a connection that is ready. See
/// [`MailTransport::ready`](super::MailTransport::ready).
pub struct Ready<'a> {
    pub(super) permit: SendPermit<'a>,
    /// None for Graph.
    pub(super) connection: Option<Box<IdleConnection>>,
}
