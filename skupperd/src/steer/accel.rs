//! Acceleration: the bytes of a connection between a program of this host and the daemon go from
//! socket to socket, bypassing TCP.
//!
//! Only for listeners and connectors that ask for it. The BPF programs are loaded when the first
//! one does, so other hosts run no program on their connections.

mod diag;
mod hop;
#[cfg(not(feature = "ebpf"))]
mod none;
#[cfg(feature = "ebpf")]
mod programs;
#[cfg(feature = "ebpf")]
mod system;

pub use hop::Hop;
#[cfg(not(feature = "ebpf"))]
use none::{LoadedPrograms, start};
#[cfg(feature = "ebpf")]
pub use programs::{Hops, Programs, Rules};
#[cfg(feature = "ebpf")]
use system::{LoadedPrograms, start};

use super::bind_range::{BindRange, Network, Ports};
use crate::telemetry::{self, Failures};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::TcpStream,
    sync::{Arc, OnceLock},
    time::Instant,
};

static NOT_READ: Failures = Failures::new();

/// Bytes that may wait unread at either end. They use memory beside TCP's own buffers.
pub const AHEAD: u64 = 512 * 1024;
/// Bytes in one direction, without any in the other, after which the direction is a stream and
/// falls back to TCP. Round trips gain at any size (0.52 to 0.70 of the time of TCP from 64 bytes
/// to 128 KiB), streams lose (2.0 in pieces of 64 bytes to 4 KiB, 1.3 from 8 to 32 KiB); measured
/// by `round_trips_and_streams_by_size`. The value is above those sizes; until it is reached a
/// stream loses some milliseconds.
pub const STREAK: u64 = 256 * 1024;

/// Port number of "all other ports" in the maps of the BPF programs.
const ALL_PORTS: u16 = 0;

/// Why connections are not accelerated.
#[derive(Debug, thiserror::Error)]
pub enum AccelerationUnavailable {
    /// Switched off by the configuration.
    #[error("switched off")]
    Off,
    /// No listener or connector asks for it.
    #[error("no listener and no connector asks for it")]
    Unused,
    #[error("built without eBPF")]
    NotBuilt,
    #[error("missing {0}")]
    Missing(String),
    /// Older kernels do not count unread bytes of a socket, and may lose or hold back bytes.
    #[error("Linux {0} is too old: acceleration needs 6.18")]
    Kernel(String),
    /// The BPF programs attach to a cgroup.
    #[error("no cgroup v2 is mounted")]
    NoCgroup,
    #[cfg(feature = "ebpf")]
    #[error(transparent)]
    Refused(#[from] super::bpf::BpfError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopTotals {
    /// Messages that bypassed TCP.
    pub messages: u64,
    pub bytes: u64,
    /// Accelerated sockets, two for each connection.
    pub sockets: u64,
    /// Directions that fell back to TCP: streams, and those with a slow reader.
    pub bulk: u64,
    /// Directions that TCP carried from the start, because it had already sent something or the
    /// other socket was not registered.
    pub late: u64,
}

/// Status of acceleration, as users see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccelerationStatus {
    /// Whether acceleration is in operation.
    pub enabled: bool,
    /// Why not; `None` if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Counts since the start.
    #[serde(flatten)]
    pub totals: HopTotals,
}

/// Addresses and ports with their listener, and whether its connections are accelerated.
type AcceleratedListeners = BTreeMap<(Network, u16), (u64, bool)>;

/// Acceleration of this process's connections.
pub struct Acceleration {
    /// Whether the system meets the requirements, as far as that is known without trying.
    possible: Result<(), AccelerationUnavailable>,
    kernel: OnceLock<Result<LoadedPrograms, AccelerationUnavailable>>,
    /// Copied to the BPF programs when they are loaded; changes are passed on from then on.
    listeners: Mutex<AcceleratedListeners>,
    caught_up: OnceLock<()>,
}

impl Acceleration {
    pub fn new(wanted: bool) -> Arc<Self> {
        Arc::new(Self {
            possible: if wanted {
                possible()
            } else {
                Err(AccelerationUnavailable::Off)
            },
            kernel: OnceLock::new(),
            listeners: Mutex::default(),
            caught_up: OnceLock::new(),
        })
    }

    /// Loads the programs on the first call. Returns whether they are loaded.
    pub fn enable(&self) -> bool {
        self.load().is_some()
    }

    fn load(&self) -> Option<&LoadedPrograms> {
        self.possible.as_ref().ok()?;
        let kernel = self.kernel.get_or_init(|| {
            let started = start();
            match &started {
                Ok(_) => tracing::info!(
                    "acceleration is on for listeners and connectors that ask for it"
                ),
                Err(reason) => {
                    let reason = telemetry::chain(reason);
                    tracing::warn!(reason, "acceleration is off");
                }
            }
            started
        });
        self.caught_up.get_or_init(|| {
            for ((to, port), (_, on)) in &*self.listeners() {
                self.update_programs(*to, *port, Some(*on));
            }
        });
        kernel.as_ref().ok()
    }

