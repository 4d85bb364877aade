//! Promises that a row becomes a [`Candidate`] only after Graph showed that a pass can be issued to
//! that person and will work.
//!
//! Reads in batches, changes nothing. A [`Problem`] makes one row ineligible; a [`Warning`] is
//! about the wave. Both have texts for people.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::wave::RowOptions;
use tapwave_core::clock::{apart, later, span};
use tapwave_core::ids::{GroupId, Line, MethodId, Upn, UserId};
use tapwave_core::limits;
use tapwave_core::shown::{self, plain};
use tapwave_graph::verdict::{Refusal, RefusalKind};
use tapwave_graph::{FoundPass, Graph, GraphError, Manager, Membership, Policy, Target, User};
use tapwave_ledger::{
    Asked, Eligible, Existing, LedgerError, PolicyRecord, Reader, RowPerson, RowRecord, RunOptions,
    State, To,
};
use tapwave_mail::template::{BadMailbox, Mailbox, Mode};

/// Which runs of this machine issued these passes, by name.
pub type Issuers = Arc<dyn Fn(&[MethodId]) -> HashMap<MethodId, String> + Send + Sync>;

/// The policy's bounds where Graph leaves them out (documented defaults).
const DEFAULT_BOUNDS: (u32, u32, u32) = (60, 480, 60);

/// The policy's lists.
const INCLUDE: &str = "include";
const EXCLUDE: &str = "exclude";

/// A row that may get a pass: made by the check, or restored from its durable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    line: Line,
    upn: String,
    display_name: Option<String>,
    user: UserId,
    asked: Asked,
    set: u32,
}

impl Candidate {
    pub fn restore(record: &RowRecord) -> Result<Self, LedgerError> {
        if !matches!(record.state, State::Checked { .. }) {
            return Err(record.lacks("it does not wait for a pass"));
        }
        let RowPerson { user, display_name, asked, set } = record.person()?;
        Ok(Self {
            line: record.line,
            upn: record.upn.clone(),
            display_name: display_name.map(ToOwned::to_owned),
            user,
            asked: asked.clone(),
            set,
        })
    }

    pub const fn line(&self) -> Line {
        self.line
    }

    pub fn upn(&self) -> &str {
        &self.upn
    }

    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_deref()
    }

    pub const fn user(&self) -> UserId {
        self.user
    }

    pub const fn set(&self) -> u32 {
        self.set
    }

    /// What to ask for at this moment. A start that has passed is left out, and the lifetime
    /// shortened to the planned end.
    pub fn asked_at(&self, now: Timestamp, min_lifetime: u32) -> Result<Asked, TooLate> {
        let soon = later(now, limits::START_MARGIN);
        let Some(start) = self.asked.start.filter(|start| *start <= soon) else {
            return Ok(self.asked.clone());
        };
        let end = later(start, minutes(self.asked.lifetime_minutes));
        let left = u32::try_from(span(now, end).as_secs() / 60).unwrap_or(u32::MAX);
        let left = left.min(self.asked.lifetime_minutes);
        if left < min_lifetime {
            return Err(TooLate { end });
        }
        Ok(Asked { start: None, lifetime_minutes: left, one_time: self.asked.one_time })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its pass would have ended at {end}, too soon for the policy's shortest lifetime; give the row a later start"
)]
pub struct TooLate {
    end: Timestamp,
}

#[derive(Debug, Clone)]
pub struct Subject {
    pub line: Line,
    pub upn: Upn,
    pub wanted: RowOptions,
    pub set: u32,
    /// Whether the row had no intent yet, so that `--existing skip` may skip it.
    pub untried: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Eligible(Box<Eligible>),
    Ineligible(Vec<Problem>),
    /// It has a live pass, and `--existing skip` applies.
    HasPass(MethodId),
    /// Another open run has claimed the person, and `--existing skip` applies.
    Claimed {
        run: String,
    },
}

