//! What a status is made of: the state of the site in the core, with the records of other sites that it
//! knows by their addresses.

use super::{
    attachments::{Attachments, BindingStatuses},
    error::ReconcileError,
    runtime::SiteRuntime,
};
use crate::{
    core::{IncomingLink, SiteState},
    flows::site_name,
    link::names::LISTENER_ADVERT as LISTENER,
    manifest::{LocatedResource, ManifestError},
    model::{
        CertificateRecord, ConditionState, ConditionType, IncomingRecord, Key, Kind, LinkRecord,
        Namespace, ServiceRecord, SiteRecord, Spec, StatusDraft, check_name,
    },
    router::NetworkRouter,
};
use std::collections::BTreeMap;

/// Prefix of the address by which a site makes itself known to all others.
const SITE: &str = "skupper-site/";
/// Parts of such an address after the prefix; that of an edge site has one more.
const ADVERT_PARTS: usize = 5;

/// The address by which a site makes itself known: id, name, namespace, platform and version. An edge
/// site adds its router id, because another router announces the address.
pub(super) fn advert(id: &str, name: &str, namespace: &str, edge: Option<&str>) -> String {
    let edge = edge.map(|router| format!("/{router}")).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    format!("{SITE}{id}/{name}/{namespace}/linux/{version}{edge}")
}

/// Everything that the status of a resource is made of.
#[derive(Clone, Copy)]
pub(super) struct StatusContext<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) resources: &'a [LocatedResource],
    pub(super) runtime: &'a SiteRuntime,
    pub(super) attachments: &'a Attachments,
    pub(super) observed: &'a SiteState,
    pub(super) bindings: &'a BindingStatuses,
    /// What could not be applied.
    pub(super) failures: &'a BTreeMap<Key, ReconcileError>,
    /// Documents that are invalid now, whose last valid version stays.
    pub(super) stale: &'a BTreeMap<Key, ManifestError>,
}

impl StatusContext<'_> {
    /// Whether a listener of the routing key can be reached.
    pub(super) fn has_listener(&self, key: &str) -> bool {
        let advert = format!("{LISTENER}{key}");
        let mut reached = self.observed.network.iter().filter(|r| r.cost.is_some());
        reached.any(|r| r.addresses.contains(&advert))
    }

    pub(super) fn is_running(&self) -> bool {
        self.runtime.site.is_some()
    }

    pub(super) fn is_edge(&self) -> bool {
        let is_edge =
            |l: &LocatedResource| matches!(&l.resource.spec, Spec::Site(site) if site.edge);
        self.resources.iter().any(is_edge)
    }

    /// Whether the resource was applied.
    pub(super) fn configured(&self, key: &Key) -> ConditionState {
        self.configured_unless(key, None)
    }

    /// Whether the resource was applied and the core has no error with it.
    pub(super) fn configured_unless(&self, key: &Key, error: Option<&str>) -> ConditionState {
        // The document on disk is what its author looks at: its error takes precedence over that of the version
        // that was applied.
        if let Some(error) = self.stale.get(key) {
            ConditionState::Error(format!("{error}; the last valid version stays in use"))
        } else if let Some(error) = self.failures.get(key) {
            ConditionState::Error(error.text())
        } else if let Some(error) = error {
            ConditionState::Error(error.to_owned())
        } else {
            ConditionState::True
        }
    }

    /// True, or pending with the reason `missing` if a site runs.
    pub(super) fn pending_until(&self, holds: bool, missing: &str) -> ConditionState {
        if holds {
            return ConditionState::True;
        }
        let missing = self.no_site().unwrap_or_else(|| missing.to_owned());
        ConditionState::Pending(Some(missing))
    }

    /// The status of a listener or connector. `missing`: why it is not matched.
    pub(super) fn service_draft(
        &self,
        kind: Kind,
        configured: ConditionState,
        matched: bool,
        missing: &str,
    ) -> StatusDraft {
        StatusDraft::new(kind, false)
            .with(ConditionType::Configured, configured)
            .with(ConditionType::Matched, self.pending_until(matched, missing))
    }

    /// Why a resource has to wait when there is no site.
    pub(super) fn no_site(&self) -> Option<String> {
        let text = "No active site in namespace";
        (!self.is_running()).then(|| text.to_owned())
    }
}

pub(super) fn pending(holds: bool) -> ConditionState {
    if holds {
        ConditionState::True
    } else {
        ConditionState::Pending(None)
    }
}

