//! How many requests may be in flight: a window that grows with what is accepted. While it is
//! small it opens in bursts, each sent after the last one's answers, so that a small burst budget
//! is overrun by a handful of requests. It must never give leave to more than the operator allows.

use std::time::Duration;

use tokio::time::Instant;

use tapwave_core::limits;

/// How much may be in flight, and is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    size: u32,
    /// Most that the operator allows, one to a call.
    most_single: u32,
    /// The same in batches, of which each is one call.
    most_batched: u32,
    /// The last request that left was a batch.
    in_batches: bool,
    in_flight: u32,
    accepted_since_growth: u32,
    /// What may still leave in the present burst, and when that one stops being waited for.
    burst: Option<Burst>,
    narrowed_at: Option<Instant>,
}

/// Requests that leave together.
#[derive(Debug, Clone, Copy)]
struct Burst {
    left: u32,
    began: Instant,
    patience_ends: Option<Instant>,
}

impl Window {
    /// The first window, of no more than `most_single` requests, or `most_batched` in batches.
    pub(super) fn new(most_single: u32, most_batched: u32, now: Instant) -> Self {
        let size = limits::FIRST_WINDOW.min(most_single);
        let mut window = Self {
            size,
            most_single,
            most_batched,
            in_batches: false,
            in_flight: 0,
            accepted_since_growth: 0,
            burst: None,
            narrowed_at: None,
        };
        window.next_burst(now);
        window
    }

    /// Begins anew, where much less than was thought is granted: what is under way will be refused.
    /// Without it, 3,000 and then 20/s at 200 ms has 185 refusals instead of 136.
    pub(super) fn restart(&mut self) {
        self.size = limits::FIRST_WINDOW.min(self.most());
        self.accepted_since_growth = 0;
        self.burst = None;
    }

    /// Most requests that may be in flight as they leave now.
    fn most(&self) -> u32 {
        if self.in_batches { self.most_batched } else { self.most_single }
    }

    /// Most requests in flight if they leave in batches now.
    pub(super) fn most_in_batches(&self) -> Option<u32> {
        self.in_batches.then_some(self.most_batched)
    }

    /// Requests that may be in flight.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Requests that are.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Room for `count`; else the moment from which on no more answers are waited for, if that is
    /// known. A batch larger than the whole window goes when it would be alone.
    pub(super) fn room(&mut self, now: Instant, count: u32) -> Result<(), Option<Instant>> {
        if let Some(burst) = self.burst {
            if burst.left >= count && self.fits(count) {
                return Ok(());
            }
            let over = self.in_flight == 0 || burst.patience_ends.is_some_and(|end| now >= end);
            if !over {
                return Err(burst.patience_ends);
            }
            self.next_burst(now);
        }
        if self.fits(count) { Ok(()) } else { Err(None) }
    }

    fn fits(&self, count: u32) -> bool {
        self.in_flight == 0 || self.in_flight + count <= self.size
    }

    /// `count` requests leave.
    pub(super) fn entered(&mut self, count: u32) {
        self.in_flight += count;
        self.in_batches = count > 1;
        self.size = self.size.min(self.most());
        if let Some(burst) = &mut self.burst {
            burst.left = burst.left.saturating_sub(count);
        }
    }

    /// `count` requests that left at `sent` are answered, or never will be.
    pub(super) fn left(&mut self, now: Instant, count: u32, sent: Instant) {
        self.in_flight = self.in_flight.saturating_sub(count);
        if let Some(burst) = &mut self.burst
            && sent >= burst.began
        {
            let round_trip: Duration = now.saturating_duration_since(sent);
            burst.patience_ends.get_or_insert(now + 2 * round_trip);
        }
    }

    /// So many were accepted. During a hold the window does not grow.
    pub(super) fn accepted(&mut self, accepted: u32, held: bool) {
        self.accepted_since_growth = self.accepted_since_growth.saturating_add(accepted);
        if self.burst.is_none() && self.accepted_since_growth >= self.size {
            self.widen(if held { self.size } else { self.most() });
        }
    }

    /// Half of it, once for all requests that were out together.
    pub(super) fn narrow(&mut self, now: Instant, sent: Instant) {
        if self.narrowed_at.is_none_or(|at| sent > at) {
            self.narrowed_at = Some(now);
            self.size = (self.size / 2).max(1);
            self.accepted_since_growth = 0;
            self.burst = None;
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

    /// Lets a whole window out again, wider if half of the last one was accepted; from
    /// [`limits::BURSTS_BELOW`] on, each answer makes room for the next request instead.
    fn next_burst(&mut self, now: Instant) {
        if self.accepted_since_growth >= self.size.div_ceil(2) {
            self.widen(self.most());
        }
        let left = self.size.saturating_sub(self.in_flight);
        let small = self.size < limits::BURSTS_BELOW && self.size < self.most();
        self.burst = small.then_some(Burst { left, began: now, patience_ends: None });
    }
}
