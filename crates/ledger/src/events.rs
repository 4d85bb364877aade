//! Promises one kind of event for everything that a run does to a row, recorded before or right after
//! it. Must never hold a pass.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::ids::{MethodId, UserId};

/// Numbers the attempts of one run, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub i64);

/// What a POST asks for. Lifetime and one-time flag are always sent, also where they are the policy's
/// defaults, so that a pass found later can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// When the pass begins to work; `None` means at once.
    pub start: Option<Timestamp>,
    pub lifetime_minutes: u32,
    pub one_time: bool,
}

/// What the check found about a person who may get a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Eligible {
    /// The object id, which later requests use instead of the name.
    pub user: UserId,
    pub display_name: Option<String>,
    /// From the row, else the options, else the policy.
    pub asked: Asked,
    /// The recipients of the pass, as an index into the run's sets.
    pub set: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<Reader>,
    /// Who gets the notice that the reader has the pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_reader: Option<Reader>,
}

/// Who gets a row's mail, as the check found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    pub address: String,
    pub name: Option<String>,
    pub locale: Option<String>,
    /// Name and mail address of the person's manager, for the template.
    pub manager: Option<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// To whoever gets the pass.
    Pass,
    /// To whoever is told who has the pass.
    Notice,
}

impl Channel {
    /// As the ledger's tables have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Notice => "notice",
        }
    }

    /// For messages.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Pass => "mail",
            Self::Notice => "notice",
        }
    }
}

/// What is recorded of a mail before its first byte is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// With its angle brackets.
    pub message_id: String,
    pub date: Timestamp,
    pub to: String,
    /// `smtp` or `graph`.
    pub courier: String,
    /// `pass`, `sealed` or `notice`.
    pub body: String,
    /// SHA-256 of the bytes, in hex.
    pub digest: String,
}

/// The stored form of a mail's outcome.
mod outcome {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", tag = "outcome")]
    enum StoredOutcome {
        Taken { receipt: String },
        NotSent { why: String },
        Refused { why: String },
        Lost { why: String },
    }

    pub(super) fn serialize<S: Serializer>(
        effect: &Effect<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = match effect.clone() {
            Effect::Done(receipt) => StoredOutcome::Taken { receipt },
            Effect::NoEffect(Obstacle { why, .. }) => StoredOutcome::NotSent { why },
            Effect::Refused(why) => StoredOutcome::Refused { why },
            Effect::Unsettled { why } => StoredOutcome::Lost { why },
        };
        stored.serialize(to)
    }

    /// The kind of an obstacle is not stored.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Effect<String>, D::Error> {
        Ok(match StoredOutcome::deserialize(from)? {
            StoredOutcome::Taken { receipt } => Effect::Done(receipt),
            StoredOutcome::NotSent { why } => Obstacle::new(ObstacleKind::Temporary, why).into(),
            StoredOutcome::Refused { why } => Effect::Refused(why),
            StoredOutcome::Lost { why } => Effect::Unsettled { why },
        })
    }
}

/// A mail's outcome in the table of mails, for both channels.
pub(super) const TAKEN: &str = "delivered";
pub(super) const NOT_SENT: &str = "mail not sent";
pub(super) const REFUSED: &str = "mail refused";
pub(super) const LOST: &str = "mail lost";

pub(super) const fn mail_outcome(outcome: &Effect<String>) -> &'static str {
    match outcome {
        Effect::Done(_) => TAKEN,
        Effect::NoEffect(_) => NOT_SENT,
        Effect::Refused(_) => REFUSED,
        Effect::Unsettled { .. } => LOST,
    }
}

/// Why nothing of a run can be alive on a user any more.
///
/// A user has at most one pass (documented). Reads may be minutes out of date in both directions, so
/// what a single look does not show proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// Graph answered our DELETE by id with 204: that was the user's only pass.
    Deleted,
    /// The user has a pass that was created after ours.
    Replaced,
    /// It has expired by Graph's clock.
    Over,
    /// Two looks, at least the settling time apart, did not show it.
    Absent,
}

impl Proof {
    /// As the ledger's tables have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
            Self::Over => "over",
            Self::Absent => "absent",
        }
    }
}

impl std::str::FromStr for Proof {
    type Err = UnknownProof;

