//! Promises that no code the tenant ever made is in the clear anywhere but in the file, or the
//! body of the mail, that was asked for: not in any output, file, log, envelope, header, argument
//! or environment, and not in the memory of the process that sealed and mailed it. Nor are the
//! bearer token and the relay's password, but for the environment that brought them and the
//! memory of the process that uses them: these two are not searched for them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use tapwave_simulator::Options;
use tapwave_simulator::options::{Call, CodeStyle, Fault, Faults};

use crate::runs::damaged::eprintln_skip;
use crate::support::mailed_site::{IDENTITY, Mailed, PASSWORD, body};
use crate::support::site::{Site, Started, TOKEN, Told, files};
use crate::support::smtp;

const PEOPLE: usize = 12;
const PAGE: [u8; 4096] = [0; 4096];
/// Read from another process's memory at a time.
const CHUNK: usize = 4 * 1024 * 1024;

/// What is searched for: each form in which a secret may lie about, and the secret.
struct Wanted(BTreeMap<Vec<u8>, String>);

impl Wanted {
    fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let forms = |secret: &'a str| forms(secret).into_iter().map(|form| (form, secret.into()));
        Self(secrets.into_iter().flat_map(forms).collect())
    }

    /// The secrets that bytes hold in some form.
    fn within(&self, bytes: &[u8]) -> Vec<&str> {
        let mut found = BTreeSet::new();
        Sought::of(self).look(bytes, &mut found);
        found.into_iter().collect()
    }
}

/// As it is; in both orders of UTF-16; in Base64, whatever stands before it; in hexadecimal; as
/// mail, JSON, HTML and URLs escape it.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let escaped = |special: fn(u8) -> bool, escape: fn(u8) -> String| -> Vec<u8> {
        let text = secret
            .bytes()
            .map(|byte| if special(byte) { escape(byte) } else { char::from(byte).to_string() });
        text.collect::<String>().into_bytes()
    };
    let json = serde_json::Value::from(secret).to_string();
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        secret.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        secret.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        escaped(|_| true, |byte| format!("{byte:02x}")),
        escaped(|byte| byte == b'=', |byte| format!("={byte:02X}")),
        escaped(|byte| !byte.is_ascii_alphanumeric(), |byte| format!("%{byte:02X}")),
        json.trim_matches('"').as_bytes().to_vec(),
        html.into_bytes(),
    ];
    for before in 0..3 {
        let text = STANDARD.encode([&vec![0; before], secret.as_bytes()].concat());
        // Only the characters that hold nothing but the secret's bits.
        let (from, to) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
        forms.push(text.as_bytes()[from..to].to_vec());
    }
    forms.sort();
    forms.dedup();
    forms
}

#[test]
fn every_form_of_a_secret_is_found_where_it_was_planted() {
    let code = "+d=k/z<A&";
    let wanted = Wanted::of([code, "another-one"]);
    let forms = forms(code);
    assert!(forms.len() > 9, "{forms:?}");
    let in_a_mail = STANDARD.encode(format!("Dear Ada, your code is {code}. Regards"));
    let rest = [in_a_mail.into_bytes(), b"code: +d=3Dk/z<A& for you".to_vec()];
    for planted in forms.iter().chain(&rest) {
        let bytes = [&b"before"[..], planted, b"behind"].concat();
        let found = wanted.within(&bytes);
        assert!(!found.is_empty() && found.iter().all(|it| *it == code), "{planted:?}: {found:?}");
    }
    assert!(wanted.within(b"+d=k/z<B& and no other").is_empty());
}

/// What every command said.
#[derive(Default)]
struct Heard(Vec<(String, String)>);

impl Heard {
    /// Has a command run, as loud as it can be.
    #[track_caller]
    fn hear(&mut self, mailed: &Mailed, args: &[&str], code: i32) {
        let loud = [args, &["-vv", "--log", "extra.jsonl"]].concat();
        let told = mailed.told(&loud).exits(code);
        self.0.push((args.join(" "), told.out + &told.err));
    }

