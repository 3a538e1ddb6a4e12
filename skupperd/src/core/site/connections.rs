//! Connections of a site, from their handshake to their end: which part of the site each belongs to.

use super::{
    Site,
    effects::Effect,
    peer_budgets::BudgetOwner,
    peers::{Peer, PeerOrigin},
    uplink,
};
use crate::{
    amqp::{
        performative::{Error as AmqpError, Open},
        value::Value,
    },
    link::{
        conn::{ConnKey, ConnectionKind},
        driver::ConnectionEnd,
        handshake::Established,
        names::{GROUP_CORRELATOR, INTER_ROUTER_COST, INTER_ROUTER_ROLE},
    },
    messages::{DialledConnection, LinkFailure, NewConnection},
    model::Role,
    router::is_id,
    sys::clock,
};

/// Value of `INTER_ROUTER_ROLE` for a data connection.
const DATA: i64 = 4;

/// The cost of a link that the dialling side sent.
fn cost(open: &Open) -> u32 {
    let cost = open.property(INTER_ROUTER_COST).and_then(Value::as_u32);
    cost.unwrap_or(1).max(1)
}

impl Site {
    /// A connection of a link was dialled.
    pub(in crate::core) fn dialled(&mut self, dialled: DialledConnection) {
        let DialledConnection {
            link,
            key,
            data_of,
            established,
            accepted,
        } = dialled;
        let Some(own_cost) = self.links.cost(&link) else {
            return;
        };
        if accepted.is_closed() {
            // The link has other endpoints by now, which another task dials.
            return;
        }
        match data_of {
            None => {
                let origin = PeerOrigin {
                    role: self.spec.link_role(),
                    cost: own_cost.max(cost(&established.open)),
                    link: Some(link),
                    access: None,
                    correlator: None,
                };
                if self.add_control(key, origin, established) {
                    self.links.connected(key, accepted);
                }
            }
            Some(group) if self.peers.get(group).is_some() => {
                self.add_data(key, group, established);
                self.links.connected(key, accepted);
            }
            Some(_) => {}
        }
    }

    pub(in crate::core) fn dial_failed(&mut self, link: &str, failure: &LinkFailure) {
        // Once for each new reason: attempts repeat every two seconds.
        if !self
            .links
            .failed(link, failure, &self.peers, &mut self.effects)
        {
            return;
        }
        let failure = failure.to_string();
        let namespace = &self.spec.namespace;
        if self.peers.of_link(link).next().is_some() {
            tracing::info!(
                namespace,
                link,
                failure,
                "cannot move the link to a better endpoint"
            );
        } else {
            tracing::warn!(namespace, link, failure, "link is down");
        }
    }

    /// A router has connected to a RouterAccess.
    pub(in crate::core) fn accepted(&mut self, access: &str, role: Role, established: Established) {
        let peer = established.peer;
        if !self.accesses.contains(access) {
            let namespace = &self.spec.namespace;
            tracing::debug!(namespace, access, %peer, "closing a link of a removed RouterAccess");
            return;
        }
        // Its certificate may have been revoked since the handshake, however long the peer took to
        // open the connection.
        if let Some(identity) = self.accesses.refused(&established) {
            if let Some(suppressed) = self.peers.note_refusal(clock::now()) {
                tracing::warn!(
                    namespace = self.spec.namespace,
                    access,
                    %peer,
                    subject = identity.subject,
                    serial = identity.serial,
                    suppressed,
                    "link refused: its certificate was revoked during the handshake"
                );
            }
            return;
        }
        let open = &established.open;
        let correlator = open.property(GROUP_CORRELATOR).and_then(Value::as_str);
        let correlator = correlator.map(str::to_owned);
        let data = open.property(INTER_ROUTER_ROLE).and_then(Value::as_i64) == Some(DATA);
        if role == Role::InterRouter && data {
            return self.accept_data(correlator, established);
        }
        tracing::info!(
            namespace = self.spec.namespace,
            access,
            %peer,
            remote = open.container_id,
            role = role.as_str(),
            "link accepted"
        );
        let origin = PeerOrigin {
            role,
            cost: cost(open),
            link: None,
            access: Some(access.to_owned()),
            correlator: correlator.clone(),
        };
        let key = self.sender.next_key();
        let identity = established.identity.clone();
        self.add_control(key, origin, established);
        let waiting = self
            .peers
            .take_waiting(correlator.as_deref(), identity.as_ref());
        for established in waiting {
            self.add_data(self.sender.next_key(), key, established);
        }
    }

