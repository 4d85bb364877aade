//! Promises that no mail is doubled by itself, none forgotten and none carries a dead pass when
//! a process that mails dies, or its disk fails, at any durable write.

use std::collections::BTreeMap;

use tapwave_simulator::options::{Call, Fault, Faults};

use super::{ENOUGH, cleaned_up, reported_the_disk};
use crate::support::mailed_site::{IDENTITY, Mailed, body, reader_of};
use crate::support::site::Told;
use crate::support::smtp::Taken;

/// The command in whose writes the fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    /// `run --deliver` without an identity: each pass waits for its mail.
    Run,
    /// `run --deliver` that an identity lets run ahead.
    RunAhead,
    /// `resume` of a run with mail of which rows failed and one answer was lost.
    Resume,
    /// `deliver` of what was sealed before.
    Deliver,
    /// `deliver --resend-unsettled` of a mail whose answer was lost.
    Resend,
    /// `cleanup` of what was mailed.
    Cleanup,
}

const PEOPLE: usize = 2;

impl Struck {
    fn place(self) -> Mailed {
        let mut faults = Faults::default();
        if self != Self::Deliver {
            faults = faults.at(Call::Issue, 2, Fault::LostAfter);
        }
        if self == Self::Resume {
            faults = faults.at(Call::Issue, 3, Fault::Forbidden);
        }
        let mailed = Mailed::with(PEOPLE, |options| options.faults = faults);
        match self {
            Self::Run | Self::RunAhead => {}
            Self::Resume => drop(mailed.told(&run_args(&mailed, self)).exits(4)),
            Self::Cleanup => drop(mailed.told(&run_args(&mailed, self)).exits(0)),
            Self::Deliver => drop(mailed.told(&mailed.site.run_args(&ON_THE_SPOT)).exits(0)),
            Self::Resend => {
                mailed.relay.change(|manner| {
                    manner.faults.push_back(crate::support::smtp::Fault::CutAfterDot);
                });
                drop(mailed.told(&run_args(&mailed, self)).exits(7));
            }
        }
        mailed
    }

    fn args(self, mailed: &Mailed) -> Vec<&str> {
        match self {
            Self::Run | Self::RunAhead => run_args(mailed, self),
            Self::Resume => [&["resume", "wave-run"], &IDENTITY[..]].concat(),
            Self::Deliver => [&["deliver", "wave-run"], &IDENTITY[..]].concat(),
            Self::Resend => {
                [&["deliver", "wave-run", "--resend-unsettled"], &IDENTITY[..]].concat()
            }
            Self::Cleanup => vec!["cleanup", "wave-run"],
        }
    }
}

const ON_THE_SPOT: [&str; 4] = ["--settle-after", "100ms", "--max-in-flight", "1"];

fn run_args(mailed: &Mailed, struck: Struck) -> Vec<&str> {
    let ahead: &[&str] = if struck == Struck::RunAhead { &IDENTITY } else { &[] };
    mailed.site.run_args(&[&ON_THE_SPOT[..], &["--deliver"], ahead].concat())
}

/// Strikes at each write in turn; `after` looks at what is left each time.
fn sweep(struck: Struck, fault: &str, after: impl Fn(&Mailed, &str, &Told)) {
    for nth in 1..ENOUGH {
        let mailed = struck.place();
        let context = format!("{struck:?} with {fault}@{nth}");
        let mut command = mailed.tapwave(&struck.args(&mailed));
        command.env("TAPWAVE_FAILPOINT", format!("{fault}@{nth}"));
        let told = Told::of(command.output().expect("started"));
        if told.code == Some(0) {
            assert!(nth > 2, "{context}: the fault was never reached");
            return;
        }
        after(&mailed, &context, &told);
    }
    panic!("{struck:?}: {ENOUGH} writes and no end");
}

