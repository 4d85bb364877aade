//! Promises that a person can sign in: in the browser (PKCE, a redirect to this machine) or
//! with a code on another device. The refresh token stays in memory.
//!
//! Must never print a code that the platform gives back, a token, or the address with them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use oauth2::basic::{BasicClient, BasicTokenResponse};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, CsrfToken, DeviceAuthorizationUrl, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, PkceCodeChallenge, RedirectUrl, RefreshToken,
    RequestTokenError, Scope, StandardDeviceAuthorizationResponse, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::explain::{PLACE, platform};
use super::line::{Watched, without_secrets};
use crate::between::Intermediary;
use crate::http::{BaseUrl, NoToken};
use crate::verdict::retry_after;
use tapwave_core::clock::Clock;
use tapwave_core::limits;
use tapwave_core::programs::browse;
use tapwave_core::shown::plain;

/// Says a line to the person who signs in.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// The ways a person can sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PersonFlow {
    /// In the browser of this machine.
    Browser,
    /// With a code, on any device.
    DeviceCode,
}

/// A person about to sign in, or signed in.
pub(super) struct SigningIn {
    way: PersonFlow,
    client: Client,
    scopes: Vec<Scope>,
    line: SignInHttp,
    tell: Tell,
    refresh: Mutex<Option<SecretString>>,
}

/// Which application a person signs in to, where, and for what.
pub(super) struct App<'a> {
    /// Tenant id or domain.
    pub(super) tenant: &'a str,
    /// The public client's id.
    pub(super) id: &'a str,
    /// Where to sign in.
    pub(super) authority: &'a BaseUrl,
    /// Permissions to ask for.
    pub(super) scopes: &'a [String],
}

/// An access token and how long it is good.
pub(super) struct Fresh {
    pub(super) token: SecretString,
    pub(super) good_for: Duration,
}

type Client = BasicClient<EndpointSet, EndpointSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// What is said when the platform names no end: Microsoft's shortest.
const UNSAID_LIFE: Duration = Duration::from_hours(1);

impl SigningIn {
    pub(super) fn new(
        way: PersonFlow,
        app: &App<'_>,
        way_there: Watched,
        clock: Clock,
        tell: Tell,
    ) -> Result<Self, String> {
        let App { tenant, id, authority, scopes } = app;
        let place = |path: &str| format!("{}/{tenant}/oauth2/v2.0/{path}", authority.as_str());
        let wrong = |_| format!("{tenant} is no tenant id or domain");
        let client = BasicClient::new(ClientId::new((*id).to_owned()))
            .set_auth_uri(AuthUrl::new(place("authorize")).map_err(wrong)?)
            .set_device_authorization_url(
                DeviceAuthorizationUrl::new(place("devicecode")).map_err(wrong)?,
            )
            .set_token_uri(TokenUrl::new(place("token")).map_err(wrong)?);
        let scopes = scopes.iter().cloned().chain(["offline_access".to_owned()]).map(Scope::new);
        let scopes = scopes.collect();
        let line = SignInHttp { way_there, clock };
        Ok(Self { way, client, scopes, line, tell, refresh: Mutex::default() })
    }

    /// Signs in, or renews what was had without asking again.
    pub(super) async fn token(&self) -> Result<Fresh, NoToken> {
        let mut refresh = self.refresh.lock().await;
        let answer = match refresh.as_ref() {
            Some(token) => self.renewed(token).await?,
            None if self.way == PersonFlow::Browser => self.in_browser().await?,
            None => self.with_code().await?,
        };
        if let Some(token) = answer.refresh_token() {
            *refresh = Some(token.secret().as_str().into());
        }
        Ok(Fresh {
            token: answer.access_token().secret().as_str().into(),
            good_for: answer.expires_in().unwrap_or(UNSAID_LIFE),
        })
    }

    async fn renewed(&self, token: &SecretString) -> Result<BasicTokenResponse, NoToken> {
        let token = RefreshToken::new(token.expose_secret().to_owned());
        let send = self.line();
        let request = self.client.exchange_refresh_token(&token).add_scopes(self.scopes.clone());
        request.request_async(&send).await.map_err(|error| no_token(&error))
    }

    async fn with_code(&self) -> Result<BasicTokenResponse, NoToken> {
        let send = self.line();
        let request = self.client.exchange_device_code().add_scopes(self.scopes.clone());
        let details: StandardDeviceAuthorizationResponse =
            request.request_async(&send).await.map_err(|error| no_token(&error))?;
        (self.tell)(&format!(
            "to sign in, open {} in any browser and enter the code {}",
            plain(details.verification_uri()),
            plain(details.user_code().secret())
        ));
        let clock = self.line.clock.clone();
        let sleep = move |time| -> BoxFuture<'static, ()> {
            let clock = clock.clone();
            Box::pin(async move { clock.sleep(time).await })
        };
        let request = self.client.exchange_device_access_token(&details);
        let answer = request.request_async(&send, sleep, None).await;
        answer.map_err(|error| no_token(&error))
    }

    async fn in_browser(&self) -> Result<BasicTokenResponse, NoToken> {
        let listening = |error: std::io::Error| {
            NoToken::Denied(format!("no port of this machine is free: {error}"))
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(listening)?;
        let port = listener.local_addr().map_err(listening)?.port();
        let redirect = RedirectUrl::new(format!("http://localhost:{port}"))
            .map_err(|error| NoToken::Denied(error.to_string()))?;
        let client = self.client.clone().set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state) = client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(self.scopes.clone())
            .set_pkce_challenge(challenge)
            .url();
        (self.tell)(&format!("to sign in, a browser opens; if none does, open {url}"));
        browse(url.as_str());
        let code = tokio::select! {
            code = redirected(&listener, state.secret()) => code.map_err(NoToken::Denied)?,
            () = self.line.clock.sleep(limits::SIGN_IN_WAIT) => {
                let why = "nobody signed in within five minutes".to_owned();
                return Err(NoToken::Denied(why));
            }
        };
        let send = self.line();
        let request = client.exchange_code(code).set_pkce_verifier(verifier);
        request.request_async(&send).await.map_err(|error| no_token(&error))
    }

    /// The library's client: whole and owned, because its futures move between threads.
    fn line(&self) -> impl Fn(HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        let line = self.line.clone();
        move |request| {
            let line = line.clone();
            Box::pin(async move { line.send(request).await })
        }
    }
}

