//! Promises one vocabulary for what a remote act came to, whoever performed it: a POST for a
//! pass, a DELETE, a mail.
//!
//! The distinction that matters is between an act that certainly had no effect, which may be
//! tried again at once, and one of which nobody knows. Unsettled is not failure.

/// What is known of the effect of one act on another system.
///
/// `T` is what it brought, `R` is how the other side says no.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an unsettled effect must be recorded"]
pub enum Effect<T, R = String> {
    /// It took effect.
    Done(T),
    /// A definite no, without effect: asking the same again will not help.
    Refused(R),
    /// It certainly had no effect, and may be tried again.
    NoEffect(Obstacle),
    /// Nobody knows whether it took effect.
    Unsettled {
        /// What broke, for people.
        why: String,
    },
}

impl<T, R> Effect<T, R> {
    /// What follows from what it brought, if it took effect.
    pub fn and_then<U>(self, then: impl FnOnce(T) -> Effect<U, R>) -> Effect<U, R> {
        match self {
            Self::Done(brought) => then(brought),
            Self::Refused(no) => Effect::Refused(no),
            Self::NoEffect(obstacle) => Effect::NoEffect(obstacle),
            Self::Unsettled { why } => Effect::Unsettled { why },
        }
    }

    /// What a definite no means, if it is one.
    pub fn or_else<Q>(self, meant: impl FnOnce(R) -> Effect<T, Q>) -> Effect<T, Q> {
        match self {
            Self::Done(brought) => Effect::Done(brought),
            Self::Refused(no) => meant(no),
            Self::NoEffect(obstacle) => Effect::NoEffect(obstacle),
            Self::Unsettled { why } => Effect::Unsettled { why },
        }
    }
}

impl Effect<String> {
    /// The same with its words changed.
    pub fn reworded(self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Done(words) => Self::Done(change(&words)),
            Self::Refused(words) => Self::Refused(change(&words)),
            Self::NoEffect(Obstacle { kind, why }) => Obstacle::new(kind, change(&why)).into(),
            Self::Unsettled { why } => Self::Unsettled { why: change(&why) },
        }
    }
}

/// What kept an act from having an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Whom it concerns, and what a repetition depends on.
    pub kind: ObstacleKind,
    /// What broke, for people.
    pub why: String,
}

impl Obstacle {
    /// One of this kind.
    #[must_use]
    pub fn new(kind: ObstacleKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into() }
    }

    /// Whether it may pass by itself, soon. What does not is in the way of every act alike.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        !self.bars_us() && !matches!(self.kind, ObstacleKind::Lasting)
    }

    /// Whether we are not let through: a matter of sign-in, of the sender, or of what stands in
    /// between.
    #[must_use]
    pub const fn bars_us(&self) -> bool {
        matches!(self.kind, ObstacleKind::SignIn | ObstacleKind::Sender | ObstacleKind::Between)
    }
}

impl<T, R> From<Obstacle> for Effect<T, R> {
    fn from(obstacle: Obstacle) -> Self {
        Self::NoEffect(obstacle)
    }
}

/// What a repetition depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObstacleKind {
    /// The other side wants to be asked more slowly.
    Throttled,
    /// The other side could not be reached; nothing was sent.
    Unreachable,
    /// The other side said no in a way that passes by itself.
    Temporary,
    /// Nobody is signed in: the token or the password was refused, or could not be had.
    SignIn,
    /// The sender of mails: it is not there, is not whoever signed in, or may send no more.
    Sender,
    /// Something on the way to the other side: a certificate that is not trusted here, a proxy,
    /// a portal.
    Between,
    /// Something else that somebody has to mend first, or that lasts longer than anybody waits.
    Lasting,
}
