//! Prometheus metrics (OpenMetrics text) of what resources and their statuses say.

use super::traffic;
use crate::{
    link::ledger::Ledger,
    model::{Details, Key, Kind, Namespace},
    steer::{Listing, Totals, accel::HopTotals},
    store::{Documents, Published},
};
use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use serde_json::Value;
use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    namespace: String,
    kind: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    namespace: String,
    kind: String,
    name: String,
    /// Of the one who shows it: ours, or the subject of what a remote site has shown.
    subject: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Site {
    namespace: String,
    site_id: String,
    name: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Routers {
    site_id: String,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfListener {
    namespace: String,
    listener: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Links {
    site_id: String,
    role: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSite {
    site_id: String,
}

#[derive(Default)]
struct Families {
    ready: Family<Resource, Gauge>,
    expiry: Family<Certificate, Gauge>,
    site: Family<Site, Gauge>,
    links: Family<Links, Gauge>,
    listeners: Family<OfSite, Gauge>,
    connectors: Family<OfSite, Gauge>,
    sites: Family<OfSite, Gauge>,
    routers: Family<Routers, Gauge>,
    redemptions: Family<Resource, Gauge>,
    handshakes: Family<Resource, Gauge>,
}

/// Identity of a namespace's site; empty where none runs.
fn site_id(documents: &Documents) -> String {
    let site = documents.iter().find(|(key, _)| key.kind == Kind::Site);
    let id = site.and_then(|(_, document)| document.pointer("/metadata/uid"));
    id.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Families {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "skupper_resource_ready",
            "1 for a resource whose condition Ready is true, else 0",
            self.ready.clone(),
        );
        registry.register_with_unit(
            "skupper_certificate_expiration_timestamp",
            "End of a certificate's validity in seconds since the epoch",
            Unit::Seconds,
            self.expiry.clone(),
        );
        registry.register(
            "skupper_site_info",
            "1 for each site of this host",
            self.site.clone(),
        );
        registry.register(
            "skupper_site_links_total",
            "Links by role and status; role incoming counts those that other sites have made",
            self.links.clone(),
        );
        registry.register(
            "skupper_site_listeners_total",
            "Listeners",
            self.listeners.clone(),
        );
        registry.register(
            "skupper_site_connectors_total",
            "Connectors",
            self.connectors.clone(),
        );
        registry.register(
            "skupper_routers_total",
            "Routers of this host's sites by mode: each site is one",
            self.routers.clone(),
        );
        registry.register(
            "skupper_site_sites_in_network",
            "Sites that can be reached, this one included",
            self.sites.clone(),
        );
        registry.register(
            "skupper_access_grant_redemptions",
            "Redemptions of an access grant",
            self.redemptions.clone(),
        );
        registry.register(
            "skupper_listener_tls_handshake_failures",
            "TLS handshakes of a listener with clients that failed since it was made",
            self.handshakes.clone(),
        );
    }

    fn namespace(&self, namespace: &Namespace, documents: &Documents) {
        // Without a site nothing of the namespace runs, and its id is empty.
        let site = documents.iter().find(|(key, _)| key.kind == Kind::Site);
        let edge = site.and_then(|(_, document)| document.pointer("/spec/edge"));
        let edge = edge.and_then(Value::as_bool).unwrap_or_default();
        let site_id = site_id(documents);
        for (key, document) in documents {
            self.resource(namespace, &site_id, edge, key, document);
        }
    }

    fn resource(
        &self,
        namespace: &Namespace,
        site_id: &str,
        edge: bool,
        key: &Key,
        document: &Value,
    ) {
        let Some(status) = document.get("status") else {
            return;
        };
        let of = Resource {
            namespace: namespace.to_string(),
            kind: key.kind.as_str().to_owned(),
            name: key.name.to_string(),
        };
        let of_site = || OfSite {
            site_id: site_id.to_owned(),
        };
        let ready = status["status"] == "Ready";
        self.ready.get_or_create(&of).set(i64::from(ready));
        // Written by ourselves: what does not read is of a version to come, and left out.
        match Details::read(key.kind, status) {
            Ok(Details::Site(site)) => {
                let info = Site {
                    namespace: namespace.to_string(),
                    site_id: site_id.to_owned(),
                    name: key.name.to_string(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let router = Routers {
                    site_id: site_id.to_owned(),
                    mode: if edge { "edge" } else { "interior" },
                };
                self.routers.get_or_create(&router).set(1);
                self.site.get_or_create(&info).set(1);
                let count = i64::try_from(site.sites_in_network).unwrap_or(i64::MAX);
                self.sites.get_or_create(&of_site()).set(count);
                let incoming = Links {
                    site_id: site_id.to_owned(),
                    role: "incoming",
                    status: "up",
                };
                self.links.get_or_create(&incoming).set(0);
                for link in &site.incoming_links {
                    self.links.get_or_create(&incoming).inc();
                    let certificate = &link.certificate;
                    self.expires(&of, &certificate.subject, &certificate.expiration_time);
                }
            }
            Ok(Details::Link(link)) => {
                let links = Links {
                    site_id: site_id.to_owned(),
                    role: if edge { "edge" } else { "inter-router" },
                    status: if ready { "up" } else { "down" },
                };
                self.links.get_or_create(&links).inc();
                self.expires(&of, "", &link.certificate_expiration_time);
            }
            Ok(Details::RouterAccess(access)) => {
                self.expires(&of, "", &access.certificate_expiration_time);
            }
            Ok(Details::Listener(listener)) => {
                self.listeners.get_or_create(&of_site()).inc();
                self.listener(
                    &of,
                    &listener.certificate_expiration_time,
                    listener.tls_handshake_failures,
                );
            }
            Ok(Details::MultiKeyListener(listener)) => {
                self.listeners.get_or_create(&of_site()).inc();
                self.listener(
                    &of,
                    &listener.certificate_expiration_time,
                    listener.tls_handshake_failures,
                );
            }
            Ok(Details::Connector(_) | Details::AttachedConnectorBinding(_)) => {
                self.connectors.get_or_create(&of_site()).inc();
            }
            Ok(Details::AccessGrant(grant)) => {
                let redemptions = i64::from(grant.redemptions);
                self.redemptions.get_or_create(&of).set(redemptions);
            }
            Ok(Details::Certificate(certificate)) => {
                self.expires(&of, "", &certificate.expiration);
            }
            Ok(Details::AccessToken(_) | Details::AttachedConnector(_) | Details::None)
            | Err(_) => {}
        }
    }

    /// What a listener that speaks TLS has beside others.
    fn listener(&self, of: &Resource, expires: &str, failures: u64) {
        if !expires.is_empty() {
            self.expires(of, "", expires);
            let failures = i64::try_from(failures).unwrap_or(i64::MAX);
            self.handshakes.get_or_create(of).set(failures);
        }
    }

    fn expires(&self, of: &Resource, subject: &str, time: &str) {
        let Ok(time) = time.parse::<Timestamp>() else {
            return;
        };
        let certificate = Certificate {
            namespace: of.namespace.clone(),
            kind: of.kind.clone(),
            name: of.name.clone(),
            subject: subject.to_owned(),
        };
        self.expiry
            .get_or_create(&certificate)
            .set(time.as_second());
    }
}

/// Whether the kernel steers, and what it has counted.
fn steering(registry: &mut Registry, listing: &Listing, totals: Option<Totals>) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::from(listing.enabled));
    registry.register(
        "skupper_steering_enabled",
        "1 when the kernel steers connections to listeners, 0 when listeners have sockets of their own",
        gauge,
    );
    let Some(totals) = totals else { return };
    let lookups = totals.hits + totals.misses + totals.refused;
    for (name, help, value) in [
        ("lookups", "New TCP connections to this host", lookups),
        ("hits", "Connections given to a listener", totals.hits),
        (
            "misses",
            "Connections left to other programs",
            totals.misses,
        ),
        (
            "refused",
            "Connections refused for want of an accept socket",
            totals.refused,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(format!("skupper_steering_{name}"), help, counter);
    }
    let (steered, refused) = (
        Family::<OfListener, Counter>::default(),
        Family::<OfListener, Counter>::default(),
    );
    let mut counted = HashSet::new();
    for bound in &listing.bindings {
        let of = OfListener {
            namespace: bound.namespace.clone(),
            listener: bound.listener.clone(),
        };
        // A listener that is reached at several places is counted at all of them together.
        if counted.insert(of.clone()) {
            steered.get_or_create(&of).inc_by(bound.steered);
            refused.get_or_create(&of).inc_by(bound.refused);
        }
    }
    registry.register(
        "skupper_listener_steering_hits",
        "Connections given to this listener",
        steered,
    );
    registry.register(
        "skupper_listener_steering_refused",
        "Connections to this listener refused for want of an accept socket",
        refused,
    );
}

/// Whether connections are accelerated, and what was counted.
fn acceleration(registry: &mut Registry, totals: Option<HopTotals>) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::from(totals.is_some()));
    registry.register(
        "skupper_acceleration_enabled",
        "1 when the kernel accelerates connections of listeners and connectors that ask for it",
        gauge,
    );
    let Some(totals) = totals else { return };
    for (name, help, value) in [
        (
            "messages",
            "Messages that went from socket to socket",
            totals.messages,
        ),
        (
            "bytes",
            "Bytes that went from socket to socket",
            totals.bytes,
        ),
        (
            "sockets",
            "Sockets taken up, two of each connection",
            totals.sockets,
        ),
        (
            "bulk",
            "Directions left to TCP, with much to carry or a slow reader",
            totals.bulk,
        ),
        (
            "late",
            "Directions that TCP carries from the start",
            totals.late,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(format!("skupper_acceleration_{name}"), help, counter);
    }
}

/// The metrics of all namespaces as OpenMetrics text; what the kernel steers where, and what it has
/// counted; what was counted of accelerated connections, if there are any;
/// `ledger`: what services have carried.
pub fn render(
    published: &Published,
    listing: &Listing,
    totals: Option<Totals>,
    hops: Option<HopTotals>,
    ledger: &Ledger,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("skupperd_build", "Version of the daemon", build);
    let families = Families::default();
    families.register(&mut registry);
    steering(&mut registry, listing, totals);
    acceleration(&mut registry, hops);
    for (namespace, documents) in published {
        families.namespace(namespace, documents);
    }
    traffic::register(&mut registry, ledger, |namespace| {
        let mut known = published.iter();
        let documents = known.find(|(name, _)| name.as_str() == namespace);
        documents.map_or_else(String::new, |(_, documents)| site_id(documents))
    });
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Name;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn o15_statuses_become_metrics_and_no_secret_does() {
        let link = json!({
            "status": {
                "status": "Ready",
                "certificateExpirationTime": "2031-01-02T03:04:05Z",
                "remoteSiteName": "west",
            },
        });
        let grant = json!({
            "status": {"status": "Ready", "code": "open-sesame", "redemptions": 3},
        });
        let documents = [(Kind::Link, "west", link), (Kind::AccessGrant, "in", grant)];
        let documents: Documents = documents
            .into_iter()
            .map(|(kind, name, document)| {
                let name = Name::new(name).unwrap();
                (Key { kind, name }, Arc::new(document))
            })
            .collect();
        let published = Published::from([(Namespace::default_namespace(), documents)]);
        let totals = Totals {
            hits: 5,
            misses: 7,
            refused: 1,
        };
        let ledger = Ledger::new(1);
        ledger.link_error("default", "inter-router");
        let hops = HopTotals {
            messages: 4,
            ..HopTotals::default()
        };
        let listing = Listing {
            enabled: true,
            ..Listing::default()
        };
        let text = render(&published, &listing, Some(totals), Some(hops), &ledger).unwrap();
        for line in [
            "skupper_certificate_expiration_timestamp_seconds{namespace=\"default\",kind=\"Link\",name=\"west\",subject=\"\"} 1925089445",
            "skupper_site_links_total{site_id=\"\",role=\"inter-router\",status=\"up\"} 1",
            "skupper_access_grant_redemptions{namespace=\"default\",kind=\"AccessGrant\",name=\"in\"} 3",
            "skupper_site_link_errors_total{site_id=\"\",role=\"inter-router\"} 1",
            "skupper_steering_enabled 1",
            "skupper_steering_lookups_total 13",
            "skupper_steering_hits_total 5",
            "skupper_acceleration_enabled 1",
            "skupper_acceleration_messages_total 4",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("sesame"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
