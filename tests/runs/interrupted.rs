//! Promises that Ctrl-C ends a run without losing anything, and says how to go on.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tapwave_simulator::options::Call;

use crate::runs::resume::typed_resume;
use crate::support::hearing::hearing;
use crate::support::mailed_site::Mailed;
use crate::support::site::{Site, Started, through};

#[test]
fn the_first_signal_stops_new_work_and_finishes_what_is_in_flight() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let site = Site::open(40);
        site.hold(Call::Issue, 5);
        let inner = site.tapwave(&site.run_args(&["--max-in-flight", "3", "--json"]));
        let run = Started::of(piped(hearing(&inner)));
        site.until_held(3);
        run.signal(signal);
        site.until("it has heard that", |_| run.has_said("stopping: what is in flight"));
        site.let_go();
        let told = run.end().exits(130);
        let summary = told.summary();
        told.says("stopping: what is in flight is finished").says(&typed_resume(&site));
        assert_eq!(site.live().len(), 7, "what was in flight, and no more");
        assert_eq!(summary["sealed"], 7, "{summary}");
        assert_eq!(summary["unsettled"], 0, "{summary}");
        site.assert_true("after the signal");
        assert_eq!(site.seen(Call::Issue), 7, "nothing in flight was given up");
        site.resume().exits(0);
        site.assert_whole("after the resume");
        assert_eq!(site.seen(Call::Issue), 40, "nobody was asked for twice");
    }
}

#[test]
fn the_second_signal_exits_at_once_and_keeps_what_was_committed() {
    let site = Site::open(12);
    // What is in flight from then on will not be answered while it runs.
    site.hold(Call::Issue, 5);
    let run = site.start(&site.run_args(&["--max-in-flight", "2"]));
    site.until_held(2);
    site.until("what was answered is sealed", |site| site.count("sealed") == 4);
    run.signal(Signal::INT);
    // A signal that has not been taken yet would swallow the next of its kind.
    site.until("it has heard the first", |_| run.has_said("stopping: what is in flight"));
    run.signal(Signal::TERM);
    let told = run.end().exits(130);
    told.says("left at once").says(&format!("{} carries on", typed_resume(&site)));
    assert_eq!(site.count("sealed"), 4, "nothing committed is lost");
    site.let_go();
    site.resume().exits(0);
    site.assert_whole("after the resume");
}

/// A window that is closed sends several: the shell's, and the system's own.
#[test]
fn hanging_up_again_never_leaves_at_once() {
    let site = Site::open(20);
    site.hold(Call::Issue, 5);
    let inner = site.tapwave(&site.run_args(&["--max-in-flight", "3"]));
    let run = Started::of(piped(hearing(&inner)));
    site.until_held(3);
    for _ in 0..3 {
        run.signal(Signal::HUP);
        taken(&site, run.id());
        site.until("it has heard that", |_| run.has_said("stopping: what is in flight"));
    }
    site.let_go();
    run.end().exits(130).says("stopping: what is in flight is finished");
    assert_eq!(site.seen(Call::Issue), site.live().len() as u64, "nothing was given up");
    site.assert_true("after the signals");
}

/// As `nohup` starts it.
#[test]
fn a_run_that_ignores_hangups_outlives_the_terminal() {
    let site = Site::open(20);
    site.hold(Call::Issue, 5);
    let inner = site.tapwave(&site.run_args(&["--max-in-flight", "2"]));
    let run = Started::of(through(&["sh", "-c", r#"trap "" HUP; exec "$0" "$@""#], &inner));
    site.until_held(2);
    run.signal(Signal::HUP);
    site.let_go();
    run.end().exits(0);
    site.assert_whole("after the signal");
}

/// Before a pass is asked for, there is nothing to finish: whatever is waited for is given up.
#[test]
fn a_wait_before_the_run_is_given_up_at_once() {
    let mailed = Mailed::with(3, |_| {});
    let site = &mailed.site;
    let settings = fs::read_to_string(site.path("tapwave.toml")).expect("there");
    let command = r#"password_command = ["sh", "-c", ": >asked; exec sleep 600"]"#;
    let settings = settings.replace(r#"password_env = "SMTP_PASSWORD""#, command);
    site.settings(&settings);
    let mail = ["--deliver", "--to", "column:deliverTo"];
    let run = site.start(&site.run_args(&mail));
    site.until("the password is asked for", |site| site.path("asked").exists());
    run.signal(Signal::INT);
    run.end().exits(130).says("interrupted while checking; nothing was changed");
    assert!(!site.folder().exists(), "no folder of a run that never was");
    assert_eq!(site.seen(Call::Issue), 0);
}

/// The file-size limit of the shell that starts it: the first file that reaches it cannot be written.
#[test]
fn a_limit_on_the_size_of_files_is_an_error_like_any_other() {
    let site = Site::open(300);
    let inner = site.tapwave(&site.run_args(&[]));
    let limited = through(&["sh", "-c", r#"ulimit -f 800; exec "$0" "$@""#], &inner);
    let told = Started::of(limited).end();
    assert_eq!(told.code, Some(1), "not ended by a signal: {told:?}");
    site.resume().exits(0);
    site.assert_whole("after the resume");
}

/// What it says is heard.
fn piped(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A signal that has not been taken yet would swallow the next of its kind.
pub(crate) fn taken(site: &Site, run: u32) {
    site.until("it has heard the signal", |_| {
        let state = fs::read_to_string(format!("/proc/{run}/status"));
        state.map_or(true, |state| {
            let pending = |name| state.contains(&format!("{name}:\t0000000000000000"));
            pending("SigPnd") && pending("ShdPnd")
        })
    });
}
