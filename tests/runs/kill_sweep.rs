//! Promises that a process that dies, or whose disk fails, at any durable write loses no pass,
//! issues none twice and vouches for none that is dead. Every write of the real program, one
//! after the other, until a process comes to its end undisturbed.
//!
//! Run with `cargo test --features failpoints --test integration kill_sweep`.

mod mails;

#[cfg(target_os = "linux")]
use std::process::Command;

use tapwave_simulator::options::{Call, Fault, Faults};

#[cfg(target_os = "linux")]
use crate::support::site::through;
use crate::support::site::{Site, Told};

/// More durable writes than any command here makes.
const ENOUGH: u64 = 200;

/// The command in whose writes the fault is, and what was done before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    Run,
    /// Of a run of which some rows failed and one was lost.
    Resume,
    Cleanup,
}

fn site(struck: Struck) -> Site {
    let mut faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    if struck == Struck::Resume {
        faults = faults.at(Call::Issue, 3, Fault::Forbidden).at(Call::Issue, 4, Fault::Forbidden);
    }
    Site::with(4, |options| options.faults = faults)
}

fn run_args(site: &Site) -> Vec<&str> {
    site.run_args(&["--settle-after", "100ms", "--max-in-flight", "1", "--json"])
}

fn strike(site: &Site, struck: Struck, fault: &str) -> Told {
    let args = match struck {
        Struck::Run => run_args(site),
        Struck::Resume => vec!["resume", "wave-run"],
        Struck::Cleanup => vec!["cleanup", "wave-run"],
    };
    let output = site.tapwave(&args).env("TAPWAVE_FAILPOINT", fault).output();
    Told::of(output.expect("started"))
}

/// Strikes at each write in turn; `after` looks at what is left each time.
fn sweep(struck: Struck, fault: &str, after: impl Fn(&Site, &str, &Told)) {
    for nth in 1..ENOUGH {
        let site = site(struck);
        match struck {
            Struck::Run => {}
            Struck::Resume => drop(site.told(&run_args(&site)).exits(4)),
            Struck::Cleanup => drop(site.told(&run_args(&site)).exits(0)),
        }
        let context = format!("{struck:?} with {fault}@{nth}");
        let told = strike(&site, struck, &format!("{fault}@{nth}"));
        if told.code == Some(0) {
            assert!(nth > 3, "{context}: the fault was never reached");
            return;
        }
        after(&site, &context, &told);
    }
    panic!("{struck:?}: {ENOUGH} writes and no end");
}

fn carried_on(site: &Site, context: &str) {
    if site.folder().join("ledger.db").exists() {
        // A pass that was deleted again is missed for the settling time.
        let told = site.end_as_time_passes(site.start(&["resume", "wave-run"]));
        assert_eq!(told.code, Some(0), "{context}: {told:?}");
    } else {
        // Nothing was begun: the folder counts as empty.
        let told = site.told(&run_args(site));
        assert_eq!(told.code, Some(0), "{context}: {told:?}");
    }
    site.assert_whole(context);
}

fn cleaned_up(site: &Site, context: &str) {
    let told = site.cleanup(&[]);
    assert_eq!(told.code, Some(0), "{context}: {told:?}");
    assert!(site.live().is_empty(), "{context}: {:?}", site.live());
}

#[test]
fn a_kill_at_any_write_of_a_run() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Run, fault, |site, context, _| {
            carried_on(site, context);
            cleaned_up(site, context);
        });
    }
}

#[test]
fn a_kill_at_any_write_of_a_resume() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Resume, fault, |site, context, _| carried_on(site, context));
    }
}

#[test]
fn a_kill_at_any_write_of_a_cleanup() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Cleanup, fault, |site, context, _| cleaned_up(site, context));
    }
}

#[test]
fn a_kill_of_a_run_is_cleaned_up_without_a_resume() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Run, fault, |site, context, _| {
            if site.folder().join("ledger.db").exists() {
                cleaned_up(site, context);
            } else {
                assert!(site.minted().is_empty(), "{context}");
            }
        });
    }
}

fn reported_the_disk(context: &str, told: &Told) {
    assert_eq!(told.code, Some(1), "{context}: {told:?}");
    let named = ["disk I/O error", "database or disk is full"];
    assert!(named.iter().any(|name| told.err.contains(name)), "{context}: {}", told.err);
    assert!(told.err.contains("failed to write"), "{context}: {}", told.err);
}