/// Why a row must not get a pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("no such user in the tenant; a user made minutes ago may not be visible yet")]
    NoSuchUser,
    #[error(
        "is another account than at the first check: it was made anew, or somebody else has the name now; issue to it from a new wave"
    )]
    OtherAccount,
    #[error("the account is disabled; enable it first")]
    Disabled,
    #[error("is an external guest, who cannot have a pass")]
    Guest,
    #[error("is in no group that the Temporary Access Pass policy includes")]
    NotIncluded,
    #[error("is excluded by the Temporary Access Pass policy")]
    Excluded,
    #[error("the groups of this user cannot be read: {why}; check again in a while")]
    GroupsUnread { why: String },
    #[error("is not in the group {group}")]
    NotInGroup { group: String },
    /// The group may hide its members from this token.
    #[error(
        "cannot be seen in the group {group}, which hides its members; grant Member.Read.Hidden, or name another group"
    )]
    NotSeenInGroup { group: String },
    #[error("asks for {asked} minutes; the policy allows {min} to {max}")]
    Lifetime { asked: u32, min: u32, max: u32 },
    #[error("asks for a multi-use pass; the policy allows one-time passes alone")]
    MultiUse,
    #[error(
        "would start at {start} and, by Graph's clock, be over before it can be used; give it a later start"
    )]
    Over { start: Timestamp },
    #[error("has a live pass already{run}; use --existing skip to leave it, or replace to replace it", run = issuer.as_ref().map(|run| format!(", issued by run {run}")).unwrap_or_default())]
    HasPass { issuer: Option<String> },
    #[error(
        "is claimed by run {run}, which is still open, or was while this check looked; finish that run with resume, or close it with cleanup, then check again"
    )]
    Claimed { run: String },
    #[error("is the same user as line {first}; remove one of the two")]
    SameUser { first: Line },
    #[error(
        "has no mail address{purpose} in {tried}; give it one there, or add another place to {flag}",
        purpose = if *flag == NOTICE_TO { " for its notice" } else { "" }
    )]
    NoAddress { tried: String, flag: &'static str },
    #[error("its mail address from {place}: the address {why}")]
    BadAddress { place: &'static str, why: BadMailbox },
    #[error("{why}")]
    Letter { why: String },
    #[error("the passes of this user cannot be read: {why}")]
    Unreadable { why: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "Graph's clock and this machine's differ by {}: Graph's is {}; start times are judged by Graph's, and lost answers settled by it, so set the clock that is wrong",
    apart(*ahead), if ahead.is_negative() { "behind" } else { "ahead" }
)]
pub struct ClocksApart {
    /// How far Graph's is ahead.
    pub ahead: SignedDuration,
}

/// Something odd about the wave that does not stop it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error(
        "{rows} of the passes work once only; a device enrolment asks for the pass again after its reboots, so such a wave needs --multi-use"
    )]
    OneTime { rows: u64 },
    #[error(transparent)]
    Clocks(#[from] ClocksApart),
    #[error(
        "{rows} of the start times have passed by Graph's clock; those passes start at once and keep their planned end"
    )]
    StartsPast { rows: u64 },
    #[error(
        "the first and the last start are {hours} h apart, more than the shortest lifetime of {lifetime} min; passes that start early are over before the others begin"
    )]
    Span { hours: u64, lifetime: u32 },
    #[error(
        "at the slowest rate Microsoft documents for this (5 per 10 s) issuing takes {forecast} min, longer than the shortest lifetime of {lifetime} min; hand passes on while the run goes, or raise --lifetime"
    )]
    Slow { forecast: u64, lifetime: u32 },
    #[error(
        "{rows} of the passes would go to the mailbox of the very person who may need the pass to open it; --to manager or other-mail reaches somebody who can read it"
    )]
    OwnMailbox { rows: u64 },
    #[error(
        "{rows} of the notices would go to the mailbox of the very person who may need the pass to open it, and be read too late; other-mail or the column deliverTo reaches them before"
    )]
    OwnNotice { rows: u64 },
    #[error(
        "{rows} of the notices would go to the address that gets the pass itself; name another place with --notice-to"
    )]
    NoticeToHolder { rows: u64 },
    #[error(
        "the policy {list}s the group {group}, which is not in the directory: deleted, or made minutes ago; the others count as before; tapwave policy {list} {group} --remove takes it off"
    )]
    MissingGroup {
        group: GroupId,
        /// `include` or `exclude`.
        list: &'static str,
    },
    #[error(
        "the policy includes everyone in the tenant; a target group would narrow who can have a pass"
    )]
    Everyone,
}

