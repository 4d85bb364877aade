//! Promises that a refusal which everybody meets is found out after a few rows and told once, and
//! that of any other each row is told.

use super::Session;
use crate::limits;
use crate::progress::News;

/// Refusals that came one after the other and are alike.
pub(super) struct Streak {
    /// What they have in common.
    words: Option<String>,
    /// Of each, what is told if it stays one row's own.
    news: Vec<News>,
    /// They are everybody's.
    is_full: bool,
    keeps_going: bool,
}

impl Streak {
    pub(super) fn new(session: &Session) -> Self {
        let keeps_going = session.keeps_going;
        Self { words: None, news: Vec::new(), is_full: false, keeps_going }
    }

    /// One more refusal. True if it makes them everybody's.
    pub(super) fn grows(&mut self, why: &str, news: News, session: &Session) -> bool {
        let words = alike(why);
        if self.words.as_ref() != Some(&words) {
            self.end(session);
            self.words = Some(words);
        }
        if self.is_full {
            // It was under way when that was found out.
            return false;
        }
        self.news.push(news);
        if self.keeps_going {
            self.tell(session);
        }
        self.is_full = self.news.len() >= limits::EQUAL_REFUSALS;
        if self.is_full {
            self.news.clear();
        }
        self.is_full
    }

    /// Something else came of a row.
    pub(super) fn end(&mut self, session: &Session) {
        if !self.is_full {
            self.tell(session);
            self.words = None;
        }
    }

    /// Tells what waits to be told.
    pub(super) fn tell(&mut self, session: &Session) {
        for news in self.news.drain(..) {
            session.watcher.hear(news);
        }
    }
}

/// A refusal without what is one row's own: addresses, ids, times. Status and codes stay: they
/// are short, or of digits and dots alone.
fn alike(why: &str) -> String {
    let is_id = |word: &&str| {
        let numbers = word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_punctuation());
        let has_number = word.contains(|c: char| c.is_ascii_digit());
        word.contains('@') || (has_number && !numbers && word.len() > 6)
    };
    let words = why.split_whitespace().map(|word| if is_id(&word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_one_rows_own_makes_no_difference_and_codes_do() {
        for (one, other) in [
            (
                "Resource '0d9f2c4e-1111-4a4a-8b8b-000000000001' does not exist (HTTP 404, x)",
                "Resource '7c0e2c4e-2222-4a4a-8b8b-0000000000ff' does not exist (HTTP 404, x)",
            ),
            (
                "550 5.7.1 <ada@home.example>: relaying denied [AM0PR04 2026-11-28T10:00:00Z]",
                "550 5.7.1 <bob@home.example>: relaying denied [AM9PR77 2026-11-28T10:00:07Z]",
            ),
        ] {
            assert_eq!(alike(one), alike(other));
        }
        for (one, other) in [
            ("no (HTTP 403, accessDenied)", "no (HTTP 400, accessDenied)"),
            ("550 5.7.1 no", "550 5.1.1 no"),
            ("550 5.7.1 no", "554 5.7.1 no"),
            ("554 5.2.252 no", "554 5.2.0 no"),
        ] {
            assert_ne!(alike(one), alike(other));
        }
    }
}
