//! Promises that the simulated tenant speaks as Microsoft's metadata says Graph does, in every
//! behaviour it has, and that the judge who says so can say no.

use std::sync::Arc;

use futures::executor::block_on;
use jiff::Timestamp;
use serde_json::{Value, json};
use tapwave_core::clock::Clock;
use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Method, Request, Response, Transport};
use tapwave_simulator::options::{Call, CodeStyle, Fault, Limit, SecondPost, Throttle};
use tapwave_simulator::{DirectoryUser, InMemory, Tenant};
use zeroize::Zeroizing;

use crate::support::judge::{Judge, Judged};

const POLICY: &str =
    "/policies/authenticationMethodsPolicy/authenticationMethodConfigurations/temporaryAccessPass";
const CONFIGURATION: &str = "#microsoft.graph.temporaryAccessPassAuthenticationMethodConfiguration";

fn ask(method: Method, target: &str, body: Option<Value>) -> Request {
    let id: uuid::Uuid = "3b241101-e2bb-4255-8caf-4136c566a962".parse().expect("an id");
    Request {
        method,
        target: target.into(),
        eventual: false,
        body: body.map(|body| body.to_string().into_bytes()),
        client_request_id: ClientRequestId::new(id),
    }
}

fn get(target: &str) -> Request {
    ask(Method::Get, target, None)
}

fn eventual(target: &str) -> Request {
    Request { eventual: true, ..get(target) }
}

fn passes(user: &str) -> String {
    format!("/users/{}/authentication/temporaryAccessPassMethods", user.replace('@', "%40"))
}

fn issue(user: &str, body: Value) -> Request {
    ask(Method::Post, &passes(user), Some(body))
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).expect("JSON")
}

/// A driver that asks, expects a status, and lets the judge watch.
struct Driver(Judged<InMemory>);

impl Driver {
    fn new(upns: &[&str], change: impl FnOnce(&mut Tenant)) -> Self {
        let epoch: Timestamp = "2026-03-01T08:00:00Z".parse().expect("a time");
        let mut tenant = Tenant::for_wave(upns.iter().copied(), 3);
        change(&mut tenant);
        let transport = InMemory::new(tenant, Clock::starting_at(epoch));
        Self(Judged::new(transport, Arc::new(Judge::new())))
    }

    fn ask(&self, request: &Request, status: u16) -> Response {
        let response = block_on(self.0.exchange(request)).expect("an answer");
        let text = String::from_utf8_lossy(&response.body);
        assert_eq!(
            response.status,
            status,
            "{} {}: {text}",
            request.method.as_str(),
            request.target
        );
        response
    }

