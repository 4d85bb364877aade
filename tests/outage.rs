//! Promises that throttling alone fails no row and holds no run for ever: after so long with
//! nothing but refusals it ends, and a resume carries on. In virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use tapwave_core::limits;
use tapwave_core::progress::{Progress, ProgressEvent};
use tapwave_ledger::Standing;
use tapwave_pipeline::run::issuing::{self, IssuingError};
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_pipeline::worker::RunError;
use tapwave_simulator::Tenant;
use tapwave_simulator::options::{Call, Fault, Faults, Latency, Limit, SecondPost, Throttle};
use tokio::time::Instant;

use crate::support::conducted::{Conducted, Stopped};

const ROWS: u64 = 300;

fn refusing(retry_after: Option<&str>) -> Fault {
    Fault::Throttled { retry_after: retry_after.map(Into::into) }
}

fn slow(tenant: &mut Tenant) {
    tenant.options_mut().latency = Latency::of(Duration::from_millis(50));
}

fn refuses(tenant: &mut Tenant, call: Call, retry_after: Option<&str>) {
    slow(tenant);
    tenant.options_mut().faults = Faults::default().with(call, 1.0, refusing(retry_after));
}

#[tokio::test(start_paused = true)]
async fn nothing_but_refusals_end_the_run_once_and_it_can_be_resumed() {
    for retry_after in [None, Some("1"), Some("30"), Some("300")] {
        let mut conducted = Conducted::new(ROWS, slow);
        let ledger = conducted.check().await.expect("ready");
        conducted.tenant.with(|tenant, _| refuses(tenant, Call::Issue, retry_after));
        let began = Instant::now();
        let issuance = conducted.issue(&ledger).await.expect("begun");
        let took = began.elapsed();
        assert!(matches!(issuance.error, Some(RunError::Outage { .. })), "{:?}", issuance.error);
        let longest = limits::MAX_OUTAGE + Duration::from_mins(5) + Duration::from_mins(1);
        assert!(took >= limits::MAX_OUTAGE && took <= longest, "{retry_after:?}: {took:?}");
        let counts = ledger.counts().await.expect("counted");
        assert_eq!(counts.of(Standing::Checked), ROWS, "{retry_after:?}: a row did not wait");
        assert_eq!(conducted.live(), 0);

        conducted.tenant.with(|tenant, _| tenant.options_mut().faults = Faults::default());
        let issuance = issuing::resume(&ledger, None, &conducted.session, FinalLook::Auto)
            .await
            .expect("resumed");
        assert!(issuance.error.is_none(), "{:?}", issuance.error);
        let counts = ledger.counts().await.expect("counted");
        assert_eq!(counts.of(Standing::Sealed), ROWS);
        assert_eq!(conducted.live() as u64, ROWS);
        ledger.shut().await;
    }
}

/// Hears of outages alone.
#[derive(Default)]
struct Heard {
    outages: AtomicU32,
    ends: AtomicU32,
}

