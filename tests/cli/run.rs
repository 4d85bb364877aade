//! Promises that `run` issues one pass to each person, seals it for those who may read it and
//! nobody else, and tells truly how it ended.

use std::collections::BTreeMap;
#[cfg(unix)]
use std::fs;
#[cfg(unix)]
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tapwave_simulator::options::{Call, CodeStyle, Fault, Faults, SecondPost};
use tapwave_simulator::{PassEvent, Tenant};

use crate::support::bench::{ANYBODY, Bench, codes_in, keys, people, person};
use crate::support::others::{PYRAGE_OPENS, age_is_present, pyrage_is_present, run};

/// The summary's names, as the design lists them, sorted.
const SUMMARY: [&str; 17] = [
    "delivered",
    "elapsed_seconds",
    "failed",
    "foreign",
    "held",
    "ineligible",
    "issued",
    "lost",
    "removed",
    "requests",
    "rows",
    "run",
    "schema",
    "sealed",
    "skipped",
    "throttled",
    "unsettled",
];

impl Bench {
    /// With people whose codes hurt careless readers, and a wave of them.
    fn nasty(count: usize) -> Self {
        let bench = Self::of(count);
        bench.tenant(|tenant, _| tenant.options_mut().code_style = CodeStyle::Nasty);
        bench
    }

    /// Posts that reached the tenant.
    fn posts(&self) -> u64 {
        self.tenant(|tenant, _| tenant.seen(Call::Issue))
    }

    /// The run folder's path from the home, when there is one run.
    #[track_caller]
    fn handoff(&self, name: &str) -> String {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "one run");
        runs[0].join("handoff").join(name).to_str().expect("a path in UTF-8").to_owned()
    }
}

// Case: the main job. One POST for each person; every code the tenant minted opens verbatim,
// from the run and from the handoff; no file holds one in the clear.
#[test]
fn every_person_gets_one_pass_that_opens_verbatim() {
    let bench = Bench::nasty(30);
    let it = bench.reader("key");
    let said = bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    said.says(["run folder: ", "30 rows: 30 issued and sealed", "next: tapwave open wave-"]);
    assert_eq!(bench.posts(), 30);
    let codes = bench.codes();
    assert_eq!(codes.len(), 30);
    for sample in ["+drkzqAD", "=1+1xQz7", "a\"b,c;d7", "-2+3|cmd", "<b>&amp;", "{{7*7}}\\"] {
        assert!(codes.values().any(|code| code == sample), "{sample} was minted");
    }
    assert_eq!(bench.opened("latest", &it.file), codes);
    assert_eq!(bench.opened(&bench.handoff("passes.age"), &it.file), codes);
    for (path, bytes) in bench.everything() {
        for code in codes.values() {
            let found = bytes.windows(code.len()).any(|window| window == code.as_bytes());
            assert!(!found, "{code} lies in {}", path.display());
        }
    }
}

// Case: the words and the data of a run never show a code, a token or a whole key.
#[test]
fn nothing_that_is_said_shows_a_code() {
    let bench = Bench::nasty(5);
    let it = bench.reader("key");
    let flags = ["run", "wave.csv", "-r", &it.key, "-vv", "--log", "calls.jsonl", "--json"];
    let mut said = bench.tapwave(&flags).ends(0);
    let log = bench.read("calls.jsonl");
    assert!(log.lines().count() > 5, "{log}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("a line of JSON");
    }
    said.err += &log;
    for secret in bench.codes().values().map(String::as_str).chain([crate::support::bench::OPAQUE])
    {
        assert!(!said.err.contains(secret) && !said.out.contains(secret), "{secret} was said");
    }
}

// Case: a handoff that the program wrote, read by the Go implementation of age.
#[test]
fn stock_age_opens_the_handoff() {
    if !age_is_present() {
        return;
    }
    let bench = Bench::nasty(12);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let identity = bench.path(&it.file);
    let identity = identity.to_str().expect("a path in UTF-8");
    let plain = run("age", &["-d", "-i", identity, &bench.handoff("passes.age")]);
    assert_eq!(codes_of_csv(&plain, b','), bench.codes());
}

