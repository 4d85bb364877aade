//! Promises that a settings file which was merely found in the current folder decides whom to
//! trust only as its reader has once seen it: by its path and the digest of its bytes. Must never
//! take a file that others may change for its reader's own.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use tapwave_core::shown;
use tapwave_ledger::{FolderError, check_home, private_home};

/// Files that were trusted: a digest and a path in each line.
const TRUSTED: &str = "trusted";
/// What decides who can read the passes, who signs in, with which files, where tokens, secrets and
/// passes go, or which program runs, in the order in which it is told. The rest of a file may come
/// from anybody who may write to the folder.
const STEERING: [&str; 17] = [
    "default_recipients",
    "break_glass",
    "recipients",
    "tenant",
    "cloud",
    "auth",
    "client_id",
    "client_certificate",
    "client_secret_file",
    "client_certificate_password_file",
    "ca_file",
    "proxy",
    "graph_url",
    "authority_url",
    "mail",
    "client_secret_command",
    "client_certificate_password_command",
];
/// Those in which something that is there twice says no more.
const LISTS: [&str; 2] = ["default_recipients", "break_glass"];
/// Addresses, which may hold a login.
const ADDRESSES: [&str; 3] = ["proxy", "graph_url", "authority_url"];

/// A settings file that nobody named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSettings {
    pub path: PathBuf,
    digest: String,
    /// What of it decides whom to trust, each on a line that may be shown; logins in addresses left
    /// out.
    pub steers: Vec<String>,
}

