//! Promises one validated value out of flags, environment and tapwave.toml, in that order of
//! precedence.
//!
//! What comes out needs no further check of form. Secrets are read from the environment
//! alone and are never shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Deserialize;

use crate::auth;
use crate::cli::{Auth, Cloud, Common, ExistingArg, WaveArgs};
use crate::graph::http::{BaseUrl, Network, NetworkError};
use crate::ledger::{Existing, Options};
use crate::limits;
use crate::pace::PaceOptions;

/// The settings file that is read when it is there and none is named.
const DEFAULT_FILE: &str = "tapwave.toml";

/// Everything the commands share.
#[derive(Debug)]
pub struct Settings {
    /// Graph's origin, without `/v1.0`, if it was named by URL or by cloud.
    pub graph: Option<BaseUrl>,
    /// Proxy and certificate authorities.
    pub network: Network,
    /// The tenant, if one was named.
    pub tenant: Option<String>,
    /// How to sign in.
    pub auth: Auth,
    /// The application's id, if one was named.
    pub client_id: Option<String>,
    /// Bounds of the limiter.
    pub pace: PaceOptions,
    /// How long a lost POST may still execute.
    pub fence: Duration,
    /// Labels of the settings file.
    pub labels: BTreeMap<String, Vec<String>>,
    /// Who may read every pass.
    pub break_glass: Vec<String>,
    /// Who may read passes of rows that name nobody, when no `-r` or `-R` is given.
    pub recipients: Vec<String>,
    /// Zone of starts without an offset.
    pub time_zone: Option<TimeZone>,
    /// The file that was read, for people.
    pub file: Option<PathBuf>,
    defaults: WaveDefaults,
}

/// What of a wave's options the file may set.
#[derive(Debug, Default)]
struct WaveDefaults {
    lifetime: Option<u32>,
    one_time: Option<bool>,
    groups: Vec<String>,
}

