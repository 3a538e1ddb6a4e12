//! Listeners on prefixes, port ranges and all ports, each test in a network namespace of its
//! own.

#![cfg(feature = "ebpf")]

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use skupper_tests::{
    SOON,
    echo::{Server, reads, refused},
    netns::{self, run},
    site::Site,
    skip::skip,
    wait_until,
};
use skupperd::steer::{
    self, ActiveSteering, Owner, SteeringHandover, SteeringUnavailable,
    bind_range::{BindRange, Network, Ports},
};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Steering in a new network namespace. `None`, after a skip, without eBPF.
fn steering() -> Option<ActiveSteering> {
    if !netns::enter() {
        return None;
    }
    run("ip", &["route", "add", "local", "fd12::/64", "dev", "lo"]);
    match steer::start(2, &SteeringHandover::default()) {
        Ok(steered) => Some(steered),
        // root in a container may lack the right to load programs; any other error fails the test.
        Err(SteeringUnavailable::Missing(_)) => {
            skip("no BPF programs here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn owner(listener: u64) -> Owner {
    Owner {
        site: 1,
        listener,
        routing_key: "key".into(),
        name: Arc::new(("default".to_owned(), listener.to_string())),
        slot: 0,
    }
}

/// The addresses of all prefixes below.
fn addresses() -> Vec<IpAddr> {
    let v4 = (0..4).map(|n| IpAddr::from(Ipv4Addr::new(127, 0, 7, n)));
    let v6 = (0..4).map(|n| IpAddr::from(Ipv6Addr::new(0xfd12, 0, 0, 0, 0, 0, 0, n)));
    v4.chain(v6).collect()
}

/// Ports that the test probes. Ranges lie around them.
const PORTS: std::ops::Range<u16> = 100..108;

fn bind_ranges() -> impl Strategy<Value = BindRange> {
    let network = (prop::sample::select(addresses()), 0..6usize).prop_map(|(address, n)| {
        let lengths = if address.is_ipv4() {
            [0, 8, 24, 30, 31, 32]
        } else {
            [0, 16, 64, 126, 127, 128]
        };
        Network::containing(address, lengths[n])
    });
    let ports = prop_oneof![
        (100..106u16).prop_map(Ports::One),
        (100..104u16, 0..4u16).prop_map(|(first, more)| Ports::Range(first, first + more)),
        Just(Ports::All),
    ];
    (network, ports).prop_map(|(network, ports)| BindRange { network, ports })
}

/// Model: finds the owner of a connection by a linear search.
fn expected(held: &[(BindRange, u64)], to: SocketAddr) -> Option<u64> {
    let rank = |range: &BindRange| {
        let ports = match range.ports {
            Ports::One(_) => 2,
            Ports::Range(..) => 1,
            Ports::All => 0,
        };
        (range.network.bits(), ports)
    };
    let matching = held.iter().filter(|(range, _)| range.contains(to));
    let best = matching.max_by_key(|(range, _)| rank(range));
    best.map(|(_, listener)| *listener)
}

/// The owner of a connection according to the kernel.
fn observed(steered: &ActiveSteering, to: SocketAddr) -> Result<Option<u64>, String> {
    let client = match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
        Ok(client) => client,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(format!("{to}: {error}")),
    };
    for socket in steered.sockets.iter().flatten() {
        if let Ok((server, from)) = socket.accept() {
            if from != client.local_addr().map_err(|e| e.to_string())? {
                return Err(format!("{to}: another's connection, of {from}"));
            }
            let came_to = server.local_addr().map_err(|e| e.to_string())?;
            let owner = steered.table.owner(came_to);
            return Ok(Some(
                owner.ok_or_else(|| format!("{to}: nobody's"))?.listener,
            ));
        }
    }
    Err(format!("{to}: it went elsewhere"))
}

#[test]
fn the_kernel_picks_the_range_that_a_linear_search_picks() {
    let Some(mut steered) = steering() else {
        return;
    };
    let batches = prop::collection::vec(
        (
            prop::collection::vec(bind_ranges(), 0..6),
            prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ),
        1..4,
    );
    let config = Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    };
    let steered = std::cell::RefCell::new(&mut steered);
    let outcome = TestRunner::new(config).run(&batches, |batches| {
        let mut held: Vec<(BindRange, u64)> = Vec::new();
        let mut next = 0;
        for (begin, end) in batches {
            let mut ending: Vec<BindRange> = Vec::new();
            for index in end {
                if !held.is_empty() {
                    ending.push(held.remove(index.index(held.len())).0);
                }
            }
            let begin: Vec<(BindRange, Owner)> = begin
                .into_iter()
                .map(|range| {
                    next += 1;
                    (range, owner(next))
                })
                .collect();
            let results = steered.borrow_mut().steer.apply(&ending, begin.clone());
            for ((range, owner), result) in begin.into_iter().zip(results) {
                match result {
                    Ok(()) => held.push((range, owner.listener)),
                    Err(error) => {
                        let error = error.to_string();
                        prop_assert!(error.contains("by another listener"), "{}", error);
                    }
                }
            }
            for address in addresses() {
                for port in PORTS {
                    let to = SocketAddr::new(address, port);
                    let seen = observed(&steered.borrow(), to).map_err(TestCaseError::fail)?;
                    prop_assert_eq!(seen, expected(&held, to), "{} of {:?}", to, &held);
                }
            }
        }
        // The next case starts without bindings.
        let all: Vec<BindRange> = held.iter().map(|(range, _)| *range).collect();
        steered.borrow_mut().steer.apply(&all, Vec::new());
        for address in addresses() {
            let seen = observed(&steered.borrow(), (address, 103).into());
            prop_assert_eq!(seen, Ok(None));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn an_address_moves_between_listeners_without_a_gap() {
    let Some(mut steered) = steering() else {
        return;
    };
    let range = |first, last| BindRange {
        network: Network::of([127, 0, 7, 1].into()),
        ports: Ports::Range(first, last),
    };
    let begin = vec![(range(100, 110), owner(1))];
    assert!(steered.steer.apply(&[], begin).iter().all(Result::is_ok));
    let to = SocketAddr::from(([127, 0, 7, 1], 105));
    let other = std::thread::spawn(move || {
        let mut served = 0;
        loop {
            match TcpStream::connect_timeout(&to, Duration::from_secs(5)) {
                Ok(_) => served += 1,
                // Accepted and dropped before this client has looked.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => served += 1,
                Err(_) => return served,
            }
        }
    });
    let (mut from, mut n) = (range(100, 110), 1);
    for last in 111..311 {
        n += 1;
        let begin = vec![(range(100, last), owner(n))];
        let results = steered.steer.apply(&[from], begin);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        from = range(100, last);
        for socket in steered.sockets.iter().flatten() {
            while socket.accept().is_ok() {}
        }
        assert!(!other.is_finished(), "refused at {last}");
    }
    steered.steer.apply(&[from], Vec::new());
    for socket in steered.sockets.iter().flatten() {
        while socket.accept().is_ok() {}
    }
    assert!(other.join().expect("the client") > 0);
}

/// A site whose daemon steers, with service addresses, and a server that sends its name.
fn site() -> Option<(Site, Server)> {
    drop(steering()?);
    let mut site = Site::new("here");
    site.resource(
        "Site",
        "here",
        "{settings: {service-addresses: 198.18.0.0/16}}",
    );
    let server = Server::says(([127, 0, 0, 1], 7000).into(), "ours");
    site.connector("ours", "ours", server.addr);
    site.start();
    Some((site, server))
}

fn listener(site: &Site, name: &str, host: &str, settings: &str) {
    let spec = format!("{{routingKey: ours, host: {host}, port: 443, settings: {{{settings}}}}}");
    site.resource("Listener", name, &spec);
}

fn at(octet: u8, port: u16) -> SocketAddr {
    ([198, 18, 7, octet], port).into()
}

#[test]
fn listeners_on_ranges_all_ports_and_prefixes() {
    let Some((site, _server)) = site() else {
        return;
    };
    listener(&site, "range", "198.18.7.1", "ports: '8000-8100,9000'");
    wait_until("a range", SOON, || reads(at(1, 8100), "ours"));
    for port in [443, 8000, 8055, 9000] {
        assert!(reads(at(1, port), "ours"), "{port}");
    }
    for port in [7999, 8101, 442] {
        assert!(refused(at(1, port)), "{port}");
    }
    // Other programs cannot take a port of a range, as they cannot take a single port.
    let taken = TcpListener::bind(at(1, 8050)).expect_err("bound");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    listener(&site, "all", "198.18.7.2", "ports: all");
    wait_until("all ports", SOON, || reads(at(2, 65535), "ours"));
    for port in [1, 22, 443, 8055] {
        assert!(reads(at(2, port), "ours"), "{port}");
    }
    listener(&site, "prefix", "198.18.8.1", "host-prefix: 198.18.9.0/24");
    let of_prefix = |octet: u8| SocketAddr::from(([198, 18, 9, octet], 443));
    wait_until("a prefix", SOON, || reads(of_prefix(0), "ours"));
    assert!(reads(of_prefix(255), "ours"));
    assert!(refused(([198, 18, 10, 0], 443).into()));
    for name in ["range", "all", "prefix"] {
        site.remove("Listener", name);
    }
    for addr in [at(1, 8055), at(2, 22), of_prefix(9)] {
        wait_until("the end", SOON, || refused(addr));
    }
    wait_until("a free port", SOON, || {
        TcpListener::bind(at(1, 8050)).is_ok()
    });
}

#[test]
fn listening_programs_are_never_shadowed() {
    let Some((site, _server)) = site() else {
        return;
    };
    wait_until("the route", SOON, || TcpListener::bind(at(3, 1)).is_ok());
    // The status reports a program that had the port before. A listener on all ports gets all other
    // ports.
    let ssh = Server::says(([0, 0, 0, 0], 22).into(), "ssh");
    let one = Server::says(at(3, 8050), "one");
    listener(&site, "range", "198.18.7.3", "ports: 8000-8100");
    site.wait_message(
        "Listener",
        "range",
        "Error",
        "198.18.7.3:8050: binding: Address already in use",
    );
    assert!(reads(at(3, 8050), "one") && refused(at(3, 8051)));
    listener(
        &site,
        "prefix",
        "198.18.6.1",
        "host-prefix: 198.18.7.0/24, ports: '8050'",
    );
    let message = site.wait_status("Listener", "prefix", "Error");
    assert!(
        message.contains(
            "198.18.7.0/24 port 8050: binding: Address already in use by another program at \
             198.18.7.3:8050"
        ),
        "{message}"
    );
    listener(&site, "all", "198.18.7.4", "ports: all");
    wait_until("all ports", SOON, || reads(at(4, 23), "ours"));
    assert!(reads(at(4, 22), "ssh"));
    drop(one);
    for name in ["range", "prefix"] {
        site.wait_status("Listener", name, "Ready");
    }
    wait_until("the prefix", SOON, || reads(at(9, 8050), "ours"));
    // A program that starts later keeps its port until it ends.
    let later = [
        Server::says(at(4, 9000), "later"),
        Server::says(at(9, 443), "later"),
    ];
    for server in &later {
        wait_until("it to be left alone", SOON, || reads(server.addr, "later"));
        let neighbour = SocketAddr::new(at(5, 0).ip(), 443);
        assert!(reads(at(4, 9001), "ours") && reads(neighbour, "ours"));
    }
    let addrs = later.each_ref().map(|server| server.addr);
    drop(later);
    for addr in addrs {
        wait_until("it to be ours again", SOON, || reads(addr, "ours"));
    }
    drop(ssh);
    wait_until("22 to be ours", SOON, || reads(at(4, 22), "ours"));
}

#[test]
fn too_broad_ranges_and_missing_kernel_support_are_reported() {
    let Some((site, _server)) = site() else {
        return;
    };
    for (host, settings, why) in [
        (
            "0.0.0.0",
            "ports: all",
            "0.0.0.0 is every address of this host",
        ),
        ("127.0.0.1", "ports: all", "an interface has 127.0.0.1"),
        (
            "198.18.7.1",
            "ports: 80-",
            "is neither a port, nor a range such as",
        ),
        (
            "198.18.7.1",
            "host-prefix: 0.0.0.0/0",
            "is every address: use spec.host 0.0.0.0",
        ),
    ] {
        listener(&site, "l", host, settings);
        wait_until(why, SOON, || {
            site.wait_status("Listener", "l", "Error").contains(why)
        });
    }
    let mut plain = Site::new("plain");
    plain.connector("ours", "ours", ([127, 0, 0, 1], 7000).into());
    plain.start_with(&["--steering", "off"]);
    listener(&plain, "range", "127.0.0.8", "ports: 8000-8010");
    wait_until("a range of sockets", SOON, || {
        reads(([127, 0, 0, 8], 8010).into(), "ours")
    });
    for (settings, what) in [
        ("ports: all", "127.0.0.9 all ports"),
        ("host-prefix: 127.7.0.0/16", "127.7.0.0/16 port 443"),
    ] {
        listener(&plain, "l", "127.0.0.9", settings);
        let why = format!("{what}: binding: needs steering, which is off or unavailable");
        wait_until(&why, SOON, || {
            plain.wait_status("Listener", "l", "Error").contains(&why)
        });
    }
}
