//! Whose fault a failure is: one row's, or everybody's. What everybody meets (a sender that may
//! not send, a permission, a proxy, a certificate, a portal) is told once, ends the work with the
//! exit code of its kind, and loses nothing. Through the built program.

use crate::support::authority;
use crate::support::certificates;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::support::authority::Authority;
use crate::support::mailed::{count_state, taken, wave};
use crate::support::office::{Ended, Office};
use crate::support::program::Program;
use crate::support::proxy::{Proxy, Ways};
use crate::support::server::Served;
use crate::support::smtp::{Fault as Mishap, Manner, Relay};
use crate::support::until::until;
use tapwave_core::limits::EQUAL_REFUSALS;
use tapwave_simulator::Tenant;
use tapwave_simulator::options::{Call, Fault, Faults};

const ROWS: u64 = 30;
const FAST: u32 = 60_000;
const TOKEN: &str = "office-token";

/// The replies of a real relay, each with the command that it is given to.
const REPLIES: &str = include_str!("cases/smtp-sender-refused/replies.txt");
/// A real relay's word that nobody may sign in with a password.
const SWITCHED_OFF: &str = include_str!("cases/smtp-auth-disabled/reply.txt");
/// A filter's answer in the place of Graph's.
const PAGE: &str = include_str!("cases/proxy-web-page/html.json");

/// The replies to this command, for every mail.
fn replies_to(command: &str) -> impl Iterator<Item = &'static str> {
    let reply = |line: &'static str| line.split("   (").next().unwrap_or(line).trim();
    REPLIES.lines().filter_map(move |line| Some(reply(line.strip_prefix(command)?)))
}

fn for_every_mail(mishap: Mishap) -> VecDeque<Mishap> {
    (0..4 * ROWS).map(|_| mishap).collect()
}

async fn mailing_office(rows: u64) -> (Office, Relay) {
    let office = Office::open(rows, &wave(rows)).await;
    let relay = Relay::start(Manner::default()).await;
    office.mail_through(&relay, FAST);
    (office, relay)
}

fn passes(office: &Office) -> u64 {
    office.tenant.with(|tenant, _| tenant.passes().count()) as u64
}

fn asked_for(office: &Office) -> u64 {
    office.tenant.with(|tenant, _| tenant.seen(Call::Issue))
}

fn set(office: &Office, faults: Faults) {
    office.tenant.with(|tenant, _| tenant.options_mut().faults = faults);
}

