//! Promises that a rehearsal does the whole job without an account, leaves nothing behind, and
//! that the words around all commands keep to their form.

use std::fs;
#[cfg(unix)]
use std::io::{BufRead, BufReader};
#[cfg(unix)]
use std::process::Stdio;

use tapwave_simulator::Tenant;

use crate::support::bench::{Bench, Said, keys};

/// A folder and no tenant that anybody could reach.
fn bench() -> Bench {
    Bench::new(Tenant::for_wave(["nobody@contoso.example"], 1))
}

/// Runs without a flag that names Graph.
fn alone(bench: &Bench, arguments: &[&str]) -> Said {
    Said::of(bench.command(arguments).env_remove("TAPWAVE_ACCESS_TOKEN"))
}

// Case: a person without an account, a wave or a key types the first command.
#[test]
fn a_rehearsal_needs_nothing() {
    let bench = bench();
    let said = alone(&bench, &["rehearse", "--rows", "5"]).ends(0);
    assert_eq!(said.out, "");
    said.says([
        "rehearsal: a simulated tenant inside this program; nothing leaves this machine",
        "invented 5 people",
        "made a throw-away identity, age1",
        "issued and sealed 5 passes",
        ": 5 passes, each the one that lives in the tenant",
        "removed 5 passes",
        "looked again: none of these passes is left",
        "what happened: 5 people got their own Temporary Access Pass",
    ])
    .says(["tapwave keygen -o key.txt", "tapwave run WAVE.csv -r age1…", "tapwave cleanup latest"])
    .hides("AGE-SECRET-KEY");
    bench.is_untouched();
    assert!(!bench.path("home").exists(), "it is no run of this machine");
}

// Case: what a rehearsal tells to type for the real thing is pasted, and needs nothing added.
#[cfg(unix)]
#[test]
fn what_a_rehearsal_teaches_works_as_it_stands() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    let settings = format!(
        "graph_url = \"{}\"\nauth = \"token\"\n[recipients]\nhelpdesk = \"{}\"\n",
        bench.graph_url(),
        it.key
    );
    bench.write("our settings.toml", settings);
    let flags = ["--config", "our settings.toml", "-r", "helpdesk", "--multi-use"];
    let rehearse = [&["rehearse", "wave.csv"], &flags[..]].concat();
    let said = Said::of(&mut bench.command(&rehearse)).ends(0);
    bench.is_untouched();
    bench.pasted(&said.command("is everything ready? changes nothing")).ends(0);
    bench.pasted(&said.command("issues, seals, writes the handoff")).ends(0);
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
    bench.pasted(&said.command("reads the passes")).ends(0);
    bench.pasted(&said.command("removes every pass when the wave is over")).ends(0);
    assert_eq!(bench.codes().len(), 0);
}

// Case: a wave with problems is rehearsed, and mended.
#[cfg(unix)]
#[test]
fn problems_of_a_rehearsal_are_mended_in_a_rehearsal() {
    let bench = bench();
    bench.write("our wave.csv", "UPN,lifetimeInMinutes\nada@contoso.example,9\n");
    bench.write("rejects.csv", "somebody's");
    let said = alone(&bench, &["rehearse", "our wave.csv"]).ends(3);
    let why = "writes these rows to a file so that you can correct them; --skip-ineligible leaves them out";
    assert_eq!(said.command(why), "tapwave rehearse 'our wave.csv' --rejects rejects-2.csv");
    let last = said.err.lines().last();
    assert!(last.is_some_and(|line| line.starts_with("next: ")), "{}", said.err);
    let said = bench.pasted(&said.command(why)).ends(3);
    assert_eq!(said.command("once its rows are mended"), "tapwave rehearse rejects-2.csv");
    bench.write("rejects-2.csv", bench.read("rejects-2.csv").replace(",9", ",60"));
    bench.pasted("tapwave rehearse rejects-2.csv").ends(0);
}

// Case: Ctrl-C. Nothing outlives a rehearsal, so that there is nothing to resume or report.
#[cfg(unix)]
#[test]
fn a_rehearsal_can_be_broken_off() {
    let bench = bench();
    let mut command = bench.command(&["rehearse", "--rows", "40", "--profile", "window"]);
    let mut rehearsal =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("begun");
    let said = BufReader::new(rehearsal.stderr.take().expect("its words")).lines();
    let mut said = said.map(|line| line.expect("text"));
    assert!(said.any(|line| line.starts_with("checked 40 rows")), "it ended before");
    let pid = i32::try_from(rehearsal.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT).expect("sent");
    let rest: Vec<String> = said.collect();
    assert_eq!(rehearsal.wait().expect("ended").code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("broken off")), "{rest:?}");
    assert!(!rest.iter().any(|line| line.starts_with("error")), "{rest:?}");
}

