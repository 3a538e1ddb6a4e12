//! Acceleration: the bytes of a connection between a program of this host and the daemon go from
//! socket to socket, without TCP in between.
//!
//! It is for listeners and connectors that ask for it. Nothing is loaded before one does: a host
//! where none does has no program of ours at its connections.

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
use none::{Kernel, start};
#[cfg(feature = "ebpf")]
pub use programs::{Hops, Programs, Rules};
#[cfg(feature = "ebpf")]
use system::{Kernel, start};

use super::place::{Network, Place, Ports};
use crate::telemetry;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Bytes that may wait unread at either end: what they hold of memory, beside TCP's own buffers.
pub const AHEAD: u64 = 512 * 1024;
/// Bytes without any the other way after which a direction is a stream, and left to TCP. Round trips
/// gain at any size (the short way takes 0.52 to 0.70 of the time from 64 bytes to 128 KiB), streams
/// lose (2.0 in pieces of 64 bytes to 4 KiB, 1.3 from 8 to 32 KiB): `round_trips_and_streams_by_size`
/// in `level2_hop`. It is above those sizes, and what a stream loses until then is some milliseconds.
pub const STREAK: u64 = 256 * 1024;

/// In place of a port: all that are not named, as the programs have it.
const ALL_PORTS: u16 = 0;

/// Why connections are not accelerated.
#[derive(Debug, thiserror::Error)]
pub enum NotAccelerated {
    /// So it is wished.
    #[error("switched off")]
    Off,
    /// No listener and no connector has asked for it.
    #[error("no listener and no connector asks for it")]
    Unused,
    /// This program can not.
    #[error("built without eBPF")]
    NotBuilt,
    /// The process may not.
    #[error("missing {0}")]
    Missing(String),
    /// Older kernels do not count what waits at a socket, and may lose or hold back bytes.
    #[error("Linux {0} is too old: it takes 6.18, which counts what waits unread at a socket")]
    Kernel(String),
    /// Connections are told apart by it.
    #[error("no cgroup v2 is mounted")]
    NoCgroup,
    /// The system has no such thing, or not for us.
    #[cfg(feature = "ebpf")]
    #[error(transparent)]
    Refused(#[from] super::bpf::BpfError),
    /// The system could not be asked.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopTotals {
    /// Messages that went the short way.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Sockets taken up, two of each connection.
    pub sockets: u64,
    /// Directions that were left for TCP: streams, and those whose reader was behind.
    pub bulk: u64,
    /// Directions that TCP carries from the start, because it had sent something already or the
    /// other socket was not there.
    pub late: u64,
}

/// How it stands, for people to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// Whether connections are accelerated that ask for it.
    pub enabled: bool,
    /// Why not; none if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What has happened since the start.
    #[serde(flatten)]
    pub totals: HopTotals,
}

/// Listeners by where they are, with whether their connections are accelerated there.
type Told = BTreeMap<(Network, u16), (u64, bool)>;

/// Acceleration of this process's connections.
pub struct Acceleration {
    /// Whether it is possible, as far as that is known without trying.
    possible: Result<(), NotAccelerated>,
    kernel: OnceLock<Result<Kernel, NotAccelerated>>,
    /// The kernel is told when the programs are loaded, and of what changes from then on.
    told: Mutex<Told>,
    caught_up: OnceLock<()>,
}

impl Acceleration {
    /// Acceleration for those who ask, or for nobody.
    pub fn new(wanted: bool) -> Arc<Self> {
        Arc::new(Self {
            possible: if wanted {
                possible()
            } else {
                Err(NotAccelerated::Off)
            },
            kernel: OnceLock::new(),
            told: Mutex::default(),
            caught_up: OnceLock::new(),
        })
    }

    /// Loads the programs at the first call, and says if they are there.
    pub fn enable(&self) -> bool {
        self.load().is_some()
    }

