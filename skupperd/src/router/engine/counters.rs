//! Counters that the routes of an address share with those that replace them.
//!
//! A worker may still hold an old snapshot of the routes while another has the new one: both choose
//! by the same counters.

use crate::router::routes::ConnId;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize},
    },
};

#[derive(Debug, Default)]
struct AddressCounters {
    rotation: Arc<AtomicUsize>,
    /// Deliveries under way, by link.
    outstanding: BTreeMap<ConnId, Arc<AtomicU32>>,
}

/// The counters of all addresses.
#[derive(Debug, Default)]
pub(super) struct Counters {
    by_address: HashMap<Arc<str>, AddressCounters>,
    /// Addresses with a counter to drop once no delivery holds it any more.
    leaving: BTreeSet<Arc<str>>,
}

impl Counters {
    /// The name of an address, as all its routes share it, and its rotation.
    pub(super) fn address(&mut self, address: &str) -> (Arc<str>, &Arc<AtomicUsize>) {
        let name = match self.by_address.get_key_value(address) {
            Some((name, _)) => name.clone(),
            None => address.into(),
        };
        let counters = self.by_address.entry(name.clone()).or_default();
        (name, &counters.rotation)
    }

    pub(super) fn outstanding(&mut self, address: &str, link: ConnId) -> Arc<AtomicU32> {
        let counters = self.by_address.get_mut(address);
        counters.map_or_else(Arc::default, |counters| {
            counters.outstanding.entry(link).or_default().clone()
        })
    }

    pub(super) fn name(&self, address: &str) -> Option<&Arc<str>> {
        self.by_address.get_key_value(address).map(|(name, _)| name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_address.keys()
    }

    pub(super) fn leaving(&self) -> &BTreeSet<Arc<str>> {
        &self.leaving
    }

    /// Drops counters of addresses and links that no longer exist.
    pub(super) fn drop_unused(
        &mut self,
        address: &Arc<str>,
        is_address: impl Fn(&str) -> bool,
        is_link: impl Fn(ConnId) -> bool,
    ) {
        let Some(counters) = self.by_address.get_mut(address) else {
            self.leaving.remove(address);
            return;
        };
        let lives = is_address(address);
        let wanted = |link: ConnId| lives && is_link(link);
        counters
            .outstanding
            .retain(|link, count| wanted(*link) || Arc::strong_count(count) > 1);
        if counters.outstanding.keys().all(|link| wanted(*link)) {
            self.leaving.remove(address);
            if !lives {
                self.by_address.remove(address);
            }
        } else {
            self.leaving.insert(address.clone());
        }
    }
}
