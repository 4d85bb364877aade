//! Promises the recipient's view: the passes, to stdout or to a new private file.
//!
//! The only place that prints codes, and only what somebody's identity opened.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;

use super::tables::printed;
use crate::args::OpenFormat;
use tapwave_core::ids::Upn;
use tapwave_core::shown::escaped;
use tapwave_ledger::create_private;
use tapwave_pipeline::stop::StopSignal;
use tapwave_seal::{
    Format, Handoff, Identities, OpenError, OpenedRow, RowWriter, Separator, Unopened,
};

/// How opened rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenLayout {
    /// A table for people.
    Table,
    /// One of the formats of `seal`.
    Format(Format),
}

impl From<OpenFormat> for OpenLayout {
    fn from(format: OpenFormat) -> Self {
        match format {
            OpenFormat::Table => Self::Table,
            OpenFormat::Csv => Self::Format(Format::Csv),
            OpenFormat::Json => Self::Format(Format::Json),
            OpenFormat::Excel => Self::Format(Format::Excel(Separator::Comma)),
            OpenFormat::ExcelSemicolon => Self::Format(Format::Excel(Separator::Semicolon)),
        }
    }
}

/// Why the passes could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// The file to write is there already.
    #[error("failed to write {0}: it is there already; name a new file with -o")]
    Exists(PathBuf),
    /// The file to write.
    #[error("failed to write {path}: {source}")]
    Output {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// stdout.
    #[error("failed to write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// The file to open.
    #[error("{file}: {source}")]
    Open {
        /// The file, and what in it if it is a container.
        file: String,
        source: OpenError<io::Error>,
    },
}

/// Rows being printed. The output is opened with the first of them, so that an identity that
/// opens nothing leaves nothing behind; what was written is taken back if the end is never
/// reached.
pub struct Opening {
    shape: OpenLayout,
    only: Option<Upn>,
    output: Option<PathBuf>,
    sink: Option<Sink>,
    /// What was listed so far, once there may be something twice.
    merged: Option<Merged>,
    /// The output is ours and not whole.
    begun: bool,
    rows: u64,
    stop: StopSignal,
}

enum Sink {
    Table(Box<Table>, Box<dyn Write>),
    Format(RowWriter<Box<dyn Write>>),
}

impl Opening {
    /// Prints to stdout, or to `output`, which must be new and is readable by its owner alone,
    /// until it is given up.
    pub fn begin(
        shape: OpenLayout,
        only: Option<Upn>,
        output: Option<&Path>,
        stop: StopSignal,
    ) -> Result<Self, OpenFailure> {
        if let Some(path) = output.filter(|path| path.symlink_metadata().is_ok()) {
            return Err(OpenFailure::Exists(path.to_owned()));
        }
        Ok(Self {
            shape,
            only,
            output: output.map(Path::to_owned),
            sink: None,
            merged: None,
            begun: false,
            rows: 0,
            stop,
        })
    }

    /// Lists once what several files hold alike.
    #[must_use]
    pub fn merging(mut self) -> Self {
        self.merged = Some(Merged::default());
        self
    }

    /// Opens one age file or container and prints its rows.
    pub fn file(
        &mut self,
        name: &Path,
        reader: impl io::Read,
        identities: &Identities,
    ) -> Result<(), OpenFailure> {
        let file = |entry: Option<String>| match entry {
            Some(entry) => format!("{}: {entry}", name.display()),
            None => name.display().to_string(),
        };
        let unread = |error| OpenFailure::Open { file: file(None), source: OpenError::Read(error) };
        let handoff = Handoff::of(reader).map_err(unread)?;
        if handoff.is_container() {
            self.merged.get_or_insert_default();
        }
        let opened = handoff.open(identities, |row| self.row(row));
        opened.map_err(|Unopened { entry, why }| match why {
            // It is not this file that cannot be used, but the one that is written.
            OpenError::Stopped(source) => unwritten(self.output.as_deref(), source),
            source => OpenFailure::Open { file: file(entry), source },
        })
    }

    /// Prints what stands after the last row; tells how many there were. Nothing at all is
    /// printed if one person was asked for and has no row.
    pub fn finish(mut self) -> Result<Opened, OpenFailure> {
        let doubled = self.merged.take().and_then(Merged::doubled);
        if self.only.is_some() && self.rows == 0 {
            return Ok(Opened { rows: 0, doubled });
        }
        let ended = self.end();
        ended.map_err(|error| unwritten(self.output.as_deref(), error))?;
        self.begun = false;
        Ok(Opened { rows: self.rows, doubled })
    }

