//! Budgets: bytes that others make this router keep, and work that they make it do.

use crate::router::routes::ConnId;
use std::{collections::BTreeMap, time::Instant};

/// Who has a link: one peer, however many links it has. What a peer has said counts for it after its
/// link is gone, too.
pub type OwnerId = u64;

/// The link that something came over, and who has that link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Via {
    pub(super) link: ConnId,
    pub(super) owner: OwnerId,
}

/// Bytes that are kept, by the peer that they came from.
#[derive(Debug)]
pub(super) struct Usage {
    by_owner: BTreeMap<OwnerId, usize>,
    total: usize,
    /// Most for one peer, and for all.
    of_owner: usize,
    of_all: usize,
}

impl Usage {
    pub(super) fn new(of_owner: usize, of_all: usize) -> Self {
        Self {
            by_owner: BTreeMap::new(),
            total: 0,
            of_owner,
            of_all,
        }
    }

    pub(super) fn has_room(&self, via: Via, bytes: usize) -> bool {
        let share = self.by_owner.get(&via.owner).copied().unwrap_or(0);
        share + bytes <= self.of_owner && self.total + bytes <= self.of_all
    }

    pub(super) fn add(&mut self, via: Via, bytes: usize) {
        *self.by_owner.entry(via.owner).or_default() += bytes;
        self.total += bytes;
    }

    pub(super) fn subtract(&mut self, via: Via, bytes: usize) {
        self.total = self.total.saturating_sub(bytes);
        if let Some(share) = self.by_owner.get_mut(&via.owner) {
            *share = share.saturating_sub(bytes);
            if *share == 0 {
                self.by_owner.remove(&via.owner);
            }
        }
    }
}

/// Work that may be done: it grows with time, up to a burst.
#[derive(Debug)]
pub(super) struct Allowance {
    per_ms: u64,
    burst: u64,
    left: u64,
    /// Time up to which it has grown. `None`: nothing was taken yet.
    since: Option<Instant>,
}

impl Allowance {
    pub(super) fn new(per_ms: u64, burst: u64) -> Self {
        Self {
            per_ms,
            burst,
            left: burst,
            since: None,
        }
    }

    fn grow(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_millis();
        // Less than a millisecond is not lost, but counted later.
        if passed > 0 {
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            let grown = self.left.saturating_add(passed.saturating_mul(self.per_ms));
            self.left = grown.min(self.burst);
            self.since = Some(now);
        }
    }

    /// Takes so much. False: there is too little. More than the burst counts as the burst.
    pub(super) fn take(&mut self, amount: usize, now: Instant) -> bool {
        self.grow(now);
        let amount = u64::try_from(amount).unwrap_or(u64::MAX).min(self.burst);
        let left = self.left.checked_sub(amount);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Nothing was taken that has not grown again.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.grow(now);
        self.left == self.burst
    }

    /// When so much can be taken.
    pub(super) fn due(&self, amount: usize) -> Option<Instant> {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX).min(self.burst);
        let missing = amount.saturating_sub(self.left);
        let wait = std::time::Duration::from_millis(missing.div_ceil(self.per_ms.max(1)));
        self.since.map(|since| since + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_peer_has_its_share_over_all_its_links_and_all_have_a_sum() {
        let via = |link, owner| Via { link, owner };
        let mut usage = Usage::new(10, 25);
        for owner in [1, 2] {
            let first = via(owner * 10, owner);
            assert!(usage.has_room(first, 10) && !usage.has_room(first, 11));
            usage.add(first, 4);
            usage.add(via(owner * 10 + 1, owner), 6);
        }
        let other = via(30, 3);
        assert!(!usage.has_room(via(12, 1), 1));
        assert!(!usage.has_room(other, 6) && usage.has_room(other, 5));
        usage.subtract(via(10, 1), 4);
        assert!(usage.has_room(via(12, 1), 4) && usage.has_room(other, 9));
    }

    #[test]
    fn an_allowance_grows_with_time_up_to_a_burst() {
        let (mut work, start) = (Allowance::new(10, 100), Instant::now());
        assert!(work.take(60, start) && !work.take(60, start));
        assert_eq!(work.due(60), Some(start + Duration::from_millis(2)));
        // Parts of a millisecond add up.
        for n in 1..=4 {
            work.take(1000, start + Duration::from_micros(500 * n));
        }
        assert!(work.take(60, start + Duration::from_millis(2)));
        let later = start + Duration::from_secs(9);
        assert!(work.take(1000, later) && !work.take(1, later));
    }
}
