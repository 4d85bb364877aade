//! Promises that the simulated tenant keeps its own word under any sequence of calls and
//! faults: one pass a user at most, a log that accounts for every pass, and codes that are
//! shown once or never.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures::executor::block_on;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tapwave_core::clock::{Clock, later};
use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Broken, Method, Request, Response, Transport};
use tapwave_simulator::options::{
    Act, Call, CodeStyle, Fault, Faults, Intervention, Latency, Limit, NextLink, Replication,
    RetryAfter, SecondPost, Throttle,
};
use tapwave_simulator::{
    DirectoryUser, InMemory, Options, PassEvent, PolicyTarget, ReplyFate, Tenant, Unusable,
    Usability,
};

const ADA: &str = "ada@contoso.example";

fn epoch() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().expect("a time")
}

fn ask(method: Method, target: impl Into<String>, body: Option<&str>) -> Request {
    Request {
        method,
        target: target.into(),
        eventual: true,
        body: body.map(|body| body.as_bytes().to_vec()),
        client_request_id: ClientRequestId::new(uuid::Uuid::nil()),
    }
}

fn passes(user: &str) -> String {
    format!("/users/{user}/authentication/temporaryAccessPassMethods")
}

fn issue(user: &str) -> Request {
    ask(Method::Post, passes(user), Some("{}"))
}

fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body).expect("JSON")
}

fn tenant_of(upns: &[&str], faults: Faults) -> Tenant {
    let mut tenant = Tenant::for_wave(upns.iter().copied(), 11);
    tenant.options_mut().faults = faults;
    tenant
}

/// What the log says about passes: those that live, and what became of each code.
fn replay(tenant: &Tenant) -> (BTreeMap<String, String>, HashMap<String, ReplyFate>) {
    let (mut live, mut codes) = (BTreeMap::new(), HashMap::new());
    let mut dead = HashSet::new();
    for entry in tenant.log() {
        let user = entry.user.to_string();
        match &entry.event {
            PassEvent::Minted { method, code, shown, .. } => {
                let before = live.insert(user, method.clone());
                assert_eq!(before, None, "a second pass beside the first");
                assert_eq!(codes.insert(code.clone(), *shown), None, "a code was made twice");
            }
            PassEvent::Replaced { method } | PassEvent::Deleted { method, .. } => {
                assert_eq!(live.remove(&user).as_ref(), Some(method), "what died did not live");
                assert!(dead.insert(method.clone()), "it died twice");
            }
            PassEvent::Used { method } => assert_eq!(live.get(&user), Some(method)),
        }
    }
    (live, codes)
}

fn any_fault(rng: &mut fastrand::Rng) -> Fault {
    match rng.u8(..15) {
        0 => Fault::Unreachable,
        1 => Fault::LostBefore,
        2 => Fault::LostAfter,
        3 => Fault::Truncated,
        4 => Fault::Garbled,
        5 => Fault::Late { by: Duration::from_secs(rng.u64(..60)) },
        6 => Fault::Failing { status: 503, effect: rng.bool(), retry_after: None },
        7 => Fault::Throttled { retry_after: Some("2".into()) },
        8 => Fault::TokenExpired,
        9 => Fault::Forbidden,
        10 => Fault::MethodUnknown,
        11 => Fault::Unlisted,
        12 => Fault::Twice { by: Duration::from_secs(rng.u64(..60)) },
        13 => Fault::OtherId { deletable: rng.bool() },
        _ => Fault::UserUnknown,
    }
}

fn any_options(seed: u64, rng: &mut fastrand::Rng) -> Options {
    let faults =
        (0..4).fold(Faults::default(), |faults, _| faults.with(None, 0.05, any_fault(rng)));
    let limit = Limit::Bucket { rate: 3.0, burst: 20.0 };
    let mut options = Options { faults, ..Options::seeded(seed) };
    options.second_post = if rng.bool() { SecondPost::Replaces } else { SecondPost::Rejected };
    options.code_style = if rng.bool() { CodeStyle::Plain } else { CodeStyle::Nasty };
    options.clock_offset = SignedDuration::from_secs(rng.i64(-90..90));
    options.throttles.pass_writes = Throttle::of(limit);
    let mut lag = || Latency::up_to(Duration::from_secs(rng.u64(..60)));
    options.replication = Replication {
        unlisted_after_create: lag(),
        listed_after_end: lag(),
        unknown_after_create: lag(),
        rejects_after_end: lag(),
    };
    options.interventions = [Act::Replace, Act::Delete]
        .map(|act| Intervention { users: Vec::new(), probability: 0.1, after: lag().most, act })
        .into();
    options
}

