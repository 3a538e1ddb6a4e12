//! What has changed since the routes were last computed.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Every address: links or next hops have changed.
    pub(super) all: bool,
    /// Paths to other routers; every address, if that changes a route.
    pub(super) paths: bool,
    /// Links towards edges.
    pub(super) edges: bool,
    pub(super) addresses: BTreeSet<String>,
}

impl Changes {
    pub(super) fn address(&mut self, address: &str) {
        if !self.all && !self.addresses.contains(address) {
            self.addresses.insert(address.to_owned());
        }
    }

    /// Addresses that differ between two states of one router.
    pub(super) fn differences<T: PartialEq>(
        &mut self,
        before: &BTreeMap<String, T>,
        after: &BTreeMap<String, T>,
    ) {
        for (one, other) in [(before, after), (after, before)] {
            let differing = one
                .iter()
                .filter(|(address, value)| other.get(*address) != Some(value));
            differing.for_each(|(address, _)| self.address(address));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.all && !self.paths && !self.edges && self.addresses.is_empty()
    }
}
