//! Promises that each case a person meets at the command line is held by one scenario, run
//! through the built program against a served tenant.

mod bad_input;
mod check;
mod handoffs;
mod open;
mod permissions;
mod policy_groups;
mod rehearse;
mod run;
mod samples;
