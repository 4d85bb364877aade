//! The types in which the ledger takes and returns what it records. Must never hold a pass.
//!
//! What the crates above define (a wave's header, what a row asks for) is JSON text that the ledger
//! does not read.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::events::{self, Asked, IntentId, Posted, Reader};
use super::fault::LedgerError;
use super::state::{Standing, State};
use tapwave_core::clock::{Clocks, span};
use tapwave_core::ids::{Line, MethodId, RunId, UserId};
use tapwave_core::shown;

/// What a run is about. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// A copy of the run has the same id.
    pub id: RunId,
    pub name: String,
    pub created: Timestamp,
    pub tapwave_version: String,
    pub wave: WaveAbout,
    /// The tenant's id or domain, if one was named.
    pub tenant: Option<String>,
    pub graph_url: String,
    pub options: RunOptions,
    /// A row's `set` is an index into this list.
    pub recipients: Vec<RecipientRecord>,
    pub policy: PolicyRecord,
    /// When the rows were first checked. Later: [`Ledger::checked_at`](super::Ledger::checked_at).
    pub checked_at: Timestamp,
}

/// The wave file of a run. It is not needed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveAbout {
    /// For people.
    pub path: String,
    /// SHA-256 of the file's bytes, in hex.
    pub digest: String,
    /// The header as the wave reader serialises it.
    pub header_json: String,
    /// Rows in the file, good and bad.
    pub rows: u64,
}

/// The options that a resume needs. What an older ledger lacks has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunOptions {
    /// `--lifetime`, in minutes.
    pub lifetime_minutes: Option<u32>,
    pub start: Option<Timestamp>,
    pub one_time: Option<bool>,
    pub existing: Existing,
    /// `--group`, as given.
    pub groups: Vec<String>,
    pub skip_ineligible: bool,
    /// The settling time in whole seconds, rounded up. See [`RunOptions::settle_after`].
    pub fence_seconds: u64,
    /// The same in milliseconds; an older ledger lacks it.
    pub fence_millis: Option<u64>,
    /// Whether it comes from `--settle-after`.
    pub fence_by_flag: bool,
    pub mail: Option<MailOptions>,
}

impl RunOptions {
    /// Sets the settling time, rounded up.
    #[must_use]
    pub fn with_settle_after(self, settle_after: Duration) -> Self {
        let rounded_up = |unit: Duration| settle_after.as_nanos().div_ceil(unit.as_nanos());
        let whole = |units: u128| u64::try_from(units).unwrap_or(u64::MAX);
        Self {
            fence_seconds: whole(rounded_up(Duration::from_secs(1))),
            fence_millis: Some(whole(rounded_up(Duration::from_millis(1)))),
            ..self
        }
    }

    /// The settling time, as exactly as this ledger has it.
    #[must_use]
    pub fn settle_after(&self) -> Duration {
        let seconds = Duration::from_secs(self.fence_seconds);
        self.fence_millis.map_or(seconds, Duration::from_millis)
    }
}

/// How a run's passes are mailed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MailOptions {
    /// `--deliver`.
    pub at_once: bool,
    /// `--to`, in order.
    pub to: Vec<To>,
    /// `--notice-to`, in order; empty if there are no notices.
    pub notice_to: Vec<To>,
    /// Whether a template uses the person's manager, who is then looked up for every row.
    pub names_manager: bool,
    /// `--body`: `pass`, `sealed` or `notice`.
    pub body: String,
    /// `--template`.
    pub templates: Option<std::path::PathBuf>,
    /// For readers whose row has none.
    pub time_zone: Option<String>,
}

/// Where a reader's address comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum To {
    /// The wave's deliverTo column.
    Column,
    Manager,
    /// The first of the user's other addresses.
    OtherMail,
    Mail,
    /// This one, for every row.
    Address(String),
}

/// What to do about an existing pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Existing {
    /// The check refuses the row.
    #[default]
    Fail,
    /// A usable one is left alone.
    Skip,
    /// A pass older than our intent may be replaced.
    Replace,
}

/// The suffix of the name of a key that is also a break-glass key.
const BREAK_GLASS: &str = ", break-glass";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientRecord {
    /// The set's name, `all` if there is only one.
    pub label: String,
    pub keys: Vec<String>,
    /// The names of keys: their label in the settings, and whether they are break-glass keys. A key
    /// given directly has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
}

