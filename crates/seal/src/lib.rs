//! Promises that plaintext passes exist in this crate alone, and leave it only sealed or
//! because their recipient opened them. Must never write plaintext to a disk, a log, an error or a
//! panic.
//!
//! The parser of Graph's answer makes a [`Pass`]; it goes, by value and once, into an [`Entry`]
//! that a [`RecipientSet`] seals. A [`Spool`] collects the sealed rows of this process for the
//! handoff files, a [`Container`] rows of which only ciphertext is left. On the recipient's side
//! [`Identities`] open a [`Handoff`] row by row, and a [`RowWriter`] prints it.
//!
//! This crate wipes its buffers when they are freed. The `age` crate frees one buffer of 64 KiB
//! per stream unwiped; the process's zeroing allocator wipes that one.

mod age_file;
mod container;
mod entry;
mod ephemeral;
mod formats;
mod handoff;
mod identities;
mod opened;
mod pass;
mod plugin;
mod prompts;
mod recipients;
mod spool;

pub use container::{Container, Handoff, Unopened};
pub use entry::{Ciphertext, Entry, NotCiphertext, SealError};
pub use formats::{Format, RowWriter, Separator};
pub use handoff::{HandoffError, remove_unfinished};
pub use identities::{BadIdentity, Identities, NewIdentity, keygen};
pub use opened::{OpenError, OpenedRow, open};
pub use pass::Pass;
pub use prompts::{NoPrompts, Prompts};
pub use recipients::{
    BadRecipient, BadRecipientFile, Recipient, RecipientSet, SetError, holds_secret_key,
    read_recipient_file, reads_like_a_key,
};
pub use spool::{HandoffFile, Spool, Spooled};
