//! Promises that a run which stopped hard hands over in few files what it had issued by then:
//! one container for each set of recipients, which `open` merges with the rest and which any
//! tar and age read.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use age::secrecy::ExposeSecret;
use serde_json::Value;
use tapwave_simulator::options::{Call, CodeStyle};

use crate::support::others::{PYRAGE_OPENS, age_is_present, present, pyrage_is_present, run};
use crate::support::site::Site;

/// The names in the handoff folder.
fn listing(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.folder().join("handoff")).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.map(|entry| name(entry.expect("one"))).collect();
    names.sort();
    names
}

/// People and codes that `open` lists, each as often as it does.
fn opened(site: &Site, args: &[&str]) -> Vec<(String, String)> {
    let told = site.told(&[&["open"], args, &["--format", "json"]].concat()).exits(0);
    let rows: Vec<Value> = serde_json::from_str(&told.out).expect("an array");
    let text = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
    let mut all: Vec<_> = rows
        .iter()
        .map(|row| (text(row, "userPrincipalName"), text(row, "temporaryAccessPass")))
        .collect();
    all.sort();
    all
}

/// The live codes by the tenant's word.
fn live(site: &Site) -> Vec<(String, String)> {
    site.live().into_iter().map(|(upn, (_, code))| (upn, code)).collect()
}

/// Requests in flight at most.
const IN_FLIGHT: usize = 4;

/// Does something to a run, and kills it when so many people have a pass; all but a few of
/// them are sealed by then.
fn killed(site: &Site, args: &[&str], passes: usize) {
    // What is in flight from then on will not be answered while it runs.
    let more = passes - site.live().len();
    site.hold(Call::Issue, site.seen(Call::Issue) + more as u64 + 1);
    let run = site.start(&[args, &["--max-in-flight", "4"]].concat());
    site.until_held(IN_FLIGHT);
    site.until("what was answered is sealed", |site| site.count("sealed") + IN_FLIGHT >= passes);
    run.kill();
    assert!(site.live().len() < site.people.len(), "killed in the middle");
    site.let_go();
}

/// A run of so many people that was killed in the middle and resumed to its end.
fn carried_on(people: usize) -> Site {
    let site = Site::with(people, |options| options.code_style = CodeStyle::Nasty);
    killed(&site, &site.run_args(&[]), people / 3);
    site.resume().exits(0);
    site
}

#[test]
fn what_was_issued_before_a_kill_is_handed_over_in_one_more_file() {
    let site = carried_on(30);
    assert_eq!(listing(&site), ["passes-resumed.tar", "passes.age"]);
    site.assert_whole("after the resume");
    let folder = site.folder().join("handoff");
    let [age, tar] = ["passes.age", "passes-resumed.tar"].map(|name| folder.join(name));
    let [folder, age, tar] = [&folder, &age, &tar].map(|path| path.to_str().expect("text"));
    let mut held = BTreeMap::new();
    for row in site.status(&[]).values() {
        let file = row["handoff"].as_str().expect("a file").to_owned();
        *held.entry(file).or_insert(0) += 1;
    }
    assert_eq!(held.keys().collect::<Vec<_>>(), ["passes-resumed.tar", "passes.age"]);
    for (what, rows) in [(age, held["passes.age"]), (tar, held["passes-resumed.tar"])] {
        assert_eq!(opened(&site, &[what, "-i", "id.txt"]).len(), rows, "{what}");
    }
    // What stands in two of them is listed once.
    for what in [&[folder][..], &[age, tar], &[tar, age, tar], &[folder, "wave-run", tar]] {
        let all = opened(&site, &[what, &["-i", "id.txt"]].concat());
        assert_eq!(all, live(&site), "{what:?}");
    }
    site.cleanup(&[]).exits(0).says("2 handoff files");
    assert_eq!(listing(&site), Vec::<String>::new());
}

#[test]
fn a_second_kill_gives_another_container_and_leaves_the_first_alone() {
    let site = Site::open(45);
    killed(&site, &site.run_args(&[]), 9);
    // Stopped, so that it hands over what there is.
    site.hold(Call::Issue, site.seen(Call::Issue) + 7);
    let resumed = site.start(&["resume", "wave-run", "--max-in-flight", "3"]);
    site.until_held(3);
    resumed.signal(rustix::process::Signal::INT);
    site.until("it has heard that", |_| resumed.has_said("stopping: what is in flight"));
    site.let_go();
    resumed.end().exits(130);
    let first = fs::read(site.folder().join("handoff/passes-resumed.tar")).expect("a container");
    killed(&site, &["resume", "wave-run"], site.live().len() + 6);
    site.resume().exits(0);
    assert_eq!(
        listing(&site),
        ["passes-2.age", "passes-resumed-2.tar", "passes-resumed.tar", "passes.age"]
    );
    assert_eq!(
        fs::read(site.folder().join("handoff/passes-resumed.tar")).expect("there"),
        first,
        "an existing container stays as it is"
    );
    assert_eq!(opened(&site, &["wave-run/handoff", "-i", "id.txt"]), live(&site));
}

