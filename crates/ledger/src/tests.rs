//! Tests of the ledger as a whole: on a real disk, reopened, damaged, and raced.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use proptest::prelude::*;

use super::events::Eligible;
use super::*;
use tapwave_core::clock;
use tapwave_core::effect::{Obstacle, ObstacleKind};
use tapwave_core::ids::MethodId;

const SOME: usize = 100;

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn clock() -> Clock {
    Clock::starting_at(time("2026-03-01T08:00:00Z"))
}

fn user(number: u64) -> UserId {
    UserId::new(uuid::Uuid::from_u128(u128::from(number)))
}

fn asked() -> Asked {
    Asked { start: None, lifetime_minutes: 60, one_time: false }
}

fn method(text: &str) -> MethodId {
    text.parse().expect("a method id")
}

fn issued(text: &str) -> IssuedRecord {
    IssuedRecord {
        method: method(text),
        start: Some(time("2026-03-01T08:00:01Z")),
        lifetime_minutes: 60,
        one_time: true,
    }
}

fn checked(number: u64) -> Event {
    Event::Checked(Box::new(Eligible {
        user: user(number),
        display_name: Some(format!("Person {number}")),
        asked: asked(),
        set: 0,
        reader: None,
        notice_reader: None,
    }))
}

fn refused(why: &str) -> Effect<Unheld, Denied> {
    Effect::Refused(Denied::Final { why: why.into() })
}

fn throttled() -> Effect<Unheld, Denied> {
    Obstacle::new(ObstacleKind::Throttled, "throttled").into()
}

async fn ended(ledger: &Ledger, intent: Intent, effect: Effect<Unheld, Denied>) {
    ledger.record_outcome(intent, effect, Timestamp::UNIX_EPOCH).await.expect("recorded");
}

pub(super) fn about() -> About {
    About {
        id: tapwave_core::ids::RunId::new(uuid::Uuid::from_u128(1)),
        name: "wave".into(),
        created: time("2026-03-01T08:00:00Z"),
        tapwave_version: "0.1.0".into(),
        wave: WaveAbout {
            path: "wave.csv".into(),
            digest: "00".into(),
            header_json: "{}".into(),
            rows: 3,
        },
        tenant: None,
        graph_url: "https://graph.microsoft.com".into(),
        options: RunOptions { fence_seconds: 300, ..RunOptions::default() },
        recipients: vec![RecipientRecord {
            label: "all".into(),
            keys: vec!["age1x".into()],
            names: BTreeMap::new(),
        }],
        policy: PolicyRecord {
            min_lifetime_minutes: 60,
            max_lifetime_minutes: 480,
            default_lifetime_minutes: 60,
            one_time: false,
        },
        checked_at: time("2026-03-01T07:59:00Z"),
    }
}

fn new_row(line: u64) -> NewRow {
    NewRow {
        line: Line(line),
        upn: format!("Person{line}@contoso.example"),
        cells: vec![format!("Person{line}@contoso.example"), "Ops".into()],
        wanted_json: r#"{"lifetimeMinutes":90}"#.into(),
    }
}

/// Rows on lines 2, 3, …, all checked.
pub(super) fn draft_with_rows(folder: &RunFolder, rows: u64) -> Draft {
    let mut draft = Draft::create(folder, clock()).expect("begun");
    for line in 2..rows + 2 {
        draft.add_row(&new_row(line)).expect("added");
        draft.record(Line(line), &checked(line)).expect("recorded");
    }
    draft
}

struct Place {
    _home: tempfile::TempDir,
    folder: RunFolder,
}

fn place() -> Place {
    let home = tempfile::tempdir().expect("a temporary folder");
    let folder = RunFolder::create(&home.path().join("wave")).expect("made");
    Place { _home: home, folder }
}

fn run_of(place: &Place, rows: u64) -> Ledger {
    draft_with_rows(&place.folder, rows).publish(&about()).expect("published")
}

async fn open(place: &Place, access: Access) -> Result<Ledger, LedgerError> {
    Ledger::open(&place.folder, access, clock()).await
}

async fn intent(ledger: &Ledger, line: u64) -> Intent {
    ledger
        .intend(Line(line), user(line), asked(), time("2026-03-01T08:00:00Z"))
        .await
        .expect("minted")
}

fn files(place: &Place) -> Vec<(String, Vec<u8>)> {
    std::fs::read_dir(place.folder.path())
        .expect("readable")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let bytes = std::fs::read(entry.path()).expect("readable");
            (entry.file_name().to_string_lossy().into_owned(), bytes)
        })
        .collect()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

// ---- drafts ------------------------------------------------------------------------------

