//! How open connections end when a daemon stops or dies in the middle of their data.

use nix::sys::signal::Signal;
use skupper_tests::{
    SOON,
    echo::{RetryingReader, Server, connect, wait_reads},
    free_addr,
    site::Site,
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::mpsc::{Receiver, channel},
};

/// How the next read of a connection ends.
fn ending(socket: &TcpStream) -> Result<usize, ErrorKind> {
    RetryingReader(socket)
        .read(&mut [0; 64])
        .map_err(|error| error.kind())
}

/// A server that greets its clients, and how each connection ended for it.
fn greeter() -> (Server, Receiver<Result<usize, ErrorKind>>) {
    let (ended, endings) = channel();
    let server = Server::start(free_addr(), move |mut socket| {
        if socket.write_all(b"hello").is_ok() {
            ended.send(ending(&socket)).ok();
        }
    });
    (server, endings)
}

/// Connects and waits for the greeting: data is on its way in both directions.
fn greeted(addr: SocketAddr) -> TcpStream {
    let socket = connect(addr).expect("a connection");
    let mut greeting = [0; 5];
    RetryingReader(&socket)
        .read_exact(&mut greeting)
        .expect("a greeting");
    socket
}

fn stop(site: &mut Site, signal: Signal) {
    match signal {
        Signal::SIGKILL => site.kill(),
        _ => assert_eq!(site.stop(), Some(0)),
    }
}

/// Two linked sites, `a` with the connector; a connection from `b` is open when `stopped` ends.
fn end_over_a_link(stopped: &str, signal: Signal) {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let (links, addr) = (free_addr(), free_addr());
    let (server, endings) = greeter();
    a.access(links);
    a.connector("key", "key", server.addr);
    b.link_to(&a, links, 1);
    b.listener("key", "key", addr);
    for site in [&mut a, &mut b] {
        site.start_with(&["--drain", "1"]);
    }
    b.wait_status("Listener", "key", "Ready");
    let client = greeted(addr);
    stop(if stopped == "a" { &mut a } else { &mut b }, signal);
    let reset = Err(ErrorKind::ConnectionReset);
    let what = format!("{signal} at {stopped}");
    assert_eq!(ending(&client), reset, "the client, {what}");
    let ended = endings.recv_timeout(SOON).expect("an end");
    assert_eq!(ended, reset, "the server, {what}");
}

#[test]
fn at_the_drain_deadline_connections_over_a_link_are_reset() {
    end_over_a_link("a", Signal::SIGTERM);
    end_over_a_link("b", Signal::SIGTERM);
}

#[test]
fn a_killed_daemon_leaves_connections_over_a_link_reset() {
    end_over_a_link("a", Signal::SIGKILL);
    end_over_a_link("b", Signal::SIGKILL);
}

#[test]
fn at_the_drain_deadline_and_when_killed_connections_of_one_site_are_reset() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut a = Site::new("a");
        let (server, endings) = greeter();
        let addr = free_addr();
        a.connector("key", "key", server.addr);
        a.listener("key", "key", addr);
        a.start_with(&["--drain", "1"]);
        a.wait_status("Listener", "key", "Ready");
        let client = greeted(addr);
        stop(&mut a, signal);
        let reset = Err(ErrorKind::ConnectionReset);
        assert_eq!(ending(&client), reset, "the client, {signal}");
        let ended = endings.recv_timeout(SOON).expect("an end");
        assert_eq!(ended, reset, "the server, {signal}");
    }
}

/// What is unsent when both directions have ended is sent after the daemon has closed its socket.
#[test]
fn a_finished_connection_is_whole_for_a_reader_with_little_room() {
    const SIZE: usize = 1 << 20;
    let mut a = Site::new("a");
    let server = Server::start(free_addr(), |mut socket| {
        socket.read_to_end(&mut Vec::new()).ok();
        socket.write_all(&vec![7; SIZE]).ok();
    });
    let addr = free_addr();
    a.connector("key", "key", server.addr);
    a.listener("key", "key", addr);
    a.start();
    a.wait_status("Listener", "key", "Ready");
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    client.set_recv_buffer_size(4096).expect("an option");
    client.connect(&addr.into()).expect("a connection");
    let client = TcpStream::from(client);
    client.set_read_timeout(Some(SOON)).expect("a timeout");
    client.shutdown(Shutdown::Write).expect("half-closed");
    let mut all = Vec::new();
    RetryingReader(&client)
        .read_to_end(&mut all)
        .expect("all of it, and then the end");
    assert_eq!(all.len(), SIZE);
}

#[test]
fn a_client_that_no_server_takes_is_reset() {
    let mut a = Site::new("a");
    let (addr, server) = (free_addr(), free_addr());
    a.connector("key", "key", server);
    a.listener("key", "key", addr);
    a.start();
    a.wait_status("Listener", "key", "Ready");
    // The reset can be there before the client has looked at its socket.
    let ended = connect(addr).map_err(|e| e.kind());
    let ended = ended.and_then(|client| ending(&client));
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
    let _server = Server::says(server, "here");
    wait_reads(addr, "here");
}
