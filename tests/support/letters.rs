//! Promises letters and mails to test couriers with.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tapwave_core::effect::Effect;
use tapwave_mail::template::{
    Facts, Form, Letter, LetterContent, Mail, MailDraft, Mailbox, MessageId, Templates, compose,
};
use tapwave_mail::transport::MailTransport;
use uuid::Uuid;

/// A code with everything that an encoding could trip over.
pub(crate) const CODE: &str = "+drk=zq.AD<&>";

/// Facts of a person with this name.
pub(crate) fn facts(name: &str) -> Facts {
    Facts {
        upn: "ada@contoso.example".parse().expect("a UPN"),
        name: name.to_owned(),
        manager: None,
        columns: BTreeMap::new(),
        start: "2026-03-02T08:00:00Z".parse().expect("a time"),
        lifetime_minutes: 480,
        one_time: false,
        zone: TimeZone::get("Europe/Berlin").expect("a zone"),
        support: Some("+49 30 1234".to_owned()),
        holder: None,
    }
}

/// A German letter to them.
pub(crate) fn letter(content: &LetterContent<'_>, name: &str) -> Letter {
    let templates = Templates::load(None).expect("templates");
    templates.render(content, "de", &facts(name)).unwrap_or_else(|error| panic!("{error}"))
}

/// A mail with [`CODE`] to a person of this name.
pub(crate) fn coded(name: &str, address: &str, form: Form) -> Mail {
    let pass = serde_json::from_value(CODE.into()).expect("a pass");
    let to = Mailbox::new(name, address).expect("a mailbox");
    mail_to(&letter(&LetterContent::Pass(&pass), name), &to, form)
}

/// A letter as a mail with a Message-ID of its own.
pub(crate) fn mail_to(letter: &Letter, to: &Mailbox, form: Form) -> Mail {
    let from: Mailbox = "IT Onboarding <it@contoso.example>".parse().expect("a mailbox");
    let message_id = MessageId::new(Uuid::new_v4(), &from);
    let date = "2026-03-02T07:55:00Z".parse().expect("a time");
    let draft =
        MailDraft { from: &from, reply_to: None, to, message_id: &message_id, date, letter };
    compose(&draft, form).unwrap_or_else(|error| panic!("{error}"))
}

/// Sends a mail once, when the courier lets it.
pub(crate) async fn post(courier: &MailTransport, mail: &Mail) -> Effect<String> {
    match courier.ready().await {
        Ok(ready) => courier.send(mail, ready).await,
        Err(obstacle) => obstacle.into(),
    }
}