/// One arbitrary act; the codes that its answer shows go to `seen`.
fn step(
    tenant: &mut Tenant,
    now: Timestamp,
    users: &[String],
    rng: &mut fastrand::Rng,
    seen: &mut Vec<String>,
) {
    let user = &users[rng.usize(..users.len())];
    let request = match rng.u8(..10) {
        0..=3 => issue(user),
        4 => ask(Method::Get, passes(user), None),
        5 | 6 => {
            let held = tenant.pass(user).map_or("nothing".into(), |pass| pass.method.clone());
            ask(Method::Delete, format!("{}/{held}", passes(user)), None)
        }
        7 => {
            let inner = |id: usize| {
                json!({
                    "id": id.to_string(), "method": "POST", "url": passes(&users[id]),
                    "headers": {"Content-Type": "application/json"}, "body": {},
                })
            };
            let steps = json!({"requests": [inner(0), inner(1), inner(2)]});
            ask(Method::Post, "/$batch", Some(&steps.to_string()))
        }
        8 => {
            // Why it may fail is no matter here; that the log agrees is.
            let _ = tenant.use_pass(now, user);
            return;
        }
        _ => {
            tenant.issue_elsewhere(now, user);
            return;
        }
    };
    let Ok(response) = tenant.handle(now, &request).response else { return };
    let Ok(answer) = serde_json::from_slice::<Value>(&response.body) else { return };
    let single = std::slice::from_ref(&answer);
    let inner = answer["responses"].as_array().map_or(single, Vec::as_slice);
    let codes = inner.iter().map(|one| one.get("body").unwrap_or(one));
    seen.extend(codes.filter_map(|one| one["temporaryAccessPass"].as_str()).map(str::to_owned));
}

#[test]
fn any_walk_leaves_a_tenant_that_agrees_with_its_log() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let users: Vec<String> = (0..6).map(|n| format!("user{n}@contoso.example")).collect();
        let mut tenant = Tenant::for_wave(users.clone(), seed);
        *tenant.options_mut() = any_options(seed, &mut rng);
        let (mut now, mut seen) = (epoch(), Vec::new());
        for _ in 0..400 {
            now = later(now, Duration::from_millis(rng.u64(..3_000)));
            step(&mut tenant, now, &users, &mut rng, &mut seen);
        }
        tenant.advance(later(now, Duration::from_mins(2)));
        let (live, codes) = replay(&tenant);
        let held: BTreeMap<_, _> = tenant
            .passes()
            .map(|(user, _, pass)| (user.to_string(), pass.method.clone()))
            .collect();
        assert_eq!(live, held, "seed {seed}");
        let told: HashSet<_> = seen.iter().cloned().collect();
        assert_eq!(told.len(), seen.len(), "seed {seed}: a code was shown twice");
        let whole = codes.iter().filter(|(_, shown)| **shown == ReplyFate::Whole);
        let whole: HashSet<_> = whole.map(|(code, _)| code.clone()).collect();
        assert_eq!(told, whole, "seed {seed}: the log is wrong about what was shown");
        let moments: Vec<_> = tenant.log().iter().map(|entry| entry.at).collect();
        assert!(moments.is_sorted(), "seed {seed}: the log goes back in time");
    }
}

#[test]
fn one_seed_makes_one_story() {
    let story = |seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let users: Vec<String> = (0..6).map(|n| format!("user{n}@contoso.example")).collect();
        let mut tenant = Tenant::for_wave(users.clone(), seed);
        *tenant.options_mut() = any_options(seed, &mut rng);
        for n in 0..200 {
            let now = later(epoch(), Duration::from_secs(n));
            step(&mut tenant, now, &users, &mut rng, &mut Vec::new());
        }
        tenant.log().to_vec()
    };
    assert_eq!(story(5), story(5));
    assert_ne!(story(5), story(6));
}

