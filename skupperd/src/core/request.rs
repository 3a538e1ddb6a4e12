//! What other threads can ask of the core: each request is a type, with the way back for its answer.

use super::site::{
    AccessSpec, ConnectorSpec, ConnectorState, IncomingLink, LinkState, ListenerChange,
    ListenerState, SiteSpec,
};
use crate::{link::handshake::RevokedCertificates, peering::LinkSpec, router::NetworkRouter};
use std::{collections::BTreeMap, net::TcpListener};
use tokio::sync::oneshot;

/// Where an answer goes. Dropped without one if the site of the request does not exist.
pub type Reply<T> = oneshot::Sender<T>;

pub enum CoreRequest {
    /// Answer when the event loop comes round.
    Ping(Reply<()>),
    /// Say whether the kernel steers clients.
    IsSteering(Reply<bool>),
    /// All resources are applied: end what an earlier process left and no listener claims. Answered
    /// when that is done and all other listeners are open.
    ReleaseUnclaimed(Reply<()>),
    /// Refuse new clients, and leave no socket to another process.
    RefuseClients(Reply<()>),
    /// Start a site. The answer is its id within this process.
    AddSite(Box<SiteSpec>, Reply<u32>),
    /// End a site with everything that is on it.
    RemoveSite(u32, Reply<()>),
    Site(u32, SiteRequest),
}

pub enum SiteRequest {
    /// Dial a link, or change what it dials.
    SetLink(Box<LinkSpec>, Reply<()>),
    RemoveLink(String, Reply<()>),
    /// Accept links on the sockets of a RouterAccess.
    SetAccess(AccessSpec, Reply<()>),
    /// Stop accepting links for a RouterAccess.
    RemoveAccess {
        name: String,
        /// End the links that came in by it.
        cut: bool,
        reply: Reply<()>,
    },
    /// Accept AMQP clients of this host on this socket; `None`: on none.
    SetLocalAmqp(Option<TcpListener>, Reply<()>),
    /// Accept these certificates no more, and end the links that use them.
    SetRevoked(RevokedCertificates, Reply<()>),
    /// Steer and accelerate listeners and connectors that have no setting of their own.
    SetKernelFeatures {
        steering: bool,
        acceleration: bool,
        reply: Reply<()>,
    },
    /// Add, change and remove listeners in one step: an address that goes from one to another always
    /// has an owner, and a thousand listeners are one change of the network.
    ChangeListeners(Vec<ListenerChange>, Reply<()>),
    /// Add a connector with one server, or change it.
    SetConnector(Box<ConnectorSpec>, Reply<()>),
    /// Set all servers of a connector. Answers whether connections are open to servers that it no
    /// longer has.
    SetServers {
        name: String,
        servers: Vec<ConnectorSpec>,
        reply: Reply<bool>,
    },
    /// Remove a connector; its connections end.
    RemoveConnector(String, Reply<()>),
    /// Describe the site for the statuses of its resources.
    Describe(Reply<SiteState>),
}

/// The state of a running site, for statuses.
#[derive(Default)]
pub struct SiteState {
    /// Links that are dialled, by name.
    pub links: BTreeMap<String, LinkState>,
    pub listeners: BTreeMap<String, ListenerState>,
    pub connectors: BTreeMap<String, ConnectorState>,
    /// Every router that is known.
    pub network: Vec<NetworkRouter>,
    /// Links that came in and are up.
    pub incoming: Vec<IncomingLink>,
}

/// Sends an answer. The requester may be gone: the daemon is stopping.
pub(super) fn answer<T>(reply: Reply<T>, value: T) {
    let _ = reply.send(value);
}
