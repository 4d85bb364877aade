//! Promises that the moment of the final dot is known exactly: what fails before it was not
//! sent, what stays unanswered after it is unsettled. Must never fall back to a line without
//! TLS, have more connections than allowed, or send a mail twice.
//!
//! Every answer is taken for the code that its command must bring (235, 354, …) and not for
//! any success.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
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
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::connection::{SmtpConnection, Web};
use super::reply::{Capabilities, ReplyClass, SmtpReply};
use super::route::{NoRoute, Route, RouteConnection, turns_us_away};
use super::secret::Credentials;
use super::settings::{MailPlan, Mechanism, Relay, RelaySignIn, Tls};
use super::{NEEDS_UTF8, Ready, Scripts, SendPermit};
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
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer to a command, and for the relay to take the text.
    pub answer: Duration,
    /// For the answer to the final dot.
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

/// A courier that sends through a relay.
pub struct Smtp {
    relay: Relay,
    from: String,
    route: Route,
    credentials: Option<Arc<dyn Credentials>>,
    waits: Timeouts,
    clock: Clock,
    pace: Limiter,
    room: Semaphore,
    idle: Mutex<Vec<IdleConnection>>,
}

/// A connection that is signed in.
pub(super) struct IdleConnection {
    line: SmtpConnection,
    /// What the relay said that it can do.
    can: Capabilities,
    mails: u32,
    since: Instant,
    /// It has waited for a mail, so the relay may have ended it meanwhile.
    waited: bool,
    /// A mail was refused over it: RSET comes before the next one.
    begun: bool,
}

/// What went wrong at one step, and what that means.
struct StepFault {
    effect: Effect<String>,
    /// The connection can be used again after RSET.
    usable: bool,
    /// The other side had closed the connection before it took anything of this mail.
    stale: bool,
}

impl Smtp {
    /// A courier for the plan's relay. `credentials` are asked at each new connection;
    /// `network` leads there. Connects to nothing yet.
    pub fn new(
        plan: &MailPlan,
        credentials: Option<Arc<dyn Credentials>>,
        network: &Network,
        waits: Timeouts,
        clock: Clock,
    ) -> Result<Self, SmtpSetupError> {
        let relay = plan.relay.clone().ok_or(SmtpSetupError::NoRelay)?;
        let options = LimiterOptions {
            max_in_flight: plan.max_connections,
            max_rate: Some(f64::from(plan.max_per_minute) / 60.0),
        };
        Ok(Self {
            route: Route::new(&relay, network)?,
            pace: Limiter::new(options, clock.clone()),
            room: Semaphore::new(plan.max_connections),
            idle: Mutex::new(Vec::new()),
            from: plan.from.address().to_owned(),
            relay,
            credentials,
            waits,
            clock,
        })
    }

    /// The limiter, to show how mail stands and to forecast.
    #[must_use]
    pub fn pace(&self) -> &Limiter {
        &self.pace
    }

