//! Promises the control limiter of one budget as a pure state machine: moments and answers in,
//! leave or waits out. Must never ask for the time, wait, or draw lots.

use std::time::Duration;

use tokio::time::Instant;

use super::batches::Batches;
use super::curve::RateCurve;
use super::cycle::Cycle;
use super::debt::Debt;
use super::meter::Meter;
use super::observed::{self, LimitHit, ObservedLimit, ObservedRate};
use super::{LimiterOptions, Outlook, Snapshot, Throttled};
use tapwave_core::limits;

/// Requests that were let out together and are not yet answered.
#[derive(Debug)]
#[must_use = "a place in the window is only given back through its ticket"]
pub(super) struct Ticket {
    count: u32,
    /// Nothing else was in flight.
    alone: bool,
    cycle: u64,
    sent: Instant,
}

impl Ticket {
    /// How many requests may leave with it.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}

/// Whether requests may leave now.
#[derive(Debug)]
pub(super) enum Decision {
    /// They may.
    Admit(Ticket),
    /// Not before this moment.
    WaitUntil(Instant),
    /// Not before this moment, and that is longer than anybody should wait.
    Barred(Instant),
    /// Not before an answer has come.
    WaitForAnswer,
}

/// One budget's limiter. The module above explains the limiter.
#[derive(Debug)]
pub(super) struct BudgetLimiter {
    /// Most that may have leave.
    max_in_flight: u32,
    /// Most that may be under way, which bounds what a round trip brings.
    on_the_wire: u32,
    max_rate: Option<f64>,
    window: Window,
    meter: Meter,
    /// Cells already taken for the request at the head of the queue, which may be a batch.
    gathered: u32,
    in_flight: u32,
    hold: Option<Hold>,
    curve: Option<RateCurve>,
    cycle: Cycle,
    /// The last cycle that had anything accepted, for when the one after it has not.
    past: Option<Cycle>,
    /// Refusals in a row, each after a hold, with nothing accepted in between.
    fruitless: u32,
    debt: Debt,
    shape: ObservedLimit,
    batches: Batches,
    /// The last refusal was put down to catching up. Not two in a row: then the rate is wrong.
    excused: bool,
    eased_at: Option<Instant>,
    narrowed_at: Option<Instant>,
    last_admitted: Instant,
    last_answered: Instant,
    /// From leave to answer, smoothed.
    round_trip: Option<Duration>,
    /// The rate made somebody wait since the last admission: it, not demand, is the limit.
    bound: bool,
    /// Requests that will still be asked for, as far as anybody has said.
    left: Option<u64>,
    told: Counters,
}

/// Nothing is sent until then.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    /// What has yet to be turned into a rate.
    limit_hit: Option<LimitHit>,
}

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
struct Window {
    size: u32,
    accepted_since_growth: u32,
    /// What may still leave in the present burst, and when that one stops being waited for.
    burst: Option<Burst>,
}

/// Requests that leave together.
#[derive(Debug, Clone, Copy)]
struct Burst {
    left: u32,
    began: Instant,
    patience_ends: Option<Instant>,
}

/// Counts for the snapshot.
#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    admitted: u64,
    accepted: u64,
    refused: u64,
    broken: u64,
    events: u64,
    last_accepted: Option<Instant>,
    refused_since: Option<Instant>,
}

impl BudgetLimiter {
    /// A limiter that knows nothing yet. It gives leave to `ahead` requests more than may be
    /// in flight.
    pub(super) fn new(options: &LimiterOptions, ahead: usize, now: Instant) -> Self {
        let most = u32::try_from(limits::MAX_IN_FLIGHT).unwrap_or(u32::MAX);
        let within = |count: usize| u32::try_from(count).unwrap_or(most).clamp(1, most);
        let on_the_wire = within(options.max_in_flight);
        let max_in_flight = within(options.max_in_flight + ahead);
        let mut meter = Meter::new(now);
        let max_rate = options.max_rate.map(|rate| rate.max(limits::SLOWEST_RATE));
        if let Some(rate) = max_rate {
            meter.restart(now, rate);
        }
        let mut window = Window::first(max_in_flight);
        window.next_burst(now, 0, max_in_flight);
        Self {
            max_in_flight,
            on_the_wire,
            max_rate,
            window,
            meter,
            gathered: 0,
            in_flight: 0,
            hold: None,
            curve: None,
            cycle: Cycle::starting(0, now),
            past: None,
            fruitless: 0,
            debt: Debt::none(),
            shape: ObservedLimit::unknown(),
            batches: Batches::unknown(),
            excused: false,
            eased_at: None,
            narrowed_at: None,
            last_admitted: now,
            last_answered: now,
            round_trip: None,
            bound: false,
            left: None,
            told: Counters::default(),
        }
    }