impl RecipientRecord {
    /// Who may read, for people: names with the beginning of their key.
    #[must_use]
    pub fn readers(&self) -> String {
        self.keys.iter().map(|key| self.reader(key)).collect::<Vec<_>>().join(", ")
    }

    #[must_use]
    pub fn reader(&self, key: &str) -> String {
        match self.names.get(key) {
            Some(name) => format!("{} ({})", display_name(name), beginning(key)),
            None => beginning(key),
        }
    }

    /// The set's name, for people.
    #[must_use]
    pub fn title(&self) -> String {
        display_name(&self.label)
    }
}

/// A name from a file, shortened and escaped so that it cannot look like several names, or a key.
fn display_name(name: &str) -> String {
    const SHOWN: usize = 60;
    let (name, suffix) = match name.strip_suffix(BREAK_GLASS) {
        Some(name) => (name, BREAK_GLASS),
        None => (name, ""),
    };
    let cut = name.char_indices().nth(SHOWN);
    let (begin, rest) = cut.map_or((name, ""), |(at, _)| (&name[..at], "…"));
    format!("{}{rest}{suffix}", escape_separators(begin))
}

/// Escapes the characters that separate readers, and a name from its key.
fn escape_separators(text: &str) -> String {
    let mut safe = String::new();
    for c in shown::escaped(text).chars() {
        if "(),;:…".contains(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// The part of a public key that identifies it: SSH keys of a kind all begin the same way. A damaged
/// ledger may hold something that is not a key.
fn beginning(key: &str) -> String {
    const SHOWN: usize = 16;
    let key = escape_separators(key);
    if let Some((kind, rest)) = key.split_once(' ') {
        let rest = rest.split(' ').next().unwrap_or_default();
        let last = rest.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
        let kind: String = kind.chars().take(SHOWN).collect();
        return format!("{kind} …{}", &rest[last..]);
    }
    // The last 1 ends a plugin's name.
    let data = key.rfind('1').map_or(0, |at| at + 1);
    match key.char_indices().nth(data.min(32) + SHOWN) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRecord {
    pub min_lifetime_minutes: u32,
    pub max_lifetime_minutes: u32,
    pub default_lifetime_minutes: u32,
    pub one_time: bool,
}

/// A valid row of the wave, to be added to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    pub line: Line,
    /// The userPrincipalName as written.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    /// What the row asks for, as the wave reader serialises it.
    pub wanted_json: String,
}

/// An invalid row of the wave, kept for `status` and `--rejects`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBadRow {
    pub line: Line,
    /// The userPrincipalName column; may be empty.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    pub problems: Vec<String>,
}

/// Everything that the ledger knows of a row, except the ciphertext. What its state needs comes from
/// methods that fail if it is missing, so that no row is skipped by mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRecord {
    pub line: Line,
    /// The userPrincipalName as written.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    /// What the row asks for, as the wave reader serialised it.
    pub wanted_json: String,
    pub state: State,
    pub(super) user: Option<UserId>,
    pub display_name: Option<String>,
    pub(super) asked: Option<Asked>,
    pub(super) set: Option<u32>,
    /// The row's pass, until it is settled as lost.
    pub issued: Option<IssuedRecord>,
    /// Why it is in this state.
    pub reason: Option<String>,
    /// A foreign pass that was seen on the user.
    pub foreign: Option<MethodId>,
    pub(super) intent: Option<IntentRecord>,
    pub reader: Option<Reader>,
    pub mail: Option<MailRecord>,
    pub notice_reader: Option<Reader>,
    pub notice: Option<MailRecord>,
    /// Attempts lost since the check, or since an operator last had the row retried. Throttled ones
    /// do not count.
    pub attempts: u32,
    /// The finished handoff file that holds its pass.
    pub handoff: Option<String>,
}

/// The person of a row, as the check found them.
#[derive(Debug, Clone, Copy)]
pub struct RowPerson<'a> {
    pub user: UserId,
    pub display_name: Option<&'a str>,
    pub asked: &'a Asked,
    pub set: u32,
}

