//! TCP servers and clients.

use crate::SOON;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A blocking socket whose reads are retried after EAGAIN, which accelerated connections can
/// return, see skupperd(8).
pub struct RetryingReader<'a>(pub &'a TcpStream);

impl Read for RetryingReader<'_> {
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

/// A server that accepts until it is dropped.
pub struct Server {
    /// The address that it listens on.
    pub addr: SocketAddr,
    /// Connections accepted so far.
    pub accepted: Arc<AtomicUsize>,
    pub open: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server that runs `each` in a thread for every connection.
    pub fn start(addr: SocketAddr, each: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).expect("address of a test server");
        let addr = listener.local_addr().expect("its address");
        let mut server = Self {
            addr,
            accepted: Arc::default(),
            open: Arc::default(),
            stop: Arc::default(),
            accepting: None,
        };
        let (accepted, open) = (server.accepted.clone(), server.open.clone());
        let (stop, each) = (server.stop.clone(), Arc::new(each));
        let accept = move || {
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
        };
        server.accepting = Some(thread::spawn(accept));
        server
    }

    /// Starts a server that sends every byte back and half-closes after its client does.
    pub fn echo(addr: SocketAddr) -> Self {
        Self::start(addr, |mut socket| {
            socket.set_nodelay(true).ok();
            let mut buf = vec![0; 32 * 1024];
            while let Ok(n @ 1..) = RetryingReader(&socket).read(&mut buf) {
                if socket.write_all(&buf[..n]).is_err() {
                    return;
                }
            }
            socket.shutdown(Shutdown::Write).ok();
        })
    }

    /// Starts a server that sends this text on every connection and closes it.
    pub fn says(addr: SocketAddr, text: &'static str) -> Self {
        Self::start(addr, move |mut socket| {
            socket.write_all(text.as_bytes()).ok();
        })
    }

    /// Starts a server that sends this text and then waits until its client closes.
    pub fn holds(addr: SocketAddr, text: &'static str) -> Self {
        Self::start(addr, move |mut socket| {
            socket.write_all(text.as_bytes()).ok();
            let mut reader = RetryingReader(&socket);
            reader.read_to_end(&mut Vec::new()).ok();
        })
    }
}

impl Drop for Server {
    /// Returns when the address is free, so that nobody connects to a server that is ending.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        let accepting = self.accepting.take();
        while accepting
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            // Wakes the thread that accepts. In another network namespace this reaches nobody.
            if TcpStream::connect(self.addr).is_err() || begin.elapsed() > SOON {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Connects with timeouts, so that a hanging test fails.
pub fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    socket.set_write_timeout(Some(Duration::from_secs(20)))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Sends a text and returns as many bytes of the answer.
pub fn round_trip(socket: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.write_all(text)?;
    let mut back = vec![0; text.len()];
    RetryingReader(socket).read_exact(&mut back)?;
    Ok(back)
}

/// Whether an echo server answers on a new connection.
pub fn works(addr: SocketAddr) -> bool {
    connect(addr)
        .and_then(|mut socket| round_trip(&mut socket, b"ping"))
        .is_ok_and(|back| back == b"ping")
}

/// Whether a new connection ends without a byte of a server. A reset can be there before the client
/// has looked at its socket for the first time.
pub fn is_cut(addr: SocketAddr) -> bool {
    match connect(addr) {
        Ok(socket) => !matches!(RetryingReader(&socket).read(&mut [0; 1]), Ok(1..)),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Connects and returns what the server sends until it closes.
pub fn read_to_close(addr: SocketAddr) -> std::io::Result<String> {
    let mut text = String::new();
    RetryingReader(&connect(addr)?).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether an address sends this text and closes.
pub fn reads(addr: SocketAddr, text: &str) -> bool {
    read_to_close(addr).is_ok_and(|read| read == text)
}

/// Waits until an address sends this text and closes.
pub fn wait_reads(addr: SocketAddr, text: &str) {
    let begin = Instant::now();
    loop {
        let read = read_to_close(addr);
        if read.as_ref().is_ok_and(|read| read == text) {
            return;
        }
        let after = begin.elapsed();
        assert!(
            after < SOON,
            "{addr} does not send {text:?} after {after:?}: {read:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a new connection is refused.
pub fn refused(addr: SocketAddr) -> bool {
    connect(addr).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
}
