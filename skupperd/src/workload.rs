//! Workloads: the servers of this host that a selector stands for, and where they listen.
//!
//! Of every listening socket of this network namespace the kernel says which user has made it and
//! in which control group (sock_diag(7), Linux 5.9). That takes no rights and no look into processes,
//! and the paths of control groups are there for all to see: it is how units, slices and containers are
//! told apart. Who runs which executable is another matter, see [`owners`].

mod clients;
mod owners;
mod states;
mod tree;

pub use clients::{Client, Clients};
pub use states::{Answering, Asking, States, states};

use crate::{
    model::{Selector, matches},
    steer::listening::{Listening, listening},
    sys,
    telemetry::chain,
};
use owners::Owners;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};
use tree::{Group, Tree};

/// A unit, which a service manager knows the state of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The user whose manager has it; none for the system's.
    pub user: Option<u32>,
    /// Name.
    pub name: String,
}

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// What it is, in few words: its unit, or else its control group, executable or user.
    pub name: String,
    /// Where it is reached from here.
    pub addr: SocketAddr,
    /// Its unit, if it has one.
    pub unit: Option<Unit>,
}

/// What a selector stands for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By address, each once.
    pub servers: Vec<Server>,
    /// Why there are none; empty when there are.
    pub missing: String,
}

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// What it is.
    pub selector: Selector,
    /// Port that it listens on; 0 for whatever it listens on.
    pub port: u16,
}

impl Wish {
    fn has_port(&self, socket: &Listening) -> bool {
        self.port == 0 || self.port == socket.addr.port()
    }

    fn by_group(&self) -> bool {
        !matches!(self.selector, Selector::Executable(_) | Selector::User(_))
    }
}

/// Looks for servers, and remembers what does not change.
#[derive(Debug, Default)]
pub struct Finder {
    tree: Tree,
    owners: Owners,
    /// Whether a socket is one of this process.
    own: HashMap<u32, bool>,
}

impl Finder {
    /// What each wish stands for now, in their order: one question to the kernel for all of them.
    pub fn look(&mut self, wishes: &[Wish]) -> Vec<Found> {
        let sockets = match listening() {
            Ok(sockets) => self.others(sockets),
            Err(e) => {
                let missing = format!("asking the kernel for listening sockets: {}", chain(&e));
                let none = Found {
                    servers: Vec::new(),
                    missing,
                };
                return vec![none; wishes.len()];
            }
        };
        let wanted = |by: fn(&Wish) -> bool| {
            let wanted = move |s: &&Listening| wishes.iter().any(|w| by(w) && w.has_port(s));
            sockets.iter().filter(wanted)
        };
        // What is found otherwise has a unit too.
        self.tree.know(wanted(|_| true).map(|s| s.cgroup));
        let by_executable = |w: &Wish| matches!(w.selector, Selector::Executable(_));
        self.owners.know(wanted(by_executable).map(|s| s.inode));
        wishes
            .iter()
            .map(|wish| self.found(wish, &sockets))
            .collect()
    }

    /// Those that this process has not made itself: a listener of ours is no server.
    fn others(&mut self, mut sockets: Vec<Listening>) -> Vec<Listening> {
        let user = sys::user();
        let mine: Vec<u32> = sockets
            .iter()
            .filter(|s| s.user == user)
            .map(|s| s.inode)
            .collect();
        if mine.iter().any(|inode| !self.own.contains_key(inode)) {
            let here = owners::sockets_of(Path::new("/proc/self/fd"));
            let here: HashSet<u32> = here.unwrap_or_default().into_iter().collect();
            self.own = mine.iter().map(|n| (*n, here.contains(n))).collect();
        } else if mine.len() != self.own.len() {
            self.own.retain(|inode, _| mine.contains(inode));
        }
        sockets.retain(|s| !self.own.get(&s.inode).copied().unwrap_or_default());
        sockets
    }

