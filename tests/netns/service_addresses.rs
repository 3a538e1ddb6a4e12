//! Service addresses: listeners on addresses that no interface has. Each test has its own network
//! namespace.

use skupper_tests::{
    SOON,
    echo::{Server, refused, works},
    netns::{self, run},
    site::Site,
    wait_until,
};
use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::unix::fs::PermissionsExt,
    process::Command,
};

/// The local routes added by a daemon.
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
        // With another prefix the old addresses are released.
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
fn leftover_addresses_of_a_killed_daemon_are_removed() {
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
    // Restart with the same prefix,
    site.start();
    wait_until("a service address", SOON, || works(addr));
    site.kill();
    // another one,
    has(&site, "198.18.8.0/24");
    site.start();
    wait_until("the other route", SOON, || {
        routes().contains("198.18.8.0/24")
    });
    assert!(!routes().contains("198.18.7.0"), "{}", routes());
    site.kill();
    // and without a prefix.
    site.resource("Site", site.name(), "{}");
    site.start();
    // The status may be that of the previous process, so look at the routes.
    wait_until("no route", SOON, || routes().is_empty());
    site.wait_status("Site", "here", "Ready");
}

#[test]
fn unavailable_addresses_are_reported() {
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
            "10.9.0.0/16 contains 10.9.8.7, which an interface",
        ),
        ("8.8.8.0/24", "is not part of a range for private use"),
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
    // The daemon leaves the route of another program alone, also after a restart.
    site.kill();
    has(&site, "198.18.9.0/24");
    site.start();
    site.wait_status("Site", "here", "Ready");
    let mut ip = Command::new("ip");
    let words = ["route", "show", "table", "local", "198.18.7.0/24"];
    let output = ip.args(words).output().expect("ip");
    assert!(!output.stdout.is_empty());
    // Without CAP_NET_ADMIN the listener gets no service address.
    assert_eq!(site.stop(), Some(0));
    site.start_through(&["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"]);
    site.wait_message("Site", "here", "Error", "Operation not permitted");
}

/// The entries of the hosts file of a namespace.
fn names(site: &Site, namespace: &str) -> Vec<(IpAddr, Vec<String>)> {
    let file = site.root().join("run/hosts").join(namespace);
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let ip = words.next().expect("an address").parse();
        (ip.expect("an address"), words.collect())
    };
    text.lines().map(line).collect()
}

fn ip_of(site: &Site, name: &str) -> Option<IpAddr> {
    let names = names(site, "default").into_iter();
    let mut found = names.filter(|(_, names)| names.iter().any(|n| n == name));
    found.next().map(|(ip, _)| ip)
}

fn named(site: &Site, name: &str, host: &str) {
    let spec = format!("{{routingKey: echo, host: {host}, port: 443}}");
    site.resource("Listener", name, &spec);
}

#[test]
fn clients_reach_services_by_address_and_name() {
    if !netns::enter() {
        return;
    }
    let (mut site, _server) = site("198.18.7.0/24");
    named(&site, "db", "db");
    named(&site, "web", "web.shop");
    named(&site, "seven", "198.18.7.7");
    site.start();
    wait_until("names", SOON, || names(&site, "default").len() == 3);
    let ip = ip_of(&site, "db").expect("an address");
    assert_eq!(ip_of(&site, "db.default.skupper.internal"), Some(ip));
    assert_eq!(
        ip_of(&site, "seven.default.skupper.internal"),
        Some([198, 18, 7, 7].into())
    );
    for ip in names(&site, "default").into_iter().map(|(ip, _)| ip) {
        wait_until("a service address", SOON, || works((ip, 443).into()));
    }
    // Programs resolve names through the hosts file.
    let file = site.root().join("run/hosts/default");
    for (path, mode) in [
        (file.as_path(), 0o644),
        (file.parent().expect("one"), 0o755),
    ] {
        let metadata = fs::metadata(path).expect("the hosts file");
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path:?}");
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of its own");
    run("mount", &["--make-rprivate", "/"]);
    let path = file.to_str().expect("a path");
    run("mount", &["--bind", path, "/etc/hosts"]);
    for name in ["db", "web.shop", "web.shop.default.skupper.internal"] {
        let mut found = (name, 443).to_socket_addrs().expect("a name");
        assert!(works(found.next().expect("an address")), "{name}");
    }
}

