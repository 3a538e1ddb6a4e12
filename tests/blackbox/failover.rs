//! Links that recover: several endpoints, changed credentials, lost packets.

use skupper_tests::{
    SOON,
    echo::{connect, round_trip, works},
    forward::Forwarder,
    free_addr, netns,
    site::{Site, echo, service},
    wait_for, wait_until,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

fn endpoint(b: &Site) -> Option<String> {
    let link = b.status("Link", "to-a")?;
    Some(link["status"]["endpoint"].as_str()?.to_owned())
}

/// A generated link with these endpoints in place of its own.
fn with_endpoints(link: &str, endpoints: &[SocketAddr]) -> String {
    let (head, _) = link.split_once("  endpoints:\n").expect("a link");
    let list: String = endpoints
        .iter()
        .map(|e| {
            format!(
                "  - {{name: inter-router, host: {}, port: \"{}\"}}\n",
                e.ip(),
                e.port()
            )
        })
        .collect();
    format!("{head}  endpoints:\n{list}  tlsCredentials: to-a\n")
}

#[test]
fn another_endpoint_takes_over_and_the_first_returns_without_a_cut() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let at_a = free_addr();
    a.access(at_a);
    let (first, second) = (Forwarder::new(at_a), Forwarder::new(at_a));
    let link = with_endpoints(&a.link(at_a, 1), &[first.addr, second.addr]);
    b.file("link.yaml", &link);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    let (_server, addr) = echo(&a, &b);
    assert_eq!(endpoint(&b), Some(first.addr.to_string()));
    first.cut(true);
    let begin = Instant::now();
    wait_until("the second endpoint", SOON, || {
        endpoint(&b) == Some(second.addr.to_string())
    });
    let up = begin.elapsed();
    println!("up over the second endpoint {up:?} after the first was cut");
    assert!(up < Duration::from_secs(6), "{up:?}");
    wait_until("the service", SOON, || works(addr));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"over the second").expect("works");
    first.cut(false);
    wait_until("the first endpoint again", SOON, || {
        endpoint(&b) == Some(first.addr.to_string())
    });
    // The connection uses the second endpoint and stays on it.
    round_trip(&mut held, b"still here").expect("nothing was cut");
    b.wait_status("Link", "to-a", "Ready");
    second.cut(true);
    wait_until("new clients over the first", SOON, || works(addr));
    assert_eq!(endpoint(&b), Some(first.addr.to_string()));
}

#[test]
fn changed_credentials_apply_beside_running_streams() {
    let (a, b, _server, addr) = service();
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    let serials = || -> Option<Vec<String>> {
        let site = a.status("Site", "a")?;
        let links = site["status"]["incomingLinks"].as_array()?.clone();
        let serial = |l: &serde_json::Value| Some(l["certificate"]["serial"].as_str()?.to_owned());
        links.iter().map(serial).collect()
    };
    let [old] = &wait_for("the certificate", SOON, serials)[..] else {
        panic!("one link is up");
    };
    let text = std::fs::read_to_string(b.input().join("link-a.yaml")).expect("a link");
    let port = text
        .split("port: ")
        .nth(1)
        .and_then(|t| t.lines().next())
        .expect("a port");
    let port: u16 = port.trim_matches(['\'', '"']).parse().expect("a port");
    b.link_to(&a, ([127, 0, 0, 1], port).into(), 1);
    wait_until("the new certificate", SOON, || {
        serials().is_some_and(|s| s.iter().any(|serial| serial != old))
    });
    round_trip(&mut held, b"after").expect("nothing was cut");
    assert!(works(addr), "new clients are served");
    drop(held);
    // The old connection ends with its last stream.
    wait_until("the old certificate to go", SOON, || {
        serials().is_some_and(|s| s.len() == 1 && s[0] != *old)
    });
    assert!(works(addr), "and the new one goes on");
    b.wait_status("Link", "to-a", "Ready");
}

#[test]
fn lost_packets_are_detected_and_another_access_takes_over() {
    if !netns::enter() {
        return;
    }
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let at: [SocketAddr; 2] = ["127.0.0.2:5671", "127.0.0.3:5672"].map(|a| a.parse().expect("ok"));
    for (name, addr) in ["one", "two"].into_iter().zip(at) {
        let spec = format!(
            "{{bindHost: {}, roles: [{{name: inter-router, port: {}}}]}}",
            addr.ip(),
            addr.port()
        );
        a.resource("RouterAccess", name, &spec);
    }
    b.file("link.yaml", &with_endpoints(&a.link(at[0], 1), &at));
    a.start();
    b.start();
    for name in ["one", "two"] {
        a.wait_status("RouterAccess", name, "Ready");
    }
    b.wait_status("Link", "to-a", "Ready");
    let (_server, addr) = echo(&a, &b);
    assert_eq!(endpoint(&b), Some(at[0].to_string()));
    netns::run("nft", &["add table inet cut"]);
    netns::run(
        "nft",
        &["add chain inet cut in { type filter hook input priority 0; }"],
    );
    let begin = Instant::now();
    netns::run("nft", &["add rule inet cut in ip daddr 127.0.0.2 drop"]);
    netns::run("nft", &["add rule inet cut in ip saddr 127.0.0.2 drop"]);
    wait_until("the second access", SOON, || {
        endpoint(&b) == Some(at[1].to_string())
    });
    let up = begin.elapsed();
    println!("up over the second access {up:?} after packets to the first vanished");
    assert!(up < Duration::from_secs(5), "{up:?}");
    wait_until("the service", SOON, || works(addr));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"over the second").expect("works");
    netns::run("nft", &["delete table inet cut"]);
    wait_until("the first access again", SOON, || {
        endpoint(&b) == Some(at[0].to_string())
    });
    round_trip(&mut held, b"still here").expect("nothing was cut");
}
