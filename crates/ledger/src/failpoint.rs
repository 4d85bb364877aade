//! Promises that tests can make any durable write fail, or be the process's last. Must never
//! do anything in a build for users: what the environment may ask for exists behind the
//! `failpoints` feature alone, and a [`Failpoint`] is set by tests alone.
//!
//! `TAPWAVE_FAILPOINT` takes `abort@N` and `abort-after@N` for a process that ends right before
//! or right after its N-th durable write, `eio@N` and `enospc@N` for a commit that fails and is
//! not on the disk, and `eio-after@N` for one that is on the disk although the disk said no.

/// Where in a durable write the process may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nothing of it is on the disk yet.
    Before,
    /// All of it is on the disk and nobody has been told.
    After,
}

/// A durable write that fails by request.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Failpoint {
    fail_at: Option<(u64, i32)>,
}

impl Failpoint {
    /// The `nth` commit, from 1, fails like a dying disk.
    #[must_use]
    pub const fn broken_at(nth: u64) -> Self {
        Self { fail_at: Some((nth, rusqlite::ffi::SQLITE_IOERR_FSYNC)) }
    }

    /// The `nth` commit, from 1, fails like a full disk.
    #[must_use]
    pub const fn full_at(nth: u64) -> Self {
        Self { fail_at: Some((nth, rusqlite::ffi::SQLITE_FULL)) }
    }

    /// Fails if this is the commit that shall fail at this moment.
    pub(super) fn strike(&self, commit: u64, moment: Moment) -> Result<(), rusqlite::Error> {
        let fail_at = self.fail_at.filter(|_| moment == Moment::Before);
        match fail_at.or_else(|| asked_to_fail(moment)) {
            Some((nth, code)) if nth == commit => {
                Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(not(feature = "failpoints"))]
const fn asked_to_fail(_: Moment) -> Option<(u64, i32)> {
    None
}

#[cfg(feature = "failpoints")]
fn asked_to_fail(moment: Moment) -> Option<(u64, i32)> {
    match moment {
        Moment::Before => wish("eio@")
            .map(|nth| (nth, rusqlite::ffi::SQLITE_IOERR_FSYNC))
            .or_else(|| wish("enospc@").map(|nth| (nth, rusqlite::ffi::SQLITE_FULL))),
        Moment::After => wish("eio-after@").map(|nth| (nth, rusqlite::ffi::SQLITE_IOERR_FSYNC)),
    }
}

/// The number behind `prefix` in `TAPWAVE_FAILPOINT`.
#[cfg(feature = "failpoints")]
fn wish(prefix: &str) -> Option<u64> {
    std::env::var("TAPWAVE_FAILPOINT").ok()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(not(feature = "failpoints"))]
pub(super) const fn reach(_: Moment) {}

/// Aborts at the N-th durable write of this process, if that was asked for.
#[cfg(feature = "failpoints")]
pub(super) fn reach(moment: Moment) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    static AFTER: AtomicU64 = AtomicU64::new(0);

    let (count, prefix) = match moment {
        Moment::Before => (&BEFORE, "abort@"),
        Moment::After => (&AFTER, "abort-after@"),
    };
    let nth = count.fetch_add(1, Ordering::SeqCst) + 1;
    if wish(prefix) == Some(nth) {
        std::process::abort();
    }
}
