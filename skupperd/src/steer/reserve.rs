//! Reserves addresses, so that other programs cannot bind them, without listening.
//!
//! The kernel steers before it looks for listening sockets: without a reservation, a program that
//! listens on a steered address, or another instance of the daemon, would get no connections. A
//! reservation is one bound socket that does not listen. It ends with the last copy of the socket,
//! in this process or in the service manager.

use super::{
    SteerError,
    plain::{bind, socket},
};
use crate::sys::{DescriptorStore, InheritedDescriptors};
use socket2::{Protocol, Socket};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

/// Prefix of the names of stored sockets; a number follows. Short, because systemd passes all names
/// in one environment variable.
const NAME: &str = "reserve-";

struct Reservation {
    socket: Socket,
    name: String,
    /// Number of ranges that use it; 0 for an unclaimed one of the previous process.
    users: usize,
}

/// Reserved addresses, by port.
#[derive(Default)]
pub(super) struct Reservations {
    by_port: BTreeMap<u16, BTreeMap<IpAddr, Reservation>>,
    descriptor_store: DescriptorStore,
    next_number: u64,
}

impl Reservations {
    /// Adopts the reservations of the previous process in the network namespace of `beside`.
    pub(super) fn adopt(
        descriptors: &InheritedDescriptors,
        descriptor_store: DescriptorStore,
        beside: BorrowedFd<'_>,
    ) -> Self {
        let mut this = Self {
            descriptor_store,
            ..Self::default()
        };
        for (name, fd) in descriptors.take(|name| name.starts_with(NAME)) {
            let number = name.strip_prefix(NAME);
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            this.next_number = this
                .next_number
                .max(number.map_or(0, |n| n.saturating_add(1)));
            let socket = Socket::from(fd);
            let addr = reserves(&socket).filter(|_| crate::sys::same_netns(socket.as_fd(), beside));
            let fresh = addr.filter(|addr| !this.has(*addr));
            match (number, fresh) {
                (Some(_), Some(addr)) => {
                    let ours = this.by_port.entry(addr.port()).or_default();
                    let reserved = Reservation {
                        socket,
                        name,
                        users: 0,
                    };
                    ours.insert(addr.ip(), reserved);
                }
                _ => {
                    tracing::warn!(name, "closing stored socket that reserves no address");
                    this.descriptor_store.remove(&name);
                }
            }
        }
        this
    }

    fn has(&self, addr: SocketAddr) -> bool {
        let ours = self.by_port.get(&addr.port());
        ours.is_some_and(|ours| ours.contains_key(&addr.ip()))
    }

    /// Unclaimed reservations of the previous process.
    pub(super) fn adopted(&self) -> impl Iterator<Item = SocketAddr> {
        let of_port = |(port, ours): (&u16, _)| {
            let (port, ours): (u16, &BTreeMap<IpAddr, Reservation>) = (*port, ours);
            let unwanted = ours.iter().filter(|(_, ours)| ours.users == 0);
            unwanted.map(move |(ip, _)| SocketAddr::new(*ip, port))
        };
        self.by_port.iter().flat_map(of_port)
    }

    /// Releases unclaimed reservations.
    pub(super) fn release_unclaimed(&mut self) {
        let unwanted: Vec<SocketAddr> = self.adopted().collect();
        unwanted.into_iter().for_each(|addr| self.close(addr));
    }

    /// Releases all reservations.
    pub(super) fn clear(&mut self) {
        let by_port = self.by_port.iter();
        let all = by_port.flat_map(|(port, ours)| ours.keys().map(|ip| (*ip, *port).into()));
        let all: Vec<SocketAddr> = all.collect();
        all.into_iter().for_each(|addr| self.close(addr));
    }

    /// Reserves an address. Fails if another program has it. All addresses and a single address may
    /// be reserved together.
    pub(super) fn take(&mut self, addr: SocketAddr) -> Result<(), SteerError> {
        let ours = self.by_port.entry(addr.port()).or_default();
        if let Some(reserved) = ours.get_mut(&addr.ip()) {
            reserved.users += 1;
            return Ok(());
        }
        // Sockets with SO_REUSEADDR may be bound side by side while they do not listen.
        let shared = set_shared(ours, addr, true).and_then(|()| reserve(addr));
        let unshared = set_shared(ours, addr, false);
        let socket = shared?;
        let name = format!("{NAME}{:x}", self.next_number);
        self.next_number += 1;
        let kept = self.descriptor_store.store(&name, &socket);
        kept.map_err(SteerError::at(addr, "duplicating a socket"))?;
        let reserved = Reservation {
            socket,
            name,
            users: 1,
        };
        ours.insert(addr.ip(), reserved);
        unshared
    }

