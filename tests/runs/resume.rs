//! Promises that a run goes on from any state, needs nothing but its folder, and ends with
//! each sealed pass the live one.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tapwave_core::clock::span;
use tapwave_core::shown::shell_word;
use tapwave_simulator::options::{Call, Fault, Faults, Latency, SecondPost};

use crate::support::site::{Site, TOKEN};

/// The command that the program suggests to resume [`Site::folder`].
pub(crate) fn typed_resume(site: &Site) -> String {
    let folder = site.folder();
    // As the program has it: with links resolved, but for Windows.
    let folder = if cfg!(windows) { folder } else { folder.canonicalize().expect("there") };
    let folder = shell_word(&folder.display().to_string(), "RUN");
    format!("tapwave resume {folder} --auth token --graph-url {}", site.graph_url())
}

#[test]
fn a_killed_run_is_carried_on_without_its_wave() {
    let site = Site::open(30);
    site.hold(Call::Issue, 8);
    let run = site.start(&site.run_args(&["--max-in-flight", "4"]));
    site.until_held(4);
    run.kill();
    assert_eq!(site.live().len(), 11, "killed in the middle");
    site.let_go();
    fs::remove_file(site.path("wave.csv")).expect("removed");
    site.resume().exits(0).says("run folder: ");
    site.assert_whole("after a kill");
    let posts = site.seen(Call::Issue);
    site.resume().exits(0);
    assert_eq!(site.seen(Call::Issue), posts, "nothing is left to do");
    site.assert_whole("after a resume of a finished run");
}

#[test]
fn failed_rows_get_another_chance() {
    let faults = Faults::default().at(Call::Issue, 2, Fault::Forbidden);
    let site = Site::with(4, |options| options.faults = faults);
    let told = site.run(&["--json"]).exits(4);
    assert_eq!(told.summary()["failed"], 1);
    told.says(&typed_resume(&site));
    assert_eq!(site.count("failed"), 1);
    site.assert_true("with a failed row");
    site.resume().exits(0);
    site.assert_whole("after another chance");
}

/// Every way in which a wire or a server leaves an outcome open.
fn open_outcomes() -> Vec<Fault> {
    let mut all = vec![
        Fault::LostBefore,
        Fault::LostAfter,
        Fault::Truncated,
        Fault::Garbled,
        Fault::Late { by: Duration::from_millis(300) },
    ];
    for status in [500, 502, 503, 504] {
        for effect in [false, true] {
            all.push(Fault::Failing { status, effect, retry_after: None });
        }
    }
    all
}

fn with_open_outcomes(second_post: SecondPost) -> Site {
    let mut faults = Faults::default();
    let all = open_outcomes();
    for (nth, fault) in (1..).zip(&all) {
        faults = faults.at(Call::Issue, nth, fault.clone());
    }
    Site::with(all.len() + 2, |options| {
        options.faults = faults;
        options.second_post = second_post;
    })
}

#[test]
fn every_open_outcome_is_reconciled_after_the_settling_time() {
    for second_post in [SecondPost::Replaces, SecondPost::Rejected] {
        let site = with_open_outcomes(second_post);
        let told = site.run(&["--json"]).exits(0);
        let summary = told.summary();
        assert_eq!((&summary["unsettled"], &summary["held"]), (&0.into(), &0.into()), "{summary}");
        site.assert_whole(&format!("{second_post:?}"));
        // One more POST for each that was lost, and not one besides.
        let rows = site.people.len() as u64;
        assert_eq!(site.seen(Call::Issue), rows + open_outcomes().len() as u64);
    }
}

