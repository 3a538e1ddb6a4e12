//! One site: its router, the links dialled and accepted, and what workers are told of them.

use super::{
    Core, LinkFailure, Owner,
    clients::Clients,
    services::Services,
    telling::Telling,
    uplink::{self, Uplink},
};
use crate::{
    amqp::{performative::Open, value::Value},
    link::{
        conn::{ConnKey, Kind},
        dial::{self, Dialled, LinkSpec},
        handshake::{Established, Revoked},
        ledger::SiteName,
        origin::ORIGIN_ADVERT,
        vanflow::{Attribute as A, Record, Type, micros},
        view::SiteView,
        worker::{Command, NewConnection},
    },
    model::Role,
    pki::Identity,
    router::{Config, NetworkRouter, Output, Router, Treatment},
};
use bytes::Bytes;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
};

/// How long a data connection waits for its control connection, and a control connection of a peer
/// that trunks for its first data connection.
const GROUP_WAIT: Duration = Duration::from_secs(2);
/// Data connections that wait for their control connection.
pub(super) const MAX_WAITING: usize = 64;

/// Property of `open` by which whoever is dialled says which of its ports that is.
pub(super) const ACCESS_ID: &str = "qd.access-id";

/// What a site is.
#[derive(Clone, Debug)]
pub struct SiteSpec {
    /// Namespace, for logs.
    pub namespace: String,
    /// Its names, for records.
    pub site: Arc<SiteName>,
    /// Router id.
    pub router_id: String,
    /// Start time in seconds since the epoch.
    pub instance: i64,
    /// Data connections of each link dialled.
    pub trunk: usize,
    /// Address by which the site is known to others; nobody sends to it.
    pub advert: String,
    /// Name of this host.
    pub host: String,
    /// An edge: it dials interior routers and routes for nobody.
    pub edge: bool,
}

/// How a dialled link stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// The remote router, while the link is operational.
    pub remote: Option<String>,
    /// The last failure since.
    pub failure: Option<String>,
    /// Address of the endpoint in use.
    pub endpoint: Option<SocketAddr>,
    /// Since when it is operational.
    pub since: Option<Timestamp>,
    /// The last failure, be it over or not.
    pub last_failure: Option<String>,
}

struct Dialling {
    spec: LinkSpec,
    specs: watch::Sender<LinkSpec>,
    task: AbortHandle,
    failure: Option<String>,
    /// Times that it was up and is no more.
    lost: u64,
}

pub(super) struct Peer {
    pub(super) remote: String,
    /// Identity of the port that it came to, where that is the other's.
    pub(super) came_to: Option<String>,
    /// Whose certificate it has shown.
    pub(super) identity: Option<Identity>,
    pub(super) cost: u32,
    /// Name of the link, when we dialled.
    pub(super) link: Option<String>,
    pub(super) addr: SocketAddr,
    pub(super) correlator: Option<String>,
    /// It is an edge, or we are its edge.
    pub(super) edge: bool,
    pub(super) trunking: bool,
    pub(super) control_ready: bool,
    /// The router knows of it.
    pub(super) announced: bool,
    pub(super) since: Instant,
    /// Data connections and their workers.
    pub(super) data: BTreeMap<ConnKey, usize>,
    /// The control connection carries streams.
    pub(super) on_control: bool,
    pub(super) worker: usize,
    /// Two-way contact with the neighbour.
    pub(super) neighbour: bool,
    pub(super) up_since: Option<Timestamp>,
    /// Another connection has taken over.
    pub(super) retired: bool,
    /// Name of the RouterAccess it came in on.
    pub(super) access: Option<String>,
}

/// A site.
pub struct Site {
    pub(super) id: u32,
    pub(super) spec: SiteSpec,
    /// What tells of it on the network, as records name it: five characters, as upstream's.
    pub(super) source: Arc<str>,
    pub(super) router: Router,
    links: BTreeMap<String, Dialling>,
    pub(super) peers: BTreeMap<ConnKey, Peer>,
    /// Data connections without a control connection yet.
    pub(super) waiting: Vec<(Instant, String, Established)>,
    /// Ports that are open, with what comes to them.
    pub(super) accesses: HashMap<String, (Vec<Role>, Vec<AbortHandle>)>,
    pub(super) revoked: Revoked,
    /// Dropped to tell a dialling task that its connection has ended.
    alive: HashMap<ConnKey, oneshot::Sender<()>>,
    pub(super) services: Services,
    pub(super) clients: Clients,
    pub(super) uplink: Uplink,
    pub(super) telling: Telling,
    pub(super) view_dirty: bool,
}

