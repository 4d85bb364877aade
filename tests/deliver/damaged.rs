//! Mails of runs whose ledger was damaged: promises that nothing read from there widens what is
//! mailed, to whom, or how often, and that whatever cannot be read is named.

use std::collections::VecDeque;

use crate::support::mailed::{taken, wave};
use crate::support::office::{Ended, Office};
use crate::support::smtp::{Fault, Manner, Relay};

/// Mails a minute, where the rate is not what is tested.
const RATE: u32 = 60_000;

/// Two people with a pass each, in the run `wave-run`; what has become of their mails is up to
/// the flags and the relay.
async fn issued(flags: &[&str], faults: &[Fault], code: i32) -> (Office, Relay) {
    let office = Office::open(2, &wave(2)).await;
    let faults = VecDeque::from(faults.to_vec());
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--run", "wave-run"];
    office.run(&[&run[..], flags].concat()).await.expect(code);
    (office, relay)
}

fn damage(office: &Office, sql: &str) {
    let ledger = rusqlite::Connection::open(office.path("wave-run").join("ledger.db"));
    let changed = ledger.expect("a ledger").execute(sql, []).expect("changed");
    assert!(changed > 0, "{sql}");
}

/// `deliver` with these flags ends so, says all of this, and the relay has taken so many mails.
#[track_caller]
fn assert_ended(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for words in says {
        assert!(ended.err.contains(words), "{words}: {}", ended.err);
    }
}

const CHECKED_FOR_MAIL: [&str; 2] = ["--to", "column:deliverTo"];
const DELIVER: [&str; 4] = ["deliver", "wave-run", "-i", "key.txt"];
const SECOND: &str = "reader2@home.example";

