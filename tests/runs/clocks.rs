//! Promises that clocks which disagree are named, that no start is fought over with one, and that
//! a person can say whose the pass is that no clock can tell.

use jiff::{SignedDuration, Timestamp};
use tapwave_simulator::PassEvent;
use tapwave_simulator::options::{Call, Fault, Faults};

use crate::support::site::{Site, Told};

const HOURS: SignedDuration = SignedDuration::from_hours(2);

/// A tenant whose answers are dated so far from its own clock.
fn dated(people: usize, by: SignedDuration) -> Site {
    Site::with(people, |options| options.date_offset = by)
}

fn patient(site: &Site, args: &[&str]) -> Told {
    site.end_as_time_passes(site.start(args))
}

/// The command that is suggested for a held row.
fn settling(told: &Told) -> String {
    let line = told
        .err
        .lines()
        .find(|line| line.contains("tapwave resume") && line.contains("--remove-found"));
    let line = line.unwrap_or_else(|| panic!("no command in:\n{}", told.err));
    let command = line.split("   ").find(|part| part.contains("tapwave resume"));
    command.expect("a command").trim().trim_start_matches("next: ").to_owned()
}

fn in_an_hour() -> String {
    let start = Timestamp::now() + SignedDuration::from_hours(1);
    start.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

// Case: the service that issues passes has another clock than the answers' dates and this machine.
#[test]
fn a_start_that_graph_calls_past_is_reported_at_once_with_the_clocks() {
    let site = Site::with(3, |options| {
        options.clock_offset = HOURS;
        options.date_offset = -HOURS;
    });
    let start = in_an_hour();
    let told = site.run(&["--start", &start]).exits(4);
    let told = told
        .says("time in the past")
        .says(&format!("the start {start} is"))
        .says("so the clock of the service that issues passes is wrong, or those two are");
    assert!(told.err.contains("ahead of the clock that Graph shows"), "{}", told.err);
    assert_eq!(site.seen(Call::Issue), 3, "none is asked for again");
    assert!(site.live().is_empty());
}

// Case: this machine's clock is behind Graph's, and the start has passed there.
#[test]
fn a_clock_that_is_off_is_named_by_the_check() {
    let site = Site::with(2, |options| options.clock_offset = HOURS);
    let start = in_an_hour();
    let check = ["check", "wave.csv", "-r", site.recipient(), "--start", &start];
    let told = site.told(&[&check[..], &["--lifetime", "8h"]].concat()).exits(0);
    told.says("Graph's clock and this machine's differ by 2 h: Graph's is ahead")
        .says("2 of the start times have passed by Graph's clock");
    let told = site.told(&[&check[..], &["--lifetime", "60"]].concat()).exits(3);
    told.says("differ by 2 h").says("by Graph's clock, be over before it can be used");
    let right = Site::open(1);
    let told = right.told(&["check", "wave.csv", "-r", right.recipient()]).exits(0);
    assert!(!told.err.contains("clock"), "{}", told.err);
}

// Case: Graph's dates are wrong by hours, and an answer is lost: the pass looks like nobody's.
#[test]
fn an_orphan_that_no_clock_proves_is_removed_if_a_person_agrees() {
    for by in [HOURS, -HOURS] {
        let site = dated(2, by);
        site.served.with(|tenant, _| {
            tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
        });
        let args = site.run_args(&[]);
        let told = patient(&site, &args).exits(4);
        let told = told
            .says("Graph's clock and this machine's differ by 2 h")
            .says("a pass like the one that was asked for")
            .says("by Graph's clocks");
        // A resume leaves the row held, and deletes nothing unasked.
        let again = patient(&site, &["resume", "wave-run"]).exits(4);
        again.says("Graph's clock and this machine's differ by 2 h");
        assert_eq!(site.count("held"), 1);
        let settle = settling(&told);
        let unasked = site.pasted(&settle).exits(2);
        unasked.says("there is no terminal to ask on").says("made 20");
        assert_eq!(site.seen(Call::Remove), 0, "nothing is deleted unasked");
        assert_eq!(settling(&site.told(&["status", "wave-run"]).exits(0)), settle);
        let done = site.start_pasted(&format!("{settle} --yes"));
        site.end_as_time_passes(done).exits(0);
        let deleted = site.served.with(|tenant, _| {
            let deleted = |event: &&PassEvent| matches!(event, PassEvent::Deleted { .. });
            tenant.log().iter().map(|entry| &entry.event).filter(deleted).count()
        });
        assert_eq!(deleted, 1, "the orphan and nothing else");
        site.assert_whole("settled by hand");
    }
}

// Case: what is named is not held, or there is nothing to delete.
#[test]
fn a_row_that_is_not_held_is_left_alone() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let person = &site.people[0];
    let resume = ["resume", "wave-run", "--yes", "--remove-found", person];
    site.told(&resume).exits(2).says(&format!("no row of this run is held for {person}"));
    assert_eq!(site.live().len(), 2);
}

// Case: the question on a terminal, answered with no.
#[cfg(target_os = "linux")]
#[test]
fn a_pass_that_holds_a_row_is_not_deleted_without_agreement() {
    let site = dated(1, HOURS);
    site.served.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
    });
    let args = site.run_args(&[]);
    patient(&site, &args).exits(4);
    let person = &site.people[0];
    let resume = site.tapwave(&["resume", "wave-run", "--remove-found", person]);
    let mut window = crate::support::pty::Window::open(&resume);
    window.until_shown("delete 1 such pass");
    window.press(b"n");
    let (code, shown) = window.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert_eq!((site.seen(Call::Remove), site.count("held")), (0, 1));
}
