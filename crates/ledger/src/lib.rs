//! Promises that whatever a run is about to do, and whatever it did, is on the disk before
//! anybody acts on it; it alone mints the right to act, [`Intent`]. Must never hold a pass in
//! the clear, nor a token.
//!
//! A run is a folder ([`RunFolder`]) with one `SQLite` database. It is made whole as a [`Draft`]
//! and published under its name; from then on a [`Ledger`] is the only way in. Rows move as
//! [`state::next`] allows, live and on replay, inside the transaction that records the event.
//!
//! | promise | kept by |
//! |---|---|
//! | durable before the answer | `writer`: WAL, `synchronous=FULL`, answers after COMMIT |
//! | one writer | `lock`: held by the system, so a crash gives it back |
//! | memory does not grow with the rows | pages of rows, a small cache |
//! | purged means gone | `secure_delete`, the log emptied, VACUUM |
//!
//! An intent is spent once, and there is no other way to one than [`Ledger::intend`]:
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
pub use self::folder::{
    FolderError, RunFolder, check_home, check_place, private_home, sync_folder,
};
pub use self::lock::host;
pub use self::private::{append_to_log, create_private};
pub use self::record::{
    About, Counts, Denied, Existing, HandoffRecord, IntentRecord, IssuedRecord, MailOptions,
    MailRecord, NewBadRow, NewRow, PolicyRecord, RecipientRecord, Remains, RowPerson, RowRecord,
    RunOptions, To, Unhanded, Unheld, WaveAbout,
};
pub use self::registry::{Issuer, Listed, Registry, RegistryError, RunSummary, default_home};
pub use self::state::{IllegalMove, MailState, OpenMail, Standing, State};

/// What a ledger is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Looking, also while another process writes, also where nothing may be written.
    Read,
    /// Acting; one process at a time.
    Write,
}

/// A run's durable record. Clones are handles to the same one.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    folder: RunFolder,
    about: About,
    clock: Clock,
    handle: Option<WriterHandle>,
    reader: Arc<Mutex<Connection>>,
}

/// The right to send one POST, on the disk before anybody holds it. Spent by
/// [`Ledger::sealed`] or [`Ledger::record_outcome`]; one that is dropped stays in the ledger as
/// an attempt whose outcome nobody knows.
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
    /// Its number within the run.
    #[must_use]
    pub const fn id(&self) -> IntentId {
        self.id
    }

    /// What its POST is sent under.
    #[must_use]
    pub fn client_request_id(&self) -> ClientRequestId {
        ClientRequestId::of_intent(self.user, self.id.0, self.graph_time)
    }

    /// The row it is about.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }

    /// The user it permits a POST for.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// What the POST may ask for.
    #[must_use]
    pub const fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Graph's clock when it was minted.
    #[must_use]
    pub const fn graph_time(&self) -> Timestamp {
        self.graph_time
    }
}

/// The right to send one mail once, on the disk before anybody holds it. Spent by
/// [`Ledger::mailed`]; one that is dropped stays in the ledger as a mail of unknown fate.
#[derive(Debug)]
#[must_use = "an intent that is not spent counts as a mail of unknown fate"]
pub struct MailIntent {
    line: Line,
    channel: Channel,
}

impl MailIntent {
    /// The row it is about.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }
}

impl Ledger {
    /// Opens a run. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is no ledger, it is another program's, a newer tapwave's, or damaged; for
    /// writing also if another process writes it or the folder may not hold a run.
    pub async fn open(
        folder: &RunFolder,
        access: Access,
        clock: Clock,
    ) -> Result<Self, LedgerError> {
        Self::open_with(folder, access, clock, Failpoint::default()).await
    }

    /// Opens a run in which a durable write may fail by request.
    #[doc(hidden)]
    pub async fn open_with(
        folder: &RunFolder,
        access: Access,
        clock: Clock,
        faults: Failpoint,
    ) -> Result<Self, LedgerError> {
        let folder = folder.clone();
        let opening = move || {
            if !folder.holds_run() {
                let holds = folder.contents();
                return Err(LedgerError::Missing { folder: folder.path().to_owned(), holds });
            }
            if access == Access::Read {
                return Self::assembled(&folder, None, clock);
            }
            folder.check_writable()?;
            let lock = Lock::take(&folder, clock.now())?;
            Self::with_writer(&folder, lock, clock, faults)
        };
        tokio::task::spawn_blocking(opening).await.unwrap_or(Err(LedgerError::Shut))
    }

