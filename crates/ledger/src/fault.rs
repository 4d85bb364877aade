//! Promises that every error of a ledger says whether anything was recorded, and what to do. Must
//! never guess that a failed write worked.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::ErrorCode;
use serde::{Deserialize, Serialize};

use super::folder::FolderError;
use super::state::IllegalMove;
use tapwave_core::ids::Line;
use tapwave_core::shown::escaped;

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "failed to find a run in {}: the folder holds {holds}; `tapwave runs` lists the runs of \
         this machine",
        folder.display()
    )]
    Missing { folder: PathBuf, holds: String },
    #[error(
        "failed to open {}: its format is version {found} and this tapwave ({}) knows version \
         {known}; update tapwave",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error(
        "failed to open {}: its format is version {found} and this tapwave ({}) works on version \
         {known}; carry this run on, or clean it up, with the tapwave that made it",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Older { path: PathBuf, found: i64, known: i64 },
    #[error(
        "failed to open {}: it is no tapwave ledger; name a run's folder, `tapwave runs` lists \
         them",
        .0.display()
    )]
    Foreign(PathBuf),
    #[error(
        "failed to read {}: the ledger is damaged ({detail}); copy the folder back from a \
         backup; passes that were sealed can still be removed with `tapwave cleanup --csv WAVE.csv`",
        path.display()
    )]
    Damaged { path: PathBuf, detail: String },
    #[error(
        "failed to open {}: the run is in use{}; wait for it to end, or stop it there",
        folder.display(),
        by(holder.as_ref())
    )]
    InUse { folder: PathBuf, holder: Option<Holder> },
    /// Commits are in the write-ahead log, and the folder is read-only.
    #[error(
        "failed to read {}: its last commits are in a log that needs a writable folder; copy the \
         whole folder to a place you may write and read it there",
        .0.display()
    )]
    LogUnreadable(PathBuf),
    #[error("failed to write the ledger: it was opened for reading; open the run with resume")]
    ReadOnly,
    #[error("failed to start a pass: cleanup closed this run; a new run issues new passes")]
    Closed,
    #[error("failed to find row {0} in the ledger; please report this as a defect")]
    UnknownLine(Line),
    /// Not a legal move. Nothing was recorded.
    #[error("failed to record row {line}: {source}; please report this as a defect")]
    Illegal { line: Line, source: IllegalMove },
    /// Nothing was recorded.
    #[error(
        "failed to record row {line}: \"{event}\" needs the intent it is about; please report \
         this as a defect"
    )]
    NeedsIntent { line: Line, event: &'static str },
    /// Nothing was recorded.
    #[error(
        "failed to record row {0}: the intent names another user than the check did; please \
         report this as a defect"
    )]
    OtherUser(Line),
    /// The record of one row lacks what its state needs.
    #[error(
        "failed to use the record of line {line} ({}): {lacks}; the ledger is damaged: copy the \
         folder back from a backup, and look at this person in Entra",
        escaped(upn)
    )]
    BrokenRow { line: Line, upn: String, lacks: &'static str },
    /// A reader prevents the purge, which may be repeated.
    #[error(
        "failed to purge the sealed copies from {}: another process is reading the ledger; end \
         it and run the cleanup again",
        .0.display()
    )]
    PurgeHindered(PathBuf),
    /// Every later write fails with the same fault.
    #[error(transparent)]
    Write(#[from] Arc<WriteFault>),
    #[error("failed to read {}: {source}; {}", path.display(), remedy(source))]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("failed to {doing} {}: {source}; check the disk and the folder's permissions", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The ledger was shut, or the runtime is ending.
    #[error("failed to write the ledger: it is shut; resume the run")]
    Shut,
    #[error("failed to keep the ledger: it was made for a check alone; use `tapwave run`")]
    ScratchOnly,
}

/// A write that did not become durable. It is not repeated: after a failed fsync nobody knows what
/// the disk holds.
#[derive(Debug)]
pub struct WriteFault {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
pub(super) enum Cause {
    Database(rusqlite::Error),
    /// The file is no longer at its path: what is written is lost when it is closed.
    Vanished,
}

impl From<rusqlite::Error> for Cause {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl WriteFault {
    pub(super) fn new(path: &Path, cause: impl Into<Cause>) -> Self {
        Self { path: path.to_owned(), cause: cause.into() }
    }

    /// Whether the ledger was removed, replaced or moved away while it was being written.
    #[must_use]
    pub const fn vanished(&self) -> bool {
        matches!(self.cause, Cause::Vanished)
    }
}

impl fmt::Display for WriteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Database(error) => {
                write!(f, "failed to write {path}: {error}; {}", remedy(error))
            }
            Cause::Vanished => write!(
                f,
                "failed to write {path}: it, its log or its lock was removed, replaced or moved \
                 while this run was under way, so that nothing more is issued; put it back if it \
                 was moved"
            ),
        }
    }
}

impl std::error::Error for WriteFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Database(error) => Some(error),
            Cause::Vanished => None,
        }
    }
}

/// Who has a run open for writing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    pub pid: u32,
    pub host: String,
    /// The beginning of the command line.
    pub command: String,
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, host, command, since } = self;
        // From a file that others may have written.
        let (host, command) = (escaped(host), escaped(command));
        write!(f, "process {pid} on {host} since {since:.0} ({command})")
    }
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(|| " by another process".to_owned(), |holder| format!(" by {holder}"))
}

fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "free space on that disk",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "close the program that has it open, then try again"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            "check the permissions of the run's folder"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "the ledger is damaged: copy the folder back from a backup"
        }
        _ => "check that disk",
    }
}
