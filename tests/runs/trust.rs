//! Promises that no file decides whom to trust which is not its reader's own and was not seen:
//! neither a ledger, nor a run folder of somebody else's, nor settings that were merely found.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::site::{Site, Told};

/// A key whose identity an attacker has.
const THEIRS: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// The same command without an address of Graph.
fn unaddressed(site: &Site, args: &[&str]) -> Command {
    without(site, "--graph-url", args)
}

/// The same command without an option that every command gets here, and its value.
fn without(site: &Site, option: &str, args: &[&str]) -> Command {
    let full = site.tapwave(args);
    let mut command = Command::new(full.get_program());
    let args = full.get_args().collect::<Vec<_>>();
    let at = args.iter().position(|arg| *arg == option).expect("it is there");
    command.args(&args[..at]).args(&args[at + 2..]).current_dir(site.home.path()).env_clear();
    command.envs(full.get_envs().map(|(name, value)| (name, value.expect("set"))));
    command
}

/// Changes what a ledger says of its run.
fn change_about(site: &Site, path: &str, to: &str) {
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    let sql = format!("UPDATE about SET about_json = json_set(about_json, '{path}', ?1)");
    assert_eq!(db.execute(&sql, [to]).expect("changed"), 1);
}

fn told(mut command: Command) -> Told {
    Told::of(command.output().expect("started"))
}

// Case: a ledger names a server of somebody else's as Graph.
#[test]
fn a_token_goes_nowhere_that_only_a_ledger_names() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let theirs = TcpListener::bind("127.0.0.1:0").expect("a port");
    theirs.set_nonblocking(true).expect("set");
    let url = format!("http://{}", theirs.local_addr().expect("an address"));
    change_about(&site, "$.graphUrl", &url);
    for args in [
        &["status", "wave-run", "--live"][..],
        &["cleanup", "wave-run"],
        &["cleanup", "wave-run", "--yes"],
        &["resume", "wave-run", "--yes"],
    ] {
        let refused = told(unaddressed(&site, args)).exits(2);
        refused
            .says("a token goes there only if you name it now")
            .says(&format!("add --graph-url {url}"));
        assert!(theirs.accept().is_err(), "{args:?}: somebody has called");
    }
    told(unaddressed(&site, &["status", "wave-run"])).exits(0);
    assert_eq!(site.live().len(), 2);
}

// Case: a run folder that others may write, or that is another user's, also for root.
#[cfg(unix)]
#[test]
fn a_run_folder_that_others_write_is_not_acted_on() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let asked = site.requests();
    let acts = [
        &["status", "wave-run", "--live"][..],
        &["cleanup", "wave-run", "--yes"],
        &["resume", "wave-run", "--yes"],
    ];
    fs::set_permissions(site.folder(), fs::Permissions::from_mode(0o777)).expect("opened");
    for args in acts {
        site.told(args).exits(2).says("others may enter it").says("chmod 700");
    }
    fs::set_permissions(site.folder(), fs::Permissions::from_mode(0o700)).expect("closed");
    let given = Command::new("chown").args(["-R", "65534"]).arg(site.folder()).status();
    if !rustix::process::geteuid().is_root() || !given.is_ok_and(|given| given.success()) {
        return crate::runs::damaged::eprintln_skip("only root can give a folder away");
    }
    for args in acts {
        site.told(args).exits(2).says("belongs to another user (65534)");
    }
    assert_eq!(site.requests(), asked, "nobody was called");
    assert_eq!(site.live().len(), 2);
}

/// Settings that would have a program run, and send the passes to somebody else.
fn steering(site: &Site) -> String {
    let ran = site.path("ran");
    format!(
        "break_glass = \"{THEIRS}\"\nclient_secret_command = [\"touch\", '{}']\n[mail]\nhost = \"relay.example\"\n",
        ran.display()
    )
}

