//! Promises that a quota lets through what its limit says and no more, and says truthfully
//! when to come back. Must never ask for the time: the moment is a parameter.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::options::{Limit, RetryAfter, Throttle};
use tapwave_core::clock::{earlier, later, span};
use tapwave_core::limits;
use tapwave_graph::verdict;

/// What sums of fractions may be off by.
const ROUNDING: f64 = 1e-6;

/// What a budget's requests have used up.
#[derive(Debug, Default)]
pub(super) struct Quota {
    first: Option<Timestamp>,
    limit: Limit,
    /// Tokens left in the bucket; below zero when refused requests were counted.
    tokens: f64,
    /// When the bucket was last filled, and the competitor's share last taken.
    settled: Option<Timestamp>,
    /// The fixed window's beginning, and what it has used.
    window: Option<Timestamp>,
    used: f64,
    /// The sliding window's units, oldest first, and their sum.
    recent: VecDeque<(Timestamp, f64)>,
    sum: f64,
    /// The competitor's part of a unit that is not whole yet.
    share: f64,
}

/// A limit by itself, for whoever wants to know what it lets through.
#[derive(Debug)]
pub struct Gate {
    throttle: Throttle,
    quota: Quota,
    opened: Timestamp,
}

impl Gate {
    /// Opens it with nothing used up.
    #[must_use]
    pub fn new(throttle: Throttle) -> Self {
        Self { throttle, quota: Quota::default(), opened: Timestamp::UNIX_EPOCH }
    }

    /// Whether a request of one unit passes, so long after the opening; else the wait that
    /// its `Retry-After` names, if it names one.
    ///
    /// # Errors
    /// That wait.
    pub fn ask(&mut self, after: Duration) -> Result<(), Option<Duration>> {
        let now = later(self.opened, after);
        match self.quota.ask(&self.throttle, now, 1.0).refused {
            None => Ok(()),
            Some(comeback) => {
                Err(comeback.retry_after.and_then(|text| verdict::retry_after(&text, now)))
            }
        }
    }
}

/// What a quota says to a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ruling {
    pub(super) refused: Option<Comeback>,
    /// `x-ms-throttle-limit-percentage`.
    pub(super) load: Option<f64>,
}

/// When a refused request may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comeback {
    /// The value of `Retry-After`, unless it is kept back.
    pub(super) retry_after: Option<String>,
}

impl Quota {
    /// Counts a request of `cost` units at `now`.
    pub(super) fn ask(&mut self, throttle: &Throttle, now: Timestamp, cost: f64) -> Ruling {
        self.choose_limit(throttle, now);
        self.settle(throttle, now);
        // A request that alone costs more than there ever is must pass some time.
        let cost = cost.min(self.limit.capacity());
        let wait = self.wait_for(now, cost);
        if wait.is_none() || !throttle.refused_are_free {
            self.count(now, cost);
        }
        // The wait is told after the refused request itself was counted: it costs, too.
        let refused = wait.map(|_| {
            let wait = self.wait_for(now, cost).unwrap_or_default();
            Comeback { retry_after: spell(throttle.retry_after, now, wait) }
        });
        let load = self.load().filter(|load| throttle.tell_load && *load > 0.8);
        Ruling { refused, load }
    }

    fn choose_limit(&mut self, throttle: &Throttle, now: Timestamp) {
        let first = *self.first.get_or_insert(now);
        let limit = match throttle.later {
            Some(change) if span(first, now) >= change.after => change.limit,
            _ => throttle.limit,
        };
        if limit != self.limit {
            *self = Self { first: Some(first), limit, ..Self::default() };
            if let Limit::Bucket { burst, .. } = limit {
                self.tokens = burst;
            }
        }
    }

