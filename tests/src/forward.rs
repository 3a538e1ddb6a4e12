//! A TCP forwarder that can be cut like a cable: no bytes pass, and neither end is notified.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A forwarder of TCP connections that runs until the test ends.
pub struct Forwarder {
    /// Where it listens.
    pub addr: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Forwarder {
    pub fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let addr = listener.local_addr().expect("an address");
        let cut: Arc<AtomicBool> = Arc::default();
        let flag = cut.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone(), to.try_clone());
                    let (from, to) = (from.expect("a socket"), to.expect("a socket"));
                    let flag = flag.clone();
                    thread::spawn(move || pump(from, to, &flag));
                }
            }
        });
        Self { addr, cut }
    }

    /// Stops all bytes from now on, or lets them pass again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    // Reads time out, so that the flag is checked.
    let interval = Some(Duration::from_millis(10));
    from.set_read_timeout(interval).expect("a timeout");
    let mut buf = vec![0; 64 * 1024];
    loop {
        let n = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        // Bytes that were in flight when the cable was cut are lost, so the connection cannot
        // continue.
        let mut lost = false;
        while cut.load(Ordering::SeqCst) {
            lost = true;
            thread::sleep(Duration::from_millis(10));
        }
        if lost || to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    // Both ends see the loss once the cable is whole again.
    from.shutdown(std::net::Shutdown::Both).ok();
    to.shutdown(std::net::Shutdown::Both).ok();
}
