//! Map types that the BPF programs and the daemon share.
//!
//! Only 32- and 64-bit words in host byte order, unless a field says otherwise, without implicit
//! padding: byte arrays and holes make the verifier require `CAP_PERFMON`, which the daemon does
//! not have.

#![cfg_attr(not(test), no_std)]

pub mod hop;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Capacity of the map of bindings. Each port of a range is one binding.
pub const MAX_BINDINGS: u32 = 1 << 16;

/// Number of counters. Each takes 24 bytes for every processor.
pub const MAX_COUNTERS: u32 = 8192;

/// Capacity of the map of accept sockets.
pub const MAX_SOCKETS: u32 = 4096;

/// Bits of a [`Destination`] before its address: family, protocol and port must match exactly.
pub const FIXED_BITS: u32 = 32;

/// Port number that means all ports without a binding of their own.
pub const ALL_PORTS: u16 = 0;

/// Value of [`Binding::sockets`]: connections are left alone, as without a binding.
pub const LEFT_ALONE: u32 = u32::MAX;

/// Protocol number of TCP, the only protocol that is steered.
pub const TCP: u32 = 6;

/// Destination of a connection: the key of the bindings, matched by longest prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// IP version in the highest byte, protocol number in the next, port in the lower half.
    pub service: u32,
    /// Address in network byte order; IPv4 uses the first word only.
    pub address: [u32; 4],
}

impl Destination {
    /// A TCP port of an address in network byte order; IPv4 in the first word.
    #[inline(always)]
    pub const fn tcp(version: u32, address: [u32; 4], port: u16) -> Self {
        Self {
            service: version << 24 | TCP << 16 | port as u32,
            address,
        }
    }

    /// A TCP port of an address.
    pub fn of(address: IpAddr, port: u16) -> Self {
        match address {
            IpAddr::V4(v4) => Self::tcp(4, [u32::from_ne_bytes(v4.octets()), 0, 0, 0], port),
            IpAddr::V6(v6) => Self::tcp(6, words(v6), port),
        }
    }

    /// The inverse of [`Self::of`].
    pub fn address_and_port(&self) -> (IpAddr, u16) {
        let port = self.service as u16;
        if self.service >> 24 == 4 {
            let address = Ipv4Addr::from(self.address[0].to_ne_bytes());
            return (address.into(), port);
        }
        let mut octets = [0; 16];
        for (n, word) in self.address.iter().enumerate() {
            octets[4 * n..4 * n + 4].copy_from_slice(&word.to_ne_bytes());
        }
        (Ipv6Addr::from(octets).into(), port)
    }

    /// Significant bits of a key for `address/prefix`, for the longest-prefix map.
    pub const fn key_bits(prefix: u8) -> u32 {
        FIXED_BITS + prefix as u32
    }
}

fn words(address: Ipv6Addr) -> [u32; 4] {
    let o = address.octets();
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

/// Which accept sockets take the connections of a binding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Index of the first socket in the socket map.
    pub first: u32,
    /// Number of sockets; with 0, connections are refused.
    pub sockets: u32,
    /// Index of the binding's [`Counters`], never [`UNBOUND`].
    pub slot: u32,
    /// Bits of the address in its key.
    pub prefix: u32,
}

impl Binding {
    /// The socket for a connection with this hash. Always the same one, because the kernel runs the
    /// program again when a client repeats its SYN or answers a SYN cookie.
    #[inline(always)]
    pub const fn socket(&self, hash: u32) -> u32 {
        // A multiplication spreads like a modulo and is a single instruction.
        self.first + ((hash as u64 * self.sockets as u64) >> 32) as u32
    }
}

/// Chooses between the binding of a port and that of all ports: the longer prefix wins, then the
/// port.
#[inline(always)]
pub fn nearer<'a>(port: Option<&'a Binding>, all: Option<&'a Binding>) -> Option<&'a Binding> {
    match (port, all) {
        (Some(port), Some(all)) if all.prefix > port.prefix => Some(all),
        (None, all) => all,
        (port, _) => port,
    }
}

/// Slot of connections without a binding.
pub const UNBOUND: u32 = 0;

/// Slot of the connections of all listeners together.
pub const LISTENERS: u32 = 1;

/// Slot of connections to the accept sockets' own addresses.
pub const OWN: u32 = 2;

/// The first slot for a single listener.
pub const FIRST: u32 = 3;

/// Index of the socket that exists as long as a process owns the bindings. Without it the bindings
/// are leftovers and have no effect.
pub const LIFE: u32 = 0;

/// Identifies the layout of the maps. Maps of another layout cannot be reused.
pub const LAYOUT: u64 = {
    // Increment when the meaning of a word changes and no size does.
    const MEANING: u64 = 1;
    let sizes = [
        size_of::<Destination>() as u64,
        size_of::<Binding>() as u64,
        size_of::<Counters>() as u64,
        MAX_BINDINGS as u64,
        MAX_COUNTERS as u64,
        MAX_SOCKETS as u64,
    ];
    let mut word = MEANING;
    let mut n = 0;
    while n < sizes.len() {
        word = word.wrapping_mul(0x100_0000_01b3) ^ sizes[n];
        n += 1;
    }
    word
};

/// Counters of a binding's connections, per processor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Assigned to an accept socket.
    pub steered: u64,
    /// Refused, because the binding had no socket.
    pub refused: u64,
    /// Left alone; counted in the slot [`UNBOUND`] only.
    pub passed: u64,
}

