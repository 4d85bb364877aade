//! Promises that every row that may get a pass is worked on by one task at most, until it
//! has one, has failed, is held, or somebody wished to stop.
//!
//! The conductor branches here; what is done to a row is straight below. On a halt or a
//! drain, nothing new begins and whatever is in flight is finished and committed.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use super::delivering::{self, MailQueue, Mailing};
use super::equal_refusals::EqualRefusals;
use super::intake::{self, IntakeError};
use super::second_look::{FinalLook, Looked, SecondLook};
use super::source::CandidateSource;
use crate::check::Candidate;
use crate::deliver::{MailStopped, Resend};
use crate::issue::{Attempt, Denial};
use crate::reconcile::{Reconciled, watch_for};
use crate::seal::{self, HandoverError, RecipientBook, Sealed, Sealer};
use crate::stop::{StopSignal, StopSwitch};
use crate::worker::{RunError, Worker};
use tapwave_core::clock::{backoff, earlier, later, span};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_graph::limiter::{Budget, Outlook};
use tapwave_graph::verdict::RefusalKind;
use tapwave_ledger::{
    Channel, Denied, Event, Ledger, LedgerError, Pages, RowRecord, Standing, State, Unhanded,
};
use tapwave_seal::{Ciphertext, Container, HandoffError, RecipientSet, Spool};

/// How issuing ended.
#[derive(Debug)]
pub struct Issuance {
    /// Why it stopped before its end, if it did.
    pub error: Option<RunError>,
    /// Whether somebody wished to stop.
    pub drained: bool,
    /// Why mailing stopped before its end, if it did.
    pub mail: Option<MailStopped>,
    /// The handoff files written now.
    pub handoffs: Vec<PathBuf>,
    /// How the second look at the sealed passes ended.
    pub looked: Looked,
    /// Why the handoff is not whole, if it is not. The ledger has every pass all the same.
    pub handover: Option<HandoverError>,
}

/// Why issuing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum IssuingError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The check before a resume.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The recipients of the ledger.
    #[error(transparent)]
    Book(#[from] seal::BookError),
    /// Something in Graph or the ledger before the first row.
    #[error(transparent)]
    Halt(#[from] RunError),
    /// The handoff folder or the spool.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Cleanup has begun or is over.
    #[error("this run was closed by cleanup, so nothing more is issued from it")]
    Closed,
}

/// Issues to every row of a fresh ledger and, given `post`, mails each pass.
///
/// # Errors
/// [`IssuingError`], before the first row.
pub async fn run(
    ledger: &Ledger,
    sets: Vec<Arc<RecipientSet>>,
    mailing: Option<&Mailing>,
    session: &Session,
    look: FinalLook,
) -> Result<Issuance, IssuingError> {
    session.drain.begin_work();
    let context = IssueContext::open(ledger, sets, mailing, session, look)?;
    Ok(context.work(Vec::new()).await)
}

/// Carries any run on from any state: settles what is unsettled, looks again at what waits,
/// gives failed rows another chance, issues the rest.
///
/// # Errors
/// [`IssuingError`], before the first row.
pub async fn resume(
    ledger: &Ledger,
    mailing: Option<&Mailing>,
    session: &Session,
    look: FinalLook,
) -> Result<Issuance, IssuingError> {
    session.drain.begin_work();
    if ledger.closed().await?.is_some() {
        return Err(IssuingError::Closed);
    }
    let sets = RecipientBook::restore(&ledger.about().recipients, &session.prompts)?;
    // The first answer also tells Graph's clock, by which old intents are judged.
    session.graph.policy().await.map_err(RunError::from)?;
    let started = session.clock.instant();
    let mut context = IssueContext::open(ledger, sets, mailing, session, look)?;
    let now = session.graph.time().await.map_err(RunError::from)?;
    if look == FinalLook::Always {
        // No clock tells whether the last look was before this one: Graph's counts whole seconds.
        ledger.forget_looks().await?;
    }
    context.since = Some(earlier(now, limits::LOOK_GOOD_FOR));
    let looks = context.take_over(started).await?;
    intake::check_again(ledger, session).await?;
    Ok(context.work(looks).await)
}

/// Whether passes wait for a look: the process that sealed them, or one after it, did not end
/// in order.
pub async fn is_doubted(ledger: &Ledger) -> Result<bool, LedgerError> {
    Ok(!all_rows(ledger, &[Standing::Sealed]).await?.is_empty())
}

/// Looks again at those passes and at nothing else: what is live is vouched for, a row that has
/// none is free for another attempt.
pub async fn verify(ledger: &Ledger, session: &Session) -> Result<(), RunError> {
    let worker = worker(ledger, session);
    let mut unseen = PendingLooks::default();
    let mut lines = verify_inherited(&worker, session).await?;
    while !lines.is_empty() {
        let mut next: Option<Instant> = None;
        for line in &lines {
            let due = unseen.another_look(*line, true, &worker);
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        unseen.tell(session);
        let Some(next) = next else { return Ok(()) };
        tokio::select! {
            biased;
            () = session.drain.begun() => return Ok(()),
            () = session.clock.sleep_until(next) => {}
        }
        let waiting = std::mem::take(&mut lines);
        for line in waiting {
            if unseen.is_over(line, &worker) {
                worker.give_up_on(line, true).await?;
            } else if is_behind(&look_at_inherited(&worker, session, line).await?) {
                lines.push(line);
            }
        }
    }
    Ok(())
}

/// A row that waits to be looked at, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScheduledLook {
    pub(super) line: Line,
    pub(super) until: Instant,
    pub(super) what: Look,
}

/// What a row is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// A lost attempt, or what held the row.
    Settle,
    /// A sealed pass that followed a lost attempt.
    Verify,
    /// A sealed pass that an earlier process could not vouch for.
    Inherited,
}

