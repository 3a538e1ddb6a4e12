//! AttachedConnectors: servers that one namespace offers to the site of another.

use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, refused, works},
    free_addr,
    site::Site,
    wait_for, wait_until,
};
use skupperd::{
    manifest::settings::{Setting, settings_of},
    model::Kind,
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

/// A site with a listener, and a server that no connector offers yet.
fn site() -> (Site, Server, SocketAddr) {
    let mut site = Site::new("here");
    let (server, client) = (Server::echo(free_addr()), free_addr());
    site.listener("echo", "echo", client);
    site.start();
    (site, server, client)
}

#[test]
fn an_attached_connector_needs_both_sides() {
    let (site, server, client) = site();
    offer(&site, "alice", "default", &server);
    status(&site, "alice", OFFER, "Pending", NO_BINDING);
    assert!(refused(client));
    // The site has not agreed to another namespace.
    bind(&site, "bob");
    let text = "AttachedConnectorBinding default/echo does not allow AttachedConnector in alice (only bob)";
    status(&site, "alice", OFFER, "Error", text);
    status(&site, "default", BINDING, "Pending", NO_OFFER);
    assert!(refused(client));
    // The offer names another namespace than the site's.
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
    // A Connector of the same name is a separate resource.
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
fn removing_either_side_ends_the_connector() {
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
    // Removing a namespace withdraws its offers. A rename is atomic: the daemon may be writing a
    // status.
    let gone = site.root().join("alice");
    fs::rename(site.root().join("namespaces/alice"), gone).expect("removed");
    status(&site, "default", BINDING, "Pending", NO_OFFER);
    wait_until("no service", SOON, || refused(client));
}

#[test]
fn an_invalid_setting_is_reported_by_the_side_that_has_it() {
    let (site, server, _client) = site();
    let (user, port) = (nix::unistd::geteuid(), server.addr.port());
    let of_offer = |settings: &str| {
        let spec = format!(
            "{{siteNamespace: default, selector: uid={user}, port: {port}, \
             settings: {{{settings}}}}}"
        );
        put(&site, "alice", OFFER, &spec);
    };
    let of_binding = |settings: &str| {
        let spec =
            format!("{{connectorNamespace: alice, routingKey: echo, settings: {{{settings}}}}}");
        put(&site, "default", BINDING, &spec);
    };
    for key in settings_of(Kind::AttachedConnector).flat_map(Setting::keys) {
        let invalid = format!("{key}: \"?\"");
        for (offer, binding, file) in [
            (
                invalid.as_str(),
                "",
                "alice/runtime/resources/AttachedConnector-echo.yaml",
            ),
            (
                "",
                invalid.as_str(),
                "default/runtime/resources/AttachedConnectorBinding-echo.yaml",
            ),
        ] {
            of_offer(offer);
            of_binding(binding);
            let file = site.root().join("namespaces").join(file);
            wait_for(&format!("the error of {key}"), SOON, || {
                let text = fs::read_to_string(&file).ok()?;
                let value: Value = serde_yaml::from_str(&text).ok()?;
                let message = value["status"]["message"].as_str()?;
                message
                    .contains(&format!("spec.settings[{key}]"))
                    .then_some(())
            });
        }
    }
}
