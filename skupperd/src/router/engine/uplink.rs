//! An edge's own way into the network: one interior router, which says what can be reached.

use super::{ConnId, Router, picture::NetworkRouter};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long what an earlier interior router said holds after another has taken over: it says all of
/// its own in a round trip, and listeners stay open meanwhile.
const HOLD: Duration = Duration::from_secs(2);

/// The way into the network.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    active: Option<Active>,
    /// Addresses that somebody receives from; true: said by the interior router of now.
    reached: BTreeMap<String, bool>,
    /// Until when what an earlier one said holds.
    pub(super) until: Option<Instant>,
}

#[derive(Debug)]
struct Active {
    link: ConnId,
    id: String,
    cost: u32,
    adverts: Vec<String>,
}

impl Uplink {
    pub(super) fn link(&self) -> Option<ConnId> {
        self.active.as_ref().map(|active| active.link)
    }

    /// The way there: link, interior router, cost.
    pub(super) fn way(&self) -> Option<(ConnId, &str, u32)> {
        let active = self.active.as_ref()?;
        Some((active.link, &active.id, active.cost))
    }

    /// Addresses that somebody receives from.
    pub(super) fn reached(&self) -> &BTreeMap<String, bool> {
        &self.reached
    }

    /// The interior router, as a part of the network.
    pub(super) fn network(&self) -> Option<NetworkRouter> {
        let active = self.active.as_ref()?;
        let reached = self.reached.keys().chain(&active.adverts);
        Some(NetworkRouter {
            id: active.id.clone(),
            cost: Some(active.cost),
            next_hop: None,
            peers: BTreeMap::new(),
            addresses: reached.cloned().collect(),
        })
    }
}

impl Router {
    /// An edge has this connection to an interior router for its way into the network, or none.
    /// `adverts`: addresses by which the interior makes itself known.
    pub fn set_uplink(
        &mut self,
        active: Option<(ConnId, &str, u32)>,
        adverts: Vec<String>,
        now: Instant,
    ) {
        self.now = now;
        if active.is_none() {
            self.uplink.reached.clear();
        }
        let held = self.uplink.reached.values_mut();
        held.for_each(|said| *said = false);
        let hold = !self.uplink.reached.is_empty();
        self.uplink.until = hold.then(|| now + HOLD);
        self.stale.all = true;
        self.uplink.active = active.map(|(link, id, cost)| Active {
            link,
            id: id.to_owned(),
            cost,
            adverts,
        });
    }

    /// The interior router says whether anybody receives what is sent to an address.
    pub fn reached(&mut self, address: &str, reachable: bool) {
        if reachable {
            let before = self.uplink.reached.insert(address.to_owned(), true);
            if before.is_some() {
                return;
            }
        } else if self.uplink.reached.remove(address).is_none() {
            return;
        }
        self.stale.address(address);
    }

    /// What an earlier interior router said and the one of now did not is over.
    pub(super) fn uplink_timeout(&mut self) {
        if self.uplink.until.is_some_and(|until| until <= self.now) {
            self.uplink.until = None;
            let stale = &mut self.stale;
            self.uplink.reached.retain(|address, said| {
                if !*said {
                    stale.address(address);
                }
                *said
            });
        }
    }
}
