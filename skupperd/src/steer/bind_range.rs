//! The destinations of a listener: a port, a range of ports or all ports, of an address or an
//! address prefix.

#[cfg(feature = "ebpf")]
use crate::netlink::listeners::SocketInfo;
use ipnet::IpNet;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    /// Length of the prefix; 0 for the unspecified address.
    bits: u8,
}

impl Network {
    /// A single address; the unspecified one means all of its family.
    pub fn of(address: IpAddr) -> Self {
        let bits = if address.is_unspecified() {
            0
        } else {
            width(address)
        };
        Self { address, bits }
    }

    /// The prefix of this length that contains an address.
    pub fn containing(address: IpAddr, bits: u8) -> Self {
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

    /// Parses `10.20.0.0/16`. `None` if host bits are set.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
        let network = Self::containing(address, bits);
        (network.address == address && bits <= width(address)).then_some(network)
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of the prefix.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self::containing(address, self.bits).address == self.address
    }

    /// The address that a socket can be bound to; `None` for a real prefix.
    pub fn bindable(&self) -> Option<IpAddr> {
        (self.bits == 0 || self.bits == width(self.address)).then_some(self.address)
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        Self::containing(net.addr(), net.prefix_len())
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    One(u16),
    /// First and last port.
    Range(u16, u16),
    /// All ports without another binding.
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
    /// Each port; nothing for [`Self::All`].
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

///
/// Addresses and ports. Of several that contain a destination, the one with the longest prefix
/// wins; then a single port, then a port range, then all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindRange {
    pub network: Network,
    pub ports: Ports,
}

impl BindRange {
    pub fn contains(&self, to: SocketAddr) -> bool {
        self.network.contains(to.ip()) && self.ports.contains(to.port())
    }

    /// Whether a listening socket takes connections of this range.
    #[cfg(feature = "ebpf")]
    pub(super) fn is_taken_by(&self, listening: &SocketInfo) -> bool {
        let (ip, network) = (listening.addr.ip(), self.network);
        let addresses = if ip.is_unspecified() {
            listening.both || ip.is_ipv4() == network.address().is_ipv4()
        } else {
            network.contains(ip)
        };
        addresses && self.contains(SocketAddr::new(network.address(), listening.addr.port()))
    }

    /// The entries of this range in the kernel: one for each port, or one for all ports.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        let all = (self.ports == Ports::All).then_some(self);
        let ports = self.ports.each().map(move |port| self.with_port(port));
        all.into_iter().chain(ports)
    }

    pub(super) fn with_port(&self, port: u16) -> Self {
        Self {
            ports: Ports::One(port),
            ..*self
        }
    }

    /// Addresses to bind sockets to in order to cover exactly this range; `None` if sockets cannot.
    pub fn sockets(&self) -> Option<Vec<SocketAddr>> {
        let address = self.network.bindable()?;
        if self.ports == Ports::All {
            return None;
        }
        let ports = self.ports.each();
        Some(ports.map(|port| SocketAddr::new(address, port)).collect())
    }
}

impl From<SocketAddr> for BindRange {
    fn from(addr: SocketAddr) -> Self {
        Self {
            network: Network::of(addr.ip()),
            ports: Ports::One(addr.port()),
        }
    }
}

impl fmt::Display for BindRange {
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
    fn bind_ranges_have_a_text_form() {
        let bind_range = |network, ports| BindRange { network, ports };
        let one = Network::of("127.0.0.1".parse().unwrap());
        let many = network("10.20.0.0/16");
        assert_eq!(bind_range(one, Ports::One(80)).to_string(), "127.0.0.1:80");
        assert_eq!(
            bind_range(many, Ports::One(80)).to_string(),
            "10.20.0.0/16 port 80"
        );
        let range = bind_range(one, Ports::Range(80, 82));
        assert_eq!(range.to_string(), "127.0.0.1 ports 80-82");
        assert_eq!(range.sockets().unwrap().len(), 3);
        assert_eq!(
            bind_range(one, Ports::All).to_string(),
            "127.0.0.1 all ports"
        );
        assert_eq!(bind_range(one, Ports::All).sockets(), None);
        assert_eq!(bind_range(many, Ports::One(80)).sockets(), None);
        assert_eq!(Ports::All.each().count(), 0);
        assert_eq!(Ports::Range(65535, 65535).each().count(), 1);
    }

    #[test]
    #[cfg(feature = "ebpf")]
    fn a_socket_on_all_addresses_takes_every_range_of_its_families() {
        let listening = |addr: &str, both| SocketInfo {
            addr: addr.parse().unwrap(),
            both,
            user: 0,
            inode: 0,
            cgroup: 0,
        };
        let bind_range = |text, ports| BindRange {
            network: network(text),
            ports,
        };
        let all = bind_range("10.20.0.0/16", Ports::All);
        let one = bind_range("10.20.0.0/16", Ports::One(80));
        for (listening, takes) in [
            (listening("10.20.3.4:80", false), [true, true]),
            (listening("10.20.3.4:81", false), [true, false]),
            (listening("10.21.3.4:80", false), [false, false]),
            (listening("0.0.0.0:80", false), [true, true]),
            (listening("[::]:80", true), [true, true]),
            (listening("[::]:80", false), [false, false]),
            (listening("[::1]:80", false), [false, false]),
        ] {
            let taken = [all.is_taken_by(&listening), one.is_taken_by(&listening)];
            assert_eq!(taken, takes, "{listening:?}");
        }
    }
}
