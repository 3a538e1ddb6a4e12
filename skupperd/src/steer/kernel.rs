//! Steering by the kernel: the accept sockets that all listeners share, and the bindings that lead
//! to them.
//!
//! Order is what keeps connections from going astray. A binding begins when its address is ours and
//! workers know its owner, and ends before workers forget the owner and others can have the address.

use super::{
    Bound, Kept, Lister, Listing, Meter, NotSteered, Steer, SteerError, Steered, Totals,
    accepting::Accepting,
    bpf::{BpfError, Counts, Found, Steering},
    pins::{Home, PinError},
    reserve::Reservations,
    table::{Owner, Owners, Place, Table},
};
use crate::{
    sys::{self, Keeper},
    telemetry,
};
use skupper_ebpf::{Binding, FIRST, LISTENERS, MAX_BINDINGS, OWN, UNBOUND};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

/// What the kernel says of an address that is taken, and by whom.
const DUPLICATE: &str = "Address already in use by another listener";

/// Name of the descriptor that the lock on the pins is on.
const LOCK: &str = "pins";

/// Sends connections to the accept sockets.
struct Kernel {
    steering: Steering,
    reservations: Reservations,
    owners: Owners,
    table: Arc<Table>,
    accepting: Accepting,
    /// Bindings of an earlier process that nobody has wanted yet, and where they are counted.
    adopted: HashMap<Place, u32>,
    slots: Slots,
    keeper: Keeper,
}

/// Slots of counters that listeners may have.
struct Slots {
    next: u32,
    free: Vec<u32>,
}

impl Slots {
    /// Beyond those that are in use.
    fn beyond(used: impl Iterator<Item = u32>) -> Self {
        let next = used.map(|slot| slot + 1).max().unwrap_or(FIRST).max(FIRST);
        let free = Vec::new();
        Self { next, free }
    }

    fn take(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        // There are as many as bindings: who finds none has no room for a binding either.
        let slot = self.next.min(MAX_BINDINGS - 1);
        self.next = slot + 1;
        slot
    }
}

/// Loads the program and makes an accept socket of each family for each worker, or goes on with what
/// an earlier process has left.
pub(super) fn start(workers: usize, kept: &Kept) -> Result<Steered, NotSteered> {
    let missing = sys::missing_for_bpf()?;
    if !missing.is_empty() {
        return Err(NotSteered::Missing(missing.join(", ")));
    }
    // Not /proc/self: that is the main thread's.
    let netns = File::open("/proc/thread-self/ns/net")?;
    let (mut steering, not_kept) = open(netns.as_fd(), kept)?;
    let count = u32::try_from(workers).map_err(io::Error::other)?;
    let mut accepting = Accepting::new(count, kept, &mut steering)?;
    let sockets = std::mem::take(&mut accepting.of_workers);
    let adopted = adopt(&mut steering, &accepting)?;
    let beside = sockets.iter().flatten().next();
    let beside = beside.ok_or_else(|| io::Error::other("no accept socket"))?;
    let reservations = Reservations::adopt(&kept.descriptors, kept.keeper.clone(), beside.as_fd());
    let table = Arc::new(Table::default());
    let meter = meter(steering.counts());
    let listing = lister(steering.counts(), &table, &accepting, not_kept.as_ref());
    let steer = Box::new(Kernel {
        slots: Slots::beyond(adopted.values().copied()),
        steering,
        reservations,
        owners: Owners::default(),
        table: table.clone(),
        accepting,
        adopted,
        keeper: kept.keeper.clone(),
    });
    Ok(Steered {
        steer,
        table,
        sockets,
        meter,
        listing,
        not_kept,
    })
}

