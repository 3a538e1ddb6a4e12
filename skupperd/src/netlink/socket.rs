//! Asking the kernel over netlink, of whichever network namespace a socket was made in.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    cell::Cell,
    io::{self, Read, Write},
    time::Duration,
};

/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(5);
/// Room for one part of an answer; the kernel makes none larger.
const PART: usize = 32 * 1024;
/// Room for an answer that is one message.
const ONE: usize = 4096;

/// From linux/socket.h and linux/netlink.h.
const AF_NETLINK: i32 = 16;
const HEADER: usize = 16;
/// Kind of a message: an error number, 0 for none.
pub(crate) const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Flags of a message.
pub(crate) const REQUEST: u16 = 0x001;
pub(crate) const ACK: u16 = 0x004;
const DUMP: u16 = 0x300;

/// Families of addresses, as the kernel numbers them.
pub(crate) const IPV4: u8 = 2;
pub(crate) const IPV6: u8 = 10;

/// Whom of the kernel to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NetlinkFamily {
    /// `NETLINK_ROUTE`.
    Routes = 0,
    /// `NETLINK_SOCK_DIAG`: sockets.
    Sockets = 4,
}

/// A socket to ask by.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    /// Sequence number of the last request; answers to earlier ones are ignored.
    last_request: Cell<u32>,
}

impl Netlink {
    /// One of this thread's network namespace.
    pub(crate) fn open(family: NetlinkFamily) -> io::Result<Self> {
        let protocol = Some(Protocol::from(family as i32));
        let domain = Domain::from(AF_NETLINK);
        Self::of(Socket::new(domain, Type::RAW.cloexec(), protocol)?)
    }

    /// One that was made elsewhere.
    pub(crate) fn of(socket: Socket) -> io::Result<Self> {
        socket.set_read_timeout(Some(ANSWER))?;
        Ok(Self {
            socket,
            last_request: Cell::new(0),
        })
    }

    /// The socket, to be given to another process.
    pub(crate) fn into_socket(self) -> Socket {
        self.socket
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<u32> {
        let number = self.last_request.get().wrapping_add(1);
        self.last_request.set(number);
        (&self.socket).write_all(&message(kind, flags, number, body))?;
        Ok(number)
    }

    /// Asks what is answered by one message; its kind and what follows its header. The kernel's
    /// error is one here.
    pub(crate) fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let number = self.send(kind, flags | REQUEST, body)?;
        let mut part = [0; ONE];
        loop {
            let received = (&self.socket).read(&mut part)?;
            let message = NetlinkMessage::first(part.get(..received).unwrap_or_default())?;
            if message.number == number {
                message.error()?;
                return Ok((message.kind, message.body.to_vec()));
            }
        }
    }

    /// Asks for all there is; `each` is given what follows the header of each message.
    pub(crate) fn dump(
        &self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let number = self.send(kind, REQUEST | DUMP, body)?;
        let mut part = vec![0; PART];
        loop {
            let received = (&self.socket).read(&mut part)?;
            let part = part.get(..received).unwrap_or_default();
            if read(part, number, &mut each)? {
                return Ok(());
            }
        }
    }
}

/// Reads a part of the answer; true when it was the last.
fn read(
    part: &[u8],
    number: u32,
    each: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut rest = part;
    while !rest.is_empty() {
        let message = NetlinkMessage::first(rest)?;
        rest = rest.get(padded(message.length)..).unwrap_or_default();
        if message.number != number {
            continue;
        }
        message.error()?;
        match message.kind {
            DONE => return Ok(true),
            _ => each(message.body)?,
        }
    }
    // Nothing at all: there will be no more of it.
    Ok(part.is_empty())
}

/// A message of the kernel's.
struct NetlinkMessage<'a> {
    length: usize,
    kind: u16,
    number: u32,
    body: &'a [u8],
}

impl<'a> NetlinkMessage<'a> {
    fn first(part: &'a [u8]) -> io::Result<Self> {
        let length = u32::from_ne_bytes(bytes(part, 0).ok_or_else(malformed)?) as usize;
        Ok(Self {
            length,
            kind: u16::from_ne_bytes(bytes(part, 4).ok_or_else(malformed)?),
            number: u32::from_ne_bytes(bytes(part, 8).ok_or_else(malformed)?),
            body: part.get(HEADER..length).ok_or_else(malformed)?,
        })
    }

    fn error(&self) -> io::Result<()> {
        if self.kind != ERROR {
            return Ok(());
        }
        match i32::from_ne_bytes(bytes(self.body, 0).ok_or_else(malformed)?) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        }
    }
}

/// The error for a malformed answer.
pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

fn message(kind: u16, flags: u16, number: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    // The port of the sender, which the kernel knows.
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// The attributes of a message: their kinds and values.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes(rest, 0)?));
        let kind = u16::from_ne_bytes(bytes(rest, 2)?);
        // Shorter than its own header is no attribute.
        let value = rest.get(4..length)?;
        rest = rest.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `N` bytes from offset `at`.
pub(crate) fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, number: u32, body: &[u8]) -> Vec<u8> {
        message(kind, 0, number, body)
    }

    #[test]
    fn answers_that_are_cut_short_are_errors_and_those_to_others_are_passed_over() {
        let mut found = Vec::new();
        let mut each = |body: &[u8]| {
            found.push(body.to_vec());
            Ok(())
        };
        let done = answer(DONE, 7, &[0; 4]);
        assert!(read(&done, 7, &mut each).unwrap());
        assert!(read(&done[..19], 7, &mut each).is_err());
        assert!(read(&[1], 7, &mut each).is_err());
        assert!(read(&[], 7, &mut each).unwrap());
        let parts = [answer(20, 6, b"old!"), answer(20, 7, b"new!")].concat();
        assert!(!read(&parts, 7, &mut each).unwrap());
        let error = answer(ERROR, 7, &(-1_i32).to_ne_bytes());
        let error = read(&error, 7, &mut each).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        assert_eq!(found, [b"new!"]);
    }

    #[test]
    fn a_kernel_error_becomes_an_io_error() {
        let of =
            |body: &[u8]| NetlinkMessage::first(&answer(ERROR, 1, body)).and_then(|m| m.error());
        assert!(of(&0_i32.to_ne_bytes()).is_ok());
        let exists = of(&(-17_i32).to_ne_bytes()).unwrap_err();
        assert_eq!(exists.raw_os_error(), Some(17));
        assert!(of(&i32::MIN.to_ne_bytes()).is_err());
        assert!(of(&[0; 3]).is_err());
        assert!(NetlinkMessage::first(&[]).is_err());
    }

    #[test]
    fn attributes_end_at_an_invalid_length() {
        let good = [8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9, 0, 0, 0];
        let all: Vec<_> = attributes(&good).collect();
        assert_eq!(all, [(1, &[1, 2, 3, 4][..]), (2, &[9][..])]);
        assert_eq!(attributes(&[0, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 0, 0]).count(), 0);
    }
}
