//! Promises that after the settling time nothing of a lost attempt is left on the user, or that the
//! row is held for an operator.
//!
//! In this order: wait, list, delete the orphan by its id, let `issue` ask again, list and compare.
//! Must never delete a pass that it does not recognise as this row's. Graph's lists may be behind:
//! before anything is concluded from a listed pass that is gone, or from a sealed one that is not
//! listed, they are read again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::check::Issuers;
use crate::worker::{RunError, Worker};
use tapwave_core::clock::{Clocks, apart, earlier, later, span};
use tapwave_core::ids::{Line, MethodId, UserId};
use tapwave_core::limits;
use tapwave_graph::verdict::Refusal;
use tapwave_graph::{FoundPass, GraphError};
use tapwave_ledger::{
    Event, Existing, IntentRecord, LedgerError, Proof, Remains, RowRecord, State,
};

/// Why rows are held.
const NOT_THERE: &str =
    "the pass that was sealed is not the one on the user; delete what is there, then resume";
const IN_THE_WAY: &str =
    "there is a pass that this run did not issue; delete it, or leave the person out, then resume";
const STILL_IN_THE_WAY: &str = "a pass that this run did not issue is still there; delete it, or leave the person out, then resume";
const USED: &str =
    "the pass of an attempt whose answer was lost has been used; nobody of yours holds its code";
const UNSEEN: &str = "Graph refuses another pass because one exists, and lists none; look at this person in Entra, then resume";

/// Why nothing is concluded from a list.
const STALE: &str = "Graph still lists a pass that is gone; resume looks again";
const NOT_LISTED: &str = "Graph does not list the pass that was sealed; resume looks again";

const OTHERWISE: &str = "Graph does not list the pass that was shown any more; nothing was deleted";

fn behind(why: &str) -> Reconciled {
    Reconciled::Behind { why: why.to_owned() }
}

/// How reconciling ended; the ledger has recorded it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconciled {
    /// Nothing of this row is on the user: it may be tried again.
    Free,
    /// The sealed pass is on the user.
    Sealed,
    Held {
        why: String,
    },
    /// A replica may be behind: nothing is concluded until another look.
    Behind {
        why: String,
    },
}

/// What a list shows of a user, seen from one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// No pass, or an expired one.
    Nothing,
    /// A pass that was deleted: the list is behind.
    Stale(MethodId),
    /// A pass of this row that was given up, because lists did not show it: this list is behind, or
    /// those were.
    GivenUp(MethodId),
    Ours(MethodId),
    /// An unused pass of one of this row's attempts, under an unknown id.
    Orphan(MethodId),
    /// The same, but used.
    Used(MethodId),
    /// Somebody else's, older than all attempts.
    Older(MethodId),
    /// Somebody else's, newer than all attempts: it has replaced whatever this row had.
    Newer(MethodId),
    /// Probably somebody else's, made when this row's attempts ran.
    Foreign(MethodId),
}

/// Judges a found pass by what the ledger knows of the row.
///
/// A pass is this row's if the ledger knows its id, or if it was created in the time in which an
/// attempt may have run, as that attempt asked. Answered attempts count too: a gateway may carry
/// one out twice, or Graph list it under another id.
pub fn observe(
    found: Option<&FoundPass>,
    remains: &Remains,
    settle_after: Duration,
    graph_now: Timestamp,
) -> Observation {
    let Some(pass) = found else { return Observation::Nothing };
    let id = pass.id.clone();
    if remains.gone.contains(&id) {
        return Observation::Stale(id);
    }
    if remains.alive.iter().any(|(known, _)| *known == id) {
        return Observation::Ours(id);
    }
    if remains.given_up.contains(&id) {
        let is_live = pass.is_live(graph_now);
        return if is_live { Observation::GivenUp(id) } else { Observation::Nothing };
    }
    let windows: Vec<(Timestamp, Timestamp, &IntentRecord)> =
        remains.attempts.iter().map(|one| window(one, settle_after)).collect();
    let is_of = |(first, last, attempt): &(Timestamp, Timestamp, &IntentRecord)| {
        pass.created_date_time.is_some_and(|at| *first <= at && at <= *last)
            && is_as_asked(pass, attempt)
            && (attempt.may_live || !remains.seen)
    };
    if windows.iter().any(is_of) {
        return if pass.is_used() { Observation::Used(id) } else { Observation::Orphan(id) };
    }
    if !pass.is_live(graph_now) {
        return Observation::Nothing;
    }
    let Some(created) = pass.created_date_time.filter(|_| !windows.is_empty()) else {
        return Observation::Foreign(id);
    };
    if windows.iter().all(|(first, ..)| created < *first) {
        Observation::Older(id)
    } else if windows.iter().all(|(_, last, _)| created > *last) {
        Observation::Newer(id)
    } else {
        Observation::Foreign(id)
    }
}

