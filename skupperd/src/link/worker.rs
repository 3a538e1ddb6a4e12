//! A data-plane worker: one thread, one single-threaded runtime, the connections and streams on it.

mod messages;
mod streams;

pub use streams::temp_address;

use super::{
    conn::{Conn, ConnKey, Current, End, Inner, Kind, Outcome},
    core::{CoreEvent, CoreSender},
    driver,
    ends::{Failures, Front},
    handshake::Established,
    upstream::Upstream,
    view::{ConnectorTarget, SiteView},
    wire::Wire,
};
use crate::amqp::{
    connection::{AttachArgs, DeliveryId, LinkId},
    message::MessageHead,
    performative::{DeliveryState, Error as AmqpError},
};
use crate::steer::Table;
use bytes::Bytes;
use socket2::SockRef;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Accepting for all listeners that are steered in this network namespace; keys of listeners begin at
/// 1.
pub const STEERED: u64 = 0;

/// Clients that may wait for a connector at each worker, after a restart.
const MAX_HELD: usize = 16384;

/// Names a stream that crosses workers, at the worker whose connection it came in on.
pub type RelayId = u64;

/// What crosses back over a relay.
#[derive(Debug)]
pub enum Relayed {
    /// Bytes passed on in all.
    Ack(u64),
    /// The receiver is done.
    Outcome(Outcome),
}

/// What crosses over a relay.
#[derive(Debug)]
pub enum RelayData {
    /// Payload.
    Data(Bytes),
    /// The end; true: given up.
    End(bool),
}

/// What a worker is told.
pub enum Command {
    /// Take over an opened connection.
    Connection(Box<NewConnection>),
    /// A site's picture of the network has changed.
    View(u32, Arc<SiteView>),
    /// A site is gone.
    SiteGone(u32),
    /// Accept clients of a listener.
    Listen {
        /// Site.
        site: u32,
        /// Listener.
        listener: u64,
        /// Its routing key.
        routing_key: Arc<str>,
        /// A listening socket.
        socket: TcpListener,
    },
    /// Accept what the kernel steers here, for whoever owns the address that it came to.
    Steered {
        /// What [`Self::Unlisten`] knows this by.
        key: u64,
        /// Owners of addresses.
        table: Arc<Table>,
        /// Listening sockets.
        sockets: Vec<TcpListener>,
    },
    /// Clients for whom no connector is reachable wait until there is one; or no more.
    Hold(bool),
    /// Stop accepting; with `cut` its connections end too.
    Unlisten {
        /// Listener.
        listener: u64,
        /// End its connections.
        cut: bool,
    },
    /// A client that another worker accepted: this one has a connection towards its server.
    Client {
        /// Site.
        site: u32,
        /// Listener.
        listener: u64,
        /// The routing key it is for.
        routing_key: Arc<str>,
        /// The listener's front, if it has one.
        front: Option<Arc<Front>>,
        /// The client.
        socket: TcpStream,
    },
    /// A stream that another worker received.
    RelayOpen {
        /// Worker it comes from.
        from: usize,
        /// Its name there.
        id: RelayId,
        /// Site.
        site: u32,
        /// Link it came in on.
        link: ConnKey,
        /// Its head.
        head: Box<MessageHead>,
    },
    /// Payload of such a stream.
    Relay(usize, RelayId, RelayData),
    /// The other way.
    RelayBack(RelayId, Relayed),
    /// Streams go over this control connection: the peer has no trunk.
    CarryStreams(ConnKey),
    /// Send a control message on a connection.
    Control(ConnKey, Bytes),
    /// Send a message of this priority.
    Message(ConnKey, u8, Bytes),
    /// An AMQP client's link: deliver a message.
    ClientMessage(ConnKey, LinkId, Bytes),
    /// Settle a client's delivery.
    ClientSettle(ConnKey, DeliveryId, bool),
    /// Attach a link; the core knows it by this tag until it is told which one it is.
    Attach(ConnKey, u64, Box<AttachArgs>),
    /// Detach a link, in order or with this error.
    Detach(ConnKey, LinkId, Option<AmqpError>),
    /// Close a connection.
    Close(ConnKey, String),
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
    pub(crate) kind: Kind,
    pub(crate) site: u32,
    pub(crate) dialled: bool,
    pub(crate) established: Established,
}

/// Channels to all workers.
#[derive(Clone)]
pub struct Senders(Arc<[mpsc::UnboundedSender<Command>]>);

