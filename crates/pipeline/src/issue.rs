//! Promises that a pass is asked for once per intent, and that whatever came of it is in
//! the ledger before anybody acts on it.
//!
//! One POST for one [`Intent`]; the intent is minted after the limiter's leave, so that no
//! wait stands between the two. Must never POST again while an outcome is unsettled: that is
//! `settle`'s to end.

use jiff::Timestamp;

use crate::check::Candidate;
use crate::reconcile::{Observation, observe, of_this_run};
use crate::worker::{RunError, Worker};
use tapwave_core::clock::{apart, later};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::ids::{MethodId, UserId};
use tapwave_core::limits;
use tapwave_graph::limiter::Budget;
use tapwave_graph::transport::Broken;
use tapwave_graph::verdict::{Refusal, RefusalKind};
use tapwave_graph::{CreatedPass, FoundPass, GraphError};
use tapwave_ledger::{Denied, Event, Existing, Intent, Unheld};
use tapwave_seal::Pass;

/// A pass that has just arrived: the only value that holds one outside of the crate `seal`.
/// Made by [`Worker::attempt`] alone; sealing consumes it.
pub struct Issued {
    candidate: Candidate,
    intent: Intent,
    found: FoundPass,
    pass: Pass,
    arrived: Timestamp,
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
        &self.found.id
    }

    /// When it begins to work: as Graph answered, else as asked.
    #[must_use]
    pub fn start(&self) -> Option<Timestamp> {
        self.found.start_date_time.or(self.intent.asked().start)
    }

    /// Minutes from the start: as Graph answered, else as asked.
    #[must_use]
    pub fn lifetime_minutes(&self) -> u32 {
        self.found.lifetime_in_minutes.unwrap_or(self.intent.asked().lifetime_minutes)
    }

    /// Whether it works once only: as Graph answered, else as asked.
    #[must_use]
    pub fn one_time(&self) -> bool {
        self.found.is_usable_once.unwrap_or(self.intent.asked().one_time)
    }

    /// Takes it apart for sealing.
    pub(super) fn into_parts(self) -> (Candidate, Intent, MethodId, Pass) {
        (self.candidate, self.intent, self.found.id, self.pass)
    }

    /// Graph's clock when it arrived.
    #[must_use]
    pub const fn arrived(&self) -> Timestamp {
        self.arrived
    }
}

/// What one attempt came to. Except for a pass that is here, the ledger has it already.
pub enum Attempt {
    /// The drain began first; nothing was tried.
    NotBegun,
    /// Nothing was asked, since the pass would be over too soon; the row has failed.
    TooLate { why: String },
    /// A pass was asked for. Done: it is here, and must be sealed now. Without effect: the row
    /// waits for another attempt. Unsettled: to be settled after the settling time.
    Made(Effect<Box<Issued>, Denial>),
}

/// A definite no to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What the ledger has of it.
    pub denied: Denied,
    /// What Graph's refusal speaks of.
    pub kind: RefusalKind,
}