// Case: a tapwave.toml that somebody has put into the current folder.
#[test]
fn found_settings_have_no_effect_until_they_are_trusted() {
    let site = Site::open(1);
    let path = site.path("tapwave.toml");
    fs::write(&path, steering(&site)).expect("written");
    let check = ["check", "wave.csv", "-r", site.recipient()];
    for args in [&check[..], &["run", "wave.csv", "-r", site.recipient(), "--yes"]] {
        let refused = site.told(args).exits(2).says("decides whom to trust; nothing was done");
        refused
            .says(&format!("break_glass = \"{THEIRS}\""))
            .says("client_secret_command = [\"touch\"")
            .says("mail.host = \"relay.example\"")
            .says("tapwave settings --trust")
            .says("--config tapwave.toml");
    }
    assert!(!site.path("ran").exists(), "no program was run");
    assert_eq!(site.requests(), 0);
    // Looking is not obeying.
    site.told(&["settings"]).exits(0).says("nobody has trusted this file yet");
    let named = [&check[..], &["--config", "tapwave.toml"]].concat();
    site.told(&named).exits(0).says("break-glass (age1ql3z7hjy54pw3hyw…)");
    site.told(&["settings", "--trust"]).exits(0).says(THEIRS).says("trusted, until it changes");
    let told = site.told(&["settings", "--trust", "--json"]).exits(0);
    assert_eq!(
        serde_json::from_str::<Value>(&told.out).expect("JSON")["schema"],
        "tapwave.settings/1"
    );
    site.told(&check).exits(0).says("break-glass (age1ql3z7hjy54pw3hyw…)");
    fs::write(&path, format!("{}# more\n", steering(&site))).expect("changed");
    site.told(&check).exits(2).says("tapwave settings --trust");
    // What has no effect needs no agreement.
    fs::write(&path, "lifetime = 60\n").expect("written");
    site.told(&check).exits(0);
    site.told(&["settings", "--trust"]).exits(2).says("there is nothing to trust");
}

// Case: the same on a terminal.
#[cfg(unix)]
#[test]
fn a_person_at_the_terminal_is_asked_once() {
    let site = Site::open(1);
    fs::write(site.path("tapwave.toml"), steering(&site)).expect("written");
    let check = ["check", "wave.csv", "-r", site.recipient()];
    for (answer, code) in [(b"n", 2), (b"y", 0)] {
        let mut window = crate::support::pty::Window::open(&site.tapwave(&check));
        window.until_shown("trust this file as it is now?");
        window.press(answer);
        let (ended, shown) = window.end();
        assert_eq!(ended, Some(code), "{shown}");
        assert!(shown.contains(THEIRS), "{shown}");
    }
    site.told(&check).exits(0);
}

// Case: a settings file that others own or may write, named or not.
#[cfg(unix)]
#[test]
fn settings_that_others_may_change_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::open(1);
    let path = site.path("tapwave.toml");
    fs::write(&path, "lifetime = 60\n").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("opened");
    let check = ["check", "wave.csv", "-r", site.recipient()];
    let named = [&check[..], &["--config", "tapwave.toml"]].concat();
    for args in [&check[..], &named] {
        site.told(args).exits(2).says("others may write to it (mode 666)").says("chmod go-w");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("closed");
    site.told(&check).exits(0);
    let given = Command::new("chown").arg("65534").arg(&path).status();
    if !rustix::process::geteuid().is_root() || !given.is_ok_and(|given| given.success()) {
        return crate::runs::damaged::eprintln_skip("only root can give a file away");
    }
    for args in [&check[..], &named] {
        site.told(args).exits(2).says("it belongs to another user (65534)");
    }
}

