//! Promises one validated value out of flags, environment and tapwave.toml, in that order of
//! precedence.
//!
//! What comes out needs no further check of form, and says where each value came from.
//! Secrets come from a variable, a file, or a command that prints them, never from the
//! command line; they are read when they are needed and are never shown.

mod secret;
mod trust;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use self::secret::SecretError;
use self::secret::SecretSource;
pub use self::trust::FoundSettings;

use crate::args::{Auth, BodyArg, Cloud, Common, ExistingArg, MailArgs, WaveArgs};
use tapwave_core::clock::Minutes;
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::programs::keep_back;
use tapwave_core::wiped::read_bounded;
use tapwave_graph::http::{BaseUrl, Network, NetworkError, without_login};
use tapwave_graph::limiter::LimiterOptions;
use tapwave_graph::sign_in;
use tapwave_graph::sign_in::certificate::Certificate;
use tapwave_graph::sign_in::person::PersonFlow;
use tapwave_ledger::{Existing, MailOptions, RunOptions, To};
use tapwave_mail::template::{Mailbox, Mode};
use tapwave_mail::transport::settings::{MailPlan, MailSettings, MailSettingsError};
use tapwave_pipeline::wave::{BadStart, BadZone, parse_start, parse_zone};
use tapwave_seal::reads_like_a_key;

/// The settings file that is read when it is there and none is named.
const DEFAULT_FILE: &str = "tapwave.toml";

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
    pub pace: LimiterOptions,
    /// How long a lost POST may still execute, if told; a run remembers it, and
    /// [`limits::DEFAULT_SETTLE_AFTER`] if nothing was told. [`Settings::settle_after_of`] has what holds for
    /// a run that was begun before.
    pub settle_after: Option<Duration>,
    /// Whether a flag told it.
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

/// One effective setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    /// As the file spells it.
    pub name: &'static str,
    /// As it was given, a login in an address left out; `set` for a secret, nothing for what is
    /// not set.
    pub value: Option<String>,
    /// Where it came from.
    pub from: SettingOrigin,
}

/// Where a setting came from, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingOrigin {
    /// The command line.
    Flag,
    /// A variable.
    Environment,
    /// tapwave.toml.
    File,
    /// Nobody said anything.
    Default,
}

