//! `deliver`: mails what is sealed and not yet delivered; also what `check`, `run` and
//! `resume` need to mail.

use std::path::PathBuf;

use super::failure::OfRun;
use super::open::identities;
use super::typed::RunCommands;
use super::{Environment, Failure, World};
use crate::args::DeliverArgs;
use crate::config::{self, Settings};
use crate::output::{count, shown};
use tapwave_core::exit::Exit;
use tapwave_graph::http::Network;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_ledger::{Access, Ledger, MailOptions, Standing};
use tapwave_mail::template::Mode;
use tapwave_mail::transport::settings::MailPlan;
use tapwave_mail::transport::smtp::Timeouts;
use tapwave_mail::transport::{GraphMail, MailTransport, Smtp};
use tapwave_pipeline::deliver::{
    LetterWriter, LetterWriterError, MailStopped, Mailer, Resend, Retries,
};
use tapwave_pipeline::run::cleanup::UnprovenRow;
use tapwave_pipeline::run::delivering::{self, DeliverRequest, Delivery, Mailing, Undelivered};
use tapwave_pipeline::run::{Session, Summary, issuing};
use tapwave_pipeline::wave::Header;
use tapwave_pipeline::worker::RunError;
use tapwave_seal::Identities;

/// What carries on with a delivery: its flags are the operator's choice each time.
const SAME_COMMAND: &str = "the same command";

/// What to do about a template folder, which a run remembers.
const TEMPLATES: &str = "put your letter templates there, or name their folder with --template, which check, run and deliver take";

/// Mail as flags and settings want it, before anybody signs in.
pub(super) struct MailSetup {
    pub(super) writer: LetterWriter,
    identities: Option<Identities>,
    network: Network,
}

impl MailSetup {
    /// Reads the templates and the identities. `run` is whose ledger has the options, if they come
    /// from one.
    pub(super) fn load(
        options: &MailOptions,
        plan: MailPlan,
        paths: &[PathBuf],
        network: Network,
        run: Option<&Ledger>,
        world: &World,
    ) -> Result<Self, Failure> {
        if let Some(folder) = &options.templates
            && let Err(error) = std::fs::read_dir(folder)
        {
            let what = format!("failed to open the template folder {}: {error}", folder.display());
            return Err(Failure::new(Exit::Usage, what, &[TEMPLATES]));
        }
        let writer = LetterWriter::new(plan, options).map_err(|error| match (error, run) {
            (error @ LetterWriterError::Unknown { .. }, Some(run)) => run.damaged(error).into(),
            (error, _) => Failure::new(Exit::Problems, error, &[]),
        })?;
        let identities = if paths.is_empty() { None } else { Some(identities(paths, world)?) };
        Ok(Self { writer, identities, network })
    }

    /// Whether issuing need not wait for mail.
    pub(super) fn runs_ahead(&self) -> bool {
        self.identities.is_some() || self.writer.mode != Mode::Pass
    }

    /// The transport, not yet connected.
    pub(super) fn transport(
        &self,
        session: &Session,
        environment: &Environment,
    ) -> Result<MailTransport, Failure> {
        let (plan, clock) = (&self.writer.plan, session.clock.clone());
        let Some(relay) = &plan.relay else {
            return Ok(MailTransport::Graph(GraphMail::new(session.graph.clone(), plan, clock)));
        };
        let secret = relay.sign_in.as_ref().map(|sign_in| sign_in.secret.source(environment));
        let secret = secret.transpose().map_err(|error| Failure::new(Exit::Usage, error, &[]))?;
        let smtp = Smtp::new(plan, secret, &self.network, Timeouts::default(), clock)
            .map_err(|error| Failure::new(Exit::Usage, error, &[]))?;
        Ok(MailTransport::Smtp(Box::new(smtp)))
    }

    /// Everything that mailing a run needs.
    pub(super) fn mailing(
        self,
        ledger: &Ledger,
        session: &Session,
        world: &World,
    ) -> Result<Mailing, Failure> {
        let transport = self.transport(session, &world.environment)?;
        let header: Header = serde_json::from_str(&ledger.about().wave.header_json)
            .map_err(|_| ledger.damaged("the wave's header cannot be read"))?;
        let mailer = Mailer {
            writer: self.writer,
            transport,
            ledger: ledger.clone(),
            header,
            clock: session.clock.clone(),
            graph: session.graph.clone(),
            stop: session.stop.clone(),
            retries: Retries::default(),
        };
        Ok(Mailing { mailer, identities: self.identities })
    }
}

