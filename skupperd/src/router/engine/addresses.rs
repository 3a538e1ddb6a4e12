//! Addresses that have consumers: those of this router, told to the network, and those of others.

use super::{ConnId, Other, Router, table::Stale};
use crate::router::{
    routes::Treatment,
    wire::{Address, Control},
};

/// Addresses kept for one router.
const MAX_ADDRESSES: usize = 65_536;
/// First character of a key in updates: a mobile address.
pub(super) const MOBILE: char = 'M';
/// The same: the id of an edge.
const EDGE: char = 'H';

impl Router {
    /// A consumer of an address is on this router.
    pub fn consumer_added(&mut self, address: &str, treatment: Treatment) {
        let entry = self
            .local
            .entry(address.to_owned())
            .or_insert((treatment, 0));
        entry.1 += 1;
        if entry.1 == 1 {
            self.announce(format!("{MOBILE}{address}"));
        }
        self.stale.address(address);
    }

    /// A consumer of an address has gone.
    pub fn consumer_removed(&mut self, address: &str) {
        let Some(entry) = self.local.get_mut(address) else {
            return;
        };
        entry.1 -= 1;
        if entry.1 == 0 {
            self.local.remove(address);
            self.take_back(format!("{MOBILE}{address}"));
        }
        self.stale.address(address);
    }

    /// The addresses that have consumers on this router, edges' left out.
    pub fn own_addresses(&self) -> Vec<String> {
        let own = |(address, (_, count)): &(&String, &(Treatment, usize))| {
            let of_edges = self.edges.values().filter(|e| e.consumes(address));
            *count > of_edges.count()
        };
        let own = self.local.iter().filter(own);
        own.map(|(address, _)| address.clone()).collect()
    }

    /// Has the network told of a key.
    pub(super) fn announce(&mut self, key: String) {
        if !self.deleted.remove(&key) {
            self.added.insert(key);
        }
    }

    /// Has the network told that a key is no more.
    pub(super) fn take_back(&mut self, key: String) {
        if !self.added.remove(&key) {
            self.deleted.insert(key);
        }
    }

    /// Tells the network about changed local addresses, all in one message.
    pub(super) fn announce_addresses(&mut self) {
        if self.added.is_empty() && self.deleted.is_empty() {
            return;
        }
        self.mobile_seq += 1;
        let add = std::mem::take(&mut self.added);
        let message = Control::MauDelta {
            id: self.cfg.id.clone(),
            seq: self.mobile_seq,
            add: add.into_iter().map(|key| self.described(key)).collect(),
            del: std::mem::take(&mut self.deleted).into_iter().collect(),
        };
        self.flood(&message, "qdrouter.ma");
    }

    /// A key as updates describe it.
    fn described(&self, key: String) -> Address {
        let mobile = key.strip_prefix(MOBILE);
        let treatment = match mobile.map(|address| self.local.get(address)) {
            Some(Some((treatment, _))) => *treatment,
            Some(None) => Treatment::Balanced,
            None => Treatment::Closest,
        };
        Address {
            key,
            treatment: treatment.to_wire(),
        }
    }

    // ---- what others say ----

    pub(super) fn on_mar(&mut self, link: ConnId, id: &str, have_seq: i64) {
        self.announce_addresses();
        if have_seq >= self.mobile_seq && have_seq != 0 {
            return;
        }
        let mobile = self
            .local
            .keys()
            .map(|address| format!("{MOBILE}{address}"));
        let edges = self.named_edges().into_iter().map(edge_key);
        let exist = mobile.chain(edges).map(|key| self.described(key));
        let mau = Control::MauFull {
            id: self.cfg.id.clone(),
            seq: self.mobile_seq,
            exist: exist.collect(),
        };
        self.answer(link, id, &mau, "qdrouter.ma");
    }

    pub(super) fn on_mau_delta(&mut self, id: &str, seq: i64, add: Vec<Address>, del: &[String]) {
        let Some(remote) = self.remotes.get_mut(id) else {
            return;
        };
        if Some(seq) == remote.mobile_seq.checked_add(1) {
            remote.mobile_seq = seq;
            for key in del {
                match key.strip_prefix(EDGE) {
                    Some(edge) => self.stale.edges |= remote.edges.remove(edge),
                    None => {
                        let address = key.strip_prefix(MOBILE).unwrap_or(key);
                        if remote.mobile.remove(address).is_some() {
                            self.stale.address(address);
                        }
                    }
                }
            }
            remote.insert(add, &mut self.stale);
        } else if seq > remote.mobile_seq {
            remote.latest.1 = seq;
            remote.asked_mobile = None;
            self.asking = true;
        }
    }

    pub(super) fn on_mau_full(&mut self, id: &str, seq: i64, exist: Vec<Address>) {
        let Some(remote) = self.remotes.get_mut(id) else {
            return;
        };
        remote.mobile_seq = seq;
        remote.asked_mobile = None;
        let before = Other {
            mobile: std::mem::take(&mut remote.mobile),
            edges: std::mem::take(&mut remote.edges),
            ..Other::default()
        };
        remote.insert(exist, &mut Stale::default());
        self.stale.differs(&before, remote);
    }

    pub(super) fn ask_addresses(&mut self, id: &str) {
        let now = self.now;
        let Some(remote) = self.remotes.get_mut(id) else {
            return;
        };
        remote.asked_mobile = Some(now);
        // Always from nothing: the answer is absolute.
        let mar = Control::Mar {
            id: self.cfg.id.clone(),
            have_seq: 0,
        };
        self.send_to(id, &mar, "qdrouter.ma");
    }
}

/// The key by which updates name an edge.
pub(super) fn edge_key(id: String) -> String {
    format!("{EDGE}{id}")
}

impl Other {
    fn insert(&mut self, addresses: Vec<Address>, stale: &mut Stale) {
        for Address { key, treatment } in addresses {
            if self.mobile.len() + self.edges.len() >= MAX_ADDRESSES {
                return;
            }
            if let Some(address) = key.strip_prefix(MOBILE) {
                let treatment = Treatment::from_wire(treatment);
                if self.mobile.insert(address.to_owned(), treatment) != Some(treatment) {
                    stale.address(address);
                }
            } else if let Some(edge) = key.strip_prefix(EDGE) {
                stale.edges |= self.edges.insert(edge.to_owned());
            }
        }
    }
}
