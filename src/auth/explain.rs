//! Promises the identity platform's answers in words that say who must do what.

use crate::graph::verdict::plain;

/// What a proxy's page surfaces as.
pub(super) const WEB_PAGE: &str =
    "the sign-in address answered with a web page; a proxy may stand in between";

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

/// The identity library's error in one line. A proxy's page surfaces as a JSON error there.
pub(super) fn library(error: &azure_core::Error) -> String {
    let text = error.to_string();
    if text.contains("expected value at line 1 column 1") {
        return WEB_PAGE.to_owned();
    }
    platform(&text)
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
