//! Promises that a wish to stop reaches whoever works: no new work, and what is in flight is
//! finished; where nothing is at stake yet, all is given up.

use std::sync::Arc;

use tokio::sync::watch;

use tapwave_core::clock::Clock;
use tapwave_core::limits;

/// The wish to stop: no new work, finish what is in flight. Where nothing is at stake yet,
/// give up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StopSignal(Arc<watch::Sender<StopState>>);

/// Makes the wish.
#[derive(Debug)]
pub struct StopSwitch(Arc<watch::Sender<StopState>>);

#[derive(Debug, Clone, Copy, Default)]
struct StopState {
    is_on: bool,
    at_work: bool,
    has_worked: bool,
}

impl StopState {
    const fn gives_up(self) -> bool {
        self.is_on && !self.at_work
    }
}

impl StopSignal {
    /// A drain and the switch that starts it.
    #[must_use]
    pub fn new() -> (StopSwitch, Self) {
        let wish = Arc::new(watch::Sender::default());
        (StopSwitch(Arc::clone(&wish)), Self(wish))
    }

    /// Whether it has begun.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.borrow().is_on
    }

    /// Waits until it begins; for ever, if the switch is gone without having been used.
    pub async fn begun(&self) {
        self.until(|wish| wish.is_on).await;
    }

    /// Waits until it has begun and whatever was in flight has had the time to be answered.
    pub async fn outlasted(&self, clock: &Clock) {
        self.begun().await;
        clock.sleep(limits::IN_FLIGHT).await;
    }

    /// From here on, breaking off would leave something half done.
    pub fn begin_work(&self) {
        self.0.send_modify(|wish| (wish.at_work, wish.has_worked) = (true, true));
    }

    /// What comes now may be broken off at any moment.
    pub fn end_work(&self) {
        self.0.send_modify(|wish| wish.at_work = false);
    }

    /// Whether breaking off would leave something half done.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.0.borrow().at_work
    }

    /// Whether it ever would have.
    #[must_use]
    pub fn has_worked(&self) -> bool {
        self.0.borrow().has_worked
    }

    /// Whether all is to be given up: it has begun, and there is nothing to finish.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.0.borrow().gives_up()
    }

    /// Waits until all is to be given up.
    pub async fn given_up(&self) {
        self.until(|wish| wish.gives_up()).await;
    }

    async fn until(&self, is_so: impl Fn(&StopState) -> bool) {
        // The sender lives as long as this does.
        drop(self.0.subscribe().wait_for(is_so).await);
    }
}

impl StopSwitch {
    /// Begins the drain; true if it had not begun before.
    #[must_use]
    pub fn begin(&self) -> bool {
        self.0.send_if_modified(|wish| !std::mem::replace(&mut wish.is_on, true))
    }
}
