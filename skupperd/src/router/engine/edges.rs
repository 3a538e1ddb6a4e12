//! The edges that this router serves: what they consume, and what they want to know.

use super::{addresses::Addresses, changes::Changes};
use crate::router::routes::{ConnId, Routes};
use std::collections::BTreeMap;

/// Addresses that one edge consumes, and that it sends to: more than any site has services.
const MAX_ADDRESSES: usize = 8192;

/// An edge has more addresses than are kept for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_ADDRESSES} addresses of one edge")]
pub struct TooMany;

#[derive(Debug, Default)]
pub(super) struct Edges {
    /// By connection. An edge may have several: one to use, others to take over.
    connections: BTreeMap<ConnId, Edge>,
    /// Reachability of addresses may have changed since the last notifications.
    notify: bool,
}

/// A connection of an edge.
#[derive(Debug, Default)]
pub(super) struct Edge {
    id: String,
    /// Deliveries to the edge's id are sent here.
    downlink: bool,
    /// Links on which it receives, by address.
    consumers: BTreeMap<String, usize>,
    producers: BTreeMap<String, Producer>,
    /// It subscribes to changes of reachability.
    tracking: bool,
}

/// An address that an edge sends to.
#[derive(Debug, Default)]
struct Producer {
    links: usize,
    /// According to the last notification.
    reachable: bool,
}

/// Effect: a notification for an edge.
#[derive(Debug)]
pub(super) struct Reachability {
    pub(super) edge: ConnId,
    pub(super) address: String,
    pub(super) reachable: bool,
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

impl Edges {
    pub(super) fn connect(&mut self, conn: ConnId, id: &str) {
        let edge = Edge {
            id: id.to_owned(),
            ..Edge::default()
        };
        self.connections.insert(conn, edge);
    }

    /// Removes a connection; its consumers are given back.
    pub(super) fn disconnect(&mut self, conn: ConnId, changes: &mut Changes) -> Option<Edge> {
        let edge = self.connections.remove(&conn)?;
        changes.edges = true;
        Some(edge)
    }

    /// Sets whether deliveries to the edge's id are sent on this connection. Returns the id when the
    /// edge has no other such connection, so that the network must learn of it.
    pub(super) fn set_downlink(
        &mut self,
        conn: ConnId,
        downlink: bool,
        changes: &mut Changes,
    ) -> Option<String> {
        let edge = self.connections.get_mut(&conn)?;
        if std::mem::replace(&mut edge.downlink, downlink) == downlink {
            return None;
        }
        changes.edges = true;
        let id = edge.id.clone();
        let mut others = self.connections.iter().filter(|(c, _)| **c != conn);
        let only = !others.any(|(_, other)| other.downlink && other.id == id);
        only.then_some(id)
    }

    /// Starts or stops notifications. At the start an edge takes all addresses for unreachable.
    pub(super) fn set_tracking(&mut self, conn: ConnId, tracking: bool) {
        if let Some(edge) = self.connections.get_mut(&conn) {
            edge.tracking = tracking;
            for producer in edge.producers.values_mut() {
                producer.reachable = false;
            }
            self.notify = true;
        }
    }

    /// True: the edge begins to receive from the address.
    pub(super) fn add_consumer(&mut self, conn: ConnId, address: &str) -> Result<bool, TooMany> {
        let Some(edge) = self.connections.get_mut(&conn) else {
            return Ok(false);
        };
        if edge.consumers.len() >= MAX_ADDRESSES && !edge.consumes(address) {
            return Err(TooMany);
        }
        let links = edge.consumers.entry(address.to_owned()).or_default();
        *links += 1;
        Ok(*links == 1)
    }

    /// True: the edge does not receive from the address any more.
    pub(super) fn remove_consumer(&mut self, conn: ConnId, address: &str) -> bool {
        let Some(edge) = self.connections.get_mut(&conn) else {
            return false;
        };
        let Some(links) = edge.consumers.get_mut(address) else {
            return false;
        };
        *links -= 1;
        let last = *links == 0;
        if last {
            edge.consumers.remove(address);
        }
        last
    }

    pub(super) fn add_producer(&mut self, conn: ConnId, address: &str) -> Result<(), TooMany> {
        let Some(edge) = self.connections.get_mut(&conn) else {
            return Ok(());
        };
        if edge.producers.len() >= MAX_ADDRESSES && !edge.producers.contains_key(address) {
            return Err(TooMany);
        }
        edge.producers.entry(address.to_owned()).or_default().links += 1;
        self.notify = true;
        Ok(())
    }

    pub(super) fn remove_producer(&mut self, conn: ConnId, address: &str) {
        let Some(edge) = self.connections.get_mut(&conn) else {
            return;
        };
        if let Some(producer) = edge.producers.get_mut(address) {
            producer.links -= 1;
            if producer.links == 0 {
                edge.producers.remove(address);
            }
        }
    }

    /// Reachability has to be computed again.
    pub(super) fn routes_changed(&mut self) {
        self.notify = true;
    }

    /// Notifications for edges: where reachability differs from the last notification.
    pub(super) fn take_notifications(
        &mut self,
        addresses: &Addresses,
        routes: &Routes,
    ) -> Vec<Reachability> {
        if !std::mem::take(&mut self.notify) {
            return Vec::new();
        }
        let mut notifications = Vec::new();
        for (conn, edge) in self.connections.iter().filter(|(_, edge)| edge.tracking) {
            for (address, producer) in &edge.producers {
                let reachable = self.is_reachable_for(edge, address, addresses, routes);
                if reachable != producer.reachable {
                    notifications.push(Reachability {
                        edge: *conn,
                        address: address.clone(),
                        reachable,
                    });
                }
            }
        }
        for news in &notifications {
            let edge = self.connections.get_mut(&news.edge);
            if let Some(producer) = edge.and_then(|edge| edge.producers.get_mut(&news.address)) {
                producer.reachable = news.reachable;
            }
        }
        notifications
    }

    /// An address has consumers other than the edge itself.
    fn is_reachable_for(
        &self,
        edge: &Edge,
        address: &str,
        addresses: &Addresses,
        routes: &Routes,
    ) -> bool {
        let here = addresses.local_consumers(address);
        let same = |other: &&Edge| other.id == edge.id && other.consumes(address);
        // Counting is only needed where the edge itself may be among the consumers.
        let own = match edge.consumes(address) || here == 1 {
            true => self.connections.values().filter(same).count(),
            false => 0,
        };
        let route = routes.addresses.get(address);
        here > own || route.is_some_and(|r| r.remotes.iter().any(|remote| !remote.edge))
    }

    pub(super) fn connections(&self) -> impl Iterator<Item = (ConnId, &Edge)> {
        self.connections.iter().map(|(conn, edge)| (*conn, edge))
    }

    pub(super) fn has_connection(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// Connections that edges are reached by. A later one of the same edge is the one to use.
    pub(super) fn downlinks(&self) -> impl Iterator<Item = (ConnId, &Edge)> {
        self.connections().filter(|(_, edge)| edge.downlink)
    }

    /// The edges that are served here, each once, by id.
    pub(super) fn attached(&self) -> BTreeMap<&str, &Edge> {
        self.downlinks()
            .map(|(_, edge)| (edge.id(), edge))
            .collect()
    }

    /// Connections of edges that consume an address.
    pub(super) fn consumers_of(&self, address: &str) -> usize {
        let edges = self.connections.values();
        edges.filter(|edge| edge.consumes(address)).count()
    }
}
