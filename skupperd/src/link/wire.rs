//! A link's socket with its TLS records: decrypted chunks in, sealed buffers out.

use super::{
    outbuf::{Framing, OutBuf},
    record::{self, RecordContent, RecordError, RecordLayer},
    send_budget::SendBudget,
    socket::{RegisteredSocket, Socket, SocketError},
};
use crate::sys::clock;
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll, ready},
    time::Instant,
};

/// First and largest size of one receive. It grows while the peer fills it: control connections stay
/// small, bulk gets a system call per 256 KiB.
const RECV_MIN: usize = 32 * 1024;
const RECV_MAX: usize = 256 * 1024;

/// Why a link's socket can not be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The TLS layer refused what the peer sent.
    #[error("TLS failed")]
    Record(#[from] RecordError),
    /// The peer closed the connection in the middle of a TLS record.
    #[error("connection cut in the middle of a TLS record")]
    Truncated,
}

/// Result of one receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiveOutcome {
    /// Zero or more chunks were added.
    Chunks,
    /// The peer has closed its direction.
    End,
}

/// A connected socket, its record layer, and its buffers. It can be taken off one runtime and put on
/// another as [`Parts`].
pub(crate) struct Wire {
    socket: RegisteredSocket,
    session: Option<RecordLayer>,
    fill: OutBuf,
    flight: OutBuf,
    /// Sent and total bytes of `flight`.
    sent: usize,
    total: usize,
    /// TLS records of the layer itself, to go before `flight`.
    urgent: Vec<u8>,
    budget: SendBudget,
    /// The socket took no more at the last flush.
    blocked: bool,
    inbuf: BytesMut,
    want: usize,
    /// Bytes sent and received on the socket, TLS included.
    pub(crate) octets_out: u64,
    pub(crate) octets_in: u64,
}

/// A [`Wire`] between two runtimes.
#[derive(Debug)]
pub(crate) struct Parts {
    socket: Socket,
    session: Option<RecordLayer>,
    inbuf: BytesMut,
    octets: (u64, u64),
}

impl Parts {
    /// A non-blocking socket without TLS, or with an established session and the encrypted bytes
    /// received behind the handshake.
    pub(crate) fn new(
        socket: impl Into<Socket>,
        session: Option<RecordLayer>,
        inbuf: BytesMut,
    ) -> Self {
        Self {
            socket: socket.into(),
            session,
            inbuf,
            octets: (0, 0),
        }
    }
}

impl Wire {
    /// Registers the socket with this thread's runtime.
    pub(crate) fn attach(parts: Parts) -> Result<Self, WireError> {
        let framing = if parts.session.is_some() {
            Framing::TLS
        } else {
            Framing::PLAIN
        };
        Ok(Self {
            socket: RegisteredSocket::new(parts.socket)?,
            session: parts.session,
            fill: OutBuf::new(framing),
            flight: OutBuf::new(framing),
            sent: 0,
            total: 0,
            urgent: Vec::new(),
            budget: SendBudget::new(),
            blocked: false,
            inbuf: parts.inbuf,
            want: RECV_MIN,
            octets_in: parts.octets.0,
            octets_out: parts.octets.1,
        })
    }

    /// Takes the socket off this runtime. Everything must have been flushed.
    pub(crate) fn detach(self) -> Parts {
        debug_assert!(self.fill.is_empty() && self.sent == self.total);
        Parts {
            octets: (self.octets_in, self.octets_out),
            socket: self.socket.into_inner(),
            session: self.session,
            inbuf: self.inbuf,
        }
    }

    pub(crate) fn out(&mut self) -> &mut OutBuf {
        &mut self.fill
    }

    /// Bytes of its buffers. That for receiving counts as what it grows to.
    pub(crate) fn held_bytes(&self) -> usize {
        self.fill.held_bytes() + self.flight.held_bytes() + self.want
    }

