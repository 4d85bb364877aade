//! Promises that a pass counts as removed only by proof: Graph's 204 to the DELETE of its id, a
//! newer pass in its place, its end by Graph's clock and this machine's, or two looks without it,
//! at least the settling time apart.
//!
//! Deletes only what a ledger says that the run issued, or what an operator confirmed for a named
//! person. Reports other people's passes and leaves them. A 404 about a *user* proves nothing.

use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;

use crate::check::Issuers;
use crate::reconcile::{
    Observation, absence_window, is_over, latest_end, may_be_misdated, may_be_of, observe,
    of_this_run,
};
use crate::worker::RunError;
use tapwave_core::clock::Clocks;
use tapwave_core::ids::{Line, MethodId, UserId};
use tapwave_graph::verdict::{Refusal, RefusalKind};
use tapwave_graph::{Deletions, FoundPass, Graph};
use tapwave_ledger::{Event, Ledger, LedgerError, Proof, Remains, State};

/// What one look at a row proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupOutcome {
    /// No pass of the row is alive.
    Gone(Proof),
    /// A pass that was given up before is still not listed.
    StillGone,
    /// Nothing yet.
    Doubtful(Doubt),
    /// Something may be alive, and another look now would not help.
    Left { why: String },
}

/// Why another look is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No pass of this row is listed: proof if a look after the settling time shows the same.
    NotListed,
    /// A list or a DELETE contradicts what is known: it is behind.
    Behind,
    /// A pass of this row was found under an unknown id, and can be deleted now.
    Found,
    /// A pass is listed that may be a lost attempt's, or somebody else's.
    Unclear,
    UserUnknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    pub remains: Remains,
    pub outcome: CleanupOutcome,
    /// Somebody else's live pass.
    pub foreign: Option<MethodId>,
}

/// What to delete of a person whom the operator named, on their word.
pub fn confirmed(
    line: Line,
    upn: String,
    user: UserId,
    pass: Option<&FoundPass>,
    graph_now: Timestamp,
) -> Remains {
    Remains {
        line,
        upn,
        unreadable: None,
        user: Some(user),
        state: State::Checked { after_loss: false },
        alive: pass
            .map(|pass| (pass.id.clone(), latest_end(pass, graph_now)))
            .into_iter()
            .collect(),
        gone: Vec::new(),
        given_up: Vec::new(),
        attempts: Vec::new(),
        absent_since: None,
        absent_at: None,
        seen: false,
        deleted: Vec::new(),
    }
}

/// Deletes every pass of these rows by its id, lists what each user has, and records both, given a
/// `ledger`. Takes at most [`tapwave_core::limits::ROWS_PER_CHECK`] rows, so that memory stays
/// flat.
///
/// No attempt of theirs may still execute. Once `stopped`, nothing more is waited for: of the rows,
/// those are given whose DELETE was answered with 204.
pub async fn clear(
    graph: &Graph,
    ledger: Option<&Ledger>,
    rows: Vec<Remains>,
    settle_after: Duration,
    issuers: &Issuers,
    stopped: impl Future<Output = ()>,
) -> Result<Vec<Cleaned>, RunError> {
    let mut cleaned = Vec::with_capacity(rows.len());
    let mut known = Vec::with_capacity(rows.len());
    for row in rows {
        match row.user {
            Some(user) => known.push((user, row)),
            None => cleaned.push(unreadable(row)),
        }
    }
    let passes: Vec<(UserId, MethodId)> = known
        .iter()
        .flat_map(|(user, row)| to_delete(row).map(|method| (*user, method.clone())))
        .collect();
    if let Some(ledger) = ledger {
        let intents = known.iter().flat_map(|(_, row)| {
            to_delete(row).map(|method| {
                ledger.record(row.line, Event::RemovalIntended { method: method.clone() })
            })
        });
        try_join_all(intents).await?;
    }
    let mut deletions = Deletions::of(&passes);
    let users: Vec<UserId> = known.iter().map(|(user, _)| *user).collect();
    let looks = tokio::select! {
        looks = async {
            graph.delete_passes_into(&passes, &mut deletions).await?;
            graph.passes(&users).await
        } => looks.map(Some),
        () = stopped => Ok(None),
    };
    let looks = match looks {
        Ok(Some(looks)) => looks,
        // A 204 is proof without a look: no later cleanup need prove it again.
        ended => {
            cleaned.extend(keep_deletions(ledger, known, deletions).await?);
            return ended.map(|_| cleaned).map_err(RunError::from);
        }
    };
    let mut deletions = deletions.0.into_iter().flatten();
    let now = graph.clocks();
    for ((_, mut row), look) in known.into_iter().zip(looks) {
        let answers: Vec<_> = deletions.by_ref().take(to_delete(&row).count()).collect();
        let observation = observed(&row, &answers, &look, settle_after, now.graph);
        let observation = observation.map(|observation| of_this_run(observation, issuers));
        let outcome = judge(&row, &answers, &look, observation.as_ref(), settle_after, now);
        let foreign = foreign(observation.as_ref(), &outcome);
        let events =
            events(&row, &outcome, observation.as_ref(), foreign.as_ref(), &look, now.graph);
        add_deletions(&mut row, &answers);
        apply(&mut row, &events, now);
        if let Some(ledger) = ledger {
            for event in events {
                ledger.record(row.line, event).await?;
            }
        }
        cleaned.push(Cleaned { remains: row, outcome, foreign });
    }
    Ok(cleaned)
}

