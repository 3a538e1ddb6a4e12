//! The paths that follow from link states, computed within a budget of work.

use super::Topology;
use crate::router::{
    engine::neighbours::Neighbours,
    paths::{Graph, Path},
    routes::{ConnId, RouterRoute},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// Nodes and edges visited in one slice of work, which takes a few milliseconds.
const SLICE: usize = 20_000;

impl Topology {
    /// Computes the paths if a link state has changed. True: it has.
    pub(in crate::router::engine) fn recompute(
        &mut self,
        own: &str,
        neighbours: &Neighbours,
        now: Instant,
    ) -> bool {
        // Too little work is allowed where a peer changes the network all the time.
        if !self.dirty || !self.work.take(self.size, now) {
            return false;
        }
        self.dirty = false;
        let graph = self.graph(own, neighbours);
        let edges = graph.values().map(BTreeMap::len).sum::<usize>();
        self.size = graph.len() + edges;
        let routers = &self.routers;
        let has_spoken = |id: &str| routers.get(id).is_some_and(|r| r.instance != 0);
        self.paths = self.transit.set_graph(&graph, own, has_spoken);
        let hops: BTreeSet<&String> = self.paths.values().map(|path| &path.next_hop).collect();
        let hops = hops
            .into_iter()
            .filter_map(|id| Some((id.clone(), neighbours.via(neighbours.best_link(id)?))));
        self.next_hops = hops.collect();
        true
    }

    /// When paths can be computed that could not be at once, or trees are left to compute.
    pub(in crate::router::engine) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        if self.transit.is_pending() {
            return Some(now);
        }
        self.work.due(self.size).filter(|_| self.dirty)
    }

    /// Computes some of the trees that are left.
    pub(in crate::router::engine) fn compute_trees(&mut self) {
        self.transit.compute_pending(SLICE);
    }

    fn graph(&self, own: &str, neighbours: &Neighbours) -> Graph {
        let known = self.routers.iter().filter(|(_, r)| !r.peers.is_empty());
        let mut graph: Graph = known.map(|(id, r)| (id.clone(), r.peers.clone())).collect();
        graph.insert(own.to_owned(), neighbours.peers().clone());
        // A router that only appears as a neighbour gets a provisional edge back, so that its link
        // state can be requested (`path.py` of skupper-router does the same).
        let named: Vec<(String, String)> = graph
            .iter()
            .flat_map(|(id, peers)| peers.keys().map(move |peer| (peer.clone(), id.clone())))
            .filter(|(peer, _)| !graph.contains_key(peer))
            .collect();
        for (peer, back) in named {
            graph.entry(peer).or_default().insert(back, 1);
        }
        graph
    }

    pub(in crate::router::engine) fn path(&self, id: &str) -> Option<&Path> {
        self.paths.get(id)
    }

    pub(in crate::router::engine) fn next_hop(&self, id: &str) -> Option<ConnId> {
        let next_hop = &self.paths.get(id)?.next_hop;
        self.next_hops.get(next_hop).map(|via| via.link)
    }

    /// Link towards each neighbour that is on a path.
    pub(in crate::router::engine) fn flood_links(&self) -> BTreeSet<ConnId> {
        self.next_hops.values().map(|via| via.link).collect()
    }

    /// Links that a flooded message of another router is forwarded on. `passed`: routers it has been at.
    pub(in crate::router::engine) fn transit_links(
        &mut self,
        origin: &str,
        passed: &[&str],
    ) -> BTreeSet<ConnId> {
        let neighbours = self.transit.neighbours(origin).iter();
        neighbours
            .filter(|id| !passed.contains(&id.as_str()))
            .filter_map(|id| self.next_hops.get(id).map(|via| via.link))
            .collect()
    }

    pub(in crate::router::engine) fn router_routes(&self) -> BTreeMap<String, RouterRoute> {
        let routes = self.paths.iter().filter_map(|(id, path)| {
            let route = RouterRoute {
                next_hop: self.next_hops.get(&path.next_hop)?.link,
                next_hop_id: path.next_hop.clone(),
                cost: path.cost,
                valid_origins: self.transit.origins(id),
            };
            Some((id.clone(), route))
        });
        routes.collect()
    }

    /// Every other router that is known, with its neighbours.
    pub(in crate::router::engine) fn routers(
        &self,
    ) -> impl Iterator<Item = (&String, &BTreeMap<String, u32>)> {
        self.routers.iter().map(|(id, router)| (id, &router.peers))
    }

    pub(in crate::router::engine) fn trees(&self) -> u64 {
        self.transit.computed
    }
}
