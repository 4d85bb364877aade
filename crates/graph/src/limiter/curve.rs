//! How the rate moves between two refusals: it rests beside what was found for as long as that
//! deserves, and then grows ever faster. It must never move by time alone: only time in which the
//! rate was what held requests back counts.
//!
//! A rate that grows evenly by a hundredth of itself a second never finds a limit raised tenfold
//! within the minute that is asked for, and 20/s at 200 ms comes to 0.96 of the rate instead of
//! 0.99. One cubic without rest brings a ninth more refusals, and 5 per 10 s, sliding, to 0.84
//! instead of 0.91.

use std::ops::Range;
use std::time::Duration;

/// How far below the rate that was found the flow goes on after a refusal, as a share of it,
/// when that rate was learned from no more than [`WELL_KNOWN`]. Less where it was longer.
const MARGIN: f64 = 0.02;
const WELL_KNOWN: Duration = Duration::from_secs(5);
/// How far above it the flow comes before it probes.
const REST: f64 = 0.005;
/// The very first rate comes from a second or two, of which a wait in whole seconds may be
/// half: it is too low rather than too high.
const FIRST_REST: f64 = 0.15;
const SHORT: Duration = Duration::from_secs(3);
/// The shortest and longest time before the flow probes.
const SOONEST: Duration = Duration::from_secs(3);
const LATEST: Duration = Duration::from_secs(34);
/// A rate known from one second may be far off, one known from a minute hardly: it is
/// trusted for this many times as long as what it rests on.
const CAUTION: u32 = 3;
/// A new rate that is such a share of the one before confirms it.
const CONFIRMING: Range<f64> = 0.9..1.1;
/// The shortest and longest time in which probing makes the rate e-fold.
const STEEPEST: Duration = Duration::from_secs(12);
const GENTLEST: Duration = Duration::from_secs(18);

/// Rest and probing: beside the rate that was found for as long as it deserves, then ever
/// faster like CUBIC (RFC 9438), over the logarithm of the rate, so that a limit that was
/// raised tenfold is found within a minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateCurve {
    plateau: f64,
    known_for: Duration,
    margin: f64,
    rest: f64,
    /// How long it rests, and how long it takes from there to e times the rate.
    resting: Duration,
    steepness: Duration,
    probed: Duration,
}

impl RateCurve {
    /// Starts just below a rate known from `known_for`.
    pub(super) fn below(plateau: f64, known_for: Duration) -> Self {
        let resting = known_for.saturating_mul(CAUTION).clamp(SOONEST, LATEST);
        let doubt = WELL_KNOWN.as_secs_f64() / known_for.max(WELL_KNOWN).as_secs_f64();
        let steepness = (resting * 4 / 5).clamp(STEEPEST, GENTLEST);
        let probed = Duration::ZERO;
        Self { plateau, known_for, margin: MARGIN * doubt, rest: REST, resting, steepness, probed }
    }

    /// The same, for the first rate of all.
    pub(super) fn first(plateau: f64, known_for: Duration) -> Self {
        let rest = if known_for < SHORT { FIRST_REST } else { REST };
        Self { rest, ..Self::below(plateau, known_for) }
    }

    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        let rested = (self.probed.as_secs_f64() / self.resting.as_secs_f64()).min(1.0);
        let probing = self.probed.saturating_sub(self.resting);
        let along = probing.as_secs_f64() / self.steepness.as_secs_f64();
        let beside = self.rest * rested - self.margin * (1.0 - rested);
        // e^7 is a thousandfold; nothing grows further without being refused or idle.
        self.plateau * (beside + along.powi(3)).min(7.0).exp()
    }

    /// Whether that is noticeably more than what was found.
    pub(super) fn is_probing(&self) -> bool {
        self.rate() > self.plateau * (1.0 + REST)
    }

    /// The rate that was found.
    pub(super) fn plateau(&self) -> f64 {
        self.plateau
    }

    /// How long the rate was known for before, if `rate` is about the same.
    pub(super) fn confirmed_by(&self, rate: f64) -> Option<Duration> {
        CONFIRMING.contains(&(rate / self.plateau)).then_some(self.known_for)
    }

    /// Time between two requests.
    pub(super) fn spacing(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate())
    }

    /// Comes back to the rate that was found, if it is above it.
    pub(super) fn settle(&mut self) {
        let share = self.margin / (self.margin + self.rest);
        self.probed = self.probed.min(self.resting.mul_f64(share));
    }

    /// Counts time in which requests waited for this rate.
    pub(super) fn probe(&mut self, time: Duration) {
        self.probed = self.probed.saturating_add(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_starts_below_rests_at_the_plateau_and_then_runs() {
        let mut curve = RateCurve::below(20.0, Duration::from_secs(5));
        assert!((curve.rate() - 19.6).abs() < 0.01, "{}", curve.rate());
        curve.probe(15 * Duration::from_secs(1));
        assert!((curve.rate() - 20.1).abs() < 0.01, "{}", curve.rate());
        curve.probe(5 * Duration::from_secs(1));
        assert!(curve.rate() < 22.0, "{}", curve.rate());
        curve.probe(15 * Duration::from_secs(1));
        assert!(curve.rate() > 200.0, "{}", curve.rate());
    }

    #[test]
    fn a_tenfold_rate_is_reached_within_a_minute_however_well_the_old_one_was_known() {
        for known_for in [1, 10, 100, 10_000] {
            let mut curve = RateCurve::below(2.0, Duration::from_secs(known_for));
            curve.probe(Duration::from_secs(58));
            assert!(curve.rate() > 20.0, "{}", curve.rate());
        }
    }

    #[test]
    fn a_rate_known_from_little_is_probed_sooner() {
        let rate_after_ten_seconds = |known_for| {
            let mut curve = RateCurve::below(20.0, Duration::from_secs(known_for));
            curve.probe(Duration::from_secs(10));
            curve.rate()
        };
        assert!(rate_after_ten_seconds(1) > 1.2 * rate_after_ten_seconds(30));
    }

    #[test]
    fn what_is_well_known_is_kept_to_closely() {
        let curve = RateCurve::below(20.0, Duration::from_secs(50));
        assert!(curve.rate() > 19.9, "{}", curve.rate());
    }
}