    /// Reverts one [`Self::take`].
    pub(super) fn release(&mut self, addr: SocketAddr) {
        let ours = self.by_port.get_mut(&addr.port());
        if let Some(reserved) = ours.and_then(|ours| ours.get_mut(&addr.ip())) {
            reserved.users = reserved.users.saturating_sub(1);
            if reserved.users == 0 {
                self.close(addr);
            }
        }
    }

    fn close(&mut self, addr: SocketAddr) {
        let Some(ours) = self.by_port.get_mut(&addr.port()) else {
            return;
        };
        if let Some(gone) = ours.remove(&addr.ip()) {
            // The service manager closes its copy later. Until then, sockets with SO_REUSEADDR may
            // bind the address.
            if let Err(error) = gone.socket.set_reuse_address(true) {
                tracing::debug!(%addr, %error, "cannot release address");
            }
            self.descriptor_store.remove(&gone.name);
        }
        if ours.is_empty() {
            self.by_port.remove(&addr.port());
        }
    }
}

/// The address of a bound socket that does not listen.
fn reserves(socket: &Socket) -> Option<SocketAddr> {
    let tcp = socket.protocol().ok()? == Some(Protocol::TCP);
    let addr = socket.local_addr().ok()?.as_socket()?;
    (tcp && !socket.is_listener().ok()? && addr.port() != 0).then_some(addr)
}

/// Sets SO_REUSEADDR on the reservations that overlap an address: the one on all addresses, or for
/// that one every other. Single addresses do not overlap, and checking a thousand against each
/// other would take a million system calls.
fn set_shared(
    ours: &BTreeMap<IpAddr, Reservation>,
    with: SocketAddr,
    shared: bool,
) -> Result<(), SteerError> {
    let any = with.ip().is_unspecified();
    let in_the_way = |(ip, _): &(&IpAddr, &Reservation)| {
        ip.is_ipv4() == with.is_ipv4() && (any || ip.is_unspecified())
    };
    for (ip, reserved) in ours.iter().filter(in_the_way) {
        let set = reserved.socket.set_reuse_address(shared);
        let addr = SocketAddr::new(*ip, with.port());
        set.map_err(SteerError::at(addr, "setting options"))?;
    }
    Ok(())
}

fn reserve(addr: SocketAddr) -> Result<Socket, SteerError> {
    let socket = socket(addr)?;
    bind(&socket, addr).map_err(SteerError::at(addr, "binding"))?;
    // Listening once makes a conflict with another listening socket show, also if both share
    // addresses.
    socket.listen(0).map_err(SteerError::at(addr, "binding"))?;
    socket
        .shutdown(Shutdown::Both)
        .map_err(SteerError::at(addr, "binding"))?;
    socket
        .set_reuse_address(false)
        .map_err(SteerError::at(addr, "setting options"))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
    };

    /// A free address on loopback.
    fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Whether another program fails to bind and listen, with or without SO_REUSEADDR.
    fn busy(addr: SocketAddr, sharing: bool) -> bool {
        let other = socket(addr).unwrap();
        other.set_reuse_address(sharing).unwrap();
        let listening = other.bind(&addr.into()).and_then(|()| other.listen(1));
        listening.is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
    }

    #[test]
    fn a_reserved_address_is_busy_for_others_and_refuses() {
        let addr = free();
        let any = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        let mut reservations = Reservations::default();
        reservations.take(addr).unwrap();
        reservations.take(addr).unwrap();
        reservations.release(addr);
        for sharing in [false, true] {
            assert!(busy(addr, sharing));
            assert!(busy(any, sharing));
        }
        let client = TcpStream::connect(addr);
        assert!(client.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused));
        reservations.release(addr);
        assert!(!busy(addr, true));
        assert!(!busy(addr, false));
    }

    #[test]
    fn a_busy_address_can_not_be_reserved() {
        let addr = free();
        let other = socket(addr).unwrap();
        other.bind(&addr.into()).unwrap();
        other.listen(1).unwrap();
        let any = SocketAddr::from(([0, 0, 0, 0], addr.port()));
        let mut reservations = Reservations::default();
        for addr in [addr, any] {
            let error = reservations.take(addr).unwrap_err().to_string();
            assert!(error.contains("binding: Address already in use"), "{error}");
        }
        drop(other);
        reservations.take(addr).unwrap();
    }

    #[test]
    fn all_addresses_and_one_of_them_are_reserved_in_any_order() {
        for reverse in [false, true] {
            let addr = free();
            let any = SocketAddr::from(([0, 0, 0, 0], addr.port()));
            let mut order = [addr, any];
            if reverse {
                order.reverse();
            }
            let mut reservations = Reservations::default();
            for addr in order {
                reservations.take(addr).unwrap();
            }
            for sharing in [false, true] {
                assert!(busy(addr, sharing));
                assert!(busy(any, sharing));
            }
            reservations.release(any);
            assert!(busy(addr, true));
            reservations.release(addr);
            assert!(!busy(any, true));
        }
    }
}
