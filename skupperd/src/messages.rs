//! Messages between the core and the workers.
//!
//! Each thread has one channel: the core takes [`CoreEvent`]s, of workers and of the tasks that dial and
//! accept, a worker takes [`Command`]s, of the core and of other workers. Requests of other threads to
//! the core have a channel of their own: [`crate::core::CoreHandle`].
//!
//! Channels are unbounded, so that no thread waits for another. What bounds them: an event that a peer
//! can cause carries a permit of its connection ([`crate::link::intake`]), and a connection without
//! permits is not read.
//!
//! Payload of streams is in a message only on a relay, between two workers. A thread that has stopped
//! loses its messages, which is logged.

mod close_reason;

pub use close_reason::CloseReason;

use crate::{
    amqp::{
        connection::{AttachArgs, DeliveryId, LinkId},
        message::MessageHead,
        performative::{Attach, Error as AmqpError},
    },
    link::{
        conn::{ConnKey, ConnectionKind, stream_end::StreamReply},
        driver::{ConnectionEnd, MessageOrigin},
        handshake::{Established, RevocationList},
        intake::IntakePermit,
        peer_budget::PeerBudget,
    },
    model::Role,
    service::{policy::ListenerPolicy, view::SiteView},
    steer::OwnerTable,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::ServerConfig;
use std::{
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{mpsc, oneshot};

/// Accepting for all listeners that are steered in this network namespace; keys of listeners begin at
/// 1.
pub const STEERED: u64 = 0;

/// Why a link could not be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFailure {
    pub host: String,
    pub port: u16,
    pub stage: &'static str,
    pub error: String,
    /// The endpoint is one of the dialling site itself.
    pub is_own: bool,
}

impl std::fmt::Display for LinkFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {}:{}: {}",
            self.stage, self.host, self.port, self.error
        )
    }
}

/// Certificates for accepting, which can be replaced while ports are open.
pub type ServerTls = Arc<ArcSwap<ServerConfig>>;

/// What is accepted on a port.
#[derive(Clone)]
pub(crate) enum AcceptPort {
    /// Links of other routers, as this RouterAccess.
    Links {
        /// Name of the resource.
        access: Arc<str>,
        role: Role,
        tls: ServerTls,
        /// Certificates that are not taken any more.
        revoked: RevocationList,
    },
    /// AMQP clients of this host.
    Local,
}

/// A dialled connection on its way to the core.
pub(crate) struct DialledConnection {
    pub(crate) link: String,
    pub(crate) key: ConnKey,
    /// None: the control connection.
    pub(crate) data_of: Option<ConnKey>,
    pub(crate) established: Established,
    /// Answered when the core has accepted the connection, with what is dropped when that has ended.
    /// Dropped without an answer: the connection is refused.
    pub(crate) accepted: oneshot::Sender<oneshot::Receiver<()>>,
}

/// What reaches the core. Events that peers cause have a permit, which is dropped once they are handled
/// by the core and by the workers that it sends messages to.
pub(crate) enum CoreEvent {
    Accepted {
        site: u32,
        port: AcceptPort,
        established: Box<Established>,
    },
    Dialled {
        site: u32,
        dialled: Box<DialledConnection>,
    },
    DialFailed {
        site: u32,
        link: String,
        failure: LinkFailure,
    },
    /// The core has accepted another connection in place of this one.
    Superseded { site: u32, key: ConnKey },
    Ended {
        key: ConnKey,
        group: ConnKey,
        reason: ConnectionEnd,
    },
    /// Control messages can be sent.
    ControlReady { key: ConnKey },
    /// A complete message was received.
    Message {
        key: ConnKey,
        group: ConnKey,
        link: LinkId,
        delivery: Option<DeliveryId>,
        origin: MessageOrigin,
        message: Bytes,
        permit: IntakePermit,
    },
    /// An AMQP client attached a link.
    ClientAttached {
        key: ConnKey,
        link: LinkId,
        attach: Box<Attach>,
        permit: IntakePermit,
    },
    /// An AMQP client's link is gone.
    ClientDetached {
        key: ConnKey,
        link: LinkId,
        permit: IntakePermit,
    },
    /// An AMQP client gave credit.
    ClientCredit {
        key: ConnKey,
        link: LinkId,
        credit: u32,
        permit: IntakePermit,
    },
    /// A probe of a connector's server has ended.
    Probed {
        site: u32,
        /// Id of the [`ConnectorTarget`](crate::service::view::ConnectorTarget).
        connector: u64,
        result: Result<(), String>,
    },
    /// Something that statuses show has changed.
    Changed,
    /// A link that the core wanted is attached.
    LinkAttached {
        key: ConnKey,
        tag: u64,
        link: LinkId,
    },
}

/// Whom an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventScope {
    Site(u32),
    /// The site of this connection.
    Connection(ConnKey),
    AllSites,
}

impl CoreEvent {
    pub(crate) fn recipient(&self) -> EventScope {
        match self {
            Self::Accepted { site, .. }
            | Self::Dialled { site, .. }
            | Self::DialFailed { site, .. }
            | Self::Superseded { site, .. }
            | Self::Probed { site, .. } => EventScope::Site(*site),
            Self::Ended { key, .. }
            | Self::ControlReady { key }
            | Self::Message { key, .. }
            | Self::ClientAttached { key, .. }
            | Self::ClientDetached { key, .. }
            | Self::ClientCredit { key, .. }
            | Self::LinkAttached { key, .. } => EventScope::Connection(*key),
            Self::Changed => EventScope::AllSites,
        }
    }
}

