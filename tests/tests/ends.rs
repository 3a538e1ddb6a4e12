//! What listeners and connectors do beside carrying bytes: several routing keys, Unix sockets, the
//! client's address, the server's health, fields of other platforms.

use skupper_tests::{
    SOON,
    echo::{Patient, Server, connect, hear, refused, round_trip, works},
    free_addr,
    site::{Site, linked},
    wait_for, wait_until,
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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
fn v31_v34_the_first_reachable_key_gets_new_connections() {
    let (a, b, addr) = multikey("priority: {routingKeys: [p, b]}");
    let message = b.wait_status("MultiKeyListener", "m", "Pending");
    assert_eq!(message, "No matching connectors");
    assert!(refused(addr), "it accepts clients for nobody");
    let first = Server::holds(free_addr(), "p");
    let second = Server::holds(free_addr(), "b");
    // One on each site: both ways out of the listener.
    a.connector("p", "p", first.addr);
    b.connector("b", "b", second.addr);
    let says = |text: &str| {
        let mut first = [0; 1];
        let socket = connect(addr).and_then(|mut s| s.read_exact(&mut first).map(|()| s));
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
    // A key whose server takes nobody is passed over for the next.
    drop(first);
    wait_until("the second while the first takes nobody", SOON, || {
        says("b").is_some()
    });
}

#[test]
fn v32_v34_weights_share_connections() {
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
        *counts.entry(hear(addr).expect("an answer")).or_default() += 1;
    }
    assert!((280..=320).contains(&counts["x"]), "{counts:?}");
    assert_eq!(counts["x"] + counts["y"], 400, "{counts:?}");
}

#[test]
fn v33_v34_strategies_are_validated_keep_their_kind_and_change_their_keys() {
    let (a, b, addr) = multikey("priority: {routingKeys: [p, b]}");
    let (first, second) = (
        Server::says(free_addr(), "p"),
        Server::says(free_addr(), "b"),
    );
    a.connector("p", "p", first.addr);
    a.connector("b", "b", second.addr);
    let says = |text: &str| hear(addr).is_ok_and(|heard| heard == text);
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
    // The kind stays, and so does what runs.
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
    // Deleted and created anew it may be another.
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

#[test]
fn v47_connector_to_a_unix_socket() {
    let (a, b) = linked();
    let path = a.root().join("app.sock");
    let socket = UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for client in socket.incoming() {
            let Ok(mut client) = client else { return };
            std::thread::spawn(move || {
                let mut all = Vec::new();
                drop(client.read_to_end(&mut all));
                drop(client.write_all(&all));
            });
        }
    });
    a.ok(&[
        "connector",
        "create",
        "app",
        "80",
        "--host",
        &format!("unix:{}", path.display()),
    ]);
    let (here, there) = (free_addr(), free_addr());
    a.listener("app", "app", here);
    b.listener("app", "app", there);
    for addr in [here, there] {
        wait_until("the listener", SOON, || !refused(addr));
        let mut client = connect(addr).expect("a connection");
        client.write_all(&[7; 300_000]).expect("sent");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("half-closed");
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("all of it");
        assert_eq!(all, [7; 300_000]);
    }
    let note = "spec.port has no effect where spec.host is a Unix socket";
    // Statuses follow the network after a moment.
    wait_until("the note", SOON, || {
        let status = a.status("Connector", "app").expect("a status");
        status["status"]["notes"] == serde_json::json!([note])
    });
    // What can not work says why.
    let missing = a.root().join("missing.sock");
    let spec = format!("{{routingKey: none, host: \"unix:{}\"}}", missing.display());
    a.resource("Connector", "none", &spec);
    let none = free_addr();
    b.listener("none", "none", none);
    wait_until("the listener", SOON, || !refused(none));
    assert!(!works(none));
    wait_until("the reason", SOON, || {
        let status = a.status("Connector", "none").expect("a status");
        let failure = status["status"]["lastFailure"].as_str().unwrap_or_default();
        failure.contains("there is no such socket")
    });
    let wrong = a.skupper(&["connector", "create", "x", "1", "--host", "unix:relative"]);
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("absolute path"), "{said}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
}

