//! What a refusal teaches about the rate, from what was accepted before it. It must never believe
//! more than what some limit that Graph is known to have would explain.
//!
//! The plain rule, what was accepted since the last hold over the time since then, comes to 0.17
//! of 0.5/s where refusals are charged instead of 0.72 (they are counted, and tell themselves by
//! waits that grow), and to 0.64 of 20/s with waits up to 2 s too long instead of 0.85 (what one
//! who stores little let through beyond its store, it granted as it came).

use std::time::Duration;

use tokio::time::Instant;

use super::curve::RateCurve;
use super::cycle::{Cycle, Span};
use tapwave_core::limits;

/// A refusal at the rate that was known shows that it was too much, by at least so much.
const TOO_MUCH: f64 = 0.97;
/// Over what is looked when a tenant may have stored something that a fast stretch used up. Less
/// would be a handful of answers, which may have come together by chance.
const FAST_STRETCH: Duration = Duration::from_secs(3);

/// The limit was met: one or more refusals that belong together.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitHit {
    pub(super) began: Instant,
    /// When everybody may come back, as the longest wait says, and as the shortest does.
    pub(super) until: Instant,
    pub(super) earliest: Instant,
    pub(super) refused: u32,
    /// The wait was named in whole seconds, so it is up to one too long.
    pub(super) rounded: bool,
    /// Requests were leaving quicker than the rate, to catch up.
    pub(super) hurried: bool,
}

/// Most requests that may have come out of a store and not out of the rate, as far as refusals
/// have shown it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Store(f64);

/// A rate, and how long the time was that it was learned from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedRate {
    pub(super) rate: f64,
    pub(super) known_for: Duration,
}

impl LimitHit {
    /// Another refusal of a request that was out already.
    pub(super) fn and(&mut self, until: Instant, refused: u32) {
        self.until = self.until.max(until);
        self.earliest = self.earliest.min(until);
        self.refused = self.refused.saturating_add(refused);
    }

    /// Each refusal made the wait longer: it was charged like a request that is granted.
    fn was_charged(&self, round_trip: Duration) -> bool {
        let grown = self.until.saturating_duration_since(self.earliest);
        self.refused >= limits::CHARGED_REFUSALS && grown >= limits::CHARGED_WAIT + round_trip
    }

    /// Whether the wait is long, and neither rounding nor the refusals made it so.
    fn is_long(&self, round_trip: Duration) -> bool {
        let wait = self.until.saturating_duration_since(self.began);
        wait > limits::LONG_WAIT && !self.was_charged(round_trip)
    }

    /// Whether requests were leaving quicker than the rate that was known.
    fn is_probing(&self, curve: &RateCurve) -> bool {
        self.hurried || curve.is_probing()
    }

    /// When the hold would probably have ended if its wait had not been rounded up.
    fn probable_end(&self) -> Instant {
        let early = if self.rounded { limits::RETRY_AFTER_ROUNDING / 2 } else { Duration::ZERO };
        self.began.max(self.until.checked_sub(early).unwrap_or(self.until))
    }
}

impl Store {
    /// Nothing was refused yet.
    pub(super) fn unknown() -> Self {
        Self(f64::INFINITY)
    }

    /// Most requests that the tenant may keep for whoever was held back too long.
    pub(super) fn most(self) -> f64 {
        self.0
    }

    /// Learns from the refusal that ended `cycle`.
    pub(super) fn learn(&mut self, cycle: &Cycle, hit: &LimitHit, curve: Option<&RateCurve>) {
        let accepted = cycle.whole(hit.began).accepted();
        match curve {
            None => self.0 = accepted.max(1.0),
            // So many, and it was refused too soon: they may have been stored.
            Some(curve) if !hit.is_probing(curve) => self.0 = self.0.max(accepted),
            Some(_) => {}
        }
    }
}

/// The rate that a refusal shows: the requests that were accepted in `cycle`, spread evenly over
/// the time from the end of one hold to the end of the next, would not have been refused. `honoured` says how
/// much of what was held back too long the tenant has proved to keep, from 0 to 1.
pub(super) fn found(
    cycle: &Cycle,
    hit: &LimitHit,
    curve: Option<&RateCurve>,
    store: Store,
    honoured: f64,
    round_trip: Duration,
) -> ObservedRate {
    let known = curve.map(RateCurve::plateau);
    // Refused requests count against Graph's quotas. Not those of the first hit, unless they
    // show it: there they can be as many as the accepted ones.
    let charged = if curve.is_some() || hit.was_charged(round_trip) { hit.refused } else { 0 };
    // Of a rounded wait, only what the tenant honours was time in which it granted more.
    let late = hit.until.saturating_duration_since(hit.probable_end());
    let mut end = ago(hit.until, late.mul_f64(1.0 - honoured));
    if curve.is_none() && hit.is_long(round_trip) {
        // The tenant counted from the first request's arrival, half a round trip after it left,
        // and its answer with the wait took the other half.
        end = ago(end, round_trip);
    }
    let whole = cycle.whole(end).with(f64::from(charged));
    let lately = cycle.part(ago(hit.began, limits::RECENT), end);
    let by_whole = ObservedRate::by(whole.rate(known), &whole);
    let by_lately = ObservedRate::by(lately.rate(known), &lately);
    let either = by_whole.or_more(by_lately);
    let Some(curve) = curve else { return either };
    let known = curve.plateau();
    if !hit.is_probing(curve) {
        return either.no_more_than(known * TOO_MUCH);
    }
    let beyond = beyond_store(cycle, hit, store.most() * honoured + 1.0);
    // What was known before is kept unless the refusal speaks against it.
    let kept = ObservedRate { rate: known, known_for: whole.length() };
    by_whole.or_more(beyond).or_more(kept).no_more_than(curve.rate().max(known))
}