    #[track_caller]
    fn search(&self, wanted: &Wanted) {
        for (command, words) in &self.0 {
            let found = wanted.within(words.as_bytes());
            assert!(found.is_empty(), "{found:?} in what {command} said:\n{words}");
        }
        let loud = &self.0[0].1;
        assert!(loud.contains("temporaryAccessPassMethods"), "control: -vv was loud");
    }
}

fn everything(site: &Site) -> Wanted {
    let codes = site.minted();
    Wanted::of(codes.iter().map(String::as_str).chain([TOKEN, PASSWORD]))
}

#[track_caller]
fn search_files(site: &Site, wanted: &Wanted) {
    let mut searched = 0;
    for file in files(site.home.path()) {
        if file == site.path("passes.csv") {
            continue;
        }
        // One that is made and removed meanwhile is looked for while the process stands still.
        let Ok(bytes) = fs::read(&file) else { continue };
        let found = wanted.within(&bytes);
        assert!(found.is_empty(), "{} holds {found:?}", file.display());
        searched += 1;
    }
    assert!(searched > 4, "control: only {searched} files");
}

/// Envelopes and headers of what the relay took; where no code was asked for, the body too.
#[track_caller]
fn search_mails(mailed: &Mailed, wanted: &Wanted, coded: bool) {
    let taken: Vec<smtp::Taken> = mailed.taken().into_values().flatten().collect();
    assert!(!taken.is_empty());
    for mail in &taken {
        assert!(mail.encrypted, "control: the relay was not spoken to in the clear");
        let envelope = [mail.from.as_str(), &mail.to[0]].join("\n");
        let end = memchr::memmem::find(&mail.bytes, b"\r\n\r\n").expect("a header's end");
        let unfolded = String::from_utf8_lossy(&mail.bytes[..end]).replace("\r\n", "");
        for bytes in [envelope.as_bytes(), unfolded.as_bytes(), &mail.bytes[..end]] {
            assert!(wanted.within(bytes).is_empty(), "{:?}", wanted.within(bytes));
        }
        let body = body(mail);
        let found = wanted.within(&body.as_bytes()[end..]);
        // Its reader's own, which was asked for: a control that the search finds it.
        assert_eq!(found.is_empty(), !coded, "{found:?}");
        assert!(found.iter().all(|it| *it == found[0]), "more than one: {found:?}");
        assert!(!found.contains(&TOKEN) && !found.contains(&PASSWORD));
    }
}

#[test]
fn no_code_is_in_the_clear_in_any_output_or_file() {
    for mode in ["pass", "sealed"] {
        let mailed = Mailed::with(PEOPLE, |options| {
            options.code_style = CodeStyle::Nasty;
            // Answers of every kind: whole, cut in the middle of a code, lost.
            options.faults = Faults::default()
                .at(Call::Issue, 2, Fault::Truncated)
                .at(Call::Issue, 3, Fault::Garbled)
                .at(Call::Issue, 4, Fault::LostAfter)
                .at(Call::Issue, 5, Fault::Forbidden);
        });
        mailed.relay.change(|manner| {
            manner.faults.extend([
                smtp::Fault::CutInText,
                smtp::Fault::Quote,
                smtp::Fault::CutAfterDot,
            ]);
        });
        let mut heard = Heard::default();
        let deliver = [&["deliver", "wave-run"], &IDENTITY[..]].concat();
        let run = mailed.site.run_args(&["--json", "--deliver", "--body", mode]);
        heard.hear(&mailed, &run, 4);
        heard.hear(&mailed, &[&["resume", "wave-run"], &IDENTITY[..]].concat(), 7);
        heard.hear(&mailed, &deliver, 7);
        heard.hear(&mailed, &[&deliver[..], &["--resend-unsettled"]].concat(), 7);
        heard.hear(&mailed, &["status", "wave-run", "--live"], 0);
        heard.hear(&mailed, &["manifest", "wave-run"], 0);
        heard.hear(&mailed, &["runs"], 0);
        // Before the purge and after it.
        search_files(&mailed.site, &everything(&mailed.site));
        heard.hear(&mailed, &[&deliver[..], &["--revoke-undelivered"]].concat(), 0);
        heard.hear(&mailed, &["cleanup", "wave-run"], 0);
        let wanted = everything(&mailed.site);
        search_files(&mailed.site, &wanted);
        heard.search(&wanted);
        search_mails(&mailed, &wanted, mode == "pass");
        let quoted = mailed.relay.seen().quoted.concat();
        let leaked = !wanted.within(quoted.as_bytes()).is_empty();
        assert_eq!(leaked, mode == "pass", "control: the relay told the code: {quoted}");
        assert!(mailed.site.minted().len() > PEOPLE, "passes that were lost count too");
        for log in [mailed.site.path("extra.jsonl"), mailed.site.folder().join("log.jsonl")] {
            assert!(fs::metadata(&log).is_ok_and(|log| log.len() > 1_000), "{}", log.display());
        }
    }
}

