//! Promises that a relay's answer is read as RFC 5321 has it: by its code, whose first digit
//! decides, whatever stands behind it. Must never fail on words, however odd they are.
//!
//! lettre's reader is not used: it knows no second digit above five, takes a bare code for no
//! answer, tells `starttls` from `STARTTLS`, and panics at a blank line of EHLO's.

use super::settings::Mechanism;
use tapwave_core::shown::plain;

/// One whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SmtpReply {
    code: u16,
    lines: Vec<String>,
}

/// What the first digit of a code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyClass {
    /// 2 and 3: done, or go on.
    Positive,
    /// 4: no, and the same may work later.
    Transient,
    /// 5: no.
    Permanent,
    /// None that SMTP has.
    Unknown,
}

impl SmtpReply {
    /// Reads the lines of one answer, each with its end. `None` if they do not all begin with
    /// the same code of three digits.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
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
        // With its zeros: 025 is no 25.
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

    /// Whether it is a definite no.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.class(), ReplyClass::Transient | ReplyClass::Permanent)
    }

    /// Whether it concerns the sender of a mail and not its reader, wherever it is given: by
    /// Exchange's codes (530 5.7.57, 550 5.7.60, 554 5.2.252; 554 5.2.0 also stands for other
    /// things), by those of RFC 3463 (X.1.7, X.1.8), or by Postfix's words, which may not come
    /// before RCPT.
    pub(super) fn is_of_the_sender(&self) -> bool {
        let says = ["sender address rejected", "sendasdenied", "not owned by user"];
        self.class() == ReplyClass::Permanent
            && (self.has_code(530)
                || self.is_of_the_quota()
                || ["5.7.57", "5.7.60", "5.2.252", "5.1.7", "5.1.8"].contains(&self.enhanced())
                || self.says(&says))
    }

    /// Whether the sender has sent as much as it may.
    pub(super) fn is_of_the_quota(&self) -> bool {
        self.says(&["submissionquotaexceeded", "outbound recipient limit"])
    }

    /// Whether a no to MAIL speaks of the mail's size (X.3.4), its letters and form (X.6), or of
    /// a parameter that the relay does not know.
    pub(super) fn is_of_the_mail(&self) -> bool {
        let code = self.enhanced();
        [552, 555].contains(&self.code) || code == "5.3.4" || code.starts_with("5.6.")
    }

    /// Whether the sign-in itself is switched off, whatever the password: Exchange's 5.7.139,
    /// which it also gives for a wrong one.
    pub(super) fn turns_off_sign_in(&self) -> bool {
        self.enhanced() == "5.7.139" && !self.says(&["credentials were incorrect"])
    }

    /// The code of RFC 3463 that begins its words, else nothing.
    fn enhanced(&self) -> &str {
        let first = self.lines.first().and_then(|line| line.split_whitespace().next());
        first.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default()
    }

    /// Whether it has one of these words, given in small letters.
    fn says(&self, words: &[&str]) -> bool {
        let said = self.lines.join(" ").to_ascii_lowercase();
        words.iter().any(|word| said.contains(word))
    }

    /// What follows the code, without its ends of lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// The relay's words, on one line that may be shown.
    pub(super) fn told(&self) -> String {
        plain(&format!("{} {}", self.code, self.lines.join(" ")))
    }
}

/// What a relay says that it can do, of what matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) starttls: bool,
    pub(super) smtputf8: bool,
    mechanisms: Vec<String>,
    /// The largest mail it takes, in bytes, if it names a size (RFC 1870).
    pub(super) size: Option<u64>,
}

impl Capabilities {
    /// Reads the answer to EHLO. Its keywords are the same in any case (RFC 5321, 4.1.1.1); its
    /// first line is a greeting.
    pub(super) fn of(answer: &SmtpReply) -> Self {
        let mut offers = Self::default();
        for line in answer.lines().skip(1) {
            // Older relays write `AUTH=`.
            let mut words = line.split(|c: char| c.is_ascii_whitespace() || c == '=');
            let mut words = words.by_ref().filter(|word| !word.is_empty());
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "STARTTLS" => offers.starttls = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "AUTH" => offers.mechanisms.extend(words.map(str::to_ascii_uppercase)),
                "SIZE" => {
                    // Zero, or none, names no size.
                    let size = words.next().and_then(|size| size.parse().ok());
                    offers.size = size.filter(|size| *size > 0);
                }
                _ => {}
            }
        }
        offers
    }

    /// The first of these ways to sign in that the relay has too.
    pub(super) fn mechanism(&self, of: &[Mechanism]) -> Option<Mechanism> {
        let offered = |one: &&Mechanism| self.mechanisms.iter().any(|name| name == one.name());
        of.iter().find(offered).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SmtpReply {
        SmtpReply::read(text.as_bytes()).unwrap_or_else(|| panic!("{text:?}"))
    }

    #[test]
    fn an_answer_is_its_code_whatever_stands_behind_it() {
        for (text, told) in [
            ("250 ok\r\n", "250 ok"),
            ("250\r\n", "250"),
            ("250 \r\n", "250"),
            ("250 ok\n", "250 ok"),
            ("571-5.7.1 no\r\n571\r\n", "571 5.7.1 no"),
            ("250 a\0b\u{1b}[2Jc\r\n", "250 a\\u{0}b\\u{1b}[2Jc"),
        ] {
            assert_eq!(read(text).told(), told, "{text:?}");
        }
        assert_eq!(
            SmtpReply::read(b"554 \xff\xfe\r\n").expect("one").told(),
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
            assert_eq!(SmtpReply::read(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(SmtpReply::read("2\u{e9} x\r\n".as_bytes()), None, "no character is cut");
    }

    #[test]
    fn what_is_offered_is_known_in_any_case_and_nothing_odd_trips() {
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
