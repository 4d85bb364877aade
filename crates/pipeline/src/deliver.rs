//! Promises that a mail's Message-ID, date and digest are durable before its first byte is sent and
//! not before the relay has let us in, and that its outcome is in the ledger before anything else
//! happens to the row.
//!
//! A mail that may have arrived is never sent again by itself: it stays unsettled until an operator
//! asks for the identical bytes once more. A code is in memory only from the moment its letter is
//! rendered until the transport has answered. A notice goes out only for a [`Delivered`] pass.

mod letters;
mod retries;

use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

pub use self::letters::{
    LetterError, LetterWriter, LetterWriterError, Preview, TooLateToMail, expired, start_of,
};
pub use self::retries::Retries;

use self::letters::{Terms, damaged, locale, mode_named, wanted};
use crate::stop::StopSignal;
use crate::wave::Header;
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::limits;
use tapwave_graph::Graph;
use tapwave_ledger::{
    Channel, Event, Ledger, LedgerError, MailRecord, MailState, Posted, Reader, RowRecord, State,
};
use tapwave_mail::template::{
    Form, LetterContent, Mail, MailDraft, Mailbox, MessageId, Mode, compose,
};
use tapwave_mail::transport::{MailTransport, Ready, backoff};
use tapwave_seal::{Identities, OpenedRow, Spool, open};

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

/// A sealed pass whose mail may go out. Made from the ledger's record alone.
#[derive(Debug)]
pub struct Addressed(RowRecord);

/// A pass whose mail a transport accepted: made by [`Mailer::deliver`], or from the ledger's
/// record. Only such a pass has a notice:
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

impl Mailer {
    /// Mails one pass, with the identical bytes if the answer to an earlier mail was lost. Retries
    /// until [`limits::MAIL_ATTEMPTS`].
    pub async fn deliver(
        &self,
        addressed: Addressed,
        key: OpeningKey<'_>,
    ) -> Result<Effect<Delivered>, NotMailed> {
        let ciphertext = self.ledger.ciphertext(addressed.0.line).await?;
        self.send_with_retries(addressed.0, Channel::Pass, ciphertext.as_deref(), key).await
    }

    /// Sends the notice of a delivered pass.
    pub async fn notify(&self, delivered: Delivered) -> Result<Effect<Delivered>, NotMailed> {
        self.send_with_retries(delivered.0, Channel::Notice, None, OpeningKey::None).await
    }

    async fn send_with_retries(
        &self,
        mut row: RowRecord,
        channel: Channel,
        ciphertext: Option<&[u8]>,
        key: OpeningKey<'_>,
    ) -> Result<Effect<Delivered>, NotMailed> {
        let frozen = self.frozen(&row)?;
        // Checked before the rate limit is waited for, since nothing is sent.
        self.writer.readers(&row)?;
        self.check_in_time(&mut row, channel).await?;
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
            Err(obstacle) => return Ok(self.record_obstacle(row, channel, obstacle).await?),
        };
        let mail = match self.write_in_time(row, channel, ciphertext, key, frozen).await {
            Ok(mail) => mail,
            Err(unsent) => {
                self.transport.release(ready);
                return Err(unsent);
            }
        };
        // Touching a hardware key may take longer than the relay waits.
        Ok(match self.transport.refresh(ready).await {
            Ok(ready) => self.send(row, channel, mail, frozen, ready).await?,
            Err(obstacle) => self.record_obstacle(row, channel, obstacle).await?,
        })
    }

    /// Writes the mail anew at each attempt, so that no code waits in memory.
    async fn write_in_time(
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
        self.check_in_time(row, channel).await?;
        Ok(mail)
    }

    /// Checks that the pass has not expired. Also right before the intent: the mail may have waited
    /// for hours.
    async fn check_in_time(&self, row: &mut RowRecord, channel: Channel) -> Result<(), NotMailed> {
        let Some(late) = expired(row, self.graph.likely_time().await)? else { return Ok(()) };
        self.record_not_begun(row, channel, &late.to_string()).await?;
        Err(NotMailed::TooLate(late))
    }

    async fn record_obstacle(
        &self,
        row: &mut RowRecord,
        channel: Channel,
        obstacle: Obstacle,
    ) -> Result<Effect<String>, LedgerError> {
        self.record_not_begun(row, channel, &obstacle.why).await?;
        Ok(obstacle.into())
    }

    /// Records once why a row's mail was not begun.
    async fn record_not_begun(
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
                block_in_place(|| {
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

/// As the ledger and the settings name it.
const fn transport_name(form: Form) -> &'static str {
    match form {
        Form::Mime => "smtp",
        Form::GraphJson => "graph",
    }
}

/// A plugin may start a process and ask a person, which must not block the other tasks.
fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    let multi = tokio::runtime::Handle::current().runtime_flavor()
        == tokio::runtime::RuntimeFlavor::MultiThread;
    if multi { tokio::task::block_in_place(work) } else { work() }
}
