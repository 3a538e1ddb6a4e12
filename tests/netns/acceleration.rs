//! Accelerated connections through a daemon. Each test has its own network namespace.

#![cfg(feature = "ebpf")]

use crate::{loopback, loopback_in};
use aya::programs::loaded_programs;
use skupper_tests::{
    SOON,
    echo::{Server, connect, refused, round_trip, wait_reads, works},
    netns,
    site::Site,
    skip::skip,
    tls::Client,
    wait_until,
};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) const READY: &str = "ready";

pub(crate) const OFF: &str = "acceleration is off";

/// A daemon with these settings of its site, in a network namespace of its own. `None`, after a
/// skip, without acceleration.
pub(crate) fn site(name: &str, settings: &str) -> Option<Site> {
    let mut site = Site::new(name);
    site.resource("Site", name, settings);
    site.start();
    wait_until("the daemon to be ready", SOON, || {
        site.log().contains(READY)
    });
    let log = site.log();
    if !log.contains(OFF) {
        return Some(site);
    }
    // Reasons to skip: older kernels, and containers that may not load programs.
    let excused = ["too old", "missing", "os error 1", "no cgroup"];
    assert!(excused.iter().any(|why| log.contains(why)), "{log}");
    skip(&format!("no acceleration here: {log}"));
    None
}

pub(crate) const AUTO: &str = "{settings: {acceleration: auto}}";

/// Ids of the BPF programs of a process.
fn programs(pid: u32) -> Vec<u32> {
    let open = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let program = |entry: std::io::Result<fs::DirEntry>| {
        // The descriptor may be closed by now.
        let text = fs::read_to_string(entry.ok()?.path()).ok()?;
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("prog_id:"))?;
        Some(id.trim().parse().expect("a number"))
    };
    let mut ids: Vec<u32> = open.filter_map(program).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The value of a metric, without labels; 0 when it is not shown.