/// Rows whose lists are behind: since when, and how often they were looked at.
#[derive(Default)]
struct PendingLooks {
    rows: HashMap<Line, PendingLook>,
    told: Option<Timestamp>,
}

struct PendingLook {
    since: Instant,
    looks: u32,
    inherited: bool,
}

impl PendingLooks {
    /// When a row is looked at again: soon at first, then at twice the wait, and once more when
    /// the settling time has passed since it was first missed.
    fn another_look(&mut self, line: Line, inherited: bool, worker: &Worker) -> Instant {
        let now = worker.clock.instant();
        let new = PendingLook { since: now, looks: 0, inherited };
        let unseen = self.rows.entry(line).or_insert(new);
        let wait = backoff(limits::BETWEEN_LOOKS, Duration::MAX, unseen.looks);
        unseen.looks += 1;
        (now + wait).min(unseen.since + settled(worker))
    }

    /// Whether the latest look was the last one.
    fn is_over(&self, line: Line, worker: &Worker) -> bool {
        let since = self.rows.get(&line).map(|unseen| unseen.since + settled(worker));
        since.is_some_and(|end| end <= worker.clock.instant())
    }

    fn end(&mut self, line: Line) {
        self.rows.remove(&line);
    }

    /// Told once the first looks have brought nothing, and when it takes longer than was told.
    fn tell(&mut self, session: &Session) {
        let patient = self.rows.values().filter(|unseen| unseen.looks >= limits::LOOKS);
        let Some(last) = patient.clone().map(|unseen| unseen.since).max() else { return };
        let end = last + watch_for(session.settle_after.unwrap_or(limits::DEFAULT_SETTLE_AFTER));
        let left = end.saturating_duration_since(session.clock.instant());
        let until = later(session.clock.now(), left);
        let is_new = |told: Timestamp| span(told, until) > limits::BETWEEN_LOOKS;
        if self.told.is_none_or(is_new) {
            let rows = patient.count() as u64;
            session.watcher.report(ProgressEvent::LookingAgain {
                doing: Activity::Settle,
                rows,
                until,
            });
            self.told = Some(until);
        }
    }
}

/// The settling time as Graph's clock counts it, in whole seconds.
fn settled(worker: &Worker) -> Duration {
    watch_for(worker.settle_after) + limits::DATE_ROUNDING
}

/// Everything a row's task needs.
pub(super) struct IssueContext<'a> {
    pub(super) worker: Worker,
    sealer: Sealer,
    mailing: Option<&'a Mailing>,
    session: &'a Session,
    look: FinalLook,
    /// What an earlier process has seen before then, by Graph's clock, is looked at again.
    since: Option<Timestamp>,
    /// Since when no request of any row has got through, if none has.
    unreached_since: Cell<Option<Instant>>,
    /// Stops the worker: a halt must reach the rows that wait for the limiter's leave as the
    /// operator's wish does, or each of them would send one more request.
    stop: StopSwitch,
}

/// What one task came to.
enum RowOutcome {
    Sealed(Line),
    /// It has failed, and was told.
    Failed,
    /// Graph refused it.
    Refused {
        line: Line,
        upn: String,
        why: String,
        kind: RefusalKind,
    },
    Held,
    /// Nobody knows; settle after the settling time.
    Lost(Line),
    /// Graph says that a pass exists, which may be one of ours; settle soon.
    InTheWay(Line),
    /// A list may be behind: look again.
    Behind(Line, Look),
    /// Settled; the row may be tried again.
    Free(Line),
    /// Left as it was, because somebody wished to stop.
    Stopped,
}

impl<'a> IssueContext<'a> {
    fn open(
        ledger: &Ledger,
        sets: Vec<Arc<RecipientSet>>,
        mailing: Option<&'a Mailing>,
        session: &'a Session,
        look: FinalLook,
    ) -> Result<Self, IssuingError> {
        let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
        // We hold the lock: what is unfinished there is of a process that died.
        tapwave_seal::remove_unfinished(&folder).map_err(HandoverError::from)?;
        let spool = Spool::create(&folder).map_err(HandoverError::from)?;
        let (stop, drain) = StopSignal::new();
        let worker = Worker { drain, ..worker(ledger, session) };
        let vault = Sealer::new(sets, spool);
        Ok(Self {
            worker,
            sealer: vault,
            mailing,
            session,
            look,
            since: None,
            unreached_since: Cell::default(),
            stop,
        })
    }