    fn load(&self) -> Option<&Kernel> {
        self.possible.as_ref().ok()?;
        let kernel = self.kernel.get_or_init(|| {
            let started = start();
            match &started {
                Ok(_) => tracing::info!("acceleration is on for those that ask for it"),
                Err(why) => {
                    let why = telemetry::chain(why);
                    tracing::warn!(why, "acceleration is off");
                }
            }
            started
        });
        self.caught_up.get_or_init(|| {
            for ((to, port), (_, on)) in &*self.told() {
                self.tell(*to, *port, Some(*on));
            }
        });
        kernel.as_ref().ok()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the programs, if they are loaded.
    fn tell(&self, to: Network, port: u16, on: Option<bool>) {
        // Of all ports it is told where they are: none of those is accelerated.
        let on = on.map(|on| on || port == ALL_PORTS);
        if let Some(kernel) = self.kernel()
            && let Err(error) = kernel.listen(to, port, on)
        {
            let error = telemetry::chain(&error);
            tracing::warn!(%to, port, error, "accelerating a listener");
        }
    }

    fn kernel(&self) -> Option<&Kernel> {
        self.kernel.get()?.as_ref().ok()
    }

    /// Whether connections are accelerated, or why not.
    pub fn state(&self) -> Result<(), &NotAccelerated> {
        self.possible.as_ref()?;
        match self.kernel.get() {
            Some(kernel) => kernel.as_ref().map(drop),
            None => Err(&NotAccelerated::Unused),
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            enabled: state.is_ok(),
            reason: state.err().map(|why| telemetry::chain(why)),
            totals: self.totals().unwrap_or_default(),
        }
    }

    /// What has happened; none when nothing is accelerated.
    pub fn totals(&self) -> Option<HopTotals> {
        let failed = |error: &NotAccelerated| {
            tracing::warn!(error = telemetry::chain(error), "acceleration");
        };
        self.kernel()?.totals().inspect_err(failed).ok()
    }

    /// From now on, new connections to a listener are accelerated or not where it has a single port
    /// of an address or of all addresses; elsewhere they are not. `steered`: the kernel gives us all
    /// of them; by sockets of their own a more specific address of another program may come before
    /// that of all addresses, so that is not accelerated.
    pub fn listen(&self, listener: u64, place: Place, steered: bool, on: bool) {
        if self.possible.is_err() {
            return;
        }
        let network = place.network;
        let on = on && fits(place, steered).is_ok();
        if on {
            self.load();
        }
        for port in ports(place) {
            match self.told().entry((network, port)) {
                // It names the port, or it can not be open there as well.
                Entry::Occupied(held) if held.get().0 != listener && !on => continue,
                Entry::Occupied(mut held) => drop(held.insert((listener, on))),
                Entry::Vacant(free) => drop(free.insert((listener, on))),
            }
            self.tell(network, port, Some(on));
        }
    }

    /// A listener is not there any more.
    pub fn unlisten(&self, listener: u64, place: Place) {
        for port in ports(place) {
            if let Entry::Occupied(held) = self.told().entry((place.network, port))
                && held.get().0 == listener
            {
                held.remove();
                self.tell(place.network, port, None);
            }
        }
    }

    /// Has a socket of ours accelerated that is about to connect.
    pub fn connecting(&self, socket: SockRef<'_>) {
        let Some(kernel) = self.load() else { return };
        let told = socket.cookie().map_err(NotAccelerated::System);
        if let Err(error) = told.and_then(|cookie| kernel.connecting(cookie)) {
            tracing::debug!(
                error = telemetry::chain(&error),
                "accelerating a connection"
            );
        }
    }

    /// The hop of a connection of ours that is accelerated.
    pub fn hop(self: &Arc<Self>, socket: &TcpStream) -> Option<Hop> {
        let kernel = self.kernel()?;
        let (ours, theirs) = (socket.local_addr().ok()?, socket.peer_addr().ok()?);
        let taken = kernel.is_taken_up(ours, theirs);
        taken.then(|| Hop::new(self.clone(), ours, theirs))
    }

    /// Whether nothing waits at other programs' sockets that would be lost with the daemon's end.
    pub fn is_settled(&self) -> bool {
        let Some(kernel) = self.kernel() else {
            return true;
        };
        let unread = kernel.taken_up().into_iter().any(|(at, from)| {
            // What can not be asked about is closed.
            diag::unread(at, from).is_ok_and(|bytes| bytes > 0)
        });
        !unread
    }
}

/// Whether connections to a place can be accelerated, or why not.
pub fn fits(place: Place, steered: bool) -> Result<(), &'static str> {
    match (place.ports, place.network.bindable()) {
        (Ports::Range(..) | Ports::All, _) => Err("not for ranges of ports"),
        (Ports::One(_), None) => Err("not for prefixes of addresses"),
        (Ports::One(_), Some(address)) if address.is_unspecified() && !steered => {
            Err("not for sockets on all addresses: other programs may have one of them")
        }
        (Ports::One(_), Some(_)) => Ok(()),
    }
}

/// Each port of a place, or what stands for all.
fn ports(place: Place) -> impl Iterator<Item = u16> {
    let all = (place.ports == Ports::All).then_some(ALL_PORTS);
    place.ports.each().chain(all)
}

#[cfg(feature = "ebpf")]
fn possible() -> Result<(), NotAccelerated> {
    system::possible()
}

/// Whether this system has what it takes: it is not asked.
#[cfg(not(feature = "ebpf"))]
fn possible() -> Result<(), NotAccelerated> {
    Err(NotAccelerated::NotBuilt)
}
