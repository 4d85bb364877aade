//! Promises that characters become records and fields as spreadsheets write them (RFC 4180,
//! any line end), each with the line an editor shows. Must never hold more than one record,
//! or take a quote that is never closed for the end of the file.
//!
//! Written by hand because the `csv` crate's reader has no bound on a field, ends an open
//! quote at the end of the file without a word, and counts neither lone carriage returns nor
//! the blank lines before a record.

use std::io::Read;

use super::text::{Text, Unread};
use super::{Bounds, RosterError};
use tapwave_core::ids::Line;

/// One record as it stands in the file.
pub(super) struct Record {
    /// Where it begins.
    pub(super) line: Line,
    /// At least one field, which may be empty.
    pub(super) fields: Vec<String>,
    /// The first field in which text follows the closing quote.
    pub(super) stray: Option<usize>,
}

impl Record {
    /// Whether nobody wrote anything here: an empty line, or the empty fields with which
    /// spreadsheets fill a table up.
    pub(super) fn is_blank(&self) -> bool {
        self.fields.iter().all(|field| field.trim().is_empty())
    }
}

/// Reads one record after the other.
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
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote inside quotes: the end of the field, or half of a doubled quote.
    QuoteSeen,
}

/// A record being read.
struct Open {
    record: Record,
    field: String,
    field_line: Line,
    state: State,
}

impl<R: Read> Records<R> {
    /// Starts at line 1 with commas between fields.
    pub(super) fn new(text: Text<R>, bounds: Bounds) -> Self {
        Self { text, delimiter: b',', bounds, line: 1, after_return: false }
    }

    /// What separates fields from here on; an ASCII character.
    pub(super) fn set_delimiter(&mut self, delimiter: u8) {
        self.delimiter = delimiter;
    }

    /// SHA-256 of the bytes read so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.text.digest()
    }

    /// The next line outside of quotes, left where it is; shorter if it is longer than `max`
    /// bytes and more. `None` is the end of the file.
    pub(super) fn peek(&mut self, max: usize) -> Result<Option<String>, RosterError> {
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
    pub(super) fn next(&mut self) -> Result<Option<Record>, RosterError> {
        self.skip_line_feed()?;
        if self.text.rest().is_empty() && !self.fill()? {
            return Ok(None);
        }
        let line = Line(self.line);
        let mut open = Open {
            record: Record { line, fields: Vec::new(), stray: None },
            field: String::new(),
            field_line: line,
            state: State::FieldStart,
        };
        while !self.text.rest().is_empty() || self.fill()? {
            if self.step(&mut open)? {
                return Ok(Some(open.record));
            }
        }
        if open.state == State::Quoted {
            return Err(RosterError::UnclosedQuote(open.field_line));
        }
        self.end_field(&mut open)?;
        Ok(Some(open.record))
    }

    /// Takes a run of plain characters, or one that means something. `true` ends the record.
    fn step(&mut self, open: &mut Open) -> Result<bool, RosterError> {
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
            return Err(RosterError::Nul(Line(self.line)));
        }
        self.text.take(1);
        let second_half = byte == b'\n' && self.after_return;
        self.after_return = byte == b'\r';
        if matches!(byte, b'\r' | b'\n') && !second_half {
            self.line += 1;
        }
        match (open.state, byte) {
            (State::Quoted, b'"') => open.state = State::QuoteSeen,
            (State::FieldStart, b'"') => open.state = State::Quoted,
            (State::QuoteSeen, b'"') => {
                open.field.push('"');
                open.state = State::Quoted;
            }
            (State::Plain, b'"') => open.field.push('"'),
            (State::Quoted, byte) => open.field.push(char::from(byte)),
            (_, b'\r' | b'\n') => return self.end_field(open).map(|()| true),
            // What is left is the delimiter.
            _ => self.end_field(open)?,
        }
        self.hold_bound(open).map(|()| false)
    }

    fn end_field(&self, open: &mut Open) -> Result<(), RosterError> {
        let Open { record, field, field_line, state } = open;
        if record.fields.len() == self.bounds.columns {
            let max = self.bounds.columns;
            return Err(RosterError::TooManyColumns { line: record.line, max });
        }
        record.fields.push(std::mem::take(field));
        *field_line = Line(self.line);
        *state = State::FieldStart;
        Ok(())
    }

    fn hold_bound(&self, open: &Open) -> Result<(), RosterError> {
        let max = self.bounds.field;
        if open.field.len() > max {
            return Err(RosterError::FieldTooLong { line: open.field_line, max });
        }
        Ok(())
    }

    fn skip_line_feed(&mut self) -> Result<(), RosterError> {
        if self.after_return && (!self.text.rest().is_empty() || self.fill()?) {
            if self.text.rest().starts_with('\n') {
                self.text.take(1);
            }
            self.after_return = false;
        }
        Ok(())
    }

    fn fill(&mut self) -> Result<bool, RosterError> {
        self.text.fill().map_err(|unread| match unread {
            Unread::Io(error) => RosterError::Io(error),
            Unread::Malformed(encoding) => {
                RosterError::Malformed { line: Line(self.line), encoding }
            }
        })
    }
}

impl Open {
    fn take_run(&mut self, run: &str) {
        match self.state {
            State::FieldStart => self.state = State::Plain,
            State::Plain | State::Quoted => {}
            // Blanks between the closing quote and the delimiter mean nothing.
            State::QuoteSeen if run.trim().is_empty() => return,
            State::QuoteSeen => {
                self.record.stray.get_or_insert(self.record.fields.len());
                self.field.push('"');
                self.state = State::Plain;
            }
        }
        self.field.push_str(run);
    }
}
