//! The state machine of a router: who the neighbours are, what others say, when to say what.

mod addresses;
mod edges;
mod picture;
mod table;
mod uplink;

pub use edges::TooMany;
pub use picture::NetworkRouter;
pub use table::Work;

use super::{
    ConnId,
    paths::{Passing, Path},
    routes::{RouterRoute, Routes, Target, Treatment},
    wire::{AREA, Control, ControlError},
};
use crate::amqp::message::Message;
use bytes::{Bytes, BytesMut};
use edges::Edge;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use table::{Shares, Stale};
use uplink::Uplink;

/// Routers kept in memory: upstream's limit is 128, and ids cost next to nothing.
const MAX_ROUTERS: usize = 1024;
/// Higher costs are taken as this, so that a sum stays a sum.
const MAX_COST: u32 = 1 << 24;

/// A router's identity and timers; the defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Router id.
    pub id: String,
    /// Start time in seconds since the epoch; tells a restart from a pause.
    pub instance: i64,
    /// Interval between HELLOs.
    pub hello_interval: Duration,
    /// Silence after which a neighbour is lost.
    pub hello_max_age: Duration,
    /// Interval between RAs.
    pub ra_interval: Duration,
    /// The same while things change.
    pub ra_interval_flux: Duration,
    /// Silence after which a remote router's link state is void.
    pub remote_ls_max_age: Duration,
    /// How long addresses of an unreachable router are kept.
    pub unreachable_holdoff: Duration,
    /// Of an edge: the name of its mesh, which is of this edge alone. None: an interior router.
    pub mesh: Option<String>,
}

impl Config {
    /// Upstream's timers.
    pub fn new(id: impl Into<String>, instance: i64) -> Self {
        Self {
            id: id.into(),
            instance,
            hello_interval: Duration::from_secs(1),
            hello_max_age: Duration::from_secs(3),
            ra_interval: Duration::from_secs(30),
            ra_interval_flux: Duration::from_secs(4),
            remote_ls_max_age: Duration::from_secs(60),
            unreachable_holdoff: Duration::from_secs(1),
            mesh: None,
        }
    }
}

/// What the driver has to do or know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this message on a link's control connection.
    Control {
        /// The link.
        link: ConnId,
        /// The whole message.
        message: Bytes,
    },
    /// [`Router::routes`] gives another picture now.
    RoutesChanged,
    /// Two-way contact.
    NeighbourUp {
        /// The link.
        link: ConnId,
        /// The neighbour.
        id: String,
    },
    /// Contact lost.
    NeighbourLost {
        /// The link.
        link: ConnId,
        /// The neighbour.
        id: String,
    },
    /// Another router says that it is us.
    DuplicateId {
        /// The link it was heard on.
        link: ConnId,
    },
    /// Tell an edge whether anybody receives what it sends to an address.
    Reachable {
        /// Its connection.
        edge: ConnId,
        /// The address.
        address: String,
        /// Somebody does.
        reachable: bool,
    },
}

#[derive(Debug)]
struct Link {
    cost: u32,
    /// Who is heard on it.
    peer: Option<String>,
    /// Last HELLO that names us.
    two_way: Option<Instant>,
}

#[derive(Debug, Default)]
struct Other {
    instance: i64,
    ls_seq: i64,
    peers: BTreeMap<String, u32>,
    mobile_seq: i64,
    /// What it last said its sequences are.
    latest: (i64, i64),
    mobile: BTreeMap<String, Treatment>,
    /// Edges that it serves.
    edges: BTreeSet<String>,
    heard: Option<Instant>,
    asked_ls: Option<Instant>,
    asked_mobile: Option<Instant>,
    unreachable_since: Option<Instant>,
}

