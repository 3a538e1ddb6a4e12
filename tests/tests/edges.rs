//! Edge sites, held against the rows S6, S7 and L11 of the checklist and section 10.11 of the protocol.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::{Site, echo, with_edge},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

/// An echo server behind a connector of one site and a listener of another, by this routing key.
fn service(at: &Site, from: &Site, key: &str) -> (Server, SocketAddr) {
    let server = Server::echo(free_addr());
    let addr = free_addr();
    at.connector(key, key, server.addr);
    from.listener(key, key, addr);
    wait_until("the service to work", SOON, || works(addr));
    (server, addr)
}

/// Sends this much, half-closes, and wants all of it back.
fn back_and_forth(addr: SocketAddr, size: usize) {
    let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let mut socket = connect(addr).expect("a connection");
    let mut writer = socket.try_clone().expect("a socket");
    let bytes = sent.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&bytes).expect("sent");
        writer.shutdown(Shutdown::Write).expect("half-closed");
    });
    let mut back = Vec::new();
    socket.read_to_end(&mut back).expect("everything back");
    sender.join().expect("sent");
    assert!(back == sent, "{} of {size} came back", back.len());
}

#[test]
fn s6_edge_site_carries_services_both_ways() {
    let (a, e) = with_edge();
    let (_one, from_edge) = service(&a, &e, "at-interior");
    let (_two, to_edge) = service(&e, &a, "at-edge");
    for addr in [from_edge, to_edge] {
        back_and_forth(addr, 20_000_000);
        // An abrupt end of a client leaves the others alone.
        for _ in 0..10 {
            let mut socket = connect(addr).expect("a connection");
            socket.write_all(b"abc").expect("sent");
            let linger = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Linger, &linger)
                .expect("linger");
        }
        assert!(works(addr));
    }
    e.wait_status("Listener", "at-interior", "Ready");
    e.wait_status("Connector", "at-edge", "Ready");
    a.wait_status("Connector", "at-interior", "Ready");
    let status =
        |site: &Site, kind, name| site.status(kind, name).expect("a status")["status"].clone();
    let link = status(&e, "Link", "to-a");
    assert_eq!(link["remoteSiteName"], "a", "{link:#}");
    let site = status(&a, "Site", "a");
    assert_eq!(link["remoteSiteId"], site["network"][0]["id"], "{link:#}");
    assert_eq!(site["sitesInNetwork"], 2, "{site:#}");
    let edge = &site["network"][1];
    assert_eq!(edge["name"], "e", "{site:#}");
    assert_eq!(edge["links"][0]["remoteSiteName"], "a", "{site:#}");
    let network = status(&e, "Site", "e")["network"].clone();
    assert_eq!(network[1]["name"], "a", "{network:#}");
}

#[test]
fn s6_link_access_of_an_edge_site_is_refused_with_a_message() {
    let (a, e) = with_edge();
    let (_server, addr) = service(&a, &e, "echo");
    e.resource("RouterAccess", "in", "{roles: [{name: inter-router}]}");
    let text = "Edge sites cannot accept incoming links from remote sites";
    let message = e.wait_status("RouterAccess", "in", "Error");
    assert!(message.contains(text), "{message}");
    e.resource("Site", "e", "{edge: true, linkAccess: default}");
    let message = e.wait_status("Site", "e", "Error");
    assert!(message.contains(text), "{message}");
    assert!(works(addr), "it stays as it was");
}

#[test]
fn s7_edge_with_ha_is_refused_and_nothing_changes() {
    let (a, e) = with_edge();
    let (_server, addr) = service(&a, &e, "echo");
    let mut socket = connect(addr).expect("a connection");
    e.resource("Site", "e", "{edge: true, ha: true}");
    let message = e.wait_status("Site", "e", "Error");
    assert!(
        message.contains("edge sites cannot have HA enabled"),
        "{message}"
    );
    assert_eq!(
        round_trip(&mut socket, b"still").expect("an answer"),
        b"still"
    );
    e.wait_status("Link", "to-a", "Ready");
}

#[test]
fn l11_an_edge_site_without_an_edge_endpoint_says_so() {
    let (_a, e) = with_edge();
    let spec = "{endpoints: [{name: inter-router, host: 127.0.0.1, port: \"55671\"}], \
                tlsCredentials: to-a}";
    e.resource("Link", "interior-only", spec);
    let message = e.wait_status("Link", "interior-only", "Error");
    assert!(
        message.contains("no endpoint for the role of this site, edge"),
        "{message}"
    );
    e.wait_status("Link", "to-a", "Ready");
}

