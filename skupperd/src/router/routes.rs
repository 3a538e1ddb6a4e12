//! The immutable snapshot of routes that data-plane workers choose by.

use super::paths::Origins;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

/// A link to a neighbour or an edge, by the driver's key of its control connection.
pub type ConnId = u64;

/// How deliveries to an address are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// To every consumer.
    Multicast,
    /// To one, the nearest.
    Closest,
    /// To one, by load and distance. What TCP services use.
    Balanced,
}

impl Treatment {
    /// By skupper-router's numbers (`qd_address_treatment_t`).
    pub fn from_wire(n: i64) -> Self {
        match n {
            0 | 1 => Self::Multicast,
            3 => Self::Balanced,
            _ => Self::Closest,
        }
    }

    /// By the same numbers.
    pub fn to_wire(self) -> i64 {
        match self {
            Self::Multicast => 1,
            Self::Closest => 2,
            Self::Balanced => 3,
        }
    }

    /// The treatment of an address by its name, as Skupper configures routers: `mc` is multicast.
    pub fn of(address: &str) -> Self {
        if address == "mc" || address.starts_with("mc/") || address.starts_with("mc.") {
            Self::Multicast
        } else {
            Self::Balanced
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRoute {
    pub next_hop: ConnId,
    /// The neighbour there.
    pub next_hop_id: String,
    /// Sum of link costs.
    pub cost: u32,
    /// Routers whose messages for it this router passes on; its own it always may.
    pub valid_origins: Origins,
}

/// A router or an edge that has consumers of an address.
#[derive(Clone, Debug)]
pub struct Remote {
    pub router: Arc<str>,
    /// Sum of link costs to it.
    pub cost: u32,
    pub next_hop: ConnId,
    /// An edge that is served here.
    pub edge: bool,
    valid_origins: Origins,
    outstanding: Arc<AtomicU32>,
}

/// The consumers of an address on the network.
#[derive(Clone, Debug)]
pub struct AddressRoute {
    pub treatment: Treatment,
    /// Consumers on this router.
    pub local: bool,
    /// Other routers with consumers, nearest first.
    pub remotes: Vec<Remote>,
    /// Where a search begins: equal candidates take turns.
    rotation: Arc<AtomicUsize>,
}

/// Routes of this router to all other routers, addresses and edges.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    pub self_id: String,
    /// Other routers that can be reached.
    pub routers: Arc<BTreeMap<String, RouterRoute>>,
    pub addresses: HashMap<Arc<str>, Arc<AddressRoute>>,
    /// Links towards edges, by id.
    pub edges: Arc<HashMap<String, ConnId>>,
    /// The mesh of this edge. `None`: an interior router.
    pub mesh: Option<Arc<str>>,
    /// Of an edge: the link for everything that is not local.
    pub uplink: Option<ConnId>,
}

/// A consumer on this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// The caller's name for it.
    pub id: u64,
    pub in_use: u32,
}

/// Candidates that a delivery must not go to.
#[derive(Clone, Debug, Default)]
pub struct Exclusions {
    /// Links that the delivery came from or that released it.
    pub links: Vec<ConnId>,
    /// Local consumers that released it.
    pub locals: Vec<u64>,
    /// All edges that are served here.
    pub edges: bool,
    /// All other routers.
    pub routers: bool,
}

/// Counts an outstanding delivery towards a next hop for as long as it lives.
#[derive(Debug)]
pub struct OutstandingDelivery(Arc<AtomicU32>);

impl Drop for OutstandingDelivery {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The consumer chosen for a delivery.
#[derive(Debug)]
pub enum Choice {
    /// A consumer on this router.
    Local(u64),
    /// A consumer of another router or of an edge.
    Remote {
        link: ConnId,
        /// The router that has the consumer.
        router: Arc<str>,
        /// Held until the delivery is settled.
        outstanding: OutstandingDelivery,
    },
    /// There is no candidate.
    None,
}

impl Remote {
    pub(super) fn new(router: Arc<str>, route: &RouterRoute, outstanding: Arc<AtomicU32>) -> Self {
        Self {
            router,
            cost: route.cost,
            next_hop: route.next_hop,
            edge: false,
            valid_origins: route.valid_origins.clone(),
            outstanding,
        }
    }

    /// An edge that is served here: as near as a consumer of this router.
    pub(super) fn edge(id: Arc<str>, link: ConnId, outstanding: Arc<AtomicU32>) -> Self {
        Self {
            edge: true,
            ..Self::uplink(id, 0, link, outstanding)
        }
    }

    /// Everything beyond an edge's interior router.
    pub(super) fn uplink(
        router: Arc<str>,
        cost: u32,
        next_hop: ConnId,
        outstanding: Arc<AtomicU32>,
    ) -> Self {
        Self {
            router,
            cost,
            next_hop,
            edge: false,
            valid_origins: Origins::default(),
            outstanding,
        }
    }

    fn eligible(&self, origin: Option<&str>, exclude: &Exclusions) -> bool {
        let excluded = match self.edge {
            true => exclude.edges,
            false => exclude.routers,
        };
        // An edge passes nothing on: any origin is valid.
        let is_valid = || origin.is_none_or(|origin| self.valid_origins.contains(origin));
        !excluded && !exclude.links.contains(&self.next_hop) && (self.edge || is_valid())
    }

