//! `policy`: who may have a pass, and of what kind.
//!
//! Shows every difference and asks before anything is changed.

use super::{Failure, World};
use crate::args::{Common, PolicyCommand, TargetArgs};
use crate::config::Settings;
use crate::output::GroupNames;
use tapwave_core::clock::Minutes;
use tapwave_core::exit::Exit;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_pipeline::policy::{self, PolicyChange, PolicyPlan, Scope};
use tapwave_pipeline::run::Session;

pub(super) async fn policy(
    command: &PolicyCommand,
    common: &Common,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Show => show(settings, world).await,
        PolicyCommand::Set(args) => {
            let minutes = |given: Option<Minutes>| given.map(|Minutes(minutes)| minutes);
            let change = PolicyChange {
                default_lifetime: minutes(args.default_lifetime),
                min_lifetime: minutes(args.min_lifetime),
                max_lifetime: minutes(args.max_lifetime),
                length: args.length,
                one_time: match (args.one_time, args.multi_use) {
                    (true, _) => Some(true),
                    (_, true) => Some(false),
                    _ => None,
                },
                ..PolicyChange::default()
            };
            let step = PolicyStep { change, dry_run: args.dry_run, targets: None };
            step.make(common, settings, world).await
        }
        PolicyCommand::Enable(args) | PolicyCommand::Disable(args) => {
            let enabled = matches!(command, PolicyCommand::Enable(_));
            let change = PolicyChange { enabled: Some(enabled), ..PolicyChange::default() };
            let step = PolicyStep { change, dry_run: args.dry_run, targets: None };
            step.make(common, settings, world).await
        }
        PolicyCommand::Include(args) => {
            of_targets(&args.targets, args.only, true).make(common, settings, world).await
        }
        PolicyCommand::Exclude(args) => {
            of_targets(args, false, false).make(common, settings, world).await
        }
    }
}

/// The permissions that a change needs.
pub(super) const NEEDS: [Need; 2] = [Need::ReadPolicy, Need::WritePolicy];

/// Whether somebody answers for a change that was planned: `Ok(false)` is a no. Without a
/// terminal and without `--yes`, that is the end.
pub(super) fn agreed(common: &Common, world: &World) -> Result<bool, Failure> {
    if common.yes {
        return Ok(true);
    }
    let asked = world.prompts.yes_or_no("apply these changes to the policy of the whole tenant?");
    asked.ok_or_else(|| Failure::nobody_to_ask("this would change the tenant's policy"))
}

async fn show(settings: &Settings, world: &World) -> Result<Exit, Failure> {
    let base = settings.graph_or_global();
    let (session, _) = world.connect(settings, &base, &[Need::ReadPolicy]).await?;
    let policy = session.graph.policy().await?;
    let names = policy::names(&session.graph, &[&policy]).await?;
    world.report.policy(&policy, &names, &[], false)?;
    Ok(Exit::Done)
}

/// One change, still without the ids of the groups it names.
struct PolicyStep<'a> {
    change: PolicyChange,
    dry_run: bool,
    targets: Option<Aimed<'a>>,
}

struct Aimed<'a> {
    names: &'a [String],
    scope: fn(Vec<tapwave_graph::Target>) -> Scope,
    removing: bool,
    including: bool,
}

fn of_targets(args: &TargetArgs, only: bool, including: bool) -> PolicyStep<'_> {
    let scope = match (args.remove, only) {
        (true, _) => Scope::Remove,
        (_, true) => Scope::Only,
        _ => Scope::Add,
    };
    let aimed = Aimed { names: &args.groups, scope, removing: args.remove, including };
    PolicyStep { change: PolicyChange::default(), dry_run: args.dry_run, targets: Some(aimed) }
}

impl PolicyStep<'_> {
    async fn make(
        mut self,
        common: &Common,
        settings: &Settings,
        world: &World,
    ) -> Result<Exit, Failure> {
        self.change.check()?;
        let mut needs = NEEDS.to_vec();
        if self.targets.is_some() {
            needs.push(Need::ReadGroups);
        }
        let base = settings.graph_or_global();
        let (session, _) = world.connect(settings, &base, &needs).await?;
        self.resolve(&session).await?;
        let plan = self.change.plan(session.graph.policy().await?)?;
        let names = policy::names(&session.graph, &[&plan.before, &plan.after]).await?;
        if plan.is_empty() {
            world.report.info("nothing to change: the policy already has these settings");
            world.report.policy(&plan.before, &names, &[], false)?;
            return Ok(Exit::Done);
        }
        world.report.differences(&plan.differences, &names);
        if self.dry_run {
            world.report.info("dry run: nothing was changed");
            world.report.policy(&plan.before, &names, &plan.differences, false)?;
            return Ok(Exit::Done);
        }
        if !agreed(common, world)? {
            world.report.info("nothing was changed");
            return Ok(Exit::Done);
        }
        apply(&plan, &names, &session, world).await
    }

    async fn resolve(&mut self, session: &Session) -> Result<(), Failure> {
        if let Some(aimed) = &self.targets {
            let targets = policy::targets(&session.graph, aimed.names, aimed.removing).await?;
            let scope = Some((aimed.scope)(targets));
            if aimed.including {
                self.change.include = scope;
            } else {
                self.change.exclude = scope;
            }
        }
        Ok(())
    }
}

async fn apply(
    plan: &PolicyPlan,
    names: &GroupNames,
    session: &Session,
    world: &World,
) -> Result<Exit, Failure> {
    let found = policy::apply(plan, session).await?;
    world.report.info("changed; reading the policy again shows the change");
    world.report.policy(&found, names, &plan.differences, true)?;
    Ok(Exit::Done)
}
