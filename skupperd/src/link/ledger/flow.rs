//! One connection: what its worker writes of it, and what others read.

use super::{Exchange, Ledger, Service, ServiceKey, SiteName, Unseen, add};
use jiff::Timestamp;
use serde::{Serialize, Serializer};
use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Which end of a connection is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The client's.
    Listener,
    /// The server's, of a client at another site.
    Connector,
}

impl Side {
    /// Bytes from client to server and back, of those that were read from the socket here and
    /// written to it.
    pub(super) fn ways(self, read: u64, wrote: u64) -> (u64, u64) {
        match self {
            Self::Listener => (read, wrote),
            Self::Connector => (wrote, read),
        }
    }
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both ways, in order.
    Closed,
    /// The client, or the program before it, has reset it.
    ResetByClient,
    /// The server, or the site that it is at, has reset it.
    ResetByServer,
    /// No connector took it.
    Refused,
    /// Its TLS handshake with the client has failed.
    Handshake,
    /// Its listener or connector was removed.
    Removed,
    /// The link that it went over has broken.
    LinkLost,
}

impl Ending {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::ResetByClient => "reset by client",
            Self::ResetByServer => "reset by server",
            Self::Refused => "refused",
            Self::Handshake => "TLS handshake failed",
            Self::Removed => "listener or connector removed",
            Self::LinkLost => "link lost",
        }
    }
}

impl Serialize for Ending {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What is known of a connection when it begins.
#[derive(Debug)]
pub struct Begin {
    /// Which end of it is here.
    pub side: Side,
    /// What tells of it, as records name it.
    pub source: Arc<str>,
    /// The site of this host.
    pub site: Arc<SiteName>,
    /// Name of the listener; of a connector it is known later.
    pub entity: Arc<str>,
    /// Routing key, as far as it is known.
    pub routing_key: Arc<str>,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// At a connector: the identity of the record at the listener.
    pub peer_id: String,
}

/// Who serves a connection, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The site of the other end.
    pub site: SiteName,
    /// Name of the connector.
    pub connector: String,
    /// Address of the server.
    pub server: String,
    /// Address from which the connector speaks with it.
    pub proxy: String,
    /// Routers on the way, from the other end.
    pub trace: Vec<String>,
}

#[derive(Debug)]
struct Detail {
    routing_key: Arc<str>,
    served: Option<Served>,
    end: Option<(Timestamp, Duration, Ending)>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Flow {
    id: String,
    begin: Begin,
    start: Timestamp,
    since: Instant,
    read: AtomicU64,
    wrote: AtomicU64,
    /// Time until it was served and until the first byte of the server, in microseconds and one more;
    /// 0: not yet.
    opened: AtomicU64,
    answered: AtomicU64,
    requests: AtomicU64,
    detail: Mutex<Detail>,
}

impl Flow {
    pub(super) fn new(n: u64, begin: Begin) -> Self {
        Self {
            id: format!("{}:{n}", begin.source),
            start: Timestamp::now(),
            since: Instant::now(),
            read: AtomicU64::new(0),
            wrote: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            detail: Mutex::new(Detail {
                routing_key: begin.routing_key.clone(),
                served: None,
                end: None,
            }),
            begin,
        }
    }

    /// When it began, whatever the host's clock says.
    pub(super) fn began(&self) -> Instant {
        self.since
    }

    /// It is one of this namespace.
    pub(super) fn is_of(&self, namespace: &str) -> bool {
        self.begin.site.namespace == namespace
    }

    pub(super) fn side(&self) -> Side {
        self.begin.side
    }

    /// What tells of it.
    pub(super) fn source(&self) -> &str {
        &self.begin.source
    }

    pub(super) fn is_told_by(&self, source: &str) -> bool {
        &*self.begin.source == source
    }

