//! Promises that after the fence nothing of a lost attempt is left on the user, or that the
//! row is held for an operator.
//!
//! Fence → list → delete our orphan by its id → (POST again, by `issue`) → list and compare.
//! Deletes only what it recognises as that attempt's; whatever else is found stays.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Desk, Halt};
use crate::clock::{earlier, later};
use crate::graph::{Deletion, FoundPass};
use crate::ids::{Line, MethodId, UserId};
use crate::ledger::{Event, IntentRecord, RowRecord, State};
use crate::limits;

/// Why a row is held whose sealed pass is not on the user.
const NOT_THERE: &str =
    "the pass that was sealed is not the one on the user; delete what is there, then resume";

/// Whether a sealed pass is the one on its user.
enum Proof {
    Live,
    /// Nothing is there, however often one looks.
    Absent,
    /// Another one is there, or it cannot be told.
    Doubtful {
        why: String,
        found: Option<MethodId>,
    },
}

/// What settling came to; the ledger has it already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Nothing of ours is left; the row may be tried again.
    Free,
    /// The sealed pass has shown up after all.
    Sealed,
    /// An operator must look.
    Held {
        /// For people.
        why: String,
    },
}

/// What stands on the user, seen with one attempt in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// Nothing, or a pass that is over.
    Nothing,
    /// The lost attempt's pass, unused.
    Orphan(MethodId),
    /// The lost attempt's pass, but somebody has used it.
    Used(MethodId),
    /// A pass from before the attempt, so that the attempt had no effect.
    Older(MethodId),
    /// Somebody else's.
    Foreign(MethodId),
}

/// Judges a found pass against a lost attempt. `known`: the ledger knows its id as one it
/// sealed.
///
/// Ours is a pass created, in Graph's time, between a minute before the intent and the last
/// moment the attempt could have run, with the lifetime, one-time flag and start it asked for.
#[must_use]
pub fn sight(
    found: Option<&FoundPass>,
    attempt: &IntentRecord,
    fence: Duration,
    known: bool,
    graph_now: Timestamp,
) -> Sighting {
    let Some(pass) = found else { return Sighting::Nothing };
    let id = || pass.id.clone();
    let first = earlier(attempt.graph_time, limits::CLOCK_SLACK);
    let given_up =
        attempt.given_up.unwrap_or_else(|| later(attempt.graph_time, limits::ATTEMPT_TIMEOUT));
    let last = later(given_up, fence + limits::CLOCK_SLACK);
    let in_time = pass.created_date_time.is_some_and(|at| first <= at && at <= last);
    if in_time && !known && answers(pass, attempt) {
        return if pass.is_used() { Sighting::Used(id()) } else { Sighting::Orphan(id()) };
    }
    if !pass.is_live(graph_now) {
        return Sighting::Nothing;
    }
    if pass.created_date_time.is_some_and(|at| at < first) {
        return Sighting::Older(id());
    }
    Sighting::Foreign(id())
}

/// Whether a pass is what the attempt asked for. What Graph leaves out contradicts nothing.
fn answers(pass: &FoundPass, attempt: &IntentRecord) -> bool {
    let asked = &attempt.asked;
    let lifetime = pass.lifetime_in_minutes.is_none_or(|minutes| minutes == asked.lifetime_minutes);
    let once = pass.is_usable_once.is_none_or(|once| once == asked.one_time);
    let start = match (asked.start, pass.start_date_time) {
        (Some(asked), Some(found)) => asked.as_second() == found.as_second(),
        // Without a wish for a start, Graph's own is the moment of creation, or absent.
        (None, Some(found)) => pass.created_date_time.is_none_or(|created| {
            created.duration_since(found).unsigned_abs() <= limits::CLOCK_SLACK
        }),
        (_, None) => true,
    };
    lifetime && once && start
}

impl Desk {
    /// When a row found unsettled at the start of a resume may be settled: at once if, by
    /// Graph's own clock, its attempt was given up, or must have been, longer ago than the
    /// fence.
    #[must_use]
    pub fn fence_from_start(&self, attempt: &IntentRecord, started: Instant) -> Instant {
        let given_up =
            attempt.given_up.unwrap_or_else(|| later(attempt.graph_time, limits::ATTEMPT_TIMEOUT));
        let over = later(given_up, self.fence + limits::CLOCK_SLACK);
        if self.graph.now() > over { started } else { started + self.fence }
    }