#[test]
fn a_service_keeps_its_address() {
    if !netns::enter() {
        return;
    }
    let (mut site, _server) = site("198.18.7.0/29");
    let hosts: Vec<String> = (0..5).map(|n| format!("service{n}")).collect();
    for host in &hosts {
        named(&site, host, host);
    }
    // One of the six services requests a fixed address.
    named(&site, "explicit", "198.18.7.3");
    site.start();
    wait_until("names", SOON, || names(&site, "default").len() == 6);
    let ips = |site: &Site| hosts.iter().map(|h| ip_of(site, h)).collect::<Vec<_>>();
    let first = ips(&site);
    for ip in first.iter().flatten() {
        wait_until("a service", SOON, || works((*ip, 443).into()));
    }
    named(&site, "more", "more");
    site.wait_message(
        "Listener",
        "more",
        "Error",
        "spec.settings[service-addresses]: no address of 198.18.7.0/29 is left",
    );
    // Addresses stay after a restart, in another order, and while one service is absent.
    site.remove("Listener", "more");
    site.kill();
    site.remove("Listener", "service0");
    site.start();
    wait_until("names", SOON, || names(&site, "default").len() == 5);
    named(&site, "service0", "service0");
    wait_until("names", SOON, || names(&site, "default").len() == 6);
    assert_eq!(ips(&site), first);
    // The address of a removed service is reused when no other is free.
    site.remove("Listener", "service4");
    named(&site, "more", "more");
    wait_until("an address", SOON, || ip_of(&site, "more") == first[4]);
    wait_until("a service", SOON, || {
        works((first[4].expect("an address"), 443).into())
    });
    // Change the prefix, remove it, and stop the daemon.
    has(&site, "fd12:3456:789a::/64");
    wait_until("the other prefix", SOON, || {
        ip_of(&site, "service0").is_some_and(|ip| ip.is_ipv6() && works((ip, 443).into()))
    });
    site.resource("Site", site.name(), "{}");
    let file = site.root().join("run/hosts/default");
    wait_until("no names", SOON, || !file.exists());
    has(&site, "198.18.7.0/24");
    wait_until("names", SOON, || names(&site, "default").len() == 6);
    assert_eq!(site.stop(), Some(0));
    assert!(!file.exists());
}

#[test]
fn namespaces_share_a_prefix_and_no_address() {
    if !netns::enter() {
        return;
    }
    let (mut site, server) = site("198.18.7.0/28");
    let other = site.root().join("namespaces/other/input/resources");
    fs::create_dir_all(&other).expect("a directory");
    let document = |kind: &str, name: &str, spec: &str| {
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        fs::write(other.join(format!("{kind}-{name}.yaml")), text).expect("a manifest");
    };
    document(
        "Site",
        "other",
        "{settings: {service-addresses: 198.18.7.0/28}}",
    );
    let to = format!(
        "{{routingKey: echo, host: 127.0.0.1, port: {}}}",
        server.addr.port()
    );
    document("Connector", "echo", &to);
    for n in 0..7 {
        let (name, host) = (format!("l{n}"), format!("service{n}"));
        named(&site, &name, &host);
        let spec = format!("{{routingKey: echo, host: {host}, port: 443}}");
        document("Listener", &name, &spec);
    }
    site.start();
    let all = || [names(&site, "default"), names(&site, "other")].concat();
    wait_until("names", SOON, || all().len() == 14);
    let mut ips: Vec<IpAddr> = all().into_iter().map(|(ip, _)| ip).collect();
    for ip in &ips {
        wait_until("a service", SOON, || works((*ip, 443).into()));
    }
    ips.sort();
    ips.dedup();
    assert_eq!(ips.len(), 14);
}

#[test]
fn a_network_that_the_host_has_a_route_to_is_not_taken() {
    if !netns::enter() {
        return;
    }
    run(
        "ip",
        &["link", "add", "v0", "type", "veth", "peer", "name", "v1"],
    );
    run("ip", &["addr", "add", "203.0.113.1/24", "dev", "v0"]);
    run("ip", &["link", "set", "v0", "up"]);
    run("ip", &["link", "set", "v1", "up"]);
    for words in ["default", "0.0.0.0/1", "10.0.0.0/8", "198.18.9.64/26"] {
        run("ip", &["route", "add", words, "via", "203.0.113.2"]);
    }
    let (mut site, _server) = site("10.1.0.0/16");
    site.start();
    let part = "10.1.0.0/16 overlaps 10.0.0.0/8, to which this host has a route";
    site.wait_message("Site", "here", "Error", part);
    has(&site, "198.18.9.0/24");
    site.wait_message("Site", "here", "Error", "overlaps 198.18.9.64/26");
    assert_eq!(routes(), "");
    // Default routes lead everywhere.
    has(&site, "198.18.7.0/24");
    site.wait_status("Site", "here", "Ready");
}
