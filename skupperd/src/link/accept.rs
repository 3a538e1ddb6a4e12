//! Accepting: links of other routers, AMQP clients, and clients of listeners.

use super::{
    core::{CoreEvent, CoreSender, ServerTls},
    handshake::{self, Revoked, Security},
};
use crate::{amqp::connection::Config, model::Role, sys::prepare, telemetry};
use nix::sys::socket::{SockFlag, accept4};
use socket2::SockRef;
use std::{io, net::TcpListener, os::fd::AsRawFd, sync::Arc, time::Duration};
use tokio::{io::unix::AsyncFd, sync::Semaphore};

/// Handshakes under way on one port. More wait in the kernel's queue: a flood of them costs time,
/// not memory.
const MAX_HANDSHAKES: usize = 256;
/// Pause after the system refused to accept: out of descriptors or memory.
const REST: Duration = Duration::from_millis(50);

/// What is accepted on a port.
#[derive(Clone)]
pub(crate) enum Port {
    /// Links of other routers, as this RouterAccess.
    Links {
        /// Name of the resource.
        access: Arc<str>,
        /// Which routers.
        role: Role,
        /// Certificates.
        tls: ServerTls,
        /// Certificates that are not taken any more.
        revoked: Revoked,
    },
    /// AMQP clients of this host.
    Local,
}

/// Accepts on a port until dropped.
pub(crate) async fn port(
    listener: TcpListener,
    site: u32,
    port: Port,
    core: CoreSender,
    open: impl Fn() -> Config + Clone + Send + 'static,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "registering a listening socket failed");
            return;
        }
    };
    let limit = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else {
            return;
        };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a link failed");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let (core, port, open) = (core.clone(), port.clone(), open.clone());
        tokio::task::spawn(async move {
            let _permit = permit;
            if let Err(error) = prepare(SockRef::from(&socket)) {
                tracing::debug!(%error, %peer, "peer is gone");
                return;
            }
            let security = match &port {
                Port::Links { tls, revoked, .. } => {
                    Security::Server(tls.load_full(), revoked.clone())
                }
                Port::Local => Security::None,
            };
            match handshake::run(socket, security, open()).await {
                Ok(established) => {
                    core.send(CoreEvent::Accepted {
                        site,
                        port,
                        established: Box::new(established),
                    });
                }
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(%peer, %error, "connection refused");
                }
            }
        });
    }
}

/// Accepts clients of a listener until dropped.
pub(super) async fn clients(
    listener: &AsyncFd<TcpListener>,
    mut each: impl FnMut(std::net::TcpStream),
) {
    loop {
        let Ok(mut guard) = listener.readable().await else {
            return;
        };
        // As many as are there: a batch of connections costs one turn of the loop.
        loop {
            match accept(listener.get_ref()) {
                Ok(client) => each(client),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                    break;
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a client failed");
                    tokio::time::sleep(REST).await;
                    break;
                }
            }
        }
    }
}

/// One system call instead of two: the accepted socket is non-blocking from the start.
fn accept(listener: &TcpListener) -> io::Result<std::net::TcpStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    Ok(crate::sys::owned(fd).into())
}
