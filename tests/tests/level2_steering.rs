//! Listeners that the kernel steers, each test in a network namespace of its own.

#![cfg(feature = "ebpf")]

use skupper_tests::{
    SOON,
    echo::{Server, connect, hear, refused, round_trip, works},
    netns,
    site::Site,
    skip::skip,
    wait_until,
};
use std::{
    io::{ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const ON: &str = "steering is on";
const OFF: &str = "steering is off";

/// A site whose daemon steers, alone in a network namespace. None: that can not be had here.
fn steered() -> Option<Site> {
    if !netns::enter() {
        return None;
    }
    let mut site = Site::new("here");
    site.start();
    wait_until("the daemon to say which way", SOON, || {
        site.log().contains(ON) || site.log().contains(OFF)
    });
    if site.log().contains(ON) {
        return Some(site);
    }
    // Containers can take the right to load programs from root; anything else is a fault.
    let log = site.log();
    assert!(
        log.contains("os error 1") || log.contains("missing"),
        "{log}"
    );
    skip(&format!("no BPF programs here: {log}"));
    None
}

/// The value of a metric, without labels.
fn metric(site: &Site, name: &str) -> u64 {
    let text = site.http("GET /metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().expect("a number")
}

fn loopback(octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, octet), port).into()
}

/// Sockets of the daemon, by `ss` with these arguments.
fn sockets(site: &Site, args: &[&str]) -> usize {
    let output = std::process::Command::new("ss").args(args).output();
    let output = output.expect("ss");
    let text = String::from_utf8_lossy(&output.stdout);
    let of_daemon = format!("pid={},", site.pid());
    text.lines().filter(|l| l.contains(&of_daemon)).count()
}

#[test]
fn echo_over_ipv4_and_ipv6() {
    let Some(site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let v4 = loopback(7, 80);
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 80));
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 81));
    for (name, addr) in [("v4", v4), ("v6", v6), ("any", any)] {
        site.listener(name, "echo", addr);
    }
    for addr in [v4, v6, (Ipv6Addr::LOCALHOST, 81).into()] {
        wait_until("an echo", SOON, || works(addr));
    }
    // Only where a listener is: not on other addresses, nor ports, nor the other family.
    for addr in [loopback(8, 80), loopback(7, 79), loopback(7, 81)] {
        assert!(refused(addr), "{addr}");
    }
    assert_eq!(metric(&site, "skupper_steering_enabled"), 1);
    assert!(metric(&site, "skupper_steering_hits_total") >= 3);
    assert!(metric(&site, "skupper_steering_misses_total") >= 3);
    site.remove("Listener", "v4");
    wait_until("the listener to close", SOON, || refused(v4));
    assert!(works(v6));
    site.remove("Connector", "echo");
    wait_until("the others to close", SOON, || refused(v6));
    site.connector("echo", "echo", server.addr);
    wait_until("the others to open", SOON, || works(v6));
}