    fn content(self) {
        assert_eq!(self.0.objections(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_pass_is_as_documented() {
    let user = "o'neil@contoso.example";
    let driver = Driver::new(&[user], |tenant| {
        tenant.options_mut().code_style = CodeStyle::Nasty;
    });
    let wish = json!({"startDateTime": "2026-03-01T09:00:00Z", "lifetimeInMinutes": 60, "isUsableOnce": true});
    let made = body(&driver.ask(&issue(user, wish), 201));
    assert_eq!(made["temporaryAccessPass"], "+drkzqAD");
    assert_eq!(made["methodUsabilityReason"], "NotYetValid");
    let again = body(&driver.ask(&issue(user, json!({})), 201));
    assert_eq!(again["temporaryAccessPass"], "=1+1xQz7");
    let list = body(&driver.ask(&get(&passes(user)), 200));
    assert_eq!(list["value"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["value"][0]["temporaryAccessPass"], Value::Null);
    let one = format!("{}/{}", passes(user), again["id"].as_str().expect("an id"));
    driver.ask(&get(&one), 200);
    driver.ask(&ask(Method::Delete, &one, None), 204);
    driver.ask(&ask(Method::Delete, &one, None), 404);
    driver.ask(&get(&one), 404);
    driver.ask(&get(&passes(user)), 200);
    driver.content();
}

#[tokio::test(start_paused = true)]
async fn refusals_are_in_graphs_shape() {
    let users = ["a@contoso.example", "b@contoso.example", "boss@contoso.example"];
    let driver = Driver::new(&users, |tenant| {
        tenant.add_user(DirectoryUser::external_guest("g#EXT#@contoso.example", "Guest"));
        tenant.add_user(DirectoryUser::named("out@contoso.example", "Out of Scope"));
        tenant.amend("boss@contoso.example", |user| user.admin = true);
        tenant.options_mut().second_post = SecondPost::Rejected;
        tenant.options_mut().omit_is_usable = true;
    });
    let refused = |user: &str, status: u16, part: &str| {
        let response = driver.ask(&issue(user, json!({})), status);
        let message = body(&response)["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(part), "{message}");
    };
    driver.ask(&issue("a@contoso.example", json!({})), 201);
    refused("a@contoso.example", 400, "already exists");
    refused("boss@contoso.example", 403, "Request Authorization failed");
    refused("g%23EXT%23@contoso.example", 400, "external guest");
    refused("out@contoso.example", 400, "AuthMethodType [TemporaryAccessPass]");
    refused("nobody@contoso.example", 404, "nobody@contoso.example");
    let long = json!({"lifetimeInMinutes": 500});
    driver.ask(&issue("b@contoso.example", long), 400);
    driver.ask(
        &ask(
            Method::Patch,
            POLICY,
            Some(json!({"@odata.type": CONFIGURATION, "isUsableOnce": true})),
        ),
        204,
    );
    driver.ask(&issue("b@contoso.example", json!({"isUsableOnce": false})), 400);
    driver.ask(
        &ask(
            Method::Patch,
            POLICY,
            Some(json!({"@odata.type": CONFIGURATION, "state": "disabled"})),
        ),
        204,
    );
    refused("b@contoso.example", 400, "Converged UserCredentialPolicy");
    driver.content();
}

#[tokio::test(start_paused = true)]
async fn the_policy_is_read_and_written() {
    let driver = Driver::new(&["a@contoso.example"], |tenant| {
        let group = tenant.group_id("Onboarding").expect("a group");
        tenant.policy_mut().exclude = vec![tapwave_simulator::PolicyTarget::group(group)];
    });
    let policy = body(&driver.ask(&get(POLICY), 200));
    assert_eq!(policy["excludeTargets"].as_array().map(Vec::len), Some(1));
    driver.ask(&issue("a@contoso.example", json!({})), 400);
    let change = json!({
        "@odata.type": CONFIGURATION,
        "state": "enabled",
        "includeTargets": [{"id": "all_users", "targetType": "group", "isRegistrationRequired": false}],
        "excludeTargets": [],
    });
    driver.ask(&ask(Method::Patch, POLICY, Some(change)), 204);
    driver.ask(&issue("a@contoso.example", json!({})), 201);
    driver.ask(
        &ask(
            Method::Patch,
            POLICY,
            Some(json!({"@odata.type": CONFIGURATION, "defaultLifetimeInMinutes": 10})),
        ),
        400,
    );
    driver.content();
}

#[tokio::test(start_paused = true)]
async fn the_directory_is_looked_up() {
    let upns: Vec<String> = (0..25).map(|n| format!("user{n}@contoso.example")).collect();
    let upns: Vec<&str> = upns.iter().map(String::as_str).collect();
    let driver = Driver::new(&upns, |tenant| tenant.options_mut().empty_pages = true);
    let (group, outer) = driver.0.inner().with(|tenant, _| {
        (tenant.group_id("Onboarding").expect("one"), tenant.group_id("TAP users").expect("one"))
    });
    let select = "$select=id,userPrincipalName,displayName,accountEnabled,userType,identities,otherMails,createdDateTime,onPremisesSyncEnabled,mail,preferredLanguage";
    let filter = "$filter=userPrincipalName%20in%20('user1%40contoso.example','USER2%40contoso.example','x%40y.z')";
    let mut found = body(&driver.ask(&get(&format!("/users?{filter}&{select}")), 200));
    while found["value"].as_array().is_some_and(Vec::is_empty) {
        let next = found["@odata.nextLink"].as_str().expect("more");
        let target = next.strip_prefix(driver.0.base()).expect("home").to_owned();
        found = body(&driver.ask(&get(&target), 200));
    }
    assert_eq!(found["value"].as_array().map(Vec::len), Some(2));
    let id = found["value"][0]["id"].as_str().expect("an id");
    driver.ask(&get(&format!("/users?$filter=id%20in%20('{id}')")), 200);
    driver.ask(&get(&format!("/users/{id}?{select}")), 200);
    driver.ask(&get("/users/user1%40contoso.example/manager?$select=displayName,mail"), 200);
    driver.ask(&get("/users/user0%40contoso.example/manager"), 404);
    driver.ask(&get("/groups?$filter=displayName%20eq%20'onboarding'&$select=id,displayName"), 200);
    driver.ask(&get(&format!("/groups/{group}")), 200);
    driver.ask(&get("/groups/3b241101-e2bb-4255-8caf-4136c566a962"), 404);
    let checked = json!({"groupIds": [outer]});
    let checked = driver
        .ask(&ask(Method::Post, &format!("/users/{id}/checkMemberGroups"), Some(checked)), 200);
    assert_eq!(body(&checked)["value"], json!([outer]));
    let malformed = json!({"groupIds": [outer, "all_users"]});
    driver.ask(&ask(Method::Post, &format!("/users/{id}/checkMemberGroups"), Some(malformed)), 400);

    let members = format!("/groups/{outer}/transitiveMembers/microsoft.graph.user");
    driver.ask(&get(&format!("{members}?$count=true")), 400);
    let mut target = format!("{members}?$count=true&$select=id,userPrincipalName&$top=10");
    let mut seen = 0;
    loop {
        let page = body(&driver.ask(&eventual(&target), 200));
        seen += page["value"].as_array().map_or(0, Vec::len);
        let Some(next) = page["@odata.nextLink"].as_str() else { break };
        target = next.strip_prefix(driver.0.base()).expect("home").to_owned();
    }
    assert_eq!(seen, 25);
    driver.ask(&eventual(&format!("{members}/$count")), 200);
    let count = driver.ask(&eventual(&format!("/groups/{outer}/transitiveMembers/$count")), 200);
    assert_eq!(count.body.as_slice(), b"26");
    driver.ask(&get(&format!("/groups/{outer}/transitiveMembers?$top=999")), 200);
    driver.content();
}

#[tokio::test(start_paused = true)]
async fn batches_and_mail_are_as_documented() {
    let driver = Driver::new(&["a@contoso.example", "b@contoso.example"], |tenant| {
        let limit = Limit::Fixed { units: 1.0, per: std::time::Duration::from_secs(10) };
        tenant.options_mut().throttles.pass_reads = Throttle::of(limit);
        let late = Fault::Late { by: std::time::Duration::from_secs(1) };
        tenant.options_mut().faults =
            std::mem::take(&mut tenant.options_mut().faults).at(Call::Issue, 2, late);
    });
    let json_kind = json!({"Content-Type": "application/json"});
    let step = |id: &str, method: &str, url: &str, body: Option<Value>| {
        let mut step = json!({"id": id, "method": method, "url": url});
        if let Some(body) = body {
            step["body"] = body;
            step["headers"] = json_kind.clone();
        }
        step
    };
    let steps = json!({"requests": [
        step("1", "GET", &passes("a@contoso.example"), None),
        step("2", "GET", &passes("b@contoso.example"), None),
        step("3", "POST", &passes("a@contoso.example"), Some(json!({}))),
        step("4", "POST", &passes("b@contoso.example"), Some(json!({}))),
        step("5", "GET", "/users/nobody%40contoso.example", None),
    ]});
    let answers = body(&driver.ask(&ask(Method::Post, "/$batch", Some(steps)), 200));
    let answer = |id: &str| {
        let all = answers["responses"].as_array().expect("answers");
        all.iter().find(|answer| answer["id"] == id).expect("an answer").clone()
    };
    let statuses: Vec<_> =
        ["1", "2", "3", "4", "5"].iter().map(|id| answer(id)["status"].clone()).collect();
    assert_eq!(statuses, [200, 429, 201, 504, 404]);
    assert_eq!(answer("2")["headers"]["Retry-After"], "10");
    driver.ask(&get(&passes("a@contoso.example")), 429);

    let mail = json!({"message": {
        "subject": "Welcome",
        "body": {"contentType": "text", "content": "Hello"},
        "toRecipients": [{"emailAddress": {"address": "a@personal.example"}}],
    }, "saveToSentItems": false});
    driver.ask(&ask(Method::Post, "/users/a%40contoso.example/sendMail", Some(mail)), 202);
    assert_eq!(driver.0.inner().with(|tenant, _| tenant.mails().len()), 1);
    driver.content();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_none_is_refused() {
    let driver = Driver::new(&["a@contoso.example"], |_| {});
    let get_step =
        |id: String| json!({"id": id, "method": "GET", "url": "/users/a%40contoso.example"});
    let many: Vec<Value> = (0..21).map(|n| get_step(n.to_string())).collect();
    for requests in [
        json!([]),
        json!(many),
        json!([get_step("1".into()), get_step("1".into())]),
        json!([{"id": "1", "method": "POST", "url": passes("a@contoso.example"), "body": {}}]),
        json!([{"id": "1", "method": "GET", "url": "https://evil.example/v1.0/users"}]),
    ] {
        let request = ask(Method::Post, "/$batch", Some(json!({"requests": requests})));
        driver.ask(&request, 400);
        let wrong = driver.0.objections();
        assert!(wrong.iter().all(|wrong| wrong.contains("request: ")), "{wrong:?}");
    }
    assert!(driver.0.objections().len() >= 5, "{:?}", driver.0.objections());
}

fn answered(status: u16, body: &Value) -> Response {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    Response {
        status,
        retry_after: None,
        date: None,
        request_id: None,
        load: None,
        body: Zeroizing::new(body),
    }
}

#[test]
fn the_judge_objects_to_wrong_answers() {
    let judge = Judge::new();
    let pass = json!({"id": "1", "lifetimeInMinutes": 60, "isUsable": null, "createdDateTime": "2026-03-01T08:00:00Z"});
    let with = |name: &str, value: Value| {
        let mut changed = pass.clone();
        changed[name] = value;
        changed
    };
    let post = issue("a@b.c", json!({}));
    let object = |request: &Request, status, body: &Value| {
        !judge.check_response(request, &answered(status, body)).is_empty()
    };
    assert!(!object(&post, 201, &pass), "{:?}", judge.check_response(&post, &answered(201, &pass)));
    assert!(object(&post, 200, &pass), "another status");
    assert!(object(&post, 201, &with("lifetimeInMinutes", json!("60"))), "another type");
    assert!(object(&post, 201, &with("lifetimeInMinutes", json!(9))), "out of bounds");
    assert!(object(&post, 201, &with("startDateTime", json!("tomorrow"))), "no moment");
    assert!(object(&post, 201, &with("length", json!(8))), "an invented property");
    assert!(object(&post, 201, &Value::Null), "no body");
    assert!(object(&post, 400, &json!({"error": "bad"})), "another error shape");
    let list = get(&passes("a@b.c"));
    assert!(!object(&list, 200, &json!({"@odata.context": "x", "value": [pass]})));
    assert!(object(&list, 200, &json!({"value": [with("code", json!("x"))]})), "inside a list");
    assert!(object(&list, 200, &json!([pass])), "a bare list");
    let delete = ask(Method::Delete, "/users/a/authentication/temporaryAccessPassMethods/1", None);
    assert!(object(&delete, 204, &pass), "a body with 204");
}

#[test]
fn the_judge_objects_to_wrong_requests() {
    let judge = Judge::new();
    let object = |request: &Request| !judge.check_request(request).is_empty();
    assert!(!object(&issue("a@b.c", json!({"lifetimeInMinutes": 60}))));
    assert!(object(&issue("a@b.c", json!({"lifetimeInMinutes": 9}))), "out of bounds");
    assert!(object(&issue("a@b.c", json!({"length": 9}))), "an invented property");
    assert!(object(&Request { body: None, ..issue("a@b.c", json!({})) }), "no body");
    assert!(!object(&get("/users?$select=id&$top=999")));
    assert!(object(&get("/users?$select=id&$top=1000")), "too large a page");
    assert!(object(&get("/users?select=id")), "another option");
    assert!(object(&get("/users?$select=id&$select=mail")), "twice");
    assert!(object(&get("/user/a")), "another path");
    assert!(object(&get("/users/a b")), "not encoded");
    assert!(object(&eventual("/policies/authenticationMethodsPolicy")), "a header too many");
    let patch = |body: Value| ask(Method::Patch, POLICY, Some(body));
    assert!(!object(&patch(json!({"@odata.type": CONFIGURATION, "state": "enabled"}))));
    assert!(object(&patch(json!({"state": "enabled"}))), "no type");
    assert!(object(&patch(json!({"@odata.type": CONFIGURATION, "length": 8}))), "no such setting");
}

#[tokio::test(start_paused = true)]
async fn the_judge_hears_a_garbled_answer() {
    let driver = Driver::new(&["a@contoso.example"], |tenant| {
        tenant.options_mut().faults =
            tapwave_simulator::options::Faults::default().at(Call::Issue, 1, Fault::Garbled);
    });
    driver.ask(&issue("a@contoso.example", json!({})), 201);
    assert_eq!(driver.0.objections().len(), 1, "{:?}", driver.0.objections());
}
