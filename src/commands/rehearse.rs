//! `rehearse`: the whole pipeline against a simulated tenant, on this machine alone.
//!
//! Everything is real but Microsoft: the ledger, age, the handoff, the cleanup. The identity
//! is made for the occasion and thrown away with the folder.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use secrecy::ExposeSecret;
use serde::Serialize;
use tempfile::TempDir;
use uuid::Uuid;

use super::failure::{OfRun, WAVE, plain_file};
use super::wave::{WaveRequest, begin, somebody};
use super::{Failure, World};
use crate::args::{MailArgs, Profile, RehearseArgs};
use crate::config::{RunConfig, Settings};
use crate::output::{count, lasting};
use tapwave_core::exit::Exit;
use tapwave_core::ids::RunId;
use tapwave_core::limits;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Forecast, Limiter, forecast};
use tapwave_ledger::{Ledger, RunFolder};
use tapwave_pipeline::run::intake::{IntakeError, RunAbout};
use tapwave_pipeline::run::second_look::FinalLook;
use tapwave_pipeline::run::{Session, Summary, cleanup, issuing};
use tapwave_pipeline::wave::{Defaults, WaveItem, WaveReader};
use tapwave_seal::{Handoff, Identities, NewIdentity, NoPrompts, Prompts, keygen};
use tapwave_simulator::options::{Latency, Limit, Throttle, Throttles};
use tapwave_simulator::{InMemory, Options, Tenant};

/// What a call to Graph takes, near enough.
const LATENCY: Latency =
    Latency { least: Duration::from_millis(20), most: Duration::from_millis(60) };
/// Between the two.
const USUAL_LATENCY: Duration = Duration::from_millis(40);
/// The shape of a prediction, by name and version.
const PREDICTION: &str = "tapwave.prediction/1";

impl Profile {
    /// What the tenant bears, and how that is said.
    const fn limit(self) -> (Limit, &'static str) {
        match self {
            Self::None => (Limit::None, "does not throttle"),
            Self::Bucket => {
                (Limit::Bucket { rate: 20.0, burst: 20.0 }, "bears 20 passes a second, 20 at once")
            }
            Self::Window => (
                Limit::Fixed { units: 5.0, per: Duration::from_secs(10) },
                "bears 5 passes in each 10 seconds",
            ),
            Self::Burst => (
                Limit::Bucket { rate: 20.0, burst: 3_000.0 },
                "bears 3,000 passes at once, then 20 a second",
            ),
        }
    }
}

/// What issuing a wave would come to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Prediction {
    schema: &'static str,
    rows: u64,
    seconds: f64,
    per_second: f64,
    refused: u64,
    gave_up: bool,
}

fn about(folder: &RunFolder, wanted: &WaveRequest<'_>) -> RunAbout {
    RunAbout {
        id: RunId::new(Uuid::new_v4()),
        name: folder.name(),
        tenant: None,
        graph_url: "https://graph.microsoft.com".to_owned(),
        options: wanted.config.options.clone(),
    }
}

