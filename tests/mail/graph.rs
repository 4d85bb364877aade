//! Compares what the Graph transport reports with what the simulated tenant accepted. Every request is
//! validated against Microsoft's metadata.

use std::sync::Arc;
use std::time::Duration;

use crate::support::judge::{Judge, Judged};
use crate::support::letters::{CODE, coded, letter, mail_to, post};
use futures::future::join_all;
use tapwave_core::clock::Clock;
use tapwave_core::effect::Effect;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_mail::template::{Form, LetterContent, Mail};
use tapwave_mail::transport::settings::MailSettings;
use tapwave_mail::transport::{GraphMail, MailTransport};
use tapwave_simulator::options::{Call, Fault, Latency};
use tapwave_simulator::{InMemory, Tenant};
use tokio::time::Instant;

struct Setup {
    transport: MailTransport,
    judged: Arc<Judged<InMemory>>,
}

fn setup(change: impl FnOnce(&mut Tenant)) -> Setup {
    let mut tenant = Tenant::for_wave(["it@contoso.example"], 3);
    change(&mut tenant);
    let clock = Clock::starting_at("2026-03-01T08:00:00Z".parse().expect("a time"));
    let tenant = InMemory::new(tenant, clock.clone());
    let judged = Arc::new(Judged::new(tenant, Arc::new(Judge::new())));
    let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
    let graph = Graph::new(Arc::clone(&judged) as _, limiter, clock.clone());
    let settings = "courier = \"graph\"\nfrom = \"it@contoso.example\"";
    let settings: MailSettings = toml::from_str(settings).expect("settings");
    let plan = settings.validate().expect("a plan");
    Setup { transport: MailTransport::Graph(GraphMail::new(graph, &plan, clock)), judged }
}

impl Setup {
    fn taken(&self) -> usize {
        self.judged.inner().with(|tenant, _| tenant.mails().len())
    }
}

fn mail() -> Mail {
    coded("Ada \"the\" Löve, שלום", "ada@personal.example", Form::GraphJson)
}

#[tokio::test(start_paused = true)]
async fn a_mail_is_taken_as_microsoft_describes_it() {
    let setup = setup(|_| {});
    let sent = post(&setup.transport, &mail()).await;
    assert!(matches!(&sent, Effect::Done(receipt) if receipt.starts_with("202")), "{sent:?}");
    let to = "ada@personal.example".parse().expect("a mailbox");
    let sealed = mail_to(&letter(&LetterContent::Sealed(b"age"), "Ada"), &to, Form::GraphJson);
    assert!(matches!(post(&setup.transport, &sealed).await, Effect::Done(_)));
    assert_eq!(setup.judged.objections(), Vec::<String>::new());
    let mails = setup.judged.inner().with(|tenant, _| tenant.mails().to_vec());
    let to = &mails[0].message["toRecipients"];
    assert_eq!(to.as_array().map(Vec::len), Some(1));
    assert_eq!(to[0]["emailAddress"]["name"], "Ada \"the\" Löve, שלום");
    let body = mails[0].message["body"]["content"].as_str().expect("a body");
    assert!(body.contains("+drk=zq.AD&lt;&amp;&gt;") && !body.contains(CODE));
    assert_eq!(mails[1].message["attachments"][0]["name"], "ada_contoso.example.age");
}

#[tokio::test(start_paused = true)]
async fn each_fault_is_reported_correctly() {
    let failing = |effect| Fault::Failing { status: 503, effect, retry_after: None };
    for (fault, taken, expected) in [
        (Fault::Unreachable, 0, "again"),
        (Fault::Throttled { retry_after: Some("7".to_owned()) }, 0, "again"),
        (Fault::Forbidden, 0, "lasting"),
        (Fault::UserUnknown, 0, "lasting"),
        (Fault::TokenExpired, 0, "lasting"),
        (Fault::LostBefore, 0, "unsettled"),
        (Fault::LostAfter, 1, "unsettled"),
        (failing(false), 0, "unsettled"),
        (failing(true), 1, "unsettled"),
    ] {
        let setup = setup(|tenant| {
            let faults = std::mem::take(&mut tenant.options_mut().faults);
            tenant.options_mut().faults = faults.at(Call::Mail, 1, fault.clone());
        });
        let sent = post(&setup.transport, &mail()).await;
        let seen = match &sent {
            Effect::NoEffect(no) if no.may_pass() => "again",
            Effect::NoEffect(_) => "lasting",
            Effect::Unsettled { .. } => "unsettled",
            Effect::Done(_) | Effect::Refused(_) => "other",
        };
        assert_eq!((seen, setup.taken()), (expected, taken), "{fault:?}: {sent:?}");
        assert!(!format!("{sent:?}").contains("drk"), "{sent:?}");
        assert_eq!(setup.judged.objections(), Vec::<String>::new());
        assert!(matches!(post(&setup.transport, &mail()).await, Effect::Done(_)), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_gets_thirty_a_minute_and_four_at_once() {
    let setup = setup(|tenant| {
        tenant.options_mut().latency = Latency::of(Duration::from_secs(20));
    });
    let mails: Vec<Mail> = (0..61).map(|_| mail()).collect();
    let started = Instant::now();
    let sent = join_all(mails.iter().map(|mail| post(&setup.transport, mail))).await;
    assert!(sent.iter().all(|sent| matches!(sent, Effect::Done(_))));
    assert_eq!(setup.taken(), 61);
    // Four at once, twenty seconds each: sixteen rounds.
    let took = started.elapsed().as_secs();
    assert!((16 * 20..17 * 20 + 20).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn thirty_a_minute_is_kept_from_the_first_mail_on() {
    let setup = setup(|_| {});
    let mails: Vec<Mail> = (0..61).map(|_| mail()).collect();
    let started = Instant::now();
    join_all(mails.iter().map(|mail| post(&setup.transport, mail))).await;
    assert_eq!(setup.taken(), 61);
    let took = started.elapsed().as_secs();
    assert!((118..130).contains(&took), "{took} s");
    let at = setup.judged.inner().with(|tenant, _| {
        tenant.mails().iter().map(|mail| mail.at.as_second()).collect::<Vec<_>>()
    });
    let crowded =
        at.iter().map(|from| at.iter().filter(|to| (0..60).contains(&(*to - from))).count());
    assert!(crowded.max().unwrap() <= 31);
}

#[tokio::test(start_paused = true)]
async fn a_mail_for_the_other_transport_is_not_sent() {
    let setup = setup(|_| {});
    let mime = coded("Ada", "ada@personal.example", Form::Mime);
    assert!(matches!(post(&setup.transport, &mime).await, Effect::NoEffect(no) if !no.may_pass()));
    assert_eq!(setup.taken(), 0);
}
