//! Sites with wrong clocks and clocks that jump.

use skupper_tests::{
    SOON,
    clock::Clock,
    echo::{connect, round_trip},
    site::{Site, echo},
    token::{issue_token, running_site, stopped_grant_site},
    wait_until,
};
use std::{fs, io::ErrorKind, time::Duration};

/// Writes a token as a resource: the daemon redeems it by its own clock.
fn hand_over(token: &std::path::Path, site: &Site) {
    let text = fs::read_to_string(token).expect("a token");
    site.file("token.yaml", &text);
}

#[test]
fn sites_ten_minutes_apart_link_by_token() {
    for (offset, ahead) in [("+10m", true), ("-10m", true), ("+10m", false)] {
        let mut a = stopped_grant_site();
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
        let token = issue_token(&a, &["--name", "apart", "--redemptions-allowed", "1"]);
        hand_over(&token, &b);
        b.wait_status("Link", "apart", "Ready");
    }
}

#[test]
fn a_clock_hours_behind_is_reported() {
    let mut a = stopped_grant_site();
    let clock = Clock::new(a.root(), "+3h");
    a.start_at(&clock);
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue_token(&a, &["--name", "apart", "--expiration-window", "4h"]);
    let b = running_site("b");
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
fn a_clock_jump_expires_tokens_and_nothing_else() {
    let mut a = stopped_grant_site();
    let clock = Clock::new(a.root(), "+0");
    a.start_at(&clock);
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue_token(&a, &["--name", "in", "--redemptions-allowed", "5"]);
    let (b, c) = (running_site("b"), running_site("c"));
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
    // The half-close passes too.
    held.shutdown(std::net::Shutdown::Write).expect("an end");
    let rest = std::io::Read::read(&mut held, &mut [0; 1]);
    assert!(matches!(rest, Ok(0)) || rest.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_site_that_boots_with_a_clock_of_the_past_keeps_its_ca_and_its_links() {
    let mut a = stopped_grant_site();
    let clock = Clock::new(a.root(), "+0");
    a.start_at(&clock);
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue_token(&a, &["--name", "in", "--redemptions-allowed", "1"]);
    let b = running_site("b");
    hand_over(&token, &b);
    b.wait_status("Link", "in", "Ready");
    let dir = a.root().join("namespaces/default/runtime/issuers");
    let issuers = || {
        let each = fs::read_dir(&dir)
            .expect("issuers")
            .map(|e| e.expect("an issuer").path());
        let read = |path: std::path::PathBuf| fs::read_to_string(path.join("tls.crt")).ok();
        each.filter_map(read)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let before = issuers();
    assert!(!before.is_empty());
    for offset in ["-400d", "-2h"] {
        a.kill();
        clock.set(offset);
        a.start_at(&clock);
        wait_until("the clock to be named", SOON, || {
            a.log().contains("clock is behind CA; keeping the CA")
        });
        a.wait_status("RouterAccess", "access", "Ready");
        let links = a.log().matches("link accepted").count();
        clock.set("+0");
        wait_until("the link", SOON, || {
            a.log().matches("link accepted").count() > links
        });
        b.wait_status("Link", "in", "Ready");
    }
    assert_eq!(issuers(), before);
}
