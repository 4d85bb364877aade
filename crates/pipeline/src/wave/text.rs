//! Promises that bytes become characters in the one encoding that fits the whole file, chunk by
//! chunk. Must never replace a byte that it cannot decode.

use std::fmt;
use std::io::{self, Read, Seek};

use encoding_rs::{Decoder, DecoderResult, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::WaveError;

const CHUNK: usize = 64 * 1024;
/// Bytes at the file's beginning that tell UTF-16 without a byte order mark.
const HEAD: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    #[serde(rename = "utf-8")]
    Utf8,
    /// Little-endian: Excel's "Unicode text".
    #[serde(rename = "utf-16le")]
    Utf16Le,
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// Guessed for a file without a byte order mark that is not UTF-8 throughout.
    #[serde(rename = "windows-1252")]
    Windows1252,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16Le => "UTF-16LE",
            Self::Utf16Be => "UTF-16BE",
            Self::Windows1252 => "Windows-1252",
        })
    }
}

pub(super) struct Survey {
    pub(super) encoding: Encoding,
    pub(super) bom: bool,
    pub(super) digest: [u8; 32],
}

/// Reads all of `input` from its beginning and leaves it at its beginning.
pub(super) fn survey(input: &mut (impl Read + Seek), max_bytes: u64) -> Result<Survey, WaveError> {
    input.rewind()?;
    let mut hash = Sha256::new();
    let mut head = Vec::with_capacity(HEAD);
    let mut check = Utf8Check::default();
    let mut total = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = read_some(input, &mut chunk)?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > max_bytes {
            return Err(WaveError::TooLarge(max_bytes));
        }
        let bytes = &chunk[..count];
        hash.update(bytes);
        head.extend_from_slice(&bytes[..count.min(HEAD - head.len())]);
        check.take(bytes);
    }
    input.rewind()?;
    let (encoding, bom) = recognise(&head, check.passed())?;
    Ok(Survey { encoding, bom, digest: hash.finalize().into() })
}

/// A file's characters, one chunk at a time.
pub(super) struct Text<R> {
    input: R,
    encoding: Encoding,
    decoder: Decoder,
    hash: Sha256,
    chunk: Vec<u8>,
    buffer: String,
    at: usize,
    ended: bool,
    malformed: bool,
}

pub(super) enum TextEnd {
    Io(io::Error),
    Malformed(Encoding),
}

impl<R> fmt::Debug for Text<R> {
    /// Hides the text, which is people's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

impl<R: Read> Text<R> {
    pub(super) fn new(input: R, encoding: Encoding) -> Self {
        let decoder = match encoding {
            Encoding::Utf8 => UTF_8.new_decoder_with_bom_removal(),
            Encoding::Utf16Le => UTF_16LE.new_decoder_with_bom_removal(),
            Encoding::Utf16Be => UTF_16BE.new_decoder_with_bom_removal(),
            Encoding::Windows1252 => WINDOWS_1252.new_decoder_without_bom_handling(),
        };
        Self {
            input,
            encoding,
            decoder,
            hash: Sha256::new(),
            chunk: vec![0; CHUNK],
            buffer: String::new(),
            at: 0,
            ended: false,
            malformed: false,
        }
    }

    /// Characters that are decoded and not yet taken.
    pub(super) fn rest(&self) -> &str {
        &self.buffer[self.at..]
    }

    /// Takes `count` bytes of [`Text::rest`]; they end at a character's boundary.
    pub(super) fn take(&mut self, count: usize) {
        self.at += count;
    }

    /// `false` at the end of the file.
    pub(super) fn fill(&mut self) -> Result<bool, TextEnd> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        while self.buffer.len() == before {
            if self.malformed {
                return Err(TextEnd::Malformed(self.encoding));
            }
            if self.ended {
                return Ok(false);
            }
            let count = read_some(&mut self.input, &mut self.chunk).map_err(TextEnd::Io)?;
            self.hash.update(&self.chunk[..count]);
            self.ended = count == 0;
            self.decode(count);
        }
        Ok(true)
    }

    /// SHA-256 of the bytes read so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Decodes the chunk's first `count` bytes. What precedes a malformed byte is kept, so that
    /// lines are counted up to it.
    fn decode(&mut self, count: usize) {
        let mut bytes = &self.chunk[..count];
        loop {
            // No chunk is so large that the length overflows; twice is plenty either way.
            let most = self.decoder.max_utf8_buffer_length_without_replacement(bytes.len());
            self.buffer.reserve(most.unwrap_or(2 * CHUNK));
            let (result, taken) = self.decoder.decode_to_string_without_replacement(
                bytes,
                &mut self.buffer,
                self.ended,
            );
            match result {
                DecoderResult::InputEmpty => return,
                DecoderResult::OutputFull => bytes = &bytes[taken..],
                DecoderResult::Malformed(..) => {
                    self.malformed = true;
                    return;
                }
            }
        }
    }
}

fn read_some(input: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether bytes that come in chunks are UTF-8 as a whole.
#[derive(Default)]
struct Utf8Check {
    failed: bool,
    /// The beginning of a character that the next chunk must complete: at most three bytes.
    open: Vec<u8>,
}

impl Utf8Check {
    fn take(&mut self, mut bytes: &[u8]) {
        while !self.failed && !self.open.is_empty() && !bytes.is_empty() {
            self.open.push(bytes[0]);
            bytes = &bytes[1..];
            match std::str::from_utf8(&self.open) {
                Ok(_) => self.open.clear(),
                Err(error) => self.failed = error.error_len().is_some(),
            }
        }
        if self.failed || bytes.is_empty() {
            return;
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            self.failed = error.error_len().is_some();
            self.open.extend_from_slice(&bytes[error.valid_up_to()..]);
        }
    }

    fn passed(&self) -> bool {
        !self.failed && self.open.is_empty()
    }
}

/// The encoding, and whether a byte order mark says so.
fn recognise(head: &[u8], utf8: bool) -> Result<(Encoding, bool), WaveError> {
    // A .xlsx or .ods is a zip archive; an .xls is a compound file.
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"\xD0\xCF\x11\xE0") {
        return Err(WaveError::Workbook);
    }
    Ok(match head {
        [0xEF, 0xBB, 0xBF, ..] => (Encoding::Utf8, true),
        [0xFF, 0xFE, ..] => (Encoding::Utf16Le, true),
        [0xFE, 0xFF, ..] => (Encoding::Utf16Be, true),
        _ => match unmarked_utf16(head) {
            Some(encoding) => (encoding, false),
            None if utf8 => (Encoding::Utf8, false),
            None => (Encoding::Windows1252, false),
        },
    })
}

/// A header is mostly Latin letters, of which UTF-16 makes one zero byte and one other.
fn unmarked_utf16(head: &[u8]) -> Option<Encoding> {
    let (pairs, _) = head.as_chunks::<2>();
    let high = pairs.iter().filter(|pair| pair[0] == 0).count();
    let low = pairs.iter().filter(|pair| pair[1] == 0).count();
    match (high, low) {
        (0, low) if low > 1 && low * 2 > pairs.len() => Some(Encoding::Utf16Le),
        (high, 0) if high > 1 && high * 2 > pairs.len() => Some(Encoding::Utf16Be),
        _ => None,
    }
}
