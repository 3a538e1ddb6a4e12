//! What comes of it all: shortest paths, the picture that workers choose by, the network as it is shown.

use super::{ConnId, Output, Router};
use crate::router::{
    paths::{self, Graph},
    routes::{AddressRoute, Remote, RouterRoute, Routes, Treatment},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicUsize},
};

/// A router as seen from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRouter {
    /// Router id.
    pub id: String,
    /// Sum of link costs; None: not reachable.
    pub cost: Option<u32>,
    /// Neighbour on the way.
    pub next_hop: Option<String>,
    /// Its neighbours with costs.
    pub peers: BTreeMap<String, u32>,
    /// Mobile addresses with consumers there.
    pub addresses: Vec<String>,
}

impl Router {
    pub(super) fn recompute(&mut self) {
        if !std::mem::take(&mut self.topology_dirty) {
            return;
        }
        let mut graph: Graph = self
            .remotes
            .iter()
            .filter(|(_, r)| !r.peers.is_empty())
            .map(|(id, r)| (id.clone(), r.peers.clone()))
            .collect();
        graph.insert(self.cfg.id.clone(), self.own_peers.clone());
        // Who is named but has not spoken gets an edge back, so that it can be asked.
        let named: Vec<(String, String)> = graph
            .iter()
            .flat_map(|(id, peers)| peers.keys().map(move |peer| (peer.clone(), id.clone())))
            .filter(|(peer, _)| !graph.contains_key(peer))
            .collect();
        for (peer, back) in named {
            graph.entry(peer).or_default().insert(back, 1);
        }
        self.paths = paths::compute(&graph, &self.cfg.id);
        self.asking = true;
        self.routes_dirty = true;
    }

    /// Rebuilds the picture when something changed.
    pub(super) fn refresh(&mut self) {
        self.recompute();
        if !std::mem::take(&mut self.routes_dirty) {
            return;
        }
        // The newest of those that cost the same: it is there to take over from the others.
        let order = |(cost, link): &(u32, ConnId)| (*cost, Reverse(*link));
        let best = |id: &str| self.links_to(id).min_by_key(order).map(|(_, link)| link);
        let routers: BTreeMap<String, RouterRoute> = self
            .paths
            .iter()
            .filter_map(|(id, path)| {
                let route = RouterRoute {
                    next_hop: best(&path.next_hop)?,
                    next_hop_id: path.next_hop.clone(),
                    cost: path.cost,
                    valid_origins: Arc::new(path.valid_origins.clone()),
                };
                Some((id.clone(), route))
            })
            .collect();
        let mut addresses: HashMap<String, AddressRoute> = HashMap::new();
        let mut turns = std::mem::take(&mut self.turns);
        let mut counters = std::mem::take(&mut self.counters);
        let mut entry = |address: &str, treatment| {
            address_route(&mut addresses, &mut turns, address, treatment);
        };
        for (address, (treatment, _)) in &self.local {
            entry(address, *treatment);
        }
        for remote in self.remotes.values() {
            remote
                .mobile
                .iter()
                .for_each(|(address, treatment)| entry(address, *treatment));
        }
        for address in self.local.keys() {
            if let Some(route) = addresses.get_mut(address) {
                route.local = true;
            }
        }
        let mut edges: HashMap<String, (u32, ConnId)> = HashMap::new();
        for (id, remote) in &self.remotes {
            let Some(route) = routers.get(id) else {
                continue;
            };
            for edge in &remote.edges {
                let way = (route.cost, route.next_hop);
                let best = edges.entry(edge.clone()).or_insert(way);
                *best = way.min(*best);
            }
            let id: Arc<str> = id.as_str().into();
            for address in remote.mobile.keys() {
                let Some(entry) = addresses.get_mut(address) else {
                    continue;
                };
                let key = (address.clone(), route.next_hop);
                let outstanding = counters.entry(key).or_default().clone();
                entry
                    .remotes
                    .push(Remote::new(id.clone(), route, outstanding));
            }
        }
        self.add_edges(&mut addresses, &mut edges, &mut counters);
        self.add_uplink(&mut addresses, &mut turns, &mut counters);
        for route in addresses.values_mut() {
            route
                .remotes
                .sort_by(|a, b| (a.cost, &a.router).cmp(&(b.cost, &b.router)));
        }
        // An address or a link that is gone leaves no counter behind.
        turns.retain(|address, _| addresses.contains_key(address));
        counters.retain(|(address, link), count| {
            (addresses.contains_key(address) && self.is_link(*link)) || Arc::strong_count(count) > 1
        });
        self.turns = turns;
        self.counters = counters;
        self.routes = Arc::new(Routes {
            self_id: self.cfg.id.clone(),
            mesh: self.routes.mesh.clone(),
            uplink: self.uplink.link(),
            routers,
            addresses,
            edges: edges
                .into_iter()
                .map(|(id, (_, link))| (id, link))
                .collect(),
        });
        self.telling = true;
        self.out.push_back(Output::RoutesChanged);
    }

    fn is_link(&self, link: ConnId) -> bool {
        self.links.contains_key(&link)
            || self.edges.contains_key(&link)
            || self.uplink.link() == Some(link)
    }

    /// Every router that is known.
    pub fn network(&self) -> Vec<NetworkRouter> {
        let mut own = NetworkRouter {
            id: self.cfg.id.clone(),
            cost: Some(0),
            next_hop: None,
            peers: self.own_peers.clone(),
            addresses: self.own_addresses(),
        };
        let uplink = self.uplink.network();
        own.peers.extend(uplink.iter().filter_map(|interior| {
            let cost = interior.cost?;
            Some((interior.id.clone(), cost))
        }));
        let others = self.remotes.iter().map(|(id, remote)| {
            let path = self.paths.get(id);
            NetworkRouter {
                id: id.clone(),
                cost: path.map(|p| p.cost),
                next_hop: path.map(|p| p.next_hop.clone()),
                peers: remote.peers.clone(),
                addresses: remote.mobile.keys().cloned().collect(),
            }
        });
        let served = self.served().chain(self.served_elsewhere());
        std::iter::once(own)
            .chain(others)
            .chain(uplink)
            .chain(served)
            .collect()
    }
}

/// The route of an address, made when there is none yet.
pub(super) fn address_route<'a>(
    addresses: &'a mut HashMap<String, AddressRoute>,
    turns: &mut HashMap<String, Arc<AtomicUsize>>,
    address: &str,
    treatment: Treatment,
) -> &'a mut AddressRoute {
    addresses.entry(address.to_owned()).or_insert_with(|| {
        let turn = turns.entry(address.to_owned()).or_default().clone();
        AddressRoute::new(treatment, turn)
    })
}
