//! Promises that `check` finds whatever would make a run fail, names it by line, and changes
//! nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tapwave_simulator::options::Call;
use tapwave_simulator::{DirectoryUser, PassEvent, PolicyTarget, Tenant};

use crate::support::bench::{ANYBODY, Bench, OPAQUE, jwt, keys, people, person};

/// Every role that `run` needs, the least of each.
const ROLES: [&str; 5] = [
    "Policy.Read.AuthenticationMethod",
    "User.Read.All",
    "UserAuthMethod-TAP.ReadWrite.All",
    "UserAuthMethod-TAP.Read.All",
    "GroupMember.Read.All",
];

impl Bench {
    /// Checks `wave.csv` with these flags besides a recipient and `--json`.
    #[track_caller]
    fn check(&self, flags: &[&str], code: i32) -> Vec<(u64, String)> {
        let said = self.tapwave(&[&["check", "wave.csv", "-r", ANYBODY, "--json"], flags].concat());
        said.ends(code).problems()
    }
}

fn joined(tenant: &mut Tenant, group: &str, upn: &str) {
    let id = tenant.group_id(group).expect("a group");
    assert!(tenant.join(Timestamp::MIN, upn, id), "{upn} joins {group}");
}

// Case: everything is ready.
#[test]
fn a_good_wave_is_ready_and_nothing_changes() {
    let bench = Bench::of(3);
    let before = bench.everything();
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(0);
    assert_eq!(said.out, "", "stdout is for data");
    said.says([
        "checked 3 rows of wave.csv: 3 may get a pass",
        "verdict: ready; nothing was changed",
    ])
    .says(["next: tapwave run wave.csv"]);
    bench.is_unchanged();
    assert_eq!(bench.everything(), before, "check leaves no file behind");
}

// Case: what check tells to type is pasted, with all its flags in it.
#[cfg(unix)]
#[test]
fn what_check_tells_to_type_works_as_it_stands() {
    let bench = Bench::of(2);
    let it = bench.reader("key");
    bench.wave([person(1), "gone@contoso.example".to_owned(), person(2)]);
    let check = ["check", "wave.csv", "-r", &it.key, "--multi-use", "--lifetime", "90"];
    let said = bench.tapwave(&check).ends(3);
    let why = "writes these rows to a file so that you can correct them; --skip-ineligible leaves them out";
    let said = bench.pasted(&said.command(why)).ends(3);
    assert!(bench.read("rejects.csv").contains("gone@contoso.example"));
    bench.pasted(&said.command("once its rows are mended")).ends(3).says(["1 with problems"]);
    let said = bench.tapwave(&[&check[..], &["--skip-ineligible"]].concat()).ends(0);
    bench.pasted(&said.command("issues the passes")).ends(0);
    bench.tenant(|tenant, _| {
        let passes: Vec<_> = tenant.passes().map(|(_, _, pass)| pass.lifetime_minutes).collect();
        assert_eq!(passes, [90, 90]);
    });
}

// Case: a script reads the verdict.
#[test]
fn the_verdict_is_one_json_object() {
    let bench = Bench::of(2);
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "--json", "-q"]).ends(0);
    let verdict = said.json();
    let names = ["eligible", "ineligible", "problems", "recipients", "rows", "schema", "skipped"];
    assert_eq!(keys(&verdict), [&names[..], &["verdict", "warnings"]].concat());
    assert_eq!(verdict["schema"], "tapwave.check/1");
    assert_eq!((&verdict["verdict"], &verdict["eligible"]), (&json!("ready"), &json!(2)));
    assert_eq!(said.err, "", "quiet says nothing when nothing is wrong");
}

// Case: the method is switched off in the tenant.
#[test]
fn a_disabled_policy_ends_the_check() {
    let bench = Bench::of(1);
    bench.tenant(|tenant, _| tenant.policy_mut().enabled = false);
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(3);
    said.says(["policy of this tenant is disabled", "hint: tapwave policy enable"]);
    bench.is_unchanged();
}

// Case: the hint about it is pasted. At a terminal the command would ask first.
#[cfg(unix)]
#[test]
fn the_hint_about_a_disabled_policy_turns_it_on() {
    let bench = Bench::of(1);
    bench.tenant(|tenant, _| tenant.policy_mut().enabled = false);
    let said = bench.tapwave(&["run", "wave.csv", "-r", ANYBODY]).ends(3);
    let hint = said.err.lines().find_map(|line| line.trim().strip_prefix("hint: "));
    let (enable, _) = hint.and_then(|hint| hint.split_once(" turns it on")).expect("a command");
    bench.pasted(&format!("{enable} --yes")).ends(0);
    bench.tapwave(&["run", "wave.csv", "-r", ANYBODY]).ends(0);
}

