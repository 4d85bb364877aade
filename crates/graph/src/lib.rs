//! Promises the verbs of Microsoft Graph that tapwave uses, as typed calls.
//!
//! Reads and DELETEs by id repeat themselves until they are answered or patience ends.
//! [`Graph::create_pass`] never does: it costs an [`Intent`], goes out once, and tells
//! exactly what is known about its effect. The token and the codes never leave through an
//! error or a log line.

pub mod batch;
pub mod between;
mod connection;
pub mod http;
pub mod limiter;
pub mod quota;
pub mod sign_in;
pub mod transport;
pub mod tunnel;
pub mod verdict;
pub mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use uuid::Uuid;

use self::batch::BatchedAnswer;
use self::transport::{Broken, Method, Request, Response, Transport};
use self::verdict::{Refusal, RefusalKind, Verdict};
use self::wire::BatchedRequest;
pub use self::wire::{CreatedPass, FoundPass, Group, Manager, Policy, PolicyPatch, Target, User};
use crate::limiter::{Budget, Limiter, NotAdmitted, Permit, Throttled};
use tapwave_core::backoff::exponential;
use tapwave_core::clock::{Clock, Clocks, later};
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::ids::{ClientRequestId, GroupId, MethodId, Upn, UserId};
use tapwave_core::limits;
use tapwave_core::shown;
use tapwave_ledger::Intent;

/// What must be escaped inside one query value or path segment.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'@')
    .remove(b'\'')
    .remove(b',');

/// Why a request that had leave was not sent.
const HELD_BACK: &str = "held back, because Graph throttled meanwhile";

const POLICY: &str =
    "/policies/authenticationMethodsPolicy/authenticationMethodConfigurations/temporaryAccessPass";

/// A handle on one tenant's Graph; cheap to clone.
#[derive(Clone)]
pub struct Graph {
    transport: Arc<dyn Transport>,
    limiter: Limiter,
    clock: Clock,
    tally: Arc<CallStats>,
}

/// Why a call brought nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GraphError {
    /// The token was refused or could not be had.
    #[error("{why}")]
    SignIn {
        /// Graph's or the sign-in's own words.
        why: String,
    },
    /// Something on the way lets nothing through, or answers in Graph's place.
    #[error("{why}")]
    Between {
        /// What it is, and what to do about it.
        why: String,
    },
    /// A definite no to `doing`.
    #[error("failed to {doing}: {refusal}")]
    Refused {
        /// What was being done, completing "failed to".
        doing: &'static str,
        refusal: Refusal,
    },
    /// No answer in spite of patience.
    #[error("gave up on Microsoft Graph: {why}")]
    Outage { why: String },
    /// An answer that cannot be read as what it should be.
    #[error("failed to {doing}: the answer does not have the documented shape")]
    Shape {
        /// What was being done, completing "failed to".
        doing: &'static str,
    },
    /// A `nextLink` that leads away from the configured endpoint. The token is not sent there.
    #[error("refused to follow a link to {host}: only {base} is configured")]
    ForeignLink { host: String, base: String },
    /// A listing that does not end within [`limits::MAX_PAGES`].
    #[error("gave up on a listing of more than {max} pages", max = limits::MAX_PAGES)]
    Endless,
}

/// Answers that are asked for until two dates agree. Three that do not are no clock, and this
/// machine's own is the best that can be had.
const MOST_DATES: u32 = 3;

/// Counts every HTTP call and refusal, and knows how Graph's clock differs from ours.
#[derive(Debug, Default)]
struct CallStats {
    requests: AtomicU64,
    throttled: AtomicU64,
    dates: Mutex<Dates>,
    /// What answered in Graph's place, or let nothing through, when it was asked last.
    between: Mutex<Option<String>>,
}

/// What the answers so far say of Graph's clock.
#[derive(Debug, Default)]
struct Dates {
    /// The last date that another one bears out, or this machine's own clock did at first.
    sure: Option<ServerClock>,
    /// One that contradicts it: an answer of a gateway's, whose clock is wrong, or the first after
    /// this machine slept, or where this machine's clock is wrong.
    odd: Option<ServerClock>,
}

impl Dates {
    /// One date alone moves Graph's clock by no more than [`limits::CLOCK_SLACK`].
    fn observe(&mut self, seen: ServerClock) {
        let odd = self.odd.take();
        let agrees =
            |other: &Option<ServerClock>| other.is_some_and(|other| seen.agrees_with(other));
        let borne_out = if self.sure.is_none() { !seen.is_apart() } else { agrees(&self.sure) };
        if borne_out || agrees(&odd) {
            self.sure = Some(seen);
        } else {
            self.odd = Some(seen);
        }
    }
}

