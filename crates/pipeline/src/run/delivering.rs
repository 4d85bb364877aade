//! Promises that each sealed pass is mailed by one task at most, a few at a time, and that a mail
//! whose answer an earlier process did not hear is held and not repeated.
//!
//! A run sends mail beside issuing with a `MailQueue`; [`deliver`] is the command of its own.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;

use super::Session;
use super::cleanup::{CleanupQueue, UnprovenRow};
use super::equal_refusals::EqualRefusals;
use crate::deliver::{
    Delivered, LetterError, MailStopped, Mailer, NotMailed, OpeningKey, Outgoing, Resend, expired,
    next_mail, readdressed, start_of,
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

pub struct Mailing {
    pub mailer: Mailer,
    /// Open the sealed copies; without them, only this process's own passes can be mailed.
    pub identities: Option<Identities>,
}

impl Mailing {
    /// Whether issuing waits for mail, since nobody else can open what it seals.
    pub(super) fn holds_issuing_back(&self) -> bool {
        self.mailer.writer.mode == Mode::Pass && self.identities.is_none()
    }

    /// How many passes may wait then.
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

pub(super) struct MailQueue<'a> {
    mailing: &'a Mailing,
    session: &'a Session,
    key: OpeningKey<'a>,
    resend: Resend,
    passes: VecDeque<Line>,
    notices: VecDeque<Line>,
    /// Which goes next if both wait: a late notice could be about an expired pass.
    turn: Channel,
    sending: FuturesUnordered<LocalBoxFuture<'a, Result<MailEnded, LedgerError>>>,
    passes_under_way: usize,
    /// Whether a retry was reported since the last mail went out.
    retry_reported: bool,
    refusals: EqualRefusals,
    stopped: Option<MailStopped>,
}

/// `mailed` is `None` if the row no longer needs the mail.
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
        resend: Resend,
        session: &'a Session,
    ) -> Self {
        Self {
            mailing,
            session,
            key: mailing.key(spool),
            resend,
            passes: VecDeque::new(),
            notices: VecDeque::new(),
            turn: Channel::Pass,
            sending: FuturesUnordered::new(),
            passes_under_way: 0,
            retry_reported: false,
            refusals: EqualRefusals::new(session),
            stopped: None,
        }
    }

    pub(super) fn push(&mut self, line: Line, channel: Channel) {
        match channel {
            Channel::Pass => self.passes.push_back(line),
            Channel::Notice => self.notices.push_back(line),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.passes.is_empty() && self.notices.is_empty() && self.sending.is_empty()
    }

    /// Mails with a pass that wait or are under way.
    pub(super) fn unsent_passes(&self) -> usize {
        self.passes.len() + self.passes_under_way
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Leaves mails that wait for another attempt, or for their turn at the relay, for later.
    pub(super) fn cancel_retries(&self) {
        self.mailing.mailer.retries.cancel();
    }

    pub(super) fn stopped(&self) -> Option<&MailStopped> {
        self.stopped.as_ref()
    }

    pub(super) fn end(mut self) -> Option<MailStopped> {
        self.refusals.flush(self.session);
        self.stopped
    }

    /// Begins as many mails as there are connections, not counting those that wait for another
    /// attempt.
    pub(super) fn fill(&mut self) {
        let mailer = &self.mailing.mailer;
        let retrying = || mailer.retries.count().min(limits::MAX_MAILS_RESTING);
        while self.stopped.is_none()
            && self.sending.len() < mailer.writer.plan.max_connections + retrying()
        {
            let Some((line, channel)) = self.pop() else { return };
            self.passes_under_way += usize::from(channel == Channel::Pass);
            self.sending.push(Box::pin(send(self.mailing, line, channel, self.key, self.resend)));
        }
    }

    /// Alternates between passes and notices.
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

    /// Waits until another mail may begin: one has ended or waits for another attempt. `None` if
    /// none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<(), RunError>> {
        let ended = tokio::select! {
            biased;
            ended = self.sending.next() => ended?,
            why = self.mailing.mailer.retries.next() => {
                if !std::mem::replace(&mut self.retry_reported, true) {
                    self.session.report(ProgressEvent::MailRetrying { why });
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
        let event = match mailed {
            Ok(Effect::Done(delivered)) => {
                if delivered.owes_notice() {
                    self.push(line, Channel::Notice);
                }
                self.retry_reported = false;
                ProgressEvent::Did { doing: Activity::Deliver, rows: 1 }
            }
            Ok(Effect::Refused(why)) => {
                let event = failed("refused", &why);
                if self.refusals.add(&why, event, self.session) {
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
            Err(NotMailed::Stopped | NotMailed::Ledger(_)) => return,
        };
        self.refusals.reset(self.session);
        self.session.report(event);
    }

    fn stop(&mut self, stop: MailStopped) {
        self.stopped.get_or_insert(stop);
        self.cancel_retries();
    }
}

/// Why mailing ends after equal refusals. RFC 3463 has X.7 for security and policy, which are not
/// the readers' fault.
fn of_everybody(why: &str) -> MailStopped {
    let denied = why.split_whitespace().nth(1).is_some_and(|code| code.starts_with("5.7."));
    let why = format!(
        "{} mails in a row were refused for the same reason: {why}; mend that, and deliver \
         --retry-refused tries them anew, or --keep-going goes on with the others",
        limits::EQUAL_REFUSALS
    );
    MailStopped { why, denied }
}

async fn send(
    mailing: &Mailing,
    line: Line,
    channel: Channel,
    key: OpeningKey<'_>,
    resend: Resend,
) -> Result<MailEnded, LedgerError> {
    let row = mailing.mailer.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
    let upn = row.upn.clone();
    let mailed = match Outgoing::restore(row, resend) {
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

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReaddressError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("--readdress names line {0}, and the run has no row there")]
    NoRow(Line),
    #[error("--readdress names line {0} twice; keep the address that is meant")]
    Twice(Line),
    #[error("--readdress names line {line}: {source}")]
    Damaged { line: Line, source: LetterError },
    /// Its mail may have gone out, or cannot.
    #[error(
        "--readdress names line {line}, which is {state}: only a mail that certainly did not go out can go elsewhere"
    )]
    NoMail { line: Line, state: &'static str },
}

/// Records new readers for mails that certainly did not go out: all of them or none.
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

/// What the `deliver` command does.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeliverRequest {
    /// Only passes that start within this time.
    pub due: Option<Duration>,
    pub resend: Resend,
    pub revoke: bool,
}

#[derive(Debug, Default)]
pub struct Delivery {
    /// Why it ended early.
    pub stopped: Option<MailStopped>,
    pub open: Undelivered,
    /// Those of them that an interrupted process sealed: a resume must confirm them before they are
    /// mailed.
    pub unproven: u64,
    pub later: u64,
    /// Rows whose passes were removed because their mail was refused or came too late.
    pub revoked: Vec<(Line, String)>,
    pub unrevoked: Vec<UnprovenRow>,
    pub interrupted: bool,
}

/// Rows whose mail or notice is not known to be accepted. Those unsettled or refused go out again
/// only if a person says so.
#[derive(Debug, Default, Clone, Copy)]
pub struct Undelivered {
    pub rows: u64,
    pub unsettled: u64,
    pub refused: u64,
    /// Those whose pass has expired: never sent.
    pub over: u64,
    /// Those of them whose pass reached nobody.
    pub lapsed: u64,
}

/// Mails what is sealed and not yet delivered.
pub async fn deliver(
    mailing: &Mailing,
    session: &Session,
    request: DeliverRequest,
) -> Result<Delivery, RunError> {
    session.stop.begin_work();
    let ledger = &mailing.mailer.ledger;
    mark_lost(ledger).await?;
    let mut mails = MailQueue::new(mailing, None, request.resend, session);
    let mut delivery = Delivery::default();
    let now = session.graph.likely_time().await;
    let horizon = request.due.map(|due| later(now, due));
    // A row that cannot be read is reported when its turn comes.
    let is_due = |row: &RowRecord| {
        horizon.is_none_or(|end| start_of(row).map_or(true, |start| start <= end))
    };
    let mut total = 0;
    for_each_mail(ledger, &UNMAILED, |row| {
        if !is_due(row) {
            delivery.later += 1;
        } else if let Some(channel) = next_channel(row, request.resend) {
            mails.push(row.line, channel);
            total += 1 + u64::from(channel == Channel::Pass && row.notice_reader.is_some());
        }
    })
    .await?;
    session.begin(Activity::Deliver, Some(total));
    let worked = work(&mut mails, session).await;
    session.end(Activity::Deliver);
    worked?;
    delivery.stopped = mails.end();
    delivery.interrupted = session.stop.is_requested();
    if request.revoke && !delivery.interrupted {
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

pub async fn open_mail(ledger: &Ledger, session: &Session) -> Result<Undelivered, RunError> {
    let mut open = Undelivered::default();
    let now = session.graph.likely_time().await;
    for_each_mail(ledger, &UNMAILED, |row| open.add(row, now)).await?;
    Ok(open)
}

impl Undelivered {
    fn add(&mut self, row: &RowRecord, now: Timestamp) {
        let held_by = |resend| {
            let may = |resend| matches!(next_mail(row, resend), Ok(Some(_)));
            u64::from(may(resend) && !may(Resend::default()))
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

/// Mails until nothing waits. After an error nothing more is begun, but what is under way is
/// finished: a mail dropped before its answer would be held for ever.
async fn work(mails: &mut MailQueue<'_>, session: &Session) -> Result<(), RunError> {
    let mut error = None;
    loop {
        if error.is_none() && !session.stop.is_requested() {
            mails.fill();
        }
        match mails.next().await {
            Some(Ok(())) => {}
            Some(Err(first)) => {
                mails.cancel_retries();
                error.get_or_insert(first);
            }
            None => return error.map_or(Ok(()), Err),
        }
    }
}

/// Records mails that an earlier process left without an outcome as unsettled.
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
    // Few: a process has no more mails under way than connections.
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

/// The mail of a row that may go out. A row that cannot be read counts, so that it is reported.
pub(super) fn next_channel(row: &RowRecord, resend: Resend) -> Option<Channel> {
    next_mail(row, resend).unwrap_or(Some(Channel::Pass))
}

fn is_over(row: &RowRecord, now: Timestamp) -> bool {
    matches!(expired(row, now), Ok(Some(_)))
}

/// Whether the pass expired before it was mailed.
fn has_lapsed(row: &RowRecord, now: Timestamp) -> bool {
    let unsent = Resend { unsettled: false, refused: true };
    matches!(next_mail(row, unsent), Ok(Some(Channel::Pass))) && is_over(row, now)
}

/// Removes the passes of rows whose mail was refused or came too late, by Graph's clock. A refused
/// notice removes nothing.
async fn revoke(
    ledger: &Ledger,
    session: &Session,
    delivery: &mut Delivery,
) -> Result<(), RunError> {
    let mut queue = CleanupQueue::new(Some(ledger), session, session.worker(ledger).settle_after);
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
        queue.look(ledger.remains_of(lines).await?).await?;
    }
    queue.look_again().await?;
    delivery.unrevoked = queue.end().left;
    let left = &delivery.unrevoked;
    delivery.revoked.retain(|(line, _)| left.iter().all(|left| left.line != *line));
    Ok(())
}
