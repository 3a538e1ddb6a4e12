//! One AMQP connection on its worker: streams on pooled links, messages, and the calls that the ends
//! of streams make.
//!
//! [`LinkConnection`] is shared by its task ([`super::driver`]) and the streams on it; what changes is
//! its [`ConnectionState`], which one of them borrows at a time. The state puts together the protocol
//! engine, the socket with its records ([`Wire`]), and three parts that own what they know:
//! [`StreamLinks`] for outgoing streams, [`IncomingDeliveries`] for incoming ones, and
//! [`MessageLines`] for messages that wait for credit. The parts do bookkeeping; files of this folder
//! send what follows from it.
//!
//! A connection calls the end of a stream while its state is borrowed. What the end wants done comes
//! back as [`StreamEffects`], which the driver carries out: no end borrows a connection in a call.
//!
//! It never decides where a stream goes: that is [`crate::worker`].

mod deliveries;
mod incoming;
mod links;
mod message_lines;
mod outgoing;
pub mod stream_end;
mod stream_links;
#[cfg(test)]
mod tests;

use super::{
    intake::Intake,
    outbuf::MIN_ROOM,
    peer_budget::{Charge, PeerBudget},
    send_budget::SendClass,
    wire::Wire,
};
use crate::amqp::{
    connection::{Connection, DeliveryId, LinkId, SessionId},
    performative::{DeliveryState, Error as AmqpError},
};
use bytes::Bytes;
pub(crate) use deliveries::{Head, IncomingDeliveries, PayloadTarget};
use message_lines::MessageLines;
use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    task::Waker,
};
use stream_end::{End, StreamEffects, StreamEvent};
use stream_links::StreamLinks;

/// Identifies a connection in this process.
pub type ConnKey = u64;

/// Credit given on every receiving link: that of Skupper's router.
pub(crate) const CREDIT: u32 = 250;
/// The condition of a connection that is ended for what its peer uses.
pub(crate) const RESOURCE_LIMIT: &str = "amqp:resource-limit-exceeded";
/// What a connection holds at least: its task, its socket, its tables and TLS.
const CONNECTION_BYTES: usize = 24 * 1024;
/// Unit of what a connection counts for.
const STEP: usize = 8 * 1024;
/// Control frames the peer does not read in time, after which it is cut off.
const MAX_BACKLOG: usize = 8 * 1024 * 1024;

/// What a connection is for; the peer's port and its open properties decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Role inter-router: control links, messages, and streams while there is no trunk.
    Control,
    /// Role inter-router-data: streams only.
    Data,
    /// Role normal: an AMQP client on this host.
    Normal,
    /// Role edge: streams, and links on which an edge announces its consumers and learns of others.
    Edge,
}

/// An outgoing stream: the link it has to itself and its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutStream {
    pub(crate) link: LinkId,
    pub(crate) delivery: DeliveryId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InStream {
    pub(crate) link: LinkId,
    pub(crate) delivery: DeliveryId,
}

/// How a delivery ended for its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// Everything was taken.
    Accepted,
    /// Not taken; may be tried elsewhere.
    Released,
    /// Failed on the way.
    Modified,
    /// Can not be taken by anyone.
    Rejected,
}

impl DeliveryOutcome {
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

/// A task or stream end that waits for room in the outgoing buffer.
pub enum Waiter {
    /// A task of its own.
    Task(Waker),
    /// An end without a task.
    End(End),
}

/// The number of a waiter in the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueTicket(u64);

/// A connection shared between its task and the streams on it.
pub struct LinkConnection {
    pub key: ConnKey,
    /// Key of the link (its control connection) that this connection belongs to.
    pub group: ConnKey,
    pub kind: ConnectionKind,
    /// The site it belongs to.
    pub site: u32,
    /// Both sides support the extensions between routers of our own kind.
    pub native: bool,
    /// The budget of all connections of the peer.
    pub(crate) budget: Arc<PeerBudget>,
    /// Set when the connection is gone.
    pub(crate) closed: Cell<bool>,
    state: RefCell<ConnectionState>,
}

impl LinkConnection {
    pub(crate) fn new(
        key: ConnKey,
        group: ConnKey,
        kind: ConnectionKind,
        site: u32,
        native: bool,
        state: ConnectionState,
    ) -> Rc<Self> {
        Rc::new(Self {
            key,
            group,
            kind,
            site,
            native,
            budget: state.charge.budget().clone(),
            closed: Cell::new(false),
            state: RefCell::new(state),
        })
    }

