//! Promises to judge a run by the tenant's own log and by what the sealed files hold, never by
//! the tool's words. Must never be lenient about a pass of ours.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use serde_json::Value;
use tapwave_core::clock::later;
use tapwave_core::ids::Line;
use tapwave_ledger::{Event as Move, Existing, Ledger, RowRecord, Standing, State};
use tapwave_seal::{Format, Handoff, Identities, NewIdentity, NoPrompts, Prompts, RowWriter};
use tapwave_simulator::options::Latency;
use tapwave_simulator::{InMemory, LogEntry, PassEvent, Tenant};

use super::odds::ELSEWHERE_MINUTES;

/// Everything a verdict is taken from.
pub(crate) struct Judge<'a> {
    pub(crate) tenant: &'a InMemory,
    /// The ids of passes that other people made.
    pub(crate) foreign: HashSet<String>,
    pub(crate) existing: Existing,
    pub(crate) identity: &'a NewIdentity,
    /// When the first check began, on the tenant's clock.
    pub(crate) began: Timestamp,
}

/// What the tenant's log says.
struct Story {
    log: Vec<LogEntry>,
    codes: HashMap<String, String>,
    minted: HashMap<String, Timestamp>,
    /// When each pass ends to be good: its time is over, or it was used up.
    ends: HashMap<String, Timestamp>,
    /// What is on each user, good or not.
    there: HashMap<String, String>,
    now: Timestamp,
}

impl Story {
    /// Whether a pass was good at a moment.
    fn is_good(&self, method: &str, at: Timestamp) -> bool {
        self.ends.get(method).is_some_and(|end| at < *end)
    }
}

