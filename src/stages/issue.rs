//! Promises that a pass is asked for once per intent, and that whatever came of it is in
//! the ledger before anybody acts on it.
//!
//! One POST for one [`Intent`]; the intent is minted after the limiter's leave, so that no
//! wait stands between the two. Must never POST again while an outcome is unsettled: that is
//! `settle`'s to end.

pub mod settle;

use std::time::Duration;

use jiff::Timestamp;

use super::Drain;
use super::check::Candidate;
use crate::clock::Clock;
use crate::graph::transport::Broken;
use crate::graph::verdict::{Refusal, RefusalKind};
use crate::graph::{CreatedPass, Creation, Deletion, Graph, GraphError};
use crate::ids::{Line, MethodId, UserId};
use crate::ledger::{Event, Existing, Intent, Ledger, LedgerError, Outcome};
use crate::limits;
use crate::pace::Budget;
use crate::vault::Pass;

/// First wait before a row is tried again for another reason than throttling; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest such wait. With [`limits::MAX_ATTEMPTS`] a user who appears late has four minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(64);

/// What issuing needs, shared by every row.
#[derive(Clone)]
pub struct Desk {
    /// Microsoft Graph.
    pub graph: Graph,
    /// The run's record.
    pub ledger: Ledger,
    /// Time.
    pub clock: Clock,
    /// The policy's shortest lifetime, in minutes.
    pub min_lifetime: u32,
    /// What to do about a pass that is there already.
    pub existing: Existing,
    /// How long a lost POST may still execute.
    pub fence: Duration,
    /// The wish to stop.
    pub drain: Drain,
}

/// A pass that has just arrived: the only value that holds one outside of the vault.
/// Made by [`Desk::attempt`] alone; sealing consumes it.
pub struct Issued {
    candidate: Candidate,
    intent: Intent,
    created: Box<CreatedPass>,
}

impl Issued {
    /// Whom it is for.
    #[must_use]
    pub const fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Its id.
    #[must_use]
    pub const fn method(&self) -> &MethodId {
        &self.created.found.id
    }

    /// When it begins to work: as Graph answered, else as asked.
    #[must_use]
    pub fn start(&self) -> Option<Timestamp> {
        self.created.found.start_date_time.or(self.intent.asked().start)
    }

    /// Minutes from the start: as Graph answered, else as asked.
    #[must_use]
    pub fn lifetime_minutes(&self) -> u32 {
        self.created.found.lifetime_in_minutes.unwrap_or(self.intent.asked().lifetime_minutes)
    }

    /// Whether it works once only: as Graph answered, else as asked.
    #[must_use]
    pub fn one_time(&self) -> bool {
        self.created.found.is_usable_once.unwrap_or(self.intent.asked().one_time)
    }

    /// Takes it apart for sealing.
    pub(super) fn into_parts(self) -> (Candidate, Intent, MethodId, Pass) {
        let CreatedPass { found, pass } = *self.created;
        (self.candidate, self.intent, found.id, pass)
    }
}

/// What one attempt came to. Except for `Issued`, the ledger has it already.
pub enum Attempt {
    /// The pass is here and must be sealed now.
    Issued(Box<Issued>),
    /// Without effect; the row waits for another attempt.
    Again {
        /// What the wait depends on.
        hindrance: Hindrance,
        /// What broke, for people.
        why: String,
    },
    /// Nobody knows; to be settled after the fence.
    Unsettled {
        /// What broke, for people.
        why: String,
    },
    /// A definite no of Graph's; the row has failed.
    Failed {
        /// For people.
        why: String,
    },
    /// Nothing was asked, since the pass would be over too soon; the row has failed.
    TooLate {
        /// For people.
        why: String,
    },
    /// The drain began first; nothing was tried.
    NotBegun,
}

/// Why an attempt was without effect though another may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// Graph throttled; the limiter holds everyone already.
    Throttled,
    /// Graph, or the sign-in address, was out of reach.
    Unreachable,
    /// Graph refused in a way that may pass.
    Refused,
}

/// Why the whole run must stop.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// The token was refused.
    #[error("{why}")]
    SignIn {
        /// For people.
        why: String,
    },
    /// Graph is out of reach or throttles without end.
    #[error("gave up on Microsoft Graph: {why}")]
    Outage {
        /// What broke last.
        why: String,
    },
    /// Graph's answers cannot be used.
    #[error(transparent)]
    Graph(GraphError),
    /// The ledger cannot be written any more.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A pass could not be sealed; it has been deleted again if that was possible.
    #[error("failed to seal the pass of line {line}: {why}; {fate}")]
    Seal {
        /// The row.
        line: Line,
        /// What broke.
        why: String,
        /// What became of the pass.
        fate: &'static str,
    },
}

impl From<GraphError> for Halt {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::SignIn { why } => Self::SignIn { why },
            GraphError::Outage { why } => Self::Outage { why },
            other => Self::Graph(other),
        }
    }
}

