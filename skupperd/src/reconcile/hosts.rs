//! This host: its names and addresses, name resolution, and ports to listen on.

use super::error::ReconcileError;
use crate::{model::Host, steer::SocketBindings, sys};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

/// Ports tried when the usual one is taken.
const PORT_TRIES: u16 = 200;
/// Group of a site's endpoints: it has one router.
pub(super) const ROUTER_GROUP: &str = "skupper-router";

/// The addresses of a listener's `host`: an address or a name.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ReconcileError> {
    let addrs = look_up(host, port).await;
    addrs.map_err(|e| ReconcileError::field("host", e))
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, ReconcileError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let failed = |e| ReconcileError::failed("look up", host, e);
    let found = tokio::net::lookup_host((host, port)).await;
    let addrs: Vec<SocketAddr> = found.map_err(failed)?.collect();
    if addrs.is_empty() {
        return Err(failed(io::Error::other("no address")));
    }
    Ok(addrs)
}

/// The first host that other machines can use: an address rather than a name, which may mean nothing
/// elsewhere, and never one that means this host everywhere.
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

/// Listens on a port of one host or of all addresses; with `search` on the next free one when it is
/// taken.
pub(super) async fn open_port(
    host: Option<&Host>,
    port: u16,
    search: bool,
) -> Result<(u16, Vec<TcpListener>), ReconcileError> {
    let tries = if search { PORT_TRIES } else { 1 };
    let mut last = None;
    for port in (0..tries).filter_map(|n| port.checked_add(n)) {
        let addrs = match host {
            None => vec![
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            ],
            Some(host) => {
                let found = resolve(host, port).await;
                found.map_err(|e| ReconcileError::field("bindHost", e))?
            }
        };
        let mut sockets = Vec::new();
        let mut failed = None;
        for addr in addrs {
            match SocketBindings.open(addr, 1) {
                Ok(bound) => sockets.extend(bound),
                // A host without IPv6 serves IPv4.
                Err(_) if addr.is_ipv6() && host.is_none() && !has_ipv6() => {}
                Err(e) => failed = Some(e),
            }
        }
        match failed {
            None => return Ok((port, sockets)),
            Some(error) => last = Some((port, error)),
        }
    }
    Err(match last {
        Some((port, error)) => ReconcileError::failed("listen on port", port, error),
        None => ReconcileError::Missing(format!("no free port from {port} on")),
    })
}

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
