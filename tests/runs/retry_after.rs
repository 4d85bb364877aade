//! Promises that a `Retry-After` is waited for whole when that can be borne, and that a longer
//! one ends the run at once with exit 6, with nobody knocking, and a resume carries on.

use std::time::Duration;

use tapwave_core::clock::{later, span};
use tapwave_simulator::options::{Call, Fault, Faults};
use tapwave_simulator::{LogEntry, PassEvent};

use crate::runs::resume::typed_resume;
use crate::support::site::Site;

fn asked_to_wait(call: Call, nth: u64, retry_after: &str) -> Faults {
    let retry_after = Some(retry_after.to_owned());
    Faults::default().at(call, nth, Fault::Throttled { retry_after })
}

#[test]
fn a_retry_after_of_an_hour_ends_the_run_and_a_resume_does_the_rest() {
    for in_flight in ["1", "64"] {
        let site = Site::with(40, |options| options.faults = asked_to_wait(Call::Issue, 5, "3600"));
        // An hour is not waited for: no clock is moved here.
        let told = site.run(&["--max-in-flight", in_flight]).exits(6);
        told.says("it wants to be left alone until 20")
            .says("Retry-After of 1h")
            .says(&format!("{} carries on", typed_resume(&site)));
        let posts = site.seen(Call::Issue);
        let under_way = if in_flight == "1" { 5 } else { 10 };
        assert!(posts <= under_way, "{posts} knocked, {in_flight} in flight");
        assert_eq!(site.live().len() as u64, posts - 1);
        site.assert_true("told to come back in an hour");
        site.resume().exits(0);
        site.assert_whole("resumed");
        assert_eq!(site.seen(Call::Issue), 41, "one each and the one that was refused");
    }
}

#[test]
fn a_retry_after_of_an_hour_ends_a_check_also_as_a_date() {
    for call in [Call::ReadPolicy, Call::Batch] {
        let date = later(jiff::Timestamp::now(), Duration::from_hours(2));
        let date = httpdate::fmt_http_date(date.into());
        for wait in ["3600", &date] {
            let site = Site::with(40, |options| options.faults = asked_to_wait(call, 1, wait));
            site.run(&[]).exits(6).says("it wants to be left alone until 20");
            assert_eq!(site.seen(call), 1, "{call:?}: nobody knocks");
            assert_eq!(site.seen(Call::Issue), 0);
        }
    }
}

#[test]
fn an_acceptable_wait_is_waited_out() {
    let site = Site::with(12, |options| options.faults = asked_to_wait(Call::Issue, 3, "600"));
    site.hold(Call::Issue, 3);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    let told = site.now();
    site.let_go();
    site.pass_until(Duration::from_mins(1), "it goes on", |site| site.seen(Call::Issue) > 3);
    // What it has learned of the tenant's limit is slow.
    site.end_as_time_passes(run).exits(0);
    let third = site.served.with(|tenant, _| {
        let made = |entry: &&LogEntry| matches!(entry.event, PassEvent::Minted { .. });
        tenant.log().iter().filter(made).nth(2).expect("the third pass").at
    });
    let waited = span(told, third);
    assert!(waited >= Duration::from_mins(10), "{waited:?}");
    assert_eq!(site.seen(Call::Issue), 13);
    site.assert_whole("after a wait");
}

// Case: five of a batch are let through and the others told to wait. Sent again as one batch of
// fifteen, they would be refused once more, and again.
#[test]
fn a_batch_whose_rest_is_refused_becomes_smaller() {
    let refuse = |faults: Faults, nth| {
        let retry_after = Some("0.1".to_owned());
        faults.at(Call::Remove, nth, Fault::Throttled { retry_after })
    };
    let site = Site::with(20, |options| options.faults = (6..=20).fold(Faults::default(), refuse));
    site.run(&[]).exits(0);
    let before = site.seen(Call::Batch);
    site.cleanup(&[]).exits(0);
    assert_eq!(site.live().len(), 0);
    assert_eq!(site.seen(Call::Remove), 20 + 15, "what was deleted is not deleted again");
    let (first, by_fives, listed) = (1, 3, 1);
    let batches = site.seen(Call::Batch) - before;
    assert!(batches >= first + by_fives + listed, "{batches} batches");
}

// Case: the operator stops the run while the tenant holds back a cleanup's requests: none is in flight.
#[cfg(unix)]
#[test]
fn a_stop_does_not_wait_for_requests_that_are_held_back() {
    for call in [Call::Remove, Call::Look] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let seen = site.seen(call);
        site.served.with(|tenant, _| {
            tenant.options_mut().faults = asked_to_wait(call, seen + 1, "600");
        });
        let run = site.start(&["cleanup", "wave-run"]);
        site.until("it is held back", |site| site.seen(call) > seen);
        run.signal(rustix::process::Signal::INT);
        site.until("it has heard that", |_| run.has_said("stopping: what is in flight"));
        site.pass(Duration::from_secs(5));
        run.end().exits(130);
        site.pass(Duration::from_mins(20));
        site.end_as_time_passes(site.start(&["cleanup", "wave-run"])).exits(0);
        assert!(site.live().is_empty());
    }
}
