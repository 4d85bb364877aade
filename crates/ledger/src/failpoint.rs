//! Promises that tests can make any durable write fail, or end the process there. Must never do
//! anything in a build for users: the environment is read only with the feature `failpoints`, and
//! only tests set a [`Failpoint`].
//!
//! `TAPWAVE_FAILPOINT` takes `abort@N` and `abort-after@N` to end the process right before or after
//! its N-th durable write, `eio@N` and `enospc@N` for a commit that fails and is not on the disk,
//! and `eio-after@N` for one that is on the disk although it failed.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Nothing of it is on the disk yet.
    Before,
    /// All of it is on the disk, and no caller has its answer.
    After,
}

/// A durable write that a test makes fail.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Failpoint {
    fail_at: Option<(u64, i32)>,
}

impl Failpoint {
    /// The `nth` commit, counted from 1, fails with an I/O error.
    #[must_use]
    pub const fn broken_at(nth: u64) -> Self {
        Self { fail_at: Some((nth, rusqlite::ffi::SQLITE_IOERR_FSYNC)) }
    }

    /// The `nth` commit, counted from 1, fails because the disk is full.
    #[must_use]
    pub const fn full_at(nth: u64) -> Self {
        Self { fail_at: Some((nth, rusqlite::ffi::SQLITE_FULL)) }
    }

    /// Fails if this is the commit that is to fail at this moment.
    pub(super) fn check(&self, commit: u64, moment: Moment) -> Result<(), rusqlite::Error> {
        let fail_at = self.fail_at.filter(|_| moment == Moment::Before);
        match fail_at.or_else(|| requested_failure(moment)) {
            Some((nth, code)) if nth == commit => {
                Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(not(feature = "failpoints"))]
const fn requested_failure(_: Moment) -> Option<(u64, i32)> {
    None
}

#[cfg(feature = "failpoints")]
fn requested_failure(moment: Moment) -> Option<(u64, i32)> {
    match moment {
        Moment::Before => requested("eio@")
            .map(|nth| (nth, rusqlite::ffi::SQLITE_IOERR_FSYNC))
            .or_else(|| requested("enospc@").map(|nth| (nth, rusqlite::ffi::SQLITE_FULL))),
        Moment::After => {
            requested("eio-after@").map(|nth| (nth, rusqlite::ffi::SQLITE_IOERR_FSYNC))
        }
    }
}

/// The number behind `prefix` in `TAPWAVE_FAILPOINT`.
#[cfg(feature = "failpoints")]
fn requested(prefix: &str) -> Option<u64> {
    std::env::var("TAPWAVE_FAILPOINT").ok()?.strip_prefix(prefix)?.parse().ok()
}

#[cfg(not(feature = "failpoints"))]
pub(super) const fn abort_if_requested(_: Moment) {}

/// Aborts at the requested durable write of this process.
#[cfg(feature = "failpoints")]
pub(super) fn abort_if_requested(moment: Moment) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static BEFORE: AtomicU64 = AtomicU64::new(0);
    static AFTER: AtomicU64 = AtomicU64::new(0);

    let (count, prefix) = match moment {
        Moment::Before => (&BEFORE, "abort@"),
        Moment::After => (&AFTER, "abort-after@"),
    };
    let nth = count.fetch_add(1, Ordering::SeqCst) + 1;
    if requested(prefix) == Some(nth) {
        std::process::abort();
    }
}
