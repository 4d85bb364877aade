//! Promises that after the settling time nothing of a lost attempt is left on the user, or that
//! the row is held for an operator.
//!
//! Wait → list → delete our orphan by its id → (POST again, by `issue`) → list and compare.
//! Deletes only what it recognises as this row's; whatever else is found stays. Graph's lists may
//! show the past: a pass known to be gone that is listed, or a sealed one that is not, is looked
//! at again before anything is concluded from it.

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

/// Why a row is held whose sealed pass is not on the user.
const NOT_THERE: &str =
    "the pass that was sealed is not the one on the user; delete what is there, then resume";
/// Why a row is held after an attempt was lost.
const IN_THE_WAY: &str =
    "there is a pass that this run did not issue; delete it, or leave the person out, then resume";
/// The same, at a later look.
const STILL_IN_THE_WAY: &str = "a pass that this run did not issue is still there; delete it, or leave the person out, then resume";
/// Why a row is held whose lost pass has been used.
const USED: &str =
    "the pass of an attempt whose answer was lost has been used; nobody of yours holds its code";
/// Why a row is held that Graph refuses a pass without showing what is in its way.
const UNSEEN: &str = "Graph refuses another pass because one exists, and lists none; look at this person in Entra, then resume";

/// What is odd about a pass that is listed after its end.
const STALE: &str = "Graph still lists a pass that is gone; resume looks again";
/// What is odd about a pass that is not listed.
const NOT_LISTED: &str = "Graph does not list the pass that was sealed; resume looks again";

/// What is odd about a pass that was shown to a person and is not listed any more.
const OTHERWISE: &str = "Graph does not list the pass that was shown any more; nothing was deleted";

fn behind(why: &str) -> Reconciled {
    Reconciled::Behind { why: why.to_owned() }
}

/// What settling came to; the ledger has it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconciled {
    /// Nothing of ours was seen; the row may be tried again.
    Free,
    /// The sealed pass is the one on the user.
    Sealed,
    /// An operator must look.
    Held { why: String },
    /// A replica may be behind: nothing was concluded, and another look may tell.
    Behind {
        /// What is odd, for people.
        why: String,
    },
}

/// What stands on the user, seen with one row's passes and attempts in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Nothing, or a pass that is over.
    Nothing,
    /// A pass that we deleted: the list is behind.
    Stale(MethodId),
    /// A pass of this row that was given up, because lists did not show it: either this list is
    /// behind, or those were.
    GivenUp(MethodId),
    /// A pass of this row whose id is known.
    Ours(MethodId),
    /// The pass of one of this row's attempts, unused, under an id that nobody knew.
    Orphan(MethodId),
    /// The same, but somebody has used it.
    Used(MethodId),
    /// Somebody else's, from before all attempts.
    Older(MethodId),
    /// Somebody else's, from after all attempts: it stands in the place of whatever was ours.
    Newer(MethodId),
    /// Not ours as far as can be told, and made while it could be.
    Foreign(MethodId),
}

/// Judges a found pass by what the ledger knows of the row.
///
/// Ours is a pass whose id the ledger ever knew, and one that was created, in Graph's time,
/// between a minute before an intent and the last moment its attempt could have run, with the
/// lifetime, one-time flag and start it asked for: also after an answered attempt, which a gateway
/// may carry out twice, or Graph list under another id.
#[must_use]
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
            && answers(pass, attempt)
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

/// What another run of this machine knows by its id is that run's, whatever its shape.
#[must_use]
pub fn of_this_run(sighting: Observation, issuers: &Issuers) -> Observation {
    match sighting {
        Observation::Orphan(id) | Observation::Used(id)
            if !issuers(std::slice::from_ref(&id)).is_empty() =>
        {
            Observation::Foreign(id)
        }
        other => other,
    }
}

/// When the pass of an attempt may have been created.
fn window(attempt: &IntentRecord, settle_after: Duration) -> (Timestamp, Timestamp, &IntentRecord) {
    let (slack, wait) = if attempt.may_live {
        (limits::CLOCK_SLACK, settle_after)
    } else {
        (limits::ANSWERED_SLACK, Duration::ZERO)
    };
    let first = earlier(attempt.graph_time, slack);
    (first, later(ended(attempt), wait + slack), attempt)
}

