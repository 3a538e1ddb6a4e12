//! TLS at the two ends of a service.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr, pki,
    site::{Site, linked},
    tls::{self, Client, back, end},
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

const SERVICE_CA: &str = "namespaces/default/runtime/issuers/skupper-service-ca/tls.crt";

/// Puts credentials into the input, in one go.
fn give(site: &Site, name: &str, files: &[(&str, &str)]) {
    let certs = site.root().join("namespaces/default/input/certs");
    let dir = certs.join(name);
    fs::create_dir_all(&dir).expect("a directory");
    for (file, text) in files {
        let temporary = dir.join(format!(".{file}"));
        fs::write(&temporary, text).expect("a file");
        fs::rename(temporary, dir.join(file)).expect("a file");
    }
}

fn listener(site: &Site, name: &str, addr: SocketAddr, rest: &str) {
    let spec = format!(
        "{{routingKey: echo, host: \"{}\", port: {}, tlsCredentials: {name}{rest}}}",
        addr.ip(),
        addr.port()
    );
    site.resource("Listener", name, &spec);
}

fn connector(site: &Site, name: &str, key: &str, addr: SocketAddr, rest: &str) {
    let spec = format!(
        "{{routingKey: {key}, host: \"{}\", port: {}, tlsCredentials: {name}{rest}}}",
        addr.ip(),
        addr.port()
    );
    site.resource("Connector", name, &spec);
}

/// An echo server without TLS at the first of two sites, and a listener with TLS at each.
struct Service {
    a: Site,
    b: Site,
    server: Server,
    here: SocketAddr,
    there: SocketAddr,
    client: Client,
}

fn service(rest: &str) -> Service {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let (here, there) = (free_addr(), free_addr());
    a.connector("echo", "echo", server.addr);
    let ca = pki::ca("Our Company");
    let own = pki::server(&ca, &["127.0.0.1"]);
    for site in [&a, &b] {
        let files = [("ca.crt", &*ca.0), ("tls.crt", &own.0), ("tls.key", &own.1)];
        give(site, "web", &files);
    }
    listener(&a, "web", here, rest);
    listener(&b, "web", there, rest);
    wait_until("both listeners", SOON, || !refused(here) && !refused(there));
    Service {
        a,
        b,
        server,
        here,
        there,
        client: Client {
            own: Some(pki::server(&ca, &["client"])),
            ..Client::of(&ca.0)
        },
    }
}

/// What `openssl s_client` says of a listener.
fn openssl(addr: SocketAddr, ca: &PathBuf, rest: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-verify_return_error", "-brief", "-connect"])
        .arg(addr.to_string())
        .arg("-CAfile")
        .arg(ca)
        .args(rest)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn v26_listener_shows_a_certificate_of_the_service_ca_or_its_own() {
    let (a, b) = linked();
    let server = Server::echo(free_addr());
    let (addr, other) = (free_addr(), free_addr());
    a.connector("echo", "echo", server.addr);
    listener(&b, "web", addr, "");
    b.listener("plain", "echo", other);
    b.wait_status("Listener", "web", "Ready");
    wait_until("the other listener", SOON, || works(other));
    let ca = b.root().join(SERVICE_CA);
    for version in ["-tls1_2", "-tls1_3"] {
        let said = openssl(addr, &ca, &["-verify_ip", "127.0.0.1", version]);
        assert!(said.contains("Verification: OK"), "{said}");
    }
    let said = openssl(addr, &ca, &["-verify_hostname", "elsewhere.example"]);
    assert!(said.contains("hostname mismatch"), "{said}");
    let client = Client::of(&fs::read_to_string(&ca).expect("the service CA"));
    client.echo(addr).expect("bytes through the listener");
    let status = b.status("Listener", "web").expect("a status");
    assert!(
        status["status"]["certificateExpirationTime"].is_string(),
        "{status}"
    );
    // The user's own goes before ours: for new connections, and those that are open stay.
    let mut held = client.connect(addr).expect("a connection");
    back(&mut held, b"before").expect("works");
    let company = pki::ca("Our Company");
    let own = pki::server(&company, &["web.example"]);
    give(&b, "web", &[("tls.key", &own.1), ("tls.crt", &own.0)]);
    let ca = b.root().join("company.crt");
    fs::write(&ca, &company.0).expect("a file");
    wait_until("its own certificate", SOON, || {
        openssl(addr, &ca, &["-verify_hostname", "web.example"]).contains("Verification: OK")
    });
    assert!(!client.works(addr), "the old certificate is shown");
    back(&mut held, b"after").expect("the open connection lives");
    // As a Secret too.
    fs::remove_dir_all(b.root().join("namespaces/default/input/certs/web")).expect("removed");
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: web}}\nstringData:\n  tls.crt: {:?}\n  tls.key: {:?}\n",
        own.0, own.1
    );
    b.file("secret.yaml", &secret);
    let named = Client {
        name: "web.example",
        ..Client::of(&company.0)
    };
    wait_until("the Secret", SOON, || named.works(addr));
    back(&mut held, b"at last").expect("the open connection lives");
}

