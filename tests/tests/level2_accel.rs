//! Accelerated connections through a whole daemon, each test in a network namespace of its own.

#![cfg(feature = "ebpf")]

use skupper_tests::{
    SOON,
    echo::{Server, connect, hear, round_trip, works},
    netns,
    site::Site,
    skip::skip,
    torture::torture,
    wait_until,
};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const READY: &str = "ready";
const OFF: &str = "acceleration is off";

/// A daemon with these settings of its site, alone in a network namespace. None: acceleration can
/// not be had here.
fn site(name: &str, settings: &str) -> Option<Site> {
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
    // Older kernels, and containers that take the right to load programs from root.
    let excused = ["too old", "missing", "os error 1", "no cgroup"];
    assert!(excused.iter().any(|why| log.contains(why)), "{log}");
    skip(&format!("no acceleration here: {log}"));
    None
}

const AUTO: &str = "{settings: {acceleration: auto}}";

/// The value of a metric, without labels; 0 when it is not shown.
fn metric(site: &Site, name: &str) -> u64 {
    let text = site.http("GET /metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

fn loopback(octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, octet), port).into()
}

/// A listener or connector with settings of its own.
fn with(site: &Site, kind: &str, name: &str, addr: SocketAddr, acceleration: &str) {
    let (host, port) = (addr.ip(), addr.port());
    let spec = format!(
        "{{routingKey: {name}, host: \"{host}\", port: {port}, \
         settings: {{acceleration: {acceleration}}}}}"
    );
    site.resource(kind, name, &spec);
}

/// Processor time of a process so far.
fn busy(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let nanos = tasks.map(|task| {
        let path = task.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(path).expect("its time");
        let first = text.split(' ').next().expect("a time");
        first.parse::<u64>().expect("a number")
    });
    Duration::from_nanos(nanos.sum())
}

/// The median of so many round trips of 64 bytes.
fn ping_pong(addr: SocketAddr, rounds: usize) -> Duration {
    let mut socket = connect(addr).expect("a connection");
    socket.set_nodelay(true).expect("an option");
    let mut bytes = [7; 64];
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            socket.write_all(&bytes).expect("sent");
            socket.read_exact(&mut bytes).expect("received");
            begin.elapsed()
        })
        .collect();
    times.sort();
    times[rounds / 2]
}

