//! Promises Graph over HTTP: https only (http to loopback), TLS 1.2 or newer, no redirects,
//! no request sent twice by the library, no answer larger than we can bear.
//!
//! Must never print a header, a body, or a query. Graph's answers, which may hold a pass, come over
//! the connections of `connection`; reqwest, whose own keep what they have read, is for signing in.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::between::{GRAPH, Intermediary};
use super::connection::{Connector, Uri};
use super::transport::{Broken, Request, Response, Transport};
use tapwave_core::limits;
use tapwave_core::wiped::read_small;

/// Why no token could be had, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToken {
    /// The sign-in was refused; asking again brings nothing.
    Denied(String),
    /// Something stands between us and the sign-in address.
    Between(String),
    /// The sign-in address did not answer, or said that it cannot now; it may later.
    Unreachable(String),
}

impl From<NoToken> for Broken {
    fn from(no: NoToken) -> Self {
        match no {
            NoToken::Denied(why) => Self::SignIn(why),
            NoToken::Between(why) => Self::Between(why),
            NoToken::Unreachable(why) => Self::NotSent(why),
        }
    }
}

/// Where access tokens come from.
pub trait Bearer: Send + Sync {
    /// A token that is good now.
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoToken>>;

    /// Forgets a token that Graph refused; true if another may be had.
    fn forget(&self) -> bool;
}

/// How to reach the network; the same for Graph, sign-in and mail relays.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// A PEM file of further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// A proxy by URL; without it the usual variables and the system's settings count.
    pub proxy: Option<String>,
    /// `NO_PROXY`: the mail relays that a proxy given by URL is not for. Without such a proxy
    /// the library reads the variable itself.
    pub no_proxy: Option<String>,
}

/// Why no client could be built.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// An address that is no URL, or not https.
    #[error("{url} cannot be used: an address must be https://…, or http:// to this machine")]
    Insecure {
        /// As given, but for a user and a password.
        url: String,
    },
    /// A CA file that cannot be read.
    #[error("failed to read certificate authorities from {path}: {why}")]
    CaFile { path: PathBuf, why: String },
    /// A proxy that cannot be used.
    #[error(
        "the proxy {url} cannot be used: it must be a URL such as http://proxy.contoso.example:8080"
    )]
    Proxy {
        /// As given, but for a user and a password.
        url: String,
    },
    /// Anything else, such as a machine without certificate authorities.
    #[error("failed to set up HTTPS: {0}")]
    Tls(String),
}

/// Microsoft Graph's origins with passes, as documented: global and GCC, US Gov L4, US Gov L5.
const CLOUDS: [&str; 3] =
    ["https://graph.microsoft.com", "https://graph.microsoft.us", "https://dod-graph.microsoft.us"];

/// A base URL that is https, or http to loopback. No user, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// Takes a URL if it is safe to send a token to; trailing slashes are dropped.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let insecure = || NetworkError::Insecure { url: without_login(text) };
        let url = reqwest::Url::parse(text).map_err(|_| insecure())?;
        let bare = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let safe = match url.scheme() {
            "https" => url.host_str().is_some(),
            "http" => url.host_str().is_some_and(is_loopback),
            _ => false,
        };
        if !(bare && safe) {
            return Err(insecure());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The same for Graph's address, with or without the version that ends it where people
    /// copy it from.
    pub fn parse_graph(text: &str) -> Result<Self, NetworkError> {
        let bare = text.trim_end_matches('/');
        Self::parse(bare.strip_suffix("/v1.0").unwrap_or(bare))
    }

    /// The public cloud's.
    #[must_use]
    pub fn global() -> Self {
        Self("https://graph.microsoft.com".to_owned())
    }

    /// Whether this is Microsoft Graph in one of Microsoft's clouds.
    #[must_use]
    pub fn is_microsofts(&self) -> bool {
        CLOUDS.contains(&self.as_str())
    }

    /// Where to sign in to Microsoft's clouds: the US Government's, or the public one.
    #[must_use]
    pub fn authority(us_government: bool) -> Self {
        let host = if us_government { "us" } else { "com" };
        Self(format!("https://login.microsoftonline.{host}"))
    }

    /// The URL without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_http(&self) -> bool {
        self.0.starts_with("http://")
    }
}

