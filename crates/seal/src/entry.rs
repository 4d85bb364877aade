//! Promises that a pass goes into exactly one sealing, by value, and that what comes out is
//! ciphertext. Must never keep the plaintext row after it was encrypted.

use std::fmt;

use jiff::Timestamp;

use super::handoff::Spool;
use super::recipients::{RecipientSet, one_line};
use super::{COLUMNS, Pass};
use tapwave_core::ids::{Line, MethodId, Upn};
use tapwave_core::wiped::Wiped;

/// One row of plaintext, on its way into a sealing.
pub struct Entry {
    /// Whose pass it is.
    pub upn: Upn,
    /// The person's name, if Graph gave one.
    pub display_name: Option<String>,
    pub pass: Pass,
    /// When the pass begins to work, if Graph said so.
    pub start: Option<Timestamp>,
    /// For how many minutes it works.
    pub lifetime_minutes: u32,
    /// Whether it works once only.
    pub one_time: bool,
    /// The pass's id in Graph, which is no secret.
    pub method: MethodId,
}

/// A complete binary age file that holds a CSV header and one row.
#[derive(Clone, PartialEq, Eq)]
pub struct Ciphertext(Vec<u8>);

/// Bytes that were stored as ciphertext and are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to read a sealed pass: the stored bytes are no age file; restore the ledger from a copy"
)]
pub struct NotCiphertext;

/// A row for the handoff file, encrypted to a key that lives in this process alone. It goes
/// to [`Spool::keep`] once the ledger has the row's [`Ciphertext`].
#[must_use = "a row that is not kept is missing from the handoff file"]
pub struct Spooled {
    pub(super) set: u32,
    pub(super) line: Line,
    pub(super) bytes: Vec<u8>,
}

/// Why a pass could not be sealed. The pass is gone from memory by now: delete it by its id.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Encryption, or a plugin, failed.
    #[error("failed to seal for {label:?}: {reason}; check the key, and its plugin if it has one")]
    Encrypt {
        label: String,
        /// What age or the plugin said.
        reason: String,
    },
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
    ///
    /// # Errors
    /// A plugin failed. Native keys that passed the trial when the set was built do not fail.
    pub fn seal(&self, entry: Entry) -> Result<Ciphertext, SealError> {
        let row = sealed_text(&entry);
        drop(entry);
        self.encrypt(&row).map(Ciphertext).map_err(|error| self.failed(&error))
    }

    /// Seals a row twice over: to the set for the ledger, and to the spool's own key for the
    /// handoff file of `set`, the set's number in the run.
    pub fn seal_and_spool(
        &self,
        entry: Entry,
        spool: &Spool,
        set: u32,
        line: Line,
    ) -> Result<(Ciphertext, Spooled), SealError> {
        let row = sealed_text(&entry);
        drop(entry);
        let sealed = self.encrypt(&row).map_err(|error| self.failed(&error))?;
        let bytes = spool.encrypt(&row[header_length()..]).map_err(|error| self.failed(&error))?;
        Ok((Ciphertext(sealed), Spooled { set, line, bytes }))
    }

    fn failed(&self, error: &age::EncryptError) -> SealError {
        SealError::Encrypt { label: self.label().to_owned(), reason: one_line(&error.to_string()) }
    }
}

impl Ciphertext {
    /// Takes back what the ledger stored.
    ///
    /// # Errors
    /// The bytes do not begin as a binary age file does.
    pub fn restored(bytes: Vec<u8>) -> Result<Self, NotCiphertext> {
        if bytes.starts_with(super::opened::BINARY_START) {
            Ok(Self(bytes))
        } else {
            Err(NotCiphertext)
        }
    }

    /// The age file.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The age file, for the ledger to store.
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

fn header_length() -> usize {
    // The names and as many separators or line ends.
    COLUMNS.iter().map(|name| name.len() + 1).sum()
}

/// The header and the row as CSV.
fn sealed_text(entry: &Entry) -> Wiped {
    let name = entry.display_name.as_deref().unwrap_or_default();
    // Room for every field quoted, so that the text is written in one place.
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

/// One CSV field, quoted where RFC 4180 or a careless reader needs it.
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

/// Whether a value must stand in quotes to be read back as it is.
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

    /// A row as Graph's answer makes it.
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
        let quiet: Arc<dyn Prompts> = Arc::new(NoPrompts);
        (RecipientSet::new(label, vec![recipient], &quiet).expect("a set"), identity)
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
