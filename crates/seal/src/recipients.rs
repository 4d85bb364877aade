//! Promises that a set of recipients, once built, can seal: every key was parsed, every
//! plugin ran, and all of them agree to stand together. Must never echo a private key that
//! was given by mistake.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::plugin::{Plugin, PluginFailed, PluginRecipients};
use super::prompts::Prompts;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_core::wiped::read_small;

/// One public key that passes can be sealed to.
///
/// Native age keys (`age1…`, and the tagged `age1tag1…`, `age1tagpq1…` of hardware keys),
/// keys of an age plugin (`age1NAME1…`) and, with the cargo feature `ssh`, SSH keys.
#[derive(Clone)]
pub struct Recipient {
    text: String,
    key: RecipientKey,
}

#[derive(Clone)]
enum RecipientKey {
    X25519(age::x25519::Recipient),
    Tag(age::tag::Recipient),
    TagPq(Box<age::tagpq::Recipient>),
    Plugin(age::plugin::Recipient),
    #[cfg(feature = "ssh")]
    Ssh(Box<age::ssh::Recipient>),
}

/// Why a text is no recipient. The text completes "the recipient …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    /// Nothing is there.
    #[error("is empty; give a public key that begins with age1")]
    Empty,
    /// It is the private half. Nothing of it is kept here.
    #[error(
        "is a private key, which must not leave its owner; give the public key that begins with age1 (`age-keygen -y` prints it)"
    )]
    IsSecretKey,
    /// An SSH key, and this build has no code for those.
    #[error(
        "is an SSH key, and this build of tapwave was made without SSH support; give a public key that begins with age1, or build with `--features ssh`"
    )]
    IsSsh,
    /// An SSH key of a kind, or of a length, that age does not encrypt to.
    #[error(
        "is an SSH key that age does not encrypt to; give an ssh-ed25519 key, an ssh-rsa key of 2048 bits or more, or a public key that begins with age1"
    )]
    UnsupportedSsh,
    /// It begins as a key does, but is not whole.
    #[error("{begins}… is damaged: {why}; copy the whole key again")]
    Damaged {
        /// The key's first characters.
        begins: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Anything else. It is not quoted, because nobody knows what it is.
    #[error("is no key that age knows; give a public key that begins with age1")]
    Unknown,
}

/// Why a file of recipients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRecipientFile {
    /// It could not be read.
    #[error("failed to read the recipients in {}; check that the file exists and may be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is over [`limits::MAX_SETTINGS_BYTES`].
    #[error("failed to read the recipients in {}: the file is larger than {max} bytes; give a file with one public key per line", path.display(), max = limits::MAX_SETTINGS_BYTES)]
    TooLarge { path: PathBuf },
    /// It holds comments and blank lines alone.
    #[error("failed to find a recipient in {}; write one public key per line", path.display())]
    Empty { path: PathBuf },
    /// One line is no recipient.
    #[error("{}, line {line}: the recipient {reason}", path.display())]
    Line {
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: BadRecipient,
    },
}

/// Why recipients cannot stand in one set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// There is none.
    #[error("failed to seal for {label:?}: it has no recipient; name one with -r or -R")]
    Empty { label: String },
    /// There are more than [`limits::MAX_RECIPIENTS`].
    #[error(
        "failed to seal for {label:?}: it has {count} recipients, and at most {max} are allowed; share one key among some of them",
        max = limits::MAX_RECIPIENTS
    )]
    TooMany {
        label: String,
        /// How many there are.
        count: usize,
    },
    /// A plugin's program is not there.
    #[error(
        "failed to seal for {label:?}: the program age-plugin-{plugin} was not found; install it and put its folder on PATH"
    )]
    PluginMissing { label: String, plugin: String },
    /// Keys that refuse each other, such as post-quantum and classic ones.
    #[error(
        "failed to seal for {label:?}: its recipients refuse to stand together ({labels}), as post-quantum keys do with classic ones; keep to one kind of key in a set"
    )]
    Incompatible {
        label: String,
        /// The properties on which the recipients differ.
        labels: String,
    },
    /// The trial sealing failed.
    #[error("failed to seal for {label:?}: {reason}; check the key, and its plugin if it has one")]
    Trial {
        label: String,
        /// What age or the plugin said.
        reason: String,
    },
}

