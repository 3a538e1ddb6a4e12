//! Owners of address ranges. Workers look up the listener of each steered connection here, without
//! a lock.

use super::bind_range::{BindRange, Network, Ports};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

/// The listener that owns a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub site: u32,
    pub listener: u64,
    pub routing_key: Arc<str>,
    /// Namespace and name.
    pub name: Arc<(String, String)>,
    /// Slot of its counters.
    pub slot: u32,
}

/// Owners by range.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    ports: HashMap<(Network, u16), Owner>,
    /// By first port, with the last port; they do not overlap.
    ranges: HashMap<Network, BTreeMap<u16, (u16, Owner)>>,
    all: HashMap<Network, Owner>,
    /// Prefix lengths in use, for IPv4 and IPv6, with the number of ranges of each.
    lengths: [BTreeMap<u8, usize>; 2],
}

impl Owners {
    /// Gives a range to an owner. False if another owner has an overlapping range.
    pub fn insert(&mut self, range: BindRange, owner: Owner) -> bool {
        let network = range.network;
        match range.ports {
            Ports::One(port) => {
                if self.ports.contains_key(&(network, port)) {
                    return false;
                }
                self.ports.insert((network, port), owner);
            }
            Ports::Range(first, last) => {
                let ranges = self.ranges.entry(network).or_default();
                let before = ranges.range(..=last).next_back();
                if before.is_some_and(|(_, (end, _))| *end >= first) {
                    return false;
                }
                ranges.insert(first, (last, owner));
            }
            Ports::All => {
                if self.all.contains_key(&network) {
                    return false;
                }
                self.all.insert(network, owner);
            }
        }
        *self.lengths(network).entry(network.bits()).or_default() += 1;
        true
    }

    pub fn remove(&mut self, range: BindRange) -> Option<Owner> {
        let network = range.network;
        let removed = match range.ports {
            Ports::One(port) => self.ports.remove(&(network, port)),
            Ports::Range(first, _) => {
                let ranges = self.ranges.get_mut(&network);
                let removed = ranges.and_then(|ranges| ranges.remove(&first));
                if self.ranges.get(&network).is_some_and(BTreeMap::is_empty) {
                    self.ranges.remove(&network);
                }
                removed.map(|(_, owner)| owner)
            }
            Ports::All => self.all.remove(&network),
        };
        let lengths = self.lengths(network);
        if removed.is_some()
            && let Some(count) = lengths.get_mut(&network.bits())
        {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&network.bits());
            }
        }
        removed
    }

    /// All ranges and their owners, unordered.
    #[cfg(feature = "ebpf")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (BindRange, &Owner)> {
        let bind_range = |network, ports| BindRange { network, ports };
        let ports = self.ports.iter();
        let ports = ports
            .map(move |((network, port), owner)| (bind_range(*network, Ports::One(*port)), owner));
        let ranges = self.ranges.iter().flat_map(move |(network, ranges)| {
            let each = ranges.iter();
            each.map(move |(first, (last, owner))| {
                (bind_range(*network, Ports::Range(*first, *last)), owner)
            })
        });
        let all = self.all.iter();
        let all = all.map(move |(network, owner)| (bind_range(*network, Ports::All), owner));
        ports.chain(ranges).chain(all)
    }

    fn lengths(&mut self, network: Network) -> &mut BTreeMap<u8, usize> {
        &mut self.lengths[usize::from(network.address().is_ipv6())]
    }

    /// The owner of a port of exactly these addresses, as a single port or in a port range.
    pub fn of_port(&self, network: Network, port: u16) -> Option<&Owner> {
        let one = self.ports.get(&(network, port));
        one.or_else(|| {
            let (_, (last, owner)) = self.ranges.get(&network)?.range(..=port).next_back()?;
            (*last >= port).then_some(owner)
        })
    }

    /// The owner of all ports of exactly these addresses.
    pub fn of_all(&self, network: Network) -> Option<&Owner> {
        self.all.get(&network)
    }

    /// The owner of a connection's destination.
    pub fn owner(&self, to: SocketAddr) -> Option<&Owner> {
        let lengths = self.lengths[usize::from(to.is_ipv6())].keys().rev();
        let mut networks = lengths.map(|bits| Network::containing(to.ip(), *bits));
        networks.find_map(|network| {
            let named = self.of_port(network, to.port());
            named.or_else(|| self.of_all(network))
        })
    }
}

/// Owners by range, replaced as a whole.
#[derive(Debug, Default)]
pub struct OwnerTable(ArcSwap<Owners>);

impl OwnerTable {
    /// The owner of a connection's destination.
    pub fn owner(&self, to: SocketAddr) -> Option<Owner> {
        self.0.load().owner(to).cloned()
    }

    #[cfg(feature = "ebpf")]
    pub(super) fn all(&self) -> Arc<Owners> {
        self.0.load_full()
    }