    fn end(&mut self) -> io::Result<()> {
        self.sink()?;
        match self.sink.take() {
            Some(Sink::Table(table, mut out)) => {
                writeln!(out, "{}", printed(*table)).and_then(|()| out.flush())
            }
            Some(Sink::Format(writer)) => writer.finish().and_then(|mut out| out.flush()),
            None => Ok(()),
        }
    }

    fn sink(&mut self) -> io::Result<&mut Sink> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => Sink::open(self.shape, self.output.as_deref())?,
        };
        self.begun = true;
        Ok(self.sink.insert(sink))
    }

    fn row(&mut self, row: &OpenedRow) -> io::Result<()> {
        if self.only.as_ref().is_some_and(|upn| !row.is_for(upn)) {
            return Ok(());
        }
        if self.stop.is_aborted() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.merged.as_mut().is_some_and(|merged| !merged.is_new(row)) {
            return Ok(());
        }
        self.rows += 1;
        match self.sink()? {
            Sink::Table(table, _) => {
                let [upn, name, pass, start, lifetime, once, _] = row.table_cells();
                let start = to_the_minute(&start);
                let lifetime = format!("{} min", *lifetime);
                let once = if *once == "true" { "once" } else { "until it ends" };
                table.add_row([&*upn, &*name, &*pass, &start, &*lifetime, once]);
                Ok(())
            }
            Sink::Format(writer) => writer.row(row),
        }
    }
}

/// What was printed.
#[derive(Debug)]
pub struct Opened {
    pub rows: u64,
    /// People with several rows that differ.
    pub doubled: Option<Doubled>,
}

/// People who have more than one pass in what was opened: one of them was issued in place of the
/// others.
#[derive(Debug)]
pub struct Doubled {
    /// The first of them, as may be shown.
    pub first: String,
    /// How many they are.
    pub people: u64,
}

/// What several files hold together. It knows rows by their fingerprints alone.
#[derive(Default)]
struct Merged {
    /// Each person's first row.
    first: HashMap<[u8; 16], [u8; 16]>,
    /// All other rows, which are few.
    more: HashSet<[u8; 16]>,
    people: HashSet<[u8; 16]>,
    /// The first of them.
    named: Option<String>,
}

impl Merged {
    /// Whether no row like this was seen; it counts as seen now.
    fn is_new(&mut self, row: &OpenedRow) -> bool {
        let print = row.fingerprint();
        match self.first.entry(print.person) {
            Entry::Vacant(place) => {
                place.insert(print.row);
                return true;
            }
            Entry::Occupied(first) if *first.get() == print.row => return false,
            Entry::Occupied(_) => {}
        }
        let is_new = self.more.insert(print.row);
        if is_new && self.people.insert(print.person) {
            self.named.get_or_insert_with(|| escaped(row.user_principal_name()));
        }
        is_new
    }

    fn doubled(self) -> Option<Doubled> {
        let people = self.people.len() as u64;
        self.named.map(|first| Doubled { first, people })
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // Half a file of passes helps nobody. Closed first, for systems that keep open files.
        drop(self.sink.take());
        if let Some(path) = self.output.as_ref().filter(|_| self.begun) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Sink {
    fn open(shape: OpenLayout, output: Option<&Path>) -> io::Result<Self> {
        let out: Box<dyn Write> = match output {
            Some(path) => Box::new(BufWriter::new(create_private(path)?)),
            None => Box::new(BufWriter::new(io::stdout())),
        };
        Ok(match shape {
            OpenLayout::Table => Self::Table(Box::new(head()), out),
            OpenLayout::Format(format) => Self::Format(RowWriter::new(format, out)?),
        })
    }
}

/// A start as people read it, in UTC; what is no time stays as it is.
fn to_the_minute(start: &str) -> String {
    let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
    start.parse().map_or_else(|_| start.to_owned(), minute)
}

fn head() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["USER", "NAME", "PASS", "START (UTC)", "LIFETIME", "WORKS"]);
    table
}

fn unwritten(output: Option<&Path>, source: io::Error) -> OpenFailure {
    match output {
        Some(path) => OpenFailure::Output { path: path.to_owned(), source },
        None => OpenFailure::Stdout(source),
    }
}
