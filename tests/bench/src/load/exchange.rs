//! Requests and answers of known length, on connections that stay open or on a new one each time.

use super::{PATIENCE, Timing, begin_connect, connect, latencies::Latencies};
use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// With more failures than this the figures say nothing.
const MOST_FAILURES: u64 = 100;

const BUFFER: usize = 16 * 1024;

/// What to exchange, and with whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) addr: SocketAddr,
    pub(crate) request: &'a [u8],
    pub(crate) answer: &'a [u8],
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// Whether each exchange has a connection of its own. Its latency then includes connecting.
    pub(crate) reconnect: bool,
}

/// What was measured, without the warm-up.
pub(crate) struct Outcome {
    pub(crate) latencies: Latencies,
    pub(crate) elapsed: Duration,
    pub(crate) failures: u64,
}

impl Exchange<'_> {
    /// Runs the load and calls `measuring` after the warm-up.
    pub(crate) fn run(
        &self,
        timing: Timing,
        measuring: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Outcome> {
        let mut recorder = Recorder::new(timing, measuring);
        // A blocking socket costs less than an event loop.
        if self.connections == 1 {
            self.run_one(&mut recorder)?;
        } else {
            self.run_many(&mut recorder)?;
        }
        recorder.finish()
    }

    /// Completes one exchange, checks the answer, and returns its connection.
    pub(crate) fn once(&self) -> io::Result<TcpStream> {
        let mut socket = connect(self.addr)?;
        socket.write_all(self.request)?;
        let mut answer = vec![0; self.answer.len()];
        socket.read_exact(&mut answer)?;
        if answer != self.answer {
            return Err(io::Error::other("the answer of another server"));
        }
        Ok(socket)
    }

    fn run_one(&self, recorder: &mut Recorder) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut open = None;
        loop {
            let begin = Instant::now();
            if recorder.is_over(begin)? {
                return Ok(());
            }
            let socket = match open.take() {
                Some(socket) => Ok(socket),
                None => connect(self.addr),
            };
            let done = socket.and_then(|mut socket| {
                self.exchange(&mut socket, &mut buffer)?;
                Ok(socket)
            });
            match done {
                Ok(socket) => {
                    recorder.record(begin, Instant::now());
                    open = (!self.reconnect).then_some(socket);
                }
                Err(e) => recorder.fail(e, self.reconnect)?,
            }
        }
    }

    fn exchange(&self, socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        socket.write_all(self.request)?;
        let mut received = 0;
        while received < self.answer.len() {
            match socket.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => received += count,
            }
        }
        Ok(())
    }

    fn run_many(&self, recorder: &mut Recorder) -> Result<()> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut buffer = vec![0; BUFFER];
        let mut events = vec![EpollEvent::empty(); 256];
        let mut clients = Vec::new();
        for index in 0..self.connections {
            clients.push(Client::connect(self.addr, &epoll, index)?);
        }
        let patience = EpollTimeout::try_from(PATIENCE)?;
        loop {
            let count = match epoll.wait(&mut events, patience) {
                Ok(0) => bail!("no answer for {PATIENCE:?}"),
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for event in &events[..count] {
                let index = event.data() as usize;
                let client = &mut clients[index];
                let answered = client.progress(self, &mut buffer);
                match answered {
                    Ok(false) => continue,
                    Ok(true) => recorder.record(client.begin, Instant::now()),
                    Err(e) => recorder.fail(e, self.reconnect)?,
                }
                if self.reconnect {
                    *client = Client::connect(self.addr, &epoll, index)?;
                } else {
                    client.next(self).context("sending a request")?;
                }
            }
            if recorder.is_over(Instant::now())? {
                return Ok(());
            }
        }
    }
}

/// A connection of the load with many.
struct Client {
    socket: TcpStream,
    /// When its exchange began.
    begin: Instant,
    sent: bool,
    received: usize,
}

impl Client {
    fn connect(addr: SocketAddr, epoll: &Epoll, index: usize) -> Result<Self> {
        let begin = Instant::now();
        let socket = begin_connect(addr).with_context(|| format!("connecting to {addr}"))?;
        // Each change is reported once, so that a connection needs one registration.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        epoll.add(&socket, EpollEvent::new(flags, index as u64))?;
        Ok(Self {
            socket,
            begin,
            sent: false,
            received: 0,
        })
    }

