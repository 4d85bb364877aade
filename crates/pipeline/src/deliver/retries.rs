//! Promises that a mail which waits for another attempt holds up no other, and stops waiting when
//! mailing ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::stop::{StopSignal, StopSwitch};
use tapwave_core::clock::Clock;

/// Mails that wait for another attempt. They use no connection: one full mailbox must not delay the
/// mails behind it.
pub struct Retries {
    count: AtomicUsize,
    added: Notify,
    why: Mutex<String>,
    cancel: (StopSwitch, StopSignal),
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            added: Notify::new(),
            why: Mutex::default(),
            cancel: StopSignal::new(),
        }
    }
}

impl Retries {
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits for one more, and returns why it was not sent.
    pub async fn next(&self) -> String {
        self.added.notified().await;
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Mails need not wait any longer, since nothing more is sent.
    pub fn cancel(&self) {
        let _ = self.cancel.0.request();
    }

    /// True if another attempt may follow.
    pub(super) async fn wait(&self, clock: &Clock, wait: Duration, why: String) -> bool {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.count);
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
        self.added.notify_one();
        tokio::select! {
            biased;
            () = self.cancelled() => false,
            () = clock.sleep(wait) => true,
        }
    }

    pub(super) async fn cancelled(&self) {
        self.cancel.1.requested().await;
    }
}
