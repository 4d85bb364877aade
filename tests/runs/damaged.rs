//! Promises that a run folder that is cut, copied, shared, closed or full is carried on or
//! refused with a reason: no panic, and never a wrong pass.

use std::fs;
use std::path::Path;

use tapwave_simulator::options::Call;

use crate::support::site::{Site, Told, files};

/// Steps over the part of a ledger that no two cuts are likely to differ in; a prime, so that
/// it meets every place of a page in time.
const STRIDE: usize = 4_093;
/// Steps over the last pages and the log. Starting the program for each single byte would take
/// hours; a prime meets every kind of place.
const LAST_STRIDE: usize = 97;
const PAGE: usize = 4_096;

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::copy(&file, &target).expect("copied");
    }
    restrict(to, 0o700);
    fs::create_dir_all(to.join("handoff")).expect("made");
    restrict(&to.join("handoff"), 0o700);
}

#[cfg(unix)]
fn restrict(folder: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("set");
}

#[cfg(not(unix))]
fn restrict(_: &Path, _: u32) {}

/// Where a file is cut: sparsely at first, densely in its last pages.
fn cuts(length: usize) -> Vec<usize> {
    let last = length.saturating_sub(2 * PAGE);
    (0..last).step_by(STRIDE).chain((last..length).step_by(LAST_STRIDE)).collect()
}

#[track_caller]
fn opened_or_refused(told: &Told, context: &str) {
    assert!(!told.err.contains("panicked"), "{context}: {}", told.err);
    assert!(matches!(told.code, Some(0 | 2 | 4)), "{context}: {told:?}");
    if told.code == Some(2) {
        assert!(told.err.contains("error: failed to "), "{context}: {}", told.err);
    }
}

/// A run killed when all but its last row are sealed, and the last one's answer was held.
fn killed_before_its_last_answer(people: usize, more: &[&str]) -> Site {
    let site = Site::open(people);
    site.hold(Call::Issue, people as u64);
    let run = site.start(&site.run_args(more));
    site.until_held(1);
    site.until("the others are sealed", |site| site.count("sealed") == people - 1);
    run.kill();
    site.let_go();
    site
}

#[test]
fn a_ledger_cut_anywhere_is_read_or_refused_and_never_shows_a_wrong_pass() {
    let site = killed_before_its_last_answer(6, &["--max-in-flight", "2"]);
    let minted = site.minted();
    let mut read = 0;
    for name in ["ledger.db", "ledger.db-wal"] {
        let whole = fs::read(site.folder().join(name)).expect("there after a kill");
        assert!(!whole.is_empty(), "{name}");
        for cut in cuts(whole.len()) {
            let context = format!("{name} cut at {cut} of {}", whole.len());
            let place = site.path("cut");
            copy(&site.folder(), &place);
            fs::write(place.join(name), &whole[..cut]).expect("cut");
            let told = site.told(&["open", "cut", "-i", "id.txt", "--format", "json"]);
            opened_or_refused(&told, &context);
            if told.code == Some(0) {
                read += 1;
                for code in site.read("cut").into_values() {
                    assert!(minted.contains(&code), "{context}: {code} was never made");
                }
            }
            fs::remove_dir_all(&place).expect("removed");
        }
    }
    assert!(read > 10, "most cuts of the log leave a whole ledger: {read}");
}

#[test]
fn a_run_whose_log_is_cut_is_resumed_to_its_end() {
    // Each cut needs a tenant of its own, so these are few: the log's header, its first frame,
    // the middle, the last frame, the last byte.
    for part in [0, 3, 50, 95, 99] {
        let more = ["--max-in-flight", "1", "--settle-after", "100ms"];
        let site = killed_before_its_last_answer(4, &more);
        let log = site.folder().join("ledger.db-wal");
        let whole = fs::read(&log).expect("there");
        fs::write(&log, &whole[..whole.len() * part / 100]).expect("cut");
        let told = site.end_as_time_passes(site.start(&["resume", "wave-run", "--yes"]));
        opened_or_refused(&told, &format!("cut at {part} %"));
        // Commits that are gone from the disk take the run's knowledge with them. A pass it does
        // not know any more may be held for an operator, but nothing is vouched for wrongly.
        let live = site.live();
        for (upn, row) in site.status(&[]) {
            if row["state"] == "sealed" {
                assert_eq!(row["methodId"], live[&upn].0.as_str(), "{part} %: {upn}");
            }
        }
        for (upn, code) in site.read("wave-run") {
            assert_eq!(code, live[&upn].1, "{part} %: {upn}");
        }
    }
}

