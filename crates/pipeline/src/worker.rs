//! What every task that works on rows has at hand, and why all of them must stop.

use std::time::Duration;

use crate::check::Issuers;
use crate::stop::StopSignal;
use tapwave_core::clock::Clock;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_graph::limiter::Budget;
use tapwave_graph::verdict::RefusalKind;
use tapwave_graph::{Graph, GraphError};
use tapwave_ledger::{Existing, Ledger, LedgerError};

/// What issuing needs, shared by every row.
#[derive(Clone)]
pub struct Worker {
    pub graph: Graph,
    pub ledger: Ledger,
    pub clock: Clock,
    /// The policy's shortest lifetime, in minutes.
    pub min_lifetime: u32,
    /// What to do about a pass that is there already.
    pub existing: Existing,
    /// How long a lost POST may still execute, and how far apart two looks must lie that are to
    /// prove by what they do not show.
    pub settle_after: Duration,
    /// Which runs of this machine issued a pass.
    pub issuers: Issuers,
    /// The wish to stop.
    pub drain: StopSignal,
}

/// Why the whole run must stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The token was refused.
    #[error("{why}")]
    SignIn { why: String },
    /// Graph is out of reach or throttles without end.
    #[error("gave up on Microsoft Graph: {why}")]
    Outage { why: String },
    /// Something on the way lets nothing through, or answers in Graph's place.
    #[error("{why}")]
    Between {
        /// What it is, and what to do about it.
        why: String,
    },
    /// So many rows in a row were refused for the same reason that it is everybody's.
    #[error(
        "{rows} rows in a row were refused a pass for the same reason, so nobody else was asked \
         for: {why}", rows = limits::EQUAL_REFUSALS
    )]
    Everybody {
        /// Graph's words to the last of them.
        why: String,
        /// What they speak of.
        kind: RefusalKind,
    },
    /// Graph's answers cannot be used.
    #[error(transparent)]
    Graph(GraphError),
    /// The ledger cannot be written any more.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A pass could not be sealed; it has been deleted again if that was possible.
    #[error("failed to seal the pass of line {line}: {why}; {fate}")]
    Seal {
        line: Line,
        why: String,
        /// What became of the pass.
        fate: &'static str,
    },
}

impl RunError {
    /// Whether the ledger was removed, replaced or moved away while the run was under way.
    #[must_use]
    pub fn lost_ledger(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::Write(fault)) if fault.vanished())
    }

    /// Whether Graph and the ledger are there all the same: what was begun can be ended.
    #[must_use]
    pub const fn is_of_everybody(&self) -> bool {
        matches!(self, Self::Everybody { .. })
    }
}

impl From<GraphError> for RunError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::SignIn { why } => Self::SignIn { why },
            GraphError::Outage { why } => Self::Outage { why },
            GraphError::Between { why } => Self::Between { why },
            other => Self::Graph(other),
        }
    }
}

impl Worker {
    /// Whether the latest word of a budget was a refusal: Graph is there, and wants to be left
    /// alone.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        [Budget::Directory, Budget::PassReads, Budget::PassWrites]
            .into_iter()
            .any(|budget| self.graph.pace().refused_since(budget).is_some())
    }
}
