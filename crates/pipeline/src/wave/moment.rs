//! Promises that a start is one unambiguous moment. Must never guess a zone, the order of day and
//! month, or which of two hours is meant.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::shown;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadZone {
    /// A name from the Windows registry.
    #[error("{0} is a Windows zone name; write the IANA name, like Europe/Berlin")]
    Windows(String),
    #[error("{0} is not a known time zone; write an IANA name, like Europe/Berlin")]
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStart {
    /// No hour.
    #[error("{0} has no time of day; write it like 2027-03-01T08:00")]
    DateAlone(String),
    #[error(
        "{0} can be read as two dates; write year, month and day in this order, like \
         2027-03-01T08:00"
    )]
    TwoReadings(String),
    #[error(
        "{0} has no offset and no time zone is known; add an offset like +01:00 or a \
         timeZone column"
    )]
    NoZone(String),
    #[error("{0} does not exist in {1}, where the clocks go forward then; take an hour later")]
    Gap(String, String),
    #[error("{0} happens twice in {1}, where the clocks go back then; add an offset like +01:00")]
    Fold(String, String),
    /// Of the right form, but on no calendar or clock.
    #[error("{0} is on no calendar; correct the date or the time")]
    Impossible(String),
    #[error("{0} is no date and time; write it like 2027-03-01T08:00 or 2027-03-01T08:00+01:00")]
    Unreadable(String),
}

pub fn parse_zone(text: &str) -> Result<TimeZone, BadZone> {
    match TimeZone::get(text) {
        Ok(zone) if zone.iana_name().is_some() => Ok(zone),
        _ if text.ends_with(" Time") => Err(BadZone::Windows(shown(text))),
        _ => Err(BadZone::Unknown(shown(text))),
    }
}

/// Takes RFC 3339 with its offset, or `2027-03-01T08:00[:00]` (also with a blank in place of
/// the `T`) as it is in `zone`.
pub fn parse_start(text: &str, zone: Option<&TimeZone>) -> Result<Timestamp, BadStart> {
    let text = text.trim();
    let Some((local, offset)) = split(text) else {
        return Err(unreadable(text));
    };
    let impossible = |_| BadStart::Impossible(shown(text));
    if !offset.is_empty() {
        return text.parse().map_err(impossible);
    }
    let local: DateTime = local.parse().map_err(impossible)?;
    let zone = zone.ok_or_else(|| BadStart::NoZone(shown(text)))?;
    let name = || zone.iana_name().unwrap_or("this zone").to_owned();
    let moment = zone.to_ambiguous_timestamp(local);
    match moment.offset() {
        AmbiguousOffset::Unambiguous { .. } => moment.unambiguous().map_err(impossible),
        AmbiguousOffset::Gap { .. } => Err(BadStart::Gap(shown(text), name())),
        AmbiguousOffset::Fold { .. } => Err(BadStart::Fold(shown(text), name())),
    }
}

/// The local part and the offset (`Z`, `+01:00`, or nothing), if the text has that form. jiff's own
/// parsers also take a date alone, as midnight.
fn split(text: &str) -> Option<(&str, &str)> {
    let shape = |text: &str, shape: &str| {
        text.len() == shape.len()
            && text.bytes().zip(shape.bytes()).all(|(b, s)| match s {
                b'0' => b.is_ascii_digit(),
                b'T' => matches!(b, b'T' | b't' | b' '),
                b'+' => matches!(b, b'+' | b'-'),
                s => b == s,
            })
    };
    let minutes = text.get(..16).filter(|part| shape(part, "0000-00-00T00:00"))?;
    let mut end = minutes.len();
    if text.get(end..end + 3).is_some_and(|part| shape(part, ":00")) {
        end += 3;
        if text[end..].starts_with('.') {
            let digits = text[end + 1..].bytes().take_while(u8::is_ascii_digit).count();
            // Graph's times have seven digits, nanoseconds nine.
            if !(1..=9).contains(&digits) {
                return None;
            }
            end += 1 + digits;
        }
    }
    let (local, offset) = text.split_at(end);
    let known = matches!(offset, "" | "Z" | "z") || shape(offset, "+00:00");
    known.then_some((local, offset))
}

fn unreadable(text: &str) -> BadStart {
    let parts: Vec<&str> = text.split(['-', '/', '.', ' ', 'T']).collect();
    let number = |index: usize, most: usize| {
        parts.get(index).is_some_and(|part: &&str| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        })
    };
    if number(0, 2) && number(1, 2) && number(2, 4) {
        BadStart::TwoReadings(shown(text))
    } else if parts.len() == 3 && number(0, 4) && number(1, 2) && number(2, 2) {
        BadStart::DateAlone(shown(text))
    } else {
        BadStart::Unreadable(shown(text))
    }
}
