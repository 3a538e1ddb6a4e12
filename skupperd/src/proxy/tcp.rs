//! One TCP connection bridged to a pair of streams.

use super::{
    Cut, Open,
    flow::{self, Watched},
    http,
    stream::Stream,
};
use crate::{
    amqp::message::MessageHead,
    link::{
        conn::{Conn, Current, End, Inner, OutStream, Outcome, Sent, StreamEnd, Waiter},
        ledger::Ending,
        upstream::Upstream,
    },
};
use bytes::{Buf, Bytes};
use socket2::SockRef;
use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Unacknowledged bytes at which a sender stops, as upstream's do.
pub(super) const WINDOW: u64 = 1_042_432;
/// Bytes passed on after which a receiver acknowledges, as upstream's do: half the window.
const ACK_EVERY: u64 = 521_216;
/// The same between ends of our own kind, to begin with: what is not in flight waits in the sender's
/// socket instead of the receiver's memory, and in the cache instead of out of it.
const NATIVE_WINDOW: u64 = 256 * 1024;
/// Acknowledgement interval between ends of our own kind.
const NATIVE_ACK_EVERY: u64 = 64 * 1024;
/// Shortest time a rate is measured over: acknowledgements come in bursts.
const MEASURE: Duration = Duration::from_millis(2);
/// Application property by which an end says that it acknowledges in [`NATIVE_ACK_EVERY`] steps.
pub(super) const NATIVE_END: &str = crate::link::NATIVE_END;
/// Largest window between routers of our own kind: 16 MiB carry 1 Gb/s over 130 ms.
const MAX_WINDOW: u64 = 16 * 1024 * 1024;
/// Bytes of a client sent before the reverse stream is there. They are kept until then, to be sent
/// to another connector should the first refuse.
pub(super) const EARLY: u64 = 64 * 1024;
/// Payloads below this are copied when they have to wait: a slice would keep the whole buffer of a
/// receive alive.
const KEEP: usize = 4 * 1024;
/// Pieces of one write.
const PIECES: usize = 32;

/// How a stream towards the network may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Not until the reverse stream is there.
    Held,
    /// Up to [`EARLY`] bytes, kept.
    Early,
    /// As the window allows.
    Open,
}

pub(super) struct State {
    // From the network to the socket.
    pub(super) up: Option<Upstream>,
    queue: VecDeque<Bytes>,
    written: u64,
    acked: u64,
    in_ended: bool,
    in_done: bool,
    // From the socket to the network.
    pub(super) out: Option<OutStream>,
    pub(super) next: Option<Rc<Conn>>,
    pub(super) sending: Sending,
    pub(super) early: Vec<u8>,
    /// Early bytes on their way to another connector.
    pub(super) again: Bytes,
    sent: u64,
    confirmed: u64,
    window: u64,
    ack_every: u64,
    native: bool,
    /// When the byte at this offset was sent, and the shortest time an acknowledgement took.
    probe: Option<(u64, Instant)>,
    rtt: Duration,
    rate: (Instant, u64),
    waiting: bool,
    eof: bool,
    out_done: bool,
    // Both.
    waker: Option<Waker>,
    reset: bool,
    /// The stream was refused before it began: the listener may try elsewhere.
    pub(super) refused: Option<Outcome>,
    closed: bool,
}

/// A TCP connection.
pub(super) struct TcpEnd {
    socket: OnceCell<Rc<Stream>>,
    delegate: OnceCell<End>,
    pub(super) st: RefCell<State>,
    /// What is recorded of it.
    flow: Rc<Watched>,
    _open: Option<Open>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// Both directions, in order.
    Closed,
    /// By a reset from either side.
    Reset,
    /// The stream was refused before anything came back.
    Refused(Outcome),
}

impl TcpEnd {
    pub(super) fn new(
        socket: Option<Rc<Stream>>,
        open: Option<Open>,
        flow: Rc<Watched>,
    ) -> Rc<Self> {
        let cell = OnceCell::new();
        if let Some(socket) = socket {
            drop(cell.set(socket));
        }
        Rc::new(Self {
            socket: cell,
            delegate: OnceCell::new(),
            st: RefCell::new(State {
                up: None,
                queue: VecDeque::new(),
                written: 0,
                acked: 0,
                in_ended: false,
                in_done: false,
                out: None,
                next: None,
                sending: Sending::Held,
                early: Vec::new(),
                again: Bytes::new(),
                sent: 0,
                confirmed: 0,
                window: WINDOW,
                ack_every: ACK_EVERY,
                native: false,
                probe: None,
                rtt: Duration::MAX,
                rate: (Instant::now(), 0),
                waiting: false,
                eof: false,
                out_done: false,
                waker: None,
                reset: false,
                refused: None,
                closed: false,
            }),
            flow,
            _open: open,
        })
    }

