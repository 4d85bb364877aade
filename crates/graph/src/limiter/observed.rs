//! Promises what a refusal teaches about the rate, from what was accepted before it; must
//! never believe more than what some limit that Graph is known to have would explain.

use std::time::Duration;

use tokio::time::Instant;

use super::curve::RateCurve;
use super::cycle::{Cycle, Span};
use tapwave_core::limits;

/// A refusal at the rate that was known shows that it was too much, by at least so much.
const TOO_MUCH: f64 = 0.97;
/// Over what is looked when a tenant may have stored something that a quick burst used up.
const LOOKS: [Duration; 3] = [Duration::from_millis(1_500), Duration::from_secs(3), limits::RECENT];

/// The limit was met: one or more refusals that belong together.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitHit {
    began: Instant,
    /// When everybody may come back, as the longest wait says, and as the shortest does.
    until: Instant,
    earliest: Instant,
    refused: u32,
    /// The wait was named in whole seconds, so it is up to one too long.
    rounded: bool,
    /// Requests were leaving quicker than the rate, to catch up.
    hurried: bool,
}

/// What a tenant's limit looks like, as far as refusals have shown it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedLimit {
    /// Most requests that may have come out of a store and not out of the rate.
    store: f64,
    /// So many are granted in so long, and nothing is stored beyond that.
    window: Option<Duration>,
}

/// A rate, and how long the time was that it was learned from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObservedRate {
    pub(super) rate: f64,
    pub(super) known_for: Duration,
}

impl LimitHit {
    /// The first refusal, which came at `began` and holds until `until`.
    pub(super) fn new(
        began: Instant,
        until: Instant,
        refused: u32,
        rounded: bool,
        hurried: bool,
    ) -> Self {
        Self { began, until, earliest: until, refused, rounded, hurried }
    }

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

