//! Promises that `policy` and the policy part of `cleanup` change in the tenant what was
//! wished and nothing else; the tenant's own state is the witness.

use std::sync::Arc;

use serde_json::json;
use tapwave_core::clock::Clock;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Limiter, LimiterOptions};
use tapwave_pipeline::policy::{PolicyChange, Scope};
use tapwave_simulator::options::{Call, Fault, Faults};
use tapwave_simulator::{InMemory, PassPolicy, PolicyTarget, Tenant};

use crate::support::judge::{Judge, Judged};
use crate::support::program::Program;
use crate::support::server::Served;

const TOKEN: &str = "an-opaque-token";
const ADA: &str = "ada@contoso.example";

async fn serve(change: impl FnOnce(&mut Tenant)) -> (Served, Program) {
    serve_to(TOKEN, change).await
}

async fn serve_to(token: &str, change: impl FnOnce(&mut Tenant)) -> (Served, Program) {
    let mut tenant = Tenant::for_wave([ADA, "b@contoso.example"], 5);
    change(&mut tenant);
    let served = Served::open(tenant, 0, token, None).await.expect("a port");
    let graph = served.url().replace("/v1.0", "");
    let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", token).always(&[
        "--graph-url",
        &graph,
        "--auth",
        "token",
    ]);
    (served, program)
}

fn policy(served: &Served) -> PassPolicy {
    served.with(|tenant, _| tenant.policy_mut().clone())
}

