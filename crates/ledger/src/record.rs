//! Promises the shapes in which the ledger takes and gives what it knows. Never holds a pass.
//!
//! What upper rooms own (a wave's header, a row's wishes) travels as JSON text: the ledger
//! keeps it and does not read it.

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

/// What a run is about; written once, when its ledger is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Tells this run from every other one. A copy of it has the same.
    pub id: RunId,
    /// The run's name, which is its folder's.
    pub name: String,
    /// When the ledger was made.
    pub created: Timestamp,
    /// The version of tapwave that made it.
    pub tapwave_version: String,
    /// Where the rows came from.
    pub wave: WaveAbout,
    /// The tenant's id or domain, if one was named.
    pub tenant: Option<String>,
    /// Where Graph was reached.
    pub graph_url: String,
    /// How the run was asked for.
    pub options: RunOptions,
    /// Who may read the passes; a row's `set` counts into this list.
    pub recipients: Vec<RecipientRecord>,
    /// The tenant's policy as the check found it.
    pub policy: PolicyRecord,
    /// When the check that let the rows in was made. Later checks:
    /// [`Ledger::checked_at`](super::Ledger::checked_at).
    pub checked_at: Timestamp,
}

/// The wave file a run was made from. It is not needed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveAbout {
    /// The file's path, for people.
    pub path: String,
    /// SHA-256 of the file's bytes, in hex.
    pub digest: String,
    /// The header as the wave reader serialises it.
    pub header_json: String,
    /// Rows in the file, good and bad.
    pub rows: u64,
}

/// The options a resume needs again. Fields that an older ledger lacks take their default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunOptions {
    /// `--lifetime`, in minutes.
    pub lifetime_minutes: Option<u32>,
    /// `--start`.
    pub start: Option<Timestamp>,
    /// `--one-time` or `--multi-use`.
    pub one_time: Option<bool>,
    /// `--existing`.
    pub existing: Existing,
    /// `--group`, as given.
    pub groups: Vec<String>,
    /// `--skip-ineligible`.
    pub skip_ineligible: bool,
    /// How long a lost request may still take effect, in whole seconds, rounded up.
    /// [`RunOptions::settle_after`] has it exactly.
    pub fence_seconds: u64,
    /// The same in milliseconds, rounded up; an older ledger lacks it.
    pub fence_millis: Option<u64>,
    /// Whether `--settle-after` said so; else tapwave.toml or nobody did.
    pub fence_by_flag: bool,
    /// How the passes are to be mailed, if that was asked for.
    pub mail: Option<MailOptions>,
}

impl RunOptions {
    /// Keeps this settling time, never a shorter one.
    #[must_use]
    pub fn with_settle_after(self, settle_after: Duration) -> Self {
        let up = |unit: Duration| settle_after.as_nanos().div_ceil(unit.as_nanos());
        let whole = |units: u128| u64::try_from(units).unwrap_or(u64::MAX);
        Self {
            fence_seconds: whole(up(Duration::from_secs(1))),
            fence_millis: Some(whole(up(Duration::from_millis(1)))),
            ..self
        }
    }

    /// How long a lost request may still take effect, as exactly as this ledger has it.
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
    /// `--deliver`: by the run itself.
    pub at_once: bool,
    /// `--to`, in order.
    pub to: Vec<To>,
    /// `--notice-to`, in order; empty if nobody else is told.
    pub notice_to: Vec<To>,
    /// Whether a letter names the person's manager, who is then looked up for every row.
    pub names_manager: bool,
    /// `--body`: `pass`, `sealed` or `notice`.
    pub body: String,
    /// `--template`.
    pub templates: Option<std::path::PathBuf>,
    /// The zone of readers whose row names none.
    pub time_zone: Option<String>,
}

/// Where a reader's address comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum To {
    /// The wave's deliverTo column.
    Column,
    /// The manager's mail address.
    Manager,
    /// The first of the user's other addresses.
    OtherMail,
    /// The user's own mailbox.
    Mail,
    /// This one, for every row.
    Address(String),
}

