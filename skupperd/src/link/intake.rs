//! What the connections of a peer have given to the core and the core has not handled yet, in bytes.
//!
//! Credit is given back when a message has arrived, whatever becomes of it: without this bound, a peer
//! that sends faster than the core works fills the memory, and with many connections the time of the
//! core. While a peer is over its budget, none of its connections is read until the core has caught up.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};

/// Bytes of one peer after which its connections are not read. One message more may be on its way.
const BUDGET: usize = 256 * 1024;
/// What an event counts for beside its message.
const EVENT_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Intake {
    bytes: AtomicUsize,
    /// The tasks of connections that wait, by the keys of these.
    waiting: Mutex<HashMap<u64, Waker>>,
}

impl Intake {
    /// Counts an event with a message of this length, until the permit is dropped.
    pub(crate) fn permit(self: &Arc<Self>, message: usize) -> IntakePermit {
        let bytes = EVENT_BYTES + message;
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        IntakePermit {
            intake: self.clone(),
            bytes,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= BUDGET
    }

    /// True: the connection is to wait, and its task is woken when there is room.
    pub(crate) fn wait(&self, key: u64, waker: &Waker) -> bool {
        if !self.is_full() {
            return false;
        }
        self.waiting.lock().insert(key, waker.clone());
        // Permits dropped in between woke no waiter.
        self.is_full()
    }
}

/// An event that the core has not handled.
#[derive(Debug)]
pub struct IntakePermit {
    intake: Arc<Intake>,
    bytes: usize,
}

impl Drop for IntakePermit {
    fn drop(&mut self) {
        let before = self.intake.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if before >= BUDGET && before - self.bytes < BUDGET {
            let waiting = std::mem::take(&mut *self.intake.waiting.lock());
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn connections_wait_from_the_budget_on_until_the_core_has_caught_up() {
        let (intake, woken) = (Arc::new(Intake::default()), Arc::new(WakeCount::default()));
        let waker = Waker::from(woken.clone());
        let mut permits = Vec::new();
        while !intake.wait(1, &waker) {
            permits.push(intake.permit(1000));
        }
        assert_eq!(permits.len(), BUDGET.div_ceil(1000 + EVENT_BYTES));
        // More than the budget came at once: it waits until all of that is handled too.
        let late = intake.permit(10_000);
        drop(permits.pop());
        // Another connection of the peer, and the same one twice.
        assert!(intake.wait(2, &waker) && intake.wait(2, &waker));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        drop(late);
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert!(!intake.wait(1, &waker));
        drop(permits);
        assert_eq!(intake.bytes.load(Ordering::SeqCst), 0);
    }
}