    fn with_writer(
        folder: &RunFolder,
        lock: Lock,
        clock: Clock,
        faults: Failpoint,
    ) -> Result<Self, LedgerError> {
        let path = folder.join(folder::LEDGER);
        let ended_in_order = !connection::log_is_used(&path);
        let db = connection::open_writer(&path)?;
        let mut writer = Writer::new(db, path, lock, faults);
        if !ended_in_order {
            writer.doubt_last_seals(clock.now())?;
        }
        Self::assembled(folder, Some(writer), clock)
    }

    fn assembled(
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

    /// Where the run lies.
    #[must_use]
    pub fn folder(&self) -> &RunFolder {
        &self.0.folder
    }

    /// What the run is about.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// What its records say cannot be true or cannot be read.
    #[must_use]
    pub fn damaged(&self, detail: impl fmt::Display) -> LedgerError {
        let (path, detail) = (self.0.folder.join(folder::LEDGER), plain(&detail.to_string()));
        LedgerError::Damaged { path, detail }
    }

    /// Transactions committed through this handle: how well writes were grouped.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.handle.as_ref().map_or(0, WriterHandle::commits)
    }

    // ---- writes --------------------------------------------------------------------------

    /// Mints the right to one POST for `line`. It is durable before this returns.
    ///
    /// A caller that stops waiting may leave an attempt behind whose outcome nobody knows, as a
    /// dropped intent does.
    ///
    /// # Errors
    /// If the run is closed, the row may not be attempted now, `user` is not whom the check let
    /// in, or it cannot be made durable.
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

    /// Spends an intent on a pass: the event and the ciphertext become durable together.
    ///
    /// `set` is the index of the recipients that the ciphertext is sealed to, `graph_time`
    /// Graph's clock when the pass was here.
    ///
    /// # Errors
    /// If it cannot be made durable. Then the pass must be deleted by its id while that is
    /// known, and the run stopped.
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

    /// Spends an intent that brought no pass we hold. `given_up` is Graph's clock now.
    ///
    /// # Errors
    /// If it cannot be made durable.
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

    /// Mints the right to send one mail. It is durable before this returns.
    ///
    /// # Errors
    /// If the run is closed, the row's pass may not be mailed now (it is not sealed and proven,
    /// or another mail may have arrived and this one's digest differs), its notice is not due,
    /// or it cannot be made durable.
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

