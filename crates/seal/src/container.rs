//! Promises containers that any tar program unpacks into files that any age tool opens, and
//! that a container is read to its end or its defect is named. Must never unpack anything to a
//! disk, nor skip an entry.
//!
//! Of what an earlier process sealed, a resumed run has one age file per row, and only the
//! recipient can merge them. So the recipient gets a tar of those files. An entry is named after
//! the row's line in the wave and does not tell whose pass it is.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::age_file::is_age;
use super::entry::Ciphertext;
use super::handoff::{HandoffError, TakenNames, UnfinishedFile, safe_name, unwritten};
use super::identities::Identities;
use super::opened::{Bounded, OpenError, OpenedRow, open};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::shown;

/// The modification time of every entry, so that the same rows give the same bytes: the beginning
/// of 2000, because tar programs warn about 1970.
const ENTRY_TIME: u64 = 946_684_800;
/// A tar consists of blocks of this size, and ends with two of zeros.
const BLOCK: usize = 512;
/// Offset and text of the magic number in a tar's first block.
const MAGIC: (usize, &[u8]) = (257, b"ustar");
const TAR: &str = "tar";

/// A container that is being written for one set of recipients. Dropping it removes it, unless it
/// was finished.
pub struct Container(tar::Builder<BufWriter<UnfinishedFile>>);

impl Container {
    pub fn create(folder: &Path) -> Result<Self, HandoffError> {
        let file = UnfinishedFile::new(folder)?;
        Ok(Self(tar::Builder::new(BufWriter::with_capacity(128 * 1024, file))))
    }

    /// Adds a row's ciphertext from the ledger, as `row-LINE.age`.
    pub fn add(&mut self, line: Line, sealed: &Ciphertext) -> Result<(), HandoffError> {
        let bytes = sealed.as_bytes();
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(ENTRY_TIME);
        header.set_entry_type(tar::EntryType::Regular);
        let added = self.0.append_data(&mut header, format!("row-{line}.age"), bytes);
        added.map_err(|error| unwritten(self.0.get_ref().get_ref().folder())(error))
    }

    /// Makes it durable as `LABEL-resumed.tar`, or `LABEL-resumed-2.tar` and so on where that name
    /// is taken. An existing container with the same bytes is used instead: a process wrote it that
    /// died before it recorded it.
    pub fn finish(self, label: &str) -> Result<PathBuf, HandoffError> {
        let folder = self.0.get_ref().get_ref().folder().to_owned();
        let buffer = self.0.into_inner().map_err(unwritten(&folder))?;
        let file = buffer.into_inner().map_err(|error| unwritten(&folder)(error.into_error()))?;
        let stem = format!("{}-resumed", safe_name(label));
        let mut names = TakenNames::of(&folder)?;
        for name in names.taken(&stem, TAR) {
            let path = folder.join(name);
            if same_bytes(file.file(), &path).map_err(unwritten(&folder))? {
                return Ok(path);
            }
        }
        file.publish(&stem, TAR, &mut names)
    }
}

impl Write for UnfinishedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

