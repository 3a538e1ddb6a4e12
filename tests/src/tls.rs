//! TLS clients and servers for tests.

use crate::echo::{Server, connect};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
};

/// A certificate and its key, as PEM.
pub type Pair = (String, String);

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.expect("certificates")
}

fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key")
}

fn roots(ca: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for ca in chain(ca) {
        roots.add(ca).expect("a CA");
    }
    Arc::new(roots)
}

/// A client to be.
#[derive(Clone)]
pub struct Client {
    /// CA of servers.
    pub ca: String,
    /// What it shows.
    pub own: Option<Pair>,
    /// Protocols that it offers.
    pub protocols: Vec<&'static str>,
    /// Name it asks for.
    pub name: &'static str,
    /// Versions; all when there are none.
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

/// A client's connection.
pub type Connected = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// One that trusts this CA.
    pub fn of(ca: &str) -> Self {
        Self {
            ca: ca.to_owned(),
            own: None,
            protocols: Vec::new(),
            name: "127.0.0.1",
            versions: Vec::new(),
        }
    }

    /// Connects and shakes hands. A server that refuses our certificate may say so later only.
    pub fn connect(&self, addr: SocketAddr) -> io::Result<Connected> {
        let versions = if self.versions.is_empty() {
            rustls::ALL_VERSIONS
        } else {
            &self.versions
        };
        let builder = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots(&self.ca));
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, own)) => builder
                .with_client_auth_cert(chain(certificate), key(own))
                .expect("a client certificate"),
        };
        config.alpn_protocols = self.protocols.iter().map(|p| p.as_bytes().into()).collect();
        let name = ServerName::try_from(self.name).expect("a name");
        let conn = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = StreamOwned::new(conn, connect(addr)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    /// A new connection gets its bytes back.
    pub fn works(&self, addr: SocketAddr) -> bool {
        self.echo(addr).is_ok()
    }

    /// Why a new connection does not get its bytes back.
    pub fn echo(&self, addr: SocketAddr) -> io::Result<()> {
        let mut stream = self.connect(addr)?;
        back(&mut stream, b"ping")
    }
}

/// Sends bytes and gets the same back.
pub fn back(stream: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert!(back == bytes, "other bytes came back");
    Ok(())
}

/// Ends our way in order.
pub fn end(stream: &mut Connected) {
    stream.conn.send_close_notify();
    stream.flush().expect("sent");
    stream.sock.shutdown(Shutdown::Write).expect("half-closed");
}

/// A server that speaks TLS, says which protocol was agreed on (`-` for none), and sends everything
/// back. `clients`: CA of those that it demands a certificate of.
pub fn echo(addr: SocketAddr, own: &Pair, clients: Option<&str>) -> Server {
    let builder = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots(ca), default_provider().into())
                .build()
                .expect("a verifier"),
        ),
    };
    let config = builder.with_single_cert(chain(&own.0), key(&own.1));
    let mut config = config.expect("a server");
    config.alpn_protocols = vec!["h2".into(), "http/1.1".into(), "other".into()];
    let config = Arc::new(config);
    Server::start(addr, move |socket| {
        let conn = ServerConnection::new(config.clone()).expect("a server");
        let mut stream = StreamOwned::new(conn, socket);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        let protocol = protocol.unwrap_or_else(|| b"-".to_vec());
        let mut buf = vec![0; 32 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            // Who asks is told; all others get their bytes back.
            let answer = if &buf[..n] == b"protocol?" {
                &protocol
            } else {
                &buf[..n]
            };
            if stream.write_all(answer).is_err() || stream.flush().is_err() {
                return;
            }
        }
        stream.conn.send_close_notify();
        drop(stream.flush());
        drop(stream.sock.shutdown(Shutdown::Write));
    })
}