#[test]
fn many_connections_are_whole() {
    let Some(site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(1, 80);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    let mut held = Vec::new();
    for n in 0..200 {
        let mut socket = connect(addr).expect("a connection");
        let text = format!("number {n}");
        let back = round_trip(&mut socket, text.as_bytes()).expect("an echo");
        assert_eq!(back, text.as_bytes());
        held.push(socket);
    }
    // A listener that is gone takes its connections with it.
    site.remove("Listener", "echo");
    for socket in &mut held {
        assert!(!matches!(socket.read(&mut [0; 1]), Ok(1..)));
    }
    assert!(refused(addr));
}

#[test]
fn the_exact_address_goes_before_all_addresses() {
    let Some(site) = steered() else { return };
    let (all, one) = (
        Server::says(loopback(1, 7000), "all"),
        Server::says(loopback(1, 7001), "one"),
    );
    site.connector("all", "all", all.addr);
    site.connector("one", "one", one.addr);
    let port = 80;
    site.listener("all", "all", (Ipv4Addr::UNSPECIFIED, port).into());
    let heard = |addr| hear(addr).unwrap_or_default();
    let (here, there) = (loopback(7, port), loopback(8, port));
    wait_until("all addresses", SOON, || heard(here) == "all");
    // In one namespace this is a mistake that is said; another one's is another's.
    let other = site.root().join("namespaces/other/input/resources");
    let write = |kind: &str, name: &str, spec: &str| {
        std::fs::create_dir_all(&other).expect("a directory");
        let text = format!(
            "apiVersion: skupper.io/v2alpha1\nkind: {kind}\nmetadata:\n  name: {name}\nspec: {spec}\n"
        );
        std::fs::write(other.join(format!("{name}.yaml")), text).expect("a manifest");
    };
    write("Site", "other", "{}");
    write(
        "Connector",
        "c",
        "{routingKey: one, host: 127.0.0.1, port: 7001}",
    );
    write(
        "Listener",
        "l",
        "{routingKey: one, host: 127.0.0.7, port: 80}",
    );
    wait_until("the exact address", SOON, || heard(here) == "one");
    assert_eq!(heard(there), "all");
    std::fs::remove_file(other.join("l.yaml")).expect("removed");
    wait_until("all addresses again", SOON, || heard(here) == "all");
}

#[test]
fn sockets_of_other_programs_are_not_touched() {
    let Some(site) = steered() else { return };
    let other = Server::says(loopback(9, 80), "other");
    let server = Server::says(loopback(1, 7000), "ours");
    site.connector("ours", "ours", server.addr);
    site.listener("ours", "ours", loopback(7, 80));
    wait_until("ours", SOON, || {
        hear(loopback(7, 80)).is_ok_and(|t| t == "ours")
    });
    assert_eq!(hear(other.addr).expect("the other"), "other");
    // Nor can one take what is ours, as from any server.
    let error = TcpListener::bind(loopback(7, 80)).expect_err("bound");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let error = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)).expect_err("bound");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_busy_address_is_said_the_same_with_and_without_steering() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "ours");
    let busy = Server::says(loopback(1, 80), "theirs");
    let mut plain = Site::new("plain");
    plain.start_with(&["--steering", "off"]);
    let mut messages = Vec::new();
    for site in [&site, &plain] {
        site.connector("ours", "ours", server.addr);
        site.listener("ours", "ours", busy.addr);
        messages.push(site.wait_status("Listener", "ours", "Error"));
        assert_eq!(hear(busy.addr).expect("theirs"), "theirs");
    }
    assert!(plain.log().contains(OFF));
    assert!(
        messages[0].contains("127.0.0.1:80: binding: Address already in use"),
        "{messages:?}"
    );
    assert_eq!(messages[0], messages[1]);
    drop(plain);
    let addr = busy.addr;
    drop(busy);
    wait_until("ours", SOON, || hear(addr).is_ok_and(|t| t == "ours"));
    site.wait_status("Listener", "ours", "Ready");
}

#[test]
fn what_is_another_programs_stays_its_own_over_restarts_and_is_taken_over_when_it_is_free() {
    let Some(mut site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "ours");
    let busy = Server::says(loopback(7, 80), "theirs");
    let within = Server::says(loopback_in(8, 80), "theirs");
    site.connector("ours", "ours", server.addr);
    site.listener("busy", "ours", busy.addr);
    site.listener("free", "ours", loopback(8, 80));
    let settings = "settings: {host-prefix: 127.7.7.0/24, ports: '81'}";
    let spec = format!("{{routingKey: ours, host: 127.0.0.9, port: 81, {settings}}}");
    site.resource("Listener", "prefix", &spec);
    let ours = |addr: SocketAddr| hear(addr).is_ok_and(|text| text == "ours");
    let inside = Server::says(loopback_in(9, 81), "late");
    for restart in 0..3 {
        wait_until("the others", SOON, || ours(loopback(8, 80)));
        wait_until("the condition", SOON, || {
            let message = site.wait_status("Listener", "busy", "Error");
            message.contains("127.0.0.7:80: binding: Address already in use")
        });
        for (addr, text) in [
            (busy.addr, "theirs"),
            (within.addr, "theirs"),
            (inside.addr, "late"),
        ] {
            assert_eq!(hear(addr).expect("an answer"), text, "{addr}");
        }
        match restart {
            0 => assert_eq!(site.stop(), Some(0)),
            1 => site.kill(),
            _ => break,
        }
        site.start();
    }
    drop((busy, inside));
    wait_until("what was busy", SOON, || ours(loopback(7, 80)));
    wait_until("all of the prefix", SOON, || ours(loopback_in(9, 81)));
    site.wait_status("Listener", "busy", "Ready");
}