/// The pass on the user that is not this run's, if there is one.
fn foreign(observation: Option<&Observation>, outcome: &CleanupOutcome) -> Option<MethodId> {
    match (observation, outcome) {
        (_, CleanupOutcome::Doubtful(Doubt::Unclear)) => None,
        (
            Some(
                Observation::Older(method)
                | Observation::Newer(method)
                | Observation::Foreign(method),
            ),
            _,
        ) => Some(method.clone()),
        _ => None,
    }
}

fn to_delete(row: &Remains) -> impl Iterator<Item = &MethodId> {
    let alive = row.alive.iter().map(|(method, _)| method);
    alive.filter(|method| !row.deleted.contains(method))
}

fn add_deletions(row: &mut Remains, answers: &[Result<(), Refusal>]) {
    let done = to_delete(row).zip(answers).filter(|(_, answer)| answer.is_ok());
    let done: Vec<MethodId> = done.map(|(method, _)| method.clone()).collect();
    row.deleted.extend(done);
}

/// What is recorded if a pass is listed for longer than lists lag after Graph answered its DELETE
/// with 204.
pub fn deleted_but_listed(row: &Remains) -> Event {
    gone(row, Proof::Deleted)
}

/// Records the 204s of rows that own nothing else, and gives these rows.
async fn keep_deletions(
    ledger: Option<&Ledger>,
    rows: Vec<(UserId, Remains)>,
    deletions: Deletions,
) -> Result<Vec<Cleaned>, LedgerError> {
    let mut deletions = deletions.0.into_iter();
    let mut kept = Vec::new();
    for (_, row) in rows {
        let answers: Vec<_> = deletions.by_ref().take(to_delete(&row).count()).collect();
        let is_open = row.attempts.iter().any(|attempt| attempt.may_live);
        // A DELETE that is not answered leaves its pass in doubt, whatever became of another.
        let is_answered = answers.iter().all(Option::is_some);
        if is_answered && answers.iter().flatten().any(Result::is_ok) && !is_open {
            let outcome = CleanupOutcome::Gone(Proof::Deleted);
            kept.push(Cleaned { remains: row, outcome, foreign: None });
        }
    }
    if let Some(ledger) = ledger {
        let records = kept
            .iter()
            .map(|one| ledger.record(one.remains.line, gone(&one.remains, Proof::Deleted)));
        try_join_all(records).await?;
    }
    Ok(kept)
}

fn unreadable(row: Remains) -> Cleaned {
    let why = if let Some(why) = &row.unreadable {
        format!(
            "its record cannot be read ({why}); the ledger is damaged: copy the folder back from a backup, and look at this person in Entra"
        )
    } else {
        let lacks = "it names no user, or another one than its attempts do";
        LedgerError::BrokenRow { line: row.line, upn: row.upn.clone(), lacks }.to_string()
    };
    Cleaned { remains: row, outcome: CleanupOutcome::Left { why }, foreign: None }
}

