//! The limiter against the limits that Graph is known or feared to have, in virtual time: each
//! case has the time that its limit itself takes, and how far above it the limiter may be. It
//! must never touch the network or the wall clock. The server is the one of `crate::quota`; what
//! stands here beside it is the path to it and how it names a wait.
//!
//! `cargo test -p tapwave-graph limiter::simulation -- --nocapture` prints one line per case.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::Instant;

use super::{Budget, Limiter, LimiterOptions, Permit, Throttled};
use crate::quota::{Limit, Quota, whole_seconds};
use tapwave_core::clock::Clock;
use tapwave_core::limits;

/// How a server names the wait.
#[derive(Debug, Clone, Copy)]
enum RetryAfter {
    /// Whole seconds, rounded up: what Graph does.
    Seconds,
    Exact,
    /// Whole seconds, plus up to so many more.
    Jittered(f64),
    /// Always so many seconds, however short the limit's own wait is.
    Always(u64),
    Absent,
}

/// One case: the tenant, the path to it, and the work.
#[derive(Debug, Clone)]
struct Case {
    name: &'static str,
    limit: Limit,
    /// Refused requests use the quota up as well.
    charged: bool,
    /// From this second on, another limit.
    then: Option<(f64, Limit)>,
    retry_after: RetryAfter,
    /// Requests per second of somebody else.
    competitor: f64,
    /// Seconds there and back, and by what share it varies.
    latency: f64,
    varies: f64,
    rows: u32,
    /// The rows come two hundred at a time, so many seconds apart.
    pause: u32,
    /// They go in batches of up to twenty, each of whose requests the server counts by itself.
    batches: bool,
    max_rate: Option<f64>,
    seed: u64,
}

impl Case {
    fn new(name: &'static str, limit: Limit, rows: u32) -> Self {
        Self {
            name,
            limit,
            charged: false,
            then: None,
            retry_after: RetryAfter::Seconds,
            competitor: 0.0,
            latency: 0.05,
            varies: 0.1,
            rows,
            pause: 0,
            batches: false,
            max_rate: None,
            seed: 7,
        }
    }

    fn latency(self, latency: f64) -> Self {
        Self { latency, ..self }
    }

    fn charged(self, charged: bool) -> Self {
        Self { charged, ..self }
    }
}

fn fixed(units: f64, seconds: u64) -> Limit {
    Limit::Fixed { units, per: Duration::from_secs(seconds) }
}

fn sliding(units: f64, seconds: u64) -> Limit {
    Limit::Sliding { units, per: Duration::from_secs(seconds) }
}

#[derive(Debug)]
struct Server {
    quota: Quota,
    then: Option<(f64, Limit)>,
    retry_after: RetryAfter,
    chance: fastrand::Rng,
}

impl Server {
    fn new(case: &Case) -> Self {
        let mut quota = Quota::of(case.limit);
        quota.refused_are_free = !case.charged;
        quota.endless_debt = true;
        quota.competing = case.competitor;
        let chance = fastrand::Rng::with_seed(case.seed);
        Self { quota, then: case.then, retry_after: case.retry_after, chance }
    }

    /// A request that comes so long after the start: accepted, or refused with the wait.
    fn ask(&mut self, now: Duration) -> Result<(), Option<Duration>> {
        if let Some((_, limit)) = self.then.take_if(|(from, _)| *from <= now.as_secs_f64()) {
            self.quota.change(limit);
        }
        self.quota.ask(now, 1.0).map_err(|wait| {
            let seconds = Duration::from_secs(whole_seconds(wait));
            match self.retry_after {
                RetryAfter::Seconds => Some(seconds),
                RetryAfter::Exact => Some(wait),
                RetryAfter::Jittered(most) => {
                    Some(seconds + Duration::from_secs_f64(most * self.chance.f64()))
                }
                RetryAfter::Always(seconds) => Some(Duration::from_secs(seconds)),
                RetryAfter::Absent => None,
            }
        })
    }
}

