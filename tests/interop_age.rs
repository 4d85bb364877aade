//! Holds that other implementations of age read what tapwave seals, and the other way round:
//! Debian's `age` (Go) and Python's `pyrage`. Without them it says so; with
//! `TAPWAVE_REQUIRE_INTEROP=1` it fails instead.

use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::process::Command;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tapwave_core::ids::Line;
#[cfg(unix)]
use tapwave_seal::Separator;
use tapwave_seal::{
    Entry, Format, Identities, NoPrompts, Prompts, RecipientSet, RowWriter, Spool, keygen, open,
};

#[cfg(unix)]
use crate::support::others::present;
use crate::support::others::{PYRAGE_OPENS, age_is_present, pyrage_is_present, run};

const CODES: [&str; 3] = ["+drkzqAD", "=1+1", "a\"b,c;d"];
const EXPECTED: &str = "userPrincipalName,displayName,temporaryAccessPass,startDateTime,lifetimeInMinutes,isUsableOnce,methodId\n\
    user2@contoso.example,\"Løvelace, Ada\",+drkzqAD,2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n\
    user3@contoso.example,\"Løvelace, Ada\",=1+1,2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n\
    user4@contoso.example,\"Løvelace, Ada\",\"a\"\"b,c;d\",2026-03-01T08:00:00Z,60,true,c5dbd20a-8b8f-4791-a23f-488fcbde3b38\n";

/// Answers the question for a passphrase.
struct Knows(&'static str);

impl Prompts for Knows {
    fn show(&self, _: &str) {}

    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }

    fn public_text(&self, _: &str) -> Option<String> {
        None
    }

    fn passphrase(&self, _: &str) -> Option<SecretString> {
        Some(SecretString::from(self.0))
    }
}

fn quiet() -> Arc<dyn Prompts> {
    Arc::new(NoPrompts)
}

