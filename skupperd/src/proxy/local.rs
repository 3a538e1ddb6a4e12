//! Connecting to servers, and bridging clients to servers of the same site without a link.

use super::{Cut, Proxy};
use crate::{
    link::{
        view::{ConnectorTarget, TargetHost},
        worker::Worker,
    },
    steer::accel::{Acceleration, Hop},
    sys,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::unix::AsyncFd;

/// Time for one attempt to connect to a server.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;

thread_local! {
    /// One buffer for all bridges of a worker: what a socket does not take at once is kept apart.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Counts a connection to a server for as long as it lives.
pub(super) struct InUse(Arc<ConnectorTarget>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects to a connector's server.
pub(super) async fn connect(
    acceleration: &Acceleration,
    worker: &Worker,
    site: u32,
    key: &str,
    target: u64,
) -> io::Result<(TcpStream, InUse)> {
    let target = worker
        .targets(site, key)
        .into_iter()
        .find(|t| t.id == target);
    let target = target.ok_or_else(|| io::Error::other("connector is gone"))?;
    // Counted from the attempt on: connections that are being made are load too.
    target.in_use.fetch_add(1, Ordering::Relaxed);
    let in_use = InUse(target.clone());
    let near = target.accelerated.load(Ordering::Relaxed);
    let near = near.then_some(acceleration);
    let socket = match &target.host {
        TargetHost::Ip(ip) => attempt(SocketAddr::new(*ip, target.port), near).await?,
        TargetHost::Name(name) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "host name has no address");
            let mut connected = None;
            for addr in tokio::net::lookup_host((name.as_str(), target.port)).await? {
                match attempt(addr, near).await {
                    Ok(socket) => {
                        connected = Some(socket);
                        break;
                    }
                    Err(e) => last = e,
                }
            }
            connected.ok_or(last)?
        }
    };
    target.connections.fetch_add(1, Ordering::Relaxed);
    Ok((socket, in_use))
}

async fn attempt(addr: SocketAddr, near: Option<&Acceleration>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    sys::prepare(SockRef::from(&socket))?;
    if let Some(acceleration) = near {
        acceleration.connecting(SockRef::from(&socket));
    }
    match socket.connect(&addr.into()) {
        Ok(()) => return self_connected(socket.into(), addr),
        Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    let watched = sys::watch(TcpStream::from(socket))?;
    let ready = tokio::time::timeout(TIMEOUT, watched.writable()).await;
    drop(ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
    let socket = watched.into_inner();
    match socket.take_error()? {
        Some(error) => Err(error),
        None => self_connected(socket, addr),
    }
}

/// A loopback port that nobody listens on can connect to itself by chance; that is no server.
fn self_connected(socket: TcpStream, addr: SocketAddr) -> io::Result<TcpStream> {
    let loopback = match addr.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    };
    if loopback && socket.local_addr()? == addr {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

/// A socket of a bridge.
struct Side {
    socket: AsyncFd<TcpStream>,
    hop: Option<Hop>,
}

impl Side {
    fn new(proxy: &Proxy, socket: TcpStream) -> io::Result<Self> {
        let hop = proxy.acceleration.hop(&socket);
        let socket = sys::watch(socket)?;
        Ok(Self { socket, hop })
    }

    /// Writes what is taken at once; 0 is nothing now.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(hop) = &self.hop
            && !hop.may_write(bytes.len())
        {
            return Ok(0);
        }
        match self.socket.get_ref().write(bytes) {
            Ok(n) => {
                if let Some(hop) = &self.hop {
                    hop.has_written(n);
                }
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(e),
        }
    }
}

#[derive(Default)]
struct Way {
    /// Read and not written yet.
    rest: Vec<u8>,
    eof: bool,
    done: bool,
}

#[derive(Default)]
struct Gate {
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Cut for Gate {
    fn cut(&self) {
        self.cut.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Moves bytes between a client and a server until both directions have ended.
pub(super) async fn bridge(
    proxy: &Proxy,
    listener: u64,
    client: TcpStream,
    server: TcpStream,
    first: &[u8],
) {
    let gate = Rc::new(Gate::default());
    proxy.own(listener, Rc::downgrade(&gate) as Weak<dyn Cut>);
    let sockets = Side::new(proxy, client).and_then(|c| Ok((c, Side::new(proxy, server)?)));
    let (client, server) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            tracing::warn!(%error, "registering a connection failed");
            return;
        }
    };
    let mut there = Way {
        rest: first.to_vec(),
        ..Way::default()
    };
    let mut back = Way::default();
    let result = poll_fn(|cx| {
        if gate.cut.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        *gate.waker.borrow_mut() = Some(cx.waker().clone());
        pump(cx, &client, &server, &mut there)?;
        pump(cx, &server, &client, &mut back)?;
        if there.done && back.done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await;
    let result: io::Result<()> = result;
    if result.is_err() {
        for socket in [&client, &server] {
            // A reset of one side is passed on to the other.
            let socket = SockRef::from(socket.socket.get_ref());
            drop(socket.set_linger(Some(Duration::ZERO)));
        }
    }
}

fn pump(cx: &mut Context<'_>, from: &Side, to: &Side, way: &mut Way) -> io::Result<()> {
    if way.done {
        return Ok(());
    }
    // So many chunks a turn: the others on this worker have theirs in between.
    for _ in 0..4 {
        while !way.rest.is_empty() {
            let Poll::Ready(guard) = to.socket.poll_write_ready(cx) else {
                return Ok(());
            };
            let mut guard = guard?;
            match to.write(&way.rest) {
                Ok(0) if to.hop.as_ref().is_some_and(|hop| hop.wait(cx)) => return Ok(()),
                Ok(0) => guard.clear_ready(),
                Ok(n) => drop(way.rest.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if way.eof {
            way.done = true;
            return match to.socket.get_ref().shutdown(Shutdown::Write) {
                Err(e) if e.kind() != io::ErrorKind::NotConnected => Err(e),
                _ => Ok(()),
            };
        }
        let Poll::Ready(guard) = from.socket.poll_read_ready(cx) else {
            return Ok(());
        };
        let mut guard = guard?;
        SCRATCH.with_borrow_mut(|scratch| match from.socket.get_ref().read(scratch) {
            Ok(0) => {
                way.eof = true;
                Ok(())
            }
            Ok(n) => {
                match &from.hop {
                    // After a short read there may be more, from TCP.
                    Some(hop) => hop.has_read(n),
                    None if n < scratch.len() => guard.clear_ready(),
                    None => {}
                }
                let sent = to.write(&scratch[..n])?;
                way.rest.extend_from_slice(&scratch[sent..n]);
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                guard.clear_ready();
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        })?;
    }
    cx.waker().wake_by_ref();
    Ok(())
}