// Case: who will be able to read is said before anything is issued, and can be looked up.
#[test]
fn who_can_read_is_always_said() {
    let site = Site::open(2);
    let own = site.recipient();
    site.settings(&format!("break_glass = \"{THEIRS}\"\n[recipients]\nAMS = \"{own}\"\n"));
    let readers = format!("sealed to: AMS ({}…), break-glass (age1ql3z7hjy54pw3hyw…)", &own[..20]);
    site.told(&["check", "wave.csv", "-r", "AMS"]).exits(0).says(&readers);
    let run = ["run", "wave.csv", "-r", "AMS", "--run", "wave-run"];
    site.told(&run).exits(0).says(&readers);
    site.resume().exits(0).says(&readers);
    let status: Value = serde_json::from_str(
        &site.told(&["status", "wave-run", "--json"]).exits(0).says(&readers).out,
    )
    .expect("JSON");
    assert_eq!(status["recipients"][0]["keys"][1], THEIRS);
    assert_eq!(status["recipients"][0]["names"][own], "AMS");
    site.told(&["keygen", "-o", "other.txt"]).exits(0);
    let wrong = site.told(&["open", "wave-run", "-i", "other.txt"]).exits(2);
    wrong.says("they are sealed to AMS (age1").says("break-glass (age1ql3z7hjy54pw3hyw…)");
}

fn from_elsewhere(site: &Site, args: &[&str]) -> Command {
    let mut command = site.tapwave(args);
    command.env("TAPWAVE_HOME", site.path("another-machine"));
    command
}

// Case: a run folder that another machine made, with other recipients in its ledger and the id of
// somebody else's pass.
#[test]
fn a_run_from_another_machine_needs_agreement() {
    let site = Site::open(3);
    site.run(&[]).exits(0);
    change_about(&site, "$.recipients[0].keys[0]", THEIRS);
    let (asked, before) = (site.requests(), site.live());
    for verb in ["resume", "cleanup"] {
        let refused = told(from_elsewhere(&site, &[verb, "wave-run"])).exits(2);
        refused
            .says("this machine did not make the run in")
            .says("people: 3 (user1@contoso.example, user2@contoso.example, user3@contoso.example)")
            .says("tenant: ")
            .says("sealed to, passes: age1ql3z7hjy54pw3hyw…")
            .says("--yes");
    }
    assert_eq!((site.requests(), site.live()), (asked, before));
    #[cfg(unix)]
    {
        let inner = from_elsewhere(&site, &["cleanup", "wave-run"]);
        let mut window = crate::support::pty::Window::open(&inner);
        window.until_shown("carry on here?");
        window.press(b"n");
        let (code, shown) = window.end();
        assert_eq!(code, Some(0), "{shown}");
        assert!(shown.contains("nothing was done"), "{shown}");
        assert_eq!(site.requests(), asked);
    }
    told(from_elsewhere(&site, &["cleanup", "wave-run", "--yes"])).exits(0);
    assert!(site.live().is_empty());
}

/// Killed right after its first pass, a run is this machine's all the same.
#[test]
fn a_run_is_known_from_its_first_pass_on() {
    use tapwave_simulator::options::Call;
    let site = Site::open(3);
    site.hold(Call::Issue, 1);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    assert!(Path::new(&site.folder()).exists());
    site.end_as_time_passes(site.start(&["resume", "wave-run"])).exits(0);
}

// Case: a run from another machine names one person and acts on another, or on somebody whom
// nobody knows by that name.
#[test]
fn a_run_from_elsewhere_acts_on_the_people_whom_it_names() {
    for sql in [
        "UPDATE rows SET user_id = (SELECT user_id FROM rows WHERE line = 4) WHERE line = 2;
         UPDATE intents SET user_id = (SELECT user_id FROM rows WHERE line = 4) WHERE line = 2",
        "UPDATE rows SET user_principal_name = 'nobody@contoso.example' WHERE line = 2",
    ] {
        let site = Site::open(3);
        site.run(&[]).exits(0);
        let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
        db.execute_batch(sql).expect("changed");
        drop(db);
        let before = site.live();
        for verb in ["resume", "cleanup"] {
            // Asked again each time: nobody has worked on it here.
            let refused = told(from_elsewhere(&site, &[verb, "wave-run", "--yes"])).exits(2);
            refused
                .says("this machine did not make the run in")
                .says("the ids of 1 row are not those of the people whom the run names")
                .says("line 2, ")
                .says("tapwave cleanup --csv");
        }
        assert_eq!(site.live(), before);
    }
}

