//! Promises whole minutes as people write them: `480`, `90m`, `8h`, `1h 30m`, `1d`. Must never
//! take seconds, or a number with a unit left out in the middle.

use std::fmt;
use std::str::FromStr;

use jiff::{Span, SpanRelativeTo};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A stretch of whole minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minutes(pub u32);

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a number of minutes; write one, such as 480, or 8h, 90m or 1d")]
pub struct BadMinutes;

impl FromStr for Minutes {
    type Err = BadMinutes;

    fn from_str(text: &str) -> Result<Self, BadMinutes> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self).map_err(|_| BadMinutes);
        }
        let span: Span = text.parse().map_err(|_| BadMinutes)?;
        let long = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| BadMinutes)?;
        let whole = long.subsec_nanos() == 0 && long.as_secs() % 60 == 0;
        let minutes = u32::try_from(long.as_secs() / 60).ok().filter(|_| whole);
        minutes.map(Self).ok_or(BadMinutes)
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Minutes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected minutes, such as 480, or a text such as \"8h\"")]
        enum MinutesText {
            Number(u32),
            Text(String),
        }
        match MinutesText::deserialize(from)? {
            MinutesText::Number(minutes) => Ok(Self(minutes)),
            MinutesText::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_read_as_people_write_them() {
        for (text, minutes) in [
            ("480", 480),
            ("90m", 90),
            ("8h", 480),
            ("8 hours", 480),
            ("1h 30m", 90),
            ("1h30m", 90),
            ("1d", 1440),
            ("PT8H", 480),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Minutes(minutes)), "{text}");
        }
        for text in ["", "h", "8x", "-8h", "90s", "8h 30s", "1 month", "8.5", "99999999999", "+8"] {
            assert_eq!(text.parse::<Minutes>(), Err(BadMinutes), "{text}");
        }
    }
}
