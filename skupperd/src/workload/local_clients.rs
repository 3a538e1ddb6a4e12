//! Clients of this host: the users and control groups that own their sockets.

use super::{cgroups::CgroupTree, chain};
use crate::netlink::listeners::connected;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalClient {
    /// User that created its socket.
    pub user: u32,
    /// Its unit, else its control group; empty when neither is known.
    pub name: String,
}

/// Finds clients. It caches control groups between calls.
#[derive(Debug, Default)]
pub struct ClientFinder {
    cgroups: CgroupTree,
}

impl ClientFinder {
    /// The clients with one of these addresses in this thread's network namespace, by one sock_diag
    /// request.
    pub fn find(&mut self, addrs: &HashSet<SocketAddr>) -> HashMap<SocketAddr, LocalClient> {
        let mut sockets = match connected() {
            Ok(sockets) => sockets,
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(error, "cannot list connected sockets");
                return HashMap::new();
            }
        };
        sockets.retain(|socket| addrs.contains(&socket.addr));
        self.cgroups
            .load(sockets.iter().map(|socket| socket.cgroup));
        let mut found: HashMap<SocketAddr, Option<LocalClient>> = HashMap::new();
        for socket in sockets {
            let group = self.cgroups.group(socket.cgroup);
            let name = group.map(|group| match group.unit() {
                Some(unit) => unit.name,
                None => group.path.clone(),
            });
            let client = LocalClient {
                user: socket.user,
                name: name.unwrap_or_default(),
            };
            // Sockets to different servers can share an address: then its owner is not certain.
            let known = found
                .entry(socket.addr)
                .or_insert_with(|| Some(client.clone()));
            if known.as_ref() != Some(&client) {
                *known = None;
            }
        }
        let certain = found.into_iter();
        certain
            .filter_map(|(addr, client)| Some((addr, client?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_client_of_this_host_is_found_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let addr = client.local_addr().unwrap();
        let elsewhere: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let mut clients = ClientFinder::default();
        let found = clients.find(&HashSet::from([addr, elsewhere]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[&addr].user, crate::sys::user());
        drop(client);
        drop(listener);
        assert!(clients.find(&HashSet::from([addr])).is_empty());
    }
}
