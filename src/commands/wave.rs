//! `check` and `run`: from a wave to a verdict, and on to a handoff.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::belonging::{self, Claimant};
use super::deliver::{MailSetup, needs_of_mail};
use super::failure::{OfRun, WAVE, plain_file};
use super::typed::{self, RunCommands};
use super::{Failure, World};
use crate::args::{CheckArgs, FinalLookArg, RunArgs, WaveArgs};
use crate::config::{RunConfig, Settings};
use crate::output::{count, shown};
use tapwave_core::exit::Exit;
use tapwave_core::ids::{Line, RunId, UserId};
use tapwave_core::limits;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_ledger::{
    Claims, Draft, Existing, Ledger, PolicyRecord, Reader, RunFolder, RunOptions, Standing,
};
use tapwave_mail::transport::settings::MailPlan;
use tapwave_mail::transport::{NEEDS_UTF8, Scripts};
use tapwave_pipeline::check::{Check, Problem, Warning};
use tapwave_pipeline::deliver::Preview;
use tapwave_pipeline::run::delivering::{Undelivered, open_mail};
use tapwave_pipeline::run::intake::{self, Claim, IntakeError, MailCheck, RunAbout, WaveCheck};
use tapwave_pipeline::run::issuing::{self, Issuance};
use tapwave_pipeline::run::second_look::{FinalLook, Looked};
use tapwave_pipeline::run::{Session, Summary};
use tapwave_pipeline::seal::RecipientBook;

/// How long the rule between two letters is, in characters.
const RULE: usize = 72;

/// A wave, what is to be done with it, and who may read it.
pub(super) struct WaveRequest<'a> {
    pub(super) wave: &'a Path,
    pub(super) config: RunConfig,
    /// The command that tries again, if anybody could mend what it is given.
    pub(super) again: Option<&'static str>,
    /// What is said besides of a wave with problems.
    pub(super) ends_with: Option<&'static str>,
    pub(super) book: RecipientBook,
    /// How the passes are mailed, if they are.
    pub(super) mail_setup: Option<MailSetup>,
}

impl<'a> WaveRequest<'a> {
    /// Looks at the files that it names and at the keys of recipients. Nothing is mailed yet.
    pub(super) fn new(wave: &'a Path, config: RunConfig, world: &World) -> Result<Self, Failure> {
        readable(wave)?;
        if let Some(path) = &config.rejects {
            if path.symlink_metadata().is_ok() {
                return Err(Failure::there_already("the rejected rows", path, "--rejects"));
            }
            writable(path)?;
        }
        let prompts = std::sync::Arc::new(world.prompts.clone());
        let (labels, recipients) = (config.labels.clone(), config.recipients.clone());
        let book = RecipientBook::new(labels, recipients, &config.break_glass, prompts)?;
        Ok(Self { wave, config, again: Some("check"), ends_with: None, book, mail_setup: None })
    }

    /// The same with the templates and identities that mail needs, if it is asked for.
    fn with_mail(mut self, settings: &Settings, world: &World) -> Result<Self, Failure> {
        let RunConfig { options, mail: Some(plan), identities, .. } = &mut self.config else {
            return Ok(self);
        };
        if let Some(options) = &mut options.mail {
            let network = settings.network.clone();
            let mail = MailSetup::load(options, plan.clone(), identities, network, None, world)?;
            options.names_manager = mail.writer.names_manager(options);
            if !mail.writer.names_support() {
                world
                    .report
                    .warn("the letters cannot say whom to call; set support or reply_to in [mail]");
            }
            self.mail_setup = Some(mail);
        }
        Ok(self)
    }

    /// The permissions that `run` with these options needs.
    fn needs(&self) -> Vec<Need> {
        let mut needs = needs(&self.config.options);
        needs.extend(
            self.mail_setup.iter().filter_map(|mail_setup| needs_of_mail(&mail_setup.writer.plan)),
        );
        needs
    }