// Case: a policy that lets nobody have a pass.
#[test]
fn a_policy_without_targets_ends_the_check() {
    let bench = Bench::of(1);
    bench.tenant(|tenant, _| tenant.policy_mut().include.clear());
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(3);
    said.says(["includes nobody", "hint: tapwave policy include GROUP"]);
}

// Case: lifetimes below and above what the policy allows, by column and by flag.
#[test]
fn a_lifetime_outside_the_policy_is_named_by_row() {
    let bench = Bench::of(3);
    bench.write(
        "wave.csv",
        "UPN,lifetimeInMinutes\nperson1@contoso.example,59\nperson2@contoso.example,481\n\
         person3@contoso.example,480\n",
    );
    let bounds = |asked| format!("asks for {asked} minutes; the policy allows 60 to 480");
    assert_eq!(bench.check(&[], 3), [(2, bounds(59)), (3, bounds(481))]);
    bench.wave([person(1)]);
    assert_eq!(bench.check(&["--lifetime", "30"], 3), [(2, bounds(30))]);
    assert_eq!(bench.check(&["--lifetime", "60"], 0), []);
}

// Case: the policy forces one-time passes, and the wave asks for others.
#[test]
fn multi_use_is_refused_where_the_policy_allows_one_time_passes_alone() {
    let bench = Bench::of(1);
    bench.tenant(|tenant, _| tenant.policy_mut().one_time = true);
    let told = bench.check(&["--multi-use"], 3);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.contains("the policy allows one-time passes alone"), "{told:?}");
    assert_eq!(bench.check(&[], 0), [], "who says nothing gets what the policy forces");
}

// Case: a start so long ago that the pass would be over.
#[test]
fn a_start_whose_end_has_passed_is_a_problem() {
    let bench = Bench::of(1);
    let told = bench.check(&["--start", "2020-01-01T08:00Z"], 3);
    assert!(told[0].1.contains("would start at 2020-01-01T08:00:00Z"), "{told:?}");
    assert!(told[0].1.contains("give it a later start"), "{told:?}");
}

// Case: everything that can be wrong with a person's account.
#[test]
fn accounts_that_can_have_no_pass_are_told_apart() {
    let names = ["off", "guest", "inner", "gone", "fine"].map(|it| format!("{it}@contoso.example"));
    let mut tenant = Tenant::for_wave(&names[..], 3);
    tenant.amend(&names[0], |user| user.enabled = false);
    let guest = DirectoryUser::external_guest(names[1].clone(), "A Guest");
    tenant.amend(&names[1], |user| *user = guest);
    tenant.amend(&names[2], |user| user.user_type = Some("Guest".to_owned()));
    tenant.dismiss(Timestamp::now(), &names[3]);
    let bench = Bench::new(tenant);
    bench.wave(&names);
    let told = bench.check(&[], 3);
    let starts = [
        (2, "the account is disabled; enable it first"),
        (3, "is an external guest, who cannot have a pass"),
        (5, "no such user in the tenant; a user made minutes ago may not be visible yet"),
    ];
    assert_eq!(told, starts.map(|(line, reason)| (line, reason.to_owned())));
}

// Case: somebody the policy does not include, and somebody both included and excluded.
#[test]
fn targets_hold_through_nested_groups_and_exclusion_wins() {
    let mut tenant = Tenant::for_wave(people(3), 3);
    tenant.add_user(DirectoryUser::named("outside@contoso.example", "Out Side"));
    let kept_out = tenant.add_group("Kept out");
    let inner = tenant.add_group("Kept out, inner");
    tenant.nest(Timestamp::MIN, inner, kept_out);
    joined(&mut tenant, "Kept out, inner", &person(2));
    tenant.policy_mut().exclude = vec![PolicyTarget::group(kept_out)];
    let bench = Bench::new(tenant);
    bench.wave([&person(1), &person(2), "outside@contoso.example", &person(3)]);
    let excluded = "is excluded by the Temporary Access Pass policy".to_owned();
    let outside = "is in no group that the Temporary Access Pass policy includes".to_owned();
    assert_eq!(bench.check(&[], 3), [(3, excluded), (4, outside)]);
}

