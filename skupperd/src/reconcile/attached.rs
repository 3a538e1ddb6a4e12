//! Connectors of two namespaces: what one offers to the site of the other, and what that takes.
//!
//! Who may write a namespace's directory speaks for it, and for it alone: an AttachedConnector without
//! the binding of the same name at the other side does nothing, and neither does a binding without it.

use super::workloads::{NO_SERVERS, Standing};
use crate::model::{
    AttachedConnector, AttachedConnectorBinding, Connector, Name, Namespace, ServerHost, State,
};
use std::collections::BTreeMap;

/// What the namespaces of this host say of each other.
#[derive(Debug, Default)]
pub(super) struct Attachments {
    offers: BTreeMap<(Namespace, Name), AttachedConnector>,
    bindings: BTreeMap<(Namespace, Name), AttachedConnectorBinding>,
}

/// How the servers stand that a site has of other namespaces, by the site's namespace.
pub(super) type Standings = BTreeMap<(Namespace, Name), Bound>;

/// How the servers of one binding stand.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The servers.
    pub(super) standing: Option<Standing>,
    /// Why the site can not have them.
    pub(super) failure: Option<String>,
}

/// Name of a binding in the core, where all connectors are together; no Connector has it.
pub(super) fn attached_name(name: &str) -> String {
    format!("attachedconnectorbinding/{name}")
}

/// As upstream has it.
fn no_matches(why: &str) -> String {
    match why.strip_prefix(NO_SERVERS) {
        Some(why) => format!("No matches for selector: {why}"),
        None => why.to_owned(),
    }
}

impl Attachments {
    pub(super) fn offer(&mut self, from: &Namespace, name: &Name, offer: &AttachedConnector) {
        let key = (from.clone(), name.clone());
        self.offers.insert(key, offer.clone());
    }

    pub(super) fn bind(&mut self, at: &Namespace, name: &Name, binding: &AttachedConnectorBinding) {
        let key = (at.clone(), name.clone());
        self.bindings.insert(key, binding.clone());
    }

    /// The offer that a binding is for, if that is for the binding too.
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

    /// The connector that a binding stands for, once both sides want it.
    pub(super) fn connector(&self, at: &Namespace, name: &Name) -> Option<Connector> {
        let binding = self.bindings.get(&(at.clone(), name.clone()))?;
        let offer = self.offered(at, name).ok()?;
        let mut settings = offer.settings.clone();
        settings.extend(binding.settings.clone());
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

    /// How a binding stands. `standing`: of its servers, where a site runs.
    pub(super) fn of_binding(
        &self,
        at: &Namespace,
        name: &Name,
        standing: Option<&Standing>,
    ) -> State {
        match (self.offered(at, name), standing) {
            (Err(why), _) => State::Pending(Some(why)),
            (
                Ok(_),
                Some(Standing {
                    missing: Some(why), ..
                }),
            ) => State::Pending(Some(no_matches(why))),
            (Ok(_), _) => State::True,
        }
    }

    /// How an offer stands.
    pub(super) fn of_offer(
        &self,
        from: &Namespace,
        name: &Name,
        offer: &AttachedConnector,
        bound: Option<&Bound>,
    ) -> State {
        let site = &offer.site_namespace;
        let Some(binding) = self.bindings.get(&(site.clone(), name.clone())) else {
            let text = "No matching AttachedConnectorBinding in site namespace";
            return State::Pending(Some(text.to_owned()));
        };
        let allowed = &binding.connector_namespace;
        if allowed != from {
            return State::Error(format!(
                "AttachedConnectorBinding {site}/{name} does not allow AttachedConnector in {from} \
                 (only {allowed})"
            ));
        }
        let standing = bound.and_then(|bound| bound.standing.as_ref());
        let missing = standing.and_then(|standing| standing.missing.as_ref());
        match (bound.and_then(|b| b.failure.as_ref()), missing) {
            (Some(failure), _) => State::Error(failure.clone()),
            (None, Some(why)) => State::Pending(Some(no_matches(why))),
            (None, None) if standing.is_none() => {
                State::Pending(Some(format!("No active site in namespace {site}")))
            }
            (None, None) => State::True,
        }
    }
}