    /// Reads and checks the wave into a draft.
    pub(super) async fn take_in(
        &mut self,
        draft: &mut Draft,
        session: &Session,
        claim: &mut Claim<'_>,
        environment: &super::Environment,
    ) -> Result<WaveCheck, Failure> {
        let zone = self.config.time_zone.clone();
        let wave = intake::read(self.wave, zone, &mut self.book, draft, session)?;
        let mail_check = self.mail_setup.as_ref().map(|mail_setup| MailCheck {
            writer: &mail_setup.writer,
            ahead: mail_setup.runs_ahead(),
            allow_late: self.config.allow_late,
        });
        let (options, book) = (&self.config.options, &mut self.book);
        let checked =
            intake::check(wave, options, book, draft, session, claim, mail_check.as_ref());
        let mut verdict = checked.await?;
        if let Some(mail_setup) = &self.mail_setup {
            let transport = mail_setup.transport(session, environment)?;
            let tried = tokio::select! {
                biased;
                tried = transport.try_out() => tried,
                () = session.stop.aborted() => return Err(IntakeError::Interrupted.into()),
            };
            transport.close().await;
            match tried {
                Err(obstacle) => {
                    verdict.bars_us = obstacle.bars_us();
                    verdict.mail.push(obstacle.why);
                }
                Ok(Scripts::Ascii) => {
                    verdict.mail.extend(beyond_ascii(draft, &mail_setup.writer.plan)?);
                }
                Ok(Scripts::Any) => {}
            }
        }
        if let Some(path) = &self.config.rejects
            && verdict.ineligible > 0
        {
            intake::write_rejects(path, &verdict.header, draft)?;
        }
        Ok(verdict)
    }

    /// What to type when there are problems.
    fn what_to_mend(&self, verdict: &WaveCheck, world: &World) -> Vec<(String, &'static str)> {
        let Some(verb) = self.again else { return Vec::new() };
        let written = self.config.rejects.as_deref().filter(|path| path.symlink_metadata().is_ok());
        let (wave, rejects, why) = match written {
            _ if verdict.ineligible == 0 => (self.wave, None, "once that is mended"),
            Some(path) => (path, None, "once its rows are mended"),
            None if self.config.options.skip_ineligible => (
                self.wave,
                Some(free_name()),
                "writes these rows to a file so that you can correct them",
            ),
            None => (
                self.wave,
                Some(free_name()),
                "writes these rows to a file so that you can correct them; --skip-ineligible leaves them out",
            ),
        };
        vec![(world.line.over_wave(verb, wave, None, rejects.as_deref()), why)]
    }

    /// Whether the verdict lets issuing begin, and the word for it.
    pub(super) fn may_go_on(&self, verdict: &WaveCheck) -> (bool, &'static str) {
        if !verdict.mail.is_empty() {
            return (false, "problems");
        }
        match (verdict.ineligible, self.config.options.skip_ineligible) {
            (0, _) => (true, "ready"),
            (_, true) => (true, "ready without some rows"),
            (_, false) => (false, "problems"),
        }
    }
}

/// A place for a recipient in a command that is told, where neither these flags nor the settings
/// name one.
pub(super) fn somebody(want: &WaveArgs, settings: &Settings) -> Option<&'static str> {
    let named = want.recipients.len() + want.recipient_files.len() + settings.recipients.len();
    (named == 0).then_some("age1…")
}

/// Where a hint has rejected rows written to: nothing is written over what is there.
fn free_name() -> PathBuf {
    let numbered = (2_u32..).map(|number| PathBuf::from(format!("rejects-{number}.csv")));
    std::iter::once(PathBuf::from("rejects.csv"))
        .chain(numbered)
        .find(|path| path.symlink_metadata().is_err())
        .unwrap_or_default()
}

