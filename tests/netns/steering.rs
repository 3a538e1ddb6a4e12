//! Listeners steered by the kernel. Each test has its own network namespace.

#![cfg(feature = "ebpf")]

use crate::loopback;
use skupper_tests::{
    SOON,
    echo::{Server, connect, read_to_close, refused, round_trip, wait_reads, works},
    netns,
    site::Site,
    skip::skip,
    wait_until,
};
use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

pub(crate) const ON: &str = "steering is on";

pub(crate) const OFF: &str = "steering is off";

/// A site whose daemon steers, in a network namespace of its own. `None`, after a skip, without
/// eBPF.
pub(crate) fn steered() -> Option<Site> {
    if !netns::enter() {
        return None;
    }
    let mut site = Site::new("here");
    site.start();
    wait_until("the daemon to say which way", SOON, || {
        site.log().contains(ON) || site.log().contains(OFF)
    });
    if site.log().contains(ON) {
        return Some(site);
    }
    // root in a container may lack the right to load programs; any other error fails the test.
    let log = site.log();
    assert!(
        log.contains("os error 1") || log.contains("missing"),
        "{log}"
    );
    skip(&format!("no BPF programs here: {log}"));
    None
}

/// The value of a metric, without labels.
pub(crate) fn metric(site: &Site, name: &str) -> u64 {
    let text = site.http("GET /metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().expect("a number")
}

/// The sockets of the daemon that `ss` lists with these arguments.
pub(crate) fn sockets(site: &Site, args: &[&str]) -> usize {
    let output = std::process::Command::new("ss").args(args).output();
    let output = output.expect("ss");
    let text = String::from_utf8_lossy(&output.stdout);
    let of_daemon = format!("pid={},", site.pid());
    text.lines().filter(|l| l.contains(&of_daemon)).count()
}

#[test]
fn echo_over_ipv4_and_ipv6() {
    let Some(site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let v4 = loopback(7, 80);
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 81));
    for (name, addr) in [("v4", v4), ("v6", v6), ("any", any)] {
        site.listener(name, "echo", addr);
    }
    for addr in [v4, v6, (Ipv6Addr::LOCALHOST, 81).into()] {
        wait_until("an echo", SOON, || works(addr));
    }
    // Only the listener's address is steered, not other addresses, ports or families.
    for addr in [loopback(8, 80), loopback(7, 79), loopback(7, 81)] {
        assert!(refused(addr), "{addr}");
    }
    assert_eq!(metric(&site, "skupper_steering_enabled"), 1);
    assert!(metric(&site, "skupper_steering_hits_total") >= 3);
    assert!(metric(&site, "skupper_steering_misses_total") >= 3);
    site.remove("Listener", "v4");
    wait_until("the listener to close", SOON, || refused(v4));
    assert!(works(v6));
    site.remove("Connector", "echo");
    wait_until("the others to close", SOON, || refused(v6));
    site.connector("echo", "echo", server.addr);
    wait_until("the others to open", SOON, || works(v6));
}

