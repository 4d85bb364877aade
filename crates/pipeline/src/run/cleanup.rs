//! Promises that cleanup closes the run first, removes exactly what it issued, proves it,
//! and only then destroys the sealed copies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use super::Session;
use super::intake::IntakeError;
use super::issuing::worker;
use crate::cleanup::{self, Cleaned, CleanupOutcome, Doubt};
use crate::reconcile::{quiet_in, watch_for};
use crate::wave::{self, WaveItem, WaveReader};
use crate::worker::RunError;
use tapwave_core::clock::{backoff, later};
use tapwave_core::ids::{Line, MethodId, Upn};
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_graph::{Graph, GraphError};
use tapwave_ledger::{HandoffRecord, Ledger, LedgerError, Pages, Proof, Remains, Standing};

/// What a cleanup came to.
#[derive(Debug, Default)]
pub struct CleanupReport {
    pub removed: u64,
    /// Rows of which nothing is alive, proven otherwise than by our own deleting.
    pub already: u64,
    /// Rows of which something may be alive.
    pub left: Vec<UnprovenRow>,
    /// Those of them that people were told of before.
    pub told: BTreeSet<Line>,
    /// Those of them whose user Graph does not find.
    pub unknown: u64,
    /// Whether Graph finds none of the run's people: it is probably another tenant.
    pub strangers: bool,
    /// Rows of the run's ledger of which something may be alive.
    pub remaining: u64,
    /// People with somebody else's live pass.
    pub foreign: Vec<(Line, String)>,
    /// Whether somebody wished to stop before the end.
    pub drained: bool,
    /// Sealed copies destroyed in the ledger; `None` if they were kept.
    pub purged: Option<u64>,
    pub files: u64,
    /// Handoff files that are not as they were written, and stay.
    pub changed: Vec<PathBuf>,
    /// Files beside them that this run has no record of, and that stay.
    pub unrecorded: Vec<PathBuf>,
}

/// A row of which cleanup could not prove that nothing is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnprovenRow {
    pub line: Line,
    pub upn: String,
    pub why: String,
}

impl CleanupReport {
    /// Whether it is proven that nothing of the run is left.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.left.is_empty() && self.remaining == 0 && !self.drained
    }
}

