//! Promises that whoever holds the identity reads exactly the codes that the tenant made, and
//! that nobody else reads any.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use rusqlite::Connection;
use tapwave_simulator::options::CodeStyle;

use crate::cli::run::codes_of_csv;
use crate::support::bench::{Bench, Reader, Said, codes_in, person};

/// A finished run of a few people with nasty codes, and its reader.
fn finished(count: usize) -> (Bench, Reader) {
    let bench = Bench::of(count);
    bench.tenant(|tenant, _| tenant.options_mut().code_style = CodeStyle::Nasty);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    (bench, it)
}

impl Bench {
    /// Where the program says that something of this folder lies. It knows its folder as the
    /// system has it, with links resolved, but for Windows.
    pub(crate) fn place(&self, name: &str) -> String {
        let folder = self.path("");
        let folder = if cfg!(windows) { folder } else { folder.canonicalize().expect("there") };
        let place = std::path::absolute(folder.join(name)).expect("a place");
        place.display().to_string()
    }
}

/// The one handoff file of the one run.
fn handoff(bench: &Bench) -> String {
    bench.runs()[0].join("handoff/passes.age").to_str().expect("a path in UTF-8").to_owned()
}

// Case: the ways to name what is opened.
#[test]
fn a_run_is_named_by_name_path_file_or_latest() {
    let (bench, it) = finished(3);
    let run = bench.runs()[0].clone();
    let name = run.file_name().expect("a name").to_str().expect("text").to_owned();
    let path = run.to_str().expect("text").to_owned();
    for what in [&name, &path, &handoff(&bench), "latest"] {
        assert_eq!(bench.opened(what, &it.file), bench.codes(), "{what}");
    }
    let said = bench.tapwave(&["open", "wave-nope", "-i", &it.file]).ends(2);
    said.says(["wave-nope", "`tapwave runs` lists them"]);
}

// Case: the ledger has lost a sealed copy. The others are shown, and it is not passed over.
#[test]
fn a_sealed_copy_that_is_not_there_is_named() {
    let (bench, it) = finished(3);
    let db = Connection::open(bench.runs()[0].join("ledger.db")).expect("a database");
    assert_eq!(db.execute("DELETE FROM sealed WHERE line = 3", []).expect("changed"), 1);
    drop(db);
    let open = ["open", "latest", "-i", &it.file, "--format", "csv"];
    let said = bench.tapwave(&open).ends(2);
    assert_eq!(said.out.lines().count(), 3, "a header and the other two: {}", said.out);
    said.says(["ledger is damaged", "1 sealed copy is not there, first that of row 3"]);
}

// Case: a file that is not there is spoken of as a file, and a name as a run; so is a file where
// a run is wanted.
#[test]
fn a_file_is_not_taken_for_the_name_of_a_run() {
    let (bench, it) = finished(1);
    for what in ["nope.age", "handoff/nope", "nope.csv"] {
        let said = bench.tapwave(&["open", what, "-i", &it.file]).ends(2);
        let hint = format!("hint: nothing is at {}; ", bench.place(what));
        said.says([
            &format!("failed to open {what}: "),
            &hint,
            "the handoff file, the folder it is in, or a run's name",
        ])
        .hides("run called");
    }
    for command in ["status", "resume", "cleanup"] {
        let said = bench.tapwave(&[command, "here/nope"]).ends(2);
        let nothing = format!("{}: nothing is there", bench.place("here/nope"));
        said.says([&nothing, "tapwave runs"]).hides("run called");
        let said = bench.tapwave(&[command, "wave.csv"]).ends(2);
        let a_file = format!("{}: it is a file", bench.place("wave.csv"));
        said.says([&a_file, "tapwave runs"]).hides("--run");
    }
    let said = bench.tapwave(&["cleanup", "wave.csv"]).ends(2);
    said.says(["hint: tapwave cleanup --csv wave.csv"]);
    bench.tapwave(&["open", "nope", "-i", &it.file]).ends(2).says(["run called \"nope\""]);
}

