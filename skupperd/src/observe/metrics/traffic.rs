//! Metrics of connections, bytes and requests of services, and of failures of links, with the names
//! and labels of Skupper's network observer.

use super::label::Label;
use crate::flows::{ConnectionSide, FlowLog, RequestKey, ServiceKey, ServiceTotals};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Unknown labels are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrafficLabels {
    source_site_id: Label,
    dest_site_id: Label,
    source_site_name: Label,
    dest_site_name: Label,
    source_component_id: Label,
    dest_component_id: Label,
    source_component_name: Label,
    dest_component_name: Label,
    routing_key: Label,
    protocol: Label,
    source_process_name: Label,
    dest_process_name: Label,
}

impl TrafficLabels {
    fn of_service(key: &ServiceKey) -> Self {
        let (source, dest) = match key.side {
            ConnectionSide::Listener => (&*key.here, &key.there),
            ConnectionSide::Connector => (&key.there, &*key.here),
        };
        Self {
            source_site_id: (&source.id).into(),
            dest_site_id: (&dest.id).into(),
            source_site_name: (&source.name).into(),
            dest_site_name: (&dest.name).into(),
            routing_key: (&key.routing_key).into(),
            protocol: "tcp".into(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkErrorLabels {
    site_id: Label,
    role: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    #[prometheus(flatten)]
    labels: TrafficLabels,
    method: &'static str,
    code: &'static str,
}

impl RequestLabels {
    fn of_request(labels: &TrafficLabels, (protocol, method, class): RequestKey) -> Self {
        Self {
            labels: TrafficLabels {
                protocol: protocol.into(),
                ..labels.clone()
            },
            method,
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
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Default)]
struct TrafficFamilies {
    opened: Family<TrafficLabels, Counter>,
    closed: Family<TrafficLabels, Counter>,
    sent: Family<TrafficLabels, Counter>,
    received: Family<TrafficLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
}

impl TrafficFamilies {
    fn register(&self, registry: &mut Registry, prefix: &str, scope: &str) {
        for (name, help, family) in [
            ("connections_opened", "Connections", &self.opened),
            ("connections_closed", "Connections that ended", &self.closed),
            ("sent_bytes", "Bytes from clients to servers", &self.sent),
            (
                "received_bytes",
                "Bytes from servers to clients",
                &self.received,
            ),
        ] {
            let (name, help) = (format!("{prefix}{name}"), format!("{help}, {scope}"));
            registry.register(name, help, family.clone());
        }
    }

    fn add(&self, labels: &TrafficLabels, totals: &ServiceTotals) {
        for (family, value) in [
            (&self.opened, totals.opened),
            (&self.closed, totals.closed),
            (&self.sent, totals.sent),
            (&self.received, totals.received),
        ] {
            family.get_or_create(labels).inc_by(value);
        }
        for (key, count) in &totals.requests {
            let request = RequestLabels::of_request(labels, *key);
            self.requests.get_or_create(&request).inc_by(*count);
        }
    }
}

/// `site_id`: returns the identity of a namespace's site.
pub(super) fn register(
    registry: &mut Registry,
    flow_log: &FlowLog,
    site_id: impl Fn(&str) -> String,
) {
    let (listeners, connectors) = (TrafficFamilies::default(), TrafficFamilies::default());
    listeners.register(registry, "skupper_", "of listeners here");
    connectors.register(
        registry,
        "skupper_connector_",
        "of connectors here with clients at other sites",
    );
    registry.register(
        "skupper_requests",
        "Completed HTTP requests of listeners here, where they are observed",
        listeners.requests.clone(),
    );
    let unobserved: Family<ReasonLabels, Counter> = Family::default();
    registry.register(
        "skupper_observer_stopped",
        "Connections whose requests were not observed to the end",
        unobserved.clone(),
    );
    for (reason, count) in flow_log.unobserved_totals() {
        let reason = reason.as_str();
        unobserved
            .get_or_create(&ReasonLabels { reason })
            .inc_by(count);
    }
    for (key, totals) in flow_log.services() {
        let families = match key.side {
            ConnectionSide::Listener => &listeners,
            ConnectionSide::Connector => &connectors,
        };
        families.add(&TrafficLabels::of_service(&key), &totals);
    }
    let errors: Family<LinkErrorLabels, Counter> = Family::default();
    registry.register(
        "skupper_site_link_errors",
        "Failures to establish a link, and links that broke",
        errors.clone(),
    );
    for ((namespace, role), count) in flow_log.link_errors() {
        let site_id = Label::from(&site_id(&namespace));
        errors
            .get_or_create(&LinkErrorLabels { site_id, role })
            .inc_by(count);
    }
}
