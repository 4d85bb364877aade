//! `cleanup`: of a run, or of whatever the people of a wave hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::typed::RunCommands;
use super::{Failure, World};
use crate::args::{CleanupArgs, Common};
use crate::config::Settings;
use crate::output::{count, shown};
use tapwave_core::exit::Exit;
use tapwave_core::ids::{Line, UserId};
use tapwave_core::limits;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_ledger::{
    Access, Claims, Ledger, LedgerError, Listed, Remains, RowRecord, RunFolder, Standing,
};
use tapwave_pipeline::policy::{self, PolicyChange, Scope};
use tapwave_pipeline::run::cleanup::{self, CleanupReport, UnprovenRow};
use tapwave_pipeline::run::{Session, Summary};

const NEEDS: [Need; 2] = [Need::WritePasses, Need::ReadPasses];
/// Where a row of another run still needs the policy.
const ALIVE: [Standing; 8] = [
    Standing::Checked,
    Standing::Intent,
    Standing::Unsettled,
    Standing::Held,
    Standing::Sealed,
    Standing::Mailing,
    Standing::Delivered,
    Standing::Lost,
];

pub(super) async fn cleanup(
    args: &CleanupArgs,
    common: &Common,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let closing = Closing { args, common };
    closing.check(world)?;
    match (&args.run, &args.csv) {
        (_, Some(wave)) => of_wave(wave, &closing, settings, world).await,
        (Some(run), None) => of_run(run, &closing, settings, world).await,
        (None, None) => Err(Failure::new(Exit::Usage, "name a run, or --csv WAVE.csv", &[])),
    }
}

async fn of_run(
    run: &str,
    closing: &Closing<'_>,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let ledger = world.ledger(run, Access::Write).await;
    let ledger = ledger.map_err(|mut failure| {
        if Path::new(run).is_file() {
            let cleanup = world.line.cleanup_of(Path::new(run));
            let does = "removes what the people of a wave hold, whoever issued it";
            failure.message.hints.push(format!("{cleanup} {does}"));
        }
        failure
    })?;
    world.report.info(format_args!("run folder: {}", ledger.folder().path().display()));
    world.note_calls(ledger.folder());
    super::note_run(&ledger);
    let typed = world.work_on(ledger.folder(), RunCommands::cleanup);
    let risk = "cleaning it up deletes every pass that its ledger names";
    let Some(belonging) = world.belongs_here(&ledger, risk).await? else {
        return Ok(Exit::Done);
    };
    let mut needs = closing.needs(&NEEDS);
    needs.extend(belonging.needs());
    let session = world.reconnect(settings, &ledger, &needs).await?;
    world.names_its_people(&belonging, &ledger, &session.graph).await?;
    world.settle(&belonging, &ledger).await?;
    let lacks = belonging.lacks;
    world.warn_of_short_settling(session.settle_after);
    let keep_sealed = closing.args.keep_sealed || lacks > 0;
    let outcome = cleanup::run(&ledger, &session, keep_sealed).await;
    let outcome = outcome.map_err(|error| Failure::cleanup_failed(error, &typed.cleanup()))?;
    let mut exit = ended(&outcome);
    let summary = Summary::of(&ledger, &session, outcome.foreign.len() as u64).await?;
    ledger.add_traffic(session.graph.requests(), session.graph.throttled()).await.ok();
    world.end_claims(&ledger).await;
    ledger.shut().await;
    world.report.cleanup(&outcome);
    if lacks > 0 {
        let wave = Path::new(&ledger.about().wave.path);
        world.report.error(format_args!(
            "this ledger lacks {} of its run, so that passes which it does not know may be alive; \
             {} removes what the people of the wave hold",
            count(lacks, "event", "events"),
            world.line.cleanup_of(wave)
        ));
        exit = exit.and(Exit::CleanupIncomplete);
    }
    if !outcome.foreign.is_empty() {
        world.warn_of_clocks(&session);
    }
    world.report.summary(&summary)?;
    if exit == Exit::Done {
        exit = closing.close(Some(&ledger), &session, world).await?;
    } else {
        world.report.next(&[
            (typed.cleanup(), "goes on where it stopped"),
            (typed.live_status(), "shows what is left"),
        ]);
    }
    Ok(exit)
}

