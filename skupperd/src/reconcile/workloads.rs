//! Connectors with a selector: the servers that they have now.

use crate::{
    core::ConnectorSpec,
    model::SelectedPod,
    service::view::TargetHost,
    workload::{SystemdUnit, UnitStateReader, WorkloadMatch, WorkloadQuery, WorkloadServer},
};
use std::collections::BTreeMap;

/// Start of the status of a connector without servers.
pub(super) const NO_SERVERS: &str = "No servers: ";
/// State of a unit that stops: it gets no more connections, whatever the connector says.
const STOPPING: &str = "deactivating";

struct TrackedConnector {
    query: WorkloadQuery,
    /// For each server, with the address to be filled in.
    template: ConnectorSpec,
    found: Option<WorkloadMatch>,
    /// Servers that are not ready, with the states of their units.
    unready: Vec<(WorkloadServer, String)>,
    /// Servers that the core was given last.
    set: Option<Vec<WorkloadServer>>,
    /// Servers that are gone still have connections.
    busy: bool,
}

/// The servers of a connector with a selector, for its status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SelectorStatus {
    pub(super) servers: Vec<SelectedPod>,
    /// Why it has no servers; `None` when it has some.
    pub(super) missing: Option<String>,
}

/// The connectors with selectors of one namespace, by their names in the core.
#[derive(Default)]
pub(super) struct Workloads(BTreeMap<String, TrackedConnector>);

impl Workloads {
    /// Adds a connector or changes it.
    pub(super) fn set(&mut self, query: WorkloadQuery, template: ConnectorSpec) {
        let name = template.name.clone();
        let known = self
            .0
            .remove(&name)
            .filter(|tracked| tracked.query == query);
        let (found, unready) = known
            .map(|tracked| (tracked.found, tracked.unready))
            .unwrap_or_default();
        let tracked = TrackedConnector {
            query,
            template,
            found,
            unready,
            set: None,
            busy: false,
        };
        self.0.insert(name, tracked);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn queries(&self) -> impl Iterator<Item = &WorkloadQuery> {
        self.0.values().map(|tracked| &tracked.query)
    }

    /// Units of the servers.
    pub(super) fn units(&self) -> impl Iterator<Item = &SystemdUnit> {
        let servers = self.0.values().flat_map(|tracked| &tracked.found);
        let servers = servers.flat_map(|found| &found.servers);
        servers.filter_map(|server| server.unit.as_ref())
    }

    /// Takes what was found, in the order of [`Self::queries`]. Returns whether it has changed.
    pub(super) fn set_matches(&mut self, found: &mut impl Iterator<Item = WorkloadMatch>) -> bool {
        let mut changed = false;
        for tracked in self.0.values_mut() {
            let now = found.next();
            changed |= tracked.found != now;
            tracked.found = now;
        }
        changed
    }

    /// Connectors whose servers the core does not have yet, each with all of its servers.
    pub(super) fn due(
        &mut self,
        unit_states: &UnitStateReader,
    ) -> Vec<(String, Vec<ConnectorSpec>)> {
        let mut due = Vec::new();
        for (name, tracked) in &mut self.0 {
            let Some(found) = &tracked.found else {
                continue;
            };
            tracked.unready.clear();
            let mut servers = Vec::new();
            for server in &found.servers {
                let reason = server
                    .unit
                    .as_ref()
                    .and_then(|unit| unit_states.unready_state(unit));
                match reason {
                    Some(reason) if reason == STOPPING || !tracked.template.include_not_ready => {
                        tracked.unready.push((server.clone(), reason));
                    }
                    _ => servers.push(server.clone()),
                }
            }
            if tracked.busy || tracked.set.as_ref() != Some(&servers) {
                if tracked.set.as_ref().is_none_or(|before| *before != servers) {
                    let addrs: Vec<_> = servers.iter().map(|s| s.addr).collect();
                    tracing::info!(connector = name, selector = %tracked.query.selector, ?addrs, "servers of selector changed");
                }
                let specs = servers.iter().map(|server| ConnectorSpec {
                    host: TargetHost::Ip(server.addr.ip()),
                    port: server.addr.port(),
                    ..tracked.template.clone()
                });
                due.push((name.clone(), specs.collect()));
                tracked.set = Some(servers);
            }
        }
        due
    }

    /// `busy`: servers that are gone still have connections.
    pub(super) fn was_set(&mut self, name: &str, busy: bool) {
        if let Some(tracked) = self.0.get_mut(name) {
            tracked.busy = busy;
        }
    }

    /// `None` for a connector without a selector.
    pub(super) fn selector_status(&self, name: &str) -> Option<SelectorStatus> {
        let tracked = self.0.get(name)?;
        let servers = tracked.set.iter().flatten();
        let servers: Vec<SelectedPod> = servers
            .map(|server| SelectedPod {
                name: server.name.clone(),
                ip: server.addr.ip().to_string(),
                port: server.addr.port(),
            })
            .collect();
        let missing = match (&tracked.found, tracked.unready.first()) {
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
        Some(SelectorStatus { servers, missing })
    }
}