impl Progress for Heard {
    fn report(&self, news: ProgressEvent) {
        match news {
            ProgressEvent::Outage { .. } => self.outages.fetch_add(1, Ordering::Relaxed),
            ProgressEvent::OutageOver => self.ends.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_comes_back_costs_no_row_and_is_told_once() {
    let mut conducted = Conducted::new(ROWS, slow);
    let heard = Arc::new(Heard::default());
    conducted.session.progress = Arc::clone(&heard) as _;
    let ledger = conducted.check().await.expect("ready");
    let tenant = conducted.tenant.clone();
    let down = Faults::default().with(Call::Issue, 1.0, Fault::Unreachable);
    tenant.with(|tenant, _| tenant.options_mut().faults = down);
    let repair = async {
        tokio::time::sleep(limits::MAX_OUTAGE.mul_f64(0.8)).await;
        tenant.with(|tenant, _| tenant.options_mut().faults = Faults::default());
    };
    let (issuance, ()) = tokio::join!(conducted.issue(&ledger), repair);
    assert!(issuance.expect("begun").error.is_none());
    let counts = ledger.counts().await.expect("counted");
    assert_eq!((counts.of(Standing::Sealed), counts.of(Standing::Failed)), (ROWS, 0));
    assert_eq!(heard.outages.load(Ordering::Relaxed), 1, "once for all rows");
    assert_eq!(heard.ends.load(Ordering::Relaxed), 1);
    ledger.shut().await;
}

#[tokio::test(start_paused = true)]
async fn a_no_is_an_answer_too() {
    let mut conducted = Conducted::new(1, slow);
    let heard = Arc::new(Heard::default());
    conducted.session.progress = Arc::clone(&heard) as _;
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::Unreachable).at(
            Call::Issue,
            2,
            Fault::Forbidden,
        );
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(ledger.counts().await.expect("counted").of(Standing::Failed), 1);
    assert_eq!(heard.outages.load(Ordering::Relaxed), 1);
    assert_eq!(heard.ends.load(Ordering::Relaxed), 1, "else it counts towards the next outage");
    ledger.shut().await;
}

/// The clocks disagree after a sleep, so that Graph's own is asked, and nobody answers yet.
#[tokio::test(start_paused = true)]
async fn a_machine_that_has_slept_waits_for_its_network() {
    let mut conducted = Conducted::new(20, slow);
    let ledger = conducted.check().await.expect("ready");
    conducted.session.clock.jump(SignedDuration::from_hours(1));
    let tenant = conducted.tenant.clone();
    let down = Faults::default().with(None, 1.0, Fault::Unreachable);
    tenant.with(|tenant, _| tenant.options_mut().faults = down);
    let repair = async {
        tokio::time::sleep(Duration::from_mins(2)).await;
        tenant.with(|tenant, _| tenant.options_mut().faults = Faults::default());
    };
    let (issuance, ()) = tokio::join!(conducted.issue(&ledger), repair);
    let issuance = issuance.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(ledger.counts().await.expect("counted").of(Standing::Sealed), 20);
    assert_eq!(conducted.live(), 20);
    ledger.shut().await;
}

/// What an outage lost is settled five minutes later, and then looked at once more: both while
/// the network is away again, or still.
#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_settling_time_is_borne_too() {
    for (away_from, seen) in [(240, 0), (0, 1)] {
        let mut conducted = Conducted::new(3, slow);
        let ledger = conducted.check().await.expect("ready");
        let tenant = conducted.tenant.clone();
        let set = |faults| tenant.with(|tenant, _| tenant.options_mut().faults = faults);
        set(Faults::default().at(Call::Issue, 1, Fault::LostAfter));
        let trouble = async {
            tokio::time::sleep(Duration::from_secs(away_from)).await;
            // Either at once, or when the row has been settled and asked for again.
            while tenant.with(|tenant, _| tenant.seen(Call::Look)) < seen {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            set(Faults::default().with(Call::Look, 1.0, Fault::Unreachable));
            tokio::time::sleep(Duration::from_mins(10)).await;
            set(Faults::default());
        };
        let (issuance, ()) = tokio::join!(conducted.issue(&ledger), trouble);
        let issuance = issuance.expect("begun");
        assert!(issuance.error.is_none(), "{away_from} s: {:?}", issuance.error);
        let counts = ledger.counts().await.expect("counted");
        assert_eq!(counts.of(Standing::Sealed), 3, "{away_from} s: {counts:?}");
        assert_eq!(conducted.live(), 3);
        ledger.shut().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_stays_away_ends_the_run() {
    let mut conducted = Conducted::new(ROWS, slow);
    let ledger = conducted.check().await.expect("ready");
    let down = Faults::default().with(Call::Issue, 1.0, Fault::Unreachable);
    conducted.tenant.with(|tenant, _| tenant.options_mut().faults = down);
    let began = Instant::now();
    let issuance = conducted.issue(&ledger).await.expect("begun");
    let took = began.elapsed();
    assert!(matches!(issuance.error, Some(RunError::Outage { .. })), "{:?}", issuance.error);
    assert!(took >= limits::MAX_OUTAGE, "{took:?}");
    assert!(took <= limits::MAX_OUTAGE + Duration::from_mins(2), "{took:?}");
    assert_eq!(ledger.counts().await.expect("counted").of(Standing::Checked), ROWS);
    ledger.shut().await;
}

#[tokio::test(start_paused = true)]
async fn what_can_be_borne_is_waited_for_whole_and_no_more() {
    let longest = limits::MAX_RETRY_AFTER.as_secs();
    for (wait, ends) in [(longest, false), (longest + 1, true), (30 * 86_400, true)] {
        let mut conducted = Conducted::new(ROWS, slow);
        let ledger = conducted.check().await.expect("ready");
        let told = wait.to_string();
        conducted.tenant.with(|tenant, _| {
            let faults = Faults::default().at(Call::Issue, 50, refusing(Some(&told)));
            tenant.options_mut().faults = faults;
        });
        let began = Instant::now();
        let issuance = conducted.issue(&ledger).await.expect("begun");
        let took = began.elapsed();
        let asked = conducted.tenant.with(|tenant, _| tenant.seen(Call::Issue));
        match issuance.error {
            Some(RunError::Outage { why }) if ends => {
                assert!(why.starts_with("it wants to be left alone until "), "{why}");
                assert!(took < Duration::from_mins(1), "{took:?}");
                assert!(asked < 150, "{asked} asked");
            }
            None if !ends => assert!(took >= limits::MAX_RETRY_AFTER, "{took:?}"),
            other => panic!("{wait} s: {other:?}"),
        }
        ledger.shut().await;
    }
}

#[tokio::test(start_paused = true)]
async fn reads_and_batches_end_too() {
    for call in [Call::ReadPolicy, Call::Users, Call::Groups, Call::CheckGroups, Call::Batch] {
        // Few rows are asked about one by one, more are compared with the group's list.
        let few = matches!(call, Call::CheckGroups | Call::Users | Call::Batch);
        let rows = if few { 10 } else { ROWS };
        let mut conducted = Conducted::new(rows, |tenant| refuses(tenant, call, Some("20")));
        let began = Instant::now();
        let stopped = conducted.check().await.err();
        let took = began.elapsed();
        let why = stopped.map(|stopped| stopped.to_string()).unwrap_or_default();
        assert!(why.starts_with("gave up on Microsoft Graph"), "{call:?}: {why}");
        assert!(took >= limits::MAX_OUTAGE, "{call:?}: {took:?}");
        assert!(took <= limits::MAX_OUTAGE + Duration::from_mins(2), "{call:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_check_is_no_outage_of_the_writes() {
    let mut conducted = Conducted::new(30, slow);
    let ledger = conducted.check().await.expect("ready");
    tokio::time::sleep(2 * limits::MAX_OUTAGE).await;
    conducted.tenant.with(|tenant, _| {
        tenant.options_mut().throttles.pass_writes =
            Throttle::of(Limit::Bucket { rate: 1.0, burst: 1.0 });
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    assert_eq!(conducted.live(), 30);
    ledger.shut().await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_often_refused_has_all_its_attempts_left() {
    let refused = u64::from(limits::MAX_ATTEMPTS) + 2;
    let mut conducted = Conducted::new(1, slow);
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, _| {
        let faults = (1..=refused).fold(Faults::default(), |faults, nth| {
            faults.at(Call::Issue, nth, refusing(Some("1")))
        });
        tenant.options_mut().faults = faults.at(Call::Issue, refused + 1, Fault::LostBefore);
    });
    let issuance = conducted.issue(&ledger).await.expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    let counts = ledger.counts().await.expect("counted");
    assert_eq!(counts.of(Standing::Sealed), 1, "{counts:?}");
    ledger.shut().await;
}

#[tokio::test(start_paused = true)]
async fn a_pass_in_the_way_that_nobody_can_see_holds_its_row_and_nothing_else() {
    let mut conducted = Conducted::new(2, slow);
    let ledger = conducted.check().await.expect("ready");
    conducted.tenant.with(|tenant, now| {
        tenant.issue_elsewhere(now, "user1@contoso.example").expect("a pass");
        let options = tenant.options_mut();
        options.second_post = SecondPost::Rejected;
        options.faults = Faults::default().with(Call::Look, 1.0, Fault::Forbidden);
    });
    let issuing = tokio::time::timeout(Duration::from_hours(1), conducted.issue(&ledger));
    let issuance = issuing.await.expect("an end").expect("begun");
    assert!(issuance.error.is_none(), "{:?}", issuance.error);
    let counts = ledger.counts().await.expect("counted");
    assert_eq!((counts.of(Standing::Held), counts.of(Standing::Sealed)), (1, 1), "{counts:?}");
    let asked = conducted.tenant.with(|tenant, _| tenant.seen(Call::Issue));
    assert_eq!(asked, 2, "it may be ours: nobody asks again before it could be looked at");
    ledger.shut().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_as_such() {
    let mut conducted = Conducted::new(3, |tenant| refuses(tenant, Call::ReadPolicy, Some("60")));
    let Err(Stopped::Intake(error)) = conducted.check().await else { panic!("must stop") };
    assert_eq!(
        IssuingError::Intake(error).to_string(),
        "gave up on Microsoft Graph: it has thrown every request back for too long (HTTP 429)"
    );
}