impl Site {
    pub(super) fn new(id: u32, spec: SiteSpec) -> Self {
        let mut config = Config::new(&*spec.router_id, spec.instance);
        config.mesh = spec.edge.then(dial::name);
        let mut router = Router::new(config, Instant::now());
        router.consumer_added(&spec.advert, Treatment::Closest);
        let clients = Clients::new(&spec.router_id);
        let source: Arc<str> = source().into();
        let telling = Telling::new(source.clone());
        for address in telling.addresses() {
            router.consumer_added(&address, Treatment::Closest);
        }
        Self {
            id,
            services: Services::of(&spec.namespace),
            source,
            telling,
            spec,
            router,
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            waiting: Vec::new(),
            accesses: HashMap::new(),
            revoked: Revoked::default(),
            alive: HashMap::new(),
            clients,
            uplink: Uplink::default(),
            view_dirty: true,
        }
    }

    // ---- links ----

    /// Dials a link, or changes what it dials. A changed cost keeps the connection, and so do new
    /// credentials until a connection with them is up.
    pub fn set_link(&mut self, core: &Core, spec: LinkSpec) {
        if let Some(old) = self.links.get_mut(&spec.name)
            && old.spec.targets == spec.targets
        {
            old.spec = spec.clone();
            old.specs.send_replace(spec.clone());
            for (key, peer) in &mut self.peers {
                if peer.link.as_ref() == Some(&spec.name) && !peer.retired {
                    peer.cost = spec.cost;
                    self.router.link_cost(*key, spec.cost, Instant::now());
                }
            }
            self.choose_uplink(core);
            return;
        }
        self.remove_link(core, &spec.name.clone(), "link changed");
        let router = self.spec.router_id.clone();
        let (specs, receiver) = watch::channel(spec.clone());
        let task = tokio::task::spawn(dial::keep(
            self.id,
            router,
            receiver,
            (!self.spec.edge).then_some(self.spec.trunk),
            core.sender.clone(),
        ));
        let dialling = Dialling {
            task: task.abort_handle(),
            failure: None,
            lost: 0,
            spec,
            specs,
        };
        self.links.insert(dialling.spec.name.clone(), dialling);
    }

    /// Ends a link.
    pub fn remove_link(&mut self, core: &Core, name: &str, why: &str) {
        let Some(link) = self.links.remove(name) else {
            return;
        };
        link.task.abort();
        let keys = self
            .peers
            .iter()
            .filter(|(_, p)| p.link.as_deref() == Some(name));
        for (key, peer) in keys {
            close(core, *key, peer, why);
        }
        core.changed();
    }

    /// Adds records of the links that are dialled here.
    pub(super) fn tell_links(
        &self,
        core: &Core,
        telling: &mut Telling,
        all: &mut BTreeMap<String, Record>,
    ) {
        for (name, state) in self.link_states() {
            let Some(dialling) = self.links.get(&name) else {
                continue;
            };
            let peers = self.peers.values();
            let mut peers = peers.filter(|p| p.link.as_ref() == Some(&name) && p.neighbour);
            let peer = peers.find_map(|p| p.came_to.as_deref());
            let first = dialling.spec.targets.first();
            let port = first.map(|t| t.port.to_string());
            let proxy = if dialling.spec.proxy.is_some() {
                "yes"
            } else {
                "no"
            };
            let up = state.remote.is_some();
            let what = format!("link {name}");
            let record = telling
                .lasting(core, Type::Link, &what)
                .text(A::Name, &name)
                .text(A::Role, self.role())
                .text(A::Status, if up { "up" } else { "down" })
                .text(A::Peer, peer.unwrap_or_default())
                .text(A::Protocol, "amqps")
                .text(A::DestinationHost, first.map_or("", |t| &t.host))
                .text(A::DestinationPort, &port.unwrap_or_default())
                .text(A::HttpProxy, proxy)
                .text(A::Reason, &state.last_failure.unwrap_or_default())
                .number(A::LinkCost, dialling.spec.cost.into())
                .number(A::DownCount, dialling.lost)
                .maybe(A::UpTime, state.since.map(micros));
            all.insert(what, record);
        }
    }