/// What to say of addresses that a relay without SMTPUTF8 cannot be given.
fn beyond_ascii(draft: &Draft, plan: &MailPlan) -> Result<Option<String>, Failure> {
    let mut ours = [Some(&plan.from), plan.reply_to.as_ref()].into_iter().flatten();
    if ours.any(|mailbox| !mailbox.address().is_ascii()) {
        return Ok(Some(format!("from or reply_to in tapwave.toml {NEEDS_UTF8}")));
    }
    let beyond =
        |reader: &Option<Reader>| reader.as_ref().is_some_and(|reader| !reader.address.is_ascii());
    let (mut first, mut rows) = (None, 0);
    for page in draft.pages(&[Standing::Checked], limits::ROWS_PER_READ) {
        // A notice that is refused afterwards tells nobody of a pass that has gone out.
        for row in page?.iter().filter(|row| beyond(&row.reader) || beyond(&row.notice_reader)) {
            first.get_or_insert(row.line);
            rows += 1;
        }
    }
    Ok(first.map(|line| {
        let rows = count(rows, "row", "rows");
        format!("a mail address of line {line} ({rows} in all) {NEEDS_UTF8}")
    }))
}

/// The permissions that `run` with these options needs.
fn needs(options: &RunOptions) -> Vec<Need> {
    let mut needs = vec![Need::ReadPolicy, Need::ReadUsers, Need::WritePasses];
    if options.existing != Existing::Replace {
        needs.push(Need::ReadPasses);
    }
    // Whether the policy's own targets are groups is known only after it has been read.
    if !options.groups.is_empty() {
        needs.push(Need::ReadGroups);
    }
    needs
}

/// `check --access`: sign-in, permissions and policy for these flags, before there is a wave.
async fn access(args: &CheckArgs, settings: &Settings, world: &World) -> Result<Exit, Failure> {
    let RunConfig { options, mail, .. } = RunConfig::resolve(&args.want, &args.mail, settings)?;
    let mut needs = needs(&options);
    needs.extend(mail.as_ref().and_then(needs_of_mail));
    let base = settings.graph_or_global();
    let (session, grants) = world.sign_in(settings, &base, &needs).await?;
    let policy = session.graph.policy().await?;
    // Groups are resolved too, so that a name that is wrong shows today.
    let check = Check::prepare(&session.graph, &options, 0, session.may_read_groups).await?;
    let bounds = check.policy();
    let problems = access_problems(&options, &bounds);
    let names = tapwave_pipeline::policy::names(&session.graph, &[&policy]).await?;
    world.report.access(base.as_str(), &grants, &policy, &names, &problems)?;
    let about_access =
        |it: &Warning| matches!(it, Warning::MissingGroup { .. } | Warning::Clocks(_));
    for warning in check.warnings(&session.graph).into_iter().filter(about_access) {
        world.report.warn(warning);
    }
    if !problems.is_empty() {
        world.report.info("verdict: problems; nothing was changed");
        return Ok(Exit::Problems);
    }
    world.report.info("verdict: access is ready; nothing was changed");
    let wave = Path::new("WAVE.csv");
    let check = world.line.over_wave(
        "check",
        wave,
        somebody(&args.want, settings),
        args.want.rejects.as_deref(),
    );
    world.report.next(&[(check, "checks the people")]);
    Ok(Exit::Done)
}

/// What every row would be told, because flags and policy do not go together.
fn access_problems(options: &RunOptions, bounds: &PolicyRecord) -> Vec<Problem> {
    let (min, max) = (bounds.min_lifetime_minutes, bounds.max_lifetime_minutes);
    let mut problems = Vec::new();
    if let Some(asked) = options.lifetime_minutes.filter(|asked| !(min..=max).contains(asked)) {
        problems.push(Problem::Lifetime { asked, min, max });
    }
    if bounds.one_time && options.one_time == Some(false) {
        problems.push(Problem::MultiUse);
    }
    problems
}

