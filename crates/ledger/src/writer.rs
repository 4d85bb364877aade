//! Promises that a write is answered after it is durable, and that writes that wait together are
//! committed together with one fsync. Must never repeat a failed commit: after it, every write fails
//! with the same fault until the ledger is opened again.
//!
//! A group is committed in `spawn_blocking`. That keeps the runtime's threads free, and a paused
//! clock does not advance during a commit.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::connection;
use super::failpoint::{self, Failpoint, Moment};
use super::fault::{Cause, LedgerError, WriteFault};
use super::folder::FileWatch;
use super::lock::Lock;
use super::store::{self, MoveError};
use tapwave_core::limits;

type ReplyTo<T> = oneshot::Sender<Result<T, LedgerError>>;

/// A request to the writer's task.
enum Command {
    /// Committed together with others.
    Write(Box<dyn Write>),
    /// Destroys the ciphertexts, in a transaction of its own.
    Purge(Timestamp, ReplyTo<u64>),
    /// Commits what is waiting and closes the database.
    Shut(oneshot::Sender<()>),
}

/// One caller's part of a transaction.
trait Write: Send {
    /// A refusal is kept for the answer; an error ends the transaction.
    fn perform(&mut self, db: &Connection) -> Result<(), rusqlite::Error>;
    /// Answers the caller after the transaction ended with this outcome.
    fn answer(self: Box<Self>, outcome: Result<(), Arc<WriteFault>>);
}

struct WriteRequest<T, F> {
    work: Option<F>,
    result: Option<Result<T, LedgerError>>,
    answer: ReplyTo<T>,
}

impl<T, F> Write for WriteRequest<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, MoveError> + Send,
{
    fn perform(&mut self, db: &Connection) -> Result<(), rusqlite::Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.result = Some(match work(db) {
            Ok(done) => Ok(done),
            Err(MoveError::Refused(refusal)) => Err(refusal),
            Err(MoveError::Broken(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), Arc<WriteFault>>) {
        let result = match outcome {
            Ok(()) => self.result.unwrap_or(Err(LedgerError::Shut)),
            Err(fault) => Err(LedgerError::Write(fault)),
        };
        // The caller may be gone.
        let _ = self.answer.send(result);
    }
}

#[derive(Clone)]
pub(super) struct WriterHandle {
    commands: mpsc::Sender<Command>,
    commits: Arc<AtomicU64>,
    on_commit: Arc<OnceLock<CommitHook>>,
}

/// Called with the number of the latest event after each commit.
pub(super) type CommitHook = Box<dyn Fn(i64) + Send + Sync>;

impl WriterHandle {
    /// Sets the hook; only the first call has an effect.
    pub(super) fn on_commit(&self, hook: CommitHook) {
        let _ = self.on_commit.set(hook);
    }

    /// Runs `work` in the next transaction and waits until that is durable.
    pub(super) async fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, MoveError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let request = WriteRequest { work: Some(work), result: None, answer };
        self.send(Command::Write(Box::new(request))).await?;
        answered.await.unwrap_or(Err(LedgerError::Shut))
    }

    pub(super) async fn purge(&self, at: Timestamp) -> Result<u64, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.send(Command::Purge(at, answer)).await?;
        answered.await.unwrap_or(Err(LedgerError::Shut))
    }

    /// Returns when all earlier requests are durable and the lock is released.
    pub(super) async fn shut(&self) {
        let (answer, answered) = oneshot::channel();
        if self.send(Command::Shut(answer)).await.is_ok() {
            // An error means that the task has already ended.
            let _ = answered.await;
        }
        self.commands.closed().await;
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    async fn send(&self, command: Command) -> Result<(), LedgerError> {
        self.commands.send(command).await.map_err(|_| LedgerError::Shut)
    }
}

/// The only connection that writes, and the lock. Fields are dropped in order: the lock is released
/// after the database is closed.
pub(super) struct Writer {
    db: Connection,
    path: PathBuf,
    watch: FileWatch,
    failpoint: Failpoint,
    commits: Arc<AtomicU64>,
    on_commit: Arc<OnceLock<CommitHook>>,
    broken: Option<Arc<WriteFault>>,
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(db: Connection, path: PathBuf, lock: Lock, failpoint: Failpoint) -> Self {
        let watch = FileWatch::on(&path);
        let (commits, on_commit) = (Arc::default(), Arc::default());
        Self { db, path, watch, failpoint, commits, on_commit, broken: None, _lock: lock }
    }

    /// After a process that did not end properly: its last seals must be checked again.
    pub(super) fn doubt_last_seals(&mut self, at: Timestamp) -> Result<(), LedgerError> {
        let doubted = self.transact(|db| match store::doubt_last_seals(db, at) {
            Err(MoveError::Broken(error)) => Err(error),
            Err(MoveError::Refused(refusal)) => Ok(Err(refusal)),
            Ok(()) => Ok(Ok(())),
        });
        doubted?
    }

    /// Starts the task. It ends, and closes the database, when the last [`WriterHandle`] is dropped.
    ///
    /// Must be called within a tokio runtime.
    pub(super) fn start(self) -> WriterHandle {
        let (commands, received) = mpsc::channel(limits::RECORDS_PER_COMMIT);
        let (commits, on_commit) = (Arc::clone(&self.commits), Arc::clone(&self.on_commit));
        let handle = WriterHandle { commands, commits, on_commit };
        tokio::spawn(serve(self, received));
        handle
    }

