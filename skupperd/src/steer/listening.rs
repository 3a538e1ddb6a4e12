//! Who listens in this network namespace, and whose the ends of connections are.
//!
//! A socket can not be bound to a prefix of addresses nor to all ports, so nothing stops others from
//! listening there, before us or after: they are looked for, and their ports are left to them.

#[cfg(feature = "ebpf")]
use super::place::Place;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(5);
/// Room for one part of the answer; the kernel makes none larger.
const PART: usize = 32 * 1024;

/// From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
mod diag {
    pub(super) const AF_NETLINK: i32 = 16;
    pub(super) const NETLINK_SOCK_DIAG: i32 = 4;
    pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
    pub(super) const NLMSG_ERROR: u16 = 2;
    pub(super) const NLMSG_DONE: u16 = 3;
    pub(super) const REQUEST_DUMP: u16 = 0x301;
    pub(super) const AF_INET: u8 = 2;
    pub(super) const AF_INET6: u8 = 10;
    pub(super) const TCP: u8 = 6;
    /// Of the states of a socket, as a set.
    pub(super) const LISTEN: u32 = 1 << 10;
    /// ESTABLISHED, FIN_WAIT1, FIN_WAIT2 and CLOSE_WAIT.
    pub(super) const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
    pub(super) const HEADER: usize = 16;
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
    dump(diag::LISTEN)
}

/// All ends of TCP connections that are in this thread's network namespace, each with its own address.
pub fn connected() -> io::Result<Vec<Listening>> {
    dump(diag::CONNECTED)
}

/// All TCP sockets in one of these states.
fn dump(states: u32) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for family in [diag::AF_INET, diag::AF_INET6] {
        let mut socket = Socket::new(
            Domain::from(diag::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(diag::NETLINK_SOCK_DIAG)),
        )?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.write_all(&request(family, states))?;
        let mut part = vec![0; PART];
        loop {
            let received = socket.read(&mut part)?;
            if read(part.get(..received).unwrap_or_default(), &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// The message: its header, what is asked for, and the empty identity of a socket.
fn request(family: u8, states: u32) -> Vec<u8> {
    let mut body = vec![family, diag::TCP, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend([0; 48]);
    let mut message = Vec::new();
    message.extend(((diag::HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(diag::SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(diag::REQUEST_DUMP.to_ne_bytes());
    message.extend([1_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    message.extend(body);
    message
}

/// Reads a part of the answer; true when it was the last.
fn read(part: &[u8], found: &mut Vec<Listening>) -> io::Result<bool> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "an answer that is none");
    let mut rest = part;
    while !rest.is_empty() {
        let length = u32::from_ne_bytes(bytes(rest, 0).ok_or_else(bad)?) as usize;
        let kind = u16::from_ne_bytes(bytes(rest, 4).ok_or_else(bad)?);
        let body = rest.get(diag::HEADER..length).ok_or_else(bad)?;
        match kind {
            diag::NLMSG_DONE => return Ok(true),
            diag::NLMSG_ERROR => {
                let code = i32::from_ne_bytes(bytes(body, 0).ok_or_else(bad)?);
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            _ => found.push(socket(body).ok_or_else(bad)?),
        }
        rest = rest.get(padded(length)..).unwrap_or_default();
    }
    // Nothing at all: there will be no more of it.
    Ok(part.is_empty())
}

fn socket(body: &[u8]) -> Option<Listening> {
    let port = u16::from_be_bytes(bytes(body, 4)?);
    let address: IpAddr = match *body.first()? {
        diag::AF_INET => Ipv4Addr::from(bytes::<4>(body, 8)?).into(),
        _ => IpAddr::from(Ipv6Addr::from(bytes::<16>(body, 8)?)).to_canonical(),
    };
    let mut only = address.is_ipv4();
    let mut cgroup = 0;
    let mut attributes = body.get(diag::SOCKET..)?;
    while let (Some(length), Some(kind)) = (bytes(attributes, 0), bytes(attributes, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        if u16::from_ne_bytes(kind) == diag::ONLY_V6 {
            only |= attributes.get(4).is_some_and(|value| *value != 0);
        }
        if u16::from_ne_bytes(kind) == diag::CGROUP {
            cgroup = u64::from_ne_bytes(bytes(attributes, 4)?);
        }
        // Shorter than its own header is no attribute.
        attributes = attributes.get(padded(length.max(4))..).unwrap_or_default();
    }
    Some(Listening {
        addr: SocketAddr::new(address, port),
        both: !only,
        user: u32::from_ne_bytes(bytes(body, diag::USER)?),
        inode: u32::from_ne_bytes(bytes(body, diag::INODE)?),
        cgroup,
    })
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "ebpf")]
    use crate::steer::place::{Network, Ports};
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
    fn answers_that_are_cut_short_are_errors() {
        let mut found = Vec::new();
        let mut done = vec![0; 20];
        done[0..4].copy_from_slice(&20_u32.to_ne_bytes());
        done[4..6].copy_from_slice(&diag::NLMSG_DONE.to_ne_bytes());
        assert!(read(&done, &mut found).unwrap());
        assert!(read(&done[..19], &mut found).is_err());
        assert!(read(&[1], &mut found).is_err());
        assert!(read(&[], &mut found).unwrap());
        done[4..6].copy_from_slice(&diag::NLMSG_ERROR.to_ne_bytes());
        done[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(read(&done, &mut found).unwrap_err().raw_os_error(), Some(1));
        done[4..6].copy_from_slice(&diag::SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert!(read(&done, &mut found).is_err());
        let mut body = vec![0; diag::SOCKET];
        body[0] = diag::AF_INET6;
        assert!(socket(&body).unwrap().both);
        body.extend([0, 0, 0, 0]);
        assert!(socket(&body).is_some());
        assert!(socket(&body[..40]).is_none());
        assert!(found.is_empty());
    }
}