    /// Whether a window's end is awaited. A bucket's wait is the time of one request; each refusal
    /// may add another, and then the waits differ.
    fn is_of_a_window(&self, rate: f64, round_trip: Duration) -> bool {
        let wait = self.until.saturating_duration_since(self.began);
        let one = Duration::from_secs_f64(2.0 / rate) + limits::RETRY_AFTER_ROUNDING;
        wait > one.max(limits::WINDOW_WAIT) && !self.was_charged(round_trip)
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

impl ObservedLimit {
    /// Nothing was refused yet.
    pub(super) fn unknown() -> Self {
        Self { store: f64::INFINITY, window: None }
    }

    /// Most requests that the tenant may keep for whoever was held back too long.
    pub(super) fn store(&self) -> f64 {
        if self.window.is_some() { 0.0 } else { self.store }
    }

    /// In how long so many are granted, if that is how the tenant counts.
    pub(super) fn window(&self) -> Option<Duration> {
        self.window
    }

    /// Learns from the refusal that ended `cycle`, after which `found` is the rate.
    pub(super) fn learn(
        &mut self,
        cycle: &Cycle,
        event: &LimitHit,
        curve: Option<&RateCurve>,
        found: f64,
        round_trip: Duration,
    ) {
        let accepted = cycle.whole(event.began).accepted();
        let wait = event.until.saturating_duration_since(event.began);
        match curve {
            None => {
                self.store = accepted.max(1.0);
                if event.is_of_a_window(found, round_trip) {
                    self.window = Some(event.until.saturating_duration_since(cycle.started()));
                }
            }
            Some(curve) => {
                if let Some(window) = &mut self.window {
                    *window = (*window).max(wait);
                } else if !event.is_probing(curve) {
                    // So many, and it was refused too soon: they may have been stored.
                    self.store = self.store.max(accepted);
                }
            }
        }
    }
}

/// The rate that a refusal shows: the requests that were accepted in `cycle`, spread evenly over
/// the time from one reopening to the next, would not have been refused. `honoured` says how
/// much of what was held back too long the tenant has proved to keep, from 0 to 1.
pub(super) fn found(
    cycle: &Cycle,
    event: &LimitHit,
    curve: Option<&RateCurve>,
    shape: &ObservedLimit,
    honoured: f64,
    round_trip: Duration,
) -> ObservedRate {
    let known = curve.map(RateCurve::plateau);
    // Refused requests count against Graph's quotas. Not those of the first event, unless they
    // show it: there they can be as many as the accepted ones.
    let charged = if curve.is_some() || event.was_charged(round_trip) { event.refused } else { 0 };
    // Of a rounded wait, only what the tenant honours was time in which it granted more.
    let late = event.until.saturating_duration_since(event.probable_end());
    let end = ago(event.until, late.mul_f64(1.0 - honoured));
    let whole = cycle.whole(end).with(f64::from(charged));
    let lately = cycle.part(ago(event.began, limits::RECENT), end);
    let by_whole = ObservedRate::by(whole.rate(known), &whole);
    let by_lately = ObservedRate::by(lately.rate(known), &lately);
    let either = by_whole.or_more(by_lately);
    let Some(curve) = curve else {
        return if event.is_of_a_window(either.rate, round_trip) {
            // The tenant counted from the first request's arrival, half a round trip after it
            // left, and told the wait half a round trip before we heard it.
            let counted = whole.length().saturating_sub(round_trip).max(round_trip);
            ObservedRate { rate: whole.accepted() / counted.as_secs_f64(), ..either }
        } else {
            either
        };
    };
    let known = curve.plateau();
    if !event.is_probing(curve) {
        return either.no_more_than(known * TOO_MUCH);
    }
    let mut least = by_whole;
    if let Some(window) = shape.window {
        least = least.or_more(in_window(cycle, event, window));
    } else {
        // What was stored may have made the latest ones quicker than the tenant grants.
        if lately.accepted() >= shape.store {
            least = least.or_more(by_lately);
        }
        least = least.or_more(beyond_store(cycle, event, shape.store * honoured + 1.0));
    }
    // What was known before is kept unless the refusal speaks against it.
    let most = if event.hurried { known } else { cycle.whole(event.began).speed() };
    let kept = ObservedRate { rate: known.min(most.max(least.rate)), known_for: whole.length() };
    least.or_more(kept).no_more_than(curve.rate().max(known))
}

/// What a window granted in its last length before everybody may come back.
fn in_window(cycle: &Cycle, event: &LimitHit, window: Duration) -> ObservedRate {
    let end = event.probable_end();
    let span = cycle.part(ago(end, window), end);
    ObservedRate::by(span.rate(None), &span)
}

/// What was granted at least, if no more than `stored` requests came out of a store.
fn beyond_store(cycle: &Cycle, event: &LimitHit, stored: f64) -> ObservedRate {
    let nothing = ObservedRate { rate: 0.0, known_for: Duration::ZERO };
    LOOKS.iter().fold(nothing, |best, look| {
        let span = cycle.part(ago(event.began, *look), event.began);
        // Less is a handful of answers, which may have come together by chance.
        if span.length() < LOOKS[0] / 2 {
            return best;
        }
        let rate = (span.accepted() - stored) / span.length().as_secs_f64();
        best.or_more(ObservedRate::by(rate, &span))
    })
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

    /// `count` requests accepted at once, and then a refusal that names this wait.
    fn volley(count: u32, wait: Duration) -> (Cycle, LimitHit) {
        let start = Instant::now();
        let mut cycle = Cycle::starting(0, start);
        cycle.accepted(start + TRIP, count);
        let began = start + TRIP;
        (cycle, LimitHit::new(began, began + wait, 5, true, false))
    }

    /// A cycle that flowed at these rates, each for so many seconds, and was refused.
    fn flow(parts: &[(u32, u32)], wait: Duration) -> (Cycle, LimitHit) {
        let start = Instant::now();
        let (mut cycle, mut now) = (Cycle::starting(1, start), start);
        for (rate, seconds) in parts {
            for _ in 0..rate * seconds {
                now += SECOND / *rate;
                cycle.accepted(now, 1);
            }
        }
        (cycle, LimitHit::new(now, now + wait, 1, true, false))
    }

    /// A curve that has gone on to probe.
    fn probing(plateau: f64) -> RateCurve {
        let mut curve = RateCurve::below(plateau, 10 * SECOND, TRIP);
        curve.probe(Duration::from_mins(1));
        curve
    }

    fn first(cycle: &Cycle, event: &LimitHit) -> (ObservedRate, ObservedLimit) {
        let mut shape = ObservedLimit::unknown();
        let found = found(cycle, event, None, &shape, 1.0, TRIP);
        shape.learn(cycle, event, None, found.rate, TRIP);
        (found, shape)
    }

    #[test]
    fn a_long_wait_after_a_volley_is_a_windows() {
        let (cycle, event) = volley(5, 10 * SECOND);
        let (found, shape) = first(&cycle, &event);
        assert!((found.rate - 0.5).abs() < 0.001, "{found:?}");
        assert_eq!(shape.window(), Some(10 * SECOND + TRIP));
        assert!(shape.store() < 1.0, "a window stores nothing");
    }

    #[test]
    fn waits_that_grow_are_a_buckets_that_charges_for_refusals() {
        let (cycle, mut event) = volley(1, 4 * SECOND);
        event.and(event.began + 20 * SECOND, 4);
        let (found, shape) = first(&cycle, &event);
        assert!((found.rate - 0.5).abs() < 0.01, "ten in twenty seconds, not {found:?}");
        assert_eq!(shape.window(), None);
        assert!((shape.store() - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_short_wait_says_nothing_about_windows() {
        let (cycle, event) = volley(20, SECOND);
        let (found, shape) = first(&cycle, &event);
        assert!((18.0..20.0).contains(&found.rate), "{found:?}");
        assert_eq!(shape.window(), None);
        assert!((shape.store() - 20.0).abs() < 0.001);
    }

    #[test]
    fn the_end_of_a_quick_spell_counts_where_little_is_stored() {
        let (cycle, event) = flow(&[(2, 60), (20, 10)], SECOND);
        let stores_two = ObservedLimit { store: 2.0, window: None };
        let curve = probing(2.0);
        let told = found(&cycle, &event, Some(&curve), &stores_two, 1.0, TRIP);
        assert!((18.0..20.5).contains(&told.rate), "{told:?}");
        let stores_much = ObservedLimit { store: 3_000.0, window: None };
        let told = found(&cycle, &event, Some(&curve), &stores_much, 1.0, TRIP);
        assert!(told.rate < 5.0, "it may all have been stored: {told:?}");
    }

    #[test]
    fn a_windows_last_length_is_its_rate() {
        let (cycle, event) = flow(&[(4, 30), (6, 5), (4, 5)], SECOND);
        let shape = ObservedLimit { store: 50.0, window: Some(10 * SECOND) };
        let told = found(&cycle, &event, Some(&probing(4.0)), &shape, 1.0, TRIP);
        assert!((4.5..5.2).contains(&told.rate), "{told:?}");
    }

    #[test]
    fn what_was_known_stands_when_probing_went_too_far() {
        let (cycle, event) = flow(&[(20, 40), (23, 5)], SECOND);
        let shape = ObservedLimit { store: 30.0, window: None };
        let told = found(&cycle, &event, Some(&probing(20.1)), &shape, 1.0, TRIP);
        assert!((told.rate - 20.1).abs() < 0.05, "{told:?}");
    }

    #[test]
    fn a_refusal_without_probing_lowers_the_rate() {
        let (cycle, event) = flow(&[(20, 40)], SECOND);
        let curve = RateCurve::at(20.0, 10 * SECOND, TRIP);
        let shape = ObservedLimit { store: 30.0, window: None };
        let told = found(&cycle, &event, Some(&curve), &shape, 1.0, TRIP);
        assert!(told.rate <= 20.0 * TOO_MUCH, "{told:?}");
        assert!(told.rate > 18.0, "{told:?}");
    }
}
