//! Promises a Microsoft Entra tenant that does what the documented one does, and what has
//! been seen of the real one, without an account and without surprise: every choice comes
//! from one seed and every moment from the caller.
//!
//! It must never be imported by the crates that work; the program's `rehearse`, tests and benchmarks alone may use it. Codes
//! are invented here, so this crate prints and keeps them freely: that is how tests can look
//! for them everywhere else.
//!
//! - [`options`]: everything that can go wrong, in one struct with one seed
//! - [`Tenant`]: the state machine; a moment and a request go in, an answer comes out
//! - [`InMemory`]: the tenant behind the transport's door, on a clock that may be paused

mod answer;
mod batch;
mod codes;
mod directory;
mod faults;
mod listing;
mod memory;
pub mod options;
mod passes;
mod policy;
mod replica;
mod serve;
mod target;
mod tenant;
#[cfg(test)]
mod tests;
mod throttle;
mod wave;

pub use answer::SimulatedAnswer;
pub use directory::{DirectoryIdentity, DirectoryUser};
pub use memory::InMemory;
pub use options::Options;
pub use passes::{LivePass, LogEntry, PassEvent, ReplyFate, Usability};
pub use policy::{PassPolicy, PolicyTarget, TargetKind};
pub use tenant::{AcceptedMail, CallCounters, Tenant, Unusable};
