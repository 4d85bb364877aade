//! How long a wave will take under a limit, by the very limiter that will be in force, without
//! sending or waiting. It must never ask for the time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::control::{BudgetLimiter, Decision, Ticket};
use super::{LimiterOptions, Throttled};
use crate::quota::{Limit, Quota, whole_seconds};
use tapwave_core::limits;

/// What a wave comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// From the first request sent to the last one accepted.
    pub took: Duration,
    /// Requests accepted: all of them, unless it gave up.
    pub accepted: u64,
    /// Requests refused for throttling.
    pub refused: u64,
    /// It ended after [`limits::MAX_OUTAGE`] of nothing but refusals, or because it was told to
    /// wait for longer than [`limits::MAX_RETRY_AFTER`].
    pub gave_up: bool,
}

/// Accepted, or refused with the wait that is named.
type ServerReply = Result<(), Option<Duration>>;

/// Works `rows` requests off under this limit, each under way for `round_trip`. Waits are named in
/// whole seconds, as Graph names them.
#[must_use]
pub fn forecast(
    options: &LimiterOptions,
    rows: u64,
    round_trip: Duration,
    limit: Limit,
) -> Forecast {
    let mut quota = Quota::of(limit);
    let named = |wait| Some(Duration::from_secs(whole_seconds(wait)));
    work_off(options, rows, round_trip, |after| quota.ask(after, 1.0).map_err(named))
}

/// The same with any server, which is asked in the order of arrival, with the time since the
/// first request was sent.
fn work_off(
    options: &LimiterOptions,
    rows: u64,
    round_trip: Duration,
    server: impl FnMut(Duration) -> ServerReply,
) -> Forecast {
    // Any moment will do: only differences count.
    let start = Instant::now();
    let mut wave = ForecastRun {
        limiter: BudgetLimiter::new(options, 0, start),
        server,
        start,
        round_trip,
        waiting: rows,
        under_way: VecDeque::new(),
        refused: 0,
        barred: false,
    };
    let mut now = start;
    while let Some(next) = wave.advance(now) {
        now = next;
        if wave.gave_up(now) {
            break;
        }
    }
    let left = wave.waiting + wave.under_way.len() as u64;
    Forecast { took: now - start, accepted: rows - left, refused: wave.refused, gave_up: left > 0 }
}

struct ForecastRun<S> {
    limiter: BudgetLimiter,
    server: S,
    start: Instant,
    round_trip: Duration,
    waiting: u64,
    /// When each answer comes, in order: all are under way for the same time.
    under_way: VecDeque<(Instant, Ticket, ServerReply)>,
    refused: u64,
    /// The server has named a wait that is longer than anybody should wait.
    barred: bool,
}

impl<S: FnMut(Duration) -> ServerReply> ForecastRun<S> {
    /// Takes the answers that have come, sends what may leave, and tells the next moment at
    /// which something happens; `None` when there is nothing left.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        while self.under_way.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, ticket, reply)) = self.under_way.pop_front()
        {
            self.take(now, &ticket, reply);
        }
        let mut next = None;
        self.limiter.announce(Some(self.waiting + self.under_way.len() as u64));
        while self.waiting > 0 {
            match self.limiter.decide(now, 1) {
                Decision::Admit(ticket) => {
                    self.waiting -= 1;
                    let reply = (self.server)(now + self.round_trip / 2 - self.start);
                    self.under_way.push_back((now + self.round_trip, ticket, reply));
                }
                Decision::WaitUntil(moment) => {
                    next = Some(moment);
                    break;
                }
                Decision::Barred(_) => {
                    self.barred = true;
                    break;
                }
                Decision::WaitForAnswer => break,
            }
        }
        let answer = self.under_way.front().map(|(at, ..)| *at);
        answer.into_iter().chain(next).min()
    }

    fn take(&mut self, now: Instant, ticket: &Ticket, reply: ServerReply) {
        match reply {
            Ok(()) => self.limiter.answered(now, ticket, 1, None),
            Err(retry_after) => {
                self.waiting += 1;
                self.refused += 1;
                let throttled = Throttled { count: 1, retry_after };
                self.limiter.answered(now, ticket, 0, Some(throttled));
            }
        }
    }

    fn gave_up(&self, now: Instant) -> bool {
        let since = self.limiter.refused_since();
        self.barred
            || since.is_some_and(|since| now.saturating_duration_since(since) >= limits::MAX_OUTAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Duration = Duration::from_millis(50);

    #[test]
    fn without_a_limit_latency_and_window_decide() {
        let foretold = forecast(&LimiterOptions::default(), 2_000, TRIP, Limit::None);
        let seconds = foretold.took.as_secs_f64();
        assert!((1.56..1.95).contains(&seconds), "{seconds}");
        assert_eq!((foretold.accepted, foretold.refused, foretold.gave_up), (2_000, 0, false));
    }

    #[test]
    fn a_given_rate_decides_where_it_is_the_slowest() {
        let options = LimiterOptions { max_rate: Some(10.0), ..LimiterOptions::default() };
        let foretold = forecast(&options, 500, TRIP, Limit::None);
        let seconds = foretold.took.as_secs_f64();
        assert!((49.0..51.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_tenant_that_never_lets_anything_through_is_given_up() {
        let second = Some(Duration::from_secs(30));
        let foretold = work_off(&LimiterOptions::default(), 100, TRIP, |_| Err(second));
        assert!(foretold.gave_up);
        assert_eq!(foretold.accepted, 0);
        assert!(foretold.took >= limits::MAX_OUTAGE);
    }
}
