//! Promises that what is not shown is not taken for gone: lists that are behind in both
//! directions, replicas that do not know a user, ids that no list shows.

use std::time::Duration;

use tapwave_simulator::Options;
use tapwave_simulator::options::{Call, Chance, Fault, Faults, Latency, SecondPost};

use crate::runs::cleanup::sealed_copies;
use crate::support::site::{Site, Told};

/// Runs a command to its end while time passes.
fn patient(site: &Site, args: &[&str]) -> Told {
    site.end_as_time_passes(site.start(args))
}

/// The same, but no time passes before it calls: a lag outlasts the start of a program, which takes
/// a second on a busy machine.
fn patient_once_it_calls(site: &Site, args: &[&str]) -> Told {
    let requests = site.requests();
    let started = site.start(args);
    site.until("it calls the tenant", |site| site.requests() > requests);
    site.end_as_time_passes(started)
}

fn always(call: Call, fault: Fault) -> Chance {
    Chance::new(call, 1.0, fault)
}

fn change(site: &Site, change: impl FnOnce(&mut Options)) {
    site.served.with(|tenant, _| change(tenant.options_mut()));
}

/// What a cleanup must say, and keep, that could prove nothing of any row.
fn proves_nothing(site: &Site, told: Told) {
    let told = told.exits(8).says("probably another tenant");
    for word in ["removed", "already gone", "none of these passes", "purged 1"] {
        assert!(!told.err.contains(&format!("\n{word}")), "{word}: {}", told.err);
    }
    assert_eq!(site.live().len(), site.people.len());
    assert_eq!(sealed_copies(site).len(), site.people.len(), "nothing is purged");
    assert_eq!(site.count("sealed"), site.people.len());
}

// Case: a replica that does not know the users answers every DELETE and every list with 404.
#[test]
fn a_404_about_every_user_proves_nothing() {
    let site = Site::open(10);
    site.run(&[]).exits(0);
    change(&site, |options| {
        options.faults = Faults::default()
            .also(always(Call::Remove, Fault::UserUnknown))
            .also(always(Call::Look, Fault::UserUnknown));
    });
    proves_nothing(&site, patient(&site, &["cleanup", "wave-run"]));
    change(&site, |options| options.faults = Faults::default());
    site.resume().exits(0);
    site.cleanup(&[]).exits(0).says("removed 10 passes");
    assert!(site.live().is_empty());
}

// Case: the same for the people of a wave, whoever issued what they hold.
#[test]
fn a_wave_of_unknown_users_is_reported_as_another_tenant() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    change(&site, |options| options.another_tenant = true);
    let told = patient(&site, &["cleanup", "--csv", "wave.csv", "--yes"]).exits(8);
    let told = told.says("none of these people is in the tenant").says("next: tapwave cleanup");
    assert_eq!(told.err.matches(site.people[0].as_str()).count(), 1, "{}", told.err);
    change(&site, |options| options.another_tenant = false);
    let gone = site.people[1].clone();
    site.dismiss(&gone);
    let told = patient(&site, &["cleanup", "--csv", "wave.csv", "--yes"]).exits(8);
    let told = told.says("removed 2 passes");
    assert_eq!(told.err.matches(gone.as_str()).count(), 1, "{}", told.err);
}

// Case: an opaque token of another tenant at the same address.
#[test]
fn another_tenant_is_reported_and_unchanged() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    change(&site, |options| options.another_tenant = true);
    proves_nothing(&site, patient(&site, &["cleanup", "wave-run"]));
    change(&site, |options| options.another_tenant = false);
    site.cleanup(&[]).exits(0).says("removed 3 passes");
}

// Case: a run is killed while the outcome of its POST is unknown, and the list that shows the pass
// does not say when it was made.
#[test]
fn a_pass_that_may_be_ours_does_not_count_as_absent() {
    let site = Site::with(3, |options| {
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    });
    let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "5m"]));
    site.until("nobody knows of one", |site| {
        site.folder().join("ledger.db").exists()
            && site.count("unsettled") == 1
            && site.count("sealed") == 2
    });
    run.kill();
    change(&site, |options| {
        options.faults = Faults::default().also(always(Call::Look, Fault::Undated));
    });
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8).says("removed 2 passes");
    told.says("may be this run's own").says("look at this person in Entra");
    assert_eq!(site.live().len(), 1);
    assert_eq!(sealed_copies(&site).len(), 2, "nothing is purged");
    change(&site, |options| options.faults = Faults::default());
    site.cleanup(&[]).exits(0).says("removed 1 pass");
    assert!(site.live().is_empty());
}

