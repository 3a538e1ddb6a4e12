//! The peers: tunnels that are measured, each with two processes and one TLS hop on loopback.

mod haproxy;
mod rathole;
mod skupperd;

use crate::{
    certificates,
    load::Exchange,
    options::{self, PeerKind},
    process::{Process, ensure_not_interrupted, free_port},
    target::{CLOSE, CLOSED, PROBE, Service},
};
use anyhow::{Context, Result};
use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Timeout until a peer carries traffic, generous for busy machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message of the round trips.
pub(crate) const MESSAGE: [u8; 64] = [0x42; 64];

/// A tunnel, not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tunnel {
    /// skupperd and skupper in this directory.
    Skupperd {
        label: String,
        programs: PathBuf,
    },
    Other(PeerKind),
}

/// What all peers use.
pub(crate) struct PeerContext {
    /// Directories of running peers are made here.
    dir: PathBuf,
    certificates: TempDir,
    /// This program, which is also the floor.
    bench: PathBuf,
    rathole: PathBuf,
}

/// Addresses of a peer.
#[derive(Clone, Copy)]
struct Addresses {
    /// For clients.
    listen: SocketAddr,
    /// Of the TLS hop.
    link: SocketAddr,
    /// Of the server.
    target: SocketAddr,
}

/// A running peer. Its processes are stopped and its directory is removed on drop.
pub(crate) struct Peer {
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    processes: Vec<Process>,
    _dir: TempDir,
}

impl PeerContext {
    pub(crate) fn new(dir: &Path, rathole: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| dir.display().to_string())?;
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        // Peers start in their directories; a name alone is looked up on the path.
        let rathole = match rathole.components().count() {
            1 => rathole.to_owned(),
            _ => std::path::absolute(rathole)?,
        };
        let certificates = temporary(&dir, "certificates-")?;
        certificates::write(certificates.path())?;
        Ok(Self {
            dir,
            certificates,
            bench: env::current_exe().context("the path of this program")?,
            rathole,
        })
    }

    fn certificate(&self, file: &str) -> String {
        let path = self.certificates.path().join(file);
        path.display().to_string()
    }
}

fn temporary(dir: &Path, prefix: &str) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(dir);
    made.with_context(|| dir.display().to_string())
}

impl Tunnel {
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Skupperd { label, .. } => label.clone(),
            Self::Other(kind) => options::name(kind),
        }
    }

    /// Starts the peer in front of a server, and waits until it carries traffic.
    pub(crate) fn start(
        &self,
        ctx: &PeerContext,
        target: SocketAddr,
        service: Service,
    ) -> Result<Peer> {
        let label = self.label();
        let dir = temporary(&ctx.dir, &format!("{label}-"))?;
        let port = || Ok::<_, anyhow::Error>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let addresses = Addresses {
            listen: port()?,
            link: port()?,
            target,
        };
        let processes = match self {
            Self::Skupperd { programs, .. } => skupperd::start(programs, &addresses, dir.path()),
            Self::Other(PeerKind::Direct) => Ok(Vec::new()),
            Self::Other(PeerKind::Floor) => start_floor(ctx, &addresses, dir.path()),
            Self::Other(PeerKind::Haproxy) => haproxy::start(ctx, &addresses, dir.path()),
            Self::Other(PeerKind::Rathole) => rathole::start(ctx, &addresses, dir.path()),
        };
        let addr = match self {
            Self::Other(PeerKind::Direct) => target,
            _ => addresses.listen,
        };
        let mut peer = Peer {
            addr,
            processes: processes?,
            _dir: dir,
        };
        peer.wait_ready(service)?;
        Ok(peer)
    }
}

impl Peer {
    /// Whether there is a tunnel.
    pub(crate) fn has_processes(&self) -> bool {
        !self.processes.is_empty()
    }

    /// CPU time of all processes so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Resident memory of all processes, in KiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.processes.iter().map(Process::resident).sum()
    }

    /// Fails if one of the processes has exited.
    pub(crate) fn ensure_running(&mut self) -> Result<()> {
        self.processes
            .iter_mut()
            .try_for_each(Process::ensure_running)
    }

    fn wait_ready(&mut self, service: Service) -> Result<()> {
        let begin = Instant::now();
        loop {
            ensure_not_interrupted()?;
            self.ensure_running()?;
            match probe(service, self.addr).once() {
                Ok(_) => return Ok(()),
                Err(e) if begin.elapsed() > PATIENCE => {
                    return Err(e).context(format!("it carries nothing after {PATIENCE:?}"));
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// An exchange that succeeds if the server is reached.
pub(crate) fn probe(service: Service, addr: SocketAddr) -> Exchange<'static> {
    let (request, answer): (&[u8], &[u8]) = match service {
        Service::Echo => (&MESSAGE, &MESSAGE),
        Service::Http => (CLOSE, CLOSED),
        Service::Sink => (PROBE, PROBE),
    };
    Exchange {
        addr,
        request,
        answer,
        connections: 1,
        reconnect: true,
    }
}

fn start_floor(ctx: &PeerContext, addresses: &Addresses, dir: &Path) -> Result<Vec<Process>> {
    let side = |side: &str, listen: SocketAddr, target: SocketAddr| {
        let mut command = Command::new(&ctx.bench);
        command.args(["floor", side]);
        command.args([listen.to_string(), target.to_string()]);
        command.arg(ctx.certificates.path());
        Process::start(&format!("floor-{side}"), &mut command, dir)
    };
    Ok(vec![
        side("server", addresses.link, addresses.target)?,
        side("client", addresses.listen, addresses.link)?,
    ])
}

/// Writes a file into the directory of a peer.
fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    let file = dir.join(name);
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    fs::write(&file, text).with_context(|| file.display().to_string())
}
