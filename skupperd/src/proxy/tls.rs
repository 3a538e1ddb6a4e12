//! TLS with clients and servers.
//!
//! A direction ends with `close_notify` followed by FIN. Anyone on the path can send a bare FIN: it is an
//! error, and the other side of the connection is reset.

use crate::{
    pki::explain,
    service::tls::{ConnectorTls, ListenerTls},
    sys,
};
use rustls::{
    ClientConnection, Connection,
    server::{Accepted, AcceptedAlert, Acceptor},
};
use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, TcpStream},
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Timeout of a handshake; a silent client holds its socket no longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Sealed bytes that wait for the socket.
const UNSENT: usize = 128 * 1024;

/// A socket with TLS whose handshake is complete.
pub(super) struct Tls {
    pub(super) socket: AsyncFd<TcpStream>,
    conn: RefCell<Connection>,
    /// Something may be waiting that was read from the socket already.
    waiting: Cell<bool>,
    /// Error to return once all data before it was read.
    failure: RefCell<Option<io::Error>>,
    closing: Cell<bool>,
}

impl Tls {
    fn new(socket: AsyncFd<TcpStream>, mut conn: Connection) -> Self {
        conn.set_buffer_limit(Some(UNSENT));
        Self {
            socket,
            conn: RefCell::new(conn),
            waiting: Cell::new(true),
            failure: RefCell::new(None),
            closing: Cell::new(false),
        }
    }

    pub(super) fn protocol(&self) -> Option<String> {
        let conn = self.conn.borrow();
        let protocol = conn.alpn_protocol()?;
        String::from_utf8(protocol.to_vec()).ok()
    }

    /// True: there is data to read without the socket being ready. Answers of TLS itself that
    /// could not be sent are sent on the way.
    pub(super) fn poll_waiting(&self, cx: &mut Context<'_>) -> io::Result<bool> {
        if let Poll::Ready(sent) = self.poll_flush(cx) {
            sent?;
        }
        Ok(self.waiting.get())
    }

    pub(super) fn read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut total = 0;
        match self.fill(pieces, &mut total) {
            Ok(()) => self.waiting.set(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.waiting.set(false);
                if total == 0 {
                    return Err(e);
                }
            }
            Err(e) => {
                self.waiting.set(true);
                if total == 0 {
                    return Err(e);
                }
                *self.failure.borrow_mut() = Some(e);
            }
        }
        Ok(total)
    }

    /// Fills the pieces as far as there is something, or to the end.
    fn fill(&self, pieces: &mut [IoSliceMut<'_>], total: &mut usize) -> io::Result<()> {
        if let Some(failure) = self.failure.borrow_mut().take() {
            return Err(failure);
        }
        let conn = &mut *self.conn.borrow_mut();
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() {
                match conn.reader().read(&mut piece[at..]) {
                    Ok(0) => return Ok(()),
                    Ok(n) => {
                        at += n;
                        *total += n;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.receive(conn)?,
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                        let text = "the peer ended the connection without close_notify";
                        return Err(io::Error::new(e.kind(), text));
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    fn receive(&self, conn: &mut Connection) -> io::Result<()> {
        self.socket
            .try_io(Interest::READABLE, |socket| conn.read_tls(&mut &*socket))?;
        let processed = conn.process_new_packets();
        let sent = send(&self.socket, conn);
        processed.map_err(refused)?;
        match sent {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let conn = &mut *self.conn.borrow_mut();
        let would_block = |e: &io::Error| e.kind() == io::ErrorKind::WouldBlock;
        send(&self.socket, conn).or_else(|e| if would_block(&e) { Ok(()) } else { Err(e) })?;
        let n = conn.writer().write_vectored(pieces)?;
        send(&self.socket, conn).or_else(|e| if would_block(&e) { Ok(()) } else { Err(e) })?;
        if n == 0 && pieces.iter().any(|p| !p.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(n)
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.conn.borrow().wants_write()
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        send(&self.socket, &mut self.conn.borrow_mut())
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.flush() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            match self.socket.poll_write_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(guard) => guard?.clear_ready(),
            }
        }
    }

    pub(super) fn shutdown(&self) -> io::Result<()> {
        if !self.closing.replace(true) {
            self.conn.borrow_mut().send_close_notify();
        }
        self.flush()?;
        self.socket.get_ref().shutdown(Shutdown::Write)
    }
}

/// Sends what waits, as far as the socket takes it at once.
fn send(socket: &AsyncFd<TcpStream>, conn: &mut Connection) -> io::Result<()> {
    while conn.wants_write() {
        match conn.write_tls(&mut socket.get_ref()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn refused(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, explain(&error))
}

async fn in_time<T>(handshake: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| {
        let text = format!("not complete within {} s", TIMEOUT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    };
    let done = tokio::time::timeout(TIMEOUT, handshake).await;
    done.unwrap_or_else(late)
}

/// A listener's handshake with a client. Not connected: it has gone without a word.
pub(super) async fn accept(socket: AsyncFd<TcpStream>, tls: &ListenerTls) -> io::Result<Tls> {
    in_time(async {
        let accepted = hello(&socket).await?;
        let config = tls.config.load().answer(&accepted.client_hello());
        let conn = accepted.into_connection(config);
        let conn = conn.map_err(|refusal| refuse(&socket, refusal))?;
        finish(socket, conn.into()).await
    })
    .await
}

/// The first message of a client, by which the configuration is chosen.
async fn hello(socket: &AsyncFd<TcpStream>) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut silent = true;
    loop {
        let read = socket.async_io(Interest::READABLE, |s| acceptor.read_tls(&mut &*s));
        match read.await {
            // A port scan or a health check.
            Ok(0) | Err(_) if silent => return Err(io::ErrorKind::NotConnected.into()),
            Ok(0) => return Err(closed()),
            other => drop(other?),
        }
        silent = false;
        if let Some(accepted) = acceptor.accept().map_err(|e| refuse(socket, e))? {
            return Ok(accepted);
        }
    }
}

fn refuse(
    socket: &AsyncFd<TcpStream>,
    (error, mut alert): (rustls::Error, AcceptedAlert),
) -> io::Error {
    // The handshake fails whether or not the alert is sent.
    drop(alert.write(&mut socket.get_ref()));
    // A reset could overtake the alert.
    sys::finish_on_close(socket.get_ref().into());
    refused(error)
}

fn closed() -> io::Error {
    let text = "the peer closed the connection";
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// A connector's handshake with a server. `protocol`: what its client has agreed on.
pub(super) async fn connect(
    socket: AsyncFd<TcpStream>,
    tls: &ConnectorTls,
    protocol: Option<&str>,
) -> io::Result<Tls> {
    let (config, name) = tls.config.load().ask(protocol);
    let conn = ClientConnection::new(config, name).map_err(refused)?;
    in_time(finish(socket, conn.into())).await
}

async fn finish(socket: AsyncFd<TcpStream>, mut conn: Connection) -> io::Result<Tls> {
    loop {
        while conn.wants_write() {
            let send = socket.async_io(Interest::WRITABLE, |s| conn.write_tls(&mut &*s));
            send.await?;
        }
        if !conn.is_handshaking() {
            return Ok(Tls::new(socket, conn));
        }
        let read = socket.async_io(Interest::READABLE, |s| conn.read_tls(&mut &*s));
        if read.await? == 0 {
            return Err(closed());
        }
        if let Err(error) = conn.process_new_packets() {
            // The alert names the error to the peer; it does not matter whether it arrives.
            drop(send(&socket, &mut conn));
            sys::finish_on_close(socket.get_ref().into());
            return Err(refused(error));
        }
    }
}
