//! The last failure of a server, until it succeeds.

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Time for which a server is avoided after a failed connection.
const AVOIDED: Duration = Duration::from_secs(15);

/// The last failure of something, until it succeeds.
#[derive(Debug, Default)]
pub struct LastFailure {
    /// Whether there is one, so that successes take no lock.
    any: AtomicBool,
    text: Mutex<String>,
    avoided_until: Mutex<Option<Instant>>,
}

impl LastFailure {
    /// Stores a failure. True: its text is new, or it was not avoided before.
    pub fn set(&self, reason: &str, now: Instant) -> bool {
        let was_avoided = self.is_avoided(now);
        self.avoid(now);
        let mut text = self.text.lock();
        self.any.store(true, Ordering::Release);
        if *text == reason {
            return !was_avoided;
        }
        reason.clone_into(&mut text);
        true
    }

    /// Has others preferred for a while.
    fn avoid(&self, now: Instant) {
        *self.avoided_until.lock() = Some(now + AVOIDED);
    }

    /// Whether others are preferred, if there are any.
    pub fn is_avoided(&self, now: Instant) -> bool {
        self.any.load(Ordering::Acquire)
            && self.avoided_until.lock().is_some_and(|until| now < until)
    }

    /// It is tried again: others are preferred until it is known how that ends.
    pub fn retry(&self, now: Instant) {
        if self.any.load(Ordering::Acquire) {
            self.avoid(now);
        }
    }

    /// Clears the failure. True: there was one.
    pub fn clear(&self) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let mut text = self.text.lock();
        text.clear();
        self.any.swap(false, Ordering::AcqRel)
    }

    /// Empty without a failure.
    pub fn text(&self) -> String {
        self.text.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_cleared_by_a_success() {
        let last_failure = LastFailure::default();
        assert!(!last_failure.clear());
        let now = Instant::now();
        let failed = |why| last_failure.set(why, now);
        assert!(failed("a") && !failed("a") && failed("b"));
        assert_eq!(last_failure.text(), "b");
        assert!(last_failure.clear() && !last_failure.clear());
        assert_eq!(last_failure.text(), "");
    }

    #[test]
    fn what_has_failed_is_avoided_for_a_while_and_while_it_is_tried_again() {
        let (last_failure, now) = (LastFailure::default(), Instant::now());
        last_failure.retry(now);
        assert!(!last_failure.is_avoided(now));
        assert!(last_failure.set("a", now) && last_failure.is_avoided(now));
        let later = now + AVOIDED;
        assert!(!last_failure.is_avoided(later));
        last_failure.retry(later);
        assert!(last_failure.is_avoided(later));
        assert!(!last_failure.set("a", later));
        // The status has shown it as ready in between.
        assert!(last_failure.set("a", later + 2 * AVOIDED));
        last_failure.clear();
        assert!(!last_failure.is_avoided(later + 2 * AVOIDED));
    }
}
