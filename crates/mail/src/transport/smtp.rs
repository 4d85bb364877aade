//! Promises that the moment of the final dot is known exactly: a mail that fails before it was not
//! sent, one without a reply after it is unsettled. Must never fall back to a connection without
//! TLS, open more connections than allowed, or send a mail twice.
//!
//! Each command needs its own success code (235, 354, …); another one is not a success.

use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials as Login, Mechanism as LettreMechanism};
use lettre::transport::smtp::commands::{
    Auth, Data, Ehlo, Mail as MailFrom, Quit, Rcpt, Rset, Starttls,
};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter};
use secrecy::ExposeSecret;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::{IdleConnection, SmtpConnection, WebServerAnswered};
use super::permit::{NEEDS_UTF8, Ready, Scripts, SendPermit};
use super::reply::{Capabilities, ReplyClass, SmtpReply};
use super::route::{NoRoute, Route, RouteConnection, rejects_client_certificate};
use super::secret::Credentials;
use super::settings::{MailPlan, Mechanism, Relay, RelaySignIn, Tls};
use crate::template::Mail;
use tapwave_core::clock::Clock;
use tapwave_core::effect::{Effect, Obstacle, ObstacleKind};
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_graph::between::tls_error;
use tapwave_graph::http::Network;
use tapwave_graph::limiter::{Budget, Limiter, LimiterOptions, NotAdmitted, Permit, Throttled};

pub use super::route::SmtpSetupError;

/// How long to wait for a relay.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Including TLS.
    pub connect: Duration,
    /// For a reply to a command, and for sending the text.
    pub answer: Duration,
    /// For the reply to the final dot.
    pub last_answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: limits::CONNECT_TIMEOUT,
            answer: limits::SMTP_ANSWER,
            last_answer: limits::SMTP_LAST_ANSWER,
        }
    }
}

/// A transport that sends through a relay.
pub struct Smtp {
    relay: Relay,
    from: String,
    route: Route,
    credentials: Option<Arc<dyn Credentials>>,
    timeouts: Timeouts,
    clock: Clock,
    limiter: Limiter,
    slots: Semaphore,
    idle: Mutex<Vec<IdleConnection>>,
}

/// Why a step failed, and what that means.
struct Failure {
    effect: Effect<String>,
    /// The connection can be used again after RSET.
    usable: bool,
    /// The connection was closed before the relay accepted any part of this mail.
    stale: bool,
}

