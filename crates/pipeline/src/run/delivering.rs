//! Promises that each sealed pass is mailed by one task at most, a few at a time, and that a
//! mail whose answer an earlier process never heard is held and not repeated.
//!
//! In a run, `Mails` goes along with issuing; [`deliver`] is the command of its own.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;

use super::Session;
use super::cleanup::{CleanupQueue, UnprovenRow};
use super::equal_refusals::EqualRefusals;
use super::issuing::worker;
use crate::deliver::{
    Delivered, LetterError, MailStopped, Mailer, NotMailed, OpeningKey, Outgoing, Resend,
    next_mail, over, readdressed, start_of,
};
use crate::worker::RunError;
use tapwave_core::clock::later;
use tapwave_core::effect::Effect;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_ledger::{
    Channel, Event, Ledger, LedgerError, MailRecord, MailState, Pages, RowRecord, Standing, State,
};
use tapwave_mail::template::{Mailbox, Mode};
use tapwave_seal::{Identities, Spool};

/// How passes are mailed, and what opens them.
pub struct Mailing {
    /// Letters and their carrier.
    pub mailer: Mailer,
    /// Opens the sealed copies; without any, only what this process sealed can be mailed.
    pub identities: Option<Identities>,
}

impl Mailing {
    /// Whether issuing must wait for mail: nobody else could open what waits.
    pub(super) fn holds_issuing_back(&self) -> bool {
        self.mailer.writer.mode == Mode::Pass && self.identities.is_none()
    }

    /// Passes that may be under way or wait for mail, if [`Mailing::holds_issuing_back`].
    pub(super) fn most_waiting(&self) -> usize {
        self.mailer.writer.plan.max_connections * limits::WAITING_PER_CONNECTION
    }

    fn key<'a>(&'a self, spool: Option<&'a Spool>) -> OpeningKey<'a> {
        match (&self.identities, spool) {
            (Some(identities), _) => OpeningKey::Identities(identities),
            (None, Some(spool)) => OpeningKey::Spool(spool),
            (None, None) => OpeningKey::None,
        }
    }
}

/// The rows that wait for mail, and those whose mail is under way.
pub(super) struct MailQueue<'a> {
    mailing: &'a Mailing,
    session: &'a Session,
    key: OpeningKey<'a>,
    again: Resend,
    passes: VecDeque<Line>,
    notices: VecDeque<Line>,
    /// Whose turn it is where both wait: a notice that comes long after its pass tells of one
    /// that is over.
    turn: Channel,
    sending: FuturesUnordered<LocalBoxFuture<'a, Result<MailEnded, LedgerError>>>,
    passes_under_way: usize,
    /// It was told that mail waits, and none has gone out since.
    told_of_rest: bool,
    refusals: EqualRefusals,
    /// Why nothing more is mailed, if nothing is.
    stopped: Option<MailStopped>,
}

/// A mail that was begun, and what came of it; nothing, if its row no longer asks for it.
struct MailEnded {
    line: Line,
    upn: String,
    channel: Channel,
    mailed: Option<Result<Effect<Delivered>, NotMailed>>,
}

impl<'a> MailQueue<'a> {
    pub(super) fn new(
        mailing: &'a Mailing,
        spool: Option<&'a Spool>,
        again: Resend,
        session: &'a Session,
    ) -> Self {
        Self {
            mailing,
            session,
            key: mailing.key(spool),
            again,
            passes: VecDeque::new(),
            notices: VecDeque::new(),
            turn: Channel::Pass,
            sending: FuturesUnordered::new(),
            passes_under_way: 0,
            told_of_rest: false,
            refusals: EqualRefusals::new(session),
            stopped: None,
        }
    }

    /// Puts a row's mail at the end.
    pub(super) fn push(&mut self, line: Line, channel: Channel) {
        match channel {
            Channel::Pass => self.passes.push_back(line),
            Channel::Notice => self.notices.push_back(line),
        }
    }

    /// Mails that wait or are under way.
    pub(super) fn in_hand(&self) -> usize {
        self.passes.len() + self.notices.len() + self.sending.len()
    }

