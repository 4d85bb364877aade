//! Promises that everything a run ever did to a row has one word, written before or right
//! after the deed. Never holds a pass.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::ids::{MethodId, UserId};

/// Numbers the attempts of one run, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntentId(pub i64);

/// What a POST asks Graph for. Lifetime and one-time flag are always sent, the policy's own
/// defaults included, so that a pass found later can be compared with what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// When the pass begins to work; `None` is at once.
    pub start: Option<Timestamp>,
    /// Minutes from the start.
    pub lifetime_minutes: u32,
    /// Whether the pass works once only.
    pub one_time: bool,
}

/// What the check learnt of a person who may get a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Eligible {
    /// The object id, which later calls use in place of the name.
    pub user: UserId,
    /// For people to read; may be absent in the directory.
    pub display_name: Option<String>,
    /// What the pass shall be: row over options over policy.
    pub asked: Asked,
    /// Which of the run's recipient sets may read the pass.
    pub set: u32,
    /// Who gets the mail, if mail was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<Reader>,
    /// Who is told that the reader has it, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_reader: Option<Reader>,
}

/// Who gets a row's mail, as the check found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    pub address: String,
    /// The reader's name, if the directory has one.
    pub name: Option<String>,
    /// The reader's language tag.
    pub locale: Option<String>,
    /// The person's manager, for the letter: name and mail address.
    pub manager: Option<(String, String)>,
}

/// Which of a row's mails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// The one to whoever gets the pass.
    Pass,
    /// The one to whoever is told that somebody else has it.
    Notice,
}

impl Channel {
    /// The word for it in the ledger's tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Notice => "notice",
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Pass => "mail",
            Self::Notice => "notice",
        }
    }
}

/// What is frozen of a mail before its first byte is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Posted {
    /// With its angle brackets.
    pub message_id: String,
    /// The `Date` header.
    pub date: Timestamp,
    pub to: String,
    /// `smtp` or `graph`.
    pub courier: String,
    /// `pass`, `sealed` or `notice`.
    pub body: String,
    /// SHA-256 of the bytes, in hex.
    pub digest: String,
}

/// How ledgers write what became of one mail.
mod outcome {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", tag = "outcome")]
    enum WrittenEvent {
        Taken { receipt: String },
        NotSent { why: String },
        Refused { why: String },
        Lost { why: String },
    }

    pub(super) fn serialize<S: Serializer>(
        effect: &Effect<String>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let written = match effect.clone() {
            Effect::Done(receipt) => WrittenEvent::Taken { receipt },
            Effect::NoEffect(Obstacle { why, .. }) => WrittenEvent::NotSent { why },
            Effect::Refused(why) => WrittenEvent::Refused { why },
            Effect::Unsettled { why } => WrittenEvent::Lost { why },
        };
        written.serialize(to)
    }

    /// Of which kind an obstacle was is not written down.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Effect<String>, D::Error> {
        Ok(match WrittenEvent::deserialize(from)? {
            WrittenEvent::Taken { receipt } => Effect::Done(receipt),
            WrittenEvent::NotSent { why } => Obstacle::new(ObstacleKind::Temporary, why).into(),
            WrittenEvent::Refused { why } => Effect::Refused(why),
            WrittenEvent::Lost { why } => Effect::Unsettled { why },
        })
    }
}

/// The words that the table of mails has for what became of one, whichever of a row's it is.
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

/// Why nothing that a run may have left on a user can be alive any more.
///
/// A user has one pass at most (documented). Directory and method reads may show the past by
/// minutes, in both directions, so that one look proves nothing by what it does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// Graph answered our DELETE by id with 204: that was the one pass of the user.
    Deleted,
    /// A pass that was created after ours stands in its place.
    Replaced,
    /// By Graph's clock its time is over.
    Over,
    /// Two looks that lie at least the settling time apart did not show it.
    Absent,
}

