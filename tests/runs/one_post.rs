//! Promises that a POST goes over the wire once per intent, whatever the HTTP library would
//! like to repeat by itself.

use std::fs;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tapwave_core::ids::ClientRequestId;
use tapwave_graph::transport::{Method, Request};
use tapwave_simulator::Tenant;
use tapwave_simulator::options::{Call, Fault, Faults};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

use crate::support::site::{Site, Told};

const PASSES: &str = "/authentication/temporaryAccessPassMethods";

/// What happens to the first POST of a pass.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// The stream is reset with a code that says "not processed, try again".
    RefusedStream,
    /// The server goes away in peace, in the middle of the exchange.
    GoAway,
    /// The same, and it says that it has processed nothing at all.
    GoAwayUnprocessed,
}

/// A tenant behind HTTP/2 and TLS, and the order of what it was asked.
#[derive(Clone)]
struct Stubborn {
    tenant: Arc<Mutex<Tenant>>,
    asked: Arc<Mutex<Vec<String>>>,
    refusal: Refusal,
}

#[test]
fn a_refused_stream_and_a_server_that_goes_away_are_not_answered_by_a_second_post() {
    for refusal in [Refusal::RefusedStream, Refusal::GoAway, Refusal::GoAwayUnprocessed] {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let site = Site::open(1);
        let (stubborn, url) = runtime.block_on(serve(&site, refusal));
        let args =
            site.run_args(&["--settle-after", "100ms", "--graph-url", &url, "--ca-file", "ca.pem"]);
        Told::of(site.tapwave(&args).output().expect("started")).exits(0);
        let asked = stubborn.asked.lock().expect("unpoisoned");
        let posts: Vec<usize> =
            (0..asked.len()).filter(|at| asked[*at].ends_with(PASSES)).collect();
        let [first, second] = posts[..] else { panic!("{refusal:?}: {asked:#?}") };
        let between = &asked[first + 1..second];
        assert!(
            between.iter().any(|path| path.ends_with("$batch")),
            "{refusal:?}: nobody looked between the two: {asked:#?}"
        );
    }
}

/// The same server would be asked again by the library's own rules, or this file proves nothing.
#[test]
fn control_a_client_with_the_usual_rules_posts_again_at_once() {
    for refusal in [Refusal::RefusedStream, Refusal::GoAwayUnprocessed] {
        usual_client_posts_again(refusal);
    }
}

fn usual_client_posts_again(refusal: Refusal) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let site = Site::open(1);
    let (stubborn, url) = runtime.block_on(serve(&site, refusal));
    let authority = fs::read(site.path("ca.pem")).expect("there");
    let authority = reqwest::Certificate::from_pem(&authority).expect("a certificate");
    let person = format!("{url}/v1.0/users/{}{PASSES}", site.people[0]);
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().tls_certs_merge([authority]).build();
        let post = client.expect("a client").post(person).json(&serde_json::json!({}));
        post.send().await.expect("an answer").status()
    });
    assert_eq!(status, 201, "{refusal:?}");
    assert_eq!(stubborn.asked.lock().expect("unpoisoned").len(), 2, "{refusal:?}");
}

#[test]
fn a_kept_connection_that_closes_on_reuse_is_not_answered_by_a_second_post() {
    for fault in [Fault::LostBefore, Fault::LostAfter] {
        let faults = Faults::default().at(Call::Issue, 1, fault);
        let site = Site::with(1, |options| options.faults = faults);
        let run = site.start(&site.run_args(&["--settle-after", "1h"]));
        site.until("the loss is known", |site| {
            site.folder().join("ledger.db").exists() && site.count("unsettled") == 1
        });
        run.kill();
        assert_eq!(site.seen(Call::Issue), 1);
    }
}

