//! Promises that what a person reads is rendered from a template that was proven beforehand,
//! and becomes the same bytes each time it is composed from the same values. Must never
//! leave a code in a header, an error, or a buffer that is not wiped.
//!
//! [`Templates`] hold the words, by language and [`Mode`]; [`Templates::check`] finds every
//! fault of theirs with a dummy code, before any pass exists. [`Templates::render`] makes a
//! [`Letter`] out of [`Facts`] and [`LetterContent`], the only place besides the crate `seal` where a code
//! is read. [`compose`] makes a [`Mail`] out of a [`MailDraft`]: one letter, one sender, exactly
//! one recipient, and a Message-ID and a date that the caller froze.
//!
//! `minijinja` and `lettre` keep passing copies of a text while they work; those are wiped
//! by the process's zeroing allocator. What this room gives out wipes itself.

mod builtin;
mod censor;
mod compose;
mod facts;
mod mailbox;
mod moments;
mod templates;
#[cfg(test)]
mod tests;

pub use compose::{Form, Mail, MailDraft, MessageId, NotComposed, NotMessageId, compose};
pub use facts::{Facts, NamedPerson};
pub use mailbox::{BadMailbox, Mailbox};
pub use templates::{Letter, LetterContent, Mode, TemplateError, Templates};
