//! One router that is connected: its control connection, with the data connections of its trunk.

use crate::{
    core::site::{effects::Effects, identities::IdOwner},
    link::{
        conn::ConnKey,
        handshake::Established,
        names::{ACCESS_ID, CONNECTION_TRUNKING, LINK_INSTANCE},
    },
    messages::CloseReason,
    model::Role,
    pki::CertificateIdentity,
    router::{OwnerId, is_id},
    sys::clock,
};
use jiff::Timestamp;
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

/// Longest name of a remote port or link that is kept, in bytes.
const MAX_NAME: usize = 64;

/// Origin of a control connection: the link or access, role, cost and group.
pub(in crate::core) struct PeerOrigin {
    pub(in crate::core) role: Role,
    pub(in crate::core) cost: u32,
    /// Name of the link, when we dialled.
    pub(in crate::core) link: Option<String>,
    /// Name of the RouterAccess it came in on.
    pub(in crate::core) access: Option<String>,
    /// Correlator of the group, which data connections repeat.
    pub(in crate::core) correlator: Option<String>,
}

pub(in crate::core) struct Peer {
    pub(in crate::core) remote: String,
    /// Identity of the remote RouterAccess, as its records name it; of a link that is dialled.
    pub(in crate::core) remote_access: Option<String>,
    /// The certificate that it presented.
    pub(in crate::core) identity: Option<CertificateIdentity>,
    /// TLS group of its key exchange.
    pub(in crate::core) key_exchange: &'static str,
    /// Whom its id belongs to.
    pub(super) id_owner: IdOwner,
    /// Whose budget it counts for, as the router knows it.
    pub(in crate::core) budget_owner: OwnerId,
    pub(in crate::core) cost: u32,
    /// Name of the link, when we dialled.
    pub(in crate::core) link: Option<String>,
    /// Name of the RouterAccess it came in on.
    pub(in crate::core) access: Option<String>,
    pub(in crate::core) addr: SocketAddr,
    pub(super) correlator: Option<String>,
    /// Which of the peer's links it belongs to, when the peer says so.
    pub(super) instance: Option<String>,
    /// It is an edge, or we are its edge.
    pub(in crate::core) is_edge: bool,
    pub(super) trunking: bool,
    pub(super) control_ready: bool,
    /// It was announced to the router.
    pub(in crate::core) announced: bool,
    pub(super) opened: Instant,
    /// Since when it waits for a data connection, if it has none.
    pub(super) without_data: Instant,
    /// Data connections and their workers.
    pub(super) data: BTreeMap<ConnKey, usize>,
    /// The control connection carries streams.
    pub(super) on_control: bool,
    pub(super) worker: usize,
    /// Whether there is two-way HELLO contact.
    pub(in crate::core) is_neighbour: bool,
    pub(in crate::core) up_since: Option<Timestamp>,
    /// Another connection of the link takes its place once that is up.
    pub(super) superseded: bool,
    /// It ends when its streams have.
    pub(in crate::core) retired: bool,
}

impl Peer {
    pub(in crate::core) fn new(
        origin: PeerOrigin,
        established: &Established,
        worker: usize,
    ) -> Self {
        let open = &established.open;
        let name = |property| {
            let name = open.property(property).and_then(|name| name.as_str());
            let name = name.filter(|name| name.len() <= MAX_NAME && is_id(name));
            name.map(str::to_owned)
        };
        Self {
            remote_access: name(ACCESS_ID),
            instance: name(LINK_INSTANCE),
            id_owner: IdOwner::of(origin.link.as_deref(), established.identity.as_ref()),
            identity: established.identity.clone(),
            key_exchange: established.key_exchange,
            trunking: open.offers(CONNECTION_TRUNKING),
            worker,
            ..Self::of(origin, open.container_id.clone(), established.peer)
        }
    }

    /// A peer with defaults for everything that only its `open` contains.
    pub(in crate::core) fn of(origin: PeerOrigin, remote: String, addr: SocketAddr) -> Self {
        let is_edge = origin.role == Role::Edge;
        Self {
            remote,
            remote_access: None,
            identity: None,
            key_exchange: "",
            id_owner: IdOwner::of(origin.link.as_deref(), None),
            budget_owner: 0,
            cost: origin.cost,
            link: origin.link,
            access: origin.access,
            addr,
            correlator: origin.correlator,
            instance: None,
            is_edge,
            trunking: false,
            control_ready: false,
            announced: false,
            opened: clock::now(),
            without_data: clock::now(),
            data: BTreeMap::new(),
            // An edge has no other connection.
            on_control: is_edge,
            worker: 0,
            is_neighbour: false,
            up_since: None,
            superseded: false,
            retired: false,
        }
    }

    pub(super) fn is_incoming(&self) -> bool {
        self.link.is_none()
    }

    pub(super) fn is_of_link(&self, name: &str) -> bool {
        self.link.as_deref() == Some(name)
    }

    pub(super) fn close(&self, key: ConnKey, reason: CloseReason, effects: &mut Effects) {
        for key in self.data.keys().chain([&key]) {
            effects.close(*key, reason);
        }
    }
}
