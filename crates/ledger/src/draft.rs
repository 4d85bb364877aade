//! Promises that a run's ledger is complete before it has its name: until then a crash leaves only a
//! file that the next start removes. Must never issue anything.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::Ledger;
use super::connection;
use super::events::Event;
use super::failpoint::{self, Failpoint, Moment};
use super::fault::{LedgerError, WriteFault};
use super::folder::{self, FolderError, RunFolder, private_file, sync_folder};
use super::lock::Lock;
use super::record::{About, Counts, NewBadRow, NewRow, RowRecord};
use super::state::{Standing, State};
use super::store::{self, MoveError};
use tapwave_core::clock::Clock;
use tapwave_core::ids::Line;

/// A ledger that is being made, in one transaction. Synchronous: use it from a blocking task.
///
/// Dropping a draft leaves its file for the next start to remove; [`Draft::discard`] removes it at
/// once.
pub struct Draft {
    db: Connection,
    path: PathBuf,
    home: Home,
    clock: Clock,
}

enum Home {
    Run { folder: RunFolder, lock: Lock },
    Scratch { _folder: TempDir },
}

impl Draft {
    /// Begins the ledger of a run, and removes an unfinished one.
    pub fn create(folder: &RunFolder, clock: Clock) -> Result<Self, LedgerError> {
        folder.check_writable()?;
        let lock = Lock::take(folder, clock.now())?;
        if folder.join(folder::LEDGER).symlink_metadata().is_ok() {
            return Err(FolderError::HoldsRun(folder.path().to_owned()).into());
        }
        let path = folder.join(folder::DRAFT);
        remove_draft(&path)?;
        let home = Home::Run { folder: folder.clone(), lock };
        Self::begin(path, home, clock)
    }

    /// Begins a ledger in a private temporary folder, for a check that keeps nothing.
    pub fn scratch(clock: Clock) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Io {
            doing: "make a folder in",
            path: std::env::temp_dir(),
            source,
        };
        let parent = tempfile::Builder::new().prefix("tapwave-").tempdir().map_err(failed)?;
        let private = parent.path().join("check");
        folder::private_dir_builder(false).create(&private).map_err(failed)?;
        folder::restrict(&private)?;
        let path = RunFolder::open(&private)?.join(folder::DRAFT);
        Self::begin(path, Home::Scratch { _folder: parent }, clock)
    }

    fn begin(path: PathBuf, home: Home, clock: Clock) -> Result<Self, LedgerError> {
        private_file(OpenOptions::new().write(true).create_new(true))
            .open(&path)
            .map_err(|source| LedgerError::Io { doing: "make", path: path.clone(), source })?;
        let db = connection::open_draft(&path).map_err(|error| not_written(&path, error))?;
        Ok(Self { db, path, home, clock })
    }

    /// Adds a valid row of the wave as [`State::Listed`].
    pub fn add_row(&mut self, row: &NewRow) -> Result<(), LedgerError> {
        store::insert(&self.db, row).map_err(|error| not_written(&self.path, error))
    }

    /// Adds an invalid row of the wave as [`State::Ineligible`].
    pub fn add_bad(&mut self, row: NewBadRow) -> Result<(), LedgerError> {
        let done = store::insert_bad(&self.db, row, self.clock.now());
        done.map_err(|error| self.explained(error))
    }

    /// Records a result of the check.
    pub fn record(&mut self, line: Line, event: &Event) -> Result<State, LedgerError> {
        let done = store::record(&self.db, line, event, self.clock.now());
        done.map_err(|error| self.explained(error))
    }

    /// At most `limit` rows in these states after line `after`, by line.
    pub fn rows(
        &self,
        states: &[Standing],
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        store::rows(&self.db, states, after, limit)
            .map_err(|error| connection::explained(&self.path, error))
    }

    /// The rows in these states by line, `size` at a time.
    pub fn pages(
        &self,
        states: &[Standing],
        size: usize,
    ) -> impl Iterator<Item = Result<Vec<RowRecord>, LedgerError>> {
        let mut next = Some(None);
        std::iter::from_fn(move || {
            let page = self.rows(states, next?, size);
            next = page.as_ref().ok().and_then(|rows| rows.last()).map(|row| Some(row.line));
            (!matches!(&page, Ok(rows) if rows.is_empty())).then_some(page)
        })
    }

    pub fn counts(&self) -> Result<Counts, LedgerError> {
        store::counts(&self.db).map_err(|error| connection::explained(&self.path, error))
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the ledger durable, names it, and opens it for writing. A scratch draft is refused.
    ///
    /// Must be called within a tokio runtime.
    pub fn publish(self, about: &About) -> Result<Ledger, LedgerError> {
        let Self { db, path, home, clock } = self;
        let Home::Run { folder, lock } = home else {
            // Windows removes no folder while a file in it is open.
            drop(db);
            return Err(LedgerError::ScratchOnly);
        };
        store::set_about(&db, about, &folder.path().to_string_lossy())
            .and_then(|()| db.execute_batch("COMMIT"))
            .and_then(|()| db.close().map_err(|(_, error)| error))
            .map_err(|error| not_written(&path, error))?;
        failpoint::abort_if_requested(Moment::Before);
        name_durably(&path, &folder)?;
        failpoint::abort_if_requested(Moment::After);
        Ledger::with_writer(&folder, lock, clock, Failpoint::default())
    }

    /// Removes the draft, so that the folder counts as empty again.
    pub fn discard(self) -> Result<(), LedgerError> {
        let Self { db, path, home: _home, .. } = self;
        drop(db);
        remove_draft(&path)
    }

    fn explained(&self, error: MoveError) -> LedgerError {
        match error {
            MoveError::Refused(refusal) => refusal,
            MoveError::Broken(error) => not_written(&self.path, error),
        }
    }
}

/// In this order: content, name, the folders that hold the name.
fn name_durably(path: &Path, folder: &RunFolder) -> Result<(), LedgerError> {
    let failed = |doing| move |source| LedgerError::Io { doing, path: path.to_owned(), source };
    // Opened for writing, as Windows requires for a sync.
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file: File| file.sync_all())
        .map_err(failed("sync"))?;
    std::fs::rename(path, folder.join(folder::LEDGER)).map_err(failed("rename"))?;
    sync_folder(folder.path())?;
    Ok(sync_folder(folder.path().parent().unwrap_or(folder.path()))?)
}

fn remove_draft(path: &Path) -> Result<(), LedgerError> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let path = connection::with_suffix(path, suffix);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LedgerError::Io { doing: "remove", path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

fn not_written(path: &Path, error: rusqlite::Error) -> LedgerError {
    LedgerError::Write(Arc::new(WriteFault::new(path, error)))
}
