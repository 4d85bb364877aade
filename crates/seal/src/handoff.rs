//! Promises handoff files that are whole or not there, never over an existing file, and that
//! any age tool reads. Must never hold plaintext on disk, nor more than one chunk of it in
//! memory.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::entry::{Spooled, header};
use super::fleeting::FleetingKey;
use super::opened::{OpenedRow, first_row};
use super::recipients::{self, RecipientSet, one_line};
use tapwave_core::ids::Line;
use tapwave_core::limits;

/// How the name of a file that is not whole yet begins and ends.
const UNFINISHED: &str = ".unfinished-";
/// See [`UNFINISHED`].
const UNFINISHED_END: &str = ".tmp";

/// Gathers this process's rows for the handoff files.
///
/// Each row is a small age file to a random key that lives in this value alone, in a temporary
/// file without a name: after the process, nobody can read it, and no age stream with its 64 KiB
/// of plaintext stays open while passes are issued. Memory holds 24 bytes per row.
pub struct Spool {
    key: FleetingKey,
    folder: PathBuf,
    kept: Mutex<SpoolState>,
}

struct SpoolState {
    file: File,
    end: u64,
    index: Vec<SpoolPlace>,
}

/// Where one row stands in the spool's file.
#[derive(Clone, Copy)]
struct SpoolPlace {
    line: u64,
    offset: u64,
    set: u32,
    length: u32,
}

const _: () = assert!(size_of::<SpoolPlace>() <= 32, "the index is most of what the spool holds");

/// A finished handoff file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffFile {
    pub path: PathBuf,
    /// The number of its set of recipients in the run.
    pub set: u32,
    /// The lines of the wave that it holds, in order.
    pub lines: Vec<Line>,
}

/// Why a handoff file could not be made. The sealed rows are in the ledger all the same.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// The spool could not be made, written or read.
    #[error("failed to {doing} the handoff's spool in {}; free some space or mend the disk", folder.display())]
    Spool {
        /// What was being done.
        doing: &'static str,
        /// The folder the spool's file is in.
        folder: PathBuf,
        source: io::Error,
    },
    /// A row of the spool does not decrypt any more.
    #[error(
        "failed to read line {line} back from the handoff's spool, which has changed on disk; resume the run to lay the row down from the ledger"
    )]
    Spoiled { line: Line },
    /// A row that is to be laid down is gone from the ledger.
    #[error("failed to write line {line} to the handoff: its sealed copy is gone from the ledger")]
    Gone { line: Line },
    /// A row names a set that is not there.
    #[error("failed to write the handoff of set {set}, which the run does not know")]
    NoSet { set: u32 },
    /// A file could not be written.
    #[error("failed to write a handoff file in {}; free some space, or check that the folder may be written to", folder.display())]
    Write { folder: PathBuf, source: io::Error },
    /// Encryption, or a plugin, failed.
    #[error(
        "failed to seal the handoff for {label:?}: {reason}; check the key, and its plugin if it has one"
    )]
    Seal {
        label: String,
        /// What age or the plugin said.
        reason: String,
    },
}

