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
    pub fn note(&self, now: Instant) -> Option<u64> {
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
    pub fn failed(&self, reason: &str, now: Instant) -> bool {
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
    pub fn over(&self) -> bool {
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
        assert_eq!(failures.note(start), Some(0));
        assert_eq!(failures.note(start + QUIET / 2), None);
        assert_eq!(failures.note(start + QUIET / 2), None);
        assert_eq!(failures.note(start + QUIET), Some(2));
        assert_eq!(failures.count(), 4);
    }

    #[test]
    fn the_last_failure_is_cleared_by_a_success() {
        let trouble = LastFailure::default();
        assert!(!trouble.over());
        let now = Instant::now();
        let failed = |why| trouble.failed(why, now);
        assert!(failed("a") && !failed("a") && failed("b"));
        assert_eq!(trouble.text(), "b");
        assert!(trouble.over() && !trouble.over());
        assert_eq!(trouble.text(), "");
    }

    #[test]
    fn what_has_failed_is_avoided_for_a_while_and_while_it_is_tried_again() {
        let (trouble, now) = (LastFailure::default(), Instant::now());
        trouble.retry(now);
        assert!(!trouble.is_avoided(now));
        assert!(trouble.failed("a", now) && trouble.is_avoided(now));
        let later = now + AVOIDED;
        assert!(!trouble.is_avoided(later));
        trouble.retry(later);
        assert!(trouble.is_avoided(later));
        assert!(!trouble.failed("a", later));
        // The status has shown it as ready in between.
        assert!(trouble.failed("a", later + 2 * AVOIDED));
        trouble.over();
        assert!(!trouble.is_avoided(later + 2 * AVOIDED));
    }
}
