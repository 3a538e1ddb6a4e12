//! Hosts on which something is missing that a daemon usually has: a disk that can be written, inotify.
//! Sites carry traffic all the same.

use skupper_tests::{
    SOON,
    echo::{Server, refused, works},
    free_addr, netns,
    site::Site,
    wait_until,
};
use std::collections::BTreeSet;

/// A site with a service of its own.
fn site() -> (Site, Server, std::net::SocketAddr) {
    let site = Site::new("a");
    let server = Server::echo(free_addr());
    let addr = free_addr();
    site.connector("c", "k", server.addr);
    site.listener("l", "k", addr);
    (site, server, addr)
}

#[test]
fn a_site_starts_from_a_disk_that_cannot_be_written() {
    if !netns::enter() {
        return;
    }
    let (mut site, _server, addr) = site();
    site.start();
    site.wait_status("Listener", "l", "Ready");
    site.stop();
    // The sockets are elsewhere on a real host too.
    let script = "mount --bind \"$1\" \"$1\" && mount --bind \"$1/run\" \"$1/run\" && \
                  mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let root = site.root().display().to_string();
    site.start_through(&["unshare", "-m", "sh", "-ec", script, "sh", &root]);
    wait_until("the service", SOON, || works(addr));
    let health = site.http("GET /healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let log = site.log();
    assert!(log.contains("state cannot be written"), "{log}");
    // From outside the disk can be written: the daemon applies what it reads, and says once that its
    // statuses are not on disk.
    let second = free_addr();
    site.listener("m", "k", second);
    wait_until("a later listener", SOON, || works(second));
    wait_until("the reason", SOON, || {
        site.log().contains("cannot write statuses")
    });
    site.remove("Listener", "m");
    wait_until("its end", SOON, || refused(second));
    let log = site.log();
    let failures = log
        .lines()
        .filter_map(|line| line.split_once("cannot write statuses"));
    let failures: Vec<&str> = failures.map(|(_, of)| of).collect();
    let different: BTreeSet<&str> = failures.iter().copied().collect();
    assert_eq!(different.len(), failures.len(), "{log}");
}

#[test]
fn changes_are_applied_where_the_kernel_has_no_inotify_left() {
    if !netns::enter() {
        return;
    }
    let (mut site, server, addr) = site();
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    site.start_through(&["unshare", "-Ur", "sh", "-ec", script, "sh"]);
    wait_until("the service", SOON, || works(addr));
    let log = site.log();
    assert!(
        log.contains("cannot watch manifests") && log.contains("fs.inotify.max_user_instances"),
        "{log}"
    );
    let second = free_addr();
    site.connector("d", "other", server.addr);
    site.listener("m", "other", second);
    wait_until("a later service", SOON, || works(second));
}
