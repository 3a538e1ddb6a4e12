//! Listeners and connectors of a site: which connectors are offered, which listeners are open.

mod connectors;
mod health;
mod listener;
mod listeners;
mod probe;

pub use probe::{Probe, ProbeKind};

use super::effects::{Effects, RouterInput};
use crate::{
    core::context::CoreContext,
    link::names::LISTENER_ADVERT,
    listen::ListenerSockets,
    model::{ConnectorSettings, ListenerSettings, ObserverMode},
    router::Treatment,
    service::{
        allowed::AllowedSites,
        policy::ListenerPolicy,
        tls::ConnectorTls,
        view::{ConnectorTarget, ListenerView, SiteView, TargetHost},
    },
    steer::{bind_range::BindRange, netns::NetnsListener},
};
use connectors::Connectors;
use listeners::Listeners;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    pub name: String,
    /// Where clients reach it; a host name has several addresses.
    pub bind_ranges: Vec<BindRange>,
    /// Its sockets, where these bind ranges are in another network namespace.
    pub netns_listener: Option<NetnsListener>,
    /// Routing key; empty when `policy` has them.
    pub routing_key: String,
    /// Settings that the core uses itself; those that other fields come from have their defaults.
    pub settings: ListenerSettings,
    /// TLS, users and routing keys; `None` for a plain listener.
    pub policy: Option<Arc<ListenerPolicy>>,
    /// HTTP version to observe.
    pub observer: ObserverMode,
}

impl ListenerSpec {
    fn keys(&self) -> Vec<Arc<str>> {
        match &self.policy {
            Some(policy) => policy.keys.all(),
            None => vec![self.routing_key.as_str().into()],
        }
    }
}

/// One change of a batch of listeners.
pub enum ListenerChange {
    /// Add a listener, or change it.
    Set(Box<ListenerSpec>),
    /// Remove the listener of this name; its connections end.
    Remove(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorSpec {
    pub name: String,
    pub host: TargetHost,
    pub port: u16,
    pub routing_key: String,
    pub settings: ConnectorSettings,
    /// TLS with the server.
    pub tls: Option<Arc<ConnectorTls>>,
    /// Sites whose clients it serves; `None` serves all.
    pub sites: Option<Arc<AllowedSites>>,
    /// Health check.
    pub probe: Option<Probe>,
    /// Whether it is offered while its health check fails.
    pub include_not_ready: bool,
}

/// State of a connector, for its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectorState {
    /// Result of the health check; `None` without one.
    pub health: Option<Result<(), String>>,
    /// Why the last connection to the server failed; empty when it did not.
    pub last_failure: String,
    /// Other connectors are preferred for a while because of that, to all its servers.
    pub avoided: bool,
    /// Servers that connections go to.
    pub servers: usize,
}

impl ConnectorState {
    /// Why others are preferred, if they are: what probes say, or the last connection.
    pub fn unready_reason(&self) -> Option<&str> {
        let probed = self
            .health
            .as_ref()
            .and_then(|health| health.as_ref().err());
        let failed = self.avoided.then_some(&self.last_failure);
        probed.or(failed).map(String::as_str)
    }
}

/// State of a listener, for its status.
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
    /// Whether its clients are accelerated, or why not; `None` if no setting requests it.
    pub accelerated: Option<Result<(), String>>,
    /// Which of its routing keys have a connector.
    pub reachable: Vec<Arc<str>>,
    /// TLS handshakes that failed.
    pub tls_failures: u64,
}

/// A connector as its records describe it: name, routing key, host and port of the server, and
/// connections so far.
pub(in crate::core) type ServedConnector = (String, String, [String; 2], u64);

/// The listeners and connectors of a site.
pub(in crate::core) struct Services {
    listeners: Listeners,
    connectors: Connectors,
}

impl Services {
    pub(in crate::core) fn new(site: u32, namespace: &str) -> Self {
        Self {
            listeners: Listeners::new(site, namespace),
            connectors: Connectors::new(site),
        }
    }

    /// Has listeners steered by the kernel where that is possible, or never.
    pub(in crate::core) fn set_steering(
        &mut self,
        wanted: bool,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) {
        if self.listeners.set_plain(!wanted, sockets, effects) {
            effects.update_view();
        }
    }

    /// Default acceleration for listeners and connectors without that setting.
    /// Those that are open stay as they are.
    pub(in crate::core) fn set_acceleration(
        &mut self,
        wanted: bool,
        sockets: &ListenerSockets,
        effects: &mut Effects,
    ) {
        let acceleration = &sockets.acceleration;
        if self.connectors.set_accelerated(wanted, acceleration) {
            self.listeners.set_accelerated(wanted, acceleration);
            effects.update_status();
        }
    }

    /// Adds, changes and removes listeners.
    pub(in crate::core) fn change_listeners(
        &mut self,
        changes: Vec<ListenerChange>,
        ctx: &mut CoreContext,
        effects: &mut Effects,
    ) {
        for change in changes {
            match change {
                ListenerChange::Set(spec) => {
                    let id = ctx.sender.next_key();
                    self.set_listener(id, *spec, &mut ctx.sockets, effects);
                }
                ListenerChange::Remove(name) => {
                    self.remove_listener(&name, &mut ctx.sockets, effects);
                }
            }
        }
    }

