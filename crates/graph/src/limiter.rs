//! The limiter finds the true rate of each Graph budget while running, and sends no faster. It
//! never repeats a request, nor fails one: it only says when the next may leave.
//!
//! # How it works
//!
//! Nobody documents whether passes may be created 20 times a second or once in two, so
//! nothing is assumed before the first 429.
//!
//! 1. **Opening** (`window.rs`). No rate at all, only a window: 10 requests in flight, then 15, 23,
//!    46, and on to the maximum. The small windows leave as whole bursts, each after the last one's
//!    answers, so that a small burst budget is overrun by a handful of requests. A large one
//!    (3,000, then 20 a second) is used up at full speed.
//! 2. **Refused** (`control.rs`). The budget holds for the whole `Retry-After`: everybody waits,
//!    and nothing is tried meanwhile. Refusals of requests that were out already belong to the same
//!    event. A wait of more than [`limits::MAX_RETRY_AFTER`] is an outage: nobody waits for it, and
//!    everybody who asks gets [`NotAdmitted`].
//! 3. **Learning** (`observed.rs`). When the hold ends, the rate is what was accepted since the
//!    last hold ended (`cycle.rs`), divided by the time from that end to this one: *spread evenly,
//!    the same requests would not have been refused*. That holds for token buckets and windows
//!    alike. Two more signs are used: waits that grow from one to the next show that each refusal
//!    is charged; and a tenant cannot have saved up more than it once let through in one burst, so
//!    that what it accepted in a fast stretch beyond that shows its rate. A refusal that was risked by probing leaves what was
//!    known as it was, unless it shows more.
//! 4. **Flowing** (`meter.rs`, `curve.rs`). Requests leave evenly, at most 2 % below that rate, on
//!    [`governor`]'s cells. The rate rests there, longer the longer it is known, and then grows
//!    ever faster until the next refusal starts again at 2. A limit that was raised tenfold is
//!    found within a minute. What a `Retry-After` in whole seconds held back too long is caught up
//!    first, a quarter quicker, for as long as the tenant proves to honour it (`debt.rs`).
//!    What is left for the last ten seconds keeps to the rate that is known: a refusal would cost
//!    more than a higher one wins.
//!
//! A batch (`batches.rs`) is no larger than what the rate lets out in half a second, nor than what
//! the tenant has let through at once when it refused the rest of one: it leaves in good time
//! instead of gathering, and is not refused again.
//!
//! Only time in which requests waited for the rate makes it grow.
//!
//! `control.rs` is pure: moments in, leave or waits out. What stands here is the queue around it.
//! governor's own waiting is not used, for it knows no clock but the system's.
//!
//! Two things were tried and left out. Slowing down at a high `x-ms-throttle-limit-percentage`
//! came to 0.64 of 50 per 10 s, sliding, instead of 0.89, and spared 32 refusals of 632 requests.
//! Taking a long wait for a window's, which stores nothing, came to a third of 20/s where every
//! refusal names ten seconds, instead of two thirds, and won nothing elsewhere.
//!
//! Source for budgets and refusals: Microsoft Graph throttling guidance and service-specific
//! limits (`learn.microsoft.com/graph/throttling`, `/graph/throttling-limits`). Refused
//! requests count against the quota too, which is why nothing is tried during a hold.

mod batches;
mod control;
mod curve;
mod cycle;
mod debt;
mod forecast;
mod meter;
mod observed;
#[cfg(test)]
mod simulation;
mod window;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use tapwave_core::clock::{Clock, later};
use tapwave_core::limits;

use control::{BudgetLimiter, Decision, Ticket};
pub use forecast::{Forecast, forecast};

/// Graph's separate budgets. What is refused in one says nothing about the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Creating and deleting passes.
    PassWrites,
    /// Listing a user's passes.
    PassReads,
    /// Users, groups, and policies.
    Directory,
    /// Sending mail through Graph.
    Mail,
}

impl Budget {
    /// Every budget.
    pub const ALL: [Self; 4] = [Self::PassWrites, Self::PassReads, Self::Directory, Self::Mail];
}

