//! TLS of services: ALPN, half-close, truncation and silent clients.

use super::tls::{connector, give, listener, service};
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, works},
    free_addr, pki,
    site::linked,
    tls::{self, Client, end},
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

#[test]
fn alpn_is_negotiated_end_to_end() {
    let ca = pki::ca("ca");
    let pair = pki::server(&ca, &["127.0.0.1"]);
    let server = tls::echo(free_addr(), &pair, None);
    let (a, b) = linked();
    for site in [&a, &b] {
        let files = [
            ("ca.crt", &*ca.0),
            ("tls.crt", &pair.0),
            ("tls.key", &pair.1),
        ];
        give(site, "web", &files);
    }
    connector(&a, "web", "echo", server.addr, "");
    let (here, there, own) = (free_addr(), free_addr(), free_addr());
    listener(&a, "web", here, "");
    listener(&b, "web", there, "");
    give(&b, "own", &[("tls.crt", &pair.0), ("tls.key", &pair.1)]);
    listener(&b, "own", own, ", settings: {alpn: \"h2, other\"}");
    let cases: [(SocketAddr, &[&'static str], &str); 9] = [
        // gRPC offers only h2; a browser gets a protocol that both ends support.
        (here, &["h2"], "h2"),
        (there, &["h2"], "h2"),
        (there, &["h2", "http/1.1"], "http/1.1"),
        (there, &["http/1.1"], "http/1.1"),
        // Clients without a common protocol are accepted.
        (there, &["other"], "-"),
        (there, &[], "-"),
        (own, &["h2", "http/1.1"], "h2"),
        (own, &["other"], "other"),
        (own, &["http/1.1"], "-"),
    ];
    for (addr, protocols, expected) in cases {
        wait_until("the listener", SOON, || !refused(addr));
        let client = Client {
            protocols: protocols.to_vec(),
            ..Client::of(&ca.0)
        };
        let mut stream = client.connect(addr).expect("a connection");
        let agreed = stream.conn.alpn_protocol().unwrap_or(b"-").to_vec();
        assert_eq!(agreed, expected.as_bytes(), "{protocols:?} at {addr}");
        // The server negotiated the same protocol.
        stream.write_all(b"protocol?").expect("sent");
        let mut said = vec![0; expected.len()];
        stream.read_exact(&mut said).expect("an answer");
        assert_eq!(said, expected.as_bytes(), "{protocols:?} at {addr}");
    }
}

#[test]
fn tls_half_close_is_kept_both_ways_and_large_transfers_are_equal() {
    let s = service("");
    let ca = pki::ca("Servers");
    let far = tls::echo(free_addr(), &pki::server(&ca, &["127.0.0.1"]), None);
    let secured = free_addr();
    give(&s.a, "far", &[("ca.crt", &ca.0)]);
    connector(&s.a, "far", "far", far.addr, "");
    s.b.listener("far", "far", secured);
    wait_until("the server with TLS", SOON, || works(secured));
    let payload: Vec<u8> = (0..12_000_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    for addr in [s.here, s.there] {
        let stream = s.client.connect(addr).expect("a connection");
        // A thread writes while this one reads: writes block until the peer reads.
        let mut stream = stream;
        let mut got = Vec::new();
        let mut buf = vec![0; 64 * 1024];
        for chunk in payload.chunks(64 * 1024) {
            stream.write_all(chunk).expect("sent");
            stream.flush().expect("sent");
            let mut left = chunk.len();
            while left > 0 {
                let n = stream.read(&mut buf).expect("some back");
                got.extend_from_slice(&buf[..n]);
                left -= n;
            }
        }
        stream.write_all(b"the rest").expect("sent");
        end(&mut stream);
        let mut rest = Vec::new();
        stream
            .read_to_end(&mut rest)
            .expect("close_notify comes back");
        assert!(got == payload && rest == b"the rest", "at {addr}");
    }
    // To a server with TLS, with all bytes in flight at once.
    let mut socket = connect(secured).expect("a connection");
    let mut reader = socket.try_clone().expect("a socket");
    let echoed = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map(|_| all)
    });
    socket.write_all(&payload).expect("sent");
    socket.shutdown(Shutdown::Write).expect("half-closed");
    let echoed = echoed.join().expect("a thread").expect("all of it");
    assert!(echoed == payload, "{} of {}", echoed.len(), payload.len());
}

#[test]
fn truncated_tls_becomes_a_reset() {
    let s = service("");
    // The server reports the received bytes and the end of the stream.
    let (heard, ends) = std::sync::mpsc::channel();
    let ears = Server::start(free_addr(), move |mut socket| {
        let mut all = Vec::new();
        let result = socket.read_to_end(&mut all).map_err(|e| e.kind());
        drop(heard.send((all, result.map(drop))));
    });
    s.a.connector("ears", "ears", ears.addr);
    for (site, name) in [(&s.a, "near"), (&s.b, "far")] {
        let addr = free_addr();
        site.resource(
            "Listener",
            name,
            &format!(
                "{{routingKey: ears, host: 127.0.0.1, port: {}, tlsCredentials: web}}",
                addr.port()
            ),
        );
        wait_until("the listener", SOON, || !refused(addr));
        let mut stream = s.client.connect(addr).expect("a connection");
        stream.write_all(b"all of it").expect("sent");
        end(&mut stream);
        let (all, end) = ends.recv_timeout(SOON).expect("heard");
        assert_eq!((&*all, end), (&b"all of it"[..], Ok(())), "{name}");
        let mut stream = s.client.connect(addr).expect("a connection");
        stream.write_all(b"some of it").expect("sent");
        // An attacker on the path could send this FIN.
        stream.sock.shutdown(Shutdown::Write).expect("FIN");
        let (_, end) = ends.recv_timeout(SOON).expect("heard");
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{name}");
    }
    // A server's FIN without close_notify.
    let ca = pki::ca("Servers");
    let pair = pki::server(&ca, &["127.0.0.1"]);
    let dir = s.a.root();
    fs::write(dir.join("s.crt"), &pair.0).expect("a file");
    fs::write(dir.join("s.key"), &pair.1).expect("a file");
    give(&s.a, "cut", &[("ca.crt", &ca.0)]);
    let target = tls::echo(free_addr(), &pair, None);
    connector(&s.a, "cut", "cut", target.addr, "");
    let addr = free_addr();
    s.b.listener("cut", "cut", addr);
    wait_until("the service", SOON, || works(addr));
}

#[test]
fn tls_silent_clients_are_closed_and_failures_logged_once() {
    let s = service("");
    let begin = Instant::now();
    let mut silent: Vec<_> = (0..50)
        .map(|_| connect(s.there).expect("accepted"))
        .collect();
    s.client.echo(s.there).expect("others are served meanwhile");
    for _ in 0..20 {
        let mut plain = connect(s.there).expect("accepted");
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
        drop(plain.read_to_end(&mut Vec::new()));
    }
    for socket in &mut silent {
        let mut end = [0; 1];
        assert!(!matches!(socket.read(&mut end), Ok(1..)), "it is answered");
    }
    let took = begin.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(18)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        s.server.open.load(Ordering::SeqCst),
        0,
        "the server hears of them"
    );
    let log = s.b.log();
    let lines = log.matches("TLS handshake failed").count();
    assert!((1..=6).contains(&lines), "{lines} lines\n{log}");
    // The first late client is counted at once, others at the next check.
    wait_until("them to be counted", SOON, || {
        let status = s.b.status("Listener", "web").expect("a status");
        let count = status["status"]["tlsHandshakeFailures"].as_u64();
        count.is_some_and(|n| (21..=70).contains(&n))
    });
}