/// A pass that another run of this machine is known to have issued is not this run's.
pub fn of_this_run(observation: Observation, issuers: &Issuers) -> Observation {
    match observation {
        Observation::Orphan(id) | Observation::Used(id)
            if !issuers(std::slice::from_ref(&id)).is_empty() =>
        {
            Observation::Foreign(id)
        }
        other => other,
    }
}

fn window(attempt: &IntentRecord, settle_after: Duration) -> (Timestamp, Timestamp, &IntentRecord) {
    let (slack, wait) = if attempt.may_live {
        (limits::CLOCK_SLACK, settle_after)
    } else {
        (limits::ANSWERED_SLACK, Duration::ZERO)
    };
    let first = earlier(attempt.graph_time, slack);
    (first, later(ended(attempt), wait + slack), attempt)
}

/// Whether a pass may be this attempt's: made as it asked and, unless Graph gives no date, when it
/// could make one.
pub fn may_be_of(pass: &FoundPass, attempt: &IntentRecord, settle_after: Duration) -> bool {
    let (first, last, _) = window(attempt, settle_after);
    pass.created_date_time.is_none_or(|at| first <= at && at <= last) && is_as_asked(pass, attempt)
}

/// When the attempt ended, or must have, by Graph's clock.
fn ended(attempt: &IntentRecord) -> Timestamp {
    attempt.given_up.unwrap_or_else(|| later(attempt.graph_time, limits::ATTEMPT_TIMEOUT))
}

/// How much of `wait` is left since the attempt ended. Either clock may be wrong, so that the time
/// must have passed on both, each measured from its own start.
fn remaining(wait: Duration, attempt: &IntentRecord, now: Clocks) -> Duration {
    let lasted = match attempt.given_up {
        // Graph counts whole seconds, so that its clock may seem to go back by one.
        Some(ended) if later(ended, limits::DATE_ROUNDING) >= attempt.graph_time => {
            span(attempt.graph_time, ended)
        }
        _ => limits::ATTEMPT_TIMEOUT,
    };
    let lasted = lasted.min(limits::ATTEMPT_TIMEOUT);
    let by_graph = span(now.graph, later(ended(attempt), wait));
    let by_machine = span(now.machine, later(attempt.minted, lasted + wait));
    by_graph.max(by_machine)
}

/// How long until none of the row's attempts may execute any more: at most the settling time, so
/// that a clock that was set back delays nothing.
pub fn settles_in(remains: &Remains, settle_after: Duration, now: Clocks) -> Duration {
    let open = remains.attempts.iter().filter(|attempt| attempt.may_live);
    open.map(|attempt| settled_after(attempt, settle_after, now)).max().unwrap_or_default()
}

fn settled_after(attempt: &IntentRecord, settle_after: Duration, now: Clocks) -> Duration {
    remaining(settle_after + limits::CLOCK_SLACK, attempt, now).min(settle_after)
}

/// Whether every pass that the row got, or may have got, has expired; false if it got none.
pub fn is_over(remains: &Remains, settle_after: Duration, now: Clocks) -> bool {
    let is_over = |attempt: &IntentRecord| {
        let lifetime = Duration::from_secs(u64::from(attempt.asked.lifetime_minutes) * 60);
        let life = lifetime + limits::CLOCK_SLACK;
        remaining(settle_after + life, attempt, now).is_zero()
            && attempt.asked.start.is_none_or(|start| later(start, life) <= now.least())
    };
    let mut open = remains.attempts.iter().filter(|attempt| attempt.may_live).peekable();
    (open.peek().is_some() || !remains.alive.is_empty())
        && open.all(is_over)
        && remains.alive.iter().all(|(_, over)| *over <= now.least())
}