/// Whatever the next answers to batches are dated.
fn misdated(site: &Site, answers: u64, ahead: i64) -> Faults {
    let seen = site.seen(Call::Batch);
    (1..=answers).fold(Faults::default(), |faults, nth| {
        faults.at(Call::Batch, seen + nth, Fault::Dated { ahead })
    })
}

// Case: a gateway with a wrong clock dates the first answers, while replicas do not know the passes.
#[test]
fn a_wrong_date_does_not_shorten_a_wait() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let behind = Duration::from_secs(30);
    let dated = misdated(&site, 2, -7_200);
    change(&site, |options| {
        options.faults = dated
            .also(always(Call::Remove, Fault::MethodUnknown).lasting(behind))
            .also(always(Call::Look, Fault::Unlisted).lasting(behind));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("removed 2 passes");
    assert!(site.live().is_empty());
}

// Case: the first answer alone is dated hours ahead, and replicas do not know the passes.
#[test]
fn a_wrong_first_date_does_not_expire_a_pass() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let behind = Duration::from_secs(30);
    let dated = misdated(&site, 1, 7_200);
    change(&site, |options| {
        options.faults = dated
            .also(always(Call::Remove, Fault::MethodUnknown).lasting(behind))
            .also(always(Call::Look, Fault::Unlisted).lasting(behind));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("removed 2 passes");
    assert!(site.live().is_empty());
}

// Case: every answer is dated hours ahead of this machine's clock, and nobody may delete or look.
#[test]
fn one_clock_alone_does_not_expire_a_pass() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    change(&site, |options| {
        options.date_offset = jiff::SignedDuration::from_hours(2);
        options.faults = Faults::default()
            .also(always(Call::Remove, Fault::Forbidden))
            .also(always(Call::Look, Fault::Forbidden));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(8);
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (2, 2));
}

// Case: while a run issues, every answer is dated wrong, and right afterwards: a lost attempt is not
// older than it is, so that a resume waits for what may come late, and a cleanup for its end.
#[test]
fn a_wrong_date_does_not_age_an_attempt() {
    for seconds in [-420, -7_200] {
        let site = Site::with(2, |options| {
            options.date_offset = jiff::SignedDuration::from_secs(seconds);
            let late = Fault::Late { by: Duration::from_secs(30) };
            options.faults = Faults::default().at(Call::Issue, 2, late);
        });
        let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "5m"]));
        site.until("nobody knows of one", |site| {
            site.folder().join("ledger.db").exists()
                && site.count("unsettled") == 1
                && site.count("sealed") == 1
        });
        run.kill();
        change(&site, |options| options.date_offset = jiff::SignedDuration::ZERO);
        patient(&site, &["cleanup", "wave-run"]).exits(8).says("may be this run's own");
        assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 1), "{seconds}");
        assert_eq!(site.seen(Call::Issue), 2);
    }
}

// Case: the answers are dated wrong by more than Graph's parts lie apart, always: a pass that was
// made when this machine sent the request is not thereby somebody else's.
#[test]
fn a_misdated_pass_may_be_ours_by_this_machines_clock() {
    for seconds in [-1_800, 1_800] {
        let site = Site::with(2, |options| {
            options.date_offset = jiff::SignedDuration::from_secs(seconds);
            options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
        });
        patient(&site, &site.run_args(&["--max-in-flight", "1"])).exits(4).says("held");
        let told = patient(&site, &["cleanup", "wave-run"]).exits(8).says("may be this run's own");
        assert!(!told.err.contains("did not issue"), "{}", told.err);
        assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 1), "{seconds}");
    }
}