// Case: the same with PyPI's pyrage.
#[test]
fn pyrage_opens_the_handoff() {
    if !pyrage_is_present() {
        return;
    }
    let bench = Bench::nasty(12);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let identity = bench.path(&it.file);
    let identity = identity.to_str().expect("a path in UTF-8");
    let plain = run("python3", &["-c", PYRAGE_OPENS, identity, &bench.handoff("passes.age")]);
    assert_eq!(codes_of_csv(&plain, b','), bench.codes());
}

/// The codes by UPN in a CSV as `open` and the handoff write it.
pub(crate) fn codes_of_csv(text: &[u8], delimiter: u8) -> BTreeMap<String, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
    let head = reader.headers().expect("a header").clone();
    let column = |name| head.iter().position(|one| one == name).expect("a column");
    let (upn, code) = (column("userPrincipalName"), column("temporaryAccessPass"));
    let rows = reader.records().map(|row| row.expect("a row"));
    rows.map(|row| (row[upn].to_owned(), row[code].to_owned())).collect()
}

// Case: several readers of each pass, by -r twice and by -R.
#[test]
fn several_recipients_each_open_every_pass() {
    let bench = Bench::of(4);
    let [one, two, three, four] = ["one", "two", "three", "four"].map(|name| bench.reader(name));
    bench.write("team.txt", format!("# the team\n{}\n\n{}\n", three.key, four.key));
    bench.tapwave(&["run", "wave.csv", "-r", &one.key, "-r", &two.key, "-R", "team.txt"]).ends(0);
    for reader in [&one, &two, &three, &four] {
        assert_eq!(bench.opened("latest", &reader.file), bench.codes(), "{}", reader.file);
        assert_eq!(bench.opened(&bench.handoff("passes.age"), &reader.file), bench.codes());
    }
}

// Case: labels in tapwave.toml and a recipient column. A site lead opens only their own
// people; rows that name nobody go to -r; the break-glass key opens all.
#[test]
fn a_site_lead_opens_only_their_own_people() {
    let bench = Bench::of(5);
    let [ams, ber, desk, glass] = ["ams", "ber", "desk", "glass"].map(|name| bench.reader(name));
    bench.settings(format!(
        "break_glass = \"{}\"\n[recipients]\nsite-ams = [\"{}\"]\nsite-ber = \"{}\"\n",
        glass.key, ams.key, ber.key
    ));
    bench.write(
        "wave.csv",
        format!(
            "UPN,recipient\n{},site-ams\n{},site-ber\n{},site-ams\n{},\n{},{}\n",
            person(1),
            person(2),
            person(3),
            person(4),
            person(5),
            ber.key
        ),
    );
    bench.tapwave(&["run", "wave.csv", "-r", &desk.key]).ends(0);
    let codes = bench.codes();
    let of = |numbers: &[usize]| -> BTreeMap<String, String> {
        numbers.iter().map(|it| (person(*it), codes[&person(*it)].clone())).collect()
    };
    for (reader, whose) in
        [(&ams, &[1, 3][..]), (&ber, &[2, 5]), (&desk, &[4]), (&glass, &[1, 2, 3, 4, 5])]
    {
        assert_eq!(bench.opened("latest", &reader.file), of(whose), "{}", reader.file);
    }
    assert_eq!(bench.opened(&bench.handoff("site-ams.age"), &ams.file), of(&[1, 3]));
    assert_eq!(bench.opened(&bench.handoff("site-ams.age"), &glass.file), of(&[1, 3]));
    let theirs = bench.handoff("site-ber.age");
    bench.tapwave(&["open", &theirs, "-i", &ams.file]).ends(2).hides(&codes[&person(2)]);
}

// Case: --break-glass on the command line, beside a label.
#[test]
fn a_break_glass_recipient_reads_everything() {
    let bench = Bench::of(2);
    let [lead, glass] = ["lead", "glass"].map(|name| bench.reader(name));
    bench.settings(format!("[recipients]\nlead = \"{}\"\n", lead.key));
    bench.tapwave(&["run", "wave.csv", "-r", "lead", "--break-glass", &glass.key]).ends(0);
    assert_eq!(bench.opened("latest", &lead.file), bench.codes());
    assert_eq!(bench.opened("latest", &glass.file), bench.codes());
}