/// What the operator allows, for each budget on its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimiterOptions {
    /// Most requests in flight, from 1 to [`limits::MAX_IN_FLIGHT`]; others are clamped.
    pub max_in_flight: usize,
    /// Most requests per second, from the start; `None` leaves it to what is found.
    pub max_rate: Option<f64>,
}

impl Default for LimiterOptions {
    fn default() -> Self {
        Self { max_in_flight: limits::DEFAULT_IN_FLIGHT, max_rate: None }
    }
}

/// Requests that Graph turned away with 429 (or another status with a `Retry-After`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// How many of a permit's requests were turned away.
    pub count: u32,
    /// The longest wait named among them, from the moment of the answer. After more than
    /// [`limits::MAX_RETRY_AFTER`] everybody is [`NotAdmitted`]; none means a growing back-off.
    pub retry_after: Option<Duration>,
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Requests in flight now.
    pub in_flight: u32,
    /// Requests that may be in flight.
    pub window: u32,
    /// Requests per second; `None` while neither a limit was found nor one was given.
    pub rate: Option<f64>,
    /// Nothing is sent before this moment.
    pub holding_until: Option<Instant>,
    /// Requests let out since the start.
    pub admitted: u64,
    /// Requests answered with anything but a refusal.
    pub accepted: u64,
    /// Requests refused for throttling.
    pub refused: u64,
    /// Requests that brought no usable answer.
    pub broken: u64,
    /// Times the limit was met; one event may refuse many requests.
    pub events: u64,
    /// When a request was last accepted.
    pub last_accepted: Option<Instant>,
}

/// What is to be expected of a budget from now on, if nothing changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// Requests per second; `None` before the first answer.
    pub per_second: Option<f64>,
    /// Nothing is sent for so long.
    pub holding: Duration,
}

/// Graph wants to be left alone for longer than [`limits::MAX_RETRY_AFTER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it wants to be left alone until {} (Retry-After of {wait:#}), longer than anybody waits here",
    until.strftime("%Y-%m-%d %H:%M:%S UTC")
)]
pub struct NotAdmitted {
    /// When it may be asked again, by the wall clock.
    pub until: Timestamp,
    /// How long from now.
    wait: SignedDuration,
}

impl NotAdmitted {
    /// From now on for so long.
    #[must_use]
    pub fn within(clock: &Clock, wait: Duration) -> Self {
        let until = later(clock.now(), wait);
        // To the second, for people; rounded up, for whoever comes back then.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let wait = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        Self { until, wait }
    }
}

/// The limiter. Clones share everything.
#[derive(Debug, Clone)]
pub struct Limiter(Arc<BudgetQueues>);

#[derive(Debug)]
struct BudgetQueues {
    clock: Clock,
    max_in_flight: usize,
    pass_writes: BudgetQueue,
    pass_reads: BudgetQueue,
    directory: BudgetQueue,
    mail: BudgetQueue,
}

/// One budget's queue. Only its head asks the limiter; the others wait for the gate, which
/// tokio opens in the order of arrival.
#[derive(Debug)]
struct BudgetQueue {
    gate: tokio::sync::Mutex<()>,
    control: Mutex<BudgetLimiter>,
    answered: Notify,
    /// Places on the wire. Leave is given for a few more, so that what must be durable before
    /// a request goes out is written while others are under way.
    wire: Arc<Semaphore>,
}

impl Limiter {
    /// A limiter that knows nothing of the tenant yet.
    #[must_use]
    pub fn new(options: LimiterOptions, clock: Clock) -> Self {
        let now = clock.instant();
        let queue = |ahead: usize| BudgetQueue {
            gate: tokio::sync::Mutex::new(()),
            control: Mutex::new(BudgetLimiter::new(&options, ahead, now)),
            answered: Notify::new(),
            wire: Arc::new(Semaphore::new(options.max_in_flight)),
        };
        Self(Arc::new(BudgetQueues {
            pass_writes: queue(options.max_in_flight / limits::PREPARED_SHARE),
            pass_reads: queue(0),
            directory: queue(0),
            mail: queue(0),
            max_in_flight: options.max_in_flight,
            clock,
        }))
    }

