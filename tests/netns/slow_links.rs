//! Links whose path is slow: bulk must not keep everything else from it.

use skupper_tests::{
    SOON,
    echo::{Server, connect, round_trip, works},
    host::{self, Host},
    skip::skip,
    wait_until,
};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The rate of the uplink, in bytes per second, and as `tc` takes it.
const RATE: u64 = 375_000;
const TBF: &str = "qdisc add dev cable root tbf rate 3mbit burst 16kb latency 100ms";
const UPLOADS: usize = 4;
/// Time in which a ping or a new connection is answered beside the uploads. The path itself takes up to
/// 0.1 s; without bounds on what is queued it was 3 s for a ping, and new connections hung.
const PATIENCE: Duration = Duration::from_secs(1);

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Two linked hosts with an echo server and one that reads to the end at the first, and their listeners
/// at the second. Counts the bytes that are read.
fn uplink(east: &mut Host, west: &mut Host) -> (Vec<Server>, Arc<AtomicU64>) {
    east.shell(
        "skupper site create east --enable-link-access --host 10.99.0.1\n\
         skupper token issue token.yaml\n\
         scp token.yaml west:",
    );
    west.shell("skupper site create west\nskupper token redeem token.yaml");
    let read = Arc::new(AtomicU64::new(0));
    let counter = read.clone();
    let servers = east.in_netns(move || {
        let sink = move |mut socket: std::net::TcpStream| {
            let mut part = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = socket.read(&mut part) {
                counter.fetch_add(n as u64, Ordering::SeqCst);
            }
        };
        let sink = Server::start(loopback(7002), sink);
        vec![Server::echo(loopback(7001)), sink]
    });
    for (key, port) in [("echo", 7001), ("sink", 7002)] {
        east.site.connector(key, key, loopback(port));
        west.site.listener(key, key, loopback(port + 1000));
    }
    (servers, read)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// What a client at the second host measures beside uploads: pings, and new connections.
fn measure(read: &AtomicU64) -> [Vec<Duration>; 2] {
    let (echo, sink) = (loopback(8001), loopback(8002));
    let mut held = connect(echo).expect("a connection");
    for _ in 0..UPLOADS {
        let mut upload = connect(sink).expect("a connection");
        // Ends with the test.
        thread::spawn(move || while upload.write_all(&[0; 64 * 1024]).is_ok() {});
    }
    // By now every buffer on the way is as full as it gets.
    wait_until("the uploads to fill the path", SOON, || {
        read.load(Ordering::SeqCst) > 3 * RATE
    });
    let time = |ping: &mut dyn FnMut()| {
        let begin = Instant::now();
        ping();
        begin.elapsed()
    };
    let pings = (0..9).map(|_| {
        time(&mut || drop(round_trip(&mut held, b"ping").expect("an answer beside the uploads")))
    });
    let pings = pings.collect();
    let fresh = (0..5).map(|_| time(&mut || assert!(works(echo), "a new connection works")));
    [pings, fresh.collect()]
}

#[test]
fn pings_and_new_connections_are_answered_beside_uploads_on_a_slow_uplink() {
    let Some([mut east, mut west]) = host::pair(["east", "west"]) else {
        return;
    };
    let (_servers, read) = uplink(&mut east, &mut west);
    let limited = west.in_netns(|| {
        wait_until("both services", SOON, || {
            works(loopback(8001)) && connect(loopback(8002)).is_ok()
        });
        let tc = Command::new("tc").args(TBF.split(' ')).output();
        tc.map_err(|error| error.to_string()).and_then(|output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            output.status.success().then_some(()).ok_or(text)
        })
    });
    if let Err(error) = limited {
        return skip(&format!("tc limits no rate here: {error}"));
    }
    let [pings, fresh] = west.in_netns(move || measure(&read));
    let (ping, first) = (median(pings.clone()), median(fresh.clone()));
    assert!(ping < PATIENCE, "pings: {pings:?}");
    assert!(first < PATIENCE, "new connections: {fresh:?}");
}
