//! Promises the only list of legal moves of a row, live and on replay. Must never use a database, a
//! clock or the network, so that a model checker can explore [`next`].

use serde::{Deserialize, Serialize};

use super::events::{Channel, Event, IntentId};
use tapwave_core::effect::Effect;
use tapwave_core::ids::MethodId;

/// A row's state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum State {
    /// Read from the wave, not yet checked. Only in drafts.
    Listed,
    /// May get a pass. `after_loss`: an earlier attempt was lost and settled, so the next pass needs a
    /// second look before it counts as proven.
    Checked { after_loss: bool },
    /// Gets no pass from this run.
    Ineligible,
    /// Left out at the operator's request.
    Skipped,
    /// A POST is about to be sent, is in flight, or its answer is being sealed.
    Intent {
        intent: IntentId,
        /// As in `Checked`.
        after_loss: bool,
    },
    /// It is unknown whether the POST took effect.
    Unsettled {
        /// The attempt whose answer was lost.
        intent: IntentId,
        /// A pass recognised as that attempt's, to be deleted by its id.
        orphan: Option<MethodId>,
    },
    /// Something on the user may not be ours; an operator must decide.
    Held {
        /// The pass that was sealed after a lost attempt and is not on the user.
        sealed: Option<MethodId>,
    },
    /// The pass is in the ledger as ciphertext.
    Sealed {
        method: MethodId,
        /// False if the pass followed a lost attempt, or was among the last that a process sealed
        /// before it died, until a second look.
        proven: bool,
    },
    /// A mail with the pass is about to be sent, or its outcome is unknown.
    Mailing { method: MethodId, mail: OpenMail },
    /// The mail was accepted. `notice` is there if there is to be one.
    Delivered { method: MethodId, notice: Option<MailState> },
    /// A later look showed that the sealed code does not work: the user has another pass or none, or
    /// the policy disables it. Its copy is not handed off.
    Lost { method: MethodId },
    /// The pass is proven to be gone.
    Removed { method: MethodId },
    /// Graph refused; nothing was issued.
    Failed {
        /// As in `Checked`, for a retry.
        #[serde(default)]
        after_loss: bool,
    },
}

/// The state of one mail.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MailState {
    /// Not sent.
    Due,
    /// About to be sent, or of unknown outcome.
    Open(OpenMail),
    /// Accepted.
    Done,
}

/// A mail that may have been sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenMail {
    /// SHA-256 of the mail's bytes: only the same bytes may be sent again.
    pub digest: String,
    /// Its outcome is unknown and it is not being sent.
    pub lost: bool,
    /// An earlier attempt with these bytes may have arrived, so that a later failure does not mean
    /// that it was not sent.
    pub again: bool,
}

impl MailState {
    /// As the ledger's tables have it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Open(_) => "open",
            Self::Done => "done",
        }
    }
}

/// The kind of a state, for people, filters and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the state of the same name")]
pub enum Standing {
    Listed,
    Checked,
    Intent,
    Unsettled,
    Held,
    Sealed,
    Mailing,
    Delivered,
    Lost,
    Removed,
    Failed,
    Skipped,
    Ineligible,
}

impl Standing {
    /// All of them, in the order in which a row passes through them.
    pub const ALL: [Self; 13] = [
        Self::Listed,
        Self::Checked,
        Self::Intent,
        Self::Unsettled,
        Self::Held,
        Self::Sealed,
        Self::Mailing,
        Self::Delivered,
        Self::Lost,
        Self::Removed,
        Self::Failed,
        Self::Skipped,
        Self::Ineligible,
    ];

    /// Those that own a live pass whose sealed copy is in the ledger.
    pub const LIVE: [Self; 3] = [Self::Sealed, Self::Mailing, Self::Delivered];

    /// Those of rows of which a pass, or an attempt at one, may be alive.
    pub const MAY_OWN: [Self; 6] =
        [Self::Intent, Self::Unsettled, Self::Sealed, Self::Mailing, Self::Delivered, Self::Lost];

