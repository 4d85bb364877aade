//! Promises one validated value out of flags, environment and tapwave.toml, in that order of
//! precedence.
//!
//! What comes out needs no further check of form, and says where each value came from. What a
//! wave's own flags add is resolved once more, into a [`RunConfig`]. Secrets come from a variable,
//! a file, or a command that prints them, never from the command line; they are read when they are
//! needed and are never shown.

mod file;
mod provenance;
mod run;
mod secret;
mod sign_in;
mod trust;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use self::file::{ReadFile, SettingsFile};
pub use self::provenance::{EffectiveSetting, SettingOrigin};
use self::provenance::{Joined, choice};
pub use self::run::{RunConfig, absolute, body_mode, due, notice_fits, readdress};
pub use self::secret::SecretError;
use self::sign_in::Secrets;
pub use self::trust::FoundSettings;

use crate::args::{Auth, Cloud, Common};
use tapwave_core::clock::Minutes;
use tapwave_core::limits;
use tapwave_core::programs::keep_back;
use tapwave_graph::http::{BaseUrl, Network, NetworkError, without_login};
use tapwave_graph::limiter::LimiterOptions;
use tapwave_graph::sign_in::certificate::CertificateError;
use tapwave_ledger::RunOptions;
use tapwave_mail::transport::settings::{MailPlan, MailSettings, MailSettingsError};
use tapwave_pipeline::wave::{BadStart, BadZone, parse_zone};
use tapwave_seal::reads_like_a_key;

/// Everything the commands share.
#[derive(Debug)]
pub struct Settings {
    /// Graph's origin, without `/v1.0`, if it was named by URL or by cloud.
    pub graph: Option<BaseUrl>,
    /// Where to sign in, if it was named by URL or by cloud.
    pub authority: Option<BaseUrl>,
    /// Proxy and certificate authorities.
    pub network: Network,
    /// The tenant, if one was named.
    pub tenant: Option<String>,
    /// How to sign in.
    pub auth: Auth,
    /// The application's id, if one was named.
    pub client_id: Option<String>,
    /// Bounds of the limiter.
    pub limiter: LimiterOptions,
    /// How long a lost POST may still execute, if it was given; a run remembers it, and
    /// [`limits::DEFAULT_SETTLE_AFTER`] otherwise. [`Settings::settle_after_of`] has what holds for
    /// a run that was begun before.
    pub settle_after: Option<Duration>,
    /// Whether a flag gave it.
    settle_after_by_flag: bool,
    /// Labels of the settings file.
    pub labels: BTreeMap<String, Vec<String>>,
    /// Who may read every pass.
    pub break_glass: Vec<String>,
    /// Who may read passes of rows that name nobody, when no `-r` or `-R` is given.
    pub recipients: Vec<String>,
    /// Zone of starts without an offset.
    pub time_zone: Option<TimeZone>,
    /// `[mail]`, not yet validated: only who mails needs it.
    pub mail: MailSettings,
    /// The file that was read, for people.
    pub file: Option<PathBuf>,
    /// The same, if nobody named it.
    pub found: Option<FoundSettings>,
    /// Every value and where it came from, for people.
    pub known: Vec<EffectiveSetting>,
    secrets: Secrets,
    defaults: WaveDefaults,
}

/// What of a wave's options the file may set.
#[derive(Debug, Default)]
struct WaveDefaults {
    lifetime: Option<Minutes>,
    one_time: Option<bool>,
    groups: Vec<String>,
}

