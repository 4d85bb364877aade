//! Promises that what lies in a folder is shown and never obeyed by a terminal, and that a log
//! of one's own choice is its owner's alone.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use tapwave_simulator::options::{Call, Fault, Faults};

use crate::support::site::{Site, Told};

/// Clears a screen, sets a title, an eight-bit escape, turns the direction of reading, takes no
/// room, and begins a line that looks like ours.
const STEERING: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{2066}\u{200b}\nerror: forged";

#[track_caller]
fn is_tame(told: &Told) {
    for words in [&told.err, &told.out] {
        let wild: Vec<char> =
            words.chars().filter(|c| *c != '\n' && tapwave_core::shown::steers(*c)).collect();
        assert!(wild.is_empty(), "{wild:?} in {words:?}");
        assert!(!words.contains("\nerror: forged"), "a line was forged: {words:?}");
    }
    assert!(
        told.err.contains(r"\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\u{2066}\u{200b}\u{a}error")
    );
}

#[test]
fn who_holds_a_run_is_shown_and_not_obeyed() {
    let site = Site::open(1);
    site.run(&[]).exits(0);
    let lock = File::open(site.folder().join("ledger.lock")).expect("there");
    lock.lock().expect("nobody else has it");
    for field in ["host", "command"] {
        let mut holder = serde_json::json!({
            "pid": 1, "host": "h", "command": "tapwave", "since": "2026-03-01T08:00:00Z"
        });
        holder[field] = STEERING.into();
        fs::write(site.folder().join("ledger.holder"), holder.to_string()).expect("written");
        is_tame(&site.resume().exits(2).says("in use by process 1"));
    }
}

#[test]
fn a_file_in_the_way_is_shown_and_not_obeyed() {
    let site = Site::open(1);
    fs::create_dir(site.folder()).expect("made");
    fs::set_permissions(site.folder(), Permissions::from_mode(0o700)).expect("set");
    fs::write(site.folder().join(STEERING), "").expect("written");
    is_tame(&site.run(&[]).exits(2).says("is not empty"));
    is_tame(&site.resume().exits(2).says("other things"));
}

