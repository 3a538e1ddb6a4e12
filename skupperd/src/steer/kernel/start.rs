//! How steering by the kernel begins: what an earlier process has left is taken up.

use super::{Kernel, LOCK};
use crate::{
    steer::{
        Bound, Kept, Lister, Listing, Meter, NotSteered, Steered, Totals,
        accepting::Accepting,
        bpf::{BpfError, Counts, Found, Steering},
        inside::Entrance,
        netlink::{About, Netlink},
        pins::{Home, PinError},
        place::{Network, Place},
        reserve::Reservations,
        slots::Slots,
        table::{Owner, Owners, Table},
    },
    sys::{self, Keeper},
    telemetry,
};
use skupper_ebpf::{FIRST, LEFT_ALONE, LISTENERS, OWN, UNBOUND};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

/// Loads the program and makes an accept socket of each family for each worker, or goes on with what
/// an earlier process has left.
pub(in crate::steer) fn start(workers: usize, kept: &Kept) -> Result<Steered, NotSteered> {
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
    let Adopted { bound, left } = adopt(&mut steering, &accepting)?;
    let beside = sockets.iter().flatten().next();
    let beside = beside.ok_or_else(|| io::Error::other("no accept socket"))?;
    let reservations = Reservations::adopt(&kept.descriptors, kept.keeper.clone(), beside.as_fd());
    let table = Arc::new(Table::default());
    let meter = meter(steering.counts());
    let listing = lister(steering.counts(), &table, &accepting, not_kept.as_ref());
    let steer = Box::new(Kernel {
        slots: Slots::beside(bound.values().copied()),
        taken: HashMap::new(),
        open: BTreeSet::new(),
        bound: bound.keys().chain(&left).copied().collect(),
        adopted: bound,
        left: left.clone(),
        left_before: left,
        steering,
        reservations: Some(reservations),
        asked: Netlink::open(About::Sockets)?,
        owners: Owners::default(),
        table: table.clone(),
        accepting,
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

/// The same for another network namespace. Nothing of it is kept, and nothing is reserved: whoever
/// listens in there goes before us.
pub(in crate::steer) fn inside(
    workers: usize,
    Entrance {
        netns,
        asked,
        sockets,
    }: Entrance,
) -> Result<Steered, NotSteered> {
    let mut steering = Steering::load_small(netns.as_fd())?;
    let count = u32::try_from(workers).map_err(io::Error::other)?;
    let mut accepting = Accepting::inside(sockets, count, &mut steering)?;
    let sockets = std::mem::take(&mut accepting.of_workers);
    let table = Arc::new(Table::default());
    let not_kept = Some("it is in another network namespace".to_owned());
    Ok(Steered {
        meter: meter(steering.counts()),
        listing: lister(steering.counts(), &table, &accepting, not_kept.as_ref()),
        table: table.clone(),
        steer: Box::new(Kernel {
            steering,
            reservations: None,
            asked,
            owners: Owners::default(),
            table,
            accepting,
            adopted: HashMap::new(),
            slots: Slots::none(),
            keeper: Keeper::default(),
            taken: HashMap::new(),
            open: BTreeSet::new(),
            left: HashSet::new(),
            left_before: HashSet::new(),
            bound: HashSet::new(),
        }),
        sockets,
        not_kept,
    })
}

/// Bindings that an earlier process has left.
struct Adopted {
    /// Those of listeners, and where they are counted.
    bound: HashMap<(Network, u16), u32>,
    /// Those that leave connections to other programs.
    left: HashSet<(Network, u16)>,
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

/// Takes up bindings; those that can lead nowhere are ended.
fn adopt(steering: &mut Steering, accepting: &Accepting) -> Result<Adopted, BpfError> {
    let waiting = accepting.listing.iter().any(|socket| socket.adopted);
    let mut adopted = Adopted {
        bound: HashMap::new(),
        left: HashSet::new(),
    };
    for (address, prefix, port, binding) in steering.bindings()? {
        let key = (Network::around(address, prefix), port);
        match binding {
            _ if binding.slot == OWN && accepting.own(address, port) => {}
            _ if !waiting || binding.slot == OWN => steering.unbind(address, prefix, port)?,
            _ if binding.sockets == LEFT_ALONE => drop(adopted.left.insert(key)),
            _ => drop(adopted.bound.insert(key, binding.slot)),
        }
    }
    Ok(adopted)
}

/// Removes what an earlier process of this daemon has pinned.
pub(in crate::steer) fn discard(kept: &Kept) {
    let lock = kept.descriptors.take(|name| name == LOCK).pop();
    let locked = lock.is_some();
    let removed = Home::open(&kept.home)
        .and_then(|home| home.discard(&kept.instance, lock.map(|(_, fd)| fd)));
    if locked && let Err(error) = removed {
        tracing::warn!(error = telemetry::chain(&error), "removing what is pinned");
    }
    kept.keeper.forget(LOCK);
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
        acceleration: None,
        bindings: Vec::new(),
        sockets: accepting.listing.clone(),
    };
    Arc::new(move || {
        let bound = |(place, owner): (Place, &Owner)| {
            // Of what is counted with all others nothing is known.
            let counters = (owner.slot >= FIRST).then(|| counts.of(owner.slot));
            let counters = counters.and_then(Result::ok).unwrap_or_default();
            let (namespace, listener) = (*owner.name).clone();
            Bound {
                address: place.network.address(),
                prefix: place.network.bits(),
                ports: place.ports.to_string(),
                namespace,
                listener,
                routing_key: owner.routing_key.to_string(),
                steered: counters.steered,
                refused: counters.refused,
            }
        };
        let owners = table.all();
        let mut all: Vec<_> = owners.iter().collect();
        all.sort_by_key(|(place, _)| *place);
        Listing {
            bindings: all.into_iter().map(bound).collect(),
            ..empty.clone()
        }
    })
}