impl Senders {
    /// Channels, by worker.
    pub fn new(senders: Vec<mpsc::UnboundedSender<Command>>) -> Self {
        Self(senders.into())
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Tells one worker. A worker that has ended takes no more: everything is over then.
    pub fn send(&self, worker: usize, command: Command) {
        if let Some(sender) = self.0.get(worker)
            && sender.send(command).is_err()
        {
            tracing::debug!(worker, "worker has ended");
        }
    }
}

/// What the ends of streams on this host are: the proxy.
pub trait Acceptor {
    /// A stream for a connector or a listener of this site has come in. Err: nobody takes it.
    fn stream(
        &self,
        worker: &Rc<Worker>,
        cur: Current<'_>,
        arrived: Arrived,
    ) -> Result<End, Outcome>;
    /// A client was accepted by a listener. `front`: that of the listener, when another worker has
    /// chosen the routing key. It is given back if no connector is reachable.
    fn client(
        &self,
        worker: &Rc<Worker>,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        front: Option<Arc<Front>>,
        socket: TcpStream,
    ) -> Option<TcpStream>;
    /// A listener or connector is gone: its connections end.
    fn cut(&self, entity: u64);
    /// Client and server connections of this worker.
    fn open_connections(&self) -> usize;
}

/// A stream that has arrived at a router that serves its address.
pub struct Arrived {
    /// Site.
    pub site: u32,
    /// Its head.
    pub head: Box<MessageHead>,
    /// Where it comes from.
    pub up: Upstream,
    /// Connection for answers.
    pub back: Option<Rc<Conn>>,
    /// Link it came in on.
    pub link: ConnKey,
    /// For one of our own clients: the name of its reply address.
    pub temp: Option<u64>,
}

/// The state of a worker's thread.
pub struct Worker {
    /// Which worker.
    pub index: usize,
    /// All workers.
    pub senders: Senders,
    core: CoreSender,
    acceptor: Rc<dyn Acceptor>,
    conns: RefCell<HashMap<ConnKey, Rc<Conn>>>,
    /// Connections that carry streams, by link; turned with each use.
    trunks: RefCell<HashMap<ConnKey, Vec<Rc<Conn>>>>,
    views: RefCell<HashMap<u32, Arc<SiteView>>>,
    listeners: RefCell<HashMap<u64, Vec<tokio::task::AbortHandle>>>,
    /// Streams handed to other workers.
    relays_out: RefCell<HashMap<RelayId, (Upstream, usize)>>,
    /// Streams received from other workers.
    relays_in: RefCell<HashMap<(usize, RelayId), End>>,
    next_relay: Cell<RelayId>,
    draining: Cell<bool>,
    /// Messages that clients have not taken.
    dropped: Failures,
    /// Clients that wait for a connector to be reachable; none when nobody is to wait.
    held: RefCell<Option<Vec<Held>>>,
}

/// A client that waits.
struct Held {
    site: u32,
    listener: u64,
    routing_key: Arc<str>,
    socket: TcpStream,
}

/// The listener of a client has closed since: as a closed listener does to those who wait in its
/// queue.
fn reset(client: &TcpStream) {
    if let Err(error) = SockRef::from(client).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "resetting a client");
    }
}

impl Worker {
    /// Runs a worker until all senders are gone or it has drained.
    pub async fn run(
        index: usize,
        senders: Senders,
        core: CoreSender,
        acceptor: Rc<dyn Acceptor>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let worker = Rc::new(Self {
            index,
            senders,
            core,
            acceptor,
            conns: RefCell::default(),
            trunks: RefCell::default(),
            views: RefCell::default(),
            listeners: RefCell::default(),
            relays_out: RefCell::default(),
            relays_in: RefCell::default(),
            next_relay: Cell::new(0),
            draining: Cell::new(false),
            dropped: Failures::default(),
            held: RefCell::default(),
        });
        while let Some(command) = commands.recv().await {
            if let Command::Drain(done) = command {
                worker.clone().drain(done);
            } else {
                worker.command(command);
            }
        }
    }

    /// The picture of a site.
    pub fn view(&self, site: u32) -> Option<Arc<SiteView>> {
        self.views.borrow().get(&site).cloned()
    }

