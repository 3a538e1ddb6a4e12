//! Connection records: what they contain, who may read them, and the commands that show them.

use super::metrics::{connections, counters, transfer};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};
use serde_json::Value;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, works},
    free_addr,
    site::{Site, echo, linked, service},
    wait_for, wait_until,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

/// Ends a connection by a reset.
fn reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, Linger, &linger).expect("an option");
}

/// Waits for an ended record of a routing key with this reason.
fn ended(site: &Site, key: &str, reason: &str) -> Value {
    wait_for(
        &format!("a connection of {key} that is {reason}"),
        SOON,
        || {
            let records = connections(site, "limit=1000&state=terminated");
            let mut mine = records.into_iter().filter(|r| r["routingKey"] == *key);
            mine.find(|r| r["endReason"] == *reason)
        },
    )
}

#[test]
fn a_finished_connection_records_ends_path_bytes_and_reason() {
    let (a, b, server, addr) = service();
    let mut socket = connect(addr).expect("a connection");
    let client = socket.local_addr().expect("an address");
    socket.write_all(b"hello").expect("sent");
    let mut back = [0; 5];
    socket.read_exact(&mut back).expect("received");
    let is = |r: &Value| r["sourcePort"] == *client.port().to_string();
    let mut live = connections(&b, "state=active");
    live.retain(is);
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!(
        (&live[0]["octetCount"], &live[0]["endTime"]),
        (&5.into(), &0.into())
    );
    assert_eq!(live[0]["endReason"], Value::Null);
    drop(socket);
    let record = wait_for("the connection to end", SOON, || {
        connections(&b, "state=terminated").into_iter().find(is)
    });
    let host = server.addr.ip().to_string();
    for (field, value) in [
        ("side", "listener"),
        ("namespace", "default"),
        ("listener", "echo"),
        ("connector", "echo"),
        ("routingKey", "echo"),
        ("sourceSiteName", "b"),
        ("destSiteName", "a"),
        ("sourceHost", &client.ip().to_string()),
        ("destHost", &host),
        ("destPort", &server.addr.port().to_string()),
        ("endReason", "closed"),
    ] {
        assert_eq!(record[field], *value, "{field}: {record:#}");
    }
    assert_eq!(record["octetReverseCount"], 5);
    let number = |field: &str| record[field].as_u64().expect("a number");
    assert!(number("openLatency") <= number("latency"), "{record:#}");
    assert!(number("latency") <= number("duration"), "{record:#}");
    assert!(number("endTime") >= number("startTime"));
    let path = record["traceRouters"].as_array().expect("a path");
    assert!(
        path.len() == 1 && path[0].as_str().expect("an id").starts_with("a-"),
        "{record:#}"
    );
    // The record at the connector names the record at the listener.
    let other = wait_for("the record of the connector", SOON, || {
        let records = connections(&a, "state=terminated");
        records
            .into_iter()
            .find(|r| r["peerIdentity"] == record["identity"])
    });
    assert_eq!(
        (&other["side"], &other["sourceSiteName"]),
        (&"connector".into(), &"b".into())
    );
    assert_eq!(other["proxyPort"], record["proxyPort"]);

    // A client that resets.
    let socket = connect(addr).expect("a connection");
    wait_until("the connection to be open", SOON, || {
        let port = socket.local_addr().expect("an address").port().to_string();
        let active = connections(&b, "state=active");
        active.iter().any(|r| r["sourcePort"] == *port)
    });
    reset(socket);
    ended(&b, "echo", "reset by client");
    ended(&a, "echo", "reset by client");

    // A server that resets, at both sites.
    let rude = Server::start(free_addr(), move |socket| {
        let mut one = [0];
        (&socket).read_exact(&mut one).ok();
        reset(socket);
    });
    for (site, key) in [(&a, "rude"), (&b, "near")] {
        site.connector(key, key, rude.addr);
        let addr = free_addr();
        b.listener(key, key, addr);
        wait_until("the listener", SOON, || !refused(addr));
        let mut socket = connect(addr).expect("a connection");
        socket.write_all(b"x").expect("sent");
        socket.read_to_end(&mut Vec::new()).expect_err("a reset");
        ended(&b, key, "reset by server");
    }

    // No server accepts.
    let nobody = free_addr();
    a.connector("gone", "gone", nobody);
    let addr = free_addr();
    b.listener("gone", "gone", addr);
    wait_until("the listener", SOON, || !refused(addr));
    let none = ended(&b, "gone", "refused");
    assert_eq!(
        (&none["destHost"], &none["octetCount"]),
        (&"".into(), &0.into())
    );
    let [opened, closed, ..] = counters(&b, "skupper_", "gone");
    assert!(opened >= 1 && opened == closed, "{opened} {closed}");
}

#[test]
fn a_record_names_the_listener_or_link_that_ended_its_connection() {
    let (mut a, b, _server, addr) = service();
    let open = |addr: SocketAddr| {
        let mut socket = connect(addr).expect("a connection");
        socket.write_all(b"x").expect("sent");
        socket.read_exact(&mut [0]).expect("received");
        socket
    };
    let held = open(addr);
    b.remove("Listener", "echo");
    ended(&b, "echo", "listener or connector removed");
    drop(held);
    let addr = free_addr();
    b.listener("again", "echo", addr);
    wait_until("the service to work", SOON, || works(addr));
    let held = open(addr);
    a.kill();
    ended(&b, "echo", "link lost");
    drop(held);
}

#[test]
fn clients_are_shown_only_on_the_local_socket() {
    let mut site = Site::new("a");
    let tcp = free_addr();
    site.start_with(&["--metrics", &tcp.to_string()]);
    site.wait_status("Site", "a", "Ready");
    let get = |path: &str| {
        let mut socket = connect(tcp).expect("a connection");
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/metrics").contains("200 OK"));
    assert!(get("/services").contains("200 OK"));
    assert!(get("/connections").contains("403 Forbidden"));
    assert!(site.http("GET /connections").contains("200 OK"));
    assert!(
        site.http("GET /connections?limit=x")
            .contains("400 Bad Request")
    );
    assert!(
        site.http("GET /connections?name=x")
            .contains("400 Bad Request")
    );
}

#[test]
fn connections_and_services_are_shown_by_the_command() {
    let (a, b) = linked();
    assert!(b.ok(&["connections"]).contains("No connections"));
    let (_server, addr) = echo(&a, &b);
    transfer(addr, 2048);
    let list: Value = serde_json::from_str(&b.ok(&["connections", "-o", "json"])).expect("JSON");
    assert!(
        list.as_array()
            .is_some_and(|l| l.iter().any(|r| r["octetCount"] == 2048)),
        "{list:#}"
    );
    let table = b.ok(&["connections", "--limit", "1"]);
    assert_eq!(table.lines().count(), 2, "{table}");
    for word in ["ROUTING-KEY", "echo", "127.0.0.1:", "2.0 KiB"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    assert!(
        b.ok(&["-n", "other", "connections"])
            .contains("No connections")
    );
    let top = b.ok(&["top"]);
    assert!(top.contains("echo") && top.contains("SENT/S"), "{top}");
    let output = Site::new("never").skupper(&["connections"]);
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && why.contains("metrics.sock"),
        "{why}"
    );
}
