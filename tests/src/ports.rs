//! Ports for tests that run concurrently, in this run and in others on the same machine.

use std::{
    fs::{self, File},
    net::TcpListener,
    ops::Range,
    os::unix::fs::MetadataExt,
    sync::Mutex,
};

/// The first port, below the kernel's range of client ports.
const FIRST: u16 = 10_000;
const BLOCK: u16 = 50;
const BLOCKS: u16 = 400;

/// The locks of this process's blocks, and the unused ports of the newest block.
static OURS: Mutex<(Vec<File>, Range<u16>)> = Mutex::new((Vec::new(), 0..0));

/// A free port. A process owns blocks of ports until it exits, so that no client and no listener of
/// another test can take the port before it is used.
pub fn free_port() -> u16 {
    let mut ours = OURS.lock().expect("ports");
    loop {
        let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
        if let Some(port) = ours.1.find(free) {
            return port;
        }
        let (lock, block) = block();
        let first = FIRST + block * BLOCK;
        ours.0.push(lock);
        ours.1 = first..first + BLOCK;
    }
}

/// Locks a block that no running process owns. The search starts at a position that depends on the
/// process id, so that a process does not reuse the ports of one that has just exited.
fn block() -> (File, u16) {
    // A directory per user, because files of other users are not writable. Tests of different users
    // may collide.
    let user = fs::metadata("/proc/self").expect("who this is").uid();
    let dir = std::env::temp_dir().join(format!("skupper-test-ports-{user}"));
    fs::create_dir_all(&dir).expect("a directory for locks");
    let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
    let blocks = (0..BLOCKS).map(|n| (begin + n) % BLOCKS);
    let lock = |block: u16| {
        let file = File::create(dir.join(block.to_string())).expect("a lock");
        file.try_lock().ok().map(|()| (file, block))
    };
    blocks.filter_map(lock).next().expect("a block of ports")
}