impl Spool {
    /// Makes an empty spool, whose file is in `folder` without a name.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(folder: &Path) -> Result<Self, HandoffError> {
        let unmade =
            |source| HandoffError::Spool { doing: "make", folder: folder.to_owned(), source };
        let file = tempfile::tempfile_in(folder).map_err(unmade)?;
        let key = FleetingKey::generate().map_err(unmade)?;
        let kept = Mutex::new(SpoolState { file, end: 0, index: Vec::new() });
        Ok(Self { key, folder: folder.to_owned(), kept })
    }

    /// Adds a row whose ciphertext the ledger has. A line that is kept again, after its first
    /// pass was lost, stands with its last pass.
    ///
    /// # Errors
    /// The file cannot be written; the row is not kept then, and the others stay.
    pub fn keep(&self, spooled: Spooled) -> Result<(), HandoffError> {
        let Spooled { set, line, bytes } = spooled;
        let unkept =
            |source| HandoffError::Spool { doing: "write", folder: self.folder.clone(), source };
        let length =
            u32::try_from(bytes.len()).map_err(|_| unkept(io::ErrorKind::FileTooLarge.into()))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = kept.end;
        // After a write that failed half-way the next one begins at the same place.
        kept.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| kept.file.write_all(&bytes))
            .map_err(unkept)?;
        kept.end += u64::from(length);
        kept.index.push(SpoolPlace { line: line.0, offset, set, length });
        Ok(())
    }

    /// Opens a row that was kept in this process, for the letter that is being rendered.
    ///
    /// # Errors
    /// [`HandoffError`], if it was not kept or cannot be read.
    pub fn open(&self, line: Line) -> Result<OpenedRow, HandoffError> {
        let spoiled = || HandoffError::Spoiled { line };
        let unread =
            |source| HandoffError::Spool { doing: "read", folder: self.folder.clone(), source };
        let mut row = Vec::new();
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            // Mail follows sealing closely: the row stands near the end.
            let place = kept.index.iter().rev().find(|place| place.line == line.0).copied();
            let place = place.ok_or_else(spoiled)?;
            row.resize(place.length as usize, 0);
            kept.file
                .seek(SeekFrom::Start(place.offset))
                .and_then(|_| kept.file.read_exact(&mut row))
                .map_err(unread)?;
        }
        let plain = age::Decryptor::new_buffered(&row[..])
            .and_then(|file| file.decrypt(iter::once(&self.key as _)))
            .map_err(|_| spoiled())?;
        first_row(plain).ok_or_else(spoiled)
    }

    /// Leaves a row out of the handoff, because its pass was deleted after all.
    pub fn forget(&self, line: Line) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.index.retain(|place| place.line != line.0);
    }

    /// Writes one age file per set that has rows, ordered by line, into `folder`: `LABEL.age`,
    /// or `LABEL-2.age` and so on where that name is taken. `sets` are the run's sets by their
    /// numbers. `written` hears of each file as soon as it is whole and durable, so that an
    /// error in a later one does not lose it.
    ///
    /// # Errors
    /// The first file that could not be made; nothing of it is left.
    pub fn finish<S: Borrow<RecipientSet>>(
        self,
        sets: &[S],
        folder: &Path,
        mut written: impl FnMut(HandoffFile),
    ) -> Result<(), HandoffError> {
        let mut kept = self.kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        let index = in_order(std::mem::take(&mut kept.index));
        let mut names = TakenNames::of(folder)?;
        for rows in index.chunk_by(|one, two| one.set == two.set) {
            let set = rows[0].set;
            let to = sets.get(set as usize).ok_or(HandoffError::NoSet { set })?.borrow();
            let draft = UnfinishedFile::new(folder)?;
            write_rows(draft.file(), &mut kept.file, &self.key, to, rows, folder)?;
            let path = draft.publish(&safe_name(to.label()), "age", &mut names)?;
            let lines = rows.iter().map(|place| Line(place.line)).collect();
            written(HandoffFile { path, set, lines });
        }
        Ok(())
    }

    /// Encrypts a row to the spool's own key.
    pub(super) fn encrypt(&self, row: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        let encryptor = age::Encryptor::with_recipients(iter::once(&self.key as _))?;
        recipients::encrypt(encryptor, row)
    }
}

/// Removes what a process that died while it wrote a handoff file left of it. Only for whoever
/// holds the run's lock: what another process is writing looks the same.
///
/// # Errors
/// The folder cannot be read, or a file not removed.
pub fn remove_unfinished(folder: &Path) -> Result<(), HandoffError> {
    for entry in fs::read_dir(folder).map_err(unwritten(folder))? {
        let entry = entry.map_err(unwritten(folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && name.starts_with(UNFINISHED) && name.ends_with(UNFINISHED_END) {
            fs::remove_file(entry.path()).map_err(unwritten(folder))?;
        }
    }
    Ok(())
}

/// By set and line; of two passes for one line, the later.
fn in_order(mut index: Vec<SpoolPlace>) -> Vec<SpoolPlace> {
    index.sort_unstable_by_key(|place| (place.line, std::cmp::Reverse(place.offset)));
    index.dedup_by_key(|place| place.line);
    // In place: a stable sort would need half as much memory again.
    index.sort_unstable_by_key(|place| (place.set, place.line));
    index
}

fn write_rows(
    target: &File,
    spool: &mut File,
    key: &FleetingKey,
    to: &RecipientSet,
    rows: &[SpoolPlace],
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
    for place in rows {
        row.resize(place.length as usize, 0);
        let read =
            spool.seek(SeekFrom::Start(place.offset)).and_then(|_| spool.read_exact(&mut row));
        read.map_err(|source| HandoffError::Spool {
            doing: "read",
            folder: folder.to_owned(),
            source,
        })?;
        // One chunk: the reader's own buffer holds the plaintext and wipes it.
        let mut plain = age::Decryptor::new_buffered(&row[..])
            .and_then(|file| file.decrypt(iter::once(key as _)))
            .map_err(|_| HandoffError::Spoiled { line: Line(place.line) })?;
        copy_wiping(&mut plain, &mut sealed).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                HandoffError::Spoiled { line: Line(place.line) }
            }
            _ => unwritten(folder)(error),
        })?;
    }
    sealed.finish().and_then(|mut target| target.flush()).map_err(unwritten(folder))
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

/// A file under a temporary name, which goes away unless it is published.
pub(super) struct UnfinishedFile {
    file: tempfile::NamedTempFile,
    folder: PathBuf,
}