impl Judge<'_> {
    /// Every complaint about a run at rest. `done`: nothing is left to be done.
    pub(crate) async fn judge(&self, ledger: &Ledger, done: bool) -> Vec<String> {
        let rows = ledger.rows(&Standing::ALL, None, 1_000).await.expect("readable");
        let story = self.story();
        let mut wrong = Vec::new();
        // Nothing has been said yet of passes that wait for their second look.
        let unseen =
            ledger.rows_to_look_at(Timestamp::MAX, None, None, 1_000).await.expect("readable");
        let unseen: HashSet<Line> = unseen.into_iter().map(|row| row.line).collect();
        for row in &rows {
            let proven = matches!(row.state, State::Sealed { proven: true, .. });
            let waits = !done && (unseen.contains(&row.line) || !proven);
            // A list that still shows what was replaced a moment ago hides that from every look.
            if (waits || self.hides_ends()) && self.misled(row, ledger, &story).await {
                continue;
            }
            if self.is_accounted(row, ledger).await {
                continue;
            }
            self.row(row, &story, done, &mut wrong);
            self.ciphertext(row, ledger, &story, &mut wrong).await;
            throttled(row, ledger, &mut wrong).await;
        }
        self.others(&rows, ledger, &story, &mut wrong).await;
        self.handoff(&rows, ledger, &story, done, &mut wrong).await;
        wrong
    }

    /// Every complaint about a run that is being cleaned up. `over`: that is called done, or the
    /// sealed copies are gone.
    pub(crate) async fn judge_cleaned(&self, ledger: &Ledger, over: bool) -> Vec<String> {
        let rows = ledger.rows(&Standing::ALL, None, 1_000).await.expect("readable");
        let story = self.story();
        let mut wrong = Vec::new();
        for (upn, method) in &story.there {
            if over && story.is_good(method, story.now) && !self.foreign.contains(method) {
                wrong.push(format!("{upn}: {method} outlived the cleanup"));
            }
        }
        for row in &rows {
            let lives = story.there.get(&row.upn);
            if let (State::Removed { .. }, Some(lives)) = (&row.state, lives)
                && row.state.method().is_some_and(|removed| removed.as_str() == lives)
            {
                wrong.push(format!("{}: {lives} is called removed and lives", row.upn));
            }
        }
        self.others(&rows, ledger, &story, &mut wrong).await;
        wrong
    }

    fn hides_ends(&self) -> bool {
        self.tenant
            .with(|tenant, _| tenant.options().replication.listed_after_end != Latency::default())
    }

    /// Whether the ledger knows that a pass of the row may be alive, whatever became of the row.
    async fn is_accounted(&self, row: &RowRecord, ledger: &Ledger) -> bool {
        let waits = matches!(
            row.state,
            State::Checked { after_loss: true } | State::Failed { .. } | State::Ineligible
        );
        let remains = ledger.remains_of(vec![row.line]).await.expect("readable").remove(0);
        let open = remains.attempts.iter().any(|attempt| attempt.may_live);
        waits && (open || !remains.alive.is_empty())
    }

    /// Whether a gateway carried one of the row's requests out twice, or named an id that no list
    /// shows: only a second look can tell.
    async fn misled(&self, row: &RowRecord, ledger: &Ledger, story: &Story) -> bool {
        let sealed = row.state.method();
        if sealed.is_some_and(|sealed| !story.codes.contains_key(sealed.as_str())) {
            return true;
        }
        let ours: Vec<Timestamp> = story
            .log
            .iter()
            .filter(|entry| entry.upn == row.upn)
            .filter(|entry| matches!(entry.event, PassEvent::Minted { elsewhere: false, .. }))
            .map(|entry| entry.at)
            .collect();
        for pair in ours.windows(2) {
            if !asked_between(ledger, row, pair[0], pair[1]).await {
                return true;
            }
        }
        false
    }

    fn story(&self) -> Story {
        let log = self.tenant.with(|tenant, _| tenant.log().to_vec());
        let (mut codes, mut minted) = (HashMap::new(), HashMap::new());
        let (mut ends, mut once) = (HashMap::new(), HashSet::new());
        for entry in &log {
            match &entry.event {
                PassEvent::Minted { method, code, lifetime_minutes, start, one_time, .. } => {
                    codes.insert(method.clone(), code.clone());
                    minted.insert(method.clone(), entry.at);
                    let minutes = Duration::from_mins(u64::from(*lifetime_minutes));
                    ends.insert(method.clone(), later(*start, minutes));
                    once.extend(one_time.then(|| method.clone()));
                }
                PassEvent::Used { method } if once.contains(method) => {
                    ends.insert(method.clone(), entry.at);
                }
                _ => {}
            }
        }
        let there = |tenant: &mut Tenant, _| {
            tenant.passes().map(|(_, upn, pass)| (upn.to_owned(), pass.method.clone())).collect()
        };
        let now = |tenant: &mut Tenant, now| later_by(now, tenant.options().clock_offset);
        let (there, now) = (self.tenant.with(there), self.tenant.with(now));
        Story { log, codes, minted, ends, there, now }
    }

    /// A live pass of ours is sealed or accounted for; a proven one lives.
    fn row(&self, row: &RowRecord, story: &Story, done: bool, wrong: &mut Vec<String>) {
        let there = story.there.get(&row.upn);
        let sealed = match &row.state {
            State::Sealed { method, .. } => Some(method.as_str()),
            _ => None,
        };
        let accounted = matches!(
            row.state,
            State::Intent { .. }
                | State::Unsettled { .. }
                | State::Held { .. }
                | State::Lost { .. }
        );
        let what = |word: &str| format!("{word}: {} is {:?}, there {there:?}", row.upn, row.state);
        if let Some(ours) = there.filter(|there| !self.foreign.contains(*there))
            && story.is_good(ours, story.now)
            && sealed != Some(ours)
            && !accounted
        {
            wrong.push(what("lost"));
        }
        if let State::Sealed { method, proven: true } = &row.state
            && there.map(String::as_str) != Some(method.as_str())
            && !self.ended_by_others(method.as_str(), story)
        {
            wrong.push(what("dead"));
        }
        let open = matches!(
            row.state,
            State::Intent { .. } | State::Unsettled { .. } | State::Sealed { proven: false, .. }
        );
        if done && open {
            wrong.push(what("never settled"));
        }
    }

    /// Whether the log shows that somebody else deleted this pass, or put another in its place.
    fn ended_by_others(&self, method: &str, story: &Story) -> bool {
        story.log.windows(2).any(|pair| {
            matches!(&pair[0].event, PassEvent::Replaced { method: ended } if ended == method)
                && matches!(&pair[1].event, PassEvent::Minted { method, .. } if self.foreign.contains(method))
        }) || story.log.iter().any(|entry| {
            matches!(&entry.event, PassEvent::Deleted { method: ended, elsewhere: true } if ended == method)
        })
    }

    async fn ciphertext(
        &self,
        row: &RowRecord,
        ledger: &Ledger,
        story: &Story,
        wrong: &mut Vec<String>,
    ) {
        let bytes = ledger.ciphertext(row.line).await.expect("readable");
        let State::Sealed { method, .. } = &row.state else {
            if bytes.is_some() && row.state.method().is_none() {
                wrong.push(format!("{} keeps a sealed copy of a pass it does not own", row.upn));
            }
            return;
        };
        let Some(bytes) = bytes else {
            wrong.push(format!("{} is sealed without a ciphertext", row.upn));
            return;
        };
        for (upn, held, code) in self.read(&bytes[..]) {
            let right =
                upn == row.upn && held == method.as_str() && story.codes.get(&held) == Some(&code);
            if !right {
                wrong.push(format!("{} opens to something else: {upn} {held}", row.upn));
            }
        }
    }

    /// Passes of other people are deleted by a run that may replace them, if they are older
    /// than its intent, and by nobody else; a pass of ours is never replaced by another.
    async fn others(
        &self,
        rows: &[RowRecord],
        ledger: &Ledger,
        story: &Story,
        wrong: &mut Vec<String>,
    ) {
        let replace = self.existing == Existing::Replace;
        for (at, entry) in story.log.iter().enumerate() {
            let Some(row) = rows.iter().find(|row| row.upn == entry.upn) else { continue };
            match &entry.event {
                PassEvent::Deleted { method, .. } if self.foreign.contains(method) => {
                    let minted = story.minted[method];
                    let older = intents(ledger, row).await.iter().any(|intent| minted < *intent);
                    if !(replace && older || looks_like_ours(ledger, row).await) {
                        wrong.push(format!("{}: foreign {method} was deleted", row.upn));
                    }
                }
                PassEvent::Replaced { method } => {
                    let next = story.log.get(at + 1).map(|next| &next.event);
                    let Some(PassEvent::Minted { method: by, .. }) = next else { continue };
                    if self.foreign.contains(by) {
                        continue;
                    }
                    if !self.foreign.contains(method) {
                        let (first, second) = (story.minted[method], story.minted[by]);
                        // An orphan that no list showed is replaced unseen, and nobody had its
                        // code.
                        if !story.is_good(method, entry.at)
                            || !was_sealed(ledger, row, method).await
                            || !asked_between(ledger, row, first, second).await
                        {
                            continue;
                        }
                        wrong.push(format!("{}: our {by} replaced our own {method}", row.upn));
                    } else if !replace && story.minted[method] < self.began {
                        wrong.push(format!("{}: foreign {method} was replaced", row.upn));
                    }
                }
                _ => {}
            }
        }
    }

    /// Each proven pass is in the file that the ledger names, and no file holds another.
    async fn handoff(
        &self,
        rows: &[RowRecord],
        ledger: &Ledger,
        story: &Story,
        done: bool,
        wrong: &mut Vec<String>,
    ) {
        let folder = ledger.folder().handoff().expect("there");
        let mut held: HashMap<String, HashSet<(String, String)>> = HashMap::new();
        for entry in fs::read_dir(&folder).expect("readable") {
            let path = entry.expect("readable").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                let file = File::open(&path).expect("readable");
                let passes = self.read(file).into_iter().map(|(upn, method, _)| (upn, method));
                held.insert(name, passes.collect());
            }
        }
        for row in rows {
            let proven = match &row.state {
                State::Sealed { method, proven: true } => Some(method.as_str()),
                _ => None,
            };
            // Handed off by a process that was stopped before it could look again.
            let displaced = displaced(ledger, row).await;
            for (file, passes) in &held {
                for (_, method) in passes.iter().filter(|(upn, _)| *upn == row.upn) {
                    // Handed off when it was proven; the next process doubts the last seals of
                    // one that did not end in order, until it has looked. What somebody else
                    // has replaced since then stays in its file, whatever became of the row.
                    let ours = row.state.method().is_some_and(|sealed| sealed.as_str() == method);
                    let there = story.there.get(&row.upn).is_some_and(|there| there == method);
                    let excused = displaced.contains(method)
                        || ours && there
                        || self.ended_by_others(method, story);
                    if Some(method.as_str()) != proven && !excused {
                        wrong.push(format!(
                            "{file} holds {method}, but {} is {:?}",
                            row.upn, row.state
                        ));
                    }
                }
            }
            let named = row.handoff.as_ref().and_then(|file| held.get(file));
            let (Some(method), true) = (proven, done || row.handoff.is_some()) else { continue };
            if !named.is_some_and(|file| file.contains(&(row.upn.clone(), method.to_owned()))) {
                wrong.push(format!("{} is sealed and handed off in {:?}", row.upn, row.handoff));
            }
        }
    }

    /// User, method id and code of every row.
    fn read(&self, file: impl Read) -> Vec<(String, String, String)> {
        let prompts: Arc<dyn Prompts> = Arc::new(NoPrompts);
        let mut identities = Identities::new();
        let secret = self.identity.file.expose_secret().as_bytes();
        identities.add_file("the judge's", secret, &prompts).expect("an identity");
        let mut rows = RowWriter::new(Format::Json, Vec::new()).expect("memory");
        let handoff = Handoff::of(file).expect("readable");
        handoff.open(&identities, |row| rows.row(row)).expect("a sealed file");
        let json: Value = serde_json::from_slice(&rows.finish().expect("memory")).expect("JSON");
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let read = |row: &Value| {
            (
                text(row, "userPrincipalName"),
                text(row, "methodId"),
                text(row, "temporaryAccessPass"),
            )
        };
        json.as_array().map_or(&[][..], Vec::as_slice).iter().map(read).collect()
    }
}

