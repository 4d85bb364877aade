//! Promises that `[mail]` of tapwave.toml is read strictly: the result is valid, or the error names
//! the key to change. Must never hold a secret, only its place.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use super::secret::{Credentials, NoSecret, SecretFrom, parse_secret};
use crate::template::{BadMailbox, Mailbox};
use tapwave_core::limits;

/// `[mail]` as written. Unknown keys are errors.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailSettings {
    /// `smtp` or `graph`.
    pub courier: Option<TransportKind>,
    /// The sender: an address, or a name and an address.
    pub from: Option<String>,
    pub reply_to: Option<String>,
    pub host: Option<String>,
    /// Default: 587, with implicit TLS 465, without TLS 25.
    pub port: Option<u16>,
    /// `starttls` (required), `implicit`, or `none` to loopback.
    pub tls: Option<Tls>,
    /// Without it there is no sign-in.
    pub username: Option<String>,
    /// The environment variable that holds the password or token.
    pub password_env: Option<String>,
    /// The file that holds it.
    pub password_file: Option<PathBuf>,
    /// The command that prints it: a program, or a list of it and its arguments.
    pub password_command: Option<OneOrManyWords>,
    /// Default: `plain`, else `login`, whichever the relay offers.
    pub auth: Option<Mechanism>,
    pub max_per_minute: Option<u32>,
    /// Most connections to the relay, or requests to Graph, at once.
    pub max_connections: Option<usize>,
    /// A PEM file with a client certificate, those between it and its authority, and its key.
    pub client_certificate: Option<PathBuf>,
    /// The name in EHLO. Default: this machine's address.
    pub hello: Option<String>,
    /// Whom to call, as the mails say it.
    pub support: Option<String>,
}

/// The keys that do not concern a relay.
const FOR_GRAPH_TOO: [&str; 6] =
    ["courier", "from", "reply_to", "max_per_minute", "max_connections", "support"];

impl MailSettings {
    /// Applies these functions to the paths of files and to the command.
    #[must_use]
    pub fn based(
        self,
        file: impl Fn(Option<PathBuf>) -> Option<PathBuf>,
        program: impl Fn(Option<Vec<String>>) -> Option<Vec<String>>,
    ) -> Self {
        Self {
            password_file: file(self.password_file),
            password_command: program(self.password_command.map(OneOrManyWords::into_vec))
                .map(OneOrManyWords::Many),
            client_certificate: file(self.client_certificate),
            ..self
        }
    }

    /// The keys that are set, in order.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        self.set_keys().map(ToOwned::to_owned).collect()
    }

    fn set_keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("courier", self.courier.is_some()),
            ("from", self.from.is_some()),
            ("reply_to", self.reply_to.is_some()),
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("tls", self.tls.is_some()),
            ("username", self.username.is_some()),
            ("password_env", self.password_env.is_some()),
            ("password_file", self.password_file.is_some()),
            ("password_command", self.password_command.is_some()),
            ("auth", self.auth.is_some()),
            ("max_per_minute", self.max_per_minute.is_some()),
            ("max_connections", self.max_connections.is_some()),
            ("client_certificate", self.client_certificate.is_some()),
            ("hello", self.hello.is_some()),
            ("support", self.support.is_some()),
        ];
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    Smtp,
    Graph,
}

/// How the connection to a relay is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// TLS after STARTTLS, which is required.
    Starttls,
    /// TLS from the first byte.
    Implicit,
    /// No TLS; to this machine alone.
    None,
}

/// How to sign in at a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Older; Exchange Online still offers it.
    Login,
    Xoauth2,
}

impl Mechanism {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrManyWords {
    /// A program without arguments.
    One(String),
    /// A program and its arguments.
    Many(Vec<String>),
}

impl OneOrManyWords {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        }
    }
}

/// `[mail]`, validated.
#[derive(Debug, Clone)]
pub struct MailPlan {
    pub from: Mailbox,
    pub reply_to: Option<Mailbox>,
    pub support: Option<String>,
    pub max_per_minute: u32,
    /// Or requests to Graph at once.
    pub max_connections: usize,
    /// The relay; `None` means Graph.
    pub relay: Option<Relay>,
}

