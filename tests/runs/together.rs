//! Promises that a person has one live pass across the runs of a machine and whatever others do,
//! that a run knows where it belongs, and that its ledger is there while it issues.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tapwave_simulator::Options;
use tapwave_simulator::options::{Act, Call, Fault, Faults, Intervention, Latency, SecondPost};

use crate::support::site::{Site, Told, files};

/// Runs a command to its end while time passes.
fn patient(site: &Site, args: &[&str]) -> Told {
    site.end_as_time_passes(site.start(args))
}

fn run_into<'a>(site: &'a Site, folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run", "wave.csv", "-r", site.recipient(), "--run", folder];
    args.extend(more);
    args
}

// Case: the same wave twice, the second begun while the first issues, and lists are behind.
#[test]
fn two_overlapping_waves_cannot_both_succeed() {
    for existing in ["fail", "skip", "replace"] {
        let site = Site::with(6, |options| {
            options.replication.unlisted_after_create = Latency::of(Duration::from_secs(20));
        });
        site.hold(Call::Issue, 3);
        let first = site.start(&run_into(&site, "first", &["--max-in-flight", "2"]));
        site.until_held(2);
        let second = site.told(&run_into(&site, "second", &["--existing", existing]));
        let code = if existing == "skip" { 0 } else { 3 };
        let second = second.exits(code);
        if existing == "skip" {
            second.says("6 skipped").says("belong to another open run");
        } else {
            second.says("is claimed by run").says("first, which is still open");
        }
        site.let_go();
        site.end_as_time_passes(first).exits(0).says("6 issued and sealed");
        assert_eq!(site.minted().len(), 6, "{existing}");
    }
}

// Case: a second run reaches the same tenant by another name of the machine that it is on.
#[test]
fn a_claim_holds_for_every_address_of_graph() {
    let site = Site::open(3);
    site.hold(Call::Issue, 2);
    let first = site.start(&run_into(&site, "first", &["--max-in-flight", "1"]));
    site.until_held(1);
    let url = site.graph_url().replace("127.0.0.1", "localhost");
    let more = ["--existing", "replace", "--graph-url", &url];
    let second = site.told(&run_into(&site, "second", &more));
    second.exits(3).says("is claimed by run").says("first, which is still open");
    site.let_go();
    first.end().exits(0);
    assert_eq!(site.minted().len(), 3);
}

// Case: a run that was killed keeps its people, and a run that is gone does not.
#[test]
fn a_claim_ends_with_its_run() {
    let site = Site::open(4);
    site.hold(Call::Issue, 2);
    let first = site.start(&run_into(&site, "first", &["--max-in-flight", "1"]));
    site.until_held(1);
    first.kill();
    site.let_go();
    let others = run_into(&site, "second", &["--existing", "replace"]);
    site.told(&others).exits(3).says("is claimed by run").says("close it with cleanup");
    let check = ["check", "wave.csv", "-r", site.recipient(), "--existing", "replace"];
    site.told(&check).exits(3).says("is claimed by run");
    assert!(!site.path("second").exists(), "a run that never was claims nobody");
    fs::remove_dir_all(site.path("first")).expect("gone");
    site.told(&others).exits(0);
    // A run that is finished is not in another one's way.
    site.told(&run_into(&site, "third", &["--existing", "replace"])).exits(0);
}

fn others(options: &mut Options, act: Act, user: &str) {
    options.interventions.push(Intervention {
        users: vec![user.to_owned()],
        probability: 1.0,
        after: Duration::ZERO,
        act,
    });
}

