//! Promises that nobody below the edge asks the system for the time or for sleep.
//!
//! One [`Clock`] goes in at the top. Its monotonic side is tokio's, so a paused runtime
//! moves it; its wall side is the system's or, in a rehearsal, derived from the monotonic.
//!
//! Builds with debug assertions, which are those of `cargo test`, also know a clock that is
//! ahead of the machine's by what a file says, so that a test can move the time of the built
//! program. Must never exist in a build for users: `cfg(debug_assertions)` guards all of it.

mod minutes;
#[cfg(debug_assertions)]
mod moved;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

pub use self::minutes::{BadMinutes, Minutes};

/// Tells wall time (what people and Graph speak of) and waits.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Wall>);

#[derive(Debug)]
enum Wall {
    System,
    #[cfg(debug_assertions)]
    Moved(moved::Moved),
    /// Starts at `epoch` when `origin` was; `skew` milliseconds can be added under way.
    Derived {
        epoch: Timestamp,
        origin: Instant,
        skew: AtomicI64,
    },
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Wall::System))
    }

    /// The clock of this process: the machine's. A build with debug assertions takes one that a
    /// test moves instead, if the variable `TAPWAVE_TEST_CLOCK` names its file.
    #[must_use]
    pub fn of_the_process() -> Self {
        #[cfg(debug_assertions)]
        if let Some(moved) = moved::Moved::asked_for() {
            return Self(Arc::new(Wall::Moved(moved)));
        }
        Self::system()
    }

    /// A clock that shows `epoch` now and runs with tokio's time.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Arc::new(Wall::Derived { epoch, origin: Instant::now(), skew: AtomicI64::new(0) }))
    }

    /// The wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Wall::System => Timestamp::now(),
            #[cfg(debug_assertions)]
            Wall::Moved(moved) => later(Timestamp::now(), moved.ahead()),
            Wall::Derived { epoch, origin, skew } => later(*epoch, origin.elapsed())
                .saturating_add(SignedDuration::from_millis(skew.load(Ordering::Relaxed)))
                .unwrap_or(Timestamp::MAX),
        }
    }

    /// The monotonic time, which no clock change moves.
    #[must_use]
    pub fn instant(&self) -> Instant {
        #[cfg(debug_assertions)]
        if let Wall::Moved(moved) = &*self.0 {
            return Instant::now() + moved.ahead();
        }
        Instant::now()
    }

    /// Moves a derived wall clock, as an administrator or a bad time server might. The
    /// system's clock is not touched.
    pub fn jump(&self, by: SignedDuration) {
        if let Wall::Derived { skew, .. } = &*self.0 {
            let millis = i64::try_from(by.as_millis()).unwrap_or(0);
            skew.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// Waits on the monotonic side.
    pub async fn sleep(&self, wait: Duration) {
        #[cfg(debug_assertions)]
        if let Wall::Moved(moved) = &*self.0 {
            return moved.sleep(wait).await;
        }
        tokio::time::sleep(wait).await;
    }

    /// Waits until a moment of the monotonic side.
    pub async fn sleep_until(&self, moment: Instant) {
        #[cfg(debug_assertions)]
        if let Wall::Moved(moved) = &*self.0 {
            return moved.sleep(moment.saturating_duration_since(self.instant())).await;
        }
        tokio::time::sleep_until(moment).await;
    }
}

/// What Graph's clock and this machine's show at one moment. A gateway may date an answer wrong, and
/// an administrator set a machine's clock: what needs time to pass needs it on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    pub graph: Timestamp,
    pub machine: Timestamp,
}

impl Clocks {
    /// Whichever shows less: what is over by both is over by this one.
    #[must_use]
    pub fn least(self) -> Timestamp {
        self.graph.min(self.machine)
    }
}

/// `moment` moved forward; the end of time if that is beyond it.
#[must_use]
pub fn later(moment: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| moment.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

/// `moment` moved back; the beginning of time if that is before it.
#[must_use]
pub fn earlier(moment: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| moment.checked_sub(by).ok())
        .unwrap_or(Timestamp::MIN)
}

/// How long from `from` until `to`; nothing if `to` is not after it.
#[must_use]
pub fn span(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// How far apart two clocks or moments are, for people: `12 s`, `7 min`, `2 h`, `2 h 5 min`.
#[must_use]
pub fn apart(by: SignedDuration) -> String {
    let seconds = by.unsigned_abs().as_secs();
    let minutes = (seconds + 30) / 60;
    match (minutes / 60, minutes % 60) {
        _ if seconds < 60 => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_clocks_is_told_in_few_words() {
        for (seconds, told) in
            [(0, "0 s"), (-59, "59 s"), (60, "1 min"), (-7_199, "2 h"), (7_500, "2 h 5 min")]
        {
            assert_eq!(apart(SignedDuration::from_secs(seconds)), told);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_derived_clock_runs_with_the_runtime_and_can_jump() {
        let epoch: Timestamp = "2026-03-01T08:00:00Z".parse().expect("a time");
        let clock = Clock::starting_at(epoch);
        clock.sleep(Duration::from_secs(90)).await;
        assert_eq!(span(epoch, clock.now()).as_secs(), 90);
        clock.jump(SignedDuration::from_secs(-3600));
        assert_eq!(span(clock.now(), epoch).as_secs(), 3600 - 90);
    }
}
