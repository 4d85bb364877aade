//! Promises how the rate moves between two refusals; must never move by time alone: only
//! time in which the rate was what held requests back counts.

use std::time::Duration;

/// Where the flow goes on after a refusal, as a share of the rate that was found.
const START: f64 = 0.98;
/// The shortest and longest time in which the rate grows e-fold beyond what was found.
const FASTEST: Duration = Duration::from_secs(10);
const SLOWEST: Duration = Duration::from_secs(40);
/// A rate known from one second may be far off, one known from a minute hardly: the growth
/// takes this many times as long as what it rests on.
const CAUTION: u32 = 4;

/// CUBIC's curve (RFC 9438) over the logarithm of the rate: quick towards the rate that was
/// found, flat beside it, then ever quicker, so that a limit that was raised tenfold is
/// found within about a minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Curve {
    plateau: f64,
    stretch: Duration,
    probed: Duration,
}

impl Curve {
    /// Starts just below a rate known from `known_for`.
    pub(super) fn below(plateau: f64, known_for: Duration) -> Self {
        let stretch = known_for.saturating_mul(CAUTION).clamp(FASTEST, SLOWEST);
        Self { plateau, stretch, probed: Duration::ZERO }
    }

    /// Starts on the flat part.
    pub(super) fn at(plateau: f64, known_for: Duration) -> Self {
        let below = Self::below(plateau, known_for);
        Self { probed: below.stretch.mul_f64(flat()), ..below }
    }

    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        let along = self.probed.as_secs_f64() / self.stretch.as_secs_f64() - flat();
        // e^7 is a thousandfold; nothing grows further without being refused or idle.
        self.plateau * along.powi(3).min(7.0).exp()
    }

    /// The rate that was found.
    pub(super) fn plateau(&self) -> f64 {
        self.plateau
    }

    /// Time between two requests.
    pub(super) fn spacing(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate())
    }

    /// Counts time in which requests waited for this rate.
    pub(super) fn probe(&mut self, time: Duration) {
        self.probed = self.probed.saturating_add(time);
    }
}

/// Where the curve is flat, in stretches from its start.
fn flat() -> f64 {
    (-START.ln()).cbrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_starts_below_rests_at_the_plateau_and_then_runs() {
        let mut curve = Curve::below(20.0, Duration::from_mins(1));
        assert!((curve.rate() - 19.6).abs() < 0.01, "{}", curve.rate());
        curve.probe(SLOWEST.mul_f64(flat()));
        assert!((curve.rate() - 20.0).abs() < 0.01, "{}", curve.rate());
        curve.probe(Duration::from_secs(10));
        assert!(curve.rate() < 20.5, "{}", curve.rate());
        curve.probe(Duration::from_secs(45));
        assert!(curve.rate() > 200.0, "{}", curve.rate());
    }

    #[test]
    fn a_rate_known_from_little_is_probed_sooner() {
        let rate_after_ten_seconds = |known_for| {
            let mut curve = Curve::below(20.0, Duration::from_secs(known_for));
            curve.probe(Duration::from_secs(10));
            curve.rate()
        };
        assert!(rate_after_ten_seconds(1) > 1.2 * rate_after_ten_seconds(30));
    }
}