/// Hash of a connection's remote end, for load spreading only: a client can choose its socket, but
/// gains nothing.
#[inline(always)]
pub const fn spread(address: [u32; 4], port: u32) -> u32 {
    // The golden ratio in 32 bits: its multiples spread over the upper bits, which
    // `Binding::socket` uses.
    const GOLDEN: u32 = 0x9e37_79b1;
    let folded = address[0] ^ address[1] ^ address[2] ^ address[3];
    let mixed = (folded ^ folded >> 15).wrapping_mul(GOLDEN) ^ port;
    (mixed ^ mixed >> 16).wrapping_mul(GOLDEN)
}

const _: () = assert!(size_of::<Destination>() == 20 && align_of::<Destination>() == 4);
const _: () = assert!(size_of::<Binding>() == 16 && align_of::<Binding>() == 4);
const _: () = assert!(size_of::<Counters>() == 24 && align_of::<Counters>() == 8);

// SAFETY: plain words without padding, valid for every bit pattern.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Destination {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Binding {}
// SAFETY: as above.
#[cfg(feature = "user")]
unsafe impl aya::Pod for Counters {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(destination: Destination) -> Vec<u8> {
        core::iter::once(destination.service)
            .chain(destination.address)
            .flat_map(u32::to_ne_bytes)
            .collect()
    }

    /// The map compares keys byte by byte, from the first.
    fn common_bits(a: &[u8], b: &[u8]) -> u32 {
        let mut bits = 0;
        for (a, b) in a.iter().zip(b) {
            bits += (a ^ b).leading_zeros();
            if a != b {
                break;
            }
        }
        bits
    }

    #[test]
    fn addresses_keep_packet_order() {
        let v4 = Destination::of("192.0.2.7".parse().unwrap(), 80);
        assert_eq!(bytes(v4)[4..8], [192, 0, 2, 7]);
        let v6 = Destination::of("2001:db8::1:2".parse().unwrap(), 80);
        assert_eq!(bytes(v6)[4..8], [0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(bytes(v6)[16..], [0, 1, 0, 2]);
    }

    #[test]
    fn a_destination_gives_its_address_back() {
        for (address, port) in [("192.0.2.7", 80), ("2001:db8::7", 65535), ("::", 1)] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                Destination::of(address, port).address_and_port(),
                (address, port)
            );
        }
    }

    #[test]
    fn a_prefix_matches_as_many_bits_as_it_says() {
        let key = bytes(Destination::of("192.0.2.0".parse().unwrap(), 80));
        let inside = bytes(Destination::of("192.0.2.255".parse().unwrap(), 80));
        let outside = bytes(Destination::of("192.0.3.0".parse().unwrap(), 80));
        assert!(common_bits(&key, &inside) >= Destination::key_bits(24));
        assert!(common_bits(&key, &outside) < Destination::key_bits(24));
    }

    #[test]
    fn the_shortest_prefix_still_tells_ports_and_families_apart() {
        let any4 = bytes(Destination::of("0.0.0.0".parse().unwrap(), 80));
        let any6 = bytes(Destination::of("::".parse().unwrap(), 80));
        let port = bytes(Destination::of("0.0.0.0".parse().unwrap(), 81));
        assert!(common_bits(&any4, &any6) < Destination::key_bits(0));
        assert!(common_bits(&any4, &port) < Destination::key_bits(0));
    }

    #[test]
    fn sockets_stay_inside_the_binding() {
        let binding = Binding {
            first: 8,
            sockets: 4,
            slot: 0,
            prefix: 32,
        };
        assert_eq!(binding.socket(0), 8);
        assert_eq!(binding.socket(u32::MAX), 11);
    }

    #[test]
    fn the_longer_prefix_has_it_and_then_the_port() {
        let of = |prefix| Binding {
            first: 0,
            sockets: 1,
            slot: 0,
            prefix,
        };
        let (short, long) = (of(16), of(32));
        for (port, all, wins) in [
            (None, None, None),
            (Some(&short), None, Some(16)),
            (None, Some(&short), Some(16)),
            (Some(&short), Some(&long), Some(32)),
            (Some(&long), Some(&short), Some(32)),
        ] {
            assert_eq!(nearer(port, all).map(|b| b.prefix), wins);
        }
        let port = Binding { slot: 7, ..of(32) };
        assert_eq!(nearer(Some(&port), Some(&long)), Some(&port));
    }

    #[test]
    fn consecutive_ports_of_one_client_spread_evenly() {
        let client = [u32::from_ne_bytes([192, 0, 2, 7]), 0, 0, 0];
        for sockets in [2, 3, 8, 64] {
            let binding = Binding {
                first: 0,
                sockets,
                slot: 0,
                prefix: 32,
            };
            let mut taken = vec![0u32; sockets as usize];
            // The kernel assigns every second port to clients; in network byte order.
            for port in (32768u16..60999).step_by(2) {
                taken[binding.socket(spread(client, u32::from(port.to_be()))) as usize] += 1;
            }
            let mean = taken.iter().sum::<u32>() / sockets;
            let (least, most) = (*taken.iter().min().unwrap(), *taken.iter().max().unwrap());
            assert!(
                least > mean * 7 / 10 && most < mean * 13 / 10,
                "{sockets}: {taken:?}"
            );
        }
    }

    #[test]
    fn clients_with_the_same_port_spread_evenly() {
        let binding = Binding {
            first: 0,
            sockets: 4,
            slot: 0,
            prefix: 32,
        };
        let mut taken = [0u32; 4];
        for host in 0..1024u32 {
            let octets = (0x0a00_0000 + host).to_be_bytes();
            let client = [u32::from_ne_bytes(octets), 0, 0, 0];
            taken[binding.socket(spread(client, u32::from(40000u16.to_be()))) as usize] += 1;
        }
        assert!(taken.iter().all(|n| (180..=332).contains(n)), "{taken:?}");
    }
}
