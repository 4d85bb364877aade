//! tapwave's command line: from arguments and configuration to one command, and what it prints.
//! ARCHITECTURE.md is the map of all crates.

pub mod args;
pub mod commands;
pub mod config;
pub mod output;
