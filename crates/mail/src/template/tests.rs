//! Tests of every built-in template, and of templates that are wrong.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::tz::TimeZone;

use super::*;
use tapwave_seal::Pass;

const LOCALES: [&str; 5] = ["en", "nl", "de", "fr", "es"];

fn facts() -> Facts {
    Facts {
        upn: "ada@contoso.example".parse().expect("a UPN"),
        name: "Ada <b>Lovelace</b>".to_owned(),
        manager: None,
        columns: BTreeMap::from([("Department".to_owned(), "R&D".to_owned())]),
        start: "2026-03-02T08:00:00Z".parse().expect("a time"),
        lifetime_minutes: 480,
        one_time: false,
        zone: TimeZone::get("Europe/Berlin").expect("a zone"),
        support: Some("+49 30 1234".to_owned()),
        holder: Some(babbage("Charles Babbage")),
    }
}

fn babbage(name: &str) -> NamedPerson {
    NamedPerson { name: name.to_owned(), mail: "charles@contoso.example".to_owned() }
}

fn pass(code: &str) -> Pass {
    serde_json::from_value(code.into()).expect("a pass")
}

fn built_in() -> Templates {
    Templates::load(None).expect("the built-in templates")
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }
    dir
}

fn loaded(files: &[(&str, &str)]) -> Templates {
    Templates::load(Some(folder(files).path())).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(files: &[(&str, &str)]) -> TemplateError {
    match Templates::load(Some(folder(files).path())) {
        Ok(_) => panic!("loaded"),
        Err(error) => error,
    }
}

#[test]
fn every_built_in_template_renders_with_and_without_optional_values() {
    let mut bare = facts();
    (bare.support, bare.holder, bare.name, bare.one_time) = (None, None, String::new(), true);
    for facts in [facts(), bare] {
        assert_eq!(built_in().check(&Mode::ALL, &LOCALES, &facts), []);
    }
}

#[test]
fn the_code_stands_in_both_parts_of_mode_pass_escaped_and_nowhere_else() {
    let code = "a<b&\"c'";
    for locale in LOCALES {
        let content = pass(code);
        let letter =
            built_in().render(&LetterContent::Pass(&content), locale, &facts()).expect(locale);
        assert_eq!(letter.locale(), locale);
        assert!(letter.text().contains(code));
        assert!(letter.html().contains("a&lt;b&amp;&quot;c&#x27;"), "{}", letter.html());
        assert!(!letter.html().contains("a<b") && !letter.subject().contains("a<b"));
        assert!(letter.html().contains(&format!("<html lang=\"{locale}\">")));
        assert!(letter.html().contains("Ada &lt;b&gt;Lovelace"));
        assert!(!letter.html().contains("src="), "nothing is fetched");
        for (mode, content) in
            [(Mode::Sealed, LetterContent::Sealed(b"age")), (Mode::Notice, LetterContent::Notice)]
        {
            let letter = built_in().render(&content, locale, &facts()).expect(locale);
            assert_eq!(letter.attachment().is_some(), mode == Mode::Sealed);
            let file = "ada_contoso.example.age";
            assert_eq!(letter.text().contains(file), mode == Mode::Sealed);
        }
    }
}

#[test]
fn every_mail_says_how_to_use_the_pass_and_whom_to_call() {
    let places = ["aka.ms/mysecurityinfo", "aka.ms/sysinfo", "OOBE", "Windows", "ada@contoso"];
    let signs = ["Web sign-in", "webaanmelding", "Webanmeldung", "connexion web", "sesión web"];
    for (locale, web_sign_in) in LOCALES.into_iter().zip(signs) {
        for mode in Mode::ALL {
            let letter = built_in().preview(mode, locale, &facts()).expect(locale);
            for part in [letter.text(), letter.html()] {
                for words in places.into_iter().chain([web_sign_in, "+49 30 1234"]) {
                    assert!(part.contains(words), "{locale}, {mode}: {words} in {part}");
                }
                let holder = part.contains("Charles Babbage") && part.contains("(charles@contoso");
                assert_eq!(holder, mode == Mode::Notice, "{locale}: {part}");
            }
        }
    }
}

#[test]
fn a_reader_gets_dates_in_their_zone_and_language() {
    let content = pass("c0de");
    let letter =
        built_in().render(&LetterContent::Pass(&content), "nl-BE", &facts()).expect("a letter");
    assert_eq!(letter.locale(), "nl");
    for words in
        ["maandag 2 maart 2026 om 09:00 uur", "17:00 uur (Europe/Berlin)", "8 uur lang", "+49"]
    {
        assert!(letter.text().contains(words), "{words}: {}", letter.text());
    }
}

#[test]
fn the_fallback_is_english_and_languages_are_never_mixed() {
    let templates = built_in();
    for (asked, got) in
        [("de-CH", "de"), ("fr_CA", "fr"), ("ES", "es"), ("pl-PL", "en"), ("", "en")]
    {
        let letter = templates.preview(Mode::Notice, asked, &facts()).expect(asked);
        assert_eq!(letter.locale(), got);
    }
    let own = loaded(&[("nl-BE/notice/subject.txt", "Dag {{ user.name }}")]);
    let letter = own.preview(Mode::Notice, "nl-BE", &facts()).expect("a letter");
    assert_eq!(letter.subject(), "Dag Ada <b>Lovelace</b>");
    assert!(letter.text().starts_with("Hallo"), "the rest is the Dutch one");

    let half = loaded(&[("pl/notice/letter.txt", "Witaj")]);
    let wrong = half.check(&[Mode::Notice], &["pl"], &facts());
    assert!(
        matches!(&wrong[..], [TemplateError::Incomplete { locale, file: "subject.txt", .. }] if locale == "pl"),
        "{wrong:?}"
    );
}

#[test]
fn a_faulty_template_is_found_in_check_with_its_file_and_line() {
    let syntax = refused(&[("en/pass/letter.txt", "Hello\n{% if %}\n")]);
    assert!(
        matches!(&syntax, TemplateError::Faulty { line: 2, path, .. } if path.ends_with("en/pass/letter.txt")),
        "{syntax}"
    );

    for (text, says) in [
        ("Hello\n\n{{ usr.name }}", "line 3: {{ usr }} is not known"),
        ("Hello\n{{ user.nmae }}", "line 2"),
        ("Hello\n{{ columns[\"Departement\"] }}", "line 2"),
        ("Hello\n{{ manager.name }}", "line 2"),
        ("{% if false %}{{ cdoe }}{% endif %}x", "{{ cdoe }} is not known"),
        (
            "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}",
            "fuel",
        ),
        (" ", "gives an empty text"),
        ("{% include \"../../etc/passwd\" %}", "line 1"),
    ] {
        let own = loaded(&[("en/pass/letter.txt", text)]);
        let wrong = own.check(&[Mode::Pass], &["en"], &facts());
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        let shown = wrong[0].to_string();
        assert!(shown.contains(says) && shown.contains("letter.txt"), "{text}: {shown}");
        assert_eq!(own.check(&[Mode::Notice], &["en", "nl"], &facts()), []);
    }
}

#[test]
fn a_template_that_uses_the_code_where_it_is_not_allowed_is_an_error() {
    for (name, mode) in [
        ("en/notice/letter.txt", Mode::Notice),
        ("en/sealed/letter.html", Mode::Sealed),
        ("en/pass/subject.txt", Mode::Pass),
    ] {
        for text in ["a\n{{ code }}", "a\n{% if code is defined %}{{ code }}{% endif %}"] {
            let own = loaded(&[(name, text)]);
            let wrong = own.check(&[mode], &["en"], &facts());
            assert!(
                matches!(&wrong[..], [TemplateError::NamesCode { line: 2, .. }]),
                "{name}: {wrong:?}"
            );
        }
        // Without the check it still gets no code.
        let own = loaded(&[(name, "{{ code|default('none') }}")]);
        let letter = own.preview(mode, "en", &facts()).expect("a letter");
        assert!(!letter.subject().contains("EXAMPLE"));
    }
}

#[test]
fn an_error_quotes_nothing_when_there_is_a_code() {
    let own = loaded(&[("en/pass/letter.txt", "{{ code + 1 }}{{ code|int }}")]);
    let content = pass("S3cretC0de");
    let error = own.render(&LetterContent::Pass(&content), "en", &facts()).err().expect("an error");
    assert!(matches!(error, TemplateError::Failed { line: 1, .. }));
    assert!(!error.to_string().contains("S3cret"));
}

#[test]
fn a_file_that_is_no_template_is_named() {
    for stray in ["en/pas/letter.txt", "en/pass/leter.txt", "README.md"] {
        let error = refused(&[(stray, "x")]);
        assert!(matches!(&error, TemplateError::Stray { .. }), "{stray}: {error}");
    }
    let large = "x".repeat(70_000);
    assert!(matches!(refused(&[("en/pass/letter.txt", &large)]), TemplateError::TooLarge { .. }));
    let missing = Templates::load(Some(Path::new("/nonexistent/templates")));
    assert!(matches!(missing.err(), Some(TemplateError::Unreadable { .. })));
    assert!(Templates::load(Some(folder(&[(".git/x", "x")]).path())).is_ok());
}

#[test]
fn a_mail_that_is_too_long_is_an_error() {
    let own = loaded(&[(
        "en/pass/letter.txt",
        "{% for a in range(9000) %}{{ a }} this is a rather long line of words{% endfor %}",
    )]);
    let wrong = own.check(&[Mode::Pass], &["en"], &facts());
    assert!(matches!(&wrong[..], [TemplateError::Faulty { .. }]), "{wrong:?}");
}

fn mailbox(text: &str) -> Mailbox {
    text.parse().expect("a mailbox")
}

fn composed(letter: &Letter, to: &Mailbox, form: Form) -> Mail {
    let from = mailbox("IT Onboarding <it@contoso.example>");
    let reply_to = mailbox("helpdesk@contoso.example");
    let id: MessageId = "<0123456789abcdef@contoso.example>".parse().expect("an id");
    let date = "2026-03-02T07:55:01.5Z".parse().expect("a time");
    let (from, reply_to) = (&from, Some(&reply_to));
    compose(&MailDraft { from, reply_to, to, message_id: &id, date, letter }, form).expect("a mail")
}

#[test]
fn composing_twice_gives_the_same_bytes() {
    let content = pass("c0de");
    let to = mailbox("Ada <ada@personal.example>");
    for form in [Form::Mime, Form::GraphJson] {
        let one =
            built_in().render(&LetterContent::Pass(&content), "de", &facts()).expect("a letter");
        let two =
            built_in().render(&LetterContent::Pass(&content), "de", &facts()).expect("a letter");
        let (one, two) = (composed(&one, &to, form), composed(&two, &to, form));
        assert!(one.bytes() == two.bytes() && one.digest() == two.digest());
        assert_eq!(one.digest().len(), 64);
        let other =
            built_in().render(&LetterContent::Pass(&content), "fr", &facts()).expect("a letter");
        assert_ne!(composed(&other, &to, form).digest(), one.digest());
    }
}

#[test]
fn a_name_cannot_break_a_header() {
    let mut facts = facts();
    facts.name = "Ada\r\nBcc: evil@x.example\0 \"Q, R\" 🎉 שלום".to_owned();
    let to = Mailbox::new(&facts.name, "ada@personal.example").expect("a mailbox");
    let letter = built_in().render(&LetterContent::Sealed(b"age"), "en", &facts).expect("a letter");
    let mail = composed(&letter, &to, Form::Mime);
    let text = std::str::from_utf8(mail.bytes()).expect("ASCII");
    assert!(text.is_ascii());
    let (head, _) = text.split_once("\r\n\r\n").expect("a head");
    let names: Vec<&str> = head
        .split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().expect("a name"))
        .collect();
    for name in ["From", "To", "Subject", "Date", "Message-ID", "Reply-To", "Auto-Submitted"] {
        assert_eq!(names.iter().filter(|one| **one == name).count(), 1, "{name}: {head}");
    }
    assert!(!names.iter().any(|name| ["Cc", "Bcc"].contains(name)), "{head}");
    assert!(text.lines().all(|line| line.len() <= 998));
    assert!(head.contains("Date: Mon, 02 Mar 2026 07:55:01 +0000"), "{head}");
    assert_eq!((mail.from(), mail.to()), ("it@contoso.example", "ada@personal.example"));
}