pub(super) async fn check(
    args: &CheckArgs,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let Some(wave) = &args.wave else { return access(args, settings, world).await };
    let config = RunConfig::resolve(&args.want, &args.mail, settings)?;
    let mut wanted = WaveRequest::new(wave, config, world)?.with_mail(settings, world)?;
    somebody_can_read(&wanted, world, false)?;
    let base = settings.graph_or_global();
    let (session, _) = world.connect(settings, &base, &wanted.needs()).await?;
    world.warn_of_short_settling(session.settle_after);
    let mut draft = Draft::scratch(world.clock.clone())?;
    let registry = world.registry()?;
    let mut claims = Claims::find(&world.home()?)?;
    let began = world.clock.now();
    let mut claimed = |users: &[UserId]| match &mut claims {
        Some(claims) => {
            let taken = claims.claimed(users, began)?;
            Ok(belonging::named(taken, &registry))
        }
        None => Ok(HashMap::new()),
    };
    let environment = &world.environment;
    let taken = wanted.take_in(&mut draft, &session, &mut claimed, environment);
    let verdict = taken.await?;
    if let Some(line) = args.preview {
        return preview(Line(line), &wanted, &draft, &verdict, world);
    }
    let (go, said) = wanted.may_go_on(&verdict);
    let report = &world.report;
    report.readers(&wanted.book.records());
    report.verdict(wave, &verdict, said, &wanted.book.records())?;
    say_where_rejects_are(&wanted, &verdict, world);
    if !go {
        report.info("verdict: problems; nothing was changed");
        report.next(&wanted.what_to_mend(&verdict, world));
        return Ok(verdict.exit());
    }
    report.info(format_args!("verdict: {said}; nothing was changed"));
    if verdict.eligible == 0 {
        report.nobody(verdict.ineligible, verdict.skipped);
        if verdict.ineligible > 0 {
            report.next(&wanted.what_to_mend(&verdict, world));
        }
        return Ok(Exit::Done);
    }
    let run = world.line.over_wave("run", wave, None, args.want.rejects.as_deref());
    report.next(&[(run, "issues the passes")]);
    Ok(Exit::Done)
}

pub(super) async fn run(
    args: &RunArgs,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let config = RunConfig::resolve(&args.want, &args.mail, settings)?;
    let mut wanted = WaveRequest::new(&args.wave, config, world)?.with_mail(settings, world)?;
    somebody_can_read(&wanted, world, true)?;
    let base = settings.graph_or_global();
    let registry = world.registry()?;
    let path = match &args.folder {
        Some(path) => path.clone(),
        None => registry.propose(&args.wave, world.clock.now()),
    };
    let made = path.symlink_metadata().is_err();
    let folder = RunFolder::create(&path)?;
    world.report.info(format_args!("run folder: {}", folder.path().display()));
    world.note_calls(&folder);
    let connected = world.connect(settings, &base, &wanted.needs()).await;
    let (session, tenant) = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            world.abandon(&folder, made);
            return Err(failure);
        }
    };
    let session = Session { keeps_going: args.keep_going, ..session };
    world.warn_of_short_settling(session.settle_after);
    let id = RunId::new(Uuid::new_v4());
    let about = RunAbout {
        id,
        name: folder.name(),
        tenant: tenant.or_else(|| settings.tenant.clone()),
        graph_url: base.as_str().to_owned(),
        options: wanted.config.options.clone(),
    };
    let mut claimant = Claimant::new(world.home()?, id, &folder, &registry, world.clock.now());
    let mut claim = |users: &[UserId]| claimant.claim(users);
    let begun = begin(&mut wanted, &folder, &about, &session, world, &mut claim).await;
    if !matches!(begun, Ok(Ok(_))) {
        claimant.give_up()?;
        world.abandon(&folder, made);
    }
    let ledger = match begun? {
        Ok(ledger) => ledger,
        Err(exit) => return Ok(exit),
    };
    world.made_here(&ledger).await?;
    // A run elsewhere is found by its path even if this note cannot be made.
    if let Err(error) = registry.remember(&folder) {
        world.report.warn(error);
    }
    let typed = world.work_on(&folder, RunCommands::resume);
    let sets = wanted.book.into_sets();
    let left_out = ledger.counts().await?.of(Standing::Ineligible);
    let mailing = match wanted.mail_setup.filter(|_| args.mail.deliver) {
        Some(mail_setup) => Some(mail_setup.mailing(&ledger, &session, world)?),
        None => None,
    };
    let issuance =
        issuing::run(&ledger, sets, mailing.as_ref(), &session, args.final_look.into()).await;
    if let Some(mailing) = &mailing {
        mailing.mailer.transport.close().await;
    }
    let issuance = issuance.map_err(|error| error.of(&typed))?;
    finish(&ledger, issuance, left_out, &typed, &session, world).await
}

