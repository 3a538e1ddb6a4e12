//! Steering by the kernel: the accept sockets that all listeners share, and the bindings that lead
//! to them.
//!
//! Order is what keeps connections from going astray. A binding begins when its address is ours and
//! workers know its owner, and ends before workers forget the owner and others can have the address.

use super::{
    Meter, NotSteered, Steer, SteerError, Steered, Totals,
    bpf::{BpfError, Counts, Steering},
    listening::{Listening, listening},
    place::{Network, Place, Ports},
    plain::BACKLOG,
    reserve::Reservations,
    table::{Owner, Owners, Table},
};
use crate::{sys, telemetry};
use skupper_ebpf::{ALL_PORTS, Binding, LEFT_ALONE, UNBOUND};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsFd,
    sync::Arc,
};

/// What the kernel says of an address that is taken, and by whom.
const DUPLICATE: &str = "Address already in use by another listener";

/// Slot of the counters of all listeners.
const LISTENERS: u32 = 1;
/// Slot of the accept sockets' own addresses, where nobody is expected.
const OWN: u32 = 2;

/// Sends connections to the accept sockets.
struct Kernel {
    steering: Steering,
    reservations: Reservations,
    owners: Owners,
    table: Arc<Table>,
    workers: u32,
    /// The accept sockets' own addresses.
    own: HashSet<SocketAddr>,
    /// What is reserved for each place.
    taken: HashMap<Place, Vec<SocketAddr>>,
    /// Places that others may come to listen at.
    open: BTreeSet<Place>,
    /// What is left to others there.
    left: HashSet<(Network, u16)>,
    /// What the kernel knows of.
    bound: HashSet<(Network, u16)>,
}

/// Loads the program and makes an accept socket of each family for each worker.
pub(super) fn start(workers: usize) -> Result<Steered, NotSteered> {
    let missing = sys::missing_for_bpf()?;
    if !missing.is_empty() {
        return Err(NotSteered::Missing(missing.join(", ")));
    }
    // Not /proc/self: that is the main thread's.
    let netns = File::open("/proc/thread-self/ns/net")?;
    let mut steering = Steering::load(netns.as_fd())?;
    let count = u32::try_from(workers).map_err(io::Error::other)?;
    let mut sockets: Vec<Vec<TcpListener>> = Vec::new();
    for worker in 0..count {
        let mut of_worker = Vec::new();
        let v4 = accept_socket(&mut steering, Ipv4Addr::LOCALHOST.into())?;
        steering.set_socket(worker, &v4)?;
        of_worker.push(v4);
        // A host without IPv6 has no connections of it.
        if let Ok(v6) = accept_socket(&mut steering, Ipv6Addr::LOCALHOST.into()) {
            steering.set_socket(count + worker, &v6)?;
            of_worker.push(v6);
        }
        sockets.push(of_worker);
    }
    let table = Arc::new(Table::default());
    let meter = meter(steering.counts());
    let own = sockets.iter().flatten().map(TcpListener::local_addr);
    let own = own.collect::<io::Result<_>>()?;
    let steer = Box::new(Kernel {
        own,
        taken: HashMap::new(),
        open: BTreeSet::new(),
        left: HashSet::new(),
        bound: HashSet::new(),
        steering,
        reservations: Reservations::default(),
        owners: Owners::default(),
        table: table.clone(),
        workers: count,
    });
    Ok(Steered {
        steer,
        table,
        sockets,
        meter,
    })
}

/// A listening socket that nobody reaches by its own address.
fn accept_socket(steering: &mut Steering, host: IpAddr) -> Result<TcpListener, NotSteered> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let domain = Domain::for_address((host, 0).into());
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    // Connections have the ports of listeners: what is left of them is no conflict to the next that
    // wants one. They inherit this and the other options.
    socket.set_reuse_address(true)?;
    sys::prepare((&socket).into())?;
    if host.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(host, 0).into())?;
    let own = socket.local_addr()?.as_socket();
    let own = own.ok_or_else(|| io::Error::other("a socket without an address"))?;
    let nobody = Binding {
        first: 0,
        sockets: 0,
        slot: OWN,
        prefix: 0,
    };
    let network = Network::of(own.ip());
    steering.bind(network.address(), network.bits(), own.port(), nobody)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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

