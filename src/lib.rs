//! tapwave: Temporary Access Passes for a whole enrolment wave.

pub mod auth;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod courier;
pub mod exit;
pub mod graph;
pub mod ids;
pub mod ledger;
pub mod letter;
pub mod limits;
pub mod pace;
pub mod progress;
pub mod rehearsal;
pub mod report;
pub mod roster;
pub mod run;
pub mod settings;
pub mod stages;
pub mod vault;
