//! The links of this router, their neighbours, and the link state that follows.

use super::budget::{Allowance, OwnerId, Via};
use crate::router::routes::ConnId;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Higher costs count as this, so that a sum of costs does not overflow.
pub(super) const MAX_COST: u32 = 1 << 24;

/// Bytes of answers with all addresses for one peer, in a millisecond and at once. A request has 200
/// bytes, the answer of a router with 10,000 keys 300 KB; who gets none asks again after two seconds.
const ANSWERS_PER_MS: u64 = 16 * 1024;
const ANSWERS_AT_ONCE: u64 = 16 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Neighbours {
    links: BTreeMap<ConnId, NeighbourLink>,
    /// Bytes of answers with all addresses that each peer may have, less than all.
    answers: BTreeMap<OwnerId, Allowance>,
    /// When each neighbour was heard last; our HELLOs name them.
    last_hello: BTreeMap<String, Instant>,
    /// Our link state: the least cost to each neighbour in two-way contact.
    peers: BTreeMap<String, u32>,
    /// Number of that link state.
    seq: i64,
}

#[derive(Debug)]
struct NeighbourLink {
    cost: u32,
    /// The neighbour on it.
    peer: Option<String>,
    /// Last HELLO that names us. `None`: the neighbour does not hear us.
    two_way: Option<Instant>,
    /// The id that the connection was opened with: messages with another id are refused.
    bound: Option<String>,
    /// Whose link it is.
    owner: OwnerId,
}

/// Effect: two-way contact on a link is over.
#[derive(Debug)]
pub(super) struct LostNeighbour {
    pub(super) link: ConnId,
    pub(super) id: String,
}

/// Effects of a HELLO, in this order.
#[derive(Debug, Default)]
pub(super) struct Hello {
    /// Another neighbour was on this link before.
    pub(super) lost_neighbour: Option<LostNeighbour>,
    /// The neighbour waits for a HELLO that names it.
    pub(super) needs_answer: bool,
    /// Two-way contact begins.
    pub(super) contact_began: bool,
}

impl Neighbours {
    pub(super) fn add_link(&mut self, link: ConnId, cost: u32) {
        let cost = cost.clamp(1, MAX_COST);
        let link_state = NeighbourLink {
            cost,
            peer: None,
            two_way: None,
            bound: None,
            owner: link,
        };
        self.links.insert(link, link_state);
    }

    /// Only the router with this id may send on a link, which belongs to this peer.
    pub(super) fn bind(&mut self, link: ConnId, id: &str, owner: OwnerId) {
        if let Some(link) = self.links.get_mut(&link) {
            link.bound = Some(id.to_owned());
            link.owner = owner;
        }
    }

    /// A link with the peer that it belongs to.
    pub(super) fn via(&self, link: ConnId) -> Via {
        let owner = self.links.get(&link).map_or(link, |link| link.owner);
        Via { link, owner }
    }

    /// This router may announce itself on a link.
    pub(super) fn is_bound_to(&self, link: ConnId, id: &str) -> bool {
        let bound = self.links.get(&link).and_then(|link| link.bound.as_deref());
        bound.is_none_or(|bound| bound == id)
    }

    /// The router is a neighbour, and this is not a link to it.
    pub(super) fn is_elsewhere(&self, link: ConnId, id: &str) -> bool {
        let of =
            |l: &NeighbourLink| l.bound.as_deref() == Some(id) || l.peer.as_deref() == Some(id);
        !self.links.get(&link).is_some_and(of) && self.links_to(id).next().is_some()
    }

    /// Answers of so many bytes may be sent over a link. False: its peer has had too many.
    pub(super) fn may_answer(&mut self, link: ConnId, bytes: usize, now: Instant) -> bool {
        let owner = self.via(link).owner;
        let answers = self.answers.entry(owner);
        let answers = answers.or_insert_with(|| Allowance::new(ANSWERS_PER_MS, ANSWERS_AT_ONCE));
        answers.take(bytes, now)
    }

    /// False: no such link.
    pub(super) fn set_cost(&mut self, link: ConnId, cost: u32) -> bool {
        let Some(link) = self.links.get_mut(&link) else {
            return false;
        };
        link.cost = cost.clamp(1, MAX_COST);
        true
    }

