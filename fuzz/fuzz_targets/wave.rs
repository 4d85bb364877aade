//! A wave's bytes: promises to find bytes that make `fuzzed::wave` panic.

#![no_main]
#![expect(dead_code, reason = "each target takes one of the doors")]

#[path = "../../tests/support/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzed::wave(bytes));