    /// Those of rows for which an intent may have made a pass at any time.
    pub const MAY_HAVE_OWNED: [Self; 9] = [
        Self::Intent,
        Self::Unsettled,
        Self::Held,
        Self::Sealed,
        Self::Mailing,
        Self::Delivered,
        Self::Lost,
        Self::Removed,
        Self::Failed,
    ];

    /// What people and scripts see; part of the contract of `status --json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Checked => "checked",
            Self::Intent => "intent",
            Self::Unsettled => "unsettled",
            Self::Held => "held",
            Self::Sealed => "sealed",
            Self::Mailing => "mailing",
            Self::Delivered => "delivered",
            Self::Lost => "lost",
            Self::Removed => "removed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Ineligible => "ineligible",
        }
    }
}

impl State {
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::Listed => Standing::Listed,
            Self::Checked { .. } => Standing::Checked,
            Self::Ineligible => Standing::Ineligible,
            Self::Skipped => Standing::Skipped,
            Self::Intent { .. } => Standing::Intent,
            Self::Unsettled { .. } => Standing::Unsettled,
            Self::Held { .. } => Standing::Held,
            Self::Sealed { .. } => Standing::Sealed,
            Self::Mailing { .. } => Standing::Mailing,
            Self::Delivered { .. } => Standing::Delivered,
            Self::Lost { .. } => Standing::Lost,
            Self::Removed { .. } => Standing::Removed,
            Self::Failed { .. } => Standing::Failed,
        }
    }

    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.standing().name()
    }

    /// The pass that the row has or had, if its id is known.
    #[must_use]
    pub const fn method(&self) -> Option<&MethodId> {
        match self {
            Self::Sealed { method, .. }
            | Self::Mailing { method, .. }
            | Self::Delivered { method, .. }
            | Self::Lost { method }
            | Self::Removed { method }
            | Self::Held { sealed: Some(method) } => Some(method),
            _ => None,
        }
    }

    /// The state of the notice, if there is to be one and the pass was mailed.
    #[must_use]
    pub const fn notice(&self) -> Option<&MailState> {
        match self {
            Self::Delivered { notice, .. } => notice.as_ref(),
            _ => None,
        }
    }
}

/// A move that is not in the list: a defect, or a damaged ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row that is {state} cannot become {event}")]
pub struct IllegalMove {
    state: &'static str,
    event: &'static str,
}

/// The state after `event`. An event about an intent other than the open one is illegal.
#[expect(clippy::match_same_arms, reason = "arms are in the order of a row's states")]
pub fn next(state: &State, event: &Event) -> Result<State, IllegalMove> {
    use State::{
        Checked, Failed, Held, Ineligible, Intent, Listed, Lost, Sealed, Skipped, Unsettled,
    };
    Ok(match (state, event) {
        (Listed, Event::Checked(_)) => Checked { after_loss: false },
        // A resume checks waiting rows again.
        (Checked { after_loss }, Event::Checked(_)) => Checked { after_loss: *after_loss },
        (Listed | Checked { .. }, Event::Ineligible { .. }) => Ineligible,
        (Listed | Checked { after_loss: false }, Event::Skipped { .. }) => Skipped,

        (Checked { after_loss }, Event::TooLate { .. } | Event::GivenUp { .. }) => {
            Failed { after_loss: *after_loss }
        }
        (Checked { after_loss }, Event::Intended { intent, .. }) => {
            Intent { intent: *intent, after_loss: *after_loss }
        }
        (Intent { intent, after_loss }, Event::NotEffected { intent: of, .. }) if intent == of => {
            Checked { after_loss: *after_loss }
        }
        (Intent { intent, after_loss }, Event::Refused { intent: of, .. }) if intent == of => {
            Failed { after_loss: *after_loss }
        }
        (Intent { intent, .. }, Event::Lost { intent: of, .. }) if intent == of => {
            Unsettled { intent: *intent, orphan: None }
        }
        // The existing pass may be this attempt's own, executed twice, or that of an earlier, lost
        // attempt.
        (Intent { intent, .. }, Event::InTheWay { intent: of, .. }) if intent == of => {
            Unsettled { intent: *intent, orphan: None }
        }
        (Intent { intent, after_loss }, Event::Sealed { intent: of, method, .. })
            if intent == of =>
        {
            Sealed { method: method.clone(), proven: !after_loss }
        }

        (Unsettled { intent, .. }, Event::OrphanFound { method, .. }) => {
            Unsettled { intent: *intent, orphan: Some(method.clone()) }
        }
        (
            Unsettled { .. } | Held { .. } | Lost { .. } | Sealed { proven: false, .. },
            Event::Settled { .. },
        ) => Checked { after_loss: true },
        (Unsettled { .. }, Event::Held { .. }) => Held { sealed: None },
        (Sealed { method, proven: false }, Event::Held { .. }) => {
            Held { sealed: Some(method.clone()) }
        }
        (Held { .. }, Event::Held { .. }) => state.clone(),
        // A later look may show a pass that appeared late.
        (
            Sealed { method, proven: false } | Held { sealed: Some(method) } | Lost { method },
            Event::Verified,
        ) => Sealed { method: method.clone(), proven: true },

        (Sealed { method, .. }, Event::Doubted) => Sealed { method: method.clone(), proven: false },

        (Failed { after_loss }, Event::Retried) => Checked { after_loss: *after_loss },

        _ => {
            let next = next_mailing(state, event)
                .or_else(|| next_end(state, event))
                .or_else(|| observed(state, event));
            return next.ok_or(IllegalMove { state: state.name(), event: event.name() });
        }
    })
}

