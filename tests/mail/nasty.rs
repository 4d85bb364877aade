//! Broken and malicious relays: whatever they send, no mail hangs beyond its timeouts, none is
//! reported as accepted that was not, and none is sent twice.

use std::time::Duration;

use crate::support::letters::{CODE, coded, post};
use crate::support::nasty::{Act, Nasty, Script, kind, say};
use tapwave_core::clock::Clock;
use tapwave_core::effect::Effect;
use tapwave_graph::http::Network;
use tapwave_mail::template::{Form, Mail};
use tapwave_mail::transport::MailTransport;
use tapwave_mail::transport::secret::SecretFrom;
use tapwave_mail::transport::settings::MailSettings;
use tapwave_mail::transport::smtp::{Smtp, Timeouts};

/// The transport's timeouts: longer than a busy machine needs.
const WAIT: Duration = Duration::from_mins(1);
/// The timeout for the reply that never comes completely.
const SHORT: Duration = Duration::from_millis(300);
/// How long one mail may take on a busy machine.
const DEADLINE: Duration = Duration::from_mins(5);

fn transport(relay: &Nasty, more: &str) -> MailTransport {
    let timeouts = Timeouts { connect: WAIT, answer: WAIT, last_answer: WAIT };
    transport_with(timeouts, relay, more)
}

fn transport_with(timeouts: Timeouts, relay: &Nasty, more: &str) -> MailTransport {
    let settings = format!(
        "courier = \"smtp\"\nfrom = \"IT <it@contoso.example>\"\nhost = \"localhost\"\n\
         tls = \"none\"\nport = {}\nmax_per_minute = 60000\n{more}",
        relay.port
    );
    let plan = toml::from_str::<MailSettings>(&settings).expect("settings").validate();
    let secret = std::sync::Arc::new(SecretFrom::Variable("right".into()));
    let network = Network::default();
    let smtp = Smtp::new(&plan.expect("a plan"), Some(secret), &network, timeouts, Clock::system());
    MailTransport::Smtp(Box::new(smtp.unwrap_or_else(|error| panic!("{error}"))))
}

fn mail() -> Mail {
    coded("Ada", "ada@personal.example", Form::Mime)
}

/// A relay that does this at that command, each time, and behaves otherwise.
async fn at(word: &'static str, act: Act) -> Nasty {
    let script: Script =
        Box::new(move |heard, _| if heard == word { act.clone() } else { kind(heard) });
    Nasty::start(script).await
}

/// Sends one mail to a relay that does this at that command.
async fn sent_to(word: &'static str, act: Act) -> (Effect<String>, Nasty) {
    let relay = at(word, act).await;
    let sent = sent_over(&transport(&relay, "")).await;
    (sent, relay)
}

/// The same, with a short timeout for the reply in question.
async fn sent_with_short_timeout(word: &'static str, act: Act) -> (Effect<String>, Nasty) {
    let relay = at(word, act).await;
    let mut timeouts = Timeouts { connect: WAIT, answer: WAIT, last_answer: WAIT };
    match word {
        "GREETING" | "EHLO" => timeouts.connect = SHORT,
        "." => timeouts.last_answer = SHORT,
        _ => timeouts.answer = SHORT,
    }
    let sent = sent_over(&transport_with(timeouts, &relay, "")).await;
    (sent, relay)
}

async fn sent_over(transport: &MailTransport) -> Effect<String> {
    let mail = mail();
    let sent = tokio::time::timeout(DEADLINE, post(transport, &mail)).await.expect("it hangs");
    let said = format!("{sent:?}");
    assert!(!said.contains(CODE) && !said.contains("\\u{1b}["), "{said}");
    sent
}

fn accepted(sent: &Effect<String>) -> bool {
    matches!(sent, Effect::Done(_))
}

fn not_sent(sent: &Effect<String>, says: &str) -> bool {
    matches!(sent, Effect::NoEffect(no) if no.may_pass() && no.why.contains(says))
}

fn refused(sent: &Effect<String>, says: &str) -> bool {
    matches!(sent, Effect::Refused(why) if why.contains(says))
}