/// How far apart two looks must be for an absence to count as proof. Lists lag, however short the
/// settling time is.
pub fn absence_window(settle_after: Duration) -> Duration {
    settle_after.max(limits::LEAST_PATIENCE)
}

/// For how long a pass that is not listed is looked at again: Graph's clock counts whole seconds.
pub fn absence_patience(settle_after: Duration) -> Duration {
    absence_window(settle_after) + limits::DATE_ROUNDING
}

/// Explains a pass that is a lost attempt's by everything but its date: the clocks within Graph may
/// disagree.
fn misdated(pass: &FoundPass, remains: &Remains) -> Option<String> {
    let off = off_by(pass, remains)?;
    Some(format!(
        "there is a pass like the one that was asked for, made {} {} the request by Graph's clocks, so that it cannot be told whose it is; if nobody else issued it, resume with --remove-found deletes it and issues another; else leave the person out",
        apart(off),
        if off.is_negative() { "before" } else { "after" },
    ))
}

/// How long after the matching attempt's request a pass was made; negative if before.
fn off_by(pass: &FoundPass, remains: &Remains) -> Option<SignedDuration> {
    let created = pass.created_date_time?;
    Some(created.duration_since(matching_attempt(pass, remains)?.graph_time))
}

fn matching_attempt<'a>(pass: &FoundPass, remains: &'a Remains) -> Option<&'a IntentRecord> {
    let mut open = remains.attempts.iter().filter(|attempt| attempt.may_live);
    open.rfind(|attempt| is_as_asked(pass, attempt))
}

/// Whether a pass may be a lost attempt's although its date says otherwise: the clocks within Graph
/// may disagree, or the `Date` of its answers was wrong, and then this machine's clock tells when
/// the attempt was made.
pub fn may_be_misdated(pass: &FoundPass, remains: &Remains, settle_after: Duration) -> bool {
    let most = settle_after + limits::PARTS_APART;
    let (Some(created), Some(attempt)) = (pass.created_date_time, matching_attempt(pass, remains))
    else {
        return false;
    };
    let near = |moment: Timestamp| created.duration_since(moment).unsigned_abs() <= most;
    near(attempt.graph_time) || near(attempt.minted)
}

/// When a found pass has expired at the latest, by Graph's clock.
pub fn latest_end(pass: &FoundPass, graph_now: Timestamp) -> Timestamp {
    let longest = Duration::from_secs(u64::from(*limits::LIFETIME_MINUTES.end()) * 60);
    let end = pass.end().unwrap_or_else(|| {
        later(pass.start_date_time.map_or(graph_now, |start| start.max(graph_now)), longest)
    });
    later(end, limits::CLOCK_SLACK)
}

/// Whether a pass is what the attempt asked for. What Graph leaves out does not count.
fn is_as_asked(pass: &FoundPass, attempt: &IntentRecord) -> bool {
    let asked = &attempt.asked;
    let lifetime = pass.lifetime_in_minutes.is_none_or(|minutes| minutes == asked.lifetime_minutes);
    let once = pass.is_usable_once.is_none_or(|once| once == asked.one_time);
    let start = match (asked.start, pass.start_date_time) {
        // Graph may round it.
        (Some(asked), Some(found)) => {
            asked.duration_since(found).unsigned_abs() <= limits::CLOCK_SLACK
        }
        // If no start was asked for, Graph's is the moment of creation, or absent.
        (None, Some(found)) => pass.created_date_time.is_none_or(|created| {
            created.duration_since(found).unsigned_abs() <= limits::CLOCK_SLACK
        }),
        (_, None) => true,
    };
    lifetime && once && start
}

impl Worker {
    /// When a row that a resume finds unsettled may be reconciled: a settling time after its
    /// attempt ended, by both clocks.
    pub fn settled_from(&self, attempt: &IntentRecord, started: Instant) -> Instant {
        started + settled_after(attempt, self.settle_after, self.graph.clocks())
    }

