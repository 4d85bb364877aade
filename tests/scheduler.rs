//! Promises the scheduler's small rules, each by itself and at its boundary, judged by the
//! simulated tenant's own counts. In virtual time.

use std::time::Duration;

use jiff::SignedDuration;
use tapwave_core::clock::{later, span};
use tapwave_core::limits;
use tapwave_ledger::{Existing, Ledger, Standing};
use tapwave_pipeline::check::Candidate;
use tapwave_pipeline::run::issuing;
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_pipeline::worker::RunError;
use tapwave_simulator::options::{Call, Fault, Faults, Latency, Limit, Throttle};
use tokio::time::Instant;

use crate::support::conducted::Conducted;

const ROUND_TRIP: Duration = Duration::from_millis(100);

fn with_latency(rows: u64) -> Conducted {
    Conducted::new(rows, |tenant| tenant.options_mut().latency = Latency::of(ROUND_TRIP))
}

fn posts(conducted: &Conducted) -> u64 {
    conducted.tenant.with(|tenant, _| tenant.seen(Call::Issue))
}

async fn count(ledger: &Ledger, standing: Standing) -> u64 {
    ledger.counts().await.expect("counted").of(standing)
}

/// Rows that wait for the limiter's leave when the run must stop would each send one more request.
#[tokio::test(start_paused = true)]
async fn no_post_leaves_after_a_halt() {
    const LAST: u64 = 20;
    let mut conducted = with_latency(200);
    let ledger = conducted.check().await.expect("ready");
    let tenant = conducted.tenant.clone();
    tenant.with(|tenant, _| {
        let options = tenant.options_mut();
        options.throttles.pass_writes = Throttle::of(Limit::Bucket { rate: 5.0, burst: 5.0 });
        options.faults = Faults::default().at(Call::Issue, LAST, Fault::TokenExpired);
    });
    let seen = || tenant.with(|tenant, _| tenant.seen(Call::Issue));
    // When the tenant saw the one that ends the run, and when it saw the last of all.
    let (mut ended, mut last, mut before) = (None, Instant::now(), 0);
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = seen();
            if now > before {
                (last, before) = (Instant::now(), now);
            }
            if now >= LAST {
                ended.get_or_insert_with(Instant::now);
            }
        }
    };
    let issuance = tokio::select! {
        issuance = conducted.issue(&ledger) => issuance.expect("begun"),
        () = watching => unreachable!("it watches for ever"),
    };
    assert!(matches!(issuance.error, Some(RunError::SignIn { .. })), "{:?}", issuance.error);
    let after = last.duration_since(ended.expect("the run was ended"));
    assert!(after <= ROUND_TRIP * 2, "a POST left {after:?} after the one that ended the run");
    assert!(count(&ledger, Standing::Checked).await > 100, "control: most rows still waited");
    assert_eq!(count(&ledger, Standing::Intent).await, 0, "what was in flight is recorded");
    ledger.shut().await;
}

/// A failed row that gets another chance has had its intent: what is found on it then is no
/// pass that was there before.
#[tokio::test(start_paused = true)]
async fn skipping_is_decided_before_the_first_intent_and_never_again() {
    let mut conducted = with_latency(3);
    conducted.options.existing = Existing::Skip;
    // One person has a pass already, when the wave is checked.
    let person = |number: u32| format!("user{number}@contoso.example");
    let elsewhere = |conducted: &Conducted, number| {
        let made =
            conducted.tenant.with(|tenant, now| tenant.issue_elsewhere(now, &person(number)));
        made.expect("a pass")
    };
    elsewhere(&conducted, 1);
    conducted.tenant.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::Forbidden);
    });
    let ledger = conducted.check().await.expect("ready");
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(count(&ledger, Standing::Skipped).await, 1, "control: skipped before its intent");
    assert_eq!(count(&ledger, Standing::Failed).await, 1);
    let sealed = conducted.live() - 1;
    assert_eq!(sealed, 1);

    // A helpdesk helps whoever had none; later than the check is good for, the run is resumed.
    let failed = (2..=3).find(|number| {
        conducted.tenant.with(|tenant, _| tenant.passes().all(|(_, upn, _)| upn != person(*number)))
    });
    let theirs = elsewhere(&conducted, failed.expect("one has none"));
    tokio::time::sleep(limits::CHECK_GOOD_FOR + Duration::from_secs(1)).await;
    issuing::resume(&ledger, None, &conducted.session, FinalLook::Auto).await.expect("resumed");
    assert_eq!(count(&ledger, Standing::Skipped).await, 1, "decided again");
    assert_eq!(posts(&conducted), 2, "and nothing is asked for in its place");
    let stays = conducted
        .tenant
        .with(|tenant, _| tenant.passes().any(|(_, _, pass)| pass.method == theirs));
    assert!(stays, "somebody else's pass was deleted");
    ledger.shut().await;
}

