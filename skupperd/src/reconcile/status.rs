//! Statuses: what was applied and what the network does, as conditions.

use super::{
    execute::OpenAccess,
    namespace::{NamespaceState, access_of_site},
};
use crate::{
    link::core::{CoreSender, LinkState, ListenerState},
    manifest::Located,
    model::{Condition, Key, Kind, Spec, State, Status, check_name},
    router::NetworkRouter,
    store::{StatusDir, StoreError},
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Prefix of the address by which a site makes itself known to all others.
const SITE: &str = "skupper-site/";
/// Prefix of the address by which a listener is known to connectors.
pub(crate) use crate::link::core::LISTENER_ADVERT as LISTENER;

/// The address by which a site makes itself known: id, name, namespace, platform, version.
pub(super) fn advert(id: &str, name: &str, namespace: &str) -> String {
    format!(
        "{SITE}{id}/{name}/{namespace}/linux/{}",
        env!("CARGO_PKG_VERSION")
    )
}

/// What the core knows of a site.
#[derive(Default)]
struct Observed {
    links: BTreeMap<String, LinkState>,
    listeners: BTreeMap<String, ListenerState>,
    network: Vec<NetworkRouter>,
}

/// A site of the network.
struct Known<'a> {
    router: &'a NetworkRouter,
    id: String,
    name: String,
    namespace: String,
    platform: String,
    version: String,
}

impl<'a> Known<'a> {
    fn of(router: &'a NetworkRouter) -> Self {
        let advert = router.addresses.iter().find_map(|a| a.strip_prefix(SITE));
        let parts: Vec<&str> = advert.map(|a| a.split('/').collect()).unwrap_or_default();
        match parts[..] {
            [id, name, namespace, platform, version] => Self {
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

/// The site's name in a router id of the form `<site>-<seconds>-<nanoseconds>`.
fn site_name(id: &str) -> &str {
    let number = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
    let cut = id
        .rsplit_once('-')
        .filter(|(_, n)| number(n))
        .map(|(rest, _)| rest);
    let cut = cut
        .and_then(|rest| rest.rsplit_once('-'))
        .filter(|(_, n)| number(n));
    cut.map_or(id, |(name, _)| name)
}

impl NamespaceState {
    /// Writes the statuses of all resources.
    pub(super) async fn report(&mut self, core: &CoreSender) -> Result<(), StoreError> {
        let observed = match self.site() {
            None => Observed::default(),
            Some(id) => {
                let seen = core.call(move |c| {
                    c.site(id, |s, _| Observed {
                        links: s.link_states(),
                        listeners: s.listener_states(),
                        network: s.network(),
                    })
                });
                seen.await.flatten().unwrap_or_default()
            }
        };
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let mut keep = BTreeSet::new();
        for located in std::mem::take(&mut self.resources) {
            let status = self.status(&located, &observed);
            let document = serde_json::to_value(&located.document).unwrap_or(Value::Null);
            let mut document = if document.is_object() {
                document
            } else {
                StatusDir::bare(located.key())
            };
            if located.key().kind == Kind::Site && !self.executor.site_id.is_empty() {
                document["metadata"]["uid"] = json!(self.executor.site_id);
            }
            keep.insert(located.key().clone());
            let result = self.statuses.write(located.key(), document, &status, &now);
            self.resources.push(located);
            result?;
        }
        for error in &self.errors {
            // A refused resource says so, unless a good one has its place.
            let kind = error.kind.as_deref().and_then(Kind::parse);
            let name = error.name.clone().filter(|n| check_name(n).is_ok());
            if let (Some(kind), Some(name)) = (kind, name) {
                let key = Key { kind, name };
                if keep.insert(key.clone()) {
                    let status = Status::error(error.to_string());
                    self.statuses
                        .write(&key, StatusDir::bare(&key), &status, &now)?;
                }
            }
        }
        for (name, access) in &self.executor.accesses {
            // Link access of a site is a RouterAccess that nobody wrote.
            let key = Key {
                kind: Kind::RouterAccess,
                name: name.clone(),
            };
            if keep.insert(key.clone()) {
                let mut document = StatusDir::bare(&key);
                let role = |(role, port): &(crate::model::Role, u16)| json!({"name": role.as_str(), "port": port});
                document["spec"] = json!({
                    "roles": access.ports.iter().map(role).collect::<Vec<_>>(),
                    "tlsCredentials": name,
                    "subjectAlternativeNames": access.hosts,
                });
                let status = access_status(name, Some(access), None);
                self.statuses.write(&key, document, &status, &now)?;
            }
        }
        self.statuses.retain(&keep)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn status(&self, located: &Located, observed: &Observed) -> Status {
        let failure = self.failures.get(located.key());
        let name = &located.key().name;
        let running = self.site().is_some();
        match &located.resource.spec {
            Spec::Site(site) => {
                let access = self.executor.accesses.get(&access_of_site(name));
                let access_key = Key {
                    kind: Kind::RouterAccess,
                    name: access_of_site(name),
                };
                let mut conditions = vec![configured(failure), condition("Running", running, None)];
                if site.link_access {
                    conditions.push(match self.failures.get(&access_key) {
                        Some(error) => failed("Resolved", error),
                        None => condition("Resolved", access.is_some(), None),
                    });
                }
                let mut fields = network(observed);
                let issuer = site
                    .default_issuer
                    .as_deref()
                    .unwrap_or(crate::pki::SITE_CA);
                fields.insert("defaultIssuer".to_owned(), json!(issuer));
                let endpoints: Vec<Value> = self
                    .executor
                    .accesses
                    .iter()
                    .flat_map(|(name, access)| endpoints(name, access))
                    .collect();
                fields.insert("endpoints".to_owned(), json!(endpoints));
                Status { conditions, fields }
            }
            Spec::Link(_) => {
                let state = observed.links.get(name);
                let remote = state.and_then(|s| s.remote.as_deref());
                let known = remote
                    .and_then(|id| observed.network.iter().find(|r| r.id == id))
                    .map(Known::of);
                let pending = match state.and_then(|s| s.failure.clone()) {
                    Some(why) => format!("Not operational: {why}"),
                    None if running => "Not operational".to_owned(),
                    None => no_site(),
                };
                let operational = condition("Operational", remote.is_some(), Some(pending));
                let mut fields = Map::new();
                if let Some(known) = known {
                    fields.insert("remoteSiteId".to_owned(), json!(known.id));
                    fields.insert("remoteSiteName".to_owned(), json!(known.name));
                }
                Status {
                    conditions: vec![configured(failure), operational],
                    fields,
                }
            }
            Spec::Listener(_) => {
                let state = observed.listeners.get(name);
                let matched = state.is_some_and(|s| s.matched);
                let error = failure.or(state.and_then(|s| s.error.as_ref()));
                let missing = if running {
                    "No matching connectors".into()
                } else {
                    no_site()
                };
                let conditions = vec![
                    configured(error),
                    condition("Matched", matched, Some(missing)),
                ];
                Status {
                    conditions,
                    fields: flag("hasMatchingConnector", matched),
                }
            }
            Spec::Connector(connector) => {
                let advert = format!("{LISTENER}{}", connector.routing_key);
                let matched = observed
                    .network
                    .iter()
                    .filter(|r| r.cost.is_some())
                    .any(|r| r.addresses.contains(&advert));
                let missing = if running {
                    "No matching listeners".into()
                } else {
                    no_site()
                };
                let conditions = vec![
                    configured(failure),
                    condition("Matched", matched, Some(missing)),
                ];
                Status {
                    conditions,
                    fields: flag("hasMatchingListener", matched),
                }
            }
            Spec::RouterAccess(_) => access_status(name, self.executor.accesses.get(name), failure),
            Spec::Secret(_) => Status {
                conditions: vec![configured(failure)],
                fields: Map::new(),
            },
            Spec::Unserved => Status::error(format!(
                "{} is not supported yet by this version",
                located.key().kind
            )),
        }
    }
}

fn no_site() -> String {
    "No active site in namespace".to_owned()
}

fn condition(kind: &'static str, holds: bool, pending: Option<String>) -> Condition {
    Condition {
        kind,
        state: if holds {
            State::True
        } else {
            State::Pending(pending)
        },
    }
}

fn failed(kind: &'static str, error: &str) -> Condition {
    Condition {
        kind,
        state: State::Error(error.to_owned()),
    }
}

fn configured(failure: Option<&String>) -> Condition {
    match failure {
        Some(error) => failed("Configured", error),
        None => condition("Configured", true, None),
    }
}

fn flag(name: &str, value: bool) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), json!(value))])
}