    /// Sorts out what an earlier process left: which rows must be settled, and when.
    async fn take_over(&self, started: Instant) -> Result<Vec<ScheduledLook>, IssuingError> {
        let mut looks = pick_up_lost(&self.worker, started).await?;
        for row in all_rows(&self.worker.ledger, &[Standing::Held, Standing::Lost]).await? {
            looks.push(ScheduledLook { line: row.line, until: started, what: Look::Settle });
        }
        self.retry_failed().await?;
        Ok(looks)
    }

    /// Gives failed rows another chance. They may be all rows, where a policy was switched off
    /// half-way: a page at a time, each in one commit.
    async fn retry_failed(&self) -> Result<(), LedgerError> {
        let ledger = &self.worker.ledger;
        let mut pages = ledger.pages(&[Standing::Failed], limits::ROWS_PER_READ);
        while let Some(rows) = pages.next().await? {
            try_join_all(rows.iter().map(|row| ledger.record(row.line, Event::Retried))).await?;
        }
        Ok(())
    }

    /// Works until there is nothing left to do, looks at the sealed passes once more, and writes
    /// the handoff.
    async fn work(self, looks: Vec<ScheduledLook>) -> Issuance {
        let mut mail = None;
        let mut halt = self.issue_all(looks, &mut mail).await.err();
        let looked = match self.look_again(halt.is_some()).await {
            Ok(looked) => looked,
            Err(stopped) => {
                let why = stopped.to_string();
                halt.get_or_insert(stopped);
                self.left_unseen(why).await
            }
        };
        let drained = self.session.drain.is_on();
        let Self { worker, sealer, session, .. } = self;
        if halt.is_some() && worker.ledger.add_traffic(0, 0).await.is_err() {
            // A ledger that takes no more cannot say which file holds what, and the next process
            // doubts its last seals: it hands over what it has looked at.
            let handoffs = Vec::new();
            return Issuance { error: halt, drained, mail, handoffs, looked, handover: None };
        }
        session.watcher.report(ProgressEvent::Began { activity: Activity::Handoff, total: None });
        let mut handoffs = Vec::new();
        for line in &looked.missed {
            sealer.forget(*line);
        }
        let kept_out = looked.missed.iter().copied().collect();
        let handover = hand_over(&worker.ledger, sealer, &kept_out, &mut handoffs).await.err();
        session.watcher.report(ProgressEvent::Ended { doing: Activity::Handoff });
        Issuance { error: halt, drained, mail, handoffs, looked, handover }
    }

    /// The second look. After a halt nothing can be asked of Graph or told to the ledger, or what
    /// is seen is what somebody is about to mend (a policy that is switched off disables every
    /// pass), and a later process does it.
    async fn look_again(&self, halted: bool) -> Result<Looked, RunError> {
        if halted {
            return Ok(self.left_unseen("the run stopped before".to_owned()).await);
        }
        let mut look = SecondLook::new(&self.worker, self.session, self.look, self.since);
        look.finish(|line| self.sealer.forget(line)).await
    }

    /// What was not looked at again, and why.
    async fn left_unseen(&self, why: String) -> Looked {
        match self.worker.ledger.waiting_for_look(self.since).await {
            Ok(0) => Looked::default(),
            Ok(unseen) => Looked { unseen, missed: Vec::new(), why: Some(why) },
            Err(error) => Looked { why: Some(error.to_string()), ..Looked::default() },
        }
    }

    async fn issue_all(
        &self,
        looks: Vec<ScheduledLook>,
        mail: &mut Option<MailStopped>,
    ) -> Result<(), RunError> {
        let unseen = verify_inherited(&self.worker, self.session).await?;
        let counts = self.worker.ledger.counts().await?;
        let total = counts.of(Standing::Checked) + (looks.len() + unseen.len()) as u64;
        self.report(ProgressEvent::Began { activity: Activity::Issue, total: Some(total) });
        let mut scheduler = Scheduler::new(self, &looks, total);
        for look in looks {
            scheduler.wait_for(look);
        }
        for line in unseen {
            scheduler.look_later(line, Look::Inherited);
        }
        scheduler.pick_up_mail().await?;
        let ended = scheduler.run(mail).await;
        // Whatever comes next on this budget is no part of this wave.
        self.worker.graph.pace().announce(Budget::PassWrites, None);
        self.report(ProgressEvent::Ended { doing: Activity::Issue });
        ended
    }

