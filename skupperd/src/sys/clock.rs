//! The clock of the event loops.

use std::time::Instant;

/// The present time. Where a runtime's clock is paused, its time: a simulation decides how that
/// passes.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
