//! Promises that a mail's Message-ID, date and digest are durable before its first byte is
//! sent, and that what became of it is in the ledger before anything else happens to the row.
//!
//! A mail that may have arrived is never sent again by itself: it stays unsettled until an
//! operator asks for the identical bytes once more. A code is opened at the moment its letter
//! is rendered, and gone when the courier has answered.

use std::path::Path;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::Drain;
use crate::clock::{Clock, later};
use crate::courier::settings::MailPlan;
use crate::courier::{Courier, Leave, Sent, backoff};
use crate::ids::{Line, Upn};
use crate::ledger::{
    Issued, Ledger, LedgerError, MailOptions, MailOutcome, Posted, Reader, RowRecord, State,
};
use crate::letter::{
    BadMailbox, Content, Draft, Facts, Form, Letter, Mail, Mailbox, Manager, MessageId, Mode,
    NotComposed, NotMessageId, TemplateError, Templates, compose,
};
use crate::limits;
use crate::roster::{Header, Wanted};
use crate::vault::{HandoffError, Identities, OpenError, Spool, open};

/// The language of readers of whom none is known.
const ANY_LANGUAGE: &str = "en";

/// What opens a sealed pass.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// This process's own spool: for passes that it sealed itself.
    Spool(&'a Spool),
    /// An operator's identities.
    Identities(&'a Identities),
    /// Nothing: for letters without a code.
    None,
}

/// What came of one row's mail. Except for `NotWritten` and `Held`, the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mailed {
    /// A courier took it.
    Delivered,
    /// A definite no to this mail.
    Refused {
        /// The other side's own words.
        why: String,
    },
    /// Nobody knows whether it went out.
    Unsettled {
        /// What broke.
        why: String,
    },
    /// It certainly did not go out, and was tried as often as may be.
    NotSent {
        /// What broke last.
        why: String,
    },
    /// It did not go out, and nor would any other now.
    Stopped(Stop),
    /// It could not be written: nothing was sent.
    NotWritten {
        /// For people.
        why: String,
    },
    /// The mail of unknown fate cannot be made again with the same bytes.
    Held,
    /// The wish to stop came before it was sent.
    Drained,
}

/// Why nothing more is mailed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// What somebody has to mend.
    pub why: String,
    /// It is a sign-in, a certificate or a permission.
    pub denied: bool,
}

