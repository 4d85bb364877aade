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

/// What kept an act from having an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Whom it concerns, and what a repetition depends on.
    pub kind: ObstacleKind,
    /// What broke, for people.
    pub why: String,
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
}