/// Checks into a draft in the folder and makes the ledger whole. An exit code if there are
/// problems; they have been told, and nothing was changed.
pub(super) async fn begin(
    wanted: &mut WaveRequest<'_>,
    folder: &RunFolder,
    about: &RunAbout,
    session: &Session,
    world: &World,
    claim: &mut Claim<'_>,
) -> Result<Result<Ledger, Exit>, Failure> {
    let mut draft = Draft::create(folder, world.clock.clone())?;
    let environment = &world.environment;
    let taken = wanted.take_in(&mut draft, session, claim, environment).await;
    let verdict = match taken {
        Ok(verdict) => verdict,
        Err(failure) => {
            draft.discard()?;
            return Err(failure);
        }
    };
    let (go, said) = wanted.may_go_on(&verdict);
    let readers = wanted.book.records();
    world.report.verdict(wanted.wave, &verdict, if go { "" } else { said }, &readers)?;
    say_where_rejects_are(wanted, &verdict, world);
    if !go {
        draft.discard()?;
        world.report.info("verdict: problems; nothing was issued");
        if let Some(words) = wanted.ends_with {
            world.report.info(words);
        }
        world.report.next(&wanted.what_to_mend(&verdict, world));
        return Ok(Err(verdict.exit()));
    }
    world.report.readers(&readers);
    let now = world.clock.now();
    let ledger = intake::publish(draft, &verdict, wanted.wave, about, &wanted.book, now)?;
    super::note_run(&ledger);
    Ok(Ok(ledger))
}

/// Tells how issuing ended and what to type next; the exit code follows. `left_out` is how many
/// rows were ineligible when it began.
pub(super) async fn finish(
    ledger: &Ledger,
    issuance: Issuance,
    left_out: u64,
    typed: &RunCommands,
    session: &Session,
    world: &World,
) -> Result<Exit, Failure> {
    ledger.add_traffic(session.graph.requests(), session.graph.throttled()).await.ok();
    let summary = Summary::of(ledger, session, 0).await;
    let mailed = ledger.about().options.mail.as_ref().is_some_and(|mail| mail.at_once);
    // A hint: a ledger that cannot be read is told by what comes next.
    let held = super::held::next(ledger, typed).await.unwrap_or_default();
    let open = if mailed { open_mail(ledger, session).await } else { Ok(Undelivered::default()) };
    world.end_claims(ledger).await;
    let strays = ledger.strays().await;
    let unknown = match &issuance.error {
        Some(error) if error.lost_ledger() => Some(belonging::alive(ledger).await?),
        _ => None,
    };
    ledger.shut().await;
    let report = &world.report;
    let (summary, strays) = match summary.and_then(|summary| Ok((summary, strays?))) {
        Ok(read) => read,
        // It may name a pass that could not be deleted: a ledger that cannot be summed up must
        // not hide that.
        Err(error) => {
            if let Some(error) = issuance.error {
                report.error_with_hints(&error.of(typed).message);
            }
            return Err(error.into());
        }
    };
    report.summary(&summary)?;
    if summary.is_empty() {
        report.nobody(summary.ineligible, summary.skipped);
        report.next(&[(typed.status(), "shows every row")]);
    }
    for path in &issuance.handoffs {
        report.info(format_args!("handoff: {}", path.display()));
    }
    tell_unseen(&issuance.looked, typed, world);
    let is_lost = unknown.is_some();
    if let Some(lines) = unknown.filter(|lines| !lines.is_empty()) {
        tell_forgotten(&lines, ledger, world);
    }
    let mut exit = wrong_rows(&summary, &strays, left_out, ledger, typed, world);
    let locked = summary.sealed + summary.mailing > 0;
    let untold = summary.notices.is_some_and(|notices| notices.notices_open > 0);
    let undelivered = mailed && (locked || untold);
    exit = exit.and(if undelivered { Exit::DeliveryIncomplete } else { Exit::Done });
    exit = exit.and(super::deliver::stopped(issuance.mail.as_ref(), world));
    let unseen = issuance.looked.unseen > 0;
    if issuance.interrupted && (summary.waiting() + summary.unsettled > 0 || undelivered || unseen)
    {
        exit = exit.and(Exit::Interrupted);
    }
    let halted = issuance.error.map(|error| error.of(typed));
    for failure in halted.into_iter().chain(issuance.handover.map(|error| error.of(typed))) {
        exit = exit.and(failure.exit);
        report.error_with_hints(&failure.message);
    }
    if !is_lost {
        let mut next = what_next(exit, &summary, open.map_err(|error| error.of(typed))?, typed);
        next.extend(held);
        report.next(&next);
    }
    Ok(exit)
}

