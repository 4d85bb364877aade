//! Promises that cleanup closes the run, removes exactly what it issued, proves it, and then
//! destroys the sealed copies, in this order.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::Session;
use super::handoff::{blocking, digest};
use super::intake::IntakeError;
use super::pending::LookReport;
use crate::cleanup::{self, Cleaned, CleanupOutcome, Doubt};
use crate::reconcile::{absence_patience, settles_in};
use crate::wave::{self, WaveItem, WaveReader};
use crate::worker::RunError;
use tapwave_core::backoff::exponential;
use tapwave_core::clock::later;
use tapwave_core::ids::{Line, MethodId, Upn};
use tapwave_core::limits;
use tapwave_core::progress::Activity;
use tapwave_graph::{Graph, GraphError};
use tapwave_ledger::{HandoffRecord, Ledger, LedgerError, Pages, Proof, Remains, Standing};

/// How a cleanup ended.
#[derive(Debug, Default)]
pub struct CleanupReport {
    pub removed: u64,
    /// Rows proven to be gone without a DELETE of this cleanup.
    pub already: u64,
    /// Rows of which a pass may be alive.
    pub left: Vec<UnprovenRow>,
    /// Those of them that were reported before.
    pub reported: BTreeSet<Line>,
    pub unknown: u64,
    /// Whether Graph finds none of the run's people.
    pub wrong_tenant: bool,
    pub remaining: u64,
    pub foreign: Vec<(Line, String)>,
    /// Whether the operator stopped it early.
    pub interrupted: bool,
    /// Sealed copies that were destroyed; `None` if they were kept.
    pub purged: Option<u64>,
    pub files: u64,
    /// Handoff files that were changed since, and are kept.
    pub changed: Vec<PathBuf>,
    /// Unknown files beside them, which are kept.
    pub unrecorded: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnprovenRow {
    pub line: Line,
    pub upn: String,
    pub why: String,
}

impl CleanupReport {
    pub fn is_proven(&self) -> bool {
        self.left.is_empty() && self.remaining == 0 && !self.interrupted
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("failed to delete {path}: {source}; the passes are removed, delete the file by hand")]
    Handoff { path: PathBuf, source: io::Error },
}

impl From<GraphError> for CleanupError {
    fn from(error: GraphError) -> Self {
        Self::Run(error.into())
    }
}

/// Cleans up a run. It is closed first, so that no resume issues anything; cleanup may be run again
/// from wherever it stopped.
pub async fn run(
    ledger: &Ledger,
    session: &Session,
    keep_sealed: bool,
) -> Result<CleanupReport, CleanupError> {
    session.stop.begin_work();
    let was_closed = ledger.closed().await?.is_some();
    ledger.close().await?;
    if let Ok(folder) = ledger.folder().handoff() {
        // If that fails, passes must be removed all the same.
        let _ = tapwave_seal::remove_unfinished(&folder);
    }
    let worker = session.worker(ledger);
    for line in ledger.lines(Standing::Intent).await? {
        match ledger.row(line).await {
            Ok(Some(row)) => worker.mark_lost(&row).await?,
            // Its attempt may live: it is reported as left.
            Ok(None) | Err(LedgerError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if ledger.has_open_attempts().await? {
        // Old attempts are judged by Graph's clock.
        session.graph.ask_the_time().await?;
    }
    let total = ledger.remaining().await?;
    session.begin(Activity::Remove, Some(total));
    let mut queue = CleanupQueue::new(Some(ledger), session, worker.settle_after);
    let cleared = queue.whole_run(ledger).await;
    session.end(Activity::Remove);
    cleared?;
    let mut outcome = queue.end();
    outcome.remaining = ledger.remaining().await?;
    if outcome.remaining == 0 && !session.stop.is_requested() {
        outcome.left.extend(contradictions(ledger).await?);
    }
    outcome.interrupted |= session.stop.is_requested() && outcome.remaining > 0;
    let somebody_known = outcome.removed + outcome.already > 0
        || ledger.counts().await?.of(Standing::Removed) > 0
        || !outcome.foreign.is_empty();
    outcome.wrong_tenant =
        outcome.unknown > 0 && outcome.unknown == outcome.remaining && !somebody_known;
    if outcome.wrong_tenant && !was_closed {
        ledger.reopen().await?;
    }
    if outcome.is_proven() && !keep_sealed {
        delete_handoffs(ledger, &mut outcome).await?;
        outcome.purged = Some(ledger.purge_sealed().await?);
    }
    Ok(outcome)
}

/// Rows on which the ledger's tables disagree, and rows that own a pass or an attempt without a
/// record of it. Nothing about them can be proven.
async fn contradictions(ledger: &Ledger) -> Result<Vec<UnprovenRow>, LedgerError> {
    let left = |line, upn: &str, why: String| UnprovenRow {
        line,
        upn: upn.to_owned(),
        why: format!("{why}: the ledger is damaged; look at this person in Entra"),
    };
    let mut found = BTreeMap::new();
    for (line, upn, why) in ledger.contradictions().await? {
        found.insert(line, left(line, &upn, why));
    }
    let mut pages = ledger.pages(&Standing::MAY_OWN, limits::ROWS_PER_READ);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let state = row.state.name();
            let why = format!("it is {state}, and no pass or attempt of it is recorded");
            found.insert(row.line, left(row.line, &row.upn, why));
        }
    }
    Ok(found.into_values().collect())
}

/// Clears rows, and looks again where one look proves nothing.
pub(super) struct CleanupQueue<'a> {
    ledger: Option<&'a Ledger>,
    session: &'a Session,
    settle_after: Duration,
    began: Instant,
    waiting: BTreeMap<Line, Waiting>,
    outcome: CleanupReport,
}

struct Waiting {
    due: Instant,
    looks: u32,
    /// When the last look is due; unknown while an attempt may still execute.
    until: Option<Instant>,
    /// Whether the last look is over.
    exhausted: bool,
    doubt: Option<Doubt>,
    upn: String,
    /// Passes whose DELETE Graph answered with 204.
    deleted: Vec<MethodId>,
    remains: Option<Remains>,
}

impl<'a> CleanupQueue<'a> {
    pub(super) fn new(
        ledger: Option<&'a Ledger>,
        session: &'a Session,
        settle_after: Duration,
    ) -> Self {
        Self {
            ledger,
            session,
            settle_after,
            began: session.clock.instant(),
            waiting: BTreeMap::new(),
            outcome: CleanupReport::default(),
        }
    }

