//! Holds what the SMTP courier says against what a relay saw: under every fault a mail is
//! reported as taken, not sent, refused or unsettled, and the relay's own list agrees.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::certificates::RELAY;
use crate::support::letters::{CODE, coded, letter, mail_to, post};
use crate::support::proxy::{Proxy, Ways};
use crate::support::python::read_by_python;
use crate::support::smtp::{Fault, Manner, Relay};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::{BoxFuture, join_all};
use secrecy::SecretString;
use tapwave_core::clock::Clock;
use tapwave_core::effect::Effect;
use tapwave_graph::http::Network;
use tapwave_graph::limiter::Budget;
use tapwave_mail::template::{Form, LetterContent, Mail, Mailbox};
use tapwave_mail::transport::MailTransport;
use tapwave_mail::transport::secret::{Credentials, NoSecret};
use tapwave_mail::transport::settings::MailSettings;
use tapwave_mail::transport::smtp::{Smtp, Timeouts};

/// A line of settings that says what it does not say.
const ANONYMOUS: &str = "# nobody signs in";

/// Gives a secret that tests can change, and counts the askings.
struct Changing {
    secret: Mutex<String>,
    asked: AtomicUsize,
}

impl Changing {
    fn new(secret: &str) -> Arc<Self> {
        Arc::new(Self { secret: Mutex::new(secret.to_owned()), asked: AtomicUsize::new(0) })
    }
}

impl Credentials for Changing {
    fn secret(&self) -> BoxFuture<'_, Result<SecretString, NoSecret>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let secret = SecretString::from(self.secret.lock().expect("no test panics here").clone());
        Box::pin(std::future::ready(Ok(secret)))
    }
}

fn waits() -> Timeouts {
    // A bound for what hangs, far beyond what a busy machine needs.
    let soon = Duration::from_mins(1);
    Timeouts { connect: soon, answer: soon, last_answer: soon }
}

/// A courier to the relay, with `more` lines of settings.
fn courier_with(
    relay: &Relay,
    more: &str,
    secret: Arc<Changing>,
    waits: Timeouts,
) -> MailTransport {
    courier_over(relay, more, secret, waits, Network::default())
}

/// The same, over whatever leads there.
fn courier_over(
    relay: &Relay,
    more: &str,
    secret: Arc<Changing>,
    waits: Timeouts,
    network: Network,
) -> MailTransport {
    let host = if more.contains("host = ") { "" } else { "host = \"localhost\"" };
    let signing_in = "username = \"user\"\npassword_env = \"P\"";
    let settings = format!(
        "courier = \"smtp\"\nfrom = \"IT <it@contoso.example>\"\n{host}\n\
         port = {}\nmax_per_minute = 60000\n{more}\n{}",
        relay.port,
        if more.contains(ANONYMOUS) { "" } else { signing_in }
    );
    let settings: MailSettings = toml::from_str(&settings).expect("settings");
    let plan = settings.validate().expect("a plan");
    let network = Network { ca_file: Some(relay.authority()), ..network };
    let smtp = Smtp::new(&plan, Some(secret), &network, waits, Clock::system());
    MailTransport::Smtp(Box::new(smtp.unwrap_or_else(|error| panic!("{error}"))))
}

fn courier(relay: &Relay) -> MailTransport {
    courier_with(relay, "", Changing::new("right"), waits())
}

fn mail() -> Mail {
    coded("Ada", "ada@personal.example", Form::Mime)
}

/// A mail too large for any socket's buffers.
fn large_mail() -> Mail {
    let file = vec![b'x'; 24 * 1024 * 1024];
    let to = "ada@personal.example".parse().expect("a mailbox");
    mail_to(&letter(&LetterContent::Sealed(&file), "Ada"), &to, Form::Mime)
}

async fn relay_with(faults: &[Fault]) -> Relay {
    Relay::start(Manner { faults: faults.iter().copied().collect(), ..Manner::default() }).await
}

