//! Promises a mail relay on a loopback port, with a certificate of its own authority, that
//! keeps what it took and fails exactly where a test says. It speaks no more SMTP than a
//! submission needs.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What goes wrong with one mail, in the order of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// This answer to MAIL.
    Mail(&'static str),
    /// This answer to RCPT.
    Rcpt(&'static str),
    /// This answer to DATA.
    Data(&'static str),
    /// This answer to the final dot; the mail is not taken.
    Dot(&'static str),
    /// Refused after the final dot in the mail's own words: the first lines of its text.
    Quote,
    /// Closed instead of an answer to MAIL.
    CutAtMail,
    /// Closed instead of an answer to DATA.
    CutAtData,
    /// Closed after the first bytes of the text.
    CutInText,
    /// Taken, and closed without an answer.
    CutAfterDot,
    /// Nothing is said to the final dot, and the line stays open.
    SilentAfterDot,
    /// Closed after the mail was taken and acknowledged.
    CutAfterAnswer,
}

/// How the relay behaves.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// TLS from the first byte.
    pub(crate) implicit: bool,
    /// STARTTLS is offered.
    pub(crate) starttls: bool,
    /// Answers to commands that nobody gave, sent in the clear behind STARTTLS's own.
    pub(crate) injected: &'static str,
    /// A client certificate of the relay's authority is demanded.
    pub(crate) client_certificate: bool,
    /// What AUTH offers; empty for a relay without sign-in.
    pub(crate) mechanisms: &'static str,
    /// The secret that is right.
    pub(crate) secret: String,
    /// What a wrong one is told.
    pub(crate) denial: &'static str,
    /// More connections than these are turned away.
    pub(crate) connections: usize,
    /// What EHLO offers besides; empty for nothing.
    pub(crate) offers: &'static str,
    /// Readers whose mailbox is full.
    pub(crate) full: Vec<&'static str>,
    /// How long it thinks before it answers the final dot.
    pub(crate) slow: Duration,
    /// Faults of the mails to come; none after the last.
    pub(crate) faults: VecDeque<Fault>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            implicit: false,
            starttls: true,
            injected: "",
            client_certificate: false,
            mechanisms: "PLAIN LOGIN XOAUTH2",
            secret: "right".to_owned(),
            denial: "535 5.7.8 bad credentials",
            connections: 3,
            offers: "",
            full: Vec::new(),
            slow: Duration::ZERO,
            faults: VecDeque::new(),
        }
    }
}

/// A mail that the relay took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    /// MAIL's argument.
    pub(crate) from: String,
    /// Each RCPT's.
    pub(crate) to: Vec<String>,
    /// The text, without dot-stuffing.
    pub(crate) bytes: Vec<u8>,
    /// Whether the line was encrypted.
    pub(crate) encrypted: bool,
}

/// What the relay has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Mails taken.
    pub(crate) taken: Vec<Taken>,
    /// Refusals that quoted a mail.
    pub(crate) quoted: Vec<String>,
    /// Connections made, those turned away included.
    pub(crate) connections: usize,
    /// Connections open now, and the most there ever were.
    pub(crate) open: usize,
    /// The most at once.
    pub(crate) most: usize,
    /// Every command's first word.
    pub(crate) commands: Vec<String>,
    /// What was said with each EHLO.
    pub(crate) hellos: Vec<String>,
}

/// A running relay. Ends with the runtime it was started on.
pub(crate) struct Relay {
    /// Its port on 127.0.0.1; its certificate is for localhost.
    pub(crate) port: u16,
    state: Arc<State>,
    folder: tempfile::TempDir,
}

struct State {
    manner: Mutex<Manner>,
    seen: Mutex<Seen>,
    tls: TlsAcceptor,
    /// From which mail on, counted from 1, those taken are not acknowledged.
    held: watch::Sender<Option<usize>>,
}