impl Worker {
    /// Tries once to get a pass. `refused` is how often Graph has refused this row since this
    /// run of the program began.
    ///
    /// # Errors
    /// [`RunError`], if nothing more can be done for any row.
    pub async fn attempt(&self, candidate: Candidate, refused: u32) -> Result<Attempt, RunError> {
        let permit = tokio::select! {
            biased;
            () = self.drain.begun() => return Ok(Attempt::NotBegun),
            permit = self.graph.pace().admit(Budget::PassWrites, 1) => {
                permit.map_err(|barred| RunError::Outage { why: barred.to_string() })?
            }
        };
        match self.graph.prepare().await {
            Ok(()) => {}
            Err(Broken::SignIn(why)) => return Err(RunError::SignIn { why }),
            Err(Broken::Between(why) | Broken::Stranger(why)) => {
                return Err(RunError::Between { why });
            }
            Err(Broken::NotSent(why) | Broken::Lost(why)) => {
                return Ok(unreachable(why));
            }
        }
        // What somebody else answers leaves another row of unknown fate.
        if let Some(why) = self.graph.between() {
            return Err(RunError::Between { why });
        }
        let now = match self.graph.time().await {
            // Nothing was asked for yet: a machine that has just woken waits for its network.
            Err(GraphError::Outage { why }) if !self.is_refused() => {
                return Ok(unreachable(why));
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
        let mut kind = RefusalKind::Other;
        let effect = match self.graph.create_pass(&intent, permit).await {
            Effect::Done(created) => {
                let CreatedPass { found, pass } = *created;
                if let Some(pass) = pass {
                    let arrived = self.graph.now();
                    let issued = Issued { candidate, intent, found, pass, arrived };
                    return Ok(Attempt::Made(Effect::Done(Box::new(issued))));
                }
                let why = "Graph's answer held no usable pass".to_owned();
                Effect::Done(Unheld { method: found.id, why })
            }
            Effect::Refused(refusal) => {
                kind = refusal.kind;
                self.refused(&intent, refusal, refused).await?
            }
            Effect::NoEffect(obstacle) => Effect::NoEffect(obstacle),
            Effect::Unsettled { why } => Effect::Unsettled { why },
        };
        let stranger = self.graph.between();
        self.ledger.record_outcome(intent, effect.clone(), self.graph.now()).await?;
        concluded(effect, kind, stranger)
    }

    /// Deletes a pass that could not be sealed, while its id is still known.
    pub async fn undo(&self, user: UserId, method: MethodId) -> &'static str {
        match self.graph.delete_passes(&[(user, method)]).await.as_deref() {
            Ok([Ok(())]) => "the pass was deleted again",
            _ => "the pass could not be deleted; resume will settle it",
        }
    }

    /// What a refusal comes to: some pass by themselves.
    async fn refused(
        &self,
        intent: &Intent,
        refusal: Refusal,
        refused: u32,
    ) -> Result<Effect<Unheld, Denied>, RunError> {
        let mut why = refusal.to_string();
        let again = match refusal.kind {
            RefusalKind::AlreadyThere => match self.in_the_way(intent).await? {
                InTheWay::Doubtful => return Ok(Effect::Refused(Denied::InTheWay { why })),
                InTheWay::Cleared => true,
                InTheWay::Theirs => false,
            },
            // Seen on the check a moment ago: a replica that does not know the user yet.
            RefusalKind::UserGone => true,
            RefusalKind::StartPast => match intent.asked().start {
                // It passed on the way to Graph; the next attempt leaves it out.
                Some(start) if start <= later(self.graph.now(), limits::START_MARGIN) => true,
                Some(start) => {
                    why = format!("{why}; {}", self.start_ahead(start));
                    false
                }
                None => false,
            },
            _ => false,
        };
        // A tenant may contradict itself for ever.
        if again && refused + 1 < limits::MAX_ATTEMPTS {
            return Ok(Obstacle::new(ObstacleKind::Temporary, why).into());
        }
        Ok(Effect::Refused(Denied::Final { why }))
    }

    /// What is said of a start that Graph calls past against its own clock: no wait mends that.
    fn start_ahead(&self, start: Timestamp) -> String {
        let (date, wall) = (self.graph.now(), self.clock.now());
        format!(
            "but the start {start} is {} ahead of the clock that Graph shows in its answers ({}) and {} of this machine's ({}), so the clock of the service that issues passes is wrong, or those two are; give a start that is later still, or none",
            apart(start.duration_since(date)),
            whole(date),
            match start.duration_since(wall) {
                ahead if ahead.is_negative() => format!("{} behind", apart(ahead)),
                ahead => format!("{} ahead", apart(ahead)),
            },
            whole(wall),
        )
    }

    /// What a refusal speaks of that says that a pass exists. A list may not show it yet, and it
    /// may be our own: an earlier attempt's whose answer was lost, or this one's, carried out
    /// twice by a gateway.
    async fn in_the_way(&self, intent: &Intent) -> Result<InTheWay, RunError> {
        let Some(Ok(found)) = self.graph.passes(&[intent.user()]).await?.pop() else {
            return Ok(InTheWay::Doubtful);
        };
        let remains = self.ledger.remains_of(vec![intent.line()]).await?;
        let now = self.graph.now();
        let sighting = remains.first().map(|remains| {
            let sighting = observe(found.as_ref(), remains, self.settle_after, now);
            of_this_run(sighting, &self.issuers)
        });
        let replaces = self.existing == Existing::Replace;
        let over = found.as_ref().is_some_and(|pass| !pass.is_live(now));
        match (sighting, found) {
            // What `--existing replace` allows in a tenant that rejects a second pass.
            (Some(Observation::Older(_)), Some(pass)) if replaces => {
                self.make_room(intent, pass).await
            }
            (Some(Observation::Nothing), Some(pass)) if replaces && over => {
                self.make_room(intent, pass).await
            }
            (Some(Observation::Older(_) | Observation::Newer(_)), _) => Ok(InTheWay::Theirs),
            _ => Ok(InTheWay::Doubtful),
        }
    }

    async fn make_room(&self, intent: &Intent, pass: FoundPass) -> Result<InTheWay, RunError> {
        let deleted = self.graph.delete_passes(&[(intent.user(), pass.id)]).await?;
        Ok(match &deleted[..] {
            [Ok(())] => InTheWay::Cleared,
            [Err(refusal)] if refusal.kind == RefusalKind::MethodGone => InTheWay::Cleared,
            _ => InTheWay::Theirs,
        })
    }
}

/// A moment without its fraction of a second.
fn whole(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// What an outcome that the ledger has means for the run. `stranger` is whoever answered in
/// Graph's place, if somebody did.
fn concluded(
    effect: Effect<Unheld, Denied>,
    kind: RefusalKind,
    stranger: Option<String>,
) -> Result<Attempt, RunError> {
    match (effect, stranger) {
        (Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }), _) => {
            Err(RunError::SignIn { why })
        }
        // The next row would be of unknown fate as well.
        (Effect::NoEffect(Obstacle { kind: ObstacleKind::Between, why }), _)
        | (Effect::Unsettled { .. }, Some(why)) => Err(RunError::Between { why }),
        (effect, _) => {
            let unheld = |Unheld { why, .. }| Effect::Unsettled { why };
            let no = |denied| Effect::Refused(Denial { denied, kind });
            Ok(Attempt::Made(effect.and_then(unheld).or_else(no)))
        }
    }
}

fn unreachable(why: String) -> Attempt {
    Attempt::Made(Obstacle::new(ObstacleKind::Unreachable, why).into())
}

/// Whose pass a refusal speaks of.
enum InTheWay {
    /// It was deleted, as the operator allows.
    Cleared,
    /// Somebody else's.
    Theirs,
    /// It may be ours.
    Doubtful,
}
