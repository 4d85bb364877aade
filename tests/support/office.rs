//! Promises a place to work: a home of its own, a served tenant, an identity, settings for a
//! relay, and the built program to run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tapwave_simulator::Tenant;
use tempfile::TempDir;

use super::server::Served;
use super::smtp::Relay;

/// The token that the tenant expects.
const TOKEN: &str = "office-token";

/// Everything that a command needs.
pub(crate) struct Office {
    folder: TempDir,
    pub(crate) tenant: Served,
    pub(crate) public_key: String,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The one JSON value on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }
}

impl Office {
    /// A tenant with everybody of the wave, and an identity in `key.txt`.
    pub(crate) async fn open(rows: u64, wave: &str) -> Self {
        let upns = (1..=rows).map(|n| format!("user{n}@contoso.example"));
        let tenant =
            Served::open(Tenant::for_wave(upns, 7), 0, TOKEN, None).await.expect("a tenant");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("wave.csv"), wave).expect("a wave");
        let mut office = Self { folder, tenant, public_key: String::new() };
        let made = office.run(&["keygen", "-o", "key.txt"]).await.expect(0);
        let key = made.err.lines().find_map(|line| line.strip_prefix("public key: "));
        key.expect("a public key").clone_into(&mut office.public_key);
        office
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mail through this relay, over STARTTLS, `rate` mails a minute.
    pub(crate) fn mail_through(&self, relay: &Relay, rate: u32) {
        self.mail_to_port(relay.port, &relay.authority(), rate);
    }

    /// The same, for a relay at this port of this machine.
    pub(crate) fn mail_to_port(&self, port: u16, authority: &Path, rate: u32) {
        let settings = format!(
            "[mail]\ncourier = \"smtp\"\nfrom = \"IT <it@contoso.example>\"\nhost = \"localhost\"\n\
             port = {port}\nusername = \"user\"\npassword_env = \"SMTP_PASSWORD\"\n\
             max_per_minute = {rate}\nmax_connections = 3\n"
        );
        let settings = format!("ca_file = '{}'\n{settings}", authority.display());
        self.settings(&settings);
    }

    /// Writes the settings and trusts them.
    pub(crate) fn settings(&self, text: &str) {
        std::fs::write(self.path("tapwave.toml"), text).expect("settings");
        let trusted = self.command(&["settings", "--trust"]).output().expect("started");
        Ended::of(trusted).expect(0);
    }

    /// Puts other words into the settings.
    pub(crate) fn change_settings(&self, from: &str, to: &str) {
        let path = self.path("tapwave.toml");
        let settings = std::fs::read_to_string(&path).expect("settings");
        assert!(settings.contains(from), "{settings}");
        self.settings(&settings.replacen(from, to, 1));
    }

    /// A command that waits to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapwave"));
        command
            .args(arguments)
            .args(["--graph-url", &self.tenant.url().replace("/v1.0", ""), "--auth", "token"])
            .arg("--no-progress")
            .env("TAPWAVE_ACCESS_TOKEN", TOKEN)
            .env("TAPWAVE_TEST_CLOCK", self.tenant.clock())
            .env("TAPWAVE_HOME", self.path("home"))
            .env("SMTP_PASSWORD", "right")
            .env_remove("HTTPS_PROXY")
            .env_remove("ALL_PROXY")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, while the servers go on.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.finish(self.command(arguments)).await
    }

    /// The same, for a command that was changed.
    pub(crate) async fn finish(&self, mut command: Command) -> Ended {
        let output = tokio::task::spawn_blocking(move || command.output());
        Ended::of(output.await.expect("a thread").expect("a process"))
    }

    /// `status --json` of the latest run, row by row.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let status = self.run(&["status", "latest", "--json"]).await.expect(0).json();
        status["rows"].as_array().expect("rows").clone()
    }
}
