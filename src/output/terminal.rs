//! Promises that the terminal is left as it was found, and that last words wait for nobody:
//! they take no lock and a moment at most, whoever holds the screen.

use std::io::{self, IsTerminal};
use std::sync::mpsc;
use std::thread;

use tapwave_core::limits;

/// Shows the cursor, which a question hides.
#[cfg(unix)]
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Goes back over a bar that was being drawn.
const CLEAR_LINE: &str = "\r\x1b[2K";

/// The terminal as it was found.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    /// Whether words are read by a person.
    is_shown: bool,
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl Terminal {
    /// Looks at the terminal before anybody changes it.
    pub(super) fn found() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }

    /// Puts back what a question that was broken off has changed: its echo, its cursor.
    pub(super) fn restore(&self) {
        self.say_in_time(String::new());
    }

    /// Restores the terminal and says a last line, over a bar if there is one.
    pub(super) fn last_words(&self, words: &str, has_bars: bool) {
        let over = if has_bars && cfg!(unix) { CLEAR_LINE } else { "" };
        self.say_in_time(format!("{over}{words}\n"));
    }

    /// On a thread of its own: a terminal that takes nothing, because its connection stalls or
    /// text in it is being selected, is not waited for.
    fn say_in_time(&self, text: String) {
        let (said, heard) = mpsc::channel();
        let terminal = self.clone();
        let speaking = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
            terminal.say(text);
            // Whoever waited may have left.
            let _ = said.send(());
        });
        if speaking.is_ok() {
            let _ = heard.recv_timeout(limits::LAST_WORDS);
        }
    }

    #[cfg(unix)]
    fn say(&self, mut text: String) {
        use rustix::termios::{OptionalActions, tcgetpgrp, tcsetattr};
        // From the background it would stop the program instead.
        let in_front = || tcgetpgrp(io::stdin()).is_ok_and(|it| it == rustix::process::getpgrp());
        if let Some(modes) = self.modes.as_ref().filter(|_| in_front()) {
            // Nobody is left to tell if the terminal is gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
        if self.is_shown {
            text.push_str(SHOW_CURSOR);
        }
        let mut left = text.as_bytes();
        // Not through the standard library's handle, whose lock a stuck thread may hold.
        while !left.is_empty() {
            match rustix::io::write(io::stderr(), left) {
                Ok(0) => return,
                Ok(written) => left = &left[written..],
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    #[cfg(not(unix))]
    #[expect(clippy::needless_pass_by_value, reason = "the other platforms add to it")]
    fn say(&self, text: String) {
        use std::io::Write;
        // Nobody is left to tell if the console is gone.
        let _ = io::stderr().write_all(text.as_bytes());
        if self.is_shown {
            let _ = dialoguer::console::Term::stderr().show_cursor();
        }
    }
}
