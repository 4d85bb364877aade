//! Promises the numbers that tapwave holds, measured on this machine: the program and a
//! simulated tenant as two processes, HTTP over loopback between them. Prints every number as
//! a ratio to its limit. Must never be a test: a busy machine is no defect.
//!
//!     cargo bench --bench numbers                  every case, about ten minutes
//!     cargo bench --bench numbers -- 200 memory    those whose name holds one of these words
//!
//! The times of the first POST and of the last commit come from the tenant's log and the
//! run's ledger, memory and processor time from the system (Linux alone).

use std::error::Error;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

type Failed = Box<dyn Error>;

const TAPWAVE: &str = env!("CARGO_BIN_EXE_tapwave");
const TOKEN: &str = "bench-token";
/// How often a process is looked at for its memory.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Clock ticks a second in `/proc/PID/stat`: Linux tells the same to every program.
const TICKS: f64 = 100.0;

/// A tenant's behaviour and the work to do in it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    rows: u64,
    latency: u64,
    throttle: &'static str,
    /// Over TLS, which Graph asks for, and so over HTTP/2.
    tls: bool,
    measures: &'static [Measure],
}

/// What is read off a run, and its limit.
#[derive(Clone, Copy)]
enum Measure {
    /// First POST sent to last commit, in seconds; and the ratio to hold.
    Span { limit: f64, hold: f64 },
    /// Process start to exit with the options that nobody has to give, in seconds.
    Whole { limit: f64, hold: f64 },
    /// The same of the run's cleanup.
    Cleanup { limit: f64, hold: f64 },
    /// Refused POSTs, and how many at most.
    Refused { hold: u64 },
    /// Largest resident memory, in MB.
    Memory { hold: f64 },
    /// Processor time, user and system, in ms a row.
    Processor { hold: f64 },
    /// HTTP calls of `check` for twenty rows.
    Calls { hold: f64 },
    /// Connections that the tenant saw.
    Connections { hold: u64 },
}

use Measure::{Calls, Cleanup, Connections, Memory, Processor, Refused, Span, Whole};

/// What issuing 2,000 passes takes with 64 requests in flight.
const fn issuing(latency: f64) -> f64 {
    2_000.0 * latency / 64.0
}

/// What removing 2,000 passes and listing what is left takes, twenty to a call and that many calls
/// in flight.
const fn removing(latency: f64) -> f64 {
    2.0 * 2_000.0 / 20.0 * latency / BATCHES
}

/// Batches that are under way at once.
const BATCHES: f64 = 8.0;

const CASES: &[Case] = &[
    Case {
        name: "no throttle, 50 ms",
        rows: 2_000,
        latency: 50,
        throttle: "none",
        tls: false,
        measures: &[
            Span { limit: issuing(0.05), hold: 1.25 },
            Whole { limit: issuing(0.05), hold: 1.92 },
            Cleanup { limit: removing(0.05), hold: 1.3 },
            Memory { hold: 40.0 },
        ],
    },
    Case {
        name: "no throttle, 200 ms",
        rows: 2_000,
        latency: 200,
        throttle: "none",
        tls: false,
        measures: &[
            Span { limit: issuing(0.2), hold: 1.12 },
            Whole { limit: issuing(0.2), hold: 1.6 },
            Cleanup { limit: removing(0.2), hold: 1.3 },
        ],
    },
    Case {
        name: "no throttle, 50 ms, HTTP/2",
        rows: 2_000,
        latency: 50,
        throttle: "none",
        tls: true,
        measures: &[Span { limit: issuing(0.05), hold: 1.25 }, Connections { hold: 2 }],
    },
    Case {
        name: "no throttle, 200 ms, HTTP/2",
        rows: 2_000,
        latency: 200,
        throttle: "none",
        tls: true,
        measures: &[Span { limit: issuing(0.2), hold: 1.12 }, Connections { hold: 2 }],
    },
    Case {
        name: "20/s, burst 20, 50 ms",
        rows: 2_000,
        latency: 50,
        throttle: "bucket:20,20",
        tls: false,
        measures: &[Span { limit: 99.0, hold: 1.02 }, Refused { hold: 20 }],
    },
    Case {
        name: "20/s, burst 20, 200 ms",
        rows: 2_000,
        latency: 200,
        throttle: "bucket:20,20",
        tls: false,
        measures: &[Span { limit: 99.0, hold: 1.02 }, Refused { hold: 20 }],
    },
    Case {
        name: "5 per 10 s, 50 ms",
        rows: 60,
        latency: 50,
        throttle: "fixed:5,10s",
        tls: false,
        measures: &[Span { limit: 110.0, hold: 1.10 }, Refused { hold: 15 }],
    },
    Case {
        name: "processor",
        rows: 20_000,
        latency: 1,
        throttle: "none",
        tls: false,
        measures: &[Processor { hold: 0.5 }, Memory { hold: 40.0 }],
    },
    Case {
        name: "memory",
        rows: 100_000,
        latency: 1,
        throttle: "none",
        tls: false,
        measures: &[Memory { hold: 40.0 }, Processor { hold: 0.5 }],
    },
    Case {
        name: "check, existing passes read",
        rows: 10_000,
        latency: 1,
        throttle: "none",
        tls: false,
        measures: &[Calls { hold: 1.0 }],
    },
    Case {
        name: "check, --existing replace",
        rows: 10_000,
        latency: 1,
        throttle: "none",
        tls: false,
        measures: &[Calls { hold: 1.0 }],
    },
];

