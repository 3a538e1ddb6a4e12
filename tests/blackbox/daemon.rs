//! The daemon and its directory: one daemon per directory, changed input, invalid and newer state,
//! secrets, and a drained shutdown.

use nix::sys::signal::Signal;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr,
    site::{Site, echo, linked},
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
};

#[test]
fn private_keys_are_private() {
    let (a, b) = linked();
    fn walk(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }
    let applied = a
        .link(([127, 0, 0, 1], 1).into(), 1)
        .replace("name: to-a", "name: second");
    let file = b.root().join("second.yaml");
    std::fs::write(&file, &applied).expect("a file");
    b.ok(&["system", "apply", "-f", file.to_str().expect("a path")]);
    std::fs::remove_file(file).expect("removed");
    let mut keys = 0;
    for site in [&a, &b] {
        let mut files = Vec::new();
        walk(site.root(), &mut files);
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // The test itself wrote this file.
            let own = path.file_name().is_some_and(|n| n == "link-a.yaml");
            if !own && (text.contains("PRIVATE KEY") || text.contains("tls.key:")) {
                let mode = std::fs::metadata(&path)
                    .expect("metadata")
                    .permissions()
                    .mode();
                assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
                keys += 1;
            }
        }
    }
    assert!(keys >= 3, "only {keys} files with keys were looked at");
}

#[test]
fn a_second_daemon_is_refused() {
    let mut a = Site::new("a");
    a.start();
    a.wait_status("Site", "a", "Ready");
    let output = std::process::Command::new(skupper_tests::program("skupperd"))
        .arg("--root")
        .arg(a.root())
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("another skupperd is already running"),
        "{errors}"
    );
}

#[test]
fn an_invalid_change_keeps_what_runs() {
    let (a, b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    b.file("broken.yaml", "kind: Listener\n  nonsense: [");
    b.file(
        "elsewhere.yaml",
        "apiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: x\n  namespace: other\n\
         spec: {routingKey: x, host: 127.0.0.1, port: 1}\n",
    );
    wait_until("both errors in the log", SOON, || {
        let log = b.log();
        log.contains("broken.yaml") && log.contains("namespace must be")
    });
    round_trip(&mut held, b"still").expect("the connection lives");
    assert!(works(addr));
}

#[test]
fn no_key_in_log_or_arguments() {
    let (a, b) = linked();
    let key = std::fs::read_to_string(
        a.root()
            .join("namespaces/default/runtime/issuers/skupper-site-ca/tls.key"),
    )
    .expect("the CA's key");
    let secret = key.lines().nth(1).expect("base64");
    for site in [&a, &b] {
        assert!(!site.log().contains(secret) && !site.log().contains("PRIVATE KEY"));
        let arguments = std::fs::read(format!("/proc/{}/cmdline", site.pid())).expect("arguments");
        assert!(!String::from_utf8_lossy(&arguments).contains("PRIVATE"));
    }
}

#[test]
fn newer_state_is_refused_with_a_message() {
    let mut a = Site::new("a");
    let dir = a.root().join("namespaces/default/internal");
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::write(dir.join("site.json"), r#"{"version": 99, "site_id": "x"}"#).expect("a file");
    a.start();
    a.wait_message("Site", "a", "Error", "version 99");
}

#[test]
fn sigterm_drains_open_connections() {
    let (a, mut b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    round_trip(&mut held, b"before").expect("works");
    b.signal(Signal::SIGTERM);
    wait_until("new clients to be refused", SOON, || refused(addr));
    round_trip(&mut held, b"during").expect("an open connection goes on");
    drop(held);
    assert_eq!(b.ended(), Some(0));
}

/// Reads until these bytes have come; fails if the connection ends before.
fn read_until(socket: &mut TcpStream, bytes: &[u8]) {
    let mut all = Vec::new();
    while !all.windows(bytes.len()).any(|part| part == bytes) {
        let mut part = [0; 256];
        let count = socket.read(&mut part).expect("an answer");
        assert!(count > 0, "closed before {bytes:x?}: {all:x?}");
        all.extend_from_slice(&part[..count]);
    }
}

#[test]
fn the_local_amqp_port_changes_on_a_running_site() {
    let mut site = Site::new("a");
    let (one, two) = (free_addr(), free_addr());
    let spec = |addr: SocketAddr| format!("{{settings: {{local-amqp-port: \"{}\"}}}}", addr.port());
    site.start();
    assert!(refused(one));
    site.resource("Site", "a", &spec(one));
    wait_until("the port", SOON, || !refused(one));
    // An open connection: SASL ANONYMOUS, then a performative `open` (0x10).
    let mut held = connect(one).expect("accepted");
    for part in [
        &b"AMQP\x03\x01\x00\x00"[..],
        b"\x00\x00\x00\x19\x02\x01\x00\x00\x00\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS",
        b"AMQP\x00\x01\x00\x00",
        b"\x00\x00\x00\x11\x02\x00\x00\x00\x00\x53\x10\xc0\x04\x01\xa1\x01t",
    ] {
        held.write_all(part).expect("sent");
    }
    read_until(&mut held, b"\x00\x53\x10");
    // The status reports that another program has the new port; the old port stays open.
    let busy = std::net::TcpListener::bind(two).expect("a port");
    site.resource("Site", "a", &spec(two));
    site.wait_message("Site", "a", "Error", "spec.settings[local-amqp-port]");
    assert!(!refused(one));
    drop(busy);
    wait_until("the other port", SOON, || !refused(two) && refused(one));
    site.wait_status("Site", "a", "Ready");
    // Open connections survive: this one answers `close` (0x18) with its own.
    held.write_all(b"\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x18\x45")
        .expect("sent");
    read_until(&mut held, b"\x00\x53\x18");
    site.resource("Site", "a", "{}");
    wait_until("the port to go", SOON, || refused(two));
}

#[test]
fn files_below_namespaces_apply_and_their_removal_reverts() {
    let mut a = Site::new("a");
    a.start();
    a.wait_status("Site", "a", "Ready");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    let input = a.root().join("namespaces/default/input/resources");
    let file = |kind: &str, port: u16| {
        format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata: {{name: echo}}\n\
             spec: {{routingKey: echo, host: 127.0.0.1, port: {port}}}\n"
        )
    };
    // File names have no meaning, and most editors write a file in place.
    let (one, two) = (input.join("10-first.yml"), input.join("20-second.yaml"));
    std::fs::write(&one, file("Connector", server.addr.port())).expect("a file");
    std::fs::write(&two, file("Listener", addr.port())).expect("a file");
    wait_until("the service", SOON, || works(addr));
    a.wait_status("Listener", "echo", "Ready");
    std::fs::remove_file(&two).expect("a file");
    wait_until("the port to close", SOON, || refused(addr));
    wait_until("the status to go", SOON, || {
        a.status("Listener", "echo").is_none()
    });
    assert!(one.exists(), "the input belongs to its user");
}
