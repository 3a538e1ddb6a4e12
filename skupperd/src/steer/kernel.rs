//! Steering by the kernel: the accept sockets that all listeners share, and the bindings that lead
//! to them.
//!
//! Order is what keeps connections from going astray. A binding begins when its address is ours and
//! workers know its owner, and ends before workers forget the owner and others can have the address.

mod start;

pub(super) use start::{discard, inside, start};

use super::{
    Steer, SteerError,
    accepting::Accepting,
    bpf::{BpfError, Steering},
    listening::{Listening, listening_where},
    netlink::Netlink,
    place::{Network, Place, Ports},
    reserve::Reservations,
    slots::Slots,
    table::{Owner, Owners, Table},
};
use crate::{sys::Keeper, telemetry};
use skupper_ebpf::{ALL_PORTS, Binding, LEFT_ALONE, LISTENERS};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::Arc,
};

/// What the kernel says of an address that is taken, and by whom.
const DUPLICATE: &str = "Address already in use by another listener";

/// Name of the descriptor that the lock on the pins is on.
const LOCK: &str = "pins";

/// Sends connections to the accept sockets.
struct Kernel {
    steering: Steering,
    /// None: what other programs listen on is left to them, exact addresses too.
    reservations: Option<Reservations>,
    /// Knows who listens.
    asked: Netlink,
    owners: Owners,
    table: Arc<Table>,
    accepting: Accepting,
    /// Bindings of an earlier process that nobody has wanted yet, and where they are counted.
    adopted: HashMap<(Network, u16), u32>,
    slots: Slots,
    keeper: Keeper,
    /// What is reserved for each place.
    taken: HashMap<Place, Vec<SocketAddr>>,
    /// Places that others may come to listen at.
    open: BTreeSet<Place>,
    /// What is left to others there.
    left: HashSet<(Network, u16)>,
    /// What an earlier process has left to others. It stays so until all places are known again.
    left_before: HashSet<(Network, u16)>,
    /// What the kernel knows of.
    bound: HashSet<(Network, u16)>,
}

/// What the kernel knows a port of a place by, or all ports.
fn key(part: Place) -> (Network, u16) {
    let port = match part.ports {
        Ports::One(port) | Ports::Range(port, _) => port,
        Ports::All => ALL_PORTS,
    };
    (part.network, port)
}

/// What is told of [`key`].
fn part((network, port): (Network, u16)) -> Place {
    let ports = match port {
        ALL_PORTS => Ports::All,
        port => Ports::One(port),
    };
    Place { network, ports }
}

impl Kernel {
    /// Has the kernel do with a port of these addresses what their owner, or nobody, wants.
    fn settle(&mut self, network: Network, port: u16) -> Result<(), BpfError> {
        let key = (network, port);
        let owner = match port {
            ALL_PORTS => self.owners.of_all(network),
            port => self.owners.of_port(network, port),
        };
        let slot = owner.map(|owner| owner.slot);
        let (sockets, slot) = match slot {
            // Nothing is counted there.
            _ if self.left.contains(&key) => (LEFT_ALONE, slot.unwrap_or(LISTENERS)),
            Some(slot) => (self.accepting.count, slot),
            None if self.bound.contains(&key) => {
                self.steering
                    .unbind(network.address(), network.bits(), port)?;
                self.bound.remove(&key);
                return Ok(());
            }
            None => return Ok(()),
        };
        let binding = Binding {
            first: self.accepting.first(network.address()),
            sockets,
            slot,
            prefix: u32::from(network.bits()),
        };
        self.steering
            .bind(network.address(), network.bits(), port, binding)?;
        self.bound.insert(key);
        Ok(())
    }

    /// The same for each port of a place.
    fn settle_all(&mut self, place: Place) -> Result<(), SteerError> {
        let settled = place
            .parts()
            .map(key)
            .try_for_each(|(network, port)| self.settle(network, port));
        settled.map_err(|error| SteerError {
            place,
            op: "steering",
            source: io::Error::other(telemetry::chain(&error)),
        })
    }