// Case: the folder that remembers whom to trust is open to others.
#[cfg(unix)]
#[test]
fn a_data_folder_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::open(1);
    let home = site.path("tapwave-home");
    fs::create_dir(&home).expect("made");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).expect("opened");
    site.run(&[]).exits(2).says("tapwave-home: others may enter it (mode 777)").says("chmod 700");
    assert!(site.live().is_empty());
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("closed");
    site.run(&[]).exits(0);
}

// Case: a ledger that somebody else can write by another name, or by owning it.
#[cfg(unix)]
#[test]
fn a_ledger_that_others_can_write_is_not_acted_on() {
    let site = Site::open(2);
    site.run(&[]).exits(0);
    let ledger = site.folder().join("ledger.db");
    let asked = site.requests();
    fs::hard_link(&ledger, site.path("second-name.db")).expect("linked");
    for args in [&["status", "wave-run", "--live"][..], &["cleanup", "wave-run", "--yes"]] {
        site.told(args).exits(2).says("it is no file of this folder alone");
    }
    fs::remove_file(site.path("second-name.db")).expect("removed");
    let given = Command::new("chown").arg("65534").arg(&ledger).status();
    if !rustix::process::geteuid().is_root() || !given.is_ok_and(|given| given.success()) {
        return crate::runs::damaged::eprintln_skip("only root can give a file away");
    }
    site.cleanup(&["--yes"]).exits(2).says("ledger.db: it belongs to another user (65534)");
    assert_eq!((site.requests(), site.live().len()), (asked, 2));
}

// Case: settings that never end, or that nobody writes to.
#[cfg(unix)]
#[test]
fn settings_and_secrets_without_an_end_are_refused() {
    let site = Site::open(1);
    let made = Command::new("mkfifo").arg(site.path("tapwave.toml")).status().expect("started");
    assert!(made.success());
    let check = ["check", "wave.csv", "-r", site.recipient()];
    site.told(&check).exits(2).says("tapwave.toml: it is no regular file");
    fs::remove_file(site.path("tapwave.toml")).expect("removed");
    let endless = [&check[..], &["--config", "/dev/zero"]].concat();
    site.told(&endless).exits(2).says("/dev/zero: it is too large");
    fs::write(site.path("named.toml"), "client_secret_file = \"/dev/zero\"\n").expect("written");
    let mut check =
        [&check[..], &["--config", "named.toml", "--tenant", "contoso.example"]].concat();
    check.extend(["--client-id", "9c0f6a1e-3a5e-4a51-9d6c-0d2f4c1b7a10"]);
    let mut command = without(&site, "--auth", &check);
    command.env_remove("TAPWAVE_ACCESS_TOKEN");
    told(command).exits(2).says("too large for a secret");
}

// Case: a found settings file is a link, lies in a folder of a group of one's own, or the note of
// what was trusted is not its reader's own.
#[cfg(unix)]
#[test]
fn what_was_trusted_is_known_through_links_and_groups_and_not_from_others_notes() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let site = Site::open(1);
    let check = ["check", "wave.csv", "-r", site.recipient()];
    fs::write(site.path("real.toml"), steering(&site)).expect("written");
    std::os::unix::fs::symlink(site.path("real.toml"), site.path("tapwave.toml")).expect("linked");
    site.told(&check).exits(2).says("decides whom to trust");
    site.told(&["settings", "--trust"]).exits(0);
    site.told(&check).exits(0);
    let about = fs::metadata(site.path("real.toml")).expect("there");
    if about.gid() == about.uid() {
        fs::set_permissions(site.path("real.toml"), fs::Permissions::from_mode(0o664))
            .expect("set");
        site.told(&check).exits(0);
    }
    let note = site.path("tapwave-home").join("trusted");
    fs::set_permissions(&note, fs::Permissions::from_mode(0o666)).expect("opened");
    site.told(&check).exits(2).says("decides whom to trust");
}

