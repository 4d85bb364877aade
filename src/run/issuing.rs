//! Promises that every row that may get a pass is worked on by one task at most, until it
//! has one, has failed, is held, or somebody wished to stop.
//!
//! The conductor branches here; what is done to a row is straight below. On a halt or a
//! drain, nothing new begins and whatever is in flight is finished and committed.

use std::cell::Cell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{LocalBoxFuture, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::Session;
use super::delivering::{self, Mails, Post};
use super::intake::{self, IntakeError};
use super::source::Source;
use crate::ids::{Line, Upn};
use crate::ledger::{
    Channel, Event, IntentRecord, Ledger, LedgerError, RowRecord, Standing, State,
};
use crate::limits;
use crate::pace::{Budget, Outlook};
use crate::progress::{Doing, News};
use crate::stages::check::Candidate;
use crate::stages::deliver::{self, Again, Stop};
use crate::stages::issue::settle::Settled;
use crate::stages::issue::{Attempt, Desk, Halt, Hindrance, waiting};
use crate::stages::seal::{self, HandoverError, RecipientBook, Sealed, Vault};
use crate::stages::{Drain, DrainSwitch};
use crate::vault::{self, Ciphertext, RecipientSet, Spool};

/// How issuing ended.
#[derive(Debug)]
pub struct Issuance {
    /// Why it stopped before its end, if it did.
    pub halt: Option<Halt>,
    /// Whether somebody wished to stop.
    pub drained: bool,
    /// Why mailing stopped before its end, if it did.
    pub mail: Option<Stop>,
    /// The handoff files written now.
    pub handoffs: Vec<PathBuf>,
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
    Halt(#[from] Halt),
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
    post: Option<&Post>,
    session: &Session,
) -> Result<Issuance, IssuingError> {
    let floor = Floor::open(ledger, sets, post, session)?;
    Ok(floor.work(Vec::new()).await)
}

/// Carries any run on from any state: settles what is unsettled, looks again at what waits,
/// gives failed rows another chance, issues the rest.
///
/// # Errors
/// [`IssuingError`], before the first row.
pub async fn resume(
    ledger: &Ledger,
    post: Option<&Post>,
    session: &Session,
) -> Result<Issuance, IssuingError> {
    if ledger.closed().await?.is_some() {
        return Err(IssuingError::Closed);
    }
    let sets = RecipientBook::restore(&ledger.about().recipients, &session.prompts)?;
    // The first answer also tells Graph's clock, by which old intents are judged.
    session.graph.policy().await.map_err(Halt::from)?;
    let started = session.clock.instant();
    let floor = Floor::open(ledger, sets, post, session)?;
    let fences = floor.pick_up(started).await?;
    intake::check_again(ledger, session).await?;
    Ok(floor.work(fences).await)
}

/// Whether passes wait for a look: the process that sealed them, or one after it, did not end
/// in order.
///
/// # Errors
/// [`LedgerError`]
pub async fn is_doubted(ledger: &Ledger) -> Result<bool, LedgerError> {
    Ok(!all_rows(ledger, &[Standing::Sealed]).await?.is_empty())
}

/// Looks again at those passes and at nothing else: what is live is vouched for, a row without
/// any is free for another attempt.
///
/// # Errors
/// [`Halt`]
pub async fn verify(ledger: &Ledger, session: &Session) -> Result<(), Halt> {
    verify_inherited(&desk(ledger, session), session).await
}

/// A lost row and when it may be settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fence {
    pub(super) line: Line,
    pub(super) until: Instant,
}

/// Everything a row's task needs.
pub(super) struct Floor<'a> {
    pub(super) desk: Desk,
    vault: Vault,
    post: Option<&'a Post>,
    session: &'a Session,
    /// Since when no request of any row has got through, if none has.
    unreached_since: Cell<Option<Instant>>,
    /// Stops the desk: a halt must reach the rows that wait for the limiter's leave as the
    /// operator's wish does, or each of them would knock once more.
    stop: DrainSwitch,
}

/// What one task came to.
enum Reached {
    Sealed(Line),
    Failed,
    Held,
    /// Nobody knows; settle after the fence.
    Lost(Line),
    /// Settled; the row may be tried again.
    Free(Line),
    /// Left as it was, because somebody wished to stop.
    Stopped,
}

