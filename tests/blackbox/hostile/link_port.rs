//! Peers on the port for links that lie, stay silent, flood or show the wrong certificate.

use skupper_tests::{
    SOON,
    echo::{connect, round_trip},
    free_addr, free_port, pki, resident,
    site::{Site, echo, linked},
    skip::program_runs,
    wait_until,
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

/// The log message about a peer whose handshake failed.
const REFUSED: &str = "cannot accept link: handshake failed";

#[test]
fn hostile_peers_are_refused_and_logged_once() {
    let (a, b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    let text = std::fs::read_to_string(a.input().join("RouterAccess-access.yaml")).expect("access");
    let port = text
        .split("port: ")
        .nth(1)
        .and_then(|t| t.split('}').next())
        .expect("port");
    let link: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
    // Plain text, random bytes, a frame of 2^31 bytes, silence.
    let attacks: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x9f; 4096],
        b"AMQP\x00\x01\x00\x00\x80\x00\x00\x00\x02\x00\x00\x00",
        b"",
    ];
    for attack in attacks {
        let before = a.log().matches(REFUSED).count();
        let mut socket = connect(link).expect("accepted");
        socket.write_all(attack).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).ok();
        // The daemon answers with an alert or not at all, and closes the connection.
        socket.read_to_end(&mut Vec::new()).ok();
        wait_until("one line in the log", SOON, || {
            a.log().matches(REFUSED).count() == before + 1
        });
    }
    assert!(
        a.log().contains(&format!("{REFUSED} peer=127.0.0.1:")),
        "{}",
        a.log()
    );
    round_trip(&mut held, b"undisturbed").expect("others go on");
}

/// Heartbeats to a peer must not depend on how much it sends itself.
#[test]
fn a_busy_peer_gets_its_heartbeats() {
    let mut site = Site::new("a");
    let port = free_port();
    let spec = format!("{{settings: {{local-amqp-port: \"{port}\"}}}}");
    site.resource("Site", "a", &spec);
    site.start();
    let mut socket = None;
    wait_until("the local port", SOON, || {
        socket = connect(SocketAddr::from(([127, 0, 0, 1], port))).ok();
        socket.is_some()
    });
    let mut socket = socket.expect("a connection");
    // SASL ANONYMOUS, then an open with an idle timeout of a second.
    socket.write_all(b"AMQP\x03\x01\x00\x00").expect("sent");
    let init = b"\0\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS";
    frame(&mut socket, 1, init);
    socket.write_all(b"AMQP\x00\x01\x00\x00").expect("sent");
    frame(
        &mut socket,
        0,
        b"\0\x53\x10\xc0\x0c\x05\xa1\x01p\x40\x40\x40\x70\0\0\x03\xe8",
    );
    let empty = [0, 0, 0, 8, 2, 0, 0, 0];
    let (mut heard, mut buf) = (Vec::new(), [0; 1024]);
    let timeout = Some(Duration::from_millis(50));
    socket.set_read_timeout(timeout).expect("a timeout");
    wait_until("a heartbeat", SOON, || {
        socket.write_all(&empty).expect("still open");
        if let Ok(n) = socket.read(&mut buf) {
            assert_ne!(n, 0, "closed: {}", site.log());
            heard.extend_from_slice(&buf[..n]);
        }
        heard.ends_with(&empty)
    });
}

fn frame(socket: &mut std::net::TcpStream, kind: u8, body: &[u8]) {
    let size = u32::try_from(body.len() + 8).expect("a small frame");
    socket.write_all(&size.to_be_bytes()).expect("sent");
    socket.write_all(&[2, kind, 0, 0]).expect("sent");
    socket.write_all(body).expect("sent");
}

/// The memory of the daemon must not grow under waves of peers that are no routers.
#[test]
fn memory_is_flat_under_lying_peers() {
    let mut a = Site::new("a");
    let addr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    let first_bytes: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: router\r\n\r\n",
        // A TLS record that announces 16 KiB and is cut short.
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
        b"AMQP\x00\x01\x00\x00",
        &[0xff; 4096],
        b"",
    ];
    let wave = || {
        let mut open = Vec::new();
        for i in 0..500 {
            let mut socket = connect(addr).expect("accepted");
            // The daemon may refuse before everything is sent.
            drop(socket.write_all(first_bytes[i % first_bytes.len()]));
            open.push(socket);
        }
        for mut socket in open {
            socket.shutdown(std::net::Shutdown::Write).ok();
            let mut rest = Vec::new();
            // The daemon must close or reset the connection.
            drop(socket.read_to_end(&mut rest));
            assert!(rest.len() < 1024, "{} bytes for a stranger", rest.len());
        }
    };
    wave();
    let before = resident(a.pid());
    for _ in 0..4 {
        wave();
    }
    let after = resident(a.pid());
    println!("resident {before} bytes, after 2,000 more peers {after}");
    assert!(after < before + (2 << 20), "{before} bytes grew to {after}");
}

#[test]
fn wrong_certificates_are_refused() {
    if !program_runs("openssl".as_ref(), &["version"]) {
        return;
    }
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    let good = a.link(addr, 1);
    b.start();
    let dir = tempfile::tempdir().expect("a directory");
    // Another CA; an expired certificate.
    let ca = std::fs::read_to_string(
        a.root()
            .join("namespaces/default/runtime/issuers/skupper-site-ca/tls.crt"),
    )
    .expect("the CA");
    let key = std::fs::read_to_string(
        a.root()
            .join("namespaces/default/runtime/issuers/skupper-site-ca/tls.key"),
    )
    .expect("its key");
    let foreign = pki::foreign("client");
    let expired = pki::expired("client", &ca, &key);
    for (name, (certificate, key)) in [("foreign", foreign), ("expired", expired)] {
        let before = a.log().matches(REFUSED).count();
        let text =
            pki::replace(&good, &certificate, &key).replace("name: to-a", &format!("name: {name}"));
        let text = text.replace("tlsCredentials: to-a", &format!("tlsCredentials: {name}"));
        b.file(&format!("{name}.yaml"), &text);
        wait_until("the refusal in the log", SOON, || {
            a.log().matches(REFUSED).count() > before
        });
        b.wait_message("Link", name, "Pending", "Not operational");
        b.ok(&["link", "delete", name]);
    }
    // No certificate at all, and TLS 1.2.
    let target = addr.to_string();
    for args in [vec!["-tls1_3"], vec!["-tls1_2"]] {
        let before = a.log().matches(REFUSED).count();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &target])
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        wait_until("the refusal in the log", SOON, || {
            a.log().matches(REFUSED).count() > before
        });
        child.wait().expect("openssl ends");
    }
    drop(dir);
    // The failed link does not affect other links.
    b.file("good.yaml", &good);
    b.wait_status("Link", "to-a", "Ready");
}

#[test]
fn silent_connections_to_the_link_port_do_not_hold_it() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr: SocketAddr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    let silent: Vec<_> = (0..100).map(|_| connect(addr).expect("accepted")).collect();
    b.link_to(&a, addr, 1);
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    drop(silent);
}