// Case: a settings file in another folder names its files beside itself.
#[test]
fn paths_in_settings_are_relative_to_their_file() {
    let site = Site::open(1);
    fs::create_dir(site.path("etc")).expect("made");
    fs::write(site.path("etc").join("secret.txt"), "hush\n").expect("written");
    let text = "client_secret_file = \"secret.txt\"\nca_file = \"missing.pem\"\n";
    fs::write(site.path("etc").join("tapwave.toml"), text).expect("written");
    let args = ["check", "wave.csv", "-r", site.recipient(), "--config", "etc/tapwave.toml"];
    let missing = Path::new("etc").join("missing.pem");
    site.told(&args).exits(2).says(&missing.display().to_string());
}

// Case: how a run from elsewhere would mail is part of the question.
#[test]
fn how_a_run_from_elsewhere_mails_is_shown() {
    let site = Site::open(1);
    site.settings("[mail]\ncourier = \"graph\"\nfrom = \"user1@contoso.example\"\n");
    let mail = ["--deliver", "--to", "lead@contoso.example", "--body", "sealed"];
    let run = [&["run", "wave.csv", "-r", site.recipient(), "--run", "wave-run"][..], &mail];
    site.told(&run.concat()).exits(0);
    let cleanup = ["cleanup", "wave-run", "--config", "tapwave.toml"];
    let asked = told(from_elsewhere(&site, &cleanup)).exits(2);
    asked.says("mail: sealed to lead@contoso.example");
}

// Case: settings call an attacker's key by the key of somebody who is trusted.
#[test]
fn a_label_does_not_count_as_a_key() {
    let site = Site::open(1);
    for label in [site.recipient(), "age1lead", "ssh-ed25519", "AGE-SECRET-KEY-1", "Age1x"] {
        let text = format!("[recipients]\n\"{label}\" = \"{THEIRS}\"\n");
        fs::write(site.path("named.toml"), text).expect("written");
        let check = ["check", "wave.csv", "-r", site.recipient(), "--config", "named.toml"];
        let refused = site.told(&check).exits(2);
        refused.says("cannot be the label of a recipient");
    }
}

// Case: a command or a path that looks as if it were an address with a login.
#[test]
fn what_a_found_file_runs_is_shown_whole_and_logins_are_not() {
    let site = Site::open(1);
    let text = "proxy = \"ada:hunter2@proxy.example:1\"\nca_file = 'x://a@b.pem'\n\
        client_secret_command = [\"sh\", \"-c\", \"touch ran; : https://x@login.example\"]\n\
        [mail]\npassword_command = 'evil://program@vault'\nhost = \"\"\"relay\nit says: nothing\"\"\"\n";
    fs::write(site.path("tapwave.toml"), text).expect("written");
    for args in [&["settings", "--trust"][..], &["check", "wave.csv", "-r", site.recipient()]] {
        let told = site.told(args);
        let told = told
            .says("touch ran; : https://x@login.example")
            .says("evil://program@vault")
            .says("x://a@b.pem")
            .says("…@proxy.example:1");
        assert!(!told.err.contains("hunter2"), "{told:?}");
        assert!(!told.err.lines().any(|line| line.starts_with("it says: nothing")), "{told:?}");
        fs::write(site.path("tapwave.toml"), format!("{text}# more\n")).expect("changed");
    }
    let shown = site.told(&["settings"]);
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
}

