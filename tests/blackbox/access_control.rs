//! Access control: the users that a listener admits and the sites that a connector serves.

use nix::unistd::geteuid;
use skupper_tests::{
    SOON,
    echo::{Server, read_to_close, reads},
    free_addr, free_port,
    site::{Site, linked},
    wait_until,
};
use std::{net::SocketAddr, process::Command};

/// A user id without an account.
const STRANGER: u32 = 3_999_999_999;

fn listener(site: &Site, name: &str, addr: SocketAddr, users: &str) {
    let (host, port) = (addr.ip(), addr.port());
    let settings = format!("settings: {{allow-users: \"{users}\"}}");
    let spec = format!("{{routingKey: key, host: \"{host}\", port: {port}, {settings}}}");
    site.resource("Listener", name, &spec);
}

fn connector(site: &Site, name: &str, server: &Server, sites: &str) {
    let port = server.addr.port();
    let settings = format!("settings: {{allow-sites: \"{sites}\"}}");
    let spec = format!("{{routingKey: key, host: 127.0.0.1, port: {port}, {settings}}}");
    site.resource("Connector", name, &spec);
}

fn hear_as(user: u32, addr: SocketAddr) -> String {
    let script = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", addr.ip(), addr.port());
    let output = Command::new("setpriv")
        .args([
            &format!("--reuid={user}"),
            "--clear-groups",
            "bash",
            "-c",
            &script,
        ])
        .output()
        .expect("setpriv runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a connection is accepted and reset.
fn denied(addr: SocketAddr) -> bool {
    read_to_close(addr).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn a_listener_admits_only_the_users_it_names() {
    let mut a = Site::new("a");
    a.start();
    let server = Server::says(free_addr(), "served");
    a.connector("key", "key", server.addr);
    let us = geteuid().as_raw();
    let (ours, theirs) = (free_addr(), free_addr());
    let ours6 = SocketAddr::new("::1".parse().expect("an address"), free_port());
    listener(&a, "ours", ours, &format!("{STRANGER}, {us}"));
    listener(&a, "ours6", ours6, &us.to_string());
    listener(&a, "theirs", theirs, &STRANGER.to_string());
    for addr in [ours, ours6] {
        wait_until("to be let in", SOON, || reads(addr, "served"));
    }
    wait_until("to be denied", SOON, || denied(theirs));
    let before = server.accepted.load(std::sync::atomic::Ordering::SeqCst);
    for _ in 0..20 {
        assert!(denied(theirs));
    }
    let after = server.accepted.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(after, before, "the server has not heard of them");
    let log = a.log();
    let line = log.lines().find(|l| l.contains("client denied by policy"));
    let line = line.expect("a line for who looks into it");
    for part in ["key", &format!("user=\"{us}\""), "client=\"127.0.0.1:"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // A thousand denials are not a thousand log lines.
    assert!(log.matches("client denied by policy").count() <= 3, "{log}");
    if geteuid().is_root() {
        assert_eq!(hear_as(STRANGER, theirs), "served");
        assert_eq!(hear_as(STRANGER, ours), "served");
        assert_eq!(hear_as(STRANGER - 1, ours), "");
        assert_eq!(hear_as(STRANGER - 1, ours6), "");
    }
    // The setting takes effect while the listener is open.
    listener(&a, "theirs", theirs, &us.to_string());
    wait_until("to be let in", SOON, || reads(theirs, "served"));
    listener(&a, "theirs", theirs, "no-such-user");
    a.wait_message("Listener", "theirs", "Error", "there is no user");
}

#[test]
fn a_connector_serves_only_the_sites_it_names() {
    let (a, b) = linked();
    let (closed, open) = (
        Server::says(free_addr(), "closed"),
        Server::says(free_addr(), "open"),
    );
    let (here, there) = (free_addr(), free_addr());
    a.listener("here", "key", here);
    b.listener("there", "key", there);
    connector(&a, "closed", &closed, "b, c");
    wait_until("the other site's to be served", SOON, || {
        reads(there, "closed")
    });
    // Each site opens its listener by itself: until then this one refuses connections.
    wait_until("this site's to be denied", SOON, || denied(here));
    for _ in 0..10 {
        assert!(denied(here) && reads(there, "closed"));
    }
    connector(&a, "closed", &closed, "a");
    wait_until("this site's to be served", SOON, || reads(here, "closed"));
    for _ in 0..10 {
        assert!(denied(there) && reads(here, "closed"));
    }
    let log = a.log();
    for site in ["a", "b"] {
        let of = format!("site=\"{site}\"");
        let line = |l: &&str| l.contains("site denied by policy") && l.contains(&of);
        assert!(log.lines().any(|l| line(&l)), "{of}: {log}");
    }
    // A client denied by one connector is served by another.
    a.connector("open", "key", open.addr);
    wait_until("the open one", SOON, || reads(there, "open"));
    for _ in 0..10 {
        assert!(reads(there, "open") && !denied(here));
    }
    connector(&a, "closed", &closed, " , ");
    a.wait_message("Connector", "closed", "Error", "lists no name");
}
