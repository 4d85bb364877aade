//! Promises that a pass is sealed by the task that received it, and is in the ledger with its id
//! before anything else happens to it.
//!
//! Also decides who may read which row: [`RecipientBook`]. Must never queue a pass.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::issue::Issued;
use crate::worker::{RunError, Worker};
use tapwave_core::effect::Effect;
use tapwave_core::ids::{Line, MethodId, Upn, UserId};
use tapwave_core::limits;
use tapwave_ledger::{self as ledger, LedgerError, RecipientRecord, Unheld};
use tapwave_seal::{
    BadRecipient, Entry, HandoffError, Prompts, Recipient, RecipientSet, SetError, Spool,
};

/// The label of the default set.
pub const DEFAULT_LABEL: &str = "passes";

/// A pass whose ciphertext is in the ledger. Made by [`seal`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    line: Line,
    user: UserId,
    method: MethodId,
    proven: bool,
}

impl Sealed {
    pub const fn line(&self) -> Line {
        self.line
    }

    pub const fn user(&self) -> UserId {
        self.user
    }

    pub const fn method(&self) -> &MethodId {
        &self.method
    }

    /// False if the pass followed a lost attempt, and must be looked at before it is relied on.
    pub const fn is_proven(&self) -> bool {
        self.proven
    }
}

/// The run's sets of recipients, and this process's spool.
pub struct Sealer {
    sets: Vec<Arc<RecipientSet>>,
    spool: Spool,
}

impl Sealer {
    /// A row names its set by its index in `sets`.
    pub fn new(sets: Vec<Arc<RecipientSet>>, spool: Spool) -> Self {
        Self { sets, spool }
    }

    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    pub fn forget(&self, line: Line) {
        self.spool.forget(line);
    }

    pub fn into_parts(self) -> (Vec<Arc<RecipientSet>>, Spool) {
        (self.sets, self.spool)
    }
}

/// Seals a pass and commits it. If either fails, the pass is deleted while its id is known, and the
/// run must stop: going on does not help a full disk.
pub async fn seal(worker: &Worker, sealer: &Sealer, issued: Issued) -> Result<Sealed, RunError> {
    let record = ledger::IssuedRecord {
        method: issued.method().clone(),
        start: issued.start(),
        lifetime_minutes: issued.lifetime_minutes(),
        one_time: issued.one_time(),
    };
    let arrived = issued.arrived();
    let (candidate, intent, method, pass) = issued.into_parts();
    let (line, user, set) = (candidate.line(), candidate.user(), candidate.set());
    let entry = candidate.upn().parse::<Upn>().map(|upn| Entry {
        upn,
        display_name: candidate.display_name().map(ToOwned::to_owned),
        pass,
        start: record.start,
        lifetime_minutes: record.lifetime_minutes,
        one_time: record.one_time,
        method: method.clone(),
    });
    let encrypted = match (entry, sealer.sets.get(set as usize)) {
        (Ok(entry), Some(to)) => encrypt(to, entry, &sealer.spool, set, line),
        (Err(bad), _) => Err(format!("its userPrincipalName {bad}")),
        (_, None) => Err("the ledger names recipients it does not hold".to_owned()),
    };
    let (ciphertext, spooled) = match encrypted {
        Ok(encrypted) => encrypted,
        Err(why) => {
            let undone = worker.undo(user, method.clone()).await;
            let given_up = worker.graph.now();
            let unheld = Effect::Done(Unheld { method, why: why.clone() });
            worker.ledger.record_outcome(intent, unheld, given_up).await?;
            return Err(RunError::Seal { line, why, undone });
        }
    };
    let committed = worker.ledger.sealed(intent, record, set, ciphertext, arrived).await;
    let state = match committed {
        Ok(state) => state,
        Err(error) => {
            let undone = worker.undo(user, method).await;
            return Err(RunError::Seal { line, why: error.to_string(), undone });
        }
    };
    // If the spool fails, the handoff takes the row from the ledger.
    if sealer.spool.keep(spooled).is_err() {
        sealer.forget(line);
    }
    let proven = matches!(state, ledger::State::Sealed { proven: true, .. });
    Ok(Sealed { line, user, method, proven })
}

