//! The network as the sites of this host see it: sites, routers, links, accesses, listeners,
//! connectors and services, each as the records of the API.
//!
//! Routing tells only the routing keys of other sites' listeners and connectors: those have no
//! names of their own, hosts or ports here.

use super::{PROTOCOL, list, record, service_id, text};
use crate::{
    model::{Kind, Namespace},
    store::{Documents, ResourceSnapshot},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct NetworkView<'a> {
    /// By identity. Records of this host take precedence over those from the network.
    sites: BTreeMap<String, NetworkSite<'a>>,
}

struct NetworkSite<'a> {
    /// The site's entry in `status.network` of a Site.
    record: &'a Value,
    /// Namespace and documents, for a site of this host.
    local: Option<(&'a Namespace, &'a Documents)>,
}

fn of_kind(documents: &Documents, kind: Kind) -> impl Iterator<Item = &Value> {
    let all = documents.iter().filter(move |(key, _)| key.kind == kind);
    all.map(|(_, document)| &**document)
}

impl<'a> NetworkView<'a> {
    pub(super) fn new(published: &'a ResourceSnapshot) -> Self {
        let mut sites = BTreeMap::new();
        let all = published.iter().flat_map(|(namespace, documents)| {
            of_kind(documents, Kind::Site).map(move |site| (namespace, documents, site))
        });
        for (namespace, documents, site) in all {
            let own = text(site, "/metadata/uid");
            for record in list(site, "/status/network") {
                let id = text(record, "/id");
                let local = (id == own).then_some((namespace, documents));
                let known = sites.entry(id.to_owned()).or_insert(NetworkSite {
                    record,
                    local: None,
                });
                if local.is_some() {
                    *known = NetworkSite { record, local };
                }
            }
        }
        Self { sites }
    }

    pub(super) fn sites(&self) -> Vec<Value> {
        let all = self.sites.iter().map(|(id, site)| {
            let of = |path: &str| text(site.record, path);
            let fields = json!({
                "provider": "",
                "platform": of("/platform"),
                "name": of("/name"),
                "namespace": of("/namespace"),
                "version": of("/version"),
                "routerCount": 1,
                "local": site.local.is_some(),
            });
            record(id, fields)
        });
        all.collect()
    }

    /// One router for each site.
    pub(super) fn routers(&self) -> Vec<Value> {
        let all = self.sites.iter().map(|(id, site)| {
            let of = |path: &str| text(site.record, path);
            let mode = site.local.map_or("", |(_, documents)| {
                let edge = |site: &Value| site.pointer("/spec/edge") == Some(&Value::Bool(true));
                match of_kind(documents, Kind::Site).any(edge) {
                    true => "edge",
                    false => "interior",
                }
            });
            let fields = json!({
                "siteId": id,
                "name": of("/name"),
                "mode": mode,
                "namespace": of("/namespace"),
                "imageName": "",
                "imageVersion": "",
                "hostName": "",
                "buildVersion": of("/version"),
            });
            record(id, fields)
        });
        all.collect()
    }

    /// The Link resources of this host's sites; of all other links, one for each pair of sites.
    pub(super) fn links(&self) -> Vec<Value> {
        let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
        let pair = |a: &str, b: &str| (a.min(b).to_owned(), a.max(b).to_owned());
        let mut links = Vec::new();
        for (id, site) in &self.sites {
            let Some((namespace, documents)) = site.local else {
                continue;
            };
            for link in of_kind(documents, Kind::Link) {
                let remote = text(link, "/status/remoteSiteId");
                let name = text(link, "/metadata/name");
                let is_up = text(link, "/status/status") == "Ready";
                let cost = link.pointer("/spec/cost").and_then(Value::as_u64);
                if !remote.is_empty() {
                    shown.insert(pair(id, remote));
                }
                let identity = format!("{id}:{namespace}:{name}");
                let message = if is_up {
                    ""
                } else {
                    text(link, "/status/message")
                };
                let sites = (id.as_str(), remote);
                let cost = Some(cost.unwrap_or(1));
                links.push(self.link(identity, sites, name, (is_up, message), cost));
            }
        }
        for (id, site) in &self.sites {
            for link in list(site.record, "/links") {
                let remote = text(link, "/remoteSiteId");
                if shown.insert(pair(id, remote)) {
                    let is_up = link["operational"] == true;
                    let identity = format!("{id}:{remote}");
                    let name = text(link, "/name");
                    links.push(self.link(identity, (id, remote), name, (is_up, ""), None));
                }
            }
        }
        links
    }

    fn name(&self, id: &str) -> &str {
        self.sites
            .get(id)
            .map_or("", |site| text(site.record, "/name"))
    }