    /// Records that an attempt is unsettled whose answer a killed process did not hear.
    pub async fn mark_lost(&self, row: &RowRecord) -> Result<(), RunError> {
        if let State::Intent { intent, .. } = &row.state {
            let attempt = row.attempt()?;
            let given_up = later(attempt.graph_time, limits::ATTEMPT_TIMEOUT);
            let why = "the program ended before the answer came".to_owned();
            let lost = Event::Lost { intent: *intent, why, given_up, method: None };
            self.ledger.record(row.line, lost).await?;
        }
        Ok(())
    }

    /// Reconciles an unsettled, held or lost row. The settling time must have passed.
    pub async fn reconcile(&self, line: Line) -> Result<Reconciled, RunError> {
        let row = self.row(line).await?;
        let (user, remains) = (row.person()?.user, self.remains(line).await?);
        let found = match self.look(user).await? {
            Ok(found) => found,
            Err(refusal) => return self.unread(&row, &refusal).await,
        };
        let observation = observe(found.as_ref(), &remains, self.settle_after, self.graph.now());
        let observation = of_this_run(observation, &self.issuers);
        match (&row.state, observation) {
            (_, Observation::Stale(_)) => Ok(behind(STALE)),
            (
                State::Held { sealed: Some(sealed) } | State::Lost { method: sealed },
                Observation::Ours(method),
            ) if *sealed == method => self.own_again(&row, found.as_ref()).await,
            (
                _,
                Observation::Ours(method)
                | Observation::Orphan(method)
                | Observation::GivenUp(method),
            ) => {
                let over = found.as_ref().map(|pass| latest_end(pass, self.graph.now()));
                self.remove_orphan(&row, user, method, over.unwrap_or(Timestamp::MAX)).await
            }
            // Somebody may have the pass: one list without it is not enough.
            (State::Held { sealed: Some(_) } | State::Lost { .. }, Observation::Nothing) => {
                self.missed(line, &remains).await
            }
            (_, Observation::Nothing) => self.settled(line, None, None).await,
            (State::Unsettled { .. }, Observation::Older(_))
                if self.existing == Existing::Replace =>
            {
                self.settled(line, None, None).await
            }
            (_, Observation::Used(method)) => self.hold(&row, USED.to_owned(), Some(method)).await,
            (
                state,
                Observation::Older(method)
                | Observation::Newer(method)
                | Observation::Foreign(method),
            ) => {
                let first = matches!(state, State::Unsettled { .. });
                let why = if first { IN_THE_WAY } else { STILL_IN_THE_WAY };
                let misdated = found.as_ref().and_then(|pass| misdated(pass, &remains));
                let why = misdated.unwrap_or_else(|| why.to_owned());
                self.hold(&row, why, Some(method)).await
            }
        }
    }

    /// Deletes the pass that holds a row and frees the row, if it is the very pass that a person
    /// was shown and agreed to delete.
    pub async fn remove_found(
        &self,
        line: Line,
        shown: &FoundPass,
    ) -> Result<Reconciled, RunError> {
        let row = self.row(line).await?;
        let user = row.person()?.user;
        match self.look(user).await? {
            Ok(Some(found)) if found.id == shown.id => {
                let over = latest_end(&found, self.graph.now());
                self.remove_orphan(&row, user, found.id, over).await
            }
            Ok(_) => Ok(behind(OTHERWISE)),
            Err(refusal) => self.unread(&row, &refusal).await,
        }
    }

    pub async fn hold_unseen(&self, line: Line) -> Result<Reconciled, RunError> {
        self.hold_for(line, UNSEEN.to_owned()).await
    }

    pub async fn hold_for(&self, line: Line, why: String) -> Result<Reconciled, RunError> {
        let row = self.row(line).await?;
        self.hold(&row, why, None).await
    }

    /// Gives up a sealed pass that is not listed, if it has expired or was missed before, at least
    /// the settling time ago.
    async fn missed(&self, line: Line, remains: &Remains) -> Result<Reconciled, RunError> {
        let now = self.graph.clocks();
        if is_over(remains, self.settle_after, now) {
            return self.settled(line, None, Some(Proof::Over)).await;
        }
        if remains.absent_for(now).is_some_and(|absent| absent >= absence_window(self.settle_after))
        {
            return self.settled(line, None, Some(Proof::Absent)).await;
        }
        self.ledger.record(line, Event::NotListed { graph_time: now.graph }).await?;
        Ok(behind(NOT_LISTED))
    }

