//! Promises that a command which is told to people works when it is pasted: the run it means is
//! named, and what of this command's own options it needs is said again. Must never repeat an
//! option that only this command has use for.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::Common;
use crate::ledger::{Registry, RunFolder};
use crate::shown::shell_word;

/// A run as it is typed in commands.
#[derive(Debug)]
pub(super) struct Typed {
    run: String,
    options: String,
}

impl Typed {
    /// By its path alone where nobody knows what runs there are.
    pub(super) fn new(folder: &RunFolder, registry: Option<&Registry>, common: &Common) -> Self {
        let run = registry.map_or_else(
            || folder.path().display().to_string(),
            |registry| registry.word_for(folder),
        );
        Self { run: shell_word(&run), options: options(common) }
    }

    pub(super) fn resume(&self) -> String {
        self.online("resume", "")
    }

    pub(super) fn cleanup(&self) -> String {
        self.online("cleanup", "")
    }

    /// `more` begins with a blank, or is empty.
    pub(super) fn deliver(&self, more: &str) -> String {
        self.online("deliver", more)
    }

    /// What Graph says of every row.
    pub(super) fn live_status(&self) -> String {
        self.online("status", " --live")
    }

    /// What the ledger says of every row; needs no settings and no sign-in.
    pub(super) fn status(&self) -> String {
        format!("tapwave status {}", self.run)
    }

    /// The recipient's side, which needs no settings either.
    pub(super) fn open(&self) -> String {
        format!("tapwave open {} -i IDENTITY", self.run)
    }

    fn online(&self, verb: &str, more: &str) -> String {
        format!("tapwave {verb} {}{more}{}", self.run, self.options)
    }
}

/// The options of this command without which another one would read other settings or sign in
/// elsewhere, as they are typed; each begins with a blank. The address of Graph is not among
/// them: a run remembers it.
pub(super) fn options(common: &Common) -> String {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|it| it.display().to_string());
    [
        ("--config", path(&common.config)),
        ("--tenant", common.tenant.clone()),
        ("--auth", common.auth.as_ref().and_then(word)),
        ("--client-id", common.client_id.clone()),
        ("--cloud", common.cloud.as_ref().and_then(word)),
        ("--authority-url", common.authority_url.clone()),
        ("--ca-file", path(&common.ca_file)),
        ("--proxy", common.proxy.clone()),
    ]
    .into_iter()
    .filter_map(|(flag, value)| Some(format!(" {flag} {}", shell_word(&value?))))
    .collect()
}

/// Identity files as they are typed; each begins with a blank.
pub(super) fn identities(paths: &[PathBuf]) -> String {
    let typed =
        paths.iter().map(|path| [" -i ", &shell_word(&path.display().to_string())].concat());
    typed.collect()
}

fn word<T: ValueEnum>(value: &T) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_needs_is_said_again_and_nothing_else() {
        let common = Common {
            config: Some("my settings.toml".into()),
            auth: Some(crate::cli::Auth::DeviceCode),
            graph_url: Some("https://graph.microsoft.us".to_owned()),
            fence: Some("10m".to_owned()),
            json: true,
            yes: true,
            ..Common::default()
        };
        let quoted = shell_word("my settings.toml");
        assert_eq!(options(&common), format!(" --config {quoted} --auth device-code"));
        let run = Typed { run: "wave".to_owned(), options: options(&common) };
        assert_eq!(run.status(), "tapwave status wave");
        let live = format!("tapwave status wave --live --config {quoted} --auth device-code");
        assert_eq!(run.live_status(), live);
    }
}