    /// The server connection of a connector has been made.
    pub(super) fn connected(&self, socket: Stream) {
        drop(self.socket.set(Rc::new(socket)));
    }

    /// The stream towards the client has arrived: what was sent early is in good hands.
    pub(super) fn reverse(&self, _cur: Current<'_>, up: Upstream, head: &MessageHead) {
        self.peer(head);
        self.flow.served(flow::other_end(head));
        let mut st = self.st.borrow_mut();
        st.up = Some(up);
        st.sending = Sending::Open;
        st.early = Vec::new();
        wake(&mut st);
    }

    /// After a refusal: what the next connector has to be sent first.
    pub(super) fn retry(&self) -> Bytes {
        let mut st = self.st.borrow_mut();
        st.out_done = false;
        st.refused = None;
        Bytes::copy_from_slice(&st.early)
    }

    /// The socket, for somebody else to go on with.
    pub(super) fn socket_again(&self) -> Option<Rc<Stream>> {
        self.socket.get().cloned()
    }

    /// Somebody else goes on with the incoming stream, and gets what has come so far.
    pub(super) fn delegate(&self, to: End) {
        let (queue, ended) = {
            let mut st = self.st.borrow_mut();
            st.up = None;
            (std::mem::take(&mut st.queue), st.in_ended)
        };
        for payload in queue {
            to.data(None, payload);
        }
        if ended {
            to.end(None, false);
        }
        to.flush(None);
        drop(self.delegate.set(to));
    }

    /// The stream was given up before its server was there.
    pub(super) fn is_reset(&self) -> bool {
        self.st.borrow().reset
    }

    /// Takes from the head of the incoming stream what its other end can do.
    pub(super) fn peer(&self, head: &MessageHead) {
        if head.application_property(NATIVE_END).is_some() {
            let mut st = self.st.borrow_mut();
            st.native = true;
            st.window = NATIVE_WINDOW;
            st.ack_every = NATIVE_ACK_EVERY;
        }
    }

    /// Moves bytes both ways until the connection has ended.
    pub(super) async fn run(self: &Rc<Self>) -> Finished {
        let finished = poll_fn(|cx| self.poll(cx)).await;
        if finished == Finished::Closed {
            self.flow.end(Ending::Closed);
        }
        if !matches!(finished, Finished::Refused(_)) {
            self.close(finished == Finished::Reset);
        }
        finished
    }

