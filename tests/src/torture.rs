//! Connections to an echo server with everything that can go wrong: bytes of any size, halves that
//! end, resets, readers that are slow. Every byte is compared.

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

/// Nothing waits as long unless it hangs.
const HANGS: u16 = 20_000;

/// Numbers that look random and are the same at every run.
pub struct Dice(u64);

impl Dice {
    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// One below `sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The byte at a place of the stream with this seed.
fn byte(seed: u64, at: usize) -> u8 {
    let mixed = (seed + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

/// Runs so many connections to an echo server, `at_a_time` of them. What is wrong with the first that
/// is not right.
pub fn torture(addr: SocketAddr, connections: usize, at_a_time: usize) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let run = || {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= connections {
                    return Ok(());
                }
                if let Err(error) = one(addr, n as u64) {
                    // The others need not go on.
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

/// A connection, with its fate by its number.
fn one(addr: SocketAddr, seed: u64) -> Result<(), String> {
    let mut dice = Dice::new(seed + 1);
    // Mostly what goes back and forth, now and then a lot.
    let total = match dice.below(40) {
        0 => 200_000 + dice.below(1_000_000) as usize,
        1..10 => dice.below(100_000) as usize + 1,
        _ => dice.below(6_000) as usize + 1,
    };
    let reset_at = (dice.below(10) == 0).then(|| dice.below(total as u64) as usize);
    let slow = dice.below(20) == 0;
    // Small pieces of a lot would take long and show nothing new.
    let pieces = dice.below(4) as usize;
    let least = if total > 6_000 { 1 } else { 0 };
    let largest = [100, 2_000, 20_000, 200_000][pieces.max(least)];
    // Whether the next is sent before the last has come back.
    let ahead = [1, 2_000, usize::MAX][dice.below(3) as usize];
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
            let size = (dice.below(largest) as usize + 1).min(total - sent);
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
            // A reader that does other things: not a condition that is waited for.
            thread::sleep(Duration::from_micros(dice.below(3_000)));
        }
        let size = dice.below(buffer.len() as u64) as usize + 1;
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