/// What one look shows of a row; `None` if the passes cannot be read. The answers to the DELETEs
/// come in the order of [`Remains::alive`], without those that had their 204 before.
pub fn observed(
    row: &Remains,
    deletions: &[Result<(), Refusal>],
    look: &Result<Option<FoundPass>, Refusal>,
    settle_after: Duration,
    now: Timestamp,
) -> Option<Observation> {
    let found = look.as_ref().ok()?.as_ref();
    if !is_deleted(row, deletions) {
        return Some(observe(found, row, settle_after, now));
    }
    // A user has at most one pass: if one was deleted, none of the row's others was there.
    let known = row.alive.iter().map(|(id, _)| id).chain(&row.given_up);
    let all_gone = Remains {
        alive: Vec::new(),
        gone: row.gone.iter().chain(known).cloned().collect(),
        given_up: Vec::new(),
        ..row.clone()
    };
    Some(observe(found, &all_gone, settle_after, now))
}

fn is_deleted(row: &Remains, deletions: &[Result<(), Refusal>]) -> bool {
    !row.deleted.is_empty() || deletions.iter().any(Result::is_ok)
}

/// What the answers to the DELETEs and one look prove. Pure, so that a model checker can explore
/// it.
pub fn judge(
    row: &Remains,
    deletions: &[Result<(), Refusal>],
    look: &Result<Option<FoundPass>, Refusal>,
    observation: Option<&Observation>,
    settle_after: Duration,
    now: Clocks,
) -> CleanupOutcome {
    let deleted = is_deleted(row, deletions);
    let mut refusals = deletions.iter().filter_map(|deletion| deletion.as_ref().err());
    let no_such_user = refusals.clone().any(|refusal| refusal.kind == RefusalKind::UserGone);
    let refused = refusals.find(|refusal| refusal.status != 404).map(ToString::to_string);
    match observation {
        Some(Observation::Orphan(_) | Observation::Used(_) | Observation::GivenUp(_)) => {
            CleanupOutcome::Doubtful(Doubt::Found)
        }
        Some(Observation::Stale(_)) => CleanupOutcome::Doubtful(Doubt::Behind),
        _ if deleted => CleanupOutcome::Gone(Proof::Deleted),
        _ if owns_nothing(row) && !matches!(look, Err(refusal) if refusal.status != 404) => {
            CleanupOutcome::StillGone
        }
        // A list that shows it as usable outweighs the clocks.
        Some(Observation::Ours(_)) if is_usable(look) => match refused {
            Some(why) => CleanupOutcome::Left { why },
            None => CleanupOutcome::Doubtful(Doubt::Behind),
        },
        Some(Observation::Older(_) | Observation::Newer(_))
            if may_be_ours_misdated(look, row, settle_after) =>
        {
            CleanupOutcome::Doubtful(Doubt::Unclear)
        }
        _ if is_over(row, settle_after, now) => CleanupOutcome::Gone(Proof::Over),
        Some(Observation::Newer(_)) => CleanupOutcome::Gone(Proof::Replaced),
        Some(Observation::Ours(_)) => match refused {
            Some(why) => CleanupOutcome::Left { why },
            None => CleanupOutcome::Doubtful(Doubt::Behind),
        },
        Some(Observation::Foreign(_)) if may_be_unknown(look, row, settle_after) => {
            CleanupOutcome::Doubtful(Doubt::Unclear)
        }
        // A list may be empty because its replica does not know the user either.
        Some(Observation::Nothing | Observation::Older(_) | Observation::Foreign(_))
            if no_such_user =>
        {
            CleanupOutcome::Doubtful(Doubt::UserUnknown)
        }
        Some(Observation::Nothing | Observation::Older(_) | Observation::Foreign(_)) => {
            if row.absent_for(now).is_some_and(|absent| absent >= absence_window(settle_after)) {
                CleanupOutcome::Gone(Proof::Absent)
            } else {
                CleanupOutcome::Doubtful(Doubt::NotListed)
            }
        }
        None => match look {
            Err(refusal) if refusal.status == 404 => CleanupOutcome::Doubtful(Doubt::UserUnknown),
            Err(refusal) => {
                CleanupOutcome::Left { why: refused.unwrap_or_else(|| refusal.to_string()) }
            }
            Ok(_) => CleanupOutcome::Doubtful(Doubt::Behind),
        },
    }
}

