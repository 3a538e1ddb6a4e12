//! Which listener is counted where: each has a slot of the counters, wherever it is reached.

use skupper_ebpf::{FIRST, LISTENERS, MAX_COUNTERS};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Namespace and name of a listener.
type Name = Arc<(String, String)>;

/// Slots of counters, by listener.
pub(super) struct Slots {
    next: u32,
    free: Vec<u32>,
    /// With the number of places that the listener has.
    of: HashMap<Name, (u32, usize)>,
    /// Those of an earlier process that nobody has wanted yet.
    adopted: HashSet<u32>,
}

impl Slots {
    /// None of them is in use but those that an earlier process has left.
    pub(super) fn beside(adopted: impl Iterator<Item = u32>) -> Self {
        let adopted: HashSet<u32> = adopted.filter(|slot| *slot >= FIRST).collect();
        Self {
            next: adopted.iter().max().map_or(FIRST, |slot| slot + 1),
            free: Vec::new(),
            of: HashMap::new(),
            adopted,
        }
    }

    /// All listeners are counted together.
    pub(super) fn none() -> Self {
        Self {
            next: MAX_COUNTERS,
            free: Vec::new(),
            of: HashMap::new(),
            adopted: HashSet::new(),
        }
    }

    /// The slot of a listener, for one place more; `adopted` is what an earlier process has counted
    /// that place in. Says whether it was in nobody's use before, and is to be cleared.
    pub(super) fn take(&mut self, name: &Name, adopted: Option<u32>) -> (u32, bool) {
        if let Some((slot, places)) = self.of.get_mut(name) {
            *places += 1;
            return (*slot, false);
        }
        let adopted = adopted.filter(|slot| self.adopted.remove(slot));
        let slot = adopted.or_else(|| self.fresh());
        // Where there are more listeners than slots, the last ones are counted with all others only.
        let taken = slot.unwrap_or(LISTENERS);
        self.of.insert(name.clone(), (taken, 1));
        (taken, adopted.is_none() && slot.is_some())
    }

    fn fresh(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = (self.next < MAX_COUNTERS).then_some(self.next)?;
            self.next += 1;
            Some(slot)
        })
    }

    /// The listener has one place less.
    pub(super) fn give(&mut self, name: &Name) {
        let Some((slot, places)) = self.of.get_mut(name) else {
            return;
        };
        *places -= 1;
        if *places == 0 {
            let slot = *slot;
            self.of.remove(name);
            self.free.extend((slot != LISTENERS).then_some(slot));
        }
    }

    /// What nobody has wanted of an earlier process is free.
    pub(super) fn settle(&mut self) {
        self.free.extend(self.adopted.drain());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> Name {
        Arc::new(("default".to_owned(), n.to_string()))
    }

    #[test]
    fn a_listener_is_counted_in_one_slot_until_its_last_place_is_gone() {
        let mut slots = Slots::beside(std::iter::empty());
        assert_eq!(slots.take(&name(1), None), (FIRST, true));
        assert_eq!(slots.take(&name(1), None), (FIRST, false));
        slots.give(&name(1));
        assert_eq!(slots.take(&name(2), None), (FIRST + 1, true));
        slots.give(&name(1));
        assert_eq!(slots.take(&name(3), None), (FIRST, true));
    }

    #[test]
    fn what_an_earlier_process_has_counted_goes_on_for_one_listener() {
        let mut slots = Slots::beside([LISTENERS, 7, 9].into_iter());
        assert_eq!(slots.take(&name(1), Some(7)), (7, false));
        assert_eq!(slots.take(&name(2), Some(7)), (10, true));
        slots.settle();
        assert_eq!(slots.take(&name(3), None), (9, true));
        assert_eq!(slots.take(&name(4), Some(LISTENERS)), (11, true));
    }

    #[test]
    fn without_a_slot_left_a_listener_is_counted_with_all_others() {
        let mut slots = Slots::beside([MAX_COUNTERS - 2].into_iter());
        assert_eq!(slots.take(&name(1), None), (MAX_COUNTERS - 1, true));
        assert_eq!(slots.take(&name(2), None), (LISTENERS, false));
        slots.give(&name(2));
        assert_eq!(slots.take(&name(3), None), (LISTENERS, false));
    }
}