/// Loads the program, pinned where somebody keeps the accept sockets too. Else says why it is not.
fn open(netns: BorrowedFd<'_>, kept: &Kept) -> Result<(Steering, Option<String>), BpfError> {
    let plain = |why: String| Ok((Steering::load(netns)?, Some(why)));
    if !kept.keeper.keeps() {
        return plain("no service manager keeps its sockets".to_owned());
    }
    let lock = kept.descriptors.take(|name| name == LOCK).pop();
    let opened = Home::open(&kept.home).and_then(|home| {
        let opened = Steering::open(netns, &home, &kept.instance, lock.map(|(_, fd)| fd))?;
        for dir in home.sweep()? {
            tracing::info!(dir = %dir.display(), "what a dead instance has left is removed");
        }
        Ok(opened)
    });
    let (steering, found) = match opened {
        Ok(opened) => opened,
        Err(PinError::Bpf(error)) => return Err(error),
        Err(error) => return plain(telemetry::chain(&error)),
    };
    match found {
        Found::Nothing => {}
        Found::Same => tracing::info!("the program of an earlier process goes on"),
        Found::OtherProgram => {
            tracing::info!("the program of an earlier version is replaced, its bindings go on");
        }
        Found::Other => {
            tracing::info!("what an earlier version has pinned is of another layout: all is new");
        }
    }
    if matches!(found, Found::Nothing | Found::Other) {
        kept.keeper.forget(LOCK);
    }
    if let Some(lock) = steering.lock()
        && let Err(error) = kept.keeper.keep(LOCK, lock)
    {
        tracing::warn!(%error, "the lock on what is pinned ends with this process");
    }
    Ok((steering, None))
}

/// Bindings that an earlier process has left; those that can lead nowhere are ended.
fn adopt(steering: &mut Steering, accepting: &Accepting) -> Result<HashMap<Place, u32>, BpfError> {
    let waiting = accepting.listing.iter().any(|socket| socket.adopted);
    let mut adopted = HashMap::new();
    for (address, prefix, port, binding) in steering.bindings()? {
        if accepting.own(address, port) && binding.slot == OWN {
            continue;
        }
        if waiting && binding.slot >= FIRST && prefix == self::prefix(address) {
            adopted.insert((address, port), binding.slot);
        } else {
            steering.unbind(address, prefix, port)?;
        }
    }
    Ok(adopted)
}