#[test]
fn open_outcomes_of_a_killed_run_are_shown_and_settled_by_the_next() {
    for second_post in [SecondPost::Replaces, SecondPost::Rejected] {
        let site = with_open_outcomes(second_post);
        let lost = open_outcomes().len();
        // The settling time is in the ledger; this process will not live to see its end.
        let run = site.start(&site.run_args(&["--settle-after", "1h"]));
        site.until("all have been asked for", |site| {
            site.seen(Call::Issue) == site.people.len() as u64
        });
        site.until("the rest is sealed", |site| {
            site.folder().join("ledger.db").exists() && site.count("sealed") >= 2
        });
        site.until("all losses are known", |site| site.count("unsettled") == lost);
        run.kill();
        let reasons: BTreeSet<String> = site
            .status(&[])
            .values()
            .filter(|row| row["state"] == "unsettled")
            .map(|row| row["reason"].as_str().expect("a reason").to_owned())
            .collect();
        assert!(reasons.len() > 3, "{reasons:?}");
        site.pass(Duration::from_mins(62));
        site.resume().exits(0);
        site.assert_whole(&format!("{second_post:?}"));
    }
}

#[test]
fn somebody_elses_pass_on_an_unsettled_person_is_held_and_not_deleted() {
    for second_post in [SecondPost::Replaces, SecondPost::Rejected] {
        let faults = Faults::default().at(Call::Issue, 1, Fault::LostAfter);
        let site = Site::with(3, |options| {
            options.faults = faults;
            options.second_post = second_post;
        });
        let args = ["--max-in-flight", "1", "--lifetime", "120", "--settle-after", "30s"];
        let run = site.start(&site.run_args(&args));
        site.until("the others have theirs", |site| site.live().len() == 3);
        let person = site.people[0].clone();
        let theirs = site.issue_elsewhere(&person);
        site.end_as_time_passes(run)
            .exits(4)
            .says("held")
            .says("delete it")
            .says(&typed_resume(&site));
        assert_eq!(site.live()[&person].0, theirs, "not deleted");
        assert_eq!(site.status(&[])[&person]["state"], "held");
        site.resume().exits(4).says("held");
        assert_eq!(site.live()[&person].0, theirs, "not deleted by a resume either");
        site.delete_elsewhere(&person);
        site.resume().exits(0);
        site.assert_whole(&format!("{second_post:?}"));
    }
}

/// A token that says whose it is.
fn token_of(tenant: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let roles = [
        "UserAuthMethod-TAP.ReadWrite.All",
        "Policy.Read.AuthenticationMethod",
        "User.Read.All",
        "GroupMember.Read.All",
    ];
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(serde_json::json!({"alg": "none", "typ": "JWT"}));
    let claims = part(serde_json::json!({"tid": tenant, "roles": roles, "idtyp": "app"}));
    format!("{header}.{claims}.c2ln")
}

#[test]
fn another_tenant_and_another_graph_are_refused() {
    let site = Site::open(2);
    let ours = token_of("11111111-1111-1111-1111-111111111111");
    let theirs = token_of("22222222-2222-2222-2222-222222222222");
    site.change_token(&ours);
    let with_token = |args: &[&str], token: &str| {
        let mut command = site.tapwave(args);
        command.env("TAPWAVE_ACCESS_TOKEN", token);
        crate::support::site::Told::of(command.output().expect("started"))
    };
    with_token(&site.run_args(&[]), &ours).exits(0);
    let requests = site.requests();
    for args in [&["resume", "wave-run"][..], &["cleanup", "wave-run"]] {
        with_token(args, &theirs).exits(5).says("22222222").says("11111111");
    }
    for args in [&["resume", "wave-run"][..], &["cleanup", "wave-run"]] {
        let elsewhere = [args, &["--graph-url", "http://127.0.0.1:9"]].concat();
        with_token(&elsewhere, &ours).exits(2).says("this run was made against http://127.0.0.1");
    }
    assert_eq!(site.requests(), requests, "nothing was asked of the tenant");
    with_token(&["cleanup", "wave-run"], &ours).exits(0);
    assert!(site.live().is_empty());
}

#[test]
fn an_unconfirmed_pass_is_not_opened() {
    let site = Site::open(3);
    site.hold(Call::Issue, 3);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    // A resume that looks at nothing but the ledger, which a killed process has left.
    site.change_token("another");
    site.resume().exits(5);
    let told = site.told(&["open", "wave-run", "-i", "id.txt", "--format", "json"]).exits(0);
    assert_eq!(told.out.trim(), "[]");
    told.says("2 passes are not shown").says(&typed_resume(&site));
    site.change_token(crate::support::site::TOKEN);
    site.resume().exits(0);
    site.assert_whole("after the resume");
}

