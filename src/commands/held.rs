//! `resume --remove-found`: a person says that the pass which holds a row is this run's own.
//!
//! Must never delete a pass that was not shown, or unasked.

use super::failure::OfRun;
use super::typed::RunCommands;
use super::{Failure, World};
use crate::output::{count, shown};
use tapwave_core::exit::Exit;
use tapwave_core::limits;
use tapwave_graph::FoundPass;
use tapwave_ledger::{Ledger, LedgerError, Standing};
use tapwave_pipeline::reconcile::Reconciled;
use tapwave_pipeline::run::Session;
use tapwave_pipeline::run::held::{self, FoundError, Held};

/// What says of held rows what the pass is that holds them, if there are any. People are named
/// only where they are few enough to be looked at one by one.
pub(super) async fn next(
    ledger: &Ledger,
    run: &RunCommands,
) -> Result<Option<(String, &'static str)>, LedgerError> {
    let rows = ledger.rows(&[Standing::Held], None, limits::HELD_NAMED).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let upns: Vec<String> = rows.into_iter().map(|row| row.upn).collect();
    let does =
        "deletes the pass that holds each, if you know it is nobody else's, and issues another";
    Ok(Some((run.resume_without(&upns), does)))
}

/// Deletes the passes that hold these people's rows, after asking. False if the answer was no.
pub(super) async fn removed(
    upns: &[String],
    ledger: &Ledger,
    session: &Session,
    run: &RunCommands,
    world: &World,
) -> Result<bool, Failure> {
    if upns.is_empty() {
        return Ok(true);
    }
    let rows = held::held(ledger, session, upns).await.map_err(|error| match error {
        FoundError::NotHeld { .. } => {
            let hint = format!("{} shows every row and how far it is", run.status());
            Failure::new(Exit::Usage, error, &[&hint])
        }
        FoundError::Run(error) => error.of(run),
    })?;
    world.warn_of_clocks(session);
    let mut passes = Vec::new();
    for row in &rows {
        world.report.info(described(row));
        match (&row.pass, &row.issuer) {
            (Some(pass), None) => passes.push((row, pass)),
            (Some(_), Some(issuer)) => {
                let what = format!("the pass of {} is of run {}", shown(&row.upn), shown(issuer));
                let hint = "clean that run up, or leave the person out";
                return Err(Failure::new(Exit::Usage, what, &[hint]));
            }
            (None, _) => {}
        }
    }
    if passes.is_empty() {
        return Ok(true);
    }
    let question = format!(
        "delete {} and end what was signed in with them, then issue anew",
        count(passes.len() as u64, "such pass", "such passes")
    );
    if !world.common.yes {
        match world.prompts.yes_or_no(&format!("{question}?")) {
            Some(true) => {}
            Some(false) => {
                world.report.info("nothing was changed");
                return Ok(false);
            }
            None => return Err(Failure::nobody_to_ask(&format!("this would {question}"))),
        }
    }
    for (row, pass) in passes {
        let settled = held::remove(ledger, session, row.line, pass).await;
        match settled.map_err(|error| error.of(run))? {
            Reconciled::Free | Reconciled::Sealed => {}
            Reconciled::Held { why } | Reconciled::Behind { why } => {
                world.report.error(format_args!("{}: {}", shown(&row.upn), shown(&why)));
            }
        }
    }
    Ok(true)
}

/// A held row and its pass, as a person needs to see them before it is deleted.
fn described(row: &Held) -> String {
    let about = format!("line {}, {}", row.line, shown(&row.upn));
    let Some(pass) = &row.pass else {
        return format!("{about}: Graph lists no pass, so there is none to delete");
    };
    let FoundPass { id, created_date_time, lifetime_in_minutes, .. } = pass;
    let made = created_date_time.map(|at| format!(", made {at}")).unwrap_or_default();
    let lives = lifetime_in_minutes.map(|it| format!(", {it} minutes")).unwrap_or_default();
    let used = if pass.is_used() { ", used already" } else { "" };
    format!("{about}: pass {id}{made}{lives}{used}")
}
