//! Promises that what a run is about to do, and what it did, is on the disk before anybody acts on
//! it. Only the ledger creates the right to act, an [`Intent`]. Must never hold a pass in the clear,
//! nor a token.
//!
//! A run is a folder ([`RunFolder`]) with one `SQLite` database. It is made as a [`Draft`] and
//! published under its name; from then on it is read and written only through a [`Ledger`]. Rows
//! change as [`state::next`] allows, live and on replay, in the transaction that records the event.
//!
//! | promise | kept by |
//! |---|---|
//! | durable before the answer | `writer`: WAL, `synchronous=FULL`, answers after COMMIT |
//! | one writer | `lock`: held by the system, which releases it after a crash |
//! | memory does not grow with the rows | pages of rows, a small cache |
//! | purged means gone | `secure_delete`, the log emptied, VACUUM |
//!
//! An intent comes only from [`Ledger::intend`] and is spent once:
//!
//! ```
//! # use tapwave_ledger::{Intent, IssuedRecord, Ledger};
//! # async fn spend(ledger: Ledger, intent: Intent, issued: IssuedRecord, now: jiff::Timestamp) {
//! let _ = ledger.sealed(intent, issued, 0, Vec::new(), now).await;
//! # }
//! ```
//!
//! It cannot be spent twice,
//!
//! ```compile_fail,E0382
//! # use tapwave_core::effect::Effect;
//! # use tapwave_ledger::{Intent, IssuedRecord, Ledger};
//! # async fn spend(ledger: Ledger, intent: Intent, issued: IssuedRecord, now: jiff::Timestamp) {
//! let _ = ledger.sealed(intent, issued, 0, Vec::new(), now).await;
//! let _ = ledger.record_outcome(intent, Effect::Unsettled { why: "late".into() }, now).await;
//! # }
//! ```
//!
//! nor copied,
//!
//! ```compile_fail,E0277
//! # use tapwave_ledger::Intent;
//! fn copied<T: Clone>() {}
//! copied::<Intent>();
//! ```
//!
//! nor forged.
//!
//! ```compile_fail,E0451
//! # use tapwave_ledger::{Intent, events::{Asked, IntentId}};
//! # fn forge(asked: Asked, user: tapwave_core::ids::UserId) -> Intent {
//! Intent {
//!     id: IntentId(1),
//!     line: tapwave_core::ids::Line(2),
//!     user,
//!     asked,
//!     graph_time: jiff::Timestamp::UNIX_EPOCH,
//! }
//! # }
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::Mutex;

use self::lock::Lock;
use self::store::MoveError;
use self::writer::{Writer, WriterHandle};
use tapwave_core::clock::Clock;
use tapwave_core::effect::Effect;
use tapwave_core::ids::{ClientRequestId, Line, UserId};
use tapwave_core::shown::plain;

pub mod events;
pub mod state;

mod claims;
mod connection;
mod draft;
mod failpoint;
mod fault;
mod folder;
mod lock;
mod private;
mod record;
mod registry;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use self::claims::{Claims, ClaimsError, KnownRun};
pub use self::draft::Draft;
pub use self::events::{Asked, Channel, Eligible, Event, IntentId, Posted, Proof, Reader};
#[doc(hidden)]
pub use self::failpoint::Failpoint;
pub use self::fault::{Holder, LedgerError, WriteFault};
pub use self::folder::{FolderError, RunFolder, check_home, private_home, sync_folder};
pub use self::lock::host;
pub use self::private::{append_to_log, create_private};
pub use self::record::{
    About, Counts, Denied, Existing, HandoffRecord, IntentRecord, IssuedRecord, MailOptions,
    MailRecord, NewBadRow, NewRow, PolicyRecord, RecipientRecord, Remains, RowPerson, RowRecord,
    RunOptions, To, Unhanded, Unheld, WaveAbout,
};
pub use self::registry::{Listed, Registry, RegistryError, RunSummary, default_home};
pub use self::state::{IllegalMove, MailState, OpenMail, Standing, State};

/// What a ledger is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Also while another process writes, and in a read-only folder.
    Read,
    /// One process at a time.
    Write,
}

