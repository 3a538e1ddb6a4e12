//! Descriptors that connections of services leave to others: links, D-Bus, metrics and files.
//!
//! A new descriptor gets the lowest number that is free. So a number close to the limit means that almost
//! all are in use, and nobody has to count.

use nix::libc::EMFILE;
use parking_lot::Mutex;
use std::{
    io,
    os::fd::AsRawFd,
    sync::atomic::{AtomicI32, Ordering},
    time::{Duration, Instant},
};

/// Descriptors in the reserve, or an eighth of the limit if that is less.
const RESERVE: u64 = 64;
/// Time for which connections count as refused after the last one.
const REPORTED: Duration = Duration::from_secs(60);

/// The first number in the reserve.
static FIRST: AtomicI32 = AtomicI32::new(i32::MAX);
/// When a connection was refused last.
static REFUSED: Mutex<Option<Instant>> = Mutex::new(None);

/// Sets the limit of this process.
pub fn reserve_descriptors(limit: u64) {
    let first = limit - RESERVE.min(limit / 8);
    let first = i32::try_from(first).unwrap_or(i32::MAX);
    FIRST.store(first, Ordering::Relaxed);
}

/// Checks a new descriptor of a connection. Fails if it is one of the reserve: the caller closes it.
pub fn leave_reserve(fd: &impl AsRawFd) -> io::Result<()> {
    if fd.as_raw_fd() < FIRST.load(Ordering::Relaxed) {
        return Ok(());
    }
    *REFUSED.lock() = Some(Instant::now());
    Err(io::Error::from_raw_os_error(EMFILE))
}

/// Whether connections were refused in the last minute.
pub fn lacks_descriptors() -> bool {
    REFUSED.lock().is_some_and(|at| at.elapsed() < REPORTED)
}
