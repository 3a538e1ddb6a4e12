//! Starts steering, and adopts what the previous process left.

use super::{KernelSteer, LOCK};
use crate::{
    netlink::socket::{Netlink, NetlinkFamily},
    steer::{
        ActiveSteering, ListBindings, Listing, NetnsDescriptors, ReadTotals, SteeredAddress,
        SteeringHandover, SteeringTotals, SteeringUnavailable,
        accept_sockets::AcceptSockets,
        bind_range::{BindRange, Network},
        bpf::{BpfError, Counts, PinState, Steering},
        pins::{PinError, PinRoot},
        reserve::Reservations,
        slots::Slots,
        table::{Owner, OwnerTable, Owners},
    },
    sys::{self, DescriptorStore},
    telemetry::{self, Failures},
};
use skupper_ebpf::{FIRST, LEFT_ALONE, LISTENERS, OWN, UNBOUND};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

/// Loads the program and creates an accept socket per family and worker, or adopts those of the
/// previous process.
pub(in crate::steer) fn start(
    workers: usize,
    handover: &SteeringHandover,
) -> Result<ActiveSteering, SteeringUnavailable> {
    let missing = sys::missing_for_bpf()?;
    if !missing.is_empty() {
        return Err(SteeringUnavailable::Missing(missing.join(", ")));
    }
    // /proc/self would be the main thread.
    let netns = File::open("/proc/thread-self/ns/net")?;
    let (mut steering, not_kept) = open(netns.as_fd(), handover)?;
    let count = u32::try_from(workers).map_err(io::Error::other)?;
    let mut accept_sockets = AcceptSockets::new(count, handover, &mut steering)?;
    let sockets = std::mem::take(&mut accept_sockets.of_workers);
    let AdoptedBindings { bound, yielded } = adopt(&mut steering, &accept_sockets)?;
    let beside = sockets.iter().flatten().next();
    let beside = beside.ok_or_else(|| io::Error::other("no accept socket"))?;
    let reservations = Reservations::adopt(
        &handover.descriptors,
        handover.descriptor_store.clone(),
        beside.as_fd(),
    );
    let table = Arc::new(OwnerTable::default());
    let meter = meter(steering.counts());
    let listing = lister(
        steering.counts(),
        &table,
        &accept_sockets,
        not_kept.as_ref(),
    );
    let steer = Box::new(KernelSteer {
        slots: Slots::excluding(bound.values().copied()),
        reserved: HashMap::new(),
        open: BTreeSet::new(),
        bound: bound.keys().chain(&yielded).copied().collect(),
        adopted: bound,
        yielded: yielded.clone(),
        yielded_before: yielded,
        steering,
        reservations: Some(reservations),
        netlink: Netlink::open(NetlinkFamily::Sockets)?,
        owners: Owners::default(),
        table: table.clone(),
        accept_sockets,
        descriptor_store: handover.descriptor_store.clone(),
    });
    Ok(ActiveSteering {
        steer,
        table,
        sockets,
        meter,
        listing,
        not_kept,
    })
}

/// Like [`start`] for another network namespace. Nothing is stored or reserved: programs that
/// listen there take precedence.
pub(in crate::steer) fn start_in_netns(
    workers: usize,
    NetnsDescriptors {
        netns,
        netlink,
        sockets,
    }: NetnsDescriptors,
) -> Result<ActiveSteering, SteeringUnavailable> {
    let mut steering = Steering::load_small(netns.as_fd())?;
    let count = u32::try_from(workers).map_err(io::Error::other)?;
    let mut accept_sockets = AcceptSockets::in_netns(sockets, count, &mut steering)?;
    let sockets = std::mem::take(&mut accept_sockets.of_workers);
    let table = Arc::new(OwnerTable::default());
    let not_kept = Some("it is in another network namespace".to_owned());
    Ok(ActiveSteering {
        meter: meter(steering.counts()),
        listing: lister(
            steering.counts(),
            &table,
            &accept_sockets,
            not_kept.as_ref(),
        ),
        table: table.clone(),
        steer: Box::new(KernelSteer {
            steering,
            reservations: None,
            netlink,
            owners: Owners::default(),
            table,
            accept_sockets,
            adopted: HashMap::new(),
            slots: Slots::none(),
            descriptor_store: DescriptorStore::default(),
            reserved: HashMap::new(),
            open: BTreeSet::new(),
            yielded: HashSet::new(),
            yielded_before: HashSet::new(),
            bound: HashSet::new(),
        }),
        sockets,
        not_kept,
    })
}

/// Bindings of the previous process.
struct AdoptedBindings {
    /// Bindings of listeners, with their slots.
    bound: HashMap<(Network, u16), u32>,
    /// Bindings that leave connections to other programs.
    yielded: HashSet<(Network, u16)>,
}

