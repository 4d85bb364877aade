//! Promises that a relay's reply is read by its code, whose first digit decides (RFC 5321). Must
//! never fail on the text after the code, however odd.
//!
//! lettre's parser is not used: it refuses a second digit above five and a code without text, takes
//! `starttls` for something other than `STARTTLS`, and panics at a blank line in EHLO's reply.

use super::settings::Mechanism;
use tapwave_core::shown::plain;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SmtpReply {
    code: u16,
    lines: Vec<String>,
}

/// The meaning of a code's first digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyClass {
    /// 2 and 3.
    Positive,
    /// 4: the same may work later.
    Transient,
    /// 5.
    Permanent,
    Unknown,
}

impl SmtpReply {
    /// `None` if the lines do not all begin with the same code of three digits.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text);
        let (mut code, mut lines) = (None, Vec::new());
        for line in text.split_terminator('\n') {
            let digits = line.get(..3).filter(|all| all.bytes().all(|one| one.is_ascii_digit()))?;
            let rest = line[3..].trim_end_matches('\r');
            if !(rest.is_empty() || rest.starts_with([' ', '-'])) {
                return None;
            }
            let number = digits.parse().ok()?;
            if *code.get_or_insert(number) != number {
                return None;
            }
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
        }
        Some(Self { code: code?, lines })
    }

    pub(super) fn has_code(&self, code: u16) -> bool {
        self.code == code
    }

    /// Whether the code begins with the digits of `code`.
    pub(super) fn begins_with(&self, code: u16) -> bool {
        // With leading zeros, so that 025 does not begin with 25.
        format!("{:03}", self.code).starts_with(&code.to_string())
    }

    pub(super) fn class(&self) -> ReplyClass {
        match self.code / 100 {
            2 | 3 => ReplyClass::Positive,
            4 => ReplyClass::Transient,
            5 => ReplyClass::Permanent,
            _ => ReplyClass::Unknown,
        }
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.class(), ReplyClass::Transient | ReplyClass::Permanent)
    }

    /// Whether it concerns the sender and not the recipient, at whatever command: by Exchange's codes
    /// (530 5.7.57, 550 5.7.60, 554 5.2.252; 554 5.2.0 has other meanings too), by those of RFC 3463
    /// (X.1.7, X.1.8), or by Postfix's text, which may come as late as RCPT.
    pub(super) fn is_about_sender(&self) -> bool {
        let phrases = ["sender address rejected", "sendasdenied", "not owned by user"];
        self.class() == ReplyClass::Permanent
            && (self.has_code(530)
                || self.is_sender_quota()
                || ["5.7.57", "5.7.60", "5.2.252", "5.1.7", "5.1.8"]
                    .contains(&self.enhanced_code())
                || self.contains_any(&phrases))
    }

    pub(super) fn is_sender_quota(&self) -> bool {
        self.contains_any(&["submissionquotaexceeded", "outbound recipient limit"])
    }

    /// Whether a refusal of MAIL concerns the mail's size (X.3.4), its character set and format
    /// (X.6), or an unknown parameter.
    pub(super) fn is_about_mail(&self) -> bool {
        let code = self.enhanced_code();
        [552, 555].contains(&self.code) || code == "5.3.4" || code.starts_with("5.6.")
    }

    /// Whether SMTP AUTH is disabled. Exchange's 5.7.139 says so, but also reports a wrong password.
    pub(super) fn says_sign_in_disabled(&self) -> bool {
        self.enhanced_code() == "5.7.139" && !self.contains_any(&["credentials were incorrect"])
    }

    /// The code of RFC 3463 at the beginning of the text; empty if there is none.
    fn enhanced_code(&self) -> &str {
        let first = self.lines.first().and_then(|line| line.split_whitespace().next());
        first.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default()
    }

    /// Whether it contains one of these phrases, which are in lower case.
    fn contains_any(&self, phrases: &[&str]) -> bool {
        let text = self.lines.join(" ").to_ascii_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    }

    /// The text after the code, line by line.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Code and text on one line, safe to show.
    pub(super) fn to_line(&self) -> String {
        plain(&format!("{} {}", self.code, self.lines.join(" ")))
    }
}

