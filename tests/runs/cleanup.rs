//! Promises that cleanup removes exactly what it may, proves it, and only then destroys the
//! sealed copies.

use std::fs;
use std::time::Duration;

use tapwave_simulator::PassEvent;
use tapwave_simulator::options::{Call, Fault, Faults};

use crate::support::site::{Site, files, holds};

fn deleted(site: &Site) -> Vec<String> {
    site.served.with(|tenant, _| {
        let deleted = tenant.log().iter().filter_map(|entry| match &entry.event {
            PassEvent::Deleted { method, .. } => Some(method.clone()),
            _ => None,
        });
        deleted.collect()
    })
}

/// The first bytes of every sealed pass, which are nowhere else, as the ledger holds them.
pub(crate) fn sealed_copies(site: &Site) -> Vec<Vec<u8>> {
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    let mut rows = db.prepare("SELECT ciphertext FROM sealed").expect("prepared");
    let copies = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).expect("read");
    copies.map(|copy| copy.expect("a copy")[40..120].to_vec()).collect()
}

#[test]
fn exactly_what_the_run_issued_is_removed_by_its_id() {
    let site = Site::open(5);
    site.run(&[]).exits(0);
    let issued = site.live();
    let copies = sealed_copies(&site);
    assert_eq!(copies.len(), 5);

    // Somebody else's newer pass, and one that is gone already.
    let newer = site.issue_elsewhere(&site.people[1]);
    site.delete_elsewhere(&site.people[2]);
    let told = site.cleanup(&["--json"]).exits(0);
    assert_eq!(site.live().len(), 1, "somebody else's pass stays");
    assert_eq!(site.live()[&site.people[1]].0, newer);
    let told = told.says("user2@contoso.example: has a pass that this run did not issue");
    let summary = told.summary();
    for (name, expected) in [
        ("rows", 5),
        ("issued", 5),
        ("sealed", 0),
        ("removed", 5),
        ("foreign", 1),
        ("failed", 0),
        ("held", 0),
        ("unsettled", 0),
    ] {
        assert_eq!(summary[name], expected, "{name}: {summary}");
    }
    assert_eq!(summary["run"].as_str().map(|run| run.ends_with("wave-run")), Some(true));
    told.says("looked again: none of these passes is left").says("purged 5 sealed copies");

    // The tenant saw a DELETE for ids of this run alone.
    for method in deleted(&site) {
        assert!(issued.values().any(|(ours, _)| *ours == method), "{method} was not ours");
    }
    assert_eq!(site.count("removed"), 5);

    // Nothing sealed is left on the disk.
    for file in files(&site.folder()) {
        let bytes = fs::read(&file).expect("readable");
        for copy in &copies {
            assert!(!holds(&bytes, copy), "{} still holds a sealed pass", file.display());
        }
        assert_ne!(file.extension().and_then(|it| it.to_str()), Some("age"), "{file:?}");
    }
}

#[test]
fn a_closed_run_issues_nothing_and_says_so() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    site.cleanup(&[]).exits(0);
    let posts = site.seen(Call::Issue);
    let requests = site.requests();
    let told = site.resume().exits(2).says("closed by cleanup").says("a new run issues new");
    assert!(!told.err.contains("tapwave cleanup"), "that is over: {}", told.err);
    assert_eq!((site.seen(Call::Issue), site.requests()), (posts, requests));
    // Once more changes nothing and is no failure.
    site.cleanup(&[]).exits(0);
    assert!(site.live().is_empty());
}

#[test]
fn the_proof_comes_before_the_purge() {
    // The DELETE of one pass is answered and has no effect.
    let faults = Faults::default().at(Call::Remove, 2, Fault::Forbidden);
    let site = Site::with(3, |options| options.faults = faults);
    site.run(&[]).exits(0);
    let told = site.cleanup(&[]).exits(8);
    assert_eq!(site.live().len(), 1);
    assert!(!told.err.contains("purged"), "{}", told.err);
    assert_eq!(sealed_copies(&site).len(), 3, "kept until the proof");
    assert_eq!(files(&site.folder().join("handoff")).len(), 1);
    site.cleanup(&[]).exits(0).says("purged 3 sealed copies");
    assert!(site.live().is_empty());
    assert!(sealed_copies(&site).is_empty());
}

#[test]
fn sealed_copies_are_kept_when_asked() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let before = site.read("wave-run");
    let told = site.cleanup(&["--keep-sealed"]).exits(0);
    assert!(!told.err.contains("purged"), "{}", told.err);
    assert!(site.live().is_empty());
    assert_eq!(sealed_copies(&site).len(), 3);
    let handoff = files(&site.folder().join("handoff"));
    assert_eq!(site.read(&handoff[0].to_string_lossy()), before);
}