/// A program that first writes down the environment it got.
fn witness(place: &Path, script: &str) {
    let noted = place.with_extension("environment");
    let script = format!("#!/bin/sh\nenv >'{}'\n{script}\n", noted.display());
    fs::write(place, script).expect("written");
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("set");
}

/// What a plugin and the command that prints the relay's password get.
#[test]
fn no_program_that_is_started_gets_a_secret() {
    let mailed = Mailed::with(2, |_| {});
    let site = &mailed.site;
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin/age-plugin-tapwavetest");
    let keys = Command::new(&plugin).output().expect("python3");
    let keys = String::from_utf8(keys.stdout).expect("text");
    let recipient = keys.split_whitespace().find(|word| word.starts_with("age1tapwavetest1"));
    let recipient = recipient.expect("a recipient");
    let talks = format!("exec '{}' \"$@\"", plugin.display());
    witness(&site.path("age-plugin-tapwavetest"), &talks);
    witness(&site.path("printer"), &format!("echo {PASSWORD}"));
    let settings = fs::read_to_string(site.path("tapwave.toml")).expect("there");
    let path = std::env::join_paths([site.home.path(), "/usr/bin".as_ref(), "/bin".as_ref()]);
    let path = path.expect("a path");
    // What the settings call the variable is kept back too.
    for (password, variable, started) in [
        ("password_env = \"RELAYS\"", "RELAYS", "age-plugin-tapwavetest"),
        ("password_command = [\"printer\"]", "SMTP_PASSWORD", "printer"),
    ] {
        let settings = settings.replace("password_env = \"SMTP_PASSWORD\"", password);
        site.settings(&settings);
        let run = ["run", "wave.csv", "--existing", "replace", "--deliver", "-r", site.recipient()];
        let mut run = mailed.tapwave(&[&run[..], &["-r", recipient], &IDENTITY].concat());
        run.env("PATH", &path).env(variable, PASSWORD);
        run.env("AZURE_CLIENT_SECRET", "planted")
            .env("AZURE_CLIENT_CERTIFICATE_PASSWORD", "planted");
        Told::of(run.output().expect("started")).exits(0);
        let noted = site.path(started).with_extension("environment");
        let noted = fs::read_to_string(noted).expect("it was started");
        assert!(noted.contains("TAPWAVE_HOME="), "control: {noted}");
        for secret in [TOKEN, PASSWORD, "planted"] {
            assert!(!noted.contains(secret), "{started} got {secret}:\n{noted}");
        }
        site.told(&["cleanup", "latest"]);
    }
}

#[test]
fn what_the_reader_asks_for_is_found() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    site.told(&["open", "wave-run", "-i", "id.txt", "--format", "csv", "-o", "passes.csv"]);
    let opened = fs::read(site.path("passes.csv")).expect("there");
    let codes = site.minted();
    let wanted = everything(&site);
    for code in &codes {
        assert!(wanted.within(&opened).contains(&code.as_str()), "the reader gets {code}");
    }
    search_files(&site, &wanted);
}

#[test]
fn no_code_is_in_the_memory_of_a_process_that_seals() {
    stays_clean(&[]);
}