// Case: the question is so long that its end is all that anybody sees at once.
#[test]
fn every_key_is_shown_before_a_file_is_trusted_and_commands_come_last() {
    let site = Site::open(1);
    let labels: Vec<String> =
        (0..500).map(|nth| format!("site{nth:03} = \"{THEIRS}\"\n")).collect();
    let labels = labels.concat();
    let many = vec![format!("\"{THEIRS}\""); 500].join(", ");
    let text =
        format!("client_secret_command = \"evil\"\nbreak_glass = [{many}]\n[recipients]\n{labels}")
            .replace("\"evil\"", "[\"evil\"]");
    fs::write(site.path("tapwave.toml"), text).expect("written");
    let told = site.told(&["settings", "--trust"]).exits(0);
    let lines: Vec<&str> = told.err.lines().collect();
    let at = |words: &str| lines.iter().position(|line| line.contains(words)).expect(words);
    assert!(at("recipients.site499") < at("client_secret_command = [\"evil\"]"));
    let glass = lines[at("break_glass = ")];
    assert_eq!(glass.matches(THEIRS).count(), 1, "once is enough");
}

// Case: a note of what was trusted that would never be believed.
#[cfg(unix)]
#[test]
fn trust_is_not_recorded_where_it_would_be_ignored() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::open(1);
    fs::write(site.path("tapwave.toml"), steering(&site)).expect("written");
    let home = site.path("tapwave-home");
    fs::create_dir(&home).expect("made");
    for mode in [0o777, 0o775, 0o770] {
        fs::set_permissions(&home, fs::Permissions::from_mode(mode)).expect("opened");
        let refused = site.told(&["settings", "--trust"]).exits(2);
        refused.says(&format!("(mode {mode:03o})")).says("chmod 700");
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("closed");
    fs::rename(&home, site.path("real-home")).expect("moved");
    std::os::unix::fs::symlink(site.path("real-home"), &home).expect("linked");
    let refused = site.told(&["settings", "--trust"]).exits(2);
    refused.says("is a symbolic link").says("TAPWAVE_HOME");
    fs::remove_file(&home).expect("removed");
    fs::rename(site.path("real-home"), &home).expect("moved");
    site.told(&["settings", "--trust"]).exits(0).says("trusted, until it changes");
    // What others may write is replaced, and believed then.
    fs::set_permissions(home.join("trusted"), fs::Permissions::from_mode(0o666)).expect("opened");
    site.told(&["settings", "--trust"]).exits(0);
    site.told(&["check", "wave.csv", "-r", site.recipient()]).exits(0);
}

/// A run of three whose passes are to be mailed, and then `sql` done to its ledger.
fn mailed_elsewhere(to: &str, sql: &str) -> Site {
    let site = Site::open(3);
    site.settings("[mail]\ncourier = \"graph\"\nfrom = \"user1@contoso.example\"\n");
    let run = ["run", "wave.csv", "-r", site.recipient(), "--run", "wave-run"];
    site.told(&[&run[..], &["--to", to, "--body", "sealed"]].concat()).exits(0);
    let db = rusqlite::Connection::open(site.folder().join("ledger.db")).expect("opened");
    db.execute_batch(sql).expect("changed");
    site
}

/// No line begins with words that a file brought.
#[cfg(unix)]
#[track_caller]
fn forges_nothing(told: &Told) {
    assert!(!told.err.lines().any(|line| line.trim_start().starts_with("forged")), "{told:?}");
    assert!(!told.out.lines().any(|line| line.trim_start().starts_with("forged")), "{told:?}");
}