/// Whether a pass may be this attempt's: it is shaped as was asked, and Graph says that it was made
/// when the attempt could make one, or does not say when.
pub fn may_be_of(pass: &FoundPass, attempt: &IntentRecord, settle_after: Duration) -> bool {
    let (first, last, _) = window(attempt, settle_after);
    pass.created_date_time.is_none_or(|at| first <= at && at <= last) && answers(pass, attempt)
}

/// Graph's clock when the answer came or was given up, or must have been.
fn ended(attempt: &IntentRecord) -> Timestamp {
    attempt.given_up.unwrap_or_else(|| later(attempt.graph_time, limits::ATTEMPT_TIMEOUT))
}

/// How much of `wait` is left since an attempt ended, or must have. Its Date may have been wrong
/// then, and right now, so what counts is what has passed on both clocks, each from its own start.
fn left_of(wait: Duration, attempt: &IntentRecord, now: Clocks) -> Duration {
    let lasted = match attempt.given_up {
        // Graph tells whole seconds, so that its clock may seem to go back by one.
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

/// How long until no attempt of the row is feared to be carried out any more: the settling time at
/// most, since a clock that was set back is not waited for.
#[must_use]
pub fn quiet_in(remains: &Remains, settle_after: Duration, now: Clocks) -> Duration {
    let open = remains.attempts.iter().filter(|attempt| attempt.may_live);
    open.map(|attempt| quiet_after(attempt, settle_after, now)).max().unwrap_or_default()
}

fn quiet_after(attempt: &IntentRecord, settle_after: Duration, now: Clocks) -> Duration {
    left_of(settle_after + limits::CLOCK_SLACK, attempt, now).min(settle_after)
}

/// Whether whatever the row got, or may have got, is over; false if it got nothing.
#[must_use]
pub fn is_over(remains: &Remains, settle_after: Duration, now: Clocks) -> bool {
    let is_over = |attempt: &IntentRecord| {
        let lifetime = Duration::from_secs(u64::from(attempt.asked.lifetime_minutes) * 60);
        let life = lifetime + limits::CLOCK_SLACK;
        left_of(settle_after + life, attempt, now).is_zero()
            && attempt.asked.start.is_none_or(|start| later(start, life) <= now.least())
    };
    let mut open = remains.attempts.iter().filter(|attempt| attempt.may_live).peekable();
    (open.peek().is_some() || !remains.alive.is_empty())
        && open.all(is_over)
        && remains.alive.iter().all(|(_, over)| *over <= now.least())
}

/// How far apart two looks must lie that are to prove by what they do not show. Lists lag whatever
/// settling time an operator names.
#[must_use]
pub fn watch_for(settle_after: Duration) -> Duration {
    settle_after.max(limits::LEAST_PATIENCE)
}

/// What is said of a pass that is nobody's by its time and a lost attempt's by all else: Graph's
/// own clocks may disagree, or this machine's answers come from a clock that is wrong.
fn misdated(pass: &FoundPass, remains: &Remains) -> Option<String> {
    let off = off_by(pass, remains)?;
    Some(format!(
        "there is a pass like the one that was asked for, made {} {} the request by Graph's clocks, so that it cannot be told whose it is; if nobody else issued it, resume with --remove-found deletes it and issues another; else leave the person out",
        apart(off),
        if off.is_negative() { "before" } else { "after" },
    ))
}

/// How long after a lost attempt's request a pass was made that looks like that attempt's; negative
/// if before.
fn off_by(pass: &FoundPass, remains: &Remains) -> Option<SignedDuration> {
    let created = pass.created_date_time?;
    Some(created.duration_since(alike(pass, remains)?.graph_time))
}

/// The latest lost attempt that asked for a pass like this one.
fn alike<'a>(pass: &FoundPass, remains: &'a Remains) -> Option<&'a IntentRecord> {
    let mut open = remains.attempts.iter().filter(|attempt| attempt.may_live);
    open.rfind(|attempt| answers(pass, attempt))
}

/// Whether a pass that is not a lost attempt's by its time may be so all the same, because the
/// clocks of Graph's parts do not agree, or the Date of its answers was wrong: then this machine's
/// clock tells when the attempt was made.
pub fn may_be_misdated(pass: &FoundPass, remains: &Remains, settle_after: Duration) -> bool {
    let most = settle_after + limits::PARTS_APART;
    let (Some(created), Some(attempt)) = (pass.created_date_time, alike(pass, remains)) else {
        return false;
    };
    let near = |moment: Timestamp| created.duration_since(moment).unsigned_abs() <= most;
    near(attempt.graph_time) || near(attempt.minted)
}

