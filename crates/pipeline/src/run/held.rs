//! Promises that a pass that holds a row is deleted only if a person was shown that very pass and
//! agreed, and that the row may be tried again afterwards.
//!
//! Only a person can tell whose a pass is when the clocks disagree. Must never choose a row or a
//! pass by itself.

use super::Session;
use super::inherited::unproven_rows;
use crate::reconcile::Reconciled;
use crate::worker::RunError;
use tapwave_core::ids::{Line, MethodId};
use tapwave_graph::{FoundPass, GraphError};
use tapwave_ledger::{Ledger, RowRecord, Standing};

#[derive(Debug)]
pub struct Held {
    pub line: Line,
    pub upn: String,
    pub reason: String,
    pub pass: Option<FoundPass>,
    /// The other run of this machine that issued it, if one did.
    pub issuer: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    #[error("no row of this run is held for {upn}")]
    NotHeld { upn: String },
    #[error(transparent)]
    Run(#[from] RunError),
}

pub async fn held(
    ledger: &Ledger,
    session: &Session,
    upns: &[String],
) -> Result<Vec<Held>, FoundError> {
    let all = unproven_rows(ledger, &[Standing::Held]).await.map_err(RunError::from)?;
    let mut rows: Vec<&RowRecord> = Vec::with_capacity(upns.len());
    for upn in upns {
        let is_named = |row: &&RowRecord| row.upn.to_lowercase() == upn.to_lowercase();
        let row = all.iter().find(is_named);
        rows.push(row.ok_or_else(|| FoundError::NotHeld { upn: upn.clone() })?);
    }
    let users = rows.iter().map(|row| row.person().map(|person| person.user));
    let users = users.collect::<Result<Vec<_>, _>>().map_err(RunError::from)?;
    let passes = session.graph.passes(&users).await.map_err(RunError::from)?;
    let mut held = Vec::with_capacity(rows.len());
    for (row, pass) in rows.into_iter().zip(passes) {
        let doing = "list passes";
        let pass =
            pass.map_err(|refusal| RunError::from(GraphError::Refused { doing, refusal }))?;
        let id: Option<MethodId> = pass.as_ref().map(|pass| pass.id.clone());
        let issuer = id.and_then(|id| (session.issuers)(std::slice::from_ref(&id)).remove(&id));
        let reason = row.reason.clone().unwrap_or_default();
        held.push(Held { line: row.line, upn: row.upn.clone(), reason, pass, issuer });
    }
    Ok(held)
}

/// Deletes the pass of a held row that was shown.
pub async fn remove(
    ledger: &Ledger,
    session: &Session,
    line: Line,
    shown: &FoundPass,
) -> Result<Reconciled, RunError> {
    session.stop.begin_work();
    session.worker(ledger).remove_found(line, shown).await
}
