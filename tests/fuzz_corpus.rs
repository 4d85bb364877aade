//! Any bytes, so many a door: promises that the corpus of `fuzz/`, the samples, and what
//! chance makes of both are survived in every test run. On a failure it prints the bytes.

use crate::support::fuzzed;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Decides which changes are tried, so that a failure comes again.
const SEED: u64 = 20_260_301;
/// How many changed inputs each door is tried with beyond its corpus: some seconds in all, and the same inputs on every machine.
const TRIES: usize = 500;
/// Most changes made to one input.
const MOST_CHANGES: usize = 8;

#[test]
fn every_door_takes_any_bytes() {
    for (name, door) in fuzzed::DOORS {
        let seeds = seeds(name);
        assert!(seeds.len() > 2, "fuzz/corpus/{name} holds {} files", seeds.len());
        for bytes in &seeds {
            enter(name, door, bytes);
        }
        let mut chance = fastrand::Rng::with_seed(SEED);
        for _ in 0..TRIES {
            let mut bytes = seeds[chance.usize(..seeds.len())].clone();
            for _ in 0..=chance.usize(..MOST_CHANGES) {
                change(&mut bytes, &seeds, &mut chance);
            }
            enter(name, door, &bytes);
        }
        println!("{name}: {} known and {TRIES} changed inputs", seeds.len());
    }
}

fn enter(name: &str, door: fn(&[u8]), bytes: &[u8]) {
    let entered = catch_unwind(AssertUnwindSafe(|| door(bytes)));
    assert!(entered.is_ok(), "{name} fails on b\"{}\"", bytes.escape_ascii());
}

/// The corpus, and the samples of the same kind.
fn seeds(door: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = files(&root.join("fuzz/corpus").join(door), "");
    match door {
        "wave" => seeds.extend(files(&root.join("samples"), "csv")),
        "settings" => seeds.extend(files(&root.join("samples"), "toml")),
        _ => {}
    }
    seeds
}

/// The files of a folder by name, so that the order is the same everywhere.
fn files(folder: &Path, extension: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries
        .filter(|path| {
            extension.is_empty() || path.extension().is_some_and(|found| found == extension)
        })
        .collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("readable")).collect()
}

/// One of the changes that find most: a byte, a bit, a cut, a piece twice, another's piece.
fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], chance: &mut fastrand::Rng) {
    let place = chance.usize(..=bytes.len());
    let end = chance.usize(place..=bytes.len());
    match chance.u8(..6) {
        0 if place < bytes.len() => bytes[place] = chance.u8(..),
        1 if place < bytes.len() => bytes[place] ^= 1 << chance.u8(..8),
        2 => bytes.truncate(place),
        3 => drop(bytes.drain(place..end)),
        4 => bytes.extend_from_within(place..end),
        _ => {
            let other = &seeds[chance.usize(..seeds.len())];
            let from = chance.usize(..=other.len());
            let to = chance.usize(from..=other.len());
            bytes.splice(place..end, other[from..to].iter().copied());
        }
    }
}
