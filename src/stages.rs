//! Promises the stages in their order, each taking the previous one's value.
//!
//! A stage imports the one before it and nothing sideways.

pub mod check;
pub mod deliver;
pub mod issue;
pub mod seal;
// Cleanup comes last, whenever that is.
pub mod cleanup;

use tokio::sync::watch;

/// The wish to stop: no new work, finish what is in flight. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

/// Makes the wish.
#[derive(Debug)]
pub struct DrainSwitch(watch::Sender<bool>);

impl Drain {
    /// A drain and the switch that starts it.
    #[must_use]
    pub fn new() -> (DrainSwitch, Self) {
        let (sender, receiver) = watch::channel(false);
        (DrainSwitch(sender), Self(receiver))
    }

    /// Whether it has begun.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it begins; for ever, if the switch is gone without having been used.
    pub async fn begun(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|on| *on).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl DrainSwitch {
    /// Begins the drain; true if it had not begun before.
    #[must_use]
    pub fn begin(&self) -> bool {
        !self.0.send_replace(true)
    }
}
