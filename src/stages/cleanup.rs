//! Promises that every pass the run owns is deleted by its id, and that somebody looked
//! again before it is called removed.
//!
//! Deletes only an [`Owned`]: a pass that a ledger says this run issued, or one that an
//! operator named a person for and confirmed. Somebody else's pass is reported and stays.

use std::collections::HashMap;

use futures::future::try_join_all;
use jiff::Timestamp;

use super::issue::Halt;
use crate::clock::later;
use crate::graph::verdict::Refusal;
use crate::graph::{Deletion, FoundPass, Graph};
use crate::ids::{Line, MethodId, UserId};
use crate::ledger::{Event, Ledger, RowRecord, State};
use crate::limits;

/// A pass that may be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    line: Line,
    upn: String,
    user: UserId,
    method: MethodId,
    /// When it was asked for, in Graph's time; not known of a pass that was found.
    asked: Option<Timestamp>,
}

impl Owned {
    /// A pass that the ledger says this run sealed.
    #[must_use]
    pub fn sealed(row: &RowRecord) -> Option<Self> {
        match &row.state {
            State::Sealed { method, .. }
            | State::Mailing { method, .. }
            | State::Delivered { method, .. }
            | State::Held { sealed: Some(method) } => Some(Self {
                line: row.line,
                upn: row.upn.clone(),
                user: row.user?,
                method: method.clone(),
                asked: row.intent.as_ref().map(|intent| intent.graph_time),
            }),
            _ => None,
        }
    }

    /// A pass found on a person whom the operator named, to be deleted on their word.
    #[must_use]
    pub const fn confirmed(line: Line, upn: String, user: UserId, method: MethodId) -> Self {
        Self { line, upn, user, method, asked: None }
    }

    /// The row.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }

    /// Whose it is.
    #[must_use]
    pub fn upn(&self) -> &str {
        &self.upn
    }
}

/// What became of one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Deleted now, and seen to be gone.
    Removed,
    /// Gone before, and seen to be gone.
    Already,
    /// Still there, or it cannot be told.
    Left {
        /// For people.
        why: String,
    },
}

/// What cleanup found for one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// Which.
    pub owned: Owned,
    /// What became of it.
    pub fate: Fate,
    /// Somebody else's live pass, seen on the way.
    pub foreign: Option<MethodId>,
}

/// Deletes passes by id, then lists what each user has and so proves them gone. At most
/// [`crate::limits::ROWS_PER_READ`] at a time keeps memory flat.
///
/// # Errors
/// [`Halt`], if Graph is out of reach.
pub async fn remove(graph: &Graph, owned: Vec<Owned>) -> Result<Vec<Cleaned>, Halt> {
    let passes: Vec<(UserId, MethodId)> =
        owned.iter().map(|one| (one.user, one.method.clone())).collect();
    let deletions = graph.delete_passes(&passes).await?;
    let found = looked_at(graph, &owned, &deletions).await?;
    let now = graph.now();
    let clean = |(owned, deletion): (Owned, Deletion)| {
        let look = found.get(&owned.user);
        let foreign = match look {
            Some(Ok(Some(pass))) if pass.id != owned.method && pass.is_live(now) => {
                Some(pass.id.clone())
            }
            _ => None,
        };
        let fate = fate(&owned, deletion, look);
        Cleaned { owned, fate, foreign }
    };
    Ok(owned.into_iter().zip(deletions).map(clean).collect())
}

type Looks = HashMap<UserId, Result<Option<FoundPass>, Refusal>>;

/// What each user has. A replica that has not heard of a user yet says 404 for a while to
/// everything about them, and one that has not heard of a pass lists none: nobody counts as
/// clean at the first such answer.
async fn looked_at(graph: &Graph, owned: &[Owned], deletions: &[Deletion]) -> Result<Looks, Halt> {
    let mut users: Vec<UserId> = owned.iter().map(|one| one.user).collect();
    let mut found = Looks::new();
    let mut wait = limits::BETWEEN_LOOKS;
    for look in 1.. {
        found.extend(users.iter().copied().zip(graph.passes(&users).await?));
        let now = graph.now();
        users = owned
            .iter()
            .zip(deletions)
            .filter(|(one, deletion)| is_doubtful(one, deletion, found.get(&one.user), now))
            .map(|(one, _)| one.user)
            .collect();
        if users.is_empty() || look == limits::LOOKS {
            break;
        }
        graph.pause(wait).await;
        wait *= 2;
    }
    Ok(found)
}