/// What a case came to.
#[derive(Debug)]
struct Outcome {
    seconds: f64,
    refused: u64,
    most_in_flight: u32,
    /// Accepted requests by whole second.
    by_second: Vec<u32>,
}

impl Outcome {
    fn note(&mut self, after: Duration, accepted: u32, refused: u32) {
        self.refused += u64::from(refused);
        if accepted > 0 {
            let second = usize::try_from(after.as_secs()).unwrap();
            self.by_second.resize(self.by_second.len().max(second + 1), 0);
            self.by_second[second] += accepted;
            self.seconds = after.as_secs_f64();
        }
    }

    /// Accepted per second between two seconds.
    fn rate(&self, from: usize, to: usize) -> f64 {
        let accepted: u32 = self.by_second.iter().skip(from).take(to - from).sum();
        f64::from(accepted) / f64::from(u32::try_from(to - from).unwrap())
    }
}

/// The rows of a case, and what has come of them so far.
struct Work {
    case: Case,
    start: Instant,
    limiter: Limiter,
    server: RefCell<Server>,
    left: Cell<u32>,
    open: Cell<u32>,
    in_flight: Cell<u32>,
    outcome: RefCell<Outcome>,
}

impl Work {
    fn new(case: &Case) -> Self {
        let options = LimiterOptions { max_rate: case.max_rate, ..LimiterOptions::default() };
        let by_second = Vec::new();
        let outcome = Outcome { seconds: 0.0, refused: 0, most_in_flight: 0, by_second };
        Self {
            case: case.clone(),
            start: Instant::now(),
            limiter: Limiter::new(options, Clock::system()),
            server: RefCell::new(Server::new(case)),
            left: Cell::new(case.rows),
            open: Cell::new(case.rows),
            in_flight: Cell::new(0),
            outcome: RefCell::new(outcome),
        }
    }

