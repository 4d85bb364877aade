//! Mails through the built program to relays of every kind: behind proxies, with failing sign-ins,
//! slow ones, silent ones. Checked against what relay and tenant saw.

use crate::support::certificates;
use crate::support::smtp;
use std::collections::VecDeque;
use std::process::Child;
use std::time::Duration;

use crate::support::mailed::{count_state, taken, wave};
use crate::support::office::{Ended, Office};
use crate::support::proxy::{Proxy, Ways};
use crate::support::smtp::{Manner, Relay};
use crate::support::until::until;
use tapwave_core::limits;
use tapwave_simulator::options::{Call, Fault, Faults};

/// Mails a minute, where the rate is not tested.
const FAST: u32 = 60_000;

fn kill(mut process: Child) {
    process.kill().expect("killed");
    process.wait().expect("gone");
}

/// Names the relay by a name that only the proxy can resolve.
fn by_its_far_name(office: &Office) {
    office.change_settings("host = \"localhost\"", &format!("host = \"{}\"", certificates::RELAY));
}

async fn run_behind(office: &Office, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = office.command(arguments);
    command.envs(variables.iter().copied());
    office.finish(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_leads_to_the_relay_and_its_refusal_is_reported() {
    const ROWS: u64 = 9;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    let proxy = Proxy::start(Ways { target: relay.port, together: true, ..Ways::default() }).await;
    let url = format!("http://ada:hunter2@127.0.0.1:{}", proxy.port);
    let behind = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "")];
    let key = office.public_key.clone();

    // The proxy is not used for a relay on this machine.
    let check = ["check", "wave.csv", "-r", &key, "--deliver"];
    run_behind(&office, &check, &behind).await.expect(0);
    assert_eq!(*proxy.asked(), Vec::<String>::new());

    by_its_far_name(&office);
    let exempt = [behind[0], ("NO_PROXY", "contoso.example")];
    let ended = run_behind(&office, &check, &exempt).await.expect(3);
    assert!(ended.err.contains("relay.contoso.example cannot be reached"), "{}", ended.err);
    assert_eq!(*proxy.asked(), Vec::<String>::new());

    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    for (answer, exit) in [("403 Forbidden", 5), ("407 Proxy Authentication Required", 5)] {
        let before = relay.seen().connections;
        let ways = Ways { target: relay.port, refuses: Some(answer), ..Ways::default() };
        let unwilling = Proxy::start(ways).await;
        let url = format!("http://ada:hunter2@127.0.0.1:{}", unwilling.port);
        let deliver = ["deliver", "latest", "-i", "key.txt"];
        let ended = run_behind(&office, &deliver, &[("HTTPS_PROXY", &url), behind[1]]).await;
        let ended = ended.expect(exit);
        let named = format!("127.0.0.1:{} answered {}", unwilling.port, &answer[..3]);
        assert!(ended.err.contains(&named), "{}", ended.err);
        assert!(!ended.err.contains("hunter2"), "{}", ended.err);
        assert_eq!(relay.seen().connections, before);
        assert_eq!(
            count_state(&office.rows().await, "sealed") as u64,
            ROWS,
            "nothing is unsettled"
        );
    }

    run_behind(&office, &["deliver", "latest", "-i", "key.txt"], &behind).await.expect(0);
    assert_eq!(taken(&relay).len() as u64, ROWS);
    assert!(relay.seen().taken.iter().all(|mail| mail.encrypted));
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.len() <= 3, "{} tunnels", asked.len());
    let place = format!("CONNECT relay.contoso.example:{} HTTP/1.1\r\n", relay.port);
    assert!(asked.iter().all(|head| head.starts_with(&place)), "{asked:?}");
    assert!(asked.iter().all(|head| head.contains("Proxy-Authorization: Basic ")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliver_does_not_use_the_tenant() {
    let office = Office::open(4, &wave(4)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    let requests = || office.tenant.with(|tenant, _| tenant.tally().requests);
    let before = requests();
    let unsigned = |arguments: &[&str]| {
        let mut command = office.command(arguments);
        command.env_remove("TAPWAVE_ACCESS_TOKEN");
        command
    };
    // What does ask it is told so before anything.
    let revoke = ["deliver", "latest", "-i", "key.txt", "--revoke-undelivered"];
    office.finish(unsigned(&revoke)).await.expect(2);
    assert_eq!(taken(&relay).len(), 0);
    office.finish(unsigned(&["deliver", "latest", "-i", "key.txt"])).await.expect(0);
    assert_eq!((taken(&relay).len(), requests()), (4, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_refuses_everybody_is_a_sign_in_problem() {
    const ROWS: u64 = 12;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    // Each mail needs its own connection, thus a sign-in.
    let faults = VecDeque::from(vec![smtp::Fault::CutAfterAnswer; 24]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    relay.hold(3);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt"];
    let running = office.command(&run).spawn().expect("a process");
    until("two mails are acknowledged", async || relay.seen().taken.len() >= 3).await;
    relay.change(|manner| manner.secret = "changed".to_owned());
    relay.let_go();
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    let code = ended.await.expect("a thread").expect("a process").status.code();
    assert_eq!(code, Some(5), "issued, sealed, and half of it mailed");
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()) as u64, ROWS);

    let deliver = ["deliver", "latest", "-i", "key.txt"];
    let ended = office.run(&deliver).await.expect(5);
    assert!(ended.err.contains("refused the sign-in of user"), "{}", ended.err);
    relay.change(|manner| manner.secret = "right".to_owned());
    office.run(&deliver).await.expect(0);
    assert_eq!(taken(&relay).len() as u64, ROWS);
    assert!(taken(&relay).values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_and_a_token_open_the_relay() {
    let office = Office::open(3, &wave(3)).await;
    let manner = Manner { client_certificate: true, mechanisms: "XOAUTH2", ..Manner::default() };
    let relay = Relay::start(manner).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver"];
    let ended = office.run(&run).await.expect(5);
    assert!(ended.err.contains("client_certificate"), "{}", ended.err);
    let shown = format!(
        "auth = \"xoauth2\"\nhello = \"wave.contoso.example\"\nclient_certificate = '{}'\nport",
        relay.client().display()
    );
    office.change_settings("port", &shown);
    office.run(&run).await.expect(0);
    assert_eq!(taken(&relay).len(), 3);
    assert!(relay.seen().hellos.iter().filter(|said| *said == "wave.contoso.example").count() > 1);
}

/// How many connections ended without QUIT.
fn ended_without_quit(relay: &Relay) -> usize {
    let seen = relay.seen();
    seen.connections - seen.commands.iter().filter(|word| *word == "QUIT").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_sends_quit_to_the_relay() {
    let office = Office::open(30, &wave(30)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    office.run(&["check", "wave.csv", "-r", &key, "--deliver"]).await.expect(0);
    assert_eq!(ended_without_quit(&relay), 0, "check");
    let run = ["run", "wave.csv", "-r", &key, "--deliver"];
    #[cfg(unix)]
    {
        relay.hold(3);
        let mut command = office.command(&run);
        let running = command.stderr(std::process::Stdio::piped()).spawn().expect("a process");
        until("mails are there", async || relay.seen().taken.len() >= 3).await;
        let running = interrupt(running).await;
        relay.let_go();
        let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
        let status = ended.await.expect("a thread").expect("a process").status;
        assert_eq!(status.code(), Some(130), "interrupted");
        assert_eq!(ended_without_quit(&relay), 0, "an interrupted run");
        assert!(taken(&relay).len() < 30);
        office.run(&["resume", "latest", "-i", "key.txt"]).await.expect(0);
    }
    #[cfg(not(unix))]
    office.run(&run).await.expect(0);
    assert_eq!(taken(&relay).len(), 30);
    assert_eq!(ended_without_quit(&relay), 0, "a whole run");
    // A wave that ends half-way, because the tenant refuses.
    let later = Office::open(3, &wave(3)).await;
    later.mail_through(&relay, FAST);
    later.run(&["run", "wave.csv", "-r", &later.public_key.clone()]).await.expect(0);
    later.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(0);
    assert_eq!(ended_without_quit(&relay), 0, "deliver");
}

/// Sends Ctrl-C to a process, and waits until it has noticed.
#[cfg(unix)]
async fn interrupt(mut process: Child) -> Child {
    use std::io::{BufRead, BufReader};
    let id = process.id().to_string();
    let told = std::process::Command::new("kill").args(["-INT", &id]).status();
    assert!(told.expect("kill").success());
    let heard = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
        let heard = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("stopping")));
        assert!(heard.is_some(), "it ended unheard");
        // Its other output must not block it.
        std::thread::spawn(|| lines.for_each(drop));
        process
    });
    heard.await.expect("a thread")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_the_rate_is_waited_for_leaves_nothing_unsettled() {
    let office = Office::open(9, &wave(9)).await;
    let relay = Relay::start(Manner::default()).await;
    // One mail a minute.
    office.mail_through(&relay, 1);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt"];
    let running = office.command(&run).spawn().expect("a process");
    until("a mail is recorded", async || {
        let ended = office.run(&["status", "latest", "--json"]).await;
        let rows = if ended.code == Some(0) { ended.json()["rows"].clone() } else { return false };
        let rows = rows.as_array().expect("rows");
        count_state(rows, "delivered") == 1 && count_state(rows, "sealed") == 8
    })
    .await;
    kill(running);
    let rows = office.rows().await;
    assert_eq!((count_state(&rows, "mailing"), count_state(&rows, "sealed")), (0, 8));
    office.change_settings("max_per_minute = 1\n", "max_per_minute = 60000\n");
    // The last seal is checked before it is mailed, which needs the tenant.
    let deliver = ["deliver", "latest", "-i", "key.txt"];
    let mut unsigned = office.command(&deliver);
    unsigned.env_remove("TAPWAVE_ACCESS_TOKEN");
    let ended = office.finish(unsigned).await.expect(7);
    assert!(ended.err.contains("cannot be looked at again, so they wait"), "{}", ended.err);
    assert!(ended.err.contains("tapwave resume"), "{}", ended.err);
    assert_eq!(taken(&relay).len(), 1);
    office.run(&deliver).await.expect(0);
    assert!(taken(&relay).len() == 9 && taken(&relay).values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_identity_issuing_does_not_wait_for_a_slow_relay() {
    const ROWS: u64 = 60;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    relay.hold(1);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt", "--settle-after", "1s"];
    let running = office.command(&run).spawn().expect("a process");
    let issued = || office.tenant.with(|tenant, _| tenant.passes().count()) as u64;
    until("all passes are issued", async || issued() == ROWS).await;
    kill(running);

    // Continued with the identity: each is sent once, and what the kill left is unsettled.
    relay.let_go();
    until("the relay has seen that", async || relay.seen().open == 0).await;
    let ended = office.run(&["resume", "latest", "-i", "key.txt", "--json"]).await;
    let rows = office.rows().await;
    let (lost, delivered) = (count_state(&rows, "mailing"), count_state(&rows, "delivered"));
    assert_eq!((lost + delivered) as u64, ROWS, "{}", ended.err);
    assert!(lost <= 3 && taken(&relay).values().all(|times| *times == 1), "{:?}", taken(&relay));
    let again = ["deliver", "latest", "-i", "key.txt", "--resend-unsettled"];
    office.run(&again).await.expect(0);
    let twice = taken(&relay).values().filter(|times| **times > 1).count();
    assert_eq!(taken(&relay).len() as u64, ROWS, "nobody was forgotten");
    assert!(twice <= lost && taken(&relay).values().all(|times| *times <= 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_lost_answers_do_not_accumulate_passes() {
    const ROWS: u64 = 12;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let slow = Duration::from_millis(300);
    let relay = Relay::start(Manner { slow, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    office.change_settings("max_connections = 3", "max_connections = 1");
    // All wait for one settling time, which ends at about the same time.
    let lost = |faults: Faults, nth| faults.at(Call::Issue, nth, Fault::LostBefore);
    let lost = (1..=8).fold(Faults::default(), lost);
    office.tenant.with(|tenant, _| tenant.options_mut().faults = lost);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "--settle-after", "500ms"];
    let running = office.command(&run).spawn().expect("a process");
    let mut most = 0;
    until("all have theirs", async || {
        let passes = office.tenant.with(|tenant, _| tenant.passes().count());
        let mailed = relay.seen().taken.len();
        most = most.max(passes.saturating_sub(mailed));
        mailed as u64 == ROWS
    })
    .await;
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    assert!(ended.await.expect("a thread").expect("a process").status.success());
    assert!(most <= 2, "{most} passes waited for one connection");
    assert!(taken(&relay).values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_after_the_dot_is_held_until_somebody_asks_for_the_same_bytes() {
    let office = Office::open(2, &wave(2)).await;
    let faults = VecDeque::from([smtp::Fault::SilentAfterDot]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt"];
    let running = office.command(&run).spawn().expect("a process");
    until("both mails were taken", async || relay.seen().taken.len() == 2).await;
    until("one is recorded", async || {
        let ended = office.run(&["status", "latest", "--json"]).await;
        ended.code == Some(0)
            && ended.json()["rows"]
                .as_array()
                .is_some_and(|rows| count_state(rows, "delivered") == 1)
    })
    .await;
    kill(running);
    let deliver = ["deliver", "latest", "-i", "key.txt"];
    let ended = office.run(&deliver).await.expect(7);
    assert!(ended.err.contains("--resend-unsettled"), "{}", ended.err);
    assert_eq!(relay.seen().taken.len(), 2);
    assert_eq!(count_state(&office.rows().await, "mailing"), 1);
    office.run(&[&deliver[..], &["--resend-unsettled"]].concat()).await.expect(0);
    let seen = relay.seen();
    let [silent, _, again] = &seen.taken[..] else { panic!("{} mails", seen.taken.len()) };
    let (silent, again) =
        if silent.to == again.to { (silent, again) } else { (&seen.taken[1], again) };
    assert!(silent.to == again.to && silent.bytes == again.bytes, "identical bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_full_mailbox_does_not_delay_others() {
    const ROWS: u64 = 30;
    let office = Office::open(ROWS, &wave(ROWS)).await;
    // As many as there are connections.
    let full = vec!["<reader1@home.example>", "<reader2@home.example>", "<reader3@home.example>"];
    let relay = Relay::start(Manner { full, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "-i", "key.txt"];
    let running = office.command(&run).spawn().expect("a process");
    until("the others have theirs", async || relay.seen().taken.len() as u64 == ROWS - 3).await;
    relay.change(|manner| manner.full.clear());
    office.tenant.pass(limits::MAX_MAIL_BACKOFF);
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    assert!(ended.await.expect("a thread").expect("a process").status.success());
    assert!(taken(&relay).len() as u64 == ROWS && taken(&relay).values().all(|times| *times == 1));
    assert!(relay.seen().most <= 3, "{} connections", relay.seen().most);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_relay_cannot_take_is_found_before_any_pass() {
    let wave = "userPrincipalName,deliverTo\nuser1@contoso.example,ada@bücher.example\n\
                user2@contoso.example,jörg@home.example\n";
    let office = Office::open(2, wave).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    let key = office.public_key.clone();
    let run = ["run", "wave.csv", "-r", &key, "--deliver"];
    let ended = office.run(&run).await.expect(3);
    assert!(ended.err.contains("line 3 (1 row in all) has letters outside ASCII"), "{}", ended.err);
    // The same for the notice, before the pass is sent.
    let split = ["--to", "mail", "--notice-to", "column:deliverTo"];
    let ended = office.run(&[&run[..], &split].concat()).await.expect(3);
    assert!(ended.err.contains("line 3 (1 row in all) has letters outside ASCII"), "{}", ended.err);
    office.change_settings("from =", "reply_to = \"hülfe@contoso.example\"\nfrom =");
    let ended = office.run(&run).await.expect(3);
    assert!(ended.err.contains("reply_to in tapwave.toml has letters"), "{}", ended.err);
    assert_eq!(office.tenant.with(|tenant, _| tenant.passes().count()), 0);
    relay.change(|manner| manner.offers = "SMTPUTF8");
    office.run(&run).await.expect(0);
    let readers: Vec<String> = taken(&relay).into_keys().collect();
    assert_eq!(readers, ["ada@xn--bcher-kva.example", "jörg@home.example"]);
}

/// A mail that waits for a retry stops waiting once mailing has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_does_not_outlive_the_end_of_mail() {
    let office = Office::open(2, &wave(2)).await;
    let faults = VecDeque::from([
        smtp::Fault::Rcpt("452 4.2.2 mailbox full"),
        smtp::Fault::Mail("530 5.7.0 sign in"),
    ]);
    let relay = Relay::start(Manner { faults, ..Manner::default() }).await;
    office.mail_through(&relay, FAST);
    office.change_settings("max_connections = 3", "max_connections = 1");
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(5);
    assert_eq!(taken(&relay).len(), 0, "tried again after the relay had let nobody in");
    office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(0);
    assert_eq!(taken(&relay).len(), 2);
}

/// A row without an address does not wait for the relay's rate.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_address_are_reported_at_once() {
    let upns: Vec<String> = (1..=5).map(|n| format!("user{n}@contoso.example")).collect();
    let office = Office::open(5, &format!("userPrincipalName\n{}\n", upns.join("\n"))).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, 1);
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    let deliver = ["deliver", "latest", "-i", "key.txt"];
    let ended = tokio::time::timeout(Duration::from_mins(2), office.run(&deliver));
    let ended = ended.await.expect("four minutes at one a minute").expect(7);
    assert_eq!(ended.err.matches("no mail address is known").count(), 5, "{}", ended.err);
}
