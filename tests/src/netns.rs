//! A network namespace for each test: it has its own addresses, ports, routes and packet filters.

use crate::skip::skip;
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::process::Command;

/// Moves this thread, and every thread and process that it starts later, into a new network
/// namespace whose loopback interface is up. Returns false, after [`skip`], where that is not
/// possible.
pub fn enter() -> bool {
    if !geteuid().is_root() {
        skip("a network namespace needs root");
        return false;
    }
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {}
        Err(e @ (Errno::EPERM | Errno::ENOSYS)) => {
            skip(&format!("no network namespaces here: {e}"));
            return false;
        }
        Err(e) => panic!("making a network namespace: {e}"),
    }
    run("ip", &["link", "set", "lo", "up"]);
    true
}

/// Runs a program and fails the test unless it succeeds.
pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    let status = status.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}