#[test]
fn no_code_is_in_the_memory_of_a_process_that_mails_what_it_sealed() {
    stays_clean(&["--deliver"]);
}

#[test]
fn no_code_is_in_the_memory_of_a_process_that_mails_what_it_opened() {
    stays_clean(&[&["--deliver"], &IDENTITY[..]].concat());
}

#[test]
fn no_code_is_in_the_memory_of_a_process_that_mails_sealed_copies() {
    stays_clean(&["--deliver", "--body", "sealed"]);
}

#[test]
fn no_code_is_in_the_memory_of_a_process_that_mails_through_graph() {
    let over = |protocols| Mailed::of(Site::over_tls(PEOPLE, protocols, the_last_one_waits));
    for mailed in [place(), over(&["http/1.1"]), over(&["h2"])] {
        mailed.through_graph();
        looked_at(&mailed, &["--deliver"]);
        let mails = mailed.site.served.with(|tenant, _| tenant.mails().len());
        assert_eq!((mails, mailed.relay.seen().taken.len()), (PEOPLE, 0));
    }
}

/// Each connection has brought many passes, and one waits for another answer. Neither what is
/// read nor what lies in wait for the next answer may keep any.
#[test]
fn no_code_stays_in_the_buffers_of_a_connection() {
    for protocols in [None, Some(&["http/1.1"][..]), Some(&["h2"]), Some(&["h2", "http/1.1"])] {
        let site = match protocols {
            None => Site::open(300),
            Some(protocols) => Site::over_tls(300, protocols, |_| {}),
        };
        site.hold(Call::Issue, 300);
        let run = site.start(&site.run_args(&["--json"]));
        site.until("all but one are sealed", |site| {
            site.served.holding() == 1 && site.count("sealed") == 299
        });
        let connections = site.served.connections();
        let one_for_all = protocols.is_some_and(|names| names.contains(&"h2"));
        assert_eq!(connections == 1, one_for_all, "control: {connections} over {protocols:?}");
        if !search_process(&site, &run, 300) {
            return eprintln_skip("only root may read the memory of a process that forbids it");
        }
        site.let_go();
        assert_eq!(run.end().code, Some(0));
        site.assert_whole("after being looked at");
    }
}

fn stays_clean(more: &[&str]) {
    let mailed = place();
    looked_at(&mailed, more);
    let mails = if more.is_empty() { 0 } else { PEOPLE };
    assert_eq!(mailed.relay.seen().taken.len(), mails);
}

fn place() -> Mailed {
    Mailed::with(PEOPLE, the_last_one_waits)
}

/// The last one is told to wait: by then all others are sealed, and mailed if that was asked.
fn the_last_one_waits(options: &mut Options) {
    let wait = Fault::Throttled { retry_after: Some("60".into()) };
    options.faults = Faults::default().at(Call::Issue, PEOPLE as u64, wait);
}

/// A run, looked at when all but its last row are done and nothing is under way, and again when
/// it has nothing left to do but to say so.
fn looked_at(mailed: &Mailed, more: &[&str]) {
    let (site, mails) = (&mailed.site, !more.is_empty());
    // The summary finds no room, so that the process stays where all its work is done.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let filled = fill(&writer);
    let args = site.run_args(&[&["--json", "-vv"], more].concat());
    let mut command = mailed.tapwave(&args);
    command.stdout(writer);
    let run = Started::of(command);

    let state = if mails { "delivered" } else { "sealed" };
    site.until("all but one are done", |site| {
        site.seen(Call::Issue) == PEOPLE as u64 && site.count(state) == PEOPLE - 1
    });
    if !search_process(site, &run, PEOPLE - 1) {
        return eprintln_skip("only root may read the memory of a process that forbids it");
    }
    let minute = Duration::from_mins(1);
    site.pass_until(minute, "the handoff is written and the ledger shut", |site| {
        let log = fs::metadata(site.folder().join("ledger.db-wal"));
        let handed = files(&site.folder().join("handoff"));
        site.live().len() == PEOPLE
            && handed.iter().any(|file| file.extension().is_some_and(|it| it == "age"))
            && log.map_or(true, |log| log.len() == 0)
    });
    assert!(search_process(site, &run, PEOPLE));

    let mut out = Vec::new();
    reader.read_to_end(&mut out).expect("read");
    let summary = String::from_utf8(out.split_off(filled)).expect("text");
    assert!(summary.contains("tapwave.summary/1"), "it was stopped before its end: {summary}");
    assert_eq!(run.end().code, Some(0));
    site.assert_whole("after being looked at");
}