/// Whether all that the row owned counts as gone, and some of it was only given up.
fn owns_nothing(row: &Remains) -> bool {
    let may_live = row.attempts.iter().any(|attempt| attempt.may_live);
    !row.given_up.is_empty() && row.alive.is_empty() && !may_live
}

fn may_be_ours_misdated(
    look: &Result<Option<FoundPass>, Refusal>,
    row: &Remains,
    settle_after: Duration,
) -> bool {
    let Ok(Some(pass)) = look else { return false };
    may_be_misdated(pass, row, settle_after)
}

/// Whether Graph calls the listed pass usable, now or later.
fn is_usable(look: &Result<Option<FoundPass>, Refusal>) -> bool {
    let Ok(Some(pass)) = look else { return false };
    match pass.method_usability_reason.as_deref() {
        Some(reason) => matches!(reason, "EnabledByPolicy" | "NotYetValid"),
        None => pass.is_usable == Some(true),
    }
}

/// Whether the listed pass may be a lost attempt's.
fn may_be_unknown(
    look: &Result<Option<FoundPass>, Refusal>,
    row: &Remains,
    settle_after: Duration,
) -> bool {
    let Ok(Some(pass)) = look else { return false };
    row.attempts
        .iter()
        .filter(|attempt| attempt.may_live)
        .any(|attempt| may_be_of(pass, attempt, settle_after))
}

/// What the ledger records of a look.
fn events(
    row: &Remains,
    outcome: &CleanupOutcome,
    observation: Option<&Observation>,
    foreign: Option<&MethodId>,
    look: &Result<Option<FoundPass>, Refusal>,
    now: Timestamp,
) -> Vec<Event> {
    let mut events: Vec<Event> =
        foreign.map(|method| Event::ForeignSeen { method: method.clone() }).into_iter().collect();
    // Also if its id is known: an earlier look may have missed it.
    if let (
        Some(
            Observation::Ours(method)
            | Observation::Orphan(method)
            | Observation::Used(method)
            | Observation::GivenUp(method),
        ),
        Ok(Some(pass)),
    ) = (observation, look)
    {
        events.push(Event::OrphanFound { method: method.clone(), over: latest_end(pass, now) });
    }
    match outcome {
        CleanupOutcome::Gone(proof) => events.push(gone(row, *proof)),
        CleanupOutcome::Doubtful(Doubt::NotListed) => {
            events.push(Event::NotListed { graph_time: now });
        }
        CleanupOutcome::Doubtful(_) | CleanupOutcome::StillGone | CleanupOutcome::Left { .. } => {}
    }
    events
}

fn gone(row: &Remains, proof: Proof) -> Event {
    match row.state.method() {
        Some(_) => Event::Removed { proof },
        None => Event::Settled { found: None, proof: Some(proof) },
    }
}