// Case: a run whose name looks like a file's, and which cannot be opened. The reason is told, and
// not that nothing is there.
#[test]
fn why_a_run_cannot_be_opened_is_told_whatever_its_name_looks_like() {
    let bench = Bench::of(1);
    let it = bench.reader("key");
    for folder in ["one/hr.wave", "two/hr.wave"] {
        let run = ["run", "wave.csv", "-r", &it.key, "--run", folder, "--existing", "replace"];
        bench.tapwave(&run).ends(0);
    }
    let open = |what| bench.tapwave(&["open", what, "-i", &it.file]).ends(2).hides("nothing is");
    open("hr.wave").says(["two runs called \"hr.wave\"", "give the path"]);
    fs::remove_dir_all(bench.path("one")).expect("removed");
    assert_eq!(bench.opened("hr.wave", &it.file), bench.codes());
    let version = |version: i64| {
        let db = Connection::open(bench.path("two/hr.wave/ledger.db")).expect("a database");
        db.pragma_update(None, "user_version", version).expect("changed");
    };
    version(99);
    open("hr.wave").says(["version 99", "update tapwave"]);
    version(1);
    open("hr.wave").says(["version 1 ", "the tapwave that made it"]);
    bench.write("two/hr.wave/ledger.db", "no database");
    open("hr.wave").says(["the ledger is damaged"]);
}

// Case: opening asks nothing of the tenant, needs no settings and no token.
#[test]
fn opening_needs_no_tenant_and_no_settings() {
    let (bench, it) = finished(2);
    bench.write("tapwave.toml", "this is not = = TOML");
    let requests = bench.requests();
    let mut command = bench.command(&["open", "latest", "-i", &it.file, "--format", "json"]);
    let said = Said::of(command.env_remove("TAPWAVE_ACCESS_TOKEN")).ends(0);
    assert_eq!(codes_in(&said.json()), bench.codes());
    assert_eq!(bench.requests(), requests);
}

// Case: one person's pass, in any spelling; and a person who has none.
#[test]
fn one_user_is_found_in_any_spelling() {
    let (bench, it) = finished(3);
    for what in ["latest", &handoff(&bench)] {
        let flags = ["open", what, "-i", &it.file, "--user", "Person2@Contoso.Example"];
        let rows = bench.tapwave(&[&flags[..], &["--format", "json"]].concat()).ends(0).json();
        let only = BTreeMap::from([(person(2), bench.codes()[&person(2)].clone())]);
        assert_eq!(codes_in(&rows), only);
        let flags = ["open", what, "-i", &it.file, "--user", "nobody@contoso.example"];
        let said = bench.tapwave(&flags).ends(2);
        said.says(["there is no pass for nobody@contoso.example that this identity opens"]);
    }
    let bad = bench.tapwave(&["open", "latest", "-i", &it.file, "--user", "a b"]).ends(2);
    bad.says(["--user", "a b"]);
}

// Case: a table for people shows every code as it is.
#[test]
fn the_table_shows_codes_as_they_are() {
    let (bench, it) = finished(8);
    let said = bench.tapwave(&["open", "latest", "-i", &it.file]).ends(0);
    assert_eq!(said.err, "", "nothing but the table");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].starts_with("USER") && lines[0].contains("PASS"), "{}", lines[0]);
    for (upn, code) in bench.codes() {
        let line = lines.iter().find(|line| line.starts_with(&upn)).expect("a line");
        assert!(line.contains(&format!("  {code}  ")), "{code}: {line}");
        assert_eq!(line.trim_end(), *line, "no blanks at the end");
    }
    assert_eq!(lines.len(), 9);
}

// Case: CSV and JSON are verbatim.
#[test]
fn csv_and_json_are_verbatim() {
    let (bench, it) = finished(8);
    let csv = bench.tapwave(&["open", "latest", "-i", &it.file, "--format", "csv"]).ends(0);
    assert_eq!(codes_of_csv(csv.out.as_bytes(), b','), bench.codes());
    assert_eq!(bench.opened("latest", &it.file), bench.codes());
}

// Case: the two CSVs for Excel. Excel shows each code as it is and calculates nothing.
#[test]
fn excel_gets_texts_and_no_formulas() {
    let (bench, it) = finished(8);
    for (format, delimiter) in [("excel", b','), ("excel-semicolon", b';')] {
        let said = bench.tapwave(&["open", "latest", "-i", &it.file, "--format", format]).ends(0);
        let text = said.out.strip_prefix('\u{feff}').expect("a byte order mark");
        assert!(text.contains("\r\n"), "CRLF");
        let shown = codes_of_csv(text.as_bytes(), delimiter).into_iter().map(|(upn, code)| {
            let inner = code.strip_prefix("=\"").and_then(|code| code.strip_suffix('"'));
            (upn, inner.expect("a formula that yields a text").replace("\"\"", "\""))
        });
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), bench.codes(), "{format}");
    }
}