    fn take(&self) -> Choice {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Choice::Remote {
            link: self.next_hop,
            router: self.router.clone(),
            outstanding: OutstandingDelivery(self.outstanding.clone()),
        }
    }
}

impl AddressRoute {
    pub(super) fn new(treatment: Treatment, rotation: Arc<AtomicUsize>) -> Self {
        Self {
            treatment,
            local: false,
            remotes: Vec::new(),
            rotation,
        }
    }

    /// Chooses one consumer. `origin` is the router where the delivery entered the network; None
    /// when that is this one.
    pub fn choose(
        &self,
        locals: &[LocalCandidate],
        origin: Option<&str>,
        exclude: &Exclusions,
    ) -> Choice {
        let start = self.rotation.fetch_add(1, Ordering::Relaxed);
        let mut local: Option<LocalCandidate> = None;
        for i in 0..locals.len() {
            let candidate = locals[(start + i) % locals.len()];
            let better = local.is_none_or(|best| {
                self.treatment == Treatment::Balanced && candidate.in_use < best.in_use
            });
            if better && !exclude.locals.contains(&candidate.id) {
                local = Some(candidate);
            }
        }
        let mut best: Option<(&Remote, u64)> = None;
        for i in 0..self.remotes.len() {
            let remote = &self.remotes[(start + i) % self.remotes.len()];
            if !remote.eligible(origin, exclude) {
                continue;
            }
            let value = match self.treatment {
                // Load and distance are added: a cost is a number of connections.
                Treatment::Balanced => {
                    u64::from(remote.outstanding.load(Ordering::Relaxed)) + u64::from(remote.cost)
                }
                _ => u64::from(remote.cost),
            };
            if best.is_none_or(|(_, lowest)| value < lowest) {
                best = Some((remote, value));
            }
        }
        match (local, best) {
            (Some(local), Some((remote, value)))
                if self.treatment == Treatment::Balanced && value < u64::from(local.in_use) =>
            {
                remote.take()
            }
            (Some(local), _) => Choice::Local(local.id),
            (None, Some((remote, _))) => remote.take(),
            (None, None) => Choice::None,
        }
    }

    /// Edges that are served here are among its consumers.
    pub fn has_edges(&self) -> bool {
        self.remotes.iter().any(|remote| remote.edge)
    }

    /// Links a multicast goes out on: each next hop once, for routers that the origin is valid for. Of
    /// the core, not of workers: the tree of the origin may have to be computed.
    pub fn multicast_links(&self, origin: Option<&str>, exclude: &Exclusions) -> BTreeSet<ConnId> {
        if let (Some(origin), Some(remote)) = (origin, self.remotes.iter().find(|r| !r.edge)) {
            remote.valid_origins.compute(origin);
        }
        let eligible = self.remotes.iter().filter(|r| r.eligible(origin, exclude));
        eligible.map(|r| r.next_hop).collect()
    }
}

impl Routes {
    pub fn link_towards(&self, router: &str) -> Option<ConnId> {
        let known = self.routers.get(router).map(|r| r.next_hop);
        known.or(self.uplink)
    }

    pub fn link_towards_edge(&self, id: &str) -> Option<ConnId> {
        self.edges.get(id).copied().or(self.uplink)
    }

    /// The prefix of addresses that belong to this router alone.
    pub fn own_prefix(&self) -> String {
        let id = &self.self_id;
        match self.mesh {
            Some(_) => format!("amqp:/_edge/{id}/"),
            None => format!("amqp:/_topo/0/{id}/"),
        }
    }
}

/// The forms of an address in the `to` of a message (`iterator.c` of skupper-router).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedAddress<'a> {
    /// For the router that receives it: `_local/…`.
    Local(&'a str),
    /// For a router: `_topo/<area>/<id>/…`.
    Router { id: &'a str, rest: &'a str },
    /// For every router: `_topo/<area>/all/…`.
    All(&'a str),
    /// For an edge: `_edge/<id>/…`.
    Edge { id: &'a str, rest: &'a str },
    /// A mobile address: a routing key.
    Mobile(&'a str),
}

impl<'a> ParsedAddress<'a> {
    pub fn parse(to: &'a str) -> Self {
        let path = to.strip_prefix("amqp:").unwrap_or(to);
        let path = match path.strip_prefix("//") {
            // An authority goes up to the next slash and means nothing here.
            Some(authority) => authority.split_once('/').map_or("", |(_, path)| path),
            None => path.trim_start_matches('/'),
        };
        let two = |rest: &'a str| rest.split_once('/').unwrap_or((rest, ""));
        match two(path) {
            ("_local", rest) => Self::Local(rest),
            ("_topo", rest) => match two(two(rest).1) {
                ("all", rest) => Self::All(rest),
                (id, rest) => Self::Router { id, rest },
            },
            ("_edge", rest) => {
                let (id, rest) = two(rest);
                Self::Edge { id, rest }
            }
            _ => Self::Mobile(path),
        }
    }
}