impl Relay {
    /// Starts one.
    pub(crate) async fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tls = super::certificates::certify(folder.path(), manner.client_certificate);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (manner, seen) = (Mutex::new(manner), Mutex::default());
        let state = Arc::new(State {
            manner,
            seen,
            tls: TlsAcceptor::from(tls),
            held: watch::Sender::new(None),
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                tokio::spawn(async move {
                    let open = state.opened();
                    // A line that breaks is what many tests ask for.
                    let _ = serve(&state, stream, open).await;
                    state.seen().open -= 1;
                });
            }
        });
        Self { port, state, folder }
    }

    /// The authority's certificate, as PEM.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A client's certificate and key, as PEM.
    pub(crate) fn client(&self) -> PathBuf {
        self.folder.path().join("client.pem")
    }

    /// Its TLS, for somebody else at this machine.
    pub(crate) fn tls(&self) -> TlsAcceptor {
        self.state.tls.clone()
    }

    /// What it has seen.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.state.seen()
    }

    /// Takes the `nth` mail, counted from 1, and all that follow it, and acknowledges none of
    /// them until [`Relay::let_go`].
    pub(crate) fn hold(&self, nth: usize) {
        self.state.held.send_replace(Some(nth));
    }

    /// Acknowledges every mail that it holds, and holds none any more.
    pub(crate) fn let_go(&self) {
        self.state.held.send_replace(None);
    }

    /// Changes how it behaves.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state.manner());
    }
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn opened(&self) -> usize {
        let mut seen = self.seen();
        seen.connections += 1;
        seen.open += 1;
        seen.most = seen.most.max(seen.open);
        seen.open
    }
}

/// Whatever bytes go over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Wire = BufReader<Box<dyn Stream>>;

/// The relay closes.
enum End {
    Closed,
    Broken,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Broken
    }
}

async fn serve(state: &State, stream: TcpStream, open: usize) -> Result<(), End> {
    let manner = state.manner().clone();
    let mut encrypted = manner.implicit;
    let mut wire: Wire = if manner.implicit {
        BufReader::new(Box::new(state.tls.accept(stream).await?))
    } else {
        BufReader::new(Box::new(stream))
    };
    if open > manner.connections {
        return say(&mut wire, "421 4.7.0 too many connections").await;
    }
    say(&mut wire, "220 relay.example ESMTP").await?;
    let mut signed_in = manner.mechanisms.is_empty();
    loop {
        let line = hear(&mut wire).await?;
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        state.seen().commands.push(word.clone());
        match word.as_str() {
            "EHLO" => {
                state.seen().hellos.push(line.trim_start_matches("EHLO ").to_owned());
                greet(&mut wire, &manner, encrypted).await?;
            }
            "STARTTLS" if manner.starttls && !encrypted => {
                let answer = format!("220 go ahead\r\n{}", manner.injected);
                wire.write_all(answer.as_bytes()).await?;
                wire.flush().await?;
                let tls = state.tls.accept(wire.into_inner()).await?;
                wire = BufReader::new(Box::new(tls));
                encrypted = true;
            }
            "AUTH" => {
                let secret = state.manner().secret.clone();
                signed_in = sign_in(&mut wire, &line, &secret).await?;
                let answer = if signed_in { "235 2.7.0 welcome" } else { manner.denial };
                say(&mut wire, answer).await?;
            }
            "MAIL" if !signed_in => say(&mut wire, "530 5.7.0 sign in first").await?,
            "MAIL" => take(state, &mut wire, &line, encrypted).await?,
            "RSET" | "NOOP" => say(&mut wire, "250 ok").await?,
            "QUIT" => {
                say(&mut wire, "221 bye").await?;
                return Ok(());
            }
            _ => say(&mut wire, "502 what").await?,
        }
    }
}

async fn greet(wire: &mut Wire, manner: &Manner, encrypted: bool) -> Result<(), End> {
    let mut lines = vec!["relay.example".to_owned(), "8BITMIME".to_owned()];
    if manner.starttls && !encrypted {
        lines.push("STARTTLS".to_owned());
    }
    if !manner.offers.is_empty() {
        lines.push(manner.offers.to_owned());
    }
    if !manner.mechanisms.is_empty() {
        lines.push(format!("AUTH {}", manner.mechanisms));
    }
    let last = lines.len() - 1;
    for (at, line) in lines.iter().enumerate() {
        say(wire, &format!("250{}{line}", if at == last { ' ' } else { '-' })).await?;
    }
    Ok(())
}

