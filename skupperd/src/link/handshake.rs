//! From a TCP connection to an opened AMQP connection: TLS, SASL, open.

use super::{
    socket::SocketError,
    tls::{self, SecureSocket, TlsError},
    wire::{Parts, ReceiveOutcome, Wire, WireError},
};
use crate::amqp::{
    connection::{Config, Connection, Event},
    performative::{Error, Open},
    sasl::{ANONYMOUS, EXTERNAL, Sasl, SaslError},
};
use crate::{netlink::listeners::user_of, pki::CertificateIdentity, sys::clock};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{io::DuplexStream, net::TcpStream};

/// Time for TLS, SASL and open together. A healthy peer takes three round trips.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a refused peer may read why.
const REFUSE: Duration = Duration::from_secs(1);
/// Most plaintext a peer may send before its open is complete.
const MAX_OPEN: usize = 64 * 1024;
/// Capability that two routers of this project find each other by. Version 1: frames of
/// [`NATIVE_FRAME`] bytes, and a client's data sent without waiting for the reverse stream.
pub(crate) const NATIVE: &str = "io.skupper.native:1";
/// Frame size between two routers of this project: a read of a client's socket fits one frame.
pub(crate) const NATIVE_FRAME: u32 = 128 * 1024;

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Socket or records.
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("SASL failed")]
    Sasl(#[from] SaslError),
    #[error("AMQP open failed: {0}")]
    Amqp(String),
    #[error("peer closed the connection before it was open")]
    Closed,
    /// Its access was taken back.
    #[error("certificate {} of {:?} has been revoked", .0.serial, .0.subject)]
    Revoked(CertificateIdentity),
    /// Too slow.
    #[error("no AMQP connection within {} s", TIMEOUT.as_secs())]
    Timeout,
}

/// An opened connection, ready to be given to a worker.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) parts: Parts,
    pub(crate) amqp: Connection,
    pub(crate) open: Box<Open>,
    /// Bytes behind the peer's open.
    pub(crate) rest: VecDeque<Bytes>,
    pub(crate) native: bool,
    pub(crate) peer: SocketAddr,
    /// Whose certificate the peer has shown.
    pub(crate) identity: Option<CertificateIdentity>,
    /// The user of this host that it belongs to; of clients without TLS.
    pub(crate) user: Option<u32>,
    /// Name of the TLS group that the keys were exchanged with; empty without TLS.
    pub(crate) key_exchange: &'static str,
}

impl Established {
    /// Closes the connection with a condition, before it is given to a worker.
    pub(crate) async fn refuse(mut self, error: Error) {
        let close = async {
            let mut wire = Wire::attach(self.parts)?;
            self.amqp.close(Some(error));
            flush(&mut wire, self.amqp.output()).await?;
            wire.close_notify()?;
            poll_fn(|cx| wire.poll_flush(cx)).await
        };
        // The peer may be gone, or not read: it is refused either way.
        if let Ok(Err(error)) = tokio::time::timeout(REFUSE, close).await {
            tracing::debug!(peer = %self.peer, %error, "cannot send refusal to peer");
        }
    }
}

/// Certificates that are not taken any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedCertificates {
    pub serials: BTreeSet<String>,
    /// Key identifiers of CAs, whose certificates are all refused.
    pub authorities: BTreeSet<String>,
}

impl RevokedCertificates {
    /// This one is among them.
    pub fn contains(&self, identity: &CertificateIdentity) -> bool {
        self.serials.contains(&identity.serial) || self.authorities.contains(&identity.authority)
    }
}

/// What is not taken any more, as known to the tasks that accept.
pub(crate) type RevocationList = Arc<ArcSwap<RevokedCertificates>>;

