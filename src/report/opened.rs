//! Promises the recipient's view: the passes, to stdout or to a new private file.
//!
//! The only place that prints codes, and only what somebody's identity opened.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use comfy_table::{ContentArrangement, Table, presets};

use crate::cli::OpenFormat;
use crate::ids::Upn;
use crate::vault::{Format, Identities, OpenError, OpenedRow, RowWriter, Separator, open};

/// How opened rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A table for people.
    Table,
    /// One of the vault's formats.
    Format(Format),
}

impl From<OpenFormat> for Shape {
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
    /// The file to write.
    #[error("failed to write {path}: {source}")]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// stdout.
    #[error("failed to write to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// The file to open.
    #[error("{path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OpenError<io::Error>,
    },
}

/// Rows being printed.
pub struct Opening {
    sink: Sink,
    only: Option<Upn>,
    output: Option<PathBuf>,
    rows: u64,
}

enum Sink {
    Table(Box<Table>, Box<dyn Write>),
    Format(RowWriter<Box<dyn Write>>),
}

impl Opening {
    /// Prints to stdout, or to `output`, which must be new and is readable by its owner alone.
    ///
    /// # Errors
    /// [`OpenFailure`]
    pub fn begin(
        shape: Shape,
        only: Option<Upn>,
        output: Option<&Path>,
    ) -> Result<Self, OpenFailure> {
        let out: Box<dyn Write> = match output {
            Some(path) => Box::new(BufWriter::new(
                private_file(path)
                    .map_err(|source| OpenFailure::Output { path: path.to_owned(), source })?,
            )),
            None => Box::new(BufWriter::new(io::stdout())),
        };
        let output = output.map(Path::to_owned);
        let sink = match shape {
            Shape::Table => Sink::Table(Box::new(head()), out),
            Shape::Format(format) => Sink::Format(
                RowWriter::new(format, out).map_err(|error| unwritten(output.as_deref(), error))?,
            ),
        };
        Ok(Self { sink, only, output, rows: 0 })
    }

    /// Opens one age file and prints its rows.
    ///
    /// # Errors
    /// [`OpenFailure`]
    pub fn file(
        &mut self,
        name: &Path,
        reader: impl io::Read,
        identities: &Identities,
    ) -> Result<(), OpenFailure> {
        open(reader, identities, |row| self.row(row))
            .map_err(|source| OpenFailure::Open { path: name.to_owned(), source })
    }

    /// Prints what stands after the last row; tells how many there were.
    ///
    /// # Errors
    /// [`OpenFailure`]
    pub fn finish(self) -> Result<u64, OpenFailure> {
        let output = self.output;
        let ended = match self.sink {
            Sink::Table(table, mut out) => writeln!(out, "{table}").and_then(|()| out.flush()),
            Sink::Format(writer) => writer.finish().and_then(|mut out| out.flush()),
        };
        ended.map_err(|error| unwritten(output.as_deref(), error))?;
        Ok(self.rows)
    }

    fn row(&mut self, row: &OpenedRow) -> io::Result<()> {
        if self.only.as_ref().is_some_and(|upn| !row.is_for(upn)) {
            return Ok(());
        }
        self.rows += 1;
        match &mut self.sink {
            Sink::Table(table, _) => {
                let [upn, name, pass, start, lifetime, once, _] = row.table_cells();
                let lifetime = format!("{} min", *lifetime);
                let once = if *once == "true" { "once" } else { "" };
                table.add_row([&*upn, &*name, &*pass, &*start, &*lifetime, once]);
                Ok(())
            }
            Sink::Format(writer) => writer.row(row),
        }
    }
}

fn head() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["USER", "NAME", "PASS", "START", "LIFETIME", "WORKS"]);
    table
}

/// A new file for its owner alone; never one that exists, a symbolic link included.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn unwritten(output: Option<&Path>, source: io::Error) -> OpenFailure {
    match output {
        Some(path) => OpenFailure::Output { path: path.to_owned(), source },
        None => OpenFailure::Stdout(source),
    }
}