// Case: what a ledger, a settings file or a file's name holds goes on in a new line.
#[cfg(unix)]
#[test]
fn nothing_from_outside_makes_a_line_of_its_own() {
    let site = mailed_elsewhere("mail", "UPDATE about SET place = '/x' || char(10) || 'forged'");
    let was = site.graph_url();
    for (path, to) in [
        ("$.graphUrl", format!("{was}\nforged: https://x")),
        ("$.tenant", "x\nforged".to_owned()),
        ("$.recipients[0].label", "all\nforged".to_owned()),
        ("$.options.mail.templates", "/x\nforged".to_owned()),
        ("$.options.mail.body", "x\nforged".to_owned()),
        ("$.wave.path", "x\nforged".to_owned()),
        ("$.name", "x\nforged".to_owned()),
    ] {
        change_about(&site, path, &to);
        for args in [
            &["status", "wave-run"][..],
            &["status", "wave-run", "--live"],
            &["deliver", "wave-run", "--config", "tapwave.toml"],
            &["deliver", "wave-run", "--config", "tapwave.toml", "--yes"],
            &["cleanup", "wave-run"],
            &["resume", "wave-run", "--yes"],
            &["runs"],
        ] {
            forges_nothing(&told(from_elsewhere(&site, args)));
            forges_nothing(&site.told(args));
        }
        change_about(&site, "$.graphUrl", &was);
    }
    let odd = site.path("x\nforged.age");
    fs::write(&odd, "age-encryption.org/v1\n").expect("written");
    forges_nothing(&site.told(&["open", "x\nforged.age", "-i", "id.txt"]));
    forges_nothing(&site.told(&["open", ".", "-i", "id.txt"]));
    forges_nothing(&site.told(&["open", "gone\nforged.age", "-i", "id.txt"]));
    forges_nothing(&site.told(&["check", "x\nforged.csv", "-r", site.recipient()]));
    let folder = ["run", "wave.csv", "-r", site.recipient(), "--run", "x\nforged"];
    forges_nothing(&site.told(&folder));
    fs::create_dir(site.path("d\nforged")).expect("made");
    fs::write(site.path("d\nforged").join("tapwave.toml"), "tennant = 1\n").expect("written");
    let config = ["check", "wave.csv", "--config", "d\nforged/tapwave.toml"];
    forges_nothing(&site.told(&config));
}

// Case: the name of a key reads like other readers.
#[test]
fn a_keys_name_cannot_pose_as_a_list_of_readers() {
    let site = Site::open(1);
    let label = format!("AMS ({}…), nobody else. And", &site.recipient()[..20]);
    let text = format!("[recipients]\n\"{label}\" = \"{THEIRS}\"\n");
    fs::write(site.path("named.toml"), text).expect("written");
    let told = site.told(&["check", "wave.csv", "-r", &label, "--config", "named.toml"]).exits(0);
    // What to type next repeats what was typed.
    let line = told.err.lines().find(|line| line.starts_with("sealed to: ")).expect("told");
    assert!(line.ends_with(" (age1ql3z7hjy54pw3hyw…)"), "{line}");
    assert_eq!((line.matches('(').count(), line.matches(',').count()), (1, 0), "{line}");
}

// Case: a wave with more sets of recipients than are listed one by one.
#[test]
fn every_key_without_a_name_is_reported() {
    let site = Site::open(30);
    let keys: Vec<String> =
        (0..30).map(|_| age::x25519::Identity::generate().to_public().to_string()).collect();
    let rows = site.people.iter().zip(&keys).map(|(upn, key)| format!("{upn},{key}\n"));
    let wave = format!("userPrincipalName,recipient\n{}", rows.collect::<String>());
    fs::write(site.path("wave.csv"), wave).expect("written");
    let told = site.told(&["check", "wave.csv"]).exits(0);
    for key in &keys {
        assert!(told.err.contains(&key[..20]), "{key} is not in {told:?}");
    }
}

/// Has a row mailed to a thief.
const TO_A_THIEF: &str = "UPDATE rows SET
    reader_json = json_set(reader_json, '$.address', 'thief@evil.example') WHERE line = 3";

// Case: the ledger's rows would be mailed to somebody else than its options say.
#[test]
fn those_who_would_be_mailed_are_shown_as_the_rows_have_them() {
    let site = mailed_elsewhere("mail", TO_A_THIEF);
    let deliver = ["deliver", "wave-run", "--config", "tapwave.toml"];
    let asked = told(from_elsewhere(&site, &deliver)).exits(2);
    asked
        .says("mail: sealed to own mailbox")
        .says("mail goes to: 3 addresses (thief@evil.example, user1@contoso.example, ");
    let site = mailed_elsewhere("lead@contoso.example", TO_A_THIEF);
    let yes = [&deliver[..], &["--yes"]].concat();
    let refused = told(from_elsewhere(&site, &yes)).exits(2);
    refused.says("line 3, user2@contoso.example, to thief@evil.example").says("nothing was done");
    // Somebody who was named with --readdress is no forgery, and is shown.
    let site = mailed_elsewhere("lead@contoso.example", "");
    let readdress = ["--readdress", "2=other@contoso.example"];
    site.told(&[&deliver[..], &readdress, &["--due", "0s"]].concat());
    let asked = told(from_elsewhere(&site, &deliver)).exits(2);
    asked.says("mail goes to: 2 addresses (lead@contoso.example, other@contoso.example)");
}

