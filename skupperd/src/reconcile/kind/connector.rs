//! Connector: the server that connections to a routing key go to.

use super::super::{
    desired::DesiredState,
    error::ReconcileError,
    observed::StatusContext,
    policy,
    runtime::SiteRuntime,
    service_tls::{ConnectorTlsPolicy, CredentialSources, probe},
};
use crate::{
    core::{ConnectorSpec, ConnectorState, SiteRequest},
    model::{
        ConditionState, Connector, ConnectorDetails, HealthCheck, HealthRecord, Key, Kind, Name,
        ServerHost, StatusDraft,
    },
    service::view::TargetHost,
    workload::WorkloadQuery,
};

pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    connector: &Connector,
) -> Result<(), ReconcileError> {
    let key = Key::new(Kind::Connector, name.clone());
    set_as(runtime, desired, key, name, connector).await
}

/// Sets the connector of a resource. `core_name` is its name in the core, where all
/// connectors are together.
pub(super) async fn set_as(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    key: Key,
    core_name: &str,
    connector: &Connector,
) -> Result<(), ReconcileError> {
    let spec = match spec(runtime, desired, key, core_name, connector) {
        Ok(spec) => spec,
        Err(error) => {
            remove_from_core(runtime, core_name).await?;
            return Err(error);
        }
    };
    if let ServerHost::Workload(selector) = &connector.host {
        // The servers are set when they are found.
        let (selector, port) = (selector.clone(), spec.port);
        runtime
            .workloads
            .set(WorkloadQuery { selector, port }, spec);
        return Ok(());
    }
    runtime.workloads.remove(core_name);
    let set = |reply| SiteRequest::SetConnector(Box::new(spec), reply);
    runtime.ask_site(set).await.map(drop)
}

pub(in crate::reconcile) async fn remove(
    runtime: &mut SiteRuntime,
    name: &Name,
) -> Result<(), ReconcileError> {
    let key = Key::new(Kind::Connector, name.clone());
    remove_as(runtime, &key, name).await
}

pub(super) async fn remove_as(
    runtime: &mut SiteRuntime,
    key: &Key,
    core_name: &str,
) -> Result<(), ReconcileError> {
    runtime.service_tls.remove(key);
    remove_from_core(runtime, core_name).await
}

async fn remove_from_core(
    runtime: &mut SiteRuntime,
    core_name: &str,
) -> Result<(), ReconcileError> {
    runtime.workloads.remove(core_name);
    let name = core_name.to_owned();
    let remove = |reply| SiteRequest::RemoveConnector(name, reply);
    runtime.ask_site(remove).await.map(drop)
}

fn spec(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    key: Key,
    core_name: &str,
    connector: &Connector,
) -> Result<ConnectorSpec, ReconcileError> {
    let sources = CredentialSources {
        desired,
        secrets: &runtime.secrets,
    };
    let host = match &connector.host {
        ServerHost::Unix(path) => {
            let allowed = runtime.rights.ensure_socket(&runtime.namespace, path);
            allowed.map_err(|reason| ReconcileError::field("host", reason))?;
            TargetHost::Unix(path.clone())
        }
        // Replaced by the address of each server.
        ServerHost::Workload(selector) => TargetHost::Name(selector.to_string()),
        ServerHost::Network(host) => match host.ip() {
            Some(ip) => TargetHost::Ip(ip),
            None => TargetHost::Name(host.to_string()),
        },
    };
    let policy = ConnectorTlsPolicy::of(connector)?;
    Ok(ConnectorSpec {
        name: core_name.to_owned(),
        host,
        port: connector.port,
        routing_key: connector.routing_key.to_string(),
        tls: runtime.service_tls.set_connector(sources, key, policy)?,
        settings: (*connector.settings).clone(),
        sites: policy::sites(&connector.settings),
        probe: probe(connector),
        include_not_ready: connector.include_not_ready,
    })
}

pub(in crate::reconcile) fn status(
    ctx: &StatusContext<'_>,
    name: &Name,
    connector: &Connector,
) -> StatusDraft {
    let key = Key::new(Kind::Connector, name.clone());
    let state = ctx.observed.connectors.get(name.as_str());
    let selector = ctx.runtime.workloads.selector_status(name);
    let health = state.and_then(|s| s.health.as_ref());
    let unready = state.and_then(ConnectorState::unready_reason);
    let missing = selector.as_ref().and_then(|s| s.missing.clone());
    let configured = match (ctx.configured(&key), unready) {
        // Without a site the selector is not evaluated.
        (ConditionState::True, _) if missing.is_some() && ctx.is_running() => {
            ConditionState::Pending(missing)
        }
        (ConditionState::True, Some(reason)) if !connector.include_not_ready => {
            ConditionState::Pending(Some(format!("Not ready: {reason}")))
        }
        (state, _) => state,
    };
    let matched = ctx.has_listener(&connector.routing_key);
    ctx.service_draft(key.kind, configured, matched, "No matching listeners")
        .details(ConnectorDetails {
            has_matching_listener: matched,
            selected_pods: selector.map(|s| s.servers).unwrap_or_default(),
            health: health.map(|health| HealthRecord {
                ready: health.is_ok(),
                message: health.as_ref().err().cloned().unwrap_or_default(),
            }),
            last_failure: state.map(|s| s.last_failure.clone()).unwrap_or_default(),
        })
}

pub(in crate::reconcile) fn notes(connector: &Connector) -> Vec<String> {
    let mut notes = Vec::new();
    let probed = connector.settings.health_check != HealthCheck::None;
    if connector.include_not_ready && !probed && connector.host.selector().is_none() {
        let reason = "without spec.selector or spec.settings[health-check]";
        notes.push(format!("spec.includeNotReadyPods has no effect {reason}"));
    }
    for (name, is_set) in [
        ("useClientCert", connector.use_client_cert),
        ("verifyHostname", connector.verify_hostname),
    ] {
        if is_set && connector.tls_credentials.is_none() {
            let reason = "without spec.tlsCredentials";
            notes.push(format!("spec.{name} has no effect {reason}"));
        }
    }
    if connector.host.unix().is_some() && connector.port != 0 {
        notes.push("spec.port has no effect where spec.host is a Unix socket".to_owned());
    }
    notes
}