    /// Records that an attempt left without an outcome, by a killed run, is unsettled.
    ///
    /// # Errors
    /// [`Halt::Ledger`]
    pub async fn mark_lost(&self, row: &RowRecord) -> Result<(), Halt> {
        if let (State::Intent { intent, .. }, Some(attempt)) = (&row.state, &row.intent) {
            let given_up = later(attempt.graph_time, limits::ATTEMPT_TIMEOUT);
            let why = "the program ended before the answer came".to_owned();
            let lost = Event::Lost { intent: *intent, why, given_up };
            self.ledger.record(row.line, lost).await?;
        }
        Ok(())
    }

    /// Settles one unsettled or held row. The fence must have passed.
    ///
    /// # Errors
    /// [`Halt`]
    pub async fn settle(&self, line: Line) -> Result<Settled, Halt> {
        let Some(row) = self.ledger.row(line).await? else { return Ok(Settled::Free) };
        let (Some(user), Some(attempt)) = (row.user, row.intent.as_ref()) else {
            return self.hold(line, "the ledger lacks its last attempt".to_owned(), None).await;
        };
        let found = match self.look(user).await? {
            Ok(found) => found,
            Err(why) => {
                return self.hold(line, format!("its passes cannot be read: {why}"), None).await;
            }
        };
        let known = match &found {
            Some(pass) => self.ledger.issued_here(pass.id.clone()).await?.is_some(),
            None => false,
        };
        let sighting = sight(found.as_ref(), attempt, self.fence, known, self.graph.now());
        match (&row.state, sighting) {
            // Also one that could not be read or deleted when its row was held.
            (State::Unsettled { .. } | State::Held { sealed: None }, Sighting::Orphan(method)) => {
                self.remove_orphan(line, user, method).await
            }
            (State::Held { sealed }, _) => {
                self.look_at_held(line, sealed.as_ref(), found.as_ref()).await
            }
            (_, Sighting::Nothing) => self.settled(line, None).await,
            (_, Sighting::Older(_)) if self.existing == crate::ledger::Existing::Replace => {
                self.settled(line, None).await
            }
            (_, Sighting::Used(method)) => {
                let why = "the pass of an attempt whose answer was lost has been used; nobody of yours holds its code".to_owned();
                self.hold(line, why, Some(method)).await
            }
            (_, Sighting::Orphan(method) | Sighting::Older(method) | Sighting::Foreign(method)) => {
                let why = "there is a pass that this run did not issue; delete it, or leave the person out, then resume".to_owned();
                self.hold(line, why, Some(method)).await
            }
        }
    }

    /// Looks again at a pass that followed a lost attempt: it must be the one that is sealed,
    /// else the row is held.
    ///
    /// # Errors
    /// [`Halt`]
    pub async fn verify(
        &self,
        line: Line,
        user: UserId,
        method: &MethodId,
    ) -> Result<Settled, Halt> {
        match self.look_for(user, method).await? {
            Proof::Live => self.proven(line).await,
            Proof::Absent => self.hold(line, NOT_THERE.to_owned(), None).await,
            Proof::Doubtful { why, found } => self.hold(line, why, found).await,
        }
    }

    /// Looks again at a pass that an earlier process sealed and could not vouch for. Where
    /// nothing is, nobody loses anything by another attempt: its POST had been answered, so that
    /// nothing is left to execute late.
    ///
    /// # Errors
    /// [`Halt`]
    pub async fn verify_inherited(
        &self,
        line: Line,
        user: UserId,
        method: &MethodId,
    ) -> Result<Settled, Halt> {
        match self.look_for(user, method).await? {
            Proof::Live => self.proven(line).await,
            Proof::Absent => self.settled(line, None).await,
            Proof::Doubtful { why, found } => self.hold(line, why, found).await,
        }
    }

    async fn look_for(&self, user: UserId, method: &MethodId) -> Result<Proof, Halt> {
        let mut wait = limits::BETWEEN_LOOKS;
        for look in 1.. {
            match self.look(user).await? {
                Ok(Some(found)) if found.id == *method => return Ok(Proof::Live),
                Ok(Some(found)) => {
                    return Ok(Proof::Doubtful {
                        why: NOT_THERE.to_owned(),
                        found: Some(found.id),
                    });
                }
                Err(why) => return Ok(Proof::Doubtful { why, found: None }),
                Ok(None) if look == limits::LOOKS => break,
                // A replica may not show a pass that is seconds old.
                Ok(None) => self.clock.sleep(wait).await,
            }
            wait *= 2;
        }
        Ok(Proof::Absent)
    }

    async fn proven(&self, line: Line) -> Result<Settled, Halt> {
        self.ledger.record(line, Event::Verified).await?;
        Ok(Settled::Sealed)
    }