/// Why the settings cannot be used. Exit 2.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("failed to read the settings file {path}: {why}")]
    Unreadable {
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A file that is not its reader's alone.
    #[error("failed to trust the settings file {path}: {why}")]
    NotOurs {
        path: PathBuf,
        /// Who may change it.
        why: String,
    },
    /// The file is no TOML, or has an unknown key or a value of the wrong kind.
    #[error("failed to understand the settings file {path}: {why}")]
    File { path: PathBuf, why: String },
    /// A value out of its bounds.
    #[error("{name} cannot be {value}: {remedy}")]
    Value {
        /// The flag or key.
        name: &'static str,
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// A start that is not one moment.
    #[error("--start: {0}; --time-zone names the zone of one without an offset")]
    Start(#[from] BadStart),
    /// A zone that nobody knows.
    #[error("time zone: {0}")]
    Zone(#[from] BadZone),
    /// An address.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The cloud without passes.
    #[error(
        "cloud cannot be china: Microsoft Graph v1.0 in the cloud of 21Vianet has no Temporary Access Passes; use global, usgov or usgov-dod"
    )]
    China,
    /// A client certificate that cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A secret that cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret that is not there.
    #[error("--auth {method} needs {variable}; set it in the environment")]
    Missing {
        /// The way to sign in.
        method: &'static str,
        /// The variable or flag.
        variable: &'static str,
    },
    /// `[mail]`.
    #[error(transparent)]
    Mail(#[from] MailSettingsError),
    /// `--notice-to` without any mail.
    #[error(
        "--notice-to tells somebody who has a pass that was mailed, and no mail is asked for; add --deliver, or --to for a later tapwave deliver"
    )]
    NoticeOfNothing,
    /// `--notice-to` beside a mail that is itself no more than that.
    #[error(
        "--notice-to tells somebody who has the pass, and with --body notice nobody gets it by mail; give --body pass or --body sealed, or leave --notice-to out"
    )]
    NoticeOfNotice,
    /// A user or a password in an address on the command line, where others can read them, and
    /// a command that is told would repeat them. Not quoted.
    #[error("{flag} cannot hold a user or a password; {remedy}")]
    LoginInFlag {
        flag: &'static str,
        /// Where they go instead, if anywhere.
        remedy: &'static str,
    },
    /// A label that reads like a key, and would be taken for one.
    #[error(
        "{} cannot be the label of a recipient, because it reads like a key; name the person or the \
         team who holds the key in [recipients]",
        .0.escape_debug()
    )]
    Label(String),
    /// A recipients file.
    #[error(transparent)]
    Recipients(#[from] tapwave_seal::BadRecipientFile),
}

impl Settings {
    /// Joins the flags, the environment and the file.
    pub fn load(
        flags: &Common,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        no_login_in(flags)?;
        let ReadFile { path, found, file } = ReadFile::read(flags.config.as_deref())?;
        // Whatever is started from here on, mail or no mail, has no use for it.
        if let Some(variable) = &file.mail.password_env {
            keep_back(variable);
        }
        let mut joined = Joined { environment, known: Vec::new() };
        let tenant =
            joined.text("tenant", flags.tenant.as_ref(), "AZURE_TENANT_ID", file.tenant.clone());
        let client_id = joined.text(
            "client_id",
            flags.client_id.as_ref(),
            "AZURE_CLIENT_ID",
            file.client_id.clone(),
        );
        let auth = joined.word("auth", flags.auth, file.auth.as_deref())?;
        let (graph, authority) = endpoints(&mut joined, flags, &file)?;
        let secrets = Secrets::of(&mut joined, &file)?;
        let ca_file = joined.value("ca_file", flags.ca_file.clone(), file.ca_file, display);
        let proxy =
            joined.value("proxy", flags.proxy.clone(), file.proxy, |url| without_login(url));
        let no_proxy = environment("NO_PROXY").or_else(|| environment("no_proxy"));
        let in_flight =
            joined.value("max_in_flight", flags.max_in_flight, file.max_in_flight, number);
        let max_rate = joined.value("max_rate", flags.max_rate, file.max_rate, number);
        let settling = flags.settle_after.clone();
        let settling = joined.value("settle_after", settling, file.settle_after, Clone::clone);
        let zone = joined.value("time_zone", None, file.time_zone, Clone::clone);
        let lifetime = joined.value("lifetime", None, file.lifetime, number);
        let one_time = joined.value("one_time", None, file.one_time, number);
        joined.list("groups", &file.groups);
        let recipients: Vec<String> = file.default_recipients.into();
        joined.list("default_recipients", &recipients);
        let break_glass: Vec<String> = file.break_glass.into();
        joined.list("break_glass", &break_glass);
        let labels: BTreeMap<String, Vec<String>> =
            file.recipients.into_iter().map(|(label, keys)| (label, keys.into())).collect();
        if let Some(label) = labels.keys().find(|label| reads_like_a_key(label)) {
            return Err(SettingsError::Label(label.clone()));
        }
        joined.list("recipients", &labels.keys().cloned().collect::<Vec<_>>());
        joined.list("mail", &file.mail.keys());
        Ok(Self {
            graph,
            authority,
            network: Network { ca_file, proxy, no_proxy },
            tenant,
            auth: auth.unwrap_or(Auth::Auto),
            client_id,
            limiter: limiter(in_flight, max_rate)?,
            settle_after: settle_after(settling.as_deref())?,
            settle_after_by_flag: flags.settle_after.is_some(),
            labels,
            break_glass,
            recipients,
            time_zone: zone.as_deref().map(parse_zone).transpose()?,
            mail: file.mail,
            file: path,
            found,
            known: joined.known,
            secrets,
            defaults: WaveDefaults { lifetime, one_time, groups: file.groups },
        })
    }

