//! How much waits unread at a TCP socket of this network namespace, whoever has it.

use crate::steer::netlink::{About, IPV4, IPV6, Netlink, attributes, bytes};
use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
};

/// From linux/sock_diag.h and linux/inet_diag.h.
mod nl {
    pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
    pub(super) const TCP: u8 = 6;
    /// Attribute with the memory of a socket; its first word is what waits to be read.
    pub(super) const SKMEMINFO: u16 = 7;
    /// Of an answer, before its attributes.
    pub(super) const MESSAGE: usize = 72;
}

thread_local! {
    static KERNEL: RefCell<Option<Netlink>> = const { RefCell::new(None) };
}

/// Bytes that wait at the socket with the address `at` that is connected to `from`, with what the
/// kernel needs to keep those that TCP brought. 0: all was read.
pub(super) fn unread(at: SocketAddr, from: SocketAddr) -> io::Result<u64> {
    KERNEL.with_borrow_mut(|kept| {
        let kernel = match kept.take() {
            Some(kernel) => kernel,
            None => Netlink::open(About::Sockets)?,
        };
        let asked = kernel.ask(nl::SOCK_DIAG_BY_FAMILY, 0, &request(at, from));
        // That there is no such socket is an answer, too.
        *kept = Some(kernel);
        let (_, answer) = asked?;
        read(&answer)
    })
}

fn request(at: SocketAddr, from: SocketAddr) -> Vec<u8> {
    let family = if at.ip().to_canonical().is_ipv4() {
        IPV4
    } else {
        IPV6
    };
    let mut body = vec![family, nl::TCP, 1 << (nl::SKMEMINFO - 1), 0];
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

fn read(answer: &[u8]) -> io::Result<u64> {
    let short = || io::Error::other("a short answer about a socket");
    let said = answer.get(nl::MESSAGE..).ok_or_else(short)?;
    let memory = attributes(said).find(|(kind, _)| *kind == nl::SKMEMINFO);
    let unread = memory.and_then(|(_, value)| bytes(value, 0));
    unread
        .map(|word| u64::from(u32::from_ne_bytes(word)))
        .ok_or_else(short)
}