/// Why the settings cannot be used. Exit 2.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("failed to read the settings file {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is no TOML, or has an unknown key or a value of the wrong kind.
    #[error("failed to understand the settings file {path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        why: String,
    },
    /// A value out of its bounds.
    #[error("{name} cannot be {value}: {remedy}")]
    Value {
        /// The flag or key.
        name: &'static str,
        /// As given.
        value: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// An address.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A secret that is not there.
    #[error("--auth {method} needs {variable}; set it in the environment")]
    Missing {
        /// The way to sign in.
        method: &'static str,
        /// The variable or flag.
        variable: &'static str,
    },
    /// A proxy's user and password on the command line, where others can read them and the
    /// run's `ledger.holder` would keep them. Not quoted.
    #[error("--proxy cannot hold a user or a password; set HTTPS_PROXY, or proxy in tapwave.toml")]
    LoginInFlag,
    /// A recipients file.
    #[error(transparent)]
    Recipients(#[from] crate::vault::BadRecipientFile),
}

/// tapwave.toml. Unknown keys are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    tenant: Option<String>,
    cloud: Option<String>,
    auth: Option<String>,
    client_id: Option<String>,
    graph_url: Option<String>,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    max_in_flight: Option<usize>,
    max_rate: Option<f64>,
    fence: Option<String>,
    time_zone: Option<String>,
    lifetime: Option<u32>,
    one_time: Option<bool>,
    groups: Vec<String>,
    default_recipients: OneOrMany,
    break_glass: OneOrMany,
    recipients: BTreeMap<String, OneOrMany>,
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
    /// Joins the flags (which clap has joined with the environment) and the file.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn load(flags: &Common) -> Result<Self, SettingsError> {
        let (path, file) = read_file(flags.config.as_deref())?;
        let cloud = match flags.cloud {
            Some(cloud) => Some(cloud),
            None => choice("cloud", file.cloud.as_deref())?,
        };
        let auth = match flags.auth {
            Some(auth) => auth,
            None => choice("auth", file.auth.as_deref())?.unwrap_or(Auth::Auto),
        };
        let graph = flags.graph_url.as_deref().or(file.graph_url.as_deref());
        let graph = graph.or(cloud.map(origin)).map(BaseUrl::parse).transpose()?;
        let zone = file.time_zone.as_deref().map(time_zone).transpose()?;
        if flags.proxy.as_ref().is_some_and(|url| url.contains('@')) {
            return Err(SettingsError::LoginInFlag);
        }
        let recipients = file.recipients.into_iter();
        Ok(Self {
            graph,
            network: Network {
                ca_file: flags.ca_file.clone().or(file.ca_file),
                proxy: flags.proxy.clone().or(file.proxy),
            },
            tenant: flags.tenant.clone().or(file.tenant),
            auth,
            client_id: flags.client_id.clone().or(file.client_id),
            pace: pace(
                flags.max_in_flight.or(file.max_in_flight),
                flags.max_rate.or(file.max_rate),
            )?,
            fence: fence(flags.fence.as_deref().or(file.fence.as_deref()))?,
            labels: recipients.map(|(label, keys)| (label, keys.into())).collect(),
            break_glass: file.break_glass.into(),
            recipients: file.default_recipients.into(),
            time_zone: zone,
            file: path,
            defaults: WaveDefaults {
                lifetime: file.lifetime,
                one_time: file.one_time,
                groups: file.groups,
            },
        })
    }

    /// Graph's origin: the one named, else the global cloud's.
    #[must_use]
    pub fn graph_or_global(&self) -> BaseUrl {
        self.graph.clone().unwrap_or_else(BaseUrl::global)
    }

    /// The zone of starts without an offset: the flag's, else the file's.
    ///
    /// # Errors
    /// [`SettingsError::Value`] for a name that is no IANA zone.
    pub fn zone(&self, want: &WaveArgs) -> Result<Option<TimeZone>, SettingsError> {
        match want.time_zone.as_deref() {
            Some(name) => time_zone(name).map(Some),
            None => Ok(self.time_zone.clone()),
        }
    }

    /// The options that a run keeps in its ledger.
    ///
    /// # Errors
    /// [`SettingsError::Value`]
    pub fn options(&self, want: &WaveArgs) -> Result<Options, SettingsError> {
        let lifetime = want.lifetime.or(self.defaults.lifetime);
        if let Some(minutes) = lifetime.filter(|one| !limits::LIFETIME_MINUTES.contains(one)) {
            return Err(SettingsError::Value {
                name: "--lifetime",
                value: minutes.to_string(),
                remedy: "give 10 to 43200 minutes",
            });
        }
        let zone = self.zone(want)?;
        let groups =
            if want.groups.is_empty() { self.defaults.groups.clone() } else { want.groups.clone() };
        Ok(Options {
            lifetime_minutes: lifetime,
            start: want.start.as_deref().map(|text| start(text, zone.as_ref())).transpose()?,
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
            fence_seconds: self.fence.as_secs(),
        })
    }

    /// Labels and keys of those who read rows that name nobody.
    ///
    /// # Errors
    /// [`SettingsError::Recipients`] for a file that cannot be used.
    pub fn default_recipients(&self, want: &WaveArgs) -> Result<Vec<String>, SettingsError> {
        let mut recipients = want.recipients.clone();
        for path in &want.recipient_files {
            let found = crate::vault::read_recipient_file(path)?;
            recipients.extend(found.iter().map(|recipient| recipient.as_str().to_owned()));
        }
        Ok(if recipients.is_empty() { self.recipients.clone() } else { recipients })
    }

    /// How to sign in, with the secrets from the environment. `auto` takes the first that
    /// the environment offers.
    ///
    /// # Errors
    /// [`SettingsError::Missing`]
    pub fn sign_in(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<auth::Method, SettingsError> {
        let there = |name: &str| environment(name).filter(|value| !value.is_empty());
        let auth = match self.auth {
            Auth::Auto if there("TAPWAVE_ACCESS_TOKEN").is_some() => Auth::Token,
            Auth::Auto if there("AZURE_CLIENT_SECRET").is_some() => Auth::ClientSecret,
            Auth::Auto if there("AZURE_FEDERATED_TOKEN_FILE").is_some() => Auth::WorkloadIdentity,
            Auth::Auto if there("IDENTITY_ENDPOINT").is_some() => Auth::ManagedIdentity,
            Auth::Auto => Auth::AzureCli,
            chosen => chosen,
        };
        let tenant = self.tenant.clone();
        let client = self.client_id.clone();
        let missing = |method, variable| SettingsError::Missing { method, variable };
        Ok(match auth {
            Auth::Token => auth::Method::Token(
                there("TAPWAVE_ACCESS_TOKEN")
                    .map(SecretString::from)
                    .ok_or_else(|| missing("token", "TAPWAVE_ACCESS_TOKEN"))?,
            ),
            Auth::ClientSecret => auth::Method::ClientSecret {
                tenant: tenant
                    .ok_or_else(|| missing("client-secret", "--tenant or AZURE_TENANT_ID"))?,
                client: client
                    .ok_or_else(|| missing("client-secret", "--client-id or AZURE_CLIENT_ID"))?,
                secret: there("AZURE_CLIENT_SECRET")
                    .map(SecretString::from)
                    .ok_or_else(|| missing("client-secret", "AZURE_CLIENT_SECRET"))?,
            },
            Auth::WorkloadIdentity => auth::Method::WorkloadIdentity {
                tenant,
                client,
                token_file: there("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            },
            Auth::ManagedIdentity => auth::Method::ManagedIdentity { client },
            Auth::AzureCli | Auth::Auto => auth::Method::AzureCli { tenant },
        })
    }
}

fn read_file(named: Option<&Path>) -> Result<(Option<PathBuf>, Written), SettingsError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let unreadable = |why: String| SettingsError::Unreadable { path: path.to_owned(), why };
    let text = match std::fs::metadata(path) {
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((None, Written::default()));
        }
        Err(error) => return Err(unreadable(error.to_string())),
        Ok(about) if about.len() > limits::MAX_SETTINGS_BYTES => {
            return Err(unreadable("it is too large for a settings file".to_owned()));
        }
        Ok(_) => std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?,
    };
    let file = toml::from_str(&text).map_err(|error| SettingsError::File {
        path: path.to_owned(),
        why: error.to_string().trim_end().to_owned(),
    })?;
    Ok((Some(path.to_owned()), file))
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
            remedy: "tapwave --help lists the words it may be",
        })
    })
    .transpose()
}