    /// Waits until a connection is free and the rate lets one mail go.
    ///
    /// # Errors
    /// [`NotAdmitted`], for longer than anybody waits.
    pub(super) async fn admit(&self) -> Result<SendPermit<'_>, NotAdmitted> {
        // Never closed, so there is always a place in the end.
        let place = self.room.acquire().await.ok();
        Ok(SendPermit { permit: self.pace.admit(Budget::Mail, 1).await?, place })
    }

    /// A connection that stands, for one mail.
    pub(super) async fn ready<'a>(&self, leave: SendPermit<'a>) -> Result<Ready<'a>, Obstacle> {
        match self.connection().await {
            Ok(kept) => Ok(Ready { leave, over: Some(Box::new(kept)) }),
            Err(obstacle) => {
                tell(leave.permit, &obstacle.clone().into());
                Err(obstacle)
            }
        }
    }

    /// The same connection, if the relay has not ended it, else another.
    pub(super) async fn refresh<'a>(&self, ready: Ready<'a>) -> Result<Ready<'a>, Obstacle> {
        // Whoever was busy meanwhile has not looked at the line.
        tokio::task::yield_now().await;
        let Ready { leave, mut over } = ready;
        if over.as_mut().is_some_and(|kept| kept.line.is_quiet().is_ok()) {
            return Ok(Ready { leave, over });
        }
        self.ready(leave).await
    }

    /// Sends one mail once.
    pub(super) async fn send(&self, mail: &Mail, ready: Ready<'_>) -> Effect<String> {
        let Ready { leave: SendPermit { permit, place }, over } = ready;
        let _place: Option<SemaphorePermit<'_>> = place;
        let (Ok(from), Ok(to)) = (mail.from().parse(), mail.to().parse()) else {
            return Effect::Refused("an address is malformed".to_owned());
        };
        match self.deliver(mail, &from, &to, over.map(|kept| *kept)).await {
            Ok(receipt) => {
                permit.answered(1, None, None);
                Effect::Done(receipt)
            }
            Err(fault) => {
                tell(permit, &fault);
                fault.effect
            }
        }
    }

    /// Connects, signs in, begins a mail as the sender and takes it back. Keeps the connection
    /// for the first mail.
    ///
    /// # Errors
    /// Why no mail could be sent.
    pub async fn try_out(&self) -> Result<Scripts, Obstacle> {
        let mut kept = self.connect().await?;
        let scripts = if kept.can.smtputf8 { Scripts::Any } else { Scripts::Ascii };
        let tried = self.try_sender(&mut kept).await;
        if tried.as_ref().err().is_none_or(|fault| fault.usable) {
            self.keep(kept);
        }
        match tried {
            // A relay that is busy now is not so for ever.
            Err(fault) if fault.usable && !fault.bars_us() => Ok(scripts),
            Err(fault) => Err(of_the_line(fault)),
            Ok(()) => Ok(scripts),
        }
    }

    async fn try_sender(&self, kept: &mut IdleConnection) -> Result<(), StepFault> {
        let Ok(from) = self.from.parse::<Address>() else { return Ok(()) };
        let parameters = match (self.from.is_ascii(), kept.can.smtputf8) {
            (true, _) => Vec::new(),
            (false, true) => for_other_letters(),
            // The check says so itself.
            (false, false) => return Ok(()),
        };
        self.begin(&mut kept.line, from, parameters).await?;
        self.command(&mut kept.line, Rset, 250).await.map(drop)
    }

    /// MAIL. No reader was named yet, so a definite no is the sender's, or speaks of the mail's
    /// size and kind.
    async fn begin(
        &self,
        line: &mut SmtpConnection,
        from: Address,
        parameters: Vec<MailParameter>,
    ) -> Result<(), StepFault> {
        let mail_from = MailFrom::new(Some(from), parameters);
        match timeout(self.waits.answer, line.ask(mail_from)).await {
            Ok(Ok(answer))
                if answer.class() == ReplyClass::Permanent && !answer.is_of_the_mail() =>
            {
                Err(self.of_the_sender(&answer))
            }
            Ok(Ok(answer)) => self.expect(answer, 250).map(drop),
            Ok(Err(error)) => Err(silent(&error).into()),
            Err(_) => Err(passing("no answer in time from the relay").into()),
        }
    }

    /// Takes leave of the relay, for at most [`limits::SMTP_QUIT`]. Mails that are on their way
    /// are not waited for.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.idle());
        part(all).await;
    }

    /// Over this connection, or over another one if it ended while nobody looked.
    async fn deliver(
        &self,
        mail: &Mail,
        from: &Address,
        to: &Address,
        mut over: Option<IdleConnection>,
    ) -> Result<String, StepFault> {
        loop {
            let kept = match over.take() {
                Some(kept) => kept,
                None => self.connection().await?,
            };
            let waited = kept.waited;
            match self.over(kept, mail, from, to).await {
                // Certainly not sent, and only because that connection had ended.
                Err(fault) if fault.stale && waited => {}
                other => return other,
            }
        }
    }

    /// A connection that stands: one that was kept, else a new one.
    async fn connection(&self) -> Result<IdleConnection, Obstacle> {
        while let Some(mut kept) = self.kept() {
            if self.is_worn(&kept) {
                // One at a time, so that there are never more than there are places.
                part(vec![kept]).await;
                continue;
            }
            if kept.begun && self.command(&mut kept.line, Rset, 250).await.is_err() {
                continue;
            }
            kept.begun = false;
            if kept.line.is_quiet().is_ok() {
                return Ok(kept);
            }
        }
        self.connect().await
    }

    /// Sends one mail, and keeps the connection if it can be used again. Nothing is awaited once
    /// the mail's fate is known: that is to be written down first.
    async fn over(
        &self,
        mut kept: IdleConnection,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, StepFault> {
        kept.mails += 1;
        let outcome = self.hand_over(&mut kept, mail, from, to).await;
        let refused = outcome.as_ref().err();
        if refused.is_none_or(|fault| fault.usable) {
            kept.begun = refused.is_some();
            self.keep(kept);
        }
        outcome
    }

    /// MAIL, RCPT, DATA, text, dot.
    async fn hand_over(
        &self,
        kept: &mut IdleConnection,
        mail: &Mail,
        from: &Address,
        to: &Address,
    ) -> Result<String, StepFault> {
        let parameters = parameters(mail, &kept.can)?;
        fits(mail, &kept.can)?;
        let line = &mut kept.line;
        let begun = self.begin(line, from.clone(), parameters).await;
        begun.map_err(|fault| StepFault { stale: !fault.usable, ..fault })?;
        self.command(line, Rcpt::new(to.clone(), Vec::new()), 25).await?;
        self.command(line, Data, 354).await?;
        match timeout(self.waits.answer, line.text(mail.bytes())).await {
            Ok(Ok(())) => self.undisturbed(line).await?,
            Ok(Err(error)) => return Err(silent(&error).into()),
            Err(_) => return Err(passing("the relay did not take the mail in time").into()),
        }
        let ended = async {
            line.dot().await?;
            line.hear().await
        };
        match timeout(self.waits.last_answer, ended).await {
            Ok(Ok(answer)) if answer.has_code(250) => Ok(answer.told()),
            Ok(Ok(answer)) if answer.is_refusal() => Err(self.refused(&answer)),
            Ok(Ok(answer)) => Err(lost(format!("the relay answered {}", answer.told()))),
            Ok(Err(error)) => Err(lost(plain(&error.to_string()))),
            Err(_) => Err(lost("no answer in time to the end of the mail".to_owned())),
        }
    }

    /// Makes sure that the relay has not answered before the final dot: what lies there would be
    /// taken for the answer to it. Left without its dot, the mail was not sent.
    async fn undisturbed(&self, line: &mut SmtpConnection) -> Result<(), StepFault> {
        let Err(disturbed) = line.is_quiet() else { return Ok(()) };
        match timeout(self.waits.answer, line.hear()).await {
            Ok(Ok(answer)) if answer.is_refusal() => {
                Err(StepFault { usable: false, ..self.refused(&answer) })
            }
            _ => Err(silent(&disturbed).into()),
        }
    }

    async fn connect(&self) -> Result<IdleConnection, Obstacle> {
        let Ok(opened) = timeout(self.waits.connect, self.open()).await else {
            let why = "no connection to the relay in time";
            return Err(Obstacle::new(ObstacleKind::Unreachable, why));
        };
        let (mut line, can) = opened?;
        if let Some(sign_in) = &self.relay.sign_in {
            self.sign_in(&mut line, &can, sign_in).await?;
        }
        let since = self.clock.instant();
        Ok(IdleConnection { line, can, mails: 0, since, waited: false, begun: false })
    }

    /// Connects, and protects the line as the settings demand.
    async fn open(&self) -> Result<(SmtpConnection, Capabilities), Obstacle> {
        let reached = self.route.connect().await.map_err(|error| no_route(&error))?;
        let hello = Ehlo::new(self.hello(reached.own));
        let mut wire = reached.wire;
        if self.relay.tls == Tls::Implicit {
            wire = self.protect(wire).await?;
        }
        let mut line = SmtpConnection::new(wire);
        let greeting = line.hear().await.map_err(|error| silent(&error))?;
        welcome(&greeting)?;
        self.expect(greeting, 220).map_err(of_the_line)?;
        let can = self.greet(&mut line, &hello).await?;
        if self.relay.tls != Tls::Starttls {
            return Ok((line, can));
        }
        if !can.starttls {
            let why = "the relay does not offer STARTTLS, so somebody could read along; use \
                       a relay or a port that does, or tls = \"implicit\"";
            return Err(lasting(why));
        }
        self.command(&mut line, Starttls, 220).await.map_err(of_the_line)?;
        let Some(wire) = line.into_wire() else {
            let why = "something came behind the relay's answer to STARTTLS, before TLS began: \
                       somebody may be writing into the line";
            return Err(lasting(why));
        };
        let mut line = SmtpConnection::new(self.protect(wire).await?);
        // What was offered in the clear may have been anybody's offer.
        let can = self.greet(&mut line, &hello).await?;
        Ok((line, can))
    }

    async fn protect(&self, wire: RouteConnection) -> Result<RouteConnection, Obstacle> {
        self.route.protect(wire).await.map_err(|error| no_route(&error))
    }

    async fn greet(
        &self,
        line: &mut SmtpConnection,
        hello: &Ehlo,
    ) -> Result<Capabilities, Obstacle> {
        let answer = match timeout(self.waits.answer, line.ask(hello)).await {
            Ok(answer) => answer.map_err(|error| silent(&error))?,
            Err(_) => return Err(passing("no answer in time from the relay")),
        };
        welcome(&answer)?;
        let answer = self.expect(answer, 250).map_err(of_the_line)?;
        Ok(Capabilities::of(&answer))
    }

    /// How to introduce this machine: as the settings say, else by the address of its end of
    /// the connection (RFC 5321, 4.1.4). Relays turn away bare host names, and some turn away
    /// a loopback address that comes from elsewhere.
    fn hello(&self, own: IpAddr) -> ClientId {
        match (&self.relay.hello, own) {
            (Some(name), _) => ClientId::Domain(name.clone()),
            (None, IpAddr::V4(own)) => ClientId::Ipv4(own),
            (None, IpAddr::V6(own)) => ClientId::Ipv6(own),
        }
    }

    async fn sign_in(
        &self,
        line: &mut SmtpConnection,
        can: &Capabilities,
        sign_in: &RelaySignIn,
    ) -> Result<(), Obstacle> {
        let credentials = self.credentials.as_ref();
        let credentials = credentials.ok_or_else(|| denied("no password was given"))?;
        let secret = credentials.secret().await.map_err(|why| denied(why.to_string()))?;
        let Some(mechanism) = can.mechanism(&sign_in.mechanisms).map(mechanism) else {
            let why = "the relay does not offer the way to sign in that auth in tapwave.toml \
                       names; ask its operator which one it has";
            return Err(lasting(why));
        };
        let login = Login::new(sign_in.username.clone(), secret.expose_secret().to_owned());
        let answering = sign_in_over(line, mechanism, &login);
        let answer = match timeout(self.waits.answer, answering).await {
            Ok(answer) => answer.map_err(|error| silent(&error))?,
            Err(_) => return Err(passing("no answer in time to the sign-in")),
        };
        if answer.has_code(235) {
            return Ok(());
        }
        if answer.class() == ReplyClass::Transient {
            return Err(of_the_line(self.refused(&answer)));
        }
        let remedy = if answer.turns_off_sign_in() {
            "the password may be right: SMTP AUTH is switched off for this mailbox or for the \
             whole tenant; have it switched on (Exchange admin center, the mailbox, Manage email \
             apps, Authenticated SMTP), set auth = \"xoauth2\" if only passwords are off, or \
             mail with courier = \"graph\""
        } else {
            "check username and password"
        };
        let (user, told) = (plain(&sign_in.username), answer.told());
        Err(denied(format!("the relay refused the sign-in of {user}: {told}; {remedy}")))
    }

    /// The relay does not take mails of our sender, whoever reads them.
    fn of_the_sender(&self, answer: &SmtpReply) -> StepFault {
        let (from, told) = (plain(&self.from), answer.told());
        let signed_in = self.relay.sign_in.as_ref().map(|sign_in| plain(&sign_in.username));
        let remedy = match (signed_in, answer.is_of_the_quota()) {
            (_, true) => "wait until its quota is free again, or set another from in [mail]".into(),
            (Some(user), false) => format!(
                "let {user} send as it (in Exchange: the permission Send As), or set from in \
                 [mail] to an address of its own"
            ),
            (None, false) => "set from in [mail] to an address that the relay takes from this \
                              machine, or sign in with username and a password"
                .into(),
        };
        let obstacle = if answer.has_code(530) {
            denied(format!(
                "the relay lets nobody send who has not signed in: {told}; check tls, username and \
                 the password in [mail]"
            ))
        } else {
            let why = format!("the relay takes no mail from {from}: {told}; {remedy}");
            Obstacle::new(ObstacleKind::Sender, why)
        };
        StepFault { effect: obstacle.into(), usable: true, stale: false }
    }

    /// The relay said no to a mail, in so many digits.
    fn refused(&self, answer: &SmtpReply) -> StepFault {
        if answer.is_of_the_sender() {
            return self.of_the_sender(answer);
        }
        let why = answer.told();
        let closing = answer.has_code(421);
        let effect = if answer.class() != ReplyClass::Transient {
            Effect::Refused(why)
        } else if asks_for_less(closing, &why) {
            Obstacle::new(ObstacleKind::Throttled, why).into()
        } else {
            passing(why).into()
        };
        StepFault { effect, usable: !closing, stale: false }
    }

    /// An answer that must have this code, or begin with these digits.
    fn expect(&self, answer: SmtpReply, code: u16) -> Result<SmtpReply, StepFault> {
        if answer.begins_with(code) {
            return Ok(answer);
        }
        if answer.is_refusal() {
            return Err(self.refused(&answer));
        }
        Err(passing(format!("the relay answered out of turn: {}", answer.told())).into())
    }

    /// One command. `code` is the answer it must bring, or the digits that begin it.
    async fn command(
        &self,
        line: &mut SmtpConnection,
        command: impl std::fmt::Display,
        code: u16,
    ) -> Result<SmtpReply, StepFault> {
        match timeout(self.waits.answer, line.ask(command)).await {
            Ok(Ok(answer)) => self.expect(answer, code),
            Ok(Err(error)) => Err(silent(&error).into()),
            Err(_) => Err(passing("no answer in time from the relay").into()),
        }
    }

    /// Keeps a connection for the next mail.
    pub(super) fn keep(&self, mut kept: IdleConnection) {
        kept.since = self.clock.instant();
        kept.waited = true;
        self.idle().push(kept);
    }

    /// One that is to be ended, else the one that was used last.
    fn kept(&self) -> Option<IdleConnection> {
        let mut idle = self.idle();
        match idle.iter().position(|kept| self.is_worn(kept)) {
            Some(place) => Some(idle.remove(place)),
            None => idle.pop(),
        }
    }

    /// Whether it has carried its mails, or nobody has needed it for so long that the relay may
    /// be about to end it.
    fn is_worn(&self, kept: &IdleConnection) -> bool {
        let idle = self.clock.instant().saturating_duration_since(kept.since);
        kept.mails >= limits::MAILS_PER_CONNECTION || idle >= limits::SMTP_IDLE
    }

    /// A list of connections is whole after each of its steps, whoever panicked.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// QUIT on all of these. Only a courtesy; nothing depends on the answers.
async fn part(mut from: Vec<IdleConnection>) {
    let leaving = join_all(from.iter_mut().map(|kept| kept.line.ask(Quit)));
    let _ = timeout(limits::SMTP_QUIT, leaving).await;
}

/// Makes sure that a relay does not turn this machine away before it has heard of any mail: by its
/// first words, or by those to EHLO. One that does not know that command (500, 502) has nothing
/// against us.
fn welcome(answer: &SmtpReply) -> Result<(), Obstacle> {
    if answer.class() != ReplyClass::Permanent || answer.has_code(500) || answer.has_code(502) {
        return Ok(());
    }
    Err(denied(format!(
        "the relay does not take this machine: {}; have its operator let this machine in, or \
         check host, port and hello in [mail]",
        answer.told()
    )))
}

/// AUTH, and whatever the relay asks then. The last answer.
async fn sign_in_over(
    line: &mut SmtpConnection,
    mechanism: LettreMechanism,
    login: &Login,
) -> io::Result<SmtpReply> {
    let unfit = |error: lettre::transport::smtp::Error| io::Error::other(error.to_string());
    let mut answer = line.ask(Auth::new(mechanism, login.clone(), None).map_err(unfit)?).await?;
    for _ in 0..limits::SMTP_CHALLENGES {
        if !answer.has_code(334) {
            break;
        }
        answer = if mechanism == LettreMechanism::Login {
            let next = Auth::new(mechanism, login.clone(), Some(challenge(&answer)?));
            line.ask(next.map_err(unfit)?).await?
        } else {
            // XOAUTH2 tells in a challenge why it says no; its refusal follows an empty line.
            line.ask("\r\n").await?
        };
    }
    Ok(answer)
}

/// What the relay asks for.
fn challenge(answer: &SmtpReply) -> io::Result<String> {
    let word = answer.lines().next().unwrap_or_default().trim();
    let asked = STANDARD.decode(word).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    asked.ok_or_else(|| io::Error::other("the relay's question in the sign-in is no Base64"))
}

/// What MAIL has to say of this mail. Letters outside ASCII stand in a mail only where an
/// address has them (RFC 6531); everything else is encoded.
fn parameters(mail: &Mail, can: &Capabilities) -> Result<Vec<MailParameter>, StepFault> {
    let addresses = [mail.from(), mail.to()];
    // Reply-To stands among the bytes alone.
    if mail.bytes().is_ascii() && addresses.iter().all(|address| address.is_ascii()) {
        return Ok(Vec::new());
    }
    if !can.smtputf8 {
        return Err(not_for_this_relay(&format!("an address {NEEDS_UTF8}")));
    }
    Ok(for_other_letters())
}

fn for_other_letters() -> Vec<MailParameter> {
    let eight = MailParameter::Body(MailBodyParameter::EightBitMime);
    vec![eight, MailParameter::SmtpUtfEight]
}

/// Whether the relay takes mails of this size (RFC 1870). One that closes the line over it would
/// be tried again and again.
fn fits(mail: &Mail, can: &Capabilities) -> Result<(), StepFault> {
    let bytes = mail.bytes().len();
    match can.size {
        Some(most) if bytes as u64 > most => Err(not_for_this_relay(&format!(
            "it has {bytes} bytes and the relay takes {most}; have it take more, or shorten the \
             template"
        ))),
        _ => Ok(()),
    }
}

/// This mail cannot go through this relay; the line is as it was.
fn not_for_this_relay(why: &str) -> StepFault {
    StepFault { effect: Effect::Refused(format!("not sent: {why}")), usable: true, stale: false }
}

impl StepFault {
    /// Whether it is the end of mailing, and not of this line.
    const fn bars_us(&self) -> bool {
        matches!(&self.effect, Effect::NoEffect(obstacle) if obstacle.bars_us())
    }
}

/// The line broke, or was never there.
impl From<Obstacle> for StepFault {
    fn from(obstacle: Obstacle) -> Self {
        Self { effect: obstacle.into(), usable: false, stale: false }
    }
}

/// The same may work later.
fn passing(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::Temporary, why)
}

