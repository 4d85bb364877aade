//! Promises that a relay's password or token comes from the environment, a file or a command,
//! anew for each connection. Must never come from the command line, nor appear in an error.

use std::path::PathBuf;
use std::process::Stdio;

use futures::future::BoxFuture;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::limits;

/// Gives the password, or with XOAUTH2 the access token, whenever a connection is made.
/// Tokens end, so nothing is kept between two askings.
pub trait Credentials: Send + Sync {
    /// The secret as of now.
    fn secret(&self) -> BoxFuture<'_, Result<SecretString, NoSecret>>;
}

/// Why there is no secret. Never quotes one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    /// The variable is not set, or empty.
    #[error("the environment variable {0} is not set; set it to the relay's password or token")]
    Variable(String),
    /// The file cannot be read.
    #[error("failed to read the password file {path}: {why}; check that it is a file you may read")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The command cannot be run, or fails.
    #[error("the password command {program} {why}; run it by hand to see what it prints")]
    Command {
        /// Its first word.
        program: String,
        /// What happened, completing a sentence that begins with the program.
        why: String,
    },
    /// Something came that is no secret.
    #[error("the relay's secret from {0} is empty or not one line of text; check what is there")]
    Shape(String),
    /// A source of somebody else's, such as a sign-in.
    #[error("could not get a token for the relay: {0}; sign in again")]
    SignIn(String),
}

/// Where the settings say that the secret is.
pub enum Source {
    /// In this environment variable, read when the settings were.
    Variable(SecretString),
    /// In the first line of this file, read each time.
    File(PathBuf),
    /// In the first line that this command prints, run each time without a shell.
    Command(Vec<String>),
}

impl Credentials for Source {
    fn secret(&self) -> BoxFuture<'_, Result<SecretString, NoSecret>> {
        Box::pin(async move {
            match self {
                Self::Variable(secret) => Ok(secret.clone()),
                Self::File(path) => from_file(path.clone()).await,
                Self::Command(words) => from_command(words).await,
            }
        })
    }
}

async fn from_file(path: PathBuf) -> Result<SecretString, NoSecret> {
    let broken = |why: String| NoSecret::File { path: path.clone(), why };
    let reading = path.clone();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read as _;
        let mut text = Zeroizing::new(Vec::with_capacity(limits::MAX_SECRET_BYTES + 1));
        let most = limits::MAX_SECRET_BYTES as u64 + 1;
        std::fs::File::open(reading)?.take(most).read_to_end(&mut text).map(|_| text)
    });
    let text = read
        .await
        .map_err(|error| broken(error.to_string()))?
        .map_err(|error| broken(error.to_string()))?;
    one_line(&text).ok_or_else(|| NoSecret::Shape(path.display().to_string()))
}

async fn from_command(words: &[String]) -> Result<SecretString, NoSecret> {
    let (program, arguments) = match words {
        [program, arguments @ ..] => (program.clone(), arguments),
        [] => (String::new(), &[][..]),
    };
    let broken = |why: String| NoSecret::Command { program: program.clone(), why };
    let running = tokio::process::Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(limits::SECRET_COMMAND_TIMEOUT, running)
        .await
        .map_err(|_| broken("did not end in time".to_owned()))?
        .map_err(|error| broken(format!("cannot be run: {error}")))?;
    let text = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(broken(format!("failed ({})", output.status)));
    }
    one_line(&text).ok_or(NoSecret::Shape(program))
}

/// The first line, if it is one and there is nothing but blank lines after it.
pub(super) fn one_line(text: &[u8]) -> Option<SecretString> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches(['\r', '\n']);
    let fit = !text.is_empty() && text.len() <= limits::MAX_SECRET_BYTES;
    (fit && !text.chars().any(char::is_control)).then(|| SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let source = Source::File(path.clone());
        assert!(matches!(source.secret().await, Err(NoSecret::File { .. })));
        for secret in ["first", "sécond with blanks "] {
            std::fs::write(&path, format!("{secret}\r\n")).unwrap();
            assert_eq!(source.secret().await.unwrap().expose_secret(), secret);
        }
        for bad in ["", "\n", "two\nlines", "nul\0", &"x".repeat(20_000)] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(source.secret().await, Err(NoSecret::Shape(_))), "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_is_run_without_a_shell() {
        let command =
            |words: &[&str]| Source::Command(words.iter().map(|word| (*word).to_owned()).collect());
        let printed = command(&["echo", "$HOME;x"]).secret().await.unwrap();
        assert_eq!(printed.expose_secret(), "$HOME;x");
        for (words, says) in [
            (&["false"][..], "failed (exit status: 1)"),
            (&["/nonexistent/program"][..], "cannot be run"),
            (&[][..], "cannot be run"),
        ] {
            let error = command(words).secret().await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
