//! Promises that whatever cannot be used is named with its place and its remedy, and that
//! nothing was changed in the tenant and nothing left on the disk.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use tapwave_simulator::options::{Call, NextLink};
use tapwave_simulator::{PolicyTarget, Tenant};

use crate::support::bench::{ANYBODY, Bench, Said, people, person};

/// A key whose file nobody holds.
const KEY: &str = "age1ek7q2ypfzd3htynvu2ygj0t7njlsh4qjl0qt3n3w3vjgtlkyy55qhvz45x";
/// Its shape is that of a private key; its checksum is wrong, and must not matter.
const PRIVATE: &str = "AGE-SECRET-KEY-1AD2X7W90D3FEY3X9LJEVUR7QF5L6QDRKEQX3KHV3AFK7ETFA9VYS3UW0N6";

impl Bench {
    /// Runs and checks a wave that cannot be read: exit 2, these words, and nothing changed.
    #[track_caller]
    fn refuses_wave<const N: usize>(&self, wave: &str, words: [&str; N]) {
        let before = self.everything();
        for command in ["check", "run"] {
            let said = self.tapwave(&[command, wave, "-r", KEY]).ends(2);
            assert_eq!(said.out, "");
            said.says(["error: ", wave]).says(words);
        }
        self.is_untouched();
        assert_eq!(self.everything(), before, "nothing is left on the disk");
    }
}

// Case: a file without a byte, and one with blank lines alone.
#[test]
fn an_empty_file() {
    let bench = Bench::of(1);
    for nothing in ["", "\n\r\n  \n", "\u{feff}"] {
        bench.write("empty.csv", nothing);
        bench.refuses_wave("empty.csv", ["the wave is empty", "userPrincipalName"]);
    }
    bench.write("head.csv", "userPrincipalName\n");
    bench.refuses_wave("head.csv", ["has a header but no rows", "below line 1"]);
}

// Case: no column could hold the name.
#[test]
fn no_such_column() {
    let bench = Bench::of(1);
    bench.write("wave.csv", "Mail,Name\nperson1@contoso.example,One\n");
    bench.refuses_wave("wave.csv", ["no userPrincipalName column", "\"Mail\"", "rename"]);
}

// Case: one row more than a wave may have.
#[test]
fn a_million_and_one_rows() {
    let bench = Bench::of(1);
    let mut text = String::from("userPrincipalName\n");
    for number in 0..=1_000_000 {
        writeln!(text, "p{number}@contoso.example").expect("a string");
    }
    bench.write("wave.csv", text);
    let begun = Instant::now();
    let before = bench.everything().len();
    let said = bench.tapwave(&["check", "wave.csv", "-r", KEY]).ends(2);
    println!("1,000,001 rows: refused after {:.1} s", begun.elapsed().as_secs_f64());
    said.says(["the wave has more than 1,000,000 rows", "split it into several files"]);
    bench.is_untouched();
    assert_eq!(bench.everything().len(), before);
}

// Case: a name with a space in it, among good ones.
#[test]
fn a_name_with_a_space() {
    let bench = Bench::of(2);
    bench.wave([&person(1), "per son@contoso.example"]);
    let said = bench.tapwave(&["run", "wave.csv", "-r", KEY]).ends(3);
    said.says(["3", "per son@contoso.example", "holds a space", "as Entra shows it"]);
    bench.is_unchanged();
}

// Case: a NUL byte, as in a file that is no text.
#[test]
fn a_nul_byte() {
    let bench = Bench::of(1);
    bench.write("wave.csv", b"userPrincipalName\nperson1@contoso.example\n\0\0\n");
    bench.refuses_wave("wave.csv", ["line 3 holds a NUL byte", "save it as CSV in UTF-8"]);
    bench.write("book.xlsx", b"PK\x03\x04rest of a workbook");
    bench.refuses_wave("book.xlsx", ["Excel workbook", "CSV UTF-8"]);
}

// Case: a folder, nothing at all, and a file that may not be read.
#[test]
fn an_unreadable_file() {
    let bench = Bench::of(1);
    fs::create_dir(bench.path("folder.csv")).expect("made");
    bench.refuses_wave("folder.csv", ["it is a folder", "hint: name the CSV file"]);
    let nothing = format!("hint: nothing is at {}; ", bench.place("missing.csv"));
    bench.refuses_wave("missing.csv", ["failed to open missing.csv", &nothing]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = bench.path("wave.csv");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("changed");
        // Whoever is root reads it all the same.
        if fs::File::open(&path).is_err() {
            bench.refuses_wave("wave.csv", ["failed to open"]);
        }
    }
}