pub(super) async fn rehearse(
    args: &RehearseArgs,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let report = &world.report;
    report.info("rehearsal: a simulated tenant inside this program; nothing leaves this machine");
    let mut config = RunConfig::resolve(&args.want, &MailArgs::default(), settings)?;
    let stage = RehearsalFolder::set(args, config.time_zone.clone(), world)?;
    let predicted = stage.predict(args, settings);
    show_prediction(args.profile, stage.upns.len() as u64, &predicted, world);
    if predicted.gave_up || predicted.took > limits::MAX_REHEARSAL {
        return stage.leave_it_at(&predicted, world);
    }
    let identity = keygen(world.clock.now());
    report.info(format_args!("made a throw-away identity, {}", identity.recipient));
    config.break_glass.push(identity.recipient.clone());
    let mut wanted = WaveRequest::new(&stage.wave, config, world)?;
    wanted.ends_with = Some("a real run would stop here too, before the first pass");
    // Whoever is invented has no file that could be mended.
    wanted.again = args.wave.is_some().then_some("rehearse");
    let (tenant, session) = stage.connect(args, settings, world);
    let folder = RunFolder::create(&stage.folder())?;
    let about = about(&folder, &wanted);
    // A throw-away tenant shares its people with no other run.
    let mut unclaimed = |_: &[_]| Ok(HashMap::new());
    let begun = begin(&mut wanted, &folder, &about, &session, world, &mut unclaimed).await?;
    let ledger = match begun {
        Ok(ledger) => ledger,
        Err(exit) => return Ok(exit),
    };
    let sets = wanted.book.into_sets();
    let run = world.typed(&folder);
    let issuance = issuing::run(&ledger, sets, None, &session, FinalLook::Auto).await;
    let issuance = issuance.map_err(|error| over(error.of(&run)))?;
    if let Some(error) = issuance.error {
        return Err(over(error.of(&run)));
    }
    if let Some(error) = issuance.handover {
        return Err(over(error.of(&run)));
    }
    let issued = Summary::of(&ledger, &session, 0).await?;
    if issuance.interrupted {
        report.summary(&issued)?;
        return Ok(broken_off(world));
    }
    if issued.is_empty() {
        report.summary(&issued)?;
        report.nobody(issued.ineligible, issued.skipped);
        ledger.shut().await;
        return Ok(Exit::Done);
    }
    report.info(format_args!(
        "issued and sealed {} with {}",
        count(issued.sealed, "pass", "passes"),
        count(issued.requests, "call", "calls")
    ));
    prove_readable(&issuance.handoffs, &identity, &tenant, issued.sealed, world)?;
    let exit = clean_up(&ledger, &tenant, &session, world).await?;
    ledger.shut().await;
    if exit == Exit::Done {
        teach(args, issued.sealed, settings, world);
    }
    Ok(exit)
}

/// The wave and the private folder of one rehearsal; both go when it ends.
struct RehearsalFolder {
    home: TempDir,
    wave: PathBuf,
    upns: Vec<String>,
}

impl RehearsalFolder {
    fn set(
        args: &RehearseArgs,
        time_zone: Option<TimeZone>,
        world: &World,
    ) -> Result<Self, Failure> {
        let home =
            tempfile::Builder::new().prefix("tapwave-rehearsal-").tempdir().map_err(|error| {
                Failure::unwritten("make a folder in", &std::env::temp_dir(), &error)
            })?;
        let wave = if let Some(wave) = &args.wave {
            wave.clone()
        } else {
            let wave = home.path().join("invented.csv");
            invent(&wave, args.rows).map_err(|error| Failure::unwritten("write", &wave, &error))?;
            world.report.info(format_args!("invented {}", count(args.rows, "person", "people")));
            wave
        };
        let upns = people(&wave, time_zone)?;
        Ok(Self { home, wave, upns })
    }

    fn folder(&self) -> PathBuf {
        // The system's own folder for temporary files may be reached through a link.
        let home = self.home.path();
        home.canonicalize().unwrap_or_else(|_| home.to_owned()).join("run")
    }

    /// How long issuing will take, by the limiter that will be in force.
    fn predict(&self, args: &RehearseArgs, settings: &Settings) -> Forecast {
        let rows = self.upns.len() as u64;
        forecast(&settings.limiter, rows, USUAL_LATENCY, args.profile.limit().0)
    }