impl Proof {
    /// The word for it in the ledger's tables.
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

/// A word that no ledger has for how a pass came to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a known word for how a pass came to be gone")]
pub struct UnknownProof;

/// One durable record about one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// The check let the row in.
    Checked(Box<Eligible>),
    /// The check kept the row out, for these reasons.
    Ineligible { problems: Vec<String> },
    /// Left out because it was asked for.
    Skipped {
        /// A sentence for people.
        why: String,
    },
    /// A POST is about to go.
    #[serde(rename_all = "camelCase")]
    Intended {
        intent: IntentId,
        /// What it asks for.
        asked: Asked,
        /// Graph's clock when the intent was minted.
        graph_time: Timestamp,
    },
    /// The POST certainly had no effect and may be tried again.
    NotEffected {
        intent: IntentId,
        /// Throttled, not sent, token refused.
        why: String,
    },
    /// The planned end came too near before the row's turn.
    TooLate {
        /// A sentence for people.
        why: String,
    },
    /// Too many attempts were lost one after the other.
    GivenUp {
        /// A sentence for people.
        why: String,
    },
    /// Graph refused for good.
    Refused {
        intent: IntentId,
        /// Graph's own words, shortened.
        why: String,
    },
    /// Graph refused because a pass exists that nobody can tell from one of our own.
    InTheWay {
        intent: IntentId,
        /// Graph's own words, shortened.
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
    /// A pass was recognised as one of this row's own attempts; it is about to be deleted.
    OrphanFound {
        method: MethodId,
        /// When it is over at the latest, by Graph's clock.
        over: Timestamp,
    },
    /// The settling time has passed and nothing of ours was seen on the user: the row may be
    /// tried again.
    Settled {
        /// The orphan that was deleted, if there was one.
        found: Option<MethodId>,
        /// Why nothing of ours can be alive, if that is proven. What is not proven is looked
        /// at again by cleanup.
        proof: Option<Proof>,
    },
    /// A look showed nothing of ours on the user, who is known to the tenant.
    #[serde(rename_all = "camelCase")]
    NotListed {
        /// Graph's clock at the look.
        graph_time: Timestamp,
    },
    /// An operator must look.
    Held {
        /// A sentence for people.
        why: String,
        /// The pass that is in the way, if its id is known.
        found: Option<MethodId>,
    },
    /// The pass is sealed; its ciphertext is committed together with this.
    #[serde(rename_all = "camelCase")]
    Sealed {
        intent: IntentId,
        method: MethodId,
        /// When it begins to work, as Graph answered.
        start: Option<Timestamp>,
        lifetime_minutes: u32,
        one_time: bool,
        /// Graph's clock when the answer was here.
        graph_time: Timestamp,
    },
    /// Looked again: the live pass is the sealed one.
    Verified,
    /// The process that sealed the pass did not end in order. If it saw this commit fail, it has
    /// deleted the pass again, although the disk kept the record.
    Doubted,
    /// An operator's resume gives a failed row another chance.
    Retried,
    /// A mail is about to be sent.
    MailIntended {
        /// Which of the row's.
        channel: Channel,
        /// What is frozen of it.
        posted: Box<Posted>,
    },
    /// A mail cannot go out now, and was not begun: no relay, nobody signed in, or no time left.
    MailNotBegun {
        /// Which of the row's.
        channel: Channel,
        /// A sentence for people.
        why: String,
    },
    /// What became of a mail. Done: the other side took it, said so, and answers for it.
    MailEnded {
        /// Which of the row's.
        channel: Channel,
        /// With the other side's words, or what broke.
        #[serde(flatten, with = "outcome")]
        outcome: Effect<String>,
    },
    /// Somebody else than the reader is to be told who has the pass now.
    NoticeDue,
    /// An operator names another reader for a mail that certainly did not go out.
    Readdressed {
        /// Which of the row's.
        channel: Channel,
        /// Who gets it from now on.
        reader: Box<Reader>,
    },
    /// A later look showed that the sealed code does not work.
    Displaced {
        /// A sentence for people.
        why: String,
        /// The pass that stands in its place, if one does.
        found: Option<MethodId>,
    },
    /// Cleanup is about to delete this pass.
    RemovalIntended { method: MethodId },
    /// Nothing that the row ever got, or may have got, is alive.
    Removed {
        /// How that is known.
        proof: Proof,
    },
    /// Somebody else's pass is on the user. Reported, never deleted unasked.
    ForeignSeen { method: MethodId },
}

impl Event {
    /// The word for an attempt whose answer never came.
    pub(super) const LOST: &str = "lost";
    /// The word for an attempt that met a pass.
    pub(super) const IN_THE_WAY: &str = "in the way";

    /// One word for messages and logs.
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

    /// The reason this record gives people, if it has one.
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
    fn what_became_of_a_mail_is_written_in_the_words_of_every_ledger() {
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