    /// Those of them that carry a pass.
    pub(super) fn passes_in_hand(&self) -> usize {
        self.passes.len() + self.passes_under_way
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Nothing more is begun, so those that rest between two attempts or wait for their turn at
    /// the relay are left for later.
    pub(super) fn end_rests(&self) {
        self.mailing.mailer.resting.end();
    }

    /// Why mailing ended before its end.
    pub(super) fn stopped(&self) -> Option<&MailStopped> {
        self.stopped.as_ref()
    }

    /// The same, when nothing is under way any more: what waited to be told is told.
    pub(super) fn end(mut self) -> Option<MailStopped> {
        self.refusals.tell(self.session);
        self.stopped
    }

    /// Begins as many mails as there are connections, those that rest between two attempts
    /// aside.
    pub(super) fn fill(&mut self) {
        let mailer = &self.mailing.mailer;
        let resting = || mailer.resting.count().min(limits::MAX_MAILS_RESTING);
        while self.stopped.is_none()
            && self.sending.len() < mailer.writer.plan.max_connections + resting()
        {
            let Some((line, channel)) = self.pop() else { return };
            self.passes_under_way += usize::from(channel == Channel::Pass);
            self.sending.push(Box::pin(send(self.mailing, line, channel, self.key, self.again)));
        }
    }

    /// A pass and a notice by turns, where both wait.
    fn pop(&mut self) -> Option<(Line, Channel)> {
        let turn = match (self.passes.is_empty(), self.notices.is_empty()) {
            (false, false) => self.turn,
            (false, true) => Channel::Pass,
            (true, _) => Channel::Notice,
        };
        let (queue, next) = match turn {
            Channel::Pass => (&mut self.passes, Channel::Notice),
            Channel::Notice => (&mut self.notices, Channel::Pass),
        };
        self.turn = next;
        Some((queue.pop_front()?, turn))
    }

    /// Waits until there may be mailer for another mail: one has ended, which is told, or rests.
    /// `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<(), RunError>> {
        let ended = tokio::select! {
            biased;
            ended = self.sending.next() => ended?,
            why = self.mailing.mailer.resting.more() => {
                if !std::mem::replace(&mut self.told_of_rest, true) {
                    self.session.watcher.report(ProgressEvent::MailRetrying { why });
                }
                return Some(Ok(()));
            }
        };
        Some(ended.map(|ended| self.take(ended)).map_err(RunError::from))
    }

    fn take(&mut self, ended: MailEnded) {
        let MailEnded { line, upn, channel, mailed } = ended;
        self.passes_under_way -= usize::from(channel == Channel::Pass);
        let word = channel.noun();
        let failed = |how: &str, why: &dyn std::fmt::Display| {
            let why = format!("{word} {how}: {why}");
            ProgressEvent::RowFailed { line, upn: upn.clone(), why }
        };
        let Some(mailed) = mailed else { return };
        let news = match mailed {
            Ok(Effect::Done(delivered)) => {
                if delivered.owes_notice() {
                    self.push(line, Channel::Notice);
                }
                self.told_of_rest = false;
                ProgressEvent::Did { doing: Activity::Deliver, rows: 1 }
            }
            Ok(Effect::Refused(why)) => {
                let news = failed("refused", &why);
                if self.refusals.grows(&why, news, self.session) {
                    self.stop(of_everybody(&why));
                }
                return;
            }
            Ok(Effect::NoEffect(obstacle)) if obstacle.may_pass() => {
                failed("not sent", &obstacle.why)
            }
            Ok(Effect::NoEffect(obstacle)) => {
                let denied = obstacle.bars_us();
                self.stop(MailStopped { why: obstacle.why, denied });
                return;
            }
            Ok(Effect::Unsettled { why }) => {
                let why = format!("nobody knows whether its {word} went out: {why}");
                ProgressEvent::RowHeld { line, upn, why }
            }
            Err(NotMailed::TooLate(over)) => failed("not sent", &over),
            Err(NotMailed::NotWritten(why)) => failed("not written", &why),
            Err(held @ NotMailed::Held) => {
                ProgressEvent::RowHeld { line, upn, why: format!("its {word} {held}") }
            }
            Err(NotMailed::Drained | NotMailed::Ledger(_)) => return,
        };
        self.refusals.end(self.session);
        self.session.watcher.report(news);
    }

