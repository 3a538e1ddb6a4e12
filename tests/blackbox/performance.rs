//! Latency and cost of a link. The bounds are wide: they catch an extra wait or an expensive feature,
//! not a slow machine.

use skupper_tests::{
    SOON,
    echo::{connect, round_trip, works},
    resident,
    site::{echo, linked, service},
    skip::skip,
    system_calls, wait_until,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A stream has no handshake of its own, so a connection through the link may take a few times as
/// long as one over loopback, not hundreds of times. The connections are sequential, so that any
/// extra wait (a round trip, a timer) shows.
#[test]
fn new_connections_through_a_link_keep_pace_with_loopback() {
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

/// Guards against much larger delays: 40 ms of Nagle and delayed acknowledgement, 20 ms of a timer,
/// a wait for a second link.
#[test]
fn one_byte_comes_back_in_a_few_milliseconds() {
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

#[test]
fn long_lived_echo_for_60_seconds() {
    let (a, b) = linked();
    let (_server, addr) = echo(&a, &b);
    let mut socket = connect(addr).expect("a connection");
    let begin = Instant::now();
    let mut count = 0u64;
    // Bursts, with pauses longer than a heartbeat interval.
    while begin.elapsed() < Duration::from_secs(60) {
        for _ in 0..20 {
            count += 1;
            let text = count.to_be_bytes();
            assert_eq!(round_trip(&mut socket, &text).expect("alive"), text);
        }
        std::thread::sleep(Duration::from_secs(6));
    }
    assert!(count >= 180, "{count}");
}

/// A daemon that was busy becomes smaller again. The first connections are a warm-up. Records of
/// ended connections stay, and keep the pages that they are on.
#[test]
fn memory_of_ended_connections_is_returned_after_thousands() {
    let (a, b, _server, addr) = service();
    let carry = |number: usize| {
        let sockets = (0..number).map(|_| {
            let mut socket = connect(addr).expect("a connection");
            round_trip(&mut socket, &[7; 4096]).expect("back");
            socket
        });
        sockets.collect::<Vec<_>>()
    };
    let memory = || [&a, &b].map(|site| resident(site.pid()));
    drop(carry(100));
    let before = memory();
    let open = carry(2000);
    let full = memory();
    drop(open);
    let grown = |now: [usize; 2]| {
        let each = now.iter().zip(before);
        each.map(|(now, before)| now.saturating_sub(before))
            .collect::<Vec<_>>()
    };
    let most = grown(full);
    assert!(most.iter().all(|bytes| *bytes > 4 << 20), "{most:?}");
    wait_until("memory to be returned", SOON, || {
        let kept = grown(memory());
        kept.iter()
            .zip(&most)
            .all(|(kept, most)| *kept < most / 8 * 7)
    });
    println!(
        "grown by {most:?} bytes, at the end by {:?}",
        grown(memory())
    );
}

/// For the request and for the answer each site waits, reads and writes, in a build of any profile.
/// Timers and heartbeats add calls, so the least of several counts is taken; one call more for each
/// round trip is too many.
#[test]
fn a_round_trip_takes_six_system_calls_at_each_site() {
    const COUNT: u32 = 200;
    let (a, b, _server, addr) = service();
    let mut socket = connect(addr).expect("a connection");
    let mut round_trips = || {
        for _ in 0..COUNT {
            assert_eq!(round_trip(&mut socket, &[7; 64]).expect("back"), [7; 64]);
        }
    };
    round_trips();
    let sites = [a.pid(), b.pid()];
    let counts: Option<Vec<u64>> = (0..5)
        .map(|_| Some(system_calls::count(&sites, &mut round_trips)?.0))
        .collect();
    let Some(counts) = counts else {
        skip("tracing of processes is not permitted");
        return;
    };
    let least = counts.iter().min().expect("five counts");
    let each = *least as f64 / f64::from(COUNT);
    println!("{each:.2} system calls for each round trip, of {counts:?}");
    assert!(each < 13.0, "{each:.2} system calls for each round trip");
}
