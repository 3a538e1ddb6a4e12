//! The daemon as a service of systemd: notifications of readiness, reloads and status, the watchdog, and
//! the memory limit.

use crate::{
    flows::FlowLog,
    model::Kind,
    observe::LoopHealth,
    steer::{self, SteeringHandover},
    store::ResourceSnapshot,
    sys::{MemoryLimit, MemoryPressure, return_free_memory},
};
use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Notifications in each watchdog interval: one may be late or lost.
const PER_INTERVAL: u32 = 3;
/// Changes within this time make one status.
const STATUS_DELAY: Duration = Duration::from_millis(200);

/// Interval of memory checks. What arrives meanwhile fits in the last tenth of the limit.
const CHECK: Duration = Duration::from_millis(50);

/// Interval of checks whether connections have ended whose memory is worth returning.
const RETURN_INTERVAL: Duration = Duration::from_secs(2);
/// Memory of an idle connection in one process, as the benchmark measures it.
const CONNECTION_BYTES: usize = 9 * 1024;
/// Memory that is worth a walk over all heaps.
const RETURN_BYTES: usize = 2 * 1024 * 1024;

/// Checks with short memory between two attempts to return free memory: an attempt walks all heaps.
const RETURN_AFTER: u32 = 20;

/// Sets memory pressure at nine tenths of a limit and clears it below eight tenths, until dropped.
/// Without a limit it returns at once.
pub(super) async fn watch_memory(pressure: MemoryPressure) {
    let limits = MemoryLimit::of_process();
    if limits.is_empty() {
        return;
    }
    let mut ticks = interval(CHECK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut short = 0;
    loop {
        ticks.tick().await;
        // The allocator would keep the memory of ended connections, and memory would stay short.
        short = if pressure.is_high() { short + 1 } else { 0 };
        if short == RETURN_AFTER {
            return_memory().await;
            short = 0;
        }
        let tenths = if pressure.is_high() { 8 } else { 9 };
        let near = limits.iter().find_map(|limit| match limit.used() {
            Ok(used) => (used / tenths > limit.limit / 10).then_some((used, limit.limit)),
            Err(error) => {
                tracing::debug!(%error, "cannot read memory in use");
                None
            }
        });
        if pressure.set(near.is_some()) {
            match near {
                Some((used, limit)) => {
                    tracing::warn!(used, limit, "memory is short: refusing new connections");
                }
                None => tracing::info!("memory is sufficient again: accepting new connections"),
            }
        }
    }
}

/// Returns the memory of ended connections to the kernel, until dropped. The allocator keeps it
/// otherwise, so that a daemon that was busy once would stay large.
pub(super) async fn return_memory_of_ended(flow_log: FlowLog) {
    let mut ticks = interval(RETURN_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut peak = 0;
    loop {
        ticks.tick().await;
        let open = flow_log.open();
        peak = open.max(peak);
        if is_worth_returning(peak, open) {
            peak = open;
            return_memory().await;
        }
    }
}

/// On a thread for blocking work: it walks the heaps of all threads, which takes milliseconds.
async fn return_memory() {
    if let Err(error) = tokio::task::spawn_blocking(return_free_memory).await {
        tracing::debug!(%error, "cannot return free memory");
    }
}

/// Whether so many connections have ended since there were `peak` that their memory is most of the
/// heap.
fn is_worth_returning(peak: usize, open: usize) -> bool {
    open <= peak / 2 && (peak - open) * CONNECTION_BYTES >= RETURN_BYTES
}

/// Notifies the service manager, if there is one.
pub(super) fn notify_manager(states: &[NotifyState]) {
    if let Err(error) = notify(false, states) {
        tracing::debug!(%error, "cannot notify service manager");
    }
}

/// Removes stored descriptors that no listener took: those of an earlier version, of other options or
/// of resources that are gone.
pub(super) fn discard_unclaimed(kept: &SteeringHandover) {
    for (name, _) in kept.descriptors.take(steer::is_handover_name) {
        tracing::info!(name, "closing stored socket without a listener");
        kept.descriptor_store.remove(&name);
    }
}

/// Begins a reload, which [`NotifyState::Ready`] ends.
pub(super) fn notify_reloading() {
    // systemd matches the answer to its request by this time.
    let now = crate::sys::monotonic().as_micros();
    notify_manager(&[
        NotifyState::Reloading,
        NotifyState::Other(format!("MONOTONIC_USEC={now}")),
    ]);
}

/// One line about all namespaces.
fn status_line(published: &ResourceSnapshot) -> String {
    let all = || published.values().flatten();
    let count = |kind: Kind| all().filter(|(key, _)| key.kind == kind).count();
    let ready = |kind: Kind| {
        let good = |document: &serde_json::Value| document["status"]["status"] == "Ready";
        all()
            .filter(|(key, document)| key.kind == kind && good(document))
            .count()
    };
    let part = |what: &str, kind: Kind| match count(kind) {
        0 => None,
        n => Some(format!("{what} {}/{n}", ready(kind))),
    };
    let sites = count(Kind::Site);
    let parts = [
        Some(format!("{sites} site{}", if sites == 1 { "" } else { "s" })),
        part("links up", Kind::Link),
        part("listeners ready", Kind::Listener),
        part("connectors ready", Kind::Connector),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Publishes the status line whenever it changes, until dropped.
pub(super) async fn publish_status(mut published: watch::Receiver<Arc<ResourceSnapshot>>) {
    let mut last = String::new();
    loop {
        let line = status_line(&published.borrow_and_update().clone());
        if line != last {
            notify_manager(&[NotifyState::Status(line.clone())]);
            last = line;
        }
        tokio::time::sleep(STATUS_DELAY).await;
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Feeds the watchdog while every event loop answers, until dropped. Without a watchdog it returns at
/// once.
pub(super) async fn feed_watchdog(health: LoopHealth) {
    let Some(limit) = watchdog_enabled(false) else {
        return;
    };
    let every = limit / PER_INTERVAL;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stuck = Vec::new();
    loop {
        ticks.tick().await;
        // This loop has to run to feed the watchdog, so it need not be pinged.
        let silent = health.find_silent_threads(every).await;
        if silent.is_empty() {
            notify_manager(&[NotifyState::Watchdog]);
        } else if silent != stuck {
            tracing::error!(threads = ?silent, "event loops do not answer");
        }
        stuck = silent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Key, Name, Namespace},
        store::Documents,
    };
    use serde_json::json;

    #[test]
    fn memory_is_returned_when_most_of_many_connections_have_ended() {
        assert!(!is_worth_returning(0, 0));
        assert!(!is_worth_returning(100, 0), "less than the walk is worth");
        assert!(!is_worth_returning(2000, 1001), "half are open");
        assert!(is_worth_returning(2000, 1000));
        assert!(is_worth_returning(1000, 0), "the rest of them");
    }

    #[test]
    fn the_status_line_counts_ready_and_all_resources() {
        let entry = |kind: Kind, name: &str, status: &str| {
            let document = json!({"status": {"status": status}});
            (Key::new(kind, Name::new(name).unwrap()), Arc::new(document))
        };
        assert_eq!(status_line(&ResourceSnapshot::default()), "0 sites");
        let documents: Documents = [
            entry(Kind::Site, "a", "Ready"),
            entry(Kind::Link, "x", "Pending"),
            entry(Kind::Link, "y", "Ready"),
            entry(Kind::Listener, "l", "Ready"),
        ]
        .into();
        let published = ResourceSnapshot::from([(Namespace::default_namespace(), documents)]);
        assert_eq!(
            status_line(&published),
            "1 site, links up 1/2, listeners ready 1/1"
        );
    }
}
