//! Promises that private keys are read without leaving a copy, and that no error quotes one.
//! Must never write one anywhere but into the text that [`keygen`] returns.

use std::io::{self, BufReader, Read};
use std::iter;
use std::sync::Arc;

use age::secrecy::{ExposeSecret, SecretString};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::age_file::{ARMOR_START, BINARY_START, one_line};
use super::plugin::{Plugin, PluginIdentities};
#[cfg(feature = "ssh")]
use super::prompts::AgeCallbacks;
use super::prompts::Prompts;
use tapwave_core::limits;
use tapwave_core::wiped::{Wiped, read_bounded};

/// The private keys with which a recipient opens handoff files.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

/// A new age key pair.
pub struct NewIdentity {
    pub recipient: String,
    /// The text of the identity file, as `age-keygen` writes it: the private key.
    pub file: SecretString,
}

/// Why an identity file cannot be used. `name` is what the caller calls it.
#[derive(Debug, thiserror::Error)]
pub enum BadIdentity {
    #[error("failed to read the identity file {name}; check that it exists and may be read")]
    Read { name: String, source: io::Error },
    /// It is over [`limits::MAX_SETTINGS_BYTES`].
    #[error("failed to read the identity file {name}: it is larger than {max} bytes; give the file that `age-keygen` or `tapwave keygen` wrote", max = limits::MAX_SETTINGS_BYTES)]
    TooLarge { name: String },
    #[error(
        "failed to find a private key in the identity file {name}; it should have a line that begins with AGE-SECRET-KEY-1 or AGE-PLUGIN-"
    )]
    Empty { name: String },
    /// The line is not quoted: it might be a damaged key.
    #[error(
        "failed to read the identity file {name}: line {line} is no private key of age; it should begin with AGE-SECRET-KEY-1 or AGE-PLUGIN-"
    )]
    Line { name: String, line: usize },
    #[error(
        "failed to read the identity file {name}: line {line} is a public key; give the file with the private key that belongs to it"
    )]
    Public { name: String, line: usize },
    #[error(
        "failed to read the identity file {name}: it is encrypted to a key, not with a passphrase; decrypt it with age first, or give the identity that opens it"
    )]
    NotPassphrase { name: String },
    #[error(
        "failed to open the identity file {name}: it wants a passphrase and nobody can be asked; run this in a terminal"
    )]
    NobodyToAsk { name: String },
    #[error("failed to open the identity file {name}: the passphrase is wrong; try again")]
    WrongPassphrase { name: String },
    /// The encrypted file is damaged, or its scrypt work factor is over the limit.
    #[error("failed to open the identity file {name}: {reason}; restore it from a copy")]
    Damaged { name: String, reason: String },
    #[error(
        "failed to read the identity file {name}: it is an SSH key, and this build of tapwave was made without SSH support; give an age identity, or build with `--features ssh`"
    )]
    IsSsh { name: String },
}

impl Identities {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the keys of one identity file: plain lines, or an age file protected with a
    /// passphrase, for which `prompts` is asked once. `name` is for errors and the question. On an
    /// error no key is added.
    pub fn add_file(
        &mut self,
        name: &str,
        reader: impl Read,
        prompts: &Arc<dyn Prompts>,
    ) -> Result<(), BadIdentity> {
        let text = bounded(name, reader)?;
        let keys = if text.starts_with(BINARY_START) || text.starts_with(ARMOR_START) {
            parse(name, &unlocked(name, &text, prompts)?, prompts)?
        } else if text.starts_with(b"-----BEGIN") {
            ssh(name, &text, prompts)?
        } else {
            parse(name, &text, prompts)?
        };
        if keys.is_empty() {
            return Err(BadIdentity::Empty { name: name.to_owned() });
        }
        self.0.extend(keys);
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|one| &**one as _)
    }
}

/// Makes a key pair. `created` goes into the file's comment.
#[must_use]
pub fn keygen(created: Timestamp) -> NewIdentity {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let secret = identity.to_string();
    // The three lines have about 200 bytes, so that the buffer does not grow.
    let mut file = Zeroizing::new(String::with_capacity(512));
    let created = format!("{created:.0}");
    let parts = [
        "# created: ",
        &created,
        "\n# public key: ",
        &recipient,
        "\n",
        secret.expose_secret(),
        "\n",
    ];
    file.extend(parts);
    NewIdentity { recipient, file: SecretString::from(file.as_str()) }
}