/// Way to the core, from any thread.
#[derive(Clone)]
pub struct CoreSender {
    events: mpsc::UnboundedSender<CoreEvent>,
    keys: Arc<AtomicU64>,
}

impl CoreSender {
    pub(crate) fn send(&self, event: CoreEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("cannot send event: core stopped");
        }
    }

    /// A key no other connection or service of this process has.
    pub fn next_key(&self) -> ConnKey {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }
}

/// The channel a core takes events from, made before the workers that send to it.
pub(crate) fn core_channel() -> (CoreSender, mpsc::UnboundedReceiver<CoreEvent>) {
    let (events, receiver) = mpsc::unbounded_channel();
    let keys = Arc::new(AtomicU64::new(1));
    (CoreSender { events, keys }, receiver)
}

/// Names a stream that crosses workers, at the worker whose connection it came in on.
pub type RelayId = u64;

/// A part of a relayed stream.
#[derive(Debug)]
pub enum RelayData {
    Data(Bytes),
    /// The end of the stream; `true` if it was aborted.
    End(bool),
}

pub struct AcceptedClient {
    pub site: u32,
    pub listener: u64,
    pub routing_key: Arc<str>,
    /// That of the listener, once the routing key is chosen.
    pub policy: Option<Arc<ListenerPolicy>>,
    pub socket: TcpStream,
}

/// A command to a worker.
pub enum Command {
    /// Take over an opened connection.
    Connection(Box<NewConnection>),
    /// A site's view of the network has changed.
    View(u32, Arc<SiteView>),
    SiteGone(u32),
    /// Accept clients of a listener.
    Listen {
        site: u32,
        listener: u64,
        routing_key: Arc<str>,
        socket: TcpListener,
    },
    /// Accept steered connections, each for the owner of its destination address.
    AcceptSteered {
        /// What [`Self::Unlisten`] knows this by.
        key: u64,
        /// Owners of addresses.
        table: Arc<OwnerTable>,
        sockets: Vec<TcpListener>,
    },
    /// Let clients wait while no connector is reachable, or refuse them from now on.
    KeepClientsWaiting(bool),
    /// Stop accepting; with `cut` its connections end too.
    Unlisten {
        listener: u64,
        cut: bool,
    },
    /// A client that another worker accepted: this one has a connection towards its server.
    Client(Box<AcceptedClient>),
    /// A stream that another worker received.
    RelayOpen {
        /// Worker it comes from.
        from: usize,
        /// Its name there.
        id: RelayId,
        site: u32,
        link: ConnKey,
        head: Box<MessageHead>,
        /// Of the peer that it comes from.
        budget: Arc<PeerBudget>,
    },
    /// Payload of such a stream.
    Relay(usize, RelayId, RelayData),
    /// The other way.
    RelayBack(RelayId, StreamReply),
    /// Streams go over this control connection: the peer has no trunk.
    CarryStreams(ConnKey),
    /// Send a control message on a connection.
    Control(ConnKey, Bytes),
    /// Send a message of this priority.
    Message(ConnKey, u8, Bytes),
    /// An AMQP client's link: deliver a message.
    ClientMessage(ConnKey, LinkId, Bytes),
    /// What an event of a peer made the core send to this worker came before: the permit of the event
    /// is dropped when that is handled.
    EventHandled(Arc<IntakePermit>),
    ClientSettle(ConnKey, DeliveryId, bool),
    /// Attach a link; the core identifies it by this tag until the worker reports its id.
    Attach(ConnKey, u64, Box<AttachArgs>),
    /// Detach a link, in order or with this error.
    Detach(ConnKey, LinkId, Option<AmqpError>),
    Close(ConnKey, CloseReason),
    /// Close a connection when it has no stream any more.
    Retire(ConnKey),
    /// Stop accepting and end when nothing is left.
    Drain(oneshot::Sender<()>),
    /// Answer when the event loop comes round.
    Ping(oneshot::Sender<usize>),
}

/// An opened connection on its way to a worker.
pub struct NewConnection {
    pub(crate) key: ConnKey,
    pub(crate) group: ConnKey,
    pub(crate) kind: ConnectionKind,
    pub(crate) site: u32,
    pub(crate) dialled: bool,
    pub(crate) established: Established,
    /// Of its peer.
    pub(crate) budget: Arc<PeerBudget>,
}

#[derive(Clone)]
pub struct Senders(Arc<[mpsc::UnboundedSender<Command>]>);

impl Senders {
    pub fn new(senders: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self(senders.into())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn broadcast(&self, command: impl Fn() -> Command) {
        (0..self.count()).for_each(|worker| self.send(worker, command()));
    }

    /// Asks all workers. What waits for their answers, by worker.
    pub fn ask_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<T>) -> Command,
    ) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker| {
            let (reply, answer) = oneshot::channel();
            self.send(worker, command(reply));
            answer
        };
        (0..self.count()).map(ask).collect()
    }

    /// Gives each worker one of these parts.
    pub fn send_each<T>(&self, parts: impl IntoIterator<Item = T>, command: impl Fn(T) -> Command) {
        for (worker, part) in parts.into_iter().enumerate() {
            self.send(worker, command(part));
        }
    }

    /// Sends to one worker. Workers end only with the process.
    pub fn send(&self, worker: usize, command: Command) {
        if let Some(sender) = self.0.get(worker)
            && sender.send(command).is_err()
        {
            tracing::debug!(worker, "cannot send command: worker stopped");
        }
    }
}