    async fn whole_run(&mut self, ledger: &Ledger) -> Result<(), RunError> {
        let mut pages =
            Pages::new(async |after| ledger.remains(after, limits::ROWS_PER_CHECK).await);
        self.look_at_all(async || Ok(pages.next().await?)).await?;
        // A pass that was given up may be listed by now.
        let mut pages =
            Pages::new(async |after| ledger.given_up(after, limits::ROWS_PER_CHECK).await);
        self.look_at_all(async || Ok(pages.next().await?)).await?;
        self.look_again().await
    }

    /// Looks at these rows once, and schedules another look where needed.
    pub(super) async fn look(&mut self, rows: Vec<Remains>) -> Result<(), RunError> {
        let mut page = Some(rows);
        self.look_at_all(async || Ok(page.take())).await
    }

    /// Looks at the rows of every page once, at several pages side by side.
    async fn look_at_all(
        &mut self,
        mut next_page: impl AsyncFnMut() -> Result<Option<Vec<Remains>>, RunError>,
    ) -> Result<(), RunError> {
        let (session, ledger, settle_after) = (self.session, self.ledger, self.settle_after);
        let was_cut_short = Cell::new(false);
        let mut clearing = FuturesUnordered::new();
        let (mut is_over, mut failed) = (false, None);
        loop {
            while !is_over && clearing.len() < limits::PAGES_IN_FLIGHT {
                let page = if session.stop.is_requested() { None } else { next_page().await? };
                let Some(rows) = page else {
                    is_over = true;
                    break;
                };
                let settled = self.set_unsettled_aside(rows);
                let (graph, issuers) = (&session.graph, &session.issuers);
                // Requests not answered by then wait for the limiter.
                let stopped = async {
                    session.stop.grace_over(&session.clock).await;
                    was_cut_short.set(true);
                };
                clearing.push(cleanup::clear(
                    graph,
                    ledger,
                    settled,
                    settle_after,
                    issuers,
                    stopped,
                ));
            }
            match clearing.next().await {
                Some(Ok(rows)) => rows.into_iter().for_each(|one| self.take(one)),
                // The other pages are cleared to their end, or to theirs.
                Some(Err(error)) => (is_over, failed) = (true, failed.or(Some(error))),
                None => break,
            }
        }
        // What Graph has deleted counts, but nobody has looked again.
        self.outcome.interrupted |= was_cut_short.get();
        failed.map_or(Ok(()), Err)
    }

