//! Promises to remove every piece of one code from a text, in every form in which a mail holds it.
//! Must never show the code.
//!
//! A relay that refuses a mail may quote it, and its answer is kept in the ledger and shown.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Bytes of the smallest piece that is removed: a quotation may begin or end within the code, and a
/// transfer encoding may break a line there. Fewer would also match ordinary words.
const PIECE: usize = 4;
const REDACTED: &str = "[…]";

/// Every form that one code may have in a mail; none, if the mail holds no code. Has no `Debug`,
/// and is wiped when dropped.
#[derive(Clone, Default)]
pub(super) struct Redactor(Vec<Zeroizing<String>>);

impl Redactor {
    pub(super) fn new(code: &str) -> Self {
        let html_escaped = html_escaped(code);
        let quoted =
            Zeroizing::new(serde_json::Value::String(html_escaped.to_string()).to_string());
        let mut forms = vec![
            Zeroizing::new(code.to_owned()),
            quoted_printable(code),
            quoted_printable(&html_escaped),
        ];
        forms.extend(base64_forms(code));
        forms.extend(base64_forms(&html_escaped));
        forms.push(Zeroizing::new(quoted.trim_matches('"').to_owned()));
        forms.push(html_escaped);
        Self(forms)
    }

    pub(super) fn redact(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut is_hit = vec![false; bytes.len()];
        for form in &self.0 {
            let length = PIECE.min(form.len());
            for piece in form.as_bytes().windows(length.max(1)) {
                for (at, window) in bytes.windows(piece.len()).enumerate() {
                    if window.eq_ignore_ascii_case(piece) {
                        is_hit[at..at + piece.len()].fill(true);
                    }
                }
            }
        }
        let mut redacted = String::with_capacity(text.len());
        let mut was_hit = false;
        for (at, c) in text.char_indices() {
            let hit = is_hit[at..at + c.len_utf8()].contains(&true);
            match (hit, was_hit) {
                (false, _) => redacted.push(c),
                (true, false) => redacted.push_str(REDACTED),
                (true, true) => {}
            }
            was_hit = hit;
        }
        redacted
    }
}

/// Escaped for HTML as minijinja does it.
fn html_escaped(code: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(6 * code.len()));
    for c in code.chars() {
        match c {
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

/// RFC 2045, 6.7.
fn quoted_printable(text: &str) -> Zeroizing<String> {
    use std::fmt::Write;
    let mut printable = Zeroizing::new(String::with_capacity(3 * text.len()));
    for byte in text.bytes() {
        match byte {
            b'!'..=b'<' | b'>'..=b'~' => printable.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(printable, "={byte:02X}")),
        }
    }
    printable
}

/// The Base64 forms for each offset within a group of three bytes, without the characters that also
/// depend on neighbouring bytes.
fn base64_forms(text: &str) -> Vec<Zeroizing<String>> {
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
        let redactor = Redactor::new(CODE);
        for quotation in quotations {
            let redacted = redactor.redact(&format!("550 5.7.1 looks like spam: {quotation}"));
            assert!(redacted.starts_with("550 5.7.1 looks like spam: "), "{redacted}");
            assert!(redacted.contains(REDACTED), "{quotation}: {redacted}");
            let redacted = redacted.to_lowercase();
            for piece in CODE.to_lowercase().as_bytes().windows(PIECE) {
                let piece = std::str::from_utf8(piece).expect("ASCII");
                assert!(!redacted.contains(piece), "{piece} of {quotation} in {redacted}");
            }
        }
    }

    #[test]
    fn other_text_is_unchanged() {
        let words = "552 5.2.2 Über quota: 邮箱已满 – try again";
        assert_eq!(Redactor::new(CODE).redact(words), words);
        assert_eq!(Redactor::default().redact(words), words);
        assert_eq!(Redactor::new("é").redact("café"), format!("caf{REDACTED}"));
    }
}