impl RowRecord {
    /// Every checked row has one. On [`LedgerError::BrokenRow`] nothing may be done for the row, and
    /// nothing counts as proven.
    pub fn person(&self) -> Result<RowPerson<'_>, LedgerError> {
        Ok(RowPerson {
            user: self.user.ok_or_else(|| self.lacks("it names no user"))?,
            display_name: self.display_name.as_deref(),
            asked: self
                .asked
                .as_ref()
                .ok_or_else(|| self.lacks("it does not say what its pass shall be"))?,
            set: self.set.ok_or_else(|| self.lacks("it names no recipients"))?,
        })
    }

    /// None before the check.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Whether no pass was ever requested.
    #[must_use]
    pub const fn is_untried(&self) -> bool {
        self.intent.is_none()
    }

    /// The latest attempt, for a row whose state implies one.
    pub fn attempt(&self) -> Result<&IntentRecord, LedgerError> {
        self.intent.as_ref().ok_or_else(|| self.lacks("its attempt is missing"))
    }

    pub fn lacks(&self, lacks: &'static str) -> LedgerError {
        LedgerError::BrokenRow { line: self.line, upn: self.upn.clone(), lacks }
    }
}

/// A pass as Graph returned it, without its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedRecord {
    pub method: MethodId,
    pub start: Option<Timestamp>,
    pub lifetime_minutes: u32,
    pub one_time: bool,
}

/// A recorded attempt. Unlike [`Intent`](super::Intent) it permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentRecord {
    pub id: IntentId,
    pub asked: Asked,
    /// Graph's clock when it was created.
    pub graph_time: Timestamp,
    /// This machine's clock when it was created.
    pub minted: Timestamp,
    /// Graph's clock when it was given up, if its answer was lost.
    pub given_up: Option<Timestamp>,
    /// The name of the event that ended it; `None` while its outcome is unknown.
    pub outcome: Option<String>,
    /// Whether a pass of unknown id may be alive from it.
    pub may_live: bool,
}

/// What may be alive of one row: every pass whose id this run has seen, and every attempt that may
/// have created one, whatever the row's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    pub line: Line,
    pub upn: String,
    /// Why the rest cannot be read.
    pub unreadable: Option<String>,
    /// None if there was no attempt, or the ledger is damaged.
    pub user: Option<UserId>,
    pub state: State,
    /// Passes that may be alive, with their latest possible expiry by Graph's clock.
    pub alive: Vec<(MethodId, Timestamp)>,
    /// Passes that we deleted: a list that shows one is out of date.
    pub gone: Vec<MethodId>,
    /// Passes that count as gone because lists did not show them, or showed another in their place.
    pub given_up: Vec<MethodId>,
    /// Attempts that created a pass, or may have.
    pub attempts: Vec<IntentRecord>,
    /// Graph's clock at the first look that showed nothing of the row, since something of it was last
    /// seen or requested.
    pub absent_since: Option<Timestamp>,
    /// This machine's clock at that look.
    pub absent_at: Option<Timestamp>,
    /// Whether a look has shown the sealed pass on its user: from then on a similar one is foreign.
    pub seen: bool,
    /// The ids whose DELETE Graph answered with 204 in this process. Not recorded: a later process
    /// looks itself.
    pub deleted: Vec<MethodId>,
}

impl Remains {
    /// A row of which something may be alive and that cannot be read.
    pub(super) fn unreadable(line: Line, upn: String, why: String) -> Self {
        Self {
            line,
            upn,
            unreadable: Some(why),
            user: None,
            state: State::Listed,
            alive: Vec::new(),
            gone: Vec::new(),
            given_up: Vec::new(),
            attempts: Vec::new(),
            absent_since: None,
            absent_at: None,
            seen: false,
            deleted: Vec::new(),
        }
    }