// Case: the helpdesk replaces a pass, deletes it, or the policy disables it before the run ends.
#[test]
fn a_pass_that_somebody_else_ended_is_lost_and_not_handed_over() {
    for (act, why) in [
        (Act::Replace, "by somebody else"),
        (Act::Delete, "not on the user any more"),
        (Act::Disable, "DisabledByPolicy"),
    ] {
        let site = Site::with(4, |options| others(options, act, "user2@contoso.example"));
        let run = site.start(&site.run_args(&["--lifetime", "90"]));
        let told = site.end_as_time_passes(run).exits(4).says("3 issued and sealed, 1 lost");
        told.says("user2@contoso.example: lost: ").says(why);
        let status = site.status(&[]);
        assert_eq!(status["user2@contoso.example"]["state"], "lost");
        assert!(status["user2@contoso.example"]["handoff"].is_null());
        assert!(!site.read("wave-run").contains_key("user2@contoso.example"));
        let run = site.start(&["cleanup", "wave-run"]);
        site.end_as_time_passes(run).exits(0);
    }
}

// Case: a gateway carries a POST out twice; the second pass replaces the one that was answered.
#[test]
fn a_post_that_is_carried_out_twice_is_found_by_the_second_look() {
    for second in [SecondPost::Replaces, SecondPost::Rejected] {
        let site = Site::with(4, |options| {
            options.second_post = second;
            let twice = Fault::Twice { by: Duration::ZERO };
            options.faults = Faults::default().at(Call::Issue, 2, twice);
        });
        let run = site.start(&site.run_args(&[]));
        let told = site.end_as_time_passes(run);
        match second {
            SecondPost::Replaces => {
                told.exits(4).says("3 issued and sealed, 1 lost").says("looks like this run's own");
            }
            // The answer to the second was a refusal, and the first was found and removed.
            SecondPost::Rejected => {
                told.exits(0);
                site.assert_whole("after the run");
            }
        }
        site.cleanup(&[]).exits(0);
        assert!(site.live().is_empty());
    }
}

// Case: a tenant that lets so few reads through that the second look would take too long.
#[test]
fn a_second_look_that_takes_too_long_is_left_out_and_said_so() {
    let site = Site::open(3);
    let told = site.run(&["--final-look", "never"]).exits(0);
    told.says("the second look was left out (--final-look never): 3 passes were not looked at");
    let looks = site.seen(Call::Look);
    site.resume().exits(0);
    assert!(site.seen(Call::Look) > looks, "resume makes it up");
    let looks = site.seen(Call::Look);
    site.resume().exits(0);
    assert_eq!(site.seen(Call::Look), looks, "once is enough");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("closed");
    }
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).expect("below"));
        fs::create_dir_all(to.parent().expect("a folder")).expect("made");
        fs::copy(&file, to).expect("copied");
    }
}

// Case: a copy of an interrupted run is resumed after the original was cleaned up.
#[cfg(unix)]
#[test]
fn a_copy_of_a_run_asks_before_it_issues() {
    let site = Site::open(5);
    site.hold(Call::Issue, 3);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.signal(rustix::process::Signal::INT);
    site.until("it has heard that", |_| run.has_said("stopping: what is in flight"));
    site.let_go();
    run.end().exits(130);
    copy(&site.folder(), &site.path("copy"));
    site.cleanup(&[]).exits(0);
    let posts = site.seen(Call::Issue);
    let told = site.told(&["resume", "copy"]).exits(2).says("this is a copy");
    told.says("resuming it may issue a pass to 2 people").says("--yes");
    assert_eq!(site.seen(Call::Issue), posts);
    site.told(&["status", "copy"]).exits(0);
    let resumed = site.start(&["resume", "copy", "--yes"]);
    let told = site.end_as_time_passes(resumed).exits(4).says("2 issued and sealed, 3 lost");
    told.says("not on the user any more");
    assert_eq!(site.seen(Call::Issue), posts + 2, "whoever says so may");
    // From then on it belongs there.
    let resumed = site.start(&["resume", "copy"]);
    site.end_as_time_passes(resumed).exits(0).says("5 issued and sealed");
    // What the original did after it was copied is not in this ledger.
    let run = site.start(&["cleanup", "copy"]);
    site.end_as_time_passes(run).exits(8).says("passes which it does not know may be alive");
    assert!(site.live().is_empty());
}