/// All others have theirs and Graph answers: that one person's attempts are lost is no outage.
#[tokio::test(start_paused = true)]
async fn one_row_that_is_lost_again_and_again_is_no_outage() {
    let mut conducted = with_latency(5);
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, _| {
        let lost = (5..100)
            .fold(Faults::default(), |faults, nth| faults.at(Call::Issue, nth, Fault::LostBefore));
        tenant.options_mut().faults = lost;
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(count(&ledger, Standing::Sealed).await, 4);
    assert_eq!(count(&ledger, Standing::Failed).await, 1);
    assert_eq!(posts(&conducted), 4 + u64::from(limits::MAX_ATTEMPTS));
    ledger.shut().await;
}

/// Every answer is lost, whoever it is for: that is one.
#[tokio::test(start_paused = true)]
async fn rows_that_are_all_lost_are_an_outage() {
    let mut conducted = with_latency(5);
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().with(Call::Issue, 1.0, Fault::LostBefore);
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(matches!(issuance.error, Some(RunError::Outage { .. })), "{:?}", issuance.error);
    assert_eq!(count(&ledger, Standing::Failed).await, 0, "an outage fails no row");
    ledger.shut().await;
}

/// An answer later than any attempt may last is not waited for, and the pass it brings is found
/// after the settling time, which is counted from there.
#[tokio::test(start_paused = true)]
async fn a_post_that_lasts_too_long_is_given_up_and_settled() {
    let too_long = limits::ATTEMPT_TIMEOUT * 2;
    let mut conducted = with_latency(1);
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, _| tenant.options_mut().latency = Latency::of(too_long));
    let began = Instant::now();
    let tenant = conducted.tenant.clone();
    let calming = async {
        tokio::time::sleep(limits::ATTEMPT_TIMEOUT + Duration::from_secs(1)).await;
        tenant.with(|tenant, _| tenant.options_mut().latency = Latency::of(ROUND_TRIP));
    };
    let (issuance, ()) = tokio::join!(conducted.issue(&ledger), calming);
    assert!(issuance.expect("begun").error.is_none());
    let settle_after = Duration::from_secs(conducted.options.fence_seconds);
    let took = began.elapsed();
    assert!(
        took >= limits::ATTEMPT_TIMEOUT + settle_after,
        "settled after {took:?}, within the settling time"
    );
    assert!(took < limits::ATTEMPT_TIMEOUT + settle_after + Duration::from_mins(1), "{took:?}");
    assert_eq!(count(&ledger, Standing::Sealed).await, 1);
    assert_eq!(conducted.live(), 1);
    ledger.shut().await;
}

/// A start that is at hand is left out of the request, and the planned end stays where it is.
#[tokio::test(start_paused = true)]
async fn a_start_is_left_out_from_its_margin_on_and_its_end_kept() {
    let mut conducted = with_latency(1);
    let start = later(conducted.session.clock.now(), Duration::from_hours(2));
    conducted.options.start = Some(start);
    conducted.options.lifetime_minutes = Some(120);
    let ledger = conducted.check().await.expect("ready");
    let row = ledger.rows(&[Standing::Checked], None, 1).await.expect("read").remove(0);
    let candidate = Candidate::restore(&row).expect("checked");
    let asked = |before: i64| {
        let now = start.saturating_sub(SignedDuration::from_secs(before)).expect("a time");
        let asked = candidate.asked_at(now, 60).ok();
        asked.map(|asked| (asked.start.is_some(), asked.lifetime_minutes))
    };
    let margin = i64::try_from(limits::START_MARGIN.as_secs()).expect("seconds");
    assert_eq!(asked(margin + 1), Some((true, 120)));
    assert_eq!(asked(margin), Some((false, 120)), "never longer than was asked");
    assert_eq!(asked(0), Some((false, 120)));
    assert_eq!(asked(-1), Some((false, 119)), "rounded down: the end is kept");
    assert_eq!(asked(-60 * 60), Some((false, 60)));
    assert_eq!(asked(-60 * 60 - 1), None, "shorter than the policy allows");
    ledger.shut().await;
}

/// A start that passes on the way to Graph is refused there, and the next attempt leaves it out.
#[tokio::test(start_paused = true)]
async fn a_start_that_passes_on_the_way_costs_one_attempt() {
    let mut conducted = with_latency(1);
    let ahead = limits::START_MARGIN + Duration::from_mins(10);
    let start = later(conducted.session.clock.now(), ahead);
    conducted.options.start = Some(start);
    // The policy's shortest is 60: something is left to be shortened.
    conducted.options.lifetime_minutes = Some(120);
    let ledger = conducted.check().await.expect("ready");
    let wait = span(conducted.session.clock.now(), start);
    let early = limits::START_MARGIN + Duration::from_secs(1);
    tokio::time::sleep(wait.saturating_sub(early)).await;
    conducted.tenant.with(|tenant, _| {
        tenant.options_mut().latency = Latency::of(limits::START_MARGIN * 3);
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(posts(&conducted), 2);
    assert_eq!(count(&ledger, Standing::Sealed).await, 1);
    ledger.shut().await;
}