impl<'a> Floor<'a> {
    fn open(
        ledger: &Ledger,
        sets: Vec<Arc<RecipientSet>>,
        post: Option<&'a Post>,
        session: &'a Session,
    ) -> Result<Self, IssuingError> {
        let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
        let spool = Spool::create(&folder).map_err(HandoverError::from)?;
        let (stop, drain) = Drain::new();
        let desk = Desk { drain, ..desk(ledger, session) };
        let vault = Vault::new(sets, spool);
        Ok(Self { desk, vault, post, session, unreached_since: Cell::default(), stop })
    }

    /// Sorts out what an earlier process left: which rows must be settled, and when.
    async fn pick_up(&self, started: Instant) -> Result<Vec<Fence>, IssuingError> {
        let mut fences = pick_up_lost(&self.desk, started).await?;
        for row in all_rows(&self.desk.ledger, &[Standing::Held]).await? {
            fences.push(Fence { line: row.line, until: started });
        }
        self.retry_failed().await?;
        Ok(fences)
    }

    /// Gives failed rows another chance. They may be all rows, where a policy was switched off
    /// half-way: a page at a time, each in one commit.
    async fn retry_failed(&self) -> Result<(), LedgerError> {
        let ledger = &self.desk.ledger;
        let mut after = None;
        loop {
            let rows = ledger.rows(&[Standing::Failed], after, limits::ROWS_PER_READ).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.line);
            try_join_all(rows.iter().map(|row| ledger.record(row.line, Event::Retried))).await?;
        }
    }

    /// Works until there is nothing left to do, and writes the handoff.
    async fn work(self, fences: Vec<Fence>) -> Issuance {
        let mut mail = None;
        let halt = self.issue_all(fences, &mut mail).await.err();
        let drained = self.session.drain.is_on();
        let Self { desk, vault, session, .. } = self;
        if halt.is_some() && desk.ledger.add_traffic(0, 0).await.is_err() {
            // A ledger that takes no more cannot say which file holds what, and the next process
            // doubts its last seals: it hands over what it has looked at.
            return Issuance { halt, drained, mail, handoffs: Vec::new(), handover: None };
        }
        session.watcher.hear(News::Began { doing: Doing::Handoff, total: None });
        let mut handoffs = Vec::new();
        let handover = hand_over(&desk.ledger, vault, &mut handoffs).await.err();
        session.watcher.hear(News::Ended { doing: Doing::Handoff });
        Issuance { halt, drained, mail, handoffs, handover }
    }

    async fn issue_all(&self, fences: Vec<Fence>, mail: &mut Option<Stop>) -> Result<(), Halt> {
        verify_inherited(&self.desk, self.session).await?;
        let counts = self.desk.ledger.counts().await?;
        let total = counts.of(Standing::Checked) + fences.len() as u64;
        self.hear(News::Began { doing: Doing::Issue, total: Some(total) });
        let mut shift = Shift::new(self, &fences, total);
        for fence in fences {
            shift.wait_for(fence);
        }
        shift.pick_up_mail().await?;
        let ended = shift.run(mail).await;
        // Whatever comes next on this budget is no part of this wave.
        self.desk.graph.pace().announce(Budget::PassWrites, None);
        self.hear(News::Ended { doing: Doing::Issue });
        ended
    }

    /// One row, tried until there is something to record for good.
    async fn row(&self, candidate: Candidate) -> Result<Reached, Halt> {
        let (line, upn) = (candidate.line(), candidate.upn().to_owned());
        let (mut refused, mut unreached) = (0, 0);
        loop {
            let attempt = self.desk.attempt(candidate.clone(), refused).await?;
            let hindrance = match attempt {
                Attempt::NotBegun => return Ok(Reached::Stopped),
                Attempt::Issued(issued) => {
                    self.reached();
                    let sealed = seal::seal(&self.desk, &self.vault, *issued).await?;
                    return self.prove(sealed, upn).await;
                }
                Attempt::Failed { why } => {
                    self.reached();
                    return Ok(self.failed(line, upn, why));
                }
                Attempt::TooLate { why } => return Ok(self.failed(line, upn, why)),
                Attempt::Unsettled { why } => {
                    let fence = self.desk.fence;
                    self.hear(News::AnswerLost { line, upn, why, fence });
                    return Ok(Reached::Lost(line));
                }
                Attempt::Again { hindrance, why } => {
                    self.endure(hindrance, why)?;
                    hindrance
                }
            };
            let wait = match hindrance {
                Hindrance::Throttled => Duration::ZERO,
                Hindrance::Unreachable => counted(&mut unreached),
                Hindrance::Refused => counted(&mut refused),
            };
            if self.stops_within(wait).await {
                return Ok(Reached::Stopped);
            }
        }
    }

    /// Ends the run when nothing has got through for [`limits::MAX_OUTAGE`].
    fn endure(&self, hindrance: Hindrance, why: String) -> Result<(), Halt> {
        let out = match (hindrance, self.unreached_since.get()) {
            (Hindrance::Unreachable, Some(since)) => {
                self.desk.clock.instant().saturating_duration_since(since) > limits::MAX_OUTAGE
            }
            (Hindrance::Unreachable, None) => {
                self.unreached_since.set(Some(self.desk.clock.instant()));
                self.hear(News::Outage { why: why.clone() });
                false
            }
            (Hindrance::Throttled | Hindrance::Refused, _) => {
                self.reached();
                self.desk.graph.pace().is_out(Budget::PassWrites)
            }
        };
        if out { Err(Halt::Outage { why }) } else { Ok(()) }
    }

    /// Any row that gets through ends an outage for all, whatever its answer is.
    fn reached(&self) {
        if self.unreached_since.take().is_some() {
            self.hear(News::Reached);
        }
    }

    /// Looks at a user until somebody answers, for as long as issuing would try: the answers
    /// that an outage took are settled behind the fence, when it may not be over. `None` if the
    /// drain began before.
    async fn through_outage<F>(&self, look: impl Fn() -> F) -> Result<Option<Settled>, Halt>
    where
        F: Future<Output = Result<Settled, Halt>>,
    {
        let mut tried = 0;
        loop {
            match look().await {
                Err(Halt::Outage { why }) if !self.desk.is_refused() => {
                    self.endure(Hindrance::Unreachable, why)?;
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
    async fn give_up(&self, line: Line, upn: String, lost: u32) -> Result<Reached, Halt> {
        let why = format!("{lost} attempts were lost; resume to try again");
        self.desk.ledger.record(line, Event::GivenUp { why: why.clone() }).await?;
        Ok(self.failed(line, upn, why))
    }

    fn failed(&self, line: Line, upn: String, why: String) -> Reached {
        self.hear(News::RowFailed { line, upn, why });
        Reached::Failed
    }

    async fn prove(&self, sealed: Sealed, upn: String) -> Result<Reached, Halt> {
        if sealed.is_proven() {
            return Ok(Reached::Sealed(sealed.line()));
        }
        let line = sealed.line();
        let look = || self.desk.verify(line, sealed.user(), sealed.method());
        let looked = self.through_outage(look).await;
        // What is not proven is not handed over, also when nobody could look.
        if !matches!(looked, Ok(Some(Settled::Sealed))) {
            self.vault.forget(line);
        }
        Ok(match looked? {
            None => Reached::Stopped,
            Some(Settled::Sealed) => Reached::Sealed(line),
            Some(Settled::Free) => Reached::Free(line),
            Some(Settled::Held { why }) => {
                self.hear(News::RowHeld { line, upn, why });
                Reached::Held
            }
        })
    }

    async fn settle(&self, line: Line) -> Result<Reached, Halt> {
        match self.through_outage(|| self.desk.settle(line)).await? {
            None => Ok(Reached::Stopped),
            Some(Settled::Free) => Ok(Reached::Free(line)),
            Some(Settled::Sealed) => Ok(Reached::Sealed(line)),
            Some(Settled::Held { why }) => {
                let row = self.desk.ledger.row(line).await?;
                let upn = row.map(|row| row.upn).unwrap_or_default();
                self.hear(News::RowHeld { line, upn, why });
                Ok(Reached::Held)
            }
        }
    }

    /// Waits; true if the drain began first.
    async fn stops_within(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.desk.drain.begun() => true,
            () = self.desk.clock.sleep(wait) => false,
        }
    }

    fn hear(&self, news: News) {
        self.session.watcher.hear(news);
    }
}

/// The rows in hand: those being worked on, and those behind a fence.
struct Shift<'a> {
    floor: &'a Floor<'a>,
    source: Source,
    working: FuturesUnordered<LocalBoxFuture<'a, Result<Reached, Halt>>>,
    fenced: FuturesUnordered<LocalBoxFuture<'a, Line>>,
    mails: Option<Mails<'a>>,
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
    halt: Option<Halt>,
}

impl<'a> Shift<'a> {
    fn new(floor: &'a Floor<'a>, fences: &[Fence], left: u64) -> Self {
        let taken = fences.iter().map(|fence| fence.line).collect();
        Self {
            floor,
            source: Source::new(floor.desk.ledger.clone(), taken),
            working: FuturesUnordered::new(),
            fenced: FuturesUnordered::new(),
            mails: floor.post.map(|post| {
                let spool = Some(floor.vault.spool());
                Mails::new(post, spool, Again::default(), floor.session)
            }),
            lost_in_a_row: 0,
            losses: HashMap::new(),
            last_success: floor.desk.clock.instant(),
            lost_since: HashSet::new(),
            freed: VecDeque::new(),
            left,
            halt: None,
        }
    }

    fn wait_for(&mut self, fence: Fence) {
        let clock = &self.floor.desk.clock;
        self.fenced.push(Box::pin(async move {
            clock.sleep_until(fence.until).await;
            fence.line
        }));
    }

    /// What an earlier process sealed and did not mail; without an identity nobody here can
    /// open it. A notice needs nothing to be opened.
    async fn pick_up_mail(&mut self) -> Result<(), Halt> {
        let (Some(mails), Some(post)) = (&mut self.mails, self.floor.post) else { return Ok(()) };
        let ledger = &self.floor.desk.ledger;
        delivering::mark_lost(ledger).await?;
        let mut pick = |row: &RowRecord| {
            if let Some(channel) = deliver::next_mail(row, Again::default()) {
                mails.push(row.line, channel);
            }
        };
        if !post.holds_issuing_back() {
            delivering::gather_passes(ledger, &[Standing::Sealed], &mut pick).await?;
        }
        delivering::gather_notices(ledger, pick).await?;
        Ok(())
    }

    async fn run(mut self, mail: &mut Option<Stop>) -> Result<(), Halt> {
        let floor = self.floor;
        let drain = &floor.session.drain;
        let mut told = false;
        loop {
            let stopping = self.is_stopping();
            if !stopping {
                self.fill();
            }
            if stopping && !told {
                told = floor.stop.begin();
                if let Some(mails) = &self.mails {
                    mails.end_rests();
                }
                floor.hear(News::Draining { in_flight: self.working.len() as u64 });
            }
            if self.is_done(stopping) {
                *mail = self.mails.and_then(|mails| mails.stopped().cloned());
                return self.halt.map_or(Ok(()), Err);
            }
            tokio::select! {
                Some(reached) = self.working.next() => self.take(reached).await,
                Some(read) = self.source.read_on(), if !stopping => {
                    if let Err(error) = read {
                        self.halt.get_or_insert(Halt::Ledger(error));
                    }
                }
                Some(line) = self.fenced.next(), if !stopping => {
                    self.working.push(Box::pin(floor.settle(line)));
                }
                Some(ended) = next_mail(&mut self.mails) => {
                    if let Err(halt) = ended {
                        self.halt.get_or_insert(halt);
                    }
                }
                () = drain.begun(), if !stopping => {}
            }
        }
    }

    /// Nothing more is to be begun.
    fn is_stopping(&self) -> bool {
        self.halt.is_some() || self.floor.session.drain.is_on() || self.is_held_back_for_good()
    }

    /// Nothing is under way, and nothing is to be begun.
    fn is_done(&self, stopping: bool) -> bool {
        let mailing = self.mails.as_ref().is_some_and(|mails| {
            mails.is_sending() || !stopping && mails.stopped().is_none() && mails.in_hand() > 0
        });
        let nothing_waits = self.fenced.is_empty() && self.source.is_exhausted();
        self.working.is_empty() && !mailing && (stopping || nothing_waits)
    }

    /// Mail has stopped, and nobody but this process could mail what it would issue.
    fn is_held_back_for_good(&self) -> bool {
        self.mails.as_ref().is_some_and(|mails| mails.stopped().is_some())
            && self.floor.post.is_some_and(Post::holds_issuing_back)
    }

    /// Rows that may be worked on so that what waits for mail stays within its bound.
    fn room_for_mail(&self) -> usize {
        match (&self.mails, self.floor.post) {
            (Some(mails), Some(post)) if post.holds_issuing_back() => {
                post.most_waiting().saturating_sub(mails.passes_in_hand())
            }
            _ => usize::MAX,
        }
    }

    /// Begins as many mails and rows as may be in hand.
    fn fill(&mut self) {
        if let Some(mails) = &mut self.mails {
            mails.fill();
        }
        let room = if self.lost_in_a_row >= limits::LOSSES_BEFORE_CAUTION {
            1
        } else {
            self.floor.desk.graph.pace().max_in_flight() * limits::ROWS_AHEAD
        };
        while self.working.len() < room.min(self.room_for_mail())
            && let Some(candidate) = self.freed.pop_front().or_else(|| self.source.next())
        {
            self.working.push(Box::pin(self.floor.row(candidate)));
        }
    }

    async fn take(&mut self, reached: Result<Reached, Halt>) {
        let done = match reached {
            Ok(Reached::Sealed(line)) => {
                if let Some(mails) = &mut self.mails {
                    mails.push(line, Channel::Pass);
                }
                self.lost_in_a_row = 0;
                self.last_success = self.floor.desk.clock.instant();
                self.lost_since.clear();
                true
            }
            Ok(Reached::Failed | Reached::Held) => true,
            Ok(Reached::Stopped) => false,
            Ok(Reached::Lost(line)) => {
                self.lose(line);
                false
            }
            Ok(Reached::Free(line)) => {
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
            self.floor.desk.graph.pace().announce(Budget::PassWrites, Some(self.left));
            self.floor.hear(News::Did { doing: Doing::Issue, rows: 1 });
            self.foresee();
        }
    }

    fn foresee(&self) {
        let outlook = self.floor.desk.graph.pace().outlook(Budget::PassWrites);
        if let Outlook { per_second: Some(per_second), holding } = outlook {
            self.floor.hear(News::Foreseen { doing: Doing::Issue, per_second, holding });
        }
    }

    fn lose(&mut self, line: Line) {
        let now = self.floor.desk.clock.instant();
        self.lost_in_a_row += 1;
        *self.losses.entry(line).or_default() += 1;
        self.wait_for(Fence { line, until: now + self.floor.desk.fence });
        let fence = self.floor.desk.fence;
        self.lost_since.insert(line);
        let since = now.saturating_duration_since(self.last_success);
        if since > limits::MAX_OUTAGE + fence && self.lost_since.len() > 1 {
            let why = "no pass was issued for too long, and answers were lost".to_owned();
            self.halt.get_or_insert(Halt::Outage { why });
        }
    }

    async fn try_again(&mut self, line: Line) {
        let losses = self.losses.get(&line).copied().unwrap_or_default();
        match self.floor.desk.ledger.row(line).await {
            Ok(Some(row)) => {
                let floor = self.floor;
                if losses >= limits::MAX_ATTEMPTS {
                    self.working.push(Box::pin(floor.give_up(line, row.upn, losses)));
                } else {
                    self.freed.extend(Candidate::restore(&row));
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.halt.get_or_insert(Halt::Ledger(error));
            }
        }
    }
}

/// The wait after one more attempt of a kind.
fn counted(tried: &mut u32) -> Duration {
    let wait = waiting(*tried);
    *tried += 1;
    wait
}

/// The next mail that ends; never, if there are none.
async fn next_mail(mails: &mut Option<Mails<'_>>) -> Option<Result<(), Halt>> {
    mails.as_mut()?.next().await
}

/// A desk at this ledger.
pub(super) fn desk(ledger: &Ledger, session: &Session) -> Desk {
    let about = ledger.about();
    Desk {
        graph: session.graph.clone(),
        ledger: ledger.clone(),
        clock: session.clock.clone(),
        min_lifetime: about.policy.min_lifetime_minutes,
        existing: about.options.existing,
        fence: session.fence.unwrap_or(about.options.fence()),
        drain: session.drain.clone(),
    }
}

/// Passes sealed by a process that ended before it could vouch for them: each is looked at
/// again, and a row without any is free for another attempt.
async fn verify_inherited(desk: &Desk, session: &Session) -> Result<(), Halt> {
    let mut looks = FuturesUnordered::new();
    for row in all_rows(&desk.ledger, &[Standing::Sealed]).await? {
        let (State::Sealed { method, .. }, Some(user)) = (row.state, row.user) else {
            continue;
        };
        let (line, upn) = (row.line, row.upn);
        looks.push(async move {
            let settled = desk.verify_inherited(line, user, &method).await?;
            if let Settled::Held { why } = settled {
                session.watcher.hear(News::RowHeld { line, upn, why });
            }
            Ok::<(), Halt>(())
        });
    }
    while let Some(looked) = looks.next().await {
        looked?;
    }
    Ok(())
}

/// Which rows an earlier process left without an outcome, and when they may be settled.
pub(super) async fn pick_up_lost(desk: &Desk, started: Instant) -> Result<Vec<Fence>, Halt> {
    let mut fences = Vec::new();
    for row in all_rows(&desk.ledger, &[Standing::Intent, Standing::Unsettled]).await? {
        desk.mark_lost(&row).await?;
        let until = row.intent.as_ref().map_or(started + desk.fence, |attempt: &IntentRecord| {
            desk.fence_from_start(attempt, started)
        });
        fences.push(Fence { line: row.line, until });
    }
    Ok(fences)
}

/// All rows in these states: those that went wrong, which are few, or sealed ones, which are
/// looked through a page at a time.
pub(super) async fn all_rows(
    ledger: &Ledger,
    states: &[Standing],
) -> Result<Vec<RowRecord>, LedgerError> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let rows = ledger.rows(states, after, limits::ROWS_PER_READ).await?;
        let Some(last) = rows.last() else { return Ok(all) };
        after = Some(last.line);
        let sealed_and_proven =
            |row: &RowRecord| matches!(row.state, State::Sealed { proven: true, .. });
        all.extend(rows.into_iter().filter(|row| !sealed_and_proven(row)));
    }
}

/// Writes the handoff files of this process, and lays rows that no finished handoff holds
/// beside them.
async fn hand_over(
    ledger: &Ledger,
    vault: Vault,
    handoffs: &mut Vec<PathBuf>,
) -> Result<(), HandoverError> {
    let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
    let (sets, spool) = vault.into_parts();
    let labels: Vec<String> = sets.iter().map(|set| set.label().to_owned()).collect();
    let target = folder.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut files = Vec::new();
        let ended = spool.finish(&sets, &target, |file| files.push(file));
        (files, ended)
    });
    let (files, ended) = match writing.await {
        Ok(written) => written,
        // A defect that left no handoff must not end as if there were one.
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    };
    for file in files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ledger.handed_off(name, file.lines).await?;
        handoffs.push(file.path);
    }
    ended?;
    let mut after = None;
    loop {
        let rows = ledger.rows_without_handoff(after, limits::ROWS_PER_READ).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.line);
        for unhanded in rows {
            let label = labels.get(unhanded.set as usize).map_or("passes", String::as_str);
            handoffs.extend(lay_beside(ledger, &folder, label, unhanded.line).await?);
        }
    }
}

async fn lay_beside(
    ledger: &Ledger,
    folder: &std::path::Path,
    label: &str,
    line: Line,
) -> Result<Option<PathBuf>, HandoverError> {
    let (Some(row), Some(bytes)) = (ledger.row(line).await?, ledger.ciphertext(line).await?) else {
        return Ok(None);
    };
    let Ok(upn) = row.upn.parse::<Upn>() else { return Ok(None) };
    let sealed = Ciphertext::restored(bytes)?;
    let path = vault::lay_single(folder, label, line, &upn, &sealed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ledger.handed_off(name, vec![line]).await?;
    Ok(Some(path))
}
