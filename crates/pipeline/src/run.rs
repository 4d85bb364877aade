//! Takes a wave from its file to the handoff, a run from any state onwards, and a closed run to
//! nothing.
//!
//! `intake` reads and checks, `issuing` issues with the tasks of `row_task` that `scheduler`
//! schedules, `delivering` mails, `cleanup` removes, `status` tells how the rows are. Reports only
//! through a [`Progress`] and the values it returns. Never holds a pass itself.

pub mod cleanup;
pub mod delivering;
mod equal_refusals;
mod handoff;
pub mod held;
mod inherited;
pub mod intake;
pub mod issuing;
pub mod manifest;
mod pending;
mod row_task;
mod scheduler;
pub mod second_look;
mod source;
mod status;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::check::Issuers;
use crate::stop::StopSignal;
use crate::worker::Worker;
use tapwave_core::clock::Clock;
use tapwave_core::progress::{Activity, Progress, ProgressEvent};
use tapwave_graph::Graph;
use tapwave_ledger::{Counts, Ledger, LedgerError, Standing};
use tapwave_seal::Prompts;

pub use self::status::{
    Live, MailStatus, NoticeState, NoticeStatus, RowStatus, StatusError, status,
};

/// What every command that talks to Graph needs.
#[derive(Clone)]
pub struct Session {
    pub graph: Graph,
    pub clock: Clock,
    pub progress: Arc<dyn Progress>,
    pub stop: StopSignal,
    /// Answers for plugins and passphrases.
    pub prompts: Arc<dyn Prompts>,
    /// False if the token is known to lack the permission to read groups.
    pub may_read_groups: bool,
    /// What another run is known to have issued is not this run's.
    pub issuers: Issuers,
    /// The settling time of this command; if `None`, the run's own.
    pub settle_after: Option<Duration>,
    /// Whether the run goes on after many equal refusals.
    pub keeps_going: bool,
    pub began: Instant,
}

impl Session {
    pub(crate) fn report(&self, event: ProgressEvent) {
        self.progress.report(event);
    }

    fn begin(&self, activity: Activity, total: Option<u64>) {
        self.report(ProgressEvent::Began { activity, total });
    }

    fn advance(&self, doing: Activity, rows: u64) {
        self.report(ProgressEvent::Did { doing, rows });
    }

    fn end(&self, doing: Activity) {
        self.report(ProgressEvent::Ended { doing });
    }

    fn worker(&self, ledger: &Ledger) -> Worker {
        let about = ledger.about();
        Worker {
            graph: self.graph.clone(),
            ledger: ledger.clone(),
            clock: self.clock.clone(),
            min_lifetime: about.policy.min_lifetime_minutes,
            existing: about.options.existing,
            issuers: Arc::clone(&self.issuers),
            settle_after: self.settle_after.unwrap_or(about.options.settle_after()),
            stop: self.stop.clone(),
        }
    }
}

const SUMMARY: &str = "tapwave.summary/1";

/// How a command ended, as `tapwave.summary/1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub schema: &'static str,
    pub run: String,
    pub rows: u64,
    pub ineligible: u64,
    /// Left out by `--existing skip`.
    pub skipped: u64,
    /// Removed ones included.
    pub issued: u64,
    /// Not mailed, and live.
    pub sealed: u64,
    pub delivered: u64,
    #[serde(flatten)]
    pub notices: Option<Notices>,
    /// Mails whose answer was lost; `unsettled` counts them too.
    #[serde(skip)]
    pub mailing: u64,
    pub removed: u64,
    pub failed: u64,
    pub unsettled: u64,
    pub held: u64,
    pub lost: u64,
    /// People with somebody else's live pass, as cleanup saw.
    pub foreign: u64,
    pub requests: u64,
    pub throttled: u64,
    pub elapsed_seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Notices {
    pub notices_sent: u64,
    /// Of mailed passes.
    pub notices_open: u64,
}

impl Notices {
    fn of(ledger: &Ledger, counts: &Counts) -> Option<Self> {
        let mail = ledger.about().options.mail.as_ref()?;
        (!mail.notice_to.is_empty()).then_some(Self {
            notices_sent: counts.notices_sent,
            notices_open: counts.notices_open,
        })
    }
}

impl Summary {
    pub async fn of(ledger: &Ledger, session: &Session, foreign: u64) -> Result<Self, LedgerError> {
        let counts = ledger.counts().await?;
        let of = |standing| counts.of(standing);
        Ok(Self {
            run: ledger.folder().path().display().to_string(),
            rows: counts.rows(),
            ineligible: of(Standing::Ineligible),
            skipped: of(Standing::Skipped),
            issued: Standing::LIVE.iter().map(|live| of(*live)).sum::<u64>()
                + of(Standing::Lost)
                + of(Standing::Removed)
                - counts.unproven,
            sealed: of(Standing::Sealed) - counts.unproven,
            delivered: of(Standing::Delivered),
            notices: Notices::of(ledger, &counts),
            mailing: of(Standing::Mailing),
            removed: of(Standing::Removed),
            failed: of(Standing::Failed),
            unsettled: of(Standing::Unsettled)
                + of(Standing::Intent)
                + of(Standing::Mailing)
                + counts.unproven,
            held: of(Standing::Held),
            lost: of(Standing::Lost),
            foreign,
            ..Self::of_nothing(session)
        })
    }

    pub fn of_nothing(session: &Session) -> Self {
        Self {
            schema: SUMMARY,
            run: String::new(),
            rows: 0,
            ineligible: 0,
            skipped: 0,
            issued: 0,
            sealed: 0,
            delivered: 0,
            notices: None,
            mailing: 0,
            removed: 0,
            failed: 0,
            unsettled: 0,
            held: 0,
            lost: 0,
            foreign: 0,
            requests: session.graph.requests(),
            throttled: session.graph.throttled(),
            elapsed_seconds: seconds(session.began.elapsed()),
        }
    }

    /// Whether nobody in the wave is to get a pass.
    pub const fn is_empty(&self) -> bool {
        self.rows > 0 && self.rows == self.ineligible + self.skipped
    }

    pub const fn waiting(&self) -> u64 {
        self.rows
            - self.ineligible
            - self.skipped
            - self.issued
            - self.failed
            - (self.unsettled - self.mailing)
            - self.held
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
