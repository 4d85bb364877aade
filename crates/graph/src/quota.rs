//! One pure model of a server that throttles: what a limit lets through, and after which wait
//! the next request is. The limiter's simulation, the forecast and the simulated tenant use it.
//! It must never be kinder than its limit, and never asks for the time.

use std::collections::VecDeque;
use std::mem::discriminant;
use std::time::Duration;

use jiff::fmt::serde::unsigned_duration::friendly::compact as spell;
use serde::{Deserialize, Serialize};

use tapwave_core::limits;

/// What sums of fractions may be off by.
const ROUNDING: f64 = 1e-6;

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// Not at all.
    #[default]
    None,
    /// `burst` units at once, refilled at `rate` a second.
    Bucket { rate: f64, burst: f64 },
    /// `units` in each window; windows follow one another from the first request on.
    Fixed {
        /// Units in a window.
        units: f64,
        /// The window's length.
        #[serde(with = "spell::required")]
        per: Duration,
    },
    /// `units` in any stretch of this length.
    Sliding {
        /// Units in a stretch.
        units: f64,
        /// The stretch's length.
        #[serde(with = "spell::required")]
        per: Duration,
    },
}

/// What a limit's requests have used up. Moments are counted from any beginning, and never go
/// back.
#[derive(Debug, Default)]
pub struct Quota {
    /// Refused requests do not use up the quota. Graph's do.
    pub refused_are_free: bool,
    /// Refused requests charge a bucket without end. Otherwise the debt has a floor, or a client
    /// that keeps trying for a minute would never get in.
    pub endless_debt: bool,
    /// Units a second that somebody else takes.
    pub competing: f64,
    limit: Limit,
    /// The competitor's part of a unit that is not whole yet.
    share: f64,
    /// Tokens left in the bucket; below zero when refused requests were counted.
    tokens: f64,
    /// When the bucket was last filled, and the competitor's share last taken.
    settled: Option<Duration>,
    /// The fixed window's beginning, and what it has used.
    window: Option<Duration>,
    used: f64,
    /// The sliding window's units, oldest first, and their sum.
    recent: VecDeque<(Duration, f64)>,
    sum: f64,
}

impl Quota {
    /// Nothing is used up yet.
    #[must_use]
    pub fn of(limit: Limit) -> Self {
        let mut quota = Self::default();
        quota.change(limit);
        quota
    }

    /// Another limit from now on. What was used up under one of the same kind still is.
    pub fn change(&mut self, limit: Limit) {
        if discriminant(&limit) != discriminant(&self.limit) {
            let tokens = if let Limit::Bucket { burst, .. } = limit { burst } else { 0.0 };
            let Self { refused_are_free, endless_debt, competing, .. } = *self;
            *self = Self { refused_are_free, endless_debt, competing, tokens, ..Self::default() };
        }
        self.limit = limit;
    }

    /// A request of `cost` units at `now`.
    ///
    /// # Errors
    /// The time after which so many units are free, if nobody takes any meanwhile.
    pub fn ask(&mut self, now: Duration, cost: f64) -> Result<(), Duration> {
        self.settle(now);
        // A request that alone costs more than there ever is must pass some time.
        let cost = cost.min(self.limit.capacity());
        let refused = self.wait_for(now, cost).is_some();
        if !refused || !self.refused_are_free {
            self.count(now, cost);
        }
        // The wait is told after the refused request itself was counted: it costs, too.
        if refused { Err(self.wait_for(now, cost).unwrap_or_default()) } else { Ok(()) }
    }

    /// What is used up, as a share of the limit; none without one.
    #[must_use]
    pub fn load(&self) -> Option<f64> {
        match self.limit {
            Limit::None => None,
            Limit::Bucket { burst, .. } => Some((burst - self.tokens) / burst.max(1.0)),
            Limit::Fixed { units, .. } => Some(self.used / units.max(1.0)),
            Limit::Sliding { units, .. } => Some(self.sum / units.max(1.0)),
        }
    }

    /// Fills what time fills, and takes the competitor's share.
    fn settle(&mut self, now: Duration) {
        let since = self.settled.replace(now).unwrap_or(now);
        let passed = now.saturating_sub(since);
        self.share += self.competing * passed.as_secs_f64();
        let taken = self.share.floor();
        self.share -= taken;
        match self.limit {
            Limit::None => {}
            Limit::Bucket { rate, burst } => {
                let filled = (self.tokens + rate * passed.as_secs_f64()).min(burst);
                // A competitor that finds the bucket empty goes away; it runs up no debt.
                self.tokens = if filled > 0.0 { (filled - taken).max(0.0) } else { filled };
            }
            Limit::Fixed { units, per } => {
                let start = align(self.window.unwrap_or(now), per, now);
                if self.window.replace(start) != Some(start) {
                    self.used = 0.0;
                }
                self.used = (self.used + taken).min(units.max(self.used));
            }
            Limit::Sliding { units, per } => {
                self.compete(since, passed, per, taken, units);
                self.forget(now, per);
            }
        }
    }

    /// Spreads the competitor's units over the time since the last request.
    fn compete(
        &mut self,
        since: Duration,
        passed: Duration,
        per: Duration,
        taken: f64,
        units: f64,
    ) {
        let count = whole(taken).min(limits::REHEARSED_COMPETING_UNITS);
        for index in 0..count {
            let at = since + passed.mul_f64(fraction(index + 1, count));
            self.forget(at, per);
            if self.sum + 1.0 <= units {
                self.recent.push_back((at, 1.0));
                self.sum += 1.0;
            }
        }
    }

