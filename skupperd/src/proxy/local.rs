//! Connecting to servers, and bridging clients to servers of the same site without a link.

use super::{
    Disconnect, Proxy,
    flow::{self, CountedStream, FlowRecorder},
    stream::Stream,
    tls,
};
use crate::{
    flows::{Ending, ServerInfo},
    service::{
        origin::{Origin, header},
        view::{ConnectorTarget, TargetHost},
    },
    steer::accel::Acceleration,
    sys,
    worker::Worker,
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

/// Bytes moved at once.
const CHUNK: usize = 128 * 1024;

thread_local! {
    /// One buffer for all bridges of a worker: what a socket does not take at once is kept apart.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

/// Counts a connection to a server for as long as it lives.
pub(super) struct InUse(Arc<ConnectorTarget>);

impl InUse {
    /// The record of this side of the connection.
    pub(super) fn server_info(&self, server: &Stream) -> ServerInfo {
        let target = &self.0;
        flow::local_server(&target.name, target.host.to_string(), server)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The client of a connection, as its server needs it.
#[derive(Debug, Default)]
pub(super) struct ClientInfo {
    pub(super) origin: Option<Origin>,
    /// Application protocol (ALPN) that the listener has negotiated.
    pub(super) protocol: Option<String>,
    /// Name of its site.
    pub(super) site: Option<String>,
}

/// Connects to a connector's server.
pub(super) async fn connect(
    acceleration: &Arc<Acceleration>,
    worker: &Worker,
    site: u32,
    key: &str,
    target: u64,
    client: &ClientInfo,
) -> io::Result<(Stream, InUse)> {
    let target = worker
        .targets(site, key)
        .into_iter()
        .find(|t| t.id == target);
    let target = target.ok_or_else(|| io::Error::other("connector is gone"))?;
    if let Some(sites) = &target.sites
        && !sites.allows(client.site.as_deref())
    {
        if let Some(suppressed) = sites.denied.count_and_report(Instant::now()) {
            let (connector, site) = (&target.name, client.site.as_deref().unwrap_or("unknown"));
            tracing::warn!(
                connector,
                routing_key = key,
                site,
                suppressed,
                "site denied by policy"
            );
        }
        let reason = "allow-sites denies the site of the client";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    target.last_failure.retry(Instant::now());
    // Count from the attempt on: pending connections are load too.
    target.in_use.fetch_add(1, Ordering::Relaxed);
    let in_use = InUse(target.clone());
    match open_server(acceleration, &target, client).await {
        Ok(stream) => {
            target.connections.fetch_add(1, Ordering::Relaxed);
            if target.last_failure.clear() {
                tracing::info!(connector = target.name, "server accepts connections again");
                worker.notify_changed();
            }
            Ok((stream, in_use))
        }
        Err(error) => {
            report_failure(worker, &target, &error);
            Err(error)
        }
    }
}

/// Reports a failed connection in the status and, rate-limited, in the log.
fn report_failure(worker: &Worker, target: &ConnectorTarget, error: &io::Error) {
    let server = match target.host {
        TargetHost::Unix(_) => target.host.to_string(),
        _ => format!("{} port {}", target.host, target.port),
    };
    let reason = format!("{server}: {error}");
    if let Some(suppressed) = target.failures.count_and_report(Instant::now()) {
        let connector = &target.name;
        tracing::warn!(connector, reason, suppressed, "cannot connect to server");
    }
    if target.last_failure.set(&reason, Instant::now()) {
        worker.notify_changed();
    }
}

/// Opens a connection with the PROXY protocol and TLS if the connector asks for them.
async fn open_server(
    acceleration: &Arc<Acceleration>,
    target: &ConnectorTarget,
    client: &ClientInfo,
) -> io::Result<Stream> {
    let near = target.accelerated.load(Ordering::Relaxed);
    let socket = dial(target, near.then_some(acceleration)).await?;
    let socket = sys::watch(socket)?;
    if let Some(version) = target.settings.proxy_protocol {
        send(&socket, &header(version, client.origin.as_ref())).await?;
    }
    let Some(tls) = &target.tls else {
        return Ok(Stream::plain(acceleration, socket));
    };
    let secured = tls::connect(socket, tls, client.protocol.as_deref()).await;
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
    let timeout = target.settings.connect_timeout;
    match &target.host {
        TargetHost::Ip(ip) => attempt(SocketAddr::new(*ip, target.port), near, timeout).await,
        TargetHost::Name(name) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "host name has no address");
            for addr in tokio::net::lookup_host((name.as_str(), target.port)).await? {
                match attempt(addr, near, timeout).await {
                    Ok(socket) => return Ok(socket),
                    Err(e) => last = e,
                }
            }
            Err(last)
        }
        TargetHost::Unix(path) => super::unix::connect(path, timeout).await,
    }
}

async fn attempt(
    addr: SocketAddr,
    near: Option<&Arc<Acceleration>>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    sys::leave_reserve(&socket)?;
    sys::prepare_proxied(&SockRef::from(&socket))?;
    if let Some(acceleration) = near {
        acceleration.connecting(SockRef::from(&socket));
    }
    match socket.connect(&addr.into()) {
        Ok(()) => return self_connected(socket.into(), addr),
        Err(e) if e.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(e) => return Err(e),
    }
    let watched = sys::watch(TcpStream::from(socket))?;
    let ready = tokio::time::timeout(timeout, watched.writable()).await;
    drop(ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??);
    let socket = watched.into_inner();
    match socket.take_error()? {
        Some(error) => Err(error),
        None => self_connected(socket, addr),
    }
}

/// A socket that connects to a loopback port without a listener can connect to itself by chance.
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
struct Direction {
    /// Read and not written yet.
    rest: Vec<u8>,
    eof: bool,
    done: bool,
}

/// Ends a connection without a [`TcpEnd`](super::tcp::TcpEnd) when its listener or connector is removed.
#[derive(Default)]
pub(super) struct CutSignal {
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Disconnect for CutSignal {
    fn disconnect(&self) {
        self.cut.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl CutSignal {
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
/// the listener and the connector. Any other end resets both sides, which [`sys::prepare_proxied`] has
/// arranged.
pub(super) async fn bridge(
    proxy: &Proxy,
    owners: [u64; 2],
    client: &Stream,
    server: &Stream,
    first: &[u8],
    flow: &FlowRecorder,
) {
    let [client, server] = &CountedStream::pair(client, server, flow);
    let cut_signal = Rc::new(CutSignal::default());
    for owner in owners {
        proxy.register(owner, Rc::downgrade(&cut_signal) as Weak<dyn Disconnect>);
    }
    let mut there = Direction {
        rest: first.to_vec(),
        ..Direction::default()
    };
    let mut back = Direction::default();
    let result = poll_fn(|cx| {
        if cut_signal.cut.get() {
            flow.end(Ending::Removed);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        *cut_signal.waker.borrow_mut() = Some(cx.waker().clone());
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
    if result.is_ok() {
        for stream in [client, server] {
            stream.finish_on_close();
        }
    }
}

fn pump(
    cx: &mut Context<'_>,
    from: &CountedStream<'_>,
    to: &CountedStream<'_>,
    direction: &mut Direction,
) -> io::Result<()> {
    if direction.done {
        return Ok(());
    }
    if let Poll::Ready(sent) = to.poll_flush(cx) {
        sent?;
    }
    // A limited number of chunks per poll, so that other tasks of this worker can run.
    for _ in 0..4 {
        while !direction.rest.is_empty() {
            let Poll::Ready(guard) = to.poll_write_ready(cx) else {
                return Ok(());
            };
            let mut guard = guard?;
            match to.write(&[IoSlice::new(&direction.rest)]) {
                Ok(n) => drop(direction.rest.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if direction.eof {
            return match to.shutdown() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // Unsent bytes go first.
                    match to.poll_flush(cx)? {
                        Poll::Pending => Ok(()),
                        Poll::Ready(()) => continue,
                    }
                }
                ended => {
                    direction.done = true;
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
                direction.eof = true;
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
                direction.rest.extend_from_slice(&scratch[sent..n]);
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
