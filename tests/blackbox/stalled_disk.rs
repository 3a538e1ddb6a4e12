//! Sites whose disk stalls: fsync does not return until it goes on.

use skupper_tests::{
    SOON,
    disk::Disk,
    echo::{connect, round_trip},
    free_addr,
    site::{Site, echo},
    token::{issue_token, redeem_token, running_site, stopped_grant_site},
    wait_until,
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// What a daemon answers while its disk stalls, it answers in this time.
const PROMPT: Duration = Duration::from_secs(2);

fn healthy_in_time(site: &Site) {
    for (path, part) in [("/healthz", "200 OK"), ("/metrics", "skupper")] {
        let mut socket =
            UnixStream::connect(site.root().join("run/metrics.sock")).expect("a socket");
        socket.set_read_timeout(Some(PROMPT)).expect("a timeout");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        let read = socket.read_to_string(&mut answer);
        assert!(
            read.is_ok() && answer.contains(part),
            "{path}: {read:?} {answer}"
        );
    }
}

#[test]
fn a_stalled_disk_holds_up_no_resource_and_no_metrics() {
    let mut a = stopped_grant_site();
    let disk = Disk::new(a.root());
    a.start_with_environment(&disk.environment());
    a.wait_status("RouterAccess", "access", "Ready");
    let (_server, addr) = echo(&a, &a);
    // The certificate of the grant server is on disk before it is used.
    a.resource("AccessGrant", "before", "{redemptionsAllowed: 1}");
    a.wait_status("AccessGrant", "before", "Ready");
    let mut held = connect(addr).expect("a connection");
    disk.stall();
    // One after the other: statuses of the first wait for the disk when the second comes.
    for name in ["first", "second"] {
        let addr = free_addr();
        a.listener(name, "echo", addr);
        a.resource("AccessGrant", name, "{redemptionsAllowed: 1}");
        wait_until("the listener to serve", SOON, || {
            connect(addr).is_ok_and(|mut client| round_trip(&mut client, b"tick").is_ok())
        });
        healthy_in_time(&a);
        round_trip(&mut held, b"tick").expect("the stream goes on");
    }
    std::thread::sleep(Duration::from_millis(200));
    healthy_in_time(&a);
    assert!(a.status("AccessGrant", "first").is_none());
    let opened = |name: &str| {
        a.log()
            .contains(&format!("access grant opened grant={name}"))
    };
    assert!(!opened("first") && !opened("second"));
    disk.resume();
    a.wait_status("Listener", "second", "Ready");
    a.wait_status("AccessGrant", "first", "Ready");
    a.wait_status("AccessGrant", "second", "Ready");
}

#[test]
fn a_redemption_waits_for_the_disk_and_counts_once() {
    let mut a = stopped_grant_site();
    let disk = Disk::new(a.root());
    a.start_with_environment(&disk.environment());
    a.wait_status("RouterAccess", "access", "Ready");
    let token = issue_token(&a, &["--name", "in", "--redemptions-allowed", "1"]);
    let b = running_site("b");
    let (_server, _addr) = echo(&a, &a);
    disk.stall();
    std::thread::scope(|scope| {
        let redeemed = scope.spawn(|| redeem_token(&b, &token));
        std::thread::sleep(Duration::from_secs(1));
        healthy_in_time(&a);
        let addr = free_addr();
        a.listener("more", "echo", addr);
        wait_until("the listener to serve", SOON, || {
            connect(addr).is_ok_and(|mut client| round_trip(&mut client, b"tick").is_ok())
        });
        healthy_in_time(&a);
        assert!(!redeemed.is_finished());
        disk.resume();
        let output = redeemed.join().expect("no panic");
        assert!(output.status.success(), "{output:?}");
    });
    b.wait_status("Link", "in", "Ready");
    let issued = a.log().matches("issued credentials").count();
    assert_eq!(issued, 1, "{}", a.log());
}