    #[cfg(feature = "ebpf")]
    pub(super) fn store(&self, owners: Owners) {
        self.0.store(Arc::new(owners));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn owner(listener: u64) -> Owner {
        Owner {
            site: 1,
            listener,
            routing_key: "key".into(),
            name: Arc::default(),
            slot: 0,
        }
    }

    fn bind_range(network: &str, ports: Ports) -> BindRange {
        let network = match network.parse() {
            Ok(address) => Network::of(address),
            Err(_) => Network::parse(network).unwrap(),
        };
        BindRange { network, ports }
    }

    #[test]
    fn the_most_specific_range_has_the_connection() {
        let mut owners = Owners::default();
        for (n, (network, ports)) in [
            ("0.0.0.0", Ports::One(80)),
            ("127.0.0.7", Ports::One(80)),
            ("::", Ports::One(80)),
            ("127.0.0.0/8", Ports::Range(70, 90)),
            ("127.0.0.7", Ports::All),
            ("127.0.0.7", Ports::Range(79, 81)),
            ("127.0.0.0/16", Ports::One(79)),
        ]
        .into_iter()
        .enumerate()
        {
            assert!(owners.insert(bind_range(network, ports), owner(n as u64)));
        }
        for (to, listener) in [
            ("127.0.0.7:80", Some(1)),
            ("127.0.0.7:81", Some(5)),
            ("127.0.0.7:79", Some(5)),
            ("127.0.0.7:70", Some(4)),
            ("127.0.0.8:79", Some(6)),
            ("127.0.0.8:80", Some(3)),
            ("192.0.2.1:80", Some(0)),
            ("192.0.2.1:81", None),
            ("[::1]:80", Some(2)),
            // The kernel adds a scope id to link-local addresses.
            ("[fe80::1%3]:80", Some(2)),
        ] {
            let found = owners.owner(to.parse().unwrap());
            assert_eq!(found.map(|o| o.listener), listener, "{to}");
        }
    }

    #[test]
    fn a_range_has_one_owner() {
        let mut owners = Owners::default();
        for ports in [Ports::One(80), Ports::Range(70, 90), Ports::All] {
            assert!(owners.insert(bind_range("127.0.0.1", ports), owner(1)));
            assert!(!owners.insert(bind_range("127.0.0.1", ports), owner(2)));
        }
        for (first, last) in [(60, 70), (90, 95), (75, 76), (60, 95)] {
            let overlaps = bind_range("127.0.0.1", Ports::Range(first, last));
            assert!(!owners.insert(overlaps, owner(2)));
        }
        assert!(owners.insert(bind_range("127.0.0.1", Ports::Range(91, 95)), owner(2)));
        for ports in [
            Ports::One(80),
            Ports::Range(70, 90),
            Ports::Range(91, 95),
            Ports::All,
        ] {
            owners.remove(bind_range("127.0.0.1", ports));
            owners.remove(bind_range("127.0.0.1", ports));
        }
        assert_eq!(owners.owner("127.0.0.1:80".parse().unwrap()), None);
        assert!(owners.lengths.iter().all(BTreeMap::is_empty));
        assert!(owners.ranges.is_empty());
    }

    fn networks() -> impl Strategy<Value = Network> {
        let v4 = (0..4u32, prop::sample::select(vec![0u8, 8, 30, 31, 32]));
        let v6 = (0..4u128, prop::sample::select(vec![0u8, 64, 127, 128]));
        prop_oneof![
            v4.prop_map(|(n, bits)| Network::containing(
                Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
                bits
            )),
            v6.prop_map(|(n, bits)| Network::containing(
                Ipv6Addr::from_bits((0xfd << 120) + n).into(),
                bits
            )),
        ]
    }

    fn ports() -> impl Strategy<Value = Ports> {
        prop_oneof![
            (1..6u16).prop_map(Ports::One),
            (1..4u16, 0..3u16).prop_map(|(first, more)| Ports::Range(first, first + more)),
            Just(Ports::All),
        ]
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_search_of_every_range(
            ranges in prop::collection::vec((networks(), ports()), 0..12),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let mut owners = Owners::default();
            let mut held: Vec<(BindRange, u64)> = Vec::new();
            for (n, (network, ports)) in ranges.into_iter().enumerate() {
                let range = BindRange { network, ports };
                if owners.insert(range, owner(n as u64)) {
                    held.push((range, n as u64));
                }
            }
            for index in gone.iter().filter(|_| !held.is_empty()).collect::<Vec<_>>() {
                if !held.is_empty() {
                    let (range, _) = held.remove(index.index(held.len()));
                    owners.remove(range);
                }
            }
            let v4 = (0..4).map(|n| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)));
            let v6 = (0..4).map(|n| IpAddr::from(Ipv6Addr::from_bits((0xfd << 120) + n)));
            for address in v4.chain(v6) {
                for port in 1..8 {
                    let to = SocketAddr::new(address, port);
                    let rank = |range: &BindRange| (range.network.bits(), match range.ports {
                        Ports::One(_) => 2,
                        Ports::Range(..) => 1,
                        Ports::All => 0,
                    });
                    let matching = held.iter().filter(|(range, _)| range.contains(to));
                    let best = matching.max_by_key(|(range, _)| rank(range)).map(|(_, n)| *n);
                    prop_assert_eq!(owners.owner(to).map(|o| o.listener), best, "{}", to);
                }
            }
        }
    }
}
