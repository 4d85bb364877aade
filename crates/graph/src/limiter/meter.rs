//! An even flow at a rate that may change at any moment, on governor's cells. It must never hand
//! out credit for a hold, nor more credit for idleness than a late timer can cause.
//!
//! A governor quota cannot be changed, and a fresh limiter grants a fresh burst. So there
//! is one limiter of 1,000 small cells, and two things vary instead: what a request costs,
//! and how fast governor's clock, which is ours, runs. The clock stands still while
//! nothing may be sent.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use tapwave_core::limits;

/// Cells in the bucket.
const CELLS: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not zero");
/// Governor's time in which one cell grows back.
const CELL: Duration = Duration::from_millis(1);

type Cells = RateLimiter<NotKeyed, InMemoryState, Odometer, NoOpMiddleware<Duration>>;

/// An even flow of requests.
#[derive(Debug)]
pub(super) struct Meter {
    cells: Cells,
    read_at: Instant,
    /// Requests whose cells are taken already, for a batch that is still waiting for the rest.
    gathered: u32,
}

/// Governor's clock: runs at our speed, not at time's.
#[derive(Debug, Default)]
struct Odometer(Cell<Duration>);

impl Clock for Odometer {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

impl Meter {
    /// A meter with a full bucket.
    pub(super) fn new(now: Instant) -> Self {
        let quota = Quota::with_period(CELL).expect("a cell takes time").allow_burst(CELLS);
        Self {
            cells: RateLimiter::direct_with_clock(quota, Odometer::default()),
            read_at: now,
            gathered: 0,
        }
    }

    /// Starts the flow afresh at `now`, at `rate` per second: one request may leave, whatever
    /// had been earned.
    pub(super) fn restart(&mut self, now: Instant, rate: f64) {
        self.gathered = 0;
        self.read_at = self.read_at.max(now);
        self.set(CELL * cost(rate).get());
    }

    /// Forgets what had been earned by `now` beyond one request; the flow goes on at `rate` per
    /// second.
    pub(super) fn trim(&mut self, now: Instant, rate: f64) {
        self.gathered = 0;
        let cost = cost(rate);
        self.run_to(now, rate);
        let missing = self.spend(cost).err().unwrap_or_default();
        self.set((CELL * cost.get()).saturating_sub(missing));
    }

    /// Takes the cells of `count` requests, one after the other, or says how long the next one's
    /// still need at `rate` per second.
    pub(super) fn gather(&mut self, now: Instant, rate: f64, count: u32) -> Result<(), Duration> {
        self.gathered = self.gathered.min(count);
        while self.gathered < count {
            self.take(now, rate)?;
            self.gathered += 1;
        }
        self.gathered = 0;
        Ok(())
    }

    /// Takes one request's cells, or says how long they still need at `rate` per second.
    fn take(&mut self, now: Instant, rate: f64) -> Result<(), Duration> {
        self.run_to(now, rate);
        let cost = cost(rate);
        let wait = |missing: Duration| missing.div_f64(speed(rate)).max(Duration::from_micros(1));
        self.spend(cost).map_err(wait)
    }

    /// Lets governor's clock run at this rate's speed until then.
    fn run_to(&mut self, now: Instant, rate: f64) {
        // More than a bucketful is lost anyhow; the bound keeps a long night from overflowing.
        let passed = now.saturating_duration_since(self.read_at).as_secs_f64() * speed(rate);
        self.advance(Duration::from_secs_f64(passed.min(CELL.as_secs_f64() * 1_000.0)));
        self.read_at = self.read_at.max(now);
    }

