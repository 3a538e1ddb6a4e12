//! A network namespace for a test: addresses, ports and packet filters of its own.

use crate::skip::skip;
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::process::Command;

/// Moves this thread, and what it starts from now on, into a new network namespace whose loopback
/// interface is up. False: that can not be had here, and the test is skipped.
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

/// Runs a program, which must succeed.
pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    let status = status.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}
