//! The TLS handshake of a link, up to the point where the record layer takes over.

use super::record::{RecordError, RecordLayer};
use super::wire::Parts;
use crate::pki::{CertificateIdentity, explain, identify};
use bytes::{Bytes, BytesMut};
use rustls::{
    ClientConfig, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use std::{io, sync::Arc};
use tokio::net::TcpStream;

/// Most bytes a peer may send before its handshake is complete. rustls bounds a handshake message
/// at 64 KiB; certificates of any sensible chain stay far below.
const MAX_HANDSHAKE: usize = 128 * 1024;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The socket failed or was closed.
    #[error("{op} during the TLS handshake")]
    Io {
        /// What was being done.
        op: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// rustls refused the peer: wrong CA, expired, no certificate, no TLS 1.3, not TLS at all.
    #[error("TLS handshake refused: {}", explain(.0))]
    Refused(rustls::Error),
    /// The peer closed the connection before the handshake was complete.
    #[error("peer closed the connection during the TLS handshake")]
    Closed,
    /// More bytes than a handshake can have.
    #[error("TLS handshake of over {MAX_HANDSHAKE} bytes")]
    TooLong,
    /// The record layer refused the keys.
    #[error("TLS record layer")]
    Record(#[from] RecordError),
}

/// A socket whose handshake is complete.
#[derive(Debug)]
pub(crate) struct SecureSocket {
    pub(crate) parts: Parts,
    /// Whose certificate the peer has shown.
    pub(crate) identity: Option<CertificateIdentity>,
    /// Name of the negotiated group, such as `X25519MLKEM768`.
    pub(crate) key_exchange: &'static str,
    /// Application data that came along with the handshake's last message.
    pub(crate) early: Option<Bytes>,
}

macro_rules! handshake {
    ($socket:expr, $conn:expr, $into:path) => {{
        let (socket, mut conn) = ($socket, $conn);
        let mut incoming = BytesMut::with_capacity(8 * 1024);
        let mut outgoing = Vec::new();
        let mut early = Vec::new();
        loop {
            enum Next {
                Again,
                Send,
                Receive,
                Done,
            }
            let UnbufferedStatus {
                mut discard, state, ..
            } = conn.process_tls_records(&mut incoming);
            let next = match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut outgoing, |buf| data.encode(buf))?;
                    Next::Again
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Next::Send
                }
                Ok(ConnectionState::BlockedHandshake) => Next::Receive,
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(TlsError::Refused)?;
                        discard += record.discard;
                        early.extend_from_slice(record.payload);
                    }
                    Next::Again
                }
                Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
                Ok(_) => return Err(TlsError::Closed),
                Err(e) => {
                    // The alert names the error to the peer; it does not matter whether it arrives.
                    if let UnbufferedStatus {
                        state: Ok(ConnectionState::EncodeTlsData(mut data)),
                        ..
                    } = conn.process_tls_records(&mut [])
                    {
                        if encode(&mut outgoing, |buf| data.encode(buf)).is_ok() {
                            send(&socket, &mut outgoing).await.ok();
                        }
                    }
                    return Err(TlsError::Refused(e));
                }
            };
            let _ = incoming.split_to(discard.min(incoming.len()));
            match next {
                Next::Again => {}
                Next::Send => send(&socket, &mut outgoing).await?,
                Next::Receive => receive(&socket, &mut incoming).await?,
                Next::Done => break,
            }
        }
        let certificate = conn.peer_certificates().and_then(<[_]>::first);
        let identity = certificate.and_then(|c| identify(c));
        let group = conn.negotiated_key_exchange_group();
        let key_exchange = group
            .and_then(|group| group.name().as_str())
            .unwrap_or_default();
        let session = $into(
            conn.dangerous_into_kernel_connection()
                .map_err(TlsError::Refused)?,
        )?;
        let socket = socket.into_std().map_err(|source| TlsError::Io {
            op: "detaching",
            source,
        })?;
        let early = (!early.is_empty()).then(|| Bytes::from(early));
        Ok(SecureSocket {
            parts: Parts::new(socket, Some(session), incoming),
            identity,
            key_exchange,
            early,
        })
    }};
}

/// Runs the connecting side's handshake; `name` is what the peer's certificate must be for.
pub(crate) async fn connect(
    socket: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<SecureSocket, TlsError> {
    let conn = UnbufferedClientConnection::new(config, name).map_err(TlsError::Refused)?;
    handshake!(socket, conn, RecordLayer::client)
}

/// Runs the accepting side's handshake.
pub(crate) async fn accept(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<SecureSocket, TlsError> {
    let conn = UnbufferedServerConnection::new(config).map_err(TlsError::Refused)?;
    handshake!(socket, conn, RecordLayer::server)
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), TlsError> {
    let at = outgoing.len();
    let n = match write(&mut []) {
        Ok(n) => n,
        Err(EncodeError::InsufficientSize(size)) => {
            outgoing.resize(at + size.required_size, 0);
            write(&mut outgoing[at..]).map_err(encoding)?
        }
        Err(e) => return Err(encoding(e)),
    };
    outgoing.truncate(at + n);
    Ok(())
}

fn encoding(e: EncodeError) -> TlsError {
    TlsError::Refused(rustls::Error::General(format!(
        "encoding a handshake record: {e}"
    )))
}

async fn send(socket: &TcpStream, outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
    let failed = |source| TlsError::Io {
        op: "sending",
        source,
    };
    let mut at = 0;
    while let Some(rest) = outgoing.get(at..).filter(|rest| !rest.is_empty()) {
        socket.writable().await.map_err(failed)?;
        match socket.try_write(rest) {
            Ok(n) => at += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(failed(e)),
        }
    }
    outgoing.clear();
    Ok(())
}

async fn receive(socket: &TcpStream, incoming: &mut BytesMut) -> Result<(), TlsError> {
    let failed = |source| TlsError::Io {
        op: "receiving",
        source,
    };
    if incoming.len() > MAX_HANDSHAKE {
        return Err(TlsError::TooLong);
    }
    loop {
        socket.readable().await.map_err(failed)?;
        match socket.try_read_buf(incoming) {
            Ok(0) => return Err(TlsError::Closed),
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests;