fn patches(served: &Served) -> u64 {
    served.with(|tenant, _| tenant.seen(Call::WritePolicy))
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_the_policy_and_what_an_auditor_would_ask() {
    let (_served, program) = serve(|tenant| {
        tenant.policy_mut().include = vec![PolicyTarget::everyone()];
        tenant.policy_mut().maximum_lifetime = 600;
    })
    .await;
    let ran = program.run(&["policy", "show"]).exits(0);
    assert!(ran.out.contains("included          everyone"), "{ran:?}");
    ran.says("EIDSCA.AT02")
        .says("600 minutes, more than eight hours")
        .says("everyone in the tenant");
    let shown = program.run(&["policy", "show", "--json"]).exits(0).json();
    assert_eq!(shown["schema"], "tapwave.policy/1");
    assert_eq!(shown["includeTargets"][0]["id"], "all_users");
    assert_eq!(shown["warnings"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_shown_asked_for_made_and_seen() {
    let (served, program) = serve(|_| {}).await;
    let before = policy(&served);
    let set = ["policy", "set", "--max-lifetime", "600", "--length", "12"];
    program.run(&set).exits(2).says("maximumLifetimeInMinutes: 480 → 600").says("--yes");
    program.run(&[&set[..], &["--dry-run"]].concat()).exits(0).says("dry run");
    assert_eq!((policy(&served), patches(&served)), (before.clone(), 0), "asked in vain");
    let ran = program.run(&[&set[..], &["--yes", "--json"]].concat()).exits(0);
    assert_eq!(ran.json()["applied"], true);
    assert_eq!(
        ran.json()["changes"][0],
        json!({"property": "defaultLength", "before": 8, "after": 12})
    );
    let expected = PassPolicy { maximum_lifetime: 600, default_length: 12, ..before };
    assert_eq!(policy(&served), expected);
    program.run(&[&set[..], &["--yes"]].concat()).exits(0).says("already has these settings");
    assert_eq!(patches(&served), 1, "nothing to change was sent all the same");
    program.run(&["policy", "disable", "--yes"]).exits(0);
    assert!(!policy(&served).enabled);
    program.run(&["policy", "enable", "--yes"]).exits(0);
    program.run(&["policy", "set", "--one-time", "--yes"]).exits(0);
    assert_eq!(policy(&served), PassPolicy { one_time: true, ..expected.clone() });
    program.run(&["policy", "set", "--multi-use", "--yes"]).exits(0);
    assert_eq!(policy(&served), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_are_refused_before_any_call() {
    let (served, program) = serve(|_| {}).await;
    for (wrong, said) in [
        (&["--min-lifetime", "9"][..], "10 to 43200"),
        (&["--max-lifetime", "43201"], "10 to 43200"),
        (&["--length", "49"], "8 to 48"),
        (&["--min-lifetime", "100", "--max-lifetime", "90"], "do not fit"),
        (&["--one-time", "--multi-use"], "cannot be used with"),
        (&[], "required"),
    ] {
        program.run(&[&["policy", "set", "--yes"], wrong].concat()).exits(2).says(said);
    }
    assert_eq!(served.with(|tenant, _| tenant.tally().requests), 0);
    program.run(&["policy", "set", "--min-lifetime", "90", "--yes"]).exits(2).says("do not fit");
    program.run(&["policy", "exclude", "all", "--yes"]).exits(2).says("cannot be excluded");
    assert_eq!(patches(&served), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_and_go_by_name_and_by_id() {
    let (served, program) = serve(|tenant| {
        tenant.policy_mut().include = vec![PolicyTarget::everyone()];
        tenant.add_group("Starters");
        tenant.add_group("Board");
    })
    .await;
    let group = |name: &str| served.with(|tenant, _| tenant.group_id(name)).expect("a group");
    let (starters, board) = (group("Starters"), group("Board"));
    let change = |arguments: &[&str]| program.run(&[&["policy", "--yes"], arguments].concat());
    change(&["include", "Starters"]).exits(2).says("--only");
    change(&["include", "Starters", "--only"]).exits(0).says("everyone → Starters");
    assert_eq!(policy(&served).include, [PolicyTarget::group(starters)]);
    change(&["include", &board.to_string()]).exits(0);
    assert_eq!(
        policy(&served).include,
        [PolicyTarget::group(starters), PolicyTarget::group(board)]
    );
    change(&["include", "Board", "--remove"]).exits(0);
    assert_eq!(policy(&served).include, [PolicyTarget::group(starters)]);
    change(&["exclude", "Board"]).exits(0);
    assert_eq!(policy(&served).exclude, [PolicyTarget::group(board)]);
    change(&["exclude", &board.to_string(), "--remove"]).exits(0);
    assert_eq!(policy(&served).exclude, []);
    change(&["include", "all"]).exits(0);
    assert_eq!(policy(&served).include, [PolicyTarget::everyone()]);
    change(&["include", "Nobody knows"]).exits(3).says("there is no group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_before_any_call() {
    use base64::Engine;
    let claims = json!({"roles": ["Policy.Read.AuthenticationMethod"], "tid": "t", "appid": "a"});
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    let (served, program) = serve_to(&format!("e30.{payload}.sig"), |_| {}).await;
    program.run(&["policy", "show"]).exits(0);
    let calls = served.with(|tenant, _| tenant.tally().requests);
    let ran = program.run(&["policy", "disable", "--yes"]).exits(5);
    assert!(ran.err.contains("lacks Policy.ReadWrite.AuthenticationMethod"), "{ran:?}");
    assert!(ran.err.contains("grant this application permission of"), "{ran:?}");
    assert_eq!(served.with(|tenant, _| tenant.tally().requests), calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_checked_without_a_wave() {
    let (served, program) = serve(|_| {}).await;
    program.run(&["check"]).exits(2).says("WAVE.csv");
    let access = ["check", "--access", "--json"];
    let ready = program.run(&access).exits(0).json();
    assert_eq!(
        (&ready["schema"], &ready["verdict"]),
        (&json!("tapwave.access/1"), &json!("ready"))
    );
    assert_eq!((&ready["kind"], &ready["policy"]["state"]), (&json!("opaque"), &json!("enabled")));
    let long = program.run(&[&access[..], &["--lifetime", "481"]].concat()).exits(3);
    assert_eq!(long.json()["problems"].as_array().map(Vec::len), Some(1));
    program.run(&["check", "--access", "--group", "Nobody knows"]).exits(3).says("no group");
    served.with(|tenant, _| tenant.policy_mut().enabled = false);
    program.run(&access).exits(3).says("disabled");
    let other = program.var("TAPWAVE_ACCESS_TOKEN", "another-token");
    other.run(&access).exits(5);
    assert_eq!(patches(&served), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_or_lost_patch_is_told_or_sent_again() {
    let (served, program) = serve(|tenant| {
        tenant.options_mut().faults = Faults::default()
            .at(Call::WritePolicy, 1, Fault::Forbidden)
            .at(Call::WritePolicy, 2, Fault::LostAfter);
    })
    .await;
    let disable = ["policy", "disable", "--yes"];
    program.run(&disable).exits(5).says("Authentication Policy Administrator");
    assert!(policy(&served).enabled);
    program.run(&disable).exits(0);
    assert!(!policy(&served).enabled);
    assert_eq!(patches(&served), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_closes_the_policy_unless_another_run_needs_it() {
    let (served, program) = serve(|_| {}).await;
    let key = program.run(&["keygen"]).exits(0).out;
    let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
    for (name, upn) in [("one", ADA), ("two", "b@contoso.example")] {
        let wave = program.write(&format!("{name}.csv"), format!("userPrincipalName\n{upn}\n"));
        program.run(&["run", &wave, "-r", key, "--run", &format!("runs/{name}")]).exits(0);
    }
    let (one, two) = ("runs/one", "runs/two");
    program.run(&["cleanup", one, "--disable-policy"]).exits(2).says("--yes");
    assert_eq!(served.with(|tenant, _| tenant.passes().count()), 2, "asked before anything");
    program
        .run(&["cleanup", one, "--disable-policy", "--yes"])
        .exits(8)
        .says("two still needs it")
        .says("next: tapwave cleanup ");
    assert!(policy(&served).enabled);
    program.run(&["cleanup", two, "--disable-policy", "--yes"]).exits(0);
    assert!(!policy(&served).enabled);
    assert_eq!(served.with(|tenant, _| tenant.passes().count()), 0);
    served.with(|tenant, _| {
        let group = tenant.add_group("Wave");
        *tenant.policy_mut() = PassPolicy {
            include: vec![PolicyTarget::group(group), PolicyTarget::everyone()],
            ..PassPolicy::default()
        };
    });
    program.run(&["cleanup", two, "--remove-group", "Wave", "--yes"]).exits(0);
    assert_eq!(policy(&served).include, [PolicyTarget::everyone()]);
}

// Case: the other run's ledger is damaged, so nobody knows whether its people still need the policy.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_read_may_need_the_policy() {
    let (served, program) = serve(|_| {}).await;
    let key = program.run(&["keygen"]).exits(0).out;
    let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
    let mut folders = Vec::new();
    for (name, upn) in [("one", ADA), ("two", "b@contoso.example")] {
        let wave = program.write(&format!("{name}.csv"), format!("userPrincipalName\n{upn}\n"));
        folders.push(std::path::Path::new(&wave).with_file_name("runs").join(name));
        program.run(&["run", &wave, "-r", key, "--run", &format!("runs/{name}")]).exits(0);
    }
    std::fs::write(folders[1].join("ledger.db"), "no database").expect("damaged");
    let close = ["cleanup", "runs/one", "--disable-policy", "--yes"];
    program.run(&close).exits(8).says("two may still need it, as not every ledger can be read");
    assert!(policy(&served).enabled);
    std::fs::remove_dir_all(&folders[1]).expect("removed");
    program.run(&close).exits(0);
    assert!(!policy(&served).enabled);
}

#[tokio::test(start_paused = true)]
async fn microsofts_metadata_approves_of_every_change() {
    let clock = Clock::starting_at("2026-03-01T08:00:00Z".parse().expect("a time"));
    let tenant = Tenant::for_wave([ADA], 5);
    let group = "11111111-2222-4333-8444-555555555555".parse().expect("an id");
    let transport = Judged::new(InMemory::new(tenant, clock.clone()), Arc::new(Judge::new()));
    let transport = Arc::new(transport);
    let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
    let graph = Graph::new(Arc::clone(&transport) as _, limiter, clock);
    let target = || vec![tapwave_graph::Target::group(group)];
    for wish in [
        PolicyChange { enabled: Some(false), one_time: Some(true), ..PolicyChange::default() },
        PolicyChange {
            min_lifetime: Some(30),
            max_lifetime: Some(90),
            length: Some(48),
            ..PolicyChange::default()
        },
        PolicyChange { default_lifetime: Some(45), ..PolicyChange::default() },
        PolicyChange { include: Some(Scope::Only(target())), ..PolicyChange::default() },
        PolicyChange { exclude: Some(Scope::Add(target())), ..PolicyChange::default() },
        PolicyChange { exclude: Some(Scope::Remove(target())), ..PolicyChange::default() },
    ] {
        let before = graph.policy().await.expect("a policy");
        let plan = wish.plan(before).expect("a plan");
        graph.patch_policy(plan.patch()).await.expect("taken");
        let found = graph.policy().await.expect("a policy");
        assert!(!plan.is_empty() && wish.plan(found).expect("a plan").is_empty(), "{wish:?}");
    }
    let seen = transport.inner().with(|tenant, _| tenant.seen(Call::WritePolicy));
    assert_eq!((seen, transport.objections()), (6, Vec::new()));
}
