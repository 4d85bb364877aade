//! The conductor: promises to take a wave from file to handoff, a run from any state
//! onwards, and a closed run to nothing.
//!
//! `intake` reads and checks, `issuing` schedules the rows that `source` reads, `cleanup` removes,
//! `policy` changes who may have a pass. Talks to people only through a [`Progress`] and the
//! values it returns. Never holds a pass itself.

pub mod cleanup;
pub mod delivering;
mod equal_refusals;
pub mod held;
pub mod intake;
pub mod issuing;
pub mod manifest;
pub mod second_look;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::check::Issuers;
use crate::stop::StopSignal;
use tapwave_core::clock::Clock;
use tapwave_core::ids::{Line, UserId};
use tapwave_core::limits;
use tapwave_core::progress::Progress;
use tapwave_graph::{FoundPass, Graph, GraphError};
use tapwave_ledger::{
    Counts, Ledger, LedgerError, MailRecord, MailState, RowRecord, Standing, State,
};
use tapwave_seal::Prompts;

/// What every command that talks to Graph needs.
#[derive(Clone)]
pub struct Session {
    pub graph: Graph,
    pub clock: Clock,
    /// Who hears how it goes.
    pub watcher: Arc<dyn Progress>,
    /// The wish to stop.
    pub drain: StopSignal,
    /// Who answers for plugins and passphrases.
    pub prompts: Arc<dyn Prompts>,
    /// False if the token is known to lack the permission to read groups.
    pub may_read_groups: bool,
    /// Which runs of this machine issued a pass: what another run knows is not this one's.
    pub issuers: Issuers,
    /// The settling time that rules this command; if `None`, the run's own.
    pub settle_after: Option<Duration>,
    /// Whether rows are asked for however many were refused alike before them.
    pub keeps_going: bool,
    /// When the command began.
    pub began: Instant,
}

/// The summary's shape, by name and version.
const SUMMARY: &str = "tapwave.summary/1";

/// How a command ended, as `tapwave.summary/1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The shape's name and version.
    pub schema: &'static str,
    pub run: String,
    /// Rows of the wave.
    pub rows: u64,
    /// Left out by the check.
    pub ineligible: u64,
    /// Left out because it was asked for.
    pub skipped: u64,
    /// Got a pass from this run, removed ones included.
    pub issued: u64,
    /// Have a live sealed pass that was not mailed.
    pub sealed: u64,
    pub delivered: u64,
    /// How far the notices are, in a run that was asked for them.
    #[serde(flatten)]
    pub notices: Option<Notices>,
    /// Have a live sealed pass, and a mail of unknown fate; `unsettled` counts them too.
    #[serde(skip)]
    pub mailing: u64,
    /// Their pass was removed, and seen to be gone.
    pub removed: u64,
    pub failed: u64,
    pub unsettled: u64,
    /// Wait for an operator.
    pub held: u64,
    /// Were sealed, and their code does not work any more.
    pub lost: u64,
    /// Carry somebody else's live pass, seen by cleanup.
    pub foreign: u64,
    /// HTTP calls of this command.
    pub requests: u64,
    /// Requests that Graph throttled, of this command.
    pub throttled: u64,
    /// How long this command took.
    pub elapsed_seconds: f64,
}

/// How far the notices of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Notices {
    /// Those that a courier took, of passes that are not removed.
    pub notices_sent: u64,
    /// Those of mailed passes that no courier is known to have taken.
    pub notices_open: u64,
}

impl Notices {
    fn of(ledger: &Ledger, counts: &Counts) -> Option<Self> {
        let mail = ledger.about().options.mail.as_ref()?;
        (!mail.notice_to.is_empty()).then_some(Self {
            notices_sent: counts.notices_sent,
            notices_open: counts.notices_open,
        })
    }
}