/// The same commands again until all is done; judged after each.
fn carried_on(mailed: &Mailed, context: &str) {
    let asked: Vec<&str> = if mailed.site.folder().join("ledger.db").exists() {
        vec!["resume", "wave-run"]
    } else {
        // Nothing was begun: the folder counts as empty.
        run_args(mailed, Struck::Run)
    };
    // 7 while a mail waits for an identity or is of unknown fate.
    let told = mailed.told(&asked);
    assert!(matches!(told.code, Some(0 | 7)), "{context}: {told:?}");
    mailed.site.assert_whole(context);
    mailed.assert_once(context);
    delivered(mailed, context);
}

/// Mails the rest; what is of unknown fate is repeated by request alone, with the same bytes.
fn delivered(mailed: &Mailed, context: &str) {
    let told = mailed.deliver(&[]);
    let lost = mailed.assert_once(context);
    let expected = if lost.is_empty() { 0 } else { 7 };
    assert_eq!(told.code, Some(expected), "{context}: {lost:?} {told:?}");
    if !lost.is_empty() {
        let told = mailed.deliver(&["--resend-unsettled"]);
        assert_eq!(told.code, Some(0), "{context}: {told:?}");
    }
    mailed.assert_all(context, &lost);
}

fn carried_on_and_cleaned_up(mailed: &Mailed, context: &str, _: &Told) {
    carried_on(mailed, context);
    cleaned_up(&mailed.site, context);
    assert_eq!(mailed.taken().len(), PEOPLE, "{context}: cleanup mails nothing");
}

/// What arrived is judged by the relay's own log and the tenant's, never by the program's words.
impl Mailed {
    /// Mails what is sealed.
    fn deliver(&self, more: &[&str]) -> Told {
        self.told(&[&["deliver", "wave-run"], &IDENTITY[..], more].concat())
    }

    /// What the ledger says of each reader's row.
    fn states(&self) -> BTreeMap<String, String> {
        let rows = self.site.status(&[]).into_iter();
        rows.map(|(upn, row)| (reader_of(&upn), row["state"].as_str().expect("text").to_owned()))
            .collect()
    }

    /// By the relay's log and the tenant's: nobody got two mails, each mail carries the one live
    /// pass of its reader, and what counts as delivered was taken. Whose mail is of unknown fate.
    #[track_caller]
    fn assert_once(&self, context: &str) -> Vec<String> {
        let taken = self.taken();
        let live = self.site.live();
        for (reader, mails) in &taken {
            assert_eq!(mails.len(), 1, "{context}: {reader} got two mails by itself");
            self.assert_live(context, reader, &mails[0], &live);
        }
        let states = self.states();
        for (reader, state) in &states {
            assert!(state != "delivered" || taken.contains_key(reader), "{context}: {reader}");
        }
        for reader in taken.keys() {
            let known = ["delivered", "mailing"].contains(&states[reader].as_str());
            assert!(known, "{context}: the mail to {reader} is forgotten: {states:?}");
        }
        let lost = states.into_iter().filter(|(_, state)| state == "mailing");
        lost.map(|(reader, _)| reader).collect()
    }

    /// The same once everybody has their mail, those apart whose mail was repeated by request.
    #[track_caller]
    fn assert_all(&self, context: &str, repeated: &[String]) {
        let (taken, live) = (self.taken(), self.site.live());
        for upn in &self.site.people {
            let reader = reader_of(upn);
            let mails = taken.get(&reader).map_or(&[][..], Vec::as_slice);
            let most = if repeated.contains(&reader) { 2 } else { 1 };
            assert!((1..=most).contains(&mails.len()), "{context}: {reader}: {}", mails.len());
            assert!(mails.iter().all(|mail| mail.bytes == mails[0].bytes), "{context}: {reader}");
            self.assert_live(context, &reader, &mails[0], &live);
        }
        let states = self.states();
        assert!(states.values().all(|state| state == "delivered"), "{context}: {states:?}");
    }

    #[track_caller]
    fn assert_live(
        &self,
        context: &str,
        reader: &str,
        mail: &Taken,
        live: &BTreeMap<String, (String, String)>,
    ) {
        let body = body(mail);
        let theirs = |code: &String| body.contains(code.as_str());
        let found: Vec<String> = self.site.minted().into_iter().filter(theirs).collect();
        let whose = live.iter().find(|(upn, _)| reader_of(upn) == reader);
        let (_, (_, code)) = whose.unwrap_or_else(|| panic!("{context}: {reader} has no pass"));
        assert_eq!(found, std::slice::from_ref(code), "{context}: {reader}: a dead pass");
    }
}

