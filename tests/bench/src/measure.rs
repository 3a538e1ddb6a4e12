//! Takes the figures of one group from one running peer.

use crate::{
    load::{Exchange, Outcome, Streams, Timing},
    options::Group,
    peer::{MESSAGE, Peer, probe},
    process::ensure_not_interrupted,
    samples::{
        Better::{self, Higher, Lower},
        Metric,
    },
    target::{CLOSE, CLOSED, KEEP_ALIVE, KEPT_ALIVE, Service, Target},
};
use anyhow::{Context, Result, ensure};
use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Connections that are open for the measurement of memory.
const IDLE: usize = 2000;

/// Time in which memory settles after a change.
const SETTLE: Duration = Duration::from_secs(1);

/// Time that a peer has for giving memory back.
const RELEASE: Duration = Duration::from_secs(10);

/// Where the figures of one group go.
pub(crate) struct Figures<'a> {
    pub(crate) group: Group,
    pub(crate) put: &'a mut dyn FnMut(Metric, f64),
    /// Takes what a reader of the figures needs to know.
    pub(crate) note: &'a mut dyn FnMut(String),
}

impl Figures<'_> {
    fn put(&mut self, name: String, unit: &'static str, better: Better, value: f64) {
        let metric = Metric {
            group: self.group,
            name,
            unit,
            better,
        };
        (self.put)(metric, value);
    }
}

/// The server that a group needs.
pub(crate) fn service(group: Group) -> Service {
    match group {
        Group::Pp | Group::Conn | Group::Mem => Service::Echo,
        Group::Http => Service::Http,
        Group::Bulk => Service::Sink,
    }
}

/// How long each measurement takes.
pub(crate) fn timing(seconds: f64) -> Timing {
    let measured = Duration::from_secs_f64(seconds);
    Timing {
        warm_up: (measured / 4).min(Duration::from_millis(500)),
        measured,
    }
}

pub(crate) fn measure(
    peer: &mut Peer,
    target: &Target,
    timing: Timing,
    figures: &mut Figures,
) -> Result<()> {
    match figures.group {
        Group::Pp => round_trips(peer, target, timing, figures),
        Group::Conn => connections(peer, target, timing, figures),
        Group::Http => requests(peer, target, timing, figures),
        Group::Bulk => streams(peer, target, timing, figures),
        Group::Mem => memory(peer, target, figures),
    }?;
    peer.ensure_running()
}

fn round_trips(peer: &Peer, target: &Target, timing: Timing, figures: &mut Figures) -> Result<()> {
    for count in [1, 32] {
        let exchange = Exchange {
            addr: peer.addr,
            request: &MESSAGE,
            answer: &MESSAGE,
            connections: count,
            reconnect: false,
        };
        let name = format!("round trips of 64 B, {}", plural(count, "connection"));
        let (outcome, cpu) = run(peer, target, &exchange, timing)?;
        latency(figures, &name, 0.5, &outcome);
        latency(figures, &name, 0.99, &outcome);
        per_exchange(figures, &name, cpu, &outcome);
    }
    Ok(())
}

fn connections(peer: &Peer, target: &Target, timing: Timing, figures: &mut Figures) -> Result<()> {
    for count in [1, 16] {
        let exchange = Exchange {
            addr: peer.addr,
            request: &MESSAGE,
            answer: &MESSAGE,
            connections: count,
            reconnect: true,
        };
        let name = format!("new connections, {count} at a time");
        let (outcome, cpu) = run(peer, target, &exchange, timing)?;
        rate(figures, &name, &outcome);
        per_exchange(figures, &name, cpu, &outcome);
    }
    Ok(())
}

fn requests(peer: &Peer, target: &Target, timing: Timing, figures: &mut Figures) -> Result<()> {
    for (count, reconnect) in [(1, false), (32, false), (16, true)] {
        let (request, answer) = if reconnect {
            (CLOSE, CLOSED)
        } else {
            (KEEP_ALIVE, KEPT_ALIVE)
        };
        let exchange = Exchange {
            addr: peer.addr,
            request,
            answer,
            connections: count,
            reconnect,
        };
        let name = if reconnect {
            format!("HTTP close, {count} at a time")
        } else {
            format!("HTTP keep-alive, {}", plural(count, "connection"))
        };
        let (outcome, cpu) = run(peer, target, &exchange, timing)?;
        rate(figures, &name, &outcome);
        latency(figures, &name, 0.99, &outcome);
        per_exchange(figures, &name, cpu, &outcome);
    }
    Ok(())
}

