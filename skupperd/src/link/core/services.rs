//! Listeners and connectors of a site: which connectors there are, which listeners are open.

mod health;
mod listeners;
mod workloads;

use super::{Core, Site};
use crate::{
    link::{
        ends::{BackTls, Failures, Front, ProxyProtocol, Trouble},
        origin::ORIGIN_ADVERT,
        policy::Sites,
        probe::Probe,
        view::{ConnectorTarget, ListenerView, SiteView, TargetHost},
        worker::Command,
    },
    model::Observer,
    router::{Router, Treatment},
    steer::{netns::Placed, place::Place},
};
use health::Health;
use listeners::Listeners;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

/// Prefix of the address by which a listener is known to connectors elsewhere; nobody sends to it.
pub const LISTENER_ADVERT: &str = "skupper-listener/";

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Name of the resource.
    pub name: String,
    /// Where clients reach it; a host name has several addresses.
    pub places: Vec<Place>,
    /// Its sockets, where these places are in another network namespace.
    pub placed: Option<Placed>,
    /// Routing key; empty when `front` has them.
    pub routing_key: String,
    /// Its connections are accelerated or not; none for what the site says.
    pub acceleration: Option<bool>,
    /// What it does beside carrying bytes to its routing key.
    pub front: Option<Arc<Front>>,
    /// What is looked for in its traffic.
    pub observer: Observer,
}

impl ListenerSpec {
    /// Its routing keys.
    fn keys(&self) -> Vec<Arc<str>> {
        match &self.front {
            Some(front) => front.keys.all(),
            None => vec![self.routing_key.as_str().into()],
        }
    }
}

/// A connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorSpec {
    /// Name of the resource.
    pub name: String,
    /// Host of the server.
    pub host: TargetHost,
    /// Port of the server.
    pub port: u16,
    /// Routing key.
    pub routing_key: String,
    /// Its connections are accelerated or not; none for what the site says.
    pub acceleration: Option<bool>,
    /// How it speaks TLS with the server.
    pub tls: Option<Arc<BackTls>>,
    /// How it tells the server of its clients.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whose clients it serves; none for everybody's.
    pub sites: Option<Arc<Sites>>,
    /// How it finds out whether the server is well.
    pub probe: Option<Probe>,
    /// It is offered even while the server is not known to be well.
    pub include_not_ready: bool,
}

impl ConnectorSpec {
    /// Whether its connections are accelerated: those to a port, without TLS.
    fn is_accelerated(&self, core: &Core, by_default: bool) -> bool {
        let plain = self.tls.is_none() && !matches!(self.host, TargetHost::Unix(_));
        plain && self.acceleration.unwrap_or(by_default) && core.acceleration.enable()
    }
}

/// How a connector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectorState {
    /// What probes say: well, or why not. None: there are no probes.
    pub health: Option<Result<(), String>>,
    /// Why the last connection to the server failed; empty when it did not.
    pub trouble: String,
    /// Servers that connections go to.
    pub servers: usize,
}

/// How a listener stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerState {
    /// A connector is reachable.
    pub matched: bool,
    /// Clients are accepted.
    pub open: bool,
    /// Why not, although a connector is reachable.
    pub error: Option<String>,
    /// The kernel steers clients to it; else it has sockets of its own.
    pub steered: bool,
    /// Whether its clients are accelerated, or why not; none when nobody asks for it.
    pub accelerated: Option<Result<(), String>>,
    /// Which of its routing keys have a connector.
    pub reachable: Vec<Arc<str>>,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
}

struct Connector {
    spec: ConnectorSpec,
    target: Arc<ConnectorTarget>,
    health: Option<Health>,
    /// The network knows of it.
    offered: bool,
    /// Its server takes no more connections; it goes when those that it has have ended.
    leaving: bool,
}

impl Connector {
    fn new(core: &Core, site: u32, spec: ConnectorSpec, accelerated: bool) -> Self {
        let accelerated = spec.is_accelerated(core, accelerated);
        let target = Arc::new(ConnectorTarget {
            id: core.sender.next_key(),
            name: spec.name.clone(),
            host: spec.host.clone(),
            port: spec.port,
            accelerated: AtomicBool::new(accelerated),
            tls: spec.tls.clone(),
            proxy_protocol: spec.proxy_protocol,
            sites: spec.sites.clone(),
            trouble: Trouble::default(),
            failures: Failures::default(),
            in_use: AtomicU32::new(0),
            connections: AtomicU64::new(0),
        });
        let probe = spec.probe.as_ref();
        let health = probe.map(|probe| Health::watch(core, site, &spec, probe, target.id));
        Self {
            spec,
            target,
            health,
            offered: false,
            leaving: false,
        }
    }

    fn is_wanted(&self) -> bool {
        let well = self.health.as_ref().is_none_or(Health::is_well);
        !self.leaving && (well || self.spec.include_not_ready)
    }

