//! Listeners and connectors: TCP connections on this host and the streams they are bridged to.

mod connector;
mod flow;
mod head;
mod http;
mod listener;
mod local;
mod policy;
mod stream;
mod tcp;
mod tls;
mod unix;

use crate::{
    link::{
        conn::{Current, End, Outcome},
        ends::{Front, Fronts},
        ledger::Ledger,
        worker::{Acceptor, Arrived, Worker},
    },
    router::LocalCandidate,
    steer::accel::Acceleration,
    sys::Pressure,
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::TcpStream,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tcp::TcpEnd;

/// The proxy of one worker.
pub struct Proxy {
    this: Weak<Proxy>,
    fronts: Fronts,
    /// Clients by the number of their reply address.
    temps: RefCell<HashMap<u64, Rc<TcpEnd>>>,
    next_temp: Cell<u64>,
    /// Connections by the listener or connector they belong to.
    owned: RefCell<HashMap<u64, Vec<Weak<dyn Cut>>>>,
    open: Cell<usize>,
    acceleration: Arc<Acceleration>,
    pressure: Pressure,
    ledger: Ledger,
}

/// A connection that ends when its listener or connector does.
trait Cut {
    fn cut(&self);
}

/// Counts an open connection for as long as it lives.
struct Open(Rc<Proxy>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

impl Proxy {
    /// A proxy without connections. It takes no new ones while memory is short: those that are open
    /// are worth more. `fronts`: those of the listeners; `ledger`: where connections are recorded.
    pub fn new(
        pressure: Pressure,
        fronts: Fronts,
        acceleration: Arc<Acceleration>,
        ledger: Ledger,
    ) -> Rc<Self> {
        // Where numbers begin differs from start to start, so that a stream of an earlier life does
        // not find a client of this one.
        use std::hash::{BuildHasher, RandomState};
        let seed = RandomState::new().hash_one(0u8);
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            fronts: fronts.clone(),
            temps: RefCell::default(),
            next_temp: Cell::new(seed & 0x000f_ffff_ffff),
            owned: RefCell::default(),
            open: Cell::new(0),
            acceleration,
            pressure,
            ledger,
        })
    }

    fn count(&self) -> Option<Open> {
        let this = self.this.upgrade()?;
        self.open.set(self.open.get() + 1);
        Some(Open(this))
    }

    fn own(&self, entity: u64, connection: Weak<dyn Cut>) {
        let mut owned = self.owned.borrow_mut();
        let list = owned.entry(entity).or_default();
        // Ended ones are swept when the list would grow: constant cost for each connection.
        if list.len() == list.capacity() {
            list.retain(|c| c.strong_count() > 0);
        }
        list.push(connection);
    }

    fn next_temp(&self) -> u64 {
        let n = self.next_temp.get();
        self.next_temp.set((n + 1) & 0x000f_ffff_ffff_ffff);
        n
    }
}

impl Acceptor for Proxy {
    fn stream(
        &self,
        worker: &Rc<Worker>,
        cur: Current<'_>,
        arrived: Arrived,
    ) -> Result<End, Outcome> {
        match arrived.temp {
            Some(temp) => {
                let client = self.temps.borrow_mut().remove(&temp);
                let client = client.ok_or(Outcome::Released)?;
                client.reverse(cur, arrived.up, &arrived.head);
                Ok(client)
            }
            // Another router may have a server for it, and memory.
            None if self.pressure.is_high() => Err(Outcome::Released),
            None => self.serve(worker, arrived),
        }
    }

    fn client(
        &self,
        worker: &Rc<Worker>,
        site: u32,
        listener: u64,
        routing_key: &Arc<str>,
        front: Option<Arc<Front>>,
        socket: TcpStream,
    ) -> Option<TcpStream> {
        if self.pressure.is_high() {
            refuse(&socket);
            return None;
        }
        self.accept(worker, site, listener, routing_key, front, socket)
    }

    fn cut(&self, entity: u64) {
        let owned = self.owned.borrow_mut().remove(&entity);
        for connection in owned.into_iter().flatten().filter_map(|c| c.upgrade()) {
            connection.cut();
        }
    }

    fn open_connections(&self) -> usize {
        self.open.get()
    }
}

/// Ends a client's connection as a port that is closed would have: nothing is left in the kernel.
fn refuse(socket: &TcpStream) {
    if let Err(error) = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "connection ends without a reset");
    }
}

/// Connectors of a routing key on this host, as candidates.
fn candidates(worker: &Worker, site: u32, key: &str) -> Vec<LocalCandidate> {
    let targets = worker.targets(site, key);
    let candidate = |t: &Arc<crate::link::view::ConnectorTarget>| LocalCandidate {
        id: t.id,
        in_use: t.in_use.load(Ordering::Relaxed),
    };
    targets.iter().map(candidate).collect()
}