impl Smtp {
    /// Does not connect yet. `credentials` are asked for each new connection.
    pub fn new(
        plan: &MailPlan,
        credentials: Option<Arc<dyn Credentials>>,
        network: &Network,
        timeouts: Timeouts,
        clock: Clock,
    ) -> Result<Self, SmtpSetupError> {
        let relay = plan.relay.clone().ok_or(SmtpSetupError::NoRelay)?;
        let options = LimiterOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        Ok(Self {
            route: Route::new(&relay, network)?,
            limiter: Limiter::new(options, clock.clone()),
            slots: Semaphore::new(plan.max_connections),
            idle: Mutex::new(Vec::new()),
            from: plan.from.address().to_owned(),
            relay,
            credentials,
            timeouts,
            clock,
        })
    }

    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    pub(super) async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        // Never closed, so it gives a slot in the end.
        let slot = self.slots.acquire().await.ok();
        Ok(SendPermit { admission: self.limiter.admit(Budget::Mail, 1).await?, slot })
    }

    pub(super) async fn ready<'a>(&self, permit: SendPermit<'a>) -> Result<Ready<'a>, Obstacle> {
        match self.open_connection().await {
            Ok(connection) => Ok(Ready { permit, connection: Some(Box::new(connection)) }),
            Err(obstacle) => {
                report(permit.admission, &obstacle.clone().into());
                Err(obstacle)
            }
        }
    }

    /// The same connection if the relay has not closed it, else another.
    pub(super) async fn refresh<'a>(&self, ready: Ready<'a>) -> Result<Ready<'a>, Obstacle> {
        // Lets the runtime notice what arrived while the caller was busy.
        tokio::task::yield_now().await;
        let Ready { permit, mut connection } = ready;
        if connection.as_mut().is_some_and(|idle| idle.smtp.check_idle().is_ok()) {
            return Ok(Ready { permit, connection });
        }
        self.ready(permit).await
    }

    pub(super) async fn send(&self, mail: &Mail, ready: Ready<'_>) -> Effect<String> {
        let Ready { permit: SendPermit { admission, slot: _slot }, connection } = ready;
        let (Ok(from), Ok(to)) = (mail.from().parse(), mail.to().parse()) else {
            return Effect::Refused("an address is malformed".to_owned());
        };
        let connection = connection.map(|connection| *connection);
        match self.send_or_reconnect(mail, &from, &to, connection).await {
            Ok(receipt) => {
                admission.answered(1, None);
                Effect::Done(receipt)
            }
            Err(failure) => {
                report(admission, &failure);
                failure.effect
            }
        }
    }

    /// Connects, signs in, begins a mail as the sender and resets it. Keeps the connection for the
    /// first mail.
    pub async fn try_out(&self) -> Result<Scripts, Obstacle> {
        let mut idle = self.connect().await?;
        let scripts = if idle.capabilities.smtputf8 { Scripts::Any } else { Scripts::Ascii };
        let tried = self.try_sender(&mut idle).await;
        if tried.as_ref().err().is_none_or(|failure| failure.usable) {
            self.keep(idle);
        }
        match tried {
            // A relay that is busy now will not stay so.
            Err(failure) if failure.usable && !failure.bars_us() => Ok(scripts),
            Err(failure) => Err(into_obstacle(failure)),
            Ok(()) => Ok(scripts),
        }
    }

    async fn try_sender(&self, idle: &mut IdleConnection) -> Result<(), Failure> {
        let Ok(from) = self.from.parse::<Address>() else { return Ok(()) };
        let parameters = match (self.from.is_ascii(), idle.capabilities.smtputf8) {
            (true, _) => Vec::new(),
            (false, true) => smtputf8_parameters(),
            // The check reports this address itself.
            (false, false) => return Ok(()),
        };
        self.mail_from(&mut idle.smtp, from, parameters).await?;
        self.command(&mut idle.smtp, Rset, 250).await.map(drop)
    }

    /// MAIL. The relay does not know the recipient yet, so that a permanent refusal concerns the
    /// sender, or the mail's size and format.
    async fn mail_from(
        &self,
        connection: &mut SmtpConnection,
        from: Address,
        parameters: Vec<MailParameter>,
    ) -> Result<(), Failure> {
        let mail_from = MailFrom::new(Some(from), parameters);
        let reply = self.reply_to(connection, mail_from).await?;
        if reply.class() == ReplyClass::Permanent && !reply.is_about_mail() {
            return Err(self.sender_refused(&reply));
        }
        self.expect(reply, 250).map(drop)
    }

    /// Ends the idle connections with QUIT, for at most [`limits::SMTP_QUIT`]. Mails that are being
    /// sent are not waited for.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle());
        quit(idle).await;
    }

    /// Sends over this connection, or over a new one if the relay had closed it while it was idle.
    async fn send_or_reconnect(
        &self,
        mail: &Mail,
        from: &Address,
        to: &Address,
        mut connection: Option<IdleConnection>,
    ) -> Result<String, Failure> {
        loop {
            let idle = match connection.take() {
                Some(idle) => idle,
                None => self.open_connection().await?,
            };
            let was_idle = idle.was_idle;
            match self.send_over(idle, mail, from, to).await {
                // Certainly not sent.
                Err(failure) if failure.stale && was_idle => {}
                other => return other,
            }
        }
    }

    /// An idle connection that still works, else a new one.
    async fn open_connection(&self) -> Result<IdleConnection, Obstacle> {
        while let Some(mut idle) = self.take_idle() {
            if self.is_expired(&idle) {
                // One at a time, so that there are never more connections than slots.
                quit(vec![idle]).await;
                continue;
            }
            if idle.needs_reset && self.command(&mut idle.smtp, Rset, 250).await.is_err() {
                continue;
            }
            idle.needs_reset = false;
            if idle.smtp.check_idle().is_ok() {
                return Ok(idle);
            }
        }
        self.connect().await
    }

    /// Sends one mail, and keeps the connection if it can be used again. Must not await anything
    /// once the outcome is known: it has to be recorded first.
    async fn send_over(
        &self,
        mut idle: IdleConnection,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, Failure> {
        idle.mails += 1;
        let outcome = self.transfer(&mut idle, mail, from, to).await;
        let failure = outcome.as_ref().err();
        if failure.is_none_or(|failure| failure.usable) {
            idle.needs_reset = failure.is_some();
            self.keep(idle);
        }
        outcome
    }

    /// MAIL, RCPT, DATA, text, final dot.
    async fn transfer(
        &self,
        idle: &mut IdleConnection,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, Failure> {
        let parameters = mail_parameters(mail, &idle.capabilities)?;
        check_size(mail, &idle.capabilities)?;
        let connection = &mut idle.smtp;
        let begun = self.mail_from(connection, from.clone(), parameters).await;
        begun.map_err(|failure| Failure { stale: !failure.usable, ..failure })?;
        self.command(connection, Rcpt::new(to.clone(), Vec::new()), 25).await?;
        self.command(connection, Data, 354).await?;
        match timeout(self.timeouts.answer, connection.send_text(mail.bytes())).await {
            Ok(Ok(())) => self.check_no_early_reply(connection).await?,
            Ok(Err(error)) => return Err(no_reply(&error).into()),
            Err(_) => return Err(temporary("the relay did not take the mail in time").into()),
        }
        let end = async {
            connection.send_dot().await?;
            connection.read_reply().await
        };
        match timeout(self.timeouts.last_answer, end).await {
            Ok(Ok(reply)) if reply.has_code(250) => Ok(reply.to_line()),
            Ok(Ok(reply)) if reply.is_refusal() => Err(self.refused(&reply)),
            Ok(Ok(reply)) => Err(unsettled(format!("the relay answered {}", reply.to_line()))),
            Ok(Err(error)) => Err(unsettled(plain(&error.to_string()))),
            Err(_) => Err(unsettled("no answer in time to the end of the mail".to_owned())),
        }
    }

    /// Fails if the relay has replied before the final dot: that would be taken for the reply to it.
    /// Without its dot the mail was not sent.
    async fn check_no_early_reply(&self, connection: &mut SmtpConnection) -> Result<(), Failure> {
        let Err(early) = connection.check_idle() else { return Ok(()) };
        match timeout(self.timeouts.answer, connection.read_reply()).await {
            Ok(Ok(reply)) if reply.is_refusal() => {
                Err(Failure { usable: false, ..self.refused(&reply) })
            }
            _ => Err(no_reply(&early).into()),
        }
    }

    async fn connect(&self) -> Result<IdleConnection, Obstacle> {
        let Ok(opened) = timeout(self.timeouts.connect, self.open()).await else {
            let why = "no connection to the relay in time";
            return Err(Obstacle::new(ObstacleKind::Unreachable, why));
        };
        let (mut smtp, capabilities) = opened?;
        if let Some(sign_in) = &self.relay.sign_in {
            self.sign_in(&mut smtp, &capabilities, sign_in).await?;
        }
        let since = self.clock.instant();
        let (was_idle, needs_reset) = (false, false);
        Ok(IdleConnection { smtp, capabilities, mails: 0, since, was_idle, needs_reset })
    }

    /// Connects, and begins TLS as the settings require.
    async fn open(&self) -> Result<(SmtpConnection, Capabilities), Obstacle> {
        let connected = self.route.connect().await.map_err(|error| unreachable(&error))?;
        let hello = Ehlo::new(self.hello(connected.own));
        let mut stream = connected.stream;
        if self.relay.tls == Tls::Implicit {
            stream = self.begin_tls(stream).await?;
        }
        let mut connection = SmtpConnection::new(stream);
        let greeting = connection.read_reply().await.map_err(|error| no_reply(&error))?;
        check_welcome(&greeting)?;
        self.expect(greeting, 220).map_err(into_obstacle)?;
        let capabilities = self.ehlo(&mut connection, &hello).await?;
        if self.relay.tls != Tls::Starttls {
            return Ok((connection, capabilities));
        }
        if !capabilities.starttls {
            let why = "the relay does not offer STARTTLS, so somebody could read along; use \
                       a relay or a port that does, or tls = \"implicit\"";
            return Err(lasting(why));
        }
        self.command(&mut connection, Starttls, 220).await.map_err(into_obstacle)?;
        let Some(stream) = connection.into_stream() else {
            let why = "something came behind the relay's answer to STARTTLS, before TLS began: \
                       somebody may be writing into the line";
            return Err(lasting(why));
        };
        let mut connection = SmtpConnection::new(self.begin_tls(stream).await?);
        // Again: an attacker may have forged what was offered in the clear.
        let capabilities = self.ehlo(&mut connection, &hello).await?;
        Ok((connection, capabilities))
    }

    async fn begin_tls(&self, stream: RouteConnection) -> Result<RouteConnection, Obstacle> {
        self.route.protect(stream).await.map_err(|error| unreachable(&error))
    }

    async fn ehlo(
        &self,
        connection: &mut SmtpConnection,
        hello: &Ehlo,
    ) -> Result<Capabilities, Obstacle> {
        let reply = self.reply_to(connection, hello).await?;
        check_welcome(&reply)?;
        let reply = self.expect(reply, 250).map_err(into_obstacle)?;
        Ok(Capabilities::of(&reply))
    }

    /// The name for EHLO: from the settings, else this machine's address on the connection (RFC
    /// 5321, 4.1.4). Relays refuse bare host names, and some a loopback address from elsewhere.
    fn hello(&self, own: IpAddr) -> ClientId {
        match (&self.relay.hello, own) {
            (Some(name), _) => ClientId::Domain(name.clone()),
            (None, IpAddr::V4(own)) => ClientId::Ipv4(own),
            (None, IpAddr::V6(own)) => ClientId::Ipv6(own),
        }
    }

    async fn sign_in(
        &self,
        connection: &mut SmtpConnection,
        capabilities: &Capabilities,
        sign_in: &RelaySignIn,
    ) -> Result<(), Obstacle> {
        let credentials = self.credentials.as_ref();
        let credentials = credentials.ok_or_else(|| sign_in_obstacle("no password was given"))?;
        let secret = credentials.secret().await.map_err(|why| sign_in_obstacle(why.to_string()))?;
        let Some(mechanism) = capabilities.mechanism(&sign_in.mechanisms).map(mechanism) else {
            let why = "the relay does not offer the way to sign in that auth in tapwave.toml \
                       names; ask its operator which one it has";
            return Err(lasting(why));
        };
        let login = Login::new(sign_in.username.clone(), secret.expose_secret().to_owned());
        let exchange = authenticate(connection, mechanism, &login);
        let reply = match timeout(self.timeouts.answer, exchange).await {
            Ok(reply) => reply.map_err(|error| no_reply(&error))?,
            Err(_) => return Err(temporary("no answer in time to the sign-in")),
        };
        if reply.has_code(235) {
            return Ok(());
        }
        if reply.class() == ReplyClass::Transient {
            return Err(into_obstacle(self.refused(&reply)));
        }
        let remedy = if reply.says_sign_in_disabled() {
            "the password may be right: SMTP AUTH is switched off for this mailbox or for the \
             whole tenant; have it switched on (Exchange admin center, the mailbox, Manage email \
             apps, Authenticated SMTP), set auth = \"xoauth2\" if only passwords are off, or \
             mail with courier = \"graph\""
        } else {
            "check username and password"
        };
        let (user, line) = (plain(&sign_in.username), reply.to_line());
        Err(sign_in_obstacle(format!("the relay refused the sign-in of {user}: {line}; {remedy}")))
    }

    /// The relay accepts no mail from our sender, to any recipient.
    fn sender_refused(&self, reply: &SmtpReply) -> Failure {
        let (from, line) = (plain(&self.from), reply.to_line());
        let signed_in = self.relay.sign_in.as_ref().map(|sign_in| plain(&sign_in.username));
        let remedy = match (signed_in, reply.is_sender_quota()) {
            (_, true) => "wait until its quota is free again, or set another from in [mail]".into(),
            (Some(user), false) => format!(
                "let {user} send as it (in Exchange: the permission Send As), or set from in \
                 [mail] to an address of its own"
            ),
            (None, false) => "set from in [mail] to an address that the relay takes from this \
                              machine, or sign in with username and a password"
                .into(),
        };
        let obstacle = if reply.has_code(530) {
            sign_in_obstacle(format!(
                "the relay lets nobody send who has not signed in: {line}; check tls, username and \
                 the password in [mail]"
            ))
        } else {
            let why = format!("the relay takes no mail from {from}: {line}; {remedy}");
            Obstacle::new(ObstacleKind::Sender, why)
        };
        Failure { effect: obstacle.into(), usable: true, stale: false }
    }

    /// The relay refused a mail with this reply.
    fn refused(&self, reply: &SmtpReply) -> Failure {
        if reply.is_about_sender() {
            return self.sender_refused(reply);
        }
        let why = reply.to_line();
        let is_closing = reply.has_code(421);
        let effect = if reply.class() != ReplyClass::Transient {
            Effect::Refused(why)
        } else if is_throttling(is_closing, &why) {
            Obstacle::new(ObstacleKind::Throttled, why).into()
        } else {
            temporary(why).into()
        };
        Failure { effect, usable: !is_closing, stale: false }
    }

    /// Accepts a reply whose code begins with the digits of `code`.
    fn expect(&self, reply: SmtpReply, code: u16) -> Result<SmtpReply, Failure> {
        if reply.begins_with(code) {
            return Ok(reply);
        }
        if reply.is_refusal() {
            return Err(self.refused(&reply));
        }
        Err(temporary(format!("the relay answered out of turn: {}", reply.to_line())).into())
    }

    /// Sends a command whose reply must begin with the digits of `code`.
    async fn command(
        &self,
        connection: &mut SmtpConnection,
        command: impl Display,
        code: u16,
    ) -> Result<SmtpReply, Failure> {
        let reply = self.reply_to(connection, command).await?;
        self.expect(reply, code)
    }

    async fn reply_to(
        &self,
        connection: &mut SmtpConnection,
        command: impl Display,
    ) -> Result<SmtpReply, Obstacle> {
        match timeout(self.timeouts.answer, connection.command(command)).await {
            Ok(reply) => reply.map_err(|error| no_reply(&error)),
            Err(_) => Err(temporary("no answer in time from the relay")),
        }
    }

    /// Keeps a connection for the next mail.
    pub(super) fn keep(&self, mut idle: IdleConnection) {
        idle.since = self.clock.instant();
        idle.was_idle = true;
        self.idle().push(idle);
    }

    /// Takes an expired connection, which is to be closed, else the one that was used last.
    fn take_idle(&self) -> Option<IdleConnection> {
        let mut all = self.idle();
        match all.iter().position(|idle| self.is_expired(idle)) {
            Some(place) => Some(all.remove(place)),
            None => all.pop(),
        }
    }

    /// Whether it has sent its share of mails, or was idle for so long that the relay may close it.
    fn is_expired(&self, idle: &IdleConnection) -> bool {
        let idle_for = self.clock.instant().saturating_duration_since(idle.since);
        idle.mails >= limits::MAILS_PER_CONNECTION || idle_for >= limits::SMTP_IDLE
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends QUIT. A courtesy: nothing depends on the replies.
async fn quit(mut all: Vec<IdleConnection>) {
    let quits = join_all(all.iter_mut().map(|idle| idle.smtp.command(Quit)));
    let _ = timeout(limits::SMTP_QUIT, quits).await;
}

/// Fails if the relay refuses this machine, in its greeting or its reply to EHLO, before it knows of
/// any mail. One that does not know EHLO (500, 502) does not refuse us.
fn check_welcome(reply: &SmtpReply) -> Result<(), Obstacle> {
    if reply.class() != ReplyClass::Permanent || reply.has_code(500) || reply.has_code(502) {
        return Ok(());
    }
    Err(sign_in_obstacle(format!(
        "the relay does not take this machine: {}; have its operator let this machine in, or \
         check host, port and hello in [mail]",
        reply.to_line()
    )))
}

/// AUTH, and the answers to the relay's challenges. Returns the last reply.
async fn authenticate(
    connection: &mut SmtpConnection,
    mechanism: LettreMechanism,
    login: &Login,
) -> io::Result<SmtpReply> {
    let other = |error: lettre::transport::smtp::Error| io::Error::other(error.to_string());
    let auth = Auth::new(mechanism, login.clone(), None).map_err(other)?;
    let mut reply = connection.command(auth).await?;
    for _ in 0..limits::SMTP_CHALLENGES {
        if !reply.has_code(334) {
            break;
        }
        reply = if mechanism == LettreMechanism::Login {
            let next = Auth::new(mechanism, login.clone(), Some(challenge(&reply)?));
            connection.command(next.map_err(other)?).await?
        } else {
            // XOAUTH2 gives its reason in a challenge; the refusal follows an empty line.
            connection.command("\r\n").await?
        };
    }
    Ok(reply)
}

fn challenge(reply: &SmtpReply) -> io::Result<String> {
    let word = reply.lines().next().unwrap_or_default().trim();
    let text = STANDARD.decode(word).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| io::Error::other("the relay's question in the sign-in is no Base64"))
}

/// The parameters of MAIL. A mail has letters outside ASCII only if an address has them (RFC 6531);
/// everything else is encoded.
fn mail_parameters(
    mail: &Mail,
    capabilities: &Capabilities,
) -> Result<Vec<MailParameter>, Failure> {
    let addresses = [mail.from(), mail.to()];
    // Reply-To is only in the bytes.
    if mail.bytes().is_ascii() && addresses.iter().all(|address| address.is_ascii()) {
        return Ok(Vec::new());
    }
    if !capabilities.smtputf8 {
        return Err(not_for_this_relay(&format!("an address {NEEDS_UTF8}")));
    }
    Ok(smtputf8_parameters())
}

fn smtputf8_parameters() -> Vec<MailParameter> {
    let eight_bit = MailParameter::Body(MailBodyParameter::EightBitMime);
    vec![eight_bit, MailParameter::SmtpUtfEight]
}

/// Compares the size with the relay's limit (RFC 1870): a relay that closes the connection instead
/// of refusing would be tried again and again.
fn check_size(mail: &Mail, capabilities: &Capabilities) -> Result<(), Failure> {
    let bytes = mail.bytes().len();
    match capabilities.size {
        Some(max) if bytes as u64 > max => Err(not_for_this_relay(&format!(
            "it has {bytes} bytes and the relay takes {max}; have it take more, or shorten the \
             template"
        ))),
        _ => Ok(()),
    }
}

/// This relay cannot take this mail; the connection is unaffected.
fn not_for_this_relay(why: &str) -> Failure {
    Failure { effect: Effect::Refused(format!("not sent: {why}")), usable: true, stale: false }
}

impl Failure {
    /// Whether it concerns every mail, not just this connection.
    const fn bars_us(&self) -> bool {
        matches!(&self.effect, Effect::NoEffect(obstacle) if obstacle.bars_us())
    }
}

/// A connection that broke, or could not be made.
impl From<Obstacle> for Failure {
    fn from(obstacle: Obstacle) -> Self {
        Self { effect: obstacle.into(), usable: false, stale: false }
    }
}

fn temporary(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::Temporary, why)
}

fn lasting(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::Lasting, why)
}

