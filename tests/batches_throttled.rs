//! Promises that a batch whose inner requests are throttled becomes smaller, that what was
//! refused inside is repeated and nothing else, and how long that takes; in virtual time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tapwave_core::clock::Clock;
use tapwave_core::ids::{MethodId, UserId};
use tapwave_core::limits;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_graph::{Graph, GraphError};
use tapwave_simulator::options::{
    Call, Chance, Fault, Faults, Latency, Limit, RetryAfter, Throttle,
};
use tapwave_simulator::{InMemory, Tenant};

/// What a throttled job came to.
#[derive(Debug)]
struct Came {
    took: Duration,
    /// HTTP calls, a batch being one.
    calls: u64,
    /// Inner requests that were refused.
    refused: u64,
}

/// A tenant of so many people, each with a pass.
struct Bench {
    tenant: InMemory,
    graph: Graph,
    clock: Clock,
    passes: Vec<(UserId, MethodId)>,
}

impl Bench {
    fn new(people: usize, throttle: &Throttle) -> Self {
        let epoch: Timestamp = "2026-03-01T08:00:00Z".parse().expect("a time");
        let upns: Vec<String> = (0..people).map(|n| format!("user{n}@contoso.example")).collect();
        let mut tenant = Tenant::for_wave(upns.iter().cloned(), 5);
        for upn in &upns {
            tenant.issue_elsewhere(epoch, upn);
        }
        let passes = tenant
            .passes()
            .map(|(user, _, pass)| (user, pass.method.parse().expect("an id")))
            .collect();
        let options = tenant.options_mut();
        options.latency = Latency::of(Duration::from_millis(50));
        options.throttles.pass_writes = throttle.clone();
        options.throttles.pass_reads = throttle.clone();
        options.throttles.directory = throttle.clone();
        let clock = Clock::starting_at(epoch);
        let tenant = InMemory::new(tenant, clock.clone());
        let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
        let graph = Graph::new(Arc::new(tenant.clone()), limiter, clock.clone());
        Self { tenant, graph, clock, passes }
    }

    async fn delete(&self) -> Came {
        let began = self.clock.instant();
        let deleted = self.graph.delete_passes(&self.passes).await.expect("patience");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        assert_eq!(self.tenant.with(|tenant, _| tenant.passes().count()), 0);
        let asked = self.tenant.with(|tenant, _| tenant.seen(Call::Remove));
        assert_eq!(asked, self.count() + self.graph.throttled(), "what was done is not repeated");
        self.came(began)
    }

    async fn list(&self) -> Came {
        let began = self.clock.instant();
        let users: Vec<UserId> = self.passes.iter().map(|(user, _)| *user).collect();
        let listed = self.graph.passes(&users).await.expect("patience");
        for (found, (_, method)) in listed.iter().zip(&self.passes) {
            let found = found.as_ref().expect("not refused").as_ref().expect("a pass");
            assert_eq!(found.id, *method, "in the order of the question");
        }
        let asked = self.tenant.with(|tenant, _| tenant.seen(Call::Look));
        assert_eq!(asked, self.count() + self.graph.throttled(), "what was done is not repeated");
        self.came(began)
    }

    async fn managers(&self) -> Came {
        let began = self.clock.instant();
        let users: Vec<UserId> = self.passes.iter().map(|(user, _)| *user).collect();
        let found = self.graph.managers(&users).await.expect("patience");
        // The first of each ten manages the others.
        let without = found.iter().filter(|manager| manager.is_none()).count();
        assert_eq!(without, users.len().div_ceil(10));
        self.came(began)
    }

    fn count(&self) -> u64 {
        u64::try_from(self.passes.len()).expect("a few")
    }

    fn came(&self, began: tokio::time::Instant) -> Came {
        let (calls, refused) = (self.graph.requests(), self.graph.throttled());
        Came { took: self.clock.instant() - began, calls, refused }
    }
}

