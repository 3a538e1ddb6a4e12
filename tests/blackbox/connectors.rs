//! Connectors: sharing, servers that refuse, Unix sockets, PROXY protocol, and fields of other
//! platforms.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, is_cut, refused, round_trip, wait_reads, works},
    free_addr,
    site::{Site, linked},
    wait_for, wait_until,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

#[test]
fn several_connectors_share_and_several_listeners_reach() {
    let (a, b) = linked();
    let servers: Vec<Server> = ["one", "two", "three"]
        .map(|text| Server::holds(free_addr(), text))
        .into();
    for (n, server) in servers.iter().enumerate() {
        a.connector(&format!("c{n}"), "key", server.addr);
    }
    let (here, there) = (free_addr(), free_addr());
    a.listener("l", "key", here);
    b.listener("l", "key", there);
    wait_until("both listeners", SOON, || !refused(here) && !refused(there));
    let before: Vec<usize> = servers
        .iter()
        .map(|s| s.accepted.load(std::sync::atomic::Ordering::SeqCst))
        .collect();
    let mut held = Vec::new();
    for n in 0..300 {
        let socket = connect(if n % 2 == 0 { here } else { there }).expect("a connection");
        let mut first = [0; 3];
        let mut reader = RetryingReader(&socket);
        reader.read_exact(&mut first).expect("an answer");
        held.push(socket);
    }
    for (server, before) in servers.iter().zip(before) {
        let share = server.accepted.load(std::sync::atomic::Ordering::SeqCst) - before;
        assert!(
            (80..=120).contains(&share),
            "{share} of 300 at one of three servers"
        );
    }
}

#[test]
fn server_down_closes_the_client_promptly() {
    let (a, b) = linked();
    let (gone, addr) = (free_addr(), free_addr());
    a.connector("gone", "gone", gone);
    b.listener("gone", "gone", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    let begin = Instant::now();
    assert!(is_cut(addr));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn refused_server_is_retried_on_another_connector_with_nothing_lost() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    a.connector("dead", "key", free_addr());
    a.connector("live", "key", server.addr);
    // A listener opens with the first of them.
    for name in ["dead", "live"] {
        a.wait_status("Connector", name, "Pending");
    }
    let addr = free_addr();
    b.listener("l", "key", addr);
    wait_until("the listener to open", SOON, || !refused(addr));
    for n in 0..50 {
        let mut socket = connect(addr).expect("accepted");
        // Bytes sent at once must reach the second server after the first has refused.
        let text = format!("request {n}");
        assert_eq!(
            round_trip(&mut socket, text.as_bytes()).expect("an answer"),
            text.as_bytes()
        );
    }
}

#[test]
fn connector_to_a_unix_socket() {
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
        let mut reader = RetryingReader(&client);
        reader.read_to_end(&mut all).expect("all of it");
        assert_eq!(all, [7; 300_000]);
    }
    let note = "spec.port has no effect where spec.host is a Unix socket";
    // The status lags behind the network.
    wait_until("the note", SOON, || {
        let status = a.status("Connector", "app").expect("a status");
        status["status"]["notes"] == serde_json::json!([note])
    });
    // Invalid hosts are reported with the reason.
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

/// A port that drops whoever connects: its queue of connections is full, and nobody takes any off.
fn unresponsive() -> (Socket, Vec<TcpStream>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).expect("a port");
    socket.listen(0).expect("listens");
    let addr = socket.local_addr().expect("an address");
    let addr = addr.as_socket().expect("an address of IP");
    let mut queued = Vec::new();
    let attempt = || TcpStream::connect_timeout(&addr, Duration::from_millis(200));
    while let Ok(connection) = attempt() {
        queued.push(connection);
    }
    (socket, queued, addr)
}

