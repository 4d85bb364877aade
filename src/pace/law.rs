//! Promises the control law of one budget as a pure state machine: moments and answers in,
//! leave or waits out. Must never ask for the time, wait, or draw lots.

use std::time::Duration;

use tokio::time::Instant;

use super::curve::Curve;
use super::meter::Meter;
use super::{PaceOptions, Snapshot, Throttled};
use crate::limits;

/// How much quicker requests leave while arrears are caught up.
const CATCHING_UP: f64 = 1.25;
/// How much of the arrears is caught up at most: a little left in a token bucket does no
/// harm, an empty one is a refusal. And at least, so that trust can come back.
const MOST_TRUST: f64 = 0.75;
const LEAST_TRUST: f64 = 0.05;

/// Requests that were let out together and are not yet answered.
#[derive(Debug)]
#[must_use = "a place in the window is only given back through its ticket"]
pub(super) struct Ticket {
    count: u32,
    cycle: u64,
    sent: Instant,
}

/// Whether requests may leave now.
#[derive(Debug)]
pub(super) enum Decision {
    /// They may.
    Admit(Ticket),
    /// Not before this moment.
    WaitUntil(Instant),
    /// Not before an answer has come.
    WaitForAnswer,
}

/// One budget's limiter.
#[derive(Debug)]
pub(super) struct Law {
    max_in_flight: u32,
    max_rate: Option<f64>,
    window: Window,
    meter: Meter,
    /// Cells already taken for the request at the head of the queue, which may be a batch.
    gathered: u32,
    in_flight: u32,
    hold: Option<Hold>,
    curve: Option<Curve>,
    cycle: Cycle,
    /// The last cycle that had anything accepted, for when the one after it has not.
    past: Option<Cycle>,
    /// Refusals in a row, each after a hold, with nothing accepted in between.
    fruitless: u32,
    arrears: Arrears,
    eased_at: Option<Instant>,
    narrowed_at: Option<Instant>,
    last_admitted: Instant,
    last_answered: Instant,
    /// The rate made somebody wait since the last admission: it, not demand, is the limit.
    bound: bool,
    told: Told,
}

/// Nothing is sent until then.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    /// The refusal that began it has yet to be turned into a rate.
    unlearned: bool,
}

/// What happened between two holds.
#[derive(Debug, Clone, Copy)]
struct Cycle {
    number: u64,
    started: Instant,
    /// Time in it that nobody used.
    idle: Duration,
    accepted: f64,
    /// A request sent within it was accepted.
    fruitful: bool,
}

/// Requests that a hold kept back for longer than Graph's limit did. `Retry-After` is
/// rounded up to whole seconds and counted from an answer that was half a round trip old; a
/// token bucket has gone on filling all the while, and what overflows is lost.
#[derive(Debug, Clone, Copy)]
struct Arrears {
    owed: f64,
    /// What was owed when the hold ended.
    due: f64,
    /// How much of it the tenant has proved to honour, from 0 to 1.
    trust: f64,
    /// Of the request that was refused.
    round_trip: Duration,
}

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
struct Window {
    size: u32,
    accepted_since_growth: u32,
    /// What may still leave in the present volley, and when that one stops being waited for.
    volley: Option<Volley>,
}

#[derive(Debug, Clone, Copy)]
struct Volley {
    left: u32,
    began: Instant,
    patience_ends: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    admitted: u64,
    accepted: u64,
    refused: u64,
    broken: u64,
    events: u64,
    last_accepted: Option<Instant>,
}

