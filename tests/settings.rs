//! Promises that settings say where they came from, that secrets are only ever `set`, and that
//! a slip of the hand is met with the word that was meant.

use serde_json::{Value, json};

use crate::support::program::{Program, Ran};

fn known(ran: &Ran, name: &str) -> (Value, Value) {
    let settings = ran.json();
    let all = settings["settings"].as_array().expect("a list").clone();
    let one = all.into_iter().find(|one| one["name"] == name);
    one.map(|one| (one["value"].clone(), one["from"].clone())).expect("the setting")
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_win_over_variables_and_variables_over_the_file() {
    let program = Program::new().var("AZURE_TENANT_ID", "of-env").always(&["settings", "--json"]);
    program.write("tapwave.toml", "tenant = 'of-file'\nclient_id = 'of-file'\nmax_rate = 3.0\n");
    let ran = program.run(&[]).exits(0);
    assert_eq!(known(&ran, "tenant"), (json!("of-env"), json!("environment")));
    assert_eq!(known(&ran, "client_id"), (json!("of-file"), json!("file")));
    assert_eq!(known(&ran, "max_rate"), (json!("3"), json!("file")));
    assert_eq!(known(&ran, "settle_after"), (Value::Null, json!("default")));
    let ran = program.run(&["--tenant", "of-flag"]).exits(0);
    assert_eq!(known(&ran, "tenant"), (json!("of-flag"), json!("flag")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_and_a_key_of_before_go_on_working() {
    let program = Program::new().always(&["settings", "--json"]);
    program.write("tapwave.toml", "fence = '6m'\n");
    assert_eq!(known(&program.run(&[]).exits(0), "settle_after"), (json!("6m"), json!("file")));
    let ran = program.run(&["--fence", "7m"]).exits(0);
    assert_eq!(known(&ran, "settle_after"), (json!("7m"), json!("flag")));
    let help = program.run(&["--help"]).exits(0);
    assert!(!help.out.contains("--fence") && help.out.contains("--settle-after"), "{}", help.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_picks_graph_and_authority_together() {
    let program = Program::new().always(&["settings", "--json"]);
    let places = |ran: &Ran| (known(ran, "graph_url").0, known(ran, "authority_url").0);
    let ran = program.run(&["--cloud", "usgov-dod"]).exits(0);
    let us = json!("https://login.microsoftonline.us");
    assert_eq!(places(&ran), (json!("https://dod-graph.microsoft.us"), us.clone()));
    let program = program.var("AZURE_AUTHORITY_HOST", "login.contoso.example");
    assert_eq!(places(&program.run(&["--cloud", "usgov"]).exits(0)).1, us, "the flag wins");
    let ran = program.run(&[]).exits(0);
    assert_eq!(known(&ran, "authority_url").1, "environment");
    assert_eq!(places(&ran).1, "https://login.contoso.example");
    let ran = program.run(&["--authority-url", "https://sts.contoso.example"]).exits(0);
    assert_eq!(places(&ran).1, "https://sts.contoso.example");
    program.run(&["--authority-url", "http://sts.contoso.example"]).exits(2).says("https");
    for china in [program.run(&["--cloud", "china"]), {
        program.write("tapwave.toml", "cloud = 'china'");
        program.run(&[])
    }] {
        china.exits(2).says("has no Temporary Access Passes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_set_and_never_shown() {
    let secret = "an-unlikely-secret";
    let program = Program::new().var("TAPWAVE_ACCESS_TOKEN", secret).always(&["settings"]);
    let path = program.write("secret", secret);
    program.write("tapwave.toml", format!("client_secret_file = '{path}'\n"));
    for arguments in [&[][..], &["--json"]] {
        let ran = program.run(arguments).exits(0);
        assert!(!format!("{ran:?}").contains(secret), "{ran:?}");
    }
    let ran = program.run(&["--json"]).exits(0);
    assert_eq!(known(&ran, "access_token"), (json!("set"), json!("environment")));
    assert_eq!(known(&ran, "client_secret"), (json!("set"), json!("file")));
    program.write("tapwave.toml", "client_secret_file = 'x'\nclient_secret_command = ['y']\n");
    program.run(&[]).exits(2).says("cannot both be set");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_met_with_the_one_that_was_meant() {
    let program = Program::new().always(&["settings"]);
    program.write("tapwave.toml", "max_in_fligth = 3\n");
    program.run(&[]).exits(2).says("max_in_fligth").says("did you mean max_in_flight?");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_is_good_as_it_is_and_with_every_key() {
    let program = Program::new().always(&["settings", "--json"]);
    let sample = include_str!("../samples/tapwave.toml");
    program.write("tapwave.toml", sample);
    assert_eq!(
        known(&program.run(&[]).exits(0), "time_zone"),
        (json!("Europe/Amsterdam"), json!("file"))
    );
    let is_key = |line: &str| line.contains(" = ") || line.starts_with('[');
    let whole = sample.lines().filter_map(|line| {
        let bare = line.strip_prefix('#').filter(|key| !key.starts_with(' ')).unwrap_or(line);
        (is_key(bare) && !bare.contains("_command = ")).then_some(bare)
    });
    program.write("tapwave.toml", whole.collect::<Vec<_>>().join("\n"));
    let ran = program.run(&[]).exits(0);
    let settings = ran.json();
    for one in settings["settings"].as_array().expect("a list") {
        let in_file = one["name"] != "access_token";
        assert_eq!(one["from"] == "file", in_file, "{one} is missing from the sample");
    }
}
