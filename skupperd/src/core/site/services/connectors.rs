//! Connectors of a site: the servers of each, and whether they are announced.

use super::{ConnectorSpec, ConnectorState, ServedConnector, health::ServerHealth};
use crate::{
    core::site::effects::{Effects, RouterInput},
    messages::CoreSender,
    router::Treatment,
    service::{
        failures::LastFailure,
        origin::ORIGIN_ADVERT,
        view::{ConnectorTarget, TargetHost},
    },
    steer::accel::Acceleration,
    telemetry::Failures,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

/// The name of a connector and, if it has several servers or none, the server.
type ServerKey = (String, String);

/// Whether connections to a server are accelerated: those to a port, without TLS.
fn is_accelerated(spec: &ConnectorSpec, by_default: bool, acceleration: &Acceleration) -> bool {
    let plain = spec.tls.is_none() && !matches!(spec.host, TargetHost::Unix(_));
    plain && spec.settings.acceleration.unwrap_or(by_default) && acceleration.enable()
}

/// One server of a connector.
struct RunningConnector {
    spec: ConnectorSpec,
    target: Arc<ConnectorTarget>,
    health: Option<ServerHealth>,
    /// It is announced to the network.
    offered: bool,
    /// Its server takes no more connections; it goes when those that it has have ended.
    leaving: bool,
    /// It was avoided when that was last looked at.
    avoided: bool,
}

impl RunningConnector {
    fn new(site: u32, spec: ConnectorSpec, accelerated: bool, sender: &CoreSender) -> Self {
        let target = Arc::new(ConnectorTarget {
            id: sender.next_key(),
            name: spec.name.clone(),
            host: spec.host.clone(),
            port: spec.port,
            accelerated: AtomicBool::new(accelerated),
            tls: spec.tls.clone(),
            settings: spec.settings.clone(),
            sites: spec.sites.clone(),
            last_failure: LastFailure::default(),
            failures: Failures::default(),
            in_use: AtomicU32::new(0),
            connections: AtomicU64::new(0),
        });
        let probe = spec.probe.as_ref();
        let health = probe.map(|probe| ServerHealth::watch(sender, site, &spec, probe, target.id));
        Self {
            spec,
            target,
            health,
            offered: false,
            leaving: false,
            avoided: false,
        }
    }

    /// Makes it known to the network while its server takes connections.
    fn update_offer(&mut self, effects: &mut Effects) {
        let well = self.health.as_ref().is_none_or(ServerHealth::is_healthy);
        self.offer(
            !self.leaving && (well || self.spec.include_not_ready),
            effects,
        );
    }

    /// Makes it known to the network, or unknown.
    fn offer(&mut self, offered: bool, effects: &mut Effects) {
        if std::mem::replace(&mut self.offered, offered) == offered {
            return;
        }
        let key = &self.spec.routing_key;
        let origin = self
            .spec
            .settings
            .proxy_protocol
            .map(|_| format!("{ORIGIN_ADVERT}{key}"));
        if offered {
            effects.router(RouterInput::AddConsumer(key.clone(), Treatment::of(key)));
            if let Some(advert) = origin {
                effects.router(RouterInput::AddConsumer(advert, Treatment::Closest));
            }
        } else {
            effects.router(RouterInput::RemoveConsumer(key.clone()));
            if let Some(advert) = origin {
                effects.router(RouterInput::RemoveConsumer(advert));
            }
        }
    }
}

pub(super) struct Connectors {
    site: u32,
    by_server: BTreeMap<ServerKey, RunningConnector>,
    /// Acceleration of connectors without that setting.
    accelerated: bool,
}

impl Connectors {
    pub(super) fn new(site: u32) -> Self {
        Self {
            site,
            by_server: BTreeMap::new(),
            accelerated: false,
        }
    }

    /// False: it is so already.
    pub(super) fn set_accelerated(&mut self, wanted: bool, acceleration: &Acceleration) -> bool {
        if self.accelerated == wanted {
            return false;
        }
        self.accelerated = wanted;
        for connector in self.by_server.values() {
            let on = is_accelerated(&connector.spec, wanted, acceleration);
            connector.target.accelerated.store(on, Ordering::Relaxed);
        }
        true
    }

    /// Adds a connector with one server or changes it. An unchanged one is left alone.
    pub(super) fn set(
        &mut self,
        spec: ConnectorSpec,
        sender: &CoreSender,
        acceleration: &Acceleration,
        effects: &mut Effects,
    ) {
        let name = spec.name.clone();
        for key in self.keys_of(&name) {
            if !key.1.is_empty() {
                self.drop_server(&key, effects);
            }
        }
        self.put((name, String::new()), spec, sender, acceleration, effects);
    }

    /// Sets all the servers of a connector. Those that are not there any more get no more
    /// connections, and go when they have none. True: some of them still have.
    pub(super) fn set_servers(
        &mut self,
        name: &str,
        servers: Vec<ConnectorSpec>,
        sender: &CoreSender,
        acceleration: &Acceleration,
        effects: &mut Effects,
    ) -> bool {
        let key = |spec: &ConnectorSpec| (name.to_owned(), format!("{} {}", spec.host, spec.port));
        let servers: BTreeMap<_, _> = servers.into_iter().map(|s| (key(&s), s)).collect();
        let mut busy = false;
        for known in self.keys_of(name) {
            if !servers.contains_key(&known) {
                busy |= self.let_go(&known, effects);
            }
        }
        for (key, spec) in servers {
            match self.by_server.get_mut(&key) {
                Some(connector) if connector.spec == spec => {
                    if std::mem::take(&mut connector.leaving) {
                        connector.update_offer(effects);
                        effects.update_view();
                    }
                }
                _ => self.put(key, spec, sender, acceleration, effects),
            }
        }
        busy
    }

    /// Gives a server no more connections, and drops it once it has none. True: it may still have.
    fn let_go(&mut self, key: &ServerKey, effects: &mut Effects) -> bool {
        let Some(connector) = self.by_server.get_mut(key) else {
            return false;
        };
        // Workers may be about to use one that has just been let go: the next call drops it.
        if connector.leaving && connector.target.in_use.load(Ordering::Relaxed) == 0 {
            self.drop_server(key, effects);
            return false;
        }
        if !std::mem::replace(&mut connector.leaving, true) {
            connector.update_offer(effects);
            effects.update_view();
        }
        true
    }

    fn put(
        &mut self,
        key: ServerKey,
        spec: ConnectorSpec,
        sender: &CoreSender,
        acceleration: &Acceleration,
        effects: &mut Effects,
    ) {
        if self.by_server.get(&key).is_some_and(|c| c.spec == spec) {
            return;
        }
        self.drop_server(&key, effects);
        let accelerated = is_accelerated(&spec, self.accelerated, acceleration);
        let mut connector = RunningConnector::new(self.site, spec, accelerated, sender);
        connector.update_offer(effects);
        self.by_server.insert(key, connector);
        effects.update_view();
    }

    pub(super) fn remove(&mut self, name: &str, effects: &mut Effects) {
        for key in self.keys_of(name) {
            self.drop_server(&key, effects);
        }
    }

    fn drop_server(&mut self, key: &ServerKey, effects: &mut Effects) {
        if let Some(mut connector) = self.by_server.remove(key) {
            connector.offer(false, effects);
            effects.update_view();
        }
    }

    /// Ends the connections of all.
    pub(super) fn clear(&self, effects: &mut Effects) {
        for connector in self.by_server.values() {
            effects.unlisten(connector.target.id, true);
        }
    }

    pub(super) fn probed(&mut self, id: u64, result: Result<(), String>, effects: &mut Effects) {
        let mut connectors = self.by_server.values_mut();
        let Some(connector) = connectors.find(|c| c.target.id == id) else {
            // Another has taken its place since.
            return;
        };
        let Some(health) = connector.health.as_mut() else {
            return;
        };
        if health.record_probe(&connector.spec.name, result) {
            connector.update_offer(effects);
            effects.update_view();
            effects.update_status();
        }
    }

    /// Updates the status when the time of one that was avoided is over. Workers report the beginning.
    pub(super) fn end_avoidance(&mut self, now: Instant, effects: &mut Effects) {
        for connector in self.by_server.values_mut() {
            let avoided = connector.target.last_failure.is_avoided(now);
            if std::mem::replace(&mut connector.avoided, avoided) && !avoided {
                effects.update_status();
            }
        }
    }

    fn keys_of(&self, name: &str) -> Vec<ServerKey> {
        let first = (name.to_owned(), String::new());
        let keys = self.by_server.range(first..).map(|(key, _)| key);
        keys.take_while(|key| key.0 == name).cloned().collect()
    }

    /// Targets of connectors that are offered, by routing key.
    pub(super) fn offered(&self) -> HashMap<String, Vec<Arc<ConnectorTarget>>> {
        let mut by_key: HashMap<String, Vec<Arc<ConnectorTarget>>> = HashMap::new();
        for connector in self.by_server.values().filter(|c| c.offered) {
            let key = connector.spec.routing_key.clone();
            by_key
                .entry(key)
                .or_default()
                .push(connector.target.clone());
        }
        by_key
    }

    /// Targets of connectors that are not offered.
    pub(super) fn withheld(&self) -> Vec<Arc<ConnectorTarget>> {
        let withheld = self.by_server.values().filter(|c| !c.offered);
        withheld.map(|c| c.target.clone()).collect()
    }

    pub(super) fn routing_keys(&self) -> impl Iterator<Item = &str> {
        self.by_server.values().map(|c| c.spec.routing_key.as_str())
    }

    pub(super) fn serving(&self) -> Vec<ServedConnector> {
        let connectors = self.by_server.values().map(|connector| {
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

    /// States by name. A connector with several servers is healthy while one of them is.
    pub(super) fn states(&self) -> BTreeMap<String, ConnectorState> {
        let now = Instant::now();
        let mut states: BTreeMap<String, ConnectorState> = BTreeMap::new();
        for ((name, _), connector) in &self.by_server {
            if connector.leaving {
                continue;
            }
            let avoided = connector.target.last_failure.is_avoided(now);
            let state = states.entry(name.clone()).or_default();
            state.avoided = avoided && (state.servers == 0 || state.avoided);
            state.servers += 1;
            let health = connector.health.as_ref().map(ServerHealth::state);
            if state.health.as_ref().is_none_or(Result::is_err) {
                state.health = health.or(state.health.take());
            }
            if state.last_failure.is_empty() {
                state.last_failure = connector.target.last_failure.text();
            }
        }
        states
    }
}

#[cfg(test)]
mod tests;
