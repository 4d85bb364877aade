//! Promises that a pass is sealed once, by value, and comes out as ciphertext. Must never keep the
//! plaintext row once it is encrypted.

use std::fmt;

use jiff::Timestamp;

use super::age_file::{BINARY_START, one_line};
use super::pass::Pass;
use super::recipients::RecipientSet;

use tapwave_core::ids::{MethodId, Upn};
use tapwave_core::wiped::Wiped;

/// The columns of a sealed row and of a handoff file, in order.
pub(super) const COLUMNS: [&str; 7] = [
    "userPrincipalName",
    "displayName",
    "temporaryAccessPass",
    "startDateTime",
    "lifetimeInMinutes",
    "isUsableOnce",
    "methodId",
];

/// One row of plaintext that is to be sealed.
pub struct Entry {
    pub upn: Upn,
    /// The person's name, if Graph gave one.
    pub display_name: Option<String>,
    pub pass: Pass,
    /// When the pass begins to work, if Graph says so.
    pub start: Option<Timestamp>,
    pub lifetime_minutes: u32,
    pub one_time: bool,
    pub method: MethodId,
}

/// A complete binary age file that holds a CSV header and one row.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext(Vec<u8>);

/// The stored bytes are not ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to read a sealed pass: the stored bytes are no age file; restore the ledger from a copy"
)]
pub struct NotCiphertext;

/// Why a pass could not be sealed. Its code is no longer in memory: delete the pass by its id.
#[derive(Debug, thiserror::Error)]
#[error("failed to seal for {label:?}: {reason}; check the key, and its plugin if it has one")]
pub struct SealError {
    label: String,
    reason: String,
}

impl SealError {
    pub(super) fn new(set: &RecipientSet, error: &age::EncryptError) -> Self {
        Self { label: set.label().to_owned(), reason: one_line(&error.to_string()) }
    }
}

impl RecipientSet {
    /// Seals a row. It takes the row by value: a pass is sealed once.
    ///
    /// ```compile_fail,E0382
    /// # use tapwave_seal::{Entry, RecipientSet};
    /// fn twice(set: &RecipientSet, entry: Entry) {
    ///     let _ = set.seal(entry);
    ///     let _ = set.seal(entry);
    /// }
    /// ```
    pub fn seal(&self, entry: Entry) -> Result<Ciphertext, SealError> {
        let text = sealed_text(&entry);
        drop(entry);
        self.encrypt(&text).map(Ciphertext).map_err(|error| SealError::new(self, &error))
    }
}

impl Ciphertext {
    pub(super) fn new(age_file: Vec<u8>) -> Self {
        Self(age_file)
    }

    /// Takes back what the ledger stored.
    pub fn restored(bytes: Vec<u8>) -> Result<Self, NotCiphertext> {
        if bytes.starts_with(BINARY_START) { Ok(Self(bytes)) } else { Err(NotCiphertext) }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ciphertext({} bytes)", self.0.len())
    }
}

/// The first line of every sealed file, with its line end.
pub(super) fn header() -> String {
    let mut header = COLUMNS.join(",");
    header.push('\n');
    header
}

pub(super) fn header_length() -> usize {
    // After each name comes a comma or the line end.
    COLUMNS.iter().map(|name| name.len() + 1).sum()
}

/// The header and the row as CSV.
pub(super) fn sealed_text(entry: &Entry) -> Wiped {
    let name = entry.display_name.as_deref().unwrap_or_default();
    // Room for every field in quotes, so that the buffer does not grow.
    let room = header_length() + 2 * (name.len() + entry.pass.text().len()) + 512;
    let mut text = Wiped::with_capacity(room);
    text.push(header().as_bytes());
    field(&mut text, entry.upn.as_str());
    text.push(b",");
    field(&mut text, name);
    text.push(b",");
    field(&mut text, entry.pass.text());
    text.push(b",");
    field(&mut text, &entry.start.map(|start| start.to_string()).unwrap_or_default());
    text.push(b",");
    field(&mut text, &entry.lifetime_minutes.to_string());
    text.push(b",");
    field(&mut text, if entry.one_time { "true" } else { "false" });
    text.push(b",");
    field(&mut text, entry.method.as_str());
    text.push(b"\n");
    text
}

/// Writes a CSV field, quoted where RFC 4180 or a lenient reader needs it.
fn field(text: &mut Wiped, value: &str) {
    if !needs_quotes(value) {
        return text.push(value.as_bytes());
    }
    text.push(b"\"");
    for (at, piece) in value.split('"').enumerate() {
        if at > 0 {
            text.push(b"\"\"");
        }
        text.push(piece.as_bytes());
    }
    text.push(b"\"");
}

/// Whether a value must be quoted to be read back unchanged.
pub(super) fn needs_quotes(value: &str) -> bool {
    value.contains([',', '"', '\n', '\r', ';', '\t'])
        || value.starts_with(char::is_whitespace)
        || value.ends_with(char::is_whitespace)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{NoPrompts, Prompts};
    use super::*;
    use std::sync::Arc;

    pub(crate) fn entry(upn: &str, name: Option<&str>, code: &str) -> Entry {
        Entry {
            upn: upn.parse().expect("a UPN"),
            display_name: name.map(str::to_owned),
            pass: serde_json::from_value(code.into()).expect("a pass"),
            start: Some("2026-03-01T08:00:00Z".parse().expect("a time")),
            lifetime_minutes: 60,
            one_time: true,
            method: "c5dbd20a-8b8f-4791-a23f-488fcbde3b38".parse().expect("an id"),
        }
    }

    /// A set of one new key, and that key's private half.
    pub(crate) fn set(label: &str) -> (RecipientSet, age::x25519::Identity) {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string().parse().expect("a recipient");
        let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
        (RecipientSet::new(label, vec![recipient], &prompts).expect("a set"), identity)
    }

    #[test]
    fn the_text_is_the_documented_csv() {
        let text = sealed_text(&entry("ada@contoso.example", Some("Lovelace, Ada"), "a\"b,c;d"));
        assert_eq!(
            std::str::from_utf8(&text).expect("text"),
            "userPrincipalName,displayName,temporaryAccessPass,startDateTime,lifetimeInMinutes,isUsableOnce,methodId\n\
             ada@contoso.example,\"Lovelace, Ada\",\"a\"\"b,c;d\",2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n"
        );
        assert_eq!(header_length(), header().len());
    }

    #[test]
    fn what_is_sealed_is_an_age_file_that_any_age_code_opens() {
        let (set, identity) = set("all");
        let sealed = set.seal(entry("ada@contoso.example", None, "+drkzqAD")).expect("sealed");
        let plain = age::decrypt(&identity, sealed.as_bytes()).expect("opened");
        let mut rows = csv::Reader::from_reader(&plain[..]);
        let row = rows.records().next().expect("a row").expect("well-formed");
        assert_eq!(&row[2], "+drkzqAD");
        assert_eq!(&row[1], "");
        assert!(Ciphertext::restored(sealed.into_bytes()).is_ok());
        assert!(Ciphertext::restored(plain).is_err());
    }
}