// Case: a policy that names people themselves.
#[test]
fn users_can_be_targets_themselves() {
    let mut tenant = Tenant::for_wave(people(3), 3);
    let [one, two] = [1, 2].map(|it| tenant.user_id(&person(it)).expect("a user"));
    tenant.policy_mut().include = vec![PolicyTarget::user(one), PolicyTarget::user(two)];
    tenant.policy_mut().exclude = vec![PolicyTarget::user(two)];
    let bench = Bench::new(tenant);
    bench.wave(people(3));
    let lines: Vec<u64> = bench.check(&[], 3).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 4]);
}

// Case: --group by name and by id; one person is not in it.
#[test]
fn a_demanded_group_may_be_named_or_given_by_id() {
    let mut tenant = Tenant::for_wave(people(2), 3);
    let group = tenant.add_group("Site O'Neil & Söhne");
    joined(&mut tenant, "Site O'Neil & Söhne", &person(1));
    let bench = Bench::new(tenant);
    bench.wave(people(2));
    let missing = vec![(3, "is not in the group Site O'Neil & Söhne".to_owned())];
    assert_eq!(bench.check(&["--group", "Site O'Neil & Söhne"], 3), missing);
    assert_eq!(bench.check(&["--group", &group.to_string()], 3), missing);
    assert_eq!(bench.check(&["--group", "Onboarding"], 0), []);
    let both = ["--group", "Onboarding", "--group", "Site O'Neil & Söhne"];
    assert_eq!(bench.check(&both, 3), missing);
}

// Case: --group names two groups, or none.
#[test]
fn a_group_must_be_one() {
    let mut tenant = Tenant::for_wave(people(1), 3);
    tenant.add_group("Twins");
    tenant.add_group("Twins");
    let bench = Bench::new(tenant);
    bench.wave(people(1));
    let nobody = "00000000-0000-4000-8000-00000000dead";
    for (group, said) in [
        ("Twins", "2 groups are named Twins; give the id of the one that is meant"),
        ("Nowhere", "there is no group Nowhere"),
        (nobody, "there is no group 00000000-0000-4000-8000-00000000dead"),
    ] {
        let flags = ["check", "wave.csv", "-r", ANYBODY, "--group", group];
        bench.tapwave(&flags).ends(3).says([said, "hint: "]);
    }
}

// Case: a group that hides its members. Nobody can be confirmed, so nobody gets a pass, and
// the reason says why that may be.
#[test]
fn a_group_that_hides_its_members_confirms_nobody() {
    let mut tenant = Tenant::for_wave(people(1), 3);
    let hidden = tenant.add_group("Hidden");
    joined(&mut tenant, "Hidden", &person(1));
    tenant.hide_group(hidden);
    let bench = Bench::new(tenant);
    bench.wave(people(1));
    let told = bench.check(&["--group", "Hidden"], 3);
    assert!(told[0].1.contains("the group Hidden, which hides its members"), "{told:?}");
    assert!(told[0].1.contains("grant Member.Read.Hidden"), "{told:?}");
}

// Case: people joined the group a minute ago and the directory's lists do not show them yet.
#[test]
fn whoever_the_lagging_index_lacks_is_asked_about() {
    let count = 100;
    let mut tenant = Tenant::for_wave(people(count), 3);
    tenant.options_mut().membership_lag = Duration::from_mins(10);
    let included = tenant.add_group("Fresh");
    let now = Timestamp::now();
    let minute = now - SignedDuration::from_mins(1);
    for (index, upn) in people(count).iter().enumerate() {
        let since = if index % 10 == 0 { minute } else { Timestamp::MIN };
        tenant.join(since, upn, included);
    }
    tenant.policy_mut().include = vec![PolicyTarget::group(included)];
    let bench = Bench::new(tenant);
    bench.wave(people(count));
    assert_eq!(bench.check(&["--existing", "replace"], 0), []);
    let asked = bench.tenant(|tenant, _| tenant.seen(Call::CheckGroups));
    assert_eq!(asked, 10, "only those that the list lacks are asked about");
}

// Case: a large group's list tells of its members, so that only those are asked for by name
// whom the list does not have or who are not as hoped: it may be out of date.
#[test]
fn whoever_is_not_in_order_on_the_list_is_asked_for_by_name() {
    let count = 100;
    let mut tenant = Tenant::for_wave(people(count), 3);
    tenant.amend(&person(7), |user| user.enabled = false);
    let guest = DirectoryUser::external_guest(person(9), "A Guest");
    tenant.amend(&person(9), |user| *user = guest);
    tenant.dismiss(Timestamp::now(), &person(11));
    let bench = Bench::new(tenant);
    bench.wave(people(count));
    let lines: Vec<u64> = bench.check(&[], 3).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [8, 10, 12]);
    let filters = bench.tenant(|tenant, _| tenant.seen(Call::Users));
    assert_eq!(filters, 1, "three names fit one filter");
}

