//! An edge's own way into the network: one interior router, which says what can be reached.

use super::{
    ConnId, Router,
    picture::{NetworkRouter, address_route},
};
use crate::router::routes::{AddressRoute, Remote, Treatment};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize},
    },
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
        self.uplink.active = active.map(|(link, id, cost)| Active {
            link,
            id: id.to_owned(),
            cost,
            adverts,
        });
        self.routes_dirty = true;
    }

    /// The interior router says whether anybody receives what is sent to an address.
    pub fn reached(&mut self, address: &str, reachable: bool) {
        if reachable {
            let before = self.uplink.reached.insert(address.to_owned(), true);
            self.routes_dirty |= before.is_none();
        } else {
            self.routes_dirty |= self.uplink.reached.remove(address).is_some();
        }
    }

    /// What an earlier interior router said and the one of now did not is over.
    pub(super) fn uplink_timeout(&mut self) {
        if self.uplink.until.is_some_and(|until| until <= self.now) {
            self.uplink.until = None;
            let before = self.uplink.reached.len();
            self.uplink.reached.retain(|_, said| *said);
            self.routes_dirty |= self.uplink.reached.len() < before;
        }
    }

    /// Puts what can be reached by way of the interior router into the picture.
    pub(super) fn add_uplink(
        &self,
        addresses: &mut HashMap<String, AddressRoute>,
        turns: &mut HashMap<String, Arc<AtomicUsize>>,
        counters: &mut HashMap<(String, ConnId), Arc<AtomicU32>>,
    ) {
        let Some(active) = &self.uplink.active else {
            return;
        };
        let id: Arc<str> = active.id.as_str().into();
        for address in self.uplink.reached.keys() {
            let route = address_route(addresses, turns, address, Treatment::of(address));
            let outstanding = counters.entry((address.clone(), active.link)).or_default();
            let remote = Remote::uplink(id.clone(), active.cost, active.link, outstanding.clone());
            route.remotes.push(remote);
        }
    }
}
