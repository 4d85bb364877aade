//! Promises that cleanup closes the run first, removes exactly what it issued, proves it,
//! and only then destroys the sealed copies.

use std::io;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::Session;
use super::intake::IntakeError;
use super::issuing::{all_rows, desk, pick_up_lost};
use crate::graph::{Graph, GraphError};
use crate::ids::{Line, Upn};
use crate::ledger::{Ledger, LedgerError, Standing};
use crate::limits;
use crate::progress::{Doing, News};
use crate::roster::{self, Found, Roster};
use crate::stages::cleanup::{self, Cleaned, Fate, Owned};
use crate::stages::issue::Halt;
use crate::stages::issue::settle::Settled;

/// What a cleanup came to.
#[derive(Debug, Default)]
pub struct Tidied {
    /// Passes deleted now.
    pub removed: u64,
    /// Passes that were gone before.
    pub already: u64,
    /// Passes still there, or of which it cannot be told.
    pub left: Vec<Left>,
    /// Rows held for an operator.
    pub held: u64,
    /// People with somebody else's live pass.
    pub foreign: Vec<(Line, String)>,
    /// Whether somebody wished to stop before the end.
    pub drained: bool,
    /// Sealed copies destroyed in the ledger; `None` if they were kept.
    pub purged: Option<u64>,
    /// Handoff files deleted.
    pub files: u64,
}

/// A pass that cleanup could not see gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The row.
    pub line: Line,
    /// Whose it is.
    pub upn: String,
    /// For people.
    pub why: String,
}

impl Tidied {
    /// Whether nothing of the run is left, as far as anybody can tell.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.left.is_empty() && self.held == 0 && !self.drained
    }
}

