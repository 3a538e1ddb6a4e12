//! The socket of a client or a server, with TLS on it or without.

use super::tls::Tls;
use crate::sys;
use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, TcpStream},
    task::{Context, Poll},
};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A connection to read from and write to, neither of which waits.
pub(super) enum Stream {
    Plain(AsyncFd<TcpStream>),
    Tls(Box<Tls>),
}

/// Something can be read, or be tried to be.
pub(super) enum Readable<'a> {
    /// The socket says so.
    Socket(AsyncFdReadyGuard<'a, TcpStream>),
    /// It has been read from the socket already.
    Waiting,
}

impl Readable<'_> {
    /// Everything was read.
    pub(super) fn clear_ready(&mut self) {
        if let Self::Socket(guard) = self {
            guard.clear_ready();
        }
    }
}

impl Stream {
    /// A socket without TLS. Of a Unix socket too: a stream socket is read, written and shut down in
    /// one way.
    pub(super) fn plain(socket: TcpStream) -> io::Result<Self> {
        Ok(Self::Plain(sys::watch(socket)?))
    }

    fn watched(&self) -> &AsyncFd<TcpStream> {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> &TcpStream {
        self.watched().get_ref()
    }

    /// The protocol that was agreed on in the TLS handshake.
    pub(super) fn protocol(&self) -> Option<String> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.protocol(),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        if let Self::Tls(tls) = self
            && tls.poll_waiting(cx)?
        {
            return Poll::Ready(Ok(Readable::Waiting));
        }
        let ready = self.watched().poll_read_ready(cx);
        ready.map(|guard| guard.map(Readable::Socket))
    }

    pub(super) fn poll_write_ready(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, TcpStream>>> {
        self.watched().poll_write_ready(cx)
    }

    /// Reads what is there; less than there is room for only when nothing more is. 0: the other side
    /// has ended its way in order.
    pub(super) fn read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.get_ref().read_vectored(pieces),
            Self::Tls(tls) => tls.read(pieces),
        }
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.get_ref().write_vectored(pieces),
            Self::Tls(tls) => tls.write(pieces),
        }
    }

    /// What was written waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Sends what waits, as far as the socket takes it at once.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => match tls.flush() {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
                _ => Ok(()),
            },
        }
    }

    /// Sends what waits; pending until it is sent.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Ends our way in order. Would block: something is still to be sent, then it is to be tried
    /// again.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        let ended = match self {
            Self::Plain(socket) => socket.get_ref().shutdown(Shutdown::Write),
            Self::Tls(tls) => tls.shutdown(),
        };
        match ended {
            // A client that is gone already has all it wanted.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}
