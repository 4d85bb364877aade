//! Promises that Graph's time, by which intents are dated, does not move with the wall clock
//! of the machine.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tapwave_core::clock::{Clock, span};
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_simulator::{InMemory, Tenant};

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_does_not_age_an_intent() {
    let epoch: Timestamp = "2026-03-01T08:00:00Z".parse().expect("a time");
    let clock = Clock::starting_at(epoch);
    let tenant = InMemory::new(Tenant::for_wave(["ada@contoso.example"], 1), clock.clone());
    let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
    let graph = Graph::new(Arc::new(tenant.clone()), limiter, clock.clone());
    graph.time().await.expect("asked, for nothing is known yet");
    assert_eq!(graph.requests(), 1);
    for hours in [-3, 2] {
        let before = graph.requests();
        clock.sleep(Duration::from_mins(1)).await;
        graph.time().await.expect("reckoned");
        assert_eq!(graph.requests(), before, "both clocks agree");
        clock.jump(SignedDuration::from_hours(hours));
        assert!(span(graph.now(), tenant.now()) < Duration::from_secs(2));
        assert!(span(tenant.now(), graph.now()) < Duration::from_secs(2));
        graph.time().await.expect("asked anew");
        assert_eq!(graph.requests(), before + 1, "the machine may have slept");
    }
}