// Case: an account made a minute ago is not visible yet, and later is.
#[test]
fn a_user_who_appears_late_is_found_by_the_next_check() {
    let mut tenant = Tenant::for_wave(people(1), 3);
    tenant.options_mut().appear_delay = Duration::from_mins(5);
    let late = "late@contoso.example";
    tenant.hire(Timestamp::now(), DirectoryUser::named(late, "Late Riser"));
    joined(&mut tenant, "Onboarding", late);
    let bench = Bench::new(tenant);
    bench.wave([&person(1), late]);
    let told = bench.check(&[], 3);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.contains("a user made minutes ago may not be visible yet"), "{told:?}");
    bench.tenant(|tenant, _| tenant.amend(late, |user| user.appears_at = Timestamp::MIN));
    assert_eq!(bench.check(&[], 0), []);
}

// Case: the token lacks permissions. They are named, least first, before any call.
#[test]
fn missing_permissions_are_named_before_any_call() {
    let some = jwt(&["User.Read.All", "Policy.Read.All"]);
    let bench = Bench::signed_in(Tenant::for_wave(people(1), 3), &some);
    bench.wave(people(1));
    for command in ["check", "run"] {
        let said = bench.tapwave(&[command, "wave.csv", "-r", ANYBODY]).ends(5);
        said.says([
            "the application token lacks UserAuthMethod-TAP.ReadWrite.All",
            "hint: grant this application permission of Microsoft Graph",
        ]);
    }
    bench.is_untouched();
}

// Case: the right to read groups is needed only where groups matter, which the policy tells:
// it is named before any call that would read them.
#[test]
fn group_permissions_are_named_once_the_policy_names_groups() {
    let some = jwt(&["User.Read.All", "Policy.Read.All", "UserAuthMethod-TAP.ReadWrite.All"]);
    let bench = Bench::signed_in(Tenant::for_wave(people(1), 3), &some);
    bench.wave(people(1));
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(5);
    said.says(["lacks GroupMember.Read.All"]);
    let seen = |call| bench.tenant(|tenant, _| tenant.seen(call));
    assert_eq!((seen(Call::Groups), seen(Call::CheckGroups)), (0, 0));
    bench.tenant(|tenant, _| tenant.policy_mut().include = vec![PolicyTarget::everyone()]);
    bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(0);
}

// Case: a token with every role; nothing needs to be said about it.
#[test]
fn sufficient_permissions_are_no_news() {
    let all = jwt(&ROLES);
    let bench = Bench::signed_in(Tenant::for_wave(people(1), 3), &all);
    bench.wave(people(1));
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(0);
    said.hides("note:").hides("permission");
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "-v"]).ends(0);
    said.says([
        "signed in with token as tapwave-tests (application, tenant contoso, 5 permissions)",
    ])
    .hides(&all);
}

// Case: a token that is no JWT is used as it is, and that is said.
#[test]
fn an_opaque_token_is_used_with_a_note() {
    let bench = Bench::of(1);
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "-vv"]).ends(0);
    said.says(["note: the token is opaque, so its permissions could not be read"]).hides(OPAQUE);
}

// Case: somebody else's live pass is there already, for each value of --existing.
#[test]
fn a_live_pass_is_refused_skipped_or_replaced_as_asked() {
    let bench = Bench::of(2);
    bench.tenant(|tenant, now| tenant.issue_elsewhere(now, &person(2)));
    let told = bench.check(&[], 3);
    let words =
        "has a live pass already; use --existing skip to leave it, or replace to replace it";
    assert_eq!(told, [(3, words.to_owned())]);
    let flags = ["check", "wave.csv", "-r", ANYBODY, "--json", "--existing", "skip"];
    let skip = bench.tapwave(&flags).ends(0).json();
    assert_eq!((&skip["eligible"], &skip["skipped"]), (&json!(1), &json!(1)));
    let looked = bench.tenant(|tenant, _| tenant.seen(Call::Look));
    assert_eq!(bench.check(&["--existing", "replace"], 0), []);
    assert_eq!(bench.tenant(|tenant, _| tenant.seen(Call::Look)), looked, "replace reads nothing");
    assert_eq!(bench.events().len(), 1, "only somebody else's pass was ever made");
}