/// A server that reads a header of the PROXY protocol and says the line, or the bytes in hexadecimal.
fn told(version: u8) -> Server {
    Server::start(free_addr(), move |socket| {
        let mut reader = BufReader::new(&socket);
        let said = if version == 1 {
            let mut line = String::new();
            drop(reader.read_line(&mut line));
            line.trim_end().to_owned()
        } else {
            let mut head = [0; 16];
            drop(reader.read_exact(&mut head));
            let mut rest = vec![0; usize::from(head[15])];
            drop(reader.read_exact(&mut rest));
            let all = head[12..].iter().chain(&rest);
            all.map(|b| format!("{b:02x}")).collect()
        };
        drop((&socket).write_all(said.as_bytes()));
    })
}

#[test]
fn v44_servers_are_told_of_the_clients_address() {
    let (a, b) = linked();
    let (one, two, none) = (told(1), told(2), Server::echo(free_addr()));
    for (name, server, version) in [("one", &one, "v1"), ("two", &two, "v2")] {
        let spec = format!(
            "{{routingKey: {name}, host: 127.0.0.1, port: {}, settings: {{proxy-protocol: {version}}}}}",
            server.addr.port()
        );
        a.resource("Connector", name, &spec);
    }
    a.connector("none", "none", none.addr);
    for site in [&a, &b] {
        let addrs = [free_addr(), free_addr(), free_addr()];
        for (name, addr) in ["one", "two", "none"].into_iter().zip(addrs) {
            site.listener(name, name, addr);
            wait_until("the listener", SOON, || !refused(addr));
        }
        // Without it nothing changes.
        wait_until("the plain one", SOON, || works(addrs[2]));
        let mut client = connect(addrs[0]).expect("a connection");
        let own = client.local_addr().expect("an address").port();
        let mut said = String::new();
        client.read_to_string(&mut said).expect("an answer");
        let port = addrs[0].port();
        assert_eq!(said, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}"));
        let mut client = connect(addrs[1]).expect("a connection");
        let own = client.local_addr().expect("an address").port();
        let mut said = String::new();
        client.read_to_string(&mut said).expect("an answer");
        let port = addrs[1].port();
        let expected = format!("2111000c7f0000017f000001{own:04x}{port:04x}");
        assert_eq!(said, expected);
    }
    let spec = "{routingKey: x, host: h, port: 1, settings: {proxy-protocol: v3}}";
    a.resource("Connector", "x", spec);
    a.wait_message("Connector", "x", "Error", "spec.settings[proxy-protocol]");
}

/// A server that answers GET with this status while it is well, and resets all others when it is not.
fn web(well: Arc<AtomicBool>, text: &'static str) -> Server {
    Server::start(free_addr(), move |mut socket| {
        let mut buf = [0; 1024];
        let n = socket.read(&mut buf).unwrap_or_default();
        if n == 0 {
            return;
        }
        let well = well.load(Ordering::SeqCst);
        let status = if well { "200 OK" } else { "503 Sick" };
        let body = if buf.starts_with(b"GET /health ") {
            ""
        } else {
            text
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        drop(socket.write_all(answer.as_bytes()));
    })
}

fn get(addr: SocketAddr) -> String {
    get_at_once(addr, 1).concat()
}

/// Answers over connections that are all open at the same time.
fn get_at_once(addr: SocketAddr, n: usize) -> Vec<String> {
    let sockets: Vec<_> = (0..n).map(|_| connect(addr)).collect();
    let asked = sockets.into_iter().map(|socket| {
        let mut socket = socket?;
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        let mut all = String::new();
        Patient(&socket).read_to_string(&mut all).map(|_| all)
    });
    asked
        .map(|text: std::io::Result<_>| text.unwrap_or_default())
        .collect()
}

#[test]
fn v19_v37_servers_that_are_not_well_get_no_connections() {
    let (a, b) = linked();
    let (one, two) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicBool::new(true)),
    );
    let (first, second) = (web(one.clone(), "first"), web(two.clone(), "second"));
    let probed = |server: &Server, rest: &str| {
        format!(
            "{{routingKey: web, host: 127.0.0.1, port: {}, settings: {{health-check: http, \
             health-check-path: /health, health-check-interval: 200ms}}{rest}}}",
            server.addr.port()
        )
    };
    a.resource("Connector", "first", &probed(&first, ""));
    b.resource("Connector", "second", &probed(&second, ""));
    let addr = free_addr();
    b.listener("web", "web", addr);
    // One after another they all go to the nearer one.
    wait_until("both to serve", SOON, || {
        let all = get_at_once(addr, 6);
        ["first", "second"]
            .iter()
            .all(|name| all.iter().any(|text| text.contains(name)))
    });
    one.store(false, Ordering::SeqCst);
    let message = a.wait_message("Connector", "first", "Pending", "the answer is 503");
    assert!(message.contains("Not ready"), "{message}");
    // After that nobody meets it.
    let answers: Vec<String> = (0..50).map(|_| get(addr)).collect();
    assert!(
        answers.iter().all(|text| text.contains("200 OK")),
        "{answers:?}"
    );
    two.store(false, Ordering::SeqCst);
    b.wait_status("Connector", "second", "Pending");
    wait_until("the listener to close", SOON, || refused(addr));
    b.wait_status("Listener", "web", "Pending");
    // Whoever says so gets it all the same.
    a.resource(
        "Connector",
        "first",
        &probed(&first, ", includeNotReadyPods: true"),
    );
    wait_until("it to serve nevertheless", SOON, || {
        get(addr).contains("503 Sick")
    });
    // Statuses follow what is done after a moment.
    wait_until(
        "it to be ready, and its server known not to be well",
        SOON,
        || {
            a.status("Connector", "first").is_some_and(|status| {
                let status = &status["status"];
                status["status"] == "Ready" && status["health"]["ready"] == false
            })
        },
    );
    one.store(true, Ordering::SeqCst);
    a.resource("Connector", "first", &probed(&first, ""));
    wait_until("it to be well again", SOON, || get(addr).contains("200 OK"));
    a.wait_status("Connector", "first", "Ready");
}