    /// One row, tried until there is something to record for good.
    async fn row(&self, candidate: Candidate) -> Result<RowOutcome, RunError> {
        let (line, upn) = (candidate.line(), candidate.upn().to_owned());
        let (mut refused, mut unreached) = (0, 0);
        loop {
            let attempt = self.worker.attempt(candidate.clone(), refused).await?;
            let effect = match attempt {
                Attempt::NotBegun => return Ok(RowOutcome::Stopped),
                Attempt::TooLate { why } => return Ok(self.failed(line, upn, why)),
                Attempt::Made(effect) => effect,
            };
            let kind = match effect {
                Effect::Done(issued) => {
                    self.reached();
                    let sealed = seal::seal(&self.worker, &self.sealer, *issued).await?;
                    return self.prove(sealed, upn).await;
                }
                Effect::Refused(Denial { denied: Denied::Final { why }, kind }) => {
                    self.reached();
                    return Ok(RowOutcome::Refused { line, upn, why, kind });
                }
                Effect::Refused(Denial { denied: Denied::InTheWay { .. }, .. }) => {
                    self.reached();
                    return Ok(RowOutcome::InTheWay(line));
                }
                Effect::Unsettled { why } => {
                    let settle_after = self.worker.settle_after;
                    self.report(ProgressEvent::AnswerLost { line, upn, why, settle_after });
                    return Ok(RowOutcome::Lost(line));
                }
                Effect::NoEffect(Obstacle { kind, why }) => {
                    self.endure(kind, why)?;
                    kind
                }
            };
            let wait = match kind {
                ObstacleKind::Throttled => Duration::ZERO,
                ObstacleKind::Unreachable => counted(&mut unreached),
                ObstacleKind::Temporary
                | ObstacleKind::SignIn
                | ObstacleKind::Sender
                | ObstacleKind::Between
                | ObstacleKind::Lasting => counted(&mut refused),
            };
            if self.stops_within(wait).await {
                return Ok(RowOutcome::Stopped);
            }
        }
    }

    /// Ends the run when nothing has got through for [`limits::MAX_OUTAGE`].
    fn endure(&self, kind: ObstacleKind, why: String) -> Result<(), RunError> {
        let out = match (kind, self.unreached_since.get()) {
            (ObstacleKind::Unreachable, Some(since)) => {
                self.worker.clock.instant().saturating_duration_since(since) > limits::MAX_OUTAGE
            }
            (ObstacleKind::Unreachable, None) => {
                self.unreached_since.set(Some(self.worker.clock.instant()));
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
                self.reached();
                self.worker.graph.pace().is_out(Budget::PassWrites)
            }
        };
        if out { Err(RunError::Outage { why }) } else { Ok(()) }
    }

    /// Any row that gets through ends an outage for all, whatever its answer is.
    fn reached(&self) {
        if self.unreached_since.take().is_some() {
            self.report(ProgressEvent::OutageOver);
        }
    }

    /// Looks at a user until somebody answers, for as long as issuing would try: the answers
    /// that an outage took are settled after the settling time, when it may not be over. `None` if the
    /// drain began before.
    async fn through_outage<F>(&self, look: impl Fn() -> F) -> Result<Option<Reconciled>, RunError>
    where
        F: Future<Output = Result<Reconciled, RunError>>,
    {
        let mut tried = 0;
        loop {
            match look().await {
                Err(RunError::Outage { why }) if !self.worker.is_refused() => {
                    self.endure(ObstacleKind::Unreachable, why)?;
                }
                looked => {
                    if looked.is_ok() {
                        self.reached();
                    }
                    return looked.map(Some);
                }
            }
            if self.stops_within(counted(&mut tried)).await {
                return Ok(None);
            }
        }
    }

    /// The row has failed until an operator resumes the run.
    async fn give_up(&self, line: Line, upn: String, lost: u32) -> Result<RowOutcome, RunError> {
        let why = format!("{lost} attempts were lost; resume to try again");
        self.worker.ledger.record(line, Event::GivenUp { why: why.clone() }).await?;
        Ok(self.failed(line, upn, why))
    }

    fn failed(&self, line: Line, upn: String, why: String) -> RowOutcome {
        self.report(ProgressEvent::RowFailed { line, upn, why });
        RowOutcome::Failed
    }

    async fn prove(&self, sealed: Sealed, upn: String) -> Result<RowOutcome, RunError> {
        if sealed.is_proven() {
            return Ok(RowOutcome::Sealed(sealed.line()));
        }
        self.verify(sealed.line(), upn, Look::Verify).await
    }

    /// Looks at a sealed pass that nobody vouches for. What is not proven is not handed over,
    /// also when nobody could look.
    async fn verify(&self, line: Line, upn: String, what: Look) -> Result<RowOutcome, RunError> {
        let looked = self.through_outage(|| self.worker.verify(line)).await;
        if !matches!(looked, Ok(Some(Reconciled::Sealed | Reconciled::Behind { .. }))) {
            self.sealer.forget(line);
        }
        Ok(self.concluded(looked?, line, upn, what))
    }

    async fn look(&self, line: Line, what: Look, last: bool) -> Result<RowOutcome, RunError> {
        let row = self.worker.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        if what == Look::Settle {
            let settled = self.through_outage(|| self.worker.reconcile(line)).await?;
            let settled = match settled {
                Some(Reconciled::Behind { why }) if last => {
                    Some(self.worker.hold_for(line, why).await?)
                }
                settled => settled,
            };
            return Ok(self.concluded(settled, line, row.upn, what));
        }
        let reached = self.verify(line, row.upn.clone(), what).await?;
        if !(last && matches!(reached, RowOutcome::Behind(..))) {
            return Ok(reached);
        }
        self.sealer.forget(line);
        let settled = self.worker.give_up_on(line, what == Look::Inherited).await?;
        Ok(self.concluded(Some(settled), line, row.upn, what))
    }

