//! Promises a growing buffer that leaves no copy of its bytes behind: neither when it grows
//! nor when it is dropped; and small files that are read into one.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use crate::limits;

/// Bytes that are wiped when they are moved, cleared or dropped.
pub struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// Room for `capacity` bytes before anything has to be moved.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends. A `Vec` that grows by itself frees its old place unwiped; this does not.
    pub fn push(&mut self, bytes: &[u8]) {
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
    pub fn clear(&mut self) {
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

/// A small file's bytes, or nothing if it is over [`limits::MAX_SETTINGS_BYTES`], whatever the
/// system says of its size.
///
/// # Errors
/// If the system cannot open or read it.
pub fn read_small(path: &Path) -> io::Result<Option<Wiped>> {
    read_bounded(File::open(path)?)
}

/// What a reader holds, or nothing if it is over [`limits::MAX_SETTINGS_BYTES`].
///
/// # Errors
/// If it cannot be read.
pub fn read_bounded(mut reader: impl Read) -> io::Result<Option<Wiped>> {
    let mut bytes = Wiped::with_capacity(4096);
    let mut block = Zeroizing::new([0; 4096]);
    loop {
        match reader.read(&mut block[..]) {
            Ok(0) => return Ok(Some(bytes)),
            Ok(read) => bytes.push(&block[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > limits::MAX_SETTINGS_BYTES {
            return Ok(None);
        }
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