    /// A connection of this worker that carries streams on this link.
    pub fn trunk(&self, link: ConnKey) -> Option<Rc<Conn>> {
        let mut trunks = self.trunks.borrow_mut();
        let conns = trunks.get_mut(&link)?;
        let step = usize::from(conns.len() > 1);
        conns.rotate_left(step);
        conns.iter().find(|c| c.is_open()).cloned()
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each command")]
    fn command(self: &Rc<Self>, command: Command) {
        match command {
            Command::Connection(new) => self.connection(*new),
            Command::View(site, view) => self.set_view(site, view),
            Command::SiteGone(site) => drop(self.views.borrow_mut().remove(&site)),
            Command::Listen {
                site,
                listener,
                routing_key,
                socket,
            } => {
                self.listen(site, listener, routing_key, socket);
            }
            Command::Steered {
                key,
                table,
                sockets,
            } => self.accept_steered(key, &table, sockets),
            Command::Hold(hold) => {
                let waiting = self.held.replace(hold.then(Vec::new));
                for held in waiting.into_iter().flatten() {
                    reset(&held.socket);
                }
            }
            Command::Unlisten { listener, cut } => {
                if let Some(waiting) = &mut *self.held.borrow_mut() {
                    for held in waiting.extract_if(.., |held| held.listener == listener) {
                        reset(&held.socket);
                    }
                }
                for task in self
                    .listeners
                    .borrow_mut()
                    .remove(&listener)
                    .iter()
                    .flatten()
                {
                    task.abort();
                }
                if cut {
                    self.acceptor.cut(listener);
                }
            }
            Command::Client {
                site,
                listener,
                routing_key,
                front,
                socket,
            } => {
                self.client(site, listener, &routing_key, front, socket);
            }
            Command::RelayOpen {
                from,
                id,
                site,
                link,
                head,
            } => {
                let up = Upstream::Relay {
                    senders: self.senders.clone(),
                    worker: from,
                    id,
                };
                match self.place(site, link, *head, up, None, None, true) {
                    Ok(end) => drop(self.relays_in.borrow_mut().insert((from, id), end)),
                    Err((up, outcome)) => up.settle(None, outcome),
                }
            }
            Command::Relay(from, id, data) => self.relay(from, id, data),
            Command::RelayBack(id, back) => self.relay_back(id, back),
            Command::CarryStreams(key) => {
                let conn = self.conns.borrow().get(&key).cloned();
                if let Some(conn) = conn {
                    conn.borrow().carry_streams();
                    self.trunks
                        .borrow_mut()
                        .entry(conn.group)
                        .or_default()
                        .push(conn);
                }
            }
            Command::Control(key, message) => {
                self.on_conn(key, |inner| {
                    if let Some(link) = inner.fixed.control
                        && !inner.send_message(link, message)
                    {
                        tracing::warn!(
                            conn = key,
                            "control message dropped: the peer gives no credit"
                        );
                    }
                });
            }
            Command::Message(key, priority, message) => {
                self.on_conn(key, |inner| {
                    let slot = usize::from(priority).min(inner.fixed.data.len() - 1);
                    if let Some(link) = inner.fixed.data[slot]
                        && !inner.send_message(link, message)
                    {
                        tracing::warn!(conn = key, "message dropped: the peer gives no credit");
                    }
                });
            }
            Command::ClientMessage(key, link, message) => {
                self.on_conn(key, |inner| {
                    if !inner.send_message(link, message)
                        && let Some(unsaid) = self.dropped.note(Instant::now())
                    {
                        let why = "message dropped: the client gives no credit";
                        tracing::warn!(conn = key, unsaid, "{why}");
                    }
                });
            }
            Command::ClientSettle(key, delivery, accepted) => {
                self.on_conn(key, |inner| {
                    let state = if accepted {
                        DeliveryState::Accepted
                    } else {
                        DeliveryState::Released
                    };
                    inner.amqp.disposition(delivery, Some(state), true);
                    inner.drain_control();
                    inner.kick();
                });
            }
            Command::Attach(key, tag, args) => self.attach(key, tag, *args),
            Command::Detach(key, link, error) => {
                self.on_conn(key, |inner| inner.detach_own(link, error));
            }
            Command::Close(key, why) => {
                self.on_conn(key, |inner| inner.fail("amqp:connection:forced", &why));
            }
            Command::Retire(key) => self.on_conn(key, |inner| {
                inner.retire = true;
                inner.kick();
            }),
            Command::Ping(answer) => {
                let _ = answer.send(self.acceptor.open_connections());
            }
            Command::Drain(_) => {}
        }
    }

    fn on_conn(&self, key: ConnKey, f: impl FnOnce(&mut Inner)) {
        let conn = self.conns.borrow().get(&key).cloned();
        match conn {
            Some(conn) => f(&mut conn.borrow()),
            None => tracing::debug!(conn = key, "connection is gone"),
        }
    }

    fn connection(self: &Rc<Self>, new: NewConnection) {
        let Established {
            parts,
            amqp,
            rest,
            native,
            ..
        } = new.established;
        let wire = match Wire::attach(parts) {
            Ok(wire) => wire,
            Err(e) => {
                let why = crate::telemetry::chain(&e);
                self.core.send(CoreEvent::Ended {
                    key: new.key,
                    group: new.group,
                    why,
                });
                return;
            }
        };
        let mut inner = Inner::new(new.key, new.kind, amqp, wire);
        inner.chunks = rest;
        if new.kind == Kind::Control && new.dialled {
            inner.attach_fixed();
        }
        let conn = Conn::new(new.key, new.group, new.kind, new.site, native, inner);
        self.conns.borrow_mut().insert(new.key, conn.clone());
        if matches!(new.kind, Kind::Data | Kind::Edge) {
            self.trunks
                .borrow_mut()
                .entry(new.group)
                .or_default()
                .push(conn.clone());
            conn.borrow().carry_streams();
        }
        tokio::task::spawn_local({
            let worker = self.clone();
            async move {
                let (key, group) = (conn.key, conn.group);
                let ended = driver::run(worker.clone(), conn).await;
                worker.core.send(CoreEvent::Ended {
                    key,
                    group,
                    why: ended.to_string(),
                });
            }
        });
    }

    fn set_view(self: &Rc<Self>, site: u32, view: Arc<SiteView>) {
        let previous = self.views.borrow_mut().insert(site, view.clone());
        // Connectors that are gone take their connections with them.
        for target in previous.iter().flat_map(|v| v.targets()) {
            if !view.targets().any(|t| t.id == target.id) {
                self.acceptor.cut(target.id);
            }
        }
        let mut waiting = self.held.borrow_mut();
        let again: Vec<Held> = match &mut *waiting {
            Some(waiting) => waiting.extract_if(.., |held| held.site == site).collect(),
            None => Vec::new(),
        };
        drop(waiting);
        for held in again {
            self.client(
                held.site,
                held.listener,
                &held.routing_key,
                None,
                held.socket,
            );
        }
    }

    /// A client is served, waits, or is refused.
    fn client(
        self: &Rc<Self>,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        front: Option<Arc<Front>>,
        socket: TcpStream,
    ) {
        let acceptor = &self.acceptor;
        let back = acceptor.client(self, site, listener, routing_key, front, socket);
        let Some(socket) = back else { return };
        match &mut *self.held.borrow_mut() {
            Some(waiting) if waiting.len() < MAX_HELD => waiting.push(Held {
                site,
                listener,
                routing_key: routing_key.clone(),
                socket,
            }),
            // Nobody is reachable any more: the listener is about to close.
            _ => tracing::debug!(routing_key = &**routing_key, "no connector"),
        }
    }

    fn listen(
        self: &Rc<Self>,
        site: u32,
        listener: u64,
        routing_key: Arc<str>,
        socket: TcpListener,
    ) {
        let worker = self.clone();
        self.accept_with(listener, socket, move |client| {
            worker.client(site, listener, &routing_key, None, client);
        });
    }

    fn accept_steered(self: &Rc<Self>, key: u64, table: &Arc<Table>, sockets: Vec<TcpListener>) {
        for socket in sockets {
            let (worker, table) = (self.clone(), table.clone());
            self.accept_with(key, socket, move |client| {
                let owner = client.local_addr().ok().and_then(|to| table.owner(to));
                match owner {
                    Some(owner) => {
                        let (site, listener) = (owner.site, owner.listener);
                        worker.client(site, listener, &owner.routing_key, None, client);
                    }
                    None => reset(&client),
                }
            });
        }
    }

    /// Accepts on a socket until the listener is told not to.
    fn accept_with(
        &self,
        listener: u64,
        socket: TcpListener,
        each: impl FnMut(TcpStream) + 'static,
    ) {
        let socket = match crate::sys::watch(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, listener, "registering a listening socket failed");
                return;
            }
        };
        let task = tokio::task::spawn_local(async move {
            super::accept::clients(&socket, each).await;
        });
        self.listeners
            .borrow_mut()
            .entry(listener)
            .or_default()
            .push(task.abort_handle());
    }

    fn drain(self: Rc<Self>, done: oneshot::Sender<()>) {
        self.draining.set(true);
        self.held.take();
        self.listeners
            .borrow_mut()
            .drain()
            .flat_map(|(_, t)| t)
            .for_each(|task| task.abort());
        tokio::task::spawn_local(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while self.acceptor.open_connections() > 0 {
                tick.tick().await;
            }
            // Nobody waits any more when the deadline has passed.
            let _ = done.send(());
        });
    }

    /// Something that statuses show has changed.
    pub fn tell_changed(&self) {
        let changed = |core: &mut super::core::Core| core.changed();
        self.core.send(CoreEvent::Call(Box::new(changed)));
    }

    // ---- called by connections ----

    pub(super) fn conn_ended(&self, conn: &Rc<Conn>) {
        self.conns.borrow_mut().remove(&conn.key);
        let mut trunks = self.trunks.borrow_mut();
        if let Some(conns) = trunks.get_mut(&conn.group) {
            conns.retain(|c| c.key != conn.key);
            if conns.is_empty() {
                trunks.remove(&conn.group);
            }
        }
    }

    /// Targets of a routing key on this host.
    pub fn targets(&self, site: u32, key: &str) -> Vec<Arc<ConnectorTarget>> {
        self.view(site)
            .and_then(|v| v.connectors.get(key).cloned())
            .unwrap_or_default()
    }
}
