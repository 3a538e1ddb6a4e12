//! Accelerated connections through a whole daemon, each test in a network namespace of its own.

#![cfg(feature = "ebpf")]

use aya::programs::loaded_programs;
use skupper_tests::{
    SOON,
    echo::{Server, connect, hear, refused, round_trip, works},
    netns,
    site::Site,
    skip::skip,
    tls::Client,
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

/// The programs of a process.
fn programs(pid: u32) -> Vec<u32> {
    let open = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("its descriptors");
    let program = |entry: std::io::Result<fs::DirEntry>| {
        // It may be closed by now.
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

    /// `messages`: how many each connection is to send the short way, of those that `sites` count.
    fn again(&mut self, (echo, sink): (SocketAddr, SocketAddr), sites: &[&Site], messages: u64) {
        let all = || -> Duration { sites.iter().map(|site| busy(site.pid())).sum() };
        let counted = || -> u64 {
            let name = "skupper_acceleration_messages_total";
            sites.iter().map(|site| metric(site, name)).sum()
        };
        for _ in 0..TRIES {
            let before = (all(), counted());
            let p50 = ping_pong(echo, ROUNDS as usize);
            let processor = (all() - before.0) / ROUNDS;
            if counted() - before.1 >= messages {
                self.p50 = self.p50.min(p50);
                self.processor = self.processor.min(processor);
                self.bulk = self.bulk.min(bulk(sink, 128));
                return;
            }
        }
        panic!("{TRIES} connections in a row did not go the short way: {messages} messages each");
    }
}

/// Round trips of one connection.
const ROUNDS: u32 = 5_000;
/// A client whose first message is there before the other socket is left to TCP for good, as it
/// must be: on a busy host that may be the one that is measured, and says nothing then.
const TRIES: usize = 5;

/// Compares two services that differ in acceleration only, in turns, and prints it.
fn compare(
    what: &str,
    on: (SocketAddr, SocketAddr),
    off: (SocketAddr, SocketAddr),
    sites: &[&Site],
) {
    let (mut with, mut without) = (Measured::new(), Measured::new());
    for _ in 0..3 {
        // At both hops, there and back.
        with.again(on, sites, 4 * u64::from(ROUNDS));
        without.again(off, sites, 0);
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
    compare("one site", on, off, &[&here]);
    assert_eq!(metric(&here, "skupper_acceleration_enabled"), 1);
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
    compare("two sites", on, off, &[&near, &far]);
    for site in [&near, &far] {
        let messages = metric(site, "skupper_acceleration_messages_total");
        assert!(messages >= 2 * 15_000, "{}: {messages}", site.name());
    }
}

#[test]
fn acceleration_is_seen_of_the_system_and_of_each_listener() {
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
        "off: neither it nor its site asks",
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
    here.wait_message("Listener", "echo", "Error", "spec.settings[acceleration]");
}

#[test]
fn single_ports_without_tls_are_accelerated_and_nothing_else() {
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
    // Before and after the one around them.
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

fn loopback_in(third: u8, octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, third, octet), port).into()
}

/// The main job of two linked sites.
fn scenarios(a: &Site, b: &Site) {
    let server = Server::start(loopback(1, 7000), echo);
    let (here, there, six) = (loopback(9, 80), loopback(10, 80), "[::1]:80");
    let six: SocketAddr = six.parse().expect("an address");
    b.listener("echo", "echo", there);
    b.wait_status("Listener", "echo", "Pending");
    assert!(refused(there), "a listener without a connector accepts");
    a.connector("echo", "echo", server.addr);
    a.listener("echo", "echo", here);
    b.listener("six", "echo", six);
    for at in [here, there, six] {
        wait_until("an echo", SOON, || works(at));
        // Pieces, halves that end, resets and slow readers, of which every byte is compared.
        torture(at, 200, 4).expect("right");
        let mut socket = connect(at).expect("a connection");
        let text: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let mut writer = socket.try_clone().expect("a clone");
        let sent = text.clone();
        let writer = thread::spawn(move || {
            writer.write_all(&sent).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half-closed");
        });
        let (mut back, begin) = (Vec::new(), Instant::now());
        while let Err(e) = socket.read_to_end(&mut back) {
            assert_eq!(e.kind(), ErrorKind::WouldBlock);
            assert!(begin.elapsed() < SOON, "no end");
        }
        writer.join().expect("a writer");
        assert!(back == text, "{} bytes that differ", back.len());
        // What begins with TLS.
        let mut socket = connect(at).expect("a connection");
        let hello = [0x16, 3, 1, 0, 4, 1, 2, 3, 4];
        assert_eq!(round_trip(&mut socket, &hello).expect("an echo"), hello);
    }
    let mut held = connect(there).expect("a connection");
    round_trip(&mut held, b"before").expect("an echo");
    b.remove("Listener", "six");
    wait_until("the listener to close", SOON, || refused(six));
    round_trip(&mut held, b"after").expect("an echo");
    a.remove("Connector", "echo");
    wait_until("the listeners to close", SOON, || {
        refused(here) && refused(there)
    });
}

#[test]
fn the_main_job_is_done_with_steering_and_acceleration_on_and_off() {
    if !netns::enter() {
        return;
    }
    if site("probe", "{}").is_none() {
        return;
    }
    for (steering, acceleration) in [
        ("auto", "auto"),
        ("auto", "off"),
        ("off", "auto"),
        ("off", "off"),
    ] {
        let begin = Instant::now();
        let (mut a, mut b) = (Site::new("a"), Site::new("b"));
        let access = loopback(1, 7100);
        a.access(access);
        b.link_to(&a, access, 1);
        // One is told by its environment, the other by its Site.
        a.resource("Site", "a", AUTO);
        let settings =
            format!("{{settings: {{steering: \"{steering}\", acceleration: \"{acceleration}\"}}}}");
        b.resource("Site", "b", &settings);
        a.start_under(&[
            ("SKUPPER_STEERING", steering.into()),
            ("SKUPPER_ACCELERATION", acceleration.into()),
        ]);
        b.start();
        b.wait_status("Link", "to-a", "Ready");
        scenarios(&a, &b);
        for site in [&a, &b] {
            let messages = metric(site, "skupper_acceleration_messages_total");
            assert_eq!(messages > 0, acceleration == "auto", "{messages}");
        }
        let steered = metric(&a, "skupper_steering_enabled");
        assert_eq!(steered, u64::from(steering == "auto"));
        println!(
            "steering {steering}, acceleration {acceleration}: {:?}",
            begin.elapsed()
        );
    }
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
    // That of messages is held by the sockets that it is for.
    drop(carried);
    wait_until("its programs to go", SOON, || {
        let mut loaded = loaded_programs().filter_map(Result::ok);
        !loaded.any(|program| ours.contains(&program.id()))
    });
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
