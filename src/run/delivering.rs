//! Promises that each sealed pass is mailed by one task at most, a few at a time, and that a
//! mail whose answer an earlier process never heard is held and not repeated.
//!
//! In a run, `Mails` goes along with issuing; [`deliver`] is the command of its own.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use super::Session;
use crate::clock::later;
use crate::ids::Line;
use crate::ledger::{Event, Ledger, LedgerError, RowRecord, Standing, State};
use crate::letter::Mode;
use crate::limits;
use crate::progress::{Doing, News};
use crate::stages::cleanup::{self, Cleaned, Owned};
use crate::stages::deliver::{Key, Mailed, Mailroom, Stop, end_of, is_ready, start_of};
use crate::stages::issue::Halt;
use crate::vault::{Identities, Spool};

/// Passes that may wait for mail without an identity, as a multiple of the connections.
const WAITING_PER_CONNECTION: usize = 2;

/// How passes are mailed, and what opens them.
pub struct Post {
    /// Letters and their carrier.
    pub room: Mailroom,
    /// Opens the sealed copies; without any, only what this process sealed can be mailed.
    pub identities: Option<Identities>,
}

impl Post {
    /// Whether issuing must wait for mail: nobody else could open what waits.
    pub(super) fn holds_issuing_back(&self) -> bool {
        self.room.desk.mode == Mode::Pass && self.identities.is_none()
    }

    /// Passes that may be under way or wait for mail, if [`Post::holds_issuing_back`].
    pub(super) fn most_waiting(&self) -> usize {
        self.room.desk.plan.max_connections * WAITING_PER_CONNECTION
    }

    fn key<'a>(&'a self, spool: Option<&'a Spool>) -> Key<'a> {
        match (&self.identities, spool) {
            (Some(identities), _) => Key::Identities(identities),
            (None, Some(spool)) => Key::Spool(spool),
            (None, None) => Key::None,
        }
    }
}

/// The rows that wait for mail, and those whose mail is under way.
pub(super) struct Mails<'a> {
    post: &'a Post,
    session: &'a Session,
    key: Key<'a>,
    queue: VecDeque<(Line, bool)>,
    sending: FuturesUnordered<LocalBoxFuture<'a, Result<(RowRecord, Mailed), LedgerError>>>,
    /// Why nothing more is mailed, if nothing is.
    stopped: Option<Stop>,
}

impl<'a> Mails<'a> {
    pub(super) fn new(post: &'a Post, spool: Option<&'a Spool>, session: &'a Session) -> Self {
        Self {
            post,
            session,
            key: post.key(spool),
            queue: VecDeque::new(),
            sending: FuturesUnordered::new(),
            stopped: None,
        }
    }

    /// Puts a row at the end. `resend`: its mail is of unknown fate.
    pub(super) fn push(&mut self, line: Line, resend: bool) {
        self.queue.push_back((line, resend));
    }

    /// Rows that wait or are under way.
    pub(super) fn in_hand(&self) -> usize {
        self.queue.len() + self.sending.len()
    }

    pub(super) fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }

    /// Why mailing ended before its end.
    pub(super) fn stopped(&self) -> Option<&Stop> {
        self.stopped.as_ref()
    }

    /// Begins as many mails as there are connections.
    pub(super) fn fill(&mut self) {
        while self.stopped.is_none()
            && self.sending.len() < self.post.room.desk.plan.max_connections
        {
            let Some((line, resend)) = self.queue.pop_front() else { return };
            let (post, key) = (self.post, self.key);
            self.sending.push(Box::pin(async move {
                let row = post.room.ledger.row(line).await?;
                let row = row.ok_or(LedgerError::UnknownLine(line))?;
                let mailed = post.room.deliver(&row, key, resend).await?;
                Ok((row, mailed))
            }));
        }
    }

    /// Waits for the next mail to end and tells of it. `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<Result<(), Halt>> {
        let ended = self.sending.next().await?;
        Some(ended.map(|(row, mailed)| self.take(row, mailed)).map_err(Halt::from))
    }

    fn take(&mut self, row: RowRecord, mailed: Mailed) {
        let (line, upn) = (row.line, row.upn);
        let failed = |why: String| News::RowFailed { line, upn: upn.clone(), why };
        let news = match mailed {
            Mailed::Delivered => News::Did { doing: Doing::Deliver, rows: 1 },
            Mailed::Drained => return,
            Mailed::Refused { why } => failed(format!("mail refused: {why}")),
            Mailed::NotSent { why } => failed(format!("mail not sent: {why}")),
            Mailed::NotWritten { why } => failed(format!("not mailed: {why}")),
            Mailed::Unsettled { why } => {
                let why = format!("nobody knows whether its mail went out: {why}");
                News::RowHeld { line, upn, why }
            }
            Mailed::Held => {
                let why = "its mail cannot be repeated with the same bytes: sender, template, body or mail settings have changed; set them back, or ask its reader".to_owned();
                News::RowHeld { line, upn, why }
            }
            Mailed::Stopped(stop) => {
                self.stopped.get_or_insert(stop);
                return;
            }
        };
        self.session.watcher.hear(news);
    }
}