#[test]
fn many_connections_are_whole() {
    let Some(site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(1, 80);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    let mut held = Vec::new();
    for n in 0..200 {
        let mut socket = connect(addr).expect("a connection");
        let text = format!("number {n}");
        let back = round_trip(&mut socket, text.as_bytes()).expect("an echo");
        assert_eq!(back, text.as_bytes());
        held.push(socket);
    }
    // A removed listener ends its connections.
    site.remove("Listener", "echo");
    for socket in &mut held {
        assert!(!matches!(socket.read(&mut [0; 1]), Ok(1..)));
    }
    assert!(refused(addr));
}

#[test]
fn the_exact_address_wins_over_any_address() {
    let Some(site) = steered() else { return };
    let (all, one) = (
        Server::says(loopback(1, 7000), "all"),
        Server::says(loopback(1, 7001), "one"),
    );
    site.connector("all", "all", all.addr);
    site.connector("one", "one", one.addr);
    let port = 80;
    site.listener("all", "all", (Ipv4Addr::UNSPECIFIED, port).into());
    let heard = |addr| read_to_close(addr).unwrap_or_default();
    let (here, there) = (loopback(7, port), loopback(8, port));
    wait_until("all addresses", SOON, || heard(here) == "all");
    // Two listeners with one address are an error within a namespace; namespaces are independent.
    let other = site.root().join("namespaces/other/input/resources");
    let write = |kind: &str, name: &str, spec: &str| {
        std::fs::create_dir_all(&other).expect("a directory");
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        std::fs::write(other.join(format!("{name}.yaml")), text).expect("a manifest");
    };
    write("Site", "other", "{}");
    write(
        "Connector",
        "c",
        "{routingKey: one, host: 127.0.0.1, port: 7001}",
    );
    write(
        "Listener",
        "l",
        "{routingKey: one, host: 127.0.0.7, port: 80}",
    );
    wait_until("the exact address", SOON, || heard(here) == "one");
    assert_eq!(heard(there), "all");
    std::fs::remove_file(other.join("l.yaml")).expect("removed");
    wait_until("all addresses again", SOON, || heard(here) == "all");
}

#[test]
fn sockets_of_other_programs_are_not_touched() {
    let Some(site) = steered() else { return };
    let other = Server::says(loopback(9, 80), "other");
    let server = Server::says(loopback(1, 7000), "ours");
    site.connector("ours", "ours", server.addr);
    site.listener("ours", "ours", loopback(7, 80));
    wait_reads(loopback(7, 80), "ours");
    assert_eq!(read_to_close(other.addr).expect("the other"), "other");
    // Other programs cannot take the address of a listener.
    let error = TcpListener::bind(loopback(7, 80)).expect_err("bound");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let error = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect_err("bound");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn busy_addresses_are_reported_alike_with_and_without_steering() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "ours");
    let busy = Server::says(loopback(1, 80), "theirs");
    let mut plain = Site::new("plain");
    plain.start_with(&["--steering", "off"]);
    let mut messages = Vec::new();
    for site in [&site, &plain] {
        site.connector("ours", "ours", server.addr);
        site.listener("ours", "ours", busy.addr);
        messages.push(site.wait_status("Listener", "ours", "Error"));
        assert_eq!(read_to_close(busy.addr).expect("theirs"), "theirs");
    }
    assert!(plain.log().contains(OFF));
    assert!(
        messages[0].contains("127.0.0.1:80: binding: Address already in use"),
        "{messages:?}"
    );
    assert_eq!(messages[0], messages[1]);
    drop(plain);
    let addr = busy.addr;
    drop(busy);
    wait_reads(addr, "ours");
    site.wait_status("Listener", "ours", "Ready");
}

/// 127.7.7.`octet`, which is in the prefix of the test.
fn in_prefix(octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 7, 7, octet), port).into()
}

#[test]
fn ports_of_other_programs_are_taken_only_when_free() {
    let Some(mut site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "ours");
    let busy = Server::says(loopback(7, 80), "theirs");
    let within = Server::says(in_prefix(8, 80), "theirs");
    site.connector("ours", "ours", server.addr);
    site.listener("busy", "ours", busy.addr);
    site.listener("free", "ours", loopback(8, 80));
    let settings = "settings: {host-prefix: 127.7.7.0/24, ports: '81'}";
    let spec = format!("{{routingKey: ours, host: 127.0.0.9, port: 81, {settings}}}");
    site.resource("Listener", "prefix", &spec);
    let ours = |addr: SocketAddr| read_to_close(addr).is_ok_and(|text| text == "ours");
    let inside = Server::says(in_prefix(9, 81), "late");
    for restart in 0..3 {
        wait_until("the others", SOON, || ours(loopback(8, 80)));
        wait_until("the condition", SOON, || {
            let message = site.wait_status("Listener", "busy", "Error");
            message.contains("127.0.0.7:80: binding: Address already in use")
        });
        for (addr, text) in [
            (busy.addr, "theirs"),
            (within.addr, "theirs"),
            (inside.addr, "late"),
        ] {
            assert_eq!(read_to_close(addr).expect("an answer"), text, "{addr}");
        }
        match restart {
            0 => assert_eq!(site.stop(), Some(0)),
            1 => site.kill(),
            _ => break,
        }
        site.start();
    }
    drop((busy, inside));
    wait_until("what was busy", SOON, || ours(loopback(7, 80)));
    wait_until("all of the prefix", SOON, || ours(in_prefix(9, 81)));
    site.wait_status("Listener", "busy", "Ready");
}