    fn concluded(
        &self,
        settled: Option<Reconciled>,
        line: Line,
        upn: String,
        what: Look,
    ) -> RowOutcome {
        match settled {
            None => RowOutcome::Stopped,
            Some(Reconciled::Free) => RowOutcome::Free(line),
            Some(Reconciled::Sealed) => RowOutcome::Sealed(line),
            Some(Reconciled::Behind { .. }) => RowOutcome::Behind(line, what),
            Some(Reconciled::Held { why }) => {
                self.report(ProgressEvent::RowHeld { line, upn, why });
                RowOutcome::Held
            }
        }
    }

    /// Graph has refused a row a pass too often without showing what is in its way.
    async fn hold_unseen(&self, line: Line, upn: String) -> Result<RowOutcome, RunError> {
        let settled = self.worker.hold_unseen(line).await?;
        Ok(self.concluded(Some(settled), line, upn, Look::Settle))
    }

    /// Waits; true if the drain began first.
    async fn stops_within(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.worker.drain.begun() => true,
            () = self.worker.clock.sleep(wait) => false,
        }
    }

    fn report(&self, news: ProgressEvent) {
        self.session.watcher.report(news);
    }
}

/// The rows that a second look found lost, and whether there may be more to look at.
type Looks = Result<(Vec<Line>, bool), RunError>;

/// The rows in hand: those being worked on, and those that wait to be looked at.
struct Scheduler<'a> {
    context: &'a IssueContext<'a>,
    source: CandidateSource,
    working: FuturesUnordered<LocalBoxFuture<'a, Result<RowOutcome, RunError>>>,
    waiting: FuturesUnordered<LocalBoxFuture<'a, (Line, Look)>>,
    /// Rows whose lists are behind.
    unseen: PendingLooks,
    /// How often Graph said of each row that a pass exists.
    in_the_way: HashMap<Line, u32>,
    /// The second look that goes along: one at a time.
    looking: FuturesUnordered<LocalBoxFuture<'a, (SecondLook<'a>, Looks)>>,
    mails: Option<MailQueue<'a>>,
    refusals: EqualRefusals,
    lost_in_a_row: u32,
    /// How often each row's answer was lost: refusals for throttling are no attempts.
    losses: HashMap<Line, u32>,
    last_success: Instant,
    /// Rows whose answers were lost since then: one alone is its own misfortune, no outage.
    lost_since: HashSet<Line>,
    /// Rows that were settled and may be tried again; they wait their turn as others do.
    freed: VecDeque<Candidate>,
    /// Rows that are neither done nor given up.
    left: u64,
    halt: Option<RunError>,
}

impl<'a> Scheduler<'a> {
    fn new(context: &'a IssueContext<'a>, looks: &[ScheduledLook], left: u64) -> Self {
        let taken = looks.iter().map(|look| look.line).collect();
        Self {
            context,
            source: CandidateSource::new(context.worker.ledger.clone(), taken),
            working: FuturesUnordered::new(),
            waiting: FuturesUnordered::new(),
            unseen: PendingLooks::default(),
            in_the_way: HashMap::new(),
            looking: FuturesUnordered::new(),
            mails: context.mailing.map(|mailing| {
                let spool = Some(context.sealer.spool());
                MailQueue::new(mailing, spool, Resend::default(), context.session)
            }),
            refusals: EqualRefusals::new(context.session),
            lost_in_a_row: 0,
            losses: HashMap::new(),
            last_success: context.worker.clock.instant(),
            lost_since: HashSet::new(),
            freed: VecDeque::new(),
            left,
            halt: None,
        }
    }

    fn wait_for(&mut self, look: ScheduledLook) {
        let clock = &self.context.worker.clock;
        self.waiting.push(Box::pin(async move {
            clock.sleep_until(look.until).await;
            (look.line, look.what)
        }));
    }

    /// A row whose list is behind is looked at again.
    fn look_later(&mut self, line: Line, what: Look) {
        let inherited = what == Look::Inherited;
        let until = self.unseen.another_look(line, inherited, &self.context.worker);
        self.unseen.tell(self.context.session);
        self.wait_for(ScheduledLook { line, until, what });
    }

    /// What an earlier process sealed and did not mail; without an identity nobody here can
    /// open it. A notice needs nothing to be opened.
    async fn pick_up_mail(&mut self) -> Result<(), RunError> {
        let (Some(mails), Some(mailing)) = (&mut self.mails, self.context.mailing) else {
            return Ok(());
        };
        let ledger = &self.context.worker.ledger;
        delivering::mark_lost(ledger).await?;
        let passes: &[Standing] =
            if mailing.holds_issuing_back() { &[] } else { &[Standing::Sealed] };
        delivering::for_each_mail(ledger, passes, |row| {
            if let Some(channel) = delivering::next_turn(row, Resend::default()) {
                mails.push(row.line, channel);
            }
        })
        .await?;
        Ok(())
    }

