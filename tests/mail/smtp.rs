//! Compares what the SMTP transport reports with what a relay saw: under every fault a mail is
//! reported as accepted, not sent, refused or unsettled, and the relay's own list agrees.

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

/// Marks settings without a sign-in.
const ANONYMOUS: &str = "# nobody signs in";

/// A secret that tests can change, with a count of the requests for it.
struct ChangingSecret {
    secret: Mutex<String>,
    asked: AtomicUsize,
}

impl ChangingSecret {
    fn new(secret: &str) -> Arc<Self> {
        Arc::new(Self { secret: Mutex::new(secret.to_owned()), asked: AtomicUsize::new(0) })
    }
}

impl Credentials for ChangingSecret {
    fn secret(&self) -> BoxFuture<'_, Result<SecretString, NoSecret>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let secret = SecretString::from(self.secret.lock().expect("no test panics here").clone());
        Box::pin(std::future::ready(Ok(secret)))
    }
}

fn timeouts() -> Timeouts {
    // Far longer than a busy machine needs.
    let minute = Duration::from_mins(1);
    Timeouts { connect: minute, answer: minute, last_answer: minute }
}

/// A transport to the relay, with `more` lines of settings.
fn transport_with(
    relay: &Relay,
    more: &str,
    secret: Arc<ChangingSecret>,
    timeouts: Timeouts,
) -> MailTransport {
    transport_over(relay, more, secret, timeouts, Network::default())
}

/// The same, over this network.
fn transport_over(
    relay: &Relay,
    more: &str,
    secret: Arc<ChangingSecret>,
    timeouts: Timeouts,
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
    let smtp = Smtp::new(&plan, Some(secret), &network, timeouts, Clock::system());
    MailTransport::Smtp(Box::new(smtp.unwrap_or_else(|error| panic!("{error}"))))
}

