//! Promises that Ctrl-C ends a run without losing anything, and says how to go on.

use std::time::Duration;

use rustix::process::Signal;
use tapwave::rehearsal::options::Call;

use crate::resume::typed_resume;
use crate::site::Site;

#[test]
fn the_first_stops_new_work_and_finishes_what_is_in_flight() {
    for signal in [Signal::INT, Signal::TERM] {
        let site = Site::open(40);
        site.slow_down(Duration::from_millis(150));
        let run = site.start(&site.run_args(&["--max-in-flight", "3", "--json"]));
        site.until("some passes are made", |site| site.live().len() >= 4);
        run.signal(signal);
        let told = run.end().exits(130);
        let summary = told.summary();
        told.says("stopping: what is in flight is finished").says(&typed_resume(&site));
        let live = site.live().len();
        assert!(live < 40, "stopped before the end");
        assert_eq!(summary["sealed"], live, "{summary}");
        assert_eq!(summary["unsettled"], 0, "{summary}");
        site.assert_true("after the signal");
        assert_eq!(site.seen(Call::Issue), live as u64, "nothing in flight was given up");
        site.slow_down(Duration::ZERO);
        site.resume().exits(0);
        site.assert_whole("after the resume");
        assert_eq!(site.seen(Call::Issue), 40, "nobody was asked for twice");
    }
}

#[test]
fn the_second_leaves_at_once_and_keeps_what_was_committed() {
    let site = Site::open(12);
    site.slow_down(Duration::from_millis(40));
    let run = site.start(&site.run_args(&["--max-in-flight", "2"]));
    site.until("some passes are made", |site| site.live().len() >= 4);
    // What is in flight from now on will not be answered while this test lasts.
    site.slow_down(Duration::from_mins(10));
    let mut before = 0;
    site.until("what was answered is sealed", |site| {
        let (live, sealed) = (site.live().len(), site.count("sealed"));
        before = sealed;
        live == sealed && site.count("intent") == 2
    });
    run.signal(Signal::INT);
    // A signal that has not been taken yet would swallow the next of its kind.
    site.until("it has heard the first", |site| {
        let state = std::fs::read_to_string(format!("/proc/{}/status", run.id()));
        let _ = site;
        state.is_ok_and(|state| state.contains("SigPnd:\t0000000000000000"))
    });
    std::thread::yield_now();
    run.signal(Signal::TERM);
    let told = run.end().exits(130);
    told.says("left at once").says(&format!("{} carries on", typed_resume(&site)));
    assert_eq!(site.count("sealed"), before, "nothing committed is lost");
    site.slow_down(Duration::ZERO);
    site.resume().exits(0);
    site.assert_whole("after the resume");
}
