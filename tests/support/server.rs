//! Promises the simulated tenant on a loopback port, over HTTP/1.1 and HTTP/2, in cleartext
//! or over TLS, with the faults that only a wire has: connections closed without an answer and answers cut in
//! the middle. Under `/control` whoever tests from outside can look and change things.
//!
//! A test that depends on an order holds answers at a known request, and moves the time that
//! the tenant and the program go by: it never hurries, and never waits for seconds to be over.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Method, Request, Response};
use tapwave_simulator::options::Call;
use tapwave_simulator::{Options, PassPolicy, Tenant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// How long the first half of a cut answer has to get out before the connection breaks.
const CUT_AFTER: Duration = Duration::from_millis(20);

type Body = BoxBody<Bytes, std::io::Error>;
type Answered = Result<hyper::Response<Body>, Closed>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the tenant closes the connection")]
pub(crate) struct Closed;

/// A tenant being served. Ends with the runtime it was started on.
#[derive(Clone)]
pub(crate) struct Served {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    state: Arc<Mutex<State>>,
    held: Arc<watch::Sender<Option<Hold>>>,
    /// Holds the file of the clock.
    folder: Arc<tempfile::TempDir>,
}

struct State {
    tenant: Tenant,
    token: String,
    /// The token is refused from then on.
    token_ends: Option<Timestamp>,
    /// How far the tenant's door is ahead of the machine's clock.
    ahead: SignedDuration,
    connections: u64,
    /// How much of the tenant's being ahead the program shares.
    passed: Duration,
}

impl Served {
    /// Opens a port, any free one when it is 0, and serves the tenant on it. Behind TLS, it is
    /// for whoever asks for `localhost`.
    pub(crate) async fn open(
        mut tenant: Tenant,
        port: u16,
        token: &str,
        tls: Option<Arc<ServerConfig>>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let tls = tls.map(TlsAcceptor::from);
        tenant.options_mut().base = base(address, tls.is_some());
        let state = State {
            tenant,
            token: token.into(),
            token_ends: None,
            ahead: SignedDuration::ZERO,
            connections: 0,
            passed: Duration::ZERO,
        };
        let served = Self {
            address,
            tls,
            state: Arc::new(Mutex::new(state)),
            held: Arc::new(watch::Sender::new(None)),
            folder: Arc::new(tempfile::tempdir()?),
        };
        tokio::spawn(served.clone().accept(listener));
        Ok(served)
    }

    /// The base that requests go to.
    pub(crate) fn url(&self) -> String {
        base(self.address, self.tls.is_some())
    }

    /// Looks at the tenant, or changes it, at this moment.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Tenant, Timestamp) -> T) -> T {
        let mut state = self.lock();
        let now = state.now();
        state.tenant.advance(now);
        look(&mut state.tenant, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.lock().connections += 1;
            tokio::spawn(self.clone().serve(stream));
        }
    }

    async fn serve(self, stream: TcpStream) {
        // Without this, small answers wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        match self.tls.clone() {
            None => self.converse(stream).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.converse(stream).await;
                }
            }
        }
    }

    async fn converse(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = hyper::service::service_fn(move |request| {
            let served = self.clone();
            async move { served.answer(request).await }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        // Errors here are the faults themselves, and clients that went away.
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> Answered {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        if let Some(path) = path.strip_prefix("/control/") {
            return Ok(self.lock().control(&head.method, path, &body));
        }
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !self.lock().admits(authorization) {
            let message = "Access token is missing, malformed or expired.";
            return Ok(error(401, "InvalidAuthenticationToken", message));
        }
        let Some(target) = path.strip_prefix("/v1.0") else {
            return Ok(error(404, "ResourceNotFound", "Invalid version"));
        };
        if !body.is_empty() && !header("content-type").is_some_and(is_json) {
            let message =
                "Unable to read JSON request payload. Please ensure Content-Type header is set.";
            return Ok(error(415, "UnsupportedMediaType", message));
        }
        // Counts are plain text, and whoever does not take that gets none (documented).
        let wants_text = |accept: &str| accept.contains("text/plain") || accept.contains("*/*");
        let counts = target.split('?').next().is_some_and(|path| path.ends_with("/$count"));
        if counts && !header("accept").is_some_and(wants_text) {
            return Ok(error(406, "NotAcceptable", "The specified 'Accept' is not supported."));
        }
        let Some(method) = method(&head.method) else {
            return Ok(error(405, "Request_BadRequest", "Specified HTTP method is not allowed."));
        };
        let nobody = ClientRequestId::new(uuid::Uuid::nil());
        let request = Request {
            method,
            target: target.to_owned(),
            eventual: header("consistencylevel")
                .is_some_and(|it| it.eq_ignore_ascii_case("eventual")),
            body: (!body.is_empty()).then(|| body.to_vec()),
            client_request_id: header("client-request-id")
                .and_then(|id| id.parse().ok())
                .unwrap_or(nobody),
        };
        self.exchange(&request).await
    }

    /// Half the round trip, the effect, the other half: both counted from the arrival, or the
    /// lateness of the first timer would make the trip longer.
    async fn exchange(&self, request: &Request) -> Answered {
        let arrived = Instant::now();
        let there = self.lock().tenant.way();
        wait_until(arrived + there).await;
        let (answer, holds) = {
            let mut state = self.lock();
            let now = state.now();
            let seen = Call::ALL.map(|call| state.tenant.seen(call));
            let answer = state.tenant.handle(now, request);
            let reached = Call::ALL.map(|call| state.tenant.seen(call));
            let holds = move |hold: &Hold| {
                let mut calls = Call::ALL.iter().zip(seen.iter().zip(&reached));
                calls.any(|(call, (seen, reached))| {
                    *call == hold.on && reached > seen && *reached >= hold.nth
                })
            };
            (answer, holds)
        };
        self.until_let_go(holds).await;
        wait_until(arrived + there + answer.after).await;
        match (answer.response, answer.cut) {
            (Ok(response), _) => Ok(sent(response, whole)),
            (Err(_), Some(cut)) => Ok(sent(cut, half)),
            (Err(_), None) => Err(Closed),
        }
    }
}

impl Served {
    /// Holds the answers to the `nth` request of a kind, counted from 1, and to all of that kind
    /// that follow: they have their effect, and nobody hears of it until [`Served::let_go`].
    pub(crate) fn hold(&self, call: Call, nth: u64) {
        self.held.send_replace(Some(Hold { on: call, nth, holding: Arc::default() }));
    }

    /// Gives every held answer, and holds none any more.
    pub(crate) fn let_go(&self) {
        self.held.send_replace(None);
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its side of TLS, for others who are to be trusted as it is.
    pub(crate) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    /// Connections that were ever made.
    pub(crate) fn connections(&self) -> u64 {
        self.lock().connections
    }

    /// How many answers are held now. One of an earlier hold does not count, also when it was let
    /// go so lately that it is still on its way.
    pub(crate) fn holding(&self) -> usize {
        self.held.borrow().as_ref().map_or(0, |hold| hold.holding.load(Ordering::SeqCst))
    }

    /// The file of the clock that the tenant goes by, for the program's `TAPWAVE_TEST_CLOCK`.
    pub(crate) fn clock(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// Lets so much time pass, for the tenant and for every program that goes by its clock.
    pub(crate) fn pass(&self, time: Duration) {
        let mut state = self.lock();
        state.passed += time;
        let time = SignedDuration::try_from(time).expect("a bearable time");
        state.ahead = state.ahead.saturating_add(time);
        let now = state.now();
        state.tenant.advance(now);
        let passed = state.passed.as_millis().to_string();
        std::fs::write(self.clock(), passed).expect("the clock is moved");
    }
}

impl Served {
    async fn until_let_go(&self, holds: impl Fn(&Hold) -> bool) {
        let mut held = self.held.subscribe();
        loop {
            let counted =
                held.borrow_and_update().as_ref().filter(|hold| holds(hold)).map(Held::by);
            // The sender lives as long as this.
            if counted.is_none() || held.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whose answers are held: those to the n-th request of a kind and all that follow it.
struct Hold {
    on: Call,
    nth: u64,
    holding: Arc<AtomicUsize>,
}

/// Counts an answer that is held, until it is given or its asker has gone.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn by(hold: &Hold) -> Self {
        hold.holding.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&hold.holding))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn now(&self) -> Timestamp {
        Timestamp::now().saturating_add(self.ahead).unwrap_or(Timestamp::MAX)
    }

    fn admits(&self, authorization: Option<&str>) -> bool {
        let fresh = self.token_ends.is_none_or(|end| self.now() < end);
        fresh && authorization.and_then(|it| it.strip_prefix("Bearer ")) == Some(&self.token)
    }

    /// What testers may ask and do; all of it is JSON.
    fn control(
        &mut self,
        method: &hyper::Method,
        path: &str,
        body: &[u8],
    ) -> hyper::Response<Body> {
        let now = self.now();
        self.tenant.advance(now);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let wish = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
        let done = match (method.as_str(), path, wish) {
            (_, _, Err(error)) => Err(error.to_string()),
            ("GET", "log", _) => Ok(json!(self.tenant.log())),
            ("GET", "mails", _) => Ok(json!(self.tenant.mails())),
            ("GET", "options", _) => Ok(json!(self.tenant.options())),
            ("GET", "tally", _) => Ok(self.tally()),
            ("GET", "passes", _) => Ok(self
                .tenant
                .passes()
                .map(|(user, upn, pass)| json!({"user": user, "upn": upn, "pass": pass}))
                .collect()),
            ("POST", "break", Ok(wish)) => self.change(&wish),
            ("POST", act, Ok(mut wish)) => {
                for pair in query.split('&').filter_map(|pair| pair.split_once('=')) {
                    let value = percent_encoding::percent_decode_str(pair.1).decode_utf8_lossy();
                    wish[pair.0] = json!(value);
                }
                self.act(now, act, &wish)
            }
            _ => Err("there is no such control".into()),
        };
        match done {
            Ok(value) => plain(200, &value),
            Err(message) => plain(400, &json!({"error": message})),
        }
    }

    fn tally(&self) -> Value {
        let mut tally = json!(self.tenant.tally());
        tally["connections"] = json!(self.connections);
        for call in Call::ALL {
            tally[json!(call).as_str().unwrap_or_default()] = json!(self.tenant.seen(call));
        }
        tally
    }

    /// Changes options, policy and token: what is left out stays.
    fn change(&mut self, wish: &Value) -> Result<Value, String> {
        let mut options = json!(self.tenant.options());
        let mut policy = json!(self.tenant.policy_mut());
        merge(&mut options, wish.get("options"));
        merge(&mut policy, wish.get("policy"));
        let options: Options =
            serde_json::from_value(options).map_err(|error| error.to_string())?;
        let policy: PassPolicy =
            serde_json::from_value(policy).map_err(|error| error.to_string())?;
        let shown = json!({"options": options, "policy": policy});
        *self.tenant.options_mut() = options;
        *self.tenant.policy_mut() = policy;
        if let Some(token) = wish["token"].as_str() {
            token.clone_into(&mut self.token);
            self.token_ends = None;
        }
        if let Some(seconds) = wish["tokenEndsAfterSeconds"].as_i64() {
            self.token_ends = self.now().saturating_add(SignedDuration::from_secs(seconds)).ok();
        }
        Ok(shown)
    }

    fn act(&mut self, now: Timestamp, act: &str, wish: &Value) -> Result<Value, String> {
        let upn = wish["upn"].as_str().unwrap_or_default();
        match act {
            "advance" => {
                let seconds = &wish["seconds"];
                let number =
                    seconds.as_str().and_then(|text| text.parse().ok()).or(seconds.as_i64());
                let seconds = number.ok_or("advance needs seconds")?;
                self.ahead = self.ahead.saturating_add(SignedDuration::from_secs(seconds));
                let now = self.now();
                self.tenant.advance(now);
                Ok(json!({"now": now}))
            }
            "use" => match self.tenant.use_pass(now, upn) {
                Ok(()) => Ok(json!({"used": upn})),
                Err(unusable) => Err(unusable.to_string()),
            },
            "issue" => match self.tenant.issue_elsewhere(now, upn) {
                Some(method) => Ok(json!({"method": method})),
                None => Err("there is no such user".into()),
            },
            "dismiss" if self.tenant.dismiss(now, upn) => Ok(json!({"dismissed": upn})),
            "dismiss" => Err("there is no such user".into()),
            _ => Err("there is no such control".into()),
        }
    }
}

/// Puts the new value's parts in place of the old one's. An object of one key is a choice
/// with its settings: it is replaced as a whole.
fn merge(old: &mut Value, new: Option<&Value>) {
    match (old, new) {
        (_, None) => {}
        (Value::Object(old), Some(Value::Object(new))) if old.len() > 1 => {
            for (name, value) in new {
                merge(old.entry(name.as_str()).or_insert(Value::Null), Some(value));
            }
        }
        (old, Some(new)) => *old = new.clone(),
    }
}

fn base(address: SocketAddr, tls: bool) -> String {
    if tls {
        format!("https://localhost:{}/v1.0", address.port())
    } else {
        format!("http://{address}/v1.0")
    }
}

async fn wait_until(moment: Instant) {
    if moment > Instant::now() {
        tokio::time::sleep_until(moment).await;
    }
}

fn is_json(kind: &str) -> bool {
    kind.trim_start().starts_with("application/json")
}

fn method(method: &hyper::Method) -> Option<Method> {
    Some(match method.as_str() {
        "GET" => Method::Get,
        "POST" => Method::Post,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => return None,
    })
}

fn sent(response: Response, body: fn(&Bytes) -> Body) -> hyper::Response<Body> {
    let bytes = Bytes::copy_from_slice(&response.body);
    let mut head = hyper::Response::builder().status(response.status);
    if !bytes.is_empty() {
        let json = matches!(bytes[0], b'{' | b'[');
        let kind = if json { "application/json;odata.metadata=minimal" } else { "text/plain" };
        head = head.header(CONTENT_TYPE, kind).header(CONTENT_LENGTH, bytes.len());
    }
    if let Some(retry_after) = response.retry_after {
        head = head.header(RETRY_AFTER, retry_after);
    }
    if let Some(date) = response.date {
        head = head.header(DATE, httpdate::fmt_http_date(date.into()));
    }
    if let Some(id) = response.request_id {
        head = head.header("request-id", id);
    }
    if let Some(load) = response.load {
        head = head.header("x-ms-throttle-limit-percentage", format!("{load:.2}"));
    }
    head.body(body(&bytes)).expect("the tenant's headers are valid")
}

fn whole(bytes: &Bytes) -> Body {
    Full::new(bytes.clone()).map_err(|never: Infallible| match never {}).boxed()
}

/// The first half of a body whose whole length was promised, and then the connection's end.
fn half(bytes: &Bytes) -> Body {
    let first = Frame::data(bytes.slice(..bytes.len() / 2));
    let end = async {
        tokio::time::sleep(CUT_AFTER).await;
        Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted))
    };
    BodyExt::boxed(StreamBody::new(stream::iter([Ok(first)]).chain(stream::once(end))))
}

fn plain(status: u16, value: &Value) -> hyper::Response<Body> {
    let bytes = Bytes::from(value.to_string());
    let head = hyper::Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    head.body(whole(&bytes)).expect("the headers are valid")
}

fn error(status: u16, code: &str, message: &str) -> hyper::Response<Body> {
    plain(status, &json!({"error": {"code": code, "message": message}}))
}
