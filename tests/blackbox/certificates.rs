//! Credentials: supplied by the user, issued by the site, renewed and rotated.

use skupper_tests::{
    SOON,
    echo::{connect, round_trip},
    free_addr, pki,
    site::{Site, echo, service, start_linked},
    wait_for, wait_until,
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Writes credentials into a directory of the input.
fn put(dir: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(dir).expect("a directory");
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("a file");
    }
}

/// The CA in the Secret of a generated link.
fn ca_of(link: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let line = link.lines().find_map(|l| l.trim().strip_prefix("ca.crt: "));
    let bytes = STANDARD.decode(line.expect("a CA")).expect("base64");
    String::from_utf8(bytes).expect("PEM")
}

#[test]
fn own_ca_signs_and_own_certificate_is_presented() {
    let (mut a, mut b, mut c) = (Site::new("a"), Site::new("b"), Site::new("c"));
    let addr = free_addr();
    a.access(addr);
    let ca = pki::ca("Our Company");
    let issuers = a
        .root()
        .join("namespaces/default/input/issuers/skupper-site-ca");
    put(&issuers, &[("tls.crt", &ca.0), ("tls.key", &ca.1)]);
    assert!(ca.1.contains("BEGIN PRIVATE KEY"), "PKCS#8");
    a.start();
    assert_eq!(ca_of(&a.link(addr, 1)), ca.0);
    b.link_to(&a, addr, 1);
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    // A certificate of another CA for the port: established links stay, new ones use the new CA.
    let web = pki::ca("Web CA");
    let own = pki::server(&web, &["127.0.0.1", "a.example"]);
    let certs = a.root().join("namespaces/default/input/certs/access");
    put(
        &certs,
        &[("ca.crt", &web.0), ("tls.crt", &own.0), ("tls.key", &own.1)],
    );
    wait_until("the credentials to be taken", SOON, || {
        a.log().contains("credentials of link access replaced")
    });
    assert_eq!(ca_of(&a.link(addr, 1)), web.0);
    c.link_to(&a, addr, 1);
    c.start();
    c.wait_status("Link", "to-a", "Ready");
    b.wait_status("Link", "to-a", "Ready");
}

#[test]
fn unusable_credentials_are_refused_with_the_reason() {
    let (a, _b, _server, addr) = service();
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    let ca = pki::ca("ca");
    let (good, other) = (
        pki::server(&ca, &["127.0.0.1"]),
        pki::server(&ca, &["127.0.0.1"]),
    );
    let elsewhere = pki::server(&ca, &["192.0.2.1"]);
    let nameless = pki::server(&ca, &[]);
    let (expired, expired_key) = pki::expired("x", &ca.0, &ca.1);
    let certs = a.root().join("namespaces/default/input/certs/access");
    let text = fs::read_to_string(a.input().join("RouterAccess-access.yaml")).expect("a manifest");
    let named = text.replace("bindHost", "subjectAlternativeNames: [127.0.0.1], bindHost");
    a.file("RouterAccess-access.yaml", &named);
    let says = |why: &str| {
        wait_for(why, SOON, || {
            let status = a.status("RouterAccess", "access")?;
            let message = status["status"]["message"].as_str()?.to_owned();
            message.contains(why).then_some(())
        });
    };
    for (certificate, key, why) in [
        (&good.0, &other.1, "the key is not that of the certificate"),
        (&expired, &expired_key, "the certificate has expired"),
        (
            &nameless.0,
            &nameless.1,
            "the certificate has no subject alternative name",
        ),
        (
            &elsewhere.0,
            &elsewhere.1,
            "the certificate is not for 127.0.0.1",
        ),
    ] {
        put(
            &certs,
            &[
                ("ca.crt", &ca.0),
                ("tls.crt", certificate),
                ("tls.key", key),
            ],
        );
        says(why);
    }
    fs::remove_file(certs.join("tls.key")).expect("a file");
    says("tls.key is missing");
    let issuers = a
        .root()
        .join("namespaces/default/input/issuers/skupper-site-ca");
    fs::remove_dir_all(&certs).expect("a directory");
    put(&issuers, &[("tls.crt", &good.0), ("tls.key", &good.1)]);
    says("is not that of a CA");
    fs::remove_dir_all(&issuers).expect("a directory");
    a.wait_status("RouterAccess", "access", "Ready");
    round_trip(&mut held, b"after").expect("nothing was disturbed");
}

#[test]
fn server_certificates_are_renewed_under_a_running_stream() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    a.resource("Site", "a", "{settings: {server-certificate-validity: 6s}}");
    let link = start_linked(&mut a, &mut b);
    let (_server, addr) = echo(&a, &b);
    let file = a
        .root()
        .join("namespaces/default/runtime/certs/access/tls.crt");
    let now = || fs::read_to_string(&file).expect("a certificate");
    let mut held = connect(addr).expect("a connection");
    let (mut seen, begin) = (vec![now()], Instant::now());
    let block = vec![7; 64 * 1024];
    let mut bytes = 0;
    while seen.len() < 3 {
        assert_eq!(
            round_trip(&mut held, &block).expect("not a byte lost"),
            block
        );
        bytes += block.len();
        let current = now();
        if seen.last() != Some(&current) {
            seen.push(current);
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{} certificates",
            seen.len()
        );
    }
    println!(
        "{} MiB while the certificate was renewed twice",
        bytes >> 20
    );
    // The first certificate has expired; new links see the last one.
    wait_until("the end of the first", SOON, || {
        begin.elapsed() > Duration::from_secs(7)
    });
    let mut c = Site::new("c");
    c.link_to(&a, link, 1);
    c.start();
    c.wait_status("Link", "to-a", "Ready");
    b.wait_status("Link", "to-a", "Ready");
}

