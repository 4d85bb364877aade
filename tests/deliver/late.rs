//! Passes that expire before their mail is sent, through the built program: none of them is mailed or
//! announced, and the suggested command works. Checked against what relay and tenant saw.

use std::collections::VecDeque;
use std::time::Duration;

use crate::support::mailed::{count_state, taken, wave};
use crate::support::office::Office;
use crate::support::smtp::{Fault, Manner, Relay};
use crate::support::until::until;
use jiff::SignedDuration;
use tapwave_core::limits;

const DELIVER: [&str; 4] = ["deliver", "latest", "-i", "key.txt"];

/// Makes the pass of a line expire in `seconds`.
fn ends_within(office: &Office, line: u64, seconds: i64) {
    let runs = std::fs::read_dir(office.path("home").join("runs")).expect("runs");
    let run = runs.map(|run| run.expect("a run").path()).next().expect("one run");
    let db = rusqlite::Connection::open(run.join("ledger.db")).expect("a ledger");
    let now = office.tenant.with(|_, now| now);
    let start = now + SignedDuration::from_secs(seconds - 600);
    let changed = db.execute(
        "UPDATE rows SET pass_start = ?2, pass_lifetime_minutes = 10 WHERE line = ?1",
        (line.cast_signed(), start.to_string()),
    );
    assert_eq!(changed.expect("changed"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_expires_while_its_mail_waits_is_not_mailed() {
    let office = Office::open(3, &wave(3)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, 60_000);
    office.change_settings("max_connections = 3", "max_connections = 1");
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    let last = i64::try_from(limits::LAST_MOMENTS.as_secs()).expect("few");
    ends_within(&office, 3, last + 60);
    // The first mail is acknowledged only after the second one's pass has expired.
    relay.hold(1);
    let delivering = office.run(&DELIVER);
    let passing = async {
        until("the first mail is taken", async || relay.seen().taken.len() == 1).await;
        office.tenant.pass(Duration::from_secs(90));
        relay.let_go();
    };
    let (ended, ()) = tokio::join!(delivering, passing);
    let ended = ended.expect(7);
    let message = "line 3, user2@contoso.example: mail not sent: its pass is over at ";
    assert!(ended.err.contains(message), "{}", ended.err);
    assert!(ended.err.contains("with a new run"), "{}", ended.err);
    assert!(ended.err.contains("-i IDENTITY --revoke-undelivered"), "{}", ended.err);
    assert!(!taken(&relay).contains_key("reader2@home.example"));
    assert_eq!(taken(&relay).len(), 2, "the others have theirs");
    let rows = office.rows().await;
    assert_eq!((count_state(&rows, "sealed"), count_state(&rows, "delivered")), (1, 2));
    let reason = rows[1]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("mail not sent: its pass is over at "), "{reason}");

    // It has failed for good: it is never sent, but always reported.
    for more in [&["--due", "1h"][..], &["--retry-refused"], &["--resend-unsettled"]] {
        let ended = office.run(&[&DELIVER[..], more].concat()).await.expect(7);
        assert!(ended.err.contains(message), "{}", ended.err);
        assert!(!ended.err.contains("tries refused mails anew"), "{}", ended.err);
    }
    assert_eq!(taken(&relay).len(), 2);

    // The suggested command works.
    office.run(&[&DELIVER[..], &["--revoke-undelivered"]].concat()).await.expect(0);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 2);
    let one = "userPrincipalName,deliverTo\nuser2@contoso.example,reader2@home.example\n";
    std::fs::write(office.path("one.csv"), one).expect("a wave");
    office.run(&["run", "one.csv", "-r", &key, "--deliver"]).await.expect(0);
    assert!(taken(&relay).len() == 3 && taken(&relay).values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_notice_is_sent_of_an_expired_pass() {
    let office = Office::open(1, &wave(1)).await;
    let faults = VecDeque::from([Fault::None, Fault::Rcpt("550 5.1.1 nobody")]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, 60_000);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "--notice-to", "other-mail"];
    office.run(&run).await.expect(7);
    assert_eq!(taken(&relay).len(), 1);
    ends_within(&office, 2, 10);
    let again = office.run(&["deliver", "latest", "--retry-refused"]).await.expect(7);
    assert!(again.err.contains("notice not sent: its pass is over at "), "{}", again.err);
    assert!(!again.err.contains("--revoke-undelivered"), "the pass reached its reader");
    assert_eq!(taken(&relay).len(), 1, "nobody else was told");
    // The same with resume.
    let resumed = office.run(&["resume", "latest"]).await.expect(7);
    assert!(!resumed.err.contains("tapwave resume"), "it would change nothing: {}", resumed.err);
    assert_eq!(taken(&relay).len(), 1);
}

/// With a slow clock of this machine it would be mailed for hours.
#[tokio::test(flavor = "multi_thread")]
async fn expiry_is_judged_by_graphs_clock_where_it_is_known() {
    let office = Office::open(1, &wave(1)).await;
    let faults = VecDeque::from([Fault::Data("530 5.7.0 sign in")]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, 60_000);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt"];
    office.run(&run).await.expect(5);
    let control = office.tenant.url().replace("/v1.0", "/control/advance");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let body = serde_json::json!({ "seconds": 2 * 60 * 60 });
    let advanced = client.post(control).json(&body).send().await.expect("an answer");
    assert_eq!(advanced.status(), 200);
    let ended = office.run(&["resume", "latest", "-i", "key.txt"]).await.expect(7);
    assert!(ended.err.contains("mail not sent: its pass is over at "), "{}", ended.err);
    assert_eq!(taken(&relay).len(), 0);
}
