//! Mails through the built program, checked against what the relay or the tenant's mailboxes accepted.

mod damaged;
mod late;
mod nasty;
mod notices;
mod relays;

use std::collections::{BTreeMap, VecDeque};

use crate::support::mailed::{count_state, taken, wave};
use crate::support::office::Office;
use crate::support::smtp::{Fault, Manner, Relay};
use crate::support::until::until;
use tapwave_simulator::options::Call;

/// Mails a minute, where the rate is not tested.
const RATE: u32 = 60_000;

/// A mail's text without soft line breaks; codes are ASCII.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("=\r\n", "").replace("=3D", "=")
}

/// Each mail holds the code of its own reader and no other.
fn assert_codes(office: &Office, relay: &Relay, rows: u64) {
    let codes: BTreeMap<String, String> = office.tenant.with(|tenant, _| {
        tenant.passes().map(|(_, upn, pass)| (upn.to_owned(), pass.code.clone())).collect()
    });
    let seen = relay.seen();
    for mail in &seen.taken {
        assert!(mail.encrypted);
        let body = text(&mail.bytes);
        let whose: Vec<u64> = (1..=rows)
            .filter(|n| {
                let code = codes.get(&format!("user{n}@contoso.example"));
                code.is_some_and(|code| body.contains(code.as_str()))
            })
            .collect();
        let [n] = whose[..] else { panic!("codes of {whose:?} in one mail") };
        assert!(mail.to[0].contains(&format!("<reader{n}@home.example>")), "{:?}", mail.to);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_every_fault_nothing_is_doubled_and_nothing_lost() {
    const ROWS: u64 = 60;
    let faults = [
        Fault::Mail("451 4.3.0 later"),
        Fault::Rcpt("450 4.2.0 grey"),
        Fault::Data("452 4.3.1 full"),
        Fault::Dot("451 4.3.0 later"),
        Fault::CutAtMail,
        Fault::CutAtData,
        Fault::CutInText,
        Fault::CutAfterAnswer,
        Fault::Rcpt("550 5.1.1 nobody"),
        Fault::Dot("554 5.7.1 spam"),
        Fault::CutAfterDot,
    ];
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let faults = VecDeque::from(faults);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt", "--json"];
    let ended = office.run(&run).await.expect(7);
    let says = |word: &str| ended.err.contains(word);
    assert!(says("--retry-refused") && says("--resend-unsettled"), "{}", ended.err);
    assert!(!says("tapwave resume"), "no resume sends these: {}", ended.err);
    let summary = ended.json();
    assert_eq!(summary["sealed"], 2, "the two that were refused");
    // A mail cut in its text is unsettled too if its dot was already sent.
    let lost = summary["unsettled"].as_u64().expect("a number");
    assert!((1..=2).contains(&lost), "{summary}");
    assert_eq!(summary["delivered"], 58 - lost, "{summary}");
    let first = relay.seen().taken.len();
    assert_eq!(first as u64, 58 - lost + 1, "what was cut after its dot was taken");
    assert!(taken(&relay).values().all(|times| *times == 1), "{:?}", taken(&relay));
    assert_codes(&office, &relay, ROWS);

    // Nothing is sent twice by itself, however often deliver runs.
    office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(7);
    assert_eq!(relay.seen().taken.len(), first);

    let again = ["deliver", "latest", "-i", "key.txt", "--resend-unsettled"];
    office.run(&again).await.expect(7);
    assert_eq!(taken(&relay).len(), 58, "nobody was forgotten");
    {
        let twice: Vec<_> = taken(&relay).into_iter().filter(|(_, times)| *times > 1).collect();
        let [(reader, 2)] = &twice[..] else { panic!("{twice:?}") };
        let seen = relay.seen();
        let same: Vec<_> =
            seen.taken.iter().filter(|mail| mail.to[0].contains(&format!("<{reader}>"))).collect();
        assert!(same[0].bytes == same[1].bytes, "identical bytes");
    }

    let revoke = ["deliver", "latest", "-i", "key.txt", "--revoke-undelivered", "--json"];
    let summary = office.run(&revoke).await.expect(0).json();
    assert_eq!((&summary["delivered"], &summary["removed"]), (&58.into(), &2.into()));
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 58);
    assert_eq!(relay.seen().taken.len(), 59);
    assert!(relay.seen().most <= 3, "{} connections", relay.seen().most);

    let cleaned = office.run(&["cleanup", "latest", "--json"]).await.expect(0).json();
    assert_eq!(cleaned["removed"], 60);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mail_is_held_and_not_repeated() {
    let office = Office::open(1, &wave(1)).await;
    let faults = VecDeque::from([Fault::CutAfterDot]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key, "--deliver"]).await.expect(7);
    office.change_settings("from = \"IT <", "from = \"Somebody else <");
    let again = ["deliver", "latest", "-i", "key.txt", "--resend-unsettled"];
    let ended = office.run(&again).await.expect(7);
    assert!(ended.err.contains("same bytes"), "{}", ended.err);
    assert_eq!(relay.seen().taken.len(), 1);
    office.change_settings("from = \"Somebody else <", "from = \"IT <");
    office.run(&again).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_never_mails_twice_and_issuing_waits_for_mail() {
    const ROWS: u64 = 40;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    // Five are acknowledged, then three more are in flight.
    relay.hold(6);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "--settle-after", "1s", "--quiet"];
    let mut running = office.command(&run).spawn().expect("a process");
    let passes = || office.tenant.with(|tenant, _| tenant.passes().count());
    until("mails are under way, and passes wait behind them", async || {
        relay.seen().taken.len() == 8 && passes() >= 5 + 2 * 3
    })
    .await;
    assert_eq!(passes(), 5 + 2 * 3, "it ran ahead");
    running.kill().expect("killed");
    running.wait().expect("gone");
    relay.let_go();
    until("the relay has seen that", async || relay.seen().open == 0).await;

    // Without an identity, what the killed process sealed waits for one; the rest continues.
    office.run(&["resume", "latest"]).await;
    let ended = office.run(&["deliver", "latest", "-i", "key.txt", "--json"]).await;
    let rows = office.rows().await;
    let (lost, delivered) = (count_state(&rows, "mailing"), count_state(&rows, "delivered"));
    let summary = ended.json();
    assert_eq!(Some((lost + delivered) as u64), summary["issued"].as_u64());
    assert!(lost <= 3, "{lost} mails of unknown fate with 3 connections");
    assert!(taken(&relay).values().all(|times| *times == 1), "{:?}", taken(&relay));
    assert!(taken(&relay).len() >= delivered, "delivered is what the relay took");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_found_before_any_pass() {
    let office = Office::open(3, &wave(3)).await;
    let relay = Relay::start(Manner { secret: "other".into(), ..Manner::default() }).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    for command in ["check", "run"] {
        let ended = office.run(&[command, "wave.csv", "-r", &key, "--deliver"]).await.expect(5);
        assert!(ended.err.contains("refused the sign-in of user"), "{}", ended.err);
    }
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 0);
    relay.change(|manner| {
        manner.secret = "right".into();
        manner.starttls = false;
    });
    let ended = office.run(&["run", "wave.csv", "-r", &key, "--deliver"]).await.expect(3);
    assert!(ended.err.contains("does not offer STARTTLS"), "{}", ended.err);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_whose_last_reader_would_be_late_is_refused() {
    let office = Office::open(50, &wave(50)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, 1);
    let key = office.public_key.clone();
    let check = ["check", "wave.csv", "-r", &key, "--deliver", "--lifetime", "60"];
    let ahead = [&check[..], &["-i", "key.txt"]].concat();
    let ended = office.run(&ahead).await.expect(3);
    assert!(ended.err.contains("50 mails at 1 a minute take 50 min"), "{}", ended.err);
    office.run(&[&ahead[..], &["--allow-late"]].concat()).await.expect(0);
    // Without an identity passes are issued as they are mailed, so each is new.
    office.run(&check).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_due_is_mailed_and_each_hour_may_ask_again() {
    let now = jiff::Timestamp::now();
    let start = |hours: i64| now + jiff::SignedDuration::from_hours(hours);
    let wave = format!(
        "userPrincipalName,deliverTo,startDateTime\nuser1@contoso.example,a@home.example,{}\n\
         user2@contoso.example,b@home.example,{}\n",
        start(5),
        start(48)
    );
    let office = Office::open(2, &wave).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--to", "column:deliverTo"];
    office.run(&run).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 0, "not without --deliver");
    for _ in 0..2 {
        let due = ["deliver", "latest", "-i", "key.txt", "--due", "24h"];
        office.run(&due).await.expect(0);
        assert_eq!(taken(&relay), BTreeMap::from([("a@home.example".to_owned(), 1)]));
    }
    office.run(&["deliver", "latest", "-i", "key.txt", "--due", "72h"]).await.expect(0);
    assert_eq!(taken(&relay).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_place_with_an_address_wins_and_a_row_without_one_is_a_problem() {
    let wave = "userPrincipalName,deliverTo\nuser1@contoso.example,\n\
                user2@contoso.example,\nuser3@contoso.example,own@home.example\n";
    let office = Office::open(3, wave).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    // The first of a team has no manager.
    let run = ["run", "wave.csv", "-r", &key, "--deliver"];
    let ended = office.run(&run).await.expect(3);
    let says = "has no mail address in the column deliverTo or the manager's mail; give it one";
    assert!(ended.err.contains(says), "{}", ended.err);
    let own = office.run(&[&["check"], &run[1..], &["--to", "mail"]].concat()).await.expect(0);
    assert!(own.err.contains("3 of the passes would go to the mailbox of"), "{}", own.err);
    let places = ["--to", "column:deliverTo,manager", "--to", "other-mail"];
    office.run(&[&run[..], &places].concat()).await.expect(0);
    let expected = ["own@home.example", "user1@contoso.example", "user1@personal.example"];
    assert_eq!(taken(&relay).into_keys().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_body_and_a_notice_carry_no_code() {
    for body in ["sealed", "notice"] {
        let office = Office::open(4, &wave(4)).await;
        let relay = Relay::start(Manner::default()).await;
        office.mail_through(&relay, RATE);
        let key = office.public_key.clone();
        let run = ["run", "wave.csv", "-r", &key, "--deliver", "--body", body];
        office.run(&run).await.expect(0);
        assert_eq!(taken(&relay).len(), 4);
        let codes: Vec<String> = office
            .tenant
            .with(|tenant, _| tenant.passes().map(|(_, _, pass)| pass.code.clone()).collect());
        for mail in &relay.seen().taken {
            let body = text(&mail.bytes);
            assert!(codes.iter().all(|code| !body.contains(code.as_str())));
        }
        let attached = text(&relay.seen().taken[0].bytes).contains(".age");
        assert_eq!(attached, body == "sealed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_previewed_with_a_dummy_code_and_a_bad_template_stops_the_wave() {
    let office = Office::open(2, &wave(2)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let check = ["check", "wave.csv", "-r", &key, "--deliver"];
    let shown = office.run(&[&check[..], &["--preview", "3"]].concat()).await.expect(0);
    assert!(shown.out.starts_with("To: reader2@home.example\nSubject: "), "{}", shown.out);
    assert!(shown.out.contains("EXAMPLE-pass"), "{}", shown.out);
    for language in ["en", "de", "fr"] {
        let folder = office.path("letters").join(language).join("pass");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("letter.txt"), "{{ columns[\"nobody\"] }}").expect("a file");
    }
    let template = ["--template", "letters"];
    let ended = office.run(&[&["run"], &check[1..], &template].concat()).await.expect(3);
    assert!(ended.err.contains("letter.txt"), "{}", ended.err);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 0);
}

// Case: a group's list lags, and somebody's address was put right a minute ago.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_from_the_people_and_not_from_their_groups_list() {
    const ROWS: u64 = 100;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let asked = || office.tenant.with(|tenant, _| tenant.seen(Call::Users));
    let check = ["check", "wave.csv", "-r", &key];
    office.run(&check).await.expect(0);
    assert_eq!(asked(), 0, "without mail the list tells enough");
    office.run(&[&check[..], &["--deliver"]].concat()).await.expect(0);
    assert_eq!(asked(), ROWS.div_ceil(15), "by name, fifteen at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_sends_from_a_mailbox_and_keeps_no_copy() {
    let office = Office::open(5, &wave(5)).await;
    let settings = "[mail]\ncourier = \"graph\"\nfrom = \"IT <user1@contoso.example>\"\n\
                    max_per_minute = 60000\n";
    office.settings(settings);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key, "--deliver"]).await.expect(0);
    let (mails, codes) = office.tenant.with(|tenant, _| {
        let codes: Vec<String> = tenant.passes().map(|(_, _, pass)| pass.code.clone()).collect();
        (tenant.mails().iter().map(|mail| mail.message.clone()).collect::<Vec<_>>(), codes)
    });
    assert_eq!(mails.len(), 5);
    for code in codes {
        let with = mails.iter().filter(|mail| {
            mail["body"]["content"].as_str().is_some_and(|html| html.contains(&code))
        });
        assert_eq!(with.count(), 1);
    }
    assert_eq!(count_state(&office.rows().await, "delivered"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_mailed_the_pass_of_somebody_else() {
    let office = Office::open(2, &wave(2)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key, "--run", "swapped"]).await.expect(0);
    let ledger = rusqlite::Connection::open(office.path("swapped").join("ledger.db"));
    let swap = "UPDATE sealed SET line = -line; UPDATE sealed SET line = 5 + line";
    ledger.expect("a ledger").execute_batch(swap).expect("swapped");
    let ended = office.run(&["deliver", "swapped", "-i", "key.txt"]).await.expect(7);
    assert_eq!(ended.err.matches("somebody else's pass").count(), 2, "{}", ended.err);
    assert_eq!(relay.seen().taken.len(), 0);
}
