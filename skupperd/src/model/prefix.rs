//! Prefixes of addresses that a host gives to its services.

use ipnet::IpNet;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// Ranges that a service prefix may be part of, with the shortest prefix: a host that takes more
/// for itself can not reach it elsewhere.
const RANGES: [(&str, u8); 6] = [
    ("10.0.0.0/8", 16),
    ("172.16.0.0/12", 16),
    ("192.168.0.0/16", 16),
    ("100.64.0.0/10", 16),
    ("198.18.0.0/15", 16),
    ("fc00::/7", 64),
];

/// Addresses for services, of a range for private use, that no interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePrefix(IpNet);

impl ServicePrefix {
    pub fn network(&self) -> IpNet {
        self.0
    }

    /// Number of addresses for services. Of IPv4 the first and the last are left out: clients may
    /// take them for the network's and the broadcast address.
    pub fn size(&self) -> u128 {
        match self.0 {
            IpNet::V4(net) => match 1_u128 << 32_u8.saturating_sub(net.prefix_len()) {
                all @ (1 | 2) => all,
                all => all - 2,
            },
            IpNet::V6(net) => 1_u128
                .checked_shl(128_u32.saturating_sub(net.prefix_len().into()))
                .unwrap_or(u128::MAX),
        }
    }

    /// The address of a number below [`Self::size`].
    pub fn nth(&self, n: u128) -> IpAddr {
        match self.0 {
            IpNet::V4(net) => {
                let skipped = u32::from(net.prefix_len() < 31);
                // A prefix of IPv4 has fewer than 2^32.
                let bits = net.network().to_bits();
                Ipv4Addr::from_bits(bits.wrapping_add(n as u32).wrapping_add(skipped)).into()
            }
            IpNet::V6(net) => {
                std::net::Ipv6Addr::from_bits(net.network().to_bits().wrapping_add(n)).into()
            }
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for ServicePrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse::<IpNet>().ok();
        let net = net.filter(|net| net.trunc() == *net);
        let net = net.ok_or_else(|| format!("{text:?} is not a prefix such as 198.18.7.0/24"))?;
        let ranges = RANGES.map(|(range, shortest)| (range.parse::<IpNet>(), shortest));
        let within = ranges
            .iter()
            .find(|(range, _)| range.as_ref().is_ok_and(|range| range.contains(&net)));
        match within {
            None => Err(format!(
                "{text} is not part of a range for private use: {}",
                RANGES.map(|(range, _)| range).join(", ")
            )),
            Some((_, shortest)) if net.prefix_len() < *shortest => {
                Err(format!("{text} is too large: use /{shortest} or longer"))
            }
            Some(_) => Ok(Self(net)),
        }
    }
}

impl fmt::Display for ServicePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_private_ranges_are_read_and_others_refused() {
        for good in [
            "10.77.0.0/16",
            "198.18.7.0/24",
            "192.168.5.9/32",
            "fd12:3456::/64",
        ] {
            assert_eq!(good.parse::<ServicePrefix>().unwrap().to_string(), good);
        }
        for (bad, why) in [
            ("", "not a prefix"),
            ("10.1.2.3", "not a prefix"),
            ("10.1.2.3/24", "not a prefix"),
            ("10.0.0.0/33", "not a prefix"),
            ("10.0.0.0/-1", "not a prefix"),
            ("fd00::/129", "not a prefix"),
            ("10.0.0.0/8", "too large"),
            ("fd00::/48", "too large"),
            ("0.0.0.0/0", "private use"),
            ("8.8.8.0/24", "private use"),
            ("127.0.0.0/16", "private use"),
            ("2001:db8::/64", "private use"),
        ] {
            let error = bad.parse::<ServicePrefix>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_prefix_contains_its_addresses() {
        let prefix: ServicePrefix = "198.18.7.0/24".parse().unwrap();
        assert!(prefix.contains("198.18.7.255".parse().unwrap()));
        assert!(!prefix.contains("198.18.8.0".parse().unwrap()));
        assert!(!prefix.contains("fd00::1".parse().unwrap()));
    }

    #[test]
    fn addresses_for_services_are_counted() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (prefix, size, first, last) in [
            ("198.18.7.0/24", 254, "198.18.7.1", "198.18.7.254"),
            ("198.18.7.4/30", 2, "198.18.7.5", "198.18.7.6"),
            ("198.18.7.4/31", 2, "198.18.7.4", "198.18.7.5"),
            ("198.18.7.4/32", 1, "198.18.7.4", "198.18.7.4"),
            ("fd00::/64", 1 << 64, "fd00::", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::7/128", 1, "fd00::7", "fd00::7"),
        ] {
            let prefix: ServicePrefix = prefix.parse().unwrap();
            assert_eq!(prefix.size(), size);
            assert_eq!(prefix.nth(0), ip(first));
            assert_eq!(prefix.nth(size - 1), ip(last));
        }
    }
}