/// What was granted at least, if no more than `stored` requests came out of a store. Over the short
/// look alone, 5 a second with waits of 10 s takes 2.42 times the limit's own time instead of 2.29.
fn beyond_store(cycle: &Cycle, hit: &LimitHit, stored: f64) -> ObservedRate {
    let granted = |look| {
        let span = cycle.part(ago(hit.began, look), hit.began);
        let rate = (span.accepted() - stored) / span.length().max(FAST_STRETCH / 4).as_secs_f64();
        ObservedRate::by(rate, &span)
    };
    granted(FAST_STRETCH).or_more(granted(limits::RECENT))
}

impl ObservedRate {
    fn by(rate: f64, span: &Span) -> Self {
        Self { rate, known_for: span.length() }
    }

    fn or_more(self, other: Self) -> Self {
        if other.rate > self.rate { other } else { self }
    }

    fn no_more_than(self, most: f64) -> Self {
        Self { rate: self.rate.min(most), ..self }
    }
}

/// That long before.
fn ago(moment: Instant, time: Duration) -> Instant {
    moment.checked_sub(time).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TRIP: Duration = Duration::from_millis(50);

    fn hit(began: Instant, until: Instant, refused: u32) -> LimitHit {
        LimitHit { began, until, earliest: until, refused, rounded: true, hurried: false }
    }

    /// `count` requests accepted at once, and then a refusal that names this wait.
    fn burst(count: u32, wait: Duration) -> (Cycle, LimitHit) {
        let start = Instant::now();
        let mut cycle = Cycle::starting(start);
        cycle.accepted(start + TRIP, 0, count);
        let began = start + TRIP;
        (cycle, hit(began, began + wait, 5))
    }

    /// A cycle that flowed at these rates, each for so many seconds, and was refused.
    fn flow(parts: &[(u32, u32)], wait: Duration) -> (Cycle, LimitHit) {
        let start = Instant::now();
        let (mut cycle, mut now) = (Cycle::starting(start), start);
        for (rate, seconds) in parts {
            for _ in 0..rate * seconds {
                now += SECOND / *rate;
                cycle.accepted(now, 0, 1);
            }
        }
        (cycle, hit(now, now + wait, 1))
    }

    /// A curve that has gone on to probe.
    fn probing(plateau: f64) -> RateCurve {
        let mut curve = RateCurve::below(plateau, 10 * SECOND);
        curve.probe(Duration::from_mins(1));
        curve
    }

    fn first(cycle: &Cycle, hit: &LimitHit) -> (ObservedRate, f64) {
        let mut store = Store::unknown();
        let found = found(cycle, hit, None, store, 1.0, TRIP);
        store.learn(cycle, hit, None);
        (found, store.most())
    }

    #[test]
    fn waits_that_grow_are_a_buckets_that_charges_for_refusals() {
        let (cycle, mut hit) = burst(1, 4 * SECOND);
        hit.and(hit.began + 20 * SECOND, 4);
        let (found, store) = first(&cycle, &hit);
        assert!((found.rate - 0.5).abs() < 0.01, "ten in twenty seconds, not {found:?}");
        assert!((store - 1.0).abs() < 0.001);
    }

    #[test]
    fn what_was_let_through_at_first_may_have_been_stored() {
        let (cycle, hit) = burst(20, SECOND);
        let (found, store) = first(&cycle, &hit);
        assert!((18.0..20.0).contains(&found.rate), "{found:?}");
        assert!((store - 20.0).abs() < 0.001);
    }

    #[test]
    fn the_end_of_a_quick_spell_counts_where_little_is_stored() {
        let (cycle, hit) = flow(&[(2, 60), (20, 10)], SECOND);
        let stores_two = Store(2.0);
        let curve = probing(2.0);
        let found_rate = found(&cycle, &hit, Some(&curve), stores_two, 1.0, TRIP);
        assert!((18.0..20.5).contains(&found_rate.rate), "{found_rate:?}");
        let stores_much = Store(3_000.0);
        let found_rate = found(&cycle, &hit, Some(&curve), stores_much, 1.0, TRIP);
        assert!(found_rate.rate < 5.0, "it may all have been stored: {found_rate:?}");
    }

    #[test]
    fn what_was_known_stands_when_probing_went_too_far() {
        let (cycle, hit) = flow(&[(20, 40), (23, 5)], SECOND);
        let store = Store(30.0);
        let found_rate = found(&cycle, &hit, Some(&probing(20.1)), store, 1.0, TRIP);
        assert!((found_rate.rate - 20.1).abs() < 0.05, "{found_rate:?}");
    }

    #[test]
    fn a_refusal_without_probing_lowers_the_rate() {
        let (cycle, hit) = flow(&[(20, 40)], SECOND);
        let curve = RateCurve::below(20.0, 10 * SECOND);
        let store = Store(30.0);
        let found_rate = found(&cycle, &hit, Some(&curve), store, 1.0, TRIP);
        assert!(found_rate.rate <= 20.0 * TOO_MUCH, "{found_rate:?}");
        assert!(found_rate.rate > 18.0, "{found_rate:?}");
    }
}