impl Law {
    /// A limiter that knows nothing yet.
    pub(super) fn new(options: &PaceOptions, now: Instant) -> Self {
        let most = u32::try_from(limits::MAX_IN_FLIGHT).unwrap_or(u32::MAX);
        let max_in_flight = u32::try_from(options.max_in_flight).unwrap_or(most).clamp(1, most);
        let mut meter = Meter::new(now);
        meter.restart(now);
        let mut window = Window::first(max_in_flight);
        window.next_volley(now, 0, max_in_flight);
        Self {
            max_in_flight,
            max_rate: options.max_rate.map(|rate| rate.max(limits::SLOWEST_RATE)),
            window,
            meter,
            gathered: 0,
            in_flight: 0,
            hold: None,
            curve: None,
            cycle: Cycle::starting(0, now),
            past: None,
            fruitless: 0,
            arrears: Arrears { owed: 0.0, trust: MOST_TRUST, due: 0.0, round_trip: Duration::ZERO },
            eased_at: None,
            narrowed_at: None,
            last_admitted: now,
            last_answered: now,
            bound: false,
            told: Told::default(),
        }
    }

    /// Whether `count` requests may leave at `now`. Asked for the head of the queue alone.
    pub(super) fn decide(&mut self, now: Instant, count: u32) -> Decision {
        let count = count.max(1);
        if let Some(until) = self.held_until(now) {
            return Decision::WaitUntil(until);
        }
        if let Err(wait) = self.room(now, count) {
            return wait;
        }
        if let Some(rate) = self.pace() {
            self.gathered = self.gathered.min(count);
            while self.gathered < count {
                if let Err(wait) = self.meter.take(now, rate) {
                    self.bound = true;
                    return Decision::WaitUntil(now + wait);
                }
                self.gathered += 1;
            }
        }
        self.gathered = 0;
        Decision::Admit(self.admit(now, count))
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

    /// When a request was last accepted.
    pub(super) fn last_accepted(&self) -> Option<Instant> {
        self.told.last_accepted
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

    /// The end of the hold, if one is on; learns from one that is over.
    fn held_until(&mut self, now: Instant) -> Option<Instant> {
        let hold = self.hold?;
        if now < hold.until {
            return Some(hold.until);
        }
        self.hold = None;
        self.gathered = 0;
        self.meter.restart(hold.until);
        self.last_admitted = self.last_admitted.max(hold.until);
        self.bound = true;
        if hold.unlearned {
            self.learn(hold.until);
        }
        None
    }

    /// Turns the cycle that a refusal ended at `until` into a rate: what was accepted,
    /// spread evenly over the time from one reopening to the next, would not have been
    /// refused.
    fn learn(&mut self, until: Instant) {
        let next = Cycle::starting(self.cycle.number + 1, until);
        // A cycle without anything accepted is the end of the one before: the hold was too
        // short, so the same requests are spread over a longer time.
        let cycle = match self.past {
            Some(past) if !self.cycle.fruitful => past.and(self.cycle),
            _ => self.cycle,
        };
        let found = cycle.rate(until, self.curve.as_ref().map(Curve::plateau));
        let before = self.curve.as_ref().map(Curve::rate);
        let plateau = before.map_or(found, |before| found.min(before)).max(limits::SLOWEST_RATE);
        if before.is_none_or(|before| plateau < before / 2.0) {
            self.window = Window::first(self.max_in_flight);
        }
        let known_for = until.saturating_duration_since(cycle.started);
        self.curve = Some(Curve::below(plateau, known_for));
        self.arrears.fall_due(plateau);
        self.past = Some(cycle);
        self.cycle = next;
    }

    /// Room in the window for `count`, or what to wait for. A batch larger than the whole
    /// window goes when it would be alone.
    fn room(&mut self, now: Instant, count: u32) -> Result<(), Decision> {
        let fits = self.in_flight == 0 || self.in_flight + count <= self.window.size;
        let Some(volley) = self.window.volley else {
            return if fits { Ok(()) } else { Err(Decision::WaitForAnswer) };
        };
        if volley.left >= count && fits {
            return Ok(());
        }
        let over = self.in_flight == 0 || volley.patience_ends.is_some_and(|end| now >= end);
        if !over {
            return Err(volley.patience_ends.map_or(Decision::WaitForAnswer, Decision::WaitUntil));
        }
        self.window.next_volley(now, self.in_flight, self.max_in_flight);
        if self.in_flight == 0 || self.in_flight + count <= self.window.size {
            Ok(())
        } else {
            Err(Decision::WaitForAnswer)
        }
    }

    fn admit(&mut self, now: Instant, count: u32) -> Ticket {
        let since = now.saturating_duration_since(self.last_admitted);
        match (&mut self.curve, self.bound) {
            (Some(curve), true) => curve.probe(since),
            (Some(curve), false) => self.cycle.idle += since.saturating_sub(curve.spacing()),
            (None, _) if self.in_flight == 0 => {
                let quiet_from = self.last_answered.max(self.cycle.started);
                self.cycle.idle += now.saturating_duration_since(quiet_from);
            }
            (None, _) => {}
        }
        self.bound = false;
        self.last_admitted = now;
        self.arrears.pay(count);
        self.in_flight += count;
        self.told.admitted += u64::from(count);
        if let Some(volley) = &mut self.window.volley {
            volley.left = volley.left.saturating_sub(count);
        }
        Ticket { count, cycle: self.cycle.number, sent: now }
    }

    fn leave(&mut self, now: Instant, ticket: &Ticket) {
        self.in_flight = self.in_flight.saturating_sub(ticket.count);
        self.last_answered = now;
        if let Some(volley) = &mut self.window.volley
            && ticket.sent >= volley.began
        {
            let round_trip = now.saturating_duration_since(ticket.sent);
            volley.patience_ends.get_or_insert(now + round_trip);
        }
    }

    fn accepted(&mut self, now: Instant, ticket: &Ticket, accepted: u32) {
        self.told.accepted += u64::from(accepted);
        self.told.last_accepted = Some(now);
        self.cycle.accepted += f64::from(accepted);
        if ticket.cycle == self.cycle.number {
            self.cycle.fruitful = true;
            self.fruitless = 0;
        }
        let held = self.hold.is_some();
        self.window.accepted(accepted, if held { self.window.size } else { self.max_in_flight });
    }

    fn refused(&mut self, now: Instant, ticket: &Ticket, throttled: Throttled) {
        self.told.refused += u64::from(throttled.count);
        let named = throttled
            .retry_after
            .filter(|wait| !wait.is_zero())
            .map(|wait| now + wait.min(limits::MAX_RETRY_AFTER));
        let same_event =
            ticket.cycle != self.cycle.number || self.hold.is_some_and(|hold| hold.unlearned);
        if same_event {
            // Its own Retry-After is heeded, but it is no news about the rate.
            if let Some(until) = named {
                let unlearned = self.hold.is_some_and(|hold| hold.unlearned);
                let until = self.hold.map_or(until, |hold| hold.until.max(until));
                self.hold = Some(Hold { until, unlearned });
            }
            return;
        }
        self.told.events += 1;
        self.arrears.refused(now.saturating_duration_since(ticket.sent));
        let unnamed = limits::FIRST_HOLD
            .saturating_mul(1_u32.checked_shl(self.fruitless).unwrap_or(u32::MAX))
            .min(limits::MAX_HOLD);
        if !self.cycle.fruitful {
            self.fruitless += 1;
        }
        let until = named.unwrap_or(now + unnamed);
        let until = self.hold.map_or(until, |hold| hold.until.max(until));
        self.hold = Some(Hold { until, unlearned: true });
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
        self.window.volley = None;
        let rate = self.rate().unwrap_or_else(|| self.cycle.rate(now, None));
        let eased = rate * (1.0 - 0.5 * (load - limits::HIGH_LOAD + 0.1));
        if self.curve.is_none() {
            self.meter.restart(now);
        }
        let known_for = now.saturating_duration_since(self.cycle.started);
        self.curve = Some(Curve::at(eased.max(limits::SLOWEST_RATE), known_for));
    }

    /// The rate to send at just now.
    fn pace(&self) -> Option<f64> {
        let found = self.curve.as_ref().map(|curve| curve.rate() * self.arrears.speed());
        match (found, self.max_rate) {
            (Some(found), Some(most)) => Some(found.min(most)),
            (found, most) => found.or(most),
        }
    }

    /// The rate in force: what was found, and never more than the operator allows.
    fn rate(&self) -> Option<f64> {
        match (self.curve.as_ref().map(Curve::rate), self.max_rate) {
            (Some(found), Some(most)) => Some(found.min(most)),
            (found, most) => found.or(most),
        }
    }
}

impl Arrears {
    /// The hold is over, and the flow goes on at about `rate`.
    fn fall_due(&mut self, rate: f64) {
        let late = limits::RETRY_AFTER_ROUNDING + self.round_trip;
        self.due = self.trust * rate * late.as_secs_f64();
        self.owed = self.due;
    }

    fn speed(&self) -> f64 {
        if self.owed > 0.0 { CATCHING_UP } else { 1.0 }
    }

    fn pay(&mut self, count: u32) {
        self.owed = (self.owed - f64::from(count) * (1.0 - 1.0 / CATCHING_UP)).max(0.0);
    }

    /// A refusal while catching up shows that less was kept back than was thought.
    fn refused(&mut self, round_trip: Duration) {
        let honoured = if self.owed > 0.0 { 1.0 - self.owed / self.due - 0.1 } else { 1.1 };
        self.trust = (self.trust * honoured).clamp(LEAST_TRUST, MOST_TRUST);
        self.owed = 0.0;
        self.round_trip = round_trip;
    }
}

impl Cycle {
    fn starting(number: u64, started: Instant) -> Self {
        Self { number, started, idle: Duration::ZERO, accepted: 0.0, fruitful: false }
    }

    fn and(self, next: Self) -> Self {
        let accepted = self.accepted + next.accepted;
        Self { accepted, idle: self.idle + next.idle, ..self }
    }

    /// Accepted requests per second up to `end`. Idle time says nothing about the limit and
    /// is left out, but no more than to double the rate: a refusal must count for something.
    /// What was known before weighs as much as [`limits::RATE_INERTIA`] requests, lest a
    /// cycle of one or two decide everything.
    fn rate(&self, end: Instant, known: Option<f64>) -> f64 {
        let whole = end.saturating_duration_since(self.started).max(Duration::from_millis(1));
        let busy = whole.saturating_sub(self.idle).max(Duration::from_millis(1));
        let (accepted, inertia) = match known {
            Some(rate) => (self.accepted + limits::RATE_INERTIA, limits::RATE_INERTIA / rate),
            None => (self.accepted.max(1.0), 0.0),
        };
        let (whole, busy) = (whole.as_secs_f64() + inertia, busy.as_secs_f64() + inertia);
        (accepted / whole).max(accepted / busy / 2.0)
    }
}

impl Window {
    fn first(most: u32) -> Self {
        Self { size: limits::FIRST_WINDOW.min(most), accepted_since_growth: 0, volley: None }
    }

    fn accepted(&mut self, accepted: u32, most: u32) {
        self.accepted_since_growth = self.accepted_since_growth.saturating_add(accepted);
        if self.volley.is_none() && self.accepted_since_growth >= self.size {
            self.widen(most);
        }
    }

    /// By half while small, then to double.
    fn widen(&mut self, most: u32) {
        let wider = if self.size < limits::VOLLEYS_BELOW / 2 {
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
        self.volley = None;
    }

    /// Lets a whole window out again, wider if half of the last one was accepted; from
    /// [`limits::VOLLEYS_BELOW`] on, each answer makes room for the next request instead.
    fn next_volley(&mut self, now: Instant, in_flight: u32, most: u32) {
        if self.accepted_since_growth >= self.size.div_ceil(2) {
            self.widen(most);
        }
        let left = self.size.saturating_sub(in_flight);
        self.volley = (self.size < limits::VOLLEYS_BELOW).then_some(Volley {
            left,
            began: now,
            patience_ends: None,
        });
    }
}
