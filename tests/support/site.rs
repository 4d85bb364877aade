//! Promises a whole place of work: a served tenant, a wave, a home for runs, an identity, and
//! the built program among them. What happened is judged by the tenant's own log, never by the
//! program's words.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use jiff::Timestamp;
use serde_json::Value;
use tapwave_simulator::options::Call;
use tapwave_simulator::{Options, PassEvent, Tenant};
use tokio::runtime::Runtime;
use tokio_rustls::rustls::ServerConfig;

#[cfg(target_os = "linux")]
use super::certificates::certify;
use super::server::Served;

/// What the tenant takes for a token.
pub(crate) const TOKEN: &str = "rehearsed-bearer-5e2f";
/// States of rows whose pass is sealed and vouched for.
const SEALED: [&str; 3] = ["sealed", "mailing", "delivered"];
/// How long a condition may take to come true before a test gives up: a bound for what hangs,
/// far beyond what a busy machine needs.
const PATIENCE: Duration = Duration::from_mins(5);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(2);
/// How long the program has between two steps of the time to notice and to act.
const BETWEEN_STEPS: Duration = Duration::from_millis(100);

/// A place of work. Everything in it ends with it.
pub(crate) struct Site {
    pub(crate) served: Served,
    pub(crate) home: tempfile::TempDir,
    pub(crate) people: Vec<String>,
    recipient: String,
    runtime: Runtime,
    /// The program runs as a user who owns this place and nothing else.
    unprivileged: bool,
}