/// What Graph's clock showed when its last answer came, and what ours did.
#[derive(Debug, Clone, Copy)]
struct ServerClock {
    date: Timestamp,
    wall: Timestamp,
    instant: Instant,
}

impl ServerClock {
    /// How far Graph's clock is ahead of this machine's.
    fn ahead(self) -> SignedDuration {
        self.date.duration_since(self.wall)
    }

    /// Whether that is too much for an answer's way and the rounding of its date.
    fn is_apart(self) -> bool {
        self.ahead().unsigned_abs() > limits::CLOCK_SLACK
    }

    /// Whether as much time has passed for Graph since as for one of our clocks, of which the
    /// monotonic one may stand still while the machine sleeps.
    fn agrees_with(&self, before: Self) -> bool {
        let graph = self.date.duration_since(before.date);
        let counted = self.instant.saturating_duration_since(before.instant);
        let counted = SignedDuration::try_from(counted).unwrap_or(SignedDuration::MAX);
        let shown = self.wall.duration_since(before.wall);
        [counted, shown]
            .iter()
            .any(|ours| graph.saturating_sub(*ours).unsigned_abs() <= limits::CLOCK_SLACK)
    }
}

impl CallStats {
    fn throttled(&self, count: u64) {
        self.throttled.fetch_add(count, Ordering::Relaxed);
    }

    /// Values that are copied whole: a panic elsewhere does not spoil them.
    fn dates(&self) -> MutexGuard<'_, Dates> {
        self.dates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As for [`CallStats::dates`].
    fn between(&self) -> MutexGuard<'_, Option<String>> {
        self.between.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Graph {
    /// A handle that sends through `transport` when `limiter` lets it.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, limiter: Limiter, clock: Clock) -> Self {
        Self { transport, limiter, clock, tally: Arc::default() }
    }

