//! Mobile addresses and the edges that routers serve: those of this router, announced to the network,
//! and those that other routers announce.

mod remote;

pub(super) use remote::RemoteAddresses;

use super::{
    budget::{Usage, Via},
    changes::Changes,
};
use crate::router::{
    control::{Address, Control},
    routes::Treatment,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Bytes of addresses that one peer may bring, and all together. Ten thousand keys and as many edges take
/// three MiB.
const PEER_BUDGET: usize = 16 * 1024 * 1024;
const BUDGET: usize = 64 * 1024 * 1024;
/// Updates that may follow the last one that an RA named before the next RA comes.
const MAX_AHEAD: i64 = 1024;
/// First character of a key in MAUs for a mobile address (`iterator.h` of skupper-router).
const MOBILE: char = 'M';
/// The same for the id of an edge.
const EDGE: char = 'H';

#[derive(Debug)]
pub(super) struct Addresses {
    local: BTreeMap<String, LocalAddress>,
    /// Keys that the next update announces and withdraws.
    added: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Number of the last update.
    seq: i64,
    remote: BTreeMap<String, RemoteAddresses>,
    usage: Usage,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            local: BTreeMap::new(),
            added: BTreeSet::new(),
            deleted: BTreeSet::new(),
            seq: 0,
            remote: BTreeMap::new(),
            usage: Usage::new(PEER_BUDGET, BUDGET),
        }
    }
}

/// Result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    Taken,
    /// An earlier update is missing: request all addresses.
    Missing,
    /// There was no room for all addresses.
    OverBudget,
}

/// An address with consumers on this router.
#[derive(Debug)]
pub(super) struct LocalAddress {
    pub(super) treatment: Treatment,
    /// Connectors, AMQP clients, and edges that are served here.
    pub(super) consumers: usize,
}

impl Addresses {
    // ---- of this router ----

    pub(super) fn add_consumer(
        &mut self,
        address: &str,
        treatment: Treatment,
        changes: &mut Changes,
    ) {
        let new = || LocalAddress {
            treatment,
            consumers: 0,
        };
        let entry = self.local.entry(address.to_owned()).or_insert_with(new);
        entry.consumers += 1;
        if entry.consumers == 1 {
            self.announce(format!("{MOBILE}{address}"));
        }
        changes.address(address);
    }

    pub(super) fn remove_consumer(&mut self, address: &str, changes: &mut Changes) {
        let Some(entry) = self.local.get_mut(address) else {
            return;
        };
        entry.consumers -= 1;
        if entry.consumers == 0 {
            self.local.remove(address);
            self.withdraw(format!("{MOBILE}{address}"));
        }
        changes.address(address);
    }

    pub(super) fn announce_edge(&mut self, id: &str) {
        self.announce(format!("{EDGE}{id}"));
    }

    pub(super) fn withdraw_edge(&mut self, id: &str) {
        self.withdraw(format!("{EDGE}{id}"));
    }

    fn announce(&mut self, key: String) {
        if !self.deleted.remove(&key) {
            self.added.insert(key);
        }
    }

    fn withdraw(&mut self, key: String) {
        if !self.added.remove(&key) {
            self.deleted.insert(key);
        }
    }

    /// The update with all changes since the last one.
    pub(super) fn take_update(&mut self, own: &str) -> Option<Control> {
        if self.added.is_empty() && self.deleted.is_empty() {
            return None;
        }
        self.seq += 1;
        let add = std::mem::take(&mut self.added);
        Some(Control::MauDelta {
            id: own.to_owned(),
            seq: self.seq,
            add: add.into_iter().map(|key| self.described(key)).collect(),
            del: std::mem::take(&mut self.deleted).into_iter().collect(),
        })
    }

    /// The answer to a request: all addresses. `None`: the router has the last update already.
    pub(super) fn full_update(
        &self,
        own: &str,
        have_seq: i64,
        edges: Vec<String>,
    ) -> Option<Control> {
        if have_seq >= self.seq && have_seq != 0 {
            return None;
        }
        let mobile = self
            .local
            .keys()
            .map(|address| format!("{MOBILE}{address}"));
        let edges = edges.into_iter().map(|id| format!("{EDGE}{id}"));
        let exist = mobile.chain(edges).map(|key| self.described(key));
        Some(Control::MauFull {
            id: own.to_owned(),
            seq: self.seq,
            exist: exist.collect(),
        })
    }

    /// A key as updates describe it.
    fn described(&self, key: String) -> Address {
        let mobile = key.strip_prefix(MOBILE);
        let treatment = match mobile.map(|address| self.local.get(address)) {
            Some(Some(local)) => local.treatment,
            Some(None) => Treatment::Balanced,
            None => Treatment::Closest,
        };
        Address {
            key,
            treatment: treatment.to_wire(),
        }
    }

    pub(super) fn local(&self) -> &BTreeMap<String, LocalAddress> {
        &self.local
    }

