//! Promises that a program which dies with passes in its hands leaves no core file, and that
//! nobody else of the same user may read its memory. Each with a process beside it to which that
//! does happen: what cannot be shown on a machine is said to be skipped.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use tapwave_simulator::options::Call;

use crate::runs::damaged::eprintln_skip;
use crate::support::site::{Site, Started, files, through};

/// Raises the limit as far as it goes, and becomes the program.
const WITH_CORES: [&str; 4] = ["sh", "-c", "ulimit -c unlimited && exec \"$@\"", "sh"];

/// Ends a process by a signal that makes a core; how it ended.
fn crashed(started: Started, signal: Signal) -> ExitStatus {
    started.signal(signal);
    started.status()
}

fn sleeper(site: &Site) -> Command {
    let mut sleeper = site.as_same_user("sleep");
    sleeper.arg("600").env("PLANTED", "1");
    sleeper
}

/// Until it has become the program, it is another.
fn is_asleep(sleeper: &Started) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", sleeper.id()));
    name.is_ok_and(|name| name == "sleep\n")
}

/// How large a core file may be, now and at most.
fn limits(started: &Started) -> [String; 2] {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", started.id())).expect("there");
    let line = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = line.expect("a limit").split_whitespace().collect();
    [words[4].to_owned(), words[5].to_owned()]
}

fn cores(site: &Site) -> Vec<std::path::PathBuf> {
    let here = files(site.home.path()).into_iter();
    here.filter(|file| file.to_string_lossy().contains("core")).collect()
}

/// A run that has passes in its hands and does not end before it is let go.
fn busy(site: &Site, wrap: impl Fn(&Command) -> Command) -> Started {
    site.hold(Call::Issue, 17);
    let args = site.run_args(&["--max-in-flight", "8"]);
    let run = Started::of(wrap(&site.tapwave(&args)));
    site.until_held(8);
    run
}

#[test]
fn a_crash_leaves_no_core_file() {
    // SIGSEGV from outside is taken by Rust's own handler for stacks that overflow.
    for signal in [Signal::ABORT, Signal::ILL] {
        let site = Site::open(40);
        let with_cores = |command: &Command| through(&WITH_CORES, command);
        let control = Started::of(with_cores(&sleeper(&site)));
        site.until("it sleeps", |_| is_asleep(&control));
        let control = crashed(control, signal);
        if !control.core_dumped() {
            return eprintln_skip("no process of this user makes core files here");
        }
        for core in cores(&site) {
            std::fs::remove_file(core).expect("removed");
        }
        let run = busy(&site, with_cores);
        assert_eq!(limits(&run), ["0", "0"], "none now, nor can it be raised again");
        let ended = crashed(run, signal);
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
        assert!(!ended.core_dumped(), "a core was made");
        assert!(cores(&site).is_empty(), "{:?}", cores(&site));
        // And nothing is lost by it.
        site.let_go();
        site.resume().exits(0);
        site.assert_whole("after the crash");
    }
}

#[test]
fn other_processes_of_the_user_cannot_read_its_memory() {
    let mut site = Site::open(40);
    if !site.without_rights() {
        return eprintln_skip("root may read any process, and cannot leave its rights here");
    }
    // The first byte of what the kernel shows to whoever may trace; and tracing.
    let reads = |what: &str, id: u32| {
        let mut read = site.as_same_user("head");
        read.args(["-c", "1"]).arg(format!("/proc/{id}/{what}"));
        read.output().is_ok_and(|told| told.status.success() && !told.stdout.is_empty())
    };
    let attaches = |id: u32| {
        let mut trace = site.as_same_user("timeout");
        trace.args(["--signal=INT", "1", "strace", "-p", &id.to_string()]);
        let told = trace.output().expect("started");
        String::from_utf8_lossy(&told.stderr).contains("attached")
    };
    let sleeper = Started::of(sleeper(&site));
    site.until("it sleeps", |_| is_asleep(&sleeper));
    let run = busy(&site, |command| through(&["env"], command));
    for what in ["environ", "maps", "auxv"] {
        if reads(what, sleeper.id()) {
            assert!(!reads(what, run.id()), "{what} of the program can be read");
        } else {
            eprintln_skip(&format!("nobody may read {what} of another process here"));
        }
    }
    if attaches(sleeper.id()) {
        assert!(!attaches(run.id()), "the program can be traced");
    } else {
        eprintln_skip("nobody may trace another process here, or there is no strace");
    }
    drop(run.kill());
    drop(sleeper.kill());
}
