//! Promises that the moment of the final dot is known exactly: what fails before it was not
//! sent, what stays unanswered after it is unsettled. Must never fall back to a line without
//! TLS, have more connections than allowed, or send a mail twice.
//!
//! lettre speaks each step of SMTP; the steps are driven here. Its own transport is not
//! used: it does not say where it failed, and its pool opens more connections than asked.
//!
//! Every answer is taken for the code that its command must bring (235, 354, …) and not for
//! any success: answers that somebody injected before STARTTLS shift those that follow, and
//! are found out before a code is sent.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials as Login, Mechanism as LettreMechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, Identity, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Sent;
use super::secret::Credentials;
use super::settings::{MailPlan, Mechanism, Relay, SignIn, Tls};
use crate::clock::Clock;
use crate::graph::verdict::plain;
use crate::letter::Mail;
use crate::limits;
use crate::pace::{Budget, Pace, PaceOptions, Permit, Throttled};

/// How long to wait for a relay.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer to a command, and for the relay to take the text.
    pub answer: Duration,
    /// For the answer to the final dot.
    pub last_answer: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_TIMEOUT,
            answer: limits::SMTP_ANSWER,
            last_answer: limits::SMTP_LAST_ANSWER,
        }
    }
}

/// Why no courier could be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmtpSetupError {
    /// A file of certificates.
    #[error("failed to read certificates from {path}: {why}; give a PEM file")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("failed to set up TLS for the relay {host}: {why}; check its name and certificates")]
    Tls {
        /// The relay.
        host: String,
        /// The TLS library's reason.
        why: String,
    },
    /// The plan is for Graph.
    #[error("[mail] in tapwave.toml names no relay; set courier = \"smtp\" and host")]
    NoRelay,
}

/// A courier that sends through a relay.
pub struct Smtp {
    relay: Relay,
    tls: Option<TlsParameters>,
    credentials: Option<Arc<dyn Credentials>>,
    waits: Waits,
    clock: Clock,
    pace: Pace,
    room: Semaphore,
    idle: Mutex<Vec<Line>>,
}

/// A connection that is signed in.
struct Line {
    connection: AsyncSmtpConnection,
    mails: u32,
    since: Instant,
}

/// What went wrong at one step, and what that means.
struct Fault {
    sent: Sent,
    /// The relay asked for less.
    throttled: bool,
    /// The connection can be used again after RSET.
    usable: bool,
    /// The other side had closed the connection before it took anything of this mail.
    stale: bool,
}

impl Smtp {
    /// A courier for the plan's relay. `credentials` are asked at each new connection;
    /// `ca_file` holds further certificate authorities. Connects to nothing yet.
    ///
    /// # Errors
    /// [`SmtpSetupError`]
    pub fn new(
        plan: &MailPlan,
        credentials: Option<Arc<dyn Credentials>>,
        ca_file: Option<&Path>,
        waits: Waits,
        clock: Clock,
    ) -> Result<Self, SmtpSetupError> {
        let relay = plan.relay.clone().ok_or(SmtpSetupError::NoRelay)?;
        let options = PaceOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        Ok(Self {
            tls: tls(&relay, ca_file)?,
            pace: Pace::new(options, clock.clone()),
            room: Semaphore::new(plan.max_connections),
            idle: Mutex::new(Vec::new()),
            relay,
            credentials,
            waits,
            clock,
        })
    }

    /// The limiter, to show how mail stands and to forecast.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Sends one mail once, when a connection is free and the rate lets it.
    pub async fn send(&self, mail: &Mail) -> Sent {
        // Never closed, so this waits and does not fail.
        let Ok(_room) = self.room.acquire().await else {
            return not_sent("the courier was closed".to_owned(), true);
        };
        let permit = self.pace.admit(Budget::Mail, 1).await;
        let (Ok(from), Ok(to)) = (mail.from().parse(), mail.to().parse()) else {
            return Sent::Refused { why: "an address is malformed".to_owned() };
        };
        match self.deliver(mail, &from, &to).await {
            Ok(receipt) => {
                permit.answered(1, None, None);
                Sent::Accepted { receipt }
            }
            Err(fault) => {
                tell(permit, &fault);
                fault.sent
            }
        }
    }