type Encrypted = (Vec<u8>, tapwave_seal::Spooled);

/// A plugin starts a process and waits for it, which must not block the other tasks.
fn encrypt(
    to: &RecipientSet,
    entry: Entry,
    spool: &Spool,
    set: u32,
    line: Line,
) -> Result<Encrypted, String> {
    let seal = || to.seal_and_spool(entry, spool, set, line);
    let multi = tokio::runtime::Handle::current().runtime_flavor()
        == tokio::runtime::RuntimeFlavor::MultiThread;
    let sealed =
        if to.runs_plugins() && multi { tokio::task::block_in_place(seal) } else { seal() };
    let (ciphertext, spooled) = sealed.map_err(|error| error.to_string())?;
    Ok((ciphertext.into_bytes(), spooled))
}

/// Why the recipients of a row could not be found.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error(
        "{shown:?} is neither a label nor a key that age knows; give a public key that begins with age1, or a label: {known}"
    )]
    Unknown {
        /// Shortened; never a private key.
        shown: String,
        known: String,
    },
    #[error("the recipient {0}")]
    Key(BadRecipient),
    #[error("label {label} of tapwave.toml: the recipient {why}")]
    Label { label: String, why: BadRecipient },
    #[error("nobody could read its pass; name a recipient in the row, or give -r")]
    Nobody,
    #[error(transparent)]
    Set(#[from] SetError),
    #[error("the wave names more than {max} different sets of recipients", max = limits::MAX_RECIPIENT_SETS)]
    TooMany,
}

/// Who may read which row: the recipients that the row names, else the default ones, and always the
/// break-glass recipients.
pub struct RecipientBook {
    labels: BTreeMap<String, Vec<String>>,
    default: Vec<String>,
    break_glass: Vec<Recipient>,
    prompts: Arc<dyn Prompts>,
    sets: Vec<Arc<RecipientSet>>,
    by_text: HashMap<String, u32>,
    names: BTreeMap<String, String>,
}

const BREAK_GLASS: &str = "break-glass";

impl RecipientBook {
    pub fn new(
        labels: BTreeMap<String, Vec<String>>,
        default: Vec<String>,
        break_glass: &[String],
        prompts: Arc<dyn Prompts>,
    ) -> Result<Self, BookError> {
        let mut book = Self {
            labels,
            default,
            break_glass: Vec::new(),
            prompts,
            sets: Vec::new(),
            by_text: HashMap::new(),
            names: BTreeMap::new(),
        };
        for text in break_glass {
            for key in book.resolve(text)? {
                let name = book.names.entry(key.as_str().to_owned());
                name.and_modify(|name| {
                    if !name.ends_with(BREAK_GLASS) {
                        *name = format!("{name}, {BREAK_GLASS}");
                    }
                })
                .or_insert_with(|| BREAK_GLASS.to_owned());
                book.break_glass.push(key);
            }
        }
        let default = book.default.clone();
        for text in &default {
            book.resolve(text)?;
        }
        Ok(book)
    }

    /// The sets that a ledger recorded, in its order.
    pub fn restore(
        records: &[RecipientRecord],
        prompts: &Arc<dyn Prompts>,
    ) -> Result<Vec<Arc<RecipientSet>>, BookError> {
        let parse = |text: &String| text.parse::<Recipient>().map_err(BookError::Key);
        records
            .iter()
            .map(|record| {
                let keys = record.keys.iter().map(parse).collect::<Result<_, _>>()?;
                Ok(Arc::new(RecipientSet::new(&record.label, keys, prompts)?))
            })
            .collect()
    }