/// What to do about a pass that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Existing {
    /// The check refuses and names them.
    #[default]
    Fail,
    /// Usable ones are left alone.
    Skip,
    /// A pass older than our intent may be replaced.
    Replace,
}

/// What follows the name of a key that is break-glass besides.
const BESIDES: &str = ", break-glass";

/// One set of recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientRecord {
    /// The set's name, `all` if there is only one.
    pub label: String,
    pub keys: Vec<String>,
    /// What a key is called: by its label in the settings, and as break-glass. One that was given
    /// as it is has no name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<String, String>,
}

impl RecipientRecord {
    /// Who may read, for people: each name with its key's beginning.
    #[must_use]
    pub fn readers(&self) -> String {
        self.keys.iter().map(|key| self.reader(key)).collect::<Vec<_>>().join(", ")
    }

    /// One of them.
    #[must_use]
    pub fn reader(&self, key: &str) -> String {
        match self.names.get(key) {
            Some(name) => format!("{} ({})", worded(name), beginning(key)),
            None => beginning(key),
        }
    }

    /// What the set is called, for people.
    #[must_use]
    pub fn title(&self) -> String {
        worded(&self.label)
    }
}

/// A name from a file, which cannot be taken for more than one, nor for a key; a long one is cut.
fn worded(name: &str) -> String {
    const SHOWN: usize = 60;
    // A key with a label may be break-glass besides.
    let (name, besides) = match name.strip_suffix(BESIDES) {
        Some(name) => (name, BESIDES),
        None => (name, ""),
    };
    let cut = name.char_indices().nth(SHOWN);
    let (begin, rest) = cut.map_or((name, ""), |(at, _)| (&name[..at], "…"));
    format!("{}{rest}{besides}", unparted(begin))
}

/// The text with what stands between readers, and between a name and its key, written out.
fn unparted(text: &str) -> String {
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

/// What of a public key tells it from others. All SSH keys of a kind begin alike. In a ledger may
/// stand what is no key at all.
fn beginning(key: &str) -> String {
    const SHOWN: usize = 16;
    let key = unparted(key);
    if let Some((kind, rest)) = key.split_once(' ') {
        let rest = rest.split(' ').next().unwrap_or_default();
        let last = rest.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
        let kind: String = kind.chars().take(SHOWN).collect();
        return format!("{kind} …{}", &rest[last..]);
    }
    // A plugin's name stands before the last 1.
    let data = key.rfind('1').map_or(0, |at| at + 1);
    match key.char_indices().nth(data.min(32) + SHOWN) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key,
    }
}

/// What the tenant's policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRecord {
    /// Shortest lifetime, in minutes.
    pub min_lifetime_minutes: u32,
    /// Longest lifetime, in minutes.
    pub max_lifetime_minutes: u32,
    /// Lifetime where none is asked for, in minutes.
    pub default_lifetime_minutes: u32,
    /// Whether every pass must be one-time.
    pub one_time: bool,
}

/// A well-formed row of the wave on its way into a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow {
    /// Its line in the wave.
    pub line: Line,
    /// The userPrincipalName as written.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    /// What the row asks for, as the wave reader serialises it.
    pub wanted_json: String,
}

/// A row of the wave that cannot be used, kept so that `status` and `--rejects` can show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBadRow {
    /// Its line in the wave.
    pub line: Line,
    /// What stands in the userPrincipalName column; may be empty.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    pub problems: Vec<String>,
}

