//! Promises how to sign in, with the secrets read; must never show one.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

use super::file::SettingsFile;
use super::provenance::Joined;
use super::secret::SecretSource;
use super::{Settings, SettingsError};
use crate::args::Auth;
use tapwave_graph::sign_in::SignInMethod;
use tapwave_graph::sign_in::certificate::Certificate;
use tapwave_graph::sign_in::person::PersonFlow;

/// Where secrets are to be had.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    access_token: Option<SecretSource>,
    client_secret: Option<SecretSource>,
    certificate: Option<PathBuf>,
    certificate_password: Option<SecretSource>,
}

impl Secrets {
    /// Where every secret of the sign-in would come from.
    pub(super) fn of<E: Fn(&str) -> Option<String>>(
        joined: &mut Joined<'_, E>,
        file: &SettingsFile,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            access_token: joined.secret("access_token", "TAPWAVE_ACCESS_TOKEN", None, None)?,
            client_secret: joined.secret(
                "client_secret",
                "AZURE_CLIENT_SECRET",
                file.client_secret_file.clone(),
                file.client_secret_command.clone(),
            )?,
            certificate: joined
                .text(
                    "client_certificate",
                    None,
                    "AZURE_CLIENT_CERTIFICATE_PATH",
                    file.client_certificate.as_ref().map(|path| path.display().to_string()),
                )
                .map(PathBuf::from),
            certificate_password: joined.secret(
                "client_certificate_password",
                "AZURE_CLIENT_CERTIFICATE_PASSWORD",
                file.client_certificate_password_file.clone(),
                file.client_certificate_password_command.clone(),
            )?,
        })
    }
}

impl Settings {
    /// How to sign in, with the secrets read. `auto` takes the first that is
    /// there; `on_azure` tells whether this is an Azure machine with an identity endpoint.
    ///
    /// # Errors
    /// [`SettingsError::Missing`], [`SettingsError::Secret`]
    pub fn sign_in(
        &self,
        environment: &impl Fn(&str) -> Option<String>,
        on_azure: bool,
    ) -> Result<SignInMethod, SettingsError> {
        let there = |name: &str| environment(name).filter(|value| !value.is_empty());
        let auth = match self.auth {
            Auth::Auto if self.secrets.access_token.is_some() => Auth::Token,
            Auth::Auto if self.secrets.client_secret.is_some() => Auth::ClientSecret,
            Auth::Auto if self.secrets.certificate.is_some() => Auth::ClientCertificate,
            Auth::Auto if there("AZURE_FEDERATED_TOKEN_FILE").is_some() => Auth::WorkloadIdentity,
            Auth::Auto if there("IDENTITY_ENDPOINT").is_some() || on_azure => Auth::ManagedIdentity,
            Auth::Auto => Auth::AzureCli,
            chosen => chosen,
        };
        let tenant = self.tenant.clone();
        let client = self.client_id.clone();
        let missing = |method, variable| SettingsError::Missing { method, variable };
        let read = |source: &Option<SecretSource>, absent| match source {
            Some(source) => Ok::<SecretString, SettingsError>(source.read(environment)?),
            None => Err(absent),
        };
        Ok(match auth {
            Auth::Token => SignInMethod::Token(read(
                &self.secrets.access_token,
                missing("token", "TAPWAVE_ACCESS_TOKEN"),
            )?),
            Auth::ClientSecret => SignInMethod::ClientSecret {
                tenant: tenant
                    .ok_or_else(|| missing("client-secret", "--tenant or AZURE_TENANT_ID"))?,
                client: client
                    .ok_or_else(|| missing("client-secret", "--client-id or AZURE_CLIENT_ID"))?,
                secret: read(
                    &self.secrets.client_secret,
                    missing("client-secret", "AZURE_CLIENT_SECRET"),
                )?,
            },
            Auth::WorkloadIdentity => SignInMethod::WorkloadIdentity {
                tenant,
                client,
                token_file: there("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from),
            },
            Auth::ClientCertificate => {
                let method = "client-certificate";
                let path = self.secrets.certificate.as_ref();
                let path = path.ok_or_else(|| missing(method, "AZURE_CLIENT_CERTIFICATE_PATH"))?;
                let password = self.secrets.certificate_password.as_ref();
                let password = password.map(|source| source.read(environment)).transpose()?;
                let certificate = Certificate::read(path, password.as_ref())?;
                SignInMethod::ClientCertificate {
                    tenant: tenant.ok_or_else(|| missing(method, "--tenant or AZURE_TENANT_ID"))?,
                    client: client
                        .ok_or_else(|| missing(method, "--client-id or AZURE_CLIENT_ID"))?,
                    certificate: Arc::new(certificate),
                }
            }
            Auth::Interactive => SignInMethod::Person { way: PersonFlow::Browser, tenant, client },
            Auth::DeviceCode => {
                SignInMethod::Person { way: PersonFlow::DeviceCode, tenant, client }
            }
            Auth::ManagedIdentity => SignInMethod::ManagedIdentity { client },
            Auth::AzureCli | Auth::Auto => SignInMethod::AzureCli { tenant },
        })
    }

    /// Whether `auto` has to look whether this is an Azure machine.
    #[must_use]
    pub fn is_undecided(&self, environment: &impl Fn(&str) -> Option<String>) -> bool {
        let there = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
        let secrets = &self.secrets;
        self.auth == Auth::Auto
            && secrets.access_token.is_none()
            && secrets.client_secret.is_none()
            && secrets.certificate.is_none()
            && !there("AZURE_FEDERATED_TOKEN_FILE")
            && !there("IDENTITY_ENDPOINT")
    }
}
