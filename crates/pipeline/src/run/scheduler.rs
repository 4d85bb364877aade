//! Promises that each row is worked on by one task at most, until it has a pass, has failed, is
//! held, or the run stops.
//!
//! The scheduler branches here; what is done to one row is in `row_task`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::delivering::{self, MailQueue, Mailing};
use super::equal_refusals::EqualRefusals;
use super::pending::{Look, PendingLooks, ScheduledLook};
use super::row_task::{IssueContext, RowOutcome, next_wait};
use super::second_look::SecondLook;
use super::source::CandidateSource;
use crate::check::Candidate;
use crate::deliver::{MailStopped, Resend};
use crate::worker::RunError;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_graph::limiter::{Budget, Outlook};
use tapwave_ledger::{Channel, Standing};

/// The rows that a second look found lost, and whether there may be more to look at.
type SecondLooked = Result<(Vec<Line>, bool), RunError>;

/// The rows that are worked on, and those that wait to be looked at.
pub(super) struct Scheduler<'a> {
    context: &'a IssueContext<'a>,
    source: CandidateSource,
    running: FuturesUnordered<LocalBoxFuture<'a, Result<RowOutcome, RunError>>>,
    waiting: FuturesUnordered<LocalBoxFuture<'a, (Line, Look)>>,
    pending: PendingLooks,
    /// How often Graph said of a row that a pass exists.
    in_the_way: HashMap<Line, u32>,
    /// The second look that goes on beside issuing: one at a time.
    second_look: FuturesUnordered<LocalBoxFuture<'a, (SecondLook<'a>, SecondLooked)>>,
    mails: Option<MailQueue<'a>>,
    refusals: EqualRefusals,
    lost_in_a_row: u32,
    /// How often a row's answer was lost.
    losses: HashMap<Line, u32>,
    last_success: Instant,
    /// Rows whose answers were lost since then. One row alone is no outage.
    lost_since: HashSet<Line>,
    /// Rows that may be tried again.
    retries: VecDeque<Candidate>,
    /// Rows that have no final outcome yet.
    unfinished: u64,
    error: Option<RunError>,
}

impl<'a> Scheduler<'a> {
    pub(super) fn new(context: &'a IssueContext<'a>, looks: &[ScheduledLook], total: u64) -> Self {
        let taken = looks.iter().map(|look| look.line).collect();
        Self {
            context,
            source: CandidateSource::new(context.worker.ledger.clone(), taken),
            running: FuturesUnordered::new(),
            waiting: FuturesUnordered::new(),
            pending: PendingLooks::default(),
            in_the_way: HashMap::new(),
            second_look: FuturesUnordered::new(),
            mails: context.mailing.map(|mailing| {
                let spool = Some(context.sealer.spool());
                MailQueue::new(mailing, spool, Resend::default(), context.session)
            }),
            refusals: EqualRefusals::new(context.session),
            lost_in_a_row: 0,
            losses: HashMap::new(),
            last_success: context.worker.clock.instant(),
            lost_since: HashSet::new(),
            retries: VecDeque::new(),
            unfinished: total,
            error: None,
        }
    }

    pub(super) fn schedule(&mut self, look: ScheduledLook) {
        let clock = &self.context.worker.clock;
        self.waiting.push(Box::pin(async move {
            clock.sleep_until(look.at).await;
            (look.line, look.purpose)
        }));
    }

    /// Schedules another look at a row whose list is behind.
    pub(super) fn look_later(&mut self, line: Line, purpose: Look) {
        let at = self.pending.next_look_at(line, purpose, &self.context.worker);
        self.pending.report(&self.context.worker, self.context.session);
        self.schedule(ScheduledLook { line, at, purpose });
    }

    /// Queues what an earlier process sealed and did not mail. Without an identity nobody here can
    /// open that, but a notice needs none.
    pub(super) async fn queue_mail(&mut self) -> Result<(), RunError> {
        let (Some(mails), Some(mailing)) = (&mut self.mails, self.context.mailing) else {
            return Ok(());
        };
        let ledger = &self.context.worker.ledger;
        delivering::mark_lost(ledger).await?;
        let states: &[Standing] =
            if mailing.holds_issuing_back() { &[] } else { &[Standing::Sealed] };
        delivering::for_each_mail(ledger, states, |row| {
            if let Some(channel) = delivering::next_channel(row, Resend::default()) {
                mails.push(row.line, channel);
            }
        })
        .await?;
        Ok(())
    }

