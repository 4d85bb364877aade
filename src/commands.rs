//! Promises that each command is a straight line: settings, sign-in, the pipeline, a report.
//!
//! Decides nothing that the crates below could decide. A failure comes back as a [`Failure`],
//! which says who must act; only `main.rs` exits.

mod addressees;
mod belonging;
mod cleanup;
mod deliver;
mod failure;
mod held;
mod open;
mod policy;
mod rehearse;
mod runs;
mod typed;
mod wave;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use self::failure::Failure;
pub use self::typed::CommandLine;
use self::typed::RunCommands;
use crate::args::{Auth, Cli, Command, Common};
use crate::config::{self, FoundSettings, Settings};
use crate::output::{AtWork, Log, Report, TerminalPrompts, count, shown};
use tapwave_core::clock::Clock;
use tapwave_core::exit::Exit;
use tapwave_core::limits;
use tapwave_graph::Graph;
use tapwave_graph::http::{self, BaseUrl, Http};
use tapwave_graph::limiter::Limiter;
use tapwave_graph::sign_in::permissions::{self, Grants, Need, PermissionVerdict};
use tapwave_graph::sign_in::{self, Endpoints, SignIn};
use tapwave_graph::transport::Shut;
use tapwave_ledger::{Access, Ledger, Registry, RunFolder, append_to_log, default_home};
use tapwave_pipeline::check::ClocksApart;
use tapwave_pipeline::run::Session;
use tapwave_pipeline::stop::StopSignal;

/// Looks a variable up.
pub type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// What the world gives a command.
pub struct World {
    /// Looks a variable up.
    pub environment: Environment,
    pub clock: Clock,
    /// Whether to stop, as Ctrl-C asks for.
    pub stop: StopSignal,
    /// Who hears and says everything.
    pub report: Arc<Report>,
    /// Where log lines go.
    pub log: Log,
    /// Who can be asked.
    pub prompts: TerminalPrompts,
    /// What every command takes, as it was given.
    pub common: Common,
    /// What was typed, for the commands that are told.
    pub line: CommandLine,
}

/// Does what the command line says.
pub async fn perform(cli: Cli, world: &World) -> Result<Exit, Failure> {
    let performed = tokio::select! {
        biased;
        performed = dispatch(&cli, world) => performed,
        () = world.stop.aborted() => Err(world.given_up()),
    };
    // Whatever a command says of a question that was broken off, this is why.
    let performed = performed.map_err(|failure| {
        let is_interrupted = failure.exit == Exit::Interrupted;
        if world.stop.is_aborted() && !is_interrupted { world.given_up() } else { failure }
    });
    performed.map_err(|failure| failure.advise(&world.line, world.registry().ok().as_ref()))
}

async fn dispatch(cli: &Cli, world: &World) -> Result<Exit, Failure> {
    let common = &cli.common;
    config::no_login_in(common)?;
    if let Some(path) = &common.log {
        let log = append_to_log(path);
        world.log.add(log.map_err(|error| Failure::unwritten("open the log", path, &error))?);
    }
    // These need no settings: a broken tapwave.toml must not keep anybody from a pass.
    let settings = || world.settings();
    match &cli.command {
        Command::Check(args) => wave::check(args, &settings()?, world).await,
        Command::Run(args) => wave::run(args, &settings()?, world).await,
        Command::Resume(args) => runs::resume(args, &settings()?, world).await,
        Command::Deliver(args) => deliver::deliver(args, &settings()?, world).await,
        Command::Status(args) => runs::status(args, world).await,
        Command::Manifest(args) => runs::manifest(args, world).await,
        Command::Runs => runs::list(world),
        Command::Open(args) => open::open(args, world).await,
        Command::Cleanup(args) => cleanup::cleanup(args, common, &settings()?, world).await,
        Command::Settings { trust } => world.show_settings(*trust),
        Command::Policy { command } => policy::policy(command, common, &settings()?, world).await,
        Command::Rehearse(args) => {
            rehearse::rehearse(args, &world.settings_for_nobody()?, world).await
        }
        Command::Keygen(args) => open::keygen(args, world),
        Command::Completions { shell } => open::completions(*shell),
        Command::Man => open::man(),
    }
}

/// Notes for the auditor which run is worked on.
fn note_run(ledger: &Ledger) {
    let about = ledger.about();
    tracing::info!(
        run = about.name,
        wave = about.wave.path,
        wave_digest = about.wave.digest,
        rows = about.wave.rows,
    );
}