impl UnfinishedFile {
    pub(super) fn new(folder: &Path) -> Result<Self, HandoffError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(UNFINISHED).suffix(UNFINISHED_END);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o600));
        }
        let file = builder.tempfile_in(folder).map_err(unwritten(folder))?;
        Ok(Self { file, folder: folder.to_owned() })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Makes the file durable, then gives it the first name that is free.
    pub(super) fn publish(
        self,
        stem: &str,
        extension: &str,
        names: &mut TakenNames,
    ) -> Result<PathBuf, HandoffError> {
        let Self { mut file, folder } = self;
        file.as_file().sync_all().map_err(unwritten(&folder))?;
        loop {
            let name = names.free(stem, extension);
            let path = folder.join(&name);
            match file.persist_noclobber(&path) {
                Ok(_) => {
                    sync_folder(&folder).map_err(unwritten(&folder))?;
                    return Ok(path);
                }
                Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
                    file = refused.file;
                }
                Err(refused) => return Err(unwritten(&folder)(refused.error)),
            }
        }
    }
}

/// The names in a folder, folded to lower case: a folder copied to Windows must not have two
/// files become one.
pub(super) struct TakenNames(HashSet<String>);

impl TakenNames {
    pub(super) fn of(folder: &Path) -> Result<Self, HandoffError> {
        let mut names = HashSet::new();
        for entry in fs::read_dir(folder).map_err(unwritten(folder))? {
            let entry = entry.map_err(unwritten(folder))?;
            names.insert(entry.file_name().to_string_lossy().to_lowercase());
        }
        Ok(Self(names))
    }

    /// The first of `STEM.age`, `STEM-2.age`, … that was not seen yet, for the extension `age`;
    /// it counts as seen now.
    fn free(&mut self, stem: &str, extension: &str) -> String {
        let mut part = 1;
        while !self.0.insert(numbered(stem, part, extension).to_lowercase()) {
            part += 1;
        }
        numbered(stem, part, extension)
    }

    /// Those of the same names that were seen, up to the first that was not.
    pub(super) fn taken(&self, stem: &str, extension: &str) -> impl Iterator<Item = String> {
        let names = (1..).map(move |part| numbered(stem, part, extension));
        names.take_while(|name| self.0.contains(&name.to_lowercase()))
    }
}

fn numbered(stem: &str, part: u64, extension: &str) -> String {
    match part {
        1 => format!("{stem}.{extension}"),
        _ => format!("{stem}-{part}.{extension}"),
    }
}

/// A label made safe as the stem of a file name on every system.
///
/// Windows refuses `<>:"/\|?*`, a dot or a space at the end, and the names of its old
/// devices, with any extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
pub(super) fn safe_name(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    for c in label.chars() {
        let safe = c.is_alphanumeric() || matches!(c, '_' | '.' | '@' | '+' | '-');
        match c {
            c if safe => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(name.floor_char_boundary(limits::MAX_NAME_BYTES));
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() {
        return "handoff".to_owned();
    }
    if is_device(name) { format!("set-{name}") } else { name.to_owned() }
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    if ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) {
        return true;
    }
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    // The superscript digits are device names as well.
    port.is_some_and(|digit| {
        digit.chars().count() == 1
            && digit.contains(|c: char| c.is_ascii_digit() || "¹²³".contains(c))
    })
}

/// Makes a rename in a folder durable. Windows does so by itself.
#[cfg_attr(
    not(unix),
    expect(clippy::unnecessary_wraps, reason = "the other platforms can fail here")
)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

pub(super) fn unwritten(folder: &Path) -> impl Fn(io::Error) -> HandoffError + '_ {
    move |source| HandoffError::Write { folder: folder.to_owned(), source }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(rows.headers().expect("a header"), super::super::COLUMNS.as_slice());
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
            let mut kept = spool.kept.lock().expect("the spool");
            let mut bytes = Vec::new();
            kept.file.rewind().expect("rewound");
            kept.file.read_to_end(&mut bytes).expect("read");
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
            let mut kept = spool.kept.lock().expect("the spool");
            kept.file.seek(SeekFrom::End(-1)).expect("sought");
            kept.file.write_all(b"\0").expect("written");
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

    #[test]
    fn a_label_becomes_a_name_that_every_system_takes() {
        for (label, name) in [
            ("all", "all"),
            ("München", "München"),
            ("../../etc/passwd", "etc-passwd"),
            ("a/b\\c:d*e", "a-b-c-d-e"),
            ("con", "set-con"),
            ("Nul.txt", "set-Nul.txt"),
            ("COM1", "set-COM1"),
            ("lpt²", "set-lpt²"),
            ("COM10", "COM10"),
            ("console", "console"),
            ("name. ", "name"),
            ("\u{202e}", "handoff"),
            ("", "handoff"),
        ] {
            assert_eq!(safe_name(label), name, "{label:?}");
        }
        assert!(safe_name(&"ü".repeat(200)).len() <= limits::MAX_NAME_BYTES);
    }
}
