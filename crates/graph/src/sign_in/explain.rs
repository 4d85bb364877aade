//! Promises the identity platform's answers in words that say who must do what.

use std::error::Error;

use azure_core::error::ErrorKind;

use crate::between::Intermediary;
use crate::http::{NoToken, innermost};
use tapwave_core::shown::plain;

/// The sign-in address, as people know it.
pub(super) const PLACE: &str = "the sign-in address";

/// The platform's codes that administrators meet, and what to do (Microsoft's reference of
/// AADSTS codes).
const KNOWN: [(&str, &str); 12] = [
    ("AADSTS7000215", "the client secret is wrong; give its value and not its id"),
    ("AADSTS7000222", "the client secret has expired; make a new one in the app registration"),
    (
        "AADSTS700027",
        "the app registration does not take this certificate; upload it there, or renew it if it has expired",
    ),
    ("AADSTS700024", "the assertion is not valid at this time; the clock of this machine is wrong"),
    ("AADSTS700016", "there is no such application in this tenant; check --client-id and --tenant"),
    ("AADSTS90002", "there is no such tenant; check --tenant"),
    ("AADSTS700213", "no federated credential of the app registration matches this token"),
    ("AADSTS70021", "no federated credential of the app registration matches this token"),
    ("AADSTS50076", "the tenant asks for multi-factor authentication; use --auth interactive"),
    ("AADSTS53003", "conditional access blocks this sign-in; ask who keeps those policies"),
    ("AADSTS65001", "nobody has consented to the permissions; an administrator must"),
    (
        "AADSTS7000218",
        "the application is no public client; allow public client flows, or use a secret or a certificate",
    ),
];

/// The platform's words, with ours before them where the code is known.
pub(super) fn platform(text: &str) -> String {
    let text = plain(text);
    let code = |code: &str| {
        text.find(code).is_some_and(|at| {
            !text[at + code.len()..].starts_with(|next: char| next.is_ascii_digit())
        })
    };
    match KNOWN.iter().find(|(known, _)| code(known)) {
        Some((_, advice)) => format!("{advice} ({text})"),
        None => text,
    }
}

/// What the identity library's error means: a network that is down for a while, or an address
/// that cannot answer now, is no refusal.
pub(super) fn judged(error: &azure_core::Error) -> NoToken {
    if let Some(between) = between(error) {
        return NoToken::Between(between.to_string());
    }
    if is_outage(error) {
        // What the library says over it is that it tried often.
        return NoToken::Unreachable(format!("{PLACE}: {}", innermost(error)));
    }
    NoToken::Denied(platform(&error.to_string()))
}

/// What the line found in between, which the library has wrapped.
fn between(error: &azure_core::Error) -> Option<&Intermediary> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(between) = error.downcast_ref() {
            return Some(between);
        }
        cause = error.source();
    }
    None
}

/// The library wraps what the exchange brought in an error of its own.
fn is_outage(error: &azure_core::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref().map(azure_core::Error::kind) {
            Some(ErrorKind::Connection | ErrorKind::Io) => return true,
            Some(ErrorKind::HttpResponse { status, .. }) => {
                return matches!(u16::from(*status), 429 | 500..);
            }
            _ => cause = error.source(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_as_a_whole() {
        assert!(platform("AADSTS700027: x").contains("certificate"));
        assert_eq!(platform("AADSTS7000279: x"), "AADSTS7000279: x");
        assert!(platform("AADSTS7000215: Invalid client secret").starts_with("the client secret"));
    }
}
