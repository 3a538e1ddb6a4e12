//! Who listens in this network namespace, and whose the ends of connections are.
//!
//! A socket can not be bound to a prefix of addresses nor to all ports, so nothing stops others from
//! listening there, before us or after: they are looked for, and their ports are left to them.

use super::netlink::{About, IPV4, IPV6, Netlink, attributes, bad, bytes};
#[cfg(feature = "ebpf")]
use super::place::Place;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// From linux/sock_diag.h and linux/inet_diag.h.
mod diag {
    pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
    pub(super) const TCP: u8 = 6;
    /// Of the states of a socket, as a set.
    pub(super) const LISTEN: u32 = 1 << 10;
    /// ESTABLISHED, FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT.
    pub(super) const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
    /// Bytes of what is said of a socket before its attributes.
    pub(super) const SOCKET: usize = 72;
    pub(super) const ONLY_V6: u16 = 11;
    /// Since Linux 5.9.
    pub(super) const CGROUP: u16 = 21;
    /// Where the user and the number of the socket are.
    pub(super) const USER: usize = 64;
    pub(super) const INODE: usize = 68;
}

/// A listening socket, or one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// Its address.
    pub addr: SocketAddr,
    /// On all addresses of IPv6 it takes those of IPv4 too.
    pub both: bool,
    /// User that made it.
    pub user: u32,
    /// Number of it in the file system of sockets.
    pub inode: u32,
    /// Number of the control group (version 2) of the process that made it; 0 when the kernel does
    /// not say.
    pub cgroup: u64,
}

#[cfg(feature = "ebpf")]
impl Listening {
    /// Whether it takes connections of a place.
    pub(super) fn takes_of(&self, place: &Place) -> bool {
        let (ip, network) = (self.addr.ip(), place.network);
        let addresses = if ip.is_unspecified() {
            self.both || ip.is_ipv4() == network.address().is_ipv4()
        } else {
            network.contains(ip)
        };
        addresses && place.contains(SocketAddr::new(network.address(), self.addr.port()))
    }
}

/// All listening TCP sockets of this thread's network namespace.
pub fn listening() -> io::Result<Vec<Listening>> {
    listening_where(&Netlink::open(About::Sockets)?)
}

/// All listening TCP sockets of the network namespace that is asked.
pub(super) fn listening_where(kernel: &Netlink) -> io::Result<Vec<Listening>> {
    sockets(kernel, diag::LISTEN)
}

/// All ends of TCP connections that are in this thread's network namespace, each with its own address.
pub fn connected() -> io::Result<Vec<Listening>> {
    sockets(&Netlink::open(About::Sockets)?, diag::CONNECTED)
}

