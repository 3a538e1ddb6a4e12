//! Connections and services as JSON, with the names that upstream's network observer has for them.

use super::clients::Attribution;
use crate::link::ledger::{Query, Record, RequestRecord, ServiceKey, Side, Totals, Which};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Connections that are shown unless more or fewer are asked for.
const SHOWN: usize = 100;
/// Most that are shown.
const MOST: usize = 10_000;

/// Reads the query of a request for connections: `limit`, `state` and `namespace`.
pub(super) fn query(text: &str) -> Result<Query, String> {
    let mut query = Query {
        limit: SHOWN,
        ..Query::default()
    };
    for (name, value) in text.split('&').filter_map(|part| part.split_once('=')) {
        match name {
            "limit" => {
                let limit: i64 = value
                    .parse()
                    .map_err(|_| format!("limit: {value:?} is not a number"))?;
                // As upstream has it, a negative one is for all.
                query.limit = usize::try_from(limit).unwrap_or(MOST).min(MOST);
            }
            "state" => {
                query.which = match value {
                    "all" => Which::All,
                    "active" => Which::Active,
                    "terminated" => Which::Terminated,
                    _ => return Err(format!("state: {value:?} is not all, active or terminated")),
                }
            }
            "namespace" => query.namespace = Some(value.to_owned()),
            _ => return Err(format!("there is no parameter {name:?}")),
        }
    }
    Ok(query)
}

/// A list as upstream's API gives it.
pub(super) fn list(results: Vec<Value>) -> Value {
    json!({"count": results.len(), "results": results})
}

fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn passed(time: Option<Duration>) -> Option<u64> {
    time.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX))
}

/// Host and port of an address; what is none is a host, as the path of a Unix socket.
fn parts(addr: &str) -> (String, String) {
    match addr.parse::<SocketAddr>() {
        Ok(addr) => (addr.ip().to_string(), addr.port().to_string()),
        Err(_) => (addr.to_owned(), String::new()),
    }
}

/// Connections with the processes of their clients, where those are of this host.
pub(super) fn connections(records: &[Record], attribution: &Attribution) -> Vec<Value> {
    let clients = attribution.of(records);
    let all = records.iter().zip(clients).map(|(record, client)| {
        let mut shown = connection(record);
        shown["sourceProcessName"] = json!(client.as_ref().map_or("", |c| &c.name));
        shown["sourceUser"] = json!(client.map(|c| c.user));
        shown
    });
    all.collect()
}

/// A connection. Times are microseconds since the epoch, lengths of time microseconds.
fn connection(record: &Record) -> Value {
    let (here, there) = (&*record.site, &record.served.site);
    let (source, dest) = match record.side {
        Side::Listener => (here, there),
        Side::Connector => (there, here),
    };
    let client = record.client.map(|c| c.to_string()).unwrap_or_default();
    let (source_host, source_port) = parts(&client);
    let (dest_host, dest_port) = parts(&record.served.server);
    let (proxy_host, proxy_port) = parts(&record.served.proxy);
    json!({
        "identity": record.id,
        "peerIdentity": record.peer_id,
        "side": side(record.side),
        "namespace": here.namespace,
        "startTime": micros(record.start),
        "endTime": record.end.map_or(0, micros),
        "duration": passed(Some(record.duration)),
        "sourceSiteId": source.id,
        "sourceSiteName": source.name,
        "destSiteId": dest.id,
        "destSiteName": dest.name,
        "routingKey": &*record.routing_key,
        "protocol": "tcp",
        "listener": &*record.entity,
        "connector": record.served.connector,
        "sourceHost": source_host,
        "sourcePort": source_port,
        "destHost": dest_host,
        "destPort": dest_port,
        "proxyHost": proxy_host,
        "proxyPort": proxy_port,
        "octetCount": record.sent,
        "octetReverseCount": record.received,
        "openLatency": passed(record.opened),
        "latency": passed(record.answered),
        "traceRouters": record.served.trace,
        "endReason": record.ending,
        "requestCount": record.requests,
    })
}

/// An HTTP request that was observed.
pub(super) fn request(record: &RequestRecord) -> Value {
    let (of, seen) = (&record.connection, &record.exchange);
    let (source, dest) = (&*of.site, &of.served.site);
    json!({
        "identity": record.id,
        "connectionId": of.id,
        "namespace": source.namespace,
        "startTime": micros(record.start),
        "endTime": micros(record.end),
        "duration": passed(Some(seen.duration)),
        "sourceSiteId": source.id,
        "sourceSiteName": source.name,
        "destSiteId": dest.id,
        "destSiteName": dest.name,
        "routingKey": &*of.routing_key,
        "protocol": seen.protocol.as_str(),
        "streamId": (seen.stream != 0).then_some(seen.stream),
        "listener": &*of.entity,
        "connector": of.served.connector,
        "method": seen.method,
        "status": seen.status.map(|status| status.to_string()),
        "octetCount": seen.sent,
        "octetReverseCount": seen.received,
        "latency": passed(seen.latency),
        "traceRouters": of.served.trace,
    })
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Listener => "listener",
        Side::Connector => "connector",
    }
}

/// What a service has carried.
pub(super) fn service((key, totals): (&ServiceKey, &Totals)) -> Value {
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
    fn a_query_says_which_connections_and_how_many() {
        let default = query("").unwrap();
        assert_eq!((default.limit, default.which), (SHOWN, Which::All));
        let some = query("limit=5&state=active&namespace=east").unwrap();
        assert_eq!((some.limit, some.which), (5, Which::Active));
        assert_eq!(some.namespace.as_deref(), Some("east"));
        assert_eq!(query("limit=-1").unwrap().limit, MOST);
        for bad in ["limit=x", "limit=", "state=old", "page=2"] {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_maybe_a_port() {
        let text = |host: &str, port: &str| (host.to_owned(), port.to_owned());
        assert_eq!(parts("10.0.0.1:80"), text("10.0.0.1", "80"));
        assert_eq!(parts("[::1]:80"), text("::1", "80"));
        assert_eq!(parts("unix:/run/s"), text("unix:/run/s", ""));
        assert_eq!(parts(""), text("", ""));
    }
}