/// Whether some rows went wrong. Names what no other word tells.
fn wrong_rows(
    summary: &Summary,
    strays: &[Line],
    left_out: u64,
    ledger: &Ledger,
    typed: &RunCommands,
    world: &World,
) -> Exit {
    if !strays.is_empty() {
        let rows = count(strays.len() as u64, "row owns", "rows own");
        world.report.error(format_args!(
            "{rows} no pass, and one of this run's may be alive all the same, whose code nobody \
             has: line {}; {} removes it",
            belonging::ranges(strays),
            typed.cleanup(),
        ));
    }
    let unfit = summary.ineligible.saturating_sub(left_out);
    let unasked = unfit > 0 && !ledger.about().options.skip_ineligible;
    if unasked {
        let rows = count(unfit, "row", "rows");
        let words = "must not have a pass any more, and were left out";
        world.report.error(format_args!("{rows} {words}"));
    }
    let wrong =
        summary.failed + (summary.unsettled - summary.mailing) + summary.held + summary.lost;
    if wrong > 0 || unasked || !strays.is_empty() { Exit::RowsFailed } else { Exit::Done }
}

/// Which passes nobody has looked at again, and what does.
fn tell_unseen(looked: &Looked, typed: &RunCommands, world: &World) {
    if let Some(why) = &looked.why {
        let unseen = count(looked.unseen, "pass was", "passes were");
        world.report.info(format_args!(
            "the second look was left out ({}): {unseen} not looked at again since issued; \
             {} --final-look always does it",
            shown(why),
            typed.resume(),
        ));
    }
}

/// Which passes are alive though their ledger has disappeared.
fn tell_forgotten(lines: &[Line], ledger: &Ledger, world: &World) {
    let passes = count(lines.len() as u64, "pass is", "passes are");
    let wave = &ledger.about().wave.path;
    world.report.error(format_args!(
        "{passes} alive, or may be, that no ledger on the disk knows of: lines {} of {}; \
         tapwave cleanup --csv {}{} removes what its people hold",
        belonging::ranges(lines),
        shown(wave),
        typed::wave(Path::new(wave)),
        world.line.connection(),
    ));
}

impl From<FinalLookArg> for FinalLook {
    fn from(arg: FinalLookArg) -> Self {
        match arg {
            FinalLookArg::Always => Self::Always,
            FinalLookArg::Auto => Self::Auto,
            FinalLookArg::Never => Self::Never,
        }
    }
}

/// What to type after issuing.
fn what_next(
    exit: Exit,
    summary: &Summary,
    open: Undelivered,
    run: &RunCommands,
) -> Vec<(String, &'static str)> {
    let mut next = Vec::new();
    // What only a person's word sends is sent by no resume.
    let by_itself = open.rows > open.unsettled + open.refused + open.over;
    if exit != Exit::Done && (exit != Exit::DeliveryIncomplete || by_itself) {
        next.push((run.resume(), "carries on"));
    }
    if exit != Exit::Done {
        next.push((run.status(), "shows every row"));
    }
    if by_itself {
        // A notice needs nothing to be opened.
        let identity = if summary.sealed + summary.mailing > 0 { " -i IDENTITY" } else { "" };
        next.push((run.deliver(identity), "mails what is not yet delivered"));
    }
    next.extend(super::deliver::by_word(open, run));
    if summary.sealed + summary.mailing + summary.delivered > 0 {
        next.push((run.open(), "reads the passes"));
        next.push((run.cleanup(), "removes them all when the wave is over"));
    }
    next
}

