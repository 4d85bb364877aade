//! Promises connections to Graph whose buffers keep nothing of an answer that was read: neither
//! while one is idle nor while it waits for the next answer.
//!
//! TLS decrypts in place, and HTTP cuts answers out of one large buffer: both keep what they
//! have read until something else comes, and a wiping allocator does not reach memory in use.
//! Both also ask for more as soon as they have read, and hand over the free part of their
//! buffer for it, which is where the old bytes lie. Here that part is overwritten before
//! anything is read into it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use rustls_platform_verifier::Verifier;
use tokio::io::BufReader;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, Error as TlsError};
use tower_service::Service;
use zeroize::Zeroizing;

use super::between::{Intermediary, name};
use super::http::{BaseUrl, NO_ANSWER, Network, NetworkError, authorities, without_login};
use super::tunnel;
use tapwave_core::limits;
use tapwave_core::shown::plain;

/// An address, as the HTTP library reads it.
pub(super) type Uri = hyper::Uri;

type ConnectError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to one address, straight or through the proxy that it is behind.
#[derive(Clone)]
pub(super) struct Connector {
    straight: HttpConnector,
    proxy: Option<Proxy>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Prepares connections, and makes none yet.
    pub(super) fn new(network: &Network, base: &BaseUrl) -> Result<Self, NetworkError> {
        let mut straight = HttpConnector::new();
        straight.enforce_http(false);
        straight.set_nodelay(true);
        straight.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
        straight.set_keepalive(Some(limits::KEEPALIVE));
        straight.set_keepalive_interval(Some(limits::KEEPALIVE));
        straight.set_keepalive_retries(Some(limits::KEEPALIVE_PROBES));
        #[cfg(target_os = "linux")]
        straight.set_tcp_user_timeout(Some(limits::UNHEARD));
        let mut tls = tls(network)?;
        let proxy = proxy(network, base)?;
        let proxy = proxy.map(|at| Proxy { at, reach: (straight.clone(), tls.clone()).into() });
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { straight, proxy, tls: Arc::new(tls) })
    }

    async fn connect(mut self, to: Uri) -> Result<Overwritten, ConnectError> {
        let wire: BoxedStream = match &mut self.proxy {
            Some(proxy) => proxy.lead(&to).await?,
            None => Box::new(self.straight.call(to.clone()).await?),
        };
        let wire = Overwritten { wire, frames: None };
        if to.scheme_str() != Some("https") {
            return Ok(wire);
        }
        let name = to.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(name.to_owned())?;
        let tls = TlsConnector::from(self.tls).connect(name, TokioIo::new(wire)).await?;
        let agreed = tls.get_ref().1.alpn_protocol();
        let frames = (agreed == Some(b"h2")).then(Frames::default);
        Ok(Overwritten { wire: Box::new(TokioIo::new(tls)), frames })
    }
}

impl Service<Uri> for Connector {
    type Response = Overwritten;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Overwritten, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connected = tokio::time::timeout(limits::CONNECT_TIMEOUT, self.clone().connect(to));
        Box::pin(async { connected.await.unwrap_or_else(|_| Err(NO_ANSWER.into())) })
    }
}

/// The proxy that Graph is behind, if it is. A rehearsal on this machine is never meant for the
/// company's proxy, but for one that is named.
fn proxy(network: &Network, base: &BaseUrl) -> Result<Option<Intercept>, NetworkError> {
    let matcher = match &network.proxy {
        Some(url) => Matcher::builder().all(url.as_str()).build(),
        None if base.is_http() => return Ok(None),
        None => Matcher::from_system(),
    };
    let to: Uri = base
        .as_str()
        .parse()
        .map_err(|_| NetworkError::Insecure { url: without_login(base.as_str()) })?;
    let unusable = |url: &str| NetworkError::Proxy { url: without_login(url) };
    match (matcher.intercept(&to), &network.proxy) {
        (Some(proxy), _) if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) => {
            Err(unusable(&proxy.uri().to_string()))
        }
        (None, Some(url)) => Err(unusable(url)),
        (proxy, _) => Ok(proxy),
    }
}

/// The way through a proxy.
#[derive(Clone)]
struct Proxy {
    at: Intercept,
    reach: HttpsConnector<HttpConnector>,
}

impl Proxy {
    /// A connection through it. A [`Intermediary`] is the error if it does not let us through.
    async fn lead(&mut self, to: &Uri) -> Result<BoxedStream, ConnectError> {
        let proxy = name(&self.at);
        let wire = match self.reach.call(self.at.uri().clone()).await {
            Ok(wire) => wire,
            Err(error) => {
                let own = Intermediary::of_certificate(&format!("the proxy {proxy}"), &*error);
                return Err(own.map_or(error, Into::into));
            }
        };
        let mut wire = BufReader::new(TokioIo::new(wire));
        let usual = if to.scheme_str() == Some("https") { 443 } else { 80 };
        let port = to.port_u16().unwrap_or(usual);
        let place = format!("{}:{port}", to.host().unwrap_or_default());
        let Some(said) = tunnel::ask(&mut wire, &place, &self.at).await? else {
            return Err(format!("the proxy {proxy} does not speak HTTP").into());
        };
        let status = said.status;
        if (200..300).contains(&status) {
            // Graph does not speak first: no more has come than the proxy's word.
            return Ok(Box::new(wire.into_inner().into_inner()));
        }
        let beyond = format!("the proxy {proxy} answered {status} to a connection to {place}");
        let between = Intermediary::of_tunnel(&self.at, said, place);
        Err(between.map_or_else(|| beyond.into(), Into::into))
    }
}

