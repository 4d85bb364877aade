//! Promises that a request to stop reaches every task: no new work is begun, and what is in flight
//! is finished. Before any work that must be finished, the command is aborted at once.
//!
//! Not a cancellation token: that knows one moment, and here are two, the request and the end of
//! work that must not be broken off.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use tapwave_core::clock::Clock;
use tapwave_core::limits;

/// Tells tasks that they shall stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<watch::Sender<StopState>>);

/// Requests the stop.
#[derive(Debug)]
pub struct StopSwitch(Arc<watch::Sender<StopState>>);

#[derive(Debug, Clone, Copy, Default)]
struct StopState {
    is_requested: bool,
    at_work: bool,
    has_worked: bool,
}

impl StopState {
    const fn aborts(self) -> bool {
        self.is_requested && !self.at_work
    }
}

impl StopSignal {
    #[must_use]
    pub fn new() -> (StopSwitch, Self) {
        let state = Arc::new(watch::Sender::default());
        (StopSwitch(Arc::clone(&state)), Self(state))
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.borrow().is_requested
    }

    /// Waits for the request; for ever, if the switch is dropped unused.
    pub async fn requested(&self) {
        self.until(|state| state.is_requested).await;
    }

    /// Waits for the request, and until whatever was in flight has had the time to be answered.
    pub async fn grace_over(&self, clock: &Clock) {
        self.requested().await;
        clock.sleep(limits::IN_FLIGHT).await;
    }

    /// Waits until then; true if a stop is requested first.
    pub async fn comes_before(&self, clock: &Clock, moment: Instant) -> bool {
        tokio::select! {
            biased;
            () = self.requested() => true,
            () = clock.sleep_until(moment) => false,
        }
    }

    /// From here on, aborting would leave something half done.
    pub fn begin_work(&self) {
        self.0.send_modify(|state| (state.at_work, state.has_worked) = (true, true));
    }

    /// What comes now may be aborted at any moment.
    pub fn end_work(&self) {
        self.0.send_modify(|state| state.at_work = false);
    }

    /// Whether aborting would leave something half done.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.0.borrow().at_work
    }

    /// Whether [`Self::begin_work`] was ever called.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.0.borrow().has_worked
    }

    /// Whether a stop is requested and nothing has to be finished.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        self.0.borrow().aborts()
    }

    pub async fn aborted(&self) {
        self.until(|state| state.aborts()).await;
    }

    async fn until(&self, condition: impl Fn(&StopState) -> bool) {
        // The sender lives as long as this does, so that the wait cannot fail.
        drop(self.0.subscribe().wait_for(condition).await);
    }
}

impl StopSwitch {
    /// True if no stop was requested before.
    #[must_use]
    pub fn request(&self) -> bool {
        self.0.send_if_modified(|state| !std::mem::replace(&mut state.is_requested, true))
    }
}
