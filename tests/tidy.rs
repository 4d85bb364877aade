//! The house style, held by a test: promises what cargo cannot hold, and that what every file
//! owes its reader is there. Every message says what to write instead.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a function may have; more does not fit a screen.
const MAX_FUNCTION: usize = 70;

/// What a stage may import of the others: those before it, whose values it takes. `issue` looks with
/// `reconcile` at what a refusal says is in the way.
const STAGES: [(&str, &[&str]); 6] = [
    ("check", &[]),
    ("issue", &["check", "reconcile"]),
    ("reconcile", &["check"]),
    ("seal", &["issue"]),
    ("deliver", &["seal"]),
    ("cleanup", &["check", "reconcile"]),
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

    /// Whether it is a module, or below it: `src/output` is `src/output.rs` with its folder.
    fn is_in(&self, module: &str) -> bool {
        self.path.strip_prefix(module).is_some_and(|rest| rest.starts_with(['/', '.']))
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
    let found: Vec<Source> = ["src", "crates", "tests", "examples", "benches", "fuzz"]
        .into_iter()
        .flat_map(|folder| sources(folder, is_rust))
        .collect();
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

/// What is shipped: the program and its crates.
fn product() -> Vec<Source> {
    let found: Vec<Source> =
        ["src", "crates"].into_iter().flat_map(|folder| sources(folder, is_rust)).collect();
    assert!(found.len() > 50, "only {} files found", found.len());
    found
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The first name after each `marker` in a line.
fn names_after<'a>(line: &'a str, marker: &'static str) -> impl Iterator<Item = &'a str> {
    line.split(marker).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn a_stage_imports_only_those_before_it() {
    let all = sources("crates/pipeline/src", is_rust);
    let mut wrong = Vec::new();
    for (stage, before) in STAGES {
        let mut seen = false;
        for source in all.iter().filter(|one| one.is_in(&format!("crates/pipeline/src/{stage}"))) {
            seen = true;
            for (number, line) in source.code() {
                let others = names_after(line, "crate::");
                for other in others.filter(|other| STAGES.iter().any(|(known, _)| known == other)) {
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
        assert!(seen, "no stage {stage}");
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
fn only_output_speaks() {
    let mut wrong = Vec::new();
    for source in product() {
        for (number, line) in source.code() {
            let prints = ["println!", "eprintln!", "print!(", "eprint!("];
            let in_tests = source.text.lines().take(number).any(|line| line == "#[cfg(test)]");
            if prints.iter().any(|print| line.contains(print))
                && !source.is_in("src/output")
                && !in_tests
                && !only_for_tests(&source.path)
            {
                wrong.push(format!(
                    "{}:{number}: return it, or send it as progress::News; only src/output prints",
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
    for source in product() {
        for (number, line) in source.code() {
            let starts = ["Command::new(", "open::that", "open::with"];
            let in_tests = source.text.lines().take(number).any(|line| line == "#[cfg(test)]");
            if starts.iter().any(|start| line.contains(start))
                && !source.is_in("crates/core/src/programs")
                && !in_tests
                && !only_for_tests(&source.path)
            {
                wrong.push(format!("{}:{number}: write `programs::program(NAME)`", source.path));
            }
        }
    }
    assert_none(&wrong);
}

/// Whoever reads a pass could hand it on.
#[test]
fn a_pass_is_read_where_it_is_sealed_or_written_to_its_owner() {
    let readers = ["crates/seal/src", "crates/mail/src/template"];
    let mut wrong = Vec::new();
    for source in product().iter().filter(|source| !readers.iter().any(|at| source.is_in(at))) {
        for (number, _) in source.code().filter(|(_, code)| code.contains(".reveal()")) {
            wrong.push(format!("{}:{number}: hand the pass on as it is", source.path));
        }
    }
    assert_none(&wrong);
}

/// A file that its parent declares under `#[cfg(test)]`.
fn only_for_tests(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let declared = format!("#[cfg(test)]\nmod {};", name.trim_end_matches(".rs"));
    let parents = [format!("{folder}.rs"), format!("{folder}/lib.rs")].map(|at| root().join(at));
    let holds = |at: &PathBuf| fs::read_to_string(at).is_ok_and(|text| text.contains(&declared));
    parents.iter().any(holds)
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
        } else if in_dependencies
            && line.contains(" = ")
            && !line.ends_with(".workspace = true")
            && !line.starts_with("tapwave-")
            && !above.starts_with("# ")
        {
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
    let clock = fs::read_to_string(root().join("crates/core/src/clock.rs")).expect("readable");
    assert!(
        clock.contains("#[cfg(debug_assertions)]\nmod moved;"),
        "crates/core/src/clock.rs: guard moved"
    );
    let reads = |source: &&Source| {
        !source.is_in("crates/core/src/clock/moved")
            && source.code().any(|(_, code)| code.contains("TEST_CLOCK"))
    };
    let others: Vec<String> = product()
        .iter()
        .filter(reads)
        .map(|source| format!("{}: only clock/moved.rs reads this variable", source.path))
        .collect();
    assert_none(&others);
}
