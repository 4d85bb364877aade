//! Promises that a refusal which everybody meets is found out after a few rows and told once, and
//! that of any other each row is told.

use super::Session;
use tapwave_core::limits;
use tapwave_core::progress::ProgressEvent;

/// Refusals that came one after the other and are alike.
pub(super) struct EqualRefusals {
    /// What they have in common.
    words: Option<String>,
    /// Of each, what is told if it stays one row's own.
    news: Vec<ProgressEvent>,
    is_full: bool,
    keeps_going: bool,
}

impl EqualRefusals {
    pub(super) fn new(session: &Session) -> Self {
        let keeps_going = session.keeps_going;
        Self { words: None, news: Vec::new(), is_full: false, keeps_going }
    }

    /// One more refusal. True if it makes them everybody's.
    pub(super) fn grows(&mut self, why: &str, news: ProgressEvent, session: &Session) -> bool {
        let words = alike(why, whose(&news));
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
            session.watcher.report(news);
        }
    }
}

/// The row's person.
fn whose(news: &ProgressEvent) -> &str {
    match news {
        ProgressEvent::RowFailed { upn, .. }
        | ProgressEvent::RowHeld { upn, .. }
        | ProgressEvent::RowLost { upn, .. } => upn,
        _ => "",
    }
}

/// A refusal without what is one row's own: addresses, names, ids, long numbers, times. Status and
/// codes stay.
fn alike(why: &str, upn: &str) -> String {
    let words = why.split(|c: char| c.is_whitespace() || "()[]<>{}=,;\"'/|".contains(c));
    let words: Vec<String> = words
        .map(|word| word.trim_end_matches(['.', ':', '!', '?']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let own = names(upn);
    let all_there = own.iter().all(|name| words.contains(name));
    let local = upn.split('@').next().unwrap_or_default().to_lowercase();
    let is_own =
        |word: &String| is_one_rows(word) || *word == local || all_there && own.contains(word);
    let words = words.iter().map(|word| if is_own(word) { "…" } else { word.as_str() });
    words.collect::<Vec<_>>().join(" ")
}

/// The names of which a user's name is made, if it is made of several.
fn names(upn: &str) -> Vec<String> {
    let local = upn.split('@').next().unwrap_or_default().to_lowercase();
    let parts: Vec<String> =
        local.split(['.', '_', '-']).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.len() > 1 { parts } else { Vec::new() }
}

/// Whether a word is an address, an id, a long number or a time. A code is none of them: three
/// digits, or RFC 3463's three numbers with dots between.
fn is_one_rows(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let is_number = word.chars().all(|c| c.is_ascii_digit() || c.is_ascii_punctuation());
    let is_hex = word.len() > 7 && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_address = word.contains('@') || word.split('.').count() == 4 && is_number;
    let is_time = is_number && word.contains(':');
    let is_id = digits > 0 && !is_number && word.len() > 6;
    is_address || is_hex || digits > 0 && (is_time || is_id) || is_number && digits > 5
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
            ("no (trace 10000001, at 10:00:00)", "no (trace 99999999999, at 10:00:07)"),
            ("no, trace=482100 from 10.0.0.1", "no, trace=5550123 from 10.99.0.123"),
            (
                "550 5.7.1 no for ada, ask b1946ac9deadbeef",
                "550 5.7.1 no for Bob, ask deadbeefcafe",
            ),
            ("no on 2026-11-28 at 10:01", "no on 2026-11-29 at 11:59"),
        ] {
            assert_eq!(alike(one, "ada@x"), alike(other, "bob@x"));
        }
        for (one, other) in [
            ("no (HTTP 403, accessDenied)", "no (HTTP 400, accessDenied)"),
            ("550 5.7.1 no", "550 5.1.1 no"),
            ("550 5.7.1 no", "554 5.7.1 no"),
            ("554 5.2.252 no", "554 5.2.0 no"),
            ("no (status=403)", "no (status=400)"),
            ("no (HTTP/403: x)", "no (HTTP/400: x)"),
            ("5.7.1: no", "5.7.2: no"),
        ] {
            assert_ne!(alike(one, "ada@x"), alike(other, "bob@x"));
        }
        let (one, other) = ("Ada Lovelace has no licence", "Bob van Dyk has no licence");
        assert_ne!(alike(one, "a1@x"), alike(other, "b2@x"));
        let (one, other) = ("no licence for Ada Lovelace", "no licence for Bob Dyk");
        assert_eq!(alike(one, "ada.lovelace@x"), alike(other, "bob.dyk@x"));
    }
}
