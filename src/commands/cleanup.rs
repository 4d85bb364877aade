//! `cleanup`: of a run, or of whatever the people of a wave hold.

use std::path::Path;

use super::{Failure, World};
use crate::auth::permissions::Need;
use crate::cli::{CleanupArgs, Common};
use crate::exit::Exit;
use crate::ledger::Access;
use crate::report::{count, shown};
use crate::run::tidy::{self, Tidied};
use crate::run::{Session, Summary};
use crate::settings::Settings;

const NEEDS: [Need; 2] = [Need::WritePasses, Need::ReadPasses];

pub(super) async fn cleanup(
    args: &CleanupArgs,
    common: &Common,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    match (&args.run, &args.csv) {
        (_, Some(wave)) => of_wave(wave, common, settings, world).await,
        (Some(run), None) => of_run(run, args.keep_sealed, settings, world).await,
        (None, None) => Err(Failure::new(Exit::Usage, "name a run, or --csv WAVE.csv", &[])),
    }
}

async fn of_run(
    run: &str,
    keep_sealed: bool,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let ledger = world.ledger(run, Access::Write).await?;
    world.report.say(format_args!("run folder: {}", ledger.folder().path().display()));
    if let Ok(log) = ledger.folder().log() {
        world.log.add(log);
    }
    let session = world.reconnect(settings, &ledger, &NEEDS).await?;
    let tidied = tidy::run(&ledger, &session, keep_sealed).await?;
    let exit = ended(&tidied);
    let summary = Summary::of(&ledger, &session, tidied.foreign.len() as u64).await?;
    ledger.add_traffic(session.graph.requests(), session.graph.throttled()).await.ok();
    ledger.shut().await;
    world.report.tidied(&tidied);
    world.report.summary(&summary)?;
    if exit != Exit::Done {
        let name = ledger.folder().name();
        world.report.next(&[
            (format!("tapwave cleanup {name}"), "goes on where it stopped"),
            (format!("tapwave status {name} --live"), "shows what is left"),
        ]);
    }
    Ok(exit)
}

async fn of_wave(
    wave: &Path,
    common: &Common,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let needs = [Need::WritePasses, Need::ReadPasses, Need::ReadUsers];
    let base = settings.graph_or_global();
    let (session, _) = world.connect(settings, &base, &needs).await?;
    let zone = settings.time_zone.clone();
    let holdings = tidy::holdings(wave, zone, &session).await?;
    for fault in &holdings.bad {
        world.report.warn(fault);
    }
    for missed in holdings.unknown.iter().chain(&holdings.unseen) {
        let (line, upn, why) = (missed.line, shown(&missed.upn), shown(&missed.why));
        world.report.warn(format_args!("line {line}, {upn}: {why}"));
    }
    let held = holdings.passes.len() as u64;
    let question = format!(
        "remove {} of the {} in {}, whoever issued them",
        count(held, "pass", "passes"),
        count(holdings.rows, "person", "people"),
        wave.display()
    );
    if held > 0 && !common.yes {
        match world.asking.yes_or_no(&format!("{question}?")) {
            Some(true) => {}
            Some(false) => {
                world.report.say("nothing was changed");
                return Ok(Exit::Done);
            }
            None => return Err(Failure::nobody_to_ask(&format!("this would {question}"))),
        }
    }
    let mut tidied = tidy::remove_confirmed(holdings.passes, &session).await?;
    tidied.left.extend(holdings.unseen);
    world.report.tidied(&tidied);
    let incomplete = !holdings.bad.is_empty();
    summed(wave, holdings.rows, &tidied, &session, world)?;
    let ended = ended(&tidied);
    Ok(if incomplete { ended.and(Exit::CleanupIncomplete) } else { ended })
}

/// The summary of a cleanup without a run.
fn summed(
    wave: &Path,
    rows: u64,
    tidied: &Tidied,
    session: &Session,
    world: &World,
) -> Result<(), Failure> {
    if !world.report.is_json() {
        return Ok(());
    }
    let summary = Summary {
        run: wave.display().to_string(),
        rows,
        removed: tidied.removed + tidied.already,
        failed: tidied.left.len() as u64,
        foreign: tidied.foreign.len() as u64,
        ..Summary::of_nothing(session)
    };
    Ok(world.report.json(&summary)?)
}

fn ended(tidied: &Tidied) -> Exit {
    if tidied.drained {
        Exit::Interrupted
    } else if tidied.is_proven() {
        Exit::Done
    } else {
        Exit::CleanupIncomplete
    }
}
