//! Promises that text from outside is shown and never obeyed: one list of what steers a
//! terminal or hides from the eye, for every crate that writes words. Must never let a
//! character of that list through to a person's screen.
//!
//! A name in a directory, a file in a folder, a relay's answer may hold anything. What would
//! move the cursor, forge a line, turn the direction of reading or take no room at all is
//! written out as `\u{…}`.

use crate::limits;

/// Whether a character steers a terminal, turns the direction of writing, or has no width.
///
/// These are Unicode's `Cc` (C0, DEL and C1), `Zl` and `Zp`, and what of `Cf` turns or hides:
/// it comes along when text is copied from chats and spreadsheets, and makes two names look
/// alike.
#[must_use]
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text with everything that [`steers`] written out, ends of lines included.
#[must_use]
pub fn escaped(text: &str) -> String {
    escape(text, |_| false)
}

/// The same for words of several lines that are our own: their ends stay.
#[must_use]
pub fn lines(text: &str) -> String {
    escape(text, |c| c == '\n')
}

/// What another program said, as one line: blanks joined, the rest of what [`steers`] written
/// out, cut at [`limits::MAX_MESSAGE_BYTES`].
#[must_use]
pub fn plain(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut plain = escaped(&joined);
    if plain.len() > limits::MAX_MESSAGE_BYTES {
        plain.truncate(plain.floor_char_boundary(limits::MAX_MESSAGE_BYTES));
        plain.push('…');
    }
    plain
}

/// A person's name as it may be kept: what [`steers`] is a blank, but for the two joiners that
/// names in several scripts need. Cut at [`limits::MAX_MESSAGE_BYTES`].
#[must_use]
pub fn name(text: &str) -> String {
    let joins = |c| matches!(c, '\u{200c}' | '\u{200d}');
    let blanked: String =
        text.chars().map(|c| if steers(c) && !joins(c) { ' ' } else { c }).collect();
    let mut name = blanked.trim().to_owned();
    name.truncate(name.floor_char_boundary(limits::MAX_MESSAGE_BYTES));
    name
}

/// Whose rules a command that is told to people must suit when it is pasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// sh and its kin: nothing lives between single quotes.
    Posix,
    /// Both `PowerShell` and cmd, since nobody knows which: no quotes hold everything in both.
    Windows,
}

impl Shell {
    /// This platform's.
    #[must_use]
    pub const fn here() -> Self {
        if cfg!(windows) { Self::Windows } else { Self::Posix }
    }

    /// The text as one word: as it is where no shell reads anything into it, else quoted, and
    /// what [`steers`] written out. Where no quotes would keep a shell from obeying it,
    /// `stand_in` takes its place for a person to replace: a file's name may come by mail.
    #[must_use]
    pub fn word(self, text: &str, stand_in: &str) -> String {
        if self.reads_nothing_into(text) {
            return text.to_owned();
        }
        let text = escaped(text);
        match self {
            Self::Posix => format!("'{}'", text.replace('\'', r"'\''")),
            Self::Windows if text.contains(lives_in_double_quotes) => stand_in.to_owned(),
            Self::Windows => {
                // Programs there take a backslash before a quote for its escape.
                let trailing = text.len() - text.trim_end_matches('\\').len();
                format!("\"{text}{}\"", "\\".repeat(trailing))
            }
        }
    }

    fn reads_nothing_into(self, text: &str) -> bool {
        let plain = |c: char| {
            c.is_alphanumeric()
                || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '+' | '…')
                || self == Self::Windows && c == '\\'
        };
        // `PowerShell` takes a leading @ for an array.
        !text.is_empty() && !text.starts_with('@') && text.chars().all(plain)
    }
}

/// Whether `PowerShell` or cmd obeys it between double quotes. `PowerShell` takes typographic
/// quotes for plain ones.
const fn lives_in_double_quotes(c: char) -> bool {
    matches!(c, '"' | '$' | '`' | '%' | '\u{2018}'..='\u{201e}')
}

/// [`Shell::word`] for this platform.
#[must_use]
pub fn shell_word(text: &str, stand_in: &str) -> String {
    Shell::here().word(text, stand_in)
}