    pub(super) fn local_consumers(&self, address: &str) -> usize {
        self.local.get(address).map_or(0, |local| local.consumers)
    }

    pub(super) fn seq(&self) -> i64 {
        self.seq
    }

    // ---- of other routers ----

    /// Takes the number of an update from an RA. Returns whether to request addresses at once.
    pub(super) fn on_ra(&mut self, id: &str, seq: i64) -> bool {
        let router = self.remote.entry(id.to_owned()).or_default();
        let is_behind = seq < router.seq;
        router.behind = if is_behind { router.behind + 1 } else { 0 };
        // The known update has overtaken the RA, or is not the router's own.
        router.doubted |= is_behind;
        if router.behind == 2 {
            router.seq = 0;
        }
        let news = std::mem::replace(&mut router.latest, seq) != seq;
        if news || !is_behind {
            router.announced = seq;
        }
        news || is_behind
    }

    /// Takes an update. `via`: the link that it came over.
    pub(super) fn on_delta(
        &mut self,
        (id, seq): (&str, i64),
        add: Vec<Address>,
        del: &[String],
        via: Via,
        changes: &mut Changes,
    ) -> Update {
        let router = self.remote.entry(id.to_owned()).or_default();
        if Some(seq) == router.seq.checked_add(1) {
            router.seq = seq;
            router.announced = router.announced.max(seq);
            router.move_to(via, &mut self.usage);
            for key in del {
                router.remove(key, &mut self.usage, changes);
            }
            return router.insert(add, &mut self.usage, changes);
        }
        if seq > router.seq {
            // Nothing else bounds claims that others make in the router's name.
            let most = router.latest.saturating_add(MAX_AHEAD);
            router.announced = router.announced.max(seq.min(most));
            router.requested = None;
            return Update::Missing;
        }
        Update::Taken
    }

    /// Takes an answer with everything that a router has.
    pub(super) fn on_full(
        &mut self,
        (id, seq): (&str, i64),
        exist: Vec<Address>,
        via: Via,
        changes: &mut Changes,
    ) -> Update {
        let router = self.remote.entry(id.to_owned()).or_default();
        if seq > router.announced {
            // Taken, its number would make all true updates look old.
            router.doubted = true;
            return Update::Missing;
        }
        if seq == router.seq && seq != 0 && !router.doubted && !router.has_exactly(&exist) {
            // One of the two is not the router's own, and its RAs have the same number.
            router.doubted = true;
            return Update::Missing;
        }
        router.seq = seq;
        router.requested = None;
        router.doubted = false;
        if seq == router.latest {
            // Higher numbers were not the router's own.
            router.announced = seq;
        }
        let mobile = std::mem::take(&mut router.mobile);
        let edges = std::mem::take(&mut router.edges);
        self.usage
            .subtract(router.via, std::mem::take(&mut router.bytes));
        router.via = via;
        let update = router.insert(exist, &mut self.usage, &mut Changes::default());
        changes.differences(&mobile, &router.mobile);
        changes.edges |= edges != router.edges;
        update
    }

    /// Drops the addresses of an unreachable router; once reachable, they are requested again.
    pub(super) fn clear(&mut self, id: &str, changes: &mut Changes) {
        if let Some(router) = self.remote.get_mut(id) {
            router
                .mobile
                .keys()
                .for_each(|address| changes.address(address));
            changes.edges |= !router.edges.is_empty();
            self.usage.subtract(router.via, router.bytes);
            *router = RemoteAddresses {
                latest: router.latest,
                announced: router.latest,
                ..RemoteAddresses::default()
            };
        }
    }

    pub(super) fn remove(&mut self, id: &str, changes: &mut Changes) {
        self.clear(id, changes);
        self.remote.remove(id);
    }

    /// Reachable routers to request newer addresses from. Requests without an answer are repeated after
    /// `retry_after`.
    pub(super) fn take_requests(
        &mut self,
        is_reachable: impl Fn(&str) -> bool,
        now: Instant,
        retry_after: Duration,
    ) -> Vec<String> {
        let mut ids = Vec::new();
        for (id, router) in &mut self.remote {
            let requested = router.requested.map(|at| now.saturating_duration_since(at));
            let due = requested.is_none_or(|ago| ago > retry_after);
            let wanted = router.announced > router.seq || router.doubted;
            if wanted && due && is_reachable(id) {
                router.requested = Some(now);
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Lets the next request be sent at once.
    pub(super) fn request_at_once(&mut self, id: &str) {
        if let Some(router) = self.remote.get_mut(id) {
            router.requested = None;
        }
    }

    pub(super) fn of_router(&self, id: &str) -> Option<&RemoteAddresses> {
        self.remote.get(id)
    }

    /// What other routers have announced, by their ids.
    pub(super) fn remote(&self) -> &BTreeMap<String, RemoteAddresses> {
        &self.remote
    }
}
