//! The edges that this router serves: what they consume, and what they want to know.

use super::{ConnId, Output, Router, addresses::edge_key, picture::NetworkRouter};
use crate::router::routes::Treatment;
use std::collections::BTreeMap;

/// Addresses that one edge consumes, and that it sends to: more than any site has services.
const MAX_ADDRESSES: usize = 8192;

/// An edge has more addresses than are kept for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_ADDRESSES} addresses of one edge")]
pub struct TooMany;

/// A connection of an edge.
#[derive(Debug, Default)]
pub(super) struct Edge {
    id: String,
    /// What is for the edge by its id goes here.
    named: bool,
    /// Links on which it receives, by address.
    consumers: BTreeMap<String, usize>,
    producers: BTreeMap<String, Producer>,
    /// It wants to be told.
    tracks: bool,
}

/// An address that an edge sends to.
#[derive(Debug, Default)]
struct Producer {
    links: usize,
    /// What the edge was told.
    reachable: bool,
}

impl Edge {
    pub(super) fn consumes(&self, address: &str) -> bool {
        self.consumers.contains_key(address)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn consumers(&self) -> &BTreeMap<String, usize> {
        &self.consumers
    }
}

impl Router {
    /// A connection of an edge is open. Nothing is on it yet: it may be there to take over later.
    pub fn edge_connected(&mut self, conn: ConnId, id: &str) {
        let edge = Edge {
            id: id.to_owned(),
            ..Edge::default()
        };
        self.edges.insert(conn, edge);
    }

    /// A connection of an edge is gone, and everything on it.
    pub fn edge_gone(&mut self, conn: ConnId) {
        self.edge_named(conn, false);
        let Some(edge) = self.edges.get(&conn) else {
            return;
        };
        let addresses: Vec<String> = edge.consumers.keys().cloned().collect();
        for address in addresses {
            self.consumer_removed(&address);
        }
        self.edges.remove(&conn);
        self.stale.edges = true;
    }

    /// An edge wants on this connection what is for it by its id, or no more.
    pub fn edge_named(&mut self, conn: ConnId, named: bool) {
        let Some(edge) = self.edges.get_mut(&conn) else {
            return;
        };
        if std::mem::replace(&mut edge.named, named) == named {
            return;
        }
        let id = edge.id.clone();
        let mut others = self.edges.iter().filter(|(other, _)| **other != conn);
        if !others.any(|(_, other)| other.named && other.id == id) {
            if named {
                self.announce(edge_key(id));
            } else {
                self.take_back(edge_key(id));
            }
        }
        self.stale.edges = true;
    }

    /// An edge wants to be told who can be reached.
    pub fn edge_tracks(&mut self, conn: ConnId, tracks: bool) {
        if let Some(edge) = self.edges.get_mut(&conn) {
            edge.tracks = tracks;
            for producer in edge.producers.values_mut() {
                producer.reachable = false;
            }
            self.telling = true;
        }
    }

    /// An edge receives from an address.
    pub fn edge_consumes(&mut self, conn: ConnId, address: &str) -> Result<(), TooMany> {
        let Some(edge) = self.edges.get_mut(&conn) else {
            return Ok(());
        };
        if edge.consumers.len() >= MAX_ADDRESSES && !edge.consumers.contains_key(address) {
            return Err(TooMany);
        }
        let links = edge.consumers.entry(address.to_owned()).or_default();
        *links += 1;
        if *links == 1 {
            self.consumer_added(address, Treatment::of(address));
        }
        Ok(())
    }

    /// An edge has given up a link on which it received from an address.
    pub fn edge_consumed(&mut self, conn: ConnId, address: &str) {
        let edge = self.edges.get_mut(&conn);
        let Some(links) = edge.and_then(|edge| edge.consumers.get_mut(address)) else {
            return;
        };
        *links -= 1;
        if *links == 0 {
            if let Some(edge) = self.edges.get_mut(&conn) {
                edge.consumers.remove(address);
            }
            self.consumer_removed(address);
        }
    }

