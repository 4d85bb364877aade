//! Promises that the prediction of a rehearsal is what a wave then takes, under every kind of
//! limit. In virtual time.

use std::time::Duration;

use tapwave_graph::limiter::{LimiterOptions, forecast};
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_simulator::options::{Latency, Limit, Throttle};
use tokio::time::Instant;

use crate::support::conducted::Conducted;

const ROUND_TRIP: Duration = Duration::from_millis(40);

#[tokio::test(start_paused = true)]
async fn a_wave_takes_as_long_as_was_foretold() {
    for (rows, limit) in [
        (1_000, Limit::None),
        (1_000, Limit::Bucket { rate: 20.0, burst: 20.0 }),
        (1_000, Limit::Bucket { rate: 20.0, burst: 400.0 }),
        (60, Limit::Fixed { units: 5.0, per: Duration::from_secs(10) }),
        (600, Limit::Fixed { units: 50.0, per: Duration::from_secs(10) }),
        (60, Limit::Sliding { units: 5.0, per: Duration::from_secs(10) }),
        (600, Limit::Sliding { units: 50.0, per: Duration::from_secs(10) }),
        (4_000, Limit::Bucket { rate: 20.0, burst: 3_000.0 }),
    ] {
        let options = LimiterOptions::default();
        let foretold = forecast(&options, rows, ROUND_TRIP, limit);
        assert_eq!((foretold.accepted, foretold.gave_up), (rows, false), "{limit:?}");

        let mut conducted = Conducted::new(rows, |tenant| {
            tenant.options_mut().latency = Latency::of(ROUND_TRIP);
            tenant.options_mut().throttles.pass_writes = Throttle::of(limit);
        });
        // What is foretold is issuing.
        conducted.look = FinalLook::Never;
        let ledger = conducted.check().await.expect("ready");
        let began = Instant::now();
        let issuance = conducted.issue(&ledger).await.expect("begun");
        assert!(issuance.error.is_none(), "{:?}", issuance.error);
        let (took, told) = (began.elapsed().as_secs_f64(), foretold.took.as_secs_f64());
        let refused = conducted.session.graph.throttled();
        println!(
            "{limit:?}: foretold {told:.1} s, {}; took {took:.1} s, {refused}",
            foretold.refused
        );
        assert!((told - took).abs() <= 0.05 * took, "{limit:?}: {told:.1} s foretold, {took:.1} s");
        assert!(refused.abs_diff(foretold.refused) <= 5 + refused / 4, "{limit:?}: {refused}");
        assert_eq!(conducted.live() as u64, rows);
        ledger.shut().await;
    }
}
