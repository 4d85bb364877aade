//! Promises that plaintext passes exist in this room alone, and leave it only sealed or
//! because their recipient opened them.
//!
//! A [`Pass`] is born in the parser of Graph's answer and goes, by value and once, into an
//! [`Entry`] that a [`RecipientSet`] seals. A [`Spool`] gathers what was sealed for the
//! handoff files, and a [`Container`] what is known of a row as ciphertext alone. On the
//! recipient's side [`Identities`] open a [`Handoff`], row by row, and a [`RowWriter`] prints
//! it. Must never write plaintext to a disk, a log, an error or a panic.
//!
//! Buffers of this room are wiped when they are freed. The `age` crate keeps one buffer of
//! 64 KiB per stream that it frees without wiping; the process's zeroing allocator is what
//! wipes that one.

mod container;
mod entry;
mod fleeting;
mod formats;
mod handoff;
mod identities;
mod opened;
mod pass;
mod plugin;
mod prompts;
mod recipients;

pub use container::{Container, Handoff, Unopened};
pub use entry::{Ciphertext, Entry, NotCiphertext, SealError, Spooled};
pub use formats::{Format, RowWriter, Separator};
pub use handoff::{HandoffError, HandoffFile, Spool, remove_unfinished};
pub use identities::{BadIdentity, Identities, NewIdentity, keygen};
pub use opened::{OpenError, OpenedRow, open};
pub use pass::Pass;
pub use prompts::{NoPrompts, Prompts};
pub use recipients::{
    BadRecipient, BadRecipientFile, Recipient, RecipientSet, SetError, holds_secret_key,
    read_recipient_file, reads_like_a_key,
};

/// The columns of a sealed row and of a handoff file, in order.
pub const COLUMNS: [&str; 7] = [
    "userPrincipalName",
    "displayName",
    "temporaryAccessPass",
    "startDateTime",
    "lifetimeInMinutes",
    "isUsableOnce",
    "methodId",
];
