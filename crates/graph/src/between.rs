//! Promises one judgement and one wording of what stands between us and the other side, be that
//! Graph, the sign-in address or a mail relay: a certificate, a proxy, a portal. No waiting mends
//! any of it. Must never show a proxy's password.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use encoding_rs::UTF_8;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use reqwest::header::HeaderMap;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::Error as TlsError;

use super::http::{Network, innermost, without_login};
use super::tunnel::{self, ConnectReply};
use tapwave_core::limits;
use tapwave_core::shown::plain;

/// Graph, as people know it.
pub const GRAPH: &str = "Graph";

/// What stands in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intermediary {
    /// A certificate that nobody here trusts; often that of a proxy that reads along.
    Certificate { place: String, why: String },
    /// The proxy wants to know who asks.
    ProxySignIn { proxy: String, status: u16, place: String, schemes: Vec<String> },
    /// The proxy lets through whoever has signed in at a page of its own.
    ProxyPage { proxy: String, status: u16, place: String },
    /// The proxy does not let through.
    ProxyRefused { proxy: String, status: u16, place: String },
    /// Somebody answered in the other side's place.
    Page { place: String, what: String },
}

impl Error for Intermediary {}

impl fmt::Display for Intermediary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate { place, why } => write!(
                f,
                "the certificate of {place} is not trusted here: {why}; if something on the way \
                 inspects TLS, name the PEM file of its authority with --ca-file, else check the \
                 address and the clock of this machine"
            ),
            Self::ProxySignIn { proxy, status, place, schemes } => {
                write!(f, "{proxy} answered {status} to a connection to {place}: ")?;
                let basic = schemes.iter().any(|one| one.eq_ignore_ascii_case("basic"));
                match schemes.join(", ") {
                    named if named.is_empty() => f.write_str(
                        "it asks for a sign-in; give user and password in HTTPS_PROXY or in \
                         tapwave.toml",
                    ),
                    named if basic => write!(
                        f,
                        "it asks for a sign-in ({named}); give user and password in HTTPS_PROXY \
                         or in tapwave.toml"
                    ),
                    named => write!(
                        f,
                        "it asks for a sign-in with {named}, and tapwave knows Basic alone; have \
                         it offer Basic or let this machine through, or put a proxy on this \
                         machine in front that knows its way"
                    ),
                }
            }
            Self::ProxyPage { proxy, status, place } => write!(
                f,
                "{proxy} answered {status} to a connection to {place}: it wants a sign-in first; \
                 sign in at its page with a browser on this machine, or have it let this address \
                 through"
            ),
            Self::ProxyRefused { proxy, status, place } => write!(
                f,
                "{proxy} answered {status} to a connection to {place}; have it let that \
                 through"
            ),
            Self::Page { place, what } => write!(
                f,
                "{place} answered with {what}; a proxy may stand in between: sign in at its page \
                 with a browser on this machine, or have it let this address through"
            ),
        }
    }
}

impl Intermediary {
    /// Whoever answers with a page, or sends elsewhere, is none of those we asked: they speak
    /// JSON. A server error is an outage, whatever it is written in. `kind` is the answer's
    /// `Content-Type`.
    pub fn page(
        place: &str,
        status: u16,
        location: Option<&str>,
        kind: Option<&str>,
        body: &[u8],
    ) -> Option<Self> {
        let foreign = match status {
            300..400 | 407 | 511 => true,
            429 | 500.. => false,
            _ => is_page(kind, body),
        };
        // What may hold a pass is looked at no further.
        if !foreign {
            return None;
        }
        let what = match status {
            300..400 => "a redirect",
            _ => what(kind, body),
        };
        let to = location.and_then(|to| reqwest::Url::parse(to).ok());
        let to = to.and_then(|to| to.host_str().map(|host| format!(" to {}", plain(host))));
        let titled = title(body).map(|title| format!(", \"{title}\"")).unwrap_or_default();
        let what = format!("{what}{}{titled} (HTTP {status})", to.unwrap_or_default());
        Some(Self::Page { place: place.to_owned(), what })
    }

    /// The same, by its body alone.
    pub fn of_body(place: &str, body: &[u8]) -> Option<Self> {
        is_page(None, body).then(|| {
            let titled = title(body).map(|title| format!(", \"{title}\"")).unwrap_or_default();
            let what = format!("{}{titled}", what(None, body));
            Self::Page { place: place.to_owned(), what }
        })
    }

    /// A 407 in the place of an answer: the proxy passes on what is not encrypted, and speaks for
    /// itself here.
    pub fn of_head(
        place: &str,
        status: u16,
        headers: &HeaderMap,
        network: &Network,
    ) -> Option<Self> {
        let offers = headers.get_all("proxy-authenticate").iter();
        let schemes = offers.flat_map(|offer| tunnel::schemes(offer.as_bytes())).collect();
        let named = network.proxy.as_deref().map(without_login);
        let proxy = named.map_or_else(|| "a proxy".to_owned(), |name| format!("the proxy {name}"));
        let place = place.to_owned();
        (status == 407).then_some(Self::ProxySignIn { proxy, status, place, schemes })
    }