/// A relay and how to connect to it.
#[derive(Debug, Clone)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub sign_in: Option<RelaySignIn>,
    /// A PEM file with a client certificate, those between it and its authority, and its key.
    pub client_certificate: Option<PathBuf>,
    /// The name in EHLO. Default: this machine's address.
    pub hello: Option<String>,
}

#[derive(Debug, Clone)]
pub struct RelaySignIn {
    pub username: String,
    /// The first one that the relay offers is used.
    pub mechanisms: Vec<Mechanism>,
    pub secret: SecretPlace,
}

/// Where the secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    Variable(String),
    File(PathBuf),
    Command(Vec<String>),
}

/// What is wrong with `[mail]`. Exit 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailSettingsError {
    #[error("[mail] in tapwave.toml lacks {key}; add {example}")]
    Missing { key: &'static str, example: &'static str },
    #[error("[mail] {key} in tapwave.toml: the address {why}")]
    Address { key: &'static str, why: BadMailbox },
    #[error("[mail] {key} in tapwave.toml cannot be {value}; {remedy}")]
    Value { key: &'static str, value: String, remedy: &'static str },
    #[error("[mail] {key} in tapwave.toml has no meaning {beside}; remove it")]
    Pointless { key: &'static str, beside: &'static str },
    #[error(
        "[mail] in tapwave.toml names two places for the password; keep one of password_env, \
         password_file, password_command"
    )]
    TwoSecrets,
    #[error(
        "[mail] tls = \"none\" in tapwave.toml is for this machine alone, and {host} is not; use \
         \"starttls\" or \"implicit\""
    )]
    Unprotected { host: String },
}

impl MailSettings {
    /// Checks every value and fills in defaults. Reads no secret.
    pub fn validate(&self) -> Result<MailPlan, MailSettingsError> {
        let missing = |key, example| MailSettingsError::Missing { key, example };
        let kind = self.courier.ok_or_else(|| missing("courier", "courier = \"smtp\""))?;
        let from = self.from.as_deref();
        let from = from.ok_or_else(|| missing("from", "from = \"IT <it@contoso.example>\""))?;
        Ok(MailPlan {
            from: address("from", from)?,
            reply_to: self.reply_to.as_deref().map(|text| address("reply_to", text)).transpose()?,
            support: self.support.clone().filter(|text| !text.trim().is_empty()),
            max_per_minute: self.rate()?,
            max_connections: self.connections(kind)?,
            relay: match kind {
                TransportKind::Smtp => Some(self.relay()?),
                TransportKind::Graph => self.no_relay()?,
            },
        })
    }

    fn rate(&self) -> Result<u32, MailSettingsError> {
        let rate = self.max_per_minute.unwrap_or(limits::MAILS_PER_MINUTE);
        if !(1..=limits::MAX_MAILS_PER_MINUTE).contains(&rate) {
            return Err(MailSettingsError::Value {
                key: "max_per_minute",
                value: rate.to_string(),
                remedy: "give 1 to 60000",
            });
        }
        Ok(rate)
    }

    fn connections(&self, kind: TransportKind) -> Result<usize, MailSettingsError> {
        let (default, max, remedy) = match kind {
            TransportKind::Smtp => {
                (limits::MAIL_CONNECTIONS, limits::MAX_MAIL_CONNECTIONS, "give 1 to 100")
            }
            TransportKind::Graph => (limits::GRAPH_MAILS, limits::GRAPH_MAILS, "give 1 to 4"),
        };
        let connections = self.max_connections.unwrap_or(default);
        if !(1..=max).contains(&connections) {
            let value = connections.to_string();
            return Err(MailSettingsError::Value { key: "max_connections", value, remedy });
        }
        Ok(connections)
    }

    fn relay(&self) -> Result<Relay, MailSettingsError> {
        let host = self.host.as_deref().unwrap_or_default();
        if host.is_empty() {
            let example = "host = \"smtp.contoso.example\"";
            return Err(MailSettingsError::Missing { key: "host", example });
        }
        if host.chars().any(|c| !(c.is_ascii_alphanumeric() || ".-:".contains(c))) {
            return Err(MailSettingsError::Value {
                key: "host",
                value: format!("{host:?}"),
                remedy: "give a name such as smtp.contoso.example, without a port",
            });
        }
        let tls = self.tls.unwrap_or(Tls::Starttls);
        if tls == Tls::None && !is_loopback(host) {
            return Err(MailSettingsError::Unprotected { host: host.to_owned() });
        }
        if tls == Tls::None && self.client_certificate.is_some() {
            let (key, beside) = ("client_certificate", "beside tls = \"none\"");
            return Err(MailSettingsError::Pointless { key, beside });
        }
        let default_port = match tls {
            Tls::Starttls => 587,
            Tls::Implicit => 465,
            Tls::None => 25,
        };
        Ok(Relay {
            host: host.to_owned(),
            port: self.port.unwrap_or(default_port),
            tls,
            sign_in: self.sign_in()?,
            client_certificate: self.client_certificate.clone(),
            hello: self.hello_name()?,
        })
    }