type Keys = Vec<Box<dyn age::Identity + Send + Sync>>;

fn bounded(name: &str, reader: impl Read) -> Result<Wiped, BadIdentity> {
    read_bounded(reader)
        .map_err(|source| BadIdentity::Read { name: name.to_owned(), source })?
        .ok_or_else(|| BadIdentity::TooLarge { name: name.to_owned() })
}

/// Decrypts a passphrase-protected identity file.
fn unlocked(name: &str, text: &[u8], prompts: &Arc<dyn Prompts>) -> Result<Wiped, BadIdentity> {
    let damaged = |error: age::DecryptError| BadIdentity::Damaged {
        name: name.to_owned(),
        reason: one_line(&error.to_string()),
    };
    let file = age::Decryptor::new_buffered(age::armor::ArmoredReader::new(BufReader::new(text)))
        .map_err(damaged)?;
    if !file.is_scrypt() {
        return Err(BadIdentity::NotPassphrase { name: name.to_owned() });
    }
    let passphrase = prompts
        .passphrase(&format!("passphrase for {name}"))
        .ok_or_else(|| BadIdentity::NobodyToAsk { name: name.to_owned() })?;
    let mut key = age::scrypt::Identity::new(passphrase);
    key.set_max_work_factor(limits::MAX_SCRYPT_WORK);
    let plain = file.decrypt(iter::once(&key as _)).map_err(|error| match error {
        age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::NoMatchingKeys => {
            BadIdentity::WrongPassphrase { name: name.to_owned() }
        }
        other => damaged(other),
    })?;
    bounded(name, plain)
}

/// The keys in the lines of an identity file.
fn parse(name: &str, text: &[u8], prompts: &Arc<dyn Prompts>) -> Result<Keys, BadIdentity> {
    let mut keys: Keys = Vec::new();
    let mut plugin_keys = Vec::new();
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = at + 1;
        let bad = || BadIdentity::Line { name: name.to_owned(), line: number };
        let line = std::str::from_utf8(line).map_err(|_| bad())?.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Ok(key) = line.parse::<age::x25519::Identity>() {
            keys.push(Box::new(key));
        } else if let Ok(key) = line.parse::<age::plugin::Identity>() {
            plugin_keys.push(key);
        } else if line.starts_with("age1") || line.starts_with("ssh-") {
            return Err(BadIdentity::Public { name: name.to_owned(), line: number });
        } else {
            return Err(bad());
        }
    }
    keys.extend(by_plugin(&plugin_keys, prompts));
    Ok(keys)
}

/// Groups the keys by plugin, so that each plugin starts once per file.
fn by_plugin(plugin_keys: &[age::plugin::Identity], prompts: &Arc<dyn Prompts>) -> Keys {
    let mut names: Vec<&str> = plugin_keys.iter().map(age::plugin::Identity::plugin).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let keys = plugin_keys.iter().filter(|key| key.plugin() == name);
            Box::new(PluginIdentities(Plugin {
                name: name.to_owned(),
                keys: keys.map(|key| key.to_string().into()).collect(),
                prompts: Arc::clone(prompts),
                timeout: limits::PLUGIN_OPENS,
            })) as _
        })
        .collect()
}

#[cfg(not(feature = "ssh"))]
fn ssh(name: &str, _: &[u8], _: &Arc<dyn Prompts>) -> Result<Keys, BadIdentity> {
    Err(BadIdentity::IsSsh { name: name.to_owned() })
}

#[cfg(feature = "ssh")]
fn ssh(name: &str, text: &[u8], prompts: &Arc<dyn Prompts>) -> Result<Keys, BadIdentity> {
    let key = age::ssh::Identity::from_buffer(text, Some(name.to_owned())).map_err(|error| {
        BadIdentity::Damaged { name: name.to_owned(), reason: one_line(&error.to_string()) }
    })?;
    Ok(vec![Box::new(key.with_callbacks(AgeCallbacks(Arc::clone(prompts))))])
}

