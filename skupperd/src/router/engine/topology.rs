//! The link states of other routers, and the paths that follow from them.

mod paths;

use super::{
    budget::{Allowance, Usage, Via},
    neighbours::MAX_COST,
};
use crate::router::{
    paths::{Path, TransitPaths},
    routes::ConnId,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Bytes of link states that one peer may bring, and all together: a thousand routers with eight
/// neighbours each take one MiB. skupper-router has bit masks for 128 routers.
const PEER_BUDGET: usize = 2 * 1024 * 1024;
const BUDGET: usize = 4 * 1024 * 1024;
/// What a router counts for beside its id: its state, its path and its route.
const ROUTER_BYTES: usize = 256;
/// The same of a neighbour in a link state.
const PEER_BYTES: usize = 48;
/// Nodes and edges that paths may be computed over in a millisecond, and at once: about a tenth of a
/// processor. A network of a thousand routers has ten thousand.
const RATE: u64 = 250;
const BURST: u64 = 500_000;
/// Requests of link states that are sent at once. Each needs a message of its own.
const MAX_REQUESTS: usize = 256;
/// Routers from which on requests wait for the next HELLO.
const LARGE: usize = 1024;
/// Longest time between two requests of a link state that is not answered.
const MAX_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Topology {
    routers: BTreeMap<String, RemoteRouter>,
    usage: Usage,
    paths: BTreeMap<String, Path>,
    /// Links towards the neighbours that are on these paths.
    next_hops: BTreeMap<String, Via>,
    transit: TransitPaths,
    /// A link state has changed since the paths were computed.
    dirty: bool,
    /// Nodes and edges of the present paths.
    size: usize,
    work: Allowance,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            routers: BTreeMap::new(),
            usage: Usage::new(PEER_BUDGET, BUDGET),
            paths: BTreeMap::new(),
            next_hops: BTreeMap::new(),
            transit: TransitPaths::default(),
            dirty: false,
            size: 0,
            work: Allowance::new(RATE, BURST),
        }
    }
}

/// What another router has announced.
#[derive(Debug, Default)]
struct RemoteRouter {
    /// 0: unknown, the router only appears in link states of others.
    instance: i64,
    /// Number of the link state that is known.
    seq: i64,
    /// Number that its last RA had.
    latest: i64,
    peers: BTreeMap<String, u32>,
    /// Bytes that it counts for, and the link that it was heard of on.
    bytes: usize,
    via: Via,
    last_seen: Option<Instant>,
    requested: Option<Instant>,
    /// Requests since the last answer.
    unanswered: u32,
    /// Its last RAs had a lower number than its link state: that was not its own.
    behind: u32,
    /// Two link states with one number differ: request another answer.
    doubted: bool,
    unreachable_since: Option<Instant>,
}

/// What a message has changed about a router's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouterInstance {
    Known,
    /// Its instance is known for the first time.
    New,
    /// Its instance differs: earlier link states and addresses are void.
    Restarted,
    /// There is no room for another router.
    Refused,
}

/// Effect: the addresses of a router are void.
#[derive(Debug)]
pub(super) struct Unreachable {
    pub(super) id: String,
    /// The router itself is forgotten.
    pub(super) removed: bool,
}

impl Topology {
    /// There is room for the state of this router, or it is known already.
    pub(super) fn has_room(&self, id: &str, via: Via) -> bool {
        self.routers.contains_key(id) || self.usage.has_room(via, ROUTER_BYTES + id.len())
    }

    /// Makes sure that a router is known. `via`: the link that it was heard on.
    pub(super) fn identify(
        &mut self,
        id: &str,
        instance: i64,
        via: Via,
        now: Instant,
    ) -> RouterInstance {
        if let Some(router) = self.routers.get_mut(id) {
            if router.instance == instance {
                return RouterInstance::Known;
            }
            if router.instance == 0 {
                router.instance = instance;
                router.last_seen = Some(now);
                return RouterInstance::New;
            }
            self.dirty = true;
            self.usage.subtract(router.via, router.bytes);
            *router = RemoteRouter {
                instance,
                last_seen: router.last_seen,
                bytes: ROUTER_BYTES + id.len(),
                via,
                ..RemoteRouter::default()
            };
            self.usage.add(via, router.bytes);
            return RouterInstance::Restarted;
        }
        if !self.add(id, instance, via, now) {
            return RouterInstance::Refused;
        }
        // Without a link state it changes no path.
        self.dirty |= self.paths.contains_key(id);
        RouterInstance::New
    }

    /// Adds a router. False: there is no room.
    fn add(&mut self, id: &str, instance: i64, via: Via, now: Instant) -> bool {
        let bytes = ROUTER_BYTES + id.len();
        if !self.usage.has_room(via, bytes) {
            return false;
        }
        self.usage.add(via, bytes);
        let router = RemoteRouter {
            instance,
            bytes,
            via,
            last_seen: Some(now),
            ..RemoteRouter::default()
        };
        self.routers.insert(id.to_owned(), router);
        true
    }

    /// The instance of a router that has spoken.
    pub(super) fn instance(&self, id: &str) -> Option<i64> {
        let router = self.routers.get(id)?;
        Some(router.instance).filter(|instance| *instance != 0)
    }

    /// So many routers are known that a search through them is not for each message.
    pub(super) fn is_large(&self) -> bool {
        self.routers.len() > LARGE
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.routers.contains_key(id)
    }