    /// A host name, or an address in brackets; nothing that could end EHLO's line.
    fn hello_name(&self) -> Result<Option<String>, MailSettingsError> {
        let Some(hello) = &self.hello else { return Ok(None) };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
        if hello.is_empty() || hello.len() > limits::MAX_HOST_BYTES || !hello.chars().all(allowed) {
            return Err(MailSettingsError::Value {
                key: "hello",
                value: format!("{hello:?}"),
                remedy: "give this machine's full name, such as wave.contoso.example, or leave it out",
            });
        }
        Ok(Some(hello.clone()))
    }

    fn sign_in(&self) -> Result<Option<RelaySignIn>, MailSettingsError> {
        let command = self.password_command.clone().map(OneOrManyWords::into_vec);
        if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
            return Err(MailSettingsError::Value {
                key: "password_command",
                value: "empty".to_owned(),
                remedy: "give a program, or a list of it and its arguments",
            });
        }
        let mut places = [
            self.password_env.clone().map(SecretPlace::Variable),
            self.password_file.clone().map(SecretPlace::File),
            command.map(SecretPlace::Command),
        ]
        .into_iter()
        .flatten();
        let (secret, second) = (places.next(), places.next());
        if second.is_some() {
            return Err(MailSettingsError::TwoSecrets);
        }
        let pointless = |key| MailSettingsError::Pointless { key, beside: "without username" };
        let username = self.username.clone().filter(|name| !name.is_empty());
        match (username, secret) {
            (None, None) if self.auth.is_some() => Err(pointless("auth")),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(pointless("the password")),
            (Some(_), None) => Err(MailSettingsError::Missing {
                key: "the place of the password",
                example: "password_env = \"SMTP_PASSWORD\"",
            }),
            (Some(username), Some(secret)) => {
                if username.chars().any(char::is_control) {
                    return Err(MailSettingsError::Value {
                        key: "username",
                        value: format!("{username:?}"),
                        remedy: "give one line of text",
                    });
                }
                let mechanisms = self
                    .auth
                    .map_or_else(|| vec![Mechanism::Plain, Mechanism::Login], |one| vec![one]);
                Ok(Some(RelaySignIn { username, mechanisms, secret }))
            }
        }
    }

    /// Refuses keys of a relay, which would have no effect.
    fn no_relay(&self) -> Result<Option<Relay>, MailSettingsError> {
        match self.set_keys().find(|key| !FOR_GRAPH_TOO.contains(key)) {
            Some(key) => {
                Err(MailSettingsError::Pointless { key, beside: "beside courier = \"graph\"" })
            }
            None => Ok(None),
        }
    }
}