    fn found(&mut self, wish: &Wish, sockets: &[Listening]) -> Found {
        let mut by_group: BTreeMap<u64, Vec<(SocketAddr, Server)>> = BTreeMap::new();
        for socket in sockets.iter().filter(|s| wish.has_port(s)) {
            if let (Some(addr), Some((name, unit))) = (reach(socket), self.is(wish, socket)) {
                let server = Server { name, addr, unit };
                let group = by_group.entry(socket.cgroup).or_default();
                group.push((socket.addr, server));
            }
        }
        let mut servers: Vec<Server> = Vec::new();
        for group in by_group.into_values() {
            // A server that listens on all of both families is one.
            let local = |ip: IpAddr| ip.is_unspecified() || ip.is_loopback();
            let twin = |of: &SocketAddr| {
                let same = |a: &SocketAddr| a.is_ipv4() && a.port() == of.port() && local(a.ip());
                of.is_ipv6() && local(of.ip()) && group.iter().any(|(a, _)| same(a))
            };
            let kept = group.iter().filter(|(addr, _)| !twin(addr));
            servers.extend(kept.map(|(_, server)| server.clone()));
        }
        servers.sort_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
        // Several that share an address are one to whoever connects.
        servers.dedup_by_key(|s| s.addr);
        let missing = if servers.is_empty() {
            self.missing(wish, sockets)
        } else {
            String::new()
        };
        Found { servers, missing }
    }

    /// What a socket is to a wish, if it is what is wished for.
    fn is(&self, wish: &Wish, socket: &Listening) -> Option<(String, Option<Unit>)> {
        let group = self.tree.group(socket.cgroup);
        let unit = group.and_then(Group::unit);
        let named = |otherwise: String| match &unit {
            Some(unit) => (unit.name.clone(), Some(unit.clone())),
            None => (otherwise, None),
        };
        match &wish.selector {
            Selector::Executable(pattern) => {
                let path = self.owners.of(socket.inode);
                let path = path.iter().find(|path| matches(pattern, path))?;
                Some(named(path.clone()))
            }
            Selector::User(uid) => (socket.user == *uid).then(|| named(format!("uid {uid}"))),
            selector => {
                let group = group.filter(|group| group.is(selector))?;
                Some(named(group.path.clone()))
            }
        }
    }

    /// Why nothing is found.
    fn missing(&mut self, wish: &Wish, sockets: &[Listening]) -> String {
        let selector = &wish.selector;
        let on = match wish.port {
            0 => "no TCP port".to_owned(),
            port => format!("TCP port {port} not"),
        };
        if wish.by_group() {
            if let Some(why) = self.tree.trouble() {
                return format!("{selector}: {why}");
            }
            if !sockets.is_empty() && sockets.iter().all(|s| s.cgroup == 0) {
                let text = "the kernel does not say which control group a socket is of: it is older than Linux 5.9";
                return format!("{selector}: {text}");
            }
            return if self.tree.has(selector) {
                format!(
                    "{selector} is running, and listens on {on} in the network namespace of skupperd"
                )
            } else {
                format!("{selector} is not running")
            };
        }
        let hidden = matches!(selector, Selector::Executable(_))
            && sockets
                .iter()
                .any(|s| wish.has_port(s) && self.owners.of(s.inode).is_empty());
        if hidden {
            return format!(
                "{selector}: skupperd may not look into processes of other users, whose sockets are \
                 on that port: select by unit, cgroup or uid"
            );
        }
        format!("{selector} listens on {on}")
    }
}

/// Where a socket is reached from here. None: only with more than an address.
fn reach(socket: &Listening) -> Option<SocketAddr> {
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

    fn look(finder: &mut Finder, selector: &str, port: u16) -> Found {
        let selector = selector.parse().unwrap();
        finder.look(&[Wish { selector, port }]).remove(0)
    }

    #[test]
    fn v36_own_sockets_are_no_servers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut finder = Finder::default();
        let user = format!("uid={}", sys::user());
        let found = look(&mut finder, &user, port);
        assert!(found.servers.is_empty());
        assert_eq!(
            found.missing,
            format!("{user} listens on TCP port {port} not")
        );
    }

    #[test]
    fn v36_a_group_that_is_not_there_is_not_running() {
        let found = look(&mut Finder::default(), "unit=no-such.service", 0);
        let cgroups = Tree::default().trouble().is_none();
        let said = "unit=no-such.service is not running";
        assert!(!cgroups || found.missing == said, "{}", found.missing);
    }

    #[test]
    fn all_addresses_are_reached_on_loopback() {
        let reach = |addr: &str, both| {
            let addr = addr.parse().unwrap();
            let (user, inode, cgroup) = (0, 0, 0);
            let socket = Listening {
                addr,
                both,
                user,
                inode,
                cgroup,
            };
            reach(&socket).map(|addr| addr.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(reach("0.0.0.0:1", false), some("127.0.0.1:1"));
        assert_eq!(reach("[::]:1", true), some("127.0.0.1:1"));
        assert_eq!(reach("[::]:1", false), some("[::1]:1"));
        assert_eq!(reach("127.0.0.9:1", false), some("127.0.0.9:1"));
        assert_eq!(reach("[fe80::1]:1", false), None);
    }
}