fn access_status(name: &str, open: Option<&OpenAccess>, failure: Option<&String>) -> Status {
    let conditions = vec![
        configured(failure),
        condition("Resolved", open.is_some(), None),
    ];
    let list: Vec<Value> = open.map(|a| endpoints(name, a)).unwrap_or_default();
    Status {
        conditions,
        fields: Map::from_iter([("endpoints".to_owned(), json!(list))]),
    }
}

fn endpoints(name: &str, access: &OpenAccess) -> Vec<Value> {
    let loopback = |h: &&String| matches!(h.as_str(), "localhost" | "127.0.0.1" | "::1");
    let host = access
        .hosts
        .iter()
        .find(|h| !loopback(h))
        .or(access.hosts.first());
    let endpoint = |(role, port): &(crate::model::Role, u16)| {
        json!({
            "name": format!("{name}-{}", role.as_str()),
            "host": host,
            "port": port.to_string(),
            "group": "skupper-router",
        })
    };
    access.ports.iter().map(endpoint).collect()
}

/// The network as this site sees it.
fn network(observed: &Observed) -> Map<String, Value> {
    let sites: Vec<Known<'_>> = observed
        .network
        .iter()
        .filter(|r| r.cost.is_some())
        .map(Known::of)
        .collect();
    let list: Vec<Value> = sites
        .iter()
        .map(|site| {
            let links: Vec<Value> = site
                .router
                .peers
                .keys()
                .map(|peer| {
                    let other = sites.iter().find(|s| s.router.id == *peer);
                    json!({
                        "name": other.map_or(site_name(peer), |s| s.name.as_str()),
                        "remoteSiteId": other.map(|s| s.id.as_str()),
                        "remoteSiteName": other.map_or(site_name(peer), |s| s.name.as_str()),
                        "operational": true,
                    })
                })
                .collect();
            json!({
                "id": site.id,
                "name": site.name,
                "namespace": site.namespace,
                "platform": site.platform,
                "version": site.version,
                "links": links,
                "services": services(site.router),
            })
        })
        .collect();
    Map::from_iter([
        ("sitesInNetwork".to_owned(), json!(sites.len())),
        ("network".to_owned(), json!(list)),
    ])
}

fn services(router: &NetworkRouter) -> Vec<Value> {
    let mut keys: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for address in &router.addresses {
        if let Some(key) = address.strip_prefix(LISTENER) {
            keys.entry(key).or_default().0 = true;
        } else if !address.starts_with(SITE) && check_name(address).is_ok() {
            keys.entry(address).or_default().1 = true;
        }
    }
    let here = |present: bool, key: &str| if present { json!([key]) } else { json!([]) };
    keys.into_iter()
        .map(|(key, (listener, connector))| {
            json!({
                "routingKey": key,
                "connectors": here(connector, key),
                "listeners": here(listener, key),
            })
        })
        .collect()
}
