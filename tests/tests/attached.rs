//! Servers that one namespace offers to the site of another.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, refused, works},
    free_addr,
    site::Site,
    wait_for, wait_until,
};
use std::{fs, net::SocketAddr, path::PathBuf};

fn input(site: &Site, namespace: &str, kind: &str) -> PathBuf {
    let dir = site.root().join("namespaces").join(namespace);
    let dir = dir.join("input/resources");
    fs::create_dir_all(&dir).expect("a directory");
    dir.join(format!("{kind}-echo.yaml"))
}

fn put(site: &Site, namespace: &str, kind: &str, spec: &str) {
    let text = format!(
        "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: echo\nspec: {spec}\n"
    );
    fs::write(input(site, namespace, kind), text).expect("a manifest");
}

fn take(site: &Site, namespace: &str, kind: &str) {
    fs::remove_file(input(site, namespace, kind)).expect("a manifest");
}

/// Waits until a resource has a status and a message.
fn status(site: &Site, namespace: &str, kind: &str, phase: &str, message: &str) -> Value {
    let file = format!("namespaces/{namespace}/runtime/resources/{kind}-echo.yaml");
    let what = format!("{kind} of {namespace} that is {phase}: {message}");
    wait_for(&what, SOON, || {
        let text = fs::read_to_string(site.root().join(&file)).ok()?;
        let value: Value = serde_yaml::from_str(&text).ok()?;
        let said = value["status"]["message"].as_str()?;
        (value["status"]["status"] == phase && said == message).then_some(value)
    })
}

const OFFER: &str = "AttachedConnector";
const BINDING: &str = "AttachedConnectorBinding";
const NO_OFFER: &str = "No matching AttachedConnector";
const NO_BINDING: &str = "No matching AttachedConnectorBinding in site namespace";

fn offer(site: &Site, at: &str, to: &str, server: &Server) {
    let user = nix::unistd::geteuid();
    let port = server.addr.port();
    let spec = format!("{{siteNamespace: {to}, selector: uid={user}, port: {port}}}");
    put(site, at, OFFER, &spec);
}

fn bind(site: &Site, to: &str) {
    let spec = format!("{{connectorNamespace: {to}, routingKey: echo}}");
    put(site, "default", BINDING, &spec);
}

/// A site with a listener, and a server that nobody offers yet.
fn site() -> (Site, Server, SocketAddr) {
    let mut site = Site::new("here");
    let (server, client) = (Server::echo(free_addr()), free_addr());
    site.listener("echo", "echo", client);
    site.start();
    (site, server, client)
}

#[test]
fn v39_servers_of_another_namespace_take_both_sides() {
    let (site, server, client) = site();
    offer(&site, "alice", "default", &server);
    status(&site, "alice", OFFER, "Pending", NO_BINDING);
    assert!(refused(client));
    // Another namespace is none that the site has agreed with.
    bind(&site, "bob");
    let text = "AttachedConnectorBinding default/echo does not allow AttachedConnector in alice (only bob)";
    status(&site, "alice", OFFER, "Error", text);
    status(&site, "default", BINDING, "Pending", NO_OFFER);
    assert!(refused(client));
    // Nor is one that offers them to somebody else.
    offer(&site, "bob", "carol", &server);
    let text = format!("{NO_OFFER}: AttachedConnector bob/echo is for namespace carol");
    status(&site, "default", BINDING, "Pending", &text);
    status(&site, "bob", OFFER, "Pending", NO_BINDING);
    assert!(refused(client));
    bind(&site, "alice");
    wait_until("the service", SOON, || works(client));
    let value = status(&site, "alice", OFFER, "Ready", "OK");
    let pod = &value["status"]["selectedPods"][0];
    assert_eq!(pod["port"], server.addr.port());
    assert_eq!(pod["ip"], "127.0.0.1");
    let value = status(&site, "default", BINDING, "Ready", "OK");
    assert_eq!(value["status"]["hasMatchingListener"], true);
    // A Connector of the same name is another.
    site.connector("echo", "other", free_addr());
    site.wait_status("Connector", "echo", "Pending");
    assert!(works(client));
    site.remove("Connector", "echo");
    drop(server);
    let user = nix::unistd::geteuid();
    let none = |said: &Value| {
        let text = said["status"]["message"].as_str().unwrap_or_default();
        text.starts_with(&format!("No matches for selector: uid={user}"))
    };
    for (namespace, kind) in [("alice", OFFER), ("default", BINDING)] {
        let file = format!("namespaces/{namespace}/runtime/resources/{kind}-echo.yaml");
        wait_until("no servers", SOON, || {
            let text = fs::read_to_string(site.root().join(&file)).unwrap_or_default();
            serde_yaml::from_str(&text).is_ok_and(|value| none(&value))
        });
    }
}

#[test]
fn v40_either_side_ends_it() {
    let (site, server, client) = site();
    let agree = || {
        offer(&site, "alice", "default", &server);
        bind(&site, "alice");
        wait_until("the service", SOON, || works(client));
    };
    agree();
    let mut open = std::net::TcpStream::connect(client).expect("a connection");
    take(&site, "alice", OFFER);
    status(&site, "default", BINDING, "Pending", NO_OFFER);
    wait_until("no service", SOON, || refused(client));
    let mut byte = [0];
    let ended = std::io::Read::read(&mut open, &mut byte);
    assert!(!matches!(ended, Ok(1..)), "open connections end too");
    agree();
    take(&site, "default", BINDING);
    status(&site, "alice", OFFER, "Pending", NO_BINDING);
    wait_until("no service", SOON, || refused(client));
    agree();
    // A namespace that is removed takes back what it has offered.
    fs::remove_dir_all(site.root().join("namespaces/alice")).expect("removed");
    status(&site, "default", BINDING, "Pending", NO_OFFER);
    wait_until("no service", SOON, || refused(client));
}

#[test]
fn settings_of_either_side_are_those_of_the_connector_that_comes_of_both() {
    let (site, server, _client) = site();
    let (user, port) = (nix::unistd::geteuid(), server.addr.port());
    let of_offer = |settings: &str, more: &str| {
        let spec = format!(
            "{{siteNamespace: default, selector: uid={user}, port: {port}, {more} \
             settings: {{{settings}}}}}"
        );
        put(&site, "alice", OFFER, &spec);
    };
    let of_binding = |settings: &str| {
        let spec =
            format!("{{connectorNamespace: alice, routingKey: echo, settings: {{{settings}}}}}");
        put(&site, "default", BINDING, &spec);
    };
    for key in skupperd::reconcile::settings(skupperd::model::Kind::AttachedConnector) {
        // Of a probe that is not wanted nothing else is looked at.
        let wrong = match *key {
            "health-check" | "proxy-protocol" | "acceleration" => format!("{key}: wrong"),
            _ => format!("health-check: http, {key}: \"?\""),
        };
        for (here, there) in [(wrong.as_str(), ""), ("", wrong.as_str())] {
            // Names in certificates are for who speaks TLS.
            let tls = *key == "tls-server-name";
            of_offer(here, if tls { "tlsCredentials: c," } else { "" });
            of_binding(there);
            let file = "namespaces/alice/runtime/resources/AttachedConnector-echo.yaml";
            wait_for(&format!("the word on {key}"), SOON, || {
                let text = fs::read_to_string(site.root().join(file)).ok()?;
                let value: Value = serde_yaml::from_str(&text).ok()?;
                let said = value["status"]["message"].as_str()?;
                said.contains(&format!("spec.settings[{key}]"))
                    .then_some(())
            });
        }
    }
}
