//! Promises an authority that lives for one test, and what it certifies, as files and as a
//! server's TLS.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs};

/// A name of the server that no name server knows: whoever reaches it there was led.
pub(crate) const RELAY: &str = "relay.contoso.example";

/// An authority, a certificate for localhost and [`RELAY`], and one for a client with another
/// authority in between, as files in `folder`.
pub(crate) fn certify(folder: &Path, demanded: bool) -> Arc<ServerConfig> {
    let authority = authority_parameters("tapwave test authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(authority, key).expect("an authority");
    let between = CertifiedIssuer::signed_by(
        authority_parameters("tapwave test authority for clients"),
        KeyPair::generate().expect("a key"),
        &authority,
    );
    let between = between.expect("an authority");
    let (certificate, key) = issue(&["localhost", RELAY], &authority);
    let (client, client_key) = issue(&["client.example"], &between);
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("a file");
    write("ca.pem", &authority.pem());
    write("server.pem", &certificate);
    write("server.key", &key);
    write("client.pem", &format!("{client}{}{client_key}", between.pem()));

    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = if demanded {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a root");
        roots.add(root).expect("a root");
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    Arc::new(builder.with_single_cert(vec![certificate], key).expect("a certificate"))
}

fn authority_parameters(name: &str) -> CertificateParams {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, name);
    authority
}

/// A certificate for these names and its key, as PEM.
fn issue(names: &[&str], authority: &CertifiedIssuer<'_, KeyPair>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names).expect("parameters");
    parameters.use_authority_key_identifier_extension = true;
    parameters.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let key = KeyPair::generate().expect("a key");
    let certificate = parameters.signed_by(&key, authority).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}
