//! Metrics of what services carry, with upstream's names and labels.

use crate::link::ledger::{Ledger, RequestKey, ServiceKey, Side, Totals};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// The labels of upstream's network observer. Those that nothing is known for are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    source_site_id: String,
    dest_site_id: String,
    source_site_name: String,
    dest_site_name: String,
    source_component_id: String,
    dest_component_id: String,
    source_component_name: String,
    dest_component_name: String,
    routing_key: String,
    protocol: String,
    source_process_name: String,
    dest_process_name: String,
}

impl Labels {
    fn of(key: &ServiceKey) -> Self {
        let (source, dest) = match key.side {
            Side::Listener => (&*key.here, &key.there),
            Side::Connector => (&key.there, &*key.here),
        };
        Self {
            source_site_id: source.id.clone(),
            dest_site_id: dest.id.clone(),
            source_site_name: source.name.clone(),
            dest_site_name: dest.name.clone(),
            routing_key: key.routing_key.to_string(),
            protocol: "tcp".to_owned(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Errors {
    site_id: String,
    role: &'static str,
}

/// Those of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    #[prometheus(flatten)]
    labels: Labels,
    method: &'static str,
    code: &'static str,
}

impl Asked {
    fn of(labels: &Labels, (protocol, method, class): RequestKey) -> Self {
        Self {
            labels: Labels {
                protocol: protocol.to_owned(),
                ..labels.clone()
            },
            method,
            // Upstream's words for the class of a status.
            code: match class {
                1 => "1xx",
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                5 => "5xx",
                _ => "unknown",
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Default)]
struct Families {
    opened: Family<Labels, Counter>,
    closed: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
    received: Family<Labels, Counter>,
    requests: Family<Asked, Counter>,
}

impl Families {
    fn register(&self, registry: &mut Registry, prefix: &str, whose: &str) {
        for (name, help, family) in [
            ("connections_opened", "Connections", &self.opened),
            (
                "connections_closed",
                "Connections that have ended",
                &self.closed,
            ),
            ("sent_bytes", "Bytes from clients to servers", &self.sent),
            (
                "received_bytes",
                "Bytes from servers to clients",
                &self.received,
            ),
        ] {
            let (name, help) = (format!("{prefix}{name}"), format!("{help}, {whose}"));
            registry.register(name, help, family.clone());
        }
    }

    fn add(&self, labels: &Labels, totals: &Totals) {
        for (family, value) in [
            (&self.opened, totals.opened),
            (&self.closed, totals.closed),
            (&self.sent, totals.sent),
            (&self.received, totals.received),
        ] {
            family.get_or_create(labels).inc_by(value);
        }
        for (key, count) in &totals.requests {
            let asked = Asked::of(labels, *key);
            self.requests.get_or_create(&asked).inc_by(*count);
        }
    }
}

/// Adds what services have carried, and how often links could not. `site_id`: that of a namespace.
pub(super) fn register(registry: &mut Registry, ledger: &Ledger, site_id: impl Fn(&str) -> String) {
    let (listeners, connectors) = (Families::default(), Families::default());
    listeners.register(registry, "skupper_", "of listeners here");
    connectors.register(
        registry,
        "skupper_connector_",
        "of connectors here with clients at other sites",
    );
    registry.register(
        "skupper_requests",
        "HTTP requests of listeners here that are over, where they are observed",
        listeners.requests.clone(),
    );
    let unseen: Family<Reason, Counter> = Family::default();
    registry.register(
        "skupper_observer_stopped",
        "Connections whose requests were not observed to their end",
        unseen.clone(),
    );
    for (why, count) in ledger.unseen_totals() {
        let reason = why.as_str();
        unseen.get_or_create(&Reason { reason }).inc_by(count);
    }
    for (key, totals) in ledger.services() {
        let families = match key.side {
            Side::Listener => &listeners,
            Side::Connector => &connectors,
        };
        families.add(&Labels::of(&key), &totals);
    }
    let errors: Family<Errors, Counter> = Family::default();
    registry.register(
        "skupper_site_link_errors",
        "Times that a link could not be made, or broke",
        errors.clone(),
    );
    for ((namespace, role), count) in ledger.link_errors() {
        let site_id = site_id(&namespace);
        errors
            .get_or_create(&Errors { site_id, role })
            .inc_by(count);
    }
}