pub(crate) fn metric(site: &Site, name: &str) -> u64 {
    let text = site.http("GET /metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// A listener or connector with a setting for acceleration.
pub(crate) fn with(site: &Site, kind: &str, name: &str, addr: SocketAddr, acceleration: &str) {
    let (host, port) = (addr.ip(), addr.port());
    let spec = format!(
        "{{routingKey: {name}, host: \"{host}\", port: {port}, \
         settings: {{acceleration: {acceleration}}}}}"
    );
    site.resource(kind, name, &spec);
}

/// The processor time that a process has used.
pub(crate) fn busy(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let nanos = tasks.map(|task| {
        let path = task.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(path).expect("its time");
        let first = text.split(' ').next().expect("a time");
        first.parse::<u64>().expect("a number")
    });
    Duration::from_nanos(nanos.sum())
}

pub(crate) fn services(near: &Site, far: &Site) -> [(SocketAddr, SocketAddr); 2] {
    let (echo, sink) = (loopback(1, 7000), loopback(1, 7001));
    let mut pairs = Vec::new();
    for (n, way) in ["auto", "off"].into_iter().enumerate() {
        let n = n as u8;
        let pair = (loopback(10 + n, 80), loopback(20 + n, 80));
        for (name, at, server) in [("echo", pair.0, echo), ("sink", pair.1, sink)] {
            let name = format!("{name}-{way}");
            with(far, "Connector", &name, server, way);
            with(near, "Listener", &name, at, way);
        }
        pairs.push(pair);
    }
    for (at, _) in &pairs {
        wait_until("the service to work", SOON, || works(*at));
    }
    for (_, at) in &pairs {
        wait_until("the service to work", SOON, || connect(*at).is_ok());
    }
    [pairs[0], pairs[1]]
}

/// An echo server, and a server that reads everything.
pub(crate) fn servers() -> (Server, Server) {
    let echo = Server::start(loopback(1, 7000), echo);
    (echo, Server::start(loopback(1, 7001), swallow))
}

#[test]
fn acceleration_is_reported_for_the_system_and_each_listener() {
    if !netns::enter() {
        return;
    }
    let Some(mut here) = site("here", "{}") else {
        return;
    };
    let _servers = servers();
    let (at, prefix) = (loopback(9, 80), loopback(9, 81));
    here.connector("echo", "echo", loopback(1, 7000));
    here.listener("echo", "echo", at);
    let spec = format!(
        "{{routingKey: echo, host: {}, port: 81, settings: {{host-prefix: 127.7.0.0/16}}}}",
        prefix.ip()
    );
    here.resource("Listener", "prefix", &spec);
    let says = |here: &Site, command: &[&str], what: &str, of: &str| {
        wait_until(what, SOON, || {
            let text = here.ok(command);
            let line = text.lines().find(|line| line.starts_with(of));
            line.is_some_and(|line| line.contains(what))
        });
    };
    let system = ["system", "status"];
    let listener = |name| ["listener", "status", name];
    wait_until("an echo", SOON, || works(at) && works(prefix));
    says(
        &here,
        &system,
        "off: no listener and no connector asks",
        "Acceleration",
    );
    says(
        &here,
        &listener("echo"),
        "off: neither the listener nor its site",
        "Accelerated",
    );
    here.resource("Site", "here", AUTO);
    says(&here, &system, " on", "Acceleration");
    says(&here, &listener("echo"), " on", "Accelerated");
    says(
        &here,
        &listener("prefix"),
        "off: not for prefixes of addresses",
        "Accelerated",
    );
    here.stop();
    here.start_with(&["--acceleration", "off"]);
    says(&here, &system, "off: switched off", "Acceleration");
    says(&here, &listener("echo"), "off: switched off", "Accelerated");
}

#[test]
fn programs_are_loaded_on_first_use() {
    if !netns::enter() {
        return;
    }
    let Some(here) = site("here", "{}") else {
        return;
    };
    let _servers = servers();
    let at = loopback(9, 80);
    here.connector("echo", "echo", loopback(1, 7000));
    here.listener("echo", "echo", at);
    wait_until("an echo", SOON, || works(at));
    assert_eq!(metric(&here, "skupper_acceleration_enabled"), 0);
    // The site's setting is the default for its listeners and connectors.
    here.resource("Site", "here", AUTO);
    let counted = || metric(&here, "skupper_acceleration_messages_total");
    wait_until("an accelerated echo", SOON, || works(at) && counted() > 0);
    with(&here, "Listener", "echo", at, "off");
    with(&here, "Connector", "echo", loopback(1, 7000), "off");
    wait_until("an echo that is not", SOON, || {
        let before = counted();
        works(at) && counted() == before
    });
    with(&here, "Listener", "echo", at, "always");
    here.wait_message("Listener", "echo", "Error", "spec.settings[acceleration]");
}

#[test]
fn only_single_ports_without_tls_are_accelerated() {
    if !netns::enter() {
        return;
    }
    let settings = "{settings: {acceleration: auto, service-addresses: 198.18.0.0/16}}";
    let Some(here) = site("here", settings) else {
        return;
    };
    let _servers = servers();
    with(&here, "Connector", "echo", loopback(1, 7000), "off");
    let listener = |name: &str, host: &str, port: u16, rest: &str| {
        let spec = format!("{{routingKey: echo, host: {host}, port: {port}{rest}}}");
        here.resource("Listener", name, &spec);
    };
    // One listener before and one after the one with the wider prefix.
    let settings = ", settings: {host-prefix: 127.0.8.0/24, ports: '80'}";
    listener("prefix", "127.0.8.1", 444, settings);
    wait_until("a prefix", SOON, || works(loopback_in(8, 7, 80)));
    listener("wide", "0.0.0.0", 80, "");
    listener("all", "198.18.7.5", 443, ", settings: {ports: all}");
    listener("range", "127.0.9.1", 8000, ", settings: {ports: 8001-8003}");
    listener("tls", "127.0.0.1", 443, ", tlsCredentials: web");
    let all = |port| SocketAddr::from(([198, 18, 7, 5], port));
    let plain = [
        loopback_in(8, 7, 80),
        all(80),
        all(81),
        loopback_in(9, 1, 8002),
    ];
    for at in plain.into_iter().chain([loopback(3, 80)]) {
        wait_until("an echo", SOON, || works(at));
    }
    let ca = here
        .root()
        .join("namespaces/default/runtime/issuers/skupper-service-ca/tls.crt");
    let tls = loopback(1, 443);
    wait_until("the listener with TLS", SOON, || {
        ca.exists() && !refused(tls)
    });
    let client = Client::of(&fs::read_to_string(&ca).expect("a CA"));
    let sockets = || metric(&here, "skupper_acceleration_sockets_total");
    let before = sockets();
    for at in plain {
        assert!(works(at), "{at}");
    }
    client.echo(tls).expect("an echo");
    assert_eq!(sockets(), before);
    for at in [
        loopback(3, 80),
        loopback_in(8, 1, 80),
        loopback_in(9, 1, 8000),
    ] {
        assert!(works(at), "{at}");
    }
    assert_eq!(sockets(), before + 6);
}

#[test]
fn a_program_that_does_not_read_blocks_the_sender() {
    if !netns::enter() {
        return;
    }
    let Some(here) = site("here", AUTO) else {
        return;
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    // Small pieces never fall back to TCP because of their size.
    let server = Server::start(loopback(1, 7000), move |mut socket| {
        for n in 0..64 * 1024_u32 {
            if socket.write_all(&[n as u8; 1024]).is_err() {
                return;
            }
            counter.fetch_add(1024, Ordering::SeqCst);
        }
    });
    let at = loopback(9, 80);
    here.connector("echo", "echo", server.addr);
    here.listener("echo", "echo", at);
    wait_until("a listener", SOON, || connect(at).is_ok());
    let mut client = connect(at).expect("a connection");
    let mut stood = (0, Instant::now());
    wait_until("the server to be held back", SOON, || {
        let now = sent.load(Ordering::SeqCst);
        if now != stood.0 {
            stood = (now, Instant::now());
        }
        now > 0 && stood.1.elapsed() > Duration::from_millis(500)
    });
    // At most the windows of both hops are in flight, as without acceleration.
    assert!(stood.0 < 40 << 20, "{} bytes", stood.0);
    let mut all = 0;
    let mut bytes = vec![0; 64 * 1024];
    while all < 64 << 20 {
        match client.read(&mut bytes) {
            Ok(0) => panic!("ends after {all}"),
            Ok(n) => {
                for byte in &bytes[..n] {
                    assert_eq!(*byte, (all / 1024) as u8, "at {all}");
                    all += 1;
                }
            }
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn a_killed_daemon_leaves_no_bpf_program() {
    if !netns::enter() {
        return;
    }
    let Some(mut here) = site("here", AUTO) else {
        return;
    };
    let (echo, _sink) = servers();
    let at = loopback(9, 80);
    here.connector("echo", "echo", echo.addr);
    here.listener("echo", "echo", at);
    wait_until("an echo", SOON, || works(at));
    let mut beside = connect(echo.addr).expect("a connection past the daemon");
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    // Fails once the daemon is gone: reset or refused.
                    works(at);
                }
            })
        })
        .collect();
    let mut carried = connect(at).expect("a connection");
    assert_eq!(
        round_trip(&mut carried, b"carried").expect("an echo"),
        b"carried"
    );
    let ours = programs(here.pid());
    let named = |name: &str| {
        let loaded = loaded_programs().filter_map(Result::ok);
        let ours = loaded.filter(|program| ours.contains(&program.id()));
        ours.filter(|program| program.name_as_str() == Some(name))
            .count()
    };
    assert_eq!((named("establish"), named("shorten")), (1, 1));
    here.kill();
    wait_until("the program of connections to go", SOON, || {
        named("establish") == 0
    });
    assert!(!matches!(carried.read(&mut [0; 1]), Ok(1..)));
    assert_eq!(
        round_trip(&mut beside, b"beside").expect("an echo"),
        b"beside"
    );
    stop.store(true, Ordering::SeqCst);
    for thread in load {
        thread.join().expect("the load");
    }
    // Open sockets keep the message program loaded.
    drop(carried);
    wait_until("its programs to go", SOON, || {
        let mut loaded = loaded_programs().filter_map(Result::ok);
        !loaded.any(|program| ours.contains(&program.id()))
    });
    // The port is no longer accelerated.
    let server = Server::echo(at);
    assert!(works(server.addr));
    here.start();
    drop(server);
    wait_until("an echo", SOON, || works(at));
}

#[test]
fn a_stopped_daemon_waits_for_unread_bytes() {
    if !netns::enter() {
        return;
    }
    let Some(mut here) = site("here", AUTO) else {
        return;
    };
    let server = Server::says(loopback(1, 7000), "last words");
    let at = loopback(9, 80);
    here.connector("says", "says", server.addr);
    here.listener("says", "says", at);
    wait_reads(at, "last words");
    let mut client = connect(at).expect("a connection");
    let counted = || metric(&here, "skupper_acceleration_messages_total");
    let before = counted();
    wait_until("the words to be sent", SOON, || {
        let mut seen = [0; 10];
        client.peek(&mut seen).is_ok_and(|n| n == 10)
    });
    assert!(counted() >= before);
    let reader = thread::spawn(move || {
        // The reader is busy for longer than the daemon needs to stop.
        thread::sleep(Duration::from_millis(500));
        let mut text = String::new();
        client.read_to_string(&mut text).expect("the words");
        text
    });
    assert_eq!(here.stop(), Some(0));
    assert_eq!(reader.join().expect("a reader"), "last words");
}

fn swallow(mut socket: TcpStream) {
    let mut chunk = vec![0; 256 * 1024];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    drop(socket.write_all(b"!"));
}

/// Echoes until the client half-closes. Reads of accelerated sockets can end with EAGAIN.
pub(crate) fn echo(mut socket: TcpStream) {
    socket.set_nodelay(true).ok();
    let mut bytes = [0; 32 * 1024];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) if socket.write_all(&bytes[..n]).is_err() => return,
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
    socket.shutdown(Shutdown::Write).ok();
}