/// Why cleanup could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TidyError {
    /// Graph or the ledger.
    #[error(transparent)]
    Halt(#[from] Halt),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The wave of `--csv`.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A handoff file that cannot be deleted.
    #[error("failed to delete {path}: {source}; the passes are removed, delete the file by hand")]
    Handoff {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl From<GraphError> for TidyError {
    fn from(error: GraphError) -> Self {
        Self::Halt(error.into())
    }
}

/// Cleans a run up. The run is closed first: no later resume issues anything.
///
/// # Errors
/// [`TidyError`]; cleanup may be run again from wherever it stopped.
pub async fn run(
    ledger: &Ledger,
    session: &Session,
    keep_sealed: bool,
) -> Result<Tidied, TidyError> {
    ledger.close().await?;
    let mut tidied = Tidied::default();
    settle_all(ledger, session, &mut tidied).await?;
    remove_all(ledger, session, &mut tidied).await?;
    tidied.held = ledger.counts().await?.of(Standing::Held);
    tidied.drained = session.drain.is_on();
    if tidied.is_proven() && !keep_sealed {
        tidied.files = delete_handoffs(ledger)?;
        tidied.purged = Some(ledger.purge_sealed().await?);
    }
    Ok(tidied)
}

/// What was lost is settled through the fence, so that its orphan is found and deleted.
async fn settle_all(
    ledger: &Ledger,
    session: &Session,
    tidied: &mut Tidied,
) -> Result<(), TidyError> {
    let counts = ledger.counts().await?;
    let lost = counts.of(Standing::Intent) + counts.of(Standing::Unsettled);
    let all = lost + counts.of(Standing::Held);
    if all == 0 {
        return Ok(());
    }
    // The first answer tells Graph's clock, by which old intents are judged. So does a refusal:
    // cleanup needs no leave to read the policy.
    match session.graph.policy().await {
        Ok(_) | Err(GraphError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let desk = desk(ledger, session);
    // Those held already; a row that is held below has been looked at then. One that owns a
    // sealed pass is left to the removal, which deletes that pass by its id, seen or not.
    let mut held = all_rows(ledger, &[Standing::Held]).await?;
    held.retain(|row| row.state.method().is_none());
    let mut fences = pick_up_lost(&desk, session.clock.instant()).await?;
    fences.sort_by_key(|fence| fence.until);
    session.watcher.hear(News::Began { doing: Doing::Settle, total: Some(all) });
    for fence in fences {
        tokio::select! {
            biased;
            () = session.drain.begun() => break,
            () = session.clock.sleep_until(fence.until) => {}
        }
        settle(&desk, session, fence.line, tidied).await?;
    }
    for row in held {
        if session.drain.is_on() {
            break;
        }
        settle(&desk, session, row.line, tidied).await?;
    }
    session.watcher.hear(News::Ended { doing: Doing::Settle });
    for row in all_rows(ledger, &[Standing::Intent, Standing::Unsettled]).await? {
        let why = "its outcome is not settled yet; run cleanup again".to_owned();
        tidied.left.push(Left { line: row.line, upn: row.upn, why });
    }
    Ok(())
}

async fn settle(
    desk: &crate::stages::issue::Desk,
    session: &Session,
    line: Line,
    tidied: &mut Tidied,
) -> Result<(), TidyError> {
    let settled = desk.settle(line).await?;
    session.watcher.hear(News::Did { doing: Doing::Settle, rows: 1 });
    if let Settled::Held { why } = settled {
        let Some(row) = desk.ledger.row(line).await? else { return Ok(()) };
        session.watcher.hear(News::RowHeld { line, upn: row.upn.clone(), why });
        if row.foreign.is_some() {
            tidied.foreign.push((line, row.upn));
        }
    }
    Ok(())
}

async fn remove_all(
    ledger: &Ledger,
    session: &Session,
    tidied: &mut Tidied,
) -> Result<(), TidyError> {
    // A held row may own a pass that was sealed and then not seen.
    let [sealed, mailing, delivered] = Standing::LIVE;
    let states = [sealed, mailing, delivered, Standing::Held];
    let counts = ledger.counts().await?;
    let total = Standing::LIVE.iter().map(|standing| counts.of(*standing)).sum();
    session.watcher.hear(News::Began { doing: Doing::Remove, total: Some(total) });
    let mut after = None;
    while !session.drain.is_on() {
        let rows = ledger.rows(&states, after, limits::ROWS_PER_CHECK).await?;
        let Some(last) = rows.last() else { break };
        after = Some(last.line);
        let owned: Vec<Owned> = rows.iter().filter_map(Owned::sealed).collect();
        let count = owned.len() as u64;
        let cleaned = cleanup::remove_recorded(&session.graph, ledger, owned).await?;
        session.watcher.hear(News::Did { doing: Doing::Remove, rows: count });
        tidied.count(cleaned);
    }
    session.watcher.hear(News::Ended { doing: Doing::Remove });
    Ok(())
}

impl Tidied {
    fn count(&mut self, cleaned: Vec<Cleaned>) {
        for Cleaned { owned, fate, foreign } in cleaned {
            let (line, upn) = (owned.line(), owned.upn().to_owned());
            if foreign.is_some() {
                self.foreign.push((line, upn.clone()));
            }
            match fate {
                Fate::Removed => self.removed += 1,
                Fate::Already => self.already += 1,
                Fate::Left { why } => self.left.push(Left { line, upn, why }),
            }
        }
    }
}

fn delete_handoffs(ledger: &Ledger) -> Result<u64, TidyError> {
    let folder = ledger.folder().handoff().map_err(LedgerError::from)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TidyError::Handoff { path, source }
    };
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).map_err(failed(&folder))? {
        let path = entry.map_err(failed(&folder))?.path();
        if !is_ours(&path) {
            continue;
        }
        std::fs::remove_file(&path).map_err(failed(&path))?;
        files += 1;
    }
    Ok(files)
}

/// A handoff file, or one that a killed process left unfinished. What somebody else laid
/// there stays.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.is_file() && (name.ends_with(".age") || name.starts_with(".unfinished-"))
}

/// What the people of a wave hold now, whoever issued it.
#[derive(Debug, Default)]
pub struct Holdings {
    /// The passes.
    pub passes: Vec<Owned>,
    /// Rows of the wave.
    pub rows: u64,
    /// People who are not in the tenant.
    pub unknown: Vec<Left>,
    /// People whose passes nobody let us see; they may have one.
    pub unseen: Vec<Left>,
    /// Rows that cannot be read.
    pub bad: Vec<roster::Fault>,
}

/// Finds the passes of the people in a wave. Changes nothing.
///
/// # Errors
/// [`TidyError`]
pub async fn holdings(
    wave: &Path,
    zone: Option<TimeZone>,
    session: &Session,
) -> Result<Holdings, TidyError> {
    let opened = std::fs::File::open(wave);
    let file = opened.map_err(|source| IntakeError::Open { path: wave.to_owned(), source })?;
    let unread = |source| IntakeError::Roster { path: wave.to_owned(), source };
    let defaults = roster::Defaults { time_zone: zone };
    let roster = Roster::open(file, defaults).map_err(unread)?;
    let mut holdings = Holdings::default();
    let mut some = Vec::new();
    session.watcher.hear(News::Began { doing: Doing::Check, total: None });
    for found in roster {
        if session.drain.is_on() {
            return Err(IntakeError::Interrupted.into());
        }
        holdings.rows += 1;
        match found.map_err(unread)? {
            Found::Row(row) => some.push((row.line, row.upn)),
            Found::Bad(bad) => holdings.bad.extend(bad.faults),
        }
        if some.len() == limits::ROWS_PER_CHECK {
            holdings.look(&session.graph, &std::mem::take(&mut some)).await?;
        }
        session.watcher.hear(News::Did { doing: Doing::Check, rows: 1 });
    }
    holdings.look(&session.graph, &some).await?;
    session.watcher.hear(News::Ended { doing: Doing::Check });
    Ok(holdings)
}

impl Holdings {
    async fn look(&mut self, graph: &Graph, rows: &[(Line, Upn)]) -> Result<(), TidyError> {
        let upns: Vec<Upn> = rows.iter().map(|(_, upn)| upn.clone()).collect();
        let users = graph.users(&upns).await?;
        let mut known = Vec::new();
        for (line, upn) in rows {
            match users.get(&upn.key()) {
                Some(user) => known.push((*line, upn, user.id)),
                None => self.unknown.push(Left {
                    line: *line,
                    upn: upn.to_string(),
                    why: "no such user in the tenant".to_owned(),
                }),
            }
        }
        let ids: Vec<_> = known.iter().map(|(_, _, id)| *id).collect();
        for ((line, upn, user), pass) in known.into_iter().zip(graph.passes(&ids).await?) {
            match pass {
                Ok(Some(pass)) => {
                    self.passes.push(Owned::confirmed(line, upn.to_string(), user, pass.id));
                }
                Ok(None) => {}
                Err(refusal) => {
                    let why = format!("the passes cannot be read: {refusal}");
                    self.unseen.push(Left { line, upn: upn.to_string(), why });
                }
            }
        }
        Ok(())
    }
}

/// Removes passes that the operator has confirmed.
///
/// # Errors
/// [`TidyError`]
pub async fn remove_confirmed(passes: Vec<Owned>, session: &Session) -> Result<Tidied, TidyError> {
    let mut tidied = Tidied::default();
    let total = passes.len() as u64;
    session.watcher.hear(News::Began { doing: Doing::Remove, total: Some(total) });
    for some in passes.chunks(limits::ROWS_PER_CHECK) {
        if session.drain.is_on() {
            tidied.drained = true;
            break;
        }
        let cleaned = cleanup::remove(&session.graph, some.to_vec()).await?;
        session.watcher.hear(News::Did { doing: Doing::Remove, rows: some.len() as u64 });
        tidied.count(cleaned);
    }
    session.watcher.hear(News::Ended { doing: Doing::Remove });
    Ok(tidied)
}