async fn of_wave(
    wave: &Path,
    closing: &Closing<'_>,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    super::wave::readable(wave)?;
    let needs = [Need::WritePasses, Need::ReadPasses, Need::ReadUsers];
    let base = settings.graph_or_global();
    let (session, _) = world.connect(settings, &base, &closing.needs(&needs)).await?;
    let zone = settings.time_zone.clone();
    let go_on = world.line.cleanup_of(wave);
    let cleanup_failed = |error| Failure::cleanup_failed(error, &go_on);
    let holdings = cleanup::holdings(wave, zone, &session).await.map_err(cleanup_failed)?;
    for fault in &holdings.bad {
        world.report.warn(fault);
    }
    let held = holdings.passes() as u64;
    let mut told = BTreeSet::new();
    for missed in holdings.unknown.iter().chain(&holdings.unseen) {
        let (line, upn, why) = (missed.line, shown(&missed.upn), shown(&missed.why));
        world.report.warn(format_args!("line {line}, {upn}: {why}"));
        told.insert(line);
    }
    let question = format!(
        "remove {} of the {} in {} and end what was signed in with them, whoever issued them",
        count(held, "pass", "passes"),
        count(holdings.rows, "person", "people"),
        wave.display()
    );
    if held > 0 && !closing.common.yes {
        match world.prompts.yes_or_no(&format!("{question}?")) {
            Some(true) => {}
            Some(false) => {
                world.report.info("nothing was changed");
                return Ok(Exit::Done);
            }
            None => return Err(Failure::nobody_to_ask(&format!("this would {question}"))),
        }
    }
    let settle_after = session.settle_after.unwrap_or(limits::DEFAULT_SETTLE_AFTER);
    world.warn_of_short_settling(session.settle_after);
    let is_nobody_known = holdings.people.is_empty() && holdings.unseen.is_empty();
    let under_way = UnderWay::begin(&holdings.people, world).await?;
    let removed = cleanup::remove_confirmed(holdings.people, settle_after, &session).await;
    let mut outcome = removed.map_err(cleanup_failed)?;
    outcome.left.extend(under_way.end(world).await?);
    outcome.wrong_tenant = is_nobody_known && !holdings.unknown.is_empty();
    outcome.left.extend(holdings.unseen.into_iter().chain(holdings.unknown));
    outcome.reported = told;
    world.report.cleanup(&outcome);
    let incomplete = !holdings.bad.is_empty();
    summed(wave, holdings.rows, &outcome, &session, world)?;
    let ended = ended(&outcome);
    match if incomplete { ended.and(Exit::CleanupIncomplete) } else { ended } {
        Exit::Done => closing.close(None, &session, world).await,
        exit => {
            world.report.next(&[(go_on, "looks again, and removes what it finds")]);
            Ok(exit)
        }
    }
}

/// For whom an open run of this machine has asked for a pass without knowing yet whether there is
/// one: it may come to be after the last look.
#[derive(Default)]
struct UnderWay {
    people: HashMap<UserId, (Line, String)>,
    rows: BTreeMap<Line, UnprovenRow>,
    /// What is said of runs that cannot be read.
    unread: BTreeSet<String>,
}

impl UnderWay {
    /// Looks before anything is removed.
    async fn begin(people: &[Remains], world: &World) -> Result<Self, Failure> {
        let known = |one: &Remains| Some((one.user?, (one.line, one.upn.clone())));
        let people = people.iter().filter_map(known).collect();
        let mut begun = Self { people, ..Self::default() };
        begun.look(world).await?;
        Ok(begun)
    }

    /// Looks once more: these may have a pass by now that nobody has looked at.
    async fn end(mut self, world: &World) -> Result<impl Iterator<Item = UnprovenRow>, Failure> {
        self.look(world).await?;
        for unread in self.unread {
            world.report.warn(unread);
        }
        Ok(self.rows.into_values())
    }

    async fn look(&mut self, world: &World) -> Result<(), Failure> {
        let Some(mut claims) = Claims::find(&world.home()?)? else { return Ok(()) };
        let users: Vec<UserId> = self.people.keys().copied().collect();
        let folders = claims.claimed(&users, world.clock.now())?;
        let folders: BTreeSet<PathBuf> = folders.into_values().collect();
        for folder in folders {
            let place = folder.display();
            let rows = match asked(&folder, world).await {
                Ok(rows) => rows,
                Err(error) => {
                    self.unread.insert(format!(
                        "some of these people belong to the open run {place}, which cannot be read ({error}): a pass that it asked for in the last minutes may come later; run this again in ten minutes"
                    ));
                    continue;
                }
            };
            for (line, upn) in rows.iter().filter_map(|row| self.people.get(&row.user()?)) {
                let (line, upn) = (*line, upn.clone());
                let why = format!(
                    "the open run {place} has asked for a pass for this person and does not know yet whether there is one: resume that run, or clean it up"
                );
                self.rows.insert(line, UnprovenRow { line, upn, why });
            }
        }
        Ok(())
    }
}

/// The rows of a run whose attempt has no outcome.
async fn asked(folder: &Path, world: &World) -> Result<Vec<RowRecord>, LedgerError> {
    let folder = RunFolder::open(folder)?;
    let ledger = Ledger::open(&folder, Access::Read, world.clock.clone()).await?;
    let mut all = Vec::new();
    let mut pages = ledger.pages(&[Standing::Intent, Standing::Unsettled], limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        all.extend(rows);
    }
    Ok(all)
}

