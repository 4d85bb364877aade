//! Promises that a name and an address are safe in a header, whatever a directory or a wave holds:
//! no control character, no line break, exactly one address.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use lettre::Address;

use tapwave_core::limits;

/// One person's mail address, and their name if there is one.
///
/// The domain is ASCII, in its `xn--` form if need be (IDNA), which every relay takes. The part
/// before the `@` may have any letters; only the relay can say whether it takes them (SMTPUTF8,
/// RFC 6531).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox(lettre::message::Mailbox);

/// Why a text is not a mailbox; completes "the address …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMailbox {
    #[error("is not of the form name@domain or Name <name@domain>; write it so")]
    Shape,
    #[error("has a domain that no host can be named by; check it letter by letter")]
    Domain,
    /// Over [`limits::MAX_ADDRESS_BYTES`].
    #[error("is longer than {max} bytes; shorten it", max = limits::MAX_ADDRESS_BYTES)]
    TooLong,
}

impl Mailbox {
    /// A name may hold anything: it is cleaned, not refused.
    pub fn new(name: &str, address: &str) -> Result<Self, BadMailbox> {
        let address = address.trim();
        if address.len() > limits::MAX_ADDRESS_BYTES {
            return Err(BadMailbox::TooLong);
        }
        if address.chars().any(|c| is_bidi_control(c) || may_end_line(c) || c.is_whitespace()) {
            return Err(BadMailbox::Shape);
        }
        let (user, domain) = address.rsplit_once('@').ok_or(BadMailbox::Shape)?;
        let domain = if domain.is_ascii() {
            Cow::Borrowed(domain)
        } else {
            idna::domain_to_ascii_strict(domain).map_err(|_| BadMailbox::Domain)?.into()
        };
        let address = Address::new(user, domain).map_err(|_| BadMailbox::Shape)?;
        let name = header_text(name, limits::MAX_MAIL_NAME_CHARS);
        Ok(Self(lettre::message::Mailbox::new((!name.is_empty()).then_some(name), address)))
    }

    #[must_use]
    pub fn address(&self) -> &str {
        self.0.email.as_ref()
    }

    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.email.domain()
    }

    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    pub(super) fn as_lettre(&self) -> &lettre::message::Mailbox {
        &self.0
    }
}

impl FromStr for Mailbox {
    type Err = BadMailbox;

    /// Reads `name@domain` or `Name <name@domain>`, where the name may be quoted.
    fn from_str(text: &str) -> Result<Self, BadMailbox> {
        let text = text.trim();
        let Some(inner) = text.strip_suffix('>') else { return Self::new("", text) };
        let (name, address) = inner.rsplit_once('<').ok_or(BadMailbox::Shape)?;
        let name = name.trim();
        let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        match unquoted {
            Some(quoted) => Self::new(&quoted.replace("\\\"", "\"").replace("\\\\", "\\"), address),
            None => Self::new(name, address),
        }
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Changes the writing direction of what follows.
const fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn may_end_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Text for a header: one line of at most `max` characters, without control characters and those
/// that change the writing direction, blanks joined.
pub(super) fn header_text(text: &str, max: usize) -> String {
    let text: String = text
        .chars()
        .filter(|c| !is_bidi_control(*c))
        .map(|c| if may_end_line(c) { ' ' } else { c })
        .collect();
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", joined[..end].trim_end()),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_read_as_people_write_it() {
        for (text, name, address) in [
            ("a@b.example", None, "a@b.example"),
            ("IT Onboarding <it@b.example>", Some("IT Onboarding"), "it@b.example"),
            ("\"Lovelace, Ada\" <ada@b.example>", Some("Lovelace, Ada"), "ada@b.example"),
            ("\"the \\\"boss\\\"\" <x@b.example>", Some("the \"boss\""), "x@b.example"),
            ("<o'neil@b.example>", None, "o'neil@b.example"),
            ("a@Bücher.example", None, "a@xn--bcher-kva.example"),
            ("a@例え.テスト", None, "a@xn--r8jz45g.xn--zckzah"),
            ("jörg@bücher.example", None, "jörg@xn--bcher-kva.example"),
            ("アイ@b.example", None, "アイ@b.example"),
        ] {
            let mailbox: Mailbox = text.parse().expect(text);
            assert_eq!((mailbox.name(), mailbox.address()), (name, address), "{text}");
        }
    }

    #[test]
    fn anything_but_a_single_address_is_refused() {
        for bad in [
            "",
            "a",
            "a@",
            "@b",
            "a@b.example, c@d.example",
            "a@b.example\r\nBcc: c@d.example",
            "A <a@b.example> <c@d.example",
            "a b@c.example",
            "x <a@b.example\0>",
            "ö\u{202e}@b.example",
            "ö\u{85}@b.example",
            "ö @b.example",
            "ö<@b.example",
        ] {
            assert_eq!(bad.parse::<Mailbox>(), Err(BadMailbox::Shape), "{bad:?}");
        }
        for bad in ["a@bü cher.example", "a@ö\u{ad}..example", "a@-ö.example", "a@ö_ö.example"]
        {
            assert!(bad.parse::<Mailbox>().is_err(), "{bad}");
        }
        let long = format!("{}@b.example", "a".repeat(600));
        assert_eq!(long.parse::<Mailbox>(), Err(BadMailbox::TooLong));
    }

    #[test]
    fn a_name_cannot_end_its_line_or_change_the_direction() {
        let name = "Ada\r\nBcc: evil@b.example\0\u{202e}\u{2028}  x";
        let mailbox = Mailbox::new(name, "a@b.example").expect("a mailbox");
        assert_eq!(mailbox.name(), Some("Ada Bcc: evil@b.example x"));
        let long = Mailbox::new(&"é".repeat(500), "a@b.example").expect("a mailbox");
        let seen = long.name().expect("a name").chars().count();
        assert_eq!(seen, limits::MAX_MAIL_NAME_CHARS + 1);
    }
}
