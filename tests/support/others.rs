//! Promises other implementations of age, where they are installed. Without them it says so;
//! with `TAPWAVE_REQUIRE_INTEROP=1` it fails instead. Must never pass over an absence in silence.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// A Python program that opens an age file, its second argument, with the identity file that
/// is its first.
pub(crate) const PYRAGE_OPENS: &str = "
import sys, pyrage
key = pyrage.x25519.Identity.from_str(open(sys.argv[1]).read().split()[-1])
sys.stdout.buffer.write(pyrage.decrypt(open(sys.argv[2], 'rb').read(), [key]))
";

/// What a program that must succeed prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = output(program, arguments).expect("the program starts");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Whether a program is there; if not, says so, or fails if it was required.
pub(crate) fn present(what: &str, program: &str, arguments: &[&str]) -> bool {
    let present = output(program, arguments).is_some_and(|output| output.status.success());
    if !present {
        // Straight to standard error: the test harness keeps back what a passing test prints.
        let note = format!("{what} is not installed: what depends on it is not tested here\n");
        std::io::stderr().write_all(note.as_bytes()).expect("standard error is open");
        let required =
            std::env::var_os("TAPWAVE_REQUIRE_INTEROP").is_some_and(|value| value == "1");
        assert!(!required, "TAPWAVE_REQUIRE_INTEROP=1 and {what} is not installed");
    }
    present
}

/// Whether the Go implementation is there.
pub(crate) fn age_is_present() -> bool {
    present("age", "age", &["--version"])
}

/// Whether the Python binding of the Rust one is there.
pub(crate) fn pyrage_is_present() -> bool {
    present("pyrage", "python3", &["-c", "import pyrage"])
}

fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()
}