    /// Makes a place ours, or says who has it.
    fn take(&mut self, place: Place, others: &[Listening]) -> Result<(), SteerError> {
        // Where an earlier process was before others came, they have theirs and we the rest.
        let ours = self.adopted_slot(place).is_some();
        let open = self.is_open(&place);
        if open && place.ports != Ports::All && !ours {
            let taken = others.iter().find(|other| other.takes_of(&place));
            if let Some(other) = taken {
                let text = format!(
                    "Address already in use by another program at {}",
                    other.addr
                );
                return Err(SteerError {
                    place: place.at(other.addr.port()),
                    op: "binding",
                    source: io::Error::new(io::ErrorKind::AddrInUse, text),
                });
            }
        }
        let mut taken = Vec::new();
        let ports = self.reservations.is_some().then(|| place.ports.each());
        for port in ports.into_iter().flatten() {
            // Of a prefix, the first address stands for it: who wants all addresses, or the same
            // prefix, is told then.
            let addr = SocketAddr::new(place.network.address(), port);
            let reserved = self.reservations.as_mut().map(|ours| ours.take(addr));
            match reserved.unwrap_or(Ok(())) {
                Ok(()) => taken.push(addr),
                Err(error) if open && error.source.kind() == io::ErrorKind::AddrNotAvailable => {
                    break;
                }
                Err(error) => {
                    self.give_back(taken);
                    return Err(error);
                }
            }
        }
        self.taken.insert(place, taken);
        if open {
            self.open.insert(place);
        }
        Ok(())
    }

    /// Whether others may come to listen at a place that is ours.
    fn is_open(&self, place: &Place) -> bool {
        self.reservations.is_none() || place.sockets().is_none()
    }

    fn give_back(&mut self, taken: Vec<SocketAddr>) {
        for addr in taken {
            self.reservations
                .iter_mut()
                .for_each(|ours| ours.give(addr));
        }
    }

    /// Gives a place back to whoever wants it.
    fn give(&mut self, place: Place) {
        let taken = self.taken.remove(&place);
        self.give_back(taken.unwrap_or_default());
        self.open.remove(&place);
    }

    /// Leaves to others what they listen on in the places that can not be taken from them.
    fn leave(&mut self, others: &[Listening]) {
        let mut left = self.left_before.clone();
        for place in &self.open {
            for other in others.iter().filter(|other| other.takes_of(place)) {
                let ip = other.addr.ip();
                let network = if ip.is_unspecified() {
                    place.network
                } else {
                    Network::of(ip)
                };
                left.insert((network, other.addr.port()));
            }
        }
        let before = std::mem::replace(&mut self.left, left);
        let changed: Vec<_> = self.left.symmetric_difference(&before).copied().collect();
        for (network, port) in changed {
            if self.left.contains(&(network, port)) {
                tracing::info!(%network, port, "left to another program, which listens there");
            }
            if let Err(error) = self.settle(network, port) {
                let error = telemetry::chain(&error);
                tracing::error!(%network, port, error, "leaving a port to another program");
            }
        }
    }

    /// Who listens, our accept sockets left out; nobody when that does not matter.
    fn others(&self, matters: bool) -> Vec<Listening> {
        if !matters {
            return Vec::new();
        }
        let found = listening_where(&self.asked).inspect_err(|error| {
            tracing::error!(%error, "looking for programs that listen");
        });
        let mut others = found.unwrap_or_default();
        others.retain(|other| !self.accepting.own(other.addr.ip(), other.addr.port()));
        others
    }

    /// Where an earlier process has counted connections to a place.
    fn adopted_slot(&self, place: Place) -> Option<u32> {
        let mut keys = place.parts().map(key);
        let of = |key| self.adopted.get(&key).copied();
        (!self.adopted.is_empty()).then(|| keys.find_map(of))?
    }

    /// The slot that a listener's connections are counted in, for a place more.
    fn take_slot(&mut self, owner: &Owner, place: Place) -> u32 {
        let (slot, fresh) = self.slots.take(&owner.name, self.adopted_slot(place));
        if fresh && let Err(error) = self.steering.counts().clear(slot) {
            tracing::warn!(error = telemetry::chain(&error), "counters of a listener");
        }
        slot
    }

    /// An owner, and a place that is to be its own: what has to be done in the kernel.
    fn begin(
        &mut self,
        place: Place,
        owner: Owner,
        before: Option<&Owner>,
        others: &[Listening],
    ) -> Result<Begun, SteerError> {
        let slot = owner.slot;
        if !self.owners.insert(place, owner) {
            return Err(SteerError {
                place,
                op: "binding",
                source: io::Error::new(io::ErrorKind::AddrInUse, DUPLICATE),
            });
        }
        if let Some(before) = before {
            // What changes its owner leads where it did.
            return Ok(match before.slot == slot {
                true => Begun::Same,
                false => Begun::Other,
            });
        }
        let taken = self.take(place, others);
        if taken.is_err() {
            self.owners.remove(place);
        } else if !self.adopted.is_empty() {
            for key in place.parts().map(key) {
                // Others may have some of its ports to themselves.
                if self.adopted.get(&key) == Some(&slot) {
                    self.adopted.remove(&key);
                }
            }
        }
        taken.map(|()| Begun::Other)
    }
}