    /// Waits for leave to send `count` requests of a budget at once (a `$batch` of n inner
    /// requests asks for n): no hold is on, and window and rate have room.
    ///
    /// Leave is given in the order of asking. A batch larger than the window is let out when
    /// nothing else is in flight. Dropping the future gives up the place in the queue.
    ///
    /// A task must not ask again while it holds a permit of the same budget: with enough
    /// such tasks, all would wait for each other.
    ///
    /// # Errors
    /// [`NotAdmitted`], to everybody who waits and at once.
    pub async fn admit(&self, budget: Budget, count: u32) -> Result<Permit, NotAdmitted> {
        let queue = self.0.queue(budget);
        let _turn = queue.gate.lock().await;
        loop {
            let decision = queue.control().decide(self.0.clock.instant(), count);
            if let Some(permit) = self.permit_or_wait(budget, decision).await? {
                return Ok(permit);
            }
        }
    }

    /// Waits for leave to send one batch of as many requests as are `waiting` and fit into it;
    /// [`Permit::count`] says how many. None if nothing is waiting any more.
    ///
    /// # Errors
    /// [`NotAdmitted`], as of [`Limiter::admit`].
    pub async fn admit_batch(
        &self,
        budget: Budget,
        waiting: impl Fn() -> u32,
    ) -> Result<Option<Permit>, NotAdmitted> {
        let queue = self.0.queue(budget);
        let _turn = queue.gate.lock().await;
        loop {
            let most = waiting();
            if most == 0 {
                return Ok(None);
            }
            let decision = queue.control().decide_batch(self.0.clock.instant(), most);
            if let Some(permit) = self.permit_or_wait(budget, decision).await? {
                return Ok(Some(permit));
            }
        }
    }

    /// The leave that was given, or the wait until it is worth asking again.
    async fn permit_or_wait(
        &self,
        budget: Budget,
        decision: Decision,
    ) -> Result<Option<Permit>, NotAdmitted> {
        let queue = self.0.queue(budget);
        match decision {
            Decision::Admit(ticket) => {
                let queues = Arc::clone(&self.0);
                let (count, ticket) = (ticket.count(), Some(ticket));
                return Ok(Some(Permit { queues, budget, count, ticket, place: None }));
            }
            Decision::Barred(moment) => {
                let clock = &self.0.clock;
                let wait = moment.saturating_duration_since(clock.instant());
                return Err(NotAdmitted::within(clock, wait));
            }
            Decision::WaitForAnswer => queue.answered.notified().await,
            Decision::WaitUntil(moment) => {
                tokio::select! {
                    () = self.0.clock.sleep_until(moment) => {}
                    () = queue.answered.notified() => {}
                }
            }
        }
        Ok(None)
    }

    /// Most requests of one budget in flight, as asked for.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        self.0.max_in_flight
    }

    /// How a budget stands.
    #[must_use]
    pub fn snapshot(&self, budget: Budget) -> Snapshot {
        self.0.queue(budget).control().snapshot(self.0.clock.instant())
    }

    /// What is to be expected of a budget.
    #[must_use]
    pub fn outlook(&self, budget: Budget) -> Outlook {
        self.0.queue(budget).control().outlook(self.0.clock.instant())
    }

    /// So many requests of a budget will still be asked for, `None` if nobody knows: the last ones
    /// are not risked for a higher rate.
    pub fn announce(&self, budget: Budget, left: Option<u64>) {
        self.0.queue(budget).control().announce(left);
    }

    /// When a request of this budget was last accepted; `None` if none ever was.
    #[must_use]
    pub fn last_accepted(&self, budget: Budget) -> Option<Instant> {
        self.0.queue(budget).control().last_accepted()
    }

    /// Since when this budget has had nothing but refusals; `None` while the latest word was
    /// an acceptance. Time before the first refusal does not count, however long nobody asked.
    #[must_use]
    pub fn refused_since(&self, budget: Budget) -> Option<Instant> {
        self.0.queue(budget).control().refused_since()
    }

    /// Whether nothing but refusals has come for [`limits::MAX_OUTAGE`], so that whoever asks
    /// should stop asking.
    #[must_use]
    pub fn is_out(&self, budget: Budget) -> bool {
        let now = self.0.clock.instant();
        self.refused_since(budget)
            .is_some_and(|since| now.saturating_duration_since(since) >= limits::MAX_OUTAGE)
    }
}

