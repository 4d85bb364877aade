//! Promises handoff files that are whole or not there, and never written over an existing file.
//! Must never hold plaintext.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tapwave_core::ids::Line;
use tapwave_core::limits;

/// How the name of an unfinished file begins.
const UNFINISHED: &str = ".unfinished-";
const UNFINISHED_END: &str = ".tmp";

/// Why a handoff file could not be made. The sealed rows are still in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    #[error("failed to {doing} the handoff's spool in {}; free some space or mend the disk", folder.display())]
    Spool { doing: &'static str, folder: PathBuf, source: io::Error },
    #[error(
        "failed to read line {line} back from the handoff's spool, which has changed on disk; resume the run to lay the row down from the ledger"
    )]
    Spoiled { line: Line },
    /// A row to be written is no longer in the ledger.
    #[error("failed to write line {line} to the handoff: its sealed copy is gone from the ledger")]
    Gone { line: Line },
    #[error("failed to write the handoff of set {set}, which the run does not know")]
    NoSet { set: u32 },
    #[error("failed to write a handoff file in {}; free some space, or check that the folder may be written to", folder.display())]
    Write { folder: PathBuf, source: io::Error },
    #[error(
        "failed to seal the handoff for {label:?}: {reason}; check the key, and its plugin if it has one"
    )]
    Seal { label: String, reason: String },
}

/// Removes the unfinished files of a process that died. Needs the run's lock: a file that another
/// process is writing looks the same.
pub fn remove_unfinished(folder: &Path) -> Result<(), HandoffError> {
    for entry in fs::read_dir(folder).map_err(unwritten(folder))? {
        let entry = entry.map_err(unwritten(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && name.starts_with(UNFINISHED) && name.ends_with(UNFINISHED_END) {
            fs::remove_file(entry.path()).map_err(unwritten(folder))?;
        }
    }
    Ok(())
}

/// A file under a temporary name. Dropping it removes it, unless it was published.
pub(super) struct UnfinishedFile {
    file: tempfile::NamedTempFile,
    folder: PathBuf,
}

impl UnfinishedFile {
    pub(super) fn new(folder: &Path) -> Result<Self, HandoffError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED).suffix(UNFINISHED_END);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o600));
        }
        let file = builder.tempfile_in(folder).map_err(unwritten(folder))?;
        Ok(Self { file, folder: folder.to_owned() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Makes the file durable, then gives it the first name that is free.
    pub(super) fn publish(
        self,
        stem: &str,
        extension: &str,
        names: &mut TakenNames,
    ) -> Result<PathBuf, HandoffError> {
        let Self { mut file, folder } = self;
        file.as_file().sync_all().map_err(unwritten(&folder))?;
        loop {
            let name = names.take_free(stem, extension);
            let path = folder.join(&name);
            match file.persist_noclobber(&path) {
                Ok(_) => {
                    sync_folder(&folder).map_err(unwritten(&folder))?;
                    return Ok(path);
                }
                Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                    file = refused.file;
                }
                Err(refused) => return Err(unwritten(&folder)(refused.error)),
            }
        }
    }
}

/// The names in a folder, in lower case: on Windows two names that differ in case are one file.
pub(super) struct TakenNames(HashSet<String>);

impl TakenNames {
    pub(super) fn of(folder: &Path) -> Result<Self, HandoffError> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(folder).map_err(unwritten(folder))? {
            let entry = entry.map_err(unwritten(folder))?;
            names.insert(entry.file_name().to_string_lossy().to_lowercase());
        }
        Ok(Self(names))
    }

    /// Takes the first free name of `STEM.age`, `STEM-2.age`, … (for the extension `age`).
    fn take_free(&mut self, stem: &str, extension: &str) -> String {
        let mut part = 1;
        while !self.0.insert(numbered(stem, part, extension).to_lowercase()) {
            part += 1;
        }
        numbered(stem, part, extension)
    }

    /// The names of the same series up to the first that is free.
    pub(super) fn taken(&self, stem: &str, extension: &str) -> impl Iterator<Item = String> {
        let names = (1..).map(move |part| numbered(stem, part, extension));
        names.take_while(|name| self.0.contains(&name.to_lowercase()))
    }
}

fn numbered(stem: &str, part: u64, extension: &str) -> String {
    match part {
        1 => format!("{stem}.{extension}"),
        _ => format!("{stem}-{part}.{extension}"),
    }
}

/// Makes a label a file name's stem that is valid on every system.
///
/// Windows refuses `<>:"/\|?*`, a dot or a space at the end, and the names of its old
/// devices, with any extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
pub(super) fn safe_name(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    for c in label.chars() {
        let safe = c.is_alphanumeric() || matches!(c, '_' | '.' | '@' | '+' | '-');
        match c {
            c if safe => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(name.floor_char_boundary(limits::MAX_NAME_BYTES));
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() {
        return "handoff".to_owned();
    }
    if is_device(name) { format!("set-{name}") } else { name.to_owned() }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    if ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    // The superscript digits are device names as well.
    port.is_some_and(|digit| {
        digit.chars().count() == 1
            && digit.contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c))
    })
}

/// Makes a rename in a folder durable. Windows does it by itself.
#[cfg_attr(
    not(unix),
    expect(clippy::unnecessary_wraps, reason = "the other platforms can fail here")
)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

pub(super) fn unwritten(folder: &Path) -> impl Fn(io::Error) -> HandoffError + '_ {
    move |source| HandoffError::Write { folder: folder.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_becomes_a_name_that_every_system_takes() {
        for (label, name) in [
            ("all", "all"),
            ("München", "München"),
            ("../../etc/passwd", "etc-passwd"),
            ("a/b\\c:d*e", "a-b-c-d-e"),
            ("con", "set-con"),
            ("Nul.txt", "set-Nul.txt"),
            ("COM1", "set-COM1"),
            ("lpt²", "set-lpt²"),
            ("COM10", "COM10"),
            ("console", "console"),
            ("name. ", "name"),
            ("\u{202e}", "handoff"),
            ("", "handoff"),
        ] {
            assert_eq!(safe_name(label), name, "{label:?}");
        }
        assert!(safe_name(&"ü".repeat(200)).len() <= limits::MAX_NAME_BYTES);
    }
}
