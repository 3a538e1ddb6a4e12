//! Addresses for services that no interface has: a local route makes a whole prefix this host's own,
//! so that a hundred services can have an address each and the port that their clients expect.

use super::netlink::{ACK, About, ERROR, IPV4, IPV6, Netlink, bad};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

/// By this number routes are known as ours: nobody else's is ever removed. `ip route show table
/// local proto 83` lists them.
const OURS: u8 = 83;
/// The interface of loopback, in every network namespace.
const LOOPBACK: u32 = 1;

/// From linux/netlink.h and linux/rtnetlink.h.
mod rt {
    pub(super) const RTM_NEWROUTE: u16 = 24;
    pub(super) const RTM_DELROUTE: u16 = 25;
    pub(super) const RTM_GETROUTE: u16 = 26;
    pub(super) const CREATE_EXCL: u16 = 0x600;
    pub(super) const TABLE_LOCAL: u8 = 255;
    pub(super) const SCOPE_HOST: u8 = 254;
    pub(super) const TYPE_LOCAL: u8 = 2;
    pub(super) const RTA_DST: u16 = 1;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const ESRCH: i32 = 3;
}

/// Addresses that belong together, of a range that is for private use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Ranges of which a prefix may be a part, with how large it may be: what a host takes for itself it
/// can not reach elsewhere.
const RANGES: [(IpAddr, u8, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8, 16),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12, 16),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16, 16),
    (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10, 16),
    (IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15, 16),
    (
        IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)),
        7,
        64,
    ),
];

impl Prefix {
    /// Number of addresses for services. Of IPv4 the first and the last are left out, which clients
    /// may take for the network's and everybody's.
    pub fn size(&self) -> u128 {
        match (self.address, 128_u32.saturating_sub(self.bits.into())) {
            (IpAddr::V4(_), _) => match 1_u128 << 32_u8.saturating_sub(self.bits) {
                all @ (1 | 2) => all,
                all => all - 2,
            },
            (IpAddr::V6(_), bits) => 1_u128.checked_shl(bits).unwrap_or(u128::MAX),
        }
    }

    /// One of them, by a number below their number.
    pub fn nth(&self, n: u128) -> IpAddr {
        match self.address {
            IpAddr::V4(a) => {
                let skipped = u32::from(self.bits < 31);
                // A prefix of IPv4 has fewer than 2^32.
                Ipv4Addr::from_bits(a.to_bits().wrapping_add(n as u32).wrapping_add(skipped)).into()
            }
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits().wrapping_add(n)).into(),
        }
    }

    /// Whether an address is one of these.
    pub fn contains(&self, address: IpAddr) -> bool {
        common(self.address, address) >= u32::from(self.bits)
    }
}

/// Bits that two addresses begin with alike.
fn common(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a prefix, as 198.18.7.0/24 is");
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let host_bits = match address {
            IpAddr::V4(a) => 32_u32.saturating_sub(a.to_bits().trailing_zeros()),
            IpAddr::V6(a) => 128_u32.saturating_sub(a.to_bits().trailing_zeros()),
        };
        if bits > if address.is_ipv4() { 32 } else { 128 } || host_bits > u32::from(bits) {
            return Err(bad());
        }
        let range = RANGES.iter().find(|(range, shared, _)| {
            range.is_ipv4() == address.is_ipv4()
                && common(*range, address) >= u32::from(*shared)
                && bits >= *shared
        });
        let Some((_, _, least)) = range else {
            return Err(format!(
                "{text} is not of a range for private use: 10.0.0.0/8, 172.16.0.0/12, \
                 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15, fc00::/7"
            ));
        };
        if bits < *least {
            return Err(format!("{text} is too large: /{least} at most"));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// A route could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{op} the local route of {prefix}: {source}")]
pub struct RouteError {
    op: &'static str,
    prefix: Prefix,
    source: io::Error,
}

/// The local routes of this process, with the number of sites that want each, and who has which of
/// the addresses that are given out. Dropping this removes the routes.
#[derive(Debug, Default)]
pub struct Routes {
    held: Mutex<BTreeMap<Prefix, usize>>,
    claims: Mutex<BTreeMap<IpAddr, String>>,
}

impl Routes {
    /// Makes a prefix this host's own. One that another program has made its own is an error.
    pub fn add(&self, prefix: Prefix) -> Result<(), RouteError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sites) = held.get_mut(&prefix) {
            *sites += 1;
            return Ok(());
        }
        let flags = ACK | rt::CREATE_EXCL;
        change(rt::RTM_NEWROUTE, flags, prefix).map_err(|source| RouteError {
            op: "adding",
            prefix,
            source,
        })?;
        held.insert(prefix, 1);
        Ok(())
    }

    /// Takes back one [`Self::add`].
    pub fn remove(&self, prefix: Prefix) -> Result<(), RouteError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sites) = held.get_mut(&prefix).filter(|sites| **sites > 1) {
            *sites -= 1;
            return Ok(());
        }
        match held.remove(&prefix) {
            Some(_) => delete(prefix),
            None => Ok(()),
        }
    }

    /// Gives an address to a claimant, who may have it already. False: another has it.
    pub fn claim(&self, address: IpAddr, claimant: &str) -> bool {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.entry(address).or_insert_with(|| claimant.to_owned()) == claimant
    }

    /// Takes back what a claimant has.
    pub fn release(&self, address: IpAddr, claimant: &str) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.get(&address).is_some_and(|has| has == claimant) {
            claims.remove(&address);
        }
    }

    /// Removes what an earlier life of this process has left, if it has.
    pub fn forget(&self, prefix: Prefix) -> Result<(), RouteError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains_key(&prefix) {
            return Ok(());
        }
        delete(prefix)
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for prefix in std::mem::take(held).into_keys() {
            if let Err(error) = delete(prefix) {
                tracing::error!(%error, "service addresses");
            }
        }
    }
}

