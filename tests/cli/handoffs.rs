//! Promises that `open` takes what a recipient was sent, in any mixture of files, containers,
//! folders and runs, as one list; and that nothing in it is left out in silence.

use std::collections::BTreeMap;
use std::fs;

use tar::EntryType;

use crate::support::bench::{Bench, Reader, codes_in, person};

/// Two runs of two people each, of one reader.
fn two_runs() -> (Bench, Reader) {
    let bench = Bench::of(4);
    let it = bench.reader("key");
    for (wave, who) in [("one", [1, 2]), ("two", [3, 4])] {
        bench.write(
            &format!("{wave}.csv"),
            format!("UPN\n{}\n{}\n", person(who[0]), person(who[1])),
        );
        bench.tapwave(&["run", &format!("{wave}.csv"), "-r", &it.key, "--run", wave]).ends(0);
    }
    (bench, it)
}

impl Bench {
    /// A handoff file of the run in this folder.
    fn sealed(&self, run: &str) -> Vec<u8> {
        fs::read(self.path(run).join("handoff/passes.age")).expect("a handoff")
    }

    /// Writes a container of these entries.
    fn contain(&self, name: &str, entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, entry, bytes) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, entry, *bytes).expect("added");
        }
        let bytes = tar.into_inner().expect("finished");
        self.write(name, &bytes);
        bytes
    }

    /// How many rows `open` lists.
    fn listed(&self, what: &[&str], it: &Reader) -> (usize, BTreeMap<String, String>) {
        let args = [&["open"], what, &["-i", &it.file, "--format", "json"]].concat();
        let rows = self.tapwave(&args).ends(0).json();
        (rows.as_array().expect("an array").len(), codes_in(&rows))
    }
}

// Case: every way to name two handoffs. All rows stand in one list, each once.
#[test]
fn any_mixture_is_one_list() {
    let (bench, it) = two_runs();
    fs::create_dir(bench.path("sent to us")).expect("made");
    bench.write("sent to us/one.age", bench.sealed("one"));
    let two = bench.sealed("two");
    bench.contain("sent to us/two.TAR", &[(EntryType::Regular, "row-2.age", &two)]);
    bench.write("sent to us/read me.txt", "hello");
    bench.write("unnamed", &two);
    for what in [
        &["sent to us"][..],
        &["one", "two"],
        &["sent to us/one.age", "sent to us/two.TAR"],
        &["one", "sent to us/two.TAR", "two/handoff"],
        &["unnamed", "sent to us", "one/handoff/passes.age", "two"],
    ] {
        assert_eq!(bench.listed(what, &it), (4, bench.codes()), "{what:?}");
    }
    assert_eq!(bench.listed(&["sent to us/two.TAR"], &it).0, 2);
    // One output of each kind.
    let args = ["open", "one", "two/handoff", "-i", &it.file, "--format"];
    let csv = bench.tapwave(&[&args[..], &["csv", "-o", "all.csv"]].concat()).ends(0);
    csv.says(["4 passes written to all.csv"]);
    assert_eq!(
        crate::cli::run::codes_of_csv(bench.read("all.csv").as_bytes(), b','),
        bench.codes()
    );
    let excel = bench.tapwave(&[&args[..], &["excel"]].concat()).ends(0);
    assert_eq!(excel.out.lines().count(), 5, "one header");
    let table = bench.tapwave(&[&args[..], &["table"]].concat()).ends(0);
    assert_eq!(table.out.lines().count(), 5, "one table");
}

// Case: one person's pass among several files, and a person who has none.
#[test]
fn one_user_is_found_in_whatever_file_they_are() {
    let (bench, it) = two_runs();
    let open = ["open", "one/handoff", "two/handoff", "-i", &it.file, "--format", "json"];
    let rows = bench.tapwave(&[&open[..], &["--user", &person(3)]].concat()).ends(0).json();
    let only = BTreeMap::from([(person(3), bench.codes()[&person(3)].clone())]);
    assert_eq!(codes_in(&rows), only);
    let nobody = [&open[..], &["--user", "nobody@contoso.example"]].concat();
    let hint = format!("tapwave open one/handoff two/handoff -i {} shows every row", it.file);
    bench.tapwave(&nobody).ends(2).says(["no pass for nobody@contoso.example", &hint]);
}

