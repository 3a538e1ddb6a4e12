//! Workloads: the servers of this host that match a selector, and the addresses that they listen on.
//!
//! For every listening socket of this network namespace the kernel reports the user and the control
//! group that created it (sock_diag(7), Linux 5.9). That needs no privileges and no access to processes.
//! Every user may read the paths of control groups, which identify units, slices and containers.
//! Selecting by executable does need access to processes, see [`socket_owners`].
//!
//! The reconcile loop moves the [`WorkloadFinder`] to a thread for blocking work four times a second
//! while there are selectors; it lists all sockets once for all queries. States of units come from
//! systemd over the bus ([`UnitStateReader`]).
//!
//! It decides nothing about connectors: the loop compares what was found and gives servers to the core.

mod cgroups;
mod local_clients;
mod socket_owners;
mod unit_states;

pub use local_clients::{ClientFinder, LocalClient};
pub use unit_states::{UnitStateReader, UnitStateWriter, UnitStates, unit_state_channel};

use crate::{
    model::{Selector, matches},
    netlink::listeners::{SocketInfo, listening},
    sys,
    telemetry::chain,
};
use cgroups::{Cgroup, CgroupTree};
use socket_owners::SocketOwners;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemdUnit {
    /// The user whose manager runs it; `None` is the system manager.
    pub user: Option<u32>,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadServer {
    /// Its unit, else its control group, executable or user.
    pub name: String,
    /// The address to connect to.
    pub addr: SocketAddr,
    pub unit: Option<SystemdUnit>,
}

/// The servers that match a query now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadMatch {
    /// Ordered by address, without duplicates.
    pub servers: Vec<WorkloadServer>,
    /// Why there are none; empty otherwise.
    pub missing: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadQuery {
    pub selector: Selector,
    /// Port that the server listens on; 0 for any.
    pub port: u16,
}

impl WorkloadQuery {
    fn has_port(&self, socket: &SocketInfo) -> bool {
        self.port == 0 || self.port == socket.addr.port()
    }

    fn selects_by_cgroup(&self) -> bool {
        !matches!(self.selector, Selector::Executable(_) | Selector::User(_))
    }
}

/// Finds servers. It caches the control groups and owners of sockets between calls.
#[derive(Debug, Default)]
pub struct WorkloadFinder {
    cgroups: CgroupTree,
    owners: SocketOwners,
    /// Sockets of this user by inode: whether they belong to this process.
    own: HashMap<u32, bool>,
}

impl WorkloadFinder {
    /// The matches of each query, in their order, by one sock_diag request.
    pub fn find(&mut self, queries: &[WorkloadQuery]) -> Vec<WorkloadMatch> {
        let sockets = match listening() {
            Ok(sockets) => self.without_own(sockets),
            Err(e) => {
                let missing = format!("cannot list listening sockets: {}", chain(&e));
                let none = WorkloadMatch {
                    servers: Vec::new(),
                    missing,
                };
                return vec![none; queries.len()];
            }
        };
        let wanted = |by: fn(&WorkloadQuery) -> bool| {
            let wanted = move |s: &&SocketInfo| queries.iter().any(|q| by(q) && q.has_port(s));
            sockets.iter().filter(wanted)
        };
        // Servers found by executable or user have a unit too.
        self.cgroups.load(wanted(|_| true).map(|s| s.cgroup));
        let by_executable = |q: &WorkloadQuery| matches!(q.selector, Selector::Executable(_));
        self.owners.load(wanted(by_executable).map(|s| s.inode));
        queries
            .iter()
            .map(|query| self.found(query, &sockets))
            .collect()
    }

    /// Removes sockets of this process: its own listeners are not servers.
    fn without_own(&mut self, mut sockets: Vec<SocketInfo>) -> Vec<SocketInfo> {
        let user = sys::user();
        let mine: Vec<u32> = sockets
            .iter()
            .filter(|s| s.user == user)
            .map(|s| s.inode)
            .collect();
        if mine.iter().any(|inode| !self.own.contains_key(inode)) {
            let here = socket_owners::sockets_of(Path::new("/proc/self/fd"));
            let here: HashSet<u32> = here.unwrap_or_default().into_iter().collect();
            self.own = mine.iter().map(|n| (*n, here.contains(n))).collect();
        } else if mine.len() != self.own.len() {
            self.own.retain(|inode, _| mine.contains(inode));
        }
        sockets.retain(|s| !self.own.get(&s.inode).copied().unwrap_or_default());
        sockets
    }

    fn found(&mut self, query: &WorkloadQuery, sockets: &[SocketInfo]) -> WorkloadMatch {
        let mut by_group: BTreeMap<u64, Vec<(SocketAddr, WorkloadServer)>> = BTreeMap::new();
        for socket in sockets.iter().filter(|s| query.has_port(s)) {
            if let (Some(addr), Some((name, unit))) =
                (address_to_connect(socket), self.match_socket(query, socket))
            {
                let server = WorkloadServer { name, addr, unit };
                let group = by_group.entry(socket.cgroup).or_default();
                group.push((socket.addr, server));
            }
        }
        let mut servers: Vec<WorkloadServer> = Vec::new();
        for group in by_group.into_values() {
            // A server that listens on all addresses of both families counts once, by IPv4.
            let local = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
            let twin = |of: &SocketAddr| {
                let same = |a: &SocketAddr| a.is_ipv4() && a.port() == of.port() && local(a.ip());
                of.is_ipv6() && local(of.ip()) && group.iter().any(|(a, _)| same(a))
            };
            let kept = group.iter().filter(|(addr, _)| !twin(addr));
            servers.extend(kept.map(|(_, server)| server.clone()));
        }
        servers.sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
        // Connections cannot choose between servers that share an address.
        servers.dedup_by_key(|s| s.addr);
        let missing = if servers.is_empty() {
            self.explain_missing(query, sockets)
        } else {
            String::new()
        };
        WorkloadMatch { servers, missing }
    }

    /// Name and unit of the server of a socket, if it matches.
    fn match_socket(
        &self,
        query: &WorkloadQuery,
        socket: &SocketInfo,
    ) -> Option<(String, Option<SystemdUnit>)> {
        let group = self.cgroups.group(socket.cgroup);
        let unit = group.and_then(Cgroup::unit);
        let named = |otherwise: String| match &unit {
            Some(unit) => (unit.name.clone(), Some(unit.clone())),
            None => (otherwise, None),
        };
        match &query.selector {
            Selector::Executable(pattern) => {
                let path = self.owners.executables(socket.inode);
                let path = path.iter().find(|path| matches(pattern, path))?;
                Some(named(path.clone()))
            }
            Selector::User(uid) => (socket.user == *uid).then(|| named(format!("uid {uid}"))),
            selector => {
                let group = group.filter(|group| group.matches(selector))?;
                Some(named(group.path.clone()))
            }
        }
    }

    /// Why no socket matches.
    fn explain_missing(&mut self, query: &WorkloadQuery, sockets: &[SocketInfo]) -> String {
        let selector = &query.selector;
        let on = match query.port {
            0 => "any TCP port".to_owned(),
            port => format!("TCP port {port}"),
        };
        if query.selects_by_cgroup() {
            if let Some(reason) = self.cgroups.error() {
                return format!("{selector}: {reason}");
            }
            if !sockets.is_empty() && sockets.iter().all(|s| s.cgroup == 0) {
                let text = "the kernel does not report the control groups of sockets: this needs Linux 5.9";
                return format!("{selector}: {text}");
            }
            return if self.cgroups.has_match(selector) {
                format!(
                    "{selector} is running but does not listen on {on} in skupperd's network namespace"
                )
            } else {
                format!("{selector} is not running")
            };
        }
        let hidden = matches!(selector, Selector::Executable(_))
            && sockets
                .iter()
                .any(|s| query.has_port(s) && self.owners.executables(s.inode).is_empty());
        if hidden {
            return format!(
                "{selector}: skupperd may not inspect the processes of other users that listen on \
                 {on}; select by unit, cgroup or uid"
            );
        }
        format!("{selector} does not listen on {on}")
    }
}

/// The address to connect to; `None` for link-local addresses, which need an interface too.
fn address_to_connect(socket: &SocketInfo) -> Option<SocketAddr> {
    let port = socket.addr.port();
    let ip = match socket.addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() && socket.both => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => return None,
        ip => ip,
    };
    Some(SocketAddr::new(ip, port))
}

