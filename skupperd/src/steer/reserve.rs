//! Taking an address from other programs without listening on it.
//!
//! The kernel steers before it looks for listeners: without this, a program that listens where we
//! steer would be shadowed, and so would another instance of this one. A reservation is one socket
//! that is bound and neither listens nor queues anything; it ends with the process at the latest.

use super::{
    SteerError,
    plain::{bind, socket},
};
use socket2::Socket;
use std::{
    collections::BTreeMap,
    net::{Shutdown, SocketAddr},
};

/// Addresses that are ours, by port, each with the number of places that have it.
#[derive(Default)]
pub(super) struct Reservations(BTreeMap<u16, Vec<(SocketAddr, Socket, usize)>>);

impl Reservations {
    /// Takes an address; an error if another program has it, as for one that listens. One of ours
    /// on all addresses and one on a single address go together.
    pub(super) fn take(&mut self, addr: SocketAddr) -> Result<(), SteerError> {
        let ours = self.0.entry(addr.port()).or_default();
        if let Some((_, _, places)) = ours.iter_mut().find(|(other, ..)| *other == addr) {
            *places += 1;
            return Ok(());
        }
        // Sockets that allow it and do not listen may be bound side by side.
        let shared = share(ours, true).and_then(|()| reserve(addr));
        let unshared = share(ours, false);
        ours.push((addr, shared?, 1));
        unshared
    }

    /// Gives an address back, as often as it was taken.
    pub(super) fn give(&mut self, addr: SocketAddr) {
        if let Some(ours) = self.0.get_mut(&addr.port()) {
            ours.retain_mut(|(other, _, places)| {
                *places -= usize::from(*other == addr);
                *places > 0
            });
            if ours.is_empty() {
                self.0.remove(&addr.port());
            }
        }
    }
}

fn share(ours: &[(SocketAddr, Socket, usize)], shared: bool) -> Result<(), SteerError> {
    for (addr, socket, _) in ours {
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
