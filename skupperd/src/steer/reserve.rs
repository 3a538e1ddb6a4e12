//! Taking an address from other programs without listening on it.
//!
//! The kernel steers before it looks for listeners: without this, a program that listens where we
//! steer would be shadowed, and so would another instance of this one. A reservation is one socket
//! that is bound and neither listens nor queues anything; it ends with the process at the latest, or
//! with what the service manager keeps of it.

use super::{
    SteerError,
    plain::{bind, socket},
};
use crate::sys::{Descriptors, Keeper};
use socket2::{Protocol, Socket};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

/// What the names of kept sockets begin with; a number follows. Names are short, because all of them
/// together are one word of the environment.
const NAME: &str = "reserve-";

/// One that is ours.
struct Reserved {
    socket: Socket,
    name: String,
    /// How many places have it; none: an earlier process had it, and nobody has wanted it yet.
    places: usize,
}

/// Addresses that are ours, by port.
#[derive(Default)]
pub(super) struct Reservations {
    by_port: BTreeMap<u16, BTreeMap<IpAddr, Reserved>>,
    keeper: Keeper,
    next: u64,
}

impl Reservations {
    /// Those that an earlier process has left, in the network namespace of `beside`.
    pub(super) fn adopt(given: &Descriptors, keeper: Keeper, beside: BorrowedFd<'_>) -> Self {
        let mut this = Self {
            keeper,
            ..Self::default()
        };
        for (name, fd) in given.take(|name| name.starts_with(NAME)) {
            let number = name.strip_prefix(NAME);
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            this.next = this.next.max(number.map_or(0, |n| n.saturating_add(1)));
            let socket = Socket::from(fd);
            let addr = reserves(&socket).filter(|_| crate::sys::same_netns(socket.as_fd(), beside));
            let fresh = addr.filter(|addr| !this.has(*addr));
            match (number, fresh) {
                (Some(_), Some(addr)) => {
                    let ours = this.by_port.entry(addr.port()).or_default();
                    let reserved = Reserved {
                        socket,
                        name,
                        places: 0,
                    };
                    ours.insert(addr.ip(), reserved);
                }
                _ => {
                    tracing::warn!(name, "a kept socket that reserves nothing is thrown away");
                    this.keeper.forget(&name);
                }
            }
        }
        this
    }

    fn has(&self, addr: SocketAddr) -> bool {
        let ours = self.by_port.get(&addr.port());
        ours.is_some_and(|ours| ours.contains_key(&addr.ip()))
    }

    /// Those that nobody has wanted since they were adopted.
    pub(super) fn adopted(&self) -> impl Iterator<Item = SocketAddr> {
        let of_port = |(port, ours): (&u16, _)| {
            let (port, ours): (u16, &BTreeMap<IpAddr, Reserved>) = (*port, ours);
            let unwanted = ours.iter().filter(|(_, ours)| ours.places == 0);
            unwanted.map(move |(ip, _)| SocketAddr::new(*ip, port))
        };
        self.by_port.iter().flat_map(of_port)
    }

    /// Gives back those that nobody has wanted.
    pub(super) fn settle(&mut self) {
        let unwanted: Vec<SocketAddr> = self.adopted().collect();
        unwanted.into_iter().for_each(|addr| self.release(addr));
    }

    /// Gives all back.
    pub(super) fn clear(&mut self) {
        let by_port = self.by_port.iter();
        let all = by_port.flat_map(|(port, ours)| ours.keys().map(|ip| (*ip, *port).into()));
        let all: Vec<SocketAddr> = all.collect();
        all.into_iter().for_each(|addr| self.release(addr));
    }

    /// Takes an address; an error if another program has it, as for one that listens. One of ours
    /// on all addresses and one on a single address go together.
    pub(super) fn take(&mut self, addr: SocketAddr) -> Result<(), SteerError> {
        let ours = self.by_port.entry(addr.port()).or_default();
        if let Some(reserved) = ours.get_mut(&addr.ip()) {
            reserved.places += 1;
            return Ok(());
        }
        // Sockets that allow it and do not listen may be bound side by side.
        let shared = share(ours, addr, true).and_then(|()| reserve(addr));
        let unshared = share(ours, addr, false);
        let socket = shared?;
        let name = format!("{NAME}{:x}", self.next);
        self.next += 1;
        let kept = self.keeper.keep(&name, &socket);
        kept.map_err(SteerError::at(addr, "duplicating a socket"))?;
        let reserved = Reserved {
            socket,
            name,
            places: 1,
        };
        ours.insert(addr.ip(), reserved);
        unshared
    }

    /// Gives an address back, as often as it was taken.
    pub(super) fn give(&mut self, addr: SocketAddr) {
        let ours = self.by_port.get_mut(&addr.port());
        if let Some(reserved) = ours.and_then(|ours| ours.get_mut(&addr.ip())) {
            reserved.places = reserved.places.saturating_sub(1);
            if reserved.places == 0 {
                self.release(addr);
            }
        }
    }

    fn release(&mut self, addr: SocketAddr) {
        let Some(ours) = self.by_port.get_mut(&addr.port()) else {
            return;
        };
        if let Some(gone) = ours.remove(&addr.ip()) {
            // The service manager closes its copy in its own time: until then, whoever shares
            // addresses as listeners do may have this one.
            if let Err(error) = gone.socket.set_reuse_address(true) {
                tracing::debug!(%addr, %error, "giving an address back");
            }
            self.keeper.forget(&gone.name);
        }
        if ours.is_empty() {
            self.by_port.remove(&addr.port());
        }
    }
}

/// The address that a socket is bound to which does not listen.
fn reserves(socket: &Socket) -> Option<SocketAddr> {
    let tcp = socket.protocol().ok()? == Some(Protocol::TCP);
    let addr = socket.local_addr().ok()?.as_socket()?;
    (tcp && !socket.is_listener().ok()? && addr.port() != 0).then_some(addr)
}

/// Has those that stand in the way of an address allow it, or not any more: the one on all addresses,
/// or for that one each of them. Between single addresses there is nothing to allow, and a thousand
/// that are asked for each other are a million system calls.
fn share(
    ours: &BTreeMap<IpAddr, Reserved>,
    with: SocketAddr,
    shared: bool,
) -> Result<(), SteerError> {
    let any = with.ip().is_unspecified();
    let in_the_way = |(ip, _): &(&IpAddr, &Reserved)| {
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
    // Whoever listens is a conflict only to one that listens as well, and from then on sockets that
    // share addresses are one too.
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

    /// A port that was free a moment ago, and the address of this host's loopback there.
    fn free() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// What another program sees that binds and listens, sharing addresses or not.
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
        reservations.give(addr);
        for sharing in [false, true] {
            assert!(busy(addr, sharing));
            assert!(busy(any, sharing));
        }
        let client = TcpStream::connect(addr);
        assert!(client.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused));
        reservations.give(addr);
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
            reservations.give(any);
            assert!(busy(addr, true));
            reservations.give(addr);
            assert!(!busy(any, true));
        }
    }
}
