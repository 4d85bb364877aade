//! Promises that a write is answered after it is durable, that writes which wait together are
//! committed together, and that one transaction is one fsync. Must never try a failed commit
//! again: after it, every write fails with the same fault until the ledger is opened anew.
//!
//! A group is committed inside `spawn_blocking`. That keeps the runtime's threads free, and a
//! paused clock from moving while a commit is under way.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::connection;
use super::failpoint::{self, Failpoint, Moment};
use super::fault::{Cause, LedgerError, WriteFault};
use super::folder::Watch;
use super::lock::Lock;
use super::store::{self, MoveError};
use tapwave_core::limits;

type ReplyTo<T> = oneshot::Sender<Result<T, LedgerError>>;

/// What the writer's task is asked for.
enum WriteOrder {
    /// Moves that are committed with others.
    Deed(Box<dyn Write>),
    /// Destroys the ciphertexts; stands alone.
    Purge(Timestamp, ReplyTo<u64>),
    /// Commits what waits and closes the database.
    Shut(oneshot::Sender<()>),
}

/// One caller's part of a transaction.
trait Write: Send {
    /// Does it. A refusal is kept for the answer; an error ends the transaction.
    fn perform(&mut self, db: &Connection) -> Result<(), rusqlite::Error>;
    /// Tells the caller, once the transaction's fate is known.
    fn answer(self: Box<Self>, fate: Result<(), Arc<WriteFault>>);
}

struct WriteRequest<T, F> {
    work: Option<F>,
    kept: Option<Result<T, LedgerError>>,
    answer: ReplyTo<T>,
}

impl<T, F> Write for WriteRequest<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, MoveError> + Send,
{
    fn perform(&mut self, db: &Connection) -> Result<(), rusqlite::Error> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.kept = Some(match work(db) {
            Ok(done) => Ok(done),
            Err(MoveError::Refused(refusal)) => Err(refusal),
            Err(MoveError::Broken(error)) => return Err(error),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, fate: Result<(), Arc<WriteFault>>) {
        let kept = match fate {
            Ok(()) => self.kept.unwrap_or(Err(LedgerError::Shut)),
            Err(fault) => Err(LedgerError::Write(fault)),
        };
        // Whoever asked may have gone; what was done stays done.
        let _ = self.answer.send(kept);
    }
}

/// The callers' end.
#[derive(Clone)]
pub(super) struct WriterHandle {
    orders: mpsc::Sender<WriteOrder>,
    commits: Arc<AtomicU64>,
    note: Arc<OnceLock<CommitHook>>,
}

/// Hears the number of the latest event after each commit.
pub(super) type CommitHook = Box<dyn Fn(i64) + Send + Sync>;

impl WriterHandle {
    /// Has whoever is named first told of every commit from now on.
    pub(super) fn note(&self, note: CommitHook) {
        // A second one is not in anybody's interest.
        let _ = self.note.set(note);
    }

    /// Has `work` done inside the next transaction and waits until that is durable.
    pub(super) async fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, MoveError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let request = WriteRequest { work: Some(work), kept: None, answer };
        self.send(WriteOrder::Deed(Box::new(request))).await?;
        answered.await.unwrap_or(Err(LedgerError::Shut))
    }

    /// Destroys every ciphertext; returns how many there were.
    pub(super) async fn purge(&self, at: Timestamp) -> Result<u64, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.send(WriteOrder::Purge(at, answer)).await?;
        answered.await.unwrap_or(Err(LedgerError::Shut))
    }

    /// Returns when everything asked for before is durable and the lock is given back.
    pub(super) async fn shut(&self) {
        let (answer, answered) = oneshot::channel();
        if self.send(WriteOrder::Shut(answer)).await.is_ok() {
            // An error means that the task has ended, which is what was asked for.
            let _ = answered.await;
        }
        self.orders.closed().await;
    }

    /// Transactions committed so far.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    async fn send(&self, order: WriteOrder) -> Result<(), LedgerError> {
        self.orders.send(order).await.map_err(|_| LedgerError::Shut)
    }
}

/// The one connection that writes, and the right to do so. Fields are dropped in order: the
/// lock is given back after the database is closed.
pub(super) struct Writer {
    db: Connection,
    path: PathBuf,
    watch: Watch,
    faults: Failpoint,
    commits: Arc<AtomicU64>,
    note: Arc<OnceLock<CommitHook>>,
    broken: Option<Arc<WriteFault>>,
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(db: Connection, path: PathBuf, lock: Lock, faults: Failpoint) -> Self {
        let watch = Watch::on(&path);
        let (commits, note) = (Arc::default(), Arc::default());
        Self { db, path, watch, faults, commits, note, broken: None, _lock: lock }
    }

    /// After a process that did not end in order: its last seals must be looked at again.
    pub(super) fn doubt_last_seals(&mut self, at: Timestamp) -> Result<(), LedgerError> {
        let doubted = self.transact(|db| match store::doubt_last_seals(db, at) {
            Err(MoveError::Broken(error)) => Err(error),
            Err(MoveError::Refused(refusal)) => Ok(Err(refusal)),
            Ok(()) => Ok(Ok(())),
        });
        doubted?
    }

