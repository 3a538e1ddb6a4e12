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

/// The last failure of something, until it succeeds.
#[derive(Debug, Default)]
pub struct LastFailure {
    /// Whether there is one, so that successes take no lock.
    any: AtomicBool,
    text: Mutex<String>,
}

impl LastFailure {
    /// Stores a failure. True: its text is new.
    pub fn failed(&self, why: &str) -> bool {
        let mut text = self.text.lock();
        self.any.store(true, Ordering::Release);
        if *text == why {
            return false;
        }
        why.clone_into(&mut text);
        true
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
    fn trouble_lasts_until_success() {
        let trouble = LastFailure::default();
        assert!(!trouble.over());
        assert!(trouble.failed("a") && !trouble.failed("a") && trouble.failed("b"));
        assert_eq!(trouble.text(), "b");
        assert!(trouble.over() && !trouble.over());
        assert_eq!(trouble.text(), "");
    }
}