    /// The rows that may be looked at now; the others wait until their attempts are settled.
    fn set_unsettled_aside(&mut self, rows: Vec<Remains>) -> Vec<Remains> {
        let (settled, unsettled): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| self.settled_at(row) <= self.session.clock.instant());
        for row in unsettled {
            let due = self.settled_at(&row);
            let (line, upn) = (row.line, row.upn.clone());
            let remains = self.ledger.is_none().then_some(row);
            let (until, exhausted, doubt) = (None, false, None);
            let deleted = Vec::new();
            let waiting = Waiting { due, looks: 0, until, exhausted, doubt, upn, deleted, remains };
            self.waiting.insert(line, waiting);
        }
        settled
    }

    /// When none of a row's attempts may execute any more: as both clocks say, and at the latest a
    /// settling time after this process began.
    fn settled_at(&self, row: &Remains) -> Instant {
        let now = self.session.clock.instant();
        let wait = settles_in(row, self.settle_after, self.session.graph.clocks());
        (now + wait).min(now.max(self.began + self.settle_after))
    }

    fn take(&mut self, cleaned: Cleaned) {
        let Cleaned { remains, outcome, foreign } = cleaned;
        let (line, upn) = (remains.line, remains.upn.clone());
        let before = self.waiting.remove(&line);
        if self.ledger.is_none() && foreign.is_some() {
            // The operator has not agreed to remove this one.
            let why =
                "another pass is on the user now, which was not listed before; run cleanup again";
            self.outcome.left.push(UnprovenRow { line, upn, why: why.to_owned() });
            self.session.advance(Activity::Remove, 1);
            return;
        }
        if foreign.is_some() && !self.outcome.foreign.iter().any(|(known, _)| *known == line) {
            self.outcome.foreign.push((line, upn.clone()));
        }
        match outcome {
            CleanupOutcome::Gone(Proof::Deleted) => self.outcome.removed += 1,
            CleanupOutcome::Gone(_) => self.outcome.already += 1,
            CleanupOutcome::StillGone => return,
            CleanupOutcome::Left { why } => self.outcome.left.push(UnprovenRow { line, upn, why }),
            CleanupOutcome::Doubtful(doubt) => {
                let waiting = self.again(doubt, before.as_ref(), remains);
                self.waiting.insert(line, waiting);
                return;
            }
        }
        self.session.advance(Activity::Remove, 1);
    }

    /// When a row is looked at again: the waits double until the last look is due.
    fn again(&self, doubt: Doubt, before: Option<&Waiting>, remains: Remains) -> Waiting {
        let now = self.session.clock.instant();
        let looks = before.map_or(0, |before| before.looks) + 1;
        let until = self.last_look(doubt, before, &remains);
        let wait = exponential(limits::BETWEEN_LOOKS, looks - 1, Duration::MAX);
        let (due, exhausted) = match doubt {
            Doubt::Found => (now, looks >= limits::MOST_LOOKS),
            _ => ((now + wait).min(until), now >= until || looks >= limits::MOST_LOOKS),
        };
        let (upn, deleted) = (remains.upn.clone(), remains.deleted.clone());
        let remains = self.ledger.is_none().then_some(remains);
        let (until, doubt) = (Some(until), Some(doubt));
        Waiting { due, looks, until, exhausted, doubt, upn, deleted, remains }
    }