#[test]
fn instances_do_not_shadow_each_other() {
    let Some(first) = steered() else { return };
    let addr = loopback(7, 80);
    let mut servers = Vec::new();
    let mut serve = |site: &Site, text: &'static str| {
        let port = 7000 + servers.len() as u16;
        let server = Server::says(loopback(1, port), text);
        site.connector(text, text, server.addr);
        site.listener(text, text, addr);
        servers.push(server);
    };
    serve(&first, "first");
    wait_reads(addr, "first");
    let (mut second, mut third) = (Site::new("second"), Site::new("third"));
    second.start();
    third.start_with(&["--steering", "off"]);
    for (site, text) in [(&second, "second"), (&third, "third")] {
        serve(site, text);
        site.wait_message("Listener", text, "Error", "Address already in use");
        assert_eq!(read_to_close(addr).expect("the first"), "first");
    }
    drop(third);
    assert_eq!(sockets(&first, &["-Hltnp", "sport", "=", ":80"]), 0);
    // After the first listener ends, the second site gets the address,
    drop(first);
    wait_reads(addr, "second");
    // and after the second one any program can take it.
    drop(second);
    assert!(refused(addr));
    drop(Server::says(addr, "anybody"));
}

#[test]
fn a_killed_daemon_leaves_nothing_and_recovers_all() {
    let Some(mut site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(7, 80);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    let mut open = connect(addr).expect("a connection");
    round_trip(&mut open, b"x").expect("an echo");
    site.kill();
    assert!(refused(addr));
    let other = Server::says(addr, "another");
    assert_eq!(read_to_close(addr).expect("another"), "another");
    drop(other);
    site.start();
    wait_until("an echo", SOON, || works(addr));
    assert_eq!(site.log().matches(ON).count(), 2);
}

#[test]
fn without_the_capability_listeners_use_sockets() {
    let Some(mut site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(7, 8080);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    assert_eq!(site.stop(), Some(0));
    for (without, missing) in [
        ("-bpf,-sys_admin", "missing CAP_BPF\""),
        ("-net_admin,-sys_admin", "missing CAP_NET_ADMIN\""),
        ("-all", "missing CAP_BPF, CAP_NET_ADMIN"),
    ] {
        site.start_through(&["setpriv", "--bounding-set", without, "--inh-caps", "-all"]);
        wait_until("an echo", SOON, || works(addr));
        assert!(site.log().contains(missing), "{missing}: {}", site.log());
        assert_eq!(metric(&site, "skupper_steering_enabled"), 0);
        assert!(sockets(&site, &["-Hltnp", "sport", "=", ":8080"]) > 0);
        assert_eq!(site.stop(), Some(0));
    }
}

#[test]
fn a_site_can_turn_steering_off() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "here");
    site.connector("here", "here", server.addr);
    let addr = loopback(7, 80);
    site.listener("here", "here", addr);
    let heard = || read_to_close(addr).is_ok_and(|t| t == "here");
    let listening = || sockets(&site, &["-Hltnp", "sport", "=", ":80"]);
    wait_until("the listener", SOON, heard);
    assert_eq!(listening(), 0);
    for (steering, own) in [("off", true), ("auto", false)] {
        let spec = format!("{{settings: {{steering: \"{steering}\"}}}}");
        site.resource("Site", "here", &spec);
        wait_until(steering, SOON, || (listening() > 0) == own && heard());
    }
    site.resource("Site", "here", "{settings: {steering: fast}}");
    site.wait_message("Site", "here", "Error", "spec.settings[steering]");
    assert!(heard());
}