/// Whether this host takes an address for its own, which one that no interface has can be too.
pub(super) fn is_local(address: IpAddr) -> bool {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let one = Prefix { address, bits };
    let kernel = Netlink::open(About::Routes);
    let asked =
        kernel.and_then(|kernel| kernel.ask(rt::RTM_GETROUTE, 0, &route(rt::RTM_GETROUTE, one)));
    // The type of a route is in the last byte of the second word.
    asked.is_ok_and(|(kind, said)| kind == rt::RTM_NEWROUTE && said.get(7) == Some(&rt::TYPE_LOCAL))
}

/// Deletes a route of ours; that there is none is no fault.
fn delete(prefix: Prefix) -> Result<(), RouteError> {
    match change(rt::RTM_DELROUTE, ACK, prefix) {
        Err(source) if source.raw_os_error() != Some(rt::ESRCH) => Err(RouteError {
            op: "removing",
            prefix,
            source,
        }),
        _ => Ok(()),
    }
}

fn change(what: u16, flags: u16, prefix: Prefix) -> io::Result<()> {
    let kernel = Netlink::open(About::Routes)?;
    match kernel.ask(what, flags, &route(what, prefix))? {
        (ERROR, _) => Ok(()),
        _ => Err(bad()),
    }
}

/// A route and its attributes.
fn route(what: u16, prefix: Prefix) -> Vec<u8> {
    let (family, scope, address) = match prefix.address {
        IpAddr::V4(a) => (IPV4, rt::SCOPE_HOST, a.octets().to_vec()),
        IpAddr::V6(a) => (IPV6, 0, a.octets().to_vec()),
    };
    let mut body = vec![family, prefix.bits, 0, 0];
    body.extend([rt::TABLE_LOCAL, OURS, scope, rt::TYPE_LOCAL]);
    body.extend(0_u32.to_ne_bytes());
    let mut attributes = vec![(rt::RTA_DST, address)];
    if what != rt::RTM_GETROUTE {
        attributes.push((rt::RTA_OIF, LOOPBACK.to_ne_bytes().to_vec()));
    }
    for (kind, value) in attributes {
        // Of 4 or 16 bytes: no padding is needed.
        body.extend((4 + value.len() as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    }
    body
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
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
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
            let error = bad.parse::<Prefix>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_prefix_contains_its_addresses() {
        let prefix: Prefix = "198.18.7.0/24".parse().unwrap();
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
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(prefix.size(), size);
            assert_eq!(prefix.nth(0), ip(first));
            assert_eq!(prefix.nth(size - 1), ip(last));
        }
    }

    #[test]
    fn an_address_is_given_to_one() {
        let routes = Routes::default();
        let address = "198.18.7.1".parse().unwrap();
        assert!(routes.claim(address, "one") && routes.claim(address, "one"));
        assert!(!routes.claim(address, "two"));
        routes.release(address, "two");
        assert!(!routes.claim(address, "two"));
        routes.release(address, "one");
        assert!(routes.claim(address, "two"));
    }

    #[test]
    fn what_is_local_is_known() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(is_local("127.9.8.7".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
        assert!(!is_local("2001:db8::1".parse().unwrap()));
    }
}
