//! Words of one kind that every crate has in common: ids, the clock, what a remote act came to,
//! every bound with its reason, and what may be shown.

pub mod backoff;
pub mod clock;
pub mod effect;
pub mod exit;
pub mod ids;
pub mod limits;
pub mod programs;
pub mod progress;
pub mod shown;
pub mod wiped;
