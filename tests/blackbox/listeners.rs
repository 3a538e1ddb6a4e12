//! Listeners: when they open and close, and which addresses they take.

use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, read_to_close, refused, round_trip, works},
    free_addr,
    site::{Site, linked, service},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    time::Duration,
};

#[test]
fn listener_and_connector_by_command() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let (target, port) = (server.addr.port().to_string(), addr.port().to_string());
    a.ok(&["connector", "create", "db", &target, "--host", "127.0.0.1"]);
    b.ok(&["listener", "create", "db", &port, "--host", "127.0.0.1"]);
    wait_until("the service to work", Duration::from_secs(5), || {
        works(addr)
    });
    b.wait_status("Listener", "db", "Ready");
    a.wait_status("Connector", "db", "Ready");
}

#[test]
fn unmatched_listener_is_pending_and_closed() {
    let (a, b) = linked();
    let addr = free_addr();
    b.listener("echo", "echo", addr);
    assert_eq!(
        b.wait_status("Listener", "echo", "Pending"),
        "No matching connectors"
    );
    assert!(refused(addr), "a listener without a connector accepts");
    let server = Server::echo(free_addr());
    a.connector("echo", "echo", server.addr);
    b.wait_status("Listener", "echo", "Ready");
    assert!(works(addr));
    a.remove("Connector", "echo");
    b.wait_status("Listener", "echo", "Pending");
    wait_until("the listener to close", SOON, || refused(addr));
}

#[test]
fn order_of_listener_and_connector_does_not_matter() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let (one, two) = (free_addr(), free_addr());
    a.connector("one", "one", server.addr);
    a.wait_status("Connector", "one", "Pending");
    b.listener("one", "one", one);
    b.listener("two", "two", two);
    b.wait_status("Listener", "two", "Pending");
    a.connector("two", "two", server.addr);
    wait_until("both to work", SOON, || works(one) && works(two));
}

#[test]
fn same_site_needs_no_link() {
    let mut a = Site::new("a");
    a.start();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    a.connector("echo", "echo", server.addr);
    a.listener("echo", "echo", addr);
    wait_until("the service to work", SOON, || works(addr));
    // Half-close works on one site too.
    let mut socket = connect(addr).expect("a connection");
    socket.write_all(&vec![7; 100_000]).expect("sent");
    socket.shutdown(Shutdown::Write).expect("half-closed");
    let mut back = Vec::new();
    let mut reader = RetryingReader(&socket);
    reader.read_to_end(&mut back).expect("everything back");
    assert_eq!(back.len(), 100_000);
}

#[test]
fn changes_touch_only_what_changed() {
    let (a, b, _server, addr) = service();
    let other = free_addr();
    b.listener("other", "echo", other);
    wait_until("the other listener", SOON, || works(other));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    let moved = free_addr();
    b.listener("other", "echo", moved);
    wait_until("the new port", SOON, || works(moved));
    wait_until("the old port to close", SOON, || refused(other));
    let text = Server::says(free_addr(), "text");
    a.connector("text", "text", text.addr);
    b.listener("other", "text", moved);
    wait_until("the new key", SOON, || {
        read_to_close(moved).is_ok_and(|t| t == "text")
    });
    round_trip(&mut held, b"after").expect("the untouched listener's connection lives");
}

#[test]
fn duplicate_address_is_an_error_of_the_second() {
    let (_a, b, _server, addr) = service();
    let wild = SocketAddr::new([0, 0, 0, 0].into(), addr.port());
    b.listener("zz", "echo", wild);
    b.wait_message("Listener", "zz", "Error", "already mapped");
    assert!(works(addr), "the first listener goes on");
}

#[test]
fn busy_port_is_reported_and_recovers() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let squatter = TcpListener::bind(addr).expect("the port");
    a.connector("echo", "echo", server.addr);
    b.listener("echo", "echo", addr);
    b.wait_message("Listener", "echo", "Error", "Address already in use");
    drop(squatter);
    wait_until("the listener to open", SOON, || works(addr));
    b.wait_status("Listener", "echo", "Ready");
}

#[test]
fn deleted_listener_cuts_its_connections() {
    let (_a, b, server, addr) = service();
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"x").expect("works");
    assert!(b.ok(&["listener", "delete", "echo"]).contains("is deleted"));
    wait_until("the port to close", SOON, || refused(addr));
    assert!(
        !matches!(held.read(&mut [0; 1]), Ok(1..)),
        "the connection goes on"
    );
    wait_until("the server to see it", SOON, || {
        server.open.load(std::sync::atomic::Ordering::SeqCst) == 0
    });
}

#[test]
fn udp_is_refused_with_a_message() {
    let site = Site::new("a");
    let output = site.skupper(&["listener", "create", "dns", "53", "--type", "udp"]);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("value udp not allowed") && errors.contains("[tcp]"),
        "{errors}"
    );
}

#[test]
fn ipv6_and_host_names() {
    let (a, b) = linked();
    let Ok(probe) = TcpListener::bind("[::1]:0") else {
        skupper_tests::skip::skip("this host has no IPv6 loopback");
        return;
    };
    let port = probe.local_addr().expect("its address").port();
    drop(probe);
    let server = Server::echo(SocketAddr::new("::1".parse().expect("an address"), port));
    let addr = SocketAddr::new(
        "::1".parse().expect("an address"),
        skupper_tests::free_port(),
    );
    a.connector("six", "six", server.addr);
    b.listener("six", "six", addr);
    wait_until("IPv6 both ways", SOON, || works(addr));
    let named = skupper_tests::free_port();
    b.resource(
        "Listener",
        "name",
        &format!("{{routingKey: six, host: localhost, port: {named}}}"),
    );
    wait_until("a listener by name", SOON, || {
        works(([127, 0, 0, 1], named).into())
    });
    let target = Server::echo(free_addr());
    let spec = format!(
        "{{routingKey: name, host: localhost, port: {}}}",
        target.addr.port()
    );
    a.resource("Connector", "name", &spec);
    let four = free_addr();
    b.listener("four", "name", four);
    wait_until("a connector by name", SOON, || works(four));
}
