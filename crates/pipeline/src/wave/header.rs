//! Promises that each column with a meaning is found under the names people give it, and that no
//! two columns count as the same. Must never drop a column it does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Cursor, Read};

use serde::{Deserialize, Serialize};

use super::records::{Record, Records};
use super::text::Text;
use super::{Bounds, Encoding, RowFault, WaveError};
use tapwave_core::ids::{Line, Upn};
use tapwave_core::limits;

/// A column with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Column {
    /// The one column that must be there.
    #[serde(rename = "userPrincipalName")]
    Upn,
    #[serde(rename = "startDateTime")]
    Start,
    /// The zone of a start without an offset.
    TimeZone,
    LifetimeInMinutes,
    IsUsableOnce,
    DeliverTo,
    Locale,
    Recipient,
}

impl Column {
    const ALL: [Self; 8] = [
        Self::Upn,
        Self::Start,
        Self::TimeZone,
        Self::LifetimeInMinutes,
        Self::IsUsableOnce,
        Self::DeliverTo,
        Self::Locale,
        Self::Recipient,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Upn => "userPrincipalName",
            Self::Start => "startDateTime",
            Self::TimeZone => "timeZone",
            Self::LifetimeInMinutes => "lifetimeInMinutes",
            Self::IsUsableOnce => "isUsableOnce",
            Self::DeliverTo => "deliverTo",
            Self::Locale => "locale",
            Self::Recipient => "recipient",
        }
    }

    /// Other names, folded. The portals write "User principal name" and "User name", scripts
    /// `UPN` and `Username`.
    const fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Upn => &["upn", "username"],
            Self::Start => &["start"],
            Self::LifetimeInMinutes => &["lifetime"],
            _ => &[],
        }
    }

    fn is_named(self, name: &str) -> bool {
        let folded = fold(name);
        folded == self.name().to_lowercase() || self.aliases().contains(&folded.as_str())
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Delimiter {
    /// `,`
    Comma,
    /// `;`, which Excel writes where the comma is the decimal sign.
    Semicolon,
    /// Excel's "Unicode text".
    Tab,
}

impl Delimiter {
    /// The last one wins a tie.
    const ALL: [Self; 3] = [Self::Tab, Self::Semicolon, Self::Comma];

    pub const fn byte(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }
}

/// The columns of a wave, and how its file is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    names: Vec<String>,
    columns: BTreeMap<Column, usize>,
    delimiter: Delimiter,
    encoding: Encoding,
    byte_order_mark: bool,
    line: Line,
}

impl Header {
    /// As written, without blanks around them.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn delimiter(&self) -> Delimiter {
        self.delimiter
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn has_byte_order_mark(&self) -> bool {
        self.byte_order_mark
    }

    pub fn line(&self) -> Line {
        self.line
    }

    pub fn index(&self, column: Column) -> Option<usize> {
        self.columns.get(&column).copied()
    }

    /// What `cells` hold in any column, by its name. Case, blanks, `_` and `-` do not matter unless
    /// another column has exactly that name; a column with a meaning also has [`Column::name`].
    pub fn value<'a>(&self, cells: &'a [String], name: &str) -> Option<&'a str> {
        let folded = fold(name);
        let meaning = || Column::ALL.into_iter().find(|c| c.name().to_lowercase() == folded);
        let index = (self.names.iter().position(|own| own == name))
            .or_else(|| self.names.iter().position(|own| fold(own) == folded))
            .or_else(|| meaning().and_then(|column| self.index(column)))?;
        cells.get(index).map(String::as_str)
    }

    /// `None` if the cell is blank.
    pub(super) fn text<'a>(&self, cells: &'a [String], column: Column) -> Option<&'a str> {
        let text = cells.get(self.index(column)?)?.trim();
        (!text.is_empty()).then_some(text)
    }

    pub(super) fn fault(&self, line: Line, index: usize, wrong: &dyn fmt::Display) -> RowFault {
        let column = self.names.get(index).cloned();
        RowFault { line, column, message: wrong.to_string() }
    }
}