impl BudgetQueues {
    fn queue(&self, budget: Budget) -> &BudgetQueue {
        match budget {
            Budget::PassWrites => &self.pass_writes,
            Budget::PassReads => &self.pass_reads,
            Budget::Directory => &self.directory,
            Budget::Mail => &self.mail,
        }
    }
}

impl BudgetQueue {
    /// Each of its steps leaves it whole, so a panic elsewhere does not spoil it.
    fn control(&self) -> MutexGuard<'_, BudgetLimiter> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to send, and the places in flight that go with it.
///
/// Say what came back with [`Permit::answered`] or [`Permit::broken`]; a permit that is just
/// dropped gives its places back and tells the limiter nothing.
#[derive(Debug)]
#[must_use = "dropping a permit gives the leave back"]
pub struct Permit {
    queues: Arc<BudgetQueues>,
    budget: Budget,
    count: u32,
    ticket: Option<Ticket>,
    /// Given back when the permit ends.
    place: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// The budget it is for.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// How many requests may leave with it.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Waits for a place on the wire: never more than `--max-in-flight` calls are under way, though
    /// a few more may have leave. To be called right before sending; false if a hold
    /// began meanwhile, and then nothing may be sent.
    pub async fn depart(&mut self) -> bool {
        let queue = self.queues.queue(self.budget);
        // The semaphore is never closed, so this cannot fail.
        self.place = Arc::clone(&queue.wire).acquire_owned().await.ok();
        let now = self.queues.clock.instant();
        queue.control().snapshot(now).holding_until.is_none()
    }

    /// An answer came: `accepted` requests were answered by anything but a refusal, the
    /// others as `throttled` says.
    pub fn answered(mut self, accepted: u32, throttled: Option<Throttled>) {
        self.settle(|limiter, now, ticket| limiter.answered(now, ticket, accepted, throttled));
    }

    /// No usable answer came: a reset, a timeout, a 5xx without a `Retry-After`.
    pub fn broken(mut self) {
        self.settle(BudgetLimiter::broken);
    }

