//! Shortest paths, and the network as it is shown.

use super::{ConnId, Router};
use crate::router::{
    paths::{self, Graph},
    routes::RouterRoute,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
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
        self.work.trees += self.passing.trees;
        (self.paths, self.passing) = paths::compute(&graph, &self.cfg.id);
        // The newest of those that cost the same: it is there to take over from the others.
        let order = |(cost, link): &(u32, ConnId)| (*cost, Reverse(*link));
        let best = |id: &str| self.links_to(id).min_by_key(order).map(|(_, link)| link);
        let hops: BTreeSet<&String> = self.paths.values().map(|path| &path.next_hop).collect();
        let hops = hops
            .into_iter()
            .filter_map(|id| Some((id.clone(), best(id)?)));
        self.hops = hops.collect();
        self.asking = true;
        self.stale.ways = true;
    }

    /// The ways as the picture is to have them.
    pub(super) fn new_ways(&mut self) -> BTreeMap<String, RouterRoute> {
        let mut origins = self.passing.origins();
        let ways = self.paths.iter().filter_map(|(id, path)| {
            let route = RouterRoute {
                next_hop: *self.hops.get(&path.next_hop)?,
                next_hop_id: path.next_hop.clone(),
                cost: path.cost,
                valid_origins: Arc::new(origins.remove(id).unwrap_or_default()),
            };
            Some((id.clone(), route))
        });
        ways.collect()
    }

    /// Link towards a router by its id.
    pub(super) fn towards(&mut self, id: &str) -> Option<ConnId> {
        self.recompute();
        let path = self.paths.get(id);
        let known = path.and_then(|path| self.hops.get(&path.next_hop).copied());
        known.or(self.uplink.link())
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
