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
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

/// What the names of kept sockets begin with; a number follows. Names are short, because all of them
/// together are one word of the environment.
const NAME: &str = "reserve-";

/// One that is ours.
struct Reserved {
    addr: SocketAddr,
    socket: Socket,
    name: String,
    /// How many places have it; none: an earlier process had it, and nobody has wanted it yet.
    places: usize,
}

/// Addresses that are ours, by port.
#[derive(Default)]
pub(super) struct Reservations {
    by_port: BTreeMap<u16, Vec<Reserved>>,
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
                    ours.push(Reserved {
                        addr,
                        socket,
                        name,
                        places: 0,
                    });
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
        ours.is_some_and(|ours| ours.iter().any(|other| other.addr == addr))
    }

    /// Those that nobody has wanted since they were adopted.
    pub(super) fn adopted(&self) -> impl Iterator<Item = SocketAddr> {
        let all = self.by_port.values().flatten();
        all.filter(|ours| ours.places == 0).map(|ours| ours.addr)
    }

    /// Gives back those that nobody has wanted.
    pub(super) fn settle(&mut self) {
        self.release_all(|reserved| reserved.places == 0);
    }

    /// Gives all back.
    pub(super) fn clear(&mut self) {
        self.release_all(|_| true);
    }

    fn release_all(&mut self, unwanted: impl Fn(&Reserved) -> bool) {
        let ports: Vec<u16> = self.by_port.keys().copied().collect();
        for port in ports {
            self.release(port, |reserved| unwanted(reserved));
        }
    }

    /// Takes an address; an error if another program has it, as for one that listens. One of ours
    /// on all addresses and one on a single address go together.
    pub(super) fn take(&mut self, addr: SocketAddr) -> Result<(), SteerError> {
        let ours = self.by_port.entry(addr.port()).or_default();
        if let Some(reserved) = ours.iter_mut().find(|other| other.addr == addr) {
            reserved.places += 1;
            return Ok(());
        }
        // Sockets that allow it and do not listen may be bound side by side.
        let shared = share(ours, true).and_then(|()| reserve(addr));
        let unshared = share(ours, false);
        let socket = shared?;
        let name = format!("{NAME}{:x}", self.next);
        self.next += 1;
        let kept = self.keeper.keep(&name, &socket);
        kept.map_err(failed(addr, "duplicating a socket"))?;
        ours.push(Reserved {
            addr,
            socket,
            name,
            places: 1,
        });
        unshared
    }

    /// Gives an address back, as often as it was taken.
    pub(super) fn give(&mut self, addr: SocketAddr) {
        self.release(addr.port(), |reserved| {
            reserved.places = reserved
                .places
                .saturating_sub(usize::from(reserved.addr == addr));
            reserved.places == 0 && reserved.addr == addr
        });
    }

    /// Gives back those at a port that are not wanted.
    fn release(&mut self, port: u16, unwanted: impl FnMut(&mut Reserved) -> bool) {
        let Some(ours) = self.by_port.get_mut(&port) else {
            return;
        };
        for gone in ours.extract_if(.., unwanted) {
            // The service manager closes its copy in its own time: until then, whoever shares
            // addresses as listeners do may have this one.
            if let Err(error) = gone.socket.set_reuse_address(true) {
                tracing::debug!(addr = %gone.addr, %error, "giving an address back");
            }
            self.keeper.forget(&gone.name);
        }
        if ours.is_empty() {
            self.by_port.remove(&port);
        }
    }
}

/// The address that a socket is bound to which does not listen.
fn reserves(socket: &Socket) -> Option<SocketAddr> {
    let tcp = socket.protocol().ok()? == Some(Protocol::TCP);
    let addr = socket.local_addr().ok()?.as_socket()?;
    (tcp && !socket.is_listener().ok()? && addr.port() != 0).then_some(addr)
}

fn share(ours: &[Reserved], shared: bool) -> Result<(), SteerError> {
    for Reserved { addr, socket, .. } in ours {
        let set = socket.set_reuse_address(shared);
        set.map_err(failed(*addr, "setting options"))?;
    }
    Ok(())
}

fn reserve(addr: SocketAddr) -> Result<Socket, SteerError> {
    let socket = socket(addr)?;
    bind(&socket, addr).map_err(failed(addr, "binding"))?;
    // Whoever listens is a conflict only to one that listens as well, and from then on sockets that
    // share addresses are one too.
    socket.listen(0).map_err(failed(addr, "binding"))?;
    socket
        .shutdown(Shutdown::Both)
        .map_err(failed(addr, "binding"))?;
    socket
        .set_reuse_address(false)
        .map_err(failed(addr, "setting options"))?;
    Ok(socket)
}

fn failed(addr: SocketAddr, op: &'static str) -> impl Fn(std::io::Error) -> SteerError {
    move |source| SteerError {
        place: addr.into(),
        op,
        source,
    }
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