fn loopback_in(octet: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 7, 7, octet), port).into()
}

#[test]
fn instances_do_not_shadow_each_other() {
    let Some(first) = steered() else { return };
    let addr = loopback(7, 80);
    let mut servers = Vec::new();
    let mut serve = |site: &Site, text: &'static str| {
        let port = 7000 + servers.len() as u16;
        let server = Server::says(loopback(1, port), text);
        site.connector(text, text, server.addr);
        site.listener(text, text, addr);
        servers.push(server);
    };
    serve(&first, "first");
    wait_until("the first", SOON, || hear(addr).is_ok_and(|t| t == "first"));
    let (mut second, mut third) = (Site::new("second"), Site::new("third"));
    second.start();
    third.start_with(&["--steering", "off"]);
    for (site, text) in [(&second, "second"), (&third, "third")] {
        serve(site, text);
        site.wait_message("Listener", text, "Error", "Address already in use");
        assert_eq!(hear(addr).expect("the first"), "first");
    }
    drop(third);
    assert_eq!(sockets(&first, &["-Hltnp", "sport", "=", ":80"]), 0);
    // Its end is the end of all that it had: the address is free for the second,
    drop(first);
    wait_until("the second", SOON, || {
        hear(addr).is_ok_and(|t| t == "second")
    });
    // and after its end for anybody.
    drop(second);
    assert!(refused(addr));
    drop(Server::says(addr, "anybody"));
}