/// Recipients who read the same passes: an ordered set with a label, proven to seal.
///
/// It can be shared among tasks. A set with plugin keys starts a process for each sealing,
/// at most [`limits::PLUGINS_AT_ONCE`] at a time, and its sealing blocks the thread; see
/// [`RecipientSet::runs_plugins`].
pub struct RecipientSet {
    label: String,
    keys: Vec<String>,
    wrappers: Vec<Wrapper>,
    plugins: Option<PluginGate>,
}

type Wrapper = Box<dyn age::Recipient + Send + Sync>;

impl Recipient {
    /// The public key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipient").field(&self.text).finish()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Recipient {
    type Err = BadRecipient;

    fn from_str(text: &str) -> Result<Self, BadRecipient> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadRecipient::Empty);
        }
        if is_secret(text) {
            return Err(BadRecipient::IsSecretKey);
        }
        if ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| text.starts_with(kind))
        {
            return ssh(text);
        }
        let lower = text.to_ascii_lowercase();
        if !lower.starts_with("age1") {
            return Err(BadRecipient::Unknown);
        }
        // Bech32 may be written in capitals throughout; age wants it small.
        let text = if text.chars().any(|c| c.is_ascii_lowercase()) { text } else { &lower };
        native(text)
            .or_else(|why| {
                text.parse().map(RecipientKey::Plugin).map_err(|_| why).map_err(damaged(text))
            })
            .map(|key| Self { text: text.to_owned(), key })
    }
}

/// Whether a text is a key of some kind, or begins as one, so that nothing else may be called so.
#[must_use]
pub fn reads_like_a_key(text: &str) -> bool {
    let text = text.trim();
    let small = text.to_ascii_lowercase();
    let begins = ["age1", "age-secret-key-", "age-plugin-", "ssh-", "ecdsa-sha2-", "sk-"];
    text.starts_with("AGE-")
        || begins.iter().any(|begin| small.starts_with(begin))
        || text.parse::<Recipient>().is_ok()
}

/// Reads a file of recipients: one per line, `#` begins a comment line, blank lines are
/// skipped.
///
/// # Errors
/// The first line that is no recipient, by its number; or that the file cannot be read.
pub fn read_recipient_file(path: &Path) -> Result<Vec<Recipient>, BadRecipientFile> {
    let path = || path.to_owned();
    let text = read_small(&path())
        .map_err(|source| BadRecipientFile::Read { path: path(), source })?
        .ok_or_else(|| BadRecipientFile::TooLarge { path: path() })?;
    let text = std::str::from_utf8(&text).map_err(|source| BadRecipientFile::Read {
        path: path(),
        source: io::Error::new(io::ErrorKind::InvalidData, source),
    })?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    let found = lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(at, line)| {
            line.parse().map_err(|reason| BadRecipientFile::Line {
                path: path(),
                line: at + 1,
                reason,
            })
        })
        .collect::<Result<Vec<Recipient>, _>>()?;
    if found.is_empty() { Err(BadRecipientFile::Empty { path: path() }) } else { Ok(found) }
}

impl RecipientSet {
    /// Builds the set and seals an empty text with it, so that no pass is ever issued for
    /// recipients who could not get it. Keys that are there twice count once. A plugin runs
    /// here for the first time and may ask through `prompts`, now and at each sealing.
    ///
    /// # Errors
    /// The set is empty or too large, a plugin is missing or fails, or keys refuse to be
    /// combined.
    pub fn new(
        label: &str,
        recipients: Vec<Recipient>,
        prompts: &Arc<dyn Prompts>,
    ) -> Result<Self, SetError> {
        let mut seen = HashSet::new();
        let recipients: Vec<_> =
            recipients.into_iter().filter(|one| seen.insert(one.text.clone())).collect();
        match recipients.len() {
            0 => return Err(SetError::Empty { label: label.to_owned() }),
            count if count > limits::MAX_RECIPIENTS => {
                return Err(SetError::TooMany { label: label.to_owned(), count });
            }
            _ => {}
        }
        let keys = recipients.iter().map(|one| one.text.clone()).collect();
        let (wrappers, plugins) = wrappers(recipients, prompts);
        let set = Self { label: label.to_owned(), keys, wrappers, plugins };
        set.encrypt(&[]).map_err(|error| refused(label, &error))?;
        Ok(set)
    }

