//! Promises that the program on a terminal always comes to its end: bars or not, with nobody
//! who looks, with keys that say stop, and when the terminal is closed. The terminal is left as
//! it was found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use age::secrecy::SecretString;
use rustix::process::Signal;
use tapwave_simulator::options::Call;

use crate::runs::interrupted::taken;
use crate::support::hearing::hearing;
use crate::support::pty::Window;
use crate::support::site::{Site, listens};

const CTRL_C: &[u8] = b"\x03";
const CTRL_D: &[u8] = b"\x04";
const SHOW_CURSOR: &str = "\x1b[?25h";
const HIDE_CURSOR: &str = "\x1b[?25l";

#[test]
fn a_run_with_bars_comes_to_its_end() {
    let site = Site::open(400);
    let mut window = Window::open(&site.tapwave(&site.run_args(&["--max-rate", "1000"])));
    let (code, shown) = window.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("issuing ["), "a bar was drawn: {shown}");
    site.assert_whole("after a run on a terminal");
}

/// A connection that stalls: every word and every bar waits for it, with what it holds.
#[test]
fn a_second_signal_works_while_output_waits_for_the_terminal() {
    for full_at_first in [true, false] {
        let site = Site::open(60);
        // What is in flight from then on will not be answered while it runs.
        site.hold(Call::Issue, 5);
        let args = site.run_args(&["--max-in-flight", "4"]);
        let mut window = Window::open(&site.tapwave(&args));
        if !full_at_first {
            site.until_held(4);
        }
        window.fill();
        site.until("it can be told", |_| listens(window.id()));
        window.signal(Signal::INT);
        // A signal that has not been taken yet would swallow the next of its kind.
        window.signal(Signal::TERM);
        assert_eq!(window.end_unseen(), Some(130), "full at first: {full_at_first}");
        site.let_go();
    }
}

#[test]
fn a_terminal_that_is_closed_lets_what_is_in_flight_be_finished() {
    let site = Site::open(40);
    site.hold(Call::Issue, 5);
    let args = site.run_args(&["--max-in-flight", "3", "--json"]);
    let mut window = Window::open(&hearing(&site.tapwave(&args)));
    site.until_held(3);
    window.close();
    taken(&site, window.id());
    // Nobody reads a closed window's acknowledgement.
    site.until("it stops", |site| site.has_logged("stopping"));
    site.let_go();
    assert_eq!(window.end_unseen(), Some(130));
    let live = site.live().len();
    assert!(live < 40, "stopped before the end");
    site.assert_true("after the terminal was closed");
    assert_eq!(site.seen(Call::Issue), live as u64, "nothing in flight was given up");
    site.resume().exits(0);
    site.assert_whole("after the resume");
    assert_eq!(site.seen(Call::Issue), 40, "nobody was asked for twice");
}

#[test]
fn an_interrupted_passphrase_prompt_ends_and_restores_the_echo() {
    for by_key in [true, false] {
        let site = Site::open(1);
        lock(&site, "locked.age");
        let mut window = Window::open(&site.tapwave(&["open", "nothing", "-i", "locked.age"]));
        window.until_shown("passphrase for");
        window.until_it_echoes(false);
        if by_key {
            window.press(CTRL_C);
        } else {
            window.signal(Signal::TERM);
        }
        let (code, shown) = window.end();
        assert_eq!(code, Some(130), "{shown}");
        assert!(shown.contains("interrupted; nothing was changed"), "{shown}");
        assert!(window.echoes(), "what is typed is shown again");
    }
}

#[test]
fn an_interrupted_question_ends_and_restores_the_cursor() {
    for by_key in [true, false] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let mut window = Window::open(&site.tapwave(&["cleanup", "--csv", "wave.csv"]));
        window.until_shown("whoever issued them?");
        window.until_it_echoes(false);
        if by_key {
            window.press(CTRL_C);
        } else {
            window.signal(Signal::INT);
        }
        let (code, shown) = window.end();
        assert_eq!(code, Some(130), "{shown}");
        assert!(shown.contains("interrupted; nothing was changed"), "{shown}");
        assert!(shown.rfind(SHOW_CURSOR) > shown.rfind(HIDE_CURSOR), "{shown:?}");
        assert!(window.echoes(), "what is typed is shown again");
        assert_eq!(site.live().len(), 3, "nothing was removed");
    }
}

/// A control: the same question ends by an answer, which is no interruption.
#[test]
fn a_question_that_is_answered_is_obeyed() {
    for (answer, code, left) in [(&b"n"[..], 0, 3), (b"y", 0, 0), (CTRL_D, 0, 3)] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let mut window = Window::open(&site.tapwave(&["cleanup", "--csv", "wave.csv"]));
        window.until_shown("whoever issued them?");
        window.until_it_echoes(false);
        window.press(answer);
        if answer == CTRL_D {
            // No answer to this question; the key that is one ends it.
            window.press(b"\r");
        }
        let (ended, shown) = window.end();
        assert_eq!((ended, site.live().len()), (Some(code), left), "{shown}");
    }
}

#[test]
fn an_interrupted_wait_for_a_key_leaves_no_partial_file() {
    let site = Site::open(2);
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin");
    let keys = Command::new(plugins.join("age-plugin-tapwavetest")).output().expect("python3");
    let keys = String::from_utf8(keys.stdout).expect("text");
    let key = |start: &str| keys.split_whitespace().find(|word| word.starts_with(start));
    fs::write(site.path("key.txt"), key("AGE-PLUGIN-").expect("an identity")).expect("written");
    let path = std::env::join_paths([plugins, "/usr/bin".into(), "/bin".into()]).expect("a path");
    let recipient = key("age1tapwavetest1").expect("a recipient");
    let mut run = site.tapwave(&["run", "wave.csv", "--run", "wave-run", "-r", recipient]);
    assert!(run.env("PATH", path).output().expect("started").status.success());
    let hangs = site.path("hangs");
    fs::create_dir(&hangs).expect("made");
    let script = hangs.join("age-plugin-tapwavetest");
    fs::write(&script, "#!/bin/sh\n: >\"$TAPWAVE_HOME/asked\"\nexec /bin/sleep 600\n")
        .expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
    let mut open = site.tapwave(&["open", "wave-run", "-i", "key.txt", "-o", "plain.csv"]);
    open.env("PATH", &hangs);
    let mut window = Window::open(&open);
    site.until("the plugin is asked", |site| site.path("tapwave-home/asked").exists());
    window.press(CTRL_C);
    let (code, shown) = window.end();
    assert_eq!(code, Some(130), "{shown}");
    assert!(!site.path("plain.csv").exists());
}

/// Not even the system can take back the opening of a pipe that nobody writes to.
#[test]
fn an_empty_pipe_does_not_block() {
    let site = Site::open(1);
    let made = Command::new("mkfifo").arg(site.path("pipe.csv")).status().expect("mkfifo");
    assert!(made.success());
    let check = site.tapwave(&["check", "pipe.csv", "-r", site.recipient()]);
    let mut window = Window::open(&check);
    site.until("it can be told", |_| listens(window.id()));
    window.press(CTRL_C);
    let (code, shown) = window.end();
    assert_eq!(code, Some(130), "{shown}");
}

/// An identity file that a passphrase protects.
fn lock(site: &Site, name: &str) {
    let identity = fs::read(site.path("id.txt")).expect("an identity");
    let mut recipient = age::scrypt::Recipient::new(SecretString::from("hard to guess"));
    recipient.set_work_factor(2);
    let locked = age::encrypt(&recipient, &identity).expect("encrypted");
    fs::write(site.path(name), locked).expect("written");
}