    async fn run(mut self, mail: &mut Option<MailStopped>) -> Result<(), RunError> {
        let context = self.context;
        let drain = &context.session.drain;
        let mut told = false;
        let look = SecondLook::new(&context.worker, context.session, context.look, context.since);
        if look.is_wanted() {
            self.look_along(look, false);
        }
        loop {
            let stopping = self.is_stopping();
            self.fill(stopping);
            if stopping && !told {
                told = context.stop.begin();
                context.report(ProgressEvent::Stopping { in_flight: self.working.len() as u64 });
                // A look that is not heard to its end would keep its leave to ask, and the rows
                // that are in flight wait for it.
                self.looking.clear();
            }
            if self.is_done(stopping) {
                self.refusals.tell(context.session);
                // A pass that nobody could look at in time is not relied on.
                for (line, unseen) in &self.unseen.rows {
                    if !unseen.inherited {
                        context.sealer.forget(*line);
                    }
                }
                *mail = self.mails.and_then(MailQueue::end);
                return self.halt.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some(reached) = self.working.next() => self.take(reached).await,
                Some(read) = self.source.read_on(), if !stopping => {
                    if let Err(error) = read {
                        self.halt.get_or_insert(RunError::Ledger(error));
                    }
                }
                Some((line, what)) = self.waiting.next(), if !stopping => {
                    let last = self.unseen.is_over(line, &context.worker);
                    self.working.push(Box::pin(context.look(line, what, last)));
                }
                Some((look, looked)) = self.looking.next(), if !stopping => {
                    self.looked_again(look, looked);
                }
                Some(ended) = next_mail(&mut self.mails) => {
                    if let Err(halt) = ended {
                        self.halt.get_or_insert(halt);
                    }
                }
                () = drain.begun(), if !drain.is_on() => {}
            }
        }
    }

    /// Begins the next second look, at once if there is more to look at.
    fn look_along(&mut self, mut look: SecondLook<'a>, more: bool) {
        let clock = &self.context.worker.clock;
        let wait = if more { Duration::ZERO } else { limits::BETWEEN_SECOND_LOOKS };
        self.looking.push(Box::pin(async move {
            clock.sleep(wait).await;
            let looked = look.go_along().await;
            (look, looked)
        }));
    }

    fn looked_again(&mut self, look: SecondLook<'a>, looked: Looks) {
        match looked {
            Ok((lost, more)) => {
                for line in lost {
                    self.context.sealer.forget(line);
                }
                self.look_along(look, more);
            }
            Err(halt) => {
                self.halt.get_or_insert(halt);
            }
        }
    }

    /// Nothing more is to be begun.
    fn is_stopping(&self) -> bool {
        self.halt.is_some() || self.context.session.drain.is_on() || self.is_held_back_for_good()
    }

    /// Nothing is under way, and nothing is to be begun.
    fn is_done(&self, stopping: bool) -> bool {
        let goes_on = self.mail_goes_on();
        let mailing = self.mails.as_ref().is_some_and(|mails| {
            mails.is_sending() || goes_on && mails.stopped().is_none() && mails.in_hand() > 0
        });
        let nothing_waits = self.waiting.is_empty() && self.source.is_exhausted();
        self.working.is_empty() && !mailing && (stopping || nothing_waits)
    }

    /// Mails are begun. They go on when Graph refuses everybody a pass: nobody else may be able to
    /// open what was sealed before.
    fn mail_goes_on(&self) -> bool {
        !self.context.session.drain.is_on()
            && self.halt.as_ref().is_none_or(RunError::is_of_everybody)
    }

    /// Mail has stopped, and nobody but this process could mail what it would issue.
    fn is_held_back_for_good(&self) -> bool {
        self.mails.as_ref().is_some_and(|mails| mails.stopped().is_some())
            && self.context.mailing.is_some_and(Mailing::holds_issuing_back)
    }

    /// Rows that may be worked on so that what waits for mail stays within its bound.
    fn room_for_mail(&self) -> usize {
        match (&self.mails, self.context.mailing) {
            (Some(mails), Some(mailing)) if mailing.holds_issuing_back() => {
                mailing.most_waiting().saturating_sub(mails.passes_in_hand())
            }
            _ => usize::MAX,
        }
    }

    /// Begins as many mails and rows as may be in hand.
    fn fill(&mut self, stopping: bool) {
        let mail_goes_on = self.mail_goes_on();
        match &mut self.mails {
            Some(mails) if mail_goes_on => mails.fill(),
            Some(mails) => mails.end_rests(),
            None => {}
        }
        if stopping {
            return;
        }
        let room = if self.lost_in_a_row >= limits::LOSSES_BEFORE_CAUTION {
            1
        } else {
            self.context.worker.graph.pace().max_in_flight() * limits::ROWS_AHEAD
        };
        while self.working.len() < room.min(self.room_for_mail())
            && let Some(candidate) = self.freed.pop_front().or_else(|| self.source.next())
        {
            self.working.push(Box::pin(self.context.row(candidate)));
        }
    }

