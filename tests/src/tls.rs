//! TLS clients and servers.

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

#[derive(Clone)]
pub struct Client {
    /// The CA of servers, as PEM.
    pub ca: String,
    /// The client certificate.
    pub own: Option<Pair>,
    /// ALPN protocols to offer.
    pub protocols: Vec<&'static str>,
    /// The server name to ask for.
    pub name: &'static str,
    /// TLS versions; empty allows all.
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

pub type TlsConnection = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// A client that trusts this CA.
    pub fn of(ca: &str) -> Self {
        Self {
            ca: ca.to_owned(),
            own: None,
            protocols: Vec::new(),
            name: "127.0.0.1",
            versions: Vec::new(),
        }
    }

    /// Connects and completes the handshake. With TLS 1.3 a server may refuse the client
    /// certificate later.
    pub fn connect(&self, addr: SocketAddr) -> io::Result<TlsConnection> {
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

    /// Whether a new connection echoes.
    pub fn works(&self, addr: SocketAddr) -> bool {
        self.echo(addr).is_ok()
    }

    /// Opens a connection that must echo.
    pub fn echo(&self, addr: SocketAddr) -> io::Result<()> {
        let mut stream = self.connect(addr)?;
        expect_echo(&mut stream, b"ping")
    }
}

/// Sends bytes and expects their echo.
pub fn expect_echo(stream: &mut (impl Read + Write), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes)?;
    stream.flush()?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    assert!(back == bytes, "other bytes came back");
    Ok(())
}

/// Half-closes with close_notify.
pub fn end(stream: &mut TlsConnection) {
    stream.conn.send_close_notify();
    stream.flush().expect("sent");
    stream.sock.shutdown(Shutdown::Write).expect("half-closed");
}

/// Serves TLS with this configuration and runs `each` for every client whose handshake succeeds.
fn start(
    addr: SocketAddr,
    config: ServerConfig,
    each: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> Server {
    let config = Arc::new(config);
    Server::start(addr, move |socket| {
        let conn = ServerConnection::new(config.clone()).expect("a server");
        let mut stream = StreamOwned::new(conn, socket);
        while stream.conn.is_handshaking() {
            if stream.conn.complete_io(&mut stream.sock).is_err() {
                return;
            }
        }
        each(stream);
    })
}

/// `clients`: CA of client certificates, which are then required.
fn config(own: &Pair, clients: Option<&str>) -> ServerConfig {
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
    config.expect("a server")
}

/// A server that speaks TLS and runs `each` for every client whose handshake succeeds.
pub fn serve(
    addr: SocketAddr,
    own: &Pair,
    each: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Send + Sync + 'static,
) -> Server {
    start(addr, config(own, None), each)
}

/// A TLS server that reports the negotiated protocol (`-` for none) when asked, and echoes
/// everything else. `clients`: CA of client certificates, which are then required.
pub fn echo(addr: SocketAddr, own: &Pair, clients: Option<&str>) -> Server {
    let mut config = config(own, clients);
    config.alpn_protocols = vec!["h2".into(), "http/1.1".into(), "other".into()];
    start(addr, config, |mut stream| {
        let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
        let protocol = protocol.unwrap_or_else(|| b"-".to_vec());
        let mut buf = vec![0; 32 * 1024];
        while let Ok(n @ 1..) = stream.read(&mut buf) {
            // Answers the question for the protocol.
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
