//! What workers know of a site: an immutable snapshot, replaced as a whole.

use super::conn::ConnKey;
use crate::router::Routes;
use std::{
    collections::HashMap,
    net::IpAddr,
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
    /// Open connections.
    pub in_use: AtomicU32,
    /// Connections so far.
    pub connections: AtomicU64,
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct SiteView {
    /// Routes.
    pub routes: Arc<Routes>,
    /// Connectors by routing key.
    pub connectors: HashMap<String, Vec<Arc<ConnectorTarget>>>,
    /// Workers that have a connection for streams on a link.
    pub workers: HashMap<ConnKey, Vec<usize>>,
}

impl SiteView {
    /// All connectors.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<ConnectorTarget>> {
        self.connectors.values().flatten()
    }

    /// A worker that carries streams on this link.
    pub fn worker_of(&self, link: ConnKey) -> Option<usize> {
        self.workers.get(&link)?.first().copied()
    }
}
