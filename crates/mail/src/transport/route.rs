//! Promises a connection to the relay, direct or through the proxy that is used for Graph, and TLS
//! for the relay's own name. Must never show a proxy's password, nor take a proxy's refusal for the
//! relay's.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error as TlsError};
use zeroize::Zeroizing;

use super::settings::{Relay, Tls, is_loopback};
use tapwave_core::effect::ObstacleKind;
use tapwave_core::limits;
use tapwave_core::shown::plain;
use tapwave_graph::between::{Intermediary, is_of_the_certificate, name, tls_error};
use tapwave_graph::http::{Network, without_login};
use tapwave_graph::tunnel;

pub(super) trait RouteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> RouteStream for T {}

pub(super) type RouteConnection = Box<dyn RouteStream>;

/// Why the way to a relay cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmtpSetupError {
    #[error("failed to read certificates from {path}: {why}; give a PEM file")]
    Certificates { path: PathBuf, why: String },
    #[error("failed to set up TLS for the relay {host}: {why}; check its name and certificates")]
    Tls { host: String, why: String },
    #[error(
        "the proxy {proxy} cannot be used for the relay {host}: it must be an http or https URL; \
         list the relay in NO_PROXY to go straight to it"
    )]
    Proxy {
        /// Without user and password.
        proxy: String,
        host: String,
    },
    #[error("[mail] in tapwave.toml names no relay; set courier = \"smtp\" and host")]
    NoRelay,
}

/// Why there is no connection. No part of a mail was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRoute {
    #[error("{place} cannot be reached: {why}")]
    Unreachable { place: String, why: String },
    #[error("{0}")]
    Between(Intermediary),
    /// The same, where the proxy can be bypassed.
    #[error("{0}, or list the relay in NO_PROXY")]
    Avoidable(Intermediary),
    #[error(
        "the proxy {proxy} answered {status} to a connection to {relay}: it does not reach the \
         relay; list the relay in NO_PROXY to go straight to it"
    )]
    Beyond { proxy: String, status: u16, relay: String },
    #[error("the proxy {proxy} answered 429 to a connection to {relay}: it has too much to do now")]
    Busy { proxy: String, relay: String },
    #[error("the proxy {proxy} does not answer as an HTTP proxy does; check its address")]
    NoProxy { proxy: String },
    #[error(
        "{why}; {place} does not take our certificate: check client_certificate in tapwave.toml"
    )]
    Certificate { place: String, why: String },
    #[error("{why}; {place} does not speak TLS there as it should: check host, port and tls")]
    NoTls { place: String, why: String },
}

impl NoRoute {
    pub(super) const fn kind(&self) -> ObstacleKind {
        match self {
            Self::Unreachable { .. } | Self::Beyond { .. } => ObstacleKind::Unreachable,
            Self::Busy { .. } => ObstacleKind::Throttled,
            Self::Between(_) | Self::Avoidable(_) => ObstacleKind::Between,
            Self::Certificate { .. } => ObstacleKind::SignIn,
            Self::NoProxy { .. } | Self::NoTls { .. } => ObstacleKind::Lasting,
        }
    }
}

/// The way to a relay.
pub(super) struct Route {
    host: String,
    port: u16,
    proxy: Option<Intercept>,
    tls: Option<Connectors>,
}

/// TLS to the relay and, without the client certificate, to a proxy.
struct Connectors {
    relay: TlsConnector,
    proxy: TlsConnector,
}

/// A connection, and this machine's end of it.
pub(super) struct Connected {
    pub(super) stream: RouteConnection,
    pub(super) own: IpAddr,
}

impl Route {
    /// Does not connect yet.
    pub(super) fn new(relay: &Relay, network: &Network) -> Result<Self, SmtpSetupError> {
        let proxy = proxy(relay, network)?;
        let tls = if relay.tls == Tls::None { None } else { Some(connectors(relay, network)?) };
        Ok(Self { host: relay.host.clone(), port: relay.port, proxy, tls })
    }

