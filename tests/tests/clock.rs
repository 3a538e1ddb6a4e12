//! Clocks that are off, and clocks that jump.

use skupper_tests::{
    SOON,
    clock::Clock,
    echo::{connect, round_trip},
    site::{Site, echo},
    token::{issue, running, unstarted},
    wait_until,
};
use std::{fs, io::ErrorKind, time::Duration};

/// A token as a resource: the daemon redeems it, by its own clock.
fn hand_over(token: &std::path::Path, site: &Site) {
    let text = fs::read_to_string(token).expect("a token");
    site.file("token.yaml", &text);
}

#[test]
fn sites_ten_minutes_apart_link_by_token() {
    for (offset, ahead) in [("+10m", true), ("-10m", true), ("+10m", false)] {
        let mut a = unstarted();
        let clock = Clock::new(a.root(), offset);
        let mut b = Site::new("b");
        if ahead {
            a.start_at(&clock);
            b.start();
        } else {
            a.start();
            b.start_at(&clock);
        }
        a.wait_status("RouterAccess", "access", "Ready");
        let token = issue(&a, &["--name", "apart", "--redemptions-allowed", "1"]);
        hand_over(&token, &b);
        b.wait_status("Link", "apart", "Ready");
    }
}

#[test]
fn a_clock_that_is_hours_behind_is_named() {
    let mut a = unstarted();
    let clock = Clock::new(a.root(), "+3h");
    a.start_at(&clock);
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue(&a, &["--name", "apart", "--expiration-window", "4h"]);
    let b = running("b");
    hand_over(&token, &b);
    let mut last = String::new();
    wait_until("the clocks to be named", SOON, || {
        let file = b
            .root()
            .join("namespaces/default/runtime/resources/AccessToken-apart.yaml");
        last = fs::read_to_string(file).unwrap_or_default();
        last.contains("is not valid before") && last.contains("the clock of this host says")
    });
    assert!(!last.contains("redeemed: true"), "{last}");
}

#[test]
fn r16_a_clock_that_jumps_ends_tokens_and_nothing_else() {
    let mut a = unstarted();
    let clock = Clock::new(a.root(), "+0");
    a.start_at(&clock);
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue(&a, &["--name", "in", "--redemptions-allowed", "5"]);
    let (b, c) = (running("b"), running("c"));
    hand_over(&token, &b);
    b.wait_status("Link", "in", "Ready");
    let (_server, addr) = echo(&a, &b);
    let mut held = connect(addr).expect("a connection");
    held.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let links = a.log().matches("link accepted").count();
    for offset in ["+20m", "-20m", "+400d", "+20m"] {
        clock.set(offset);
        for _ in 0..200 {
            round_trip(&mut held, b"tick").expect("the stream goes on");
        }
    }
    hand_over(&token, &c);
    wait_until("the token to be over", SOON, || {
        let file = c
            .root()
            .join("namespaces/default/runtime/resources/AccessToken-in.yaml");
        let status = fs::read_to_string(file).unwrap_or_default();
        status.contains("404")
    });
    round_trip(&mut held, b"after").expect("the stream goes on");
    b.wait_status("Link", "in", "Ready");
    assert_eq!(
        a.log().matches("link accepted").count(),
        links,
        "{}",
        a.log()
    );
    // Nothing is left in the air either: the end of the stream arrives.
    held.shutdown(std::net::Shutdown::Write).expect("an end");
    let rest = std::io::Read::read(&mut held, &mut [0; 1]);
    assert!(matches!(rest, Ok(0)) || rest.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}