    /// Adds a listener or changes it; a changed one gets this id. An unchanged one is left alone.
    pub(in crate::core) fn set_listener(
        &mut self,
        id: u64,
        spec: ListenerSpec,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) {
        // An observer has no part in connections: those that are open stay.
        if self.listeners.observe(&spec.name, spec.observer) {
            effects.update_view();
        }
        if self
            .listeners
            .get(&spec.name)
            .is_some_and(|l| l.spec == spec)
        {
            return;
        }
        self.remove_listener(&spec.name, sockets, effects);
        for key in spec.keys() {
            let advert = format!("{LISTENER_ADVERT}{key}");
            effects.router(RouterInput::AddConsumer(advert, Treatment::Closest));
        }
        if let Some(policy) = &spec.policy {
            sockets.policies.set(id, policy.clone());
        }
        self.listeners.add(id, spec);
        effects.update_view();
    }

    /// Removes a listener; its connections end.
    pub(in crate::core) fn remove_listener(
        &mut self,
        name: &str,
        sockets: &mut ListenerSockets,
        effects: &mut Effects,
    ) {
        if let Some(spec) = self.listeners.remove(name, sockets, effects) {
            for key in spec.keys() {
                let advert = format!("{LISTENER_ADVERT}{key}");
                effects.router(RouterInput::RemoveConsumer(advert));
            }
            effects.update_view();
        }
    }

    pub(in crate::core) fn set_connector(
        &mut self,
        spec: ConnectorSpec,
        ctx: &CoreContext,
        effects: &mut Effects,
    ) {
        self.connectors
            .set(spec, &ctx.sender, &ctx.sockets.acceleration, effects);
    }

    /// See [`Connectors::set_servers`].
    pub(in crate::core) fn set_servers(
        &mut self,
        name: &str,
        servers: Vec<ConnectorSpec>,
        ctx: &CoreContext,
        effects: &mut Effects,
    ) -> bool {
        let acceleration = &ctx.sockets.acceleration;
        self.connectors
            .set_servers(name, servers, &ctx.sender, acceleration, effects)
    }

    /// Removes a connector; its connections end.
    pub(in crate::core) fn remove_connector(&mut self, name: &str, effects: &mut Effects) {
        self.connectors.remove(name, effects);
    }

    /// What a probe found of the connector's server with this id.
    pub(in crate::core) fn probed(
        &mut self,
        id: u64,
        result: Result<(), String>,
        effects: &mut Effects,
    ) {
        self.connectors.probed(id, result, effects);
    }

    /// Opens listeners whose routing key is reachable and closes those whose is not.
    pub(in crate::core) fn reconsider(
        &mut self,
        view: &SiteView,
        ctx: &mut CoreContext,
        effects: &mut Effects,
    ) {
        self.listeners.reconsider(view, ctx, effects);
    }

    /// Opens listeners that could not be opened a while ago, and no longer reports connectors as avoided
    /// that are not.
    pub(in crate::core) fn retry(&mut self, ctx: &mut CoreContext, effects: &mut Effects) {
        self.listeners.retry(ctx, effects);
        self.connectors.end_avoidance(Instant::now(), effects);
    }

    /// Ends all with their connections.
    pub(in crate::core) fn clear(&mut self, ctx: &mut CoreContext, effects: &mut Effects) {
        self.listeners.clear(ctx, effects);
        self.connectors.clear(effects);
    }

    /// Whether listeners are open for clients of an earlier process alone.
    pub(in crate::core) fn has_held_listeners(&self) -> bool {
        self.listeners.any_waits_for_connector()
    }

    /// Targets of connectors that are offered, by routing key.
    pub(in crate::core) fn offered(&self) -> HashMap<String, Vec<Arc<ConnectorTarget>>> {
        self.connectors.offered()
    }

    /// Targets of connectors that are not offered.
    pub(in crate::core) fn withheld(&self) -> Vec<Arc<ConnectorTarget>> {
        self.connectors.withheld()
    }

    /// What workers know of listeners, by their ids.
    pub(in crate::core) fn listener_views(&self) -> HashMap<u64, ListenerView> {
        let listeners = self.listeners.iter().map(|(name, listener)| {
            let view = ListenerView {
                name: name.as_str().into(),
                observer: listener.spec.observer,
            };
            (listener.id, view)
        });
        listeners.collect()
    }

    /// Listeners: name, each routing key, and where they are.
    pub(in crate::core) fn listening(&self) -> Vec<(String, Arc<str>, String)> {
        let listeners = self.listeners.iter().flat_map(|(name, listener)| {
            let range = listener.spec.bind_ranges.first().map(ToString::to_string);
            let range = range.unwrap_or_default();
            let keys = listener.spec.keys().into_iter();
            keys.map(move |key| (name.clone(), key, range.clone()))
        });
        listeners.collect()
    }

    pub(in crate::core) fn serving(&self) -> Vec<ServedConnector> {
        self.connectors.serving()
    }

    /// Addresses that listeners and connectors of an edge send to.
    pub(in crate::core) fn sent_to(&self) -> impl Iterator<Item = String> {
        let listeners = self
            .listeners
            .iter()
            .map(|(_, l)| l.spec.routing_key.clone());
        let connectors = self.connectors.routing_keys();
        listeners.chain(connectors.map(|key| format!("{LISTENER_ADVERT}{key}")))
    }

    pub(in crate::core) fn listener_states(&self) -> BTreeMap<String, ListenerState> {
        let states = self
            .listeners
            .iter()
            .map(|(name, l)| (name.clone(), l.state()));
        states.collect()
    }

    pub(in crate::core) fn connector_states(&self) -> BTreeMap<String, ConnectorState> {
        self.connectors.states()
    }
}