    pub(super) async fn connect(&self) -> Result<Connected, NoRoute> {
        let Some(proxy) = &self.proxy else {
            return tcp(&self.host, self.port, format!("the relay {}", self.host)).await;
        };
        let (place, uri) = (format!("the proxy {}", name(proxy)), proxy.uri());
        let secured = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
        let Connected { mut stream, own } = tcp(host, port, place.clone()).await?;
        if let (true, Some(tls)) = (secured, &self.tls) {
            stream = protect(&tls.proxy, host, stream, place).await?;
        }
        Ok(Connected { stream: self.tunnel(stream, proxy).await?, own })
    }

    /// Begins TLS with the relay.
    pub(super) async fn protect(
        &self,
        stream: RouteConnection,
    ) -> Result<RouteConnection, NoRoute> {
        let place = format!("the relay {}", self.host);
        match &self.tls {
            Some(tls) => protect(&tls.relay, &self.host, stream, place).await,
            None => Err(NoRoute::NoTls { place, why: "it was not set up".to_owned() }),
        }
    }

    /// Asks a proxy for a connection to the relay (RFC 9110, 9.3.6).
    async fn tunnel(
        &self,
        stream: RouteConnection,
        proxy: &Intercept,
    ) -> Result<RouteConnection, NoRoute> {
        let relay = format!("{}:{}", bracketed(&self.host), self.port);
        // Kept: the relay speaks first, and its first words may come along with the proxy's.
        let mut stream = BufReader::new(stream);
        let broken = |why: io::Error| NoRoute::Unreachable {
            place: format!("the relay {relay}, through the proxy {},", name(proxy)),
            why: plain(&why.to_string()),
        };
        let Some(said) = tunnel::ask(&mut stream, &relay, proxy).await.map_err(broken)? else {
            return Err(NoRoute::NoProxy { proxy: name(proxy) });
        };
        let status = said.status;
        if (200..300).contains(&status) {
            return Ok(Box::new(stream));
        }
        Err(match Intermediary::of_tunnel(proxy, said, relay.clone()) {
            Some(
                refused @ (Intermediary::ProxyRefused { .. } | Intermediary::ProxyPage { .. }),
            ) => NoRoute::Avoidable(refused),
            Some(between) => NoRoute::Between(between),
            None if status == 429 => NoRoute::Busy { proxy: name(proxy), relay },
            None => NoRoute::Beyond { proxy: name(proxy), status, relay },
        })
    }
}

/// Whether the other side refuses our client certificate, or demands one. A later attempt would fail
/// the same way.
pub(super) const fn rejects_client_certificate(error: &TlsError) -> bool {
    use AlertDescription as Alert;
    matches!(
        error,
        TlsError::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
        )
    )
}

/// The proxy for a relay, by the rules for an https address of its name.
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

/// A host as it is written before a port.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Connects without Nagle's algorithm, which would hold the final dot back for the text's
/// acknowledgement and cost 40 ms a mail.
async fn tcp(host: &str, port: u16, place: String) -> Result<Connected, NoRoute> {
    let connected = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let own = stream.local_addr()?.ip().to_canonical();
        Ok(Connected { stream: Box::new(stream), own })
    };
    connected
        .await
        .map_err(|error: io::Error| NoRoute::Unreachable { place, why: plain(&error.to_string()) })
}

async fn protect(
    tls: &TlsConnector,
    host: &str,
    stream: RouteConnection,
    place: String,
) -> Result<RouteConnection, NoRoute> {
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        let why = "its name cannot stand in a certificate".to_owned();
        return Err(NoRoute::Between(Intermediary::Certificate { place, why }));
    };
    let error = match tls.connect(name, stream).await {
        Ok(stream) => return Ok(Box::new(stream)),
        Err(error) => error,
    };
    let why = plain(&error.to_string());
    Err(match tls_error(&error) {
        Some(tls) if is_of_the_certificate(tls) => {
            NoRoute::Between(Intermediary::Certificate { place, why })
        }
        Some(tls) if rejects_client_certificate(tls) => NoRoute::Certificate { place, why },
        Some(_) => NoRoute::NoTls { place, why },
        None => NoRoute::Unreachable { place, why },
    })
}

fn connectors(relay: &Relay, network: &Network) -> Result<Connectors, SmtpSetupError> {
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
    Ok(Connectors { relay: connector(relay_config), proxy: connector(plain_config) })
}

/// All certificates of a PEM file, in order; at least one.
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
