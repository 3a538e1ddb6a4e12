//! Offers and bindings across namespaces: an AttachedConnector offers servers of its namespace to a site
//! in another, and an AttachedConnectorBinding there accepts them.
//!
//! Write access to a directory of resources covers that namespace only. So neither side does
//! anything without the other of the same name.

use super::error::ReconcileError;
use super::workloads::{NO_SERVERS, SelectorStatus};
use crate::{
    manifest::settings,
    model::{
        AttachedConnector, AttachedConnectorBinding, ConditionState, Connector, Kind, Name,
        Namespace, ServerHost, ServicePrefix,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// The offers, bindings and service addresses of all namespaces of this host.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    offers: BTreeMap<(Namespace, Name), AttachedConnector>,
    bindings: BTreeMap<(Namespace, Name), AttachedConnectorBinding>,
    /// Service addresses, which other namespaces leave alone.
    prefixes: BTreeMap<Namespace, ServicePrefix>,
}

/// By the namespace of the site and the name of the binding.
pub(super) type BindingStatuses = BTreeMap<(Namespace, Name), BindingStatus>;

/// State of a binding, for the status of its offer.
#[derive(Debug, Default)]
pub(super) struct BindingStatus {
    /// `None` without a running site.
    pub(super) selector: Option<SelectorStatus>,
    /// Why the site cannot use the servers.
    pub(super) failure: Option<ReconcileError>,
}

/// Name of a binding's connector in the core, where all connectors are together; no Connector can have
/// it.
pub(super) fn core_name(name: &str) -> String {
    format!("attachedconnectorbinding/{name}")
}

/// In Skupper's words.
fn no_matches(reason: &str) -> String {
    match reason.strip_prefix(NO_SERVERS) {
        Some(reason) => format!("No matches for selector: {reason}"),
        None => reason.to_owned(),
    }
}

impl Attachments {
    pub(super) fn take_prefix(&mut self, namespace: &Namespace, prefix: ServicePrefix) {
        self.prefixes.insert(namespace.clone(), prefix);
    }

    /// Service addresses of all namespaces but this one.
    pub(super) fn prefixes_of_others(&self, namespace: &Namespace) -> BTreeSet<ServicePrefix> {
        let others = self.prefixes.iter().filter(|(of, _)| *of != namespace);
        others.map(|(_, prefix)| *prefix).collect()
    }

    pub(super) fn offer(&mut self, from: &Namespace, name: &Name, offer: &AttachedConnector) {
        let key = (from.clone(), name.clone());
        self.offers.insert(key, offer.clone());
    }

    pub(super) fn bind(&mut self, at: &Namespace, name: &Name, binding: &AttachedConnectorBinding) {
        let key = (at.clone(), name.clone());
        self.bindings.insert(key, binding.clone());
    }

    /// The offer that a binding accepts, if it is for the binding's namespace.
    fn offered(&self, at: &Namespace, name: &Name) -> Result<&AttachedConnector, String> {
        let missing = || "No matching AttachedConnector".to_owned();
        let binding = self.bindings.get(&(at.clone(), name.clone()));
        let namespace = &binding.ok_or_else(missing)?.connector_namespace;
        let offer = self.offers.get(&(namespace.clone(), name.clone()));
        let offer = offer.ok_or_else(missing)?;
        if offer.site_namespace != *at {
            let other = &offer.site_namespace;
            let text = format!(": AttachedConnector {namespace}/{name} is for namespace {other}");
            return Err(missing() + &text);
        }
        Ok(offer)
    }

    /// The connector of a binding, once both sides agree.
    pub(super) fn connector(&self, at: &Namespace, name: &Name) -> Option<Connector> {
        let binding = self.bindings.get(&(at.clone(), name.clone()))?;
        let offer = self.offered(at, name).ok()?;
        let mut texts = offer.settings.texts().clone();
        texts.extend(binding.settings.texts().clone());
        // Each side was read before, so that both together are valid.
        let settings = settings::read(Kind::AttachedConnectorBinding, texts).ok()?;
        Some(Connector {
            routing_key: binding.routing_key.clone(),
            host: ServerHost::Workload(offer.selector.clone()),
            port: offer.port,
            tls_credentials: offer.tls_credentials.clone(),
            use_client_cert: offer.use_client_cert,
            verify_hostname: false,
            include_not_ready: offer.include_not_ready,
            expose_pods_by_name: binding.expose_pods_by_name,
            settings,
        })
    }

    /// State of a binding. `selector`: its servers, where a site runs.
    pub(super) fn of_binding(
        &self,
        at: &Namespace,
        name: &Name,
        selector: Option<&SelectorStatus>,
    ) -> ConditionState {
        match (self.offered(at, name), selector) {
            (Err(reason), _) => ConditionState::Pending(Some(reason)),
            (
                Ok(_),
                Some(SelectorStatus {
                    missing: Some(reason),
                    ..
                }),
            ) => ConditionState::Pending(Some(no_matches(reason))),
            (Ok(_), _) => ConditionState::True,
        }
    }

    /// State of an offer.
    pub(super) fn of_offer(
        &self,
        from: &Namespace,
        name: &Name,
        offer: &AttachedConnector,
        status: Option<&BindingStatus>,
    ) -> ConditionState {
        let site = &offer.site_namespace;
        let Some(binding) = self.bindings.get(&(site.clone(), name.clone())) else {
            let text = "No matching AttachedConnectorBinding in site namespace";
            return ConditionState::Pending(Some(text.to_owned()));
        };
        let allowed = &binding.connector_namespace;
        if allowed != from {
            return ConditionState::Error(format!(
                "AttachedConnectorBinding {site}/{name} does not allow AttachedConnector in {from} \
                 (only {allowed})"
            ));
        }
        let selector = status.and_then(|status| status.selector.as_ref());
        let missing = selector.and_then(|selector| selector.missing.as_ref());
        match (status.and_then(|b| b.failure.as_ref()), missing) {
            (Some(failure), _) => ConditionState::Error(failure.text()),
            (None, Some(reason)) => ConditionState::Pending(Some(no_matches(reason))),
            (None, None) if selector.is_none() => {
                ConditionState::Pending(Some(format!("No active site in namespace {site}")))
            }
            (None, None) => ConditionState::True,
        }
    }
}