    /// How the dialled links stand.
    pub fn link_states(&self) -> BTreeMap<String, LinkState> {
        let state = |(name, link): (&String, &Dialling)| {
            let up = self
                .peers
                .values()
                .filter(|p| p.link.as_ref() == Some(name) && p.neighbour)
                .max_by_key(|p| !p.retired);
            let state = LinkState {
                endpoint: up.map(|p| p.addr),
                since: up.and_then(|p| p.up_since),
                last_failure: link.failure.clone(),
                remote: up.map(|p| p.remote.clone()),
                failure: if up.is_some() {
                    None
                } else {
                    link.failure.clone()
                },
            };
            (name.clone(), state)
        };
        self.links.iter().map(state).collect()
    }

    /// Every router that is known.
    pub fn network(&self) -> Vec<NetworkRouter> {
        self.router.network()
    }

    pub(super) fn dialled(&mut self, core: &mut Core, dialled: Dialled) {
        let Dialled {
            link,
            key,
            data_of,
            established,
            alive,
        } = dialled;
        let Some(dialling) = self.links.get_mut(&link) else {
            return;
        };
        match data_of {
            None => {
                let cost = dialling.spec.cost.max(cost(&established.open));
                self.alive.insert(key, alive);
                let role = match self.spec.edge {
                    true => Role::Edge,
                    false => Role::InterRouter,
                };
                self.add_control(core, key, role, Some(link), (None, None), cost, established);
            }
            Some(group) if self.peers.contains_key(&group) => {
                self.alive.insert(key, alive);
                self.add_data(core, key, group, established);
            }
            Some(_) => {}
        }
    }

    pub(super) fn dial_failed(&mut self, core: &Core, link: &str, failure: LinkFailure) {
        let role = self.role();
        let Some(dialling) = self.links.get_mut(link) else {
            return;
        };
        let failure = failure.to_string();
        if !self.peers.values().any(|p| p.link.as_deref() == Some(link)) {
            core.ledger.link_error(&self.spec.namespace, role);
        }
        if dialling.failure.as_ref() != Some(&failure) {
            // Once for each new reason: attempts repeat every two seconds.
            let namespace = &self.spec.namespace;
            if self.peers.values().any(|p| p.link.as_deref() == Some(link)) {
                tracing::info!(
                    namespace,
                    link,
                    failure,
                    "no better connection for the link"
                );
            } else {
                tracing::warn!(namespace, link, failure, "link is down");
            }
            dialling.failure = Some(failure);
            core.changed();
        }
    }