    /// Makes it known to the network, or unknown.
    fn offer(&mut self, router: &mut Router, offered: bool) {
        if std::mem::replace(&mut self.offered, offered) == offered {
            return;
        }
        let key = &self.spec.routing_key;
        let advert = format!("{ORIGIN_ADVERT}{key}");
        let told = self.spec.proxy_protocol.is_some();
        if offered {
            router.consumer_added(key, Treatment::of(key));
            if told {
                router.consumer_added(&advert, Treatment::Closest);
            }
        } else {
            router.consumer_removed(key);
            if told {
                router.consumer_removed(&advert);
            }
        }
    }
}

/// The listeners and connectors of a site.
pub(super) struct Services {
    listeners: Listeners,
    /// By name and, of those that have several servers or none, by server.
    connectors: BTreeMap<(String, String), Connector>,
    /// Connections are accelerated where nothing else is said.
    accelerated: bool,
}

impl Services {
    /// None yet, of this namespace.
    pub(super) fn of(namespace: &str) -> Self {
        Self {
            listeners: Listeners::of(namespace),
            connectors: BTreeMap::new(),
            accelerated: false,
        }
    }

    pub(super) fn connectors(&self) -> HashMap<String, Vec<Arc<ConnectorTarget>>> {
        let mut by_key: HashMap<String, Vec<Arc<ConnectorTarget>>> = HashMap::new();
        for connector in self.connectors.values().filter(|c| c.offered) {
            let targets = by_key
                .entry(connector.spec.routing_key.clone())
                .or_default();
            targets.push(connector.target.clone());
        }
        by_key
    }

    /// Keys of what is of one name.
    fn keys_of(&self, name: &str) -> impl Iterator<Item = &(String, String)> {
        let first = (name.to_owned(), String::new());
        let all = self.connectors.range(first..);
        let name = name.to_owned();
        all.map(|(key, _)| key).take_while(move |key| key.0 == name)
    }

    /// Connectors that are not offered.
    pub(super) fn resting(&self) -> Vec<Arc<ConnectorTarget>> {
        let resting = self.connectors.values().filter(|c| !c.offered);
        resting.map(|c| c.target.clone()).collect()
    }

    /// What workers know of listeners, by their ids.
    pub(super) fn listener_views(&self) -> HashMap<u64, ListenerView> {
        let view = |(name, listener): (&String, &listeners::Listener)| {
            let view = ListenerView {
                name: name.as_str().into(),
                observer: listener.spec.observer,
            };
            (listener.id, view)
        };
        self.listeners.iter().map(view).collect()
    }

    /// Listeners: name, each routing key, and where they are.
    pub(super) fn listening(&self) -> Vec<(String, Arc<str>, String)> {
        let listeners = self.listeners.iter().flat_map(|(name, listener)| {
            let place = listener.spec.places.first().map(ToString::to_string);
            let place = place.unwrap_or_default();
            let keys = listener.spec.keys().into_iter();
            keys.map(move |key| (name.clone(), key, place.clone()))
        });
        listeners.collect()
    }

    /// Connectors: name, routing key, host and port of the server, and connections so far.
    pub(super) fn serving(&self) -> Vec<(String, String, [String; 2], u64)> {
        let connectors = self.connectors.values().map(|connector| {
            let spec = &connector.spec;
            let port = match &spec.host {
                TargetHost::Unix(_) => String::new(),
                _ => spec.port.to_string(),
            };
            let server = [spec.host.to_string(), port];
            let opened = connector.target.connections.load(Ordering::Relaxed);
            (spec.name.clone(), spec.routing_key.clone(), server, opened)
        });
        connectors.collect()
    }

    /// Opens listeners whose routing key is reachable and closes those whose is not.
    pub(super) fn reconsider(&mut self, site: u32, core: &mut Core, view: &SiteView) {
        self.listeners.reconsider(site, core, view);
    }

    /// Routing keys of listeners, and those of connectors.
    pub(super) fn routing_keys(
        &self,
    ) -> (impl Iterator<Item = String>, impl Iterator<Item = String>) {
        let listeners = self.listeners.iter().map(|(_, l)| &l.spec.routing_key);
        let connectors = self.connectors.values().map(|c| &c.spec.routing_key);
        (listeners.cloned(), connectors.cloned())
    }

    pub(super) fn retry(&mut self, site: u32, core: &mut Core) {
        self.listeners.retry(site, core);
    }

    pub(super) fn clear(&mut self, site: u32, core: &mut Core) {
        self.listeners.clear(site, core);
        for connector in self.connectors.values() {
            for worker in 0..core.workers.count() {
                let cut = Command::Unlisten {
                    listener: connector.target.id,
                    cut: true,
                };
                core.workers.send(worker, cut);
            }
        }
    }
}

impl Site {
    /// Has listeners steered by the kernel where that is possible, or never.
    pub fn set_steering(&mut self, core: &mut Core, wanted: bool) {
        self.view_dirty |= self.services.listeners.set_plain(core, !wanted);
    }

