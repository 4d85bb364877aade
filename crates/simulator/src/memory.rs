//! Promises a tenant behind the transport's door without a network: the request takes half
//! its round trip to arrive, has its effect, and the answer takes the other half. Dropping
//! the exchange before it arrives undoes it; after that it does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;

use super::tenant::Tenant;
use tapwave_core::clock::{Clock, later};
use tapwave_graph::transport::{Broken, Request, Response, Transport};

/// A tenant in this process. Clones share it.
#[derive(Clone)]
pub struct InMemory {
    tenant: Arc<Mutex<Tenant>>,
    clock: Clock,
    base: Arc<str>,
    epoch: Timestamp,
    origin: Instant,
}

impl InMemory {
    /// Opens the door to a tenant on a clock.
    #[must_use]
    pub fn new(tenant: Tenant, clock: Clock) -> Self {
        Self {
            base: tenant.options().base.as_str().into(),
            tenant: Arc::new(Mutex::new(tenant)),
            epoch: clock.now(),
            origin: clock.instant(),
            clock,
        }
    }

    /// The moment at the tenant's door. A jump of the caller's wall clock does not move it:
    /// the service's clocks are not the caller's.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        later(self.epoch, self.clock.instant().duration_since(self.origin))
    }

    /// Looks at the tenant, or changes it, at this moment: what was late and due is done.
    pub fn with<T>(&self, look: impl FnOnce(&mut Tenant, Timestamp) -> T) -> T {
        let now = self.now();
        let mut tenant = self.lock();
        tenant.advance(now);
        look(&mut tenant, now)
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        // A test that panicked while looking has told what is wrong; the others go on.
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for InMemory {
    fn exchange<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        Box::pin(async move {
            let there = self.lock().way();
            if !there.is_zero() {
                self.clock.sleep(there).await;
            }
            let now = self.now();
            let answer = self.lock().handle(now, request);
            if !answer.after.is_zero() {
                self.clock.sleep(answer.after).await;
            }
            answer.response
        })
    }

    fn base(&self) -> &str {
        &self.base
    }
}
