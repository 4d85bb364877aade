//! The house style, held by a test: promises that rooms import downwards only, and that what
//! every file owes its reader is there. Every message says what to write instead.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a function may have; more does not fit a screen.
const MAX_FUNCTION: usize = 70;

/// What a stage may import of its siblings: the one before it.
///
/// Cleanup stands last and takes what any stage before it left. All it imports is `Halt`, the
/// reasons to stop a whole run, which issuing is the first to have.
const STAGES: [(&str, &[&str]); 5] = [
    ("check", &[]),
    ("issue", &["check"]),
    ("seal", &["issue"]),
    ("deliver", &["seal"]),
    ("cleanup", &["issue"]),
];

/// Folders that are made and not written.
const MADE: [&str; 3] = ["target", ".git", "corpus"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
    }

    /// `src/graph/http.rs` is in the room `graph`.
    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("src/")?.split(['/', '.']).next()
    }
}

/// Every file of the project below `folder` that is text, by its path from the root.
fn sources(folder: &str, wanted: fn(&str) -> bool) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !MADE.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if wanted(&name)
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root()).expect("below the root");
                let path = path.to_string_lossy().replace('\\', "/");
                found.push(Source { path, text });
            }
        }
    }
    found
}

fn is_rust(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "rs")
}

fn rust() -> Vec<Source> {
    let found: Vec<Source> = ["src", "tests", "examples", "benches", "fuzz"]
        .into_iter()
        .flat_map(|folder| sources(folder, is_rust))
        .collect();
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The table of src/lib.rs: ``//! | 5 | [`graph`] | the calls, typed |``.
fn ranks() -> BTreeMap<String, u32> {
    let map = fs::read_to_string(root().join("src/lib.rs")).expect("readable");
    let mut ranks = BTreeMap::new();
    for line in map.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = line.split(" | ");
        let (Some(rank), Some(rooms)) = (cells.next(), cells.next()) else { continue };
        let Ok(rank) = rank.parse::<u32>() else { continue };
        for room in rooms.split('`').skip(1).step_by(2) {
            ranks.insert(room.trim_end_matches(".rs").to_owned(), rank);
        }
    }
    ranks
}