// Case: a pass that is over or used up does not stand in the way.
#[test]
fn a_dead_pass_is_no_problem() {
    let mut tenant = Tenant::for_wave(people(2), 3);
    tenant.policy_mut().one_time = true;
    let long_ago = Timestamp::now() - SignedDuration::from_hours(3);
    tenant.issue_elsewhere(long_ago, &person(1)).expect("a pass");
    let bench = Bench::new(tenant);
    bench.tenant(|tenant, now| {
        tenant.issue_elsewhere(now, &person(2)).expect("a pass");
        tenant.use_pass(now, &person(2)).expect("a sign-in");
    });
    bench.wave(people(2));
    assert_eq!(bench.check(&[], 0), []);
}

// Case: the same wave a second time by mistake.
#[test]
fn running_a_wave_twice_names_the_earlier_run_and_kills_nothing() {
    let bench = Bench::of(3);
    let it = bench.reader("key");
    bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(0);
    let (codes, events) = (bench.codes(), bench.events().len());
    let first = bench.runs()[0].file_name().expect("a name").to_string_lossy().into_owned();
    let said = bench.tapwave(&["run", "wave.csv", "-r", &it.key]).ends(3);
    said.says([&format!("has a live pass already, issued by run {first}")]);
    assert_eq!((bench.codes(), bench.events().len()), (codes.clone(), events));
    assert_eq!(bench.runs().len(), 1, "no second run folder is left");
    assert_eq!(bench.opened("latest", &it.file), codes);
}

// Case: some rows have problems, and the others shall not wait.
#[test]
fn skip_ineligible_issues_to_the_others() {
    let bench = Bench::of(3);
    bench.tenant(|tenant, _| tenant.amend(&person(2), |user| user.enabled = false));
    let it = bench.reader("key");
    let said = bench.tapwave(&["check", "wave.csv", "-r", &it.key, "--skip-ineligible"]).ends(0);
    said.says(["the account is disabled", "verdict: ready without some rows"]);
    bench.is_unchanged();
    let flags = ["run", "wave.csv", "-r", &it.key, "--skip-ineligible", "--json"];
    let summary = bench.tapwave(&flags).ends(0).json();
    assert_eq!((&summary["ineligible"], &summary["sealed"]), (&json!(1), &json!(2)));
    let codes = bench.codes();
    assert_eq!(codes.keys().collect::<Vec<_>>(), [&person(1), &person(3)]);
}

// Case: the rejected rows are mended in their own file and run again.
#[test]
fn rejects_can_be_mended_and_run_again() {
    let bench = Bench::of(4);
    bench.write(
        "wave.csv",
        "UPN;Team;lifetimeInMinutes\nperson1@contoso.example;\"A; B\";60\n\
         person2@contoso.example;C;5\nperson 3@contoso.example;D;60\nperson4@contoso.example;E\n",
    );
    let it = bench.reader("key");
    let run = ["run", "wave.csv", "-r", &it.key, "--skip-ineligible", "--rejects", "rejects.csv"];
    bench.tapwave(&run).ends(0).says(["rejects.csv"]);
    let rejects = bench.read("rejects.csv");
    assert!(rejects.contains("reason;UPN;Team;lifetimeInMinutes"), "{rejects}");
    assert_eq!(rejects.lines().count(), 4, "{rejects}");
    let mended = rejects
        .replace(";C;5", ";C;60")
        .replace(";person 3@", ";person3@")
        .replace("person4@contoso.example;E", "person4@contoso.example;E;60");
    bench.write("mended.csv", mended);
    bench.tapwave(&["run", "mended.csv", "-r", &it.key]).ends(0);
    assert_eq!(bench.codes().keys().cloned().collect::<Vec<_>>(), people(4));
}

// Case: --rejects would overwrite something.
#[test]
fn rejects_never_replace_a_file() {
    let bench = Bench::of(1);
    bench.wave(["nobody@contoso.example"]);
    bench.write("rejects.csv", "mine");
    let flags = ["check", "wave.csv", "-r", ANYBODY, "--rejects", "rejects.csv"];
    bench.tapwave(&flags).ends(2).says(["rejects.csv: it is there already", "--rejects"]);
    assert_eq!(bench.read("rejects.csv"), "mine");
    bench.is_untouched();
}

