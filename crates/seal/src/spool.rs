//! Promises that this process's rows reach the handoff files without plaintext on disk. Must never
//! hold more than one row, or one chunk of age, of it in memory.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::age_file::{self, one_line};
use super::entry::{Ciphertext, Entry, SealError, header, header_length, sealed_text};
use super::ephemeral::EphemeralKey;
use super::handoff::{HandoffError, TakenNames, UnfinishedFile, safe_name, unwritten};
use super::opened::{OpenedRow, first_row};
use super::recipients::RecipientSet;
use tapwave_core::ids::Line;

/// The rows of this process, on their way into the handoff files.
///
/// Each row is a small age file in an unnamed temporary file, encrypted to a random key that exists
/// in this value alone. Nobody can read it after the process has ended, and no age stream with its
/// 64 KiB of plaintext stays open while passes are issued. Memory holds 24 bytes per row.
pub struct Spool {
    key: EphemeralKey,
    folder: PathBuf,
    state: Mutex<SpoolState>,
}

struct SpoolState {
    file: File,
    end: u64,
    index: Vec<SpoolEntry>,
}

/// Where one row is in the spool's file.
#[derive(Clone, Copy)]
struct SpoolEntry {
    line: u64,
    offset: u64,
    set: u32,
    length: u32,
}

const _: () = assert!(size_of::<SpoolEntry>() <= 32, "the index is most of the spool's memory");

/// A row for the handoff file, encrypted to the spool's key. It goes to [`Spool::keep`] once the
/// ledger has the row's [`Ciphertext`].
#[must_use = "a row that is not kept is missing from the handoff file"]
pub struct Spooled {
    set: u32,
    line: Line,
    bytes: Vec<u8>,
}

/// A finished handoff file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffFile {
    pub path: PathBuf,
    /// The number of its set of recipients in the run.
    pub set: u32,
    /// The lines of the wave that it holds, in order.
    pub lines: Vec<Line>,
}

impl RecipientSet {
    /// Seals a row to the set for the ledger, and to the spool's key for the handoff file of `set`,
    /// the set's number in the run.
    pub fn seal_and_spool(
        &self,
        entry: Entry,
        spool: &Spool,
        set: u32,
        line: Line,
    ) -> Result<(Ciphertext, Spooled), SealError> {
        let text = sealed_text(&entry);
        drop(entry);
        let sealed = self.encrypt(&text).map_err(|error| SealError::new(self, &error))?;
        let bytes = spool
            .encrypt(&text[header_length()..])
            .map_err(|error| SealError::new(self, &error))?;
        Ok((Ciphertext::new(sealed), Spooled { set, line, bytes }))
    }
}

impl Spool {
    /// Makes an empty spool with an unnamed file in `folder`.
    pub fn create(folder: &Path) -> Result<Self, HandoffError> {
        let file = tempfile::tempfile_in(folder).map_err(spool_error("make", folder))?;
        let key = EphemeralKey::generate().map_err(spool_error("make", folder))?;
        let state = Mutex::new(SpoolState { file, end: 0, index: Vec::new() });
        Ok(Self { key, folder: folder.to_owned(), state })
    }