/// The first name after each `marker` in a line.
fn names_after<'a>(line: &'a str, marker: &'static str) -> impl Iterator<Item = &'a str> {
    line.split(marker).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn the_table_names_every_room() {
    let ranks = ranks();
    for source in sources("src", is_rust) {
        let room = source.room().expect("below src");
        assert!(
            room == "lib" || ranks.contains_key(room),
            "{}: give the room {room} a rank in the table of src/lib.rs",
            source.path
        );
    }
}

#[test]
fn rooms_import_downwards_only() {
    let ranks = ranks();
    let mut wrong = Vec::new();
    for source in sources("src", is_rust) {
        let room = source.room().expect("below src");
        let Some(rank) = ranks.get(room) else { continue };
        for (number, line) in source.code() {
            for other in names_after(line, "crate::").filter(|other| *other != room) {
                let place = format!("{}:{number}", source.path);
                match ranks.get(other) {
                    Some(below) if below < rank => {}
                    Some(_) => wrong.push(format!(
                        "{place}: {room} may not import {other}, which stands above or beside it; \
                         move what is shared into a lower room, or pass it in as a parameter"
                    )),
                    None => wrong.push(format!(
                        "{place}: crate::{other} is no room of the table in src/lib.rs; write \
                         `use crate::ROOM::Name`, one line for each room"
                    )),
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_stage_imports_only_the_one_before_it() {
    let mut wrong = Vec::new();
    for (stage, before) in STAGES {
        let of_stage = |source: &Source| {
            source.path == format!("src/stages/{stage}.rs")
                || source.path.starts_with(&format!("src/stages/{stage}/"))
        };
        for source in sources("src/stages", is_rust).into_iter().filter(of_stage) {
            let above =
                if source.path.matches('/').count() > 2 { "super::super::" } else { "super::" };
            for (number, line) in source.code() {
                let named = names_after(line, above).chain(names_after(line, "crate::stages::"));
                for other in named.filter(|other| STAGES.iter().any(|(known, _)| known == other)) {
                    if other != stage && !before.contains(&other) {
                        wrong.push(format!(
                            "{}:{number}: {stage} may not import {other}; let the value it needs \
                             come in by type from the stage before",
                            source.path
                        ));
                    }
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_file_opens_with_its_promise() {
    let mut wrong = Vec::new();
    for source in rust() {
        if !source.text.starts_with("//!") {
            wrong.push(format!(
                "{}: begin with a `//!` sentence: what it promises, what it must never do",
                source.path
            ));
        }
    }
    assert_none(&wrong);
}

#[test]
fn nothing_is_silenced_or_left_undone() {
    // Put together here, so that this file does not hold them.
    let banned = [
        (["#[al", "low"], "write #[expect(…, reason = \"…\")]"),
        (["#![al", "low"], "write #![expect(…, reason = \"…\")]"),
        (["to", "do!("], "build it, or leave it out"),
        (["unimple", "mented!("], "build it, or leave it out"),
        (["#[ig", "nore"], "make the test fast enough to run, or leave it out"),
        (["TO", "DO"], "do it, or say in words why it is not done"),
        (["FIX", "ME"], "mend it, or say in words why it is not mended"),
    ];
    let mut wrong = Vec::new();
    for source in rust() {
        for (index, line) in source.text.lines().enumerate() {
            for (parts, instead) in &banned {
                let word = parts.concat();
                if line.contains(&word) {
                    wrong.push(format!("{}:{}: {word}: {instead}", source.path, index + 1));
                }
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn only_report_speaks() {
    let mut wrong = Vec::new();
    for source in sources("src", is_rust) {
        for (number, line) in source.code() {
            let prints = ["println!", "eprintln!", "print!(", "eprint!("];
            let in_tests = source.text.lines().take(number).any(|line| line == "#[cfg(test)]");
            if prints.iter().any(|print| line.contains(print))
                && source.room() != Some("report")
                && !in_tests
                && !only_for_tests(&source.path)
            {
                wrong.push(format!(
                    "{}:{number}: return it, or send it as progress::News; only report prints",
                    source.path
                ));
            }
        }
    }
    assert_none(&wrong);
}

/// What starts one by itself hands on the environment with the tokens in it.
#[test]
fn only_programs_starts_programs() {
    let mut wrong = Vec::new();
    for source in sources("src", is_rust) {
        for (number, line) in source.code() {
            let starts = ["Command::new(", "open::that", "open::with"];
            let in_tests = source.text.lines().take(number).any(|line| line == "#[cfg(test)]");
            if starts.iter().any(|start| line.contains(start))
                && source.room() != Some("programs")
                && !in_tests
                && !only_for_tests(&source.path)
            {
                wrong.push(format!("{}:{number}: write `programs::program(NAME)`", source.path));
            }
        }
    }
    assert_none(&wrong);
}

/// A file that its parent declares under `#[cfg(test)]`.
fn only_for_tests(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let declared = format!("#[cfg(test)]\nmod {};", name.trim_end_matches(".rs"));
    fs::read_to_string(root().join(format!("{folder}.rs")))
        .is_ok_and(|parent| parent.contains(&declared))
}

#[test]
fn functions_fit_a_screen() {
    let mut wrong = Vec::new();
    for source in rust() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let Some((name, indent)) = function(line) else { continue };
            let Some(length) = length(&lines[index..], indent) else { continue };
            if length > MAX_FUNCTION {
                wrong.push(format!(
                    "{}:{}: {name} has {length} lines; let it branch, and move the straight \
                     parts into functions below it (at most {MAX_FUNCTION})",
                    source.path,
                    index + 1
                ));
            }
        }
    }
    assert_none(&wrong);
}

/// The name and indent of the function that a line begins.
fn function(line: &str) -> Option<(&str, usize)> {
    let bare = line.trim_start();
    let (before, after) = if let Some(rest) = bare.strip_prefix("fn ") {
        ("", rest)
    } else {
        bare.split_once(" fn ")?
    };
    let words = ["pub", "const", "async", "pub(crate)", "pub(super)"];
    if !before.split(' ').all(|word| word.is_empty() || words.contains(&word)) {
        return None;
    }
    let end = after.find(['(', '<'])?;
    Some((&after[..end], line.len() - bare.len()))
}

/// Lines of a function as rustfmt lays it out: to the brace that stands as deep as it began.
/// `None` for a signature alone.
fn length(lines: &[&str], indent: usize) -> Option<usize> {
    let end = format!("{:indent$}}}", "");
    for (index, line) in lines.iter().enumerate() {
        let depth = line.len() - line.trim_start().len();
        if depth == indent && line.ends_with(';') {
            return None;
        }
        if *line == end || (index == 0 && line.ends_with('}')) {
            return Some(index + 1);
        }
    }
    None
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let mut wrong = Vec::new();
    let (mut in_dependencies, mut above) = (false, "");
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains(" = ") && !above.starts_with("# ") {
            wrong.push(format!("Cargo.toml: {line}: write a comment above it with the reason"));
        }
        above = line;
    }
    assert_none(&wrong);
}

#[test]
fn nothing_of_one_machine_is_in_the_tree() {
    let home = std::env::var("HOME").unwrap_or_default();
    let mut places = vec![env!("CARGO_MANIFEST_DIR").to_owned(), ["/ro", "ot/"].concat()];
    if home.len() > 1 {
        places.push(format!("{home}/"));
    }
    let registries = [["replace", "-with"], ["index", "-url"], ["registry", "-index"]];
    let mut wrong = Vec::new();
    for source in sources("", |_| true) {
        if let Some(place) = places.iter().find(|place| source.text.contains(*place)) {
            wrong.push(format!("{}: holds {place}; write a path from the root", source.path));
        }
        let registry = registries.iter().map(|parts| parts.concat());
        for word in registry.filter(|word| source.text.contains(word)) {
            wrong.push(format!(
                "{}: {word}: a registry is chosen on the machine, not in the tree",
                source.path
            ));
        }
    }
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let crates_io = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for line in lock.lines().filter(|line| line.starts_with("source = ") && *line != crates_io) {
        wrong.push(format!("Cargo.lock: {line}: take it from crates.io"));
    }
    assert_none(&wrong);
}

/// What a test may tell the program by a variable must not be there for anybody else. A use of
/// the module outside `cfg(debug_assertions)` does not compile in a release build.
#[test]
fn what_moves_the_time_is_in_no_build_for_users() {
    let clock = fs::read_to_string(root().join("src/clock.rs")).expect("readable");
    assert!(clock.contains("#[cfg(debug_assertions)]\nmod moved;"), "src/clock.rs: guard moved");
    let reads = |source: &&Source| {
        source.path != "src/clock/moved.rs"
            && source.code().any(|(_, code)| code.contains("TEST_CLOCK"))
    };
    let sources = sources("src", is_rust);
    let others: Vec<String> = sources
        .iter()
        .filter(reads)
        .map(|source| format!("{}: only src/clock/moved.rs reads this variable", source.path))
        .collect();
    assert_none(&others);
}
