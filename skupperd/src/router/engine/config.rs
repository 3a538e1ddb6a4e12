//! The configuration of a router, its outputs, and its view of the network.

use crate::router::routes::ConnId;
use bytes::Bytes;
use std::{collections::BTreeMap, time::Duration};

/// A router's identity and timers.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    pub id: String,
    /// Start time in seconds since the epoch; distinguishes a restart from a pause.
    pub instance: i64,
    pub hello_interval: Duration,
    /// Silence after which a neighbour is lost.
    pub hello_max_age: Duration,
    pub ra_interval: Duration,
    /// Interval between RAs while the topology changes.
    pub ra_interval_flux: Duration,
    /// Silence after which a remote router's link state is void.
    pub remote_ls_max_age: Duration,
    /// How long addresses of an unreachable router are kept.
    pub unreachable_holdoff: Duration,
    /// Of an edge: the name of its mesh, which is of this edge alone. `None`: an interior router.
    pub mesh: Option<String>,
}

impl RouterConfig {
    /// An interior router with the timers of skupper-router (`router` in its `skrouter.json`).
    pub fn new(id: impl Into<String>, instance: i64) -> Self {
        Self {
            id: id.into(),
            instance,
            hello_interval: Duration::from_secs(1),
            hello_max_age: Duration::from_secs(3),
            ra_interval: Duration::from_secs(30),
            ra_interval_flux: Duration::from_secs(4),
            remote_ls_max_age: Duration::from_secs(60),
            unreachable_holdoff: Duration::from_secs(1),
            mesh: None,
        }
    }
}

/// What the driver has to do or know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this message on a link's control connection.
    Control {
        link: ConnId,
        /// The whole message.
        message: Bytes,
    },
    /// `Router::routes` returns a new snapshot.
    RoutesChanged,
    /// The neighbour and this router hear each other.
    NeighbourUp { link: ConnId, id: String },
    /// The neighbour is silent, or the link has closed.
    NeighbourLost { link: ConnId, id: String },
    /// Another router uses our id.
    DuplicateId {
        /// The link it was heard on.
        link: ConnId,
    },
    /// A HELLO had another id than the connection of its link was opened with. It was ignored.
    WrongId { link: ConnId, id: String },
    /// A router has restarted: what it announced before is void.
    Restarted { link: ConnId, id: String },
    /// A message over another link claims that a neighbour has restarted. It was ignored.
    WrongInstance { link: ConnId, id: String },
    /// There is no room for what came over a link about this router.
    OverBudget { link: ConnId, id: String },
    /// Tell an edge whether an address has consumers.
    Reachable {
        edge: ConnId,
        address: String,
        reachable: bool,
    },
}

/// A router as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRouter {
    pub id: String,
    /// Sum of link costs. `None`: not reachable.
    pub cost: Option<u32>,
    /// Neighbour on the path there.
    pub next_hop: Option<String>,
    /// Its neighbours with costs.
    pub peers: BTreeMap<String, u32>,
    /// Mobile addresses with consumers there.
    pub addresses: Vec<String>,
}
