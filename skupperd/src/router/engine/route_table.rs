//! The snapshot of routes that workers choose by, recomputed where something changed and nowhere else.

use super::{
    addresses::Addresses, changes::Changes, counters::Counters, edges::Edges,
    neighbours::Neighbours, topology::Topology, uplink::Uplink,
};
use crate::router::routes::{AddressRoute, ConnId, Remote, RouterRoute, Routes, Treatment};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// What a router has computed since it was made: a measure of its work that no clock disturbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingWork {
    /// Shortest-path trees.
    pub trees: u64,
    /// Routes of addresses.
    pub routes: u64,
    /// Snapshots with new routes (`Router::routes`).
    pub snapshots: u64,
}

#[derive(Debug)]
pub(super) struct RouteTable {
    routes: Arc<Routes>,
    counters: Counters,
    work: RoutingWork,
}

/// Everything that the routes follow from.
pub(super) struct RouteInputs<'a> {
    pub(super) neighbours: &'a Neighbours,
    pub(super) addresses: &'a Addresses,
    pub(super) edges: &'a Edges,
    pub(super) uplink: &'a Uplink,
}

/// Routes under construction, with the shared name of each address.
type NewRoutes = HashMap<Arc<str>, AddressRoute>;

impl RouteTable {
    pub(super) fn new(own: &str, mesh: Option<&str>) -> Self {
        let routes = Arc::new(Routes {
            self_id: own.to_owned(),
            mesh: mesh.map(Arc::from),
            ..Routes::default()
        });
        Self {
            routes,
            counters: Counters::default(),
            work: RoutingWork::default(),
        }
    }

    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    pub(super) fn work(&self) -> RoutingWork {
        self.work
    }

    /// Recomputes what follows from the changes. True: there is a new snapshot.
    pub(super) fn refresh(
        &mut self,
        mut changes: Changes,
        topology: &mut Topology,
        sources: &RouteInputs<'_>,
    ) -> bool {
        let mut routers = None;
        if std::mem::take(&mut changes.paths) {
            let routes = topology.router_routes();
            // Only what a router that is reached in another way announces has other routes.
            let differing = |one: &BTreeMap<String, RouterRoute>, other: &BTreeMap<_, _>| {
                let ids = one
                    .iter()
                    .filter(|(id, route)| other.get(*id) != Some(*route));
                ids.map(|(id, _)| id.clone()).collect::<Vec<String>>()
            };
            let mut ids = differing(&self.routes.routers, &routes);
            ids.extend(differing(&routes, &self.routes.routers));
            for remote in ids.iter().filter_map(|id| sources.addresses.of_router(id)) {
                remote
                    .mobile
                    .keys()
                    .for_each(|address| changes.address(address));
            }
            if !ids.is_empty() {
                routers = Some(Arc::new(routes));
                changes.edges = true;
            }
        }
        if changes.is_empty() {
            return false;
        }
        let routes = Arc::make_mut(&mut self.routes);
        if let Some(routers) = routers {
            routes.routers = routers;
        }
        routes.uplink = sources.uplink.link();
        if changes.all || changes.edges {
            routes.edges = Arc::new(sources.edge_links(&routes.routers));
        }
        let only = (!changes.all).then_some(&changes.addresses);
        let new = sources.new_routes(&routes.routers, only, &mut self.counters);
        self.work.routes += new.len() as u64;
        self.work.snapshots += 1;
        let new = new.into_iter().map(|(name, route)| (name, Arc::new(route)));
        let mut touched: BTreeSet<Arc<str>> = self.counters.leaving().clone();
        if changes.all {
            touched.extend(self.counters.names().cloned());
            routes.addresses = new.collect();
        } else {
            let names = changes.addresses.iter();
            for name in names.filter_map(|address| self.counters.name(address)) {
                touched.insert(name.clone());
                routes.addresses.remove(name);
            }
            routes.addresses.extend(new);
        }
        for address in &touched {
            let is_address = |address: &str| self.routes.addresses.contains_key(address);
            let is_link = |link| sources.has_link(link);
            self.counters.drop_unused(address, is_address, is_link);
        }
        true
    }