/// Notes for the auditor who does this, from where, with which version.
fn note_who(grants: &Grants, method: &str, settings: &Settings, base: &BaseUrl) {
    let claims = grants.claims();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        host = tapwave_ledger::host(),
        signed_in_with = method,
        who = claims.and_then(|claims| claims.who.as_deref()),
        tenant = claims.and_then(|claims| claims.tenant.as_deref()).or(settings.tenant.as_deref()),
        kind = grants.kind(),
        graph = base.as_str(),
    );
}

/// What is said of a settling time shorter than [`limits::SHORT_SETTLE_AFTER`].
const SHORT_SETTLING: &str = "so short a settling time protects from little: a request whose answer is lost may be carried out after it and replace the pass that was issued next";

impl World {
    fn home(&self) -> Result<PathBuf, Failure> {
        Ok(default_home((self.environment)("TAPWAVE_HOME").map(PathBuf::from))?)
    }

    fn registry(&self) -> Result<Registry, Failure> {
        Ok(Registry::new(self.home()?))
    }

    /// The settings, if they may be obeyed: a file that nobody named decides whom to trust only
    /// once somebody has seen what it says.
    fn settings(&self) -> Result<Settings, Failure> {
        let settings = Settings::load(&self.common, &self.environment)?;
        let Some(found) = &settings.found else { return Ok(settings) };
        // A machine without a home remembers nothing.
        let home = if found.steers.is_empty() { PathBuf::new() } else { self.home()? };
        if found.is_trusted(&home) {
            return Ok(settings);
        }
        if !self.prompts.can_ask() {
            return Err(Failure::untrusted(found));
        }
        self.tell_steering(found);
        match self.prompts.yes_or_no("trust this file as it is now?") {
            Some(true) => {
                found.trust(&home)?;
                Ok(settings)
            }
            _ => Err(Failure::untrusted(found)),
        }
    }

    /// The settings of a command that leaves this machine alone and signs nobody in: no file has to
    /// be trusted for that. But no plugin is started for a key that an untrusted one names.
    fn settings_for_nobody(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::load(&self.common, &self.environment)?;
        let Some(found) = settings.found.clone() else { return Ok(settings) };
        let trusted = found.steers.is_empty() || self.home().is_ok_and(|at| found.is_trusted(&at));
        if !trusted {
            let before = settings.readers().count();
            settings.keep_readers(|key| !needs_plugin(key));
            if settings.readers().count() < before {
                self.report.info(format_args!(
                    "nobody has trusted {} yet: the keys in it that need a plugin are left out",
                    found.path.display()
                ));
            }
        }
        Ok(settings)
    }

    fn tell_steering(&self, found: &FoundSettings) {
        self.report.info(format_args!("{} decides whom to trust:", found.path.display()));
        for one in &found.steers {
            self.report.info(format_args!("  {}", shown(one)));
        }
    }

    fn show_settings(&self, trust: bool) -> Result<Exit, Failure> {
        let settings = Settings::load(&self.common, &self.environment)?;
        let found = settings.found.as_ref().filter(|found| !found.steers.is_empty());
        if trust {
            let Some(found) = found else {
                let what = "there is nothing to trust: no tapwave.toml in this folder decides whom to trust";
                return Err(Failure::new(
                    Exit::Usage,
                    what,
                    &["a file that --config names needs none"],
                ));
            };
            self.tell_steering(found);
            found.trust(&self.home()?)?;
            self.report.info("trusted, until it changes");
            if self.report.is_json() {
                self.report.settings(&settings)?;
            }
            return Ok(Exit::Done);
        }
        self.report.settings(&settings)?;
        if let Some(found) = found
            && !found.is_trusted(&self.home()?)
        {
            self.report
                .warn("nobody has trusted this file yet: until then no other command obeys it");
            self.report.next(&[("tapwave settings --trust".to_owned(), "trusts it as it is now")]);
        }
        Ok(Exit::Done)
    }

    /// Opens a run by path, name, or `latest`.
    async fn ledger(&self, run: &str, access: Access) -> Result<Ledger, Failure> {
        let folder = self.registry()?.locate(run)?;
        Ok(Ledger::open(&folder, access, self.clock.clone()).await?)
    }

    /// Adds to the run's own log from now on. A run without one is a run all the same.
    fn note_calls(&self, folder: &RunFolder) {
        match folder.log() {
            Ok(log) => self.log.of_run(Some(log)),
            Err(error) => {
                self.report.warn(format_args!("the calls of this run are not logged: {error}"));
            }
        }
    }

