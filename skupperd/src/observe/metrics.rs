//! Prometheus metrics as OpenMetrics text.

mod kernel;
mod label;
mod resources;
mod traffic;

use crate::{
    flows::FlowLog,
    steer::{Listing, SteeringTotals, accel::HopTotals},
    store::ResourceSnapshot,
};
use prometheus_client::{encoding::text::encode, metrics::info::Info, registry::Registry};
use resources::{ResourceFamilies, site_id};

/// All metrics as OpenMetrics text. `totals` and `hops`: `None` without steering and acceleration.
pub fn render(
    published: &ResourceSnapshot,
    listing: &Listing,
    totals: Option<SteeringTotals>,
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

    fn rendered() -> String {
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
        let totals = SteeringTotals {
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
        render(&published, &listing, Some(totals), Some(hops), &flow_log).unwrap()
    }

    #[test]
    fn statuses_become_metrics_and_no_secret_does() {
        let text = rendered();
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

    /// In the guide, `_x` after a name stands for the same name with this end.
    #[test]
    fn the_guide_has_every_metric() {
        let page = include_str!("../../../docs/guide/metrics-and-console.md");
        let has = |name: &str| page.contains(&format!("`{name}`"));
        let text = rendered();
        let metrics = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for (name, kind) in metrics.filter_map(|metric| metric.split_once(' ')) {
            let name = match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            };
            let ends = name.match_indices('_').map(|(at, _)| &name[at..]);
            assert!(has(&name) || ends.into_iter().any(has), "{name}");
        }
        // Metrics without a sample are not rendered.
        let sources = [
            include_str!("metrics/kernel.rs"),
            include_str!("metrics/resources.rs"),
            include_str!("metrics/traffic.rs"),
        ];
        let literals = sources.iter().flat_map(|text| text.split('"'));
        let is_name = |text: &&str| {
            text.starts_with("skupper_") && !text.ends_with('_') && !text.contains('{')
        };
        let names: Vec<&str> = literals.filter(is_name).collect();
        assert!(names.len() > 12, "{names:?}");
        for name in names {
            let ends = ["", "_total", "_seconds"];
            let is_listed = ends.iter().any(|end| has(&format!("{name}{end}")));
            assert!(is_listed, "{name}");
        }
    }
}
