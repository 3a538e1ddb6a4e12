//! TLS of services: the certificates that sites present, request and verify.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr, pki,
    site::{Site, linked},
    tls::{self, Client, expect_echo},
    wait_until,
};
use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::Ordering,
};

pub(crate) const SERVICE_CA: &str = "namespaces/default/runtime/issuers/skupper-service-ca/tls.crt";

/// Writes credentials into the input in one step.
pub(crate) fn give(site: &Site, name: &str, files: &[(&str, &str)]) {
    let certs = site.root().join("namespaces/default/input/certs");
    let dir = certs.join(name);
    fs::create_dir_all(&dir).expect("a directory");
    for (file, text) in files {
        let temporary = dir.join(format!(".{file}"));
        fs::write(&temporary, text).expect("a file");
        fs::rename(temporary, dir.join(file)).expect("a file");
    }
}

pub(crate) fn listener(site: &Site, name: &str, addr: SocketAddr, rest: &str) {
    let spec = format!(
        "{{routingKey: echo, host: \"{}\", port: {}, tlsCredentials: {name}{rest}}}",
        addr.ip(),
        addr.port()
    );
    site.resource("Listener", name, &spec);
}

pub(crate) fn connector(site: &Site, name: &str, key: &str, addr: SocketAddr, rest: &str) {
    let spec = format!(
        "{{routingKey: {key}, host: \"{}\", port: {}, tlsCredentials: {name}{rest}}}",
        addr.ip(),
        addr.port()
    );
    site.resource("Connector", name, &spec);
}

/// An echo server without TLS at the first of two sites, and a listener with TLS at each.
pub(crate) struct Service {
    pub(crate) a: Site,
    pub(crate) b: Site,
    pub(crate) server: Server,
    pub(crate) here: SocketAddr,
    pub(crate) there: SocketAddr,
    pub(crate) client: Client,
}

pub(crate) fn service(rest: &str) -> Service {
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

/// The output of `openssl s_client` for a listener.
pub(crate) fn openssl(addr: SocketAddr, ca: &PathBuf, rest: &[&str]) -> String {
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
fn listener_presents_a_certificate_of_the_service_ca_or_its_own() {
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
    // A user's certificate replaces the issued one for new connections; open ones stay.
    let mut held = client.connect(addr).expect("a connection");
    expect_echo(&mut held, b"before").expect("works");
    let company = pki::ca("Our Company");
    let own = pki::server(&company, &["web.example"]);
    give(&b, "web", &[("tls.key", &own.1), ("tls.crt", &own.0)]);
    let ca = b.root().join("company.crt");
    fs::write(&ca, &company.0).expect("a file");
    wait_until("its own certificate", SOON, || {
        openssl(addr, &ca, &["-verify_hostname", "web.example"]).contains("Verification: OK")
    });
    assert!(!client.works(addr), "the old certificate is shown");
    expect_echo(&mut held, b"after").expect("the open connection lives");
    // A Secret works like a directory.
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
    expect_echo(&mut held, b"at last").expect("the open connection lives");
    // When nobody supplies a certificate any more the listener keeps its identity until it changes.
    fs::remove_file(b.input().join("secret.yaml")).expect("removed");
    let mut last = String::new();
    wait_until("what is missing in the status", SOON, || {
        last = b.status("Listener", "web").unwrap_or_default().to_string();
        last.contains("nobody supplies web any more; the previous version stays in use")
    });
    assert!(named.works(addr) && !client.works(addr), "{last}");
    let addr = free_addr();
    listener(&b, "web", addr, "");
    wait_until("a certificate of the service CA", SOON, || {
        client.works(addr)
    });
    b.wait_status("Listener", "web", "Ready");
}

#[test]
fn connector_verifies_servers_and_presents_a_certificate_as_configured() {
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
            // A CA is sufficient unless the server requires a client certificate.
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
        // A server that requires a client certificate refuses after the client's side of the
        // handshake.
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
fn connector_trusts_the_certificate_of_its_server_itself() {
    let (a, b) = linked();
    let own = pki::self_signed(&["127.0.0.1"], false);
    let other = pki::self_signed(&["127.0.0.1"], false);
    let elsewhere = pki::self_signed(&["elsewhere.example"], false);
    let expired = pki::self_signed(&["127.0.0.1"], true);
    let named = ", verifyHostname: true";
    let mut listeners = Vec::new();
    let mut servers = Vec::new();
    for (name, shown, trusted, rest, expected) in [
        ("own", &own, &own, named, true),
        ("any-name", &elsewhere, &elsewhere, "", true),
        ("other", &other, &own, "", false),
        ("elsewhere", &elsewhere, &elsewhere, named, false),
        ("expired", &expired, &expired, "", false),
    ] {
        let server = tls::echo(free_addr(), shown, None);
        give(&a, name, &[("ca.crt", &trusted.0)]);
        connector(&a, name, name, server.addr, rest);
        let addr = free_addr();
        b.listener(name, name, addr);
        listeners.push((name, addr, expected));
        servers.push(server);
    }
    for (name, addr, expected) in listeners {
        wait_until("the listener", SOON, || !refused(addr));
        assert_eq!(works(addr), expected, "{name}");
    }
}

#[test]
fn connector_asks_for_another_server_name_and_takes_new_credentials() {
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
fn missing_credentials_are_an_error_of_that_resource_alone() {
    let (a, b) = linked();
    let (server, plain) = (Server::echo(free_addr()), Server::echo(free_addr()));
    connector(&a, "secured", "secured", server.addr, "");
    a.connector("echo", "echo", plain.addr);
    let (addr, other, open) = (free_addr(), free_addr(), free_addr());
    b.listener("secured", "secured", addr);
    b.listener("plain", "echo", open);
    // A directory without one of the files is an invalid credential.
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
    // The listener starts once the credentials exist.
    let ca = pki::ca("ca");
    let own = pki::server(&ca, &["127.0.0.1"]);
    let files = [("ca.crt", &*ca.0), ("tls.crt", &own.0), ("tls.key", &own.1)];
    give(&b, "broken", &files);
    let client = Client::of(&ca.0);
    wait_until("the listener to work", SOON, || client.works(other));
    assert!(!works(other), "a listener with TLS takes plain bytes");
    // After their removal the old credentials stay in use, and the status says so.
    fs::remove_file(
        b.root()
            .join("namespaces/default/input/certs/broken/tls.key"),
    )
    .expect("removed");
    b.wait_message(
        "Listener",
        "broken",
        "Error",
        "the previous version stays in use",
    );
    client.echo(other).expect("it goes on");
}

#[test]
fn clients_present_a_certificate_where_required() {
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
