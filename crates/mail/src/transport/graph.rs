//! Promises that `sendMail` is called once for a mail, within a mailbox's own limits, and
//! that only Graph's 202 counts as taken.

use crate::template::Mail;
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_graph::limiter::{Budget, Limiter, LimiterOptions, NotAdmitted};
use tapwave_graph::{Graph, GraphError};

use super::SendPermit;
use super::settings::MailPlan;

/// A courier that sends through Graph, as the mailbox in the mail's `from`.
pub struct GraphMail {
    graph: Graph,
    from: String,
    pace: Limiter,
}

impl GraphMail {
    /// A courier with the plan's limits: they hold for the mailbox, not for the tenant, so
    /// they are kept apart from `graph`'s own.
    #[must_use]
    pub fn new(graph: Graph, plan: &MailPlan, clock: Clock) -> Self {
        let options = LimiterOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        let from = plan.from.address().to_owned();
        Self { graph, from, pace: Limiter::new(options, clock) }
    }

    /// The limiter, to show how mail stands and to forecast.
    #[must_use]
    pub fn pace(&self) -> &Limiter {
        &self.pace
    }

    /// Waits until the limits let one mail go.
    ///
    /// # Errors
    /// [`NotAdmitted`], for longer than anybody waits.
    pub(super) async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        Ok(SendPermit { permit: self.pace.admit(Budget::Mail, 1).await?, place: None })
    }

    /// Sends one mail once.
    pub(super) async fn send(&self, mail: &Mail, leave: SendPermit<'_>) -> Effect<String> {
        let sent = self.graph.send_mail(mail.from(), mail.bytes(), leave.permit).await;
        sent.or_else(|refusal| {
            let why = refusal.to_string();
            match refusal.status {
                // Both concern the sender, thus every mail: a permission, a mailbox that is not
                // there.
                403 => sender(&format!("{why}; {PERMISSION}")).into(),
                404 => sender(&format!("{why}; {}", absent(mail.from()))).into(),
                _ => Effect::Refused(why),
            }
        })
    }

    /// Looks for the sender's mailbox, by the name that `sendMail` finds it by.
    ///
    /// # Errors
    /// That it is not there, or cannot be asked for.
    pub(super) async fn try_out(&self) -> Result<(), Obstacle> {
        let error = match self.graph.knows_user(&self.from).await {
            Ok(false) => return Err(sender(&absent(&self.from))),
            // Whoever may send mail need not be one who may look people up.
            Ok(true) | Err(GraphError::Refused { .. } | GraphError::Shape { .. }) => return Ok(()),
            Err(error) => error,
        };
        let why = error.to_string();
        Err(match error {
            GraphError::SignIn { .. } => Obstacle::new(ObstacleKind::SignIn, why),
            GraphError::Between { .. } => Obstacle::new(ObstacleKind::Between, why),
            _ => Obstacle::new(ObstacleKind::Unreachable, why),
        })
    }

    /// Makes sure that nobody answered in Graph's place when it was asked last: another mail
    /// would be of unknown fate too.
    pub(super) fn is_reached(&self) -> Result<(), Obstacle> {
        let between = self.graph.between();
        between.map_or(Ok(()), |why| Err(Obstacle::new(ObstacleKind::Between, why)))
    }
}

const PERMISSION: &str = "grant Mail.Send, or let whoever is signed in send as from in [mail] (in \
                          Exchange: the permission Send As)";

fn sender(why: &str) -> Obstacle {
    Obstacle::new(ObstacleKind::Sender, why)
}

fn absent(from: &str) -> String {
    format!(
        "no mailbox of the tenant is {from}: correct from in [mail], which takes the \
         userPrincipalName of a mailbox"
    )
}
