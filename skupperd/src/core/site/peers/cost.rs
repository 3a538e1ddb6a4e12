//! The cost of links: of our own, and of those that came in, which the dialling site decides.

use super::{Peer, Peers};
use crate::{
    core::site::effects::{Effects, RouterInput},
    link::conn::ConnKey,
};

impl Peers {
    /// Changes the cost of the connections of a link.
    pub(in crate::core) fn set_cost(&mut self, link: &str, cost: u32, effects: &mut Effects) {
        let own = self.by_key.iter_mut();
        for (key, peer) in own.filter(|(_, p)| p.is_of_link(link) && !p.retired) {
            peer.cost = cost;
            effects.router(RouterInput::SetLinkCost(*key, cost));
        }
    }

    /// A connection that came in takes over from others of the same link: its cost is theirs. They may
    /// carry streams for hours, and the cheapest connection decides how far away a router is.
    pub(in crate::core) fn follow_cost(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(new) = self.by_key.get(&key).filter(|p| p.instance.is_some()) else {
            return;
        };
        let (remote, instance, cost) = (new.remote.clone(), new.instance.clone(), new.cost);
        let same = |p: &Peer| p.is_incoming() && p.remote == remote && p.instance == instance;
        for (key, peer) in self.by_key.iter_mut().filter(|(_, p)| same(p)) {
            if std::mem::replace(&mut peer.cost, cost) != cost {
                effects.router(RouterInput::SetLinkCost(*key, cost));
            }
        }
    }
}
