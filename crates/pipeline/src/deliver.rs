//! Promises that a mail's Message-ID, date and digest are durable before its first byte is
//! sent and not before the relay has let us in, and that what became of it is in the ledger
//! before anything else happens to the row.
//!
//! A mail that may have arrived is never sent again by itself: it stays unsettled until an
//! operator asks for the identical bytes once more. A code is opened at the moment its letter
//! is rendered, and gone when the courier has answered. Whoever is told that somebody has the
//! pass is told it only of a [`Delivered`] one.

use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::stop::{StopSignal, StopSwitch};
use crate::wave::{Header, RowOptions};
use tapwave_core::clock::{Clock, later};
use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::ids::Upn;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_graph::Graph;
use tapwave_ledger::{
    Channel, Event, IssuedRecord, Ledger, LedgerError, MailOptions, MailRecord, MailState, Posted,
    Reader, RowRecord, State,
};
use tapwave_mail::template::{
    BadMailbox, Facts, Form, Letter, LetterContent, Mail, MailDraft, Mailbox, MessageId, Mode,
    NamedPerson, NotComposed, NotMessageId, TemplateError, Templates, compose,
};
use tapwave_mail::transport::settings::MailPlan;
use tapwave_mail::transport::{MailTransport, Ready, backoff};
use tapwave_seal::{HandoffError, Identities, OpenError, OpenedRow, Spool, open};

const ANY_LANGUAGE: &str = "en";

#[derive(Clone, Copy)]
pub enum OpeningKey<'a> {
    /// For passes that this process sealed.
    Spool(&'a Spool),
    Identities(&'a Identities),
    /// For messages without a code.
    None,
}

/// Which mails to send again besides those that certainly did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resend {
    /// Those whose answer was lost, with the identical bytes.
    pub unsettled: bool,
    pub refused: bool,
}

/// The mail of a row that may go out now, if there is one.
pub fn next_mail(row: &RowRecord, resend: Resend) -> Result<Option<Channel>, LetterError> {
    let (channel, progress, tried) = match &row.state {
        State::Sealed { proven: true, .. } => (Channel::Pass, MailState::Due, &row.mail),
        State::Mailing { mail, .. } => (Channel::Pass, MailState::Open(mail.clone()), &row.mail),
        State::Delivered { notice: Some(notice), .. } => {
            (Channel::Notice, notice.clone(), &row.notice)
        }
        _ => return Ok(None),
    };
    let tried = tried.as_ref();
    tried.map_or(Ok(()), known)?;
    let may = match progress {
        MailState::Due => resend.refused || !tried.is_some_and(MailRecord::is_refused),
        MailState::Open(mail) => {
            if tried.is_none_or(|tried| tried.posted.digest != mail.digest) {
                let what = "its latest mail is not the one that may have gone out";
                return Err(damaged(what));
            }
            mail.lost && resend.unsettled
        }
        MailState::Done => false,
    };
    Ok(may.then_some(channel))
}

/// Checks that a mail's record holds only words that this version writes.
fn known(mail: &MailRecord) -> Result<(), LetterError> {
    let Posted { courier, body, .. } = &mail.posted;
    let (what, word) = if mode_named(body).is_none() {
        ("what its latest mail carried", body)
    } else if ![Form::Mime, Form::GraphJson].map(transport_name).contains(&courier.as_str()) {
        ("what its latest mail was sent by", courier)
    } else if let Some(outcome) = mail.outcome.as_ref().filter(|_| !mail.is_outcome_known()) {
        ("what became of its latest mail", outcome)
    } else {
        return Ok(());
    };
    Err(damaged(format!("\"{word}\" is not a known word for {what}")))
}

fn mode_named(word: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
}

fn lacking(error: LedgerError) -> LetterError {
    damaged(match error {
        LedgerError::BrokenRow { lacks, .. } => lacks.to_owned(),
        other => other.to_string(),
    })
}

fn damaged(what: impl Into<String>) -> LetterError {
    LetterError::Damaged(plain(&what.into()))
}

/// A sealed pass whose mail may go out. Made from the ledger's record alone.
#[derive(Debug)]
pub struct Addressed(RowRecord);