    /// When the last look is due.
    fn last_look(&self, doubt: Doubt, before: Option<&Waiting>, remains: &Remains) -> Instant {
        let now = self.session.clock.instant();
        let settled = absence_patience(self.settle_after);
        let since = |doubt| {
            let same = before.filter(|before| before.doubt == Some(doubt));
            same.and_then(|before| before.until)
        };
        match (doubt, remains.absent_since) {
            (Doubt::NotListed, Some(since)) => {
                let clocks = self.session.graph.clocks();
                let left = |since, now| tapwave_core::clock::span(now, later(since, settled));
                let machine = remains.absent_at.unwrap_or(clocks.machine);
                // Bounded, in case a clock was set back.
                now + left(since, clocks.graph).max(left(machine, clocks.machine)).min(settled)
            }
            // A deleted user does not come back, and a new one is known soon.
            (Doubt::UserUnknown, _) => since(doubt).unwrap_or(now + limits::UNKNOWN_USER_PATIENCE),
            _ => since(doubt).unwrap_or(now + settled),
        }
    }

    /// Looks again until nothing waits, or the operator stops it.
    pub(super) async fn look_again(&mut self) -> Result<(), RunError> {
        let mut report = LookReport::default();
        loop {
            self.give_up().await?;
            let Some(due) = self.waiting.values().map(|waiting| waiting.due).min() else {
                return Ok(());
            };
            self.report_looks(&mut report);
            if self.session.stop.comes_before(&self.session.clock, due).await {
                return Ok(());
            }
            // Rows that are nearly due share the batch.
            let horizon = self.session.clock.instant() + limits::BETWEEN_LOOKS / 2;
            let lines: Vec<Line> = self
                .waiting
                .iter()
                .filter(|(_, waiting)| waiting.due <= horizon)
                .map(|(line, _)| *line)
                .collect();
            for some in lines.chunks(limits::ROWS_PER_CHECK) {
                if self.session.stop.is_requested() {
                    return Ok(());
                }
                let rows = self.known(some).await?;
                self.look(rows).await?;
            }
        }
    }

    async fn known(&self, lines: &[Line]) -> Result<Vec<Remains>, LedgerError> {
        if let Some(ledger) = self.ledger {
            let mut rows = ledger.remains_of(lines.to_vec()).await?;
            for row in &mut rows {
                let known = self.waiting.get(&row.line);
                row.deleted = known.map(|known| known.deleted.clone()).unwrap_or_default();
            }
            return Ok(rows);
        }
        let waiting = lines.iter().map(|line| self.waiting.get(line));
        let kept = waiting.map(|waiting| waiting.and_then(|one| one.remains.clone()));
        let none = |line: &Line| LedgerError::UnknownLine(*line);
        kept.zip(lines).map(|(kept, line)| kept.ok_or_else(|| none(line))).collect()
    }

    /// Reports rows whose last look proved nothing.
    async fn give_up(&mut self) -> Result<(), LedgerError> {
        let exhausted = self.waiting.iter().filter(|(_, waiting)| waiting.exhausted);
        let lines: Vec<Line> = exhausted.map(|(line, _)| *line).collect();
        for line in lines {
            let Some(waiting) = self.waiting.remove(&line) else { continue };
            // Graph's 204 is proof, however long a list shows the pass.
            if waiting.doubt == Some(Doubt::Behind) && !waiting.deleted.is_empty() {
                self.take_as_deleted(line).await?;
            } else {
                self.leave(line, waiting);
            }
        }
        Ok(())
    }

