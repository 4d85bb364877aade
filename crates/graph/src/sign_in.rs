//! Promises access tokens for Graph, from every source the settings can name, kept in
//! memory alone and renewed before they end.
//!
//! Must never print, log or store a token or a secret. The ways of signing in are
//! `azure_identity`'s; this module chooses, caches and explains.

pub mod certificate;
mod explain;
mod line;
pub mod permissions;
pub mod person;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::certificate::{Asserted, Certificate};
use self::line::Watched;
use self::permissions::Need;
use self::person::{App, Fresh, PersonFlow, SigningIn, Tell};

use crate::http::{BaseUrl, Bearer, Network, NoToken, metadata_client};
use tapwave_core::clock::Clock;
use tapwave_core::limits;
use tapwave_core::programs::program;

/// Microsoft Graph Command Line Tools: a public client that most tenants have.
const PUBLIC_CLIENT: &str = "14d82eec-204b-4c2f-b7e8-296a70dab67e";
/// The tenant of whoever signs in.
const ANY_TENANT: &str = "organizations";

/// How to sign in.
pub enum SignInMethod {
    /// An access token that the operator brings; used as it is.
    Token(SecretString),
    /// An app registration's secret.
    ClientSecret {
        /// Tenant id or domain.
        tenant: String,
        client: String,
        secret: SecretString,
    },
    /// An app registration's certificate.
    ClientCertificate {
        /// Tenant id or domain.
        tenant: String,
        client: String,
        /// The certificate and its key.
        certificate: Arc<Certificate>,
    },
    /// A person, in the browser or with a code.
    Person {
        /// Which of the two.
        way: PersonFlow,
        /// Tenant id or domain; else whoever's.
        tenant: Option<String>,
        /// A public client's id; else Microsoft's own.
        client: Option<String>,
    },
    /// A federated token in a file, as Kubernetes and pipelines give.
    WorkloadIdentity {
        /// Tenant id; else `AZURE_TENANT_ID`.
        tenant: Option<String>,
        /// The application's id; else `AZURE_CLIENT_ID`.
        client: Option<String>,
        /// The token's file; else `AZURE_FEDERATED_TOKEN_FILE`.
        token_file: Option<PathBuf>,
    },
    /// The identity of the Azure machine this runs on.
    ManagedIdentity {
        /// A user-assigned identity's client id.
        client: Option<String>,
    },
    /// Whoever is signed in to the Azure CLI; useful for service principals.
    AzureCli {
        /// Tenant id or domain.
        tenant: Option<String>,
    },
}

impl SignInMethod {
    /// The name as `--auth` spells it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::ClientSecret { .. } => "client-secret",
            Self::ClientCertificate { .. } => "client-certificate",
            Self::Person { way: PersonFlow::Browser, .. } => "interactive",
            Self::Person { way: PersonFlow::DeviceCode, .. } => "device-code",
            Self::WorkloadIdentity { .. } => "workload-identity",
            Self::ManagedIdentity { .. } => "managed-identity",
            Self::AzureCli { .. } => "azure-cli",
        }
    }
}

/// Where tokens come from and where they are for.
pub struct Endpoints<'a> {
    /// Graph's origin, which names the scope.
    pub graph: &'a BaseUrl,
    /// Where to sign in.
    pub authority: BaseUrl,
    /// What a person is asked to consent to.
    pub needs: &'a [Need],
    /// How to reach that.
    pub network: &'a Network,
    /// Says to a person what to do.
    pub tell: Tell,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The library does not take the settings.
    #[error("cannot sign in with {method}: {why}")]
    Settings {
        /// As `--auth` spells it.
        method: &'static str,
        /// In the library's words.
        why: String,
    },
    /// The identity platform said no.
    #[error("failed to sign in with {method}: {why}")]
    SignIn {
        /// As `--auth` spells it.
        method: &'static str,
        /// In the platform's words.
        why: String,
    },
    /// Something stands between us and the identity platform.
    #[error("failed to sign in with {method}: {why}")]
    Between {
        /// As `--auth` spells it.
        method: &'static str,
        /// What it is, and what to do about it.
        why: String,
    },
    /// The identity platform did not answer, or cannot now.
    #[error("failed to sign in with {method}: {why}")]
    Outage {
        /// As `--auth` spells it.
        method: &'static str,
        why: String,
    },
}

