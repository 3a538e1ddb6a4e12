//! A data-plane worker: one thread, one single-threaded runtime, the connections and streams on it.
//!
//! A [`Worker`] owns what its thread carries: the connections of links, each with a task of
//! [`crate::link::driver`]; the sockets on which it accepts clients; streams on their way through this
//! site (`transit`); streams handed to and from other workers (relays). TCP connections of this host
//! belong to its [`Acceptor`], the proxy.
//!
//! The core sends it [`Command`]s over one channel and gets [`CoreEvent`]s. Connections report to it
//! (`connection_events`), and the proxy takes a connection of a link for a stream ([`Worker::trunk`]).
//!
//! It serves until [`Command::Drain`]: then it accepts no clients, and reports when the proxy has no
//! connections left. After a restart, clients wait here until a connector can be reached again.
//!
//! It shares no state with other workers, and never changes a route: it decides by the [`SiteView`] that
//! the core published last.

mod accept;
mod commands;
mod connection_events;
pub mod stream_source;
mod streams;
pub(crate) mod transit;

pub use streams::temp_address;

use crate::{
    amqp::message::MessageHead,
    link::{
        conn::{
            ConnKey, ConnectionKind, ConnectionState, DeliveryOutcome, LinkConnection,
            stream_end::End,
        },
        driver::{self, ConnectionEnd},
        handshake::Established,
        wire::Wire,
    },
    messages::{AcceptedClient, Command, CoreEvent, CoreSender, NewConnection, RelayId, Senders},
    service::view::{ConnectorTarget, SiteView},
    steer::OwnerTable,
    sys,
    telemetry::Failures,
    worker::stream_source::StreamSource,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Clients that may wait for a connector at each worker, after a restart.
const MAX_WAITING_CLIENTS: usize = 16384;

/// The proxy: where streams and clients of this host end.
pub trait Acceptor {
    /// Takes a stream for a connector of this site or, with the number of its reply address, for a
    /// client of one of its listeners.
    fn stream(
        &self,
        worker: &Rc<Worker>,
        stream: IncomingStream,
        reply_number: Option<u64>,
    ) -> Result<End, DeliveryOutcome>;
    /// Takes a client of a listener. Returns it if no connector is reachable.
    fn client(&self, worker: &Rc<Worker>, client: AcceptedClient) -> Option<AcceptedClient>;
    /// Ends the connections of a removed listener or connector.
    fn cut(&self, entity: u64);
    /// Client and server connections of this worker.
    fn open_connections(&self) -> usize;
}

pub struct IncomingStream {
    pub site: u32,
    pub head: Box<MessageHead>,
    pub source: StreamSource,
    /// Connection for answers.
    pub reply_conn: Option<Rc<LinkConnection>>,
    pub link: ConnKey,
}

/// The state of a worker's thread.
pub struct Worker {
    pub index: usize,
    pub senders: Senders,
    core: CoreSender,
    acceptor: Rc<dyn Acceptor>,
    conns: RefCell<HashMap<ConnKey, Rc<LinkConnection>>>,
    /// Connections that carry streams, by link; turned with each use.
    trunks: RefCell<HashMap<ConnKey, Vec<Rc<LinkConnection>>>>,
    views: RefCell<HashMap<u32, Arc<SiteView>>>,
    listeners: RefCell<HashMap<u64, Vec<tokio::task::AbortHandle>>>,
    /// Streams handed to other workers.
    relays_out: RefCell<HashMap<RelayId, (StreamSource, usize)>>,
    /// Streams received from other workers.
    relays_in: RefCell<HashMap<(usize, RelayId), End>>,
    next_relay: Cell<RelayId>,
    draining: Cell<bool>,
    /// Streams that were aborted because their senders ignore the window.
    window_overruns: Failures,
    /// Connections that were ended because of what their peers made them hold.
    budget_overruns: Failures,
    /// Streams that were aborted because too much waits for the readers of their peers' streams.
    stream_overruns: Failures,
    /// Clients that wait until a connector is reachable; `None` when clients are not to wait.
    waiting_clients: RefCell<Option<Vec<AcceptedClient>>>,
}

impl Worker {
    /// A worker without connections.
    pub fn new(
        index: usize,
        senders: Senders,
        core: CoreSender,
        acceptor: Rc<dyn Acceptor>,
    ) -> Rc<Self> {
        Rc::new(Self {
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
            window_overruns: Failures::default(),
            budget_overruns: Failures::default(),
            stream_overruns: Failures::default(),
            waiting_clients: RefCell::default(),
        })
    }

    /// Runs the worker until all senders are gone.
    pub async fn run(self: Rc<Self>, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            if let Command::Drain(done) = command {
                self.clone().drain(done);
            } else {
                self.command(command);
            }
        }
    }

    pub fn view(&self, site: u32) -> Option<Arc<SiteView>> {
        self.views.borrow().get(&site).cloned()
    }

    /// A connection of this worker that carries streams on this link.
    pub fn trunk(&self, link: ConnKey) -> Option<Rc<LinkConnection>> {
        let mut trunks = self.trunks.borrow_mut();
        let conns = trunks.get_mut(&link)?;
        let step = usize::from(conns.len() > 1);
        conns.rotate_left(step);
        conns.iter().find(|c| c.is_open()).cloned()
    }

    fn on_conn(&self, key: ConnKey, f: impl FnOnce(&mut ConnectionState)) {
        let conn = self.conns.borrow().get(&key).cloned();
        match conn {
            Some(conn) => f(&mut conn.borrow()),
            None => tracing::debug!(conn = key, "dropping command for closed connection"),
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
                self.core.send(CoreEvent::Ended {
                    key: new.key,
                    group: new.group,
                    reason: ConnectionEnd::Failed(crate::telemetry::chain(&e)),
                });
                return;
            }
        };
        let mut state = ConnectionState::new(new.key, new.kind, amqp, wire, &new.budget);
        state.chunks = rest;
        if new.kind == ConnectionKind::Control && new.dialled {
            state.attach_fixed();
        }
        let conn = LinkConnection::new(new.key, new.group, new.kind, new.site, native, state);
        self.conns.borrow_mut().insert(new.key, conn.clone());
        if matches!(new.kind, ConnectionKind::Data | ConnectionKind::Edge) {
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
                let reason = driver::run(worker.clone(), conn).await;
                worker.core.send(CoreEvent::Ended { key, group, reason });
            }
        });
    }

    fn set_view(self: &Rc<Self>, site: u32, view: Arc<SiteView>) {
        let previous = self.views.borrow_mut().insert(site, view.clone());
        // Connectors that are gone take their connections with them.
        for target in previous.iter().flat_map(|v| v.gone_in(&view)) {
            self.acceptor.cut(target);
        }
        let mut waiting = self.waiting_clients.borrow_mut();
        let clients: Vec<AcceptedClient> = match &mut *waiting {
            Some(waiting) => waiting
                .extract_if(.., |client| client.site == site)
                .collect(),
            None => Vec::new(),
        };
        drop(waiting);
        for client in clients {
            self.client(client);
        }
    }

    /// Serves a client, lets it wait, or refuses it.
    fn client(self: &Rc<Self>, client: AcceptedClient) {
        let Some(client) = self.acceptor.client(self, client) else {
            return;
        };
        match &mut *self.waiting_clients.borrow_mut() {
            Some(waiting) if waiting.len() < MAX_WAITING_CLIENTS => {
                // The policy may choose another routing key later.
                waiting.push(AcceptedClient {
                    policy: None,
                    ..client
                });
            }
            // The listener is about to close.
            _ => {
                tracing::debug!(
                    routing_key = &*client.routing_key,
                    "closing client: no connector is reachable"
                );
            }
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
        self.accept_with(listener, socket, move |socket| {
            worker.client(AcceptedClient {
                site,
                listener,
                routing_key: routing_key.clone(),
                policy: None,
                socket,
            });
        });
    }

    fn accept_steered(
        self: &Rc<Self>,
        key: u64,
        table: &Arc<OwnerTable>,
        sockets: Vec<TcpListener>,
    ) {
        for socket in sockets {
            let (worker, table) = (self.clone(), table.clone());
            self.accept_with(key, socket, move |socket| {
                let owner = socket.local_addr().ok().and_then(|to| table.owner(to));
                match owner {
                    Some(owner) => worker.client(AcceptedClient {
                        site: owner.site,
                        listener: owner.listener,
                        routing_key: owner.routing_key.clone(),
                        policy: None,
                        socket,
                    }),
                    // The listener has closed since; closing it resets the clients in its queue too.
                    None => sys::reset_on_close((&socket).into()),
                }
            });
        }
    }

    /// Accepts on a socket until [`Command::Unlisten`].
    fn accept_with(
        &self,
        listener: u64,
        socket: TcpListener,
        each: impl FnMut(TcpStream) + 'static,
    ) {
        let socket = match sys::watch(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(%error, listener, "cannot register listening socket");
                return;
            }
        };
        let core = self.core.clone();
        let task = tokio::task::spawn_local(async move {
            let refused = || core.send(CoreEvent::Changed);
            accept::clients(&socket, each, refused).await;
        });
        self.listeners
            .borrow_mut()
            .entry(listener)
            .or_default()
            .push(task.abort_handle());
    }

    fn drain(self: Rc<Self>, done: oneshot::Sender<()>) {
        self.draining.set(true);
        self.waiting_clients.take();
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
            // The receiver is gone when the deadline has passed.
            let _ = done.send(());
        });
    }

    /// Reports a change that statuses show.
    pub fn notify_changed(&self) {
        self.core.send(CoreEvent::Changed);
    }

    /// Targets of a routing key on this host.
    pub fn targets(&self, site: u32, key: &str) -> Vec<Arc<ConnectorTarget>> {
        self.view(site)
            .map(|v| v.targets_of(key).to_vec())
            .unwrap_or_default()
    }
}