/// A pass whose mail a courier took: made by [`Mailer::deliver`], or out of the ledger's
/// record. Nobody can be told of a pass by less:
///
/// ```compile_fail,E0423
/// # use tapwave_pipeline::deliver::Delivered;
/// # fn forge(row: tapwave_ledger::RowRecord) -> Delivered {
/// Delivered(row)
/// # }
/// ```
#[derive(Debug)]
pub struct Delivered(RowRecord);

impl Delivered {
    /// Whether a notice is still to be sent.
    pub fn owes_notice(&self) -> bool {
        self.0.state.notice().is_some_and(|notice| *notice != MailState::Done)
    }
}

#[derive(Debug)]
pub enum Outgoing {
    /// The mail with the pass.
    Pass(Box<Addressed>),
    Notice(Box<Delivered>),
}

impl Outgoing {
    pub fn restore(row: RowRecord, resend: Resend) -> Result<Option<Self>, LetterError> {
        Ok(next_mail(&row, resend)?.map(|channel| match channel {
            Channel::Pass => Self::Pass(Box::new(Addressed(row))),
            Channel::Notice => Self::Notice(Box::new(Delivered(row))),
        }))
    }
}

/// The mail of a row that certainly did not go out, and its reader with the new address.
pub fn readdressed(
    row: &RowRecord,
    to: &Mailbox,
) -> Result<Option<(Channel, Reader)>, LetterError> {
    let Some(channel) = next_mail(row, Resend { unsettled: false, refused: true })? else {
        return Ok(None);
    };
    let before = match channel {
        Channel::Pass => row.reader.clone(),
        Channel::Notice => row.notice_reader.clone(),
    };
    let (locale, manager) = match before {
        Some(reader) => (reader.locale, reader.manager),
        None => (wanted(row)?.locale, None),
    };
    let name = to.name().map(ToOwned::to_owned);
    Ok(Some((channel, Reader { address: to.address().to_owned(), name, locale, manager })))
}

/// Why a mail was not sent. Except for `NotWritten` and `Held`, the ledger has it.
#[derive(Debug, thiserror::Error)]
pub enum NotMailed {
    /// Its pass expired while it waited.
    #[error(transparent)]
    TooLate(TooLateToMail),
    #[error(transparent)]
    NotWritten(#[from] LetterError),
    #[error(
        "cannot be repeated with the same bytes: sender, template, body or mail settings have \
         changed; set them back, or ask its reader"
    )]
    Held,
    #[error("it waits")]
    Stopped,
    /// The mail may have been sent.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailStopped {
    pub why: String,
    /// A sign-in, a certificate or a permission.
    pub denied: bool,
}

