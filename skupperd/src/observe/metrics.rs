//! Prometheus metrics as OpenMetrics text.

mod kernel;
mod label;
mod resources;
mod traffic;

use crate::{
    flows::FlowLog,
    steer::{Listing, Totals, accel::HopTotals},
    store::ResourceSnapshot,
};
use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};
use resources::{ResourceFamilies, site_id};

/// All metrics as OpenMetrics text. `totals` and `hops`: `None` without steering and acceleration.
pub fn render(
    published: &ResourceSnapshot,
    listing: &Listing,
    totals: Option<Totals>,
    hops: Option<HopTotals>,
    flow_log: &FlowLog,
) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::default();
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("skupperd_build", "Version of the daemon", build);
    let families = ResourceFamilies::default();
    families.register(&mut registry);
    kernel::register_steering(&mut registry, listing, totals);
    kernel::register_acceleration(&mut registry, hops);
    for (namespace, documents) in published {
        families.add_namespace(namespace, documents);
    }
    traffic::register(&mut registry, flow_log, |namespace| {
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
    use crate::{
        model::{Key, Kind, Name, Namespace},
        store::Documents,
    };
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn statuses_become_metrics_and_no_secret_does() {
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
        let published = ResourceSnapshot::from([(Namespace::default_namespace(), documents)]);
        let totals = Totals {
            hits: 5,
            misses: 7,
            refused: 1,
        };
        let flow_log = FlowLog::new(1);
        flow_log.link_error("default", "inter-router");
        let hops = HopTotals {
            messages: 4,
            ..HopTotals::default()
        };
        let listing = Listing {
            enabled: true,
            ..Listing::default()
        };
        let text = render(&published, &listing, Some(totals), Some(hops), &flow_log).unwrap();
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
