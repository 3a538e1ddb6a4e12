//! Who listens in this network namespace, and whose the ends of connections are.
//!
//! A socket can not be bound to a prefix of addresses nor to all ports, so nothing stops others from
//! listening there, before us or after: they are looked for, and their ports are left to them.

use crate::netlink::{
    sock_diag::{self, SOCK_DIAG_BY_FAMILY, SOCKET},
    socket::{IPV4, IPV6, Netlink, NetlinkFamily, attributes, bytes, malformed},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// From linux/sock_diag.h and linux/inet_diag.h.
mod diag {
    /// Of the states of a socket, as a set.
    pub(crate) const LISTEN: u32 = 1 << 10;
    /// ESTABLISHED, FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT.
    pub(crate) const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
    pub(crate) const ONLY_V6: u16 = 11;
    /// Since Linux 5.9.
    pub(crate) const CGROUP: u16 = 21;
    /// Where the user and the number of the socket are.
    pub(crate) const USER: usize = 64;
    pub(crate) const INODE: usize = 68;
}

/// A listening socket, or one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketInfo {
    pub addr: SocketAddr,
    /// On all addresses of IPv6 it takes those of IPv4 too.
    pub both: bool,
    /// User id of its creator.
    pub user: u32,
    /// Number of it in the file system of sockets.
    pub inode: u32,
    /// Number of the control group (version 2) of the process that made it; 0 when the kernel does
    /// not say.
    pub cgroup: u64,
}

/// All listening TCP sockets of this thread's network namespace.
pub fn listening() -> io::Result<Vec<SocketInfo>> {
    listening_where(&Netlink::open(NetlinkFamily::Sockets)?)
}

/// All listening TCP sockets of the network namespace that is asked.
pub(crate) fn listening_where(kernel: &Netlink) -> io::Result<Vec<SocketInfo>> {
    sockets(kernel, diag::LISTEN)
}

/// All ends of TCP connections that are in this thread's network namespace, each with its own address.
pub fn connected() -> io::Result<Vec<SocketInfo>> {
    sockets(&Netlink::open(NetlinkFamily::Sockets)?, diag::CONNECTED)
}

/// The user of a client that is in this thread's network namespace, by the addresses of its connection
/// to us: its own and the one that it has come to. None when it is elsewhere, or has closed its
/// socket: the kernel does not report the owner of a closed one.
pub fn user_of(client: SocketAddr, listener: SocketAddr) -> io::Result<Option<u32>> {
    let kernel = Netlink::open(NetlinkFamily::Sockets)?;
    match kernel.ask(SOCK_DIAG_BY_FAMILY, 0, &sock_diag::one(client, listener, 0)) {
        Ok((_, body)) => {
            let found = socket(&body).ok_or_else(malformed)?;
            // Where no connection matches, the kernel answers with a socket that listens on the
            // client's port here, which says nothing about a client elsewhere.
            let is_client = is_connection(&body, client, listener).ok_or_else(malformed)?;
            Ok((is_client && found.inode != 0).then_some(found.user))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether an answer is about the open end `at` of a connection to `to`.
fn is_connection(body: &[u8], at: SocketAddr, to: SocketAddr) -> Option<bool> {
    let state = u32::from(*body.get(1)?);
    let port = |offset| bytes(body, offset).map(u16::from_be_bytes);
    let ip = |offset| address(body, offset);
    let open = 1_u32.checked_shl(state).unwrap_or(0) & diag::CONNECTED != 0;
    let end = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
    Some(open && (ip(8)?, port(4)?) == end(at) && (ip(24)?, port(6)?) == end(to))
}

/// An address in an answer, in the family that the answer is about.
fn address(body: &[u8], offset: usize) -> Option<IpAddr> {
    Some(match *body.first()? {
        IPV4 => Ipv4Addr::from(bytes::<4>(body, offset)?).into(),
        _ => IpAddr::from(Ipv6Addr::from(bytes::<16>(body, offset)?)).to_canonical(),
    })
}

/// All TCP sockets in one of these states.
fn sockets(kernel: &Netlink, states: u32) -> io::Result<Vec<SocketInfo>> {
    let mut found = Vec::new();
    for family in [IPV4, IPV6] {
        let question = sock_diag::all(family, states);
        kernel.dump(SOCK_DIAG_BY_FAMILY, &question, |body| {
            found.push(socket(body).ok_or_else(malformed)?);
            Ok(())
        })?;
    }
    Ok(found)
}

fn socket(body: &[u8]) -> Option<SocketInfo> {
    let port = u16::from_be_bytes(bytes(body, 4)?);
    let address = address(body, 8)?;
    let mut only = address.is_ipv4();
    let mut cgroup = 0;
    for (kind, value) in attributes(body.get(SOCKET..)?) {
        match kind {
            diag::ONLY_V6 => only |= value.first() > Some(&0),
            diag::CGROUP => cgroup = u64::from_ne_bytes(bytes(value, 0)?),
            _ => {}
        }
    }
    Some(SocketInfo {
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
    use socket2::{Domain, Socket, Type};
    use std::{net::TcpListener, os::unix::fs::MetadataExt};

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
    fn a_client_elsewhere_is_not_the_user_who_listens_on_its_port_here() {
        for (any, elsewhere) in [("0.0.0.0:0", "203.0.113.9"), ("[::]:0", "2001:db8::9")] {
            let Ok(other) = TcpListener::bind(any) else {
                continue;
            };
            let port = other.local_addr().unwrap().port();
            let client = SocketAddr::new(elsewhere.parse().unwrap(), port);
            let listener = SocketAddr::new(elsewhere.parse().unwrap(), 5432);
            assert_eq!(user_of(client, listener).unwrap(), None, "{any}");
        }
    }

    #[test]
    fn a_client_of_this_host_is_its_user() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(to).unwrap();
        let from = client.local_addr().unwrap();
        let me = std::fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(user_of(from, to).unwrap(), Some(me));
        drop(client);
        assert_eq!(user_of(from, to).unwrap(), None);
    }

    #[test]
    fn attributes_of_a_socket_may_be_truncated() {
        let mut body = vec![0; SOCKET];
        body[0] = IPV6;
        assert!(socket(&body).unwrap().both);
        body.extend([0, 0, 0, 0]);
        assert!(socket(&body).is_some());
        body.splice(SOCKET.., [5, 0, 11, 0, 1, 0, 0, 0]);
        assert!(!socket(&body).unwrap().both);
        assert!(socket(&body[..40]).is_none());
    }
}