/// [`next`], for mailing a pass and its notice.
fn next_mailing(state: &State, event: &Event) -> Option<State> {
    use State::{Delivered, Mailing, Sealed};
    let pass_mail = |method: &MethodId, mail: &MailState| {
        let method = method.clone();
        Some(match next_mail(mail, event, Channel::Pass)? {
            MailState::Due => Sealed { method, proven: true },
            MailState::Open(mail) => Mailing { method, mail },
            MailState::Done => Delivered { method, notice: None },
        })
    };
    match (state, event) {
        (Sealed { method, proven: true }, _) => pass_mail(method, &MailState::Due),
        (Mailing { method, mail }, _) => pass_mail(method, &MailState::Open(mail.clone())),
        // A notice is due only once the mail with the pass was accepted.
        (Delivered { method, notice: None }, Event::NoticeDue) => {
            Some(Delivered { method: method.clone(), notice: Some(MailState::Due) })
        }
        (Delivered { method, notice: Some(notice) }, _) => {
            let notice = Some(next_mail(notice, event, Channel::Notice)?);
            Some(Delivered { method: method.clone(), notice })
        }
        _ => None,
    }
}

/// The legal moves of one mail, the same for both channels.
fn next_mail(mail: &MailState, event: &Event, of: Channel) -> Option<MailState> {
    let channel = match event {
        Event::MailIntended { channel, .. }
        | Event::MailEnded { channel, .. }
        | Event::MailNotBegun { channel, .. }
        | Event::Readdressed { channel, .. } => *channel,
        _ => return None,
    };
    if channel != of {
        return None;
    }
    let open = |digest: &str, lost, again| {
        Some(MailState::Open(OpenMail { digest: digest.to_owned(), lost, again }))
    };
    match (mail, event) {
        (MailState::Due, Event::Readdressed { .. } | Event::MailNotBegun { .. }) => {
            Some(MailState::Due)
        }
        (MailState::Open(open), Event::MailNotBegun { .. }) if open.lost => Some(mail.clone()),
        (MailState::Due, Event::MailIntended { posted, .. }) => open(&posted.digest, false, false),
        // What may have arrived is repeated with the same bytes or not at all.
        (MailState::Open(lost), Event::MailIntended { posted, .. })
            if lost.lost && lost.digest == posted.digest =>
        {
            open(&lost.digest, false, true)
        }
        (MailState::Open(sent), Event::MailEnded { outcome, .. }) if !sent.lost => match outcome {
            Effect::Done(_) => Some(MailState::Done),
            Effect::NoEffect(_) | Effect::Refused(_) if !sent.again => Some(MailState::Due),
            _ => open(&sent.digest, true, sent.again),
        },
        _ => None,
    }
}