// Case: more people than a wave may have.
#[test]
fn nobody_invents_more_people_than_a_wave_may_have() {
    alone(&bench(), &["rehearse", "--rows", "1000001"]).ends(2).says(["1..=1000000"]);
}

// Case: one person is one person.
#[test]
fn plurals_are_right() {
    let bench = bench();
    let said = alone(&bench, &["rehearse", "--rows", "1"]).ends(0);
    said.says(["invented 1 person", "1 pass with", ": 1 pass, each", "1 person got"]);
}

// Case: a script rehearses.
#[test]
fn a_rehearsal_ends_with_one_summary() {
    let bench = bench();
    let said = alone(&bench, &["rehearse", "--rows", "3", "--json", "-q"]).ends(0);
    assert_eq!(said.err, "");
    let summary = said.json();
    assert_eq!(summary["schema"], "tapwave.summary/1");
    assert_eq!(keys(&summary).len(), 17);
    for (name, value) in [("rows", 3), ("issued", 3), ("removed", 3), ("sealed", 0)] {
        assert_eq!(summary[name], value, "{name}");
    }
}

// Case: the same seed makes the same tenant.
#[test]
fn flags_of_run_are_rehearsed_too() {
    let bench = bench();
    let flags = ["rehearse", "--rows", "2", "--lifetime", "30"];
    let said = alone(&bench, &flags).ends(3);
    said.says(["asks for 30 minutes; the policy allows 60 to 480"])
        .says(["a real run would stop here too, before the first pass"]);
    alone(&bench, &["rehearse", "--rows", "2", "--one-time", "--group", "Onboarding"]).ends(0);
    alone(&bench, &["rehearse", "missing.csv"]).ends(2).says(["failed to open missing.csv"]);
}

// Case: what every command says keeps to the style: lower case, no full stop at a line's end.
#[test]
fn words_keep_to_their_form() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    let run = ["run", "wave.csv", "-r", &it.key];
    let commands: [&[&str]; 10] = [
        &["check", "wave.csv", "-r", &it.key],
        &["check", "wave.csv"],
        &["run", "wave.csv"],
        &run,
        &run,
        &["status", "latest"],
        &["runs"],
        &["open", "latest", "-i", "missing.txt"],
        &["cleanup", "latest"],
        &["open", "latest", "-i", &it.file],
    ];
    for command in commands {
        let said = bench.tapwave(command);
        for line in said.err.lines() {
            assert!(!line.ends_with('.') && !line.ends_with(' '), "{command:?}: {line:?}");
            let first = line.chars().next().unwrap_or(' ');
            assert!(!first.is_uppercase() || line.starts_with("LINE "), "{command:?}: {line}");
        }
        assert!(!said.err.contains('\u{1b}'), "{command:?}: no colour where no terminal is");
    }
}

// Case: help, version, completions and the manual page need nothing.
#[test]
fn help_and_papers_come_without_settings() {
    let bench = bench();
    bench.write("tapwave.toml", "this is not = = TOML");
    for (arguments, part) in [
        (&["--help"][..], "Exit codes: 0 all done"),
        (&["run", "--help"], "--recipient"),
        (&["--version"], "tapwave "),
        (&["completions", "bash"], "_tapwave"),
        (&["man"], ".TH tapwave"),
    ] {
        let said = alone(&bench, arguments).ends(0);
        assert!(said.out.contains(part), "{arguments:?}");
    }
    for arguments in [&[][..], &["rum"], &["cleanup"], &["run"]] {
        alone(&bench, arguments).ends(2);
    }
}

// Case: no run has been made on this machine.
#[test]
fn no_runs_is_no_error() {
    let bench = bench();
    alone(&bench, &["runs"]).ends(0).says(["no runs on this machine yet"]);
    let said = alone(&bench, &["runs", "--json"]).ends(0);
    assert_eq!(said.json()["runs"], serde_json::json!([]));
    for command in [&["status", "latest"][..], &["resume", "latest"], &["cleanup", "latest"]] {
        alone(&bench, command).ends(2).says(["`tapwave run WAVE.csv -r RECIPIENT` starts one"]);
    }
    let made = fs::read_dir(bench.path("")).expect("the folder").count();
    assert_eq!(made, 0, "looking makes nothing");
}