const fn origin(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Global => "https://graph.microsoft.com",
        Cloud::Usgov => "https://graph.microsoft.us",
        Cloud::UsgovDod => "https://dod-graph.microsoft.us",
    }
}

fn pace(in_flight: Option<usize>, rate: Option<f64>) -> Result<PaceOptions, SettingsError> {
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
    Ok(PaceOptions { max_in_flight, max_rate: rate })
}

fn fence(text: Option<&str>) -> Result<Duration, SettingsError> {
    let Some(text) = text else { return Ok(limits::DEFAULT_FENCE) };
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|fence| Duration::try_from(fence).ok())
        .filter(|fence| *fence <= Duration::from_hours(24))
        .ok_or_else(|| SettingsError::Value {
            name: "--fence",
            value: text.to_owned(),
            remedy: "give a duration such as 5m or 90s, at most 24h",
        })
}

fn time_zone(name: &str) -> Result<TimeZone, SettingsError> {
    TimeZone::get(name).map_err(|_| SettingsError::Value {
        name: "--time-zone",
        value: name.to_owned(),
        remedy: "give an IANA name such as Europe/Berlin",
    })
}

/// A time with an offset, or a local one in the zone.
fn start(text: &str, zone: Option<&TimeZone>) -> Result<Timestamp, SettingsError> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let value = |remedy| SettingsError::Value { name: "--start", value: text.to_owned(), remedy };
    let local = text
        .parse::<jiff::civil::DateTime>()
        .map_err(|_| value("give a time such as 2027-03-01T08:00+01:00"))?;
    let zone =
        zone.ok_or_else(|| value("add an offset such as +01:00 or Z, or give --time-zone"))?;
    zone.to_ambiguous_timestamp(local)
        .unambiguous()
        .map_err(|_| value("the clocks change at that time; give it with an offset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_never_guessed() {
        let berlin = time_zone("Europe/Berlin").expect("a zone");
        let moment = |text: &str, zone| start(text, zone).ok().map(|at| at.to_string());
        let summer = "2027-07-01T08:00";
        assert_eq!(moment(summer, Some(&berlin)).as_deref(), Some("2027-07-01T06:00:00Z"));
        assert_eq!(moment("2027-07-01T08:00+05:00", None).as_deref(), Some("2027-07-01T03:00:00Z"));
        assert_eq!(moment(summer, None), None);
        assert_eq!(moment("2027-03-28T02:30", Some(&berlin)), None, "a gap");
        assert_eq!(moment("2027-10-31T02:30", Some(&berlin)), None, "a fold");
        assert_eq!(moment("01/07/2027", Some(&berlin)), None);
    }

    #[test]
    fn a_fence_is_a_duration() {
        assert_eq!(fence(None).ok(), Some(limits::DEFAULT_FENCE));
        assert_eq!(fence(Some("90s")).ok(), Some(Duration::from_secs(90)));
        assert_eq!(fence(Some("1h 30m")).ok(), Some(Duration::from_mins(90)));
        for bad in ["", "-5m", "five", "2d", "90"] {
            assert!(fence(Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_password_comes_from_the_command_line() {
        let proxy = Some("http://ada:hunter2@proxy.contoso.example:8080".to_owned());
        let flags = Common { proxy, ..Common::default() };
        let told = Settings::load(&flags).expect_err("a password").to_string();
        assert!(told.contains("--proxy") && !told.contains("hunter2"), "{told}");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let wrong = toml::from_str::<Written>("tennant = 'contoso.example'").expect_err("a typo");
        assert!(wrong.to_string().contains("tennant"), "{wrong}");
    }
}