fn accepted(sent: &Effect<String>) -> bool {
    matches!(sent, Effect::Done(receipt) if receipt.starts_with("250 2.0.0 Ok: queued as"))
}

fn denied(sent: &Effect<String>, says: &str) -> bool {
    matches!(sent, Effect::NoEffect(no) if no.bars_us() && no.why.contains(says))
}

fn not_sent(sent: &Effect<String>, again: bool, says: &str) -> bool {
    matches!(sent, Effect::NoEffect(no) if no.may_pass() == again && no.why.contains(says))
}

#[tokio::test]
async fn a_mail_arrives_byte_for_byte_over_a_line_that_is_kept() {
    let relay = relay_with(&[]).await;
    let courier = courier(&relay);
    let mails = [mail(), mail(), mail()];
    for mail in &mails {
        let sent = post(&courier, mail).await;
        assert!(accepted(&sent), "{sent:?}");
    }
    let seen = relay.seen();
    assert_eq!((seen.taken.len(), seen.connections), (3, 1));
    for (taken, mail) in seen.taken.iter().zip(&mails) {
        assert!(taken.encrypted);
        assert_eq!(taken.from, "MAIL FROM:<it@contoso.example>");
        assert_eq!(taken.to, ["RCPT TO:<ada@personal.example>"]);
        assert!(taken.bytes == mail.bytes());
    }
}

#[tokio::test]
async fn every_way_to_sign_in_and_to_protect_the_line_works() {
    for (implicit, auth) in
        [(false, "plain"), (false, "login"), (false, "xoauth2"), (true, "plain")]
    {
        let mechanisms = ["PLAIN", "LOGIN", "XOAUTH2"];
        let only = mechanisms.iter().find(|one| one.eq_ignore_ascii_case(auth)).expect("one");
        let relay = Relay::start(Manner { implicit, mechanisms: only, ..Manner::default() }).await;
        let tls = if implicit { "implicit" } else { "starttls" };
        let more = format!("tls = \"{tls}\"\nauth = \"{auth}\"");
        let courier = courier_with(&relay, &more, Changing::new("right"), waits());
        let sent = post(&courier, &mail()).await;
        assert!(accepted(&sent), "{tls} {auth}: {sent:?}");
        assert!(relay.seen().taken[0].encrypted);
        courier.close().await;
        assert_eq!(relay.seen().commands.last().map(String::as_str), Some("QUIT"));
    }
    // Without `auth`, whichever the relay has.
    let relay = Relay::start(Manner { mechanisms: "LOGIN", ..Manner::default() }).await;
    assert!(accepted(&post(&courier(&relay), &mail()).await));
    // To this machine alone, without TLS.
    let manner = Manner { starttls: false, mechanisms: "", ..Manner::default() };
    let relay = Relay::start(manner).await;
    let more = format!("tls = \"none\"\n{ANONYMOUS}");
    let courier = courier_with(&relay, &more, Changing::new("right"), waits());
    assert!(accepted(&post(&courier, &mail()).await));
}

#[tokio::test]
async fn a_relay_whose_starttls_was_stripped_gets_nothing() {
    let relay = Relay::start(Manner { starttls: false, ..Manner::default() }).await;
    let sent = post(&courier(&relay), &mail()).await;
    assert!(not_sent(&sent, false, "does not offer STARTTLS"), "{sent:?}");
    let seen = relay.seen();
    assert!(!seen.commands.iter().any(|word| ["AUTH", "MAIL"].contains(&word.as_str())));
}

#[tokio::test]
async fn answers_injected_before_tls_are_found_out() {
    for (injected, signs_in) in [
        ("250 injected\r\n", true),
        ("250-injected\r\n250 AUTH PLAIN\r\n", true),
        ("250 injected\r\n", false),
    ] {
        let mechanisms = if signs_in { "PLAIN" } else { "" };
        let relay = Relay::start(Manner { injected, mechanisms, ..Manner::default() }).await;
        let more = if signs_in { "" } else { ANONYMOUS };
        let courier = courier_with(&relay, more, Changing::new("right"), waits());
        let sent = post(&courier, &mail()).await;
        assert!(not_sent(&sent, false, "before TLS began"), "{sent:?}");
        let seen = relay.seen();
        // Not even the password went over the line.
        assert!(!seen.commands.iter().any(|word| ["AUTH", "MAIL"].contains(&word.as_str())));
    }
}

