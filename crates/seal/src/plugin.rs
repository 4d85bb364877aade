//! Promises age's plugin protocol with bounded waits, processes that are reaped, and buffers that
//! are wiped. Must never print a message, since some carry file keys.
//!
//! The age crate's own client leaves a zombie process per sealing (thousands in a wave), prints
//! every key when `AGEDEBUG` is set, and waits for a plugin without limit. Here one thread reads
//! from the plugin and another writes to it, so that a plugin that hangs blocks only these two.
//! The protocol: <https://c2sp.org/age-plugin>.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::{DecryptError, EncryptError};
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use zeroize::Zeroizing;

use super::age_file::one_line;
use super::prompts::Prompts;
use tapwave_core::limits;
use tapwave_core::programs::program;
use tapwave_core::wiped::Wiped;

pub(super) struct PluginRecipients(pub(super) Plugin);

pub(super) struct PluginIdentities(pub(super) Plugin);

/// One plugin, and its keys.
pub(super) struct Plugin {
    pub(super) name: String,
    pub(super) keys: Vec<Zeroizing<String>>,
    pub(super) prompts: Arc<dyn Prompts>,
    /// How long one message may take.
    pub(super) timeout: Duration,
}

/// Why a plugin failed. It is wrapped in an [`io::Error`], the only error that age takes from
/// outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PluginFailed {
    #[error("the program age-plugin-{plugin} was not found; install it and put its folder on PATH")]
    Missing { plugin: String },
    #[error("the program age-plugin-{plugin} failed: {reason}")]
    Died { plugin: String, reason: String },
    #[error("age-plugin-{plugin} said: {reason}")]
    Refused { plugin: String, reason: String },
    #[error(
        "age-plugin-{plugin} said nothing for {} s and was ended; plug its key in and touch it, try the plugin by hand with age, or leave its recipient out",
        timeout.as_secs()
    )]
    Silent { plugin: String, timeout: Duration },
    #[error("age-plugin-{plugin} was ended, because the wait for it was interrupted")]
    GivenUp { plugin: String },
    #[error("age-plugin-{plugin} does not keep to age's plugin protocol ({what}); update it")]
    Protocol { plugin: String, what: &'static str },
}

impl PluginFailed {
    pub(super) fn inside(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<PluginFailed> for io::Error {
    fn from(failed: PluginFailed) -> Self {
        io::Error::other(failed)
    }
}

impl age::Recipient for PluginRecipients {
    fn wrap_file_key(
        &self,
        file_key: &FileKey,
    ) -> Result<(Vec<Stanza>, HashSet<String>), EncryptError> {
        let plugin = &self.0;
        let mut stanzas = Vec::new();
        let mut labels = None;
        let mut session = plugin.start("recipient-v1")?;
        for key in &plugin.keys {
            session.send("add-recipient", &[key], &[])?;
        }
        session.send("extension-labels", &[], &[])?;
        session.send("wrap-file-key", &[], file_key.expose_secret())?;
        session.serve(|message| match (&*message.tag, &message.words[..]) {
            ("recipient-stanza", [file, tag, arguments @ ..]) if file == "0" => {
                let (tag, args) = (tag.clone(), arguments.to_vec());
                stanzas.push(Stanza { tag, args, body: message.body.to_vec() });
                Ok(true)
            }
            ("recipient-stanza", _) => Err("a stanza for a file it was not given"),
            ("labels", words) => {
                let set: HashSet<String> = words.iter().cloned().collect();
                if set.len() != words.len() || labels.replace(set).is_some() {
                    return Err("labels given twice");
                }
                Ok(true)
            }
            _ => Ok(false),
        })?;
        if stanzas.is_empty() {
            return Err(plugin.protocol_error("it wrapped nothing and gave no reason").into());
        }
        Ok((stanzas, labels.unwrap_or_default()))
    }
}

impl age::Identity for PluginIdentities {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap_stanzas(std::slice::from_ref(stanza))
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        self.unwrap(stanzas).map_err(DecryptError::Io).transpose()
    }
}

impl PluginIdentities {
    fn unwrap(&self, stanzas: &[Stanza]) -> io::Result<Option<FileKey>> {
        let plugin = &self.0;
        let mut found = None;
        let mut session = plugin.start("identity-v1")?;
        for key in &plugin.keys {
            session.send("add-identity", &[key], &[])?;
        }
        for stanza in stanzas {
            let mut words = vec!["0", &stanza.tag];
            words.extend(stanza.args.iter().map(String::as_str));
            session.send("recipient-stanza", &words, &stanza.body)?;
        }
        session.serve(|message| {
            if message.tag != "file-key" {
                return Ok(false);
            }
            let key: &[u8; FILE_KEY_BYTES] =
                message.body[..].try_into().map_err(|_| "a file key of the wrong length")?;
            if message.words != ["0"] || found.is_some() {
                return Err("a key for a file it was not given");
            }
            found = Some(FileKey::init_with_mut(|place| place.copy_from_slice(key)));
            Ok(true)
        })?;
        Ok(found)
    }
}

impl Plugin {
    fn start(&self, state_machine: &str) -> io::Result<Session<'_>> {
        let mut command = program(format!("age-plugin-{}", self.name));
        command.arg(format!("--age-plugin={state_machine}"));
        Session::begin(self, command)
    }

