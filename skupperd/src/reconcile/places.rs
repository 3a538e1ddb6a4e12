//! What a listener's settings add to its host and port: more ports, and more addresses.

use crate::{
    model::{Settings, parse_port},
    steer::place::{Network, Place, Ports},
    sys,
};
use std::net::{IpAddr, SocketAddr};

/// Setting of a listener: ports beside its own, as in `8000-8100,9000`, or `all`.
pub(super) const PORTS: &str = "ports";
/// Setting of a listener: addresses beside its own, as in `10.20.0.0/16`.
pub(super) const PREFIX: &str = "host-prefix";
/// Setting of a listener: the network namespace that it is in; `manifest` knows it too.
pub(super) const NETNS: &str = crate::manifest::NETNS;
/// Ports of one listener: each is taken from other programs by a socket.
const MAX_PORTS: usize = 4096;

/// The places of a listener with these addresses and this port.
pub(super) fn places(
    addrs: &[SocketAddr],
    port: u16,
    settings: &Settings,
) -> Result<Vec<Place>, String> {
    let mut networks: Vec<Network> = addrs.iter().map(|addr| Network::of(addr.ip())).collect();
    if let Some(text) = settings.get(PREFIX) {
        networks.push(prefix(text).map_err(|e| format!("spec.settings[{PREFIX}]: {e}"))?);
    }
    networks.sort();
    networks.dedup();
    let mut ports = vec![Ports::One(port)];
    if let Some(text) = settings.get(PORTS) {
        let failed = |e| format!("spec.settings[{PORTS}]: {e}");
        ports.extend(more_ports(text).map_err(failed)?);
        if ports.contains(&Ports::All) {
            for network in &networks {
                alone(*network, sys::interface_addresses()).map_err(failed)?;
            }
        }
    }
    ports.sort();
    ports.dedup();
    let each = |network: Network| {
        let places = ports.iter().map(move |ports| Place {
            network,
            ports: *ports,
        });
        places.collect::<Vec<_>>()
    };
    Ok(networks.into_iter().flat_map(each).collect())
}

fn prefix(text: &str) -> Result<Network, String> {
    let network = Network::parse(text);
    let network = network.ok_or_else(|| format!("{text:?} is not a prefix, as 10.20.0.0/16 is"))?;
    if network.bits() == 0 {
        let all = network.address();
        return Err(format!("{text} is every address: that is spec.host {all}"));
    }
    Ok(network)
}

fn more_ports(text: &str) -> Result<Vec<Ports>, String> {
    if text.trim() == "all" {
        return Ok(vec![Ports::All]);
    }
    let (mut ones, mut ranges) = (Vec::new(), Vec::new());
    for part in text.split([',', ' ', '\n']).filter(|part| !part.is_empty()) {
        let port = |text: &str| {
            let number: Option<i64> = text.parse().ok();
            let port = number.and_then(|number| parse_port(number).ok());
            port.ok_or_else(|| {
                format!("{part:?} is neither a port, nor ports such as 8000-8100, nor all")
            })
        };
        match part.split_once('-') {
            None => ones.push(Ports::One(port(part)?)),
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err(format!("{part} ends before it begins"));
                }
                ranges.push((first, last));
            }
        }
    }
    if ones.is_empty() && ranges.is_empty() {
        return Err("no port".to_owned());
    }
    // What overlaps or goes on without a gap is one.
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    ones.extend(
        joined
            .into_iter()
            .map(|(first, last)| Ports::Range(first, last)),
    );
    let count: usize = ones.iter().map(|ports| ports.each().count()).sum();
    if count > MAX_PORTS {
        return Err(format!(
            "{count} ports are too many: {MAX_PORTS} at most, or all"
        ));
    }
    Ok(ones)
}

/// All ports are for addresses that nobody expects this host's other services at.
fn alone(network: Network, mut interfaces: impl Iterator<Item = IpAddr>) -> Result<(), String> {
    let many = "all ports are for addresses that no interface has, such as service addresses";
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

    fn read(settings: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let settings = settings.iter();
        let settings = settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let addr = "198.18.7.1:80".parse().unwrap();
        let places = places(&[addr], 80, &settings.collect())?;
        Ok(places.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_listener_without_settings_has_its_port() {
        assert_eq!(read(&[]).unwrap(), ["198.18.7.1:80"]);
    }

    #[test]
    fn ports_are_read_and_joined() {
        for (text, places) in [
            ("90", vec!["198.18.7.1:80", "198.18.7.1:90"]),
            ("80", vec!["198.18.7.1:80"]),
            (
                "8000-8100, 8050-8200,8201-8210",
                vec!["198.18.7.1:80", "198.18.7.1 ports 8000-8210"],
            ),
            ("all", vec!["198.18.7.1:80", "198.18.7.1 all ports"]),
            (
                "65535-65535",
                vec!["198.18.7.1:80", "198.18.7.1 ports 65535-65535"],
            ),
        ] {
            assert_eq!(read(&[("ports", text)]).unwrap(), places, "{text}");
        }
    }

    #[test]
    fn a_prefix_comes_beside_the_host() {
        assert_eq!(
            read(&[("host-prefix", "10.20.0.0/16"), ("ports", "81")]).unwrap(),
            [
                "10.20.0.0/16 port 80",
                "10.20.0.0/16 port 81",
                "198.18.7.1:80",
                "198.18.7.1:81"
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_or_is_too_broad_is_refused() {
        for (key, text, why) in [
            ("ports", "", "no port"),
            ("ports", "x", "\"x\" is neither a port"),
            ("ports", "0", "\"0\" is neither a port"),
            ("ports", "1-65536", "\"1-65536\" is neither a port"),
            ("ports", "9-8", "9-8 ends before it begins"),
            ("ports", "1-65535", "65535 ports are too many: 4096 at most"),
            ("host-prefix", "10.20.0.1/16", "not a prefix"),
            (
                "host-prefix",
                "0.0.0.0/0",
                "every address: that is spec.host 0.0.0.0",
            ),
            ("host-prefix", "10.20.0.0", "not a prefix"),
        ] {
            let error = read(&[(key, text)]).unwrap_err();
            assert!(
                error.starts_with(&format!("spec.settings[{key}]: ")),
                "{error}"
            );
            assert!(error.contains(why), "{text}: {error}");
        }
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
            let said = alone(Network::parse(network).unwrap(), interfaces().into_iter());
            match why {
                None => assert_eq!(said, Ok(())),
                Some(why) => assert!(said.unwrap_err().contains(why), "{network}"),
            }
        }
    }
}