/// When a found pass is over at the latest, by Graph's clock.
#[must_use]
pub fn over(pass: &FoundPass, graph_now: Timestamp) -> Timestamp {
    let longest = Duration::from_secs(u64::from(*limits::LIFETIME_MINUTES.end()) * 60);
    let end = pass.end().unwrap_or_else(|| {
        later(pass.start_date_time.map_or(graph_now, |start| start.max(graph_now)), longest)
    });
    later(end, limits::CLOCK_SLACK)
}

/// Whether a pass is what the attempt asked for. What Graph leaves out contradicts nothing.
fn answers(pass: &FoundPass, attempt: &IntentRecord) -> bool {
    let asked = &attempt.asked;
    let lifetime = pass.lifetime_in_minutes.is_none_or(|minutes| minutes == asked.lifetime_minutes);
    let once = pass.is_usable_once.is_none_or(|once| once == asked.one_time);
    let start = match (asked.start, pass.start_date_time) {
        // Rounded, perhaps.
        (Some(asked), Some(found)) => {
            asked.duration_since(found).unsigned_abs() <= limits::CLOCK_SLACK
        }
        // Without a wish for a start, Graph's own is the moment of creation, or absent.
        (None, Some(found)) => pass.created_date_time.is_none_or(|created| {
            created.duration_since(found).unsigned_abs() <= limits::CLOCK_SLACK
        }),
        (_, None) => true,
    };
    lifetime && once && start
}

impl Worker {
    /// When a row found unsettled at the start of a resume may be settled: at once if, by Graph's
    /// clock and this machine's, its attempt was given up, or must have been, longer ago than the
    /// settling time.
    #[must_use]
    pub fn settled_from(&self, attempt: &IntentRecord, started: Instant) -> Instant {
        started + quiet_after(attempt, self.settle_after, self.graph.clocks())
    }

    /// Records that an attempt left without an outcome, by a killed run, is unsettled.
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