    fn stop(&mut self, stop: MailStopped) {
        self.stopped.get_or_insert(stop);
        self.end_rests();
    }
}

/// Why mailing ends when one reader after the other is refused for the same reason. RFC 3463 has
/// X.7 for security and policy: it is not the readers then.
fn of_everybody(why: &str) -> MailStopped {
    let denied = why.split_whitespace().nth(1).is_some_and(|code| code.starts_with("5.7."));
    let why = format!(
        "{} mails in a row were refused for the same reason: {why}; mend that, and deliver \
         --retry-refused tries them anew, or --keep-going goes on with the others",
        limits::EQUAL_REFUSALS
    );
    MailStopped { why, denied }
}

/// One mail, from the ledger's record of its row.
async fn send(
    mailing: &Mailing,
    line: Line,
    channel: Channel,
    key: OpeningKey<'_>,
    again: Resend,
) -> Result<MailEnded, LedgerError> {
    let row = mailing.mailer.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
    let upn = row.upn.clone();
    let mailed = match Outgoing::restore(row, again) {
        Ok(Some(Outgoing::Pass(addressed))) => Some(mailing.mailer.deliver(*addressed, key).await),
        Ok(Some(Outgoing::Notice(delivered))) => Some(mailing.mailer.notify(*delivered).await),
        Ok(None) => None,
        Err(damaged) => Some(Err(damaged.into())),
    };
    match mailed {
        Some(Err(NotMailed::Ledger(error))) => Err(error),
        mailed => Ok(MailEnded { line, upn, channel, mailed }),
    }
}

/// Why mails cannot be sent elsewhere. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReaddressError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No such row.
    #[error("--readdress names line {0}, and the run has no row there")]
    NoRow(Line),
    /// Two addresses for one mail.
    #[error("--readdress names line {0} twice; keep the address that is meant")]
    Twice(Line),
    /// Its record cannot be read.
    #[error("--readdress names line {line}: {source}")]
    Damaged {
        /// Its line in the wave.
        line: Line,
        /// What cannot be read.
        source: LetterError,
    },
    /// Its mail has gone out, may have gone out, or cannot go out.
    #[error(
        "--readdress names line {line}, which is {state}: only a mail that certainly did not go out can go elsewhere"
    )]
    NoMail {
        /// Its line in the wave.
        line: Line,
        state: &'static str,
    },
}

/// Names other readers for mails that certainly did not go out, all of them or none.
pub async fn readdress(ledger: &Ledger, readers: &[(Line, Mailbox)]) -> Result<(), ReaddressError> {
    let (mut events, mut named) = (Vec::new(), HashSet::new());
    for (line, to) in readers {
        if !named.insert(*line) {
            return Err(ReaddressError::Twice(*line));
        }
        let row = ledger.row(*line).await?.ok_or(ReaddressError::NoRow(*line))?;
        let state = row.state.name();
        let damaged = |source| ReaddressError::Damaged { line: *line, source };
        let (channel, reader) = readdressed(&row, to)
            .map_err(damaged)?
            .ok_or(ReaddressError::NoMail { line: *line, state })?;
        events.push((*line, Event::Readdressed { channel, reader: Box::new(reader) }));
    }
    for (line, event) in events {
        ledger.record(line, event).await?;
    }
    Ok(())
}

/// The states of rows whose pass is sealed and was not mailed, or perhaps not.
const UNMAILED: [Standing; 2] = [Standing::Sealed, Standing::Mailing];

/// What the `deliver` command was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliverRequest {
    /// Only what starts within this time.
    pub due: Option<Duration>,
    /// Also mails of unknown fate, and those that were refused.
    pub again: Resend,
    /// Remove the passes whose mail was refused.
    pub revoke: bool,
}