    fn listeners(&self) -> MutexGuard<'_, AcceleratedListeners> {
        self.listeners.lock()
    }

    /// Updates the map of the BPF programs, if they are loaded.
    fn update_programs(&self, to: Network, port: u16, on: Option<bool>) {
        // Listeners on all ports are entered too, but their connections are not accelerated.
        let on = on.map(|on| on || port == ALL_PORTS);
        if let Some(kernel) = self.kernel()
            && let Err(error) = kernel.listen(to, port, on)
        {
            let error = telemetry::chain(&error);
            tracing::warn!(%to, port, error, "cannot set acceleration of listener");
        }
    }

    fn kernel(&self) -> Option<&LoadedPrograms> {
        self.kernel.get()?.as_ref().ok()
    }

    /// Whether connections are accelerated, or why not.
    pub fn state(&self) -> Result<(), &AccelerationUnavailable> {
        self.possible.as_ref()?;
        match self.kernel.get() {
            Some(kernel) => kernel.as_ref().map(drop),
            None => Err(&AccelerationUnavailable::Unused),
        }
    }

    pub fn status(&self) -> AccelerationStatus {
        let state = self.state();
        AccelerationStatus {
            enabled: state.is_ok(),
            reason: state.err().map(|reason| telemetry::chain(reason)),
            totals: self.totals().unwrap_or_default(),
        }
    }

    /// `None` if the programs are not loaded.
    pub fn totals(&self) -> Option<HopTotals> {
        let failed = |error: &AccelerationUnavailable| {
            if let Some(suppressed) = NOT_READ.count_and_report(Instant::now()) {
                let error = telemetry::chain(error);
                tracing::warn!(error, suppressed, "cannot read counters of acceleration");
            }
        };
        self.kernel()?.totals().inspect_err(failed).ok()
    }

    /// Sets whether new connections to a listener are accelerated. Only possible for a single port
    /// of one address, or of all addresses if `steered`: with its own sockets, another program may
    /// have a more specific address than the listener.
    pub fn listen(&self, listener: u64, range: BindRange, steered: bool, on: bool) {
        if self.possible.is_err() {
            return;
        }
        let network = range.network;
        let on = on && check_range(range, steered).is_ok();
        if on {
            self.load();
        }
        for port in ports(range) {
            match self.listeners().entry((network, port)) {
                // Another listener has the entry, and this one does not ask for acceleration.
                Entry::Occupied(held) if held.get().0 != listener && !on => continue,
                Entry::Occupied(mut held) => drop(held.insert((listener, on))),
                Entry::Vacant(free) => drop(free.insert((listener, on))),
            }
            self.update_programs(network, port, Some(on));
        }
    }

    /// Removes the entries of a closed listener.
    pub fn unlisten(&self, listener: u64, range: BindRange) {
        for port in ports(range) {
            if let Entry::Occupied(held) = self.listeners().entry((range.network, port))
                && held.get().0 == listener
            {
                held.remove();
                self.update_programs(range.network, port, None);
            }
        }
    }

    /// Registers a socket of the daemon for acceleration, before it connects.
    pub fn connecting(&self, socket: SockRef<'_>) {
        let Some(kernel) = self.load() else { return };
        let cookie = socket.cookie().map_err(AccelerationUnavailable::System);
        if let Err(error) = cookie.and_then(|cookie| kernel.connecting(cookie)) {
            tracing::debug!(
                error = telemetry::chain(&error),
                "cannot accelerate connection"
            );
        }
    }

    /// The daemon's end of a connection, if it is accelerated.
    pub fn hop(self: &Arc<Self>, socket: &TcpStream) -> Option<Hop> {
        let kernel = self.kernel()?;
        let (local, remote) = (socket.local_addr().ok()?, socket.peer_addr().ok()?);
        let taken = kernel.is_taken_up(local, remote);
        taken.then(|| Hop::new(self.clone(), local, remote))
    }

    /// Whether the daemon may exit: unread bytes at sockets of other programs would be lost with
    /// it.
    pub fn is_settled(&self) -> bool {
        let Some(kernel) = self.kernel() else {
            return true;
        };
        let unread = kernel.taken_up().into_iter().any(|(at, from)| {
            // An error means that the socket is closed.
            diag::unread(at, from).is_ok_and(|bytes| bytes > 0)
        });
        !unread
    }
}

/// Whether connections to a range can be accelerated, or why not.
pub fn check_range(range: BindRange, steered: bool) -> Result<(), &'static str> {
    match (range.ports, range.network.bindable()) {
        (Ports::Range(..) | Ports::All, _) => Err("not for ranges of ports"),
        (Ports::One(_), None) => Err("not for prefixes of addresses"),
        (Ports::One(_), Some(address)) if address.is_unspecified() && !steered => {
            Err("not for sockets on all addresses: other programs may have one of them")
        }
        (Ports::One(_), Some(_)) => Ok(()),
    }
}

/// Each port of a range, or the number for all ports.
fn ports(range: BindRange) -> impl Iterator<Item = u16> {
    let all = (range.ports == Ports::All).then_some(ALL_PORTS);
    range.ports.each().chain(all)
}

#[cfg(feature = "ebpf")]
fn possible() -> Result<(), AccelerationUnavailable> {
    system::possible()
}

#[cfg(not(feature = "ebpf"))]
fn possible() -> Result<(), AccelerationUnavailable> {
    Err(AccelerationUnavailable::NotBuilt)
}
