//! One-way streams: connections that are written to as fast as they take it.

use super::connect;
use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

const CHUNK: usize = 128 * 1024;

/// How often the thread looks whether it shall stop, in milliseconds.
const TICK: u16 = 100;

/// Running streams.
pub(crate) struct Streams {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Streams {
    pub(crate) fn start(addr: SocketAddr, count: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut sockets = Vec::new();
        for index in 0..count {
            let socket = connect(addr).with_context(|| format!("connecting to {addr}"))?;
            socket.set_nonblocking(true)?;
            let event = EpollEvent::new(EpollFlags::EPOLLOUT, index as u64);
            epoll.add(&socket, event)?;
            sockets.push(socket);
        }
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("streams".to_owned());
        let thread = thread.spawn(move || write(&epoll, sockets, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Closes the streams; fails if one has failed.
    pub(crate) fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join();
        done.map_err(|_| anyhow!("the load panicked"))?
    }
}

fn write(epoll: &Epoll, mut sockets: Vec<TcpStream>, stop: &AtomicBool) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut events = vec![EpollEvent::empty(); 256];
    while !stop.load(Ordering::Relaxed) {
        let count = match epoll.wait(&mut events, EpollTimeout::from(TICK)) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            match sockets[event.data() as usize].write(&chunk) {
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => {
                    return Err(e).context("a stream");
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Service, Target};

    #[test]
    fn streams_reach_the_server_until_they_are_stopped() -> Result<()> {
        let target = Target::start(Service::Sink)?;
        let streams = Streams::start(target.addr, 3)?;
        while target.received() < 10 * CHUNK as u64 {
            thread::yield_now();
        }
        streams.stop()?;
        target.wait_idle()
    }
}
