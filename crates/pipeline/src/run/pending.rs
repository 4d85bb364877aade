//! Promises that a row whose pass Graph does not list yet is looked at again, and for the last
//! time once the settling time has passed since it was first missed.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use crate::reconcile::absence_patience;
use crate::worker::Worker;
use tapwave_core::backoff::exponential;
use tapwave_core::clock::{later, span};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};

#[derive(Debug, Clone, Copy)]
pub(super) struct ScheduledLook {
    pub(super) line: Line,
    pub(super) at: Instant,
    pub(super) purpose: Look,
}

/// Why a row is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// To find out what became of a lost attempt, or whether what holds the row is still there.
    Reconcile,
    /// To confirm a sealed pass that followed a lost attempt.
    Verify,
    /// To confirm a sealed pass that an earlier process did not confirm.
    VerifyInherited,
}

/// Rows whose pass was not listed yet.
#[derive(Default)]
pub(super) struct PendingLooks {
    rows: HashMap<Line, PendingLook>,
    report: LookReport,
}

struct PendingLook {
    since: Instant,
    looks: u32,
    purpose: Look,
}

impl PendingLooks {
    /// When the row is looked at next: the waits double until its last look is due.
    pub(super) fn next_look_at(&mut self, line: Line, purpose: Look, worker: &Worker) -> Instant {
        let now = worker.clock.instant();
        let new = PendingLook { since: now, looks: 0, purpose };
        let pending = self.rows.entry(line).or_insert(new);
        let wait = exponential(limits::BETWEEN_LOOKS, pending.looks, Duration::MAX);
        pending.looks += 1;
        (now + wait).min(pending.since + patience(worker))
    }

    /// Whether a look now is the row's last one.
    pub(super) fn is_last(&self, line: Line, worker: &Worker) -> bool {
        let end = self.rows.get(&line).map(|pending| pending.since + patience(worker));
        end.is_some_and(|end| end <= worker.clock.instant())
    }

    pub(super) fn remove(&mut self, line: Line) {
        self.rows.remove(&line);
    }

    /// Rows that wait, but for those that were inherited.
    pub(super) fn own(&self) -> impl Iterator<Item = Line> {
        let own = self.rows.iter().filter(|(_, row)| row.purpose != Look::VerifyInherited);
        own.map(|(line, _)| *line)
    }

    /// Once the first looks have brought nothing.
    pub(super) fn report(&mut self, worker: &Worker, session: &Session) {
        let slow = self.rows.values().filter(|pending| pending.looks >= limits::LOOKS);
        let Some(latest) = slow.clone().map(|pending| pending.since).max() else { return };
        let end = latest + patience(worker);
        let left = end.saturating_duration_since(session.clock.instant());
        self.report.update(session, Activity::Reconcile, slow.count() as u64, left);
    }
}

/// Reports until when rows are looked at, whenever that time moves.
#[derive(Default)]
pub(super) struct LookReport(Option<Timestamp>);

impl LookReport {
    pub(super) fn update(&mut self, session: &Session, doing: Activity, rows: u64, left: Duration) {
        let until = later(session.clock.now(), left);
        let moved = |reported| span(reported, until) > limits::BETWEEN_LOOKS;
        if self.0.is_none_or(moved) {
            session.report(ProgressEvent::LookingAgain { doing, rows, until });
            self.0 = Some(until);
        }
    }
}

/// How long a pass may stay unlisted. Graph's clock counts whole seconds.
fn patience(worker: &Worker) -> Duration {
    absence_patience(worker.settle_after)
}
