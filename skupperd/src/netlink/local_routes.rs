//! Addresses for services that no interface has: a local route makes a whole prefix this host's own,
//! so that a hundred services can have an address each and the port that their clients expect.

use crate::{
    model::ServicePrefix,
    netlink::socket::{
        ACK, ERROR, IPV4, IPV6, Netlink, NetlinkFamily, attributes, bytes, malformed,
    },
};
use ipnet::IpNet;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Protocol number of our routes: routes with another number are never removed. `ip route show table
/// local proto 83` lists them.
const OURS: u8 = 83;
/// The interface of loopback, in every network namespace.
const LOOPBACK: u32 = 1;

/// From linux/netlink.h and linux/rtnetlink.h.
mod rt {
    pub(crate) const RTM_NEWROUTE: u16 = 24;
    pub(crate) const RTM_DELROUTE: u16 = 25;
    pub(crate) const RTM_GETROUTE: u16 = 26;
    pub(crate) const CREATE_EXCL: u16 = 0x600;
    pub(crate) const TABLE_LOCAL: u8 = 255;
    pub(crate) const SCOPE_HOST: u8 = 254;
    pub(crate) const TYPE_UNICAST: u8 = 1;
    pub(crate) const TYPE_LOCAL: u8 = 2;
    /// Bytes before the attributes of a route.
    pub(crate) const HEADER: usize = 12;
    pub(crate) const RTA_DST: u16 = 1;
    pub(crate) const RTA_OIF: u16 = 4;
    pub(crate) const ESRCH: i32 = 3;
}

/// A route could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("{op} the local route of {prefix}: {source}")]
pub struct RouteError {
    op: &'static str,
    prefix: ServicePrefix,
    source: io::Error,
}

/// The local routes of this process, with the number of sites that want each, and who has which of
/// the addresses that are given out. Dropping this removes the routes.
#[derive(Debug, Default)]
pub struct LocalRoutes {
    prefixes: Mutex<BTreeMap<ServicePrefix, usize>>,
    claims: Mutex<BTreeMap<IpAddr, String>>,
}

impl LocalRoutes {
    /// Makes a prefix this host's own. One that another program has made its own is an error.
    pub fn add(&self, prefix: ServicePrefix) -> Result<(), RouteError> {
        let mut prefixes = self.prefixes.lock();
        if let Some(sites) = prefixes.get_mut(&prefix) {
            *sites += 1;
            return Ok(());
        }
        let flags = ACK | rt::CREATE_EXCL;
        change(rt::RTM_NEWROUTE, flags, prefix.network()).map_err(|source| RouteError {
            op: "adding",
            prefix,
            source,
        })?;
        prefixes.insert(prefix, 1);
        Ok(())
    }

    /// Takes back one [`Self::add`].
    pub fn remove(&self, prefix: ServicePrefix) -> Result<(), RouteError> {
        let mut prefixes = self.prefixes.lock();
        if let Some(sites) = prefixes.get_mut(&prefix).filter(|sites| **sites > 1) {
            *sites -= 1;
            return Ok(());
        }
        match prefixes.remove(&prefix) {
            Some(_) => delete(prefix),
            None => Ok(()),
        }
    }

    /// Gives an address to a claimant, who may have it already. False: another has it.
    pub fn claim(&self, address: IpAddr, claimant: &str) -> bool {
        let mut claims = self.claims.lock();
        claims.entry(address).or_insert_with(|| claimant.to_owned()) == claimant
    }

    /// Takes back what a claimant has.
    pub fn release(&self, address: IpAddr, claimant: &str) {
        let mut claims = self.claims.lock();
        if claims.get(&address).is_some_and(|has| has == claimant) {
            claims.remove(&address);
        }
    }

    /// Removes what an earlier life of this process has left, if it has.
    pub fn forget(&self, prefix: ServicePrefix) -> Result<(), RouteError> {
        let prefixes = self.prefixes.lock();
        if prefixes.contains_key(&prefix) {
            return Ok(());
        }
        delete(prefix)
    }
}

