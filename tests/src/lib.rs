//! The test harness: daemons in directories ([`site`]), hosts in network namespaces ([`host`]),
//! machines with systemd ([`machine`]), servers and clients, hostile peers
//! ([`hostile_peer`]), and the bodies of the fuzz targets ([`fuzz`]).

pub mod browser;
pub mod bus;
pub mod clock;
pub mod command;
pub mod disk;
pub mod echo;
pub mod forward;
pub mod fuzz;
pub mod host;
pub mod hostile_peer;
pub mod machine;
pub mod netns;
pub mod pages;
pub mod pki;
mod ports;
pub mod site;
pub mod skip;
pub mod stress;
pub mod system_calls;
pub mod tls;
pub mod token;
pub mod token_issuer;
pub mod web;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

/// The path of a program of this workspace, which `cargo build --bins` puts beside the test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target directory");
    let program = dir.join(name);
    assert!(
        program.exists(),
        "{} is not built: run cargo build --workspace --bins",
        program.display()
    );
    program
}

/// Whether `skupper` did what it was asked for. Where skupperd does not run yet, it shows statuses and
/// exits with 3.
pub fn succeeded(args: &[&str], output: &Output) -> bool {
    output.status.success() || (args.contains(&"status") && output.status.code() == Some(3))
}

/// The target directory of this workspace.
pub fn target() -> PathBuf {
    let program = program("skupperd");
    let profile = program.parent().expect("a directory");
    profile.parent().expect("the target directory").to_owned()
}

pub use ports::free_port;

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A free address on loopback.
pub fn free_addr() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Waits until `f` returns something. After `most` the test fails with `what` it waited for.
pub fn wait_for<T>(what: &str, most: Duration, mut f: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(begin.elapsed() < most, "no result after {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a condition holds; see [`wait_for`].
pub fn wait_until(what: &str, most: Duration, mut f: impl FnMut() -> bool) {
    wait_for(what, most, || f().then_some(()));
}

/// Timeout for conditions that normally take a moment. Generous, for busy machines.
pub const SOON: Duration = Duration::from_secs(20);

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("statm");
    let pages: usize = text
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("pages");
    pages * 4096
}
