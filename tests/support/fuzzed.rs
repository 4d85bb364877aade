//! What is fuzzed: promises that five doors to the outside take any bytes at all without a
//! panic, and that what they let in keeps the promises of its type.
//!
//! Shared by `fuzz/`, which looks for new bytes, and `tests/fuzz_corpus.rs`, which tries the
//! known ones and their neighbours in every test run.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tapwave::args::{Common, MailArgs, WaveArgs};
use tapwave::config::{RunConfig, Settings};
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle};
use tapwave_core::ids::{Line, UserId};
use tapwave_core::limits;
use tapwave_graph::Graph;
use tapwave_graph::limiter::{Budget, Limiter, LimiterOptions};
use tapwave_graph::transport::{Broken, Request, Response, Transport};
use tapwave_ledger::{
    About, Access, Asked, Draft, Eligible, Event, Intent, Ledger, NewRow, PolicyRecord,
    RecipientRecord, RunFolder, RunOptions, Standing, WaveAbout,
};
use tapwave_pipeline::wave::{Defaults, WaveItem, WaveReader};
use tapwave_seal::{Handoff, Identities, NoPrompts, Prompts};
use zeroize::Zeroizing;

/// One door: its name, which is its corpus's, and what to do with bytes.
pub(crate) type Door = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const DOORS: [Door; 5] = [
    ("wave", wave),
    ("answer", answer),
    ("ledger", ledger),
    ("settings", settings),
    ("handoff", handoff),
];

/// How often the canned tenant answers before it refuses the token, which ends every retry.
const ANSWERS: u32 = 3;

/// A wave. Rows come in order, each with a name; the same bytes give the same rows.
pub(crate) fn wave(bytes: &[u8]) {
    let read = || -> Option<Vec<(u64, Option<String>)>> {
        let mut reader = WaveReader::open(Cursor::new(bytes), Defaults::default()).ok()?;
        let mut rows = Vec::new();
        for found in reader.by_ref() {
            rows.push(match found.ok()? {
                WaveItem::Row(row) => (row.line.0, Some(row.upn.to_string())),
                WaveItem::Bad(bad) => (bad.line.0, None),
            });
        }
        Some(rows)
    };
    let Some(rows) = read() else { return };
    assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "lines go up");
    for (_, upn) in rows.iter().filter_map(|(line, upn)| Some((line, upn.as_ref()?))) {
        assert!(upn.contains('@') && upn.len() <= limits::MAX_UPN_BYTES, "{upn:?}");
        assert!(!upn.contains(char::is_control), "{upn:?}");
    }
    assert_eq!(read().as_ref(), Some(&rows), "reading is a function of the bytes");
}

/// An answer of Graph: a first line with the status and, after a blank, `Retry-After`; then
/// the body. A pass comes of it only if it was there, and nothing that is said quotes it.
pub(crate) fn answer(bytes: &[u8]) {
    let (head, body) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (&b"201"[..], bytes),
    };
    let head = String::from_utf8_lossy(head);
    let (status, retry_after) = head.split_once(' ').unwrap_or((&head, ""));
    let canned = Canned {
        status: status.trim().parse().unwrap_or(201),
        retry_after: (!retry_after.is_empty()).then(|| retry_after.to_owned()),
        body: body.to_vec(),
        left: AtomicU32::new(ANSWERS),
    };
    virtual_time(async {
        let (_home, folder) = place();
        let intent = intent(&fresh_ledger(&folder)).await;
        let clock = clock();
        let limiter = Limiter::new(LimiterOptions::default(), clock.clone());
        let status = canned.status;
        let graph = Graph::new(Arc::new(canned), limiter, clock);
        let permit = graph.limiter().admit(Budget::PassWrites, 1).await.expect("not barred");
        let code = serde_json::from_slice::<serde_json::Value>(body)
            .ok()
            .and_then(|json| Some(json.get("temporaryAccessPass")?.as_str()?.to_owned()));
        match graph.create_pass(&intent, permit).await {
            Effect::Done(created) => {
                assert_eq!(status, 201);
                assert!(created.pass.is_none() || code.is_some(), "a pass out of nothing");
                assert!(!created.found.id.as_str().is_empty());
            }
            Effect::Unsettled { why } | Effect::NoEffect(Obstacle { why, .. }) => {
                let quoted = code.filter(|code| code.len() > 7 && why.contains(code.as_str()));
                assert!(quoted.is_none(), "{why}");
            }
            Effect::Refused(_) => assert_ne!(status, 201),
        }
        drop(graph.policy().await);
        drop(graph.passes(&[user()]).await);
        drop(graph.users(&["ada.lovelace@contoso.example".parse().expect("a name")]).await);
    });
}

