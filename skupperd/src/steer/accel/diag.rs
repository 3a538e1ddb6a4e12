//! The number of unread bytes of any TCP socket in this network namespace.

use crate::netlink::{
    sock_diag::{self, SOCK_DIAG_BY_FAMILY, SOCKET},
    socket::{Netlink, NetlinkFamily, attributes, bytes},
};
use std::{cell::RefCell, io, net::SocketAddr};

/// Attribute with the memory of a socket; its first word counts unread bytes. From
/// linux/inet_diag.h.
const SKMEMINFO: u16 = 7;

thread_local! {
    static KERNEL: RefCell<Option<Netlink>> = const { RefCell::new(None) };
}

/// Unread bytes of the socket with the address `at` that is connected to `from`, including the
/// kernel's overhead for bytes that TCP delivered. 0 if everything was read.
pub(super) fn unread(at: SocketAddr, from: SocketAddr) -> io::Result<u64> {
    KERNEL.with_borrow_mut(|kept| {
        let kernel = match kept.take() {
            Some(kernel) => kernel,
            None => Netlink::open(NetlinkFamily::Sockets)?,
        };
        let question = sock_diag::one(at, from, 1 << (SKMEMINFO - 1));
        let asked = kernel.ask(SOCK_DIAG_BY_FAMILY, 0, &question);
        // "No such socket" leaves the netlink socket usable.
        *kept = Some(kernel);
        let (_, answer) = asked?;
        read(&answer)
    })
}

fn read(answer: &[u8]) -> io::Result<u64> {
    let short = || io::Error::other("truncated sock_diag answer");
    let answer = answer.get(SOCKET..).ok_or_else(short)?;
    let memory = attributes(answer).find(|(kind, _)| *kind == SKMEMINFO);
    let unread = memory.and_then(|(_, value)| bytes(value, 0));
    unread
        .map(|word| u64::from(u32::from_ne_bytes(word)))
        .ok_or_else(short)
}