async fn serve(site: &Site, refusal: Refusal) -> (Stubborn, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let url = format!("https://localhost:{port}");
    let mut tenant = Tenant::for_wave(site.people.clone(), 7);
    tenant.options_mut().base = format!("{url}/v1.0");
    let tenant = Arc::new(Mutex::new(tenant));
    let stubborn = Stubborn { tenant, asked: Arc::default(), refusal };
    let acceptor = TlsAcceptor::from(Arc::new(certified(site)));
    let serving = stubborn.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serving.clone().connection(acceptor.clone(), stream));
        }
    });
    (stubborn, url)
}

/// A server's certificate, from an authority whose own lies in `ca.pem`.
fn certified(site: &Site) -> ServerConfig {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new([]).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).expect("signed");
    fs::write(site.path("ca.pem"), root.pem()).expect("written");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
    let server = server.signed_by(&key, &issuer).expect("signed");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], key)
        .expect("they fit");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

impl Stubborn {
    async fn connection(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let unprocessed = matches!(self.refusal, Refusal::GoAwayUnprocessed);
        let stream = Forging { stream, unprocessed };
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((request, respond))) = connection.accept().await {
            self.exchange(&mut connection, request, respond);
        }
    }

    fn exchange(
        &self,
        connection: &mut Connection<Forging, Bytes>,
        request: hyper::Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let path = request.uri().path().to_owned();
        let is_post = request.method() == hyper::Method::POST && path.ends_with(PASSES);
        let refused = {
            let mut asked = self.asked.lock().expect("unpoisoned");
            let first = is_post && !asked.iter().any(|path| path.ends_with(PASSES));
            asked.push(path);
            first
        };
        match self.refusal {
            Refusal::RefusedStream if refused => respond.send_reset(Reason::REFUSED_STREAM),
            Refusal::GoAway | Refusal::GoAwayUnprocessed if refused => {
                connection.abrupt_shutdown(Reason::NO_ERROR);
            }
            _ => drop(tokio::spawn(self.clone().answer(request, respond))),
        }
    }

    async fn answer(
        self,
        request: hyper::Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        let (head, mut stream) = request.into_parts();
        let mut body = Vec::new();
        while let Some(Ok(bytes)) = stream.data().await {
            body.extend_from_slice(&bytes);
        }
        let method = match head.method {
            hyper::Method::GET => Method::Get,
            hyper::Method::POST => Method::Post,
            hyper::Method::DELETE => Method::Delete,
            _ => return respond.send_reset(Reason::REFUSED_STREAM),
        };
        let target = head.uri.path_and_query().expect("a path").as_str();
        let request = Request {
            method,
            target: target.strip_prefix("/v1.0").expect("version 1").to_owned(),
            eventual: false,
            body: (!body.is_empty()).then_some(body),
            client_request_id: ClientRequestId::new(uuid::Uuid::nil()),
        };
        let answer = self.tenant.lock().expect("unpoisoned").handle(Timestamp::now(), &request);
        let response = answer.response.expect("a kind tenant");
        let head = hyper::Response::builder().status(response.status).body(()).expect("a head");
        let body = Bytes::copy_from_slice(&response.body);
        // An error is a client that went away.
        let _ = respond.send_response(head, false).and_then(|mut to| to.send_data(body, true));
    }
}

/// A connection on which every GOAWAY can be made to say that nothing was processed: h2 itself
/// names the last stream that it saw.
struct Forging {
    stream: TlsStream<TcpStream>,
    unprocessed: bool,
}

/// Eight bytes long, of the type GOAWAY, without flags, on the connection itself (RFC 9113, 6.8);
/// the last stream's number follows.
const GO_AWAY: [u8; 9] = [0, 0, 8, 7, 0, 0, 0, 0, 0];

impl AsyncWrite for Forging {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut bytes = bytes.to_vec();
        if let Some(at) = memchr::memmem::find(&bytes, &GO_AWAY).filter(|_| self.unprocessed) {
            bytes[at + GO_AWAY.len()..][..4].fill(0);
        }
        Pin::new(&mut self.stream).poll_write(context, &bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for Forging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, bytes)
    }
}