/// The permissions that mail needs: none through a relay.
pub(super) fn needs_of_mail(plan: &MailPlan) -> Option<Need> {
    plan.relay.is_none().then_some(Need::SendMail)
}

pub(super) async fn deliver(
    args: &DeliverArgs,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let due = args.due.as_deref().map(config::due).transpose()?;
    let readdress: Result<Vec<_>, _> =
        args.readdress.iter().map(|text| config::readdress(text)).collect();
    let readdress = readdress?;
    let ledger = world.ledger(&args.run, Access::Write).await?;
    let typed = world.work_on(ledger.folder(), |_| SAME_COMMAND.to_owned());
    if ledger.closed().await?.is_some() {
        let what = "this run was closed by cleanup, so nothing more is mailed from it";
        return Err(Failure::new(Exit::Usage, what, &["a new run issues new passes"]));
    }
    let risk = "delivering it may mail what has been mailed from the other folder";
    let Some(belonging) = world.belongs_here(&ledger, risk).await? else {
        return Ok(Exit::Done);
    };
    world.mails_whom_it_says(&belonging, &ledger, &readdress).await?;
    let options = options(args, &ledger);
    let (plan, network) = (settings.mail_plan()?, settings.network.clone());
    let mail_setup =
        MailSetup::load(&options, plan, &args.identities, network, Some(&ledger), world)?;
    config::notice_fits(mail_setup.writer.mode, &options.notice_to)?;
    let counts = ledger.counts().await?;
    let locked = counts.of(Standing::Sealed) + counts.of(Standing::Mailing) > 0;
    if locked && !mail_setup.runs_ahead() {
        let what = "the mails carry the codes, and nothing is given to open the sealed copies with";
        let opening = typed.deliver(" -i IDENTITY");
        let hint = format!("{opening} opens them; --body sealed mails them as they are");
        return Err(Failure::new(Exit::Usage, what, &[&hint]));
    }
    let mut needs: Vec<Need> = needs_of_mail(&mail_setup.writer.plan).into_iter().collect();
    if args.revoke_undelivered {
        needs.extend([Need::WritePasses, Need::ReadPasses]);
        needs.extend(belonging.needs());
    }
    let session = connected(needs, &ledger, settings, world).await?;
    if args.revoke_undelivered {
        world.names_its_people(&belonging, &ledger, &session.graph).await?;
    }
    world.settle(&belonging, &ledger).await?;
    let session = Session { keeps_going: args.keep_going, ..session };
    let mailing = mail_setup.mailing(&ledger, &session, world)?;
    let readdressed = delivering::readdress(&ledger, &readdress).await;
    readdressed.map_err(|error| error.of(&typed))?;
    let resend = Resend { unsettled: args.resend_unsettled, refused: args.retry_refused };
    let request = DeliverRequest { due, resend, revoke: args.revoke_undelivered };
    let delivered = delivering::deliver(&mailing, &session, request).await;
    mailing.mailer.transport.close().await;
    let delivered = delivered.map_err(|error| Failure::of_run_error(error, SAME_COMMAND))?;
    finish(&ledger, &delivered, &typed, &session, world).await
}

/// Signs in as far as mailing needs it: through a relay, everything lies in the run, and no
/// tenant is asked.
///
/// Nothing is mailed that nobody vouches for, and an hourly job has nobody who resumes: what a
/// process sealed last before it broke off is looked at again. Where nobody can sign in for
/// that, the other mails go out all the same.
async fn connected(
    mut needs: Vec<Need>,
    ledger: &Ledger,
    settings: &Settings,
    world: &World,
) -> Result<Session, Failure> {
    let wait = |why: &str| {
        format!("passes of a run that broke off cannot be looked at again, so they wait: {why}")
    };
    let by_relay_alone = needs.is_empty();
    if !issuing::is_doubted(ledger).await? {
        return if by_relay_alone {
            Ok(world.without_graph(settings))
        } else {
            world.reconnect(settings, ledger, &needs).await
        };
    }
    needs.push(Need::ReadPasses);
    let session = match world.reconnect(settings, ledger, &needs).await {
        Err(failure) if by_relay_alone && failure.exit != Exit::Interrupted => {
            world.report.warn(wait(&failure.message.what));
            return Ok(world.without_graph(settings));
        }
        connected => connected?,
    };
    match issuing::verify(ledger, &session).await {
        Ok(()) => Ok(session),
        Err(RunError::SignIn { why } | RunError::Outage { why } | RunError::Between { why })
            if by_relay_alone =>
        {
            world.report.warn(wait(&why));
            Ok(session)
        }
        Err(error) => Err(Failure::of_run_error(error, SAME_COMMAND)),
    }
}