fn main() -> Result<(), Failed> {
    // cargo itself passes flags such as --bench.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen =
        |case: &&Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let tenant = build_tenant()?;
    print(&format!("{}\n", machine()))?;
    print("| case | measured | limit | ratio | hold | |\n|---|---|---|---|---|---|\n")?;
    for case in CASES.iter().filter(chosen) {
        let run = Run::perform(case, &tenant)?;
        for measure in case.measures {
            print(&line(case, &run, *measure))?;
        }
    }
    Ok(())
}

/// One row of the table.
fn line(case: &Case, run: &Run, measure: Measure) -> String {
    let rows = thousands(case.rows);
    let (what, measured, limit, hold) = match measure {
        Span { limit, hold } => {
            ("first POST to last commit", run.span.map(|s| (s, "s")), limit, hold)
        }
        Whole { limit, hold } => ("process start to exit", Some((run.wall, "s")), limit, hold),
        Cleanup { limit, hold } => ("cleanup", run.cleanup.map(|s| (s, "s")), limit, hold),
        Refused { hold } => ("refused calls", Some((float(run.refused), "")), float(hold), 1.0),
        Connections { hold } => {
            ("connections", Some((float(run.connections), "")), float(hold), 1.0)
        }
        Memory { hold } => ("peak memory", run.memory.map(|mb| (mb, "MB")), hold, 1.0),
        Processor { hold } => {
            ("processor time a row", run.processor.map(|ms| (ms, "ms")), hold, 1.0)
        }
        Calls { hold } => ("calls for twenty rows", Some((run.calls_for_twenty, "")), hold, 1.0),
    };
    let Some((measured, unit)) = measured else {
        return format!("| {rows} rows, {}: {what} | not measured here | | | | |\n", case.name);
    };
    let ratio = measured / limit;
    let verdict = if ratio <= hold { "held" } else { "**over**" };
    format!(
        "| {rows} rows, {}: {what} | {measured:.2} {unit} | {limit:.2} {unit} | {ratio:.3} | {hold:.2} | {verdict} |\n",
        case.name
    )
}

/// What was seen of one run of the program.
struct Run {
    span: Option<f64>,
    wall: f64,
    cleanup: Option<f64>,
    refused: u64,
    connections: u64,
    memory: Option<f64>,
    processor: Option<f64>,
    calls_for_twenty: f64,
}

