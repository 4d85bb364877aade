//! Promises letters in each reader's language, and names what is wrong with a row or a template
//! before any pass exists. Must never quote a code in an error.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::wave::{Header, RowOptions};
use tapwave_core::clock::later;
use tapwave_core::ids::Upn;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_ledger::{Channel, IssuedRecord, LedgerError, MailOptions, Reader, RowRecord};
use tapwave_mail::template::{
    BadMailbox, Facts, Letter, Mailbox, Mode, NamedPerson, NotComposed, NotMessageId,
    TemplateError, Templates,
};
use tapwave_mail::transport::settings::MailPlan;
use tapwave_seal::{HandoffError, OpenError};

const ANY_LANGUAGE: &str = "en";

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
    pub(super) fn reader(&self, row: &RowRecord, channel: Channel) -> Result<Reader, LetterError> {
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

    pub(super) fn readers(&self, row: &RowRecord) -> Result<(), LetterError> {
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

    pub(super) const fn mode_of(&self, channel: Channel) -> Mode {
        match channel {
            Channel::Pass => self.mode,
            Channel::Notice => Mode::Notice,
        }
    }

    pub(super) fn facts(
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

pub(super) struct Terms {
    start: Timestamp,
    lifetime_minutes: u32,
    one_time: bool,
}

impl Terms {
    /// Stays the same at every attempt: without a start from Graph, the intent's time counts.
    pub(super) fn of(row: &RowRecord) -> Result<Self, LetterError> {
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

fn channels(row: &RowRecord) -> impl Iterator<Item = Channel> {
    let notice = row.notice_reader.is_some().then_some(Channel::Notice);
    std::iter::once(Channel::Pass).chain(notice)
}

pub(super) fn wanted(row: &RowRecord) -> Result<RowOptions, LetterError> {
    let read = serde_json::from_str(&row.wanted_json);
    read.map_err(|_| damaged("what the wave asked for it cannot be read"))
}

pub(super) fn locale(reader: &Reader) -> &str {
    reader.locale.as_deref().unwrap_or(ANY_LANGUAGE)
}

pub(super) fn mode_named(word: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
}

fn lacking(error: LedgerError) -> LetterError {
    damaged(match error {
        LedgerError::BrokenRow { lacks, .. } => lacks.to_owned(),
        other => other.to_string(),
    })
}

pub(super) fn damaged(what: impl Into<String>) -> LetterError {
    LetterError::Damaged(plain(&what.into()))
}
