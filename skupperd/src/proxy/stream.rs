//! The socket of a client or a server, with TLS on it or without.

use super::tls::Tls;
use crate::{
    steer::accel::{Acceleration, Hop},
    sys,
};
use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A connection to read from and write to, neither of which waits.
pub(super) enum Stream {
    Plain(AsyncFd<TcpStream>),
    /// Without TLS, and accelerated.
    Short(AsyncFd<TcpStream>, Box<Hop>),
    Tls(Box<Tls>),
}

/// Readiness to read.
pub(super) enum Readable<'a> {
    Socket(AsyncFdReadyGuard<'a, TcpStream>),
    /// By the socket; a short read need not be the last.
    Short(AsyncFdReadyGuard<'a, TcpStream>),
    /// It has been read from the socket already.
    Waiting,
}

impl Readable<'_> {
    /// A read has found nothing.
    pub(super) fn clear_ready(&mut self) {
        match self {
            Self::Socket(guard) | Self::Short(guard) => guard.clear_ready(),
            Self::Waiting => {}
        }
    }

    /// A read gave less than there was room for.
    pub(super) fn was_short(&mut self) {
        if let Self::Socket(guard) = self {
            guard.clear_ready();
        }
    }
}

/// Readiness to write.
pub(super) struct Writable<'a> {
    guard: AsyncFdReadyGuard<'a, TcpStream>,
    hop: Option<&'a Hop>,
}

impl Writable<'_> {
    /// A write has found no room.
    pub(super) fn clear_ready(&mut self) {
        // TLS, not the socket, may have had no room.
        if !self.hop.is_some_and(Hop::is_shut) {
            self.guard.clear_ready();
        }
    }
}

impl Stream {
    /// A socket without TLS. Of a Unix socket too: a stream socket is read, written and shut down in
    /// one way.
    pub(super) fn plain(acceleration: &Arc<Acceleration>, socket: AsyncFd<TcpStream>) -> Self {
        match acceleration.hop(socket.get_ref()) {
            Some(hop) => Self::Short(socket, Box::new(hop)),
            None => Self::Plain(socket),
        }
    }

    fn async_fd(&self) -> &AsyncFd<TcpStream> {
        match self {
            Self::Plain(socket) | Self::Short(socket, _) => socket,
            Self::Tls(tls) => &tls.socket,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        self.async_fd().get_ref()
    }

    /// Both directions have ended: closes the socket in order, and not by a reset.
    pub(super) fn finish_on_close(&self) {
        sys::finish_on_close(self.socket().into());
    }

    /// The protocol that was agreed on in the TLS handshake.
    pub(super) fn protocol(&self) -> Option<String> {
        match self {
            Self::Plain(_) | Self::Short(..) => None,
            Self::Tls(tls) => tls.protocol(),
        }
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable<'_>>> {
        if let Self::Tls(tls) = self
            && tls.poll_waiting(cx)?
        {
            return Poll::Ready(Ok(Readable::Waiting));
        }
        let ready = self.async_fd().poll_read_ready(cx);
        ready.map(|guard| {
            guard.map(match self {
                Self::Short(..) => Readable::Short,
                _ => Readable::Socket,
            })
        })
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Writable<'_>>> {
        let hop = match self {
            Self::Short(_, hop) => Some(&**hop),
            _ => None,
        };
        if hop.is_some_and(|hop| hop.poll_open(cx).is_pending()) {
            return Poll::Pending;
        }
        let ready = self.async_fd().poll_write_ready(cx);
        ready.map(|guard| guard.map(|guard| Writable { guard, hop }))
    }

    /// Reads what is there; [`Readable::was_short`] reports that it was less than there is room for. 0: an
    /// orderly end of this direction.
    pub(super) fn read(&self, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.get_ref().read_vectored(pieces),
            Self::Short(socket, hop) => {
                let n = socket.get_ref().read_vectored(pieces)?;
                hop.has_read(n);
                Ok(n)
            }
            Self::Tls(tls) => tls.read(pieces),
        }
    }

    pub(super) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.get_ref().write_vectored(pieces),
            Self::Short(socket, hop) => {
                if !hop.may_write(pieces.iter().map(|p| p.len()).sum()) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let n = socket.get_ref().write_vectored(pieces)?;
                hop.has_written(n);
                Ok(n)
            }
            Self::Tls(tls) => tls.write(pieces),
        }
    }

    /// What was written waits to be sent.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Short(..) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Sends what waits, as far as the socket takes it at once.
    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Short(..) => Ok(()),
            Self::Tls(tls) => match tls.flush() {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
                _ => Ok(()),
            },
        }
    }

    /// Sends what waits; pending until it is sent.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Short(..) => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Ends our direction in order. `WouldBlock` if there are unsent bytes: flush, and call it again.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        let ended = match self {
            Self::Plain(socket) | Self::Short(socket, _) => {
                socket.get_ref().shutdown(Shutdown::Write)
            }
            Self::Tls(tls) => tls.shutdown(),
        };
        match ended {
            // A client that is gone already has all it wanted.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }
}