impl Run {
    fn perform(case: &Case, tenant: &Path) -> Result<Self, Failed> {
        let home = TempDir::new()?;
        let wave = home.path().join("wave.csv");
        write_wave(&wave, case.rows)?;
        let recipient = recipient(home.path())?;
        let tenant = Tenant::open(tenant, case, home.path())?;
        let check = case.measures.iter().any(|measure| matches!(measure, Calls { .. }));
        let folder = home.path().join("run");
        let mut command = Command::new(TAPWAVE);
        command.arg(if check { "check" } else { "run" }).arg(&wave).args(["-r", &recipient]);
        if case.name.ends_with("--existing replace") {
            command.args(["--existing", "replace"]);
        }
        if !check {
            command.arg("--run").arg(&folder);
        }
        let used = watch(tenant.asked_by(command, home.path()))?;
        let tally = tenant.ask("tally")?;
        let calls = tally["requests"].as_u64().ok_or("no tally")?;
        let (rows, calls) = (float(case.rows), float(calls));
        let span = if check { None } else { Some(tenant.span(case, &folder)?) };
        let cleanup = if case.measures.iter().any(|measure| matches!(measure, Cleanup { .. })) {
            let mut command = Command::new(TAPWAVE);
            command.arg("cleanup").arg(&folder);
            Some(watch(tenant.asked_by(command, home.path()))?.wall)
        } else {
            None
        };
        Ok(Self {
            span,
            wall: used.wall,
            cleanup,
            refused: tally["throttled"].as_u64().ok_or("no tally")?,
            // The last one is this question's.
            connections: tally["connections"].as_u64().ok_or("no tally")?.saturating_sub(1),
            memory: used.memory,
            processor: used.processor.map(|seconds| seconds * 1_000.0 / rows),
            calls_for_twenty: calls * 20.0 / rows,
        })
    }
}

/// The simulated tenant in a process of its own.
struct Tenant {
    process: Child,
    url: String,
    control: String,
    /// Whom to trust, where it speaks TLS.
    ca_file: Option<PathBuf>,
    runtime: tokio::runtime::Runtime,
}