/// The first words of a command that runs another as a user without rights.
#[cfg(unix)]
const AS_NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Site {
    /// A kind tenant with so many people, all of them in the wave.
    pub(crate) fn open(people: usize) -> Self {
        Self::with(people, |_| {})
    }

    /// A tenant that behaves as `choose` says.
    pub(crate) fn with(people: usize, choose: impl FnOnce(&mut Options)) -> Self {
        Self::at(people, choose, |_| None)
    }

    /// The same behind TLS, over these protocols by their names in ALPN.
    #[cfg(target_os = "linux")]
    pub(crate) fn over_tls(
        people: usize,
        protocols: &[&str],
        choose: impl FnOnce(&mut Options),
    ) -> Self {
        let tls = |home: &Path| {
            let mut config = ServerConfig::clone(&certify(home, false));
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            Some(Arc::new(config))
        };
        Self::at(people, choose, tls)
    }

    fn at(
        people: usize,
        choose: impl FnOnce(&mut Options),
        tls: impl FnOnce(&Path) -> Option<Arc<ServerConfig>>,
    ) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let people: Vec<String> =
            (1..=people).map(|number| format!("user{number}@contoso.example")).collect();
        let mut tenant = Tenant::for_wave(people.clone(), 7);
        choose(tenant.options_mut());
        let home = tempfile::tempdir().expect("a temporary folder");
        let tls = tls(home.path());
        let served = runtime.block_on(Served::open(tenant, 0, TOKEN, tls)).expect("a port");
        let identity = age::x25519::Identity::generate();
        fs::write(home.path().join("id.txt"), identity.to_string().expose_secret())
            .expect("written");
        let recipient = identity.to_public().to_string();
        let site = Self { served, home, people, recipient, runtime, unprivileged: false };
        site.write_wave(&site.people);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where something really lies, in words.
    pub(crate) fn resolved(&self, name: &str) -> String {
        self.path(name).canonicalize().expect("there").display().to_string()
    }

    /// The run folder of [`Site::run`].
    pub(crate) fn folder(&self) -> PathBuf {
        self.path("wave-run")
    }

    /// The public key of `id.txt`.
    pub(crate) fn recipient(&self) -> &str {
        &self.recipient
    }

    pub(crate) fn write_wave(&self, upns: &[String]) {
        let wave = format!("userPrincipalName\n{}\n", upns.join("\n"));
        fs::write(self.path("wave.csv"), wave).expect("written");
    }

    /// Writes the settings and trusts them.
    pub(crate) fn settings(&self, text: &str) {
        fs::write(self.path("tapwave.toml"), text).expect("written");
        self.told(&["settings", "--trust"]).exits(0);
    }

    /// The program with everything that each command needs; standard input is no terminal.
    pub(crate) fn tapwave(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapwave"));
        command
            .args(args)
            .args(["--auth", "token", "--no-progress"])
            .current_dir(self.home.path())
            .env_clear()
            .env("TAPWAVE_HOME", self.path("tapwave-home"))
            .env("TAPWAVE_ACCESS_TOKEN", TOKEN)
            .env("TAPWAVE_TEST_CLOCK", self.served.clock())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !args.contains(&"--graph-url") {
            command.args(["--graph-url", self.graph_url().as_str()]);
        }
        if self.graph_url().starts_with("https:") {
            command.args(["--ca-file", "ca.pem"]);
        }
        #[cfg(unix)]
        if self.unprivileged {
            return through(&AS_NOBODY, &command);
        }
        command
    }

    /// Makes sure that the program runs without root's rights. False if root cannot leave them.
    #[cfg(unix)]
    pub(crate) fn without_rights(&mut self) -> bool {
        if !rustix::process::geteuid().is_root() {
            return true;
        }
        self.unprivileged = true;
        let given =
            Command::new("chown").args(["-R", "65534:65534"]).arg(self.home.path()).status();
        let mut program = self.tapwave(&["--version"]);
        given.is_ok_and(|given| given.success())
            && program.output().is_ok_and(|told| told.status.success())
    }

    /// Another program as the user whom the program runs as.
    #[cfg(unix)]
    pub(crate) fn as_same_user(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.home.path()).env_clear();
        if self.unprivileged { through(&AS_NOBODY, &command) } else { command }
    }

    pub(crate) fn graph_url(&self) -> String {
        self.served.url().trim_end_matches("/v1.0").to_owned()
    }

    /// Runs a command to its end.
    pub(crate) fn told(&self, args: &[&str]) -> Told {
        Told::of(self.tapwave(args).output().expect("started"))
    }

    /// Runs what the program told to type, as a shell reads it, with no option besides.
    #[cfg(unix)]
    pub(crate) fn pasted(&self, line: &str) -> Told {
        Told::of(self.shell(line).output().expect("started"))
    }

    /// The same, left to the caller.
    #[cfg(unix)]
    pub(crate) fn start_pasted(&self, line: &str) -> Started {
        let mut shell = self.shell(line);
        shell.stdout(Stdio::piped()).stderr(Stdio::piped());
        Started::of(shell)
    }

    #[cfg(unix)]
    fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_tapwave"));
        let path = std::env::join_paths(
            program
                .parent()
                .map(Path::to_owned)
                .into_iter()
                .chain(["/usr/bin".into(), "/bin".into()]),
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(self.home.path()).env_clear().stdin(Stdio::null());
        shell
            .env("PATH", path.expect("a path"))
            .env("TAPWAVE_HOME", self.path("tapwave-home"))
            .env("TAPWAVE_ACCESS_TOKEN", TOKEN)
            .env("TAPWAVE_TEST_CLOCK", self.served.clock());
        shell
    }

    /// The arguments of `run` into [`Site::folder`], with a short settling time.
    pub(crate) fn run_args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["run", "wave.csv", "--run", "wave-run", "-r", &self.recipient];
        if !more.contains(&"--settle-after") {
            args.extend(["--settle-after", "1s"]);
        }
        args.extend(more);
        args
    }

    pub(crate) fn run(&self, more: &[&str]) -> Told {
        self.told(&self.run_args(more))
    }

    /// Starts a run and leaves it to the caller.
    pub(crate) fn start(&self, args: &[&str]) -> Started {
        Started::of(self.tapwave(args))
    }

    pub(crate) fn resume(&self) -> Told {
        self.told(&["resume", "wave-run"])
    }

    /// A cleanup, and time passes while it looks more than once.
    #[track_caller]
    pub(crate) fn cleanup(&self, more: &[&str]) -> Told {
        let cleanup = self.start(&[&["cleanup", "wave-run"], more].concat());
        self.end_as_time_passes(cleanup)
    }

    /// `status --json`, by person.
    pub(crate) fn status(&self, more: &[&str]) -> BTreeMap<String, Value> {
        let told = self.told(&[&["status", "wave-run", "--json"], more].concat());
        assert_eq!(told.code, Some(0), "{told:?}");
        let status: Value = serde_json::from_str(&told.out).expect("one JSON value");
        assert_eq!(status["schema"], "tapwave.status/1");
        let rows = status["rows"].as_array().expect("rows").clone();
        let upn = |row: &Value| row["userPrincipalName"].as_str().expect("a name").to_owned();
        rows.into_iter().map(|row| (upn(&row), row)).collect()
    }

    /// How many rows are in this state.
    pub(crate) fn count(&self, state: &str) -> usize {
        self.status(&[]).values().filter(|row| row["state"] == state).count()
    }

    /// The codes that the recipient reads from the ledger, by person.
    pub(crate) fn read(&self, what: &str) -> BTreeMap<String, String> {
        let told = self.told(&["open", what, "-i", "id.txt", "--format", "json"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        let rows: Vec<Value> = serde_json::from_str(&told.out).expect("an array");
        let text = |row: &Value, name: &str| row[name].as_str().expect("text").to_owned();
        rows.iter()
            .map(|row| (text(row, "userPrincipalName"), text(row, "temporaryAccessPass")))
            .collect()
    }

    /// The live passes by the tenant's word: person to method and code.
    pub(crate) fn live(&self) -> BTreeMap<String, (String, String)> {
        self.served.with(|tenant, _| {
            tenant
                .passes()
                .map(|(_, upn, pass)| (upn.to_owned(), (pass.method.clone(), pass.code.clone())))
                .collect()
        })
    }

    /// Every code the tenant ever made.
    pub(crate) fn minted(&self) -> Vec<String> {
        self.served.with(|tenant, _| {
            let minted = tenant.log().iter().filter_map(|entry| match &entry.event {
                PassEvent::Minted { code, .. } => Some(code.clone()),
                _ => None,
            });
            minted.collect()
        })
    }

    pub(crate) fn seen(&self, call: Call) -> u64 {
        self.served.with(|tenant, _| tenant.seen(call))
    }

    /// Holds the answers to the `nth` request of a kind and to all of that kind that follow.
    pub(crate) fn hold(&self, call: Call, nth: u64) {
        self.served.hold(call, nth);
    }

    /// Gives every held answer, and holds none any more.
    pub(crate) fn let_go(&self) {
        self.served.let_go();
    }

    /// Waits until so many answers are held.
    #[track_caller]
    pub(crate) fn until_held(&self, count: usize) {
        self.until("answers are held", |site| site.served.holding() == count);
    }

    /// The time by which tenant and program go.
    pub(crate) fn now(&self) -> Timestamp {
        self.served.with(|_, now| now)
    }

    /// Lets so much time pass, for the tenant and the program alike.
    pub(crate) fn pass(&self, time: Duration) {
        self.served.pass(time);
    }

    /// Lets time pass in steps until something is true: for a wait of the program's of which a
    /// test cannot see when it begins.
    #[track_caller]
    pub(crate) fn pass_until(
        &self,
        step: Duration,
        what: &str,
        mut done: impl FnMut(&Self) -> bool,
    ) {
        let mut next = Instant::now() + BETWEEN_STEPS;
        self.until(what, |site| {
            if done(site) {
                return true;
            }
            if Instant::now() >= next {
                site.pass(step);
                next = Instant::now() + BETWEEN_STEPS;
            }
            false
        });
    }

    /// Waits for a process's end while time passes, twenty times as fast as it does: slowly
    /// enough that no request is given up for its length on a busy machine.
    #[track_caller]
    pub(crate) fn end_as_time_passes(&self, mut run: Started) -> Told {
        let step = Duration::from_secs(2);
        self.pass_until(step, "it ends", |_| run.child.try_wait().expect("a child").is_some());
        run.end()
    }

    /// A helpdesk makes a pass in the portal.
    pub(crate) fn issue_elsewhere(&self, upn: &str) -> String {
        self.served
            .with(|tenant, now| tenant.issue_elsewhere(now, upn))
            .expect("the person is there")
    }

    /// An operator deletes a pass in the portal.
    pub(crate) fn delete_elsewhere(&self, upn: &str) {
        let method = self.live().get(upn).expect("a pass").0.clone();
        let url = format!(
            "{}/users/{upn}/authentication/temporaryAccessPassMethods/{method}",
            self.served.url()
        );
        let status = self.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            client.delete(url).bearer_auth(TOKEN).send().await.expect("an answer").status()
        });
        assert_eq!(status, 204);
    }

    pub(crate) fn dismiss(&self, upn: &str) {
        assert!(self.served.with(|tenant, now| tenant.dismiss(now, upn)), "nobody is {upn}");
    }

    /// Somebody signs in with their pass.
    pub(crate) fn use_pass(&self, upn: &str) {
        self.served.with(|tenant, now| tenant.use_pass(now, upn)).expect("a pass that works");
    }

    /// Whether the run's log has a line with this word.
    #[cfg(unix)]
    pub(crate) fn has_logged(&self, word: &str) -> bool {
        let log = fs::read_to_string(self.folder().join("log.jsonl")).unwrap_or_default();
        log.lines().any(|line| line.contains(&format!("\"message\":\"{word}\"")))
    }

    /// HTTP requests that have reached the tenant.
    pub(crate) fn requests(&self) -> u64 {
        self.served.with(|tenant, _| tenant.tally().requests)
    }

    /// What the tenant takes for a token from now on.
    pub(crate) fn change_token(&self, token: &str) {
        let control = format!("{}/control/break", self.graph_url());
        let status = self.runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let wish = serde_json::json!({ "token": token });
            client.post(control).json(&wish).send().await.expect("an answer").status()
        });
        assert_eq!(status, 200);
    }

    /// Does something while the servers go on.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Waits until something is true.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(GLANCE);
        }
    }

    /// By the tenant's log: each sealed pass is the live one, each live pass is sealed here,
    /// and the recipient reads the live codes.
    #[track_caller]
    pub(crate) fn assert_true(&self, context: &str) {
        let live = self.live();
        let sealed: BTreeMap<String, String> = self
            .status(&[])
            .into_iter()
            .filter(|(_, row)| SEALED.iter().any(|state| row["state"] == *state))
            .map(|(upn, row)| (upn, row["methodId"].as_str().expect("an id").to_owned()))
            .collect();
        let lives: BTreeMap<String, String> =
            live.iter().map(|(upn, (method, _))| (upn.clone(), method.clone())).collect();
        assert_eq!(sealed, lives, "{context}: sealed on the left, live on the right");
        let codes: BTreeMap<String, String> =
            live.into_iter().map(|(upn, (_, code))| (upn, code)).collect();
        assert_eq!(self.read("wave-run"), codes, "{context}: read on the left, live on the right");
    }

    /// As [`Site::assert_true`], for a run in which everybody has a pass. The handoff folder
    /// alone holds the live codes too; it may hold those of passes that are over besides.
    #[track_caller]
    pub(crate) fn assert_whole(&self, context: &str) {
        self.assert_true(context);
        assert_eq!(self.live().len(), self.people.len(), "{context}");
        let mut handed: Vec<String> = Vec::new();
        for file in files(&self.folder().join("handoff")) {
            handed.extend(self.read(&file.to_string_lossy()).into_values());
        }
        for (upn, (_, code)) in self.live() {
            assert!(handed.contains(&code), "{context}: no handoff holds the pass of {upn}");
        }
    }
}

