//! Promises the list of passes that an audit log should show for a run, and no others.
//!
//! Holds no code, only what Microsoft's own log names too.

use jiff::Timestamp;
use serde::Serialize;

use tapwave_core::clock::later;
use tapwave_core::ids::{ClientRequestId, Line, UserId};
use tapwave_core::limits;
use tapwave_ledger::{Ledger, LedgerError, RowRecord, Standing};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    pub row: Line,
    pub user_id: UserId,
    pub user_principal_name: String,
    /// `None` while it is unknown whether there is a pass.
    pub method_id: Option<String>,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub is_usable_once: bool,
    pub client_request_id: ClientRequestId,
    pub state: &'static str,
}

/// Visits every expected pass, in the wave's order.
pub async fn manifest<E: From<LedgerError>>(
    ledger: &Ledger,
    mut visit: impl FnMut(Expected) -> Result<(), E>,
) -> Result<(), E> {
    let mut pages = ledger.pages(&Standing::MAY_HAVE_OWNED, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            if let Some(expected) = expected(row)? {
                visit(expected)?;
            }
        }
    }
    Ok(())
}

/// `None` if the row's intent is known to have made nothing, or it had none.
fn expected(row: &RowRecord) -> Result<Option<Expected>, LedgerError> {
    if row.issued.is_none() && row.state.standing() == Standing::Failed {
        return Ok(None);
    }
    let intent = row.attempt()?;
    let user_id = row.person()?.user;
    let issued = row.issued.as_ref();
    let asked = &intent.asked;
    let start = issued.and_then(|issued| issued.start).or(asked.start);
    let window_start = start.unwrap_or(intent.graph_time);
    let lifetime = issued.map_or(asked.lifetime_minutes, |issued| issued.lifetime_minutes);
    let lifetime = std::time::Duration::from_secs(u64::from(lifetime) * 60);
    Ok(Some(Expected {
        row: row.line,
        user_id,
        user_principal_name: row.upn.clone(),
        method_id: issued.map(|issued| issued.method.to_string()),
        window_start,
        window_end: later(window_start, lifetime),
        is_usable_once: issued.map_or(asked.one_time, |issued| issued.one_time),
        client_request_id: ClientRequestId::of_intent(user_id, intent.id.0, intent.graph_time),
        state: row.state.name(),
    }))
}