    /// Empties the log, so that the database alone is the complete run. Not after a failure: then the
    /// disk is left as it is.
    fn close(self) {
        if self.broken.is_none() {
            // What stays in the log is durable there too.
            let _ = connection::empty_log(&self.db);
        }
    }

    /// Returns the callers to answer once the database is closed.
    fn perform(&mut self, commands: Vec<Command>) -> Vec<oneshot::Sender<()>> {
        let mut writes = Vec::new();
        let mut closers = Vec::new();
        for command in commands {
            match command {
                Command::Write(write) => writes.push(write),
                Command::Shut(closer) => closers.push(closer),
                Command::Purge(at, answer) => {
                    self.commit(std::mem::take(&mut writes));
                    // The caller may be gone.
                    let _ = answer.send(self.purge(at));
                }
            }
        }
        self.commit(writes);
        closers
    }

    fn commit(&mut self, mut writes: Vec<Box<dyn Write>>) {
        if writes.is_empty() {
            return;
        }
        let outcome = self.transact(|db| writes.iter_mut().try_for_each(|write| write.perform(db)));
        if let (Ok(()), Some(on_commit)) = (&outcome, self.on_commit.get())
            && let Ok(latest) = store::latest_event(&self.db)
        {
            on_commit(latest);
        }
        for write in writes {
            write.answer(outcome.clone());
        }
    }

    /// Runs one transaction, unless an earlier one failed.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Arc<WriteFault>> {
        if let Some(fault) = &self.broken {
            return Err(Arc::clone(fault));
        }
        // Commits to a removed file are lost with the process. Checked before each group, so that
        // no request is sent for an intent that is lost.
        if !self.watch.is_there() {
            return Err(self.give_up(Cause::Vanished));
        }
        self.try_transact(work).map_err(|error| self.give_up(error))
    }

    fn try_transact<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        failpoint::abort_if_requested(Moment::Before);
        let commit = self.commits.load(Ordering::Relaxed) + 1;
        self.failpoint.check(commit, Moment::Before)?;
        transaction.commit()?;
        self.failpoint.check(commit, Moment::After)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        failpoint::abort_if_requested(Moment::After);
        Ok(done)
    }

    fn give_up(&mut self, cause: impl Into<Cause>) -> Arc<WriteFault> {
        // A log that is not empty tells the next process that this one did not end properly. If this
        // fails too, the failed commit is not in the log either.
        let _ = connection::leave_log(&self.db);
        let fault = Arc::new(WriteFault::new(&self.path, cause));
        self.broken = Some(Arc::clone(&fault));
        fault
    }

    /// Overwrites the ciphertexts, then their copies in the log and in free pages.
    fn purge(&mut self, at: Timestamp) -> Result<u64, LedgerError> {
        let purged = self.transact(|db| store::delete_sealed(db, at))?;
        match scrub(&self.db) {
            Ok(true) => Ok(purged),
            Ok(false) => Err(LedgerError::PurgeHindered(self.path.clone())),
            Err(error) => Err(self.give_up(error).into()),
        }
    }
}

/// `false` if a reader prevents it; it may be repeated.
fn scrub(db: &Connection) -> Result<bool, rusqlite::Error> {
    let scrubbed = || {
        if !connection::empty_log(db)? {
            return Ok(false);
        }
        failpoint::abort_if_requested(Moment::Before);
        db.execute_batch("VACUUM")?;
        failpoint::abort_if_requested(Moment::After);
        connection::empty_log(db)
    };
    scrubbed().or_else(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(false),
        _ => Err(error),
    })
}

async fn serve(mut writer: Writer, mut received: mpsc::Receiver<Command>) {
    let mut closers = Vec::new();
    let mut group = Vec::new();
    while received.recv_many(&mut group, limits::RECORDS_PER_COMMIT).await > 0 {
        let commands = std::mem::take(&mut group);
        let done = tokio::task::spawn_blocking(move || {
            let closers = writer.perform(commands);
            (writer, closers)
        });
        // The runtime is ending, or the commit panicked: the database is closed, and every waiting
        // caller gets `Shut`.
        let Ok((returned, new_closers)) = done.await else { return };
        writer = returned;
        if !new_closers.is_empty() {
            received.close();
            closers.extend(new_closers);
        }
    }
    // On an error the runtime is ending, and the drop has closed the database.
    let _ = tokio::task::spawn_blocking(move || writer.close()).await;
    for closer in closers {
        let _ = closer.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::folder::{LEDGER, RunFolder};
    use crate::tests::{about, draft_with_rows};

    #[tokio::test]
    async fn a_reader_prevents_scrubbing_until_it_is_done() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::create(&home.path().join("wave")).expect("made");
        draft_with_rows(&folder, 3).publish(&about()).expect("published").shut().await;
        let path = folder.join(LEDGER);
        let db = connection::open_writer(&path).expect("opened");
        db.busy_timeout(Duration::ZERO).expect("set");
        let reader = connection::open_reader(&path).expect("opened");
        reader.execute_batch("BEGIN; SELECT count(*) FROM rows;").expect("a snapshot");
        db.execute("UPDATE rows SET reason = 'later'", []).expect("written");
        assert!(!scrub(&db).expect("no fault"), "the log still serves the reader");
        reader.execute_batch("COMMIT").expect("ended");
        assert!(scrub(&db).expect("no fault"));
    }
}
