//! A model check of a row's two mails over the ledger's list of moves: a relay never accepts a mail
//! twice unless an operator asked for it, never two that differ, and never the notice of a pass
//! before the pass.

use std::collections::{BTreeSet, HashSet, VecDeque};

use jiff::Timestamp;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_ledger::state::next;
use tapwave_ledger::{Channel, Event, MailState, OpenMail, Posted, State};

/// How many answers are lost, processes killed and mails refused along one path, each at most.
const MAX_FAULTS: u8 = 2;
/// The text of a mail: as it was, or after settings were changed.
const TEXTS: [&str; 2] = ["as it was", "changed"];

/// The ledger's state, and what really happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    state: State,
    /// What the relay accepted, in order.
    taken: Vec<(Channel, &'static str)>,
    /// What a process is sending.
    sending: Option<(Channel, &'static str)>,
    lost: u8,
    killed: u8,
    refused: u8,
    /// How often an operator had a mail of unknown fate repeated.
    asked: [u8; 2],
}

/// The list of moves under test.
type Moves = fn(&State, &Event) -> Option<State>;

fn correct(state: &State, event: &Event) -> Option<State> {
    next(state, event).ok()
}

/// Treats a mail of unknown fate as certainly not sent.
fn careless(state: &State, event: &Event) -> Option<State> {
    let event = match event {
        Event::MailEnded { channel, outcome: Effect::Unsettled { why } } => &Event::MailEnded {
            channel: *channel,
            outcome: Obstacle::new(ObstacleKind::Temporary, why).into(),
        },
        event => event,
    };
    correct(state, event)
}

fn intended(channel: Channel, text: &str) -> Event {
    let posted = Posted {
        message_id: "<1@contoso.example>".into(),
        date: Timestamp::UNIX_EPOCH,
        to: "ada@home.example".into(),
        courier: "smtp".into(),
        body: "pass".into(),
        digest: text.into(),
    };
    Event::MailIntended { channel, posted: Box::new(posted) }
}

fn ended(channel: Channel, outcome: Effect<String>) -> Event {
    Event::MailEnded { channel, outcome }
}

fn lost() -> Effect<String> {
    Effect::Unsettled { why: "cut".into() }
}

/// The mail that may have been sent.
fn open_mail(state: &State) -> Option<(Channel, &OpenMail)> {
    match state {
        State::Mailing { mail, .. } => Some((Channel::Pass, mail)),
        State::Delivered { notice: Some(MailState::Open(mail)), .. } => {
            Some((Channel::Notice, mail))
        }
        _ => None,
    }
}

impl World {
    /// Every world that one step can lead to.
    fn steps(&self, moves: Moves) -> Vec<Self> {
        match self.sending {
            None => self.begun(moves),
            Some((channel, text)) => self.ended(moves, channel, text),
        }
    }

    /// A process begins a mail, after recording those that an earlier one left open as lost.
    fn begun(&self, moves: Moves) -> Vec<Self> {
        let open = open_mail(&self.state);
        let left = open.filter(|(_, mail)| !mail.lost);
        let noted = left.and_then(|(channel, _)| moves(&self.state, &ended(channel, lost())));
        let mut found: Vec<Self> =
            noted.map(|state| Self { state, ..self.clone() }).into_iter().collect();
        for (place, channel) in [Channel::Pass, Channel::Notice].into_iter().enumerate() {
            for text in TEXTS {
                let Some(state) = moves(&self.state, &intended(channel, text)) else { continue };
                let mut world = Self { state, sending: Some((channel, text)), ..self.clone() };
                world.asked[place] += u8::from(open.is_some());
                found.push(world);
            }
        }
        found.retain(|world| world.asked.iter().all(|asked| *asked <= MAX_FAULTS));
        found
    }

    /// The mail being sent ends, or its process does.
    fn ended(&self, moves: Moves, channel: Channel, text: &'static str) -> Vec<Self> {
        let mut found = Vec::new();
        let took = || [&self.taken[..], &[(channel, text)]].concat();
        let mut end = |outcome, change: &dyn Fn(&mut Self)| {
            let Some(state) = moves(&self.state, &ended(channel, outcome)) else { return };
            let mut world = Self { state, sending: None, ..self.clone() };
            change(&mut world);
            // In the same commit, as the ledger does it.
            if let Some(state) = moves(&world.state, &Event::NoticeDue) {
                world.state = state;
            }
            found.push(world);
        };
        end(Effect::Done("250".into()), &|world| world.taken = took());
        if self.refused < MAX_FAULTS {
            end(Effect::Refused("550".into()), &|world| world.refused += 1);
            end(Obstacle::new(ObstacleKind::Temporary, "450").into(), &|world| world.refused += 1);
        }
        for arrived in [true, false] {
            let taken = if arrived { took() } else { self.taken.clone() };
            if self.lost < MAX_FAULTS {
                end(lost(), &|world| {
                    world.lost += 1;
                    world.taken.clone_from(&taken);
                });
            }
        }
        for arrived in [true, false] {
            if self.killed < MAX_FAULTS {
                let taken = if arrived { took() } else { self.taken.clone() };
                let killed = self.killed + 1;
                found.push(Self { taken, killed, sending: None, ..self.clone() });
            }
        }
        found
    }

    /// The rules that this world breaks.
    fn wrong(&self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        let first = |which| self.taken.iter().position(|(channel, _)| *channel == which);
        for (place, which) in [Channel::Pass, Channel::Notice].into_iter().enumerate() {
            let texts: Vec<&str> =
                self.taken.iter().filter(|mail| mail.0 == which).map(|mail| mail.1).collect();
            if texts.len() > 1 + usize::from(self.asked[place]) {
                wrong.push("a mail was taken twice and nobody asked for that");
            }
            if texts.iter().collect::<BTreeSet<_>>().len() > 1 {
                wrong.push("two mails that differ were taken");
            }
        }
        let notice = first(Channel::Notice);
        if notice.is_some_and(|notice| first(Channel::Pass).is_none_or(|pass| pass > notice)) {
            wrong.push("somebody was told before the pass went out");
        }
        let done = matches!(&self.state, State::Delivered { notice: state, .. } if {
            first(Channel::Pass).is_none() || *state == Some(MailState::Done) && notice.is_none()
        });
        if done {
            wrong.push("what nobody took counts as delivered");
        }
        wrong
    }
}

/// Explores every world. Returns their number and the rules that are broken.
fn explored(moves: Moves) -> (usize, BTreeSet<&'static str>) {
    let method = "m-1".parse().expect("a method id");
    let start = World {
        state: State::Sealed { method, proven: true },
        taken: Vec::new(),
        sending: None,
        lost: 0,
        killed: 0,
        refused: 0,
        asked: [0, 0],
    };
    let mut seen = HashSet::from([start.clone()]);
    let mut ahead = VecDeque::from([start]);
    let mut wrong = BTreeSet::new();
    while let Some(world) = ahead.pop_front() {
        wrong.extend(world.wrong());
        for step in world.steps(moves) {
            if seen.insert(step.clone()) {
                ahead.push_back(step);
            }
        }
    }
    (seen.len(), wrong)
}

#[test]
fn no_path_sends_a_mail_twice_unasked_or_the_notice_before_the_pass() {
    let (worlds, wrong) = explored(correct);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(worlds > 1_000, "only {worlds} worlds: faults were not explored");
    println!("{worlds} worlds");
}

#[test]
fn the_model_finds_the_errors_of_a_careless_list_of_moves() {
    let (_, wrong) = explored(careless);
    let expected =
        ["a mail was taken twice and nobody asked for that", "two mails that differ were taken"];
    assert_eq!(wrong.into_iter().collect::<Vec<_>>(), expected);
}
