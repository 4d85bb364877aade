//! Promises that each case a person meets at the command line is held by one scenario, run
//! through the built program against a served tenant.

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/others.rs"]
mod others;
#[expect(dead_code, reason = "other tests ask for more of it")]
#[path = "../support/server.rs"]
mod server;

mod bad_input;
mod check;
mod handoffs;
mod open;
mod permissions;
mod policy_groups;
mod rehearse;
mod run;
mod samples;