    fn died(&self, error: &io::Error) -> PluginFailed {
        let plugin = self.name.clone();
        match error.kind() {
            io::ErrorKind::NotFound => PluginFailed::Missing { plugin },
            _ => PluginFailed::Died { plugin, reason: error.to_string() },
        }
    }

    /// Why the plugin ended. Ctrl-C reaches it too, perhaps before this process has noticed, so a
    /// stop is waited for briefly.
    fn ended(&self) -> PluginFailed {
        let polls = limits::STOP_GRACE.as_millis() / limits::STOP_GLANCE.as_millis();
        for _ in 0..polls {
            if self.prompts.is_given_up() {
                return PluginFailed::GivenUp { plugin: self.name.clone() };
            }
            thread::sleep(limits::STOP_GLANCE);
        }
        let reason = "it ended before it was done".to_owned();
        PluginFailed::Died { plugin: self.name.clone(), reason }
    }

    fn protocol_error(&self, what: &'static str) -> io::Error {
        PluginFailed::Protocol { plugin: self.name.clone(), what }.into()
    }
}

/// A session with a running plugin. Dropping it ends the process.
struct Session<'a> {
    plugin: &'a Plugin,
    child: Child,
    to: Option<Sender<Wiped>>,
    from: Receiver<Result<PluginStanza, ProtocolError>>,
    /// Messages that it may still send.
    messages_left: u32,
    /// The user was told of the wait.
    announced: bool,
    finished: bool,
}

/// One stanza that the plugin sent.
struct PluginStanza {
    tag: String,
    words: Vec<String>,
    body: Zeroizing<Vec<u8>>,
}

impl<'a> Session<'a> {
    fn begin(plugin: &'a Plugin, mut command: Command) -> io::Result<Self> {
        let mut child = command
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| plugin.died(&error))?;
        let (to, outgoing) = mpsc::channel::<Wiped>();
        // At most one message waits while another is handled.
        let (incoming, from) = mpsc::sync_channel(1);
        let pipes = child.stdin.take().zip(child.stdout.take());
        let session = Self {
            plugin,
            child,
            to: Some(to),
            from,
            messages_left: limits::MAX_PLUGIN_MESSAGES,
            announced: false,
            finished: false,
        };
        let (mut input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let named_thread = || thread::Builder::new().name("age-plugin".to_owned());
        named_thread().spawn(move || {
            while let Ok(text) = outgoing.recv()
                && input.write_all(&text).and_then(|()| input.flush()).is_ok()
            {}
        })?;
        named_thread().spawn(move || {
            let mut lines = Lines::new(output);
            loop {
                let message = read_stanza(&mut lines);
                let is_last = message.is_err();
                if incoming.send(message).is_err() || is_last {
                    return;
                }
            }
        })?;
        Ok(session)
    }

