//! rustls configurations for listeners and connectors, whose clients and servers may be old: TLS 1.2 and
//! 1.3 with rustls' default cipher suites.

use super::{
    PkiError, check,
    server_verifier::ServerVerifier,
    supplied::read,
    tls::{TlsMaterial, certificates, roots, tls_material},
};
use crate::{
    model::{ClientCertificate, Name, Secret},
    store::{CredentialKind, NamespaceDir},
};
use rustls::{
    ClientConfig, Error, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
    server::{ClientHello, WebPkiClientVerifier},
};
use std::sync::Arc;

/// The TLS server side of a listener.
#[derive(Debug)]
pub struct ServiceTlsServer {
    /// For clients that offer one of the listener's ALPN protocols.
    with_alpn: Arc<ServerConfig>,
    /// For all others: rustls would refuse a client that offers other protocols only.
    without_alpn: Arc<ServerConfig>,
}

impl ServiceTlsServer {
    /// The configuration for a client with this hello.
    pub fn answer(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let mut offered = hello.alpn().into_iter().flatten();
        let common = offered.any(|p| self.with_alpn.alpn_protocols.iter().any(|own| own == p));
        if common {
            self.with_alpn.clone()
        } else {
            self.without_alpn.clone()
        }
    }
}

/// The TLS client side of a connector.
#[derive(Debug)]
pub struct ServiceTlsClient {
    config: Arc<ClientConfig>,
    /// Sent as SNI and, if hostnames are verified, required in the server's certificate.
    name: ServerName<'static>,
}

impl ServiceTlsClient {
    /// The configuration for a connection on which the client has negotiated this ALPN protocol, and the
    /// server's name.
    pub fn ask(&self, protocol: Option<&str>) -> (Arc<ClientConfig>, ServerName<'static>) {
        let mut config = self.config.clone();
        if let Some(protocol) = protocol {
            let mut own = ClientConfig::clone(&config);
            own.alpn_protocols = vec![protocol.as_bytes().to_vec()];
            config = Arc::new(own);
        }
        (config, self.name.clone())
    }
}

/// The credentials of a listener or connector: in `input/certs`, or a Secret. A listener needs a
/// certificate and its key; a connector may need a CA only.
pub fn service_credentials(
    namespace: &NamespaceDir,
    credentials: &Name,
    secret: Option<&Secret>,
    needed: &[&'static str],
) -> Result<Option<Secret>, PkiError> {
    let supplied = read(namespace, CredentialKind::Certificate, credentials, needed)?;
    let Some(supplied) = supplied.or_else(|| secret.cloned()) else {
        return Ok(None);
    };
    let part = |file: &str| match file {
        "ca.crt" => !supplied.ca.is_empty(),
        "tls.crt" => !supplied.certificate.is_empty(),
        _ => !supplied.key.is_empty(),
    };
    if let Some(file) = needed.iter().find(|file| !part(file)) {
        return Err(PkiError::Unfit {
            name: credentials.to_string(),
            reason: format!("{file} is missing"),
        });
    }
    Ok(Some(supplied))
}

/// For a listener. `protocols` are ALPN protocols, the preferred one first.
pub fn listener_config(
    name: &Name,
    secret: &Secret,
    clients: ClientCertificate,
    protocols: &[String],
) -> Result<ServiceTlsServer, PkiError> {
    let unusable = |source| unusable(name, source);
    check(name, secret, Some(&[]))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if clients == ClientCertificate::None {
        builder.with_no_client_auth()
    } else {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots(name, &secret.ca)?, provider);
        let verifier = match clients {
            ClientCertificate::Optional => verifier.allow_unauthenticated(),
            _ => verifier,
        };
        let verifier = verifier.build();
        builder.with_client_cert_verifier(
            verifier.map_err(|e| unusable(Error::General(e.to_string())))?,
        )
    };
    let chain = certificates("tls.crt", name, &secret.certificate)?;
    let without_alpn = builder
        .with_single_cert(chain, key(name, secret)?)
        .map_err(unusable)?;
    let mut with_alpn = without_alpn.clone();
    with_alpn.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(ServiceTlsServer {
        with_alpn: Arc::new(with_alpn),
        without_alpn: Arc::new(without_alpn),
    })
}

fn key(name: &Name, secret: &Secret) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(secret.key.as_bytes()).map_err(|e| PkiError::Malformed {
        what: "tls.key",
        name: name.to_string(),
        reason: e.to_string(),
    })
}

/// For a connector. An empty `server_name` sends no SNI.
pub fn connector_config(
    name: &Name,
    secret: &Secret,
    server_name: &str,
    verify_hostname: bool,
    use_client_cert: bool,
) -> Result<ServiceTlsClient, PkiError> {
    let unusable = |source| unusable(name, source);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let verifier = ServerVerifier {
        roots: roots(name, &secret.ca)?,
        trusted: certificates("ca.crt", name, &secret.ca)?,
        verify_hostname,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = if use_client_cert {
        let TlsMaterial { chain, key, .. } = tls_material(name, secret)?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map_err(unusable)?
    } else {
        builder.with_no_client_auth()
    };
    // rustls needs some name; an invented one is not sent.
    config.enable_sni = !server_name.is_empty();
    let asked = if server_name.is_empty() {
        "localhost"
    } else {
        server_name
    };
    let asked = ServerName::try_from(asked.to_owned());
    Ok(ServiceTlsClient {
        config: Arc::new(config),
        name: asked.map_err(|e| unusable(Error::General(e.to_string())))?,
    })
}

fn unusable(name: &Name, source: Error) -> PkiError {
    PkiError::Unusable {
        name: name.to_string(),
        source,
    }
}