#[test]
fn each_set_of_recipients_gets_its_own_container() {
    let site = Site::open(24);
    let other = age::x25519::Identity::generate();
    fs::write(site.path("other.txt"), other.to_string().expose_secret()).expect("written");
    let key = other.to_public().to_string();
    let lines: Vec<String> = (0..)
        .zip(&site.people)
        .map(|(at, upn)| format!("{upn},{}", if at % 2 == 0 { "" } else { &key }))
        .collect();
    let wave = format!("userPrincipalName,recipient\n{}\n", lines.join("\n"));
    fs::write(site.path("wave.csv"), wave).expect("written");
    killed(&site, &site.run_args(&[]), 10);
    site.resume().exits(0);
    let label = &key[..16];
    let theirs = ["-resumed.tar", ".age"].map(|end| format!("{label}{end}"));
    let ours = ["passes-resumed.tar", "passes.age"];
    assert_eq!(listing(&site), [&theirs[0], &theirs[1], ours[0], ours[1]]);
    let place = |name: &str| format!("wave-run/handoff/{name}");
    let of = |rest: usize| -> Vec<(String, String)> {
        let live = site.live();
        let mine = (0..).zip(&site.people).filter(|(at, _)| at % 2 == rest);
        let mut all: Vec<_> = mine.map(|(_, upn)| (upn.clone(), live[upn].1.clone())).collect();
        all.sort();
        all
    };
    let theirs = theirs.map(|name| place(&name));
    assert_eq!(opened(&site, &[&theirs[0], &theirs[1], "-i", "other.txt"]), of(1));
    let ours = ours.map(place);
    assert_eq!(opened(&site, &[&ours[0], &ours[1], "-i", "id.txt"]), of(0));
    // Nothing is left out in silence: one identity does not open the whole folder; both do.
    for (identity, closed) in [("other.txt", &ours), ("id.txt", &theirs)] {
        let told = site.told(&["open", "wave-run/handoff", "-i", identity, "-o", "out"]).exits(2);
        assert!(closed.iter().any(|file| told.err.contains(file)), "{}", told.err);
        told.says("not sealed to any of the identities given");
        assert!(!site.path("out").exists(), "half a table helps nobody");
    }
    let both = opened(&site, &["wave-run/handoff", "-i", "id.txt", "-i", "other.txt"]);
    assert_eq!(both, live(&site));
}

#[test]
fn stock_tools_read_a_container() {
    if !present("tar", "tar", &["--version"]) {
        return;
    }
    let site = carried_on(24);
    let (out, tar) = (site.path("out"), site.folder().join("handoff/passes-resumed.tar"));
    fs::create_dir(&out).expect("made");
    let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    run("tar", &["-xf", &text(&tar), "-C", &text(&out)]);
    let in_tar = opened(&site, &[&text(&tar), "-i", "id.txt"]);
    let mut files: Vec<_> =
        fs::read_dir(&out).expect("a folder").map(|file| file.expect("one").path()).collect();
    files.sort();
    assert_eq!(files.len(), in_tar.len());
    let identity = text(&site.path("id.txt"));
    for (is_there, program, first) in [
        (age_is_present(), "age", &["-d", "-i"][..]),
        (pyrage_is_present(), "python3", &["-c", PYRAGE_OPENS]),
    ] {
        if !is_there {
            continue;
        }
        let mut read: Vec<(String, String)> = Vec::new();
        for file in &files {
            let plain = run(program, &[first, &[&identity, &text(file)]].concat());
            let mut rows = csv::Reader::from_reader(&plain[..]);
            read.extend(rows.records().map(|row| {
                let row = row.expect("well-formed");
                (row[0].to_owned(), row[2].to_owned())
            }));
        }
        read.sort();
        assert_eq!(read, in_tar, "{program}");
    }
    // What was unpacked is opened as it lies there.
    assert_eq!(opened(&site, &["out", "-i", "id.txt"]), in_tar);
}

#[test]
fn what_a_killed_process_left_unfinished_is_removed() {
    let site = Site::open(6);
    let lay = |name: &str| fs::write(site.folder().join("handoff").join(name), "x").expect("laid");
    site.run(&[]).exits(0);
    for goes_on in ["resume", "cleanup"] {
        lay(".unfinished-Ab12Cd.tmp");
        lay("notes.txt");
        site.status(&[]);
        assert!(listing(&site).contains(&".unfinished-Ab12Cd.tmp".to_owned()), "status only reads");
        site.told(&[goes_on, "wave-run", "--yes"]).exits(0);
        assert!(!listing(&site).contains(&".unfinished-Ab12Cd.tmp".to_owned()), "{goes_on}");
        assert!(listing(&site).contains(&"notes.txt".to_owned()), "somebody else's");
    }
    lay(".unfinished-Ab12Cd.tmp");
    site.cleanup(&["--keep-sealed"]).exits(0);
    assert!(!listing(&site).contains(&".unfinished-Ab12Cd.tmp".to_owned()), "also kept");
}