#[test]
fn v27_connector_trusts_its_ca_verifies_names_and_shows_a_certificate_as_told() {
    let (a, b) = linked();
    let ca = pki::ca("Servers");
    let (good, wrong) = (
        pki::server(&ca, &["127.0.0.1"]),
        pki::server(&ca, &["elsewhere.example"]),
    );
    let own = pki::server(&ca, &["client"]);
    let foreign = pki::ca("Strangers");
    let stranger = pki::server(&foreign, &["127.0.0.1"]);
    let servers = [
        ("good", tls::echo(free_addr(), &good, None)),
        ("wrong", tls::echo(free_addr(), &wrong, None)),
        ("demands", tls::echo(free_addr(), &good, Some(&ca.0))),
        ("stranger", tls::echo(free_addr(), &stranger, None)),
    ];
    let cases = [
        ("", [true, true, false, false]),
        (", verifyHostname: true", [true, false, false, false]),
        (", useClientCert: true", [true, true, true, false]),
        (
            ", verifyHostname: true, useClientCert: true",
            [true, false, true, false],
        ),
    ];
    let mut listeners = Vec::new();
    for (n, (rest, expected)) in cases.into_iter().enumerate() {
        for ((server, at), works) in servers.iter().zip(expected) {
            let name = format!("{server}{n}");
            // A CA is all that it takes, unless a certificate is to be shown.
            let mut files = vec![("ca.crt", &*ca.0)];
            if rest.contains("useClientCert") {
                files.extend([("tls.crt", &*own.0), ("tls.key", &*own.1)]);
            }
            give(&a, &name, &files);
            connector(&a, &name, &name, at.addr, rest);
            let (here, there) = (free_addr(), free_addr());
            a.listener(&name, &name, here);
            b.listener(&name, &name, there);
            listeners.push((name, here, there, works));
        }
    }
    for (name, here, there, expected) in listeners {
        for addr in [here, there] {
            wait_until("the listener", SOON, || !refused(addr));
            assert_eq!(works(addr), expected, "{name} at {addr}");
        }
        // A server that demands a certificate says so when its handshake is over for us.
        if !expected && !name.starts_with("demands") {
            wait_until("the reason in the status", SOON, || {
                let status = a.status("Connector", &name).expect("a status");
                let failure = status["status"]["lastFailure"].as_str();
                failure.is_some_and(|f| f.contains("certificate"))
            });
        }
    }
}

#[test]
fn v27_a_server_is_asked_for_another_name_and_new_credentials_are_taken() {
    let (a, b) = linked();
    let (old, new) = (pki::ca("old"), pki::ca("new"));
    let server = tls::echo(free_addr(), &pki::server(&old, &["db.example"]), None);
    let renewed = tls::echo(free_addr(), &pki::server(&new, &["db.example"]), None);
    give(&a, "db", &[("ca.crt", &old.0)]);
    let rest = ", verifyHostname: true, settings: {tls-server-name: db.example}";
    connector(&a, "db", "db", server.addr, rest);
    let addr = free_addr();
    b.listener("db", "db", addr);
    wait_until("the service", SOON, || works(addr));
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    a.resource(
        "Connector",
        "new",
        &format!(
            "{{routingKey: new, host: 127.0.0.1, port: {}, tlsCredentials: db, verifyHostname: true, \
             settings: {{tls-server-name: db.example}}}}",
            renewed.addr.port()
        ),
    );
    let other = free_addr();
    b.listener("new", "new", other);
    wait_until("the listener", SOON, || !refused(other));
    assert!(!works(other), "a CA that is not named is trusted");
    give(&a, "db", &[("ca.crt", &new.0)]);
    wait_until("the new CA to be trusted", SOON, || works(other));
    assert!(!works(addr), "the old CA is trusted");
    round_trip(&mut held, b"after").expect("the open connection lives");
}

