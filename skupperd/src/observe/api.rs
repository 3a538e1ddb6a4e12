//! The read-only JSON API, with the paths and fields of Skupper's network observer: the network as
//! the sites of this host see it, and the connections that they carry.
//!
//! Records of processes and components are always empty: no site reports processes.

mod connections;
mod list_query;
mod network;

use super::attribution::ClientAttribution;
use crate::{flows::FlowLog, store::ResourceSnapshot};
use jiff::Timestamp;
use list_query::{ListQuery, percent_decode};
use network::NetworkView;
use serde_json::{Value, json};

/// Prefix of every path of the API.
pub(super) const ROOT: &str = "/api/v2alpha1/";
/// Transport protocol of all services and connections.
const PROTOCOL: &str = "tcp";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ApiResponse {
    /// A list, or one record.
    Found(Value),
    Unknown,
    /// Skupper's observer had this path in an earlier version.
    Gone,
    /// The query is invalid, and why.
    Bad(String),
    /// The record has addresses of clients, which this reader may not see.
    Private,
}

/// What one request is answered from.
#[derive(Clone, Copy)]
pub(super) struct ApiSnapshot<'a> {
    pub(super) published: &'a ResourceSnapshot,
    pub(super) flow_log: &'a FlowLog,
    pub(super) attribution: &'a ClientAttribution,
    /// This reader may not see connections.
    pub(super) private: bool,
}

/// Answers a request for a path below [`ROOT`].
pub(super) fn answer(path: &str, query: &str, snapshot: ApiSnapshot<'_>) -> ApiResponse {
    let query = match ListQuery::parse(query) {
        Ok(query) => query,
        Err(reason) => return ApiResponse::Bad(reason),
    };
    let network = NetworkView::new(snapshot.published);
    let path: Vec<String> = path.split('/').map(percent_decode).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let (collection, id, part) = match path[..] {
        [collection] => (collection, None, None),
        [collection, id] => (collection, Some(id), None),
        [collection, id, part] => (collection, Some(id), Some(part)),
        _ => return ApiResponse::Unknown,
    };
    let all = match collection {
        "sites" => network.sites(),
        "routers" => network.routers(),
        "routerlinks" => network.links(),
        "routeraccess" => network.accesses(),
        "listeners" => network.listeners(),
        "connectors" => network.connectors(),
        "services" => network.services(),
        "sitepairs" => connections::site_pairs(snapshot.flow_log),
        "connections" | "applicationflows" if snapshot.private => return ApiResponse::Private,
        "connections" => connections::connections(&snapshot),
        "applicationflows" => connections::requests(snapshot.flow_log),
        "processes" | "components" | "processpairs" | "componentpairs" => Vec::new(),
        "hosts" => return ApiResponse::Gone,
        _ => return ApiResponse::Unknown,
    };
    let Some(id) = id else {
        return select(&query, all);
    };
    let found = all
        .into_iter()
        .find(|record| text(record, "/identity") == id);
    let Some(found) = found else {
        return ApiResponse::Unknown;
    };
    let select_by = |field: &str, all: Vec<Value>| {
        let of_id = all.into_iter().filter(|record| text(record, field) == id);
        select(&query, of_id.collect())
    };
    match (collection, part) {
        (_, None) => ApiResponse::Found(json!({"results": found})),
        ("sites", Some("routers")) => select_by("/siteId", network.routers()),
        ("sites", Some("hosts")) => ApiResponse::Gone,
        ("services", Some("connections")) if snapshot.private => ApiResponse::Private,
        ("services", Some("connections")) => {
            select_by("/serviceId", connections::connections(&snapshot))
        }
        ("sites" | "services", Some("processes")) | ("services", Some("processpairs")) => {
            select(&query, Vec::new())
        }
        _ => ApiResponse::Unknown,
    }
}

fn select(query: &ListQuery, all: Vec<Value>) -> ApiResponse {
    match query.select(all, Timestamp::now().as_microsecond()) {
        Ok(found) => ApiResponse::Found(found),
        Err(reason) => ApiResponse::Bad(reason),
    }
}

/// The text at a JSON pointer; empty when there is none.
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// The array at a JSON pointer; empty when there is none.
fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Adds the fields that every record has. The network reports no start times: 0.
fn record(identity: impl Into<String>, mut fields: Value) -> Value {
    fields["identity"] = Value::String(identity.into());
    fields["startTime"] = json!(0);
    fields["endTime"] = json!(0);
    fields
}

fn service_id(routing_key: &str) -> String {
    format!("{routing_key}@{PROTOCOL}")
}

#[cfg(test)]
mod tests;
