//! Promises that everything a simulated tenant may do to us is one value, with one seed, that
//! can be written down and read back. Must never hold state: the same options make the same
//! tenant again.

use std::time::Duration;

use jiff::SignedDuration;
use jiff::fmt::serde::unsigned_duration::friendly::compact as spell;
use serde::{Deserialize, Serialize};
pub use tapwave_graph::quota::Limit;

/// How a simulated tenant behaves. The default is kind: no limit, no fault, no latency.
#[expect(clippy::struct_excessive_bools, reason = "each switches a behaviour of its own")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Decides every choice that is left to chance.
    pub seed: u64,
    /// Origin and base path that the tenant believes to be at; its `nextLink`s begin with it.
    pub base: String,
    /// What a POST does to a user who has a pass.
    pub second_post: SecondPost,
    /// How much of what may be asked.
    pub throttles: Throttles,
    pub faults: Faults,
    /// How long a whole round trip takes.
    pub latency: Latency,
    /// How far the replicas that answer for passes are behind.
    pub replication: Replication,
    /// What other people do with passes that were asked for.
    pub interventions: Vec<Intervention>,
    /// The caller's token is of another tenant, at the same address: of these users and groups
    /// nobody is known.
    pub another_tenant: bool,
    /// Leaves `isUsable` out of every pass, as some tenants do.
    pub omit_is_usable: bool,
    /// Users added through [`crate::Tenant::hire`] answer 404 for so long.
    #[serde(with = "spell::required")]
    pub appear_delay: Duration,
    /// Group listings show the memberships of so long ago; `checkMemberGroups` does not lag.
    #[serde(with = "spell::required")]
    pub membership_lag: Duration,
    /// `checkMemberGroups` answers 404 to a request that names a group which is not there, and
    /// says which; otherwise it leaves that one out without a word.
    pub missing_group_fails: bool,
    /// Writes `null` in place of every empty list, as the metadata allows.
    pub null_lists: bool,
    /// A pass cannot be signed in with before it is so old.
    #[serde(with = "spell::required")]
    pub works_after: Duration,
    /// What codes look like.
    pub code_style: CodeStyle,
    /// Most objects on one page, whatever `$top` asks; Graph's own bound is 999.
    pub page_size: usize,
    /// Puts an empty page with a `nextLink` before each full one: legal, and rarely handled.
    pub empty_pages: bool,
    /// Where a `nextLink` leads.
    pub next_link: NextLink,
    /// Refuses to create a pass for a user outside the policy, as reported of today's tenants.
    /// Otherwise the pass is made and does not work, as documented.
    pub refuse_outside_policy: bool,
    /// How far the tenant's clock is ahead of the caller's.
    pub clock_offset: SignedDuration,
    /// How far the `Date` of its answers is ahead of the clock by which the tenant makes passes.
    pub date_offset: SignedDuration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            base: "https://graph.microsoft.com/v1.0".into(),
            second_post: SecondPost::default(),
            throttles: Throttles::default(),
            faults: Faults::default(),
            latency: Latency::default(),
            replication: Replication::default(),
            interventions: Vec::new(),
            another_tenant: false,
            omit_is_usable: false,
            appear_delay: Duration::ZERO,
            membership_lag: Duration::ZERO,
            missing_group_fails: false,
            null_lists: false,
            works_after: Duration::ZERO,
            code_style: CodeStyle::default(),
            page_size: tapwave_core::limits::PAGE_SIZE,
            empty_pages: false,
            next_link: NextLink::default(),
            refuse_outside_policy: true,
            clock_offset: SignedDuration::ZERO,
            date_offset: SignedDuration::ZERO,
        }
    }
}

impl Options {
    /// The kind tenant of a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// What a POST does to a user who has a pass already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecondPost {
    /// The new pass takes the old one's place, as documented.
    #[default]
    Replaces,
    /// It is refused until the old one is deleted, as some users report.
    Rejected,
}

/// What the codes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CodeStyle {
    /// Letters, digits and a few signs, as Microsoft's sample `+drkzqAD`.
    #[default]
    Plain,
    /// Begins with what a spreadsheet takes for a formula, holds quotes, commas, semicolons,
    /// mark-up and template braces.
    Nasty,
}

/// Where a `nextLink` leads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NextLink {
    /// To the tenant itself.
    #[default]
    Home,
    /// To this origin and base path instead: a client that follows gives its token away.
    Elsewhere(String),
}

/// Bounds of a round trip, or of a replica's delay; each is drawn evenly between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The shortest.
    #[serde(with = "spell::required")]
    pub least: Duration,
    /// The longest.
    #[serde(with = "spell::required")]
    pub most: Duration,
}