    /// Every key, or label, by which this names somebody who may read.
    pub fn readers(&self) -> impl Iterator<Item = &String> {
        self.labels.values().flatten().chain(&self.break_glass).chain(&self.recipients)
    }

    /// Leaves out whoever is named otherwise than by these.
    pub fn keep_readers(&mut self, is_kept: impl Fn(&str) -> bool) {
        let lists = self.labels.values_mut();
        for keys in lists.chain([&mut self.break_glass, &mut self.recipients]) {
            keys.retain(|key| is_kept(key));
        }
        self.labels.retain(|_, keys| !keys.is_empty());
    }

    /// Where to sign in for a Graph: the place that was named, else the one of that Graph's
    /// cloud.
    #[must_use]
    pub fn authority_of(&self, graph: &BaseUrl) -> BaseUrl {
        let us = graph.as_str().ends_with(".microsoft.us");
        self.authority.clone().unwrap_or_else(|| BaseUrl::authority(us))
    }

    /// Graph's origin: the one named, else the global cloud's.
    #[must_use]
    pub fn graph_or_global(&self) -> BaseUrl {
        self.graph.clone().unwrap_or_else(BaseUrl::global)
    }

    /// `[mail]`, fit for use.
    pub fn mail_plan(&self) -> Result<MailPlan, SettingsError> {
        Ok(self.mail.validate()?)
    }

    /// The settling time of a run that was begun with these options. A flag of this very command is
    /// obeyed, since whoever types it means this run. tapwave.toml speaks of all runs: it
    /// never shortens the settling time that one was begun with, since its requests may be out there
    /// still, and lengthens it only where no flag had named it.
    #[must_use]
    pub fn settle_after_of(&self, begun: &RunOptions) -> Duration {
        let own = begun.settle_after();
        match self.settle_after {
            Some(time) if self.settle_after_by_flag => time,
            Some(time) if !begun.fence_by_flag => time.max(own),
            _ => own,
        }
    }
}