impl std::fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// Where secrets are to be had.
#[derive(Debug, Default)]
struct Secrets {
    access_token: Option<SecretSource>,
    client_secret: Option<SecretSource>,
    certificate: Option<PathBuf>,
    certificate_password: Option<SecretSource>,
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
    Certificate(#[from] sign_in::certificate::CertificateError),
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

/// tapwave.toml. Unknown keys are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SettingsFile {
    tenant: Option<String>,
    cloud: Option<String>,
    auth: Option<String>,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    client_secret_command: Option<Vec<String>>,
    client_certificate: Option<PathBuf>,
    client_certificate_password_file: Option<PathBuf>,
    client_certificate_password_command: Option<Vec<String>>,
    graph_url: Option<String>,
    authority_url: Option<String>,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    max_in_flight: Option<usize>,
    max_rate: Option<f64>,
    #[serde(alias = "fence")]
    settle_after: Option<String>,
    time_zone: Option<String>,
    lifetime: Option<Minutes>,
    one_time: Option<bool>,
    groups: Vec<String>,
    default_recipients: OneOrMany,
    break_glass: OneOrMany,
    recipients: BTreeMap<String, OneOrMany>,
    mail: MailSettings,
}

impl SettingsFile {
    /// The same with files and programs beside it where it lies, from whatever folder it is named:
    /// they are trusted with it.
    fn based(self, folder: &Path) -> Self {
        let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        let program = |command: Option<Vec<String>>| {
            command.map(|mut words| {
                let first = words.first_mut().filter(|word| word.contains(['/', '\\']));
                if let Some(word) = first {
                    *word = folder.join(&*word).display().to_string();
                }
                words
            })
        };
        Self {
            ca_file: beside(self.ca_file),
            client_secret_file: beside(self.client_secret_file),
            client_secret_command: program(self.client_secret_command),
            client_certificate: beside(self.client_certificate),
            client_certificate_password_file: beside(self.client_certificate_password_file),
            client_certificate_password_command: program(self.client_certificate_password_command),
            mail: self.mail.based(beside, program),
            ..self
        }
    }
}

/// A text, or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

impl Settings {
    /// Joins the flags, the environment and the file.
    pub fn load(
        flags: &Common,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        no_login_in(flags)?;
        let Read { path, found, file } = Read::file(flags.config.as_deref())?;
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
        let (graph, authority) = joined.places(flags, &file)?;
        let secrets = joined.secrets(&file)?;
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
            pace: pace(in_flight, max_rate)?,
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

    /// The zone of starts without an offset: the flag's, else the file's.
    pub fn zone(&self, want: &WaveArgs) -> Result<Option<TimeZone>, SettingsError> {
        match want.time_zone.as_deref() {
            Some(name) => Ok(Some(parse_zone(name)?)),
            None => Ok(self.time_zone.clone()),
        }
    }

    /// The options that a run keeps in its ledger.
    pub fn options(&self, want: &WaveArgs) -> Result<RunOptions, SettingsError> {
        let lifetime = want.lifetime.or(self.defaults.lifetime).map(|Minutes(minutes)| minutes);
        if let Some(minutes) = lifetime.filter(|one| !limits::LIFETIME_MINUTES.contains(one)) {
            return Err(SettingsError::Value {
                name: "--lifetime",
                value: format!("{minutes} minutes"),
                remedy: "give 10 to 43200 minutes, or such as 8h, 90m or 1d",
            });
        }
        let zone = self.zone(want)?;
        let groups =
            if want.groups.is_empty() { self.defaults.groups.clone() } else { want.groups.clone() };
        let options = RunOptions {
            lifetime_minutes: lifetime,
            start: want
                .start
                .as_deref()
                .map(|text| parse_start(text, zone.as_ref()))
                .transpose()?,
            one_time: match (want.one_time, want.multi_use) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => self.defaults.one_time,
            },
            existing: match want.existing {
                None | Some(ExistingArg::Fail) => Existing::Fail,
                Some(ExistingArg::Skip) => Existing::Skip,
                Some(ExistingArg::Replace) => Existing::Replace,
            },
            groups,
            skip_ineligible: want.skip_ineligible,
            fence_by_flag: self.settle_after_by_flag,
            ..RunOptions::default()
        };
        Ok(options.with_settle_after(self.settle_after.unwrap_or(limits::DEFAULT_SETTLE_AFTER)))
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

    /// How to mail, if any of the flags about mail asks for it. Whether a letter names the
    /// manager is for whoever reads the templates to say.
    ///
    /// # Errors
    /// [`SettingsError::Value`] for a place that is none; [`SettingsError::NoticeOfNothing`],
    /// [`SettingsError::NoticeOfNotice`].
    pub fn mail_options(
        &self,
        mail: &MailArgs,
        want: &WaveArgs,
    ) -> Result<Option<MailOptions>, SettingsError> {
        if !mail.notice_to.is_empty() && !mail.deliver && mail.to.is_empty() {
            return Err(SettingsError::NoticeOfNothing);
        }
        let wanted =
            mail.deliver || !mail.to.is_empty() || mail.body.is_some() || mail.template.is_some();
        if !wanted {
            return Ok(None);
        }
        let to = if mail.to.is_empty() {
            vec![To::Column, To::Manager]
        } else {
            places("--to", &mail.to)?
        };
        let notice_to = places("--notice-to", &mail.notice_to)?;
        let body = mode(mail.body);
        news_of_a_pass(body, &notice_to)?;
        let zone = self.zone(want)?;
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

    /// `[mail]`, fit for use.
    pub fn mail_plan(&self) -> Result<MailPlan, SettingsError> {
        Ok(self.mail.validate()?)
    }

    /// Labels and keys of those who read rows that name nobody.
    ///
    /// # Errors
    /// [`SettingsError::Recipients`] for a file that cannot be used.
    pub fn default_recipients(&self, want: &WaveArgs) -> Result<Vec<String>, SettingsError> {
        let mut recipients = want.recipients.clone();
        for path in &want.recipient_files {
            let found = tapwave_seal::read_recipient_file(path)?;
            recipients.extend(found.iter().map(|recipient| recipient.as_str().to_owned()));
        }
        Ok(if recipients.is_empty() { self.recipients.clone() } else { recipients })
    }

    /// How to sign in, with the secrets read. `auto` takes the first that is
    /// there; `on_azure` tells whether this is an Azure machine with an identity endpoint.
    ///
    /// # Errors
    /// [`SettingsError::Missing`], [`SettingsError::Secret`]
    pub fn sign_in(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
        on_azure: bool,
    ) -> Result<sign_in::SignInMethod, SettingsError> {
        let there = |name: &str| environment(name).filter(|value| !value.is_empty());
        let auth = match self.auth {
            Auth::Auto if self.secrets.access_token.is_some() => Auth::Token,
            Auth::Auto if self.secrets.client_secret.is_some() => Auth::ClientSecret,
            Auth::Auto if self.secrets.certificate.is_some() => Auth::ClientCertificate,
            Auth::Auto if there("AZURE_FEDERATED_TOKEN_FILE").is_some() => Auth::WorkloadIdentity,
            Auth::Auto if there("IDENTITY_ENDPOINT").is_some() || on_azure => Auth::ManagedIdentity,
            Auth::Auto => Auth::AzureCli,
            chosen => chosen,
        };
        let tenant = self.tenant.clone();
        let client = self.client_id.clone();
        let missing = |method, variable| SettingsError::Missing { method, variable };
        let read = |source: &Option<SecretSource>, absent| match source {
            Some(source) => Ok::<SecretString, SettingsError>(source.read(environment)?),
            None => Err(absent),
        };
        Ok(match auth {
            Auth::Token => sign_in::SignInMethod::Token(read(
                &self.secrets.access_token,
                missing("token", "TAPWAVE_ACCESS_TOKEN"),
            )?),
            Auth::ClientSecret => sign_in::SignInMethod::ClientSecret {
                tenant: tenant
                    .ok_or_else(|| missing("client-secret", "--tenant or AZURE_TENANT_ID"))?,
                client: client
                    .ok_or_else(|| missing("client-secret", "--client-id or AZURE_CLIENT_ID"))?,
                secret: read(
                    &self.secrets.client_secret,
                    missing("client-secret", "AZURE_CLIENT_SECRET"),
                )?,
            },
            Auth::WorkloadIdentity => sign_in::SignInMethod::WorkloadIdentity {
                tenant,
                client,
                token_file: there("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            },
            Auth::ClientCertificate => {
                let method = "client-certificate";
                let path = self.secrets.certificate.as_ref();
                let path = path.ok_or_else(|| missing(method, "AZURE_CLIENT_CERTIFICATE_PATH"))?;
                let password = self.secrets.certificate_password.as_ref();
                let password = password.map(|source| source.read(environment)).transpose()?;
                let certificate = Certificate::read(path, password.as_ref())?;
                sign_in::SignInMethod::ClientCertificate {
                    tenant: tenant.ok_or_else(|| missing(method, "--tenant or AZURE_TENANT_ID"))?,
                    client: client
                        .ok_or_else(|| missing(method, "--client-id or AZURE_CLIENT_ID"))?,
                    certificate: Arc::new(certificate),
                }
            }
            Auth::Interactive => {
                sign_in::SignInMethod::Person { way: PersonFlow::Browser, tenant, client }
            }
            Auth::DeviceCode => {
                sign_in::SignInMethod::Person { way: PersonFlow::DeviceCode, tenant, client }
            }
            Auth::ManagedIdentity => sign_in::SignInMethod::ManagedIdentity { client },
            Auth::AzureCli | Auth::Auto => sign_in::SignInMethod::AzureCli { tenant },
        })
    }
}

impl Settings {
    /// Whether `auto` has to look whether this is an Azure machine.
    #[must_use]
    pub fn is_undecided(&self, environment: &impl Fn(&str) -> Option<String>) -> bool {
        let there = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
        let secrets = &self.secrets;
        self.auth == Auth::Auto
            && secrets.access_token.is_none()
            && secrets.client_secret.is_none()
            && secrets.certificate.is_none()
            && !there("AZURE_FEDERATED_TOKEN_FILE")
            && !there("IDENTITY_ENDPOINT")
    }
}

/// `--body` as letters know it.
#[must_use]
pub fn mode(body: Option<BodyArg>) -> Mode {
    match body {
        None | Some(BodyArg::Pass) => Mode::Pass,
        Some(BodyArg::Sealed) => Mode::Sealed,
        Some(BodyArg::Notice) => Mode::Notice,
    }
}

/// Nobody can be told who has a pass that is mailed to nobody.
pub fn news_of_a_pass(body: Mode, notice_to: &[To]) -> Result<(), SettingsError> {
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

/// A settings file, read.
#[derive(Default)]
struct Read {
    path: Option<PathBuf>,
    /// If nobody named it.
    found: Option<FoundSettings>,
    file: SettingsFile,
}

impl Read {
    fn file(named: Option<&Path>) -> Result<Self, SettingsError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let unreadable = |why: String| SettingsError::Unreadable { path: path.to_owned(), why };
        let failed = |error: std::io::Error| unreadable(error.to_string());
        // One that was merely found may be a pipe, which nobody should wait for.
        let about = named.is_none().then(|| path.metadata()).and_then(Result::ok);
        if about.is_some_and(|about| !about.is_file()) {
            return Err(unreadable("it is no regular file".to_owned()));
        }
        let opened = match File::open(path) {
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            opened => opened.map_err(failed)?,
        };
        let about = opened.metadata().map_err(failed)?;
        // A device, such as the one that is always empty, is the system's.
        let changeable = about.is_file().then(|| trust::others_may_change(path, &about));
        if let Some(why) = changeable.flatten() {
            return Err(SettingsError::NotOurs { path: path.to_owned(), why });
        }
        let bytes = read_bounded(opened).map_err(failed)?;
        let bytes = bytes.ok_or_else(|| unreadable("it is too large for settings".to_owned()))?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| unreadable("it is not UTF-8".to_owned()))?;
        let file: SettingsFile = toml::from_str(text).map_err(|error| SettingsError::File {
            path: path.to_owned(),
            why: unquoted(text, &error),
        })?;
        let file = SettingsFile::based(file, path.parent().unwrap_or(Path::new("")));
        let found = match named {
            Some(_) => None,
            None => Some(FoundSettings::of(path, text).map_err(failed)?),
        };
        Ok(Self { path: Some(path.to_owned()), found, file })
    }
}

/// Joins values by precedence and remembers where each came from.
struct Joined<'a, E> {
    environment: &'a E,
    known: Vec<EffectiveSetting>,
}

impl<E: Fn(&str) -> Option<String>> Joined<'_, E> {
    fn note(&mut self, name: &'static str, value: Option<String>, from: SettingOrigin) {
        let from = if value.is_some() { from } else { SettingOrigin::Default };
        self.known.push(EffectiveSetting { name, value, from });
    }

    /// An empty variable counts as none, as everywhere in Azure's tools.
    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    fn value<T>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        file: Option<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        let from = if flag.is_some() { SettingOrigin::Flag } else { SettingOrigin::File };
        let value = flag.or(file);
        self.note(name, value.as_ref().map(show), from);
        value
    }

