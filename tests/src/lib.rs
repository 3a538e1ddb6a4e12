//! A harness for black-box tests: daemons in directories of their own, real sockets on loopback; and
//! what strangers send, for fuzzing ([`fuzz`]).

pub mod browser;
pub mod bus;
pub mod clock;
pub mod command;
pub mod contract;
pub mod echo;
pub mod forward;
pub mod fuzz;
pub mod host;
pub mod machine;
pub mod netns;
pub mod pki;
mod ports;
pub mod site;
pub mod skip;
pub mod tls;
pub mod token;
pub mod torture;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// A program of this workspace, as built beside this test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("path of the test");
    let dir = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target directory");
    let program = dir.join(name);
    assert!(
        program.exists(),
        "{} is not built: cargo build --bins",
        program.display()
    );
    program
}

/// Where this workspace builds.
pub fn target() -> PathBuf {
    let program = program("skupperd");
    let profile = program.parent().expect("a directory");
    profile.parent().expect("the target directory").to_owned()
}

pub use ports::free_port;

/// An address on loopback that nobody listens on.
pub fn free_addr() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

/// Waits until `f` gives something, and says what it waited for when it does not.
pub fn wait_for<T>(what: &str, most: Duration, mut f: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(
            begin.elapsed() < most,
            "after {most:?} still waiting for: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, most: Duration, mut f: impl FnMut() -> bool) {
    wait_for(what, most, || f().then_some(()));
}

/// How long tests wait for what takes a moment; a busy machine takes several.
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