    fn send(&mut self, tag: &str, words: &[&str], body: &[u8]) -> io::Result<()> {
        let mut text = Wiped::with_capacity(512);
        text.push(b"-> ");
        text.push(tag.as_bytes());
        for word in words {
            text.push(b" ");
            text.push(word.as_bytes());
        }
        text.push(b"\n");
        // 48 bytes fill a line of 64 characters; the last line is shorter, perhaps empty.
        for line in body.chunks(48) {
            text.push(Zeroizing::new(BASE64.encode(line)).as_bytes());
            text.push(b"\n");
        }
        if body.len().is_multiple_of(48) {
            text.push(b"\n");
        }
        let sent = self.to.as_ref().is_some_and(|to| to.send(text).is_ok());
        if sent { Ok(()) } else { Err(self.plugin.ended().into()) }
    }

    /// Ends our part, then handles the plugin's messages until it is done. `handle` takes the
    /// messages of the state machine and returns whether it knows them.
    fn serve(
        mut self,
        mut handle: impl FnMut(&PluginStanza) -> Result<bool, &'static str>,
    ) -> io::Result<()> {
        self.send("done", &[], &[])?;
        let mut refusals = Vec::new();
        loop {
            let message = self.receive()?;
            match &*message.tag {
                "done" => break,
                "error" => {
                    refusals.push(one_line(&String::from_utf8_lossy(&message.body)));
                    self.send("ok", &[], &[])?;
                }
                "msg" | "confirm" | "request-public" | "request-secret" => self.ask(&message)?,
                _ => {
                    let known =
                        handle(&message).map_err(|what| self.plugin.protocol_error(what))?;
                    self.send(if known { "ok" } else { "unsupported" }, &[], &[])?;
                }
            }
        }
        self.finished = true;
        if refusals.is_empty() {
            return Ok(());
        }
        let plugin = self.plugin.name.clone();
        Err(PluginFailed::Refused { plugin, reason: refusals.join("; ") }.into())
    }

    fn ask(&mut self, message: &PluginStanza) -> io::Result<()> {
        let prompts = Arc::clone(&self.plugin.prompts);
        let text = one_line(&String::from_utf8_lossy(&message.body));
        match &*message.tag {
            "msg" => {
                prompts.show(&text);
                self.send("ok", &[], &[])
            }
            "confirm" => match confirm(&*prompts, &text, &message.words) {
                Some(true) => self.send("ok", &["yes"], &[]),
                Some(false) => self.send("ok", &["no"], &[]),
                None => self.send("fail", &[], &[]),
            },
            "request-public" => match prompts.public_text(&text) {
                Some(answer) => self.send("ok", &[], answer.as_bytes()),
                None => self.send("fail", &[], &[]),
            },
            _ => match prompts.passphrase(&text) {
                Some(answer) => self.send("ok", &[], answer.expose_secret().as_bytes()),
                None => self.send("fail", &[], &[]),
            },
        }
    }

