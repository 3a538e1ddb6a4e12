//! Steering by the kernel: the accept sockets that all listeners share, and the bindings that lead
//! to them.
//!
//! The order of steps keeps connections from reaching the wrong listener. A binding begins after
//! the address is reserved and workers know its owner. It ends before workers forget the owner and
//! other programs can take the address.

mod apply;
mod start;

pub(super) use start::{discard, start, start_in_netns};

use crate::{
    netlink::{
        listeners::{SocketInfo, listening_where},
        socket::Netlink,
    },
    steer::{
        SteerError,
        accept_sockets::AcceptSockets,
        bind_range::{BindRange, Network, Ports},
        bpf::{BpfError, Steering},
        reserve::Reservations,
        slots::Slots,
        table::{Owner, OwnerTable, Owners},
    },
};
use crate::{sys::DescriptorStore, telemetry};
use skupper_ebpf::{ALL_PORTS, Binding, LEFT_ALONE, LISTENERS};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

/// Error text for an address of another listener, after the kernel's.
const DUPLICATE: &str = "Address already in use by another listener";

/// Name of the stored descriptor with the lock on the pins.
const LOCK: &str = "pins";

/// Steers connections to the accept sockets.
struct KernelSteer {
    steering: Steering,
    /// `None` if nothing is reserved: addresses of other programs are left to them.
    reservations: Option<Reservations>,
    /// Lists listening sockets.
    netlink: Netlink,
    owners: Owners,
    table: Arc<OwnerTable>,
    accept_sockets: AcceptSockets,
    /// Unclaimed bindings of the previous process with their slots.
    adopted: HashMap<(Network, u16), u32>,
    slots: Slots,
    descriptor_store: DescriptorStore,
    /// Reserved addresses of each range.
    reserved: HashMap<BindRange, Vec<SocketAddr>>,
    /// Ranges in which other programs may start to listen.
    open: BTreeSet<BindRange>,
    /// Destinations in those ranges that are left to other programs.
    yielded: HashSet<(Network, u16)>,
    /// Destinations that the previous process had left to other programs. They stay so until all
    /// resources are applied.
    yielded_before: HashSet<(Network, u16)>,
    /// Destinations with a binding in the kernel.
    bound: HashSet<(Network, u16)>,
}

/// The key of a single port, or of all ports.
fn binding_key(range: BindRange) -> (Network, u16) {
    let port = match range.ports {
        Ports::One(port) | Ports::Range(port, _) => port,
        Ports::All => ALL_PORTS,
    };
    (range.network, port)
}

/// The inverse of [`binding_key`].
fn range_of((network, port): (Network, u16)) -> BindRange {
    let ports = match port {
        ALL_PORTS => Ports::All,
        port => Ports::One(port),
    };
    BindRange { network, ports }
}

impl KernelSteer {
    /// Brings the binding of a destination in line with its owner.
    fn sync_binding(&mut self, network: Network, port: u16) -> Result<(), BpfError> {
        let key = (network, port);
        let owner = match port {
            ALL_PORTS => self.owners.of_all(network),
            port => self.owners.of_port(network, port),
        };
        let slot = owner.map(|owner| owner.slot);
        let (sockets, slot) = match slot {
            // These connections are not counted.
            _ if self.yielded.contains(&key) => (LEFT_ALONE, slot.unwrap_or(LISTENERS)),
            Some(slot) => (self.accept_sockets.count, slot),
            None if self.bound.contains(&key) => {
                self.steering
                    .unbind(network.address(), network.bits(), port)?;
                self.bound.remove(&key);
                return Ok(());
            }
            None => return Ok(()),
        };
        let binding = Binding {
            first: self.accept_sockets.first(network.address()),
            sockets,
            slot,
            prefix: u32::from(network.bits()),
        };
        self.steering
            .bind(network.address(), network.bits(), port, binding)?;
        self.bound.insert(key);
        Ok(())
    }

    /// [`Self::sync_binding`] for each port of a range.
    fn sync_bindings(&mut self, range: BindRange) -> Result<(), SteerError> {
        let settled = range
            .parts()
            .map(binding_key)
            .try_for_each(|(network, port)| self.sync_binding(network, port));
        settled.map_err(|error| SteerError {
            range,
            op: "steering",
            source: io::Error::other(telemetry::chain(&error)),
        })
    }