fn escape(text: &str, keep: impl Fn(char) -> bool) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, c| {
        if steers(c) && !keep(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
        safe
    })
}

/// Bytes in hexadecimal, as digests are told.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Text in memory takes everything.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind: C0, DEL, C1 (an eight-bit CSI), directions, isolates, no width, tags.
    const STEERING: &str = "\u{1b}\u{7}\r\n\t\u{7f}\u{9b}\u{85}\u{202a}\u{202e}\u{2066}\u{2069}\u{200b}\u{200f}\u{feff}\u{ad}\u{2028}\u{e0041}";

    #[test]
    fn what_steers_is_written_out() {
        for c in STEERING.chars() {
            assert!(steers(c), "{c:?}");
            assert_eq!(escaped(&format!("a{c}b")), format!("a{}b", c.escape_unicode()));
            assert!(!plain(&format!("a{c}b")).contains(c), "{c:?}");
            assert!(!name(&format!("a{c}b")).contains(c), "{c:?}");
        }
        assert_eq!(lines("a\nb\u{1b}[2J\r"), "a\nb\\u{1b}[2J\\u{d}");
    }

    #[test]
    fn what_people_are_called_stays() {
        for text in ["Zoë 🙂", "O'Brien", "李雷", "محمد", "e\u{301}", "می\u{200c}خواهم"]
        {
            assert_eq!(name(text), text);
        }
        assert_eq!(escaped("Zoë 🙂"), "Zoë 🙂");
    }

    #[test]
    fn a_word_is_one_word_to_a_posix_shell() {
        for (text, word) in [
            ("wave-20260301T080000Z", "wave-20260301T080000Z"),
            ("/home/ada/März.csv", "/home/ada/März.csv"),
            ("", "''"),
            ("@wave", "'@wave'"),
            ("ada@contoso.example", "ada@contoso.example"),
            ("my wave", "'my wave'"),
            ("~/wave", "'~/wave'"),
            (r"a\b", r"'a\b'"),
            ("$(date)", "'$(date)'"),
            ("it's", r"'it'\''s'"),
            ("it’s “so”", "'it’s “so”'"),
            ("a\u{1b}b", r"'a\u{1b}b'"),
        ] {
            assert_eq!(Shell::Posix.word(text, "FILE"), word);
        }
    }

    #[test]
    fn a_word_is_one_word_to_both_shells_of_windows() {
        for (text, word) in [
            (r"C:\Users\ada\März.csv", r"C:\Users\ada\März.csv"),
            (r"C:\waves\", r"C:\waves\"),
            (r"C:\my waves\", r#""C:\my waves\\""#),
            (r"C:\my waves\\", r#""C:\my waves\\\\""#),
            (r"C:\my waves\a.csv", r#""C:\my waves\a.csv""#),
            ("", r#""""#),
            ("@wave", r#""@wave""#),
            ("it's & that", r#""it's & that""#),
            ("a;b", r#""a;b""#),
            ("a\u{1b}b", r#""a\u{1b}b""#),
        ] {
            assert_eq!(Shell::Windows.word(text, "FILE"), word);
        }
    }

    #[test]
    fn what_the_shells_of_windows_obey_between_quotes_is_not_told() {
        let obeyed = ['"', '$', '`', '%', '‘', '’', '‚', '‛', '“', '”', '„'];
        for c in obeyed {
            for text in [format!("wave{c}calc{c}.csv"), format!(" {c}"), c.to_string()] {
                assert_eq!(Shell::Windows.word(&text, "WAVE.csv"), "WAVE.csv", "{text:?}");
            }
        }
    }

    #[test]
    fn what_another_program_said_is_one_short_line() {
        assert_eq!(plain(" a \r\n b\u{1b}[2J "), "a b\\u{1b}[2J");
        let long = plain(&"ü".repeat(limits::MAX_MESSAGE_BYTES));
        assert!(long.len() <= limits::MAX_MESSAGE_BYTES + '…'.len_utf8());
        assert!(long.ends_with('…'));
    }
}