/// An address for people: the place that is reached, whatever else looks like one. In what is no
/// address, because of the signs in it, what stands before an `@` may be a password.
pub fn without_login(url: &str) -> String {
    // Of an address, only what stands before its path can hold a login. One without a scheme is
    // taken for http by what uses it.
    let begin = url.find("://").map_or(0, |at| at + 3);
    let parsed = match begin {
        0 => reqwest::Url::parse(&format!("http://{url}")),
        _ => reqwest::Url::parse(url),
    };
    let end = match parsed {
        Ok(_) => url[begin..].find(['/', '\\', '?', '#']).map_or(url.len(), |at| begin + at),
        Err(_) => url.len(),
    };
    let shown =
        url[..end].rfind('@').map_or_else(|| url.to_owned(), |at| format!("…{}", &url[at..]));
    tapwave_core::shown::plain(&shown)
}

/// Whether a host is this machine by its address. Names are not asked of the network:
/// `localhost` is taken at its word, as RFC 6761 says.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What we call ourselves.
pub(super) const AGENT: &str = concat!("tapwave/", env!("CARGO_PKG_VERSION"));
/// Of a connection or an answer that did not come.
pub(super) const NO_ANSWER: &str = "no answer in time";

/// A client for signing in, with every bound and refusal that this file promises. `base` decides
/// whether plain http is possible at all. Over its connections no pass may come.
pub fn client(network: &Network, base: &BaseUrl) -> Result<reqwest::Client, NetworkError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .https_only(!base.is_http())
        .tls_backend_rustls()
        .tls_version_min(reqwest::tls::Version::TLS_1_2)
        .redirect(reqwest::redirect::Policy::none())
        // Over HTTP/2 the library would by itself re-send a POST after REFUSED_STREAM or a
        // graceful GOAWAY, behind the intent's back.
        .retry(reqwest::retry::never())
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .timeout(limits::REQUEST_TIMEOUT)
        .pool_idle_timeout(limits::IDLE_TIMEOUT)
        .pool_max_idle_per_host(limits::MAX_IN_FLIGHT)
        .tcp_nodelay(true);
    if let Some(url) = &network.proxy {
        let proxy = reqwest::Proxy::all(url)
            .map_err(|_| NetworkError::Proxy { url: without_login(url) })?;
        builder = builder.proxy(proxy);
    } else if base.is_http() {
        // A rehearsal on this machine is never meant for the company's proxy.
        builder = builder.no_proxy();
    }
    let authorities = authorities(network)?;
    if !authorities.is_empty() {
        let certificate = |der: CertificateDer<'_>| reqwest::Certificate::from_der(&der);
        let certificates: Result<Vec<_>, _> = authorities.into_iter().map(certificate).collect();
        let unfit = |error: reqwest::Error| NetworkError::Tls(innermost(&error));
        builder = builder.tls_certs_merge(certificates.map_err(unfit)?);
    }
    builder.build().map_err(|error| NetworkError::Tls(innermost(&error)))
}