    fn settle(&mut self, tell: impl FnOnce(&mut BudgetLimiter, Instant, &Ticket)) {
        self.place = None;
        if let Some(ticket) = self.ticket.take() {
            let queue = self.queues.queue(self.budget);
            tell(&mut queue.control(), self.queues.clock.instant(), &ticket);
            queue.answered.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.settle(BudgetLimiter::forgotten);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::task::LocalSet;

    use super::*;

    const WRITES: Budget = Budget::PassWrites;

    fn limiter(max_in_flight: usize) -> Limiter {
        Limiter::new(LimiterOptions { max_in_flight, max_rate: None }, Clock::system())
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_have_leave_ahead_and_no_more_than_asked_for_are_on_the_wire() {
        let limiter = limiter(4);
        let mut permits = Vec::new();
        for _ in 0..5 {
            permits.push(limiter.admit(WRITES, 1).await.expect("not barred"));
        }
        assert!(futures::poll!(std::pin::pin!(limiter.admit(WRITES, 1))).is_pending());
        let mut ahead = permits.pop().expect("five");
        for permit in &mut permits {
            assert!(permit.depart().await);
        }
        assert!(futures::poll!(std::pin::pin!(ahead.depart())).is_pending());
        permits.pop().expect("four").answered(1, None);
        assert!(ahead.depart().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_leave_when_a_hold_begins_does_not_depart() {
        let limiter = limiter(4);
        let mut out = limiter.admit(WRITES, 1).await.expect("not barred");
        let mut ahead = limiter.admit(WRITES, 1).await.expect("not barred");
        assert!(out.depart().await);
        let throttled = Throttled { count: 1, retry_after: Some(Duration::from_secs(5)) };
        out.answered(0, Some(throttled));
        assert!(!ahead.depart().await);
        drop(ahead);
        assert!(
            limiter.admit(WRITES, 1).await.expect("not barred").depart().await,
            "after the hold"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn leave_is_given_in_the_order_of_asking() {
        let limiter = limiter(1);
        let first = limiter.admit(WRITES, 1).await.expect("not barred");
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks = LocalSet::new();
        for asker in 0..20 {
            let (limiter, order) = (limiter.clone(), Rc::clone(&order));
            tasks.spawn_local(async move {
                let permit = limiter.admit(WRITES, 1 + asker % 3).await.expect("not barred");
                order.borrow_mut().push(asker);
                tokio::time::sleep(Duration::from_millis(10)).await;
                permit.answered(1, None);
            });
        }
        tasks.spawn_local(async move { first.answered(1, None) });
        tasks.await;
        assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_who_gives_up_holds_nobody_up() {
        let limiter = limiter(1);
        let first = limiter.admit(WRITES, 1).await.expect("not barred");
        let (head, next) = (limiter.clone(), limiter.clone());
        let head = tokio::spawn(async move { head.admit(WRITES, 1).await.expect("not barred") });
        let next = tokio::spawn(async move { next.admit(WRITES, 1).await.expect("not barred") });
        tokio::time::sleep(Duration::from_secs(1)).await;
        head.abort();
        assert!(head.await.is_err());
        drop(first);
        let permit = next.await.unwrap();
        assert_eq!(limiter.snapshot(WRITES).in_flight, 1);
        drop(permit);
        let seen = limiter.snapshot(WRITES);
        assert_eq!((seen.in_flight, seen.accepted, seen.refused), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_stops_one_budget_and_no_other() {
        let limiter = limiter(4);
        let start = Instant::now();
        let wait = Duration::from_secs(30);
        let throttled = Throttled { count: 1, retry_after: Some(wait) };
        limiter.admit(WRITES, 1).await.expect("not barred").answered(0, Some(throttled));
        assert_eq!(limiter.snapshot(WRITES).holding_until, Some(start + wait));
        limiter.admit(Budget::PassReads, 1).await.expect("not barred").answered(1, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.admit(WRITES, 1).await.expect("not barred").answered(1, None);
        assert_eq!(start.elapsed(), wait);
        assert_eq!(limiter.last_accepted(WRITES), Some(start + wait));
        assert_eq!(limiter.last_accepted(Budget::Mail), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_nobody_can_bear_is_told_to_everybody_who_waits() {
        let limiter = limiter(1);
        let first = limiter.admit(WRITES, 1).await.expect("not barred");
        let start = Instant::now();
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move { limiter.admit(WRITES, 1).await.err() })
            })
            .collect();
        tokio::task::yield_now().await;
        let wait = Some(Duration::from_hours(1));
        first.answered(0, Some(Throttled { count: 1, retry_after: wait }));
        for waiter in waiters {
            let told = waiter.await.expect("no panic").expect("barred").to_string();
            assert!(told.contains("(Retry-After of 1h)"), "{told}");
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert!(limiter.admit(WRITES, 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_larger_than_the_window_goes_alone() {
        let limiter = limiter(8);
        let single = limiter.admit(Budget::Directory, 1).await.expect("not barred");
        let batch = limiter.admit(Budget::Directory, 20);
        tokio::pin!(batch);
        assert!(tokio::time::timeout(Duration::from_mins(1), &mut batch).await.is_err());
        single.answered(1, None);
        let permit = batch.await.expect("not barred");
        assert_eq!(permit.budget(), Budget::Directory);
        assert_eq!(limiter.snapshot(Budget::Directory).in_flight, 20);
        permit.answered(20, None);
    }
}