#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(
        "the Temporary Access Pass policy of this tenant is disabled, so nobody could use a pass"
    )]
    PolicyDisabled,
    #[error("the Temporary Access Pass policy includes nobody, so nobody could use a pass")]
    NobodyIncluded,
    #[error(
        "the Temporary Access Pass policy includes no group that is in the directory ({}), so nobody could use a pass",
        groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    OnlyMissingGroups { groups: Vec<GroupId> },
    #[error("the policy or --group names groups, and the token may not read them")]
    GroupsUnreadable,
    #[error("there is no group {group}")]
    NoSuchGroup { group: String },
    #[error("{count} groups are named {group}; give the id of the one that is meant")]
    AmbiguousGroup { group: String, count: usize },
    #[error("the policy and --group name more than {max} groups", max = limits::MAX_GROUPS)]
    TooManyGroups,
}
/// What the check has to know before it looks at rows.
#[derive(Debug)]
pub struct Check {
    policy: PolicyRecord,
    options: RunOptions,
    everyone: bool,
    included: Targets,
    excluded: Targets,
    required: Vec<RequiredGroup>,
    /// Groups of the policy that are not in the directory, each with its list.
    missing: Vec<(GroupId, &'static str)>,
    /// The sorted members of groups that were cheaper to list than to ask about. The list may lag.
    listed: HashMap<GroupId, Vec<UserId>>,
    /// The members that those lists described, by [`Upn::key`], until their row is checked.
    preloaded: HashMap<String, User>,
    counts: WarningCounts,
    seen: HashMap<UserId, Line>,
}

#[derive(Debug)]
pub struct RequiredGroup {
    pub id: GroupId,
    name: String,
    /// `checkMemberGroups` may leave it out silently.
    hidden: bool,
}

#[derive(Debug, Default)]
struct Targets {
    groups: Vec<GroupId>,
    users: Vec<UserId>,
}

#[derive(Debug, Default)]
struct WarningCounts {
    eligible: u64,
    one_time: u64,
    own_mailbox: u64,
    own_notice: u64,
    notice_to_holder: u64,
    starts_past: u64,
    first_start: Option<Timestamp>,
    last_start: Option<Timestamp>,
    shortest: Option<u32>,
}

impl Check {
    /// Reads the policy and resolves the groups. The number of `rows` decides whether listing a
    /// group is cheaper than asking about each row. Unless `may_read_groups`, a policy that names
    /// groups is an error, before any call that reads them.
    pub async fn prepare(
        graph: &Graph,
        options: &RunOptions,
        rows: u64,
        may_read_groups: bool,
    ) -> Result<Self, CheckError> {
        let policy = graph.policy().await?;
        if !policy.state.as_deref().is_some_and(|state| state.eq_ignore_ascii_case("enabled")) {
            return Err(CheckError::PolicyDisabled);
        }
        let everyone = policy.include_targets.iter().any(Target::is_everyone);
        let included = Targets::of(&policy.include_targets);
        let excluded = Targets::of(&policy.exclude_targets);
        if !everyone && included.is_empty() {
            return Err(CheckError::NobodyIncluded);
        }
        let grouped = !everyone && !included.groups.is_empty()
            || !excluded.groups.is_empty()
            || !options.groups.is_empty();
        if grouped && !may_read_groups {
            return Err(CheckError::GroupsUnreadable);
        }
        let mut required = Vec::new();
        for wanted in &options.groups {
            required.push(resolve(graph, wanted).await?);
        }
        let mut check = Self {
            policy: bounds(&policy),
            options: options.clone(),
            everyone,
            included,
            excluded,
            required,
            missing: Vec::new(),
            listed: HashMap::new(),
            preloaded: HashMap::new(),
            counts: WarningCounts::default(),
            seen: HashMap::with_capacity(usize::try_from(rows).unwrap_or_default()),
        };
        if check.groups().len() > limits::MAX_GROUPS {
            return Err(CheckError::TooManyGroups);
        }
        check.drop_missing(&graph.missing_groups(&check.groups()).await?);
        if !check.everyone && check.included.is_empty() {
            let groups = check.missing.iter().filter(|(_, list)| *list == INCLUDE);
            let groups = groups.map(|(group, _)| *group).collect();
            return Err(CheckError::OnlyMissingGroups { groups });
        }
        check.list_if_cheaper(graph, rows).await?;
        Ok(check)
    }

    /// Drops groups that are not in the directory from the policy's lists.
    fn drop_missing(&mut self, missing: &[GroupId]) {
        let lists = [(&mut self.included, INCLUDE), (&mut self.excluded, EXCLUDE)];
        for (targets, list) in lists {
            targets.groups.retain(|group| {
                let gone = missing.contains(group);
                if gone {
                    self.missing.push((*group, list));
                }
                !gone
            });
        }
    }

    pub const fn policy(&self) -> PolicyRecord {
        self.policy
    }

