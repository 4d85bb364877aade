//! Promises the little that a stage tells about its way while it goes it.
//!
//! Data, no words: `report` says them. Never holds a pass.

use std::time::Duration;

use crate::ids::Line;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Reading the wave.
    Read,
    /// Asking Graph about every row.
    Check,
    /// Issuing and sealing.
    Issue,
    /// Waiting out the fence of lost answers and settling them.
    Settle,
    /// Looking at sealed passes a second time.
    Look,
    /// Writing the handoff.
    Handoff,
    /// Mailing.
    Deliver,
    /// Deleting passes.
    Remove,
}

/// One thing a stage has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// It begins; `total` rows lie ahead, if that is known.
    Began {
        /// What.
        doing: Doing,
        /// Rows.
        total: Option<u64>,
    },
    /// Some rows of it are done.
    Did {
        /// What.
        doing: Doing,
        /// Rows.
        rows: u64,
    },
    /// What the limiter expects of it from now on.
    Foreseen {
        /// What.
        doing: Doing,
        /// Rows per second.
        per_second: f64,
        /// None before this has passed.
        holding: Duration,
    },
    /// It ended.
    Ended {
        /// What.
        doing: Doing,
    },
    /// A row went wrong.
    RowFailed {
        /// Which.
        line: Line,
        /// Whom it is for.
        upn: String,
        /// Why, for people.
        why: String,
    },
    /// The outcome of a POST is unknown; it will be settled after the fence.
    AnswerLost {
        /// Which.
        line: Line,
        /// Whom it is for.
        upn: String,
        /// What broke, for people.
        why: String,
        /// How long until it is settled.
        fence: Duration,
    },
    /// Something is on the user that is not ours to touch.
    RowHeld {
        /// Which.
        line: Line,
        /// Whom it is for.
        upn: String,
        /// Why, for people.
        why: String,
    },
    /// A pass that was issued and sealed does not work any more.
    RowLost {
        /// Which.
        line: Line,
        /// Whom it is for.
        upn: String,
        /// Why, for people.
        why: String,
    },
    /// Graph's lists may be behind: some rows are looked at again.
    LooksAgain {
        /// What for.
        doing: Doing,
        /// How many.
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
    Reached,
    /// A mail could not be sent and will be tried again. Told once until one goes out.
    MailWaits {
        /// What broke, for people.
        why: String,
    },
    /// No new work is begun; what is in flight is finished.
    Draining {
        /// Rows in flight.
        in_flight: u64,
    },
}

/// Hears the news. Must not block.
pub trait Watcher: Send + Sync {
    /// Takes one piece of news.
    fn hear(&self, news: News);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deaf;

impl Watcher for Deaf {
    fn hear(&self, _: News) {}
}