impl Latency {
    /// Every round trip takes `time`.
    #[must_use]
    pub const fn of(time: Duration) -> Self {
        Self { least: time, most: time }
    }

    /// Each takes another time, up to `most`.
    #[must_use]
    pub const fn up_to(most: Duration) -> Self {
        Self { least: Duration::ZERO, most }
    }

    /// One of them. The dice stay where they are when nothing is left to chance.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Duration {
        let spread = self.most.saturating_sub(self.least);
        if spread.is_zero() {
            return self.least;
        }
        self.least + spread.mul_f64(rng.f64())
    }
}

/// How far the replicas that answer for passes are behind the truth, on the tenant's clock.
/// Each delay is drawn once for each pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Replication {
    /// After it was made, a pass is missing from the list, and from GET by its id, for so long.
    pub unlisted_after_create: Latency,
    /// After it was deleted or replaced, it is listed for so long, unless a newer one is.
    pub listed_after_end: Latency,
    /// After it was made, DELETE by its id answers 404 for so long, naming the pass.
    pub unknown_after_create: Latency,
    /// After it was deleted, [`SecondPost::Rejected`] goes by it for so long.
    pub rejects_after_end: Latency,
}

/// Somebody else, at the helpdesk or on another machine, who acts on passes made by POST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervention {
    /// Whose passes, by UPN or id; everybody's when empty.
    #[serde(default)]
    pub users: Vec<String>,
    /// How many of them, from 0, none, to 1, all.
    #[serde(default = "always")]
    pub probability: f64,
    /// How long after the pass was made.
    #[serde(with = "spell::required")]
    pub after: Duration,
    /// What is done, if the pass is still there.
    pub act: Act,
}

/// What is done to a pass by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Act {
    /// A pass of theirs takes its place.
    Replace,
    /// It is deleted.
    Delete,
    /// The policy excludes its user, so that it says `DisabledByPolicy`.
    Disable,
}

fn always() -> f64 {
    1.0
}

/// The limits, one for each budget that Graph is known or feared to keep apart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttles {
    /// POST and DELETE of passes; one unit a request.
    pub pass_writes: Throttle,
    /// GET of passes; one unit a request.
    pub pass_reads: Throttle,
    /// Users, groups and the policy, in Graph's resource units: 1 for a user or the policy, 2
    /// for a filter, 4 for `checkMemberGroups`, 5 for `transitiveMembers`.
    pub directory: Throttle,
    /// Messages; one unit each.
    pub mail: Throttle,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Throttle {
    pub limit: Limit,
    /// How a refusal tells when to come back.
    pub retry_after: RetryAfter,
    /// Requests that were refused do not use up the quota. Graph's do, so the default is no.
    pub refused_are_free: bool,
    /// Units a second that somebody else takes from the same quota.
    pub competing: f64,
    /// A limit that takes this one's place.
    pub later: Option<Later>,
    /// Tells the load above 80 % in `x-ms-throttle-limit-percentage`.
    pub tell_load: bool,
}

impl Throttle {
    /// This limit, with whole seconds in `Retry-After`.
    #[must_use]
    pub fn of(limit: Limit) -> Self {
        Self { limit, ..Self::default() }
    }
}

/// A limit from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Later {
    /// Counted from the budget's first request.
    #[serde(with = "spell::required")]
    pub after: Duration,
    pub limit: Limit,
}

/// How a refusal tells when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryAfter {
    /// Whole seconds, rounded up, at least one.
    #[default]
    Seconds,
    /// Seconds with a fraction, rounded up to the millisecond.
    Fraction,
    /// An HTTP date on the tenant's clock.
    Date,
    /// Always the same, however short the limit's own wait is.
    Always { seconds: u32 },
    /// Not at all.
    Absent,
}

/// The calls that faults are aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Call {
    /// POST of a pass.
    Issue,
    /// DELETE of a pass.
    Remove,
    /// GET of a user's passes, or of one.
    Look,
    /// GET of the policy.
    ReadPolicy,
    /// PATCH of the policy.
    WritePolicy,
    /// GET of users, one or many, or of a manager.
    Users,
    /// GET of groups and their members.
    Groups,
    /// POST of `checkMemberGroups`.
    CheckGroups,
    /// POST of `sendMail`.
    Mail,
    /// POST of `$batch`, besides what happens to each request in it.
    Batch,
    /// A path the tenant does not know.
    Unknown,
}

impl Call {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Issue,
        Self::Remove,
        Self::Look,
        Self::ReadPolicy,
        Self::WritePolicy,
        Self::Users,
        Self::Groups,
        Self::CheckGroups,
        Self::Mail,
        Self::Batch,
        Self::Unknown,
    ];
}

