//! What tests have in common: servers that are as nasty as the real ones, terminals, judges.

pub(crate) mod authority;
pub(crate) mod bench;
pub(crate) mod certificates;
pub(crate) mod conducted;
pub(crate) mod fuzzed;
#[cfg(unix)]
pub(crate) mod hearing;
pub(crate) mod judge;
pub(crate) mod letters;
pub(crate) mod mailed;
pub(crate) mod mailed_site;
pub(crate) mod nasty;
pub(crate) mod office;
pub(crate) mod others;
#[cfg(unix)]
#[expect(dead_code, reason = "the benchmarks of mail ask for more of it")]
pub(crate) mod postfix;
pub(crate) mod program;
pub(crate) mod proxy;
#[cfg(target_os = "linux")]
pub(crate) mod pty;
pub(crate) mod python;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod smtp;
pub(crate) mod until;