/// A run's durable record. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    folder: RunFolder,
    about: About,
    clock: Clock,
    handle: Option<WriterHandle>,
    reader: Arc<Mutex<Connection>>,
}

/// The right to send one POST, durable before anybody has it. Spent by [`Ledger::sealed`] or
/// [`Ledger::record_outcome`]; if it is dropped, the ledger has an attempt of unknown outcome.
#[derive(Debug)]
#[must_use = "an intent that is not spent counts as an attempt whose answer was lost"]
pub struct Intent {
    id: IntentId,
    line: Line,
    user: UserId,
    asked: Asked,
    graph_time: Timestamp,
}

impl Intent {
    #[must_use]
    pub const fn id(&self) -> IntentId {
        self.id
    }

    #[must_use]
    pub fn client_request_id(&self) -> ClientRequestId {
        ClientRequestId::of_intent(self.user, self.id.0, self.graph_time)
    }

    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }

    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    #[must_use]
    pub const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Graph's clock when it was created.
    #[must_use]
    pub const fn graph_time(&self) -> Timestamp {
        self.graph_time
    }
}

/// The right to send one mail once, durable before anybody has it. Spent by [`Ledger::mailed`]; if
/// it is dropped, the ledger has a mail of unknown fate.
#[derive(Debug)]
#[must_use = "an intent that is not spent counts as a mail of unknown fate"]
pub struct MailIntent {
    line: Line,
    channel: Channel,
}

impl MailIntent {
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }
}

impl Ledger {
    /// Opens a run. Must be called within a tokio runtime.
    pub async fn open(
        folder: &RunFolder,
        access: Access,
        clock: Clock,
    ) -> Result<Self, LedgerError> {
        Self::open_with(folder, access, clock, Failpoint::default()).await
    }

    /// Opens a run for a test that makes a durable write fail.
    #[doc(hidden)]
    pub async fn open_with(
        folder: &RunFolder,
        access: Access,
        clock: Clock,
        failpoint: Failpoint,
    ) -> Result<Self, LedgerError> {
        let folder = folder.clone();
        let opening = move || {
            if !folder.holds_run() {
                let holds = folder.contents();
                return Err(LedgerError::Missing { folder: folder.path().to_owned(), holds });
            }
            if access == Access::Read {
                return Self::assemble(&folder, None, clock);
            }
            folder.check_writable()?;
            let lock = Lock::take(&folder, clock.now())?;
            Self::with_writer(&folder, lock, clock, failpoint)
        };
        tokio::task::spawn_blocking(opening).await.unwrap_or(Err(LedgerError::Shut))
    }

    fn with_writer(
        folder: &RunFolder,
        lock: Lock,
        clock: Clock,
        failpoint: Failpoint,
    ) -> Result<Self, LedgerError> {
        let path = folder.join(folder::LEDGER);
        let ended_properly = !connection::log_is_used(&path);
        let db = connection::open_writer(&path)?;
        let mut writer = Writer::new(db, path, lock, failpoint);
        if !ended_properly {
            writer.doubt_last_seals(clock.now())?;
        }
        Self::assemble(folder, Some(writer), clock)
    }

    fn assemble(
        folder: &RunFolder,
        writer: Option<Writer>,
        clock: Clock,
    ) -> Result<Self, LedgerError> {
        let path = folder.join(folder::LEDGER);
        let reader = connection::open_reader(&path)?;
        let about = store::about(&reader).map_err(|error| connection::explained(&path, error))?;
        Ok(Self(Arc::new(Inner {
            folder: folder.clone(),
            about,
            clock,
            handle: writer.map(Writer::start),
            reader: Arc::new(Mutex::new(reader)),
        })))
    }

    #[must_use]
    pub fn folder(&self) -> &RunFolder {
        &self.0.folder
    }

    #[must_use]
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// The error for records that contradict each other or cannot be read.
    #[must_use]
    pub fn damaged(&self, detail: impl fmt::Display) -> LedgerError {
        let (path, detail) = (self.0.folder.join(folder::LEDGER), plain(&detail.to_string()));
        LedgerError::Damaged { path, detail }
    }