// Case: a row names a label that nobody knows.
#[test]
fn an_unknown_label_is_a_problem_of_its_row() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    bench.settings(format!("[recipients]\nsite-ams = \"{}\"\n", it.key));
    bench.write(
        "wave.csv",
        format!("UPN,recipient\n{},site-ams\n{},site-asm\n", person(1), person(2)),
    );
    let said = bench.tapwave(&["run", "wave.csv", "--json"]).ends(3);
    let told = said.problems();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, 3);
    for part in ["column recipient", "site-asm", "site-ams", "age1"] {
        assert!(told[0].1.contains(part), "{part}: {told:?}");
    }
    bench.is_unchanged();
}

// Case: a recipient behind a plugin, as a YubiKey is, beside an ordinary one.
#[cfg(unix)]
#[test]
fn a_plugin_recipient_is_sealed_to() {
    const KEY: &str = "age1tapwavetest1w3shqampwejj6um5v9hxgttfdc97rwm4";
    if !crate::support::others::present("python3", "python3", &["--version"]) {
        return;
    }
    let bench = Bench::of(3);
    let it = bench.reader("key");
    let url = bench.graph_url();
    let mut path = std::ffi::OsString::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugin:"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let flags =
        ["run", "wave.csv", "-r", KEY, "-r", &it.key, "--graph-url", &url, "--auth", "token"];
    crate::support::bench::Said::of(bench.command(&flags).env("PATH", &path)).ends(0);
    let sealed = fs::read(bench.handoff("passes.age")).expect("a handoff");
    let head = String::from_utf8_lossy(&sealed[..sealed.len().min(400)]).into_owned();
    assert!(head.contains("-> tapwavetest"), "{head}");
    assert_eq!(bench.opened("latest", &it.file), bench.codes());

    let missing = bench.tapwave(&["run", "wave.csv", "-r", KEY, "--existing", "replace"]);
    missing.ends(2).says(["age-plugin-tapwavetest was not found", "PATH"]);
}

// Case: nobody is named who could read the passes.
#[test]
fn without_a_recipient_nothing_begins() {
    let bench = Bench::of(2);
    let said = bench.tapwave(&["run", "wave.csv"]).ends(2);
    said.says(["nobody could read the passes", "hint: give -r age1…, or -R FILE", "keygen"]);
    let said = bench.tapwave(&["run", "wave.csv", "--run", "mine"]).ends(2);
    said.says(["nobody could read the passes"]);
    bench.is_untouched();
    assert!(!bench.path("mine").exists());
}

// Case: the run folder where one asks for it, and for whom it is.
#[test]
fn the_run_folder_is_private() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    let said = bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--run", "mine"]).ends(0);
    said.says(["run folder: ", "mine"]);
    assert_eq!(bench.runs(), Vec::<std::path::PathBuf>::new(), "nothing beside it");
    for name in ["ledger.db", "handoff/passes.age", "log.jsonl"] {
        assert!(bench.path("mine").join(name).is_file(), "{name}");
    }
    #[cfg(unix)]
    assert_private(&bench.path("mine"));
    assert_eq!(bench.opened("mine", &it.file), bench.codes());
    assert_eq!(bench.opened("latest", &it.file), bench.codes(), "it is remembered");
    let again = bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--run", "mine"]).ends(2);
    again.says(["there is one already", "tapwave resume"]);
    assert_eq!(bench.posts(), 2);
}

/// Folders 0700, files 0600, no symbolic link.
#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let about = path.symlink_metadata().expect("there");
    let wanted = if about.is_dir() { 0o700 } else { 0o600 };
    assert_eq!(about.permissions().mode() & 0o777, wanted, "{}", path.display());
    assert!(!about.is_symlink(), "{}", path.display());
    if about.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            assert_private(&entry.expect("an entry").path());
        }
    }
}

