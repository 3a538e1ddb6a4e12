//! Connections, requests and services as JSON, with the field names of Skupper's network observer.

use super::attribution::ClientAttribution;
use crate::flows::{
    ConnectionRecord, ConnectionSide, FlowFilter, Query, RequestRecord, ServiceKey, ServiceTotals,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Limit of a query without one.
const DEFAULT_LIMIT: usize = 100;
/// Largest limit.
const MAX_LIMIT: usize = 10_000;

/// Parses the parameters `limit`, `state` and `namespace`.
///
/// # Errors
///
/// The parameter that is invalid, and why.
pub(super) fn parse_query(text: &str) -> Result<Query, String> {
    let mut query = Query {
        limit: DEFAULT_LIMIT,
        ..Query::default()
    };
    for (name, value) in text.split('&').filter_map(|part| part.split_once('=')) {
        match name {
            "limit" => {
                let limit: i64 = value
                    .parse()
                    .map_err(|_| format!("limit: {value:?} is not a number"))?;
                // As in the Go implementation, a negative limit means all.
                query.limit = usize::try_from(limit).unwrap_or(MAX_LIMIT).min(MAX_LIMIT);
            }
            "state" => {
                query.filter = match value {
                    "all" => FlowFilter::All,
                    "active" => FlowFilter::Active,
                    "terminated" => FlowFilter::Terminated,
                    _ => return Err(format!("state: {value:?} is not all, active or terminated")),
                }
            }
            "namespace" => query.namespace = Some(value.to_owned()),
            _ => return Err(format!("unknown parameter {name:?}")),
        }
    }
    Ok(query)
}

pub(super) fn list(results: Vec<Value>) -> Value {
    json!({"count": results.len(), "results": results})
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn duration_micros(time: Option<Duration>) -> Option<u64> {
    time.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX))
}

/// Host and port of an address. Anything else is a host without a port, as the path of a Unix socket.
fn host_and_port(addr: &str) -> (String, String) {
    match addr.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip().to_string(), addr.port().to_string()),
        Err(_) => (addr.to_owned(), String::new()),
    }
}

/// Connections, with the process and user of each client of this host.
pub(super) fn connections(
    records: &[ConnectionRecord],
    attribution: &ClientAttribution,
) -> Vec<Value> {
    let clients = attribution.clients_of(records);
    let all = records.iter().zip(clients).map(|(record, client)| {
        let mut shown = connection(record);
        shown["sourceProcessName"] = json!(client.as_ref().map_or("", |c| &c.name));
        shown["sourceUser"] = json!(client.map(|c| c.user));
        shown
    });
    all.collect()
}

/// Times are in microseconds since the epoch, durations in microseconds.
fn connection(record: &ConnectionRecord) -> Value {
    let (here, there) = (&*record.site, &record.server.site);
    let (source, dest) = match record.side {
        ConnectionSide::Listener => (here, there),
        ConnectionSide::Connector => (there, here),
    };
    let client = record.client.map(|c| c.to_string()).unwrap_or_default();
    let (source_host, source_port) = host_and_port(&client);
    let (dest_host, dest_port) = host_and_port(&record.server.server);
    let (proxy_host, proxy_port) = host_and_port(&record.server.proxy);
    json!({
        "identity": record.id,
        "peerIdentity": record.peer_id,
        "side": side(record.side),
        "namespace": here.namespace,
        "startTime": micros(record.start),
        "endTime": record.end.map_or(0, micros),
        "duration": duration_micros(Some(record.duration)),
        "sourceSiteId": source.id,
        "sourceSiteName": source.name,
        "destSiteId": dest.id,
        "destSiteName": dest.name,
        "routingKey": &*record.routing_key,
        "protocol": "tcp",
        "listener": &*record.entity,
        "connector": record.server.connector,
        "sourceHost": source_host,
        "sourcePort": source_port,
        "destHost": dest_host,
        "destPort": dest_port,
        "proxyHost": proxy_host,
        "proxyPort": proxy_port,
        "octetCount": record.sent,
        "octetReverseCount": record.received,
        "openLatency": duration_micros(record.opened),
        "latency": duration_micros(record.answered),
        "traceRouters": record.server.trace,
        "endReason": record.ending,
        "requestCount": record.requests,
    })
}

pub(super) fn request(record: &RequestRecord) -> Value {
    let (of, seen) = (&record.connection, &record.exchange);
    let (source, dest) = (&*of.site, &of.server.site);
    json!({
        "identity": record.id,
        "connectionId": of.id,
        "namespace": source.namespace,
        "startTime": micros(record.start),
        "endTime": micros(record.end),
        "duration": duration_micros(Some(seen.duration)),
        "sourceSiteId": source.id,
        "sourceSiteName": source.name,
        "destSiteId": dest.id,
        "destSiteName": dest.name,
        "routingKey": &*of.routing_key,
        "protocol": seen.protocol.as_str(),
        "streamId": (seen.stream != 0).then_some(seen.stream),
        "listener": &*of.entity,
        "connector": of.server.connector,
        "method": seen.method,
        "status": seen.status.map(|status| status.to_string()),
        "octetCount": seen.sent,
        "octetReverseCount": seen.received,
        "latency": duration_micros(seen.latency),
        "traceRouters": of.server.trace,
    })
}

fn side(side: ConnectionSide) -> &'static str {
    match side {
        ConnectionSide::Listener => "listener",
        ConnectionSide::Connector => "connector",
    }
}

pub(super) fn service((key, totals): (&ServiceKey, &ServiceTotals)) -> Value {
    json!({
        "namespace": key.here.namespace,
        "side": side(key.side),
        "routingKey": &*key.routing_key,
        "siteId": key.here.id,
        "siteName": key.here.name,
        "remoteSiteId": key.there.id,
        "remoteSiteName": key.there.name,
        "opened": totals.opened,
        "closed": totals.closed,
        "sentBytes": totals.sent,
        "receivedBytes": totals.received,
        "requests": totals.requests.values().sum::<u64>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_selects_and_limits_connections() {
        let default = parse_query("").unwrap();
        assert_eq!(
            (default.limit, default.filter),
            (DEFAULT_LIMIT, FlowFilter::All)
        );
        let some = parse_query("limit=5&state=active&namespace=east").unwrap();
        assert_eq!((some.limit, some.filter), (5, FlowFilter::Active));
        assert_eq!(some.namespace.as_deref(), Some("east"));
        assert_eq!(parse_query("limit=-1").unwrap().limit, MAX_LIMIT);
        for bad in ["limit=x", "limit=", "state=old", "page=2"] {
            assert!(parse_query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_split_into_host_and_port() {
        let text = |host: &str, port: &str| (host.to_owned(), port.to_owned());
        assert_eq!(host_and_port("10.0.0.1:80"), text("10.0.0.1", "80"));
        assert_eq!(host_and_port("[::1]:80"), text("::1", "80"));
        assert_eq!(host_and_port("unix:/run/s"), text("unix:/run/s", ""));
        assert_eq!(host_and_port(""), text("", ""));
    }
}
