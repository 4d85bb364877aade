//! Promises that an opened row is printed exactly as it is, in a form that neither Excel nor
//! a terminal misreads. Must never keep what it has printed.

use std::io::{self, Write};

use zeroize::Zeroizing;

use super::entry::{COLUMNS, needs_quotes};
use super::opened::OpenedRow;
use tapwave_core::shown::steers;

/// How opened rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The handoff's own CSV, verbatim: UTF-8, LF, commas.
    Csv,
    /// A bare array of objects; null where a field is empty.
    Json,
    /// A CSV that Excel shows as it is when it is opened with a double click.
    ///
    /// It is UTF-8 with a byte order mark and CRLF. Text that Excel would take for a formula,
    /// a number or a date is written as a formula that yields it, `="…"`.
    /// There is no `sep=` line: Excel would then ignore the byte order mark and read the file in
    /// the system's old code page, which breaks every accent. Excel splits at the list
    /// separator of the system's region instead: [`Separator`].
    Excel(Separator),
}

/// The list separator of the region that Excel runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Separator {
    /// Where the decimal sign is a point.
    #[default]
    Comma,
    /// Where the decimal sign is a comma: most of Europe and South America.
    Semicolon,
}

/// Prints opened rows, one at a time.
pub struct RowWriter<W> {
    out: W,
    format: Format,
    rows: u64,
}

impl<W: Write> RowWriter<W> {
    /// Writes what comes before the first row.
    pub fn new(format: Format, mut out: W) -> io::Result<Self> {
        match format {
            Format::Csv => out.write_all(super::entry::header().as_bytes())?,
            Format::Json => out.write_all(b"[")?,
            Format::Excel(separator) => {
                out.write_all("\u{feff}".as_bytes())?;
                out.write_all(COLUMNS.join(separator.text()).as_bytes())?;
                out.write_all(b"\r\n")?;
            }
        }
        Ok(Self { out, format, rows: 0 })
    }

    pub fn row(&mut self, row: &OpenedRow) -> io::Result<()> {
        match self.format {
            Format::Csv => csv_row(&mut self.out, row)?,
            Format::Json => {
                self.out.write_all(if self.rows == 0 { b"\n" } else { b",\n" })?;
                json_row(&mut self.out, row)?;
            }
            Format::Excel(separator) => excel_row(&mut self.out, row, separator)?,
        }
        self.rows += 1;
        Ok(())
    }