// Case: lists show a pass for longer than anybody waits after Graph's 204 to its DELETE.
#[test]
fn a_204_is_proof_however_long_a_list_lags() {
    let site = Site::with(3, |options| {
        options.replication.listed_after_end = Latency::of(Duration::from_mins(20));
    });
    site.run(&[]).exits(0);
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("removed 3 passes\n");
    assert!(site.live().is_empty() && sealed_copies(&site).is_empty());
    assert_eq!(site.seen(Call::Remove), 3, "what had its 204 is not deleted again");
}

// Case: a replica that does not know the user answers the DELETE of a lost attempt's pass.
#[test]
fn a_404_after_an_orphan_was_deleted_does_not_hold_the_row() {
    let site = Site::with(2, |options| {
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter).at(
            Call::Remove,
            1,
            Fault::UserUnknown,
        );
    });
    patient(&site, &site.run_args(&["--max-in-flight", "1"])).exits(0).says("2 issued and sealed");
    site.assert_whole("after the run");
}

// Case: a replica that does not know a user whom Graph has just found answers the check.
#[test]
fn a_404_about_a_found_user_does_not_refuse_the_wave() {
    let site = Site::with(3, |options| {
        options.faults = Faults::default().at(Call::Look, 2, Fault::UserUnknown);
    });
    site.run(&[]).exits(0).says("3 issued and sealed");
}

// Case: a DELETE says that nobody knows the user, and a list is empty.
#[test]
fn a_404_about_the_user_outweighs_an_empty_list() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let gone = site.people[1].clone();
    change(&site, |options| {
        options.faults = Faults::default()
            .also(always(Call::Remove, Fault::UserUnknown).about([gone.clone()]))
            .also(always(Call::Look, Fault::Unlisted).about([gone]));
    });
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8);
    told.says("the user is no longer in this tenant").says("removed 2 passes");
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 3));
}

// Case: the stray of a lost attempt is deleted, and the only other person is gone.
#[test]
fn a_removal_proves_the_right_tenant() {
    let site = Site::with(2, |options| {
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    });
    let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "5m"]));
    site.until("one is sealed", |site| {
        site.folder().join("ledger.db").exists()
            && site.count("unsettled") == 1
            && site.count("sealed") == 1
    });
    run.kill();
    site.dismiss(&site.people[0]);
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8).says("removed 1 pass");
    assert!(!told.err.contains("another tenant"), "{}", told.err);
    site.resume().exits(2).says("closed by cleanup");
}

// Case: passes were made at a time that does not go with the dates of the answers, and the answer to
// one was lost.
#[test]
fn a_misdated_lost_pass_is_not_foreign() {
    for seconds in [90, -600] {
        let site = Site::with(2, |options| {
            options.date_offset = jiff::SignedDuration::from_secs(seconds);
            options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
        });
        let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "1s"]));
        site.until("nobody knows of one", |site| {
            site.folder().join("ledger.db").exists()
                && site.count("unsettled") + site.count("held") == 1
                && site.count("sealed") == 1
        });
        run.kill();
        let told = patient(&site, &["cleanup", "wave-run", "--settle-after", "1s"]).exits(8);
        told.says("may be this run's own");
        assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 1), "{seconds}");
    }
}

// Case: a sealed pass was given up, since no list showed it for longer than anybody waits.
#[test]
fn a_pass_that_was_given_up_and_is_listed_is_removed() {
    let site = Site::with(2, |options| options.second_post = SecondPost::Rejected);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    change(&site, |options| {
        options.faults = Faults::default().also(always(Call::Look, Fault::Unlisted));
    });
    let resumed = patient(&site, &["resume", "wave-run"]);
    assert_ne!(resumed.code, Some(0), "{}", resumed.err);
    assert_eq!(site.live().len(), 2);
    change(&site, |options| options.faults = Faults::default());
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("none of these passes is left");
    assert!(site.live().is_empty());
}

