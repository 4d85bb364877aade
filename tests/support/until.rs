//! Promises to wait for what a process brings about: not for seconds, but until it is so.

use std::time::{Duration, Instant};

/// How long it may take: a bound for what hangs, far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(3);

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(GLANCE).await;
    }
}
