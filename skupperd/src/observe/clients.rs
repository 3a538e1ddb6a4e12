//! Which processes of this host clients are.
//!
//! The kernel says so of open connections only: it is asked when somebody looks, and what it has said
//! of a connection is remembered.

use crate::{
    link::ledger::{Record, Side},
    workload::{Client, Clients},
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Connections whose clients are remembered.
const REMEMBERED: usize = 4096;

/// Clients by the identities of their connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Attribution(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    clients: Clients,
    known: HashMap<String, Option<Client>>,
    /// What is known, the oldest first.
    order: VecDeque<String>,
}

/// An address as the kernel says it: one of IPv4 is no address of IPv6.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Attribution {
    /// The client of each record, where it is known.
    pub(super) fn of(&self, records: &[Record]) -> Vec<Option<Client>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live = |r: &&Record| r.side == Side::Listener && r.ending.is_none();
        let new = records.iter().filter(live);
        let new = new.filter(|r| !state.known.contains_key(&r.id));
        let new: Vec<(String, SocketAddr)> = new
            .filter_map(|r| Some((r.id.clone(), plain(r.client?))))
            .collect();
        if !new.is_empty() {
            let addrs: HashSet<SocketAddr> = new.iter().map(|(_, addr)| *addr).collect();
            let found = state.clients.look(&addrs);
            for (id, addr) in new {
                state.remember(id, found.get(&addr).cloned());
            }
        }
        let known = records
            .iter()
            .map(|r| state.known.get(&r.id).cloned().flatten());
        known.collect()
    }
}

impl State {
    fn remember(&mut self, id: String, client: Option<Client>) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.known.insert(id, client);
    }
}