    /// The connection's state. Not from [`stream_end::StreamEnd::event`].
    pub fn borrow(&self) -> RefMut<'_, ConnectionState> {
        self.state.borrow_mut()
    }

    pub fn is_open(&self) -> bool {
        !self.closed.get()
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// This many bytes; 0 is the end of the source.
    Bytes(usize),
    /// The buffer or the session window is full: [`ConnectionState::wait_writable`].
    Full,
    /// The source has nothing now.
    Empty,
}

/// State of a connection, borrowed by its task or by a stream's.
pub struct ConnectionState {
    pub(crate) key: ConnKey,
    pub(crate) amqp: Connection,
    pub(crate) intake: Arc<Intake>,
    charge: Charge,
    pub(crate) wire: Wire,
    /// Received, and not given to the protocol engine yet.
    pub(crate) chunks: VecDeque<Bytes>,
    pub(crate) stream_links: StreamLinks,
    pub(crate) deliveries: IncomingDeliveries,
    message_lines: MessageLines,
    /// What ends have asked for, to be carried out by the driver.
    pub(crate) effects: StreamEffects,
    /// Tasks and ends that wait for room, the next to be woken first.
    waiters: VecDeque<Waiter>,
    /// How many of them, from the front, to wake for the present room.
    to_announce: usize,
    /// How many have been woken so far.
    woken: u64,
    pub(crate) waker: Option<Waker>,
    /// Session of an edge's own links that are no streams'.
    own_session: Option<SessionId>,
    pub(crate) fixed: FixedLinks,
    /// Streaming links are marked as those of routers.
    data_capability: bool,
    next_name: u64,
    /// It ends when its last stream has.
    pub(crate) retire: bool,
    /// Set by `fail`; the task ends the connection.
    pub(crate) failed: Option<AmqpError>,
}

/// The fixed links of a control connection.
#[derive(Default)]
pub(crate) struct FixedLinks {
    /// The control link that we receive on; control messages on other links are ignored.
    pub(crate) control_in: Option<LinkId>,
    pub(crate) control: Option<LinkId>,
    /// The core knows that control messages can be sent.
    pub(crate) reported: bool,
    /// Message links by priority.
    pub(crate) data: [Option<LinkId>; 10],
}

impl ConnectionState {
    pub(crate) fn new(
        key: ConnKey,
        kind: ConnectionKind,
        amqp: Connection,
        wire: Wire,
        budget: &Arc<PeerBudget>,
    ) -> Self {
        Self {
            key,
            amqp,
            intake: match kind {
                ConnectionKind::Data => budget.data().clone(),
                ConnectionKind::Control | ConnectionKind::Normal | ConnectionKind::Edge => {
                    budget.messages().clone()
                }
            },
            charge: budget.charge(),
            wire,
            chunks: VecDeque::new(),
            stream_links: StreamLinks::new(matches!(
                kind,
                ConnectionKind::Data | ConnectionKind::Edge
            )),
            deliveries: IncomingDeliveries::default(),
            message_lines: MessageLines::default(),
            effects: StreamEffects::default(),
            waiters: VecDeque::new(),
            to_announce: 0,
            woken: 0,
            waker: None,
            own_session: None,
            fixed: FixedLinks::default(),
            data_capability: kind == ConnectionKind::Control,
            next_name: 0,
            retire: false,
            failed: None,
        }
    }