/// Cloud, Graph and authority. A flag wins over what names the same thing elsewhere, be
/// it by URL or by cloud.
fn endpoints<E: Fn(&str) -> Option<String>>(
    joined: &mut Joined<'_, E>,
    flags: &Common,
    file: &SettingsFile,
) -> Result<(Option<BaseUrl>, Option<BaseUrl>), SettingsError> {
    let filed = choice("cloud", file.cloud.as_deref())?;
    let cloud = joined.word("cloud", flags.cloud, file.cloud.as_deref())?;
    if cloud == Some(Cloud::China) {
        return Err(SettingsError::China);
    }
    let first = |candidates: [(Option<String>, SettingOrigin); 5]| {
        candidates.into_iter().find_map(|(url, from)| Some((url?, from)))
    };
    let graph = first([
        (flags.graph_url.clone(), SettingOrigin::Flag),
        (flags.cloud.map(|cloud| origin(cloud).to_owned()), SettingOrigin::Flag),
        (file.graph_url.clone(), SettingOrigin::File),
        (filed.map(|cloud| origin(cloud).to_owned()), SettingOrigin::File),
        (None, SettingOrigin::Default),
    ]);
    let authority = |cloud| {
        BaseUrl::authority(matches!(cloud, Cloud::Usgov | Cloud::UsgovDod)).as_str().to_owned()
    };
    let place = first([
        (flags.authority_url.clone(), SettingOrigin::Flag),
        (flags.cloud.map(authority), SettingOrigin::Flag),
        (joined.variable("AZURE_AUTHORITY_HOST").map(with_scheme), SettingOrigin::Environment),
        (file.authority_url.clone(), SettingOrigin::File),
        (filed.map(authority), SettingOrigin::File),
    ]);
    let mut parsed = |name, found: Option<(String, SettingOrigin)>, parse: ParseUrl| {
        let (url, from) =
            found.map_or((None, SettingOrigin::Default), |(url, from)| (Some(url), from));
        joined.note(name, url.clone(), from);
        url.as_deref().map(parse).transpose()
    };
    let graph = parsed("graph_url", graph, BaseUrl::parse_graph)?;
    Ok((graph, parsed("authority_url", place, BaseUrl::parse)?))
}

/// Refuses a user or a password in an address that a flag gives. Commands that read no settings
/// owe this too: what they tell people to type repeats these flags.
pub fn no_login_in(flags: &Common) -> Result<(), SettingsError> {
    let none_at_all = "leave them out, since nobody asks for them there";
    let addresses = [
        ("--proxy", &flags.proxy, "set HTTPS_PROXY, or proxy in tapwave.toml"),
        ("--graph-url", &flags.graph_url, none_at_all),
        ("--authority-url", &flags.authority_url, none_at_all),
    ];
    let has_login = |url: &Option<String>| url.as_ref().is_some_and(|url| url.contains('@'));
    let refused = addresses.into_iter().find(|(_, url, _)| has_login(url));
    refused.map_or(Ok(()), |(flag, _, remedy)| Err(SettingsError::LoginInFlag { flag, remedy }))
}

/// Azure's tools take the host alone too.
fn with_scheme(host: String) -> String {
    if host.contains("://") { host } else { format!("https://{host}") }
}

#[expect(clippy::ptr_arg, reason = "it is used as a function of Joined::value")]
fn display(path: &PathBuf) -> String {
    path.display().to_string()
}

fn number(value: &impl ToString) -> String {
    value.to_string()
}

const fn origin(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Global => "https://graph.microsoft.com",
        Cloud::Usgov => "https://graph.microsoft.us",
        Cloud::UsgovDod => "https://dod-graph.microsoft.us",
        Cloud::China => "https://microsoftgraph.chinacloudapi.cn",
    }
}

fn limiter(in_flight: Option<usize>, rate: Option<f64>) -> Result<LimiterOptions, SettingsError> {
    let max_in_flight = in_flight.unwrap_or(limits::DEFAULT_IN_FLIGHT);
    if !(1..=limits::MAX_IN_FLIGHT).contains(&max_in_flight) {
        return Err(SettingsError::Value {
            name: "--max-in-flight",
            value: max_in_flight.to_string(),
            remedy: "give 1 to 512",
        });
    }
    if let Some(rate) = rate.filter(|rate| !(0.01..=10_000.0).contains(rate)) {
        return Err(SettingsError::Value {
            name: "--max-rate",
            value: rate.to_string(),
            remedy: "give 0.01 to 10000 per second",
        });
    }
    Ok(LimiterOptions { max_in_flight, max_rate: rate })
}