    /// Looks up the people of some rows, at most [`limits::ROWS_PER_CHECK`] to fill the batches, and
    /// all that the directory says of them. In the order of the wave: of two rows for one person,
    /// the first is right.
    pub async fn look_up(
        &mut self,
        graph: &Graph,
        subjects: Vec<Subject>,
    ) -> Result<KnownRows, GraphError> {
        let (mut users, upns) = self.take_preloaded(&subjects);
        users.extend(graph.users(&upns).await?);
        let now = graph.now();
        let known = |subject: Subject| CheckedRow {
            user: users.get(&subject.upn.key()).cloned(),
            asked: self.asked(&subject.wanted),
            subject,
            problems: Vec::new(),
            reader: None,
            notice_reader: None,
        };
        let mut rows: Vec<CheckedRow> = subjects.into_iter().map(known).collect();
        for row in &mut rows {
            self.check_locally(row, now);
        }
        self.check_groups(graph, &mut rows).await?;
        self.find_readers(graph, &mut rows).await?;
        Ok(KnownRows { rows, now, passes: HashMap::new() })
    }

    /// Reads the passes of the rows that are good so far. `--existing replace` reads nothing.
    /// Nothing of the check changes, so that several pages of rows are read side by side.
    pub fn read_passes(
        &self,
        graph: &Graph,
        mut known: KnownRows,
    ) -> impl Future<Output = Result<KnownRows, GraphError>> + use<> {
        let (graph, reads) = (graph.clone(), self.options.existing != Existing::Replace);
        async move {
            if reads {
                known.passes = live_passes(&graph, &known.rows).await?;
            }
            Ok(known)
        }
    }

    /// What is found of each row. `issuers` names the runs of this machine that issued passes.
    pub fn conclude(&mut self, known: KnownRows, issuers: &Issuers) -> Vec<(Line, Finding)> {
        let KnownRows { rows, now, passes } = known;
        let found = passes.values().flatten().flatten();
        let live: Vec<MethodId> =
            found.filter(|pass| pass.is_live(now)).map(|pass| pass.id.clone()).collect();
        let issuers = if live.is_empty() { HashMap::new() } else { issuers(&live) };
        let finding =
            |row: CheckedRow| (row.subject.line, self.finding(row, &passes, now, &issuers));
        rows.into_iter().map(finding).collect()
    }

    pub fn warnings(&self, graph: &Graph) -> Vec<Warning> {
        let counts = &self.counts;
        let mut warnings = Vec::new();
        warnings.extend(graph.clock_ahead().map(|ahead| ClocksApart { ahead }.into()));
        if self.everyone && self.options.groups.is_empty() {
            warnings.push(Warning::Everyone);
        }
        let missing = |&(group, list): &(GroupId, _)| Warning::MissingGroup { group, list };
        warnings.extend(self.missing.iter().map(missing));
        if counts.one_time > 0 {
            warnings.push(Warning::OneTime { rows: counts.one_time });
        }
        if counts.own_mailbox > 0 {
            warnings.push(Warning::OwnMailbox { rows: counts.own_mailbox });
        }
        if counts.own_notice > 0 {
            warnings.push(Warning::OwnNotice { rows: counts.own_notice });
        }
        if counts.notice_to_holder > 0 {
            warnings.push(Warning::NoticeToHolder { rows: counts.notice_to_holder });
        }
        if counts.starts_past > 0 {
            warnings.push(Warning::StartsPast { rows: counts.starts_past });
        }
        if let (Some(first), Some(last), Some(lifetime)) =
            (counts.first_start, counts.last_start, counts.shortest)
        {
            let between = span(first, last);
            if between > minutes(lifetime) {
                warnings.push(Warning::Span { hours: between.as_secs().div_ceil(3600), lifetime });
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "at most a million rows")]
        let slowest =
            Duration::from_secs_f64(counts.eligible as f64 / limits::SLOWEST_DOCUMENTED_RATE);
        if let Some(lifetime) = counts.shortest.filter(|lifetime| slowest > minutes(*lifetime)) {
            warnings.push(Warning::Slow { forecast: slowest.as_secs().div_ceil(60), lifetime });
        }
        warnings
    }

    fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = if self.everyone { &[] } else { &self.included.groups[..] }
            .iter()
            .chain(&self.excluded.groups)
            .chain(self.required.iter().map(|group| &group.id))
            .copied()
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Lists whole groups if that takes fewer calls than asking about every row, and the token may
    /// list them.
    async fn list_if_cheaper(&mut self, graph: &Graph, rows: u64) -> Result<(), GraphError> {
        match self.list_groups(graph, rows).await {
            Err(GraphError::Refused { .. }) => {
                self.listed = HashMap::new();
                self.preloaded = HashMap::new();
                Ok(())
            }
            listed => listed,
        }
    }

