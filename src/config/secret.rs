//! Promises a secret from a variable, a file, or a command that prints it, read when it is
//! needed. Must never show or keep one, nor take one from the command line.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use secrecy::SecretString;
use zeroize::Zeroizing;

use tapwave_core::programs;
use tapwave_core::wiped::read_small;

/// Where a secret is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretSource {
    /// A variable of the environment.
    Variable(&'static str),
    /// A file's first line.
    File(PathBuf),
    /// The first line that a program prints; no shell in between.
    Command(Vec<String>),
}

/// Why a secret cannot be read. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Two places for one secret.
    #[error("{name}_file and {name}_command cannot both be set; keep one of them")]
    Two { name: &'static str },
    /// A command of no words.
    #[error(
        "{name}_command is empty; write the program and its arguments, such as [\"pass\", \"show\", \"tapwave\"]"
    )]
    NoCommand { name: &'static str },
    /// A file that cannot be read.
    #[error("failed to read a secret from {path}: {why}")]
    File {
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// A command that cannot be run, or fails.
    #[error("failed to have a secret from the command {program}: {why}")]
    Command {
        /// The program alone; its arguments may tell too much.
        program: String,
        /// What came of it.
        why: String,
    },
    /// Nothing there.
    #[error("the secret from {place} is empty")]
    Empty {
        /// The variable, file or program.
        place: String,
    },
}

impl SecretSource {
    /// Out of the two keys of a settings file.
    pub(super) fn of(
        name: &'static str,
        file: Option<PathBuf>,
        command: Option<Vec<String>>,
    ) -> Result<Option<Self>, SecretError> {
        match (file, command) {
            (Some(_), Some(_)) => Err(SecretError::Two { name }),
            (_, Some(command)) if command.is_empty() => Err(SecretError::NoCommand { name }),
            (_, Some(command)) => Ok(Some(Self::Command(command))),
            (file, None) => Ok(file.map(Self::File)),
        }
    }

    /// Reads it. A command may ask its own questions on the terminal.
    pub(super) fn read(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
    ) -> Result<SecretString, SecretError> {
        let (text, place) = match self {
            Self::Variable(name) => {
                (Zeroizing::new(environment(name).unwrap_or_default()), (*name).to_owned())
            }
            Self::File(path) => (from_file(path)?, path.display().to_string()),
            Self::Command(command) => (from_command(command)?, command[0].clone()),
        };
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() { Err(SecretError::Empty { place }) } else { Ok(line.into()) }
    }
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |why: String| SecretError::File { path: path.to_owned(), why };
    let bytes = read_small(path).map_err(|error| failed(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| failed("it is too large for a secret".to_owned()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn from_command(command: &[String]) -> Result<Zeroizing<String>, SecretError> {
    let program = &command[0];
    let failed = |why: String| SecretError::Command { program: program.clone(), why };
    let output = programs::program(program)
        .args(&command[1..])
        .stdin(Stdio::inherit())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    std::str::from_utf8(&text)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| failed("it printed something that is no text".to_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_secret_is_a_first_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "s3cret\r\nwhat follows is not\n").expect("written");
        let file = SecretSource::File(path.clone());
        assert_eq!(file.read(&nothing).expect("a secret").expose_secret(), "s3cret");
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(file.read(&nothing), Err(SecretError::Empty { .. })));
        let gone = SecretSource::File(folder.path().join("gone"));
        assert!(matches!(gone.read(&nothing), Err(SecretError::File { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_command_prints_one_or_fails() {
        let command = |words: &[&str]| {
            SecretSource::Command(words.iter().map(ToString::to_string).collect()).read(&nothing)
        };
        assert_eq!(command(&["echo", "s3cret"]).expect("a secret").expose_secret(), "s3cret");
        assert!(matches!(command(&["false"]), Err(SecretError::Command { .. })));
        assert!(matches!(command(&["there-is-no-such-program"]), Err(SecretError::Command { .. })));
        assert!(matches!(command(&["true"]), Err(SecretError::Empty { .. })));
    }

    #[test]
    fn a_secret_has_one_place() {
        let both = SecretSource::of("x", Some("f".into()), Some(vec!["c".into()]));
        assert!(matches!(both, Err(SecretError::Two { .. })));
        assert!(matches!(
            SecretSource::of("x", None, Some(vec![])),
            Err(SecretError::NoCommand { .. })
        ));
        assert_eq!(SecretSource::of("x", None, None).ok(), Some(None));
    }
}
