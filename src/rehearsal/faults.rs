//! Promises that each request meets the fault its number or the dice gave it, and tells which
//! kind of call it is. Must never touch the tenant.

use std::collections::HashMap;

use super::options::{Call, Fault, Faults};
use super::target::Target;
use crate::graph::transport::Method;

/// The quota a call is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    PassWrites,
    PassReads,
    Directory,
    Mail,
}

/// How many calls of each kind have come.
#[derive(Debug, Default)]
pub(super) struct Counter {
    seen: HashMap<Call, u64>,
}

impl Counter {
    /// Counts a call and says what is to happen to it.
    pub(super) fn draw(
        &mut self,
        faults: &Faults,
        rng: &mut fastrand::Rng,
        call: Call,
    ) -> Option<Fault> {
        let nth = self.seen.entry(call).or_default();
        *nth += 1;
        let aimed = faults.aimed.iter().find(|aim| aim.on == call && aim.nth == *nth);
        if let Some(aim) = aimed {
            return Some(aim.fault.clone());
        }
        let hit = faults
            .chances
            .iter()
            .filter(|chance| chance.on.is_none_or(|on| on == call))
            .find(|chance| rng.f64() < chance.probability);
        hit.map(|chance| chance.fault.clone())
    }

    /// How many calls of a kind have come.
    pub(super) fn seen(&self, call: Call) -> u64 {
        self.seen.get(&call).copied().unwrap_or_default()
    }
}

/// The kind of a call, by method and path.
pub(super) fn classify(method: Method, target: &Target) -> Call {
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
pub(super) fn cost(call: Call, target: &Target) -> Option<(Budget, f64)> {
    Some(match call {
        Call::Issue | Call::Remove => (Budget::PassWrites, 1.0),
        Call::Look => (Budget::PassReads, 1.0),
        Call::Mail => (Budget::Mail, 1.0),
        Call::CheckGroups => (Budget::Directory, 4.0),
        Call::Users if target.option("$filter").is_some() => (Budget::Directory, 2.0),
        Call::Groups if target.segments.len() > 2 => (Budget::Directory, 5.0),
        Call::Users | Call::Groups | Call::ReadPolicy | Call::WritePolicy => {
            (Budget::Directory, 1.0)
        }
        Call::Batch | Call::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aimed_fault_hits_its_request_alone() {
        let faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter);
        let (mut counter, mut rng) = (Counter::default(), fastrand::Rng::with_seed(1));
        let mut draw = |call| counter.draw(&faults, &mut rng, call);
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
                .map(|_| counter.draw(&faults, &mut rng, Call::Issue).is_some())
                .collect::<Vec<_>>()
        };
        let hits = run().iter().filter(|hit| **hit).count();
        assert!((900..1_100).contains(&hits), "{hits}");
        assert_eq!(run(), run());
    }
}