impl Told {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The summary of `--json`.
    #[track_caller]
    pub(crate) fn summary(&self) -> Value {
        let summary: Value = serde_json::from_str(&self.out).expect("one JSON value");
        assert_eq!(summary["schema"], "tapwave.summary/1");
        summary
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// The command that is told between these words, or up to the end of the line.
    #[cfg(unix)]
    #[track_caller]
    pub(crate) fn command(&self, before: &str, after: &str) -> String {
        let found = self.err.lines().find_map(|line| {
            let (_, rest) = line.split_once(before)?;
            let rest = if after.is_empty() { rest } else { rest.split_once(after)?.0 };
            rest.starts_with("tapwave ").then(|| rest.trim_end().to_owned())
        });
        found.unwrap_or_else(|| panic!("no command after {before:?} in:\n{}", self.err))
    }

    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part), "{part:?} is not in:\n{}", self.err);
        self
    }
}

/// A process that is ended with its value. What it says is heard as it says it.
pub(crate) struct Started {
    child: Child,
    out: Option<Heard>,
    err: Option<Heard>,
}

impl Started {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.spawn().expect("started");
        let out = child.stdout.take().map(Heard::from);
        let err = child.stderr.take().map(Heard::from);
        Self { child, out, err }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill(mut self) -> Told {
        self.child.kill().expect("killed");
        self.end()
    }

