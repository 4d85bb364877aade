//! Promises that each request meets the fault its number or the dice gave it, and tells which
//! kind of call it is. Must never touch the tenant.

use std::collections::HashMap;

use jiff::Timestamp;

use super::options::{Call, Chance, Fault, Faults};
use super::target::RequestTarget;
use tapwave_core::clock::span;
use tapwave_graph::transport::Method;

/// The quota a call is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallBudget {
    PassWrites,
    PassReads,
    Directory,
    Mail,
}

/// How many calls of each kind have come.
#[derive(Debug, Default)]
pub(super) struct Counter {
    seen: HashMap<Call, u64>,
    /// Since when the faults that end are in force.
    since: Vec<(Chance, Timestamp)>,
}

/// A call, as far as its fault depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Called<'a> {
    pub(super) call: Call,
    pub(super) at: Timestamp,
    /// The user it is about, by UPN and by id.
    pub(super) user: Option<(&'a str, &'a str)>,
}

impl Called<'_> {
    /// Whether it is about one of these users; everybody is meant when there is none.
    fn is_about(&self, users: &[String]) -> bool {
        users.is_empty()
            || self.user.is_some_and(|(upn, id)| users.iter().any(|name| is_named(name, upn, id)))
    }
}

/// Whether an option's name of a user means this one.
pub(super) fn is_named(name: &str, upn: &str, id: &str) -> bool {
    name.to_lowercase() == upn.to_lowercase() || name.eq_ignore_ascii_case(id)
}

impl Counter {
    /// Counts a call and says what is to happen to it.
    pub(super) fn draw(
        &mut self,
        faults: &Faults,
        rng: &mut fastrand::Rng,
        called: Called<'_>,
    ) -> Option<Fault> {
        let nth = self.seen.entry(called.call).or_default();
        *nth += 1;
        let aimed = faults.aimed.iter().find(|aim| aim.on == called.call && aim.nth == *nth);
        if let Some(aim) = aimed {
            return Some(aim.fault.clone());
        }
        // A fault that is put back later begins anew.
        self.since.retain(|(chance, _)| faults.chances.contains(chance));
        let hit = faults
            .chances
            .iter()
            .filter(|chance| chance.on.is_none_or(|on| on == called.call))
            .filter(|chance| called.is_about(&chance.users))
            .find(|chance| self.is_in_force(chance, called.at) && rng.f64() < chance.probability);
        hit.map(|chance| chance.fault.clone())
    }

    fn is_in_force(&mut self, chance: &Chance, now: Timestamp) -> bool {
        let Some(lasts) = chance.lasts else { return true };
        let known = self.since.iter().find(|(known, _)| known == chance).map(|(_, since)| *since);
        let since = known.unwrap_or_else(|| {
            self.since.push((chance.clone(), now));
            now
        });
        span(since, now) < lasts
    }

    /// How many calls of a kind have come.
    pub(super) fn seen(&self, call: Call) -> u64 {
        self.seen.get(&call).copied().unwrap_or_default()
    }
}

/// The kind of a call, by method and path.
pub(super) fn classify(method: Method, target: &RequestTarget) -> Call {
    match (method, target.path().as_slice()) {
        (Method::Post, ["users", _, "authentication", "temporaryAccessPassMethods"]) => Call::Issue,
        (Method::Delete, ["users", _, "authentication", "temporaryAccessPassMethods", _]) => {
            Call::Remove
        }
        (Method::Get, ["users", _, "authentication", "temporaryAccessPassMethods", ..]) => {
            Call::Look
        }
        (Method::Get, ["policies", ..]) => Call::ReadPolicy,
        (Method::Patch, ["policies", ..]) => Call::WritePolicy,
        (Method::Post, ["users", _, "checkMemberGroups"]) => Call::CheckGroups,
        (Method::Post, ["users", _, "sendMail"]) => Call::Mail,
        (Method::Get, ["users", ..]) => Call::Users,
        (Method::Get, ["groups", ..]) => Call::Groups,
        (Method::Post, ["$batch"]) => Call::Batch,
        _ => Call::Unknown,
    }
}

/// What a call costs, and which budget pays. A batch is free: each request in it pays.
pub(super) fn cost(call: Call, target: &RequestTarget) -> Option<(CallBudget, f64)> {
    Some(match call {
        Call::Issue | Call::Remove => (CallBudget::PassWrites, 1.0),
        Call::Look => (CallBudget::PassReads, 1.0),
        Call::Mail => (CallBudget::Mail, 1.0),
        Call::CheckGroups => (CallBudget::Directory, 4.0),
        Call::Users if target.option("$filter").is_some() => (CallBudget::Directory, 2.0),
        Call::Groups if target.segments.len() > 2 => (CallBudget::Directory, 5.0),
        Call::Users | Call::Groups | Call::ReadPolicy | Call::WritePolicy => {
            (CallBudget::Directory, 1.0)
        }
        Call::Batch | Call::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tapwave_core::clock::later;

    fn called(call: Call) -> Called<'static> {
        Called { call, at: Timestamp::UNIX_EPOCH, user: None }
    }

    #[test]
    fn an_aimed_fault_hits_its_request_alone() {
        let faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
        let (mut counter, mut rng) = (Counter::default(), fastrand::Rng::with_seed(1));
        let mut draw = |call| counter.draw(&faults, &mut rng, called(call));
        assert_eq!(draw(Call::Issue), None);
        assert_eq!(draw(Call::Look), None);
        assert_eq!(draw(Call::Issue), Some(Fault::LostAfter));
        assert_eq!(draw(Call::Issue), None);
        assert_eq!(counter.seen(Call::Issue), 3);
    }

    #[test]
    fn a_chance_hits_as_often_as_it_says_and_the_same_ones_again() {
        let faults = Faults::default().with(Call::Issue, 0.25, Fault::LostBefore);
        let run = || {
            let (mut counter, mut rng) = (Counter::default(), fastrand::Rng::with_seed(9));
            (0..4_000)
                .map(|_| counter.draw(&faults, &mut rng, called(Call::Issue)).is_some())
                .collect::<Vec<_>>()
        };
        let hits = run().iter().filter(|hit| **hit).count();
        assert!((900..1_100).contains(&hits), "{hits}");
        assert_eq!(run(), run());
    }

    #[test]
    fn a_fault_may_be_about_some_users_and_for_a_while() {
        let chance = Chance::new(Call::Look, 1.0, Fault::Unlisted)
            .about(["Ada@c.d", "9"])
            .lasting(Duration::from_secs(20));
        let faults = Faults::default().also(chance);
        let (mut counter, mut rng) = (Counter::default(), fastrand::Rng::with_seed(1));
        let mut hits = |faults: &Faults, call, seconds, user| {
            let at = later(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds));
            counter.draw(faults, &mut rng, Called { call, at, user }).is_some()
        };
        let (ada, bob, nine) = (Some(("ada@C.d", "1")), Some(("b@c.d", "2")), Some(("n@c.d", "9")));
        assert!(!hits(&faults, Call::Look, 0, bob));
        assert!(!hits(&faults, Call::Look, 0, None));
        assert!(hits(&faults, Call::Look, 100, ada), "its time begins with the first it hits");
        assert!(!hits(&faults, Call::Remove, 100, ada));
        assert!(hits(&faults, Call::Look, 119, nine));
        assert!(!hits(&faults, Call::Look, 120, ada));
        assert!(!hits(&Faults::default(), Call::Look, 121, ada));
        assert!(hits(&faults, Call::Look, 122, ada), "put back, it begins anew");
    }
}