    async fn take(&mut self, reached: Result<RowOutcome, RunError>) {
        if matches!(&reached, Ok(RowOutcome::Sealed(_) | RowOutcome::Failed | RowOutcome::Held)) {
            self.refusals.end(self.context.session);
        }
        let done = match reached {
            Ok(RowOutcome::Sealed(line)) => {
                self.unseen.end(line);
                if let Some(mails) = &mut self.mails {
                    mails.push(line, Channel::Pass);
                }
                self.lost_in_a_row = 0;
                self.last_success = self.context.worker.clock.instant();
                self.lost_since.clear();
                true
            }
            Ok(RowOutcome::Failed | RowOutcome::Held) => true,
            Ok(RowOutcome::Refused { line, upn, why, kind }) => {
                let news = ProgressEvent::RowFailed { line, upn, why: why.clone() };
                if self.refusals.grows(&why, news, self.context.session) {
                    self.halt.get_or_insert(RunError::Everybody { why, kind });
                }
                true
            }
            Ok(RowOutcome::Stopped) => false,
            Ok(RowOutcome::Lost(line)) => {
                self.lose(line);
                false
            }
            Ok(RowOutcome::InTheWay(line)) => {
                self.wait_for_list(line).await;
                false
            }
            Ok(RowOutcome::Behind(line, what)) => {
                self.look_later(line, what);
                false
            }
            Ok(RowOutcome::Free(line)) => {
                self.unseen.end(line);
                self.try_again(line).await;
                false
            }
            Err(halt) => {
                self.halt.get_or_insert(halt);
                false
            }
        };
        if done {
            self.left = self.left.saturating_sub(1);
            self.context.worker.graph.pace().announce(Budget::PassWrites, Some(self.left));
            self.context.report(ProgressEvent::Did { doing: Activity::Issue, rows: 1 });
            self.tell_forecast();
        }
    }

    fn tell_forecast(&self) {
        let outlook = self.context.worker.graph.pace().outlook(Budget::PassWrites);
        if let Outlook { per_second: Some(per_second), holding } = outlook {
            self.context.report(ProgressEvent::Forecast {
                doing: Activity::Issue,
                per_second,
                holding,
            });
        }
    }

    fn lose(&mut self, line: Line) {
        let now = self.context.worker.clock.instant();
        self.lost_in_a_row += 1;
        *self.losses.entry(line).or_default() += 1;
        let settle_after = self.context.worker.settle_after;
        self.wait_for(ScheduledLook { line, until: now + settle_after, what: Look::Settle });
        self.lost_since.insert(line);
        let since = now.saturating_duration_since(self.last_success);
        if since > limits::MAX_OUTAGE + settle_after && self.lost_since.len() > 1 {
            let why = "no pass was issued for too long, and answers were lost".to_owned();
            self.halt.get_or_insert(RunError::Outage { why });
        }
    }

    /// A pass exists that may be ours: a list that is behind shows it in a while.
    async fn wait_for_list(&mut self, line: Line) {
        let met = self.in_the_way.entry(line).or_default();
        let wait = row_backoff(*met);
        *met += 1;
        if *met < limits::MAX_ATTEMPTS {
            let until = self.context.worker.clock.instant() + wait;
            self.wait_for(ScheduledLook { line, until, what: Look::Settle });
            return;
        }
        match self.context.worker.ledger.row(line).await {
            Ok(Some(row)) => self.working.push(Box::pin(self.context.hold_unseen(line, row.upn))),
            Ok(None) => {
                self.halt.get_or_insert(RunError::Ledger(LedgerError::UnknownLine(line)));
            }
            Err(error) => {
                self.halt.get_or_insert(RunError::Ledger(error));
            }
        }
    }

    async fn try_again(&mut self, line: Line) {
        let losses = self.losses.get(&line).copied().unwrap_or_default();
        match self.context.worker.ledger.row(line).await {
            Ok(Some(row)) => {
                let context = self.context;
                if losses >= limits::MAX_ATTEMPTS {
                    self.working.push(Box::pin(context.give_up(line, row.upn, losses)));
                } else {
                    match Candidate::restore(&row) {
                        Ok(candidate) => self.freed.push_back(candidate),
                        Err(error) => {
                            self.halt.get_or_insert(RunError::Ledger(error));
                        }
                    }
                }
            }
            Ok(None) => {
                self.halt.get_or_insert(RunError::Ledger(LedgerError::UnknownLine(line)));
            }
            Err(error) => {
                self.halt.get_or_insert(RunError::Ledger(error));
            }
        }
    }
}

/// The wait after one more attempt of a kind.
fn counted(tried: &mut u32) -> Duration {
    let wait = row_backoff(*tried);
    *tried += 1;
    wait
}

fn row_backoff(attempt: u32) -> Duration {
    backoff(limits::ROW_BACKOFF, limits::MAX_ROW_BACKOFF, attempt)
}

/// The next mail that ends; never, if there are none.
async fn next_mail(mails: &mut Option<MailQueue<'_>>) -> Option<Result<(), RunError>> {
    mails.as_mut()?.next().await
}

/// A worker at this ledger.
pub(super) fn worker(ledger: &Ledger, session: &Session) -> Worker {
    let about = ledger.about();
    Worker {
        graph: session.graph.clone(),
        ledger: ledger.clone(),
        clock: session.clock.clone(),
        min_lifetime: about.policy.min_lifetime_minutes,
        existing: about.options.existing,
        issuers: Arc::clone(&session.issuers),
        settle_after: session.settle_after.unwrap_or(about.options.settle_after()),
        drain: session.drain.clone(),
    }
}

