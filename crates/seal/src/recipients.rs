//! Promises that a set of recipients, once built, can seal: every key was parsed, every
//! plugin ran, and the keys can be combined. Must never show a private key that was given by
//! mistake.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::age_file::{self, one_line};
use super::plugin::{Plugin, PluginFailed, PluginRecipients};
use super::prompts::Prompts;
use tapwave_core::limits;
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

/// Why a text is not a recipient; completes "the recipient …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipient {
    #[error("is empty; give a public key that begins with age1")]
    Empty,
    /// Holds no part of the key.
    #[error(
        "is a private key, which must not leave its owner; give the public key that begins with age1 (`age-keygen -y` prints it)"
    )]
    IsSecretKey,
    #[error(
        "is an SSH key, and this build of tapwave was made without SSH support; give a public key that begins with age1, or build with `--features ssh`"
    )]
    IsSsh,
    /// An SSH key of a kind, or of a length, that age does not encrypt to.
    #[error(
        "is an SSH key that age does not encrypt to; give an ssh-ed25519 key, an ssh-rsa key of 2048 bits or more, or a public key that begins with age1"
    )]
    UnsupportedSsh,
    #[error("{begins}… is damaged: {why}; copy the whole key again")]
    Damaged { begins: String, why: &'static str },
    /// Not quoted, since it might be secret.
    #[error("is no key that age knows; give a public key that begins with age1")]
    Unknown,
}

/// Why a file of recipients cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRecipientFile {
    #[error("failed to read the recipients in {}; check that the file exists and may be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is over [`limits::MAX_SETTINGS_BYTES`].
    #[error("failed to read the recipients in {}: the file is larger than {max} bytes; give a file with one public key per line", path.display(), max = limits::MAX_SETTINGS_BYTES)]
    TooLarge { path: PathBuf },
    #[error("failed to find a recipient in {}; write one public key per line", path.display())]
    Empty { path: PathBuf },
    #[error("{}, line {line}: the recipient {reason}", path.display())]
    Line { path: PathBuf, line: usize, reason: BadRecipient },
}

/// Why recipients cannot form a set.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    #[error("failed to seal for {label:?}: it has no recipient; name one with -r or -R")]
    Empty { label: String },
    /// There are more than [`limits::MAX_RECIPIENTS`].
    #[error(
        "failed to seal for {label:?}: it has {count} recipients, and at most {max} are allowed; share one key among some of them",
        max = limits::MAX_RECIPIENTS
    )]
    TooMany { label: String, count: usize },
    #[error(
        "failed to seal for {label:?}: the program age-plugin-{plugin} was not found; install it and put its folder on PATH"
    )]
    PluginMissing { label: String, plugin: String },
    /// Keys that cannot be combined, such as post-quantum and classic ones.
    #[error(
        "failed to seal for {label:?}: its recipients refuse to stand together ({labels}), as post-quantum keys do with classic ones; keep to one kind of key in a set"
    )]
    Incompatible {
        label: String,
        /// The properties on which the recipients differ.
        labels: String,
    },
    #[error("failed to seal for {label:?}: {reason}; check the key, and its plugin if it has one")]
    Trial { label: String, reason: String },
}

/// Recipients of the same passes: an ordered set with a label, tested to seal.
///
/// A set with plugin keys starts a process for each sealing, at most
/// [`limits::PLUGINS_AT_ONCE`] at a time; see [`RecipientSet::runs_plugins`].
pub struct RecipientSet {
    label: String,
    keys: Vec<String>,
    wrappers: Vec<Wrapper>,
    plugin_slots: Option<Semaphore>,
}

type Wrapper = Box<dyn age::Recipient + Send + Sync>;

impl Recipient {
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
        // Bech32 may be in capitals throughout; age takes only lower case.
        let text = if text.chars().any(|c| c.is_ascii_lowercase()) { text } else { &lower };
        native(text)
            .or_else(|why| {
                text.parse().map(RecipientKey::Plugin).map_err(|_| why).map_err(damaged(text))
            })
            .map(|key| Self { text: text.to_owned(), key })
    }
}

/// Whether a text is a key or begins like one, and so cannot serve as a label.
#[must_use]
pub fn reads_like_a_key(text: &str) -> bool {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let prefixes = ["age1", "age-secret-key-", "age-plugin-", "ssh-", "ecdsa-sha2-", "sk-"];
    text.starts_with("AGE-")
        || prefixes.iter().any(|prefix| lower.starts_with(prefix))
        || text.parse::<Recipient>().is_ok()
}

/// Reads a file of recipients, one per line. Blank lines and those that begin with `#` are skipped.
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
    /// Builds the set and seals an empty text with it, so that no pass is issued for recipients who
    /// could not get it. Duplicate keys count once. A plugin may ask through `prompts`, now and at
    /// each sealing.
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
        let (wrappers, plugin_slots) = wrappers(recipients, prompts);
        let set = Self { label: label.to_owned(), keys, wrappers, plugin_slots };
        set.encrypt(&[]).map_err(|error| set_error(label, &error))?;
        Ok(set)
    }

    /// The set's name in the wave and of its handoff.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Whether each sealing starts a process and blocks until it answers; then seal on a thread
    /// that may block. Native keys take a few hundred microseconds at most.
    #[must_use]
    pub fn runs_plugins(&self) -> bool {
        self.plugin_slots.is_some()
    }

    /// Makes a complete binary age file.
    pub(super) fn encrypt(&self, plaintext: &[u8]) -> Result<Vec<u8>, age::EncryptError> {
        let _slot = self.plugin_slots.as_ref().map(Semaphore::acquire);
        age_file::encrypt(self.encryptor()?, plaintext)
    }

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