    async fn list_groups(&mut self, graph: &Graph, rows: u64) -> Result<(), GraphError> {
        let groups = self.groups();
        if groups.is_empty() || rows < limits::ROWS_WORTH_COUNTING {
            return Ok(());
        }
        let per_user = groups.len().div_ceil(limits::GROUPS_PER_CHECK) as u64;
        let asking = (rows * per_user).div_ceil(limits::REQUESTS_PER_BATCH as u64);
        let (mut paging, mut people) = (0, 0);
        for group in &groups {
            let Some(members) = graph.member_count(*group).await? else {
                self.drop_missing(&[*group]);
                continue;
            };
            people += members;
            paging += members.div_ceil(limits::PAGE_SIZE as u64).max(1);
            if paging >= asking
                || members > rows * limits::MAX_GROUP_PER_WAVE + limits::PAGE_SIZE as u64
            {
                return Ok(());
            }
        }
        // An address decides who reads a pass, and the list may have an old one.
        let preload = self.options.mail.is_none() && people <= limits::MAX_PRELOADED;
        for group in self.groups() {
            let mut members = Vec::new();
            let listed = if preload {
                let preloaded = &mut self.preloaded;
                let keep = |user: User| {
                    members.push(user.id);
                    // Anybody with a problem is asked about by name, which is current.
                    let name = user.user_principal_name.as_ref().map(|name| name.to_lowercase());
                    if let Some(name) = name.filter(|_| user.is_in_order()) {
                        preloaded.insert(name, user);
                    }
                };
                graph.member_users(group, keep).await?
            } else {
                graph.members(group, |user| members.push(user)).await?
            };
            if listed.is_none() {
                self.drop_missing(&[group]);
                continue;
            }
            members.sort_unstable();
            self.listed.insert(group, members);
        }
        Ok(())
    }

    /// The users known from the groups' lists, and the names to ask for.
    fn take_preloaded(&mut self, subjects: &[Subject]) -> (HashMap<String, User>, Vec<Upn>) {
        let (mut known, mut unknown) = (HashMap::new(), Vec::new());
        for subject in subjects {
            let key = subject.upn.key();
            match self.preloaded.remove(&key) {
                Some(user) => drop(known.insert(key, user)),
                None => unknown.push(subject.upn.clone()),
            }
        }
        if self.preloaded.is_empty() {
            self.preloaded = HashMap::new();
        }
        (known, unknown)
    }

    /// The row goes before the options, they before the policy. Also whether multi-use was asked
    /// for explicitly.
    fn asked(&self, wanted: &RowOptions) -> (Asked, bool) {
        let said = wanted.one_time.or(self.options.one_time);
        let asked = Asked {
            start: wanted.start.or(self.options.start),
            lifetime_minutes: wanted
                .lifetime_minutes
                .or(self.options.lifetime_minutes)
                .unwrap_or(self.policy.default_lifetime_minutes),
            one_time: said.unwrap_or(false) || self.policy.one_time,
        };
        (asked, said == Some(false))
    }

    /// Checks what needs no further call.
    fn check_locally(&mut self, row: &mut CheckedRow, now: Timestamp) {
        let (asked, multi_use_said) = &row.asked;
        let PolicyRecord { min_lifetime_minutes: min, max_lifetime_minutes: max, one_time, .. } =
            self.policy;
        if !(min..=max).contains(&asked.lifetime_minutes) {
            row.problems.push(Problem::Lifetime { asked: asked.lifetime_minutes, min, max });
        }
        if one_time && *multi_use_said {
            row.problems.push(Problem::MultiUse);
        }
        if let Some(start) = asked.start.filter(|start| *start <= now) {
            let end = later(start, minutes(asked.lifetime_minutes));
            if span(now, end) < minutes(min) {
                row.problems.push(Problem::Over { start });
            }
        }
        let Some(user) = &row.user else {
            row.problems.push(Problem::NoSuchUser);
            return;
        };
        // If it is absent, the token may not see it, and the POST will tell.
        if user.account_enabled == Some(false) {
            row.problems.push(Problem::Disabled);
        }
        if user.is_external_guest() {
            row.problems.push(Problem::Guest);
        }
        let first = *self.seen.entry(user.id).or_insert(row.subject.line);
        if first != row.subject.line {
            row.problems.push(Problem::SameUser { first });
        }
    }

