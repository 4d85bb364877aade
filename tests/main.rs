//! All tests through the library and the built program: one program to link and to run.
//! `cargo test --test integration deliver::` runs those of one module.

#[cfg_attr(windows, expect(dead_code, reason = "other systems ask for more of it"))]
mod support;

mod auditor;
mod batches_throttled;
mod blame;
mod cli;
mod deliver;
mod fuzz_corpus;
mod graph_clock;
mod graph_contract;
mod interop_age;
mod mail;
mod outage;
mod policy;
mod prediction;
mod protocol_model;
#[cfg(unix)]
mod register_app;
mod rehearsal;
mod rehearsal_served;
mod runs;
mod samples_settings;
mod scheduler;
mod settings;
mod sign_in;
mod simulation;
mod tidy;
mod time_left;