/// The control group (version 2) of this process.
fn own_group() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn find(finder: &mut WorkloadFinder, selector: &str, port: u16) -> WorkloadMatch {
        let selector = selector.parse().unwrap();
        finder.find(&[WorkloadQuery { selector, port }]).remove(0)
    }

    #[test]
    fn sockets_of_this_process_are_not_servers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut finder = WorkloadFinder::default();
        let user = format!("uid={}", sys::user());
        let found = find(&mut finder, &user, port);
        assert!(found.servers.is_empty());
        assert_eq!(
            found.missing,
            format!("{user} does not listen on TCP port {port}")
        );
    }

    #[test]
    fn a_unit_without_a_control_group_is_not_running() {
        let found = find(&mut WorkloadFinder::default(), "unit=no-such.service", 0);
        let cgroups = CgroupTree::default().error().is_none();
        let expected = "unit=no-such.service is not running";
        assert!(!cgroups || found.missing == expected, "{}", found.missing);
    }

    #[test]
    fn wildcard_addresses_are_reached_on_loopback() {
        let reach = |addr: &str, both| {
            let addr = addr.parse().unwrap();
            let (user, inode, cgroup) = (0, 0, 0);
            let socket = SocketInfo {
                addr,
                both,
                user,
                inode,
                cgroup,
            };
            address_to_connect(&socket).map(|addr| addr.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(reach("0.0.0.0:1", false), some("127.0.0.1:1"));
        assert_eq!(reach("[::]:1", true), some("127.0.0.1:1"));
        assert_eq!(reach("[::]:1", false), some("[::1]:1"));
        assert_eq!(reach("127.0.0.9:1", false), some("127.0.0.9:1"));
        assert_eq!(reach("[fe80::1]:1", false), None);
    }
}
