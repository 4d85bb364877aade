//! Promises to watch every request between the program and the tenant: one POST a user at a
//! time, each with its intent on the disk before. Must never change what passes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tapwave_core::ids::UserId;
use tapwave_graph::transport::{Broken, Method, Request, Response, Transport};
use tapwave_ledger::{Ledger, Standing};
use tapwave_simulator::InMemory;

/// The tenant's door with somebody beside it.
#[derive(Clone)]
pub(crate) struct Witness {
    tenant: InMemory,
    renews: bool,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// A second handle on the ledger, which sees what is committed and nothing else.
    ledger: Option<Ledger>,
    in_flight: HashSet<UserId>,
    complaints: Vec<String>,
    posts: u64,
}

impl Witness {
    pub(crate) fn new(tenant: InMemory, renews: bool) -> Self {
        Self { tenant, renews, seen: Arc::default() }
    }

    /// Which ledger an intent must be in.
    pub(crate) fn watch(&self, ledger: Option<Ledger>) {
        self.seen().ledger = ledger;
    }

    /// What was wrong so far.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.seen().complaints.clone()
    }

    /// POSTs for passes.
    pub(crate) fn posts(&self) -> u64 {
        self.seen().posts
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, what: String) {
        self.seen().complaints.push(what);
    }

    async fn look_for_intent(&self, user: UserId) {
        let ledger = self.seen().ledger.clone();
        let Some(ledger) = ledger else {
            return self.complain(format!("a POST for {user} before there was a ledger"));
        };
        let open = ledger.rows(&[Standing::Intent], None, 1_000).await.expect("readable");
        if !open.iter().any(|row| row.person().is_ok_and(|person| person.user == user)) {
            self.complain(format!("a POST for {user} without a durable intent"));
        }
    }
}

/// A POST under way; it ends when its exchange is dropped, too.
struct Flight<'a>(&'a Witness, UserId);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.seen().in_flight.remove(&self.1);
    }
}

impl Transport for Witness {
    fn exchange<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        let Some(user) = issued_to(request) else { return self.tenant.exchange(request) };
        Box::pin(async move {
            self.seen().posts += 1;
            if !self.seen().in_flight.insert(user) {
                self.complain(format!("two POSTs for {user} at once"));
            }
            let _flight = Flight(self, user);
            self.look_for_intent(user).await;
            self.tenant.exchange(request).await
        })
    }

    fn base(&self) -> &str {
        self.tenant.base()
    }

    fn renew_token(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.renews))
    }
}

/// Whom a POST asks a pass for.
fn issued_to(request: &Request) -> Option<UserId> {
    let path = request.target.strip_prefix("/users/")?;
    let user = path.strip_suffix("/authentication/temporaryAccessPassMethods")?;
    (request.method == Method::Post).then(|| user.parse().ok()).flatten()
}
