//! Promises that the protocol for one user is safe in every state that two crashes, two lost
//! answers, one late execution and one pass of a helpdesk's can bring about.
//!
//! A breadth-first search over the program's own pure functions: every move of the row goes
//! through [`next`], and what a look finds is judged by [`sight`]. The tenant is tiny: one
//! user, one pass. Taking the fence or the judgement away must make the search find a dead
//! or a lost pass, or it would prove nothing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tapwave::graph::FoundPass;
use tapwave::ids::MethodId;
use tapwave::ledger::state::next;
use tapwave::ledger::{Asked, Event, IntentId, IntentRecord, State};
use tapwave::stages::issue::settle::{Sighting, sight};

const FENCE: Duration = Duration::from_mins(5);
/// What the wait for the fence takes here, in minutes: longer than the fence and the slack.
const WAIT: i64 = 10;
/// POSTs after which the search goes no deeper: more than two crashes and two losses can cause.
const MOST_POSTS: i64 = 6;
const MOST_CRASHES: u8 = 2;
const MOST_LOSSES: u8 = 2;
const MOST_FOREIGN: u8 = 1;
/// What a row asks for, and what the helpdesk's passes have.
const OUR_MINUTES: u32 = 60;
const THEIR_MINUTES: u32 = 45;

/// When a POST whose answer was lost may still execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// As the fence assumes.
    WithinFence,
    /// Later than that, but before anybody relies on another pass.
    BeforeTheSecondLook,
    /// Whenever it likes.
    Ever,
}

/// What is left out of the protocol, and what the tenant does.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is left out on its own")]
struct Rules {
    /// A lost attempt is settled after the fence; otherwise at once.
    fence: bool,
    /// The user is looked at before the next POST; otherwise that goes out unseen.
    settle: bool,
    /// A pass that followed a lost attempt is looked at again.
    verify: bool,
    late: Late,
    /// What a second POST does.
    replaces: bool,
}

const SOUND: Rules =
    Rules { fence: true, settle: true, verify: true, late: Late::WithinFence, replaces: true };

/// Who made a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Maker {
    Us(IntentId),
    Helpdesk,
}

/// The pass on the user, and the minute it was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Live {
    maker: Maker,
    made: i64,
}

/// Where the program is in what it does to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Program {
    /// A crash ended it; only a resume goes on.
    Down,
    Ready,
    /// The intent is durable, and the POST is about to go.
    Sending(IntentId),
    /// The answer is here and not committed yet.
    Holding(IntentId),
    /// The orphan is durable, and its DELETE is about to go.
    Deleting(IntentId),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    row: State,
    program: Program,
    tenant: Option<Live>,
    /// A POST that may still execute, and the minute from which on it is not expected to.
    pending: Option<(IntentId, i64)>,
    minute: i64,
    posts: i64,
    /// The latest attempt: when it was minted and given up.
    minted: i64,
    given_up: Option<i64>,
    crashes: u8,
    losses: u8,
    foreign: u8,
    deleted_theirs: bool,
}

impl World {
    fn first() -> Self {
        Self {
            row: State::Checked { after_loss: false },
            program: Program::Ready,
            tenant: None,
            pending: None,
            minute: 0,
            posts: 0,
            minted: 0,
            given_up: None,
            crashes: 0,
            losses: 0,
            foreign: 0,
            deleted_theirs: false,
        }
    }

    /// Every world that may come next.
    fn steps(&self, rules: Rules) -> Vec<Self> {
        let mut steps = self.by_others(rules);
        steps.extend(self.crash(rules));
        match self.program {
            Program::Down => steps.push(self.resume()),
            Program::Ready => steps.extend(self.by_program(rules)),
            Program::Sending(id) => steps.extend(self.post(id, rules)),
            Program::Holding(id) => steps.push(self.seal(id)),
            Program::Deleting(id) => steps.push(self.delete(id)),
        }
        steps
    }

    /// The helpdesk, and the tenant's own queue.
    fn by_others(&self, rules: Rules) -> Vec<Self> {
        let mut steps = Vec::new();
        if self.foreign < MOST_FOREIGN {
            let tenant = Some(Live { maker: Maker::Helpdesk, made: self.minute });
            steps.push(Self { tenant, foreign: self.foreign + 1, ..self.clone() });
        }
        if let Some((id, expected)) = self.pending {
            let proven = matches!(self.row, State::Sealed { proven: true, .. });
            let may = match rules.late {
                Late::WithinFence => self.minute < expected,
                Late::BeforeTheSecondLook => !proven,
                Late::Ever => true,
            };
            if may {
                steps.push(Self { pending: None, ..self.executed(id, rules) });
            }
        }
        steps
    }

