//! Promises a tenant that is a pure state machine: what it answers follows from its options,
//! its past, the moment and the request alone. It must never ask for the time, wait, or draw
//! from any but its own seeded dice.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Body, Reply, SimulatedAnswer, SimulatedRefusal, response, shifted};
use super::codes::Mint;
use super::directory::{Directory, DirectoryUser};
use super::faults::{CallBudget, Called, Counter, classify, cost, is_named};
use super::listing::Chains;
use super::options::{Act, Call, Fault, Options};
use super::passes::{LivePass, LogEntry, PassEvent, PassRequest, ReplyFate, Usability};
use super::policy::{ALL_USERS, PassPolicy, PolicyTarget as Scope, TargetKind};
use super::target::RequestTarget;
use super::throttle::Quota;
use tapwave_core::clock::{later, span};
use tapwave_core::ids::{GroupId, UserId};
use tapwave_graph::transport::{Broken, Request};

/// A simulated tenant. Moments that go in are the caller's; what is logged is in the
/// tenant's, which [`Options::clock_offset`] sets apart.
pub struct Tenant {
    pub(super) options: Options,
    pub(super) policy: PassPolicy,
    pub(super) directory: Directory,
    pub(super) chains: Chains,
    pub(super) mails: Vec<AcceptedMail>,
    pub(super) rng: fastrand::Rng,
    mint: Mint,
    quotas: [Quota; 4],
    counter: Counter,
    log: Vec<LogEntry>,
    tally: CallCounters,
    /// What will happen later, by when and in which order.
    pending: BTreeMap<(Timestamp, u64), Due>,
    sequence: u64,
    /// The latest moment the tenant has seen; it never goes back.
    latest: Timestamp,
}

/// A message that `sendMail` accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AcceptedMail {
    /// When, on the tenant's clock.
    pub at: Timestamp,
    /// Whose mailbox sent it.
    pub from: UserId,
    /// The message as it was given.
    pub message: Value,
}

/// What the tenant has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CallCounters {
    /// HTTP requests that reached it; a batch is one.
    pub requests: u64,
    /// Answers with 429, those inside batches included.
    pub throttled: u64,
    /// Requests that were left without a whole answer.
    pub lost: u64,
}

/// Why a sign-in with a pass fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No such user, or no pass.
    #[error("the user has no pass")]
    NoPass,
    /// The account is disabled.
    #[error("the account is disabled")]
    Disabled,
    /// It was made less than [`Options::works_after`] ago.
    #[error("the pass is too fresh to work")]
    TooFresh,
    /// As `methodUsabilityReason` says.
    #[error("the pass cannot be used: {0:?}")]
    Because(Usability),
}

/// What is to happen later.
enum Due {
    /// A request has its effect.
    Request(Request),
    /// Somebody acts on a user's pass, if it is still this one.
    Act { person: usize, method: String, act: Act },
}

/// Who makes a pass.
pub(super) enum PassOrigin {
    /// A POST.
    Asked(Visit),
    /// Somebody else.
    Elsewhere,
}

/// The circumstances under which a request is served.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    pub(super) now: Timestamp,
    /// How long the answer will be under way.
    pub(super) back: Duration,
    /// How much of the answer the caller will see.
    pub(super) shown: ReplyFate,
    /// The 201 carries another id than the pass has, and whether DELETE takes it.
    pub(super) other_id: Option<bool>,
    /// Told in the header and in errors.
    pub(super) request_id: String,
}

/// What a request comes to.
#[derive(Debug)]
pub(super) enum Course {
    Whole(Reply),
    NotSent,
    Lost,
    Cut(Reply),
}

