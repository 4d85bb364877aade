//! How many requests one batch may hold, so that a tenant lets it through whole. It must never slow
//! the flow down. Without it, 20/s with a burst of 5 comes to a hundredth of the rate in batches
//! instead of 0.60; with the rate alone, and not what was let through at once, to 0.39.

use tapwave_core::limits;

/// How many requests one batch may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batches {
    /// What was let through at once of a batch whose rest was refused.
    at_once: Option<u32>,
    /// Batches of that size since then, none refused.
    whole: u32,
}

impl Batches {
    /// No batch was refused yet.
    pub(super) fn unknown() -> Self {
        Self { at_once: None, whole: 0 }
    }

    /// How many of `most` requests one batch may hold while they leave at `rate` per second; at
    /// least one.
    pub(super) fn fit(&self, most: u32, rate: Option<f64>) -> u32 {
        let by_rate = rate.map_or(most, |rate| whole(rate * limits::BATCH_SPAN.as_secs_f64()));
        most.min(by_rate).min(self.at_once.unwrap_or(most)).max(1)
    }

    /// A batch was answered that nothing else was in flight beside; `lately`, within
    /// [`limits::BATCH_SPAN`], so many were accepted with it.
    pub(super) fn answered(&mut self, accepted: u32, refused: u32, lately: f64) {
        if refused > 0 {
            // Where all was refused, nothing is told about how many are let through at once.
            if accepted > 0 {
                let at_once = whole(lately).max(accepted);
                self.at_once = Some(self.at_once.map_or(at_once, |known| known.min(at_once)));
            }
            self.whole = 0;
            return;
        }
        let Some(size) = self.at_once.filter(|size| accepted >= *size) else { return };
        self.whole += 1;
        if self.whole >= limits::BATCHES_TO_GROW {
            self.at_once = Some(size.saturating_add(size.div_ceil(4)));
            self.whole = 0;
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a rate is never below zero"
)]
fn whole(requests: f64) -> u32 {
    requests as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_leaves_in_half_a_second() {
        let batches = Batches::unknown();
        assert_eq!(batches.fit(20, None), 20);
        assert_eq!(batches.fit(20, Some(100.0)), 20);
        assert_eq!(batches.fit(20, Some(7.9)), 3);
        assert_eq!(batches.fit(20, Some(0.5)), 1);
        assert_eq!(batches.fit(2, Some(7.9)), 2);
    }

    #[test]
    fn a_batch_holds_what_was_let_through_at_once_and_grows_again() {
        let mut batches = Batches::unknown();
        batches.answered(20, 0, 20.0);
        assert_eq!(batches.fit(20, None), 20);
        batches.answered(1, 19, 21.0);
        assert_eq!(batches.fit(20, None), 20, "the batch before it had been let through");
        batches.answered(5, 15, 5.0);
        assert_eq!(batches.fit(20, None), 5);
        batches.answered(0, 5, 0.0);
        assert_eq!(batches.fit(20, None), 5, "a refusal of all is the rate's affair");
        for _ in 0..limits::BATCHES_TO_GROW {
            assert_eq!(batches.fit(20, None), 5);
            batches.answered(5, 0, 5.0);
        }
        assert_eq!(batches.fit(20, None), 7);
        batches.answered(6, 1, 6.0);
        assert_eq!(batches.fit(20, None), 6);
    }
}