    async fn take_as_deleted(&mut self, line: Line) -> Result<(), LedgerError> {
        if let Some(ledger) = self.ledger {
            for row in ledger.remains_of(vec![line]).await? {
                ledger.record(line, cleanup::deleted_but_listed(&row)).await?;
            }
        }
        self.outcome.removed += 1;
        self.session.advance(Activity::Remove, 1);
        Ok(())
    }

    fn leave(&mut self, line: Line, waiting: Waiting) {
        let Waiting { doubt, upn, .. } = waiting;
        self.outcome.unknown += u64::from(doubt == Some(Doubt::UserUnknown));
        let why = match doubt {
            None => "an attempt of it may still be carried out; run cleanup again later",
            Some(Doubt::NotListed) => {
                "its pass is not listed, and may be there all the same: lists may lag; run cleanup again"
            }
            Some(Doubt::Behind | Doubt::Found) => "the pass is still listed; run cleanup again",
            Some(Doubt::Unclear) => {
                "a pass is on the user that may be this run's own, of an attempt whose answer was lost: look at this person in Entra; once that pass is deleted there, or over, run cleanup again"
            }
            Some(Doubt::UserUnknown) => {
                "the user is no longer in this tenant, or not yet known to all of it, so that nothing can be said of the pass; a deleted user can be restored for 30 days, perhaps with the pass: run cleanup again then"
            }
        };
        self.outcome.left.push(UnprovenRow { line, upn, why: why.to_owned() });
    }

    fn report_looks(&self, report: &mut LookReport) {
        let now = self.session.clock.instant();
        let slow = |waiting: &&Waiting| waiting.looks == 0 || waiting.looks >= limits::LOOKS;
        let ends = self.waiting.values().filter(slow);
        let Some(last) = ends.clone().map(|waiting| waiting.until.unwrap_or(waiting.due)).max()
        else {
            return;
        };
        let left = last.saturating_duration_since(now);
        report.update(self.session, Activity::Remove, ends.count() as u64, left);
    }

    /// Rows that still wait are left.
    pub(super) fn end(mut self) -> CleanupReport {
        let waiting = std::mem::take(&mut self.waiting);
        for (line, waiting) in waiting {
            self.leave(line, waiting);
        }
        self.outcome.left.sort_by_key(|left| left.line);
        self.outcome
    }
}

async fn delete_handoffs(ledger: &Ledger, outcome: &mut CleanupReport) -> Result<(), CleanupError> {
    let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
    let files = ledger.handoffs().await?;
    let (deleted, changed, unrecorded) = blocking(move || delete_recorded(&folder, &files)).await?;
    outcome.files = deleted;
    outcome.changed = changed;
    outcome.unrecorded = unrecorded;
    Ok(())
}

