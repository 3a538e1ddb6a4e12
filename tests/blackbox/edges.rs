//! Edge sites: services in both directions, failover, and refused configurations.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, refused, round_trip, works},
    free_addr, resident,
    site::{Site, echo, with_edge},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

/// An echo server behind a connector at one site and a listener at another.
fn service(at: &Site, from: &Site, key: &str) -> (Server, SocketAddr) {
    let server = Server::echo(free_addr());
    let addr = free_addr();
    at.connector(key, key, server.addr);
    from.listener(key, key, addr);
    wait_until("the service to work", SOON, || works(addr));
    (server, addr)
}

/// Sends `size` bytes, half-closes, and expects all of them back.
fn back_and_forth(addr: SocketAddr, size: usize) {
    let sent: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    let socket = connect(addr).expect("a connection");
    let mut writer = socket.try_clone().expect("a socket");
    let bytes = sent.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&bytes).expect("sent");
        writer.shutdown(Shutdown::Write).expect("half-closed");
    });
    let mut back = Vec::new();
    let mut reader = RetryingReader(&socket);
    reader.read_to_end(&mut back).expect("everything back");
    sender.join().expect("sent");
    assert!(back == sent, "{} of {size} came back", back.len());
}

#[test]
fn edge_site_carries_services_both_ways() {
    let (a, e) = with_edge();
    let (_one, from_edge) = service(&a, &e, "at-interior");
    let (_two, to_edge) = service(&e, &a, "at-edge");
    for addr in [from_edge, to_edge] {
        back_and_forth(addr, 20_000_000);
        // A reset by one client does not disturb the others.
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
fn link_access_of_an_edge_site_is_refused() {
    let (a, e) = with_edge();
    let (_server, addr) = service(&a, &e, "echo");
    e.resource("RouterAccess", "in", "{roles: [{name: inter-router}]}");
    let text = "Edge sites cannot accept incoming links from remote sites";
    e.wait_message("RouterAccess", "in", "Error", text);
    e.resource("Site", "e", "{edge: true, linkAccess: default}");
    e.wait_message("Site", "e", "Error", text);
    assert!(works(addr), "it stays as it was");
}

#[test]
fn edge_with_ha_is_refused_and_nothing_changes() {
    let (a, e) = with_edge();
    let (_server, addr) = service(&a, &e, "echo");
    let mut socket = connect(addr).expect("a connection");
    e.resource("Site", "e", "{edge: true, ha: true}");
    e.wait_message("Site", "e", "Error", "edge sites cannot have HA enabled");
    assert_eq!(
        round_trip(&mut socket, b"still").expect("an answer"),
        b"still"
    );
    e.wait_status("Link", "to-a", "Ready");
}

#[test]
fn ha_has_no_effect_and_a_site_of_the_same_keys_takes_over() {
    let (mut a, mut b, mut c) = (Site::new("a"), Site::new("b"), Site::new("c"));
    let (to_a, to_b) = (free_addr(), free_addr());
    a.access(to_a);
    b.access(to_b);
    a.resource("Site", "a", "{ha: true}");
    c.link_to(&a, to_a, 1);
    c.link_to(&b, to_b, 1);
    for site in [&mut a, &mut b, &mut c] {
        site.start();
    }
    a.wait_status("Site", "a", "Ready");
    let status = a.status("Site", "a").expect("a status")["status"].clone();
    let text = "spec.ha has no effect";
    let said = |c: &serde_json::Value| c["message"].as_str().is_some_and(|m| m.starts_with(text));
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let noted = conditions
        .iter()
        .find(|c| said(c))
        .expect("a condition that says so");
    assert_eq!(
        (&noted["type"], &noted["status"]),
        (&"Configured".into(), &"True".into())
    );
    // Both sites offer the same key, so that each covers for the other.
    let servers = [Server::echo(free_addr()), Server::echo(free_addr())];
    a.connector("echo", "echo", servers[0].addr);
    b.connector("echo", "echo", servers[1].addr);
    let addr = free_addr();
    c.listener("echo", "echo", addr);
    wait_until("both servers", SOON, || {
        let used = |s: &Server| s.accepted.load(std::sync::atomic::Ordering::SeqCst) > 0;
        works(addr) && servers.iter().all(used)
    });
    a.kill();
    for _ in 0..20 {
        assert!(
            works(addr),
            "a new connection after one of two hosts is lost"
        );
    }
}

#[test]
fn two_hundred_edge_sites_on_one_interior_carry_services_both_ways() {
    const EDGES: usize = 200;
    let (mut a, mut all) = (Site::new("a"), Site::edge("e0"));
    let addr = free_addr();
    a.access_with_edges(addr, free_addr());
    let link = a.link(addr, 1);
    let server = Server::echo(free_addr());
    a.connector("hub", "hub", server.addr);
    let mut addrs = Vec::new();
    // Each edge is a namespace of one daemon, with its own site, router id and link.
    for n in 0..EDGES {
        let namespace = if n == 0 {
            "default".to_owned()
        } else {
            format!("edge-{n}")
        };
        let input = all
            .root()
            .join("namespaces")
            .join(namespace)
            .join("input/resources");
        std::fs::create_dir_all(&input).expect("a directory");
        let [at_edge, at_hub] = [free_addr(), free_addr()];
        let resource = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: skupper.io/v2alpha1\nkind: {kind}\n\
                 metadata: {{name: {name}}}\nspec: {spec}\n"
            )
        };
        let service = |key: &str, addr: SocketAddr| {
            format!(
                "{{routingKey: {key}, host: 127.0.0.1, port: {}}}",
                addr.port()
            )
        };
        let name = format!("e{n}");
        let site = match n {
            0 => String::new(),
            _ => resource("Site", &name, "{edge: true}"),
        };
        let text = [
            site,
            resource("Connector", &name, &service(&name, server.addr)),
            resource("Listener", "hub", &service("hub", at_edge)),
            format!("---\n{link}"),
        ];
        std::fs::write(input.join("all.yaml"), text.concat()).expect("manifests");
        a.listener(&name, &name, at_hub);
        addrs.extend([at_edge, at_hub]);
    }
    a.start();
    a.wait_status("Site", "a", "Ready");
    let (empty, begin) = (resident(a.pid()), Instant::now());
    all.start();
    let patience = Duration::from_secs(120);
    let mut open = addrs.iter().copied().peekable();
    wait_until("all services to work", patience, || {
        while open.next_if(|addr| works(*addr)).is_some() {}
        open.peek().is_none()
    });
    let took = begin.elapsed();
    assert!(addrs.iter().all(|addr| works(*addr)), "all at once");
    wait_until("all sites in the count", SOON, || {
        a.status("Site", "a")
            .is_some_and(|v| v["status"]["sitesInNetwork"] == EDGES + 1)
    });
    let (interior, edges) = (resident(a.pid()), resident(all.pid()));
    println!(
        "{EDGES} edges: {} services work {took:?} after the edges were started; the interior has \
         {} KiB, {} KiB before, the edges' daemon {} KiB",
        addrs.len(),
        interior / 1024,
        empty / 1024,
        edges / 1024,
    );
    // Twice the measured memory of an edge: connection buffers, and links attached in advance.
    let each = interior.saturating_sub(empty) / EDGES;
    assert!(each < 1024 * 1024, "{each} bytes for each edge");
    let begin = Instant::now();
    all.kill();
    wait_until("all listeners to close", SOON, || {
        addrs.iter().all(|addr| refused(*addr))
    });
    println!(
        "all {EDGES} edges were withdrawn {:?} after their daemon was killed",
        begin.elapsed()
    );
}

#[test]
fn an_edge_site_without_an_edge_endpoint_is_an_error() {
    let (_a, e) = with_edge();
    let spec = "{endpoints: [{name: inter-router, host: 127.0.0.1, port: \"55671\"}], \
                tlsCredentials: to-a}";
    e.resource("Link", "interior-only", spec);
    e.wait_message(
        "Link",
        "interior-only",
        "Error",
        "no endpoint for the role of this site, edge",
    );
    e.wait_status("Link", "to-a", "Ready");
}

#[test]
fn a_lost_edge_withdraws_its_addresses_at_once() {
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
    // The end must cross two routers without waiting for a timeout.
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
    // Every site sees all four.
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
    // Restart each interior site in turn.
    b.kill();
    b.start();
    wait_until("both ways again", SOON, || works(from_f) && works(from_e));
}

#[test]
fn an_edge_uses_its_cheaper_link_and_fails_over() {
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
    // Traffic moves back when the cheaper link returns.
    a.start();
    wait_until("the cheaper link", SOON, || ask() == Some(b'a'));
    drop(servers);
    e.stop();
}

#[test]
fn an_edge_on_the_interior_port_is_refused_with_the_reason() {
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