#[test]
fn a_killed_daemon_leaves_nothing_and_its_next_life_has_it_all() {
    let Some(mut site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(7, 80);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    let mut open = connect(addr).expect("a connection");
    round_trip(&mut open, b"x").expect("an echo");
    site.kill();
    assert!(refused(addr));
    let other = Server::says(addr, "another");
    assert_eq!(hear(addr).expect("another"), "another");
    drop(other);
    site.start();
    wait_until("an echo", SOON, || works(addr));
    assert_eq!(site.log().matches(ON).count(), 2);
}

#[test]
fn without_the_capability_listeners_have_sockets() {
    let Some(mut site) = steered() else { return };
    let server = Server::echo(loopback(1, 7000));
    site.connector("echo", "echo", server.addr);
    let addr = loopback(7, 8080);
    site.listener("echo", "echo", addr);
    wait_until("an echo", SOON, || works(addr));
    assert_eq!(site.stop(), Some(0));
    for (without, missing) in [
        ("-bpf,-sys_admin", "missing CAP_BPF\""),
        ("-net_admin,-sys_admin", "missing CAP_NET_ADMIN\""),
        ("-all", "missing CAP_BPF, CAP_NET_ADMIN"),
    ] {
        site.start_by(&["setpriv", "--bounding-set", without, "--inh-caps", "-all"]);
        wait_until("an echo", SOON, || works(addr));
        assert!(site.log().contains(missing), "{missing}: {}", site.log());
        assert_eq!(metric(&site, "skupper_steering_enabled"), 0);
        assert!(sockets(&site, &["-Hltnp", "sport", "=", ":8080"]) > 0);
        assert_eq!(site.stop(), Some(0));
    }
}

/// Time within which a thousand listeners of one file are reachable. What is measured in a debug
/// build is no figure.
const THOUSAND: Duration = if cfg!(debug_assertions) {
    SOON
} else {
    Duration::from_secs(1)
};

#[test]
fn a_thousand_listeners_are_reachable_within_a_second_steered_or_not() {
    let Some(steered) = steered() else { return };
    let mut plain = Site::new("plain");
    plain.start_with(&["--steering", "off"]);
    for (site, net, way) in [
        (&steered, 1, "steered"),
        (&plain, 2, "sockets of their own"),
    ] {
        let server = Server::says((Ipv4Addr::new(127, net, 201, 1), 7000).into(), way);
        site.connector("one", "one", server.addr);
        site.listener(
            "first",
            "one",
            (Ipv4Addr::new(127, net, 200, 1), 443).into(),
        );
        let heard = |addr: SocketAddr| hear(addr).is_ok_and(|text| text == way);
        let addr =
            |n: u16| SocketAddr::from((Ipv4Addr::new(127, net, (n >> 8) as u8, n as u8), 443));
        wait_until("the connector", SOON, || {
            heard((Ipv4Addr::new(127, net, 200, 1), 443).into())
        });
        let listener = |n| {
            let host = addr(n).ip();
            format!(
                "---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: l{n}\n\
                 spec: {{routingKey: one, host: {host}, port: 443}}\n"
            )
        };
        let manifest: String = (0..1000).map(listener).collect();
        let begin = Instant::now();
        site.file("all.yaml", &manifest);
        // Several at once: a thousand connections one after another take longer than what is measured.
        thread::scope(|scope| {
            for first in 0..u16::try_from(CLIENTS).expect("few") {
                scope.spawn(move || {
                    for n in (first..1000).step_by(CLIENTS as usize) {
                        wait_until("a listener", SOON, || heard(addr(n)));
                    }
                });
            }
        });
        let took = begin.elapsed();
        println!("1,000 listeners, {way}: the last one was reached after {took:?}");
        assert!(took < THOUSAND, "{way}: {took:?}");
    }
}

/// Threads that make the thousand connections a second.
const CLIENTS: u32 = 8;

#[test]
fn listeners_that_come_and_go_are_no_matter_to_a_thousand_clients_a_second() {
    let Some(site) = steered() else { return };
    let (one, two) = (
        Server::says(loopback(1, 7000), "one"),
        Server::says(loopback(1, 7001), "two"),
    );
    site.connector("one", "one", one.addr);
    site.connector("two", "two", two.addr);
    let ours = loopback(7, 80);
    site.listener("ours", "one", ours);
    wait_until("the listener", SOON, || {
        hear(ours).is_ok_and(|t| t == "one")
    });
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut heard = 0;
                while !stop.load(Ordering::SeqCst) {
                    // All of them together: one in a millisecond.
                    let due = begin + Duration::from_millis(u64::from(CLIENTS * heard));
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    assert_eq!(hear(ours).expect("nobody is refused"), "one");
                    heard += 1;
                }
                heard
            })
        })
        .collect();
    for n in 0..20 {
        let addr = loopback(20 + n, 80);
        let name = format!("more{n}");
        site.listener(&name, "two", addr);
        wait_until("one more", SOON, || hear(addr).is_ok_and(|t| t == "two"));
        site.remove("Listener", &name);
        wait_until("it to go", SOON, || refused(addr));
    }
    stop.store(true, Ordering::SeqCst);
    let heard: u32 = clients
        .into_iter()
        .map(|client| {
            client
                .join()
                .expect("a client that is never refused nor misdirected")
        })
        .sum();
    let rate = f64::from(heard) / begin.elapsed().as_secs_f64();
    println!("{heard} clients, {rate:.0} in a second, while 20 listeners came and went");
}

