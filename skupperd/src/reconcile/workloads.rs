//! Connectors with a selector: which servers they have now.

use crate::{
    link::{core::ConnectorSpec, view::TargetHost},
    model::SelectedPod,
    workload::{Asking, Found, Server, Unit, Wish},
};
use std::collections::BTreeMap;

/// What the status of a connector begins with that nothing was found for.
pub(super) const NO_SERVERS: &str = "No servers: ";
/// State of a unit that ends: it gets no more connections, whatever the connector says.
const ENDING: &str = "deactivating";

/// A connector with a selector.
struct Held {
    wish: Wish,
    /// What it has of each server, but the server itself.
    template: ConnectorSpec,
    found: Option<Found>,
    /// Servers that are not ready, with the states of their units.
    unready: Vec<(Server, String)>,
    /// Servers as they were set last.
    set: Option<Vec<Server>>,
    /// Servers that have gone still have connections.
    busy: bool,
}

/// How a connector with a selector stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Its servers.
    pub(super) servers: Vec<SelectedPod>,
    /// Why it has none; none when it has.
    pub(super) missing: Option<String>,
}

/// Those of one namespace, by their names in the core.
#[derive(Default)]
pub(super) struct Workloads(BTreeMap<String, Held>);

impl Workloads {
    /// Adds a connector or changes it.
    pub(super) fn set(&mut self, wish: Wish, template: ConnectorSpec) {
        let name = template.name.clone();
        let known = self.0.remove(&name).filter(|held| held.wish == wish);
        let (found, unready) = known
            .map(|held| (held.found, held.unready))
            .unwrap_or_default();
        let held = Held {
            wish,
            template,
            found,
            unready,
            set: None,
            busy: false,
        };
        self.0.insert(name, held);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be looked for.
    pub(super) fn wishes(&self) -> impl Iterator<Item = &Wish> {
        self.0.values().map(|held| &held.wish)
    }

    /// Units that servers have.
    pub(super) fn units(&self) -> impl Iterator<Item = &Unit> {
        let servers = self.0.values().flat_map(|held| &held.found);
        let servers = servers.flat_map(|found| &found.servers);
        servers.filter_map(|server| server.unit.as_ref())
    }

    /// Takes what was found for the wishes. True: it is not what was found before.
    pub(super) fn found(&mut self, found: &mut impl Iterator<Item = Found>) -> bool {
        let mut changed = false;
        for held in self.0.values_mut() {
            let now = found.next();
            changed |= held.found != now;
            held.found = now;
        }
        changed
    }

    /// The connectors whose servers are to be set, with all of them.
    pub(super) fn due(&mut self, asking: &Asking) -> Vec<(String, Vec<ConnectorSpec>)> {
        let mut due = Vec::new();
        for (name, held) in &mut self.0 {
            let Some(found) = &held.found else { continue };
            held.unready.clear();
            let mut servers = Vec::new();
            for server in &found.servers {
                let why = server.unit.as_ref().and_then(|unit| asking.unready(unit));
                match why {
                    Some(why) if why == ENDING || !held.template.include_not_ready => {
                        held.unready.push((server.clone(), why));
                    }
                    _ => servers.push(server.clone()),
                }
            }
            if held.busy || held.set.as_ref() != Some(&servers) {
                if held.set.as_ref().is_none_or(|before| *before != servers) {
                    let addrs: Vec<_> = servers.iter().map(|s| s.addr).collect();
                    tracing::info!(connector = name, selector = %held.wish.selector, ?addrs, "servers");
                }
                let specs = servers.iter().map(|server| ConnectorSpec {
                    host: TargetHost::Ip(server.addr.ip()),
                    port: server.addr.port(),
                    ..held.template.clone()
                });
                due.push((name.clone(), specs.collect()));
                held.set = Some(servers);
            }
        }
        due
    }

    /// Takes whether servers that have gone from a connector still have connections.
    pub(super) fn was_set(&mut self, name: &str, busy: bool) {
        if let Some(held) = self.0.get_mut(name) {
            held.busy = busy;
        }
    }

    /// How a connector stands; none for one without a selector.
    pub(super) fn standing(&self, name: &str) -> Option<Standing> {
        let held = self.0.get(name)?;
        let servers = held.set.iter().flatten();
        let servers: Vec<SelectedPod> = servers
            .map(|server| SelectedPod {
                name: server.name.clone(),
                ip: server.addr.ip().to_string(),
                port: server.addr.port(),
            })
            .collect();
        let missing = match (&held.found, held.unready.first()) {
            _ if !servers.is_empty() => None,
            (None, _) => Some("No servers yet".to_owned()),
            (Some(_), Some((server, state))) => {
                let state = if state.is_empty() {
                    "not known yet"
                } else {
                    state
                };
                Some(format!("Not ready: {} is {state}", server.name))
            }
            (Some(found), None) => Some(format!("{NO_SERVERS}{}", found.missing)),
        };
        Some(Standing { servers, missing })
    }
}