/// A site of the network, as its router announces it.
pub(super) struct RemoteSite<'a> {
    router: &'a NetworkRouter,
    pub(super) id: String,
    pub(super) name: String,
    namespace: String,
    platform: String,
    version: String,
}

impl<'a> RemoteSite<'a> {
    /// The site with this router id.
    pub(super) fn find(id: &str, observed: &'a SiteState) -> Option<Self> {
        let router = observed.network.iter().find(|r| r.id == id)?;
        Some(Self::of(router, &observed.network))
    }

    fn of(router: &'a NetworkRouter, network: &'a [NetworkRouter]) -> Self {
        let parts = |address: &'a String| -> Option<Vec<&'a str>> {
            Some(address.strip_prefix(SITE)?.split('/').collect())
        };
        let own = router.addresses.iter().filter_map(parts);
        let own = own.filter(|parts| parts.len() == ADVERT_PARTS);
        // An edge site is announced by the router it is linked to.
        let others = network.iter().flat_map(|r| &r.addresses);
        let others = others.filter_map(parts);
        let edges = others.filter(|p| p.get(ADVERT_PARTS) == Some(&router.id.as_str()));
        let parts = edges.chain(own).next().unwrap_or_default();
        match parts[..] {
            [id, name, namespace, platform, version, ..] => Self {
                router,
                id: id.to_owned(),
                name: name.to_owned(),
                namespace: namespace.to_owned(),
                platform: platform.to_owned(),
                version: version.to_owned(),
            },
            // A router of the Go implementation: its id begins with the site's name.
            _ => Self {
                router,
                id: router.id.clone(),
                name: site_name(&router.id).to_owned(),
                namespace: String::new(),
                platform: "unknown".to_owned(),
                version: String::new(),
            },
        }
    }
}

pub(super) fn incoming(
    link: &IncomingLink,
    observed: &SiteState,
    runtime: &SiteRuntime,
) -> IncomingRecord {
    let known = RemoteSite::find(&link.remote, observed);
    IncomingRecord {
        remote_site_id: known.as_ref().map_or_else(String::new, |k| k.id.clone()),
        remote_site_name: known.map_or_else(|| site_name(&link.remote).to_owned(), |k| k.name),
        address: link.peer.to_string(),
        certificate: CertificateRecord {
            serial: link.identity.serial.clone(),
            subject: link.identity.subject.clone(),
            expiration_time: link.identity.expires.to_string(),
            trusted_until: runtime.trusted_until(&link.identity.authority),
        },
    }
}

pub(super) fn network(observed: &SiteState) -> Vec<SiteRecord> {
    let sites: Vec<RemoteSite<'_>> = observed
        .network
        .iter()
        .filter(|r| r.cost.is_some())
        .map(|r| RemoteSite::of(r, &observed.network))
        .collect();
    let link = |peer: &String| {
        let other = sites.iter().find(|s| s.router.id == *peer);
        let name = other
            .map_or(site_name(peer), |s| s.name.as_str())
            .to_owned();
        LinkRecord {
            name: name.clone(),
            remote_site_id: other.map(|s| s.id.clone()).unwrap_or_default(),
            remote_site_name: name,
            operational: true,
        }
    };
    let record = |site: &RemoteSite<'_>| SiteRecord {
        id: site.id.clone(),
        name: site.name.clone(),
        namespace: site.namespace.clone(),
        platform: site.platform.clone(),
        version: site.version.clone(),
        links: site.router.peers.keys().map(link).collect(),
        services: services(site.router),
    };
    sites.iter().map(record).collect()
}

fn services(router: &NetworkRouter) -> Vec<ServiceRecord> {
    let mut keys: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for address in &router.addresses {
        if let Some(key) = address.strip_prefix(LISTENER) {
            keys.entry(key).or_default().0 = true;
        } else if !address.starts_with(SITE) && check_name(address).is_ok() {
            keys.entry(address).or_default().1 = true;
        }
    }
    let here = |present: bool, key: &str| {
        if present {
            vec![key.to_owned()]
        } else {
            Vec::new()
        }
    };
    keys.into_iter()
        .map(|(key, (listener, connector))| ServiceRecord {
            routing_key: key.to_owned(),
            connectors: here(connector, key),
            listeners: here(listener, key),
        })
        .collect()
}
