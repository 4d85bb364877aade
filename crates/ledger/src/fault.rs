//! Promises that whatever goes wrong with a ledger is named, says whether anything was
//! recorded, and ends with what to do. Never guesses that a failed write worked.

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

/// Why the ledger could not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The folder itself cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no ledger.
    #[error(
        "failed to find a run in {}: the folder holds {holds}; `tapwave runs` lists the runs of \
         this machine",
        folder.display()
    )]
    Missing {
        folder: PathBuf,
        /// What is there instead.
        holds: String,
    },
    /// A draft was asked for where a run already is.
    #[error(
        "failed to make a run in {}: there is one already; carry on with it, or name another \
         folder with `--run`",
        .0.display()
    )]
    Exists(PathBuf),
    /// Made by a later tapwave.
    #[error(
        "failed to open {}: its format is version {found} and this tapwave ({}) knows version \
         {known}; update tapwave",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Newer {
        path: PathBuf,
        found: i64,
        /// The newest we know.
        known: i64,
    },
    /// Made by an earlier tapwave, whose rows lack what this one relies on.
    #[error(
        "failed to open {}: its format is version {found} and this tapwave ({}) works on version \
         {known}; carry this run on, or clean it up, with the tapwave that made it",
        path.display(),
        env!("CARGO_PKG_VERSION")
    )]
    Older {
        path: PathBuf,
        found: i64,
        /// The one we work on.
        known: i64,
    },
    /// A database of some other program.
    #[error(
        "failed to open {}: it is no tapwave ledger; name a run's folder, `tapwave runs` lists \
         them",
        .0.display()
    )]
    Foreign(PathBuf),
    /// What is stored cannot be true or cannot be read.
    #[error(
        "failed to read {}: the ledger is damaged ({detail}); copy the folder back from a \
         backup; passes that were sealed can still be removed with `tapwave cleanup --csv WAVE.csv`",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        /// `SQLite`'s words or ours.
        detail: String,
    },
    /// Another process writes this run.
    #[error(
        "failed to open {}: the run is in use{}; wait for it to end, or stop it there",
        folder.display(),
        by(holder.as_ref())
    )]
    InUse {
        folder: PathBuf,
        /// Who has it, if that could be read.
        holder: Option<Holder>,
    },
    /// Commits lie in the write-ahead log and the folder cannot be written.
    #[error(
        "failed to read {}: its last commits are in a log that needs a writable folder; copy the \
         whole folder to a place you may write and read it there",
        .0.display()
    )]
    LogUnreadable(PathBuf),
    /// A write through a ledger that was opened for reading.
    #[error("failed to write the ledger: it was opened for reading; open the run with resume")]
    ReadOnly,
    /// Cleanup has begun: no more passes.
    #[error("failed to start a pass: cleanup closed this run; a new run issues new passes")]
    Closed,
    /// No such row.
    #[error("failed to find row {0} in the ledger; please report this as a defect")]
    UnknownLine(Line),
    /// The list of legal moves forbids it. Nothing was recorded.
    #[error("failed to record row {line}: {source}; please report this as a defect")]
    Illegal { line: Line, source: IllegalMove },
    /// An event that only a spent intent may bring. Nothing was recorded.
    #[error(
        "failed to record row {line}: \"{event}\" needs the intent it is about; please report \
         this as a defect"
    )]
    NeedsIntent { line: Line, event: &'static str },
    /// An intent for somebody else than the check let in. Nothing was recorded.
    #[error(
        "failed to record row {0}: the intent names another user than the check did; please \
         report this as a defect"
    )]
    OtherUser(Line),
    /// The record of one row lacks what its state needs, so that nothing can be done for it.
    #[error(
        "failed to use the record of line {line} ({}): {lacks}; the ledger is damaged: copy the \
         folder back from a backup, and look at this person in Entra",
        escaped(upn)
    )]
    BrokenRow {
        line: Line,
        upn: String,
        /// What is missing or cannot be read, as a sentence.
        lacks: &'static str,
    },
    /// A reader keeps the purge from finishing; it may be asked for again.
    #[error(
        "failed to purge the sealed copies from {}: another process is reading the ledger; end \
         it and run the cleanup again",
        .0.display()
    )]
    PurgeHindered(PathBuf),
    /// Something could not be made durable. Every later write fails with the same.
    #[error(transparent)]
    Write(#[from] Arc<WriteFault>),
    /// Something could not be read.
    #[error("failed to read {}: {source}; {}", path.display(), remedy(source))]
    Read {
        path: PathBuf,
        /// `SQLite`'s reason.
        source: rusqlite::Error,
    },
    /// A file beside the database.
    #[error("failed to {doing} {}: {source}; check the disk and the folder's permissions", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The writer is gone: the ledger was shut, or the runtime is ending.
    #[error("failed to write the ledger: it is shut; resume the run")]
    Shut,
    /// A draft that never had a run's folder.
    #[error("failed to keep the ledger: it was made for a check alone; use `tapwave run`")]
    ScratchOnly,
}

/// A write that did not become durable. It is never tried again: after a failed fsync nobody
/// knows what the disk holds.
#[derive(Debug)]
pub struct WriteFault {
    path: PathBuf,
    cause: Cause,
}

/// What kept a write from becoming durable.
#[derive(Debug)]
pub(super) enum Cause {
    /// `SQLite` says why.
    Database(rusqlite::Error),
    /// The file is no longer where it was opened: whatever is written is lost when it is closed.
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

    /// Whether the disk is full, which an operator can mend.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        matches!(&self.cause, Cause::Database(error)
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
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
    /// The command line, shortened. tapwave takes no secret from there.
    pub command: String,
    pub since: Timestamp,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, host, command, since } = self;
        // Read from a file that others may have put there.
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
