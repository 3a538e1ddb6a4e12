//! Rows of the checklist that other tests use without saying so: directories, static links, rates.

use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, works},
    free_addr, program, resident,
    site::{Site, service},
    wait_until,
};
use std::{
    fs::Permissions,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
fn c23_r1_files_below_namespaces_take_effect_and_their_removal_undoes_it() {
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
    // Names of files say nothing; and a plain write is how most people make one.
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

#[test]
fn l18_r9_a_generated_link_makes_a_link_and_no_container_engine_is_asked() {
    let (mut a, mut b) = (Site::new("a"), Site::new("b"));
    let addr = free_addr();
    a.access(addr);
    // An engine that leaves a trace when somebody calls it.
    let engines = b.root().join("bin");
    std::fs::create_dir(&engines).expect("a directory");
    for name in ["podman", "docker"] {
        let path = engines.join(name);
        let trace = b.root().join("called");
        std::fs::write(
            &path,
            format!("#!/bin/sh\necho $0 >> {}\n", trace.display()),
        )
        .expect("a script");
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a script");
    }
    a.start();
    b.start();
    let run = |site: &Site, args: &[&str], input: &str| {
        let mut child = Command::new(program("skupper"))
            .arg("--root")
            .arg(site.root())
            .args(args)
            .env("PATH", &engines)
            .env_remove("SKUPPER_PLATFORM")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("skupper runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("read");
        drop(stdin);
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "skupper {args:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let link = run(
        &a,
        &["link", "generate", "--host", "127.0.0.1", "--name", "to-a"],
        "",
    );
    run(&b, &["system", "apply", "-f", "-"], &link);
    b.wait_status("Link", "to-a", "Ready");
    for noun in ["site", "link", "listener", "connector"] {
        run(&b, &[noun, "status"], "");
    }
    run(&b, &["version"], "");
    run(&b, &["system", "delete", "-f", "-"], &link);
    wait_until("the link to go", SOON, || {
        b.status("Link", "to-a").is_none()
    });
    assert!(!b.root().join("called").exists(), "no engine was called");
}

/// A stream needs no handshake of its own: beside the same machine's plain loopback, a connection
/// through the link costs a few times as much and not hundreds. Sequential, so that a wait of any
/// kind (a round trip too many, a timer) shows.
#[test]
fn v24_new_connections_through_a_link_keep_pace_with_loopback() {
    let (_a, _b, server, addr) = service();
    let time = |addr: SocketAddr| {
        let begin = Instant::now();
        for _ in 0..300 {
            assert!(works(addr));
        }
        begin.elapsed()
    };
    let direct = time(server.addr);
    let linked = time(addr);
    let (ratio, rate) = (
        linked.as_secs_f64() / direct.as_secs_f64(),
        300.0 / linked.as_secs_f64(),
    );
    println!("{rate:.0} connections a second, {ratio:.1} times the time of loopback");
    assert!(
        ratio < 60.0,
        "{linked:?} through the link, {direct:?} direct"
    );
}

/// What would break it stands out by far: 40 ms of Nagle and delayed acknowledgement, 20 ms of a
/// timer, a wait for a second link's turn.
#[test]
fn v25_one_byte_comes_back_in_no_more_than_a_few_milliseconds() {
    let (_a, _b, _server, addr) = service();
    let mut socket = connect(addr).expect("a connection");
    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(round_trip(&mut socket, b"x").expect("back"), b"x");
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (p50, p90) = (times[500], times[900]);
    println!("one byte and back: p50 {p50:?}, p90 {p90:?}");
    assert!(p50 < Duration::from_millis(5), "p50 {p50:?}");
    assert!(p90 < Duration::from_millis(15), "p90 {p90:?}");
}

/// Wave after wave of peers that are no routers: what the daemon holds afterwards does not grow.
#[test]
fn memory_is_flat_under_peers_that_lie() {
    let mut a = Site::new("a");
    let addr = free_addr();
    a.access(addr);
    a.start();
    a.wait_status("RouterAccess", "access", "Ready");
    let first_bytes: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: router\r\n\r\n",
        // A TLS record that promises 16 KiB and brings little of it.
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
        b"AMQP\x00\x01\x00\x00",
        &[0xff; 4096],
        b"",
    ];
    let wave = || {
        let mut open = Vec::new();
        for i in 0..500 {
            let mut socket = connect(addr).expect("accepted");
            // Refused as soon as it is seen, which may be before all was sent.
            drop(socket.write_all(first_bytes[i % first_bytes.len()]));
            open.push(socket);
        }
        for mut socket in open {
            socket.shutdown(std::net::Shutdown::Write).ok();
            let mut rest = Vec::new();
            // Either end of it is right; staying open is not.
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