    /// Checks targets, exclusions and required groups. Listed members may lag, so that somebody
    /// whom they would exclude is asked about.
    async fn check_groups(
        &mut self,
        graph: &Graph,
        rows: &mut [CheckedRow],
    ) -> Result<(), GraphError> {
        // Also without any group, since users can be targets themselves.
        let groups = self.groups();
        let by_index = |user: UserId| -> HashSet<GroupId> {
            let holds = |group: &&GroupId| {
                self.listed.get(group).is_some_and(|members| members.binary_search(&user).is_ok())
            };
            groups.iter().filter(holds).copied().collect()
        };
        let mut known: HashMap<UserId, Membership> = HashMap::new();
        let mut doubtful = Vec::new();
        for user in rows.iter().filter_map(|row| row.user.as_ref()) {
            let held = by_index(user.id);
            if self.listed.is_empty() || !self.group_problems(user.id, &held).is_empty() {
                doubtful.push(user.id);
            }
            known.insert(user.id, Ok(held));
        }
        let current = graph.memberships(&doubtful, &groups).await?;
        known.extend(current.of);
        self.drop_missing(&current.missing);
        for row in rows {
            let Some(user) = &row.user else { continue };
            match known.get(&user.id) {
                Some(Ok(held)) => row.problems.extend(self.group_problems(user.id, held)),
                Some(Err(refusal)) if refusal.kind == RefusalKind::UserGone => {
                    row.problems.push(Problem::NoSuchUser);
                }
                Some(Err(refusal)) => {
                    row.problems.push(Problem::GroupsUnread { why: refusal.to_string() });
                }
                None => {}
            }
        }
        Ok(())
    }

    fn group_problems(&self, user: UserId, held: &HashSet<GroupId>) -> Vec<Problem> {
        let is_in = |targets: &Targets| {
            targets.users.contains(&user) || targets.groups.iter().any(|group| held.contains(group))
        };
        let mut problems = Vec::new();
        if !self.everyone && !is_in(&self.included) {
            problems.push(Problem::NotIncluded);
        }
        if is_in(&self.excluded) {
            problems.push(Problem::Excluded);
        }
        for required in self.required.iter().filter(|one| !held.contains(&one.id)) {
            let group = required.name.clone();
            problems.push(if required.hidden {
                Problem::NotSeenInGroup { group }
            } else {
                Problem::NotInGroup { group }
            });
        }
        problems
    }

    /// Finds the readers of each row's mail and notice. A manager is looked up only if one is named
    /// before any place with an address.
    async fn find_readers(&self, graph: &Graph, rows: &mut [CheckedRow]) -> Result<(), GraphError> {
        let Some(mail) = &self.options.mail else { return Ok(()) };
        let to = AddressPlaces { flag: TO, list: &mail.to };
        let notice_to = AddressPlaces { flag: NOTICE_TO, list: &mail.notice_to };
        let users: Vec<UserId> = rows
            .iter()
            .filter(|row| row.problems.is_empty())
            .filter_map(|row| Some((row.user.as_ref()?, &row.subject.wanted)))
            .filter(|(user, wanted)| {
                let needed = [&to, &notice_to].into_iter().any(|to| to.ask_manager(wanted, user));
                mail.names_manager || needed
            })
            .map(|(user, _)| user.id)
            .collect();
        let managers = graph.managers(&users).await?;
        let managers: HashMap<UserId, Option<Manager>> = users.into_iter().zip(managers).collect();
        for row in rows {
            let Some(user) = row.user.as_ref().filter(|_| row.problems.is_empty()) else {
                continue;
            };
            let manager = managers.get(&user.id).and_then(Option::as_ref);
            let wanted = &row.subject.wanted;
            match to.reader(wanted, user, manager) {
                Ok(reader) => row.reader = Some(reader),
                Err(problem) => row.problems.push(problem),
            }
            if notice_to.list.is_empty() {
                continue;
            }
            match notice_to.reader(wanted, user, manager) {
                Ok(reader) => row.notice_reader = Some(reader),
                Err(problem) => row.problems.push(problem),
            }
        }
        Ok(())
    }