/// Deletes files that are still as this run wrote them. Returns how many, which ones were changed,
/// and what else is there.
fn delete_recorded(
    folder: &Path,
    files: &[HandoffRecord],
) -> Result<(u64, Vec<PathBuf>, Vec<PathBuf>), CleanupError> {
    let (mut deleted, mut changed) = (0, Vec::new());
    for record in files {
        let path = folder.join(&record.file);
        // Must be a name alone: nothing outside of the folder is this run's to delete.
        if path.file_name() != Some(record.file.as_ref()) {
            changed.push(path);
            continue;
        }
        let failed = |source| CleanupError::Handoff { path: path.clone(), source };
        match digest(&path) {
            Ok(found) if found == record.digest => {
                std::fs::remove_file(&path).map_err(failed)?;
                deleted += 1;
            }
            Ok(_) => changed.push(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let unrecorded =
        listed.map(|entry| entry.path()).filter(|path| !changed.contains(path)).collect();
    Ok((deleted, changed, unrecorded))
}

const NO_SUCH_USER: &str = "no such user in the tenant, or not yet known to all of it: nothing can be said of a pass; correct the name, or run cleanup again later";

/// The passes that the people of a wave have, whoever issued them.
#[derive(Debug, Default)]
pub struct Holdings {
    pub people: Vec<Remains>,
    pub rows: u64,
    pub unknown: Vec<UnprovenRow>,
    /// People whose passes cannot be read.
    pub unseen: Vec<UnprovenRow>,
    pub bad: Vec<wave::RowFault>,
}

pub async fn holdings(
    wave: &Path,
    zone: Option<TimeZone>,
    session: &Session,
) -> Result<Holdings, CleanupError> {
    let opened = File::open(wave);
    let file = opened.map_err(|source| IntakeError::Open { path: wave.to_owned(), source })?;
    let unread = |source| IntakeError::Wave { path: wave.to_owned(), source };
    let defaults = wave::Defaults { time_zone: zone };
    let reader = WaveReader::open(file, defaults).map_err(unread)?;
    let mut holdings = Holdings::default();
    let mut some = Vec::new();
    session.begin(Activity::Check, None);
    for found in reader {
        if session.stop.is_requested() {
            return Err(IntakeError::Interrupted.into());
        }
        holdings.rows += 1;
        match found.map_err(unread)? {
            WaveItem::Row(row) => some.push((row.line, row.upn)),
            WaveItem::Bad(bad) => holdings.bad.extend(bad.faults),
        }
        if some.len() == limits::ROWS_PER_CHECK {
            holdings.look(&session.graph, &std::mem::take(&mut some)).await?;
        }
        session.advance(Activity::Check, 1);
    }
    holdings.look(&session.graph, &some).await?;
    session.end(Activity::Check);
    Ok(holdings)
}

impl Holdings {
    async fn look(&mut self, graph: &Graph, rows: &[(Line, Upn)]) -> Result<(), CleanupError> {
        let upns: Vec<Upn> = rows.iter().map(|(_, upn)| upn.clone()).collect();
        let users = graph.users(&upns).await?;
        let mut known = Vec::new();
        for (line, upn) in rows {
            match users.get(&upn.key()) {
                Some(user) => known.push((*line, upn, user.id)),
                None => self.unknown.push(UnprovenRow {
                    line: *line,
                    upn: upn.to_string(),
                    why: NO_SUCH_USER.to_owned(),
                }),
            }
        }
        let ids: Vec<_> = known.iter().map(|(_, _, id)| *id).collect();
        for ((line, upn, user), pass) in known.into_iter().zip(graph.passes(&ids).await?) {
            match pass {
                Ok(pass) => {
                    let (upn, now) = (upn.to_string(), graph.now());
                    self.people.push(cleanup::confirmed(line, upn, user, pass.as_ref(), now));
                }
                Err(refusal) => {
                    let why = format!("the passes cannot be read: {refusal}");
                    self.unseen.push(UnprovenRow { line, upn: upn.to_string(), why });
                }
            }
        }
        Ok(())
    }
}

impl Holdings {
    pub fn passes(&self) -> usize {
        self.people.iter().filter(|person| !person.alive.is_empty()).count()
    }
}

/// Removes passes that the operator has confirmed. People without one are looked at again, since a
/// list may not show a pass made in the last minutes.
pub async fn remove_confirmed(
    people: Vec<Remains>,
    settle_after: Duration,
    session: &Session,
) -> Result<CleanupReport, CleanupError> {
    session.stop.begin_work();
    let total = people.len() as u64;
    session.begin(Activity::Remove, Some(total));
    let mut queue = CleanupQueue::new(None, session, settle_after);
    let cleared = queue.confirmed(people).await;
    session.end(Activity::Remove);
    cleared?;
    let outcome = queue.end();
    let is_short = session.stop.is_requested() && outcome.removed + outcome.already < total;
    let interrupted = outcome.interrupted || is_short;
    Ok(CleanupReport { interrupted, ..outcome })
}

impl CleanupQueue<'_> {
    async fn confirmed(&mut self, people: Vec<Remains>) -> Result<(), RunError> {
        let mut pages = people.chunks(limits::ROWS_PER_CHECK);
        self.look_at_all(async || Ok(pages.next().map(<[Remains]>::to_vec))).await?;
        self.look_again().await
    }
}
