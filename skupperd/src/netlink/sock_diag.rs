//! How the kernel is asked about sockets, and what it answers: linux/sock_diag.h, linux/inet_diag.h.

use crate::netlink::socket::{IPV4, IPV6};
use std::net::{IpAddr, SocketAddr};

/// Kind of the question, and of the answers.
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP: u8 = 6;
/// Bytes of a socket's fixed part, before its attributes.
pub(crate) const SOCKET: usize = 72;

/// The question about all TCP sockets of a family that are in one of these states.
pub(crate) fn all(family: u8, states: u32) -> Vec<u8> {
    let mut body = vec![family, TCP, 0, 0];
    body.extend(states.to_ne_bytes());
    // The identity of a socket, which says nothing here.
    body.extend([0; 48]);
    body
}

/// The question about the TCP socket with the address `at` that is connected to `from`, and for these
/// attributes, as a set.
pub(crate) fn one(at: SocketAddr, from: SocketAddr, attributes: u8) -> Vec<u8> {
    let family = match at.ip().to_canonical() {
        IpAddr::V4(_) => IPV4,
        IpAddr::V6(_) => IPV6,
    };
    let mut body = vec![family, TCP, attributes, 0];
    // In any state.
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(at.port().to_be_bytes());
    body.extend(from.port().to_be_bytes());
    body.extend(address(at.ip()));
    body.extend(address(from.ip()));
    // On any interface; with any cookie.
    body.extend(0_u32.to_ne_bytes());
    body.extend([0xff; 8]);
    body
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}
