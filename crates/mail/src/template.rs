//! Promises that a mail is rendered from a template that was checked before, and that the same
//! values give the same bytes. Must never leave a code in a header, an error, or a buffer that is
//! not wiped.
//!
//! [`Templates::check`] finds the errors of templates with a dummy code, before any pass exists.
//! [`Templates::render`] makes a [`Letter`] from [`Facts`] and [`LetterContent`]; it is the only
//! place outside the crate `seal` where a code is read. [`compose`] makes a [`Mail`] from a
//! [`MailDraft`], with the caller's Message-ID and date.
//!
//! `minijinja` and `lettre` make temporary copies of a text, which the process's zeroing allocator
//! wipes. What this module returns wipes itself.

mod builtin;
mod compose;
mod dates;
mod facts;
mod mailbox;
mod redact;
mod templates;
#[cfg(test)]
mod tests;

pub use compose::{Form, Mail, MailDraft, MessageId, NotComposed, NotMessageId, compose};
pub use facts::{Facts, NamedPerson};
pub use mailbox::{BadMailbox, Mailbox};
pub use templates::{Letter, LetterContent, Mode, TemplateError, Templates};
