//! Credentials as rustls configurations: TLS 1.3, certificates on both sides.

use super::PkiError;
use crate::model::Secret;
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
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

/// What TLS says of a peer, in words. Where time is the matter, with what the clock of this host says:
/// an operator then sees which of two clocks is off.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::CertificateError::{ExpiredContext, NotValidYetContext};
    let (when, is, time) = match error {
        rustls::Error::InvalidCertificate(NotValidYetContext { not_before, time }) => {
            (not_before, "is not valid before", time)
        }
        rustls::Error::InvalidCertificate(ExpiredContext { not_after, time }) => {
            (not_after, "was valid until", time)
        }
        other => return other.to_string(),
    };
    let read = |t: &UnixTime| {
        let seconds = i64::try_from(t.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    };
    format!(
        "the peer's certificate {is} {}, and the clock of this host says {}",
        read(when),
        read(time)
    )
}

/// A certificate was refused for a reason that time, or a clock that is set, may end.
pub fn passes_with_time(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(why) = error else {
        return false;
    };
    matches!(
        why,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
    )
}

pub(super) struct Parts {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

fn malformed(what: &'static str, name: &str, reason: String) -> PkiError {
    PkiError::Malformed {
        what,
        name: name.into(),
        reason,
    }
}

pub(super) fn certificates(
    what: &'static str,
    name: &str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(malformed(what, name, "no certificate in it".to_owned())),
        Err(e) => Err(malformed(what, name, e.to_string())),
    }
}

pub(super) fn roots(name: &str, pem: &str) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates("ca.crt", name, pem)? {
        roots
            .add(ca)
            .map_err(|e| malformed("ca.crt", name, e.to_string()))?;
    }
    Ok(Arc::new(roots))
}

pub(super) fn parts(name: &str, secret: &Secret) -> Result<Parts, PkiError> {
    let roots = roots(name, &secret.ca)?;
    let key = PrivateKeyDer::from_pem_slice(secret.key.as_bytes())
        .map_err(|e| malformed("tls.key", name, e.to_string()))?;
    let chain = certificates("tls.crt", name, &secret.certificate)?;
    Ok(Parts { roots, chain, key })
}

/// The key is that of the certificate.
pub(super) fn key_matches(name: &str, secret: &Secret) -> Result<bool, PkiError> {
    let key = PrivateKeyDer::from_pem_slice(secret.key.as_bytes())
        .map_err(|e| malformed("tls.key", name, e.to_string()))?;
    let chain = certificates("tls.crt", name, &secret.certificate)?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(_) => Ok(true),
        Err(rustls::Error::InconsistentKeys(_)) => Ok(false),
        Err(source) => Err(PkiError::Unusable {
            name: name.into(),
            source,
        }),
    }
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

/// For those who redeem tokens: whoever has a code needs no certificate.
pub fn grant_config(name: &str, secret: &Secret) -> Result<Arc<ServerConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let Parts { chain, key, .. } = parts(name, secret)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(Arc::new(config))
}

/// For redeeming a token: its own CA and no other, no certificate of ours.
pub fn token_config(ca: &str) -> Result<Arc<ClientConfig>, PkiError> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| PkiError::Unusable {
            name: "of the token".into(),
            source,
        })?
        .with_root_certificates(roots("of the token", ca)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