/// How the transport is secured.
pub(crate) enum Security {
    /// We dial: verify the peer's certificate for this name.
    Client(Arc<ClientConfig>, ServerName<'static>),
    /// We accept.
    Server(Arc<ServerConfig>, RevocationList),
    /// A local listener without TLS.
    None,
}

/// Runs the handshake on a connected socket, within [`TIMEOUT`].
pub(crate) async fn run(
    socket: TcpStream,
    security: Security,
    open: Config,
) -> Result<Established, HandshakeError> {
    tokio::time::timeout(TIMEOUT, establish(socket, security, open))
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

/// TLS is done, SASL has not begun.
struct Authentication {
    secured: SecureSocket,
    sasl: Sasl,
}

async fn authenticate(
    socket: TcpStream,
    security: Security,
) -> Result<Authentication, HandshakeError> {
    let (secured, sasl) = match security {
        Security::Client(config, name) => {
            let secured = tls::connect(socket, config, name).await?;
            (secured, Sasl::client(&[EXTERNAL]))
        }
        Security::Server(config, revoked) => {
            let secured = tls::accept(socket, config).await?;
            if let Some(identity) = &secured.identity
                && revoked.load().contains(identity)
            {
                return Err(HandshakeError::Revoked(identity.clone()));
            }
            (secured, Sasl::server(&[EXTERNAL]))
        }
        Security::None => {
            let socket = socket.into_std().map_err(preparing)?;
            let secured = SecureSocket {
                parts: Parts::new(socket, None, BytesMut::new()),
                identity: None,
                key_exchange: "",
                early: None,
            };
            (secured, Sasl::server(&[ANONYMOUS]))
        }
    };
    Ok(Authentication { secured, sasl })
}

fn preparing(source: std::io::Error) -> WireError {
    let op = "preparing the socket";
    SocketError { op, source }.into()
}

async fn establish(
    socket: TcpStream,
    security: Security,
    open: Config,
) -> Result<Established, HandshakeError> {
    let peer = socket.peer_addr().map_err(preparing)?;
    let user = match security {
        Security::None => local_user(peer, &socket),
        _ => None,
    };
    let authentication = authenticate(socket, security).await?;
    let established = negotiate(authentication, peer, open).await?;
    Ok(Established {
        user,
        ..established
    })
}

/// The user of a client of this host, if it can be found out.
fn local_user(peer: SocketAddr, socket: &TcpStream) -> Option<u32> {
    let user = user_of(peer, socket.local_addr().ok()?);
    user.inspect_err(|error| tracing::debug!(%error, %peer, "cannot find user of client"))
        .ok()?
}

/// Runs the handshake of an accepted connection that is in memory, where TLS is done: its peer has
/// shown this certificate.
pub(crate) async fn run_in_memory(
    stream: DuplexStream,
    identity: Option<CertificateIdentity>,
    peer: SocketAddr,
    open: Config,
) -> Result<Established, HandshakeError> {
    let mechanisms = match identity {
        Some(_) => &[EXTERNAL],
        None => &[ANONYMOUS],
    };
    let authentication = Authentication {
        secured: SecureSocket {
            parts: Parts::new(stream, None, BytesMut::new()),
            identity,
            key_exchange: "",
            early: None,
        },
        sasl: Sasl::server(mechanisms),
    };
    tokio::time::timeout(TIMEOUT, negotiate(authentication, peer, open))
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

/// SASL and open.
async fn negotiate(
    authentication: Authentication,
    peer: SocketAddr,
    open: Config,
) -> Result<Established, HandshakeError> {
    let Authentication { secured, mut sasl } = authentication;
    let SecureSocket {
        parts,
        identity,
        key_exchange,
        early,
    } = secured;
    let native = open.capabilities.iter().any(|c| c.as_str() == NATIVE);
    let mut wire = Wire::attach(parts)?;
    let mut input = BytesMut::from(early.unwrap_or_default());
    while !sasl.is_done() {
        let result = sasl.feed(&mut input);
        flush(&mut wire, &mut sasl.output).await?;
        result?;
        if !sasl.is_done() {
            input.unsplit(receive(&mut wire).await?);
        }
    }
    let mut amqp = Connection::new(open, clock::now());
    flush(&mut wire, amqp.output()).await?;
    let mut rest = VecDeque::from([input.freeze()]);
    let mut taken = 0;
    loop {
        while let Some(mut chunk) = rest.pop_front() {
            match amqp.receive(&mut chunk, clock::now()) {
                Ok(Some(Event::Open(open))) => {
                    if !chunk.is_empty() {
                        rest.push_front(chunk);
                    }
                    let native = native && open.offers(NATIVE);
                    if native {
                        amqp.raise_max_frame_size(NATIVE_FRAME);
                    }
                    let parts = wire.detach();
                    return Ok(Established {
                        parts,
                        amqp,
                        open,
                        rest,
                        native,
                        peer,
                        identity,
                        user: None,
                        key_exchange,
                    });
                }
                Ok(Some(Event::Close(error))) => {
                    let reason = error.map_or("closed by the peer".to_owned(), |e| e.to_string());
                    return Err(HandshakeError::Amqp(reason));
                }
                Ok(_) => {}
                Err(e) => {
                    flush(&mut wire, amqp.output()).await.ok();
                    return Err(HandshakeError::Amqp(e.to_string()));
                }
            }
        }
        let chunk = receive(&mut wire).await?.freeze();
        taken += chunk.len();
        if taken > MAX_OPEN {
            return Err(HandshakeError::Amqp("open is too long".to_owned()));
        }
        rest.push_back(chunk);
    }
}

async fn flush(wire: &mut Wire, output: &mut BytesMut) -> Result<(), WireError> {
    wire.out().put(&output.split());
    poll_fn(|cx| wire.poll_flush(cx)).await
}

async fn receive(wire: &mut Wire) -> Result<BytesMut, HandshakeError> {
    let mut chunks = VecDeque::new();
    loop {
        let received = poll_fn(|cx| wire.poll_recv(cx, &mut chunks)).await?;
        if !chunks.is_empty() {
            return Ok(chunks.drain(..).fold(BytesMut::new(), |mut all, chunk| {
                all.extend_from_slice(&chunk);
                all
            }));
        }
        if received == ReceiveOutcome::End {
            return Err(HandshakeError::Closed);
        }
    }
}