    fn receive(&mut self) -> io::Result<PluginStanza> {
        let plugin = self.plugin;
        self.messages_left = self
            .messages_left
            .checked_sub(1)
            .ok_or_else(|| plugin.protocol_error("more messages than it may"))?;
        match self.wait() {
            Ok(Ok(message)) => Ok(message),
            Ok(Err(ProtocolError::Io(error))) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(plugin.died(&error).into())
            }
            Ok(Err(ProtocolError::Shape(what))) => Err(plugin.protocol_error(what)),
            Ok(Err(ProtocolError::Io(_))) | Err(RecvTimeoutError::Disconnected) => {
                Err(plugin.ended().into())
            }
            Err(RecvTimeoutError::Timeout) if plugin.prompts.is_given_up() => {
                Err(PluginFailed::GivenUp { plugin: plugin.name.clone() }.into())
            }
            Err(RecvTimeoutError::Timeout) => {
                let (plugin, timeout) = (plugin.name.clone(), plugin.timeout);
                Err(PluginFailed::Silent { plugin, timeout }.into())
            }
        }
    }

    /// Waits for the next message. Tells the user if it takes long: they may have to touch the key.
    fn wait(&mut self) -> Result<Result<PluginStanza, ProtocolError>, RecvTimeoutError> {
        let first = self.plugin.timeout.min(limits::PLUGIN_WAIT_TOLD);
        match self.wait_for(first) {
            Err(RecvTimeoutError::Timeout) if self.plugin.prompts.is_given_up() => {
                return Err(RecvTimeoutError::Timeout);
            }
            Err(RecvTimeoutError::Timeout) if !self.announced => {
                self.announced = true;
                self.plugin.prompts.show(&format!("waiting for age-plugin-{}", self.plugin.name));
            }
            Err(RecvTimeoutError::Timeout) => {}
            received => return received,
        }
        self.wait_for(self.plugin.timeout.saturating_sub(first))
    }

    /// Waits for the next message for at most `left`, or until the user stops.
    fn wait_for(
        &self,
        mut left: Duration,
    ) -> Result<Result<PluginStanza, ProtocolError>, RecvTimeoutError> {
        loop {
            let poll = left.min(limits::STOP_GLANCE);
            left -= poll;
            match self.from.recv_timeout(poll) {
                Err(RecvTimeoutError::Timeout)
                    if !left.is_zero() && !self.plugin.prompts.is_given_up() => {}
                received => return received,
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // A plugin ends when its input is closed. One that was not done, or takes too long, is killed.
        drop(self.to.take());
        if self.finished {
            let _ = self.from.recv_timeout(limits::PLUGIN_LEAVES);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn confirm(prompts: &dyn Prompts, text: &str, words: &[String]) -> Option<bool> {
    let decoded = |word: &String| {
        BASE64.decode(word).ok().map(|text| one_line(&String::from_utf8_lossy(&text)))
    };
    let yes = decoded(words.first()?)?;
    let no = words.get(1).and_then(decoded);
    prompts.confirm(text, &yes, no.as_deref())
}

enum ProtocolError {
    Io(io::Error),
    Shape(&'static str),
}

fn read_stanza(from: &mut Lines<impl Read>) -> Result<PluginStanza, ProtocolError> {
    let first = from.line()?;
    let first =
        std::str::from_utf8(&first).map_err(|_| ProtocolError::Shape("a line is no text"))?;
    let mut words = first.strip_prefix("-> ").ok_or(ProtocolError::Shape("no stanza"))?.split(' ');
    let printable = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    let tag =
        words.next().filter(|tag| printable(tag)).ok_or(ProtocolError::Shape("no tag"))?.to_owned();
    let words: Vec<String> = words.map(str::to_owned).collect();
    if !words.iter().all(|word| printable(word)) {
        return Err(ProtocolError::Shape("an argument that is no word"));
    }
    let mut body = Wiped::with_capacity(128);
    loop {
        let line = from.line()?;
        body.push(&line);
        match line.len() {
            ..64 => break,
            64 if body.len() <= limits::MAX_PLUGIN_MESSAGE_BYTES => {}
            _ => return Err(ProtocolError::Shape("a message that is too long")),
        }
    }
    let body =
        BASE64.decode(&*body).map_err(|_| ProtocolError::Shape("a body that is no Base64"))?;
    Ok(PluginStanza { tag, words, body: Zeroizing::new(body) })
}

/// Reads lines through a buffer that is wiped.
struct Lines<R> {
    input: R,
    block: Zeroizing<[u8; 1024]>,
    read: usize,
    taken: usize,
}

impl<R: Read> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, block: Zeroizing::new([0; 1024]), read: 0, taken: 0 }
    }

    fn line(&mut self) -> Result<Wiped, ProtocolError> {
        let mut line = Wiped::with_capacity(128);
        loop {
            let rest = &self.block[self.taken..self.read];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.push(&rest[..end]);
                self.taken += end + 1;
                return Ok(line);
            }
            line.push(rest);
            if line.len() > limits::MAX_PLUGIN_MESSAGE_BYTES {
                return Err(ProtocolError::Shape("a line that is too long"));
            }
            self.taken = 0;
            self.read = match self.input.read(&mut self.block[..]) {
                Ok(0) => return Err(ProtocolError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => return Err(ProtocolError::Io(error)),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::NoPrompts;
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<PluginStanza, ProtocolError> {
        read_stanza(&mut Lines::new(text))
    }

    #[test]
    fn a_stanza_is_read_as_specified() {
        let long = vec![7; 48];
        let body = BASE64.encode(&long);
        let stanza = read(format!("-> a b c\n{body}\n\n").as_bytes()).ok().expect("a stanza");
        assert_eq!(
            (&*stanza.tag, stanza.words.as_slice()),
            ("a", &["b".to_owned(), "c".into()][..])
        );
        assert_eq!(*stanza.body, long);
        for bad in
            [&b"-> \n\n"[..], b"a\n\n", b"->  a\n\n", b"-> a  b\n\n", b"-> a\n!!\n", b"-> \xff\n\n"]
        {
            assert!(matches!(read(bad), Err(ProtocolError::Shape(_))), "{}", bad.escape_ascii());
        }
        for cut in [&b""[..], b"-> a", b"-> a\n", b"-> a\nAAAA"] {
            assert!(matches!(read(cut), Err(ProtocolError::Io(_))), "{}", cut.escape_ascii());
        }
        let endless = vec![b'A'; limits::MAX_PLUGIN_MESSAGE_BYTES * 2];
        assert!(matches!(read(&endless), Err(ProtocolError::Shape(_))));
    }

    proptest! {
        #[test]
        fn no_plugin_makes_it_panic(text in "(-> )?[a-z \n=+A/]{0,200}") {
            let _ = read(text.as_bytes());
        }
    }

    #[test]
    fn a_missing_program_has_its_own_error() {
        let plugin = Plugin {
            name: "tapwaveabsent".to_owned(),
            keys: Vec::new(),
            prompts: Arc::new(NoPrompts),
            timeout: limits::PLUGIN_OPENS,
        };
        let error = plugin.start("identity-v1").err().expect("no such program");
        assert!(matches!(PluginFailed::inside(&error), Some(PluginFailed::Missing { .. })));
    }

    /// Records what the user would be shown.
    #[cfg(unix)]
    #[derive(Default)]
    struct RecordedPrompts(std::sync::Mutex<Vec<String>>);

    #[cfg(unix)]
    impl Prompts for RecordedPrompts {
        fn show(&self, message: &str) {
            self.0.lock().expect("whole").push(message.to_owned());
        }

        fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
            None
        }

        fn public_text(&self, _: &str) -> Option<String> {
            None
        }

        fn passphrase(&self, _: &str) -> Option<age::secrecy::SecretString> {
            None
        }
    }

    /// Runs the plugin of `tests/plugin` that hangs in this way; returns the failure and what was
    /// shown.
    #[cfg(unix)]
    fn run_hanging(mode: &str, timeout: Duration) -> (PluginFailed, Vec<String>) {
        let prompts = Arc::new(RecordedPrompts::default());
        let plugin = Plugin {
            name: "tapwavehangs".to_owned(),
            keys: Vec::new(),
            prompts: Arc::clone(&prompts) as _,
            timeout,
        };
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/plugin/age-plugin-tapwavehangs");
        let mut command = Command::new(path);
        command.arg(mode);
        let mut session = Session::begin(&plugin, command).expect("started");
        // More than a pipe's buffer holds.
        let body = vec![7; 128 * 1024];
        session.send("wrap-file-key", &[], &body).expect("queued");
        let error = session.serve(|_| Ok(true)).expect_err("it never ends by itself");
        let failed = PluginFailed::inside(&error).expect("the plugin's failure").clone();
        let shown = prompts.0.lock().expect("whole").clone();
        (failed, shown)
    }

    #[cfg(unix)]
    #[test]
    fn a_plugin_that_hangs_is_ended_and_named() {
        let timeout = Duration::from_millis(200);
        // It neither writes nor reads; its message never ends; its child keeps the pipes open.
        for mode in ["silent", "drips", "leaves-a-child"] {
            let (failed, shown) = run_hanging(mode, timeout);
            assert!(matches!(failed, PluginFailed::Silent { .. }), "{mode}: {failed}");
            assert!(failed.to_string().contains("age-plugin-tapwavehangs said nothing"));
            assert!(failed.to_string().contains("touch it"), "{failed}");
            assert_eq!(shown, ["waiting for age-plugin-tapwavehangs"], "{mode}");
        }
        let (failed, _) = run_hanging("chats", limits::PLUGIN_OPENS);
        assert!(matches!(failed, PluginFailed::Protocol { .. }), "{failed}");
    }
}