// Case: a file that is not there, wherever one is named. Each is told with its place and what
// to do, before anybody signs in.
#[test]
fn a_file_that_is_not_there() {
    let bench = Bench::of(1);
    let it = bench.reader("key");
    bench.write("ca.toml", "ca_file = \"gone\"\n");
    let mail = "[mail]\ncourier = \"graph\"\nfrom = \"onboarding@contoso.example\"\n";
    bench.write("mail.toml", mail);
    bench.write("secret.toml", "client_secret_file = \"gone\"\nclient_id = \"x\"\n");
    let check = ["check", "wave.csv", "-r", KEY];
    let secret = ["--auth", "client-secret", "--tenant", "contoso.example"];
    for (arguments, place, remedy) in [
        (&["check", "gone", "-r", KEY][..], "gone", "give the path of the wave's CSV file"),
        (&["run", "gone", "-r", KEY], "gone", "give the path of the wave's CSV file"),
        (&["rehearse", "gone"], "gone", "give the path of the wave's CSV file"),
        (&["cleanup", "--csv", "gone", "--yes"], "gone", "give the path of the wave's CSV file"),
        (&["check", "wave.csv", "-R", "gone"], "gone", "check that the file exists"),
        (&["check", "wave.csv", "--config", "gone"], "gone", "without --config, tapwave.toml"),
        (&["check", "wave.csv", "--ca-file", "gone"], "gone", "give a PEM file of certificates"),
        (&["check", "wave.csv", "--config", "ca.toml"], "gone", "give a PEM file of certificates"),
        (&[&["--config", "secret.toml"], &secret[..], &check].concat(), "gone", "in tapwave.toml"),
        (
            &[&check[..], &["--config", "mail.toml", "--deliver", "--template", "gone"]].concat(),
            "gone",
            "name their folder with --template",
        ),
        (
            &[&check[..], &["--config", "mail.toml", "--deliver", "-i", "gone"]].concat(),
            "gone",
            "give the path of the identity file that tapwave keygen",
        ),
        (&["open", "wave.csv", "-i", "gone"], "gone", "give the path of the identity file"),
        (&[&check[..], &["--rejects", "gone/bad.csv"]].concat(), "gone/bad.csv", "make the folder"),
        (&[&check[..], &["--log", "gone/log"]].concat(), "gone/log", "make the folder"),
        (&["keygen", "-o", "gone/key"], "gone/key", "make the folder"),
    ] {
        let url = bench.graph_url();
        let graph = ["--graph-url", &url];
        let graph = if arguments.contains(&"secret.toml") { &[][..] } else { &graph };
        let said = Said::of(&mut bench.command(&[arguments, graph].concat())).ends(2);
        let told: Vec<&str> = said.err.lines().filter(|line| line.contains(place)).collect();
        assert!(!told.is_empty() && said.err.contains(remedy), "{arguments:?}: {}", said.err);
    }
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let open = ["open", "latest", "-i", &it.file, "-o", "gone/passes.csv"];
    bench.tapwave(&open).ends(2).says(["failed to write gone/passes.csv", "make the folder"]);
}

// Case: somebody gives the private half of their key, in each place that takes a public one.
#[test]
fn a_recipient_that_is_a_private_key() {
    let bench = Bench::of(2);
    let lower = PRIVATE.to_lowercase();
    for key in [PRIVATE, &lower] {
        let said = bench.tapwave(&["run", "wave.csv", "-r", key]).ends(2);
        said.says(["is a private key", "age1"]).hides(key);
        let said = bench.tapwave(&["run", "wave.csv", "-r", KEY, "--break-glass", key]).ends(2);
        said.says(["is a private key"]).hides(key);
        assert!(bench.everything().values().all(|bytes| !holds(bytes, key)));
    }
    bench.write("team.txt", format!("# team\n{PRIVATE}\n"));
    let said = bench.tapwave(&["run", "wave.csv", "-R", "team.txt"]).ends(2);
    said.says(["team.txt, line 2", "is a private key"]).hides(PRIVATE);
    bench.is_untouched();
}