/// A handoff of three rows for these public keys.
fn handoff(folder: &Path, keys: &[&str]) -> String {
    let recipients = keys.iter().map(|key| key.parse().expect("a recipient")).collect();
    let set = RecipientSet::new("all", recipients, &quiet()).expect("a set");
    let spool = Spool::create(folder).expect("a spool");
    for (line, code) in (2..).zip(CODES) {
        let entry = Entry {
            upn: format!("user{line}@contoso.example").parse().expect("a UPN"),
            display_name: Some("Løvelace, Ada".to_owned()),
            pass: serde_json::from_value(code.into()).expect("a pass"),
            start: Some("2026-03-01T08:00:00Z".parse().expect("a time")),
            lifetime_minutes: 60,
            one_time: true,
            method: "c5dbd20a-8b8f-4791-a23f-488fcbde3b38".parse().expect("an id"),
        };
        let sealed = set.seal_and_spool(entry, &spool, 0, Line(line)).expect("sealed");
        spool.keep(sealed.1).expect("kept");
    }
    let mut files = Vec::new();
    spool.finish(&[set], folder, |file| files.push(file)).expect("finished");
    text(&files[0].path)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// What we print of a file, as CSV.
fn opened(file: &[u8], identity: &[u8], prompts: &Arc<dyn Prompts>) -> String {
    let mut identities = Identities::new();
    identities.add_file("identity", identity, prompts).expect("an identity");
    let mut rows = RowWriter::new(Format::Csv, Vec::new()).expect("begun");
    open(file, &identities, |row| rows.row(row)).expect("opened");
    String::from_utf8(rows.finish().expect("finished")).expect("text")
}

#[test]
fn age_opens_our_handoff_with_its_own_key_and_with_ours() {
    if !age_is_present() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = text(&folder.path().join("theirs.txt"));
    run("age-keygen", &["-o", &theirs]);
    let their_key = String::from_utf8(run("age-keygen", &["-y", &theirs])).expect("text");
    let new = keygen("2026-03-01T08:00:00Z".parse().expect("a time"));
    let ours = text(&folder.path().join("ours.txt"));
    fs::write(&ours, new.file.expose_secret()).expect("written");
    assert_eq!(run("age-keygen", &["-y", &ours]), format!("{}\n", new.recipient).as_bytes());

    let file = handoff(folder.path(), &[their_key.trim(), &new.recipient]);
    for identity in [&theirs, &ours] {
        assert_eq!(run("age", &["-d", "-i", identity, &file]), EXPECTED.as_bytes());
    }
    let sealed = fs::read(&file).expect("a file");
    for identity in [theirs, ours] {
        assert_eq!(opened(&sealed, &fs::read(identity).expect("a key"), &quiet()), EXPECTED);
    }
}

#[test]
fn we_open_what_age_sealed() {
    if !age_is_present() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let plain = text(&folder.path().join("plain.csv"));
    fs::write(&plain, EXPECTED).expect("written");
    let identity = run("age-keygen", &[]);
    let new = String::from_utf8_lossy(&identity).into_owned();
    let key = new.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a key");
    for armour in [&[][..], &["-a"]] {
        let sealed = run("age", &[armour, &["-r", key, &plain]].concat());
        assert_eq!(opened(&sealed, &identity, &quiet()), EXPECTED);
    }
}

const PYRAGE_SEALS: &str = "
import sys, pyrage
key = pyrage.x25519.Identity.generate()
plain = open(sys.argv[1], 'rb').read()
open(sys.argv[2], 'wb').write(pyrage.encrypt(plain, [key.to_public()]))
open(sys.argv[3], 'wb').write(pyrage.passphrase.encrypt(str(key).encode(), 'correct horse'))
";

#[test]
fn pyrage_opens_our_handoff() {
    if !pyrage_is_present() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let new = keygen("2026-03-01T08:00:00Z".parse().expect("a time"));
    let file = handoff(folder.path(), &[&new.recipient]);
    let ours = text(&folder.path().join("ours.txt"));
    fs::write(&ours, new.file.expose_secret()).expect("written");
    assert_eq!(run("python3", &["-c", PYRAGE_OPENS, &ours, &file]), EXPECTED.as_bytes());
}

#[test]
fn we_open_what_pyrage_sealed_with_the_identity_it_protected() {
    if !pyrage_is_present() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [plain, sealed, identity] =
        ["plain.csv", "sealed.age", "identity.age"].map(|name| text(&folder.path().join(name)));
    fs::write(&plain, EXPECTED).expect("written");
    run("python3", &["-c", PYRAGE_SEALS, &plain, &sealed, &identity]);
    let asked: Arc<dyn Prompts> = Arc::new(Knows("correct horse"));
    let identity = fs::read(identity).expect("an identity");
    assert_eq!(opened(&fs::read(sealed).expect("a file"), &identity, &asked), EXPECTED);
}

#[cfg(unix)]
const PLUGIN_KEY: &str = "age1tapwavetest1w3shqampwejj6um5v9hxgttfdc97rwm4";
#[cfg(unix)]
const PLUGIN_IDENTITY: &[u8] = b"AGE-PLUGIN-TAPWAVETEST-1W3SHQAMPWEJJ6UM5V9HXGTTFDC8H7HQJ\n";

/// Set for the process that has the plugins on its PATH: this test starts itself again there,
/// since a process cannot change its own environment safely.
#[cfg(unix)]
const WITH_PLUGINS: &str = "TAPWAVE_TEST_WITH_PLUGINS";

#[cfg(unix)]
#[test]
fn a_plugin_seals_and_opens() {
    if std::env::var_os(WITH_PLUGINS).is_some() {
        return with_the_plugin_on_path();
    }
    if !present("python3", "python3", &["--version"]) {
        return;
    }
    let mut path = std::ffi::OsString::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugin:"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "interop_age::a_plugin_seals_and_opens", "--nocapture"])
        .env(WITH_PLUGINS, "1");
    // The age crate's own client would print every file key with this.
    let output = command.env("PATH", &path).env("AGEDEBUG", "plugin").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    assert!(!complained.contains("file-key"), "{complained}");
}

#[cfg(unix)]
fn with_the_plugin_on_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let new = keygen("2026-03-01T08:00:00Z".parse().expect("a time"));
    let file = handoff(folder.path(), &[PLUGIN_KEY, &new.recipient]);
    let sealed = fs::read(file).expect("a file");
    let knows: Arc<dyn Prompts> = Arc::new(Knows("123456"));
    assert_eq!(opened(&sealed, PLUGIN_IDENTITY, &knows), EXPECTED);
    assert_eq!(opened(&sealed, new.file.expose_secret().as_bytes(), &quiet()), EXPECTED);

    let wrong: Arc<dyn Prompts> = Arc::new(Knows("wrong"));
    for prompts in [wrong, quiet()] {
        let mut identities = Identities::new();
        identities.add_file("identity", PLUGIN_IDENTITY, &prompts).expect("an identity");
        let mut rows =
            RowWriter::new(Format::Excel(Separator::Comma), std::io::sink()).expect("begun");
        let error = open(&sealed[..], &identities, |row| rows.row(row)).expect_err("a wrong PIN");
        assert!(error.to_string().contains("the PIN is wrong"), "{error}");
    }
    for (key, complaint) in [
        ("age1tapwavedies1dehhg6rfdenshhmazm", "age-plugin-tapwavedies failed"),
        (
            "age1tapwavemumbles1dehhg6rfdens3hgx5x",
            "age-plugin-tapwavemumbles does not keep to age's plugin protocol",
        ),
    ] {
        let recipients = vec![key.parse().expect("a recipient")];
        let error = RecipientSet::new("all", recipients, &quiet()).err().expect("no set");
        assert!(error.to_string().contains(complaint), "{error}");
    }

    #[cfg(target_os = "linux")]
    assert_eq!(zombies(), 0, "every plugin process was waited for");
}

/// Children of this process that ended and were not waited for.
#[cfg(target_os = "linux")]
fn zombies() -> usize {
    let processes = fs::read_dir("/proc").expect("the processes").flatten();
    let stats = processes.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let ours = std::process::id().to_string();
    stats
        .filter(|stat| {
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            let mut fields = after_name.split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(ours.as_str())
        })
        .count()
}
