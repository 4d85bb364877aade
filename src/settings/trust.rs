//! Promises that a settings file which was merely found in the current folder decides whom to
//! trust only as its reader has once seen it: by its path and the digest of its bytes. Must never
//! take a file that others may change for its reader's own.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ledger::{FolderError, private_home};
use crate::shown;

/// Files that were trusted: a digest and a path in each line.
const TRUSTED: &str = "trusted";
/// What decides where tokens, secrets and passes go, or runs a program. The rest of a file may
/// come from anybody who may write to the folder.
const STEERING: [&str; 10] = [
    "graph_url",
    "authority_url",
    "ca_file",
    "proxy",
    "client_secret_command",
    "client_certificate_password_command",
    "default_recipients",
    "break_glass",
    "recipients",
    "mail",
];

/// A settings file that nobody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its absolute path.
    pub path: PathBuf,
    digest: String,
    /// What of it decides whom to trust, each as it is written; logins in addresses left out.
    pub steers: Vec<String>,
}

impl Found {
    /// `text` is what was read and is about to be obeyed.
    pub(super) fn of(path: &Path, text: &str) -> io::Result<Self> {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        let mut steers = Vec::new();
        for key in STEERING {
            if let Some(value) = table.get(key) {
                spell(key, value, &mut steers);
            }
        }
        let digest = shown::hex(&Sha256::digest(text));
        Ok(Self { path: path.canonicalize()?, digest, steers })
    }

    fn line(&self) -> Option<String> {
        let path = self.path.to_str().filter(|path| !path.contains(['\n', '\r']))?;
        Some(format!("{} {path}", self.digest))
    }

    /// Whether it needs no word of its reader's: it steers nothing, or is trusted as it is now.
    #[must_use]
    pub fn is_trusted(&self, home: &Path) -> bool {
        let Some(line) = self.line() else { return self.steers.is_empty() };
        self.steers.is_empty() || trusted(home).lines().any(|known| known == line)
    }

    /// Remembers it as it is now, in place of what was trusted at this path before.
    ///
    /// # Errors
    /// If the note cannot be written.
    pub fn trust(&self, home: &Path) -> Result<(), FolderError> {
        let failed = |source| FolderError::Io { doing: "write", path: home.join(TRUSTED), source };
        let line = self.line().ok_or_else(|| {
            failed(io::Error::other("the path of the settings file is no plain line of text"))
        })?;
        private_home(home)?;
        let path = line.split_once(' ').map_or("", |(_, path)| path);
        let known = trusted(home);
        let others =
            known.lines().filter(|known| known.split_once(' ').is_none_or(|one| one.1 != path));
        let mut lines: Vec<&str> = others.collect();
        lines.extend([line.as_str(), ""]);
        let text = lines.join("\n");
        let write = || {
            // For its owner alone, and whole or not at all.
            let mut file = tempfile::NamedTempFile::new_in(home)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(home.join(TRUSTED)).map_err(|error| error.error)
        };
        write().map(drop).map_err(failed)
    }
}

/// A note that is not there, or cannot be read, trusts nothing.
fn trusted(home: &Path) -> String {
    std::fs::read_to_string(home.join(TRUSTED)).unwrap_or_default()
}

fn spell(name: &str, value: &toml::Value, into: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                spell(&format!("{name}.{key}"), value, into);
            }
        }
        toml::Value::String(text) if text.contains("://") => {
            into.push(format!("{name} = {:?}", crate::graph::http::without_login(text)));
        }
        value => into.push(format!("{name} = {value}")),
    }
}

/// Who else may change a file, if anybody: whoever owns it is its reader or the system, and
/// nobody else may write to it.
///
/// On Windows this is not asked: what decides whom to trust is trusted by its digest there too,
/// and a change of it is asked about again.
#[cfg(unix)]
pub(super) fn others_may_change(about: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (owner, mode) = (about.uid(), about.mode() & 0o777);
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return Some(format!("it belongs to another user ({owner})"));
    }
    (mode & 0o022 != 0).then(|| format!("others may write to it (mode {mode:03o})"))
}

#[cfg(not(unix))]
pub(super) fn others_may_change(_: &std::fs::Metadata) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_told_and_trusted_as_it_is() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("tapwave.toml");
        let text = "tenant = \"t\"\nproxy = \"http://ada:secret@proxy:80\"\n[recipients]\nlead = \"age1x\"\n[mail]\nhost = \"relay\"\nport = 25\n";
        std::fs::write(&path, text).expect("written");
        let found = Found::of(&path, text).expect("found");
        assert_eq!(
            found.steers,
            [
                "proxy = \"…@proxy:80\"",
                "recipients.lead = \"age1x\"",
                "mail.host = \"relay\"",
                "mail.port = 25"
            ]
        );
        let data = home.path().join("data");
        assert!(!found.is_trusted(&data));
        found.trust(&data).expect("noted");
        assert!(found.is_trusted(&data));
        let changed = Found::of(&path, &format!("{text}# changed")).expect("found");
        assert!(!changed.is_trusted(&data));
        changed.trust(&data).expect("noted");
        assert!(changed.is_trusted(&data) && !found.is_trusted(&data), "one for each path");
        let harmless = Found::of(&path, "tenant = \"t\"").expect("found");
        assert!(harmless.is_trusted(Path::new("/nowhere")));
    }
}
