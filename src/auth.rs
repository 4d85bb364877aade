//! Promises access tokens for Graph, from every source the settings can name, kept in
//! memory alone and renewed before they end.
//!
//! Must never print, log or store a token or a secret. The ways of signing in are
//! `azure_identity`'s; this room chooses, caches and explains.

pub mod permissions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::graph::http::{BaseUrl, Bearer};
use crate::graph::verdict::plain;

/// A token is renewed when it has less than this left.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// The identity library's own retries together may take no longer than this.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(20);

/// How to sign in.
pub enum Method {
    /// An access token that the operator brings; used as it is.
    Token(SecretString),
    /// An app registration's secret.
    ClientSecret {
        /// Tenant id or domain.
        tenant: String,
        /// The application's id.
        client: String,
        /// The secret.
        secret: SecretString,
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

impl Method {
    /// The name as `--auth` spells it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::ClientSecret { .. } => "client-secret",
            Self::WorkloadIdentity { .. } => "workload-identity",
            Self::ManagedIdentity { .. } => "managed-identity",
            Self::AzureCli { .. } => "azure-cli",
        }
    }
}

/// Where tokens come from and where they are for.
#[derive(Debug, Clone)]
pub struct Places<'a> {
    /// Graph's origin, which names the scope.
    pub graph: &'a BaseUrl,
    /// Where to sign in.
    pub authority: BaseUrl,
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
    /// The identity platform said no, or did not answer.
    #[error("failed to sign in with {method}: {why}")]
    SignIn {
        /// As `--auth` spells it.
        method: &'static str,
        /// In the platform's words.
        why: String,
    },
}

/// A source of tokens for one Graph endpoint.
pub struct SignIn {
    method: &'static str,
    source: Source,
    scope: String,
    clock: Clock,
    cached: Mutex<Option<AccessToken>>,
}

enum Source {
    Fixed(SecretString),
    Credential(Arc<dyn TokenCredential>),
}

impl SignIn {
    /// Prepares to sign in; asks nothing of the network yet. `client` carries proxy and certificate authorities.
    ///
    /// # Errors
    /// [`AuthError::Settings`]
    pub fn new(
        method: Method,
        places: &Places<'_>,
        client: &reqwest::Client,
        clock: Clock,
    ) -> Result<Self, AuthError> {
        let name = method.name();
        let source = source(method, places, client)
            .map_err(|error| AuthError::Settings { method: name, why: explained(&error) })?;
        let scope = format!("{}/.default", places.graph.as_str());
        Ok(Self { method: name, source, scope, clock, cached: Mutex::new(None) })
    }

    /// A token that is good for a while, renewed once for all who wait.
    ///
    /// # Errors
    /// [`AuthError::SignIn`]
    pub async fn access_token(&self) -> Result<SecretString, AuthError> {
        let credential = match &self.source {
            Source::Fixed(token) => return Ok(token.clone()),
            Source::Credential(credential) => credential,
        };
        let mut cached = self.cached.lock().await;
        let now = self.clock.now().as_second();
        let soon = now + i64::try_from(RENEW_BEFORE.as_secs()).unwrap_or(0);
        if let Some(token) =
            cached.as_ref().filter(|token| token.expires_on.unix_timestamp() > soon)
        {
            return Ok(token.token.secret().into());
        }
        let fresh = credential.get_token(&[&self.scope], None).await;
        let fresh = fresh
            .map_err(|error| AuthError::SignIn { method: self.method, why: explained(&error) })?;
        let token = fresh.token.secret().into();
        *cached = Some(fresh);
        Ok(token)
    }

    /// What the token itself says it may do.
    ///
    /// # Errors
    /// [`AuthError::SignIn`]
    pub async fn grants(&self) -> Result<permissions::Grants, AuthError> {
        let token = self.access_token().await?;
        Ok(permissions::Grants::read(token.expose_secret()))
    }
}

impl Bearer for SignIn {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, String>> {
        Box::pin(async { self.access_token().await.map_err(|error| error.to_string()) })
    }

    fn forget(&self) -> bool {
        match &self.source {
            Source::Fixed(_) => false,
            Source::Credential(_) => {
                // Whoever holds the lock is renewing already.
                if let Ok(mut cached) = self.cached.try_lock() {
                    *cached = None;
                }
                true
            }
        }
    }
}

fn source(
    method: Method,
    places: &Places<'_>,
    client: &reqwest::Client,
) -> azure_core::Result<Source> {
    let mut cloud = CustomConfiguration::default();
    places.authority.as_str().clone_into(&mut cloud.authority_host);
    let cloud = Arc::new(CloudConfiguration::from(cloud));
    let options = || ClientOptions {
        cloud: Some(Arc::clone(&cloud)),
        transport: Some(Transport::new(Arc::new(client.clone()))),
        retry: RetryOptions::exponential(ExponentialRetryOptions {
            max_retries: 3,
            max_total_elapsed: azure_core::time::Duration::try_from(SIGN_IN_PATIENCE)
                .unwrap_or(azure_core::time::Duration::ZERO),
            ..ExponentialRetryOptions::default()
        }),
        ..ClientOptions::default()
    };
    Ok(Source::Credential(match method {
        Method::Token(token) => return Ok(Source::Fixed(token)),
        Method::ClientSecret { tenant, client, secret } => ClientSecretCredential::new(
            &tenant,
            client,
            Secret::new(secret.expose_secret().to_owned()),
            Some(ClientSecretCredentialOptions { client_options: options() }),
        )?,
        Method::WorkloadIdentity { tenant, client, token_file } => {
            let credential_options = ClientAssertionCredentialOptions { client_options: options() };
            WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                credential_options,
                client_id: client,
                tenant_id: tenant,
                token_file_path: token_file,
            }))?
        }
        Method::ManagedIdentity { client } => {
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: client.map(UserAssignedId::ClientId),
                client_options: options(),
            }))?
        }
        Method::AzureCli { tenant } => AzureCliCredential::new(Some(AzureCliCredentialOptions {
            tenant_id: tenant,
            ..AzureCliCredentialOptions::default()
        }))?,
    }))
}

/// The library's error in one line. A proxy's HTML page surfaces as a JSON error there.
fn explained(error: &azure_core::Error) -> String {
    let text = plain(&error.to_string());
    if text.contains("expected value at line 1 column 1") {
        return "the sign-in address answered with a web page; a proxy may stand in between"
            .to_owned();
    }
    text
}
