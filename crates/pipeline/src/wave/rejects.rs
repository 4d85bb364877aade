//! Promises a file of rejected rows that can be corrected and run again, each with its reason. Must
//! never change a row's fields, or write a reason that a spreadsheet would execute.

use std::io::{self, Write};

use csv::{QuoteStyle, Writer, WriterBuilder};

use super::{BadRow, Encoding, Header};

/// Ignored in a wave.
const REASON: &str = "reason";

/// Writes rejected rows in the wave's own form: its columns, its delimiter, UTF-8 (with a byte
/// order mark if the wave had one or was not UTF-8).
///
/// The reason is the *first* column. A row with too few or too many fields then keeps exactly
/// those, so that it stays a fault until it is corrected.
#[derive(Debug)]
pub struct Rejects<W: Write> {
    out: Writer<W>,
    /// Columns with the reasons of an earlier attempt, left out.
    old: Vec<usize>,
}

impl<W: Write> Rejects<W> {
    pub fn new(mut out: W, header: &Header) -> io::Result<Self> {
        if header.has_byte_order_mark() || header.encoding() != Encoding::Utf8 {
            out.write_all("\u{feff}".as_bytes())?;
        }
        let mut names = WriterBuilder::new();
        names.delimiter(header.delimiter().byte()).flexible(true);
        if header.names().iter().any(|name| name.contains([',', ';', '\t'])) {
            // The reader looks for the delimiter outside of quotes.
            names.quote_style(QuoteStyle::Always);
        }
        let is_old = |index: &usize| header.names()[*index].eq_ignore_ascii_case(REASON);
        let old: Vec<usize> = (0..header.names().len()).filter(is_old).collect();
        let mut head = names.from_writer(&mut out);
        head.write_record(row(REASON, header.names(), &old)).map_err(io::Error::from)?;
        head.flush()?;
        drop(head);
        let mut rows = WriterBuilder::new();
        rows.delimiter(header.delimiter().byte()).flexible(true);
        Ok(Self { out: rows.from_writer(out), old })
    }

    pub fn add(&mut self, cells: &[String], reason: &str) -> io::Result<()> {
        let reason = harmless(reason);
        self.out.write_record(row(&reason, cells, &self.old)).map_err(io::Error::from)
    }

    pub fn add_bad(&mut self, bad: &BadRow) -> io::Result<()> {
        let reasons: Vec<String> = bad.faults.iter().map(ToString::to_string).collect();
        self.add(&bad.cells, &reasons.join(" | "))
    }

    pub fn finish(self) -> io::Result<W> {
        self.out.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}

fn row<'a>(
    reason: &'a str,
    cells: &'a [String],
    old: &'a [usize],
) -> impl Iterator<Item = &'a str> {
    let kept = cells.iter().enumerate().filter(|(index, _)| !old.contains(index));
    std::iter::once(reason).chain(kept.map(|(_, cell)| cell.as_str()))
}

/// One line that no spreadsheet takes for a formula (OWASP, "CSV injection").
fn harmless(reason: &str) -> String {
    let risky = reason.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let line = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    risky.then_some('\'').into_iter().chain(line).collect()
}
