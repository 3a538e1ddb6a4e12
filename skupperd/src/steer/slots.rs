//! Assigns each listener a slot of the counters, shared by all its addresses.

use skupper_ebpf::{FIRST, LISTENERS, MAX_COUNTERS};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Namespace and name of a listener.
type ListenerName = Arc<(String, String)>;

/// Slots of counters, by listener.
pub(super) struct Slots {
    next_slot: u32,
    free: Vec<u32>,
    /// Slot of a listener, with the number of its ranges.
    of: HashMap<ListenerName, (u32, usize)>,
    /// Unclaimed slots of the previous process.
    adopted: HashSet<u32>,
}

impl Slots {
    /// All slots are free except for those of the previous process.
    pub(super) fn excluding(adopted: impl Iterator<Item = u32>) -> Self {
        let adopted: HashSet<u32> = adopted.filter(|slot| *slot >= FIRST).collect();
        Self {
            next_slot: adopted.iter().max().map_or(FIRST, |slot| slot + 1),
            free: Vec::new(),
            of: HashMap::new(),
            adopted,
        }
    }

    /// All listeners are counted together.
    pub(super) fn none() -> Self {
        Self {
            next_slot: MAX_COUNTERS,
            free: Vec::new(),
            of: HashMap::new(),
            adopted: HashSet::new(),
        }
    }

    /// The slot of a listener, for one more range. `adopted` is the range's slot in the previous
    /// process. Also returns whether the slot was unused and must be cleared.
    pub(super) fn take(&mut self, name: &ListenerName, adopted: Option<u32>) -> (u32, bool) {
        if let Some((slot, ranges)) = self.of.get_mut(name) {
            *ranges += 1;
            return (*slot, false);
        }
        let adopted = adopted.filter(|slot| self.adopted.remove(slot));
        let slot = adopted.or_else(|| self.take_free());
        // Once all slots are taken, further listeners share the common slot.
        let taken = slot.unwrap_or(LISTENERS);
        self.of.insert(name.clone(), (taken, 1));
        (taken, adopted.is_none() && slot.is_some())
    }

    fn take_free(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = (self.next_slot < MAX_COUNTERS).then_some(self.next_slot)?;
            self.next_slot += 1;
            Some(slot)
        })
    }

    /// Reverts one [`Self::take`].
    pub(super) fn release(&mut self, name: &ListenerName) {
        let Some((slot, ranges)) = self.of.get_mut(name) else {
            return;
        };
        *ranges -= 1;
        if *ranges == 0 {
            let slot = *slot;
            self.of.remove(name);
            self.free.extend((slot != LISTENERS).then_some(slot));
        }
    }

    /// Frees unclaimed slots of the previous process.
    pub(super) fn free_unclaimed(&mut self) {
        self.free.extend(self.adopted.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> ListenerName {
        Arc::new(("default".to_owned(), n.to_string()))
    }

    #[test]
    fn a_listener_is_counted_in_one_slot_until_its_last_range_is_gone() {
        let mut slots = Slots::excluding(std::iter::empty());
        assert_eq!(slots.take(&name(1), None), (FIRST, true));
        assert_eq!(slots.take(&name(1), None), (FIRST, false));
        slots.release(&name(1));
        assert_eq!(slots.take(&name(2), None), (FIRST + 1, true));
        slots.release(&name(1));
        assert_eq!(slots.take(&name(3), None), (FIRST, true));
    }

    #[test]
    fn counters_of_an_earlier_process_continue_for_one_listener() {
        let mut slots = Slots::excluding([LISTENERS, 7, 9].into_iter());
        assert_eq!(slots.take(&name(1), Some(7)), (7, false));
        assert_eq!(slots.take(&name(2), Some(7)), (10, true));
        slots.free_unclaimed();
        assert_eq!(slots.take(&name(3), None), (9, true));
        assert_eq!(slots.take(&name(4), Some(LISTENERS)), (11, true));
    }

    #[test]
    fn without_a_slot_left_a_listener_is_counted_with_all_others() {
        let mut slots = Slots::excluding([MAX_COUNTERS - 2].into_iter());
        assert_eq!(slots.take(&name(1), None), (MAX_COUNTERS - 1, true));
        assert_eq!(slots.take(&name(2), None), (LISTENERS, false));
        slots.release(&name(2));
        assert_eq!(slots.take(&name(3), None), (LISTENERS, false));
    }
}