/// How a place was begun.
#[derive(PartialEq, Eq)]
enum Begun {
    /// The kernel knows all of it.
    Same,
    /// The kernel is to be told.
    Other,
}

impl Steer for Kernel {
    fn apply(&mut self, end: &[Place], begin: Vec<(Place, Owner)>) -> Vec<Result<(), SteerError>> {
        let mut ending: HashSet<Place> = end.iter().copied().collect();
        let before = ending.iter();
        let before = before.filter_map(|place| Some((*place, self.owners.remove(*place)?)));
        let before: HashMap<Place, Owner> = before.collect();
        let others = self.others(begin.iter().any(|(place, _)| self.is_open(place)));
        let mut results = Vec::with_capacity(begin.len());
        let mut beginning = Vec::new();
        let mut unnamed = Vec::new();
        for (n, (place, mut owner)) in begin.into_iter().enumerate() {
            let name = owner.name.clone();
            owner.slot = self.take_slot(&owner, place);
            let moved = before.get(&place).filter(|_| ending.contains(&place));
            let begun = self.begin(place, owner, moved, &others);
            match &begun {
                Ok(Begun::Same) => drop(ending.remove(&place)),
                Ok(Begun::Other) => {
                    ending.remove(&place);
                    beginning.push((n, place, name));
                }
                Err(_) => unnamed.push(name),
            }
            results.push(begun.map(drop));
        }
        // Before workers forget who had them: what comes from now on is refused, or goes where it
        // will from now on.
        for place in &ending {
            if let Err(error) = self.settle_all(*place) {
                tracing::error!(error = telemetry::chain(&error), "ending a binding");
            }
        }
        self.table.store(self.owners.clone());
        if beginning.iter().any(|(_, place, _)| self.is_open(place)) {
            self.leave(&others);
        }
        let mut failed = Vec::new();
        for (n, place, name) in beginning {
            if let Err(error) = self.settle_all(place) {
                results[n] = Err(error);
                failed.push(place);
                unnamed.push(name);
            }
        }
        for place in &failed {
            self.owners.remove(*place);
            if let Err(error) = self.settle_all(*place) {
                tracing::error!(error = telemetry::chain(&error), "taking back a binding");
            }
        }
        if !failed.is_empty() {
            self.table.store(self.owners.clone());
        }
        for place in ending.into_iter().chain(failed) {
            self.give(place);
        }
        // Last, so that a listener that is changed goes on with its own.
        let names = before.values().map(|owner| &owner.name);
        names.chain(&unnamed).for_each(|name| self.slots.give(name));
        results
    }

    fn look(&mut self) {
        if !self.open.is_empty() || !self.left.is_empty() {
            let others = self.others(true);
            self.leave(&others);
        }
    }

    fn adopted(&self) -> Vec<Place> {
        let bound = self.adopted.keys().copied().map(part);
        let reserved = self.reservations.iter();
        let reserved = reserved.flat_map(|ours| ours.adopted().map(Place::from));
        let mut all: Vec<_> = bound.chain(reserved).collect();
        all.sort();
        all.dedup();
        all
    }

    fn end_adopted(&mut self) {
        for (network, port) in std::mem::take(&mut self.adopted).into_keys() {
            let place = part((network, port));
            if let Err(error) = self.settle(network, port) {
                let error = telemetry::chain(&error);
                tracing::error!(%place, error, "ending a binding");
            } else if !self.bound.contains(&(network, port)) {
                tracing::info!(%place, "an earlier process's binding has ended");
            }
        }
        self.left_before.clear();
        self.look();
        self.slots.settle();
        self.reservations.iter_mut().for_each(Reservations::settle);
        if let Err(error) = self.steering.settle() {
            tracing::warn!(
                error = telemetry::chain(&error),
                "removing what was replaced"
            );
        }
    }

    fn end(&mut self) {
        if let Err(error) = self.steering.end() {
            tracing::warn!(error = telemetry::chain(&error), "removing what is pinned");
        }
        self.owners = Owners::default();
        self.adopted.clear();
        self.left.clear();
        self.left_before.clear();
        self.open.clear();
        self.taken.clear();
        // What was not pinned is attached for as long as this process lives.
        for (network, port) in std::mem::take(&mut self.bound) {
            let unbound = self
                .steering
                .unbind(network.address(), network.bits(), port);
            if let Err(error) = unbound {
                tracing::error!(error = telemetry::chain(&error), "ending a binding");
            }
        }
        self.table.store(Owners::default());
        self.reservations.iter_mut().for_each(Reservations::clear);
        self.accepting.forget();
        self.keeper.forget(LOCK);
    }
}