    /// A crash anywhere; one in the middle of a POST leaves open how far that came.
    fn crash(&self, rules: Rules) -> Vec<Self> {
        if self.crashes == MOST_CRASHES || self.program == Program::Down {
            return Vec::new();
        }
        let down = Self { program: Program::Down, crashes: self.crashes + 1, ..self.clone() };
        match self.program {
            Program::Sending(id) => vec![down.executed(id, rules), down.put_off(id), down],
            _ => vec![down],
        }
    }

    /// A later process: an attempt without an outcome was lost.
    fn resume(&self) -> Self {
        let up = Self { program: Program::Ready, ..self.clone() };
        match self.row {
            State::Intent { intent, .. } => up.to(&lost(intent)),
            _ => up,
        }
    }

    fn by_program(&self, rules: Rules) -> Vec<Self> {
        match &self.row {
            State::Checked { .. } if self.posts < MOST_POSTS => vec![self.intend()],
            State::Unsettled { intent, .. } => vec![self.settle(*intent, rules)],
            State::Sealed { method, proven: false } => vec![self.look_again(method, rules)],
            _ => Vec::new(),
        }
    }

    fn intend(&self) -> Self {
        let id = IntentId(self.posts + 1);
        let intended = Event::Intended { intent: id, asked: asked(), graph_time: at(self.minute) };
        Self {
            program: Program::Sending(id),
            posts: id.0,
            minted: self.minute,
            given_up: None,
            ..self.to(&intended)
        }
    }

    /// The POST and its answer, or what may come instead of it.
    fn post(&self, id: IntentId, rules: Rules) -> Vec<Self> {
        let executed = self.executed(id, rules);
        let refused = executed.tenant.is_none_or(|live| live.maker != Maker::Us(id));
        let mut steps = vec![if refused {
            let why = "there is a pass".to_owned();
            let refusal = Event::Refused { intent: id, why };
            Self { program: Program::Ready, ..self.to(&refusal) }
        } else {
            Self { program: Program::Holding(id), ..executed.clone() }
        }];
        if self.losses < MOST_LOSSES {
            for after in [self.clone(), executed, self.put_off(id)] {
                steps.push(Self {
                    program: Program::Ready,
                    losses: self.losses + 1,
                    given_up: Some(self.minute),
                    ..after.to(&lost(id))
                });
            }
        }
        steps
    }

    fn seal(&self, id: IntentId) -> Self {
        let sealed = Event::Sealed {
            intent: id,
            method: method(Maker::Us(id)),
            start: None,
            lifetime_minutes: OUR_MINUTES,
            one_time: false,
        };
        Self { program: Program::Ready, ..self.to(&sealed) }
    }

    /// The fence, the look, and what follows from it.
    fn settle(&self, intent: IntentId, rules: Rules) -> Self {
        let minute = if rules.fence { self.minute + WAIT } else { self.minute };
        let waited = Self { minute, ..self.clone() };
        if !rules.settle {
            return waited.to(&Event::Settled { found: None });
        }
        let attempt = IntentRecord {
            id: intent,
            asked: asked(),
            graph_time: at(self.minted),
            minted: at(self.minted),
            given_up: self.given_up.map(at),
            outcome: Some("lost".to_owned()),
        };
        let found = self.tenant.as_ref().map(found);
        match sight(found.as_ref(), &attempt, FENCE, false, at(minute)) {
            Sighting::Nothing => waited.to(&Event::Settled { found: None }),
            Sighting::Orphan(method) => {
                let (program, theirs) = match self.tenant.map(|live| live.maker) {
                    Some(Maker::Us(id)) => (Program::Deleting(id), false),
                    _ => (Program::Ready, true),
                };
                let noted = waited.to(&Event::OrphanFound { method });
                Self { program, deleted_theirs: theirs, ..noted }
            }
            Sighting::Used(method) | Sighting::Older(method) | Sighting::Foreign(method) => {
                waited.to(&Event::Held { why: "not ours".to_owned(), found: Some(method) })
            }
        }
    }

    /// By its id: what has taken its place meanwhile stays.
    fn delete(&self, id: IntentId) -> Self {
        let tenant = self.tenant.filter(|live| live.maker != Maker::Us(id));
        let found = Some(method(Maker::Us(id)));
        Self { tenant, program: Program::Ready, ..self.to(&Event::Settled { found }) }
    }

    fn look_again(&self, sealed: &MethodId, rules: Rules) -> Self {
        let there = self.tenant.map(|live| method(live.maker));
        if !rules.verify || there.as_ref() == Some(sealed) {
            return self.to(&Event::Verified);
        }
        self.to(&Event::Held { why: "not the sealed one".to_owned(), found: there })
    }