impl Summary {
    /// Sums a ledger up.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn of(ledger: &Ledger, session: &Session, foreign: u64) -> Result<Self, LedgerError> {
        let counts = ledger.counts().await?;
        let of = |standing| counts.of(standing);
        Ok(Self {
            run: ledger.folder().path().display().to_string(),
            rows: counts.rows(),
            ineligible: of(Standing::Ineligible),
            skipped: of(Standing::Skipped),
            issued: Standing::LIVE.iter().map(|live| of(*live)).sum::<u64>()
                + of(Standing::Lost)
                + of(Standing::Removed)
                - counts.unproven,
            sealed: of(Standing::Sealed) - counts.unproven,
            delivered: of(Standing::Delivered),
            notices: Notices::of(ledger, &counts),
            mailing: of(Standing::Mailing),
            removed: of(Standing::Removed),
            failed: of(Standing::Failed),
            unsettled: of(Standing::Unsettled)
                + of(Standing::Intent)
                + of(Standing::Mailing)
                + counts.unproven,
            held: of(Standing::Held),
            lost: of(Standing::Lost),
            foreign,
            ..Self::of_nothing(session)
        })
    }

    /// The summary of a command without a run.
    #[must_use]
    pub fn of_nothing(session: &Session) -> Self {
        Self {
            schema: SUMMARY,
            run: String::new(),
            rows: 0,
            ineligible: 0,
            skipped: 0,
            issued: 0,
            sealed: 0,
            delivered: 0,
            notices: None,
            mailing: 0,
            removed: 0,
            failed: 0,
            unsettled: 0,
            held: 0,
            lost: 0,
            foreign: 0,
            requests: session.graph.requests(),
            throttled: session.graph.throttled(),
            elapsed_seconds: seconds(session.began.elapsed()),
        }
    }

    /// Whether nobody of a wave got a pass, and nobody is to get one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rows > 0 && self.rows == self.ineligible + self.skipped
    }

    /// Rows that still wait for their pass.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.rows
            - self.ineligible
            - self.skipped
            - self.issued
            - self.failed
            - (self.unsettled - self.mailing)
            - self.held
    }
}

/// One row of `tapwave.status/1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowStatus {
    /// Its line in the wave.
    pub row: Line,
    /// Whom it is for.
    pub user_principal_name: String,
    pub state: &'static str,
    pub method_id: Option<String>,
    pub display_name: Option<String>,
    /// When the pass begins to work.
    pub start_date_time: Option<String>,
    /// Minutes from the start.
    pub lifetime_in_minutes: Option<u32>,
    /// Whether it works once only.
    pub is_usable_once: Option<bool>,
    /// Who can read it.
    pub recipient: Option<String>,
    /// The finished handoff file that holds it.
    pub handoff: Option<String>,
    /// Its latest mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
    /// The notice to somebody else, if it is to have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeStatus>,
    /// Why it stands where it stands.
    pub reason: Option<String>,
    /// What Graph says now, with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
}

/// A row's latest mail: the receipt, never the code.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MailStatus {
    pub to: String,
    /// By what: `smtp` or `graph`.
    pub courier: String,
    /// `pass`, `sealed` or `notice`.
    pub body: String,
    /// With its angle brackets.
    pub message_id: String,
    /// Its `Date` header.
    pub date: String,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// What became of it; absent while that is unknown.
    pub outcome: Option<String>,
    /// The other side's words when it took the mail.
    pub receipt: Option<String>,
    /// When that was known.
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

/// A row's notice.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeStatus {
    /// How far it is.
    pub state: NoticeState,
    pub to: String,
    /// The latest one, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
}

/// How far a row's notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NoticeState {
    /// Its pass has not been mailed.
    Waiting,
    /// It can be sent.
    Due,
    /// It is about to go out.
    Mailing,
    /// Nobody knows whether it went out.
    Unsettled,
    /// The other side refused it for good.
    Refused,
    /// A courier took it.
    Sent,
    /// Its pass was removed before it went out.
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

/// What Graph says of a row's pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Live {
    /// It works now and has not been used up.
    Usable,
    /// It will work later.
    NotYet,
    /// A one-time pass that has been used.
    Used,
    /// Its time is over.
    Expired,
    /// It is there, but the policy does not let it work.
    Disabled,
    /// It is not there any more.
    Gone,
    /// Another pass is there instead.
    Replaced,
    /// Graph would not tell.
    Unknown,
}

impl RowStatus {
    fn of(row: &RowRecord, labels: &[String], live: Option<Live>) -> Self {
        let issued = row.issued.as_ref();
        // A row that no check let in has none; one that is broken says so where it is used.
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

/// Visits where every row stands, in the wave's order. With `graph`, asks which passes live.
///
/// # Errors
/// [`StatusError`], also what `visit` returns.
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

/// Why the status could not be told to its end.
#[derive(Debug, thiserror::Error)]
pub enum StatusError<E> {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Whoever took the rows stopped.
    #[error("stopped")]
    Stopped(E),
}

type LivePasses = Option<Option<FoundPass>>;

/// What each row with a pass has now; nothing, if Graph will not tell or cannot be asked.
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

/// Seconds to the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
