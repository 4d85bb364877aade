//! Promises that a person is asked only if the caller provides a way to ask. Must never keep an
//! answer.

use secrecy::SecretString;

/// Asks a person on behalf of an age plugin or a passphrase-protected identity file.
///
/// `None` everywhere means that nobody can be asked.
pub trait Prompts: Send + Sync + 'static {
    /// Shows a message, such as "touch your key".
    fn show(&self, message: &str);
    /// Asks for a yes or a no; `yes` and `no` are the texts of the answers.
    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool>;
    /// Asks for a text that may be seen.
    fn public_text(&self, question: &str) -> Option<String>;
    /// Asks for a PIN or a passphrase.
    fn passphrase(&self, question: &str) -> Option<SecretString>;
    /// Whether the user wants to stop waiting for a plugin or its key.
    fn is_given_up(&self) -> bool {
        false
    }
}

/// Refuses every question: for runs without a terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPrompts;

impl Prompts for NoPrompts {
    fn show(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn public_text(&self, _: &str) -> Option<String> {
        None
    }

    fn passphrase(&self, _: &str) -> Option<SecretString> {
        None
    }
}

/// [`Prompts`] as the age crate takes them, for SSH keys with a passphrase.
#[cfg(feature = "ssh")]
#[derive(Clone)]
pub(super) struct AgeCallbacks(pub(super) std::sync::Arc<dyn Prompts>);

#[cfg(feature = "ssh")]
impl age::Callbacks for AgeCallbacks {
    fn display_message(&self, message: &str) {
        self.0.show(message);
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        self.0.confirm(message, yes, no)
    }

    fn request_public_string(&self, description: &str) -> Option<String> {
        self.0.public_text(description)
    }

    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        self.0.passphrase(description)
    }
}
