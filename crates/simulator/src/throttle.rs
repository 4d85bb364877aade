//! The simulated tenant's side of throttling: which limit is in force, and how a refusal tells
//! when to come back. What a limit lets through is `tapwave_graph::quota`'s. It never asks for
//! the time: the moment is a parameter.

use std::time::Duration;

use jiff::Timestamp;

use super::options::{RetryAfter, Throttle};
use tapwave_core::clock::{later, span};
use tapwave_graph::quota::{self, whole_seconds};

/// What a budget's requests have used up.
#[derive(Debug, Default)]
pub(super) struct Quota {
    first: Option<Timestamp>,
    used: quota::Quota,
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
        let passed = span(*self.first.get_or_insert(now), now);
        self.used.change(match throttle.later {
            Some(change) if passed >= change.after => change.limit,
            _ => throttle.limit,
        });
        self.used.competing = throttle.competing;
        self.used.refused_are_free = throttle.refused_are_free;
        let refused = self.used.ask(passed, cost).err();
        let refused =
            refused.map(|wait| Comeback { retry_after: spell(throttle.retry_after, now, wait) });
        let load = self.used.load().map(|load| load.min(1.8));
        Ruling { refused, load: load.filter(|load| throttle.tell_load && *load > 0.8) }
    }
}

fn spell(style: RetryAfter, now: Timestamp, wait: Duration) -> Option<String> {
    match style {
        RetryAfter::Seconds => Some(whole_seconds(wait).to_string()),
        RetryAfter::Fraction => {
            let millis = wait.as_nanos().div_ceil(1_000_000).max(1);
            Some(format!("{}.{:03}", millis / 1_000, millis % 1_000))
        }
        RetryAfter::Date => {
            // HTTP dates have whole seconds; one more keeps the promise not to be early.
            let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let date = later(now, Duration::from_secs(whole.saturating_add(1)));
            Some(httpdate::fmt_http_date(date.into()))
        }
        RetryAfter::Always { seconds } => Some(seconds.to_string()),
        RetryAfter::Absent => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Later, Limit};

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
    fn asking_too_early_costs_and_waiting_as_told_is_let_in() {
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
