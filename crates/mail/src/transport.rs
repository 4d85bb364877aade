//! Promises that what became of a mail is told exactly: taken, certainly not sent, refused,
//! or unknown. Must never send one twice by itself, nor a code over a line that others read.
//!
//! A [`MailTransport`] takes one [`Mail`] at a time from each caller and keeps its own limits. It
//! never repeats what may have arrived; whoever holds the ledger decides about that. A mail is
//! done when the relay, or Graph, took it and answers for it from now on, with its own words or
//! its request id; it is unsettled when the final dot may have arrived and no answer came.

mod connection;
pub mod graph;
mod reply;
mod route;
pub mod secret;
pub mod settings;
pub mod smtp;

use std::time::Duration;

use tokio::sync::SemaphorePermit;

use crate::template::{Form, Mail};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::limits;
use tapwave_graph::limiter::{Limiter, NotAdmitted, Permit};

pub use graph::GraphMail;
pub use smtp::Smtp;

/// Which letters may stand before the `@` of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    /// Those of ASCII: a relay without SMTPUTF8.
    Ascii,
    /// Any.
    Any,
}

/// What an address with other letters is told at a relay of [`Scripts::Ascii`].
pub const NEEDS_UTF8: &str = "has letters outside ASCII before its @, and the relay lacks \
                              SMTPUTF8; give another address, or a relay that has it";

/// Leave to send one mail now: a place, and the limiter's word.
struct SendPermit<'a> {
    permit: Permit,
    place: Option<SemaphorePermit<'a>>,
}

/// Leave to send one mail, and what it goes over stands. See [`MailTransport::spare`].
pub struct Ready<'a> {
    leave: SendPermit<'a>,
    /// The connection, if mails go over one.
    over: Option<Box<smtp::IdleConnection>>,
}

/// One of the two ways to send.
pub enum MailTransport {
    /// Through a relay.
    Smtp(Box<Smtp>),
    /// Through Graph's `sendMail`.
    Graph(GraphMail),
}

impl MailTransport {
    /// What form of mail it takes.
    #[must_use]
    pub const fn form(&self) -> Form {
        match self {
            Self::Smtp(_) => Form::Mime,
            Self::Graph(_) => Form::GraphJson,
        }
    }

    /// The limiter, to show how mail stands and to forecast.
    #[must_use]
    pub fn pace(&self) -> &Limiter {
        match self {
            Self::Smtp(smtp) => smtp.pace(),
            Self::Graph(graph) => graph.pace(),
        }
    }

    /// Waits until the limits let one mail go.
    ///
    /// # Errors
    /// [`NotAdmitted`], for longer than anybody waits.
    async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        match self {
            Self::Smtp(smtp) => smtp.admit().await,
            Self::Graph(graph) => graph.admit().await,
        }
    }

    /// Waits until the limits let one mail go, connects to the relay and signs in there. To be
    /// asked before the mail is intended, so that nothing of this stands between the two: until
    /// a mail is sent, none can have gone out. Dropping the future does no harm.
    ///
    /// # Errors
    /// Why no mail can go out now.
    pub async fn ready(&self) -> Result<Ready<'_>, Obstacle> {
        let barred = |barred: NotAdmitted| Obstacle::new(ObstacleKind::Lasting, barred.to_string());
        let leave = self.admit().await.map_err(barred)?;
        match self {
            Self::Smtp(smtp) => smtp.ready(leave).await,
            Self::Graph(graph) => match graph.is_reached() {
                Ok(()) => Ok(Ready { leave, over: None }),
                Err(obstacle) => {
                    leave.permit.broken();
                    Err(obstacle)
                }
            },
        }
    }

    /// Makes sure that the connection still stands, after whatever took long since it was made,
    /// or makes another.
    ///
    /// # Errors
    /// As for [`MailTransport::ready`].
    pub async fn refresh<'a>(&self, ready: Ready<'a>) -> Result<Ready<'a>, Obstacle> {
        match self {
            Self::Smtp(smtp) => smtp.refresh(ready).await,
            Self::Graph(_) => Ok(ready),
        }
    }

    /// Takes back what no mail needs after all.
    pub fn spare(&self, ready: Ready<'_>) {
        if let (Self::Smtp(smtp), Some(kept)) = (self, ready.over) {
            smtp.keep(*kept);
        }
    }

    /// Sends one mail once. Dropping the future before it is done leaves it unknown whether the
    /// mail went out. Whoever refuses a mail may quote it, so what is told here is without any
    /// piece of its code.
    pub async fn send(&self, mail: &Mail, ready: Ready<'_>) -> Effect<String> {
        if mail.form() != self.form() {
            let why = "the mail was composed for another courier; compose it anew";
            return Obstacle::new(ObstacleKind::Lasting, why).into();
        }
        let sent = match self {
            Self::Smtp(smtp) => smtp.send(mail, ready).await,
            Self::Graph(graph) => graph.send(mail, ready.leave).await,
        };
        sent.reworded(|words| mail.unquoted(words))
    }

    /// Connects to the relay, signs in and begins a mail, sending nothing; of Graph, asks for the
    /// mailbox, since its token tells its permissions. So a wrong password and a sender that may
    /// not send are found before any pass exists.
    ///
    /// # Errors
    /// Why no mail could be sent now.
    pub async fn try_out(&self) -> Result<Scripts, Obstacle> {
        match self {
            Self::Smtp(smtp) => smtp.try_out().await,
            Self::Graph(graph) => graph.try_out().await.map(|()| Scripts::Any),
        }
    }

    /// Takes leave of the relay, within a bound. To be called at the end of whatever opened it,
    /// however that ended.
    pub async fn close(&self) {
        if let Self::Smtp(smtp) = self {
            smtp.close().await;
        }
    }
}

/// How long to wait after the `attempt`th sending (counted from 1) that may be repeated.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    limits::MAIL_BACKOFF.saturating_mul(doubled).min(limits::MAX_MAIL_BACKOFF)
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