/// Graph's clock at each intent of a row.
async fn intents(ledger: &Ledger, row: &RowRecord) -> Vec<Timestamp> {
    let history = ledger.history(row.line).await.expect("readable");
    let intent = |(_, event)| match event {
        Move::Intended { graph_time, .. } => Some(graph_time),
        _ => None,
    };
    history.into_iter().filter_map(intent).collect()
}

async fn was_sealed(ledger: &Ledger, row: &RowRecord, pass: &str) -> bool {
    let history = ledger.history(row.line).await.expect("readable");
    history
        .iter()
        .any(|(_, event)| matches!(event, Move::Sealed { method, .. } if method.as_str() == pass))
}

/// The passes of a row that a second look found lost.
async fn displaced(ledger: &Ledger, row: &RowRecord) -> HashSet<String> {
    let (mut sealed, mut displaced) = (None, HashSet::new());
    for (_, event) in ledger.history(row.line).await.expect("readable") {
        match event {
            Move::Sealed { method, .. } => sealed = Some(method.to_string()),
            Move::Displaced { .. } => displaced.extend(sealed.clone()),
            _ => {}
        }
    }
    displaced
}

/// Whether the row was asked for again after the first of two passes was made; if not, a gateway
/// carried one request out twice. Graph's clock is read in whole seconds.
async fn asked_between(
    ledger: &Ledger,
    row: &RowRecord,
    first: Timestamp,
    second: Timestamp,
) -> bool {
    let rounding = Duration::from_secs(1);
    let after = |intent: &Timestamp| later(first, rounding) < *intent && *intent <= second;
    intents(ledger, row).await.iter().any(after)
}

/// Whether a lifetime cut to the planned end made our passes like those of the portal.
async fn looks_like_ours(ledger: &Ledger, row: &RowRecord) -> bool {
    let history = ledger.history(row.line).await.expect("readable");
    history.iter().any(|(_, event)| {
        matches!(event, Move::Intended { asked, .. } if asked.lifetime_minutes == ELSEWHERE_MINUTES)
    })
}

/// No row may fail because of throttling.
async fn throttled(row: &RowRecord, ledger: &Ledger, wrong: &mut Vec<String>) {
    if !matches!(row.state, State::Failed { .. }) {
        return;
    }
    let history = ledger.history(row.line).await.expect("readable");
    if let Some((_, Move::Refused { why, .. })) = history.last()
        && (why.contains("429") || why.contains("throttl"))
    {
        wrong.push(format!("{} failed because of throttling: {why}", row.upn));
    }
}

fn later_by(moment: Timestamp, by: SignedDuration) -> Timestamp {
    moment.checked_add(by).unwrap_or(moment)
}
