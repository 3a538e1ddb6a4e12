//! When the reconcile loop acts next, if nothing happens before.

use std::time::Duration;
use tokio::time::Instant;

/// Changes of the network within this time are reported together.
const REPORT_DELAY: Duration = Duration::from_millis(50);
/// Interval of syncs when nothing changes.
pub(super) const RESYNC: Duration = Duration::from_secs(30);
/// Interval of looks for the servers of selectors.
pub(super) const WORKLOAD_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of attempts at failed steps, and of looks at network namespaces.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// When the loop acts next without a cause from outside.
pub(super) struct LoopTimers {
    pub(super) sync: Instant,
    /// `None` when nothing has changed since the last report.
    pub(super) report: Option<Instant>,
    pub(super) netns_scan: Instant,
    pub(super) workload_scan: Instant,
}

impl LoopTimers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sync: now + RESYNC,
            // Of the resources that were applied before the loop, and of those that are invalid.
            report: Some(now),
            netns_scan: now + RETRY,
            workload_scan: now + WORKLOAD_INTERVAL,
        }
    }

    pub(super) fn sync_within(&mut self, delay: Duration) {
        self.sync = self.sync.min(Instant::now() + delay);
    }

    pub(super) fn report_soon(&mut self) {
        self.report.get_or_insert(Instant::now() + REPORT_DELAY);
    }
}