// Case: a script reads the summary and the status.
#[test]
fn summary_and_status_are_the_documented_json() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    let said = bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--json", "-q"]).ends(0);
    assert_eq!(said.err, "", "quiet");
    let summary = said.json();
    assert_eq!(keys(&summary), SUMMARY);
    assert_eq!(summary["schema"], "tapwave.summary/1");
    for (name, value) in [("rows", 3), ("issued", 3), ("sealed", 3), ("failed", 0), ("held", 0)] {
        assert_eq!(summary[name], json!(value), "{name}");
    }
    assert_eq!(summary["requests"], json!(bench.requests()));
    assert_eq!(summary["run"], json!(bench.runs()[0]));

    let status = bench.tapwave(&["status", "latest", "--json"]).ends(0).json();
    assert_eq!(keys(&status), ["recipients", "rows", "schema"]);
    assert_eq!(status["schema"], "tapwave.status/1");
    let rows = status["rows"].as_array().expect("rows");
    let methods: BTreeMap<String, String> = bench.tenant(|tenant, _| {
        tenant.passes().map(|(_, upn, pass)| (upn.to_owned(), pass.method.clone())).collect()
    });
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["row"], json!(index + 2));
        assert_eq!(row["state"], "sealed");
        let upn = row["userPrincipalName"].as_str().expect("a name");
        assert_eq!(row["methodId"], json!(methods[upn]));
    }
    assert_eq!(rows.len(), 3);
}

// Case: what the rows ask for is what the tenant makes.
#[test]
fn columns_win_over_flags_and_flags_over_the_policy() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    bench.write(
        "wave.csv",
        format!(
            "UPN,lifetimeInMinutes,isUsableOnce,startDateTime,timeZone\n{},90,no,,\n{},,,,\n\
         {},,,2099-03-01T08:00,Europe/Berlin\n",
            person(1),
            person(2),
            person(3)
        ),
    );
    let flags = ["run", "wave.csv", "-r", &it.key, "--lifetime", "120", "--one-time"];
    bench.tapwave(&flags).ends(0);
    let made: BTreeMap<String, (u32, bool, Timestamp)> = bench.tenant(|tenant, _| {
        let about =
            |pass: &tapwave_simulator::LivePass| (pass.lifetime_minutes, pass.one_time, pass.start);
        tenant.passes().map(|(_, upn, pass)| (upn.to_owned(), about(pass))).collect()
    });
    assert_eq!((made[&person(1)].0, made[&person(1)].1), (90, false));
    assert_eq!((made[&person(2)].0, made[&person(2)].1), (120, true));
    let morning: Timestamp = "2099-03-01T07:00:00Z".parse().expect("a time");
    assert_eq!(made[&person(3)], (120, true, morning));
}

// Case: lifetimes as people write them, by column, by flag and in the settings.
#[test]
fn a_lifetime_may_be_written_in_hours() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    let [one, two, three] = [person(1), person(2), person(3)];
    let column = |text: &str| format!("UPN,lifetime\n{one},8h\n{two},90m\n{three},{text}\n");
    let lifetimes = || -> Vec<u32> {
        bench.tenant(|tenant, _| tenant.passes().map(|(_, _, it)| it.lifetime_minutes).collect())
    };
    bench.write("wave.csv", column("31d"));
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "--json"]).ends(3);
    let [(4, why)] = &said.problems()[..] else { panic!("{:?}", said.problems()) };
    assert!(why.contains("\"31d\" is not a number of minutes from 10 to 43200"), "{why}");
    bench.write("wave.csv", column(""));
    bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--lifetime", "2h"]).ends(0);
    assert_eq!(lifetimes(), [480, 90, 120]);
    let other = Bench::of(1);
    other.write("tapwave.toml", "lifetime = \"3h 30m\"\n");
    other.tapwave(&["run", "wave.csv", "-r", ANYBODY]).ends(0);
    let made = |tenant: &mut Tenant, _| tenant.pass(&person(1)).expect("one").lifetime_minutes;
    assert_eq!(other.tenant(made), 210);
    bench.write("tapwave.toml", "lifetime = \"8 cups\"\n");
    bench.tapwave(&["settings"]).ends(2).says(["tapwave.toml", "minutes"]);
}