#[test]
fn a_second_process_is_told_who_has_the_run() {
    let site = Site::open(6);
    site.hold(Call::Issue, 1);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    for args in [&["resume", "wave-run"][..], &["cleanup", "wave-run"]] {
        let told = site.told(args).exits(2);
        told.says("the run is in use by process").says(&run.id().to_string());
    }
    assert_eq!(site.status(&[]).len(), 6, "looking is not forbidden");
    site.let_go();
    assert_eq!(run.end().code, Some(0));
    site.assert_whole("undisturbed");
}

#[test]
fn a_copy_taken_while_the_run_is_in_use_opens_or_is_refused() {
    let site = Site::open(30);
    site.hold(Call::Issue, 4);
    let run = site.start(&site.run_args(&["--max-in-flight", "2"]));
    site.until_held(2);
    for nth in (6..30).step_by(2) {
        // Two more are issued while the folder is copied, and none after them.
        site.hold(Call::Issue, nth);
        let place = site.path("copy");
        copy(&site.folder(), &place);
        let told = site.told(&["open", "copy", "-i", "id.txt", "--format", "json"]);
        opened_or_refused(&told, "a copy");
        if told.code == Some(0) {
            let minted = site.minted();
            assert!(site.read("copy").values().all(|code| minted.contains(code)));
        }
        fs::remove_dir_all(&place).expect("removed");
    }
    site.let_go();
    assert_eq!(run.end().code, Some(0));
    site.assert_whole("the original");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_the_run_resumes_when_there_is_room() {
    let site = Site::open(100);
    let disk = site.path("disk");
    fs::create_dir(&disk).expect("made");
    let Some(_mounted) = Mounted::small(&disk) else {
        return eprintln_skip("mounting a small disk needs root");
    };
    let folder = "disk/wave-run";
    let mut args = site.run_args(&["--settle-after", "100ms", "--max-in-flight", "4"]);
    *args.iter_mut().find(|arg| **arg == "wave-run").expect("the folder") = folder;
    // A run whose passes find no room: everything else is filled while their answers are held.
    site.hold(Call::Issue, 5);
    let run = site.start(&args);
    site.until_held(4);
    let filler = disk.join("filler");
    // An error is the aim.
    let _ = fs::write(&filler, vec![b'x'; 64 * 1024 * 1024]);
    site.let_go();
    let told = run.end().exits(1);
    assert!(told.err.contains("free space on that disk"), "{}", told.err);
    fs::remove_file(&filler).expect("removed");
    site.told(&["resume", folder]).exits(0);
    let codes = site.read(folder);
    let live = site.live();
    assert_eq!(codes.len(), 100);
    assert!(codes.iter().all(|(upn, code)| live[upn].1 == *code), "a dead pass is vouched for");
}

#[cfg(target_os = "linux")]
struct Mounted(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Mounted {
    fn small(at: &Path) -> Option<Self> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs"])
            .arg(at)
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then(|| Self(at.to_owned()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: something may still be open after a failed test.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Says why a test could not be made on this machine.
#[cfg(unix)]
pub(crate) fn eprintln_skip(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_not_be_written_is_read_and_nothing_else() {
    let mut site = Site::open(2);
    if !site.without_rights() {
        return eprintln_skip("root writes into every folder, and cannot leave its rights here");
    }
    site.run(&[]).exits(0);
    let modes = |file, folder| {
        for path in files(&site.folder()) {
            restrict(&path, file);
        }
        restrict(&site.folder().join("handoff"), folder);
        restrict(&site.folder(), folder);
    };
    modes(0o400, 0o500);
    site.assert_true("read-only");
    site.resume().exits(2).says("failed to ").says("permission");
    site.cleanup(&[]).exits(2).says("failed to ").says("permission");
    assert_eq!(site.live().len(), 2);
    modes(0o600, 0o700);
    site.cleanup(&[]).exits(0);
}
