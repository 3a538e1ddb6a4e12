//! One AMQP connection on its worker: streams on pooled links, messages, and the calls that the ends
//! of streams make. The task that moves its bytes is in [`super::driver`].

use super::wire::{Wire, WireError};
use crate::amqp::{
    connection::{
        ApiError, AttachArgs, Connection, DeliveryId, LinkId, MAX_TRANSFER_HEADER, SessionId,
    },
    performative::{Attach, DeliveryState, Error as AmqpError, Role, Source, Target},
};
use bytes::{Bytes, BytesMut};
use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{HashMap, VecDeque},
    io::{self, IoSliceMut},
    rc::Rc,
    task::Waker,
};

/// Identifies a connection in this process.
pub type ConnKey = u64;

/// Free streaming links kept for reuse; as many as upstream's router keeps.
const MAX_FREE_LINKS: usize = 128;
/// Links attached ahead of need, so that a new stream does not wait a round trip for credit.
const WARM_LINKS: usize = 16;
/// Streaming links of one connection; the protocol engine's own limit is above this.
const MAX_STREAMS: usize = 32_000;
/// Credit given on every receiving link: upstream's link capacity.
pub(crate) const CREDIT: u32 = 250;
/// Messages that wait for credit on one link.
const MAX_LINE: usize = 1024;
/// Control frames the peer does not read in time, after which it is cut off.
const MAX_BACKLOG: usize = 8 * 1024 * 1024;

/// What a connection is for; the peer's port and its open properties decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Role inter-router: control links, messages, and streams while there is no trunk.
    Control,
    /// Role inter-router-data: streams only.
    Data,
    /// Role normal: an AMQP client on this host.
    Normal,
}

/// An outgoing stream: the link it has to itself and its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutStream {
    pub(crate) link: LinkId,
    pub(crate) delivery: DeliveryId,
}

/// An incoming stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InStream {
    pub(crate) link: LinkId,
    pub(crate) delivery: DeliveryId,
}

/// How a delivery ended for its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was taken.
    Accepted,
    /// Not taken; may be tried elsewhere.
    Released,
    /// Failed on the way.
    Modified,
    /// Can not be taken by anyone.
    Rejected,
}

impl Outcome {
    fn state(self) -> DeliveryState {
        match self {
            Self::Accepted => DeliveryState::Accepted,
            Self::Released => DeliveryState::Released,
            Self::Modified => DeliveryState::Modified {
                delivery_failed: true,
                undeliverable_here: false,
                annotations: None,
            },
            Self::Rejected => DeliveryState::Rejected(None),
        }
    }
}

