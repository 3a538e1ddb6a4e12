//! Steering by the kernel: the accept sockets that all listeners share, and the bindings that lead
//! to them.
//!
//! Order is what keeps connections from going astray. A binding begins when its address is ours and
//! workers know its owner, and ends before workers forget the owner and others can have the address.

use super::{
    Meter, NotSteered, Steer, SteerError, Steered, Totals,
    bpf::{Counts, Steering},
    plain::BACKLOG,
    reserve::Reservations,
    table::{Owner, Owners, Table},
};
use crate::{sys, telemetry};
use skupper_ebpf::{Binding, UNBOUND};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashSet,
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
    let steer = Box::new(Kernel {
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
    };
    steering.bind(own.ip(), bits(own.ip()), own.port(), nobody)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
        let failed = |error: &super::bpf::BpfError| {
            tracing::warn!(error = telemetry::chain(error), "steering");
        };
        read().inspect_err(failed).ok()
    })
}

impl Kernel {
    fn bind(&mut self, addr: SocketAddr) -> Result<(), SteerError> {
        let first = if addr.is_ipv4() { 0 } else { self.workers };
        let binding = Binding {
            first,
            sockets: self.workers,
            slot: LISTENERS,
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
        for (n, (addr, owner)) in begin.into_iter().enumerate() {
            let place = (addr.ip(), addr.port());
            // What changes its owner stays as it is in the kernel.
            let moved = ending.remove(&addr);
            let taken = match self.owners.contains_key(&place) {
                true if moved => Ok(()),
                true => Err(SteerError {
                    addr,
                    op: "binding",
                    source: io::Error::new(io::ErrorKind::AddrInUse, DUPLICATE),
                }),
                false => self.reservations.take(addr).map(|()| {
                    beginning.push((n, addr));
                }),
            };
            if taken.is_ok() {
                self.owners.insert(place, owner);
            }
            results.push(taken);
        }
        self.table.store(self.owners.clone());
        let mut over = Vec::new();
        for (n, addr) in beginning {
            if let Err(error) = self.bind(addr) {
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
                self.owners.remove(&(addr.ip(), addr.port()));
                self.reservations.give(addr);
            }
            self.table.store(self.owners.clone());
        }
        results
    }
}