    /// Whether `count` requests may leave at `now`. Asked for the head of the queue alone.
    pub(super) fn decide(&mut self, now: Instant, count: u32) -> Decision {
        let count = count.max(1);
        if let Some(until) = self.held_until(now) {
            let barred = until.saturating_duration_since(now) > limits::MAX_RETRY_AFTER;
            return if barred { Decision::Barred(until) } else { Decision::WaitUntil(until) };
        }
        if let Err(wait) = self.room(now, count) {
            return wait;
        }
        if let Some(rate) = self.pace() {
            self.gathered = self.gathered.min(count);
            while self.gathered < count {
                if let Err(wait) = self.meter.take(now, rate) {
                    let knock = self.probe_at().unwrap_or(now + wait);
                    if knock <= now {
                        break;
                    }
                    self.bound = true;
                    return Decision::WaitUntil(knock.min(now + wait));
                }
                self.gathered += 1;
            }
        }
        self.gathered = 0;
        Decision::Admit(self.admit(now, count))
    }

    /// The same for one batch of up to `most` requests; the ticket says how many it may hold.
    pub(super) fn decide_batch(&mut self, now: Instant, most: u32) -> Decision {
        // What a hold that is over has taught counts already.
        self.held_until(now);
        let count = self.batches.fit(most, self.pace());
        self.decide(now, count)
    }