// Case: a gateway answers a DELETE with a success that says nothing of it, and lists are behind.
#[test]
fn a_success_other_than_204_is_no_proof() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let accepted = Fault::Failing { status: 202, effect: false, retry_after: None };
    let behind = Duration::from_secs(30);
    change(&site, |options| {
        options.faults = Faults::default()
            .also(always(Call::Remove, accepted).lasting(behind))
            .also(always(Call::Look, Fault::Unlisted).lasting(behind));
    });
    patient(&site, &["cleanup", "wave-run"]);
    patient(&site, &["cleanup", "wave-run"]).exits(0);
    assert!(site.live().is_empty());
}

// Case: lists that do not say when a pass was made still show those that were replaced.
#[test]
fn an_undated_older_pass_does_not_make_a_row_lost() {
    let site = Site::with(3, |options| {
        options.replication.listed_after_end = Latency::of(Duration::from_secs(25));
        options.faults = Faults::default().also(always(Call::Look, Fault::Undated));
    });
    for upn in &site.people {
        site.issue_elsewhere(upn);
    }
    let run = site.start(&site.run_args(&["--existing", "replace"]));
    site.end_as_time_passes(run).exits(0).says("3 issued and sealed");
}

// Case: Graph gives up between the DELETEs and the look after them.
#[test]
fn a_204_counts_without_a_look() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    change(&site, |options| {
        options.faults = Faults::default().also(always(Call::Look, Fault::TokenExpired));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(5);
    assert!(site.live().is_empty());
    change(&site, |options| options.faults = Faults::default());
    let requests = site.requests();
    site.cleanup(&[]).exits(0);
    assert_eq!(site.requests(), requests, "it is proven");
}

// Case: the same for people of a wave, whose passes are known from one look alone.
#[test]
fn a_wrong_date_proves_nothing_of_a_wave() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let behind = Duration::from_secs(30);
    let dated = misdated(&site, 3, -7_200);
    change(&site, |options| {
        options.faults = dated
            .also(always(Call::Remove, Fault::MethodUnknown).lasting(behind))
            .also(always(Call::Look, Fault::Unlisted).lasting(behind));
    });
    patient(&site, &["cleanup", "--csv", "wave.csv", "--yes"]).exits(8);
    assert_eq!(site.live().len(), 2);
}

// Case: DELETE is refused, a list shows the passes at work, and the answers' dates lie behind
// their end.
#[test]
fn a_usable_pass_has_not_expired() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let dated = misdated(&site, 4, 86_400);
    change(&site, |options| {
        options.faults = dated.also(always(Call::Remove, Fault::Forbidden));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(8);
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (2, 2));
}

// Case: the list of a user's passes begins with an empty page.
#[test]
fn an_empty_page_with_a_next_link_is_no_absence() {
    let site = Site::open(2);
    change(&site, |options| {
        options.faults = Faults::default().also(always(Call::Look, Fault::EmptyPage));
    });
    site.run(&["--existing", "fail"]).exits(0).says("2 issued and sealed");
    change(&site, |options| {
        options.faults = Faults::default()
            .also(always(Call::Look, Fault::EmptyPage))
            .also(always(Call::Remove, Fault::MethodUnknown));
    });
    patient(&site, &["cleanup", "wave-run"]).exits(8).says("still listed");
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (2, 2));
}

// Case: ledgers that say two things at once of a row.
#[test]
fn a_ledger_that_contradicts_itself_proves_nothing() {
    for (sql, says) in [
        ("DELETE FROM passes WHERE line = 3", "no pass or attempt of it is recorded"),
        ("UPDATE passes SET ended = 'deleted' WHERE line = 3", "no pass or attempt of it"),
        (
            "UPDATE rows SET user_id = (SELECT user_id FROM rows WHERE line = 2) WHERE line = 3",
            "another one than its attempts do",
        ),
        ("DELETE FROM rows WHERE line = 3", "row 3 is missing"),
        ("UPDATE rows SET state_json = '{}' WHERE line = 3", "row 3, state_json"),
        ("UPDATE passes SET method_id = '../../x' WHERE line = 3", "row 3, method_id"),
        (
            "UPDATE rows SET state = 'removed' WHERE line = 3; DELETE FROM passes WHERE line = 3",
            "is not recorded any more",
        ),
    ] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
        db.execute_batch(sql).expect("changed");
        drop(db);
        patient(&site, &["cleanup", "wave-run"]).exits(8).says(says);
        assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 3), "{sql}");
    }
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    db.execute("UPDATE passes SET ended = 'zombie' WHERE line = 3", []).expect("changed");
    drop(db);
    site.cleanup(&[]).exits(8).says("no pass or attempt of it is recorded");
    assert_eq!(sealed_copies(&site).len(), 3);
}

