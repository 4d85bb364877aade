//! Promises a client certificate as an assertion that the identity platform takes in place of
//! a secret: a JWT under PS256 with the certificate's SHA-256 thumbprint.
//!
//! `azure_identity`'s own way needs OpenSSL; the TLS provider's RSA does. The private key stays
//! here and is never shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaKeyPair};
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p12_keystore::{KeyStore, Pkcs12ImportPolicy};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::SecretDocument;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use tapwave_core::clock::Clock;
use tapwave_core::limits;
use tapwave_core::wiped::read_small;

const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Why a certificate's file cannot be used. Holds nothing of the key.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("failed to read the client certificate {path}: {why}")]
    File {
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// It is neither PFX nor PEM, or lacks a part.
    #[error(
        "the client certificate {path} cannot be used: {why}; give a PFX, or a PEM with the certificate and its RSA key"
    )]
    Content { path: PathBuf, why: &'static str },
    /// The password is wrong or missing.
    #[error(
        "the client certificate {path} does not open with {password}; set AZURE_CLIENT_CERTIFICATE_PASSWORD, client_certificate_password_file or client_certificate_password_command"
    )]
    Password {
        path: PathBuf,
        /// `this password` or `no password`.
        password: &'static str,
    },
}

/// A certificate and its key.
pub struct Certificate {
    key: RsaKeyPair,
    thumbprint: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a PFX or a PEM, encrypted or not.
    pub fn read(path: &Path, password: Option<&SecretString>) -> Result<Self, CertificateError> {
        let failed = |why| CertificateError::File { path: path.to_owned(), why };
        let bytes = read_small(path).map_err(|error| failed(error.to_string()))?;
        let bytes = bytes.ok_or_else(|| failed("it is too large for a certificate".to_owned()))?;
        let content = |why| CertificateError::Content { path: path.to_owned(), why };
        let locked = || CertificateError::Password {
            path: path.to_owned(),
            password: if password.is_some() { "this password" } else { "no password" },
        };
        let (key, certificate) = match std::str::from_utf8(&bytes) {
            Ok(text) if text.contains("-----BEGIN ") => from_pem(text, password, &content, &locked),
            _ => from_pfx(&bytes, password, &content, &locked),
        }?;
        let key = RsaKeyPair::from_pkcs8(&key)
            .or_else(|_| RsaKeyPair::from_der(&key))
            .map_err(|_| content("its key is no RSA key of 2048 bits or more"))?;
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate));
        Ok(Self { key, thumbprint })
    }

    /// The assertion for an application at a token endpoint, as the platform documents it.
    fn assertion(&self, client: &str, audience: &str, clock: &Clock) -> Option<String> {
        let now = clock.now();
        let slack = |by: Duration| i64::try_from(by.as_secs()).unwrap_or(0);
        let header = serde_json::json!({"alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint});
        let claims = serde_json::json!({
            "aud": audience, "iss": client, "sub": client, "jti": Uuid::new_v4().to_string(),
            "nbf": now.as_second() - slack(limits::CLOCK_SLACK),
            "exp": now.as_second() + slack(limits::ASSERTION_GOOD_FOR),
        });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = SystemRandom::new();
        self.key.sign(&RSA_PSS_SHA256, &random, signed.as_bytes(), &mut signature).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A certificate that speaks for an application at one token endpoint.
#[derive(Debug, Clone)]
pub(super) struct Asserted {
    pub(super) certificate: std::sync::Arc<Certificate>,
    pub(super) client: String,
    pub(super) audience: String,
    pub(super) clock: Clock,
}

#[async_trait::async_trait]
impl ClientAssertion for Asserted {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        self.certificate.assertion(&self.client, &self.audience, &self.clock).ok_or_else(|| {
            azure_core::Error::with_message(
                azure_core::error::ErrorKind::Credential,
                "the client certificate's key could not sign",
            )
        })
    }
}

type Parts = (Zeroizing<Vec<u8>>, Vec<u8>);

fn from_pem(
    text: &str,
    password: Option<&SecretString>,
    content: &dyn Fn(&'static str) -> CertificateError,
    locked: &dyn Fn() -> CertificateError,
) -> Result<Parts, CertificateError> {
    let certificate = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|_| content("it holds no certificate"))?;
    let key = match (text.find(ENCRYPTED_BEGIN), text.find(ENCRYPTED_END)) {
        (Some(begin), Some(end)) if begin < end => {
            let (_, sealed) = SecretDocument::from_pem(&text[begin..end + ENCRYPTED_END.len()])
                .map_err(|_| content("its encrypted key is damaged"))?;
            let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes())
                .map_err(|_| content("its encrypted key is damaged"))?;
            let password = password.ok_or_else(locked)?.expose_secret();
            let opened = sealed.decrypt(password).map_err(|_| locked())?;
            Zeroizing::new(opened.as_bytes().to_vec())
        }
        _ => {
            let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
                .map_err(|_| content("it holds no private key"))?;
            Zeroizing::new(key.secret_der().to_vec())
        }
    };
    Ok((key, certificate.to_vec()))
}

fn from_pfx(
    bytes: &[u8],
    password: Option<&SecretString>,
    content: &dyn Fn(&'static str) -> CertificateError,
    locked: &dyn Fn() -> CertificateError,
) -> Result<Parts, CertificateError> {
    if bytes.first() != Some(&0x30) {
        return Err(content("it is neither a PFX nor a PEM"));
    }
    let password = password.map_or("", |password| password.expose_secret());
    let store = KeyStore::from_pkcs12(bytes, password, Pkcs12ImportPolicy::Relaxed)
        .map_err(|_| locked())?;
    let (_, chain) = store.private_key_chain().ok_or_else(|| content("it holds no private key"))?;
    let certificate = chain.certs().first().ok_or_else(|| content("it holds no certificate"))?;
    Ok((Zeroizing::new(chain.key().as_der().to_vec()), certificate.as_der().to_vec()))
}
