//! Promises somebody's words without any piece of one code, in whatever form a mail carries
//! it. Must never show what it looks for.
//!
//! A relay that refuses a mail may quote it, and its words are kept in the ledger and shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Pieces of so many bytes are struck: a quotation may begin or end within the code, or a
/// transfer encoding may break its line there. Four bytes of a code are of no use to anybody,
/// and hardly ever a part of other words.
const PIECE: usize = 4;
/// What stands in the place of what was struck.
const STRUCK: &str = "[…]";

/// Every form of one code that may stand in a mail; none, if the mail holds no code. Has no
/// `Debug`, and is wiped when dropped.
#[derive(Clone, Default)]
pub(super) struct Censor(Vec<Zeroizing<String>>);

impl Censor {
    /// Looks for this code.
    pub(super) fn of(code: &str) -> Self {
        let marked_up = marked_up(code);
        let quoted = Zeroizing::new(serde_json::Value::String(marked_up.to_string()).to_string());
        let mut forms =
            vec![Zeroizing::new(code.to_owned()), printable(code), printable(&marked_up)];
        forms.extend(based(code));
        forms.extend(based(&marked_up));
        forms.push(Zeroizing::new(quoted.trim_matches('"').to_owned()));
        forms.push(marked_up);
        Self(forms)
    }

    /// The words without it.
    pub(super) fn strike(&self, words: &str) -> String {
        let bytes = words.as_bytes();
        let mut struck = vec![false; bytes.len()];
        for form in &self.0 {
            let length = PIECE.min(form.len());
            for piece in form.as_bytes().windows(length.max(1)) {
                for (at, window) in bytes.windows(piece.len()).enumerate() {
                    if window.eq_ignore_ascii_case(piece) {
                        struck[at..at + piece.len()].fill(true);
                    }
                }
            }
        }
        let mut told = String::with_capacity(words.len());
        let mut last = false;
        for (at, letter) in words.char_indices() {
            let now = struck[at..at + letter.len_utf8()].contains(&true);
            match (now, last) {
                (false, _) => told.push(letter),
                (true, false) => told.push_str(STRUCK),
                (true, true) => {}
            }
            last = now;
        }
        told
    }
}

/// As it stands in HTML; minijinja escapes these six.
fn marked_up(code: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(6 * code.len()));
    for letter in code.chars() {
        match letter {
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&#x27;"),
            '/' => text.push_str("&#x2f;"),
            plain => text.push(plain),
        }
    }
    text
}

/// As quoted-printable (RFC 2045, 6.7).
fn printable(text: &str) -> Zeroizing<String> {
    use std::fmt::Write;
    let mut printable = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        match byte {
            b'!'..=b'<' | b'>'..=b'~' => printable.push(char::from(byte)),
            // Nothing can go wrong when a string is written to.
            _ => drop(write!(printable, "={byte:02X}")),
        }
    }
    printable
}

/// As Base64, wherever in a group of three it begins; without the characters that its
/// neighbours have a part in.
fn based(text: &str) -> Vec<Zeroizing<String>> {
    (0..3)
        .map(|before| {
            let mut all = Zeroizing::new(vec![0; before]);
            all.extend_from_slice(text.as_bytes());
            let encoded = Zeroizing::new(STANDARD.encode(&*all));
            let (first, end) = ([0, 2, 3][before], all.len() * 8 / 6);
            Zeroizing::new(encoded.get(first..end).unwrap_or_default().to_owned())
        })
        .filter(|form| !form.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "+d/k&qA=D9";

    #[test]
    fn no_piece_is_left_in_any_form() {
        let mut quotations = vec![
            CODE.to_owned(),
            "+D/K&QA=D9".to_owned(),
            "d/k&qA".to_owned(),
            "+d&#x2f;k&amp;qA=D9".to_owned(),
            "+d/k&qA=3DD9".to_owned(),
            "+d/k&=\\r\\nqA=3DD9".to_owned(),
        ];
        for before in ["", "a", "ab", "abc"] {
            quotations.push(STANDARD.encode(format!("{before}{CODE}and more")));
        }
        let censor = Censor::of(CODE);
        for quotation in quotations {
            let told = censor.strike(&format!("550 5.7.1 looks like spam: {quotation}"));
            assert!(told.starts_with("550 5.7.1 looks like spam: "), "{told}");
            assert!(told.contains(STRUCK), "{quotation}: {told}");
            let told = told.to_lowercase();
            for piece in CODE.to_lowercase().as_bytes().windows(PIECE) {
                let piece = std::str::from_utf8(piece).expect("ASCII");
                assert!(!told.contains(piece), "{piece} of {quotation} in {told}");
            }
        }
    }

    #[test]
    fn other_words_stay_as_they_are() {
        let words = "552 5.2.2 Über quota: 邮箱已满 – try again";
        assert_eq!(Censor::of(CODE).strike(words), words);
        assert_eq!(Censor::default().strike(words), words);
        assert_eq!(Censor::of("é").strike("café"), format!("caf{STRUCK}"));
    }
}
