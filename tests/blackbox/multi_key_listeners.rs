//! Listeners with several routing keys: by priority and by weight.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, read_to_close, refused},
    free_addr,
    site::{Site, linked},
    wait_until,
};
use std::{collections::BTreeMap, io::Read, net::SocketAddr};

/// Two sites, and a MultiKeyListener at the second for the keys of `strategy`.
fn multikey(strategy: &str) -> (Site, Site, SocketAddr) {
    let (a, b) = linked();
    let addr = free_addr();
    b.resource("MultiKeyListener", "m", &spec(addr, strategy));
    (a, b, addr)
}

fn spec(addr: SocketAddr, strategy: &str) -> String {
    let (host, port) = (addr.ip(), addr.port());
    format!("{{host: \"{host}\", port: {port}, strategy: {{{strategy}}}}}")
}

fn reachable(site: &Site) -> serde_json::Value {
    let value = site.status("MultiKeyListener", "m").unwrap_or_default();
    value["status"]["strategy"].clone()
}

#[test]
fn the_first_reachable_key_gets_new_connections() {
    let (a, b, addr) = multikey("priority: {routingKeys: [p, b]}");
    let message = b.wait_status("MultiKeyListener", "m", "Pending");
    assert_eq!(message, "No matching connectors");
    assert!(refused(addr), "it accepts clients for nobody");
    let first = Server::holds(free_addr(), "p");
    let second = Server::holds(free_addr(), "b");
    // One server on each site, so that the listener has both routes.
    a.connector("p", "p", first.addr);
    b.connector("b", "b", second.addr);
    let says = |text: &str| {
        let mut first = [0; 1];
        let socket = connect(addr);
        let socket = socket.and_then(|s| RetryingReader(&s).read_exact(&mut first).map(|()| s));
        socket.ok().filter(|_| first == text.as_bytes())
    };
    wait_until("the first key", SOON, || says("p").is_some());
    let held: Vec<_> = (0..20).map(|_| says("p").expect("the first key")).collect();
    b.wait_status("MultiKeyListener", "m", "Ready");
    wait_until("both in the status", SOON, || {
        reachable(&b)["priority"]["routingKeysReachable"] == serde_json::json!(["p", "b"])
    });
    a.wait_status("Connector", "p", "Ready");
    a.remove("Connector", "p");
    wait_until("the second key", SOON, || says("b").is_some());
    wait_until("one in the status", SOON, || {
        reachable(&b)["priority"]["routingKeysReachable"] == serde_json::json!(["b"])
    });
    let mut stays = says("b").expect("the second key");
    drop(held);
    a.connector("p", "p", first.addr);
    wait_until("the first key again", SOON, || says("p").is_some());
    assert!(
        (0..20).all(|_| says("p").is_some()),
        "not all to the first key"
    );
    stays.set_nonblocking(true).expect("a socket");
    let end = stays.read(&mut [0; 1]).expect_err("it is still open");
    assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock);
    // A key whose server refuses is skipped.
    drop(first);
    wait_until("the second while the first takes nobody", SOON, || {
        says("b").is_some()
    });
}

#[test]
fn weights_share_connections() {
    let (a, b, addr) = multikey("weighted: {routingKeys: {x: 3, y: 1, nobody: 5}}");
    let (x, y) = (
        Server::says(free_addr(), "x"),
        Server::says(free_addr(), "y"),
    );
    a.connector("x", "x", x.addr);
    b.connector("y", "y", y.addr);
    wait_until("both in the status", SOON, || {
        let expected = serde_json::json!({"x": 3, "y": 1});
        reachable(&b)["weighted"]["routingKeysReachable"] == expected
    });
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..400 {
        *counts
            .entry(read_to_close(addr).expect("an answer"))
            .or_default() += 1;
    }
    assert!((280..=320).contains(&counts["x"]), "{counts:?}");
    assert_eq!(counts["x"] + counts["y"], 400, "{counts:?}");
}

#[test]
fn strategies_are_validated_and_change_keys_but_not_kind() {
    let (a, b, addr) = multikey("priority: {routingKeys: [p, b]}");
    let (first, second) = (
        Server::says(free_addr(), "p"),
        Server::says(free_addr(), "b"),
    );
    a.connector("p", "p", first.addr);
    a.connector("b", "b", second.addr);
    let says = |text: &str| read_to_close(addr).is_ok_and(|heard| heard == text);
    wait_until("the first key", SOON, || says("p"));
    let other = free_addr();
    for strategy in [
        "",
        "priority: {routingKeys: []}",
        "weighted: {routingKeys: {a: 0}}",
    ] {
        b.resource("MultiKeyListener", "bad", &spec(other, strategy));
        b.wait_status("MultiKeyListener", "bad", "Error");
    }
    // An update cannot change the kind of strategy; the running configuration stays.
    b.resource(
        "MultiKeyListener",
        "m",
        &spec(addr, "weighted: {routingKeys: {b: 1}}"),
    );
    b.wait_message(
        "MultiKeyListener",
        "m",
        "Error",
        "strategy cannot be changed",
    );
    assert!(says("p"));
    b.resource(
        "MultiKeyListener",
        "m",
        &spec(addr, "priority: {routingKeys: [b, p]}"),
    );
    wait_until("the other order", SOON, || says("b"));
    let output = b.skupper(&["multikeylistener", "update", "m", "--weighted", "b=1"]);
    assert_eq!(output.status.code(), Some(2));
    // A new resource may have another kind.
    b.ok(&["multikeylistener", "delete", "m"]);
    wait_until("the port to close", SOON, || refused(addr));
    let port = addr.port().to_string();
    let weights = ["--weighted", "p=2,b=1", "--host", "127.0.0.1"];
    b.ok(&[&["multikeylistener", "create", "m", &port][..], &weights].concat());
    wait_until("it to share", SOON, || says("p"));
    b.ok(&["multikeylistener", "update", "m", "--weighted", "b=1"]);
    wait_until("one key alone", SOON, || (0..9).all(|_| says("b")));
    let table = b.ok(&["multikeylistener", "status"]);
    assert!(
        table.contains("weighted") && table.contains("b=1"),
        "{table}"
    );
}