    /// Goes on after an event. Returns whether the answer is complete.
    fn progress(&mut self, exchange: &Exchange, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.sent {
            if let Some(e) = self.socket.take_error()? {
                return Err(e);
            }
            self.send(exchange)?;
            // The answer is the next event.
            return Ok(false);
        }
        loop {
            let count = match self.socket.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                other => other?,
            };
            self.received += count;
            if self.received >= exchange.answer.len() {
                return Ok(true);
            }
            if count < buffer.len() {
                return Ok(false);
            }
        }
    }

    fn send(&mut self, exchange: &Exchange) -> io::Result<()> {
        self.socket.write_all(exchange.request)?;
        self.sent = true;
        Ok(())
    }

    /// Begins the next exchange on the same connection.
    fn next(&mut self, exchange: &Exchange) -> io::Result<()> {
        self.received = 0;
        self.begin = Instant::now();
        self.send(exchange)
    }
}

/// Collects the latencies of exchanges that begin after the warm-up.
struct Recorder<'a> {
    warm_until: Instant,
    measured: Duration,
    /// When the measurement began.
    begin: Option<Instant>,
    end: Instant,
    measuring: &'a mut dyn FnMut() -> Result<()>,
    latencies: Vec<u32>,
    failures: u64,
}

impl<'a> Recorder<'a> {
    fn new(timing: Timing, measuring: &'a mut dyn FnMut() -> Result<()>) -> Self {
        let now = Instant::now();
        Self {
            warm_until: now + timing.warm_up,
            measured: timing.measured,
            begin: None,
            end: now,
            measuring,
            latencies: Vec::new(),
            failures: 0,
        }
    }

    /// Whether the measurement is over; begins it after the warm-up.
    fn is_over(&mut self, now: Instant) -> Result<bool> {
        if let Some(begin) = self.begin {
            self.end = now;
            return Ok(now - begin >= self.measured);
        }
        if now >= self.warm_until {
            (self.measuring)()?;
            self.begin = Some(Instant::now());
        }
        Ok(false)
    }

    fn record(&mut self, begin: Instant, end: Instant) {
        if self.begin.is_some_and(|measuring| begin >= measuring) {
            self.latencies.push(Latencies::encode(end - begin));
        }
    }

    /// Counts a failure. Without a new connection for each exchange, one is too many.
    fn fail(&mut self, error: io::Error, reconnect: bool) -> Result<()> {
        self.failures += 1;
        if !reconnect || self.failures > MOST_FAILURES {
            let failures = self.failures;
            return Err(error).with_context(|| format!("{failures} exchanges failed, the last"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Outcome> {
        let begin = self.begin.context("the load ended in its warm-up")?;
        ensure!(!self.latencies.is_empty(), "no exchange was completed");
        Ok(Outcome {
            latencies: Latencies::new(self.latencies),
            elapsed: self.end - begin,
            failures: self.failures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::{Service, Target};

    const TIMING: Timing = Timing {
        warm_up: Duration::from_millis(10),
        measured: Duration::from_millis(50),
    };

    #[test]
    fn every_kind_of_load_measures_after_its_warm_up() -> Result<()> {
        let target = Target::start(Service::Echo)?;
        for (connections, reconnect) in [(1, false), (1, true), (8, false), (8, true)] {
            let exchange = Exchange {
                addr: target.addr,
                request: &[7; 64],
                answer: &[7; 64],
                connections,
                reconnect,
            };
            let mut calls = 0;
            let outcome = exchange.run(TIMING, &mut || {
                calls += 1;
                Ok(())
            })?;
            assert_eq!((calls, outcome.failures), (1, 0));
            assert!(outcome.elapsed >= TIMING.measured, "{:?}", outcome.elapsed);
            assert!(outcome.latencies.count() > 0);
            assert!(outcome.latencies.quantile(0.5) > 0.0);
            target.wait_idle()?;
        }
        Ok(())
    }

    #[test]
    fn a_load_without_a_server_fails() -> Result<()> {
        let addr = crate::load::listen()?.local_addr()?;
        for connections in [1, 8] {
            let exchange = Exchange {
                addr,
                request: b"x",
                answer: b"x",
                connections,
                reconnect: true,
            };
            assert!(exchange.run(TIMING, &mut || Ok(())).is_err());
        }
        Ok(())
    }
}