    /// Takes back a start that came to nothing; `made` says whether the folder was made for it.
    fn abandon(&self, folder: &RunFolder, made: bool) {
        // Windows keeps a folder whose files are open.
        self.log.of_run(None);
        folder.abandon(made);
    }

    /// A run as a person would type it.
    fn typed(&self, folder: &RunFolder) -> RunCommands {
        RunCommands::new(folder, self.registry().ok().as_ref(), &self.line)
    }

    /// The same for the run that this command works on: until its end, whoever speaks of a run
    /// means this one, and `go_on` says what carries on with it.
    fn work_on(
        &self,
        folder: &RunFolder,
        go_on: impl FnOnce(&RunCommands) -> String,
    ) -> RunCommands {
        let typed = self.typed(folder);
        self.report.work_on(AtWork { go_on: go_on(&typed), status: typed.status() });
        typed
    }

    /// A session with whatever answers behind `graph`.
    fn session(&self, graph: Graph) -> Session {
        let registry = self.registry().ok();
        Session {
            issuers: Arc::new(move |methods: &[_]| {
                let issuers = registry.as_ref().map(|registry| registry.issuers_by_name(methods));
                issuers.unwrap_or_default()
            }),
            graph,
            clock: self.clock.clone(),
            progress: Arc::clone(&self.report) as _,
            stop: self.stop.clone(),
            prompts: Arc::new(self.prompts.clone()),
            may_read_groups: true,
            settle_after: None,
            keeps_going: false,
            began: self.clock.instant(),
        }
    }

    /// A session of a command that asks Graph nothing: nobody signs in.
    fn without_graph(&self, settings: &Settings) -> Session {
        self.name_settings(settings);
        let limiter = Limiter::new(settings.limiter, self.clock.clone());
        self.session(Graph::new(Arc::new(Shut), limiter, self.clock.clone()))
    }

    /// They may name another Graph or relay: whoever acts should know that they were read.
    fn name_settings(&self, settings: &Settings) {
        if let Some(path) = &settings.file {
            self.report.info(format_args!("settings: {}", path.display()));
        }
    }

    /// Signs in and names missing permissions before any call that needs them.
    async fn connect(
        &self,
        settings: &Settings,
        base: &BaseUrl,
        needs: &[Need],
    ) -> Result<(Session, Option<String>), Failure> {
        let (session, grants) = self.sign_in(settings, base, needs).await?;
        let session = Session { settle_after: settings.settle_after, ..session };
        Ok((session, grants.claims().and_then(|claims| claims.tenant.clone())))
    }

    /// The same, with what the token says of itself.
    async fn sign_in(
        &self,
        settings: &Settings,
        base: &BaseUrl,
        needs: &[Need],
    ) -> Result<(Session, Grants), Failure> {
        self.name_settings(settings);
        let client = http::client(&settings.network, base)?;
        let on_azure =
            settings.is_undecided(&self.environment) && sign_in::on_azure_machine().await;
        let method = settings.sign_in(&self.environment, on_azure)?;
        let name = method.name();
        if settings.auth == Auth::Auto {
            self.report.info(format_args!("signing in with {name}, the first that is there"));
        }
        let report = Arc::clone(&self.report);
        // Asked of a person, though it is demanded only where groups turn out to matter.
        let asked_for = [needs, &[Need::ReadGroups]].concat();
        let places = Endpoints {
            graph: base,
            authority: settings.authority_of(base),
            needs: &asked_for,
            network: &settings.network,
            tell: Arc::new(move |words| report.prompt(words)),
        };
        let sign_in = SignIn::new(method, &places, &client, self.clock.clone())?;
        let grants = self.unless_given_up(sign_in.grants()).await??;
        self.explain(&grants, name);
        note_who(&grants, name, settings, base);
        self.judge(&grants, name, needs)?;
        let transport = Http::new(&settings.network, base, Arc::new(sign_in))?;
        let limiter = Limiter::new(settings.limiter, self.clock.clone());
        let graph = Graph::new(Arc::new(transport), limiter, self.clock.clone());
        let may_read_groups = !grants.lacks(Need::ReadGroups);
        Ok((Session { may_read_groups, ..self.session(graph) }, grants))
    }