/// Whether another look may show what this one did not.
fn is_doubtful(
    owned: &Owned,
    deletion: &Deletion,
    look: Option<&Result<Option<FoundPass>, Refusal>>,
    now: Timestamp,
) -> bool {
    let fresh = owned.asked.is_some_and(|asked| now < later(asked, limits::FRESH_PASS));
    let unseen = fresh && *deletion != Deletion::Deleted && matches!(look, Some(Ok(None)));
    unseen || is_unknown(look)
}

fn is_unknown(look: Option<&Result<Option<FoundPass>, Refusal>>) -> bool {
    matches!(look, Some(Err(refusal)) if refusal.status == 404)
}

/// The look decides; the DELETE's own answer only says who did it.
fn fate(
    owned: &Owned,
    deletion: Deletion,
    look: Option<&Result<Option<FoundPass>, Refusal>>,
) -> Fate {
    match (deletion, look) {
        (_, Some(Ok(Some(pass)))) if pass.id == owned.method => {
            Fate::Left { why: "the pass is still listed; run cleanup again".to_owned() }
        }
        (Deletion::Deleted, Some(Ok(_))) => Fate::Removed,
        // A person has one pass at most: whatever is listed, ours is not.
        (Deletion::Gone | Deletion::Refused(_), Some(Ok(_))) => Fate::Already,
        // The user is gone, and every pass with them.
        (_, look) if is_unknown(look) => Fate::Already,
        (Deletion::Refused(refusal), _) => Fate::Left { why: refusal.to_string() },
        (_, Some(Err(refusal))) => Fate::Left { why: refusal.to_string() },
        (_, None) => Fate::Left { why: "nobody looked".to_owned() },
    }
}

/// Deletes a run's passes and records each step: the intent before, what became of it after.
///
/// # Errors
/// [`Halt`]
pub async fn remove_recorded(
    graph: &Graph,
    ledger: &Ledger,
    owned: Vec<Owned>,
) -> Result<Vec<Cleaned>, Halt> {
    let intents = owned
        .iter()
        .map(|one| ledger.record(one.line, Event::RemovalIntended { method: one.method.clone() }));
    try_join_all(intents).await?;
    let cleaned = remove(graph, owned).await?;
    let records = cleaned.iter().flat_map(|one| {
        let seen = one.foreign.clone().map(|method| Event::ForeignSeen { method });
        let removed = match one.fate {
            Fate::Removed => Some(Event::Removed { already: false }),
            Fate::Already => Some(Event::Removed { already: true }),
            Fate::Left { .. } => None,
        };
        seen.into_iter().chain(removed).map(|event| ledger.record(one.owned.line, event))
    });
    try_join_all(records).await?;
    Ok(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Case: a run is broken off and cleaned up at once, through a replica that has heard of the
    // people and not yet of their passes. It says 404 to the DELETE and lists nothing.
    #[test]
    fn a_fresh_pass_that_was_neither_deleted_nor_seen_is_looked_for_again() {
        let asked: Timestamp = "2026-03-01T08:00:00Z".parse().expect("a time");
        let owned = |asked| Owned {
            line: Line(2),
            upn: "ada@contoso.example".into(),
            user: UserId::new(uuid::Uuid::nil()),
            method: "ours".parse().expect("an id"),
            asked,
        };
        let (fresh, found) = (owned(Some(asked)), owned(None));
        let soon = later(asked, limits::FRESH_PASS / 2);
        let late = later(asked, limits::FRESH_PASS);
        let nothing = Ok(None);
        let doubtful =
            |one: &Owned, deletion: &Deletion, now| is_doubtful(one, deletion, Some(&nothing), now);
        assert!(doubtful(&fresh, &Deletion::Gone, soon));
        assert!(!doubtful(&fresh, &Deletion::Deleted, soon), "Graph deleted it itself");
        assert!(!doubtful(&fresh, &Deletion::Gone, late), "every replica has heard of it");
        assert!(!doubtful(&found, &Deletion::Gone, soon), "seen a moment ago, and gone now");
    }
}
