//! Credentials as rustls configurations: TLS 1.3, certificates on both sides.

use super::PkiError;
use crate::model::Secret;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use std::sync::Arc;

/// AES-128 first: as safe on a link, and a third cheaper than the library's first choice.
fn provider() -> Arc<CryptoProvider> {
    let suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        ..aws_lc_rs::default_provider()
    })
}

struct Parts {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn parts(name: &str, secret: &Secret) -> Result<Parts, PkiError> {
    let malformed = |what, reason: String| PkiError::Malformed {
        what,
        name: name.into(),
        reason,
    };
    let certificates = |what, pem: &str| {
        let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match list {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(malformed(what, "no certificate in it".to_owned())),
            Err(e) => Err(malformed(what, e.to_string())),
        }
    };
    let mut roots = RootCertStore::empty();
    for ca in certificates("ca.crt", &secret.ca)? {
        roots
            .add(ca)
            .map_err(|e| malformed("ca.crt", e.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_slice(secret.key.as_bytes())
        .map_err(|e| malformed("tls.key", e.to_string()))?;
    let chain = certificates("tls.crt", &secret.certificate)?;
    Ok(Parts {
        roots: Arc::new(roots),
        chain,
        key,
    })
}

/// For accepting links: the peer must have a certificate of the same CA.
pub fn server_config(name: &str, secret: &Secret) -> Result<Arc<ServerConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let Parts { roots, chain, key } = parts(name, secret)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| unusable(rustls::Error::General(e.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    // The record layer takes the keys over; links live long, tickets would be for nothing.
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For dialling links: the peer must have a certificate of the CA, for the host that is dialled.
pub fn client_config(name: &str, secret: &Secret) -> Result<Arc<ClientConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let Parts { roots, chain, key } = parts(name, secret)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable)?;
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
