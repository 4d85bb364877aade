//! Promises that an identifier of one kind is never taken for another, and that each is
//! well-formed from birth. Must never hold a secret.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;

/// A line in the wave file, counted from 1 as editors count; the header usually is line 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Line(pub u64);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A userPrincipalName as the wave wrote it.
///
/// It has one `@` with text on both sides, no white space, no control character, and at
/// most [`limits::MAX_UPN_BYTES`] bytes. Two spellings that differ in case name one user:
/// compare [`Upn::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upn(Box<str>);

/// Why a text is no userPrincipalName. The text completes "the userPrincipalName …".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUpn {
    /// Nothing is there.
    #[error("is empty")]
    Empty,
    /// Blank characters inside.
    #[error("holds a space")]
    Space,
    /// NUL, escape and their kin.
    #[error("holds a control character")]
    Control,
    /// Not exactly one `@` between two texts.
    #[error("is not of the form name@domain")]
    Shape,
    /// A character Entra refuses, and which could change the meaning of a URL.
    #[error("holds {0:?}, which Entra does not allow")]
    Character(char),
    /// Over [`limits::MAX_UPN_BYTES`].
    #[error("is longer than {max} bytes", max = limits::MAX_UPN_BYTES)]
    TooLong,
}

impl Upn {
    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text folded to lower case: equal for two spellings of one user.
    #[must_use]
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for Upn {
    type Err = BadUpn;

    fn from_str(text: &str) -> Result<Self, BadUpn> {
        if text.is_empty() {
            return Err(BadUpn::Empty);
        }
        if text.len() > limits::MAX_UPN_BYTES {
            return Err(BadUpn::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BadUpn::Control);
        }
        if text.chars().any(char::is_whitespace) {
            return Err(BadUpn::Space);
        }
        // `#` stands in the names of external guests, `'` in people's names; both are legal.
        if let Some(bad) = text.chars().find(|c| r#"/\?%*:|"<>,;()[]{}"#.contains(*c)) {
            return Err(BadUpn::Character(bad));
        }
        match text.split_once('@') {
            Some((name, domain))
                if !name.is_empty() && !domain.is_empty() && !domain.contains('@') =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(BadUpn::Shape),
        }
    }
}

impl TryFrom<String> for Upn {
    type Error = BadUpn;

    fn try_from(text: String) -> Result<Self, BadUpn> {
        text.parse()
    }
}

impl From<Upn> for String {
    fn from(upn: Upn) -> Self {
        upn.0.into()
    }
}

impl fmt::Display for Upn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID as the id of this kind of object.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

object_id! {
    /// A user's object id, which Graph gives as a GUID.
    UserId
}
object_id! {
    /// A group's object id, which Graph gives as a GUID.
    GroupId
}
object_id! {
    /// Tells one run from every other, wherever its folder is copied to.
    RunId
}
object_id! {
    /// Sent as `client-request-id`, for tracing alone: Graph has no idempotency key.
    ClientRequestId
}

impl ClientRequestId {
    /// The id of the one POST that an intent pays for: derived from what the ledger keeps of
    /// it, so that a manifest can name it long after. Two tries of that POST (the second after
    /// a refused token) share it.
    #[must_use]
    pub fn of_intent(user: UserId, intent: i64, graph_time: jiff::Timestamp) -> Self {
        use sha2::{Digest, Sha256};
        let text = format!("tapwave client-request-id {user} {intent} {graph_time}");
        let digest: [u8; 32] = Sha256::digest(text).into();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self::new(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The id of one pass on one user: opaque, given by Graph, no secret.
///
/// Only characters that are safe in a URL's path are let in, so that an answer cannot steer
/// a DELETE elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodId(Box<str>);

/// A method id that is empty, over 128 bytes, or holds a character outside `A-Za-z0-9-_=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the method id in Graph's answer is malformed")]
pub struct BadMethodId;

impl MethodId {
    /// The id as Graph wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MethodId {
    type Err = BadMethodId;

    fn from_str(text: &str) -> Result<Self, BadMethodId> {
        let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_=".contains(&b);
        if text.is_empty() || text.len() > 128 || !text.bytes().all(safe) {
            return Err(BadMethodId);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for MethodId {
    type Error = BadMethodId;

    fn try_from(text: String) -> Result<Self, BadMethodId> {
        text.parse()
    }
}

impl From<MethodId> for String {
    fn from(id: MethodId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_upn_is_well_formed_or_says_why_not() {
        for good in ["a@b.c", "o'neil@contoso.example", "g_x.y#EXT#@contoso.example", "ß@b.c"] {
            assert!(good.parse::<Upn>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", BadUpn::Empty),
            ("a b@c.d", BadUpn::Space),
            ("a\0@c.d", BadUpn::Control),
            ("a@b@c", BadUpn::Shape),
            ("@c", BadUpn::Shape),
            ("c@", BadUpn::Shape),
            ("../x@c", BadUpn::Character('/')),
        ] {
            assert_eq!(bad.parse::<Upn>(), Err(why), "{bad:?}");
        }
        assert_eq!(format!("{}@b.c", "a".repeat(200)).parse::<Upn>(), Err(BadUpn::TooLong));
    }

    #[test]
    fn case_does_not_make_two_users() {
        let one: Upn = "Ada@Contoso.example".parse().expect("a UPN");
        let two: Upn = "ADA@contoso.EXAMPLE".parse().expect("a UPN");
        assert_eq!(one.key(), two.key());
    }

    #[test]
    fn a_method_id_cannot_steer_a_url() {
        for bad in ["", "../users", "a/b", "a?b", "a#b", "a b"] {
            assert_eq!(bad.parse::<MethodId>(), Err(BadMethodId), "{bad:?}");
        }
        assert!("3f2a1b5c-0000-4000-8000-aaaaaaaaaaaa".parse::<MethodId>().is_ok());
    }
}
