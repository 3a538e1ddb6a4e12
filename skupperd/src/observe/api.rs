//! The read-only JSON API, with the paths and fields of upstream's network observer: the network as
//! the sites of this host see it, and the connections that they have.
//!
//! Of other sites only that is known which routing tells: their listeners and connectors have the
//! names of their routing keys, no hosts and no ports. Nobody tells of processes.

mod asked;

use super::{clients::Attribution, connections};
use crate::{
    link::ledger::{Ledger, Query},
    model::{Kind, Namespace},
    store::{Documents, Published},
};
use asked::{Asked, decoded};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Where it is.
pub(super) const ROOT: &str = "/api/v2alpha1/";
/// Connections that are looked at for a list.
const MOST: usize = 10_000;
/// Version of transport that everything here has.
const PROTOCOL: &str = "tcp";

/// What a request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// A list, or one record.
    Found(Value),
    /// There is no such thing.
    Unknown,
    /// There was once.
    Gone,
    /// It makes no sense, and why.
    Bad(String),
    /// It has addresses of clients, and they are not for this reader.
    Private,
}

/// What is known.
struct World<'a> {
    /// Sites by identity, those of this host before what others say of them.
    sites: BTreeMap<String, Site<'a>>,
}

/// A site of the network.
struct Site<'a> {
    /// As a Site's status lists it.
    record: &'a Value,
    /// Its namespace on this host.
    here: Option<(&'a Namespace, &'a Documents)>,
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or("")
}

fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    let list = value.pointer(path).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn of_kind(documents: &Documents, kind: Kind) -> impl Iterator<Item = &Value> {
    let all = documents.iter().filter(move |(key, _)| key.kind == kind);
    all.map(|(_, document)| &**document)
}

/// Adds what every record has. What was begun before this host knew of it has begun at 0.
fn record(identity: impl Into<String>, mut fields: Value) -> Value {
    fields["identity"] = Value::String(identity.into());
    fields["startTime"] = json!(0);
    fields["endTime"] = json!(0);
    fields
}

fn service_id(routing_key: &str) -> String {
    format!("{routing_key}@{PROTOCOL}")
}

impl<'a> World<'a> {
    fn new(published: &'a Published) -> Self {
        let mut sites = BTreeMap::new();
        let all = published.iter().flat_map(|(namespace, documents)| {
            of_kind(documents, Kind::Site).map(move |site| (namespace, documents, site))
        });
        for (namespace, documents, site) in all {
            let own = text(site, "/metadata/uid");
            for record in list(site, "/status/network") {
                let id = text(record, "/id");
                let here = (id == own).then_some((namespace, documents));
                let known = sites
                    .entry(id.to_owned())
                    .or_insert(Site { record, here: None });
                if here.is_some() {
                    *known = Site { record, here };
                }
            }
        }
        Self { sites }
    }

    fn sites(&self) -> Vec<Value> {
        let all = self.sites.iter().map(|(id, site)| {
            let of = |path: &str| text(site.record, path);
            let fields = json!({
                "provider": "",
                "platform": of("/platform"),
                "name": of("/name"),
                "namespace": of("/namespace"),
                "version": of("/version"),
                "routerCount": 1,
                "local": site.here.is_some(),
            });
            record(id, fields)
        });
        all.collect()
    }