/// The state machine.
#[derive(Debug)]
pub struct Router {
    cfg: Config,
    now: Instant,
    links: BTreeMap<ConnId, Link>,
    remotes: BTreeMap<String, Other>,
    heard: BTreeMap<String, Instant>,
    own_peers: BTreeMap<String, u32>,
    ls_seq: i64,
    mobile_seq: i64,
    local: BTreeMap<String, (Treatment, usize)>,
    /// Keys that the network is to be told of, as updates have them.
    added: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Connections of edges that are served here.
    edges: BTreeMap<ConnId, Edge>,
    /// Edges may have to be told something.
    telling: bool,
    /// Of an edge: its way into the network.
    uplink: Uplink,
    paths: BTreeMap<String, Path>,
    /// Links towards the neighbours that are on these paths.
    hops: BTreeMap<String, ConnId>,
    passing: Passing,
    topology_dirty: bool,
    /// Somebody may have to be asked for something.
    asking: bool,
    /// Ways to other routers, as the picture has them.
    ways: Arc<BTreeMap<String, RouterRoute>>,
    /// What of `routes` is to be made anew.
    stale: Stale,
    routes: Arc<Routes>,
    shares: Shares,
    work: Work,
    next_hello: Instant,
    next_ra: Instant,
    flux_until: Instant,
    out: VecDeque<Output>,
}

impl Router {
    /// A router without links.
    pub fn new(cfg: Config, now: Instant) -> Self {
        let routes = Arc::new(Routes {
            self_id: cfg.id.clone(),
            mesh: cfg.mesh.as_deref().map(Arc::from),
            ..Routes::default()
        });
        Self {
            next_hello: now,
            next_ra: now + cfg.ra_interval_flux,
            flux_until: now,
            cfg,
            now,
            links: BTreeMap::new(),
            remotes: BTreeMap::new(),
            heard: BTreeMap::new(),
            own_peers: BTreeMap::new(),
            ls_seq: 0,
            mobile_seq: 0,
            local: BTreeMap::new(),
            added: BTreeSet::new(),
            deleted: BTreeSet::new(),
            edges: BTreeMap::new(),
            telling: false,
            uplink: Uplink::default(),
            paths: BTreeMap::new(),
            hops: BTreeMap::new(),
            passing: Passing::default(),
            topology_dirty: false,
            asking: false,
            ways: Arc::default(),
            stale: Stale::default(),
            routes,
            shares: Shares::default(),
            work: Work::default(),
            out: VecDeque::new(),
        }
    }

    /// This router's id.
    pub fn id(&self) -> &str {
        &self.cfg.id
    }

    // ---- links ----

    /// A link's control connection is up. Several links to one neighbour are allowed.
    pub fn link_up(&mut self, link: ConnId, cost: u32, now: Instant) {
        self.now = now;
        let cost = cost.clamp(1, MAX_COST);
        self.links.insert(
            link,
            Link {
                cost,
                peer: None,
                two_way: None,
            },
        );
        self.send_hello(link);
    }

    /// A link's cost is another.
    pub fn link_cost(&mut self, link: ConnId, cost: u32, now: Instant) {
        self.now = now;
        if let Some(link) = self.links.get_mut(&link) {
            link.cost = cost.clamp(1, MAX_COST);
            self.neighbours_changed();
        }
    }

    /// A link's control connection is gone.
    pub fn link_down(&mut self, link: ConnId, now: Instant) {
        self.now = now;
        let Some(state) = self.links.remove(&link) else {
            return;
        };
        if let (Some(id), Some(_)) = (state.peer, state.two_way) {
            self.lost(link, id);
        }
    }

    fn lost(&mut self, link: ConnId, id: String) {
        if !self
            .links
            .values()
            .any(|l| l.peer.as_ref() == Some(&id) && l.two_way.is_some())
        {
            self.heard.remove(&id);
        }
        self.out.push_back(Output::NeighbourLost { link, id });
        self.neighbours_changed();
    }