    /// What came back: `accepted` requests were answered by anything but a refusal.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        accepted: u32,
        throttled: Option<Throttled>,
        load: Option<f64>,
    ) {
        self.leave(now, ticket);
        if accepted > 0 {
            self.accepted(now, ticket, accepted);
        }
        if ticket.alone {
            let since = now.checked_sub(limits::BATCH_SPAN).unwrap_or(now);
            let lately = self.cycle.part(since, now).accepted();
            let refused = throttled.map_or(0, |throttled| throttled.count);
            self.batches.answered(accepted, refused, lately);
        }
        if let Some(throttled) = throttled.filter(|throttled| throttled.count > 0) {
            self.refused(now, ticket, throttled);
        } else if let Some(load) = load.filter(|load| *load >= limits::HIGH_LOAD) {
            self.ease(now, ticket, load.min(limits::MAX_LOAD));
        }
    }

    /// No usable answer came. That tells nothing about the rate, but like a lost packet it
    /// halves the window, once for all requests that were out together.
    pub(super) fn broken(&mut self, now: Instant, ticket: &Ticket) {
        self.leave(now, ticket);
        self.told.broken += u64::from(ticket.count);
        if self.narrowed_at.is_none_or(|at| ticket.sent > at) {
            self.narrowed_at = Some(now);
            self.window.narrow();
        }
    }

    /// The requests were never sent, or nobody waited for the answer.
    pub(super) fn forgotten(&mut self, now: Instant, ticket: &Ticket) {
        self.leave(now, ticket);
    }

    /// So many requests will still be asked for; `None` if nobody knows.
    pub(super) fn announce(&mut self, left: Option<u64>) {
        self.left = left;
    }

    /// When a request was last accepted.
    pub(super) fn last_accepted(&self) -> Option<Instant> {
        self.told.last_accepted
    }

    /// When the present spell of nothing but refusals began.
    pub(super) fn refused_since(&self) -> Option<Instant> {
        self.told.refused_since
    }

    /// How things stand.
    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            in_flight: self.in_flight,
            window: self.window.size,
            rate: self.rate(),
            holding_until: self.hold.map(|hold| hold.until).filter(|until| *until > now),
            admitted: self.told.admitted,
            accepted: self.told.accepted,
            refused: self.told.refused,
            broken: self.told.broken,
            events: self.told.events,
            last_accepted: self.told.last_accepted,
        }
    }

    /// While everything is refused, when to ask again whatever the rate: a batch of twenty
    /// would gather its cells for twenty minutes, and a tenant that has recovered would stand
    /// idle. Never quicker than the operator allows.
    fn probe_at(&self) -> Option<Instant> {
        let alone = self.in_flight == 0 && self.fruitless > 0 && self.max_rate.is_none();
        let patience = Duration::from_secs_f64(1.0 / limits::SLOWEST_RATE);
        alone.then(|| self.last_admitted + patience)
    }

    /// What is to be expected from now on if nothing changes: the rate that was found, or is
    /// about to be, and never more than a full window each round trip.
    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        let found = match self.hold {
            Some(Hold { limit_hit: Some(event), .. }) => {
                Some(self.found(&self.whole_cycle(), &event).rate)
            }
            _ => self.curve.map(|curve| curve.plateau()),
        };
        let at_most = self
            .round_trip
            .map(|time| f64::from(self.on_the_wire) / time.as_secs_f64().max(f64::MIN_POSITIVE));
        let slowest = |a: f64, b: Option<f64>| b.map_or(a, |b| a.min(b));
        Outlook {
            per_second: at_most.map(|rate| slowest(slowest(rate, found), self.max_rate)),
            holding: self
                .hold
                .map_or(Duration::ZERO, |hold| hold.until.saturating_duration_since(now)),
        }
    }

    /// The end of the hold, if one is on; learns from one that is over.
    fn held_until(&mut self, now: Instant) -> Option<Instant> {
        let hold = self.hold?;
        if now < hold.until {
            return Some(hold.until);
        }
        self.hold = None;
        self.gathered = 0;
        self.last_admitted = self.last_admitted.max(hold.until);
        if let Some(event) = hold.limit_hit {
            self.learn(&event, hold.until);
        }
        match (self.pace(), self.max_rate) {
            // Who said when to come back may be asked then. But an operator's rate holds
            // whatever the tenant says.
            (Some(rate), None) => self.meter.restart(hold.until, rate),
            (Some(rate), Some(_)) => self.meter.trim(hold.until, rate),
            (None, _) => {}
        }
        None
    }

    /// Turns the cycle that a refusal ended into a rate, now that everybody may come back.
    fn learn(&mut self, event: &LimitHit, until: Instant) {
        let next = self.cycle.next(until);
        let cycle = self.whole_cycle();
        let round_trip = self.round_trip.unwrap_or_default();
        let ObservedRate { rate, known_for } = self.found(&cycle, event);
        let confirmed = self.curve.and_then(|curve| curve.confirmed_by(rate));
        let known_for = known_for + confirmed.unwrap_or_default();
        self.shape.learn(&cycle, event, self.curve.as_ref(), rate, round_trip);
        let before = self.curve.as_ref().map(RateCurve::rate);
        if before.is_none_or(|before| rate < before / 2.0) {
            self.window = Window::first(self.max_in_flight);
        }
        let curve = if before.is_none() { RateCurve::first } else { RateCurve::below };
        self.curve = Some(curve(rate, known_for, round_trip));
        self.debt.fall_due(rate, self.shape.store());
        self.past = Some(cycle);
        self.cycle = next;
    }

    /// A cycle without anything accepted is the end of the one before: the hold was too
    /// short, so the same requests are spread over a longer time.
    fn whole_cycle(&self) -> Cycle {
        match &self.past {
            Some(past) if !self.cycle.is_fruitful() => past.clone().and(&self.cycle),
            _ => self.cycle.clone(),
        }
    }

    fn found(&self, cycle: &Cycle, event: &LimitHit) -> ObservedRate {
        let round_trip = self.round_trip.unwrap_or_default();
        let (shape, honoured) = (&self.shape, self.debt.honoured());
        let found = observed::found(cycle, event, self.curve.as_ref(), shape, honoured, round_trip);
        ObservedRate { rate: found.rate.max(limits::SLOWEST_RATE), ..found }
    }

    /// Room in the window for `count`, or what to wait for. A batch larger than the whole
    /// window goes when it would be alone.
    fn room(&mut self, now: Instant, count: u32) -> Result<(), Decision> {
        let fits = self.in_flight == 0 || self.in_flight + count <= self.window.size;
        let Some(volley) = self.window.burst else {
            return if fits { Ok(()) } else { Err(Decision::WaitForAnswer) };
        };
        if volley.left >= count && fits {
            return Ok(());
        }
        let over = self.in_flight == 0 || volley.patience_ends.is_some_and(|end| now >= end);
        if !over {
            return Err(volley.patience_ends.map_or(Decision::WaitForAnswer, Decision::WaitUntil));
        }
        self.window.next_burst(now, self.in_flight, self.max_in_flight);
        if self.in_flight == 0 || self.in_flight + count <= self.window.size {
            Ok(())
        } else {
            Err(Decision::WaitForAnswer)
        }
    }

    fn admit(&mut self, now: Instant, count: u32) -> Ticket {
        if self.told.admitted == 0 {
            // Nobody has asked so far, and what was not asked was not granted either: a check
            // of a minute before the first write must not make the tenant look slow.
            self.cycle = Cycle::starting(self.cycle.number(), now);
            self.last_admitted = now;
        }
        self.tell_use_from_silence(now, count);
        self.bound = false;
        self.last_admitted = now;
        self.debt.pay(count);
        let alone = self.in_flight == 0;
        self.in_flight += count;
        self.told.admitted += u64::from(count);
        if let Some(volley) = &mut self.window.burst {
            volley.left = volley.left.saturating_sub(count);
        }
        Ticket { count, alone, cycle: self.cycle.number(), sent: now }
    }

    /// Books the time since the last admission: waiting for the rate makes it grow, and what
    /// nobody used is no part of the cycle.
    fn tell_use_from_silence(&mut self, now: Instant, count: u32) {
        let since = now.saturating_duration_since(self.last_admitted);
        let ends = self.ends_soon();
        match (&mut self.curve, self.bound) {
            (Some(curve), bound) => {
                // Whoever waited for the rate may have given up and left a long silence.
                let at_most = curve.spacing().saturating_mul(count.saturating_add(1));
                if ends {
                    curve.settle();
                } else if bound {
                    curve.probe(since.min(at_most));
                }
                self.cycle.idle(since.saturating_sub(at_most));
            }
            (None, _) if self.in_flight == 0 => {
                let quiet_from = self.last_answered.max(self.cycle.started());
                self.cycle.idle(now.saturating_duration_since(quiet_from));
            }
            (None, _) => {}
        }
    }

    fn leave(&mut self, now: Instant, ticket: &Ticket) {
        self.in_flight = self.in_flight.saturating_sub(ticket.count);
        self.last_answered = now;
        if let Some(volley) = &mut self.window.burst
            && ticket.sent >= volley.began
        {
            let round_trip = now.saturating_duration_since(ticket.sent);
            volley.patience_ends.get_or_insert(now + 2 * round_trip);
        }
    }

    fn accepted(&mut self, now: Instant, ticket: &Ticket, accepted: u32) {
        self.told.accepted += u64::from(accepted);
        self.told.last_accepted = Some(now);
        let took = now.saturating_duration_since(ticket.sent);
        self.round_trip = Some(self.round_trip.map_or(took, |usual| (usual * 7 + took) / 8));
        self.told.refused_since = None;
        self.cycle.accepted(now, accepted);
        if self.cycle.bore_fruit(ticket.cycle) {
            self.fruitless = 0;
        }
        let held = self.hold.is_some();
        self.window.accepted(accepted, if held { self.window.size } else { self.max_in_flight });
    }

    fn refused(&mut self, now: Instant, ticket: &Ticket, throttled: Throttled) {
        self.told.refused += u64::from(throttled.count);
        self.told.refused_since.get_or_insert(now);
        let named = throttled
            .retry_after
            .map(|wait| now + wait.clamp(limits::LEAST_HOLD, limits::LONGEST_RETRY_AFTER));
        let unlearned = self.hold.is_some_and(|hold| hold.limit_hit.is_some());
        if ticket.cycle != self.cycle.number() || unlearned {
            // Its own Retry-After is heeded, and it is no news about the rate.
            if let Some(until) = named {
                let hold = self.hold.get_or_insert(Hold { until, limit_hit: None });
                hold.until = hold.until.max(until);
                if let Some(event) = &mut hold.limit_hit {
                    event.and(until, throttled.count);
                }
            }
            return;
        }
        self.told.events += 1;
        let unnamed = limits::FIRST_HOLD
            .saturating_mul(1_u32.checked_shl(self.fruitless).unwrap_or(u32::MAX))
            .min(limits::MAX_HOLD);
        if !self.cycle.is_fruitful() {
            self.fruitless += 1;
        }
        let until = named.unwrap_or(now + unnamed);
        let until = self.hold.map_or(until, |hold| hold.until.max(until));
        let rounded = throttled.retry_after.is_some_and(|wait| wait.subsec_nanos() == 0);
        let hurried = self.was_hurried(now, ticket, throttled.retry_after);
        let event = LimitHit::new(now, until, throttled.count, rounded, hurried);
        self.hold = Some(Hold { until, limit_hit: Some(event) });
    }

    /// Whether a refusal is to be put down to what was caught up, and not to the rate.
    fn was_hurried(&mut self, now: Instant, ticket: &Ticket, wait: Option<Duration>) -> bool {
        let flat = self.curve.is_some_and(|curve| !curve.is_probing());
        let into = now.saturating_duration_since(self.cycle.started());
        let round_trip = now.saturating_duration_since(ticket.sent);
        let hurried = self.debt.refused(wait, round_trip, flat && into < limits::CATCHING_UP);
        // A window frees its places as quickly as they were taken one window ago.
        let echo = flat && self.shape.window().is_some_and(|window| into < window);
        self.excused = (hurried || echo) && !self.excused;
        self.excused
    }

    /// Slows down a little, at most once a second and once per request sent since, when
    /// Graph says that the limit is near.
    fn ease(&mut self, now: Instant, ticket: &Ticket, load: f64) {
        let lately = self.eased_at.is_some_and(|at| {
            ticket.sent <= at || now.saturating_duration_since(at) < Duration::from_secs(1)
        });
        if lately || self.hold.is_some() {
            return;
        }
        self.eased_at = Some(now);
        self.window.burst = None;
        let paced = self.rate();
        let rate = paced.unwrap_or_else(|| self.cycle.whole(now).rate(None));
        let eased = rate * (1.0 - 0.5 * (load - limits::HIGH_LOAD + 0.1));
        if paced.is_none() {
            self.meter.restart(now, eased);
        }
        let known_for = now.saturating_duration_since(self.cycle.started());
        let round_trip = self.round_trip.unwrap_or_default();
        self.curve = Some(RateCurve::at(eased.max(limits::SLOWEST_RATE), known_for, round_trip));
    }

    /// The rate to send at just now.
    fn pace(&self) -> Option<f64> {
        self.allowed(if self.ends_soon() { 1.0 } else { self.debt.speed() })
    }

    /// The rate in force.
    fn rate(&self) -> Option<f64> {
        self.allowed(1.0)
    }

    /// Whether little is left, as far as anybody has said.
    fn ends_soon(&self) -> bool {
        let Some((left, curve)) = self.left.zip(self.curve) else { return false };
        #[expect(clippy::cast_precision_loss, reason = "at most a million rows")]
        let left = left as f64;
        left <= curve.plateau() * limits::LAST_STRETCH.as_secs_f64()
    }

    /// What was found, so much quicker, and never more than the operator allows.
    fn allowed(&self, quicker: f64) -> Option<f64> {
        match (self.curve.map(|curve| curve.rate() * quicker), self.max_rate) {
            (Some(found), Some(most)) => Some(found.min(most)),
            (found, most) => found.or(most),
        }
    }
}

