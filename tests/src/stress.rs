//! Stress test of an echo server behind the tested code: writes of any size, half-closes, resets
//! and slow readers. Compares every echoed byte.

use crate::echo::connect;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Milliseconds without progress after which a connection counts as hanging.
const HANGS: u16 = 20_000;

/// Pseudo-random numbers that are the same in every run.
pub struct Random(u64);

impl Random {
    /// Starts at this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// The byte at this offset of the stream with this seed.
fn byte(seed: u64, at: usize) -> u8 {
    let mixed = (seed + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Runs `connections` connections to an echo server, `at_a_time` of them concurrently. Returns the
/// first fault.
pub fn stress_echo(addr: SocketAddr, connections: usize, at_a_time: usize) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let run = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= connections {
                    return Ok(());
                }
                if let Err(error) = one(addr, n as u64) {
                    // Stop after the first error.
                    next.store(connections, Ordering::Relaxed);
                    return Err(format!("connection {n}: {error}"));
                }
            }
        };
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(run)).collect();
        let ends = threads.into_iter().map(|t| t.join().expect("a thread"));
        ends.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Runs one connection; the seed decides what happens to it.
fn one(addr: SocketAddr, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed + 1);
    // Mostly small messages, sometimes a large transfer.
    let total = match random.below(40) {
        0 => 200_000 + random.below(1_000_000) as usize,
        1..10 => random.below(100_000) as usize + 1,
        _ => random.below(6_000) as usize + 1,
    };
    let reset_at = (random.below(10) == 0).then(|| random.below(total as u64) as usize);
    let slow = random.below(20) == 0;
    // Small pieces of a large transfer take long and add no coverage.
    let pieces = random.below(4) as usize;
    let least = if total > 6_000 { 1 } else { 0 };
    let largest = [100, 2_000, 20_000, 200_000][pieces.max(least)];
    // How many bytes are sent before earlier ones have come back.
    let ahead = [1, 2_000, usize::MAX][random.below(3) as usize];
    let mut socket = connect(addr).map_err(|e| format!("connecting: {e}"))?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    let bytes: Vec<u8> = (0..total).map(|at| byte(seed, at)).collect();
    let (mut sent, mut got, mut shut) = (0, 0, false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if reset_at.is_some_and(|at| sent >= at) {
            let linger = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            return linger.map_err(|e| e.to_string());
        }
        if sent == total && !shut {
            shut = true;
            socket
                .shutdown(Shutdown::Write)
                .map_err(|e| format!("shutting: {e}"))?;
        }
        let may_send = sent < total && sent - got < ahead;
        let ready = wait(&socket, may_send)?;
        if ready.contains(PollFlags::POLLOUT) && may_send {
            let size = (random.below(largest) as usize + 1).min(total - sent);
            match socket.write(&bytes[sent..sent + size]) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("sending at {sent} of {total}: {e}")),
            }
        }
        if !ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            continue;
        }
        if slow {
            // Simulates a slow reader.
            thread::sleep(Duration::from_micros(random.below(3_000)));
        }
        let size = random.below(buffer.len() as u64) as usize + 1;
        match socket.read(&mut buffer[..size]) {
            Ok(0) if shut && got == total => return Ok(()),
            Ok(0) => return Err(format!("ends after {got} of {total}, sent {sent}")),
            Ok(n) => {
                let right = bytes.get(got..got + n);
                if right != Some(&buffer[..n]) {
                    return Err(format!("wrong bytes at {got}..{} of {total}", got + n));
                }
                got += n;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(format!("receiving at {got} of {total}: {e}")),
        }
    }
}

fn wait(socket: &TcpStream, to_send: bool) -> Result<PollFlags, String> {
    let mut wanted = PollFlags::POLLIN;
    if to_send {
        wanted |= PollFlags::POLLOUT;
    }
    let begin = Instant::now();
    let mut fds = [PollFd::new(socket.as_fd(), wanted)];
    match poll(&mut fds, PollTimeout::from(HANGS)) {
        Ok(0) => Err(format!("hangs: nothing for {:?}", begin.elapsed())),
        Ok(_) => Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
        Err(nix::errno::Errno::EINTR) => Ok(PollFlags::empty()),
        Err(e) => Err(format!("waiting: {e}")),
    }
}
