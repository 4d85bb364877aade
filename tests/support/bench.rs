//! Promises the built program on a machine with nothing on it but one folder, and a served
//! tenant that it can reach. Must never read the program's words to learn what happened in
//! the tenant: the tenant's own log says that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tapwave_simulator::options::Call;
use tapwave_simulator::{PassEvent, Tenant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::server::Served;

/// Whoever may read the passes, where it does not matter who.
pub(crate) const ANYBODY: &str = "age1ek7q2ypfzd3htynvu2ygj0t7njlsh4qjl0qt3n3w3vjgtlkyy55qhvz45x";

/// A token that says nothing of itself.
pub(crate) const OPAQUE: &str = "t0ken";
/// The wave that [`Bench::wave`] writes.
pub(crate) const WAVE: &str = "wave.csv";

/// Variables of whoever runs the tests that must not reach the program.
const FOREIGN: [&str; 9] = [
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT",
    "TAPWAVE_FAILPOINT",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// A folder to work in, a home for runs, and a tenant.
pub(crate) struct Bench {
    folder: TempDir,
    served: Served,
    token: String,
    /// Serves until it is dropped.
    _runtime: Runtime,
}

/// An identity of somebody who may read passes.
pub(crate) struct Reader {
    /// The file's name in the folder.
    pub(crate) file: String,
    /// The public key.
    pub(crate) key: String,
}

/// What the program said, and how it ended.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bench {
    /// With a tenant that takes an opaque token.
    pub(crate) fn new(tenant: Tenant) -> Self {
        Self::signed_in(tenant, OPAQUE)
    }

    /// With a tenant of `count` invented people who may all have a pass, and a wave of them.
    pub(crate) fn of(count: usize) -> Self {
        let bench = Self::new(Tenant::for_wave(people(count), 7));
        bench.wave(people(count));
        bench
    }

    /// With a tenant that takes this token.
    pub(crate) fn signed_in(tenant: Tenant, token: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let served = runtime.block_on(Served::open(tenant, 0, token, None)).expect("a port");
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, served, token: token.to_owned(), _runtime: runtime }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("written");
    }

    /// Writes the settings and trusts them.
    pub(crate) fn settings(&self, text: impl AsRef<[u8]>) {
        self.write("tapwave.toml", text);
        self.tapwave(&["settings", "--trust"]).ends(0);
    }

    /// Reads a text file of the folder.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a text file")
    }

    /// Writes `wave.csv` with one column.
    pub(crate) fn wave<U: AsRef<str>>(&self, upns: impl IntoIterator<Item = U>) {
        let mut text = "userPrincipalName\n".to_owned();
        for upn in upns {
            text += upn.as_ref();
            text.push('\n');
        }
        self.write(WAVE, text);
    }

    /// Makes an identity with the program itself.
    pub(crate) fn reader(&self, name: &str) -> Reader {
        let file = format!("{name}.txt");
        let said = self.tapwave(&["keygen", "-o", &file]).ends(0);
        let key = said.err.lines().find_map(|line| line.strip_prefix("public key: "));
        Reader { key: key.expect("a public key").to_owned(), file }
    }

    /// The program, ready to start in the folder; Graph is the tenant.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin("tapwave"));
        command.current_dir(self.folder.path()).args(arguments);
        for name in FOREIGN {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
            .env("TAPWAVE_HOME", self.path("home"))
            .env("TAPWAVE_ACCESS_TOKEN", &self.token)
            .stdin(Stdio::null());
        command
    }

    /// Runs what the program told to type, as a shell reads it, with no option besides.
    #[cfg(unix)]
    pub(crate) fn pasted(&self, line: &str) -> Said {
        let program = self.command(&[]);
        let folder = Path::new(program.get_program()).parent().expect("a folder").to_owned();
        let path = std::env::join_paths([folder, "/usr/bin".into(), "/bin".into()]);
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        Said::of(shell.env("PATH", path.expect("a path")))
    }

    /// Runs the program against the tenant to its end.
    pub(crate) fn tapwave(&self, arguments: &[&str]) -> Said {
        let url = self.graph_url();
        let graph = ["--graph-url", url.as_str(), "--auth", "token"];
        Said::of(&mut self.command(&[arguments, &graph[..]].concat()))
    }

    /// Runs the program to its end, while time passes whenever it waits.
    #[track_caller]
    pub(crate) fn as_time_passes(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(arguments);
        command.env("TAPWAVE_TEST_CLOCK", self.served.clock());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        while child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(50));
            self.served.pass(Duration::from_secs(5));
        }
        Said::from(child.wait_with_output().expect("it ended"))
    }

    /// Holds the answers to the `nth` request of a kind and to all of that kind that follow.
    pub(crate) fn hold(&self, call: Call, nth: u64) {
        self.served.hold(call, nth);
    }

    /// Gives every held answer, and holds none any more.
    pub(crate) fn let_go(&self) {
        self.served.let_go();
    }

    /// The tenant's origin.
    pub(crate) fn graph_url(&self) -> String {
        self.served.url().trim_end_matches("/v1.0").to_owned()
    }

    /// Looks at the tenant, or changes it.
    pub(crate) fn tenant<T>(&self, look: impl FnOnce(&mut Tenant, Timestamp) -> T) -> T {
        self.served.with(look)
    }

    /// How many HTTP requests have reached the tenant.
    pub(crate) fn requests(&self) -> u64 {
        self.tenant(|tenant, _| tenant.tally().requests)
    }

    /// What happened to passes, oldest first.
    pub(crate) fn events(&self) -> Vec<PassEvent> {
        self.tenant(|tenant, _| tenant.log().iter().map(|entry| entry.event.clone()).collect())
    }

    /// The codes of the passes that live, by UPN.
    pub(crate) fn codes(&self) -> BTreeMap<String, String> {
        self.tenant(|tenant, _| {
            tenant.passes().map(|(_, upn, pass)| (upn.to_owned(), pass.code.clone())).collect()
        })
    }

    /// The folders of all runs in the home.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.path("home").join("runs")) else { return Vec::new() };
        let mut runs: Vec<PathBuf> = entries.map(|entry| entry.expect("one").path()).collect();
        runs.sort();
        runs
    }

    /// The codes by UPN that an identity opens, by `open --format json`.
    pub(crate) fn opened(&self, what: &str, identity: &str) -> BTreeMap<String, String> {
        let said = self.tapwave(&["open", what, "-i", identity, "--format", "json"]).ends(0);
        codes_in(&said.json())
    }

    /// Everything that lies in the folder: each file's path and bytes.
    pub(crate) fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        gather(self.folder.path(), &mut found);
        found
    }

    /// Asserts that nothing was asked of the tenant, nothing happened in it, and no run lies
    /// anywhere.
    #[track_caller]
    pub(crate) fn is_untouched(&self) {
        assert_eq!(self.requests(), 0, "requests reached the tenant");
        self.is_unchanged();
    }

    /// Asserts that nothing happened in the tenant and no run was left.
    #[track_caller]
    pub(crate) fn is_unchanged(&self) {
        assert_eq!(self.events(), [], "something happened in the tenant");
        assert_eq!(self.runs(), Vec::<PathBuf>::new(), "a run folder was left");
    }
}

