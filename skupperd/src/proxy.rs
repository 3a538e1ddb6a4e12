//! Listeners and connectors: TCP connections on this host and the streams they are bridged to.
//!
//! Each worker has one [`Proxy`], its [`Acceptor`]. It owns the connections of clients and of servers on
//! this worker, counts them, and ends those of a listener or connector that is removed.
//!
//! The worker calls it with each client that it accepts (`listener`) and with each stream that arrives:
//! one for a connector (`connector`), or the answer to a client, which it finds by the number of its
//! reply address. A client whose connector is at this site is bridged to the server directly (`local`).
//! Any other connection is a `tcp::TcpEnd`, the end of two streams.
//!
//! A connection is admitted (`policy`), secured if the listener has TLS (`tls`), given a connector, and
//! carried until both directions have ended or one is reset. `flow` records it, and
//! [`crate::http_observer`] reports its requests.
//!
//! It never listens on a socket and never changes a route. While memory is short it takes no new
//! connections.

mod connector;
mod flow;
mod head;
mod listener;
mod local;
mod policy;
mod stream;
mod tcp;
mod tls;
mod unix;

use crate::sys;
use crate::{
    flows::FlowLog,
    link::conn::{DeliveryOutcome, stream_end::End},
    messages::AcceptedClient,
    service::policy::ListenerPolicies,
    steer::accel::Acceleration,
    sys::MemoryPressure,
    telemetry::Failures,
    worker::{Acceptor, IncomingStream, Worker},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Instant,
};
use tcp::TcpEnd;

static NO_RANDOM_BYTES: Failures = Failures::new();

/// The proxy of one worker.
pub struct Proxy {
    this: Weak<Proxy>,
    listener_policies: ListenerPolicies,
    /// Clients by the number of their reply address.
    clients: RefCell<HashMap<u64, Rc<TcpEnd>>>,
    /// Connections by the listener or connector they belong to.
    owned: RefCell<HashMap<u64, Vec<Weak<dyn Disconnect>>>>,
    open: Cell<usize>,
    acceleration: Arc<Acceleration>,
    pressure: MemoryPressure,
    flow_log: FlowLog,
}

/// A connection that ends when its listener or connector does.
trait Disconnect {
    fn disconnect(&self);
}

/// Counts an open connection for as long as it lives.
struct ConnectionCount(Rc<Proxy>);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Proxy {
    /// A proxy without connections. It takes no new ones while memory is short: those that are open
    /// are worth more. `listener_policies`: those of the listeners; `flow_log`: where connections are recorded.
    pub fn new(
        pressure: MemoryPressure,
        listener_policies: ListenerPolicies,
        acceleration: Arc<Acceleration>,
        flow_log: FlowLog,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            listener_policies: listener_policies.clone(),
            clients: RefCell::default(),
            owned: RefCell::default(),
            open: Cell::new(0),
            acceleration,
            pressure,
            flow_log,
        })
    }

    fn count_open(&self) -> Option<ConnectionCount> {
        let this = self.this.upgrade()?;
        self.open.set(self.open.get() + 1);
        Some(ConnectionCount(this))
    }

    fn register(&self, entity: u64, connection: Weak<dyn Disconnect>) {
        let mut owned = self.owned.borrow_mut();
        let list = owned.entry(entity).or_default();
        // Ended ones are swept when the list would grow: constant cost for each connection.
        if list.len() == list.capacity() {
            list.retain(|c| c.strong_count() > 0);
        }
        list.push(connection);
    }

    /// The number of a reply address: 60 random bits, so that a client cannot guess that of another and
    /// answer in a server's place. `None`: the system has no random bytes.
    fn reply_number(&self) -> Option<u64> {
        let clients = self.clients.borrow();
        loop {
            let mut bytes = [0; 8];
            if aws_lc_rs::rand::fill(&mut bytes).is_err() {
                if let Some(suppressed) = NO_RANDOM_BYTES.count_and_report(Instant::now()) {
                    let error = "no random bytes for its reply address";
                    tracing::error!(error, suppressed, "cannot serve client");
                }
                return None;
            }
            let number = u64::from_ne_bytes(bytes) >> 4;
            if !clients.contains_key(&number) {
                return Some(number);
            }
        }
    }
}

impl Acceptor for Proxy {
    fn stream(
        &self,
        worker: &Rc<Worker>,
        stream: IncomingStream,
        reply_number: Option<u64>,
    ) -> Result<End, DeliveryOutcome> {
        match reply_number {
            Some(number) => {
                let client = self.clients.borrow_mut().remove(&number);
                let client = client.ok_or(DeliveryOutcome::Released)?;
                client.answered_by(stream.source, &stream.head);
                Ok(client)
            }
            // Another router may have a server for it, and memory.
            None if self.pressure.is_high() => Err(DeliveryOutcome::Released),
            None => self.serve(worker, stream),
        }
    }

    fn client(&self, worker: &Rc<Worker>, client: AcceptedClient) -> Option<AcceptedClient> {
        if self.pressure.is_high() {
            sys::reset_on_close((&client.socket).into());
            return None;
        }
        self.accept(worker, client)
    }

    fn cut(&self, entity: u64) {
        let owned = self.owned.borrow_mut().remove(&entity);
        for connection in owned.into_iter().flatten().filter_map(|c| c.upgrade()) {
            connection.disconnect();
        }
    }

    fn open_connections(&self) -> usize {
        self.open.get()
    }
}
