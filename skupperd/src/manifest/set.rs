//! Rules between the resources of one namespace.

use super::{LocatedResource, ManifestError};
use crate::model::{Host, Key, Kind, Netns, Spec};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// Takes out what conflicts with a resource that comes before it: a name that is there already, a
/// second Site, link access beside an edge Site, an address that is taken. The first of each stays,
/// so the order of `resources` (file, then line) decides.
///
/// A Link without its Secret is no conflict: the Secret may come later.
pub fn validate_set(resources: Vec<LocatedResource>) -> (Vec<LocatedResource>, Vec<ManifestError>) {
    let mut errors = Vec::new();
    let mut good = distinct(resources, &mut errors);
    let edge = good
        .iter()
        .find(|l| matches!(&l.resource.spec, Spec::Site(s) if s.edge));
    let edge = edge.map(|site| (site.resource.name().clone(), site.position()));
    let mut claimed: Vec<ClaimedAddress> = Vec::new();
    good.retain(|located| match conflict(located, edge.as_ref(), &claimed) {
        None => {
            claimed.extend(addresses(located));
            true
        }
        Some((field, reason)) => {
            errors.push(error(located, &field, reason));
            false
        }
    });
    (good, errors)
}

/// Takes out what can not become of what was there: the strategy of a MultiKeyListener keeps its kind.
pub fn validate_change(
    before: &[LocatedResource],
    resources: Vec<LocatedResource>,
) -> (Vec<LocatedResource>, Vec<ManifestError>) {
    let strategy = |l: &LocatedResource| match &l.resource.spec {
        Spec::MultiKeyListener(listener) => Some(listener.strategy.as_str()),
        _ => None,
    };
    let kinds: BTreeMap<Key, &str> = before
        .iter()
        .filter_map(|l| Some((l.key(), strategy(l)?)))
        .collect();
    let (mut good, mut errors) = (Vec::with_capacity(resources.len()), Vec::new());
    for located in resources {
        match (strategy(&located), kinds.get(&located.key())) {
            (Some(new), Some(old)) if new != *old => {
                let text = format!(
                    "strategy cannot be changed from {old} to {new}: delete the resource and create it anew"
                );
                errors.push(error(&located, "spec.strategy", text));
            }
            _ => good.push(located),
        }
    }
    (good, errors)
}

fn error(located: &LocatedResource, field: &str, reason: String) -> ManifestError {
    ManifestError {
        file: Arc::clone(&located.file),
        line: u32::try_from(located.line_of(field)).unwrap_or(u32::MAX),
        kind: Some(located.resource.kind().to_string()),
        name: Some(located.resource.name().to_string()),
        field: Some(field.to_owned()),
        reason,
        is_other_api: false,
    }
}

/// The first of every name, and the first Site.
fn distinct(
    resources: Vec<LocatedResource>,
    errors: &mut Vec<ManifestError>,
) -> Vec<LocatedResource> {
    let mut names: BTreeMap<Key, String> = BTreeMap::new();
    let mut site: Option<String> = None;
    let mut good = Vec::with_capacity(resources.len());
    for located in resources {
        let key = located.key();
        let is_site = key.kind == Kind::Site;
        match names.entry(key) {
            Entry::Occupied(first) => {
                let text = format!("{} is defined already at {}", first.key(), first.get());
                errors.push(error(&located, "metadata.name", text));
                continue;
            }
            Entry::Vacant(new) => {
                if let (true, Some(first)) = (is_site, &site) {
                    let text =
                        format!("only one site is allowed in a namespace, and there is {first}");
                    errors.push(error(&located, "kind", text));
                    continue;
                }
                if is_site {
                    site = Some(format!(
                        "{} at {}",
                        located.resource.name(),
                        located.position()
                    ));
                }
                new.insert(located.position());
            }
        }
        good.push(located);
    }
    good
}

fn conflict(
    located: &LocatedResource,
    edge: Option<&(crate::model::Name, String)>,
    claimed: &[ClaimedAddress],
) -> Option<(String, String)> {
    if let (Spec::RouterAccess(_), Some((site, position))) = (&located.resource.spec, edge) {
        let text = format!(
            "Edge sites cannot accept incoming links from remote sites (site {site} at {position})"
        );
        return Some(("kind".to_owned(), text));
    }
    let mine = addresses(located);
    let pairs = mine
        .iter()
        .flat_map(|new| claimed.iter().map(move |old| (new, old)));
    let (new, old) = pairs.into_iter().find(|(new, old)| new.overlaps(old))?;
    let host = old.host.as_ref().map_or("all addresses", |h| h.as_str());
    let text = format!(
        "port {} is already mapped for host {host:?} ({} at {})",
        new.port, old.key, old.position
    );
    Some((new.field.clone(), text))
}

/// An address that a resource listens on.
struct ClaimedAddress {
    /// All of the host's when there is none.
    host: Option<Host>,
    port: u16,
    /// `None` is the daemon's network namespace.
    netns: Option<Netns>,
    field: String,
    key: Key,
    position: String,
}

fn addresses(located: &LocatedResource) -> Vec<ClaimedAddress> {
    let claimed = |host: Option<Host>, port, field: String| ClaimedAddress {
        host,
        port,
        netns: None,
        field,
        key: located.key(),
        position: located.position(),
    };
    match &located.resource.spec {
        Spec::Listener(l) => vec![ClaimedAddress {
            netns: l.settings.network_namespace.clone(),
            ..claimed(Some(l.host.clone()), l.port, "spec.port".to_owned())
        }],
        Spec::MultiKeyListener(l) => {
            vec![claimed(
                Some(l.host.clone()),
                l.port,
                "spec.port".to_owned(),
            )]
        }
        Spec::RouterAccess(access) => {
            let roles = access.roles.iter().enumerate();
            let field = |n: usize| format!("spec.roles[{n}].port");
            roles
                .map(|(n, r)| claimed(access.bind_host.clone(), r.port, field(n)))
                .collect()
        }
        _ => Vec::new(),
    }
}

impl ClaimedAddress {
    fn overlaps(&self, other: &Self) -> bool {
        self.port == other.port
            && self.netns == other.netns
            && hosts_overlap(self.host.as_ref(), other.host.as_ref())
    }
}

/// Two hosts can not both be listened on with one port: the same, or all addresses of a family and
/// one of it.
fn hosts_overlap(a: Option<&Host>, b: Option<&Host>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return true;
    };
    if a == b {
        return true;
    }
    let (these, those) = (known(a), known(b));
    if these.is_empty() || those.is_empty() {
        // A name may resolve to any address of a family.
        return these.iter().chain(&those).any(IpAddr::is_unspecified);
    }
    these.iter().any(|a| those.iter().any(|b| same(*a, *b)))
}

/// Addresses that a host resolves to for certain.
fn known(host: &Host) -> Vec<IpAddr> {
    match host.ip() {
        Some(ip) => vec![ip.to_canonical()],
        None if host == "localhost" => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        None => Vec::new(),
    }
}

fn same(a: IpAddr, b: IpAddr) -> bool {
    let family = a.is_ipv4() == b.is_ipv4();
    a == b || (family && (a.is_unspecified() || b.is_unspecified()))
}
