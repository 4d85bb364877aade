//! Promises to know what was accepted between two holds, and the rate that this amounts to;
//! must never take silence for a limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

/// What happened between two holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cycle {
    number: u64,
    /// The whole of it, and what came since the last turn but one and since the last turn;
    /// turns are [`limits::RECENT`] apart while requests are accepted.
    spans: [Span; 3],
    /// A request sent within it was accepted.
    fruitful: bool,
}

/// What was accepted since a moment.
#[derive(Debug, Clone, Copy)]
struct Span {
    started: Instant,
    /// Time in it that nobody used.
    idle: Duration,
    accepted: f64,
}

impl Cycle {
    /// Nothing has happened since `started`.
    pub(super) fn starting(number: u64, started: Instant) -> Self {
        let whole = Span { started, idle: Duration::ZERO, accepted: 0.0 };
        Self { number, spans: [whole; 3], fruitful: false }
    }

    /// The cycle that follows when it is reopened at `started`.
    pub(super) fn next(&self, started: Instant) -> Self {
        Self::starting(self.number + 1, started)
    }

    /// Counts up from 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// When it was reopened.
    pub(super) fn started(&self) -> Instant {
        self.spans[0].started
    }

    /// Whether a request sent within it was accepted.
    pub(super) fn is_fruitful(&self) -> bool {
        self.fruitful
    }

    /// A request sent in the cycle of that number was accepted.
    pub(super) fn bore_fruit(&mut self, number: u64) -> bool {
        self.fruitful |= number == self.number;
        number == self.number
    }

    /// Requests of any cycle were accepted.
    pub(super) fn accepted(&mut self, now: Instant, count: u32) {
        for span in &mut self.spans {
            span.accepted += f64::from(count);
        }
        let [_, lately, latest] = &mut self.spans;
        if now.saturating_duration_since(latest.started) >= limits::RECENT {
            *lately = *latest;
            *latest = Span { started: now, idle: Duration::ZERO, accepted: 0.0 };
        }
    }

    /// For so long nobody had anything to send.
    pub(super) fn idle(&mut self, time: Duration) {
        for span in &mut self.spans {
            span.idle += time;
        }
    }

    /// This cycle gone on into the next, in which nothing but refusals came at once.
    pub(super) fn and(mut self, next: &Self) -> Self {
        for span in &mut self.spans {
            span.accepted += next.spans[0].accepted;
            span.idle += next.spans[0].idle;
        }
        self
    }

    /// Accepted requests per second up to `end`, over the whole or lately, whichever is more:
    /// both were granted. And since when.
    pub(super) fn rate(&self, end: Instant, known: Option<f64>) -> (f64, Instant) {
        let [whole, lately, _] = &self.spans;
        let (over_all, of_late) = (whole.rate(end, known), lately.rate(end, known));
        if of_late > over_all { (of_late, lately.started) } else { (over_all, whole.started) }
    }
}

impl Span {
    /// Accepted requests per second. Idle time says nothing about the limit and is left out,
    /// but no more than to double the rate: a refusal must count for something. What was known
    /// before weighs as much as [`limits::RATE_INERTIA`] requests, lest one or two decide
    /// everything.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A cycle in which requests were accepted at these rates, each for so many seconds.
    fn lived(start: Instant, parts: &[(u32, u32)]) -> (Cycle, Instant) {
        let (mut cycle, mut now) = (Cycle::starting(0, start), start);
        for (rate, seconds) in parts {
            for _ in 0..rate * seconds {
                now += Duration::from_secs(1) / *rate;
                cycle.accepted(now, 1);
            }
        }
        (cycle, now)
    }

    #[test]
    fn the_hold_belongs_to_the_cycle() {
        let (cycle, end) = lived(Instant::now(), &[(5, 1)]);
        let (rate, _) = cycle.rate(end + Duration::from_secs(9), None);
        assert!((rate - 0.5).abs() < 0.01, "{rate}");
    }

    #[test]
    fn what_came_lately_counts_when_it_is_more() {
        let (rising, end) = lived(Instant::now(), &[(2, 60), (20, 10)]);
        assert!(rising.rate(end, Some(2.0)).0 > 12.0);
        let (falling, end) = lived(Instant::now(), &[(20, 60), (2, 10)]);
        assert!(falling.rate(end, Some(20.0)).0 > 12.0);
    }

    #[test]
    fn silence_is_left_out_but_not_without_end() {
        let (mut cycle, end) = lived(Instant::now(), &[(10, 10)]);
        cycle.idle(Duration::from_secs(10));
        let (rate, _) = cycle.rate(end + Duration::from_secs(10), None);
        assert!((rate - 5.0).abs() < 0.1, "{rate}");
        cycle.idle(Duration::from_secs(980));
        let (rate, _) = cycle.rate(end + Duration::from_secs(990), None);
        assert!((rate - 5.0).abs() < 0.1, "{rate}");
    }

    #[test]
    fn one_request_does_not_overthrow_what_was_known() {
        let (cycle, end) = lived(Instant::now(), &[(1, 1)]);
        let (rate, _) = cycle.rate(end + Duration::from_secs(9), Some(0.5));
        assert!((0.25..0.5).contains(&rate), "{rate}");
    }
}