// Case: a copy of a run is resumed while the run itself issues.
#[test]
fn a_copy_issues_nothing_while_the_run_itself_does() {
    let site = Site::open(4);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    copy(&site.folder(), &site.path("copy"));
    let posts = site.seen(Call::Issue);
    site.told(&["resume", "copy", "--yes"]).exits(3).says("claimed by run");
    assert_eq!(site.seen(Call::Issue), posts);
    site.let_go();
    run.end().exits(0);
}

// Case: somebody else's pass took the place of one that was looked at less than a minute ago.
#[test]
fn a_final_look_that_is_always_wanted_is_always_made() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    site.issue_elsewhere(&site.people[0]);
    let told = patient(&site, &["resume", "wave-run", "--final-look", "always"]).exits(4);
    told.says("1 lost").says("passes.age, which was handed over before, holds its code");
}

// Case: the same again and again: a look that was made is not reported as left out.
#[test]
fn a_final_look_that_was_made_is_not_reported_as_left_out() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    for _ in 0..5 {
        let told = site.told(&["resume", "wave-run", "--final-look", "always"]).exits(0);
        assert!(!told.err.contains("not looked at again"), "{}", told.err);
    }
}

// Case: the passes of a wave are removed while a run of it waits for an answer.
#[test]
fn a_cleanup_of_a_wave_does_not_speak_for_a_run_that_is_at_work() {
    let site = Site::open(3);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    let cleanup = ["cleanup", "--csv", "wave.csv", "--yes"];
    let told = site.end_as_time_passes(site.start(&cleanup)).exits(8);
    told.says("wave-run has asked for a pass for this person").says(site.people[1].as_str());
    site.let_go();
    site.end_as_time_passes(site.start(&["cleanup", "wave-run"])).exits(0);
    site.end_as_time_passes(site.start(&cleanup)).exits(0);
    assert!(site.live().is_empty());
}

// Case: somebody is renamed, and somebody new gets the name before its pass was asked for.
#[test]
fn a_name_that_moved_to_another_account_is_another_user() {
    use tapwave_simulator::{DirectoryUser, PolicyTarget};
    let site = Site::open(3);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    let upn = site.people[2].clone();
    site.served.with(|tenant, now| {
        assert!(tenant.amend(&upn, |user| user.upn = "renamed@contoso.example".to_owned()));
        tenant.hire(now, DirectoryUser::named(upn.clone(), "Ada Anew"));
        tenant.policy_mut().include = vec![PolicyTarget::everyone()];
    });
    site.pass(Duration::from_mins(20));
    let told = patient(&site, &["resume", "wave-run"]).exits(4);
    told.says("is another account than at the first check");
    patient(&site, &["cleanup", "wave-run"]).exits(0);
    assert!(site.live().is_empty());
}

// Case: an older state of the run is put back in its place from a backup.
#[test]
fn a_run_that_was_put_back_from_a_backup_asks_before_it_issues() {
    let site = Site::open(3);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    copy(&site.folder(), &site.path("backup"));
    site.end_as_time_passes(site.start(&["resume", "wave-run"])).exits(0);
    fs::remove_dir_all(site.folder()).expect("removed");
    fs::rename(site.path("backup"), site.folder()).expect("put back");
    let minted = site.minted().len();
    site.resume().exits(2).says("holds an older state of this run").says("--yes");
    assert_eq!(site.minted().len(), minted);
}

// Case: an older state is put back of a run that was killed, of which there is no record by then.
#[test]
fn an_older_state_of_a_run_that_was_killed_is_known_for_one() {
    let site = Site::open(5);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    copy(&site.folder(), &site.path("backup"));
    site.hold(Call::Issue, 4);
    site.until_held(1);
    site.until("what was answered is sealed", |site| site.count("sealed") == 3);
    run.kill();
    site.let_go();
    fs::remove_dir_all(site.folder()).expect("removed");
    fs::rename(site.path("backup"), site.folder()).expect("put back");
    let live = site.live();
    for verb in ["resume", "cleanup"] {
        let told = site.told(&[verb, "wave-run"]).exits(2);
        told.says("holds an older state of this run").says("recorded since are missing");
    }
    assert_eq!(site.live(), live);
    // With agreement it removes what it knows, and reports that this is not all.
    let told = patient(&site, &["cleanup", "wave-run", "--yes"]).exits(8);
    let told = told.says("passes which it does not know may be alive");
    assert!(!site.live().is_empty());
    assert!(!told.err.contains("purged"), "{}", told.err);
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8);
    let wave = site.resolved("wave.csv");
    told.says(&format!("tapwave cleanup --csv {wave} --auth token --graph-url"));
    patient(&site, &["cleanup", "--csv", "wave.csv", "--yes"]);
    assert!(site.live().is_empty());
}