    /// Writes what comes after the last row, and flushes.
    pub fn finish(mut self) -> io::Result<W> {
        if self.format == Format::Json {
            self.out.write_all(if self.rows == 0 { b"]\n" } else { b"\n]\n" })?;
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl Separator {
    fn text(self) -> &'static str {
        match self {
            Self::Comma => ",",
            Self::Semicolon => ";",
        }
    }
}

impl OpenedRow {
    /// The cells in the order of `COLUMNS`, for a table on a terminal. Control characters, those
    /// that change the writing direction, and invisible ones become `\u{…}`.
    #[must_use]
    pub fn table_cells(&self) -> [Zeroizing<String>; 7] {
        self.columns().map(escaped)
    }

    fn columns(&self) -> [&str; 7] {
        [
            self.user_principal_name(),
            self.display_name(),
            self.pass(),
            self.start(),
            self.lifetime_text(),
            self.one_time_text(),
            self.method_id(),
        ]
    }
}

fn csv_row(out: &mut impl Write, row: &OpenedRow) -> io::Result<()> {
    for (at, cell) in row.columns().into_iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        if needs_quotes(cell) {
            quoted(out, cell)?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

fn json_row(out: &mut impl Write, row: &OpenedRow) -> io::Result<()> {
    out.write_all(b"  {")?;
    for (at, (name, cell)) in COLUMNS.into_iter().zip(row.columns()).enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        write!(out, "\"{name}\":")?;
        match name {
            _ if cell.is_empty() => out.write_all(b"null")?,
            // Both were parsed when the row was opened.
            "lifetimeInMinutes" => json_value(out, &row.lifetime_minutes())?,
            "isUsableOnce" => json_value(out, &row.is_one_time())?,
            _ => json_value(out, cell)?,
        }
    }
    out.write_all(b"}")
}

fn json_value(out: &mut impl Write, value: &(impl serde::Serialize + ?Sized)) -> io::Result<()> {
    serde_json::to_writer(out, value).map_err(io::Error::from)
}

fn excel_row(out: &mut impl Write, row: &OpenedRow, separator: Separator) -> io::Result<()> {
    for (at, cell) in row.columns().into_iter().enumerate() {
        if at > 0 {
            out.write_all(separator.text().as_bytes())?;
        }
        match COLUMNS[at] {
            "lifetimeInMinutes" => out.write_all(cell.as_bytes())?,
            "isUsableOnce" => out.write_all(cell.to_ascii_uppercase().as_bytes())?,
            // Every code is written the same way, so that none looks special.
            "temporaryAccessPass" => formula(out, cell)?,
            _ if cell.is_empty() => {}
            _ if would_mangle(cell) => formula(out, cell)?,
            _ => quoted(out, cell)?,
        }
    }
    out.write_all(b"\r\n")
}

/// UTF-16 units that one string inside a formula may have; Excel documents 255 characters
/// ("Excel specifications and limits", support.microsoft.com).
const FORMULA_TEXT_UNITS: usize = 255;

/// Whether Excel might take a text for something else. Only addresses and plain names of several
/// words are known to be safe. Not safe are numbers in every notation, dates, months and TRUE in
/// every language, formulas, and leading apostrophes.
fn would_mangle(text: &str) -> bool {
    let plain_name = text.contains(' ') && !text.contains(char::is_numeric);
    let safe = text.starts_with(char::is_alphabetic)
        && !text.ends_with(char::is_whitespace)
        && !text.contains(char::is_control)
        && (text.contains('@') || plain_name);
    !safe
}

/// Writes a formula that yields exactly the text: `="…"`, quoted once more as a CSV field. Long
/// texts are joined from several strings.
fn formula(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"=\"\"")?;
    let mut units = 0;
    for c in text.chars() {
        units += c.len_utf16();
        if units > FORMULA_TEXT_UNITS {
            out.write_all(b"\"\"&\"\"")?;
            units = c.len_utf16();
        }
        // A quote is doubled for the formula, and both of them for the CSV.
        if c == '"' {
            out.write_all(b"\"\"\"\"")?;
        } else {
            let mut bytes = Zeroizing::new([0; 4]);
            out.write_all(c.encode_utf8(&mut bytes[..]).as_bytes())?;
        }
    }
    out.write_all(b"\"\"\"")
}

fn quoted(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"\"")?;
    for (at, piece) in text.split('"').enumerate() {
        if at > 0 {
            out.write_all(b"\"\"")?;
        }
        out.write_all(piece.as_bytes())?;
    }
    out.write_all(b"\"")
}

/// Escapes what must not reach a terminal.
fn escaped(text: &str) -> Zeroizing<String> {
    // `\u{10ffff}` is the longest escape. With room for all the buffer does not grow.
    let mut cell = Zeroizing::new(String::with_capacity(text.chars().count() * 10));
    for c in text.chars() {
        if steers(c) {
            cell.extend(c.escape_unicode());
        } else {
            cell.push(c);
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::{entry, set};
    use super::super::open;
    use super::super::opened::tests::identities;
    use super::*;
    use proptest::prelude::*;

    /// Prints rows of (name, code).
    fn printed(format: Format, rows: &[(&str, &str)]) -> String {
        let mut writer = RowWriter::new(format, Vec::new()).expect("begun");
        for (name, code) in rows {
            let (set, key) = set("all");
            let sealed = set.seal(entry("ada@contoso.example", Some(name), code)).expect("sealed");
            open(sealed.as_bytes(), &identities(&key), |row| writer.row(row)).expect("opened");
        }
        String::from_utf8(writer.finish().expect("finished")).expect("text")
    }

    /// What Excel shows for a field: it evaluates `="…"&"…"` and keeps everything else.
    fn as_excel_shows(field: &str) -> String {
        let Some(mut rest) = field.strip_prefix('=') else { return field.to_owned() };
        let mut text = String::new();
        loop {
            rest = rest.strip_prefix('"').expect("a text begins");
            let mut units = 0;
            loop {
                if let Some(after) = rest.strip_prefix("\"\"") {
                    text.push('"');
                    units += 1;
                    rest = after;
                } else if let Some(after) = rest.strip_prefix('"') {
                    rest = after;
                    break;
                } else {
                    let c = rest.chars().next().expect("the text ends");
                    text.push(c);
                    units += c.len_utf16();
                    rest = &rest[c.len_utf8()..];
                }
            }
            assert!(units <= 255, "Excel refuses a longer text in a formula");
            match rest.strip_prefix('&') {
                Some(after) => rest = after,
                None => return text,
            }
        }
    }

    #[test]
    fn csv_is_the_handoff_verbatim() {
        assert_eq!(
            printed(Format::Csv, &[("Lovelace, Ada", "+drkzqAD"), ("", "=1+1")]),
            "userPrincipalName,displayName,temporaryAccessPass,startDateTime,lifetimeInMinutes,isUsableOnce,methodId\n\
             ada@contoso.example,\"Lovelace, Ada\",+drkzqAD,2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n\
             ada@contoso.example,,=1+1,2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n"
        );
    }

    #[test]
    fn json_is_a_bare_array_with_nulls() {
        let text = printed(Format::Json, &[("", "a\"b,c;d"), ("Ada", "+drkzqAD")]);
        let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            rows[0],
            serde_json::json!({
                "userPrincipalName": "ada@contoso.example", "displayName": null,
                "temporaryAccessPass": "a\"b,c;d", "startDateTime": "2026-03-01T08:00:00Z",
                "lifetimeInMinutes": 60, "isUsableOnce": true,
                "methodId": "c5dbd20a-8b8f-4791-a23f-488fcbde3b38",
            })
        );
        assert_eq!(rows[1]["temporaryAccessPass"], "+drkzqAD");
        assert_eq!(rows.as_array().map(Vec::len), Some(2));
        assert_eq!(printed(Format::Json, &[]), "[]\n");
    }

    #[test]
    fn excel_gets_formulas_that_yield_the_text() {
        let text = printed(Format::Excel(Separator::Comma), &[("Ada Lovelace", "a\"b,c;d")]);
        assert_eq!(
            text,
            "\u{feff}userPrincipalName,displayName,temporaryAccessPass,startDateTime,lifetimeInMinutes,isUsableOnce,methodId\r\n\
             \"ada@contoso.example\",\"Ada Lovelace\",\"=\"\"a\"\"\"\"b,c;d\"\"\",\"=\"\"2026-03-01T08:00:00Z\"\"\",60,TRUE,\"=\"\"c5dbd20a-8b8f-4791-a23f-488fcbde3b38\"\"\"\r\n"
        );
        let text = printed(Format::Excel(Separator::Semicolon), &[("Ada Lovelace", "x")]);
        assert!(
            text.contains("\"ada@contoso.example\";\"Ada Lovelace\";\"=\"\"x\"\"\";"),
            "{text}"
        );
    }

    #[test]
    fn nothing_that_excel_would_change_is_left_bare() {
        for text in [
            "=1+1",
            "+49 30",
            "-x y",
            "@SUM(a b)",
            "\tx y",
            "\rx y",
            "12345678",
            "00123",
            "1E5",
            "1-2",
            "MAR1",
            "Jan 5",
            "5 May",
            "TRUE",
            "WAHR",
            "'x y",
            " x y",
            "x y ",
            "\u{ff1d}1 x",
            "12:30",
            "50%",
            "\u{661}\u{662}",
        ] {
            assert!(would_mangle(text), "{text:?}");
        }
        for text in ["Ada Lovelace", "ada1@contoso.example", "\u{c5}sa O'Neil, Jr"] {
            assert!(!would_mangle(text), "{text:?}");
        }
    }

    #[test]
    fn a_cell_holds_nothing_that_steers_a_terminal() {
        let (set, key) = set("all");
        let name = "\u{1b}[2J\u{202e}\u{200b}\u{e0041}\u{9b}";
        let sealed = set.seal(entry("ada@contoso.example", Some(name), "é\u{7}x")).expect("sealed");
        open(sealed.as_bytes(), &identities(&key), |row| {
            let cells = row.table_cells();
            assert_eq!(cells[1].as_str(), r"\u{1b}[2J\u{202e}\u{200b}\u{e0041}\u{9b}");
            assert_eq!(cells[2].as_str(), r"é\u{7}x");
            assert_eq!(cells[4].as_str(), "60");
            Ok::<(), io::Error>(())
        })
        .expect("opened");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_format_gives_the_code_back(code in ".{1,60}", name in "(.|[\n\",;=0-9@-]){0,300}") {
            let rows = [(name.as_str(), code.as_str())];
            let csv_text = printed(Format::Csv, &rows);
            let row = csv::Reader::from_reader(csv_text.as_bytes()).records().next().expect("a row").expect("well-formed");
            prop_assert_eq!((&row[1], &row[2]), rows[0]);

            let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, &rows)).expect("JSON");
            prop_assert_eq!(json[0]["temporaryAccessPass"].as_str(), Some(code.as_str()));

            for (separator, byte) in [(Separator::Comma, b','), (Separator::Semicolon, b';')] {
                let text = printed(Format::Excel(separator), &rows);
                let mut reader = csv::ReaderBuilder::new().delimiter(byte).from_reader(text.as_bytes());
                let row = reader.records().next().expect("a row").expect("well-formed");
                prop_assert_eq!(as_excel_shows(&row[1]), name.as_str());
                prop_assert_eq!(as_excel_shows(&row[2]), code.as_str());
            }
        }
    }
}
