//! Load generators, and what they have in common.

mod bulk;
mod exchange;
mod latencies;

pub(crate) use bulk::Streams;
pub(crate) use exchange::{Exchange, Outcome};

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// A load that gets no answer for this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a load runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Time before the measurement, under the same load.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// A listener on a free port of 127.0.0.1, with a backlog for bursts.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Connects, and waits for the connection.
fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Starts to connect a non-blocking socket, which is writable once it is connected.
fn begin_connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(nix::libc::EINPROGRESS) => Err(e),
        _ => Ok(socket.into()),
    }
}