#[test]
fn a_tenant_that_was_named_by_its_domain_is_not_taken_for_another() {
    let site = Site::open(1);
    site.run(&["--tenant", "contoso.example"]).exits(0);
    let token = token_of("11111111-1111-1111-1111-111111111111");
    site.change_token(&token);
    let mut command = site.tapwave(&["cleanup", "wave-run"]);
    command.env("TAPWAVE_ACCESS_TOKEN", token);
    crate::support::site::Told::of(command.output().expect("started")).exits(0);
    assert!(site.live().is_empty());
}

#[test]
fn status_names_every_state_and_live_tells_what_graph_says() {
    let site = Site::open(7);
    let people = site.people.clone();
    site.dismiss(&people[5]);
    site.issue_elsewhere(&people[6]);
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostBefore).at(
        Call::Issue,
        2,
        Fault::Forbidden,
    );
    site.served.with(|tenant, _| tenant.options_mut().faults = faults);
    let more = [
        "--max-in-flight",
        "1",
        "--skip-ineligible",
        "--existing",
        "skip",
        "--one-time",
        "--lifetime",
        "120",
        "--settle-after",
        "30s",
    ];
    let run = site.start(&site.run_args(&more));
    site.until("the third has a pass", |site| site.live().contains_key(&people[2]));
    site.issue_elsewhere(&people[0]);
    site.end_as_time_passes(run).exits(4);
    site.use_pass(&people[2]);
    site.delete_elsewhere(&people[3]);
    let status = site.status(&["--live"]);
    let seen: Vec<(&str, &str)> = people
        .iter()
        .map(|upn| {
            let row = &status[upn];
            (row["state"].as_str().expect("text"), row["live"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("held", ""),
            ("failed", ""),
            ("sealed", "used"),
            ("sealed", "gone"),
            ("sealed", "usable"),
            ("ineligible", ""),
            ("skipped", ""),
        ]
    );
    site.issue_elsewhere(&people[4]);
    assert_eq!(site.status(&["--live"])[&people[4]]["live"], "replaced");
    let told = site.told(&["status", "wave-run", "--live"]).exits(0);
    for word in ["held", "failed", "sealed", "used", "gone", "replaced", "ineligible", "skipped"] {
        assert!(told.out.contains(word), "{word} is not in:\n{}", told.out);
    }
    site.cleanup(&[]);
    assert_eq!(site.status(&[])[&people[4]]["state"], "removed");
    let output = site.told(&["status", "wave-run"]).out;
    assert!(!output.contains(TOKEN));
}

#[test]
fn the_states_of_work_under_way_are_named_too() {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostBefore);
    let site = Site::with(3, |options| options.faults = faults);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1", "--settle-after", "1h"]));
    site.until_held(1);
    site.until("the states", |site| {
        let states: BTreeSet<String> = site
            .status(&[])
            .values()
            .map(|row| row["state"].as_str().expect("text").to_owned())
            .collect();
        states.contains("unsettled") && states.contains("intent")
    });
    run.kill();
    // The run remembers an hour; the operator who resumes it may know better.
    site.let_go();
    let told = site.told(&["resume", "wave-run", "--settle-after", "100ms"]).exits(0);
    told.says("so short a settling time protects from little");
    site.assert_whole("a settling time of the resume's own");
}

#[test]
fn runs_are_listed_newest_first() {
    let site = Site::open(1);
    let mut names = Vec::new();
    for name in ["one", "two", "three"] {
        let folder = format!("tapwave-home/runs/{name}");
        site.told(
            &site
                .run_args(&["--existing", "replace"])
                .iter()
                .map(|arg| if *arg == "wave-run" { folder.as_str() } else { *arg })
                .collect::<Vec<_>>(),
        )
        .exits(0);
        names.insert(0, name);
    }
    let told = site.told(&["runs"]).exits(0);
    let place = |name: &str| told.out.find(name).unwrap_or_else(|| panic!("{name}: {}", told.out));
    assert!(place("three") < place("two") && place("two") < place("one"), "{}", told.out);
    let told = site.told(&["runs", "--json"]).exits(0);
    let listed: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    let runs = listed["runs"].as_array().expect("runs");
    let listed: Vec<&str> = runs.iter().map(|run| run["name"].as_str().expect("a name")).collect();
    assert_eq!(listed, names);
    let told = site.told(&["status", "latest", "--json"]).exits(0);
    assert!(told.err.contains("three"), "{}", told.err);
}

