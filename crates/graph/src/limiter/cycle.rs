//! Promises to know what was accepted between two holds, and the rate that this amounts to;
//! must never take silence for a limit.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use tapwave_core::limits;

/// What happened between two holds.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    number: u64,
    started: Instant,
    so_far: Count,
    /// What had been counted at some moments, [`limits::MARKS_APART`] or more from each other.
    marks: VecDeque<(Instant, Count)>,
    /// A request sent within it was accepted.
    fruitful: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    accepted: f64,
    /// Time that nobody used.
    idle: Duration,
}

/// What was accepted from one moment to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    started: Instant,
    ended: Instant,
    idle: Duration,
    accepted: f64,
}

impl Cycle {
    /// Nothing has happened since `started`.
    pub(super) fn starting(number: u64, started: Instant) -> Self {
        let (so_far, marks) = (Count::default(), VecDeque::new());
        Self { number, started, so_far, marks, fruitful: false }
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
        self.started
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
        self.so_far.accepted += f64::from(count);
        let marked = self.marks.back().map_or(self.started, |(at, _)| *at);
        if now.saturating_duration_since(marked) >= limits::MARKS_APART {
            if self.marks.len() >= limits::MOST_MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((now, self.so_far));
        }
    }

    /// For so long nobody had anything to send.
    pub(super) fn idle(&mut self, time: Duration) {
        self.so_far.idle += time;
    }

    /// This cycle gone on into the next, in which nothing but refusals came at once.
    pub(super) fn and(mut self, next: &Self) -> Self {
        self.so_far.accepted += next.so_far.accepted;
        self.so_far.idle += next.so_far.idle;
        self
    }

    /// All of it, up to `end`.
    pub(super) fn whole(&self, end: Instant) -> Span {
        Span {
            started: self.started,
            ended: end,
            idle: self.so_far.idle,
            accepted: self.so_far.accepted,
        }
    }

    /// Its part from about `from` up to `end`.
    pub(super) fn part(&self, from: Instant, end: Instant) -> Span {
        let index = self.marks.partition_point(|(at, _)| *at < from);
        match self.marks.get(index) {
            Some((at, count)) if from > self.started => Span {
                started: *at,
                ended: end,
                idle: self.so_far.idle.saturating_sub(count.idle),
                accepted: self.so_far.accepted - count.accepted,
            },
            _ => self.whole(end),
        }
    }
}

impl Span {
    /// So many more were as good as accepted.
    pub(super) fn with(self, more: f64) -> Self {
        Self { accepted: self.accepted + more, ..self }
    }

    /// How many were accepted.
    pub(super) fn accepted(&self) -> f64 {
        self.accepted
    }

    /// From the beginning to the end.
    pub(super) fn length(&self) -> Duration {
        self.ended.saturating_duration_since(self.started).max(Duration::from_millis(1))
    }

    /// Accepted per second of the time that was used.
    pub(super) fn speed(&self) -> f64 {
        self.accepted / self.busy().as_secs_f64()
    }

    fn busy(&self) -> Duration {
        self.length().saturating_sub(self.idle).max(Duration::from_millis(1))
    }

    /// Accepted requests per second. Idle time says nothing about the limit and is left out,
    /// but no more than to double the rate: a refusal must count for something. What was known
    /// before weighs as much as [`limits::RATE_INERTIA`] requests, lest one or two decide
    /// everything.
    pub(super) fn rate(&self, known: Option<f64>) -> f64 {
        let (accepted, inertia) = match known {
            Some(rate) => (self.accepted + limits::RATE_INERTIA, limits::RATE_INERTIA / rate),
            None => (self.accepted.max(1.0), 0.0),
        };
        let (whole, busy) =
            (self.length().as_secs_f64() + inertia, self.busy().as_secs_f64() + inertia);
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
        let rate = cycle.whole(end + Duration::from_secs(9)).rate(None);
        assert!((rate - 0.5).abs() < 0.01, "{rate}");
    }

    #[test]
    fn a_part_counts_what_came_since() {
        let (cycle, end) = lived(Instant::now(), &[(2, 60), (20, 10)]);
        let part = cycle.part(end - Duration::from_secs(5), end);
        assert!((part.rate(None) - 20.0).abs() < 0.5, "{part:?}");
        let whole = cycle.part(end - Duration::from_hours(1), end);
        assert!((whole.speed() - 320.0 / 70.0).abs() < 0.1, "{whole:?}");
    }

    #[test]
    fn the_marks_of_a_long_cycle_are_bounded() {
        let (cycle, end) = lived(Instant::now(), &[(5, 1_200)]);
        assert_eq!(cycle.marks.len(), limits::MOST_MARKS);
        let part = cycle.part(end - Duration::from_secs(30), end);
        assert!((part.rate(None) - 5.0).abs() < 0.1, "{part:?}");
    }

    #[test]
    fn silence_is_left_out_but_not_without_end() {
        let (mut cycle, end) = lived(Instant::now(), &[(10, 10)]);
        cycle.idle(Duration::from_secs(10));
        let rate = cycle.whole(end + Duration::from_secs(10)).rate(None);
        assert!((rate - 5.0).abs() < 0.1, "{rate}");
        cycle.idle(Duration::from_secs(980));
        let rate = cycle.whole(end + Duration::from_secs(990)).rate(None);
        assert!((rate - 5.0).abs() < 0.1, "{rate}");
    }

    #[test]
    fn one_request_does_not_overthrow_what_was_known() {
        let (cycle, end) = lived(Instant::now(), &[(1, 1)]);
        let rate = cycle.whole(end + Duration::from_secs(9)).rate(Some(0.5));
        assert!((0.25..0.5).contains(&rate), "{rate}");
    }
}
