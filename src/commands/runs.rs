//! `resume`, `status` and `runs`: what is known of runs, and carrying one on.

use std::io::{self, BufWriter, Write};

use super::belonging;
use super::deliver::{MailSetup, needs_of_mail};
use super::failure::OfRun;
use super::held;
use super::typed::{self, RunCommands};
use super::{Failure, World};
use crate::args::{ManifestArgs, ResumeArgs, StatusArgs};
use crate::config::Settings;
use crate::output::{TOLD, count};
use tapwave_core::exit::Exit;
use tapwave_graph::sign_in::permissions::Need;
use tapwave_ledger::{Access, Existing, Ledger, RecipientRecord, Standing};
use tapwave_pipeline::run::issuing::IssuingError;
use tapwave_pipeline::run::{self, RowStatus, Session, issuing};

pub(super) async fn resume(
    args: &ResumeArgs,
    settings: &Settings,
    world: &World,
) -> Result<Exit, Failure> {
    let ledger = world.ledger(&args.run, Access::Write).await?;
    world.report.info(format_args!("run folder: {}", ledger.folder().path().display()));
    world.note_calls(ledger.folder());
    super::note_run(&ledger);
    let run = world.work_on(ledger.folder(), RunCommands::resume);
    // Said before anybody signs in.
    not_closed(&ledger, &run).await?;
    let risk = match belonging::still_open(&ledger).await? {
        0 => "resuming it may delete passes that its ledger calls its own".to_owned(),
        open => {
            let people = count(open, "person", "people");
            format!("resuming it may issue a pass to {people}, and end one that they got meanwhile")
        }
    };
    let Some(belonging) = world.belongs_here(&ledger, &risk).await? else {
        return Ok(Exit::Done);
    };
    world.mails_whom_it_says(&belonging, &ledger, &[]).await?;
    world.report.readers(&ledger.about().recipients);
    let mut needs = vec![Need::ReadPolicy, Need::ReadUsers, Need::WritePasses];
    if ledger.about().options.existing != Existing::Replace {
        needs.push(Need::ReadPasses);
    }
    let mail_setup = mail_setup(args, &ledger, &run, settings, world)?;
    needs.extend(mail_setup.iter().filter_map(|mail_setup| needs_of_mail(&mail_setup.writer.plan)));
    let session = world.reconnect(settings, &ledger, &needs).await?;
    world.names_its_people(&belonging, &ledger, &session.graph).await?;
    world.settle(&belonging, &ledger).await?;
    let session = Session { keeps_going: args.keep_going, ..session };
    world.warn_of_short_settling(session.settle_after);
    let mailing = match mail_setup {
        Some(mail_setup) => Some(mail_setup.mailing(&ledger, &session, world)?),
        None => None,
    };
    world.claim_open(&ledger).await?;
    if !held::removed(&args.remove_found, &ledger, &session, &run, world).await? {
        world.end_claims(&ledger).await;
        ledger.shut().await;
        return Ok(Exit::Done);
    }
    let left_out = ledger.counts().await?.of(Standing::Ineligible);
    let issuance =
        issuing::resume(&ledger, mailing.as_ref(), &session, args.final_look.into()).await;
    if let Some(mailing) = &mailing {
        mailing.mailer.transport.close().await;
    }
    let issuance = issuance.map_err(|error| error.of(&run))?;
    // Said already to whoever was asked about a pass.
    if args.remove_found.is_empty() {
        world.warn_of_clocks(&session);
    }
    super::wave::finish(&ledger, issuance, left_out, &run, &session, world).await
}

/// How a resumed run mails, if it was checked for mailing at once.
fn mail_setup(
    args: &ResumeArgs,
    ledger: &Ledger,
    run: &RunCommands,
    settings: &Settings,
    world: &World,
) -> Result<Option<MailSetup>, Failure> {
    let identities = &args.identities;
    if let Some(mail) = ledger.about().options.mail.as_ref().filter(|mail| mail.at_once) {
        let (plan, network) = (settings.mail_plan()?, settings.network.clone());
        return MailSetup::load(mail, plan, identities, network, Some(ledger), world).map(Some);
    }
    if identities.is_empty() {
        return Ok(None);
    }
    let what = "this run mails nothing by itself, so resume needs no identity";
    let hint = format!("{} mails it", run.deliver(&typed::identities(identities)));
    Err(Failure::new(Exit::Usage, what, &[&hint]))
}