/// What a stream ends in: a TCP socket, another link, another worker.
///
/// Calls come from the task of a connection, which is borrowed for their time: an end reaches its
/// connections through [`Conn::with`] and never borrows one directly.
pub trait StreamEnd {
    /// Payload of the incoming delivery.
    fn data(&self, cur: Current<'_>, payload: Bytes);
    /// The incoming delivery is complete, or its sender gave up.
    fn end(&self, cur: Current<'_>, aborted: bool);
    /// The batch that `data` and `end` were part of is over.
    fn flush(&self, cur: Current<'_>);
    /// The outgoing delivery that was waiting for a link has one now. No other connection may be
    /// used from here.
    fn opened(&self, conn: &mut Inner, out: OutStream);
    /// The receiver of the outgoing delivery has passed on this many bytes in all.
    fn acked(&self, conn: &mut Inner, offset: u64);
    /// The receiver of the outgoing delivery is done with it.
    fn outcome(&self, conn: &mut Inner, outcome: Outcome);
    /// There is room to send again, after [`Inner::wait_writable`]. No other connection may be used
    /// from here.
    fn writable(&self, conn: &mut Inner);
    /// A connection that the stream was on is gone.
    fn lost(&self);
}

/// The connection whose task is calling, if it is one that calls.
pub type Current<'a> = Option<&'a mut Inner>;

/// An end as connections hold it.
pub type End = Rc<dyn StreamEnd>;

/// Somebody waiting for room in the outgoing buffer.
pub enum Waiter {
    /// A task of its own.
    Task(Waker),
    /// An end without a task.
    End(End),
}

/// A connection shared between its task and the streams on it.
pub struct Conn {
    /// Key of this connection.
    pub key: ConnKey,
    /// Key of the link (its control connection) that this connection belongs to.
    pub group: ConnKey,
    /// What it is for.
    pub kind: Kind,
    /// The site it belongs to.
    pub site: u32,
    /// Both sides speak the extensions between routers of our own kind.
    pub native: bool,
    /// Set when the connection is gone.
    pub(super) closed: Cell<bool>,
    inner: RefCell<Inner>,
}

impl Conn {
    pub(super) fn new(
        key: ConnKey,
        group: ConnKey,
        kind: Kind,
        site: u32,
        native: bool,
        inner: Inner,
    ) -> Rc<Self> {
        Rc::new(Self {
            key,
            group,
            kind,
            site,
            native,
            closed: Cell::new(false),
            inner: RefCell::new(inner),
        })
    }

    /// The connection's state. Not from within a callback of the same connection.
    pub fn borrow(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// Still usable.
    pub fn is_open(&self) -> bool {
        !self.closed.get()
    }

    /// Runs `f` on this connection, which may be the one whose task is calling.
    pub fn with<R>(&self, cur: Current<'_>, f: impl FnOnce(&mut Inner) -> R) -> R {
        match cur {
            Some(inner) if inner.key == self.key => f(inner),
            _ => f(&mut self.borrow()),
        }
    }
}

/// What came of trying to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// This many bytes; 0 is the end of the source.
    Bytes(usize),
    /// The buffer or the session window is full: [`Inner::wait_writable`].
    Full,
    /// The source has nothing now.
    Empty,
}

#[derive(Default)]
pub(super) enum Outgoing {
    #[default]
    None,
    /// Attached, without a stream.
    Free,
    Busy {
        end: End,
        delivery: DeliveryId,
        /// Our last transfer is out.
        ended: bool,
        /// The peer has settled.
        settled: bool,
    },
    /// A fixed link: control or messages.
    Fixed,
}

#[derive(Default)]
pub(super) enum Incoming {
    #[default]
    None,
    /// Between deliveries.
    Idle,
    /// The head of a delivery is not complete yet, or it is a plain message.
    Head {
        delivery: DeliveryId,
        settled: bool,
        buf: BytesMut,
        message: bool,
    },
    Stream {
        end: End,
        delivery: DeliveryId,
        done: bool,
    },
    /// The rest of a delivery that nobody wants.
    Discard,
}

/// State of a connection, borrowed by its task or by a stream's.
pub struct Inner {
    pub(super) key: ConnKey,
    pub(super) amqp: Connection,
    pub(super) wire: Wire,
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) outgoing: Vec<Outgoing>,
    pub(super) incoming: Vec<Incoming>,
    free: Vec<LinkId>,
    /// Links attached for streams, without credit yet.
    pending: usize,
    streams: usize,
    waiting: VecDeque<(Bytes, End)>,
    /// Messages that wait for credit, by link.
    lines: HashMap<LinkId, VecDeque<Bytes>>,
    waiters: Vec<Waiter>,
    pub(super) dirty: Vec<End>,
    pub(super) waker: Option<Waker>,
    /// Session that our streaming links are on.
    session: Option<SessionId>,
    /// Sessions of the fixed links, by priority; empty without.
    pub(super) fixed: Fixed,
    data_capability: bool,
    next_name: u64,
    /// Streams go over this connection.
    carries_streams: bool,
    /// Set by `fail`; the task ends the connection.
    pub(super) failed: Option<AmqpError>,
}

/// The fixed links of a control connection.
#[derive(Default)]
pub(super) struct Fixed {
    pub(super) control: Option<LinkId>,
    /// The core knows that control messages can be sent.
    pub(super) reported: bool,
    /// Message links by priority.
    pub(super) data: [Option<LinkId>; 10],
}

fn slot<T: Default>(table: &mut Vec<T>, link: LinkId) -> &mut T {
    let index = link.index();
    if table.len() <= index {
        table.resize_with(index + 1, T::default);
    }
    &mut table[index]
}

impl Inner {
    pub(super) fn new(key: ConnKey, kind: Kind, amqp: Connection, wire: Wire) -> Self {
        Self {
            key,
            amqp,
            wire,
            chunks: VecDeque::new(),
            outgoing: Vec::new(),
            incoming: Vec::new(),
            free: Vec::new(),
            pending: 0,
            streams: 0,
            waiting: VecDeque::new(),
            lines: HashMap::new(),
            waiters: Vec::new(),
            dirty: Vec::new(),
            waker: None,
            session: None,
            fixed: Fixed::default(),
            data_capability: kind == Kind::Control,
            next_name: 0,
            carries_streams: kind == Kind::Data,
            failed: None,
        }
    }

    pub(super) fn out_link(&mut self, link: LinkId) -> &mut Outgoing {
        slot(&mut self.outgoing, link)
    }

    pub(super) fn in_link(&mut self, link: LinkId) -> &mut Incoming {
        slot(&mut self.incoming, link)
    }

    /// Wakes the connection's task to send what was queued.
    pub fn kick(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Number of streams on this connection, both directions counted.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Moves the engine's control frames into the outgoing buffer, ahead of later transfers.
    pub(super) fn drain_control(&mut self) {
        let control = self.amqp.output();
        if !control.is_empty() {
            let control = control.split();
            self.wire.out().put(&control);
        }
        if self.wire.out().backlog() > MAX_BACKLOG {
            self.fail(
                "amqp:resource-limit-exceeded",
                "peer does not read what it asks for",
            );
        }
    }

    /// Ends the connection with this condition at the task's next turn.
    pub(super) fn fail(&mut self, condition: &'static str, description: &str) {
        if self.failed.is_none() {
            self.failed = Some(AmqpError::new(condition, description));
        }
        self.kick();
    }

    // ---- outgoing streams ----

    fn attach_stream_link(&mut self) -> Result<(), ApiError> {
        let session = match self.session {
            Some(session) => session,
            None => *self.session.insert(self.amqp.begin()?),
        };
        let name = self.link_name();
        let (mut source, mut target) = (Source::default(), Target::default());
        if self.data_capability {
            source.capabilities = vec!["qd.router-data".into()];
            target.capabilities = vec!["qd.router-data".into()];
        }
        let link = self.amqp.attach(
            session,
            AttachArgs {
                name,
                role: Role::Sender,
                source,
                target,
                ..AttachArgs::default()
            },
        )?;
        *self.out_link(link) = Outgoing::Free;
        self.pending += 1;
        Ok(())
    }

    /// Makes this connection one that streams go over, with links attached ahead of need.
    pub(super) fn carry_streams(&mut self) {
        self.carries_streams = true;
        self.warm();
        self.drain_control();
        self.kick();
    }

    fn warm(&mut self) {
        while self.carries_streams
            && self.free.len() + self.pending < WARM_LINKS + self.waiting.len()
            && self.streams + self.free.len() + self.pending < MAX_STREAMS
        {
            if let Err(e) = self.attach_stream_link() {
                tracing::debug!(error = %e, "no further streaming link");
                break;
            }
        }
    }

    /// Opens a stream whose delivery begins with `head`. Some: it is open at once. None: it waits
    /// for a link with credit, and `end.opened` is called.
    pub fn open(&mut self, head: Bytes, end: &End) -> Option<OutStream> {
        let opened = if self.wire.out().is_full() {
            None
        } else {
            self.take_link(&head, end)
        };
        if opened.is_none() {
            self.waiting.push_back((head, end.clone()));
        }
        self.warm();
        self.drain_control();
        self.kick();
        opened
    }

    fn take_link(&mut self, head: &Bytes, end: &End) -> Option<OutStream> {
        while let Some(link) = self.free.pop() {
            if self.amqp.window(link) == 0 {
                self.free.push(link);
                return None;
            }
            let Ok(delivery) = self.amqp.start_delivery(link, false) else {
                // Out of credit: the peer's flow puts it back into the pool.
                self.pending += 1;
                continue;
            };
            self.streams += 1;
            *self.out_link(link) = Outgoing::Busy {
                end: end.clone(),
                delivery,
                ended: false,
                settled: false,
            };
            let out = OutStream { link, delivery };
            self.drain_control();
            self.transfer(out, head, true, false);
            return Some(out);
        }
        None
    }

    /// A link of ours got credit: streams that wait for one go first.
    pub(super) fn link_ready(&mut self, link: LinkId) {
        if !matches!(self.out_link(link), Outgoing::Free) || self.free.contains(&link) {
            return;
        }
        self.pending = self.pending.saturating_sub(1);
        self.free.push(link);
        self.open_waiting();
    }

    pub(super) fn open_waiting(&mut self) {
        while !self.waiting.is_empty() && !self.free.is_empty() && !self.wire.out().is_full() {
            let Some((head, end)) = self.waiting.pop_front() else {
                break;
            };
            match self.take_link(&head, &end) {
                Some(out) => end.opened(self, out),
                None => {
                    self.waiting.push_front((head, end));
                    break;
                }
            }
        }
        self.warm();
    }

    fn transfer(&mut self, out: OutStream, payload: &[u8], more: bool, aborted: bool) {
        let mut header = [0; MAX_TRANSFER_HEADER];
        let n = self
            .amqp
            .transfer_header(out.link, more, aborted, &mut header);
        let size = (n + payload.len()) as u32;
        header[..4].copy_from_slice(&size.to_be_bytes());
        self.wire.out().put(&header[..n]);
        self.wire.out().put(payload);
        self.amqp.transfer_sent(out.link, !more || aborted);
        self.kick();
    }

    /// Sends what `read` puts into the given pieces, up to `max` bytes, in one transfer frame.
    pub fn send_from(
        &mut self,
        out: OutStream,
        max: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<Sent> {
        if self.wire.out().is_full() || self.amqp.window(out.link) == 0 {
            return Ok(Sent::Full);
        }
        self.drain_control();
        let mut header = [0; MAX_TRANSFER_HEADER];
        let max = max.min(self.amqp.max_payload());
        let n = self
            .amqp
            .transfer_header(out.link, true, false, &mut header);
        let buf = self.wire.out();
        let mark = buf.begin(&header[..n]);
        let got = {
            let mut pieces = Vec::with_capacity(8);
            buf.spaces(max, &mut pieces);
            read(&mut pieces)
        };
        match got {
            Ok(0) => {
                buf.cancel(mark);
                Ok(Sent::Bytes(0))
            }
            Ok(n) => {
                buf.commit(mark, n);
                self.amqp.transfer_sent(out.link, false);
                self.kick();
                Ok(Sent::Bytes(n))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                buf.cancel(mark);
                Ok(Sent::Empty)
            }
            Err(e) => {
                buf.cancel(mark);
                Err(e)
            }
        }
    }

    /// Sends as much of `payload` as there is room for, and takes it off its front.
    pub fn send(&mut self, out: OutStream, payload: &mut Bytes) {
        while !payload.is_empty() {
            let max = self.amqp.max_payload().min(payload.len());
            let chunk = payload.clone();
            let sent = self.send_from(out, max, |pieces| {
                let mut n = 0;
                for piece in pieces {
                    let now = piece.len().min(max - n);
                    piece[..now].copy_from_slice(&chunk[n..n + now]);
                    n += now;
                }
                Ok(n)
            });
            match sent {
                Ok(Sent::Bytes(n)) if n > 0 => bytes::Buf::advance(payload, n),
                _ => return,
            }
        }
    }

    /// Completes the outgoing delivery: the half-close of a stream.
    pub fn finish(&mut self, out: OutStream) {
        self.complete(out, false);
    }

    /// Gives the outgoing delivery up: the reset of a stream.
    pub fn abort(&mut self, out: OutStream) {
        self.complete(out, true);
    }

    fn complete(&mut self, out: OutStream, aborted: bool) {
        let Outgoing::Busy {
            delivery,
            ended,
            settled,
            ..
        } = self.out_link(out.link)
        else {
            return;
        };
        if *delivery != out.delivery || std::mem::replace(ended, true) {
            return;
        }
        // An aborted delivery is settled by definition (AMQP 1.0 part 2.6.14).
        let over = *settled || aborted;
        self.drain_control();
        self.transfer(out, &[], false, aborted);
        if over {
            self.free_link(out.link);
        }
    }

    fn free_link(&mut self, link: LinkId) {
        *self.out_link(link) = Outgoing::Free;
        self.streams = self.streams.saturating_sub(1);
        if self.free.len() >= MAX_FREE_LINKS {
            *self.out_link(link) = Outgoing::None;
            self.amqp.detach(link, true, None);
        } else if self.amqp.credit(link) == 0 {
            self.pending += 1;
        } else {
            self.free.push(link);
        }
        self.open_waiting();
        self.drain_control();
        self.kick();
    }

    /// The peer's disposition of an outgoing delivery.
    pub(super) fn disposed(
        &mut self,
        link: LinkId,
        id: DeliveryId,
        by_peer: bool,
        state: Option<&DeliveryState>,
    ) {
        let Outgoing::Busy {
            end,
            delivery,
            settled: false,
            ..
        } = self.out_link(link)
        else {
            return;
        };
        if *delivery != id {
            return;
        }
        let end = end.clone();
        let outcome = match state {
            Some(DeliveryState::Received { section_offset, .. }) => {
                end.acked(self, *section_offset);
                // The peer may settle with the last offset as its only word.
                if !by_peer {
                    return;
                }
                Outcome::Accepted
            }
            Some(DeliveryState::Accepted) => Outcome::Accepted,
            Some(DeliveryState::Released) => Outcome::Released,
            Some(DeliveryState::Modified { .. }) => Outcome::Modified,
            Some(DeliveryState::Rejected(_)) => Outcome::Rejected,
            None if by_peer => Outcome::Accepted,
            None => return,
        };
        let Outgoing::Busy { ended, settled, .. } = self.out_link(link) else {
            return;
        };
        *settled = true;
        let ended = *ended;
        if !by_peer {
            // An outcome without settlement (rcv-settle-mode second) waits for ours.
            self.amqp.disposition(id, None, true);
        }
        if ended {
            self.free_link(link);
            end.outcome(self, outcome);
        } else {
            end.outcome(self, outcome);
            // The delivery must still be completed before its link is used again.
            self.abort(OutStream { link, delivery: id });
        }
    }

    // ---- incoming streams ----

    /// Tells the sender that `offset` bytes in all have been passed on.
    pub fn ack(&mut self, stream: InStream, offset: u64) {
        let state = DeliveryState::Received {
            section_number: 0,
            section_offset: offset,
        };
        self.amqp.disposition(stream.delivery, Some(state), false);
        self.drain_control();
        self.kick();
    }

    /// Settles an incoming delivery. What is left of it is dropped.
    pub fn settle(&mut self, stream: InStream, outcome: Outcome) {
        if let Incoming::Stream { delivery, done, .. } = self.in_link(stream.link)
            && *delivery == stream.delivery
        {
            let done = *done;
            *self.in_link(stream.link) = if done {
                Incoming::Idle
            } else {
                Incoming::Discard
            };
            self.stream_over();
        }
        // By delivery, not by link: the peer may have begun the next one on the link already.
        self.amqp
            .disposition(stream.delivery, Some(outcome.state()), true);
        self.drain_control();
        self.kick();
    }

    pub(super) fn stream_over(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    pub(super) fn stream_started(&mut self) {
        self.streams += 1;
    }

    /// Settles a delivery that never became a stream.
    pub(super) fn refuse(&mut self, stream: InStream, outcome: Outcome) {
        self.amqp
            .disposition(stream.delivery, Some(outcome.state()), true);
        self.drain_control();
        self.kick();
    }

    // ---- room ----

    /// Asks to be told when there is room to send again.
    pub fn wait_writable(&mut self, waiter: Waiter) {
        self.waiters.push(waiter);
    }

    /// Tells everybody who waits that there is room.
    pub(super) fn announce_room(&mut self) {
        if self.waiters.is_empty() || self.wire.out().is_full() {
            return;
        }
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter {
                Waiter::Task(waker) => waker.wake(),
                Waiter::End(end) => end.writable(self),
            }
        }
    }

    /// Ends of all streams on this connection, when it is gone.
    pub(super) fn take_ends(&mut self) -> Vec<End> {
        let mut ends: Vec<End> = self.waiting.drain(..).map(|(_, end)| end).collect();
        for link in &mut self.outgoing {
            if let Outgoing::Busy { end, .. } = std::mem::take(link) {
                ends.push(end);
            }
        }
        for link in &mut self.incoming {
            if let Incoming::Stream { end, .. } = std::mem::take(link) {
                ends.push(end);
            }
        }
        for waiter in std::mem::take(&mut self.waiters) {
            if let Waiter::Task(waker) = waiter {
                waker.wake();
            }
        }
        self.free.clear();
        self.streams = 0;
        ends
    }

    /// A streaming link of ours was detached by the peer.
    pub(super) fn out_detached(&mut self, link: LinkId) -> Option<End> {
        self.free.retain(|free| *free != link);
        self.lines.remove(&link);
        match std::mem::take(self.out_link(link)) {
            Outgoing::Busy { end, .. } => {
                self.streams = self.streams.saturating_sub(1);
                Some(end)
            }
            _ => None,
        }
    }

    /// Sends one complete message, settled, on a link; waits in line while there is no credit. False:
    /// the line is full.
    pub(super) fn send_message(&mut self, link: LinkId, message: Bytes) -> bool {
        let line = self.lines.entry(link).or_default();
        if line.len() >= MAX_LINE {
            return false;
        }
        line.push_back(message);
        self.advance_line(link);
        true
    }

    /// Sends what waits for credit on a link.
    pub(super) fn advance_line(&mut self, link: LinkId) {
        let Some(line) = self.lines.get_mut(&link) else {
            return;
        };
        while let Some(message) = line.front() {
            match self.amqp.send_message(link, message, true) {
                Ok(_) => drop(line.pop_front()),
                // Credit or window come with a flow, and then it goes on.
                Err(ApiError::NoCredit | ApiError::NoWindow) => break,
                Err(error) => {
                    tracing::debug!(%error, "messages for a link that is gone");
                    line.clear();
                }
            }
        }
        if line.is_empty() {
            self.lines.remove(&link);
        }
        self.drain_control();
        self.kick();
    }

    /// Accepts a link the peer attached, with the usual credit.
    pub(super) fn accept(&mut self, link: LinkId, attach: &Attach) {
        let source = attach.source.clone().unwrap_or_default();
        let target = attach.target.clone().unwrap_or_default();
        let credit = if attach.role == Role::Sender {
            CREDIT
        } else {
            0
        };
        self.amqp.accept_attach(link, source, target, credit);
    }

    /// Accepts a client's link; the answer is what it was attached to.
    pub(super) fn client_attached(
        &mut self,
        link: LinkId,
        attach: &Attach,
        router: &str,
    ) -> Attach {
        let mut attach = attach.clone();
        if attach.role == Role::Sender {
            *self.in_link(link) = Incoming::Idle;
        } else {
            *self.out_link(link) = Outgoing::Fixed;
            if let Some(source) = attach.source.as_mut().filter(|s| s.dynamic) {
                let name = format!("{:x}-{:x}", self.key, link.index());
                source.address = Some(format!("amqp:/_topo/0/{router}/temp.c{name}"));
            }
        }
        self.accept(link, &attach);
        self.drain_control();
        self.kick();
        attach
    }

    /// Attaches the fixed links of a control connection that we dialled: control links on the first
    /// session, message links for each priority on ten more.
    pub(super) fn attach_fixed(&mut self) {
        for priority in 0..=self.fixed.data.len() {
            let Ok(session) = self.amqp.begin() else {
                self.fail(
                    "amqp:resource-limit-exceeded",
                    "peer takes no further session",
                );
                return;
            };
            let capability = if priority == 0 {
                "qd.router"
            } else {
                "qd.router-data"
            };
            for role in [Role::Receiver, Role::Sender] {
                let (mut source, mut target) = (Source::default(), Target::default());
                for (capabilities, expiry) in [
                    (&mut source.capabilities, &mut source.expiry_policy),
                    (&mut target.capabilities, &mut target.expiry_policy),
                ] {
                    capabilities.push(capability.into());
                    *expiry = Some("link-detach".into());
                }
                let name = self.link_name();
                let credit = if role == Role::Receiver { CREDIT } else { 0 };
                let args = AttachArgs {
                    name,
                    role,
                    source,
                    target,
                    credit,
                };
                let Ok(link) = self.amqp.attach(session, args) else {
                    self.fail("amqp:resource-limit-exceeded", "peer takes no further link");
                    return;
                };
                if role == Role::Receiver {
                    *self.in_link(link) = Incoming::Idle;
                } else {
                    *self.out_link(link) = Outgoing::Fixed;
                    match priority.checked_sub(1) {
                        None => self.fixed.control = Some(link),
                        Some(priority) => self.fixed.data[priority] = Some(link),
                    }
                }
            }
        }
        self.drain_control();
        self.kick();
    }

    fn link_name(&mut self) -> String {
        self.next_name += 1;
        format!("qdlink.{:015x}", (self.key << 32) | self.next_name)
    }

    /// Why the wire failed, for the log.
    pub(super) fn wire_failed(error: &WireError) -> String {
        crate::telemetry::chain(error)
    }
}
