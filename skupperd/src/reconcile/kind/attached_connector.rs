//! AttachedConnector and AttachedConnectorBinding: a connector whose servers are another namespace's.
//! Both sides have to want it; see [`super::super::attachments`].

use super::super::{
    attachments::{Attachments, BindingStatus, core_name},
    desired::DesiredState,
    error::ReconcileError,
    observed::StatusContext,
    runtime::SiteRuntime,
};
use super::connector;
use crate::{
    core::ConnectorState,
    manifest::LocatedResource,
    model::{
        AttachedConnector, AttachedConnectorBinding, AttachedConnectorDetails, BindingDetails,
        ConditionState, ConditionType, Connector, Key, Kind, Name, Namespace, Spec, StatusDraft,
    },
};
use std::collections::BTreeMap;

fn binding_key(name: &Name) -> Key {
    Key::new(Kind::AttachedConnectorBinding, name.clone())
}

/// State of a site's bindings, for the namespaces of the offers.
pub(in crate::reconcile) fn binding_states<'a>(
    resources: &'a [LocatedResource],
    runtime: &'a SiteRuntime,
    failures: &'a BTreeMap<Key, ReconcileError>,
) -> impl Iterator<Item = (Name, BindingStatus)> {
    let bindings = resources.iter().map(LocatedResource::key);
    let bindings = bindings.filter(|key| key.kind == Kind::AttachedConnectorBinding);
    bindings.map(|key| {
        let status = BindingStatus {
            selector: runtime.workloads.selector_status(&core_name(&key.name)),
            failure: failures.get(&key).cloned(),
        };
        (key.name, status)
    })
}

/// Adds the offers and bindings of a namespace.
pub(in crate::reconcile) fn attach(
    namespace: &Namespace,
    resources: &[LocatedResource],
    attachments: &mut Attachments,
) {
    for located in resources {
        let name = located.resource.name();
        match &located.resource.spec {
            Spec::AttachedConnector(offer) => attachments.offer(namespace, name, offer),
            Spec::AttachedConnectorBinding(binding) => attachments.bind(namespace, name, binding),
            _ => {}
        }
    }
}

/// Sets the connector of a binding.
pub(in crate::reconcile) async fn set(
    runtime: &mut SiteRuntime,
    desired: &DesiredState,
    name: &Name,
    connector: &Connector,
) -> Result<(), ReconcileError> {
    let (key, core_name) = (binding_key(name), core_name(name));
    connector::set_as(runtime, desired, key, &core_name, connector).await
}

/// Removes the connector of a binding.
pub(in crate::reconcile) async fn remove(
    runtime: &mut SiteRuntime,
    name: &Name,
) -> Result<(), ReconcileError> {
    connector::remove_as(runtime, &binding_key(name), &core_name(name)).await
}

pub(in crate::reconcile) fn status(
    ctx: &StatusContext<'_>,
    name: &Name,
    offer: &AttachedConnector,
) -> StatusDraft {
    let key = Key::new(Kind::AttachedConnector, name.clone());
    let binding = ctx
        .bindings
        .get(&(offer.site_namespace.clone(), name.clone()));
    let configured = match ctx.configured(&key) {
        ConditionState::True => ctx
            .attachments
            .of_offer(ctx.namespace, name, offer, binding),
        state => state,
    };
    // The servers of another site are shown only to the offer that it has accepted.
    let accepted = configured == ConditionState::True;
    let selector = binding.and_then(|binding| binding.selector.as_ref());
    let selector = selector.filter(|_| accepted);
    StatusDraft::new(key.kind, false)
        .with(ConditionType::Configured, configured)
        .details(AttachedConnectorDetails {
            selected_pods: selector.map(|s| s.servers.clone()).unwrap_or_default(),
        })
}

pub(in crate::reconcile) fn binding_status(
    ctx: &StatusContext<'_>,
    name: &Name,
    binding: &AttachedConnectorBinding,
) -> StatusDraft {
    let (key, core_name) = (binding_key(name), core_name(name));
    let selector = ctx.runtime.workloads.selector_status(&core_name);
    let state = ctx.observed.connectors.get(&core_name);
    let unready = state.and_then(ConnectorState::unready_reason);
    let configured = match (ctx.configured(&key), unready) {
        (ConditionState::True, Some(reason)) => {
            ConditionState::Pending(Some(format!("Not ready: {reason}")))
        }
        (ConditionState::True, None) => {
            let attachments = ctx.attachments;
            attachments.of_binding(ctx.namespace, name, selector.as_ref())
        }
        (state, _) => state,
    };
    let matched = ctx.has_listener(&binding.routing_key);
    ctx.service_draft(key.kind, configured, matched, "No matching listeners")
        .details(BindingDetails {
            has_matching_listener: matched,
            last_failure: state.map(|s| s.last_failure.clone()).unwrap_or_default(),
        })
}
