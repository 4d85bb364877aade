//! Promises dates and durations as people write them in each built-in language; other languages get
//! ISO 8601.

use jiff::Zoned;

struct DateWords {
    language: &'static str,
    weekdays: [&'static str; 7],
    months: [&'static str; 12],
    /// Singular and plural of minute, hour, day.
    units: [[&'static str; 2]; 3],
}

const WORDS: [DateWords; 5] = [
    DateWords {
        language: "en",
        weekdays: ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
        months: [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
        units: [["minute", "minutes"], ["hour", "hours"], ["day", "days"]],
    },
    DateWords {
        language: "nl",
        weekdays: ["maandag", "dinsdag", "woensdag", "donderdag", "vrijdag", "zaterdag", "zondag"],
        months: [
            "januari",
            "februari",
            "maart",
            "april",
            "mei",
            "juni",
            "juli",
            "augustus",
            "september",
            "oktober",
            "november",
            "december",
        ],
        // "uur" has no plural after a number.
        units: [["minuut", "minuten"], ["uur", "uur"], ["dag", "dagen"]],
    },
    DateWords {
        language: "de",
        weekdays: ["Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"],
        months: [
            "Januar",
            "Februar",
            "März",
            "April",
            "Mai",
            "Juni",
            "Juli",
            "August",
            "September",
            "Oktober",
            "November",
            "Dezember",
        ],
        // After "also", thus in the accusative.
        units: [["Minute", "Minuten"], ["Stunde", "Stunden"], ["Tag", "Tage"]],
    },
    DateWords {
        language: "fr",
        weekdays: ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"],
        months: [
            "janvier",
            "février",
            "mars",
            "avril",
            "mai",
            "juin",
            "juillet",
            "août",
            "septembre",
            "octobre",
            "novembre",
            "décembre",
        ],
        units: [["minute", "minutes"], ["heure", "heures"], ["jour", "jours"]],
    },
    DateWords {
        language: "es",
        weekdays: ["lunes", "martes", "miércoles", "jueves", "viernes", "sábado", "domingo"],
        months: [
            "enero",
            "febrero",
            "marzo",
            "abril",
            "mayo",
            "junio",
            "julio",
            "agosto",
            "septiembre",
            "octubre",
            "noviembre",
            "diciembre",
        ],
        units: [["minuto", "minutos"], ["hora", "horas"], ["día", "días"]],
    },
];

/// A date with its weekday, and the time to the minute.
pub(super) fn date_time(language: &str, at: &Zoned) -> String {
    let (day, year) = (at.day(), at.year());
    let time = format!("{:02}:{:02}", at.hour(), at.minute());
    let Some(words) = words(language) else {
        return format!("{} {time}", at.date());
    };
    let weekday = words.weekdays[usize::from(at.weekday().to_monday_zero_offset().unsigned_abs())];
    let month = words.months[usize::from(at.month().unsigned_abs()) - 1];
    match words.language {
        "de" => format!("{weekday}, {day}. {month} {year}, {time} Uhr"),
        "fr" if day == 1 => format!("{weekday} 1er {month} {year} à {time}"),
        "fr" => format!("{weekday} {day} {month} {year} à {time}"),
        "es" => format!("{weekday} {day} de {month} de {year}, {time}"),
        "nl" => format!("{weekday} {day} {month} {year} om {time} uur"),
        _ => format!("{weekday}, {day} {month} {year}, {time}"),
    }
}

/// A duration in the largest unit that divides it.
pub(super) fn duration(language: &str, minutes: u32) -> String {
    let (count, unit) = match minutes {
        days if days >= 2 * 1440 && days.is_multiple_of(1440) => (days / 1440, 2),
        hours if hours >= 60 && hours.is_multiple_of(60) => (hours / 60, 1),
        minutes => (minutes, 0),
    };
    match words(language) {
        Some(words) => format!("{count} {}", words.units[unit][usize::from(count != 1)]),
        None => format!("{count} {}", ["min", "h", "d"][unit]),
    }
}

fn words(language: &str) -> Option<&'static DateWords> {
    WORDS.iter().find(|words| words.language.eq_ignore_ascii_case(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Zoned {
        text.parse().expect("a time")
    }

    #[test]
    fn dates_are_written_as_in_each_language() {
        let monday = at("2026-03-02T09:05:00+01:00[Europe/Berlin]");
        for (language, written) in [
            ("en", "Monday, 2 March 2026, 09:05"),
            ("nl", "maandag 2 maart 2026 om 09:05 uur"),
            ("de", "Montag, 2. März 2026, 09:05 Uhr"),
            ("fr", "lundi 2 mars 2026 à 09:05"),
            ("es", "lunes 2 de marzo de 2026, 09:05"),
            ("pl", "2026-03-02 09:05"),
        ] {
            assert_eq!(date_time(language, &monday), written);
        }
        let first = at("2026-02-01T23:59:00+01:00[Europe/Paris]");
        assert_eq!(date_time("fr", &first), "dimanche 1er février 2026 à 23:59");
    }

    #[test]
    fn a_duration_takes_the_largest_unit_that_divides_it() {
        for (minutes, written) in [
            (10, "10 minutes"),
            (60, "1 hour"),
            (90, "90 minutes"),
            (480, "8 hours"),
            (1440, "24 hours"),
            (43_200, "30 days"),
        ] {
            assert_eq!(duration("en", minutes), written);
        }
        assert_eq!(duration("nl", 480), "8 uur");
        assert_eq!(duration("pl", 480), "8 h");
    }
}
