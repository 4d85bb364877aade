//! Promises what an auditor and a SOC get: a log that says who did what from where, without a
//! code or a token, and a manifest that the tenant's own memory confirms.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tapwave_simulator::options::{Call, Fault, Faults};
use tapwave_simulator::{PassEvent, Tenant};

use crate::support::program::Program;
use crate::support::server::Served;

/// A JWT of an application called Onboarding in the tenant t1, with every permission.
fn token() -> String {
    use base64::Engine;
    let claims = serde_json::json!({
        "roles": ["UserAuthMethod-TAP.ReadWrite.All", "User.Read.All", "GroupMember.Read.All",
                  "Policy.ReadWrite.AuthenticationMethod"],
        "tid": "t1", "appid": "a1", "app_displayname": "Onboarding",
    });
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{claims}.a-signature")
}

async fn issued() -> (Served, Program, PathBuf) {
    let people: Vec<_> = (0..3).map(|n| format!("u{n}@contoso.example")).collect();
    let mut tenant = Tenant::for_wave(people.clone(), 5);
    // The first is throttled, so that its row needs a second intent.
    tenant.options_mut().faults =
        Faults::default().at(Call::Issue, 1, Fault::Throttled { retry_after: Some("0".into()) });
    let token = token();
    let served = Served::open(tenant, 0, &token, None).await.expect("a port");
    let graph = served.url().replace("/v1.0", "");
    let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", &token).always(&[
        "--graph-url",
        &graph,
        "--auth",
        "token",
        "--log",
        "audit.jsonl",
    ]);
    let wave = program.write("wave.csv", format!("userPrincipalName\n{}\n", people.join("\n")));
    let key = program.run(&["keygen"]).exits(0).out;
    let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
    program.run(&["run", &wave, "-r", key, "--run", "runs/one"]).exits(0);
    let home = Path::new(&wave).parent().expect("a folder").to_owned();
    (served, program, home)
}

fn read(home: &Path, name: &str) -> String {
    std::fs::read_to_string(home.join(name)).expect("a file")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_who_did_what_from_where_and_holds_no_secret() {
    let (served, program, home) = issued().await;
    program.run(&["policy", "set", "--length", "12", "--yes"]).exits(0).says("8 → 12");
    program.run(&["cleanup", "runs/one"]).exits(0);
    let own = read(&home, "runs/one/log.jsonl");
    let asked = read(&home, "audit.jsonl");
    for text in [&own, &asked] {
        let log = lines(text);
        let who = log.iter().find(|line| line["who"] == "Onboarding").expect("who");
        assert_eq!((&who["tenant"], &who["kind"]), (&"t1".into(), &"application".into()));
        assert!(who["host"].as_str().is_some_and(|host| !host.is_empty()));
        assert_eq!(who["version"], env!("CARGO_PKG_VERSION"));
        let run = log.iter().find(|line| line.get("wave_digest").is_some()).expect("the wave");
        assert_eq!(run["wave_digest"].as_str().map(str::len), Some(64));
        let posts = log.iter().filter(|line| {
            line["method"] == "POST"
                && line["path"].as_str().is_some_and(|it| it.ends_with("PassMethods"))
        });
        let posts: Vec<_> = posts.collect();
        assert_eq!(posts.len(), 4);
        for post in posts {
            for name in ["timestamp", "status", "request_id", "client_request_id"] {
                assert!(!post[name].is_null(), "{name} is missing: {post}");
            }
        }
        let codes = served.with(|tenant, _| {
            let minted = tenant.log().iter().filter_map(|entry| match &entry.event {
                PassEvent::Minted { code, .. } => Some(code.clone()),
                _ => None,
            });
            minted.collect::<Vec<_>>()
        });
        assert_eq!(codes.len(), 3);
        let secrets = codes.iter().map(String::as_str).chain(["a-signature"]);
        for secret in secrets {
            assert!(!text.contains(secret), "a secret is in the log");
        }
    }
    let log = lines(&asked);
    let change = log.iter().find(|line| line["change"] == "policy").expect("the change");
    assert_eq!(
        (&change["property"], &change["before"], &change["after"]),
        (&"defaultLength".into(), &"8".into(), &"12".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_names_every_pass_and_the_post_that_made_it() {
    let (served, program, home) = issued().await;
    let before = program.run(&["manifest", "runs/one", "--json"]).exits(0).json();
    assert_eq!(
        (&before["schema"], &before["tenant"]),
        (&"tapwave.manifest/1".into(), &"t1".into())
    );
    let passes = before["passes"].as_array().expect("a list");
    let live: HashMap<String, String> = served.with(|tenant, _| {
        tenant.passes().map(|(user, _, pass)| (user.to_string(), pass.method.clone())).collect()
    });
    assert_eq!((passes.len(), live.len()), (3, 3));
    let log = lines(&read(&home, "audit.jsonl"));
    let made: HashSet<&str> = log
        .iter()
        .filter(|line| line["method"] == "POST" && line["status"] == 201)
        .filter_map(|line| line["client_request_id"].as_str())
        .collect();
    for pass in passes {
        let user = pass["userId"].as_str().expect("an id");
        assert_eq!(pass["methodId"].as_str(), live.get(user).map(String::as_str));
        assert!(made.contains(pass["clientRequestId"].as_str().expect("an id")), "{pass}");
        let moment = |name: &str| pass[name].as_str().expect("a time").parse::<jiff::Timestamp>();
        let (start, end) = (moment("windowStart"), moment("windowEnd"));
        let window = end.expect("a time").duration_since(start.expect("a time"));
        assert_eq!(window.as_mins(), 60);
    }
    program.run(&["cleanup", "runs/one"]).exits(0);
    let table = program.run(&["manifest", "runs/one"]).exits(0).out;
    assert!(table.starts_with("row,userId,userPrincipalName,methodId,windowStart,windowEnd,"));
    let removed = table.lines().filter(|line| line.ends_with(",removed")).count();
    assert_eq!(removed, 3, "{table}");
}

// Case: the ledger has lost whose pass it is, or the intent it was asked for on. A list without
// it would tell an auditor that nobody has that pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_leaves_nothing_out_that_it_cannot_read() {
    let (_served, program, home) = issued().await;
    let db = rusqlite::Connection::open(home.join("runs/one/ledger.db")).expect("a ledger");
    for (column, says) in
        [("user_id", "it names no user"), ("latest_intent", "its attempt is missing")]
    {
        let change = |to: &str| format!("UPDATE rows SET {column} = {to} WHERE line = 3");
        let of_another = format!("(SELECT {column} FROM rows WHERE line = 2)");
        assert_eq!(db.execute(&change("NULL"), []).expect("changed"), 1);
        program.run(&["manifest", "runs/one"]).exits(2).says("line 3").says(says);
        db.execute(&change(&of_another), []).expect("changed");
    }
}
