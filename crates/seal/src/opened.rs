//! Promises that a handoff file is opened row by row, that every row shown is genuine, and
//! that a damaged, truncated or foreign file ends in an error. Must never keep more than one chunk
//! and one row of plaintext.

use std::io::{self, BufRead, BufReader, Read};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::age_file::is_age;
use super::entry::COLUMNS;
use super::identities::Identities;
use super::plugin::PluginFailed;
use tapwave_core::ids::Upn;
use tapwave_core::limits;
use tapwave_core::wiped::Wiped;

/// One row of an opened handoff.
///
/// The code can be read only through [`super::RowWriter`] and [`OpenedRow::table_cells`], and
/// when a mail is rendered.
pub struct OpenedRow {
    text: Wiped,
    ends: Vec<usize>,
}

/// Tells rows apart without what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Equal for the same person; case does not matter.
    pub person: [u8; 16],
    /// Equal for rows that are equal in every field.
    pub row: [u8; 16],
}

fn half(digest: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| digest[at])
}

/// Why a file could not be opened, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum OpenError<E> {
    #[error("failed to read the file; check that it exists and may be read")]
    Read(#[source] io::Error),
    /// It is over [`limits::MAX_HANDOFF_BYTES`].
    #[error("failed to open the file: it is larger than {max} bytes, which no handoff is; decrypt it with age", max = limits::MAX_HANDOFF_BYTES)]
    TooLarge,
    #[error(
        "failed to open the file: it is no age file; give a file from the run's handoff folder"
    )]
    NotAge,
    #[error("failed to open the file: it is an age file of a newer kind; update tapwave")]
    Newer,
    #[error(
        "failed to open the file: it is not sealed to any of the identities given, and an age file does not say for whom it is; ask the operator which public key was used, and give the identity of that key with -i"
    )]
    NoMatch,
    /// It was changed, cut short, or something was appended.
    #[error(
        "failed to open the file: it is damaged or was cut short (every row shown before this is genuine, but rows may be missing); fetch it again from the operator"
    )]
    Damaged,
    #[error("failed to open the file: {0}; check the identity and its plugin")]
    Plugin(String),
    #[error(
        "failed to open the container: this is {kind} and no age file; unpack it with tar to see what it is"
    )]
    NotAFile { kind: &'static str },
    /// It is over [`limits::MAX_CONTAINER_ENTRIES`] or [`limits::MAX_CONTAINER_BYTES`], or a
    /// file in it over [`limits::MAX_HANDOFF_BYTES`].
    #[error("failed to open the container: it has more than {entries} files or is larger than {bytes} bytes, which none of tapwave is; unpack it with tar and open its files", entries = limits::MAX_CONTAINER_ENTRIES, bytes = limits::MAX_CONTAINER_BYTES)]
    ContainerTooLarge,
    #[error(
        "failed to open the file: it was decrypted, but it is no handoff of tapwave (line {line} is not as a handoff has it); decrypt it with age to see what it is"
    )]
    NotHandoff {
        /// The line of the plaintext, counted from 1.
        line: u64,
    },
    /// The caller stopped.
    #[error(transparent)]
    Stopped(E),
}

/// Opens a handoff file or a sealed row, binary or armoured, and passes each row to `each`, whose
/// error comes back as [`OpenError::Stopped`].
///
/// Memory does not grow with the rows. A row is passed on as soon as its chunk of 64 KiB is
/// authenticated, so it is genuine even if an error follows. That the file is complete is known
/// only when this returns.
pub fn open<E>(
    reader: impl Read,
    identities: &Identities,
    mut each: impl FnMut(&OpenedRow) -> Result<(), E>,
) -> Result<(), OpenError<E>> {
    let mut input = BufReader::new(Bounded::new(reader, limits::MAX_HANDOFF_BYTES));
    if !is_age(input.fill_buf().map_err(read_error)?) {
        return Err(OpenError::NotAge);
    }
    let file = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(input))
        .map_err(decrypt_error)?;
    let plain = file.decrypt(identities.iter()).map_err(decrypt_error)?;
    let mut rows = Rows::new(plain);
    let mut row = OpenedRow { text: Wiped::with_capacity(1024), ends: Vec::new() };
    let header = rows.next(&mut row).map_err(parse_error)?;
    if !header
        || !(0..row.ends.len().max(COLUMNS.len()))
            .all(|at| row.field(at) == COLUMNS.get(at).copied())
    {
        return Err(OpenError::NotHandoff { line: 1 });
    }
    while rows.next(&mut row).map_err(parse_error)? {
        if !row.is_well_formed() {
            return Err(OpenError::NotHandoff { line: rows.line });
        }
        each(&row).map_err(OpenError::Stopped)?;
    }
    Ok(())
}