    /// Adds a row whose ciphertext the ledger has. Of two rows for one line the later counts: the
    /// first pass was lost. On an error this row is missing and the others stay.
    pub fn keep(&self, spooled: Spooled) -> Result<(), HandoffError> {
        let Spooled { set, line, bytes } = spooled;
        let failed = spool_error("write", &self.folder);
        let length =
            u32::try_from(bytes.len()).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        let mut state = self.state();
        let offset = state.end;
        // After a write that failed half-way, the next one begins at the same place.
        state
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| state.file.write_all(&bytes))
            .map_err(failed)?;
        state.end += u64::from(length);
        state.index.push(SpoolEntry { line: line.0, offset, set, length });
        Ok(())
    }

    /// Decrypts a row that this process kept, to render its mail.
    pub fn open(&self, line: Line) -> Result<OpenedRow, HandoffError> {
        let spoiled = || HandoffError::Spoiled { line };
        let mut row = Vec::new();
        {
            let mut state = self.state();
            // Mail follows sealing closely: the row is near the end.
            let entry = state.index.iter().rev().find(|entry| entry.line == line.0).copied();
            read_entry(&mut state.file, entry.ok_or_else(spoiled)?, &mut row, &self.folder)?;
        }
        first_row(decrypted(&row, &self.key).ok_or_else(spoiled)?).ok_or_else(spoiled)
    }

    /// Leaves a row out of the handoff, because its pass was deleted after all.
    pub fn forget(&self, line: Line) {
        self.state().index.retain(|entry| entry.line != line.0);
    }

    /// Writes one age file per set that has rows, ordered by line, into `folder`: `LABEL.age`,
    /// or `LABEL-2.age` and so on where that name is taken. `sets` are the run's sets by their
    /// numbers. `written` is called for each file as soon as it is whole and durable, so that an
    /// error in a later one, of which nothing is left, does not lose it.
    pub fn finish<S: Borrow<RecipientSet>>(
        self,
        sets: &[S],
        folder: &Path,
        mut written: impl FnMut(HandoffFile),
    ) -> Result<(), HandoffError> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let index = in_order(std::mem::take(&mut state.index));
        let mut names = TakenNames::of(folder)?;
        for rows in index.chunk_by(|one, two| one.set == two.set) {
            let set = rows[0].set;
            let to = sets.get(set as usize).ok_or(HandoffError::NoSet { set })?.borrow();
            let file = UnfinishedFile::new(folder)?;
            write_rows(file.file(), &mut state.file, &self.key, to, rows, folder)?;
            let path = file.publish(&safe_name(to.label()), "age", &mut names)?;
            let lines = rows.iter().map(|entry| Line(entry.line)).collect();
            written(HandoffFile { path, set, lines });
        }
        Ok(())
    }

    fn encrypt(&self, row: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        let encryptor = age::Encryptor::with_recipients(iter::once(&self.key as _))?;
        age_file::encrypt(encryptor, row)
    }

    fn state(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sorts by set and line; of two passes for one line the later stays.
fn in_order(mut index: Vec<SpoolEntry>) -> Vec<SpoolEntry> {
    index.sort_unstable_by_key(|entry| (entry.line, std::cmp::Reverse(entry.offset)));
    index.dedup_by_key(|entry| entry.line);
    // In place: a stable sort would need half as much memory again.
    index.sort_unstable_by_key(|entry| (entry.set, entry.line));
    index
}

fn write_rows(
    target: &File,
    spool: &mut File,
    key: &EphemeralKey,
    to: &RecipientSet,
    rows: &[SpoolEntry],
    folder: &Path,
) -> Result<(), HandoffError> {
    let encryptor = to.encryptor().map_err(|error| HandoffError::Seal {
        label: to.label().to_owned(),
        reason: one_line(&error.to_string()),
    })?;
    let target = BufWriter::with_capacity(128 * 1024, target);
    let mut sealed = encryptor.wrap_output(target).map_err(unwritten(folder))?;
    sealed.write_all(header().as_bytes()).map_err(unwritten(folder))?;
    let mut row = Vec::new();
    for entry in rows {
        let spoiled = || HandoffError::Spoiled { line: Line(entry.line) };
        read_entry(spool, *entry, &mut row, folder)?;
        // One chunk: the reader's own buffer holds the plaintext and wipes it.
        let mut plain = decrypted(&row, key).ok_or_else(spoiled)?;
        copy_wiping(&mut plain, &mut sealed).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => spoiled(),
            _ => unwritten(folder)(error),
        })?;
    }
    sealed.finish().and_then(|mut target| target.flush()).map_err(unwritten(folder))
}

fn read_entry(
    spool: &mut File,
    entry: SpoolEntry,
    row: &mut Vec<u8>,
    folder: &Path,
) -> Result<(), HandoffError> {
    row.resize(entry.length as usize, 0);
    spool
        .seek(SeekFrom::Start(entry.offset))
        .and_then(|_| spool.read_exact(row))
        .map_err(spool_error("read", folder))
}

fn decrypted<'a>(row: &'a [u8], key: &EphemeralKey) -> Option<impl Read + use<'a>> {
    age::Decryptor::new_buffered(row).and_then(|file| file.decrypt(iter::once(key as _))).ok()
}

