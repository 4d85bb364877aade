//! Promises that a group which the policy names and nobody has any more keeps nobody in and
//! nobody out, is named, and is never taken for a missing user.

use jiff::Timestamp;
use serde_json::Value;
use tapwave_simulator::options::{Call, Chance, Fault, Faults};
use tapwave_simulator::{PolicyTarget, Tenant};

use crate::support::bench::{ANYBODY, Bench, person};

const CHECK: [&str; 4] = ["check", "wave.csv", "-r", ANYBODY];

/// A group that was deleted, and its tenant: everybody is in another one, which is included.
fn with_a_deleted_group(count: usize) -> (Bench, String) {
    let bench = Bench::of(count);
    let deleted = bench.tenant(|tenant, _| {
        let group = tenant.add_group("Gone");
        tenant.join(Timestamp::MIN, &person(1), group);
        assert!(tenant.dissolve(group));
        group
    });
    (bench, deleted.to_string())
}

fn target(id: &str) -> PolicyTarget {
    PolicyTarget::group(id.parse().expect("an id"))
}

// Case: Entra keeps the id of a deleted group in a policy's includeTargets, and Graph answers 404
// for it, to the whole request or not at all.
#[test]
fn a_deleted_group_on_the_list_is_a_warning_that_names_it() {
    let case = include_str!("../cases/policy-group-deleted-include/tenant.json");
    let case: Value = serde_json::from_str(case).expect("JSON");
    let included = case["policy"]["includeTargets"].as_array().expect("a list");
    let wave = include_str!("../cases/policy-group-deleted-include/wave.csv");
    let deleted = included[0]["id"].as_str().expect("an id");
    for (count, fails) in [(2, false), (2, true), (60, false), (60, true)] {
        let upns: Vec<String> =
            (1..=60).map(|number| format!("user{number:06}@contoso.example")).collect();
        let bench = Bench::new(Tenant::for_wave(upns.clone(), 7));
        bench.tenant(|tenant, _| {
            tenant.options_mut().missing_group_fails = fails;
            tenant.policy_mut().include.insert(0, target(deleted));
        });
        if count == 2 {
            bench.write("wave.csv", wave);
        } else {
            bench.wave(&upns);
        }
        let said = bench.tapwave(&[&CHECK[..], &["--json"]].concat()).ends(0);
        let verdict = said.json();
        let warned = verdict["warnings"].as_array().expect("warnings");
        let names = warned.iter().filter_map(Value::as_str).filter(|one| one.contains(deleted));
        let hint = format!("tapwave policy include {deleted} --remove");
        assert_eq!(names.filter(|one| one.contains(&hint)).count(), 1, "{count}: {warned:?}");
        bench.tapwave(&["run", "wave.csv", "-r", ANYBODY]).ends(0).says([deleted]);
        assert_eq!(bench.codes().len(), count);
    }
}

// Case: who is in a living excluded group stays excluded; the deleted one excludes nobody.
#[test]
fn a_deleted_exclusion_leaves_the_living_ones_alone() {
    for fails in [false, true] {
        let (bench, deleted) = with_a_deleted_group(3);
        bench.tenant(|tenant, _| {
            tenant.options_mut().missing_group_fails = fails;
            let board = tenant.add_group("Board");
            tenant.join(Timestamp::MIN, &person(2), board);
            tenant.policy_mut().exclude = vec![target(&deleted), PolicyTarget::group(board)];
        });
        let said = bench.tapwave(&[&CHECK[..], &["--json"]].concat()).ends(3);
        let excluded = "is excluded by the Temporary Access Pass policy".to_owned();
        assert_eq!(said.problems(), [(3, excluded)], "{fails}");
        assert!(said.json()["warnings"].to_string().contains(&deleted), "{fails}");
    }
}

// Case: groups may not be looked up or listed; `checkMemberGroups` names the one it misses.
#[test]
fn a_404_about_a_group_is_not_one_about_the_user() {
    for count in [60, 2] {
        let (bench, deleted) = with_a_deleted_group(count);
        bench.tenant(|tenant, _| {
            let options = tenant.options_mut();
            options.missing_group_fails = true;
            options.faults = Faults::default().with(Call::Groups, 1.0, Fault::Forbidden);
            tenant.policy_mut().include.push(target(&deleted));
        });
        let said = bench.tapwave(&[&CHECK[..], &["--json"]].concat()).ends(0);
        assert!(said.json()["warnings"].to_string().contains(&deleted), "{count}");
    }
}

// Case: a replica that does not know one of the users.
#[test]
fn a_404_about_a_user_is_not_one_about_a_group() {
    let bench = Bench::of(2);
    bench.tenant(|tenant, _| {
        let unknown = Chance::new(Call::CheckGroups, 1.0, Fault::UserUnknown).about([person(2)]);
        tenant.options_mut().faults = Faults::default().also(unknown);
    });
    let said = bench.tapwave(&[&CHECK[..], &["--json"]].concat()).ends(3);
    let [(3, why)] = &said.problems()[..] else { panic!("{:?}", said.problems()) };
    assert!(why.starts_with("no such user in the tenant"), "{why}");
}

// Case: nobody is left whom the policy includes.
#[test]
fn a_policy_that_includes_deleted_groups_alone_is_told_once() {
    let (bench, deleted) = with_a_deleted_group(3);
    bench.tenant(|tenant, _| tenant.policy_mut().include = vec![target(&deleted)]);
    let said = bench.tapwave(&CHECK).ends(3);
    said.says(["includes no group that is in the directory", &deleted, "tapwave policy include"])
        .hides("person1@");
    bench.tapwave(&["check", "--access"]).ends(3).says([&deleted]);
}

// Case: sign-in and policy are tested before there is a wave.
#[test]
fn access_is_ready_and_the_deleted_group_is_named() {
    let (bench, deleted) = with_a_deleted_group(1);
    bench.tenant(|tenant, _| tenant.policy_mut().include.push(target(&deleted)));
    let said = bench.tapwave(&["check", "--access"]).ends(0);
    said.says([&format!("warning: the policy includes the group {deleted}")]);
}

// Case: the metadata lets a collection be null, and Graph writes it so.
#[test]
fn null_in_place_of_an_empty_list_is_an_empty_list() {
    let bench = Bench::of(3);
    bench.tenant(|tenant, _| tenant.options_mut().null_lists = true);
    bench.tapwave(&["policy", "show", "--json"]).ends(0);
    bench.tapwave(&[&CHECK[..], &["--existing", "fail"]].concat()).ends(0);
    bench.tapwave(&["run", "wave.csv", "-r", ANYBODY, "--run", "run"]).ends(0);
    bench.tapwave(&["status", "run", "--live"]).ends(0);
    bench
        .as_time_passes(&["cleanup", "run", "--auth", "token", "--graph-url", &bench.graph_url()])
        .ends(0);
    assert_eq!(bench.codes().len(), 0);
}