// Case: the ledger holds something of one row that cannot be read.
#[test]
fn an_unreadable_row_is_named() {
    for (sql, says) in [
        ("UPDATE passes SET over_at = 'x' WHERE line = 3", "row 3, over_at"),
        ("UPDATE rows SET absent_since = 'x' WHERE line = 3", "row 3, absent_since"),
        ("UPDATE intents SET graph_time = 'x' WHERE line = 3", "row 3, graph_time"),
        ("UPDATE intents SET asked_json = '{' WHERE line = 3", "row 3, asked_json"),
    ] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
        assert_eq!(db.execute(sql, []).expect("changed"), 1);
        drop(db);
        site.cleanup(&[]).exits(8).says(says).says("removed 2 passes");
        assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 3), "{sql}");
    }
}

// Case: the same of a row whose request was under way when the run was killed.
#[test]
fn an_unreadable_row_does_not_keep_other_passes_alive() {
    let site = Site::open(3);
    site.hold(Call::Issue, 3);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    let sql = "UPDATE intents SET asked_json = '{' WHERE line = 4";
    assert_eq!(db.execute(sql, []).expect("changed"), 1);
    drop(db);
    site.let_go();
    site.until("it was executed", |site| site.minted().len() == 3);
    site.cleanup(&[]).exits(8).says("row 4, asked_json").says("removed 2 passes");
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 2));
}

// Case: nobody's passes can be looked at.
#[test]
fn users_whose_passes_cannot_be_read_do_not_count_as_clear() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    change(&site, |options| {
        options.faults = Faults::default().also(always(Call::Look, Fault::Forbidden));
    });
    let told = patient(&site, &["cleanup", "--csv", "wave.csv", "--yes"]).exits(8);
    for untrue in ["there was no pass to remove", "none of these passes is left"] {
        assert!(!told.err.contains(untrue), "{}", told.err);
    }
}

// Case: this machine's clock is an hour ahead, and a row has a pass and an attempt whose answer was
// lost a moment ago.
#[test]
fn a_machine_whose_clock_is_ahead_waits_for_late_requests() {
    let site = Site::with(2, |options| {
        options.clock_offset = jiff::SignedDuration::from_hours(-1);
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    });
    let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "5m"]));
    site.until("nobody knows of one", |site| {
        site.folder().join("ledger.db").exists()
            && site.count("unsettled") == 1
            && site.count("sealed") == 1
    });
    run.kill();
    let removals = site.seen(Call::Remove);
    let cleanup = site.start(&["cleanup", "wave-run"]);
    site.until("the other is removed", |site| site.seen(Call::Remove) > removals);
    site.until("its own is waited for", |site| site.live().len() == 1);
    site.end_as_time_passes(cleanup).exits(0).says("removed 2 passes");
    assert!(site.live().is_empty());
}

// Case: one of the people was deleted from the tenant, and can be restored for 30 days.
#[test]
fn a_deleted_user_does_not_prove_a_deleted_pass() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let gone = site.people[1].clone();
    change(&site, |options| {
        options.faults = Faults::default()
            .also(always(Call::Remove, Fault::UserUnknown).about([gone.clone()]))
            .also(always(Call::Look, Fault::UserUnknown).about([gone.clone()]));
    });
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8);
    told.says("removed 2 passes").says("no longer in this tenant").says("30 days");
    assert_eq!(site.live().keys().collect::<Vec<_>>(), [&gone]);
    assert!(!sealed_copies(&site).is_empty());
    // Nobody looks again for what is proven.
    let deletes = site.seen(Call::Remove);
    change(&site, |options| options.faults = Faults::default());
    site.cleanup(&[]).exits(0).says("removed 1 pass");
    assert_eq!(site.seen(Call::Remove) - deletes, 1);
    assert!(site.live().is_empty() && sealed_copies(&site).is_empty());
}