/// Time for so many bytes to a server that takes them and says so.
fn bulk(addr: SocketAddr, mebibytes: usize) -> Duration {
    let mut socket = connect(addr).expect("a connection");
    let chunk = vec![7; 128 * 1024];
    let begin = Instant::now();
    for _ in 0..mebibytes * 8 {
        socket.write_all(&chunk).expect("sent");
    }
    socket.shutdown(Shutdown::Write).expect("shut");
    let mut end = [0; 1];
    // As skupperd(8) says of calls that block: room to write may end them.
    while let Err(e) = socket.read_exact(&mut end) {
        assert_eq!(e.kind(), ErrorKind::WouldBlock);
        assert!(begin.elapsed() < SOON, "no answer");
    }
    begin.elapsed()
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

/// The least of three medians of a round trip, the processor time of these processes with it, and the
/// least of three times for bulk.
struct Measured {
    p50: Duration,
    processor: Duration,
    bulk: Duration,
}

impl Measured {
    fn new() -> Self {
        let [p50, processor, bulk] = [Duration::MAX; 3];
        Self {
            p50,
            processor,
            bulk,
        }
    }

    fn again(&mut self, (echo, sink): (SocketAddr, SocketAddr), pids: &[u32]) {
        const ROUNDS: u32 = 5_000;
        let all = || -> Duration { pids.iter().map(|pid| busy(*pid)).sum() };
        let before = all();
        self.p50 = self.p50.min(ping_pong(echo, ROUNDS as usize));
        self.processor = self.processor.min((all() - before) / ROUNDS);
        self.bulk = self.bulk.min(bulk(sink, 128));
    }
}

/// Compares two services that differ in acceleration only, in turns, and prints it.
fn compare(what: &str, on: (SocketAddr, SocketAddr), off: (SocketAddr, SocketAddr), pids: &[u32]) {
    let (mut with, mut without) = (Measured::new(), Measured::new());
    for _ in 0..3 {
        with.again(on, pids);
        without.again(off, pids);
    }
    let show = |name, a: Duration, b: Duration| {
        let ratio = a.as_secs_f64() / b.as_secs_f64();
        println!("{what}: {name} {a:?} accelerated, {b:?} not: {ratio:.2}");
    };
    show("64 bytes there and back, p50", with.p50, without.p50);
    show(
        "processor time of the daemons for it",
        with.processor,
        without.processor,
    );
    show("128 MiB", with.bulk, without.bulk);
}

fn services(near: &Site, far: &Site) -> [(SocketAddr, SocketAddr); 2] {
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

/// An echo server that answers each piece as it comes, and one that takes everything.
fn servers() -> (Server, Server) {
    let echo = Server::start(loopback(1, 7000), echo);
    (echo, Server::start(loopback(1, 7001), swallow))
}

fn echo(mut socket: TcpStream) {
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

#[test]
fn round_trips_accelerated_and_not() {
    if !netns::enter() {
        return;
    }
    let Some(here) = site("here", "{}") else {
        return;
    };
    let _servers = servers();
    let [on, off] = services(&here, &here);
    compare("one site", on, off, &[here.pid()]);
    assert_eq!(metric(&here, "skupper_acceleration_enabled"), 1);
    // What asks is accelerated at both of its hops, there and back.
    assert!(metric(&here, "skupper_acceleration_messages_total") >= 4 * 15_000);
}

#[test]
fn round_trips_over_a_link_accelerated_and_not() {
    if !netns::enter() {
        return;
    }
    let Some(mut near) = site("near", "{}") else {
        return;
    };
    near.kill();
    let mut far = Site::new("far");
    let port = loopback(1, 7100);
    far.access(port);
    near.link_to(&far, port, 1);
    far.start();
    near.start();
    near.wait_status("Link", "to-far", "Ready");
    let _servers = servers();
    let [on, off] = services(&near, &far);
    compare("two sites", on, off, &[near.pid(), far.pid()]);
    for site in [&near, &far] {
        assert!(metric(site, "skupper_acceleration_messages_total") >= 2 * 15_000);
    }
}

#[test]
fn nothing_is_loaded_before_somebody_asks() {
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
    // The site asks for all that do not say otherwise.
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
    let message = here.wait_status("Listener", "echo", "Error");
    assert!(message.contains("spec.settings[acceleration]"), "{message}");
}

#[test]
fn bytes_of_any_pattern_come_back_right() {
    if !netns::enter() {
        return;
    }
    let Some(here) = site("here", AUTO) else {
        return;
    };
    let _servers = servers();
    let at = loopback(9, 80);
    here.connector("echo", "echo", loopback(1, 7000));
    here.listener("echo", "echo", at);
    wait_until("an echo", SOON, || works(at));
    let begin = Instant::now();
    torture(at, 10_000, 8).expect("right");
    let messages = metric(&here, "skupper_acceleration_messages_total");
    let bulk = metric(&here, "skupper_acceleration_bulk_total");
    println!(
        "10,000 connections in {:?}: {messages} messages, {bulk} left for TCP",
        begin.elapsed()
    );
    assert!(messages > 10_000 && bulk > 20);
}

#[test]
fn a_program_that_does_not_read_holds_the_sender_back() {
    if !netns::enter() {
        return;
    }
    let Some(here) = site("here", AUTO) else {
        return;
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    // Small pieces: none is left to TCP for its size.
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
    // The windows of both hops, as without acceleration: not all of the 64 MiB.
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
fn a_killed_daemon_leaves_no_program_and_harms_no_others() {
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
                    // Cut or refused, once the daemon is gone.
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
    here.kill();
    assert!(!matches!(carried.read(&mut [0; 1]), Ok(1..)));
    assert_eq!(
        round_trip(&mut beside, b"beside").expect("an echo"),
        b"beside"
    );
    stop.store(true, Ordering::SeqCst);
    for thread in load {
        thread.join().expect("the load");
    }
    // The port is a plain one again.
    let server = Server::echo(at);
    assert!(works(server.addr));
    here.start();
    drop(server);
    wait_until("an echo", SOON, || works(at));
}

#[test]
fn a_stopped_daemon_waits_for_what_is_unread() {
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
    wait_until("the words", SOON, || {
        hear(at).is_ok_and(|t| t == "last words")
    });
    let mut client = connect(at).expect("a connection");
    let counted = || metric(&here, "skupper_acceleration_messages_total");
    let before = counted();
    wait_until("the words to be sent", SOON, || {
        let mut seen = [0; 10];
        client.peek(&mut seen).is_ok_and(|n| n == 10)
    });
    assert!(counted() >= before);
    let reader = thread::spawn(move || {
        // Busy with other things, for longer than the daemon needs to stop.
        thread::sleep(Duration::from_millis(500));
        let mut text = String::new();
        client.read_to_string(&mut text).expect("the words");
        text
    });
    assert_eq!(here.stop(), Some(0));
    assert_eq!(reader.join().expect("a reader"), "last words");
}