#[test]
fn v19_a_probe_that_fails_leaves_open_connections_alone() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let at = server.addr;
    let spec = format!(
        "{{routingKey: echo, host: 127.0.0.1, port: {}, settings: {{health-check: tcp, \
         health-check-interval: 200ms}}}}",
        at.port()
    );
    a.resource("Connector", "echo", &spec);
    let addr = free_addr();
    b.listener("echo", "echo", addr);
    wait_until("the service", SOON, || works(addr));
    a.wait_status("Connector", "echo", "Ready");
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    drop(server);
    a.wait_message("Connector", "echo", "Pending", "Connection refused");
    wait_until("the listener to close", SOON, || refused(addr));
    round_trip(&mut held, b"after").expect("the open connection lives");
    let _server = Server::echo(at);
    wait_until("the service again", SOON, || works(addr));
    round_trip(&mut held, b"at last").expect("the open connection lives");
}

#[test]
fn v11_v38_fields_without_effect_are_kept_and_said() {
    let mut a = Site::new("a");
    a.start();
    let addr = free_addr();
    let spec = format!(
        "{{routingKey: k, host: 127.0.0.1, port: {}, observer: http2, exposePodsByName: true, \
         settings: {{mine: x, acceleration: auto, ports: '{}'}}}}",
        addr.port(),
        free_addr().port()
    );
    a.resource("Listener", "l", &spec);
    let spec = "{routingKey: k, host: h, port: 1, exposePodsByName: true, includeNotReadyPods: true, \
                useClientCert: true, verifyHostname: true}";
    a.resource("Connector", "c", spec);
    let moved = free_addr().port().to_string();
    a.ok(&["listener", "update", "l", "--port", &moved]);
    a.ok(&["connector", "update", "c", "--port", "2"]);
    let listener = wait_for("the listener", SOON, || {
        let value = a.status("Listener", "l")?;
        (value["status"]["notes"].is_array()
            && value["spec"]["port"] == moved.parse::<u16>().expect("a port"))
        .then_some(value)
    });
    assert_eq!(listener["spec"]["observer"], "http2");
    assert_eq!(listener["spec"]["settings"]["mine"], "x");
    let connector = wait_for("the connector", SOON, || {
        let value = a.status("Connector", "c")?;
        (value["status"]["notes"].is_array() && value["spec"]["port"] == 2).then_some(value)
    });
    assert_eq!(connector["spec"]["useClientCert"], true);
    let notes = |value: &serde_json::Value| value["status"]["notes"].to_string();
    for (value, text) in [
        (&listener, "spec.exposePodsByName has no effect on a host"),
        (&listener, "spec.settings[mine] is not known"),
        (&connector, "spec.exposePodsByName has no effect on a host"),
        (&connector, "spec.includeNotReadyPods has no effect without"),
        (&connector, "spec.useClientCert has no effect without"),
        (&connector, "spec.verifyHostname has no effect without"),
    ] {
        assert!(notes(value).contains(text), "{text}: {}", notes(value));
    }
    for known in ["acceleration", "ports"] {
        let listener = notes(&listener);
        assert!(!listener.contains(known), "{listener}");
    }
    let said = a.ok(&["listener", "status", "l"]);
    assert!(said.contains("Note:"), "{said}");
}