// Case: DELETE does not find the passes, and no list shows them, for twenty seconds.
#[test]
fn passes_not_yet_replicated_are_waited_for() {
    let behind = Latency::of(Duration::from_secs(40));
    let site = Site::with(10, |options| {
        options.replication.unknown_after_create = behind;
        options.replication.unlisted_after_create = behind;
    });
    site.run(&["--final-look", "never"]).exits(0).says("--final-look never");
    let told = patient_once_it_calls(&site, &["cleanup", "wave-run"]).exits(0);
    told.says("looked at again until").says("none of these passes is left");
    assert!(site.live().is_empty());
}

// Case: a pass that its owner has deleted is missed for the whole settling time, and only then
// called gone.
#[test]
fn an_absence_is_proven_by_two_looks() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    site.delete_elsewhere(&site.people[0]);
    let before = site.now();
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("removed 1 pass, 1 was already gone");
    let took = site.now().duration_since(before).unsigned_abs();
    assert!(took >= Duration::from_mins(1), "{took:?}");
}

// Case: the first look lies in an earlier cleanup, which was interrupted.
#[cfg(unix)]
#[test]
fn a_look_is_remembered_by_the_next_cleanup() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    site.delete_elsewhere(&site.people[0]);
    let first = site.start(&["cleanup", "wave-run"]);
    site.until("it has looked", |site| site.seen(Call::Look) > 0 && site.count("removed") == 1);
    first.signal(rustix::process::Signal::INT);
    first.end().exits(130);
    assert!(!sealed_copies(&site).is_empty());
    site.pass(Duration::from_mins(6));
    site.cleanup(&[]).exits(0).says("1 was already gone");
}

// Case: DELETE answers 204, and lists go on showing the pass.
#[test]
fn our_own_204_is_proof_and_a_lagging_list_is_waited_for() {
    let site = Site::with(10, |options| {
        options.replication.listed_after_end = Latency::of(Duration::from_secs(30));
    });
    site.run(&[]).exits(0);
    patient(&site, &["cleanup", "wave-run"]).exits(0).says("removed 10 passes\n");
    assert!(site.live().is_empty() && sealed_copies(&site).is_empty());
}

// Case: a cleanup that throws no doubt.
#[test]
fn a_cleanup_without_doubts_takes_two_calls_a_page() {
    let site = Site::open(20);
    site.run(&[]).exits(0);
    let summary = site.cleanup(&["--json"]).exits(0).summary();
    assert_eq!(summary["requests"], 2, "twenty DELETEs, and twenty looks: {summary}");
}

fn behind_and(second: SecondPost, behind: Duration) -> impl Fn(&mut Options) {
    move |options| {
        options.second_post = second;
        options.replication.unlisted_after_create = Latency::of(behind);
    }
}

// Case: killed in the middle, and resumed while lists are behind, in a tenant that rejects a
// second pass and in one that replaces.
#[test]
fn a_pass_sealed_before_a_kill_is_not_given_up_for_a_lagging_list() {
    for second in [SecondPost::Rejected, SecondPost::Replaces] {
        let site = Site::with(30, behind_and(second, Duration::from_secs(40)));
        site.hold(Call::Issue, 13);
        let run = site.start(&site.run_args(&["--max-in-flight", "3"]));
        site.until_held(3);
        site.until("the rest is sealed", |site| site.count("sealed") == 12);
        run.kill();
        site.let_go();
        let told = patient(&site, &["resume", "wave-run"]).exits(0);
        told.says("looked at again until");
        assert_eq!(site.count("sealed"), 30, "{second:?}");
        // Three answers were lost, and their orphans replaced or removed.
        assert_eq!(site.minted().len(), 33, "no pass was asked for again needlessly: {second:?}");
        site.assert_whole("after the resume");
        site.cleanup(&[]).exits(0);
        assert!(site.live().is_empty());
    }
}

