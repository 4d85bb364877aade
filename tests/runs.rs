//! Promises to try runs from outside, through the built program against a served tenant:
//! resumed, interrupted, killed, damaged, cleaned up, and searched for passes in the clear.
//!
//! `cargo test --features failpoints --test integration kill_sweep` also sweeps over every durable write.

mod absence;
mod cleanup;
#[cfg(unix)]
mod clocks;
#[cfg(target_os = "linux")]
mod core;
mod damaged;
#[cfg(unix)]
mod handed_over;
#[cfg(unix)]
mod interrupted;
#[cfg(feature = "failpoints")]
mod kill_sweep;
#[cfg(target_os = "linux")]
mod nowhere;
mod one_post;
#[cfg(target_os = "linux")]
mod proxied;
mod resume;
mod retry_after;
mod together;
mod trust;
#[cfg(target_os = "linux")]
mod window;
#[cfg(unix)]
mod words;