    /// What its links are.
    fn role(&self) -> &'static str {
        match self.spec.edge {
            true => Role::Edge,
            false => Role::InterRouter,
        }
        .as_str()
    }

    /// Another connection has taken over from this one: it ends when its streams have.
    pub(super) fn retire(&mut self, core: &Core, key: ConnKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.retired = true;
        for data in peer.data.keys() {
            core.tell(*data, Command::Retire(*data));
        }
        if peer.data.is_empty() || peer.on_control {
            core.tell(key, Command::Retire(key));
        }
        self.choose_uplink(core);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what is known of a link that has opened"
    )]
    pub(super) fn add_control(
        &mut self,
        core: &mut Core,
        key: ConnKey,
        role: Role,
        link: Option<String>,
        (access, correlator): (Option<&str>, Option<String>),
        cost: u32,
        established: Established,
    ) {
        let worker = usize::try_from(key).unwrap_or(0) % core.workers.count();
        let edge = role == Role::Edge;
        let peer = Peer {
            remote: established.open.container_id.clone(),
            came_to: came_to(&established.open),
            identity: established.identity.clone(),
            cost,
            link: link.clone(),
            addr: established.peer,
            correlator,
            edge,
            trunking: established.open.offers("qd.connection_trunking"),
            control_ready: false,
            announced: false,
            since: Instant::now(),
            data: BTreeMap::new(),
            // An edge has no other connection.
            on_control: edge,
            worker,
            neighbour: false,
            up_since: None,
            retired: false,
            access: access.map(str::to_owned),
        };
        if peer.remote == self.spec.router_id {
            tracing::warn!(peer = %peer.addr, "link to this very router refused");
            return;
        }
        self.peers.insert(key, peer);
        let advert = uplink::advert_of(&established.open);
        let kind = if edge { Kind::Edge } else { Kind::Control };
        let dialled = link.is_some();
        self.give(core, key, key, kind, dialled, worker, established);
        match (edge, dialled) {
            (false, _) => {}
            (true, true) => self.uplink_opened(core, key, advert),
            (true, false) => self.edge_opened(core, key),
        }
    }

    pub(super) fn add_data(
        &mut self,
        core: &mut Core,
        key: ConnKey,
        group: ConnKey,
        established: Established,
    ) {
        let Some(peer) = self.peers.get_mut(&group) else {
            return;
        };
        // The n-th data connection of every link is on the n-th worker: a stream that passes
        // through finds its next connection on the worker it came in on.
        let load = |worker: &usize| peer.data.values().filter(|w| *w == worker).count();
        let worker = (0..core.workers.count()).min_by_key(load).unwrap_or(0);
        peer.data.insert(key, worker);
        let dialled = peer.link.is_some();
        self.view_dirty = true;
        self.give(core, key, group, Kind::Data, dialled, worker, established);
        self.announce(group);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one place that builds the command"
    )]
    pub(super) fn give(
        &mut self,
        core: &mut Core,
        key: ConnKey,
        group: ConnKey,
        kind: Kind,
        dialled: bool,
        worker: usize,
        established: Established,
    ) {
        core.conns.insert(
            key,
            Owner {
                site: self.id,
                worker,
            },
        );
        let site = self.id;
        let new = NewConnection {
            key,
            group,
            kind,
            site,
            dialled,
            established,
        };
        core.workers
            .send(worker, Command::Connection(Box::new(new)));
    }

    pub(super) fn control_ready(&mut self, _core: &Core, key: ConnKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.control_ready = true;
            self.announce(key);
        }
    }

    /// Tells the router of a link once streams can go over it.
    fn announce(&mut self, key: ConnKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let carries = !peer.data.is_empty() || peer.on_control;
        if peer.control_ready && carries && !std::mem::replace(&mut peer.announced, true) {
            self.router.link_up(key, peer.cost, Instant::now());
        }
    }

    pub(super) fn ended(&mut self, core: &mut Core, key: ConnKey, group: ConnKey, why: &str) {
        self.alive.remove(&key);
        if key != group {
            if let Some(peer) = self.peers.get_mut(&group) {
                peer.data.remove(&key);
                self.view_dirty = true;
                if peer.retired && peer.data.is_empty() {
                    core.tell(group, Command::Retire(group));
                }
            }
            return;
        }
        let of_client = self.clients.ended(&mut self.router, key);
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        debug_assert!(!of_client || peer.edge, "a client is no router");
        self.router.link_down(key, Instant::now());
        self.view_dirty = true;
        let role = self.role();
        let link = peer.link.as_deref().unwrap_or("");
        let (namespace, remote) = (&self.spec.namespace, &peer.remote);
        tracing::info!(namespace, link, remote, peer = %peer.addr, why, "link has ended");
        if let Some(dialling) = self.links.get_mut(link).filter(|_| !peer.retired) {
            dialling.failure = Some(why.to_owned());
            dialling.lost += 1;
            core.ledger.link_error(namespace, role);
        }
        for data in peer.data.keys() {
            core.tell(
                *data,
                Command::Close(*data, "control connection has ended".to_owned()),
            );
        }
        self.choose_uplink(core);
        core.changed();
    }

    // ---- routing ----

    /// A control message from a neighbour. False: the link is not one of a neighbour's control.
    pub(super) fn control_message(&mut self, key: ConnKey, message: &Bytes) {
        if let Err(error) = self.router.control(key, message, Instant::now()) {
            let remote = self.peers.get(&key).map(|p| &p.remote);
            tracing::warn!(
                ?remote,
                error = crate::telemetry::chain(&error),
                "control message"
            );
        }
    }

    /// The connection is one of another interior router, which takes part in routing.
    pub(super) fn is_peer(&self, key: ConnKey) -> bool {
        self.peers.get(&key).is_some_and(|peer| !peer.edge)
    }

    /// Does what the router wants done.
    pub(super) fn pump(&mut self, core: &mut Core, now: Instant) {
        if now >= self.router.poll_timeout() {
            self.router.handle_timeout(now);
        }
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Control { link, message } => {
                    core.tell(link, Command::Control(link, message));
                }
                Output::RoutesChanged => self.view_dirty = true,
                Output::NeighbourUp { link, id } => {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        peer.neighbour = true;
                        peer.up_since = Some(Timestamp::now());
                        let namespace = &self.spec.namespace;
                        tracing::info!(namespace, remote = id, peer = %peer.addr, "link is up");
                    }
                    core.changed();
                }
                Output::NeighbourLost { link, id } => {
                    if let Some(peer) = self.peers.get_mut(&link) {
                        peer.neighbour = false;
                        let namespace = &self.spec.namespace;
                        tracing::warn!(namespace, remote = id, peer = %peer.addr, "neighbour lost");
                        // Where there is another endpoint nobody waits for this one to come back.
                        let dialling = peer.link.as_ref().and_then(|name| self.links.get(name));
                        if dialling.is_some_and(|d| d.spec.targets.len() > 1) {
                            close(
                                core,
                                link,
                                peer,
                                "neighbour lost: another endpoint is tried",
                            );
                        }
                    }
                    core.changed();
                }
                Output::Reachable {
                    edge,
                    address,
                    reachable,
                } => self.clients.tell_edge(core, edge, &address, reachable),
                Output::DuplicateId { link } => {
                    let peer = self.peers.get(&link).map(|p| p.addr);
                    tracing::warn!(?peer, id = self.router.id(), "another router has our id");
                }
            }
        }
        if std::mem::take(&mut self.view_dirty) {
            self.publish(core);
        }
    }

    fn publish(&mut self, core: &mut Core) {
        self.sync_uplink(core);
        let workers = self.peers.iter().map(|(key, peer)| {
            let mut workers: Vec<usize> = peer.data.values().copied().collect();
            if peer.on_control {
                workers.push(peer.worker);
            }
            (*key, workers)
        });
        let routes = self.router.routes();
        let origins = routes.addresses.keys();
        let origins = origins.filter_map(|a| a.strip_prefix(ORIGIN_ADVERT));
        let view = Arc::new(SiteView {
            site: self.spec.site.clone(),
            source: self.source.clone(),
            listeners: self.services.listener_views(),
            origins: origins.map(str::to_owned).collect(),
            routes,
            connectors: self.services.connectors(),
            resting: self.services.resting(),
            workers: workers.filter(|(_, w)| !w.is_empty()).collect(),
        });
        for worker in 0..core.workers.count() {
            core.workers
                .send(worker, Command::View(self.id, view.clone()));
        }
        self.services.reconsider(self.id, core, &view);
        core.changed();
    }

    pub(super) fn tick(&mut self, core: &mut Core, now: Instant) {
        self.waiting.retain(|(since, _, established)| {
            let keep = now.saturating_duration_since(*since) < GROUP_WAIT;
            if !keep {
                tracing::warn!(peer = %established.peer, "data connection without a link");
            }
            keep
        });
        let late: Vec<ConnKey> = self
            .peers
            .iter()
            .filter(|(_, p)| p.control_ready && !p.announced)
            .filter(|(_, p)| !p.trunking || now.saturating_duration_since(p.since) > GROUP_WAIT)
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.on_control = true;
                core.tell(key, Command::CarryStreams(key));
                self.view_dirty = true;
            }
            self.announce(key);
        }
        self.services.retry(self.id, core);
        self.tell_network(core, now);
    }

    pub(super) fn shut_down(mut self, core: &mut Core) {
        self.links.values().for_each(|link| link.task.abort());
        for task in self.accesses.values().flat_map(|(_, tasks)| tasks) {
            task.abort();
        }
        for (key, peer) in &self.peers {
            close(core, *key, peer, "site removed");
        }
        self.services.clear(self.id, core);
        self.clients.clear(core);
        drop(core.ledger.listen(&self.source, false));
    }
}

/// The port of the other side, as its records name it.
fn came_to(open: &Open) -> Option<String> {
    let id = open.property(ACCESS_ID)?.as_str()?;
    Some(id.chars().take(64).collect())
}

/// A name for what tells of a site; another one after each start.
fn source() -> String {
    let mut name = dial::name();
    name.split_off(name.len().saturating_sub(5))
}

pub(super) fn close(core: &Core, key: ConnKey, peer: &Peer, why: &str) {
    for key in peer.data.keys().chain([&key]) {
        core.tell(*key, Command::Close(*key, why.to_owned()));
    }
}

pub(super) fn cost(open: &Open) -> u32 {
    let cost = open
        .property("qd.inter-router-cost")
        .and_then(Value::as_u32);
    cost.unwrap_or(1).max(1)
}