    /// For how long looks have shown nothing of the row, by the clock that says less.
    #[must_use]
    pub fn absent_for(&self, now: Clocks) -> Option<Duration> {
        let (graph, machine) = (self.absent_since?, self.absent_at?);
        Some(span(graph, now.graph).min(span(machine, now.machine)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffRecord {
    /// Its name in the handoff folder.
    pub file: String,
    pub written: Timestamp,
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
}

/// A recorded mail, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRecord {
    pub posted: Posted,
    /// The name of the event that ended it; `None` while its outcome is unknown.
    pub outcome: Option<String>,
    /// The other side's answer, if it accepted the mail.
    pub receipt: Option<String>,
    /// When its outcome was known.
    pub ended: Option<Timestamp>,
}

impl MailRecord {
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        self.receipt.is_some()
    }

    /// Whether it is unknown if it was sent.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.outcome.as_deref().is_none_or(|outcome| outcome == events::LOST)
    }

    /// Whether its outcome, if it has one, is valid and agrees with the receipt.
    #[must_use]
    pub fn is_outcome_known(&self) -> bool {
        let known = [events::TAKEN, events::NOT_SENT, events::REFUSED, events::LOST];
        let outcome = self.outcome.as_deref();
        outcome.is_none_or(|outcome| known.contains(&outcome))
            && self.is_taken() == (outcome == Some(events::TAKEN))
    }

    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.outcome.as_deref() == Some(events::REFUSED)
    }
}

/// A pass that was created but whose code nobody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// Its id, as the answer named it.
    pub method: MethodId,
    pub why: String,
}

/// How Graph refused an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    Final {
        /// Graph's answer, shortened.
        why: String,
    },
    /// Because a pass exists, which may be one of our own.
    InTheWay {
        /// Graph's answer, shortened.
        why: String,
    },
}

/// Rows by state, and requests sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub(super) by_standing: [u64; Standing::ALL.len()],
    /// Sealed rows whose pass is not proven to be the one on the user.
    pub unproven: u64,
    /// Notices that were accepted, of passes that are not removed.
    pub notices_sent: u64,
    /// Notices not known to be accepted, although the pass was mailed.
    pub notices_open: u64,
    pub requests: u64,
    pub throttled: u64,
}

impl Counts {
    #[must_use]
    pub const fn of(&self, standing: Standing) -> u64 {
        self.by_standing[standing as usize]
    }

    #[must_use]
    pub fn rows(&self) -> u64 {
        self.by_standing.iter().sum()
    }
}

/// A sealed and proven row that no finished handoff file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unhanded {
    pub line: Line,
    pub set: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settling_time_is_kept_exactly_and_never_shortened() {
        for (settle_after, seconds, kept) in [
            (Duration::ZERO, 0, Duration::ZERO),
            (Duration::from_micros(1), 1, Duration::from_millis(1)),
            (Duration::from_millis(100), 1, Duration::from_millis(100)),
            (Duration::from_millis(1_500), 2, Duration::from_millis(1_500)),
            (Duration::from_mins(5), 300, Duration::from_mins(5)),
        ] {
            let options = RunOptions::default().with_settle_after(settle_after);
            // An older tapwave reads this.
            assert_eq!(options.fence_seconds, seconds, "{settle_after:?}");
            let text = serde_json::to_string(&options).expect("JSON");
            let read: RunOptions = serde_json::from_str(&text).expect("options");
            assert_eq!(read.settle_after(), kept, "{text}");
        }
    }

    #[test]
    fn readers_are_shown_with_their_keys() {
        let keys = [
            "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
            "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN ada@pc",
            "odd\u{1b}",
        ];
        let record = RecipientRecord {
            label: "all".to_owned(),
            keys: keys.iter().map(ToString::to_string).collect(),
            names: BTreeMap::from([(keys[0].to_owned(), "AMS".to_owned())]),
        };
        assert_eq!(
            record.readers(),
            "AMS (age1ql3z7hjy54pw3hyw…), age1yubikey1qwt50d05nh5vutpd…, ssh-ed25519 …M/XXUB+VHtZ6isGN, odd\\u{1b}"
        );
        let older: RecipientRecord =
            serde_json::from_str(r#"{"label":"all","keys":["age1x"]}"#).expect("a record");
        assert_eq!(older.readers(), "age1x");
    }

    #[test]
    fn the_settling_time_of_an_older_ledger_is_read() {
        let older: RunOptions = serde_json::from_str(r#"{"fenceSeconds":300}"#).expect("options");
        assert_eq!(older.settle_after(), Duration::from_mins(5));
    }
}