// Case: a person whose pass was replaced. Both are listed, since no file knows which one lives,
// and it is said.
#[test]
fn a_person_with_two_passes_is_told_of() {
    let (bench, it) = two_runs();
    let again = ["run", "one.csv", "-r", &it.key, "--run", "again", "--existing", "replace"];
    bench.tapwave(&again).ends(0);
    let (all, it) = (["open", "one/handoff", "again/handoff", "-i"], &it.file);
    let said = bench.tapwave(&[&all[..], &[it, "--format", "csv"]].concat()).ends(0);
    assert_eq!(said.out.lines().count(), 5, "a header and four rows");
    said.says(["warning: 2 people have more than one pass here (", &person(1), "issued last"]);
    let said = bench.tapwave(&["open", "one/handoff", "two/handoff", "-i", it]).ends(0);
    assert_eq!(said.err, "");
}

// Case: whatever is wrong with one file names that file, and nothing is left behind.
#[test]
fn a_defect_in_one_file_names_it() {
    let (bench, it) = two_runs();
    let good = bench.sealed("one");
    let other = bench.reader("other");
    bench.write("three.csv", format!("UPN\n{}\n", person(4)));
    let run = ["run", "three.csv", "-r", &other.key, "--run", "three", "--existing", "replace"];
    bench.tapwave(&run).ends(0);
    let closed = bench.sealed("three");
    let file = (EntryType::Regular, "row-2.age", &good[..]);
    let whole = bench.contain("whole.tar", &[file, (EntryType::Regular, "row-3.age", &good)]);
    bench.write("cut.tar", &whole[..whole.len() - 1024]);
    bench.write("cut-inside.tar", &whole[..whole.len() - 1024 - 512]);
    bench.write("empty.tar", "");
    bench.contain("foreign.tar", &[file, (EntryType::Regular, "sub/notes.txt", b"hello")]);
    bench.contain("closed.tar", &[file, (EntryType::Regular, "row-9.age", &closed)]);
    bench.contain("link.tar", &[file, (EntryType::Symlink, "row-9.age", b"")]);
    bench.contain("folder.tar", &[(EntryType::Directory, "sub", b""), file]);
    bench.contain("nested.tar", &[file, (EntryType::Regular, "whole.tar", &whole)]);
    bench.write("text.age", "hello");
    bench.write("closed.age", &closed);
    let identity = "not sealed to any of the identities given";
    for (file, words) in [
        ("cut.tar", "cut.tar: failed to open the file: it is damaged or was cut short"),
        ("cut-inside.tar", "cut-inside.tar: row-3.age: failed to open the file: it is damaged"),
        ("empty.tar", "empty.tar: failed to open the file: it is no age file"),
        ("foreign.tar", "foreign.tar: sub/notes.txt: failed to open the file: it is no age file"),
        (
            "closed.tar",
            &format!("closed.tar: row-9.age: failed to open the file: it is {identity}"),
        ),
        ("link.tar", "link.tar: row-9.age: failed to open the container: this is a link"),
        ("folder.tar", "folder.tar: sub: failed to open the container: this is a folder"),
        ("nested.tar", "nested.tar: whole.tar: failed to open the file: it is no age file"),
        ("text.age", "text.age: failed to open the file: it is no age file"),
        ("closed.age", &format!("closed.age: failed to open the file: it is {identity}")),
    ] {
        for what in [&[file][..], &["one/handoff", file, "two"]] {
            let args = [&["open"], what, &["-i", &it.file, "-o", "out"]].concat();
            bench.tapwave(&args).ends(2).says([words]);
            assert!(!bench.path("out").exists(), "{what:?}: half a list helps nobody");
        }
        // The same in a folder.
        let folder = format!("folder-of-{file}");
        fs::create_dir(bench.path(&folder)).expect("made");
        bench.write(&format!("{folder}/good.age"), &good);
        bench.write(&format!("{folder}/{file}"), fs::read(bench.path(file)).expect("there"));
        let args = ["open", &folder, "-i", &it.file, "--format", "csv", "-o", "out"];
        bench.tapwave(&args).ends(2).says([words]);
        assert!(!bench.path("out").exists(), "{folder}");
    }
    fs::create_dir_all(bench.path("odd/folder.age")).expect("made");
    bench.write("odd/good.age", &good);
    bench.tapwave(&["open", "odd", "-i", &it.file]).ends(2).says(["folder.age", "it is no file"]);
}

// Case: a name that is mistyped. It is told before anything is shown.
#[test]
fn a_name_that_is_wrong_is_told_before_anything_is_shown() {
    let (bench, it) = two_runs();
    let args = ["open", "one", "two/handoff/nope.age", "-i", &it.file, "--format", "csv"];
    let said = bench.tapwave(&args).ends(2).says(["nope.age"]);
    assert_eq!(said.out, "");
    // A folder with nothing to open in it, and a run that is none.
    fs::create_dir(bench.path("empty")).expect("made");
    bench.tapwave(&["open", "empty", "-i", &it.file]).ends(2).says(["empty"]);
    bench.tapwave(&["open", "-i", &it.file]).ends(2);
}