    /// Starts the task. It ends, and closes the database, when the last [`WriterHandle`] is gone.
    ///
    /// Must be called within a tokio runtime.
    pub(super) fn start(self) -> WriterHandle {
        let (orders, waiting) = mpsc::channel(limits::RECORDS_PER_COMMIT);
        let (commits, note) = (Arc::clone(&self.commits), Arc::clone(&self.note));
        let handle = WriterHandle { orders, commits, note };
        tokio::spawn(serve(self, waiting));
        handle
    }

    /// Leaves the log empty, so that the database alone is the whole run and can be copied. Not
    /// after a failure: then the disk is left as it is.
    fn close(self) {
        if self.broken.is_none() {
            // What stays in the log is durable there, and the next opening finds it.
            let _ = connection::empty_log(&self.db);
        }
    }

    fn perform(&mut self, orders: Vec<WriteOrder>) -> Vec<oneshot::Sender<()>> {
        let mut deeds = Vec::new();
        let mut leavers = Vec::new();
        for order in orders {
            match order {
                WriteOrder::Deed(deed) => deeds.push(deed),
                WriteOrder::Shut(leaver) => leavers.push(leaver),
                WriteOrder::Purge(at, answer) => {
                    self.commit(std::mem::take(&mut deeds));
                    // Whoever asked may have gone; what was done stays done.
                    let _ = answer.send(self.purge(at));
                }
            }
        }
        self.commit(deeds);
        leavers
    }

    fn commit(&mut self, mut deeds: Vec<Box<dyn Write>>) {
        if deeds.is_empty() {
            return;
        }
        let fate = self.transact(|db| deeds.iter_mut().try_for_each(|deed| deed.perform(db)));
        if let (Ok(()), Some(note)) = (&fate, self.note.get())
            && let Ok(latest) = store::latest_event(&self.db)
        {
            note(latest);
        }
        for deed in deeds {
            deed.answer(fate.clone());
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
        // What is committed to a file without a name is lost with the process. Looked at before
        // each group, so that no request leaves on an intent that nobody will find.
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
        failpoint::reach(Moment::Before);
        let commit = self.commits.load(Ordering::Relaxed) + 1;
        self.faults.strike(commit, Moment::Before)?;
        transaction.commit()?;
        self.faults.strike(commit, Moment::After)?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        failpoint::reach(Moment::After);
        Ok(done)
    }

    fn give_up(&mut self, cause: impl Into<Cause>) -> Arc<WriteFault> {
        // That the log is not empty tells the next process that this one did not end in order.
        // Should this fail too, the failed commit is not in what would be kept.
        let _ = connection::leave_log(&self.db);
        let fault = Arc::new(WriteFault::new(&self.path, cause));
        self.broken = Some(Arc::clone(&fault));
        fault
    }

    /// Overwrites the ciphertexts, then the copies of them that the log and the database's free
    /// space may hold.
    fn purge(&mut self, at: Timestamp) -> Result<u64, LedgerError> {
        let purged = self.transact(|db| store::delete_sealed(db, at))?;
        match scrub(&self.db) {
            Ok(true) => Ok(purged),
            Ok(false) => Err(LedgerError::PurgeHindered(self.path.clone())),
            Err(error) => Err(self.give_up(error).into()),
        }
    }
}

/// `false`: a reader is in the way, and it may be tried again.
fn scrub(db: &Connection) -> Result<bool, rusqlite::Error> {
    let scrubbed = || {
        if !connection::empty_log(db)? {
            return Ok(false);
        }
        failpoint::reach(Moment::Before);
        db.execute_batch("VACUUM")?;
        failpoint::reach(Moment::After);
        connection::empty_log(db)
    };
    scrubbed().or_else(|error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Ok(false),
        _ => Err(error),
    })
}

async fn serve(mut writer: Writer, mut waiting: mpsc::Receiver<WriteOrder>) {
    let mut leavers = Vec::new();
    let mut group = Vec::new();
    while waiting.recv_many(&mut group, limits::RECORDS_PER_COMMIT).await > 0 {
        let orders = std::mem::take(&mut group);
        let done = tokio::task::spawn_blocking(move || {
            let leaving = writer.perform(orders);
            (writer, leaving)
        });
        // The runtime is ending, or a defect made the commit panic: the database is closed
        // without a word and every waiter hears that the ledger is shut.
        let Ok((returned, leaving)) = done.await else { return };
        writer = returned;
        if !leaving.is_empty() {
            waiting.close();
            leavers.extend(leaving);
        }
    }
    // An error means that the runtime is ending, and then the drop closed the database.
    let _ = tokio::task::spawn_blocking(move || writer.close()).await;
    for leaver in leavers {
        let _ = leaver.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::folder::{LEDGER, RunFolder};
    use crate::tests::{about, draft_with_rows};

    #[tokio::test]
    async fn a_reader_hinders_the_scrubbing_and_it_can_be_done_afterwards() {
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