    /// What kept a request from being sent, if it stands in between. Our own connections tell what
    /// a proxy said. Where the HTTP library made one, which does not, the proxy is asked once more.
    pub async fn of_error(
        place: &str,
        url: &reqwest::Url,
        error: &(dyn Error + Send + Sync + 'static),
        network: &Network,
    ) -> Option<Self> {
        if let Some(told) = within::<Self>(error) {
            return Some(told.clone());
        }
        if let Some(between) = Self::of_certificate(place, error) {
            return Some(between);
        }
        let why = innermost(error);
        if !why.contains("tunnel error") {
            return None;
        }
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        let proxy = proxy_of(network, url)?;
        let to = format!("{host}:{port}");
        let said = match timeout(limits::CONNECT_TIMEOUT, asked(&proxy, &to)).await {
            Ok(Ok(Some(said))) => said,
            // Of one that speaks TLS itself no more is known than this.
            _ if why.contains("authorization required") => {
                ConnectReply { status: 407, schemes: Vec::new() }
            }
            _ => return None,
        };
        Self::of_tunnel(&proxy, said, to)
    }

    /// A certificate that kept `place` from being reached.
    pub fn of_certificate(place: &str, error: &(dyn Error + 'static)) -> Option<Self> {
        let tls = tls_error(error).filter(|tls| is_of_the_certificate(tls))?;
        Some(Self::Certificate { place: place.to_owned(), why: plain(&tls.to_string()) })
    }

    /// What a proxy's no to a connection means. One that only did not reach the other side, or has
    /// too much to do, stands in nobody's way.
    pub fn of_tunnel(proxy: &Intercept, said: ConnectReply, place: String) -> Option<Self> {
        let proxy = format!("the proxy {}", name(proxy));
        let ConnectReply { status, schemes } = said;
        match status {
            429 => None,
            511 => Some(Self::ProxyPage { proxy, status, place }),
            401 | 407 => Some(Self::ProxySignIn { proxy, status, place, schemes }),
            300..500 => Some(Self::ProxyRefused { proxy, status, place }),
            _ => None,
        }
    }
}

/// The host and port of a proxy; the library has taken user and password out.
pub fn name(proxy: &Intercept) -> String {
    plain(proxy.uri().authority().map_or("", |authority| authority.as_str()))
}

/// Why TLS failed, if that is what broke.
pub fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a TlsError> {
    within(error)
}

/// The error of this type among the causes. An I/O error takes the place of what it wraps, which
/// is not its source.
fn within<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut cause: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

/// Whether it failed over the certificate that the other side showed. A later attempt would see
/// the same.
pub const fn is_of_the_certificate(error: &TlsError) -> bool {
    matches!(error, TlsError::InvalidCertificate(_) | TlsError::NoCertificatesPresented)
}

/// The proxy that requests to this address go through, as the HTTP library chooses it.
fn proxy_of(network: &Network, url: &reqwest::Url) -> Option<Intercept> {
    let matcher = match &network.proxy {
        Some(proxy) => Matcher::builder().all(proxy.as_str()).build(),
        None => Matcher::from_system(),
    };
    matcher.intercept(&url.as_str().parse().ok()?)
}

async fn asked(proxy: &Intercept, to: &str) -> io::Result<Option<ConnectReply>> {
    let uri = proxy.uri();
    if uri.scheme_str() != Some("http") {
        return Ok(None);
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    tunnel::ask(&mut BufReader::new(stream), to, proxy).await
}

/// Whether an answer is written for people. Nobody whom we asked for JSON writes in UTF-16, or
/// packs what we did not ask to be packed.
fn is_page(kind: Option<&str>, body: &[u8]) -> bool {
    is_html(kind) || is_packed(body) || begins_as_one(body)
}

/// By its first bytes alone, so that nothing of a pass is read, and left anywhere, for that.
fn begins_as_one(body: &[u8]) -> bool {
    let is_utf16 = body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff");
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().starts_with(b"<")
        || is_utf16 && text(body).trim_start().starts_with('<')
}

/// What it is called.
fn what(kind: Option<&str>, body: &[u8]) -> &'static str {
    if is_packed(body) && !is_html(kind) {
        "something packed that nobody asked for"
    } else {
        "a web page"
    }
}

fn is_html(kind: Option<&str>) -> bool {
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    ["text/html", "application/xhtml"].iter().any(|html| kind.starts_with(html))
}

/// Whether it is a stream of gzip.
fn is_packed(body: &[u8]) -> bool {
    body.starts_with(b"\x1f\x8b")
}

/// The beginning of a body, in whatever Unicode it is written.
fn text(body: &[u8]) -> Cow<'_, str> {
    let body = body.trim_ascii_start();
    let head = &body[..body.len().min(limits::MAX_TITLE_SEARCH)];
    // Without a mark it is UTF-8.
    UTF_8.decode(head).0
}

/// What a page calls itself.
fn title(body: &[u8]) -> Option<String> {
    let head = text(body);
    let begin = head.to_ascii_lowercase().find("<title>")? + "<title>".len();
    let title = head.get(begin..)?.split('<').next()?.trim();
    (!title.is_empty()).then(|| plain(title))
}
