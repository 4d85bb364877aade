//! Promises every way to sign in, against a token endpoint over TLS that checks what it is
//! shown, and words for every way it can fail. The endpoint's own memory is the witness.

use crate::support::authority;
#[cfg(unix)]
use crate::support::hearing;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine;
#[cfg(unix)]
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p12_keystore::{KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use pkcs8::der::pem::LineEnding;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use tapwave_simulator::Tenant;
use tapwave_simulator::options::{Fault, Faults, Latency};

use crate::support::authority::{Authority, CLIENT, Instead, SECRET, TENANT};
use crate::support::program::Program;
use crate::support::server::Served;
#[cfg(unix)]
use crate::support::until::until;

const ACCESS: [&str; 2] = ["check", "--access"];

/// A tenant, an endpoint that tells it each new token, and the program set to both.
async fn office(upns: usize) -> (Served, Authority, Program) {
    let upns: Vec<String> = (0..upns).map(|n| format!("u{n}@contoso.example")).collect();
    let served = Served::open(Tenant::for_wave(upns, 5), 0, "none", None).await.expect("a port");
    let authority = Authority::open().await;
    authority.tells(&served.url());
    let program = aimed(&served.url().replace("/v1.0", ""), &authority);
    (served, authority, program)
}

/// The program, set to a Graph and an endpoint.
fn aimed(graph: &str, authority: &Authority) -> Program {
    let program = Program::new();
    let ca = program.write("ca.pem", authority.ca_pem());
    let url = authority.url();
    program.always(&[
        "--graph-url",
        graph,
        "--authority-url",
        &url,
        "--ca-file",
        &ca,
        "--tenant",
        TENANT,
        "--client-id",
        CLIENT,
    ])
}

fn with_secret(program: Program) -> Program {
    program.var("AZURE_CLIENT_SECRET", SECRET).always(&["--auth", "client-secret"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_signs_in_and_auto_says_so() {
    let (_served, authority, program) = office(1).await;
    let program = program.var("AZURE_CLIENT_SECRET", SECRET);
    program.run(&ACCESS).exits(0).says("signing in with client-secret");
    let asked = &authority.asked()[0];
    assert!(asked["scope"].ends_with("/.default"), "{asked:?}");
    assert!(asked["scope"].starts_with("http://127.0.0.1:"), "the scope is Graph's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_an_unknown_authority_is_refused() {
    let (_served, authority, program) = office(1).await;
    program.write("ca.pem", authority::other_ca_pem());
    let program = program.var("AZURE_CLIENT_SECRET", SECRET);
    for auth in ["client-secret", "device-code"] {
        let ran = program.run(&["check", "--access", "--auth", auth]).exits(5);
        ran.says(&format!("failed to sign in with {auth}")).says("certificate");
    }
    assert_eq!(authority.asked().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claims_challenge_is_told_as_what_it_is() {
    let authority = Authority::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let graph = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        let answer = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"\", error=\"insufficient_claims\", claims=\"e30=\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        for stream in listener.incoming().take(2) {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            stream.write_all(answer.as_bytes()).expect("written");
        }
    });
    let ran = with_secret(aimed(&graph, &authority)).run(&ACCESS).exits(5);
    ran.says("claims challenge").says("sign in again");
    asked.join().expect("asked twice");
    assert_eq!(authority.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_platform_refuses_is_explained() {
    let (_served, authority, program) = office(1).await;
    let wrong = with_secret(program).var("AZURE_CLIENT_SECRET", "wrong");
    wrong.run(&ACCESS).exits(5).says("the client secret is wrong");
    let program = wrong.var("AZURE_CLIENT_SECRET", SECRET);
    for (text, said) in [
        ("AADSTS7000222: The provided client secret keys are expired.", "secret has expired"),
        ("AADSTS700016: Application was not found in the directory.", "check --client-id"),
        (
            "AADSTS700024: Client assertion is not within its valid time range.",
            "clock of this machine",
        ),
        (
            "AADSTS53003: Access has been blocked by Conditional Access policies.",
            "conditional access",
        ),
    ] {
        authority.answers([Instead::Refused(text)]);
        program.run(&ACCESS).exits(5).says(said);
    }
    authority.answers([Instead::WebPage]);
    program.run(&ACCESS).exits(5).says("a proxy may stand in between");
    authority.answers([Instead::Throttled]);
    program.run(&ACCESS).exits(0);
}

/// An answer that gives back what it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_quotes_a_secret_is_not_shown() {
    let (_served, authority, program) = office(1).await;
    let mut program = with_secret(program);
    for (secret, text) in [
        (SECRET, "AADSTS90014: no field in client_id=x&client_secret=the-right-secret&scope=y"),
        ("a b+c/d~", "AADSTS90014: no field in client_secret=a+b%2bc%2Fd%7E"),
        ("a b+c/d~", "AADSTS90014: no field in client_secret=a b+c/d~"),
    ] {
        authority.answers([Instead::Refused(text)]);
        program = program.var("AZURE_CLIENT_SECRET", secret);
        let ran = program.run(&ACCESS).exits(5);
        let ran = ran.says("AADSTS90014").says("a secret");
        assert!(!ran.err.contains(secret) && !ran.err.contains("a+b%2bc"), "{ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_signs_in_in_every_form() {
    let (_served, authority, program) = office(1).await;
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    let params = CertificateParams::new(Vec::new()).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate");
    authority.registers(&key, certificate.der());
    let plain = format!("{}{}", certificate.pem(), key.serialize_pem());
    let sealed = format!("{}{}", sealed_pem(&key), certificate.pem());
    let files = [
        ("plain.pem", plain.into_bytes(), None),
        ("sealed.pem", sealed.into_bytes(), Some("pa55")),
        ("plain.pfx", pfx(&key, certificate.der(), ""), None),
        ("sealed.pfx", pfx(&key, certificate.der(), "pa55"), Some("pa55")),
    ];
    let mut program = program.always(&["--auth", "client-certificate"]);
    for (name, bytes, password) in files {
        let path = program.write(name, bytes);
        program = program.var("AZURE_CLIENT_CERTIFICATE_PATH", &path);
        program = program.var("AZURE_CLIENT_CERTIFICATE_PASSWORD", "");
        if let Some(password) = password {
            program.run(&ACCESS).exits(2).says("no password");
            program = program.var("AZURE_CLIENT_CERTIFICATE_PASSWORD", "wrong");
            program.run(&ACCESS).exits(2).says("this password");
            program = program.var("AZURE_CLIENT_CERTIFICATE_PASSWORD", password);
        }
        let before = authority.asked().len();
        program.run(&ACCESS).exits(0);
        assert_eq!(authority.asked().len(), before + 1, "{name}");
    }
    authority.answers([Instead::Refused("AADSTS700027: The certificate has expired.")]);
    program.run(&ACCESS).exits(5).says("renew it if it has expired");
    let rubbish = program.write("rubbish", "none of it");
    let program = program.var("AZURE_CLIENT_CERTIFICATE_PATH", &rubbish);
    program.run(&ACCESS).exits(2).says("neither a PFX nor a PEM");
}

fn pfx(key: &KeyPair, certificate: &[u8], password: &str) -> Vec<u8> {
    let key = PrivateKey::from_der(&key.serialize_der()).expect("a key");
    let certificate = p12_keystore::Certificate::from_der(certificate).expect("a certificate");
    let chain = PrivateKeyChain::new(b"1".as_slice(), key, [certificate]);
    let mut store = KeyStore::new();
    store.add_entry("tapwave", KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(password).write().expect("a store")
}

fn sealed_pem(key: &KeyPair) -> String {
    let der = key.serialize_der();
    let info = pkcs8::PrivateKeyInfoRef::try_from(der.as_slice()).expect("a key");
    let how = pkcs8::pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(
        1_000,
        b"salt-salt-salt-1",
        [7; 16],
    );
    let sealed = info.encrypt_with_params(how.expect("parameters"), "pa55").expect("sealed");
    sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).expect("a PEM").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_token_signs_in() {
    let (_served, authority, program) = office(1).await;
    let file = program.write("federated", "federated");
    let program = program.var("AZURE_FEDERATED_TOKEN_FILE", &file);
    program.run(&ACCESS).exits(0).says("signing in with workload-identity");
    assert_eq!(authority.asked()[0]["client_assertion"], "federated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_azure_machine_s_identity_signs_in_over_plain_http() {
    let (served, _authority, program) = office(1).await;
    let token = "a-token-of-the-machine";
    let control = served.url().replace("/v1.0", "/control/break");
    let told = reqwest::Client::builder().no_proxy().build().expect("a client");
    let told = told.post(control).json(&serde_json::json!({"token": token})).send().await;
    assert!(told.expect("an answer").status().is_success());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}/msi/token", listener.local_addr().expect("an address"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        let head = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
        let head = head.collect::<Vec<_>>().join("\n").to_lowercase();
        let body = format!(
            r#"{{"access_token":"{token}","expires_on":"4070908800","resource":"r","token_type":"Bearer"}}"#
        );
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}").expect("written");
        head
    });
    let program = program.var("IDENTITY_ENDPOINT", &endpoint).var("IDENTITY_HEADER", "shared");
    program.run(&ACCESS).exits(0).says("signing in with managed-identity");
    let head = asked.join().expect("asked");
    assert!(
        head.starts_with("get /msi/token") && head.contains("x-identity-header: shared"),
        "{head}"
    );
    assert!(head.contains(&CLIENT.to_lowercase()), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_code_waits_for_the_person() {
    let (_served, authority, program) = office(1).await;
    authority.answers([Instead::Pending("authorization_pending"), Instead::Throttled]);
    let program = program.always(&["--auth", "device-code"]);
    let ran = program.run(&ACCESS).exits(0).says("enter the code ABCD-EFGH");
    assert!(ran.out.contains("delegated"), "{ran:?}");
    let asked = authority.asked();
    assert_eq!(asked.len(), 3);
    assert_eq!(asked[0]["device_code"], "d3vice");
    authority.answers([Instead::Refused("AADSTS50076: You must use multi-factor authentication.")]);
    program.run(&ACCESS).exits(5).says("multi-factor");
    authority.answers([Instead::WebPage]);
    program.run(&ACCESS).exits(5).says("a proxy may stand in between");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_without_the_role_is_told_which() {
    let (served, _authority, program) = office(1).await;
    served.with(|tenant, _| {
        tenant.options_mut().faults = Faults::default().with(None, 1.0, Fault::Forbidden);
    });
    let program = program.always(&["--auth", "device-code"]);
    program.run(&ACCESS).exits(5).says("your account lacks the role Authentication Administrator");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_by_an_hour_change_nothing() {
    let (served, authority, program) = office(1).await;
    for seconds in [3_600, -7_200] {
        let control = served.url().replace("/v1.0", "/control/advance");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let told = client.post(control).json(&serde_json::json!({"seconds": seconds})).send().await;
        assert!(told.expect("an answer").status().is_success());
        program.run(&[&ACCESS[..], &["--auth", "device-code"]].concat()).exits(0);
    }
    assert_eq!(authority.asked().len(), 2, "a token was taken for old by another's clock");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_comes_back_with_a_code_that_fits() {
    let (_served, authority, program) = office(1).await;
    let program = program.always(&["--auth", "interactive"]);
    let mut command = program.command(&ACCESS);
    command.env("PATH", "").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
    let url = tokio::task::block_in_place(|| {
        let told = lines.by_ref().map_while(Result::ok);
        let mut told = told.filter_map(|line| line.split("open ").nth(1).map(str::to_owned));
        told.next().expect("an address")
    });
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_merge([
            reqwest::Certificate::from_pem(authority.ca_pem().as_bytes()).expect("a PEM")
        ])
        .build()
        .expect("a client");
    let visited = client.get(&url).send().await.expect("an answer");
    let back =
        visited.headers()["location"].to_str().expect("a place").replace("localhost", "127.0.0.1");
    let forged = back.split("&state=").next().expect("an address");
    let forged = client.get(format!("{forged}&state=forged")).send().await.expect("an answer");
    assert_eq!(forged.status(), 404, "a page that guessed the port");
    assert_eq!(client.get(&back).send().await.expect("an answer").status(), 200);
    let code = tokio::task::block_in_place(|| {
        lines.for_each(drop);
        child.wait().expect("an end").code()
    });
    assert_eq!(code, Some(0));
    let asked = &authority.asked()[0];
    assert_eq!(asked["grant_type"], "authorization_code");
}

/// Nobody comes: neither to the browser nor with the code.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_stop_ends_the_wait_for_a_person() {
    use rustix::process::{Pid, Signal, kill_process};
    for (auth, signal) in [
        ("interactive", Signal::INT),
        ("device-code", Signal::INT),
        ("device-code", Signal::TERM),
        ("interactive", Signal::HUP),
    ] {
        let (_served, authority, program) = office(1).await;
        authority.answers((0..1_000).map(|_| Instead::Pending("authorization_pending")));
        let program = program.always(&["--auth", auth]);
        let mut command = hearing::hearing(&program.command(&ACCESS));
        command.env("PATH", "").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let (code, rest) = tokio::task::block_in_place(|| {
            let mut told = lines.by_ref().map_while(Result::ok);
            told.find(|line| line.starts_with("to sign in")).expect("an invitation");
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a pid"), signal).expect("sent");
            let rest: Vec<String> = told.collect();
            (child.wait().expect("an end").code(), rest.join("\n"))
        });
        assert_eq!(code, Some(130), "{auth}: {rest}");
        assert!(rest.contains("interrupted; nothing was changed"), "{auth}: {rest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_renews_its_token_once_for_all_its_tasks() {
    for (auth, secret) in [("client-secret", SECRET), ("device-code", "")] {
        let (served, authority, program) = office(40).await;
        served.with(|tenant, _| {
            tenant.options_mut().latency = Latency::of(std::time::Duration::from_millis(400));
        });
        authority.tokens_live(2);
        let program = program.var("AZURE_CLIENT_SECRET", secret).always(&["--auth", auth]);
        let people: Vec<_> = (0..40).map(|n| format!("u{n}@contoso.example")).collect();
        let wave = program.write("wave.csv", format!("userPrincipalName\n{}\n", people.join("\n")));
        let key = program.run(&["keygen"]).exits(0).out;
        let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
        let ran = program.run(&["run", &wave, "-r", key, "--max-in-flight", "10", "--json"]);
        let summary = ran.exits(0).json();
        assert_eq!(summary["sealed"], 40);
        let asked = authority.asked();
        let elapsed = summary["elapsed_seconds"].as_f64().expect("seconds");
        assert!(asked.len() > 1, "{auth}: never renewed in {elapsed} s");
        // A token lives two seconds and is renewed with a fifth left.
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let renewals = asked.len() as f64;
        assert!(renewals <= elapsed / 1.6 + 3.0, "{auth}: {renewals} in {elapsed} s");
        if auth == "device-code" {
            assert_eq!(asked[1]["grant_type"], "refresh_token", "the person is not asked again");
        }
    }
}

/// A token that cannot be renewed for a while is an outage like any other: rows wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_an_authority_that_is_down_for_a_while() {
    let (served, authority, program) = office(30).await;
    served.with(|tenant, _| {
        tenant.options_mut().latency = Latency::of(std::time::Duration::from_millis(400));
    });
    authority.tokens_live(2);
    // The check has its token; those that follow are asked for while passes are issued.
    // An outage is one by its status, whatever it is written in.
    let down = (0..8).map(|nth| if nth % 2 == 0 { Instead::DownInHtml } else { Instead::Down });
    authority.answers([Instead::Due].into_iter().chain(down));
    let people: Vec<_> = (0..30).map(|n| format!("u{n}@contoso.example")).collect();
    let program = with_secret(program);
    let wave = program.write("wave.csv", format!("userPrincipalName\n{}\n", people.join("\n")));
    let key = program.run(&["keygen"]).exits(0).out;
    let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
    let summary =
        program.run(&["run", &wave, "-r", key, "--max-in-flight", "3", "--json"]).exits(0).json();
    assert_eq!((&summary["sealed"], &summary["failed"]), (&30.into(), &0.into()));
    assert!(authority.asked().len() > 9, "asked {} times", authority.asked().len());
    assert_eq!(served.with(|tenant, _| tenant.passes().count()), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_nobody_serves_is_an_outage_and_no_refusal() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
    let authority = format!("https://{nobody}");
    let places = ["--authority-url", &authority, "--tenant", TENANT, "--client-id", CLIENT];
    let program = Program::new().var("AZURE_CLIENT_SECRET", SECRET).always(&places);
    for auth in ["client-secret", "device-code"] {
        let ran = program.run(&["check", "--access", "--auth", auth]).exits(6);
        ran.says("failed to sign in").says("the sign-in address: ").says("try again later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_and_its_tokens_are_in_no_output_and_no_file() {
    let (_served, authority, program) = office(2).await;
    let program = with_secret(program).always(&["-vv", "--log", "extra.jsonl"]);
    let wave = "userPrincipalName\nu0@contoso.example\nu1@contoso.example\n";
    let wave = std::path::PathBuf::from(program.write("wave.csv", wave));
    let home = wave.parent().expect("a folder");
    let key = program.run(&["keygen"]).exits(0).out;
    let key = key.lines().find_map(|line| line.split("public key: ").nth(1)).expect("a key");
    let mut seen = Vec::new();
    for args in [
        &["run", "wave.csv", "-r", key, "--run", "run"][..],
        &["status", "run", "--live"],
        &["check", "--access"],
        &["cleanup", "run"],
    ] {
        let ran = program.run(args).exits(0);
        seen.push((args.join(" "), (ran.out + &ran.err).into_bytes()));
    }
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("readable");
                seen.push((path.display().to_string(), bytes));
            }
        }
    }
    assert!(seen.len() > 8, "control: only {} places", seen.len());
    // Tokens differ in their last claims alone.
    let token = authority.latest().split('.').nth(1).expect("claims")[..24].to_owned();
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD;
    for secret in [SECRET, &standard.encode(SECRET)[..SECRET.len()], "Bearer ", &token] {
        for (place, bytes) in &seen {
            let there = memchr::memmem::find(bytes, secret.as_bytes()).is_some();
            assert!(!there, "{secret} is in {place}: {}", String::from_utf8_lossy(bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_for_people_and_applications() {
    let (served, authority, program) = office(1).await;
    authority.permits("User.Read.All GroupMember.Read.All Policy.Read.All");
    let program = with_secret(program);
    program
        .run(&ACCESS)
        .exits(5)
        .says("the application token lacks UserAuthMethod-TAP.ReadWrite.All");
    assert_eq!(served.with(|tenant, _| tenant.tally().requests), 0);
}

/// The program with an Azure CLI on its path that prints this token.
#[cfg(unix)]
fn with_azure_cli(program: Program, token: &str) -> Program {
    use std::os::unix::fs::PermissionsExt;
    let answer = format!(
        r#"{{"accessToken":"{token}","expiresOn":"2099-01-01 00:00:00.000000","expires_on":4070908800,"tokenType":"Bearer"}}"#
    );
    let az = program.write("az", format!("#!/bin/sh\ncat <<'END'\n{answer}\nEND\n"));
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let folder = az.trim_end_matches("/az");
    let path = format!("{folder}:{}", std::env::var("PATH").expect("a path"));
    program.var("PATH", &path).always(&["--auth", "azure-cli"])
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_person_in_the_azure_cli_is_told_why_not() {
    let (_served, authority, program) = office(1).await;
    authority.permits("user_impersonation");
    // {"tid":"t","upn":"ada","scp":"user_impersonation"}
    let token = "e30.eyJ0aWQiOiJ0IiwidXBuIjoiYWRhIiwic2NwIjoidXNlcl9pbXBlcnNvbmF0aW9uIn0.sig";
    with_azure_cli(program, token)
        .run(&ACCESS)
        .exits(5)
        .says("a person signed in to the Azure CLI")
        .says("--service-principal");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_principal_in_the_azure_cli_signs_in() {
    let authority = Authority::open().await;
    let claims = serde_json::json!({"tid": TENANT, "appid": CLIENT, "roles": [
        "UserAuthMethod-TAP.ReadWrite.All", "Policy.Read.All", "User.Read.All",
        "GroupMember.Read.All",
    ]});
    let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tenant = Tenant::for_wave(["u0@contoso.example"], 5);
    let served = Served::open(tenant, 0, &token, None).await.expect("a port");
    let program = aimed(&served.url().replace("/v1.0", ""), &authority);
    with_azure_cli(program, &token).run(&ACCESS).exits(0);
    assert!(served.with(|tenant, _| tenant.tally().requests) > 0, "Graph was asked with it");
}

/// A program of this name in the program's folder, before all others on its path, that first
/// writes down the environment it got; and where that is.
#[cfg(unix)]
fn with_witness(program: Program, name: &str, script: &str) -> (Program, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let noted = PathBuf::from(program.write("environment", ""));
    let place = noted.display();
    let script = format!("#!/bin/sh\nenv >'{place}.new' && mv '{place}.new' '{place}'\n{script}\n");
    let path = program.write(name, script);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let folder = noted.parent().expect("a folder").display();
    let path = format!("{folder}:{}", std::env::var("PATH").expect("a path"));
    let secrets = ["TAPWAVE_ACCESS_TOKEN", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "SMTP_PASSWORD"];
    let program = program.var("PATH", &path);
    (secrets.into_iter().fold(program, |program, name| program.var(name, "planted-secret")), noted)
}

/// Waits for what the witness writes down, and looks for the secrets in it.
#[cfg(unix)]
async fn got_no_secret(noted: &Path) {
    let read = || std::fs::read_to_string(noted).expect("text");
    until("it is noted", async || !read().is_empty()).await;
    let noted = read();
    assert!(noted.contains("TAPWAVE_HOME="), "control: what is no secret is there: {noted}");
    assert!(!noted.contains("planted-secret"), "{noted}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_program_that_is_started_gets_a_secret() {
    // What prints a secret.
    let (_served, _authority, program) = office(1).await;
    program.write("tapwave.toml", "client_secret_command = ['printer']\n");
    program.run(&["settings", "--trust"]).exits(0);
    let (program, noted) = with_witness(program, "printer", &format!("echo {SECRET}"));
    program.run(&[&ACCESS[..], &["--auth", "client-secret"]].concat()).exits(0);
    got_no_secret(&noted).await;

    // The Azure CLI.
    let (_served, _authority, program) = office(1).await;
    let (program, noted) = with_witness(program, "az", "echo 'Please run az login' >&2; exit 1");
    let program = program.var("AZURE_CLIENT_SECRET", "planted-secret");
    program.run(&[&ACCESS[..], &["--auth", "azure-cli"]].concat()).exits(5);
    got_no_secret(&noted).await;

    // The browser.
    let (_served, _authority, program) = office(1).await;
    let browser = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let (program, noted) = with_witness(program, browser, "");
    let program = program.var("AZURE_CLIENT_SECRET", "planted-secret");
    let mut waiting = program.command(&[&ACCESS[..], &["--auth", "interactive"]].concat());
    let mut waiting = waiting.spawn().expect("it runs");
    got_no_secret(&noted).await;
    waiting.kill().expect("ended");
    waiting.wait().expect("ended");
}

/// A proxy that lets everything through and notes the first line of what it was asked.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let notes = Arc::clone(&notes);
            std::thread::spawn(move || through(client, &notes));
        }
    });
    (url, asked)
}

/// One connection, to where its first line says.
fn through(client: TcpStream, notes: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let line = head.lines().next()?.to_owned();
    let target = line.split(' ').nth(1)?.trim_start_matches("http://");
    let server = TcpStream::connect(target.split('/').next()?).ok()?;
    notes.lock().expect("whole").push(line.clone());
    let (mut to_server, mut to_client) = (server.try_clone().ok()?, client);
    if line.starts_with("CONNECT ") {
        to_client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    } else {
        to_server.write_all(head.as_bytes()).ok()?;
    }
    let mut from_server = server;
    std::thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
    std::io::copy(&mut reader, &mut to_server).ok().map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_carries_the_sign_in_and_graph_alike() {
    let (served, authority, program) = office(1).await;
    let (url, asked) = proxy();
    let program = with_secret(program).always(&["--proxy", &url]);
    program.run(&ACCESS).exits(0);
    let asked = asked.lock().expect("whole");
    let authority = authority.url().replace("https://", "CONNECT ");
    assert!(asked.iter().any(|line| line.starts_with(&authority)), "the sign-in: {asked:?}");
    let graph = served.url().replace("http://", "CONNECT ").replace("/v1.0", " ");
    assert!(asked.iter().any(|line| line.starts_with(&graph)), "Graph: {asked:?}");
}