    /// Fills what time fills, and takes the competitor's share.
    fn settle(&mut self, throttle: &Throttle, now: Timestamp) {
        let passed = self.settled.map_or(Duration::ZERO, |settled| span(settled, now));
        let since = self.settled.replace(now).unwrap_or(now);
        self.share += throttle.competing * passed.as_secs_f64();
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
                self.compete(since, now, per, taken, units);
                self.forget(now, per);
            }
        }
    }

    /// Spreads the competitor's units over the time since the last request.
    fn compete(&mut self, since: Timestamp, now: Timestamp, per: Duration, taken: f64, units: f64) {
        let count = whole(taken).min(limits::REHEARSED_COMPETING_UNITS);
        let passed = span(since, now);
        for index in 0..count {
            let at = later(since, passed.mul_f64(fraction(index + 1, count)));
            self.forget(at, per);
            if self.sum + 1.0 <= units {
                self.recent.push_back((at, 1.0));
                self.sum += 1.0;
            }
        }
    }

    fn forget(&mut self, now: Timestamp, per: Duration) {
        let horizon = earlier(now, per);
        while let Some(&(at, cost)) = self.recent.front()
            && at <= horizon
        {
            self.recent.pop_front();
            self.sum -= cost;
        }
        if self.recent.is_empty() {
            self.sum = 0.0;
        }
    }

    /// How long until `cost` units are free; none when they are free now.
    fn wait_for(&self, now: Timestamp, cost: f64) -> Option<Duration> {
        match self.limit {
            Limit::None => None,
            Limit::Bucket { rate, .. } => (self.tokens + ROUNDING < cost).then(|| {
                let seconds = (cost - self.tokens) / rate.max(f64::MIN_POSITIVE);
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }),
            Limit::Fixed { units, per } => (self.used + cost > units)
                .then(|| span(now, later(self.window.unwrap_or(now), per))),
            Limit::Sliding { units, per } => (self.sum + cost > units).then(|| {
                let mut freed = 0.0;
                let ends = self.recent.iter().find_map(|(at, held)| {
                    freed += held;
                    (self.sum - freed + cost <= units).then(|| later(*at, per))
                });
                ends.map_or(per, |end| span(now, end))
            }),
        }
    }

    fn count(&mut self, now: Timestamp, cost: f64) {
        match self.limit {
            Limit::None => {}
            // The debt has a floor, or a client that keeps trying for a minute would never get in.
            Limit::Bucket { burst, rate } => {
                self.tokens = (self.tokens - cost).max(-burst.max(rate));
            }
            Limit::Fixed { .. } => self.used += cost,
            Limit::Sliding { .. } => {
                self.recent.push_back((now, cost));
                self.sum += cost;
            }
        }
    }

    fn load(&self) -> Option<f64> {
        let load = match self.limit {
            Limit::None => return None,
            Limit::Bucket { burst, .. } => (burst - self.tokens) / burst.max(1.0),
            Limit::Fixed { units, .. } => self.used / units.max(1.0),
            Limit::Sliding { units, .. } => self.sum / units.max(1.0),
        };
        Some(load.min(1.8))
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

/// The beginning of the window that `now` is in, when one began at `start`.
fn align(start: Timestamp, per: Duration, now: Timestamp) -> Timestamp {
    if per.is_zero() {
        return now;
    }
    let windows = span(start, now).as_nanos() / per.as_nanos();
    later(start, per.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)))
}

