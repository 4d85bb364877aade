//! Promises that every file of `samples/` does what README says of it, as it lies there.

use std::fs;
use std::path::PathBuf;

use tapwave_simulator::Tenant;

use crate::support::bench::{Bench, Said};

/// Every file of the folder that is a wave, with its rows.
const WAVES: [(&str, u64); 5] = [
    ("wave.csv", 24),
    ("excel-export.csv", 6),
    ("portal-export.csv", 5),
    ("utf16.csv", 6),
    ("new-starters.csv", 12),
];

/// The path of a sample.
fn sample(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/samples")).join(name)
}

/// A bench for a tenant that must not be touched.
fn bench() -> Bench {
    Bench::new(Tenant::for_wave(["nobody@contoso.example"], 1))
}

/// The labels that the samples name, and no default time zone.
fn labels(bench: &Bench) {
    let [ams, ber, desk] = ["ams", "ber", "desk"].map(|name| bench.reader(name).key);
    let labels = format!("site-ams = \"{ams}\"\nsite-ber = \"{ber}\"\nhelpdesk = \"{desk}\"\n");
    bench.write("labels.toml", format!("[recipients]\n{labels}"));
}

fn rehearse(bench: &Bench, wave: &str, flags: &[&str]) -> Said {
    let path = sample(wave);
    let path = path.to_str().expect("a path in UTF-8");
    Said::of(&mut bench.command(&[&["rehearse", path], flags].concat()))
}

// Case: each wave goes all the way, as README's first command does it.
#[test]
fn every_wave_is_rehearsed_to_the_end() {
    let bench = bench();
    let settings = sample("tapwave.toml");
    let settings = settings.to_str().expect("a path in UTF-8");
    for (wave, rows) in WAVES {
        let flags: &[&str] = match wave {
            "new-starters.csv" => &["--config", settings, "--json"],
            _ => &["--json"],
        };
        let said = rehearse(&bench, wave, flags).ends(0);
        let summary = said.json();
        assert_eq!(summary["rows"], rows, "{wave}");
        assert_eq!(summary["removed"], rows, "{wave}:\n{}", said.err);
        said.says(["looked again: none of these passes is left"]);
    }
    bench.is_untouched();
}

// Case: the wave of mistakes names each of them, by its line, and only what is right passes.
#[test]
fn every_mistake_is_named() {
    let bench = bench();
    labels(&bench);
    let said = rehearse(&bench, "mistakes.csv", &["--config", "labels.toml", "--json"]).ends(3);
    let told = said.problems();
    let lines: Vec<u64> = told.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, (3..=21).collect::<Vec<_>>(), "{told:?}");
    for (line, words) in [
        (3, &["no userPrincipalName is written"][..]),
        (4, &["holds a space"]),
        (5, &["is not of the form name@domain"]),
        (6, &["this person is already in line 2"]),
        (7, &["has 2 fields where the header has 9"]),
        (8, &["has 10 fields where the header has 9"]),
        (9, &["can be read as two dates"]),
        (10, &["has no time of day"]),
        (11, &["has no offset and no time zone"]),
        (12, &["does not exist in Europe/Berlin"]),
        (13, &["happens twice in Europe/Berlin"]),
        (14, &["is a Windows zone name"]),
        (15, &["is not a known time zone"]),
        (16, &["is not a number of minutes from 10 to 43200"]),
        (17, &["is neither yes nor no"]),
        (18, &["is not one mail address"]),
        (19, &["is no language tag"]),
        (20, &["text follows the closing quote"]),
        (21, &["column startDateTime", "column lifetimeInMinutes", "column isUsableOnce"]),
    ] {
        let (_, reason) = told.iter().find(|(at, _)| *at == line).expect("told");
        for word in words {
            assert!(reason.contains(word), "line {line}: {word}: {reason}");
        }
    }
    said.says(["verdict: problems; nothing was issued"]);
}

// Case: no sample is forgotten here.
#[test]
fn every_sample_is_used() {
    let known = |name: &str| {
        WAVES.iter().any(|(wave, _)| *wave == name)
            || ["mistakes.csv", "tapwave.toml", "README.md", "register-app.sh", "register-app.ps1"]
                .contains(&name)
    };
    for entry in fs::read_dir(sample("")).expect("the samples") {
        let name = entry.expect("one").file_name().into_string().expect("text");
        assert!(known(&name), "samples/{name} is used by no test");
    }
}