    /// Each site is one router.
    fn routers(&self) -> Vec<Value> {
        let all = self.sites.iter().map(|(id, site)| {
            let of = |path: &str| text(site.record, path);
            let mode = site.here.map_or("", |(_, documents)| {
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

    /// Links that sites of this host dial, as they do; all others once for each pair of sites.
    fn links(&self) -> Vec<Value> {
        let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
        let pair = |a: &str, b: &str| (a.min(b).to_owned(), a.max(b).to_owned());
        let mut links = Vec::new();
        for (id, site) in &self.sites {
            let Some((namespace, documents)) = site.here else {
                continue;
            };
            for link in of_kind(documents, Kind::Link) {
                let remote = text(link, "/status/remoteSiteId");
                let name = text(link, "/metadata/name");
                let up = text(link, "/status/status") == "Ready";
                let cost = link.pointer("/spec/cost").and_then(Value::as_u64);
                if !remote.is_empty() {
                    shown.insert(pair(id, remote));
                }
                let identity = format!("{id}:{namespace}:{name}");
                let status = if up {
                    ""
                } else {
                    text(link, "/status/message")
                };
                let way = (id.as_str(), remote);
                links.push(self.link(identity, way, name, (up, status), Some(cost.unwrap_or(1))));
            }
        }
        for (id, site) in &self.sites {
            for link in list(site.record, "/links") {
                let remote = text(link, "/remoteSiteId");
                if shown.insert(pair(id, remote)) {
                    let up = link["operational"] == true;
                    let identity = format!("{id}:{remote}");
                    let name = text(link, "/name");
                    links.push(self.link(identity, (id, remote), name, (up, ""), None));
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
        (up, message): (bool, &str),
        cost: Option<u64>,
    ) -> Value {
        let known = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let fields = json!({
            "routerId": source,
            "routerName": self.name(source),
            "name": name,
            "cost": cost,
            "role": "inter-router",
            "status": if up { "up" } else { "down" },
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

    fn accesses(&self) -> Vec<Value> {
        let here = self
            .sites
            .iter()
            .filter_map(|(id, site)| Some((id, site.here?)));
        let all = here.flat_map(|(id, (namespace, documents))| {
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

    /// Listeners, or connectors: those of this host as their resources say, those of others by what
    /// routing tells.
    fn ends(&self, kinds: &[Kind], of_network: &str) -> Vec<Value> {
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
                ends.push(record(format!("{id}:{of_network}:{name}:{key}"), fields));
            };
            if let Some((_, documents)) = site.here {
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
                for name in list(service, &format!("/{of_network}")) {
                    end(name.as_str().unwrap_or(""), key, "", "", "");
                }
            }
        }
        ends
    }

    fn listeners(&self) -> Vec<Value> {
        self.ends(&[Kind::Listener, Kind::MultiKeyListener], "listeners")
    }

    fn connectors(&self) -> Vec<Value> {
        let kinds = [Kind::Connector, Kind::AttachedConnectorBinding];
        self.ends(&kinds, "connectors")
    }

    fn services(&self) -> Vec<Value> {
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

/// HTTP requests as upstream lists them.
fn requests(ledger: &Ledger) -> Vec<Value> {
    let newest = ledger.requests(&Query {
        limit: MOST,
        ..Query::default()
    });
    newest.iter().map(connections::request).collect()
}

/// Connections as upstream lists them.
fn connections(seen: &Seen<'_>) -> Vec<Value> {
    let records = seen.ledger.records(&Query {
        limit: MOST,
        ..Query::default()
    });
    let all = connections::connections(&records, seen.attribution).into_iter();
    let all = all.map(|mut shown| {
        for field in ["sourceProcessId", "destProcessId", "destProcessName"] {
            shown[field] = json!("");
        }
        let id = |shown: &Value, site: &str, kind: &str, name: &str| {
            format!(
                "{}:{kind}:{}:{}",
                text(shown, site),
                text(shown, name),
                text(shown, "/routingKey")
            )
        };
        shown["listenerId"] = json!(id(&shown, "/sourceSiteId", "listeners", "/listener"));
        shown["connectorId"] = json!(id(&shown, "/destSiteId", "connectors", "/connector"));
        shown["serviceId"] = json!(service_id(text(&shown, "/routingKey")));
        shown
    });
    all.collect()
}

/// Sites that talk with each other, by what their services have carried.
fn site_pairs(ledger: &Ledger) -> Vec<Value> {
    let mut pairs: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for (key, totals) in ledger.services() {
        let shown = connections::service((&key, &totals));
        let here = [text(&shown, "/siteId"), text(&shown, "/siteName")];
        let there = [
            text(&shown, "/remoteSiteId"),
            text(&shown, "/remoteSiteName"),
        ];
        let ([a, b], [c, d]) = match text(&shown, "/side") {
            "listener" => (here, there),
            _ => (there, here),
        };
        *pairs.entry([a, b, c, d].map(str::to_owned)).or_default() += totals.opened;
    }
    let all = pairs
        .into_iter()
        .map(|([source, source_name, dest, dest_name], count)| {
            let fields = json!({
                "pairType": "SITE",
                "recordCount": count,
                "sourceId": source,
                "sourceName": source_name,
                "destinationId": dest,
                "destinationName": dest_name,
                "sourceSiteId": source,
                "sourceSiteName": source_name,
                "destinationSiteId": dest,
                "destinationSiteName": dest_name,
                "protocol": PROTOCOL,
            });
            record(format!("{source}:{dest}"), fields)
        });
    all.collect()
}

/// What is looked at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) published: &'a Published,
    pub(super) ledger: &'a Ledger,
    pub(super) attribution: &'a Attribution,
    /// Connections are not for this reader.
    pub(super) private: bool,
}

/// Answers a request for a path below [`ROOT`].
pub(super) fn answer(path: &str, query: &str, seen: Seen<'_>) -> Answer {
    let asked = match Asked::read(query) {
        Ok(asked) => asked,
        Err(why) => return Answer::Bad(why),
    };
    let world = World::new(seen.published);
    let path: Vec<String> = path.split('/').map(decoded).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let (what, id, part) = match path[..] {
        [what] => (what, None, None),
        [what, id] => (what, Some(id), None),
        [what, id, part] => (what, Some(id), Some(part)),
        _ => return Answer::Unknown,
    };
    let all = match what {
        "sites" => world.sites(),
        "routers" => world.routers(),
        "routerlinks" => world.links(),
        "routeraccess" => world.accesses(),
        "listeners" => world.listeners(),
        "connectors" => world.connectors(),
        "services" => world.services(),
        "sitepairs" => site_pairs(seen.ledger),
        "connections" if seen.private => return Answer::Private,
        "connections" => connections(&seen),
        "applicationflows" if seen.private => return Answer::Private,
        "applicationflows" => requests(seen.ledger),
        // Nobody tells of these.
        "processes" | "components" | "processpairs" | "componentpairs" => Vec::new(),
        "hosts" => return Answer::Gone,
        _ => return Answer::Unknown,
    };
    let Some(id) = id else {
        return listed(&asked, all);
    };
    let Some(found) = all
        .into_iter()
        .find(|record| text(record, "/identity") == id)
    else {
        return Answer::Unknown;
    };
    let with = |all: Vec<Value>, field: &str| {
        let pointer = format!("/{field}");
        listed(
            &asked,
            all.into_iter()
                .filter(|r| text(r, &pointer) == id)
                .collect(),
        )
    };
    match (what, part) {
        (_, None) => Answer::Found(json!({"results": found})),
        ("sites", Some("routers")) => with(world.routers(), "siteId"),
        ("sites", Some("hosts")) => Answer::Gone,
        ("services", Some("connections")) if seen.private => Answer::Private,
        ("services", Some("connections")) => with(connections(&seen), "serviceId"),
        ("sites" | "services", Some("processes")) | ("services", Some("processpairs")) => {
            listed(&asked, Vec::new())
        }
        _ => Answer::Unknown,
    }
}

fn listed(asked: &Asked, all: Vec<Value>) -> Answer {
    match asked.answer(all, Timestamp::now().as_microsecond()) {
        Ok(found) => Answer::Found(found),
        Err(why) => Answer::Bad(why),
    }
}

#[cfg(test)]
mod tests;