/// Never quotes a code.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    #[error(
        "no mail address is known for it; give one with --readdress, or check the wave with --to"
    )]
    NoAddress,
    #[error("its mail address {0}")]
    Address(#[from] BadMailbox),
    #[error(
        "the ledger is damaged: {0}; copy the run's folder back from a backup, or start a new run \
         for it"
    )]
    Damaged(String),
    #[error(transparent)]
    Open(#[from] OpenError<std::convert::Infallible>),
    #[error(transparent)]
    Spool(#[from] HandoffError),
    #[error(
        "its sealed copy holds somebody else's pass, so nothing is mailed; start a new run for it"
    )]
    NotTheirs,
    #[error("its sealed copy needs an identity; give it with -i")]
    NoKey,
    #[error("its sealed copy is not in the ledger")]
    NoCopy,
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Compose(#[from] NotComposed),
    #[error(transparent)]
    MessageId(#[from] NotMessageId),
}

/// Writes messages, for the check and for mailing.
pub struct LetterWriter {
    pub plan: MailPlan,
    pub templates: Templates,
    pub mode: Mode,
    pub zone: TimeZone,
    /// The mails for which the check must have found a reader.
    checked: Vec<Channel>,
}

#[derive(Debug, thiserror::Error)]
pub enum LetterWriterError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The options of a damaged ledger.
    #[error("\"{word}\" is not a known {what} of mails")]
    Unknown { what: &'static str, word: String },
}

impl LetterWriter {
    pub fn new(plan: MailPlan, options: &MailOptions) -> Result<Self, LetterWriterError> {
        let unknown = |what, word: &str| LetterWriterError::Unknown { what, word: word.to_owned() };
        let zone = |name: &str| TimeZone::get(name).map_err(|_| unknown("time zone", name));
        let places = [(Channel::Pass, &options.to), (Channel::Notice, &options.notice_to)];
        Ok(Self {
            plan,
            mode: mode_named(&options.body).ok_or_else(|| unknown("body", &options.body))?,
            zone: options.time_zone.as_deref().map_or(Ok(TimeZone::UTC), zone)?,
            templates: Templates::load(options.templates.as_deref())?,
            checked: places.iter().filter(|(_, to)| !to.is_empty()).map(|one| one.0).collect(),
        })
    }

    /// The reader whom the check found. A run that was checked without mail has the column.
    fn reader(&self, row: &RowRecord, channel: Channel) -> Result<Reader, LetterError> {
        let found = match channel {
            Channel::Pass => &row.reader,
            Channel::Notice => &row.notice_reader,
        };
        if let Some(reader) = found {
            return Ok(reader.clone());
        }
        if self.checked.contains(&channel) {
            return Err(damaged(format!("who gets its {} is not there", channel.noun())));
        }
        if channel == Channel::Notice {
            return Err(LetterError::NoAddress);
        }
        let wanted = wanted(row)?;
        let mailbox: Mailbox = wanted.deliver_to.ok_or(LetterError::NoAddress)?.parse()?;
        let name = mailbox.name().map(ToOwned::to_owned);
        let address = mailbox.address().to_owned();
        Ok(Reader { address, name, locale: wanted.locale, manager: None })
    }

    fn readers(&self, row: &RowRecord) -> Result<(), LetterError> {
        self.reader(row, Channel::Pass)?;
        if self.checked.contains(&Channel::Notice) {
            self.reader(row, Channel::Notice)?;
        }
        Ok(())
    }

    /// A checked row's messages with a dummy code. A faulty template shows here.
    pub fn preview(
        &self,
        row: &RowRecord,
        header: &Header,
        now: Timestamp,
    ) -> Result<Vec<Preview>, LetterError> {
        let pass = Terms::planned(row, now)?;
        let mut previews = Vec::new();
        for channel in channels(row) {
            let (mode, reader) = (self.mode_of(channel), self.reader(row, channel)?);
            let facts = self.facts(row, header, channel, &pass)?;
            let letter = self.templates.preview(mode, locale(&reader), &facts)?;
            previews.push(Preview { channel, to: reader.address, letter });
        }
        Ok(previews)
    }

    /// The faults of the template in this language, with the row as an example.
    pub fn faults(
        &self,
        row: &RowRecord,
        header: &Header,
        channel: Channel,
        locale: &str,
        now: Timestamp,
    ) -> Result<Vec<TemplateError>, LetterError> {
        let facts = self.facts(row, header, channel, &Terms::planned(row, now)?)?;
        Ok(self.templates.check(&[self.mode_of(channel)], &[locale], &facts))
    }

    pub fn names_support(&self) -> bool {
        self.support().is_some()
    }

    /// Whom readers may call: as the settings say, else the reply address.
    fn support(&self) -> Option<String> {
        let answers = || self.plan.reply_to.as_ref().map(|mailbox| mailbox.address().to_owned());
        self.plan.support.clone().or_else(answers)
    }

    pub fn names_manager(&self, options: &MailOptions) -> bool {
        let notice = (!options.notice_to.is_empty()).then_some(Mode::Notice);
        let modes: Vec<Mode> = std::iter::once(self.mode).chain(notice).collect();
        self.templates.use_variable(&modes, "manager")
    }

    const fn mode_of(&self, channel: Channel) -> Mode {
        match channel {
            Channel::Pass => self.mode,
            Channel::Notice => Mode::Notice,
        }
    }

    fn facts(
        &self,
        row: &RowRecord,
        header: &Header,
        channel: Channel,
        pass: &Terms,
    ) -> Result<Facts, LetterError> {
        let wanted = wanted(row)?;
        let zone = match wanted.time_zone.as_deref() {
            None => self.zone.clone(),
            Some(name) => TimeZone::get(name).map_err(|_| {
                damaged(format!("\"{name}\" is not a known time zone of whoever has the pass"))
            })?,
        };
        let reader = self.reader(row, channel)?;
        let holder = match channel {
            Channel::Pass => None,
            Channel::Notice => {
                let Reader { name, address, .. } = self.reader(row, Channel::Pass)?;
                Some(NamedPerson { name: name.unwrap_or_default(), mail: address })
            }
        };
        Ok(Facts {
            upn: row.upn.parse::<Upn>().map_err(|_| damaged("whose it is cannot be read"))?,
            name: row.display_name.clone().unwrap_or_default(),
            manager: reader.manager.map(|(name, mail)| NamedPerson { name, mail }),
            columns: header.names().iter().cloned().zip(row.cells.iter().cloned()).collect(),
            start: pass.start,
            lifetime_minutes: pass.lifetime_minutes,
            one_time: pass.one_time,
            zone,
            support: self.support(),
            holder,
        })
    }
}

pub struct Preview {
    pub channel: Channel,
    pub to: String,
    pub letter: Letter,
}

struct Terms {
    start: Timestamp,
    lifetime_minutes: u32,
    one_time: bool,
}

impl Terms {
    /// Stays the same at every attempt: without a start from Graph, the intent's time counts.
    fn of(row: &RowRecord) -> Result<Self, LetterError> {
        let issued = row.issued.as_ref();
        let issued = issued.ok_or_else(|| damaged("the pass that Graph answered is not there"))?;
        let start = match issued.start {
            Some(start) => start,
            None => row.attempt().map_err(lacking)?.graph_time,
        };
        let IssuedRecord { lifetime_minutes, one_time, .. } = *issued;
        Ok(Self { start, lifetime_minutes, one_time })
    }

    fn planned(row: &RowRecord, now: Timestamp) -> Result<Self, LetterError> {
        let asked = row.person().map_err(lacking)?.asked;
        Ok(Self {
            start: asked.start.unwrap_or(now),
            lifetime_minutes: asked.lifetime_minutes,
            one_time: asked.one_time,
        })
    }
}

pub fn start_of(row: &RowRecord) -> Result<Timestamp, LetterError> {
    Terms::of(row).map(|terms| terms.start)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its pass is over at {}, before anybody could use it; issue another with a new run", end.strftime("%Y-%m-%d %H:%M:%S UTC"))]
pub struct TooLateToMail {
    end: Timestamp,
}

/// If the pass has expired at `now`, or will within [`limits::LAST_MOMENTS`].
pub fn expired(row: &RowRecord, now: Timestamp) -> Result<Option<TooLateToMail>, LetterError> {
    let terms = Terms::of(row)?;
    let lifetime = Duration::from_secs(u64::from(terms.lifetime_minutes) * 60);
    let end = later(terms.start, lifetime);
    Ok((end <= later(now, limits::LAST_MOMENTS)).then_some(TooLateToMail { end }))
}

pub struct Mailer {
    pub writer: LetterWriter,
    pub transport: MailTransport,
    pub ledger: Ledger,
    pub header: Header,
    pub clock: Clock,
    /// For Graph's time, by which passes expire.
    pub graph: Graph,
    pub stop: StopSignal,
    pub retries: Retries,
}

/// Mails that wait for another attempt. They use no connection: one full mailbox must not delay the
/// mails behind it.
pub struct Retries {
    count: AtomicUsize,
    added: Notify,
    why: Mutex<String>,
    cancel: (StopSwitch, StopSignal),
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            added: Notify::new(),
            why: Mutex::default(),
            cancel: StopSignal::new(),
        }
    }
}