/// Everything the ledger knows of a row, the ciphertext aside. What its state needs is had by
/// asking for it, which fails where the ledger has lost it: nothing can pass a row over unawares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRecord {
    /// Its line in the wave.
    pub line: Line,
    /// The userPrincipalName as written.
    pub upn: String,
    /// Every field as written.
    pub cells: Vec<String>,
    /// What the row asks for, as the wave reader serialised it.
    pub wanted_json: String,
    pub state: State,
    /// The object id, once checked.
    pub(super) user: Option<UserId>,
    /// For people to read.
    pub display_name: Option<String>,
    /// What its pass shall be, once checked.
    pub(super) asked: Option<Asked>,
    /// Index of the recipient set, once checked.
    pub(super) set: Option<u32>,
    /// The pass this row owns or owned, until a lost one is settled.
    pub issued: Option<IssuedRecord>,
    /// Why it stands where it stands, if there is something to say.
    pub reason: Option<String>,
    /// Somebody else's pass that was seen on the user.
    pub foreign: Option<MethodId>,
    pub(super) intent: Option<IntentRecord>,
    /// Who gets its mail.
    pub reader: Option<Reader>,
    pub mail: Option<MailRecord>,
    /// Who is told that somebody else has the pass.
    pub notice_reader: Option<Reader>,
    pub notice: Option<MailRecord>,
    /// Attempts that were lost since the check, or since an operator last let the row try
    /// again. Throttled ones do not count.
    pub attempts: u32,
    /// The finished handoff file that holds its pass.
    pub handoff: Option<String>,
}

/// Who a row is about, as the check found them.
#[derive(Debug, Clone, Copy)]
pub struct RowPerson<'a> {
    pub user: UserId,
    /// For people to read.
    pub display_name: Option<&'a str>,
    /// What the pass shall be.
    pub asked: &'a Asked,
    /// Index of the recipient set.
    pub set: u32,
}

impl RowRecord {
    /// Who it is about. Only a row that nobody checked has nobody.
    ///
    /// # Errors
    /// [`LedgerError::BrokenRow`]: nothing may be done for this row, and nothing be proven of it.
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

    /// Whose it is, if somebody has checked it.
    #[must_use]
    pub const fn user(&self) -> Option<UserId> {
        self.user
    }

    /// Whether no pass was ever asked for.
    #[must_use]
    pub const fn is_untried(&self) -> bool {
        self.intent.is_none()
    }

    /// Its latest attempt, for a row whose state speaks of one.
    pub fn attempt(&self) -> Result<&IntentRecord, LedgerError> {
        self.intent.as_ref().ok_or_else(|| self.lacks("its attempt is missing"))
    }

    /// Why nothing can be done for it.
    pub fn lacks(&self, lacks: &'static str) -> LedgerError {
        LedgerError::BrokenRow { line: self.line, upn: self.upn.clone(), lacks }
    }
}

/// A pass as Graph answered it, without its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedRecord {
    pub method: MethodId,
    /// When it begins to work.
    pub start: Option<Timestamp>,
    /// Minutes from the start.
    pub lifetime_minutes: u32,
    /// Whether it works once only.
    pub one_time: bool,
}

/// An attempt as the ledger remembers it. Unlike [`Intent`](super::Intent) it permits nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentRecord {
    pub id: IntentId,
    /// What it asked for.
    pub asked: Asked,
    /// Graph's clock when it was minted.
    pub graph_time: Timestamp,
    /// The wall clock when it was minted.
    pub minted: Timestamp,
    /// Graph's clock when it was given up, if its answer was lost.
    pub given_up: Option<Timestamp>,
    /// The name of the event that ended it; `None` while its outcome is unknown.
    pub outcome: Option<String>,
    /// Whether a pass of it may be alive whose id nobody knows.
    pub may_live: bool,
}