    fn accept_data(&mut self, correlator: Option<String>, established: Established) {
        let Some(correlator) = correlator else {
            if let Some(suppressed) = self.peers.note_refusal(clock::now()) {
                let (namespace, peer) = (&self.spec.namespace, established.peer);
                tracing::warn!(namespace, %peer, suppressed, "closing a data connection that names no link");
            }
            return;
        };
        let identity = established.identity.as_ref();
        match self.peers.find_group(&correlator, identity) {
            Some(group) => self.add_data(self.sender.next_key(), group, established),
            None => self.peers.wait_for_control(correlator, established),
        }
    }

    /// An AMQP client of this host has connected.
    pub(in crate::core) fn accepted_client(&mut self, established: Established) {
        let key = self.sender.next_key();
        self.clients.connected(key);
        let worker = self.worker_for(key);
        self.carry(worker, key, key, ConnectionKind::Normal, false, established);
    }

    /// Takes a control connection, unless it is refused.
    fn add_control(&mut self, key: ConnKey, origin: PeerOrigin, established: Established) -> bool {
        let worker = self.worker_for(key);
        let dialled = origin.link.is_some();
        let is_edge = origin.role == Role::Edge;
        let owner = BudgetOwner::of(origin.link.as_deref(), &established, key);
        let mut peer = Peer::new(origin, &established, worker);
        peer.budget_owner = self.budgets.id(&owner);
        if !is_id(&peer.remote) {
            if let Some(suppressed) = self.peers.note_refusal(clock::now()) {
                // Escaped, as it is no name yet.
                let (namespace, id) = (&self.spec.namespace, &peer.remote);
                tracing::warn!(namespace, peer = %peer.addr, ?id, suppressed, "link refused: invalid router id");
            }
            let reason = "the peer's router id is invalid";
            self.refuse_connection(peer.link.as_deref(), established, reason);
            return false;
        }
        if peer.remote == self.spec.router_id {
            if let Some(suppressed) = self.peers.note_refusal(clock::now()) {
                let namespace = &self.spec.namespace;
                tracing::warn!(namespace, peer = %peer.addr, suppressed, "link refused: it connects this router to itself");
            }
            let reason = "the link leads to this site itself";
            self.refuse_connection(peer.link.as_deref(), established, reason);
            return false;
        }
        let (remote, link) = (peer.remote.clone(), peer.link.clone());
        if !self.peers.insert(key, peer) {
            self.refuse_id(link.as_deref(), established);
            return false;
        }
        if !dialled {
            self.peers.follow_cost(key, &mut self.effects);
        }
        let advert = uplink::advert_of(&established.open);
        let kind = if is_edge {
            ConnectionKind::Edge
        } else {
            ConnectionKind::Control
        };
        self.carry(worker, key, key, kind, dialled, established);
        match (is_edge, dialled) {
            (false, _) => {}
            (true, true) => self.uplink_opened(key, advert),
            (true, false) => self.edges.connected(key, &remote, &mut self.effects),
        }
        true
    }

    /// Refuses a connection whose id belongs to another certificate.
    fn refuse_id(&mut self, link: Option<&str>, established: Established) {
        if let Some(suppressed) = self.peers.note_refusal(clock::now()) {
            let subject = established.identity.as_ref().map(|i| &i.subject);
            tracing::warn!(
                namespace = self.spec.namespace,
                remote = established.open.container_id,
                peer = %established.peer,
                ?subject,
                suppressed,
                "link refused: its router id belongs to another certificate"
            );
        }
        let reason = "router id belongs to another certificate";
        self.refuse_connection(link, established, reason);
    }

    /// Closes a connection before a worker has it, and reports the reason to both sides.
    fn refuse_connection(&mut self, link: Option<&str>, established: Established, reason: &str) {
        if let Some(link) = link {
            self.links.refused(link, reason, &mut self.effects);
        }
        let error = AmqpError::new("amqp:not-allowed", reason);
        self.effects
            .push(Effect::Refuse(Box::new(established), error));
    }

    fn add_data(&mut self, key: ConnKey, group: ConnKey, established: Established) {
        let added = self
            .peers
            .add_data(key, group, self.workers, &mut self.effects);
        let Some((worker, dialled)) = added else {
            return;
        };
        self.carry(
            worker,
            key,
            group,
            ConnectionKind::Data,
            dialled,
            established,
        );
        self.peers.announce(group, &mut self.effects);
    }