/// Why cleanup could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Graph or the ledger.
    #[error(transparent)]
    Halt(#[from] RunError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The wave of `--csv`.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A handoff file that cannot be deleted.
    #[error("failed to delete {path}: {source}; the passes are removed, delete the file by hand")]
    Handoff {
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl From<GraphError> for CleanupError {
    fn from(error: GraphError) -> Self {
        Self::Halt(error.into())
    }
}

/// Cleans a run up. The run is closed first: no later resume issues anything.
///
/// # Errors
/// [`CleanupError`]; cleanup may be run again from wherever it stopped.
pub async fn run(
    ledger: &Ledger,
    session: &Session,
    keep_sealed: bool,
) -> Result<CleanupReport, CleanupError> {
    session.drain.begin_work();
    let was_closed = ledger.closed().await?.is_some();
    ledger.close().await?;
    if let Ok(folder) = ledger.folder().handoff() {
        // Nobody waits for it; that it cannot be removed must not keep a pass alive.
        let _ = tapwave_seal::remove_unfinished(&folder);
    }
    let worker = worker(ledger, session);
    for line in ledger.lines(Standing::Intent).await? {
        match ledger.row(line).await {
            Ok(Some(row)) => worker.mark_lost(&row).await?,
            // Its attempt may live: it is named among those that are left.
            Ok(None) | Err(LedgerError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if ledger.has_open_attempts().await? {
        // By Graph's clock old attempts are judged.
        session.graph.ask_the_time().await?;
    }
    let total = ledger.remaining().await?;
    session.watcher.report(ProgressEvent::Began { activity: Activity::Remove, total: Some(total) });
    let mut clearing = CleanupQueue::new(Some(ledger), session, worker.settle_after);
    let cleared = clearing.whole_run(ledger).await;
    session.watcher.report(ProgressEvent::Ended { doing: Activity::Remove });
    cleared?;
    let mut outcome = clearing.end();
    outcome.remaining = ledger.remaining().await?;
    if outcome.remaining == 0 && !session.drain.is_on() {
        outcome.left.extend(contradictions(ledger).await?);
    }
    outcome.drained = session.drain.is_on() && outcome.remaining > 0;
    let somebody_known = outcome.removed + outcome.already > 0
        || ledger.counts().await?.of(Standing::Removed) > 0
        || !outcome.foreign.is_empty();
    outcome.strangers =
        outcome.unknown > 0 && outcome.unknown == outcome.remaining && !somebody_known;
    if outcome.strangers && !was_closed {
        // Nothing was removed, and perhaps nothing of this run is in this tenant.
        ledger.reopen().await?;
    }
    if outcome.is_proven() && !keep_sealed {
        delete_handoffs(ledger, &mut outcome).await?;
        outcome.purged = Some(ledger.purge_sealed().await?);
    }
    Ok(outcome)
}

/// Rows of which the ledger's tables do not say the same: nobody can have proven anything of them.
/// Such are rows that own a pass, or an attempt, of which there is no other record.
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

/// Clears rows, a page at a time, and looks again at what one look does not prove.
pub(super) struct CleanupQueue<'a> {
    ledger: Option<&'a Ledger>,
    session: &'a Session,
    settle_after: Duration,
    began: Instant,
    waiting: BTreeMap<Line, Waiting>,
    outcome: CleanupReport,
}

/// A row that is looked at again.
struct Waiting {
    due: Instant,
    looks: u32,
    /// When the patience with it ends; not known while attempts of the row are still feared.
    until: Option<Instant>,
    /// Whether that is over, and the last look brought nothing.
    exhausted: bool,
    doubt: Option<Doubt>,
    upn: String,
    /// Graph has answered a DELETE with 204.
    deleted: Vec<MethodId>,
    /// What is known of a row that no ledger has.
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
        while !self.session.drain.is_on()
            && let Some(rows) = pages.next().await?
        {
            self.look(rows).await?;
        }
        // What was given up while the run issued is looked at once more: a list that was behind
        // for longer than the settling time may show it now.
        let mut pages =
            Pages::new(async |after| ledger.given_up(after, limits::ROWS_PER_CHECK).await);
        while !self.session.drain.is_on()
            && let Some(rows) = pages.next().await?
        {
            self.look(rows).await?;
        }
        self.look_again().await
    }

    /// Looks at these rows once, and remembers those that must be looked at again.
    pub(super) async fn look(&mut self, rows: Vec<Remains>) -> Result<(), RunError> {
        let (quiet, feared): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| self.quiet_at(row) <= self.session.clock.instant());
        for row in feared {
            let due = self.quiet_at(&row);
            let (line, upn) = (row.line, row.upn.clone());
            let remains = self.ledger.is_none().then_some(row);
            let (until, exhausted, doubt) = (None, false, None);
            let deleted = Vec::new();
            let waiting = Waiting { due, looks: 0, until, exhausted, doubt, upn, deleted, remains };
            self.waiting.insert(line, waiting);
        }
        let graph = &self.session.graph;
        let issuers = &self.session.issuers;
        let clearing = cleanup::clear(graph, self.ledger, quiet, self.settle_after, issuers);
        let cleaned = tokio::select! {
            cleaned = clearing => cleaned?,
            // Whatever is still not answered by then is held back, and not in flight.
            () = self.session.drain.outlasted(&self.session.clock) => return Ok(()),
        };
        for one in cleaned {
            self.take(one);
        }
        Ok(())
    }

    /// When none of a row's attempts is feared to be carried out any more: at once if the clocks
    /// say so, at the latest a settling time after this process began.
    fn quiet_at(&self, row: &Remains) -> Instant {
        let now = self.session.clock.instant();
        let wait = quiet_in(row, self.settle_after, self.session.graph.clocks());
        (now + wait).min(now.max(self.began + self.settle_after))
    }

    fn take(&mut self, cleaned: Cleaned) {
        let Cleaned { remains, fate, foreign } = cleaned;
        let (line, upn) = (remains.line, remains.upn.clone());
        let before = self.waiting.remove(&line);
        if self.ledger.is_none() && foreign.is_some() {
            // Whoever agreed to the removal was not shown this one.
            let why =
                "another pass is on the user now, which was not listed before; run cleanup again";
            self.outcome.left.push(UnprovenRow { line, upn, why: why.to_owned() });
            self.session.watcher.report(ProgressEvent::Did { doing: Activity::Remove, rows: 1 });
            return;
        }
        if foreign.is_some() && !self.outcome.foreign.iter().any(|(known, _)| *known == line) {
            self.outcome.foreign.push((line, upn.clone()));
        }
        match fate {
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
        self.session.watcher.report(ProgressEvent::Did { doing: Activity::Remove, rows: 1 });
    }

    /// When a row is looked at again: soon at first, then at twice the wait, and once more when
    /// its patience ends.
    fn again(&self, doubt: Doubt, before: Option<&Waiting>, remains: Remains) -> Waiting {
        let now = self.session.clock.instant();
        let looks = before.map_or(0, |before| before.looks) + 1;
        let until = self.patience(doubt, before, &remains);
        let wait = backoff(limits::BETWEEN_LOOKS, Duration::MAX, looks - 1);
        let (due, exhausted) = match doubt {
            Doubt::Found => (now, looks >= limits::MOST_LOOKS),
            _ => ((now + wait).min(until), now >= until || looks >= limits::MOST_LOOKS),
        };
        let (upn, deleted) = (remains.upn.clone(), remains.deleted.clone());
        let remains = self.ledger.is_none().then_some(remains);
        let (until, doubt) = (Some(until), Some(doubt));
        Waiting { due, looks, until, exhausted, doubt, upn, deleted, remains }
    }

    /// When another look is the last one.
    fn patience(&self, doubt: Doubt, before: Option<&Waiting>, remains: &Remains) -> Instant {
        let now = self.session.clock.instant();
        // Graph's clock is read in whole seconds.
        let settled = watch_for(self.settle_after) + limits::DATE_ROUNDING;
        let since = |doubt| {
            let same = before.filter(|before| before.doubt == Some(doubt));
            same.and_then(|before| before.until)
        };
        match (doubt, remains.absent_since) {
            (Doubt::NotListed, Some(since)) => {
                let clocks = self.session.graph.clocks();
                let left = |since, now| tapwave_core::clock::span(now, later(since, settled));
                let machine = remains.absent_at.unwrap_or(clocks.machine);
                // A clock that was set back is not waited for.
                now + left(since, clocks.graph).max(left(machine, clocks.machine)).min(settled)
            }
            // Whoever is deleted does not come back; whoever is new is known soon.
            (Doubt::UserUnknown, _) => since(doubt).unwrap_or(now + limits::UNKNOWN_USER_PATIENCE),
            _ => since(doubt).unwrap_or(now + settled),
        }
    }

    /// Looks again at what waits, until nothing does, patience ends, or somebody wishes to stop.
    pub(super) async fn look_again(&mut self) -> Result<(), RunError> {
        let mut told = None;
        loop {
            self.give_up().await?;
            let Some(due) = self.waiting.values().map(|waiting| waiting.due).min() else {
                return Ok(());
            };
            self.tell_patience(&mut told);
            tokio::select! {
                biased;
                () = self.session.drain.begun() => return Ok(()),
                () = self.session.clock.sleep_until(due) => {}
            }
            // Those that are nearly due go along.
            let horizon = self.session.clock.instant() + limits::BETWEEN_LOOKS / 2;
            let lines: Vec<Line> = self
                .waiting
                .iter()
                .filter(|(_, waiting)| waiting.due <= horizon)
                .map(|(line, _)| *line)
                .collect();
            for some in lines.chunks(limits::ROWS_PER_CHECK) {
                if self.session.drain.is_on() {
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

    /// Leaves what has been looked at for long enough.
    async fn give_up(&mut self) -> Result<(), LedgerError> {
        let exhausted = self.waiting.iter().filter(|(_, waiting)| waiting.exhausted);
        let lines: Vec<Line> = exhausted.map(|(line, _)| *line).collect();
        for line in lines {
            let Some(waiting) = self.waiting.remove(&line) else { continue };
            // Graph's 204 is proof, for however long a list shows what was.
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
                ledger.record(line, cleanup::deleted_all_the_same(&row)).await?;
            }
        }
        self.outcome.removed += 1;
        self.session.watcher.report(ProgressEvent::Did { doing: Activity::Remove, rows: 1 });
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

    /// What is waited for and until when, told when that changes.
    fn tell_patience(&self, told: &mut Option<Timestamp>) {
        let now = self.session.clock.instant();
        let patient = |waiting: &&Waiting| {
            // The first looks follow each other within seconds.
            waiting.looks == 0 || waiting.looks >= limits::LOOKS
        };
        let ends = self.waiting.values().filter(patient);
        let Some(last) = ends.clone().map(|waiting| waiting.until.unwrap_or(waiting.due)).max()
        else {
            return;
        };
        let until = later(self.session.clock.now(), last.saturating_duration_since(now));
        let is_new =
            told.is_none_or(|told| tapwave_core::clock::span(told, until) > limits::BETWEEN_LOOKS);
        if is_new {
            let rows = ends.count() as u64;
            self.session.watcher.report(ProgressEvent::LookingAgain {
                doing: Activity::Remove,
                rows,
                until,
            });
            *told = Some(until);
        }
    }

    /// What it came to; whatever still waits is left.
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
    let deleting = tokio::task::spawn_blocking(move || delete_recorded(&folder, &files));
    let (deleted, changed, unrecorded) = match deleting.await {
        Ok(deleted) => deleted?,
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    };
    outcome.files = deleted;
    outcome.changed = changed;
    outcome.unrecorded = unrecorded;
    Ok(())
}

/// Deletes what this run wrote, and nothing that is not what it wrote. Gives how many were deleted,
/// which ones are not as they were written, and what else is there.
fn delete_recorded(
    folder: &Path,
    files: &[HandoffRecord],
) -> Result<(u64, Vec<PathBuf>, Vec<PathBuf>), CleanupError> {
    let (mut deleted, mut changed) = (0, Vec::new());
    for record in files {
        let path = folder.join(&record.file);
        // A name alone: nothing outside of the folder is this run's to delete.
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

/// SHA-256 of a file's bytes, in hex. Follows no link.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    use sha2::{Digest, Sha256};
    if !path.symlink_metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hash))?;
    Ok(tapwave_core::shown::hex(&hash.finalize()))
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why nothing can be said of a person whom Graph does not find by name.
const NO_SUCH_USER: &str = "no such user in the tenant, or not yet known to all of it: nothing can be said of a pass; correct the name, or run cleanup again later";

/// What the people of a wave hold now, whoever issued it.
#[derive(Debug, Default)]
pub struct Holdings {
    /// The people, each with the pass that is listed, if one is.
    pub people: Vec<Remains>,
    /// Rows of the wave.
    pub rows: u64,
    /// People who are not in the tenant.
    pub unknown: Vec<UnprovenRow>,
    /// People whose passes nobody let us see; they may have one.
    pub unseen: Vec<UnprovenRow>,
    /// Rows that cannot be read.
    pub bad: Vec<wave::RowFault>,
}

/// Finds the passes of the people in a wave. Changes nothing.
pub async fn holdings(
    wave: &Path,
    zone: Option<TimeZone>,
    session: &Session,
) -> Result<Holdings, CleanupError> {
    let opened = std::fs::File::open(wave);
    let file = opened.map_err(|source| IntakeError::Open { path: wave.to_owned(), source })?;
    let unread = |source| IntakeError::Roster { path: wave.to_owned(), source };
    let defaults = wave::Defaults { time_zone: zone };
    let reader = WaveReader::open(file, defaults).map_err(unread)?;
    let mut holdings = Holdings::default();
    let mut some = Vec::new();
    session.watcher.report(ProgressEvent::Began { activity: Activity::Check, total: None });
    for found in reader {
        if session.drain.is_on() {
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
        session.watcher.report(ProgressEvent::Did { doing: Activity::Check, rows: 1 });
    }
    holdings.look(&session.graph, &some).await?;
    session.watcher.report(ProgressEvent::Ended { doing: Activity::Check });
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
    /// Passes that are listed.
    #[must_use]
    pub fn passes(&self) -> usize {
        self.people.iter().filter(|person| !person.alive.is_empty()).count()
    }
}

/// Removes passes that the operator has confirmed. Whoever has none listed is looked at again: a
/// list may not show a pass that was made in the last minutes.
pub async fn remove_confirmed(
    people: Vec<Remains>,
    settle_after: Duration,
    session: &Session,
) -> Result<CleanupReport, CleanupError> {
    session.drain.begin_work();
    let total = people.len() as u64;
    session.watcher.report(ProgressEvent::Began { activity: Activity::Remove, total: Some(total) });
    let mut clearing = CleanupQueue::new(None, session, settle_after);
    let cleared = clearing.confirmed(people).await;
    session.watcher.report(ProgressEvent::Ended { doing: Activity::Remove });
    cleared?;
    let outcome = clearing.end();
    let drained = session.drain.is_on() && outcome.removed + outcome.already < total;
    Ok(CleanupReport { drained, ..outcome })
}

impl CleanupQueue<'_> {
    async fn confirmed(&mut self, people: Vec<Remains>) -> Result<(), RunError> {
        for some in people.chunks(limits::ROWS_PER_CHECK) {
            if self.session.drain.is_on() {
                break;
            }
            self.look(some.to_vec()).await?;
        }
        self.look_again().await
    }
}