    /// Connects and signs in, and keeps the connection for the first mail.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub async fn try_out(&self) -> Result<(), String> {
        match self.connect().await {
            Ok(line) => {
                self.idle().push(line);
                Ok(())
            }
            Err(Fault { sent: Sent::NotSent { why, .. }, .. }) => Err(why),
            Err(Fault { sent, .. }) => Err(format!("{sent:?}")),
        }
    }

    /// Takes leave of the relay. Mails that are on their way are not waited for.
    pub async fn close(&self) {
        let lines = std::mem::take(&mut *self.idle());
        for mut line in lines {
            // Only a courtesy; nothing depends on the answer.
            let _ = timeout(self.waits.connect, line.connection.quit()).await;
        }
    }

    /// Over a connection that was kept if there is one, else over a new one.
    async fn deliver(&self, mail: &Mail, from: &Address, to: &Address) -> Result<String, Fault> {
        while let Some(line) = self.kept() {
            match self.over(line, mail, from, to).await {
                // Certainly not sent, and only because that connection had ended.
                Err(fault) if fault.stale => {}
                other => return other,
            }
        }
        let line = self.connect().await?;
        self.over(line, mail, from, to).await
    }

    async fn over(
        &self,
        mut line: Line,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, Fault> {
        line.mails += 1;
        let outcome = self.hand_over(&mut line.connection, mail, from, to).await;
        let usable = match &outcome {
            Ok(_) => true,
            Err(fault) if fault.usable => self.reset(&mut line.connection).await,
            Err(_) => false,
        };
        if usable && line.mails < limits::MAILS_PER_CONNECTION {
            line.since = self.clock.instant();
            self.idle().push(line);
        } else if usable {
            let _ = timeout(self.waits.connect, line.connection.quit()).await;
        }
        outcome
    }

    /// MAIL, RCPT, DATA, text, dot.
    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, Fault> {
        let mail_from = MailFrom::new(Some(from.clone()), Vec::new());
        let begun = self.command(connection.command(mail_from), 250).await;
        begun.map_err(|fault| Fault { stale: !fault.usable, ..fault })?;
        self.command(connection.command(Rcpt::new(to.clone(), Vec::new())), 25).await?;
        self.command(connection.command(Data), 354).await?;
        let dotted = AtomicBool::new(false);
        let text = Text { bytes: Some(mail.bytes()), dotted: &dotted };
        let wait = self.waits.answer + self.waits.last_answer;
        let answer = timeout(wait, connection.message_iter(text)).await;
        let dotted = dotted.load(Ordering::Relaxed);
        match answer {
            Ok(Ok(answer)) if answer.has_code(250) => Ok(receipt(&answer)),
            Ok(Ok(answer)) => Err(lost(format!("the relay answered {}", receipt(&answer)))),
            Ok(Err(error)) if error.status().is_some() => Err(refused(&error, true)),
            Ok(Err(error)) if dotted => Err(lost(reason(&error))),
            Err(_) if dotted => Err(lost("no answer in time to the end of the mail".to_owned())),
            Ok(Err(error)) => Err(broken(reason(&error), true)),
            Err(_) => Err(broken("the relay did not take the mail in time".to_owned(), true)),
        }
    }

    async fn connect(&self) -> Result<Line, Fault> {
        let connecting = self.open();
        let mut connection = match timeout(self.waits.connect, connecting).await {
            Ok(connection) => connection?,
            Err(_) => return Err(broken("no connection to the relay in time".to_owned(), true)),
        };
        if let Some(sign_in) = &self.relay.sign_in {
            self.sign_in(&mut connection, sign_in).await?;
        }
        Ok(Line { connection, mails: 0, since: self.clock.instant() })
    }

    /// Connects, and protects the line as the settings demand.
    async fn open(&self) -> Result<AsyncSmtpConnection, Fault> {
        let hello = ClientId::default();
        let address = (self.relay.host.as_str(), self.relay.port);
        let connected = match self.tls.clone().filter(|_| self.relay.tls == Tls::Implicit) {
            None => {
                AsyncSmtpConnection::connect_with_transport(prompt(address).await?, &hello).await
            }
            // lettre starts TLS at once on connections of its own making alone.
            implicit => {
                let wait = Some(self.waits.connect);
                AsyncSmtpConnection::connect_tokio1(address, wait, &hello, implicit, None).await
            }
        };
        let mut connection = connected.map_err(|error| unconnected(&error))?;
        if let (Tls::Starttls, Some(tls)) = (self.relay.tls, self.tls.clone()) {
            if !connection.can_starttls() {
                let why = "the relay does not offer STARTTLS, so somebody could read along; use \
                           a relay or a port that does, or tls = \"implicit\"";
                return Err(broken(why.to_owned(), false));
            }
            connection.starttls(tls, &hello).await.map_err(|error| unconnected(&error))?;
        }
        if self.relay.tls != Tls::None && !connection.is_encrypted() {
            return Err(broken("the line to the relay is not encrypted".to_owned(), false));
        }
        Ok(connection)
    }

    async fn sign_in(
        &self,
        connection: &mut AsyncSmtpConnection,
        sign_in: &SignIn,
    ) -> Result<(), Fault> {
        let credentials = self.credentials.as_ref();
        let credentials =
            credentials.ok_or_else(|| broken("no password was given".to_owned(), false))?;
        let secret = credentials.secret().await.map_err(|why| broken(why.to_string(), false))?;
        let mechanisms: Vec<_> = sign_in.mechanisms.iter().copied().map(mechanism).collect();
        if connection.server_info().get_auth_mechanism(&mechanisms).is_none() {
            let why = "the relay does not offer the way to sign in that auth in tapwave.toml \
                       names; ask its operator which one it has";
            return Err(broken(why.to_owned(), false));
        }
        let login = Login::new(sign_in.username.clone(), secret.expose_secret().to_owned());
        match timeout(self.waits.answer, connection.auth(&mechanisms, &login)).await {
            Ok(Ok(answer)) if answer.has_code(235) => Ok(()),
            Ok(Ok(answer)) => Err(broken(
                format!("the relay answered the sign-in with {}", receipt(&answer)),
                false,
            )),
            Ok(Err(error)) if error.is_permanent() || error.is_client() => Err(broken(
                format!(
                    "the relay refused the sign-in of {}: {}; check username and password",
                    sign_in.username,
                    reason(&error)
                ),
                false,
            )),
            Ok(Err(error)) if error.is_transient() => Err(refused(&error, false)),
            Ok(Err(error)) => Err(broken(reason(&error), true)),
            Err(_) => Err(broken("no answer in time to the sign-in".to_owned(), true)),
        }
    }

    /// One command. `code` is the answer it must bring, or the digits that begin it.
    async fn command(
        &self,
        command: impl Future<Output = Result<Response, SmtpError>>,
        code: u16,
    ) -> Result<(), Fault> {
        match timeout(self.waits.answer, command).await {
            Ok(Ok(answer)) if answer.code().to_string().starts_with(&code.to_string()) => Ok(()),
            Ok(Ok(answer)) => {
                let why = format!("the relay answered out of turn: {}", receipt(&answer));
                Err(broken(why, true))
            }
            Ok(Err(error)) if error.status().is_some() => Err(refused(&error, true)),
            Ok(Err(error)) => Err(broken(reason(&error), true)),
            Err(_) => Err(broken("no answer in time from the relay".to_owned(), true)),
        }
    }

    async fn reset(&self, connection: &mut AsyncSmtpConnection) -> bool {
        self.command(connection.command(Rset), 250).await.is_ok()
    }

    /// A kept connection that is still fresh. Stale ones are dropped.
    fn kept(&self) -> Option<Line> {
        let now = self.clock.instant();
        let mut idle = self.idle();
        idle.retain(|line| now.duration_since(line.since) < limits::SMTP_IDLE);
        idle.pop()
    }

    /// A list of connections is whole after each of its steps, whoever panicked.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text of a mail, in one piece. lettre asks for the next piece when the last one was
/// written and flushed; told that there is none, it writes the final dot. So the dot cannot
/// have been sent before `dotted` is set.
struct Text<'a> {
    bytes: Option<&'a [u8]>,
    dotted: &'a AtomicBool,
}

