//! Promises that no code the tenant ever made is in the clear anywhere but in the file that its
//! reader asked for: not in any output, file, log, argument or environment, and not in the
//! memory of the process that sealed it.

use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write};
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;
use tapwave::rehearsal::options::{Call, Fault, Faults};

use crate::damaged::eprintln_skip;
use crate::site::{Site, Started, TOKEN, files, holds};

const PEOPLE: usize = 12;
/// Read from another process's memory at a time.
const CHUNK: usize = 4 * 1024 * 1024;

#[test]
fn no_code_is_in_the_clear_in_any_output_or_file() {
    let site = Site::with(PEOPLE, |options| {
        // Answers of every kind: whole, cut in the middle of a code, lost.
        options.faults = Faults::default()
            .at(Call::Issue, 2, Fault::Truncated)
            .at(Call::Issue, 3, Fault::Garbled)
            .at(Call::Issue, 4, Fault::LostAfter)
            .at(Call::Issue, 5, Fault::Forbidden);
    });
    let loud = ["-vv", "--log", "extra.jsonl"];
    let mut heard = Vec::new();
    let mut hear = |args: &[&str], code| {
        let told = site.told(&[args, &loud].concat()).exits(code);
        heard.push((args.join(" "), told.out + &told.err));
    };
    hear(&site.run_args(&["--json"]), 4);
    hear(&["resume", "wave-run"], 0);
    hear(&["status", "wave-run", "--live"], 0);
    hear(&["runs"], 0);
    hear(&["open", "wave-run", "-i", "id.txt", "--format", "csv", "-o", "passes.csv"], 0);
    let opened = fs::read(site.path("passes.csv")).expect("there");
    for (_, code) in site.live().values() {
        assert!(holds(&opened, code.as_bytes()), "control: the reader gets {code}");
    }
    // Before the purge and after it.
    search_files(&site);
    hear(&["cleanup", "wave-run"], 0);
    search_files(&site);

    let codes = site.minted();
    assert!(codes.len() > PEOPLE, "passes that were lost count too");
    for (command, words) in &heard {
        for secret in codes.iter().map(String::as_str).chain([TOKEN]) {
            assert!(!words.contains(secret), "{secret} is in what {command} said:\n{words}");
        }
    }
    assert!(heard[0].1.contains("temporaryAccessPassMethods"), "control: -vv was loud");
    assert!(site.path("extra.jsonl").exists() && site.folder().join("log.jsonl").exists());
}

fn search_files(site: &Site) {
    for file in files(site.home.path()) {
        if file == site.path("passes.csv") {
            continue;
        }
        let bytes = fs::read(&file).expect("readable");
        for secret in site.minted().iter().map(String::as_str).chain([TOKEN]) {
            assert!(!holds(&bytes, secret.as_bytes()), "{} holds {secret}", file.display());
        }
    }
}

#[test]
fn no_code_is_in_the_memory_of_the_process_that_sealed_it() {
    // The last one is told to wait: by then all others are sealed, and nothing is under way.
    let wait = Fault::Throttled { retry_after: Some("4".into()) };
    let last = PEOPLE as u64;
    let site = Site::with(PEOPLE, |options| {
        options.faults = Faults::default().at(Call::Issue, last, wait);
    });
    // The summary finds no room, so that the process stays where all its work is done.
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let filled = fill(&writer);
    let args = site.run_args(&["--json", "-vv"]);
    let mut command = site.tapwave(&args);
    command.stdout(writer);
    let run = Started::of(command);

    site.until("all but one are sealed", |site| {
        site.seen(Call::Issue) == last && site.count("sealed") == PEOPLE - 1
    });
    if !search_process(&site, &run, PEOPLE - 1) {
        return eprintln_skip("only root may read the memory of a process that forbids it");
    }
    site.until("the handoff is written and the ledger shut", |site| {
        let log = fs::metadata(site.folder().join("ledger.db-wal"));
        let handed = files(&site.folder().join("handoff"));
        site.live().len() == PEOPLE
            && handed.iter().any(|file| file.extension().is_some_and(|it| it == "age"))
            && log.map_or(true, |log| log.len() == 0)
    });
    assert!(search_process(&site, &run, PEOPLE));

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

/// Stops the process, looks for every code in all that can be seen of it, and lets it go on.
/// False if this user may not look.
fn search_process(site: &Site, run: &Started, codes_at_least: usize) -> bool {
    let codes = site.minted();
    assert!(codes.len() >= codes_at_least);
    let wanted: Vec<&str> = codes.iter().map(String::as_str).chain([TOKEN]).collect();
    run.signal(Signal::STOP);
    let found = memory(run.id()).map(|memory| memory.search(&wanted));
    let seen = ["cmdline", "environ"].map(|name| fs::read(format!("/proc/{}/{name}", run.id())));
    run.signal(Signal::CONT);
    let Ok(found) = found else { return false };
    // The token must be there, or the search looked at the wrong place.
    assert!(found.contains(&TOKEN.to_owned()), "control: {found:?}");
    let leaked: Vec<&String> = found.iter().filter(|text| *text != TOKEN).collect();
    assert!(leaked.is_empty(), "{} of {} codes are in memory", leaked.len(), codes.len());
    for bytes in seen.into_iter().flatten() {
        for code in &codes {
            assert!(!holds(&bytes, code.as_bytes()), "{code} is in argv or environ");
        }
    }
    // And the same search finds the codes where they are: the tenant lives in this process.
    let ours = memory(std::process::id()).expect("one's own");
    assert_eq!(ours.search(&wanted).len(), wanted.len(), "control: planted codes");
    true
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

/// Bounds of a mapping that can be read: `7f0-7f9 rw-p …`.
fn region(line: &str) -> Option<(u64, u64)> {
    let (bounds, rest) = line.split_once(' ')?;
    let (from, to) = bounds.split_once('-')?;
    let readable = rest.starts_with('r') && !rest.contains("[vvar") && !rest.contains("[vsyscall");
    let number = |text| u64::from_str_radix(text, 16).ok();
    readable.then_some((number(from)?, number(to)?))
}

impl Memory {
    /// Which of these texts are in it.
    fn search(&self, wanted: &[&str]) -> Vec<String> {
        let finders: Vec<Finder<'_>> = wanted.iter().map(Finder::new).collect();
        let mut found = vec![false; wanted.len()];
        let overlap = wanted.iter().map(|text| text.len() as u64).max().unwrap_or(0);
        let mut chunk = vec![0; CHUNK];
        for &(from, to) in &self.regions {
            let mut at = from;
            while at < to {
                let size = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
                // Pages that were never used, and those of devices, cannot be read.
                let Ok(read @ 1..) = self.file.read_at(&mut chunk[..size], at) else { break };
                for (finder, found) in finders.iter().zip(&mut found) {
                    *found = *found || finder.find(&chunk[..read]).is_some();
                }
                let next = at + read as u64;
                at = if next < to { next.saturating_sub(overlap).max(at + 1) } else { next };
            }
        }
        let found = wanted.iter().zip(found).filter(|(_, found)| *found);
        found.map(|(text, _)| (*text).to_owned()).collect()
    }
}