/// A source of tokens for one Graph endpoint.
pub struct SignIn {
    method: &'static str,
    source: TokenSource,
    scope: String,
    clock: Clock,
    state: Mutex<TokenState>,
}

enum TokenSource {
    Fixed(SecretString),
    /// Makes a credential: the library's keep their tokens to themselves, so that only a new
    /// one forgets a token that Graph refused.
    Credential(Make),
    Person(Box<SigningIn>),
}

type Make = Box<dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync>;

/// What is kept between two tokens, in memory alone.
#[derive(Default)]
struct TokenState {
    kept: Option<CachedToken>,
    /// The last failure and when it was, told to all who waited for the same.
    failed: Option<(Instant, NoToken)>,
}

struct CachedToken {
    token: SecretString,
    since: Instant,
    renew: Instant,
    /// Until then it may be used if no other can be had.
    ends: Instant,
}

impl SignIn {
    /// Prepares to sign in; asks nothing of the network yet. `client` carries proxy and
    /// certificate authorities.
    pub fn new(
        method: SignInMethod,
        places: &Endpoints<'_>,
        client: &reqwest::Client,
        clock: Clock,
    ) -> Result<Self, AuthError> {
        let name = method.name();
        let wrong = |why| AuthError::Settings { method: name, why };
        let source = source(method, places, client, &clock).map_err(wrong)?;
        if let TokenSource::Credential(make) = &source {
            make().map_err(|error| wrong(explain::platform(&error.to_string())))?;
        }
        let scope = format!("{}/.default", places.graph.as_str());
        Ok(Self { method: name, source, scope, clock, state: Mutex::default() })
    }

    /// A token that is good for a while, renewed once for all who wait. While the sign-in
    /// address is out of reach, the old one serves to its end.
    ///
    /// # Errors
    /// [`AuthError::SignIn`], [`AuthError::Between`], [`AuthError::Outage`]
    pub async fn access_token(&self) -> Result<SecretString, AuthError> {
        let method = self.method;
        self.good_token().await.map_err(|no| match no {
            NoToken::Denied(why) => AuthError::SignIn { method, why },
            NoToken::Between(why) => AuthError::Between { method, why },
            NoToken::Unreachable(why) => AuthError::Outage { method, why },
        })
    }

    async fn good_token(&self) -> Result<SecretString, NoToken> {
        if let TokenSource::Fixed(token) = &self.source {
            return Ok(token.clone());
        }
        let mut state = self.state.lock().await;
        let now = self.clock.instant();
        if let Some(kept) = state.kept.as_ref().filter(|kept| now < kept.renew) {
            return Ok(kept.token.clone());
        }
        let recent = state.failed.clone().filter(|it| now < it.0 + limits::SIGN_IN_FAILURE_HOLDS);
        let had = match recent {
            Some((_, no)) => Err(no),
            None => self.renew(&mut state).await,
        };
        match (had, &state.kept) {
            (Err(NoToken::Unreachable(_) | NoToken::Between(_)), Some(old))
                if self.clock.instant() < old.ends =>
            {
                Ok(old.token.clone())
            }
            (had, _) => had,
        }
    }