/// A ledger file. What opens can be read to its end. Bytes that are none are taken
/// as changes to a good one: three bytes of place, one of content; a single one left over
/// cuts the file.
pub(crate) fn ledger(bytes: &[u8]) {
    virtual_time(async {
        let (_home, folder) = place();
        let fresh = fresh_ledger(&folder);
        let _intent = intent(&fresh).await;
        fresh.shut().await;
        drop(fresh);
        let path = folder.path().join("ledger.db");
        let file = if bytes.starts_with(b"SQLite format 3") {
            bytes.to_vec()
        } else {
            changed(std::fs::read(&path).expect("a ledger"), bytes)
        };
        std::fs::write(&path, file).expect("written");
        for access in [Access::Read, Access::Write] {
            let Ok(ledger) = Ledger::open(&folder, access, clock()).await else { continue };
            drop((ledger.counts().await, ledger.closed().await, ledger.purged().await));
            let mut after = None;
            while let Ok(rows) = ledger.rows(&Standing::ALL, after, limits::ROWS_PER_READ).await
                && let Some(last) = rows.last()
            {
                assert!(after.is_none_or(|after| after < last.line), "reading goes on");
                after = Some(last.line);
                for row in &rows {
                    drop(ledger.ciphertext(row.line).await);
                }
            }
        }
    });
}

/// A settings file. What loads is inside its bounds.
pub(crate) fn settings(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tapwave.toml");
    std::fs::write(&path, bytes).expect("written");
    let flags = Common { config: Some(path), ..Common::default() };
    let Ok(settings) = Settings::load(&flags, &|_: &str| None) else { return };
    assert!((1..=limits::MAX_IN_FLIGHT).contains(&settings.limiter.max_in_flight));
    assert!(
        settings.settle_after.is_none_or(|settle_after| settle_after.as_secs() <= 24 * 60 * 60)
    );
    let resolved = RunConfig::resolve(&WaveArgs::default(), &MailArgs::default(), &settings);
    if let Ok(config) = resolved {
        let lifetime = config.options.lifetime_minutes;
        assert!(lifetime.is_none_or(|minutes| limits::LIFETIME_MINUTES.contains(&minutes)));
    }
}

/// A handoff: an age file or a container of them. Whatever opens gives the same rows again, and
/// a container that opens is no longer one when it is cut.
pub(crate) fn handoff(bytes: &[u8]) {
    let quiet: Arc<dyn Prompts> = Arc::new(NoPrompts);
    let mut identities = Identities::new();
    identities.add_file("the reader", READER.as_bytes(), &quiet).expect("an identity");
    let read = |bytes: &[u8]| -> Option<Vec<String>> {
        let mut rows = Vec::new();
        let handoff = Handoff::of(bytes).expect("bytes can be read");
        let opened = handoff.open(&identities, |row| {
            rows.push(format!("{} {}", row.user_principal_name(), row.method_id()));
            Ok::<(), std::convert::Infallible>(())
        });
        opened.is_ok().then_some(rows)
    };
    let Some(rows) = read(bytes) else { return };
    assert!(rows.iter().all(|row| !row.starts_with(' ')), "a row of nobody: {rows:?}");
    assert_eq!(read(bytes).as_ref(), Some(&rows), "reading is a function of the bytes");
    let is_container = Handoff::of(bytes).expect("bytes can be read").is_container();
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if is_container {
        assert_eq!(read(&bytes[..end]), None, "the end of a container was not missed");
    }
}

