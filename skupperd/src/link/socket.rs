//! What carries the bytes of a link: a TCP connection, or memory in a simulation.

use crate::sys::{self, SendState};
use bytes::BytesMut;
use socket2::SockRef;
use std::{
    io::{self, Write},
    net::TcpStream,
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, unix::AsyncFd};

/// Bytes of one receive from memory.
const MEMORY_RECEIVE: usize = 16 * 1024;

/// A connected, non-blocking socket that no runtime watches.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    /// One end of a pipe in this process.
    Memory(DuplexStream),
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Self::Tcp(socket)
    }
}

impl From<DuplexStream> for Socket {
    fn from(stream: DuplexStream) -> Self {
        Self::Memory(stream)
    }
}

/// A socket that the runtime of this thread watches.
#[derive(Debug)]
pub(super) enum RegisteredSocket {
    Tcp(AsyncFd<TcpStream>),
    Memory(DuplexStream),
}

/// The socket can not be used any more.
#[derive(Debug, thiserror::Error)]
#[error("{op} failed")]
pub(crate) struct SocketError {
    /// What was being done.
    pub(crate) op: &'static str,
    /// The system's reason.
    pub(crate) source: io::Error,
}

fn io_error(op: &'static str) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError { op, source }
}

impl RegisteredSocket {
    pub(super) fn new(socket: Socket) -> Result<Self, SocketError> {
        Ok(match socket {
            Socket::Tcp(socket) => {
                Self::Tcp(sys::watch(socket).map_err(io_error("registering the socket"))?)
            }
            Socket::Memory(stream) => Self::Memory(stream),
        })
    }

    pub(super) fn into_inner(self) -> Socket {
        match self {
            Self::Tcp(fd) => Socket::Tcp(fd.into_inner()),
            Self::Memory(stream) => Socket::Memory(stream),
        }
    }

    /// Receives once into `buf`, which gets room for `want` bytes when there is something to receive.
    /// 0: the peer has closed its direction.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        want: usize,
    ) -> Poll<Result<usize, SocketError>> {
        let fd = match self {
            Self::Tcp(fd) => fd,
            Self::Memory(stream) => {
                let mut bytes = [0; MEMORY_RECEIVE];
                let mut read = ReadBuf::new(&mut bytes);
                ready!(Pin::new(stream).poll_read(cx, &mut read)).map_err(io_error("receiving"))?;
                buf.extend_from_slice(read.filled());
                return Poll::Ready(Ok(read.filled().len()));
            }
        };
        loop {
            let mut guard = ready!(fd.poll_read_ready(cx)).map_err(io_error("polling"))?;
            buf.reserve(want);
            let room = buf.capacity() - buf.len();
            match sys::recv(fd.get_ref().as_fd(), buf) {
                Ok(n) => {
                    if n > 0 && n < room {
                        // A short read has drained the socket: readiness is edge-triggered.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(io_error("receiving")(e))),
            }
        }
    }

    /// How the connection sends; `None`: nobody measures that.
    pub(super) fn send_state(&self) -> io::Result<Option<SendState>> {
        match self {
            Self::Tcp(fd) => sys::send_state(fd.get_ref().as_fd()).map(Some),
            Self::Memory(_) => Ok(None),
        }
    }

    /// Has the kernel take bytes only while fewer than this are unsent; 0: as many as it likes.
    pub(super) fn set_unsent_limit(&self, bytes: u32) -> io::Result<()> {
        match self {
            Self::Tcp(fd) => SockRef::from(fd.get_ref()).set_tcp_notsent_lowat(bytes),
            Self::Memory(_) => Ok(()),
        }
    }

    /// Sends as many of these bytes as the socket takes.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, SocketError>> {
        let fd = match self {
            Self::Tcp(fd) => fd,
            Self::Memory(stream) => {
                let written = Pin::new(stream).poll_write(cx, bytes);
                return written.map_err(io_error("sending"));
            }
        };
        loop {
            let mut guard = ready!(fd.poll_write_ready(cx)).map_err(io_error("polling"))?;
            match guard.get_inner().write(bytes) {
                Ok(n) => {
                    if n < bytes.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(io_error("sending")(e))),
            }
        }
    }
}