    fn text(
        &mut self,
        name: &'static str,
        flag: Option<&String>,
        variable: &str,
        file: Option<String>,
    ) -> Option<String> {
        let variable = self.variable(variable);
        let from = match (flag, &variable) {
            (Some(_), _) => SettingOrigin::Flag,
            (None, Some(_)) => SettingOrigin::Environment,
            (None, None) => SettingOrigin::File,
        };
        let value = flag.cloned().or(variable).or(file);
        self.note(name, value.clone(), from);
        value
    }

    fn word<T: clap::ValueEnum>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        file: Option<&str>,
    ) -> Result<Option<T>, SettingsError> {
        let spelt = |value: &T| {
            value.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
        };
        let file = choice(name, file)?;
        Ok(self.value(name, flag, file, spelt))
    }

    fn list(&mut self, name: &'static str, values: &[String]) {
        let value = (!values.is_empty()).then(|| values.join(", "));
        self.note(name, value, SettingOrigin::File);
    }

    /// Cloud, Graph and authority. A flag wins over what names the same thing elsewhere, be
    /// it by URL or by cloud.
    fn places(
        &mut self,
        flags: &Common,
        file: &SettingsFile,
    ) -> Result<(Option<BaseUrl>, Option<BaseUrl>), SettingsError> {
        let filed = choice("cloud", file.cloud.as_deref())?;
        let cloud = self.word("cloud", flags.cloud, file.cloud.as_deref())?;
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
            (self.variable("AZURE_AUTHORITY_HOST").map(with_scheme), SettingOrigin::Environment),
            (file.authority_url.clone(), SettingOrigin::File),
            (filed.map(authority), SettingOrigin::File),
        ]);
        let mut parsed = |name, found: Option<(String, SettingOrigin)>, parse: ParseUrl| {
            let (url, from) =
                found.map_or((None, SettingOrigin::Default), |(url, from)| (Some(url), from));
            self.note(name, url.clone(), from);
            url.as_deref().map(parse).transpose()
        };
        let graph = parsed("graph_url", graph, BaseUrl::parse_graph)?;
        Ok((graph, parsed("authority_url", place, BaseUrl::parse)?))
    }

    /// Where every secret of the sign-in would come from.
    fn secrets(&mut self, file: &SettingsFile) -> Result<Secrets, SettingsError> {
        Ok(Secrets {
            access_token: self.secret("access_token", "TAPWAVE_ACCESS_TOKEN", None, None)?,
            client_secret: self.secret(
                "client_secret",
                "AZURE_CLIENT_SECRET",
                file.client_secret_file.clone(),
                file.client_secret_command.clone(),
            )?,
            certificate: self
                .text(
                    "client_certificate",
                    None,
                    "AZURE_CLIENT_CERTIFICATE_PATH",
                    file.client_certificate.as_ref().map(|path| path.display().to_string()),
                )
                .map(PathBuf::from),
            certificate_password: self.secret(
                "client_certificate_password",
                "AZURE_CLIENT_CERTIFICATE_PASSWORD",
                file.client_certificate_password_file.clone(),
                file.client_certificate_password_command.clone(),
            )?,
        })
    }

    fn secret(
        &mut self,
        name: &'static str,
        variable: &'static str,
        file: Option<PathBuf>,
        command: Option<Vec<String>>,
    ) -> Result<Option<SecretSource>, SettingsError> {
        let (source, from) = if self.variable(variable).is_some() {
            (Some(SecretSource::Variable(variable)), SettingOrigin::Environment)
        } else {
            (SecretSource::of(name, file, command)?, SettingOrigin::File)
        };
        self.note(name, source.as_ref().map(|_| "set".to_owned()), from);
        Ok(source)
    }
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