/// Reads the first row of a plaintext without a header, as the spool keeps it.
pub(super) fn first_row(plain: impl Read) -> Option<OpenedRow> {
    let mut row = OpenedRow { text: Wiped::with_capacity(1024), ends: Vec::new() };
    let read = Rows::new(plain).next(&mut row).unwrap_or(false);
    (read && row.is_well_formed()).then_some(row)
}

impl OpenedRow {
    #[must_use]
    pub fn user_principal_name(&self) -> &str {
        self.at(0)
    }

    #[must_use]
    pub fn display_name(&self) -> &str {
        self.at(1)
    }

    /// When the pass begins to work; empty if Graph did not say.
    #[must_use]
    pub fn start(&self) -> &str {
        self.at(3)
    }

    #[must_use]
    pub fn lifetime_minutes(&self) -> Option<u32> {
        self.at(4).parse().ok()
    }

    #[must_use]
    pub fn is_one_time(&self) -> Option<bool> {
        self.at(5).parse().ok()
    }

    #[must_use]
    pub fn method_id(&self) -> &str {
        self.at(6)
    }

    #[must_use]
    pub fn is_for(&self, upn: &Upn) -> bool {
        self.user_principal_name().to_lowercase() == upn.key()
    }

    pub fn fingerprint(&self) -> Fingerprint {
        let mut whole = Sha256::new();
        for column in 0..COLUMNS.len() {
            let field = self.at(column);
            whole.update((field.len() as u64).to_le_bytes());
            whole.update(field);
        }
        let person = Sha256::digest(self.user_principal_name().to_lowercase());
        Fingerprint { person: half(&person.into()), row: half(&whole.finalize().into()) }
    }

    pub(super) fn pass(&self) -> &str {
        self.at(2)
    }

    /// See [`Pass::reveal`](super::Pass::reveal).
    pub fn reveal(&self) -> &str {
        self.pass()
    }

    pub(super) fn lifetime_text(&self) -> &str {
        self.at(4)
    }

    pub(super) fn one_time_text(&self) -> &str {
        self.at(5)
    }

    fn at(&self, column: usize) -> &str {
        self.field(column).unwrap_or_default()
    }

    fn field(&self, column: usize) -> Option<&str> {
        let end = *self.ends.get(column)?;
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        std::str::from_utf8(&self.text[start..end]).ok()
    }

    /// Whether every field is one that sealing writes.
    fn is_well_formed(&self) -> bool {
        let empty_or = |text: &str, good: bool| text.is_empty() || good;
        self.ends.len() == COLUMNS.len()
            && (0..COLUMNS.len()).all(|column| self.field(column).is_some())
            && !self.user_principal_name().is_empty()
            && !self.pass().is_empty()
            && empty_or(self.start(), self.start().parse::<Timestamp>().is_ok())
            && empty_or(self.at(4), self.lifetime_minutes().is_some())
            && empty_or(self.at(5), self.is_one_time().is_some())
    }
}

/// A CSV reader for what sealing writes. The crate csv would keep copies of the plaintext that it
/// does not wipe.
struct Rows<R> {
    input: R,
    block: zeroize::Zeroizing<[u8; 4096]>,
    read: usize,
    taken: usize,
    /// Where the latest row begins, counted from 1.
    line: u64,
    /// Lines read so far.
    lines: u64,
}

enum ParseError {
    Io(io::Error),
    Shape { line: u64 },
}