    /// A 404 is about the user, and says nothing about a pass.
    async fn unread(&self, row: &RowRecord, refusal: &Refusal) -> Result<Reconciled, RunError> {
        let why = format!("its passes cannot be read: {refusal}");
        if refusal.status == 404 {
            return Ok(Reconciled::Behind { why });
        }
        self.hold(row, why, None).await
    }

    /// Looks at a sealed pass that is unproven: it followed a lost attempt, or its process did not
    /// end in order. [`Reconciled::Behind`] if it is not listed yet.
    pub async fn verify(&self, line: Line) -> Result<Reconciled, RunError> {
        let row = self.row(line).await?;
        let State::Sealed { method: sealed, proven: false } = &row.state else {
            return Ok(Reconciled::Sealed);
        };
        let found = match self.look(row.person()?.user).await? {
            Ok(found) => found,
            Err(refusal) => return self.unread(&row, &refusal).await,
        };
        let remains = self.remains(line).await?;
        match observe(found.as_ref(), &remains, self.settle_after, self.graph.now()) {
            Observation::Ours(method) if method == *sealed => {
                self.ledger.record(line, Event::Verified).await?;
                Ok(Reconciled::Sealed)
            }
            Observation::Nothing | Observation::Stale(_) | Observation::GivenUp(_) => {
                Ok(behind(NOT_LISTED))
            }
            // The pass that it replaced may be listed for a while.
            Observation::Older(_) if self.existing == Existing::Replace => Ok(behind(NOT_LISTED)),
            Observation::Ours(method)
            | Observation::Orphan(method)
            | Observation::Used(method)
            | Observation::Older(method)
            | Observation::Newer(method)
            | Observation::Foreign(method) => {
                self.hold(&row, NOT_THERE.to_owned(), Some(method)).await
            }
        }
    }

    /// Gives up a sealed pass that was not listed for the settling time. An answered POST does not
    /// execute late, so that a row whose pass was only `inherited` from an earlier process may be
    /// tried again; others are held.
    pub async fn give_up_on(&self, line: Line, inherited: bool) -> Result<Reconciled, RunError> {
        if inherited {
            return self.settled(line, None, Some(Proof::Absent)).await;
        }
        let row = self.row(line).await?;
        self.hold(&row, NOT_THERE.to_owned(), None).await
    }

    /// The pass of a held or lost row is listed after all; it may be disabled.
    async fn own_again(
        &self,
        row: &RowRecord,
        found: Option<&FoundPass>,
    ) -> Result<Reconciled, RunError> {
        if let (State::Lost { .. }, Some(true)) = (&row.state, found.map(FoundPass::is_disabled)) {
            let why = "the tenant's policy does not let its pass work".to_owned();
            return Ok(Reconciled::Held { why });
        }
        self.ledger.record(row.line, Event::Verified).await?;
        Ok(Reconciled::Sealed)
    }

    async fn remove_orphan(
        &self,
        row: &RowRecord,
        user: UserId,
        method: MethodId,
        over: Timestamp,
    ) -> Result<Reconciled, RunError> {
        let line = row.line;
        self.ledger.record(line, Event::OrphanFound { method: method.clone(), over }).await?;
        match self.graph.delete_passes(&[(user, method.clone())]).await?.pop() {
            Some(Ok(())) => self.settled(line, Some(method), Some(Proof::Deleted)).await,
            None => Ok(behind(STALE)),
            // The pass was listed a moment ago: one of the two answers is behind.
            Some(Err(refusal)) if refusal.status == 404 => Ok(behind(STALE)),
            Some(Err(refusal)) => {
                // Without its id, so that it is not recorded as somebody else's.
                let why = format!("the pass of a lost attempt cannot be deleted: {refusal}");
                self.hold(row, why, None).await
            }
        }
    }

    async fn remains(&self, line: Line) -> Result<Remains, RunError> {
        let remains = self.ledger.remains_of(vec![line]).await?.pop();
        Ok(remains.ok_or(LedgerError::UnknownLine(line))?)
    }

