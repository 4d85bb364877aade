//! Promises that the protocol for one user is safe in every state that two crashes, two lost
//! answers, one late execution, one pass of a helpdesk's, lists that are behind in both
//! directions and a replica that does not know the user can bring about.
//!
//! A breadth-first search over the program's own pure functions: every move of the row goes
//! through [`next`], what a look finds is judged by [`sight`], and what a cleanup may say by
//! [`judge`]. The tenant is tiny: one user, one pass. Taking a rule away must make the search find
//! a dead, a lost or a forgotten pass, or it would prove nothing.
//!
//! Where replicas lag, one crash and one loss are searched; `TAPWAVE_DEEP=1` searches two of each
//! there too, some millions of states.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tapwave_core::clock::Clocks;
use tapwave_core::ids::{Line, MethodId, UserId};
use tapwave_graph::FoundPass;
use tapwave_graph::verdict::{Refusal, RefusalKind};
use tapwave_ledger::state::next;
use tapwave_ledger::{Asked, Event, IntentId, IntentRecord, Proof, Remains, State};
use tapwave_pipeline::cleanup::{CleanupOutcome, Doubt, judge, observed};
use tapwave_pipeline::reconcile::{Observation, observe, settles_in};

const SETTLE_AFTER: Duration = Duration::from_mins(5);
/// The same in minutes, and one more, which is what a model of whole minutes rounds away.
const PATIENCE: i64 = 6;
/// How long a list may show what was before the latest change, in minutes.
const LAG: i64 = 4;
/// POSTs after which the search goes no deeper: more than two crashes and two losses can cause.
const MOST_POSTS: i64 = 4;
const MOST_FOREIGN: u8 = 1;
/// How often a replica does not know the user.
const MOST_UNKNOWN: u8 = 1;
/// What a row asks for, and what the helpdesk's passes have.
const OUR_MINUTES: u32 = 60;
const THEIR_MINUTES: u32 = 45;

/// When a POST whose answer was lost may still execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// As the settling time assumes.
    WithinSettling,
    /// Later than that, but before anybody relies on another pass.
    BeforeTheSecondLook,
    /// Whenever it likes.
    Ever,
}

/// What is left out of the protocol, and what the tenant does.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is left out on its own")]
struct Rules {
    /// A lost attempt is settled after the settling time; otherwise at once.
    settling: bool,
    /// The user is looked at before the next POST; otherwise that goes out unseen.
    settle: bool,
    /// A pass that followed a lost attempt is looked at again.
    verify: bool,
    /// A sealed pass that is not listed, or an absence at a cleanup, is looked at again after the
    /// settling time; otherwise one look decides.
    patience: bool,
    /// Cleanup works from every id and attempt; otherwise from the row's own pass alone.
    remains: bool,
    late: Late,
    /// What a second POST does.
    replaces: bool,
    /// Lists, and DELETEs by id, may show what was before the latest change; a replica may not
    /// know the user.
    lags: bool,
    /// Crashes, and lost answers, at most.
    most: u8,
}

const SOUND: Rules = Rules {
    settling: true,
    settle: true,
    verify: true,
    patience: true,
    remains: true,
    late: Late::WithinSettling,
    replaces: true,
    lags: false,
    most: 2,
};

/// Who made a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Maker {
    Us(i64),
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
    Sending(i64),
    /// The answer is here and not committed yet.
    Holding(i64),
    /// The orphan is durable, and its DELETE is about to go.
    Deleting(i64),
}