impl Drop for LocalRoutes {
    fn drop(&mut self) {
        let prefixes = self.prefixes.get_mut();
        for prefix in std::mem::take(prefixes).into_keys() {
            if let Err(error) = delete(prefix) {
                tracing::error!(%error, "cannot remove routes of service addresses");
            }
        }
    }
}

/// Whether this host takes an address for its own, which one that no interface has can be too.
pub(crate) fn is_local(address: IpAddr) -> bool {
    let one = IpNet::from(address);
    let kernel = Netlink::open(NetlinkFamily::Routes);
    let asked =
        kernel.and_then(|kernel| kernel.ask(rt::RTM_GETROUTE, 0, &route(rt::RTM_GETROUTE, one)));
    // The type of a route is in the last byte of the second word.
    asked.is_ok_and(|(kind, answer)| {
        kind == rt::RTM_NEWROUTE && answer.get(7) == Some(&rt::TYPE_LOCAL)
    })
}

/// A network that overlaps a prefix and that this host reaches by a route of its own: what its programs
/// send there would not get there. Default routes do not count, nor what is local already.
pub(crate) fn routed_beside(prefix: ServicePrefix) -> io::Result<Option<IpNet>> {
    let net = prefix.network();
    let kernel = Netlink::open(NetlinkFamily::Routes)?;
    let mut found = None;
    let any = match net {
        IpNet::V4(_) => IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpNet::V6(_) => IpNet::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    kernel.dump(rt::RTM_GETROUTE, &route(rt::RTM_GETROUTE, any), |answer| {
        let routed = destination(answer).filter(|other| overlap(&net, other));
        found = found.or(routed);
        Ok(())
    })?;
    Ok(found)
}

/// Where a route of other hosts leads; `None` for the others and for default routes. Two routes to
/// half of all addresses each are a default route too: VPNs make them beside that of the host.
fn destination(answer: &[u8]) -> Option<IpNet> {
    let ([family, bits], kind) = (bytes(answer, 0)?, answer.get(7)?);
    if *kind != rt::TYPE_UNICAST || bits <= 1 {
        return None;
    }
    let mut parts = attributes(answer.get(rt::HEADER..)?);
    let (_, address) = parts.find(|(kind, _)| *kind == rt::RTA_DST)?;
    let address = match family {
        IPV4 => IpAddr::from(bytes::<4>(address, 0)?),
        IPV6 => IpAddr::from(bytes::<16>(address, 0)?),
        _ => return None,
    };
    IpNet::new(address, bits).ok()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// Deletes a route of ours; that there is none is no fault.
fn delete(prefix: ServicePrefix) -> Result<(), RouteError> {
    match change(rt::RTM_DELROUTE, ACK, prefix.network()) {
        Err(source) if source.raw_os_error() != Some(rt::ESRCH) => Err(RouteError {
            op: "removing",
            prefix,
            source,
        }),
        _ => Ok(()),
    }
}

fn change(what: u16, flags: u16, net: IpNet) -> io::Result<()> {
    let kernel = Netlink::open(NetlinkFamily::Routes)?;
    match kernel.ask(what, flags, &route(what, net))? {
        (ERROR, _) => Ok(()),
        _ => Err(malformed()),
    }
}

/// A route and its attributes.
fn route(what: u16, net: IpNet) -> Vec<u8> {
    let (family, scope, address) = match net.addr() {
        IpAddr::V4(a) => (IPV4, rt::SCOPE_HOST, a.octets().to_vec()),
        IpAddr::V6(a) => (IPV6, 0, a.octets().to_vec()),
    };
    let mut body = vec![family, net.prefix_len(), 0, 0];
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
    fn an_address_has_one_owner() {
        let routes = LocalRoutes::default();
        let address = "198.18.7.1".parse().unwrap();
        assert!(routes.claim(address, "one") && routes.claim(address, "one"));
        assert!(!routes.claim(address, "two"));
        routes.release(address, "two");
        assert!(!routes.claim(address, "two"));
        routes.release(address, "one");
        assert!(routes.claim(address, "two"));
    }

    #[test]
    fn local_addresses_are_recognised() {
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(is_local("127.9.8.7".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
        assert!(!is_local("2001:db8::1".parse().unwrap()));
    }
}
