//! Promises that a pass is sealed by the task that received it and is in the ledger, with
//! its id, before anything else happens to it.
//!
//! Also decides who may read which row: [`RecipientBook`]. Must never let a pass wait.

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

/// The label of the set for rows that name nobody themselves.
pub const DEFAULT_LABEL: &str = "passes";

/// A pass that is in the ledger as ciphertext. Made by [`seal`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    line: Line,
    user: UserId,
    method: MethodId,
    proven: bool,
}

impl Sealed {
    /// Its line in the wave.
    #[must_use]
    pub const fn line(&self) -> Line {
        self.line
    }

    /// Whose it is.
    #[must_use]
    pub const fn user(&self) -> UserId {
        self.user
    }

    /// Its id.
    #[must_use]
    pub const fn method(&self) -> &MethodId {
        &self.method
    }

    /// False if it followed a lost attempt, so that somebody must look again before it is
    /// relied on.
    #[must_use]
    pub const fn is_proven(&self) -> bool {
        self.proven
    }
}

/// Where sealed passes go: the run's sets of recipients and this process's spool.
pub struct Sealer {
    sets: Vec<Arc<RecipientSet>>,
    spool: Spool,
}

impl Sealer {
    /// Seals to `sets`, counted from 0, and keeps a copy for the handoff in `spool`.
    #[must_use]
    pub fn new(sets: Vec<Arc<RecipientSet>>, spool: Spool) -> Self {
        Self { sets, spool }
    }

    /// This process's spool, from which a letter's code is read again.
    #[must_use]
    pub const fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Leaves a row out of the handoff.
    pub fn forget(&self, line: Line) {
        self.spool.forget(line);
    }

    /// Takes it apart for the handoff.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Arc<RecipientSet>>, Spool) {
        (self.sets, self.spool)
    }
}

/// Seals a pass and commits it. If either fails, the pass is deleted again while its id is
/// known, and the run must stop: a full disk gets no better by going on.
///
/// # Errors
/// [`RunError::Seal`] or [`RunError::Ledger`]
pub async fn seal(worker: &Worker, vault: &Sealer, issued: Issued) -> Result<Sealed, RunError> {
    let about = ledger::IssuedRecord {
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
        start: about.start,
        lifetime_minutes: about.lifetime_minutes,
        one_time: about.one_time,
        method: method.clone(),
    });
    let sealed = match (entry, vault.sets.get(set as usize)) {
        (Ok(entry), Some(to)) => encrypt(to, entry, &vault.spool, set, line),
        (Err(bad), _) => Err(format!("its userPrincipalName {bad}")),
        (_, None) => Err("the ledger names recipients it does not hold".to_owned()),
    };
    let (ciphertext, spooled) = match sealed {
        Ok(sealed) => sealed,
        Err(why) => {
            let fate = worker.undo(user, method.clone()).await;
            let given_up = worker.graph.now();
            let unheld = Effect::Done(Unheld { method, why: why.clone() });
            worker.ledger.record_outcome(intent, unheld, given_up).await?;
            return Err(RunError::Seal { line, why, fate });
        }
    };
    let committed = worker.ledger.sealed(intent, about, set, ciphertext, arrived).await;
    let state = match committed {
        Ok(state) => state,
        Err(error) => {
            let fate = worker.undo(user, method).await;
            return Err(RunError::Seal { line, why: error.to_string(), fate });
        }
    };
    // Should the spool fail, the row is laid beside the handoff from the ledger.
    if vault.spool.keep(spooled).is_err() {
        vault.forget(line);
    }
    let proven = matches!(state, ledger::State::Sealed { proven: true, .. });
    Ok(Sealed { line, user, method, proven })
}

type Encrypted = (Vec<u8>, tapwave_seal::Spooled);

/// A plugin starts a process and waits for it, which must not hold up the other tasks.
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

/// Why nobody could be found to seal for.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Neither a label that the settings know nor a key of any kind.
    #[error(
        "{shown:?} is neither a label nor a key that age knows; give a public key that begins with age1, or a label: {known}"
    )]
    Unknown {
        /// As given, shortened; never a private key.
        shown: String,
        known: String,
    },
    /// A key that cannot be used.
    #[error("the recipient {0}")]
    Key(BadRecipient),
    /// A label whose key cannot be used.
    #[error("label {label} of tapwave.toml: the recipient {why}")]
    Label {
        label: String,
        /// What is wrong with its key.
        why: BadRecipient,
    },
    /// A row without a recipient of its own, and no default.
    #[error("nobody could read its pass; name a recipient in the row, or give -r")]
    Nobody,
    /// Age refuses the set.
    #[error(transparent)]
    Set(#[from] SetError),
    /// Over [`limits::MAX_RECIPIENT_SETS`].
    #[error("the wave names more than {max} different sets of recipients", max = limits::MAX_RECIPIENT_SETS)]
    TooMany,
}

/// Who may read which row.
///
/// A row that names recipients itself is sealed to those, others to the run's; the
/// break-glass recipients are added to every set.
pub struct RecipientBook {
    labels: BTreeMap<String, Vec<String>>,
    default: Vec<String>,
    break_glass: Vec<Recipient>,
    prompts: Arc<dyn Prompts>,
    sets: Vec<Arc<RecipientSet>>,
    by_text: HashMap<String, u32>,
    /// What keys are called; see [`RecipientRecord::names`].
    names: BTreeMap<String, String>,
}

/// What a key is called that may read every pass.
const BREAK_GLASS: &str = "break-glass";

impl RecipientBook {
    /// `labels` come from the settings; `default` are labels or keys for rows that name
    /// nobody; `break_glass` may read every pass.
    ///
    /// # Errors
    /// [`BookError`], if one of them is neither a label nor a key.
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

    /// The book of a ledger, in its order.
    ///
    /// # Errors
    /// [`BookError`], if a plugin is gone or a key damaged.
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

    /// Whether rows that name nobody have readers.
    #[must_use]
    pub fn has_default(&self) -> bool {
        !self.default.is_empty()
    }

    /// Whether anybody at all could read: a default, or break-glass recipients.
    #[must_use]
    pub fn has_anybody(&self) -> bool {
        self.has_default() || !self.break_glass.is_empty()
    }

    /// Whether the settings have labels that a row may name.
    #[must_use]
    pub fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// The set for a row, by what stands in its `recipient` column. Several labels or keys
    /// are separated by blanks or commas.
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

    /// The sets so far, for the ledger.
    #[must_use]
    pub fn records(&self) -> Vec<RecipientRecord> {
        let name = |key: &String| Some((key.clone(), self.names.get(key)?.clone()));
        let record = |set: &Arc<RecipientSet>| RecipientRecord {
            label: set.label().to_owned(),
            keys: set.keys().to_vec(),
            names: set.keys().iter().filter_map(name).collect(),
        };
        self.sets.iter().map(record).collect()
    }

    /// The sets so far, in the order of their numbers.
    #[must_use]
    pub fn into_sets(self) -> Vec<Arc<RecipientSet>> {
        self.sets
    }

    /// What the handoff file is called: the labels, or the beginning of a key.
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
        // A key is itself, whatever the settings call by its name.
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

/// The beginning of a text that is no key.
fn shown(text: &str) -> String {
    tapwave_core::shown::plain(&text.chars().take(24).collect::<String>())
}

/// What can go wrong while the handoff is written. The ledger has everything all the same.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The files.
    #[error(transparent)]
    Files(#[from] HandoffError),
    /// The record of the files.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A stored ciphertext.
    #[error(transparent)]
    Damaged(#[from] tapwave_seal::NotCiphertext),
}