    /// Takes so many cells, or says how long they are still growing by governor's clock.
    fn spend(&self, cells: NonZeroU32) -> Result<(), Duration> {
        match self.cells.check_n(cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.cells.clock().now())),
            // Nobody asks for more than the bucket holds: see `cost`.
            Err(_) => Err(CELL * cells.get()),
        }
    }

    /// Leaves what grows in so much of governor's time in the bucket, and nothing else.
    fn set(&mut self, credit: Duration) {
        // A full bucket is the one state of governor's that can be reached from any other
        // without a count of what is in it.
        self.advance(CELL * CELLS.get());
        let emptied = self.spend(CELLS);
        debug_assert!(emptied.is_ok(), "a full bucket can be emptied");
        self.advance(credit);
    }

    fn advance(&mut self, by: Duration) {
        let odometer = &self.cells.clock().0;
        odometer.set(odometer.get().saturating_add(by));
    }
}

/// How much faster than time governor's clock runs, so that `rate` requests grow in a second.
fn speed(rate: f64) -> f64 {
    rate * f64::from(cost(rate).get()) * CELL.as_secs_f64()
}

/// What a request costs: the whole bucket at slow rates, and little enough at fast ones
/// that the credit of [`limits::TIMER_LATENESS`] fits beside it. Rounded up, so that the
/// bucket never holds more than that credit.
fn cost(rate: f64) -> NonZeroU32 {
    let requests_in_bucket = 1.0 + rate * limits::TIMER_LATENESS.as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the quotient lies between 0 and 1,000, and `as` saturates"
    )]
    let cells = (f64::from(CELLS.get()) / requests_in_bucket).ceil() as u32;
    NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests let through in `span`, asking again exactly when told.
    fn taken(meter: &mut Meter, from: Instant, span: Duration, rate: f64) -> u32 {
        let (mut now, mut count) = (from, 0);
        while now < from + span {
            match meter.take(now, rate) {
                Ok(()) => count += 1,
                Err(wait) => now += wait,
            }
        }
        count
    }

    #[test]
    fn the_flow_keeps_its_rate_from_slow_to_fast() {
        for rate in [0.5, 3.0, 20.0, 333.0, 1_000.0] {
            let start = Instant::now();
            let mut meter = Meter::new(start);
            meter.restart(start, rate);
            let bucket = 1.0 + rate * 0.05;
            let count = f64::from(taken(&mut meter, start, Duration::from_secs(100), rate));
            assert!((count - rate * 100.0).abs() <= bucket + 1.0, "{rate}/s gave {count}");
        }
    }

    #[test]
    fn a_restart_leaves_one_request() {
        for rate in [0.5, 20.0, 1_000.0] {
            let start = Instant::now();
            let mut meter = Meter::new(start);
            meter.restart(start, rate);
            assert!(meter.take(start, rate).is_ok());
            assert!(meter.take(start, rate).is_err(), "two at once at {rate}/s");
        }
    }

    #[test]
    fn what_is_trimmed_was_earned() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.restart(start, 0.8);
        assert!(meter.take(start, 0.8).is_ok());
        let soon = start + Duration::from_millis(250);
        meter.trim(soon, 0.8);
        let wait = meter.take(soon, 0.8).expect_err("a fifth has grown");
        assert!((0.99..1.01).contains(&wait.as_secs_f64()), "four fifths take {wait:?}");
        let late = soon + Duration::from_mins(1);
        meter.trim(late, 20.0);
        assert!(meter.take(late, 20.0).is_ok());
        assert!(meter.take(late, 20.0).is_err(), "more than one request is forgotten");
    }

    #[test]
    fn idleness_earns_no_more_than_a_late_timer() {
        let start = Instant::now();
        let later = start + Duration::from_hours(1);
        // 19.96/s is one whose bucket misses the second request by a hair.
        for rate in [0.5, 7.0, 19.96, 20.0, 199.9, 333.3, 1_000.0] {
            let mut meter = Meter::new(start);
            meter.restart(start, rate);
            let at_once = (0..100).take_while(|_| meter.take(later, rate).is_ok()).count();
            let most = 1.0 + rate * limits::TIMER_LATENESS.as_secs_f64();
            let at_once = f64::from(u32::try_from(at_once).expect("no more than a hundred"));
            assert!((1.0..=most).contains(&at_once), "{at_once} left at once at {rate}/s");
        }
    }
}