#[test]
fn each_fault_does_what_its_name_says() {
    let failing = |effect| Fault::Failing { status: 504, effect, retry_after: None };
    // What the caller gets (a status, or nothing), and the passes that there are then.
    for (fault, status, made) in [
        (Fault::Unreachable, None, 0),
        (Fault::LostBefore, None, 0),
        (Fault::LostAfter, None, 1),
        (Fault::Truncated, None, 1),
        (Fault::Garbled, Some(201), 1),
        (failing(false), Some(504), 0),
        (failing(true), Some(504), 1),
        (Fault::Throttled { retry_after: None }, Some(429), 0),
        (Fault::TokenExpired, Some(401), 0),
        (Fault::Forbidden, Some(403), 0),
        (Fault::UserUnknown, Some(404), 0),
        (Fault::MethodUnknown, Some(201), 1),
        (Fault::Unlisted, Some(201), 1),
        (Fault::Twice { by: Duration::ZERO }, Some(201), 1),
        (Fault::OtherId { deletable: true }, Some(201), 1),
    ] {
        let mut tenant = tenant_of(&[ADA], Faults::default().at(Call::Issue, 1, fault.clone()));
        let answer = tenant.handle(epoch(), &issue(ADA));
        assert_eq!(
            answer.response.as_ref().ok().map(|response| response.status),
            status,
            "{fault:?}"
        );
        assert_eq!(tenant.passes().count(), made, "{fault:?}");
        assert_eq!(answer.cut.is_some(), fault == Fault::Truncated);
        let not_sent = matches!(answer.response, Err(Broken::NotSent(_)));
        assert_eq!(not_sent, fault == Fault::Unreachable);
        let second = tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
        assert_eq!(second.status, 201, "only the first was aimed at");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_execution_kills_the_pass_made_after_it() {
    let late = Fault::Late { by: Duration::from_secs(30) };
    let mut tenant = tenant_of(&[ADA], Faults::default().at(Call::Issue, 1, late));
    tenant.options_mut().latency = Latency::of(Duration::from_millis(200));
    let clock = Clock::starting_at(epoch());
    let door = InMemory::new(tenant, clock.clone());
    assert!(matches!(door.exchange(&issue(ADA)).await, Err(Broken::Lost(_))));
    let made = json_of(&door.exchange(&issue(ADA)).await.expect("an answer"));
    let listed = door.exchange(&ask(Method::Get, passes(ADA), None)).await.expect("an answer");
    assert_eq!(json_of(&listed)["value"][0]["id"], made["id"]);
    clock.sleep(Duration::from_secs(30)).await;
    let listed = door.exchange(&ask(Method::Get, passes(ADA), None)).await.expect("an answer");
    assert_ne!(json_of(&listed)["value"][0]["id"], made["id"]);
    let due = door.with(|tenant, _| tenant.log().last().expect("an entry").at);
    assert_eq!(due, later(epoch(), Duration::from_millis(30_200)), "30 s after the giving up");
}

#[tokio::test(start_paused = true)]
async fn an_exchange_takes_its_latency_and_acts_half_way() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.options_mut().latency = Latency::of(Duration::from_millis(200));
    let clock = Clock::starting_at(epoch());
    let door = InMemory::new(tenant, clock.clone());
    let request = issue(ADA);
    let early = tokio::time::timeout(Duration::from_millis(99), door.exchange(&request)).await;
    assert!(early.is_err() && door.with(|tenant, _| tenant.passes().count()) == 0);
    let late = tokio::time::timeout(Duration::from_millis(199), door.exchange(&request)).await;
    assert!(late.is_err() && door.with(|tenant, _| tenant.passes().count()) == 1);
    let start = clock.instant();
    door.exchange(&request).await.expect("an answer");
    assert_eq!(start.elapsed(), Duration::from_millis(200));
    clock.jump(SignedDuration::from_hours(5));
    assert!(door.now() < clock.now(), "the caller's clock moved the tenant's");
}

#[test]
fn a_pass_is_used_by_the_clock_and_the_policy() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.options_mut().works_after = Duration::from_mins(2);
    let at = |minutes| later(epoch(), Duration::from_mins(minutes));
    assert_eq!(tenant.use_pass(at(0), ADA), Err(Unusable::NoPass));
    let one_time = ask(Method::Post, passes(ADA), Some(r#"{"isUsableOnce":true}"#));
    tenant.handle(at(0), &one_time).response.expect("an answer");
    assert_eq!(tenant.use_pass(at(1), ADA), Err(Unusable::TooFresh));
    assert_eq!(tenant.use_pass(at(3), ADA), Ok(()));
    let used = Unusable::Because(Usability::OneTimeUsed);
    assert_eq!(tenant.use_pass(at(4), ADA), Err(used));
    tenant.handle(at(5), &issue(ADA)).response.expect("an answer");
    tenant.policy_mut().enabled = false;
    let disabled = Unusable::Because(Usability::DisabledByPolicy);
    assert_eq!(tenant.use_pass(at(10), ADA), Err(disabled));
    tenant.policy_mut().enabled = true;
    assert_eq!(tenant.use_pass(at(10), ADA), Ok(()));
    assert_eq!(tenant.use_pass(at(11), ADA), Ok(()), "a pass for several sign-ins");
    assert_eq!(tenant.use_pass(at(65), ADA), Err(Unusable::Because(Usability::Expired)));
    tenant.amend(ADA, |user| user.enabled = false);
    assert_eq!(tenant.use_pass(at(65), ADA), Err(Unusable::Disabled));
}

#[test]
fn the_documented_tenant_makes_a_pass_out_of_scope_that_does_not_work() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.options_mut().refuse_outside_policy = false;
    tenant.add_user(DirectoryUser::named("out@contoso.example", "Out"));
    let answer = tenant.handle(epoch(), &issue("out@contoso.example"));
    let answer = json_of(&answer.response.expect("an answer"));
    assert_eq!(answer["methodUsabilityReason"], "DisabledByPolicy");
    assert_eq!(answer["isUsable"], false);
}

#[test]
fn a_new_user_appears_late_and_an_index_lags() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.options_mut().appear_delay = Duration::from_mins(1);
    tenant.options_mut().membership_lag = Duration::from_mins(2);
    let group = tenant.group_id("Onboarding").expect("a group");
    tenant.hire(epoch(), DirectoryUser::named("new@contoso.example", "New"));
    assert!(tenant.join(epoch(), "new@contoso.example", group));
    let ask_at = |tenant: &mut Tenant, seconds, request: &Request| {
        let now = later(epoch(), Duration::from_secs(seconds));
        tenant.handle(now, request).response.expect("an answer")
    };
    let user = ask(Method::Get, "/users/new@contoso.example", None);
    assert_eq!(ask_at(&mut tenant, 59, &user).status, 404);
    assert_eq!(ask_at(&mut tenant, 59, &issue("new@contoso.example")).status, 404);
    assert_eq!(ask_at(&mut tenant, 60, &user).status, 200);
    let body = json!({"groupIds": [group]}).to_string();
    let check = ask(Method::Post, "/users/new@contoso.example/checkMemberGroups", Some(&body));
    assert_eq!(json_of(&ask_at(&mut tenant, 61, &check))["value"], json!([group]));
    let count = format!("/groups/{group}/transitiveMembers/microsoft.graph.user/$count");
    let count = ask(Method::Get, count, None);
    assert_eq!(ask_at(&mut tenant, 100, &count).body.as_slice(), b"1");
    assert_eq!(ask_at(&mut tenant, 181, &count).body.as_slice(), b"2");
    let left = later(epoch(), Duration::from_secs(200));
    assert!(tenant.leave(left, "new@contoso.example", group));
    assert_eq!(json_of(&ask_at(&mut tenant, 201, &check))["value"], json!([]));
    assert_eq!(ask_at(&mut tenant, 201, &count).body.as_slice(), b"2");
    tenant.hide_group(group);
    let ada = ask(Method::Post, format!("/users/{ADA}/checkMemberGroups"), Some(&body));
    assert_eq!(json_of(&ask_at(&mut tenant, 202, &ada))["value"], json!([]), "hidden");
}