#[cfg(test)]
mod tests {
    use super::super::NoPrompts;
    use super::*;

    struct FixedPassphrase(&'static str);

    impl Prompts for FixedPassphrase {
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

    fn add(text: &[u8], prompts: impl Prompts) -> Result<Identities, BadIdentity> {
        let prompts: Arc<dyn Prompts> = Arc::new(prompts);
        let mut all = Identities::new();
        all.add_file("keys.txt", text, &prompts).map(|()| all)
    }

    fn created() -> Timestamp {
        "2026-03-01T08:00:00.5Z".parse().expect("a time")
    }

    #[test]
    fn a_new_identity_reads_back_and_looks_like_age_keygens() {
        let new = keygen(created());
        let text = new.file.expose_secret();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "# created: 2026-03-01T08:00:00Z");
        assert_eq!(lines[1], format!("# public key: {}", new.recipient));
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);
        let sealed =
            age::encrypt(&new.recipient.parse::<age::x25519::Recipient>().expect("a key"), b"x");
        let file = age::Decryptor::new_buffered(&sealed.expect("sealed")[..]).map(|file| {
            file.decrypt(add(text.as_bytes(), NoPrompts).expect("a key").iter()).is_ok()
        });
        assert!(matches!(file, Ok(true)));
    }

    #[test]
    fn several_keys_with_windows_line_ends_are_read() {
        let (one, two) = (keygen(created()), keygen(created()));
        let text = format!("{}\r\n{}", one.file.expose_secret(), two.file.expose_secret());
        let text = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(add(text.as_bytes(), NoPrompts).expect("two keys").0.len(), 2);
    }

    #[test]
    fn a_bad_identity_is_named_by_its_line_and_not_quoted() {
        let new = keygen(created());
        let broken = new.file.expose_secret().replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1QQQ");
        let error = add(broken.as_bytes(), NoPrompts).err().expect("an error");
        assert!(matches!(error, BadIdentity::Line { line: 3, .. }));
        assert!(!format!("{error} {error:?}").contains("QQQ"));

        let error = add(new.recipient.as_bytes(), NoPrompts).err().expect("an error");
        assert!(matches!(error, BadIdentity::Public { line: 1, .. }));
        assert!(matches!(add(b"# x\n", NoPrompts), Err(BadIdentity::Empty { .. })));
        let large = vec![b'#'; 1 + 1024 * 1024];
        assert!(matches!(add(&large, NoPrompts), Err(BadIdentity::TooLarge { .. })));
    }

    #[cfg(not(feature = "ssh"))]
    #[test]
    fn an_ssh_key_names_the_feature() {
        let error = add(b"-----BEGIN OPENSSH PRIVATE KEY-----\nQQQ", NoPrompts);
        let error = error.err().expect("an error");
        let said = format!("{error} {error:?}");
        assert!(said.contains("--features ssh") && !said.contains("QQQ"), "{said}");
    }

    #[test]
    fn a_passphrase_protects_an_identity_file() {
        let new = keygen(created());
        let mut key = age::scrypt::Recipient::new(SecretString::from("right"));
        key.set_work_factor(2);
        let text = new.file.expose_secret().as_bytes();
        let sealed = age::encrypt(&key, text).expect("sealed");
        let armored = age::encrypt_and_armor(&key, text).expect("sealed");
        for sealed in [&sealed[..], armored.as_bytes()] {
            assert_eq!(add(sealed, FixedPassphrase("right")).expect("a key").0.len(), 1);
            assert!(matches!(
                add(sealed, FixedPassphrase("wrong")),
                Err(BadIdentity::WrongPassphrase { .. })
            ));
            assert!(matches!(add(sealed, NoPrompts), Err(BadIdentity::NobodyToAsk { .. })));
        }
        let half = &sealed[..sealed.len() / 2];
        assert!(add(half, FixedPassphrase("right")).is_err());
        let other = age::encrypt(&age::x25519::Identity::generate().to_public(), text);
        let error = add(&other.expect("sealed"), FixedPassphrase("right"));
        assert!(matches!(error, Err(BadIdentity::NotPassphrase { .. })));
    }
}