impl Kernel {
    /// Has the kernel do with a port of these addresses what their owner, or nobody, wants.
    fn settle(&mut self, network: Network, port: u16) -> Result<(), BpfError> {
        let key = (network, port);
        let owner = match port {
            ALL_PORTS => self.owners.of_all(network),
            port => self.owners.of_port(network, port),
        };
        let sockets = match owner {
            _ if self.left.contains(&key) => LEFT_ALONE,
            Some(_) => self.workers,
            None if self.bound.contains(&key) => {
                self.steering
                    .unbind(network.address(), network.bits(), port)?;
                self.bound.remove(&key);
                return Ok(());
            }
            None => return Ok(()),
        };
        let v4 = network.address().is_ipv4();
        let binding = Binding {
            first: if v4 { 0 } else { self.workers },
            sockets,
            slot: LISTENERS,
            prefix: u32::from(network.bits()),
        };
        self.steering
            .bind(network.address(), network.bits(), port, binding)?;
        self.bound.insert(key);
        Ok(())
    }

    /// The same for each port of a place.
    fn settle_all(&mut self, place: Place) -> Result<(), SteerError> {
        let settled = if place.ports == Ports::All {
            self.settle(place.network, ALL_PORTS)
        } else {
            let mut ports = place.ports.each();
            ports.try_for_each(|port| self.settle(place.network, port))
        };
        settled.map_err(|error| SteerError {
            place,
            op: "steering",
            source: io::Error::other(telemetry::chain(&error)),
        })
    }

    /// Makes a place ours, or says who has it.
    fn take(&mut self, place: Place, others: &[Listening]) -> Result<(), SteerError> {
        if is_open(&place) && place.ports != Ports::All {
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
        for port in place.ports.each() {
            // Of a prefix, the first address stands for it: who wants all addresses, or the same
            // prefix, is told then.
            let addr = SocketAddr::new(place.network.address(), port);
            match self.reservations.take(addr) {
                Ok(()) => taken.push(addr),
                Err(error)
                    if is_open(&place)
                        && error.source.kind() == io::ErrorKind::AddrNotAvailable =>
                {
                    break;
                }
                Err(error) => {
                    for addr in taken {
                        self.reservations.give(addr);
                    }
                    return Err(error);
                }
            }
        }
        self.taken.insert(place, taken);
        if is_open(&place) {
            self.open.insert(place);
        }
        Ok(())
    }

    /// Gives a place back to whoever wants it.
    fn give(&mut self, place: Place) {
        for addr in self.taken.remove(&place).into_iter().flatten() {
            self.reservations.give(addr);
        }
        self.open.remove(&place);
    }

    /// Leaves to others what they listen on in the places that can not be taken from them.
    fn leave(&mut self, others: &[Listening]) {
        let mut left = HashSet::new();
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
        let found = listening().inspect_err(|error| {
            tracing::error!(%error, "looking for programs that listen");
        });
        let mut others = found.unwrap_or_default();
        others.retain(|other| !self.own.contains(&other.addr));
        others
    }
}

/// Whether others may come to listen at a place that is ours.
fn is_open(place: &Place) -> bool {
    place.sockets().is_none()
}

impl Steer for Kernel {
    fn apply(&mut self, end: &[Place], begin: Vec<(Place, Owner)>) -> Vec<Result<(), SteerError>> {
        let mut ending: HashSet<Place> = end.iter().copied().collect();
        for place in &ending {
            self.owners.remove(*place);
        }
        let others = self.others(begin.iter().any(|(place, _)| is_open(place)));
        let mut results = Vec::with_capacity(begin.len());
        let mut beginning = Vec::new();
        for (n, (place, owner)) in begin.into_iter().enumerate() {
            let taken = if !self.owners.insert(place, owner) {
                Err(SteerError {
                    place,
                    op: "binding",
                    source: io::Error::new(io::ErrorKind::AddrInUse, DUPLICATE),
                })
            } else if ending.remove(&place) {
                // What changes its owner stays as it is in the kernel.
                Ok(())
            } else {
                let taken = self.take(place, &others);
                match &taken {
                    Ok(()) => beginning.push((n, place)),
                    Err(_) => self.owners.remove(place),
                }
                taken
            };
            results.push(taken);
        }
        // Before workers forget who had them: what comes from now on is refused, or goes where it
        // will from now on.
        for place in &ending {
            if let Err(error) = self.settle_all(*place) {
                tracing::error!(error = telemetry::chain(&error), "ending a binding");
            }
        }
        self.table.store(self.owners.clone());
        if beginning.iter().any(|(_, place)| is_open(place)) {
            self.leave(&others);
        }
        let mut failed = Vec::new();
        for (n, place) in beginning {
            if let Err(error) = self.settle_all(place) {
                results[n] = Err(error);
                failed.push(place);
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
        results
    }

    fn look(&mut self) {
        if !self.open.is_empty() || !self.left.is_empty() {
            let others = self.others(true);
            self.leave(&others);
        }
    }
}
