//! Promises to try runs from outside, through the built program against a served tenant:
//! resumed, interrupted, killed, damaged, cleaned up, and searched for passes in the clear.
//!
//! `cargo test --features failpoints --test runs` also sweeps over every durable write.

#[cfg(unix)]
#[path = "../support/certificates.rs"]
mod certificates;
#[cfg(unix)]
#[path = "../support/hearing.rs"]
mod hearing;
#[cfg(unix)]
#[path = "../support/mailed_site.rs"]
mod mailed;
#[cfg(unix)]
#[path = "../support/others.rs"]
mod others;
#[cfg(target_os = "linux")]
#[path = "../support/proxy.rs"]
mod proxy;
#[cfg(target_os = "linux")]
#[path = "../support/pty.rs"]
mod pty;
#[cfg_attr(windows, expect(dead_code, reason = "other systems ask for more of it"))]
#[path = "../support/server.rs"]
mod server;
#[cfg_attr(windows, expect(dead_code, reason = "other systems ask for more of it"))]
#[path = "../support/site.rs"]
mod site;
#[cfg(unix)]
#[expect(dead_code, reason = "other tests use more of the same relay")]
#[path = "../support/smtp.rs"]
mod smtp;

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
mod together;
mod told_to_wait;
mod trust;
#[cfg(target_os = "linux")]
mod window;
#[cfg(unix)]
mod words;