    /// The limiter, for those who mint an intent between leave and POST.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Graph's own time: its last `Date` header and what the monotonic clock has counted
    /// since, so that no jump of the wall clock moves it. Before the first answer that
    /// another one, or the wall clock, bears out: the wall clock's.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.tally.dates().sure {
            Some(seen) => later(seen.date, self.clock.instant().duration_since(seen.instant)),
            None => self.clock.now(),
        }
    }

    /// Graph's time beside this machine's.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        Clocks { graph: self.now(), machine: self.clock.now() }
    }

    /// Graph's own time, fit to be written down. When our two clocks disagree about how long
    /// ago the last answer was, the machine slept or the wall clock jumped, and Graph is asked.
    ///
    /// # Errors
    /// [`GraphError`], if it had to be asked.
    pub async fn time(&self) -> Result<Timestamp, GraphError> {
        let seen = self.tally.dates().sure;
        let sure = seen.is_some_and(|seen| {
            let counted = self.clock.instant().duration_since(seen.instant);
            let shown = self.clock.now().duration_since(seen.wall);
            let counted = SignedDuration::try_from(counted).unwrap_or(SignedDuration::MAX);
            (shown.saturating_sub(counted)).unsigned_abs() <= limits::CLOCKS_APART
        });
        if !sure {
            self.ask_the_time().await?;
        }
        Ok(self.now())
    }

    /// Asks Graph for its clock, and again where the first answer's date is borne out by nothing.
    /// A refusal tells it too: no leave to read the policy is needed for that.
    ///
    /// # Errors
    /// [`GraphError`], if nobody answers.
    pub async fn ask_the_time(&self) -> Result<(), GraphError> {
        for _ in 0..MOST_DATES {
            match self.policy().await {
                Ok(_) | Err(GraphError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
            if self.tally.dates().odd.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// How far Graph's clock is ahead of this machine's, if that is too much for an answer's way
    /// and the rounding of its `Date`: more than [`limits::CLOCK_SLACK`].
    #[must_use]
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        self.tally.dates().sure.filter(|seen| seen.is_apart()).map(ServerClock::ahead)
    }

    /// The best time that can be had at once: [`Graph::time`] where Graph has answered before, else
    /// the wall clock's. Mail through a relay asks the tenant nothing.
    pub async fn likely_time(&self) -> Timestamp {
        if self.tally.dates().sure.is_none() {
            return self.clock.now();
        }
        self.time().await.unwrap_or_else(|_| self.clock.now())
    }

    /// What stood between us and Graph when it was asked last, if anything did. A request that
    /// may have had an effect tells of it by its doubt alone.
    #[must_use]
    pub fn between(&self) -> Option<String> {
        self.tally.between().clone()
    }

    /// HTTP calls sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.tally.requests.load(Ordering::Relaxed)
    }

    /// Requests refused for throttling so far, those inside a batch each counted.
    #[must_use]
    pub fn throttled(&self) -> u64 {
        self.tally.throttled.load(Ordering::Relaxed)
    }

    /// Reads the tenant's Temporary Access Pass policy.
    pub async fn policy(&self) -> Result<Policy, GraphError> {
        self.read(
            Budget::Directory,
            POLICY.to_owned(),
            false,
            "read the Temporary Access Pass policy",
        )
        .await
    }

    /// Changes the tenant's Temporary Access Pass policy. It names values and not steps, so it
    /// may be sent again when an answer was lost.
    pub async fn patch_policy(&self, patch: &PolicyPatch) -> Result<(), GraphError> {
        let body = wire::patch_body(patch);
        let request = Self::request(Method::Patch, POLICY.to_owned(), Some(body));
        let doing = "change the Temporary Access Pass policy";
        self.repeat(Budget::Directory, &request, doing).await.map(drop)
    }

    /// Looks users up by name, fifteen to a filter and twenty filters to a call. Who does not
    /// exist is absent. Keyed by [`Upn::key`].
    pub async fn users(&self, upns: &[Upn]) -> Result<HashMap<String, User>, GraphError> {
        const DOING: &str = "look up users";
        let requests = upns.chunks(limits::USERS_PER_FILTER).map(|some| {
            let names: Vec<String> =
                some.iter().map(|upn| format!("'{}'", upn.as_str().replace('\'', "''"))).collect();
            let filter = format!("userPrincipalName in ({})", names.join(","));
            BatchedRequest::get(format!(
                "/users?$filter={}&$select={}",
                utf8_percent_encode(&filter, ESCAPED),
                User::SELECT
            ))
        });
        let answers = self.batch(Budget::Directory, requests.collect()).await?;
        let mut users = HashMap::with_capacity(upns.len());
        for answer in answers {
            let page: wire::ListPage<User> = parse(&accept(answer, DOING)?, DOING)?;
            for user in page.value {
                if let Some(name) = &user.user_principal_name {
                    users.insert(name.to_lowercase(), user);
                }
            }
        }
        Ok(users)
    }

    /// What the directory calls each of these users, in the order given; nothing where it does not
    /// know the id.
    pub async fn users_by_id(&self, users: &[UserId]) -> Result<Vec<Option<User>>, GraphError> {
        const DOING: &str = "look up users by their ids";
        let target = |user| format!("/users/{user}?$select={}", User::SELECT);
        let requests = users.iter().map(|user| BatchedRequest::get(target(user))).collect();
        let answers = self.batch(Budget::Directory, requests).await?;
        let read = |answer: BatchedAnswer| match answer {
            Err(refusal) if refusal.status == 404 => Ok(None),
            answer => parse(&accept(answer, DOING)?, DOING).map(Some),
        };
        answers.into_iter().map(read).collect()
    }

    /// The manager of each user, if there is one the directory shows, in the order given.
    pub async fn managers(&self, users: &[UserId]) -> Result<Vec<Option<Manager>>, GraphError> {
        const DOING: &str = "look up managers";
        let target =
            |user| format!("/users/{user}/manager?$select=displayName,mail,preferredLanguage");
        let requests = users.iter().map(|user| BatchedRequest::get(target(user))).collect();
        let answers = self.batch(Budget::Directory, requests).await?;
        let read = |answer: BatchedAnswer| match answer {
            Err(refusal) if refusal.status == 404 => Ok(None),
            answer => parse(&accept(answer, DOING)?, DOING).map(Some),
        };
        answers.into_iter().map(read).collect()
    }

    /// Whether there is a user by this name, which may be an id: `sendMail` finds its mailbox so.
    pub async fn knows_user(&self, name: &str) -> Result<bool, GraphError> {
        let target = format!("/users/{}?$select=id", utf8_percent_encode(name, ESCAPED));
        let found: Result<wire::IdOnly, _> =
            self.read(Budget::Directory, target, false, "look up the sender's mailbox").await;
        match found {
            Ok(_) => Ok(true),
            Err(GraphError::Refused { refusal, .. }) if refusal.status == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The groups that carry this display name; names need not be unique.
    pub async fn groups_named(&self, name: &str) -> Result<Vec<Group>, GraphError> {
        let filter = format!("displayName eq '{}'", name.replace('\'', "''"));
        let target = format!(
            "/groups?$filter={}&$select=id,displayName,visibility",
            utf8_percent_encode(&filter, ESCAPED)
        );
        let page: wire::ListPage<Group> =
            self.read(Budget::Directory, target, false, "look up a group by name").await?;
        Ok(page.value)
    }

    /// The group with this id, if there is one.
    pub async fn group(&self, id: GroupId) -> Result<Option<Group>, GraphError> {
        let target = format!("/groups/{id}?$select=id,displayName,visibility");
        unless_missing(self.read(Budget::Directory, target, false, "look up a group").await)
    }

    /// Which of these groups are not in the directory. One that may not be looked up is not among
    /// them.
    pub async fn missing_groups(&self, groups: &[GroupId]) -> Result<Vec<GroupId>, GraphError> {
        let requests = groups
            .iter()
            .map(|group| BatchedRequest::get(format!("/groups/{group}?$select=id")))
            .collect();
        let answers = self.batch(Budget::Directory, requests).await?;
        let missing = |(answer, group): (BatchedAnswer, &GroupId)| {
            answer.err().filter(|refusal| refusal.status == 404).map(|_| *group)
        };
        Ok(answers.into_iter().zip(groups).filter_map(missing).collect())
    }

    /// How many users are members, through nested groups too, as the directory's index knows.
    /// `None` if there is no such group.
    pub async fn member_count(&self, group: GroupId) -> Result<Option<u64>, GraphError> {
        let target = format!("/groups/{group}/transitiveMembers/microsoft.graph.user/$count");
        let doing = "count the members of a group";
        unless_missing(self.read(Budget::Directory, target, true, doing).await)
    }

    /// Visits every user who is a member, through nested groups too, a page at a time. The
    /// index behind it may lag: confirm an absence with [`Graph::memberships`]. `None` if there is
    /// no such group.
    pub async fn members(
        &self,
        group: GroupId,
        mut visit: impl FnMut(UserId),
    ) -> Result<Option<()>, GraphError> {
        self.list_members(group, "id", |member: wire::IdOnly| visit(member.id)).await
    }

    /// The same with all that [`Graph::users`] gives of each. A list may lag: whoever has a problem
    /// by it is to be asked about by name.
    pub async fn member_users(
        &self,
        group: GroupId,
        visit: impl FnMut(User),
    ) -> Result<Option<()>, GraphError> {
        self.list_members(group, User::SELECT, visit).await
    }

    async fn list_members<M: DeserializeOwned>(
        &self,
        group: GroupId,
        select: &str,
        mut visit: impl FnMut(M),
    ) -> Result<Option<()>, GraphError> {
        let mut target = format!(
            "/groups/{group}/transitiveMembers/microsoft.graph.user?$count=true&$select={select}&$top={}",
            limits::PAGE_SIZE
        );
        for _ in 0..limits::MAX_PAGES {
            let read =
                self.read(Budget::Directory, target, true, "list the members of a group").await;
            let Some(page) = unless_missing::<wire::ListPage<M>>(read)? else { return Ok(None) };
            page.value.into_iter().for_each(&mut visit);
            match page.next_link {
                Some(link) => target = self.follow(&link)?,
                None => return Ok(Some(())),
            }
        }
        Err(GraphError::Endless)
    }

    /// Which of `groups` each user is in, through nested groups too, as of now. A group that Graph
    /// says is not there is left out, and the others are asked about again: its id fails the whole
    /// request.
    pub async fn memberships(
        &self,
        users: &[UserId],
        groups: &[GroupId],
    ) -> Result<Memberships, GraphError> {
        let (mut groups, mut missing) = (groups.to_vec(), Vec::new());
        loop {
            let (of, named) = self.memberships_once(users, &groups).await?;
            if named.is_empty() {
                return Ok(Memberships { of, missing });
            }
            groups.retain(|group| !named.contains(group));
            missing.extend(named);
        }
    }

    /// The answers, and the groups that a refusal names.
    async fn memberships_once(
        &self,
        users: &[UserId],
        groups: &[GroupId],
    ) -> Result<(HashMap<UserId, Membership>, HashSet<GroupId>), GraphError> {
        const DOING: &str = "check the groups of users";
        let mut asked = Vec::new();
        let mut requests = Vec::new();
        for user in users {
            for some in groups.chunks(limits::GROUPS_PER_CHECK) {
                asked.push((*user, some));
                let body = serde_json::json!({ "groupIds": some });
                requests
                    .push(BatchedRequest::ask(format!("/users/{user}/checkMemberGroups"), body));
            }
        }
        let answers = self.batch(Budget::Directory, requests).await?;
        let mut memberships: HashMap<UserId, Membership> = HashMap::new();
        let mut missing = HashSet::new();
        for ((user, some), answer) in asked.into_iter().zip(answers) {
            let held = memberships.entry(user).or_insert_with(|| Ok(HashSet::new()));
            match answer {
                Err(refusal) if matches!(refusal.status, 400 | 404) => {
                    let message = refusal.message.to_lowercase();
                    let named = some.iter().filter(|id| message.contains(&id.to_string()));
                    let before = missing.len();
                    missing.extend(named);
                    if refusal.status == 400 && missing.len() == before {
                        return Err(GraphError::Refused { doing: DOING, refusal });
                    }
                    // Whom a 404 speaks of that names nobody is not known.
                    let is_user = message.contains(&user.to_string());
                    let kind = if is_user { RefusalKind::UserGone } else { RefusalKind::Other };
                    *held = Err(Refusal { kind, ..refusal });
                }
                answer => {
                    let page: wire::ListPage<String> = parse(&accept(answer, DOING)?, DOING)?;
                    if let Ok(held) = held {
                        held.extend(page.value.iter().filter_map(|id| id.parse::<GroupId>().ok()));
                    }
                }
            }
        }
        Ok((memberships, missing))
    }

    /// The pass each user has now, used up and expired ones included: at most one each. A
    /// user whose passes may not be read has the refusal instead.
    pub async fn passes(
        &self,
        users: &[UserId],
    ) -> Result<Vec<Result<Option<FoundPass>, Refusal>>, GraphError> {
        const DOING: &str = "list passes";
        let requests =
            users.iter().map(|user| BatchedRequest::get(format!("{}", PassesOf(*user)))).collect();
        let answers = self.batch(Budget::PassReads, requests).await?;
        let pages = answers
            .into_iter()
            .map(|answer| match answer {
                Ok(body) => {
                    let page: wire::ListPage<FoundPass> = parse(&body, DOING)?;
                    Ok(Ok(page))
                }
                Err(refusal) => Ok(Err(refusal)),
            })
            .collect::<Result<Vec<_>, GraphError>>()?;
        let mut passes = Vec::with_capacity(pages.len());
        for page in pages {
            passes.push(match page {
                Ok(page) => Ok(self.first_of(page, DOING).await?),
                Err(refusal) => Err(refusal),
            });
        }
        Ok(passes)
    }

    /// The first element of a listing, whose first pages may be empty.
    async fn first_of<T: DeserializeOwned>(
        &self,
        mut page: wire::ListPage<T>,
        doing: &'static str,
    ) -> Result<Option<T>, GraphError> {
        for _ in 0..limits::MAX_PAGES {
            match (page.value.into_iter().next(), page.next_link) {
                (Some(first), _) => return Ok(Some(first)),
                (None, None) => return Ok(None),
                (None, Some(link)) => {
                    let target = self.follow(&link)?;
                    page = self.read(Budget::PassReads, target, false, doing).await?;
                }
            }
        }
        Err(GraphError::Endless)
    }

    /// Waits, as long as Graph may need to agree with itself.
    pub async fn pause(&self, wait: Duration) {
        self.clock.sleep(wait).await;
    }

    /// Signs in afresh if the token is about to end: an intent must not grow old over it.
    ///
    /// # Errors
    /// [`Broken::SignIn`], or [`Broken::NotSent`] if the sign-in address is out of reach.
    pub async fn prepare(&self) -> Result<(), Broken> {
        self.transport.prepare().await
    }

    /// Asks for a pass, once. `permit` is the limiter's leave, taken before the intent was
    /// minted; the intent stays with the caller, who owes the ledger an outcome.
    pub async fn create_pass(
        &self,
        intent: &Intent,
        mut permit: Permit,
    ) -> Effect<Box<CreatedPass>, Refusal> {
        let mut request = Self::request(
            Method::Post,
            PassesOf(intent.user()).to_string(),
            Some(wire::create_body(intent.asked())),
        );
        request.client_request_id = intent.client_request_id();
        // The wait for a place on the wire counts too: a resume reckons from the intent how
        // long the attempt can have lasted.
        let attempt = async {
            if permit.depart().await { Some(self.exchange(&request).await) } else { None }
        };
        let verdict = tokio::select! {
            verdict = attempt => verdict,
            () = self.clock.sleep(limits::ATTEMPT_TIMEOUT) => {
                let effect = Effect::Unsettled { why: "no answer came in time".to_owned() };
                Some(Verdict { effect, wait: None, between: None })
            }
        };
        let Some(verdict) = verdict else {
            return Obstacle::new(ObstacleKind::Throttled, HELD_BACK).into();
        };
        self.effect_of(verdict, permit).and_then(|response| {
            match wire::created_pass(&response.body) {
                Some(created) if response.status == 201 => Effect::Done(Box::new(created)),
                _ => {
                    let status = response.status;
                    let why = format!("Graph's answer (HTTP {status}) held no usable pass");
                    Effect::Unsettled { why }
                }
            }
        })
    }

    /// Sends a mail as a mailbox, once; done is a 202, with its request id for Microsoft's support.
    /// `body` is the whole JSON of `sendMail`, `permit` the leave of the mailbox's own limiter.
    pub async fn send_mail(
        &self,
        mailbox: &str,
        body: &[u8],
        permit: Permit,
    ) -> Effect<String, Refusal> {
        let target = format!("/users/{}/sendMail", utf8_percent_encode(mailbox, ESCAPED));
        let request = Self::request(Method::Post, target, Some(body.to_vec()));
        let verdict = self.exchange(&request).await;
        self.effect_of(verdict, permit).and_then(|response| match response.status {
            202 => {
                let id = response.request_id.as_deref().map(shown::plain);
                Effect::Done(id.map_or_else(|| "202".to_owned(), |id| format!("202 {id}")))
            }
            status => {
                let why = format!("Graph answered with HTTP {status} and not 202");
                Effect::Unsettled { why }
            }
        })
    }

    /// What one request came to, which its limiter hears too.
    fn effect_of(&self, verdict: Verdict, permit: Permit) -> Effect<Response, Refusal> {
        match &verdict.effect {
            Effect::Done(_) | Effect::Refused(_) => permit.answered(1, None),
            Effect::NoEffect(obstacle) if obstacle.kind == ObstacleKind::Throttled => {
                self.tally.throttled(1);
                let throttled = Throttled { count: 1, retry_after: verdict.wait };
                permit.answered(0, Some(throttled));
            }
            Effect::NoEffect(_) | Effect::Unsettled { .. } => permit.broken(),
        }
        verdict.effect
    }

    /// Deletes passes by id; repeats until each is answered. In the order given.
    ///
    /// A refusal of the kind [`RefusalKind::MethodGone`] says that Graph does not find that pass
    /// of this user, and may be behind; one of the kind [`RefusalKind::UserGone`] that it does not
    /// find the user, which says nothing about the pass.
    pub async fn delete_passes(
        &self,
        passes: &[(UserId, MethodId)],
    ) -> Result<Vec<Result<(), Refusal>>, GraphError> {
        let mut deletions = Deletions::of(passes);
        self.delete_passes_into(passes, &mut deletions).await?;
        Ok(deletions.0.into_iter().flatten().collect())
    }

    /// The same; what was answered before an error, or before this is dropped, is in `deletions`.
    pub async fn delete_passes_into(
        &self,
        passes: &[(UserId, MethodId)],
        deletions: &mut Deletions,
    ) -> Result<(), GraphError> {
        let requests = passes
            .iter()
            .map(|(user, method)| BatchedRequest::delete(format!("{}/{method}", PassesOf(*user))))
            .collect();
        let keep = |at: usize, answer: BatchedAnswer| {
            if let Some((slot, (_, method))) = deletions.0.get_mut(at).zip(passes.get(at)) {
                let deletion = answer.map(drop).map_err(|refusal| about_the_pass(refusal, method));
                slot.get_or_insert(deletion);
            }
        };
        self.batch_each(Budget::PassWrites, requests, keep).await
    }

    /// Reads one document, repeating until it is answered or patience ends.
    async fn read<T: DeserializeOwned>(
        &self,
        budget: Budget,
        target: String,
        eventual: bool,
        doing: &'static str,
    ) -> Result<T, GraphError> {
        let mut request = Self::request(Method::Get, target, None);
        request.eventual = eventual;
        parse(&self.repeat(budget, &request, doing).await?.body, doing)
    }

    /// Sends what may be sent again until it is answered or patience ends.
    async fn repeat(
        &self,
        budget: Budget,
        request: &Request,
        doing: &'static str,
    ) -> Result<Response, GraphError> {
        let mut patience = RepeatBudget::new();
        loop {
            let permit = self.leave(budget, 1).await?;
            let verdict = self.exchange(request).await;
            let Verdict { wait, ref between, .. } = verdict;
            let between = between.clone();
            let effect = self.effect_of(verdict, permit);
            if let Some(why) = between {
                return Err(GraphError::Between { why });
            }
            match effect {
                Effect::Done(response) => return Ok(response),
                Effect::Refused(refusal) => return Err(GraphError::Refused { doing, refusal }),
                Effect::NoEffect(Obstacle { kind: ObstacleKind::Throttled, .. }) => {
                    self.still_hopeful(budget)?;
                }
                Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, why }) => {
                    return Err(GraphError::SignIn { why });
                }
                Effect::NoEffect(Obstacle { why, .. }) | Effect::Unsettled { why } => {
                    patience.spend(self, why, wait).await?;
                }
            }
        }
    }

    /// Leave to send at once.
    ///
    /// # Errors
    /// [`GraphError::Outage`], if Graph wants to be left alone for too long.
    async fn leave(&self, budget: Budget, count: u32) -> Result<Permit, GraphError> {
        loop {
            let mut permit = self.limiter.admit(budget, count).await.map_err(outage)?;
            if permit.depart().await {
                return Ok(permit);
            }
        }
    }

    /// Refusals are waited out by the limiter, but not for ever.
    ///
    /// # Errors
    /// [`GraphError::Outage`] after [`limits::MAX_OUTAGE`] of nothing but refusals.
    fn still_hopeful(&self, budget: Budget) -> Result<(), GraphError> {
        if self.limiter.is_out(budget) {
            return Err(GraphError::Outage { why: verdict::THROTTLED_THROUGHOUT.to_owned() });
        }
        Ok(())
    }

    fn request(method: Method, target: String, body: Option<Vec<u8>>) -> Request {
        let client_request_id = ClientRequestId::new(Uuid::new_v4());
        Request { method, target, eventual: false, body, client_request_id }
    }

    /// One exchange, counted and judged. A refused token is renewed and tried once more: a
    /// 401 is known to be without effect.
    async fn exchange(&self, request: &Request) -> Verdict {
        let first = self.once(request).await;
        match &first.effect {
            Effect::NoEffect(Obstacle { kind: ObstacleKind::SignIn, .. })
                if self.transport.renew_token().await =>
            {
                self.once(request).await
            }
            _ => first,
        }
    }

    async fn once(&self, request: &Request) -> Verdict {
        self.tally.requests.fetch_add(1, Ordering::Relaxed);
        let exchange = self.transport.exchange(request).await;
        let now = self.clock.now();
        Self::log(request, &exchange);
        let date = exchange.as_ref().ok().and_then(|response| response.date);
        let verdict = verdict::judge(exchange, now);
        // Whoever answers in Graph's place has a clock of its own.
        if let Some(date) = date.filter(|_| verdict.between.is_none()) {
            let seen = ServerClock { date, wall: now, instant: self.clock.instant() };
            self.tally.dates().observe(seen);
        }
        self.tally.between().clone_from(&verdict.between);
        verdict
    }

    /// Method, path with names shortened, status and request id; never a header or a body.
    fn log(request: &Request, exchange: &Result<Response, Broken>) {
        let method = request.method.as_str();
        let path = shown_path(&request.target);
        let id = request.client_request_id;
        match exchange {
            Ok(response) => tracing::debug!(
                method,
                path,
                status = response.status,
                request_id = response.request_id.as_deref().map(shown::plain),
                client_request_id = %id,
            ),
            Err(broken) => tracing::debug!(method, path, %broken, client_request_id = %id),
        }
    }

    /// A `nextLink` as a target, if it stays at the configured endpoint.
    fn follow(&self, link: &str) -> Result<String, GraphError> {
        let base = self.transport.base();
        match link.strip_prefix(base) {
            Some(target) if target.starts_with('/') => Ok(target.to_owned()),
            _ => {
                let host = link.split('/').nth(2).unwrap_or(link);
                Err(GraphError::ForeignLink { host: shown::plain(host), base: base.to_owned() })
            }
        }
    }
}

/// The groups a user is in, or the 404 that keeps them unknown: of the kind
/// [`RefusalKind::UserGone`] if it names the user.
pub type Membership = Result<HashSet<GroupId>, Refusal>;

/// What [`Graph::memberships`] found.
#[derive(Debug, Default)]
pub struct Memberships {
    pub of: HashMap<UserId, Membership>,
    /// Groups that are not in the directory.
    pub missing: Vec<GroupId>,
}

/// How often and how long a repeatable request is repeated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RepeatBudget {
    attempts: u32,
}