    pub fn has_default(&self) -> bool {
        !self.default.is_empty()
    }

    pub fn has_anybody(&self) -> bool {
        self.has_default() || !self.break_glass.is_empty()
    }

    pub fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// The set for what a row has in its `recipient` column: labels or keys, separated by blanks,
    /// commas or semicolons.
    pub fn set_for(&mut self, recipient: Option<&str>) -> Result<u32, BookError> {
        let text = recipient.map(str::trim).filter(|text| !text.is_empty()).unwrap_or_default();
        if let Some(set) = self.by_text.get(text) {
            return Ok(*set);
        }
        let names: Vec<String> = if text.is_empty() {
            self.default.clone()
        } else {
            text.split([' ', ',', ';'])
                .filter(|one| !one.is_empty())
                .map(ToOwned::to_owned)
                .collect()
        };
        let mut keys = Vec::new();
        for name in &names {
            keys.extend(self.resolve(name)?);
        }
        if keys.is_empty() && self.break_glass.is_empty() {
            return Err(BookError::Nobody);
        }
        keys.extend(self.break_glass.iter().cloned());
        let label = self.label(text, &names);
        let set = Arc::new(RecipientSet::new(&label, keys, &self.prompts)?);
        let number =
            if let Some(known) = self.sets.iter().position(|known| known.keys() == set.keys()) {
                known
            } else if self.sets.len() >= limits::MAX_RECIPIENT_SETS {
                return Err(BookError::TooMany);
            } else {
                self.sets.push(set);
                self.sets.len() - 1
            };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.by_text.insert(text.to_owned(), number);
        Ok(number)
    }

    pub fn records(&self) -> Vec<RecipientRecord> {
        let name = |key: &String| Some((key.clone(), self.names.get(key)?.clone()));
        let record = |set: &Arc<RecipientSet>| RecipientRecord {
            label: set.label().to_owned(),
            keys: set.keys().to_vec(),
            names: set.keys().iter().filter_map(name).collect(),
        };
        self.sets.iter().map(record).collect()
    }

    pub fn into_sets(self) -> Vec<Arc<RecipientSet>> {
        self.sets
    }

    /// The name of the handoff file.
    fn label(&self, text: &str, names: &[String]) -> String {
        if text.is_empty() {
            return DEFAULT_LABEL.to_owned();
        }
        let short = |name: &String| {
            if self.labels.contains_key(name) {
                name.clone()
            } else {
                name.chars().take(16).collect()
            }
        };
        names.iter().map(short).collect::<Vec<_>>().join("+")
    }

    fn resolve(&mut self, text: &str) -> Result<Vec<Recipient>, BookError> {
        let known = || match &self.labels.keys().cloned().collect::<Vec<_>>()[..] {
            [] => "there is none, tapwave.toml has no [recipients]".to_owned(),
            labels => labels.join(", "),
        };
        // A key counts as a key, even if the settings have a label of the same name.
        match text.parse() {
            Ok(key) => return Ok(vec![key]),
            Err(BadRecipient::Unknown) => {}
            Err(why) => return Err(BookError::Key(why)),
        }
        let Some(keys) = self.labels.get(text) else {
            return Err(BookError::Unknown { shown: shown(text), known: known() });
        };
        let broken = |why| BookError::Label { label: text.to_owned(), why };
        let keys: Vec<Recipient> =
            keys.iter().map(|key| key.parse().map_err(broken)).collect::<Result<_, _>>()?;
        for key in &keys {
            self.names.entry(key.as_str().to_owned()).or_insert_with(|| text.to_owned());
        }
        Ok(keys)
    }
}

fn shown(text: &str) -> String {
    tapwave_core::shown::plain(&text.chars().take(24).collect::<String>())
}

/// Why the handoff is not whole. The ledger has every pass all the same.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error(transparent)]
    Files(#[from] HandoffError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Damaged(#[from] tapwave_seal::NotCiphertext),
}