/// `io::copy` through a buffer that is wiped.
fn copy_wiping(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = zeroize::Zeroizing::new([0; 2048]);
    loop {
        match from.read(&mut block[..]) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&block[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn spool_error<'a>(
    doing: &'static str,
    folder: &'a Path,
) -> impl Fn(io::Error) -> HandoffError + Copy + use<'a> {
    move |source| HandoffError::Spool { doing, folder: folder.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::entry::tests::{entry, set};
    use super::*;

    fn add(spool: &Spool, set: &RecipientSet, number: u32, line: u64, code: &str) {
        let upn = format!("user{line}@contoso.example");
        let (_, spooled) =
            set.seal_and_spool(entry(&upn, None, code), spool, number, Line(line)).expect("sealed");
        spool.keep(spooled).expect("kept");
    }

    fn finished(spool: Spool, sets: &[RecipientSet], folder: &Path) -> Vec<HandoffFile> {
        let mut files = Vec::new();
        spool.finish(sets, folder, |file| files.push(file)).expect("finished");
        files
    }

    fn codes(path: &Path, identity: &age::x25519::Identity) -> Vec<String> {
        let plain = age::decrypt(identity, &fs::read(path).expect("a file")).expect("opened");
        let mut rows = csv::Reader::from_reader(&plain[..]);
        assert_eq!(rows.headers().expect("a header"), super::super::entry::COLUMNS.as_slice());
        rows.records().map(|row| row.expect("a row")[2].to_owned()).collect()
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_set_gets_its_rows_in_the_order_of_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let ((one, for_one), (two, for_two)) = (set("Sales"), set("IT"));
        let spool = Spool::create(folder.path()).expect("a spool");
        add(&spool, &one, 0, 9, "nine");
        add(&spool, &two, 1, 3, "three");
        add(&spool, &one, 0, 2, "two, stale");
        add(&spool, &one, 0, 5, "five");
        add(&spool, &one, 0, 2, "=2+2");
        spool.forget(Line(5));
        let files = finished(spool, &[one, two], folder.path());
        assert_eq!(files.iter().map(|file| file.set).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(files[0].lines, [Line(2), Line(9)]);
        assert_eq!(codes(&files[0].path, &for_one), ["=2+2", "nine"]);
        assert_eq!(codes(&files[1].path, &for_two), ["three"]);
        assert!(age::decrypt(&for_one, &fs::read(&files[1].path).expect("a file")).is_err());
        assert_eq!(listing(folder.path()), ["IT.age", "Sales.age"]);
    }

    #[test]
    fn an_existing_file_is_never_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("ALL.age"), "somebody's").expect("written");
        fs::write(folder.path().join("all-2.age"), "somebody's").expect("written");
        for expected in ["all-3.age", "all-4.age"] {
            let (all, identity) = set("all");
            let spool = Spool::create(folder.path()).expect("a spool");
            add(&spool, &all, 0, 2, "code");
            let files = finished(spool, &[all], folder.path());
            assert_eq!(files[0].path, folder.path().join(expected));
            assert_eq!(codes(&files[0].path, &identity), ["code"]);
        }
        assert_eq!(fs::read(folder.path().join("ALL.age")).expect("a file"), b"somebody's");
        assert_eq!(fs::read(folder.path().join("all-2.age")).expect("a file"), b"somebody's");
    }

    #[test]
    fn sets_that_differ_in_case_alone_get_two_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let ((one, _), (two, _)) = (set("sales"), set("SALES"));
        let spool = Spool::create(folder.path()).expect("a spool");
        add(&spool, &one, 0, 2, "a");
        add(&spool, &two, 1, 3, "b");
        finished(spool, &[one, two], folder.path());
        assert_eq!(listing(folder.path()), ["SALES-2.age", "sales.age"]);
    }

    #[test]
    fn nothing_readable_or_half_done_is_on_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let (all, _) = set("all");
        let spool = Spool::create(folder.path()).expect("a spool");
        add(&spool, &all, 7, 2, "PLAINTEXT-CODE");
        {
            let mut state = spool.state.lock().expect("the spool");
            let mut bytes = Vec::new();
            state.file.rewind().expect("rewound");
            state.file.read_to_end(&mut bytes).expect("read");
            assert!(!bytes.is_empty());
            assert!(!bytes.windows(14).any(|part| part == b"PLAINTEXT-CODE"));
            assert!(!bytes.windows(5).any(|part| part == b"user2"));
        }
        // The set's number is unknown: the error leaves no file behind.
        let error = spool.finish(&[all], folder.path(), |_| {}).expect_err("no such set");
        assert!(matches!(error, HandoffError::NoSet { set: 7 }), "{error}");
        assert_eq!(listing(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_spoiled_spool_is_noticed_and_names_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let (all, _) = set("all");
        let spool = Spool::create(folder.path()).expect("a spool");
        add(&spool, &all, 0, 2, "code");
        {
            let mut state = spool.state.lock().expect("the spool");
            state.file.seek(SeekFrom::End(-1)).expect("sought");
            state.file.write_all(b"\0").expect("written");
        }
        let error = spool.finish(&[all], folder.path(), |_| {}).expect_err("spoiled");
        assert!(matches!(error, HandoffError::Spoiled { line: Line(2) }), "{error}");
        assert_eq!(listing(folder.path()), Vec::<String>::new());
    }

    #[cfg(unix)]
    #[test]
    fn a_handoff_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let (all, _) = set("all");
        let spool = Spool::create(folder.path()).expect("a spool");
        add(&spool, &all, 0, 2, "code");
        let files = finished(spool, &[all], folder.path());
        let mode = fs::metadata(&files[0].path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