impl Tenant {
    fn open(program: &Path, case: &Case, folder: &Path) -> Result<Self, Failed> {
        let mut command = Command::new(program);
        if case.tls {
            command.arg("--tls").arg(folder);
        }
        let mut process = command
            .args(["--count", &case.rows.to_string(), "--token", TOKEN])
            .args(["--latency", &format!("{}ms", case.latency), "--throttle", case.throttle])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let said = process.stdout.take().ok_or("the tenant has no stdout")?;
        BufReader::new(said).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)?;
        let text = |name: &str| told[name].as_str().map(ToOwned::to_owned).ok_or("no address");
        let url = text("url")?.trim_end_matches("/v1.0").to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ca_file = case.tls.then(|| folder.join("ca.pem"));
        Ok(Self { process, url, control: text("control")?, ca_file, runtime })
    }

    /// A command of the program that asks this tenant and nobody else.
    fn asked_by(&self, mut command: Command, home: &Path) -> Command {
        let ca_file = self.ca_file.iter();
        command
            .args(ca_file.flat_map(|file| [OsStr::new("--ca-file"), file.as_os_str()]))
            .args(["--graph-url", &self.url, "--auth", "token", "--json", "--quiet", "--yes"])
            .env("TAPWAVE_ACCESS_TOKEN", TOKEN)
            .env("TAPWAVE_HOME", home.join("home"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
    }

    fn ask(&self, what: &str) -> Result<Value, Failed> {
        let url = format!("{}/{what}", self.control);
        self.runtime.block_on(async {
            let mut client = reqwest::Client::builder().no_proxy();
            if let Some(file) = &self.ca_file {
                let authority = reqwest::Certificate::from_pem(&std::fs::read(file)?)?;
                client = client.tls_certs_only([authority]);
            }
            Ok(client.build()?.get(url).send().await?.json().await?)
        })
    }

    /// Seconds from the first POST to the last commit. Also proves that every row got its
    /// pass and none got two: a number of a run that failed would be worth nothing.
    fn span(&self, case: &Case, folder: &Path) -> Result<f64, Failed> {
        let log = self.ask("log")?;
        let log = log.as_array().ok_or("no log")?;
        if log.len() as u64 != case.rows || log.iter().any(|line| line["event"]["kind"] != "minted")
        {
            return Err(format!("{} passes for {} rows", log.len(), case.rows).into());
        }
        let arrived: Timestamp = log[0]["at"].as_str().ok_or("no time")?.parse()?;
        let (sealed, last): (i64, String) = rusqlite::Connection::open(folder.join("ledger.db"))?
            .query_row(
            "SELECT count(*), max(at) FROM events WHERE event = 'sealed'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if u64::try_from(sealed)? != case.rows {
            return Err(format!("{sealed} rows of {} were sealed", case.rows).into());
        }
        let last: Timestamp = last.parse()?;
        // The log tells when it arrived; it was sent half a round trip earlier.
        let under_way = Duration::from_millis(case.latency).as_secs_f64() / 2.0;
        Ok(last.duration_since(arrived).as_secs_f64() + under_way)
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a process has used in its whole life.
struct Used {
    /// Seconds from its start to its end, by the clock on the wall.
    wall: f64,
    /// MB resident at most.
    memory: Option<f64>,
    /// Seconds of user and system time.
    processor: Option<f64>,
}

/// Runs a command to its end and looks at it until then.
fn watch(mut command: Command) -> Result<Used, Failed> {
    let began = Instant::now();
    let mut process = command.spawn()?;
    let mut used = Used { wall: 0.0, memory: None, processor: None };
    // Read it away, or the program would wait for a reader of its summary.
    let said = process.stdout.take();
    let reader = std::thread::spawn(move || said.map(std::io::read_to_string));
    while !has_ended(process.id()) {
        used.memory = peak_memory(process.id()).or(used.memory);
        // One that cannot be seen to end is waited for below.
        if cfg!(not(target_os = "linux")) || began.elapsed() > Duration::from_hours(1) {
            break;
        }
        sleep(LOOK_EVERY);
    }
    used.processor = processor_time(process.id());
    let status = process.wait()?;
    used.wall = began.elapsed().as_secs_f64();
    let said = reader.join().map_err(|_| "the reader panicked")?.transpose()?.unwrap_or_default();
    if !status.success() {
        return Err(format!("tapwave ended with {status}: {said}").into());
    }
    Ok(used)
}

/// It has ended and waits to be taken note of: its times are whole now.
fn has_ended(id: u32) -> bool {
    stat(id).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z"))
}

fn processor_time(id: u32) -> Option<f64> {
    let fields = stat(id)?;
    // Fields 14 and 15 of proc_pid_stat(5), of which these begin at the third.
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

fn stat(id: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(ToOwned::to_owned).collect())
}

fn peak_memory(id: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024.0 / 1_000_000.0)
}

/// The example that serves the tenant, built with the same optimizations.
fn build_tenant() -> Result<PathBuf, Failed> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--example", "tenant"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() {
        return Err("the tenant cannot be built".into());
    }
    let folder = Path::new(TAPWAVE).parent().ok_or("no folder")?;
    Ok(folder.join("examples").join(format!("tenant{}", std::env::consts::EXE_SUFFIX)))
}

fn write_wave(path: &Path, rows: u64) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create_new(path)?);
    writeln!(file, "userPrincipalName,Department")?;
    for number in 1..=rows {
        writeln!(file, "user{number}@contoso.example,Operations")?;
    }
    file.flush()
}

/// A new identity's public key.
fn recipient(folder: &Path) -> Result<String, Failed> {
    let path = folder.join("key.txt");
    let made = Command::new(TAPWAVE).args(["keygen", "-q", "-o"]).arg(&path).status()?;
    if !made.success() {
        return Err(format!("keygen ended with {made}").into());
    }
    let text = std::fs::read_to_string(path)?;
    let key = text.lines().find_map(|line| line.strip_prefix("# public key: "));
    Ok(key.ok_or("the identity names no public key")?.to_owned())
}

/// When and where.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("", |text| text.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = read("/proc/loadavg");
    format!(
        "{} · {} {} · {model} · {cores} cores · load before: {} · tapwave {}",
        Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        load.split_whitespace().next().unwrap_or("unknown"),
        env!("CARGO_PKG_VERSION"),
    )
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn thousands(number: u64) -> String {
    if number < 1_000 {
        return number.to_string();
    }
    format!("{},{:03}", number / 1_000, number % 1_000)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
