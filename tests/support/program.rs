//! Promises the built program in a home of its own, with no variable of whoever runs the
//! tests, and what it said.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The one JSON value on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Insists on an exit code.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Insists on words on stderr.
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.err.contains(words), "{words:?} is not in {self:?}");
        self
    }
}

/// A home, variables and first arguments for runs of the program.
pub(crate) struct Program {
    home: TempDir,
    variables: Vec<(String, String)>,
    always: Vec<String>,
}

impl Program {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        Self { home, variables: Vec::new(), always: Vec::new() }
    }

    /// Writes a file into its folder.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    /// Gives every run a variable.
    pub(crate) fn var(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives every run these arguments.
    pub(crate) fn always(mut self, arguments: &[&str]) -> Self {
        self.always.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// The program as a command, for those who watch it while it runs.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapwave"));
        command.env_clear().current_dir(self.home.path());
        for name in ["PATH", "SystemRoot", "TEMP", "TMPDIR", "LLVM_PROFILE_FILE"] {
            if let Ok(value) = std::env::var(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.home.path()).env("TAPWAVE_HOME", self.home.path().join("home"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(arguments).args(&self.always);
        command
    }

    /// Runs it to its end. Needs a runtime of several threads when that serves the tenant.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let ran = || {
            let output = assert_cmd::Command::from_std(self.command(arguments))
                .timeout(std::time::Duration::from_mins(5))
                .output()
                .expect("the program runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ran {
                code: output.status.code().unwrap_or(-1),
                out: text(&output.stdout),
                err: text(&output.stderr),
            }
        };
        tokio::task::block_in_place(ran)
    }
}
