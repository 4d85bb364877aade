//! Promises to ask people on the terminal, and nobody anywhere else; a question ends when the
//! command is given up.
//!
//! Must never keep or echo an answer.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use dialoguer::{Confirm, Input, Password};
use secrecy::SecretString;

use super::shown;
use tapwave_core::limits;
use tapwave_pipeline::stop::StopSignal;
use tapwave_seal::Prompts;

/// Asks on the terminal, if there is one.
#[derive(Debug, Clone)]
pub struct TerminalPrompts {
    terminal: bool,
    stop: StopSignal,
}

impl TerminalPrompts {
    /// Asks if both stdin and stderr are a terminal.
    #[must_use]
    pub fn on_terminal(stop: StopSignal) -> Self {
        let terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        Self { terminal, stop }
    }

    /// Whether anybody can be asked.
    #[must_use]
    pub const fn can_ask(&self) -> bool {
        self.terminal
    }

    /// Asks a question that is answered with yes or no; `None` if nobody can be asked.
    #[must_use]
    pub fn yes_or_no(&self, question: &str) -> Option<bool> {
        let question = shown(question);
        self.answer(move || Confirm::new().with_prompt(question).default(false).interact())
    }

    /// Asks on a thread of its own, which is left to itself when the command is given up: a
    /// terminal that is being read cannot be taken back.
    fn answer<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> dialoguer::Result<T> + Send + 'static,
    ) -> Option<T> {
        if !self.terminal {
            return None;
        }
        let (answers, answered) = mpsc::channel();
        let ask = move || {
            // Whoever asked may have given up.
            let _ = answers.send(ask());
        };
        thread::Builder::new().name("question".to_owned()).spawn(ask).ok()?;
        loop {
            match answered.recv_timeout(limits::STOP_GLANCE) {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(dialoguer::Error::IO(error))) => {
                    self.heard_the_keys(&error);
                    return None;
                }
                Err(RecvTimeoutError::Timeout) if !self.stop.is_aborted() => {}
                Err(_) => return None,
            }
        }
    }

    /// A question that takes the keys one by one takes those of Ctrl-C too and raises the
    /// signal itself: whoever hears that says in a moment that all is given up.
    fn heard_the_keys(&self, error: &io::Error) {
        let glances = limits::STOP_GRACE.as_millis() / limits::STOP_GLANCE.as_millis();
        for _ in 0..glances {
            if error.kind() != io::ErrorKind::Interrupted || self.stop.is_requested() {
                return;
            }
            thread::sleep(limits::STOP_GLANCE);
        }
    }
}

impl Prompts for TerminalPrompts {
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
        let question = shown(question);
        self.answer(move || Input::new().with_prompt(question).interact_text())
    }

    fn passphrase(&self, question: &str) -> Option<SecretString> {
        let question = shown(question);
        self.answer(move || Password::new().with_prompt(question).interact().map(Into::into))
    }

    fn is_given_up(&self) -> bool {
        self.stop.is_aborted()
    }
}

fn eprint_line(line: &str) {
    use std::io::Write;
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{line}");
}