    /// One of many tasks, each of which asks for leave and sends until nothing is left.
    async fn take_part(&self, mut chance: fastrand::Rng) {
        while self.open.get() > 0 {
            self.wait_for_rows().await;
            let Some(permit) = self.permit().await else {
                // A batch that is under way may yet come back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let sent = permit.count();
            self.left.set(self.left.get() - sent);
            self.send(permit, &mut chance).await;
        }
    }

    async fn wait_for_rows(&self) {
        let block = (self.case.rows - self.left.get()) / 200;
        let from = self.start + Duration::from_secs(u64::from(block * self.case.pause));
        tokio::time::sleep_until(from).await;
    }

    /// Leave to send, if anything is left when it is given.
    async fn permit(&self) -> Option<Permit> {
        let most = u32::try_from(limits::REQUESTS_PER_BATCH).unwrap();
        let waiting = || self.left.get().min(if self.case.batches { most } else { 1 });
        let permit = self.limiter.admit_batch(Budget::PassWrites, waiting).await;
        let mut permit = permit.expect("not barred")?;
        let leaves = permit.depart().await;
        (leaves && permit.count() <= self.left.get()).then_some(permit)
    }

    async fn send(&self, permit: Permit, chance: &mut fastrand::Rng) {
        let count = permit.count();
        self.in_flight.set(self.in_flight.get() + count);
        let most = self.outcome.borrow().most_in_flight.max(self.in_flight.get());
        self.outcome.borrow_mut().most_in_flight = most;
        self.half_the_way(chance).await;
        let answers: Vec<_> =
            (0..count).map(|_| self.server.borrow_mut().ask(self.start.elapsed())).collect();
        self.half_the_way(chance).await;
        self.in_flight.set(self.in_flight.get() - count);
        let refusals: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        let refused = u32::try_from(refusals.len()).unwrap();
        let retry_after = refusals.into_iter().flatten().max();
        let throttled = (refused > 0).then_some(Throttled { count: refused, retry_after });
        permit.answered(count - refused, throttled);
        self.left.set(self.left.get() + refused);
        self.open.set(self.open.get() - (count - refused));
        self.outcome.borrow_mut().note(self.start.elapsed(), count - refused, refused);
    }

    async fn half_the_way(&self, chance: &mut fastrand::Rng) {
        let factor = 1.0 + self.case.varies * (2.0 * chance.f64() - 1.0);
        tokio::time::sleep(Duration::from_secs_f64(self.case.latency / 2.0 * factor)).await;
    }
}

/// Works the case off with twice as many tasks as may be in flight.
async fn run(case: &Case) -> Outcome {
    let work = Rc::new(Work::new(case));
    let tasks = LocalSet::new();
    for seed in 0..if case.batches { 8 } else { 128 } {
        let (work, chance) = (Rc::clone(&work), case.seed * 1_000 + seed);
        tasks.spawn_local(async move {
            work.take_part(fastrand::Rng::with_seed(chance)).await;
        });
    }
    tasks.await;
    Rc::into_inner(work).expect("all tasks have ended").outcome.into_inner()
}

/// Runs a case, prints its line, and holds its bounds.
async fn holds(case: Case, ideal: f64, most: f64, most_refused: u64) -> Outcome {
    let outcome = run(&case).await;
    let ratio = outcome.seconds / ideal;
    println!(
        "{:<44} {:>5} ms {:>8.2} s {:>8.2} s {:>6.3} {:>4} refused",
        case.name,
        case.latency * 1_000.0,
        ideal,
        outcome.seconds,
        ratio,
        outcome.refused
    );
    let batched = u32::try_from(limits::BATCHES_IN_FLIGHT * limits::REQUESTS_PER_BATCH).unwrap();
    assert!(outcome.most_in_flight <= if case.batches { batched } else { 64 });
    assert!(ratio <= most, "{}: {ratio:.3} × the ideal time", case.name);
    assert!(outcome.refused <= most_refused, "{}: {} refused", case.name, outcome.refused);
    outcome
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_without_a_throttle() {
    for (latency, most) in [(0.01, 1.25), (0.05, 1.15), (0.2, 1.12), (2.0, 1.12)] {
        for varies in [0.0, 0.1] {
            let case = Case { varies, ..Case::new("no throttle", Limit::None, 2_000) };
            holds(case.latency(latency), 2_000.0 * latency / 64.0, most, 0).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_a_second_are_met_within_two_percent() {
    for latency in [0.01, 0.05, 0.1, 0.2] {
        for charged in [true, false] {
            for varies in [0.0, 0.1] {
                let case = Case { varies, ..Case::new("20/s, burst 20", bucket(20.0), 2_000) };
                holds(case.latency(latency).charged(charged), 99.0, 1.02, 20).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_path_costs_little_more() {
    for (latency, charged, most, most_refused) in
        [(0.05, true, 1.02, 20), (0.2, true, 1.05, 40), (0.2, false, 1.03, 30)]
    {
        let limit = bucket(20.0);
        let case = Case { varies: 0.4, ..Case::new("20/s, a path that varies", limit, 2_000) };
        holds(case.latency(latency).charged(charged), 99.0, most, most_refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn five_in_ten_seconds_are_met_within_ten_percent() {
    for latency in [0.01, 0.05, 0.2, 0.5] {
        for varies in [0.0, 0.1] {
            let limit = fixed(5.0, 10);
            let case = Case { varies, ..Case::new("5 per 10 s, fixed", limit, 60) };
            holds(case.latency(latency), 110.0, 1.10, 15).await;
        }
    }
}

/// Even spacing alone costs as much as one window less one request: the last window's requests
/// could have left at its beginning.
#[tokio::test(start_paused = true)]
async fn a_sliding_window_is_met_too() {
    for (name, count, span, rows, charged, free) in [
        ("5 per 10 s, sliding", 5_u32, 10_u32, 60_u32, 1.16, 1.13),
        ("5 per 10 s, sliding", 5, 10, 200, 1.12, 1.08),
        ("50 per 10 s, sliding", 50, 10, 600, 1.19, 1.18),
        ("200 per 10 s, sliding", 200, 10, 2_000, 1.25, 1.18),
        ("20 per 1 s, sliding", 20, 1, 2_000, 1.35, 1.35),
    ] {
        let ideal = f64::from((rows / count - 1) * span);
        for (refusals_count, most) in [(true, charged), (false, free)] {
            for latency in [0.05, 0.2] {
                let limit = sliding(f64::from(count), u64::from(span));
                let case = Case::new(name, limit, rows).latency(latency);
                let case = case.charged(refusals_count);
                holds(case, ideal, most, 16 + u64::from(rows) / 12).await;
            }
        }
    }
}

/// A bucket that a second of its rate fills.
fn bucket(rate: f64) -> Limit {
    Limit::Bucket { rate, burst: rate.max(1.0) }
}

#[tokio::test(start_paused = true)]
async fn every_rate_from_half_to_a_thousand_is_found() {
    for (rate, rows) in [(0.5, 30), (2.0, 200), (8.0, 500), (80.0, 4_000), (300.0, 12_000)] {
        for charged in [false, true] {
            for latency in [0.01, 0.2] {
                let case = Case::new("a bucket", bucket(rate), rows);
                let case = case.latency(latency).charged(charged);
                let by_rate = (f64::from(rows) - rate.max(1.0)) / rate;
                let ideal = by_rate.max(f64::from(rows) * latency / 64.0);
                // At one in two seconds, what the first burst's refusals cost is a third.
                let most = if charged && rate < 1.0 { 1.50 } else { 1.12 };
                holds(case, ideal, most, 20 + u64::from(rows) / 40).await;
            }
        }
    }
    let case = Case::new("a fast bucket", bucket(1_000.0), 30_000).latency(0.01);
    holds(case, 29.0, 1.15, 300).await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_budget_is_used_up_at_full_speed() {
    for latency in [0.05, 0.2] {
        let limit = Limit::Bucket { rate: 20.0, burst: 3_000.0 };
        let case = Case::new("3,000, then 20/s", limit, 5_000).latency(latency).charged(true);
        let at_full_speed = 3_000.0 * latency / 64.0;
        let outcome = holds(case, 100.0, 1.10, 140).await;
        let mut second = 0.0;
        let in_time = outcome.by_second.iter().take_while(|_| {
            second += 1.0;
            second <= at_full_speed + 2.0
        });
        let used = in_time.sum::<u32>();
        assert!(used >= 2_800, "{used} of the burst used in {at_full_speed:.1} s");
    }
    let limit = fixed(3_000.0, 150);
    holds(Case::new("3,000 per 150 s, fixed", limit, 9_000), 300.0, 1.30, 100).await;
}

#[tokio::test(start_paused = true)]
async fn unclear_waits_do_no_more_than_slow_it_down() {
    for (name, retry_after, most) in [
        ("20/s, exact waits", RetryAfter::Exact, 1.05),
        ("20/s, waits up to 2 s too long", RetryAfter::Jittered(2.0), 1.30),
        ("20/s, waits not named", RetryAfter::Absent, 1.05),
    ] {
        let case = Case { retry_after, ..Case::new(name, bucket(20.0), 2_000) };
        holds(case, 99.0, most, 40).await;
    }
    for (name, retry_after) in [
        ("5 per 10 s, waits up to 2 s too long", RetryAfter::Jittered(2.0)),
        ("5 per 10 s, waits not named", RetryAfter::Absent),
    ] {
        let limit = fixed(5.0, 10);
        let case = Case { retry_after, ..Case::new(name, limit, 60) };
        holds(case, 110.0, 1.35, 30).await;
    }
}

/// Each refusal costs ten seconds of silence here, so what counts is to be refused seldom.
#[tokio::test(start_paused = true)]
async fn waits_that_are_much_too_long_are_waited_out() {
    for (name, limit, rows, ideal, most) in [
        ("5 a second, waits of 10 s", fixed(5.0, 1), 600, 119.0, 2.5),
        ("20/s, waits of 10 s", bucket(20.0), 4_000, 199.0, 1.6),
    ] {
        let case = Case::new(name, limit, rows).charged(true);
        holds(Case { retry_after: RetryAfter::Always(10), ..case }, ideal, most, 40).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_make_a_limit_look_neither_slow_nor_quick() {
    let case = Case::new("20/s, 200 rows each minute", bucket(20.0), 2_000).charged(true);
    holds(Case { pause: 60, ..case }, 549.0, 1.02, 20).await;
    let case = Case::new("20/s, then 5/s, 200 rows each minute", bucket(20.0), 2_000);
    let then = Some((250.0, bucket(5.0)));
    holds(Case { pause: 60, then, ..case.charged(true) }, 579.0, 1.05, 40).await;
}

/// As `tests/batches_throttled.rs` does with the whole client. The bound of "5 a second" is a little
/// wider than there: the path varies here.
#[tokio::test(start_paused = true)]
async fn batches_are_let_through_whole() {
    for (name, limit, rows, ideal, most) in [
        ("20/s, burst 20, batches", bucket(20.0), 2_000, 99.0, 1.08),
        ("20/s, burst 5, batches", Limit::Bucket { rate: 20.0, burst: 5.0 }, 600, 29.8, 1.8),
        ("20/s, burst 1, batches", Limit::Bucket { rate: 20.0, burst: 1.0 }, 600, 30.0, 4.0),
        ("5 per 10 s, batches", fixed(5.0, 10), 60, 110.0, 1.1),
        ("5 a second, batches", fixed(5.0, 1), 200, 39.0, 1.3),
    ] {
        let case = Case { batches: true, ..Case::new(name, limit, rows) };
        holds(case.charged(true), ideal, most, 40).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_competitor_gets_its_share_and_we_get_the_rest() {
    let case = Case { competitor: 8.0, ..Case::new("20/s, 8/s taken", bucket(20.0), 1_200) };
    holds(case, 100.0, 1.15, 60).await;
    let limit = fixed(50.0, 10);
    let case = Case { competitor: 2.0, ..Case::new("50 per 10 s, 2/s taken", limit, 300) };
    holds(case, 97.0, 1.35, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_moves_is_followed() {
    let then = Some((60.0, bucket(2.0)));
    let case = Case { then, ..Case::new("20/s, after a minute 2/s", bucket(20.0), 1_400) };
    holds(case, 160.0, 1.15, 60).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_raised_tenfold_is_found_back_within_a_minute() {
    for (name, before, after, rate, rows) in [
        ("2/s, then 20/s", bucket(2.0), bucket(20.0), 20.0, 2_000),
        ("20/s, then 200/s", bucket(20.0), bucket(200.0), 200.0, 16_000),
        ("50 per 10 s, then 500", sliding(50.0, 10), sliding(500.0, 10), 50.0, 5_000),
    ] {
        for from in [60_u32, 67, 74, 82] {
            for latency in [0.05, 0.2] {
                let then = Some((f64::from(from), after));
                let case = Case { then, ..Case::new(name, before, rows) };
                let charged = matches!(before, Limit::Sliding { .. });
                let outcome = run(&case.latency(latency).charged(charged)).await;
                let found = (from as usize..outcome.by_second.len())
                    .find(|second| outcome.rate(*second, second + 5) >= 0.75 * rate)
                    .map(|second| second - from as usize);
                println!("{name:<28} {:>4} ms: found back after {found:?} s", latency * 1e3);
                assert!(found.is_some_and(|after| after <= 60), "{name} at {from}: {found:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_given_rate_holds_from_the_start() {
    let limit = Limit::None;
    let case = Case { max_rate: Some(10.0), ..Case::new("no limit but ours, 10/s", limit, 500) };
    let outcome = holds(case, 49.9, 1.02, 0).await;
    assert!(outcome.by_second.iter().all(|accepted| *accepted <= 12));
}
