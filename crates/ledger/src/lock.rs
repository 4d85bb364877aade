//! Promises that one process at a time writes a run, and that a second one learns which. Must never
//! break a lock: the system releases it when its holder ends, in whatever way.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use jiff::Timestamp;

use super::fault::{Holder, LedgerError};
use super::folder::{self, RunFolder, private_file};
use tapwave_core::limits;

/// The right to write one run. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Lock(
    #[expect(dead_code, reason = "held open: closing it releases the lock")] File,
);

impl Lock {
    /// Takes the lock and records who has it.
    pub(super) fn take(folder: &RunFolder, now: Timestamp) -> Result<Self, LedgerError> {
        let path = folder.join(folder::LOCK);
        let file = private_file(OpenOptions::new().read(true).write(true).create(true))
            .open(&path)
            .map_err(|source| LedgerError::Io { doing: "open", path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LedgerError::InUse {
                    folder: folder.path().to_owned(),
                    holder: read_holder(&folder.join(folder::HOLDER)),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(LedgerError::Io { doing: "lock", path, source });
            }
        }
        write_holder(&folder.join(folder::HOLDER), &this_process(now))?;
        Ok(Self(file))
    }
}

/// Whether a process has this run open for writing.
pub(super) fn is_held(folder: &RunFolder) -> bool {
    private_file(OpenOptions::new().read(true).write(true))
        .open(folder.join(folder::LOCK))
        .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

impl RunFolder {
    /// Removes what a failed start left beside its unfinished ledger, and the folder too if
    /// `created` for it. While another process has the run everything stays: without the lock file
    /// a third one could get in. Best effort; a later start does the rest.
    pub fn abandon(&self, created: bool) {
        if self.holds_run() || is_held(self) {
            return;
        }
        for name in [folder::LOG, folder::LOCK, folder::HOLDER] {
            let _ = std::fs::remove_file(self.join(name));
        }
        let _ = std::fs::remove_dir(self.join(folder::HANDOFF));
        if created {
            let _ = std::fs::remove_dir(self.path());
        }
    }
}

fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    let file = private_file(OpenOptions::new().read(true)).open(path).ok()?;
    file.take(limits::MAX_NOTE_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_holder(path: &Path, holder: &Holder) -> Result<(), LedgerError> {
    let text = serde_json::to_vec(holder).expect("four plain fields serialise");
    private_file(OpenOptions::new().write(true).create(true).truncate(true))
        .open(path)
        .and_then(|mut file| file.write_all(&text))
        .map_err(|source| LedgerError::Io { doing: "write", path: path.to_owned(), source })
}

fn this_process(since: Timestamp) -> Holder {
    // Only up to the first option: a later word may be a proxy's password.
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .take_while(|word| !word.starts_with('-'))
        .collect();
    let command = words.join(" ").chars().take(limits::MAX_HOLDER_COMMAND).collect();
    Holder { pid: std::process::id(), host: host(), command, since }
}

#[cfg(unix)]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
pub fn host() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this machine".to_owned())
}