/// Why no mail could be written for a row. Never quotes a code.
#[derive(Debug, thiserror::Error)]
pub enum Unwritten {
    /// No address.
    #[error("no mail address is known for it; check the wave with --to, or fill deliverTo")]
    NoAddress,
    /// An address that is none.
    #[error("its mail address {0}")]
    Address(#[from] BadMailbox),
    /// What the ledger holds of the row cannot be read.
    #[error("the ledger lacks what its letter needs; start a new run for it")]
    Incomplete,
    /// The sealed copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError<std::convert::Infallible>),
    /// This process's copy cannot be read.
    #[error(transparent)]
    Spool(#[from] HandoffError),
    /// A letter with a code, and nothing to open the sealed copy with.
    #[error("its sealed copy needs an identity; give it with -i")]
    NoKey,
    /// The sealed copy is not there.
    #[error("its sealed copy is not in the ledger")]
    NoCopy,
    /// The template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The mail around the letter.
    #[error(transparent)]
    Compose(#[from] NotComposed),
    /// The Message-ID in the ledger.
    #[error(transparent)]
    MessageId(#[from] NotMessageId),
}

/// Writes letters: what a check needs of mail, and what mailing needs of letters.
pub struct Desk {
    /// `[mail]`.
    pub plan: MailPlan,
    /// The words.
    pub templates: Templates,
    /// What a letter carries.
    pub mode: Mode,
    /// The zone of readers whose row names none.
    pub zone: TimeZone,
}

impl Desk {
    /// Reads the templates.
    ///
    /// # Errors
    /// [`TemplateError`]
    pub fn new(plan: MailPlan, options: &MailOptions) -> Result<Self, TemplateError> {
        let mode = Mode::ALL.into_iter().find(|mode| mode.as_str() == options.body);
        let zone = options.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
        Ok(Self {
            plan,
            templates: Templates::load(options.templates.as_deref())?,
            mode: mode.unwrap_or(Mode::Pass),
            zone: zone.unwrap_or(TimeZone::UTC),
        })
    }

    /// A checked row's letter with a dummy code: what is wrong with a template shows here.
    ///
    /// # Errors
    /// [`Unwritten`]
    pub fn preview(
        &self,
        row: &RowRecord,
        header: &Header,
        now: Timestamp,
    ) -> Result<Letter, Unwritten> {
        let asked = row.asked.as_ref().ok_or(Unwritten::Incomplete)?;
        let pass = Terms {
            start: asked.start.unwrap_or(now),
            lifetime_minutes: asked.lifetime_minutes,
            one_time: asked.one_time,
        };
        let reader = reader_of(row)?;
        let facts = self.facts(row, header, &reader, &pass)?;
        Ok(self.templates.preview(self.mode, locale(&reader), &facts)?)
    }

    /// What is wrong with the letters of these languages, whatever the row.
    ///
    /// # Errors
    /// [`Unwritten`], if the row cannot serve as an example.
    pub fn faults(
        &self,
        row: &RowRecord,
        header: &Header,
        locales: &[&str],
        now: Timestamp,
    ) -> Result<Vec<TemplateError>, Unwritten> {
        let asked = row.asked.as_ref().ok_or(Unwritten::Incomplete)?;
        let pass = Terms {
            start: asked.start.unwrap_or(now),
            lifetime_minutes: asked.lifetime_minutes,
            one_time: asked.one_time,
        };
        let facts = self.facts(row, header, &reader_of(row)?, &pass)?;
        Ok(self.templates.check(&[self.mode], locales, &facts))
    }

    fn facts(
        &self,
        row: &RowRecord,
        header: &Header,
        reader: &Reader,
        pass: &Terms,
    ) -> Result<Facts, Unwritten> {
        let wanted = wanted(row)?;
        let zone = wanted.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
        let manager = reader.manager.clone().map(|(name, mail)| Manager { name, mail });
        Ok(Facts {
            upn: row.upn.parse::<Upn>().map_err(|_| Unwritten::Incomplete)?,
            name: row.display_name.clone().unwrap_or_default(),
            manager,
            columns: header.names().iter().cloned().zip(row.cells.iter().cloned()).collect(),
            start: pass.start,
            lifetime_minutes: pass.lifetime_minutes,
            one_time: pass.one_time,
            zone: zone.unwrap_or_else(|| self.zone.clone()),
            support: self.plan.support.clone(),
            holder: None,
        })
    }
}

/// What a letter says of a pass.
struct Terms {
    start: Timestamp,
    lifetime_minutes: u32,
    one_time: bool,
}

impl Terms {
    /// Frozen: without a start from Graph, the moment of the intent stands for it.
    fn of(row: &RowRecord) -> Option<Self> {
        let Issued { start, lifetime_minutes, one_time, .. } = row.issued.clone()?;
        let start = start.or_else(|| Some(row.intent.as_ref()?.graph_time))?;
        Some(Self { start, lifetime_minutes, one_time })
    }
}

/// When a row's pass begins to work, once it is sealed.
#[must_use]
pub fn start_of(row: &RowRecord) -> Option<Timestamp> {
    Terms::of(row).map(|terms| terms.start)
}

/// When a row's pass ends, once it is sealed.
#[must_use]
pub fn end_of(row: &RowRecord) -> Option<Timestamp> {
    let terms = Terms::of(row)?;
    let lifetime = std::time::Duration::from_secs(u64::from(terms.lifetime_minutes) * 60);
    Some(later(terms.start, lifetime))
}

/// Everything that mailing needs.
pub struct Mailroom {
    /// Letters.
    pub desk: Desk,
    /// Who carries them.
    pub courier: Courier,
    /// The run's record.
    pub ledger: Ledger,
    /// The wave's columns.
    pub header: Header,
    /// Time.
    pub clock: Clock,
    /// The wish to stop.
    pub drain: Drain,
}

impl Mailroom {
    /// Mails one row: a sealed and proven one or, as `resend`, one whose mail is of unknown
    /// fate, with the identical bytes.
    ///
    /// # Errors
    /// [`LedgerError`]; then the mail's fate may be unknown.
    pub async fn deliver(
        &self,
        row: &RowRecord,
        key: Key<'_>,
        resend: bool,
    ) -> Result<Mailed, LedgerError> {
        let ciphertext = self.ledger.ciphertext(row.line).await?;
        let frozen = match self.frozen(row, resend) {
            Ok(frozen) => frozen,
            Err(why) => return Ok(Mailed::NotWritten { why: why.to_string() }),
        };
        let mut attempt = 1;
        loop {
            // Before the intent: a kill while the rate is waited for leaves nothing unsettled.
            let leave = tokio::select! {
                biased;
                () = self.drain.begun() => return Ok(Mailed::Drained),
                leave = self.courier.admit() => leave,
            };
            // Written anew each time: while it waits, no code does.
            let mail = match self.write(row, ciphertext.as_deref(), key, &frozen) {
                Ok(mail) => mail,
                Err(why) => return Ok(Mailed::NotWritten { why: why.to_string() }),
            };
            if frozen.digest.as_ref().is_some_and(|digest| digest != mail.digest()) {
                return Ok(Mailed::Held);
            }
            let sent = self.send(row.line, mail, &frozen, leave).await?;
            let Sent::NotSent { why, again: true } = sent else { return Ok(ended(sent)) };
            if attempt >= limits::MAIL_ATTEMPTS {
                return Ok(Mailed::NotSent { why });
            }
            tokio::select! {
                biased;
                () = self.drain.begun() => return Ok(Mailed::Drained),
                () = self.clock.sleep(backoff(attempt)) => attempt += 1,
            }
        }
    }

    /// The intent, the mail, and what became of it, in that order.
    async fn send(
        &self,
        line: Line,
        mail: Mail,
        frozen: &Frozen,
        leave: Leave<'_>,
    ) -> Result<Sent, LedgerError> {
        let posted = Posted {
            message_id: frozen.id.to_string(),
            date: frozen.date,
            to: mail.to().to_owned(),
            courier: courier_name(&self.courier).to_owned(),
            body: self.desk.mode.to_string(),
            digest: mail.digest().to_owned(),
        };
        let intent = self.ledger.intend_mail(line, posted).await?;
        let sent = self.courier.send(&mail, leave).await;
        drop(mail);
        let outcome = match sent.clone() {
            Sent::Accepted { receipt } => MailOutcome::Delivered { receipt },
            Sent::NotSent { why, .. } | Sent::Denied { why } => MailOutcome::NotSent { why },
            Sent::Refused { why } => MailOutcome::Refused { why },
            Sent::Unsettled { why } => MailOutcome::Lost { why },
        };
        self.ledger.mailed(intent, outcome).await?;
        Ok(sent)
    }

    /// What stays the same however often the mail is sent.
    fn frozen(&self, row: &RowRecord, resend: bool) -> Result<Frozen, Unwritten> {
        if let Some(earlier) = row.mail.as_ref().filter(|_| resend) {
            return Ok(Frozen {
                id: MessageId::from_str(&earlier.posted.message_id)?,
                date: earlier.posted.date,
                digest: Some(earlier.posted.digest.clone()),
            });
        }
        let now = self.clock.now();
        let date = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let id = MessageId::new(Uuid::new_v4(), &self.desk.plan.from);
        Ok(Frozen { id, date, digest: None })
    }

    fn write(
        &self,
        row: &RowRecord,
        ciphertext: Option<&[u8]>,
        key: Key<'_>,
        frozen: &Frozen,
    ) -> Result<Mail, Unwritten> {
        let terms = Terms::of(row).ok_or(Unwritten::Incomplete)?;
        let reader = reader_of(row)?;
        let facts = self.desk.facts(row, &self.header, &reader, &terms)?;
        let fill =
            |content: &Content<'_>| self.desk.templates.render(content, locale(&reader), &facts);
        let sealed = || ciphertext.ok_or(Unwritten::NoCopy);
        let letter = match (self.desk.mode, key) {
            (Mode::Notice, _) => fill(&Content::Notice)?,
            (Mode::Sealed, _) => fill(&Content::Sealed(sealed()?))?,
            (Mode::Pass, Key::Spool(spool)) => fill(&Content::Opened(&spool.open(row.line)?))?,
            (Mode::Pass, Key::Identities(identities)) => {
                let mut letter = None;
                unhurried(|| {
                    open(sealed()?, identities, |row| {
                        letter = Some(fill(&Content::Opened(row)));
                        Ok(())
                    })
                    .map_err(Unwritten::from)
                })?;
                letter.ok_or(Unwritten::NoCopy)??
            }
            (Mode::Pass, Key::None) => return Err(Unwritten::NoKey),
        };
        let to = Mailbox::new(reader.name.as_deref().unwrap_or_default(), &reader.address)?;
        let draft = Draft {
            from: &self.desk.plan.from,
            reply_to: self.desk.plan.reply_to.as_ref(),
            to: &to,
            message_id: &frozen.id,
            date: frozen.date,
            letter: &letter,
        };
        Ok(compose(&draft, self.courier.form())?)
    }
}

/// See [`Mailroom::frozen`].
struct Frozen {
    id: MessageId,
    date: Timestamp,
    /// Of the bytes that may have arrived.
    digest: Option<String>,
}

fn ended(sent: Sent) -> Mailed {
    match sent {
        Sent::Accepted { .. } => Mailed::Delivered,
        Sent::Refused { why } => Mailed::Refused { why },
        Sent::Unsettled { why } => Mailed::Unsettled { why },
        Sent::NotSent { why, .. } => Mailed::Stopped(Stop { why, denied: false }),
        Sent::Denied { why } => Mailed::Stopped(Stop { why, denied: true }),
    }
}

/// Whether a row may be mailed: its pass is sealed and proven, and no relay has refused it.
#[must_use]
pub fn is_ready(row: &RowRecord) -> bool {
    matches!(row.state, State::Sealed { proven: true, .. })
        && row.mail.as_ref().is_none_or(|mail| !mail.is_refused())
}

/// The reader whom the check found; a run that was checked without mail has the column.
fn reader_of(row: &RowRecord) -> Result<Reader, Unwritten> {
    if let Some(reader) = &row.reader {
        return Ok(reader.clone());
    }
    let wanted = wanted(row)?;
    let mailbox: Mailbox = wanted.deliver_to.ok_or(Unwritten::NoAddress)?.parse()?;
    let name = mailbox.name().map(ToOwned::to_owned);
    let address = mailbox.address().to_owned();
    Ok(Reader { address, name, locale: wanted.locale, manager: None })
}

fn wanted(row: &RowRecord) -> Result<Wanted, Unwritten> {
    serde_json::from_str(&row.wanted_json).map_err(|_| Unwritten::Incomplete)
}

fn locale(reader: &Reader) -> &str {
    reader.locale.as_deref().unwrap_or(ANY_LANGUAGE)
}

/// The courier's name, as the ledger and the settings have it.
fn courier_name(courier: &Courier) -> &'static str {
    match courier.form() {
        Form::Mime => "smtp",
        Form::GraphJson => "graph",
    }
}

/// A plugin may start a process and ask a person, which must not hold up the other tasks.
fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    let multi = tokio::runtime::Handle::current().runtime_flavor()
        == tokio::runtime::RuntimeFlavor::MultiThread;
    if multi { tokio::task::block_in_place(work) } else { work() }
}

/// A path as a ledger must hold it: the same from whatever folder a later command is started.
#[must_use]
pub fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