    fn link(
        &self,
        identity: String,
        (source, dest): (&str, &str),
        name: &str,
        (is_up, message): (bool, &str),
        cost: Option<u64>,
    ) -> Value {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let fields = json!({
            "routerId": source,
            "routerName": self.name(source),
            "name": name,
            "cost": cost,
            "role": "inter-router",
            "status": if is_up { "up" } else { "down" },
            "message": message,
            "octetCount": 0,
            "octetReverseCount": 0,
            "routerAccessId": known(dest),
            "destinationRouterId": known(dest),
            "destinationRouterName": known(self.name(dest)),
            "sourceSiteId": source,
            "sourceSiteName": self.name(source),
            "destinationSiteId": known(dest),
            "destinationSiteName": known(self.name(dest)),
            "proxyProtocol": null,
        });
        record(identity, fields)
    }

    pub(super) fn accesses(&self) -> Vec<Value> {
        let local = self
            .sites
            .iter()
            .filter_map(|(id, site)| Some((id, site.local?)));
        let all = local.flat_map(|(id, (namespace, documents))| {
            of_kind(documents, Kind::RouterAccess).flat_map(move |access| {
                let name = text(access, "/metadata/name");
                list(access, "/spec/roles").iter().map(move |role| {
                    let role = text(role, "/name");
                    let fields =
                        json!({"routerId": id, "name": name, "linkCount": 0, "role": role});
                    record(format!("{id}:{namespace}:{name}:{role}"), fields)
                })
            })
        });
        all.collect()
    }

    /// Listeners or connectors: of this host's sites by their resources, of others by the names in
    /// `status.network`. `field`: where those are, `listeners` or `connectors`.
    fn service_ends(&self, kinds: &[Kind], field: &str) -> Vec<Value> {
        let mut ends = Vec::new();
        for (id, site) in &self.sites {
            let mut end = |name: &str, key: &str, host: &str, port: &str, status: &str| {
                let fields = json!({
                    "routerId": id,
                    "name": name,
                    "destHost": host,
                    "destPort": port,
                    "protocol": PROTOCOL,
                    "routingKey": key,
                    "serviceId": service_id(key),
                    "processId": "",
                    "target": null,
                    "status": status,
                    "siteId": id,
                    "siteName": text(site.record, "/name"),
                });
                ends.push(record(format!("{id}:{field}:{name}:{key}"), fields));
            };
            if let Some((_, documents)) = site.local {
                for document in kinds.iter().flat_map(|kind| of_kind(documents, *kind)) {
                    let of = |path: &str| text(document, path);
                    let port = document.pointer("/spec/port").map(Value::to_string);
                    let host = match of("/spec/host") {
                        "" => of("/spec/selector"),
                        host => host,
                    };
                    for key in keys(document) {
                        let port = port.as_deref().unwrap_or("");
                        end(of("/metadata/name"), key, host, port, of("/status/status"));
                    }
                }
                continue;
            }
            for service in list(site.record, "/services") {
                let key = text(service, "/routingKey");
                for name in list(service, &format!("/{field}")) {
                    end(name.as_str().unwrap_or(""), key, "", "", "");
                }
            }
        }
        ends
    }

    pub(super) fn listeners(&self) -> Vec<Value> {
        self.service_ends(&[Kind::Listener, Kind::MultiKeyListener], "listeners")
    }

    pub(super) fn connectors(&self) -> Vec<Value> {
        let kinds = [Kind::Connector, Kind::AttachedConnectorBinding];
        self.service_ends(&kinds, "connectors")
    }

    pub(super) fn services(&self) -> Vec<Value> {
        let mut keys: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for listener in self.listeners() {
            keys.entry(text(&listener, "/routingKey").to_owned())
                .or_default()
                .0 += 1;
        }
        for connector in self.connectors() {
            keys.entry(text(&connector, "/routingKey").to_owned())
                .or_default()
                .1 += 1;
        }
        let all = keys.into_iter().map(|(key, (listeners, connectors))| {
            let fields = json!({
                "name": key,
                "protocol": PROTOCOL,
                "observedApplicationProtocols": [],
                "listenerCount": listeners,
                "connectorCount": connectors,
                "isBound": connectors > 0,
                "hasListener": listeners > 0,
            });
            record(service_id(&key), fields)
        });
        all.collect()
    }
}

/// The routing keys of a listener or connector.
fn keys(document: &Value) -> Vec<&str> {
    if let Some(key) = document.pointer("/spec/routingKey").and_then(Value::as_str) {
        return vec![key];
    }
    let priority = list(document, "/spec/strategy/priority/routingKeys");
    let mut keys: Vec<&str> = priority.iter().filter_map(Value::as_str).collect();
    let weighted = document.pointer("/spec/strategy/weighted/routingKeys");
    keys.extend(
        weighted
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(key, _)| key.as_str()),
    );
    keys
}
