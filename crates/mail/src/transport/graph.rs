//! Promises that `sendMail` is called once for a mail, within a mailbox's own limits, and that only
//! Graph's 202 counts as accepted.

use crate::template::Mail;
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_graph::limiter::{Budget, Limiter, LimiterOptions, NotAdmitted};
use tapwave_graph::{Graph, GraphError};

use super::permit::SendPermit;
use super::settings::MailPlan;

/// A transport that sends through Graph, from the mailbox in the mail's `from`.
pub struct GraphMail {
    graph: Graph,
    from: String,
    limiter: Limiter,
}

impl GraphMail {
    /// The plan's limits hold for the mailbox, so they are separate from `graph`'s own, which hold
    /// for the tenant.
    #[must_use]
    pub fn new(graph: Graph, plan: &MailPlan, clock: Clock) -> Self {
        let options = LimiterOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        let from = plan.from.address().to_owned();
        Self { graph, from, limiter: Limiter::new(options, clock) }
    }

    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    pub(super) async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        Ok(SendPermit { admission: self.limiter.admit(Budget::Mail, 1).await?, slot: None })
    }

    pub(super) async fn send(&self, mail: &Mail, permit: SendPermit<'_>) -> Effect<String> {
        let sent = self.graph.send_mail(mail.from(), mail.bytes(), permit.admission).await;
        sent.or_else(|refusal| {
            let why = refusal.to_string();
            match refusal.status {
                // A missing permission or mailbox of the sender concerns every mail.
                403 => sender_obstacle(&format!("{why}; {PERMISSION}")).into(),
                404 => sender_obstacle(&format!("{why}; {}", no_mailbox(mail.from()))).into(),
                _ => Effect::Refused(why),
            }
        })
    }

    /// Looks for the sender's mailbox by the name that `sendMail` uses.
    pub(super) async fn try_out(&self) -> Result<(), Obstacle> {
        let error = match self.graph.knows_user(&self.from).await {
            Ok(false) => return Err(sender_obstacle(&no_mailbox(&self.from))),
            // Sending mail does not need the permission to read users.
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

    /// Fails if something else answered in Graph's place to the latest request: another mail would
    /// be of unknown fate too.
    pub(super) fn check_reached(&self) -> Result<(), Obstacle> {
        let between = self.graph.between();
        between.map_or(Ok(()), |why| Err(Obstacle::new(ObstacleKind::Between, why)))
    }
}

const PERMISSION: &str = "grant Mail.Send, or let whoever is signed in send as from in [mail] (in \
                          Exchange: the permission Send As)";

fn sender_obstacle(why: &str) -> Obstacle {
    Obstacle::new(ObstacleKind::Sender, why)
}

fn no_mailbox(from: &str) -> String {
    format!(
        "no mailbox of the tenant is {from}: correct from in [mail], which takes the \
         userPrincipalName of a mailbox"
    )
}