// Case: into a file, which is private and new.
#[test]
fn an_output_file_is_private_and_never_an_existing_one() {
    let (bench, it) = finished(2);
    let flags = ["open", "latest", "-i", &it.file, "--format", "csv", "-o", "codes.csv"];
    let said = bench.tapwave(&flags).ends(0);
    assert_eq!(said.out, "");
    let text = bench.read("codes.csv");
    assert_eq!(codes_of_csv(text.as_bytes(), b','), bench.codes());
    said.says(["2 passes written to codes.csv"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(bench.path("codes.csv")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    bench.tapwave(&flags).ends(2).says(["codes.csv: it is there already", "-o"]);
    assert_eq!(bench.read("codes.csv"), text);
}

// Case: an identity that opens nothing. Nothing is printed, and no file is left.
#[test]
fn a_wrong_identity_opens_nothing_and_leaves_no_file() {
    let (bench, _) = finished(2);
    let other = bench.reader("other");
    for what in ["latest", &handoff(&bench)] {
        for format in ["table", "csv", "json"] {
            let flags = ["open", what, "-i", &other.file, "--format", format, "-o", "out"];
            let said = bench.tapwave(&flags).ends(2);
            assert_eq!(said.out, "");
            said.says(["identity"]);
            assert!(!bench.path("out").exists(), "{what} {format}");
        }
        let said = bench.tapwave(&["open", what, "-i", &other.file, "--format", "csv"]).ends(2);
        assert_eq!(said.out, "", "not even a header");
    }
}

// Case: the identity comes from a pipe.
#[test]
fn an_identity_may_come_from_stdin() {
    let (bench, it) = finished(1);
    let identity = fs::File::open(bench.path(&it.file)).expect("a file");
    let mut command = bench.command(&["open", "latest", "-i", "-", "--format", "json"]);
    let said = Said::of(command.stdin(Stdio::from(identity))).ends(0);
    assert_eq!(codes_in(&said.json()), bench.codes());
}

// Case: what people take for an identity and is none.
#[test]
fn what_is_no_identity_is_named() {
    let (bench, it) = finished(1);
    bench.write("public.txt", &it.key);
    bench.write("empty.txt", "# nothing\n");
    bench.write("wrong.txt", "hello\n");
    for (file, said) in [
        ("public.txt", "public"),
        ("empty.txt", "empty.txt"),
        ("wrong.txt", "wrong.txt"),
        ("missing.txt", "missing.txt"),
    ] {
        bench.tapwave(&["open", "latest", "-i", file]).ends(2).says([said, "identity"]);
    }
}

// Case: the run has been cleaned up, and its sealed copies are gone.
#[test]
fn a_purged_run_says_so() {
    let (bench, it) = finished(2);
    let kept = fs::read(handoff(&bench)).expect("a file");
    bench.tapwave(&["cleanup", "latest"]).ends(0);
    let said = bench.tapwave(&["open", "latest", "-i", &it.file, "-o", "out"]).ends(2);
    said.says(["purged by its cleanup", "nothing is left to read"]);
    assert!(!bench.path("out").exists());
    bench.write("kept.age", kept);
    assert_eq!(bench.opened("kept.age", &it.file).len(), 2, "a copy opens, its codes are dead");
}

// Case: a handoff file that is damaged, cut, or no age file at all.
#[test]
fn a_damaged_file_is_refused() {
    let (bench, it) = finished(3);
    let whole = fs::read(handoff(&bench)).expect("a file");
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("a byte") ^= 1;
    bench.write("flipped.age", flipped);
    bench.write("cut.age", &whole[..whole.len() - 20]);
    bench.write("text.age", "hello");
    for file in ["flipped.age", "cut.age", "text.age"] {
        let said = bench.tapwave(&["open", file, "-i", &it.file, "--format", "csv"]);
        assert!(matches!(said.code, Some(1 | 2)), "{file}: {:?}", said.code);
        let said = said.says([file]);
        for code in bench.codes().values() {
            assert!(!said.out.contains(code), "{file}: nothing unproven is printed");
        }
    }
}

// Case: keygen's file is private, new, and says its public key.
#[test]
fn keygen_writes_a_private_new_file() {
    let (bench, it) = finished(1);
    let text = bench.read(&it.file);
    assert!(text.contains("AGE-SECRET-KEY-1") && text.contains(&it.key));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(bench.path(&it.file)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let said = bench.tapwave(&["keygen", "-o", &it.file]).ends(2);
    said.says([&it.file, "it is there already", "-o"]).hides("AGE-SECRET-KEY");
    assert_eq!(bench.read(&it.file), text);
    let printed = bench.tapwave(&["keygen"]).ends(0);
    assert!(printed.out.contains("AGE-SECRET-KEY-1"));
    assert!(!printed.err.contains("AGE-SECRET-KEY"));
}