    fn forget(&mut self, now: Duration, per: Duration) {
        while let Some(&(at, cost)) = self.recent.front()
            && at.saturating_add(per) <= now
        {
            self.recent.pop_front();
            self.sum -= cost;
        }
        if self.recent.is_empty() {
            self.sum = 0.0;
        }
    }

    /// How long until `cost` units are free; none when they are free now.
    fn wait_for(&self, now: Duration, cost: f64) -> Option<Duration> {
        match self.limit {
            Limit::None => None,
            Limit::Bucket { rate, .. } => (self.tokens + ROUNDING < cost).then(|| {
                let seconds = (cost - self.tokens) / rate.max(f64::MIN_POSITIVE);
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }),
            Limit::Fixed { units, per } => (self.used + cost > units)
                .then(|| self.window.unwrap_or(now).saturating_add(per).saturating_sub(now)),
            Limit::Sliding { units, per } => (self.sum + cost > units).then(|| {
                let mut freed = 0.0;
                let ends = self.recent.iter().find_map(|(at, held)| {
                    freed += held;
                    (self.sum - freed + cost <= units).then(|| at.saturating_add(per))
                });
                ends.map_or(per, |end| end.saturating_sub(now))
            }),
        }
    }

    fn count(&mut self, now: Duration, cost: f64) {
        match self.limit {
            Limit::None => {}
            Limit::Bucket { burst, rate } => {
                let floor = if self.endless_debt { f64::NEG_INFINITY } else { -burst.max(rate) };
                self.tokens = (self.tokens - cost).max(floor);
            }
            Limit::Fixed { .. } => self.used += cost,
            Limit::Sliding { .. } => {
                self.recent.push_back((now, cost));
                self.sum += cost;
            }
        }
    }
}

impl Limit {
    fn capacity(self) -> f64 {
        match self {
            Self::None => f64::INFINITY,
            Self::Bucket { burst, .. } => burst,
            Self::Fixed { units, .. } | Self::Sliding { units, .. } => units,
        }
    }
}

/// The wait as Graph's `Retry-After` names it: in whole seconds, never too short, at least one.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// The beginning of the window that `now` is in, when one began at `start`.
fn align(start: Duration, per: Duration, now: Duration) -> Duration {
    if per.is_zero() {
        return now;
    }
    let windows = now.saturating_sub(start).as_nanos() / per.as_nanos();
    start.saturating_add(per.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a share is never below zero"
)]
fn whole(units: f64) -> usize {
    units as usize
}

#[expect(clippy::cast_precision_loss, reason = "both are at most REHEARSED_COMPETING_UNITS")]
fn fraction(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn passes(quota: &mut Quota, millis: u64) -> bool {
        quota.ask(at(millis), 1.0).is_ok()
    }

    #[test]
    fn a_bucket_lets_its_burst_through_and_then_its_rate() {
        let mut quota = Quota::of(Limit::Bucket { rate: 10.0, burst: 5.0 });
        quota.refused_are_free = true;
        let through = (0..1_000).filter(|ms| passes(&mut quota, *ms)).count();
        assert_eq!(through, 5 + 9);
    }

    #[test]
    fn a_sliding_window_remembers_refusals() {
        let mut quota = Quota::of(Limit::Sliding { units: 2.0, per: at(10_000) });
        assert!(passes(&mut quota, 0));
        assert!(passes(&mut quota, 1_000));
        // Of 0 s, 1 s and 5 s two must have gone: at 11 s, six seconds from then.
        assert_eq!(quota.ask(at(5_000), 1.0), Err(at(6_000)));
        assert!(!passes(&mut quota, 10_500));
        assert!(passes(&mut quota, 20_600));
    }

    #[test]
    fn a_competitor_takes_its_share() {
        for limit in [
            Limit::Bucket { rate: 10.0, burst: 1.0 },
            Limit::Sliding { units: 10.0, per: at(1_000) },
            Limit::Fixed { units: 10.0, per: at(1_000) },
        ] {
            let count = |competing| {
                let mut quota = Quota { refused_are_free: true, competing, ..Quota::of(limit) };
                (0..200).filter(|n| passes(&mut quota, n * 50)).count()
            };
            let (alone, shared) = (count(0.0), count(5.0));
            assert!((95..=101).contains(&alone), "{limit:?}: {alone}");
            // In a window the two race for what is free, and we ask four times as often.
            assert!((45..=85).contains(&shared), "{limit:?}: {shared}");
        }
    }

    #[test]
    fn what_was_used_up_counts_after_a_change_of_the_same_kind() {
        let mut quota = Quota::of(Limit::Sliding { units: 2.0, per: at(10_000) });
        assert!(passes(&mut quota, 0) && passes(&mut quota, 1_000));
        quota.change(Limit::Sliding { units: 3.0, per: at(10_000) });
        assert!(passes(&mut quota, 2_000));
        assert!(!passes(&mut quota, 3_000));
        quota.change(Limit::Bucket { rate: 1.0, burst: 1.0 });
        assert!(passes(&mut quota, 4_000));
    }
}
