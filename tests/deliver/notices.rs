//! Notices through the built program: the pass to one reader, the notice to another. Checked against
//! what the relay accepted.

use std::collections::{BTreeMap, VecDeque};

use crate::support::office::Office;
use crate::support::smtp::{Fault, Manner, Relay, Taken};
use crate::support::until::until;
use serde_json::Value;
use tapwave_simulator::options::Call;

/// Mails a minute, where the rate is not tested.
const RATE: u32 = 60_000;
/// The pass to the column's reader, the notice to the person's other address.
const SPLIT: [&str; 4] = ["--to", "column:deliverTo", "--notice-to", "other-mail"];

/// user1 to userN; their passes go to reader1 to readerN.
fn wave(rows: u64) -> String {
    let lines = (1..=rows).map(|n| format!("user{n}@contoso.example,reader{n}@home.example\n"));
    format!("userPrincipalName,deliverTo\n{}", lines.collect::<String>())
}

/// An office whose mail goes through a relay with these faults, one mail at a time, so that the
/// n-th fault is the n-th mail's.
async fn office(rows: u64, faults: &[Fault]) -> (Office, Relay) {
    let office = Office::open(rows, &wave(rows)).await;
    let faults: VecDeque<Fault> = faults.iter().copied().collect();
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, RATE);
    office.change_settings("max_connections = 3", "max_connections = 1");
    (office, relay)
}

fn run<'a>(key: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let flags = ["run", "wave.csv", "-r", key, "--deliver", "--json", "--settle-after", "100ms"];
    // One at a time, so that the mails are in the order of the wave.
    [&flags[..], &["--max-in-flight", "1"], &SPLIT, more].concat()
}

fn reader(mail: &Taken) -> String {
    let [to] = &mail.to[..] else { panic!("one reader, not {:?}", mail.to) };
    to.split(['<', '>']).nth(1).expect("an address").to_owned()
}

/// The mails that the relay accepted for each reader, in order.
fn taken(relay: &Relay) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut taken: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for mail in &relay.seen().taken {
        taken.entry(reader(mail)).or_default().push(mail.bytes.clone());
    }
    taken
}

/// A mail's text without soft line breaks; codes and addresses are ASCII.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("=\r\n", "").replace("=3D", "=")
}

fn codes(office: &Office) -> Vec<String> {
    office.tenant.with(|tenant, _| tenant.passes().map(|(_, _, pass)| pass.code.clone()).collect())
}

fn live(office: &Office) -> usize {
    office.tenant.with(|tenant, _| tenant.passes().count())
}

/// No notice holds a code, and each follows the mail with its pass.
fn assert_notices(office: &Office, relay: &Relay) {
    let codes = codes(office);
    let mut mailed = Vec::new();
    for mail in &relay.seen().taken {
        let to = reader(mail);
        let Some(user) = to.strip_suffix("@personal.example") else {
            mailed.push(to.replace("reader", "user").replace("@home.example", ""));
            continue;
        };
        let text = text(&mail.bytes);
        assert!(codes.iter().all(|code| !text.contains(code.as_str())), "a code in a notice");
        assert!(mailed.iter().any(|one| one == user), "{user} was told before the pass went out");
        let holder = format!("{}@home.example", user.replace("user", "reader"));
        assert!(text.contains(&holder), "{holder} is not named: {text}");
    }
}