    /// Spends a mail's intent on what became of it.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn mailed(
        &self,
        intent: MailIntent,
        outcome: Effect<String>,
    ) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| store::conclude_mail(db, intent.line, intent.channel, outcome, at))
            .await
    }

    /// Records any other event. [`Event::Lost`] and an unsettled mail are taken too, for
    /// attempts whose intent died with an earlier process.
    ///
    /// # Errors
    /// If the row is unknown, the move is not legal, the event needs an intent, or it cannot be
    /// made durable.
    pub async fn record(&self, line: Line, event: Event) -> Result<State, LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| store::record(db, line, &event, at)).await
    }

    /// From here on the run belongs into the folder where it lies, and its sealed passes are to be
    /// looked at again.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn settle_here(&self) -> Result<(), LedgerError> {
        let place = self.here();
        self.write(move |db| Ok(store::set_place(db, &place)?)).await
    }

    /// Closes the run: [`Ledger::intend`] refuses for ever after.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn close(&self) -> Result<(), LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| Ok(store::close(db, at)?)).await
    }

    /// Notes when the rows that wait were checked again.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn set_checked_at(&self, at: Timestamp) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::set_checked_at(db, at)?)).await
    }

    /// Adds to what the run cost.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn add_traffic(&self, requests: u64, throttled: u64) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::add_traffic(db, requests, throttled)?)).await
    }

    /// Takes a closing back: cleanup removed nothing.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn reopen(&self) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::reopen(db)?)).await
    }

    /// Notes that a handoff file is finished, the SHA-256 of its bytes, and whose passes it
    /// holds.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn handed_off(
        &self,
        file: String,
        digest: String,
        lines: Vec<Line>,
    ) -> Result<(), LedgerError> {
        let at = self.0.clock.now();
        self.write(move |db| Ok(store::handed_off(db, &file, &digest, &lines, at)?)).await
    }

    /// Notes a second look at these rows' passes, by Graph's clock.
    ///
    /// # Errors
    /// If it cannot be made durable.
    pub async fn looked_at(
        &self,
        lines: Vec<Line>,
        graph_time: Timestamp,
    ) -> Result<(), LedgerError> {
        self.write(move |db| Ok(store::looked_at(db, &lines, graph_time)?)).await
    }

    /// From here on nobody has looked at any pass a second time.
    pub async fn forget_looks(&self) -> Result<(), LedgerError> {
        self.write(|db| Ok(store::forget_looks(db)?)).await
    }

    /// Destroys every ciphertext, so that no byte of them remains in the run's files; returns
    /// how many there were. What the handoff folder holds is not touched.
    ///
    /// # Errors
    /// [`LedgerError::PurgeHindered`] if another process is reading: the ciphertexts are deleted
    /// and the rest may be asked for again. Otherwise if it cannot be made durable.
    pub async fn purge_sealed(&self) -> Result<u64, LedgerError> {
        let handle = self.0.handle.as_ref().ok_or(LedgerError::ReadOnly)?;
        handle.purge(self.0.clock.now()).await
    }

    /// Waits until everything asked for before is durable, closes the database and gives the
    /// lock back. Writes through any handle fail afterwards; reads still work.
    pub async fn shut(&self) {
        if let Some(handle) = &self.0.handle {
            handle.shut().await;
        }
    }

    /// Has `note` hear the number of the latest event after each commit, from now on. It is called
    /// on the thread that commits, and must not wait for anything.
    pub fn follow(&self, note: impl Fn(i64) + Send + Sync + 'static) {
        if let Some(handle) = &self.0.handle {
            handle.note(Box::new(note));
        }
    }

    // ---- reads ---------------------------------------------------------------------------

    /// The rows in these states, so many at a time, by line.
    pub fn pages<'a>(&'a self, states: &'a [Standing], size: usize) -> Pages<'a> {
        Pages { ledger: self, states, size, after: None }
    }

    /// At most `limit` rows in these states behind `after`, by line.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows(
        &self,
        states: &[Standing],
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        let states = states.to_vec();
        self.read(move |db| store::rows(db, &states, after, limit)).await
    }

    /// At most `limit` rows behind `after`, by line, whose pass was mailed and whose notice no
    /// courier is known to have taken.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows_owing_notice(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        self.read(move |db| store::rows_owing_notice(db, after, limit)).await
    }

    /// One row, if there is such a line.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn row(&self, line: Line) -> Result<Option<RowRecord>, LedgerError> {
        self.read(move |db| store::row(db, line)).await
    }

    /// How many rows stand where, and what the run cost.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn counts(&self) -> Result<Counts, LedgerError> {
        self.read(store::counts).await
    }

    /// Where the run was made, or was last agreed to go on, if that is elsewhere.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn came_from(&self) -> Result<Option<PathBuf>, LedgerError> {
        let place = self.read(store::place).await?;
        Ok((place != self.here()).then(|| place.into()))
    }

    /// The number of the latest event. It only grows: a copy taken earlier has a smaller one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn latest_event(&self) -> Result<i64, LedgerError> {
        self.read(store::latest_event).await
    }

    /// When cleanup closed the run, if it did.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn closed(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.read(store::closed).await
    }

    /// When the sealed copies were destroyed, if they were.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn purged(&self) -> Result<Option<Timestamp>, LedgerError> {
        self.read(store::purged).await
    }

    /// When the rows were last checked.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn checked_at(&self) -> Result<Timestamp, LedgerError> {
        self.read(store::checked_at).await
    }

    /// A row's sealed pass: a complete age file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn ciphertext(&self, line: Line) -> Result<Option<Vec<u8>>, LedgerError> {
        self.read(move |db| store::ciphertext(db, line)).await
    }

    /// At most `limit` sealed rows behind `after` that no finished handoff file holds. A pass
    /// that nobody has looked at again after a lost attempt is not handed off yet.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows_without_handoff(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Unhanded>, LedgerError> {
        self.read(move |db| store::unhanded(db, after, limit)).await
    }

    /// At most `limit` rows behind `after`, by line, of which something may be alive.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn remains(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| store::remains(db, after, limit)).await
    }

    /// The rows in this state.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn lines(&self, standing: Standing) -> Result<Vec<Line>, LedgerError> {
        self.read(move |db| store::lines(db, standing)).await
    }

    /// At most `limit` rows behind `after`, by line, that are not removed and of which a pass was
    /// given up because lists did not show it.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn given_up(
        &self,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| store::given_up(db, after, limit)).await
    }

    /// Rows of which the ledger's tables do not say the same, each with its userPrincipalName, as
    /// far as it has one, and what is odd.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn contradictions(&self) -> Result<Vec<(Line, String, String)>, LedgerError> {
        self.read(store::contradictions).await
    }

    /// What may be alive of these rows.
    ///
    /// # Errors
    /// If it cannot be read, or there is no such row.
    pub async fn remains_of(&self, lines: Vec<Line>) -> Result<Vec<Remains>, LedgerError> {
        self.read(move |db| lines.into_iter().map(|line| store::remains_of(db, line)).collect())
            .await
    }

    /// How many rows there are of which something may be alive.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn remaining(&self) -> Result<u64, LedgerError> {
        self.read(store::remaining).await
    }

    /// At most `limit` sealed and proven rows behind `after`, by line, at whose pass nobody has
    /// looked since it was sealed, at `before` or earlier by Graph's clock; given `seen_before`,
    /// those at which somebody has, before then.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn rows_to_look_at(
        &self,
        before: Timestamp,
        seen_before: Option<Timestamp>,
        after: Option<Line>,
        limit: usize,
    ) -> Result<Vec<RowRecord>, LedgerError> {
        self.read(move |db| store::rows_to_look_at(db, before, seen_before, after, limit)).await
    }

    /// How many rows wait for a second look, because nobody has looked, or nobody since
    /// `seen_before`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn waiting_for_look(
        &self,
        seen_before: Option<Timestamp>,
    ) -> Result<u64, LedgerError> {
        self.read(move |db| store::waiting_for_look(db, seen_before)).await
    }

    /// The first rows that own no pass, because they failed or may not have one, and for which one
    /// of this run's may be alive all the same.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn strays(&self) -> Result<Vec<Line>, LedgerError> {
        self.read(|db| store::strays(db, tapwave_core::limits::ROWS_PER_READ)).await
    }

    /// Whether a pass whose id nobody knows may be alive of any row.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn has_open_attempts(&self) -> Result<bool, LedgerError> {
        self.read(store::has_open_attempts).await
    }

    /// Finished handoff files.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn handoffs(&self) -> Result<Vec<HandoffRecord>, LedgerError> {
        self.read(store::handoffs).await
    }

    /// Everything that happened to a row, in order.
    ///
    /// # Errors
    /// If it cannot be read.
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
        // A task of its own: a caller that has its turn and is not polled, because whoever polls
        // it waits for the ledger too, would keep all others waiting for ever. Waited for there
        // and not in the blocking task, so that many readers take one thread.
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

/// See [`Ledger::pages`]. Each page is asked for anew behind the last one's end, so that memory stays
/// flat and rows that move meanwhile are read once at most.
pub struct Pages<'a> {
    ledger: &'a Ledger,
    states: &'a [Standing],
    size: usize,
    after: Option<Line>,
}

impl Pages<'_> {
    /// The next page; none after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<RowRecord>>, LedgerError> {
        let rows = self.ledger.rows(self.states, self.after, self.size).await?;
        self.after = rows.last().map(|row| row.line).or(self.after);
        Ok((!rows.is_empty()).then_some(rows))
    }
}