/// Somebody has to mend something that concerns every mail.
fn lasting(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::Lasting, why)
}

/// Somebody was not let in, or not believed.
fn denied(why: impl Into<String>) -> Obstacle {
    Obstacle::new(ObstacleKind::SignIn, why)
}

fn lost(why: String) -> StepFault {
    StepFault { effect: Effect::Unsettled { why }, usable: false, stale: false }
}

/// No answer. In TLS 1.3 the word about a client's certificate comes this late.
fn silent(error: &io::Error) -> Obstacle {
    let why = plain(&error.to_string());
    if let Some(inner) = error.get_ref()
        && inner.is::<Web>()
    {
        return Obstacle::new(ObstacleKind::Between, why);
    }
    match tls_error(error) {
        Some(tls) if turns_us_away(tls) => {
            denied(format!("{why}; check client_certificate in tapwave.toml"))
        }
        _ => passing(why),
    }
}

/// No line at all.
fn no_route(error: &NoRoute) -> Obstacle {
    Obstacle::new(error.kind(), error.to_string())
}

/// A refusal before the first mail concerns the line, thus every mail.
fn of_the_line(fault: StepFault) -> Obstacle {
    match fault.effect {
        Effect::NoEffect(obstacle) => obstacle,
        Effect::Done(why) | Effect::Refused(why) | Effect::Unsettled { why } => lasting(why),
    }
}

/// Told apart by words, because 450 and 451 also stand for one full or unknown mailbox:
/// Postfix says "too much mail" and "too many connections", Exchange "Concurrent
/// connections limit exceeded" (432) and "message rate limit".
fn asks_for_less(closing: bool, why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    let says = ["too many", "too much", "rate", "concurrent", "throttl", "quota exceeded"];
    closing || why.contains("432") || says.iter().any(|word| why.contains(word))
}

fn tell(permit: Permit, fault: &StepFault) {
    match &fault.effect {
        Effect::NoEffect(Obstacle { kind: ObstacleKind::Throttled, .. }) => {
            permit.answered(0, Some(Throttled { count: 1, retry_after: None }), None);
        }
        Effect::Refused(_) => permit.answered(1, None, None),
        _ if fault.usable => permit.answered(1, None, None),
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