impl RepeatBudget {
    const fn new() -> Self {
        Self { attempts: 0 }
    }

    /// Waits before the next attempt, as long as Graph has asked for or longer.
    ///
    /// # Errors
    /// [`GraphError::Outage`] after [`limits::MAX_READ_ATTEMPTS`].
    async fn spend(
        &mut self,
        graph: &Graph,
        why: String,
        asked: Option<Duration>,
    ) -> Result<(), GraphError> {
        self.attempts += 1;
        if self.attempts >= limits::MAX_READ_ATTEMPTS {
            return Err(GraphError::Outage { why });
        }
        if let Some(wait) = asked.filter(|wait| *wait > limits::MAX_RETRY_AFTER) {
            return Err(outage(NotAdmitted::within(&graph.clock, wait)));
        }
        let doubled =
            exponential(limits::READ_BACKOFF, self.attempts - 1, limits::MAX_READ_BACKOFF);
        let wait = asked.unwrap_or(Duration::ZERO).max(doubled);
        graph.clock.sleep(wait).await;
        Ok(())
    }
}

/// What Graph answered to the DELETE of each pass, so far.
#[derive(Debug)]
pub struct Deletions(pub Vec<Option<Result<(), Refusal>>>);

impl Deletions {
    /// Nothing is answered yet.
    #[must_use]
    pub fn of(passes: &[(UserId, MethodId)]) -> Self {
        Self(passes.iter().map(|_| None).collect())
    }
}

