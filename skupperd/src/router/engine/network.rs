//! The network view for statuses: known routers and the edges that they serve.

use super::{Router, config::NetworkRouter};
use std::collections::BTreeMap;

impl Router {
    /// Every router that is known.
    pub fn network(&self) -> Vec<NetworkRouter> {
        let mut own = NetworkRouter {
            id: self.cfg.id.clone(),
            cost: Some(0),
            next_hop: None,
            peers: self.neighbours.peers().clone(),
            addresses: self.own_addresses(),
        };
        let uplink = self.uplink.network();
        own.peers.extend(uplink.iter().filter_map(|interior| {
            let cost = interior.cost?;
            Some((interior.id.clone(), cost))
        }));
        std::iter::once(own)
            .chain(self.remote_routers())
            .chain(uplink)
            .chain(self.own_edges())
            .chain(self.remote_edges())
            .collect()
    }

    /// The addresses that have consumers on this router itself, not only on its edges.
    pub fn own_addresses(&self) -> Vec<String> {
        let local = self.addresses.local().iter();
        let own = local
            .filter(|(address, local)| local.consumers > self.edges.consumers_of(address))
            .map(|(address, _)| address.clone());
        own.collect()
    }

    fn remote_routers(&self) -> impl Iterator<Item = NetworkRouter> {
        self.topology.routers().map(|(id, peers)| {
            let path = self.topology.path(id);
            let announced = self.addresses.of_router(id).into_iter();
            NetworkRouter {
                id: id.clone(),
                cost: path.map(|p| p.cost),
                next_hop: path.map(|p| p.next_hop.clone()),
                peers: peers.clone(),
                addresses: announced.flat_map(|a| a.mobile.keys().cloned()).collect(),
            }
        })
    }

    /// The edges that are served here.
    fn own_edges(&self) -> impl Iterator<Item = NetworkRouter> {
        let served = self.edges.attached().into_iter();
        served.map(|(id, edge)| NetworkRouter {
            id: id.to_owned(),
            cost: Some(1),
            next_hop: None,
            peers: BTreeMap::from([(self.cfg.id.clone(), 1)]),
            addresses: edge.consumers().keys().cloned().collect(),
        })
    }

    /// The edges that other routers serve. What they consume is among the addresses of those.
    fn remote_edges(&self) -> impl Iterator<Item = NetworkRouter> {
        self.addresses.remote().iter().flat_map(|(id, remote)| {
            let path = self.topology.path(id);
            remote.edges.iter().map(move |edge| NetworkRouter {
                id: edge.clone(),
                cost: path.map(|p| p.cost + 1),
                next_hop: path.map(|p| p.next_hop.clone()),
                peers: BTreeMap::from([(id.clone(), 1)]),
                addresses: Vec::new(),
            })
        })
    }
}