/// Loads the program, and pins it if the accept sockets are stored too. Otherwise returns why not.
fn open(
    netns: BorrowedFd<'_>,
    handover: &SteeringHandover,
) -> Result<(Steering, Option<String>), BpfError> {
    let plain = |reason: String| Ok((Steering::load(netns)?, Some(reason)));
    if !handover.descriptor_store.is_available() {
        return plain("no service manager keeps its sockets".to_owned());
    }
    let lock = handover.descriptors.take(|name| name == LOCK).pop();
    let opened = PinRoot::open(&handover.home).and_then(|home| {
        let opened = Steering::open(netns, &home, &handover.instance, lock.map(|(_, fd)| fd))?;
        for dir in home.sweep()? {
            tracing::info!(dir = %dir.display(), "removed pins of dead instance");
        }
        Ok(opened)
    });
    let (steering, found) = match opened {
        Ok(opened) => opened,
        Err(PinError::Bpf(error)) => return Err(error),
        Err(error) => return plain(telemetry::chain(&error)),
    };
    match found {
        PinState::Nothing => {}
        PinState::Same => tracing::info!("adopted programs of previous process"),
        PinState::OtherProgram => {
            tracing::info!("replaced programs of earlier version; bindings stay");
        }
        PinState::Other => {
            tracing::info!("replaced pins of incompatible version");
        }
    }
    if matches!(found, PinState::Nothing | PinState::Other) {
        handover.descriptor_store.remove(LOCK);
    }
    if let Some(lock) = steering.lock()
        && let Err(error) = handover.descriptor_store.store(LOCK, lock)
    {
        tracing::warn!(%error, "cannot store lock on pins; it is released at exit");
    }
    Ok((steering, None))
}

/// Adopts bindings, and ends those without an accept socket.
fn adopt(
    steering: &mut Steering,
    accept_sockets: &AcceptSockets,
) -> Result<AdoptedBindings, BpfError> {
    let waiting = accept_sockets.listing.iter().any(|socket| socket.adopted);
    let mut adopted = AdoptedBindings {
        bound: HashMap::new(),
        yielded: HashSet::new(),
    };
    for (address, prefix, port, binding) in steering.bindings()? {
        let key = (Network::containing(address, prefix), port);
        match binding {
            _ if binding.slot == OWN && accept_sockets.contains(address, port) => {}
            _ if !waiting || binding.slot == OWN => steering.unbind(address, prefix, port)?,
            _ if binding.sockets == LEFT_ALONE => drop(adopted.yielded.insert(key)),
            _ => drop(adopted.bound.insert(key, binding.slot)),
        }
    }
    Ok(adopted)
}

/// Removes the pins of a previous process.
pub(in crate::steer) fn discard(handover: &SteeringHandover) {
    let lock = handover.descriptors.take(|name| name == LOCK).pop();
    let locked = lock.is_some();
    let removed = PinRoot::open(&handover.home)
        .and_then(|home| home.discard(&handover.instance, lock.map(|(_, fd)| fd)));
    if locked && let Err(error) = removed {
        tracing::warn!(
            error = telemetry::chain(&error),
            "cannot remove pinned programs"
        );
    }
    handover.descriptor_store.remove(LOCK);
}

fn meter(counts: Arc<Counts>) -> ReadTotals {
    let failures = Failures::new();
    Arc::new(move || {
        let read = || {
            let ours = counts.of(LISTENERS)?;
            let own = counts.of(OWN)?;
            Ok(SteeringTotals {
                hits: ours.steered,
                misses: counts.of(UNBOUND)?.passed,
                refused: ours.refused + own.refused,
            })
        };
        let failed = |error: &BpfError| {
            if let Some(suppressed) = failures.count_and_report(Instant::now()) {
                let error = telemetry::chain(error);
                tracing::warn!(error, suppressed, "cannot read counters of steering");
            }
        };
        read().inspect_err(failed).ok()
    })
}

fn lister(
    counts: Arc<Counts>,
    table: &Arc<OwnerTable>,
    accept_sockets: &AcceptSockets,
    not_kept: Option<&String>,
) -> ListBindings {
    let table = table.clone();
    let empty = Listing {
        enabled: true,
        reason: None,
        kept: not_kept.is_none(),
        kept_reason: not_kept.cloned(),
        acceleration: None,
        bindings: Vec::new(),
        sockets: accept_sockets.listing.clone(),
    };
    Arc::new(move || {
        let bound = |(range, owner): (BindRange, &Owner)| {
            // Listeners on a shared slot have no counters of their own.
            let counters = (owner.slot >= FIRST).then(|| counts.of(owner.slot));
            let counters = counters.and_then(Result::ok).unwrap_or_default();
            let (namespace, listener) = (*owner.name).clone();
            SteeredAddress {
                address: range.network.address(),
                prefix: range.network.bits(),
                ports: range.ports.to_string(),
                namespace,
                listener,
                routing_key: owner.routing_key.to_string(),
                steered: counters.steered,
                refused: counters.refused,
            }
        };
        let owners = table.all();
        let mut all: Vec<_> = owners.iter().collect();
        all.sort_by_key(|(range, _)| *range);
        Listing {
            bindings: all.into_iter().map(bound).collect(),
            ..empty.clone()
        }
    })
}