#[test]
fn v28_credentials_that_are_not_there_are_an_error_of_that_resource_alone() {
    let (a, b) = linked();
    let (server, plain) = (Server::echo(free_addr()), Server::echo(free_addr()));
    connector(&a, "secured", "secured", server.addr, "");
    a.connector("echo", "echo", plain.addr);
    let (addr, other, open) = (free_addr(), free_addr(), free_addr());
    b.listener("secured", "secured", addr);
    b.listener("plain", "echo", open);
    // A directory that lacks a part is no credentials.
    give(&b, "broken", &[("tls.crt", "x")]);
    listener(&b, "broken", other, "");
    a.wait_message(
        "Connector",
        "secured",
        "Error",
        "TLS credentials secret \"secured\" not found",
    );
    b.wait_message("Listener", "broken", "Error", "tls.key is missing");
    wait_until("the plain one to work", SOON, || works(open));
    a.wait_status("Connector", "echo", "Ready");
    assert!(refused(other) && refused(addr), "it is served");
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0, "served in plain");
    // They come later.
    let ca = pki::ca("ca");
    let own = pki::server(&ca, &["127.0.0.1"]);
    let files = [("ca.crt", &*ca.0), ("tls.crt", &own.0), ("tls.key", &own.1)];
    give(&b, "broken", &files);
    let client = Client::of(&ca.0);
    wait_until("the listener to work", SOON, || client.works(other));
    assert!(!works(other), "a listener with TLS takes plain bytes");
    // Gone again: what it had stays in use, and is said to.
    fs::remove_file(
        b.root()
            .join("namespaces/default/input/certs/broken/tls.key"),
    )
    .expect("removed");
    b.wait_message("Listener", "broken", "Error", "what it had stays in use");
    client.echo(other).expect("it goes on");
}

#[test]
fn v30_protocols_are_agreed_on_from_end_to_end() {
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
        // gRPC knows nothing else; a browser gets what every server can do.
        (here, &["h2"], "h2"),
        (there, &["h2"], "h2"),
        (there, &["h2", "http/1.1"], "http/1.1"),
        (there, &["http/1.1"], "http/1.1"),
        // Others are let in without one.
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
        // The server was asked for the same.
        stream.write_all(b"protocol?").expect("sent");
        let mut said = vec![0; expected.len()];
        stream.read_exact(&mut said).expect("an answer");
        assert_eq!(said, expected.as_bytes(), "{protocols:?} at {addr}");
    }
}

#[test]
fn v35_clients_show_a_certificate_where_they_have_to() {
    let s = service("");
    let asked = free_addr();
    let multi = free_addr();
    let ca = fs::read_to_string(s.b.root().join("namespaces/default/input/certs/web/ca.crt"));
    drop(ca.expect("a CA"));
    s.b.resource(
        "Listener",
        "asked",
        &format!(
            "{{routingKey: echo, host: 127.0.0.1, port: {}, tlsCredentials: web, \
             settings: {{client-certificate: optional}}}}",
            asked.port()
        ),
    );
    s.b.resource(
        "MultiKeyListener",
        "multi",
        &format!(
            "{{host: 127.0.0.1, port: {}, tlsCredentials: web, requireClientCert: true, \
             strategy: {{priority: {{routingKeys: [echo]}}}}}}",
            multi.port()
        ),
    );
    listener(
        &s.b,
        "web",
        s.there,
        ", settings: {client-certificate: required}",
    );
    let with = s.client.clone();
    let without = Client {
        own: None,
        ..with.clone()
    };
    let ca = pki::ca("Strangers");
    let stranger = Client {
        own: Some(pki::server(&ca, &["client"])),
        ..with.clone()
    };
    for addr in [s.there, asked, multi] {
        wait_until("it to be open for those with one", SOON, || {
            with.works(addr)
        });
    }
    wait_until("it to be closed for those without", SOON, || {
        !without.works(s.there)
    });
    assert!(!without.works(multi), "requireClientCert lets anybody in");
    without.echo(asked).expect("a certificate is not required");
    for addr in [s.there, asked, multi] {
        assert!(!stranger.works(addr), "a stranger's certificate at {addr}");
    }
    s.client.echo(s.here).expect("others do not mind");
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
        // A rustls stream is not for two threads: what is sent waits while nobody reads.
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
    // Towards a server with TLS, with all of it on its way at once.
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
fn tls_that_is_cut_short_is_a_reset_and_no_end() {
    let s = service("");
    // What a server hears: the bytes, and how they ended.
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
        // Anybody on the way could send this.
        stream.sock.shutdown(Shutdown::Write).expect("FIN");
        let (_, end) = ends.recv_timeout(SOON).expect("heard");
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset), "{name}");
    }
    // And from a server: what says nothing more than FIN.
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
fn tls_silent_clients_are_sent_away_and_failures_counted_and_told_of_once() {
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
    // The first who was too late; others of that moment are counted with the next look.
    wait_until("them to be counted", SOON, || {
        let status = s.b.status("Listener", "web").expect("a status");
        let count = status["status"]["tlsHandshakeFailures"].as_u64();
        count.is_some_and(|n| (21..=70).contains(&n))
    });
}
