//! Promises that a wave file is read as its author meant it, or refused with the line, the column,
//! and what to do. Must never hold the whole file in memory, stop at the first faulty row, or guess
//! a person's name or hour.
//!
//! [`WaveReader::open`] surveys the file (encoding, size, digest) and reads the header; the reader
//! is then an iterator over rows, and [`WaveReader::finish`] sums up. Faulty rows come out as
//! [`BadRow`], so that all faults can be shown at once. An error ends the reading, because what
//! follows it could not be trusted.

mod cells;
mod header;
mod moment;
mod records;
mod rejects;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Seek};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::header::{Column, Delimiter, Header};
pub use self::moment::{BadStart, BadZone, parse_start, parse_zone};
pub use self::rejects::Rejects;
pub use self::text::Encoding;

use self::cells::Wrong;
use self::records::{Record, Records};
use self::text::{Survey, Text};
use tapwave_core::ids::{Line, Upn};
use tapwave_core::limits;
use tapwave_core::shown::steers;

/// One person of the wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: Line,
    pub upn: Upn,
    pub wanted: RowOptions,
    pub cells: Vec<String>,
}

/// What a row says itself; options and policy decide the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RowOptions {
    pub start: Option<Timestamp>,
    /// Minutes from the start, within [`limits::LIFETIME_MINUTES`].
    pub lifetime_minutes: Option<u32>,
    pub one_time: Option<bool>,
    /// An IANA name that this machine knows.
    pub time_zone: Option<String>,
    /// One line, with an `@`.
    pub deliver_to: Option<String>,
    /// A language tag like `de-CH`.
    pub locale: Option<String>,
    /// A recipient's label or key, not yet resolved.
    pub recipient: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    pub line: Line,
    /// As the header writes it; `None` if the fault is the whole row's.
    pub column: Option<String>,
    /// Also says what to do. Holds no control characters.
    pub message: String,
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {}", shown(column))?;
        }
        write!(f, ": {}", self.message)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    pub line: Line,
    /// Fewer or more than the header's columns if that is the fault.
    pub cells: Vec<String>,
    /// Never empty.
    pub faults: Vec<RowFault>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaveItem {
    Row(Row),
    Bad(BadRow),
}

#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// For starts with neither an offset nor a `timeZone` beside them. Without it such a start is a
    /// fault: an hour is never guessed.
    pub time_zone: Option<TimeZone>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveSummary {
    pub header: Header,
    /// Without blank lines, with faulty rows.
    pub rows: u64,
    pub bad: u64,
    /// SHA-256 of the file's bytes, in lower-case hex.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum WaveError {
    #[error(
        "the wave is empty; write a line with the column name userPrincipalName and below it \
         one line for each person"
    )]
    Empty,
    #[error("the wave has a header but no rows; write one line for each person below line {0}")]
    NoRows(Line),
    #[error(
        "line {0} holds a person where the header should be; write a line with the column \
         names above it, such as userPrincipalName"
    )]
    NoHeader(Line),
    #[error(
        "the wave has no userPrincipalName column, only {}; rename {} to userPrincipalName",
        listed(seen),
        nearest.as_deref().map_or_else(|| "the column that holds it".to_owned(), shown)
    )]
    NoColumn { seen: Vec<String>, nearest: Option<String> },
    #[error(
        "the columns {} and {} could both be {column}; rename or remove one of them",
        shown(first),
        shown(second)
    )]
    TwoColumns { column: Column, first: String, second: String },
    #[error("the sep= line names {}; save the wave with commas, semicolons, or tabs", shown(.0))]
    UnknownDelimiter(String),
    #[error("the wave has more than {} rows; split it into several files", thousands(*.0))]
    TooManyRows(u64),
    #[error("the wave has more than {} bytes; split it into several files", thousands(*.0))]
    TooLarge(u64),
    #[error("line {line} has more than {max} columns; remove those that nobody needs")]
    TooManyColumns { line: Line, max: usize },
    #[error(
        "a field in line {line} has more than {} bytes; look for a double quote that is not \
         closed, or shorten the text", thousands(*max as u64)
    )]
    FieldTooLong { line: Line, max: usize },
    #[error("the double quote opened in line {0} is never closed; close it or remove it")]
    UnclosedQuote(Line),
    #[error("the wave is an Excel workbook; open it in Excel and save as \"CSV UTF-8\"")]
    Workbook,
    #[error("line {0} holds a NUL byte, so the wave is no text; save it as CSV in UTF-8")]
    Nul(Line),
    #[error("line {line} holds bytes that are not {encoding}; save the wave as CSV in UTF-8")]
    Malformed { line: Line, encoding: Encoding },
    #[error("the wave changed while it was read; wait until it is saved and start again")]
    Changed,
    #[error("failed to read the wave: {0}; check that it is a file you may read")]
    Io(#[from] io::Error),
}

/// An iterator over the records of a wave. Memory grows by about 20 bytes for each row, by which
/// duplicates are found. After an error nothing more comes.
#[derive(Debug)]
pub struct WaveReader<R> {
    records: Records<R>,
    header: Header,
    digest: [u8; 32],
    defaults: Defaults,
    bounds: Bounds,
    seen: SeenRow,
    rows: u64,
    bad: u64,
    ended: bool,
}

impl<R: Read + Seek> WaveReader<R> {
    /// Surveys `input` from its beginning, then reads the header.
    pub fn open(input: R, defaults: Defaults) -> Result<Self, WaveError> {
        Self::open_within(input, defaults, Bounds::default())
    }