    /// An operator's resume: a held row is free again once nothing live is in its way, and
    /// sealed after all if its own pass has shown up.
    async fn look_at_held(
        &self,
        line: Line,
        sealed: Option<&MethodId>,
        found: Option<&FoundPass>,
    ) -> Result<Settled, Halt> {
        match found.filter(|pass| pass.is_live(self.graph.now())) {
            None => self.settled(line, None).await,
            Some(pass) if sealed == Some(&pass.id) => self.proven(line).await,
            Some(pass) => {
                let why = "a pass that this run did not issue is still there; delete it, or leave the person out, then resume".to_owned();
                self.hold(line, why, Some(pass.id.clone())).await
            }
        }
    }

    async fn remove_orphan(
        &self,
        line: Line,
        user: UserId,
        method: MethodId,
    ) -> Result<Settled, Halt> {
        self.ledger.record(line, Event::OrphanFound { method: method.clone() }).await?;
        match self.graph.delete_passes(&[(user, method.clone())]).await?.pop() {
            Some(Deletion::Deleted | Deletion::Gone) => self.settled(line, Some(method)).await,
            Some(Deletion::Refused(refusal)) => {
                // It is nobody else's: not told as a foreign one.
                let why = format!("the pass of a lost attempt cannot be deleted: {refusal}");
                self.hold(line, why, None).await
            }
            None => self.settled(line, None).await,
        }
    }

    async fn look(&self, user: UserId) -> Result<Result<Option<FoundPass>, String>, Halt> {
        let found = self.graph.passes(&[user]).await?.pop().unwrap_or(Ok(None));
        Ok(found.map_err(|refusal| refusal.to_string()))
    }

    async fn settled(&self, line: Line, found: Option<MethodId>) -> Result<Settled, Halt> {
        self.ledger.record(line, Event::Settled { found }).await?;
        Ok(Settled::Free)
    }

    async fn hold(
        &self,
        line: Line,
        why: String,
        found: Option<MethodId>,
    ) -> Result<Settled, Halt> {
        self.ledger.record(line, Event::Held { why: why.clone(), found }).await?;
        Ok(Settled::Held { why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Asked, IntentId};

    const FENCE: Duration = Duration::from_mins(5);

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

    fn seen(pass: &FoundPass) -> Sighting {
        sight(Some(pass), &attempt(), FENCE, false, moment("2026-03-01T08:10:00Z"))
    }

    fn id() -> MethodId {
        "found".parse().expect("an id")
    }

    #[test]
    fn ours_is_what_the_attempt_asked_for_in_the_time_it_could_have_run() {
        assert_eq!(seen(&pass("2026-03-01T08:00:01Z")), Sighting::Orphan(id()));
        assert_eq!(seen(&pass("2026-03-01T07:59:01Z")), Sighting::Orphan(id()), "clocks differ");
        assert_eq!(seen(&pass("2026-03-01T08:06:30Z")), Sighting::Orphan(id()), "executed late");
    }

    #[test]
    fn what_is_not_ours_is_not_touched() {
        assert_eq!(seen(&pass("2026-03-01T07:58:00Z")), Sighting::Older(id()));
        assert_eq!(seen(&pass("2026-03-01T08:08:00Z")), Sighting::Foreign(id()), "after the fence");
        let longer = FoundPass { lifetime_in_minutes: Some(480), ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&longer), Sighting::Foreign(id()));
        let once = FoundPass { is_usable_once: Some(true), ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&once), Sighting::Foreign(id()));
        let later = FoundPass {
            start_date_time: Some(moment("2026-03-02T08:00:00Z")),
            ..pass("2026-03-01T08:00:01Z")
        };
        assert_eq!(seen(&later), Sighting::Foreign(id()));
        let known = sight(
            Some(&pass("2026-03-01T08:00:01Z")),
            &attempt(),
            FENCE,
            true,
            moment("2026-03-01T08:10:00Z"),
        );
        assert_eq!(known, Sighting::Foreign(id()), "another row's sealed pass");
        let undated = FoundPass { created_date_time: None, ..pass("2026-03-01T08:00:01Z") };
        assert_eq!(seen(&undated), Sighting::Foreign(id()), "in doubt, hold");
    }

    #[test]
    fn a_used_pass_is_no_orphan() {
        let used = FoundPass {
            method_usability_reason: Some("OneTimeUsed".into()),
            ..pass("2026-03-01T08:00:01Z")
        };
        assert_eq!(seen(&used), Sighting::Used(id()));
    }

    #[test]
    fn a_pass_that_is_over_is_in_nobody_s_way() {
        let over = FoundPass {
            method_usability_reason: Some("Expired".into()),
            ..pass("2026-03-01T06:00:00Z")
        };
        assert_eq!(seen(&over), Sighting::Nothing);
    }
}