    /// The name by which the wave and the handoff call this set.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The public keys, in the order given.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Whether each sealing starts a process and blocks until it answers. Seal on a thread
    /// that may block then. Native keys take a few hundred microseconds at most.
    #[must_use]
    pub fn runs_plugins(&self) -> bool {
        self.plugins.is_some()
    }

    /// Encrypts to every recipient of the set: a whole binary age file.
    pub(super) fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        let _pass = self.plugins.as_ref().map(PluginGate::enter);
        encrypt(self.encryptor()?, plaintext)
    }

    /// The beginning of an age file to every recipient of the set.
    pub(super) fn encryptor(&self) -> Result<age::Encryptor, age::EncryptError> {
        age::Encryptor::with_recipients(self.wrappers.iter().map(|one| &**one as _))
    }
}

/// Whether a text holds a private key in one of the forms that age reads.
#[must_use]
pub fn holds_secret_key(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    ["AGE-SECRET-KEY-", "AGE-PLUGIN-", "PRIVATE KEY-----"].iter().any(|mark| upper.contains(mark))
}

/// Whether a text in a recipient's place is a private key, or the beginning or end of one.
fn is_secret(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    holds_secret_key(text) || upper.contains("PRIVATE KEY") || upper.starts_with("-----BEGIN")
}

fn native(text: &str) -> Result<RecipientKey, &'static str> {
    // The human-readable part ends at the last `1`, which the data cannot hold.
    match text.rsplit_once('1').map(|(kind, _)| kind) {
        Some("age") => text.parse().map(RecipientKey::X25519),
        Some("age1tag") => text.parse().map(RecipientKey::Tag),
        Some("age1tagpq") => text.parse().map(|key| RecipientKey::TagPq(Box::new(key))),
        _ => Err("its checksum or its form is wrong"),
    }
}

fn damaged(text: &str) -> impl FnOnce(&'static str) -> BadRecipient {
    move |why| BadRecipient::Damaged { begins: text.chars().take(12).collect(), why }
}

#[cfg(not(feature = "ssh"))]
fn ssh(_: &str) -> Result<Recipient, BadRecipient> {
    Err(BadRecipient::IsSsh)
}

#[cfg(feature = "ssh")]
fn ssh(text: &str) -> Result<Recipient, BadRecipient> {
    let key: age::ssh::Recipient = text.parse().map_err(|_| BadRecipient::UnsupportedSsh)?;
    // The comment behind the key is no part of it, and would make two of one key.
    Ok(Recipient { text: key.to_string(), key: RecipientKey::Ssh(Box::new(key)) })
}

/// The age crate's side of each recipient, in order; the keys of one plugin go together, so
/// that it starts once per sealing.
fn wrappers(
    recipients: Vec<Recipient>,
    prompts: &Arc<dyn Prompts>,
) -> (Vec<Wrapper>, Option<PluginGate>) {
    let mut wrappers: Vec<Wrapper> = Vec::with_capacity(recipients.len());
    let mut plugged = Vec::new();
    for recipient in recipients {
        match recipient.key {
            RecipientKey::X25519(key) => wrappers.push(Box::new(key)),
            RecipientKey::Tag(key) => wrappers.push(Box::new(key)),
            RecipientKey::TagPq(key) => wrappers.push(key),
            RecipientKey::Plugin(key) => plugged.push(key),
            #[cfg(feature = "ssh")]
            RecipientKey::Ssh(key) => wrappers.push(key),
        }
    }
    if plugged.is_empty() {
        return (wrappers, None);
    }
    let mut names: Vec<&str> = plugged.iter().map(age::plugin::Recipient::plugin).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let keys = plugged.iter().filter(|key| key.plugin() == name);
        wrappers.push(Box::new(PluginRecipients(Plugin {
            name: name.to_owned(),
            keys: keys.map(|key| key.to_string().into()).collect(),
            prompts: Arc::clone(prompts),
            patience: limits::PLUGIN_SEALS,
        })));
    }
    (wrappers, Some(PluginGate::new(limits::PLUGINS_AT_ONCE)))
}