/// The same in memory, for rows that no ledger has.
fn apply(row: &mut Remains, events: &[Event], now: Clocks) {
    for event in events {
        match event {
            Event::OrphanFound { method, over } => {
                if row.alive.iter().all(|(known, _)| known != method) {
                    row.alive.push((method.clone(), *over));
                }
                row.absent_since = None;
                row.absent_at = None;
            }
            Event::NotListed { graph_time } => {
                row.absent_since.get_or_insert(*graph_time);
                row.absent_at.get_or_insert(now.machine);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapwave_graph::verdict::RefusalKind;

    const SETTLE_AFTER: Duration = Duration::from_mins(5);

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn id(text: &str) -> MethodId {
        text.parse().expect("an id")
    }

    fn row() -> Remains {
        Remains {
            line: Line(2),
            upn: "ada@contoso.example".into(),
            unreadable: None,
            user: Some(UserId::new(uuid::Uuid::nil())),
            state: State::Sealed { method: id("ours"), proven: true },
            alive: vec![(id("ours"), moment("2026-03-01T09:00:00Z"))],
            gone: Vec::new(),
            given_up: Vec::new(),
            attempts: Vec::new(),
            absent_since: None,
            absent_at: None,
            seen: false,
            deleted: Vec::new(),
        }
    }

    fn clocks() -> Clocks {
        Clocks { graph: now(), machine: now() }
    }

    fn absent(since: Timestamp) -> Remains {
        Remains { absent_since: Some(since), absent_at: Some(since), ..row() }
    }

    fn now() -> Timestamp {
        moment("2026-03-01T08:10:00Z")
    }

    type Look = Result<Option<FoundPass>, Refusal>;

    fn listed(name: &str) -> FoundPass {
        FoundPass {
            id: id(name),
            created_date_time: Some(moment("2026-03-01T08:00:00Z")),
            start_date_time: None,
            lifetime_in_minutes: Some(60),
            is_usable_once: Some(false),
            is_usable: Some(true),
            method_usability_reason: Some("EnabledByPolicy".into()),
        }
    }

    fn refusal(status: u16) -> Refusal {
        Refusal {
            status,
            code: "x".into(),
            message: "no".into(),
            kind: RefusalKind::Other,
            request_id: None,
        }
    }

    type Deleted = Result<(), Refusal>;

    fn gone() -> Deleted {
        Err(Refusal { kind: RefusalKind::MethodGone, ..refusal(404) })
    }

    fn outcome(row: &Remains, deletion: Deleted, look: &Look) -> CleanupOutcome {
        let deletions = [deletion];
        let observation = observed(row, &deletions, look, SETTLE_AFTER, now());
        judge(row, &deletions, look, observation.as_ref(), SETTLE_AFTER, clocks())
    }

    #[test]
    fn our_own_204_is_proof_and_a_list_that_is_behind_is_waited_for() {
        assert_eq!(outcome(&row(), Ok(()), &Ok(None)), CleanupOutcome::Gone(Proof::Deleted));
        let unread = Err(refusal(403));
        assert_eq!(outcome(&row(), Ok(()), &unread), CleanupOutcome::Gone(Proof::Deleted));
        let behind = outcome(&row(), Ok(()), &Ok(Some(listed("ours"))));
        assert_eq!(behind, CleanupOutcome::Doubtful(Doubt::Behind));
        let before = Remains { deleted: vec![id("ours")], ..row() };
        assert_eq!(outcome(&before, gone(), &Ok(None)), CleanupOutcome::Gone(Proof::Deleted));
    }

    #[test]
    fn an_absence_counts_once_it_is_seen_again_after_the_settling_time() {
        let first = outcome(&row(), gone(), &Ok(None));
        assert_eq!(first, CleanupOutcome::Doubtful(Doubt::NotListed));
        for (since, counts) in [("2026-03-01T08:05:01Z", false), ("2026-03-01T08:05:00Z", true)] {
            let again = outcome(&absent(moment(since)), gone(), &Ok(None));
            assert_eq!(again == CleanupOutcome::Gone(Proof::Absent), counts, "{since}: {again:?}");
        }
        // Somebody else's may be older, and the list behind.
        assert_eq!(
            outcome(&row(), gone(), &Ok(Some(listed("theirs")))),
            CleanupOutcome::Doubtful(Doubt::NotListed)
        );
    }

    #[test]
    fn a_404_about_the_user_proves_nothing_until_the_pass_is_over() {
        let unknown = Err(refusal(404));
        let deletion = || Err(Refusal { kind: RefusalKind::UserGone, ..refusal(404) });
        let absent = absent(moment("2026-03-01T07:00:00Z"));
        for one in [row(), absent] {
            assert_eq!(
                outcome(&one, deletion(), &unknown),
                CleanupOutcome::Doubtful(Doubt::UserUnknown)
            );
        }
        let over = Remains { alive: vec![(id("ours"), now())], ..row() };
        assert_eq!(outcome(&over, deletion(), &unknown), CleanupOutcome::Gone(Proof::Over));
    }

    #[test]
    fn what_is_listed_and_cannot_be_deleted_is_left() {
        let refused = outcome(&row(), Err(refusal(403)), &Ok(Some(listed("ours"))));
        assert!(matches!(refused, CleanupOutcome::Left { .. }), "{refused:?}");
        assert_eq!(
            outcome(&row(), gone(), &Ok(Some(listed("ours")))),
            CleanupOutcome::Doubtful(Doubt::Behind),
            "one of the two answers is behind"
        );
    }
}
