//! tapwave: Temporary Access Passes for a whole enrolment wave.
#![forbid(unsafe_code)]

pub mod clock;
pub mod exit;
pub mod graph;
pub mod ids;
pub mod ledger;
pub mod limits;
pub mod pace;
pub mod rehearsal;
pub mod roster;
pub mod vault;
