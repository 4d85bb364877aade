//! Promises the little that a stage tells about its way while it goes it.
//!
//! Data, no words: `report` says them. Never holds a pass.

use std::time::Duration;

use crate::ids::Line;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Reading the wave.
    Read,
    /// Asking Graph about every row.
    Check,
    /// Issuing and sealing.
    Issue,
    /// Finding out what became of requests whose answers were lost.
    Reconcile,
    /// Looking at sealed passes a second time.
    Look,
    /// Writing the handoff.
    Handoff,
    /// Mailing.
    Deliver,
    /// Deleting passes.
    Remove,
}

/// One thing that happened in a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum ProgressEvent {
    /// It begins; `total` rows lie ahead, if that is known.
    Began { activity: Activity, total: Option<u64> },
    /// Some rows of it are done.
    Did { doing: Activity, rows: u64 },
    /// What the limiter expects of it from now on.
    Forecast {
        doing: Activity,
        per_second: f64,
        /// None before this has passed.
        holding: Duration,
    },
    /// It ended.
    Ended { doing: Activity },
    /// A row went wrong.
    RowFailed {
        line: Line,
        /// Whom it is for.
        upn: String,
        why: String,
    },
    /// The outcome of a POST is unknown; it will be settled after the settling time.
    AnswerLost {
        line: Line,
        /// Whom it is for.
        upn: String,
        /// What broke, for people.
        why: String,
        /// How long until it is settled.
        settle_after: Duration,
    },
    /// Something is on the user that is not ours to touch.
    RowHeld {
        line: Line,
        /// Whom it is for.
        upn: String,
        why: String,
    },
    /// A pass that was issued and sealed does not work any more.
    RowLost {
        line: Line,
        /// Whom it is for.
        upn: String,
        why: String,
    },
    /// Graph's lists may be behind: some rows are looked at again.
    LookingAgain {
        doing: Activity,
        rows: u64,
        /// Until when at the longest, by this machine's clock.
        until: jiff::Timestamp,
    },
    /// Graph cannot be reached; nothing new is issued until it can.
    Outage {
        /// What broke, for people.
        why: String,
    },
    /// Graph answers again.
    OutageOver,
    /// A mail could not be sent and will be tried again. Told once until one goes out.
    MailRetrying {
        /// What broke, for people.
        why: String,
    },
    /// No new work is begun; what is in flight is finished.
    Stopping { in_flight: u64 },
}

/// Receives events. Must not block.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn report(&self, event: ProgressEvent);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullProgress;

impl Progress for NullProgress {
    fn report(&self, _: ProgressEvent) {}
}