    /// Ends everything that is still open.
    pub(super) fn close(&self, reset: bool) {
        let (next, out, up) = {
            let mut st = self.st.borrow_mut();
            st.closed = true;
            st.queue.clear();
            let out = st.out.take().filter(|_| !st.out_done);
            (st.next.take(), out, st.up.take().filter(|_| !st.in_done))
        };
        if let (Some(next), Some(out)) = (next, out)
            && next.is_open()
        {
            next.borrow().abort(out);
        }
        if let Some(up) = up {
            up.settle(None, Outcome::Modified);
        }
        if let Some(socket) = self.socket.get().filter(|_| reset) {
            // A reset is passed on as a reset: unsent data is thrown away, the peer told.
            let socket = SockRef::from(socket.socket());
            if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "connection ends without a reset");
            }
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Finished> {
        {
            let mut st = self.st.borrow_mut();
            if !st.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                st.waker = Some(cx.waker().clone());
            }
            if st.reset {
                return Poll::Ready(Finished::Reset);
            }
            if let Some(outcome) = st.refused.take() {
                return Poll::Ready(Finished::Refused(outcome));
            }
        }
        if self.poll_write(cx).is_err() || self.poll_read(cx).is_err() {
            self.flow.here();
            return Poll::Ready(Finished::Reset);
        }
        let st = self.st.borrow();
        if st.in_done && st.eof && st.out_done {
            return Poll::Ready(Finished::Closed);
        }
        Poll::Pending
    }

    /// Writes what is queued for the socket, waiting for room.
    fn poll_write(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(socket) = self.socket.get() else {
            return Ok(());
        };
        loop {
            self.write(None)?;
            if self.st.borrow().queue.is_empty() && !socket.has_unsent() {
                return Ok(());
            }
            match socket.poll_write_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(guard) => guard?.clear_ready(),
            }
        }
    }

    /// Writes what the socket takes at once.
    fn write(&self, mut cur: Current<'_>) -> io::Result<()> {
        let Some(socket) = self.socket.get() else {
            return Ok(());
        };
        let st = &mut *self.st.borrow_mut();
        socket.flush()?;
        while !st.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, bytes) in pieces.iter_mut().zip(&st.queue) {
                *piece = IoSlice::new(bytes);
                count += 1;
            }
            let mut n = match socket.write(&pieces[..count]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            st.written += n as u64;
            self.flow.wrote(n);
            while let Some(front) = st.queue.front_mut() {
                let part = n.min(front.len());
                front.advance(part);
                n -= part;
                if !front.is_empty() {
                    break;
                }
                st.queue.pop_front();
            }
            if st.written - st.acked >= st.ack_every && !st.in_ended {
                st.acked = st.written;
                if let Some(up) = &st.up {
                    up.ack(cur.as_deref_mut(), st.written);
                }
            }
        }
        if st.in_ended && !st.in_done {
            match socket.shutdown() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                ended => ended?,
            }
            st.in_done = true;
            if let Some(up) = &st.up {
                up.settle(cur, Outcome::Accepted);
            }
        }
        Ok(())
    }

    /// Reads from the socket into the stream, one frame at a time.
    fn poll_read(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(socket) = self.socket.get() else {
            return Ok(());
        };
        loop {
            let st = &mut *self.st.borrow_mut();
            let (Some(out), Some(next)) = (st.out, st.next.as_ref()) else {
                return Ok(());
            };
            if st.eof || st.out_done || !next.is_open() {
                return Ok(());
            }
            let mut inner = next.borrow();
            if !st.again.is_empty() {
                inner.send(out, &mut st.again);
                if !st.again.is_empty() {
                    inner.wait_writable(Waiter::Task(cx.waker().clone()));
                    return Ok(());
                }
            }
            let limit = match st.sending {
                Sending::Held => 0,
                Sending::Early => EARLY,
                Sending::Open => st.confirmed + st.window,
            };
            let allowed = limit.saturating_sub(st.sent);
            if allowed == 0 {
                st.waiting = true;
                return Ok(());
            }
            let mut guard = match socket.poll_read_ready(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(guard) => guard?,
            };
            let mut asked = 0;
            let early = (st.sending == Sending::Early).then_some(&mut st.early);
            let max = usize::try_from(allowed).unwrap_or(usize::MAX);
            let sent = inner.send_from(out, max, |pieces| {
                asked = pieces.iter().map(|p| p.len()).sum();
                let n = loop {
                    match socket.read(pieces) {
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        other => break other?,
                    }
                };
                if let Some(early) = early {
                    let mut left = n;
                    for piece in pieces.iter() {
                        let part = left.min(piece.len());
                        early.extend_from_slice(&piece[..part]);
                        left -= part;
                    }
                }
                self.flow.has_read(http::Speaker::Client, pieces, n);
                Ok(n)
            })?;
            match sent {
                Sent::Bytes(0) => {
                    st.eof = true;
                    inner.finish(out);
                    return Ok(());
                }
                Sent::Bytes(n) => {
                    st.sent += n as u64;
                    self.flow.read(n);
                    if st.probe.is_none() {
                        st.probe = Some((st.sent, Instant::now()));
                    }
                    if n < asked {
                        // A short read has drained the socket: readiness is edge-triggered.
                        guard.was_short();
                    } else {
                        // One frame a turn: the others on this worker have theirs in between.
                        cx.waker().wake_by_ref();
                        return Ok(());
                    }
                }
                Sent::Empty => guard.clear_ready(),
                Sent::Full => {
                    inner.wait_writable(Waiter::Task(cx.waker().clone()));
                    return Ok(());
                }
            }
        }
    }
}

