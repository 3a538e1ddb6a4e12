//! Which listener owns an address: what workers look up for each connection that was steered to
//! them, without a lock.

use arc_swap::ArcSwap;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// A listener, as workers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its site.
    pub site: u32,
    /// The listener.
    pub listener: u64,
    /// Its routing key.
    pub routing_key: Arc<str>,
    /// What it is called: namespace and name.
    pub name: Arc<(String, String)>,
    /// Where its connections are counted.
    pub slot: u32,
}

pub(super) type Place = (IpAddr, u16);
pub(super) type Owners = HashMap<Place, Owner>;

/// Owners by address; replaced as a whole.
#[derive(Debug, Default)]
pub struct Table(ArcSwap<Owners>);

impl Table {
    /// Who owns the address that a connection has come to: the listener there, or else the one on
    /// all addresses.
    pub fn owner(&self, to: SocketAddr) -> Option<Owner> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let owners = self.0.load();
        let owner = owners.get(&(to.ip(), to.port()));
        owner.or_else(|| owners.get(&(any, to.port()))).cloned()
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

    #[test]
    fn the_exact_address_goes_before_all_addresses_of_its_family() {
        let owner = |listener| Owner {
            site: 1,
            listener,
            routing_key: "key".into(),
            name: Arc::default(),
            slot: 0,
        };
        let places = [("0.0.0.0:80", 1), ("127.0.0.7:80", 2), ("[::]:80", 3)];
        let owners = places.map(|(at, n)| {
            let at: SocketAddr = at.parse().unwrap();
            ((at.ip(), at.port()), owner(n))
        });
        let table = Table(ArcSwap::from_pointee(owners.into()));
        for (to, listener) in [
            ("127.0.0.7:80", Some(2)),
            ("127.0.0.8:80", Some(1)),
            ("127.0.0.7:81", None),
            ("[::1]:80", Some(3)),
            // The kernel adds the interface of a link-local address.
            ("[fe80::1%3]:80", Some(3)),
        ] {
            let found = table.owner(to.parse().unwrap());
            assert_eq!(found.map(|o| o.listener), listener, "{to}");
        }
    }
}