/// One row's letters with a dummy code, on stdout.
fn preview(
    line: Line,
    wanted: &WaveRequest<'_>,
    draft: &Draft,
    verdict: &WaveCheck,
    world: &World,
) -> Result<Exit, Failure> {
    let Some(mail_setup) = &wanted.mail_setup else {
        let what = "--preview shows a mail, and none is asked for";
        return Err(Failure::new(Exit::Usage, what, &["add --deliver, --to or --body"]));
    };
    let after = line.0.checked_sub(1).map(Line);
    let row = draft.rows(&Standing::ALL, after, 1)?.pop().filter(|row| row.line == line);
    let Some(row) = row else {
        let what = format!("the wave has no row in line {line}");
        return Err(Failure::new(Exit::Usage, what, &["give the line as an editor counts it"]));
    };
    if row.state.standing() != Standing::Checked {
        let why = row.reason.as_deref().map(shown).unwrap_or_default();
        return Err(Failure::new(Exit::Problems, format!("line {line} gets no pass: {why}"), &[]));
    }
    let letters = mail_setup.writer.preview(&row, &verdict.header, world.clock.now());
    let letters = letters.map_err(|error| Failure::new(Exit::Problems, error, &[]))?;
    let mut out = std::io::stdout().lock();
    for (place, Preview { to, letter, .. }) in letters.iter().enumerate() {
        if place > 0 {
            writeln!(out, "\n{}\n", "-".repeat(RULE))?;
        }
        writeln!(out, "To: {}\nSubject: {}\n\n{}", shown(to), letter.subject(), letter.text())?;
    }
    Ok(Exit::Done)
}

fn say_where_rejects_are(wanted: &WaveRequest<'_>, verdict: &WaveCheck, world: &World) {
    if let Some(path) = wanted.config.rejects.as_ref().filter(|_| verdict.ineligible > 0) {
        world.report.info(format_args!("rejected rows: {}", path.display()));
    }
}

/// Nobody should sign in before a wave that cannot be read is told.
pub(super) fn readable(wave: &Path) -> Result<(), Failure> {
    plain_file(wave).map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => {
            let what = format!("failed to open {}: it is a folder", wave.display());
            Failure::new(Exit::Usage, what, &["name the CSV file in it"])
        }
        _ => Failure::unread(wave, &error, WAVE),
    })
}

/// Nobody should wait for a check whose rejected rows have no place.
fn writable(rejects: &Path) -> Result<(), Failure> {
    let folder = rejects.parent().filter(|folder| !folder.as_os_str().is_empty());
    let found = folder.map_or(Ok(()), |folder| folder.metadata().map(|_| ()));
    found.map_err(|error| Failure::unwritten("write the rejected rows to", rejects, &error))
}

/// Nobody to seal for is the end of a run; a check goes on and says so.
fn somebody_can_read(wanted: &WaveRequest<'_>, world: &World, must: bool) -> Result<(), Failure> {
    if wanted.book.has_anybody() {
        return Ok(());
    }
    let column = "a recipient column must then name somebody in every row";
    if must && !wanted.book.has_labels() && !names_recipients(wanted.wave) {
        return Err(Failure::new(
            Exit::Usage,
            "nobody could read the passes: no recipient is given",
            &["give -r age1…, or -R FILE; tapwave keygen makes an identity with its public key"],
        ));
    }
    world.report.warn(format_args!("no -r and no --break-glass; {column}"));
    Ok(())
}

/// Whether the wave has a recipient column at all.
fn names_recipients(wave: &Path) -> bool {
    use tapwave_pipeline::wave::{Column, Defaults, WaveReader};
    std::fs::File::open(wave)
        .ok()
        .and_then(|file| WaveReader::open(file, Defaults::default()).ok())
        .is_some_and(|reader| reader.header().index(Column::Recipient).is_some())
}
