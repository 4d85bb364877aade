//! Promises what one row's task does: it asks for a pass until there is an outcome to record,
//! seals and confirms it, or finds out what became of a lost attempt.

use std::cell::Cell;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use super::delivering::Mailing;
use super::pending::Look;
use super::second_look::FinalLook;
use crate::check::Candidate;
use crate::issue::{Attempt, Denial};
use crate::reconcile::Reconciled;
use crate::seal::{self, Sealer};
use crate::stop::StopSwitch;
use crate::worker::{RunError, Worker};
use tapwave_core::backoff::exponential;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::ProgressEvent;
use tapwave_graph::limiter::Budget;
use tapwave_graph::verdict::RefusalKind;
use tapwave_ledger::{Denied, Event};

/// What the tasks of all rows share.
pub(super) struct IssueContext<'a> {
    pub(super) worker: Worker,
    pub(super) sealer: Sealer,
    pub(super) mailing: Option<&'a Mailing>,
    pub(super) session: &'a Session,
    pub(super) look: FinalLook,
    /// A pass that an earlier process saw before then, by Graph's clock, is looked at again.
    pub(super) since: Option<Timestamp>,
    /// Since when no request of any row has got through, if none has.
    pub(super) unreached_since: Cell<Option<Instant>>,
    /// Stops the worker, after an error too: each row that waits for the limiter would send one
    /// more request otherwise.
    pub(super) stop_switch: StopSwitch,
}

/// How one task ended.
pub(super) enum RowOutcome {
    Sealed(Line),
    Failed(Line),
    /// Graph refused it for good.
    Refused {
        line: Line,
        upn: String,
        why: String,
        kind: RefusalKind,
    },
    Held(Line),
    /// The answer was lost: reconcile after the settling time.
    Lost(Line),
    /// Graph says that a pass exists, which may be one of ours: reconcile soon.
    InTheWay(Line),
    /// A list may be behind: look again.
    Behind(Line, Look),
    /// Reconciled; the row may be tried again.
    Free(Line),
    /// Left as it was, because the run stops.
    Stopped,
}