impl Retries {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for one more, and returns why it was not sent.
    pub async fn next(&self) -> String {
        self.added.notified().await;
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Mails need not wait any longer, since nothing more is sent.
    pub fn cancel(&self) {
        let _ = self.cancel.0.request();
    }

    /// True if another attempt may follow.
    async fn wait(&self, clock: &Clock, wait: Duration, why: String) -> bool {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.count);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.added.notify_one();
        tokio::select! {
            biased;
            () = self.cancelled() => false,
            () = clock.sleep(wait) => true,
        }
    }

    async fn cancelled(&self) {
        self.cancel.1.requested().await;
    }
}

impl Mailer {
    /// Mails one pass, with the identical bytes if the answer to an earlier mail was lost. Retries
    /// until [`limits::MAIL_ATTEMPTS`].
    pub async fn deliver(
        &self,
        addressed: Addressed,
        key: OpeningKey<'_>,
    ) -> Result<Effect<Delivered>, NotMailed> {
        let ciphertext = self.ledger.ciphertext(addressed.0.line).await?;
        self.carry(addressed.0, Channel::Pass, ciphertext.as_deref(), key).await
    }

    /// Sends the notice of a delivered pass.
    pub async fn notify(&self, delivered: Delivered) -> Result<Effect<Delivered>, NotMailed> {
        self.carry(delivered.0, Channel::Notice, None, OpeningKey::None).await
    }

