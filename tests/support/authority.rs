//! Promises a token endpoint over TLS, under a private certificate authority, that speaks as
//! the identity platform does: it checks what it is shown, and remembers every request.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

/// Everything that a run may need.
pub(crate) const PERMISSIONS: &str = "UserAuthMethod-TAP.ReadWrite.All \
     Policy.ReadWrite.AuthenticationMethod User.Read.All GroupMember.Read.All";
pub(crate) const TENANT: &str = "contoso.example";
pub(crate) const CLIENT: &str = "6b3b3c0e-0000-4000-8000-000000000001";
pub(crate) const SECRET: &str = "the-right-secret";

/// What the endpoint answers once in place of what is due.
pub(crate) enum Instead {
    /// What is due, after all.
    Due,
    /// An error of the platform with this AADSTS text.
    Refused(&'static str),
    /// 429 with Retry-After of a second.
    Throttled,
    /// 503 without more.
    Down,
    /// 503 in HTML, as a gateway words it.
    DownInHtml,
    /// A proxy's page.
    WebPage,
    /// `authorization_pending` or `slow_down`.
    Pending(&'static str),
}

/// An endpoint being served. Ends with the runtime it was started on.
#[derive(Clone)]
pub(crate) struct Authority {
    address: SocketAddr,
    ca_pem: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    asked: Vec<HashMap<String, String>>,
    instead: VecDeque<Instead>,
    /// Seconds a token lives.
    life: u64,
    permissions: String,
    minted: u64,
    /// The challenge of the latest visit of a browser.
    challenge: String,
    /// The public key and thumbprint that are registered.
    registered: Option<(Vec<u8>, String)>,
    /// Where the tenant hears which token is good now.
    control: Option<String>,
}

type Answer = hyper::Response<Full<Bytes>>;

impl Authority {
    /// Opens any free port.
    pub(crate) async fn open() -> Self {
        let (ca_pem, acceptor) = tls();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = State { life: 3600, permissions: PERMISSIONS.into(), ..State::default() };
        let authority = Self { address, ca_pem, state: Arc::new(Mutex::new(state)) };
        tokio::spawn(authority.clone().accept(listener, acceptor));
        authority
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The private authority's certificate, for `--ca-file`.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every form that was posted to the token endpoint.
    pub(crate) fn asked(&self) -> Vec<HashMap<String, String>> {
        self.lock().asked.clone()
    }

    /// The latest token.
    pub(crate) fn latest(&self) -> String {
        self.lock().token("latest")
    }

    pub(crate) fn answers(&self, instead: impl IntoIterator<Item = Instead>) {
        self.lock().instead.extend(instead);
    }

    pub(crate) fn tokens_live(&self, seconds: u64) {
        self.lock().life = seconds;
    }

    pub(crate) fn permits(&self, permissions: &str) {
        permissions.clone_into(&mut self.lock().permissions);
    }

    /// Registers a client certificate, by its public key and its bytes.
    pub(crate) fn registers(&self, key: &KeyPair, certificate: &[u8]) {
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate));
        self.lock().registered = Some((key.public_key_raw().to_vec(), thumbprint));
    }

    /// From now on the tenant takes the latest token and no other.
    pub(crate) fn tells(&self, graph: &str) {
        self.lock().control = Some(graph.replace("/v1.0", "/control/break"));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self, listener: TcpListener, acceptor: TlsAcceptor) {
        while let Ok((stream, _)) = listener.accept().await {
            let (authority, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request| {
                    let authority = authority.clone();
                    async move { Ok::<_, Infallible>(authority.answer(request).await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                // Errors here are clients that went away.
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let path = head.uri.path().to_owned();
        let form: HashMap<String, String> = pairs(&body);
        match path.rsplit('/').next() {
            Some("authorize") => self.browse(&pairs(head.uri.query().unwrap_or("").as_bytes())),
            Some("devicecode") => reply(
                200,
                &json!({
                    "device_code": "d3vice", "user_code": "ABCD-EFGH", "expires_in": 900, "interval": 1,
                    "verification_uri": "https://login.contoso.example/device", "message": "…",
                }),
            ),
            Some("token") => {
                let answer = self.token(&form);
                let (control, token) = {
                    let state = self.lock();
                    (state.control.clone(), state.token("latest"))
                };
                if let (200, Some(control)) = (answer.status().as_u16(), control) {
                    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                    let told = client.post(control).json(&json!({"token": token})).send().await;
                    assert!(told.expect("an answer").status().is_success());
                }
                answer
            }
            _ => reply(404, &json!({"error": "not_found"})),
        }
    }

    /// A visit of a browser in which somebody signs in at once.
    fn browse(&self, query: &HashMap<String, String>) -> Answer {
        assert_eq!(query["code_challenge_method"], "S256");
        self.lock().challenge.clone_from(&query["code_challenge"]);
        let to = format!("{}/?code=c0de&state={}", query["redirect_uri"], query["state"]);
        let head = hyper::Response::builder().status(302).header("location", to);
        head.body(Full::default()).expect("valid headers")
    }

    fn token(&self, form: &HashMap<String, String>) -> Answer {
        let mut state = self.lock();
        state.asked.push(form.clone());
        match state.instead.pop_front() {
            None | Some(Instead::Due) => {}
            Some(instead) => return instead.reply(),
        }
        let delegated = match state.admits(form, &self.url()) {
            Ok(delegated) => delegated,
            Err(refusal) => return Instead::Refused(refusal).reply(),
        };
        state.minted += 1;
        let kind = if delegated { "scp" } else { "roles" };
        let mut answer = json!({
            "token_type": "Bearer", "expires_in": state.life, "ext_expires_in": state.life,
            "access_token": state.token(kind),
        });
        if delegated {
            answer["refresh_token"] = json!(format!("refresh-{}", state.minted));
        }
        reply(200, &answer)
    }
}

impl State {
    /// The latest token. Whether it is a person's or an application's is in its claims, of
    /// which the tenant reads nothing.
    fn token(&self, kind: &str) -> String {
        let kind = if kind == "latest" {
            let person =
                self.asked.last().is_some_and(|form| form["grant_type"] != "client_credentials");
            if person { "scp" } else { "roles" }
        } else {
            kind
        };
        let permissions = match kind {
            "scp" => json!(self.permissions),
            _ => self.permissions.split_whitespace().collect::<Value>(),
        };
        let claims = json!({
            "tid": TENANT, "appid": CLIENT, "upn": "admin@contoso.example", "jti": self.minted,
            kind: permissions,
        });
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    /// Whether what was shown is right; true for a person.
    fn admits(&self, form: &HashMap<String, String>, url: &str) -> Result<bool, &'static str> {
        let shown = |name: &str| form.get(name).map_or("", String::as_str);
        match shown("grant_type") {
            "client_credentials" if form.contains_key("client_secret") => {
                let wrong = "AADSTS7000215: Invalid client secret provided.";
                (shown("client_secret") == SECRET).then_some(false).ok_or(wrong)
            }
            "client_credentials" if shown("client_assertion") == "federated" => Ok(false),
            "client_credentials" => self.verify(shown("client_assertion"), url).map(|()| false),
            "authorization_code" => {
                let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(shown("code_verifier")));
                let wrong = "AADSTS501481: The Code_Verifier does not match.";
                (shown("code") == "c0de" && hash == self.challenge).then_some(true).ok_or(wrong)
            }
            "refresh_token" if shown("refresh_token").starts_with("refresh-") => Ok(true),
            "urn:ietf:params:oauth:grant-type:device_code" => Ok(true),
            _ => Err("AADSTS70003: The grant type is not supported."),
        }
    }

    fn verify(&self, assertion: &str, url: &str) -> Result<(), &'static str> {
        const NO: &str =
            "AADSTS700027: The certificate used to sign the client assertion is not registered.";
        let (key, thumbprint) = self.registered.as_ref().ok_or(NO)?;
        let (signed, signature) = assertion.rsplit_once('.').ok_or(NO)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| NO)?;
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| NO)?;
        let mut parts = signed.split('.').map(|part| {
            let part = URL_SAFE_NO_PAD.decode(part).expect("base64");
            serde_json::from_slice::<Value>(&part).expect("JSON")
        });
        let (head, claims) = (parts.next().expect("a head"), parts.next().expect("claims"));
        let endpoint = format!("{url}/{TENANT}/oauth2/v2.0/token");
        let good = head["alg"] == "PS256"
            && head["x5t#S256"] == thumbprint.as_str()
            && claims["aud"] == endpoint.as_str()
            && claims["iss"] == CLIENT
            && claims["sub"] == CLIENT
            && claims["exp"].as_i64() > claims["nbf"].as_i64();
        if good { Ok(()) } else { Err(NO) }
    }
}

impl Instead {
    fn reply(self) -> Answer {
        match self {
            Self::Refused(text) => {
                let code = text.trim_start_matches("AADSTS").split(':').next();
                let code: i64 = code.and_then(|code| code.parse().ok()).expect("a code");
                let error = json!({
                    "error": "invalid_client", "error_description": text, "error_codes": [code],
                    "timestamp": "2026-03-01 08:00:00Z", "trace_id": "t", "correlation_id": "c",
                });
                reply(401, &error)
            }
            Self::Pending(error) => {
                reply(400, &json!({"error": error, "error_description": "AADSTS70016: Pending."}))
            }
            Self::Throttled => {
                let mut answer = reply(429, &json!({"error": "temporarily_unavailable"}));
                answer.headers_mut().insert("retry-after", "1".parse().expect("a header"));
                answer
            }
            Self::Due | Self::Down => reply(503, &json!({"error": "temporarily_unavailable"})),
            Self::DownInHtml => {
                let page = Full::new(Bytes::from_static(b"<html><h1>503</h1></html>"));
                let head = hyper::Response::builder().status(503);
                head.header("content-type", "text/html").body(page).expect("valid headers")
            }
            Self::WebPage => {
                let page =
                    Full::new(Bytes::from_static(b"<html><h1>Blocked by policy</h1></html>"));
                hyper::Response::builder().status(403).body(page).expect("valid headers")
            }
        }
    }
}

fn reply(status: u16, body: &Value) -> Answer {
    let head = hyper::Response::builder().status(status).header("content-type", "application/json");
    head.body(Full::new(Bytes::from(body.to_string()))).expect("valid headers")
}

fn pairs(text: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(text);
    let url = reqwest::Url::parse(&format!("http://localhost/?{text}")).expect("a query");
    url.query_pairs().into_owned().collect()
}

/// Another private authority, under which nothing was issued.
pub(crate) fn other_ca_pem() -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("a certificate").pem()
}

/// A private authority and a server certificate under it.
fn tls() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = CertificateParams::new(names).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a configuration");
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}