    /// The passes of the rows without problems. `--existing replace` reads none.
    fn finding(
        &mut self,
        mut row: CheckedRow,
        passes: &FoundPasses,
        now: Timestamp,
        issuers: &HashMap<MethodId, String>,
    ) -> Finding {
        let Some(user) = row.user.take().filter(|_| row.problems.is_empty()) else {
            return Finding::Ineligible(row.problems);
        };
        match passes.get(&user.id) {
            Some(Err(why)) => row.problems.push(Problem::Unreadable { why: why.clone() }),
            Some(Ok(Some(pass))) if pass.is_live(now) => {
                if self.options.existing == Existing::Skip && row.subject.untried {
                    return Finding::HasPass(pass.id.clone());
                }
                row.problems.push(Problem::HasPass { issuer: issuers.get(&pass.id).cloned() });
            }
            _ => {}
        }
        if !row.problems.is_empty() {
            return Finding::Ineligible(row.problems);
        }
        let (asked, _) = row.asked;
        self.counts.count(&asked, now);
        let is_notice =
            self.options.mail.as_ref().is_some_and(|mail| mail.body == Mode::Notice.as_str());
        self.counts.count_mail(&user, row.reader.as_ref(), row.notice_reader.as_ref(), is_notice);
        Finding::Eligible(Box::new(Eligible {
            user: user.id,
            display_name: user.display_name.as_deref().map(shown::name),
            asked,
            set: row.subject.set,
            reader: row.reader,
            notice_reader: row.notice_reader,
        }))
    }
}

/// The pass of each person, or why it cannot be read.
type FoundPasses = HashMap<UserId, Result<Option<FoundPass>, String>>;

/// Rows whose people were looked up.
pub struct KnownRows {
    rows: Vec<CheckedRow>,
    now: Timestamp,
    passes: FoundPasses,
}

async fn live_passes(graph: &Graph, rows: &[CheckedRow]) -> Result<FoundPasses, GraphError> {
    let users: Vec<UserId> = rows
        .iter()
        .filter(|row| row.problems.is_empty())
        .filter_map(|row| row.user.as_ref().map(|user| user.id))
        .collect();
    let mut passes = graph.passes(&users).await?;
    // A replica may answer 404 for a user whom Graph has just found: ask once more.
    let unknown = |pass: &Result<_, Refusal>| matches!(pass, Err(why) if why.status == 404);
    let behind: Vec<usize> = (0..users.len()).filter(|at| unknown(&passes[*at])).collect();
    if !behind.is_empty() {
        let some: Vec<UserId> = behind.iter().map(|at| users[*at]).collect();
        for (at, pass) in behind.into_iter().zip(graph.passes(&some).await?) {
            passes[at] = pass;
        }
    }
    let passes = passes.into_iter().map(|pass| pass.map_err(|refusal| refusal.to_string()));
    Ok(users.into_iter().zip(passes).collect())
}

struct CheckedRow {
    subject: Subject,
    user: Option<User>,
    asked: (Asked, bool),
    problems: Vec<Problem>,
    reader: Option<Reader>,
    notice_reader: Option<Reader>,
}

impl Targets {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.users.is_empty()
    }

    fn of(targets: &[Target]) -> Self {
        let mut sorted = Self::default();
        for target in targets.iter().filter(|target| !target.is_everyone()) {
            if target.is_user() {
                sorted.users.extend(target.id.parse::<UserId>());
            } else {
                sorted.groups.extend(target.id.parse::<GroupId>());
            }
        }
        sorted
    }
}

impl WarningCounts {
    fn count(&mut self, asked: &Asked, now: Timestamp) {
        self.eligible += 1;
        self.one_time += u64::from(asked.one_time);
        self.shortest = Some(
            self.shortest.map_or(asked.lifetime_minutes, |least| least.min(asked.lifetime_minutes)),
        );
        if let Some(start) = asked.start {
            self.starts_past += u64::from(start <= now);
            self.first_start = Some(self.first_start.map_or(start, |first| first.min(start)));
            self.last_start = Some(self.last_start.map_or(start, |last| last.max(start)));
        }
    }

    /// `is_notice`: the mail is only a notice too.
    fn count_mail(
        &mut self,
        user: &User,
        reader: Option<&Reader>,
        notified: Option<&Reader>,
        is_notice: bool,
    ) {
        let own = |reader: Option<&Reader>| reader.is_some_and(|one| is_own(user, &one.address));
        self.own_mailbox += u64::from(!is_notice && own(reader));
        self.own_notice += u64::from(is_notice && own(reader) || own(notified));
        let same = reader.zip(notified).is_some_and(|(reader, notified)| {
            reader.address.eq_ignore_ascii_case(&notified.address)
        });
        self.notice_to_holder += u64::from(same);
    }
}

const TO: &str = "--to";
const NOTICE_TO: &str = "--notice-to";

/// Where to look for an address, in order.
struct AddressPlaces<'a> {
    flag: &'static str,
    list: &'a [To],
}