enum FieldState {
    /// At the beginning of a field, or in one without quotes.
    Plain,
    Quoted,
    /// After a quote in a quoted field: its end, or the first of two.
    Quote,
}

impl<R: Read> Rows<R> {
    fn new(input: R) -> Self {
        let block = zeroize::Zeroizing::new([0; 4096]);
        Self { input, block, read: 0, taken: 0, line: 0, lines: 0 }
    }

    /// Reads one row into `row`; false at the end of the file.
    fn next(&mut self, row: &mut OpenedRow) -> Result<bool, ParseError> {
        row.text.clear();
        row.ends.clear();
        self.line = self.lines + 1;
        let mut state = FieldState::Plain;
        let mut started = false;
        while let Some(byte) = self.byte()? {
            let field_start = row.ends.last().copied().unwrap_or(0);
            if row.text.len() - field_start > limits::MAX_FIELD_BYTES {
                return Err(self.malformed());
            }
            started = true;
            self.lines += u64::from(byte == b'\n');
            state = match (state, byte) {
                (FieldState::Quoted, b'"') => FieldState::Quote,
                (FieldState::Quoted, byte) | (FieldState::Quote, byte @ b'"') => {
                    row.text.push(&[byte]);
                    FieldState::Quoted
                }
                (FieldState::Plain | FieldState::Quote, b',') => {
                    self.end_field(row)?;
                    FieldState::Plain
                }
                (FieldState::Plain | FieldState::Quote, b'\n') => {
                    self.end_field(row)?;
                    return Ok(true);
                }
                // Sealing quotes a field as a whole, and every carriage return.
                (FieldState::Plain, b'"') if row.text.len() == field_start => FieldState::Quoted,
                (FieldState::Plain, b'"' | b'\r') | (FieldState::Quote, _) => {
                    return Err(self.malformed());
                }
                (FieldState::Plain, byte) => {
                    row.text.push(&[byte]);
                    FieldState::Plain
                }
            };
        }
        // Sealing ends every row with a line feed.
        if started { Err(self.malformed()) } else { Ok(false) }
    }

    fn end_field(&self, row: &mut OpenedRow) -> Result<(), ParseError> {
        if row.ends.len() == COLUMNS.len() {
            return Err(self.malformed());
        }
        row.ends.push(row.text.len());
        Ok(())
    }

    fn malformed(&self) -> ParseError {
        ParseError::Shape { line: self.line }
    }

    fn byte(&mut self) -> Result<Option<u8>, ParseError> {
        while self.taken == self.read {
            match self.input.read(&mut self.block[..]) {
                Ok(0) => return Ok(None),
                Ok(read) => (self.read, self.taken) = (read, 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ParseError::Io(error)),
            }
        }
        self.taken += 1;
        Ok(Some(self.block[self.taken - 1]))
    }
}

/// Fails with [`io::ErrorKind::FileTooLarge`] when the input is longer than allowed.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) const fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

fn read_error<E>(error: io::Error) -> OpenError<E> {
    if let Some(failed) = PluginFailed::inside(&error) {
        return OpenError::Plugin(failed.to_string());
    }
    match error.kind() {
        io::ErrorKind::FileTooLarge => OpenError::TooLarge,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => OpenError::Damaged,
        _ => OpenError::Read(error),
    }
}

fn parse_error<E>(error: ParseError) -> OpenError<E> {
    match error {
        ParseError::Io(error) => read_error(error),
        ParseError::Shape { line } => OpenError::NotHandoff { line },
    }
}

