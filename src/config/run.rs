//! Promises all that a wave's own flags and tapwave.toml ask of a run, as one value; whoever checks,
//! runs or rehearses a wave asks nothing else what was wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::{Settings, SettingsError};
use crate::args::{BodyArg, ExistingArg, MailArgs, WaveArgs};
use tapwave_core::clock::Minutes;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_ledger::{Existing, MailOptions, RunOptions, To};
use tapwave_mail::template::{Mailbox, Mode};
use tapwave_mail::transport::settings::MailPlan;
use tapwave_pipeline::wave::{parse_start, parse_zone};

/// What a wave's flags and tapwave.toml ask of a run.
#[derive(Debug, Clone)]
pub struct RunConfig {
    /// What the run keeps in its ledger, mail included.
    pub options: RunOptions,
    /// The zone of starts in the wave that have no offset.
    pub time_zone: Option<TimeZone>,
    /// Recipients by the labels that a wave may name.
    pub labels: BTreeMap<String, Vec<String>>,
    /// Labels and keys of those who read rows that name nobody.
    pub recipients: Vec<String>,
    /// Labels and keys of those who read every row.
    pub break_glass: Vec<String>,
    /// How mail is sent, if the options have any.
    pub mail: Option<MailPlan>,
    /// Identities that open the sealed copies for mail.
    pub identities: Vec<PathBuf>,
    /// Mail even if the last reader gets few usable minutes.
    pub allow_late: bool,
    /// Where rows with problems are written.
    pub rejects: Option<PathBuf>,
}

impl RunConfig {
    /// Resolves the flags of one command. Reads the files of recipients.
    ///
    /// # Errors
    /// [`SettingsError::Value`], [`SettingsError::Start`], [`SettingsError::Zone`] for a flag;
    /// [`SettingsError::Recipients`]; [`SettingsError::Mail`], [`SettingsError::NoticeOfNothing`]
    /// and [`SettingsError::NoticeOfNotice`] for mail.
    pub fn resolve(
        want: &WaveArgs,
        mail: &MailArgs,
        settings: &Settings,
    ) -> Result<Self, SettingsError> {
        let time_zone = match want.time_zone.as_deref() {
            Some(name) => Some(parse_zone(name)?),
            None => settings.time_zone.clone(),
        };
        let mail_options = mail_options(mail, time_zone.as_ref())?;
        let plan = mail_options.as_ref().map(|_| settings.mail_plan()).transpose()?;
        let options =
            RunOptions { mail: mail_options, ..options(want, time_zone.as_ref(), settings)? };
        Ok(Self {
            options,
            time_zone,
            labels: settings.labels.clone(),
            recipients: recipients(want, settings)?,
            break_glass: [&settings.break_glass[..], &want.break_glass].concat(),
            mail: plan,
            identities: mail.identities.clone(),
            allow_late: mail.allow_late,
            rejects: want.rejects.clone(),
        })
    }
}

fn options(
    want: &WaveArgs,
    zone: Option<&TimeZone>,
    settings: &Settings,
) -> Result<RunOptions, SettingsError> {
    let lifetime = want.lifetime.or(settings.defaults.lifetime).map(|Minutes(minutes)| minutes);
    if let Some(minutes) = lifetime.filter(|one| !limits::LIFETIME_MINUTES.contains(one)) {
        return Err(SettingsError::Value {
            name: "--lifetime",
            value: format!("{minutes} minutes"),
            remedy: "give 10 to 43200 minutes, or such as 8h, 90m or 1d",
        });
    }
    let groups =
        if want.groups.is_empty() { settings.defaults.groups.clone() } else { want.groups.clone() };
    let options = RunOptions {
        lifetime_minutes: lifetime,
        start: want.start.as_deref().map(|text| parse_start(text, zone)).transpose()?,
        one_time: match (want.one_time, want.multi_use) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => settings.defaults.one_time,
        },
        existing: match want.existing {
            None | Some(ExistingArg::Fail) => Existing::Fail,
            Some(ExistingArg::Skip) => Existing::Skip,
            Some(ExistingArg::Replace) => Existing::Replace,
        },
        groups,
        skip_ineligible: want.skip_ineligible,
        fence_by_flag: settings.settle_after_by_flag,
        ..RunOptions::default()
    };
    Ok(options.with_settle_after(settings.settle_after.unwrap_or(limits::DEFAULT_SETTLE_AFTER)))
}

