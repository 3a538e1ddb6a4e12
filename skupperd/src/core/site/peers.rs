//! Other routers that are connected: their control connections with the data connections of each.
//!
//! A peer is announced to the router once its control link is ready and streams can go over it. A
//! connection that another one of its link has superseded is retired once that is up: it ends when its
//! streams have.
//!
//! The id of a peer belongs to the certificate that it has shown ([`IdOwners`]), and so do the data
//! connections of a group: knowing the name of a group does not make a peer a member.

mod cost;
mod peer;
mod waiting;

pub(in crate::core) use peer::{Peer, PeerOrigin};

use super::{
    effects::{Effects, RouterInput},
    identities::IdOwners,
};
use crate::{
    core::IncomingLink,
    link::{
        conn::ConnKey,
        handshake::{Established, RevokedCertificates},
    },
    messages::{CloseReason, Command},
    pki::CertificateIdentity,
    sys::clock,
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};
use waiting::WaitingConnections;

/// How long a data connection waits for its control connection, and a control connection of a peer
/// that trunks for its first data connection.
const GROUP_WAIT: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(in crate::core) struct Peers {
    by_key: BTreeMap<ConnKey, Peer>,
    waiting: WaitingConnections,
    id_owners: IdOwners,
}

impl Peers {
    /// Adds a control connection. False: its id belongs to another certificate.
    #[must_use]
    pub(in crate::core) fn insert(&mut self, key: ConnKey, peer: Peer) -> bool {
        let owner = peer.id_owner.clone();
        let is_own = self.id_owners.claim(&peer.remote, owner, peer.opened);
        if is_own {
            self.by_key.insert(key, peer);
        }
        is_own
    }

    /// Counts a peer that was refused because its id belongs to another certificate. Returns the number
    /// of unlogged ones before it if the caller must log this one.
    pub(in crate::core) fn note_refusal(&self, now: Instant) -> Option<u64> {
        self.id_owners.note_refusal(now)
    }

    /// Forgets the owners of ids that have been without a connection for long enough.
    pub(in crate::core) fn expire_ids(&mut self, now: Instant) {
        self.id_owners.expire(now);
    }

    pub(in crate::core) fn get(&self, key: ConnKey) -> Option<&Peer> {
        self.by_key.get(&key)
    }