/// How delivering ended.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Why it stopped before its end.
    pub stopped: Option<MailStopped>,
    /// Rows that are due and whose mail, or the notice of it, nobody took.
    pub open: Undelivered,
    /// Those of them that an earlier process sealed before it broke off: what stands on the user
    /// is not known until a resume has looked, so they are not mailed.
    pub unproven: u64,
    /// Rows that start later than `due`.
    pub later: u64,
    /// Rows whose passes were removed because their mail was refused, or came too late.
    pub revoked: Vec<(Line, String)>,
    /// Those whose passes could not be removed.
    pub unrevoked: Vec<UnprovenRow>,
    /// Whether somebody wished to stop.
    pub drained: bool,
}

/// Rows whose mail, or the notice of it, nobody took. Those of unknown fate and those refused
/// for good go out again only when a person says so, unless their pass is over.
#[derive(Debug, Default, Clone, Copy)]
pub struct Undelivered {
    pub rows: u64,
    /// Those of unknown fate.
    pub unsettled: u64,
    /// Those refused for good.
    pub refused: u64,
    /// Those whose pass is over: nothing sends them any more.
    pub over: u64,
    /// Those of them whose pass certainly reached nobody.
    pub lapsed: u64,
}

/// Mails what is sealed and not yet delivered.
///
/// # Errors
/// [`RunError`], from the ledger or, when passes are removed, from Graph.
pub async fn deliver(
    mailing: &Mailing,
    session: &Session,
    wish: DeliverRequest,
) -> Result<Delivery, RunError> {
    session.drain.begin_work();
    let ledger = &mailing.mailer.ledger;
    mark_lost(ledger).await?;
    let mut mails = MailQueue::new(mailing, None, wish.again, session);
    let mut delivery = Delivery::default();
    let now = session.graph.likely_time().await;
    let horizon = wish.due.map(|due| later(now, due));
    // Of a row that cannot be read it is told why, when its turn comes.
    let is_due = |row: &RowRecord| {
        horizon.is_none_or(|end| start_of(row).map_or(true, |start| start <= end))
    };
    let mut total = 0;
    for_each_mail(ledger, &UNMAILED, |row| {
        if !is_due(row) {
            delivery.later += 1;
        } else if let Some(channel) = next_turn(row, wish.again) {
            mails.push(row.line, channel);
            total += 1 + u64::from(channel == Channel::Pass && row.notice_reader.is_some());
        }
    })
    .await?;
    session
        .watcher
        .report(ProgressEvent::Began { activity: Activity::Deliver, total: Some(total) });
    let worked = work(&mut mails, session).await;
    session.watcher.report(ProgressEvent::Ended { doing: Activity::Deliver });
    worked?;
    delivery.stopped = mails.end();
    delivery.drained = session.drain.is_on();
    if wish.revoke && !delivery.drained {
        revoke(ledger, session, &mut delivery).await?;
    }
    let now = session.graph.likely_time().await;
    for_each_mail(ledger, &UNMAILED, |row| {
        if is_due(row) {
            let unproven = matches!(row.state, State::Sealed { proven: false, .. });
            delivery.unproven += u64::from(unproven && !is_over(row, now));
            delivery.open.add(row, now);
        }
    })
    .await?;
    Ok(delivery)
}

/// The rows of a run whose mail, or the notice of it, nobody took.
///
/// # Errors
/// [`RunError`], from the ledger.
pub async fn open_mail(ledger: &Ledger, session: &Session) -> Result<Undelivered, RunError> {
    let mut open = Undelivered::default();
    let now = session.graph.likely_time().await;
    for_each_mail(ledger, &UNMAILED, |row| open.add(row, now)).await?;
    Ok(open)
}

impl Undelivered {
    fn add(&mut self, row: &RowRecord, now: Timestamp) {
        let held_by = |again| {
            let may = |again| matches!(next_mail(row, again), Ok(Some(_)));
            u64::from(may(again) && !may(Resend::default()))
        };
        self.rows += 1;
        if is_over(row, now) {
            self.over += 1;
            self.lapsed += u64::from(has_lapsed(row, now));
            return;
        }
        self.unsettled += held_by(Resend { unsettled: true, refused: false });
        self.refused += held_by(Resend { unsettled: false, refused: true });
    }
}