#[tokio::test]
async fn a_relay_of_another_authority_gets_nothing() {
    let (relay, other) = (relay_with(&[]).await, relay_with(&[]).await);
    let settings = format!(
        "courier = \"smtp\"\nfrom = \"it@c.example\"\nhost = \"localhost\"\nport = {}",
        relay.port
    );
    let plan = toml::from_str::<MailSettings>(&settings).unwrap().validate().unwrap();
    let network = Network { ca_file: Some(other.authority()), ..Network::default() };
    let smtp = Smtp::new(&plan, None, &network, waits(), Clock::system());
    let sent = post(
        &MailTransport::Smtp(Box::new(smtp.unwrap_or_else(|error| panic!("{error}")))),
        &mail(),
    )
    .await;
    assert!(denied(&sent, "certificate"), "{sent:?}");
    assert!(!relay.seen().commands.iter().any(|word| word == "MAIL"));
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_demanded() {
    let relay = Relay::start(Manner { client_certificate: true, ..Manner::default() }).await;
    let sent = post(&courier(&relay), &mail()).await;
    assert!(denied(&sent, "client_certificate"), "{sent:?}");
    let more = format!("client_certificate = {:?}", relay.client());
    let sent = post(&courier_with(&relay, &more, Changing::new("right"), waits()), &mail()).await;
    assert!(accepted(&sent), "{sent:?}");
}

#[tokio::test]
async fn a_line_that_nobody_needed_for_long_is_ended_with_a_word() {
    let relay = relay_with(&[]).await;
    let courier = courier(&relay);
    for _ in 0..2 {
        assert!(accepted(&post(&courier, &mail()).await));
        tokio::time::pause();
        tokio::time::advance(tapwave_core::limits::SMTP_IDLE).await;
        tokio::time::resume();
    }
    assert_eq!(relay.seen().connections, 2);
    assert_eq!(relay.seen().commands.iter().filter(|word| *word == "QUIT").count(), 1);
}

#[tokio::test]
async fn this_machine_introduces_itself_by_its_address_or_as_told() {
    for (more, said) in
        [("", "[127.0.0.1]"), ("hello = \"wave.contoso.example\"", "wave.contoso.example")]
    {
        let relay = relay_with(&[]).await;
        let courier = courier_with(&relay, more, Changing::new("right"), waits());
        assert!(accepted(&post(&courier, &mail()).await));
        // In the clear, and once more over TLS.
        assert_eq!(relay.seen().hellos, [said, said]);
    }
}

#[tokio::test]
async fn an_address_of_another_script_goes_where_it_is_taken() {
    let jorg = coded("Jörg", "jörg@bücher.example", Form::Mime);
    let relay = Relay::start(Manner { offers: "SMTPUTF8", ..Manner::default() }).await;
    let line = courier(&relay);
    assert!(accepted(&post(&line, &jorg).await));
    assert!(accepted(&post(&line, &mail()).await));
    {
        let seen = relay.seen();
        assert_eq!(seen.taken[0].from, "MAIL FROM:<it@contoso.example> BODY=8BITMIME SMTPUTF8");
        assert_eq!(seen.taken[0].to, ["RCPT TO:<jörg@xn--bcher-kva.example>"]);
        assert_eq!(seen.taken[1].from, "MAIL FROM:<it@contoso.example>", "only where it is needed");
        assert!(seen.taken[1].bytes.is_ascii());
    }
    let bytes = relay.seen().taken[0].bytes.clone();
    if let Some(read) = read_by_python(&bytes) {
        assert_eq!(read["to"], serde_json::json!([["Jörg", "jörg@xn--bcher-kva.example"]]));
    }
    // A relay without it gets nothing of that mail, and all of the next.
    let relay = relay_with(&[]).await;
    let line = courier(&relay);
    let sent = post(&line, &jorg).await;
    assert!(matches!(&sent, Effect::Refused(why) if why.contains("lacks SMTPUTF8")), "{sent:?}");
    assert!(!relay.seen().commands.iter().any(|word| word == "MAIL"));
    assert!(accepted(&post(&line, &mail()).await));
    // The domain alone is everybody's business.
    let bucher = coded("Bü", "ada@bücher.example", Form::Mime);
    assert!(accepted(&post(&line, &bucher).await));
    assert_eq!(relay.seen().connections, 1);
}

/// A courier to the relay by the name that only a proxy can find.
fn led_by(relay: &Relay, url: String, no_proxy: Option<&str>, more: &str) -> MailTransport {
    let more = format!("host = \"{RELAY}\"\n{more}");
    let network =
        Network { proxy: Some(url), no_proxy: no_proxy.map(ToOwned::to_owned), ca_file: None };
    courier_over(relay, &more, Changing::new("right"), waits(), network)
}

#[tokio::test]
async fn a_proxy_leads_to_the_relay_and_reads_nothing() {
    for (implicit, together, secured) in
        [(false, false, false), (false, true, false), (true, false, false), (false, true, true)]
    {
        let relay = Relay::start(Manner { implicit, ..Manner::default() }).await;
        let tls = secured.then(|| relay.tls());
        let proxy =
            Proxy::start(Ways { target: relay.port, together, tls, ..Ways::default() }).await;
        let scheme = if secured { "https" } else { "http" };
        let url = format!("{scheme}://ada:p%40ss@localhost:{}", proxy.port);
        let more = if implicit { "tls = \"implicit\"" } else { "" };
        let courier = led_by(&relay, url, None, more);
        for _ in 0..2 {
            let sent = post(&courier, &mail()).await;
            assert!(accepted(&sent), "{sent:?}");
        }
        assert!(relay.seen().taken.iter().all(|mail| mail.encrypted));
        let asked = proxy.asked();
        let [head] = &asked[..] else { panic!("one tunnel, not {asked:?}") };
        let place = format!("{RELAY}:{}", relay.port);
        assert!(
            head.starts_with(&format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n")),
            "{head}"
        );
        let login = STANDARD.encode("ada:p@ss");
        assert!(head.contains(&format!("\r\nProxy-Authorization: Basic {login}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn a_proxy_cannot_pass_another_host_off_as_the_relay() {
    let relay = relay_with(&[]).await;
    let proxy = Proxy::start(Ways { target: relay.port, ..Ways::default() }).await;
    let network =
        Network { proxy: Some(format!("http://127.0.0.1:{}", proxy.port)), ..Network::default() };
    let more = "host = \"mail.contoso.example\"";
    let courier = courier_over(&relay, more, Changing::new("right"), waits(), network);
    let sent = post(&courier, &mail()).await;
    assert!(denied(&sent, "certificate"), "{sent:?}");
    assert_eq!(proxy.asked().len(), 1);
    assert!(!relay.seen().commands.iter().any(|word| ["AUTH", "MAIL"].contains(&word.as_str())));
}

#[tokio::test]
async fn a_proxy_that_says_no_is_named_and_nothing_was_sent() {
    for (answer, again) in [
        ("403 Forbidden", Some(false)),
        ("407 Proxy Authentication Required", None),
        ("502 Bad Gateway", Some(true)),
    ] {
        let relay = relay_with(&[]).await;
        let ways = Ways { target: relay.port, refuses: Some(answer), ..Ways::default() };
        let proxy = Proxy::start(ways).await;
        let url = format!("http://ada:hunter2@127.0.0.1:{}", proxy.port);
        let sent = post(&led_by(&relay, url, None, ""), &mail()).await;
        let says = format!("proxy 127.0.0.1:{} answered {}", proxy.port, &answer[..3]);
        match again {
            Some(again) => assert!(not_sent(&sent, again, &says), "{sent:?}"),
            None => assert!(denied(&sent, &says), "{sent:?}"),
        }
        assert!(!format!("{sent:?}").contains("hunter2"));
        assert_eq!(relay.seen().connections, 0);
    }
    // A relay is no proxy, and is found out before the password.
    let relay = relay_with(&[]).await;
    let url = format!("http://127.0.0.1:{}", relay.port);
    let sent = post(&led_by(&relay, url, None, ""), &mail()).await;
    assert!(not_sent(&sent, false, "does not answer as an HTTP proxy does"), "{sent:?}");
}

#[tokio::test]
async fn no_proxy_is_asked_for_this_machine_or_a_relay_that_is_exempt() {
    let relay = relay_with(&[]).await;
    let proxy = Proxy::start(Ways { target: relay.port, ..Ways::default() }).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let network = Network { proxy: Some(url.clone()), ..Network::default() };
    let near = courier_over(&relay, "", Changing::new("right"), waits(), network);
    assert!(accepted(&post(&near, &mail()).await));
    let sent = post(&led_by(&relay, url, Some("contoso.example"), ""), &mail()).await;
    assert!(not_sent(&sent, true, &format!("the relay {RELAY} cannot be reached")), "{sent:?}");
    assert_eq!(*proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_before_anything() {
    for url in ["socks5://ada:hunter2@127.0.0.1:1080", "ftp://proxy.contoso.example", "::"] {
        let plan = "courier = \"smtp\"\nfrom = \"it@c.example\"\nhost = \"relay.contoso.example\"";
        let plan = toml::from_str::<MailSettings>(plan).unwrap().validate().unwrap();
        let network = Network { proxy: Some(url.to_owned()), ..Network::default() };
        let built = Smtp::new(&plan, None, &network, waits(), Clock::system());
        let told = built.err().expect(url).to_string();
        assert!(told.contains("http or https") && !told.contains("hunter2"), "{told}");
    }
}

#[tokio::test]
async fn a_wrong_password_concerns_every_mail_and_is_not_tried_again() {
    for mechanism in ["plain", "login", "xoauth2"] {
        let relay = relay_with(&[]).await;
        let more = format!("auth = \"{mechanism}\"");
        let secret = Changing::new("S3cret-wrong");
        let sent = post(&courier_with(&relay, &more, secret, waits()), &mail()).await;
        assert!(denied(&sent, "535"), "{sent:?}");
        assert!(denied(&sent, "check username and password"), "{sent:?}");
        assert!(!format!("{sent:?}").contains("S3cret"));
        assert!(relay.seen().taken.is_empty());
    }
    let relay = Relay::start(Manner { mechanisms: "PLAIN", ..Manner::default() }).await;
    let courier = courier_with(&relay, "auth = \"xoauth2\"", Changing::new("right"), waits());
    let sent = post(&courier, &mail()).await;
    assert!(not_sent(&sent, false, "does not offer the way to sign in"), "{sent:?}");
}

#[tokio::test]
async fn a_token_is_asked_for_at_each_new_connection() {
    let relay = relay_with(&[Fault::CutAfterAnswer]).await;
    let secret = Changing::new("right");
    let courier = courier_with(&relay, "auth = \"xoauth2\"", Arc::clone(&secret), waits());
    assert!(accepted(&post(&courier, &mail()).await));
    relay.change(|manner| manner.secret = "renewed".to_owned());
    *secret.secret.lock().unwrap() = "renewed".to_owned();
    // The kept line has ended; that is no fault of the mail's.
    let sent = post(&courier, &mail()).await;
    assert!(accepted(&sent), "{sent:?}");
    assert_eq!(secret.asked.load(Ordering::Relaxed), 2);
    assert_eq!(relay.seen().taken.len(), 2);
}

#[tokio::test]
async fn an_answer_of_no_is_told_apart_by_its_first_digit() {
    for (fault, again) in [
        (Fault::Mail("451 4.3.0 later"), Some(true)),
        (Fault::Mail("552 5.3.4 too large"), None),
        (Fault::Rcpt("450 4.2.0 greylisted"), Some(true)),
        (Fault::Rcpt("550 5.1.1 nobody"), None),
        (Fault::Data("452 4.3.1 full"), Some(true)),
        (Fault::Data("554 5.5.1 no"), None),
        (Fault::Dot("451 4.7.1 later"), Some(true)),
        (Fault::Dot("550 5.7.1 spam"), None),
    ] {
        let relay = relay_with(&[fault]).await;
        let courier = courier(&relay);
        let sent = post(&courier, &mail()).await;
        match again {
            Some(again) => assert!(not_sent(&sent, again, "4"), "{fault:?}: {sent:?}"),
            None => assert!(
                matches!(&sent, Effect::Refused(why) if why.starts_with("55")),
                "{fault:?}: {sent:?}"
            ),
        }
        assert!(relay.seen().taken.is_empty(), "{fault:?}");
        // The line is as good as before.
        let sent = post(&courier, &mail()).await;
        assert!(accepted(&sent), "{fault:?}: {sent:?}");
        assert_eq!(relay.seen().connections, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_line_cut_before_the_dot_means_not_sent() {
    for fault in [Fault::CutAtMail, Fault::CutAtData] {
        let relay = relay_with(&[fault]).await;
        let sent = post(&courier(&relay), &mail()).await;
        assert!(not_sent(&sent, true, ""), "{fault:?}: {sent:?}");
        assert!(relay.seen().taken.is_empty());
    }
    let relay = relay_with(&[Fault::CutInText]).await;
    let sent = post(&courier(&relay), &large_mail()).await;
    assert!(not_sent(&sent, true, ""), "{sent:?}");
    assert!(relay.seen().taken.is_empty());
}

#[tokio::test]
async fn a_line_cut_or_silent_after_the_dot_means_unsettled() {
    // Only the answer that never comes is not waited for.
    let short = Timeouts { last_answer: Duration::from_millis(300), ..waits() };
    for fault in [Fault::CutAfterDot, Fault::SilentAfterDot] {
        let relay = relay_with(&[fault]).await;
        let courier = courier_with(&relay, "", Changing::new("right"), short);
        let mail = mail();
        let sent = post(&courier, &mail).await;
        assert!(matches!(sent, Effect::Unsettled { .. }), "{fault:?}: {sent:?}");
        // It was taken, and nothing was sent a second time.
        assert_eq!(relay.seen().taken.len(), 1, "{fault:?}");
        // Asked for, the identical bytes go again.
        let courier = courier_with(&relay, "", Changing::new("right"), waits());
        let sent = post(&courier, &mail).await;
        assert!(accepted(&sent), "{sent:?}");
        let seen = relay.seen();
        assert_eq!(seen.taken[0].bytes, seen.taken[1].bytes);
    }
}

#[tokio::test]
async fn a_small_text_cut_short_is_never_reported_as_taken() {
    let relay = relay_with(&[Fault::CutInText]).await;
    let sent = post(&courier(&relay), &mail()).await;
    // The dot was written into a line that nobody read any more: that cannot be known here.
    let repeatable = matches!(&sent, Effect::NoEffect(no) if no.may_pass());
    assert!(repeatable || matches!(sent, Effect::Unsettled { .. }), "{sent:?}");
    assert!(relay.seen().taken.is_empty());
}

#[tokio::test]
async fn nobody_at_the_port_means_not_sent() {
    let mut relay = relay_with(&[]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    relay.port = port;
    let sent = post(&courier(&relay), &mail()).await;
    assert!(not_sent(&sent, true, ""), "{sent:?}");
}

#[tokio::test]
async fn many_senders_share_three_connections() {
    let relay = relay_with(&[]).await;
    let courier = courier_with(&relay, "max_connections = 3", Changing::new("right"), waits());
    let mails: Vec<Mail> = (0..30).map(|_| mail()).collect();
    let sent = join_all(mails.iter().map(|mail| post(&courier, mail))).await;
    assert!(sent.iter().all(accepted), "{sent:?}");
    let seen = relay.seen();
    assert_eq!(seen.taken.len(), 30);
    assert!(seen.most <= 3 && seen.connections <= 3, "{} of {}", seen.most, seen.connections);
}

#[tokio::test]
async fn a_relay_with_fewer_places_turns_mails_away_without_loss() {
    let manner = Manner { connections: 1, ..Manner::default() };
    let relay = Relay::start(manner).await;
    let courier = courier_with(&relay, "max_connections = 2", Changing::new("right"), waits());
    let (one, two) = (mail(), mail());
    let (one, two) = tokio::join!(post(&courier, &one), post(&courier, &two));
    let turned = [&one, &two].into_iter().filter(|sent| not_sent(sent, true, "421")).count();
    let taken = [&one, &two].into_iter().filter(|sent| accepted(sent)).count();
    assert_eq!((turned, taken), (1, 1), "{one:?} {two:?}");
    assert_eq!(relay.seen().taken.len(), 1);
}

#[tokio::test]
async fn a_relay_that_asks_for_less_is_given_less() {
    for answer in ["450 4.7.1 Error: too much mail", "421 4.7.0 try later"] {
        let relay = relay_with(&[Fault::Mail(answer)]).await;
        let courier = courier(&relay);
        let sent = post(&courier, &mail()).await;
        assert!(not_sent(&sent, true, answer.split_once(' ').unwrap().0), "{sent:?}");
        let mail = courier.pace().snapshot(Budget::Mail);
        assert_eq!(mail.refused, 1);
        assert!(mail.holding_until.is_some());
    }
    // One full mailbox is nobody else's business.
    let relay = relay_with(&[Fault::Rcpt("452 4.2.2 mailbox full")]).await;
    let courier = courier(&relay);
    assert!(not_sent(&post(&courier, &mail()).await, true, "452"));
    assert_eq!(courier.pace().snapshot(Budget::Mail).holding_until, None);
}

#[tokio::test]
async fn another_implementation_reads_what_was_delivered() {
    let relay = relay_with(&[]).await;
    let courier = courier(&relay);
    let names = [
        "Ada Lovelace",
        "\"Lovelace, Ada\" (she); <x@y.example>",
        "Ada\r\nBcc: evil@x.example\0",
        "Ädä Löveläce-Çelik 🎉👩‍💻",
        "شهرزاد \u{202e}עדה",
        "名前 with a very long tail that has to be folded over more than one line of the header",
        ".\r\n.",
    ];
    for name in names {
        let sent = post(&courier, &coded(name, "ada@personal.example", Form::Mime)).await;
        assert!(accepted(&sent), "{name:?}: {sent:?}");
    }
    let taken: Vec<Vec<u8>> = relay.seen().taken.iter().map(|one| one.bytes.clone()).collect();
    for (name, bytes) in names.into_iter().zip(taken) {
        let Some(read) = read_by_python(&bytes) else { return };
        let shown = Mailbox::new(name, "ada@personal.example").expect("a mailbox");
        assert_eq!(read["defects"], serde_json::json!([]), "{name:?}");
        assert_eq!(read["to"], serde_json::json!([[shown.name(), "ada@personal.example"]]));
        assert_eq!(read["from"], serde_json::json!([["IT Onboarding", "it@contoso.example"]]));
        assert_eq!(read["auto"], "auto-generated");
        assert_eq!(read["date"], "2026-03-02T07:55:00+00:00");
        assert_eq!(read["others"], serde_json::json!([]), "{name:?}");
        let subject = read["subject"].as_str().expect("a subject");
        assert_eq!(subject, format!("Befristeter Zugriffspass für {}", shown.name().unwrap()));
        let parts = read["parts"].as_array().expect("parts");
        let kinds: Vec<_> = parts.iter().map(|part| part["kind"].clone()).collect();
        assert_eq!(kinds, ["text/plain", "text/html"]);
        assert!(parts.iter().all(|part| part["charset"] == "utf-8"));
        let (text, html) = (parts[0]["text"].as_str().unwrap(), parts[1]["text"].as_str().unwrap());
        assert!(text.lines().any(|line| line.trim() == CODE), "{text}");
        assert!(html.contains("+drk=zq.AD&lt;&amp;&gt;"), "{html}");
        assert!(text.contains("Montag, 2. März 2026, 09:00 Uhr"), "{text}");
    }
}

#[tokio::test]
async fn an_attached_age_file_comes_out_as_it_went_in() {
    let relay = relay_with(&[]).await;
    let file: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let to = "ada@personal.example".parse().expect("a mailbox");
    let mail = mail_to(&letter(&LetterContent::Sealed(&file), "Ada"), &to, Form::Mime);
    assert!(accepted(&post(&courier(&relay), &mail).await));
    let bytes = relay.seen().taken[0].bytes.clone();
    let Some(read) = read_by_python(&bytes) else { return };
    let attached = &read["parts"][2];
    assert_eq!(attached["kind"], "application/octet-stream");
    assert_eq!(attached["name"], "ada_contoso.example.age");
    assert_eq!(attached["base64"], STANDARD.encode(file));
}

/// Sends until the relay has said yes or nobody knows. Both at most once.
async fn insist(courier: &MailTransport, mail: &Mail) -> Effect<String> {
    loop {
        match post(courier, mail).await {
            Effect::NoEffect(no) if no.may_pass() => {}
            settled => return settled,
        }
    }
}

#[tokio::test]
async fn two_thousand_mails_under_every_fault_are_neither_doubled_nor_lost() {
    let faults = [
        Fault::Mail("451 4.3.0 later"),
        Fault::Rcpt("450 4.2.0 greylisted"),
        Fault::Data("452 4.3.1 full"),
        Fault::Dot("451 4.3.0 later"),
        Fault::Dot("550 5.7.1 spam"),
        Fault::CutAtMail,
        Fault::CutAtData,
        Fault::CutAfterDot,
        Fault::CutAfterAnswer,
    ];
    let calm = [Fault::None; 7];
    let row: Vec<Fault> =
        faults.iter().flat_map(|fault| [*fault].into_iter().chain(calm)).collect();
    let relay = relay_with(&row.repeat(40)).await;
    let courier = courier(&relay);
    let pass = serde_json::from_value(CODE.into()).expect("a pass");
    let letter = letter(&LetterContent::Pass(&pass), "Ada");
    let to = |row: usize| format!("row{row}@personal.example").parse().expect("a mailbox");
    let mails: Vec<Mail> = (0..2_000).map(|row| mail_to(&letter, &to(row), Form::Mime)).collect();
    let outcomes = join_all(mails.iter().map(|mail| insist(&courier, mail))).await;
    let seen = relay.seen();
    let mut taken = vec![0; mails.len()];
    for one in &seen.taken {
        let row = one.to[0].trim_start_matches("RCPT TO:<row").split('@').next().expect("a row");
        taken[row.parse::<usize>().expect("a number")] += 1;
    }
    let (mut unsettled, mut refused) = (0, 0);
    for (outcome, taken) in outcomes.iter().zip(taken) {
        match outcome {
            Effect::Done(_) => assert_eq!(taken, 1),
            // Taken or not, but never twice.
            Effect::Unsettled { .. } => {
                unsettled += 1;
                assert!(taken <= 1);
            }
            Effect::Refused(_) => {
                refused += 1;
                assert_eq!(taken, 0);
            }
            Effect::NoEffect(_) => panic!("{outcome:?}"),
        }
    }
    assert!(unsettled > 20 && refused > 20, "{unsettled} {refused}");
    assert!(seen.most <= 3, "{}", seen.most);
}