// Case: a private key in the recipient column. It reaches neither the ledger nor the
// rejected rows, and in tapwave.toml it is not echoed either.
#[test]
fn a_private_key_in_the_wave_is_kept_nowhere() {
    let bench = Bench::of(2);
    let (one, two) = (person(1), person(2));
    bench.write("wave.csv", format!("UPN,recipient,note\n{one},{PRIVATE},x\n{two},,y\n"));
    let run = ["run", "wave.csv", "-r", KEY, "--skip-ineligible", "--rejects", "rejects.csv"];
    let said = bench.tapwave(&[&run[..], &["--log", "log.jsonl", "-vv"]].concat()).ends(0);
    said.says(["column recipient", "is a secret key", "next: "]).hides(PRIVATE);
    for (path, bytes) in bench.everything() {
        let wave = path.ends_with("wave.csv");
        assert!(wave || !holds(&bytes, PRIVATE), "the key lies in {}", path.display());
    }
    assert!(bench.read("rejects.csv").contains("(a private key)"));

    bench.settings(format!("[recipients]\nlead = \"{PRIVATE}\"\n"));
    bench.write("wave.csv", format!("UPN,recipient\n{one},lead\n"));
    bench.tapwave(&["run", "wave.csv"]).ends(3).says(["is a private key"]).hides(PRIVATE);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

// Case: a run folder that a later version made.
#[test]
fn a_run_folder_of_a_newer_version() {
    let bench = Bench::of(2);
    bench.tapwave(&["run", "wave.csv", "-r", KEY]).ends(0);
    let ledger = bench.runs()[0].join("ledger.db");
    let db = Connection::open(&ledger).expect("a database");
    db.pragma_update(None, "user_version", 99).expect("changed");
    db.close().map_err(|(_, error)| error).expect("closed");
    let (events, requests) = (bench.events().len(), bench.requests());
    let run = bench.runs()[0].to_str().expect("text").to_owned();
    let it = bench.reader("key");
    for command in [
        &["resume", &run][..],
        &["status", &run],
        &["cleanup", &run],
        &["open", &run, "-i", &it.file],
    ] {
        bench.tapwave(command).ends(2).says(["version 99", "update tapwave"]);
    }
    let listed = bench.tapwave(&["runs"]).ends(0);
    assert!(listed.out.contains("cannot be read: ") && listed.out.contains("version 99"));
    assert_eq!((bench.events().len(), bench.requests()), (events, requests));
}

// Case: two processes and one run folder. The second is told who has it, touches nothing, and
// lets the first end in peace.
#[test]
fn a_run_folder_in_use() {
    let bench = Bench::of(2);
    bench.hold(Call::ReadPolicy, 1);
    let it = bench.reader("key");
    let url = bench.graph_url();
    let run = ["run", "wave.csv", "-r", &it.key, "--run", "mine"];
    let graph = ["--graph-url", url.as_str(), "--auth", "token"];
    let mut first = bench.command(&[&run[..], &graph[..]].concat());
    let mut first = first.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    let held = bench.path("mine/ledger.holder");
    await_until(|| held.exists());
    // Before the ledger is whole, and after.
    for when in ["while it checks", "while it issues"] {
        let said = bench.tapwave(&run).ends(2);
        assert!(
            said.err.contains("the run is in use") || said.err.contains("there is one already"),
            "{when}: {}",
            said.err
        );
        assert!(bench.path("mine/ledger.lock").exists(), "{when}: the lock stays");
        // From its check to its first pass.
        bench.hold(Call::Issue, 1);
        await_until(|| bench.tenant(|tenant, _| tenant.seen(Call::Issue)) > 0);
    }
    for command in ["resume", "cleanup"] {
        let said = bench.tapwave(&[command, "mine"]).ends(2);
        said.says(["the run is in use", &format!("process {}", first.id()), "wait for it to end"]);
    }
    bench.let_go();
    assert!(first.wait().expect("it ends").success());
    assert_eq!(bench.opened("mine", &it.file), bench.codes());
    assert_eq!(bench.codes().len(), 2);
}

/// Waits for something that another process does.
#[track_caller]
fn await_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(5);
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// Case: an address that a token must not go to.
#[test]
fn an_http_address_that_is_not_this_machine() {
    let bench = Bench::of(1);
    for url in
        ["http://graph.contoso.example", "http://127.0.0.1.contoso.example", "ftp://localhost"]
    {
        let flags = ["check", "wave.csv", "-r", KEY, "--auth", "token", "--graph-url", url];
        let said = Said::of(&mut bench.command(&flags)).ends(2);
        said.says([url, "https://", "http:// to this machine"]);
    }
    bench.is_untouched();
}

// Case: nobody answers at Graph's address before the first pass.
#[test]
fn an_address_where_nobody_answers() {
    let bench = Bench::of(1);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    let flags = ["run", "wave.csv", "-r", KEY, "--auth", "token", "--graph-url", &url];
    let said = bench.as_time_passes(&flags).ends(6);
    said.says(["hint: nothing was issued; try again when Graph is back"]).hides("resume");
    let flags = ["check", "--access", "--auth", "token", "--graph-url", &url];
    let said = bench.as_time_passes(&flags).ends(6);
    said.says(["hint: check the network"]).hides("resume");
    bench.is_untouched();
}

// Case: Graph's next page lies on another host. The token must not go there.
#[test]
fn a_next_link_to_another_host() {
    let other = Bench::of(1);
    let mut tenant = Tenant::for_wave(people(60), 3);
    let group = tenant.group_id("Onboarding").expect("a group");
    tenant.policy_mut().include = vec![PolicyTarget::group(group)];
    tenant.options_mut().page_size = 50;
    let elsewhere = format!("{}/v1.0", other.graph_url());
    tenant.options_mut().next_link = NextLink::Elsewhere(elsewhere);
    let bench = Bench::new(tenant);
    bench.wave(people(60));
    let host = other.graph_url().replace("http://", "");
    for command in ["check", "run"] {
        let said = bench.tapwave(&[command, "wave.csv", "-r", KEY]).ends(1);
        said.says([&host, "hint: the token was not sent there"])
            .hides(crate::support::bench::OPAQUE);
    }
    bench.is_unchanged();
    other.is_untouched();
}

// Case: a typing error in tapwave.toml, and values it cannot have.
#[test]
fn a_settings_file_that_cannot_be_meant() {
    let bench = Bench::of(1);
    for (text, said) in [
        ("max_in_fligth = 3\n", "max_in_fligth"),
        ("[recipients]\nx = 3\n", "expected a text, or a list of texts"),
        ("lifetime = \"long\"\n", "lifetime"),
        ("cloud = \"moon\"\n", "moon"),
        ("graph_url = \"http://contoso.example\"\n", "http://contoso.example"),
        ("fence = \"soon\"\n", "soon"),
        ("= broken", "line 1"),
    ] {
        bench.write("tapwave.toml", text);
        let said_it = bench.tapwave(&["check", "wave.csv", "-r", KEY]);
        // A flag on the command line goes before the file's address.
        if text.starts_with("graph_url") {
            let named = ["check", "wave.csv", "-r", KEY, "--config", "tapwave.toml"];
            bench.tapwave(&named).ends(0);
            let flags = ["check", "wave.csv", "-r", KEY, "--auth", "token"];
            // Whoever cannot be meant need not be trusted first.
            Said::of(&mut bench.command(&flags)).ends(2).says([said]);
            continue;
        }
        said_it.ends(2).says([said]);
    }
    let missing = bench.tapwave(&["check", "wave.csv", "-r", KEY, "--config", "no.toml"]).ends(2);
    missing.says(["failed to read the settings file no.toml"]);
}

// Case: values of flags that cannot be meant.
#[test]
fn flags_out_of_their_bounds() {
    let bench = Bench::of(1);
    for (flags, said) in [
        (&["--lifetime", "9"][..], "9 minutes"),
        (&["--lifetime", "31d"], "give 10 to 43200 minutes"),
        (&["--lifetime", "8x"], "not a number of minutes"),
        (&["--start", "tomorrow"], "write it like 2027-03-01T08:00"),
        (&["--start", "2099-01-01T08:00"], "add an offset"),
        (&["--start", "2099-01-01"], "has no time of day"),
        (&["--start", "2099-03-29T02:30", "--time-zone", "Europe/Berlin"], "go forward"),
        (&["--time-zone", "W. Europe Standard Time"], "Windows zone name"),
        (&["--time-zone", "Mars/Olympus"], "IANA"),
        (&["--max-in-flight", "0"], "give 1 to 512"),
        (&["--max-rate", "0"], "give 0.01 to 10000"),
        (&["--settle-after=-5m"], "give a duration"),
        (&["--one-time", "--multi-use"], "cannot be used with"),
        (&["-R", "missing.txt"], "missing.txt"),
        (&["-r", "nobody"], "nobody"),
    ] {
        let all = [&["check", "wave.csv", "-r", KEY], flags].concat();
        bench.tapwave(&all).ends(2).says([said]);
    }
    bench.is_untouched();
}

// Case: a password in an address, whatever the command: others read command lines. It is said
// nowhere again, in no hint and in no file.
#[test]
fn a_password_on_the_command_line() {
    let bench = Bench::of(1);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let (before, requests) = (bench.everything(), bench.requests());
    let url = "http://ada:hunter2@127.0.0.1:9";
    for flag in ["--proxy", "--graph-url", "--authority-url"] {
        for command in [
            &["open", "latest", "-i", &it.file, "--user", "nobody@contoso.example"][..],
            &["status", "latest"],
            &["manifest", "latest"],
            &["resume", "latest"],
            &["cleanup", "wave.csv"],
            &["check", "wave.csv", "-r", KEY],
            &["rehearse", "wave.csv"],
            &["policy", "show"],
            &["runs"],
        ] {
            let arguments = [command, &[flag, url, "--log", "log.jsonl"]].concat();
            let said = Said::of(&mut bench.command(&arguments)).ends(2);
            said.says([&format!("{flag} cannot hold a user or a password")]).hides("hunter2");
        }
    }
    assert_eq!((bench.everything(), bench.requests()), (before, requests));
}

// Case: a settling time that protects from little. Who waits for none is not told of it.
#[test]
fn a_settling_time_that_is_short() {
    let bench = Bench::of(1);
    let warning = "so short a settling time protects from little";
    let short =
        |command: &[&str]| bench.tapwave(&[command, &["--settle-after", "1s"]].concat()).ends(0);
    short(&["check", "wave.csv", "-r", KEY]).says([warning]);
    short(&["run", "wave.csv", "-r", KEY]).says([warning]);
    short(&["resume", "latest"]).says([warning]);
    short(&["cleanup", "latest"]).says([warning]);
    let wave = ["cleanup", "--csv", "wave.csv", "--yes", "--settle-after", "1s"];
    let url = bench.graph_url();
    let graph = ["--graph-url", url.as_str(), "--auth", "token"];
    bench.as_time_passes(&[&wave[..], &graph[..]].concat()).ends(0).says([warning]);
    short(&["policy", "show"]).hides(warning);
}

// Case: a question, and nobody there to answer it.
#[test]
fn a_question_without_a_terminal() {
    let bench = Bench::of(3);
    bench.tenant(|tenant, now| {
        for number in 1..=2 {
            tenant.issue_elsewhere(now, &person(number)).expect("a pass");
        }
    });
    let said = bench.tapwave(&["cleanup", "--csv", "wave.csv"]).ends(2);
    said.says(["2 passes of the 3 people in wave.csv", "no terminal to ask on", "--yes"]);
    assert_eq!(bench.codes().len(), 2);
    let url = bench.graph_url();
    let graph = ["--graph-url", url.as_str(), "--auth", "token"];
    let wave = ["cleanup", "--csv", "wave.csv", "--yes"];
    let agreed = bench.as_time_passes(&[&wave[..], &graph[..]].concat());
    agreed.ends(0).says(["removed 2 passes"]);
    assert_eq!(bench.codes().len(), 0);
}

// Case: a folder that is somebody else's, or open to others.
#[test]
fn a_run_folder_that_cannot_be_one() {
    let bench = Bench::of(1);
    fs::create_dir(bench.path("photos")).expect("made");
    bench.write("photos/holiday.jpg", "x");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = fs::Permissions::from_mode(0o755);
        fs::create_dir(bench.path("open")).expect("made");
        fs::set_permissions(bench.path("open"), open).expect("changed");
        let said = bench.tapwave(&["run", "wave.csv", "-r", KEY, "--run", "open"]).ends(2);
        said.says(["others may enter it", "chmod 700"]);
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(bench.path("photos"), private).expect("changed");
    }
    let said = bench.tapwave(&["run", "wave.csv", "-r", KEY, "--run", "photos"]).ends(2);
    said.says(["holiday.jpg", "name a new folder with `--run`"]);
    assert_eq!(bench.read("photos/holiday.jpg"), "x");
    bench.is_untouched();
}

// Case: the tenant refuses the token.
#[test]
fn a_token_that_the_tenant_refuses() {
    let bench = Bench::of(1);
    let url = bench.graph_url();
    let flags = ["run", "wave.csv", "-r", KEY, "--graph-url", &url, "--auth", "token"];
    let said = Said::of(bench.command(&flags).env("TAPWAVE_ACCESS_TOKEN", "stale")).ends(5);
    said.says(["hint: "]).hides("stale");
    let said = Said::of(bench.command(&flags).env_remove("TAPWAVE_ACCESS_TOKEN")).ends(2);
    said.says(["TAPWAVE_ACCESS_TOKEN"]);
    bench.is_unchanged();
}

// Case: a script asks for JSON, and the command ends before its end.
#[test]
fn an_error_is_one_json_object_too() {
    let bench = Bench::of(1);
    bench.tenant(|tenant, _| tenant.policy_mut().enabled = false);
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "--json"]).ends(3);
    let told = said.json();
    assert_eq!((&told["schema"], &told["exit"]), (&json!("tapwave.error/1"), &json!(3)));
    assert!(told["error"].as_str().is_some_and(|words| words.contains("disabled")), "{told}");
    assert!(told["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "{told}");
}
