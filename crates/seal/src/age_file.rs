//! Promises what every module here needs of the age format: how a file begins, how a short text is
//! encrypted, and how an error of age or a plugin is shown. Must never open a file.

use std::io;

use tapwave_core::shown::plain;

/// How every binary age file begins, of whatever version.
pub(super) const BINARY_START: &[u8] = b"age-encryption.org/";
/// How every armoured age file begins.
pub(super) const ARMOR_START: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// Bytes that are enough to recognise an age file. Only a pipe gives fewer in its first read.
const ENOUGH: usize = 8;

/// Whether a file with these first bytes is an age file, of whatever kind and version.
pub(super) fn is_age(start: &[u8]) -> bool {
    let is = |mark: &[u8]| start.starts_with(mark) || mark.starts_with(start);
    start.len() >= ENOUGH && (is(BINARY_START) || is(ARMOR_START))
}

/// Encrypts a short text in one go.
pub(super) fn encrypt(
    encryptor: age::Encryptor,
    plaintext: &[u8],
) -> Result<Vec<u8>, age::EncryptError> {
    // Each recipient takes about 150 bytes of the header.
    let mut writer = encryptor.wrap_output(Vec::with_capacity(plaintext.len() + 512))?;
    io::Write::write_all(&mut writer, plaintext)?;
    Ok(writer.finish()?)
}

/// What age or a plugin said, on one line and without characters that a terminal would obey.
pub(super) fn one_line(text: &str) -> String {
    // Age puts these direction marks around names.
    let unframed: String = text.chars().filter(|c| !matches!(c, '\u{2066}'..='\u{2069}')).collect();
    plain(&unframed).trim_end_matches(['.', ' ']).to_owned()
}