/// What may be alive of one row: every pass whose id this run ever saw, and every attempt that
/// may have created one, whatever became of the row afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    pub line: Line,
    pub upn: String,
    /// Why the rest of this cannot be read, if it cannot.
    pub unreadable: Option<String>,
    /// The object id. A row without one had no attempt: else the ledger is damaged.
    pub user: Option<UserId>,
    /// Where the row stands.
    pub state: State,
    /// Passes that may be alive, and when each is over at the latest by Graph's clock.
    pub alive: Vec<(MethodId, Timestamp)>,
    /// Passes that were deleted by us: a list that shows one is behind.
    pub gone: Vec<MethodId>,
    /// Passes that count as gone because of what lists did not show, or showed in their place.
    pub given_up: Vec<MethodId>,
    /// Attempts that created a pass, or may have; those that may still have one of unknown id
    /// say so.
    pub attempts: Vec<IntentRecord>,
    /// Graph's clock at the first look that showed nothing of the row's, since something of it
    /// was last seen or asked for.
    pub absent_since: Option<Timestamp>,
    /// This machine's clock at that look.
    pub absent_at: Option<Timestamp>,
    /// Whether a look has shown the sealed pass as the one of its user: from then on another one
    /// of the same shape is somebody else's.
    pub seen: bool,
    /// The ids whose DELETE this process has had Graph's 204 to. Not recorded: a later process
    /// looks for itself.
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

    /// For how long looks have shown nothing of the row's, by whichever clock says less.
    #[must_use]
    pub fn absent_for(&self, now: Clocks) -> Option<Duration> {
        let (graph, machine) = (self.absent_since?, self.absent_at?);
        Some(span(graph, now.graph).min(span(machine, now.machine)))
    }
}

/// A finished handoff file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffRecord {
    /// Its name in the handoff folder.
    pub file: String,
    /// When it was finished.
    pub written: Timestamp,
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
}

/// A mail as the ledger remembers it; never its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailRecord {
    /// What was frozen before it was sent.
    pub posted: Posted,
    /// The name of the event that ended it; `None` while its outcome is unknown.
    pub outcome: Option<String>,
    /// The other side's words, if it took the mail.
    pub receipt: Option<String>,
    /// When its outcome was known.
    pub ended: Option<Timestamp>,
}

impl MailRecord {
    /// Whether the other side took it.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        self.receipt.is_some()
    }

    /// Whether nobody knows if it went out.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.outcome.as_deref().is_none_or(|outcome| outcome == events::LOST)
    }

    /// Whether its outcome, if it has one, is one that ledgers write, and agrees with the receipt.
    #[must_use]
    pub fn is_outcome_known(&self) -> bool {
        let known = [events::TAKEN, events::NOT_SENT, events::REFUSED, events::LOST];
        let outcome = self.outcome.as_deref();
        outcome.is_none_or(|outcome| known.contains(&outcome))
            && self.is_taken() == (outcome == Some(events::TAKEN))
    }

    /// Whether the other side refused it for good.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.outcome.as_deref() == Some(events::REFUSED)
    }
}

/// A pass that was made and whose code nobody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheld {
    /// Its id, as the answer named it.
    pub method: MethodId,
    pub why: String,
}

/// How Graph refused an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// For good.
    Final {
        /// Graph's own words, shortened.
        why: String,
    },
    /// Because a pass exists that nobody can tell from one of our own: to be looked at again.
    InTheWay {
        /// Graph's own words, shortened.
        why: String,
    },
}

/// How many rows stand where, and what the run cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub(super) by_standing: [u64; Standing::ALL.len()],
    /// Sealed rows of whose pass nobody knows whether it is the one on the user.
    pub unproven: u64,
    /// Notices that a courier took, of passes that are not removed.
    pub notices_sent: u64,
    /// Notices that no courier is known to have taken, although the pass was mailed.
    pub notices_open: u64,
    pub requests: u64,
    /// Calls that Graph refused because of throttling.
    pub throttled: u64,
}

impl Counts {
    /// Rows in this state.
    #[must_use]
    pub const fn of(&self, standing: Standing) -> u64 {
        self.by_standing[standing as usize]
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.by_standing.iter().sum()
    }
}

/// A sealed and proven row that no finished handoff file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unhanded {
    pub line: Line,
    /// Index of its recipient set.
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
            // What an earlier tapwave reads.
            assert_eq!(options.fence_seconds, seconds, "{settle_after:?}");
            let text = serde_json::to_string(&options).expect("JSON");
            let read: RunOptions = serde_json::from_str(&text).expect("options");
            assert_eq!(read.settle_after(), kept, "{text}");
        }
    }

    #[test]
    fn readers_are_told_apart_by_their_keys() {
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