/// Fills a pipe to the brim and says with how much.
fn fill(mut pipe: &PipeWriter) -> usize {
    let before = fcntl_getfl(pipe).expect("read");
    fcntl_setfl(pipe, before | OFlags::NONBLOCK).expect("set");
    let mut filled = 0;
    // Ever less at a time, so that not one byte finds room afterwards.
    for size in [4096, 1] {
        while let Ok(written) = pipe.write(&vec![b'\n'; size]) {
            filled += written;
        }
    }
    fcntl_setfl(pipe, before).expect("set");
    filled
}

/// Stops the process, looks for every code in all that can be seen of it, the files that it may
/// have open included, and lets it go on. False if this user may not look.
fn search_process(site: &Site, run: &Started, codes_at_least: usize) -> bool {
    let codes = site.minted();
    assert!(codes.len() >= codes_at_least);
    let wanted = Wanted::of(codes.iter().map(String::as_str));
    let found = stays_in_memory(run, &wanted);
    // The token must be there, or the search looked at the wrong place.
    let control = memory(run.id()).map(|memory| memory.search(&Wanted::of([TOKEN])));
    let seen = ["cmdline", "environ"].map(|name| fs::read(format!("/proc/{}/{name}", run.id())));
    search_files(site, &everything(site));
    let nameless = search_open_files(run.id(), &everything(site));
    run.signal(Signal::CONT);
    let (Ok(found), Ok(control)) = (found, control) else { return false };
    assert_eq!(control, [TOKEN], "control: the token in use is in memory");
    assert!(nameless > 0 || codes.len() == PEOPLE, "control: no spool while it works");
    assert!(found.is_empty(), "{} of {} codes are in memory: {found:?}", found.len(), codes.len());
    let [arguments, environment] = seen.map(|seen| seen.expect("readable"));
    assert!(everything(site).within(&arguments).is_empty(), "a secret is in argv");
    assert!(wanted.within(&environment).is_empty(), "a code is in environ");
    is_found_in_another(&codes[0], &wanted);
    true
}

/// Which secrets a stopped process keeps. The task that has read an answer overwrites its buffer
/// before it waits for the next one, but a busy machine may stop that task in between while
/// others go on: what is found is looked for again, for a second at most.
fn stays_in_memory(run: &Started, wanted: &Wanted) -> std::io::Result<Vec<String>> {
    const LOOKS: u32 = 20;
    for _ in 1..LOOKS {
        run.signal(Signal::STOP);
        if memory(run.id())?.search(wanted).is_empty() {
            return Ok(Vec::new());
        }
        run.signal(Signal::CONT);
        std::thread::sleep(Duration::from_secs(1) / LOOKS);
    }
    run.signal(Signal::STOP);
    Ok(memory(run.id())?.search(wanted))
}

/// Files that a process has open; how many without a name: the spool is one.
fn search_open_files(process: u32, wanted: &Wanted) -> usize {
    let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let mut nameless = 0;
    for file in open.flatten().map(|entry| entry.path()) {
        if !fs::metadata(&file).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let name = fs::read_link(&file).expect("a link").display().to_string();
        let bytes = fs::read(&file).expect("readable");
        assert!(wanted.within(&bytes).is_empty(), "{name} holds {:?}", wanted.within(&bytes));
        nameless += usize::from(name.contains("(deleted)") && !bytes.is_empty());
    }
    nameless
}

