//! The servers behind the peers: one thread and one epoll instance, so that they cost as little as
//! possible beside what is measured.

use crate::load::listen;
use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::EventFd,
    },
};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Requests of the HTTP load, one for each kind of connection.
pub(crate) const KEEP_ALIVE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
pub(crate) const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Their responses.
pub(crate) const KEPT_ALIVE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
    Content-Length: 64\r\n\r\n\
    The quick brown fox jumps over the lazy dog, and then once more\n";
pub(crate) const CLOSED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
    Content-Length: 64\r\nConnection: close\r\n\r\n\
    The quick brown fox jumps over the lazy dog, and then once more\n";

/// What a sink sends back, to find out whether it is reached.
pub(crate) const PROBE: &[u8] = b"probe";

const END_OF_REQUEST: &[u8] = b"\r\n\r\n";

/// A longer request is an error of the load.
const LONGEST_REQUEST: usize = 4096;

/// What a server does with what it receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Sends it back.
    Echo,
    /// Answers requests.
    Http,
    /// Counts it, and sends back a [`PROBE`].
    Sink,
}

/// A running server. It is stopped on drop.
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    counters: Arc<Counters>,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Counters {
    received: AtomicU64,
    open: AtomicU64,
}

impl Target {
    pub(crate) fn start(service: Service) -> Result<Self> {
        let listener = listen().context("a server")?;
        let addr = listener.local_addr()?;
        let counters = Arc::<Counters>::default();
        let stop = Arc::new(EventFd::new()?);
        let server = Server::new(service, listener, counters.clone(), &stop)?;
        let thread = thread::Builder::new().name("target".to_owned());
        let thread = thread.spawn(move || server.run())?;
        Ok(Self {
            addr,
            counters,
            stop,
            thread: Some(thread),
        })
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.counters.received.load(Ordering::Relaxed)
    }

    /// Waits until all clients have gone: the load has closed its connections, and the peer has
    /// passed that on.
    pub(crate) fn wait_idle(&self) -> Result<()> {
        let begin = Instant::now();
        while self.counters.open.load(Ordering::Relaxed) > 0 {
            if begin.elapsed() > Duration::from_secs(20) {
                let open = self.counters.open.load(Ordering::Relaxed);
                return Err(anyhow!("{open} connections are open 20 s after the load"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Both fail only if the thread has ended, and then the load has failed.
        let _ = self.stop.write(1);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The data of events that are not of a connection.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

struct Server {
    service: Service,
    listener: TcpListener,
    epoll: Epoll,
    counters: Arc<Counters>,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
}

struct Connection {
    socket: TcpStream,
    /// The start of a request.
    request: Vec<u8>,
}

impl Server {
    fn new(
        service: Service,
        listener: TcpListener,
        counters: Arc<Counters>,
        stop: &EventFd,
    ) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Self {
            service,
            listener,
            epoll,
            counters,
            connections: Vec::new(),
        })
    }

    fn run(mut self) -> Result<()> {
        let mut events = vec![EpollEvent::empty(); 256];
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept()?,
                    STOP => return Ok(()),
                    fd => self.serve(fd as usize, &mut buffer),
                }
            }
        }
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => return Err(e.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let fd = socket.as_raw_fd().cast_unsigned();
            let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(fd));
            self.epoll.add(&socket, event)?;
            let fd = fd as usize;
            if self.connections.len() <= fd {
                self.connections.resize_with(fd + 1, || None);
            }
            self.connections[fd] = Some(Connection {
                socket,
                request: Vec::new(),
            });
            self.counters.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Serves a connection whose socket is readable, and closes it at its end and after an error.
    fn serve(&mut self, fd: usize, buffer: &mut [u8]) {
        let Some(entry) = self.connections.get_mut(fd) else {
            return;
        };
        let Some(connection) = entry else { return };
        let open = match connection.socket.read(buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.counters
                    .received
                    .fetch_add(count as u64, Ordering::Relaxed);
                match self.service {
                    // Messages are small: a full socket is an error of the load.
                    Service::Echo => connection.socket.write_all(&buffer[..count]).is_ok(),
                    Service::Http => connection.answer(&buffer[..count]).unwrap_or(false),
                    Service::Sink if &buffer[..count] == PROBE => {
                        connection.socket.write_all(PROBE).is_ok()
                    }
                    Service::Sink => true,
                }
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        if !open {
            *entry = None;
            self.counters.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    /// Answers the requests that are complete. Returns whether the connection stays open.
    fn answer(&mut self, received: &[u8]) -> io::Result<bool> {
        self.request.extend_from_slice(received);
        let ends = |bytes: &[u8]| {
            let mut windows = bytes.windows(END_OF_REQUEST.len());
            windows.position(|window| window == END_OF_REQUEST)
        };
        while let Some(end) = ends(&self.request) {
            let request: Vec<u8> = self.request.drain(..end + END_OF_REQUEST.len()).collect();
            if request == CLOSE {
                self.socket.write_all(CLOSED)?;
                return Ok(false);
            }
            self.socket.write_all(KEPT_ALIVE)?;
        }
        Ok(self.request.len() <= LONGEST_REQUEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(target: &Target, request: &[u8], length: usize) -> Result<(TcpStream, Vec<u8>)> {
        let mut socket = TcpStream::connect(target.addr)?;
        socket.write_all(request)?;
        let mut answer = vec![0; length];
        socket.read_exact(&mut answer)?;
        Ok((socket, answer))
    }

    #[test]
    fn an_echo_comes_back_and_open_connections_are_counted() -> Result<()> {
        let target = Target::start(Service::Echo)?;
        let (socket, answer) = exchange(&target, b"hello", 5)?;
        assert_eq!(answer, b"hello");
        assert_eq!(target.received(), 5);
        drop(socket);
        target.wait_idle()
    }

    #[test]
    fn http_connections_stay_open_unless_the_request_closes_them() -> Result<()> {
        let target = Target::start(Service::Http)?;
        // In two pieces, then the next one.
        let (mut socket, _) = exchange(&target, &KEEP_ALIVE[..9], 0)?;
        let rest = [&KEEP_ALIVE[9..], KEEP_ALIVE].concat();
        socket.write_all(&rest)?;
        let mut answers = vec![0; KEPT_ALIVE.len() * 2];
        socket.read_exact(&mut answers)?;
        assert_eq!(answers, KEPT_ALIVE.repeat(2));
        let (mut socket, answer) = exchange(&target, CLOSE, CLOSED.len())?;
        assert_eq!(answer, CLOSED);
        assert_eq!(socket.read(&mut [0])?, 0);
        Ok(())
    }

    #[test]
    fn the_body_has_the_length_of_its_header() {
        for response in [KEPT_ALIVE, CLOSED] {
            let text = String::from_utf8_lossy(response);
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            assert_eq!(body, Some(64));
        }
    }
}
