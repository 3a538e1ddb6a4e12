//! Counts failures, and limits how often they are logged.
//!
//! Whatever can fail again and again, on its own or because others want it to, is logged through
//! [`Failures`]: at most one line in 10 s, with the number of those that were left out.

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU64, Ordering},
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

    /// Counts a failure. Returns the number of unreported ones before it if the caller must report this
    /// one.
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
}