// Case: one person is refused for good (an administrator); the others are done.
#[test]
fn a_refused_row_fails_alone() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    bench.tenant(|tenant, _| tenant.amend(&person(2), |user| user.admin = true));
    // The same refusal meets whoever looks at an administrator's passes.
    let flags = ["run", "wave.csv", "-r", &it.key, "--existing", "replace", "--json"];
    let said = bench.tapwave(&flags).ends(4).says([
        "line 3, person2@contoso.example",
        "Request Authorization failed",
        "next: tapwave resume wave-",
    ]);
    let summary = said.json();
    assert_eq!((&summary["failed"], &summary["sealed"]), (&json!(1), &json!(2)));
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
    assert_eq!(bench.codes().len(), 2);
}

// Case: rows left out because it was asked for are no failure.
#[test]
fn skipped_rows_keep_the_pass_they_have() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    bench.tenant(|tenant, now| tenant.issue_elsewhere(now, &person(2)));
    let flags = ["run", "wave.csv", "-r", &it.key, "--existing", "skip", "--json"];
    let summary = bench.tapwave(&flags).ends(0).json();
    assert_eq!((&summary["skipped"], &summary["sealed"]), (&json!(1), &json!(2)));
    assert!(!bench.events().iter().any(|event| matches!(event, PassEvent::Replaced { .. })));
    let opened = bench.opened("latest", &it.file);
    assert_eq!(opened.keys().cloned().collect::<Vec<_>>(), [person(1), person(3)]);
}

// Case: a tenant that refuses a second pass until the first is deleted.
#[test]
fn replace_makes_room_in_a_tenant_that_rejects_a_second_pass() {
    let mut tenant = Tenant::for_wave(people(3), 7);
    tenant.options_mut().second_post = SecondPost::Rejected;
    let earlier = Timestamp::now() - jiff::SignedDuration::from_mins(5);
    tenant.issue_elsewhere(earlier, &person(2)).expect("a pass");
    let bench = Bench::new(tenant);
    bench.wave(people(3));
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--existing", "replace"]).ends(0);
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
    assert_eq!(bench.codes().len(), 3);
    let deleted = |event: &&PassEvent| matches!(event, PassEvent::Deleted { .. });
    assert_eq!(bench.events().iter().filter(deleted).count(), 1, "only the one in the way");
}

// Case: the tenant throttles. Nobody fails because of it.
#[test]
fn throttling_fails_no_row() {
    let bench = Bench::of(60);
    let it = bench.reader("key");
    bench.tenant(|tenant, _| {
        // However slowly it asks: a limit of so many a second would not be met then.
        let refused = || Fault::Throttled { retry_after: Some("0".to_owned()) };
        let at = |faults: Faults, nth| faults.at(Call::Issue, nth, refused());
        tenant.options_mut().faults = [3, 10, 11, 12, 40].into_iter().fold(Faults::default(), at);
    });
    let summary = bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--json"]).ends(0).json();
    assert_eq!((&summary["sealed"], &summary["failed"]), (&json!(60), &json!(0)));
    let throttled = bench.tenant(|tenant, _| tenant.tally().throttled);
    assert_eq!(throttled, 5);
    assert_eq!(summary["throttled"], json!(throttled));
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
}

// Case: a replica that does not know the user yet answers the first POST with 404.
#[test]
fn a_user_unknown_to_a_replica_is_tried_again() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    bench.tenant(|tenant, _| {
        tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::UserUnknown);
    });
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    assert_eq!(bench.posts(), 3);
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
    assert_eq!(bench.codes().len(), 2);
}