fn spell(style: RetryAfter, now: Timestamp, wait: Duration) -> Option<String> {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    match style {
        RetryAfter::Seconds => Some(whole.max(1).to_string()),
        RetryAfter::Fraction => {
            let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
            Some(format!("{}.{:03}", millis / 1_000, millis % 1_000))
        }
        RetryAfter::Date => {
            // HTTP dates have whole seconds; one more keeps the promise not to be early.
            let date = later(now, Duration::from_secs(whole.saturating_add(1)));
            Some(httpdate::fmt_http_date(date.into()))
        }
        RetryAfter::Always { seconds } => Some(seconds.to_string()),
        RetryAfter::Absent => None,
    }
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
    use crate::options::Later;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_780_000_000_000 + millis).expect("a time")
    }

    fn passes(quota: &mut Quota, throttle: &Throttle, millis: i64) -> bool {
        quota.ask(throttle, at(millis), 1.0).refused.is_none()
    }

    fn told(ruling: Ruling) -> Option<String> {
        ruling.refused.expect("a refusal").retry_after
    }

    #[test]
    fn a_bucket_lets_its_burst_through_and_then_its_rate() {
        let throttle = Throttle {
            refused_are_free: true,
            ..Throttle::of(Limit::Bucket { rate: 10.0, burst: 5.0 })
        };
        let mut quota = Quota::default();
        let through = (0..1_000).filter(|ms| passes(&mut quota, &throttle, *ms)).count();
        assert_eq!(through, 5 + 9);
    }

    #[test]
    fn knocking_costs_and_waiting_as_told_opens() {
        let throttle = Throttle::of(Limit::Bucket { rate: 10.0, burst: 5.0 });
        let mut quota = Quota::default();
        let through = (0..1_000).filter(|ms| passes(&mut quota, &throttle, *ms)).count();
        assert_eq!(through, 5, "a client that never waits gets the burst alone");
        let ruling = quota.ask(&throttle, at(1_000), 1.0);
        let told = told(ruling).expect("a Retry-After").parse::<i64>().expect("whole");
        assert!(passes(&mut quota, &throttle, 1_000 + told * 1_000));
    }

    #[test]
    fn a_fixed_window_opens_anew_and_says_when() {
        let limit = Limit::Fixed { units: 5.0, per: Duration::from_secs(10) };
        let throttle = Throttle { retry_after: RetryAfter::Fraction, ..Throttle::of(limit) };
        let mut quota = Quota::default();
        assert_eq!((0..8).filter(|ms| passes(&mut quota, &throttle, *ms)).count(), 5);
        let ruling = quota.ask(&throttle, at(2_500), 1.0);
        assert_eq!(told(ruling).as_deref(), Some("7.500"));
        assert!(passes(&mut quota, &throttle, 10_000));
        assert!(passes(&mut quota, &throttle, 31_000));
    }

    #[test]
    fn a_sliding_window_remembers_refusals() {
        let limit = Limit::Sliding { units: 2.0, per: Duration::from_secs(10) };
        let mut quota = Quota::default();
        let throttle = Throttle::of(limit);
        assert!(passes(&mut quota, &throttle, 0));
        assert!(passes(&mut quota, &throttle, 1_000));
        let ruling = quota.ask(&throttle, at(5_000), 1.0);
        // Of 0 s, 1 s and 5 s two must have gone: at 11 s, six seconds from then.
        assert_eq!(told(ruling).as_deref(), Some("6"));
        assert!(!passes(&mut quota, &throttle, 10_500));
        assert!(passes(&mut quota, &throttle, 20_600));
    }

    #[test]
    fn a_date_is_never_early_and_absent_is_absent() {
        let wait = Duration::from_millis(1_500);
        let date = spell(RetryAfter::Date, at(900), wait).expect("a date");
        let told: Timestamp =
            httpdate::parse_http_date(&date).expect("a date").try_into().expect("a time");
        assert!(told >= later(at(900), wait));
        assert_eq!(spell(RetryAfter::Absent, at(0), wait), None);
        let always = spell(RetryAfter::Always { seconds: 10 }, at(0), wait);
        assert_eq!(always.as_deref(), Some("10"));
    }

    #[test]
    fn a_competitor_takes_its_share() {
        for limit in [
            Limit::Bucket { rate: 10.0, burst: 1.0 },
            Limit::Sliding { units: 10.0, per: Duration::from_secs(1) },
            Limit::Fixed { units: 10.0, per: Duration::from_secs(1) },
        ] {
            let alone = Throttle { refused_are_free: true, ..Throttle::of(limit) };
            let shared = Throttle { competing: 5.0, ..alone.clone() };
            let count = |throttle: &Throttle| {
                let mut quota = Quota::default();
                (0..200).filter(|n| passes(&mut quota, throttle, n * 50)).count()
            };
            let (alone, shared) = (count(&alone), count(&shared));
            assert!((95..=101).contains(&alone), "{limit:?}: {alone}");
            // In a window the two race for what is free, and we ask four times as often.
            assert!((45..=85).contains(&shared), "{limit:?}: {shared}");
        }
    }

    #[test]
    fn whoever_waits_as_told_is_let_in() {
        let per = Duration::from_secs(7);
        for limit in [
            Limit::Bucket { rate: 0.7, burst: 3.0 },
            Limit::Fixed { units: 3.0, per },
            Limit::Sliding { units: 3.0, per },
        ] {
            for retry_after in [RetryAfter::Seconds, RetryAfter::Fraction, RetryAfter::Date] {
                let throttle = Throttle { retry_after, ..Throttle::of(limit) };
                let (mut quota, mut rng) = (Quota::default(), fastrand::Rng::with_seed(3));
                let (mut now, mut refused) = (at(0), 0);
                for _ in 0..2_000 {
                    now = later(now, Duration::from_millis(rng.u64(..2_000)));
                    let cost = f64::from(rng.u8(1..6));
                    let ruling = quota.ask(&throttle, now, cost);
                    if let Some(comeback) = ruling.refused {
                        refused += 1;
                        now = heeding(now, &comeback.retry_after.expect("a Retry-After"));
                        let again = quota.ask(&throttle, now, cost);
                        assert_eq!(again.refused, None, "{limit:?} {retry_after:?}");
                    }
                }
                assert!(refused > 100, "{limit:?}: {refused}");
            }
        }
    }

    fn heeding(now: Timestamp, retry_after: &str) -> Timestamp {
        match retry_after.parse() {
            Ok(seconds) => later(now, Duration::from_secs_f64(seconds)),
            Err(_) => {
                httpdate::parse_http_date(retry_after).expect("a date").try_into().expect("a time")
            }
        }
    }

    #[test]
    fn a_limit_can_change_under_way_and_the_load_is_told() {
        let strict = Limit::Sliding { units: 1.0, per: Duration::from_secs(10) };
        let throttle = Throttle {
            later: Some(Later { after: Duration::from_secs(5), limit: strict }),
            tell_load: true,
            ..Throttle::default()
        };
        let mut quota = Quota::default();
        assert!((0..100).all(|ms| passes(&mut quota, &throttle, ms)));
        assert_eq!(quota.ask(&throttle, at(5_000), 1.0).load, Some(1.0));
        assert!(!passes(&mut quota, &throttle, 5_001));
        assert!(quota.ask(&throttle, at(5_002), 1.0).load.is_some_and(|load| load <= 1.8));
    }
}