#[test]
fn a_disk_that_fails_at_any_commit_of_a_run() {
    for fault in ["eio", "enospc"] {
        sweep(Struck::Run, fault, |site, context, told| {
            reported_the_disk(context, told);
            // What cannot be committed is deleted again: each live pass is either sealed, or
            // the one whose answer was lost.
            let sealed = site.count("sealed");
            if !told.out.is_empty() {
                // A sealed pass that was not confirmed after a lost answer counts as unsettled.
                let summary = told.summary();
                let number = |name: &str| summary[name].as_u64().expect("a number");
                let (proven, open) = (number("sealed"), number("unsettled"));
                let sealed = sealed as u64;
                let honest = proven <= sealed && sealed <= proven + open;
                assert!(honest, "{context}: told what is not so: {summary}");
            }
            let lost = usize::from(site.seen(Call::Issue) >= 2);
            let live = site.live().len();
            assert!((sealed..=sealed + lost).contains(&live), "{context}: {live}, {sealed}");
            carried_on(site, context);
            cleaned_up(site, context);
        });
    }
}

#[test]
fn a_disk_that_keeps_a_write_it_reported_as_failed() {
    sweep(Struck::Run, "eio-after", |site, context, told| {
        reported_the_disk(context, told);
        carried_on(site, context);
        cleaned_up(site, context);
    });
    sweep(Struck::Resume, "eio-after", |site, context, told| {
        reported_the_disk(context, told);
        carried_on(site, context);
    });
}

#[test]
fn a_disk_that_fails_at_any_commit_of_a_resume_or_a_cleanup() {
    for fault in ["eio", "enospc"] {
        sweep(Struck::Resume, fault, |site, context, told| {
            reported_the_disk(context, told);
            carried_on(site, context);
        });
        sweep(Struck::Cleanup, fault, |site, context, told| {
            reported_the_disk(context, told);
            cleaned_up(site, context);
        });
    }
}

/// The real thing, where strace is at hand: the kernel says that a sync has failed, after the
/// bytes were written, so that they may well be found again. At each sync of a command in turn;
/// `after` looks at what is left each time. False if there is no strace.
#[cfg(target_os = "linux")]
fn sweep_syncs<Place>(
    place: impl Fn() -> (Place, Command),
    after: impl Fn(&Place, &str, &Told),
) -> bool {
    let mut disturbed = 0;
    for nth in 1..ENOUGH {
        let (place, command) = place();
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={nth}");
        let strace = [
            "strace",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            &inject,
        ];
        let mut traced = through(&strace, &command);
        let Ok(output) = traced.output() else { return false };
        let told = Told::of(output);
        let context = format!("sync {nth} of {command:?}");
        if told.code == Some(0) && nth > 3 {
            assert!(disturbed > 1, "{context}: only {disturbed} processes were disturbed");
            return true;
        }
        disturbed += u64::from(told.code != Some(0));
        assert!(!told.err.contains("panicked"), "{context}: {told:?}");
        after(&place, &context, &told);
    }
    panic!("{ENOUGH} syncs and no end");
}

#[cfg(target_os = "linux")]
#[test]
fn a_sync_of_a_run_that_fails_in_the_kernel() {
    let place = || {
        let site = site(Struck::Run);
        let run = site.tapwave(&run_args(&site));
        (site, run)
    };
    let traced = sweep_syncs(place, |site, context, _| {
        carried_on(site, context);
        cleaned_up(site, context);
    });
    if !traced {
        crate::runs::damaged::eprintln_skip("there is no strace here");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_sync_of_a_cleanup_that_fails_in_the_kernel() {
    let place = || {
        let site = site(Struck::Cleanup);
        drop(site.told(&run_args(&site)).exits(0));
        let cleanup = site.tapwave(&["cleanup", "wave-run"]);
        (site, cleanup)
    };
    let traced = sweep_syncs(place, |site, context, told| {
        // Whatever was proven is so by the tenant's word; what was not is not called done.
        assert!(told.code != Some(0) || site.live().is_empty(), "{context}: {told:?}");
        cleaned_up(site, context);
        assert!(crate::runs::cleanup::sealed_copies(site).is_empty(), "{context}");
    });
    if !traced {
        crate::runs::damaged::eprintln_skip("there is no strace here");
    }
}