/// An attempt as the ledger keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Attempt {
    id: i64,
    minted: i64,
    ended: Option<i64>,
    fate: AttemptFate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum AttemptFate {
    /// A pass of it may be alive.
    Open,
    Sealed,
    /// It created none, or that is gone.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct World {
    row: State,
    program: Program,
    tenant: Option<Live>,
    /// What a list that is behind shows, and since when it is.
    past: Option<Live>,
    changed: i64,
    /// A POST that may still execute, and the minute from which on it is not expected to.
    pending: Option<(i64, i64)>,
    minute: i64,
    posts: i64,
    attempts: Vec<Attempt>,
    /// The ids that the ledger knows: those that may be alive, and those that are gone.
    alive: BTreeSet<i64>,
    gone: BTreeSet<i64>,
    /// Those that count as gone by what lists did not show, or showed in their place.
    given_up: BTreeSet<i64>,
    absent_since: Option<i64>,
    /// When a look first missed the sealed pass, in this process.
    missed_since: Option<i64>,
    /// The sealed pass is an earlier process's, which may have deleted it again.
    inherited: bool,
    crashes: u8,
    losses: u8,
    foreign: u8,
    unknown: u8,
    /// Cleanup closed the run.
    closed: bool,
    /// Cleanup said that nothing is left.
    cleaned: bool,
    deleted_theirs: bool,
}

impl World {
    fn first() -> Self {
        Self {
            row: State::Checked { after_loss: false },
            program: Program::Ready,
            tenant: None,
            past: None,
            changed: -LAG,
            pending: None,
            minute: 0,
            posts: 0,
            attempts: Vec::new(),
            alive: BTreeSet::new(),
            gone: BTreeSet::new(),
            given_up: BTreeSet::new(),
            absent_since: None,
            missed_since: None,
            inherited: false,
            crashes: 0,
            losses: 0,
            foreign: 0,
            unknown: 0,
            closed: false,
            cleaned: false,
            deleted_theirs: false,
        }
    }

    /// Every world that may come next.
    fn steps(&self, rules: Rules) -> Vec<Self> {
        if self.cleaned {
            return Vec::new();
        }
        let mut steps = self.by_others(rules);
        steps.extend(self.crash(rules));
        match self.program {
            Program::Down => steps.extend(self.resume()),
            Program::Ready if self.closed => steps.extend(self.clean(rules)),
            Program::Ready => {
                steps.extend(self.by_program(rules));
                steps.push(Self { closed: true, ..self.clone() });
            }
            Program::Sending(id) => steps.extend(self.post(id, rules)),
            Program::Holding(id) => steps.push(self.seal(id)),
            Program::Deleting(id) => steps.extend(self.delete(id, rules)),
        }
        steps
    }