fn notice_states(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["notice"]["state"].as_str().unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pass_goes_to_the_manager_and_the_notice_to_the_person() {
    let (office, relay) = office(4, &[]).await;
    let wave = "userPrincipalName\nuser2@contoso.example\nuser3@contoso.example\n";
    std::fs::write(office.path("wave.csv"), wave).expect("a wave");
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "--json"];
    let split = ["--to", "manager", "--notice-to", "column:deliverTo,other-mail"];
    let summary = office.run(&[&run[..], &split].concat()).await.expect(0).json();
    assert_eq!((&summary["delivered"], &summary["notices_sent"]), (&2.into(), &2.into()));
    assert_eq!(summary["notices_open"], 0);

    let taken = taken(&relay);
    assert_eq!(taken["user1@contoso.example"].len(), 2, "{:?}", taken.keys());
    let passes = taken["user1@contoso.example"].iter().map(|mail| text(mail));
    assert_eq!(
        passes.filter(|text| codes(&office).iter().any(|code| text.contains(code))).count(),
        2
    );
    for user in ["user2@personal.example", "user3@personal.example"] {
        let [notice] = &taken[user][..] else { panic!("one notice for {user}") };
        let notice = text(notice);
        assert!(codes(&office).iter().all(|code| !notice.contains(code.as_str())));
        assert!(notice.contains("Brandt (user1@contoso.example)"), "{notice}");
    }
    let rows = office.rows().await;
    for (row, to) in rows.iter().zip(["user2@personal.example", "user3@personal.example"]) {
        assert_eq!(row["state"], "delivered");
        assert_eq!(
            (&row["mail"]["body"], &row["notice"]["state"]),
            (&"pass".into(), &"sent".into())
        );
        assert_eq!(
            (&row["notice"]["to"], &row["notice"]["mail"]["body"]),
            (&to.into(), &"notice".into())
        );
        assert_ne!(row["mail"]["messageId"], row["notice"]["mail"]["messageId"]);
        assert_eq!(row["notice"]["mail"]["outcome"], "delivered", "a receipt of its own");
    }
    let again = office.run(&["deliver", "latest", "--json"]).await.expect(0).json();
    assert_eq!(again["notices_sent"], 2, "and nothing needs an identity any more");
    assert_eq!(relay.seen().taken.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_every_fault_no_notice_is_doubled_and_none_lost() {
    const ROWS: u64 = 14;
    // Passes and notices are sent in turn, so each fault hits one of them.
    let faults: Vec<Fault> = [
        Fault::Rcpt("450 4.2.0 grey"),
        Fault::Dot("451 4.3.0 later"),
        Fault::CutAtMail,
        Fault::CutAtData,
        Fault::CutAfterDot,
        Fault::Rcpt("550 5.1.1 nobody"),
        Fault::CutAfterAnswer,
        Fault::Dot("554 5.7.1 spam"),
        Fault::CutAfterDot,
        Fault::Rcpt("550 5.1.1 nobody"),
    ]
    .into_iter()
    .flat_map(|fault| [Fault::None, fault])
    .collect();
    let (office, relay) = office(ROWS, &faults).await;
    let key = office.public_key.clone();
    let summary = office.run(&run(&key, &["-i", "key.txt"])).await.expect(7).json();
    assert!(summary["notices_open"].as_u64() > Some(0), "{summary}");
    let first = relay.seen().taken.len();
    assert!(taken(&relay).values().all(|mails| mails.len() == 1), "{:?}", taken(&relay).keys());
    assert_notices(&office, &relay);

    // Nothing unsettled or refused is sent by itself.
    office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(7);
    office.run(&["resume", "latest", "-i", "key.txt"]).await.expect(7);
    assert_eq!(relay.seen().taken.len(), first);
    let before = notice_states(&office.rows().await).join(" ");
    assert!(before.contains("refused") || before.contains("unsettled"), "{before}");

    // A refused notice removes nothing; a refused pass is retried on request.
    let again = ["deliver", "latest", "-i", "key.txt", "--resend-unsettled"];
    office.run(&again).await.expect(7);
    let retried = ["deliver", "latest", "-i", "key.txt", "--retry-refused", "--revoke-undelivered"];
    let summary = office.run(&[&retried[..], &["--json"]].concat()).await.expect(0).json();
    assert_eq!((&summary["delivered"], &summary["notices_sent"]), (&ROWS.into(), &ROWS.into()));
    assert_eq!((&summary["notices_open"], &summary["removed"]), (&0.into(), &0.into()));
    assert_notices(&office, &relay);
    let taken = taken(&relay);
    assert_eq!(taken.len() as u64, 2 * ROWS, "nobody was forgotten");
    for (reader, mails) in taken {
        assert!(mails.iter().all(|mail| *mail == mails[0]), "{reader} got two that differ");
        assert!(mails.len() <= 2);
    }
    office.run(&["cleanup", "latest"]).await.expect(0);
    assert_eq!(live(&office), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_in_flight_at_a_kill_is_held_and_repeated_with_the_same_bytes() {
    let (office, relay) = office(1, &[Fault::None, Fault::SilentAfterDot]).await;
    let key = office.public_key.clone();
    let mut running = office.command(&run(&key, &["--quiet"])).spawn().expect("a process");
    until("the notice is there", async || relay.seen().taken.len() == 2).await;
    running.kill().expect("killed");
    running.wait().expect("gone");

    for command in [&["deliver", "latest"][..], &["resume", "latest"], &["deliver", "latest"]] {
        office.run(command).await.expect(7);
        assert_eq!(relay.seen().taken.len(), 2, "{command:?}");
        let rows = office.rows().await;
        assert_eq!(
            (&rows[0]["state"], &rows[0]["notice"]["state"]),
            (&"delivered".into(), &"unsettled".into())
        );
    }
    let told = office.run(&["status", "latest"]).await.expect(0);
    assert!(told.out.contains("notice of unknown fate"), "{}", told.out);
    office.run(&["deliver", "latest", "--resend-unsettled"]).await.expect(0);
    let notices = taken(&relay).remove("user1@personal.example").expect("notices");
    assert!(notices.len() == 2 && notices[0] == notices[1]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_is_due_is_sent_by_a_resume_without_an_identity() {
    let later = Fault::Rcpt("450 4.2.0 grey");
    // However often it is tried.
    let (office, relay) = office(1, &[&[Fault::None][..], &[later; 20]].concat()).await;
    let key = office.public_key.clone();
    let mut running = office.command(&run(&key, &["--quiet"])).spawn().expect("a process");
    let tried = || relay.seen().commands.iter().filter(|word| *word == "RCPT").count();
    until("the notice is tried", async || tried() >= 2).await;
    let id = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("signalled");
    assert_eq!(running.wait().expect("gone").code(), Some(130), "interrupted, as deliver says too");
    let told = office.run(&["status", "latest"]).await.expect(0);
    assert!(told.out.contains("notice not sent: "), "{}", told.out);
    assert_eq!(notice_states(&office.rows().await), ["due"]);
    relay.change(|manner| manner.faults.clear());
    office.run(&["resume", "latest"]).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 2);
    assert_notices(&office, &relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_never_send_a_notice_twice() {
    const ROWS: u64 = 16;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, RATE);
    let key = office.public_key.clone();
    let resume = ["resume", "latest", "-i", "key.txt", "--quiet"];
    let mut command = office.command(&run(&key, &["-i", "key.txt", "--quiet"]));
    for enough in [5, 12, 19] {
        relay.hold(enough);
        let mut running = command.spawn().expect("a process");
        until("enough mails are taken", async || relay.seen().taken.len() >= enough).await;
        running.kill().expect("killed");
        running.wait().expect("gone");
        relay.let_go();
        until("the relay has seen that", async || relay.seen().open == 0).await;
        command = office.command(&resume);
    }
    office.run(&resume).await;
    assert!(taken(&relay).values().all(|mails| mails.len() == 1), "{:?}", taken(&relay).keys());
    assert_notices(&office, &relay);
    let rows = office.rows().await;
    let open = rows.iter().filter(|row| row["state"] == "mailing").count();
    let states = notice_states(&rows);
    let lost = states.iter().filter(|state| **state == "unsettled").count();
    assert!(open + lost <= 9, "three kills, three connections: {states:?}");
    assert!(
        states.iter().all(|state| ["sent", "unsettled", "waiting"].contains(state)),
        "{states:?}"
    );
    office.run(&["deliver", "latest", "-i", "key.txt", "--resend-unsettled"]).await.expect(0);
    let taken = taken(&relay);
    assert_eq!(taken.len() as u64, 2 * ROWS);
    assert!(taken.values().all(|mails| mails.iter().all(|mail| *mail == mails[0])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_notice_is_reported_counted_and_retried_on_request() {
    let (office, relay) = office(1, &[Fault::None, Fault::Rcpt("550 5.1.1 nobody")]).await;
    let key = office.public_key.clone();
    let ended = office.run(&run(&key, &[])).await.expect(7);
    let summary = ended.json();
    assert_eq!((&summary["delivered"], &summary["sealed"]), (&1.into(), &0.into()));
    assert_eq!((&summary["notices_sent"], &summary["notices_open"]), (&0.into(), &1.into()));
    assert!(ended.err.contains("notice refused: "), "{}", ended.err);
    let told = office.run(&["deliver", "latest"]).await.expect(7);
    assert!(told.err.contains("--retry-refused") && !told.err.contains("--resend"), "{}", told.err);
    let rows = office.rows().await;
    assert_eq!(
        (&rows[0]["state"], &rows[0]["notice"]["state"]),
        (&"delivered".into(), &"refused".into())
    );

    let revoked = office.run(&["deliver", "latest", "--revoke-undelivered"]).await.expect(7);
    assert!(!revoked.err.contains("was removed"), "{}", revoked.err);
    assert_eq!((live(&office), relay.seen().taken.len()), (1, 1));
    office.run(&["deliver", "latest", "--retry-refused"]).await.expect(0);
    assert_eq!((live(&office), relay.seen().taken.len()), (1, 2));
    assert_notices(&office, &relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pass_is_mailed_again_on_request_and_only_then_announced() {
    let (office, relay) = office(1, &[Fault::Dot("554 5.7.1 spam")]).await;
    let key = office.public_key.clone();
    office.run(&run(&key, &[])).await.expect(7);
    let first = office.rows().await;
    assert_eq!(
        (&first[0]["state"], &first[0]["notice"]["state"]),
        (&"sealed".into(), &"waiting".into())
    );
    office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(7);
    assert_eq!(relay.seen().taken.len(), 0);
    office.run(&["deliver", "latest", "-i", "key.txt", "--retry-refused"]).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 2);
    assert_notices(&office, &relay);
    let rows = office.rows().await;
    assert_ne!(rows[0]["mail"]["messageId"], first[0]["mail"]["messageId"], "a new mail");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_mail_goes_to_another_address_when_one_is_given() {
    let nobody = Fault::Rcpt("550 5.1.1 nobody");
    let (office, relay) = office(2, &[nobody, Fault::None, nobody]).await;
    let key = office.public_key.clone();
    // The first pass is refused, and the notice of the second.
    office.run(&run(&key, &[])).await.expect(7);
    assert_eq!(relay.seen().taken.len(), 1);
    let deliver = ["deliver", "latest", "-i", "key.txt"];
    for (wish, says) in [
        ("9=new@home.example", "the run has no row there\n  hint: tapwave status wave-"),
        ("2=nobody", "cannot be 2=nobody"),
        ("new@home.example", "such as 12=ada@home.example"),
    ] {
        let ended = office.run(&[&deliver[..], &["--readdress", wish]].concat()).await.expect(2);
        assert!(ended.err.contains(says), "{wish}: {}", ended.err);
    }
    let ended = office.run(&["deliver", "latest"]).await.expect(2);
    let says = "hint: tapwave deliver wave-";
    assert!(ended.err.contains(says) && ended.err.contains(" -i IDENTITY"), "{}", ended.err);
    let twice = ["--readdress", "2=a@home.example", "--readdress", "2=b@home.example"];
    let ended = office.run(&[&deliver[..], &twice].concat()).await.expect(2);
    assert!(ended.err.contains("names line 2 twice"), "{}", ended.err);
    let both = ["--readdress", "2=Neu <new@home.example>", "--readdress", "3=other@home.example"];
    office.run(&[&deliver[..], &both].concat()).await.expect(0);
    let taken = taken(&relay);
    let readers: Vec<&str> = taken.keys().map(String::as_str).collect();
    let expected = [
        "new@home.example",
        "other@home.example",
        "reader2@home.example",
        "user1@personal.example",
    ];
    assert_eq!(readers, expected);
    let notice = text(&taken["user1@personal.example"][0]);
    assert!(notice.contains("Neu (new@home.example)"), "{notice}");
    // What was sent cannot get another address.
    let late = office.run(&[&deliver[..], &both[..2]].concat()).await.expect(2);
    assert!(late.err.contains("line 2, which is delivered"), "{}", late.err);
    assert_eq!(relay.seen().taken.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_works_in_every_state_of_the_notices() {
    let nobody = Fault::Rcpt("550 5.1.1 nobody");
    // Pass and notice in turn: one notice is sent, one refused, two are unsettled.
    let faults = [
        Fault::None,
        Fault::None,
        Fault::None,
        nobody,
        Fault::None,
        Fault::CutAfterDot,
        Fault::CutAfterDot,
    ];
    let (office, relay) = office(4, &faults).await;
    let key = office.public_key.clone();
    office.run(&run(&key, &[])).await.expect(7);
    let states = |rows: &[Value]| notice_states(rows).join(" ");
    assert_eq!(states(&office.rows().await), "sent refused unsettled waiting");
    let mailed = relay.seen().taken.len();
    let summary = office.run(&["cleanup", "latest", "--json"]).await.expect(0).json();
    assert_eq!((&summary["removed"], &summary["notices_open"]), (&4.into(), &0.into()));
    assert_eq!(live(&office), 0);
    assert_eq!(states(&office.rows().await), "sent dropped unsettled dropped");
    let late = ["deliver", "latest", "-i", "key.txt", "--resend-unsettled", "--retry-refused"];
    let ended = office.run(&late).await.expect(2);
    assert!(ended.err.contains("closed by cleanup"), "{}", ended.err);
    assert_eq!(relay.seen().taken.len(), mailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn graph_sends_both_mails() {
    let (office, _relay) = office(3, &[]).await;
    let settings = "[mail]\ncourier = \"graph\"\nfrom = \"IT <user1@contoso.example>\"\n\
                    max_per_minute = 60000\n";
    office.settings(settings);
    let key = office.public_key.clone();
    let summary = office.run(&run(&key, &[])).await.expect(0).json();
    assert_eq!((&summary["delivered"], &summary["notices_sent"]), (&3.into(), &3.into()));
    let codes = codes(&office);
    let mails: Vec<(String, bool)> = office.tenant.with(|tenant, _| {
        let of = |mail: &Value| {
            let to = &mail["toRecipients"][0]["emailAddress"]["address"];
            // A code may hold an ampersand, which HTML escapes.
            let html = mail["body"]["content"].as_str().expect("a body").replace("&amp;", "&");
            (
                to.as_str().expect("an address").to_owned(),
                codes.iter().any(|one| html.contains(one.as_str())),
            )
        };
        tenant.mails().iter().map(|mail| of(&mail.message)).collect()
    });
    assert_eq!(mails.len(), 6);
    assert!(mails.iter().all(|(to, coded)| *coded == to.ends_with("@home.example")), "{mails:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_delivery_sends_notices_too() {
    let (office, relay) = office(3, &[]).await;
    let key = office.public_key.clone();
    let run = [&["run", "wave.csv", "-r", &key][..], &SPLIT].concat();
    office.run(&run).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 0, "not without --deliver");
    let news = ["deliver", "latest", "-i", "key.txt", "--body", "notice"];
    let ended = office.run(&news).await.expect(2);
    assert!(ended.err.contains("leave --notice-to out"), "{}", ended.err);
    office.run(&["deliver", "latest", "-i", "key.txt", "--due", "24h"]).await.expect(0);
    assert_eq!(relay.seen().taken.len(), 6);
    assert_notices(&office, &relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointless_notice_is_a_usage_error() {
    let (office, relay) = office(1, &[]).await;
    let key = office.public_key.clone();
    for (flags, says) in [
        (&["--notice-to", "other-mail"][..], "add --deliver"),
        (&["--deliver", "--notice-to", "other-mail", "--body", "notice"], "give --body pass"),
        (&["--deliver", "--notice-to", "column:other"], "--notice-to cannot be column:other"),
    ] {
        for command in ["check", "run"] {
            let base = [command, "wave.csv", "-r", &key];
            let ended = office.run(&[&base[..], flags].concat()).await.expect(2);
            assert!(ended.err.contains(says), "{flags:?}: {}", ended.err);
        }
    }
    assert_eq!((live(&office), relay.seen().commands.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_reader_for_the_notice_is_a_problem_and_odd_readers_are_warned_of() {
    let (office, relay) = office(2, &[]).await;
    office.tenant.with(|tenant, _| {
        tenant.amend("user2@contoso.example", |user| user.other_mails.clear());
    });
    let key = office.public_key.clone();
    let ended = office.run(&run(&key, &[])).await.expect(3);
    // The column is not a source of addresses for these notices.
    let says = "has no mail address for its notice in the person's other mails; \
        give it one there, or add another place to --notice-to";
    assert!(ended.err.contains(says) && !ended.err.contains("in the column"), "{}", ended.err);
    assert_eq!((live(&office), relay.seen().taken.len()), (0, 0));

    let check = ["check", "wave.csv", "-r", &key, "--deliver", "--to", "column:deliverTo"];
    for (place, says) in [
        ("mail", "2 of the notices would go to the mailbox of the very person"),
        ("column:deliverTo", "2 of the notices would go to the address that gets the pass"),
    ] {
        let ended = office.run(&[&check[..], &["--notice-to", place]].concat()).await.expect(0);
        assert!(ended.err.contains(says), "{place}: {}", ended.err);
    }
    for (body, says) in [
        ("pass", "2 of the passes would go to the mailbox of the very person"),
        ("sealed", "2 of the passes would go to the mailbox of the very person"),
        ("notice", "2 of the notices would go to the mailbox of the very person"),
    ] {
        let own = ["--deliver", "--to", "mail", "--body", body];
        let ended = office.run(&[&check[..4], &own].concat()).await.expect(0);
        assert!(ended.err.contains(says), "{body}: {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_counts_both_mails_and_the_preview_shows_both() {
    let office = Office::open(50, &wave(50)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, 1);
    let key = office.public_key.clone();
    let check =
        ["check", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt", "--lifetime", "120"];
    let one = [&check[..], &SPLIT[..2]].concat();
    office.run(&one).await.expect(0);
    let both = [&check[..], &SPLIT].concat();
    let ended = office.run(&both).await.expect(3);
    assert!(ended.err.contains("100 mails at 1 a minute take 100 min"), "{}", ended.err);

    assert!(ended.err.contains("set support or reply_to in [mail]"), "{}", ended.err);
    office.change_settings("[mail]\n", "[mail]\nreply_to = \"help@contoso.example\"\n");
    let previewed = office.run(&[&both[..], &["--preview", "3"]].concat()).await.expect(0);
    assert!(!previewed.err.contains("whom to call"), "{}", previewed.err);
    let shown = previewed.out;
    assert_eq!(shown.matches("help@contoso.example").count(), 2, "{shown}");
    let [pass, notice] = shown.split("\nTo: ").collect::<Vec<_>>()[..] else {
        panic!("two letters: {shown}")
    };
    assert!(pass.starts_with("To: reader2@home.example\n") && pass.contains("EXAMPLE-pass"));
    assert!(notice.starts_with("user2@personal.example\n") && !notice.contains("EXAMPLE"));
    assert!(notice.contains("reader2@home.example has it"), "{notice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_is_looked_up_where_a_row_or_a_letter_needs_one() {
    let (office, _relay) = office(4, &[]).await;
    let wave = "userPrincipalName,deliverTo\nuser2@contoso.example,a@home.example\n\
                user3@contoso.example,\nuser4@contoso.example,c@home.example\n";
    std::fs::write(office.path("wave.csv"), wave).expect("a wave");
    let key = office.public_key.clone();
    let check = ["check", "wave.csv", "-r", &key, "--existing", "replace"];
    let calls = async |flags: &[&str]| {
        let seen = || office.tenant.with(|tenant, _| tenant.seen(Call::Users));
        let before = seen();
        office.run(&[&check[..], flags].concat()).await.expect(0);
        seen() - before
    };
    let people = calls(&[]).await;
    assert_eq!(calls(&["--deliver", "--to", "mail"]).await, people);
    let first = ["--deliver", "--to", "column:deliverTo,manager"];
    assert_eq!(calls(&first).await, people + 1, "one row lacks an address");
    let both = [&first[..], &["--notice-to", "column:deliverTo,manager"]].concat();
    assert_eq!(calls(&both).await, people + 1, "once for both");
    let all = ["--deliver", "--to", "column:deliverTo,mail", "--notice-to", "manager"];
    assert_eq!(calls(&all).await, people + 3);

    let folder = office.path("letters/en/pass");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("letter.txt"), "{{ manager.name }}: {{ code }}").expect("a file");
    let own = ["--deliver", "--to", "column:deliverTo,mail", "--template", "letters"];
    assert_eq!(calls(&own).await, people + 3, "the letter names them");
}

/// Kills the program at each durable write in turn, and lets another process continue.
///
/// Run with `cargo test --features failpoints --test integration kill_sweep`.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn kill_sweep_of_a_split_delivery() {
    for fault in ["abort", "abort-after"] {
        for nth in 1.. {
            assert!(nth < 100, "{fault}: 100 writes and no end");
            let (office, relay) = office(2, &[]).await;
            let key = office.public_key.clone();
            let started = run(&key, &["-i", "key.txt", "--run", "split"]);
            let context = format!("{fault}@{nth}");
            let mut command = office.command(&started);
            command.env("TAPWAVE_FAILPOINT", &context);
            let output = tokio::task::spawn_blocking(move || command.output()).await;
            if output.expect("a thread").expect("a process").status.code() == Some(0) {
                assert!(nth > 8, "{context}: the fault was never reached");
                break;
            }
            if office.path("split").join("ledger.db").exists() {
                office.run(&["resume", "split", "-i", "key.txt"]).await;
            } else {
                office.run(&started).await.expect(0);
            }
            office.run(&["deliver", "split", "-i", "key.txt"]).await;
            assert!(taken(&relay).values().all(|mails| mails.len() == 1), "{context}");
            assert_notices(&office, &relay);
            let again = ["deliver", "split", "-i", "key.txt", "--resend-unsettled"];
            office.run(&again).await.expect(0);
            let taken = taken(&relay);
            assert_eq!(taken.len(), 4, "{context}: somebody was forgotten");
            let same = |mails: &Vec<Vec<u8>>| mails.iter().all(|mail| *mail == mails[0]);
            assert!(taken.values().all(same), "{context}");
        }
    }
}