    fn from_str(word: &str) -> Result<Self, UnknownProof> {
        let all = [Self::Deleted, Self::Replaced, Self::Over, Self::Absent];
        all.into_iter().find(|proof| proof.name() == word).ok_or(UnknownProof)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a known word for how a pass came to be gone")]
pub struct UnknownProof;

/// One durable record about one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    Checked(Box<Eligible>),
    Ineligible {
        problems: Vec<String>,
    },
    /// Left out at the operator's request.
    Skipped {
        why: String,
    },
    #[serde(rename_all = "camelCase")]
    Intended {
        intent: IntentId,
        asked: Asked,
        /// Graph's clock when the intent was created.
        graph_time: Timestamp,
    },
    /// The POST certainly had no effect and may be repeated.
    NotEffected {
        intent: IntentId,
        why: String,
    },
    /// The planned end came too close before the row's turn.
    TooLate {
        why: String,
    },
    /// Too many attempts were lost in a row.
    GivenUp {
        why: String,
    },
    Refused {
        intent: IntentId,
        /// Graph's answer, shortened.
        why: String,
    },
    /// Graph refused because a pass exists, which may be one of our own.
    InTheWay {
        intent: IntentId,
        /// Graph's answer, shortened.
        why: String,
    },
    /// The outcome of the POST is unknown.
    #[serde(rename_all = "camelCase")]
    Lost {
        intent: IntentId,
        why: String,
        /// Graph's clock when the attempt was given up.
        given_up: Timestamp,
        /// The pass's id, if an answer named one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<MethodId>,
    },
    /// A pass was recognised as one of this row's attempts; it is about to be deleted.
    OrphanFound {
        method: MethodId,
        /// Its latest possible expiry, by Graph's clock.
        over: Timestamp,
    },
    /// The settling time has passed and nothing of ours is on the user: the row may be tried again.
    Settled {
        /// The orphan that was deleted, if there was one.
        found: Option<MethodId>,
        /// Why nothing of ours can be alive, if that is proven. Otherwise cleanup looks again.
        proof: Option<Proof>,
    },
    /// A look showed nothing of ours on the user, whom the tenant knows.
    #[serde(rename_all = "camelCase")]
    NotListed {
        /// Graph's clock at the look.
        graph_time: Timestamp,
    },
    /// An operator must decide.
    Held {
        why: String,
        /// The pass that is in the way, if its id is known.
        found: Option<MethodId>,
    },
    /// The pass is sealed; its ciphertext is in the same commit.
    #[serde(rename_all = "camelCase")]
    Sealed {
        intent: IntentId,
        method: MethodId,
        start: Option<Timestamp>,
        lifetime_minutes: u32,
        one_time: bool,
        /// Graph's clock when the answer was received.
        graph_time: Timestamp,
    },
    /// A second look showed that the live pass is the sealed one.
    Verified,
    /// The process that sealed the pass did not end properly. If it saw the commit fail, it deleted
    /// the pass, although the record is on the disk.
    Doubted,
    /// An operator's resume gives a failed row another chance.
    Retried,
    MailIntended {
        channel: Channel,
        posted: Box<Posted>,
    },
    /// A mail cannot be sent now and was not begun: no relay, no sign-in, or no time left.
    MailNotBegun {
        channel: Channel,
        why: String,
    },
    /// The outcome of a mail. Done: the other side has accepted it.
    MailEnded {
        channel: Channel,
        #[serde(flatten, with = "outcome")]
        outcome: Effect<String>,
    },
    /// The notice that the reader has the pass is due.
    NoticeDue,
    /// An operator named another reader for a mail that was certainly not sent.
    Readdressed {
        channel: Channel,
        reader: Box<Reader>,
    },
    /// A later look showed that the sealed code does not work.
    Displaced {
        why: String,
        /// The pass in its place, if there is one.
        found: Option<MethodId>,
    },
    /// Cleanup is about to delete this pass.
    RemovalIntended {
        method: MethodId,
    },
    /// No pass that the row got, or may have got, is alive.
    Removed {
        proof: Proof,
    },
    /// The user has a foreign pass, which is reported and not deleted unasked.
    ForeignSeen {
        method: MethodId,
    },
}

impl Event {
    pub(super) const LOST: &str = "lost";
    pub(super) const IN_THE_WAY: &str = "in the way";

    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Checked(_) => "checked",
            Self::Ineligible { .. } => "ineligible",
            Self::Skipped { .. } => "skipped",
            Self::Intended { .. } => "intended",
            Self::NotEffected { .. } => "not effected",
            Self::TooLate { .. } => "too late",
            Self::GivenUp { .. } => "given up",
            Self::Refused { .. } => "refused",
            Self::InTheWay { .. } => Self::IN_THE_WAY,
            Self::Lost { .. } => Self::LOST,
            Self::NotListed { .. } => "not listed",
            Self::Displaced { .. } => "displaced",
            Self::OrphanFound { .. } => "orphan found",
            Self::Settled { .. } => "settled",
            Self::Held { .. } => "held",
            Self::Sealed { .. } => "sealed",
            Self::Verified => "verified",
            Self::Doubted => "doubted",
            Self::Retried => "retried",
            Self::MailIntended { channel: Channel::Pass, .. } => "mail intended",
            Self::MailIntended { channel: Channel::Notice, .. } => "notice intended",
            Self::MailNotBegun { channel: Channel::Pass, .. } => "mail not begun",
            Self::MailNotBegun { channel: Channel::Notice, .. } => "notice not begun",
            Self::MailEnded { channel: Channel::Pass, outcome } => mail_outcome(outcome),
            Self::MailEnded { channel: Channel::Notice, outcome } => match outcome {
                Effect::Done(_) => "notice sent",
                Effect::NoEffect(_) => "notice not sent",
                Effect::Refused(_) => "notice refused",
                Effect::Unsettled { .. } => "notice lost",
            },
            Self::NoticeDue => "notice due",
            Self::Readdressed { .. } => "readdressed",
            Self::RemovalIntended { .. } => "removal intended",
            Self::Removed { .. } => "removed",
            Self::ForeignSeen { .. } => "foreign seen",
        }
    }

    /// The reason that people are shown, if there is one.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Ineligible { problems } => Some(problems.join("; ")),
            Self::Skipped { why }
            | Self::NotEffected { why, .. }
            | Self::TooLate { why }
            | Self::GivenUp { why }
            | Self::Refused { why, .. }
            | Self::InTheWay { why, .. }
            | Self::Lost { why, .. }
            | Self::Displaced { why, .. }
            | Self::Held { why, .. } => Some(why.clone()),
            Self::MailNotBegun { channel, why } => {
                Some(format!("{} not sent: {why}", channel.noun()))
            }
            Self::MailEnded { channel, outcome } => {
                let mail = channel.noun();
                match outcome {
                    Effect::Done(_) => None,
                    Effect::NoEffect(Obstacle { why, .. }) => {
                        Some(format!("{mail} not sent: {why}"))
                    }
                    Effect::Refused(why) => Some(format!("{mail} refused: {why}")),
                    Effect::Unsettled { why } => Some(format!("{mail} of unknown fate: {why}")),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapwave_core::effect::ObstacleKind;

    #[test]
    fn a_mails_outcome_is_stored_as_in_every_ledger() {
        let temporary = |why| Obstacle::new(ObstacleKind::Temporary, why).into();
        for (outcome, words) in [
            (Effect::Done("250".to_owned()), r#""outcome":"taken","receipt":"250""#),
            (temporary("450"), r#""outcome":"notSent","why":"450""#),
            (Effect::Refused("550".to_owned()), r#""outcome":"refused","why":"550""#),
            (Effect::Unsettled { why: "cut".to_owned() }, r#""outcome":"lost","why":"cut""#),
        ] {
            let event = Event::MailEnded { channel: Channel::Notice, outcome };
            let text = serde_json::to_string(&event).expect("JSON");
            assert_eq!(text, format!(r#"{{"event":"mailEnded","channel":"notice",{words}}}"#));
            assert_eq!(serde_json::from_str::<Event>(&text).expect("an event"), event);
            let unknown = text.replace(r#""outcome":""#, r#""outcome":"un"#);
            assert!(serde_json::from_str::<Event>(&unknown).is_err(), "{unknown}");
        }
    }
}