fn sign_in_obstacle(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::SignIn, why)
}

fn unsettled(why: String) -> Failure {
    Failure { effect: Effect::Unsettled { why }, usable: false, stale: false }
}

/// No reply. With TLS 1.3 a refused client certificate is reported only here.
fn no_reply(error: &io::Error) -> Obstacle {
    let why = plain(&error.to_string());
    if let Some(inner) = error.get_ref()
        && inner.is::<WebServerAnswered>()
    {
        return Obstacle::new(ObstacleKind::Between, why);
    }
    match tls_error(error) {
        Some(tls) if rejects_client_certificate(tls) => {
            sign_in_obstacle(format!("{why}; check client_certificate in tapwave.toml"))
        }
        _ => temporary(why),
    }
}

fn unreachable(error: &NoRoute) -> Obstacle {
    Obstacle::new(error.kind(), error.to_string())
}

/// A refusal before the first mail concerns every mail.
fn into_obstacle(failure: Failure) -> Obstacle {
    match failure.effect {
        Effect::NoEffect(obstacle) => obstacle,
        Effect::Done(why) | Effect::Refused(why) | Effect::Unsettled { why } => lasting(why),
    }
}

/// Decided by the text, because 450 and 451 also stand for one mailbox that is full or unknown:
/// Postfix says "too much mail" and "too many connections", Exchange "Concurrent
/// connections limit exceeded" (432) and "message rate limit".
fn is_throttling(is_closing: bool, why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    let phrases = ["too many", "too much", "rate", "concurrent", "throttl", "quota exceeded"];
    is_closing || why.contains("432") || phrases.iter().any(|phrase| why.contains(phrase))
}

/// Reports to the limiter how the relay answered.
fn report(permit: Permit, failure: &Failure) {
    match &failure.effect {
        Effect::NoEffect(Obstacle { kind: ObstacleKind::Throttled, .. }) => {
            permit.answered(0, Some(Throttled { count: 1, retry_after: None }));
        }
        Effect::Refused(_) => permit.answered(1, None),
        _ if failure.usable => permit.answered(1, None),
        _ => permit.broken(),
    }
}

const fn mechanism(mechanism: Mechanism) -> LettreMechanism {
    match mechanism {
        Mechanism::Plain => LettreMechanism::Plain,
        Mechanism::Login => LettreMechanism::Login,
        Mechanism::Xoauth2 => LettreMechanism::Xoauth2,
    }
}