impl Window {
    fn first(most: u32) -> Self {
        Self { size: limits::FIRST_WINDOW.min(most), accepted_since_growth: 0, burst: None }
    }

    fn accepted(&mut self, accepted: u32, most: u32) {
        self.accepted_since_growth = self.accepted_since_growth.saturating_add(accepted);
        if self.burst.is_none() && self.accepted_since_growth >= self.size {
            self.widen(most);
        }
    }

    /// By half while small, then to double.
    fn widen(&mut self, most: u32) {
        let wider = if self.size < limits::BURSTS_BELOW / 2 {
            self.size + self.size.div_ceil(2)
        } else {
            self.size.saturating_mul(2)
        };
        self.size = wider.min(most).max(1);
        self.accepted_since_growth = 0;
    }

    fn narrow(&mut self) {
        self.size = (self.size / 2).max(1);
        self.accepted_since_growth = 0;
        self.burst = None;
    }

    /// Lets a whole window out again, wider if half of the last one was accepted; from
    /// [`limits::VOLLEYS_BELOW`] on, each answer makes room for the next request instead.
    fn next_burst(&mut self, now: Instant, in_flight: u32, most: u32) {
        if self.accepted_since_growth >= self.size.div_ceil(2) {
            self.widen(most);
        }
        let left = self.size.saturating_sub(in_flight);
        let small = self.size < limits::BURSTS_BELOW && self.size < most;
        self.burst = small.then_some(Burst { left, began: now, patience_ends: None });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(options: LimiterOptions) -> (BudgetLimiter, Instant) {
        let now = Instant::now();
        (BudgetLimiter::new(&options, 0, now), now)
    }

    fn admitted(limiter: &mut BudgetLimiter, now: Instant) -> Ticket {
        match limiter.decide(now, 1) {
            Decision::Admit(ticket) => ticket,
            wait => panic!("not admitted: {wait:?}"),
        }
    }

    /// Everything that may leave now.
    fn all_admitted(limiter: &mut BudgetLimiter, now: Instant) -> Vec<Ticket> {
        std::iter::from_fn(|| match limiter.decide(now, 1) {
            Decision::Admit(ticket) => Some(ticket),
            _ => None,
        })
        .collect()
    }

    fn refused(retry_after: Option<Duration>) -> Throttled {
        Throttled { count: 1, retry_after }
    }

    #[test]
    fn the_window_opens_in_volleys_and_then_with_every_answer() {
        let (mut limiter, mut now) = limiter(LimiterOptions::default());
        let mut volleys = Vec::new();
        for _ in 0..6 {
            let tickets = all_admitted(&mut limiter, now);
            volleys.push(tickets.len());
            now += SECOND;
            for ticket in &tickets {
                limiter.answered(now, ticket, 1, None, None);
            }
        }
        assert_eq!(volleys, [10, 15, 23, 46, 64, 64]);
    }

    #[test]
    fn a_straggler_does_not_hold_the_next_volley_up_for_long() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        for ticket in &tickets[1..] {
            limiter.answered(start + SECOND, ticket, 1, None, None);
        }
        assert!(matches!(limiter.decide(start + SECOND, 1), Decision::WaitUntil(_)));
        assert_eq!(all_admitted(&mut limiter, start + 3 * SECOND).len(), 14);
    }