fn refused(label: &str, error: &age::EncryptError) -> SetError {
    let label = label.to_owned();
    match error {
        age::EncryptError::IncompatibleRecipients { l_labels, r_labels } => {
            let mut labels: Vec<_> = l_labels.symmetric_difference(r_labels).cloned().collect();
            labels.sort();
            SetError::Incompatible { label, labels: labels.join(", ") }
        }
        age::EncryptError::Io(error) => match PluginFailed::inside(error) {
            Some(PluginFailed::Missing { plugin }) => {
                SetError::PluginMissing { label, plugin: plugin.clone() }
            }
            _ => SetError::Trial { label, reason: one_line(&error.to_string()) },
        },
        other => SetError::Trial { label, reason: one_line(&other.to_string()) },
    }
}

/// What age or a plugin said, on one line and without anything a terminal would obey.
pub(super) fn one_line(text: &str) -> String {
    // Age frames names with these direction marks.
    let unframed: String = text.chars().filter(|c| !matches!(c, '\u{2066}'..='\u{2069}')).collect();
    plain(&unframed).trim_end_matches(['.', ' ']).to_owned()
}

/// Encrypts a short text in one go.
pub(super) fn encrypt(
    encryptor: age::Encryptor,
    plaintext: &[u8],
) -> Result<Vec<u8>, age::EncryptError> {
    // A header line pair per recipient is about 150 bytes.
    let mut writer = encryptor.wrap_output(Vec::with_capacity(plaintext.len() + 512))?;
    io::Write::write_all(&mut writer, plaintext)?;
    Ok(writer.finish()?)
}

/// Lets a bounded number of threads through at once.
struct PluginGate {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Entered<'a>(&'a PluginGate);

impl PluginGate {
    fn new(places: usize) -> Self {
        Self { free: Mutex::new(places), freed: Condvar::new() }
    }

    fn enter(&self) -> Entered<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Entered(self)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::NoPrompts;
    use super::*;

    const TAG_PQ: &str = include_str!("testdata/tagpq.txt");

    fn quiet() -> Arc<dyn Prompts> {
        Arc::new(NoPrompts)
    }

    fn key() -> Recipient {
        age::x25519::Identity::generate().to_public().to_string().parse().expect("a recipient")
    }

    fn shared(_: &(impl Send + Sync)) {}

    #[test]
    fn a_private_key_is_refused_and_never_echoed() {
        for text in [
            "AGE-SECRET-KEY-1QQQSECRET",
            "age-secret-key-1qqqsecret",
            " AGE-PLUGIN-YUBIKEY-1QQQSECRET",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----QQQSECRET",
            "alice:AGE-SECRET-KEY-1QQQSECRET",
        ] {
            let error = text.parse::<Recipient>().expect_err("an error");
            assert_eq!(error, BadRecipient::IsSecretKey, "{text}");
            let said = format!("{error} {error:?}").to_lowercase();
            assert!(!said.contains("qqq"), "{said}");
        }
    }

    #[test]
    fn what_is_no_key_says_so() {
        assert_eq!("  ".parse::<Recipient>().expect_err("empty"), BadRecipient::Empty);
        let error = "hunter2-typed-here".parse::<Recipient>().expect_err("unknown");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let mut broken = key().as_str().to_owned();
        broken.pop();
        assert!(matches!(broken.parse::<Recipient>(), Err(BadRecipient::Damaged { .. })));
    }