/// The user of a client that is in this thread's network namespace, by the addresses of its connection
/// to us: its own and the one that it has come to. None when it is elsewhere, or has closed its
/// socket: of one that nobody has any more the kernel does not say whose it was.
pub fn user_of(client: SocketAddr, listener: SocketAddr) -> io::Result<Option<u32>> {
    let kernel = Netlink::open(About::Sockets)?;
    match kernel.ask(diag::SOCK_DIAG_BY_FAMILY, 0, &one(client, listener)) {
        Ok((_, body)) => {
            let found = socket(&body).ok_or_else(bad)?;
            Ok((found.inode != 0).then_some(found.user))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The question about the socket with these two addresses.
fn one(own: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let plain = |addr: SocketAddr| addr.ip().to_canonical();
    let family = if plain(own).is_ipv4() { IPV4 } else { IPV6 };
    let mut body = vec![family, diag::TCP, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(own.port().to_be_bytes());
    body.extend(peer.port().to_be_bytes());
    for addr in [own, peer] {
        let mut bytes = [0; 16];
        match plain(addr) {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes = ip.octets(),
        }
        body.extend(bytes);
    }
    // Whichever interface, whichever socket of these addresses.
    body.extend(0u32.to_ne_bytes());
    body.extend([u8::MAX; 8]);
    body
}

/// All TCP sockets in one of these states.
fn sockets(kernel: &Netlink, states: u32) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in [IPV4, IPV6] {
        let request = request(family, states);
        kernel.dump(diag::SOCK_DIAG_BY_FAMILY, &request, |body| {
            found.push(socket(body).ok_or_else(bad)?);
            Ok(())
        })?;
    }
    Ok(found)
}

/// What is asked for, and the empty identity of a socket.
fn request(family: u8, states: u32) -> Vec<u8> {
    let mut body = vec![family, diag::TCP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend([0; 48]);
    body
}

fn socket(body: &[u8]) -> Option<Listening> {
    let port = u16::from_be_bytes(bytes(body, 4)?);
    let address: IpAddr = match *body.first()? {
        IPV4 => Ipv4Addr::from(bytes::<4>(body, 8)?).into(),
        _ => IpAddr::from(Ipv6Addr::from(bytes::<16>(body, 8)?)).to_canonical(),
    };
    let mut only = address.is_ipv4();
    let mut cgroup = 0;
    for (kind, value) in attributes(body.get(diag::SOCKET..)?) {
        match kind {
            diag::ONLY_V6 => only |= value.first() > Some(&0),
            diag::CGROUP => cgroup = u64::from_ne_bytes(bytes(value, 0)?),
            _ => {}
        }
    }
    Some(Listening {
        addr: SocketAddr::new(address, port),
        both: !only,
        user: u32::from_ne_bytes(bytes(body, diag::USER)?),
        inode: u32::from_ne_bytes(bytes(body, diag::INODE)?),
        cgroup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "ebpf")]
    use crate::steer::place::{Network, Ports};
    use socket2::{Domain, Socket, Type};
    use std::net::TcpListener;

    #[test]
    fn listeners_are_found_and_others_are_not() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").ok();
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bound.bind(&any.into()).unwrap();
        let found = listening().unwrap();
        let has = |addr| found.iter().any(|l| l.addr == addr);
        assert!(has(v4.local_addr().unwrap()));
        assert!(v6.is_none_or(|v6| has(v6.local_addr().unwrap())));
        assert!(!has(bound.local_addr().unwrap().as_socket().unwrap()));
    }

    #[test]
    #[cfg(feature = "ebpf")]
    fn one_on_all_addresses_takes_of_every_place_of_its_families() {
        let of = |addr: &str, both| Listening {
            addr: addr.parse().unwrap(),
            both,
            user: 0,
            inode: 0,
            cgroup: 0,
        };
        let place = |network, ports| Place {
            network: Network::parse(network).unwrap(),
            ports,
        };
        let all = place("10.20.0.0/16", Ports::All);
        let one = place("10.20.0.0/16", Ports::One(80));
        for (listening, takes) in [
            (of("10.20.3.4:80", false), [true, true]),
            (of("10.20.3.4:81", false), [true, false]),
            (of("10.21.3.4:80", false), [false, false]),
            (of("0.0.0.0:80", false), [true, true]),
            (of("[::]:80", true), [true, true]),
            (of("[::]:80", false), [false, false]),
            (of("[::1]:80", false), [false, false]),
        ] {
            let said = [listening.takes_of(&all), listening.takes_of(&one)];
            assert_eq!(said, takes, "{listening:?}");
        }
    }

    #[test]
    fn what_is_said_of_a_socket_may_be_cut_short() {
        let mut body = vec![0; diag::SOCKET];
        body[0] = IPV6;
        assert!(socket(&body).unwrap().both);
        body.extend([0, 0, 0, 0]);
        assert!(socket(&body).is_some());
        body.splice(diag::SOCKET.., [5, 0, 11, 0, 1, 0, 0, 0]);
        assert!(!socket(&body).unwrap().both);
        assert!(socket(&body[..40]).is_none());
    }
}