    /// Refuses a token that certainly does not suffice, and tells a doubt.
    fn judge(&self, grants: &Grants, method: &str, needs: &[Need]) -> Result<(), Failure> {
        let is_az_user = method == "azure-cli" && grants.kind() == "delegated";
        match grants.judge(needs) {
            PermissionVerdict::Enough => {}
            // A person's `az login` carries the Azure CLI's own scopes, a wide one among them.
            PermissionVerdict::Lacking(needs) if is_az_user => return Err(Failure::azure_cli_user(&needs)),
            PermissionVerdict::Doubtful { needs, perhaps } if is_az_user && perhaps == [permissions::WIDE] => {
                return Err(Failure::azure_cli_user(&needs));
            }
            PermissionVerdict::Lacking(needs) => return Err(Failure::permissions(&needs, grants.kind())),
            PermissionVerdict::Doubtful { needs, perhaps } => self.report.warn(format_args!(
                "the {} token has no permission that is known to suffice for what {} allows; whether {} does, Graph decides",
                grants.kind(),
                failure::names_of(&needs).join(", "),
                shown(&perhaps.join(", ")),
            )),
        }
        if needs.contains(&Need::WritePasses) && grants.has_no_role_for_passes() {
            if !self.common.yes {
                return Err(Failure::no_active_role());
            }
            self.report.warn(failure::NO_ACTIVE_ROLE);
        }
        Ok(())
    }

    /// Waits for something, unless all is given up before it comes.
    async fn unless_given_up<T>(&self, coming: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            came = coming => Ok(came),
            () = self.stop.aborted() => Err(self.given_up()),
        }
    }

    /// Somebody asked to stop while nothing was at stake.
    fn given_up(&self) -> Failure {
        let changed = if self.stop.has_worked() { "" } else { "; nothing was changed" };
        let hint = self.report.give_up().map(|go_on| format!("{go_on} carries on"));
        let hints: Vec<&str> = hint.iter().map(String::as_str).collect();
        Failure::new(Exit::Interrupted, format!("interrupted{changed}"), &hints)
    }

    /// Said before anything is risked, by commands that wait out the settling time of a run.
    fn warn_of_short_settling(&self, settle_after: Option<Duration>) {
        if settle_after.is_some_and(|settle_after| settle_after < limits::SHORT_SETTLE_AFTER) {
            self.report.warn(SHORT_SETTLING);
        }
    }

    /// Said where what Graph answered hangs on its clock.
    fn warn_of_clocks(&self, session: &Session) {
        if let Some(ahead) = session.graph.clock_ahead() {
            self.report.warn(ClocksApart { ahead });
        }
    }

    /// Connects to the tenant that a run belongs to, and to no other.
    async fn reconnect(
        &self,
        settings: &Settings,
        ledger: &Ledger,
        needs: &[Need],
    ) -> Result<Session, Failure> {
        let about = ledger.about();
        let base = BaseUrl::parse(&about.graph_url)?;
        ledger.folder().check_private()?;
        match &settings.graph {
            Some(given) if *given != base => return Err(Failure::other_graph(&about.graph_url)),
            None if !base.is_microsofts() => return Err(Failure::unnamed_graph(base.as_str())),
            _ => {}
        }
        let (session, grants) = self.sign_in(settings, &base, needs).await?;
        let tenant = grants.claims().and_then(|claims| claims.tenant.clone());
        let session =
            Session { settle_after: Some(settings.settle_after_of(&about.options)), ..session };
        // A run made with an opaque token knows its tenant as `--tenant` named it, which may be
        // a domain; a token names it by id alone.
        let then = about.tenant.as_ref().filter(|then| Uuid::try_parse(then).is_ok());
        match (tenant, then) {
            (Some(now), Some(then)) if !now.eq_ignore_ascii_case(then) => {
                Err(Failure::other_tenant(&now, then))
            }
            _ => Ok(session),
        }
    }

    fn explain(&self, grants: &Grants, method: &str) {
        match grants.claims() {
            Some(claims) => {
                let who = claims.who.as_deref().map(shown).unwrap_or_default();
                let tenant = claims.tenant.as_deref().map(shown).unwrap_or_default();
                self.report.debug(format_args!(
                    "signed in with {method} as {who} ({}, tenant {tenant}, {})",
                    grants.kind(),
                    count(claims.permissions.len() as u64, "permission", "permissions")
                ));
            }
            None => {
                self.report.info("note: the token is opaque, so its permissions could not be read");
            }
        }
    }
}

/// Whether sealing to this key starts a program: its name stands between `age1` and another 1, which
/// no other key has (age's plugin specification).
fn needs_plugin(key: &str) -> bool {
    let key = key.trim().to_ascii_lowercase();
    key.strip_prefix("age1").is_some_and(|rest| rest.contains('1'))
}