/// What is left of a run whose only request was lost, of which nothing took effect.
fn with_one_lost(settle_after: &[&str]) -> Site {
    let faults = Faults::default().at(Call::Issue, 1, Fault::LostBefore);
    let site = Site::with(1, |options| options.faults = faults);
    let args = ["run", "wave.csv", "--run", "wave-run", "-r", site.recipient()];
    let run = site.start(&[&args[..], settle_after].concat());
    site.until("one is lost", |site| site.seen(Call::Issue) == 1);
    // Whether it was known to be or only intended: the settling time is the same.
    run.kill();
    site
}

/// A resume whose lost answer waits for the run's settling time, and for no more than that.
#[track_caller]
fn waits_for(site: &Site, settle_after: Duration) {
    let begun = site.now();
    let resume = site.start(&["resume", "wave-run"]);
    site.pass_until(settle_after / 10, "it is issued", |site| site.seen(Call::Issue) == 2);
    resume.end().exits(0);
    site.assert_whole("after the run's own settling time");
    let issued = site.served.with(|tenant, _| tenant.log()[0].at);
    let waited = span(begun, issued);
    assert!(waited >= settle_after, "issued after {waited:?}");
    assert!(waited < Duration::from_mins(30), "issued after {waited:?}");
}

#[test]
fn a_setting_never_shortens_the_settling_time_that_a_run_was_begun_with() {
    let settings = |site: &Site, settle_after: &str| {
        fs::write(site.path("tapwave.toml"), format!("settle_after = \"{settle_after}\"\n"))
            .expect("written");
    };
    let site = with_one_lost(&["--settle-after", "1m"]);
    settings(&site, "10ms");
    waits_for(&site, Duration::from_mins(1));

    // A part of a second counts too.
    let site = with_one_lost(&["--settle-after", "2900ms"]);
    waits_for(&site, Duration::from_millis(2_900));

    // What a flag had named is no setting's to lengthen either.
    let site = with_one_lost(&["--settle-after", "1m"]);
    settings(&site, "1h");
    waits_for(&site, Duration::from_mins(1));
}

// Case: a person becomes a guest while the run stands still for longer than its check is good for.
#[test]
fn users_who_became_ineligible_are_named_and_counted() {
    let site = Site::open(4);
    site.hold(Call::Issue, 2);
    let run = site.start(&site.run_args(&["--max-in-flight", "1"]));
    site.until_held(1);
    run.kill();
    site.let_go();
    site.pass(Duration::from_mins(30));
    let person = site.people[3].clone();
    site.served.with(|tenant, _| {
        assert!(tenant.amend(&person, |user| {
            let guest = tapwave_simulator::DirectoryUser::external_guest(&user.upn, "Guest");
            user.identities = guest.identities;
        }));
    });
    let told = site.end_as_time_passes(site.start(&["resume", "wave-run"])).exits(4);
    told.says("3 issued and sealed, 1 ineligible").says(&person).says("guest").says("left out");
}

// Case: an attempt's answer is lost, lists are behind, and the next attempt is refused for good.
#[test]
fn a_pass_that_a_failed_row_may_have_left_is_reported() {
    let site = Site::with(2, |options| {
        options.replication.unlisted_after_create = Latency::of(Duration::from_hours(1));
        options.faults = Faults::default().at(Call::Issue, 2, Fault::LostAfter).at(
            Call::Issue,
            3,
            Fault::Forbidden,
        );
    });
    let args = ["--max-in-flight", "1", "--settle-after", "10s", "--final-look", "never"];
    let told = site.end_as_time_passes(site.start(&site.run_args(&args))).exits(4);
    told.says("1 failed").says("may be alive all the same").says("cleanup").says("removes it");
    assert_eq!(site.live().len(), 2);
}