    /// Settles one unsettled, held or lost row. The settling time must have passed.
    pub async fn reconcile(&self, line: Line) -> Result<Reconciled, RunError> {
        let row = self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        let (user, remains) = (row.person()?.user, self.remains(line).await?);
        let found = match self.look(user).await? {
            Ok(found) => found,
            Err(refusal) => return self.unread(&row, &refusal).await,
        };
        let sighting = observe(found.as_ref(), &remains, self.settle_after, self.graph.now());
        let sighting = of_this_run(sighting, &self.issuers);
        match (&row.state, sighting) {
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
                let over = found.as_ref().map(|pass| over(pass, self.graph.now()));
                self.remove_orphan(&row, user, method, over.unwrap_or(Timestamp::MAX)).await
            }
            // Somebody may have it: it is not given up because a list does not show it.
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

    /// Deletes the pass that holds a row, on the word of a person who was shown this very one, and
    /// frees the row. Whatever else stands there now is left alone.
    pub async fn remove_found(
        &self,
        line: Line,
        shown: &FoundPass,
    ) -> Result<Reconciled, RunError> {
        let row = self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        let user = row.person()?.user;
        match self.look(user).await? {
            Ok(Some(found)) if found.id == shown.id => {
                let over = over(&found, self.graph.now());
                self.remove_orphan(&row, user, found.id, over).await
            }
            Ok(_) => Ok(behind(OTHERWISE)),
            Err(refusal) => self.unread(&row, &refusal).await,
        }
    }

    /// Holds a row that Graph refuses a pass again and again without showing why.
    pub async fn hold_unseen(&self, line: Line) -> Result<Reconciled, RunError> {
        self.hold_for(line, UNSEEN.to_owned()).await
    }

    /// Holds a row for an operator.
    pub async fn hold_for(&self, line: Line, why: String) -> Result<Reconciled, RunError> {
        let row = self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        self.hold(&row, why, None).await
    }

    /// A sealed pass that is not listed is given up once it is over, or was missed before, at
    /// least the settling time ago.
    async fn missed(&self, line: Line, remains: &Remains) -> Result<Reconciled, RunError> {
        let now = self.graph.clocks();
        if is_over(remains, self.settle_after, now) {
            return self.settled(line, None, Some(Proof::Over)).await;
        }
        if remains.absent_for(now).is_some_and(|absent| absent >= watch_for(self.settle_after)) {
            return self.settled(line, None, Some(Proof::Absent)).await;
        }
        self.ledger.record(line, Event::NotListed { graph_time: now.graph }).await?;
        Ok(behind(NOT_LISTED))
    }

    /// A 404 is about the user, and proves nothing about a pass.
    async fn unread(&self, row: &RowRecord, refusal: &Refusal) -> Result<Reconciled, RunError> {
        let why = format!("its passes cannot be read: {refusal}");
        if refusal.status == 404 {
            return Ok(Reconciled::Behind { why });
        }
        self.hold(row, why, None).await
    }

    /// Looks again at a sealed pass that nobody can vouch for: it followed a lost attempt, or the
    /// process that sealed it did not end in order. [`Reconciled::Behind`] if it is not listed yet.
    pub async fn verify(&self, line: Line) -> Result<Reconciled, RunError> {
        let row = self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
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
            // What was to be replaced may be listed for a while too.
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

    /// Ends the patience with a sealed pass that was not listed in looks that lie the settling
    /// time apart. An answered POST leaves nothing to execute late, so that a row whose pass was
    /// only `inherited` from an earlier process may be tried again; else it is held.
    pub async fn give_up_on(&self, line: Line, inherited: bool) -> Result<Reconciled, RunError> {
        if inherited {
            return self.settled(line, None, Some(Proof::Absent)).await;
        }
        let row = self.ledger.row(line).await?.ok_or(LedgerError::UnknownLine(line))?;
        self.hold(&row, NOT_THERE.to_owned(), None).await
    }

    /// A held or lost row's own pass is there after all; whether it works is another matter.
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
            // The pass, or the user, was there a moment ago: one of the two answers is behind.
            Some(Err(refusal)) if refusal.status == 404 => Ok(behind(STALE)),
            Some(Err(refusal)) => {
                // It is nobody else's: not told as a foreign one.
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

    /// A lost row stays lost: there is nothing to hold back from it.
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
        // Given up 08:01:40, five minutes of settling, an hour of life, a minute of slack.
        assert!(!over(&remains(), at("2026-03-01T09:07:39Z")));
        assert!(over(&remains(), at("2026-03-01T09:07:40Z")));
        assert!(!over(&both, at("2026-03-01T09:59:59Z")));
        assert!(over(&both, at("2026-03-01T10:00:00Z")));
        let quiet = |now| quiet_in(&both, SETTLE_AFTER, now);
        assert_eq!(quiet(at("2026-03-01T08:07:30Z")), Duration::from_secs(10));
        assert_eq!(quiet(at("2026-03-01T08:07:40Z")), Duration::ZERO);
        let nothing = Remains { attempts: Vec::new(), ..remains() };
        assert!(!over(&nothing, at("2026-03-02T08:00:00Z")));
    }

    #[test]
    fn time_has_passed_where_it_has_on_both_clocks_each_from_its_own_start() {
        // The answers of then were dated two hours behind, those of now are not.
        let misdated = IntentRecord {
            graph_time: moment("2026-03-01T06:00:00Z"),
            given_up: Some(moment("2026-03-01T06:00:10Z")),
            ..attempt()
        };
        let row = Remains { attempts: vec![misdated], ..remains() };
        let now = moment("2026-03-01T08:02:00Z");
        let now = Clocks { graph: now, machine: now };
        assert!(!is_over(&row, SETTLE_AFTER, now));
        assert_eq!(quiet_in(&row, SETTLE_AFTER, now), Duration::from_secs(250));
        // A pass that the list dates right is not thereby somebody else's.
        assert!(may_be_misdated(&pass("2026-03-01T08:00:01Z"), &row, SETTLE_AFTER));
        assert!(!may_be_misdated(&pass("2026-03-01T09:00:01Z"), &row, SETTLE_AFTER));
        // This machine's clock was set back by a day since: what is left is bounded.
        let back = Clocks { machine: moment("2026-02-28T08:00:00Z"), ..now };
        assert_eq!(quiet_in(&remains(), SETTLE_AFTER, back), SETTLE_AFTER);
    }
}
