//! The mail transports without the rest of a run: against relays that refuse, stall and break, a
//! real Postfix, and Graph's sendMail.

mod graph;
mod model;
mod nasty;
#[cfg(unix)]
mod postfix;
mod smtp;