#[test]
fn a_kill_at_any_write_of_a_run_that_mails() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Run, fault, carried_on_and_cleaned_up);
    }
}

#[test]
fn a_kill_at_any_write_of_a_run_that_mails_what_it_opens() {
    sweep(Struck::RunAhead, "abort-after", carried_on_and_cleaned_up);
}

#[test]
fn a_kill_at_any_write_of_a_resume_that_mails() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Resume, fault, |mailed, context, _| carried_on(mailed, context));
    }
}

#[test]
fn a_kill_at_any_write_of_a_delivery() {
    for fault in ["abort", "abort-after"] {
        sweep(Struck::Deliver, fault, |mailed, context, _| delivered(mailed, context));
    }
}

/// What may be mailed again by request is mailed once more and no oftener, whatever happens to
/// the process that does.
#[test]
fn a_kill_at_any_write_of_a_repeated_delivery() {
    for fault in ["abort", "abort-after", "eio", "eio-after"] {
        sweep(Struck::Resend, fault, |mailed, context, _| {
            let told = mailed.deliver(&["--resend-unsettled"]);
            assert_eq!(told.code, Some(0), "{context}: {told:?}");
            let taken = mailed.taken();
            assert_eq!(taken.len(), PEOPLE, "{context}");
            let mut times: Vec<usize> = taken.values().map(Vec::len).collect();
            times.sort_unstable();
            // One for the run, and at most one for each of the two requests.
            assert!(matches!(times[..], [1, 2 | 3]), "{context}: {times:?}");
            for mails in taken.values() {
                assert!(mails.iter().all(|mail| mail.bytes == mails[0].bytes), "{context}");
            }
        });
    }
}

#[test]
fn a_kill_at_any_write_of_a_cleanup_of_what_was_mailed() {
    for fault in ["abort", "abort-after", "eio", "enospc", "eio-after"] {
        sweep(Struck::Cleanup, fault, |mailed, context, _| {
            cleaned_up(&mailed.site, context);
            assert!(mailed.taken().values().all(|mails| mails.len() == 1), "{context}");
        });
    }
}

#[test]
fn a_kill_of_a_run_that_mails_is_cleaned_up_without_a_resume() {
    sweep(Struck::Run, "abort", |mailed, context, _| {
        if mailed.site.folder().join("ledger.db").exists() {
            cleaned_up(&mailed.site, context);
        }
        assert!(mailed.site.live().is_empty(), "{context}");
        assert!(mailed.taken().values().all(|mails| mails.len() == 1), "{context}");
    });
}

#[test]
fn a_disk_that_fails_at_any_commit_of_a_run_that_mails() {
    for fault in ["eio", "enospc"] {
        sweep(Struck::Run, fault, |mailed, context, told| {
            reported_the_disk(context, told);
            carried_on_and_cleaned_up(mailed, context, told);
        });
    }
}

#[test]
fn a_disk_that_fails_at_any_commit_of_a_resume_or_a_delivery() {
    for fault in ["eio", "enospc", "eio-after"] {
        sweep(Struck::Resume, fault, |mailed, context, told| {
            reported_the_disk(context, told);
            carried_on(mailed, context);
        });
        sweep(Struck::Deliver, fault, |mailed, context, told| {
            reported_the_disk(context, told);
            delivered(mailed, context);
        });
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_sync_of_a_delivery_that_fails_in_the_kernel() {
    let place = || {
        let mailed = Struck::Deliver.place();
        let deliver = mailed.tapwave(&Struck::Deliver.args(&mailed));
        (mailed, deliver)
    };
    let traced = super::sweep_syncs(place, |mailed, context, _| delivered(mailed, context));
    if !traced {
        crate::runs::damaged::eprintln_skip("there is no strace here");
    }
}