/// Five a second, and everybody who is refused is told to wait for ten.
fn five_a_second() -> Throttle {
    let limit = Limit::Fixed { units: 5.0, per: Duration::from_secs(1) };
    Throttle { retry_after: RetryAfter::Always { seconds: 10 }, ..Throttle::of(limit) }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_of_deletes_becomes_smaller() {
    let came = Bench::new(20, &five_a_second()).delete().await;
    assert!(came.took <= Duration::from_secs(45), "{came:?}");
    assert!(came.refused <= 15, "the first batch's, and no other's: {came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_of_reads_becomes_smaller() {
    let came = Bench::new(20, &five_a_second()).list().await;
    assert!(came.took <= Duration::from_secs(45), "{came:?}");
    assert!(came.refused <= 15, "the first batch's, and no other's: {came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_of_look_ups_becomes_smaller() {
    let came = Bench::new(20, &five_a_second()).managers().await;
    assert!(came.took <= Duration::from_secs(45), "{came:?}");
    assert!(came.refused <= 15, "the first batch's, and no other's: {came:?}");
}

#[tokio::test(start_paused = true)]
async fn one_request_that_is_never_answered_ends_the_patience_of_all() {
    let bench = Bench::new(100, &Throttle::default());
    let failing = Fault::Failing { status: 503, effect: false, retry_after: None };
    let always = Chance::new(Call::Look, 1.0, failing).about(["user7@contoso.example"]);
    bench.tenant.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().also(always);
    });
    let users: Vec<UserId> = bench.passes.iter().map(|(user, _)| *user).collect();
    let ended = bench.graph.passes(&users).await;
    assert!(matches!(ended, Err(GraphError::Outage { .. })), "{:?}", ended.err());
    let asked = bench.tenant.with(|tenant, _| tenant.seen(Call::Look));
    assert_eq!(asked, 99 + u64::from(limits::MAX_READ_ATTEMPTS));
}

/// One limit, and how a job of many deletes fares under it.
struct Case {
    name: &'static str,
    limit: Limit,
    people: usize,
    /// How long the limit itself takes, and how many times as long the job may.
    least: f64,
    over: f64,
    /// Most HTTP calls, and most refusals.
    calls: u64,
    refused: u64,
}

impl Case {
    const fn new(name: &'static str, limit: Limit, people: usize, least: f64, over: f64) -> Self {
        Self { name, limit, people, least, over, calls: u64::MAX, refused: 40 }
    }
}

const fn window(units: f64, seconds: u64) -> Limit {
    Limit::Fixed { units, per: Duration::from_secs(seconds) }
}

/// Before batches became smaller, these took 1.1, 47, 680, 3 and 7 times as long as the limit
/// itself, and up to nine of ten requests were refused.
#[tokio::test(start_paused = true)]
async fn larger_jobs_keep_near_the_limit() {
    let bucket = |burst| Limit::Bucket { rate: 20.0, burst };
    for case in [
        Case { calls: 400, ..Case::new("20/s, burst 20", bucket(20.0), 2_000, 99.0, 1.08) },
        Case::new("20/s, burst 5", bucket(5.0), 600, 29.8, 1.8),
        Case::new("20/s, burst 1", bucket(1.0), 600, 30.0, 4.0),
        Case::new("5 in 10 s", window(5.0, 10), 60, 110.0, 1.1),
        Case::new("5 a second", window(5.0, 1), 200, 39.0, 1.25),
    ] {
        let came = Bench::new(case.people, &Throttle::of(case.limit)).delete().await;
        let over = came.took.as_secs_f64() / case.least;
        println!("{}: {over:.2} {came:?}", case.name);
        assert!(over <= case.over, "{}: {over:.2} {came:?}", case.name);
        assert!(came.calls <= case.calls, "{}: {came:?}", case.name);
        assert!(came.refused <= case.refused, "{}: {came:?}", case.name);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_not_throttled_sends_whole_batches() {
    let came = Bench::new(2_000, &Throttle::default()).delete().await;
    assert_eq!((came.calls, came.refused), (100, 0));
    assert!(came.took <= Duration::from_secs(2), "{came:?}");
}
