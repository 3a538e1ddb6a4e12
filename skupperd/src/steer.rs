//! How client connections reach listeners.

#[cfg(feature = "ebpf")]
pub mod bpf;

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener},
};

/// Connections waiting to be accepted, per socket; the system's own limit (somaxconn) caps it.
const BACKLOG: i32 = 4096;

/// A listener's address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("{addr}: {}: {source}", .op)]
pub struct SteerError {
    /// The address.
    pub addr: SocketAddr,
    /// What was being done.
    pub op: &'static str,
    source: io::Error,
}

/// Makes accept sockets for an address, one for each worker.
pub trait Steer {
    /// Listening, non-blocking sockets; the n-th is for the n-th worker.
    fn open(&self, addr: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, SteerError>;
}

/// Bound sockets that share a port: the kernel spreads connections over them.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Steer for Plain {
    fn open(&self, addr: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, SteerError> {
        let failed = |op| move |source| SteerError { addr, op, source };
        let mut sockets = Vec::with_capacity(workers);
        for n in 0..workers.max(1) {
            let kind = Type::STREAM.nonblocking().cloexec();
            let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
                .map_err(failed("making a socket"))?;
            socket
                .set_reuse_address(true)
                .map_err(failed("setting options"))?;
            if addr.is_ipv6() {
                // [::] is IPv6 alone; 0.0.0.0 has its own listener.
                socket
                    .set_only_v6(true)
                    .map_err(failed("setting options"))?;
            }
            // The first socket is bound without sharing: another process of ours, or one that
            // shares ports too, is a conflict and not a partner.
            if n > 0 {
                socket
                    .set_reuse_port(true)
                    .map_err(failed("setting options"))?;
            }
            socket.bind(&addr.into()).map_err(failed("binding"))?;
            if n == 0 {
                socket
                    .set_reuse_port(true)
                    .map_err(failed("setting options"))?;
            }
            // Accepted sockets inherit these: no system call for each connection.
            crate::sys::prepare((&socket).into()).map_err(failed("setting options"))?;
            sockets.push(socket);
        }
        for socket in &sockets {
            socket.listen(BACKLOG).map_err(failed("listening"))?;
        }
        Ok(sockets.into_iter().map(Into::into).collect())
    }
}