    /// The identity of a record beside it.
    pub(super) fn identity(&self, n: u64) -> String {
        format!("{}:{n}", self.begin.source)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.with(|detail| detail.end.is_some())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Detail) -> T) -> T {
        f(&mut self.detail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn mark(&self, cell: &AtomicU64) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        cell.store(micros + 1, Ordering::Relaxed);
    }

    pub(super) fn record(&self) -> Record {
        let time = |cell: &AtomicU64| {
            let micros = cell.load(Ordering::Relaxed).checked_sub(1);
            micros.map(Duration::from_micros)
        };
        let side = self.begin.side;
        let read = self.read.load(Ordering::Relaxed);
        let (sent, received) = side.ways(read, self.wrote.load(Ordering::Relaxed));
        let (routing_key, served, end) =
            self.with(|d| (d.routing_key.clone(), d.served.clone(), d.end));
        Record {
            id: self.id.clone(),
            peer_id: self.begin.peer_id.clone(),
            side,
            site: self.begin.site.clone(),
            entity: self.begin.entity.clone(),
            routing_key,
            client: self.begin.client,
            served: served.unwrap_or_default(),
            start: self.start,
            end: end.map(|(at, _, _)| at),
            duration: end.map_or_else(|| self.since.elapsed(), |(_, duration, _)| duration),
            sent,
            received,
            opened: time(&self.opened),
            answered: time(&self.answered),
            ending: end.map(|(_, _, ending)| ending),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub struct Record {
    /// Identity.
    pub id: String,
    /// At a connector: the identity of the record at the listener.
    pub peer_id: String,
    /// Which end of it is here.
    pub side: Side,
    /// The site of this host.
    pub site: Arc<SiteName>,
    /// Name of the listener, where it is here.
    pub entity: Arc<str>,
    /// Routing key.
    pub routing_key: Arc<str>,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// Who serves it.
    pub served: Served,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Option<Timestamp>,
    /// How long it took, or has taken so far.
    pub duration: Duration,
    /// Bytes from client to server.
    pub sent: u64,
    /// Bytes from server to client.
    pub received: u64,
    /// Time until a server was connected.
    pub opened: Option<Duration>,
    /// Time until the first byte of the server.
    pub answered: Option<Duration>,
    /// How it ended.
    pub ending: Option<Ending>,
    /// Requests on it that are over.
    pub requests: u64,
}

/// A connection, for the worker that carries it. It is remembered as ended when this is dropped, if
/// not before.
#[derive(Debug)]
pub struct Entry {
    ledger: Ledger,
    worker: usize,
    n: u64,
    flow: Arc<Flow>,
    service: OnceCell<Arc<Service>>,
    ending: Cell<Option<Ending>>,
    finished: Cell<bool>,
}

impl Entry {
    pub(super) fn new(ledger: Ledger, worker: usize, n: u64, flow: Arc<Flow>) -> Self {
        Self {
            ledger,
            worker,
            n,
            flow,
            service: OnceCell::new(),
            ending: Cell::new(None),
            finished: Cell::new(false),
        }
    }

    /// Its identity.
    pub fn id(&self) -> &str {
        &self.flow.id
    }

    /// So many bytes were read from the socket here.
    pub fn read(&self, n: usize) {
        self.moved(&self.flow.read, |s| &s.read, Side::Connector, n);
    }

    /// So many bytes were written to the socket here.
    pub fn wrote(&self, n: usize) {
        self.moved(&self.flow.wrote, |s| &s.wrote, Side::Listener, n);
    }

    /// `answers`: the side at which these bytes are the server's.
    fn moved(&self, cell: &AtomicU64, of: fn(&Service) -> &AtomicU64, answers: Side, n: usize) {
        if n == 0 {
            return;
        }
        if self.flow.begin.side == answers && cell.load(Ordering::Relaxed) == 0 {
            self.flow.mark(&self.flow.answered);
        }
        add(cell, n as u64);
        if let Some(service) = self.service.get() {
            add(of(service), n as u64);
        }
    }

    /// A server is looked for by this routing key.
    pub fn tries(&self, routing_key: &Arc<str>) {
        self.flow
            .with(|detail| detail.routing_key = routing_key.clone());
    }

    /// It has a server.
    pub fn served(&self, served: Served) {
        self.flow.mark(&self.flow.opened);
        let there = served.site.clone();
        let routing_key = self.flow.with(|detail| {
            detail.served = Some(served);
            detail.routing_key.clone()
        });
        self.count(routing_key, there);
        self.ledger.known(self.worker, &self.flow);
    }

    fn count(&self, routing_key: Arc<str>, there: SiteName) {
        let key = ServiceKey {
            side: self.flow.begin.side,
            here: self.flow.begin.site.clone(),
            routing_key,
            there,
        };
        if self.service.get().is_none()
            && let Some(service) = self.ledger.count(self.worker, key)
        {
            add(&service.read, self.flow.read.load(Ordering::Relaxed));
            add(&service.wrote, self.flow.wrote.load(Ordering::Relaxed));
            drop(self.service.set(service));
        }
    }

    /// A request on it is over.
    pub fn exchanged(&self, exchange: Exchange) {
        self.settle();
        if let Some(service) = self.service.get() {
            service.asked(&exchange);
        }
        add(&self.flow.requests, 1);
        self.ledger.exchanged(self.worker, &self.flow, exchange);
    }

    /// It is not observed any further.
    pub fn unseen(&self, why: Unseen) {
        tracing::debug!(
            id = self.flow.id,
            why = why.as_str(),
            "not observed any further"
        );
        self.ledger.unseen(why);
    }

    /// A connection without a server is counted for its routing key alone.
    fn settle(&self) {
        if self.service.get().is_none() {
            let key = self.flow.with(|detail| detail.routing_key.clone());
            self.count(key, SiteName::default());
        }
    }

    /// Why it ends. What is said first is the reason for the rest.
    pub fn end(&self, ending: Ending) {
        if self.ending.get().is_none() {
            self.ending.set(Some(ending));
        }
    }

    /// The program at the socket here has reset it.
    pub fn here(&self) {
        self.end(match self.flow.begin.side {
            Side::Listener => Ending::ResetByClient,
            Side::Connector => Ending::ResetByServer,
        });
    }

    /// The other end has reset it.
    pub fn there(&self) {
        self.end(match self.flow.begin.side {
            Side::Listener => Ending::ResetByServer,
            Side::Connector => Ending::ResetByClient,
        });
    }

    /// It has ended.
    pub fn finish(&self) {
        if self.finished.replace(true) {
            return;
        }
        let served = self.flow.with(|detail| detail.served.is_some());
        self.settle();
        let ending = self.ending.get().unwrap_or(match served {
            // Its task was dropped with the worker.
            true => Ending::Removed,
            false => Ending::Refused,
        });
        if let Some(service) = self.service.get() {
            add(&service.closed, 1);
        }
        let end = (Timestamp::now(), self.flow.since.elapsed(), ending);
        self.flow.with(|detail| detail.end = Some(end));
        self.ledger.end(self.worker, self.n);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.finish();
    }
}