/// The extensions of a relay that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) starttls: bool,
    pub(super) smtputf8: bool,
    mechanisms: Vec<String>,
    /// The largest mail in bytes, if there is a limit (RFC 1870).
    pub(super) size: Option<u64>,
}

impl Capabilities {
    /// Reads the reply to EHLO. Keywords are case-insensitive (RFC 5321, 4.1.1.1); the first line is a
    /// greeting.
    pub(super) fn of(reply: &SmtpReply) -> Self {
        let mut found = Self::default();
        for line in reply.lines().skip(1) {
            // Older relays write `AUTH=`.
            let mut words = line.split(|c: char| c.is_ascii_whitespace() || c == '=');
            let mut words = words.by_ref().filter(|word| !word.is_empty());
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "STARTTLS" => found.starttls = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "AUTH" => found.mechanisms.extend(words.map(str::to_ascii_uppercase)),
                "SIZE" => {
                    // Zero means that there is no limit.
                    let size = words.next().and_then(|size| size.parse().ok());
                    found.size = size.filter(|size| *size > 0);
                }
                _ => {}
            }
        }
        found
    }

    /// The first of these mechanisms that the relay offers.
    pub(super) fn mechanism(&self, of: &[Mechanism]) -> Option<Mechanism> {
        let offered = |one: &&Mechanism| self.mechanisms.iter().any(|name| name == one.name());
        of.iter().find(offered).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SmtpReply {
        SmtpReply::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text:?}"))
    }

    #[test]
    fn a_reply_is_read_by_its_code() {
        for (text, line) in [
            ("250 ok\r\n", "250 ok"),
            ("250\r\n", "250"),
            ("250 \r\n", "250"),
            ("250 ok\n", "250 ok"),
            ("571-5.7.1 no\r\n571\r\n", "571 5.7.1 no"),
            ("250 a\0b\u{1b}[2Jc\r\n", "250 a\\u{0}b\\u{1b}[2Jc"),
        ] {
            assert_eq!(read(text).to_line(), line, "{text:?}");
        }
        assert_eq!(
            SmtpReply::parse(b"554 \xff\xfe\r\n").expect("one").to_line(),
            "554 \u{fffd}\u{fffd}"
        );
        for (code, class) in [
            (199, ReplyClass::Unknown),
            (299, ReplyClass::Positive),
            (354, ReplyClass::Positive),
            (471, ReplyClass::Transient),
            (599, ReplyClass::Permanent),
            (650, ReplyClass::Unknown),
        ] {
            assert_eq!(read(&format!("{code} x\r\n")).class(), class, "{code}");
        }
        for bad in ["", "\r\n", "25\r\n", "250x\r\n", "2500 ok\r\n", "ok\r\n", "250-a\r\n550 b\r\n"]
        {
            assert_eq!(SmtpReply::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(SmtpReply::parse("2\u{e9} x\r\n".as_bytes()), None, "no character is split");
    }

    #[test]
    fn extensions_are_read_in_any_case_and_odd_lines_are_skipped() {
        let answer = read(
            "250-STARTTLS greets you\r\n250-  \r\n250-\r\n250-auth=plain Login\r\n\
             250-Size 1000\r\n250-8bitmime\r\n250 smtputf8\r\n",
        );
        let offers = Capabilities::of(&answer);
        assert!(offers.smtputf8 && !offers.starttls, "a greeting offers nothing");
        assert_eq!(offers.size, Some(1_000));
        let first = |of: &[Mechanism]| offers.mechanism(of);
        assert_eq!(first(&[Mechanism::Xoauth2, Mechanism::Login]), Some(Mechanism::Login));
        assert_eq!(first(&[Mechanism::Xoauth2]), None);
        for size in ["SIZE", "SIZE 0", "SIZE -1", "SIZE 99999999999999999999999", "SIZE x"] {
            assert_eq!(
                Capabilities::of(&read(&format!("250-x\r\n250 {size}\r\n"))).size,
                None,
                "{size}"
            );
        }
    }
}
