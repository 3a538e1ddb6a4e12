//! The state machine of one router. See [`super`] for what it owns and who calls it.
//!
//! [`Router`] holds one part for each subject. A part owns its fields; its methods take what they need
//! and return effects, and only [`Router`] turns effects into messages and outputs:
//!
//! - `neighbours`: our links, the neighbours on them, our own link state;
//! - `topology`: the link states of others, the paths and trees that follow from them;
//! - `addresses`: mobile addresses, announced by us and by others;
//! - `edges`: the edges that are served here; `uplink`: of an edge, its interior router;
//! - `timers`: when HELLO and RA are due; `budget`: what others may make us keep and do;
//! - `changes`: what the routes do not yet follow; `table`: the routes themselves.

mod addresses;
mod budget;
mod changes;
mod config;
mod counters;
mod edges;
mod neighbours;
mod network;
mod receive;
mod route_table;
mod send;
mod timers;
mod topology;
mod uplink;

use super::routes::{ConnId, Routes, Treatment};
use addresses::Addresses;
pub use budget::OwnerId;
use changes::Changes;
pub use config::{NetworkRouter, Output, RouterConfig};
use edges::Edges;
pub use edges::TooMany;
use neighbours::{LostNeighbour, Neighbours};
pub use route_table::RoutingWork;
use route_table::{RouteInputs, RouteTable};
use std::{collections::VecDeque, sync::Arc, time::Instant};
use timers::Timers;
use topology::Topology;
use uplink::{Interior, Uplink};

/// One router of a network, interior or edge.
#[derive(Debug)]
pub struct Router {
    cfg: RouterConfig,
    /// The time of the last call that had one.
    now: Instant,
    neighbours: Neighbours,
    topology: Topology,
    addresses: Addresses,
    edges: Edges,
    uplink: Uplink,
    timers: Timers,
    /// Link states or addresses of other routers may have to be requested.
    requests_due: bool,
    changes: Changes,
    table: RouteTable,
    outputs: VecDeque<Output>,
}

impl Router {
    pub fn new(cfg: RouterConfig, now: Instant) -> Self {
        Self {
            now,
            neighbours: Neighbours::default(),
            topology: Topology::default(),
            addresses: Addresses::default(),
            edges: Edges::default(),
            uplink: Uplink::default(),
            timers: Timers::new(&cfg, now),
            requests_due: false,
            changes: Changes::default(),
            table: RouteTable::new(&cfg.id, cfg.mesh.as_deref()),
            cfg,
            outputs: VecDeque::new(),
        }
    }

    pub fn id(&self) -> &str {
        &self.cfg.id
    }

    // ---- links ----

    /// A link's control connection is up. Several links to one neighbour are allowed.
    pub fn add_link(&mut self, link: ConnId, cost: u32, now: Instant) {
        self.now = now;
        self.neighbours.add_link(link, cost);
        self.send_hello(link);
    }

    /// Only the router with this id, from the open of the connection, may send on a link. What comes over
    /// all links of an owner has one budget.
    pub fn bind_link(&mut self, link: ConnId, id: &str, owner: OwnerId) {
        self.neighbours.bind(link, id, owner);
    }

    pub fn set_link_cost(&mut self, link: ConnId, cost: u32, now: Instant) {
        self.now = now;
        if self.neighbours.set_cost(link, cost) {
            self.neighbours_changed();
        }
    }

    /// A link's control connection has closed.
    pub fn remove_link(&mut self, link: ConnId, now: Instant) {
        self.now = now;
        if let Some(lost) = self.neighbours.remove_link(link) {
            self.neighbour_lost(lost);
        }
    }

    fn neighbour_lost(&mut self, LostNeighbour { link, id }: LostNeighbour) {
        self.outputs.push_back(Output::NeighbourLost { link, id });
        self.neighbours_changed();
    }

    fn neighbours_changed(&mut self) {
        // Even when costs stay the same another link may carry the traffic now.
        self.topology.neighbours_changed();
        if self.neighbours.update_link_state() {
            self.recompute();
            self.timers.enter_flux(self.now);
            self.send_ra();
        }
    }

    // ---- addresses ----

    /// A consumer of an address is on this router.
    pub fn add_consumer(&mut self, address: &str, treatment: Treatment) {
        self.addresses
            .add_consumer(address, treatment, &mut self.changes);
    }

    /// A consumer of an address is no longer on this router.
    pub fn remove_consumer(&mut self, address: &str) {
        self.addresses.remove_consumer(address, &mut self.changes);
    }

    // ---- edges that are served here ----

    /// A connection of an edge is open. It may be a spare one, without links, for a long time.
    pub fn add_edge(&mut self, conn: ConnId, id: &str) {
        self.edges.connect(conn, id);
    }

    /// A connection of an edge has closed, with all its links.
    pub fn remove_edge(&mut self, conn: ConnId) {
        self.set_edge_downlink(conn, false);
        if let Some(edge) = self.edges.disconnect(conn, &mut self.changes) {
            for address in edge.consumers().keys() {
                self.addresses.remove_consumer(address, &mut self.changes);
            }
        }
    }

    /// Sets whether deliveries to the edge's id are sent on this connection (`qd.router-edge-downlink`).
    pub fn set_edge_downlink(&mut self, conn: ConnId, downlink: bool) {
        let Some(id) = self.edges.set_downlink(conn, downlink, &mut self.changes) else {
            return;
        };
        if downlink {
            self.addresses.announce_edge(&id);
        } else {
            self.addresses.withdraw_edge(&id);
        }
    }