    /// The worker of a connection that could be anywhere.
    fn worker_for(&self, key: ConnKey) -> usize {
        usize::try_from(key).unwrap_or(0) % self.workers.max(1)
    }

    fn carry(
        &mut self,
        worker: usize,
        key: ConnKey,
        group: ConnKey,
        kind: ConnectionKind,
        dialled: bool,
        established: Established,
    ) {
        let link = self.peers.get(group).and_then(|p| p.link.as_deref());
        let owner = BudgetOwner::of(link, &established, key);
        let connection = NewConnection {
            key,
            group,
            kind,
            site: self.id,
            dialled,
            established,
            budget: self.budgets.get(&owner),
        };
        self.effects
            .push(Effect::Carry(worker, Box::new(connection)));
    }

    /// The control link of a connection is attached.
    pub(in crate::core) fn control_ready(&mut self, key: ConnKey) {
        self.peers.control_ready(key, &mut self.effects);
    }

    /// Another connection of the link takes the place of this one.
    pub(in crate::core) fn superseded(&mut self, key: ConnKey) {
        self.peers.supersede(key, &mut self.effects);
        self.choose_uplink();
    }

    pub(in crate::core) fn ended(&mut self, key: ConnKey, group: ConnKey, reason: &ConnectionEnd) {
        let (end, reason) = (reason, reason.to_string());
        self.links.disconnected(key);
        if key != group {
            if let Some(peer) = self.peers.get(group) {
                let (namespace, remote) = (&self.spec.namespace, &peer.remote);
                tracing::info!(namespace, remote, peer = %peer.addr, reason, "data connection closed");
            }
            return self.peers.remove_data(key, group, &mut self.effects);
        }
        let was_client = self.clients.disconnected(key, &mut self.effects);
        self.edges.disconnected(key, &mut self.effects);
        let Some(peer) = self.peers.remove(key, &mut self.effects) else {
            return;
        };
        debug_assert!(!was_client, "the local AMQP port accepts clients only");
        // The owner said so over its own connection. Its next link may have other credentials.
        if end.is_link_deleted() {
            self.peers.give_up_id(&peer);
        }
        let link = peer.link.as_deref().unwrap_or("");
        let (namespace, remote) = (&self.spec.namespace, &peer.remote);
        tracing::info!(namespace, link, remote, peer = %peer.addr, reason, "link closed");
        if !peer.retired {
            self.links.lost(link, &reason, &mut self.effects);
        }
        self.uplink.closed(key);
        self.choose_uplink();
        self.effects.update_status();
    }

    /// A connection of this edge to an interior router has opened.
    pub(in crate::core) fn uplink_opened(&mut self, key: ConnKey, advert: Option<String>) {
        self.uplink.opened(key, advert);
        if let Some(peer) = self.peers.set_neighbour(key, true) {
            let (namespace, remote) = (&self.spec.namespace, &peer.remote);
            tracing::info!(namespace, remote, peer = %peer.addr, "link is up");
        }
        self.peers.retire_superseded(&mut self.effects);
        self.effects.update_view();
        self.choose_uplink();
        self.effects.update_status();
    }

    /// Moves to the connection that should be the uplink.
    pub(in crate::core) fn choose_uplink(&mut self) {
        if !self.spec.edge {
            return;
        }
        let best = self.peers.best_uplink();
        let best = best.map(|(key, peer)| (key, peer.remote.as_str(), peer.cost));
        if !self.uplink.select(best, &mut self.effects) {
            return;
        }
        let namespace = &self.spec.namespace;
        match best {
            Some((_, remote, _)) => {
                tracing::info!(namespace, remote, "uplink of this edge changed");
            }
            None => tracing::warn!(namespace, "edge has lost its uplink"),
        }
    }

    /// Others can reach an edge that is served here, or no longer.
    pub(super) fn edge_reachable(&mut self, key: ConnKey, reachable: bool) {
        let is_new = self
            .peers
            .get(key)
            .is_some_and(|p| p.is_neighbour != reachable);
        if is_new
            && let Some(peer) = self.peers.set_neighbour(key, reachable)
            && reachable
        {
            let (namespace, remote) = (&self.spec.namespace, &peer.remote);
            tracing::info!(namespace, remote, peer = %peer.addr, "edge is up");
        }
        self.effects.update_status();
    }
}

#[cfg(test)]
mod tests;
