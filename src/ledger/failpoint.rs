//! Promises that tests can make any durable write fail, or be the process's last. Must never
//! do anything in a build for users: the abort exists behind the `failpoints` feature alone,
//! and a [`Faults`] is set by tests alone.

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
pub struct Faults {
    fail_at: Option<(u64, i32)>,
}

impl Faults {
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

    pub(super) fn strike(&self, commit: u64) -> Result<(), rusqlite::Error> {
        match self.fail_at {
            Some((nth, code)) if nth == commit => {
                Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) const fn reach(_: Moment) {}

/// Aborts at the N-th durable write of this process: `TAPWAVE_FAILPOINT=abort@N` right before
/// it, `abort-after@N` right after it.
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
    let asked = std::env::var("TAPWAVE_FAILPOINT").ok();
    let asked = asked.as_deref().and_then(|text| text.strip_prefix(prefix)?.parse().ok());
    if asked == Some(nth) {
        std::process::abort();
    }
}