/// The run's own options for mail, the flags over them.
fn options(args: &DeliverArgs, ledger: &Ledger) -> MailOptions {
    let recorded = ledger.about().options.mail.clone();
    let named = args.body.is_some() || recorded.is_none();
    let mut options = recorded.unwrap_or_default();
    if named {
        config::body_mode(args.body).as_str().clone_into(&mut options.body);
    }
    if let Some(path) = &args.template {
        options.templates = Some(config::absolute(path));
    }
    options
}

/// Tells why mail stopped, and gives the exit code that follows from it: a relay that lets
/// nobody in is a matter of sign-in, whatever was done before.
pub(super) fn stopped(stop: Option<&MailStopped>, world: &World) -> Exit {
    let Some(MailStopped { why, denied }) = stop else { return Exit::Done };
    world.report.error(format_args!("mail stopped: {}", shown(why)));
    if *denied { Exit::Access } else { Exit::DeliveryIncomplete }
}

async fn finish(
    ledger: &Ledger,
    delivery: &Delivery,
    typed: &RunCommands,
    session: &Session,
    world: &World,
) -> Result<Exit, Failure> {
    let report = &world.report;
    ledger.add_traffic(session.graph.requests(), session.graph.throttled()).await.ok();
    let summary = Summary::of(ledger, session, 0).await?;
    ledger.shut().await;
    report.summary(&summary)?;
    if delivery.later > 0 {
        let rows = count(delivery.later, "row starts", "rows start");
        report.info(format_args!("{rows} later than --due and wait for another time"));
    }
    for (line, upn) in &delivery.revoked {
        report.info(format_args!("line {line}, {}: its pass was removed", shown(upn)));
    }
    for UnprovenRow { line, upn, why } in &delivery.unrevoked {
        report.error(format_args!("line {line}, {}: {}", shown(upn), shown(why)));
    }
    let mut exit = Exit::Done;
    if delivery.open.rows > 0 {
        exit = exit.and(Exit::DeliveryIncomplete);
    }
    exit = exit.and(stopped(delivery.stopped.as_ref(), world));
    if delivery.interrupted && delivery.open.rows > 0 {
        exit = exit.and(Exit::Interrupted);
    }
    let mut next = Vec::new();
    if delivery.unproven > 0 {
        report.error(format_args!(
            "{} not mailed: the run broke off, and nobody has looked since what stands on the user",
            count(delivery.unproven, "pass was", "passes were")
        ));
        next.push((typed.resume(), "looks, and carries on"));
    }
    if exit != Exit::Done {
        next.push((typed.status(), "shows every row"));
    }
    next.extend(by_word(delivery.open, typed));
    report.next(&next);
    Ok(exit)
}

/// What to type for mails that go out again only when a person says so.
pub(super) fn by_word(open: Undelivered, run: &RunCommands) -> Vec<(String, &'static str)> {
    let mut next = Vec::new();
    if open.unsettled > 0 {
        let resend = run.deliver(" -i IDENTITY --resend-unsettled");
        next.push((resend, "repeats mails of unknown fate with identical bytes"));
    }
    if open.refused > 0 {
        let retry = run.deliver(" -i IDENTITY --retry-refused");
        next.push((
            retry,
            "tries refused mails anew; --readdress LINE=ADDRESS sends one elsewhere",
        ));
    }
    if open.lapsed > 0 {
        let revoke = run.deliver(" -i IDENTITY --revoke-undelivered");
        next.push((revoke, "removes passes that were over before they were mailed"));
    }
    next
}