/// A user's passes, as a path.
struct PassesOf(UserId);

impl std::fmt::Display for PassesOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/users/{}/authentication/temporaryAccessPassMethods", self.0)
    }
}

/// A target for the log: no query, and ids cut to their first eight characters.
fn shown_path(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let short = path.split('/').map(|part| {
        if part.len() > 8 && part.contains(['-', '@', '%']) {
            format!("{}…", part.chars().take(8).collect::<String>())
        } else {
            part.to_owned()
        }
    });
    short.collect::<Vec<_>>().join("/")
}

/// A refused DELETE, with whom its 404 speaks of: the pass or the user. The shape of that 404 is
/// not documented; one that names the pass's id, or a method, is taken for the pass's.
fn about_the_pass(mut refusal: Refusal, method: &MethodId) -> Refusal {
    if refusal.status == 404 {
        let names_the_pass =
            refusal.kind != RefusalKind::UserGone || refusal.message.contains(method.as_str());
        refusal.kind = if names_the_pass { RefusalKind::MethodGone } else { RefusalKind::UserGone };
    }
    refusal
}

fn outage(barred: NotAdmitted) -> GraphError {
    GraphError::Outage { why: barred.to_string() }
}

/// A 404 to a call about one group speaks of that group.
fn unless_missing<T>(read: Result<T, GraphError>) -> Result<Option<T>, GraphError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(GraphError::Refused { refusal, .. }) if refusal.status == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

fn accept(
    answer: BatchedAnswer,
    doing: &'static str,
) -> Result<zeroize::Zeroizing<Vec<u8>>, GraphError> {
    answer.map_err(|refusal| GraphError::Refused { doing, refusal })
}

fn parse<T: DeserializeOwned>(body: &[u8], doing: &'static str) -> Result<T, GraphError> {
    // `$count` answers may begin with a byte order mark.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).map_err(|_| GraphError::Shape { doing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_no_whole_name_and_no_query() {
        let shown =
            shown_path("/users/ada.lovelace@contoso.example/authentication/x?$filter=secret");
        assert_eq!(shown, "/users/ada.love…/authentication/x");
    }
}
