//! Sockets that are bound to a listener's address.

use crate::{netlink::local_routes::is_local, steer::SteerError};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
};

/// Length of the accept queue of a socket; somaxconn limits it further.
pub(super) const BACKLOG: i32 = 4096;

/// Opens sockets that share a port; the kernel spreads connections over them.
#[derive(Clone, Copy, Debug)]
pub struct SocketBindings;

impl SocketBindings {
    /// Listening, non-blocking sockets for an address; the n-th is for the n-th worker.
    pub fn open(self, addr: SocketAddr, workers: usize) -> Result<Vec<TcpListener>, SteerError> {
        let sockets = self.bind_sockets(addr, workers)?;
        for socket in &sockets {
            let listens = socket.listen(BACKLOG);
            listens.map_err(SteerError::at(addr, "listening"))?;
        }
        Ok(sockets.into_iter().map(Into::into).collect())
    }

    /// Like [`Self::open`], but the sockets do not listen yet.
    pub(super) fn bind_sockets(
        self,
        addr: SocketAddr,
        workers: usize,
    ) -> Result<Vec<Socket>, SteerError> {
        let failed = |op| SteerError::at(addr, op);
        let mut sockets = Vec::with_capacity(workers);
        for n in 0..workers.max(1) {
            let socket = socket(addr)?;
            // Bind the first socket without sharing, so that another process that shares ports
            // conflicts.
            if n > 0 {
                socket
                    .set_reuse_port(true)
                    .map_err(failed("setting options"))?;
            }
            bind(&socket, addr).map_err(failed("binding"))?;
            if n == 0 {
                socket
                    .set_reuse_port(true)
                    .map_err(failed("setting options"))?;
            }
            // Accepted sockets inherit the options, which saves system calls for each connection.
            crate::sys::prepare_proxied(&(&socket).into()).map_err(failed("setting options"))?;
            sockets.push(socket);
        }
        Ok(sockets)
    }

    /// Opens more sockets beside those of [`Self::open`] in this process or an earlier one.
    pub(super) fn join(
        self,
        addr: SocketAddr,
        more: usize,
    ) -> Result<Vec<TcpListener>, SteerError> {
        let failed = |op| SteerError::at(addr, op);
        let one = |_| {
            let socket = socket(addr)?;
            let shared = socket.set_reuse_port(true);
            shared.map_err(failed("setting options"))?;
            bind(&socket, addr).map_err(failed("binding"))?;
            crate::sys::prepare_proxied(&(&socket).into()).map_err(failed("setting options"))?;
            socket.listen(BACKLOG).map_err(failed("listening"))?;
            Ok(socket.into())
        };
        (0..more).map(one).collect()
    }
}

/// The address of a socket that listens for TCP connections in the network namespace of `beside`.
pub(super) fn listens(socket: &TcpListener, beside: SockRef<'_>) -> Option<SocketAddr> {
    let asked = SockRef::from(socket);
    let tcp = asked.protocol().ok()? == Some(Protocol::TCP);
    let here = crate::sys::same_netns(socket.as_fd(), beside.as_fd());
    (tcp && here && asked.is_listener().ok()?)
        .then(|| socket.local_addr().ok())
        .flatten()
}

/// An unbound socket of the address's family. Connections of an earlier process (TIME_WAIT) do not
/// conflict.
pub(super) fn socket(addr: SocketAddr) -> Result<Socket, SteerError> {
    let failed = |op| SteerError::at(addr, op);
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))
        .map_err(failed("making a socket"))?;
    let options = || {
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            // [::] means IPv6 only; 0.0.0.0 needs its own socket.
            socket.set_only_v6(true)?;
        }
        Ok(())
    };
    options().map_err(failed("setting options"))?;
    Ok(socket)
}

/// Addresses of accept sockets, by family.
pub(super) const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// An accept socket that does not listen yet. Connections to its own address are refused later.
pub(super) fn unreached(host: IpAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = Domain::for_address((host, 0).into());
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    // Accepted connections have the ports of listeners. In TIME_WAIT they must not conflict with
    // the next socket on such a port. They inherit this and the other options.
    socket.set_reuse_address(true)?;
    crate::sys::prepare_proxied(&(&socket).into())?;
    if host.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(host, 0).into())?;
    Ok(socket.into())
}

/// Binds a socket. IPv6 needs an option to bind addresses that are local only by a route.
pub(super) fn bind(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    match socket.bind(&addr.into()) {
        Err(error)
            if addr.is_ipv6()
                && error.kind() == io::ErrorKind::AddrNotAvailable
                && is_local(addr.ip()) =>
        {
            socket.set_freebind_v6(true)?;
            socket.bind(&addr.into())
        }
        other => other,
    }
}