    /// Reserves a range. The error names the program that has it.
    fn reserve(&mut self, range: BindRange, others: &[SocketInfo]) -> Result<(), SteerError> {
        // In an adopted range other programs may have started since: they keep their ports.
        let ours = self.adopted_slot(range).is_some();
        let open = self.is_open(&range);
        if open && range.ports != Ports::All && !ours {
            let taken = others.iter().find(|other| range.is_taken_by(other));
            if let Some(other) = taken {
                let text = format!(
                    "Address already in use by another program at {}",
                    other.addr
                );
                return Err(SteerError {
                    range: range.with_port(other.addr.port()),
                    op: "binding",
                    source: io::Error::new(io::ErrorKind::AddrInUse, text),
                });
            }
        }
        let mut taken = Vec::new();
        let ports = self.reservations.is_some().then(|| range.ports.each());
        for port in ports.into_iter().flatten() {
            // A prefix is represented by its first address, so that a program that binds all
            // addresses conflicts.
            let addr = SocketAddr::new(range.network.address(), port);
            let reserved = self.reservations.as_mut().map(|ours| ours.take(addr));
            match reserved.unwrap_or(Ok(())) {
                Ok(()) => taken.push(addr),
                Err(error) if open && error.source.kind() == io::ErrorKind::AddrNotAvailable => {
                    break;
                }
                Err(error) => {
                    self.release_all(taken);
                    return Err(error);
                }
            }
        }
        self.reserved.insert(range, taken);
        if open {
            self.open.insert(range);
        }
        Ok(())
    }

    /// Whether other programs may start to listen in a range of this daemon.
    fn is_open(&self, range: &BindRange) -> bool {
        self.reservations.is_none() || range.sockets().is_none()
    }

    fn release_all(&mut self, taken: Vec<SocketAddr>) {
        for addr in taken {
            self.reservations
                .iter_mut()
                .for_each(|ours| ours.release(addr));
        }
    }

    /// Releases a range.
    fn release(&mut self, range: BindRange) {
        let taken = self.reserved.remove(&range);
        self.release_all(taken.unwrap_or_default());
        self.open.remove(&range);
    }

    /// Leaves destinations to the programs that listen on them.
    fn yield_to(&mut self, others: &[SocketInfo]) {
        let mut yielded = self.yielded_before.clone();
        for range in &self.open {
            for other in others.iter().filter(|other| range.is_taken_by(other)) {
                let ip = other.addr.ip();
                let network = if ip.is_unspecified() {
                    range.network
                } else {
                    Network::of(ip)
                };
                yielded.insert((network, other.addr.port()));
            }
        }
        let before = std::mem::replace(&mut self.yielded, yielded);
        let changed: Vec<_> = self
            .yielded
            .symmetric_difference(&before)
            .copied()
            .collect();
        for (network, port) in changed {
            if self.yielded.contains(&(network, port)) {
                tracing::info!(%network, port, "leaving port to another program");
            }
            if let Err(error) = self.sync_binding(network, port) {
                let error = telemetry::chain(&error);
                tracing::error!(%network, port, error, "cannot leave port to another program");
            }
        }
    }

    /// Sockets that listen, without the accept sockets; empty if `matters` is false.
    fn list_foreign_sockets(&self, matters: bool) -> Vec<SocketInfo> {
        if !matters {
            return Vec::new();
        }
        let found = listening_where(&self.netlink).inspect_err(|error| {
            tracing::error!(%error, "cannot list listening programs");
        });
        let mut others = found.unwrap_or_default();
        others.retain(|other| {
            !self
                .accept_sockets
                .contains(other.addr.ip(), other.addr.port())
        });
        others
    }

    /// Slot of a range in the previous process.
    fn adopted_slot(&self, range: BindRange) -> Option<u32> {
        let mut keys = range.parts().map(binding_key);
        let of = |key| self.adopted.get(&key).copied();
        (!self.adopted.is_empty()).then(|| keys.find_map(of))?
    }

    /// Slot of a listener for one more range.
    fn take_slot(&mut self, owner: &Owner, range: BindRange) -> u32 {
        let (slot, fresh) = self.slots.take(&owner.name, self.adopted_slot(range));
        if fresh && let Err(error) = self.steering.counts().clear(slot) {
            tracing::warn!(
                error = telemetry::chain(&error),
                "cannot clear counters of listener"
            );
        }
        slot
    }

    /// Makes an owner the owner of a range. Returns whether the kernel must be updated.
    fn begin_binding(
        &mut self,
        range: BindRange,
        owner: Owner,
        before: Option<&Owner>,
        others: &[SocketInfo],
    ) -> Result<BindOutcome, SteerError> {
        let slot = owner.slot;
        if !self.owners.insert(range, owner) {
            return Err(SteerError {
                range,
                op: "binding",
                source: io::Error::new(io::ErrorKind::AddrInUse, DUPLICATE),
            });
        }
        if let Some(before) = before {
            // With the same slot, the binding in the kernel stays the same.
            return Ok(match before.slot == slot {
                true => BindOutcome::Unchanged,
                false => BindOutcome::Changed,
            });
        }
        let taken = self.reserve(range, others);
        if taken.is_err() {
            self.owners.remove(range);
        } else if !self.adopted.is_empty() {
            for key in range.parts().map(binding_key) {
                // Ports with another slot belong to other listeners.
                if self.adopted.get(&key) == Some(&slot) {
                    self.adopted.remove(&key);
                }
            }
        }
        taken.map(|()| BindOutcome::Changed)
    }
}

/// Effect of [`KernelSteer::begin_binding`] on the kernel.
#[derive(PartialEq, Eq)]
enum BindOutcome {
    /// The kernel already has the binding.
    Unchanged,
    /// The kernel must be updated.
    Changed,
}
