//! Promises that every connection to a ledger has a known format, durable writes and bounded
//! memory. Must never create a database by opening it, nor follow a link to one.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::fault::LedgerError;
use tapwave_core::limits;
use tapwave_core::shown::plain;

/// "tapw": marks the database as a ledger, for `file` and `SQLite`.
const APPLICATION_ID: i64 = 0x7461_7077;
/// The format, increased by each change that an older tapwave would misread. 2: a row may have a
/// second mail, the notice. 3: every pass and attempt is kept until it is proven to be gone, a
/// row may be lost, and a run has an id and a place.
const VERSION: i64 = 3;
const SCHEMA: &str = include_str!("schema.sql");
/// Prepared statements that are cached; more than there are.
const STATEMENTS: usize = 64;

/// Makes an empty file a ledger without rows, which is durable only once it is published.
pub(super) fn open_draft(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // An unfinished draft is removed, so nothing has to survive a crash. The journal stays small,
    // since a new file has no old pages.
    db.execute_batch(&format!(
        "PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};
         BEGIN EXCLUSIVE; {SCHEMA}"
    ))?;
    Ok(db)
}

/// Opens the only connection that writes, and checks the whole database.
pub(super) fn open_writer(path: &Path) -> Result<Connection, LedgerError> {
    let open = || {
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok((read_header(&db)?, db))
    };
    let (header, db) = open().map_err(|error| explained(path, error))?;
    header.check(path)?;
    prepare_for_writing(&db).map_err(|error| explained(path, error))?;
    match db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(fine) if fine == "ok" => Ok(db),
        Ok(detail) => Err(LedgerError::Damaged { path: path.to_owned(), detail }),
        Err(error) => Err(explained(path, error)),
    }
}

/// Opens a connection that only reads, beside a writer or on a copy that may not be written.
pub(super) fn open_reader(path: &Path) -> Result<Connection, LedgerError> {
    let attempt = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|db| read_header(&db).map(|header| (header, db)));
    let (header, db) = match attempt {
        Err(error) if needs_writable_folder(&error) => open_immutable(path)?,
        other => other.map_err(|error| explained(path, error))?,
    };
    header.check(path)?;
    Ok(db)
}

/// Opens a ledger in a read-only folder, where `SQLite` can have neither lock nor shared memory. This
/// is safe while nobody writes, as nobody can there, and no commits are in the log.
pub(super) fn open_immutable(path: &Path) -> Result<(Header, Connection), LedgerError> {
    if log_is_used(path) {
        return Err(LedgerError::LogUnreadable(path.to_owned()));
    }
    let open = || {
        let text = path.to_string_lossy();
        let escaped =
            percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
        let db = Connection::open_with_flags(
            format!("file:{escaped}?immutable=1"),
            OpenFlags::SQLITE_OPEN_READ_ONLY
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_URI,
        )?;
        bound_memory(&db)?;
        Ok((read_header(&db)?, db))
    };
    open().map_err(|error| explained(path, error))
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open_with_flags(
        path,
        access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    bound_memory(&db)?;
    Ok(db)
}

fn bound_memory(db: &Connection) -> Result<(), rusqlite::Error> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.busy_timeout(limits::LEDGER_BUSY)?;
    db.execute_batch(&format!(
        "PRAGMA cache_size = -{}; PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
        limits::LEDGER_CACHE_KIB
    ))
}

fn prepare_for_writing(db: &Connection) -> Result<(), rusqlite::Error> {
    // fullfsync: on macOS, fsync alone leaves the data in the drive's cache.
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
         PRAGMA journal_size_limit = {};",
        limits::LEDGER_LOG_BYTES
    ))
}

/// The format that a database claims to have.
pub(super) struct Header {
    application: i64,
    version: i64,
}

fn read_header(db: &Connection) -> Result<Header, rusqlite::Error> {
    let number = |pragma| db.query_row(pragma, [], |row| row.get(0));
    Ok(Header {
        application: number("PRAGMA application_id")?,
        version: number("PRAGMA user_version")?,
    })
}

impl Header {
    fn check(&self, path: &Path) -> Result<(), LedgerError> {
        if self.application != APPLICATION_ID {
            return Err(LedgerError::Foreign(path.to_owned()));
        }
        match self.version {
            VERSION => Ok(()),
            found if found > VERSION => {
                Err(LedgerError::Newer { path: path.to_owned(), found, known: VERSION })
            }
            found @ 1..VERSION => {
                Err(LedgerError::Older { path: path.to_owned(), found, known: VERSION })
            }
            found => Err(LedgerError::Damaged {
                path: path.to_owned(),
                detail: format!("version {found} was never written"),
            }),
        }
    }
}

fn needs_writable_folder(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

/// Turns `SQLite`'s error into one that says what to do.
pub(super) fn explained(path: &Path, error: rusqlite::Error) -> LedgerError {
    if let rusqlite::Error::FromSqlConversionFailure(_, _, why) = &error {
        return LedgerError::Damaged { path: path.to_owned(), detail: plain(&why.to_string()) };
    }
    let damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(
        error,
        rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows
    ) || matches!(&error, rusqlite::Error::SqliteFailure(_, Some(text)) if text.starts_with("no such "));
    if damaged {
        LedgerError::Damaged { path: path.to_owned(), detail: error.to_string() }
    } else {
        LedgerError::Read { path: path.to_owned(), source: error }
    }
}

/// Appends `suffix`, as `SQLite` names the files beside a database.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether commits are in the log. A process that ends properly leaves it empty.
pub(super) fn log_is_used(path: &Path) -> bool {
    std::fs::metadata(with_suffix(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

/// Keeps the log when the connection is closed.
pub(super) fn leave_log(db: &Connection) -> Result<(), rusqlite::Error> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Moves the log into the database and empties it. `false` if a reader prevents it.
pub(super) fn empty_log(db: &Connection) -> Result<bool, rusqlite::Error> {
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}
