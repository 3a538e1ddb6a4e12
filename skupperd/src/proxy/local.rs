//! Connecting to servers, and bridging clients to servers of the same site without a link.

use super::{
    Cut, Proxy,
    flow::{self, Counted, Watched},
    stream::Stream,
    tls,
};
use crate::{
    link::{
        ledger::{Ending, Served},
        origin::{Origin, header},
        view::{ConnectorTarget, TargetHost},
        worker::Worker,
    },
    steer::accel::Acceleration,
    sys,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io::{self, IoSlice, IoSliceMut, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::io::{Interest, unix::AsyncFd};

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

impl InUse {
    /// What is to be said of it.
    pub(super) fn served(&self, server: &Stream) -> Served {
        let target = &self.0;
        flow::here(&target.name, target.host.to_string(), server)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a server is told of the client it is for.
#[derive(Debug, Default)]
pub(super) struct About {
    pub(super) origin: Option<Origin>,
    /// What the listener has agreed on with it.
    pub(super) protocol: Option<String>,
    /// The site that it is of, by name.
    pub(super) site: Option<String>,
}

/// Connects to a connector's server.
pub(super) async fn connect(
    acceleration: &Arc<Acceleration>,
    worker: &Worker,
    site: u32,
    key: &str,
    target: u64,
    about: &About,
) -> io::Result<(Stream, InUse)> {
    let target = worker
        .targets(site, key)
        .into_iter()
        .find(|t| t.id == target);
    let target = target.ok_or_else(|| io::Error::other("connector is gone"))?;
    if let Some(sites) = &target.sites
        && !sites.serve(about.site.as_deref())
    {
        if let Some(unsaid) = sites.deny() {
            let (connector, site) = (&target.name, about.site.as_deref().unwrap_or("unknown"));
            tracing::warn!(
                connector,
                routing_key = key,
                site,
                unsaid,
                "site denied by policy"
            );
        }
        let why = "the connector is not for clients of this site";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    // Counted from the attempt on: connections that are being made are load too.
    target.in_use.fetch_add(1, Ordering::Relaxed);
    let in_use = InUse(target.clone());
    match furnish(acceleration, &target, about).await {
        Ok(stream) => {
            target.connections.fetch_add(1, Ordering::Relaxed);
            if target.trouble.over() {
                tracing::info!(connector = target.name, "server takes connections again");
                worker.tell_changed();
            }
            Ok((stream, in_use))
        }
        Err(error) => {
            note(worker, &target, &error);
            Err(error)
        }
    }
}

/// A connection to a server failed: says so in the status and, now and then, in the log.
fn note(worker: &Worker, target: &ConnectorTarget, error: &io::Error) {
    let server = match target.host {
        TargetHost::Unix(_) => target.host.to_string(),
        _ => format!("{} port {}", target.host, target.port),
    };
    let why = format!("{server}: {error}");
    if let Some(unsaid) = target.failures.note(Instant::now()) {
        let connector = &target.name;
        tracing::warn!(connector, why, unsaid, "connecting to a server failed");
    }
    if target.trouble.failed(&why) {
        worker.tell_changed();
    }
}

/// A connection as the server expects it: it is told of its client, and spoken with in TLS.
async fn furnish(
    acceleration: &Arc<Acceleration>,
    target: &ConnectorTarget,
    about: &About,
) -> io::Result<Stream> {
    let near = target.accelerated.load(Ordering::Relaxed);
    let socket = dial(target, near.then_some(acceleration)).await?;
    let socket = sys::watch(socket)?;
    if let Some(version) = target.proxy_protocol {
        send(&socket, &header(version, about.origin.as_ref())).await?;
    }
    let Some(tls) = &target.tls else {
        return Ok(Stream::plain(acceleration, socket));
    };
    let secured = tls::connect(socket, tls, about.protocol.as_deref()).await;
    let secured = secured.map_err(|e| io::Error::new(e.kind(), format!("TLS handshake: {e}")))?;
    Ok(Stream::Tls(Box::new(secured)))
}

async fn send(socket: &AsyncFd<TcpStream>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = socket.async_io(Interest::WRITABLE, |mut s| s.write(bytes));
        bytes = &bytes[sent.await?..];
    }
    Ok(())
}

async fn dial(target: &ConnectorTarget, near: Option<&Arc<Acceleration>>) -> io::Result<TcpStream> {
    match &target.host {
        TargetHost::Ip(ip) => attempt(SocketAddr::new(*ip, target.port), near).await,
        TargetHost::Name(name) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "host name has no address");
            for addr in tokio::net::lookup_host((name.as_str(), target.port)).await? {
                match attempt(addr, near).await {
                    Ok(socket) => return Ok(socket),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
        TargetHost::Unix(path) => super::unix::connect(path).await,
    }
}

async fn attempt(addr: SocketAddr, near: Option<&Arc<Acceleration>>) -> io::Result<TcpStream> {
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

#[derive(Default)]
struct Way {
    /// Read and not written yet.
    rest: Vec<u8>,
    eof: bool,
    done: bool,
}

/// Tells a connection without an end of its own that its listener or connector is gone.
#[derive(Default)]
pub(super) struct Gate {
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

impl Gate {
    /// Waits for `work`; none when the listener goes first.
    pub(super) async fn unless_cut<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        poll_fn(|cx| {
            if self.cut.get() {
                return Poll::Ready(None);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// Moves bytes between a client and a server until both directions have ended, or one of the owners:
/// the listener and the connector.
pub(super) async fn bridge(
    proxy: &Proxy,
    owners: [u64; 2],
    client: &Stream,
    server: &Stream,
    first: &[u8],
    flow: &Watched,
) {
    let [client, server] = &Counted::both(client, server, flow);
    let gate = Rc::new(Gate::default());
    for owner in owners {
        proxy.own(owner, Rc::downgrade(&gate) as Weak<dyn Cut>);
    }
    let mut there = Way {
        rest: first.to_vec(),
        ..Way::default()
    };
    let mut back = Way::default();
    let result = poll_fn(|cx| {
        if gate.cut.get() {
            flow.end(Ending::Removed);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        *gate.waker.borrow_mut() = Some(cx.waker().clone());
        pump(cx, client, server, &mut there)?;
        pump(cx, server, client, &mut back)?;
        if there.done && back.done {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await;
    let result: io::Result<()> = result;
    // An error that is not one of reading or writing is the client's: it is the one that may go.
    flow.end(match result {
        Ok(()) => Ending::Closed,
        Err(_) => Ending::ResetByClient,
    });
    if result.is_err() {
        for stream in [client, server] {
            // A reset of one side is passed on to the other.
            let socket = SockRef::from(stream.socket());
            drop(socket.set_linger(Some(Duration::ZERO)));
        }
    }
}

fn pump(
    cx: &mut Context<'_>,
    from: &Counted<'_>,
    to: &Counted<'_>,
    way: &mut Way,
) -> io::Result<()> {
    if way.done {
        return Ok(());
    }
    if let Poll::Ready(sent) = to.poll_flush(cx) {
        sent?;
    }
    // So many chunks a turn: the others on this worker have theirs in between.
    for _ in 0..4 {
        while !way.rest.is_empty() {
            let Poll::Ready(guard) = to.poll_write_ready(cx) else {
                return Ok(());
            };
            let mut guard = guard?;
            match to.write(&[IoSlice::new(&way.rest)]) {
                Ok(n) => drop(way.rest.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if way.eof {
            return match to.shutdown() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // What waits goes first.
                    match to.poll_flush(cx)? {
                        Poll::Pending => Ok(()),
                        Poll::Ready(()) => continue,
                    }
                }
                ended => {
                    way.done = true;
                    ended
                }
            };
        }
        let Poll::Ready(guard) = from.poll_read_ready(cx) else {
            return Ok(());
        };
        let mut guard = guard?;
        SCRATCH.with_borrow_mut(|scratch| match from.read(&mut [IoSliceMut::new(scratch)]) {
            Ok(0) => {
                way.eof = true;
                Ok(())
            }
            Ok(n) => {
                if n < scratch.len() {
                    guard.was_short();
                }
                let sent = match to.write(&[IoSlice::new(&scratch[..n])]) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                    other => other?,
                };
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
