//! Promises to ask people on the terminal, and nobody anywhere else.
//!
//! Must never keep or echo an answer.

use std::io::IsTerminal;

use dialoguer::{Confirm, Input, Password};
use secrecy::SecretString;

use super::shown;
use crate::vault::Prompts;

/// Asks on the terminal, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    terminal: bool,
}

impl Asking {
    /// Asks if both stdin and stderr are a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        Self { terminal: std::io::stdin().is_terminal() && std::io::stderr().is_terminal() }
    }

    /// Whether anybody can be asked.
    #[must_use]
    pub const fn can_ask(self) -> bool {
        self.terminal
    }

    /// Asks a question that is answered with yes or no; `None` if nobody can be asked.
    #[must_use]
    pub fn yes_or_no(self, question: &str) -> Option<bool> {
        self.terminal
            .then(|| Confirm::new().with_prompt(shown(question)).default(false).interact().ok())
            .flatten()
    }
}

impl Prompts for Asking {
    fn show(&self, message: &str) {
        eprint_line(&shown(message));
    }

    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        let question = match no {
            Some(no) => format!("{message} (y: {yes}, n: {no})"),
            None => format!("{message} (y: {yes})"),
        };
        self.yes_or_no(&question)
    }

    fn public_text(&self, question: &str) -> Option<String> {
        self.terminal
            .then(|| Input::new().with_prompt(shown(question)).interact_text().ok())
            .flatten()
    }

    fn passphrase(&self, question: &str) -> Option<SecretString> {
        self.terminal
            .then(|| Password::new().with_prompt(shown(question)).interact().ok())
            .flatten()
            .map(SecretString::from)
    }
}

fn eprint_line(line: &str) {
    use std::io::Write;
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