#[test]
fn exclusion_wins_and_groups_count_transitively() {
    let mut tenant = tenant_of(&[ADA, "b@contoso.example"], Faults::default());
    let included = tenant.group_id("TAP users").expect("a group");
    let barred = tenant.add_group("Barred");
    let inside = tenant.add_group("Inside barred");
    assert!(tenant.nest(Timestamp::MIN, inside, barred));
    assert!(tenant.join(Timestamp::MIN, ADA, inside));
    let ada = tenant.user_id(ADA).expect("a user");
    let mut statuses = |include: &[PolicyTarget], exclude: &[PolicyTarget]| {
        tenant.policy_mut().include = include.to_vec();
        tenant.policy_mut().exclude = exclude.to_vec();
        [ADA, "b@contoso.example"]
            .map(|user| tenant.handle(epoch(), &issue(user)).response.expect("an answer").status)
    };
    assert_eq!(statuses(&[PolicyTarget::group(included)], &[]), [201, 201]);
    assert_eq!(
        statuses(&[PolicyTarget::group(included)], &[PolicyTarget::group(barred)]),
        [400, 201]
    );
    assert_eq!(statuses(&[PolicyTarget::everyone()], &[PolicyTarget::user(ada)]), [400, 201]);
    assert_eq!(statuses(&[PolicyTarget::user(ada)], &[]), [201, 400]);
    assert_eq!(statuses(&[PolicyTarget::user(ada)], &[PolicyTarget::everyone()]), [400, 400]);
    assert_eq!(statuses(&[], &[]), [400, 400]);
}

