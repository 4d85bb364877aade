//! The SMTP transport against a real relay: Postfix with Dovecot's sign-in and Exchange Online's
//! limits. Python's email package reads what was delivered.

use crate::support::certificates;
use std::sync::Arc;

use crate::support::letters::{CODE, coded, post};
use crate::support::postfix::Postfix;
use crate::support::python::read_by_python;
use futures::future::join_all;
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_graph::http::Network;
use tapwave_mail::template::Form;
use tapwave_mail::transport::MailTransport;
use tapwave_mail::transport::settings::{MailSettings, SecretPlace};
use tapwave_mail::transport::smtp::{Smtp, Timeouts};

/// Together with the earlier ones a few more than thirty; each further refusal makes the transport
/// wait longer.
const MANY: usize = 26;

fn transport(port: u16, more: &str, ca: &std::path::Path, password: &str) -> MailTransport {
    let settings = format!(
        "courier = \"smtp\"\nfrom = \"it@contoso.example\"\nhost = \"localhost\"\n\
         port = {port}\nusername = \"onboarding\"\npassword_env = \"P\"\n\
         max_per_minute = 60000\n{more}"
    );
    let plan =
        toml::from_str::<MailSettings>(&settings).expect("settings").validate().expect("a plan");
    let place = SecretPlace::Variable("P".to_owned());
    let source = place.source(&|_: &str| Some(password.to_owned())).expect("a source");
    let network = Network { ca_file: Some(ca.to_owned()), ..Network::default() };
    let smtp = Smtp::new(&plan, Some(source), &network, Timeouts::default(), Clock::system());
    MailTransport::Smtp(Box::new(smtp.unwrap_or_else(|error| panic!("{error}"))))
}

#[tokio::test]
async fn a_real_relay_accepts_refuses_and_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    certificates::certify(folder.path(), false);
    let (certificate, key) = (folder.path().join("server.pem"), folder.path().join("server.key"));
    let Some(server) = Postfix::start(&certificate, &key, 30) else { return };
    let ca = folder.path().join("ca.pem");
    let ada = |name: &str| coded(name, "ada@contoso.test", Form::Mime);

    // A wrong password, and addresses refused for now or for good.
    let wrong = post(&transport(server.submission, "", &ca, "wrong"), &ada("Ada")).await;
    assert!(
        matches!(&wrong, Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }) if why.contains("535")),
        "{wrong:?}: {}",
        server.log()
    );
    let submission = transport(server.submission, "", &ca, "right");
    let later = post(&submission, &coded("L", "later@contoso.test", Form::Mime)).await;
    assert!(
        matches!(&later, Effect::NoEffect(no) if no.may_pass() && no.why.contains("450")),
        "{later:?}"
    );
    let nobody = post(&submission, &coded("N", "nobody@contoso.test", Form::Mime)).await;
    assert!(matches!(&nobody, Effect::Refused(why) if why.contains("5.1.1")), "{nobody:?}");
    let unwelcome = post(&submission, &ada("Unwelcome")).await;
    assert!(matches!(&unwelcome, Effect::Refused(why) if why.contains("5.7.1")), "{unwelcome:?}");

    // Both kinds of TLS, and names that could break a header.
    let names =
        ["\"Lovelace, Ada\"", "Ada\r\nBcc: x@y.example", "Ädä 🎉", "שהרזאד عربي", ".\r\n.\r\nx"];
    for name in names {
        let sent = post(&submission, &ada(name)).await;
        assert!(
            matches!(&sent, Effect::Done(receipt) if receipt.contains("queued as")),
            "{sent:?}"
        );
    }
    let implicit = transport(server.implicit, "tls = \"implicit\"\nauth = \"login\"", &ca, "right");
    assert!(matches!(post(&implicit, &ada("Implicit")).await, Effect::Done(_)));
    let (arrived, mut subjects) = (server.arrived(6), Vec::new());
    assert_eq!(arrived.len(), 6);
    for mail in &arrived {
        let Some(read) = read_by_python(mail) else { return };
        assert_eq!(read["defects"], serde_json::json!([]));
        assert_eq!(read["others"], serde_json::json!(["X-Original-To"]));
        let text = read["parts"][0]["text"].as_str().expect("a text");
        assert!(text.lines().any(|line| line.trim() == CODE), "{text}");
        subjects.push(read["subject"].as_str().expect("a subject").to_owned());
    }
    for name in ["\"Lovelace, Ada\"", "Ada Bcc: x@y.example", "Ädä 🎉", "שהרזאד عربي", ". . x"]
    {
        let subject = format!("Befristeter Zugriffspass für {name}");
        assert!(subjects.contains(&subject), "{subject}: {subjects:?}");
    }

    // Thirty a minute: what is refused was not sent, and the rest arrives once.
    submission.close().await;
    implicit.close().await;
    let many = Arc::new(transport(server.submission, "max_connections = 3", &ca, "right"));
    let mails: Vec<_> = (0..MANY).map(|row| ada(&format!("Row {row}"))).collect();
    let sent = join_all(mails.iter().map(|mail| post(&many, mail))).await;
    let taken = sent.iter().filter(|sent| matches!(sent, Effect::Done(_))).count();
    let refused =
        sent.iter().filter(|sent| matches!(&sent, Effect::NoEffect(no) if no.may_pass())).count();
    assert!(refused > 0 && taken + refused == MANY, "the relay's limit was met: {sent:?}");
    assert_eq!(server.arrived(6 + taken).len(), 6 + taken);
    assert!(!server.log().contains("too many connections"), "{}", server.log());
    assert!(server.log().contains("Message delivery request rate limit exceeded"));
}