/// That cleanup has neither begun nor ended.
async fn not_closed(ledger: &Ledger, run: &RunCommands) -> Result<(), Failure> {
    if ledger.purged().await?.is_some() {
        let hints = ["a new run issues new passes"];
        return Err(Failure::new(Exit::Usage, IssuingError::Closed, &hints));
    }
    match ledger.closed().await? {
        Some(_) => Err(IssuingError::Closed.of(run)),
        None => Ok(()),
    }
}

pub(super) async fn status(args: &StatusArgs, world: &World) -> Result<Exit, Failure> {
    let ledger = world.ledger(&args.run, Access::Read).await?;
    let session = if args.live {
        let settings = world.settings()?;
        Some(world.reconnect(&settings, &ledger, &[Need::ReadPasses]).await?)
    } else {
        None
    };
    let report = &world.report;
    let mut out = BufWriter::new(io::stdout());
    let mut rows = StatusRows::begin(report.is_json(), &ledger.about().recipients, &mut out)?;
    let graph = session.as_ref().map(|session| &session.graph);
    let counts = run::status(&ledger, graph, |row| {
        rows.row(&mut out, &row, |out, row| report.row(out, row), |out| report.row_head(out))
    })
    .await?;
    rows.end(&mut out)?;
    out.flush()?;
    let present = TOLD.into_iter().filter(|standing| counts.of(*standing) > 0);
    let counted: Vec<String> =
        present.map(|standing| format!("{} {}", counts.of(standing), standing.name())).collect();
    report.info(format_args!("{}: {}", ledger.folder().name(), counted.join(", ")));
    report.readers(&ledger.about().recipients);
    if let Some(session) = &session {
        world.warn_of_clocks(session);
    }
    if let Some(next) = held::next(&ledger, &world.typed(ledger.folder())).await? {
        report.next(&[next]);
    }
    Ok(Exit::Done)
}

/// `tapwave.status/1`, written row by row so that memory stays flat.
struct StatusRows {
    json: bool,
    first: bool,
}

impl StatusRows {
    fn begin(json: bool, recipients: &[RecipientRecord], out: &mut impl Write) -> io::Result<Self> {
        if json {
            out.write_all(br#"{"schema":"tapwave.status/1","recipients":"#)?;
            serde_json::to_writer(&mut *out, recipients)?;
            out.write_all(br#","rows":["#)?;
        }
        Ok(Self { json, first: true })
    }

    fn row<W: Write>(
        &mut self,
        out: &mut W,
        row: &RowStatus,
        line: impl FnOnce(&mut W, &RowStatus) -> io::Result<()>,
        head: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        let first = std::mem::take(&mut self.first);
        if self.json {
            out.write_all(if first { b"\n" } else { b",\n" })?;
            return serde_json::to_writer(out, row).map_err(io::Error::from);
        }
        if first {
            head(out)?;
        }
        line(out, row)
    }

    fn end(&self, out: &mut impl Write) -> io::Result<()> {
        if self.json { out.write_all(b"\n]}\n") } else { Ok(()) }
    }
}

pub(super) async fn manifest(args: &ManifestArgs, world: &World) -> Result<Exit, Failure> {
    let ledger = world.ledger(&args.run, Access::Read).await?;
    let about = ledger.about();
    let mut manifest = world.report.manifest(&about.name, about.tenant.as_deref())?;
    let visit = |expected| manifest.pass(&expected).map_err(Failure::from);
    run::manifest::manifest(&ledger, visit).await?;
    manifest.end()?;
    Ok(Exit::Done)
}

pub(super) fn list(world: &World) -> Result<Exit, Failure> {
    world.report.runs(&world.registry()?.list())?;
    Ok(Exit::Done)
}