impl<'a> Iterator for Text<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let piece = self.bytes.take();
        self.dotted.store(piece.is_none(), Ordering::Relaxed);
        piece
    }
}

/// A connection that sends at once. The dot goes by itself behind the text; held back for the
/// text's acknowledgement (Nagle), it would cost 40 ms a mail.
async fn prompt(address: (&str, u16)) -> Result<Box<TcpStream>, Fault> {
    let unreachable = |error: std::io::Error| broken(plain(&error.to_string()), true);
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(Box::new(stream))
}

fn not_sent(why: String, again: bool) -> Sent {
    Sent::NotSent { why, again }
}

/// The line broke, or was never there.
fn broken(why: String, again: bool) -> Fault {
    Fault { sent: not_sent(why, again), throttled: false, usable: false, stale: false }
}

fn lost(why: String) -> Fault {
    Fault { sent: Sent::Unsettled { why }, throttled: false, usable: false, stale: false }
}

/// The relay said no, in so many digits. `mail`: to this mail, and not to all.
fn refused(error: &SmtpError, mail: bool) -> Fault {
    let why = reason(error);
    let closing = error.status().is_some_and(|code| code.to_string() == "421");
    let sent = if error.is_permanent() && mail {
        Sent::Refused { why: why.clone() }
    } else {
        not_sent(why.clone(), error.is_transient())
    };
    let throttled = error.is_transient() && asks_for_less(closing, &why);
    Fault { sent, throttled, usable: mail && !closing, stale: false }
}

