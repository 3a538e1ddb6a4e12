//! Sockets in other network namespaces.
//!
//! A socket belongs to the network namespace that it was created in, so a listener in another
//! namespace needs sockets from there: with steering a few for all listeners of that namespace
//! ([`NetnsSteering`]), otherwise its own. Creating them needs CAP_SYS_ADMIN. A daemon without it
//! asks [`helper`], which does nothing else, and gets bound sockets that do not listen yet.

mod helper;

pub use helper::serve;

use crate::{model::Netns, sys, telemetry};
use crate::{
    netlink::socket::{Netlink, NetlinkFamily},
    steer::{
        NetnsDescriptors, SteerError,
        bind_range::BindRange,
        netns_steering::NetnsSteering,
        plain::{LOOPBACKS, SocketBindings, unreached},
    },
};
use helper::HelperRequest;
use socket2::Socket;
use std::{
    fs::{self, File},
    io,
    net::{Shutdown, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// Maximum number of sockets of one listener: half of the usual soft limit of descriptors.
const MAX_SOCKETS: usize = 512;
/// systemd keeps a symbolic link here for each running unit. It changes with every start.
const UNITS: &str = "/run/systemd/units";

/// Distinguishes a namespace from a later one with the same name.
#[derive(Debug)]
enum NamespaceIdentity {
    File(u64, u64),
    Run(PathBuf),
    Process(OwnedFd),
}

/// An existing namespace.
#[derive(Debug)]
pub struct Watch {
    target: Netns,
    identity: NamespaceIdentity,
}

impl Netns {
    /// Finds the namespace. Needs no privileges.
    pub fn watch(&self) -> Result<Watch, String> {
        let not = |e: io::Error| match (self, e.kind()) {
            (Self::Path(_), io::ErrorKind::NotFound) => format!("{self} does not exist"),
            (_, io::ErrorKind::NotFound) => format!("{self} is not running"),
            _ if e.raw_os_error() == Some(NO_PROCESS) => format!("{self} is not running"),
            _ => format!("{self}: {e}"),
        };
        let identity = self.identity().map_err(not)?;
        Ok(Watch {
            target: self.clone(),
            identity,
        })
    }

    fn identity(&self) -> io::Result<NamespaceIdentity> {
        match self {
            Self::Path(path) => {
                if !sys::netns::is_namespace(path)? {
                    return Err(io::Error::other("not a network namespace"));
                }
                let meta = fs::metadata(path)?;
                Ok(NamespaceIdentity::File(meta.dev(), meta.ino()))
            }
            Self::Unit(name) => {
                let link = Path::new(UNITS).join(format!("invocation:{name}"));
                fs::read_link(link).map(NamespaceIdentity::Run)
            }
            Self::Pid(pid) => sys::netns::process(*pid).map(NamespaceIdentity::Process),
        }
    }

    /// Opens the namespace. Needs CAP_SYS_PTRACE.
    fn open(&self) -> io::Result<File> {
        let path = match self {
            Self::Path(path) => path.clone(),
            Self::Unit(name) => of_process(main_process(name)?),
            Self::Pid(pid) => of_process(*pid),
        };
        sys::netns::open(&path)
    }
}

/// ESRCH of errno.h.
const NO_PROCESS: i32 = 3;

fn of_process(pid: u32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// The main process of a service.
fn main_process(unit: &str) -> io::Result<u32> {
    let output = Command::new("systemctl")
        .args(["show", "--property=MainPID", "--value", "--", unit])
        .output()?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    let none = || io::Error::new(io::ErrorKind::NotFound, "it has no main process");
    pid.filter(|pid| *pid > 0).ok_or_else(none)
}

impl Watch {
    /// Whether the namespace still exists.
    pub fn holds(&self) -> bool {
        match &self.identity {
            NamespaceIdentity::Process(process) => !sys::netns::has_ended(process.as_fd()),
            NamespaceIdentity::File(..) | NamespaceIdentity::Run(_) => {
                match (self.target.identity(), &self.identity) {
                    (Ok(NamespaceIdentity::File(dev, ino)), NamespaceIdentity::File(d, i)) => {
                        (dev, ino) == (*d, *i)
                    }
                    (Ok(NamespaceIdentity::Run(now)), NamespaceIdentity::Run(then)) => now == *then,
                    _ => false,
                }
            }
        }
    }
}

/// How a listener is reached in another namespace.
#[derive(Clone, Debug)]
pub enum NetnsListener {
    /// The listener has its own sockets.
    Own(NetnsSockets),
    /// The listener shares accept sockets with all others of the namespace.
    Steered(Arc<NetnsSteering>),
}

impl PartialEq for NetnsListener {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(a), Self::Own(b)) => Arc::ptr_eq(&a.0, &b.0),
            (Self::Steered(a), Self::Steered(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for NetnsListener {}

/// Sockets bound in another namespace, by address and worker.
#[derive(Clone, Debug)]
pub struct NetnsSockets(Arc<Vec<Socket>>);

impl NetnsSockets {
    /// Starts listening, and assigns the sockets to workers in turn.
    pub fn listen(&self, workers: usize) -> io::Result<Vec<(usize, std::net::TcpListener)>> {
        let mut open = Vec::new();
        for (n, socket) in self.0.iter().enumerate() {
            // Connections of earlier sockets (TIME_WAIT) must not conflict.
            socket.set_reuse_address(true)?;
            socket.listen(super::plain::BACKLOG)?;
            open.push((n % workers.max(1), socket.try_clone()?.into()));
        }
        Ok(open)
    }

    /// Stops listening, but keeps the addresses bound.
    pub fn refuse(&self) {
        for socket in self.0.iter() {
            if let Err(error) = forbid_sharing(socket) {
                tracing::warn!(%error, "cannot keep address in network namespace");
            }
            // An error means that the socket does not listen.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// Keeps other sockets from sharing the address while this one does not listen.
fn forbid_sharing(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(false)
}

/// Opens a listener in a namespace: steered if `steered` and possible, otherwise with sockets bound
/// to these ranges, one for each worker.
pub fn open_listener(
    target: &Netns,
    ranges: &[BindRange],
    workers: usize,
    steered: bool,
) -> Result<NetnsListener, String> {
    if steered {
        match enter(target, workers) {
            Ok(steering) => return Ok(NetnsListener::Steered(steering)),
            Err(reason) => {
                tracing::info!(%target, reason, "cannot steer in network namespace; using sockets");
            }
        }
    }
    bind(target, ranges, workers).map(NetnsListener::Own)
}

fn enter(target: &Netns, workers: usize) -> Result<Arc<NetnsSteering>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let given = if sys::netns::may_enter() {
        make_descriptors(target, workers)?
    } else {
        let request = HelperRequest {
            target: target.to_string(),
            addrs: Vec::new(),
            workers,
            entrance: true,
        };
        helper::ask(target, &request, None)?
    };
    let descriptors = sort_descriptors(given).map_err(failed)?;
    let steering = NetnsSteering::open(workers, descriptors);
    steering.map_err(|e| format!("{target}: {}", telemetry::chain(&e)))
}

/// Opens the descriptors of [`NetnsDescriptors`] in the order of its fields.
fn make_descriptors(target: &Netns, workers: usize) -> Result<Vec<OwnedFd>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let netns = target.open().map_err(failed)?;
    let all = || {
        let netlink = Netlink::open(NetlinkFamily::Sockets)?.into_socket();
        let mut made = vec![OwnedFd::from(netlink)];
        for (family, host) in LOOPBACKS.into_iter().enumerate() {
            for _ in 0..workers {
                match unreached(host) {
                    Ok(socket) => made.push(socket.into()),
                    // The namespace has no IPv6.
                    Err(_) if family == 1 => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(made)
    };
    let made = sys::netns::within(netns.as_fd(), all).map_err(failed)?;
    let mut descriptors = vec![OwnedFd::from(netns)];
    descriptors.extend(made.map_err(failed)?);
    Ok(descriptors)
}

fn sort_descriptors(given: Vec<OwnedFd>) -> io::Result<NetnsDescriptors> {
    let short = || io::Error::other("unexpected reply");
    let mut given = given.into_iter();
    Ok(NetnsDescriptors {
        netns: File::from(given.next().ok_or_else(short)?),
        netlink: Netlink::of(Socket::from(given.next().ok_or_else(short)?))?,
        sockets: given.map(std::net::TcpListener::from).collect(),
    })
}

/// Creates sockets in a namespace, bound to these ranges, one for each worker.
fn bind(target: &Netns, ranges: &[BindRange], workers: usize) -> Result<NetnsSockets, String> {
    let mut addrs = Vec::new();
    for range in ranges {
        let sockets = range.sockets();
        addrs.extend(sockets.ok_or_else(|| {
            format!("{range}: another namespace needs steering for prefixes and all ports")
        })?);
    }
    if addrs.len() * workers > MAX_SOCKETS {
        return Err(format!(
            "{} addresses for {workers} workers are too many: {MAX_SOCKETS} sockets at most",
            addrs.len()
        ));
    }
    let sockets = if sys::netns::may_enter() {
        make(target, &addrs, workers)?
    } else {
        let count = addrs.len() * workers;
        let request = HelperRequest {
            target: target.to_string(),
            addrs,
            workers,
            entrance: false,
        };
        let given = helper::ask(target, &request, Some(count))?;
        given.into_iter().map(Socket::from).collect()
    };
    Ok(NetnsSockets(Arc::new(sockets)))
}

fn make(target: &Netns, addrs: &[SocketAddr], workers: usize) -> Result<Vec<Socket>, String> {
    let failed = |e: io::Error| format!("{target}: {e}");
    let netns = target.open().map_err(failed)?;
    let all = || {
        let each = addrs
            .iter()
            .map(|addr| SocketBindings.bind_sockets(*addr, workers));
        each.collect::<Result<Vec<_>, SteerError>>()
    };
    let made = sys::netns::within(netns.as_fd(), all).map_err(failed)?;
    let made = made.map_err(|e| format!("{target}: {e}"))?;
    let made: Vec<Socket> = made.into_iter().flatten().collect();
    made.iter().try_for_each(forbid_sharing).map_err(failed)?;
    Ok(made)
}

#[cfg(test)]
mod tests;
