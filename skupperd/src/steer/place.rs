//! What a listener is reached by: a port, a range of ports or all ports, of an address or of a prefix
//! of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first of them.
    address: IpAddr,
    /// Bits that they have in common; none of the address that stands for all.
    bits: u8,
}

impl Network {
    /// One address; the unspecified one stands for all of its family.
    pub fn of(address: IpAddr) -> Self {
        let bits = if address.is_unspecified() {
            0
        } else {
            width(address)
        };
        Self { address, bits }
    }

    /// The addresses that have this many bits in common with one.
    pub fn around(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(width(address));
        let over = u32::from(width(address) - bits);
        let address = match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(over).unwrap_or(0);
                Ipv4Addr::from_bits(a.to_bits() & mask).into()
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(over).unwrap_or(0);
                Ipv6Addr::from_bits(a.to_bits() & mask).into()
            }
        };
        Self { address, bits }
    }

    /// Reads `10.20.0.0/16`, whose other bits are zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let network = Self::around(address, bits);
        (network.address == address && bits <= width(address)).then_some(network)
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that the addresses have in common.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::around(address, self.bits).address == self.address
    }

    /// The address that a socket can be bound to: a single one, or the one that stands for all.
    pub fn bindable(&self) -> Option<IpAddr> {
        (self.bits == 0 || self.bits == width(self.address)).then_some(self.address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bindable() {
            Some(address) => address.fmt(f),
            None => write!(f, "{}/{}", self.address, self.bits),
        }
    }
}

/// Ports of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// A single one.
    One(u16),
    /// From the first to the last.
    Range(u16, u16),
    /// Those that nothing else has.
    All,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(port) => port.fmt(f),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Ports {
    /// Each of them, where they are counted.
    pub fn each(self) -> impl Iterator<Item = u16> {
        let (first, last) = match self {
            Self::One(port) => (port, port),
            Self::Range(first, last) => (first, last),
            Self::All => (1, 0),
        };
        first..=last
    }

    fn contains(self, port: u16) -> bool {
        match self {
            Self::One(one) => one == port,
            Self::Range(first, last) => (first..=last).contains(&port),
            Self::All => true,
        }
    }
}

/// Ports of addresses.
///
/// Of the places that a connection goes to, the one with the longest prefix has it; of those, the one
/// that names its port, then the one with a range, then the one with all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The addresses.
    pub network: Network,
    /// The ports.
    pub ports: Ports,
}

impl Place {
    /// Whether a connection to this address goes here, if nothing that is more specific has it.
    pub fn contains(&self, to: SocketAddr) -> bool {
        self.network.contains(to.ip()) && self.ports.contains(to.port())
    }

    /// What the kernel knows of it: a place for each port, or the one of all ports.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        let all = (self.ports == Ports::All).then_some(self);
        let ports = self.ports.each().map(move |port| self.at(port));
        all.into_iter().chain(ports)
    }

    /// The place of one port here.
    pub(super) fn at(&self, port: u16) -> Self {
        Self {
            ports: Ports::One(port),
            ..*self
        }
    }

    /// Addresses that sockets are bound to in order to have this place and no other; none where
    /// sockets can not do that.
    pub fn sockets(&self) -> Option<Vec<SocketAddr>> {
        let address = self.network.bindable()?;
        if self.ports == Ports::All {
            return None;
        }
        let ports = self.ports.each();
        Some(ports.map(|port| SocketAddr::new(address, port)).collect())
    }
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        Self {
            network: Network::of(addr.ip()),
            ports: Ports::One(addr.port()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network;
        match (self.ports, network.bindable()) {
            (Ports::One(port), Some(address)) => SocketAddr::new(address, port).fmt(f),
            (Ports::One(port), None) => write!(f, "{network} port {port}"),
            (Ports::Range(first, last), _) => write!(f, "{network} ports {first}-{last}"),
            (Ports::All, _) => write!(f, "{network} all ports"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn prefixes_are_read_and_written() {
        for (text, bits) in [
            ("10.20.0.0/16", 16),
            ("0.0.0.0/0", 0),
            ("fd00::/8", 8),
            ("192.0.2.1/32", 32),
        ] {
            assert_eq!(network(text).bits(), bits, "{text}");
        }
        for text in [
            "10.20.0.1/16",
            "10.20.0.0",
            "10.0.0.0/33",
            "::/129",
            "x/8",
            "10.0.0.0/-1",
            "10.0.0.0/+8x",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        assert_eq!(network("10.20.0.0/16").to_string(), "10.20.0.0/16");
        assert_eq!(network("192.0.2.1/32").to_string(), "192.0.2.1");
    }

    #[test]
    fn a_prefix_has_the_addresses_that_begin_like_it() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("10.20.0.0/16").contains(ip("10.20.255.255")));
        assert!(!network("10.20.0.0/16").contains(ip("10.21.0.0")));
        assert!(!network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("::/0").contains(ip("fe80::1")));
        assert!(network("fd12::/16").contains(ip("fd12:1::7")));
        assert_eq!(Network::of(ip("0.0.0.0")), network("0.0.0.0/0"));
        assert_eq!(Network::of(ip("::1")), network("::1/128"));
    }

    #[test]
    fn places_say_what_they_are() {
        let place = |network, ports| Place { network, ports };
        let one = Network::of("127.0.0.1".parse().unwrap());
        let many = network("10.20.0.0/16");
        assert_eq!(place(one, Ports::One(80)).to_string(), "127.0.0.1:80");
        assert_eq!(
            place(many, Ports::One(80)).to_string(),
            "10.20.0.0/16 port 80"
        );
        let range = place(one, Ports::Range(80, 82));
        assert_eq!(range.to_string(), "127.0.0.1 ports 80-82");
        assert_eq!(range.sockets().unwrap().len(), 3);
        assert_eq!(place(one, Ports::All).to_string(), "127.0.0.1 all ports");
        assert_eq!(place(one, Ports::All).sockets(), None);
        assert_eq!(place(many, Ports::One(80)).sockets(), None);
        assert_eq!(Ports::All.each().count(), 0);
        assert_eq!(Ports::Range(65535, 65535).each().count(), 1);
    }
}