    #[cfg(not(feature = "ssh"))]
    #[test]
    fn an_ssh_key_names_the_feature() {
        let error = "ssh-ed25519 AAAAC3Nz me@host".parse::<Recipient>().expect_err("an error");
        assert!(error.to_string().contains("--features ssh"), "{error}");
    }

    #[cfg(feature = "ssh")]
    #[test]
    fn an_ssh_key_is_taken_without_its_comment() {
        const KEY: &str =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN";
        let one: Recipient = format!("{KEY} me@host").parse().expect("a key");
        assert_eq!(one.as_str(), KEY);
        assert!(RecipientSet::new("ssh", vec![one], &quiet()).is_ok());
    }

    #[test]
    fn a_file_names_its_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("readers.txt");
        let (one, two) = (key(), key());
        let good = format!("\u{feff}# readers\r\n\r\n{one}\r\n  {two}  \n");
        std::fs::write(&path, good).expect("written");
        let keys = read_recipient_file(&path).expect("two recipients");
        assert_eq!(
            keys.iter().map(Recipient::as_str).collect::<Vec<_>>(),
            [one.as_str(), two.as_str()]
        );

        std::fs::write(&path, format!("{one}\n# x\nAGE-SECRET-KEY-1QQQ\n")).expect("written");
        let error = read_recipient_file(&path).expect_err("an error");
        let said = format!("{error} {error:?}");
        assert!(said.contains("readers.txt") && said.contains("line 3") && !said.contains("QQQ"));

        std::fs::write(&path, "# nobody\n").expect("written");
        assert!(matches!(read_recipient_file(&path), Err(BadRecipientFile::Empty { .. })));
        std::fs::write(&path, vec![b'#'; 1 + 1024 * 1024]).expect("written");
        assert!(matches!(read_recipient_file(&path), Err(BadRecipientFile::TooLarge { .. })));
    }

    #[test]
    fn a_set_collapses_duplicates_and_can_be_shared() {
        let (one, two) = (key(), key());
        let shouted = one.as_str().to_uppercase().parse().expect("the same key");
        let set = RecipientSet::new("all", vec![one.clone(), two.clone(), shouted], &quiet());
        let set = set.expect("a set");
        assert_eq!(set.keys(), [one.as_str(), two.as_str()]);
        shared(&set);
    }

    #[test]
    fn a_set_that_cannot_seal_is_not_built() {
        assert!(matches!(RecipientSet::new("a", vec![], &quiet()), Err(SetError::Empty { .. })));
        let many = (0..=limits::MAX_RECIPIENTS).map(|_| key()).collect();
        assert!(matches!(RecipientSet::new("a", many, &quiet()), Err(SetError::TooMany { .. })));

        let quantum: Recipient = TAG_PQ.parse().expect("a post-quantum key");
        let mixed = RecipientSet::new("a", vec![key(), quantum.clone()], &quiet());
        let error = mixed.err().expect("they refuse each other");
        assert!(matches!(error, SetError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("postquantum"), "{error}");
        assert!(RecipientSet::new("a", vec![quantum], &quiet()).is_ok());
    }

    #[test]
    fn a_missing_plugin_is_named() {
        // Made with the reference Bech32 code; no such program exists.
        let absent: Recipient =
            include_str!("testdata/absent-plugin.txt").parse().expect("a plugin's key");
        let error = RecipientSet::new("a", vec![absent], &quiet()).err().expect("missing");
        assert!(error.to_string().contains("age-plugin-tapwaveabsent"), "{error}");
    }

    #[test]
    fn the_gate_lets_as_many_through_as_it_has_places() {
        let gate = PluginGate::new(2);
        let (one, two) = (gate.enter(), gate.enter());
        assert_eq!(*gate.free.lock().expect("the count"), 0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(gate.enter()));
            drop(one);
            waiting.join().expect("it got in");
        });
        drop(two);
        assert_eq!(*gate.free.lock().expect("the count"), 2);
    }
}
