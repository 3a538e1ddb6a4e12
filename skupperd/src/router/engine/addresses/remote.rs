//! The addresses that one other router has announced.

use super::{EDGE, MOBILE, Update};
use crate::router::{
    control::Address,
    engine::{
        budget::{Usage, Via},
        changes::Changes,
    },
    routes::Treatment,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// What an address counts for beside its key: its entries here and in the routes.
const ADDRESS_BYTES: usize = 128;

/// What another router has announced.
#[derive(Debug, Default)]
pub(in crate::router::engine) struct RemoteAddresses {
    pub(in crate::router::engine) mobile: BTreeMap<String, Treatment>,
    /// Edges that it serves.
    pub(in crate::router::engine) edges: BTreeSet<String>,
    /// Number of the last update that is known.
    pub(super) seq: i64,
    /// Number that its last RA had.
    pub(super) latest: i64,
    /// The same, or that of a later update.
    pub(super) announced: i64,
    /// Its last RAs had a lower number than the update that is known: that was not its own.
    pub(super) behind: u32,
    /// An answer contradicts the router's RA: request another one.
    pub(super) doubted: bool,
    pub(super) requested: Option<Instant>,
    /// Bytes that its addresses count for, and the link that they came over.
    pub(super) bytes: usize,
    pub(super) via: Via,
}

impl RemoteAddresses {
    /// The addresses count for this link from now on.
    pub(super) fn move_to(&mut self, via: Via, usage: &mut Usage) {
        usage.subtract(self.via, self.bytes);
        usage.add(via, self.bytes);
        self.via = via;
    }

    pub(super) fn insert(
        &mut self,
        addresses: Vec<Address>,
        usage: &mut Usage,
        changes: &mut Changes,
    ) -> Update {
        for Address { key, treatment } in addresses {
            let bytes = ADDRESS_BYTES + key.len();
            let is_new = if let Some(address) = key.strip_prefix(MOBILE) {
                let treatment = Treatment::from_wire(treatment);
                let before = self.mobile.get(address);
                if before.is_none() && !usage.has_room(self.via, bytes) {
                    return Update::OverBudget;
                }
                let is_new = before.is_none();
                if before != Some(&treatment) {
                    self.mobile.insert(address.to_owned(), treatment);
                    changes.address(address);
                }
                is_new
            } else if let Some(edge) = key.strip_prefix(EDGE) {
                if !self.edges.contains(edge) && !usage.has_room(self.via, bytes) {
                    return Update::OverBudget;
                }
                let is_new = self.edges.insert(edge.to_owned());
                changes.edges |= is_new;
                is_new
            } else {
                false
            };
            if is_new {
                self.bytes += bytes;
                usage.add(self.via, bytes);
            }
        }
        Update::Taken
    }

    /// Whether these are all of its addresses.
    pub(super) fn has_exactly(&self, addresses: &[Address]) -> bool {
        let is_known = |address: &Address| match address.key.strip_prefix(MOBILE) {
            Some(name) => {
                let treatment = Treatment::from_wire(address.treatment);
                self.mobile.get(name) == Some(&treatment)
            }
            None => {
                let edge = address.key.strip_prefix(EDGE);
                edge.is_some_and(|edge| self.edges.contains(edge))
            }
        };
        addresses.len() == self.mobile.len() + self.edges.len() && addresses.iter().all(is_known)
    }

    pub(super) fn remove(&mut self, key: &str, usage: &mut Usage, changes: &mut Changes) {
        let mobile = key.strip_prefix(MOBILE);
        let is_known = match key.strip_prefix(EDGE).filter(|_| mobile.is_none()) {
            Some(edge) => {
                let known = self.edges.remove(edge);
                changes.edges |= known;
                known
            }
            None => {
                let address = mobile.unwrap_or(key);
                let known = self.mobile.remove(address).is_some();
                if known {
                    changes.address(address);
                }
                known
            }
        };
        if is_known {
            // Keys without their first character are accepted too.
            let bytes = ADDRESS_BYTES + key.len();
            let bytes = bytes.min(self.bytes);
            self.bytes -= bytes;
            usage.subtract(self.via, bytes);
        }
    }
}