/// Reads up to and with the header.
pub(super) fn read<R: Read>(
    records: &mut Records<R>,
    encoding: Encoding,
    byte_order_mark: bool,
) -> Result<Header, WaveError> {
    let mut asked = None;
    let head = loop {
        let head = records.peek(limits::MAX_HEADER_BYTES)?.ok_or(WaveError::Empty)?;
        let line = head.trim_matches(|c: char| c.is_whitespace() || ",;\"".contains(c));
        let lower = head.trim_matches(['"', ' ']).to_lowercase();
        if let Some(delimiter) = lower.strip_prefix("sep=") {
            asked = Some(named_delimiter(delimiter)?);
        } else if !line.is_empty() && !is_version(line) {
            break head;
        }
        records.next()?;
    };
    let delimiter = asked.unwrap_or_else(|| likeliest(&head));
    records.set_delimiter(delimiter.byte());
    let Record { line, fields, .. } = records.next()?.ok_or(WaveError::Empty)?;
    let mut names: Vec<String> = fields.iter().map(|name| name.trim().to_owned()).collect();
    while names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    let columns = meanings(&names, line)?;
    Ok(Header { names, columns, delimiter, encoding, byte_order_mark, line })
}

/// The first line of Entra's bulk templates, `version:v1.0`.
fn is_version(line: &str) -> bool {
    line.starts_with("version:") && !line.contains([',', ';', '\t', '"', '\n', '\r'])
}

fn named_delimiter(text: &str) -> Result<Delimiter, WaveError> {
    // A spreadsheet that saves the file again fills the line up with its own delimiter.
    match text.chars().next() {
        Some(',') => Ok(Delimiter::Comma),
        Some(';') => Ok(Delimiter::Semicolon),
        Some('\t') => Ok(Delimiter::Tab),
        _ => Err(WaveError::UnknownDelimiter(text.to_owned())),
    }
}

/// The delimiter that makes a userPrincipalName column, and then the one that makes the most
/// columns: `userPrincipalName;Surname, first name, title` has more commas than semicolons.
fn likeliest(head: &str) -> Delimiter {
    let score = |delimiter: &Delimiter| {
        let text = Text::new(Cursor::new(head.as_bytes()), Encoding::Utf8);
        let mut records = Records::new(text, Bounds::default());
        records.set_delimiter(delimiter.byte());
        let names = match records.next() {
            Ok(Some(record)) => record.fields,
            Ok(None) | Err(_) => Vec::new(),
        };
        (names.iter().any(|name| Column::Upn.is_named(name)), names.len())
    };
    Delimiter::ALL.into_iter().max_by_key(score).unwrap_or(Delimiter::Comma)
}

fn meanings(names: &[String], line: Line) -> Result<BTreeMap<Column, usize>, WaveError> {
    let mut columns = BTreeMap::new();
    for column in Column::ALL {
        if let Some(index) = place(names, column)? {
            columns.insert(column, index);
        }
    }
    if columns.contains_key(&Column::Upn) {
        return Ok(columns);
    }
    if names.iter().any(|name| name.parse::<Upn>().is_ok()) {
        return Err(WaveError::NoHeader(line));
    }
    Err(WaveError::NoColumn { seen: names.to_vec(), nearest: nearest(names) })
}

/// A column with the exact name goes before others that could be meant.
fn place(names: &[String], column: Column) -> Result<Option<usize>, WaveError> {
    let of = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|index| fits(&names[*index])).collect()
    };
    let exact = of(&|name| name.eq_ignore_ascii_case(column.name()));
    let any = of(&|name| column.is_named(name));
    let candidates = if exact.is_empty() { any } else { exact };
    match candidates[..] {
        [] => Ok(None),
        [index] => Ok(Some(index)),
        [first, second, ..] => Err(WaveError::TwoColumns {
            column,
            first: names[first].clone(),
            second: names[second].clone(),
        }),
    }
}

/// Lower case without blanks, `_` and `-`; of `User name [userPrincipalName] Required`, as
/// Entra's bulk templates write it, what stands in brackets.
fn fold(name: &str) -> String {
    let inner = name.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let name = inner.map_or(name, |(inner, _)| inner);
    let kept = |c: &char| !c.is_whitespace() && !matches!(c, '_' | '-' | '\u{feff}');
    name.chars().filter(kept).flat_map(char::to_lowercase).collect()
}

/// The name that one or two typing errors turn into a known one.
fn nearest(names: &[String]) -> Option<String> {
    let known = ["userprincipalname", "username", "upn"];
    let distance = |name: &String| {
        let folded = fold(name);
        // Two errors in a short name make it another word.
        let far = |alias: &&str| 1 + alias.len() / 6;
        // A long name is no misspelling, and a field may be very long.
        let near = known.iter().filter(|alias| folded.len() <= 2 * alias.len() + 8);
        let near = near.map(|alias| (strsim::damerau_levenshtein(&folded, alias), far(alias)));
        near.filter(|(slips, far)| slips <= far).map(|(slips, _)| slips).min()
    };
    let found = names.iter().filter_map(|name| Some((distance(name)?, name)));
    found.min_by_key(|(distance, _)| *distance).map(|(_, name)| name.clone())
}
