//! A thousand steered listeners, and changes of them under load.

#![cfg(feature = "ebpf")]

use super::steering::{sockets, steered};
use crate::loopback;
use skupper_tests::{
    SOON,
    echo::{Server, read_to_close, refused, wait_reads},
    site::Site,
    wait_until,
};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Time limit until a thousand listeners of one file are reachable. Longer for debug builds.
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
        let heard = |addr: SocketAddr| read_to_close(addr).is_ok_and(|text| text == way);
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
        // Probe in parallel: a thousand sequential connections take longer than the measured time.
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

/// A steered site with a server for each of the routing keys `one` and `two`. `None` after a skip.
fn two_services() -> Option<(Site, [Server; 2])> {
    let site = steered()?;
    let servers = [("one", 7000), ("two", 7001)].map(|(key, port)| {
        let server = Server::says(loopback(1, port), key);
        site.connector(key, key, server.addr);
        server
    });
    Some((site, servers))
}

/// The threads that make a thousand connections a second.
const CLIENTS: u32 = 8;

#[test]
fn changing_listeners_do_not_disturb_a_thousand_clients_a_second() {
    let Some((site, _servers)) = two_services() else {
        return;
    };
    let ours = loopback(7, 80);
    site.listener("ours", "one", ours);
    wait_reads(ours, "one");
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut heard = 0;
                while !stop.load(Ordering::SeqCst) {
                    // All clients together make one connection per millisecond.
                    let due = begin + Duration::from_millis(u64::from(CLIENTS * heard));
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    assert_eq!(read_to_close(ours).expect("nobody is refused"), "one");
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
        wait_reads(addr, "two");
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
    let Some((site, _servers)) = two_services() else {
        return;
    };
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
        wait_reads(addr(999), text);
        println!("1,000 listeners for {text}: {:?}", begin.elapsed());
        // The batch has no order: the last listener may open before others.
        for n in 0..1000 {
            wait_reads(addr(n), text);
        }
    };
    all("one");
    assert_eq!(sockets(&site, &["-Hltnp"]), listening);
    // The addresses move between listeners, and no client is refused.
    let stop = Arc::new(AtomicBool::new(false));
    let client = {
        let stop = stop.clone();
        thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                let text = read_to_close(addr(n % 1000));
                match text {
                    Ok(text) => assert!(["one", "two", ""].contains(&&*text), "{text}"),
                    // Clients in the accept queue are reset with the old listener's connections.
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
        // The daemon releases the address once the kernel no longer steers to it.
        wait_until("a free address", SOON, || {
            TcpListener::bind(addr(n)).is_ok()
        });
    }
}

#[test]
fn reloads_and_neighbours_under_load_refuse_no_client() {
    let Some(site) = steered() else { return };
    let server = Server::says(loopback(1, 7000), "here");
    site.connector("here", "here", server.addr);
    let addr = loopback(7, 80);
    site.listener("here", "here", addr);
    wait_reads(addr, "here");
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(read_to_close(addr).expect("served"), "here");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let neighbour = loopback(8, 80);
        site.listener("neighbour", "here", neighbour);
        site.signal(nix::sys::signal::Signal::SIGHUP);
        wait_until("the neighbour", SOON, || read_to_close(neighbour).is_ok());
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