/// Whether a text given as a recipient is a private key, or a part of one.
fn is_secret(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    holds_secret_key(text) || upper.contains("PRIVATE KEY") || upper.starts_with("-----BEGIN")
}

fn native(text: &str) -> Result<RecipientKey, &'static str> {
    // The last `1` ends the human-readable part: the data has none.
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
    // Without its comment, so that the same key counts once.
    Ok(Recipient { text: key.to_string(), key: RecipientKey::Ssh(Box::new(key)) })
}

/// The recipients as the age crate takes them. The keys of one plugin go together, so that it
/// starts once per sealing.
fn wrappers(
    recipients: Vec<Recipient>,
    prompts: &Arc<dyn Prompts>,
) -> (Vec<Wrapper>, Option<Semaphore>) {
    let mut wrappers: Vec<Wrapper> = Vec::with_capacity(recipients.len());
    let mut plugin_keys = Vec::new();
    for recipient in recipients {
        match recipient.key {
            RecipientKey::X25519(key) => wrappers.push(Box::new(key)),
            RecipientKey::Tag(key) => wrappers.push(Box::new(key)),
            RecipientKey::TagPq(key) => wrappers.push(key),
            RecipientKey::Plugin(key) => plugin_keys.push(key),
            #[cfg(feature = "ssh")]
            RecipientKey::Ssh(key) => wrappers.push(key),
        }
    }
    if plugin_keys.is_empty() {
        return (wrappers, None);
    }
    let mut names: Vec<&str> = plugin_keys.iter().map(age::plugin::Recipient::plugin).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let keys = plugin_keys.iter().filter(|key| key.plugin() == name);
        wrappers.push(Box::new(PluginRecipients(Plugin {
            name: name.to_owned(),
            keys: keys.map(|key| key.to_string().into()).collect(),
            prompts: Arc::clone(prompts),
            timeout: limits::PLUGIN_SEALS,
        })));
    }
    (wrappers, Some(Semaphore::new(limits::PLUGINS_AT_ONCE)))
}

fn set_error(label: &str, error: &age::EncryptError) -> SetError {
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

/// Bounds how many threads run plugins at once.
struct Semaphore {
    free: Mutex<usize>,
    released: Condvar,
}

struct SemaphoreGuard<'a>(&'a Semaphore);

impl Semaphore {
    fn new(permits: usize) -> Self {
        Self { free: Mutex::new(permits), released: Condvar::new() }
    }

    fn acquire(&self) -> SemaphoreGuard<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .released
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        SemaphoreGuard(self)
    }
}

impl Drop for SemaphoreGuard<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::NoPrompts;
    use super::*;

    const TAG_PQ: &str = include_str!("testdata/tagpq.txt");

    fn no_prompts() -> Arc<dyn Prompts> {
        Arc::new(NoPrompts)
    }

    fn key() -> Recipient {
        age::x25519::Identity::generate().to_public().to_string().parse().expect("a recipient")
    }

    fn shared(_: &(impl Send + Sync)) {}

    #[test]
    fn a_private_key_is_refused_and_never_shown() {
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
    fn what_is_no_key_is_refused_and_not_quoted() {
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
        assert!(RecipientSet::new("ssh", vec![one], &no_prompts()).is_ok());
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
    fn a_set_drops_duplicates_and_can_be_shared() {
        let (one, two) = (key(), key());
        let in_capitals = one.as_str().to_uppercase().parse().expect("the same key");
        let set =
            RecipientSet::new("all", vec![one.clone(), two.clone(), in_capitals], &no_prompts());
        let set = set.expect("a set");
        assert_eq!(set.keys(), [one.as_str(), two.as_str()]);
        shared(&set);
    }

    #[test]
    fn a_set_that_cannot_seal_is_not_built() {
        assert!(matches!(
            RecipientSet::new("a", vec![], &no_prompts()),
            Err(SetError::Empty { .. })
        ));
        let many = (0..=limits::MAX_RECIPIENTS).map(|_| key()).collect();
        assert!(matches!(
            RecipientSet::new("a", many, &no_prompts()),
            Err(SetError::TooMany { .. })
        ));

        let quantum: Recipient = TAG_PQ.parse().expect("a post-quantum key");
        let mixed = RecipientSet::new("a", vec![key(), quantum.clone()], &no_prompts());
        let error = mixed.err().expect("they refuse each other");
        assert!(matches!(error, SetError::Incompatible { .. }), "{error}");
        assert!(error.to_string().contains("postquantum"), "{error}");
        assert!(RecipientSet::new("a", vec![quantum], &no_prompts()).is_ok());
    }

    #[test]
    fn a_missing_plugin_is_named() {
        // There is no program of this name.
        let absent: Recipient =
            include_str!("testdata/absent-plugin.txt").parse().expect("a plugin's key");
        let error = RecipientSet::new("a", vec![absent], &no_prompts()).err().expect("missing");
        assert!(error.to_string().contains("age-plugin-tapwaveabsent"), "{error}");
    }

    #[test]
    fn the_semaphore_gives_no_more_permits_than_it_has() {
        let semaphore = Semaphore::new(2);
        let (one, two) = (semaphore.acquire(), semaphore.acquire());
        assert_eq!(*semaphore.free.lock().expect("the count"), 0);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(semaphore.acquire()));
            drop(one);
            waiting.join().expect("it got in");
        });
        drop(two);
        assert_eq!(*semaphore.free.lock().expect("the count"), 2);
    }
}
