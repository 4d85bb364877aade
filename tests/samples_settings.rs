//! The sample settings: promises that they load, that they name every key the program knows,
//! and that the waves beside them work with them as a new user would try.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use tapwave::args::{Common, MailArgs, WaveArgs};
use tapwave::config::{RunConfig, Settings, SettingsError};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("samples")
}

fn sample() -> String {
    fs::read_to_string(samples().join("tapwave.toml")).expect("readable")
}

fn load(path: &Path) -> Result<Settings, SettingsError> {
    Settings::load(&Common { config: Some(path.to_owned()), ..Common::default() }, &|_: &str| None)
}

fn load_text(text: &str) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tapwave.toml");
    fs::write(&path, text).expect("written");
    load(&path)
}

/// Every key the program knows, as its own error lists them.
fn known_keys() -> BTreeSet<String> {
    let error = load_text("no_such_key = 1").expect_err("an unknown key").to_string();
    let (_, list) = error.split_once("expected one of").expect("the error lists the keys");
    list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect()
}

/// A setting that is switched off: `#key = value`. An explanation has a blank after the `#`.
fn switched_on(line: &str) -> &str {
    match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
        _ => line,
    }
}

#[test]
fn the_sample_loads_with_the_labels_that_the_waves_name() {
    let settings = load(&samples().join("tapwave.toml")).expect("it loads");
    let labels: Vec<&str> = settings.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["helpdesk", "site-ams", "site-ber"]);
    assert_eq!(settings.recipients, ["helpdesk"]);
    let config = RunConfig::resolve(&WaveArgs::default(), &MailArgs::default(), &settings);
    let options = config.expect("within bounds").options;
    assert_eq!((options.lifetime_minutes, options.one_time), (Some(480), Some(false)));
}

#[test]
fn the_sample_names_every_key_once() {
    let known = known_keys();
    assert!(known.contains("break_glass") && known.len() > 10, "{known:?}");
    let text = sample();
    let named: Vec<String> = text
        .lines()
        .map(switched_on)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| key.to_owned()))
        .filter(|key| !key.starts_with('#'))
        .chain(
            text.lines()
                .filter_map(|line| Some(line.strip_prefix('[')?.trim_end_matches(']').to_owned())),
        )
        .collect();
    let once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(once.len(), named.len(), "a key is named twice: {named:?}");
    assert_eq!(once, known, "write the missing keys into samples/tapwave.toml, with a comment");
}

#[test]
fn every_example_value_is_a_good_one() {
    let text = sample();
    // A secret comes from a file or from a command, not from both.
    let all: Vec<&str> =
        text.lines().map(switched_on).filter(|line| !line.contains("_command = ")).collect();
    let settings = load_text(&all.join("\n")).expect("every value is accepted");
    assert_eq!(settings.tenant.as_deref(), Some("contoso.example"));
    assert!((settings.limiter.max_rate.expect("set") - 20.0).abs() < f64::EPSILON);
}

#[test]
fn every_sample_but_the_mistakes_rehearses_with_the_settings() {
    let home = tempfile::tempdir().expect("a folder");
    for wave in
        ["wave.csv", "new-starters.csv", "excel-export.csv", "portal-export.csv", "utf16.csv"]
    {
        let done = Command::new(env!("CARGO_BIN_EXE_tapwave"))
            .current_dir(samples())
            .env_clear()
            .env("TAPWAVE_HOME", home.path())
            .args(["rehearse", wave, "--json"])
            .assert()
            .code(0);
        let summary: serde_json::Value =
            serde_json::from_slice(&done.get_output().stdout).expect("one object");
        assert_eq!(summary["removed"], summary["rows"], "{wave}: {summary}");
    }
}

#[test]
fn the_sample_of_mistakes_is_refused_with_every_mistake() {
    let refused = Command::new(env!("CARGO_BIN_EXE_tapwave"))
        .current_dir(samples())
        .env_clear()
        .args(["rehearse", "mistakes.csv"])
        .assert()
        .code(3);
    let told = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    for word in ["this person is already in line 2", "no time of day", "tomorrow"] {
        assert!(told.contains(word), "{word}: {told}");
    }
}