#[test]
fn listeners_by_thousands_come_move_and_go() {
    let Some(site) = steered() else { return };
    let (one, two) = (
        Server::says(loopback(1, 7000), "one"),
        Server::says(loopback(1, 7001), "two"),
    );
    site.connector("one", "one", one.addr);
    site.connector("two", "two", two.addr);
    let addr = |n: u16| SocketAddr::from((Ipv4Addr::new(127, 1, (n >> 8) as u8, n as u8), 443));
    let manifest = |key: &str| {
        let listener = |n| {
            let host = addr(n).ip();
            format!(
                "---\napiVersion: skupper.io/v2alpha1\nkind: Listener\nmetadata:\n  name: l{n}\n\
                 spec: {{routingKey: {key}, host: {host}, port: 443}}\n"
            )
        };
        (0..1000).map(listener).collect::<String>()
    };
    let listening = sockets(&site, &["-Hltnp"]);
    let all = |text: &str| {
        let begin = Instant::now();
        site.file("all.yaml", &manifest(text));
        wait_until("the last one", SOON, || {
            hear(addr(999)).is_ok_and(|t| t == text)
        });
        println!("1,000 listeners for {text}: {:?}", begin.elapsed());
        // The batch has no order: that the last one is there says nothing of the others.
        for n in 0..1000 {
            wait_until("each of them", SOON, || {
                hear(addr(n)).is_ok_and(|t| t == text)
            });
        }
    };
    all("one");
    assert_eq!(sockets(&site, &["-Hltnp"]), listening);
    // The addresses change hands, and nobody is refused meanwhile.
    let stop = Arc::new(AtomicBool::new(false));
    let client = {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                let text = hear(addr(n % 1000));
                match text {
                    Ok(text) => assert!(["one", "two", ""].contains(&&*text), "{text}"),
                    // Who waits in the queue is cut with the connections of the old listener.
                    Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{n}: {e}"),
                }
                n += 1;
            }
            n
        })
    };
    all("two");
    stop.store(true, Ordering::SeqCst);
    assert!(client.join().expect("no client was refused") > 0);
    std::fs::remove_file(site.input().join("all.yaml")).expect("removed");
    for n in 0..1000 {
        wait_until("each of them to close", SOON, || refused(addr(n)));
        // Given back once the kernel sends nobody there any more.
        wait_until("a free address", SOON, || {
            TcpListener::bind(addr(n)).is_ok()
        });
    }
}

#[test]
fn reloads_and_neighbours_under_load_refuse_nobody() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "here");
    site.connector("here", "here", server.addr);
    let addr = loopback(7, 80);
    site.listener("here", "here", addr);
    wait_until("the listener", SOON, || {
        hear(addr).is_ok_and(|t| t == "here")
    });
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(hear(addr).expect("served"), "here");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let neighbour = loopback(8, 80);
        site.listener("neighbour", "here", neighbour);
        site.signal(nix::sys::signal::Signal::SIGHUP);
        wait_until("the neighbour", SOON, || hear(neighbour).is_ok());
        site.remove("Listener", "neighbour");
        wait_until("the neighbour to go", SOON, || refused(neighbour));
        let seen = served.load(Ordering::SeqCst);
        wait_until("clients", SOON, || {
            served.load(Ordering::SeqCst) > seen + round
        });
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("nobody was refused");
    }
}

#[test]
fn a_site_can_have_sockets_of_its_own() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "here");
    site.connector("here", "here", server.addr);
    let addr = loopback(7, 80);
    site.listener("here", "here", addr);
    let heard = || hear(addr).is_ok_and(|t| t == "here");
    let listening = || sockets(&site, &["-Hltnp", "sport", "=", ":80"]);
    wait_until("the listener", SOON, heard);
    assert_eq!(listening(), 0);
    for (steering, own) in [("off", true), ("auto", false)] {
        let spec = format!("{{settings: {{steering: \"{steering}\"}}}}");
        site.resource("Site", "here", &spec);
        wait_until(steering, SOON, || (listening() > 0) == own && heard());
    }
    site.resource("Site", "here", "{settings: {steering: fast}}");
    site.wait_message("Site", "here", "Error", "spec.settings[steering]");
    assert!(heard());
}