fn decrypt_error<E>(error: age::DecryptError) -> OpenError<E> {
    use age::DecryptError as D;
    match error {
        D::Io(error) => read_error(error),
        D::NoMatchingKeys => OpenError::NoMatch,
        D::UnknownFormat => OpenError::Newer,
        _ => OpenError::Damaged,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::entry::tests::{entry, set};
    use super::super::{NoPrompts, Prompts};
    use super::*;
    use age::secrecy::ExposeSecret;
    use proptest::prelude::*;
    use std::convert::Infallible;
    use std::sync::Arc;

    pub(crate) fn identities(key: &age::x25519::Identity) -> Identities {
        let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
        let mut all = Identities::new();
        let text = key.to_string();
        all.add_file("key", text.expose_secret().as_bytes(), &prompts).expect("an identity");
        all
    }

    type Seen = Vec<(String, String, String)>;

    fn opened(file: &[u8], with: &Identities) -> Result<Seen, OpenError<Infallible>> {
        let mut seen = Vec::new();
        open(file, with, |row| {
            let text = |text: &str| text.to_owned();
            seen.push((
                text(row.user_principal_name()),
                text(row.display_name()),
                text(row.pass()),
            ));
            Ok(())
        })
        .map(|()| seen)
    }

    fn sealed_text(text: &[u8]) -> (Vec<u8>, Identities) {
        let key = age::x25519::Identity::generate();
        (age::encrypt(&key.to_public(), text).expect("sealed"), identities(&key))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whatever_is_sealed_opens_unchanged(
            code in ".{1,40}", name in proptest::option::of("(.|[\r\n\",;=+@-]){0,60}"),
            local in "[a-zA-Z0-9'#_.+-]{1,20}",
        ) {
            let (set, key) = set("all");
            let upn = format!("{local}@contoso.example");
            let sealed = set.seal(entry(&upn, name.as_deref(), &code)).expect("sealed");
            let seen = opened(sealed.as_bytes(), &identities(&key)).expect("opened");
            prop_assert_eq!(seen, [(upn, name.unwrap_or_default(), code)]);
        }

        #[test]
        fn a_changed_byte_is_an_error(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let (set, key) = set("all");
            let mut sealed = set.seal(entry("a@b.c", None, "code")).expect("sealed").into_bytes();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(opened(&sealed, &identities(&key)).is_err());
        }

        #[test]
        fn a_truncated_file_is_an_error(at in any::<prop::sample::Index>()) {
            let (set, key) = set("all");
            let sealed = set.seal(entry("a@b.c", None, "code")).expect("sealed").into_bytes();
            prop_assert!(opened(&sealed[..at.index(sealed.len())], &identities(&key)).is_err());
        }

        #[test]
        fn no_plaintext_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut plain = super::super::entry::header().into_bytes();
            plain.extend(text);
            let mut rows = Rows::new(&plain[..]);
            let mut row = OpenedRow { text: Wiped::with_capacity(8), ends: Vec::new() };
            while matches!(rows.next(&mut row), Ok(true)) {
                prop_assert!(row.ends.len() <= COLUMNS.len());
                let _ = row.is_well_formed();
            }
        }
    }

    #[test]
    fn every_failure_has_its_own_error() {
        let (set, key) = set("all");
        let sealed = set.seal(entry("a@b.c", None, "code")).expect("sealed").into_bytes();
        let stranger = identities(&age::x25519::Identity::generate());
        let ours = identities(&key);
        assert!(matches!(opened(&sealed, &stranger), Err(OpenError::NoMatch)));
        assert!(matches!(opened(&sealed, &Identities::new()), Err(OpenError::NoMatch)));
        assert!(matches!(opened(b"userPrincipalName,", &ours), Err(OpenError::NotAge)));
        assert!(matches!(opened(b"", &ours), Err(OpenError::NotAge)));
        assert!(matches!(opened(&sealed[..sealed.len() - 1], &ours), Err(OpenError::Damaged)));
        let more = [&sealed[..], b"x"].concat();
        assert!(matches!(opened(&more, &ours), Err(OpenError::Damaged)));
        let newer = String::from_utf8_lossy(&sealed).replace("org/v1", "org/v2").into_bytes();
        assert!(matches!(opened(&newer, &ours), Err(OpenError::Newer)));
    }

    #[test]
    fn something_else_in_an_age_file_is_no_handoff() {
        let header = super::super::entry::header();
        let row = "a@b.c,,code,,60,true,id";
        for (text, line) in [
            (String::new(), 1),
            ("hello".to_owned(), 1),
            ("userPrincipalName,secret\na@b.c,x\n".to_owned(), 1),
            (header.replace("methodId", "methodId,more"), 1),
            (format!("{header}{row}"), 2),
            (format!("{header}{row}\n{row},more\n"), 3),
            (format!("{header}a@b.c,\"two\nlines\",code,,60,true,id\n{row},more\n"), 4),
            (format!("{header}a@b.c,,,,60,true,id\n"), 2),
            (format!("{header}a@b.c,,code,,sixty,true,id\n"), 2),
            (format!("{header}a@b.c,,code,,60,yes,id\n"), 2),
            (format!("{header}a@b.c,,code,noon,60,true,id\n"), 2),
            (format!("{header}a@b.c,,\"code\"x,,60,true,id\n"), 2),
            (format!("{header}a@b.c,{},code,,60,true,id\n", "x".repeat(40_000)), 2),
        ] {
            let (sealed, ours) = sealed_text(text.as_bytes());
            match opened(&sealed, &ours) {
                Err(OpenError::NotHandoff { line: at }) => assert_eq!(at, line, "{text:.200}"),
                other => panic!("{text:.200}: {:?}", other.map(|seen| seen.len())),
            }
        }
        let (sealed, ours) = sealed_text(header.as_bytes());
        assert_eq!(opened(&sealed, &ours).expect("no rows"), []);
    }

    #[test]
    fn a_file_of_many_chunks_opens_and_a_truncated_one_is_an_error() {
        let mut text = super::super::entry::header();
        for row in 0..3_000 {
            let name = "n".repeat(row % 97);
            text.extend([format!("u{row}@b.c,\"{name}\"\",\",\"c,{row}\",,60,false,id\n")]);
        }
        let (sealed, ours) = sealed_text(text.as_bytes());
        assert!(sealed.len() > 3 * 64 * 1024, "several chunks of age");
        let seen = opened(&sealed, &ours).expect("opened");
        assert_eq!(seen.len(), 3_000);
        for (row, (upn, name, code)) in seen.into_iter().enumerate() {
            assert_eq!((upn, code), (format!("u{row}@b.c"), format!("c,{row}")));
            assert_eq!(name, format!("{}\",", "n".repeat(row % 97)));
        }

        // Cut exactly between two chunks: what is left is genuine but not complete.
        let payload = sealed.len() - text.len() - 16 * text.len().div_ceil(64 * 1024);
        let cut = &sealed[..payload + 2 * (64 * 1024 + 16)];
        let mut rows = 0;
        let result = open(cut, &ours, |_| {
            rows += 1;
            Ok::<(), Infallible>(())
        });
        assert!(matches!(result, Err(OpenError::Damaged)));
        assert!((500..3_000).contains(&rows), "{rows}");
    }

    #[test]
    fn an_armoured_copy_opens_too() {
        let key = age::x25519::Identity::generate();
        let text = format!("{}a@b.c,,+drkzqAD,,,,\n", super::super::entry::header());
        let armored = age::encrypt_and_armor(&key.to_public(), text.as_bytes()).expect("sealed");
        let seen = opened(armored.as_bytes(), &identities(&key)).expect("opened");
        assert_eq!(seen[0].2, "+drkzqAD");
    }

    #[test]
    fn an_input_that_is_too_large_is_refused_while_reading() {
        let mut bounded = Bounded { inner: io::repeat(b'a'), left: 10 };
        let error = io::copy(&mut bounded, &mut io::sink()).expect_err("too large");
        assert!(matches!(read_error::<Infallible>(error), OpenError::TooLarge));
    }

    #[test]
    fn a_user_is_found_in_any_case_and_the_caller_can_stop() {
        let (set, key) = set("all");
        let sealed = set.seal(entry("Ada@Contoso.example", None, "code")).expect("sealed");
        let (ada, bob) =
            ("ADA@contoso.EXAMPLE".parse().unwrap(), "bob@contoso.example".parse().unwrap());
        let result = open(sealed.as_bytes(), &identities(&key), |row| {
            assert!(row.is_for(&ada) && !row.is_for(&bob));
            assert_eq!((row.lifetime_minutes(), row.is_one_time()), (Some(60), Some(true)));
            Err(io::Error::other("enough"))
        });
        assert!(matches!(result, Err(OpenError::Stopped(_))));
    }
}