    /// Wakes the connection's task to send what was queued.
    pub fn wake_driver(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Number of streams on this connection, both directions counted.
    pub fn streams(&self) -> usize {
        self.stream_links.streams() + self.deliveries.streams()
    }

    /// Moves the engine's control frames into the outgoing buffer, ahead of later transfers.
    pub(crate) fn drain_control(&mut self) {
        let control = self.amqp.output();
        if !control.is_empty() {
            let control = control.split();
            self.wire.out().put(&control);
        }
        if self.wire.out().backlog() > MAX_BACKLOG {
            self.over_budget("peer does not read its frames");
        }
    }

    /// Sends the engine's control frames at the task's next turn.
    pub(crate) fn send_control(&mut self) {
        self.drain_control();
        self.wake_driver();
    }

    /// Ends the connection with this condition at the task's next turn.
    pub(crate) fn fail(&mut self, condition: &'static str, description: &str) {
        if self.failed.is_none() {
            self.failed = Some(AmqpError::new(condition, description));
        }
        self.wake_driver();
    }

    /// The peer makes us hold more than it may: the connection ends.
    pub(crate) fn over_budget(&mut self, what: &str) {
        let description = format!("over the memory budget of a connection: {what}");
        self.fail(RESOURCE_LIMIT, &description);
    }

    /// Charges what the connection holds to the budget of its peer. Payload of its streams is charged by
    /// their queues.
    pub(crate) fn charge_held(&mut self) {
        // In steps, so that it rarely changes what connections on other workers count too.
        let held = CONNECTION_BYTES
            + self.amqp.held_bytes()
            + self.deliveries.incomplete()
            + self.message_lines.held_bytes()
            + self.wire.held_bytes();
        if !self.charge.set(held.next_multiple_of(STEP)) {
            self.fail(
                RESOURCE_LIMIT,
                "over the memory budget of all connections of a peer",
            );
        }
    }

    /// Requests a wake-up when there is room to send again.
    pub fn wait_writable(&mut self, waiter: Waiter) -> QueueTicket {
        self.waiters.push_back(waiter);
        QueueTicket(self.woken + self.waiters.len() as u64)
    }

    /// Whether a waiter has not been woken yet.
    pub fn is_waiting(&self, ticket: QueueTicket) -> bool {
        ticket.0 > self.woken
    }

    /// Wakes as many waiters as there is room for. A waiter that finds no room goes to the end of the
    /// queue, so each has its turn.
    pub(crate) fn announce_room(&mut self) {
        if self.to_announce == 0 {
            self.to_announce = self.waiters.len();
        }
        let mut tasks = 1 + self.wire.out().room(SendClass::Bulk) / MIN_ROOM;
        while self.to_announce > 0 && !self.wire.out().is_full(SendClass::Bulk) {
            if tasks == 0 {
                // They may have nothing to send: the others are woken after they have run.
                return self.wake_driver();
            }
            let Some(waiter) = self.waiters.pop_front() else {
                break;
            };
            self.to_announce -= 1;
            self.woken += 1;
            match waiter {
                Waiter::Task(waker) => {
                    tasks -= 1;
                    waker.wake();
                }
                Waiter::End(end) => {
                    let mut effects = std::mem::take(&mut self.effects);
                    end.event(StreamEvent::Writable(self), &mut effects);
                    self.effects.put_before(effects);
                }
            }
        }
    }

    /// Does what ends have asked for, here and on other connections.
    pub(crate) fn carry_out_effects(&mut self) {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            effects.carry_out(Some(&mut *self));
        }
    }

    /// Ends of all streams on this connection, when it is gone.
    pub(crate) fn take_ends(&mut self) -> Vec<End> {
        let mut ends = self.stream_links.take_ends();
        ends.append(&mut self.deliveries.take_ends());
        self.to_announce = 0;
        self.woken += self.waiters.len() as u64;
        for waiter in std::mem::take(&mut self.waiters) {
            if let Waiter::Task(waker) = waiter {
                waker.wake();
            }
        }
        ends
    }

    /// The peer has detached a link. In the middle of a stream that is a reset to its application.
    pub(crate) fn detached(&mut self, link: LinkId) {
        self.message_lines.remove(link);
        let outgoing = self.stream_links.detached(link);
        let incoming = self.deliveries.detached(link);
        for end in [outgoing, incoming].into_iter().flatten() {
            end.event(StreamEvent::Ended { aborted: true }, &mut self.effects);
            end.event(StreamEvent::BatchOver, &mut self.effects);
        }
    }
}