    pub(in crate::core) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.by_key.values()
    }

    /// Connections of a link that is dialled here.
    pub(in crate::core) fn of_link(&self, name: &str) -> impl Iterator<Item = &Peer> {
        self.by_key.values().filter(move |p| p.is_of_link(name))
    }

    /// Whether a connection is one of another interior router, which takes part in routing.
    pub(in crate::core) fn is_interior(&self, key: ConnKey) -> bool {
        self.by_key.get(&key).is_some_and(|peer| !peer.is_edge)
    }

    /// Adds a data connection. Its worker, and whether we dialled; `None`: there is no such peer.
    pub(in crate::core) fn add_data(
        &mut self,
        key: ConnKey,
        group: ConnKey,
        workers: usize,
        effects: &mut Effects,
    ) -> Option<(usize, bool)> {
        let peer = self.by_key.get_mut(&group)?;
        // The n-th data connection of every link is on the n-th worker: a stream that passes
        // through finds its next connection on the worker it came in on.
        let load = |worker: &usize| peer.data.values().filter(|w| *w == worker).count();
        let worker = (0..workers).min_by_key(load).unwrap_or(0);
        peer.data.insert(key, worker);
        effects.update_view();
        Some((worker, !peer.is_incoming()))
    }

    pub(in crate::core) fn control_ready(&mut self, key: ConnKey, effects: &mut Effects) {
        if let Some(peer) = self.by_key.get_mut(&key) {
            peer.control_ready = true;
            self.announce(key, effects);
        }
    }

    /// Tells the router of a peer once streams can go over it.
    pub(in crate::core) fn announce(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(peer) = self.by_key.get_mut(&key) else {
            return;
        };
        let carries = !peer.data.is_empty() || peer.on_control;
        if peer.control_ready && carries && !std::mem::replace(&mut peer.announced, true) {
            let id = peer.remote.clone();
            effects.router(RouterInput::AddLink(key, peer.cost, id, peer.budget_owner));
        }
    }

    /// Has control connections carry streams whose data connections do not come.
    pub(in crate::core) fn carry_late(&mut self, now: Instant, effects: &mut Effects) {
        let late = |p: &Peer| {
            let waited = now.saturating_duration_since(p.without_data) > GROUP_WAIT;
            p.control_ready && !p.announced && (!p.trunking || waited)
        };
        let late = self.by_key.iter().filter(|(_, p)| late(p));
        for key in late.map(|(key, _)| *key).collect::<Vec<_>>() {
            if let Some(peer) = self.by_key.get_mut(&key) {
                peer.on_control = true;
                effects.send_command(key, Command::CarryStreams(key));
                effects.update_view();
            }
            self.announce(key, effects);
        }
    }

    /// A data connection has ended.
    pub(in crate::core) fn remove_data(
        &mut self,
        key: ConnKey,
        group: ConnKey,
        effects: &mut Effects,
    ) {
        let Some(peer) = self.by_key.get_mut(&group) else {
            return;
        };
        peer.data.remove(&key);
        effects.update_view();
        if !peer.data.is_empty() {
            return;
        }
        if peer.retired {
            effects.send_command(group, Command::Retire(group));
        } else if peer.announced && !peer.on_control {
            // No stream can go over it: without this, clients would be reset until the control connection
            // is found dead. It is announced again with the next data connection, or carries the streams
            // itself when none comes.
            (peer.announced, peer.without_data) = (false, clock::now());
            effects.router(RouterInput::RemoveLink(group));
        }
    }

    /// A control connection has ended, and its data connections with it.
    pub(in crate::core) fn remove(&mut self, key: ConnKey, effects: &mut Effects) -> Option<Peer> {
        let peer = self.by_key.remove(&key)?;
        self.id_owners
            .release(&peer.remote, &peer.id_owner, clock::now());
        effects.router(RouterInput::RemoveLink(key));
        effects.update_view();
        for data in peer.data.keys() {
            effects.close(*data, CloseReason::ControlEnded);
        }
        Some(peer)
    }

    /// The owner of the id of a peer that was removed leaves it for good.
    pub(in crate::core) fn give_up_id(&mut self, peer: &Peer) {
        self.id_owners.give_up(&peer.remote, &peer.id_owner);
    }

    /// Another connection of the link takes the place of this one, which is retired once that is up.
    pub(in crate::core) fn supersede(&mut self, key: ConnKey, effects: &mut Effects) {
        if let Some(peer) = self.by_key.get_mut(&key) {
            peer.superseded = true;
            self.retire_superseded(effects);
        }
    }

    /// Retires connections that others of their links have superseded, where one of those is up. Before
    /// that the router would lose the neighbour for a moment, and clients would be refused.
    pub(in crate::core) fn retire_superseded(&mut self, effects: &mut Effects) {
        let up = self.by_key.values();
        let up = up.filter(|p| p.is_neighbour && !p.superseded);
        let up: BTreeSet<&str> = up.filter_map(|p| p.link.as_deref()).collect();
        let due = |p: &Peer| {
            let replaced = p.link.as_deref().is_some_and(|link| up.contains(link));
            p.superseded && !p.retired && replaced
        };
        let due = self.by_key.iter().filter(|(_, p)| due(p));
        for key in due.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.retire(key, effects);
        }
    }

    /// Ends a connection when its streams have.
    fn retire(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(peer) = self.by_key.get_mut(&key) else {
            return;
        };
        peer.retired = true;
        for data in peer.data.keys() {
            effects.send_command(*data, Command::Retire(*data));
        }
        if peer.data.is_empty() || peer.on_control {
            effects.send_command(key, Command::Retire(key));
        }
    }

    /// Two-way contact began or ended. `None`: the connection is gone.
    pub(in crate::core) fn set_neighbour(&mut self, key: ConnKey, up: bool) -> Option<&Peer> {
        let peer = self.by_key.get_mut(&key)?;
        if up {
            peer.up_since = Some(Timestamp::now());
        }
        peer.is_neighbour = up;
        Some(peer)
    }

    pub(in crate::core) fn close(&self, key: ConnKey, reason: CloseReason, effects: &mut Effects) {
        if let Some(peer) = self.by_key.get(&key) {
            peer.close(key, reason, effects);
        }
    }

    pub(in crate::core) fn close_link(
        &self,
        name: &str,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        self.close_where(|p| p.is_of_link(name), reason, effects);
    }

    /// Closes what came in by a RouterAccess.
    pub(in crate::core) fn close_access(
        &self,
        name: &str,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        self.close_where(|p| p.access.as_deref() == Some(name), reason, effects);
    }

    pub(in crate::core) fn close_all(&self, reason: CloseReason, effects: &mut Effects) {
        self.close_where(|_| true, reason, effects);
    }

    fn close_where(
        &self,
        which: impl Fn(&Peer) -> bool,
        reason: CloseReason,
        effects: &mut Effects,
    ) {
        for (key, peer) in self.by_key.iter().filter(|(_, p)| which(p)) {
            peer.close(*key, reason, effects);
        }
    }

    /// Ends the links that came in with one of these certificates. Of a CA that is refused, a
    /// connection stays if its peer has connected again with better credentials: only its last streams
    /// are on it.
    pub(in crate::core) fn refuse(&mut self, refused: &RevokedCertificates, effects: &mut Effects) {
        let accepted = |p: &Peer| p.identity.as_ref().is_some_and(|i| !refused.contains(i));
        let reconnected = |p: &Peer| {
            let later = |q: &Peer| {
                q.remote == p.remote && q.opened > p.opened && q.is_incoming() && accepted(q)
            };
            self.by_key.values().any(later)
        };
        let cut = |p: &Peer| {
            p.identity.as_ref().is_some_and(|i| {
                refused.serials.contains(&i.serial)
                    || (refused.authorities.contains(&i.authority) && !reconnected(p))
            })
        };
        let reason = CloseReason::CertificateRevoked;
        self.close_where(|p| p.is_incoming() && cut(p), reason, effects);
        self.waiting.refuse(refused);
    }

    /// Links that came in and are up.
    pub(in crate::core) fn incoming_links(&self) -> Vec<IncomingLink> {
        let link = |p: &Peer| {
            Some(IncomingLink {
                remote: p.remote.clone(),
                peer: p.addr,
                identity: p.identity.clone()?,
            })
        };
        let up = self
            .by_key
            .values()
            .filter(|p| p.is_incoming() && p.is_neighbour);
        up.filter_map(link).collect()
    }

    /// The connection that an edge should use: the cheapest, of equals the oldest.
    pub(in crate::core) fn best_uplink(&self) -> Option<(ConnKey, &Peer)> {
        let up = self
            .by_key
            .iter()
            .filter(|(_, p)| p.is_neighbour && !p.retired);
        let best = up.min_by_key(|(key, p)| (p.cost, **key));
        best.map(|(key, peer)| (*key, peer))
    }

    /// Workers that carry streams, by control connection.
    pub(in crate::core) fn workers(&self) -> HashMap<ConnKey, Vec<usize>> {
        let workers = self.by_key.iter().map(|(key, peer)| {
            let control = peer.on_control.then_some(peer.worker);
            (*key, peer.data.values().copied().chain(control).collect())
        });
        workers
            .filter(|(_, w): &(_, Vec<usize>)| !w.is_empty())
            .collect()
    }

    /// The control connection that came in with this certificate, by the name of its group.
    pub(in crate::core) fn find_group(
        &self,
        correlator: &str,
        identity: Option<&CertificateIdentity>,
    ) -> Option<ConnKey> {
        let mut peers = self.by_key.iter();
        let own = |p: &Peer| {
            let same = p.identity.as_ref() == identity;
            p.is_incoming() && same && p.correlator.as_deref() == Some(correlator)
        };
        peers.find(|(_, p)| own(p)).map(|(key, _)| *key)
    }

    /// Keeps a data connection until its control connection comes.
    pub(in crate::core) fn wait_for_control(
        &mut self,
        correlator: String,
        established: Established,
    ) {
        self.waiting.add(correlator, established);
    }

    /// Takes the data connections that wait for a control connection with this certificate.
    pub(in crate::core) fn take_waiting(
        &mut self,
        correlator: Option<&str>,
        identity: Option<&CertificateIdentity>,
    ) -> Vec<Established> {
        self.waiting.take(correlator, identity)
    }

    /// Closes data connections that have waited too long.
    pub(in crate::core) fn drop_late_data(&mut self, now: Instant) {
        self.waiting.drop_late(now);
    }
}

#[cfg(test)]
mod tests;