/// What breaks, by chance or by count. An aimed fault goes before one by chance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Drawn for every request, in order; the first that hits is taken.
    pub chances: Vec<Chance>,
    /// Faults for certain requests.
    pub aimed: Vec<Aim>,
}

/// A fault with a probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// The calls it may hit; any when left out.
    #[serde(default)]
    pub on: Option<Call>,
    /// From 0, never, to 1, always.
    #[serde(default = "always")]
    pub probability: f64,
    pub fault: Fault,
    /// The users whose calls it may hit, by UPN or id; any when empty.
    #[serde(default)]
    pub users: Vec<String>,
    /// It ends so long after the first call that it may hit; never when left out.
    #[serde(default, with = "spell::optional")]
    pub lasts: Option<Duration>,
}

impl Chance {
    /// A fault that hits `on` with a probability; every call when `on` is none.
    #[must_use]
    pub fn new(on: impl Into<Option<Call>>, probability: f64, fault: Fault) -> Self {
        Self { on: on.into(), probability, fault, users: Vec::new(), lasts: None }
    }

    /// It hits the calls about these users alone.
    #[must_use]
    pub fn about<U: Into<String>>(self, users: impl IntoIterator<Item = U>) -> Self {
        Self { users: users.into_iter().map(Into::into).collect(), ..self }
    }

    /// It ends so long after the first call that it may hit.
    #[must_use]
    pub fn lasting(self, lasts: Duration) -> Self {
        Self { lasts: Some(lasts), ..self }
    }
}

/// A fault for one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aim {
    /// The call it hits.
    pub on: Call,
    /// Which one, counted from 1 over all that reach the tenant, refused ones included.
    pub nth: u64,
    pub fault: Fault,
}

impl Faults {
    /// Adds a fault that hits `on` with a probability; every call when `on` is none.
    #[must_use]
    pub fn with(self, on: impl Into<Option<Call>>, probability: f64, fault: Fault) -> Self {
        self.also(Chance::new(on, probability, fault))
    }

    /// Adds a fault by chance.
    #[must_use]
    pub fn also(mut self, chance: Chance) -> Self {
        self.chances.push(chance);
        self
    }

    /// Adds a fault that hits the `nth` request of a kind, counted from 1.
    #[must_use]
    pub fn at(mut self, on: Call, nth: u64, fault: Fault) -> Self {
        self.aimed.push(Aim { on, nth, fault });
        self
    }
}

/// One thing that can happen to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// It never reaches the tenant, and the caller knows. A wire server closes the connection.
    Unreachable,
    /// It is lost on its way: no effect, no answer.
    LostBefore,
    /// It has its effect and the answer is lost.
    LostAfter,
    /// It has its effect and the connection breaks in the middle of the answer's body.
    Truncated,
    /// It has its effect and the answer's body arrives whole but cut short: not JSON.
    Garbled,
    /// The caller gives up, and the request has its effect so long after that.
    Late {
        /// From the caller's giving up to the effect.
        #[serde(with = "spell::required")]
        by: Duration,
    },
    /// A server error.
    Failing {
        /// 500, 502, 503 or 504.
        status: u16,
        /// It has its effect all the same.
        effect: bool,
        /// `Retry-After`, verbatim.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Somebody on the way answers in the tenant's place, and passes nothing on: a proxy, a portal.
    Page { status: u16, body: String },
    /// 429 without a cause that the caller could see.
    Throttled {
        /// `Retry-After`, verbatim.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// 401: the access token has expired.
    TokenExpired,
    /// 403: the caller lacks the permission.
    Forbidden,
    /// 404 for a user who exists, from a replica that does not know the user.
    UserUnknown,
    /// 404 for a pass that exists, from a replica that does not know the pass; of calls that
    /// name one.
    MethodUnknown,
    /// An empty list, from a replica that knows none of the objects.
    Unlisted,
    /// The list does not say when its objects were made.
    Undated,
    /// The first page of a list is empty, and leads on to the next.
    EmptyPage,
    /// A gateway dates the answer, and its clock is wrong.
    Dated {
        /// By how many seconds it is ahead; behind, if negative.
        ahead: i64,
    },
    /// A gateway executes it a second time, so long after the first; the answer is the first's.
    Twice {
        /// From the first execution to the second.
        #[serde(with = "spell::required")]
        by: Duration,
    },
    /// The 201 of a pass carries an id that no list will show.
    OtherId {
        /// DELETE by that id works all the same; else it answers 404.
        deletable: bool,
    },
}