    async fn renew(&self, state: &mut TokenState) -> Result<SecretString, NoToken> {
        match self.fresh().await {
            Ok(fresh) => {
                let since = self.clock.instant();
                let good_for = fresh.good_for.min(limits::MAX_TOKEN_LIFE);
                let early = limits::RENEW_BEFORE.min(good_for / 5);
                let ends = since + good_for;
                let renew = since + good_for.saturating_sub(early);
                state.kept = Some(CachedToken { token: fresh.token.clone(), since, renew, ends });
                state.failed = None;
                tracing::debug!(sign_in = self.method, good_for = ?fresh.good_for);
                Ok(fresh.token)
            }
            Err(no) => {
                state.failed = Some((self.clock.instant(), no.clone()));
                Err(no)
            }
        }
    }

    async fn fresh(&self) -> Result<Fresh, NoToken> {
        let make = match &self.source {
            TokenSource::Fixed(token) => {
                return Ok(Fresh { token: token.clone(), good_for: Duration::MAX });
            }
            TokenSource::Person(person) => return person.token().await,
            TokenSource::Credential(make) => make,
        };
        let explained = |error| explain::judged(&error);
        let credential = make().map_err(explained)?;
        let fresh = credential.get_token(&[&self.scope], None).await.map_err(explained)?;
        let left = fresh.expires_on.unix_timestamp() - self.clock.now().as_second();
        let good_for = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        Ok(Fresh { token: fresh.token.secret().into(), good_for })
    }

    /// What the token itself says it may do.
    ///
    /// # Errors
    /// [`AuthError::SignIn`], [`AuthError::Between`], [`AuthError::Outage`]
    pub async fn grants(&self) -> Result<permissions::Grants, AuthError> {
        let token = self.access_token().await?;
        Ok(permissions::Grants::read(token.expose_secret()))
    }
}

impl Bearer for SignIn {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, NoToken>> {
        Box::pin(async {
            self.access_token().await.map_err(|error| match error {
                AuthError::Outage { .. } => NoToken::Unreachable(error.to_string()),
                AuthError::Between { .. } => NoToken::Between(error.to_string()),
                AuthError::Settings { .. } | AuthError::SignIn { .. } => {
                    NoToken::Denied(error.to_string())
                }
            })
        })
    }

    fn forget(&self) -> bool {
        match &self.source {
            TokenSource::Fixed(_) => false,
            TokenSource::Credential(_) | TokenSource::Person(_) => {
                let now = self.clock.instant();
                // Whoever holds the lock is renewing already; what is young was had after the
                // refused one.
                if let Ok(mut state) = self.state.try_lock()
                    && state.kept.as_ref().is_some_and(|it| it.since + limits::TOKEN_SETTLES <= now)
                {
                    state.kept = None;
                }
                true
            }
        }
    }
}

/// Whether this is an Azure machine with an identity endpoint: something takes connections at
/// the documented address. Elsewhere nobody answers there.
pub async fn on_azure_machine() -> bool {
    let connected = tokio::net::TcpStream::connect(("169.254.169.254", 80));
    tokio::time::timeout(limits::METADATA_PROBE, connected).await.is_ok_and(|it| it.is_ok())
}