fn transport(relay: &Relay) -> MailTransport {
    transport_with(relay, "", ChangingSecret::new("right"), timeouts())
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
async fn a_mail_arrives_byte_for_byte_over_a_connection_that_is_kept() {
    let relay = relay_with(&[]).await;
    let transport = transport(&relay);
    let mails = [mail(), mail(), mail()];
    for mail in &mails {
        let sent = post(&transport, mail).await;
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
async fn every_sign_in_and_tls_mode_works() {
    for (implicit, auth) in
        [(false, "plain"), (false, "login"), (false, "xoauth2"), (true, "plain")]
    {
        let mechanisms = ["PLAIN", "LOGIN", "XOAUTH2"];
        let only = mechanisms.iter().find(|one| one.eq_ignore_ascii_case(auth)).expect("one");
        let relay = Relay::start(Manner { implicit, mechanisms: only, ..Manner::default() }).await;
        let tls = if implicit { "implicit" } else { "starttls" };
        let more = format!("tls = \"{tls}\"\nauth = \"{auth}\"");
        let transport = transport_with(&relay, &more, ChangingSecret::new("right"), timeouts());
        let sent = post(&transport, &mail()).await;
        assert!(accepted(&sent), "{tls} {auth}: {sent:?}");
        assert!(relay.seen().taken[0].encrypted);
        transport.close().await;
        assert_eq!(relay.seen().commands.last().map(String::as_str), Some("QUIT"));
    }
    // Without `auth`, whichever the relay has.
    let relay = Relay::start(Manner { mechanisms: "LOGIN", ..Manner::default() }).await;
    assert!(accepted(&post(&transport(&relay), &mail()).await));
    // To this machine alone, without TLS.
    let manner = Manner { starttls: false, mechanisms: "", ..Manner::default() };
    let relay = Relay::start(manner).await;
    let more = format!("tls = \"none\"\n{ANONYMOUS}");
    let transport = transport_with(&relay, &more, ChangingSecret::new("right"), timeouts());
    assert!(accepted(&post(&transport, &mail()).await));
}

#[tokio::test]
async fn a_relay_whose_starttls_was_stripped_gets_nothing() {
    let relay = Relay::start(Manner { starttls: false, ..Manner::default() }).await;
    let sent = post(&transport(&relay), &mail()).await;
    assert!(not_sent(&sent, false, "does not offer STARTTLS"), "{sent:?}");
    let seen = relay.seen();
    assert!(!seen.commands.iter().any(|word| ["AUTH", "MAIL"].contains(&word.as_str())));
}

#[tokio::test]
async fn replies_injected_before_tls_are_detected() {
    for (injected, signs_in) in [
        ("250 injected\r\n", true),
        ("250-injected\r\n250 AUTH PLAIN\r\n", true),
        ("250 injected\r\n", false),
    ] {
        let mechanisms = if signs_in { "PLAIN" } else { "" };
        let relay = Relay::start(Manner { injected, mechanisms, ..Manner::default() }).await;
        let more = if signs_in { "" } else { ANONYMOUS };
        let transport = transport_with(&relay, more, ChangingSecret::new("right"), timeouts());
        let sent = post(&transport, &mail()).await;
        assert!(not_sent(&sent, false, "before TLS began"), "{sent:?}");
        let seen = relay.seen();
        // Not even the password was sent.
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
    let smtp = Smtp::new(&plan, None, &network, timeouts(), Clock::system());
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
    let sent = post(&transport(&relay), &mail()).await;
    assert!(denied(&sent, "client_certificate"), "{sent:?}");
    let more = format!("client_certificate = {:?}", relay.client());
    let sent =
        post(&transport_with(&relay, &more, ChangingSecret::new("right"), timeouts()), &mail())
            .await;
    assert!(accepted(&sent), "{sent:?}");
}

#[tokio::test]
async fn an_idle_connection_is_ended_with_quit() {
    let relay = relay_with(&[]).await;
    let transport = transport(&relay);
    for _ in 0..2 {
        assert!(accepted(&post(&transport, &mail()).await));
        tokio::time::pause();
        tokio::time::advance(tapwave_core::limits::SMTP_IDLE).await;
        tokio::time::resume();
    }
    assert_eq!(relay.seen().connections, 2);
    assert_eq!(relay.seen().commands.iter().filter(|word| *word == "QUIT").count(), 1);
}

#[tokio::test]
async fn ehlo_has_the_address_or_the_configured_name() {
    for (more, said) in
        [("", "[127.0.0.1]"), ("hello = \"wave.contoso.example\"", "wave.contoso.example")]
    {
        let relay = relay_with(&[]).await;
        let transport = transport_with(&relay, more, ChangingSecret::new("right"), timeouts());
        assert!(accepted(&post(&transport, &mail()).await));
        // In the clear, and once more over TLS.
        assert_eq!(relay.seen().hellos, [said, said]);
    }
}

#[tokio::test]
async fn a_non_ascii_address_needs_smtputf8() {
    let jorg = coded("Jörg", "jörg@bücher.example", Form::Mime);
    let relay = Relay::start(Manner { offers: "SMTPUTF8", ..Manner::default() }).await;
    let line = transport(&relay);
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
    // A relay without it gets no part of that mail, but the next one.
    let relay = relay_with(&[]).await;
    let line = transport(&relay);
    let sent = post(&line, &jorg).await;
    assert!(matches!(&sent, Effect::Refused(why) if why.contains("lacks SMTPUTF8")), "{sent:?}");
    assert!(!relay.seen().commands.iter().any(|word| word == "MAIL"));
    assert!(accepted(&post(&line, &mail()).await));
    // A domain alone does not need it.
    let bucher = coded("Bü", "ada@bücher.example", Form::Mime);
    assert!(accepted(&post(&line, &bucher).await));
    assert_eq!(relay.seen().connections, 1);
}

/// A transport to the relay by a name that only the proxy can resolve.
fn through_proxy(relay: &Relay, url: String, no_proxy: Option<&str>, more: &str) -> MailTransport {
    let more = format!("host = \"{RELAY}\"\n{more}");
    let network =
        Network { proxy: Some(url), no_proxy: no_proxy.map(ToOwned::to_owned), ca_file: None };
    transport_over(relay, &more, ChangingSecret::new("right"), timeouts(), network)
}

#[tokio::test]
async fn a_proxy_leads_to_the_relay_and_cannot_read_along() {
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
        let transport = through_proxy(&relay, url, None, more);
        for _ in 0..2 {
            let sent = post(&transport, &mail()).await;
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
    let transport = transport_over(&relay, more, ChangingSecret::new("right"), timeouts(), network);
    let sent = post(&transport, &mail()).await;
    assert!(denied(&sent, "certificate"), "{sent:?}");
    assert_eq!(proxy.asked().len(), 1);
    assert!(!relay.seen().commands.iter().any(|word| ["AUTH", "MAIL"].contains(&word.as_str())));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_nothing_is_sent() {
    for (answer, again) in [
        ("403 Forbidden", Some(false)),
        ("407 Proxy Authentication Required", None),
        ("502 Bad Gateway", Some(true)),
    ] {
        let relay = relay_with(&[]).await;
        let ways = Ways { target: relay.port, refuses: Some(answer), ..Ways::default() };
        let proxy = Proxy::start(ways).await;
        let url = format!("http://ada:hunter2@127.0.0.1:{}", proxy.port);
        let sent = post(&through_proxy(&relay, url, None, ""), &mail()).await;
        let says = format!("proxy 127.0.0.1:{} answered {}", proxy.port, &answer[..3]);
        match again {
            Some(again) => assert!(not_sent(&sent, again, &says), "{sent:?}"),
            None => assert!(denied(&sent, &says), "{sent:?}"),
        }
        assert!(!format!("{sent:?}").contains("hunter2"));
        assert_eq!(relay.seen().connections, 0);
    }
    // A relay given as the proxy is noticed before the password is sent.
    let relay = relay_with(&[]).await;
    let url = format!("http://127.0.0.1:{}", relay.port);
    let sent = post(&through_proxy(&relay, url, None, ""), &mail()).await;
    assert!(not_sent(&sent, false, "does not answer as an HTTP proxy does"), "{sent:?}");
}

#[tokio::test]
async fn no_proxy_is_used_for_this_machine_or_an_exempt_relay() {
    let relay = relay_with(&[]).await;
    let proxy = Proxy::start(Ways { target: relay.port, ..Ways::default() }).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let network = Network { proxy: Some(url.clone()), ..Network::default() };
    let near = transport_over(&relay, "", ChangingSecret::new("right"), timeouts(), network);
    assert!(accepted(&post(&near, &mail()).await));
    let sent = post(&through_proxy(&relay, url, Some("contoso.example"), ""), &mail()).await;
    assert!(not_sent(&sent, true, &format!("the relay {RELAY} cannot be reached")), "{sent:?}");
    assert_eq!(*proxy.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_of_another_kind_is_refused_at_once() {
    for url in ["socks5://ada:hunter2@127.0.0.1:1080", "ftp://proxy.contoso.example", "::"] {
        let plan = "courier = \"smtp\"\nfrom = \"it@c.example\"\nhost = \"relay.contoso.example\"";
        let plan = toml::from_str::<MailSettings>(plan).unwrap().validate().unwrap();
        let network = Network { proxy: Some(url.to_owned()), ..Network::default() };
        let built = Smtp::new(&plan, None, &network, timeouts(), Clock::system());
        let told = built.err().expect(url).to_string();
        assert!(told.contains("http or https") && !told.contains("hunter2"), "{told}");
    }
}

#[tokio::test]
async fn a_wrong_password_concerns_every_mail_and_is_not_tried_again() {
    for mechanism in ["plain", "login", "xoauth2"] {
        let relay = relay_with(&[]).await;
        let more = format!("auth = \"{mechanism}\"");
        let secret = ChangingSecret::new("S3cret-wrong");
        let sent = post(&transport_with(&relay, &more, secret, timeouts()), &mail()).await;
        assert!(denied(&sent, "535"), "{sent:?}");
        assert!(denied(&sent, "check username and password"), "{sent:?}");
        assert!(!format!("{sent:?}").contains("S3cret"));
        assert!(relay.seen().taken.is_empty());
    }
    let relay = Relay::start(Manner { mechanisms: "PLAIN", ..Manner::default() }).await;
    let transport =
        transport_with(&relay, "auth = \"xoauth2\"", ChangingSecret::new("right"), timeouts());
    let sent = post(&transport, &mail()).await;
    assert!(not_sent(&sent, false, "does not offer the way to sign in"), "{sent:?}");
}

#[tokio::test]
async fn a_token_is_requested_for_each_new_connection() {
    let relay = relay_with(&[Fault::CutAfterAnswer]).await;
    let secret = ChangingSecret::new("right");
    let transport = transport_with(&relay, "auth = \"xoauth2\"", Arc::clone(&secret), timeouts());
    assert!(accepted(&post(&transport, &mail()).await));
    relay.change(|manner| manner.secret = "renewed".to_owned());
    *secret.secret.lock().unwrap() = "renewed".to_owned();
    // The kept connection has closed, which is no fault of the mail.
    let sent = post(&transport, &mail()).await;
    assert!(accepted(&sent), "{sent:?}");
    assert_eq!(secret.asked.load(Ordering::Relaxed), 2);
    assert_eq!(relay.seen().taken.len(), 2);
}

#[tokio::test]
async fn a_refusal_is_judged_by_its_first_digit() {
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
        let transport = transport(&relay);
        let sent = post(&transport, &mail()).await;
        match again {
            Some(again) => assert!(not_sent(&sent, again, "4"), "{fault:?}: {sent:?}"),
            None => assert!(
                matches!(&sent, Effect::Refused(why) if why.starts_with("55")),
                "{fault:?}: {sent:?}"
            ),
        }
        assert!(relay.seen().taken.is_empty(), "{fault:?}");
        // The connection can still be used.
        let sent = post(&transport, &mail()).await;
        assert!(accepted(&sent), "{fault:?}: {sent:?}");
        assert_eq!(relay.seen().connections, 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_connection_cut_before_the_dot_means_not_sent() {
    for fault in [Fault::CutAtMail, Fault::CutAtData] {
        let relay = relay_with(&[fault]).await;
        let sent = post(&transport(&relay), &mail()).await;
        assert!(not_sent(&sent, true, ""), "{fault:?}: {sent:?}");
        assert!(relay.seen().taken.is_empty());
    }
    let relay = relay_with(&[Fault::CutInText]).await;
    let sent = post(&transport(&relay), &large_mail()).await;
    assert!(not_sent(&sent, true, ""), "{sent:?}");
    assert!(relay.seen().taken.is_empty());
}

#[tokio::test]
async fn a_connection_cut_or_silent_after_the_dot_means_unsettled() {
    // Short only for the reply that never comes.
    let short = Timeouts { last_answer: Duration::from_millis(300), ..timeouts() };
    for fault in [Fault::CutAfterDot, Fault::SilentAfterDot] {
        let relay = relay_with(&[fault]).await;
        let transport = transport_with(&relay, "", ChangingSecret::new("right"), short);
        let mail = mail();
        let sent = post(&transport, &mail).await;
        assert!(matches!(sent, Effect::Unsettled { .. }), "{fault:?}: {sent:?}");
        // It was accepted, and nothing was sent twice.
        assert_eq!(relay.seen().taken.len(), 1, "{fault:?}");
        // On request the same bytes are sent again.
        let transport = transport_with(&relay, "", ChangingSecret::new("right"), timeouts());
        let sent = post(&transport, &mail).await;
        assert!(accepted(&sent), "{sent:?}");
        let seen = relay.seen();
        assert_eq!(seen.taken[0].bytes, seen.taken[1].bytes);
    }
}

#[tokio::test]
async fn a_truncated_text_is_never_reported_as_accepted() {
    let relay = relay_with(&[Fault::CutInText]).await;
    let sent = post(&transport(&relay), &mail()).await;
    // The dot may have been written to a connection that nobody read any more.
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
    let sent = post(&transport(&relay), &mail()).await;
    assert!(not_sent(&sent, true, ""), "{sent:?}");
}

#[tokio::test]
async fn many_senders_share_three_connections() {
    let relay = relay_with(&[]).await;
    let transport =
        transport_with(&relay, "max_connections = 3", ChangingSecret::new("right"), timeouts());
    let mails: Vec<Mail> = (0..30).map(|_| mail()).collect();
    let sent = join_all(mails.iter().map(|mail| post(&transport, mail))).await;
    assert!(sent.iter().all(accepted), "{sent:?}");
    let seen = relay.seen();
    assert_eq!(seen.taken.len(), 30);
    assert!(seen.most <= 3 && seen.connections <= 3, "{} of {}", seen.most, seen.connections);
}

#[tokio::test]
async fn a_relay_with_fewer_connections_refuses_mails_without_loss() {
    let manner = Manner { connections: 1, ..Manner::default() };
    let relay = Relay::start(manner).await;
    let transport =
        transport_with(&relay, "max_connections = 2", ChangingSecret::new("right"), timeouts());
    let (one, two) = (mail(), mail());
    let (one, two) = tokio::join!(post(&transport, &one), post(&transport, &two));
    let refused = [&one, &two].into_iter().filter(|sent| not_sent(sent, true, "421")).count();
    let taken = [&one, &two].into_iter().filter(|sent| accepted(sent)).count();
    assert_eq!((refused, taken), (1, 1), "{one:?} {two:?}");
    assert_eq!(relay.seen().taken.len(), 1);
}

#[tokio::test]
async fn a_relay_that_throttles_is_obeyed() {
    for answer in ["450 4.7.1 Error: too much mail", "421 4.7.0 try later"] {
        let relay = relay_with(&[Fault::Mail(answer)]).await;
        let transport = transport(&relay);
        let sent = post(&transport, &mail()).await;
        assert!(not_sent(&sent, true, answer.split_once(' ').unwrap().0), "{sent:?}");
        let mail = transport.limiter().snapshot(Budget::Mail);
        assert_eq!(mail.refused, 1);
        assert!(mail.holding_until.is_some());
    }
    // One full mailbox does not slow other mails down.
    let relay = relay_with(&[Fault::Rcpt("452 4.2.2 mailbox full")]).await;
    let transport = transport(&relay);
    assert!(not_sent(&post(&transport, &mail()).await, true, "452"));
    assert_eq!(transport.limiter().snapshot(Budget::Mail).holding_until, None);
}

#[tokio::test]
async fn another_implementation_reads_what_was_delivered() {
    let relay = relay_with(&[]).await;
    let transport = transport(&relay);
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
        let sent = post(&transport, &coded(name, "ada@personal.example", Form::Mime)).await;
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
async fn an_attached_age_file_arrives_unchanged() {
    let relay = relay_with(&[]).await;
    let file: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let to = "ada@personal.example".parse().expect("a mailbox");
    let mail = mail_to(&letter(&LetterContent::Sealed(&file), "Ada"), &to, Form::Mime);
    assert!(accepted(&post(&transport(&relay), &mail).await));
    let bytes = relay.seen().taken[0].bytes.clone();
    let Some(read) = read_by_python(&bytes) else { return };
    let attached = &read["parts"][2];
    assert_eq!(attached["kind"], "application/octet-stream");
    assert_eq!(attached["name"], "ada_contoso.example.age");
    assert_eq!(attached["base64"], STANDARD.encode(file));
}

/// Repeats until the outcome is final.
async fn insist(transport: &MailTransport, mail: &Mail) -> Effect<String> {
    loop {
        match post(transport, mail).await {
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
    let transport = transport(&relay);
    let pass = serde_json::from_value(CODE.into()).expect("a pass");
    let letter = letter(&LetterContent::Pass(&pass), "Ada");
    let to = |row: usize| format!("row{row}@personal.example").parse().expect("a mailbox");
    let mails: Vec<Mail> = (0..2_000).map(|row| mail_to(&letter, &to(row), Form::Mime)).collect();
    let outcomes = join_all(mails.iter().map(|mail| insist(&transport, mail))).await;
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
