//! Promises what `tapwave status` shows of each row, and what a live look at Graph adds.

use std::collections::BTreeMap;

use serde::Serialize;

use tapwave_core::ids::{Line, UserId};
use tapwave_core::limits;
use tapwave_graph::{FoundPass, Graph, GraphError};
use tapwave_ledger::{
    Counts, Ledger, LedgerError, MailRecord, MailState, RowRecord, Standing, State,
};

/// One row of `tapwave.status/1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowStatus {
    pub row: Line,
    pub user_principal_name: String,
    pub state: &'static str,
    pub method_id: Option<String>,
    pub display_name: Option<String>,
    pub start_date_time: Option<String>,
    pub lifetime_in_minutes: Option<u32>,
    pub is_usable_once: Option<bool>,
    pub recipient: Option<String>,
    /// The handoff file that holds it.
    pub handoff: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeStatus>,
    pub reason: Option<String>,
    /// With `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailStatus {
    pub to: String,
    /// `smtp` or `graph`.
    pub courier: String,
    /// `pass`, `sealed` or `notice`.
    pub body: String,
    pub message_id: String,
    pub date: String,
    pub digest: String,
    /// Absent while it is unknown.
    pub outcome: Option<String>,
    pub receipt: Option<String>,
    pub ended_at: Option<String>,
}

impl MailStatus {
    fn of(mail: &MailRecord) -> Self {
        let posted = &mail.posted;
        Self {
            to: posted.to.clone(),
            courier: posted.courier.clone(),
            body: posted.body.clone(),
            message_id: posted.message_id.clone(),
            date: posted.date.to_string(),
            digest: posted.digest.clone(),
            outcome: mail.outcome.clone(),
            receipt: mail.receipt.clone(),
            ended_at: mail.ended.map(|at| at.to_string()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeStatus {
    pub state: NoticeState,
    pub to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NoticeState {
    /// The pass has not been mailed.
    Waiting,
    Due,
    Mailing,
    Unsettled,
    Refused,
    Sent,
    /// The pass was removed first.
    Dropped,
}

impl NoticeStatus {
    fn of(row: &RowRecord) -> Option<Self> {
        let reader = row.notice_reader.as_ref()?;
        let mail = row.notice.as_ref();
        let state = match &row.state {
            State::Sealed { .. } | State::Mailing { .. } => NoticeState::Waiting,
            State::Delivered { notice, .. } => match notice.as_ref()? {
                MailState::Due if mail.is_some_and(MailRecord::is_refused) => NoticeState::Refused,
                MailState::Due => NoticeState::Due,
                MailState::Open(mail) if mail.lost => NoticeState::Unsettled,
                MailState::Open(_) => NoticeState::Mailing,
                MailState::Done => NoticeState::Sent,
            },
            State::Lost { .. } | State::Removed { .. } => match mail {
                Some(mail) if mail.is_taken() => NoticeState::Sent,
                Some(mail) if mail.is_lost() => NoticeState::Unsettled,
                _ => NoticeState::Dropped,
            },
            _ => return None,
        };
        let to = mail.map_or(&reader.address, |mail| &mail.posted.to).clone();
        Some(Self { state, to, mail: mail.map(MailStatus::of) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Live {
    Usable,
    NotYet,
    Used,
    Expired,
    Disabled,
    Gone,
    Replaced,
    Unknown,
}

impl RowStatus {
    fn of(row: &RowRecord, labels: &[String], live: Option<Live>) -> Self {
        let issued = row.issued.as_ref();
        // A row that did not pass the check has none; a broken one is reported where it is used.
        let set = row.person().ok().map(|person| person.set as usize);
        let recipient = set.and_then(|set| labels.get(set)).cloned();
        Self {
            row: row.line,
            user_principal_name: row.upn.clone(),
            state: row.state.name(),
            method_id: issued.map(|issued| issued.method.to_string()),
            display_name: row.display_name.clone(),
            start_date_time: issued.and_then(|issued| issued.start).map(|start| start.to_string()),
            lifetime_in_minutes: issued.map(|issued| issued.lifetime_minutes),
            is_usable_once: issued.map(|issued| issued.one_time),
            recipient,
            handoff: row.handoff.clone(),
            mail: row.mail.as_ref().map(MailStatus::of),
            notice: NoticeStatus::of(row),
            reason: row.reason.clone(),
            live,
        }
    }
}

/// Visits every row in the wave's order. With `graph`, also asks what became of its pass.
pub async fn status<E>(
    ledger: &Ledger,
    graph: Option<&Graph>,
    mut visit: impl FnMut(RowStatus) -> Result<(), E>,
) -> Result<Counts, StatusError<E>> {
    let labels: Vec<String> =
        ledger.about().recipients.iter().map(|record| record.label.clone()).collect();
    let mut pages = ledger.pages(&Standing::ALL, limits::ROWS_PER_CHECK);
    while let Some(rows) = pages.next().await? {
        let found = match graph {
            Some(graph) => live_passes(graph, &rows).await?,
            None => BTreeMap::new(),
        };
        for row in &rows {
            let live = found.get(&row.line).map(|found| live(row, found));
            visit(RowStatus::of(row, &labels, live)).map_err(StatusError::Stopped)?;
        }
    }
    Ok(ledger.counts().await?)
}

#[derive(Debug, thiserror::Error)]
pub enum StatusError<E> {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// `visit` failed.
    #[error("stopped")]
    Stopped(E),
}

type LivePasses = Option<Option<FoundPass>>;

/// What Graph lists for each row with a pass; `None` if it cannot be asked.
async fn live_passes(
    graph: &Graph,
    rows: &[RowRecord],
) -> Result<BTreeMap<Line, LivePasses>, GraphError> {
    let mut asked: Vec<(Line, UserId)> = Vec::new();
    let mut found = BTreeMap::new();
    for row in rows.iter().filter(|row| row.issued.is_some()) {
        match row.person() {
            Ok(person) => asked.push((row.line, person.user)),
            Err(_) => drop(found.insert(row.line, None)),
        }
    }
    let users: Vec<UserId> = asked.iter().map(|(_, user)| *user).collect();
    let passes = graph.passes(&users).await?;
    found.extend(asked.into_iter().map(|(line, _)| line).zip(passes.into_iter().map(Result::ok)));
    Ok(found)
}

fn live(row: &RowRecord, found: &LivePasses) -> Live {
    let Some(found) = found else { return Live::Unknown };
    let Some(pass) = found else { return Live::Gone };
    if row.issued.as_ref().is_none_or(|issued| issued.method != pass.id) {
        return Live::Replaced;
    }
    match pass.method_usability_reason.as_deref() {
        Some("OneTimeUsed") => Live::Used,
        Some("Expired") => Live::Expired,
        Some("NotYetValid") => Live::NotYet,
        Some("DisabledByPolicy") => Live::Disabled,
        Some("EnabledByPolicy") => Live::Usable,
        _ if pass.is_usable == Some(true) => Live::Usable,
        _ => Live::Unknown,
    }
}
