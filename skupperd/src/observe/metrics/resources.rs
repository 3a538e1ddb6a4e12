//! Metrics of resources, from their statuses.

use super::label::Label;
use crate::{
    model::{Details, Key, Kind, Namespace},
    store::Documents,
};
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    namespace: Label,
    kind: Label,
    name: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    namespace: Label,
    kind: Label,
    name: Label,
    /// Empty for this host's own certificate, else the subject of the remote site's.
    subject: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiteLabels {
    namespace: Label,
    site_id: Label,
    name: Label,
    version: Label,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouterLabels {
    site_id: Label,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    site_id: Label,
    role: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SiteIdLabels {
    site_id: Label,
}

#[derive(Default)]
pub(super) struct ResourceFamilies {
    ready: Family<ResourceLabels, Gauge>,
    expiry: Family<CertificateLabels, Gauge>,
    site: Family<SiteLabels, Gauge>,
    links: Family<LinkLabels, Gauge>,
    listeners: Family<SiteIdLabels, Gauge>,
    connectors: Family<SiteIdLabels, Gauge>,
    sites: Family<SiteIdLabels, Gauge>,
    routers: Family<RouterLabels, Gauge>,
    redemptions: Family<ResourceLabels, Gauge>,
    handshakes: Family<ResourceLabels, Gauge>,
}

/// Identity of a namespace's site; empty without a site.
pub(super) fn site_id(documents: &Documents) -> String {
    let site = documents.iter().find(|(key, _)| key.kind == Kind::Site);
    let id = site.and_then(|(_, document)| document.pointer("/metadata/uid"));
    id.and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl ResourceFamilies {
    pub(super) fn register(&self, registry: &mut Registry) {
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

    pub(super) fn add_namespace(&self, namespace: &Namespace, documents: &Documents) {
        let site = documents.iter().find(|(key, _)| key.kind == Kind::Site);
        let edge = site.and_then(|(_, document)| document.pointer("/spec/edge"));
        let edge = edge.and_then(Value::as_bool).unwrap_or_default();
        let site_id = site_id(documents);
        for (key, document) in documents {
            self.add_resource(namespace, &site_id, edge, key, document);
        }
    }

    fn add_resource(
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
        let of = ResourceLabels {
            namespace: namespace.into(),
            kind: key.kind.as_str().into(),
            name: (&key.name).into(),
        };
        let site_labels = || SiteIdLabels {
            site_id: site_id.into(),
        };
        let ready = status["status"] == "Ready";
        self.ready.get_or_create(&of).set(i64::from(ready));
        // The daemon wrote it: a status that cannot be read is of a later version.
        match Details::read(key.kind, status) {
            Ok(Details::Site(site)) => {
                let info = SiteLabels {
                    namespace: namespace.into(),
                    site_id: site_id.into(),
                    name: (&key.name).into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                };
                let router = RouterLabels {
                    site_id: site_id.into(),
                    mode: if edge { "edge" } else { "interior" },
                };
                self.routers.get_or_create(&router).set(1);
                self.site.get_or_create(&info).set(1);
                let count = i64::try_from(site.sites_in_network).unwrap_or(i64::MAX);
                self.sites.get_or_create(&site_labels()).set(count);
                let incoming = LinkLabels {
                    site_id: site_id.into(),
                    role: "incoming",
                    status: "up",
                };
                self.links.get_or_create(&incoming).set(0);
                for link in &site.incoming_links {
                    self.links.get_or_create(&incoming).inc();
                    let certificate = &link.certificate;
                    self.set_expiry(&of, &certificate.subject, &certificate.expiration_time);
                }
            }
            Ok(Details::Link(link)) => {
                let links = LinkLabels {
                    site_id: site_id.into(),
                    role: if edge { "edge" } else { "inter-router" },
                    status: if ready { "up" } else { "down" },
                };
                self.links.get_or_create(&links).inc();
                self.set_expiry(&of, "", &link.certificate_expiration_time);
            }
            Ok(Details::RouterAccess(access)) => {
                self.set_expiry(&of, "", &access.certificate_expiration_time);
            }
            Ok(Details::Listener(listener)) => {
                self.listeners.get_or_create(&site_labels()).inc();
                self.add_listener_tls(
                    &of,
                    &listener.certificate_expiration_time,
                    listener.tls_handshake_failures,
                );
            }
            Ok(Details::MultiKeyListener(listener)) => {
                self.listeners.get_or_create(&site_labels()).inc();
                self.add_listener_tls(
                    &of,
                    &listener.certificate_expiration_time,
                    listener.tls_handshake_failures,
                );
            }
            Ok(Details::Connector(_) | Details::AttachedConnectorBinding(_)) => {
                self.connectors.get_or_create(&site_labels()).inc();
            }
            Ok(Details::AccessGrant(grant)) => {
                let redemptions = i64::from(grant.redemptions);
                self.redemptions.get_or_create(&of).set(redemptions);
            }
            Ok(Details::Certificate(certificate)) => {
                self.set_expiry(&of, "", &certificate.expiration);
            }
            Ok(Details::AccessToken(_) | Details::AttachedConnector(_) | Details::None)
            | Err(_) => {}
        }
    }

    /// Metrics that only a listener with TLS has.
    fn add_listener_tls(&self, of: &ResourceLabels, expires: &str, failures: u64) {
        if !expires.is_empty() {
            self.set_expiry(of, "", expires);
            let failures = i64::try_from(failures).unwrap_or(i64::MAX);
            self.handshakes.get_or_create(of).set(failures);
        }
    }

    fn set_expiry(&self, of: &ResourceLabels, subject: &str, time: &str) {
        let Ok(time) = time.parse::<Timestamp>() else {
            return;
        };
        let certificate = CertificateLabels {
            namespace: of.namespace.clone(),
            kind: of.kind.clone(),
            name: of.name.clone(),
            subject: subject.into(),
        };
        self.expiry
            .get_or_create(&certificate)
            .set(time.as_second());
    }
}
