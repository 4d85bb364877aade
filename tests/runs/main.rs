//! Promises to try runs from outside, through the built program against a served tenant:
//! resumed, interrupted, killed, damaged, cleaned up, and searched for passes in the clear.
//!
//! `cargo test --features failpoints --test runs` also sweeps over every durable write.

#[path = "../support/server.rs"]
mod server;
#[path = "../support/site.rs"]
mod site;

mod cleanup;
mod damaged;
#[cfg(unix)]
mod interrupted;
#[cfg(feature = "failpoints")]
mod kill_sweep;
#[cfg(target_os = "linux")]
mod nowhere;
mod one_post;
mod resume;
#[cfg(unix)]
mod words;
