//! One budget's limiter as a pure state machine: moments and answers in, leave or waits out. It
//! must never ask for the time, wait, or draw lots.

use std::time::Duration;

use tokio::time::Instant;

use super::batches::Batches;
use super::curve::RateCurve;
use super::cycle::Cycle;
use super::debt::Debt;
use super::meter::Meter;
use super::observed::{self, LimitHit, ObservedRate, Store};
use super::window::Window;
use super::{LimiterOptions, Outlook, Snapshot, Throttled};
use tapwave_core::backoff::exponential;
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

/// One budget's limiter. The module above explains it.
#[derive(Debug)]
pub(super) struct BudgetLimiter {
    /// The operator's: most that may be under way, which bounds what a round trip brings, and
    /// most per second.
    max_in_flight: u32,
    max_rate: Option<f64>,
    window: Window,
    meter: Meter,
    hold: Option<Hold>,
    /// The rate, once a refusal has shown one, and what else is known about the tenant.
    curve: Option<RateCurve>,
    cycle: Cycle,
    debt: Debt,
    store: Store,
    batches: Batches,
    /// From leave to answer, smoothed.
    round_trip: Option<Duration>,
    demand: Demand,
    counts: Counts,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
struct Demand {
    last_admitted: Instant,
    /// The rate made somebody wait since then: it, not demand, is the limit.
    bound: bool,
    /// Requests that will still be asked for, as far as anybody has said.
    left: Option<u64>,
}

/// Nothing is sent until then.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    /// What has yet to be turned into a rate.
    limit_hit: Option<LimitHit>,
}