/// Removes what an earlier process of this daemon has pinned.
pub(super) fn discard(kept: &Kept) {
    let lock = kept.descriptors.take(|name| name == LOCK).pop();
    let locked = lock.is_some();
    let removed = Home::open(&kept.home)
        .and_then(|home| home.discard(&kept.instance, lock.map(|(_, fd)| fd)));
    if locked && let Err(error) = removed {
        tracing::warn!(error = telemetry::chain(&error), "removing what is pinned");
    }
    kept.keeper.forget(LOCK);
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Bits of a listener's address that count: none of the address that stands for all.
fn prefix(address: IpAddr) -> u8 {
    if address.is_unspecified() {
        0
    } else {
        bits(address)
    }
}

fn meter(counts: Arc<Counts>) -> Meter {
    Arc::new(move || {
        let read = || {
            let ours = counts.of(LISTENERS)?;
            let own = counts.of(OWN)?;
            Ok(Totals {
                hits: ours.steered,
                misses: counts.of(UNBOUND)?.passed,
                refused: ours.refused + own.refused,
            })
        };
        let failed = |error: &BpfError| {
            tracing::warn!(error = telemetry::chain(error), "steering");
        };
        read().inspect_err(failed).ok()
    })
}

fn lister(
    counts: Arc<Counts>,
    table: &Arc<Table>,
    accepting: &Accepting,
    not_kept: Option<&String>,
) -> Lister {
    let table = table.clone();
    let empty = Listing {
        enabled: true,
        reason: None,
        kept: not_kept.is_none(),
        kept_reason: not_kept.cloned(),
        bindings: Vec::new(),
        sockets: accepting.listing.clone(),
    };
    Arc::new(move || {
        let bound = |(place, owner): (&Place, &Owner)| {
            let counters = counts.of(owner.slot).unwrap_or_default();
            let (namespace, listener) = (*owner.name).clone();
            Bound {
                address: place.0,
                prefix: prefix(place.0),
                port: place.1,
                namespace,
                listener,
                routing_key: owner.routing_key.to_string(),
                steered: counters.steered,
                refused: counters.refused,
            }
        };
        let mut bindings: Vec<_> = table.all().iter().map(bound).collect();
        bindings.sort_by_key(|b| (b.address, b.port));
        Listing {
            bindings,
            ..empty.clone()
        }
    })
}

impl Kernel {
    fn bind(&mut self, addr: SocketAddr, slot: u32) -> Result<(), SteerError> {
        let binding = Binding {
            first: self.accepting.first(addr),
            sockets: self.accepting.count,
            slot,
        };
        self.steering
            .bind(addr.ip(), prefix(addr.ip()), addr.port(), binding)
            .map_err(|error| SteerError {
                addr,
                op: "steering",
                source: io::Error::other(telemetry::chain(&error)),
            })
    }

    fn unbind(&mut self, addr: SocketAddr) {
        let (ip, port) = (addr.ip(), addr.port());
        let ended = self.steering.unbind(ip, prefix(ip), port);
        if let Err(error) = ended {
            tracing::error!(%addr, error = telemetry::chain(&error), "ending a binding");
        }
    }
}

impl Steer for Kernel {
    fn apply(
        &mut self,
        end: &[SocketAddr],
        begin: Vec<(SocketAddr, Owner)>,
    ) -> Vec<Result<(), SteerError>> {
        let mut ending: HashSet<SocketAddr> = end.iter().copied().collect();
        let mut results = Vec::with_capacity(begin.len());
        let mut beginning = Vec::new();
        for (n, (addr, mut owner)) in begin.into_iter().enumerate() {
            let place = (addr.ip(), addr.port());
            // What changes its owner stays as it is in the kernel.
            let moved = ending.remove(&addr);
            let taken = match self.owners.get(&place).map(|owner| owner.slot) {
                Some(slot) if moved => Ok(slot),
                Some(_) => Err(SteerError {
                    addr,
                    op: "binding",
                    source: io::Error::new(io::ErrorKind::AddrInUse, DUPLICATE),
                }),
                None => self.reservations.take(addr).map(|()| {
                    // One that was adopted goes on counting.
                    let slot = self.adopted.remove(&place);
                    let slot = slot.unwrap_or_else(|| self.fresh_slot());
                    beginning.push((n, addr, slot));
                    slot
                }),
            };
            results.push(taken.map(|slot| {
                owner.slot = slot;
                self.owners.insert(place, owner);
            }));
        }
        self.table.store(self.owners.clone());
        let mut over = Vec::new();
        for (n, addr, slot) in beginning {
            if let Err(error) = self.bind(addr, slot) {
                results[n] = Err(error);
                over.push(addr);
            }
        }
        for addr in ending {
            self.unbind(addr);
            over.push(addr);
        }
        if !over.is_empty() {
            for addr in over {
                if let Some(owner) = self.owners.remove(&(addr.ip(), addr.port())) {
                    self.slots.free.push(owner.slot);
                }
                self.reservations.give(addr);
            }
            self.table.store(self.owners.clone());
        }
        results
    }

    fn adopted(&self) -> Vec<SocketAddr> {
        let bound = self.adopted.keys().map(|place| SocketAddr::from(*place));
        let mut all: Vec<_> = bound.chain(self.reservations.adopted()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn settle(&mut self) {
        for (place, slot) in std::mem::take(&mut self.adopted) {
            tracing::info!(addr = %SocketAddr::from(place), "an earlier process's binding ends");
            self.unbind(place.into());
            self.slots.free.push(slot);
        }
        self.reservations.settle();
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
        // What was not pinned is attached for as long as this process lives.
        for place in std::mem::take(&mut self.owners).into_keys() {
            self.unbind(place.into());
        }
        self.table.store(Owners::default());
        self.reservations.clear();
        self.accepting.forget();
        self.keeper.forget(LOCK);
    }
}

impl Kernel {
    fn fresh_slot(&mut self) -> u32 {
        let slot = self.slots.take();
        if let Err(error) = self.steering.counts().clear(slot) {
            tracing::warn!(error = telemetry::chain(&error), "counters of a listener");
        }
        slot
    }
}