    /// Starts or stops telling an edge which of its addresses have consumers.
    pub fn set_edge_tracking(&mut self, conn: ConnId, tracks: bool) {
        self.edges.set_tracking(conn, tracks);
    }

    /// An edge receives from an address.
    pub fn add_edge_consumer(&mut self, conn: ConnId, address: &str) -> Result<(), TooMany> {
        if self.edges.add_consumer(conn, address)? {
            self.add_consumer(address, Treatment::of(address));
        }
        Ok(())
    }

    /// An edge has closed a link on which it received from an address.
    pub fn remove_edge_consumer(&mut self, conn: ConnId, address: &str) {
        if self.edges.remove_consumer(conn, address) {
            self.remove_consumer(address);
        }
    }

    /// An edge sends to an address and asks whether it has consumers.
    pub fn add_edge_producer(&mut self, conn: ConnId, address: &str) -> Result<(), TooMany> {
        self.edges.add_producer(conn, address)
    }

    /// An edge has closed a link on which it sent to an address.
    pub fn remove_edge_producer(&mut self, conn: ConnId, address: &str) {
        self.edges.remove_producer(conn, address);
    }

    fn notify_edges(&mut self) {
        let routes = self.table.routes();
        for change in self.edges.take_notifications(&self.addresses, routes) {
            self.outputs.push_back(Output::Reachable {
                edge: change.edge,
                address: change.address,
                reachable: change.reachable,
            });
        }
    }

    // ---- an edge's own uplink ----

    /// Of an edge: sets the connection to its interior router, or that there is none. `adverts`:
    /// addresses by which the interior router makes itself known.
    pub fn set_uplink(
        &mut self,
        active: Option<(ConnId, &str, u32)>,
        adverts: Vec<String>,
        now: Instant,
    ) {
        self.now = now;
        let interior = active.map(|(link, id, cost)| Interior {
            link,
            id: id.to_owned(),
            cost,
            adverts,
        });
        self.uplink.set(interior, now, &mut self.changes);
    }

    /// The interior router tells whether an address has consumers.
    pub fn set_reachable(&mut self, address: &str, reachable: bool) {
        self.uplink
            .set_reachable(address, reachable, &mut self.changes);
    }

    // ---- time ----

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Instant {
        let next = self.timers.next();
        let others = [
            self.uplink.next_timeout(),
            self.topology.next_timeout(self.now),
        ];
        others.into_iter().flatten().fold(next, Instant::min)
    }

    /// Sends the HELLOs and RAs that are due, and forgets silent neighbours and routers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.timers.take_hello(now) {
            self.expire();
            let links: Vec<ConnId> = self.neighbours.links().collect();
            links.into_iter().for_each(|link| self.send_hello(link));
        }
        if self.timers.is_ra_due(now) {
            self.send_ra();
        }
        self.uplink.expire(now, &mut self.changes);
        self.topology.compute_trees();
    }

    /// Once for each HELLO interval: forgets silent neighbours and routers, and repeats requests.
    fn expire(&mut self) {
        let now = self.now;
        for lost in self.neighbours.expire(now, self.cfg.hello_max_age) {
            self.neighbour_lost(lost);
        }
        self.topology.expire(now, self.cfg.remote_ls_max_age);
        self.recompute();
        self.send_requests();
        let hold = self.cfg.unreachable_holdoff;
        let neighbours = &self.neighbours;
        let is_link = |link| neighbours.has_link(link);
        for router in self.topology.expire_unreachable(now, hold, is_link) {
            let changes = &mut self.changes;
            if router.removed {
                self.addresses.remove(&router.id, changes);
            } else {
                self.addresses.clear(&router.id, changes);
            }
        }
    }

    // ---- results ----

    /// Recomputes the paths if the topology has changed.
    fn recompute(&mut self) {
        let (own, now) = (&self.cfg.id, self.now);
        if self.topology.recompute(own, &self.neighbours, now) {
            self.requests_due = true;
            self.changes.paths = true;
        }
    }

    /// Recomputes the routes where something has changed.
    fn refresh(&mut self) {
        self.recompute();
        if self.changes.is_empty() {
            return;
        }
        // The network has changed, even where no route has.
        self.outputs.push_back(Output::RoutesChanged);
        let changes = std::mem::take(&mut self.changes);
        let sources = RouteInputs {
            neighbours: &self.neighbours,
            addresses: &self.addresses,
            edges: &self.edges,
            uplink: &self.uplink,
        };
        if self.table.refresh(changes, &mut self.topology, &sources) {
            self.edges.routes_changed();
        }
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.announce_addresses();
        if self.outputs.is_empty() {
            self.refresh();
            if std::mem::take(&mut self.requests_due) && !self.topology.is_large() {
                self.send_requests();
            }
            self.notify_edges();
        }
        self.outputs.pop_front()
    }

    /// The snapshot that workers choose by.
    pub fn routes(&self) -> Arc<Routes> {
        self.table.routes().clone()
    }

    /// The snapshot as it is when all of it is computed from nothing.
    #[cfg(test)]
    pub(super) fn recomputed_routes(&mut self) -> Routes {
        let sources = RouteInputs {
            neighbours: &self.neighbours,
            addresses: &self.addresses,
            edges: &self.edges,
            uplink: &self.uplink,
        };
        self.table.recomputed(&mut self.topology, &sources)
    }

    /// What has been computed so far.
    pub fn work(&self) -> RoutingWork {
        RoutingWork {
            trees: self.topology.trees(),
            ..self.table.work()
        }
    }
}