/// What becomes of the policy after a cleanup that is proven.
struct Closing<'a> {
    args: &'a CleanupArgs,
    common: &'a Common,
}

impl Closing<'_> {
    fn is_wanted(&self) -> bool {
        self.args.disable_policy || !self.args.remove_groups.is_empty()
    }

    /// Says before anything is removed that nobody could be asked afterwards.
    fn check(&self, world: &World) -> Result<(), Failure> {
        if self.is_wanted() && !self.common.yes && !world.prompts.can_ask() {
            return Err(Failure::nobody_to_ask("this would change the tenant's policy afterwards"));
        }
        Ok(())
    }

    fn needs(&self, cleanup: &[Need]) -> Vec<Need> {
        let mut needs = cleanup.to_vec();
        if self.is_wanted() {
            needs.extend(super::policy::NEEDS);
        }
        if !self.args.remove_groups.is_empty() {
            needs.push(Need::ReadGroups);
        }
        needs
    }

    /// Undoes what the wave opened, if no other run on this machine needs it.
    async fn close(
        &self,
        ledger: Option<&Ledger>,
        session: &Session,
        world: &World,
    ) -> Result<Exit, Failure> {
        if !self.is_wanted() {
            return Ok(Exit::Done);
        }
        // The passes are removed; what comes now is a matter of its own.
        session.stop.end_work();
        let others = others(ledger, world)?;
        if !others.is_empty() {
            let names: Vec<&str> = others.iter().map(|run| run.name.as_str()).collect();
            let need = match (others.iter().any(|run| run.summary.is_err()), names.len()) {
                (true, _) => "may still need it, as not every ledger can be read",
                (false, 1) => "still needs it",
                (false, _) => "still need it",
            };
            world.report.error(format_args!(
                "the policy was left as it is: {} {need}; clean that up first",
                shown(&names.join(", ")),
            ));
            let folders = others.iter().filter_map(|run| RunFolder::open(&run.path).ok());
            let cleanups = folders.map(|run| (world.typed(&run).cleanup(), "removes its passes"));
            world.report.next(&cleanups.collect::<Vec<_>>());
            return Ok(Exit::CleanupIncomplete);
        }
        let graph = &session.graph;
        let change = if self.args.disable_policy {
            PolicyChange { enabled: Some(false), ..PolicyChange::default() }
        } else {
            let targets = policy::targets(graph, &self.args.remove_groups, true).await?;
            PolicyChange { include: Some(Scope::Remove(targets)), ..PolicyChange::default() }
        };
        let plan = change.plan(graph.policy().await?)?;
        if plan.is_empty() {
            world.report.info("nothing to change: the policy already has these settings");
            return Ok(Exit::Done);
        }
        let names = policy::names(graph, &[&plan.before]).await?;
        world.report.differences(&plan.differences, &names);
        if !super::policy::agreed(self.common, world)? {
            world.report.info("the policy was left as it is");
            return Ok(Exit::Done);
        }
        policy::apply(&plan, session).await?;
        world.report.info("the policy was changed, and reading it again shows the change");
        Ok(Exit::Done)
    }
}

/// Other runs on this machine, of the same tenant as far as is known, with rows that have a
/// pass or wait for one. One that cannot be read may have some.
fn others(ledger: Option<&Ledger>, world: &World) -> Result<Vec<Listed>, Failure> {
    let elsewhere = |one: Option<&String>, other: Option<&String>| {
        one.zip(other).is_some_and(|(one, other)| one != other)
    };
    let listed = world.registry()?.list();
    let needs = |run: &Listed| {
        let Ok(summary) = &run.summary else {
            return ledger.is_none_or(|ledger| run.path != ledger.folder().path());
        };
        let same = ledger.is_none_or(|ledger| {
            let (this, that) = (ledger.about(), &summary.about);
            run.path != ledger.folder().path()
                && this.graph_url == that.graph_url
                && !elsewhere(this.tenant.as_ref(), that.tenant.as_ref())
        });
        same && ALIVE.iter().any(|standing| summary.counts.of(*standing) > 0)
    };
    Ok(listed.into_iter().filter(needs).collect())
}

/// The summary of a cleanup without a run.
fn summed(
    wave: &Path,
    rows: u64,
    outcome: &CleanupReport,
    session: &Session,
    world: &World,
) -> Result<(), Failure> {
    if !world.report.is_json() {
        return Ok(());
    }
    let summary = Summary {
        run: wave.display().to_string(),
        rows,
        removed: outcome.removed + outcome.already,
        failed: outcome.left.len() as u64,
        foreign: outcome.foreign.len() as u64,
        ..Summary::of_nothing(session)
    };
    Ok(world.report.json(&summary)?)
}

fn ended(outcome: &CleanupReport) -> Exit {
    if outcome.interrupted {
        Exit::Interrupted
    } else if outcome.is_proven() {
        Exit::Done
    } else {
        Exit::CleanupIncomplete
    }
}
