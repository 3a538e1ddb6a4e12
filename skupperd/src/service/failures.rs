//! Counts failures, and limits how often they are logged.

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Minimum time between two reports.
const QUIET: Duration = Duration::from_secs(10);

/// Counts failures of one kind, and decides when one is reported.
#[derive(Debug, Default)]
pub struct Failures {
    count: AtomicU64,
    /// Time and count of the last report.
    reported: Mutex<Option<(Instant, u64)>>,
}

impl Failures {
    pub const fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            reported: Mutex::new(None),
        }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a failure. Some: it is to be reported, with the number of unreported ones before it.
    pub fn count_and_report(&self, now: Instant) -> Option<u64> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reported = self.reported.lock();
        let before = match *reported {
            Some((at, _)) if now.saturating_duration_since(at) < QUIET => return None,
            Some((_, before)) => before,
            None => 0,
        };
        *reported = Some((now, count));
        Some(count - before - 1)
    }
}

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
    fn failures_are_counted_and_rate_limited() {
        let failures = Failures::default();
        let start = Instant::now();
        assert_eq!(failures.count_and_report(start), Some(0));
        assert_eq!(failures.count_and_report(start + QUIET / 2), None);
        assert_eq!(failures.count_and_report(start + QUIET / 2), None);
        assert_eq!(failures.count_and_report(start + QUIET), Some(2));
        assert_eq!(failures.count(), 4);
    }

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