fn streams(peer: &Peer, target: &Target, timing: Timing, figures: &mut Figures) -> Result<()> {
    for count in [1, 8, 64] {
        let name = format!("bulk, {}", plural(count, "stream"));
        let streams = Streams::start(peer.addr, count)?;
        thread::sleep(timing.warm_up);
        let (begin, bytes, cpu) = (Instant::now(), target.received(), peer.cpu()?);
        thread::sleep(timing.measured);
        let elapsed = begin.elapsed().as_secs_f64();
        let (bytes, cpu) = (target.received() - bytes, peer.cpu()?.saturating_sub(cpu));
        streams.stop()?;
        ensure!(bytes > 0, "{name}: nothing arrived");
        let gigabytes = bytes as f64 / 1e9;
        let speed = gigabytes * 8.0 / elapsed;
        figures.put(format!("{name}: throughput"), "Gb/s", Higher, speed);
        if peer.has_processes() {
            let cost = cpu.as_secs_f64() / gigabytes;
            figures.put(format!("{name}: CPU"), "s/GB", Lower, cost);
        }
        target.wait_idle()?;
    }
    Ok(())
}

fn memory(peer: &Peer, target: &Target, figures: &mut Figures) -> Result<()> {
    if !peer.has_processes() {
        return Ok(());
    }
    thread::sleep(SETTLE);
    let idle = peer.resident()?;
    figures.put("memory, idle".to_owned(), "MiB", Lower, idle / 1024.0);
    let exchange = probe(Service::Echo, peer.addr);
    let open: Result<Vec<TcpStream>> = (1..=IDLE)
        .map(|n| {
            let socket = exchange.once();
            socket.with_context(|| format!("idle connection {n} of {IDLE}"))
        })
        .collect();
    let open = open?;
    thread::sleep(SETTLE);
    let each = (peer.resident()? - idle).max(0.0) / IDLE as f64;
    let name = format!("memory of an idle connection, {IDLE} open");
    figures.put(name, "KiB", Lower, each);
    drop(open);
    target.wait_idle()?;
    let begin = Instant::now();
    let mut after = f64::INFINITY;
    // Nobody gives back more than was there at the start.
    while begin.elapsed() < RELEASE && after > idle {
        ensure_not_interrupted()?;
        thread::sleep(Duration::from_millis(250));
        after = after.min(peer.resident()?);
    }
    let name = format!("memory, {} s after they have closed", RELEASE.as_secs());
    figures.put(name, "MiB", Lower, after / 1024.0);
    Ok(())
}

/// Runs an exchange. Returns also the CPU time of the peer, without the warm-up.
fn run(
    peer: &Peer,
    target: &Target,
    exchange: &Exchange,
    timing: Timing,
) -> Result<(Outcome, Duration)> {
    ensure_not_interrupted()?;
    let mut before = Duration::ZERO;
    let outcome = exchange.run(timing, &mut || {
        before = peer.cpu()?;
        Ok(())
    })?;
    let cpu = peer.cpu()?.saturating_sub(before);
    target.wait_idle()?;
    Ok((outcome, cpu))
}

fn latency(figures: &mut Figures, name: &str, part: f64, outcome: &Outcome) {
    let name = format!("{name}: p{:.0}", part * 100.0);
    let value = outcome.latencies.quantile(part);
    figures.put(name, "us", Lower, value);
}

fn rate(figures: &mut Figures, name: &str, outcome: &Outcome) {
    if outcome.failures > 0 {
        (figures.note)(format!("{name}: {} failed", outcome.failures));
    }
    let value = outcome.latencies.count() as f64 / outcome.elapsed.as_secs_f64();
    figures.put(format!("{name}: rate"), "/s", Higher, value);
}

/// CPU time of the peer for each exchange; nothing without a tunnel.
fn per_exchange(figures: &mut Figures, name: &str, cpu: Duration, outcome: &Outcome) {
    if cpu > Duration::ZERO {
        let value = cpu.as_secs_f64() * 1e6 / outcome.latencies.count() as f64;
        figures.put(format!("{name}: CPU"), "us", Lower, value);
    }
}

fn plural(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}
