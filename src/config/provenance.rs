//! Promises each setting from the strongest place that has it, and where that was: a flag, then a
//! variable, then tapwave.toml.

use std::path::PathBuf;

use serde::Serialize;

use super::SettingsError;
use super::secret::SecretSource;

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

/// Joins values by precedence and remembers where each came from.
pub(super) struct Joined<'a, E> {
    pub(super) environment: &'a E,
    pub(super) known: Vec<EffectiveSetting>,
}

impl<E: Fn(&str) -> Option<String>> Joined<'_, E> {
    pub(super) fn note(&mut self, name: &'static str, value: Option<String>, from: SettingOrigin) {
        let from = if value.is_some() { from } else { SettingOrigin::Default };
        self.known.push(EffectiveSetting { name, value, from });
    }

    /// An empty variable counts as none, as everywhere in Azure's tools.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    pub(super) fn value<T>(
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

    pub(super) fn text(
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

    pub(super) fn word<T: clap::ValueEnum>(
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

    pub(super) fn list(&mut self, name: &'static str, values: &[String]) {
        let value = (!values.is_empty()).then(|| values.join(", "));
        self.note(name, value, SettingOrigin::File);
    }

    pub(super) fn secret(
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

/// A word of the file as the flag of the same name takes it.
pub(super) fn choice<T: clap::ValueEnum>(
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