#[test]
fn a_list_of_people_is_cleared_after_a_question() {
    let site = Site::open(4);
    site.run(&[]).exits(0);
    site.issue_elsewhere(&site.people[3]);
    site.delete_elsewhere(&site.people[2]);
    let mut people = site.people[1..].to_vec();
    people.push("nobody@contoso.example".into());
    site.write_wave(&people);

    let args = ["cleanup", "--csv", "wave.csv"];
    site.told(&args)
        .exits(2)
        .says("remove 2 passes of the 4 people in wave.csv")
        .says("no terminal to ask on")
        .says("--yes")
        .says("nobody@contoso.example: no such user in the tenant");
    assert_eq!(site.live().len(), 3, "nothing was changed");

    let agreed = site.start(&[&args[..], &["--yes", "--json", "--settle-after", "1s"]].concat());
    let told = site.end_as_time_passes(agreed).exits(8);
    assert_eq!(told.summary()["removed"], 3, "one of them was missed twice");
    assert_eq!(site.live().into_keys().collect::<Vec<_>>(), ["user1@contoso.example"]);
}

#[test]
fn a_list_is_not_cleared_while_somebodys_passes_cannot_be_read() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let faults = Faults::default().at(Call::Look, site.seen(Call::Look) + 2, Fault::Forbidden);
    site.served.with(|tenant, _| tenant.options_mut().faults = faults);
    let args = ["cleanup", "--csv", "wave.csv", "--yes"];
    let first = site.start(&args);
    let told = site.end_as_time_passes(first).exits(8);
    told.says("user2@contoso.example: the passes cannot be read");
    assert_eq!(site.live().into_keys().collect::<Vec<_>>(), ["user2@contoso.example"]);
    let again = site.start(&args);
    site.end_as_time_passes(again).exits(0);
    assert!(site.live().is_empty());
}

#[test]
fn a_cleanup_that_is_killed_is_run_again() {
    let site = Site::open(25);
    site.run(&[]).exits(0);
    site.hold(Call::Remove, 1);
    let cleanup = site.start(&["cleanup", "wave-run"]);
    site.until("passes are deleted", |site| site.served.holding() > 0);
    cleanup.kill();
    site.let_go();
    site.resume().exits(2).says("closed by cleanup");
    site.cleanup(&[]).exits(0).says("looked again: none of these passes is left");
    assert!(site.live().is_empty());
    assert_eq!(site.count("removed"), 25);
}

#[cfg(unix)]
#[test]
fn a_cleanup_that_is_interrupted_says_so_and_goes_on() {
    use tapwave_core::limits;
    let at_once = limits::PAGES_IN_FLIGHT * limits::ROWS_PER_CHECK;
    let site = Site::open(at_once + 1);
    site.run(&[]).exits(0);
    site.hold(Call::Remove, 1);
    let cleanup = site.start(&["cleanup", "wave-run"]);
    site.until("passes are deleted", |site| site.served.holding() > 0);
    cleanup.signal(rustix::process::Signal::INT);
    site.until("it has heard that", |_| cleanup.has_said("stopping: what is in flight"));
    site.let_go();
    let told = cleanup.end().exits(130).says("goes on where it stopped");
    assert!(!told.err.contains("purged"), "{}", told.err);
    assert!(!site.live().is_empty(), "the page after those side by side was not begun");
    site.cleanup(&[]).exits(0);
    assert!(site.live().is_empty());
}

#[cfg(unix)]
#[test]
fn what_graph_has_deleted_is_counted_though_the_rest_is_never_answered() {
    let site = Site::open(45);
    site.run(&[]).exits(0);
    // The first batch of twenty is answered, the others are not.
    site.hold(Call::Remove, 21);
    let cleanup = site.start(&["cleanup", "wave-run"]);
    site.until("the next batch is held", |site| site.served.holding() > 0);
    cleanup.signal(rustix::process::Signal::INT);
    site.until("it has heard that", |_| cleanup.has_said("stopping: what is in flight"));
    site.pass_until(tapwave_core::limits::IN_FLIGHT, "it stops waiting", |_| {
        cleanup.has_said("removed ")
    });
    let told = cleanup.end().exits(130);
    told.says("removed 20 passes");
    site.let_go();
    assert_eq!(site.count("removed"), 20, "the ledger knows them too");
}

#[cfg(unix)]
#[test]
fn a_look_at_a_list_of_people_can_be_interrupted() {
    let site = Site::open(1000);
    site.hold(Call::Users, 1);
    let cleanup = site.start(&["cleanup", "--csv", "wave.csv", "--yes"]);
    site.until("the first page is looked at", |site| site.served.holding() > 0);
    cleanup.signal(rustix::process::Signal::INT);
    cleanup.end().exits(130).says("nothing was changed");
    site.let_go();
    assert!(site.seen(Call::Look) <= 300, "the second page was not begun");
}

#[test]
fn a_held_row_is_looked_at_twice_and_the_helpdesk_s_pass_stays() {
    let site = held_site();
    let told = site.cleanup(&["--json"]).exits(0);
    let summary = told.summary();
    assert_eq!((&summary["held"], &summary["foreign"]), (&0.into(), &1.into()), "{summary}");
    told.says("user1@contoso.example").says("looked at again until");
    assert_eq!(site.live().len(), 1, "the helpdesk's pass stays");
    assert_eq!(site.seen(Call::Issue), 3, "cleanup issues nothing");
}