    /// An edge sends to an address, and is to know whether anybody receives that.
    pub fn edge_sends(&mut self, conn: ConnId, address: &str) -> Result<(), TooMany> {
        let Some(edge) = self.edges.get_mut(&conn) else {
            return Ok(());
        };
        if edge.producers.len() >= MAX_ADDRESSES && !edge.producers.contains_key(address) {
            return Err(TooMany);
        }
        edge.producers.entry(address.to_owned()).or_default().links += 1;
        self.telling = true;
        Ok(())
    }

    /// An edge has given up a link on which it sent to an address.
    pub fn edge_sent(&mut self, conn: ConnId, address: &str) {
        let Some(edge) = self.edges.get_mut(&conn) else {
            return;
        };
        if let Some(producer) = edge.producers.get_mut(address) {
            producer.links -= 1;
            if producer.links == 0 {
                edge.producers.remove(address);
            }
        }
    }

    /// Tells edges what is not any more as they were told.
    pub(super) fn tell_edges(&mut self) {
        if !std::mem::take(&mut self.telling) {
            return;
        }
        let mut news = Vec::new();
        for (conn, edge) in self.edges.iter().filter(|(_, edge)| edge.tracks) {
            for (address, producer) in &edge.producers {
                let reachable = self.reachable_for(edge, address);
                if reachable != producer.reachable {
                    news.push((*conn, address.clone(), reachable));
                }
            }
        }
        for (edge, address, reachable) in news {
            let told = self.edges.get_mut(&edge);
            if let Some(producer) = told.and_then(|edge| edge.producers.get_mut(&address)) {
                producer.reachable = reachable;
            }
            self.out.push_back(Output::Reachable {
                edge,
                address,
                reachable,
            });
        }
    }

    /// Somebody receives from an address, the edge itself left out.
    fn reachable_for(&self, edge: &Edge, address: &str) -> bool {
        let here = self.local.get(address).map_or(0, |(_, count)| *count);
        let same = |other: &&Edge| other.id == edge.id && other.consumes(address);
        // Only who consumes it as well has to be told from the others.
        let own = match edge.consumes(address) || here == 1 {
            true => self.edges.values().filter(same).count(),
            false => 0,
        };
        let route = self.routes.addresses.get(address);
        here > own || route.is_some_and(|r| r.remotes.iter().any(|remote| !remote.edge))
    }

    /// Ids of the edges that are served here.
    pub(super) fn named_edges(&self) -> Vec<String> {
        let named = self.edges.values().filter(|edge| edge.named);
        let mut ids: Vec<String> = named.map(|edge| edge.id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Connections that edges are reached by, by id; a later one of the same edge is the one that is well.
    pub(super) fn edge_conns(&self) -> impl Iterator<Item = (&String, ConnId)> {
        let named = self.edges.iter().filter(|(_, edge)| edge.named);
        named.map(|(conn, edge)| (&edge.id, *conn))
    }

    /// The edges that are served here, as parts of the network.
    pub(super) fn served(&self) -> impl Iterator<Item = NetworkRouter> {
        let named = self.edges.values().filter(|edge| edge.named);
        let by_id: BTreeMap<&String, &Edge> = named.map(|edge| (&edge.id, edge)).collect();
        by_id.into_iter().map(|(id, edge)| NetworkRouter {
            id: id.clone(),
            cost: Some(1),
            next_hop: None,
            peers: BTreeMap::from([(self.cfg.id.clone(), 1)]),
            addresses: edge.consumers.keys().cloned().collect(),
        })
    }

    /// The edges that other routers serve. What they consume is among the addresses of those.
    pub(super) fn served_elsewhere(&self) -> impl Iterator<Item = NetworkRouter> {
        self.remotes.iter().flat_map(|(id, remote)| {
            let path = self.paths.get(id);
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