#[test]
fn the_json_form_has_one_recipient_and_saves_no_copy() {
    let letter =
        built_in().render(&LetterContent::Sealed(b"age!"), "en", &facts()).expect("a letter");
    let mail = composed(&letter, &mailbox("ada@personal.example"), Form::GraphJson);
    let json: serde_json::Value = serde_json::from_slice(mail.bytes()).expect("JSON");
    assert_eq!(json["saveToSentItems"], false);
    let message = &json["message"];
    let to = serde_json::json!([{"emailAddress": {"address": "ada@personal.example"}}]);
    assert_eq!(message["toRecipients"], to);
    assert_eq!(message["attachments"][0]["contentBytes"], "YWdlIQ==");
    assert!(message.get("ccRecipients").is_none() && message.get("bccRecipients").is_none());
}

#[test]
fn a_message_id_is_well_formed_or_refused() {
    let id = MessageId::new(uuid::Uuid::nil(), &mailbox("it@contoso.example"));
    assert_eq!(id.as_str(), "<00000000000000000000000000000000@contoso.example>");
    assert_eq!(id.as_str().parse(), Ok(id.clone()));
    for bad in ["", "a@b", "<a@b", "<@b>", "<a@>", "<a b@c>", "<a@b>\r\nBcc: c", "<a@b\r\n>"] {
        assert_eq!(bad.parse::<MessageId>(), Err(NotMessageId), "{bad:?}");
    }
}
