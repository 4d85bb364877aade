//! Promises a program that hears when its terminal is closed, also where the tests themselves were
//! started by `nohup`, which whoever is started inherits.

use std::process::Command;

/// The same command, which takes SIGHUP as the system would have it.
pub(crate) fn hearing(inner: &Command) -> Command {
    // The `env` of other systems knows no signals; neither do their tests run under `nohup`.
    if !cfg!(target_os = "linux") {
        let mut same = Command::new(inner.get_program());
        same.args(inner.get_args());
        return like(same, inner);
    }
    let mut outer = Command::new("/usr/bin/env");
    outer.arg("--default-signal=HUP").arg(inner.get_program()).args(inner.get_args());
    like(outer, inner)
}

fn like(mut outer: Command, inner: &Command) -> Command {
    if let Some(folder) = inner.get_current_dir() {
        outer.current_dir(folder);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}
