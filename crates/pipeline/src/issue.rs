//! Promises that a pass is asked for once per intent, and that the outcome is in the ledger before
//! anybody acts on it.
//!
//! One POST for one [`Intent`], which is created after the limiter's permit, so that nothing is
//! waited for between the two. Must never POST again while an outcome is unsettled: `reconcile`
//! settles it.

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

/// A pass that has just arrived: the only value outside of the crate `seal` that holds one. Made by
/// [`Worker::attempt`] alone; sealing consumes it.
pub struct Issued {
    candidate: Candidate,
    intent: Intent,
    found: FoundPass,
    pass: Pass,
    arrived: Timestamp,
}

impl Issued {
    pub const fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    pub const fn method(&self) -> &MethodId {
        &self.found.id
    }

    /// As Graph answered, else as asked; so are the next two.
    pub fn start(&self) -> Option<Timestamp> {
        self.found.start_date_time.or(self.intent.asked().start)
    }

    pub fn lifetime_minutes(&self) -> u32 {
        self.found.lifetime_in_minutes.unwrap_or(self.intent.asked().lifetime_minutes)
    }

    pub fn one_time(&self) -> bool {
        self.found.is_usable_once.unwrap_or(self.intent.asked().one_time)
    }

    pub(super) fn into_parts(self) -> (Candidate, Intent, MethodId, Pass) {
        (self.candidate, self.intent, self.found.id, self.pass)
    }

    /// By Graph's clock.
    pub const fn arrived(&self) -> Timestamp {
        self.arrived
    }
}

/// How one attempt ended. The ledger has recorded it already, except for a pass.
pub enum Attempt {
    /// The run stops; nothing was tried.
    NotBegun,
    /// The pass would expire too soon to be asked for; the row has failed.
    TooLate { why: String },
    /// A pass was asked for. `Done`: seal it now. `NoEffect`: try again later. `Unsettled`:
    /// reconcile after the settling time.
    Made(Effect<Box<Issued>, Denial>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub denied: Denied,
    pub kind: RefusalKind,
}

impl Worker {
    /// Tries once to get a pass. `refused` counts this process's earlier attempts at the row that
    /// Graph refused.
    pub async fn attempt(&self, candidate: Candidate, refused: u32) -> Result<Attempt, RunError> {
        let permit = tokio::select! {
            biased;
            () = self.stop.requested() => return Ok(Attempt::NotBegun),
            permit = self.graph.limiter().admit(Budget::PassWrites, 1) => {
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
        // An answer that is not Graph's would leave another row unsettled.
        if let Some(why) = self.graph.between() {
            return Err(RunError::Between { why });
        }
        let now = match self.graph.time().await {
            // Nothing was sent yet: a machine that has just woken waits for its network.
            Err(GraphError::Outage { why }) if !self.is_throttled() => {
                return Ok(unreachable(why));
            }
            time => time?,
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
        attempt_result(effect, kind, stranger)
    }

    /// Deletes a pass that could not be sealed, while its id is still known.
    pub async fn undo(&self, user: UserId, method: MethodId) -> &'static str {
        match self.graph.delete_passes(&[(user, method)]).await.as_deref() {
            Ok([Ok(())]) => "the pass was deleted again",
            _ => "the pass could not be deleted; resume will settle it",
        }
    }

    /// Some refusals pass by themselves, and the row is tried again.
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
            // The check saw the user a moment ago: this replica does not know it yet.
            RefusalKind::UserGone => true,
            RefusalKind::StartPast => match intent.asked().start {
                // The start passed while the request was on its way; the next attempt leaves it
                // out.
                Some(start) if start <= later(self.graph.now(), limits::START_MARGIN) => true,
                Some(start) => {
                    why = format!("{why}; {}", self.start_ahead(start));
                    false
                }
                None => false,
            },
            _ => false,
        };
        // Otherwise a tenant that contradicts itself would be asked for ever.
        if again && refused + 1 < limits::MAX_ATTEMPTS {
            return Ok(Obstacle::new(ObstacleKind::Temporary, why).into());
        }
        Ok(Effect::Refused(Denied::Final { why }))
    }

    /// Explains a start that Graph calls past against its own clock. Waiting does not help.
    fn start_ahead(&self, start: Timestamp) -> String {
        let (date, wall) = (self.graph.now(), self.clock.now());
        format!(
            "but the start {start} is {} ahead of the clock that Graph shows in its answers ({}) and {} of this machine's ({}), so the clock of the service that issues passes is wrong, or those two are; give a start that is later still, or none",
            apart(start.duration_since(date)),
            whole_seconds(date),
            match start.duration_since(wall) {
                ahead if ahead.is_negative() => format!("{} behind", apart(ahead)),
                ahead => format!("{} ahead", apart(ahead)),
            },
            whole_seconds(wall),
        )
    }

    /// Finds out whose pass makes Graph refuse another one. A list may not show it yet, and it may
    /// be this run's: a lost attempt's, or this one's, carried out twice by a gateway.
    async fn in_the_way(&self, intent: &Intent) -> Result<InTheWay, RunError> {
        let Some(Ok(found)) = self.graph.passes(&[intent.user()]).await?.pop() else {
            return Ok(InTheWay::Doubtful);
        };
        let remains = self.ledger.remains_of(vec![intent.line()]).await?;
        let now = self.graph.now();
        let observation = remains.first().map(|remains| {
            let observation = observe(found.as_ref(), remains, self.settle_after, now);
            of_this_run(observation, &self.issuers)
        });
        let replaces = self.existing == Existing::Replace;
        let over = found.as_ref().is_some_and(|pass| !pass.is_live(now));
        match (observation, found) {
            // `--existing replace` allows it, in a tenant that rejects a second pass.
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

fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// What a recorded outcome means for the run. `stranger` is who answered in Graph's place, if
/// anybody did.
fn attempt_result(
    effect: Effect<Unheld, Denied>,
    kind: RefusalKind,
    stranger: Option<String>,
) -> Result<Attempt, RunError> {
    match (effect, stranger) {
        (Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }), _) => {
            Err(RunError::SignIn { why })
        }
        // The next row would be unsettled as well.
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

/// Whose pass is in the way.
enum InTheWay {
    /// Deleted, as the operator allows.
    Cleared,
    Theirs,
    /// It may be this run's.
    Doubtful,
}
