//! Promises a connection to the relay, straight or through the proxy that Graph is reached by,
//! and TLS on it for the relay's own name. Must never show a proxy's password, nor take a
//! proxy's refusal for the relay's.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error as TlsError};
use zeroize::Zeroizing;

use super::settings::{Relay, Tls, is_loopback};
use crate::graph::http::{Network, without_login};
use crate::limits;
use crate::shown::plain;

/// Whatever bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection.
pub(super) type Wire = Box<dyn Stream>;

/// Why no route could be laid out.
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
    /// A proxy that cannot be used for mail.
    #[error(
        "the proxy {proxy} cannot be used for the relay {host}: it must be an http or https URL; \
         list the relay in NO_PROXY to go straight to it"
    )]
    Proxy {
        /// The proxy, without user and password.
        proxy: String,
        /// The relay.
        host: String,
    },
    /// The plan is for Graph.
    #[error("[mail] in tapwave.toml names no relay; set courier = \"smtp\" and host")]
    NoRelay,
}

/// Why there is no connection. Nothing of a mail was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoute {
    /// No connection to the relay or the proxy.
    #[error("{place} cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    /// The proxy wants to know who asks.
    #[error(
        "the proxy {proxy} answered {status} to a connection to {relay}: it asks for a sign-in; \
         give user and password in HTTPS_PROXY or in tapwave.toml"
    )]
    ProxySignIn { proxy: String, status: u16, relay: String },
    /// The proxy said no.
    #[error(
        "the proxy {proxy} answered {status} to a connection to {relay}; have it let that through, \
         or list the relay in NO_PROXY"
    )]
    ProxyRefused { proxy: String, status: u16, relay: String },
    /// What answered is no proxy.
    #[error("the proxy {proxy} does not answer as an HTTP proxy does; check its address")]
    NoProxy { proxy: String },
    /// One of the two certificates does not hold.
    #[error("{why}; check the certificate of {place}, host, --ca-file and client_certificate")]
    Certificate { place: String, why: String },
    /// TLS cannot be agreed on.
    #[error("{why}; {place} does not speak TLS there as it should: check host, port and tls")]
    NoTls { place: String, why: String },
}

impl NoRoute {
    /// Whether somebody was not let in, or not believed.
    pub(super) const fn is_denial(&self) -> bool {
        matches!(self, Self::ProxySignIn { .. } | Self::Certificate { .. })
    }

    /// Whether the same may work later. A proxy's 5xx says that it did not reach the relay.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::ProxyRefused { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// The way to a relay.
pub(super) struct Route {
    host: String,
    port: u16,
    proxy: Option<Intercept>,
    tls: Option<Tunnels>,
}

/// TLS to the relay and, without its client certificate, to a proxy that wants TLS itself.
struct Tunnels {
    relay: TlsConnector,
    proxy: TlsConnector,
}

/// A connection, and this machine's end of it.
pub(super) struct Reached {
    pub(super) wire: Wire,
    pub(super) own: IpAddr,
}

impl Route {
    /// Lays the way out, and connects to nothing yet.
    pub(super) fn new(relay: &Relay, network: &Network) -> Result<Self, SmtpSetupError> {
        let proxy = proxy(relay, network)?;
        let tls = if relay.tls == Tls::None { None } else { Some(tunnels(relay, network)?) };
        Ok(Self { host: relay.host.clone(), port: relay.port, proxy, tls })
    }

    /// Connects: to the relay, or to the proxy and through it.
    pub(super) async fn connect(&self) -> Result<Reached, NoRoute> {
        let Some(proxy) = &self.proxy else {
            return tcp(&self.host, self.port, format!("the relay {}", self.host)).await;
        };
        let (place, uri) = (format!("the proxy {}", name(proxy)), proxy.uri());
        let secured = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
        let Reached { mut wire, own } = tcp(host, port, place.clone()).await?;
        if let (true, Some(tls)) = (secured, &self.tls) {
            wire = protect(&tls.proxy, host, wire, place).await?;
        }
        Ok(Reached { wire: self.tunnel(wire, proxy).await?, own })
    }