    /// A rehearsal in real time would try anybody's patience.
    fn leave_it_at(&self, predicted: &Forecast, world: &World) -> Result<Exit, Failure> {
        if world.report.is_json() {
            world.report.json(&Prediction {
                schema: PREDICTION,
                rows: self.upns.len() as u64,
                seconds: predicted.took.as_secs_f64(),
                per_second: per_second(predicted),
                refused: predicted.refused,
                gave_up: predicted.gave_up,
            })?;
        }
        world.report.info(format_args!(
            "that is longer than {}, so it is left at the prediction",
            lasting(limits::MAX_REHEARSAL)
        ));
        world.report.next(&[(
            format!("tapwave rehearse{}", world.line.connection()),
            "goes through everything with a few people, from the check to the cleanup",
        )]);
        Ok(Exit::Done)
    }

    fn connect(
        &self,
        args: &RehearseArgs,
        settings: &Settings,
        world: &World,
    ) -> (InMemory, Session) {
        let mut tenant = Tenant::for_wave(self.upns.iter().map(String::as_str), args.seed);
        let options: &mut Options = tenant.options_mut();
        options.latency = LATENCY;
        let pass_writes = Throttle::of(args.profile.limit().0);
        options.throttles = Throttles { pass_writes, ..Throttles::default() };
        let tenant = InMemory::new(tenant, world.clock.clone());
        let limiter = Limiter::new(settings.limiter, world.clock.clone());
        let graph = Graph::new(Arc::new(tenant.clone()), limiter, world.clock.clone());
        (tenant, world.session(graph))
    }
}

/// What is to be expected, in words.
fn show_prediction(profile: Profile, rows: u64, predicted: &Forecast, world: &World) {
    let (_, bears) = profile.limit();
    world.report.info(format_args!("the tenant {bears}; a call takes 20 to 60 ms"));
    let wave = count(rows, "person", "people");
    let refused = count(predicted.refused, "refused call", "refused calls");
    if predicted.gave_up {
        world.report.info(format_args!(
            "prediction: {wave}: given up after {} with {refused}; resume would carry on",
            lasting(predicted.took)
        ));
        return;
    }
    world.report.info(format_args!(
        "prediction: issuing to {wave} takes {}, {:.1} a second, with {refused} and nobody left out",
        lasting(predicted.took),
        per_second(predicted)
    ));
}

fn per_second(predicted: &Forecast) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most a million rows")]
    let accepted = predicted.accepted as f64;
    accepted / predicted.took.as_secs_f64().max(0.001)
}

/// Opens every handoff file with the throw-away identity and compares it with the tenant.
fn prove_readable(
    handoffs: &[PathBuf],
    identity: &NewIdentity,
    tenant: &InMemory,
    sealed: u64,
    world: &World,
) -> Result<(), Failure> {
    let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
    let mut identities = Identities::new();
    let secret = identity.file.expose_secret().as_bytes();
    identities.add_file("the throw-away identity", secret, &prompts)?;
    let mut read = HashSet::new();
    for path in handoffs {
        let file =
            File::open(path).map_err(|error| Failure::unread(path, &error, "the handoff file"))?;
        let opened = Handoff::of(file)?.open(&identities, |row| {
            read.insert(row.method_id().to_owned());
            Ok::<(), std::convert::Infallible>(())
        });
        opened.map_err(|error| Failure::new(Exit::Unexpected, error.why, &[]))?;
    }
    let live: HashSet<String> =
        tenant.with(|tenant, _| tenant.passes().map(|(_, _, pass)| pass.method.clone()).collect());
    if read != live || read.len() as u64 != sealed {
        let what = format!("the handoff holds {} passes, the tenant {}", read.len(), live.len());
        return Err(Failure::new(Exit::Unexpected, what, &["please report this"]));
    }
    let size: u64 =
        handoffs.iter().filter_map(|path| fs::metadata(path).ok()).map(|about| about.len()).sum();
    world.report.info(format_args!(
        "opened {} ({size} bytes) with that identity: {}, each the one that lives in the tenant",
        count(handoffs.len() as u64, "handoff file", "handoff files"),
        count(sealed, "pass", "passes"),
    ));
    Ok(())
}

