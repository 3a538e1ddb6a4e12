//! Connections, HTTP requests and pairs of sites, as the records of the API.

use super::{ApiSnapshot, PROTOCOL, record, service_id, text};
use crate::{
    flows::{FlowLog, Query},
    observe::connections,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Connections or requests that a list is made from.
const MAX_RECORDS: usize = 10_000;

/// The newest observed HTTP requests.
pub(super) fn requests(flow_log: &FlowLog) -> Vec<Value> {
    let newest = flow_log.requests(&Query {
        limit: MAX_RECORDS,
        ..Query::default()
    });
    newest.iter().map(connections::request).collect()
}

/// The newest connections.
pub(super) fn connections(snapshot: &ApiSnapshot<'_>) -> Vec<Value> {
    let records = snapshot.flow_log.records(&Query {
        limit: MAX_RECORDS,
        ..Query::default()
    });
    let all = connections::connections(&records, snapshot.attribution).into_iter();
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

/// Pairs of sites with the number of connections from the one to the other.
pub(super) fn site_pairs(flow_log: &FlowLog) -> Vec<Value> {
    let mut pairs: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for (key, totals) in flow_log.services() {
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