async fn sign_in(wire: &mut Wire, line: &str, secret: &str) -> Result<bool, End> {
    let decoded = |text: &str| {
        let bytes = STANDARD.decode(text).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let mut words = line.split(' ').skip(1);
    let mechanism = words.next().unwrap_or_default().to_owned();
    let first = words.next().unwrap_or_default().to_owned();
    Ok(match mechanism.as_str() {
        "PLAIN" => decoded(&first) == format!("\0user\0{secret}"),
        "XOAUTH2" => decoded(&first) == format!("user=user\x01auth=Bearer {secret}\x01\x01"),
        _ => {
            say(wire, &format!("334 {}", STANDARD.encode("Username:"))).await?;
            let user = decoded(&hear(wire).await?);
            say(wire, &format!("334 {}", STANDARD.encode("Password:"))).await?;
            let password = decoded(&hear(wire).await?);
            user == "user" && password == secret
        }
    })
}

/// From MAIL's answer to the answer to the final dot.
async fn take(state: &State, wire: &mut Wire, mail: &str, encrypted: bool) -> Result<(), End> {
    let fault = state.manner().faults.pop_front().unwrap_or(Fault::None);
    match fault {
        Fault::Mail(answer) => return say(wire, answer).await,
        Fault::CutAtMail => return Err(End::Closed),
        _ => say(wire, "250 ok").await?,
    }
    let mut to = Vec::new();
    loop {
        let line = hear(wire).await?;
        state.seen().commands.push(line.split(' ').next().unwrap_or_default().to_owned());
        match (&line[..4.min(line.len())], fault) {
            ("RCPT", Fault::Rcpt(answer)) | ("DATA", Fault::Data(answer)) => {
                return say(wire, answer).await;
            }
            ("RCPT", _) if state.manner().full.iter().any(|reader| line.contains(reader)) => {
                return say(wire, "452 4.2.2 mailbox full").await;
            }
            ("RCPT", _) => {
                to.push(line.clone());
                say(wire, "250 ok").await?;
            }
            ("DATA", Fault::CutAtData) => return Err(End::Closed),
            ("DATA", _) => break,
            // It was a trial, and the fault is for the first mail.
            ("RSET", _) => {
                state.manner().faults.push_front(fault);
                return say(wire, "250 ok").await;
            }
            _ => return say(wire, "503 out of turn").await,
        }
    }
    say(wire, "354 go on").await?;
    if fault == Fault::CutInText {
        let mut some = [0; 512];
        let _ = wire.read(&mut some).await?;
        return Err(End::Closed);
    }
    let bytes = text(wire).await?;
    let slow = state.manner().slow;
    tokio::time::sleep(slow).await;
    if let Fault::Dot(answer) = fault {
        return say(wire, answer).await;
    }
    if fault == Fault::Quote {
        let answer = quoting(&bytes);
        state.seen().quoted.push(answer.clone());
        return say(wire, &answer).await;
    }
    let number = {
        let mut seen = state.seen();
        seen.taken.push(Taken { from: mail.to_owned(), to, bytes, encrypted });
        seen.taken.len()
    };
    let acknowledged = |held: &Option<usize>| held.is_none_or(|nth| number < nth);
    // The sender lives as long as this.
    let _ = state.held.subscribe().wait_for(acknowledged).await;
    match fault {
        Fault::CutAfterDot => Err(End::Closed),
        Fault::SilentAfterDot => {
            let _ = hear(wire).await?;
            Err(End::Closed)
        }
        Fault::CutAfterAnswer => {
            say(wire, &format!("250 2.0.0 Ok: queued as {number}")).await?;
            Err(End::Closed)
        }
        _ => say(wire, &format!("250 2.0.0 Ok: queued as {number}")).await,
    }
}

/// A refusal of several lines with what a scanner may have read.
fn quoting(mail: &[u8]) -> String {
    let mail = String::from_utf8_lossy(mail);
    let text = mail.split("text/plain").nth(1).and_then(|part| part.split_once("\r\n\r\n"));
    let (_, text) = text.expect("a text part");
    // The code stands behind a greeting that a long name breaks into several lines.
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(6);
    let quoted: String = lines.flat_map(|line| ["554-5.7.1 ", line.trim(), "\r\n"]).collect();
    format!("{quoted}554 5.7.1 looks like spam")
}

async fn text(wire: &mut Wire) -> Result<Vec<u8>, End> {
    let mut text = Vec::new();
    loop {
        let mut line = Vec::new();
        if wire.read_until(b'\n', &mut line).await? == 0 {
            return Err(End::Broken);
        }
        match line.as_slice() {
            b".\r\n" => return Ok(text),
            [b'.', rest @ ..] => text.extend_from_slice(rest),
            line => text.extend_from_slice(line),
        }
    }
}

async fn hear(wire: &mut Wire) -> Result<String, End> {
    let mut line = String::new();
    if wire.read_line(&mut line).await? == 0 {
        return Err(End::Broken);
    }
    Ok(line.trim_end().to_owned())
}

async fn say(wire: &mut Wire, line: &str) -> Result<(), End> {
    wire.write_all(format!("{line}\r\n").as_bytes()).await?;
    wire.flush().await?;
    Ok(())
}