    /// The snapshot as it is when all of it is computed from nothing.
    #[cfg(test)]
    pub(super) fn recomputed(&self, topology: &mut Topology, sources: &RouteInputs<'_>) -> Routes {
        let routers = topology.router_routes();
        let new = sources.new_routes(&routers, None, &mut Counters::default());
        Routes {
            addresses: new.into_iter().map(|(k, v)| (k, Arc::new(v))).collect(),
            edges: Arc::new(sources.edge_links(&routers)),
            routers: Arc::new(routers),
            uplink: sources.uplink.link(),
            ..(*self.routes).clone()
        }
    }
}

impl RouteInputs<'_> {
    /// Routes of these addresses, or of all.
    fn new_routes(
        &self,
        routers: &BTreeMap<String, RouterRoute>,
        only: Option<&BTreeSet<String>>,
        counters: &mut Counters,
    ) -> NewRoutes {
        let mut new = NewRoutes::new();
        for (address, local) in selected(self.addresses.local(), only) {
            route(&mut new, counters, address, local.treatment).local = true;
        }
        for (id, remote) in self.addresses.remote() {
            let to_router = routers.get(id);
            let mut name: Option<Arc<str>> = None;
            for (address, treatment) in selected(&remote.mobile, only) {
                let route = route(&mut new, counters, address, *treatment);
                if let Some(to_router) = to_router {
                    let name = name.get_or_insert_with(|| id.as_str().into()).clone();
                    let outstanding = counters.outstanding(address, to_router.next_hop);
                    let remote = Remote::new(name, to_router, outstanding);
                    route.remotes.push(remote);
                }
            }
        }
        for (conn, edge) in self.edges.connections() {
            for (address, _) in selected(edge.consumers(), only) {
                if let Some(route) = new.get_mut(address.as_str()) {
                    let outstanding = counters.outstanding(address, conn);
                    let remote = Remote::edge(edge.id().into(), conn, outstanding);
                    route.remotes.push(remote);
                }
            }
        }
        if let Some(interior) = self.uplink.interior() {
            let (link, cost) = (interior.link, interior.cost);
            for (address, _) in selected(self.uplink.reachable(), only) {
                let route = route(&mut new, counters, address, Treatment::of(address));
                let outstanding = counters.outstanding(address, link);
                let remote = Remote::uplink(interior.id.as_str().into(), cost, link, outstanding);
                route.remotes.push(remote);
            }
        }
        for route in new.values_mut() {
            route
                .remotes
                .sort_by(|a, b| (a.cost, &a.router).cmp(&(b.cost, &b.router)));
        }
        new
    }

    /// Links towards edges, by id: the nearest of those who serve it.
    fn edge_links(&self, routers: &BTreeMap<String, RouterRoute>) -> HashMap<String, ConnId> {
        let mut edges: HashMap<&str, (u32, ConnId)> = HashMap::new();
        for (id, remote) in self.addresses.remote() {
            let Some(route) = routers.get(id) else {
                continue;
            };
            for edge in &remote.edges {
                let link = (route.cost, route.next_hop);
                let best = edges.entry(edge).or_insert(link);
                *best = link.min(*best);
            }
        }
        let served = self.edges.downlinks();
        edges.extend(served.map(|(conn, edge)| (edge.id(), (0, conn))));
        let edges = edges.into_iter();
        edges.map(|(id, (_, link))| (id.to_owned(), link)).collect()
    }

    fn has_link(&self, link: ConnId) -> bool {
        let known = self.neighbours.has_link(link) || self.edges.has_connection(link);
        known || self.uplink.link() == Some(link)
    }
}

/// Those of a set, or all.
fn selected<'a, T>(
    all: &'a BTreeMap<String, T>,
    only: Option<&'a BTreeSet<String>>,
) -> Box<dyn Iterator<Item = (&'a String, &'a T)> + 'a> {
    match only {
        None => Box::new(all.iter()),
        Some(only) => Box::new(only.iter().filter_map(|name| all.get_key_value(name))),
    }
}

/// The route of an address, made when there is none yet.
fn route<'a>(
    new: &'a mut NewRoutes,
    counters: &mut Counters,
    address: &str,
    treatment: Treatment,
) -> &'a mut AddressRoute {
    let (name, rotation) = counters.address(address);
    new.entry(name)
        .or_insert_with(|| AddressRoute::new(treatment, rotation.clone()))
}
