//! Promises that the sample script gives an app registration exactly the permissions that
//! tapwave asks for, and uploads no private key. A stand-in for the Azure CLI is the witness.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tapwave_graph::sign_in::permissions::Need;

/// Writes down its arguments and answers as the Azure CLI does; a role's id is its name.
const AZ: &str = r#"#!/bin/bash
printf '%s\n' "$*" >>"$AZ_LOG"
for word in "$@"; do
    case $word in
        @*) cat "${word#@}" >>"$AZ_LOG" ;;
        *value==*) word=${word#*value==\'}; echo "id-of-${word%%\'*}" ;;
    esac
done
case "$*" in
    "ad app create"*) echo the-app ;;
    "account show"*) echo the-tenant ;;
esac
"#;

fn register(folder: &Path, arguments: &[&str], policy: &str) -> (Output, String) {
    let az = folder.join("az");
    fs::write(&az, AZ).expect("a file");
    fs::set_permissions(&az, Permissions::from_mode(0o755)).expect("executable");
    let log = folder.join("log");
    fs::write(&log, "").expect("a file");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    let output = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/register-app.sh"))
        .args(arguments)
        .env("PATH", path)
        .env("AZ_LOG", &log)
        .env("WITH_POLICY", policy)
        .output()
        .expect("bash runs");
    (output, fs::read_to_string(log).expect("a log"))
}

fn granted(log: &str) -> Vec<&str> {
    let granted = log.lines().filter_map(|line| line.split("--api-permissions id-of-").nth(1));
    let mut granted: Vec<_> = granted.filter_map(|rest| rest.split("=Role").next()).collect();
    granted.sort_unstable();
    granted
}

#[test]
fn exactly_the_least_permissions_are_granted() {
    let folder = tempfile::tempdir().expect("a folder");
    let workload = ["workload", "https://issuer.example", "repo:contoso/onboarding"];
    for (policy, need) in [("", Need::ReadPolicy), ("1", Need::WritePolicy)] {
        let (output, log) = register(folder.path(), &workload, policy);
        assert!(output.status.success(), "{output:?}");
        let mut least =
            [Need::WritePasses, Need::ReadUsers, Need::ReadGroups, need].map(Need::least);
        least.sort_unstable();
        assert_eq!(granted(&log), least);
        // What reads the policy and the passes is held by what writes them.
        for need in [Need::ReadPasses, Need::ReadPolicy] {
            assert!(need.sufficient().iter().any(|name| least.contains(name)), "{need:?}");
        }
        assert!(log.contains(r#""subject": "repo:contoso/onboarding""#), "{log}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "AZURE_TENANT_ID=the-tenant\nAZURE_CLIENT_ID=the-app\n");
    }
}

#[test]
fn a_certificate_is_uploaded_without_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let pem = folder.path().join("both.pem");
    let part = |name: &str| format!("-----BEGIN {name}-----\n{name}\n-----END {name}-----\n");
    fs::write(&pem, part("PRIVATE KEY") + &part("CERTIFICATE")).expect("a file");
    let (output, log) = register(folder.path(), &["certificate", &pem.display().to_string()], "");
    assert!(output.status.success(), "{output:?}");
    assert!(log.contains("-----BEGIN CERTIFICATE-----") && !log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn wrong_arguments_change_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    for wrong in [&[][..], &["certificate"], &["workload", "issuer"], &["certificate", "/gone"]] {
        let (output, log) = register(folder.path(), wrong, "");
        assert_eq!((output.status.code(), log.as_str()), (Some(2), ""), "{wrong:?}");
    }
}
