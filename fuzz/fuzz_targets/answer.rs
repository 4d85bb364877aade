//! An answer of Graph: promises to find bytes that make `fuzzed::answer` panic.

#![no_main]
#![expect(dead_code, reason = "each target takes one of the doors")]

#[path = "../../tests/support/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::answer(bytes));