    #[test]
    fn a_refusal_holds_everybody_for_the_whole_wait_and_no_longer() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        limiter.answered(start, &tickets[0], 0, Some(refused(Some(10 * SECOND))), None);
        for (later, ticket) in (1..).zip(&tickets[1..]) {
            // Sent before the hold: each is heeded for its own wait, all are one event.
            let wait = Some(refused(Some(SECOND)));
            limiter.answered(start + Duration::from_millis(later), ticket, 0, wait, None);
        }
        let until = start + 10 * SECOND;
        for at in [start, start + 5 * SECOND, until - Duration::from_millis(1)] {
            assert!(matches!(limiter.decide(at, 1), Decision::WaitUntil(end) if end == until));
        }
        let _first = admitted(&mut limiter, until);
        assert_eq!(limiter.snapshot(until).events, 1);
    }

    #[test]
    fn what_was_accepted_until_the_reopening_is_the_rate() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        for ticket in &tickets[..5] {
            limiter.answered(start, ticket, 1, None, None);
        }
        for ticket in &tickets[5..] {
            limiter.answered(start, ticket, 0, Some(refused(Some(10 * SECOND))), None);
        }
        let _first = admitted(&mut limiter, start + 10 * SECOND);
        let rate = limiter.snapshot(start).rate.expect("a rate was found");
        assert!((0.48..0.5).contains(&rate), "{rate}");
    }

    #[test]
    fn little_is_left_to_the_rate_that_is_known() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        for ticket in &tickets[1..] {
            limiter.answered(start + SECOND, ticket, 1, None, None);
        }
        limiter.answered(start + SECOND, &tickets[0], 0, Some(refused(Some(SECOND))), None);
        let mut now = start + 2 * SECOND;
        for _ in 0..600 {
            match limiter.decide(now, 1) {
                Decision::Admit(ticket) => limiter.answered(now, &ticket, 1, None, None),
                Decision::WaitUntil(moment) => now = moment,
                other => panic!("{other:?}"),
            }
        }
        let known = limiter.outlook(now).per_second.expect("answered");
        let mut rate_with = |limiter: &mut BudgetLimiter, left| {
            limiter.announce(left);
            let ticket = (0..9).find_map(|_| match limiter.decide(now, 1) {
                Decision::Admit(ticket) => Some(ticket),
                Decision::WaitUntil(moment) => {
                    now = moment;
                    None
                }
                other => panic!("{other:?}"),
            });
            limiter.answered(now, &ticket.expect("a moment's wait"), 1, None, None);
            limiter.snapshot(now).rate.expect("refused once")
        };
        assert!(rate_with(&mut limiter, None) > known * 1.01, "nobody has said how much is left");
        assert!(rate_with(&mut limiter, Some(1_000_000)) > known * 1.01, "much is left");
        let rate = rate_with(&mut limiter, Some(2));
        assert!((0.99..1.001).contains(&(rate / known)), "two are left, and yet {rate}");
        let before = rate_with(&mut limiter, Some(2));
        assert!(before <= rate, "no probing meanwhile");
    }

    #[test]
    fn unnamed_waits_double_until_something_is_accepted() {
        let (mut limiter, mut now) = limiter(LimiterOptions::default());
        let mut waits = Vec::new();
        for _ in 0..8 {
            let ticket = admitted(&mut limiter, now);
            limiter.answered(now, &ticket, 0, Some(refused(None)), None);
            let Decision::WaitUntil(end) = limiter.decide(now, 1) else { panic!("no hold") };
            waits.push((end - now).as_secs());
            now = end;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let ticket = admitted(&mut limiter, now);
        limiter.answered(now, &ticket, 1, None, None);
        let Decision::WaitUntil(next) = limiter.decide(now, 1) else { panic!("no rate") };
        let ticket = admitted(&mut limiter, next);
        limiter.answered(next, &ticket, 0, Some(refused(None)), None);
        assert!(
            matches!(limiter.decide(next, 1), Decision::WaitUntil(end) if end == next + SECOND)
        );
    }

    #[test]
    fn a_retry_after_is_honoured_whole_and_told_when_it_is_too_long() {
        let (mut limiter, now) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, now);
        let longest = limits::MAX_RETRY_AFTER;
        limiter.answered(now, &tickets[0], 0, Some(refused(Some(longest))), None);
        assert!(matches!(limiter.decide(now, 1), Decision::WaitUntil(end) if end == now + longest));
        let longer = longest + SECOND;
        limiter.answered(now, &tickets[1], 0, Some(refused(Some(longer))), None);
        assert!(matches!(limiter.decide(now, 1), Decision::Barred(end) if end == now + longer));
        limiter.answered(now, &tickets[2], 0, Some(refused(Some(Duration::MAX))), None);
        assert!(matches!(limiter.decide(now, 1),
            Decision::Barred(end) if end == now + limits::LONGEST_RETRY_AFTER));
    }

    #[test]
    fn a_high_load_slows_down_before_a_refusal() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        let now = start + SECOND;
        limiter.answered(now, &tickets[0], 1, None, Some(0.5));
        assert_eq!(limiter.snapshot(now).rate, None);
        for ticket in &tickets[1..] {
            limiter.answered(now, ticket, 1, None, Some(0.9));
        }
        let eased = limiter.snapshot(now).rate.expect("the load gave a rate");
        assert!(eased < 10.0, "{eased}");
        assert_eq!(limiter.snapshot(now).holding_until, None);
        let mut now = now;
        for _ in 0..2 {
            now += 2 * SECOND;
            let ticket = admitted(&mut limiter, now);
            limiter.answered(now, &ticket, 1, None, Some(1.2));
        }
        let rate = limiter.snapshot(now).rate.expect("a rate");
        assert!(rate < 0.7 * eased, "{rate} after {eased}");
    }

    #[test]
    fn lost_answers_halve_the_window_once_for_all_that_were_out() {
        let (mut limiter, now) = limiter(LimiterOptions::default());
        for ticket in &all_admitted(&mut limiter, now) {
            limiter.broken(now, ticket);
        }
        assert_eq!(limiter.snapshot(now).window, 5);
        assert_eq!(limiter.snapshot(now).in_flight, 0);
    }

    #[test]
    fn silence_neither_raises_nor_lowers_what_was_found() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        for ticket in &all_admitted(&mut limiter, start) {
            limiter.answered(start, ticket, 0, Some(refused(Some(SECOND))), None);
        }
        let now = start + SECOND;
        let ticket = admitted(&mut limiter, now);
        limiter.answered(now, &ticket, 1, None, None);
        let before = limiter.snapshot(now).rate;
        // The head of the queue waits for the rate and then gives up.
        assert!(matches!(limiter.decide(now, 1), Decision::WaitUntil(_)));
        let much_later = now + 3_600 * SECOND;
        let _ticket = admitted(&mut limiter, much_later);
        let (before, after) =
            (before.expect("a rate"), limiter.snapshot(now).rate.expect("a rate"));
        // Two seconds' worth of the first rate's rise, and no hour's.
        assert!((before..before * 1.2).contains(&after), "{before} then {after}");
    }

    /// One thing that may happen to a limiter.
    #[derive(Debug, Clone)]
    enum Step {
        Pass(u64),
        Ask(u32),
        Accept(usize, Option<f64>),
        Refuse(usize, Option<u64>),
        Break(usize),
        Forget(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..3_000).prop_map(Step::Pass),
            6 => prop_oneof![9 => Just(1_u32), 1 => 1_u32..=20].prop_map(Step::Ask),
            4 => (any::<usize>(), proptest::option::weighted(0.1, 0.0..3.0))
                .prop_map(|(which, load)| Step::Accept(which, load)),
            1 => (any::<usize>(), proptest::option::of(0_u64..20_000))
                .prop_map(|(which, wait)| Step::Refuse(which, wait)),
            1 => any::<usize>().prop_map(Step::Break),
            1 => any::<usize>().prop_map(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold_and_nobody_starves(
            steps in proptest::collection::vec(step(), 1..400),
            max_in_flight in 1_usize..100,
            max_rate in proptest::option::of(0.5..200.0_f64),
        ) {
            let (mut limiter, start) = limiter(LimiterOptions { max_in_flight, max_rate });
            let (mut now, mut out, mut sent) = (start, Vec::new(), Vec::new());
            let mut held_until = start;
            for step in steps {
                match step {
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                    Step::Ask(count) => {
                        if let Decision::Admit(ticket) = limiter.decide(now, count) {
                            prop_assert!(now >= held_until, "admitted during a hold");
                            let most = u32::try_from(max_in_flight).unwrap();
                            let in_flight = limiter.snapshot(now).in_flight;
                            let alone = out.is_empty() && in_flight == count;
                            prop_assert!(in_flight <= most || alone, "{in_flight} in flight");
                            sent.push((now, count));
                            out.push(ticket);
                        }
                    }
                    _ if out.is_empty() => {}
                    Step::Accept(which, load) => {
                        let ticket = out.swap_remove(which % out.len());
                        limiter.answered(now, &ticket, ticket.count, None, load);
                    }
                    Step::Refuse(which, wait) => {
                        let ticket = out.swap_remove(which % out.len());
                        let wait = wait.map(Duration::from_millis);
                        limiter.answered(now, &ticket, ticket.count - 1, Some(refused(wait)), None);
                        held_until = held_until.max(now + wait.unwrap_or_default());
                    }
                    Step::Break(which) => {
                        limiter.broken(now, &out.swap_remove(which % out.len()));
                    }
                    Step::Forget(which) => {
                        limiter.forgotten(now, &out.swap_remove(which % out.len()));
                    }
                }
            }
            if let Some(rate) = max_rate {
                for (first, (from, _)) in sent.iter().enumerate() {
                    let mut count = 0.0;
                    for (until, more) in &sent[first..] {
                        count += f64::from(*more);
                        let allowed = rate * ((*until - *from).as_secs_f64() + 0.05);
                        // The meter's clock ticks in whole nanoseconds.
                        let burst = 1.001 + f64::from(sent[first].1);
                        prop_assert!(count <= allowed + burst, "{count} by {until:?}");
                    }
                }
            }
            for ticket in out.drain(..) {
                limiter.answered(now, &ticket, ticket.count, None, None);
            }
            let deadline = now + limits::MAX_RETRY_AFTER;
            loop {
                match limiter.decide(now, 1) {
                    Decision::Admit(_) => break,
                    Decision::WaitUntil(moment) | Decision::Barred(moment) => {
                        now = moment.max(now + Duration::from_nanos(1));
                    }
                    Decision::WaitForAnswer => {
                        prop_assert!(false, "waits for an answer to nothing");
                    }
                }
                prop_assert!(now <= deadline, "starved");
            }
        }
    }

    #[test]
    fn a_batch_knocks_once_a_minute_while_everything_is_refused() {
        let (mut limiter, mut now) = limiter(LimiterOptions::default());
        let longest = SECOND + 10 * SECOND + Duration::from_mins(1);
        for _ in 0..8 {
            let asked = now;
            let ticket = loop {
                match limiter.decide(now, 20) {
                    Decision::Admit(ticket) => break ticket,
                    Decision::WaitUntil(moment) => now = moment,
                    other => panic!("{other:?} with nothing in flight"),
                }
            };
            assert!(now - asked <= longest, "asked again after {:?}", now - asked);
            now += SECOND;
            let throttled = Throttled { count: 20, retry_after: Some(10 * SECOND) };
            limiter.answered(now, &ticket, 0, Some(throttled), None);
        }
    }

    #[test]
    fn the_time_before_the_first_request_does_not_count() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let now = start + Duration::from_mins(1);
        for ticket in all_admitted(&mut limiter, now) {
            limiter.answered(now + SECOND, &ticket, 1, None, None);
        }
        let ticket = admitted(&mut limiter, now + SECOND);
        limiter.answered(now + SECOND, &ticket, 0, Some(refused(Some(SECOND))), None);
        let expected = limiter.outlook(now + SECOND).per_second.expect("answered");
        assert!((4.9..=5.1).contains(&expected), "ten in two seconds, not {expected}");
    }
}