    async fn look(&self, user: UserId) -> Result<Result<Option<FoundPass>, Refusal>, RunError> {
        let found = self.graph.passes(&[user]).await?.pop();
        Ok(found.ok_or(GraphError::Shape { doing: "list passes" })?)
    }

    async fn settled(
        &self,
        line: Line,
        found: Option<MethodId>,
        proof: Option<Proof>,
    ) -> Result<Reconciled, RunError> {
        self.ledger.record(line, Event::Settled { found, proof }).await?;
        Ok(Reconciled::Free)
    }

    /// A lost row stays lost.
    async fn hold(
        &self,
        row: &RowRecord,
        why: String,
        found: Option<MethodId>,
    ) -> Result<Reconciled, RunError> {
        if !matches!(row.state, State::Lost { .. }) {
            self.ledger.record(row.line, Event::Held { why: why.clone(), found }).await?;
        }
        Ok(Reconciled::Held { why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapwave_ledger::{Asked, IntentId};

    const SETTLE_AFTER: Duration = Duration::from_mins(5);

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn attempt() -> IntentRecord {
        IntentRecord {
            id: IntentId(1),
            asked: Asked { start: None, lifetime_minutes: 60, one_time: false },
            graph_time: moment("2026-03-01T08:00:00Z"),
            minted: moment("2026-03-01T08:00:00Z"),
            given_up: Some(moment("2026-03-01T08:01:40Z")),
            outcome: None,
            may_live: true,
        }
    }

    fn remains() -> Remains {
        Remains {
            line: Line(2),
            upn: "ada@contoso.example".into(),
            unreadable: None,
            user: None,
            state: State::Unsettled { intent: IntentId(1), orphan: None },
            alive: Vec::new(),
            gone: Vec::new(),
            given_up: Vec::new(),
            attempts: vec![attempt()],
            absent_since: None,
            absent_at: None,
            seen: false,
            deleted: Vec::new(),
        }
    }

    fn pass(created: &str) -> FoundPass {
        FoundPass {
            id: "found".parse().expect("an id"),
            created_date_time: Some(moment(created)),
            start_date_time: Some(moment(created)),
            lifetime_in_minutes: Some(60),
            is_usable_once: Some(false),
            is_usable: Some(true),
            method_usability_reason: Some("EnabledByPolicy".into()),
        }
    }

    fn seen(pass: &FoundPass) -> Observation {
        among(pass, &remains())
    }

    fn among(pass: &FoundPass, remains: &Remains) -> Observation {
        observe(Some(pass), remains, SETTLE_AFTER, moment("2026-03-01T08:10:00Z"))
    }

    fn id() -> MethodId {
        "found".parse().expect("an id")
    }

    #[test]
    fn ours_is_what_the_attempt_asked_for_in_the_time_it_could_have_run() {
        assert_eq!(seen(&pass("2026-03-01T08:00:01Z")), Observation::Orphan(id()));
        assert_eq!(seen(&pass("2026-03-01T07:59:01Z")), Observation::Orphan(id()), "clocks differ");
        assert_eq!(seen(&pass("2026-03-01T08:06:30Z")), Observation::Orphan(id()), "executed late");
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        assert_eq!(seen(&pass("2026-03-01T07:58:00Z")), Observation::Older(id()));
        assert_eq!(seen(&pass("2026-03-01T08:08:00Z")), Observation::Newer(id()), "too late");
        let longer = FoundPass { lifetime_in_minutes: Some(480), ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&longer), Observation::Foreign(id()));
        let once = FoundPass { is_usable_once: Some(true), ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&once), Observation::Foreign(id()));
        let later = FoundPass {
            start_date_time: Some(moment("2026-03-02T08:00:00Z")),
            ..pass("2026-03-01T08:00:01Z")
        };
        assert_eq!(seen(&later), Observation::Foreign(id()));
        let undated = FoundPass { created_date_time: None, ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&undated), Observation::Foreign(id()), "in doubt, hold");
    }

    #[test]
    fn a_used_pass_is_no_orphan() {
        let used = FoundPass {
            method_usability_reason: Some("OneTimeUsed".into()),
            ..pass("2026-03-01T08:00:01Z")
        };
        assert_eq!(seen(&used), Observation::Used(id()));
    }