/// Whether `path` is a file with the same bytes.
fn same_bytes(mut one: &File, path: &Path) -> io::Result<bool> {
    use std::io::Seek;

    let about = fs::symlink_metadata(path)?;
    if !about.is_file() || about.len() != one.metadata()?.len() {
        return Ok(false);
    }
    one.rewind()?;
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(File::open(path)?));
    let (mut left, mut right) = ([0; BLOCK], [0; BLOCK]);
    loop {
        let read = read_full(&mut one, &mut left)?;
        if read_full(&mut other, &mut right)? != read || left[..read] != right[..read] {
            return Ok(false);
        }
        if read < BLOCK {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the input ends; returns the bytes read.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What a recipient may have been sent: an age file, or a container of them. Its first bytes
/// decide, not its name.
pub struct Handoff<R> {
    input: io::Chain<io::Cursor<Vec<u8>>, R>,
    is_container: bool,
}

/// Why a handoff could not be opened, or not to its end.
#[derive(Debug)]
pub struct Unopened<E> {
    /// The name of the container's entry, escaped for a terminal.
    pub entry: Option<String>,
    pub why: OpenError<E>,
}

impl<E> From<OpenError<E>> for Unopened<E> {
    fn from(why: OpenError<E>) -> Self {
        Self { entry: None, why }
    }
}

impl<R: Read> Handoff<R> {
    pub fn of(mut reader: R) -> io::Result<Self> {
        let mut start = vec![0; BLOCK];
        let read = read_full(&mut reader, &mut start)?;
        start.truncate(read);
        let (offset, magic) = MAGIC;
        let is_container =
            !is_age(&start) && start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
        Ok(Self { input: io::Cursor::new(start).chain(reader), is_container })
    }

    #[must_use]
    pub const fn is_container(&self) -> bool {
        self.is_container
    }

    /// Opens it and passes each row to `each`, as [`open()`] does for one age file. A container is
    /// complete if every entry is, and if it ends as a tar must.
    pub fn open<E>(
        self,
        identities: &Identities,
        mut each: impl FnMut(&OpenedRow) -> Result<(), E>,
    ) -> Result<(), Unopened<E>> {
        if !self.is_container {
            return Ok(open(self.input, identities, each)?);
        }
        let input = BufReader::with_capacity(64 * 1024, self.input);
        let mut archive = tar::Archive::new(Bounded::new(input, limits::MAX_CONTAINER_BYTES));
        let mut entries = 0;
        // Raw: extensions, such as those for long names, come as entries and are refused.
        for entry in archive.entries().map_err(read_error)?.raw(true) {
            let entry = entry.map_err(read_error)?;
            entries += 1;
            if entries > limits::MAX_CONTAINER_ENTRIES {
                return Err(OpenError::ContainerTooLarge.into());
            }
            let name = shown::plain(&String::from_utf8_lossy(&entry.header().path_bytes()));
            let named = |why| Unopened { entry: Some(name.clone()), why };
            if let Some(kind) = not_a_file(entry.header().entry_type()) {
                return Err(named(OpenError::NotAFile { kind }));
            }
            open(entry, identities, &mut each).map_err(|why| match why {
                OpenError::TooLarge => OpenError::ContainerTooLarge.into(),
                why => named(why),
            })?;
        }
        check_end(archive.into_inner())
    }
}

/// What an entry is if it is not a file.
fn not_a_file(kind: tar::EntryType) -> Option<&'static str> {
    match kind {
        tar::EntryType::Regular => None,
        tar::EntryType::Directory => Some("a folder"),
        tar::EntryType::Symlink | tar::EntryType::Link => Some("a link"),
        tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => Some("a device"),
        _ => Some("no plain file"),
    }
}

/// Of the two blocks of zeros at the end the first has been read, unless the container was cut
/// between two entries. Another must follow, and nothing but zeros after it.
fn check_end<E>(mut rest: impl Read) -> Result<(), Unopened<E>> {
    let mut block = [0; BLOCK];
    let mut complete = false;
    loop {
        let read = read_full(&mut rest, &mut block).map_err(read_error)?;
        if block[..read].iter().any(|byte| *byte != 0) {
            return Err(OpenError::Damaged.into());
        }
        if read < BLOCK {
            return if complete { Ok(()) } else { Err(OpenError::Damaged.into()) };
        }
        complete = true;
    }
}

/// An error without a code of the system comes from the tar reader: the container is damaged.
fn read_error<E>(error: io::Error) -> Unopened<E> {
    let why = match error.kind() {
        io::ErrorKind::FileTooLarge => OpenError::ContainerTooLarge,
        _ if error.raw_os_error().is_some() => OpenError::Read(error),
        _ => OpenError::Damaged,
    };
    why.into()
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{entry, set};
    use super::super::opened::tests::identities;
    use super::super::recipients::RecipientSet;
    use super::*;
    use std::convert::Infallible;
    use tar::EntryType as T;

    fn sealed(set: &RecipientSet, line: u64) -> Ciphertext {
        let upn = format!("user{line}@contoso.example");
        set.seal(entry(&upn, None, &format!("code{line}"))).expect("sealed")
    }

    fn finished(folder: &Path, rows: &[(u64, &Ciphertext)]) -> PathBuf {
        let mut container = Container::create(folder).expect("begun");
        for (line, sealed) in rows {
            container.add(Line(*line), sealed).expect("added");
        }
        container.finish("all").expect("finished")
    }

    fn opened(file: &[u8], with: &Identities) -> Result<Vec<String>, Unopened<Infallible>> {
        let mut codes = Vec::new();
        Handoff::of(file).expect("read").open(with, |row| {
            codes.push(row.pass().to_owned());
            Ok(())
        })?;
        Ok(codes)
    }

    #[test]
    fn a_container_tells_no_names_and_opens_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let (all, key) = set("all");
        let rows = [(2, sealed(&all, 2)), (30, sealed(&all, 30))];
        let path = finished(folder.path(), &[(2, &rows[0].1), (30, &rows[1].1)]);
        assert_eq!(path, folder.path().join("all-resumed.tar"));
        let bytes = fs::read(&path).expect("a file");
        assert_eq!(opened(&bytes, &identities(&key)).expect("opened"), ["code2", "code30"]);
        let mut archive = tar::Archive::new(&bytes[..]);
        for (entry, (line, sealed)) in archive.entries().expect("a tar").zip(&rows) {
            let mut entry = entry.expect("an entry");
            assert_eq!(entry.path().expect("a name"), Path::new(&format!("row-{line}.age")));
            let header = entry.header();
            assert_eq!(header.mode().expect("a mode"), 0o600);
            assert_eq!(header.mtime().expect("a time"), ENTRY_TIME);
            let mut file = Vec::new();
            entry.read_to_end(&mut file).expect("read");
            assert_eq!(file, sealed.as_bytes());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_same_rows_are_written_once_and_others_to_a_new_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (all, _) = set("all");
        let (one, two) = (sealed(&all, 2), sealed(&all, 3));
        let write = |rows: &[(u64, &Ciphertext)]| {
            let path = finished(folder.path(), rows);
            path.file_name().expect("a name").to_string_lossy().into_owned()
        };
        assert_eq!(write(&[(2, &one)]), "all-resumed.tar");
        assert_eq!(write(&[(2, &one)]), "all-resumed.tar");
        let first = fs::read(folder.path().join("all-resumed.tar")).expect("there");
        assert_eq!(write(&[(2, &two)]), "all-resumed-2.tar");
        assert_eq!(write(&[(2, &two)]), "all-resumed-2.tar");
        assert_eq!(write(&[(2, &one), (3, &two)]), "all-resumed-3.tar");
        assert_eq!(fs::read(folder.path().join("all-resumed.tar")).expect("there"), first);
        // An unfinished one leaves nothing.
        drop(Container::create(folder.path()).expect("begun"));
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }

    #[test]
    fn a_container_cut_short_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (all, key) = set("all");
        let rows = [sealed(&all, 2), sealed(&all, 3), sealed(&all, 4)];
        let path = finished(folder.path(), &[(2, &rows[0]), (3, &rows[1]), (4, &rows[2])]);
        let bytes = fs::read(path).expect("a file");
        let ours = identities(&key);
        for cut in 0..bytes.len() {
            let Err(Unopened { why, .. }) = opened(&bytes[..cut], &ours) else {
                panic!("cut to {cut} of {} bytes, and whole", bytes.len())
            };
            assert!(matches!(why, OpenError::Damaged | OpenError::NotAge), "{cut}: {why}");
        }
        // Other tools fill the last record with zeros; anything else was appended.
        let padded = [&bytes[..], &[0; 8192 + 17]].concat();
        assert_eq!(opened(&padded, &ours).expect("whole").len(), 3);
        let more = [&bytes[..], b"x"].concat();
        assert!(matches!(opened(&more, &ours), Err(Unopened { why: OpenError::Damaged, .. })));
    }

    #[test]
    fn an_entry_that_is_no_file_of_ours_is_named() {
        let (all, key) = set("all");
        let ours = identities(&key);
        let (good, closed) = (sealed(&all, 2), sealed(&set("other").0, 3));
        let tar_with = |kind, name: &str, bytes: &[u8]| {
            let mut tar = tar::Builder::new(Vec::new());
            let mut add = |kind, name: &str, bytes: &[u8]| {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, name, bytes).expect("added");
            };
            add(tar::EntryType::Regular, "row-2.age", good.as_bytes());
            add(kind, name, bytes);
            tar.into_inner().expect("finished")
        };
        let refused = |kind, name: &str, bytes: &[u8]| {
            let Unopened { entry, why } =
                opened(&tar_with(kind, name, bytes), &ours).expect_err("not ours");
            (entry.expect("it is named"), why)
        };
        for (kind, word) in [
            (T::Directory, "a folder"),
            (T::Symlink, "a link"),
            (T::Link, "a link"),
            (T::Fifo, "a device"),
            (T::XHeader, "no plain file"),
            (T::GNULongName, "no plain file"),
            (T::GNUSparse, "no plain file"),
        ] {
            let (entry, why) = refused(kind, "it", b"");
            assert_eq!(entry, "it");
            assert!(matches!(why, OpenError::NotAFile { kind } if kind == word), "{word}: {why}");
        }
        let (entry, why) = refused(T::Regular, "sub/notes.txt", b"hello");
        assert_eq!(entry, "sub/notes.txt");
        assert!(matches!(why, OpenError::NotAge), "{why}");
        let (entry, why) = refused(T::Regular, "row-3.age", closed.as_bytes());
        assert_eq!(entry, "row-3.age");
        assert!(matches!(why, OpenError::NoMatch), "{why}");
        let cut = &good.as_bytes()[..good.as_bytes().len() - 1];
        assert!(matches!(refused(T::Regular, "row-3.age", cut).1, OpenError::Damaged));
        let (entry, _) = refused(T::Regular, "\u{1b}[2J", b"hello");
        assert_eq!(entry, r"\u{1b}[2J");
    }
}
