//! Promises that a pass cannot be copied, shown or compared, and is wiped when dropped.
//! Must never give its text to anything outside this crate but the mail that is being rendered.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use tapwave_core::limits;

/// The secret code of one Temporary Access Pass.
///
/// Graph gives it once, in the answer that creates the pass; it is opaque text of at most
/// [`limits::MAX_PASS_BYTES`] bytes. The only way to make one is to deserialise it:
///
/// ```
/// let pass: tapwave_seal::Pass = serde_json::from_str(r#""+drkzqAD""#)?;
/// drop(pass);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// It cannot be cloned,
/// ```compile_fail,E0599
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let copy = pass().clone();
/// ```
/// printed,
/// ```compile_fail,E0277
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// println!("{}", pass());
/// ```
/// formatted for debugging,
/// ```compile_fail,E0277
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let text = format!("{:?}", pass());
/// ```
/// serialised,
/// ```compile_fail,E0277
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let text = serde_json::to_string(&pass());
/// ```
/// compared,
/// ```compile_fail,E0369
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let same = pass() == pass();
/// ```
/// or read.
/// ```compile_fail,E0624
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let text: String = pass().text().to_owned();
/// ```
/// ```compile_fail,E0616
/// # fn pass() -> tapwave_seal::Pass { serde_json::from_str(r#""+drkzqAD""#).unwrap() }
/// let text = pass().0;
/// ```
pub struct Pass(SecretString);

impl Pass {
    pub(super) fn text(&self) -> &str {
        self.0.expose_secret()
    }

    /// The code, for the mail that is being rendered. Only `Templates::render` of the mail crate
    /// may call this (checked by tests/tidy.rs); it puts the code into buffers that wipe themselves.
    pub fn reveal(&self) -> &str {
        self.text()
    }
}

impl<'de> Deserialize<'de> for Pass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a string, serde_json's error would quote a number that it finds instead, which
        // might be the code. Asked for anything, it passes a string on without a copy.
        deserializer.deserialize_any(CodeVisitor)
    }
}

struct CodeVisitor;

impl Visitor<'_> for CodeVisitor {
    type Value = Pass;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a pass")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Pass, E> {
        if text.is_empty() {
            return Err(E::custom("the pass is empty"));
        }
        if text.len() > limits::MAX_PASS_BYTES {
            return Err(E::custom("the pass is too long"));
        }
        // One allocation of the exact size: a move would leave a copy behind.
        Ok(Pass(SecretString::from(text)))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Pass, E> {
        self.visit_str(&zeroize::Zeroizing::new(text))
    }

    // Serde's default errors for a wrong type quote the value, which might be the code.
    fn visit_bool<E: Error>(self, _: bool) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Pass, E> {
        Err(not_text())
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Pass, E> {
        Err(not_text())
    }
}

fn not_text<E: Error>() -> E {
    E::custom("the pass is not a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_comes_from_json_text_verbatim() {
        for (json, code) in
            [(r#""+drkzqAD""#, "+drkzqAD"), (r#""a\"b,c;d""#, "a\"b,c;d"), (r#""\u00e9""#, "é")]
        {
            let pass: Pass = serde_json::from_str(json).expect("a pass");
            assert!(pass.text() == code);
        }
    }

    #[test]
    fn no_error_quotes_the_value() {
        let long = format!("\"{}\"", "73190".repeat(limits::MAX_PASS_BYTES));
        for json in ["73190", "-73190", "73190.5", "[73190]", "true", "null", "\"\"", &long] {
            let error = serde_json::from_str::<Pass>(json).err().expect("an error").to_string();
            assert!(!error.contains("73190") && !error.contains("true"), "{error}");
        }
    }
}
