//! What this host is known by, and what names mean.

use crate::sys;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let addrs: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
    }
    Ok(addrs)
}

/// The host that others can really use: an address rather than a name, which may mean nothing
/// elsewhere, and never one that is this host to everybody.
pub(crate) fn reachable(hosts: &[String]) -> Option<String> {
    let usable = |host: &&String| match host.parse::<IpAddr>() {
        Ok(ip) => !ip.is_unspecified() && !ip.is_loopback(),
        Err(_) => *host != "localhost",
    };
    let (ips, names): (Vec<&String>, Vec<&String>) = hosts
        .iter()
        .filter(usable)
        .partition(|h| h.parse::<IpAddr>().is_ok());
    ips.into_iter().chain(names).next().cloned()
}

/// The host's own name and the addresses of its interfaces, loopback and link-local ones left out.
pub(crate) fn host_names() -> Vec<String> {
    let mut names = Vec::new();
    if let Some(name) = sys::host_name() {
        let name = name.to_lowercase();
        if crate::model::check_host(&name).is_ok() && name != "localhost" {
            names.push(name);
        }
    }
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    names.extend(
        sys::interface_addresses()
            .filter(usable)
            .map(|ip| ip.to_string()),
    );
    names
}