// Case: a lost answer, a list that is behind for longer than the settling time, and a tenant
// that says that the pass exists.
#[test]
fn an_existing_pass_after_our_own_lost_attempt_is_not_a_refusal() {
    let site = Site::with(4, |options| {
        behind_and(SecondPost::Rejected, Duration::from_secs(15))(options);
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    });
    let args = site.run_args(&["--settle-after", "2s"]);
    patient(&site, &args).exits(0).says("4 issued and sealed");
    site.assert_whole("after the run");
    site.cleanup(&["--settle-after", "2s"]).exits(0);
    assert!(site.live().is_empty());
}

// Case: an orphan that we deleted is still listed when the next pass is looked for.
#[test]
fn an_orphan_that_we_deleted_is_not_held_against_the_next_pass() {
    let site = Site::with(4, |options| {
        options.replication.listed_after_end = Latency::of(Duration::from_secs(40));
        options.replication.unlisted_after_create = Latency::of(Duration::from_secs(30));
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
    });
    patient(&site, &site.run_args(&[])).exits(0).says("4 issued and sealed");
    site.assert_whole("after the run");
}

// Case: the people of a wave, without a run: some cannot be found, and lists are behind.
#[test]
fn a_cleanup_of_a_wave_does_not_treat_absence_as_proof() {
    let site = Site::with(4, |options| {
        options.replication.unlisted_after_create = Latency::of(Duration::from_secs(8));
    });
    site.run(&["--final-look", "never"]).exits(0);
    let wave = ["cleanup", "--csv", "wave.csv", "--yes"];
    let early = patient_once_it_calls(&site, &wave);
    early.exits(8).says("another pass").says("run cleanup again");
    patient(&site, &wave).exits(0).says("removed 4 passes");
    assert!(site.live().is_empty());
    let mut people = site.people.clone();
    people.push("nobody@contoso.example".to_owned());
    site.write_wave(&people);
    patient(&site, &wave).exits(8).says("nobody@contoso.example: no such user in the tenant");
}

// Case: a 201 names an id that no list shows, and that DELETE may not know.
#[test]
fn a_pass_that_is_listed_under_another_id_is_ours() {
    for deletable in [true, false] {
        let site = Site::with(3, |options| {
            options.faults = Faults::default().at(Call::Issue, 2, Fault::OtherId { deletable });
        });
        let told = site.run(&[]).exits(4).says("1 lost").says("looks like this run's own");
        let lost = &told.err;
        assert_eq!(site.count("lost"), 1, "{lost}");
        assert_eq!(site.read("wave-run").len(), 2, "its copy is not handed over: {lost}");
        patient(&site, &["cleanup", "wave-run"]).exits(0);
        assert!(site.live().is_empty(), "deletable {deletable}");
    }
}

// Case: a row of which the ledger has lost whom it is about.
#[test]
fn a_row_that_cannot_be_restored_is_named_and_counts_as_not_proven() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    db.execute("UPDATE rows SET user_id = NULL WHERE line = 3", []).expect("changed");
    drop(db);
    let told = site.cleanup(&[]).exits(8).says("removed 2 passes");
    told.says("the record of line 3 (user2@contoso.example)").says("it names no user");
    assert_eq!(site.live().len(), 1);
    assert_eq!(sealed_copies(&site).len(), 3, "nothing is purged");
}

// Case: replicas that disagree: DELETE finds no pass, and a list shows it between two that do not.
#[test]
fn a_pass_listed_between_two_absences_is_not_gone() {
    let site = Site::open(1);
    site.run(&[]).exits(0);
    let looks = site.seen(Call::Look);
    change(&site, |options| {
        let mut faults = Faults::default().also(always(Call::Remove, Fault::MethodUnknown));
        faults = faults.at(Call::Look, looks + 1, Fault::Unlisted);
        // The sixth look lies more than a minute behind the first.
        options.faults = faults.at(Call::Look, looks + 6, Fault::Unlisted);
    });
    let told = patient(&site, &["cleanup", "wave-run"]).exits(8);
    assert!(!told.err.contains("purged"), "{}", told.err);
    assert_eq!((site.live().len(), sealed_copies(&site).len()), (1, 1));
    change(&site, |options| options.faults = Faults::default());
    site.cleanup(&[]).exits(0).says("removed 1 pass");
}
