//! Credentials for the ends of services, where TLS is spoken with clients and servers of all ages:
//! TLS 1.2 and 1.3, with the suites that rustls holds to be safe.

use super::{
    PkiError, check,
    given::read,
    tls::{Parts, certificates, parts, roots},
};
use crate::{
    model::{Name, Secret},
    store::{Given, NamespaceDir},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, ParsedCertificate, WebPkiClientVerifier},
};
use std::sync::Arc;

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No certificate.
    #[default]
    None,
    /// A certificate of the credentials' CA, or none.
    Optional,
    /// A certificate of the credentials' CA.
    Required,
}

/// How a listener speaks TLS.
#[derive(Debug)]
pub struct EndServer {
    /// For clients that name one of the protocols.
    named: Arc<ServerConfig>,
    /// For all others: a client that wants another protocol is no mistake of its own.
    unnamed: Arc<ServerConfig>,
}

impl EndServer {
    /// What to speak with a client that says hello like this.
    pub fn answer(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let mut offered = hello.alpn().into_iter().flatten();
        let common = offered.any(|p| self.named.alpn_protocols.iter().any(|own| own == p));
        if common {
            self.named.clone()
        } else {
            self.unnamed.clone()
        }
    }
}

/// How a connector speaks TLS.
#[derive(Debug)]
pub struct EndClient {
    config: Arc<ClientConfig>,
    /// What the server is asked for, and its certificate is to be for.
    name: ServerName<'static>,
}

impl EndClient {
    /// What to speak with the server for a client that has agreed on this protocol with us, and the
    /// name to ask for.
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

/// Credentials that the user supplies for an end: in `input/certs`, or as a Secret. A listener needs
/// certificate and key; a connector may need no more than a CA.
pub fn given_end(
    namespace: &NamespaceDir,
    credentials: &Name,
    secret: Option<&Secret>,
    needed: &[&'static str],
) -> Result<Option<Secret>, PkiError> {
    let given = read(namespace, Given::Certificate, credentials, needed)?;
    let Some(given) = given.or_else(|| secret.cloned()) else {
        return Ok(None);
    };
    let part = |file: &str| match file {
        "ca.crt" => !given.ca.is_empty(),
        "tls.crt" => !given.certificate.is_empty(),
        _ => !given.key.is_empty(),
    };
    if let Some(file) = needed.iter().find(|file| !part(file)) {
        return Err(PkiError::Unfit {
            name: credentials.to_string(),
            reason: format!("{file} is missing"),
        });
    }
    Ok(Some(given))
}

/// For a listener: what it shows, whom it lets in, and the protocols it offers, the one it likes best
/// first.
pub fn listener_config(
    name: &Name,
    secret: &Secret,
    clients: ClientCertificate,
    protocols: &[String],
) -> Result<EndServer, PkiError> {
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
    let unnamed = builder
        .with_single_cert(chain, key(name, secret)?)
        .map_err(unusable)?;
    let mut named = unnamed.clone();
    named.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(EndServer {
        named: Arc::new(named),
        unnamed: Arc::new(unnamed),
    })
}

fn key(name: &Name, secret: &Secret) -> Result<PrivateKeyDer<'static>, PkiError> {
    PrivateKeyDer::from_pem_slice(secret.key.as_bytes()).map_err(|e| PkiError::Malformed {
        what: "tls.key",
        name: name.to_string(),
        reason: e.to_string(),
    })
}

/// For a connector: whom it trusts, the name that it asks for, which may be empty, whether that has to
/// be in the certificate, and whether it shows one of its own.
pub fn connector_config(
    name: &Name,
    secret: &Secret,
    server_name: &str,
    verify_hostname: bool,
    use_client_cert: bool,
) -> Result<EndClient, PkiError> {
    let unusable = |source| unusable(name, source);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let roots = roots(name, &secret.ca)?;
    let builder = if verify_hostname {
        builder.with_root_certificates(roots)
    } else {
        let verifier = Arc::new(AnyName::new(roots, &provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
    };
    let mut config = if use_client_cert {
        let Parts { chain, key, .. } = parts(name, secret)?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map_err(unusable)?
    } else {
        builder.with_no_client_auth()
    };
    // The library wants some name; none that is made up is sent.
    config.enable_sni = !server_name.is_empty();
    let asked = if server_name.is_empty() {
        "localhost"
    } else {
        server_name
    };
    let asked = ServerName::try_from(asked.to_owned());
    Ok(EndClient {
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

/// Takes a certificate of the CA whatever its names are.
#[derive(Debug)]
struct AnyName {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyName {
    fn new(roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}