#[test]
fn an_edge_that_goes_takes_its_addresses_with_it_at_once() {
    let (a, mut e) = with_edge();
    let (mut b, to_b) = (Site::new("b"), free_addr());
    b.access(to_b);
    a.link_to(&b, to_b, 1);
    b.start();
    let (_server, addr) = echo(&e, &b);
    let mut socket = connect(addr).expect("a connection");
    assert!(round_trip(&mut socket, b"open").is_ok());
    e.kill();
    let begin = Instant::now();
    wait_until("the listener to close", SOON, || refused(addr));
    // Two routers further, and without waiting for any silence to be noticed.
    assert!(
        begin.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begin.elapsed()
    );
    assert!(round_trip(&mut socket, b"gone").is_err());
    e.start();
    wait_until("the service to be back", SOON, || works(addr));
}

#[test]
fn edges_of_two_interior_sites_reach_each_other() {
    let (a, e) = with_edge();
    let (mut b, mut f) = (Site::new("b"), Site::edge("f"));
    let (to_b, edges) = (free_addr(), free_addr());
    b.access_with_edges(to_b, edges);
    a.link_to(&b, to_b, 1);
    f.link_to(&b, to_b, 1);
    b.start();
    f.start();
    let (_one, from_f) = service(&e, &f, "at-e");
    let (_two, from_e) = service(&f, &e, "at-f");
    back_and_forth(from_f, 20_000_000);
    back_and_forth(from_e, 20_000_000);
    // Everybody in between sees all four.
    for site in [&a, &b] {
        wait_until("four sites", SOON, || {
            let status = site.status("Site", site.name()).expect("a status");
            let sites = status["status"]["network"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let mut names: Vec<_> = sites.iter().filter_map(|s| s["name"].as_str()).collect();
            names.sort_unstable();
            names == ["a", "b", "e", "f"]
        });
    }
    // Either interior may start again.
    b.kill();
    b.start();
    wait_until("both ways again", SOON, || works(from_f) && works(from_e));
}

#[test]
fn an_edge_with_two_links_uses_the_cheaper_and_moves_to_the_other() {
    let (mut a, mut e) = with_edge();
    let (mut b, to_b) = (Site::new("b"), free_addr());
    b.access_with_edges(to_b, free_addr());
    e.link_to(&b, to_b, 5);
    b.start();
    e.wait_status("Link", "to-b", "Ready");
    let servers: Vec<Server> = [&a, &b]
        .map(|site| {
            let server = Server::holds(free_addr(), if site.name() == "a" { "a" } else { "b" });
            site.connector("where", "where", server.addr);
            server
        })
        .into();
    let addr = free_addr();
    e.listener("where", "where", addr);
    let ask = || -> Option<u8> {
        let mut first = [0];
        connect(addr).ok()?.read_exact(&mut first).ok()?;
        Some(first[0])
    };
    wait_until("the service", SOON, || ask() == Some(b'a'));
    let mut held = connect(addr).expect("a connection");
    held.read_exact(&mut [0]).expect("its text");
    a.kill();
    wait_until("the other link", SOON, || ask() == Some(b'b'));
    // And back, when the cheaper one is there again.
    a.start();
    wait_until("the cheaper link", SOON, || ask() == Some(b'a'));
    drop(servers);
    e.stop();
}

#[test]
fn an_edge_on_the_port_of_interior_routers_says_what_is_wrong() {
    let (a, e) = with_edge();
    let link = std::fs::read_to_string(e.input().join("link-a.yaml")).expect("a link");
    let port = |role: &str| {
        let access = a.status("RouterAccess", "access").expect("an access");
        let roles = access["spec"]["roles"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = roles.iter().find(|r| r["name"] == role).expect("a role")["port"].clone();
        found.to_string()
    };
    e.file(
        "link-a.yaml",
        &link.replace(&port("edge"), &port("inter-router")),
    );
    wait_until("the link to fail", SOON, || {
        let status = e.status("Link", "to-a").expect("a status")["status"].clone();
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        status["status"] != "Ready" && message.contains("does not serve edges")
    });
}
