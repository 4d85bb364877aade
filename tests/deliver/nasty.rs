//! Mails through the built program to broken and malicious relays. Checked against what the relay
//! received and what the ledger says.

use crate::support::mailed::wave;
use crate::support::nasty::{Act, Nasty, Script, kind, say};
use crate::support::office::Office;
use crate::support::until::until;
use tapwave_core::limits;
use tokio::sync::watch;

const DELIVER: [&str; 4] = ["deliver", "latest", "-i", "key.txt"];

/// A run with sealed passes whose mail goes to this relay over one connection.
async fn sealed(rows: u64, script: Script) -> (Office, Nasty) {
    let office = Office::open(rows, &wave(rows)).await;
    let relay = Nasty::start(script).await;
    let settings = format!(
        "[mail]\ncourier = \"smtp\"\nfrom = \"IT <it@contoso.example>\"\nhost = \"localhost\"\n\
         tls = \"none\"\nport = {}\nmax_per_minute = 60000\nmax_connections = 1\n",
        relay.port
    );
    office.settings(&settings);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    (office, relay)
}

/// Changes the latest run's ledger while the program runs.
fn change_ledger(office: &Office, sql: &str) {
    let runs = std::fs::read_dir(office.path("home").join("runs")).expect("runs");
    let run = runs.map(|run| run.expect("a run").path()).next().expect("one run");
    let db = rusqlite::Connection::open(run.join("ledger.db")).expect("a ledger");
    db.execute_batch(sql).expect("changed");
}

/// The number of delivered rows in the latest run's ledger.
fn delivered(office: &Office) -> i64 {
    let runs = std::fs::read_dir(office.path("home").join("runs")).expect("runs");
    let run = runs.map(|run| run.expect("a run").path()).next().expect("one run");
    let db = rusqlite::Connection::open(run.join("ledger.db")).expect("a ledger");
    let count = "SELECT count(*) FROM rows WHERE state = 'delivered'";
    db.query_row(count, (), |row| row.get(0)).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mails_outcome_is_recorded_before_the_connection_is_reset() {
    let script: Script = Box::new(|word, _| match word {
        "RCPT" => say("550 5.1.1 nobody"),
        "RSET" => Act::Nothing,
        other => kind(other),
    });
    let (office, _relay) = sealed(2, script).await;
    let mut running = office.command(&DELIVER).spawn().expect("a process");
    until("the refusal is recorded", async || {
        let rows = office.rows().await;
        rows[0]["reason"].as_str().is_some_and(|why| why.contains("550 5.1.1 nobody"))
    })
    .await;
    running.kill().expect("killed");
    running.wait().expect("gone");
    let rows = office.rows().await;
    assert!(rows.iter().all(|row| row["state"] == "sealed"), "of no unknown fate: {rows:?}");
}

/// No mail can have been sent before the relay accepts the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_the_relay_refuses_connections_leaves_nothing_held() {
    for word in ["GREETING", "EHLO"] {
        let script: Script = Box::new(move |heard, nth| match (heard, nth) {
            (heard, 1) if heard == word => Act::Nothing,
            (other, _) => kind(other),
        });
        let (office, relay) = sealed(2, script).await;
        let mut running = office.command(&DELIVER).spawn().expect("a process");
        until("the relay is asked", async || relay.words().iter().any(|heard| heard == word)).await;
        running.kill().expect("killed");
        running.wait().expect("gone");
        let rows = office.rows().await;
        assert!(rows.iter().all(|row| row["state"] == "sealed"), "{word}: {rows:?}");
        office.run(&DELIVER).await.expect(0);
        assert_eq!(relay.whole().len(), 2, "{word}");
    }
}