#[tokio::test]
async fn a_ledger_has_its_name_only_when_it_is_complete() {
    let place = place();
    let mut draft = draft_with_rows(&place.folder, 3);
    let bad = NewBadRow {
        line: Line(9),
        upn: String::new(),
        cells: vec![String::new()],
        problems: vec!["the userPrincipalName is empty; write one".into()],
    };
    draft.add_bad(bad).expect("added");
    assert!(!place.folder.holds_run());
    let missing = open(&place, Access::Read).await.expect_err("not yet").to_string();
    assert!(missing.contains("a ledger that was never finished"), "{missing}");

    let ledger = draft.publish(&about()).expect("published");
    assert!(place.folder.holds_run());
    assert_eq!(ledger.about(), &about());
    let counts = ledger.counts().await.expect("counted");
    assert_eq!((counts.of(Standing::Checked), counts.of(Standing::Ineligible)), (3, 1));
    let row = ledger.row(Line(9)).await.expect("read").expect("there");
    assert_eq!(row.reason.as_deref(), Some("the userPrincipalName is empty; write one"));
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!(row.upn, "Person2@contoso.example");
    assert_eq!(row.wanted_json, r#"{"lifetimeMinutes":90}"#);
    assert_eq!((row.user, row.set, row.asked), (Some(user(2)), Some(0), Some(asked())));
}

#[tokio::test]
async fn a_crashed_start_is_replaced_and_a_run_is_never_overwritten() {
    let place = place();
    drop(draft_with_rows(&place.folder, 3));
    assert!(place.folder.path().join("ledger.db.new").exists(), "as a crash would leave it");
    let ledger = run_of(&place, 1);
    assert_eq!(ledger.counts().await.expect("counted").rows(), 1);
    ledger.shut().await;
    let refused = Draft::create(&place.folder, clock()).err().expect("there is a run");
    assert!(matches!(refused, LedgerError::Folder(FolderError::HoldsRun(_))), "{refused}");
}

#[tokio::test]
async fn a_scratch_draft_reads_like_a_ledger_and_leaves_nothing() {
    let mut draft = Draft::scratch(clock()).expect("begun");
    for line in 2..6 {
        draft.add_row(&new_row(line)).expect("added");
    }
    draft.record(Line(3), &checked(3)).expect("recorded");
    let listed = draft.rows(&[Standing::Listed], Some(Line(2)), SOME).expect("read");
    assert_eq!(listed.iter().map(|row| row.line.0).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(draft.counts().expect("counted").of(Standing::Checked), 1);
    let illegal = draft.record(Line(3), &Event::Verified).expect_err("not sealed");
    assert!(matches!(illegal, LedgerError::Illegal { line: Line(3), .. }), "{illegal}");
    let path = draft.path().to_owned();
    assert!(path.exists());
    assert!(matches!(draft.publish(&about()), Err(LedgerError::ScratchOnly)));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_discarded_draft_leaves_an_empty_folder() {
    let place = place();
    draft_with_rows(&place.folder, 3).discard().expect("discarded");
    assert!(!place.folder.path().join("ledger.db.new").exists());
    RunFolder::create(place.folder.path()).expect("counts as empty");
    run_of(&place, 1);
}

// ---- moves -------------------------------------------------------------------------------

#[tokio::test]
async fn the_next_process_knows_everything_about_a_row() {
    let place = place();
    let ledger = run_of(&place, 3);
    let one = intent(&ledger, 2).await;
    assert_eq!((one.id(), one.line(), one.user()), (IntentId(1), Line(2), user(2)));
    ended(&ledger, one, throttled()).await;
    let two = intent(&ledger, 2).await;
    ledger
        .sealed(two, issued("m-2"), 0, b"ciphertext".to_vec(), Timestamp::UNIX_EPOCH)
        .await
        .expect("recorded");
    let three = intent(&ledger, 3).await;
    ended(&ledger, three, refused("external guest")).await;
    let lost = intent(&ledger, 4).await;
    let given_up = time("2026-03-01T08:05:00Z");
    let unheld = Effect::Done(Unheld { method: method("named"), why: "reset".into() });
    ledger.record_outcome(lost, unheld, given_up).await.expect("recorded");
    ledger.add_traffic(7, 2).await.expect("recorded");
    ledger.shut().await;
    drop(ledger);

    let ledger = open(&place, Access::Write).await.expect("opened");
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!(row.state, State::Sealed { method: method("m-2"), proven: true });
    assert_eq!((row.attempts, row.issued), (0, Some(issued("m-2"))), "a throttled one is no loss");
    assert_eq!(row.intent.expect("the latest").outcome.as_deref(), Some("sealed"));
    let sealed = ledger.ciphertext(Line(2)).await.expect("read");
    assert_eq!(sealed.as_deref(), Some(&b"ciphertext"[..]));
    assert_eq!(alive(&ledger, 2).await, ["m-2"]);
    assert_eq!(alive(&ledger, 4).await, ["named"], "an unusable answer named it");
    assert_eq!(ledger.remaining().await.expect("counted"), 2, "a refusal leaves nothing");
    let row = ledger.row(Line(3)).await.expect("read").expect("there");
    assert_eq!(
        (row.state, row.reason.as_deref()),
        (State::Failed { after_loss: false }, Some("external guest"))
    );
    let row = ledger.row(Line(4)).await.expect("read").expect("there");
    assert_eq!(row.intent.expect("the lost one").given_up, Some(given_up));
    let names: Vec<&str> =
        ledger.history(Line(2)).await.expect("read").iter().map(|(_, e)| e.name()).collect();
    assert_eq!(names, ["checked", "intended", "not effected", "intended", "sealed"]);
    let counts = ledger.counts().await.expect("counted");
    assert_eq!((counts.requests, counts.throttled), (7, 2));
}

#[tokio::test]
async fn an_event_without_its_intent_is_refused_and_leaves_no_trace() {
    let place = place();
    let ledger = run_of(&place, 2);
    let held = intent(&ledger, 2).await;
    let before = ledger.history(Line(2)).await.expect("read");
    for event in [
        Event::Intended { intent: IntentId(9), asked: asked(), graph_time: Timestamp::UNIX_EPOCH },
        Event::NotEffected { intent: held.id(), why: "no".into() },
        Event::Refused { intent: held.id(), why: "no".into() },
        Event::Sealed {
            intent: held.id(),
            method: method("m"),
            start: None,
            lifetime_minutes: 60,
            one_time: false,
            graph_time: Timestamp::UNIX_EPOCH,
        },
        Event::InTheWay { intent: held.id(), why: "no".into() },
    ] {
        let error = ledger.record(Line(2), event).await.expect_err("needs its intent");
        assert!(matches!(error, LedgerError::NeedsIntent { line: Line(2), .. }), "{error}");
    }
    let twice = ledger.intend(Line(2), user(2), asked(), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(twice, Err(LedgerError::Illegal { .. })), "one attempt at a time");
    let other = ledger.intend(Line(3), user(9), asked(), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(other, Err(LedgerError::OtherUser(Line(3)))));
    let nobody = ledger.record(Line(77), Event::Verified).await;
    assert!(matches!(nobody, Err(LedgerError::UnknownLine(Line(77)))));
    assert_eq!(ledger.history(Line(2)).await.expect("read"), before);
    assert_eq!(intent(&ledger, 3).await.id(), IntentId(2), "refusals used up no number");
}

#[tokio::test(start_paused = true)]
async fn a_closed_run_issues_no_more_but_can_still_settle_and_remove() {
    let place = place();
    let ledger = run_of(&place, 2);
    let open_one = intent(&ledger, 2).await;
    ledger.close().await.expect("closed");
    let refused = ledger.intend(Line(3), user(3), asked(), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(refused, Err(LedgerError::Closed)));
    ledger
        .sealed(open_one, issued("m"), 0, vec![1], Timestamp::UNIX_EPOCH)
        .await
        .expect("was under way");
    ledger.record(Line(2), Event::Removed { proof: Proof::Deleted }).await.expect("recorded");
    ledger.shut().await;
    let ledger = open(&place, Access::Write).await.expect("opened");
    assert_eq!(ledger.closed().await.expect("read"), Some(time("2026-03-01T08:00:00Z")));
    let refused = ledger.intend(Line(3), user(3), asked(), Timestamp::UNIX_EPOCH).await;
    assert!(matches!(refused, Err(LedgerError::Closed)), "for ever after");
}

#[tokio::test]
async fn a_settled_row_has_no_pass_but_the_run_remembers_it() {
    let place = place();
    let ledger = run_of(&place, 1);
    let lose = |why: &str| Event::Lost {
        intent: IntentId(1),
        why: why.into(),
        given_up: Timestamp::UNIX_EPOCH,
        method: None,
    };
    let died_with_its_process = intent(&ledger, 2).await;
    drop(died_with_its_process);
    ledger.record(Line(2), lose("the run was killed")).await.expect("recorded");
    ledger.record(Line(2), Event::Settled { found: None, proof: None }).await.expect("recorded");
    let second = intent(&ledger, 2).await;
    ledger
        .sealed(second, issued("unproven"), 0, vec![1, 2], Timestamp::UNIX_EPOCH)
        .await
        .expect("recorded");
    ledger.handed_off("one.age".into(), "00".into(), vec![Line(2)]).await.expect("recorded");
    let held = Event::Held { why: "another pass".into(), found: Some(method("theirs")) };
    ledger.record(Line(2), held).await.expect("recorded");
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!(row.foreign, Some(method("theirs")));
    assert_eq!(row.issued.expect("still ours to remove").method, method("unproven"));
    ledger.record(Line(2), Event::Settled { found: None, proof: None }).await.expect("recorded");
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!((row.issued, row.attempts, row.handoff), (None, 0, None));
    assert_eq!(ledger.ciphertext(Line(2)).await.expect("read"), None);
    assert_eq!(alive(&ledger, 2).await, ["unproven"], "cleanup looks for it");
    let gone = Event::Settled { found: None, proof: Some(Proof::Absent) };
    ledger.record(Line(2), gone).await.expect("recorded");
    let remains = ledger.remains_of(vec![Line(2)]).await.expect("read").pop().expect("there");
    assert_eq!((remains.alive, remains.gone), (Vec::new(), Vec::new()));
    assert_eq!(remains.given_up, [method("unproven")]);
    assert_eq!(ledger.remaining().await.expect("counted"), 0);
}

/// The passes of a row that may be alive.
async fn alive(ledger: &Ledger, line: u64) -> Vec<String> {
    let remains = ledger.remains_of(vec![Line(line)]).await.expect("read").pop().expect("there");
    remains.alive.iter().map(|(method, _)| method.to_string()).collect()
}

#[tokio::test]
async fn rows_come_in_pages_by_state_in_the_order_of_their_lines() {
    let place = place();
    let ledger = run_of(&place, 50);
    for line in (2..52).step_by(3) {
        let intent = intent(&ledger, line).await;
        ended(&ledger, intent, refused("no")).await;
    }
    let wanted = [Standing::Failed, Standing::Checked];
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.rows(&wanted, after, 7).await.expect("read");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 7);
        after = Some(last.line);
        seen.extend(page.iter().map(|row| row.line.0));
    }
    assert_eq!(seen, (2..52).collect::<Vec<_>>());
    let failed = ledger.rows(&[Standing::Failed], Some(Line(5)), SOME).await.expect("read");
    assert_eq!(failed.first().map(|row| row.line), Some(Line(8)));
    assert!(failed.iter().all(|row| row.state.standing() == Standing::Failed));
    assert_eq!(ledger.rows(&Standing::ALL, None, SOME).await.expect("read").len(), 50);
    assert!(ledger.rows(&[], None, SOME).await.expect("read").is_empty());
}

#[tokio::test(start_paused = true)]
async fn handoff_lists_what_no_finished_file_holds() {
    let place = place();
    let ledger = run_of(&place, 4);
    for line in 2..5 {
        let intent = intent(&ledger, line).await;
        ledger
            .sealed(intent, issued(&format!("m-{line}")), 1, vec![7], Timestamp::UNIX_EPOCH)
            .await
            .expect("recorded");
    }
    ledger
        .handed_off("all.age".into(), "00".into(), vec![Line(2), Line(4)])
        .await
        .expect("recorded");
    let left = ledger.rows_without_handoff(None, SOME).await.expect("read");
    assert_eq!(left, [Unhanded { line: Line(3), set: 1 }]);
    let files = ledger.handoffs().await.expect("read");
    let written = time("2026-03-01T08:00:00Z");
    assert_eq!(files, [HandoffRecord { file: "all.age".into(), written, digest: "00".into() }]);
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!(row.handoff.as_deref(), Some("all.age"));
}

#[tokio::test]
async fn a_page_of_rows_without_handoff_needs_no_sort() {
    let place = place();
    run_of(&place, 1).shut().await;
    let db = Connection::open(place.folder.path().join(folder::LEDGER)).expect("opened");
    let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {}", store::UNHANDED)).expect("a plan");
    let steps = plan.query_map([2, 64], |row| row.get::<_, String>(3)).expect("steps");
    let steps: Vec<String> = steps.map(|step| step.expect("text")).collect();
    assert!(steps.iter().all(|step| !step.contains("TEMP B-TREE")), "{steps:?}");
    assert!(steps[0].contains("r USING INTEGER PRIMARY KEY (rowid>?)"), "{steps:?}");
}

#[tokio::test]
async fn a_pass_that_is_not_proven_is_not_handed_off() {
    let place = place();
    let ledger = run_of(&place, 1);
    let first = intent(&ledger, 2).await;
    ended(&ledger, first, Effect::Unsettled { why: "reset".into() }).await;
    ledger.record(Line(2), Event::Settled { found: None, proof: None }).await.expect("recorded");
    let second = intent(&ledger, 2).await;
    ledger
        .sealed(second, issued("m-2"), 0, vec![7], Timestamp::UNIX_EPOCH)
        .await
        .expect("recorded");
    assert_eq!(ledger.rows_without_handoff(None, SOME).await.expect("read"), []);
    ledger.record(Line(2), Event::Verified).await.expect("recorded");
    assert_eq!(ledger.rows_without_handoff(None, SOME).await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_mail_belongs_to_one_pass_and_does_not_change_the_handoff() {
    let place = place();
    let ledger = run_of(&place, 1);
    let first = intent(&ledger, 2).await;
    ledger.sealed(first, issued("m-2"), 0, vec![7], Timestamp::UNIX_EPOCH).await.expect("recorded");
    let posted = Posted {
        message_id: "<1@contoso.example>".into(),
        date: time("2026-03-01T08:00:02Z"),
        to: "ada@home.example".into(),
        courier: "smtp".into(),
        body: "pass".into(),
        digest: "00".into(),
    };
    let mail = ledger.intend_mail(Line(2), Channel::Pass, posted).await.expect("recorded");
    assert_eq!(ledger.rows_without_handoff(None, SOME).await.expect("read").len(), 1);
    let refused = Effect::Refused("550".into());
    ledger.mailed(mail, refused).await.expect("recorded");
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert!(row.mail.is_some_and(|mail| mail.is_refused()));
    ledger.record(Line(2), Event::Doubted).await.expect("recorded");
    ledger.record(Line(2), Event::Settled { found: None, proof: None }).await.expect("recorded");
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    assert_eq!(row.mail, None, "the next pass may be mailed");
}

#[tokio::test]
async fn a_notice_is_due_once_its_pass_was_accepted() {
    let place = place();
    let mut draft = Draft::create(&place.folder, clock()).expect("begun");
    for number in 2..5 {
        draft.add_row(&new_row(number)).expect("added");
        let Event::Checked(mut eligible) = checked(number) else { panic!("checked") };
        let reader =
            |name: &str| Reader { address: name.into(), name: None, locale: None, manager: None };
        eligible.reader = Some(reader("manager@contoso.example"));
        eligible.notice_reader = (number < 4).then(|| reader("ada@home.example"));
        draft.record(Line(number), &Event::Checked(eligible)).expect("recorded");
    }
    let ledger = draft.publish(&about()).expect("published");
    let posted = |id: &str| Posted {
        message_id: format!("<{id}@contoso.example>"),
        date: time("2026-03-01T08:00:02Z"),
        to: "ada@home.example".into(),
        courier: "smtp".into(),
        body: "pass".into(),
        digest: id.into(),
    };
    let taken = || Effect::Done("250".into());
    for number in 2..5 {
        let minted = intent(&ledger, number).await;
        ledger
            .sealed(minted, issued(&format!("m-{number}")), 0, vec![7], Timestamp::UNIX_EPOCH)
            .await
            .expect("sealed");
        let early = ledger.intend_mail(Line(number), Channel::Notice, posted("early")).await;
        assert!(matches!(early, Err(LedgerError::Illegal { .. })), "before its pass");
        let mail = ledger.intend_mail(Line(number), Channel::Pass, posted("pass")).await;
        ledger.mailed(mail.expect("intended"), taken()).await.expect("recorded");
    }
    let notices_due = async || -> Vec<u64> {
        let rows = ledger.rows_owing_notice(None, SOME).await.expect("read");
        rows.iter().map(|row| row.line.0).collect()
    };
    assert_eq!(notices_due().await, [2, 3], "the third has nobody to tell");
    let notice = ledger.intend_mail(Line(2), Channel::Notice, posted("n-2")).await;
    let lost = Effect::Unsettled { why: "cut".into() };
    ledger.mailed(notice.expect("intended"), lost).await.expect("recorded");
    let notice = ledger.intend_mail(Line(3), Channel::Notice, posted("n-3")).await;
    ledger.mailed(notice.expect("intended"), taken()).await.expect("recorded");
    assert_eq!(notices_due().await, [2], "what may have arrived is still open");
    let counts = ledger.counts().await.expect("read");
    assert_eq!((counts.notices_sent, counts.notices_open), (1, 1));
    assert_eq!(counts.of(Standing::Delivered), 3);
    let row = ledger.row(Line(2)).await.expect("read").expect("there");
    let digest = |mail: &Option<MailRecord>| mail.as_ref().map(|mail| mail.posted.digest.clone());
    assert_eq!(digest(&row.mail).as_deref(), Some("pass"), "each keeps its own record");
    assert_eq!(digest(&row.notice).as_deref(), Some("n-2"));
    ledger.record(Line(2), Event::Removed { proof: Proof::Deleted }).await.expect("recorded");
    assert_eq!(notices_due().await, [0_u64; 0], "a pass that is gone is nobody's");
}

#[tokio::test]
async fn the_latest_check_is_kept_beside_the_first() {
    let place = place();
    let ledger = run_of(&place, 1);
    assert_eq!(ledger.checked_at().await.expect("read"), about().checked_at);
    ledger.set_checked_at(time("2026-03-01T09:00:00Z")).await.expect("recorded");
    assert_eq!(ledger.checked_at().await.expect("read"), time("2026-03-01T09:00:00Z"));
}

// ---- the writer --------------------------------------------------------------------------

#[tokio::test]
async fn writes_that_wait_together_are_committed_together() {
    let place = place();
    let ledger = run_of(&place, 1_000);
    let minted = join_all((2..1_002).map(|line| intent(&ledger, line))).await;
    let mut numbers: Vec<i64> = minted.iter().map(|intent| intent.id().0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=1_000).collect::<Vec<_>>(), "each its own");
    assert!(ledger.commits() <= 10, "{} commits for 1,000 intents", ledger.commits());
}

#[tokio::test]
async fn a_refusal_does_not_affect_other_writes_of_its_commit() {
    let place = place();
    let ledger = run_of(&place, 20);
    let mixed = (2..22).map(|line| {
        let ledger = ledger.clone();
        async move {
            if line % 2 == 0 {
                ledger
                    .intend(Line(line), user(line), asked(), Timestamp::UNIX_EPOCH)
                    .await
                    .map(drop)
            } else {
                ledger.record(Line(line), Event::Verified).await.map(drop)
            }
        }
    });
    let done = join_all(mixed).await;
    assert!(ledger.commits() <= 2, "{} commits", ledger.commits());
    for (line, done) in (2..22).zip(done) {
        assert_eq!(done.is_ok(), line % 2 == 0, "row {line}: {done:?}");
    }
    let counts = ledger.counts().await.expect("counted");
    assert_eq!((counts.of(Standing::Intent), counts.of(Standing::Checked)), (10, 10));
}

#[tokio::test]
async fn after_a_failed_commit_every_write_fails_with_the_same_fault() {
    for (faults, full) in [(Failpoint::broken_at(2), false), (Failpoint::full_at(2), true)] {
        let place = place();
        run_of(&place, 3).shut().await;
        let ledger =
            Ledger::open_with(&place.folder, Access::Write, clock(), faults).await.expect("opened");
        let minted = intent(&ledger, 2).await;
        let lost = ledger
            .sealed(minted, issued("m"), 0, vec![1], Timestamp::UNIX_EPOCH)
            .await
            .expect_err("by request");
        let LedgerError::Write(first) = lost else { panic!("{lost}") };
        assert_eq!(first.to_string().contains("free space"), full, "{first}");
        for _ in 0..3 {
            let later = ledger.intend(Line(3), user(3), asked(), Timestamp::UNIX_EPOCH).await;
            let Err(LedgerError::Write(later)) = later else { panic!("{later:?}") };
            assert!(Arc::ptr_eq(&first, &later), "the same fault, not another try");
        }
        assert!(matches!(ledger.purge_sealed().await, Err(LedgerError::Write(_))));
        ledger.shut().await;
        let ledger = open(&place, Access::Write).await.expect("opened anew");
        let row = ledger.row(Line(2)).await.expect("read").expect("there");
        assert_eq!(row.state.standing(), Standing::Intent, "the intent was durable before");
        assert_eq!(ledger.ciphertext(Line(2)).await.expect("read"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_a_commit_is_under_way() {
    let place = place();
    let ledger = run_of(&place, 100);
    // An idle runtime with paused time would advance to this timer at once.
    let hour = tokio::spawn(tokio::time::sleep(Duration::from_hours(1)));
    let before = tokio::time::Instant::now();
    for line in 2..102 {
        let intent = intent(&ledger, line).await;
        ended(&ledger, intent, refused("no")).await;
    }
    assert_eq!(ledger.counts().await.expect("counted").of(Standing::Failed), 100);
    assert_eq!(before.elapsed(), Duration::ZERO);
    hour.await.expect("the timer");
    assert!(before.elapsed() >= Duration::from_hours(1));
}

#[tokio::test(start_paused = true)]
async fn a_second_writer_learns_who_has_the_run_and_readers_get_in() {
    let place = place();
    let ledger = run_of(&place, 2);
    let refused = open(&place, Access::Write).await.expect_err("in use");
    let LedgerError::InUse { holder: Some(holder), .. } = &refused else { panic!("{refused}") };
    assert_eq!(holder.pid, std::process::id());
    assert_eq!(holder.since, time("2026-03-01T08:00:00Z"));
    let text = refused.to_string();
    assert!(text.contains(&format!("in use by process {} on ", holder.pid)), "{text}");
    assert!(text.contains("since 2026-03-01T08:00:00Z"), "{text}");

    let reader = open(&place, Access::Read).await.expect("readers are welcome");
    let _under_way = intent(&ledger, 2).await;
    assert_eq!(reader.counts().await.expect("counted").of(Standing::Intent), 1);
    let refused = reader.record(Line(2), Event::Verified).await;
    assert!(matches!(refused, Err(LedgerError::ReadOnly)));
    ledger.shut().await;
    assert!(matches!(ledger.close().await, Err(LedgerError::Shut)));
    open(&place, Access::Write).await.expect("free again");
}

#[test]
fn dropping_the_runtime_loses_no_answered_write() {
    let place = place();
    for line in 2..7 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            if line == 2 {
                run_of(&place, 5);
                // The writer ends once the ledger is dropped.
            }
            let ledger = loop {
                match open(&place, Access::Write).await {
                    Err(LedgerError::InUse { .. }) => tokio::task::yield_now().await,
                    other => break other.expect("opened"),
                }
            };
            let intent = intent(&ledger, line).await;
            ledger
                .sealed(intent, issued(&format!("m-{line}")), 0, vec![1], Timestamp::UNIX_EPOCH)
                .await
                .expect("sealed");
        });
        drop(runtime);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let counts = runtime.block_on(async {
        open(&place, Access::Read).await.expect("opened").counts().await.expect("counted")
    });
    assert_eq!(counts.of(Standing::Sealed), 5);
}

// ---- purge -------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn no_byte_of_a_purged_ciphertext_remains_in_any_file() {
    let place = place();
    let ledger = run_of(&place, 300);
    let mark = |line: u64, part: u64| format!("<<sealed-{line}-{part}>>");
    for line in 2..302 {
        let intent = intent(&ledger, line).await;
        // From small ones to some that need several pages.
        let text: String = (0..line * 2).map(|part| mark(line, part)).collect();
        let issued = issued(&format!("m-{line}"));
        ledger
            .sealed(intent, issued, 0, text.into_bytes(), Timestamp::UNIX_EPOCH)
            .await
            .expect("sealed");
    }
    let everywhere = |part: &[u8]| files(&place).iter().any(|(_, bytes)| holds(bytes, part));
    assert!(everywhere(mark(2, 0).as_bytes()), "the search finds what is there");
    assert_eq!(ledger.purge_sealed().await.expect("purged"), 300);
    for (name, bytes) in files(&place) {
        assert!(!holds(&bytes, b"<<sealed-"), "{name} still holds a ciphertext");
        assert!(!holds(&bytes, b"sealed-2-"), "{name} still holds a part of one");
    }
    assert_eq!(ledger.ciphertext(Line(2)).await.expect("read"), None);
    assert_eq!(ledger.purged().await.expect("read"), Some(time("2026-03-01T08:00:00Z")));
    assert_eq!(ledger.counts().await.expect("counted").of(Standing::Sealed), 300);
    assert_eq!(ledger.purge_sealed().await.expect("again"), 0);
}

// ---- damage ------------------------------------------------------------------------------

#[tokio::test]
async fn a_newer_ledger_and_a_foreign_one_are_refused_by_name() {
    let place = place();
    run_of(&place, 1).shut().await;
    let path = place.folder.path().join("ledger.db");
    let set = |pragma: &str| {
        let db = Connection::open(&path).expect("opened");
        db.execute_batch(pragma).expect("set");
    };
    set("PRAGMA user_version = 7");
    for access in [Access::Read, Access::Write] {
        let newer = open(&place, access).await.expect_err("newer").to_string();
        assert!(newer.contains("version 7") && newer.contains("knows version 3"), "{newer}");
        assert!(newer.ends_with("update tapwave"), "{newer}");
    }
    set("PRAGMA user_version = 1");
    for access in [Access::Read, Access::Write] {
        let older = open(&place, access).await.expect_err("older").to_string();
        assert!(older.contains("version 1") && older.contains("works on version 3"), "{older}");
        assert!(older.ends_with("with the tapwave that made it"), "{older}");
    }
    set("PRAGMA user_version = 2; PRAGMA application_id = 1");
    for access in [Access::Read, Access::Write] {
        let foreign = open(&place, access).await.expect_err("foreign");
        assert!(matches!(foreign, LedgerError::Foreign(_)), "{foreign}");
    }
}

#[tokio::test]
async fn a_cut_or_overwritten_ledger_is_an_error_and_never_a_panic() {
    let place = place();
    let ledger = run_of(&place, 200);
    for line in 2..50 {
        let intent = intent(&ledger, line).await;
        ledger
            .sealed(intent, issued(&format!("m-{line}")), 0, vec![9; 900], Timestamp::UNIX_EPOCH)
            .await
            .expect("sealed");
    }
    ledger.shut().await;
    drop(ledger);
    let path = place.folder.path().join("ledger.db");
    let whole = std::fs::read(&path).expect("readable");
    let mut refused = 0;
    for cut in (0..whole.len()).step_by(whole.len() / 40) {
        let mut overwritten = whole.clone();
        for byte in overwritten.iter_mut().skip(cut).take(3_000) {
            *byte ^= 0x5a;
        }
        for damaged in [&whole[..cut], &overwritten] {
            std::fs::write(&path, damaged).expect("written");
            let Ok(ledger) = open(&place, Access::Write).await else {
                refused += 1;
                continue;
            };
            // Damage that the check at opening misses must not panic later.
            let _ = ledger.rows(&Standing::ALL, None, SOME).await;
            let _ = ledger.counts().await;
            let _ = ledger.history(Line(2)).await;
            ledger.shut().await;
        }
    }
    assert!(refused >= 60, "only {refused} of 80 were noticed at opening");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("written");
    let text = open(&place, Access::Write).await.expect_err("damaged").to_string();
    assert!(text.contains("backup") && text.contains("tapwave cleanup --csv"), "{text}");
}

#[tokio::test]
async fn a_read_only_copy_can_be_read() {
    let place = place();
    run_of(&place, 5).shut().await;
    let path = place.folder.path().join("ledger.db");
    let db = connection::open_immutable(&path).expect("opened").1;
    assert_eq!(store::counts(&db).expect("counted").rows(), 5);
    drop(db);
    std::fs::write(connection::with_suffix(&path, "-wal"), "commits").expect("written");
    let refused = connection::open_immutable(&path).err().expect("commits would be missed");
    assert!(matches!(refused, LedgerError::LogUnreadable(_)), "{refused}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_read_only_folder_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    run_of(&place, 5).shut().await;
    for file in ["ledger.db-wal", "ledger.db-shm"] {
        // They may be gone already.
        let _ = std::fs::remove_file(place.folder.path().join(file));
    }
    let set = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(place.folder.path(), mode).expect("set");
    };
    set(0o500);
    let read = open(&place, Access::Read).await.expect("opened").counts().await;
    set(0o700);
    assert_eq!(read.expect("counted").rows(), 5);
}

#[cfg(unix)]
#[tokio::test]
async fn every_file_of_a_run_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let ledger = run_of(&place, 5);
    let _under_way = intent(&ledger, 2).await;
    let entries = std::fs::read_dir(place.folder.path()).expect("readable");
    let mut names = Vec::new();
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        let name = entry.file_name().to_string_lossy().into_owned();
        assert_eq!(mode, 0o600, "{name} has mode {mode:o}");
        names.push(name);
    }
    names.sort();
    let expected = ["ledger.db", "ledger.db-shm", "ledger.db-wal", "ledger.holder", "ledger.lock"];
    assert_eq!(names, expected);
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_that_is_a_link_is_not_followed() {
    let real = place();
    run_of(&real, 1).shut().await;
    let fake = place();
    let link = fake.folder.path().join("ledger.db");
    std::os::unix::fs::symlink(real.folder.path().join("ledger.db"), link).expect("linked");
    for access in [Access::Read, Access::Write] {
        let refused = open(&fake, access).await.expect_err("a link");
        assert!(matches!(refused, LedgerError::Missing { .. }), "{refused}");
    }
    let refused = Draft::create(&fake.folder, clock()).err().expect("a link");
    assert!(matches!(refused, LedgerError::Folder(FolderError::HoldsRun(_))), "{refused}");
}

// ---- any history -------------------------------------------------------------------------

/// A call on a row, legal or not.
#[derive(Debug, Clone)]
enum Try {
    Intend,
    Spend(Effect<Unheld, Denied>),
    Seal,
    Record(Event),
}

fn tries() -> impl Strategy<Value = Try> {
    let outcome = prop_oneof![
        Just(throttled()),
        Just(refused("no")),
        Just(Effect::Unsettled { why: "reset".into() }),
        Just(Effect::Done(Unheld { method: method("unheld"), why: "no code".into() })),
    ];
    let event = prop_oneof![
        Just(checked(2)),
        Just(Event::Ineligible { problems: vec!["guest".into()] }),
        Just(Event::Skipped { why: "has one".into() }),
        Just(Event::OrphanFound { method: method("orphan"), over: Timestamp::UNIX_EPOCH }),
        Just(Event::Settled { found: None, proof: None }),
        Just(Event::Settled { found: None, proof: Some(Proof::Absent) }),
        Just(Event::NotListed { graph_time: Timestamp::UNIX_EPOCH }),
        Just(Event::Displaced { why: "replaced".into(), found: Some(method("theirs")) }),
        Just(Event::Held { why: "foreign".into(), found: Some(method("theirs")) }),
        Just(Event::Verified),
        Just(Event::Retried),
        Just(Event::RemovalIntended { method: method("m") }),
        Just(Event::Removed { proof: Proof::Deleted }),
        Just(Event::ForeignSeen { method: method("theirs") }),
    ];
    prop_oneof![
        4 => Just(Try::Intend),
        2 => outcome.prop_map(Try::Spend),
        2 => Just(Try::Seal),
        4 => event.prop_map(Try::Record),
    ]
}

/// Makes one call; `held` is the caller's intent. Returns whether it was recorded.
async fn attempt(ledger: &Ledger, held: &mut Option<Intent>, what: Try) -> Option<bool> {
    let done = match what {
        Try::Intend => {
            let minted = ledger.intend(Line(2), user(2), asked(), Timestamp::UNIX_EPOCH).await;
            minted.map(|intent| *held = Some(intent))
        }
        Try::Spend(effect) => {
            let given_up = Timestamp::UNIX_EPOCH;
            ledger.record_outcome(held.take()?, effect, given_up).await.map(drop)
        }
        Try::Seal => ledger
            .sealed(held.take()?, issued("m"), 0, vec![1], Timestamp::UNIX_EPOCH)
            .await
            .map(drop),
        Try::Record(event) => ledger.record(Line(2), event).await.map(drop),
    };
    match done {
        Ok(()) => Some(true),
        Err(LedgerError::Illegal { .. }) => Some(false),
        Err(other) => panic!("neither done nor refused: {other}"),
    }
}

fn folded(history: &[(Timestamp, Event)]) -> State {
    history.iter().fold(State::Listed, |state, (_, event)| {
        state::next(&state, event).expect("only legal moves are recorded")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_stored_state_is_the_fold_of_the_history(tries in prop::collection::vec(tries(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let place = place();
            let ledger = run_of(&place, 1);
            let mut held = None;
            let mut recorded = 1;
            for what in tries {
                let loses =
                    matches!(what, Try::Spend(Effect::Unsettled { .. } | Effect::Done(_)));
                let before = ledger.row(Line(2)).await.expect("read").expect("there");
                let done = attempt(&ledger, &mut held, what).await;
                recorded += usize::from(done == Some(true));
                let after = ledger.row(Line(2)).await.expect("read").expect("there");
                if done != Some(true) {
                    prop_assert_eq!(&before, &after, "a refusal leaves no trace");
                } else if loses {
                    prop_assert_eq!(after.attempts, before.attempts + 1);
                }
            }
            let history = ledger.history(Line(2)).await.expect("read");
            prop_assert_eq!(history.len(), recorded);
            let live = ledger.row(Line(2)).await.expect("read").expect("there");
            prop_assert_eq!(&folded(&history), &live.state);
            ledger.shut().await;
            drop(ledger);
            let ledger = open(&place, Access::Write).await.expect("opened anew");
            prop_assert_eq!(ledger.row(Line(2)).await.expect("read").expect("there"), live);
            prop_assert_eq!(ledger.history(Line(2)).await.expect("read"), history);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn times_of_events_are_the_clocks() {
    let place = place();
    let ledger = run_of(&place, 1);
    ledger.0.clock.sleep(Duration::from_mins(2)).await;
    let _under_way = intent(&ledger, 2).await;
    let history = ledger.history(Line(2)).await.expect("read");
    assert_eq!(clock::span(history[0].0, history[1].0), Duration::from_mins(2));
}

// ---- killed ------------------------------------------------------------------------------

/// The process in [`a_kill_at_any_durable_write_leaves_a_run_that_can_continue`].
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn killed_process() {
    let Some(path) = std::env::var_os("TAPWAVE_KILLED_RUN") else { return };
    let folder = RunFolder::create(path.as_ref()).expect("made");
    let ledger = draft_with_rows(&folder, 2).publish(&about()).expect("published");
    for line in 2..4 {
        let intent = intent(&ledger, line).await;
        ledger
            .sealed(intent, issued(&format!("m-{line}")), 0, vec![1], Timestamp::UNIX_EPOCH)
            .await
            .expect("sealed");
    }
    ledger.close().await.expect("closed");
    ledger.purge_sealed().await.expect("purged");
    ledger.shut().await;
}

/// Run with `--features failpoints`.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_kill_at_any_durable_write_leaves_a_run_that_can_continue() {
    // Sealed rows after each kill: publication, two intents with their seals, closing, and the two
    // steps of the purge.
    let sealed_after = [0, 0, 0, 1, 1, 2, 2, 2, 2];
    for (when, shift) in [("abort", 0), ("abort-after", 1)] {
        for nth in 1..=8 {
            let home = tempfile::tempdir().expect("a temporary folder");
            let path = home.path().join("wave");
            let killed = std::process::Command::new(std::env::current_exe().expect("this one"))
                .args(["--exact", "tests::killed_process"])
                .env("TAPWAVE_KILLED_RUN", &path)
                .env("TAPWAVE_FAILPOINT", format!("{when}@{nth}"))
                .output()
                .expect("started");
            assert!(!killed.status.success(), "{when}@{nth} was not reached");
            let folder = RunFolder::open(&path).expect("there");
            if nth + shift == 1 {
                RunFolder::create(&path).expect("counts as empty");
                assert!(!folder.holds_run());
                continue;
            }
            for access in [Access::Read, Access::Write] {
                let ledger = Ledger::open(&folder, access, clock()).await.expect("opened");
                let counts = ledger.counts().await.expect("counted");
                assert_eq!(
                    counts.of(Standing::Sealed),
                    sealed_after[nth + shift - 1],
                    "{when}@{nth}"
                );
                ledger.shut().await;
            }
        }
    }
}

/// A folder in memory, if there is one: thousands of ledgers need no disk.
fn quick_place() -> Place {
    let memory = std::path::Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let home = home.expect("a temporary folder");
    let folder = RunFolder::create(&home.path().join("wave")).expect("made");
    Place { _home: home, folder }
}

/// Seals rows, each in its own commit. Returns the files while the writer is open, and what was
/// sealed.
async fn files_in_use(rows: u64) -> (BTreeMap<&'static str, Vec<u8>>, BTreeMap<String, Vec<u8>>) {
    let place = place();
    let ledger = run_of(&place, rows);
    let mut sealed = BTreeMap::new();
    for line in 2..rows + 2 {
        let intent = intent(&ledger, line).await;
        let method = format!("pass-{line}");
        let ciphertext = format!("sealed {line} {}", "x".repeat(200)).into_bytes();
        ledger
            .sealed(intent, issued(&method), 0, ciphertext.clone(), Timestamp::UNIX_EPOCH)
            .await
            .expect("sealed");
        sealed.insert(method, ciphertext);
    }
    let read = |name: &'static str| (name, std::fs::read(place.folder.path().join(name)));
    let files =
        ["ledger.db", "ledger.db-wal"].map(read).map(|(name, file)| (name, file.expect("there")));
    ledger.shut().await;
    (files.into(), sealed)
}

#[tokio::test]
async fn a_truncated_ledger_opens_correctly_or_is_refused() {
    let (files, sealed) = files_in_use(3).await;
    let mut opened = 0;
    for (name, whole) in &files {
        let last = whole.len().saturating_sub(2 * 4_096);
        for cut in last..whole.len() {
            let place = quick_place();
            for (other, bytes) in &files {
                let bytes = if other == name { &bytes[..cut] } else { &bytes[..] };
                std::fs::write(place.folder.path().join(other), bytes).expect("written");
            }
            let context = format!("{name} cut at {cut} of {}", whole.len());
            let Ok(ledger) = open(&place, Access::Write).await else { continue };
            // It can be continued, so its records must be right.
            let rows = ledger.rows(&Standing::ALL, None, 10).await;
            for row in rows.unwrap_or_default() {
                let State::Sealed { method, .. } = &row.state else { continue };
                let ciphertext = ledger.ciphertext(row.line).await.expect(&context);
                assert_eq!(ciphertext.as_ref(), sealed.get(method.as_str()), "{context}");
                assert_eq!(method.as_str(), format!("pass-{}", row.line), "{context}");
            }
            opened += 1;
            ledger.shut().await;
        }
    }
    assert!(opened > 4_096, "a cut log leaves a whole ledger: {opened}");
}
