//! Promises to report the outcome of a mail exactly: accepted, certainly not sent, refused, or
//! unknown. Must never send a mail twice by itself, nor a code over an unprotected connection.
//!
//! A [`MailTransport`] keeps its own limits. It never repeats what may have arrived; the caller,
//! who has the ledger, decides that. A mail is done once the relay or Graph has accepted it; it is
//! unsettled when the final dot may have arrived and no answer came.

mod connection;
pub mod graph;
mod permit;
mod reply;
mod route;
pub mod secret;
pub mod settings;
pub mod smtp;

use std::time::Duration;

use self::permit::SendPermit;
use crate::template::{Form, Mail};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::{backoff, limits};
use tapwave_graph::limiter::{Limiter, NotAdmitted};

pub use graph::GraphMail;
pub use permit::{NEEDS_UTF8, Ready, Scripts};
pub use smtp::Smtp;

/// Sends mails through a relay or through Graph's `sendMail`.
pub enum MailTransport {
    Smtp(Box<Smtp>),
    Graph(GraphMail),
}

impl MailTransport {
    #[must_use]
    pub const fn form(&self) -> Form {
        match self {
            Self::Smtp(_) => Form::Mime,
            Self::Graph(_) => Form::GraphJson,
        }
    }

    /// The limiter, for status and forecast.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        match self {
            Self::Smtp(smtp) => smtp.limiter(),
            Self::Graph(graph) => graph.limiter(),
        }
    }

    /// Waits until the limits permit one mail.
    async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        match self {
            Self::Smtp(smtp) => smtp.admit().await,
            Self::Graph(graph) => graph.admit().await,
        }
    }

    /// Waits until the limits permit one mail, connects to the relay and signs in. Call it before
    /// the mail is recorded as intended: a failure here leaves no mail of unknown fate. The future
    /// may be dropped.
    pub async fn ready(&self) -> Result<Ready<'_>, Obstacle> {
        let lasting = |error: NotAdmitted| Obstacle::new(ObstacleKind::Lasting, error.to_string());
        let permit = self.admit().await.map_err(lasting)?;
        match self {
            Self::Smtp(smtp) => smtp.ready(permit).await,
            Self::Graph(graph) => match graph.check_reached() {
                Ok(()) => Ok(Ready { permit, connection: None }),
                Err(obstacle) => {
                    permit.admission.broken();
                    Err(obstacle)
                }
            },
        }
    }

    /// Replaces the connection if the relay has closed it since [`MailTransport::ready`].
    pub async fn refresh<'a>(&self, ready: Ready<'a>) -> Result<Ready<'a>, Obstacle> {
        match self {
            Self::Smtp(smtp) => smtp.refresh(ready).await,
            Self::Graph(_) => Ok(ready),
        }
    }

    /// Takes a connection back that no mail needs after all.
    pub fn release(&self, ready: Ready<'_>) {
        if let (Self::Smtp(smtp), Some(connection)) = (self, ready.connection) {
            smtp.keep(*connection);
        }
    }

    /// Sends one mail once. If the future is dropped before its end, nobody knows whether the mail
    /// went out. The answer is redacted: a refusal may quote the mail.
    pub async fn send(&self, mail: &Mail, ready: Ready<'_>) -> Effect<String> {
        if mail.form() != self.form() {
            let why = "the mail was composed for another courier; compose it anew";
            return Obstacle::new(ObstacleKind::Lasting, why).into();
        }
        let sent = match self {
            Self::Smtp(smtp) => smtp.send(mail, ready).await,
            Self::Graph(graph) => graph.send(mail, ready.permit).await,
        };
        sent.reworded(|answer| mail.redact(answer))
    }

    /// Finds a wrong password, or a sender that may not send, before any pass exists. At a relay it
    /// signs in and begins a mail; at Graph it looks for the mailbox, since the token tells the
    /// permissions.
    pub async fn try_out(&self) -> Result<Scripts, Obstacle> {
        match self {
            Self::Smtp(smtp) => smtp.try_out().await,
            Self::Graph(graph) => graph.try_out().await.map(|()| Scripts::Any),
        }
    }

    /// Ends the connections with QUIT, within a bound. Call it at the end, also after an error.
    pub async fn close(&self) {
        if let Self::Smtp(smtp) = self {
            smtp.close().await;
        }
    }
}

/// How long to wait after the `attempt`th attempt, counted from 1.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(1);
    backoff::exponential(limits::MAIL_BACKOFF, doublings, limits::MAX_MAIL_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_from_five_seconds_to_five_minutes() {
        let seconds: Vec<u64> = (0..9).map(|attempt| backoff(attempt).as_secs()).collect();
        assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff(u32::MAX).as_secs(), 300);
    }
}
