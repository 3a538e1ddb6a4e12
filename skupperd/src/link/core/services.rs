//! Listeners and connectors of a site: which connectors there are, which listeners are open.

mod listeners;

use super::{Core, Site};
use crate::{
    link::{
        view::{ConnectorTarget, SiteView, TargetHost},
        worker::Command,
    },
    router::Treatment,
};
use listeners::Listeners;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64},
    },
};

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
    /// The kernel steers clients to it; else it has sockets of its own.
    pub steered: bool,
}

struct Connector {
    spec: ConnectorSpec,
    target: Arc<ConnectorTarget>,
}

/// The listeners and connectors of a site.
pub(super) struct Services {
    listeners: Listeners,
    connectors: BTreeMap<String, Connector>,
}

impl Services {
    /// None yet, of this namespace.
    pub(super) fn of(namespace: &str) -> Self {
        Self {
            listeners: Listeners::of(namespace),
            connectors: BTreeMap::new(),
        }
    }

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
    pub(super) fn reconsider(&mut self, site: u32, core: &mut Core, view: &SiteView) {
        self.listeners.reconsider(site, core, view);
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
        if self
            .services
            .listeners
            .get(&spec.name)
            .is_some_and(|l| l.spec == spec)
        {
            return;
        }
        self.remove_listener(core, &spec.name.clone());
        let advert = format!("{LISTENER_ADVERT}{}", spec.routing_key);
        self.router.consumer_added(&advert, Treatment::Closest);
        self.services.listeners.add(core.sender.next_key(), spec);
        self.view_dirty = true;
    }

    /// Removes a listener; its connections end.
    pub fn remove_listener(&mut self, core: &mut Core, name: &str) {
        if let Some(spec) = self.services.listeners.remove(core, name) {
            let advert = format!("{LISTENER_ADVERT}{}", spec.routing_key);
            self.router.consumer_removed(&advert);
            self.view_dirty = true;
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