#[test]
fn a_user_has_one_identity_under_every_spelling() {
    let mut tenant = tenant_of(&["O'Neil@Contoso.example"], Faults::default());
    let id = tenant.user_id("o'neil@contoso.EXAMPLE").expect("a user").to_string();
    for name in ["o'neil@contoso.example", "O%27NEIL%40CONTOSO.EXAMPLE", &id, &id.to_uppercase()] {
        let answer = tenant.handle(epoch(), &ask(Method::Get, format!("/users/{name}"), None));
        assert_eq!(json_of(&answer.response.expect("an answer"))["id"], id.as_str(), "{name}");
    }
    assert!(tenant.amend("o'neil@contoso.example", |user| user.upn = "married@c.d".into()));
    assert_eq!(tenant.user_id("married@c.d").map(|id| id.to_string()), Some(id));
    assert_eq!(tenant.user_id("o'neil@contoso.example"), None);
}

#[test]
fn groups_may_go_in_circles() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    let inner = tenant.group_id("Onboarding").expect("a group");
    let outer = tenant.group_id("TAP users").expect("a group");
    tenant.nest(Timestamp::MIN, outer, inner);
    let count = format!("/groups/{inner}/transitiveMembers/$count");
    let answer = tenant.handle(epoch(), &ask(Method::Get, count, None)).response.expect("one");
    assert_eq!(answer.body.as_slice(), b"2");
    assert_eq!(tenant.handle(epoch(), &issue(ADA)).response.expect("one").status, 201);
}

#[test]
fn a_refusal_says_when_to_come_back_on_the_tenants_clock() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    let limit = Limit::Fixed { units: 1.0, per: Duration::from_secs(10) };
    let options = tenant.options_mut();
    options.clock_offset = SignedDuration::from_secs(90);
    options.throttles.pass_writes =
        Throttle { retry_after: RetryAfter::Date, ..Throttle::of(limit) };
    let first = tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
    assert_eq!(first.date, Some(later(epoch(), Duration::from_secs(90))));
    let second = tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
    assert_eq!(second.status, 429);
    assert_eq!(second.retry_after.as_deref(), Some("Sun, 01 Mar 2026 08:01:41 GMT"));
    assert_eq!(tenant.tally().throttled, 1);
    assert_eq!(tenant.seen(Call::Issue), 2);
}

#[test]
fn a_hostile_next_link_leads_elsewhere() {
    let mut tenant = tenant_of(&[ADA, "b@c.d"], Faults::default());
    tenant.options_mut().next_link = NextLink::Elsewhere("https://evil.example/v1.0".into());
    let answer = tenant.handle(epoch(), &ask(Method::Get, "/users?$top=1", None));
    let link = json_of(&answer.response.expect("an answer"));
    let link = link["@odata.nextLink"].as_str().expect("a link");
    assert!(link.starts_with("https://evil.example/v1.0/users?"), "{link}");
}