async fn clean_up(
    ledger: &Ledger,
    tenant: &InMemory,
    session: &Session,
    world: &World,
) -> Result<Exit, Failure> {
    let outcome = cleanup::run(ledger, session, false).await;
    let outcome = outcome.map_err(|error| over(Failure::cleanup_failed(error, "")))?;
    world.report.cleanup(&outcome);
    let left = tenant.with(|tenant, _| tenant.passes().count()) as u64;
    let summary = Summary::of(ledger, session, outcome.foreign.len() as u64).await?;
    world.report.summary(&summary)?;
    if outcome.interrupted {
        return Ok(broken_off(world));
    }
    if left > 0 || !outcome.is_proven() {
        let what = format!("the tenant still has {}", count(left, "pass", "passes"));
        return Err(Failure::new(Exit::CleanupIncomplete, what, &["please report this"]));
    }
    Ok(Exit::Done)
}

/// A failure whose run ends with the program: nobody can carry it on.
fn over(failure: Failure) -> Failure {
    let hint = "the rehearsal's tenant and passes are gone with it; tapwave rehearse begins anew";
    Failure::new(failure.exit, failure.message.what, &[hint])
}

/// Ctrl-C. The simulated tenant and the run's folder end with the program: nothing is to be
/// resumed, and nothing to be reported.
fn broken_off(world: &World) -> Exit {
    world.report.info("the rehearsal was broken off; its tenant and its passes are gone with it");
    Exit::Interrupted
}

/// What happened, in words for somebody who has never done it, and what to type for real.
fn teach(args: &RehearseArgs, issued: u64, settings: &Settings, world: &World) {
    let report = &world.report;
    let people = count(issued, "person", "people");
    report.info("");
    report.info_lines(format_args!(
        "what happened: {people} got their own Temporary Access Pass, a code that lets its owner\n\
         sign in and set up a device. Each code was encrypted the moment it arrived, so that only the\n\
         holder of the identity could read it; no file ever held one in the clear. At the end every\n\
         pass was removed, and the tenant was asked again to prove it"
    ));
    report.info("");
    let wave = args.wave.as_deref().unwrap_or(Path::new("WAVE.csv"));
    let somebody = somebody(&args.want, settings);
    let over_wave = |verb, rejects| world.line.over_wave(verb, wave, somebody, rejects);
    let options = world.line.connection();
    report.info(
        "for the real thing, sign in (az login with a service principal, AZURE_* variables, or",
    );
    report.info("--auth interactive with each command), then:");
    let steps = [
        ("tapwave keygen -o key.txt".to_owned(), "an identity; its public key is age1…"),
        (over_wave("check", args.want.rejects.as_deref()), "is everything ready? changes nothing"),
        // The check may have written the file, which nothing is written over.
        (over_wave("run", None), "issues, seals, writes the handoff"),
        ("tapwave open latest -i key.txt".to_owned(), "reads the passes"),
        (format!("tapwave cleanup latest{options}"), "removes every pass when the wave is over"),
    ];
    report.table("  ", &steps);
}

fn invent(path: &Path, rows: u64) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(File::create_new(path)?);
    writeln!(file, "userPrincipalName")?;
    for number in 1..=rows {
        writeln!(file, "person{number}@contoso.example")?;
    }
    file.flush()
}

/// Everybody in the wave, to be put into the tenant. What is wrong with a row is told later.
fn people(wave: &Path, time_zone: Option<TimeZone>) -> Result<Vec<String>, Failure> {
    let unread = |source| IntakeError::Wave { path: wave.to_owned(), source };
    let file = plain_file(wave).map_err(|error| Failure::unread(wave, &error, WAVE))?;
    let reader = WaveReader::open(file, Defaults { time_zone }).map_err(unread)?;
    let mut upns = Vec::new();
    for found in reader {
        if let WaveItem::Row(row) = found.map_err(unread)? {
            upns.push(row.upn.to_string());
        }
    }
    Ok(upns)
}