/// Counts for the snapshot.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
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
        let calls = options.max_in_flight.min(limits::BATCHES_IN_FLIGHT);
        let batched = within(calls * limits::REQUESTS_PER_BATCH);
        let mut meter = Meter::new(now);
        let max_rate = options.max_rate.map(|rate| rate.max(limits::SLOWEST_RATE));
        if let Some(rate) = max_rate {
            meter.restart(now, rate);
        }
        Self {
            max_in_flight: within(options.max_in_flight),
            max_rate,
            window: Window::new(within(options.max_in_flight + ahead), batched, now),
            meter,
            hold: None,
            curve: None,
            cycle: Cycle::starting(now),
            debt: Debt::none(),
            store: Store::unknown(),
            batches: Batches::unknown(),
            round_trip: None,
            demand: Demand { last_admitted: now, bound: false, left: None },
            counts: Counts::default(),
        }
    }

    /// Whether `count` requests may leave at `now`. Asked for the head of the queue alone.
    pub(super) fn decide(&mut self, now: Instant, count: u32) -> Decision {
        let count = count.max(1);
        if let Some(until) = self.held_until(now) {
            let barred = until.saturating_duration_since(now) > limits::MAX_RETRY_AFTER;
            return if barred { Decision::Barred(until) } else { Decision::WaitUntil(until) };
        }
        if let Err(patience_ends) = self.window.room(now, count) {
            return patience_ends.map_or(Decision::WaitForAnswer, Decision::WaitUntil);
        }
        if let Some(rate) = self.sending_rate()
            && let Err(wait) = self.meter.gather(now, rate, count)
        {
            self.demand.bound = true;
            return Decision::WaitUntil(now + wait);
        }
        Decision::Admit(self.admit(now, count))
    }

    /// The same for one batch of up to `most` requests; the ticket says how many it may hold.
    pub(super) fn decide_batch(&mut self, now: Instant, most: u32) -> Decision {
        // What a hold that is over has taught counts already.
        self.held_until(now);
        let count = self.batches.fit(most, self.sending_rate());
        self.decide(now, count)
    }

    /// What came back: `accepted` requests were answered by anything but a refusal.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        ticket: &Ticket,
        accepted: u32,
        throttled: Option<Throttled>,
    ) {
        self.window.left(now, ticket.count, ticket.sent);
        if accepted > 0 {
            self.accepted(now, ticket, accepted);
        }
        let throttled = throttled.filter(|throttled| throttled.count > 0);
        if ticket.alone {
            let since = now.checked_sub(limits::BATCH_SPAN).unwrap_or(now);
            let lately = self.cycle.part(since, now).accepted();
            let refused = throttled.map_or(0, |throttled| throttled.count);
            self.batches.answered(accepted, refused, lately);
        }
        if let Some(throttled) = throttled {
            self.refused(now, ticket, throttled);
        }
    }

    /// No usable answer came. That tells nothing about the rate, but like a lost packet it
    /// halves the window, once for all requests that were out together.
    pub(super) fn broken(&mut self, now: Instant, ticket: &Ticket) {
        self.window.left(now, ticket.count, ticket.sent);
        self.window.narrow(now, ticket.sent);
        self.counts.broken += u64::from(ticket.count);
    }

    /// The requests were never sent, or nobody waited for the answer.
    pub(super) fn forgotten(&mut self, now: Instant, ticket: &Ticket) {
        self.window.left(now, ticket.count, ticket.sent);
    }

    /// So many requests will still be asked for; `None` if nobody knows.
    pub(super) fn announce(&mut self, left: Option<u64>) {
        self.demand.left = left;
    }

    /// When a request was last accepted.
    pub(super) fn last_accepted(&self) -> Option<Instant> {
        self.counts.last_accepted
    }

    /// When the present spell of nothing but refusals began.
    pub(super) fn refused_since(&self) -> Option<Instant> {
        self.counts.refused_since
    }

    /// How things stand.
    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            in_flight: self.window.in_flight(),
            window: self.window.size(),
            rate: self.allowed(1.0),
            holding_until: self.hold.map(|hold| hold.until).filter(|until| *until > now),
            admitted: self.counts.admitted,
            accepted: self.counts.accepted,
            refused: self.counts.refused,
            broken: self.counts.broken,
            events: self.counts.events,
            last_accepted: self.counts.last_accepted,
        }
    }

    /// What is to be expected from now on if nothing changes: the rate that was found, or is
    /// about to be, and never more than a full window each round trip.
    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        let found = match self.hold {
            Some(Hold { limit_hit: Some(hit), .. }) => Some(self.found(&hit).rate),
            _ => self.curve.map(|curve| curve.plateau()),
        };
        let most = self.window.most_in_batches().unwrap_or(self.max_in_flight);
        let at_most =
            self.round_trip.map(|time| f64::from(most) / time.as_secs_f64().max(f64::MIN_POSITIVE));
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
        self.demand.last_admitted = self.demand.last_admitted.max(hold.until);
        if let Some(hit) = hold.limit_hit {
            self.learn(&hit, hold.until);
        }
        match (self.sending_rate(), self.max_rate) {
            // Who said when to come back may be asked then. But an operator's rate holds
            // whatever the tenant says.
            (Some(rate), None) => self.meter.restart(hold.until, rate),
            (Some(rate), Some(_)) => self.meter.trim(hold.until, rate),
            (None, _) => {}
        }
        None
    }

    /// Turns the cycle that a refusal ended into a rate, now that everybody may come back.
    fn learn(&mut self, hit: &LimitHit, until: Instant) {
        let ObservedRate { rate, known_for } = self.found(hit);
        let confirmed = self.curve.and_then(|curve| curve.confirmed_by(rate));
        let known_for = known_for + confirmed.unwrap_or_default();
        self.store.learn(&self.cycle, hit, self.curve.as_ref());
        let curve = if self.curve.is_none() { RateCurve::first } else { RateCurve::below };
        if self.curve.is_none_or(|before| rate < before.rate() / 2.0) {
            self.window.restart();
        }
        self.curve = Some(curve(rate, known_for));
        self.debt.fall_due(rate, self.store.most());
        self.cycle.end(until);
    }

    fn found(&self, hit: &LimitHit) -> ObservedRate {
        let round_trip = self.round_trip.unwrap_or_default();
        let (store, honoured) = (self.store, self.debt.honoured());
        let found =
            observed::found(&self.cycle, hit, self.curve.as_ref(), store, honoured, round_trip);
        ObservedRate { rate: found.rate.max(limits::SLOWEST_RATE), ..found }
    }

    fn admit(&mut self, now: Instant, count: u32) -> Ticket {
        if self.counts.admitted == 0 {
            // Nobody has asked so far, and what was not asked was not granted either: a check
            // of a minute before the first write must not make the tenant look slow.
            self.cycle = Cycle::starting(now);
            self.demand.last_admitted = now;
        }
        let ends = self.ends_soon();
        if let Some(curve) = &mut self.curve
            && ends
        {
            curve.settle();
        } else if let Some(curve) = &mut self.curve
            && self.demand.bound
        {
            // Whoever waited for the rate may have given up and left a long silence.
            let at_most = curve.spacing().saturating_mul(count.saturating_add(1));
            let since = now.saturating_duration_since(self.demand.last_admitted);
            curve.probe(since.min(at_most));
        }
        self.demand.bound = false;
        self.demand.last_admitted = now;
        self.debt.pay(count);
        self.counts.admitted += u64::from(count);
        let alone = self.window.in_flight() == 0;
        self.window.entered(count);
        Ticket { count, alone, cycle: self.cycle.number(), sent: now }
    }

    fn accepted(&mut self, now: Instant, ticket: &Ticket, accepted: u32) {
        self.counts.accepted += u64::from(accepted);
        self.counts.last_accepted = Some(now);
        self.counts.refused_since = None;
        let took = now.saturating_duration_since(ticket.sent);
        self.round_trip = Some(self.round_trip.map_or(took, |usual| (usual * 7 + took) / 8));
        self.cycle.accepted(now, ticket.cycle, accepted);
        self.window.accepted(accepted, self.hold.is_some());
    }

    fn refused(&mut self, now: Instant, ticket: &Ticket, throttled: Throttled) {
        self.counts.refused += u64::from(throttled.count);
        self.counts.refused_since.get_or_insert(now);
        let named = throttled
            .retry_after
            .map(|wait| now + wait.clamp(limits::LEAST_HOLD, limits::LONGEST_RETRY_AFTER));
        let unlearned = self.hold.is_some_and(|hold| hold.limit_hit.is_some());
        if ticket.cycle != self.cycle.number() || unlearned {
            // Its own Retry-After is heeded, and it is no news about the rate.
            if let Some(until) = named {
                let hold = self.hold.get_or_insert(Hold { until, limit_hit: None });
                hold.until = hold.until.max(until);
                if let Some(hit) = &mut hold.limit_hit {
                    hit.and(until, throttled.count);
                }
            }
            return;
        }
        self.counts.events += 1;
        // Counted also where the wait is named.
        let in_a_row = self.cycle.count_refusal();
        let unnamed = exponential(limits::FIRST_HOLD, in_a_row, limits::MAX_HOLD);
        let until = named.unwrap_or(now + unnamed);
        let until = self.hold.map_or(until, |hold| hold.until.max(until));
        let hit = LimitHit {
            began: now,
            until,
            earliest: until,
            refused: throttled.count,
            rounded: throttled.retry_after.is_some_and(|wait| wait.subsec_nanos() == 0),
            hurried: self.was_hurried(now, ticket, throttled.retry_after),
        };
        self.hold = Some(Hold { until, limit_hit: Some(hit) });
    }

    /// Whether a refusal is to be put down to what was caught up, and not to the rate.
    fn was_hurried(&mut self, now: Instant, ticket: &Ticket, wait: Option<Duration>) -> bool {
        let flat = self.curve.is_some_and(|curve| !curve.is_probing());
        let soon = now.saturating_duration_since(self.cycle.started()) < limits::CATCHING_UP;
        self.debt.refused(wait, now.saturating_duration_since(ticket.sent), flat && soon)
    }

    /// The rate to send at just now.
    fn sending_rate(&self) -> Option<f64> {
        self.allowed(if self.ends_soon() { 1.0 } else { self.debt.speed() })
    }

    /// Whether little is left, as far as anybody has said. It keeps to the rate that is known: a
    /// late refusal spoils the time left that is shown, by 0.29 of it under 100/s instead of 0.10.
    fn ends_soon(&self) -> bool {
        let Some((left, curve)) = self.demand.left.zip(self.curve) else { return false };
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
    fn the_window_opens_in_bursts_and_then_with_every_answer() {
        let (mut limiter, mut now) = limiter(LimiterOptions::default());
        let mut bursts = Vec::new();
        for _ in 0..6 {
            let tickets = all_admitted(&mut limiter, now);
            bursts.push(tickets.len());
            now += SECOND;
            for ticket in &tickets {
                limiter.answered(now, ticket, 1, None);
            }
        }
        assert_eq!(bursts, [10, 15, 23, 46, 64, 64]);
    }

    #[test]
    fn a_straggler_does_not_hold_the_next_burst_up_for_long() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        for ticket in &tickets[1..] {
            limiter.answered(start + SECOND, ticket, 1, None);
        }
        assert!(matches!(limiter.decide(start + SECOND, 1), Decision::WaitUntil(_)));
        assert_eq!(all_admitted(&mut limiter, start + 3 * SECOND).len(), 14);
    }

    #[test]
    fn a_refusal_holds_everybody_for_the_whole_wait_and_no_longer() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        limiter.answered(start, &tickets[0], 0, Some(refused(Some(10 * SECOND))));
        for (later, ticket) in (1..).zip(&tickets[1..]) {
            // Sent before the hold: each is heeded for its own wait, all are one event.
            let wait = Some(refused(Some(SECOND)));
            limiter.answered(start + Duration::from_millis(later), ticket, 0, wait);
        }
        let until = start + 10 * SECOND;
        for at in [start, start + 5 * SECOND, until - Duration::from_millis(1)] {
            assert!(matches!(limiter.decide(at, 1), Decision::WaitUntil(end) if end == until));
        }
        let _first = admitted(&mut limiter, until);
        assert_eq!(limiter.snapshot(until).events, 1);
    }

    #[test]
    fn what_was_accepted_until_the_hold_is_over_is_the_rate() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, start);
        for ticket in &tickets[..5] {
            limiter.answered(start, ticket, 1, None);
        }
        for ticket in &tickets[5..] {
            limiter.answered(start, ticket, 0, Some(refused(Some(10 * SECOND))));
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
            limiter.answered(start + SECOND, ticket, 1, None);
        }
        limiter.answered(start + SECOND, &tickets[0], 0, Some(refused(Some(SECOND))));
        let mut now = start + 2 * SECOND;
        for _ in 0..600 {
            match limiter.decide(now, 1) {
                Decision::Admit(ticket) => limiter.answered(now, &ticket, 1, None),
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
            limiter.answered(now, &ticket.expect("a moment's wait"), 1, None);
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
            limiter.answered(now, &ticket, 0, Some(refused(None)));
            let Decision::WaitUntil(end) = limiter.decide(now, 1) else { panic!("no hold") };
            waits.push((end - now).as_secs());
            now = end;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        let ticket = admitted(&mut limiter, now);
        limiter.answered(now, &ticket, 1, None);
        let Decision::WaitUntil(next) = limiter.decide(now, 1) else { panic!("no rate") };
        let ticket = admitted(&mut limiter, next);
        limiter.answered(next, &ticket, 0, Some(refused(None)));
        assert!(
            matches!(limiter.decide(next, 1), Decision::WaitUntil(end) if end == next + SECOND)
        );
    }

    #[test]
    fn a_retry_after_is_honoured_whole_and_told_when_it_is_too_long() {
        let (mut limiter, now) = limiter(LimiterOptions::default());
        let tickets = all_admitted(&mut limiter, now);
        let longest = limits::MAX_RETRY_AFTER;
        limiter.answered(now, &tickets[0], 0, Some(refused(Some(longest))));
        assert!(matches!(limiter.decide(now, 1), Decision::WaitUntil(end) if end == now + longest));
        let longer = longest + SECOND;
        limiter.answered(now, &tickets[1], 0, Some(refused(Some(longer))));
        assert!(matches!(limiter.decide(now, 1), Decision::Barred(end) if end == now + longer));
        limiter.answered(now, &tickets[2], 0, Some(refused(Some(Duration::MAX))));
        assert!(matches!(limiter.decide(now, 1),
            Decision::Barred(end) if end == now + limits::LONGEST_RETRY_AFTER));
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
            limiter.answered(start, ticket, 0, Some(refused(Some(SECOND))));
        }
        let now = start + SECOND;
        let ticket = admitted(&mut limiter, now);
        limiter.answered(now, &ticket, 1, None);
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
        Accept(usize),
        Refuse(usize, Option<u64>),
        Break(usize),
        Forget(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..3_000).prop_map(Step::Pass),
            6 => prop_oneof![9 => Just(1_u32), 1 => 1_u32..=20].prop_map(Step::Ask),
            4 => any::<usize>().prop_map(Step::Accept),
            1 => (any::<usize>(), proptest::option::of(0_u64..20_000))
                .prop_map(|(which, wait)| Step::Refuse(which, wait)),
            1 => any::<usize>().prop_map(Step::Break),
            1 => any::<usize>().prop_map(Step::Forget),
        ]
    }

    /// After a request, or a batch of this size.
    fn most_in_flight(max_in_flight: usize, count: u32) -> u32 {
        let calls = max_in_flight.min(limits::BATCHES_IN_FLIGHT);
        let batched = if count > 1 { calls * limits::REQUESTS_PER_BATCH } else { 0 };
        u32::try_from(max_in_flight.max(batched)).unwrap()
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
                            let in_flight = limiter.snapshot(now).in_flight;
                            let alone = out.is_empty() && in_flight == count;
                            let within = in_flight <= most_in_flight(max_in_flight, count);
                            prop_assert!(within || alone, "{in_flight} in flight");
                            sent.push((now, count));
                            out.push(ticket);
                        }
                    }
                    _ if out.is_empty() => {}
                    Step::Accept(which) => {
                        let ticket = out.swap_remove(which % out.len());
                        limiter.answered(now, &ticket, ticket.count, None);
                    }
                    Step::Refuse(which, wait) => {
                        let ticket = out.swap_remove(which % out.len());
                        let wait = wait.map(Duration::from_millis);
                        limiter.answered(now, &ticket, ticket.count - 1, Some(refused(wait)));
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
                limiter.answered(now, &ticket, ticket.count, None);
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
    fn a_batch_is_tried_once_a_minute_while_everything_is_refused() {
        let (mut limiter, mut now) = limiter(LimiterOptions::default());
        let longest = SECOND + 10 * SECOND + Duration::from_mins(1);
        for _ in 0..8 {
            let asked = now;
            let ticket = loop {
                match limiter.decide_batch(now, 20) {
                    Decision::Admit(ticket) => break ticket,
                    Decision::WaitUntil(moment) => now = moment,
                    other => panic!("{other:?} with nothing in flight"),
                }
            };
            assert!(now - asked <= longest, "asked again after {:?}", now - asked);
            now += SECOND;
            let count = ticket.count;
            let throttled = Throttled { count, retry_after: Some(10 * SECOND) };
            limiter.answered(now, &ticket, 0, Some(throttled));
        }
    }

    #[test]
    fn the_time_before_the_first_request_does_not_count() {
        let (mut limiter, start) = limiter(LimiterOptions::default());
        let now = start + Duration::from_mins(1);
        for ticket in all_admitted(&mut limiter, now) {
            limiter.answered(now + SECOND, &ticket, 1, None);
        }
        let ticket = admitted(&mut limiter, now + SECOND);
        limiter.answered(now + SECOND, &ticket, 0, Some(refused(Some(SECOND))));
        let expected = limiter.outlook(now + SECOND).per_second.expect("answered");
        assert!((4.9..=5.1).contains(&expected), "ten in two seconds, not {expected}");
    }
}