impl SecretPlace {
    /// The source that a transport asks for each connection. A variable is read now.
    pub fn source(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<Arc<dyn Credentials>, NoSecret> {
        Ok(Arc::new(match self {
            Self::Variable(name) => {
                let value = zeroize::Zeroizing::new(environment(name).unwrap_or_default());
                if value.is_empty() {
                    return Err(NoSecret::Variable(name.clone()));
                }
                let secret = parse_secret(value.as_bytes());
                SecretFrom::Variable(secret.ok_or_else(|| NoSecret::Shape(name.clone()))?)
            }
            Self::File(path) => SecretFrom::File(path.clone()),
            Self::Command(words) => SecretFrom::Command(words.clone()),
        }))
    }
}

/// Whether a name means this machine, without asking a name server.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn address(key: &'static str, text: &str) -> Result<Mailbox, MailSettingsError> {
    text.parse().map_err(|why| MailSettingsError::Address { key, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESIGNED: &str = r#"
        courier = "smtp"
        from = "IT Onboarding <onboarding@contoso.example>"
        host = "smtp.contoso.example"
        port = 587
        tls = "starttls"
        username = "onboarding"
        password_env = "SMTP_PASSWORD"
        max_per_minute = 30
        max_connections = 3
    "#;
    const GRAPH: &str = "courier = \"graph\"\nfrom = \"it@contoso.example\"\n";
    const LOCAL: &str = "courier = \"smtp\"\nfrom = \"it@contoso.example\"\nhost = \"localhost\"\n";

    fn written(text: &str) -> MailSettings {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn wrong(text: &str) -> String {
        written(text).validate().expect_err(text).to_string()
    }

    #[test]
    fn valid_settings_are_accepted() {
        let plan = written(DESIGNED).validate().expect("a plan");
        assert_eq!(plan.from.address(), "onboarding@contoso.example");
        assert_eq!((plan.max_per_minute, plan.max_connections), (30, 3));
        let relay = plan.relay.expect("a relay");
        assert_eq!((relay.host.as_str(), relay.port), ("smtp.contoso.example", 587));
        let sign_in = relay.sign_in.expect("a sign-in");
        assert_eq!(sign_in.mechanisms, [Mechanism::Plain, Mechanism::Login]);
        assert_eq!(sign_in.secret, SecretPlace::Variable("SMTP_PASSWORD".to_owned()));

        let plan = written(GRAPH).validate().expect("a plan");
        assert!(plan.relay.is_none());
        assert_eq!((plan.max_per_minute, plan.max_connections), (30, 4));
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (text, says) in [
            ("", "lacks courier"),
            ("courier = \"smtp\"", "lacks from"),
            ("courier = \"smtp\"\nfrom = \"it\"", "from in tapwave.toml: the address is not"),
            ("courier = \"smtp\"\nfrom = \"it@c.example\"", "lacks host"),
        ] {
            assert!(wrong(text).contains(says), "{text}: {}", wrong(text));
        }
        for (more, says) in [
            ("max_per_minute = 0", "max_per_minute in tapwave.toml cannot be 0"),
            ("max_connections = 1000", "max_connections"),
            ("reply_to = \"a@b\\r\\nBcc: c@d\"", "reply_to"),
            ("username = \"u\"", "lacks the place of the password"),
            ("password_env = \"P\"", "has no meaning without username"),
            ("auth = \"login\"", "auth in tapwave.toml has no meaning without username"),
            ("username = \"u\"\npassword_env = \"P\"\npassword_file = \"p\"", "two places"),
            ("username = \"u\"\npassword_command = []", "password_command"),
            ("tls = \"none\"\nclient_certificate = \"c.pem\"", "client_certificate"),
            ("hello = \"me\\r\\nMAIL FROM:<x@y>\"", "hello"),
            ("hello = \"\"", "hello"),
        ] {
            let text = format!("{LOCAL}{more}");
            assert!(wrong(&text).contains(says), "{text}: {}", wrong(&text));
        }
        for key in ["host = \"h\"", "tls = \"none\"", "username = \"u\"", "port = 1"] {
            assert!(wrong(&format!("{GRAPH}{key}")).contains("beside courier = \"graph\""));
        }
        assert!(toml::from_str::<MailSettings>("passwort_env = \"x\"").is_err());
        assert!(toml::from_str::<MailSettings>("tls = \"opportunistic\"").is_err());
        assert!(toml::from_str::<MailSettings>("password = \"secret\"").is_err());
    }

    #[test]
    fn no_tls_is_for_this_machine_alone() {
        let with = |host: &str| {
            let text = LOCAL.replace("localhost", host);
            written(&format!("{text}tls = \"none\"")).validate()
        };
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(with(host).is_ok(), "{host}");
        }
        for host in ["smtp.contoso.example", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1"]
        {
            assert!(matches!(with(host), Err(MailSettingsError::Unprotected { .. })), "{host}");
        }
        assert!(matches!(with("a b"), Err(MailSettingsError::Value { key: "host", .. })));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let place = SecretPlace::Variable("P".to_owned());
        let unset = place.source(&|_: &str| None).err();
        assert_eq!(unset, Some(NoSecret::Variable("P".to_owned())));
        let twice = place.source(&|_: &str| Some("a\nb".to_owned())).err();
        assert_eq!(twice, Some(NoSecret::Shape("P".to_owned())));
        assert!(place.source(&|_: &str| Some("secret".to_owned())).is_ok());
    }
}