/// Mails until nothing waits. After a fault nothing more is begun; what is under way is heard
/// to its end, for a mail that is dropped between its dot and its answer is held for ever.
async fn work(mails: &mut MailQueue<'_>, session: &Session) -> Result<(), RunError> {
    let mut halt = None;
    loop {
        if halt.is_none() && !session.drain.is_on() {
            mails.fill();
        }
        match mails.next().await {
            Some(Ok(())) => {}
            Some(Err(first)) => {
                mails.end_rests();
                halt.get_or_insert(first);
            }
            None => return halt.map_or(Ok(()), Err),
        }
    }
}

/// Records that mails which an earlier process left without an outcome are of unknown fate.
pub(super) async fn mark_lost(ledger: &Ledger) -> Result<(), LedgerError> {
    let mut lost = Vec::new();
    for_each_mail(ledger, &[Standing::Mailing], |row| match &row.state {
        State::Mailing { mail, .. } if !mail.lost => lost.push((row.line, Channel::Pass)),
        State::Delivered { notice: Some(MailState::Open(mail)), .. } if !mail.lost => {
            lost.push((row.line, Channel::Notice));
        }
        _ => {}
    })
    .await?;
    // A few, since a process has no more under way than it has connections.
    for (line, channel) in lost {
        let why = "the program ended before the answer came".to_owned();
        let outcome = Effect::Unsettled { why };
        ledger.record(line, Event::MailEnded { channel, outcome }).await?;
    }
    Ok(())
}

/// Calls `each` for the rows in these states, then for those that owe a notice.
pub(super) async fn for_each_mail(
    ledger: &Ledger,
    states: &[Standing],
    mut each: impl FnMut(&RowRecord),
) -> Result<(), LedgerError> {
    let mut passes = ledger.pages(states, limits::ROWS_PER_READ);
    while let Some(rows) = passes.next().await? {
        rows.iter().for_each(&mut each);
    }
    let mut notices =
        Pages::new(async |after| ledger.rows_owing_notice(after, limits::ROWS_PER_READ).await);
    while let Some(rows) = notices.next().await? {
        rows.iter().for_each(&mut each);
    }
    Ok(())
}

/// The mail of a row that is to have its turn: the one that may go out, or, of a row that cannot
/// be read, the one that it is then told of.
pub(super) fn next_turn(row: &RowRecord, again: Resend) -> Option<Channel> {
    next_mail(row, again).unwrap_or(Some(Channel::Pass))
}

/// Whether a row's pass is certainly over.
fn is_over(row: &RowRecord, now: Timestamp) -> bool {
    matches!(over(row, now), Ok(Some(_)))
}

/// Whether a row's pass was over before it was mailed.
fn has_lapsed(row: &RowRecord, now: Timestamp) -> bool {
    let unsent = Resend { unsettled: false, refused: true };
    matches!(next_mail(row, unsent), Ok(Some(Channel::Pass))) && is_over(row, now)
}

/// Removes the passes of rows whose mail was refused for good, or came too late. A notice that
/// was refused took nothing from whoever has the pass. Which pass is over, Graph's clock says.
async fn revoke(
    ledger: &Ledger,
    session: &Session,
    delivery: &mut Delivery,
) -> Result<(), RunError> {
    let mut clearing =
        CleanupQueue::new(Some(ledger), session, worker(ledger, session).settle_after);
    let mut pages = ledger.pages(&[Standing::Sealed], limits::ROWS_PER_CHECK);
    while let Some(rows) = pages.next().await? {
        let likely = session.graph.likely_time().await;
        let some_lapsed = rows.iter().any(|row| has_lapsed(row, likely));
        let now = if some_lapsed { session.graph.time().await? } else { likely };
        let failed = |row: &&RowRecord| {
            row.mail.as_ref().is_some_and(MailRecord::is_refused) || has_lapsed(row, now)
        };
        let failed: Vec<&RowRecord> = rows.iter().filter(failed).collect();
        delivery.revoked.extend(failed.iter().map(|row| (row.line, row.upn.clone())));
        let lines = failed.iter().map(|row| row.line).collect();
        clearing.look(ledger.remains_of(lines).await?).await?;
    }
    clearing.look_again().await?;
    delivery.unrevoked = clearing.end().left;
    let left = &delivery.unrevoked;
    delivery.revoked.retain(|(line, _)| left.iter().all(|left| left.line != *line));
    Ok(())
}
