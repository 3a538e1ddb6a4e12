//! The accept sockets that all listeners share: one per address family and worker, stored with the
//! service manager where there is one.

use super::{
    SteeringHandover, SteeringUnavailable,
    bpf::{BpfError, Steering},
    listing::AcceptSocket,
    plain::{BACKLOG, LOOPBACKS, listens, unreached},
};
use skupper_ebpf::{Binding, MAX_SOCKETS, OWN};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

/// Prefixes of the names of stored sockets, by family; the number of the socket follows.
const NAMES: [&str; 2] = ["accept4-", "accept6-"];
/// Index of the first socket of each family in the socket map. The presence of index 0 shows that
/// the daemon lives.
const FIRST: [u32; 2] = [0, MAX_SOCKETS / 2];

pub(super) struct AcceptSockets {
    pub(super) of_workers: Vec<Vec<TcpListener>>,
    /// Number of sockets of each family.
    pub(super) count: u32,
    /// Their addresses.
    pub(super) listing: Vec<AcceptSocket>,
    handover: SteeringHandover,
}

impl AcceptSockets {
    /// Adopts the sockets of the previous process, creates missing ones, and puts all into the
    /// socket map. If the previous process had more workers, some workers get several sockets, so
    /// that their waiting clients are served.
    pub(super) fn new(
        workers: u32,
        handover: &SteeringHandover,
        steering: &mut Steering,
    ) -> Result<Self, SteeringUnavailable> {
        let adopted = NAMES.map(|family| adopt(handover, family));
        let most = adopted.iter().filter_map(|family| family.keys().max());
        let count = most.map(|n| n + 1).max().unwrap_or(0).max(workers);
        let mut this = Self {
            of_workers: (0..workers).map(|_| Vec::new()).collect(),
            count,
            listing: Vec::new(),
            handover: handover.clone(),
        };
        for (family, mut adopted) in adopted.into_iter().enumerate() {
            for number in 0..count {
                let found = adopted.remove(&number);
                let was = found.is_some();
                let socket = match found.map_or_else(|| unreached(LOOPBACKS[family]), Ok) {
                    Ok(socket) => socket,
                    // The host has no IPv6.
                    Err(_) if family == 1 => break,
                    Err(error) => return Err(error.into()),
                };
                let slot = (FIRST[family] + number, NAMES[family], number);
                this.add(steering, slot, socket, was)?;
            }
        }
        Ok(this)
    }

    /// Accept sockets created in another network namespace, which do not listen yet. They are not
    /// stored.
    pub(super) fn in_netns(
        sockets: Vec<TcpListener>,
        workers: u32,
        steering: &mut Steering,
    ) -> Result<Self, SteeringUnavailable> {
        let mut this = Self {
            of_workers: (0..workers).map(|_| Vec::new()).collect(),
            count: workers,
            listing: Vec::new(),
            handover: SteeringHandover::default(),
        };
        let mut next = [0; 2];
        for socket in sockets {
            let family = usize::from(socket.local_addr()?.is_ipv6());
            let number = next[family];
            next[family] += 1;
            if number < workers {
                let slot = (FIRST[family] + number, NAMES[family], number);
                this.add(steering, slot, socket, false)?;
            }
        }
        Ok(this)
    }

    fn add(
        &mut self,
        steering: &mut Steering,
        (index, family, number): (u32, &str, u32),
        socket: TcpListener,
        adopted: bool,
    ) -> Result<(), SteeringUnavailable> {
        let address = socket.local_addr()?;
        bind_own(steering, address)?;
        if !adopted {
            // Listen only after the binding refuses connections to the socket's own address.
            SockRef::from(&socket).listen(BACKLOG)?;
        }
        steering.set_socket(index, &socket)?;
        let name = format!("{family}{number}");
        if !adopted {
            self.handover.descriptor_store.store(&name, &socket)?;
        }
        let workers = self.of_workers.len();
        let worker = usize::try_from(number).map_err(io::Error::other)? % workers;
        self.of_workers[worker].push(socket);
        self.listing.push(AcceptSocket {
            worker,
            address,
            adopted,
        });
        Ok(())
    }

    /// Index of the first socket for addresses of this family.
    pub(super) fn first(&self, address: IpAddr) -> u32 {
        FIRST[usize::from(address.is_ipv6())]
    }

    /// Whether this is the own address of an accept socket.
    pub(super) fn contains(&self, address: IpAddr, port: u16) -> bool {
        let own = SocketAddr::new(address, port);
        self.listing.iter().any(|socket| socket.address == own)
    }

    /// Removes the copies from the service manager.
    pub(super) fn forget(&self) {
        for (family, number) in NAMES
            .iter()
            .flat_map(|f| (0..self.count).map(move |n| (f, n)))
        {
            self.handover
                .descriptor_store
                .remove(&format!("{family}{number}"));
        }
    }
}

/// Sockets of the previous process, by number.
fn adopt(handover: &SteeringHandover, family: &str) -> BTreeMap<u32, TcpListener> {
    let mut found = BTreeMap::new();
    let here = Socket::new(Domain::UNIX, Type::DGRAM, None);
    for (name, fd) in handover.descriptors.take(|name| name.starts_with(family)) {
        let number = name.strip_prefix(family).and_then(|n| n.parse().ok());
        let number = number.filter(|n| *n < MAX_SOCKETS / 2);
        let socket = TcpListener::from(fd);
        let beside = here.as_ref().map(SockRef::from).ok();
        let addr = beside.and_then(|beside| listens(&socket, beside));
        let fits =
            addr.is_some_and(|a| a.ip().is_loopback() && a.is_ipv4() == (family == NAMES[0]));
        match number {
            Some(n) if fits && !found.contains_key(&n) && socket.set_nonblocking(true).is_ok() => {
                // An older version may not have.
                crate::sys::reset_on_close((&socket).into());
                found.insert(n, socket);
            }
            _ => {
                tracing::warn!(name, "closing stored socket that is no accept socket");
                handover.descriptor_store.remove(&name);
            }
        }
    }
    found
}

fn bind_own(steering: &mut Steering, own: SocketAddr) -> Result<(), BpfError> {
    let nobody = Binding {
        first: 0,
        sockets: 0,
        slot: OWN,
        prefix: 0,
    };
    let bits = if own.is_ipv4() { 32 } else { 128 };
    steering.bind(own.ip(), bits, own.port(), nobody)
}
