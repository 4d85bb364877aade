//! Promises that two open runs of one machine never ask for the same person's pass, and that a
//! copy of a run is recognised. Must never keep a claim of a run that is gone.
//!
//! One small database in the data folder. Its write lock makes the look for other claims and the
//! claim itself one step.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::connection;
use super::folder::{self, FolderError, RunFolder, private_file};
use super::{lock, store};
use tapwave_core::ids::{RunId, UserId};
use tapwave_core::limits;

const CLAIMS: &str = "claims.db";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS people (
        user_id TEXT PRIMARY KEY,  -- unique in all tenants, whatever address leads to them
        run     TEXT NOT NULL,
        path    TEXT NOT NULL,     -- the run's folder
        ended   INTEGER            -- when the run let go of the person, in milliseconds since 1970
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS people_by_run ON people (run);
    CREATE TABLE IF NOT EXISTS runs (
        run          TEXT PRIMARY KEY,
        path         TEXT NOT NULL,    -- where it was last acted on
        latest_event INTEGER NOT NULL  -- the number of its latest event then
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS older (
        run   TEXT PRIMARY KEY,
        lacks INTEGER NOT NULL  -- how many events of the run were lost for good
    ) STRICT, WITHOUT ROWID;";

#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(
        "failed to use {}: {source}; it says which run may issue to whom; move it away if no \
         other run is under way",
        path.display()
    )]
    Database { path: PathBuf, source: rusqlite::Error },
}

/// Where this machine last acted on a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownRun {
    pub path: PathBuf,
    pub latest_event: i64,
    /// How many of its events were missing from a ledger with which it was continued.
    pub lacks: u64,
}

/// Which run may issue to whom on this machine. Synchronous: each call is one short transaction.
#[derive(Debug)]
pub struct Claims {
    db: Connection,
    path: PathBuf,
}