    #[test]
    fn a_pass_that_is_over_is_in_nobody_s_way() {
        let over = FoundPass {
            method_usability_reason: Some("Expired".into()),
            ..pass("2026-03-01T06:00:00Z")
        };
        assert_eq!(seen(&over), Observation::Nothing);
    }

    #[test]
    fn what_the_ledger_knows_by_its_id_is_ours_or_gone_whatever_the_list_says() {
        let known = pass("2026-03-01T07:00:00Z");
        let alive = Remains { alive: vec![(id(), Timestamp::MAX)], ..remains() };
        assert_eq!(among(&known, &alive), Observation::Ours(id()));
        let gone = Remains { gone: vec![id()], ..remains() };
        assert_eq!(among(&known, &gone), Observation::Stale(id()), "we deleted it ourselves");
    }

    #[test]
    fn an_answered_attempt_may_stand_there_under_another_id() {
        let sealed = IntentRecord { may_live: false, outcome: Some("sealed".into()), ..attempt() };
        let answered = Remains { attempts: vec![sealed], ..remains() };
        let orphan = among(&pass("2026-03-01T08:01:41Z"), &answered);
        assert_eq!(orphan, Observation::Orphan(id()));
        let helpdesk = among(&pass("2026-03-01T08:01:45Z"), &answered);
        assert_eq!(helpdesk, Observation::Newer(id()), "nothing of ours executes after its answer");
        let seen = Remains { seen: true, ..answered };
        let other = among(&pass("2026-03-01T08:01:41Z"), &seen);
        assert_eq!(other, Observation::Foreign(id()), "the answered one was seen itself");
    }

    #[test]
    fn what_may_be_alive_is_over_when_the_longest_of_it_is() {
        let known = moment("2026-03-01T10:00:00Z");
        let both = Remains { alive: vec![(id(), known)], ..remains() };
        let at = |text| Clocks { graph: moment(text), machine: moment(text) };
        let over = |remains: &Remains, now| is_over(remains, SETTLE_AFTER, now);
        // Ended at 08:01:40, five minutes of settling, an hour of life, a minute of slack.
        assert!(!over(&remains(), at("2026-03-01T09:07:39Z")));
        assert!(over(&remains(), at("2026-03-01T09:07:40Z")));
        assert!(!over(&both, at("2026-03-01T09:59:59Z")));
        assert!(over(&both, at("2026-03-01T10:00:00Z")));
        let quiet = |now| settles_in(&both, SETTLE_AFTER, now);
        assert_eq!(quiet(at("2026-03-01T08:07:30Z")), Duration::from_secs(10));
        assert_eq!(quiet(at("2026-03-01T08:07:40Z")), Duration::ZERO);
        let nothing = Remains { attempts: Vec::new(), ..remains() };
        assert!(!over(&nothing, at("2026-03-02T08:00:00Z")));
    }

    #[test]
    fn time_has_passed_where_it_has_on_both_clocks_each_from_its_own_start() {
        // The answers were dated two hours behind then, and are right now.
        let misdated = IntentRecord {
            graph_time: moment("2026-03-01T06:00:00Z"),
            given_up: Some(moment("2026-03-01T06:00:10Z")),
            ..attempt()
        };
        let row = Remains { attempts: vec![misdated], ..remains() };
        let now = moment("2026-03-01T08:02:00Z");
        let now = Clocks { graph: now, machine: now };
        assert!(!is_over(&row, SETTLE_AFTER, now));
        assert_eq!(settles_in(&row, SETTLE_AFTER, now), Duration::from_secs(250));
        // The date in the list is right, and the attempt's was not.
        assert!(may_be_misdated(&pass("2026-03-01T08:00:01Z"), &row, SETTLE_AFTER));
        assert!(!may_be_misdated(&pass("2026-03-01T09:00:01Z"), &row, SETTLE_AFTER));
        // This machine's clock was set back by a day: the wait is bounded.
        let back = Clocks { machine: moment("2026-02-28T08:00:00Z"), ..now };
        assert_eq!(settles_in(&remains(), SETTLE_AFTER, back), SETTLE_AFTER);
    }
}
