//! Promises what reads show of a user's passes while the replicas that answer them are behind:
//! which pass is listed, which id is known, and which pass still counts. Must never change the
//! truth.

use jiff::Timestamp;

use super::options::Replication;
use super::passes::LivePass;
use tapwave_core::clock::later;

/// A user's passes as the replicas see them.
#[derive(Debug, Default)]
pub(super) struct Replica {
    /// What concerns the present pass.
    present: Present,
    /// Passes that have ended, oldest first, as long as anything shows them.
    ended: Vec<EndedPass>,
}

#[derive(Debug, Default)]
struct Present {
    listed_from: Timestamp,
    known_from: Timestamp,
    /// The id in its 201 if it was another, and whether DELETE takes it.
    other_id: Option<(String, bool)>,
}

#[derive(Debug)]
struct EndedPass {
    pass: LivePass,
    listed_from: Timestamp,
    listed_until: Timestamp,
    counts_until: Timestamp,
}

impl Replica {
    /// A pass is made.
    pub(super) fn begin(
        &mut self,
        now: Timestamp,
        other_id: Option<(String, bool)>,
        lags: &Replication,
        rng: &mut fastrand::Rng,
    ) {
        self.present = Present {
            listed_from: later(now, lags.unlisted_after_create.draw(rng)),
            known_from: later(now, lags.unknown_after_create.draw(rng)),
            other_id,
        };
    }

    /// The present pass ends.
    pub(super) fn end(
        &mut self,
        now: Timestamp,
        pass: LivePass,
        lags: &Replication,
        rng: &mut fastrand::Rng,
    ) {
        let ended = EndedPass {
            pass,
            listed_from: self.present.listed_from,
            listed_until: later(now, lags.listed_after_end.draw(rng)),
            counts_until: later(now, lags.rejects_after_end.draw(rng)),
        };
        self.present = Present::default();
        self.ended.retain(|ended| ended.matters(now));
        self.ended.extend(ended.matters(now).then_some(ended));
    }

    /// The one pass that a list shows: the newest whose making has been heard of, and whose
    /// end has not.
    pub(super) fn listed<'a>(
        &'a self,
        present: Option<&'a LivePass>,
        now: Timestamp,
    ) -> Option<&'a LivePass> {
        let ended = || {
            let shown = |ended: &&EndedPass| ended.listed_from <= now && now < ended.listed_until;
            self.ended.iter().rev().find(shown).map(|ended| &ended.pass)
        };
        present.filter(|_| self.present.listed_from <= now).or_else(ended)
    }

    /// Whether DELETE by an id finds the present pass.
    pub(super) fn deletes(&self, present: Option<&LivePass>, id: &str, now: Timestamp) -> bool {
        let other = self.present.other_id.as_ref();
        let other = other.is_some_and(|(other, deletable)| *deletable && other == id);
        self.present.known_from <= now && present.is_some_and(|pass| other || pass.method == id)
    }

    /// The id that the present pass's 201 carries instead of its own.
    pub(super) fn other_id(&self) -> Option<&str> {
        self.present.other_id.as_ref().map(|(id, _)| id.as_str())
    }

    /// Whether a pass that has ended still keeps another from being made.
    pub(super) fn still_counts(&self, now: Timestamp) -> bool {
        self.ended.iter().any(|ended| now < ended.counts_until)
    }
}

impl EndedPass {
    fn matters(&self, now: Timestamp) -> bool {
        now < self.listed_until.max(self.counts_until)
    }
}
