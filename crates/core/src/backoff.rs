//! Promises the one computation of a wait that doubles with each attempt. Must never wait itself.

use std::time::Duration;

/// `first`, doubled `doublings` times, but at most `longest`.
#[must_use]
pub fn exponential(first: Duration, doublings: u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_doubles_up_to_the_longest() {
        let longest = Duration::from_secs(30);
        let seconds = |doublings| exponential(Duration::from_secs(2), doublings, longest).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 31, 32, u32::MAX].map(seconds), [2, 4, 8, 16, 30, 30, 30, 30]);
        assert_eq!(exponential(Duration::ZERO, 40, longest), Duration::ZERO);
    }
}
