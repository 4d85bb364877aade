//! Promises what the tasks of all rows share, and the errors that end the whole run.

use std::time::Duration;

use crate::check::Issuers;
use crate::stop::StopSignal;
use tapwave_core::clock::Clock;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_graph::limiter::Budget;
use tapwave_graph::verdict::RefusalKind;
use tapwave_graph::{Graph, GraphError};
use tapwave_ledger::{Existing, Ledger, LedgerError, RowRecord};

/// What the tasks of all rows share.
#[derive(Clone)]
pub struct Worker {
    pub graph: Graph,
    pub ledger: Ledger,
    pub clock: Clock,
    /// The policy's minimum, in minutes.
    pub min_lifetime: u32,
    pub existing: Existing,
    /// How long a lost POST may still execute, and how far apart two looks must be for an absence
    /// to count as proof.
    pub settle_after: Duration,
    pub issuers: Issuers,
    pub stop: StopSignal,
}

/// Ends the whole run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{why}")]
    SignIn { why: String },
    #[error("gave up on Microsoft Graph: {why}")]
    Outage { why: String },
    /// A proxy, a portal or a certificate in Graph's way.
    #[error("{why}")]
    Between { why: String },
    /// See [`limits::EQUAL_REFUSALS`].
    #[error(
        "{rows} rows in a row were refused a pass for the same reason, so nobody else was asked \
         for: {why}", rows = limits::EQUAL_REFUSALS
    )]
    EqualRefusals { why: String, kind: RefusalKind },
    #[error(transparent)]
    Graph(GraphError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// `undone` says what became of the pass.
    #[error("failed to seal the pass of line {line}: {why}; {undone}")]
    Seal { line: Line, why: String, undone: &'static str },
}

impl RunError {
    /// Whether the ledger was removed, replaced or moved during the run.
    pub fn lost_ledger(&self) -> bool {
        matches!(self, Self::Ledger(LedgerError::Write(fault)) if fault.vanished())
    }

    /// Then Graph and the ledger still work, and what was begun can be finished.
    pub const fn is_equal_refusals(&self) -> bool {
        matches!(self, Self::EqualRefusals { .. })
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
    pub async fn row(&self, line: Line) -> Result<RowRecord, LedgerError> {
        self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))
    }

    /// Whether Graph is reachable, and throttles.
    pub fn is_throttled(&self) -> bool {
        [Budget::Directory, Budget::PassReads, Budget::PassWrites]
            .into_iter()
            .any(|budget| self.graph.limiter().refused_since(budget).is_some())
    }
}
