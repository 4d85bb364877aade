//! Promises that a program which is started here, whatever it is for, gets none of the tokens,
//! secrets and passwords that came with the environment. Nobody else starts any.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Variables that hold a secret of ours: a token, an application's secret, what opens its
/// certificate, and the relay's password by the name that README gives it. What other programs
/// sign in with stays, since these may be what is started: `IDENTITY_HEADER`, the tokens of a
/// pipeline or of a vault, a proxy with its password.
const SECRETS: [&str; 4] = [
    "TAPWAVE_ACCESS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "SMTP_PASSWORD",
];

/// Further ones, which the settings name. For the whole process, as its environment is.
static NAMED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on no program gets this variable.
pub fn keep_back(variable: &str) {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner).push(variable.to_owned());
}

/// A program to be started, without a secret.
#[must_use]
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    strip(&mut command);
    command
}

fn strip(command: &mut Command) {
    for name in SECRETS {
        command.env_remove(name);
    }
    for name in NAMED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        command.env_remove(name);
    }
}

/// Opens an address in the browser, if there is one. Whether it did cannot be known.
pub fn browse(url: &str) {
    let launchers = open::commands(url);
    // Some end when the browser does.
    std::thread::spawn(|| {
        launchers.into_iter().any(|mut launcher| {
            strip(&mut launcher);
            // Ctrl-C is meant for us.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut launcher, 0);
            launcher.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            launcher.status().is_ok_and(|ended| ended.success())
        })
    });
}