    pub(super) fn remove_link(&mut self, link: ConnId) -> Option<LostNeighbour> {
        let removed = self.links.remove(&link)?;
        removed.two_way?;
        let id = removed.peer?;
        self.forget(&id);
        Some(LostNeighbour { link, id })
    }

    /// A HELLO of a neighbour; `two_way`: it names us.
    pub(super) fn on_hello(
        &mut self,
        link: ConnId,
        id: &str,
        two_way: bool,
        now: Instant,
    ) -> Hello {
        let first = self.last_hello.insert(id.to_owned(), now).is_none();
        let Some(state) = self.links.get_mut(&link) else {
            return Hello::default();
        };
        let changed = state.peer.as_deref() != Some(id);
        let previous = if changed {
            state.peer.replace(id.to_owned())
        } else {
            None
        };
        let was_up = state.two_way.is_some();
        if changed {
            state.two_way = None;
        }
        if two_way {
            state.two_way = Some(now);
        }
        let lost_neighbour = previous.filter(|_| was_up).map(|id| {
            self.forget(&id);
            LostNeighbour { link, id }
        });
        Hello {
            lost_neighbour,
            needs_answer: first || !two_way,
            contact_began: two_way && (changed || !was_up),
        }
    }

    /// Ends contact with neighbours that have been silent for longer than this.
    pub(super) fn expire(&mut self, now: Instant, max_age: Duration) -> Vec<LostNeighbour> {
        let old = |at: Instant| now.saturating_duration_since(at) > max_age;
        self.last_hello.retain(|_, at| !old(*at));
        self.answers.retain(|_, answers| !answers.is_full(now));
        let mut lost = Vec::new();
        for (link, state) in &mut self.links {
            if state.two_way.is_some_and(old) {
                state.two_way = None;
                lost.extend(
                    state
                        .peer
                        .clone()
                        .map(|id| LostNeighbour { link: *link, id }),
                );
            }
        }
        for LostNeighbour { id, .. } in &lost {
            self.forget(id);
        }
        lost
    }

    /// Without contact on any link a neighbour counts as not heard.
    fn forget(&mut self, id: &str) {
        if self.links_to(id).next().is_none() {
            self.last_hello.remove(id);
        }
    }

    /// Takes the least costs into the link state. True: it is a new one.
    pub(super) fn update_link_state(&mut self) -> bool {
        let mut peers = BTreeMap::new();
        for link in self.links.values().filter(|l| l.two_way.is_some()) {
            if let Some(id) = &link.peer {
                let cost = peers.entry(id.clone()).or_insert(link.cost);
                *cost = link.cost.min(*cost);
            }
        }
        let changed = peers != self.peers;
        if changed {
            self.peers = peers;
            self.seq += 1;
        }
        changed
    }

    fn links_to<'a>(&'a self, id: &'a str) -> impl Iterator<Item = (u32, ConnId)> + 'a {
        let up = self
            .links
            .iter()
            .filter(move |(_, l)| l.two_way.is_some() && l.peer.as_deref() == Some(id));
        up.map(|(conn, l)| (l.cost, *conn))
    }

    /// The link to use towards a neighbour: the cheapest; of those that cost the same the newest, which
    /// is there to take over from the others.
    pub(super) fn best_link(&self, id: &str) -> Option<ConnId> {
        let order = |(cost, link): &(u32, ConnId)| (*cost, Reverse(*link));
        self.links_to(id).min_by_key(order).map(|(_, link)| link)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = ConnId> {
        self.links.keys().copied()
    }

    pub(super) fn has_link(&self, link: ConnId) -> bool {
        self.links.contains_key(&link)
    }

    /// Neighbours that sent a HELLO recently.
    pub(super) fn recent_neighbours(&self) -> impl Iterator<Item = &String> {
        self.last_hello.keys()
    }

    pub(super) fn peers(&self) -> &BTreeMap<String, u32> {
        &self.peers
    }

    pub(super) fn seq(&self) -> i64 {
        self.seq
    }
}