    async fn carry(
        &self,
        mut row: RowRecord,
        channel: Channel,
        ciphertext: Option<&[u8]>,
        key: OpeningKey<'_>,
    ) -> Result<Effect<Delivered>, NotMailed> {
        let frozen = self.frozen(&row)?;
        // Checked before the rate limit is waited for, since nothing is sent.
        self.writer.readers(&row)?;
        self.in_time(&mut row, channel).await?;
        let mut attempt = 1;
        loop {
            let why = match self.attempt(&mut row, channel, ciphertext, key, &frozen).await? {
                Effect::NoEffect(obstacle)
                    if obstacle.may_pass() && attempt < limits::MAIL_ATTEMPTS =>
                {
                    obstacle.why
                }
                effect => return Ok(effect.and_then(|_| Effect::Done(Delivered(row)))),
            };
            let again = tokio::select! {
                biased;
                () = self.stop.requested() => false,
                again = self.retries.wait(&self.clock, backoff(attempt), why) => again,
            };
            if !again {
                return Err(NotMailed::Stopped);
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        ciphertext: Option<&[u8]>,
        key: OpeningKey<'_>,
        frozen: &FrozenMail,
    ) -> Result<Effect<String>, NotMailed> {
        // Before the intent, so that a kill during the wait leaves nothing unsettled.
        let ready = tokio::select! {
            biased;
            () = self.stop.requested() => return Err(NotMailed::Stopped),
            () = self.retries.cancelled() => return Err(NotMailed::Stopped),
            ready = self.transport.ready() => ready,
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(obstacle) => return Ok(self.hindered(row, channel, obstacle).await?),
        };
        let mail = match self.in_time_and_written(row, channel, ciphertext, key, frozen).await {
            Ok(mail) => mail,
            Err(unsent) => {
                self.transport.release(ready);
                return Err(unsent);
            }
        };
        // Touching a hardware key may take longer than the relay waits.
        Ok(match self.transport.refresh(ready).await {
            Ok(ready) => self.send(row, channel, mail, frozen, ready).await?,
            Err(obstacle) => self.hindered(row, channel, obstacle).await?,
        })
    }

    /// Writes the mail anew at each attempt, so that no code waits in memory.
    async fn in_time_and_written(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        ciphertext: Option<&[u8]>,
        key: OpeningKey<'_>,
        frozen: &FrozenMail,
    ) -> Result<Mail, NotMailed> {
        let mail = self.write(row, channel, ciphertext, key, frozen)?;
        if frozen.digest.as_ref().is_some_and(|digest| digest != mail.digest()) {
            return Err(NotMailed::Held);
        }
        self.in_time(row, channel).await?;
        Ok(mail)
    }

    /// Checks that the pass has not expired. Also right before the intent: the mail may have waited
    /// for hours.
    async fn in_time(&self, row: &mut RowRecord, channel: Channel) -> Result<(), NotMailed> {
        let Some(late) = expired(row, self.graph.likely_time().await)? else { return Ok(()) };
        self.not_begun(row, channel, &late.to_string()).await?;
        Err(NotMailed::TooLate(late))
    }

    async fn hindered(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        obstacle: Obstacle,
    ) -> Result<Effect<String>, LedgerError> {
        self.not_begun(row, channel, &obstacle.why).await?;
        Ok(obstacle.into())
    }

    /// Records once why a row's mail was not begun.
    async fn not_begun(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        why: &str,
    ) -> Result<(), LedgerError> {
        let event = Event::MailNotBegun { channel, why: why.to_owned() };
        let reason = event.reason();
        if row.reason != reason {
            self.ledger.record(row.line, event).await?;
            row.reason = reason;
        }
        Ok(())
    }

    /// Records the intent, sends the mail, and records the outcome.
    async fn send(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        mail: Mail,
        frozen: &FrozenMail,
        ready: Ready<'_>,
    ) -> Result<Effect<String>, LedgerError> {
        let posted = Posted {
            message_id: frozen.id.to_string(),
            date: frozen.date,
            to: mail.to().to_owned(),
            courier: transport_name(self.transport.form()).to_owned(),
            body: self.writer.mode_of(channel).to_string(),
            digest: mail.digest().to_owned(),
        };
        let intent = self.ledger.intend_mail(row.line, channel, posted).await?;
        let effect = self.transport.send(&mail, ready).await;
        drop(mail);
        row.state = self.ledger.mailed(intent, effect.clone()).await?;
        row.reason = None;
        Ok(effect)
    }

    /// What stays the same at every attempt.
    fn frozen(&self, row: &RowRecord) -> Result<FrozenMail, LetterError> {
        let earlier = match &row.state {
            State::Mailing { .. } => row.mail.as_ref(),
            State::Delivered { notice: Some(MailState::Open(_)), .. } => row.notice.as_ref(),
            _ => None,
        };
        if let Some(earlier) = earlier {
            return Ok(FrozenMail {
                id: MessageId::from_str(&earlier.posted.message_id)?,
                date: earlier.posted.date,
                digest: Some(earlier.posted.digest.clone()),
            });
        }
        let now = self.clock.now();
        let date = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let id = MessageId::new(Uuid::new_v4(), &self.writer.plan.from);
        Ok(FrozenMail { id, date, digest: None })
    }

    fn write(
        &self,
        row: &RowRecord,
        channel: Channel,
        ciphertext: Option<&[u8]>,
        key: OpeningKey<'_>,
        frozen: &FrozenMail,
    ) -> Result<Mail, LetterError> {
        let terms = Terms::of(row)?;
        let reader = self.writer.reader(row, channel)?;
        let facts = self.writer.facts(row, &self.header, channel, &terms)?;
        let fill = |content: &LetterContent<'_>| {
            self.writer.templates.render(content, locale(&reader), &facts)
        };
        let code = |opened: &OpenedRow| {
            if !opened.is_for(&facts.upn) {
                return Err(LetterError::NotTheirs);
            }
            Ok(fill(&LetterContent::Opened(opened))?)
        };
        let sealed = || ciphertext.ok_or(LetterError::NoCopy);
        let letter = match (self.writer.mode_of(channel), key) {
            (Mode::Notice, _) => fill(&LetterContent::Notice)?,
            (Mode::Sealed, _) => fill(&LetterContent::Sealed(sealed()?))?,
            (Mode::Pass, OpeningKey::Spool(spool)) => code(&spool.open(row.line)?)?,
            (Mode::Pass, OpeningKey::Identities(identities)) => {
                let mut letter = None;
                unhurried(|| {
                    open(sealed()?, identities, |row| {
                        letter = Some(code(row));
                        Ok(())
                    })
                    .map_err(LetterError::from)
                })?;
                letter.ok_or(LetterError::NoCopy)??
            }
            (Mode::Pass, OpeningKey::None) => return Err(LetterError::NoKey),
        };
        let to = Mailbox::new(reader.name.as_deref().unwrap_or_default(), &reader.address)?;
        let draft = MailDraft {
            from: &self.writer.plan.from,
            reply_to: self.writer.plan.reply_to.as_ref(),
            to: &to,
            message_id: &frozen.id,
            date: frozen.date,
            letter: &letter,
        };
        Ok(compose(&draft, self.transport.form())?)
    }
}

struct FrozenMail {
    id: MessageId,
    date: Timestamp,
    /// Of the bytes that may have arrived.
    digest: Option<String>,
}

fn channels(row: &RowRecord) -> impl Iterator<Item = Channel> {
    let notice = row.notice_reader.is_some().then_some(Channel::Notice);
    std::iter::once(Channel::Pass).chain(notice)
}

fn wanted(row: &RowRecord) -> Result<RowOptions, LetterError> {
    let read = serde_json::from_str(&row.wanted_json);
    read.map_err(|_| damaged("what the wave asked for it cannot be read"))
}

fn locale(reader: &Reader) -> &str {
    reader.locale.as_deref().unwrap_or(ANY_LANGUAGE)
}

/// As the ledger and the settings name it.
const fn transport_name(form: Form) -> &'static str {
    match form {
        Form::Mime => "smtp",
        Form::GraphJson => "graph",
    }
}

/// A plugin may start a process and ask a person, which must not block the other tasks.
fn unhurried<T>(work: impl FnOnce() -> T) -> T {
    let multi = tokio::runtime::Handle::current().runtime_flavor()
        == tokio::runtime::RuntimeFlavor::MultiThread;
    if multi { tokio::task::block_in_place(work) } else { work() }
}
