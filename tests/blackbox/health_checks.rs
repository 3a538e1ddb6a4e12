//! Health checks of servers: an unhealthy one gets no connections.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, refused, round_trip, works},
    free_addr,
    site::linked,
    wait_until,
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A server that answers GET with this text while `well` is set, and resets connections otherwise.
fn web(well: Arc<AtomicBool>, text: &'static str) -> Server {
    Server::start(free_addr(), move |mut socket| {
        let mut buf = [0; 1024];
        let n = RetryingReader(&socket).read(&mut buf).unwrap_or_default();
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

/// Answers over `n` concurrent connections.
fn get_at_once(addr: SocketAddr, n: usize) -> Vec<String> {
    let sockets: Vec<_> = (0..n).map(|_| connect(addr)).collect();
    let asked = sockets.into_iter().map(|socket| {
        let mut socket = socket?;
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        let mut all = String::new();
        RetryingReader(&socket)
            .read_to_string(&mut all)
            .map(|_| all)
    });
    asked
        .map(|text: std::io::Result<_>| text.unwrap_or_default())
        .collect()
}

#[test]
fn unhealthy_servers_get_no_connections() {
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
    // Concurrent connections, because sequential ones all go to the nearer server.
    wait_until("both to serve", SOON, || {
        let all = get_at_once(addr, 6);
        ["first", "second"]
            .iter()
            .all(|name| all.iter().any(|text| text.contains(name)))
    });
    one.store(false, Ordering::SeqCst);
    let message = a.wait_message(
        "Connector",
        "first",
        "Pending",
        "the response has status 503",
    );
    assert!(message.contains("Not ready"), "{message}");
    // From now on no connection reaches the unhealthy server.
    let answers: Vec<String> = (0..50).map(|_| get(addr)).collect();
    assert!(
        answers.iter().all(|text| text.contains("200 OK")),
        "{answers:?}"
    );
    two.store(false, Ordering::SeqCst);
    b.wait_status("Connector", "second", "Pending");
    wait_until("the listener to close", SOON, || refused(addr));
    b.wait_status("Listener", "web", "Pending");
    // includeNotReadyPods selects unhealthy servers too.
    a.resource(
        "Connector",
        "first",
        &probed(&first, ", includeNotReadyPods: true"),
    );
    wait_until("it to serve nevertheless", SOON, || {
        get(addr).contains("503 Sick")
    });
    // The status is updated with a delay.
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
fn a_failed_probe_leaves_open_connections_alone() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let at = server.addr;
    let spec = format!(
        "{{routingKey: echo, host: 127.0.0.1, port: {}, settings: {{health-check: tcp, \
         health-check-interval: 200ms, health-check-failures: '1'}}}}",
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
fn a_server_is_offered_after_probes_in_a_row_have_succeeded() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let spec = format!(
        "{{routingKey: echo, host: 127.0.0.1, port: {}, settings: {{health-check: tcp, \
         health-check-interval: 100ms, health-check-successes: '5'}}}}",
        server.addr.port()
    );
    a.resource("Connector", "echo", &spec);
    let addr = free_addr();
    b.listener("echo", "echo", addr);
    wait_until("the listener", SOON, || !refused(addr));
    let probes = server.accepted.load(Ordering::SeqCst);
    assert!(probes >= 5, "{probes} probes before it was offered");
    wait_until("the service", SOON, || works(addr));
}
