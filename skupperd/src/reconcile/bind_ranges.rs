//! The addresses and ports of a listener: its host and port, and what its settings add to them.

use super::error::ReconcileError;
use crate::{
    model::{ExtraPorts, ListenerSettings},
    steer::bind_range::{BindRange, Network, Ports},
    sys,
};
use std::net::{IpAddr, SocketAddr};

/// `addrs` and `port` are those of the listener itself.
pub(super) fn bind_ranges(
    addrs: &[SocketAddr],
    port: u16,
    settings: &ListenerSettings,
) -> Result<Vec<BindRange>, ReconcileError> {
    let mut networks: Vec<Network> = addrs.iter().map(|addr| Network::of(addr.ip())).collect();
    networks.extend(settings.host_prefix.map(Network::from));
    networks.sort();
    networks.dedup();
    let mut ports = vec![Ports::One(port)];
    match &settings.ports {
        ExtraPorts::Ranges(ranges) => ports.extend(ranges.iter().map(|range| match *range {
            (first, last) if first == last => Ports::One(first),
            (first, last) => Ports::Range(first, last),
        })),
        ExtraPorts::All => {
            for network in &networks {
                ensure_no_other_listener(*network, sys::interface_addresses())
                    .map_err(|e| ReconcileError::setting("ports", e))?;
            }
            ports.push(Ports::All);
        }
    }
    ports.sort();
    ports.dedup();
    let each = |network: Network| {
        let ranges = ports.iter().map(move |ports| BindRange {
            network,
            ports: *ports,
        });
        ranges.collect::<Vec<_>>()
    };
    Ok(networks.into_iter().flat_map(each).collect())
}

/// Taking all ports of an address of the host would take them from its other services.
fn ensure_no_other_listener(
    network: Network,
    mut interfaces: impl Iterator<Item = IpAddr>,
) -> Result<(), String> {
    let many = "all ports need addresses that no interface has, such as service addresses";
    if network.bits() == 0 {
        return Err(format!("{many}: {network} is every address of this host"));
    }
    match interfaces.find(|ip| network.contains(*ip)) {
        None => Ok(()),
        Some(ip) if network == Network::of(ip) => Err(format!("{many}: an interface has {ip}")),
        Some(ip) => Err(format!("{many}: of {network}, an interface has {ip}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges_with(settings: &ListenerSettings) -> Vec<String> {
        let addr = "198.18.7.1:80".parse().unwrap();
        let places = bind_ranges(&[addr], 80, settings).unwrap();
        places.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_come_beside_the_own_one() {
        for (ports, expected) in [
            (ExtraPorts::default(), vec!["198.18.7.1:80"]),
            (
                ExtraPorts::Ranges(vec![(80, 80), (90, 90), (8000, 8210)]),
                vec![
                    "198.18.7.1:80",
                    "198.18.7.1:90",
                    "198.18.7.1 ports 8000-8210",
                ],
            ),
            (
                ExtraPorts::All,
                vec!["198.18.7.1:80", "198.18.7.1 all ports"],
            ),
        ] {
            let settings = ListenerSettings {
                ports,
                ..ListenerSettings::default()
            };
            assert_eq!(ranges_with(&settings), expected);
        }
    }

    #[test]
    fn a_prefix_comes_beside_the_host() {
        let settings = ListenerSettings {
            host_prefix: "10.20.0.0/16".parse().ok(),
            ports: ExtraPorts::Ranges(vec![(81, 81)]),
            ..ListenerSettings::default()
        };
        assert_eq!(
            ranges_with(&settings),
            [
                "10.20.0.0/16 port 80",
                "10.20.0.0/16 port 81",
                "198.18.7.1:80",
                "198.18.7.1:81"
            ]
        );
    }

    #[test]
    fn all_ports_are_not_those_of_the_hosts_own_addresses() {
        let interfaces = || ["127.0.0.1", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        for (network, why) in [
            ("0.0.0.0/0", Some("0.0.0.0 is every address of this host")),
            ("192.0.2.1/32", Some("an interface has 192.0.2.1")),
            (
                "192.0.0.0/16",
                Some("of 192.0.0.0/16, an interface has 192.0.2.1"),
            ),
            ("192.0.2.2/32", None),
            ("127.0.0.2/32", None),
            ("::/0", Some("every address")),
        ] {
            let said = ensure_no_other_listener(
                Network::parse(network).unwrap(),
                interfaces().into_iter(),
            );
            match why {
                None => assert_eq!(said, Ok(())),
                Some(why) => assert!(said.unwrap_err().contains(why), "{network}"),
            }
        }
    }
}