/// How an address is read.
type ParseUrl = fn(&str) -> Result<BaseUrl, NetworkError>;

fn settle_after(text: Option<&str>) -> Result<Option<Duration>, SettingsError> {
    let Some(text) = text else { return Ok(None) };
    let time = text.parse::<SignedDuration>().ok();
    let time = time.and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| *time <= Duration::from_hours(24)).map(Some).ok_or_else(|| {
        SettingsError::Value {
            name: "--settle-after",
            value: text.to_owned(),
            remedy: "give a duration such as 5m or 90s, at most 24h",
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{MailArgs, WaveArgs};

    #[test]
    fn a_settling_time_is_a_duration() {
        assert_eq!(settle_after(None).ok(), Some(None));
        assert_eq!(settle_after(Some("90s")).ok(), Some(Some(Duration::from_secs(90))));
        assert_eq!(settle_after(Some("1h 30m")).ok(), Some(Some(Duration::from_mins(90))));
        for bad in ["", "-5m", "five", "2d", "90"] {
            assert!(settle_after(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_setting_never_shortens_the_settling_time_of_a_run() {
        let settings = |given: Option<(u64, bool)>| {
            let none = Settings::load(&Common::default(), &|_: &str| None).expect("settings");
            let settle_after = given.map(|(millis, _)| Duration::from_millis(millis));
            let by_flag = given.is_some_and(|(_, by_flag)| by_flag);
            Settings { settle_after, settle_after_by_flag: by_flag, ..none }
        };
        for (begun, given, expected) in [
            ((300_000, false), None, 300_000),
            ((300_000, false), Some((10, false)), 300_000),
            ((300_000, false), Some((900_000, false)), 900_000),
            ((300_000, true), Some((10, false)), 300_000),
            ((300_000, true), Some((900_000, false)), 300_000),
            ((300_000, true), Some((10, true)), 10),
            ((300_000, false), Some((900_000, true)), 900_000),
            ((100, true), None, 100),
            ((1_999, false), Some((1_500, false)), 1_999),
        ] {
            let begun = RunConfig::resolve(
                &WaveArgs::default(),
                &MailArgs::default(),
                &settings(Some(begun)),
            );
            let begun = begun.expect("options").options;
            let settle_after = settings(given).settle_after_of(&begun);
            assert_eq!(settle_after, Duration::from_millis(expected), "{begun:?}, {given:?}");
        }
    }

    #[test]
    fn no_password_comes_from_the_command_line() {
        let url = Some("https://ada:hunter2@contoso.example:8080".to_owned());
        let none = Common::default;
        for (flag, flags) in [
            ("--proxy", Common { proxy: url.clone(), ..none() }),
            ("--graph-url", Common { graph_url: url.clone(), ..none() }),
            ("--authority-url", Common { authority_url: url.clone(), ..none() }),
        ] {
            let error = Settings::load(&flags, &|_: &str| None).expect_err("a password");
            let error = error.to_string();
            assert!(error.contains(flag) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_password_of_a_proxy_is_used_and_not_shown() {
        let place = tempfile::tempdir().expect("a folder");
        let path = place.path().join("proxy.toml");
        let url = "http://ada:hunter2@proxy.contoso.example:8080";
        std::fs::write(&path, format!("proxy = \"{url}\"\n")).expect("written");
        let flags = Common { config: Some(path), ..Common::default() };
        let settings = Settings::load(&flags, &|_: &str| None).expect("settings");
        assert_eq!(settings.network.proxy.as_deref(), Some(url));
        let known = settings.known.iter().find(|known| known.name == "proxy").expect("known");
        assert_eq!(known.value.as_deref(), Some("…@proxy.contoso.example:8080"));
    }
}
