//! The unsettled deliveries of one session in one direction.
//!
//! Each operation costs as much as it changes: a peer names any range of ids in a few bytes, and can have
//! many links with many deliveries each.

use super::event::LinkId;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

#[derive(Debug, Default)]
pub(super) struct UnsettledDeliveries {
    /// Deliveries without an outcome.
    open: BTreeMap<u32, LinkId>,
    /// Deliveries with an outcome that is not settled yet.
    decided: BTreeMap<u32, LinkId>,
    by_link: BTreeSet<(LinkId, u32)>,
}

impl UnsettledDeliveries {
    pub(super) fn len(&self) -> usize {
        self.by_link.len()
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.open.contains_key(&id) || self.decided.contains_key(&id)
    }

    /// An id that is already in use now refers to the new delivery.
    pub(super) fn insert(&mut self, id: u32, link: LinkId) {
        self.remove(id);
        self.open.insert(id, link);
        self.by_link.insert((link, id));
    }

    /// False: there is no such delivery.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        let link = self.open.remove(&id).or_else(|| self.decided.remove(&id));
        link.is_some_and(|link| self.by_link.remove(&(link, id)))
    }

    /// Forgets the deliveries of a link; returns how many there were.
    pub(super) fn remove_link(&mut self, link: LinkId) -> usize {
        let of_link = self.by_link.range((link, 0)..=(link, u32::MAX));
        let ids: Vec<u32> = of_link.map(|(_, id)| *id).collect();
        for id in &ids {
            self.remove(*id);
        }
        ids.len()
    }

    /// Removes the deliveries from `first` to `last` and returns them in the order of their ids, which
    /// wrap around.
    pub(super) fn settle(&mut self, first: u32, last: u32) -> Vec<(u32, LinkId)> {
        let mut all = in_range(&self.open, first, last, usize::MAX);
        all.extend(in_range(&self.decided, first, last, usize::MAX));
        all.sort_unstable_by_key(|(id, _)| id.wrapping_sub(first));
        for (id, _) in &all {
            self.remove(*id);
        }
        all
    }

    /// Notes the outcome of the deliveries from `first` to `last`. Returns those that had none.
    pub(super) fn decide(&mut self, first: u32, last: u32) -> Vec<(u32, LinkId)> {
        let open = in_range(&self.open, first, last, usize::MAX);
        for (id, link) in &open {
            self.open.remove(id);
            self.decided.insert(*id, *link);
        }
        open
    }

    /// The first deliveries without an outcome from `first` to `last`, at most `most`.
    pub(super) fn open(&self, first: u32, last: u32, most: usize) -> Vec<(u32, LinkId)> {
        in_range(&self.open, first, last, most)
    }
}

fn in_range(map: &BTreeMap<u32, LinkId>, first: u32, last: u32, most: usize) -> Vec<(u32, LinkId)> {
    let part = |ids: RangeInclusive<u32>| map.range(ids).map(|(id, link)| (*id, *link));
    if first <= last {
        part(first..=last).take(most).collect()
    } else {
        let wrapped = part(first..=u32::MAX).chain(part(0..=last));
        wrapped.take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[u32]) -> UnsettledDeliveries {
        let mut unsettled = UnsettledDeliveries::default();
        for (id, link) in ids.iter().zip((0..2).cycle()) {
            unsettled.insert(*id, LinkId(link));
        }
        unsettled
    }

    fn ids(deliveries: &[(u32, LinkId)]) -> Vec<u32> {
        deliveries.iter().map(|(id, _)| *id).collect()
    }

    #[test]
    fn ranges_wrap_around_and_keep_the_order_of_ids() {
        let mut unsettled = of(&[3, u32::MAX, 0, 7]);
        assert_eq!(ids(&unsettled.decide(u32::MAX, 0)), [u32::MAX, 0]);
        assert_eq!(ids(&unsettled.decide(0, u32::MAX)), [3, 7]);
        assert_eq!(ids(&unsettled.settle(u32::MAX, 3)), [u32::MAX, 0, 3]);
        assert_eq!((unsettled.len(), unsettled.contains(7)), (1, true));
    }

    #[test]
    fn a_link_takes_its_deliveries_with_it() {
        let mut unsettled = of(&[1, 2, 3, 4, 5]);
        unsettled.decide(3, 3);
        assert_eq!(unsettled.remove_link(LinkId(0)), 3);
        assert_eq!(ids(&unsettled.settle(0, u32::MAX)), [2, 4]);
        assert_eq!(unsettled.len(), 0);
    }

    #[test]
    fn an_id_that_is_used_twice_counts_once() {
        let mut unsettled = of(&[1]);
        unsettled.insert(1, LinkId(9));
        assert_eq!(unsettled.len(), 1);
        assert_eq!(unsettled.remove_link(LinkId(0)), 0);
        assert!(unsettled.remove(1) && !unsettled.remove(1));
    }
}
