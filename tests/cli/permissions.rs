//! Promises that a token is refused before any call only where it certainly does not suffice,
//! and that a doubt about it is told.

use serde_json::{Value, json};
use tapwave_simulator::Tenant;

use crate::support::bench::{ANYBODY, Bench, jwt, people, person_jwt};

const CHECK: [&str; 4] = ["check", "wave.csv", "-r", ANYBODY];
/// What a person needs for a run besides the right to read groups.
const SCOPES: &str =
    "UserAuthMethod-TAP.ReadWrite.All Policy.Read.AuthenticationMethod User.Read.All";
const AUTHENTICATION_ADMINISTRATOR: &str = "c4e39bd9-1100-46d3-8c65-fb160da0071f";

fn signed_in(token: &str) -> Bench {
    let bench = Bench::signed_in(Tenant::for_wave(people(2), 3), token);
    bench.wave(people(2));
    bench
}

// Case: permissions that came after the list was written, or that are wide. Graph decides.
#[test]
fn a_doubt_about_permissions_is_a_warning() {
    let read_basic = signed_in(&person_jwt(&format!("{SCOPES} GroupMember.ReadBasic.All"), None));
    read_basic.tapwave(&CHECK).ends(0).hides("warning: the delegated token");
    let wide = "UserAuthMethod-TAP.ReadWrite.All Policy.Read.All Directory.AccessAsUser.All";
    signed_in(&person_jwt(wide, None)).tapwave(&CHECK).ends(0).hides("warning: the delegated");
    for (token, named) in [
        (person_jwt("openid Directory.AccessAsUser.All", None), "Directory.AccessAsUser.All"),
        (jwt(&["Passes.Everything.All", "User.Read.All"]), "Passes.Everything.All"),
    ] {
        let bench = signed_in(&token);
        for command in [&CHECK[..], &["check", "--access"], &["run", "wave.csv", "-r", ANYBODY]] {
            let said = bench.tapwave(command).ends(0);
            said.says(["warning: the", "UserAuthMethod-TAP.ReadWrite.All allows; whether", named]);
        }
    }
}

// Case: every permission is known, and they are too few.
#[test]
fn permissions_that_are_all_known_and_too_few_are_refused() {
    for scopes in ["openid profile email User.Read", "Mail.Send User.Read.All"] {
        let bench = signed_in(&person_jwt(scopes, None));
        let said = bench.tapwave(&CHECK).ends(5);
        said.says(["the delegated token lacks ", "UserAuthMethod-TAP.ReadWrite.All"]);
        bench.is_untouched();
    }
}

// Case: an administrator's role is eligible in Privileged Identity Management and not activated;
// the token has the scopes, and its `wids` lacks the role.
#[test]
fn a_role_that_is_not_active_is_told_before_the_run() {
    let case: Value =
        serde_json::from_str(include_str!("../cases/role-not-active/tenant.json")).expect("JSON");
    let wave = include_str!("../cases/role-not-active/wave.csv");
    let scopes = format!("{SCOPES} GroupMember.Read.All");
    let bench = |wids: Option<&Value>| {
        let upns: Vec<&str> = wave.lines().skip(1).collect();
        let tenant = Tenant::for_wave(upns, 3);
        let bench = Bench::signed_in(tenant, &person_jwt(&scopes, wids));
        bench.write("wave.csv", wave);
        bench
    };
    let inactive = bench(Some(&case["claims"]["wids"]));
    for command in ["check", "run"] {
        let said = inactive.tapwave(&[command, "wave.csv", "-r", ANYBODY]).ends(5);
        said.says(["no active role", "Authentication Administrator", "Privileged Identity"]);
    }
    inactive.is_untouched();
    // A role over an administrative unit is in no token: whoever has one says so.
    let said = inactive.tapwave(&[&CHECK[..], &["--yes"]].concat()).ends(0);
    said.says(["warning: your account has no active role"]);
    for wids in [Some(json!([AUTHENTICATION_ADMINISTRATOR])), Some(Value::Null), None] {
        bench(wids.as_ref()).tapwave(&CHECK).ends(0).hides("no active role");
    }
}