#[test]
fn a_server_that_does_not_answer_costs_a_client_the_connect_timeout() {
    let (a, b) = linked();
    let (_socket, _queued, server) = unresponsive();
    let path = a.root().join("full.sock");
    let unix = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
    unix.bind(&SockAddr::unix(&path).expect("a path"))
        .expect("bound");
    unix.listen(0).expect("listens");
    let _queued_there = UnixStream::connect(&path).expect("queued");
    let port = server.port();
    let connector = |name: &str, host: &str, timeout: &str| {
        let spec = format!(
            "{{routingKey: {name}, host: '{host}', port: {port}, settings: {{connect-timeout: {timeout}}}}}"
        );
        a.resource("Connector", name, &spec);
    };
    let refusal = |addr: SocketAddr| {
        let begin = Instant::now();
        assert!(is_cut(addr));
        begin.elapsed()
    };
    let (fast, slow) = (Duration::from_millis(300), Duration::from_millis(2500));
    let of_unix = format!("unix:{}", path.display());
    for (name, host) in [("tcp", "127.0.0.1"), ("unix", &of_unix)] {
        connector(name, host, "300ms");
        let addr = free_addr();
        b.listener(name, name, addr);
        wait_until("the listener", SOON, || !refused(addr));
        // The default is twice as long as the most that is expected.
        let took = refusal(addr);
        assert!((fast..slow).contains(&took), "{name}: {took:?}");
        wait_until("the reason", SOON, || {
            let status = a.status("Connector", name).expect("a status");
            let failure = status["status"]["lastFailure"].as_str();
            failure.is_some_and(|f| f.contains("timed out") || f.contains("backlog"))
        });
        let log = a.log();
        let of = format!("connector=\"{name}\"");
        let mut lines = log.lines();
        let logged = lines.any(|l| l.contains("WARN") && l.contains(&of));
        assert!(logged, "{name}: {log}");
        // The version before an invalid one stays.
        connector(name, host, "soon");
        let error = a.wait_message("Connector", name, "Error", "spec.settings[connect-timeout]");
        assert!(
            error.contains(&format!("Connector-{name}.yaml:")),
            "{error}"
        );
        let took = refusal(addr);
        assert!((fast..slow).contains(&took), "{name}: {took:?}");
    }
}

#[test]
fn a_server_that_has_failed_is_avoided_for_a_while_and_the_status_says_so() {
    let (a, b) = linked();
    let (_socket, _queued, silent) = unresponsive();
    let good = Server::says(free_addr(), "good");
    // The one that does not answer comes first.
    let spec = format!(
        "{{routingKey: key, host: 127.0.0.1, port: {}, settings: {{connect-timeout: 2s}}}}",
        silent.port()
    );
    a.resource("Connector", "a-silent", &spec);
    a.connector("b-good", "key", good.addr);
    let addr = free_addr();
    b.listener("l", "key", addr);
    for name in ["a-silent", "b-good"] {
        a.wait_status("Connector", name, "Ready");
    }
    // Whichever client is the first to be sent to the silent one waits for the time of an attempt.
    wait_until("an attempt to fail", SOON, || {
        let begin = Instant::now();
        wait_reads(addr, "good");
        begin.elapsed() > Duration::from_secs(2)
    });
    let begin = Instant::now();
    for _ in 0..12 {
        wait_reads(addr, "good");
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?} for 12 clients");
    let said = a.wait_message("Connector", "a-silent", "Pending", "timed out");
    assert!(said.contains("Not ready"), "{said}");
    // Nobody tries it meanwhile, and after a while it has another chance.
    a.wait_status("Connector", "a-silent", "Ready");
    a.wait_status("Connector", "b-good", "Ready");
}

/// A server that reads a PROXY protocol header and sends it back: the line, or the bytes in
/// hexadecimal.
fn header_server(version: u8) -> Server {
    Server::start(free_addr(), move |socket| {
        let mut reader = BufReader::new(RetryingReader(&socket));
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
fn proxy_protocol_carries_the_client_address() {
    let (a, b) = linked();
    let (one, two, none) = (
        header_server(1),
        header_server(2),
        Server::echo(free_addr()),
    );
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
        // Without the setting the server gets no header.
        wait_until("the plain one", SOON, || works(addrs[2]));
        let client = connect(addrs[0]).expect("a connection");
        let own = client.local_addr().expect("an address").port();
        let mut said = String::new();
        let mut reader = RetryingReader(&client);
        reader.read_to_string(&mut said).expect("an answer");
        let port = addrs[0].port();
        assert_eq!(said, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own} {port}"));
        let client = connect(addrs[1]).expect("a connection");
        let own = client.local_addr().expect("an address").port();
        let mut said = String::new();
        let mut reader = RetryingReader(&client);
        reader.read_to_string(&mut said).expect("an answer");
        let port = addrs[1].port();
        let expected = format!("2111000c7f0000017f000001{own:04x}{port:04x}");
        assert_eq!(said, expected);
    }
    let spec = "{routingKey: x, host: h, port: 1, settings: {proxy-protocol: v3}}";
    a.resource("Connector", "x", spec);
    a.wait_message("Connector", "x", "Error", "spec.settings[proxy-protocol]");
}

#[test]
fn fields_without_effect_are_kept_with_notes() {
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

#[test]
fn a_routing_key_of_a_manifest_may_be_any_address() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let key = "\"Orders_DB:5432\"";
    a.connector("orders", key, server.addr);
    b.listener("orders", key, addr);
    wait_until("the service", SOON, || works(addr));
    a.wait_status("Connector", "orders", "Ready");
    b.resource(
        "Listener",
        "own",
        "{routingKey: _topo, host: 127.0.0.1, port: 1}",
    );
    b.wait_message("Listener", "own", "Error", "does not begin with _");
}