impl IssueContext<'_> {
    /// Asks for one row's pass until there is an outcome to record.
    pub(super) async fn row(&self, candidate: Candidate) -> Result<RowOutcome, RunError> {
        let (line, upn) = (candidate.line(), candidate.upn().to_owned());
        let (mut refused, mut unreached) = (0, 0);
        loop {
            let effect = match self.worker.attempt(candidate.clone(), refused).await? {
                Attempt::NotBegun => return Ok(RowOutcome::Stopped),
                Attempt::TooLate { why } => return Ok(self.failed(line, upn, why)),
                Attempt::Made(effect) => effect,
            };
            let Obstacle { kind, why } = match effect {
                Effect::NoEffect(obstacle) => obstacle,
                Effect::Done(issued) => {
                    self.got_through();
                    let sealed = seal::seal(&self.worker, &self.sealer, *issued).await?;
                    if sealed.is_proven() {
                        return Ok(RowOutcome::Sealed(line));
                    }
                    return self.verify(line, upn, Look::Verify).await;
                }
                Effect::Refused(Denial { denied: Denied::Final { why }, kind }) => {
                    self.got_through();
                    return Ok(RowOutcome::Refused { line, upn, why, kind });
                }
                Effect::Refused(Denial { denied: Denied::InTheWay { .. }, .. }) => {
                    self.got_through();
                    return Ok(RowOutcome::InTheWay(line));
                }
                Effect::Unsettled { why } => {
                    let settle_after = self.worker.settle_after;
                    self.report(ProgressEvent::AnswerLost { line, upn, why, settle_after });
                    return Ok(RowOutcome::Lost(line));
                }
            };
            self.check_outage(kind, why)?;
            let wait = match kind {
                ObstacleKind::Throttled => Duration::ZERO,
                ObstacleKind::Unreachable => next_wait(&mut unreached),
                ObstacleKind::Temporary
                | ObstacleKind::SignIn
                | ObstacleKind::Sender
                | ObstacleKind::Between
                | ObstacleKind::Lasting => next_wait(&mut refused),
            };
            if self.stops_within(wait).await {
                return Ok(RowOutcome::Stopped);
            }
        }
    }

    /// Ends the run when nothing has got through for [`limits::MAX_OUTAGE`].
    fn check_outage(&self, kind: ObstacleKind, why: String) -> Result<(), RunError> {
        let now = self.worker.clock.instant();
        let is_out = match (kind, self.unreached_since.get()) {
            (ObstacleKind::Unreachable, Some(since)) => {
                now.saturating_duration_since(since) > limits::MAX_OUTAGE
            }
            (ObstacleKind::Unreachable, None) => {
                self.unreached_since.set(Some(now));
                self.report(ProgressEvent::Outage { why: why.clone() });
                false
            }
            (
                ObstacleKind::Throttled
                | ObstacleKind::Temporary
                | ObstacleKind::SignIn
                | ObstacleKind::Sender
                | ObstacleKind::Between
                | ObstacleKind::Lasting,
                _,
            ) => {
                self.got_through();
                self.worker.graph.limiter().is_out(Budget::PassWrites)
            }
        };
        if is_out { Err(RunError::Outage { why }) } else { Ok(()) }
    }

    /// Any answer to any row, even a refusal, ends an outage.
    fn got_through(&self) {
        if self.unreached_since.take().is_some() {
            self.report(ProgressEvent::OutageOver);
        }
    }

    /// Looks at a user until Graph answers, for as long as issuing would try: an outage that lost
    /// an answer may last longer than the settling time. `None` if the run stops first.
    async fn through_outage<F>(&self, look: impl Fn() -> F) -> Result<Option<Reconciled>, RunError>
    where
        F: Future<Output = Result<Reconciled, RunError>>,
    {
        let mut tried = 0;
        loop {
            match look().await {
                Err(RunError::Outage { why }) if !self.worker.is_throttled() => {
                    self.check_outage(ObstacleKind::Unreachable, why)?;
                }
                looked => {
                    if looked.is_ok() {
                        self.got_through();
                    }
                    return looked.map(Some);
                }
            }
            if self.stops_within(next_wait(&mut tried)).await {
                return Ok(None);
            }
        }
    }

    /// Fails a row whose answers were lost too often; a resume tries it again.
    pub(super) async fn give_up(
        &self,
        line: Line,
        upn: String,
        lost: u32,
    ) -> Result<RowOutcome, RunError> {
        let why = format!("{lost} attempts were lost; resume to try again");
        self.worker.ledger.record(line, Event::GivenUp { why: why.clone() }).await?;
        Ok(self.failed(line, upn, why))
    }

    fn failed(&self, line: Line, upn: String, why: String) -> RowOutcome {
        self.report(ProgressEvent::RowFailed { line, upn, why });
        RowOutcome::Failed(line)
    }

    /// Looks at a sealed pass that nobody has confirmed. Unless it is confirmed, it is not handed
    /// over, also when Graph cannot be asked.
    async fn verify(&self, line: Line, upn: String, purpose: Look) -> Result<RowOutcome, RunError> {
        let looked = self.through_outage(|| self.worker.verify(line)).await;
        if !matches!(looked, Ok(Some(Reconciled::Sealed | Reconciled::Behind { .. }))) {
            self.sealer.forget(line);
        }
        Ok(self.outcome(looked?, line, upn, purpose))
    }

    /// Looks at a row that waited for it. A list that is behind at the `last` look counts as right.
    pub(super) async fn look(
        &self,
        line: Line,
        purpose: Look,
        last: bool,
    ) -> Result<RowOutcome, RunError> {
        let upn = self.worker.row(line).await?.upn;
        if purpose == Look::Reconcile {
            let mut reconciled = self.through_outage(|| self.worker.reconcile(line)).await?;
            if last && let Some(Reconciled::Behind { why }) = reconciled {
                reconciled = Some(self.worker.hold_for(line, why).await?);
            }
            return Ok(self.outcome(reconciled, line, upn, purpose));
        }
        let outcome = self.verify(line, upn.clone(), purpose).await?;
        if !(last && matches!(outcome, RowOutcome::Behind(..))) {
            return Ok(outcome);
        }
        self.sealer.forget(line);
        let inherited = purpose == Look::VerifyInherited;
        let reconciled = self.worker.give_up_on(line, inherited).await?;
        Ok(self.outcome(Some(reconciled), line, upn, purpose))
    }

    fn outcome(
        &self,
        reconciled: Option<Reconciled>,
        line: Line,
        upn: String,
        purpose: Look,
    ) -> RowOutcome {
        match reconciled {
            None => RowOutcome::Stopped,
            Some(Reconciled::Free) => RowOutcome::Free(line),
            Some(Reconciled::Sealed) => RowOutcome::Sealed(line),
            Some(Reconciled::Behind { .. }) => RowOutcome::Behind(line, purpose),
            Some(Reconciled::Held { why }) => {
                self.report(ProgressEvent::RowHeld { line, upn, why });
                RowOutcome::Held(line)
            }
        }
    }

    /// Holds a row that Graph refused a pass too often without showing what is in its way.
    pub(super) async fn hold_unseen(
        &self,
        line: Line,
        upn: String,
    ) -> Result<RowOutcome, RunError> {
        let reconciled = self.worker.hold_unseen(line).await?;
        Ok(self.outcome(Some(reconciled), line, upn, Look::Reconcile))
    }

    /// Waits; true if the run stops first.
    async fn stops_within(&self, wait: Duration) -> bool {
        let clock = &self.worker.clock;
        self.worker.stop.comes_before(clock, clock.instant() + wait).await
    }

    pub(super) fn report(&self, event: ProgressEvent) {
        self.session.report(event);
    }
}

/// The wait after one more attempt.
pub(super) fn next_wait(attempts: &mut u32) -> Duration {
    let wait = exponential(limits::ROW_BACKOFF, *attempts, limits::MAX_ROW_BACKOFF);
    *attempts += 1;
    wait
}
