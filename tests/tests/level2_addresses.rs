//! Service addresses: listeners on addresses that no interface has, each test in a network
//! namespace of its own.

use skupper_tests::{
    SOON,
    echo::{Server, refused, works},
    netns::{self, run},
    site::Site,
    wait_until,
};
use std::{net::SocketAddr, process::Command};

/// The local routes that a daemon has made.
fn routes() -> String {
    let mut text = String::new();
    for family in ["-4", "-6"] {
        let words = [family, "route", "show", "table", "local", "proto", "83"];
        let output = Command::new("ip").args(words).output().expect("ip");
        text += &String::from_utf8_lossy(&output.stdout);
    }
    text
}

fn has(site: &Site, prefix: &str) {
    let spec = format!("{{settings: {{service-addresses: \"{prefix}\"}}}}");
    site.resource("Site", site.name(), &spec);
}

/// A site with these addresses, and an echo server behind its connector.
fn site(prefix: &str) -> (Site, Server) {
    let site = Site::new("here");
    has(&site, prefix);
    let server = Server::echo(([127, 0, 0, 1], 7000).into());
    site.connector("echo", "echo", server.addr);
    (site, server)
}

#[test]
fn services_have_addresses_of_their_own_and_the_same_port() {
    if !netns::enter() {
        return;
    }
    for steering in ["auto", "off"] {
        let (mut site, _server) = site("198.18.7.0/24");
        let addrs: Vec<SocketAddr> = (1..=100)
            .map(|n| SocketAddr::from(([198, 18, 7, n], 443)))
            .collect();
        for (n, addr) in addrs.iter().enumerate() {
            site.listener(&format!("l{n}"), "echo", *addr);
        }
        site.start_with(&["--steering", steering]);
        for addr in &addrs {
            wait_until("a service address", SOON, || works(*addr));
        }
        let none = SocketAddr::from(([198, 18, 7, 200], 443));
        assert!(refused(none));
        // Other addresses, and the old ones are nobody's.
        has(&site, "fd12:3456:789a::/64");
        let addr: SocketAddr = "[fd12:3456:789a::7]:443".parse().expect("an address");
        site.listener("v6", "echo", addr);
        wait_until("a service address of IPv6", SOON, || works(addr));
        assert!(!routes().contains("198.18.7.0"), "{}", routes());
        assert_eq!(site.stop(), Some(0));
        assert_eq!(routes(), "");
    }
}

#[test]
fn what_a_killed_daemon_left_is_removed_by_its_next_life() {
    if !netns::enter() {
        return;
    }
    let (mut site, _server) = site("198.18.7.0/24");
    let addr = SocketAddr::from(([198, 18, 7, 1], 443));
    site.listener("echo", "echo", addr);
    site.start();
    wait_until("a service address", SOON, || works(addr));
    site.kill();
    assert!(routes().contains("198.18.7.0/24"), "{}", routes());
    // The same again,
    site.start();
    wait_until("a service address", SOON, || works(addr));
    site.kill();
    // others,
    has(&site, "198.18.8.0/24");
    site.start();
    wait_until("the other route", SOON, || {
        routes().contains("198.18.8.0/24")
    });
    assert!(!routes().contains("198.18.7.0"), "{}", routes());
    site.kill();
    // and none.
    site.resource("Site", site.name(), "{}");
    site.start();
    site.wait_status("Site", "here", "Ready");
    assert_eq!(routes(), "");
}

#[test]
fn addresses_that_can_not_be_had_are_said() {
    if !netns::enter() {
        return;
    }
    run("ip", &["addr", "add", "10.9.8.7/24", "dev", "lo"]);
    run(
        "ip",
        &["route", "add", "local", "198.18.7.0/24", "dev", "lo"],
    );
    let mut site = Site::new("here");
    site.start();
    for (prefix, why) in [
        (
            "10.9.0.0/16",
            "10.9.0.0/16 has 10.9.8.7, which an interface",
        ),
        ("8.8.8.0/24", "not of a range for private use"),
        (
            "198.18.7.0/24",
            "adding the local route of 198.18.7.0/24: File exists",
        ),
    ] {
        has(&site, prefix);
        wait_until(why, SOON, || {
            let message = site.wait_status("Site", "here", "Error");
            message.contains(why) && message.contains("spec.settings[service-addresses]")
        });
    }
    // Another program's route is left to it, by the next life too.
    site.kill();
    has(&site, "198.18.9.0/24");
    site.start();
    site.wait_status("Site", "here", "Ready");
    let mut ip = Command::new("ip");
    let words = ["route", "show", "table", "local", "198.18.7.0/24"];
    let output = ip.args(words).output().expect("ip");
    assert!(!output.stdout.is_empty());
    // Nor has who may not change routes any.
    assert_eq!(site.stop(), Some(0));
    site.start_by(&["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]);
    let message = site.wait_status("Site", "here", "Error");
    assert!(message.contains("Operation not permitted"), "{message}");
}