/// Where and why a text is no settings file. Never quotes a line of it, nor a value: they may hold
/// a secret.
fn unquoted(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let begun = before.rsplit('\n').next().unwrap_or_default();
    let column = begun.chars().count() + 1;
    let is_name = |key: &&str| key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let key = begun.split_once('=').map(|(key, _)| key.trim()).filter(is_name);
    let key = key.map(|key| format!(", {key}")).unwrap_or_default();
    // A key of before goes on working, and is proposed to nobody.
    let message = &error.message().replace("`fence`, ", "");
    let near = near_match(message);
    // The parser names the value that it found before what it had expected.
    let expected = message.rfind(", expected ").map(|at| &message[at + 2..]);
    let why = match expected {
        Some(expected) if message.starts_with("invalid ") => {
            format!("a value of the wrong kind, {expected}")
        }
        Some(expected) if message.starts_with("unknown variant ") => {
            format!("an unknown word, {expected}")
        }
        _ => message.to_owned(),
    };
    format!("line {line}, column {column}{key}: {}{near}", tapwave_core::shown::plain(&why))
}

/// `; did you mean …?` for an unknown key, out of the keys that the parser expected.
fn near_match(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted.next().filter(|_| message.starts_with("unknown field")) else {
        return String::new();
    };
    let near = quoted.map(|known| (strsim::damerau_levenshtein(unknown, known), known));
    match near.min().filter(|(distance, _)| *distance <= limits::NEAR_KEY) {
        Some((_, known)) => format!("; did you mean {known}?"),
        None => String::new(),
    }
}

