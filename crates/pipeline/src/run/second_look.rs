//! Promises that a pass counts as issued and sealed only after it was listed once more as its
//! user's only pass: another machine, the helpdesk, or a gateway that carries a POST out twice may
//! have replaced it. Must never take a list that is behind for a lost pass.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Session;
use super::pending::LookReport;
use crate::reconcile::{Observation, absence_patience, latest_end, observe, of_this_run};
use crate::worker::{RunError, Worker};
use tapwave_core::backoff::exponential;
use tapwave_core::clock::earlier;
use tapwave_core::ids::{Line, MethodId};
use tapwave_core::limits;
use tapwave_core::progress::{Activity, ProgressEvent};
use tapwave_graph::FoundPass;
use tapwave_graph::limiter::{Budget, Outlook};
use tapwave_graph::verdict::Refusal;
use tapwave_ledger::{Event, Pages, Remains, RowRecord};

/// Whether sealed passes are looked at a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FinalLook {
    Always,
    /// Unless it takes longer than [`limits::LONGEST_FINAL_LOOK`].
    #[default]
    Auto,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    pub unseen: u64,
    /// Those of them that were not listed: they are kept out of the handoff.
    pub missed: Vec<Line>,
    pub why: Option<String>,
}

pub(super) struct SecondLook<'a> {
    worker: &'a Worker,
    session: &'a Session,
    when: FinalLook,
    /// A pass that was seen before then, by Graph's clock, is looked at again.
    since: Option<Timestamp>,
    /// Where the current round beside issuing has got to.
    after: Option<Line>,
    /// Why passes may not be read.
    forbidden: Option<String>,
}

#[derive(Default)]
struct LookRound {
    last: Option<Line>,
    rows: u64,
    /// Rows whose pass is not listed, which is no proof.
    unseen: Vec<(Line, NotSeen)>,
    lost: Vec<Line>,
}

const INTERRUPTED: &str = "it was interrupted";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotSeen {
    NotListed,
    UserUnknown,
    /// Another pass is listed, without a date.
    Undated,
}

impl NotSeen {
    /// Reported after the last look.
    const fn why(self) -> &'static str {
        match self {
            Self::NotListed => "its pass is not on the user any more: somebody has deleted it",
            Self::Undated => "another pass is listed in its place, whoever made it and whenever",
            Self::UserUnknown => {
                "Graph does not find the user any more, so that nothing can be said of the pass"
            }
        }
    }
}

impl<'a> SecondLook<'a> {
    pub(super) const fn new(
        worker: &'a Worker,
        session: &'a Session,
        when: FinalLook,
        since: Option<Timestamp>,
    ) -> Self {
        Self { worker, session, when, since, after: None, forbidden: None }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.when != FinalLook::Never
    }

    /// Looks at some passes that are old enough, while issuing goes on. Returns the lost rows, and
    /// whether there may be more to look at.
    pub(super) async fn look_beside(&mut self) -> Result<(Vec<Line>, bool), RunError> {
        if self.forbidden.is_some() {
            return Ok((Vec::new(), false));
        }
        let before = earlier(self.worker.graph.now(), limits::SECOND_LOOK_AGE);
        let ledger = &self.worker.ledger;
        let rows =
            ledger.rows_to_look_at(before, None, self.after, limits::SECOND_LOOK_ROWS).await?;
        let full = rows.len() == limits::SECOND_LOOK_ROWS;
        let round = self.look(rows).await?;
        // Rows that were not listed are looked at again in the next round.
        self.after = round.last.filter(|_| full);
        Ok((round.lost, full))
    }

    /// Looks at every pass that was not seen yet, and waits for lists that are behind: for the
    /// settling time at most.
    pub(super) async fn finish(&mut self, mut lose: impl FnMut(Line)) -> Result<Looked, RunError> {
        let waiting = self.worker.ledger.waiting_for_look(self.since).await?;
        if let Some(why) = self.why_skipped(waiting) {
            let why = (waiting > 0).then_some(why);
            return Ok(Looked { unseen: waiting, missed: Vec::new(), why });
        }
        self.session.begin(Activity::Look, Some(waiting));
        let looked = self.look_until_seen(&mut lose).await;
        self.session.end(Activity::Look);
        let missed = looked?;
        let unseen = self.worker.ledger.waiting_for_look(self.since).await?;
        let why = match &self.forbidden {
            Some(why) => why.clone(),
            None if self.session.stop.is_requested() => INTERRUPTED.to_owned(),
            None => "Graph's lists were behind for too long".to_owned(),
        };
        Ok(Looked { unseen, missed, why: (unseen > 0).then_some(why) })
    }

