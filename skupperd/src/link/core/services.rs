//! Listeners and connectors of a site: which connectors there are, which listeners are open.

use super::{Core, Site};
use crate::{
    link::{
        view::{ConnectorTarget, SiteView, TargetHost},
        worker::Command,
    },
    router::Treatment,
    steer::{Plain, Steer},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
    time::{Duration, Instant},
};

/// Time between attempts to open a listener whose address was taken.
const RETRY: Duration = Duration::from_secs(1);

/// Prefix of the address by which a listener is known to connectors elsewhere; nobody sends to it.
pub const LISTENER_ADVERT: &str = "skupper-listener/";

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Name of the resource.
    pub name: String,
    /// Addresses, more than one when a host name has several.
    pub addrs: Vec<SocketAddr>,
    /// Routing key.
    pub routing_key: String,
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
}

struct Listener {
    id: u64,
    spec: ListenerSpec,
    state: ListenerState,
    tried: Option<Instant>,
}

struct Connector {
    spec: ConnectorSpec,
    target: Arc<ConnectorTarget>,
}

/// The listeners and connectors of a site.
#[derive(Default)]
pub(super) struct Services {
    listeners: BTreeMap<String, Listener>,
    connectors: BTreeMap<String, Connector>,
}

impl Services {
    pub(super) fn connectors(&self) -> HashMap<String, Vec<Arc<ConnectorTarget>>> {
        let mut by_key: HashMap<String, Vec<Arc<ConnectorTarget>>> = HashMap::new();
        for connector in self.connectors.values() {
            let targets = by_key
                .entry(connector.spec.routing_key.clone())
                .or_default();
            targets.push(connector.target.clone());
        }
        by_key
    }

    /// Opens listeners whose routing key is reachable and closes those whose is not.
    pub(super) fn reconsider(&mut self, site: u32, core: &Core, view: &SiteView) {
        for listener in self.listeners.values_mut() {
            let key = &listener.spec.routing_key;
            let remote = view
                .routes
                .addresses
                .get(key)
                .is_some_and(|r| !r.remotes.is_empty());
            listener.state.matched = remote || view.connectors.contains_key(key);
            match (listener.state.matched, listener.state.open) {
                (true, false) => listener.open(site, core),
                (false, true) => listener.close(core, false),
                _ => {}
            }
            if !listener.state.matched {
                listener.state.error = None;
            }
        }
    }

    pub(super) fn retry(&mut self, site: u32, core: &Core) {
        let due = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= RETRY);
        for listener in self.listeners.values_mut() {
            if listener.state.matched && !listener.state.open && due(listener.tried) {
                listener.open(site, core);
            }
        }
    }

    pub(super) fn clear(&mut self, core: &Core) {
        for listener in self.listeners.values_mut() {
            listener.close(core, true);
        }
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

impl Listener {
    fn open(&mut self, site: u32, core: &Core) {
        self.tried = Some(Instant::now());
        let mut sockets = Vec::new();
        for addr in &self.spec.addrs {
            match Plain.open(*addr, core.workers.count()) {
                Ok(opened) => sockets.extend(opened.into_iter().enumerate()),
                Err(error) => {
                    let error = error.to_string();
                    if self.state.error.as_ref() != Some(&error) {
                        tracing::warn!(listener = self.spec.name, error, "listener is closed");
                        self.state.error = Some(error);
                        core.changed();
                    }
                    return;
                }
            }
        }
        let routing_key: Arc<str> = self.spec.routing_key.as_str().into();
        for (worker, socket) in sockets {
            let (listener, routing_key) = (self.id, routing_key.clone());
            let listen = Command::Listen {
                site,
                listener,
                routing_key,
                socket,
            };
            core.workers.send(worker, listen);
        }
        self.state.open = true;
        self.state.error = None;
        tracing::info!(
            listener = self.spec.name,
            routing_key = &*routing_key,
            "listener is open"
        );
        core.changed();
    }

    fn close(&mut self, core: &Core, cut: bool) {
        for worker in 0..core.workers.count() {
            core.workers.send(
                worker,
                Command::Unlisten {
                    listener: self.id,
                    cut,
                },
            );
        }
        if std::mem::take(&mut self.state.open) {
            tracing::info!(listener = self.spec.name, "listener is closed");
            core.changed();
        }
    }
}

impl Site {
    /// Adds a listener or changes it. An unchanged one is left alone.
    pub fn set_listener(&mut self, core: &Core, spec: ListenerSpec) {
        if self
            .services
            .listeners
            .get(&spec.name)
            .is_some_and(|l| l.spec == spec)
        {
            return;
        }
        self.remove_listener(core, &spec.name.clone());
        let listener = Listener {
            id: core.sender.next_key(),
            state: ListenerState::default(),
            tried: None,
            spec,
        };
        let advert = format!("{LISTENER_ADVERT}{}", listener.spec.routing_key);
        self.router.consumer_added(&advert, Treatment::Closest);
        self.services
            .listeners
            .insert(listener.spec.name.clone(), listener);
        self.view_dirty = true;
    }

    /// Removes a listener; its connections end.
    pub fn remove_listener(&mut self, core: &Core, name: &str) {
        if let Some(mut listener) = self.services.listeners.remove(name) {
            listener.close(core, true);
            let advert = format!("{LISTENER_ADVERT}{}", listener.spec.routing_key);
            self.router.consumer_removed(&advert);
        }
    }

    /// Adds a connector or changes it. An unchanged one is left alone.
    pub fn set_connector(&mut self, core: &Core, spec: ConnectorSpec) {
        if self
            .services
            .connectors
            .get(&spec.name)
            .is_some_and(|c| c.spec == spec)
        {
            return;
        }
        self.remove_connector(core, &spec.name.clone());
        let target = Arc::new(ConnectorTarget {
            id: core.sender.next_key(),
            name: spec.name.clone(),
            host: spec.host.clone(),
            port: spec.port,
            in_use: AtomicU32::new(0),
            connections: AtomicU64::new(0),
        });
        self.router
            .consumer_added(&spec.routing_key, Treatment::of(&spec.routing_key));
        self.services
            .connectors
            .insert(spec.name.clone(), Connector { spec, target });
        self.view_dirty = true;
    }

    /// Removes a connector; its connections end.
    pub fn remove_connector(&mut self, _core: &Core, name: &str) {
        if let Some(connector) = self.services.connectors.remove(name) {
            self.router.consumer_removed(&connector.spec.routing_key);
            self.view_dirty = true;
        }
    }

    /// How the listeners stand.
    pub fn listener_states(&self) -> BTreeMap<String, ListenerState> {
        let listeners = self.services.listeners.iter();
        listeners
            .map(|(name, l)| (name.clone(), l.state.clone()))
            .collect()
    }
}
