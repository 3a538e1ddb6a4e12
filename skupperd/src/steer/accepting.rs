//! The accept sockets that all listeners share: one of each family for each worker, kept by the
//! service manager where there is one.

use super::{
    Kept, NotSteered,
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

/// What the names of kept sockets begin with, by family; the number of the socket follows.
const NAMES: [&str; 2] = ["accept4-", "accept6-"];
/// Index of the first socket of each family in the socket map. The very first is the sign of life.
const FIRST: [u32; 2] = [0, MAX_SOCKETS / 2];

/// Accept sockets.
pub(super) struct Accepting {
    /// By worker.
    pub(super) of_workers: Vec<Vec<TcpListener>>,
    /// How many of each family there are.
    pub(super) count: u32,
    /// Their addresses.
    pub(super) listing: Vec<AcceptSocket>,
    kept: Kept,
}

impl Accepting {
    /// Takes up those that an earlier process has left, makes the others, and puts all of them into
    /// the socket map. Where there were more workers than now, some have more than one: who waits
    /// there is served too.
    pub(super) fn new(
        workers: u32,
        kept: &Kept,
        steering: &mut Steering,
    ) -> Result<Self, NotSteered> {
        let adopted = NAMES.map(|family| adopt(kept, family));
        let most = adopted.iter().filter_map(|family| family.keys().max());
        let count = most.map(|n| n + 1).max().unwrap_or(0).max(workers);
        let mut this = Self {
            of_workers: (0..workers).map(|_| Vec::new()).collect(),
            count,
            listing: Vec::new(),
            kept: kept.clone(),
        };
        for (family, mut adopted) in adopted.into_iter().enumerate() {
            for number in 0..count {
                let found = adopted.remove(&number);
                let was = found.is_some();
                let socket = match found.map_or_else(|| unreached(LOOPBACKS[family]), Ok) {
                    Ok(socket) => socket,
                    // A host without IPv6 has no connections of it.
                    Err(_) if family == 1 => break,
                    Err(error) => return Err(error.into()),
                };
                let place = (FIRST[family] + number, NAMES[family], number);
                this.add(steering, place, socket, was)?;
            }
        }
        Ok(this)
    }

    /// Those of another network namespace, which were made there and do not listen yet. Nobody keeps
    /// them.
    pub(super) fn inside(
        sockets: Vec<TcpListener>,
        workers: u32,
        steering: &mut Steering,
    ) -> Result<Self, NotSteered> {
        let mut this = Self {
            of_workers: (0..workers).map(|_| Vec::new()).collect(),
            count: workers,
            listing: Vec::new(),
            kept: Kept::default(),
        };
        let mut next = [0; 2];
        for socket in sockets {
            let family = usize::from(socket.local_addr()?.is_ipv6());
            let number = next[family];
            next[family] += 1;
            if number < workers {
                let place = (FIRST[family] + number, NAMES[family], number);
                this.add(steering, place, socket, false)?;
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
    ) -> Result<(), NotSteered> {
        let address = socket.local_addr()?;
        bind_own(steering, address)?;
        if !adopted {
            // Not before connections to its own address are refused.
            SockRef::from(&socket).listen(BACKLOG)?;
        }
        steering.set_socket(index, &socket)?;
        let name = format!("{family}{number}");
        if !adopted {
            self.kept.keeper.keep(&name, &socket)?;
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

    /// Where the sockets for addresses of this family begin.
    pub(super) fn first(&self, address: IpAddr) -> u32 {
        FIRST[usize::from(address.is_ipv6())]
    }

    /// Whether connections to this address are ones to a socket's own.
    pub(super) fn own(&self, address: IpAddr, port: u16) -> bool {
        let own = SocketAddr::new(address, port);
        self.listing.iter().any(|socket| socket.address == own)
    }

    /// The service manager throws its copies away.
    pub(super) fn forget(&self) {
        for (family, number) in NAMES
            .iter()
            .flat_map(|f| (0..self.count).map(move |n| (f, n)))
        {
            self.kept.keeper.forget(&format!("{family}{number}"));
        }
    }
}

/// Sockets of an earlier process, by number.
fn adopt(kept: &Kept, family: &str) -> BTreeMap<u32, TcpListener> {
    let mut found = BTreeMap::new();
    let here = Socket::new(Domain::UNIX, Type::DGRAM, None);
    for (name, fd) in kept.descriptors.take(|name| name.starts_with(family)) {
        let number = name.strip_prefix(family).and_then(|n| n.parse().ok());
        let number = number.filter(|n| *n < MAX_SOCKETS / 2);
        let socket = TcpListener::from(fd);
        let beside = here.as_ref().map(SockRef::from).ok();
        let addr = beside.and_then(|beside| listens(&socket, beside));
        let fits =
            addr.is_some_and(|a| a.ip().is_loopback() && a.is_ipv4() == (family == NAMES[0]));
        match number {
            Some(n) if fits && !found.contains_key(&n) && socket.set_nonblocking(true).is_ok() => {
                found.insert(n, socket);
            }
            _ => {
                tracing::warn!(
                    name,
                    "a kept socket that is no accept socket is thrown away"
                );
                kept.keeper.forget(&name);
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
