//! From the socket to the network: bytes are read into frames of the outgoing stream, as its window
//! allows.

use crate::{
    http_observer::MessageSender,
    link::{
        conn::{DeliveryOutcome, LinkConnection, OutStream, QueueTicket, SendOutcome, Waiter},
        flow_window::{FlowWindow, SendPhase},
        send_budget::SendClass,
    },
    proxy::{flow::FlowRecorder, stream::Stream},
};
use bytes::Bytes;
use std::{
    io::{self, IoSliceMut},
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

/// The outgoing direction of a bridged connection.
pub(super) struct Outbound {
    conn: Option<Rc<LinkConnection>>,
    /// None while it waits for a link of the connection.
    stream: Option<OutStream>,
    window: FlowWindow,
    /// What was sent before the stream of the answers was there.
    early: Vec<u8>,
    /// Early bytes on their way to another connector.
    replay: Bytes,
    /// Whether the last read took all that there was.
    class: SendClass,
    /// While it waits for room on the connection.
    ticket: Option<QueueTicket>,
    /// The window was closed when there was something to read, maybe.
    stalled: bool,
    eof: bool,
    /// The stream has its outcome.
    settled: bool,
    closed: bool,
}

/// What the outcome of an outgoing stream means for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamResult {
    /// The other end has taken everything.
    Complete,
    /// No connector has accepted it: another one may be tried.
    Refused,
    /// The other end has gone.
    Broken,
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self {
            conn: None,
            stream: None,
            window: FlowWindow::new(),
            early: Vec::new(),
            replay: Bytes::new(),
            class: SendClass::Sparse,
            ticket: None,
            stalled: false,
            eof: false,
            settled: false,
            closed: false,
        }
    }

    /// Begins on this connection, with `replay` before anything else. The stream is not open yet.
    pub(super) fn start(&mut self, conn: Rc<LinkConnection>, phase: SendPhase, replay: Bytes) {
        self.conn = Some(conn);
        self.ticket = None;
        self.window.set_phase(phase);
        self.replay = replay;
    }

    /// The stream has a link of its own. False: the outbound direction is closed.
    pub(super) fn set_stream(&mut self, stream: OutStream) -> bool {
        self.stream = Some(stream);
        !self.closed
    }

    /// The connection that it was opened on.
    pub(super) fn conn(&self) -> Option<&Rc<LinkConnection>> {
        self.conn.as_ref()
    }

    /// The receiver is of our own kind.
    pub(super) fn follow_path(&mut self) {
        self.window.follow_path();
    }

    /// The stream of the answers is there: what was sent early is in good hands.
    pub(super) fn answered(&mut self) {
        self.window.set_phase(SendPhase::Open);
        self.early = Vec::new();
    }

    /// After a refusal: what the next connector has to be sent first.
    pub(super) fn retry(&mut self) -> Bytes {
        self.settled = false;
        Bytes::copy_from_slice(&self.early)
    }

    /// The receiver has passed on this many bytes in total. True: reading continues.
    pub(super) fn acknowledged(&mut self, offset: u64) -> bool {
        self.window.acknowledged(offset, Instant::now) && std::mem::take(&mut self.stalled)
    }

    /// The receiver is done with the stream. `answered`: its answers have begun to come.
    pub(super) fn finish(&mut self, outcome: DeliveryOutcome, answered: bool) -> StreamResult {
        self.settled = true;
        if outcome == DeliveryOutcome::Accepted {
            return if self.eof {
                StreamResult::Complete
            } else {
                // Settled while it was still going.
                StreamResult::Broken
            };
        }
        if self.window.phase() == SendPhase::Open || answered {
            return StreamResult::Broken;
        }
        self.stream = None;
        self.conn = None;
        StreamResult::Refused
    }

    /// Everything was sent and taken.
    pub(super) fn is_done(&self) -> bool {
        self.eof && self.settled
    }

    /// Stops sending, and aborts the stream if it is not over.
    pub(super) fn close(&mut self) {
        self.closed = true;
        if let (Some(conn), Some(stream)) = (&self.conn, self.stream.take())
            && !self.settled
            && conn.is_open()
        {
            conn.borrow().abort(stream);
        }
    }

    /// Reads from the socket into the stream, one frame at a time.
    pub(super) fn poll_read(
        &mut self,
        socket: &Stream,
        flow: &FlowRecorder,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let (Some(stream), Some(conn)) = (self.stream, self.conn.as_ref()) else {
            return Ok(());
        };
        loop {
            if self.eof || self.settled || !conn.is_open() {
                return Ok(());
            }
            let mut link = conn.borrow();
            let bulk = self.class == SendClass::Bulk || !self.replay.is_empty();
            if bulk && self.ticket.is_some_and(|ticket| link.is_waiting(ticket)) {
                // Others that wait for room come first.
                return Ok(());
            }
            if !self.replay.is_empty() {
                link.send(stream, SendClass::Bulk, &mut self.replay);
                if !self.replay.is_empty() {
                    self.ticket = Some(link.wait_writable(Waiter::Task(cx.waker().clone())));
                    return Ok(());
                }
            }
            let room = self.window.room();
            if room == 0 {
                self.stalled = true;
                return Ok(());
            }
            let mut guard = match socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(guard) => guard?,
            };
            let mut asked = 0;
            let early = (self.window.phase() == SendPhase::Early).then_some(&mut self.early);
            let max = usize::try_from(room).unwrap_or(usize::MAX);
            let sent = link.send_from(stream, self.class, max, |pieces| {
                asked = pieces.iter().map(|p| p.len()).sum();
                let n = read(socket, pieces)?;
                if let Some(early) = early {
                    append(early, pieces, n);
                }
                flow.observe_read(MessageSender::Client, pieces, n);
                Ok(n)
            })?;
            match sent {
                SendOutcome::Bytes(0) => {
                    self.eof = true;
                    link.finish(stream);
                    return Ok(());
                }
                SendOutcome::Bytes(n) => {
                    self.window.sent(n, Instant::now);
                    flow.add_read(n);
                    self.class = match n < asked {
                        true => SendClass::Sparse,
                        false => SendClass::Bulk,
                    };
                    if n < asked {
                        // A short read has drained the socket: readiness is edge-triggered.
                        guard.was_short();
                    } else {
                        // One frame a turn: the others on this worker have theirs in between.
                        cx.waker().wake_by_ref();
                        return Ok(());
                    }
                }
                SendOutcome::Empty => guard.clear_ready(),
                SendOutcome::Full => {
                    if !self.ticket.is_some_and(|ticket| link.is_waiting(ticket)) {
                        self.ticket = Some(link.wait_writable(Waiter::Task(cx.waker().clone())));
                    }
                    return Ok(());
                }
            }
        }
    }
}

fn read(socket: &Stream, pieces: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    loop {
        match socket.read(pieces) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Appends the first `n` bytes of the pieces.
fn append(early: &mut Vec<u8>, pieces: &[IoSliceMut<'_>], mut n: usize) {
    for piece in pieces {
        let part = n.min(piece.len());
        early.extend_from_slice(&piece[..part]);
        n -= part;
    }
}
