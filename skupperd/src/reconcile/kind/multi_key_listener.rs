//! MultiKeyListener: a listener that chooses between several routing keys.

use super::super::{
    bind_ranges::bind_ranges, desired::DesiredState, error::ReconcileError, hosts::resolve,
    observed::StatusContext, policy, runtime::SiteRuntime, service_tls::ListenerTlsPolicy,
};
use crate::{
    core::ListenerSpec,
    model::{
        ConditionType, Key, Kind, MultiKeyListener, MultiKeyListenerDetails, Name,
        PriorityReachable, StatusDraft, Strategy, StrategyReachable, WeightedReachable,
    },
    service::{keys::RoutingKeys, policy::ListenerPolicy},
};
use std::sync::{Arc, atomic::AtomicU32};

/// Its name in the core, where all listeners are together; no Listener can have it.
fn core_name(name: &str) -> String {
    format!("multikeylistener/{name}")
}

fn key(name: &Name) -> Key {
    Key::new(Kind::MultiKeyListener, name.clone())
}

pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    listener: &MultiKeyListener,
) -> Result<(), ReconcileError> {
    let spec = spec(runtime, desired, name, listener).await;
    runtime.set_or_remove_listener(&core_name(name), spec)
}

pub(in crate::reconcile) fn remove(runtime: &mut SiteRuntime, name: &Name) {
    runtime.service_tls.remove(&key(name));
    runtime.remove_listener(&core_name(name));
}

async fn spec(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    listener: &MultiKeyListener,
) -> Result<ListenerSpec, ReconcileError> {
    let (credentials, settings) = (listener.tls_credentials.as_ref(), &listener.settings);
    let policy = ListenerTlsPolicy::of(credentials, settings, listener.require_client_cert);
    let tls = runtime.set_listener_tls(desired, key(name), policy)?;
    let users = policy::users(&listener.settings)?;
    let addrs = resolve(&listener.host, listener.port).await?;
    runtime.rights.ensure_listener(&addrs, settings)?;
    let keys = match &listener.strategy {
        Strategy::Priority(keys) => {
            RoutingKeys::Ordered(keys.iter().map(|key| key.as_str().into()).collect())
        }
        Strategy::Weighted(keys) => {
            let weighted = keys.iter().map(|(key, n)| (key.as_str().into(), *n));
            RoutingKeys::Weighted(weighted.collect(), AtomicU32::default())
        }
    };
    Ok(ListenerSpec {
        name: core_name(name),
        bind_ranges: bind_ranges(&addrs, listener.port, &listener.settings)?,
        netns_listener: None,
        routing_key: String::new(),
        policy: Some(Arc::new(ListenerPolicy { keys, tls, users })),
        settings: policy::core_settings(&listener.settings),
        observer: listener.observer,
    })
}

pub(in crate::reconcile) fn status(
    ctx: &StatusContext<'_>,
    name: &Name,
    listener: &MultiKeyListener,
) -> StatusDraft {
    let key = key(name);
    let state = ctx.observed.listeners.get(&core_name(name));
    let reachable = state.map(|s| &*s.reachable).unwrap_or_default();
    let error = state.and_then(|s| s.error.as_deref());
    StatusDraft::new(key.kind, false)
        .with(
            ConditionType::Configured,
            ctx.configured_unless(&key, error),
        )
        .with(
            ConditionType::Operational,
            ctx.pending_until(!reachable.is_empty(), "No matching connectors"),
        )
        .details(MultiKeyListenerDetails {
            has_destination: !reachable.is_empty(),
            strategy: strategy(&listener.strategy, reachable),
            certificate_expiration_time: ctx.runtime.service_tls.expires(&key),
            tls_handshake_failures: state.map_or(0, |s| s.tls_failures),
        })
}

fn strategy(strategy: &Strategy, reachable: &[Arc<str>]) -> StrategyReachable {
    match strategy {
        Strategy::Priority(_) => StrategyReachable {
            priority: Some(PriorityReachable {
                routing_keys_reachable: reachable.iter().map(ToString::to_string).collect(),
            }),
            weighted: None,
        },
        Strategy::Weighted(weights) => StrategyReachable {
            priority: None,
            weighted: Some(WeightedReachable {
                routing_keys_reachable: weights
                    .iter()
                    .filter(|(key, _)| reachable.iter().any(|r| **r == ***key))
                    .map(|(key, weight)| (key.to_string(), *weight))
                    .collect(),
            }),
        },
    }
}

pub(in crate::reconcile) fn notes(listener: &MultiKeyListener) -> Vec<String> {
    let idle = listener.require_client_cert && listener.tls_credentials.is_none();
    let note = "spec.requireClientCert has no effect without spec.tlsCredentials";
    Vec::from_iter(idle.then(|| note.to_owned()))
}
