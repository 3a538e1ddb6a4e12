//! What workers know of a site: an immutable snapshot, replaced as a whole.

use super::{
    conn::ConnKey,
    ends::{BackTls, Failures, ProxyProtocol, Trouble},
    ledger::SiteName,
    policy::Sites,
};
use crate::{model::Observer, router::Routes};
use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};

/// Where a connector's server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetHost {
    /// An address.
    Ip(IpAddr),
    /// A name, looked up for each connection.
    Name(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for TargetHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connector's server, with what is in use of it.
#[derive(Debug)]
pub struct ConnectorTarget {
    /// Name within this process.
    pub id: u64,
    /// Name of the resource.
    pub name: String,
    /// Host.
    pub host: TargetHost,
    /// Port.
    pub port: u16,
    /// Connections to it are accelerated.
    pub accelerated: AtomicBool,
    /// How to speak TLS with it.
    pub tls: Option<Arc<BackTls>>,
    /// How to tell it of its clients.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whose clients it serves; none for everybody's.
    pub sites: Option<Arc<Sites>>,
    /// Why the last connection to it failed.
    pub trouble: Trouble,
    /// Connections to it that failed.
    pub failures: Failures,
    /// Open connections.
    pub in_use: AtomicU32,
    /// Connections so far.
    pub connections: AtomicU64,
}

/// What workers know of a listener.
#[derive(Clone, Debug)]
pub struct ListenerView {
    /// Its name.
    pub name: Arc<str>,
    /// What is looked for in its traffic.
    pub observer: Observer,
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct SiteView {
    /// The site itself.
    pub site: Arc<SiteName>,
    /// What tells of it, as records name it.
    pub source: Arc<str>,
    /// Its listeners.
    pub listeners: HashMap<u64, ListenerView>,
    /// Routes.
    pub routes: Arc<Routes>,
    /// Connectors by routing key.
    pub connectors: HashMap<String, Vec<Arc<ConnectorTarget>>>,
    /// Connectors that are not well: they keep the connections they have, and get no others.
    pub resting: Vec<Arc<ConnectorTarget>>,
    /// Routing keys with a connector that is to be told where clients come from.
    pub origins: HashSet<String>,
    /// Workers that have a connection for streams on a link.
    pub workers: HashMap<ConnKey, Vec<usize>>,
}

impl SiteView {
    /// All connectors.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<ConnectorTarget>> {
        self.connectors.values().flatten().chain(&self.resting)
    }

    /// A routing key has a connector, here or elsewhere.
    pub fn reaches(&self, key: &str) -> bool {
        let route = self.routes.addresses.get(key);
        route.is_some_and(|r| !r.remotes.is_empty()) || self.connectors.contains_key(key)
    }

    /// A worker that carries streams on this link.
    pub fn worker_of(&self, link: ConnKey) -> Option<usize> {
        self.workers.get(&link)?.first().copied()
    }
}