/// How to mail, if any of the flags about mail asks for it. Whether a letter names the manager is
/// for whoever reads the templates to say.
fn mail_options(
    mail: &MailArgs,
    zone: Option<&TimeZone>,
) -> Result<Option<MailOptions>, SettingsError> {
    if !mail.notice_to.is_empty() && !mail.deliver && mail.to.is_empty() {
        return Err(SettingsError::NoticeOfNothing);
    }
    let wanted =
        mail.deliver || !mail.to.is_empty() || mail.body.is_some() || mail.template.is_some();
    if !wanted {
        return Ok(None);
    }
    let to =
        if mail.to.is_empty() { vec![To::Column, To::Manager] } else { places("--to", &mail.to)? };
    let notice_to = places("--notice-to", &mail.notice_to)?;
    let body = body_mode(mail.body);
    notice_fits(body, &notice_to)?;
    Ok(Some(MailOptions {
        at_once: mail.deliver,
        to,
        notice_to,
        names_manager: false,
        body: body.as_str().to_owned(),
        templates: mail.template.as_deref().map(absolute),
        time_zone: zone.and_then(|zone| zone.iana_name().map(ToOwned::to_owned)),
    }))
}

/// Who reads rows that name nobody: the flags, else tapwave.toml.
fn recipients(want: &WaveArgs, settings: &Settings) -> Result<Vec<String>, SettingsError> {
    let mut recipients = want.recipients.clone();
    for path in &want.recipient_files {
        let found = tapwave_seal::read_recipient_file(path)?;
        recipients.extend(found.iter().map(|recipient| recipient.as_str().to_owned()));
    }
    Ok(if recipients.is_empty() { settings.recipients.clone() } else { recipients })
}

/// `--body` as templates know it.
#[must_use]
pub fn body_mode(body: Option<BodyArg>) -> Mode {
    match body {
        None | Some(BodyArg::Pass) => Mode::Pass,
        Some(BodyArg::Sealed) => Mode::Sealed,
        Some(BodyArg::Notice) => Mode::Notice,
    }
}

/// Nobody can be told who has a pass that is mailed to nobody.
pub fn notice_fits(body: Mode, notice_to: &[To]) -> Result<(), SettingsError> {
    if body == Mode::Notice && !notice_to.is_empty() {
        return Err(SettingsError::NoticeOfNotice);
    }
    Ok(())
}

/// A path as a ledger must hold it: the same from whatever folder a later command is started.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// `--readdress`: a line of the wave, and who gets its mail from now on.
pub fn readdress(text: &str) -> Result<(Line, Mailbox), SettingsError> {
    let parsed = text
        .split_once('=')
        .and_then(|(line, address)| Some((Line(line.trim().parse().ok()?), address.parse().ok()?)));
    parsed.ok_or_else(|| SettingsError::Value {
        name: "--readdress",
        value: text.to_owned(),
        remedy: "give a line of the wave and one address, such as 12=ada@home.example",
    })
}

fn places(flag: &'static str, texts: &[String]) -> Result<Vec<To>, SettingsError> {
    texts.iter().map(|text| place(flag, text)).collect()
}

/// One word of `--to` or `--notice-to`.
fn place(flag: &'static str, text: &str) -> Result<To, SettingsError> {
    let wrong = |remedy| SettingsError::Value { name: flag, value: text.to_owned(), remedy };
    match text.trim().to_ascii_lowercase().as_str() {
        "column:deliverto" => Ok(To::Column),
        "manager" => Ok(To::Manager),
        "other-mail" => Ok(To::OtherMail),
        "mail" => Ok(To::Mail),
        column if column.starts_with("column:") => Err(wrong("the column is called deliverTo")),
        _ => match text.parse::<Mailbox>() {
            Ok(mailbox) => Ok(To::Address(mailbox.to_string())),
            Err(_) => Err(wrong(
                "give column:deliverTo, manager, other-mail, mail, or one address; separate \
                 several with commas",
            )),
        },
    }
}

/// `--due`.
pub fn due(text: &str) -> Result<Duration, SettingsError> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|due| Duration::try_from(due).ok());
    parsed.ok_or_else(|| SettingsError::Value {
        name: "--due",
        value: text.to_owned(),
        remedy: "give a duration such as 24h",
    })
}