// Case: every fault of a file and of the tenant in one go, by line.
#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let mut tenant = Tenant::for_wave(people(4), 3);
    tenant.amend(&person(4), |user| user.enabled = false);
    let bench = Bench::new(tenant);
    bench.write(
        "wave.csv",
        "UPN,lifetimeInMinutes\nperson1@contoso.example,\nperson 2@contoso.example,\n\
         person3@contoso.example,5\nPERSON1@contoso.example,\nperson4@contoso.example,481\n\
         nobody@contoso.example,\n",
    );
    let told = bench.check(&[], 3);
    let lines: Vec<u64> = told.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7], "{told:?}");
    let both = &told[3].1;
    assert!(both.contains("481 minutes") && both.contains("the account is disabled"), "{both}");
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY]).ends(3);
    let rows = said.err.lines().filter(|line| line.contains("@contoso.example")).count();
    assert_eq!(rows, 5, "each problem is a line of the table:\n{}", said.err);
    bench.is_unchanged();
}

// Case: one person under two names.
#[test]
fn two_names_of_one_user_are_a_problem() {
    let mut tenant = Tenant::for_wave(people(1), 3);
    tenant.amend(&person(1), |user| user.upn = "PERSON1@CONTOSO.EXAMPLE".to_owned());
    let bench = Bench::new(tenant);
    bench.wave(["person1@contoso.example", "Person1@Contoso.Example"]);
    let told = bench.check(&[], 3);
    assert_eq!(told.len(), 1);
    assert!(told[0].0 == 3 && told[0].1.contains("line 2"), "{told:?}");
}

/// A start that is `hours` from now.
fn hence(hours: i64) -> String {
    (Timestamp::now() + SignedDuration::from_hours(hours)).to_string()
}

// Case: each thing that is odd about a wave, and stops nothing.
#[test]
fn what_is_odd_about_a_wave_is_warned_of() {
    let bench = Bench::of(2);
    let warned = |flags: &[&str]| {
        let all = [&["check", "wave.csv", "-r", ANYBODY, "--json"], flags].concat();
        let warnings = bench.tapwave(&all).ends(0).json()["warnings"].clone();
        warnings.as_array().expect("warnings").iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(warned(&[]), "");
    let once = warned(&["--one-time"]);
    assert!(once.contains("2 of the passes work once only"), "{once}");
    assert!(once.contains("such a wave needs --multi-use"), "{once}");
    let past = warned(&["--start", &hence(-1), "--lifetime", "240"]);
    assert!(past.contains("2 of the start times have passed"), "{past}");
    let (soon, later) = (hence(1), hence(30));
    bench.write(
        "wave.csv",
        format!(
            "UPN,startDateTime\nperson1@contoso.example,{soon}\nperson2@contoso.example,{later}\n"
        ),
    );
    let span = warned(&[]);
    assert!(span.contains("the first and the last start are 29 h apart"), "{span}");
    bench.tenant(|tenant, _| tenant.policy_mut().include = vec![PolicyTarget::everyone()]);
    bench.wave(people(2));
    let everyone = warned(&[]);
    assert!(everyone.contains("the policy includes everyone in the tenant"), "{everyone}");
}

// Case: a wave that takes longer to issue than its passes live.
#[test]
fn a_lifetime_shorter_than_the_forecast_is_warned_of() {
    let bench = Bench::of(2_000);
    let said = bench.tapwave(&["check", "wave.csv", "-r", ANYBODY, "--existing", "replace"]);
    said.ends(0)
        .says(["warning: ", "issuing takes 67 min, longer than the shortest lifetime of 60 min"]);
}

// Case: ten thousand people. Never a call for each, and at most one for twenty.
#[test]
fn a_large_wave_is_checked_in_few_calls() {
    let rows = 10_000;
    let bench = Bench::of(rows);
    assert_eq!(bench.check(&["--existing", "replace"], 0), []);
    let replace = bench.requests();
    assert!(replace * 20 <= rows as u64, "{replace} calls with --existing replace");
    assert_eq!(bench.check(&[], 0), []);
    let fail = bench.requests() - replace;
    println!("{rows} rows: {replace} calls with --existing replace, {fail} by default");
    // One batch for the passes of twenty, and the policy and the group's pages besides.
    assert!(fail <= rows as u64 / 20 + 15, "{fail} calls by default");
    let log = bench.events();
    assert!(!log.iter().any(|event| matches!(event, PassEvent::Minted { .. })));
}