#[test]
fn somebody_elses_pass_in_place_of_a_sealed_one_is_reported_once() {
    let site = Site::open(3);
    site.hold(Call::Issue, 3);
    let run = site.start(&site.run_args(&["--max-in-flight", "1", "--lifetime", "120"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    site.issue_elsewhere(&site.people[0]);
    site.resume().exits(4).says("user1@contoso.example: held");
    let summary = site.cleanup(&["--json"]).exits(0).summary();
    assert_eq!((&summary["removed"], &summary["foreign"]), (&3.into(), &1.into()), "{summary}");
    assert_eq!(site.live().into_keys().collect::<Vec<_>>(), ["user1@contoso.example"]);
}

#[test]
fn a_cleanup_needs_no_permission_to_read_the_policy() {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
    let site = Site::with(1, |options| options.faults = faults);
    let run = site.start(&site.run_args(&["--settle-after", "1h"]));
    site.until("the POST is under way", |site| site.seen(Call::Issue) == 1);
    run.kill();
    site.pass(Duration::from_mins(70));
    let faults = Faults::default().with(Call::ReadPolicy, 1.0, Fault::Forbidden);
    site.served.with(|tenant, _| tenant.options_mut().faults = faults);
    site.cleanup(&[]).exits(0);
    assert!(site.live().is_empty());
}

#[test]
fn an_orphan_that_could_not_be_deleted_is_ours_at_the_next_cleanup_too() {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
    let site = Site::with(1, |options| {
        options.faults = faults.at(Call::Remove, 1, Fault::Forbidden);
    });
    let run = site.run(&[]).exits(4);
    let run = run.says("user1@contoso.example: held: the pass of a lost attempt cannot be deleted");
    assert!(!run.err.contains("did not issue"), "{}", run.err);
    let summary = site.cleanup(&["--json"]).exits(0).summary();
    assert_eq!((&summary["held"], &summary["foreign"]), (&0.into(), &0.into()), "{summary}");
    assert!(site.live().is_empty());
}

/// Three people; the first one's answer was lost before, and a helpdesk made another pass.
fn held_site() -> Site {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostBefore);
    let site = Site::with(3, |options| options.faults = faults);
    let args = ["--max-in-flight", "1", "--lifetime", "120", "--settle-after", "30s"];
    let run = site.start(&site.run_args(&args));
    site.until("the others have theirs", |site| site.live().len() == 2);
    site.issue_elsewhere(&site.people[0]);
    site.end_as_time_passes(run).exits(4).says("user1@contoso.example: held");
    site
}

#[test]
fn an_unsettled_row_is_reconciled_after_the_settling_time_and_its_orphan_deleted() {
    // The only POST executes after the process has died.
    let late = Fault::Late { by: Duration::from_secs(20) };
    let site = Site::with(1, |options| options.faults = Faults::default().at(Call::Issue, 1, late));
    let run = site.start(&site.run_args(&["--settle-after", "30s"]));
    site.until("the POST is under way", |site| site.seen(Call::Issue) == 1);
    run.kill();
    assert_eq!(site.minted().len(), 0, "not executed yet");
    site.cleanup(&[]).exits(0);
    assert_eq!(site.minted().len(), 1, "it was executed late");
    assert!(site.live().is_empty(), "and found after the settling time");
    assert_eq!(site.seen(Call::Issue), 1);
}

#[test]
fn somebody_elses_pass_on_an_unsettled_person_is_reported_once_and_stays() {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostBefore);
    let site = Site::with(1, |options| options.faults = faults);
    let run = site.start(&site.run_args(&["--lifetime", "120", "--settle-after", "30s"]));
    site.until("the POST is under way", |site| site.seen(Call::Issue) == 1);
    run.kill();
    site.issue_elsewhere(&site.people[0]);
    site.pass(Duration::from_mins(7));
    let summary = site.cleanup(&["--json"]).exits(0).summary();
    assert_eq!((&summary["held"], &summary["foreign"]), (&0.into(), &1.into()), "{summary}");
    assert_eq!(site.live().len(), 1);
}

/// A replica that has not heard of a person yet says 404 to everything about them.
#[test]
fn a_person_whom_a_replica_does_not_know_yet_is_not_called_clean() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let looked = site.seen(Call::Look);
    let faults = Faults::default().at(Call::Remove, 1, Fault::UserUnknown).at(
        Call::Look,
        looked + 1,
        Fault::UserUnknown,
    );
    site.served.with(|tenant, _| tenant.options_mut().faults = faults);
    site.cleanup(&[]).exits(0).says("removed 2 passes\n");
    assert!(site.live().is_empty());
}

#[test]
fn a_deleted_user_may_be_restored_with_the_pass() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    site.dismiss(&site.people[1]);
    site.cleanup(&[]).exits(8).says("no longer in this tenant").says("removed 1 pass");
    assert_eq!(sealed_copies(&site).len(), 2, "nothing is purged");
}
