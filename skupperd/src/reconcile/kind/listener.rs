//! Listener: clients connect to it, and it carries their connections to a routing key.

use super::super::{
    bind_ranges::bind_ranges,
    desired::{DesiredResource, DesiredState},
    error::ReconcileError,
    hosts::resolve,
    observed::StatusContext,
    policy,
    runtime::SiteRuntime,
    service_tls::ListenerTlsPolicy,
};
use crate::{
    core::{ListenerSpec, ListenerState},
    model::{Key, Kind, Listener, ListenerDetails, Name, Netns, StatusDraft},
    service::{keys::RoutingKeys, policy::ListenerPolicy},
    steer::{bind_range::BindRange, netns::NetnsListener},
};
use std::{net::SocketAddr, sync::Arc};

fn key(name: &Name) -> Key {
    Key::new(Kind::Listener, name.clone())
}

/// Whether the address of a listener depends on the site's service addresses.
pub(in crate::reconcile) fn has_named_host(item: &DesiredResource) -> bool {
    matches!(item, DesiredResource::Listener(listener) if listener.host.ip().is_none())
}

/// Takes out the listeners whose network namespaces are gone.
pub(in crate::reconcile) fn take_lost(runtime: &mut SiteRuntime) -> Vec<Key> {
    let lost = runtime.netns_listeners.take_lost();
    lost.iter().map(key).collect()
}

pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    listener: &Listener,
) -> Result<(), ReconcileError> {
    let spec = spec(runtime, desired, name, listener).await;
    runtime.set_or_remove_listener(name, spec)
}

pub(in crate::reconcile) fn remove(runtime: &mut SiteRuntime, name: &Name) {
    runtime.service_tls.remove(&key(name));
    runtime.netns_listeners.remove(name);
    runtime.remove_listener(name);
}

async fn spec(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    listener: &Listener,
) -> Result<ListenerSpec, ReconcileError> {
    let credentials = listener.tls_credentials.as_ref();
    let tls_policy = ListenerTlsPolicy::of(credentials, &listener.settings, false);
    let tls = runtime.set_listener_tls(desired, key(name), tls_policy)?;
    let (host, port) = (&listener.host, listener.port);
    let netns = &listener.settings.network_namespace;
    let address = match netns {
        None => runtime.service_addresses.of(host, desired)?,
        Some(_) => None,
    };
    let addrs = match address {
        Some(ip) => vec![SocketAddr::new(ip, port)],
        None => resolve(host, port).await?,
    };
    runtime.rights.ensure_listener(&addrs, &listener.settings)?;
    let ranges = bind_ranges(&addrs, port, &listener.settings)?;
    let netns_listener = match netns {
        None => {
            runtime.netns_listeners.remove(name);
            None
        }
        Some(netns) => Some(in_netns(runtime, name, netns, &ranges).await?),
    };
    let routing_key = listener.routing_key.as_str();
    let users = policy::users(&listener.settings)?;
    let policy = (tls.is_some() || users.is_some()).then(|| ListenerPolicy {
        keys: RoutingKeys::Ordered(vec![routing_key.into()]),
        tls,
        users,
    });
    Ok(ListenerSpec {
        name: name.to_string(),
        bind_ranges: ranges,
        netns_listener,
        // A listener with a policy is known by that alone: no worker serves it without.
        routing_key: policy.as_ref().map_or(routing_key, |_| "").to_owned(),
        policy: policy.map(Arc::new),
        settings: policy::core_settings(&listener.settings),
        observer: listener.observer,
    })
}

/// Sockets in another network namespace: those that the listener has, or new ones.
async fn in_netns(
    runtime: &mut SiteRuntime,
    name: &Name,
    netns: &Netns,
    ranges: &[BindRange],
) -> Result<NetnsListener, ReconcileError> {
    if let Some(placed) = runtime.netns_listeners.reuse(name, netns, ranges) {
        return Ok(placed);
    }
    // The old ones go first: the new ones may want their ports.
    runtime.remove_listener(name);
    runtime.apply_listener_changes().await?;
    let (ranges, workers) = (ranges.to_vec(), runtime.workers);
    let listeners = &mut runtime.netns_listeners;
    listeners.open(name, netns.clone(), ranges, workers).await
}

pub(in crate::reconcile) fn status(ctx: &StatusContext<'_>, name: &Name) -> StatusDraft {
    let key = key(name);
    let state = ctx.observed.listeners.get(name.as_str());
    let matched = state.is_some_and(|s| s.matched);
    let error = state.and_then(|s| s.error.as_deref());
    let configured = ctx.configured_unless(&key, error);
    ctx.service_draft(key.kind, configured, matched, "No matching connectors")
        .details(ListenerDetails {
            has_matching_connector: matched,
            reached_by: state.map_or("", reached_by).to_owned(),
            acceleration: state.map(acceleration).unwrap_or_default(),
            certificate_expiration_time: ctx.runtime.service_tls.expires(&key),
            tls_handshake_failures: state.map_or(0, |s| s.tls_failures),
        })
}

fn reached_by(state: &ListenerState) -> &'static str {
    match (state.open, state.steered) {
        (true, true) => "steering",
        (true, false) => "socket",
        (false, _) => "",
    }
}

fn acceleration(state: &ListenerState) -> String {
    match &state.accelerated {
        Some(Ok(())) => "on".to_owned(),
        Some(Err(reason)) => format!("off: {reason}"),
        None => String::new(),
    }
}