/// The identity that the corpus of `handoff` is sealed to. It guards nothing.
const READER: &str = "AGE-SECRET-KEY-1PZ0CTMRSWGQQHWCLQZ7JCWUCSLG4HLY5NJQD2NZKPMVNEKU7CTCSYQ76H3";

/// Says the same thing a few times.
struct Canned {
    status: u16,
    retry_after: Option<String>,
    body: Vec<u8>,
    left: AtomicU32,
}

impl Transport for Canned {
    fn exchange<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        let over =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        Box::pin(std::future::ready(match over {
            Err(_) => Err(Broken::SignIn("the rehearsal is over".to_owned())),
            Ok(_) => Ok(Response {
                status: self.status,
                retry_after: self.retry_after.clone(),
                date: None,
                request_id: None,
                load: None,
                body: Zeroizing::new(self.body.clone()),
            }),
        }))
    }

    fn base(&self) -> &'static str {
        "https://graph.microsoft.com/v1.0"
    }
}

/// Runs in time that moves by itself whenever everybody waits.
fn virtual_time(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(work);
}

fn clock() -> Clock {
    Clock::starting_at(moment())
}

fn moment() -> Timestamp {
    "2026-03-01T08:00:00Z".parse().expect("a time")
}

fn user() -> UserId {
    UserId::new(uuid::Uuid::from_u128(1))
}

const ASKED: Asked = Asked { start: None, lifetime_minutes: 60, one_time: false };

fn place() -> (tempfile::TempDir, RunFolder) {
    // On Linux, a folder in memory: what is tried is what can be read, not what a disk keeps.
    let shm = Path::new("/dev/shm");
    let home = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    let home = home.expect("a folder");
    let folder = RunFolder::create(&home.path().join("run")).expect("a run folder");
    (home, folder)
}

fn fresh_ledger(folder: &RunFolder) -> Ledger {
    let mut draft = Draft::create(folder, clock()).expect("begun");
    let upn = "ada.lovelace@contoso.example".to_owned();
    let row =
        NewRow { line: Line(2), upn: upn.clone(), cells: vec![upn], wanted_json: "{}".to_owned() };
    draft.add_row(&row).expect("added");
    let eligible = Eligible {
        user: user(),
        display_name: None,
        asked: ASKED,
        set: 0,
        reader: None,
        notice_reader: None,
    };
    draft.record(Line(2), &Event::Checked(Box::new(eligible))).expect("recorded");
    draft.publish(&about(folder.path())).expect("published")
}

async fn intent(ledger: &Ledger) -> Intent {
    ledger.intend(Line(2), user(), ASKED, moment()).await.expect("minted")
}

fn about(folder: &Path) -> About {
    About {
        id: tapwave_core::ids::RunId::new(uuid::Uuid::nil()),
        name: "run".to_owned(),
        created: moment(),
        tapwave_version: "0.1.0".to_owned(),
        wave: WaveAbout {
            path: folder.display().to_string(),
            digest: "00".to_owned(),
            header_json: "{}".to_owned(),
            rows: 1,
        },
        tenant: None,
        graph_url: "https://graph.microsoft.com".to_owned(),
        options: RunOptions { fence_seconds: 300, ..RunOptions::default() },
        recipients: vec![RecipientRecord {
            label: "all".to_owned(),
            keys: Vec::new(),
            names: std::collections::BTreeMap::new(),
        }],
        policy: PolicyRecord {
            min_lifetime_minutes: 60,
            max_lifetime_minutes: 480,
            default_lifetime_minutes: 60,
            one_time: false,
        },
        checked_at: moment(),
    }
}

fn changed(mut file: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    let (pieces, rest) = changes.as_chunks::<4>();
    for [a, b, c, content] in pieces {
        let place = u32::from_le_bytes([*a, *b, *c, 0]) as usize % file.len();
        file[place] = *content;
    }
    if let [cut] = rest {
        file.truncate(file.len() * usize::from(*cut) / 256);
    }
    file
}