    fn why_skipped(&self, waiting: u64) -> Option<String> {
        if self.session.stop.is_requested() {
            return Some(INTERRUPTED.to_owned());
        }
        match self.when {
            FinalLook::Never => return Some("--final-look never".to_owned()),
            FinalLook::Always => {}
            FinalLook::Auto => {
                let outlook = self.worker.graph.limiter().outlook(Budget::PassReads);
                let time = expected(waiting, outlook);
                if time > limits::LONGEST_FINAL_LOOK {
                    let minutes = time.as_secs().div_ceil(60);
                    return Some(format!("it would take {minutes} min at this tenant's rate"));
                }
            }
        }
        self.forbidden.clone()
    }

    /// Returns the rows that are not listed when it is stopped.
    async fn look_until_seen(
        &mut self,
        lose: &mut impl FnMut(Line),
    ) -> Result<Vec<Line>, RunError> {
        let mut first_missed: HashMap<Line, Instant> = HashMap::new();
        let mut report = LookReport::default();
        let patience = absence_patience(self.worker.settle_after);
        for looks in 1_u32.. {
            let unseen = self.whole_round(lose).await?;
            let missed = || unseen.iter().map(|(line, _)| *line).collect();
            if unseen.is_empty() || self.forbidden.is_some() || self.session.stop.is_requested() {
                return Ok(missed());
            }
            let now = self.worker.clock.instant();
            for (line, _) in &unseen {
                first_missed.entry(*line).or_insert(now);
            }
            let is_over =
                |line: &Line| first_missed.get(line).is_some_and(|since| *since + patience <= now);
            for (line, unseen) in unseen.iter().filter(|(line, _)| is_over(line)) {
                self.lose_unseen(*line, *unseen).await?;
                lose(*line);
            }
            let since = || unseen.iter().filter_map(|(line, _)| first_missed.get(line));
            let left_of = |since: &Instant| (*since + patience).saturating_duration_since(now);
            let Some(left) = since().map(left_of).filter(|left| !left.is_zero()).max() else {
                continue;
            };
            if looks >= limits::LOOKS {
                report.update(self.session, Activity::Look, unseen.len() as u64, left);
            }
            let next = since().map(left_of).filter(|left| !left.is_zero()).min().unwrap_or(left);
            let wait = exponential(limits::BETWEEN_LOOKS, looks - 1, next);
            let clock = &self.worker.clock;
            if self.session.stop.comes_before(clock, clock.instant() + wait).await {
                return Ok(missed());
            }
        }
        Ok(Vec::new())
    }

    /// Looks once at every row that waits, also if the operator stops it. Returns those that are
    /// not listed.
    async fn whole_round(
        &mut self,
        lose: &mut impl FnMut(Line),
    ) -> Result<Vec<(Line, NotSeen)>, RunError> {
        let mut unseen = Vec::new();
        for since in std::iter::once(None).chain(self.since.map(Some)) {
            let ledger = &self.worker.ledger;
            let most = limits::ROWS_PER_CHECK;
            let mut pages = Pages::new(async |after| {
                ledger.rows_to_look_at(Timestamp::MAX, since, after, most).await
            });
            while self.forbidden.is_none()
                && let Some(rows) = pages.next().await?
            {
                let round = self.look(rows).await?;
                round.lost.iter().copied().for_each(&mut *lose);
                self.session.advance(Activity::Look, round.rows);
                unseen.extend(round.unseen);
                if round.last.is_none() {
                    break;
                }
            }
        }
        Ok(unseen)
    }

