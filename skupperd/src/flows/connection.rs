//! The record of one connection, written by its worker and read by others.

mod entry;

pub use entry::FlowWriter;

use super::SiteName;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The end of a connection on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionSide {
    /// The client's.
    Listener,
    /// The server's, of a client at another site.
    Connector,
}

impl ConnectionSide {
    /// Bytes from client to server and back, of those that were read from the socket here and
    /// written to it.
    pub(super) fn client_and_server_bytes(self, read: u64, wrote: u64) -> (u64, u64) {
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
    /// Reset by the client, or by a proxy before it.
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
    /// Text for commands and JSON.
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
pub struct FlowStart {
    pub side: ConnectionSide,
    /// Name of the vanflow source that reports it.
    pub source: Arc<str>,
    /// The site of this host.
    pub site: Arc<SiteName>,
    /// Name of the listener; of a connector it is known later.
    pub entity: Arc<str>,
    /// Routing key, as far as it is known.
    pub routing_key: Arc<str>,
    pub client: Option<SocketAddr>,
    /// At a connector: the identity of the record at the listener.
    pub peer_id: String,
}

/// Who serves a connection, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerInfo {
    /// The site of the other end.
    pub site: SiteName,
    pub connector: String,
    pub server: String,
    /// Local address of the connection to it.
    pub proxy: String,
    /// Routers on the way, from the other end.
    pub trace: Vec<String>,
}

#[derive(Debug)]
struct FlowDetail {
    routing_key: Arc<str>,
    server: Option<ServerInfo>,
    end: Option<(Timestamp, Duration, Ending)>,
}

#[derive(Debug)]
pub(super) struct FlowState {
    id: String,
    begin: FlowStart,
    start: Timestamp,
    since: Instant,
    read: AtomicU64,
    wrote: AtomicU64,
    /// Time until it was served and until the first byte of the server, in microseconds and one more;
    /// 0: not yet.
    opened: AtomicU64,
    answered: AtomicU64,
    requests: AtomicU64,
    detail: Mutex<FlowDetail>,
}

impl FlowState {
    pub(super) fn new(n: u64, begin: FlowStart) -> Self {
        Self {
            id: format!("{}:{n}", begin.source),
            start: Timestamp::now(),
            since: Instant::now(),
            read: AtomicU64::new(0),
            wrote: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            detail: Mutex::new(FlowDetail {
                routing_key: begin.routing_key.clone(),
                server: None,
                end: None,
            }),
            begin,
        }
    }

    /// Start on the monotonic clock.
    pub(super) fn started_at(&self) -> Instant {
        self.since
    }

    /// It is one of this namespace.
    pub(super) fn is_of(&self, namespace: &str) -> bool {
        self.begin.site.namespace == namespace
    }

    pub(super) fn side(&self) -> ConnectionSide {
        self.begin.side
    }

    /// Name of the vanflow source.
    pub(super) fn source(&self) -> &str {
        &self.begin.source
    }

    pub(super) fn is_of_source(&self, source: &str) -> bool {
        &*self.begin.source == source
    }

    /// The identity of a record beside it.
    pub(super) fn identity(&self, n: u64) -> String {
        format!("{}:{n}", self.begin.source)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.with(|detail| detail.end.is_some())
    }

    fn with<T>(&self, f: impl FnOnce(&mut FlowDetail) -> T) -> T {
        f(&mut self.detail.lock())
    }

    fn mark(&self, cell: &AtomicU64) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        cell.store(micros + 1, Ordering::Relaxed);
    }

    pub(super) fn record(&self) -> ConnectionRecord {
        let time = |cell: &AtomicU64| {
            let micros = cell.load(Ordering::Relaxed).checked_sub(1);
            micros.map(Duration::from_micros)
        };
        let side = self.begin.side;
        let read = self.read.load(Ordering::Relaxed);
        let (sent, received) =
            side.client_and_server_bytes(read, self.wrote.load(Ordering::Relaxed));
        let (routing_key, server, end) =
            self.with(|d| (d.routing_key.clone(), d.server.clone(), d.end));
        ConnectionRecord {
            id: self.id.clone(),
            peer_id: self.begin.peer_id.clone(),
            side,
            site: self.begin.site.clone(),
            entity: self.begin.entity.clone(),
            routing_key,
            client: self.begin.client,
            server: server.unwrap_or_default(),
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
pub struct ConnectionRecord {
    pub id: String,
    /// At a connector: the identity of the record at the listener.
    pub peer_id: String,
    pub side: ConnectionSide,
    /// The site of this host.
    pub site: Arc<SiteName>,
    /// Name of the listener, where it is here.
    pub entity: Arc<str>,
    pub routing_key: Arc<str>,
    pub client: Option<SocketAddr>,
    /// Who serves it.
    pub server: ServerInfo,
    pub start: Timestamp,
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
    pub ending: Option<Ending>,
    /// Requests on it that are over.
    pub requests: u64,
}
