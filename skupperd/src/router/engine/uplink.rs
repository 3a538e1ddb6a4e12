//! The connection of an edge to an interior router, which reports what can be reached.

use super::{changes::Changes, config::NetworkRouter};
use crate::router::routes::ConnId;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long addresses of the previous interior router stay valid after a move: the new one announces
/// its own within a round trip, and listeners stay open meanwhile.
const HOLD: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Uplink {
    interior: Option<Interior>,
    /// Addresses that have consumers. True: according to the present interior router.
    reachable: BTreeMap<String, bool>,
    /// Until when addresses of the previous interior router are valid.
    hold_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Interior {
    pub(super) link: ConnId,
    pub(super) id: String,
    pub(super) cost: u32,
    /// Addresses by which it makes itself known.
    pub(super) adverts: Vec<String>,
}

impl Uplink {
    /// Moves to another interior router, or to none.
    pub(super) fn set(&mut self, interior: Option<Interior>, now: Instant, changes: &mut Changes) {
        if interior.is_none() {
            self.reachable.clear();
        }
        self.reachable
            .values_mut()
            .for_each(|present| *present = false);
        let hold = !self.reachable.is_empty();
        self.hold_until = hold.then(|| now + HOLD);
        self.interior = interior;
        changes.all = true;
    }

    pub(super) fn set_reachable(&mut self, address: &str, reachable: bool, changes: &mut Changes) {
        let unchanged = if reachable {
            let before = self.reachable.insert(address.to_owned(), true);
            before.is_some()
        } else {
            self.reachable.remove(address).is_none()
        };
        if !unchanged {
            changes.address(address);
        }
    }

    /// Drops addresses of the previous interior router that the present one has not announced.
    pub(super) fn expire(&mut self, now: Instant, changes: &mut Changes) {
        if self.hold_until.is_some_and(|until| until <= now) {
            self.hold_until = None;
            self.reachable.retain(|address, present| {
                if !*present {
                    changes.address(address);
                }
                *present
            });
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.hold_until
    }

    pub(super) fn link(&self) -> Option<ConnId> {
        self.interior.as_ref().map(|interior| interior.link)
    }

    pub(super) fn interior(&self) -> Option<&Interior> {
        self.interior.as_ref()
    }

    /// Addresses that have consumers.
    pub(super) fn reachable(&self) -> &BTreeMap<String, bool> {
        &self.reachable
    }

    /// The interior router, as a part of the network.
    pub(super) fn network(&self) -> Option<NetworkRouter> {
        let interior = self.interior.as_ref()?;
        let addresses = self.reachable.keys().chain(&interior.adverts);
        Some(NetworkRouter {
            id: interior.id.clone(),
            cost: Some(interior.cost),
            next_hop: None,
            peers: BTreeMap::new(),
            addresses: addresses.cloned().collect(),
        })
    }
}
