//! Promises records and fields as spreadsheets write them (RFC 4180, any line end), each with its
//! line in an editor. Must never hold more than one record, or let the end of the file close a
//! quote.
//!
//! Written by hand, because the reader of the crate `csv` does not bound a field, silently closes
//! an open quote at the end of the file, and counts neither lone carriage returns nor the blank
//! lines before a record.

use std::io::Read;

use super::text::{Text, TextEnd};
use super::{Bounds, WaveError};
use tapwave_core::ids::Line;

pub(super) struct Record {
    pub(super) line: Line,
    /// At least one field, which may be empty.
    pub(super) fields: Vec<String>,
    /// The first field in which text follows the closing quote.
    pub(super) stray: Option<usize>,
}

impl Record {
    /// An empty line, or the empty fields with which spreadsheets fill a table up.
    pub(super) fn is_blank(&self) -> bool {
        self.fields.iter().all(|field| field.trim().is_empty())
    }
}

#[derive(Debug)]
pub(super) struct Records<R> {
    text: Text<R>,
    delimiter: u8,
    bounds: Bounds,
    line: u64,
    /// The last character was a carriage return; a line feed after it ends no further line.
    after_return: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum ReaderState {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: the end of the field, or half of a doubled quote.
    QuoteSeen,
}

struct OpenRecord {
    record: Record,
    field: String,
    field_line: Line,
    state: ReaderState,
}

impl<R: Read> Records<R> {
    /// Starts at line 1 with commas between fields.
    pub(super) fn new(text: Text<R>, bounds: Bounds) -> Self {
        Self { text, delimiter: b',', bounds, line: 1, after_return: false }
    }

    /// An ASCII character.
    pub(super) fn set_delimiter(&mut self, delimiter: u8) {
        self.delimiter = delimiter;
    }

    /// SHA-256 of the bytes read so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.text.digest()
    }

    /// The next line outside of quotes, without taking it; cut if it is longer than `max` bytes.
    /// `None` is the end of the file.
    pub(super) fn peek(&mut self, max: usize) -> Result<Option<String>, WaveError> {
        self.skip_line_feed()?;
        let (mut scanned, mut quoted) = (0, false);
        loop {
            let rest = self.text.rest();
            for (index, byte) in rest.bytes().enumerate().skip(scanned) {
                match byte {
                    b'"' => quoted = !quoted,
                    b'\r' | b'\n' if !quoted => return Ok(Some(rest[..index].to_owned())),
                    _ => {}
                }
            }
            scanned = rest.len();
            if scanned >= max || !self.fill()? {
                let rest = self.text.rest();
                return Ok((!rest.is_empty()).then(|| rest.to_owned()));
            }
        }
    }

    /// The next record; `None` is the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Record>, WaveError> {
        self.skip_line_feed()?;
        if self.text.rest().is_empty() && !self.fill()? {
            return Ok(None);
        }
        let line = Line(self.line);
        let mut open = OpenRecord {
            record: Record { line, fields: Vec::new(), stray: None },
            field: String::new(),
            field_line: line,
            state: ReaderState::FieldStart,
        };
        while !self.text.rest().is_empty() || self.fill()? {
            if self.step(&mut open)? {
                return Ok(Some(open.record));
            }
        }
        if open.state == ReaderState::Quoted {
            return Err(WaveError::UnclosedQuote(open.field_line));
        }
        self.end_field(&mut open)?;
        Ok(Some(open.record))
    }

    /// Takes a run of plain characters, or a special one. `true` ends the record.
    fn step(&mut self, open: &mut OpenRecord) -> Result<bool, WaveError> {
        let rest = self.text.rest();
        let delimiter = self.delimiter;
        let special = |b: u8| b == delimiter || matches!(b, b'"' | b'\r' | b'\n' | 0);
        let run = rest.bytes().position(special).unwrap_or(rest.len());
        if run > 0 {
            open.take_run(&rest[..run]);
            self.after_return = false;
            self.text.take(run);
            return self.hold_bound(open).map(|()| false);
        }
        let byte = rest.as_bytes()[0];
        if byte == 0 {
            return Err(WaveError::Nul(Line(self.line)));
        }
        self.text.take(1);
        let second_half = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        if matches!(byte, b'\r' | b'\n') && !second_half {
            self.line += 1;
        }
        match (open.state, byte) {
            (ReaderState::Quoted, b'"') => open.state = ReaderState::QuoteSeen,
            (ReaderState::FieldStart, b'"') => open.state = ReaderState::Quoted,
            (ReaderState::QuoteSeen, b'"') => {
                open.field.push('"');
                open.state = ReaderState::Quoted;
            }
            (ReaderState::Plain, b'"') => open.field.push('"'),
            (ReaderState::Quoted, byte) => open.field.push(char::from(byte)),
            (_, b'\r' | b'\n') => return self.end_field(open).map(|()| true),
            // The delimiter.
            _ => self.end_field(open)?,
        }
        self.hold_bound(open).map(|()| false)
    }

    fn end_field(&self, open: &mut OpenRecord) -> Result<(), WaveError> {
        let OpenRecord { record, field, field_line, state } = open;
        if record.fields.len() == self.bounds.columns {
            let max = self.bounds.columns;
            return Err(WaveError::TooManyColumns { line: record.line, max });
        }
        record.fields.push(std::mem::take(field));
        *field_line = Line(self.line);
        *state = ReaderState::FieldStart;
        Ok(())
    }

    fn hold_bound(&self, open: &OpenRecord) -> Result<(), WaveError> {
        let max = self.bounds.field;
        if open.field.len() > max {
            return Err(WaveError::FieldTooLong { line: open.field_line, max });
        }
        Ok(())
    }

    fn skip_line_feed(&mut self) -> Result<(), WaveError> {
        if self.after_return && (!self.text.rest().is_empty() || self.fill()?) {
            if self.text.rest().starts_with('\n') {
                self.text.take(1);
            }
            self.after_return = false;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<bool, WaveError> {
        self.text.fill().map_err(|unread| match unread {
            TextEnd::Io(error) => WaveError::Io(error),
            TextEnd::Malformed(encoding) => {
                WaveError::Malformed { line: Line(self.line), encoding }
            }
        })
    }
}

impl OpenRecord {
    fn take_run(&mut self, run: &str) {
        match self.state {
            ReaderState::FieldStart => self.state = ReaderState::Plain,
            ReaderState::Plain | ReaderState::Quoted => {}
            // Blanks between the closing quote and the delimiter are ignored.
            ReaderState::QuoteSeen if run.trim().is_empty() => return,
            ReaderState::QuoteSeen => {
                self.record.stray.get_or_insert(self.record.fields.len());
                self.field.push('"');
                self.state = ReaderState::Plain;
            }
        }
        self.field.push_str(run);
    }
}
