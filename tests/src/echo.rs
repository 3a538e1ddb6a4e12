//! Servers and clients for tests.

use crate::SOON;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A socket whose reader goes on where a call that blocks has ended without anything: as skupperd(8)
/// says, that is what happens on accelerated connections.
pub struct Patient<'a>(pub &'a TcpStream);

impl Read for Patient<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let begin = Instant::now();
        loop {
            match self.0.read(into) {
                Err(error)
                    if error.kind() == std::io::ErrorKind::WouldBlock && begin.elapsed() < SOON => {
                }
                other => return other,
            }
        }
    }
}

/// A server that runs until dropped; its open connections end with it.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Connections so far.
    pub accepted: Arc<AtomicUsize>,
    /// Connections open now.
    pub open: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// A server on this address that runs `each` for every connection.
    pub fn start(addr: SocketAddr, each: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).expect("address of a test server");
        let addr = listener.local_addr().expect("its address");
        let server = Self {
            addr,
            accepted: Arc::default(),
            open: Arc::default(),
            stop: Arc::default(),
        };
        let (accepted, open) = (server.accepted.clone(), server.open.clone());
        let (stop, each) = (server.stop.clone(), Arc::new(each));
        thread::spawn(move || {
            for socket in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(socket) = socket else { continue };
                accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (each, open) = (each.clone(), open.clone());
                let run = move || {
                    each(socket);
                    open.fetch_sub(1, Ordering::SeqCst);
                };
                thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn(run)
                    .expect("a thread");
            }
        });
        server
    }

    /// A server that sends everything back and half-closes after its client does.
    pub fn echo(addr: SocketAddr) -> Self {
        Self::start(addr, |mut socket| {
            socket.set_nodelay(true).ok();
            let mut buf = vec![0; 32 * 1024];
            while let Ok(n @ 1..) = socket.read(&mut buf) {
                if socket.write_all(&buf[..n]).is_err() {
                    return;
                }
            }
            socket.shutdown(Shutdown::Write).ok();
        })
    }

    /// A server that answers every connection with this text and closes.
    pub fn says(addr: SocketAddr, text: &'static str) -> Self {
        Self::start(addr, move |mut socket| {
            socket.write_all(text.as_bytes()).ok();
        })
    }

    /// A server that says its text and then waits for its client to go.
    pub fn holds(addr: SocketAddr, text: &'static str) -> Self {
        Self::start(addr, move |mut socket| {
            socket.write_all(text.as_bytes()).ok();
            socket.read_to_end(&mut Vec::new()).ok();
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.addr));
    }
}

/// Connects, with times that end a hanging test.
pub fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Sends a line and gives what comes back, up to the same length.
pub fn round_trip(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.write_all(text)?;
    let mut back = vec![0; text.len()];
    socket.read_exact(&mut back)?;
    Ok(back)
}

/// True when a new connection gets its bytes back.
pub fn works(addr: SocketAddr) -> bool {
    connect(addr)
        .and_then(|mut socket| round_trip(&mut socket, b"ping"))
        .is_ok_and(|back| back == b"ping")
}

/// What a server says until it closes.
pub fn hear(addr: SocketAddr) -> std::io::Result<String> {
    let mut text = String::new();
    connect(addr)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Nobody accepts there.
pub fn refused(addr: SocketAddr) -> bool {
    connect(addr).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}
