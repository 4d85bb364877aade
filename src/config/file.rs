//! Promises tapwave.toml as it was written: its keys, and nothing that they mean. Must never quote
//! a value in an error, since it may be a secret.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::SettingsError;
use super::trust::{self, FoundSettings};
use tapwave_core::clock::Minutes;
use tapwave_core::limits;
use tapwave_core::wiped::read_bounded;
use tapwave_mail::transport::settings::MailSettings;

/// The settings file that is read when it is there and none is named.
const DEFAULT_FILE: &str = "tapwave.toml";

/// tapwave.toml. Unknown keys are errors.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SettingsFile {
    pub(super) tenant: Option<String>,
    pub(super) cloud: Option<String>,
    pub(super) auth: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret_file: Option<PathBuf>,
    pub(super) client_secret_command: Option<Vec<String>>,
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_certificate_password_file: Option<PathBuf>,
    pub(super) client_certificate_password_command: Option<Vec<String>>,
    pub(super) graph_url: Option<String>,
    pub(super) authority_url: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) max_in_flight: Option<usize>,
    pub(super) max_rate: Option<f64>,
    #[serde(alias = "fence")]
    pub(super) settle_after: Option<String>,
    pub(super) time_zone: Option<String>,
    pub(super) lifetime: Option<Minutes>,
    pub(super) one_time: Option<bool>,
    pub(super) groups: Vec<String>,
    pub(super) default_recipients: OneOrMany,
    pub(super) break_glass: OneOrMany,
    pub(super) recipients: BTreeMap<String, OneOrMany>,
    pub(super) mail: MailSettings,
}

/// A text, or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub(super) enum OneOrMany {
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

/// A settings file, read.
#[derive(Default)]
pub(super) struct ReadFile {
    pub(super) path: Option<PathBuf>,
    /// If nobody named it.
    pub(super) found: Option<FoundSettings>,
    pub(super) file: SettingsFile,
}

impl ReadFile {
    /// The named file, or the one in the current folder if there is one.
    pub(super) fn read(named: Option<&Path>) -> Result<Self, SettingsError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
