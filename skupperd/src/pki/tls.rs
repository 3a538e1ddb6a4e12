//! rustls configurations for links (TLS 1.3, certificates on both sides) and for redeeming tokens.

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

/// Prefers AES-128: as safe on a link as AES-256, and a third cheaper. Prefers X25519MLKEM768, so that
/// traffic recorded today cannot be read by a quantum computer later; a client sends a share of X25519
/// beside it, so that a peer without it (OpenSSL before 3.5) needs no further round trip.
fn provider() -> Arc<CryptoProvider> {
    let suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: suites,
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
            aws_lc_rs::kx_group::SECP384R1,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// The text of a TLS error, with what an operator can do about the usual ones. If a certificate's
/// validity is the reason, it tells the time of this host too: one of two clocks is wrong.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::{
        CertificateError::{BadSignature, ExpiredContext, NotValidYetContext, UnknownIssuer},
        InvalidMessage::InvalidContentType,
    };
    let (when, is, time) = match error {
        rustls::Error::InvalidCertificate(NotValidYetContext { not_before, time }) => {
            (not_before, "is not valid before", time)
        }
        rustls::Error::InvalidCertificate(ExpiredContext { not_after, time }) => {
            (not_after, "was valid until", time)
        }
        rustls::Error::InvalidCertificate(BadSignature | UnknownIssuer) => {
            return format!(
                "the peer's certificate is signed by another CA than the trusted one ({error}): was its \
                 site created anew? Redeem a new token"
            );
        }
        rustls::Error::InvalidMessage(InvalidContentType) => {
            return format!("the peer does not speak TLS ({error}): is it the port of a site?");
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

/// A certificate was refused because of its validity, which time or a corrected clock may resolve.
pub fn may_be_clock_skew(error: &rustls::Error) -> bool {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let rustls::Error::InvalidCertificate(reason) = error else {
        return false;
    };
    matches!(
        reason,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
    )
}

pub(super) struct TlsMaterial {
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

pub(super) fn tls_material(name: &str, secret: &Secret) -> Result<TlsMaterial, PkiError> {
    let roots = roots(name, &secret.ca)?;
    let key = PrivateKeyDer::from_pem_slice(secret.key.as_bytes())
        .map_err(|e| malformed("tls.key", name, e.to_string()))?;
    let chain = certificates("tls.crt", name, &secret.certificate)?;
    Ok(TlsMaterial { roots, chain, key })
}

/// Whether the key belongs to the certificate.
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

/// For accepting links: the peer must present a certificate of the credentials' CA.
pub fn server_config(name: &str, secret: &Secret) -> Result<Arc<ServerConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let TlsMaterial { roots, chain, key } = tls_material(name, secret)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(|e| unusable(rustls::Error::General(e.to_string())))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    // The record layer takes over the keys; links live too long for session tickets to be of use.
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For dialling links: the peer must present a certificate of the CA for the host that is dialled.
pub fn client_config(name: &str, secret: &Secret) -> Result<Arc<ClientConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let TlsMaterial { roots, chain, key } = tls_material(name, secret)?;
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

/// For the grant server: clients prove themselves by the code and present no certificate.
pub fn grant_config(name: &str, secret: &Secret) -> Result<Arc<ServerConfig>, PkiError> {
    let unusable = |source| PkiError::Unusable {
        name: name.into(),
        source,
    };
    let TlsMaterial { chain, key, .. } = tls_material(name, secret)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    Ok(Arc::new(config))
}

/// For redeeming a token: trusts the token's CA only, and presents no certificate.
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