#[test]
fn ca_rotation_keeps_links_that_renew_within_the_overlap() {
    let (mut a, mut b, mut c) = (Site::new("a"), Site::new("b"), Site::new("c"));
    let link = free_addr();
    a.access(link);
    for site in [&b, &c] {
        site.link_to(&a, link, 1);
    }
    let before = ca_of(&a.link(link, 1));
    for site in [&mut a, &mut b, &mut c] {
        site.start();
    }
    for site in [&b, &c] {
        site.wait_status("Link", "to-a", "Ready");
    }
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    let block = vec![7; 64 * 1024];
    let mut beside = || {
        let back = round_trip(&mut held, &block).expect("not a byte lost");
        assert_eq!(back, block);
    };
    let rotated = Instant::now();
    a.ok(&["issuer", "rotate", "--overlap", "8s"]);
    assert_ne!(
        ca_of(&a.link(link, 1)),
        before,
        "the new CA is there at once"
    );
    beside();
    wait_until("the settings of the site", SOON, || {
        let settings = &a.status("Site", "a").unwrap_or_default()["spec"]["settings"];
        settings["issuer-overlap"] == "8s" && settings["rotate-issuers-before"].is_string()
    });
    // A site that knows only the old CA can still connect, through the cross-signed chain.
    let mut late = Site::new("late");
    let old = fs::read_to_string(c.input().join("link-a.yaml")).expect("a link");
    late.file("link-a.yaml", &old);
    late.start();
    late.wait_status("Link", "to-a", "Ready");
    assert!(rotated.elapsed() < Duration::from_secs(8), "in the overlap");
    let shown = a.ok(&["issuer", "status"]);
    assert!(shown.contains("skupper-site-ca"), "{shown}");
    b.link_to(&a, link, 1);
    // After a site reconnects, its old connection is listed until its last stream ends.
    let renewed = |site: &Site| {
        let status = a.status("Site", "a").unwrap_or_default();
        let links = status["status"]["incomingLinks"].as_array().cloned();
        let of = |l: &serde_json::Value| {
            l["remoteSiteName"] == site.name() && l["certificate"]["trustedUntil"].is_null()
        };
        links.into_iter().flatten().any(|l| of(&l))
    };
    wait_until("b to have new credentials", SOON, || {
        beside();
        renewed(&b)
    });
    assert!(!renewed(&c) && !renewed(&late), "nobody else has");
    wait_until("the end of the overlap", SOON, || {
        beside();
        let log = a.log();
        log.matches("certificate or CA revoked").count() >= 2
    });
    for site in [&c, &late] {
        wait_until("the stranger to be refused", SOON, || {
            beside();
            let link = site.status("Link", "to-a").unwrap_or_default();
            link["status"]["status"] == "Error" || link["status"]["status"] == "Pending"
        });
    }
    b.wait_status("Link", "to-a", "Ready");
    beside();
}

#[test]
fn certificates_are_issued_on_request_and_used() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = free_addr();
    // One CA for both sites, and each site issues its own certificate: no key leaves its host.
    let ca = pki::ca("Our Company");
    for site in [&a, &b] {
        let dir = site.root().join("namespaces/default/input/issuers/company");
        put(&dir, &[("tls.crt", &ca.0), ("tls.key", &ca.1)]);
    }
    let (host, port) = (addr.ip(), addr.port());
    a.resource("Site", "a", "{defaultIssuer: company}");
    a.resource(
        "Certificate",
        "door",
        "{ca: company, subject: a.example, hosts: [127.0.0.1, a.example], server: true}",
    );
    let spec = format!(
        "{{bindHost: \"{host}\", tlsCredentials: door, roles: [{{name: inter-router, port: {port}}}]}}"
    );
    a.resource("RouterAccess", "access", &spec);
    b.resource(
        "Certificate",
        "way-out",
        "{ca: company, subject: b, client: true}",
    );
    let spec = format!(
        "{{tlsCredentials: way-out, endpoints: [{{name: inter-router, host: {host}, port: \"{port}\"}}]}}"
    );
    b.resource("Link", "to-a", &spec);
    a.start();
    b.start();
    b.wait_status("Link", "to-a", "Ready");
    for (site, name) in [(&a, "door"), (&b, "way-out")] {
        site.wait_status("Certificate", name, "Ready");
        let status = site.status("Certificate", name).expect("a status");
        let end = status["status"]["expiration"].as_str().expect("an end");
        assert!(end.starts_with("20") && end.ends_with('Z'), "{end}");
    }
    // A generated link contains the CA of the certificate that the port presents.
    assert_eq!(ca_of(&a.link(addr, 1)), ca.0);
    // A client certificate is not valid for a server; a certificate without a purpose is refused.
    b.access(free_addr());
    let text = fs::read_to_string(b.input().join("RouterAccess-access.yaml")).expect("a manifest");
    b.file(
        "RouterAccess-access.yaml",
        &text.replace("spec: {", "spec: {tlsCredentials: way-out, "),
    );
    b.wait_message(
        "RouterAccess",
        "access",
        "Error",
        "does not include servers",
    );
    b.resource("Certificate", "idle", "{ca: company, subject: b}");
    b.wait_message(
        "Certificate",
        "idle",
        "Error",
        "one of client, server and signing",
    );
    b.wait_status("Link", "to-a", "Ready");
}