/// TLS as the other client has it: the system's authorities and those of the network.
fn tls(network: &Network) -> Result<ClientConfig, NetworkError> {
    let broken = |error: TlsError| NetworkError::Tls(plain(&error.to_string()));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = match authorities(network)? {
        none if none.is_empty() => Verifier::new(Arc::clone(&provider)),
        some => Verifier::new_with_extra_roots(some, Arc::clone(&provider)),
    };
    let verifier = Arc::new(verifier.map_err(broken)?);
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(broken)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Bytes in both directions.
trait ByteStream: Read + Write + Send + Unpin {}
impl<T: Read + Write + Send + Unpin> ByteStream for T {}

type BoxedStream = Box<dyn ByteStream>;

/// A connection that overwrites what its reader has read. It stands below TLS for TLS's buffer,
/// and above it for HTTP's.
pub(super) struct Overwritten {
    wire: BoxedStream,
    /// With HTTP/2 alone.
    frames: Option<Frames>,
}

impl Read for Overwritten {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(frames) = &mut this.frames {
            return frames.poll_read(&mut this.wire, context, &mut into);
        }
        into.initialize_unfilled().fill(0);
        Pin::new(&mut this.wire).poll_read(context, into)
    }
}

impl Write for Overwritten {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wire).poll_write_vectored(context, pieces)
    }
}

impl Connection for Overwritten {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.frames.is_some() { connected.negotiated_h2() } else { connected }
    }
}

/// Bytes of a frame's head (RFC 9113, 4.1).
const HEAD: usize = 9;
/// The longest payload that everybody must take (RFC 9113, 4.2), which fits no smaller buffer.
const PAYLOAD: usize = 0x4000;
/// Two frames of a type that means nothing and is to be ignored (RFC 9113, 5.5).
static FILLING: [u8; 2 * (HEAD + PAYLOAD)] = {
    let mut frames = [0; 2 * (HEAD + PAYLOAD)];
    let mut at = 0;
    while at < frames.len() {
        // The payload's length in three bytes, then the type.
        frames[at + 1] = 0x40;
        frames[at + 3] = 0x0b;
        at += HEAD + PAYLOAD;
    }
    frames
};

/// Where the reader is in HTTP/2's frames.
///
/// What is free in its buffer begins behind what it has read last. What it has read before that
/// stays in front until the buffer is full and used from its beginning again. So whenever data
/// has come and no more is there, the reader is given frames that mean nothing: one that fills
/// the buffer to its end, or makes it larger, and one that fills it from its beginning.
#[derive(Default)]
struct Frames {
    /// The next frame's head, as far as it has come.
    head: [u8; HEAD],
    known: usize,
    /// Bytes of the last frame's payload that are still to come.
    left: usize,
    /// The headers that were begun go on in the next frame, and nothing may come between.
    open: bool,
    /// Data has come since the buffer was last filled.
    stale: bool,
    /// How much of the filling is still to be given.
    filling: usize,
}

impl Frames {
    fn poll_read(
        &mut self,
        wire: &mut BoxedStream,
        context: &mut Context<'_>,
        into: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        const PIECE: usize = 4096;
        if self.filling == 0 {
            let mut piece = Zeroizing::new([0; PIECE]);
            let mut piece = ReadBuf::new(&mut piece[..into.remaining().min(PIECE)]);
            match Pin::new(wire).poll_read(context, piece.unfilled()) {
                Poll::Pending if self.may_be_filled() => {
                    self.stale = false;
                    self.filling = FILLING.len();
                }
                Poll::Ready(Ok(())) => {
                    self.see(piece.filled());
                    into.put_slice(piece.filled());
                    return Poll::Ready(Ok(()));
                }
                other => return other,
            }
        }
        let rest = &FILLING[FILLING.len() - self.filling..];
        let given = &rest[..rest.len().min(into.remaining())];
        into.put_slice(given);
        self.filling -= given.len();
        Poll::Ready(Ok(()))
    }

    /// Whether a buffer holds old data, and a frame may begin here.
    fn may_be_filled(&self) -> bool {
        self.stale && !self.open && self.known == 0 && self.left == 0
    }

    fn see(&mut self, mut bytes: &[u8]) {
        const DATA: u8 = 0;
        const HEADERS: u8 = 1;
        const PUSH_PROMISE: u8 = 5;
        const CONTINUATION: u8 = 9;
        const END_HEADERS: u8 = 4;
        while let [first, rest @ ..] = bytes {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            self.head[self.known] = *first;
            self.known = (self.known + 1) % HEAD;
            bytes = rest;
            if self.known > 0 {
                continue;
            }
            let [high, middle, low, kind, flags, ..] = self.head;
            self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
            match kind {
                DATA => self.stale = true,
                HEADERS | PUSH_PROMISE | CONTINUATION => self.open = flags & END_HEADERS == 0,
                _ => {}
            }
        }
    }
}
