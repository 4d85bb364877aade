//! What a hold kept back for too long is caught up, as far as the tenant honours it; a refusal
//! while catching up makes it more modest. Without it, 20/s at 200 ms comes to 0.95 of the rate
//! instead of 0.99, and 80/s at 10 ms to 0.96 instead of 0.99.

use std::time::Duration;

use tapwave_core::limits;

/// How much quicker requests leave while debt is caught up.
const CATCHING_UP: f64 = 1.25;
/// How much of the debt is caught up at most: a little left in a token bucket does no
/// harm, an empty one is a refusal. And at least, so that trust can come back.
const MOST_TRUST: f64 = 0.75;
const LEAST_TRUST: f64 = 0.05;
/// Less than this is not worth a refusal.
const LEAST_DUE: f64 = 2.0;
/// How much of the trust is left after a refusal that came soon after catching up, and how it
/// grows with each refusal that did not.
const DISAPPOINTED: f64 = 0.3;
const RECOVERING: f64 = 1.1;

/// Requests that a hold kept back for longer than Graph's limit did. `Retry-After` is
/// rounded up to whole seconds and counted from an answer that was half a round trip old; a
/// token bucket has gone on filling all the while, and what overflows is lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Debt {
    owed: f64,
    /// What was owed when the hold ended.
    due: f64,
    /// How much of it the tenant has proved to honour, from 0 to 1.
    trust: f64,
    /// How much too long the hold may be.
    late: Duration,
    /// The last refusal was put down to catching up. Not two in a row: then the rate is wrong.
    /// Without that, 3,000 and then 20/s comes to 0.24 of what is possible instead of 0.93.
    excused: bool,
}

impl Debt {
    /// Nothing is owed, and much is believed.
    pub(super) fn none() -> Self {
        Self { owed: 0.0, due: 0.0, trust: MOST_TRUST, late: Duration::ZERO, excused: false }
    }

    /// The hold is over, and the flow goes on at about `rate`. No more than `store` requests
    /// can have been kept.
    pub(super) fn fall_due(&mut self, rate: f64, store: f64) {
        let due = (self.trust * rate * self.late.as_secs_f64()).min(store - 1.0);
        self.due = if due < LEAST_DUE { 0.0 } else { due };
        self.owed = self.due;
    }

    /// How much quicker than the rate requests leave just now.
    pub(super) fn speed(&self) -> f64 {
        if self.owed > 0.0 { CATCHING_UP } else { 1.0 }
    }

    /// How much of what is kept back too long the tenant has proved to honour, from 0 to 1.
    pub(super) fn honoured(&self) -> f64 {
        (self.trust - LEAST_TRUST) / (MOST_TRUST - LEAST_TRUST)
    }

    /// `count` requests have left.
    pub(super) fn pay(&mut self, count: u32) {
        self.owed = (self.owed - f64::from(count) * (1.0 - 1.0 / CATCHING_UP)).max(0.0);
    }

    /// A refusal while catching up, or `soon` after it at no more than the rate that was found,
    /// shows that less was kept back than was thought. Whether it is put down to that, and not to
    /// the rate.
    pub(super) fn refused(
        &mut self,
        retry_after: Option<Duration>,
        round_trip: Duration,
        soon: bool,
    ) -> bool {
        let hurried = self.owed > 0.0 || soon && self.due > 0.0;
        let change = match hurried {
            true if self.owed > 0.0 => 1.0 - self.owed / self.due - 0.1,
            true => DISAPPOINTED,
            false => RECOVERING,
        };
        self.trust = (self.trust * change).clamp(LEAST_TRUST, MOST_TRUST);
        self.owed = 0.0;
        self.late = match retry_after {
            // A wait with a fraction was not rounded.
            Some(wait) if wait.subsec_nanos() > 0 => Duration::ZERO,
            _ => limits::RETRY_AFTER_ROUNDING + round_trip,
        };
        self.excused = hurried && !self.excused;
        self.excused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Requests that leave quicker than the rate.
    fn caught_up(debt: &mut Debt) -> u32 {
        (0..10_000)
            .take_while(|_| {
                let quicker = debt.speed() > 1.0;
                debt.pay(1);
                quicker
            })
            .fold(0, |count, _| count + 1)
    }

    #[test]
    fn whole_seconds_are_caught_up_and_exact_waits_are_not() {
        let mut debt = Debt::none();
        debt.refused(Some(SECOND), Duration::ZERO, false);
        debt.fall_due(20.0, 1_000.0);
        // Fifteen requests' time, won back at a fifth of a request each.
        assert!((74..=76).contains(&caught_up(&mut debt)));
        debt.refused(Some(Duration::from_millis(1_250)), Duration::ZERO, false);
        debt.fall_due(20.0, 1_000.0);
        assert_eq!(caught_up(&mut debt), 0);
    }

    #[test]
    fn a_refusal_while_catching_up_teaches_modesty() {
        let mut debt = Debt::none();
        debt.refused(Some(SECOND), Duration::ZERO, false);
        debt.fall_due(20.0, 1_000.0);
        debt.pay(10);
        debt.refused(Some(SECOND), Duration::ZERO, false);
        debt.fall_due(20.0, 1_000.0);
        assert!(caught_up(&mut debt) <= 10);
    }
}