    /// Works until nothing is left to do, or until what is in flight at an error or a stop has
    /// ended.
    pub(super) async fn run(mut self, mail: &mut Option<MailStopped>) -> Result<(), RunError> {
        let context = self.context;
        let stop = &context.session.stop;
        let mut reported = false;
        let look = SecondLook::new(&context.worker, context.session, context.look, context.since);
        if look.is_wanted() {
            self.look_beside(look, false);
        }
        loop {
            let stopping = self.is_stopping();
            self.fill(stopping);
            if stopping && !reported {
                reported = context.stop_switch.request();
                context.report(ProgressEvent::Stopping { in_flight: self.running.len() as u64 });
                // A look that is not polled to its end would keep its permit, for which the rows
                // in flight wait.
                self.second_look.clear();
            }
            if self.is_done(stopping) {
                self.refusals.flush(context.session);
                // A pass that nobody could confirm in time is not relied on.
                self.pending.own().for_each(|line| context.sealer.forget(line));
                *mail = self.mails.and_then(MailQueue::end);
                return self.error.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some(outcome) = self.running.next() => self.take(outcome).await,
                Some(read) = self.source.read_on(), if !stopping => {
                    if let Err(error) = read {
                        self.fail(error);
                    }
                }
                Some((line, purpose)) = self.waiting.next(), if !stopping => {
                    let last = self.pending.is_last(line, &context.worker);
                    self.running.push(Box::pin(context.look(line, purpose, last)));
                }
                Some((look, looked)) = self.second_look.next(), if !stopping => {
                    self.second_looked(look, looked);
                }
                Some(ended) = next_mail(&mut self.mails) => {
                    if let Err(error) = ended {
                        self.fail(error);
                    }
                }
                () = stop.requested(), if !stop.is_requested() => {}
            }
        }
    }

    /// The first error ends the run.
    fn fail(&mut self, error: impl Into<RunError>) {
        self.error.get_or_insert(error.into());
    }

    /// Begins the next second look, at once if there is more to look at.
    fn look_beside(&mut self, mut look: SecondLook<'a>, more: bool) {
        let clock = &self.context.worker.clock;
        let wait = if more { Duration::ZERO } else { limits::BETWEEN_SECOND_LOOKS };
        self.second_look.push(Box::pin(async move {
            clock.sleep(wait).await;
            let looked = look.look_beside().await;
            (look, looked)
        }));
    }