impl Said {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program starts"))
    }

    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Asserts that stderr holds each of these.
    #[track_caller]
    pub(crate) fn says<const N: usize>(self, parts: [&str; N]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "not said: {part}\nstderr:\n{}", self.err);
        }
        self
    }

    /// The command that is told for this.
    #[cfg(unix)]
    #[track_caller]
    pub(crate) fn command(&self, why: &str) -> String {
        let told = self.err.lines().find_map(|line| {
            let (command, told) = line
                .split_once("   ")
                .filter(|(it, _)| !it.is_empty())
                .or_else(|| line.trim_start().split_once("   "))?;
            let command = command.trim_start_matches("next: ").trim();
            (told.trim() == why && command.starts_with("tapwave ")).then(|| command.to_owned())
        });
        told.unwrap_or_else(|| panic!("nothing is told for {why:?}:\n{}", self.err))
    }

    /// Asserts that neither stdout nor stderr holds this.
    #[track_caller]
    pub(crate) fn hides(self, part: &str) -> Self {
        assert!(!self.out.contains(part) && !self.err.contains(part), "said: {part}");
        self
    }

    /// stdout as the one JSON value that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("no JSON ({error}):\n{}\n{}", self.out, self.err))
    }

    /// The reasons of `tapwave.check/1`, by line.
    #[track_caller]
    pub(crate) fn problems(&self) -> Vec<(u64, String)> {
        let verdict = self.json();
        let problems = verdict["problems"].as_array().expect("problems");
        let told = problems.iter().map(|one| {
            let reason = one["reason"].as_str().expect("a reason");
            (one["row"].as_u64().expect("a line"), reason.to_owned())
        });
        told.collect()
    }
}

/// `person1@contoso.example` and so on.
pub(crate) fn people(count: usize) -> Vec<String> {
    (1..=count).map(person).collect()
}

/// One of [`people`], counted from 1.
pub(crate) fn person(number: usize) -> String {
    format!("person{number}@contoso.example")
}

/// An unsigned JWT of an application with these roles.
pub(crate) fn jwt(roles: &[&str]) -> String {
    unsigned(&json!({"roles": roles, "tid": "contoso", "appid": "tapwave-tests"}))
}

/// An unsigned JWT of a person with these scopes and, where given, these active roles.
pub(crate) fn person_jwt(scopes: &str, wids: Option<&Value>) -> String {
    let mut claims = json!({"scp": scopes, "tid": "contoso", "upn": "admin@contoso.example"});
    if let Some(wids) = wids {
        claims["wids"] = wids.clone();
    }
    unsigned(&claims)
}

fn unsigned(payload: &Value) -> String {
    let mut token = String::from("e30.");
    write!(token, "{}.sig", URL_SAFE_NO_PAD.encode(payload.to_string())).expect("a string");
    token
}

/// The codes by UPN in what `open --format json` prints.
pub(crate) fn codes_in(rows: &Value) -> BTreeMap<String, String> {
    let text = |row: &Value, name| row[name].as_str().expect("a text").to_owned();
    let rows = rows.as_array().expect("an array").iter();
    rows.map(|row| (text(row, "userPrincipalName"), text(row, "temporaryAccessPass"))).collect()
}

/// The names of a JSON object, sorted.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn gather(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, found);
        } else if let Ok(bytes) = fs::read(&path) {
            found.insert(path, bytes);
        }
    }
}