#[test]
fn a_log_is_its_owners_alone_and_no_link_is_followed() {
    let site = Site::open(1);
    let logged = |name: &str| site.told(&["status", "wave-run", "--log", name]);
    site.run(&["--log", "own.jsonl"]).exits(0);
    let mode = fs::metadata(site.path("own.jsonl")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let before = fs::read(site.path("own.jsonl")).expect("there");
    assert!(!before.is_empty(), "control: something was logged");
    site.told(&["status", "wave-run", "--live", "--log", "own.jsonl"]).exits(0);
    let after = fs::read(site.path("own.jsonl")).expect("there");
    assert!(after.len() > before.len() && after.starts_with(&before), "it goes on");

    fs::write(site.path("elsewhere"), "").expect("written");
    symlink(site.path("elsewhere"), site.path("link")).expect("made");
    logged("link").exits(2).says("failed to open the log link");
    assert!(fs::read(site.path("elsewhere")).expect("there").is_empty());
    symlink(site.path("nowhere"), site.path("dangling")).expect("made");
    logged("dangling").exits(2);
    assert!(!site.path("nowhere").exists());

    // Behind a slash the system follows a link.
    fs::create_dir(site.path("folder")).expect("made");
    symlink(site.path("folder"), site.path("way")).expect("made");
    for place in ["link/", "way/", "way/."] {
        logged(place).exits(2).says("failed to open the log");
    }

    // A pipe that nobody reads would hold the program up.
    let pipe = std::process::Command::new("mkfifo").arg(site.path("pipe")).status();
    if pipe.is_ok_and(|pipe| pipe.success()) {
        logged("pipe").exits(2).says("failed to open the log pipe");
    }
    if rustix::process::geteuid().is_root() {
        fs::write(site.path("theirs"), "").expect("written");
        std::os::unix::fs::chown(site.path("theirs"), Some(65_534), None).expect("given away");
        logged("theirs").exits(2).says("it belongs to another user");
    }
}

#[test]
fn a_log_goes_on_where_there_is_one_and_into_nothing_else() {
    let site = Site::open(1);
    let logged =
        |name: &str| site.told(&["check", "wave.csv", "-r", site.recipient(), "--log", name]);
    let mode =
        |name: &str| fs::metadata(site.path(name)).expect("there").permissions().mode() & 0o777;
    let others = [
        ("notes.txt", "milk, bread\n"),
        ("wave.csv", "userPrincipalName\nuser1@contoso.example\n"),
        ("blank.txt", "\n"),
        ("other.jsonl", "{\"timestamp\":\"2027-03-01T08:00:00Z\",\"target\":\"tapwaves\"}\n"),
        ("undated.jsonl", "{\"timestamp\":\"now\",\"target\":\"tapwave\"}\n"),
    ];
    for (name, text) in others {
        fs::write(site.path(name), text).expect("written");
        logged(name).exits(2).says("no log of tapwave");
        assert_eq!(fs::read_to_string(site.path(name)).expect("there"), text);
    }
    // One that is there already becomes its owner's alone.
    fs::write(site.path("calls.jsonl"), "").expect("written");
    fs::set_permissions(site.path("calls.jsonl"), Permissions::from_mode(0o644)).expect("set");
    logged("calls.jsonl").exits(0);
    let first = fs::read(site.path("calls.jsonl")).expect("there");
    assert!(!first.is_empty(), "control: something was logged");
    logged("calls.jsonl").exits(0);
    assert!(fs::read(site.path("calls.jsonl")).expect("there").len() > first.len());
    assert_eq!(mode("calls.jsonl"), 0o600);
}

#[test]
fn rejected_rows_are_their_owners_alone() {
    let site = Site::open(2);
    site.dismiss("user2@contoso.example");
    site.run(&["--skip-ineligible", "--rejects", "bad.csv"]).exits(0);
    let about = fs::metadata(site.path("bad.csv")).expect("there");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_log_that_cannot_be_opened_is_reported() {
    let (site, told) = given_up_in("wave-run");
    assert!(!told.err.contains("not logged"), "control: {}", told.err);
    let log = site.folder().join("log.jsonl");
    fs::remove_file(&log).expect("removed");
    symlink(site.path("elsewhere"), &log).expect("made");
    let said = "warning: the calls of this run are not logged: failed to open";
    site.resume().says(said).says("log.jsonl");
    site.cleanup(&[]).says(said);
    assert!(!site.path("elsewhere").exists());
}

#[test]
fn a_slash_behind_it_makes_a_link_no_folder() {
    let site = Site::open(1);
    fs::create_dir(site.path("there")).expect("made");
    fs::set_permissions(site.path("there"), Permissions::from_mode(0o700)).expect("set");
    symlink(site.path("there"), site.path("wave-run")).expect("made");
    for place in ["wave-run", "wave-run/", "wave-run//", "wave-run/.", "./wave-run/./"] {
        let run = ["run", "wave.csv", "--run", place, "-r", site.recipient()];
        site.told(&run).exits(2).says("it is a symbolic link");
        site.told(&["resume", place]).exits(2).says("it is a symbolic link");
    }
    assert!(site.live().is_empty());
}

/// A run into this folder that gives up before its first pass.
fn given_up_in(folder: &str) -> (Site, Told) {
    let late = Fault::Throttled { retry_after: Some("3600".to_owned()) };
    let site = Site::with(1, |options| {
        options.faults = Faults::default().at(Call::Issue, 1, late);
    });
    let run = ["run", "wave.csv", "--run", folder, "-r", site.recipient(), "--settle-after", "1s"];
    let told = site.told(&run).exits(6);
    (site, told)
}

#[test]
fn a_hint_names_the_run_that_is_meant_as_a_shell_takes_it() {
    for folder in ["elsewhere/o'ther $wave", "tapwave-home/runs/-x", "tapwave-home/runs/plain"] {
        let (site, told) = given_up_in(folder);
        // Another run is begun in the meantime, and is the latest then.
        site.run(&["--existing", "skip", "--config", "/dev/null"]).exits(0);
        site.cleanup(&[]).exits(0);
        let commands = [
            told.command("nothing is lost: ", " carries on"),
            told.command("next: ", "   carries on"),
        ];
        assert_eq!(commands[0], commands[1]);
        site.pasted(&commands[0]).exits(0);
        assert_eq!(site.live().len(), 1, "{folder}: carried on");
        site.pasted(&told.command("      ", "   shows every row")).exits(0).says("1 sealed");
    }
}

#[test]
fn two_runs_of_one_name_are_distinguished() {
    let site = Site::open(1);
    let into = |folder| {
        let run = ["run", "wave.csv", "--run", folder, "-r", site.recipient()];
        let told = site.told(&[&run[..], &["--existing", "replace"]].concat()).exits(0);
        told.command("      ", "   removes them all when the wave is over")
    };
    let two = into("two/wave");
    // Long enough for the later pass to stand in the place of the earlier one.
    site.pass(std::time::Duration::from_secs(10));
    let cleanups = [two, into("one/wave")];
    let told = site.told(&["cleanup", "wave"]).exits(2).says("give the path");
    told.says(&site.resolved("one/wave")).says(&site.resolved("two/wave"));
    assert_eq!(site.live().len(), 1, "nobody chose for the operator");
    let listed = site.told(&["runs"]).exits(0).out;
    assert!(["one/wave", "two/wave"].iter().all(|run| listed.contains(&site.resolved(run))));
    let told = site.told(&["check", "wave.csv", "-r", site.recipient()]).exits(3);
    told.says(&format!("issued by run {};", site.resolved("one/wave")));
    for (cleanup, folder) in cleanups.iter().zip(["two/wave", "one/wave"]) {
        site.pasted(cleanup).exits(0).says(&format!("run folder: {}", site.resolved(folder)));
    }
    assert!(site.live().is_empty());
}

#[test]
fn the_hint_of_a_closed_run_is_its_cleanup() {
    let site = Site::open(1);
    site.run(&[]).exits(0);
    site.cleanup(&["--keep-sealed"]).exits(0);
    let told = site.resume().exits(2).says("a new run issues new passes");
    let cleanup = told.command("hint: ", " goes on with the cleanup");
    let (folder, graph) = (site.resolved("wave-run"), site.graph_url());
    assert_eq!(cleanup, format!("tapwave cleanup {folder} --auth token --graph-url {graph}"));
    site.pasted(&cleanup).exits(0).says("purged 1 sealed copy");
}

#[test]
fn an_existing_run_is_named_for_resuming() {
    let site = Site::open(1);
    fs::write(site.path("my.toml"), "").expect("written");
    let run = ["run", "wave.csv", "--run", "my run", "-r", site.recipient(), "--config", "my.toml"];
    site.told(&run).exits(0);
    let told = site.told(&run).exits(2).says("there is one already");
    let resume = told.command("hint: ", " carries on with the run that is there");
    let graph = site.graph_url();
    let ends = format!(" --config my.toml --auth token --graph-url {graph}");
    assert!(resume.ends_with(&ends), "{resume}");
    site.pasted(&resume).exits(0).says("settings: my.toml");
}