    fn second_looked(&mut self, look: SecondLook<'a>, looked: SecondLooked) {
        match looked {
            Ok((lost, more)) => {
                for line in lost {
                    self.context.sealer.forget(line);
                }
                self.look_beside(look, more);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Whether nothing more is begun.
    fn is_stopping(&self) -> bool {
        self.error.is_some()
            || self.context.session.stop.is_requested()
            || self.is_held_back_for_good()
    }

    fn is_done(&self, stopping: bool) -> bool {
        let goes_on = self.mail_goes_on();
        let mailing = self.mails.as_ref().is_some_and(|mails| {
            mails.is_sending() || goes_on && mails.stopped().is_none() && !mails.is_empty()
        });
        let nothing_waits = self.waiting.is_empty() && self.source.is_exhausted();
        self.running.is_empty() && !mailing && (stopping || nothing_waits)
    }

    /// Whether mails are begun. They go on when Graph refuses everybody a pass: perhaps only this
    /// process can open what it has sealed.
    fn mail_goes_on(&self) -> bool {
        !self.context.session.stop.is_requested()
            && self.error.as_ref().is_none_or(RunError::is_equal_refusals)
    }

    /// Whether mail has stopped, and only this process could mail what it would issue.
    fn is_held_back_for_good(&self) -> bool {
        self.mails.as_ref().is_some_and(|mails| mails.stopped().is_some())
            && self.context.mailing.is_some_and(Mailing::holds_issuing_back)
    }

    /// Rows that may be worked on so that what waits for mail stays within its bound.
    fn room_for_mail(&self) -> usize {
        match (&self.mails, self.context.mailing) {
            (Some(mails), Some(mailing)) if mailing.holds_issuing_back() => {
                mailing.most_waiting().saturating_sub(mails.unsent_passes())
            }
            _ => usize::MAX,
        }
    }

    /// Begins as many mails and rows as may be worked on at once.
    fn fill(&mut self, stopping: bool) {
        let mail_goes_on = self.mail_goes_on();
        match &mut self.mails {
            Some(mails) if mail_goes_on => mails.fill(),
            Some(mails) => mails.cancel_retries(),
            None => {}
        }
        if stopping {
            return;
        }
        let room = if self.lost_in_a_row >= limits::LOSSES_BEFORE_CAUTION {
            1
        } else {
            self.context.worker.graph.limiter().max_in_flight() * limits::ROWS_AHEAD
        };
        while self.running.len() < room.min(self.room_for_mail())
            && let Some(candidate) = self.retries.pop_front().or_else(|| self.source.next())
        {
            self.running.push(Box::pin(self.context.row(candidate)));
        }
    }

    async fn take(&mut self, outcome: Result<RowOutcome, RunError>) {
        let taken = match outcome {
            Ok(outcome) => self.take_outcome(outcome).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(true) => self.finish_row(),
            Ok(false) => {}
            Err(error) => self.fail(error),
        }
    }

    /// True if the outcome is the row's last.
    async fn take_outcome(&mut self, outcome: RowOutcome) -> Result<bool, RunError> {
        let context = self.context;
        if matches!(outcome, RowOutcome::Sealed(_) | RowOutcome::Failed(_) | RowOutcome::Held(_)) {
            self.refusals.reset(context.session);
        }
        match outcome {
            RowOutcome::Sealed(line) => {
                self.pending.remove(line);
                if let Some(mails) = &mut self.mails {
                    mails.push(line, Channel::Pass);
                }
                self.lost_in_a_row = 0;
                self.last_success = context.worker.clock.instant();
                self.lost_since.clear();
                return Ok(true);
            }
            RowOutcome::Failed(line) | RowOutcome::Held(line) => {
                self.pending.remove(line);
                return Ok(true);
            }
            RowOutcome::Refused { line, upn, why, kind } => {
                let event = ProgressEvent::RowFailed { line, upn, why: why.clone() };
                if self.refusals.add(&why, event, context.session) {
                    self.fail(RunError::EqualRefusals { why, kind });
                }
                return Ok(true);
            }
            RowOutcome::Stopped => {}
            RowOutcome::Lost(line) => self.lose(line),
            RowOutcome::InTheWay(line) => self.wait_for_list(line).await?,
            RowOutcome::Behind(line, purpose) => self.look_later(line, purpose),
            RowOutcome::Free(line) => {
                self.pending.remove(line);
                self.try_again(line).await?;
            }
        }
        Ok(false)
    }

    fn finish_row(&mut self) {
        self.unfinished = self.unfinished.saturating_sub(1);
        let limiter = self.context.worker.graph.limiter();
        limiter.announce(Budget::PassWrites, Some(self.unfinished));
        self.context.session.advance(Activity::Issue, 1);
        let outlook = limiter.outlook(Budget::PassWrites);
        if let Outlook { per_second: Some(per_second), holding } = outlook {
            let doing = Activity::Issue;
            self.context.report(ProgressEvent::Forecast { doing, per_second, holding });
        }
    }

    fn lose(&mut self, line: Line) {
        let now = self.context.worker.clock.instant();
        let settle_after = self.context.worker.settle_after;
        self.lost_in_a_row += 1;
        *self.losses.entry(line).or_default() += 1;
        self.schedule(ScheduledLook { line, at: now + settle_after, purpose: Look::Reconcile });
        self.lost_since.insert(line);
        let since = now.saturating_duration_since(self.last_success);
        if since > limits::MAX_OUTAGE + settle_after && self.lost_since.len() > 1 {
            let why = "no pass was issued for too long, and answers were lost".to_owned();
            self.fail(RunError::Outage { why });
        }
    }

    /// A pass exists that may be ours: a list that is behind will show it after a while.
    async fn wait_for_list(&mut self, line: Line) -> Result<(), RunError> {
        let worker = &self.context.worker;
        let times = self.in_the_way.entry(line).or_default();
        let wait = next_wait(times);
        if *times < limits::MAX_ATTEMPTS {
            let at = worker.clock.instant() + wait;
            self.schedule(ScheduledLook { line, at, purpose: Look::Reconcile });
        } else {
            let upn = worker.row(line).await?.upn;
            self.running.push(Box::pin(self.context.hold_unseen(line, upn)));
        }
        Ok(())
    }

    async fn try_again(&mut self, line: Line) -> Result<(), RunError> {
        let losses = self.losses.get(&line).copied().unwrap_or_default();
        let row = self.context.worker.row(line).await?;
        if losses >= limits::MAX_ATTEMPTS {
            self.running.push(Box::pin(self.context.give_up(line, row.upn, losses)));
        } else {
            self.retries.push_back(Candidate::restore(&row)?);
        }
        Ok(())
    }
}

/// The next mail that ends; never, if there are none.
async fn next_mail(mails: &mut Option<MailQueue<'_>>) -> Option<Result<(), RunError>> {
    mails.as_mut()?.next().await
}