/// The way to the sign-in address.
#[derive(Clone)]
struct SignInHttp {
    way_there: Watched,
    clock: Clock,
}

impl SignInHttp {
    /// One request, repeated while the platform throttles.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
        let mut tries = 0;
        loop {
            let answer = self.once(request.clone()).await?;
            tries += 1;
            match answer.status().as_u16() {
                429 | 503 if tries <= limits::SIGN_IN_RETRIES => {}
                429 | 500.. => return Err(NoAnswer::Unreachable("it cannot answer now")),
                _ => return Ok(answer),
            }
            let asked = answer.headers().get("retry-after");
            let asked = asked.and_then(|value| value.to_str().ok());
            let wait = asked.and_then(|text| retry_after(text, self.clock.now()));
            let wait = wait.unwrap_or(limits::FIRST_HOLD).min(limits::SIGN_IN_PATIENCE);
            self.clock.sleep(wait).await;
        }
    }

    async fn once(&self, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
        let (head, body) = request.into_parts();
        let Watched { client, network } = &self.way_there;
        let to = head.uri.to_string();
        let asked = body.clone();
        let sent = client.request(head.method, &to).headers(head.headers).body(body).send().await;
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                let url = reqwest::Url::parse(&to).ok();
                let found = match &url {
                    Some(url) => Intermediary::of_error(PLACE, url, &error, network).await,
                    None => None,
                };
                return Err(found.map_or_else(|| unreached(&error), NoAnswer::Between));
            }
        };
        let status = sent.status();
        let mut answer = oauth2::http::Response::builder().status(status);
        for (name, value) in sent.headers() {
            answer = answer.header(name, value);
        }
        let location = sent.headers().get("location").and_then(|to| to.to_str().ok());
        let location = location.map(ToOwned::to_owned);
        let body = sent.bytes().await.map_err(|error| unreached(&error))?;
        // A page is known by its body, when it cannot be read: what breaks here is tried again
        // while a person is waited for.
        if status.is_redirection()
            && let Some(page) =
                Intermediary::page(PLACE, status.as_u16(), location.as_deref(), None, b"")
        {
            return Err(NoAnswer::Between(page));
        }
        let quoted = without_secrets(&asked, status.is_success(), &body);
        answer
            .body(quoted.unwrap_or_else(|| body.to_vec()))
            .map_err(|_| NoAnswer::Unreachable("its answer makes no sense"))
    }
}

fn unreached(error: &reqwest::Error) -> NoAnswer {
    let why = if error.is_timeout() { "no answer in time" } else { "it cannot be reached" };
    NoAnswer::Unreachable(why)
}

/// The sign-in address brought no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// It may later.
    #[error("the sign-in address: {0}")]
    Unreachable(&'static str),
    /// Something stands in between.
    #[error("{0}")]
    Between(Intermediary),
}

fn no_token<T>(error: &RequestTokenError<NoAnswer, T>) -> NoToken
where
    T: oauth2::ErrorResponse + std::fmt::Display + 'static,
{
    match error {
        RequestTokenError::ServerResponse(answer) => NoToken::Denied(platform(&answer.to_string())),
        RequestTokenError::Request(unsent @ NoAnswer::Unreachable(_)) => {
            NoToken::Unreachable(unsent.to_string())
        }
        RequestTokenError::Request(NoAnswer::Between(between)) => {
            NoToken::Between(between.to_string())
        }
        RequestTokenError::Parse(_, body) => match Intermediary::of_body(PLACE, body) {
            Some(page) => NoToken::Between(page.to_string()),
            None => NoToken::Denied(format!("the answer of {PLACE} cannot be read")),
        },
        RequestTokenError::Other(why) => NoToken::Denied(plain(why)),
    }
}

/// Waits for the browser to come back with the code. Other requests are turned away.
async fn redirected(listener: &TcpListener, state: &str) -> Result<AuthorizationCode, String> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let Some(answer) = asked(&mut stream).await else { continue };
        let value = |name: &str| {
            answer.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        // A page that guesses the port has no state, and is not listened to.
        if value("state").as_deref() != Some(state) {
            reply(&mut stream, "404 Not Found", "There is nothing here.").await;
            continue;
        }
        if let Some(code) = value("code") {
            reply(&mut stream, "200 OK", "You are signed in. You may close this page.").await;
            return Ok(AuthorizationCode::new(code));
        }
        reply(&mut stream, "200 OK", "You are not signed in. You may close this page.").await;
        let why = value("error_description").or_else(|| value("error"));
        return Err(platform(&why.unwrap_or_else(|| "the browser brought no code".to_owned())));
    }
}

/// The address that the browser asks for.
async fn asked(stream: &mut TcpStream) -> Option<reqwest::Url> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() > limits::MAX_REDIRECT_BYTES || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("GET ")?.split(' ').next()?;
    reqwest::Url::parse("http://localhost").ok()?.join(target).ok()
}

async fn reply(stream: &mut TcpStream, status: &str, words: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{words}",
        words.len()
    );
    // The browser may be gone already; what it brought counts.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}