    /// The neighbour's links in order of preference: cheapest first.
    fn links_to<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (u32, ConnId)> + 'a {
        let up = self
            .links
            .iter()
            .filter(move |(_, l)| l.two_way.is_some() && l.peer.as_deref() == Some(id));
        up.map(|(conn, l)| (l.cost, *conn))
    }

    fn neighbours_changed(&mut self) {
        let mut peers = BTreeMap::new();
        for link in self.links.values().filter(|l| l.two_way.is_some()) {
            if let Some(id) = &link.peer {
                let cost = peers.entry(id.clone()).or_insert(link.cost);
                *cost = link.cost.min(*cost);
            }
        }
        // Even when costs stay the same another link may carry the traffic now.
        self.topology_dirty = true;
        if peers != self.own_peers {
            self.own_peers = peers;
            self.ls_seq += 1;
            self.recompute();
            self.flux();
        }
    }

    /// Things change: say so now, and more often for a while.
    fn flux(&mut self) {
        self.flux_until = self.now + self.cfg.ra_interval_flux * 2;
        self.send_ra();
    }

    // ---- sending ----

    fn send(&mut self, link: ConnId, control: &Control, to: String) {
        let message = control.encode(&self.cfg.id, to);
        self.out.push_back(Output::Control { link, message });
    }

    fn send_hello(&mut self, link: ConnId) {
        let hello = Control::Hello {
            id: self.cfg.id.clone(),
            instance: self.cfg.instance,
            seen: self.heard.keys().cloned().collect(),
        };
        self.send(link, &hello, "amqp:/_local/qdhello".to_owned());
    }

    /// To a router, over the next hop.
    fn send_to(&mut self, id: &str, control: &Control, endpoint: &str) {
        let Some(link) = self.towards(id) else {
            return;
        };
        self.send(link, control, format!("amqp:/_topo/{AREA}/{id}/{endpoint}"));
    }

    /// An answer, over the next hop; while there is none yet, back where the question came from: the
    /// routers in between have passed it on and know the way.
    fn answer(&mut self, from: ConnId, id: &str, control: &Control, endpoint: &str) {
        let link = self.towards(id).unwrap_or(from);
        self.send(link, control, format!("amqp:/_topo/{AREA}/{id}/{endpoint}"));
    }

    /// To every router, over each next hop once.
    fn flood(&mut self, control: &Control, endpoint: &str) {
        self.recompute();
        let links: BTreeSet<ConnId> = self.hops.values().copied().collect();
        for link in links {
            self.send(link, control, format!("amqp:/_topo/{AREA}/all/{endpoint}"));
        }
    }

    fn send_ra(&mut self) {
        let ra = Control::Ra {
            id: self.cfg.id.clone(),
            instance: self.cfg.instance,
            ls_seq: self.ls_seq,
            mobile_seq: self.mobile_seq,
        };
        self.flood(&ra, "qdrouter");
        let flux = self.now < self.flux_until;
        let interval = if flux {
            self.cfg.ra_interval_flux
        } else {
            self.cfg.ra_interval
        };
        self.next_ra = self.now + interval;
    }

    // ---- receiving ----

    /// A control message has come in on a link. What is for others is passed on.
    pub fn control(
        &mut self,
        link: ConnId,
        bytes: &[u8],
        now: Instant,
    ) -> Result<(), ControlError> {
        self.now = now;
        let message = Message::decode(bytes)?;
        let to = message.to().unwrap_or_default().to_owned();
        match Target::parse(&to) {
            Target::Local(_) => {}
            Target::All(_) => self.pass_flood(link, &message),
            Target::Router { id, .. } if id == self.cfg.id => {}
            Target::Router { id, .. } => {
                self.pass_on(link, id, &message);
                return Ok(());
            }
            Target::Edge { .. } | Target::Mobile(_) => return Ok(()),
        }
        let control = Control::decode(&message)?;
        if control.id() == self.cfg.id {
            if matches!(control, Control::Hello { .. }) {
                self.out.push_back(Output::DuplicateId { link });
            }
            return Ok(());
        }
        self.act(link, control);
        Ok(())
    }

    fn act(&mut self, link: ConnId, control: Control) {
        match control {
            Control::Hello { id, instance, seen } => self.on_hello(link, id, instance, &seen),
            Control::Ra {
                id,
                instance,
                ls_seq,
                mobile_seq,
            } => {
                if !self.know(&id, instance) {
                    return;
                }
                let now = self.now;
                let Some(remote) = self.remotes.get_mut(&id) else {
                    return;
                };
                remote.heard = Some(now);
                if remote.latest != (ls_seq, mobile_seq) {
                    remote.latest = (ls_seq, mobile_seq);
                    // News: asked for at once, whatever is under way.
                    (remote.asked_ls, remote.asked_mobile) = (None, None);
                    self.asking = true;
                }
            }
            Control::Lsr { id } => {
                let lsu = Control::Lsu {
                    id: self.cfg.id.clone(),
                    instance: self.cfg.instance,
                    ls_seq: self.ls_seq,
                    peers: self.own_peers.clone(),
                };
                self.answer(link, &id, &lsu, "qdrouter");
            }
            Control::Lsu {
                id,
                instance,
                ls_seq,
                mut peers,
            } => {
                if !self.know(&id, instance) {
                    return;
                }
                let now = self.now;
                let Some(remote) = self.remotes.get_mut(&id) else {
                    return;
                };
                remote.heard = Some(now);
                if ls_seq < remote.ls_seq {
                    return;
                }
                remote.ls_seq = ls_seq;
                peers.remove(&id);
                peers
                    .values_mut()
                    .for_each(|cost| *cost = (*cost).clamp(1, MAX_COST));
                remote.asked_ls = None;
                if remote.peers != peers {
                    remote.peers = peers;
                    self.topology_dirty = true;
                }
            }
            Control::Mar { id, have_seq } => self.on_mar(link, &id, have_seq),
            Control::MauDelta { id, seq, add, del } => self.on_mau_delta(&id, seq, add, &del),
            Control::MauFull { id, seq, exist } => self.on_mau_full(&id, seq, exist),
        }
    }

    fn on_hello(&mut self, link: ConnId, id: String, instance: i64, seen: &[String]) {
        if !self.know(&id, instance) {
            return;
        }
        let first = self.heard.insert(id.clone(), self.now).is_none();
        let now = self.now;
        let two_way = seen.contains(&self.cfg.id);
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let changed = state.peer.as_ref() != Some(&id);
        let previous = if changed {
            state.peer.replace(id.clone())
        } else {
            None
        };
        let was_up = state.two_way.is_some();
        if changed {
            state.two_way = None;
        }
        if two_way {
            state.two_way = Some(now);
        }
        let up = two_way && (changed || !was_up);
        if let (true, Some(previous)) = (was_up, previous) {
            self.lost(link, previous);
        }
        if first || !two_way {
            // The other side waits to be named: the next tick would cost it up to a second.
            self.send_hello(link);
        }
        if up {
            self.out.push_back(Output::NeighbourUp {
                link,
                id: id.clone(),
            });
            self.neighbours_changed();
            self.send_ra();
        }
    }

    /// Makes sure that a router is known; a changed instance is a restart. False: no room for it.
    fn know(&mut self, id: &str, instance: i64) -> bool {
        if let Some(remote) = self.remotes.get_mut(id) {
            if remote.instance != instance {
                let known = remote.instance != 0;
                let before = std::mem::take(remote);
                *remote = Other {
                    instance,
                    heard: before.heard,
                    ..Other::default()
                };
                self.stale.without(&before);
                self.topology_dirty |= known;
            }
            return true;
        }
        if self.remotes.len() >= MAX_ROUTERS {
            return false;
        }
        let heard = Some(self.now);
        self.remotes.insert(
            id.to_owned(),
            Other {
                instance,
                heard,
                ..Other::default()
            },
        );
        self.topology_dirty = true;
        true
    }

    /// Asks every router that can be reached for what it has and we do not. Questions whose answer got
    /// lost are asked again after two seconds.
    fn ask(&mut self) {
        let (now, patience) = (self.now, self.cfg.hello_interval * 2);
        let due = |asked: Option<Instant>| {
            asked.is_none_or(|at| now.saturating_duration_since(at) > patience)
        };
        let ids: Vec<String> = self.paths.keys().cloned().collect();
        for id in ids {
            if !self.remotes.contains_key(&id) && self.remotes.len() >= MAX_ROUTERS {
                continue;
            }
            let remote = self.remotes.entry(id.clone()).or_insert_with(|| Other {
                heard: Some(now),
                ..Other::default()
            });
            let ls = remote.ls_seq == 0 || remote.latest.0 > remote.ls_seq;
            let mobile = remote.latest.1 > remote.mobile_seq;
            let (ls, mobile) = (
                ls && due(remote.asked_ls),
                mobile && due(remote.asked_mobile),
            );
            if ls {
                remote.asked_ls = Some(now);
                let lsr = Control::Lsr {
                    id: self.cfg.id.clone(),
                };
                self.send_to(&id, &lsr, "qdrouter");
            }
            if mobile {
                self.ask_addresses(&id);
            }
        }
    }

    // ---- passing on ----

    fn traced(&self, message: &Message) -> Option<(Message, Option<String>)> {
        let mut message = message.clone();
        let own = format!("{AREA}/{}", self.cfg.id);
        let annotations = message.annotations.get_or_insert_default();
        if annotations.trace.contains(&own) {
            return None;
        }
        annotations.trace.push(own);
        let ingress = annotations.ingress.clone();
        Some((message, ingress.map(|i| bare(&i).to_owned())))
    }

    fn forward(&mut self, link: ConnId, message: &Message) {
        let mut out = BytesMut::with_capacity(256);
        message.encode(&mut out);
        self.out.push_back(Output::Control {
            link,
            message: out.freeze(),
        });
    }

    fn pass_on(&mut self, from: ConnId, id: &str, message: &Message) {
        let Some(link) = self.towards(id).filter(|link| *link != from) else {
            return;
        };
        if let Some((message, _)) = self.traced(message) {
            self.forward(link, &message);
        }
    }

    fn pass_flood(&mut self, from: ConnId, message: &Message) {
        self.recompute();
        let passed: Vec<String> = message
            .annotations
            .iter()
            .flat_map(|a| &a.trace)
            .map(|t| bare(t).to_owned())
            .collect();
        let Some((message, Some(origin))) = self.traced(message) else {
            return;
        };
        let neighbours = self.passing.neighbours(&origin).iter();
        let links: BTreeSet<ConnId> = neighbours
            .filter(|id| !passed.contains(id))
            .filter_map(|id| self.hops.get(id).copied())
            .filter(|link| *link != from)
            .collect();
        for link in links {
            self.forward(link, &message);
        }
    }

    // ---- time ----

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub fn poll_timeout(&self) -> Instant {
        let next = self.next_hello.min(self.next_ra);
        self.uplink.until.map_or(next, |until| next.min(until))
    }

    /// Sends what is due and forgets who is silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if now >= self.next_hello {
            self.next_hello = now + self.cfg.hello_interval;
            self.age();
            let links: Vec<ConnId> = self.links.keys().copied().collect();
            links.into_iter().for_each(|link| self.send_hello(link));
        }
        if now >= self.next_ra {
            self.send_ra();
        }
        self.uplink_timeout();
    }

    fn age(&mut self) {
        let (now, max) = (self.now, self.cfg.hello_max_age);
        let old = |at: Instant| now.saturating_duration_since(at) > max;
        self.heard.retain(|_, at| !old(*at));
        let mut silent = Vec::new();
        for (link, state) in &mut self.links {
            if state.two_way.is_some_and(old) {
                state.two_way = None;
                silent.extend(state.peer.clone().map(|id| (*link, id)));
            }
        }
        silent
            .into_iter()
            .for_each(|(link, id)| self.lost(link, id));
        let void = self.cfg.remote_ls_max_age;
        for remote in self.remotes.values_mut() {
            let age = remote.heard.map(|at| now.saturating_duration_since(at));
            if age.is_some_and(|age| age > void) && !remote.peers.is_empty() {
                remote.peers.clear();
                remote.ls_seq = 0;
                self.topology_dirty = true;
            }
        }
        self.recompute();
        self.ask();
        let hold = self.cfg.unreachable_holdoff;
        let (paths, stale) = (&self.paths, &mut self.stale);
        self.remotes.retain(|id, remote| {
            if paths.contains_key(id) {
                remote.unreachable_since = None;
                return true;
            }
            let since = *remote.unreachable_since.get_or_insert(now);
            if now.saturating_duration_since(since) < hold {
                return true;
            }
            // Without a way its addresses are of no use, and when it is back it says them again.
            stale.without(remote);
            remote.mobile.clear();
            remote.edges.clear();
            remote.mobile_seq = 0;
            remote.asked_mobile = None;
            !remote.peers.is_empty() || now.saturating_duration_since(since) < hold * 3
        });
    }

    // ---- results ----

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.announce_addresses();
        if self.out.is_empty() {
            self.refresh();
            if std::mem::take(&mut self.asking) {
                self.ask();
            }
            self.tell_edges();
        }
        self.out.pop_front()
    }

    /// The picture workers choose by.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    /// What has been computed so far.
    pub fn work(&self) -> Work {
        Work {
            trees: self.work.trees + self.passing.trees,
            ..self.work
        }
    }
}

/// An id without its area.
fn bare(id: &str) -> &str {
    id.strip_prefix(AREA)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(id)
}