    /// Begins TLS with the relay.
    pub(super) async fn protect(&self, wire: Wire) -> Result<Wire, NoRoute> {
        let place = format!("the relay {}", self.host);
        match &self.tls {
            Some(tls) => protect(&tls.relay, &self.host, wire, place).await,
            None => Err(NoRoute::NoTls { place, why: "it was not set up".to_owned() }),
        }
    }

    /// Asks a proxy for a connection to the relay (RFC 9110, 9.3.6).
    async fn tunnel(&self, wire: Wire, proxy: &Intercept) -> Result<Wire, NoRoute> {
        let relay = format!("{}:{}", bracketed(&self.host), self.port);
        let mut ask = Zeroizing::new(Vec::with_capacity(limits::MAX_SECRET_BYTES));
        let agent = concat!("User-Agent: tapwave/", env!("CARGO_PKG_VERSION"), "\r\n");
        ask.extend_from_slice(
            format!("CONNECT {relay} HTTP/1.1\r\nHost: {relay}\r\n{agent}").as_bytes(),
        );
        if let Some(login) = proxy.basic_auth() {
            ask.extend_from_slice(b"Proxy-Authorization: ");
            ask.extend_from_slice(login.as_bytes());
            ask.extend_from_slice(b"\r\n");
        }
        ask.extend_from_slice(b"\r\n");
        // Kept: the relay speaks first, and its first words may come along with the proxy's.
        let mut wire = BufReader::new(wire);
        let proxy = name(proxy);
        let broken = |why: io::Error| NoRoute::Unreachable {
            place: format!("the relay {relay}, through the proxy {proxy},"),
            why: plain(&why.to_string()),
        };
        wire.write_all(&ask).await.map_err(broken)?;
        wire.flush().await.map_err(broken)?;
        match status(&mut wire).await.map_err(broken)? {
            Some(200..300) => Ok(Box::new(wire)),
            Some(status @ (401 | 407)) => Err(NoRoute::ProxySignIn { proxy, status, relay }),
            Some(status) => Err(NoRoute::ProxyRefused { proxy, status, relay }),
            None => Err(NoRoute::NoProxy { proxy }),
        }
    }
}

/// Why TLS failed, as far as the library knows.
pub(super) fn tls_error(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether TLS failed over a certificate: the other side's, or the one shown to it. A later
/// attempt would show and see the same.
pub(super) fn is_about_certificates(error: &TlsError) -> bool {
    use AlertDescription as Alert;
    match error {
        TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented => true,
        TlsError::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
        ),
        _ => false,
    }
}

/// The proxy that a relay is behind, by the rules for an https address of its name.
fn proxy(relay: &Relay, network: &Network) -> Result<Option<Intercept>, SmtpSetupError> {
    if is_loopback(&relay.host) {
        return Ok(None);
    }
    let unusable = |proxy| SmtpSetupError::Proxy { proxy, host: relay.host.clone() };
    let host = bracketed(&relay.host);
    let Ok(address) = format!("https://{host}:{}/", relay.port).parse() else { return Ok(None) };
    let matcher = match &network.proxy {
        None => Matcher::from_system(),
        Some(url) => {
            let all = || Matcher::builder().all(url.as_str());
            if all().build().intercept(&address).is_none() {
                return Err(unusable(without_login(url)));
            }
            all().no(network.no_proxy.clone().unwrap_or_default()).build()
        }
    };
    match matcher.intercept(&address) {
        Some(proxy) if !matches!(proxy.uri().scheme_str(), Some("http" | "https")) => {
            Err(unusable(name(&proxy)))
        }
        chosen => Ok(chosen),
    }
}

/// A host as it stands before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Host and port; the library has taken user and password out.
fn name(proxy: &Intercept) -> String {
    plain(proxy.uri().authority().map_or("", |authority| authority.as_str()))
}

/// A connection that sends at once. The dot goes by itself behind the text; held back for the
/// text's acknowledgement (Nagle), it would cost 40 ms a mail.
async fn tcp(host: &str, port: u16, place: String) -> Result<Reached, NoRoute> {
    let connected = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let own = stream.local_addr()?.ip().to_canonical();
        Ok(Reached { wire: Box::new(stream), own })
    };
    connected
        .await
        .map_err(|error: io::Error| NoRoute::Unreachable { place, why: plain(&error.to_string()) })
}

