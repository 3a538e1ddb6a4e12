//! How much waits unread at a TCP socket of this network namespace, whoever has it.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(1);

/// From linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
mod nl {
    pub(super) const AF_NETLINK: i32 = 16;
    pub(super) const NETLINK_SOCK_DIAG: i32 = 4;
    pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
    pub(super) const ERROR: u16 = 2;
    pub(super) const REQUEST: u16 = 1;
    pub(super) const TCP: u8 = 6;
    pub(super) const IPV4: u8 = 2;
    pub(super) const IPV6: u8 = 10;
    /// Attribute with the memory of a socket; its first word is what waits to be read.
    pub(super) const SKMEMINFO: u16 = 7;
    pub(super) const HEADER: usize = 16;
    /// Of an answer, before its attributes.
    pub(super) const MESSAGE: usize = 72;
}

thread_local! {
    static SOCKET: RefCell<Option<Socket>> = const { RefCell::new(None) };
}

/// Bytes that wait at the socket with the address `at` that is connected to `from`, with what the
/// kernel needs to keep those that TCP brought. 0: all was read.
pub(super) fn unread(at: SocketAddr, from: SocketAddr) -> io::Result<u64> {
    SOCKET.with_borrow_mut(|kept| {
        let mut socket = match kept.take() {
            Some(socket) => socket,
            None => open()?,
        };
        socket.write_all(&request(at, from))?;
        let mut answer = [0; 512];
        let received = socket.read(&mut answer)?;
        let unread = read(answer.get(..received).unwrap_or_default())?;
        // After a failure the next is asked by another socket: an answer may still be coming.
        *kept = Some(socket);
        Ok(unread)
    })
}

fn open() -> io::Result<Socket> {
    let protocol = Protocol::from(nl::NETLINK_SOCK_DIAG);
    let kind = Type::RAW.cloexec();
    let socket = Socket::new(Domain::from(nl::AF_NETLINK), kind, Some(protocol))?;
    socket.set_read_timeout(Some(ANSWER))?;
    Ok(socket)
}

fn request(at: SocketAddr, from: SocketAddr) -> Vec<u8> {
    let family = if at.ip().to_canonical().is_ipv4() {
        nl::IPV4
    } else {
        nl::IPV6
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
    let mut message = Vec::with_capacity(nl::HEADER + body.len());
    message.extend(((nl::HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(nl::SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(nl::REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
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
    let half = |at: usize| {
        let bytes = answer.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_ne_bytes(bytes))
    };
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    if half(4).ok_or_else(short)? == nl::ERROR {
        let number = word(nl::HEADER).ok_or_else(short)? as i32;
        return Err(io::Error::from_raw_os_error(number.wrapping_neg()));
    }
    let mut at = nl::HEADER + nl::MESSAGE;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == nl::SKMEMINFO {
            return word(at + 4).map(u64::from).ok_or_else(short);
        }
        // Attributes begin at multiples of 4.
        at += usize::from(length.max(4)).next_multiple_of(4);
    }
    Err(short())
}
