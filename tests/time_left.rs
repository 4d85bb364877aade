//! Promises that the time left which `run` shows is right after the first tenth, whatever the
//! tenant's limit. In virtual time, over what the scheduler really tells.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tapwave::output::TimeLeft;
use tapwave_core::progress::{Activity, Progress, ProgressEvent};
use tapwave_simulator::Tenant;
use tapwave_simulator::options::{Latency, Limit, Throttle};
use tokio::time::Instant;

use crate::support::conducted::Conducted;

/// Notes what the bar would have shown after each row.
struct Clerk(Mutex<Notes>);

struct Notes {
    began: Instant,
    left: TimeLeft,
    told: Vec<(Duration, Option<Duration>)>,
}

impl Progress for Clerk {
    fn report(&self, news: ProgressEvent) {
        let mut notes = self.0.lock().expect("no note panicked");
        let at = notes.began.elapsed();
        match news {
            ProgressEvent::Began { activity: Activity::Issue, total } => {
                notes.began = Instant::now();
                notes.left = TimeLeft::of(total.expect("a total"));
            }
            ProgressEvent::Did { doing: Activity::Issue, rows } => notes.left.did(at, rows),
            ProgressEvent::Forecast { doing: Activity::Issue, per_second, holding } => {
                notes.left.foresee(at, per_second, holding);
                let told = notes.left.left(at);
                notes.told.push((at, told));
            }
            _ => {}
        }
    }
}

/// What was told after each row, in a tenant with this limit.
async fn told(rows: u64, latency: u64, limit: Limit) -> Vec<(Duration, Option<Duration>)> {
    let mut conducted = Conducted::new(rows, |tenant: &mut Tenant| {
        tenant.options_mut().latency = Latency::of(Duration::from_millis(latency));
        tenant.options_mut().throttles.pass_writes = Throttle::of(limit);
    });
    let notes = Notes { began: Instant::now(), left: TimeLeft::of(0), told: Vec::new() };
    let clerk = Arc::new(Clerk(Mutex::new(notes)));
    conducted.session.progress = Arc::clone(&clerk) as _;
    let ledger = conducted.check().await.expect("ready");
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(conducted.live() as u64, rows);
    ledger.shut().await;
    std::mem::take(&mut clerk.0.lock().expect("no note panicked").told)
}

/// The largest error as a share of the time that was really left. One answer more or less
/// (a round trip, or the mean time of a row) is no error, and in the last tenth the error
/// counts as a share of that tenth.
fn worst(told: &[(Duration, Option<Duration>)], from: usize, latency: u64) -> f64 {
    let end = told.last().expect("told").0;
    let rows = u32::try_from(told.len()).expect("few rows");
    let one = (end / rows).max(Duration::from_millis(latency)).as_secs_f64();
    told[from..].iter().fold(0.0, |worst: f64, (at, told)| {
        let truth = end.saturating_sub(*at).as_secs_f64();
        let told = told.expect("something is known").as_secs_f64();
        let error = ((told - truth).abs() - one).max(0.0);
        worst.max(error / truth.max(end.as_secs_f64() / 10.0))
    })
}

#[tokio::test(start_paused = true)]
async fn the_time_left_is_right_after_the_first_tenth() {
    let ten = Duration::from_secs(10);
    for (name, rows, latency, limit) in [
        ("no throttle, 50 ms", 2_000, 50, Limit::None),
        ("no throttle, 200 ms", 2_000, 200, Limit::None),
        ("20/s, 50 ms", 2_000, 50, Limit::Bucket { rate: 20.0, burst: 20.0 }),
        ("20/s, 200 ms", 2_000, 200, Limit::Bucket { rate: 20.0, burst: 20.0 }),
        ("100/s, 50 ms", 3_000, 50, Limit::Bucket { rate: 100.0, burst: 100.0 }),
        ("5 per 10 s", 60, 50, Limit::Fixed { units: 5.0, per: ten }),
        ("200 per 10 s, 50 ms", 2_000, 50, Limit::Fixed { units: 200.0, per: ten }),
        ("200 per 10 s, 100 ms", 2_000, 100, Limit::Fixed { units: 200.0, per: ten }),
        ("5 per 10 s, sliding", 60, 50, Limit::Sliding { units: 5.0, per: ten }),
        ("50 per 10 s, sliding", 600, 50, Limit::Sliding { units: 50.0, per: ten }),
        ("200 per 10 s, sliding, 50 ms", 2_000, 50, Limit::Sliding { units: 200.0, per: ten }),
        ("200 per 10 s, sliding, 100 ms", 2_000, 100, Limit::Sliding { units: 200.0, per: ten }),
        ("200 per 10 s, sliding, 200 ms", 2_000, 200, Limit::Sliding { units: 200.0, per: ten }),
    ] {
        let told = told(rows, latency, limit).await;
        let worst = worst(&told, told.len() / 10, latency);
        println!("{name:<30} {:>6.1} s, worst {worst:.3}", told[told.len() - 1].0.as_secs_f64());
        assert!(worst <= 0.10, "{name}: off by {worst:.3}");
    }
}

/// Nobody can know how large a burst is before it is used up, nor the rate behind it before
/// some refusals have shown it.
#[tokio::test(start_paused = true)]
async fn once_the_rate_behind_a_large_burst_is_found_the_time_left_is_right() {
    let told = told(2_000, 50, Limit::Bucket { rate: 20.0, burst: 1_000.0 }).await;
    let worst = worst(&told, 1_700, 50);
    println!("burst of 1,000: worst {worst:.3}");
    assert!(worst <= 0.10, "off by {worst:.3}");
}
