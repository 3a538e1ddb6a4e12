//! What the kernel knows of how a connection sends.

use nix::libc;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Offsets in `struct tcp_info` of linux/tcp.h, which grows at its end only.
const NOTSENT_BYTES: usize = 144;
const DELIVERY_RATE: usize = 160;
const SIZE: usize = DELIVERY_RATE + 8;

/// How a TCP connection sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendState {
    /// Bytes per second that have arrived at the peer; 0 when that was not measured yet.
    pub rate: u64,
    /// Bytes that the kernel has taken and not sent yet.
    pub unsent: u32,
}

/// How a TCP connection sends. Fails before Linux 4.9, which does not measure the rate.
pub fn send_state(socket: BorrowedFd<'_>) -> io::Result<SendState> {
    let mut info = [0u8; SIZE];
    let mut size = SIZE as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to where `info` is.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if (size as usize) < SIZE {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (mut rate, mut unsent) = ([0; 8], [0; 4]);
    rate.copy_from_slice(&info[DELIVERY_RATE..SIZE]);
    unsent.copy_from_slice(&info[NOTSENT_BYTES..NOTSENT_BYTES + 4]);
    Ok(SendState {
        rate: u64::from_ne_bytes(rate),
        unsent: u32::from_ne_bytes(unsent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    #[test]
    fn unsent_bytes_and_the_rate_are_those_of_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Accepted sockets inherit the size.
        SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(send_state(ours.as_fd()).unwrap().unsent, 0);
        ours.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let part = vec![0; 65536];
        while let Ok(n) = ours.write(&part) {
            sent += n;
        }
        let unsent = send_state(ours.as_fd()).unwrap().unsent as usize;
        assert!(0 < unsent && unsent < sent, "{unsent} of {sent}");
        let mut all = vec![0; sent];
        peer.read_exact(&mut all).unwrap();
        let state = send_state(ours.as_fd()).unwrap();
        assert!(state.rate > 0, "{state:?}");
    }
}
