//! Promises that every typed field of a row is either understood or reported as a fault, all of
//! them at once. Must never echo what looks like a secret key.

use jiff::tz::TimeZone;

use super::{
    BadStart, BadZone, Column, Defaults, Header, RowFault, RowOptions, invisible, parse_start,
    parse_zone, shown,
};
use tapwave_core::clock::Minutes;
use tapwave_core::ids::{BadUpn, Line, Upn};
use tapwave_core::limits;
use tapwave_core::shown::steers;

/// Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Wrong {
    #[error("no userPrincipalName is written here; write one, or remove the row")]
    NoUpn,
    #[error("the userPrincipalName {0} {1}; write it as Entra shows it, like name@contoso.com")]
    Upn(String, BadUpn),
    #[error("{0} holds a character that cannot be seen; type it anew")]
    Invisible(String),
    #[error("this person is already in line {0}; remove one of the two rows")]
    Duplicate(Line),
    #[error(
        "the row has {} where the header has {wanted}; add or remove delimiters, or put a \
         field that holds one in double quotes", counted(*found)
    )]
    Fields { found: usize, wanted: usize },
    #[error("text follows the closing quote; double each quote that belongs to the text")]
    Stray,
    #[error("{0}")]
    Zone(#[from] BadZone),
    #[error("{0}")]
    Start(#[from] BadStart),
    #[error(
        "{0} is not a number of minutes from {min} to {max}; write one, like 60, or 8h, 90m or 1d",
        min = limits::LIFETIME_MINUTES.start(), max = limits::LIFETIME_MINUTES.end()
    )]
    Lifetime(String),
    #[error("{0} is neither yes nor no; write true or false, or leave it empty")]
    OneTime(String),
    #[error("{0} is not one mail address; write it like name@contoso.com")]
    Address(String),
    #[error("{0} is no language tag; write it like en or de-CH")]
    Locale(String),
    #[error(
        "the recipient is a secret key, which opens every pass sealed to it; replace that \
         key pair and write the public key, which begins with age1"
    )]
    SecretKey,
    #[error("{0} holds a control character; write a recipient's label or public key")]
    Recipient(String),
}

/// `cells` has as many fields as the header.
pub(super) fn parse(
    header: &Header,
    line: Line,
    cells: &[String],
    defaults: &Defaults,
    faults: &mut Vec<RowFault>,
) -> (Option<Upn>, RowOptions) {
    let mut reading = Reading { header, line, cells, faults };
    let upn = match header.text(cells, Column::Upn) {
        Some(_) => reading.typed(Column::Upn, upn),
        None => reading.wrong(Column::Upn, &Wrong::NoUpn),
    };
    let zoned = header.text(cells, Column::TimeZone).is_some();
    let zone = reading.typed(Column::TimeZone, |text| Ok(parse_zone(text)?));
    let start = if zoned && zone.is_none() {
        // The zone has its own fault; the start is read in UTC only to find its own.
        reading.typed(Column::Start, |text| Ok(parse_start(text, Some(&TimeZone::UTC))?))
    } else {
        let zone = zone.as_ref().or(defaults.time_zone.as_ref());
        reading.typed(Column::Start, |text| Ok(parse_start(text, zone)?))
    };
    let wanted = RowOptions {
        start,
        lifetime_minutes: reading.typed(Column::LifetimeInMinutes, lifetime),
        one_time: reading.typed(Column::IsUsableOnce, yes_or_no),
        time_zone: zone.and_then(|zone| zone.iana_name().map(str::to_owned)),
        deliver_to: reading.typed(Column::DeliverTo, address),
        locale: reading.typed(Column::Locale, locale),
        recipient: reading.typed(Column::Recipient, recipient),
    };
    (upn, wanted)
}

struct Reading<'a> {
    header: &'a Header,
    line: Line,
    cells: &'a [String],
    faults: &'a mut Vec<RowFault>,
}

impl Reading<'_> {
    fn typed<T>(
        &mut self,
        column: Column,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match parse(self.header.text(self.cells, column)?) {
            Ok(value) => Some(value),
            Err(wrong) => self.wrong(column, &wrong),
        }
    }

    fn wrong<T>(&mut self, column: Column, wrong: &Wrong) -> Option<T> {
        let index = self.header.index(column)?;
        self.faults.push(self.header.fault(self.line, index, wrong));
        None
    }
}

fn upn(text: &str) -> Result<Upn, Wrong> {
    if text.chars().any(invisible) {
        return Err(Wrong::Invisible(shown(text)));
    }
    text.parse().map_err(|why| Wrong::Upn(shown(text), why))
}

fn lifetime(text: &str) -> Result<u32, Wrong> {
    let minutes = text.parse().ok().map(|Minutes(minutes)| minutes);
    minutes
        .filter(|minutes| limits::LIFETIME_MINUTES.contains(minutes))
        .ok_or_else(|| Wrong::Lifetime(shown(text)))
}

fn yes_or_no(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(Wrong::OneTime(shown(text))),
    }
}

/// Only a first check: mail parses the address.
fn address(text: &str) -> Result<String, Wrong> {
    let whole = text.split_once('@').is_some_and(|(name, domain)| {
        !name.trim().is_empty() && !domain.trim().is_empty() && !domain.contains('@')
    });
    if text.chars().any(invisible) {
        return Err(Wrong::Invisible(shown(text)));
    }
    if !whole || text.len() > limits::MAX_ADDRESS_BYTES || text.chars().any(char::is_control) {
        return Err(Wrong::Address(shown(text)));
    }
    Ok(text.to_owned())
}

/// Only a first check (RFC 5646): subtags of one to eight letters and digits, the first of at least
/// two letters.
fn locale(text: &str) -> Result<String, Wrong> {
    let mut parts = text.split('-');
    let first = parts.next().is_some_and(|part| {
        (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphabetic())
    });
    let rest = parts.all(|part| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    if first && rest && text.len() <= limits::MAX_LOCALE_BYTES {
        return Ok(text.to_owned());
    }
    Err(Wrong::Locale(shown(text)))
}

fn recipient(text: &str) -> Result<String, Wrong> {
    let upper = text.to_ascii_uppercase();
    if upper.contains("AGE-SECRET-KEY") || upper.contains("AGE-PLUGIN-") {
        return Err(Wrong::SecretKey);
    }
    if text.chars().any(steers) {
        return Err(Wrong::Recipient(shown(text)));
    }
    Ok(text.to_owned())
}

fn counted(fields: usize) -> String {
    if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") }
}
