//! One AMQP connection on its worker: streams on pooled links, messages, and the calls that the ends
//! of streams make. The task that moves its bytes is in [`super::driver`].

mod incoming;
mod links;
mod outgoing;
#[cfg(test)]
mod tests;

use super::wire::Wire;
use crate::amqp::{
    connection::{Connection, DeliveryId, LinkId, SessionId},
    performative::{DeliveryState, Error as AmqpError},
};
use bytes::{Bytes, BytesMut};
use std::{
    cell::{Cell, RefCell, RefMut},
    collections::{HashMap, VecDeque},
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
/// Messages that wait for credit on one link; on an edge's connection there may be one for each of its
/// addresses.
const MAX_LINE: usize = 1024;
const MAX_EDGE_LINE: usize = 16 * 1024;
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
    /// Role edge: streams, and links by which an edge says what it has and learns what there is.
    Edge,
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
    /// The rest of a delivery that nobody wants. Settled when it is complete: upstream's router never
    /// sends the end of a delivery that was settled before, and its link stays blocked.
    Discard {
        delivery: DeliveryId,
        outcome: Outcome,
    },
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
    max_line: usize,
    waiters: Vec<Waiter>,
    pub(super) dirty: Vec<End>,
    pub(super) waker: Option<Waker>,
    /// Session that our streaming links are on.
    session: Option<SessionId>,
    /// Session of an edge's own links that are no streams'.
    own_session: Option<SessionId>,
    /// Sessions of the fixed links, by priority; empty without.
    pub(super) fixed: Fixed,
    data_capability: bool,
    next_name: u64,
    /// Streams go over this connection.
    carries_streams: bool,
    /// It ends when its last stream has.
    pub(super) retire: bool,
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
            max_line: if kind == Kind::Edge {
                MAX_EDGE_LINE
            } else {
                MAX_LINE
            },
            waiters: Vec::new(),
            dirty: Vec::new(),
            waker: None,
            session: None,
            own_session: None,
            fixed: Fixed::default(),
            data_capability: kind == Kind::Control,
            next_name: 0,
            carries_streams: matches!(kind, Kind::Data | Kind::Edge),
            retire: false,
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
}
