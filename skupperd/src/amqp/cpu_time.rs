//! Processor time, for tests that bound work: other programs on a busy machine do not change it.

use std::{fs, time::Duration};

/// Processor time of this thread so far.
pub(crate) fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds in schedstat"))
}

/// Processor time of this thread since `begin`.
pub(crate) fn cpu_time_since(begin: Duration) -> Duration {
    cpu_time().saturating_sub(begin)
}