    /// Has the connections of listeners and connectors accelerated that do not say it themselves.
    /// Those that are open stay as they are.
    pub fn set_acceleration(&mut self, core: &Core, wanted: bool) {
        if self.services.accelerated == wanted {
            return;
        }
        self.services.accelerated = wanted;
        self.services.listeners.set_accelerated(core, wanted);
        core.changed();
        for connector in self.services.connectors.values() {
            let on = connector.spec.is_accelerated(core, wanted);
            connector.target.accelerated.store(on, Ordering::Relaxed);
        }
    }

    /// Whether listeners are open for clients of an earlier process alone.
    pub(in crate::link::core) fn has_held_listeners(&self) -> bool {
        self.services.listeners.any_held()
    }

    /// Such listeners are to be closed.
    pub(in crate::link::core) fn release_listeners(&mut self) {
        self.view_dirty |= self.has_held_listeners();
    }

    /// Adds a listener or changes it. An unchanged one is left alone.
    pub fn set_listener(&mut self, core: &mut Core, spec: ListenerSpec) {
        // Who looks on has no part in connections: those that are open stay.
        self.view_dirty |= self.services.listeners.observe(&spec.name, spec.observer);
        if self
            .services
            .listeners
            .get(&spec.name)
            .is_some_and(|l| l.spec == spec)
        {
            return;
        }
        self.remove_listener(core, &spec.name.clone());
        for key in spec.keys() {
            let advert = format!("{LISTENER_ADVERT}{key}");
            self.router.consumer_added(&advert, Treatment::Closest);
        }
        let id = core.sender.next_key();
        if let Some(front) = &spec.front {
            core.fronts.set(id, front.clone());
        }
        self.services.listeners.add(id, spec);
        self.view_dirty = true;
    }

    /// Removes a listener; its connections end.
    pub fn remove_listener(&mut self, core: &mut Core, name: &str) {
        if let Some(spec) = self.services.listeners.remove(core, name) {
            for key in spec.keys() {
                let advert = format!("{LISTENER_ADVERT}{key}");
                self.router.consumer_removed(&advert);
            }
            self.view_dirty = true;
        }
    }

    /// Adds a connector or changes it. An unchanged one is left alone.
    pub fn set_connector(&mut self, core: &Core, spec: ConnectorSpec) {
        let name = spec.name.clone();
        let others = self
            .services
            .keys_of(&name)
            .filter(|(_, server)| !server.is_empty());
        for key in others.cloned().collect::<Vec<_>>() {
            self.drop_connector(&key);
        }
        self.put_connector(core, (name, String::new()), spec);
    }

    fn put_connector(&mut self, core: &Core, key: (String, String), spec: ConnectorSpec) {
        let known = self.services.connectors.get(&key);
        if known.is_some_and(|c| c.spec == spec) {
            return;
        }
        self.drop_connector(&key);
        let mut connector = Connector::new(core, self.id, spec, self.services.accelerated);
        connector.offer(&mut self.router, connector.is_wanted());
        self.services.connectors.insert(key, connector);
        self.view_dirty = true;
    }

    /// Removes a connector; its connections end.
    pub fn remove_connector(&mut self, _core: &Core, name: &str) {
        for key in self.services.keys_of(name).cloned().collect::<Vec<_>>() {
            self.drop_connector(&key);
        }
    }

    fn drop_connector(&mut self, key: &(String, String)) {
        if let Some(mut connector) = self.services.connectors.remove(key) {
            connector.offer(&mut self.router, false);
            self.view_dirty = true;
        }
    }

    /// What a probe says of a connector's server.
    fn probed(&mut self, core: &Core, name: &str, id: u64, result: Result<(), String>) {
        let mut connectors = self.services.connectors.values_mut();
        let Some(connector) = connectors.find(|c| c.target.id == id) else {
            // Another has taken its place since.
            return;
        };
        let Some(health) = connector.health.as_mut() else {
            return;
        };
        if !health.found(name, result) {
            return;
        }
        let wanted = connector.is_wanted();
        connector.offer(&mut self.router, wanted);
        self.view_dirty = true;
        core.changed();
    }

    /// How the connectors stand. One with several servers is well while one of them is.
    pub fn connector_states(&self) -> BTreeMap<String, ConnectorState> {
        let mut states: BTreeMap<String, ConnectorState> = BTreeMap::new();
        for ((name, _), connector) in &self.services.connectors {
            if connector.leaving {
                continue;
            }
            let state = states.entry(name.clone()).or_default();
            state.servers += 1;
            let health = connector.health.as_ref().map(Health::state);
            if state.health.as_ref().is_none_or(Result::is_err) {
                state.health = health.or(state.health.take());
            }
            if state.trouble.is_empty() {
                state.trouble = connector.target.trouble.text();
            }
        }
        states
    }

    /// How the listeners stand.
    pub fn listener_states(&self) -> BTreeMap<String, ListenerState> {
        let listeners = self.services.listeners.iter();
        listeners
            .map(|(name, l)| (name.clone(), l.state()))
            .collect()
    }
}