/// [`next`], for a pass that is lost or removed.
fn next_end(state: &State, event: &Event) -> Option<State> {
    use State::{Delivered, Held, Lost, Mailing, Removed, Sealed};
    Some(match (state, event) {
        // Not while a mail is being sent.
        (
            Sealed { method, proven: true }
            | Mailing { method, mail: OpenMail { lost: true, .. } }
            | Delivered { method, .. },
            Event::Displaced { .. },
        ) => Lost { method: method.clone() },
        (
            Sealed { method, .. }
            | Mailing { method, .. }
            | Delivered { method, .. }
            | Lost { method }
            | Held { sealed: Some(method) },
            Event::Removed { .. },
        ) => Removed { method: method.clone() },
        _ => return None,
    })
}

/// [`next`], for what was seen on a user, or is about to be deleted there. It changes no state: a run
/// may have left passes behind in any state.
#[expect(clippy::match_same_arms, reason = "each has its own reason")]
fn observed(state: &State, event: &Event) -> Option<State> {
    use State::{Checked, Failed, Ineligible, Listed, Skipped};
    let is_legal = match (state, event) {
        (Listed, _) => false,
        (
            _,
            Event::OrphanFound { .. }
            | Event::ForeignSeen { .. }
            | Event::RemovalIntended { .. }
            | Event::NotListed { .. },
        ) => true,
        // What an earlier attempt left is gone; the row's state has another reason.
        (
            Checked { .. } | Failed { .. } | Ineligible | Skipped,
            Event::Settled { proof: Some(_), .. },
        ) => true,
        _ => false,
    };
    is_legal.then(|| state.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Asked, Proof};
    use tapwave_core::effect::{Obstacle, ObstacleKind};

    fn asked() -> Asked {
        Asked { start: None, lifetime_minutes: 60, one_time: false }
    }

    fn intended(id: i64) -> Event {
        Event::Intended {
            intent: IntentId(id),
            asked: asked(),
            graph_time: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn method(id: &str) -> MethodId {
        id.parse().expect("a method id")
    }

    #[test]
    fn a_lost_answer_must_be_settled_before_another_post() {
        let lost = Event::Lost {
            intent: IntentId(1),
            why: "reset".into(),
            given_up: jiff::Timestamp::UNIX_EPOCH,
            method: None,
        };
        let intent = next(&State::Checked { after_loss: false }, &intended(1)).expect("legal");
        let unsettled = next(&intent, &lost).expect("legal");
        assert!(next(&unsettled, &intended(2)).is_err(), "re-POST at once kills a pass");
        let settled =
            next(&unsettled, &Event::Settled { found: None, proof: None }).expect("legal");
        assert_eq!(settled, State::Checked { after_loss: true });
    }

    #[test]
    fn a_pass_after_a_loss_is_unproven_until_looked_at() {
        let intent = next(&State::Checked { after_loss: true }, &intended(2)).expect("legal");
        let sealed = Event::Sealed {
            intent: IntentId(2),
            method: method("m"),
            start: None,
            lifetime_minutes: 60,
            one_time: false,
            graph_time: jiff::Timestamp::UNIX_EPOCH,
        };
        let state = next(&intent, &sealed).expect("legal");
        assert_eq!(state, State::Sealed { method: method("m"), proven: false });
        assert!(matches!(next(&state, &Event::Verified), Ok(State::Sealed { proven: true, .. })));
    }

    #[test]
    fn a_row_that_failed_after_a_loss_keeps_that_for_its_retry() {
        for after_loss in [true, false] {
            let given_up = Event::GivenUp { why: "8 attempts were lost".into() };
            let failed = next(&State::Checked { after_loss }, &given_up).expect("legal");
            let again = next(&failed, &Event::Retried).expect("legal");
            assert_eq!(again, State::Checked { after_loss });
        }
    }

    #[test]
    fn a_proven_pass_is_not_given_up_before_it_is_doubted() {
        let settled = Event::Settled { found: None, proof: None };
        let sealed = State::Sealed { method: method("m"), proven: true };
        assert!(next(&sealed, &settled).is_err());
        let doubted = next(&sealed, &Event::Doubted).expect("legal");
        assert_eq!(doubted, State::Sealed { method: method("m"), proven: false });
        assert_eq!(next(&doubted, &settled), Ok(State::Checked { after_loss: true }));
    }

    #[test]
    fn an_answer_to_another_attempt_is_refused() {
        let intent = State::Intent { intent: IntentId(2), after_loss: false };
        let late = Event::NotEffected { intent: IntentId(1), why: "429".into() };
        assert!(next(&intent, &late).is_err());
    }

    fn mail_of(channel: Channel, digest: &str) -> Event {
        let posted = Box::new(crate::Posted {
            message_id: "<a@b.example>".into(),
            date: jiff::Timestamp::UNIX_EPOCH,
            to: "ada@contoso.example".into(),
            courier: "smtp".into(),
            body: "pass".into(),
            digest: digest.into(),
        });
        Event::MailIntended { channel, posted }
    }

    fn mail(digest: &str) -> Event {
        mail_of(Channel::Pass, digest)
    }

    fn ended(outcome: Effect<String>) -> Event {
        Event::MailEnded { channel: Channel::Pass, outcome }
    }

    fn not_sent() -> Effect<String> {
        Obstacle::new(ObstacleKind::Temporary, "450").into()
    }

    fn refused() -> Effect<String> {
        Effect::Refused("550".into())
    }

    fn lost() -> Effect<String> {
        Effect::Unsettled { why: "cut".into() }
    }

    fn taken() -> Effect<String> {
        Effect::Done("250".into())
    }

    #[test]
    fn only_a_proven_pass_is_mailed() {
        let sealed = |proven| State::Sealed { method: method("m"), proven };
        assert!(next(&sealed(false), &mail("d")).is_err());
        let mailing = next(&sealed(true), &mail("d")).expect("legal");
        assert!(next(&mailing, &mail("d")).is_err(), "one is under way");
        let not_sent = next(&mailing, &ended(not_sent()));
        assert_eq!(not_sent, Ok(sealed(true)));
        let delivered = next(&mailing, &ended(taken())).expect("legal");
        assert!(next(&delivered, &mail("d")).is_err(), "twice");
    }

    #[test]
    fn a_lost_mail_is_repeated_with_the_same_bytes_or_not_at_all() {
        let sealed = State::Sealed { method: method("m"), proven: true };
        let mailing = next(&sealed, &mail("d")).expect("legal");
        let open = next(&mailing, &ended(lost())).expect("legal");
        assert!(next(&open, &mail("other")).is_err());
        let again = next(&open, &mail("d")).expect("legal");
        for outcome in [not_sent(), refused(), lost()] {
            let after = next(&again, &ended(outcome)).expect("legal");
            let State::Mailing { mail: open, .. } = &after else {
                panic!("the first may be there")
            };
            assert!(open.lost);
            assert!(next(&after, &mail("other")).is_err());
        }
    }

    #[test]
    fn a_notice_has_the_same_moves_and_follows_the_pass() {
        let notice = |digest| mail_of(Channel::Notice, digest);
        let ended = |outcome| Event::MailEnded { channel: Channel::Notice, outcome };
        let with = |notice| State::Delivered { method: method("m"), notice };
        let sealed = State::Sealed { method: method("m"), proven: true };
        let mailing = next(&sealed, &mail("d")).expect("legal");
        for state in [&sealed, &mailing, &with(None)] {
            assert!(next(state, &notice("n")).is_err(), "{state:?}");
            assert!(next(state, &ended(taken())).is_err(), "{state:?}");
        }
        for state in [&sealed, &mailing] {
            assert!(next(state, &Event::NoticeDue).is_err(), "{state:?}");
        }
        let due = next(&with(None), &Event::NoticeDue).expect("legal");
        assert_eq!(due, with(Some(MailState::Due)));
        assert!(next(&due, &mail("d")).is_err(), "the pass goes out once");
        let open = next(&due, &notice("n")).expect("legal");
        assert!(next(&open, &notice("n")).is_err(), "one is under way");
        assert_eq!(next(&open, &ended(refused())), Ok(due));
        let lost = next(&open, &ended(lost())).expect("legal");
        assert!(next(&lost, &notice("other")).is_err());
        let again = next(&lost, &notice("n")).expect("legal");
        let after = next(&again, &ended(not_sent())).expect("legal");
        assert!(matches!(after.notice(), Some(MailState::Open(OpenMail { lost: true, .. }))));
        let done = next(&again, &ended(taken())).expect("legal");
        assert_eq!(done, with(Some(MailState::Done)));
        assert!(next(&done, &notice("n")).is_err(), "twice");
        for state in [&open, &lost, &done] {
            let removed = next(state, &Event::Removed { proof: Proof::Deleted });
            assert_eq!(removed, Ok(State::Removed { method: method("m") }));
        }
    }

    #[test]
    fn only_a_mail_that_was_certainly_not_sent_gets_another_address() {
        let to = |channel| {
            let address = "new@home.example".into();
            let reader = crate::Reader { address, name: None, locale: None, manager: None };
            Event::Readdressed { channel, reader: Box::new(reader) }
        };
        let sealed = State::Sealed { method: method("m"), proven: true };
        assert_eq!(next(&sealed, &to(Channel::Pass)), Ok(sealed.clone()));
        assert!(next(&sealed, &to(Channel::Notice)).is_err());
        let mailing = next(&sealed, &mail("d")).expect("legal");
        let lost = next(&mailing, &ended(lost())).expect("legal");
        let delivered = next(&mailing, &ended(taken())).expect("legal");
        for state in [&mailing, &lost, &delivered] {
            assert!(next(state, &to(Channel::Pass)).is_err(), "{state:?}");
        }
        let due = next(&delivered, &Event::NoticeDue).expect("legal");
        assert_eq!(next(&due, &to(Channel::Notice)), Ok(due.clone()));
        assert!(next(&due, &to(Channel::Pass)).is_err(), "the pass has gone out");
    }

    #[test]
    fn a_mail_that_was_not_begun_keeps_its_state() {
        let not_begun = |channel| Event::MailNotBegun { channel, why: "no relay".into() };
        let sealed = State::Sealed { method: method("m"), proven: true };
        let mailing = next(&sealed, &mail("d")).expect("legal");
        let lost = next(&mailing, &ended(lost())).expect("legal");
        for state in [&sealed, &lost] {
            assert_eq!(next(state, &not_begun(Channel::Pass)).as_ref(), Ok(state));
            assert!(next(state, &not_begun(Channel::Notice)).is_err());
        }
        assert!(next(&mailing, &not_begun(Channel::Pass)).is_err(), "it is under way");
    }

    #[test]
    fn a_row_that_was_given_up_has_failed_until_it_is_retried() {
        let given_up = Event::GivenUp { why: "8 attempts were lost".into() };
        let failed = next(&State::Checked { after_loss: true }, &given_up).expect("legal");
        assert_eq!(failed, State::Failed { after_loss: true });
        assert!(next(&failed, &Event::Retried).is_ok());
        let open = State::Unsettled { intent: IntentId(1), orphan: None };
        assert!(next(&open, &given_up).is_err(), "a lost attempt is settled first");
    }

    #[test]
    fn nothing_leaves_removed_or_ineligible() {
        for state in [State::Removed { method: method("m") }, State::Ineligible, State::Skipped] {
            assert!(next(&state, &intended(1)).is_err(), "{state:?}");
            assert!(next(&state, &Event::Retried).is_err(), "{state:?}");
        }
    }

    #[test]
    fn every_standing_has_its_own_index_and_name() {
        for (place, standing) in Standing::ALL.into_iter().enumerate() {
            assert_eq!(standing as usize, place, "counts are kept by place");
            let same = Standing::ALL.into_iter().filter(|other| other.name() == standing.name());
            assert_eq!(same.count(), 1, "{standing:?}");
        }
    }
}
