//! Promises that a relay's password or token is read from the environment, a file or a command, for
//! each connection again. Must never take one from the command line, nor show one in an error.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use futures::future::BoxFuture;
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use tapwave_core::limits;
use tapwave_core::programs;

/// Provides the password, or with XOAUTH2 the access token, for each connection. Tokens expire, so
/// it is not kept.
pub trait Credentials: Send + Sync {
    fn secret(&self) -> BoxFuture<'_, Result<SecretString, NoSecret>>;
}

/// Why there is no secret. Never quotes one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    #[error("the environment variable {0} is not set; set it to the relay's password or token")]
    Variable(String),
    #[error("failed to read the password file {path}: {why}; check that it is a file you may read")]
    File { path: PathBuf, why: String },
    #[error("the password command {program} {why}; run it by hand to see what it prints")]
    Command {
        program: String,
        /// Completes "the password command PROGRAM …".
        why: String,
    },
    #[error("the relay's secret from {0} is empty or not one line of text; check what is there")]
    Shape(String),
    #[error("could not get a token for the relay: {0}; sign in again")]
    SignIn(String),
}

/// Where the secret is, according to the settings.
pub enum SecretFrom {
    /// From an environment variable, read together with the settings.
    Variable(SecretString),
    /// In the first line of this file, read each time.
    File(PathBuf),
    /// In the first line that this command prints, run each time without a shell.
    Command(Vec<String>),
}

impl Credentials for SecretFrom {
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
    parse_secret(&text).ok_or_else(|| NoSecret::Shape(path.display().to_string()))
}

async fn from_command(words: &[String]) -> Result<SecretString, NoSecret> {
    let (program, arguments) = match words {
        [program, arguments @ ..] => (program.clone(), arguments),
        [] => (String::new(), &[][..]),
    };
    let broken = |why: String| NoSecret::Command { program: program.clone(), why };
    let running = output_of(&program, arguments);
    let (text, status) = tokio::time::timeout(limits::SECRET_COMMAND_TIMEOUT, running)
        .await
        .map_err(|_| {
            broken(format!("did not end within {} s", limits::SECRET_COMMAND_TIMEOUT.as_secs()))
        })?
        .map_err(|error| broken(format!("cannot be run: {error}")))?;
    let Some(status) = status else {
        return Err(broken(format!("printed more than {} bytes", limits::MAX_SECRET_BYTES)));
    };
    if !status.success() {
        return Err(broken(format!("failed ({status})")));
    }
    parse_secret(&text).ok_or(NoSecret::Shape(program))
}

/// Runs a command and returns its output and status; no status if it prints more than a secret and
/// a line end. The command is killed when the future is dropped.
async fn output_of(
    program: &str,
    arguments: &[String],
) -> io::Result<(Zeroizing<Vec<u8>>, Option<ExitStatus>)> {
    const LIMIT: usize = limits::MAX_SECRET_BYTES + "\r\n".len();
    let mut command = tokio::process::Command::from(programs::program(program))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let mut text = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    if let Some(out) = command.stdout.take() {
        out.take(LIMIT as u64 + 1).read_to_end(&mut text).await?;
    }
    if text.len() > LIMIT {
        command.kill().await?;
        return Ok((text, None));
    }
    let status = command.wait().await?;
    Ok((text, Some(status)))
}

/// The secret, if the text is one line followed by nothing but line ends.
pub(super) fn parse_secret(text: &[u8]) -> Option<SecretString> {
    let text = std::str::from_utf8(text).ok()?.trim_end_matches(['\r', '\n']);
    let fits = !text.is_empty() && text.len() <= limits::MAX_SECRET_BYTES;
    (fits && !text.chars().any(char::is_control)).then(|| SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[tokio::test]
    async fn a_file_is_read_again_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let source = SecretFrom::File(path.clone());
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
        let command = |words: &[&str]| {
            SecretFrom::Command(words.iter().map(|word| (*word).to_owned()).collect())
        };
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

    #[cfg(unix)]
    fn shell(script: &str) -> SecretFrom {
        SecretFrom::Command(["sh", "-c", script].map(ToOwned::to_owned).to_vec())
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_command_that_prints_too_much_is_killed() {
        for script in ["yes", "head -c 16385 /dev/zero | tr '\\0' x; echo; echo"] {
            let error = shell(script).secret().await.unwrap_err().to_string();
            assert!(error.contains("printed more than 16384 bytes"), "{script}: {error}");
        }
        let most = shell("head -c 16384 /dev/zero | tr '\\0' x; printf '\\r\\n'");
        assert_eq!(most.secret().await.unwrap().expose_secret().len(), limits::MAX_SECRET_BYTES);
        let more = shell("head -c 16385 /dev/zero | tr '\\0' x").secret().await;
        assert!(matches!(more, Err(NoSecret::Shape(_))));
    }

    /// With paused time, the timeout comes once nothing else is left to run.
    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_times_out() {
        for script in
            ["exec sleep 1000", "echo secret; exec >&-; exec sleep 1000", "sleep 5 & echo secret"]
        {
            let began = tokio::time::Instant::now();
            let error = shell(script).secret().await.unwrap_err().to_string();
            assert!(error.contains("did not end within 60 s"), "{script}: {error}");
            assert_eq!(began.elapsed().as_secs(), 60, "{script}");
        }
    }
}