/// Told apart by words, because 450 and 451 also stand for one full or unknown mailbox:
/// Postfix says "too much mail" and "too many connections", Exchange "Concurrent
/// connections limit exceeded" (432) and "message rate limit".
fn asks_for_less(closing: bool, why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    let says = ["too many", "too much", "rate", "concurrent", "throttl", "quota exceeded"];
    closing || why.contains("432") || says.iter().any(|word| why.contains(word))
}

/// No line at all. A certificate that is not good will not be better in a minute.
fn unconnected(error: &SmtpError) -> Fault {
    if error.status().is_some() {
        return refused(error, false);
    }
    let mut source = error.source();
    let mut certificate = error.is_tls();
    while let Some(inner) = source {
        let io = inner.downcast_ref::<std::io::Error>();
        certificate |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData);
        source = inner.source();
    }
    if certificate {
        let why = format!("{}; check the relay's certificate, host, and --ca-file", reason(error));
        return broken(why, false);
    }
    broken(reason(error), !error.is_client())
}

fn tell(permit: Permit, fault: &Fault) {
    match (&fault.sent, fault.throttled) {
        (_, true) => {
            permit.answered(0, Some(Throttled { count: 1, retry_after: None }), None);
        }
        (Sent::Refused { .. }, false) => permit.answered(1, None, None),
        _ if fault.usable => permit.answered(1, None, None),
        _ => permit.broken(),
    }
}

/// The relay's words, on one line.
fn receipt(answer: &Response) -> String {
    let words: Vec<&str> = answer.message().collect();
    plain(&format!("{} {}", answer.code(), words.join(" ")))
}

fn reason(error: &SmtpError) -> String {
    let said = error.source().map(ToString::to_string);
    let said = said.filter(|said| !said.trim().is_empty()).unwrap_or_else(|| error.to_string());
    match error.status() {
        Some(code) => plain(&format!("{code} {said}")),
        None => plain(&said),
    }
}

const fn mechanism(mechanism: Mechanism) -> LettreMechanism {
    match mechanism {
        Mechanism::Plain => LettreMechanism::Plain,
        Mechanism::Login => LettreMechanism::Login,
        Mechanism::Xoauth2 => LettreMechanism::Xoauth2,
    }
}

fn tls(relay: &Relay, ca_file: Option<&Path>) -> Result<Option<TlsParameters>, SmtpSetupError> {
    if relay.tls == Tls::None {
        return Ok(None);
    }
    let broken =
        |error: SmtpError| SmtpSetupError::Tls { host: relay.host.clone(), why: reason(&error) };
    let mut builder = TlsParameters::builder(relay.host.clone());
    if let Some(path) = ca_file {
        let unusable = |why: String| SmtpSetupError::Certificates { path: path.to_owned(), why };
        let pem = read(path)?;
        if leaf(&pem).is_none() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
        let authorities = Certificate::from_pem(&pem).map_err(|error| unusable(reason(&error)))?;
        builder = builder.add_root_certificate(authorities);
    }
    if let Some(path) = &relay.client_certificate {
        let unusable = |why: String| SmtpSetupError::Certificates { path: path.clone(), why };
        let pem = read(path)?;
        let leaf = leaf(&pem).ok_or_else(|| unusable("it holds no certificate".to_owned()))?;
        // lettre 0.11.23 takes its first argument for DER, in spite of its name.
        let identity = Identity::from_pem(&leaf, &pem).map_err(|error| unusable(reason(&error)))?;
        builder = builder.identify_with(identity);
    }
    builder.build_rustls().map(Some).map_err(broken)
}

/// The first certificate of a PEM file.
fn leaf(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, SmtpSetupError> {
    use std::io::Read as _;
    let unusable = |why: String| SmtpSetupError::Certificates { path: path.to_owned(), why };
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::MAX_CERTIFICATE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(error.to_string()))?;
    if bytes.len() as u64 > limits::MAX_CERTIFICATE_BYTES {
        return Err(unusable("it is too large".to_owned()));
    }
    Ok(bytes)
}
