//! Promises that what an earlier process left without a known outcome is looked at before anybody
//! relies on it.

use futures::stream::{FuturesUnordered, TryStreamExt};
use tokio::time::Instant;

use super::Session;
use super::pending::{Look, PendingLooks, ScheduledLook};
use crate::reconcile::Reconciled;
use crate::worker::{RunError, Worker};
use tapwave_core::ids::Line;
use tapwave_core::limits;
use tapwave_core::progress::ProgressEvent;
use tapwave_ledger::{Ledger, LedgerError, RowRecord, Standing, State};

/// Whether passes are sealed and unconfirmed, because a process did not end in order.
pub async fn is_doubted(ledger: &Ledger) -> Result<bool, LedgerError> {
    Ok(!unproven_rows(ledger, &[Standing::Sealed]).await?.is_empty())
}

/// Looks again at those passes and at nothing else: a live pass is confirmed, a row without one
/// may be tried again.
pub async fn verify(ledger: &Ledger, session: &Session) -> Result<(), RunError> {
    let worker = session.worker(ledger);
    let mut pending = PendingLooks::default();
    let mut lines = verify_all(&worker, session).await?;
    loop {
        let next =
            lines.iter().map(|line| pending.next_look_at(*line, Look::VerifyInherited, &worker));
        let Some(next) = next.min() else { return Ok(()) };
        pending.report(&worker, session);
        if session.stop.comes_before(&session.clock, next).await {
            return Ok(());
        }
        for line in std::mem::take(&mut lines) {
            if pending.is_last(line, &worker) {
                worker.give_up_on(line, true).await?;
            } else if is_behind(&verify_one(&worker, session, line).await?) {
                lines.push(line);
                continue;
            }
            pending.remove(line);
        }
    }
}

/// Looks once at every unconfirmed pass; returns the rows whose pass is not listed, and may be
/// there all the same.
pub(super) async fn verify_all(worker: &Worker, session: &Session) -> Result<Vec<Line>, RunError> {
    let looks = FuturesUnordered::new();
    for row in unproven_rows(&worker.ledger, &[Standing::Sealed]).await? {
        let line = row.line;
        looks.push(async move {
            let behind = is_behind(&verify_one(worker, session, line).await?);
            Ok::<_, RunError>(behind.then_some(line))
        });
    }
    looks.try_filter_map(async |line| Ok(line)).try_collect().await
}

async fn verify_one(
    worker: &Worker,
    session: &Session,
    line: Line,
) -> Result<Reconciled, RunError> {
    let reconciled = worker.verify(line).await?;
    if let Reconciled::Held { why } = &reconciled {
        let upn = worker.row(line).await?.upn;
        session.report(ProgressEvent::RowHeld { line, upn, why: why.clone() });
    }
    Ok(reconciled)
}

const fn is_behind(reconciled: &Reconciled) -> bool {
    matches!(reconciled, Reconciled::Behind { .. })
}

/// The rows whose attempt has no known outcome, and when each may be reconciled.
pub(super) async fn lost_attempts(
    worker: &Worker,
    started: Instant,
) -> Result<Vec<ScheduledLook>, RunError> {
    let mut looks = Vec::new();
    let states = [Standing::Intent, Standing::Unsettled];
    for row in unproven_rows(&worker.ledger, &states).await? {
        worker.mark_lost(&row).await?;
        let at = worker.settled_from(row.attempt()?, started);
        looks.push(ScheduledLook { line: row.line, at, purpose: Look::Reconcile });
    }
    Ok(looks)
}

/// The rows in these states whose pass is not sealed and proven: few, unlike those left out.
pub(super) async fn unproven_rows(
    ledger: &Ledger,
    states: &[Standing],
) -> Result<Vec<RowRecord>, LedgerError> {
    let mut unproven = Vec::new();
    let mut pages = ledger.pages(states, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        let is_proven = |row: &RowRecord| matches!(row.state, State::Sealed { proven: true, .. });
        unproven.extend(rows.into_iter().filter(|row| !is_proven(row)));
    }
    Ok(unproven)
}