    /// Takes the number of a link state from an RA. True: it has changed.
    pub(super) fn on_ra(&mut self, id: &str, seq: i64, now: Instant) -> bool {
        let Some(router) = self.routers.get_mut(id) else {
            return false;
        };
        router.last_seen = Some(now);
        router.behind = if seq < router.seq {
            router.behind + 1
        } else {
            0
        };
        // The known link state has overtaken the RA, or is not the router's own.
        router.doubted |= router.behind > 0;
        let is_void = router.behind == 2;
        if is_void {
            router.seq = 0;
        }
        let news = std::mem::replace(&mut router.latest, seq) != seq || is_void;
        if news {
            router.unanswered = 0;
        }
        news
    }

    /// Takes a link state that was asked for. False: there is no room for it.
    pub(super) fn on_lsu(
        &mut self,
        id: &str,
        seq: i64,
        mut peers: BTreeMap<String, u32>,
        via: Via,
        now: Instant,
    ) -> bool {
        let Some(router) = self.routers.get_mut(id) else {
            return true;
        };
        router.last_seen = Some(now);
        // Without an RA, only an answer is accepted; else nothing newer than the RA.
        let is_wanted = match router.latest {
            0 => router.requested.is_some(),
            latest => seq <= latest,
        };
        // The router itself has named this lower number, and has been asked for it.
        let is_own = router.behind > 0 && router.requested.is_some() && seq == router.latest;
        if (seq < router.seq && !is_own) || !is_wanted {
            return true;
        }
        peers.remove(id);
        peers
            .values_mut()
            .for_each(|cost| *cost = (*cost).clamp(1, MAX_COST));
        if seq == router.seq && seq != 0 && !router.doubted && router.peers != peers {
            // One of the two is not the router's own, and its RAs have the same number.
            router.doubted = true;
            return true;
        }
        let bytes = |peers: &BTreeMap<String, u32>| -> usize {
            let ids = peers.keys().map(|peer| PEER_BYTES + peer.len());
            ROUTER_BYTES + id.len() + ids.sum::<usize>()
        };
        let (before, after) = (router.bytes, bytes(&peers));
        self.usage.subtract(router.via, before);
        if !self.usage.has_room(via, after) {
            self.usage.add(router.via, before);
            return false;
        }
        self.usage.add(via, after);
        (router.via, router.bytes) = (via, after);
        router.seq = seq;
        router.requested = None;
        router.doubted = false;
        router.behind = 0;
        router.unanswered = 0;
        if router.peers != peers {
            router.peers = peers;
            self.dirty = true;
        }
        true
    }

    /// Links of this router have changed.
    pub(super) fn neighbours_changed(&mut self) {
        self.dirty = true;
    }

    /// Voids link states of routers that have been silent for longer than this.
    pub(super) fn expire(&mut self, now: Instant, max_age: Duration) {
        for (id, router) in &mut self.routers {
            let age = router.last_seen.map(|at| now.saturating_duration_since(at));
            if age.is_some_and(|age| age > max_age) && !router.peers.is_empty() {
                router.peers.clear();
                router.seq = 0;
                let bytes = ROUTER_BYTES + id.len();
                self.usage.subtract(router.via, router.bytes - bytes);
                router.bytes = bytes;
                self.dirty = true;
            }
        }
    }

    /// Forgets unreachable routers once they have no link state, or the link that they were heard of on is
    /// gone.
    pub(super) fn expire_unreachable(
        &mut self,
        now: Instant,
        hold: Duration,
        is_link: impl Fn(ConnId) -> bool,
    ) -> Vec<Unreachable> {
        let (paths, usage, mut effects) = (&self.paths, &mut self.usage, Vec::new());
        self.routers.retain(|id, router| {
            if paths.contains_key(id) {
                router.unreachable_since = None;
                return true;
            }
            let since = *router.unreachable_since.get_or_insert(now);
            let age = now.saturating_duration_since(since);
            if age < hold {
                return true;
            }
            let is_void = router.peers.is_empty() || !is_link(router.via.link);
            let removed = is_void && age >= hold * 3;
            if removed {
                usage.subtract(router.via, router.bytes);
            }
            let id = id.clone();
            effects.push(Unreachable { id, removed });
            !removed
        });
        effects
    }

    // ---- requests ----

    /// Reachable routers to request a newer link state from. Requests without an answer are repeated
    /// after `retry_after`.
    pub(super) fn take_requests(&mut self, now: Instant, retry_after: Duration) -> Vec<String> {
        let named = self.paths.iter();
        let named = named.filter(|(id, _)| !self.routers.contains_key(*id));
        let named: Vec<(String, String)> = named
            .take(MAX_REQUESTS)
            .map(|(id, path)| (id.clone(), path.next_hop.clone()))
            .collect();
        for (id, next_hop) in named {
            if let Some(via) = self.next_hops.get(&next_hop).copied() {
                self.add(&id, 0, via, now);
            }
        }
        let mut ids = Vec::new();
        for (id, router) in &mut self.routers {
            if ids.len() == MAX_REQUESTS {
                break;
            }
            let is_old = router.seq == 0 || router.latest > router.seq || router.doubted;
            let retry_after = retry_after * 2u32.saturating_pow(router.unanswered.min(10));
            let retry_after = retry_after.min(MAX_PATIENCE);
            let requested = router.requested.map(|at| now.saturating_duration_since(at));
            let is_due = requested.is_none_or(|ago| ago > retry_after);
            if is_old && is_due && self.paths.contains_key(id) {
                router.unanswered += u32::from(requested.is_some());
                router.requested = Some(now);
                ids.push(id.clone());
            }
        }
        ids
    }

    /// Lets the next request be sent at once.
    pub(super) fn request_at_once(&mut self, id: &str) {
        if let Some(router) = self.routers.get_mut(id) {
            router.requested = None;
            router.unanswered = 0;
        }
    }
}
