//! Connections of strangers: whoever has no certificate keeps nobody out.

use super::{MIB, with_memory_below};
use skupper_tests::{SOON, echo::connect, free_addr, site::Site, wait_until};
use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

/// Within this a link comes up beside idle connections, on a machine that runs other tests.
const UP: Duration = Duration::from_secs(8);

/// A good link comes up while connections that send `bytes` and nothing else are open and come again.
fn link_comes_up_beside(bytes: &[u8]) {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    b.link_to(&a, addr, 1);
    let open = || -> TcpStream {
        let mut socket = connect(addr).expect("a connection");
        socket.write_all(bytes).expect("sent");
        socket
    };
    with_memory_below(&a, 64 * MIB, || {
        let idle: Vec<TcpStream> = (0..600).map(|_| open()).collect();
        b.start();
        let begin = Instant::now();
        b.wait_status("Link", "to-a", "Ready");
        println!("the link took {:?}", begin.elapsed());
        assert!(begin.elapsed() < UP, "{:?}", begin.elapsed());
        drop(idle);
    });
    // One now and then is logged, not each.
    wait_until("a line", SOON, || {
        a.log().contains("cannot accept link: handshake failed")
    });
    let lines = a
        .log()
        .matches("cannot accept link: handshake failed")
        .count();
    assert!(lines < 60, "{lines} lines for 600 connections");
}

#[test]
fn six_hundred_silent_connections_do_not_keep_a_link_out() {
    link_comes_up_beside(b"");
}

#[test]
fn six_hundred_connections_with_half_a_handshake_do_not_keep_a_link_out() {
    link_comes_up_beside(b"\x16\x03\x01\x02\x00\x01");
}

/// Ends after two seconds a connection that has sent these bytes.
fn ends_early(bytes: &[u8]) {
    use std::io::Read;
    let mut a = Site::new("a");
    let addr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    let mut socket = connect(addr).expect("a connection");
    let begin = Instant::now();
    socket.write_all(bytes).expect("sent");
    assert!(!matches!(socket.read(&mut [0; 16]), Ok(1..)));
    assert!(
        begin.elapsed() < Duration::from_secs(8),
        "{:?}",
        begin.elapsed()
    );
    wait_until("the reason in the log", SOON, || {
        a.log().contains("no ClientHello within 2 s")
    });
}

#[test]
fn a_silent_connection_ends_after_two_seconds() {
    ends_early(b"");
}

#[test]
fn a_connection_with_half_a_client_hello_ends_after_two_seconds() {
    ends_early(b"\x16\x03\x01\x02\x00\x01");
}
