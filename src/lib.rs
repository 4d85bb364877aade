//! tapwave: Temporary Access Passes for a whole enrolment wave, with nothing in plaintext on
//! disk, nothing issued twice, nothing left behind.
//!
//! # The map
//!
//! Read a run as it happens. [`roster`] turns a CSV into rows. [`stages::check`] proves which
//! of them may get a pass. [`stages::issue`] asks Graph for one, [`stages::seal`] has it
//! encrypted and committed, [`stages::deliver`] mails it and tells somebody who has it,
//! [`stages::issue::settle`] finds out what became of a lost request, [`stages::cleanup`]
//! removes what was issued. [`run`] conducts them; [`commands`] are the straight lines around
//! it, from flags to an exit code. Below the stages stand the rooms they act through: [`graph`]
//! speaks to Microsoft, [`pace`] decides when, [`ledger`] remembers, [`vault`] is the only
//! reader of plaintext, [`letter`] writes it into a mail, [`courier`] carries that.
//! [`rehearsal`] is a tenant that answers, refuses and breaks as Microsoft's does, for tests
//! and for whoever tries the program.
//!
//! # The words
//!
//! *Wave*: the CSV of people. *Row*: one person in it. *Run*: one execution, with its folder.
//! *Pass*: the secret code. *Sealed*: encrypted to its recipients and committed. *Recipient*:
//! a public key of whoever may read it. *Handoff*: the file a recipient gets. *Intent*: a
//! durable "I am about to". *Notice*: the news, to somebody else, that a pass is ready and who
//! has it. *Unsettled*: nobody can know whether a request took effect. *Fence*: the wait after
//! which a late execution is no longer feared. *Held*: left for a person to decide.
//! *Lost*: sealed, but its code does not work any more. *Claim*: the mark that a person belongs to
//! an open run. README.md defends each word.
//!
//! # What always holds
//!
//! 1. A code is in memory, in a [`vault::Pass`], or in ciphertext; never anywhere else.
//! 2. A pass is asked for only with an [`ledger::Intent`], which only the ledger mints, which
//!    is durable before the request leaves, and which is spent once.
//! 3. Between a pass's arrival and its commit nothing is queued: the task that received it
//!    seals it.
//! 4. While an outcome is unsettled, nothing new is asked for that row. After the fence our
//!    orphan is deleted by its id; whatever else is found is left alone and the row held.
//! 5. [`ledger::State`] has the only list of legal moves, live and on replay.
//! 6. Absence is no proof: a pass counts as gone by a [`ledger::Proof`] alone, every id and
//!    every attempt is kept until there is one, and sealed copies are destroyed only then.
//! 7. Time, chance and the environment are parameters; every bound has a name in [`limits`].
//! 8. Remote outcomes are done, refused, retry later, or unsettled, and *unsettled is not
//!    failure*. Only `main.rs` exits.
//!
//! # The rooms
//!
//! Arrows point down only: a room imports rooms of lower rows, never its own row or above.
//!
//! | rank | rooms | promise |
//! |---|---|---|
//! | 12 | `main.rs` | arguments in, exit code out |
//! | 11 | [`commands`] | each command is a straight line |
//! | 10 | [`report`], [`rehearsal`] | every word a person sees; a simulated tenant |
//! | 9 | [`settings`] | flags, environment and tapwave.toml as one validated value |
//! | 8 | [`cli`], [`run`] | flags and their help; the conductor |
//! | 7 | [`stages`] | check, issue, settle, seal, deliver, clean up |
//! | 6 | [`auth`], [`courier`] | access tokens; mails on their way |
//! | 5 | [`graph`] | the calls, typed |
//! | 4 | [`ledger`], [`roster`], [`letter`] | the durable record; CSV to rows; a mail's bytes |
//! | 3 | [`vault`], [`pace`] | plaintext; when to send |
//! | 2 | [`progress`] | how the lower rooms tell how it goes |
//! | 1 | [`ids`], [`clock`], [`effect`], [`exit`], [`shown`], [`programs`] | words of one kind; what may be shown; programs that are started |
//! | 0 | [`limits`] | every bound, with its reason |
//!
//! `tests/tidy.rs` reads this table and holds the code to it.

pub mod auth;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod courier;
pub mod effect;
pub mod exit;
pub mod graph;
pub mod ids;
pub mod ledger;
pub mod letter;
pub mod limits;
pub mod pace;
pub mod programs;
pub mod progress;
pub mod rehearsal;
pub mod report;
pub mod roster;
pub mod run;
pub mod settings;
pub mod shown;
pub mod stages;
pub mod vault;