    fn open_within(mut input: R, defaults: Defaults, bounds: Bounds) -> Result<Self, WaveError> {
        let Survey { encoding, bom, digest } = text::survey(&mut input, bounds.bytes)?;
        let mut records = Records::new(Text::new(input, encoding), bounds);
        let header = header::read(&mut records, encoding, bom)?;
        Ok(Self {
            records,
            header,
            digest,
            defaults,
            bounds,
            seen: SeenRow::default(),
            rows: 0,
            bad: 0,
            ended: false,
        })
    }
}

impl<R: Read> WaveReader<R> {
    /// The columns, and how the file is written.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// SHA-256 of the file's bytes, in lower-case hex.
    pub fn digest(&self) -> String {
        tapwave_core::shown::hex(&self.digest)
    }

    /// Reads what is left and sums the wave up.
    pub fn finish(mut self) -> Result<WaveSummary, WaveError> {
        for found in self.by_ref() {
            found?;
        }
        let digest = self.digest();
        Ok(WaveSummary { header: self.header, rows: self.rows, bad: self.bad, digest })
    }

    fn advance(&mut self) -> Result<Option<WaveItem>, WaveError> {
        loop {
            let Some(record) = self.records.next()? else {
                return self.close().map(|()| None);
            };
            if record.is_blank() {
                continue;
            }
            if self.rows == self.bounds.rows {
                return Err(WaveError::TooManyRows(self.bounds.rows));
            }
            self.rows += 1;
            let found = self.judge(record);
            self.bad += u64::from(matches!(found, WaveItem::Bad(_)));
            return Ok(Some(found));
        }
    }

    fn close(&self) -> Result<(), WaveError> {
        if self.records.digest() != self.digest {
            return Err(WaveError::Changed);
        }
        if self.rows == 0 {
            return Err(WaveError::NoRows(self.header.line()));
        }
        Ok(())
    }

    fn judge(&mut self, record: Record) -> WaveItem {
        let Record { line, fields: mut cells, stray } = record;
        let width = self.header.names().len();
        // Spreadsheets pad rows with empty fields.
        while cells.len() > width && cells.last().is_some_and(|cell| cell.trim().is_empty()) {
            cells.pop();
        }
        let mut faults = Vec::new();
        if cells.len() != width {
            let wrong = Wrong::Fields { found: cells.len(), wanted: width };
            faults.push(RowFault { line, column: None, message: wrong.to_string() });
            return WaveItem::Bad(BadRow { line, cells, faults });
        }
        if let Some(index) = stray {
            faults.push(self.header.fault(line, index, &Wrong::Stray));
        }
        let (upn, wanted) = cells::parse(&self.header, line, &cells, &self.defaults, &mut faults);
        if let Some(upn) = &upn
            && let Some(earlier) = self.seen.earlier(upn, line)
        {
            let index = self.header.index(Column::Upn).unwrap_or_default();
            faults.push(self.header.fault(line, index, &Wrong::Duplicate(earlier)));
        }
        match upn {
            Some(upn) if faults.is_empty() => WaveItem::Row(Row { line, upn, wanted, cells }),
            _ => WaveItem::Bad(BadRow { line, cells, faults }),
        }
    }
}

impl<R: Read> Iterator for WaveReader<R> {
    type Item = Result<WaveItem, WaveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = self.advance().transpose();
        self.ended = !matches!(found, Some(Ok(_)));
        found
    }
}

/// Tests use smaller ones.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    rows: u64,
    bytes: u64,
    field: usize,
    columns: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            rows: limits::MAX_ROWS,
            bytes: limits::MAX_WAVE_BYTES,
            field: limits::MAX_FIELD_BYTES,
            columns: limits::MAX_COLUMNS,
        }
    }
}

/// The people so far, each as half a SHA-256: a million names then cost some 40 MB instead of 150,
/// and no two can be made to collide.
#[derive(Debug, Default)]
struct SeenRow(HashMap<[u8; 16], u32>);

impl SeenRow {
    fn earlier(&mut self, upn: &Upn, line: Line) -> Option<Line> {
        let digest: [u8; 32] = Sha256::digest(upn.key()).into();
        let (half, _) = digest.split_first_chunk().expect("32 bytes hold 16");
        // Lines are at most as many as bytes, and `limits::MAX_WAVE_BYTES` fits in 32 bits.
        let line = u32::try_from(line.0).unwrap_or(u32::MAX);
        match self.0.entry(*half) {
            std::collections::hash_map::Entry::Occupied(first) => {
                Some(Line(u64::from(*first.get())))
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(line);
                None
            }
        }
    }
}

/// Quotes and shortens a value for a message, and escapes what moves a terminal's cursor or cannot
/// be seen.
fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == limits::MAX_SHOWN_CHARS {
            out.push('…');
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if steers(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether `c` cannot be seen or turns the direction of writing: such characters are copied along
/// with text, and make two names look alike.
fn invisible(c: char) -> bool {
    steers(c) && !c.is_control()
}

fn listed(names: &[String]) -> String {
    let mut out = String::new();
    for (count, name) in names.iter().enumerate() {
        if count == limits::MAX_SHOWN_COLUMNS {
            // Writing to a String cannot fail.
            let _ = write!(out, " and {} more", names.len() - count);
            break;
        }
        let gap = if count == 0 { "" } else { ", " };
        let _ = write!(out, "{gap}{}", shown(name));
    }
    out
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