    /// The tenant after a POST had its effect.
    fn executed(&self, id: IntentId, rules: Rules) -> Self {
        let minted = Live { maker: Maker::Us(id), made: self.minute };
        let free = self.tenant.is_none() || rules.replaces;
        Self { tenant: if free { Some(minted) } else { self.tenant }, ..self.clone() }
    }

    /// The tenant with a POST in its queue.
    fn put_off(&self, id: IntentId) -> Self {
        let expected = self.minute + i64::try_from(FENCE.as_secs() / 60).expect("minutes");
        Self { pending: self.pending.or(Some((id, expected))), ..self.clone() }
    }

    /// The row moves as the program's own list of moves allows, or the model is wrong.
    fn to(&self, event: &Event) -> Self {
        let row = next(&self.row, event).expect("a legal move");
        Self { row, ..self.clone() }
    }

    /// What must never be, if it is.
    fn wrong(&self) -> Option<&'static str> {
        if self.deleted_theirs {
            return Some("a pass of the helpdesk's was deleted");
        }
        match (&self.row, self.tenant.map(|live| live.maker)) {
            (State::Sealed { .. }, Some(Maker::Helpdesk)) => None,
            (State::Sealed { method: sealed, proven: true }, there)
                if there.map(method).as_ref() != Some(sealed) =>
            {
                Some("a pass was sealed and is dead")
            }
            (State::Checked { .. } | State::Failed { .. }, Some(Maker::Us(_)))
                if self.pending.is_none() && self.program == Program::Ready =>
            {
                Some("an orphan was left behind")
            }
            _ => None,
        }
    }
}

/// Every world that can come about; how many, and the wrong ones by what is wrong.
fn search(rules: Rules) -> (usize, BTreeMap<&'static str, usize>) {
    let (mut seen, mut wrong) = (HashSet::from([World::first()]), BTreeMap::new());
    let mut waiting = VecDeque::from([World::first()]);
    while let Some(world) = waiting.pop_front() {
        if let Some(what) = world.wrong() {
            *wrong.entry(what).or_default() += 1;
        }
        for step in world.steps(rules) {
            if seen.insert(step.clone()) {
                waiting.push_back(step);
            }
        }
    }
    #[expect(clippy::print_stdout, reason = "how much was tried is part of the proof")]
    {
        println!("{rules:?}: {} states, wrong: {wrong:?}", seen.len());
    }
    (seen.len(), wrong)
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).expect("a time")
}

fn asked() -> Asked {
    Asked { start: None, lifetime_minutes: OUR_MINUTES, one_time: false }
}

fn method(maker: Maker) -> MethodId {
    let name = match maker {
        Maker::Us(id) => format!("ours-{}", id.0),
        Maker::Helpdesk => "theirs".to_owned(),
    };
    name.parse().expect("a method id")
}

fn lost(intent: IntentId) -> Event {
    Event::Lost { intent, why: "reset".to_owned(), given_up: Timestamp::UNIX_EPOCH }
}

/// The pass as a list shows it.
fn found(live: &Live) -> FoundPass {
    let minutes = if live.maker == Maker::Helpdesk { THEIR_MINUTES } else { OUR_MINUTES };
    FoundPass {
        id: method(live.maker),
        created_date_time: Some(at(live.made)),
        start_date_time: Some(at(live.made)),
        lifetime_in_minutes: Some(minutes),
        is_usable_once: Some(false),
        is_usable: Some(true),
        method_usability_reason: Some("EnabledByPolicy".to_owned()),
    }
}

#[test]
fn the_protocol_is_safe_in_every_state() {
    for replaces in [true, false] {
        let (states, wrong) = search(Rules { replaces, ..SOUND });
        assert!(states > 400, "two crashes and two losses have more ends than {states}");
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn without_the_fence_a_pass_dies() {
    let (_, wrong) = search(Rules { fence: false, ..SOUND });
    assert!(wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
}

#[test]
fn posting_again_at_once_kills_a_pass() {
    let (_, wrong) = search(Rules { fence: false, settle: false, ..SOUND });
    assert!(wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
}

#[test]
fn without_the_look_an_orphan_is_left() {
    let (_, wrong) = search(Rules { settle: false, ..SOUND });
    assert!(wrong.contains_key("an orphan was left behind"), "{wrong:?}");
}

#[test]
fn the_second_look_catches_what_the_fence_does_not() {
    let late = Rules { late: Late::BeforeTheSecondLook, ..SOUND };
    let (_, wrong) = search(late);
    assert!(!wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
    let (_, wrong) = search(Rules { verify: false, ..late });
    assert!(wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
}

#[test]
fn nothing_helps_against_a_post_that_executes_whenever_it_likes() {
    let (_, wrong) = search(Rules { late: Late::Ever, ..SOUND });
    assert!(wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
}
