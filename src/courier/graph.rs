//! Promises that `sendMail` is called once for a mail, within a mailbox's own limits, and
//! that only Graph's 202 counts as taken.

use crate::clock::Clock;
use crate::effect::{Effect, Obstacle, ObstacleKind};
use crate::graph::Graph;
use crate::letter::Mail;
use crate::pace::{Barred, Budget, Pace, PaceOptions};

use super::Leave;
use super::settings::MailPlan;

/// A courier that sends through Graph, as the mailbox in the mail's `from`.
pub struct GraphMail {
    graph: Graph,
    pace: Pace,
}

impl GraphMail {
    /// A courier with the plan's limits: they hold for the mailbox, not for the tenant, so
    /// they are kept apart from `graph`'s own.
    #[must_use]
    pub fn new(graph: Graph, plan: &MailPlan, clock: Clock) -> Self {
        let options = PaceOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        Self { graph, pace: Pace::new(options, clock) }
    }

    /// The limiter, to show how mail stands and to forecast.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Waits until the limits let one mail go.
    ///
    /// # Errors
    /// [`Barred`], for longer than anybody waits.
    pub(super) async fn admit(&self) -> Result<Leave<'_>, Barred> {
        Ok(Leave { permit: self.pace.admit(Budget::Mail, 1).await?, place: None })
    }

    /// Sends one mail once.
    pub(super) async fn send(&self, mail: &Mail, leave: Leave<'_>) -> Effect<String> {
        let sent = self.graph.send_mail(mail.from(), mail.bytes(), leave.permit).await;
        sent.or_else(|refusal| {
            let why = refusal.to_string();
            match refusal.status {
                // Both concern the sender, thus every mail: a permission, a mailbox that is not
                // there.
                403 => Obstacle::new(ObstacleKind::SignIn, why).into(),
                404 => Obstacle::new(ObstacleKind::Lasting, why).into(),
                _ => Effect::Refused(why),
            }
        })
    }
}