    /// Nothing waits to be sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.fill.is_empty() && self.sent == self.total && self.urgent.is_empty()
    }

    /// Receives once and adds the decrypted chunks to `chunks`.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut VecDeque<Bytes>,
    ) -> Poll<Result<ReceiveOutcome, WireError>> {
        if self.open_all(chunks)? {
            return Poll::Ready(Ok(ReceiveOutcome::End));
        }
        if !chunks.is_empty() {
            return Poll::Ready(Ok(ReceiveOutcome::Chunks));
        }
        let n = ready!(self.socket.poll_recv(cx, &mut self.inbuf, self.want))?;
        if n == 0 {
            let is_cut = self.session.is_some() && !self.inbuf.is_empty();
            return Poll::Ready(match is_cut {
                true => Err(WireError::Truncated),
                false => Ok(ReceiveOutcome::End),
            });
        }
        self.octets_in += n as u64;
        if self.inbuf.len() == self.inbuf.capacity() {
            self.want = (self.want * 2).min(RECV_MAX);
        }
        Poll::Ready(Ok(match self.open_all(chunks)? {
            true => ReceiveOutcome::End,
            false => ReceiveOutcome::Chunks,
        }))
    }

    /// Opens every complete record in the buffer. True: the peer has closed in order.
    fn open_all(&mut self, chunks: &mut VecDeque<Bytes>) -> Result<bool, WireError> {
        let Some(session) = &mut self.session else {
            if !self.inbuf.is_empty() {
                chunks.push_back(self.inbuf.split().freeze());
            }
            return Ok(false);
        };
        let mut done = 0;
        let mut ranges = [(0, 0); 20];
        let mut count = 0;
        let mut closed = false;
        let mut result = Ok(());
        while count < ranges.len() && !closed {
            match session.open(&mut self.inbuf[done..]) {
                Ok(None) => break,
                Ok(Some((used, opened))) => {
                    match opened {
                        RecordContent::Data(range) => {
                            ranges[count] = (done + range.start, done + range.end);
                            count += 1;
                        }
                        RecordContent::Closed => closed = true,
                        RecordContent::Nothing => {}
                    }
                    done += used;
                }
                Err(e) => {
                    result = Err(e.into());
                    break;
                }
            }
        }
        if done > 0 {
            let opened = self.inbuf.split_to(done).freeze();
            chunks.extend(
                ranges[..count]
                    .iter()
                    .map(|&(from, to)| opened.slice(from..to)),
            );
        }
        result.map(|()| closed)
    }

    /// Bounds what is queued, by the rate that the kernel measures.
    fn follow_path(&mut self, now: Instant) -> io::Result<()> {
        if !self.budget.is_due(now) {
            return Ok(());
        }
        let Some(path) = self.socket.send_state()?.filter(|path| path.rate > 0) else {
            return Ok(());
        };
        let limits = self
            .budget
            .limits(path.rate, self.blocked && path.unsent == 0);
        self.fill.set_limit(limits.buffer);
        self.flight.set_limit(limits.buffer);
        match limits.unsent {
            Some(unsent) => self.socket.set_unsent_limit(unsent),
            None => Ok(()),
        }
    }

    /// Sends what is buffered. Ready: all of it is with the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        if !self.is_flushed()
            && let Err(error) = self.follow_path(clock::now())
        {
            // Nothing is lost but the bound.
            tracing::debug!(%error, "cannot follow the rate of a link");
        }
        let flushed = self.flush(cx);
        self.blocked = flushed.is_pending();
        flushed
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            if self.sent == self.total && self.urgent.is_empty() {
                self.flight.reset(true);
                (self.sent, self.total) = (0, 0);
                self.fill.settle_overflow();
                if let Some(session) = &mut self.session
                    && let Some(due) = session.due()?
                {
                    self.urgent = due;
                }
                if self.fill.is_empty() && self.urgent.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                std::mem::swap(&mut self.fill, &mut self.flight);
                let session = &mut self.session;
                self.total = self.flight.seal(|record| match session {
                    Some(session) => session.seal(record, record::APPLICATION),
                    None => Ok(()),
                })?;
                self.fill.take_overflow(&mut self.flight);
            }
            let urgent = !self.urgent.is_empty();
            let bytes = if urgent {
                self.urgent.as_slice()
            } else {
                self.flight.bytes(self.sent, self.total)
            };
            let n = ready!(self.socket.poll_write(cx, bytes))?;
            self.octets_out += n as u64;
            if urgent {
                self.urgent.drain(..n);
            } else {
                self.sent += n;
            }
        }
    }

    /// Queues the TLS layer's orderly end, to be flushed last.
    pub(crate) fn close_notify(&mut self) -> Result<(), WireError> {
        if let Some(session) = &mut self.session
            && self.sent == self.total
            && self.fill.is_empty()
        {
            let record = session.close_notify()?;
            self.urgent.extend_from_slice(&record);
        }
        Ok(())
    }

    /// Gives buffers of an idle connection back.
    pub(crate) fn trim(&mut self) {
        if self.is_flushed() {
            self.fill.reset(false);
            self.flight.reset(false);
        }
        if self.inbuf.is_empty() {
            self.inbuf = BytesMut::new();
            self.want = RECV_MIN;
        }
    }
}

#[cfg(test)]
impl Wire {
    pub(crate) fn session_for_test(&mut self) -> &mut RecordLayer {
        self.session.as_mut().expect("a session")
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
