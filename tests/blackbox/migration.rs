//! `system adopt`: a site set up by Skupper on this host moves to skupperd and keeps its links.

use skupper_tests::{
    SOON,
    echo::{Server, works},
    free_addr, free_port,
    site::Site,
    wait_until,
};
use std::{fs, path::Path, process::Command};

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn openssl(dir: &Path, args: &str) {
    let done = Command::new("openssl")
        .args(args.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {args}: {error}");
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: old}}\n\
         spec: {spec}\n"
    )
}

/// Indents a text as a YAML block.
fn block(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}\n"));
    lines.collect()
}

#[test]
fn a_skupper_site_is_adopted_and_its_links_stay_up() {
    // Skupper creates an RSA key in PKCS#1, and a CA that signs client certificates.
    let old = tempfile::tempdir().expect("a directory");
    let old = &old.path().join("old");
    let ca = old.join("runtime/issuers/skupper-site-ca");
    fs::create_dir_all(&ca).expect("a directory");
    openssl(&ca, "genrsa -traditional -out tls.key 2048");
    openssl(
        &ca,
        "req -x509 -new -key tls.key -subj /CN=skupper-site-ca -days 1825 -out tls.crt \
         -addext keyUsage=keyCertSign,keyEncipherment,digitalSignature \
         -addext extendedKeyUsage=serverAuth,clientAuth",
    );
    fs::copy(ca.join("tls.crt"), ca.join("ca.crt")).expect("a file");
    let client = tempfile::tempdir().expect("a directory");
    openssl(client.path(), "genrsa -traditional -out tls.key 2048");
    openssl(
        client.path(),
        "req -new -key tls.key -subj /CN=client-east -out csr -addext extendedKeyUsage=serverAuth,clientAuth",
    );
    let signed = format!(
        "x509 -req -in csr -CA {0}/tls.crt -CAkey {0}/tls.key -CAcreateserial -days 1825 -copy_extensions copy -out tls.crt",
        ca.display()
    );
    openssl(client.path(), &signed);
    let port = free_port();
    write(
        old,
        "input/resources/Site-east.yaml",
        &resource("Site", "east", "{linkAccess: default}"),
    );
    let access = format!(
        "{{bindHost: 127.0.0.1, subjectAlternativeNames: [127.0.0.1], \
         roles: [{{name: inter-router, port: {port}}}]}}"
    );
    write(
        old,
        "runtime/resources/RouterAccess-east.yaml",
        &resource("RouterAccess", "east", &access),
    );
    let id = "5e3c1a3e-2f0b-4d59-9a3c-0a6d6f1c2b11";
    let router =
        format!(r#"[["router", {{"metadata": "{{\"id\":\"{id}\",\"platform\":\"podman\"}}"}}]]"#);
    write(old, "runtime/router/skrouterd.json", &router);
    // The neighbour's link was made before the migration.
    let mut west = Site::new("west");
    let link = format!(
        "{{endpoints: [{{name: inter-router, host: 127.0.0.1, port: \"{port}\"}}], tlsCredentials: link-east}}"
    );
    west.resource("Link", "link-east", &link);
    let file = |path: &Path| block(&fs::read_to_string(path).expect("a file"));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: link-east}}\nstringData:\n  ca.crt: |\n{}  tls.crt: |\n{}  tls.key: |\n{}",
        file(&ca.join("tls.crt")),
        file(&client.path().join("tls.crt")),
        file(&client.path().join("tls.key")),
    );
    west.file("secret.yaml", &secret);
    west.start();
    west.wait_status("Link", "link-east", "Pending");
    let mut east = Site::new("unused");
    east.remove("Site", "unused");
    east.start();
    let said = east.ok(&["system", "adopt", old.to_str().expect("a path")]);
    assert!(said.contains("RouterAccess east adopted"), "{said}");
    west.wait_status("Link", "link-east", "Ready");
    let shown = east.ok(&["site", "status", "-o", "json"]);
    assert!(shown.contains(id), "{shown}");
    let (server, addr) = (Server::echo(free_addr()), free_addr());
    east.connector("echo", "echo", server.addr);
    west.listener("echo", "echo", addr);
    wait_until("the service", SOON, || works(addr));
    // The directory is unchanged, and any other directory is refused.
    assert!(old.join("runtime/router/skrouterd.json").exists());
    let refused = east.skupper(&["system", "adopt", "/nowhere"]);
    assert_eq!(refused.status.code(), Some(2));
    let screen = west.ok(&["status"]);
    assert!(
        screen.contains("Site west in namespace default: Ready"),
        "{screen}"
    );
    assert!(
        screen.contains("link-east") && screen.contains("2 sites in the network"),
        "{screen}"
    );
    let known = || {
        let network = west.ok(&["network", "status"]);
        let mut lines = network.lines();
        lines.any(|l| l.starts_with("east") && l.contains("echo"))
    };
    wait_until("the connector to be seen", SOON, known);
}
