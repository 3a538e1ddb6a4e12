//! Map types of acceleration: the hop between a program of this host and the daemon.

use core::net::{IpAddr, SocketAddr};

/// Maximum number of accelerated connections. Each has two sockets in the socket map.
pub const MAX_HOPS: u32 = 32_768;

/// Maximum number of connections that the daemon opens concurrently.
pub const MAX_CONNECTING: u32 = 8_192;

/// Value of accelerated destinations with a prefix of this length: longer prefixes have higher
/// values.
#[inline(always)]
pub const fn on(prefix: u8) -> u32 {
    prefix as u32 + 1
}

/// Address families, from `linux/socket.h`.
pub const IPV4: u32 = 2;
pub const IPV6: u32 = 10;

/// A TCP socket by its addresses. The two sockets of a connection have each other's, swapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Address family, as in `linux/socket.h`.
    pub family: u32,
    /// Local port in the upper half, remote port in the lower.
    pub ports: u32,
    /// Local address in network byte order; IPv4 in the first word.
    pub local: [u32; 4],
    /// Remote address.
    pub remote: [u32; 4],
}

impl Tuple {
    /// The socket with the address `local` that is connected to `remote`.
    pub fn of(local: SocketAddr, remote: SocketAddr) -> Self {
        let key = |at: SocketAddr| crate::Destination::of(at.ip().to_canonical(), at.port());
        Self {
            family: if local.ip().to_canonical().is_ipv4() {
                IPV4
            } else {
                IPV6
            },
            ports: u32::from(local.port()) << 16 | u32::from(remote.port()),
            local: key(local).address,
            remote: key(remote).address,
        }
    }

    /// The addresses of the socket: its own, and that of the other end.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        let address = |words: [u32; 4], port: u32| {
            let mut octets = [0; 16];
            for (part, word) in octets.chunks_exact_mut(4).zip(words) {
                part.copy_from_slice(&word.to_ne_bytes());
            }
            let [a, b, c, d, ..] = octets;
            let ip: IpAddr = match self.family {
                IPV4 => [a, b, c, d].into(),
                _ => octets.into(),
            };
            SocketAddr::new(ip, port as u16)
        };
        (
            address(self.local, self.ports >> 16),
            address(self.remote, self.ports & 0xffff),
        )
    }

    /// The socket at the other end.
    #[must_use]
    #[inline(always)]
    pub const fn peer(&self) -> Self {
        Self {
            family: self.family,
            ports: self.ports.rotate_left(16),
            local: self.remote,
            remote: self.local,
        }
    }
}

/// How a socket's bytes are carried.
pub mod lane_state {
    /// The other socket is not registered yet.
    pub const ALONE: u32 = 0;
    /// Both sockets are registered and nothing was sent.
    pub const FRESH: u32 = 1;
    /// Bytes bypass TCP.
    pub const SHORT: u32 = 2;
    /// TCP carries the bytes, for good.
    pub const TCP: u32 = 3;
}

/// A socket, as the sender of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// One of [`lane_state`].
    pub state: u32,
    /// Not 0 once TCP has sent bytes of this socket.
    pub by_tcp: u32,
    /// Not 0 for a socket of the daemon.
    pub ours: u32,
    /// Explicit padding.
    pub pad: u32,
    /// Bytes that bypassed TCP.
    pub sent: u64,
    /// How many of these were read at the last check.
    pub read: u64,
    /// Value of `sent` when the other socket was last seen to have sent more.
    pub mark: u64,
    /// Bytes that the other socket had sent at that time.
    pub heard: u64,
}

/// Counters, per processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopCounters {
    /// Messages that bypassed TCP.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Registered sockets.
    pub sockets: u64,
    /// Directions that fell back to TCP: streams, and those with a slow reader.
    pub bulk: u64,
    /// Directions never accelerated because TCP had already sent something, or the other socket was
    /// not registered.
    pub late: u64,
}

const _: () = assert!(size_of::<Tuple>() == 40 && align_of::<Tuple>() == 4);
const _: () = assert!(size_of::<Lane>() == 48 && align_of::<Lane>() == 8);
const _: () = assert!(size_of::<HopCounters>() == 40 && align_of::<HopCounters>() == 8);

// SAFETY: plain words without padding, valid for every bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Tuple {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Lane {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for HopCounters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_addresses() {
        for (a, b) in [
            ("192.0.2.7:80", "192.0.2.8:81"),
            ("[2001:db8::7]:80", "[::1]:81"),
        ] {
            let (a, b): (SocketAddr, SocketAddr) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(Tuple::of(a, b).addresses(), (a, b));
            assert_eq!(Tuple::of(a, b).peer(), Tuple::of(b, a));
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:80".parse().unwrap();
        let plain: SocketAddr = "192.0.2.7:80".parse().unwrap();
        assert_eq!(Tuple::of(mapped, mapped), Tuple::of(plain, plain));
    }

    #[test]
    fn the_peer_of_the_peer_is_the_socket() {
        let tuple = Tuple {
            family: 2,
            ports: 1 << 16 | 2,
            local: [1, 2, 3, 4],
            remote: [5, 6, 7, 8],
        };
        assert_eq!(tuple.peer().ports, 2 << 16 | 1);
        assert_eq!(tuple.peer().local, tuple.remote);
        assert_eq!(tuple.peer().peer(), tuple);
    }
}