// Case: the ledger's word for what mails carry is none. It must not become the plain code.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_body_mails_nothing_until_one_is_named() {
    let (office, relay) =
        issued(&[&CHECKED_FOR_MAIL[..], &["--body", "sealed"]].concat(), &[], 0).await;
    for body in ["seeled", ""] {
        let set = format!("json_set(about_json, '$.options.mail.body', '{body}')");
        damage(&office, &format!("UPDATE about SET about_json = {set}"));
        let says = ["wave-run", "ledger is damaged", &format!("\"{body}\"")];
        assert_ended(&office.run(&DELIVER).await, 2, &says);
        assert_eq!(relay.seen().taken.len(), 0);
    }
    let named = office.run(&[&DELIVER[..], &["--body", "sealed"]].concat()).await;
    assert_ended(&named, 0, &[]);
    let codes: Vec<String> = office
        .tenant
        .with(|tenant, _| tenant.passes().map(|(_, _, pass)| pass.code.clone()).collect());
    let seen = relay.seen();
    assert_eq!(seen.taken.len(), 2);
    for mail in &seen.taken {
        let text = String::from_utf8_lossy(&mail.bytes);
        assert!(codes.iter().all(|code| !text.contains(code.as_str())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_mails_nothing_in_an_unknown_way() {
    let (office, relay) = issued(&["--deliver"], &[Fault::Rcpt("550 5.1.1 nobody")], 7).await;
    for (field, value) in [("body", "plain"), ("timeZone", "Mars/Olympus")] {
        let before = relay.seen().taken.len();
        let set = format!("json_set(about_json, '$.options.mail.{field}', '{value}')");
        damage(&office, &format!("UPDATE about SET about_json = {set}"));
        for command in [&["resume", "wave-run"][..], &DELIVER] {
            let ended = office.run(command).await;
            assert_ended(&ended, 2, &["wave-run", "ledger is damaged", &format!("\"{value}\"")]);
        }
        assert_eq!(relay.seen().taken.len(), before);
        let set = "json_set(about_json, '$.options.mail.body', 'pass')";
        damage(&office, &format!("UPDATE about SET about_json = {set}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_cannot_be_read_names_its_run() {
    let (office, relay) = issued(&CHECKED_FOR_MAIL, &[], 0).await;
    let set = "json_set(about_json, '$.wave.headerJson', '{')";
    damage(&office, &format!("UPDATE about SET about_json = {set}"));
    assert_ended(&office.run(&DELIVER).await, 2, &["wave-run", "ledger is damaged", "header"]);
    assert_eq!(relay.seen().taken.len(), 0);
}

/// A damaged record of one row is named, and stops only that row's mail.
async fn only_the_second_is_stopped(sql: &str, says: &str) {
    let (office, relay) = issued(&CHECKED_FOR_MAIL, &[], 0).await;
    damage(&office, sql);
    assert_ended(&office.run(&DELIVER).await, 7, &["line 3", "user2@contoso.example", says]);
    assert_eq!(taken(&relay).into_keys().collect::<Vec<_>>(), ["reader1@home.example"], "{sql}");
    assert_ended(&office.run(&DELIVER).await, 7, &["line 3", says]);
    assert_eq!(relay.seen().taken.len(), 1, "{sql}");
}

// Case: a start in UTC instead of the reader's time zone is a wrong time in a mail.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_zone_of_a_row_is_no_utc() {
    let set = "json_set(wanted_json, '$.timeZone', 'Mars/Olympus')";
    let sql = format!("UPDATE rows SET wanted_json = {set} WHERE line = 3");
    only_the_second_is_stopped(&sql, "\"Mars/Olympus\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_row_that_cannot_be_read_are_not_taken_for_none() {
    let sql = "UPDATE rows SET wanted_json = '{\"locale\":' WHERE line = 3";
    only_the_second_is_stopped(sql, "what the wave asked for").await;
}

// Case: the check found the manager's address, so the column's is the wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reader_is_not_replaced_by_the_column() {
    let sql = "UPDATE rows SET reader_json = NULL WHERE line = 3";
    only_the_second_is_stopped(sql, "who gets its mail").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_of_which_nothing_is_known_is_not_mailed() {
    let sql = "UPDATE rows SET method_id = NULL WHERE line = 3";
    only_the_second_is_stopped(sql, "the pass that Graph answered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reader_of_the_notice_is_reported_before_the_pass_is_sent() {
    let flags = ["--to", "column:deliverTo", "--notice-to", "mail"];
    let (office, relay) = issued(&flags, &[], 0).await;
    damage(&office, "UPDATE rows SET notice_reader_json = NULL WHERE line = 3");
    assert_ended(&office.run(&DELIVER).await, 7, &["line 3", "who gets its notice"]);
    assert!(!taken(&relay).contains_key(SECOND));
}

// Case: a notice that is missing from the list of due ones was not sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_stage_of_a_notice_is_not_taken_for_the_end() {
    let flags = ["--deliver", "--to", "column:deliverTo", "--notice-to", "mail"];
    let (office, _relay) = issued(&flags, &[], 0).await;
    damage(&office, "UPDATE rows SET notice = 'later' WHERE line = 3");
    assert_ended(&office.run(&DELIVER).await, 2, &["wave-run", "ledger is damaged", "\"later\""]);
}

/// A record that cannot be read at all is named, and nothing is mailed.
async fn nothing_is_mailed(sql: &str, says: &[&str]) {
    let (office, relay) = issued(&CHECKED_FOR_MAIL, &[], 0).await;
    damage(&office, sql);
    assert_ended(&office.run(&DELIVER).await, 2, &[&["ledger is damaged"], says].concat());
    assert_eq!(relay.seen().taken.len(), 0, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_names_its_row_and_column() {
    let sql = "UPDATE rows SET reader_json = '{\"address\"' WHERE line = 3";
    nothing_is_mailed(sql, &["row 3", "reader_json"]).await;
    let sql = "UPDATE rows SET user_id = 'nobody' WHERE line = 3";
    nothing_is_mailed(sql, &["row 3", "user_id"]).await;
    let sql = "UPDATE rows SET pass_lifetime_minutes = NULL WHERE line = 3";
    nothing_is_mailed(sql, &["row 3", "pass_lifetime_minutes"]).await;
}

/// The first mail was refused or lost, and the ledger's record of that is damaged: the mail is not
/// repeated, not even on request.
async fn not_sent_again(fault: Fault, sql: &str, flags: &[&str], code: i32, says: &[&str]) {
    let (office, relay) = issued(&["--deliver"], &[fault], 7).await;
    let before = taken(&relay);
    damage(&office, sql);
    assert_ended(&office.run(&[&DELIVER[..], flags].concat()).await, code, says);
    assert_eq!(taken(&relay), before, "{sql}");
}

const REFUSED: Fault = Fault::Rcpt("550 5.1.1 nobody");
const LOST: Fault = Fault::CutAfterDot;
const RESEND: [&str; 1] = ["--resend-unsettled"];

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_not_taken_for_a_mail_that_was_never_tried() {
    let sql = "UPDATE mails SET outcome = 'mail refuxed' WHERE outcome = 'mail refused'";
    not_sent_again(REFUSED, sql, &[], 7, &["mail refuxed"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_names_a_row_whose_mail_it_cannot_judge() {
    let (office, relay) = issued(&["--deliver"], &[REFUSED, REFUSED], 7).await;
    damage(&office, "UPDATE mails SET outcome = 'mail refuxed' WHERE line = 3");
    let ended = office.run(&["resume", "wave-run", "-i", "key.txt"]).await;
    assert_ended(&ended, 7, &["line 3", "ledger is damaged", "mail refuxed"]);
    assert_eq!(relay.seen().taken.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_channel_is_not_passed_over() {
    let sql = "UPDATE mails SET channel = 'fax' WHERE outcome = 'mail refused'";
    not_sent_again(REFUSED, sql, &[], 2, &["ledger is damaged", "row ", "\"fax\""]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_unknown_fate_is_repeated_from_a_whole_record_or_not_at_all() {
    let of = |set: &str| format!("UPDATE mails SET {set} WHERE outcome = 'mail lost'");
    for (set, says) in [
        ("courier = 'fax'", "\"fax\""),
        ("body = 'postcard'", "\"postcard\""),
        ("digest = 'another'", "not the one"),
    ] {
        not_sent_again(LOST, &of(set), &RESEND, 7, &["ledger is damaged", says]).await;
    }
    let gone = "DELETE FROM mails WHERE outcome = 'mail lost'";
    not_sent_again(LOST, gone, &RESEND, 7, &["ledger is damaged", "not the one"]).await;
}

// Case: a refused mail's pass is to be removed, and the ledger has lost its user.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_without_a_user_is_not_passed_over_when_passes_are_removed() {
    let (office, _relay) = issued(&["--deliver"], &[REFUSED], 7).await;
    damage(&office, "UPDATE rows SET user_id = NULL WHERE state = 'sealed'");
    let revoked = office.run(&[&DELIVER[..], &["--revoke-undelivered"]].concat()).await;
    assert_ended(&revoked, 7, &["ledger is damaged", "line ", "it names no user"]);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 2);
}

// Case: another address for a mail whose row cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_refused_where_the_row_cannot_be_read() {
    let (office, relay) = issued(&CHECKED_FOR_MAIL, &[], 0).await;
    let sql = "UPDATE rows SET reader_json = NULL, wanted_json = '{' WHERE line = 3";
    damage(&office, sql);
    let elsewhere = ["--readdress", "3=new@home.example"];
    let ended = office.run(&[&DELIVER[..], &elsewhere].concat()).await;
    assert_ended(&ended, 2, &["line 3", "ledger is damaged"]);
    assert_eq!(relay.seen().taken.len(), 0);
}