/// The certificate authorities that are trusted besides the system's.
pub(super) fn authorities(network: &Network) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
    let Some(path) = &network.ca_file else { return Ok(Vec::new()) };
    let broken = |why: String| NetworkError::CaFile { path: path.clone(), why };
    let pem = read_small(path).map_err(|error| broken(error.to_string()))?;
    let pem = pem.ok_or_else(|| broken("it is too large for certificates".to_owned()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates =
        certificates.map_err(|_| broken("it is not a PEM file of certificates".to_owned()))?;
    if certificates.is_empty() {
        return Err(broken("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// A client for the identity endpoint of an Azure machine, which speaks plain http at an
/// address of the machine itself and is never behind a proxy.
pub fn metadata_client() -> Result<reqwest::Client, NetworkError> {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .timeout(limits::REQUEST_TIMEOUT)
        .build()
        .map_err(|error| NetworkError::Tls(innermost(&error)))
}

/// Graph at a base URL, with tokens from a [`Bearer`].
pub struct Http {
    client: legacy::Client<Connector, Full<Bytes>>,
    base: String,
    bearer: Arc<dyn Bearer>,
    network: Network,
}

impl Http {
    /// Sends to `base` + `/v1.0`.
    pub fn new(
        network: &Network,
        base: &BaseUrl,
        bearer: Arc<dyn Bearer>,
    ) -> Result<Self, NetworkError> {
        // It sends again only what it has not begun to send. All else that could is reqwest's.
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::IDLE_TIMEOUT)
            .pool_max_idle_per_host(limits::MAX_IN_FLIGHT)
            // A buffer that grew with a long answer would not be used from its beginning again
            // before it is full: what was read would stay in front of what is free.
            .http1_read_buf_exact_size(limits::HTTP_BUFFER_BYTES)
            .build(Connector::new(network, base)?);
        let base = format!("{}/v1.0", base.as_str());
        Ok(Self { client, base, bearer, network: network.clone() })
    }

    async fn send(&self, request: &Request) -> Result<Response, Broken> {
        let token = self.bearer.token().await?;
        let request = self.written(request, &token)?;
        let answered = async {
            let response = match self.client.request(request).await {
                Ok(response) => response,
                Err(error) => return Err(self.broken(error).await),
            };
            let status = response.status().as_u16();
            let headers = response.headers();
            if let Some(between) = Intermediary::of_head(GRAPH, status, headers, &self.network) {
                return Err(Broken::Between(between.to_string()));
            }
            if (300..400).contains(&status)
                && let to = text(headers, "location")
                && let Some(page) = Intermediary::page(GRAPH, status, to.as_deref(), None, b"")
            {
                return Err(Broken::Stranger(page.to_string()));
            }
            if challenges(&response) {
                return Err(Broken::SignIn(CLAIMS.to_owned()));
            }
            let kind = text(headers, "content-type");
            let answer = receive(response).await?;
            // What the body alone shows is judged with the rest of the answer.
            match kind
                .and_then(|kind| Intermediary::page(GRAPH, status, None, Some(&kind), &answer.body))
            {
                Some(page) => Err(Broken::Stranger(page.to_string())),
                None => Ok(answer),
            }
        };
        let in_time = tokio::time::timeout(limits::REQUEST_TIMEOUT, answered).await;
        in_time.unwrap_or_else(|_| Err(Broken::Lost(NO_ANSWER.to_owned())))
    }

    fn written(
        &self,
        request: &Request,
        token: &SecretString,
    ) -> Result<hyper::Request<Full<Bytes>>, Broken> {
        let unfit = |why: String| Broken::NotSent(tapwave_core::shown::plain(&why));
        // Whatever a link of Graph's holds that an address may not is escaped.
        let url = reqwest::Url::parse(&format!("{}{}", self.base, request.target));
        let url = url.map_err(|error| unfit(error.to_string()))?;
        let to = Uri::try_from(url.as_str()).map_err(|error| unfit(error.to_string()))?;
        let bearer = Zeroizing::new(format!("Bearer {}", token.expose_secret()));
        let mut bearer =
            HeaderValue::from_str(&bearer).map_err(|error| unfit(error.to_string()))?;
        bearer.set_sensitive(true);
        let mut written = hyper::Request::builder()
            .method(request.method.as_str())
            .uri(to)
            .header(USER_AGENT, AGENT)
            .header(AUTHORIZATION, bearer)
            .header("client-request-id", request.client_request_id.to_string())
            .header("return-client-request-id", "true")
            .header("accept", accept(&request.target));
        if request.eventual {
            written = written.header("consistencylevel", "eventual");
        }
        if request.body.is_some() {
            written = written.header("content-type", "application/json");
        }
        let body = Bytes::from(request.body.clone().unwrap_or_default());
        written.body(Full::new(body)).map_err(|error| unfit(error.to_string()))
    }

    /// Only a connection that was never made is certain to have sent nothing.
    async fn broken(&self, error: legacy::Error) -> Broken {
        let why = innermost(&error);
        if !error.is_connect() {
            return Broken::Lost(why);
        }
        let between = match reqwest::Url::parse(&self.base) {
            Ok(url) => Intermediary::of_error(GRAPH, &url, &error, &self.network).await,
            Err(_) => None,
        };
        between.map_or(Broken::NotSent(why), |between| Broken::Between(between.to_string()))
    }
}

impl Transport for Http {
    fn exchange<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, Broken>> {
        Box::pin(self.send(request))
    }

    fn base(&self) -> &str {
        &self.base
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), Broken>> {
        Box::pin(async { Ok(self.bearer.token().await.map(drop)?) })
    }

    fn renew_token(&self) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(self.bearer.forget()))
    }
}

/// What Graph means by a claims challenge, in our words.
const CLAIMS: &str = "Graph asks for a new sign-in that meets a conditional access policy (a claims challenge): the account was changed, its sessions were revoked, or its network is not allowed; sign in again from where that is permitted";

/// Whether a 401 is a claims challenge: the token is good but not good enough any more.
fn challenges(response: &hyper::Response<Incoming>) -> bool {
    let wants = |text: String| text.contains("insufficient_claims") || text.contains("claims=");
    response.status().as_u16() == 401
        && text(response.headers(), "www-authenticate").is_some_and(wants)
}

/// Counts are plain text (documented); errors and everything else are JSON.
fn accept(target: &str) -> &'static str {
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("/$count") { "text/plain, application/json" } else { "application/json" }
}

async fn receive(response: hyper::Response<Incoming>) -> Result<Response, Broken> {
    let (head, mut incoming) = response.into_parts();
    let headers = &head.headers;
    let answer = Response {
        status: head.status.as_u16(),
        retry_after: text(headers, "retry-after"),
        date: text(headers, "date")
            .and_then(|date| httpdate::parse_http_date(&date).ok())
            .and_then(|date| Timestamp::try_from(date).ok()),
        request_id: text(headers, "request-id"),
        load: text(headers, "x-ms-throttle-limit-percentage").and_then(|text| text.parse().ok()),
        body: Zeroizing::new(Vec::new()),
    };
    // The promised length, so that a body with a pass seldom has to move while it grows.
    let promised = incoming.size_hint().exact().unwrap_or(2048);
    let promised = usize::try_from(promised).unwrap_or(usize::MAX).min(limits::MAX_RESPONSE_BYTES);
    let mut body = Zeroizing::new(Vec::with_capacity(promised));
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| Broken::Lost(innermost(&error)))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if body.len() + chunk.len() > limits::MAX_RESPONSE_BYTES {
            let max = limits::MAX_RESPONSE_BYTES;
            return Err(Broken::Lost(format!("the answer is longer than {max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { body, ..answer })
}

fn text(headers: &HeaderMap, name: &'static str) -> Option<String> {
    headers.get(HeaderName::from_static(name))?.to_str().ok().map(ToOwned::to_owned)
}

/// The first cause, in one line: what lies over it only says that sending failed.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    tapwave_core::shown::plain(&innermost.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_https_or_to_this_machine() {
        for good in [
            "https://graph.microsoft.com",
            "https://graph.microsoft.us/",
            "http://127.0.0.1:8080",
            "http://localhost:1/base/",
            "http://[::1]:9",
        ] {
            assert!(BaseUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://graph.microsoft.com",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "ftp://127.0.0.1",
            "https://user:secret@graph.microsoft.com",
            "https://graph.microsoft.com/?x=1",
            "graph.microsoft.com",
            "",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn graphs_version_may_stand_behind_its_address() {
        for text in ["https://graph.microsoft.us", "https://graph.microsoft.us/v1.0/"] {
            let graph = BaseUrl::parse_graph(text).expect("an address");
            assert_eq!(graph.as_str(), "https://graph.microsoft.us");
        }
    }

    #[test]
    fn no_error_quotes_a_password() {
        let given = "https://ada:hunter2@graph.microsoft.com";
        let error = BaseUrl::parse(given).expect_err("a login").to_string();
        assert!(error.contains("…@graph.microsoft.com") && !error.contains("hunter2"), "{error}");
        let proxy = Some("http://ada:hunter2#/@proxy.contoso.example:8080".to_owned());
        let network = Network { proxy, ..Network::default() };
        let error = client(&network, &BaseUrl::global()).expect_err("malformed").to_string();
        assert!(error.contains("proxy.contoso.example") && !error.contains("hunter2"), "{error}");
    }
}
