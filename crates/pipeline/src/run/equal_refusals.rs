//! Promises that a refusal that meets every row is found after a few rows and reported once, and
//! that any other refusal is reported for its row.

use super::Session;
use tapwave_core::limits;
use tapwave_core::progress::ProgressEvent;

pub(super) struct EqualRefusals {
    words: Option<String>,
    /// Reported if they turn out to be each row's own.
    events: Vec<ProgressEvent>,
    is_full: bool,
    keeps_going: bool,
}

impl EqualRefusals {
    pub(super) fn new(session: &Session) -> Self {
        let keeps_going = session.keeps_going;
        Self { words: None, events: Vec::new(), is_full: false, keeps_going }
    }

    /// True if there are now [`limits::EQUAL_REFUSALS`] in a row.
    pub(super) fn add(&mut self, why: &str, event: ProgressEvent, session: &Session) -> bool {
        let words = alike(why, upn_of(&event));
        if self.words.as_ref() != Some(&words) {
            self.reset(session);
            self.words = Some(words);
        }
        if self.is_full {
            // Its request was already in flight.
            return false;
        }
        self.events.push(event);
        if self.keeps_going {
            self.flush(session);
        }
        self.is_full = self.events.len() >= limits::EQUAL_REFUSALS;
        if self.is_full {
            self.events.clear();
        }
        self.is_full
    }

    /// A row had another outcome.
    pub(super) fn reset(&mut self, session: &Session) {
        if !self.is_full {
            self.flush(session);
            self.words = None;
        }
    }

    /// Reports what was kept back.
    pub(super) fn flush(&mut self, session: &Session) {
        for event in self.events.drain(..) {
            session.report(event);
        }
    }
}

fn upn_of(event: &ProgressEvent) -> &str {
    match event {
        ProgressEvent::RowFailed { upn, .. }
        | ProgressEvent::RowHeld { upn, .. }
        | ProgressEvent::RowLost { upn, .. } => upn,
        _ => "",
    }
}

/// A refusal without what differs from row to row: addresses, names, ids, long numbers, times.
/// Status and codes stay.
fn alike(why: &str, upn: &str) -> String {
    let words = why.split(|c: char| c.is_whitespace() || "()[]<>{}=,;\"'/|".contains(c));
    let words: Vec<String> = words
        .map(|word| word.trim_end_matches(['.', ':', '!', '?']).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    let own = names(upn);
    let all_present = own.iter().all(|name| words.contains(name));
    let local = upn.split('@').next().unwrap_or_default().to_lowercase();
    let is_own =
        |word: &String| is_specific(word) || *word == local || all_present && own.contains(word);
    let words = words.iter().map(|word| if is_own(word) { "…" } else { word.as_str() });
    words.collect::<Vec<_>>().join(" ")
}

/// The parts of a user's name, if it has several.
fn names(upn: &str) -> Vec<String> {
    let local = upn.split('@').next().unwrap_or_default().to_lowercase();
    let parts: Vec<String> =
        local.split(['.', '_', '-']).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.len() > 1 { parts } else { Vec::new() }
}

/// Whether a word is an address, an id, a long number or a time. A code is none of these: three
/// digits, or RFC 3463's three numbers with dots.
fn is_specific(word: &str) -> bool {
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
    fn a_rows_own_words_make_no_difference_and_codes_do() {
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
