//! The local processes that are the clients of connections.
//!
//! The kernel knows the owner of open connections only: it is asked when records are read, and
//! its answers are remembered for connections that have ended since.

use crate::{
    flows::{ConnectionRecord, ConnectionSide},
    workload::{ClientFinder, LocalClient},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

/// Connections whose clients are remembered.
const MAX_REMEMBERED: usize = 4096;

/// Clients by the ids of their connections; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct ClientAttribution(Arc<Mutex<KnownClients>>);

#[derive(Debug, Default)]
struct KnownClients {
    finder: ClientFinder,
    known: HashMap<String, Option<LocalClient>>,
    /// Keys of `known`, oldest first.
    order: VecDeque<String>,
}

impl ClientAttribution {
    /// The local client of each record; `None` where it is remote or unknown.
    pub(super) fn clients_of(&self, records: &[ConnectionRecord]) -> Vec<Option<LocalClient>> {
        let mut state = self.0.lock();
        let live = |r: &&ConnectionRecord| r.side == ConnectionSide::Listener && r.ending.is_none();
        let new = records.iter().filter(live);
        let new = new.filter(|r| !state.known.contains_key(&r.id));
        let new: Vec<(String, SocketAddr)> = new
            .filter_map(|r| Some((r.id.clone(), r.client?)))
            .collect();
        if !new.is_empty() {
            let addrs: HashSet<SocketAddr> = new.iter().map(|(_, addr)| *addr).collect();
            let found = state.finder.find(&addrs);
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

impl KnownClients {
    fn remember(&mut self, id: String, client: Option<LocalClient>) {
        if self.order.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.known.insert(id, client);
    }
}
