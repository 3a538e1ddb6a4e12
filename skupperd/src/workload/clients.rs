//! Clients of this host: whose sockets they are.

use super::{chain, tree::Tree};
use crate::steer::listening::connected;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

/// A client on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// User that has made its socket.
    pub user: u32,
    /// Its unit, or else its control group; empty when neither is known.
    pub name: String,
}

/// Looks for clients, and remembers what does not change.
#[derive(Debug, Default)]
pub struct Clients {
    tree: Tree,
}

impl Clients {
    /// Those of these addresses that are on this host, in this thread's network namespace: one question
    /// to the kernel for all of them.
    pub fn look(&mut self, addrs: &HashSet<SocketAddr>) -> HashMap<SocketAddr, Client> {
        let mut sockets = match connected() {
            Ok(sockets) => sockets,
            Err(error) => {
                let why = chain(&error);
                tracing::debug!(why, "asking the kernel for clients");
                return HashMap::new();
            }
        };
        sockets.retain(|socket| addrs.contains(&socket.addr));
        self.tree.know(sockets.iter().map(|socket| socket.cgroup));
        let mut found: HashMap<SocketAddr, Option<Client>> = HashMap::new();
        for socket in sockets {
            let group = self.tree.group(socket.cgroup);
            let name = group.map(|group| match group.unit() {
                Some(unit) => unit.name,
                None => group.path.clone(),
            });
            let client = Client {
                user: socket.user,
                name: name.unwrap_or_default(),
            };
            // An address may have several sockets, to different servers: whose it is has to be sure.
            let known = found
                .entry(socket.addr)
                .or_insert_with(|| Some(client.clone()));
            if known.as_ref() != Some(&client) {
                *known = None;
            }
        }
        let sure = found.into_iter();
        sure.filter_map(|(addr, client)| Some((addr, client?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn o8_a_client_of_this_host_is_known_by_its_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let addr = client.local_addr().unwrap();
        let elsewhere: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let mut clients = Clients::default();
        let found = clients.look(&HashSet::from([addr, elsewhere]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[&addr].user, crate::sys::user());
        drop(client);
        drop(listener);
        assert!(clients.look(&HashSet::from([addr])).is_empty());
    }
}