/// The status shows the reason, although no mail was begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_connections_is_the_reason_of_its_rows() {
    let script: Script = Box::new(|word, _| match word {
        "GREETING" => say("554 5.7.1 not from there"),
        other => kind(other),
    });
    let (office, relay) = sealed(1, script).await;
    let ended = office.run(&DELIVER).await.expect(5);
    let told = "the relay does not take this machine: 554 5.7.1 not from there";
    assert!(ended.err.contains(&format!("mail stopped: {told}")), "{}", ended.err);
    let rows = office.rows().await;
    let reason = rows[0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with(&format!("mail not sent: {told}")), "{reason}");
    assert_eq!((&rows[0]["state"], relay.whole().len()), (&"sealed".into(), 0));
}

/// The operator is told once what is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_relay_is_reported_while_its_mails_wait() {
    let script: Script = Box::new(|word, nth| match (word, nth) {
        ("RCPT", 1 | 2) => say("450 4.2.1 busy"),
        (other, _) => kind(other),
    });
    let (office, relay) = sealed(2, script).await;
    let running = office.run(&DELIVER);
    let passing = async {
        until("both are taken", async || {
            // As often as it was refused, and a little more at each look.
            office.tenant.pass(limits::MAIL_BACKOFF / 50);
            relay.whole().len() == 2
        })
        .await;
    };
    let (ended, ()) = tokio::join!(running, passing);
    let ended = ended.expect(0);
    let told = "mail does not go out (450 4.2.1 busy); trying again";
    assert_eq!(ended.err.matches(told).count(), 1, "{}", ended.err);
    assert_eq!(relay.whole().len(), 2);
}

/// An unreadable ledger ends a delivery, but the outcome of the mail being sent is still awaited.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_the_ledger_drops_no_mail_that_is_being_sent() {
    // The second mail is acknowledged first.
    let (acknowledged, first) = watch::channel(0);
    let second = first.clone();
    let script: Script = Box::new(move |word, nth| match (word, nth) {
        (".", 1) => Act::Later(b"250 ok\r\n".to_vec(), first.clone(), 2),
        (".", 2) => Act::Later(b"250 ok\r\n".to_vec(), second.clone(), 1),
        (other, _) => kind(other),
    });
    let (office, relay) = sealed(4, script).await;
    office.change_settings("max_connections = 1", "max_connections = 2");
    let running = office.command(&DELIVER).spawn().expect("a process");
    until("two are under way", async || relay.whole().len() == 2).await;
    change_ledger(&office, "UPDATE rows SET cells_json = '?' || cells_json WHERE line > 3");
    acknowledged.send_replace(1);
    until("the fault is met", async || delivered(&office) == 1).await;
    acknowledged.send_replace(2);
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    let ended = ended.await.expect("a thread").expect("a process");
    assert!(!ended.status.success());
    change_ledger(&office, "UPDATE rows SET cells_json = substr(cells_json, 2) WHERE line > 3");
    let rows = office.rows().await;
    let states: Vec<_> = rows.iter().map(|row| row["state"].as_str().expect("text")).collect();
    assert_eq!(states, ["delivered", "delivered", "sealed", "sealed"]);
    office.run(&DELIVER).await.expect(0);
    assert_eq!(relay.whole().len(), 4);
}

/// A relay's answer is kept and shown, without what steers a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn a_relays_answer_steers_no_terminal() {
    let words = b"550-5.1.1 \x1b[2J\x07\0no\xff\xfe\r\n550 \xe2\x80\xaebody\r\n";
    let script: Script = Box::new(|word, _| match word {
        "RCPT" => Act::Say(words.to_vec()),
        other => kind(other),
    });
    let (office, _relay) = sealed(1, script).await;
    let ended = office.run(&DELIVER).await.expect(7);
    let reason = office.rows().await[0]["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("mail refused: 550 5.1.1 \\u{1b}[2J"), "{reason}");
    for text in [&ended.err, &reason] {
        let steering = |c: char| c != '\n' && tapwave_core::shown::steers(c);
        assert!(!text.contains(steering), "{text:?}");
    }
}