// Case: a command that has nothing to do with mail would get the relay's password.
#[cfg(unix)]
#[test]
fn no_command_gets_the_password_of_mail_although_nothing_is_mailed() {
    let site = Site::open(1);
    let seen = site.path("seen");
    let text = format!(
        "client_id = \"9c0f6a1e-3a5e-4a51-9d6c-0d2f4c1b7a10\"\ntenant = \"contoso.example\"\n\
         client_secret_command = [\"/bin/sh\", \"-c\", \"echo \\\"$RELAY_PASSWORD.\\\" > '{}'; exit 1\"]\n\
         [mail]\nhost = \"relay.example\"\nusername = \"u\"\nfrom = \"it@contoso.example\"\npassword_env = \"RELAY_PASSWORD\"\n",
        seen.display()
    );
    fs::write(site.path("named.toml"), text).expect("written");
    let check = ["check", "wave.csv", "-r", site.recipient(), "--config", "named.toml"];
    let mut command = without(&site, "--auth", &check);
    command.env_remove("TAPWAVE_ACCESS_TOKEN").env("RELAY_PASSWORD", "hunter2");
    told(command).exits(2);
    assert_eq!(fs::read_to_string(seen).expect("it was run"), ".\n");
}

// Case: a rehearsal beside a settings file that nobody has trusted.
#[test]
fn a_rehearsal_starts_no_plugin_that_an_untrusted_file_names() {
    let site = Site::open(1);
    let text = format!(
        "break_glass = \"age1evil1qqqqqq\"\ndefault_recipients = \"age1evil1qqqqqq\"\n[recipients]\nlead = \"{THEIRS}\"\nevil = \"age1evil1qqqqqq\"\n"
    );
    fs::write(site.path("tapwave.toml"), text).expect("written");
    let told = site.told(&["rehearse", "--rows", "1"]).exits(0);
    told.says("nobody has trusted").says("the keys in it that need a plugin are left out");
    // Sealing a rehearsal's passes to any other key harms nobody.
    let text = format!("userPrincipalName,recipient\n{},lead\n", site.people[0]);
    fs::write(site.path("labelled.csv"), text).expect("written");
    site.told(&["rehearse", "labelled.csv"]).exits(0);
}

// Case: a secret in a line that is no TOML.
#[test]
fn no_error_quotes_a_line_of_the_settings() {
    let site = Site::open(1);
    let check = ["check", "wave.csv", "-r", site.recipient(), "--config", "named.toml"];
    for (text, place, why) in [
        ("\nclient_secret = \"hunter2\"\n", "line 2, column 1", "unknown field `client_secret`"),
        ("proxy = \"http://ada:hunter2@x\" y\n", "line 1, column ", ""),
        ("tennant = 'hunter2'\n", "line 1, column 1", "did you mean tenant?"),
        ("client_secret_command = 'hunter2'\n", "line 1, column 25", "expected a sequence"),
        ("[mail]\ntls = 'hunter2'\n", "line 2, column 7", "starttls"),
        ("max_in_flight = 'hunter2'\n", "line 1, column 17", "expected"),
    ] {
        fs::write(site.path("named.toml"), text).expect("written");
        let told = site.told(&check).exits(2).says(place).says(why);
        assert!(!told.err.contains("hunter2"), "{told:?}");
    }
}