#[test]
fn unknown_paths_are_refused_as_graph_does() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    for (request, status) in [
        (ask(Method::Get, "/me", None), 400),
        (ask(Method::Get, format!("/users/{ADA}/nothing"), None), 400),
        (ask(Method::Get, "/users/a b", None), 400),
        (ask(Method::Get, format!("/users/{ADA}?$select=shoeSize"), None), 400),
        (ask(Method::Post, passes(ADA), None), 400),
        (ask(Method::Patch, passes(ADA), Some("{}")), 405),
        (ask(Method::Get, "/users?$filter=city%20eq%20'x'", None), 400),
    ] {
        let answer = tenant.handle(epoch(), &request).response.expect("an answer");
        assert_eq!(answer.status, status, "{}", request.target);
        let inner = &json_of(&answer)["error"]["innerError"];
        assert_eq!(inner["request-id"].as_str(), answer.request_id.as_deref());
        assert_eq!(inner["date"], "2026-03-01T08:00:00");
    }
}

#[test]
fn options_can_be_written_down_and_read_back() {
    let mut rng = fastrand::Rng::with_seed(2);
    let options = any_options(4, &mut rng);
    let text = serde_json::to_string(&options).expect("JSON");
    assert_eq!(serde_json::from_str::<Options>(&text).expect("options"), options);
    let short = r#"{"throttles":{"pass_writes":{"limit":{"fixed":{"units":5,"per":"10s"}}}}}"#;
    let options: Options = serde_json::from_str(short).expect("options");
    let limit = Limit::Fixed { units: 5.0, per: Duration::from_secs(10) };
    assert_eq!(options.throttles.pass_writes, Throttle::of(limit));
    assert!(serde_json::from_str::<Options>(r#"{"sede":1}"#).is_err(), "a slip of the pen");
}

#[test]
fn a_dismissed_user_takes_the_pass_along() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
    assert!(tenant.dismiss(epoch(), ADA));
    assert_eq!(tenant.passes().count(), 0);
    assert_eq!(tenant.handle(epoch(), &issue(ADA)).response.expect("one").status, 404);
    assert_eq!(replay(&tenant).0.len(), 0);
}

#[test]
fn a_door_without_latency_needs_no_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _inside = runtime.enter();
    let door = InMemory::new(tenant_of(&[ADA], Faults::default()), Clock::system());
    assert_eq!(block_on(door.exchange(&issue(ADA))).expect("an answer").status, 201);
}

#[test]
fn the_tenants_clock_never_goes_back() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    let ahead = later(epoch(), Duration::from_mins(5));
    tenant.handle(ahead, &issue(ADA)).response.expect("an answer");
    let answer = tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
    assert_eq!(answer.date, Some(ahead));
    assert!(tenant.log().iter().all(|entry| entry.at == ahead));
}

#[test]
fn a_pass_of_an_admin_can_be_looked_at_and_not_touched() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    tenant.handle(epoch(), &issue(ADA)).response.expect("an answer");
    tenant.amend(ADA, |user| user.admin = true);
    let method = tenant.pass(ADA).expect("a pass").method.clone();
    let one = format!("{}/{method}", passes(ADA));
    for (request, status) in [
        (ask(Method::Get, one.clone(), None), 200),
        (ask(Method::Delete, one, None), 403),
        (issue(ADA), 403),
    ] {
        let answer = tenant.handle(epoch(), &request).response.expect("an answer");
        assert_eq!(answer.status, status);
        let error = &json_of(&answer)["error"];
        assert_eq!(error["message"], error["innerError"]["message"], "the service says it twice");
    }
    assert_eq!(tenant.passes().count(), 1);
}

#[test]
fn a_batch_is_answered_in_any_order() {
    let mut tenant = tenant_of(&[ADA], Faults::default());
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let step = |id: &String| json!({"id": id, "method": "GET", "url": format!("/users/{ADA}")});
    let steps = json!({"requests": ids.iter().map(step).collect::<Vec<_>>()}).to_string();
    let answer = tenant.handle(epoch(), &ask(Method::Post, "/$batch", Some(&steps)));
    let answer = json_of(&answer.response.expect("an answer"));
    let answers = answer["responses"].as_array().expect("answers");
    let mut order: Vec<String> =
        answers.iter().map(|one| one["id"].as_str().expect("an id").to_owned()).collect();
    assert_ne!(order, ids);
    order.sort_by_key(|id| id.parse::<u32>().expect("a number"));
    assert_eq!(order, ids);
}
