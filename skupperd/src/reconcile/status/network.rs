//! What is known of the other sites: by which addresses they make themselves known, and the records of
//! them in the status.

use crate::{
    link::{
        core::{
            ConnectorState, IncomingLink, LISTENER_ADVERT as LISTENER, LinkState, ListenerState,
        },
        ledger::site_name,
    },
    model::{CertificateRecord, IncomingRecord, LinkRecord, ServiceRecord, SiteRecord, check_name},
    reconcile::execute::Executor,
    router::NetworkRouter,
};
use std::collections::BTreeMap;

/// Prefix of the address by which a site makes itself known to all others.
const SITE: &str = "skupper-site/";
/// Parts of such an address behind that; an edge's has one more.
const ADVERT_PARTS: usize = 5;

/// The address by which a site makes itself known: id, name, namespace, platform, version; of an edge
/// its router id too, as it is told to the network by another router.
pub(in crate::reconcile) fn advert(
    id: &str,
    name: &str,
    namespace: &str,
    edge: Option<&str>,
) -> String {
    let edge = edge.map(|router| format!("/{router}")).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    format!("{SITE}{id}/{name}/{namespace}/linux/{version}{edge}")
}

/// What the core knows of a site.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) links: BTreeMap<String, LinkState>,
    pub(super) listeners: BTreeMap<String, ListenerState>,
    pub(super) connectors: BTreeMap<String, ConnectorState>,
    pub(super) network: Vec<NetworkRouter>,
    pub(super) incoming: Vec<IncomingLink>,
}

impl Observed {
    /// A listener of a routing key can be reached.
    pub(super) fn has_listener(&self, key: &str) -> bool {
        let advert = format!("{LISTENER}{key}");
        let mut reached = self.network.iter().filter(|r| r.cost.is_some());
        reached.any(|r| r.addresses.contains(&advert))
    }
}

/// A site of the network.
pub(super) struct Known<'a> {
    router: &'a NetworkRouter,
    pub(super) id: String,
    pub(super) name: String,
    namespace: String,
    platform: String,
    version: String,
}

impl<'a> Known<'a> {
    pub(super) fn of(router: &'a NetworkRouter, network: &'a [NetworkRouter]) -> Self {
        let parts = |address: &'a String| -> Option<Vec<&'a str>> {
            Some(address.strip_prefix(SITE)?.split('/').collect())
        };
        let own = router.addresses.iter().filter_map(parts);
        let own = own.filter(|parts| parts.len() == ADVERT_PARTS);
        // An edge is known by the router that it hangs on.
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
            // An upstream router: its id begins with the site's name.
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
    observed: &Observed,
    executor: &Executor,
) -> IncomingRecord {
    let known = observed.network.iter().find(|r| r.id == link.remote);
    let known = known.map(|r| Known::of(r, &observed.network));
    IncomingRecord {
        remote_site_id: known.as_ref().map_or_else(String::new, |k| k.id.clone()),
        remote_site_name: known.map_or_else(|| site_name(&link.remote).to_owned(), |k| k.name),
        address: link.peer.to_string(),
        certificate: CertificateRecord {
            serial: link.identity.serial.clone(),
            subject: link.identity.subject.clone(),
            expiration_time: link.identity.expires.to_string(),
            trusted_until: executor.trusted_until(&link.identity.authority),
        },
    }
}

/// The network as this site sees it.
pub(super) fn network(observed: &Observed) -> Vec<SiteRecord> {
    let sites: Vec<Known<'_>> = observed
        .network
        .iter()
        .filter(|r| r.cost.is_some())
        .map(|r| Known::of(r, &observed.network))
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
    let record = |site: &Known<'_>| SiteRecord {
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