/// What the `deliver` command was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// Only what starts within this time.
    pub due: Option<Duration>,
    /// Also mails of unknown fate, with identical bytes.
    pub resend: bool,
    /// Remove the passes whose mail was refused.
    pub revoke: bool,
}

/// How delivering ended.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Why it stopped before its end.
    pub stopped: Option<Stop>,
    /// Rows that are due and whose mail nobody took.
    pub undelivered: u64,
    /// Rows that start later than `due`.
    pub later: u64,
    /// Passes that were removed because their mail was refused.
    pub revoked: Vec<Cleaned>,
    /// Whether somebody wished to stop.
    pub drained: bool,
}

/// Mails what is sealed and not yet delivered.
///
/// # Errors
/// [`Halt`], from the ledger or, when passes are removed, from Graph.
pub async fn deliver(post: &Post, session: &Session, wish: Wish) -> Result<Delivery, Halt> {
    let ledger = &post.room.ledger;
    mark_lost(ledger).await?;
    let mut mails = Mails::new(post, None, session);
    let mut delivery = Delivery::default();
    let horizon = wish.due.map(|due| later(session.clock.now(), due));
    gather(ledger, session, &[Standing::Sealed, Standing::Mailing], |row| {
        let lost = matches!(row.state, State::Mailing { .. });
        if horizon.is_some_and(|end| start_of(row).is_some_and(|start| start > end)) {
            delivery.later += 1;
        } else if lost && wish.resend || is_ready(row) {
            mails.push(row.line, lost);
        }
    })
    .await?;
    let total = mails.in_hand() as u64;
    session.watcher.hear(News::Began { doing: Doing::Deliver, total: Some(total) });
    let worked = work(&mut mails, session).await;
    session.watcher.hear(News::Ended { doing: Doing::Deliver });
    worked?;
    delivery.stopped = mails.stopped().cloned();
    delivery.drained = session.drain.is_on();
    if wish.revoke && !delivery.drained {
        delivery.revoked = revoke(ledger, session).await?;
    }
    gather(ledger, session, &[Standing::Sealed, Standing::Mailing], |row| {
        let due = horizon.is_none_or(|end| start_of(row).is_none_or(|start| start <= end));
        delivery.undelivered += u64::from(due);
    })
    .await?;
    Ok(delivery)
}

async fn work(mails: &mut Mails<'_>, session: &Session) -> Result<(), Halt> {
    loop {
        if !session.drain.is_on() {
            mails.fill();
        }
        match mails.next().await {
            Some(ended) => ended?,
            None => return Ok(()),
        }
    }
}

/// Records of mails that an earlier process left without an outcome that they are of unknown
/// fate.
pub(super) async fn mark_lost(ledger: &Ledger) -> Result<(), LedgerError> {
    let mut after = None;
    loop {
        let rows = ledger.rows(&[Standing::Mailing], after, limits::ROWS_PER_READ).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.line);
        for row in rows {
            if matches!(row.state, State::Mailing { lost: false, .. }) {
                let why = "the program ended before the answer came".to_owned();
                ledger.record(row.line, Event::MailLost { why }).await?;
            }
        }
    }
}

/// Visits rows whose pass is not over yet, a page at a time.
pub(super) async fn gather(
    ledger: &Ledger,
    session: &Session,
    states: &[Standing],
    mut visit: impl FnMut(&RowRecord),
) -> Result<(), LedgerError> {
    let now = session.clock.now();
    let mut after = None;
    loop {
        let rows = ledger.rows(states, after, limits::ROWS_PER_READ).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = Some(last.line);
        rows.iter().filter(|row| end_of(row).is_none_or(|end| end > now)).for_each(&mut visit);
    }
}

/// Removes the passes of rows whose mail was refused for good.
async fn revoke(ledger: &Ledger, session: &Session) -> Result<Vec<Cleaned>, Halt> {
    let mut cleaned = Vec::new();
    let mut after = None;
    loop {
        let rows = ledger.rows(&[Standing::Sealed], after, limits::ROWS_PER_CHECK).await?;
        let Some(last) = rows.last() else { return Ok(cleaned) };
        after = Some(last.line);
        let refused =
            |row: &&RowRecord| row.mail.as_ref().is_some_and(crate::ledger::MailRecord::is_refused);
        let owned: Vec<Owned> = rows.iter().filter(refused).filter_map(Owned::sealed).collect();
        if !owned.is_empty() {
            cleaned.extend(cleanup::remove_recorded(&session.graph, ledger, owned).await?);
        }
    }
}