impl Desk {
    /// Tries once to get a pass. `refused` is how often Graph has refused this row since this
    /// run of the program began.
    ///
    /// # Errors
    /// [`Halt`], if nothing more can be done for any row.
    pub async fn attempt(&self, candidate: Candidate, refused: u32) -> Result<Attempt, Halt> {
        let permit = tokio::select! {
            biased;
            () = self.drain.begun() => return Ok(Attempt::NotBegun),
            permit = self.graph.pace().admit(Budget::PassWrites, 1) => {
                permit.map_err(|barred| Halt::Outage { why: barred.to_string() })?
            }
        };
        match self.graph.prepare().await {
            Ok(()) => {}
            Err(Broken::SignIn(why)) => return Err(Halt::SignIn { why }),
            Err(Broken::NotSent(why) | Broken::Lost(why)) => {
                return Ok(Attempt::Again { hindrance: Hindrance::Unreachable, why });
            }
        }
        let now = match self.graph.time().await {
            // Nothing was asked for yet: a machine that has just woken waits for its network.
            Err(GraphError::Outage { why }) if !self.is_refused() => {
                return Ok(Attempt::Again { hindrance: Hindrance::Unreachable, why });
            }
            told => told?,
        };
        let asked = match candidate.asked_at(now, self.min_lifetime) {
            Ok(asked) => asked,
            Err(late) => {
                let why = late.to_string();
                self.ledger.record(candidate.line(), Event::TooLate { why: why.clone() }).await?;
                return Ok(Attempt::TooLate { why });
            }
        };
        let intent = self.ledger.intend(candidate.line(), candidate.user(), asked, now).await?;
        match self.graph.create_pass(&intent, permit).await {
            Creation::Created(created) => {
                Ok(Attempt::Issued(Box::new(Issued { candidate, intent, created })))
            }
            Creation::NotEffected { why, throttled } => {
                let hindrance =
                    if throttled { Hindrance::Throttled } else { Hindrance::Unreachable };
                self.not_effected(intent, why.clone()).await?;
                Ok(Attempt::Again { hindrance, why })
            }
            Creation::Refused(refusal) => self.refused(intent, refusal, refused).await,
            Creation::SignIn { why } => {
                self.not_effected(intent, why.clone()).await?;
                Err(Halt::SignIn { why })
            }
            Creation::Unsettled { why } => {
                let lost = Outcome::Lost { why: why.clone(), given_up: self.graph.now() };
                self.ledger.record_outcome(intent, lost).await?;
                Ok(Attempt::Unsettled { why })
            }
        }
    }

    /// Whether the latest word of a budget was a refusal: Graph is there, and wants to be left
    /// alone.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        [Budget::Directory, Budget::PassReads, Budget::PassWrites]
            .into_iter()
            .any(|budget| self.graph.pace().refused_since(budget).is_some())
    }

    /// Deletes a pass that could not be sealed, while its id is still known.
    pub async fn undo(&self, user: UserId, method: MethodId) -> &'static str {
        match self.graph.delete_passes(&[(user, method)]).await.as_deref() {
            Ok([Deletion::Deleted | Deletion::Gone]) => "the pass was deleted again",
            _ => "the pass could not be deleted; resume will settle it",
        }
    }

    async fn not_effected(&self, intent: Intent, why: String) -> Result<(), LedgerError> {
        self.ledger.record_outcome(intent, Outcome::NotEffected { why }).await.map(drop)
    }

    async fn refused(
        &self,
        intent: Intent,
        refusal: Refusal,
        refused: u32,
    ) -> Result<Attempt, Halt> {
        let why = refusal.to_string();
        // A tenant may contradict itself for ever: it lists nothing and says that it is there.
        let again = refused + 1 < limits::MAX_ATTEMPTS
            && match refusal.kind {
                // Seen on the check a moment ago: a replica that does not know the user yet.
                RefusalKind::UserGone => true,
                // It passed on the way to Graph, whose Date header tells whole seconds only; the
                // next attempt leaves it out.
                RefusalKind::StartPast => intent.asked().start.is_some(),
                RefusalKind::AlreadyThere if self.existing == Existing::Replace => {
                    self.make_room(&intent).await?
                }
                _ => false,
            };
        if again {
            self.not_effected(intent, why.clone()).await?;
            return Ok(Attempt::Again { hindrance: Hindrance::Refused, why });
        }
        self.ledger.record_outcome(intent, Outcome::Refused { why: why.clone() }).await?;
        Ok(Attempt::Failed { why })
    }

    /// In a tenant that rejects a second pass, deletes one that is older than our intent, or
    /// that is over: that is what `--existing replace` allows. True if there is room now.
    async fn make_room(&self, intent: &Intent) -> Result<bool, Halt> {
        let found = self.graph.passes(&[intent.user()]).await?.pop();
        let Some(Ok(Some(pass))) = found else { return Ok(true) };
        let older = pass.created_date_time.is_some_and(|created| created < intent.graph_time());
        let over = !pass.is_live(self.graph.now());
        if !(older || over) {
            return Ok(false);
        }
        let deleted = self.graph.delete_passes(&[(intent.user(), pass.id)]).await?;
        Ok(matches!(deleted[..], [Deletion::Deleted | Deletion::Gone]))
    }
}

/// How long to wait after `tried` attempts of one kind: two seconds, doubling to about a minute.
#[must_use]
pub fn waiting(tried: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << tried.min(16)).min(LONGEST_WAIT)
}