fn bytes(text: &str) -> Act {
    Act::Say(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_reply_counts_by_its_code_however_it_is_written() {
    let greeting =
        format!("{}220 at last\r\n", "220-welcome to a relay with many rules\r\n".repeat(500));
    for (word, said) in [
        ("GREETING", greeting.as_str()),
        ("GREETING", "220\r\n"),
        ("EHLO", "250-nasty\r\n250-  \r\n250-\r\n250 SIZE 99999999999999999999999\r\n"),
        ("MAIL", "250\r\n"),
        ("MAIL", "250 2.1.0 \0\u{1b}[2J\u{7}\u{ff}ok\n"),
        ("DATA", "354\r\n"),
        (".", "250\r\n"),
        (".", "250-a\r\n250-\r\n250 b\r\n"),
    ] {
        let (sent, relay) = sent_to(word, bytes(said)).await;
        assert!(accepted(&sent), "{word}: {said:?}: {sent:?}");
        assert_eq!(relay.whole().len(), 1);
    }
    // Any second digit.
    for (word, said) in
        [("RCPT", "571 5.7.1 go away\r\n"), (".", "599\r\n"), ("DATA", "560-a\r\n560 b\r\n")]
    {
        let (sent, _) = sent_to(word, bytes(said)).await;
        assert!(refused(&sent, &said[..3]), "{word}: {said:?}: {sent:?}");
    }
    let (sent, _) = sent_to("MAIL", bytes("560-a\r\n560 b\r\n")).await;
    assert!(matches!(&sent, Effect::NoEffect(no) if no.bars_us()), "the sender's: {sent:?}");
    let (sent, _) = sent_to("RCPT", bytes("471 not now\r\n")).await;
    assert!(not_sent(&sent, "471 not now"), "{sent:?}");
}

#[tokio::test]
async fn extensions_are_read_in_any_case() {
    let relay = at("EHLO", say("250-nasty.example\r\n250 auth=login plain")).await;
    let transport = transport(&relay, "username = \"user\"\npassword_env = \"P\"");
    let sent = sent_over(&transport).await;
    assert!(accepted(&sent), "{sent:?}");
    assert!(relay.words().contains(&"AUTH".to_owned()));
}

#[tokio::test]
async fn a_mail_larger_than_the_relay_takes_is_refused_before_it_is_sent() {
    let (sent, relay) = sent_to("EHLO", say("250-nasty.example\r\n250 SIZE 500")).await;
    assert!(refused(&sent, "the relay takes 500"), "{sent:?}");
    assert!(!relay.words().contains(&"MAIL".to_owned()));
    let (sent, _) = sent_to("EHLO", say("250-nasty.example\r\n250 SIZE 500000")).await;
    assert!(accepted(&sent), "{sent:?}");
}

#[tokio::test]
async fn a_relay_that_never_finishes_times_out() {
    let slow = Duration::from_millis(100);
    let greeting = b"220-a greeting that never comes to its point\r\n".repeat(100);
    for (word, act) in [
        ("GREETING", Act::Nothing),
        ("GREETING", Act::Drip(greeting.clone(), slow)),
        ("GREETING", Act::Flood(b"220-and\r\n".to_vec())),
        ("GREETING", Act::Flood(vec![b'x'; 4096])),
        ("EHLO", Act::Flood(b"250-X\r\n".to_vec())),
        ("MAIL", Act::Drip(greeting.clone(), slow)),
        ("RCPT", bytes("250 no end")),
        ("DATA", Act::Flood(b"354-go\r\n".to_vec())),
    ] {
        let (sent, relay) = sent_with_short_timeout(word, act).await;
        assert!(matches!(&sent, Effect::NoEffect(no) if no.may_pass()), "{word}: {sent:?}");
        assert_eq!(relay.whole().len(), 0, "{word}");
    }
    for act in [Act::Drip(greeting, slow), Act::Flood(b"250-x\r\n".to_vec()), bytes("250 no end")] {
        let (sent, relay) = sent_with_short_timeout(".", act).await;
        assert!(matches!(sent, Effect::Unsettled { .. }), "{sent:?}");
        assert_eq!(relay.whole().len(), 1);
    }
}

#[tokio::test]
async fn an_endless_sign_in_is_given_up_and_the_password_is_not_shown() {
    for (auth, question) in [
        ("plain", "334 "),
        ("login", "334 UGFzc3dvcmQ6"),
        ("login", "334 VXNlcm5hbWU6"),
        ("login", "334"),
        ("login", "334 ===="),
        ("xoauth2", "334 e30="),
    ] {
        let script: Script = Box::new(move |word, _| match word {
            "AUTH" | "ANSWER" => say(question),
            "EHLO" => say("250-nasty\r\n250 AUTH PLAIN LOGIN XOAUTH2"),
            other => kind(other),
        });
        let relay = Nasty::start(script).await;
        let more = format!("username = \"user\"\npassword_env = \"P\"\nauth = \"{auth}\"");
        let sent = sent_over(&transport(&relay, &more)).await;
        assert!(matches!(sent, Effect::NoEffect(_)), "{question}: {sent:?}");
        assert!(!format!("{sent:?}").contains("right"), "{sent:?}");
        assert!(relay.words().len() < 12, "{:?}", relay.words());
        assert!(!relay.words().contains(&"MAIL".to_owned()));
    }
}

#[tokio::test]
async fn a_reply_of_the_wrong_kind_is_no_success() {
    for (word, said) in [
        ("GREETING", "250 hello"),
        ("EHLO", "354 go on"),
        ("MAIL", "354 go on"),
        ("RCPT", "354 go on"),
        ("DATA", "250 ok"),
        ("DATA", "154 go on"),
        ("MAIL", "650 what"),
        ("MAIL", "hello"),
    ] {
        let (sent, relay) = sent_to(word, say(said)).await;
        assert!(matches!(&sent, Effect::NoEffect(no) if no.may_pass()), "{word} {said}: {sent:?}");
        assert_eq!(relay.whole().len(), 0, "{word} {said}");
    }
    for said in ["354 go on", "150 ok", "650 ok", "251 ok", "ok", "25", "220 ok"] {
        let (sent, relay) = sent_to(".", say(said)).await;
        assert!(matches!(sent, Effect::Unsettled { .. }), "{said}: {sent:?}");
        assert_eq!(relay.whole().len(), 1, "{said}");
    }
}

/// Taken for the reply to the next command, it would report a refused mail as accepted.
#[tokio::test]
async fn a_reply_before_its_command_is_an_error() {
    let early: [(&str, &str); 5] = [
        ("GREETING", "220 hello\r\n250 ok\r\n"),
        ("MAIL", "250 ok\r\n250 ok\r\n"),
        ("RCPT", "250 ok\r\n354 go on\r\n"),
        ("DATA", "354 go on\r\n354 go on\r\n"),
        ("DATA", "354 go on\r\n250 2.0.0 queued\r\n"),
    ];
    for (word, said) in early {
        let (sent, relay) = sent_to(word, bytes(said)).await;
        assert!(not_sent(&sent, "what it was not asked"), "{said:?}: {sent:?}");
        assert_eq!(relay.whole().len(), 0, "{said:?}");
    }
    // A refusal while the text is sent counts.
    let (sent, relay) = sent_to("DATA", bytes("354 go on\r\n552 5.3.4 too big\r\n")).await;
    assert!(refused(&sent, "552 5.3.4 too big"), "{sent:?}");
    assert_eq!(relay.whole().len(), 0);
    // One that follows a mail's reply is not the next mail's.
    let script: Script = Box::new(|word, nth| match (word, nth) {
        (".", 1) => bytes("250 ok\r\n250 ok\r\n"),
        (".", _) => say("550 no"),
        (other, _) => kind(other),
    });
    let relay = Nasty::start(script).await;
    let transport = transport(&relay, "");
    assert!(accepted(&sent_over(&transport).await));
    let sent = sent_over(&transport).await;
    assert!(refused(&sent, "550 no"), "{sent:?}");
    assert_eq!(relay.words().iter().filter(|word| *word == "GREETING").count(), 2);
}

/// The relay closes idle connections, and decrypting the pass takes longer: the mail goes over another
/// connection.
#[tokio::test]
async fn a_connection_that_closed_before_its_mail_is_replaced() {
    let script: Script = Box::new(|word, nth| match (word, nth) {
        ("EHLO", 1) => Act::HalfClose(b"250 nasty.example\r\n".to_vec()),
        (other, _) => kind(other),
    });
    let relay = Nasty::start(script).await;
    let transport = transport(&relay, "");
    let ready = transport.ready().await.unwrap_or_else(|sent| panic!("{sent:?}"));
    let ready = transport.refresh(ready).await.unwrap_or_else(|sent| panic!("{sent:?}"));
    let sent = transport.send(&mail(), ready).await;
    assert!(accepted(&sent), "{sent:?}");
    assert_eq!(relay.whole().len(), 1);
    assert_eq!(relay.words().iter().filter(|word| *word == "GREETING").count(), 2);
}

#[tokio::test]
async fn a_closed_connection_is_reported_by_when_it_closed() {
    for (word, act) in [
        ("GREETING", Act::Close),
        ("GREETING", Act::HalfClose(b"220 hello\r\n".to_vec())),
        ("MAIL", Act::HalfClose(b"250 ok\r\n".to_vec())),
        ("RCPT", Act::Close),
        ("RCPT", Act::HalfClose(b"250 ok\r\n".to_vec())),
        ("DATA", Act::Close),
    ] {
        let (sent, relay) = sent_to(word, act).await;
        assert!(not_sent(&sent, "closed"), "{word}: {sent:?}");
        assert_eq!(relay.whole().len(), 0, "{word}");
    }
    let (sent, relay) = sent_to(".", Act::Close).await;
    assert!(matches!(sent, Effect::Unsettled { .. }), "{sent:?}");
    assert_eq!(relay.whole().len(), 1);
    // The reply came first; that the relay closes then changes nothing.
    let (sent, relay) = sent_to(".", Act::HalfClose(b"250 queued\r\n".to_vec())).await;
    assert!(accepted(&sent), "{sent:?}");
    assert_eq!(relay.whole().len(), 1);
}
