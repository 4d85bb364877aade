//! Promises how long a stage will go on, from what was done and what the limiter expects.
//!
//! Pure: moments come in as durations since the stage began. Must never rest on an average
//! since the beginning: a burst that is used up, or a start with few requests in flight, says
//! nothing about the rest.

use std::time::Duration;

/// By how much an expectation may move before what was measured under it is forgotten.
const SAME: std::ops::Range<f64> = 0.5..2.0;
/// An expectation counts as much as what is done in this time, and as so many rows at least.
const WEIGHT: Duration = Duration::from_secs(15);
const LEAST_WEIGHT: f64 = 20.0;
/// What was measured counts half after this, so that a limit which moves is followed; so
/// does what was expected, so that it cannot be wrong for ever.
const MEMORY: Duration = Duration::from_mins(1);

/// The time left of one stage.
#[derive(Debug, Clone)]
pub struct TimeLeft {
    left: u64,
    /// Rows per second, as the limiter expects.
    expected: Option<f64>,
    /// What was measured since this expectation came up.
    measured: Measured,
    held_until: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    since: Duration,
    expected: f64,
    rows: f64,
    /// How much is left of the expectation's weight, from 1 down to 0.
    trust: f64,
}

impl TimeLeft {
    /// So many rows lie ahead.
    #[must_use]
    pub fn of(rows: u64) -> Self {
        let measured = Measured::default();
        Self { left: rows, expected: None, measured, held_until: Duration::ZERO }
    }

    /// Some rows were done.
    pub fn did(&mut self, at: Duration, rows: u64) {
        self.left = self.left.saturating_sub(rows);
        // What comes in during a hold was let out before it.
        if at > self.measured.since {
            #[expect(clippy::cast_precision_loss, reason = "at most a million rows")]
            let rows = rows as f64;
            self.measured.rows += rows;
            let time = at.saturating_sub(self.measured.since);
            if time > MEMORY {
                self.measured.rows /= 2.0;
                self.measured.trust /= 2.0;
                self.measured.since = at.saturating_sub(time / 2);
            }
        }
    }

    /// The limiter expects so many rows per second, none before `holding` has passed.
    pub fn foresee(&mut self, at: Duration, per_second: f64, holding: Duration) {
        if per_second <= 0.0 {
            return;
        }
        self.held_until = at + holding;
        let known = self.expected.is_some();
        if !known || !SAME.contains(&(per_second / self.measured.expected)) {
            self.measured =
                Measured { since: at + holding, expected: per_second, rows: 0.0, trust: 1.0 };
        }
        self.expected = Some(per_second);
    }

    /// How long it will go on; `None` while nothing is known.
    #[must_use]
    pub fn left(&self, now: Duration) -> Option<Duration> {
        let time = now.saturating_sub(self.measured.since).as_secs_f64();
        let rate = match self.expected {
            Some(expected) => {
                let weight = (WEIGHT.as_secs_f64() * expected).max(LEAST_WEIGHT);
                let weight = weight * self.measured.trust;
                (self.measured.rows + weight) / (time + weight / expected)
            }
            None if time > 0.0 => self.measured.rows / time,
            None => 0.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "at most a million rows")]
        let left = self.left as f64;
        let flowing = Duration::try_from_secs_f64(left / rate).ok()?;
        Some(flowing + self.held_until.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_said_before_anything_is_known() {
        let mut left = TimeLeft::of(100);
        assert_eq!(left.left(SECOND), None);
        left.did(SECOND, 10);
        assert_eq!(left.left(SECOND), Some(9 * SECOND));
    }

    #[test]
    fn a_burst_that_is_used_up_is_forgotten() {
        let mut left = TimeLeft::of(2_000);
        left.foresee(SECOND / 10, 1_000.0, Duration::ZERO);
        left.did(SECOND / 10, 20);
        left.foresee(SECOND / 5, 20.0, SECOND);
        let shown = left.left(SECOND / 5).map(|left| left.as_secs());
        assert_eq!(shown, Some(100));
    }

    #[test]
    fn what_is_measured_wins_over_what_is_expected() {
        let mut left = TimeLeft::of(10_000);
        left.foresee(Duration::ZERO, 100.0, Duration::ZERO);
        for second in 1..=100 {
            left.did(SECOND * second, 50);
            left.foresee(SECOND * second, 100.0, Duration::ZERO);
        }
        let shown = left.left(SECOND * 100).map_or(0.0, |left| left.as_secs_f64());
        assert!((90.0..=100.0).contains(&shown), "{shown}");
    }
}