#[track_caller]
fn says(ended: &Ended, words: &[&str]) {
    for words in words {
        assert!(ended.err.contains(words), "{words:?} is not in {}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_may_not_send_is_found_before_any_pass() {
    let (office, relay) = mailing_office(2).await;
    let key = office.public_key.clone();
    let replies: Vec<_> = replies_to("MAIL FROM").chain(["553 5.7.1 not owned by user"]).collect();
    assert_eq!(replies.len(), 3);
    for reply in replies {
        relay.change(|manner| manner.faults = for_every_mail(Mishap::Mail(reply)));
        for command in ["check", "run"] {
            let ended = office.run(&[command, "wave.csv", "-r", &key, "--deliver"]).await.expect(5);
            says(&ended, &[reply, "[mail]"]);
        }
        assert_eq!(passes(&office), 0);
    }
    // What speaks of one mail's size, or passes by itself, is not the sender's matter.
    for reply in ["552 5.3.4 too large", "451 4.3.2 later"] {
        relay.change(|manner| manner.faults = for_every_mail(Mishap::Mail(reply)));
        office.run(&["check", "wave.csv", "-r", &key, "--deliver"]).await.expect(0);
    }
    relay.change(|manner| manner.faults.clear());
    office.run(&["run", "wave.csv", "-r", &key, "--deliver"]).await.expect(0);
    assert!(relay.seen().commands.iter().any(|word| word == "RSET"), "the trial was taken back");
    assert!(taken(&relay).len() == 2 && taken(&relay).values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_refused_at_data_ends_mail_at_the_first() {
    for reply in replies_to("DATA") {
        let (office, relay) = mailing_office(ROWS).await;
        relay.change(|manner| manner.faults = for_every_mail(Mishap::Data(reply)));
        let key = office.public_key.clone();
        let run = ["run", "wave.csv", "-r", &key, "--deliver"];
        let ended = office.run(&run).await.expect(5);
        says(&ended, &["mail stopped", "it@contoso.example", reply, "from in [mail]"]);
        assert_eq!(ended.err.matches(reply).count(), 1, "told once: {}", ended.err);
        let tried = relay.seen().commands.iter().filter(|word| *word == "DATA").count();
        assert!(tried <= 3, "{tried} mails tried over three connections");
        let sealed = count_state(&office.rows().await, "sealed") as u64;
        assert!(sealed == passes(&office) && sealed < ROWS, "{sealed} issued");
        relay.change(|manner| manner.faults.clear());
        office.run(&["resume", "latest", "-i", "key.txt"]).await.expect(0);
        let taken = taken(&relay);
        assert!(taken.len() as u64 == ROWS && taken.values().all(|times| *times == 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_is_switched_off_is_no_wrong_password() {
    let (office, relay) = mailing_office(1).await;
    let key = office.public_key.clone();
    let check = ["check", "wave.csv", "-r", &key, "--deliver"];
    for (denial, told, not_told) in [
        (SWITCHED_OFF.trim(), "SMTP AUTH is switched off", "check username and password"),
        (
            "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.",
            "check username and password",
            "switched off",
        ),
    ] {
        relay.change(|manner| {
            (manner.secret, manner.denial) = ("other".to_owned(), denial);
        });
        let ended = office.run(&check).await.expect(5);
        says(&ended, &[told, "535 5.7.139"]);
        assert!(!ended.err.contains(not_told), "{}", ended.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_reader_is_refused_for_ends_mail_after_eight() {
    for (reply, exit) in [("550 5.7.1 relaying denied", 5), ("550 5.1.1 user unknown", 7)] {
        let (office, relay) = mailing_office(ROWS).await;
        let key = office.public_key.clone();
        office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
        relay.change(|manner| manner.faults = for_every_mail(Mishap::Rcpt(reply)));
        let tried = || relay.seen().commands.iter().filter(|word| *word == "RCPT").count();
        let deliver = ["deliver", "latest", "-i", "key.txt"];
        let ended = office.run(&deliver).await.expect(exit);
        says(&ended, &["8 mails in a row were refused for the same reason", "--keep-going"]);
        assert_eq!(ended.err.matches(reply).count(), 1, "told once: {}", ended.err);
        assert!((EQUAL_REFUSALS..EQUAL_REFUSALS + 3).contains(&tried()), "{} tried", tried());

        let ended = office.run(&[&deliver[..], &["--keep-going"]].concat()).await.expect(7);
        assert_eq!(tried() as u64, ROWS);
        assert!(ended.err.matches(reply).count() > 8, "each is told: {}", ended.err);
        relay.change(|manner| manner.faults.clear());
        office.run(&[&deliver[..], &["--retry-refused"]].concat()).await.expect(0);
        let taken = taken(&relay);
        assert!(taken.len() as u64 == ROWS && taken.values().all(|times| *times == 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_are_refused_now_and_then_are_each_told() {
    let (office, relay) = mailing_office(ROWS).await;
    let key = office.public_key.clone();
    office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
    office.change_settings("max_connections = 3", "max_connections = 1");
    let no = Mishap::Rcpt("550 5.1.1 user unknown");
    let turn = |nth: u64| if nth.is_multiple_of(8) { Mishap::None } else { no };
    let faults: Vec<_> = (1..=ROWS).map(turn).collect();
    relay.change(|manner| manner.faults = faults.into());
    let ended = office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(7);
    assert_eq!(ended.err.matches("550 5.1.1").count() as u64, ROWS - ROWS / 8, "{}", ended.err);
    assert!(!ended.err.contains("mail stopped"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_lost_in_mid_run_stops_it_and_is_told_once() {
    let office = Office::open(ROWS, &wave(ROWS)).await;
    let key = office.public_key.clone();
    set(&office, Faults::default().with(Call::Issue, 1.0, Fault::Forbidden));
    let run = ["run", "wave.csv", "-r", &key, "--max-in-flight", "2"];
    let ended = office.run(&run).await.expect(5);
    says(&ended, &["8 rows in a row were refused", "a permission is missing", "--keep-going"]);
    assert_eq!(ended.err.matches("Request Authorization failed").count(), 1, "{}", ended.err);
    let asked = asked_for(&office);
    assert!(asked < EQUAL_REFUSALS as u64 + 6, "{asked} asked for");

    let resume = ["resume", "latest", "--max-in-flight", "2"];
    office.run(&resume).await.expect(5);
    assert!(asked_for(&office) < 2 * EQUAL_REFUSALS as u64 + 12, "{}", asked_for(&office));
    let before = asked_for(&office);
    let ended = office.run(&[&resume[..], &["--keep-going"]].concat()).await.expect(4);
    assert_eq!(asked_for(&office) - before, ROWS);
    assert_eq!(ended.err.matches("Request Authorization failed").count() as u64, ROWS);
    set(&office, Faults::default());
    office.run(&resume).await.expect(0);
    assert_eq!(passes(&office), ROWS);
}

/// What was sealed before is mailed to its end: nobody else could open it.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_switched_off_in_mid_run_stops_it_and_the_mails_go_out() {
    let (office, relay) = mailing_office(ROWS).await;
    let key = office.public_key.clone();
    office.tenant.hold(Call::Issue, 5);
    let run = ["run", "wave.csv", "-r", &key, "--deliver", "--max-in-flight", "2"];
    let mut command = office.command(&run);
    let running = command.stderr(std::process::Stdio::piped()).spawn().expect("a process");
    until("both answers are held", async || office.tenant.holding() == 2).await;
    office.tenant.with(|tenant, _| tenant.policy_mut().enabled = false);
    // No refusal is given before the passes asked for earlier are sealed: one that comes between
    // them would be told alone.
    office.tenant.hold(Call::Issue, 7);
    until("six are mailed", async || taken(&relay).len() == 6).await;
    office.tenant.let_go();
    let ended = tokio::task::spawn_blocking(move || running.wait_with_output());
    let output = ended.await.expect("a thread").expect("a process");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("8 rows in a row were refused"), "{err}");
    assert!(err.contains("tapwave policy show"), "{err}");
    assert_eq!(err.matches("does not allow creating").count(), 1, "{err}");
    let issued = passes(&office);
    assert!(issued > 3 && issued < ROWS / 2, "{issued} issued");
    assert_eq!(taken(&relay).len() as u64, issued, "each that was issued was mailed: {err}");
    office.tenant.with(|tenant, _| tenant.policy_mut().enabled = true);
    office.run(&["resume", "latest", "-i", "key.txt"]).await.expect(0);
    let taken = taken(&relay);
    assert!(
        taken.len() as u64 == ROWS && taken.values().all(|times| *times == 1),
        "{taken:?} of {err}"
    );
}

/// The filter's page with another status.
fn page(status: u16) -> Fault {
    let told: serde_json::Value = serde_json::from_str(PAGE).expect("JSON");
    Fault::Page { status, body: told["body"].as_str().expect("a page").to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_in_graphs_place_is_told_as_one_and_asked_once() {
    let office = Office::open(2, &wave(2)).await;
    let key = office.public_key.clone();
    for status in [200, 302, 401, 403, 404] {
        set(&office, Faults::default().with(None, 1.0, page(status)));
        let before = office.tenant.with(|tenant, _| tenant.tally().requests);
        let ended = office.run(&["check", "wave.csv", "-r", &key]).await.expect(5);
        says(&ended, &["a proxy may stand in between"]);
        let titled = ended.err.contains("Acme Proxy: sign in");
        assert!(titled || status == 302, "{}", ended.err);
        let asked = office.tenant.with(|tenant, _| tenant.tally().requests) - before;
        assert_eq!(asked, 1, "HTTP {status} was asked again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_names_where_it_leads() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let graph = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let answer = "HTTP/1.1 302 Found\r\nlocation: https://portal.contoso.example/login\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("written");
    });
    let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", TOKEN);
    let access = ["check", "--access", "--auth", "token", "--graph-url", &graph];
    program.run(&access).exits(5).says("a redirect to portal.contoso.example (HTTP 302)");
    asked.join().expect("asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_answer_to_a_post_settles_nothing() {
    for status in [200, 302, 400, 403, 404] {
        let office = Office::open(3, &wave(3)).await;
        let key = office.public_key.clone();
        set(&office, Faults::default().with(Call::Issue, 1.0, page(status)));
        let run = ["run", "wave.csv", "-r", &key, "--max-in-flight", "1", "--settle-after", "1s"];
        let ended = office.run(&run).await.expect(5);
        says(&ended, &["a proxy may stand in between", "carries on"]);
        assert_eq!(asked_for(&office), 1, "HTTP {status}: the next would be of unknown fate too");
        let rows = office.rows().await;
        assert_eq!(count_state(&rows, "unsettled"), 1, "HTTP {status}");
        assert_eq!(count_state(&rows, "failed"), 0, "HTTP {status}");
        set(&office, Faults::default());
        office.run(&["resume", "latest", "--settle-after", "1s"]).await.expect(0);
        assert_eq!(passes(&office), 3);
    }
}

/// Graph, the sign-in address and the relay, each under an authority that nobody here knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_is_told_alike_at_all_three() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates::certify(folder.path(), false);
    let tenant = Tenant::for_wave(["user1@contoso.example"], 7);
    let served = Served::open(tenant, 0, TOKEN, Some(tls)).await.expect("a port");
    let graph = served.url().replace("/v1.0", "");
    let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", TOKEN);
    let access = ["check", "--access", "--graph-url", &graph];
    let told = "is not trusted here: invalid peer certificate: UnknownIssuer; if something on the \
                way inspects TLS, name the PEM file of its authority with --ca-file";
    let ran = program.run(&[&access[..], &["--auth", "token"]].concat()).exits(5);
    ran.says(&format!("the certificate of Graph {told}"));

    let authority = Authority::open().await;
    let url = authority.url();
    let program = program.var("AZURE_CLIENT_SECRET", authority::SECRET);
    for auth in ["client-secret", "device-code"] {
        let (tenant, client) = (authority::TENANT, authority::CLIENT);
        let whom = ["--authority-url", &url, "--tenant", tenant, "--client-id", client];
        let ran = program.run(&[&access[..], &whom, &["--auth", auth]].concat()).exits(5);
        let ran = ran.says(&format!("the certificate of the sign-in address {told}"));
        assert!(!ran.err.contains("has expired"), "{ran:?}");
    }
    assert!(authority.asked().is_empty());

    let (office, relay) = mailing_office(1).await;
    let trusted = format!("ca_file = '{}'\n", relay.authority().display());
    office.change_settings(&trusted, "");
    let key = office.public_key.clone();
    let ended = office.run(&["check", "wave.csv", "-r", &key, "--deliver"]).await.expect(5);
    says(&ended, &[&format!("the certificate of the relay localhost {told}")]);
}

/// The same three behind a proxy that lets nobody through.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_says_no_is_told_alike_at_all_three() {
    for (refuses, told) in [
        ("407 No\r\nProxy-Authenticate: Basic realm=\"x\"", "asks for a sign-in (Basic)"),
        (
            "407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM",
            "asks for a sign-in with Negotiate, NTLM, and tapwave knows Basic alone",
        ),
        (
            "407 No\r\nProxy-Authenticate: Negotiate, Basic realm=\"a, b\", NTLM",
            "asks for a sign-in (Negotiate, Basic, NTLM)",
        ),
        ("403 Forbidden", "have it let that through"),
        ("511 Network Authentication Required", "sign in at its page"),
    ] {
        let proxy = Proxy::start(Ways { refuses: Some(refuses), ..Ways::default() }).await;
        let url = format!("http://ada:hunter2@127.0.0.1:{}", proxy.port);
        let behind = |program: Program| program.var("HTTPS_PROXY", &url).var("NO_PROXY", "");
        let named = format!("the proxy 127.0.0.1:{} answered {}", proxy.port, &refuses[..3]);
        let program = behind(Program::new().var("TAPWAVE_ACCESS_TOKEN", TOKEN));
        let access = ["check", "--access", "--graph-url", "https://graph.contoso.example"];
        let ran = program.run(&[&access[..], &["--auth", "token"]].concat()).exits(5);
        let ran = ran.says(&named).says("to a connection to graph.contoso.example:443").says(told);
        assert!(!ran.err.contains("hunter2"), "{ran:?}");
        assert_eq!(proxy.asked().len(), 1, "a no is final");

        let program = program.var("AZURE_CLIENT_SECRET", authority::SECRET);
        let whom = ["--tenant", "t", "--client-id", authority::CLIENT];
        for auth in ["client-secret", "device-code"] {
            let ran = program.run(&[&access[..], &whom, &["--auth", auth]].concat()).exits(5);
            ran.says(&named).says("to a connection to login.microsoftonline.com:443").says(told);
        }
        assert_eq!(proxy.asked().len(), 5, "each once by the library, and once for its words");

        let (office, relay) = mailing_office(1).await;
        let far = format!("host = \"{}\"", certificates::RELAY);
        office.change_settings("host = \"localhost\"", &far);
        let key = office.public_key.clone();
        let mut check = office.command(&["check", "wave.csv", "-r", &key, "--deliver"]);
        check.env("HTTPS_PROXY", &url).env("NO_PROXY", "");
        let ended = office.finish(check).await.expect(5);
        says(&ended, &[&named, told]);
        assert_eq!((proxy.asked().len(), relay.seen().connections), (6, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_graph_does_not_know_is_found_in_the_check() {
    let office = Office::open(1, &wave(1)).await;
    let settings = |from: &str| {
        office.settings(&format!("[mail]\ncourier = \"graph\"\nfrom = \"IT <{from}>\"\n"));
    };
    let key = office.public_key.clone();
    settings("usre1@contoso.example");
    for command in ["check", "run"] {
        let ended = office.run(&[command, "wave.csv", "-r", &key, "--deliver"]).await.expect(5);
        says(&ended, &["no mailbox of the tenant is usre1@contoso.example", "from in [mail]"]);
    }
    assert_eq!(passes(&office), 0);
    settings("user1@contoso.example");
    office.run(&["run", "wave.csv", "-r", &key, "--deliver"]).await.expect(0);
}

/// What a portal says in Graph's place, in whatever form.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_known_by_its_kind_too() {
    let utf16: Vec<u8> =
        "<html><title>Portal</title>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16 = [&b"\xff\xfe"[..], &utf16].concat();
    let page = "Graph answered with a web page";
    let packed = "something packed that nobody asked for";
    let proxy = "a proxy answered 407 to a connection to Graph: it asks for a sign-in (Basic)";
    for (head, body, told) in [
        ("200 OK\r\ncontent-type: text/html; charset=utf-8", b"Please sign in".to_vec(), page),
        ("403 No\r\ncontent-type: TEXT/HTML", Vec::new(), page),
        ("400 No\r\ncontent-type: application/xhtml+xml", b"x".to_vec(), page),
        ("200 OK", utf16, page),
        ("403 No\r\ncontent-encoding: gzip", b"\x1f\x8b\x08rest".to_vec(), packed),
        ("407 No\r\nproxy-authenticate: Basic", Vec::new(), proxy),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let graph = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let _ = stream.write_all(&[answer.as_bytes(), &body].concat());
            }
        });
        let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", TOKEN);
        let access = ["check", "--access", "--auth", "token", "--graph-url", &graph];
        let ran = program.run(&access).exits(5);
        ran.says(told);
    }
}

/// A proxy that has too much to do is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_busy_is_no_refusal() {
    let refuses = Some("429 Too Many Requests");
    let proxy = Proxy::start(Ways { refuses, ..Ways::default() }).await;
    let (office, _relay) = mailing_office(1).await;
    let far = format!("host = \"{}\"", certificates::RELAY);
    office.change_settings("host = \"localhost\"", &far);
    let key = office.public_key.clone();
    let mut check = office.command(&["check", "wave.csv", "-r", &key, "--deliver"]);
    check.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", proxy.port)).env("NO_PROXY", "");
    let ended = office.finish(check).await;
    says(&ended, &["answered 429"]);
    assert!(!ended.err.contains("have it let that through"), "{}", ended.err);
}

/// A listener that says this to everybody, and the same again to whatever it is asked.
fn speaks(words: &'static str, then: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // Whoever called may have gone.
            let _ = stream.write_all(words.as_bytes());
            std::thread::spawn(move || {
                let Ok(heard) = stream.try_clone() else { return };
                for _ in BufReader::new(heard).lines() {
                    if stream.write_all(then.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A web page in the relay's place, or a relay that does not take this machine.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_relays_place_is_told_in_check_and_deliver() {
    const PAGE: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html><title>Portal</title></html>\r\n";
    let page = "a web server";
    let us = "does not take this machine";
    for (words, then, told) in [
        (PAGE, "", page),
        ("<html>\r\n<title>Portal</title>\r\n", "", page),
        ("554 5.7.1 no mail from you\r\n", "", us),
        ("550 go away\r\n", "", us),
        ("220 relay\r\n", "550 5.7.1 no mail from you\r\n", us),
    ] {
        let (office, relay) = mailing_office(1).await;
        let key = office.public_key.clone();
        office.run(&["run", "wave.csv", "-r", &key]).await.expect(0);
        let port = format!("port = {}", speaks(words, then));
        let was = format!("port = {}", relay.port);
        office.change_settings(&was, &port);
        let check = ["check", "wave.csv", "-r", &key, "--deliver", "--existing", "skip"];
        let ended = office.run(&check).await.expect(5);
        says(&ended, &[told]);
        let ended = office.run(&["deliver", "latest", "-i", "key.txt"]).await.expect(5);
        says(&ended, &[told]);
    }
}