impl Claims {
    /// Opens the claims for reading, if there are any.
    pub fn find(home: &Path) -> Result<Option<Self>, ClaimsError> {
        if home.join(CLAIMS).symlink_metadata().is_ok() {
            Self::open(home).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Opens or creates the claims in a [`default_home`](super::default_home).
    pub fn open(home: &Path) -> Result<Self, ClaimsError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { doing, path, source }
        };
        folder::private_home(home)?;
        // SQLite follows no link to the database, but may meet one on the way to it.
        let home = home.canonicalize().map_err(io("resolve", home))?;
        let path = home.join(CLAIMS);
        // Created here and not by SQLite, for its owner alone.
        private_file(OpenOptions::new().append(true).create(true))
            .open(&path)
            .map_err(io("open", &path))?;
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_NOFOLLOW;
            let db = Connection::open_with_flags(&path, flags)?;
            db.busy_timeout(limits::CLAIMS_BUSY)?;
            db.execute_batch(SCHEMA)?;
            Ok(db)
        };
        match open() {
            Ok(db) => Ok(Self { db, path }),
            Err(source) => Err(ClaimsError::Database { path, source }),
        }
    }

    /// Which of `users` another open run has claimed, or released after `since`, when the caller
    /// began to check them; with that run's folder.
    pub fn claimed(
        &mut self,
        users: &[UserId],
        since: Timestamp,
    ) -> Result<HashMap<UserId, PathBuf>, ClaimsError> {
        self.transact(|db| others(db, None, users, since))
    }

    /// Claims those of `users` that no other open run has, and returns the others as
    /// [`Claims::claimed`] does.
    pub fn claim(
        &mut self,
        run: RunId,
        folder: &RunFolder,
        users: &[UserId],
        since: Timestamp,
    ) -> Result<HashMap<UserId, PathBuf>, ClaimsError> {
        let path = folder.path().to_string_lossy().into_owned();
        self.transact(|db| {
            let own = Some((run, path.as_str()));
            let taken = others(db, own, users, since)?;
            let mut claim = db.prepare_cached(
                "INSERT OR REPLACE INTO people (user_id, run, path) VALUES (?1, ?2, ?3)",
            )?;
            for user in users.iter().filter(|user| !taken.contains_key(user)) {
                claim.execute(params![user.to_string(), run.to_string(), path])?;
            }
            Ok(taken)
        })
    }

    /// Ends a run's claims on all but `kept`.
    pub fn release(
        &mut self,
        run: RunId,
        folder: &RunFolder,
        kept: &[UserId],
        now: Timestamp,
    ) -> Result<(), ClaimsError> {
        let path = folder.path().to_string_lossy().into_owned();
        self.transact(|db| {
            // Kept for runs that began a check earlier: what they saw of these people is out of date.
            // A copy of a run has only the claims that it made in its own folder.
            db.execute(
                "UPDATE people SET ended = coalesce(ended, ?2) WHERE run = ?1 AND path = ?3",
                params![run.to_string(), now.as_millisecond(), path],
            )?;
            let old = now.as_millisecond() - millis(limits::CLAIM_REMEMBERED);
            db.execute("DELETE FROM people WHERE ended < ?1", [old])?;
            let mut keep = db.prepare_cached(
                "INSERT INTO people (user_id, run, path) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET ended = NULL
                 WHERE run = excluded.run AND path = excluded.path",
            )?;
            for user in kept {
                keep.execute(params![user.to_string(), run.to_string(), path])?;
            }
            Ok(())
        })
    }

    pub fn known(&mut self, run: RunId) -> Result<Option<KnownRun>, ClaimsError> {
        self.transact(|db| {
            db.query_row(
                "SELECT path, latest_event, coalesce(lacks, 0)
                 FROM runs LEFT JOIN older USING (run) WHERE run = ?1",
                [run.to_string()],
                |row| {
                    let (path, lacks): (String, i64) = (row.get(0)?, row.get(2)?);
                    let lacks = u64::try_from(lacks).unwrap_or_default();
                    Ok(KnownRun { path: path.into(), latest_event: row.get(1)?, lacks })
                },
            )
            .optional()
        })
    }

    /// Records that a run is continued although its ledger lacks some of its events.
    pub fn note_lacking(&mut self, run: RunId, events: u64) -> Result<(), ClaimsError> {
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        self.transact(|db| {
            db.execute(
                "INSERT INTO older (run, lacks) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET lacks = max(lacks, excluded.lacks)",
                params![run.to_string(), events],
            )
            .map(drop)
        })
    }

    /// For notes on which nothing depends: a locked database is not waited for, and a power cut may
    /// lose the latest.
    pub fn hasty(self) -> Result<Self, ClaimsError> {
        let set = self.db.execute_batch("PRAGMA busy_timeout = 0; PRAGMA synchronous = OFF;");
        match set {
            Ok(()) => Ok(self),
            Err(source) => Err(ClaimsError::Database { path: self.path, source }),
        }
    }

    /// Records where a run is being worked on, and its latest event.
    pub fn note(
        &mut self,
        run: RunId,
        folder: &RunFolder,
        latest_event: i64,
    ) -> Result<(), ClaimsError> {
        let path = folder.path().to_string_lossy().into_owned();
        self.transact(|db| {
            db.execute(
                "INSERT OR REPLACE INTO runs (run, path, latest_event) VALUES (?1, ?2, ?3)",
                params![run.to_string(), path, latest_event],
            )
            .map(drop)
        })
    }

    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, ClaimsError> {
        let act = || {
            let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        let done: Result<T, rusqlite::Error> = act();
        done.map_err(|source| ClaimsError::Database { path: self.path.clone(), source })
    }
}

