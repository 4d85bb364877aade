//! Promises that the tenant on a wire is the same as the one in memory, and that its faults
//! look to an HTTP client as the real ones do.

use std::time::Duration;

use serde_json::{Value, json};
use tapwave_simulator::options::{Call, Fault, Faults};
use tapwave_simulator::{PassEvent, ReplyFate, Tenant};

use crate::support::server::Served;

const ADA: &str = "ada@contoso.example";

async fn serve(faults: Faults) -> Served {
    let mut tenant = Tenant::for_wave([ADA, "b@contoso.example"], 5);
    tenant.options_mut().faults = faults;
    Served::open(tenant, 0, "t0ken", None).await.expect("a port")
}

fn client(http2: bool) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().retry(reqwest::retry::never());
    let builder = if http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
    builder.timeout(Duration::from_mins(5)).build().expect("a client")
}

fn passes(served: &Served) -> String {
    format!("{}/users/{ADA}/authentication/temporaryAccessPassMethods", served.url())
}

fn issue(served: &Served, client: &reqwest::Client) -> reqwest::RequestBuilder {
    client.post(passes(served)).bearer_auth("t0ken").json(&json!({}))
}

fn shown(served: &Served) -> Vec<ReplyFate> {
    served.with(|tenant, _| {
        let minted = tenant.log().iter().filter_map(|entry| match &entry.event {
            PassEvent::Minted { shown, .. } => Some(*shown),
            _ => None,
        });
        minted.collect()
    })
}

#[tokio::test]
async fn both_protocols_reach_the_same_tenant() {
    let served = serve(Faults::default()).await;
    for http2 in [false, true] {
        let client = client(http2);
        let made = issue(&served, &client).send().await.expect("an answer");
        assert_eq!(made.status(), 201);
        assert!(made.headers().contains_key("request-id") && made.headers().contains_key("date"));
        let made: Value = made.json().await.expect("JSON");
        assert_eq!(made["temporaryAccessPass"].as_str().map(str::len), Some(8));
        let one = format!("{}/{}", passes(&served), made["id"].as_str().expect("an id"));
        let gone = client.delete(one).bearer_auth("t0ken").send().await.expect("an answer");
        assert_eq!(gone.status(), 204);
    }
    assert_eq!(shown(&served), [ReplyFate::Whole, ReplyFate::Whole]);
}

#[tokio::test]
async fn a_wire_breaks_before_within_and_after() {
    let faults = Faults::default()
        .at(Call::Issue, 1, Fault::LostBefore)
        .at(Call::Issue, 2, Fault::LostAfter)
        .at(Call::Issue, 3, Fault::Truncated)
        .at(Call::Issue, 4, Fault::Garbled);
    for http2 in [false, true] {
        let served = serve(faults.clone()).await;
        let client = client(http2);
        for _ in 0..2 {
            let lost = issue(&served, &client).send().await.expect_err("no answer");
            assert!(lost.is_request(), "{lost:?}");
        }
        let cut = issue(&served, &client).send().await.expect("a head");
        assert_eq!(cut.status(), 201);
        assert!(cut.bytes().await.is_err(), "the body ends early");
        let garbled = issue(&served, &client).send().await.expect("an answer");
        assert!(garbled.json::<Value>().await.is_err());
        assert_eq!(shown(&served), [ReplyFate::Never, ReplyFate::Partly, ReplyFate::Partly]);
        assert_eq!(served.with(|tenant, _| tenant.seen(Call::Issue)), 4, "nobody asked again");
    }
}

#[tokio::test]
async fn the_door_is_guarded() {
    let served = serve(Faults::default()).await;
    let client = client(false);
    let status = |request: reqwest::RequestBuilder| async {
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(client.get(passes(&served))).await, 401);
    assert_eq!(status(client.get(passes(&served)).bearer_auth("other")).await, 401);
    let bare = client.post(passes(&served)).bearer_auth("t0ken").body("{}");
    assert_eq!(status(bare).await, 415, "a body without its Content-Type");
    let beta = served.url().replace("v1.0", "beta");
    assert_eq!(status(client.get(beta).bearer_auth("t0ken")).await, 404);
    assert_eq!(status(client.put(passes(&served)).bearer_auth("t0ken")).await, 405);
}

#[tokio::test]
async fn testers_look_and_change_from_outside() {
    let served = serve(Faults::default()).await;
    let client = client(false);
    let control = served.url().replace("/v1.0", "/control");
    let post =
        |path: &str, body: Value| client.post(format!("{control}/{path}")).json(&body).send();
    let wish = json!({
        "options": {"throttles": {"pass_writes": {"limit": {"fixed": {"units": 1, "per": "1h"}}}}},
        "policy": {"default_length": 12},
    });
    assert_eq!(post("break", wish).await.expect("an answer").status(), 200);
    assert_eq!(issue(&served, &client).send().await.expect("an answer").status(), 201);
    let refused = issue(&served, &client).send().await.expect("an answer");
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    post("use", json!({"upn": ADA})).await.expect("an answer");
    post("advance", json!({"seconds": 3_600})).await.expect("an answer");
    assert_eq!(issue(&served, &client).send().await.expect("an answer").status(), 201);
    let read = |path: &str| client.get(format!("{control}/{path}")).send();
    let log: Value = read("log").await.expect("an answer").json().await.expect("JSON");
    let kinds: Vec<_> =
        log.as_array().expect("a list").iter().map(|it| it["event"]["kind"].clone()).collect();
    assert_eq!(kinds, ["minted", "used", "replaced", "minted"]);
    let live: Value = read("passes").await.expect("an answer").json().await.expect("JSON");
    assert_eq!(live[0]["pass"]["code"].as_str().map(str::len), Some(12));
    let tally: Value = read("tally").await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&tally["issue"], &tally["throttled"]), (&json!(3), &json!(1)));
    assert_eq!(post("break", json!({"options": {"sede": 1}})).await.expect("one").status(), 400);
    post("break", json!({"tokenEndsAfterSeconds": 0})).await.expect("an answer");
    assert_eq!(issue(&served, &client).send().await.expect("an answer").status(), 401);
    post("break", json!({"token": "t0ken"})).await.expect("an answer");
    assert_ne!(issue(&served, &client).send().await.expect("an answer").status(), 401);
}