    /// Transactions committed so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.handle.as_ref().map_or(0, WriterHandle::commits)
    }

    // ---- writes --------------------------------------------------------------------------

    /// Creates the right to one POST for `line`, durable before this returns. Refused if the run is
    /// closed, the row's state does not allow it, or `user` is not the one that was checked.
    ///
    /// Dropping the future may leave an attempt of unknown outcome, as dropping an intent does.
    pub async fn intend(
        &self,
        line: Line,
        user: UserId,
        asked: Asked,
        graph_time: Timestamp,
    ) -> Result<Intent, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| {
            let id = store::intend(db, line, user, &asked, graph_time, at)?;
            Ok(Intent { id, line, user, asked, graph_time })
        })
        .await
    }

    /// Spends an intent on a pass: the event and the ciphertext become durable together. If that
    /// fails, the caller must delete the pass while it knows its id, and stop the run.
    ///
    /// `set` is the index of the ciphertext's recipients, `graph_time` Graph's clock when the pass
    /// was received.
    pub async fn sealed(
        &self,
        intent: Intent,
        issued: IssuedRecord,
        set: u32,
        ciphertext: Vec<u8>,
        graph_time: Timestamp,
    ) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| {
            let copy = store::SealedCopy { set, ciphertext, graph_time };
            store::seal(db, intent.line, intent.id, &issued, &copy, at)
        })
        .await
    }

    /// Spends an intent that gave no pass whose code we have. `given_up` is Graph's clock now.
    pub async fn record_outcome(
        &self,
        intent: Intent,
        effect: Effect<Unheld, Denied>,
        given_up: Timestamp,
    ) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| store::conclude(db, intent.line, intent.id, effect, given_up, at))
            .await
    }

    /// Creates the right to send one mail, durable before this returns. Refused if the run is closed,
    /// the pass is not sealed and proven, an earlier mail with another digest may have arrived, or
    /// the notice is not due.
    pub async fn intend_mail(
        &self,
        line: Line,
        channel: Channel,
        posted: Posted,
    ) -> Result<MailIntent, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| {
            store::intend_mail(db, line, channel, posted, at)?;
            Ok(MailIntent { line, channel })
        })
        .await
    }

    /// Spends a mail's intent on its outcome.
    pub async fn mailed(
        &self,
        intent: MailIntent,
        outcome: Effect<String>,
    ) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| store::conclude_mail(db, intent.line, intent.channel, outcome, at))
            .await
    }

    /// Records an event that needs no intent. [`Event::Lost`] and an unsettled mail are accepted, for
    /// attempts whose intent died with an earlier process.
    pub async fn record(&self, line: Line, event: Event) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| store::record(db, line, &event, at)).await
    }

    /// Records that the run belongs in its present folder. Its sealed passes must be checked again.
    pub async fn settle_here(&self) -> Result<(), LedgerError> {
        let place = self.here();
        self.write(move |db| Ok(store::set_place(db, &place)?)).await
    }

    /// Closes the run: from now on [`Ledger::intend`] refuses.
    pub async fn close(&self) -> Result<(), LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| Ok(store::close(db, at)?)).await
    }

    /// Records when the waiting rows were checked again.
    pub async fn set_checked_at(&self, at: Timestamp) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::set_checked_at(db, at)?)).await
    }

    /// Adds to the run's counts of requests and throttled requests.
    pub async fn add_traffic(&self, requests: u64, throttled: u64) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::add_traffic(db, requests, throttled)?)).await
    }

    /// Undoes [`Ledger::close`], for a cleanup that removed nothing.
    pub async fn reopen(&self) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::reopen(db)?)).await
    }

    /// Records a finished handoff file, the SHA-256 of its bytes, and the rows that it holds.
    pub async fn handed_off(
        &self,
        file: String,
        digest: String,
        lines: Vec<Line>,
    ) -> Result<(), LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| Ok(store::handed_off(db, &file, &digest, &lines, at)?)).await
    }

    /// Records a second look at these rows' passes, by Graph's clock.
    pub async fn looked_at(
        &self,
        lines: Vec<Line>,
        graph_time: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::looked_at(db, &lines, graph_time)?)).await
    }

    /// Forgets all second looks.
    pub async fn forget_looks(&self) -> Result<(), LedgerError> {
        self.write(|db| Ok(store::forget_looks(db)?)).await
    }

    /// Destroys every ciphertext, so that no byte of them remains in the run's files, and returns
    /// their number. The handoff folder is not touched. After [`LedgerError::PurgeHindered`]
    /// (another process is reading) the ciphertexts are deleted, and the rest must be repeated.
    pub async fn purge_sealed(&self) -> Result<u64, LedgerError> {
        let handle = self.0.handle.as_ref().ok_or(LedgerError::ReadOnly)?;
        handle.purge(self.0.clock.now()).await
    }

    /// Waits until all earlier writes are durable, closes the database and releases the lock. Later
    /// writes fail; reads still work.
    pub async fn shut(&self) {
        if let Some(handle) = &self.0.handle {
            handle.shut().await;
        }
    }

    /// Calls `hook` with the number of the latest event after each commit. It runs on the thread that
    /// commits, and must not block.
    pub fn on_commit(&self, hook: impl Fn(i64) + Send + Sync + 'static) {
        if let Some(handle) = &self.0.handle {
            handle.on_commit(Box::new(hook));
        }
    }

    // ---- reads ---------------------------------------------------------------------------

    /// The rows in these states by line, `size` at a time.
    pub fn pages<'a>(
        &'a self,
        states: &'a [Standing],
        size: usize,
    ) -> Pages<impl AsyncFnMut(Option<Line>) -> Result<Vec<RowRecord>, LedgerError> + 'a> {
        Pages::new(async move |after| self.rows(states, after, size).await)
    }

    /// At most `limit` rows in these states after line `after`, by line.
    pub async fn rows(
        &self,
        states: &[Standing],
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        let states = states.to_vec();
        self.read(move |db| store::rows(db, &states, after, limit)).await
    }

    /// At most `limit` rows after line `after`, by line, whose pass was mailed and whose notice is
    /// not known to be accepted.
    pub async fn rows_owing_notice(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        self.read(move |db| store::rows_owing_notice(db, after, limit)).await
    }

    pub async fn row(&self, line: Line) -> Result<Option<RowRecord>, LedgerError> {
        self.read(move |db| store::row(db, line)).await
    }

    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        self.read(store::counts).await
    }

    /// The folder to which the run belongs, if it is not the present one.
    pub async fn came_from(&self) -> Result<Option<PathBuf>, LedgerError> {
        let place = self.read(store::place).await?;
        Ok((place != self.here()).then(|| place.into()))
    }

    /// The number of the latest event. It only grows: an earlier copy has a smaller one.
    pub async fn latest_event(&self) -> Result<i64, LedgerError> {
        self.read(store::latest_event).await
    }

    /// When cleanup closed the run, if it did.
    pub async fn closed(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.read(store::closed).await
    }

    /// When the sealed copies were destroyed, if they were.
    pub async fn purged(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.read(store::purged).await
    }

    /// When the rows were last checked.
    pub async fn checked_at(&self) -> Result<Timestamp, LedgerError> {
        self.read(store::checked_at).await
    }

    /// A row's sealed pass, a complete age file.
    pub async fn ciphertext(&self, line: Line) -> Result<Option<Vec<u8>>, LedgerError> {
        self.read(move |db| store::ciphertext(db, line)).await
    }

    /// At most `limit` sealed rows after line `after` that no finished handoff file holds. A pass that
    /// is not proven is not handed off yet.
    pub async fn rows_without_handoff(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Unhanded>, LedgerError> {
        self.read(move |db| store::unhanded(db, after, limit)).await
    }

    /// At most `limit` rows after line `after`, by line, of which something may be alive.
    pub async fn remains(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| store::remains(db, after, limit)).await
    }

    pub async fn lines(&self, standing: Standing) -> Result<Vec<Line>, LedgerError> {
        self.read(move |db| store::lines(db, standing)).await
    }

    /// At most `limit` rows after line `after`, by line, that are not removed and of which a pass was
    /// given up because lists did not show it.
    pub async fn given_up(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| store::given_up(db, after, limit)).await
    }

    /// Rows about which the tables contradict each other, with their userPrincipalName, if known, and
    /// the contradiction.
    pub async fn contradictions(&self) -> Result<Vec<(Line, String, String)>, LedgerError> {
        self.read(store::contradictions).await
    }

    /// What may be alive of these rows.
    pub async fn remains_of(&self, lines: Vec<Line>) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| lines.into_iter().map(|line| store::remains_of(db, line)).collect())
            .await
    }

    /// The number of rows of which something may be alive.
    pub async fn remaining(&self) -> Result<u64, LedgerError> {
        self.read(store::remaining).await
    }

    /// At most `limit` sealed and proven rows after line `after`, by line, that were sealed at
    /// `before` or earlier by Graph's clock and had no second look; with `seen_before`, those whose
    /// latest look was before then.
    pub async fn rows_to_look_at(
        &self,
        before: Timestamp,
        seen_before: Option<Timestamp>,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        self.read(move |db| store::rows_to_look_at(db, before, seen_before, after, limit)).await
    }

    /// The number of rows without a second look since `seen_before`, or without any.
    pub async fn waiting_for_look(
        &self,
        seen_before: Option<Timestamp>,
    ) -> Result<u64, LedgerError> {
        self.read(move |db| store::waiting_for_look(db, seen_before)).await
    }

    /// The first rows without a pass of their own (failed or ineligible, say) of which one from this
    /// run may nevertheless be alive.
    pub async fn strays(&self) -> Result<Vec<Line>, LedgerError> {
        self.read(|db| store::strays(db, tapwave_core::limits::ROWS_PER_READ)).await
    }

    /// Whether a pass of unknown id may be alive for any row.
    pub async fn has_open_attempts(&self) -> Result<bool, LedgerError> {
        self.read(store::has_open_attempts).await
    }

    pub async fn handoffs(&self) -> Result<Vec<HandoffRecord>, LedgerError> {
        self.read(store::handoffs).await
    }

    /// A row's events, in order.
    pub async fn history(&self, line: Line) -> Result<Vec<(Timestamp, Event)>, LedgerError> {
        self.read(move |db| store::history(db, line)).await
    }

    fn here(&self) -> String {
        self.0.folder.path().to_string_lossy().into_owned()
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, MoveError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let handle = self.0.handle.as_ref().ok_or(LedgerError::ReadOnly)?;
        handle.perform(work).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let reader = Arc::clone(&self.0.reader);
        let path = self.0.folder.join(folder::LEDGER);
        // In its own task: a caller that holds the lock but is not polled, because its poller waits
        // for the ledger too, would be a deadlock. The lock is awaited outside the blocking task, so
        // that many readers use one thread.
        let reading = tokio::spawn(async move {
            let db = reader.lock_owned().await;
            let reading = move || work(&db).map_err(|error| connection::explained(&path, error));
            tokio::task::spawn_blocking(reading).await.unwrap_or(Err(LedgerError::Shut))
        });
        reading.await.unwrap_or(Err(LedgerError::Shut))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: &Path = self.0.folder.path();
        f.debug_struct("Ledger").field("folder", &path).finish_non_exhaustive()
    }
}

/// A listing that is read a page at a time. Each page is a query of its own from the end of the
/// previous one: memory stays flat, and rows that change meanwhile are read at most once.
pub struct Pages<F> {
    read: F,
    after: Option<Line>,
}

impl<F> Pages<F> {
    /// `read` gives the page behind a line; an empty one ends the listing.
    pub const fn new(read: F) -> Self {
        Self { read, after: None }
    }

    /// The next page; none after the last.
    pub async fn next<T: HasLine>(&mut self) -> Result<Option<Vec<T>>, LedgerError>
    where
        F: AsyncFnMut(Option<Line>) -> Result<Vec<T>, LedgerError>,
    {
        let rows = (self.read)(self.after).await?;
        self.after = rows.last().map(HasLine::line).or(self.after);
        Ok((!rows.is_empty()).then_some(rows))
    }
}

/// A record of one row of the wave.
pub trait HasLine {
    fn line(&self) -> Line;
}

impl HasLine for RowRecord {
    fn line(&self) -> Line {
        self.line
    }
}

impl HasLine for Remains {
    fn line(&self) -> Line {
        self.line
    }
}

impl HasLine for Unhanded {
    fn line(&self) -> Line {
        self.line
    }
}