/// A word of the file as the flag of the same name takes it.
fn choice<T: clap::ValueEnum>(
    name: &'static str,
    word: Option<&str>,
) -> Result<Option<T>, SettingsError> {
    word.map(|word| {
        T::from_str(word, true).map_err(|_| SettingsError::Value {
            name,
            value: word.to_owned(),
            remedy: "tapwave help run lists the words it may be",
        })
    })
    .transpose()
}

const fn origin(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Global => "https://graph.microsoft.com",
        Cloud::Usgov => "https://graph.microsoft.us",
        Cloud::UsgovDod => "https://dod-graph.microsoft.us",
        Cloud::China => "https://microsoftgraph.chinacloudapi.cn",
    }
}

fn pace(in_flight: Option<usize>, rate: Option<f64>) -> Result<LimiterOptions, SettingsError> {
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
        let settings = |told: Option<(u64, bool)>| {
            let none = Settings::load(&Common::default(), &|_: &str| None).expect("settings");
            let settle_after = told.map(|(millis, _)| Duration::from_millis(millis));
            let fence_by_flag = told.is_some_and(|(_, by_flag)| by_flag);
            Settings { settle_after, settle_after_by_flag: fence_by_flag, ..none }
        };
        for (begun, told, rules) in [
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
            let begun = settings(Some(begun)).options(&WaveArgs::default()).expect("options");
            let settle_after = settings(told).settle_after_of(&begun);
            assert_eq!(settle_after, Duration::from_millis(rules), "{begun:?}, {told:?}");
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
            let told = Settings::load(&flags, &|_: &str| None).expect_err("a password");
            let told = told.to_string();
            assert!(told.contains(flag) && !told.contains("hunter2"), "{told}");
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

    #[test]
    fn an_unknown_key_is_an_error() {
        let wrong =
            toml::from_str::<SettingsFile>("tennant = 'contoso.example'").expect_err("a typo");
        assert!(wrong.to_string().contains("tennant"), "{wrong}");
        assert_eq!(near_match(wrong.message()), "; did you mean tenant?");
        let far = toml::from_str::<SettingsFile>("zzzzzzzz = 1").expect_err("no key");
        assert_eq!(near_match(far.message()), "");
    }
}
