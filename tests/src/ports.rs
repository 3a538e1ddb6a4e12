//! Ports for tests that run at the same time, in this run and in others on this machine.

use std::{
    fs::{self, File},
    net::TcpListener,
    ops::Range,
    os::unix::fs::MetadataExt,
    sync::Mutex,
};

/// Below the range from which the system takes ports for clients.
const FIRST: u16 = 10_000;
/// Ports of one block.
const BLOCK: u16 = 50;
const BLOCKS: u16 = 400;

/// What this process has: the lock of its newest block is kept with those of earlier ones.
static OURS: Mutex<(Vec<File>, Range<u16>)> = Mutex::new((Vec::new(), 0..0));

/// A port that nobody listens on. A process has blocks of ports to itself for as long as it lives, so
/// that neither another test's client nor another test's listener gets one in the meantime.
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

/// A block that no living process has; not the same one for the next process when this has ended.
fn block() -> (File, u16) {
    // Another user's files are not for writing; two users' tests at the same time are on their own.
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
