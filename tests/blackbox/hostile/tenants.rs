//! Owners of a namespace, for whom the daemon must not use rights that they do not have. The daemon
//! and the tests are root's, the owners another user's.

use crate::tokens::errors;
use skupper_tests::{
    SOON,
    bus::{Bus, generate_link_at},
    echo::{Server, connect, works},
    free_addr,
    site::Site,
    skip::skip,
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// The owner of the namespaces.
const ALICE: u32 = 4711;
const DENIED: &str = "not allowed while users other than root and the daemon can write to";

/// Gives the manifests of a site to Alice. False, with the reason, where the test is not root's.
fn give_away(site: &Site) -> bool {
    let given = chown(site.input(), Some(ALICE), Some(ALICE));
    if given.is_err() {
        skip("only root gives directories away");
    }
    given.is_ok()
}

/// A running site whose manifests are Alice's.
fn site_of_alice() -> Option<Site> {
    let mut site = Site::new("alice");
    if !give_away(&site) {
        return None;
    }
    site.start();
    site.wait_status("Site", "alice", "Ready");
    Some(site)
}

/// A connector to a Unix socket, and a listener for it.
fn socket_service(site: &Site, path: &Path) -> SocketAddr {
    let spec = format!("{{routingKey: s, host: \"unix:{}\"}}", path.display());
    site.resource("Connector", "s", &spec);
    let addr = free_addr();
    site.listener("s", "s", addr);
    addr
}

/// A Unix socket that anybody may connect to, which accepts and says nothing.
fn open_socket(path: &Path) -> UnixListener {
    let socket = UnixListener::bind(path).expect("a socket");
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
    socket
}

/// A connector that leads to `target` although it was allowed for another socket.
fn swapped_service(site: &Site, target: &Path) -> SocketAddr {
    let path = site.root().join("app.sock");
    let _socket = open_socket(&path);
    let addr = socket_service(site, &path);
    site.wait_status("Connector", "s", "Ready");
    wait_until("the listener", SOON, || connect(addr).is_ok());
    let link = site.root().join("link");
    symlink(target, &link).expect("a link");
    fs::rename(link, path).expect("renamed");
    addr
}

#[test]
fn a_foreign_namespace_has_no_connector_to_a_unix_socket() {
    let Some(site) = site_of_alice() else { return };
    let path = site.root().join("app.sock");
    let _socket = open_socket(&path);
    socket_service(&site, &path);
    site.wait_message("Connector", "s", "Error", DENIED);
    // Root runs it again.
    chown(site.input(), Some(0), Some(0)).expect("given back");
    site.wait_status("Connector", "s", "Ready");
    chown(site.input(), Some(ALICE), None).expect("given away");
    site.wait_message("Connector", "s", "Error", DENIED);
}

#[test]
fn a_manifest_that_others_can_write_makes_a_namespace_foreign() {
    let mut site = Site::new("root");
    let path = site.root().join("app.sock");
    let _socket = open_socket(&path);
    socket_service(&site, &path);
    site.start();
    site.wait_status("Connector", "s", "Ready");
    let manifest = site.input().join("Listener-s.yaml");
    fs::set_permissions(&manifest, fs::Permissions::from_mode(0o666)).expect("a mode");
    site.wait_message("Connector", "s", "Error", DENIED);
}

#[test]
fn nobody_has_a_connector_to_the_sockets_that_know_the_daemon() {
    let bus = Bus::system();
    let mut site = Site::new("root");
    site.start_on(&bus, "system");
    site.wait_status("Site", "root", "Ready");
    let bus = bus.address.strip_prefix("unix:path=").expect("a path");
    for path in [
        site.root().join("run/metrics.sock"),
        PathBuf::from(bus),
        "/run/dbus/system_bus_socket".into(),
        "/run/systemd/private".into(),
    ] {
        socket_service(&site, &path);
        let part = format!("{} is not for connectors", path.display());
        site.wait_message("Connector", "s", "Error", &part);
    }
}

#[test]
fn clients_of_a_connector_to_the_bus_are_not_the_daemon() {
    let bus = Bus::system();
    let mut site = Site::new("root");
    site.access(free_addr());
    site.start_on(&bus, "system");
    site.wait_status("RouterAccess", "access", "Ready");
    let path = bus.address.strip_prefix("unix:path=").expect("a path");
    let addr = swapped_service(&site, Path::new(path));
    bus.generate_link().expect("root itself may");
    let why = generate_link_at(&format!("tcp:host=127.0.0.1,port={}", addr.port()));
    let why = why.expect_err("the daemon is not its own administrator");
    assert!(why.contains("a connection of skupperd itself"), "{why}");
}

#[test]
fn clients_of_a_connector_to_metrics_sock_see_no_connections() {
    let mut site = Site::new("root");
    site.start();
    site.wait_status("Site", "root", "Ready");
    assert!(site.http("GET /connections").starts_with("HTTP/1.1 200"));
    let addr = swapped_service(&site, &site.root().join("run/metrics.sock"));
    let mut socket = connect(addr).expect("a connection");
    let request = b"GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(request).expect("a request");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[test]
fn a_foreign_namespace_takes_nothing_of_the_host() {
    let Some(site) = site_of_alice() else { return };
    let free = free_addr();
    let low = "{routingKey: l, host: 127.0.0.1, port: 917}";
    let prefix = format!(
        "{{routingKey: l, host: 127.0.0.1, port: {}, settings: {{host-prefix: 10.20.0.0/16}}}}",
        free.port()
    );
    let all = prefix.replace("host-prefix: 10.20.0.0/16", "ports: all");
    let inside = prefix.replace("host-prefix: 10.20.0.0/16", "network-namespace: \"pid:1\"");
    for (spec, part) in [
        (low, "spec.port: port 917 is below 1024"),
        (prefix.as_str(), "spec.settings[host-prefix]"),
        (&all, "spec.settings[ports]"),
        (&inside, "spec.settings[network-namespace]"),
    ] {
        site.resource("Listener", "l", spec);
        let message = site.wait_message("Listener", "l", "Error", part);
        assert!(message.contains(DENIED), "{message}");
    }
    let multi = "{host: 127.0.0.1, port: 917, strategy: {priority: {routingKeys: [l]}}}";
    site.resource("MultiKeyListener", "m", multi);
    site.wait_message("MultiKeyListener", "m", "Error", DENIED);
    let access = "{bindHost: 127.0.0.1, roles: [{name: inter-router, port: 918}]}";
    site.resource("RouterAccess", "access", access);
    site.wait_message("RouterAccess", "access", "Error", DENIED);
    for (key, value) in [
        ("service-addresses", "198.18.7.0/24"),
        ("local-amqp-port", "919"),
    ] {
        let spec = format!("{{settings: {{{key}: \"{value}\"}}}}");
        site.resource("Site", "alice", &spec);
        let message = site.wait_message("Site", "alice", "Error", key);
        assert!(message.contains(DENIED), "{message}");
    }
}

#[test]
fn a_foreign_namespace_does_not_change_the_log_of_all() {
    let Some(site) = site_of_alice() else { return };
    let spec = "{settings: {router-logging: \"trace\"}}";
    site.resource("Site", "alice", spec);
    let ready = site.wait_message("Site", "alice", "Ready", "router-logging] has no effect");
    assert!(ready.contains(DENIED), "{ready}");
    assert!(!site.log().contains("TRACE"), "{}", site.log());
}

#[test]
fn a_foreign_namespace_still_serves_listeners_and_connectors() {
    let Some(site) = site_of_alice() else { return };
    let server = Server::echo(free_addr());
    let addr = free_addr();
    site.connector("e", "e", server.addr);
    site.listener("e", "e", addr);
    wait_until("the service", SOON, || works(addr));
}

/// A file of the daemon's that Alice may not read, with a resource in it.
fn secret_manifest(site: &Site) -> PathBuf {
    let file = site.root().join("secret");
    let text = "apiVersion: skupper.io/v2alpha1\nkind: Connector\nmetadata: {name: theirs}\n\
                spec: {routingKey: theirs, host: 192.0.2.1, port: 1}\n";
    fs::write(&file, text).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
    file
}

#[test]
fn links_of_owners_are_not_followed_and_those_of_root_are() {
    let Some(site) = site_of_alice() else { return };
    let secret = secret_manifest(&site);
    let link = site.input().join("x.yaml");
    symlink(&secret, &link).expect("a link");
    lchown(&link, Some(ALICE), Some(ALICE)).expect("given away");
    let dir = site.input().join("dir");
    symlink(site.root(), &dir).expect("a link");
    lchown(&dir, Some(ALICE), Some(ALICE)).expect("given away");
    wait_until("the reason in the log", SOON, || {
        let log = site.log();
        log.contains("x.yaml is a symbolic link of user 4711")
            && log.contains("dir is a symbolic link of user 4711")
    });
    assert!(site.status("Connector", "theirs").is_none());
    lchown(&link, Some(0), Some(0)).expect("given back");
    wait_until("the resource behind root's link", SOON, || {
        site.status("Connector", "theirs").is_some()
    });
}

#[test]
fn credentials_behind_links_of_owners_are_not_used() {
    let Some(site) = site_of_alice() else { return };
    let input = site.root().join("namespaces/default/input");
    let (certificate, key) = skupper_tests::pki::ca("prod");
    let theirs = site.root().join("prod");
    fs::create_dir(&theirs).expect("a directory");
    fs::write(theirs.join("tls.crt"), certificate).expect("a file");
    fs::write(theirs.join("tls.key"), key).expect("a file");
    fs::create_dir_all(input.join("issuers")).expect("a directory");
    let mine = input.join("issuers/mine");
    symlink(&theirs, &mine).expect("a link");
    lchown(&mine, Some(ALICE), Some(ALICE)).expect("given away");
    let access = free_addr();
    let spec = format!(
        "{{bindHost: 127.0.0.1, issuer: mine, roles: [{{name: inter-router, port: {}}}]}}",
        access.port()
    );
    site.resource("RouterAccess", "access", &spec);
    site.wait_message("RouterAccess", "access", "Error", "link of user 4711");
    lchown(&mine, Some(0), Some(0)).expect("given back");
    site.wait_status("RouterAccess", "access", "Ready");
}

#[test]
fn the_daemon_writes_through_no_link_of_owners() {
    let bus = Bus::system();
    let mut site = Site::new("alice");
    let (real, theirs) = (site.input(), site.root().join("theirs"));
    fs::rename(&real, &theirs).expect("moved");
    symlink(&theirs, &real).expect("a link");
    if lchown(&real, Some(ALICE), Some(ALICE)).is_err() {
        return skip("only root gives links away");
    }
    let home = site.root().join("namespaces/default");
    chown(home, Some(ALICE), Some(ALICE)).expect("given away");
    site.start_on(&bus, "system");
    wait_until("the service", SOON, || {
        bus.property("", "", "Version").is_some()
    });
    let document = "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata: {name: l}\n\
                    spec: {routingKey: l, host: 127.0.0.1, port: 8080}\n";
    let words = ["Apply", "ss", "default", document];
    let why = bus.call(&words).expect_err("it was written");
    assert!(why.contains("link of user 4711"), "{why}");
    let left: Vec<_> = fs::read_dir(&theirs).expect("a directory").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn roots_command_follows_no_planted_links() {
    let site = Site::new("skupper");
    let home = site.root().join("namespaces/default");
    let (target, dir) = (site.root().join("nologin"), site.root().join("dir"));
    fs::create_dir(&dir).expect("a directory");
    fs::create_dir_all(home.join("internal")).expect("a directory");
    let plant = |to: &Path, link: &Path| {
        symlink(to, link).expect("a link");
        lchown(link, Some(ALICE), Some(ALICE)).is_ok()
    };
    let lock = home.join("internal/lock");
    if !plant(&target, &lock) {
        return skip("only root gives links away");
    }
    let create = ["listener", "create", "l", "8080", "--host", "127.0.0.1"];
    let why = errors(&site.skupper(&create));
    assert!(why.contains("internal/lock"), "{why}");
    assert!(!target.exists(), "the command made a file for another user");
    fs::remove_file(lock).expect("removed");
    fs::remove_dir_all(site.input()).expect("removed");
    assert!(plant(&dir, &site.input()));
    let why = errors(&site.skupper(&create));
    assert!(why.contains("link of user 4711"), "{why}");
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
    fs::remove_file(site.input()).expect("removed");
    // The list of certificates is appended to.
    site.resource("Site", "skupper", "{linkAccess: default}");
    let issued = home.join("runtime/issuers/skupper-site-ca");
    fs::create_dir_all(&issued).expect("a directory");
    assert!(plant(&target, &issued.join("issued.jsonl")));
    site.skupper(&["link", "generate", "--host", "127.0.0.1"]);
    assert!(!target.exists(), "the command made a file for another user");
}

#[test]
fn dumps_written_by_root_belong_to_root() {
    let Some(site) = site_of_alice() else { return };
    let dir = site.root().join("theirs");
    fs::create_dir(&dir).expect("a directory");
    chown(&dir, Some(ALICE), Some(ALICE)).expect("given away");
    let start = dir.join("report");
    site.ok(&["debug", "dump", start.to_str().expect("a path")]);
    let mut files = fs::read_dir(&dir).expect("a directory");
    let file = files.next().expect("a report").expect("an entry");
    assert_eq!(file.metadata().expect("metadata").uid(), 0);
}