// Case: a copy is cleaned up while the run itself issues.
#[test]
fn a_copy_frees_no_claims_of_the_run_itself() {
    let site = Site::open(6);
    site.hold(Call::Issue, 3);
    let first = site.start(&run_into(&site, "first", &["--max-in-flight", "1"]));
    site.until_held(1);
    copy(&site.path("first"), &site.path("copy"));
    site.told(&["cleanup", "copy"]).exits(2).says("this is a copy");
    let run = site.start(&["cleanup", "copy", "--yes"]);
    site.end_as_time_passes(run);
    let second = run_into(&site, "second", &["--existing", "replace"]);
    site.told(&second).exits(3).says("is claimed by run");
    first.kill();
    site.let_go();
}

// Case: the ledger is removed, replaced or moved while the run issues.
#[cfg(unix)]
#[test]
fn a_ledger_that_disappears_stops_the_run_and_names_what_is_alive() {
    for how in ["removed", "replaced", "moved", "log removed", "lock removed"] {
        let site = Site::open(12);
        site.hold(Call::Issue, 5);
        let run = site.start(&site.run_args(&["--max-in-flight", "2"]));
        site.until_held(2);
        site.until("the rest is sealed", |site| site.count("sealed") == 4);
        let ledger = site.folder().join("ledger.db");
        match how {
            "removed" => fs::remove_file(&ledger).expect("removed"),
            "log removed" => fs::remove_file(ledger.with_extension("db-wal")).expect("removed"),
            "lock removed" => fs::remove_file(ledger.with_extension("lock")).expect("removed"),
            "replaced" => {
                fs::copy(&ledger, site.path("other")).expect("copied");
                fs::rename(site.path("other"), &ledger).expect("replaced");
            }
            _ => fs::rename(site.folder(), site.path("elsewhere")).expect("moved"),
        }
        site.let_go();
        let told = run.end().exits(1).says("removed, replaced or moved");
        told.says("passes are alive, or may be, that no ledger on the disk knows of: lines 2-")
            .says("tapwave cleanup --csv");
        assert!(site.seen(Call::Issue) <= 6, "{how}: nothing more was issued");
    }
}

// Case: somebody laid a file of their own into the handoff folder, or changed one.
#[test]
fn cleanup_deletes_the_handoff_files_that_the_run_wrote_and_no_others() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let folder = site.folder().join("handoff");
    fs::write(folder.join("theirs.age"), "not ours").expect("written");
    fs::write(folder.join("passes.age"), "changed").expect("written");
    site.cleanup(&[]).exits(0).says("is not as this run wrote it, and was left alone");
    let mut left: Vec<_> = files(&folder);
    left.sort();
    assert_eq!(left, [folder.join("passes.age"), folder.join("theirs.age")]);
}

// Case: a wave is run again on purpose, and the first run is cleaned up; the passes are alike and
// made within a minute.
#[test]
fn a_cleanup_takes_no_other_run_s_passes_for_its_own() {
    for look in ["auto", "never"] {
        let site = Site::open(3);
        site.told(&run_into(&site, "first", &["--final-look", look])).exits(0);
        site.told(&run_into(&site, "second", &["--existing", "replace"])).exits(0);
        let live = site.live();
        let cleanup = site.start(&["cleanup", "first"]);
        let told = site.end_as_time_passes(cleanup).exits(0).says("3 were already gone");
        told.says("has a pass that this run did not issue");
        assert_eq!(site.live(), live, "final look {look}");
        site.told(&["cleanup", "second"]).exits(0).says("removed 3 passes");
    }
}