async fn protect(
    tls: &TlsConnector,
    host: &str,
    wire: Wire,
    place: String,
) -> Result<Wire, NoRoute> {
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        let why = "the name cannot stand in a certificate".to_owned();
        return Err(NoRoute::Certificate { place, why });
    };
    let error = match tls.connect(name, wire).await {
        Ok(wire) => return Ok(Box::new(wire)),
        Err(error) => error,
    };
    let why = plain(&error.to_string());
    Err(match tls_error(&error) {
        Some(tls) if is_about_certificates(tls) => NoRoute::Certificate { place, why },
        Some(_) => NoRoute::NoTls { place, why },
        None => NoRoute::Unreachable { place, why },
    })
}

/// The status of a proxy's answer, read to the end of its head and no further. `None` for
/// something that is no HTTP.
async fn status(wire: &mut BufReader<Wire>) -> io::Result<Option<u16>> {
    let mut head = Vec::new();
    loop {
        let room = limits::MAX_PROXY_ANSWER_BYTES.saturating_sub(head.len() as u64);
        if wire.take(room).read_until(b'\n', &mut head).await? == 0 {
            let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
            return if room > 0 { Err(closed()) } else { Ok(None) };
        }
        let mut headers = [httparse::EMPTY_HEADER; limits::MAX_PROXY_ANSWER_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        match answer.parse(&head) {
            Ok(parsed) if parsed.is_partial() => {}
            Ok(_) => return Ok(answer.code),
            Err(_) => return Ok(None),
        }
    }
}

fn tunnels(relay: &Relay, network: &Network) -> Result<Tunnels, SmtpSetupError> {
    let broken = |error: TlsError| SmtpSetupError::Tls {
        host: relay.host.clone(),
        why: plain(&error.to_string()),
    };
    let authorities = match &network.ca_file {
        Some(path) => chain(path, &read(path)?)?,
        None => Vec::new(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider));
    let verifier = Arc::new(verifier.map_err(broken)?);
    let builder = |provider: Arc<CryptoProvider>| {
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(broken)?;
        let verifier = Arc::clone(&verifier);
        Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
    };
    let plain_config = builder(Arc::clone(&provider))?.with_no_client_auth();
    let relay_config = match &relay.client_certificate {
        None => plain_config.clone(),
        Some(path) => {
            let unusable = |why: String| SmtpSetupError::Certificates { path: path.clone(), why };
            let pem = read(path)?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
                unusable("it holds no private key, or one that needs a passphrase".to_owned())
            })?;
            builder(provider)?
                .with_client_auth_cert(chain(path, &pem)?, key)
                .map_err(|error| unusable(plain(&error.to_string())))?
        }
    };
    let connector = |config: ClientConfig| TlsConnector::from(Arc::new(config));
    Ok(Tunnels { relay: connector(relay_config), proxy: connector(plain_config) })
}

/// All certificates of a PEM file, in its order; at least one.
fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SmtpSetupError> {
    let unusable = |why: &str| {
        let (path, why) = (path.to_owned(), why.to_owned());
        SmtpSetupError::Certificates { path, why }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| unusable("it is not a PEM file of certificates"))?;
    if chain.is_empty() {
        return Err(unusable("it holds no certificate"));
    }
    Ok(chain)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SmtpSetupError> {
    use std::io::Read as _;
    let unusable = |why: String| SmtpSetupError::Certificates { path: path.to_owned(), why };
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::MAX_CERTIFICATE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(error.to_string()))?;
    if bytes.len() as u64 > limits::MAX_CERTIFICATE_BYTES {
        return Err(unusable("it is too large".to_owned()));
    }
    Ok(bytes)
}