impl Tenant {
    /// An empty tenant: nobody, no group, the default policy for everyone.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(options.seed),
            options,
            policy: PassPolicy::default(),
            directory: Directory::default(),
            chains: Chains::default(),
            mails: Vec::new(),
            mint: Mint::default(),
            quotas: Default::default(),
            counter: Counter::default(),
            log: Vec::new(),
            tally: CallCounters::default(),
            pending: BTreeMap::new(),
            sequence: 0,
            latest: Timestamp::MIN,
        }
    }

    /// Serves one request at a moment.
    pub fn handle(&mut self, now: Timestamp, request: &Request) -> SimulatedAnswer {
        let now = self.arrive(now);
        self.tally.requests += 1;
        let back = self.way();
        let request_id = self.fresh_id().to_string();
        let visit = Visit { now, back, shown: ReplyFate::Whole, other_id: None, request_id };
        let course = self.run(&visit, request);
        // The date is that of the answer's departure, within the second of the effect.
        let date = shifted(now, self.options.date_offset);
        let answered = |reply| response(reply, date, visit.request_id);
        let lost = || Broken::Lost("the connection was closed".into());
        let (response, cut) = match course {
            Course::Whole(reply) => (Ok(answered(reply)), None),
            Course::NotSent => (Err(Broken::NotSent("connection refused".into())), None),
            Course::Lost => (Err(lost()), None),
            Course::Cut(reply) => (Err(lost()), Some(answered(reply))),
        };
        self.tally.lost += u64::from(response.is_err());
        SimulatedAnswer { response, after: back, cut }
    }

    /// Lets the requests that were late have their effect, up to a moment. [`Tenant::handle`]
    /// does so by itself; whoever looks at the tenant from outside does it first.
    pub fn advance(&mut self, now: Timestamp) {
        self.arrive(now);
    }

    /// How long a request is under way before it reaches the tenant: half a round trip.
    pub fn way(&mut self) -> Duration {
        self.options.latency.draw(&mut self.rng) / 2
    }

    /// Everything that happened to passes, oldest first.
    #[must_use]
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// Every message sent, oldest first.
    #[must_use]
    pub fn mails(&self) -> &[AcceptedMail] {
        &self.mails
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> CallCounters {
        self.tally
    }

    /// How many calls of a kind have come, those inside batches and refused ones included.
    #[must_use]
    pub fn seen(&self, call: Call) -> u64 {
        self.counter.seen(call)
    }

    /// The passes that exist, used up or not, with their users.
    pub fn passes(&self) -> impl Iterator<Item = (UserId, &str, &LivePass)> {
        self.directory.people().iter().filter_map(|person| {
            person.pass.as_ref().map(|pass| (person.id, person.user.upn.as_str(), pass))
        })
    }

    /// A user's pass, by id or UPN.
    #[must_use]
    pub fn pass(&self, name: &str) -> Option<&LivePass> {
        self.directory.index(name).and_then(|index| self.directory.person(index).pass.as_ref())
    }

    /// A user's id, by UPN.
    #[must_use]
    pub fn user_id(&self, upn: &str) -> Option<UserId> {
        self.directory.index(upn).map(|index| self.directory.person(index).id)
    }

    /// A group's id, by its name.
    #[must_use]
    pub fn group_id(&self, name: &str) -> Option<GroupId> {
        self.directory.groups().iter().find(|group| group.name == name).map(|group| group.id)
    }

    /// The behaviour, to be changed under way. A new seed has no effect on dice in use.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// The behaviour.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The policy, to be changed under way.
    pub fn policy_mut(&mut self) -> &mut PassPolicy {
        &mut self.policy
    }

    /// Adds a user, or renews the data of one with the same UPN.
    pub fn add_user(&mut self, user: DirectoryUser) -> UserId {
        let id = UserId::new(self.fresh_id());
        self.directory.add(id, user)
    }

    /// Adds a user who can be seen after [`Options::appear_delay`].
    pub fn hire(&mut self, now: Timestamp, user: DirectoryUser) -> UserId {
        let created = self.arrive(now);
        let appears_at = later(created, self.options.appear_delay);
        self.add_user(DirectoryUser { created, appears_at, ..user })
    }

    /// Changes a user. False when there is none of that name.
    pub fn amend(&mut self, upn: &str, change: impl FnOnce(&mut DirectoryUser)) -> bool {
        self.directory.amend(upn, change)
    }

    /// Removes a user and the user's pass. False when there is none of that name.
    pub fn dismiss(&mut self, now: Timestamp, upn: &str) -> bool {
        let now = self.arrive(now);
        let Some(index) = self.directory.index(upn) else { return false };
        self.directory.person_mut(index).user.appears_at = Timestamp::MAX;
        self.drop_pass(now, index, |method| PassEvent::Deleted { method, elsewhere: true });
        true
    }

    /// Adds a group.
    pub fn add_group(&mut self, name: impl Into<String>) -> GroupId {
        let id = GroupId::new(self.fresh_id());
        self.directory.add_group(id, name.into())
    }

    /// Deletes a group; a policy that names it goes on naming it. False when there is none.
    pub fn dissolve(&mut self, group: GroupId) -> bool {
        self.directory.dissolve(group)
    }

    /// Hides a group's members: `checkMemberGroups` leaves it out without a word.
    pub fn hide_group(&mut self, group: GroupId) {
        if let Some(group) = self.directory.group_mut(group) {
            group.hidden = true;
        }
    }

    /// Makes a user a direct member of a group. `Timestamp::MIN` means since ever, which no
    /// lag hides. False when either is unknown.
    pub fn join(&mut self, at: Timestamp, upn: &str, group: GroupId) -> bool {
        self.directory.join(shifted(at, self.options.clock_offset), upn, group)
    }

    /// Ends a user's direct membership. False when there was none.
    pub fn leave(&mut self, at: Timestamp, upn: &str, group: GroupId) -> bool {
        self.directory.leave(shifted(at, self.options.clock_offset), upn, group)
    }

    /// Makes one group a member of another. False when either is unknown.
    pub fn nest(&mut self, at: Timestamp, inner: GroupId, outer: GroupId) -> bool {
        self.directory.nest(shifted(at, self.options.clock_offset), inner, outer)
    }

    /// Somebody else makes a pass, in the portal or with another tool; it takes the place of
    /// one that is there. None when there is no such user.
    pub fn issue_elsewhere(&mut self, now: Timestamp, name: &str) -> Option<String> {
        let now = self.arrive(now);
        let index = self.directory.index(name)?;
        self.replace(now, index);
        self.directory.person(index).pass.as_ref().map(|pass| pass.method.clone())
    }

    fn replace(&mut self, now: Timestamp, person: usize) {
        let request = PassRequest {
            start: now,
            lifetime_minutes: self.policy.default_lifetime,
            one_time: self.policy.one_time,
        };
        self.mint_pass(now, person, request, &PassOrigin::Elsewhere);
    }

    /// Somebody signs in with the user's pass.
    ///
    /// # Errors
    /// Why that fails.
    pub fn use_pass(&mut self, now: Timestamp, name: &str) -> Result<(), Unusable> {
        let now = self.arrive(now);
        let index = self.directory.index(name).ok_or(Unusable::NoPass)?;
        let in_scope = self.in_scope(index, now);
        let works_after = self.options.works_after;
        let person = self.directory.person_mut(index);
        let pass = person.pass.as_mut().ok_or(Unusable::NoPass)?;
        if !person.user.enabled {
            return Err(Unusable::Disabled);
        }
        match pass.usability(in_scope, now) {
            Usability::EnabledByPolicy if span(pass.created, now) < works_after => {
                return Err(Unusable::TooFresh);
            }
            Usability::EnabledByPolicy => pass.used = true,
            reason => return Err(Unusable::Because(reason)),
        }
        let method = pass.method.clone();
        self.write(now, index, PassEvent::Used { method });
        Ok(())
    }

    /// Whether the policy lets a user have a pass; exclusion wins.
    pub(super) fn in_scope(&self, person: usize, now: Timestamp) -> bool {
        if !self.policy.enabled {
            return false;
        }
        let groups = self.directory.groups_of(person, now);
        let id = self.directory.person(person).id;
        let named = |scope: &Scope| match scope.kind {
            TargetKind::Group if scope.id == ALL_USERS => true,
            TargetKind::Group => groups
                .iter()
                .any(|&group| self.directory.groups()[group].text.eq_ignore_ascii_case(&scope.id)),
            TargetKind::User => scope.id.parse() == Ok(id),
        };
        self.policy.include.iter().any(named) && !self.policy.exclude.iter().any(named)
    }

    /// Makes a pass in place of any that is there.
    pub(super) fn mint_pass(
        &mut self,
        now: Timestamp,
        person: usize,
        request: PassRequest,
        origin: &PassOrigin,
    ) {
        self.drop_pass(now, person, |method| PassEvent::Replaced { method });
        let length = usize::try_from(self.policy.default_length).unwrap_or(8);
        let pass = LivePass {
            method: self.fresh_id().to_string(),
            code: self.mint.strike(&mut self.rng, self.options.code_style, length),
            created: now,
            start: request.start,
            lifetime_minutes: request.lifetime_minutes,
            one_time: request.one_time,
            used: false,
        };
        let (shown, other_id) = match origin {
            PassOrigin::Asked(visit) => (visit.shown, visit.other_id),
            PassOrigin::Elsewhere => (ReplyFate::Never, None),
        };
        let other_id = other_id.map(|deletable| (self.fresh_id().to_string(), deletable));
        let event = PassEvent::Minted {
            method: pass.method.clone(),
            code: pass.code.clone(),
            shown,
            lifetime_minutes: pass.lifetime_minutes,
            start: pass.start,
            one_time: pass.one_time,
            told: other_id.as_ref().map(|(id, _)| id.clone()),
            elsewhere: matches!(origin, PassOrigin::Elsewhere),
        };
        let lags = self.options.replication;
        let method = pass.method.clone();
        let holder = self.directory.person_mut(person);
        holder.replica.begin(now, other_id, &lags, &mut self.rng);
        holder.pass = Some(pass);
        self.write(now, person, event);
        if matches!(origin, PassOrigin::Asked(_)) {
            self.expect_others(now, person, &method);
        }
    }

    /// Notes what other people will do with a pass.
    fn expect_others(&mut self, now: Timestamp, person: usize, method: &str) {
        for index in 0..self.options.interventions.len() {
            let plan = &self.options.interventions[index];
            let holder = self.directory.person(person);
            let (upn, id) = (&holder.user.upn, holder.id.to_string());
            let meant =
                plan.users.is_empty() || plan.users.iter().any(|name| is_named(name, upn, &id));
            let (due, act) = (later(now, plan.after), plan.act);
            if meant && (plan.probability >= 1.0 || self.rng.f64() < plan.probability) {
                self.put_off(due, Due::Act { person, method: method.to_owned(), act });
            }
        }
    }

    fn intervene(&mut self, now: Timestamp, person: usize, method: &str, act: Act) {
        let holder = self.directory.person(person);
        if holder.pass.as_ref().is_none_or(|pass| pass.method != method) {
            return;
        }
        match act {
            Act::Replace => self.replace(now, person),
            Act::Delete => {
                self.drop_pass(now, person, |method| PassEvent::Deleted {
                    method,
                    elsewhere: true,
                });
            }
            Act::Disable => {
                let scope = Scope::user(holder.id);
                if !self.policy.exclude.contains(&scope) {
                    self.policy.exclude.push(scope);
                }
            }
        }
    }

    /// Ends a pass, if there is one.
    pub(super) fn drop_pass(
        &mut self,
        now: Timestamp,
        person: usize,
        event: impl FnOnce(String) -> PassEvent,
    ) {
        let lags = self.options.replication;
        let holder = self.directory.person_mut(person);
        if let Some(pass) = holder.pass.take() {
            let method = pass.method.clone();
            holder.replica.end(now, pass, &lags, &mut self.rng);
            self.write(now, person, event(method));
        }
    }

    /// Serves a request as its fault and its quota allow.
    pub(super) fn run(&mut self, visit: &Visit, request: &Request) -> Course {
        let target = match RequestTarget::parse(&request.target) {
            Ok(target) => target,
            Err(malformed) => {
                let refusal = SimulatedRefusal::new(400, "BadRequest", malformed.to_string());
                return Course::Whole(refused(visit, request, refusal));
            }
        };
        let call = classify(request.method, &target);
        let fault = self.draw_fault(visit.now, call, &target);
        if let Some(course) = self.forestall(fault.as_ref(), visit, request, &target) {
            return course;
        }
        let load = match self.admit(visit, request, call, &target) {
            Ok(load) => load,
            Err(reply) => return Course::Whole(reply),
        };
        let seen = match fault {
            Some(Fault::LostAfter | Fault::Failing { .. }) => ReplyFate::Never,
            Some(Fault::Truncated | Fault::Garbled) => ReplyFate::Partly,
            _ => ReplyFate::Whole,
        };
        let other_id = match fault {
            Some(Fault::OtherId { deletable }) => Some(deletable),
            _ => None,
        };
        let visit = Visit { shown: visit.shown.min(seen), other_id, ..visit.clone() };
        let mut reply = Reply { load, ..self.act(&visit, request, &target) };
        if self.options.null_lists
            && let Body::Json(body) = &mut reply.body
        {
            without_empty_lists(body);
        }
        match fault {
            Some(Fault::Twice { by }) => {
                self.put_off(later(visit.now, by), Due::Request(request.clone()));
                Course::Whole(reply)
            }
            Some(Fault::Unlisted) => Course::Whole(emptied(reply)),
            Some(Fault::Undated) => Course::Whole(undated(reply)),
            Some(Fault::EmptyPage) if target.option("$skiptoken").is_none() => {
                let next = super::listing::next_link(&self.options, &target, "next");
                Course::Whole(leading_on(emptied(reply), next))
            }
            Some(Fault::Dated { ahead }) => Course::Whole(Reply { misdated: ahead, ..reply }),
            Some(Fault::LostAfter) => Course::Lost,
            Some(Fault::Truncated) => Course::Cut(reply),
            Some(Fault::Garbled) => Course::Whole(garbled(reply)),
            Some(Fault::Failing { status, retry_after, .. }) => {
                Course::Whole(failing(&visit, request, status, retry_after))
            }
            _ => Course::Whole(reply),
        }
    }

    fn draw_fault(&mut self, at: Timestamp, call: Call, target: &RequestTarget) -> Option<Fault> {
        let name = match target.path().as_slice() {
            ["users", name, ..] => Some(*name),
            _ => None,
        };
        let person = name.and_then(|name| self.directory.index(name));
        let person = person.map(|index| self.directory.person(index));
        let id = person.map(|person| person.id.to_string());
        // Whoever is not known goes by the name that was used.
        let user = match (person, &id) {
            (Some(person), Some(id)) => Some((person.user.upn.as_str(), id.as_str())),
            _ => name.map(|name| (name, name)),
        };
        self.counter.draw(&self.options.faults, &mut self.rng, Called { call, at, user })
    }

    /// What comes of a request whose fault keeps it from having its effect now.
    fn forestall(
        &mut self,
        fault: Option<&Fault>,
        visit: &Visit,
        request: &Request,
        target: &RequestTarget,
    ) -> Option<Course> {
        let reply = match fault? {
            Fault::Unreachable => return Some(Course::NotSent),
            Fault::LostBefore => return Some(Course::Lost),
            Fault::Late { by } => {
                let due = later(visit.now, visit.back.saturating_add(*by));
                self.put_off(due, Due::Request(request.clone()));
                return Some(Course::Lost);
            }
            Fault::TokenExpired => {
                let message = "Lifetime validation failed, the token is expired.";
                let refusal = SimulatedRefusal::new(401, "InvalidAuthenticationToken", message);
                refused(visit, request, refusal)
            }
            Fault::Page { status, body } => Reply::text(*status, body.clone()),
            Fault::Forbidden => refused(visit, request, SimulatedRefusal::forbidden()),
            Fault::Throttled { retry_after } => {
                self.tally.throttled += 1;
                slow_down(visit, request, retry_after.clone())
            }
            Fault::UserUnknown => match target.path().as_slice() {
                ["users", name, ..] => refused(visit, request, SimulatedRefusal::missing(name)),
                _ => return None,
            },
            Fault::MethodUnknown => match target.path().as_slice() {
                ["users", _, "authentication", _, method] => {
                    let message = format!("Authentication method '{method}' could not be found.");
                    refused(visit, request, SimulatedRefusal::new(404, "resourceNotFound", message))
                }
                _ => return None,
            },
            Fault::Failing { status, effect: false, retry_after } => {
                failing(visit, request, *status, retry_after.clone())
            }
            // These have their effect.
            Fault::LostAfter
            | Fault::Truncated
            | Fault::Garbled
            | Fault::Failing { .. }
            | Fault::Unlisted
            | Fault::Undated
            | Fault::EmptyPage
            | Fault::Dated { .. }
            | Fault::Twice { .. }
            | Fault::OtherId { .. } => return None,
        };
        Some(Course::Whole(reply))
    }

    /// Has the request's effect and words the answer.
    fn act(&mut self, visit: &Visit, request: &Request, target: &RequestTarget) -> Reply {
        self.serve(visit, request, target)
            .unwrap_or_else(|refusal| refused(visit, request, refusal))
    }

    /// Charges the call to its budget: the load to tell, or a refusal.
    fn admit(
        &mut self,
        visit: &Visit,
        request: &Request,
        call: Call,
        target: &RequestTarget,
    ) -> Result<Option<f64>, Reply> {
        let Some((budget, cost)) = cost(call, target) else { return Ok(None) };
        let throttles = &self.options.throttles;
        let (quota, throttle) = match budget {
            CallBudget::PassWrites => (0, &throttles.pass_writes),
            CallBudget::PassReads => (1, &throttles.pass_reads),
            CallBudget::Directory => (2, &throttles.directory),
            CallBudget::Mail => (3, &throttles.mail),
        };
        let ruling = self.quotas[quota].ask(throttle, visit.now, cost);
        match ruling.refused {
            None => Ok(ruling.load),
            Some(comeback) => {
                self.tally.throttled += 1;
                let reply = slow_down(visit, request, comeback.retry_after);
                Err(Reply { load: ruling.load, ..reply })
            }
        }
    }

    /// The tenant's time for a caller's, with everything done that was due before it.
    fn arrive(&mut self, now: Timestamp) -> Timestamp {
        let now = shifted(now, self.options.clock_offset).max(self.latest);
        while let Some(due) = self.pending.first_entry().filter(|due| due.key().0 <= now) {
            let ((at, _), due) = due.remove_entry();
            match due {
                Due::Request(request) => self.act_unseen(at, &request),
                Due::Act { person, method, act } => self.intervene(at, person, &method, act),
            }
        }
        self.latest = now;
        now
    }

    /// Has the effect of a request whose answer nobody waits for.
    fn act_unseen(&mut self, now: Timestamp, request: &Request) {
        let request_id = self.fresh_id().to_string();
        let (back, shown, other_id) = (Duration::ZERO, ReplyFate::Never, None);
        let visit = Visit { now, back, shown, other_id, request_id };
        if let Ok(target) = RequestTarget::parse(&request.target) {
            drop(self.act(&visit, request, &target));
        }
    }

    fn put_off(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.pending.insert((at, self.sequence), due);
    }

    fn write(&mut self, at: Timestamp, person: usize, event: PassEvent) {
        let person = self.directory.person(person);
        let (user, upn) = (person.id, person.user.upn.clone());
        self.log.push(LogEntry { at, user, upn, event });
    }

    pub(super) fn fresh_id(&mut self) -> Uuid {
        let bytes = self.rng.u128(..).to_be_bytes();
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}

pub(super) fn refused(visit: &Visit, request: &Request, refusal: SimulatedRefusal) -> Reply {
    refusal.into_reply(visit.now, &visit.request_id, request.client_request_id)
}

fn slow_down(visit: &Visit, request: &Request, retry_after: Option<String>) -> Reply {
    let message = "Too many requests. Please try again later.";
    let reply = refused(visit, request, SimulatedRefusal::new(429, "TooManyRequests", message));
    Reply { retry_after, ..reply }
}

fn failing(visit: &Visit, request: &Request, status: u16, retry_after: Option<String>) -> Reply {
    // A gateway that gives up speaks HTML, not Graph's JSON.
    let reply = match status {
        502 | 504 => Reply::text(status, "<html><body>The gateway timed out.</body></html>".into()),
        _ => {
            let (code, message) = match status {
                503 => ("serviceNotAvailable", "The service is temporarily unavailable."),
                _ => ("InternalServerError", "An internal server error occurred."),
            };
            refused(visit, request, SimulatedRefusal::new(status, code, message))
        }
    };
    Reply { retry_after, ..reply }
}

fn garbled(reply: Reply) -> Reply {
    let text = match &reply.body {
        Body::Empty => return reply,
        Body::Text(text) => text.clone(),
        Body::Json(value) => value.to_string(),
    };
    let half = text.floor_char_boundary(text.len() / 2);
    Reply { body: Body::Text(text[..half].to_owned()), ..reply }
}

/// `null` in place of every empty list.
fn without_empty_lists(value: &mut Value) {
    match value {
        Value::Array(list) if list.is_empty() => *value = Value::Null,
        Value::Array(list) => list.iter_mut().for_each(without_empty_lists),
        Value::Object(object) => object.values_mut().for_each(without_empty_lists),
        _ => {}
    }
}

/// A listing without its objects.
fn emptied(mut reply: Reply) -> Reply {
    if let Body::Json(Value::Object(body)) = &mut reply.body
        && let Some(Value::Array(objects)) = body.get_mut("value")
    {
        objects.clear();
    }
    reply
}

/// A listing whose objects do not say when they were made.
fn undated(mut reply: Reply) -> Reply {
    if let Body::Json(body) = &mut reply.body
        && let Some(Value::Array(objects)) = body.get_mut("value")
    {
        for object in objects {
            object["createdDateTime"] = Value::Null;
        }
    }
    reply
}

/// A page that is not the last.
fn leading_on(mut reply: Reply, next: String) -> Reply {
    if let Body::Json(Value::Object(body)) = &mut reply.body {
        body.insert("@odata.nextLink".to_owned(), next.into());
    }
    reply
}

/// The context that Graph puts into an entity.
pub(super) fn context(base: &str, what: &str) -> Value {
    json!(format!("{base}/$metadata#{what}"))
}
