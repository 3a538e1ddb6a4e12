//! Which key exchange two peers agree on.

use super::*;
use crate::{model::Secret, pki};
use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpListener;

/// The key exchange that both sides report.
async fn agree(client: impl FnOnce(&Secret) -> Arc<ClientConfig>) -> [&'static str; 2] {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = pki::ensure_issuer(&dir.path().join("ca"), "ca").expect("a CA");
    let hosts = ["127.0.0.1".to_owned()];
    let server = pki::ensure_server(&ca, &dir.path().join("s"), "s", &hosts, None).expect("issued");
    let server = pki::server_config("s", &server).expect("usable");
    let client = client(&pki::issue_client(&ca, pki::Subject::Numbered("c")).expect("issued"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    let accepted = async {
        let (socket, _) = listener.accept().await.expect("accepted");
        accept(socket, server).await.expect("handshake")
    };
    let connected = async {
        let socket = TcpStream::connect(addr).await.expect("connected");
        let name = "127.0.0.1".try_into().expect("a name");
        connect(socket, client, name).await.expect("handshake")
    };
    let (connected, accepted) = tokio::join!(connected, accepted);
    [connected.key_exchange, accepted.key_exchange]
}

/// As a peer without post-quantum key exchange, such as a router on an older OpenSSL.
fn classical(secret: &Secret) -> Arc<ClientConfig> {
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    });
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(secret.ca.as_bytes()) {
        roots.add(ca.expect("a CA")).expect("usable");
    }
    let chain = CertificateDer::pem_slice_iter(secret.certificate.as_bytes());
    let chain: Result<Vec<_>, _> = chain.collect();
    let key = PrivateKeyDer::from_pem_slice(secret.key.as_bytes()).expect("a key");
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("a chain"), key)
        .expect("usable");
    config.enable_secret_extraction = true;
    Arc::new(config)
}

#[tokio::test]
async fn two_sites_exchange_keys_with_a_post_quantum_group() {
    let own = |secret: &Secret| pki::client_config("c", secret).expect("usable");
    assert_eq!(agree(own).await, ["X25519MLKEM768"; 2]);
}

#[tokio::test]
async fn a_peer_without_post_quantum_groups_gets_what_it_has() {
    assert_eq!(agree(classical).await, ["secp256r1"; 2]);
}