    /// Waits for its end, and says no more than how it ended.
    #[cfg(unix)]
    pub(crate) fn status(mut self) -> std::process::ExitStatus {
        self.child.wait().expect("ended")
    }

    /// Whether it has said this on stderr.
    #[cfg(unix)]
    pub(crate) fn has_said(&self, words: &str) -> bool {
        self.err.as_ref().is_some_and(|err| holds(&err.so_far(), words.as_bytes()))
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Told {
        let status = self.child.wait().expect("ended");
        let whole = |heard: Option<Heard>| heard.map(Heard::whole).unwrap_or_default();
        let (stdout, stderr) = (whole(self.out.take()), whole(self.err.take()));
        Told::of(Output { status, stdout, stderr })
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("sent");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of a process's outputs, read to its end by a thread of its own.
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Heard {
    fn from(mut output: impl Read + Send + 'static) -> Self {
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let heard = Arc::clone(&bytes);
        let reading = std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut some) {
                heard.lock().expect("no panic here").extend_from_slice(&some[..count]);
            }
        });
        Self { bytes, reading }
    }

    fn so_far(&self) -> Vec<u8> {
        self.bytes.lock().expect("no panic here").clone()
    }

    fn whole(self) -> Vec<u8> {
        self.reading.join().expect("read");
        self.bytes.lock().expect("no panic here").split_off(0)
    }
}

/// A command that runs another one: `prefix`, then that one's own words.
#[cfg(unix)]
pub(crate) fn through(prefix: &[&str], inner: &Command) -> Command {
    let mut outer = Command::new(prefix[0]);
    outer.args(&prefix[1..]).arg(inner.get_program()).args(inner.get_args());
    outer.env_clear().current_dir(inner.get_current_dir().expect("set"));
    outer.envs(inner.get_envs().map(|(name, value)| (name, value.expect("set"))));
    outer.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    outer
}

/// Whether a process takes SIGINT by now, which ends one that does not.
#[cfg(target_os = "linux")]
pub(crate) fn listens(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let taken = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let taken = taken.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let interrupt = rustix::process::Signal::INT.as_raw();
    taken.is_some_and(|mask| mask >> (interrupt - 1) & 1 == 1)
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

/// Whether bytes hold a part.
pub(crate) fn holds(bytes: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(bytes, part).is_some()
}
