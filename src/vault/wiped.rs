//! Promises a growing buffer that leaves no copy of its bytes behind: neither when it grows
//! nor when it is dropped.

use std::ops::Deref;

use zeroize::{Zeroize, Zeroizing};

/// Bytes that are wiped when they are moved, cleared or dropped.
pub struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// Room for `capacity` bytes before anything has to be moved.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends. A `Vec` that grows by itself frees its old place unwiped; this does not.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut roomy = Vec::with_capacity(needed.max(self.0.capacity() * 2));
            roomy.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = Zeroizing::new(roomy);
        }
        self.0.extend_from_slice(bytes);
    }

    /// Empties and wipes, and keeps the room for the next content.
    pub(super) fn clear(&mut self) {
        self.0.as_mut_slice().zeroize();
        self.0.clear();
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_and_clears_without_losing_bytes() {
        let mut buffer = Wiped::with_capacity(2);
        for piece in [&b"a"[..], b"bc", b"", b"defghijk"] {
            buffer.push(piece);
        }
        assert_eq!(&*buffer, b"abcdefghijk");
        buffer.clear();
        buffer.push(b"z");
        assert_eq!(&*buffer, b"z");
    }
}