    async fn look(&mut self, rows: Vec<RowRecord>) -> Result<LookRound, RunError> {
        let mut round = LookRound { last: rows.last().map(|row| row.line), ..LookRound::default() };
        let users =
            rows.iter().map(|row| Ok(row.person()?.user)).collect::<Result<Vec<_>, RunError>>();
        let users = users?;
        let passes = tokio::select! {
            passes = self.worker.graph.passes(&users) => passes?,
            // The request waits for the limiter; nothing was seen.
            () = self.session.stop.grace_over(&self.worker.clock) => {
                return Ok(LookRound { last: None, ..round });
            }
        };
        let now = self.worker.graph.now();
        let mut fine = Vec::with_capacity(rows.len());
        for (row, pass) in rows.iter().zip(passes) {
            match pass {
                Ok(Some(pass)) if row.state.method() == Some(&pass.id) && !pass.is_disabled() => {
                    fine.push(row.line);
                }
                Ok(found) => {
                    // A list that is behind may show the pass that this one replaced.
                    let undated =
                        |found: &FoundPass| found.created_date_time.is_none() && found.is_live(now);
                    let other = row.state.method() != found.as_ref().map(|found| &found.id);
                    if other && found.as_ref().is_some_and(undated) {
                        round.unseen.push((row.line, NotSeen::Undated));
                    } else if self.record_if_displaced(row, found.as_ref(), now).await? {
                        round.lost.push(row.line);
                    } else {
                        round.unseen.push((row.line, NotSeen::NotListed));
                    }
                }
                // Perhaps a replica does not know the user.
                Err(refusal) if refusal.status == 404 => {
                    round.unseen.push((row.line, NotSeen::UserUnknown));
                }
                Err(refusal) => self.forbid(&refusal),
            }
        }
        round.rows = (fine.len() + round.lost.len()) as u64;
        if !fine.is_empty() {
            self.worker.ledger.looked_at(fine, now).await?;
        }
        Ok(round)
    }

    fn forbid(&mut self, refusal: &Refusal) {
        self.forbidden.get_or_insert_with(|| format!("the passes cannot be read: {refusal}"));
    }

    /// Records that a row's sealed code does not work, if the look shows that.
    async fn record_if_displaced(
        &self,
        row: &RowRecord,
        found: Option<&FoundPass>,
        now: Timestamp,
    ) -> Result<bool, RunError> {
        let line = row.line;
        let remains = self.worker.ledger.remains_of(vec![line]).await?.pop();
        let observation = remains.map(|remains: Remains| {
            let observation = observe(found, &remains, self.worker.settle_after, now);
            of_this_run(observation, &self.worker.issuers)
        });
        let (why, found) = match (observation, found) {
            (Some(Observation::Ours(_)), Some(pass)) if pass.is_disabled() => (
                "the tenant's policy does not let its pass work (DisabledByPolicy)".to_owned(),
                None,
            ),
            (Some(Observation::Orphan(method) | Observation::Used(method)), Some(pass)) => {
                let event =
                    Event::OrphanFound { method: method.clone(), over: latest_end(pass, now) };
                self.worker.ledger.record(line, event).await?;
                let why = "another pass stands on the user that looks like this run's own: its request was carried out twice, or is listed under another id, so that the sealed code may not work";
                (why.to_owned(), Some(method))
            }
            (Some(Observation::Newer(method) | Observation::Foreign(method)), Some(pass)) => {
                (self.by_whom(&method, pass), Some(method))
            }
            _ => return Ok(false),
        };
        self.lose(row, why, found).await?;
        Ok(true)
    }

    fn by_whom(&self, method: &MethodId, pass: &FoundPass) -> String {
        let run = (self.worker.issuers)(std::slice::from_ref(method)).remove(method);
        let who = match run {
            Some(run) => format!("by run {run}"),
            None => "by somebody else: the helpdesk, tapwave on another machine, or a gateway that carried the request out again".to_owned(),
        };
        let when = pass.created_date_time.map(|at| format!(" at {at:.0}")).unwrap_or_default();
        format!("its pass was replaced{when} {who} (method {method})")
    }

    async fn lose_unseen(&self, line: Line, unseen: NotSeen) -> Result<(), RunError> {
        let row = self.worker.row(line).await?;
        self.lose(&row, unseen.why().to_owned(), None).await
    }

    async fn lose(
        &self,
        row: &RowRecord,
        why: String,
        found: Option<MethodId>,
    ) -> Result<(), RunError> {
        let (line, upn) = (row.line, row.upn.clone());
        let why = match &row.handoff {
            Some(file) => format!("{why}; {file}, which was handed over before, holds its code"),
            None => why,
        };
        self.worker.ledger.record(line, Event::Displaced { why: why.clone(), found }).await?;
        self.session.report(ProgressEvent::RowLost { line, upn, why });
        Ok(())
    }
}

fn expected(passes: u64, outlook: Outlook) -> Duration {
    let Some(per_second) = outlook.per_second.filter(|rate| *rate > 0.0) else {
        return outlook.holding;
    };
    #[expect(clippy::cast_precision_loss, reason = "rows are far fewer than 2^52")]
    let seconds = passes as f64 / per_second;
    outlook.holding + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 2)
}