fn source(
    method: SignInMethod,
    places: &Endpoints<'_>,
    client: &reqwest::Client,
    clock: &Clock,
) -> Result<TokenSource, String> {
    let mut cloud = CustomConfiguration::default();
    places.authority.as_str().clone_into(&mut cloud.authority_host);
    let cloud = Arc::new(CloudConfiguration::from(cloud));
    let line = Watched { client: client.clone(), network: places.network.clone() };
    let http = line.clone();
    let options = move || ClientOptions {
        cloud: Some(Arc::clone(&cloud)),
        transport: Some(Transport::new(Arc::new(http.clone()))),
        retry: RetryOptions::exponential(ExponentialRetryOptions {
            max_retries: limits::SIGN_IN_RETRIES,
            max_total_elapsed: azure_core::time::Duration::try_from(limits::SIGN_IN_PATIENCE)
                .unwrap_or(azure_core::time::Duration::ZERO),
            ..ExponentialRetryOptions::default()
        }),
        ..ClientOptions::default()
    };
    let make: Make = match method {
        SignInMethod::Token(token) => return Ok(TokenSource::Fixed(token)),
        SignInMethod::Person { way, tenant, client: id } => {
            let app = (tenant.as_deref(), id.as_deref());
            return person(way, app, places, line, clock);
        }
        SignInMethod::ClientSecret { tenant, client, secret } => Box::new(move || {
            let credential = ClientSecretCredential::new(
                &tenant,
                client.clone(),
                Secret::new(secret.expose_secret().to_owned()),
                Some(ClientSecretCredentialOptions { client_options: options() }),
            )?;
            Ok(credential)
        }),
        SignInMethod::ClientCertificate { tenant, client, certificate } => {
            let audience = format!("{}/{tenant}/oauth2/v2.0/token", places.authority.as_str());
            let asserted = Asserted { certificate, client, audience, clock: clock.clone() };
            by_certificate(tenant, asserted, options)
        }
        SignInMethod::WorkloadIdentity { tenant, client, token_file } => Box::new(move || {
            let credential_options = ClientAssertionCredentialOptions { client_options: options() };
            Ok(WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                credential_options,
                client_id: client.clone(),
                tenant_id: tenant.clone(),
                token_file_path: token_file.clone(),
            }))?)
        }),
        SignInMethod::ManagedIdentity { client } => {
            let metadata = metadata_client().map_err(|error| error.to_string())?;
            Box::new(move || {
                let transport = Some(Transport::new(Arc::new(metadata.clone())));
                Ok(ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client.clone().map(UserAssignedId::ClientId),
                    client_options: ClientOptions { transport, ..options() },
                }))?)
            })
        }
        SignInMethod::AzureCli { tenant } => azure_cli(tenant),
    };
    Ok(TokenSource::Credential(make))
}

/// Somebody at a browser. `app` is the tenant and the application, where they were named.
fn person(
    way: PersonFlow,
    app: (Option<&str>, Option<&str>),
    places: &Endpoints<'_>,
    line: Watched,
    clock: &Clock,
) -> Result<TokenSource, String> {
    let origin = places.graph.as_str();
    let scopes: Vec<String> =
        places.needs.iter().map(|need| format!("{origin}/{}", need.least())).collect();
    let app = App {
        tenant: app.0.unwrap_or(ANY_TENANT),
        id: app.1.unwrap_or(PUBLIC_CLIENT),
        authority: &places.authority,
        scopes: &scopes,
    };
    let person = SigningIn::new(way, &app, line, clock.clone(), Arc::clone(&places.tell))?;
    Ok(TokenSource::Person(Box::new(person)))
}

/// Whoever is signed in to the Azure CLI.
fn azure_cli(tenant: Option<String>) -> Make {
    Box::new(move || {
        Ok(AzureCliCredential::new(Some(AzureCliCredentialOptions {
            tenant_id: tenant.clone(),
            executor: Some(Arc::new(WithoutSecrets)),
            ..AzureCliCredentialOptions::default()
        }))?)
    })
}

/// A certificate, by an assertion that this module signs itself.
fn by_certificate(
    tenant: String,
    asserted: Asserted,
    options: impl Fn() -> ClientOptions + Send + Sync + 'static,
) -> Make {
    Box::new(move || {
        let options = ClientAssertionCredentialOptions { client_options: options() };
        Ok(ClientAssertionCredential::new(
            tenant.clone(),
            asserted.client.clone(),
            asserted.clone(),
            Some(options),
        )?)
    })
}

/// Runs the Azure CLI without a secret of ours.
#[derive(Debug)]
struct WithoutSecrets;

#[async_trait::async_trait]
impl azure_identity::Executor for WithoutSecrets {
    async fn run(
        &self,
        name: &std::ffi::OsStr,
        arguments: &[&std::ffi::OsStr],
    ) -> std::io::Result<std::process::Output> {
        let mut command = program(name);
        command.args(arguments);
        tokio::process::Command::from(command).output().await
    }
}
