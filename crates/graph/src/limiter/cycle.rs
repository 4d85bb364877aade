//! What was accepted between two holds, and the rate that this amounts to. A cycle in which
//! nothing was accepted is the end of the one before: the hold was too short, so the same requests
//! are spread over a longer time. Without that, "5 per 10 s, waits not named" comes to 0.77 of
//! what is possible instead of 0.88.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use tapwave_core::limits;

/// What happened between two holds.
#[derive(Debug)]
pub(super) struct Cycle {
    number: u64,
    started: Instant,
    accepted: f64,
    /// What had been accepted at some moments, [`limits::MARKS_APART`] or more from each other.
    marks: VecDeque<(Instant, f64)>,
    /// A request sent within it was accepted.
    fruitful: bool,
    /// The last fruitful cycle and those after it: its beginning, and what was accepted since.
    before: Option<(Instant, f64)>,
    /// Refusals in a row, each after a hold, with nothing accepted in between.
    fruitless: u32,
}

/// What was accepted from one moment to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    started: Instant,
    ended: Instant,
    accepted: f64,
}

impl Cycle {
    /// Nothing has happened since `started`.
    pub(super) fn starting(started: Instant) -> Self {
        Self {
            number: 0,
            started,
            accepted: 0.0,
            marks: VecDeque::new(),
            fruitful: false,
            before: None,
            fruitless: 0,
        }
    }

    /// Ends it; the next one begins at `started`.
    pub(super) fn end(&mut self, started: Instant) {
        let whole = self.whole(started);
        *self = Self {
            number: self.number + 1,
            before: (self.fruitful || self.before.is_some())
                .then_some((whole.started, whole.accepted)),
            fruitless: self.fruitless,
            ..Self::starting(started)
        };
    }

    /// Counts up from 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Requests sent in the cycle of that number were accepted.
    pub(super) fn accepted(&mut self, now: Instant, number: u64, count: u32) {
        self.accepted += f64::from(count);
        if number == self.number {
            self.fruitful = true;
            self.fruitless = 0;
        }
        let marked = self.marks.back().map_or(self.started, |(at, _)| *at);
        if now.saturating_duration_since(marked) >= limits::MARKS_APART {
            if self.marks.len() >= limits::MOST_MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((now, self.accepted));
        }
    }

    /// A refusal ends it. How many in a row came before this one with nothing accepted.
    pub(super) fn count_refusal(&mut self) -> u32 {
        let before = self.fruitless;
        if !self.fruitful {
            self.fruitless += 1;
        }
        before
    }

    /// All of it, up to `end`.
    pub(super) fn whole(&self, end: Instant) -> Span {
        let (started, earlier) = match self.before {
            Some(before) if !self.fruitful => before,
            _ => (self.started, 0.0),
        };
        Span { started, ended: end, accepted: earlier + self.accepted }
    }

    /// Its part from about `from` up to `end`.
    pub(super) fn part(&self, from: Instant, end: Instant) -> Span {
        let index = self.marks.partition_point(|(at, _)| *at < from);
        match self.marks.get(index) {
            Some((at, accepted)) if from > self.started => {
                Span { started: *at, ended: end, accepted: self.accepted - accepted }
            }
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

    /// Accepted requests per second. What was known before weighs as much as
    /// [`limits::RATE_INERTIA`] requests, lest one or two decide everything.
    pub(super) fn rate(&self, known: Option<f64>) -> f64 {
        let length = self.length().as_secs_f64();
        match known {
            Some(rate) => {
                let inertia = limits::RATE_INERTIA;
                (self.accepted + inertia) / (length + inertia / rate)
            }
            None => self.accepted.max(1.0) / length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cycle in which requests were accepted at these rates, each for so many seconds.
    fn lived(start: Instant, parts: &[(u32, u32)]) -> (Cycle, Instant) {
        let (mut cycle, mut now) = (Cycle::starting(start), start);
        for (rate, seconds) in parts {
            for _ in 0..rate * seconds {
                now += Duration::from_secs(1) / *rate;
                cycle.accepted(now, 0, 1);
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
        assert!((whole.rate(None) - 320.0 / 70.0).abs() < 0.1, "{whole:?}");
    }

    #[test]
    fn the_marks_of_a_long_cycle_are_bounded() {
        let (cycle, end) = lived(Instant::now(), &[(5, 1_200)]);
        assert_eq!(cycle.marks.len(), limits::MOST_MARKS);
        let part = cycle.part(end - Duration::from_secs(30), end);
        assert!((part.rate(None) - 5.0).abs() < 0.1, "{part:?}");
    }

    #[test]
    fn one_request_does_not_overthrow_what_was_known() {
        let (cycle, end) = lived(Instant::now(), &[(1, 1)]);
        let rate = cycle.whole(end + Duration::from_secs(9)).rate(Some(0.5));
        assert!((0.25..0.5).contains(&rate), "{rate}");
    }

    #[test]
    fn a_cycle_without_anything_accepted_is_the_end_of_the_one_before() {
        let (mut cycle, end) = lived(Instant::now(), &[(5, 1)]);
        cycle.end(end + Duration::from_secs(1));
        assert_eq!(cycle.count_refusal(), 0);
        let rate = cycle.whole(end + Duration::from_secs(9)).rate(None);
        assert!((rate - 0.5).abs() < 0.01, "{rate}");
        cycle.end(end + Duration::from_secs(9));
        assert_eq!(cycle.count_refusal(), 1);
        cycle.accepted(end + Duration::from_secs(10), cycle.number(), 1);
        let rate = cycle.whole(end + Duration::from_secs(10)).rate(None);
        assert!((rate - 1.0).abs() < 0.01, "{rate}");
    }
}