impl FoundSettings {
    /// `text` is what was read and is about to be obeyed.
    pub(super) fn of(path: &Path, text: &str) -> io::Result<Self> {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        let mut steers = Vec::new();
        for key in STEERING {
            if let Some(value) = table.get(key) {
                spell(key, value, &mut steers);
            }
        }
        // What would run is what a reader sees last.
        let (commands, others): (Vec<String>, Vec<String>) =
            steers.into_iter().partition(|line| is_command(line));
        let steers = [others, commands].concat();
        let digest = shown::hex(&Sha256::digest(text));
        Ok(Self { path: std::path::absolute(path)?, digest, steers })
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

/// A note that is not there, cannot be read, or that others may change, trusts nothing.
fn trusted(home: &Path) -> String {
    let path = home.join(TRUSTED);
    // A data folder on Windows is its user's own by where it lies.
    let is_ours = path.symlink_metadata().is_ok_and(|about| {
        let ours = cfg!(windows) || others_may_change(&path, &about).is_none();
        !about.is_symlink() && ours
    });
    if !is_ours || check_home(home).is_err() {
        return String::new();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Spells a value out, each on one line. Nothing but a login is left out of it: of a path or a
/// command every word counts.
fn spell(name: &str, value: &toml::Value, into: &mut Vec<String>) {
    let toml::Value::Table(table) = value else {
        into.push(shown::escaped(&format!("{name} = {}", word(name, value))));
        return;
    };
    for (key, value) in table {
        spell(&format!("{name}.{key}"), value, into);
    }
}

fn is_command(line: &str) -> bool {
    line.split(" = ").next().is_some_and(|name| name.ends_with("_command"))
}

fn word(name: &str, value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) if ADDRESSES.contains(&name) => {
            format!("{:?}", tapwave_graph::http::without_login(text))
        }
        toml::Value::String(text) => format!("{text:?}"),
        toml::Value::Array(values) => {
            let mut words: Vec<String> = values.iter().map(|value| word(name, value)).collect();
            if LISTS.contains(&name) {
                // What is there a thousand times hides nothing else.
                let mut seen = BTreeSet::new();
                words.retain(|word| seen.insert(word.clone()));
            }
            format!("[{}]", words.join(", "))
        }
        value => value.to_string(),
    }
}

/// Who else may change a file, if anybody: whoever owns it is its reader or the system, and
/// nobody else may write to it.
#[cfg(unix)]
pub(super) fn others_may_change(_: &Path, about: &std::fs::Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let (owner, mode) = (about.uid(), about.mode() & 0o777);
    let own = rustix::process::geteuid().as_raw();
    if owner != own && owner != 0 {
        return Some(format!("it belongs to another user ({owner})"));
    }
    // A group of the user's own, in which nobody else is, has the user's number by convention.
    let is_own_group = owner == own && about.gid() == owner;
    let others = if is_own_group { 0o002 } else { 0o022 };
    (mode & others != 0).then(|| format!("others may write to it (mode {mode:03o})"))
}

/// The same by the file's access list. One that cannot be had says nothing: what decides whom to
/// trust is trusted by its digest all the same.
#[cfg(windows)]
pub(super) fn others_may_change(path: &Path, _: &std::fs::Metadata) -> Option<String> {
    let writer = access_list::foreign_writer(&access_list::saved(path)?, &access_list::own()?)?;
    Some(format!("others may write to it ({writer} in its access list)"))
}

#[cfg(not(any(unix, windows)))]
pub(super) fn others_may_change(_: &Path, _: &std::fs::Metadata) -> Option<String> {
    None
}

/// Access lists of Windows, as its own programs tell them: in SDDL, whose words are the same in
/// every language.
#[cfg(any(windows, test))]
mod access_list {
    /// Who may write and is trusted: SYSTEM, administrators, whoever owns or has made the file, and
    /// what installs Windows.
    const TRUSTED: [&str; 5] = ["SY", "BA", "OW", "CO", "S-1-3-4"];
    const INSTALLER: &str = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464";
    /// To write, append, set attributes or the list itself, take the file over or delete it; and
    /// the generic rights that bring these along.
    const WRITES: u32 = 0x2 | 0x4 | 0x10 | 0x100 | 0xD_0000 | 0x1000_0000 | 0x4000_0000;
    /// The same in letters.
    const WRITES_IN_LETTERS: [&str; 8] = ["FA", "FW", "GA", "GW", "WD", "WO", "SD", "DC"];

    /// The first who may write besides the trusted and `own`, a user's id such as S-1-5-21-….
    pub(super) fn foreign_writer(sddl: &str, own: &str) -> Option<String> {
        let list = sddl.split_once("D:")?.1;
        let list = list.split("S:").next().unwrap_or(list);
        let entries = list.split('(').skip(1).filter_map(|entry| entry.split(')').next());
        entries
            .filter_map(|entry| {
                let mut fields = entry.split(';');
                let (kind, flags, rights) = (fields.next()?, fields.next()?, fields.next()?);
                // Those that only what is made below inherits say nothing of this file.
                let counts = kind == "A" && !flags.contains("IO") && may_write(rights);
                counts.then(|| fields.nth(2)).flatten()
            })
            .find(|who| !TRUSTED.contains(who) && *who != INSTALLER && *who != own)
            .map(ToOwned::to_owned)
    }

    fn may_write(rights: &str) -> bool {
        match rights.strip_prefix("0x") {
            Some(mask) => u32::from_str_radix(mask, 16).is_ok_and(|mask| mask & WRITES != 0),
            None => rights
                .as_bytes()
                .chunks(2)
                .any(|two| WRITES_IN_LETTERS.iter().any(|word| word.as_bytes() == two)),
        }
    }

    /// A file's access list. `icacls` writes it into a file, in UTF-16.
    #[cfg(windows)]
    pub(super) fn saved(path: &std::path::Path) -> Option<String> {
        let folder = tempfile::tempdir().ok()?;
        let list = folder.path().join("list");
        let mut program = system_program("icacls.exe");
        program.arg(std::path::absolute(path).ok()?).arg("/save").arg(&list).arg("/Q");
        program.output().ok().filter(|done| done.status.success())?;
        let bytes = std::fs::read(list).ok()?;
        let (text, ..) = encoding_rs::UTF_16LE.decode(&bytes);
        Some(text.into_owned())
    }

    /// The id of the user whom this process runs as.
    #[cfg(windows)]
    pub(super) fn own() -> Option<String> {
        let mut program = system_program("whoami.exe");
        let output = program.args(["/user", "/fo", "csv", "/nh"]).output().ok()?;
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let own = output.trim().rsplit(',').next()?.trim_matches('"');
        own.starts_with("S-1-").then(|| own.to_owned())
    }

    /// By its full path, so that nothing on PATH can stand in for it.
    #[cfg(windows)]
    fn system_program(name: &str) -> std::process::Command {
        let system = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
        tapwave_core::programs::program(std::path::Path::new(&system).join("System32").join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_list_tells_who_else_may_write() {
        let own = "S-1-5-21-1-2-3-1001";
        let ours = format!("tapwave.toml\r\nD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;FA;;;{own})");
        let writer = |more: &str| access_list::foreign_writer(&format!("{ours}{more}"), own);
        assert_eq!(writer(""), None);
        assert_eq!(writer("(A;ID;0x1200a9;;;BU)(A;;FR;;;WD)"), None, "they may read");
        assert_eq!(writer("(A;OICIIO;FA;;;AU)"), None, "only what is made below");
        assert_eq!(writer("(D;;FA;;;WD)"), None, "denied");
        assert_eq!(writer("(A;ID;0x1301bf;;;AU)").as_deref(), Some("AU"), "may modify");
        assert_eq!(writer("(A;;FRFW;;;WD)").as_deref(), Some("WD"));
        let another = "S-1-5-21-1-2-3-1002";
        assert_eq!(writer(&format!("(A;;FA;;;{another})")).as_deref(), Some(another));
    }

    #[test]
    fn what_steers_is_told_and_trusted_as_it_is() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("tapwave.toml");
        let text = "lifetime = 60\nproxy = \"http://ada:secret@proxy:80\"\n[recipients]\nlead = \"age1x\"\n[mail]\nhost = \"relay\"\nport = 25\n";
        std::fs::write(&path, text).expect("written");
        let found = FoundSettings::of(&path, text).expect("found");
        assert_eq!(
            found.steers,
            [
                "recipients.lead = \"age1x\"",
                "proxy = \"…@proxy:80\"",
                "mail.host = \"relay\"",
                "mail.port = 25"
            ]
        );
        let data = home.path().join("data");
        assert!(!found.is_trusted(&data));
        found.trust(&data).expect("noted");
        assert!(found.is_trusted(&data));
        let changed = FoundSettings::of(&path, &format!("{text}# changed")).expect("found");
        assert!(!changed.is_trusted(&data));
        changed.trust(&data).expect("noted");
        assert!(changed.is_trusted(&data) && !found.is_trusted(&data), "one for each path");
        let harmless = FoundSettings::of(&path, "lifetime = 60").expect("found");
        assert!(harmless.is_trusted(Path::new("/nowhere")));
        for (url, shown) in [
            ("http://evil:1/x@graph.microsoft.com", "http://evil:1/x@graph.microsoft.com"),
            ("https://evil?@graph.microsoft.com", "https://evil?@graph.microsoft.com"),
            ("https://a:b@evil/@graph.microsoft.com", "…@evil/@graph.microsoft.com"),
        ] {
            let found = FoundSettings::of(&path, &format!("graph_url = {url:?}")).expect("found");
            assert!(found.steers[0].contains(shown), "{:?}", found.steers);
        }
    }
}