/// Lets the window follow the path: twice what is acknowledged in one round trip. A slow reader
/// acknowledges little and so keeps a small window; a long path gets a large one.
fn measure(st: &mut State, offset: u64) {
    let now = Instant::now();
    if let Some((at, since)) = st.probe
        && offset >= at
    {
        st.rtt = st.rtt.min(now - since);
        st.probe = None;
    }
    let (since, from) = st.rate;
    let time = now - since;
    if st.rtt == Duration::MAX || time < st.rtt.max(MEASURE) {
        return;
    }
    let rate = (offset - from) as f64 / time.as_secs_f64();
    let product = rate * st.rtt.as_secs_f64() * 2.0;
    st.window = st.window.max((product as u64).min(MAX_WINDOW));
    st.rate = (now, offset);
}

pub(super) fn wake(st: &mut State) {
    if let Some(waker) = &st.waker {
        waker.wake_by_ref();
    }
}

impl Cut for TcpEnd {
    fn cut(&self) {
        self.flow.end(Ending::Removed);
        let mut st = self.st.borrow_mut();
        st.reset = true;
        wake(&mut st);
    }
}

impl StreamEnd for TcpEnd {
    fn data(&self, cur: Current<'_>, payload: Bytes) {
        if let Some(to) = self.delegate.get() {
            return to.data(cur, payload);
        }
        let mut st = self.st.borrow_mut();
        if !st.closed && !st.in_ended {
            self.flow.saw(http::Speaker::Server, &payload);
            st.queue.push_back(payload);
        }
    }

    fn end(&self, cur: Current<'_>, aborted: bool) {
        if let Some(to) = self.delegate.get() {
            return to.end(cur, aborted);
        }
        let mut st = self.st.borrow_mut();
        if aborted {
            // A reset, not an end: the socket must not see a FIN first.
            if !st.in_done {
                self.flow.there();
                st.reset = true;
            }
            st.queue.clear();
            wake(&mut st);
        } else {
            st.in_ended = true;
            self.flow.saw_end(http::Speaker::Server);
        }
    }

    fn flush(&self, cur: Current<'_>) {
        if let Some(to) = self.delegate.get() {
            return to.flush(cur);
        }
        let failed = self.write(cur).is_err();
        let unsent = self.socket.get().is_some_and(|s| s.has_unsent());
        let mut st = self.st.borrow_mut();
        if failed {
            self.flow.here();
            st.reset = true;
        }
        if !st.queue.is_empty() {
            for payload in &mut st.queue {
                if payload.len() < KEEP {
                    *payload = Bytes::copy_from_slice(payload);
                }
            }
        }
        if failed || unsent || !st.queue.is_empty() || st.in_done {
            wake(&mut st);
        }
    }

    fn opened(&self, _conn: &mut Inner, out: OutStream) {
        let mut st = self.st.borrow_mut();
        st.out = Some(out);
        wake(&mut st);
    }

    fn acked(&self, _conn: &mut Inner, offset: u64) {
        let st = &mut *self.st.borrow_mut();
        if offset <= st.confirmed || offset > st.sent {
            return;
        }
        st.confirmed = offset;
        if st.native {
            measure(st, offset);
        }
        if std::mem::take(&mut st.waiting) {
            wake(st);
        }
    }

    fn outcome(&self, _conn: &mut Inner, outcome: Outcome) {
        let st = &mut *self.st.borrow_mut();
        let before = st.sending != Sending::Open && st.up.is_none();
        st.out_done = true;
        match outcome {
            Outcome::Accepted if st.eof => {}
            // The other end has settled a stream that was still going: it is gone.
            Outcome::Accepted => {
                self.flow.there();
                st.reset = true;
            }
            _ if before => {
                st.refused = Some(outcome);
                st.out = None;
                st.next = None;
            }
            _ => {
                self.flow.there();
                st.reset = true;
            }
        }
        wake(st);
    }

    fn writable(&self, _conn: &mut Inner) {
        wake(&mut self.st.borrow_mut());
    }

    fn lost(&self) {
        if let Some(to) = self.delegate.get() {
            return to.lost();
        }
        self.flow.end(Ending::LinkLost);
        let mut st = self.st.borrow_mut();
        st.reset = true;
        wake(&mut st);
    }
}
