//! Promises that each way in which a tenant misleads about passes is what its option says, by
//! the answers and by the log.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::options::{
    Act, Call, Chance, Fault, Faults, Intervention, Latency, Options, Replication, SecondPost,
};
use super::{PassEvent, Tenant};
use tapwave_core::clock::later;
use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Method, Request};

const ADA: &str = "ada@contoso.example";
const BOB: &str = "bob@contoso.example";

fn at(seconds: u64) -> Timestamp {
    later("2026-03-01T08:00:00Z".parse().expect("a time"), Duration::from_secs(seconds))
}

fn seconds(seconds: u64) -> Latency {
    Latency::of(Duration::from_secs(seconds))
}

fn tenant(change: impl FnOnce(&mut Options)) -> Tenant {
    let mut tenant = Tenant::for_wave([ADA, BOB], 7);
    change(tenant.options_mut());
    tenant
}

fn ask(tenant: &mut Tenant, now: u64, method: Method, target: String) -> (u16, Value) {
    let request = Request {
        body: (method == Method::Post).then(|| b"{}".to_vec()),
        client_request_id: ClientRequestId::new(uuid::Uuid::nil()),
        eventual: false,
        method,
        target,
    };
    let response = tenant.handle(at(now), &request).response.expect("an answer");
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

fn passes(user: &str) -> String {
    format!("/users/{user}/authentication/temporaryAccessPassMethods")
}

/// The id that the 201 carries.
fn issue(tenant: &mut Tenant, now: u64, user: &str) -> String {
    let (status, body) = ask(tenant, now, Method::Post, passes(user));
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().expect("an id").to_owned()
}

/// Why a POST is refused.
fn refused(tenant: &mut Tenant, now: u64, user: &str) -> String {
    let (status, body) = ask(tenant, now, Method::Post, passes(user));
    assert_eq!(status, 400, "{body}");
    body["error"]["message"].as_str().expect("words").to_owned()
}

/// The id that is listed, if one is; as `Err` the words of a 404.
fn listed(tenant: &mut Tenant, now: u64, user: &str) -> Result<Option<String>, String> {
    let (status, body) = ask(tenant, now, Method::Get, passes(user));
    if status != 200 {
        return Err(body["error"]["message"].as_str().expect("words").to_owned());
    }
    let all = body["value"].as_array().expect("a list");
    assert!(all.len() <= 1, "{body}");
    Ok(all.first().map(|pass| pass["id"].as_str().expect("an id").to_owned()))
}

/// The status, and for a 404 its words.
fn delete(tenant: &mut Tenant, now: u64, user: &str, id: &str) -> (u16, String) {
    let (status, body) = ask(tenant, now, Method::Delete, format!("{}/{id}", passes(user)));
    (status, body["error"]["message"].as_str().unwrap_or_default().to_owned())
}

fn alive(tenant: &mut Tenant, now: u64, user: &str) -> Option<String> {
    tenant.advance(at(now));
    tenant.pass(user).map(|pass| pass.method.clone())
}

#[test]
fn lists_lag_behind_what_was_made_and_what_was_deleted() {
    let replication = Replication {
        unlisted_after_create: seconds(20),
        listed_after_end: seconds(5),
        ..Replication::default()
    };
    let mut tenant = tenant(|options| options.replication = replication);
    let made = issue(&mut tenant, 0, ADA);
    let by_id = format!("{}/{made}", passes(ADA));
    assert_eq!(listed(&mut tenant, 19, ADA), Ok(None));
    assert_eq!(ask(&mut tenant, 19, Method::Get, by_id.clone()).0, 404);
    assert_eq!(listed(&mut tenant, 20, ADA), Ok(Some(made.clone())));
    assert_eq!(ask(&mut tenant, 20, Method::Get, by_id).0, 200);
    assert_eq!(delete(&mut tenant, 30, ADA, &made).0, 204);
    assert_eq!(listed(&mut tenant, 34, ADA), Ok(Some(made.clone())), "listed and gone");
    assert_eq!(delete(&mut tenant, 34, ADA, &made).0, 404);
    assert_eq!(listed(&mut tenant, 35, ADA), Ok(None));
    assert_eq!(alive(&mut tenant, 35, ADA), None);
}

#[test]
fn a_list_shows_one_pass_while_another_takes_its_place() {
    let lags = |unlisted, listed| Replication {
        unlisted_after_create: seconds(unlisted),
        listed_after_end: seconds(listed),
        ..Replication::default()
    };
    for (replication, first, second) in [(lags(20, 20), true, false), (lags(0, 20), false, true)] {
        let mut tenant = tenant(|options| options.replication = replication);
        let one = issue(&mut tenant, 0, ADA);
        let two = issue(&mut tenant, 100, ADA);
        let seen = listed(&mut tenant, 110, ADA).expect("a list");
        assert_eq!(seen.as_ref() == Some(&one), first);
        assert_eq!(seen.as_ref() == Some(&two), second);
        assert_eq!(listed(&mut tenant, 120, ADA), Ok(Some(two)));
    }
}

#[test]
fn a_lag_left_to_chance_stays_within_its_bounds() {
    let lag = Latency::up_to(Duration::from_mins(1));
    let replication = Replication { unlisted_after_create: lag, ..Replication::default() };
    let mut tenant = tenant(|options| options.replication = replication);
    let mut lags = Vec::new();
    for round in 0..40 {
        let start = round * 100;
        let made = Some(issue(&mut tenant, start, ADA));
        let mut shown = |now: &u64| listed(&mut tenant, start + now, ADA) == Ok(made.clone());
        lags.push((0..=60).find(&mut shown).expect("listed within a minute"));
    }
    assert!(lags.iter().any(|lag| *lag < 15) && lags.iter().any(|lag| *lag > 45), "{lags:?}");
}

#[test]
fn a_replica_that_does_not_know_the_user_says_so_of_the_user() {
    let chance =
        |on| Chance::new(on, 1.0, Fault::UserUnknown).about([ADA]).lasting(Duration::from_secs(30));
    let mut tenant = tenant(|_| {});
    let (ada, bob) = (issue(&mut tenant, 0, ADA), issue(&mut tenant, 0, BOB));
    tenant.options_mut().faults = Faults::default().also(chance(Call::Remove));
    assert_eq!(listed(&mut tenant, 10, ADA), Ok(Some(ada.clone())), "of DELETE alone");
    let (status, words) = delete(&mut tenant, 10, ADA, &ada);
    assert!(status == 404 && words.contains(ADA) && !words.contains(&ada), "{words}");
    tenant.options_mut().faults = Faults::default().also(chance(Call::Look));
    let words = listed(&mut tenant, 20, ADA).expect_err("a 404");
    assert!(words.contains(ADA), "{words}");
    assert_eq!(listed(&mut tenant, 20, BOB), Ok(Some(bob)), "somebody else");
    assert!(listed(&mut tenant, 49, ADA).is_err());
    assert_eq!(listed(&mut tenant, 50, ADA), Ok(Some(ada.clone())));
    assert_eq!(alive(&mut tenant, 50, ADA), Some(ada));
}

#[test]
fn a_pass_that_is_not_found_lives() {
    let replication = Replication {
        unlisted_after_create: seconds(20),
        unknown_after_create: seconds(20),
        ..Replication::default()
    };
    let mut tenant = tenant(|options| options.replication = replication);
    let fresh = issue(&mut tenant, 0, ADA);
    let (status, words) = delete(&mut tenant, 19, ADA, &fresh);
    assert!(status == 404 && words.contains(&fresh), "{words}");
    assert_eq!(listed(&mut tenant, 19, ADA), Ok(None));
    assert_eq!(alive(&mut tenant, 19, ADA), Some(fresh.clone()));
    // The same of a pass that was known before.
    let lasting = |on, fault| Chance::new(on, 1.0, fault).lasting(Duration::from_secs(20));
    tenant.options_mut().faults = Faults::default()
        .also(lasting(Call::Remove, Fault::MethodUnknown))
        .also(lasting(Call::Look, Fault::Unlisted));
    let (status, words) = delete(&mut tenant, 100, ADA, &fresh);
    assert!(status == 404 && words.contains("could not be found"), "{words}");
    assert!(words.contains(&fresh) && !words.contains(ADA), "{words}");
    assert_eq!(listed(&mut tenant, 100, ADA), Ok(None));
    assert_eq!(alive(&mut tenant, 119, ADA), Some(fresh.clone()));
    assert_eq!(listed(&mut tenant, 120, ADA), Ok(Some(fresh.clone())));
    assert_eq!(delete(&mut tenant, 120, ADA, &fresh).0, 204);
}

#[test]
fn an_id_may_be_another_than_the_one_that_is_listed() {
    for deletable in [true, false] {
        let fault = Fault::OtherId { deletable };
        let faults = Faults::default().also(Chance::new(Call::Issue, 1.0, fault).about([ADA]));
        let mut tenant = tenant(|options| options.faults = faults);
        let told = issue(&mut tenant, 0, ADA);
        let real = listed(&mut tenant, 1, ADA).expect("a list").expect("a pass");
        assert_ne!(told, real);
        let PassEvent::Minted { method, told: noted, elsewhere, .. } = &tenant.log()[0].event
        else {
            panic!("not minted")
        };
        assert_eq!((method, noted.as_ref(), *elsewhere), (&real, Some(&told), false));
        assert_eq!(delete(&mut tenant, 2, ADA, &told).0, if deletable { 204 } else { 404 });
        assert_eq!(alive(&mut tenant, 2, ADA).is_some(), !deletable);
        let bob = issue(&mut tenant, 3, BOB);
        assert_eq!(listed(&mut tenant, 3, BOB), Ok(Some(bob)), "somebody else");
    }
}

#[test]
fn a_gateway_executes_a_post_twice() {
    let fault = Fault::Twice { by: Duration::from_secs(3) };
    for (second_post, killed) in [(SecondPost::Replaces, true), (SecondPost::Rejected, false)] {
        let faults = Faults::default().also(Chance::new(Call::Issue, 1.0, fault.clone()));
        let mut tenant = tenant(|options| {
            options.faults = faults;
            options.second_post = second_post;
        });
        let told = issue(&mut tenant, 0, ADA);
        assert_eq!(alive(&mut tenant, 2, ADA), Some(told.clone()));
        let left = alive(&mut tenant, 3, ADA).expect("a pass");
        assert_eq!(left != told, killed);
        assert_eq!(tenant.log().len(), if killed { 3 } else { 1 });
        assert_eq!(tenant.seen(Call::Issue), 1, "the caller sent one");
    }
}

#[test]
fn somebody_else_replaces_deletes_and_disables() {
    let plan = |act| Intervention {
        users: vec![ADA.to_uppercase()],
        probability: 1.0,
        after: Duration::from_secs(10),
        act,
    };
    for act in [Act::Replace, Act::Delete, Act::Disable] {
        let mut tenant = tenant(|options| options.interventions = vec![plan(act)]);
        let (ours, bob) = (issue(&mut tenant, 0, ADA), issue(&mut tenant, 0, BOB));
        assert_eq!(listed(&mut tenant, 9, ADA), Ok(Some(ours.clone())), "{act:?}");
        let (_, body) = ask(&mut tenant, 10, Method::Get, passes(ADA));
        let shown = &body["value"][0];
        match act {
            Act::Replace => assert!(shown["id"].is_string() && shown["id"] != json!(ours)),
            Act::Delete => assert!(shown.is_null(), "{shown}"),
            Act::Disable => {
                assert_eq!(shown["id"], json!(ours));
                assert_eq!(shown["methodUsabilityReason"], "DisabledByPolicy");
                assert_eq!(shown["isUsable"], false);
            }
        }
        let elsewhere = tenant.log().iter().any(|entry| match entry.event {
            PassEvent::Minted { elsewhere, .. } | PassEvent::Deleted { elsewhere, .. } => elsewhere,
            _ => false,
        });
        assert_eq!(elsewhere, act != Act::Disable);
        tenant.advance(at(1_000));
        assert_eq!(alive(&mut tenant, 1_000, BOB), Some(bob), "somebody else");
    }
}

#[test]
fn somebody_else_acts_on_the_pass_that_is_meant_and_on_no_later_one() {
    let after = Duration::from_secs(10);
    let plan = Intervention { users: Vec::new(), probability: 1.0, after, act: Act::Delete };
    let mut tenant = tenant(|options| options.interventions = vec![plan]);
    issue(&mut tenant, 0, ADA);
    let second = issue(&mut tenant, 5, ADA);
    assert_eq!(alive(&mut tenant, 14, ADA), Some(second));
    assert_eq!(alive(&mut tenant, 15, ADA), None);
}

#[test]
fn a_second_pass_is_rejected_by_the_truth_and_not_by_the_list() {
    let replication = Replication {
        unlisted_after_create: seconds(60),
        rejects_after_end: seconds(30),
        ..Replication::default()
    };
    let mut tenant = tenant(|options| {
        options.second_post = SecondPost::Rejected;
        options.replication = replication;
    });
    let made = issue(&mut tenant, 0, ADA);
    assert_eq!(listed(&mut tenant, 10, ADA), Ok(None));
    assert!(refused(&mut tenant, 10, ADA).contains("already exists"));
    assert_eq!(delete(&mut tenant, 20, ADA, &made).0, 204);
    assert!(refused(&mut tenant, 49, ADA).contains("already exists"), "deleted, and counted");
    issue(&mut tenant, 50, ADA);
}

#[test]
fn a_token_of_another_tenant_finds_nobody() {
    let mut tenant = tenant(|_| {});
    let made = issue(&mut tenant, 0, ADA);
    tenant.options_mut().another_tenant = true;
    assert!(listed(&mut tenant, 1, ADA).expect_err("a 404").contains(ADA));
    assert!(delete(&mut tenant, 1, ADA, &made).1.contains(ADA));
    assert_eq!(ask(&mut tenant, 1, Method::Post, passes(ADA)).0, 404);
    let (status, body) = ask(&mut tenant, 1, Method::Get, "/users".into());
    assert_eq!((status, &body["value"]), (200, &json!([])));
    tenant.options_mut().another_tenant = false;
    assert_eq!(listed(&mut tenant, 2, ADA), Ok(Some(made)));
}

#[test]
fn the_options_are_written_as_people_write_them() {
    let text = json!({
        "replication": {
            "unlisted_after_create": {"least": "20s", "most": "20s"},
            "listed_after_end": {"least": "0s", "most": "3m"},
        },
        "interventions": [{"users": [ADA], "after": "2s", "act": "replace"}],
        "faults": {"chances": [
            {"on": "remove", "fault": "userUnknown", "lasts": "30s"},
            {"on": "issue", "probability": 0.1, "fault": {"twice": {"by": "0s"}}},
            {"on": "issue", "fault": {"otherId": {"deletable": false}}, "users": [ADA]},
        ]},
        "another_tenant": true,
    });
    let options: Options = serde_json::from_value(text).expect("options");
    assert_eq!(options.replication.unlisted_after_create, seconds(20));
    assert_eq!(options.replication.rejects_after_end, Latency::default());
    assert_eq!(options.interventions[0].probability.to_string(), "1");
    assert_eq!(options.faults.chances[0].lasts, Some(Duration::from_secs(30)));
    let again = serde_json::to_value(&options).expect("JSON");
    assert_eq!(serde_json::from_value::<Options>(again).expect("options"), options);
}