// Case: the tenant's answer to one POST is lost. The orphan is found and removed before the
// person gets the pass that is sealed.
#[test]
fn a_lost_answer_is_settled_before_another_pass_is_asked_for() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    bench.tenant(|tenant, _| {
        tenant.options_mut().faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
    });
    let said = bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--settle-after", "1s"]).ends(0);
    said.says(["it will be settled in 1.0 s"]);
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
    let minted =
        bench.events().into_iter().filter(|event| matches!(event, PassEvent::Minted { .. }));
    assert_eq!(minted.count(), 3);
    let ends: Vec<_> = bench
        .events()
        .into_iter()
        .filter(|event| matches!(event, PassEvent::Deleted { .. } | PassEvent::Replaced { .. }))
        .collect();
    assert!(matches!(ends[..], [PassEvent::Deleted { .. }]), "{ends:?}");
}

// Case: the latency of a real tenant. Nobody is asked for twice, whatever is in flight.
#[test]
fn one_request_per_person_is_in_flight() {
    let mut tenant = Tenant::for_wave(people(40), 5);
    tenant.options_mut().latency.most = Duration::from_millis(40);
    let bench = Bench::new(tenant);
    bench.wave(people(40));
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key, "--max-in-flight", "8"]).ends(0);
    assert_eq!(bench.posts(), 40);
    let minted =
        bench.events().into_iter().filter(|event| matches!(event, PassEvent::Minted { .. }));
    assert_eq!(minted.count(), 40);
}

// Case: every format of `open` agrees with the tenant, and the JSON has the documented names.
#[test]
fn the_opened_json_has_the_documented_names() {
    let bench = Bench::of(1);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let flags = ["open", "latest", "-i", &it.file, "--format", "json"];
    let rows = bench.tapwave(&flags).ends(0).json();
    assert_eq!(codes_in(&rows), bench.codes());
    let names = keys(&rows[0]);
    for name in [
        "userPrincipalName",
        "temporaryAccessPass",
        "startDateTime",
        "lifetimeInMinutes",
        "isUsableOnce",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

// Case: everybody is left out as it was asked for. That is no failure to a script, and a person
// must not take it for a wave that went well.
#[test]
fn a_wave_in_which_nobody_gets_a_pass_says_so() {
    let bench = Bench::of(1);
    let it = bench.reader("key");
    bench.tenant(|tenant, now| tenant.issue_elsewhere(now, &person(1)).expect("a pass"));
    bench.wave(["gone@contoso.example".to_owned(), person(1)]);
    let flags = ["wave.csv", "-r", &it.key, "--skip-ineligible", "--existing", "skip"];
    let nobody = "no pass for anybody: 1 row has problems, 1 row has a live pass, or belongs to another open run, and is left alone";

    let said = bench.tapwave(&[&["check"], &flags[..]].concat()).ends(0);
    said.says([nobody, "--rejects rejects.csv"]).hides("tapwave run");
    let posts = bench.events().len();
    let said = bench.tapwave(&[&["run"], &flags[..]].concat()).ends(0);
    let said = said.says(["2 rows: no pass issued, 1 skipped, 1 ineligible", nobody]);
    for command in ["tapwave open", "tapwave cleanup", "tapwave deliver", "handoff: "] {
        assert!(!said.err.contains(command), "{command}: {}", said.err);
    }
    said.says(["next: tapwave status wave-"]);
    let said = bench.tapwave(&[&["run", "--json", "--quiet"], &flags[..]].concat()).ends(0);
    assert!(said.err.ends_with(&format!("\nwarning: {nobody}\n")), "{}", said.err);
    let summary = said.json();
    assert_eq!(keys(&summary), SUMMARY);
    for (name, value) in [("rows", 2), ("issued", 0), ("ineligible", 1), ("skipped", 1)] {
        assert_eq!(summary[name], value, "{name}");
    }
    bench.tapwave(&["resume", "latest"]).ends(0).says(["no pass issued", nobody]);
    bench.tapwave(&["open", "latest", "-i", &it.file]).ends(0).says(["no pass of this run"]);
    let said = bench.tapwave(&["cleanup", "latest"]).ends(0).says(["there was no pass to remove"]);
    said.hides("purged").hides("removed");
    assert_eq!(bench.events().len(), posts, "nothing was changed in the tenant");
}