    /// The helpdesk, and the tenant's own queue.
    fn by_others(&self, rules: Rules) -> Vec<Self> {
        let mut steps = Vec::new();
        if self.foreign < MOST_FOREIGN && !self.closed {
            let theirs = self.with(Some(Live { maker: Maker::Helpdesk, made: self.minute }));
            steps.push(Self { foreign: self.foreign + 1, ..theirs });
        }
        if let Some((id, expected)) = self.pending {
            let proven = matches!(self.row, State::Sealed { proven: true, .. });
            let may = match rules.late {
                Late::WithinSettling => self.minute < expected,
                Late::BeforeTheSecondLook => !proven && !self.closed,
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
        if self.crashes == rules.most || self.program == Program::Down {
            return Vec::new();
        }
        let crashes = self.crashes + 1;
        let down = Self { program: Program::Down, crashes, missed_since: None, ..self.clone() };
        match self.program {
            Program::Sending(id) => vec![down.executed(id, rules), down.put_off(id), down],
            _ => vec![down],
        }
    }

    /// A later process: an attempt without an outcome was lost, and the last seals are doubted.
    fn resume(&self) -> Vec<Self> {
        let up = Self { program: Program::Ready, ..self.clone() };
        match self.row {
            State::Intent { intent, .. } => vec![up.lose(intent.0, None)],
            State::Sealed { .. } => {
                let doubted = up.to(&Event::Doubted);
                vec![up, Self { inherited: true, ..doubted }]
            }
            _ => vec![up],
        }
    }

    fn by_program(&self, rules: Rules) -> Vec<Self> {
        match &self.row {
            State::Checked { .. } if self.posts < MOST_POSTS => vec![self.intend()],
            State::Unsettled { .. } => self.settle(rules),
            State::Sealed { method, proven: false } => self.look_again(method, rules),
            _ => Vec::new(),
        }
    }

    fn intend(&self) -> Self {
        let id = self.posts + 1;
        let intent = IntentId(id);
        let intended = Event::Intended { intent, asked: asked(), graph_time: at(self.minute) };
        let attempt = Attempt { id, minted: self.minute, ended: None, fate: AttemptFate::Open };
        let mut next = self.to(&intended);
        next.attempts.push(attempt);
        Self { program: Program::Sending(id), posts: id, absent_since: None, ..next }
    }

    /// The POST and its answer, or what may come instead of it.
    fn post(&self, id: i64, rules: Rules) -> Vec<Self> {
        let executed = self.executed(id, rules);
        let refused = executed.tenant.is_none_or(|live| live.maker != Maker::Us(id));
        let mut steps = if refused {
            self.refused(id, rules)
        } else {
            vec![Self { program: Program::Holding(id), ..executed.clone() }]
        };
        if self.losses < rules.most {
            for after in [self.clone(), executed, self.put_off(id)] {
                let lost = after.lose(id, Some(self.minute));
                steps.push(Self { program: Program::Ready, losses: self.losses + 1, ..lost });
            }
        }
        steps
    }

    /// A tenant that rejects a second pass says that there is one; what a list shows decides
    /// whether that may be ours.
    fn refused(&self, id: i64, rules: Rules) -> Vec<Self> {
        let ready = Self { program: Program::Ready, ..self.clone() };
        let why = "there is a pass".to_owned();
        let judged = |shown: Option<Live>| match self.sight(shown) {
            Observation::Older(_) | Observation::Newer(_) => {
                let refusal = Event::Refused { intent: IntentId(id), why: why.clone() };
                ready.to(&refusal).ended(id, AttemptFate::Over, None)
            }
            _ => ready.to(&Event::InTheWay { intent: IntentId(id), why: why.clone() }),
        };
        self.shown(rules).into_iter().map(judged).collect()
    }

    fn seal(&self, id: i64) -> Self {
        let sealed = Event::Sealed {
            intent: IntentId(id),
            method: method(Maker::Us(id)),
            start: None,
            lifetime_minutes: OUR_MINUTES,
            one_time: false,
            graph_time: at(self.minute),
        };
        let sealed = self.to(&sealed).ended(id, AttemptFate::Sealed, Some(self.minute));
        let mut sealed = Self { program: Program::Ready, inherited: false, ..sealed };
        sealed.alive.insert(id);
        sealed
    }

    /// The settling time, the look, and what follows from it.
    fn settle(&self, rules: Rules) -> Vec<Self> {
        let in_the_way = self.attempts.last().is_some_and(|attempt| attempt.ended.is_none());
        let quiet = self.quiet_after(&self.remains());
        let after = match (rules.settling, in_the_way && self.crashes == 0) {
            (true, false) => quiet,
            // A refusal has no effect that could come late.
            (_, true) => self.minute + 1,
            (false, _) => self.minute,
        };
        let waited = Self { minute: after, ..self.clone() };
        if !rules.settle {
            return vec![waited.settled(None)];
        }
        let mut steps = waited.unknown(rules);
        for shown in waited.shown(rules) {
            steps.push(match waited.sight(shown) {
                Observation::Nothing => waited.settled(None),
                Observation::Stale(_) => Self { minute: waited.minute + 1, ..waited.clone() },
                Observation::Ours(method)
                | Observation::Orphan(method)
                | Observation::GivenUp(method) => waited.found(shown, method),
                Observation::Used(method)
                | Observation::Older(method)
                | Observation::Newer(method)
                | Observation::Foreign(method) => waited.hold(Some(method)),
            });
        }
        steps
    }

    /// A replica says 404 about the user: nothing follows from it.
    fn unknown(&self, rules: Rules) -> Vec<Self> {
        if !rules.lags || self.unknown == MOST_UNKNOWN {
            return Vec::new();
        }
        vec![Self { unknown: self.unknown + 1, minute: self.minute + 1, ..self.clone() }]
    }

    fn found(&self, shown: Option<Live>, method: MethodId) -> Self {
        let noted = self.to(&Event::OrphanFound { method, over: Timestamp::MAX });
        match shown.map(|live| live.maker) {
            Some(Maker::Us(id)) => {
                let mut noted = Self { program: Program::Deleting(id), ..noted };
                noted.alive.insert(id);
                noted.given_up.remove(&id);
                noted.absent_since = None;
                noted
            }
            _ => Self { deleted_theirs: true, ..noted },
        }
    }

    /// By its id: what has taken its place meanwhile stays. A 404 is no proof.
    fn delete(&self, id: i64, rules: Rules) -> Vec<Self> {
        let ready = Self { program: Program::Ready, ..self.clone() };
        let later = Self { minute: self.minute + 1, ..ready.clone() };
        if self.tenant.is_none_or(|live| live.maker != Maker::Us(id)) {
            return vec![later];
        }
        let found = Some(method(Maker::Us(id)));
        let deleted = ready.with(None).to(&Event::Settled { found, proof: Some(Proof::Deleted) });
        let mut steps = vec![deleted.all_gone(Proof::Deleted)];
        steps.extend(self.is_behind(rules).then_some(later));
        steps
    }

    fn look_again(&self, sealed: &MethodId, rules: Rules) -> Vec<Self> {
        if !rules.verify {
            return vec![self.verified()];
        }
        let mut steps = self.unknown(rules);
        for shown in self.shown(rules) {
            steps.push(match self.sight(shown) {
                Observation::Ours(method) if method == *sealed => self.verified(),
                Observation::Nothing | Observation::Stale(_) | Observation::GivenUp(_) => {
                    self.miss(rules)
                }
                Observation::Ours(method)
                | Observation::Orphan(method)
                | Observation::Used(method)
                | Observation::Older(method)
                | Observation::Newer(method)
                | Observation::Foreign(method) => self.hold(Some(method)),
            });
        }
        steps
    }

    /// A sealed pass that is not listed: looked for again until the settling time has passed.
    fn miss(&self, rules: Rules) -> Self {
        let since = self.missed_since.unwrap_or(self.minute);
        if rules.patience && self.minute < since + PATIENCE {
            let minute = (self.minute + 2).min(since + PATIENCE);
            return Self { minute, missed_since: Some(since), ..self.clone() };
        }
        if self.inherited {
            let gone = self.to(&Event::Settled { found: None, proof: Some(Proof::Absent) });
            return Self { missed_since: None, ..gone.all_gone(Proof::Absent) };
        }
        self.hold(None)
    }

    fn verified(&self) -> Self {
        let mut verified = self.to(&Event::Verified);
        let sealed = verified
            .alive
            .iter()
            .copied()
            .filter(|id| verified.row.method() == Some(&method(Maker::Us(*id))));
        let sealed: BTreeSet<i64> = sealed.collect();
        verified = verified.all_gone(Proof::Replaced);
        verified.given_up = verified.given_up.difference(&sealed).copied().collect();
        verified.alive = sealed;
        Self { missed_since: None, ..verified }
    }

    fn settled(&self, proof: Option<Proof>) -> Self {
        self.to(&Event::Settled { found: None, proof })
    }

    fn hold(&self, found: Option<MethodId>) -> Self {
        let held = self.to(&Event::Held { why: "not ours".to_owned(), found });
        Self { missed_since: None, ..held }
    }

    /// One look of a cleanup: DELETE by every id, list, judge.
    fn clean(&self, rules: Rules) -> Vec<Self> {
        let up = match self.row {
            State::Intent { intent, .. } => self.lose(intent.0, None),
            _ => self.clone(),
        };
        let mut remains = up.remains();
        if !rules.remains {
            remains.attempts.clear();
            remains.alive.retain(|(known, _)| up.row.method() == Some(known));
        }
        if remains.alive.is_empty() && !remains.attempts.iter().any(|attempt| attempt.may_live) {
            return vec![Self { cleaned: true, ..up }];
        }
        let up = Self { minute: up.quiet_after(&remains), ..up };
        let mut steps = Vec::new();
        for (after, deletions) in up.deletions(&remains, rules) {
            for look in after.looks(rules) {
                steps.push(after.judged(&remains, &deletions, &look, rules));
            }
        }
        steps
    }

    /// What DELETE by each id comes to: 204 of the one that is there, or 404, also of that one
    /// while replicas are behind.
    fn deletions(&self, remains: &Remains, rules: Rules) -> Vec<(Self, Vec<Deleted>)> {
        let there = self.tenant.map(|live| method(live.maker));
        let hit = remains.alive.iter().position(|(known, _)| Some(known) == there.as_ref());
        let missed = vec![Err(pass_gone()); remains.alive.len()];
        let Some(hit) = hit else { return vec![(self.clone(), missed)] };
        let mut deleted = missed.clone();
        deleted[hit] = Ok(());
        let mut outcomes = vec![(self.with(None), deleted)];
        outcomes.extend(self.is_behind(rules).then(|| (self.clone(), missed)));
        outcomes
    }

    fn looks(&self, rules: Rules) -> Vec<Result<Option<FoundPass>, Refusal>> {
        let shown = self.shown(rules).into_iter();
        let mut looks: Vec<_> = shown.map(|shown| Ok(shown.as_ref().map(found))).collect();
        if rules.lags && self.unknown < MOST_UNKNOWN {
            looks.push(Err(user_unknown()));
        }
        looks
    }

    fn judged(
        &self,
        remains: &Remains,
        deletions: &[Deleted],
        look: &Result<Option<FoundPass>, Refusal>,
        rules: Rules,
    ) -> Self {
        let now = at(self.minute);
        let sighting = observed(remains, deletions, look, SETTLE_AFTER, now);
        let clocks = Clocks { graph: now, machine: now };
        let fate = judge(remains, deletions, look, sighting.as_ref(), SETTLE_AFTER, clocks);
        let mut next = self.clone();
        next.unknown += u8::from(look.is_err());
        if let Some(Observation::Ours(_)) = &sighting {
            next.absent_since = None;
        }
        if let Some(Observation::Orphan(method) | Observation::GivenUp(method)) = &sighting {
            let maker = (1..=self.posts).find(|id| *method == ours(*id));
            next.alive.extend(maker);
            next.given_up.retain(|id| Some(*id) != maker);
            next.absent_since = None;
            next.deleted_theirs |= maker.is_none();
        }
        match fate {
            CleanupOutcome::Gone(_) | CleanupOutcome::StillGone => Self { cleaned: true, ..next },
            CleanupOutcome::Doubtful(Doubt::NotListed) if !rules.patience => {
                Self { cleaned: true, ..next }
            }
            CleanupOutcome::Doubtful(Doubt::NotListed) => {
                let since = *next.absent_since.get_or_insert(self.minute);
                let minute = (self.minute + 2).min((since + PATIENCE).max(self.minute + 1));
                Self { minute, ..next }
            }
            // It says that it does not know, and no time changes that: nothing is called gone.
            CleanupOutcome::Doubtful(Doubt::Unclear) => next,
            CleanupOutcome::Doubtful(_) | CleanupOutcome::Left { .. } => {
                Self { minute: self.minute + 1, ..next }
            }
        }
    }

    // ---- the tenant ----------------------------------------------------------------------

    /// The tenant after a change.
    fn with(&self, tenant: Option<Live>) -> Self {
        Self { tenant, past: self.tenant, changed: self.minute, ..self.clone() }
    }

    fn is_behind(&self, rules: Rules) -> bool {
        rules.lags && self.minute < self.changed + LAG
    }

    /// What a list may show.
    fn shown(&self, rules: Rules) -> Vec<Option<Live>> {
        let mut shown = vec![self.tenant];
        shown.extend(self.is_behind(rules).then_some(self.past));
        shown
    }

    /// The tenant after a POST had its effect.
    fn executed(&self, id: i64, rules: Rules) -> Self {
        if self.tenant.is_some() && !rules.replaces {
            return self.clone();
        }
        self.with(Some(Live { maker: Maker::Us(id), made: self.minute }))
    }

    /// The tenant with a POST in its queue.
    fn put_off(&self, id: i64) -> Self {
        let expected = self.minute + i64::try_from(SETTLE_AFTER.as_secs() / 60).expect("minutes");
        Self { pending: self.pending.or(Some((id, expected))), ..self.clone() }
    }

    // ---- the ledger ----------------------------------------------------------------------

    /// The row moves as the program's own list of moves allows, or the model is wrong.
    fn to(&self, event: &Event) -> Self {
        let row = next(&self.row, event).expect("a legal move");
        Self { row, ..self.clone() }
    }

    fn lose(&self, id: i64, given_up: Option<i64>) -> Self {
        let lost = Event::Lost {
            intent: IntentId(id),
            why: "reset".to_owned(),
            given_up: Timestamp::UNIX_EPOCH,
            method: None,
        };
        // Nobody saw how the attempt of a crashed process ended.
        let ended = given_up.unwrap_or(self.minute + 4);
        self.to(&lost).ended(id, AttemptFate::Open, Some(ended))
    }

    fn ended(&self, id: i64, fate: AttemptFate, ended: Option<i64>) -> Self {
        let mut next = self.clone();
        for attempt in next.attempts.iter_mut().filter(|attempt| attempt.id == id) {
            (attempt.fate, attempt.ended) = (fate, ended);
        }
        next
    }

    /// Nothing that the row got, or may have got, is alive.
    fn all_gone(&self, proof: Proof) -> Self {
        let mut next = self.clone();
        let alive = std::mem::take(&mut next.alive);
        match proof {
            Proof::Deleted => next.gone.extend(alive),
            Proof::Replaced | Proof::Over | Proof::Absent => next.given_up.extend(alive),
        }
        for attempt in &mut next.attempts {
            if attempt.fate == AttemptFate::Open {
                attempt.fate = AttemptFate::Over;
            }
        }
        Self { absent_since: None, ..next }
    }

    fn remains(&self) -> Remains {
        let attempts = self.attempts.iter().filter(|attempt| attempt.fate != AttemptFate::Over);
        let record = |attempt: &Attempt| IntentRecord {
            id: IntentId(attempt.id),
            asked: asked(),
            graph_time: at(attempt.minted),
            minted: at(attempt.minted),
            given_up: attempt.ended.map(at),
            outcome: None,
            may_live: attempt.fate == AttemptFate::Open,
        };
        Remains {
            line: Line(2),
            upn: "ada@contoso.example".to_owned(),
            unreadable: None,
            user: Some(UserId::new(uuid::Uuid::nil())),
            state: self.row.clone(),
            // Longer than any story here: nothing ends by itself.
            alive: self.alive.iter().map(|id| (ours(*id), Timestamp::MAX)).collect(),
            gone: self.gone.iter().map(|id| ours(*id)).collect(),
            given_up: self.given_up.iter().map(|id| ours(*id)).collect(),
            attempts: attempts.map(record).collect(),
            absent_since: self.absent_since.map(at),
            absent_at: self.absent_since.map(at),
            seen: false,
            deleted: Vec::new(),
        }
    }

    /// The first whole minute at which no attempt is feared any more.
    fn quiet_after(&self, remains: &Remains) -> i64 {
        let now = Clocks { graph: at(self.minute), machine: at(self.minute) };
        let wait = settles_in(remains, SETTLE_AFTER, now).as_secs().div_ceil(60);
        self.minute + i64::try_from(wait).expect("minutes")
    }

    fn sight(&self, shown: Option<Live>) -> Observation {
        observe(shown.as_ref().map(found).as_ref(), &self.remains(), SETTLE_AFTER, at(self.minute))
    }

    /// What must never be, if it is.
    fn wrong(&self) -> Option<&'static str> {
        if self.deleted_theirs {
            return Some("a pass of the helpdesk's was deleted");
        }
        let there = self.tenant.map(|live| live.maker);
        if let (true, Some(Maker::Us(_))) = (self.cleaned && self.pending.is_none(), there) {
            return Some("cleanup called a live pass gone");
        }
        match (&self.row, there) {
            _ if self.closed => None,
            (State::Sealed { .. }, Some(Maker::Helpdesk)) => None,
            (State::Sealed { method: sealed, proven: true }, there)
                if there.map(method).as_ref() != Some(sealed) =>
            {
                Some("a pass was sealed and is dead")
            }
            (State::Checked { .. } | State::Failed { .. }, Some(Maker::Us(id)))
                if self.pending.is_none() && self.program == Program::Ready && !self.knows(id) =>
            {
                Some("an orphan was forgotten")
            }
            _ => None,
        }
    }

    /// Whether the ledger counts with this pass.
    fn knows(&self, id: i64) -> bool {
        let mut attempts = self.attempts.iter();
        self.alive.contains(&id)
            || attempts.any(|attempt| attempt.id == id && attempt.fate == AttemptFate::Open)
    }
}

/// Every world that can come about; how many, and the wrong ones by what is wrong.
fn search(rules: Rules) -> (usize, BTreeMap<&'static str, usize>) {
    search_for(rules, None)
}

/// The same, until what is sought is found.
fn search_for(rules: Rules, sought: Option<&str>) -> (usize, BTreeMap<&'static str, usize>) {
    let (mut seen, mut wrong) = (HashSet::from([World::first()]), BTreeMap::new());
    let mut waiting = VecDeque::from([World::first()]);
    while let Some(world) = waiting.pop_front() {
        if let Some(what) = world.wrong() {
            *wrong.entry(what).or_default() += 1;
            if sought == Some(what) {
                break;
            }
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
        Maker::Us(id) => format!("ours-{id}"),
        Maker::Helpdesk => "theirs".to_owned(),
    };
    name.parse().expect("a method id")
}

fn ours(id: i64) -> MethodId {
    method(Maker::Us(id))
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

/// What a DELETE by id came to.
type Deleted = Result<(), Refusal>;

fn user_unknown() -> Refusal {
    Refusal {
        status: 404,
        code: "Request_ResourceNotFound".to_owned(),
        message: "Resource does not exist".to_owned(),
        kind: RefusalKind::UserGone,
        request_id: None,
    }
}

fn pass_gone() -> Refusal {
    Refusal { kind: RefusalKind::MethodGone, ..user_unknown() }
}

fn finds(rules: Rules, sought: &str) {
    let (_, wrong) = search_for(rules, Some(sought));
    assert!(wrong.contains_key(sought), "{sought}: {wrong:?}");
}

#[test]
fn the_protocol_is_safe_in_every_state() {
    let deep = std::env::var_os("TAPWAVE_DEEP").is_some();
    for (replaces, lags) in [(true, false), (false, false), (true, true), (false, true)] {
        let most = if lags && !deep { 1 } else { 2 };
        let (states, wrong) = search(Rules { replaces, lags, most, ..SOUND });
        assert!(states > 400, "two crashes and two losses have more ends than {states}");
        assert!(wrong.is_empty(), "replaces {replaces}, lags {lags}: {wrong:?}");
    }
}

#[test]
fn without_the_settling_time_a_pass_dies() {
    finds(Rules { settling: false, ..SOUND }, "a pass was sealed and is dead");
}

#[test]
fn posting_again_at_once_kills_a_pass() {
    let rules = Rules { settling: false, settle: false, ..SOUND };
    finds(rules, "a pass was sealed and is dead");
}

#[test]
fn the_second_look_catches_what_the_settling_time_does_not() {
    let late = Rules { late: Late::BeforeTheSecondLook, ..SOUND };
    let (_, wrong) = search(late);
    assert!(!wrong.contains_key("a pass was sealed and is dead"), "{wrong:?}");
    finds(Rules { verify: false, ..late }, "a pass was sealed and is dead");
}

#[test]
fn nothing_helps_against_a_post_that_executes_whenever_it_likes() {
    finds(Rules { late: Late::Ever, ..SOUND }, "a pass was sealed and is dead");
}

#[test]
fn one_absence_taken_for_proof_forgets_a_pass() {
    let rules = Rules { lags: true, patience: false, ..SOUND };
    finds(rules, "cleanup called a live pass gone");
}

#[test]
fn a_cleanup_that_knows_the_row_s_own_pass_alone_forgets_another() {
    for replaces in [true, false] {
        let rules = Rules { replaces, remains: false, ..SOUND };
        finds(rules, "cleanup called a live pass gone");
    }
}
