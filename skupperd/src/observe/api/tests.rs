use super::*;
use crate::model::{Key, Kind, Name, Namespace};
use std::sync::Arc;

/// A site of this host, a site that it has a link with, and one beyond.
fn published() -> ResourceSnapshot {
    let site = json!({
        "metadata": {"name": "east", "uid": "1"},
        "spec": {},
        "status": {"status": "Ready", "network": [
            {"id": "1", "name": "east", "namespace": "default", "platform": "linux", "version": "0.1.0",
             "links": [{"name": "up", "remoteSiteId": "2", "remoteSiteName": "west", "operational": true}],
             "services": [{"routingKey": "web", "listeners": ["web"]}]},
            {"id": "2", "name": "west",
             "links": [{"name": "east", "remoteSiteId": "1", "operational": true},
                       {"name": "north", "remoteSiteId": "3", "operational": true}],
             "services": [{"routingKey": "web", "connectors": ["web"]}]},
            {"id": "3", "name": "<b>", "links": [{"name": "west", "remoteSiteId": "2", "operational": true}]},
        ]},
    });
    let up = json!({"metadata": {"name": "up"}, "spec": {"cost": 5},
        "status": {"status": "Ready", "remoteSiteId": "2"}});
    let down = json!({"metadata": {"name": "down"}, "spec": {},
        "status": {"status": "Pending", "message": "192.0.2.9:55671: connection refused"}});
    let web = json!({"metadata": {"name": "front"}, "spec": {"routingKey": "web", "host": "127.0.0.1", "port": 80},
        "status": {"status": "Ready"}});
    let several = json!({"metadata": {"name": "several"}, "spec": {"host": "127.0.0.1", "port": 81,
        "strategy": {"priority": {"routingKeys": ["web", "db"]}}}, "status": {"status": "Pending"}});
    let access =
        json!({"metadata": {"name": "access"}, "spec": {"roles": [{"name": "edge", "port": 1}]}});
    let documents = [
        (Kind::Site, "east", site),
        (Kind::Link, "up", up),
        (Kind::Link, "down", down),
        (Kind::Listener, "front", web),
        (Kind::MultiKeyListener, "several", several),
        (Kind::RouterAccess, "access", access),
    ];
    let documents = documents.into_iter().map(|(kind, name, document)| {
        let name = Name::new(name).unwrap();
        (Key { kind, name }, Arc::new(document))
    });
    ResourceSnapshot::from([(Namespace::default_namespace(), documents.collect())])
}

fn ask_with(path: &str, query: &str, private: bool) -> ApiResponse {
    let snapshot = ApiSnapshot {
        published: &published(),
        flow_log: &FlowLog::new(1),
        attribution: &ClientAttribution::default(),
        private,
    };
    answer(path, query, snapshot)
}

fn ask(path: &str) -> ApiResponse {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    ask_with(path, query, false)
}

fn fields(path: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let ApiResponse::Found(found) = ask(path) else {
        panic!("{path}: {:?}", ask(path));
    };
    let row = |record: &Value| {
        let cells = fields
            .iter()
            .map(|field| record[*field].to_string().replace('"', ""));
        cells.collect()
    };
    found["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect()
}

#[test]
fn every_list_has_the_known_network() {
    let sites = fields(
        "sites",
        &[
            "identity",
            "name",
            "platform",
            "local",
            "routerCount",
            "endTime",
        ],
    );
    assert_eq!(
        sites,
        [
            ["1", "east", "linux", "true", "1", "0"],
            ["2", "west", "", "false", "1", "0"],
            ["3", "<b>", "", "false", "1", "0"]
        ]
    );
    assert_eq!(
        fields("routers", &["siteId", "mode"]),
        [["1", "interior"], ["2", ""], ["3", ""]]
    );
    let links = [
        "name",
        "sourceSiteName",
        "destinationSiteName",
        "status",
        "cost",
    ];
    assert_eq!(
        fields("routerlinks?sortBy=name", &links),
        [
            ["down", "east", "null", "down", "1"],
            ["north", "west", "<b>", "up", "null"],
            ["up", "east", "west", "up", "5"]
        ]
    );
    assert_eq!(
        fields("routeraccess", &["name", "role", "routerId"]),
        [["access", "edge", "1"]]
    );
    assert_eq!(
        fields(
            "listeners",
            &["name", "routingKey", "destHost", "destPort", "siteName"]
        ),
        [
            ["front", "web", "127.0.0.1", "80", "east"],
            ["several", "db", "127.0.0.1", "81", "east"],
            ["several", "web", "127.0.0.1", "81", "east"]
        ]
    );
    assert_eq!(
        fields(
            "connectors",
            &["name", "routingKey", "destHost", "siteName"]
        ),
        [["web", "web", "", "west"]]
    );
    let services = [
        "identity",
        "listenerCount",
        "connectorCount",
        "isBound",
        "hasListener",
    ];
    assert_eq!(
        fields("services", &services),
        [
            ["db@tcp", "1", "0", "false", "true"],
            ["web@tcp", "2", "1", "true", "true"]
        ]
    );
    for none in ["connections", "sitepairs", "processes", "applicationflows"] {
        assert!(fields(none, &[]).is_empty(), "{none}");
    }
}

#[test]
fn single_records_and_their_parts_have_paths() {
    let ApiResponse::Found(one) = ask("sites/2") else {
        panic!("no site");
    };
    assert_eq!(one["results"]["name"], "west");
    assert_eq!(fields("sites/2/routers", &["identity"]), [["2"]]);
    assert!(fields("sites/2/processes", &[]).is_empty());
    assert!(fields("services/web%40tcp/connections", &[]).is_empty());
    for unknown in [
        "sites/9",
        "sites/2/moons",
        "moons",
        "",
        "sites/2/routers/2",
        "sites/9/routers",
    ] {
        assert_eq!(ask(unknown), ApiResponse::Unknown, "{unknown}");
    }
    assert_eq!(ask("hosts"), ApiResponse::Gone);
    assert_eq!(ask("sites/2/hosts"), ApiResponse::Gone);
    assert!(matches!(ask("sites?sortBy=moons"), ApiResponse::Bad(_)));
}

#[test]
fn connections_are_refused_to_readers_without_the_right() {
    let private = |path: &str| ask_with(path, "", true);
    assert_eq!(private("connections"), ApiResponse::Private);
    assert_eq!(
        private("services/web@tcp/connections"),
        ApiResponse::Private
    );
    assert!(matches!(private("sites"), ApiResponse::Found(_)));
}