/// Looks once at the passes sealed by a process that ended before it could vouch for them; gives
/// those that are not listed, and may be there all the same.
async fn verify_inherited(worker: &Worker, session: &Session) -> Result<Vec<Line>, RunError> {
    let mut looks = FuturesUnordered::new();
    for row in all_rows(&worker.ledger, &[Standing::Sealed]).await? {
        let line = row.line;
        looks.push(async move { Ok((line, look_at_inherited(worker, session, line).await?)) });
    }
    let mut unseen = Vec::new();
    while let Some(looked) = looks.next().await {
        let (line, settled): (Line, Reconciled) = looked.map_err(|halt: RunError| halt)?;
        if is_behind(&settled) {
            unseen.push(line);
        }
    }
    Ok(unseen)
}

const fn is_behind(settled: &Reconciled) -> bool {
    matches!(settled, Reconciled::Behind { .. })
}

async fn look_at_inherited(
    worker: &Worker,
    session: &Session,
    line: Line,
) -> Result<Reconciled, RunError> {
    let settled = worker.verify(line).await?;
    if let Reconciled::Held { why } = &settled {
        let row = worker.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        session.watcher.report(ProgressEvent::RowHeld { line, upn: row.upn, why: why.clone() });
    }
    Ok(settled)
}

/// Which rows an earlier process left without an outcome, and when they may be settled.
pub(super) async fn pick_up_lost(
    worker: &Worker,
    started: Instant,
) -> Result<Vec<ScheduledLook>, RunError> {
    let mut looks = Vec::new();
    for row in all_rows(&worker.ledger, &[Standing::Intent, Standing::Unsettled]).await? {
        worker.mark_lost(&row).await?;
        let until = worker.settled_from(row.attempt()?, started);
        looks.push(ScheduledLook { line: row.line, until, what: Look::Settle });
    }
    Ok(looks)
}

/// All rows in these states: those that went wrong, which are few, or sealed ones, which are
/// looked through a page at a time.
pub(super) async fn all_rows(
    ledger: &Ledger,
    states: &[Standing],
) -> Result<Vec<RowRecord>, LedgerError> {
    let mut all = Vec::new();
    let mut pages = ledger.pages(states, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        let sealed_and_proven =
            |row: &RowRecord| matches!(row.state, State::Sealed { proven: true, .. });
        all.extend(rows.into_iter().filter(|row| !sealed_and_proven(row)));
    }
    Ok(all)
}

/// Writes the handoff files of this process, and containers of the rows that no finished
/// handoff holds.
async fn hand_over(
    ledger: &Ledger,
    vault: Sealer,
    kept_out: &HashSet<Line>,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
    let (sets, spool) = vault.into_parts();
    let labels: Vec<String> = sets.iter().map(|set| set.label().to_owned()).collect();
    let target = folder.clone();
    let (files, ended) = blocking(move || {
        let mut files = Vec::new();
        let ended = spool.finish(&sets, &target, |file| files.push(file));
        (files, ended)
    })
    .await;
    for file in files {
        ledger.handed_off(name_of(&file.path), digest_of(&file.path).await?, file.lines).await?;
        handoffs.push(file.path);
    }
    ended?;
    hand_over_rest(ledger, &folder, &labels, kept_out, handoffs).await
}

/// Writes what only the ledger holds, because an earlier process sealed it, into one container
/// for each set of recipients.
async fn hand_over_rest(
    ledger: &Ledger,
    folder: &Path,
    labels: &[String],
    kept_out: &HashSet<Line>,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let mut rest = all_unhanded(ledger).await?;
    rest.retain(|row| !kept_out.contains(&row.line));
    rest.sort_unstable_by_key(|row| (row.set, row.line));
    for rows in rest.chunk_by(|one, two| one.set == two.set) {
        let set = rows[0].set;
        let label = labels.get(set as usize).ok_or(HandoffError::NoSet { set })?.clone();
        let mut container = Container::create(folder)?;
        for Unhanded { line, .. } in rows.iter().copied() {
            let sealed = ledger.ciphertext(line).await?.ok_or(HandoffError::Gone { line })?;
            container.add(line, &Ciphertext::restored(sealed)?)?;
        }
        let path = blocking(move || container.finish(&label)).await?;
        let lines = rows.iter().map(|row| row.line).collect();
        ledger.handed_off(name_of(&path), digest_of(&path).await?, lines).await?;
        handoffs.push(path);
    }
    Ok(())
}

/// Which rows no finished handoff holds: 16 bytes for each, as the spool has 24.
async fn all_unhanded(ledger: &Ledger) -> Result<Vec<Unhanded>, LedgerError> {
    let mut all = Vec::new();
    let mut pages =
        Pages::new(async |after| ledger.rows_without_handoff(after, limits::ROWS_PER_READ).await);
    while let Some(rows) = pages.next().await? {
        all.extend(rows);
    }
    Ok(all)
}

/// What cleanup knows the file by.
async fn digest_of(path: &Path) -> Result<String, HandoverError> {
    let (read, place) = (path.to_owned(), path.to_owned());
    let digest = blocking(move || super::cleanup::digest(&read)).await;
    digest.map_err(|source| LedgerError::Io { doing: "read", path: place, source }.into())
}

/// Does what waits for the disk beside the other tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A defect that left no handoff must not end as if there were one.
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