/// The claims of other runs that are still open.
fn others(
    db: &Connection,
    own: Option<(RunId, &str)>,
    users: &[UserId],
    since: Timestamp,
) -> Result<HashMap<UserId, PathBuf>, rusqlite::Error> {
    let own = own.map(|(run, path)| (run.to_string(), PathBuf::from(path)));
    // A folder holds one run, so a claim of another one from this folder is void. A copy of this
    // run counts as this run, unless a process is working on it.
    let mut in_use = HashMap::<PathBuf, bool>::new();
    let mut is_own = |run: &String, path: &PathBuf| {
        let Some((own, own_path)) = &own else { return false };
        if own_path == path {
            return true;
        }
        let held = || RunFolder::open(path).is_ok_and(|folder| lock::is_held(&folder));
        own == run && !*in_use.entry(path.clone()).or_insert_with(held)
    };
    let mut find = db.prepare_cached("SELECT run, path, ended FROM people WHERE user_id = ?1")?;
    let (mut taken, mut open) = (HashMap::new(), HashMap::<(String, PathBuf), bool>::new());
    for user in users {
        let claim = find
            .query_row(params![user.to_string()], |row| {
                let path = PathBuf::from(row.get::<_, String>(1)?);
                Ok((row.get::<_, String>(0)?, path, row.get::<_, Option<i64>>(2)?))
            })
            .optional()?;
        let Some((run, path, ended)) = claim.filter(|(run, path, _)| !is_own(run, path)) else {
            continue;
        };
        if let Some(ended) = ended {
            if ended >= since.as_millisecond() {
                taken.insert(*user, path);
            }
            continue;
        }
        let key = (run, path);
        let is_open = match open.get(&key) {
            Some(known) => *known,
            None => is_open(&key.0, &key.1),
        };
        if is_open {
            taken.insert(*user, key.1.clone());
        }
        open.insert(key, is_open);
    }
    Ok(taken)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Whether a run may still issue: its folder exists, and it is not closed. One that cannot be read
/// may.
fn is_open(run: &str, path: &Path) -> bool {
    let Ok(folder) = RunFolder::open(path) else { return false };
    // It may still be checking, without a ledger yet.
    if lock::is_held(&folder) {
        return true;
    }
    if !folder.holds_run() {
        return false;
    }
    let Ok(db) = connection::open_reader(&folder.join(folder::LEDGER)) else { return true };
    let is_this = store::about(&db).is_ok_and(|about| about.id.to_string() == run);
    is_this && !store::closed(&db).is_ok_and(|closed| closed.is_some())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::tests::{about, draft_with_rows};
    use tapwave_core::clock::later;

    fn early() -> Timestamp {
        crate::tests::time("2026-03-01T08:00:00Z")
    }

    fn late() -> Timestamp {
        crate::tests::time("2026-03-01T08:01:00Z")
    }

    fn user(number: u128) -> UserId {
        UserId::new(Uuid::from_u128(number))
    }

    async fn run(home: &Path, name: &str, number: u128) -> (RunId, RunFolder) {
        let folder = RunFolder::create(&home.join(name)).expect("made");
        let id = RunId::new(Uuid::from_u128(number));
        let about = crate::About { id, ..about() };
        draft_with_rows(&folder, 1).publish(&about).expect("published").shut().await;
        (id, folder)
    }

    #[tokio::test]
    async fn a_person_belongs_to_one_open_run() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let (one, first) = run(home.path(), "one", 1).await;
        let (other, second) = run(home.path(), "other", 2).await;
        let mut claims = Claims::open(home.path()).expect("opened");
        assert!(claims.claim(one, &first, &[user(7), user(8)], early()).expect("asked").is_empty());
        let taken = claims.claim(other, &second, &[user(8), user(9)], early()).expect("asked");
        assert_eq!(taken, HashMap::from([(user(8), first.path().to_owned())]));
        claims.release(one, &first, &[user(7)], late()).expect("released");
        let overlap = claims.claim(other, &second, &[user(8)], early()).expect("asked");
        assert_eq!(overlap.len(), 1, "checked before the other run released it");
        let after = later(late(), Duration::from_millis(1));
        assert!(claims.claim(other, &second, &[user(8)], after).expect("asked").is_empty());
        assert_eq!(claims.claimed(&[user(7), user(9)], early()).expect("asked").len(), 2);
    }

    #[tokio::test]
    async fn a_claim_ends_with_its_run() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let (closed, first) = run(home.path(), "closed", 1).await;
        let (gone, second) = run(home.path(), "gone", 2).await;
        let mut claims = Claims::open(home.path()).expect("opened");
        claims.claim(closed, &first, &[user(7)], early()).expect("claimed");
        claims.claim(gone, &second, &[user(8)], early()).expect("claimed");
        let clock = tapwave_core::clock::Clock::system();
        let ledger = crate::Ledger::open(&first, crate::Access::Write, clock).await;
        let ledger = ledger.expect("opened");
        ledger.close().await.expect("closed");
        ledger.shut().await;
        std::fs::remove_dir_all(second.path()).expect("removed");
        assert!(claims.claimed(&[user(7), user(8)], early()).expect("asked").is_empty());
    }
}