impl AddressPlaces<'_> {
    fn ask_manager(&self, wanted: &RowOptions, user: &User) -> bool {
        let first = self
            .list
            .iter()
            .find(|to| **to == To::Manager || address(to, wanted, user, None).is_some());
        first == Some(&To::Manager)
    }

    fn reader(
        &self,
        wanted: &RowOptions,
        user: &User,
        manager: Option<&Manager>,
    ) -> Result<Reader, Problem> {
        let named = |text: &Option<String>| text.clone().unwrap_or_default();
        for to in self.list {
            let Some(text) = address(to, wanted, user, manager) else { continue };
            let place = self.place(to);
            let mailbox: Mailbox =
                text.parse().map_err(|why| Problem::BadAddress { place, why })?;
            let (name, language) = match to {
                To::Manager => {
                    manager.map(|manager| (&manager.display_name, &manager.preferred_language))
                }
                To::OtherMail | To::Mail => Some((&user.display_name, &user.preferred_language)),
                To::Column | To::Address(_) => Some((&None, &user.preferred_language)),
            }
            .unwrap_or((&None, &None));
            return Ok(Reader {
                address: mailbox.address().to_owned(),
                name: mailbox.name().map(ToOwned::to_owned).or_else(|| name.clone()),
                locale: wanted.locale.clone().or_else(|| language.clone()),
                manager: manager
                    .map(|manager| (named(&manager.display_name), named(&manager.mail))),
            });
        }
        let tried: Vec<&str> = self.list.iter().map(|to| self.place(to)).collect();
        Err(Problem::NoAddress { tried: tried.join(" or "), flag: self.flag })
    }

    const fn place(&self, to: &To) -> &'static str {
        match to {
            To::Column => "the column deliverTo",
            To::Manager => "the manager's mail",
            To::OtherMail => "the person's other mails",
            To::Mail => "the person's mail",
            To::Address(_) => self.flag,
        }
    }
}

fn address(to: &To, wanted: &RowOptions, user: &User, manager: Option<&Manager>) -> Option<String> {
    let text = match to {
        To::Column => wanted.deliver_to.clone(),
        To::Manager => manager.and_then(|manager| manager.mail.clone()),
        To::OtherMail => user.other_mails.iter().flatten().next().cloned(),
        To::Mail => user.mail.clone(),
        To::Address(address) => Some(address.clone()),
    };
    text.filter(|text| !text.trim().is_empty())
}

/// Whether the address is the user's own mailbox.
fn is_own(user: &User, address: &str) -> bool {
    let own = [&user.mail, &user.user_principal_name];
    own.into_iter().flatten().any(|own| own.eq_ignore_ascii_case(address))
}

pub fn bounds(policy: &Policy) -> PolicyRecord {
    let (min, max, default) = DEFAULT_BOUNDS;
    PolicyRecord {
        min_lifetime_minutes: policy.minimum_lifetime_in_minutes.unwrap_or(min),
        max_lifetime_minutes: policy.maximum_lifetime_in_minutes.unwrap_or(max),
        default_lifetime_minutes: policy.default_lifetime_in_minutes.unwrap_or(default),
        one_time: policy.is_usable_once.unwrap_or(false),
    }
}

/// A group by its id or its unique name.
pub async fn resolve(graph: &Graph, wanted: &str) -> Result<RequiredGroup, CheckError> {
    let missing = || CheckError::NoSuchGroup { group: plain(wanted) };
    if let Ok(id) = wanted.parse::<GroupId>() {
        let group = graph.group(id).await?.ok_or_else(missing)?;
        let name = group.display_name.as_deref().map_or_else(|| id.to_string(), plain);
        return Ok(RequiredGroup { id, name, hidden: group.hides_members() });
    }
    match &graph.groups_named(wanted).await?[..] {
        [] => Err(missing()),
        [group] => {
            Ok(RequiredGroup { id: group.id, name: plain(wanted), hidden: group.hides_members() })
        }
        several => Err(CheckError::AmbiguousGroup { group: plain(wanted), count: several.len() }),
    }
}

fn minutes(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn candidate(start: &str, lifetime_minutes: u32) -> Candidate {
        Candidate {
            line: Line(2),
            upn: "ada@contoso.example".into(),
            display_name: None,
            user: UserId::new(uuid::Uuid::nil()),
            asked: Asked { start: Some(moment(start)), lifetime_minutes, one_time: false },
            set: 0,
        }
    }

    #[test]
    fn a_late_pass_keeps_its_planned_end() {
        let candidate = candidate("2026-03-02T08:00:00Z", 120);
        let early = candidate.asked_at(moment("2026-03-02T07:59:00Z"), 60).expect("in time");
        assert_eq!(early.start, Some(moment("2026-03-02T08:00:00Z")));
        let at_once = candidate.asked_at(moment("2026-03-02T07:59:59Z"), 60).expect("in time");
        assert_eq!((at_once.start, at_once.lifetime_minutes), (None, 120), "too near to be sent");
        let late = candidate.asked_at(moment("2026-03-02T08:30:30Z"), 60).expect("in time");
        assert_eq!((late.start, late.lifetime_minutes), (None, 89));
        assert!(candidate.asked_at(moment("2026-03-02T09:00:30Z"), 60).is_err());
    }
}