/// The same search finds a code in a process that has one, in whatever form, and that one alone.
fn is_found_in_another(code: &str, wanted: &Wanted) {
    let mut sleeper = Command::new("sleep");
    sleeper.arg("600").env_clear().env("PLANTED", STANDARD.encode(format!("it is {code}.")));
    let sleeper = Started::of(sleeper);
    let found = memory(sleeper.id()).expect("an ordinary process").search(wanted);
    assert_eq!(found, [code], "control: a planted code");
    drop(sleeper.kill());
}

struct Memory {
    file: File,
    regions: Vec<(u64, u64)>,
}

fn memory(process: u32) -> std::io::Result<Memory> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let file = File::open(format!("/proc/{process}/mem"))?;
    let regions = maps.lines().filter_map(region).collect();
    Ok(Memory { file, regions })
}

/// Bounds of a mapping that can be read: `7f0-7f9 rw-p 0 00:00 0 …`. A file that is mapped and
/// cannot be written through there holds what it holds on the disk.
fn region(line: &str) -> Option<(u64, u64)> {
    let (bounds, rest) = line.split_once(' ')?;
    let (from, to) = bounds.split_once('-')?;
    let of_a_file = rest.split_whitespace().nth(3) != Some("0");
    let readable =
        rest.starts_with("rw") || rest.starts_with('r') && !of_a_file && !rest.contains("[vvar");
    let number = |text| u64::from_str_radix(text, 16).ok();
    readable.then_some((number(from)?, number(to)?))
}

impl Memory {
    /// Which of these secrets are in it.
    fn search(&self, wanted: &Wanted) -> Vec<String> {
        let sought = Sought::of(wanted);
        let mut found = BTreeSet::new();
        let overlap = wanted.0.keys().map(|form| form.len() as u64).max().unwrap_or(0);
        let mut chunk = vec![0; CHUNK];
        for &(from, to) in &self.regions {
            let mut at = from;
            while at < to {
                let size = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
                // Pages that were never used, and those of devices, cannot be read.
                let Ok(read @ 1..) = self.file.read_at(&mut chunk[..size], at) else { break };
                // Most pages were never used.
                let used = chunk[..read].chunks(PAGE.len()).map(|page| page != &PAGE[..page.len()]);
                for run in runs(used, read) {
                    sought.look(&chunk[run], &mut found);
                }
                let next = at + read as u64;
                at = if next < to { next.saturating_sub(overlap).max(at + 1) } else { next };
            }
        }
        found.into_iter().map(ToOwned::to_owned).collect()
    }
}

/// Bytes by which a form is told from what is none.
const START: usize = 4;

/// Thousands of forms, looked for in one go.
struct Sought<'a> {
    /// By the first two bytes: whether any form begins so.
    begins: Vec<bool>,
    forms: HashMap<&'a [u8], Vec<(&'a [u8], &'a str)>>,
}

impl<'a> Sought<'a> {
    fn of(wanted: &'a Wanted) -> Self {
        let mut sought = Self { begins: vec![false; 1 << 16], forms: HashMap::new() };
        for (form, secret) in &wanted.0 {
            assert!(form.len() > START, "{secret} is too short to be looked for");
            sought.begins[usize::from(u16::from_le_bytes([form[0], form[1]]))] = true;
            sought.forms.entry(&form[..START]).or_default().push((form, secret));
        }
        sought
    }

    fn look(&self, bytes: &[u8], found: &mut BTreeSet<&'a str>) {
        for at in 0..bytes.len().saturating_sub(START) {
            if self.begins[usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))]
                && let Some(forms) = self.forms.get(&bytes[at..at + START])
            {
                let here = forms.iter().filter(|(form, _)| bytes[at..].starts_with(form));
                found.extend(here.map(|(_, secret)| secret));
            }
        }
    }
}

/// Where pages that are used follow one another, in bytes.
fn runs(used: impl Iterator<Item = bool>, length: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in used.enumerate().filter(|(_, used)| *used) {
        let page = at * PAGE.len()..((at + 1) * PAGE.len()).min(length);
        match runs.last_mut() {
            Some(last) if last.end == page.start => last.end = page.end,
            _ => runs.push(page),
        }
    }
    runs
}
