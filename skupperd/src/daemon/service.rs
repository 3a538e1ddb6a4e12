//! What the service manager is told: readiness, reloads, a line about how things stand, and signs of
//! life from every event loop; and the limit of memory that it has set.

use crate::{
    model::Kind,
    observe::Health,
    steer::{self, Kept},
    store::Published,
    sys::{MemoryLimit, Pressure, give_back_free_memory},
};
use libsystemd::daemon::{NotifyState, notify, watchdog_enabled};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

/// Signs of life in each of the watchdog's times: one that is late or lost is no death.
const SIGNS: u32 = 3;
/// Changes within this time are told of together.
const SETTLE: Duration = Duration::from_millis(200);

/// Interval of looks at the memory in use. What can come in meanwhile has room in the last tenth.
const LOOK: Duration = Duration::from_millis(50);

/// Looks with memory being short from one attempt to give some back to the next: an attempt goes through
/// all heaps.
const GIVE_BACK: u32 = 20;

/// Says that memory is short from nine tenths of a limit on, and that it is not from eight tenths
/// down, until dropped. Where there is no limit it ends at once.
pub(super) async fn memory(pressure: Pressure) {
    let limits = MemoryLimit::of_process();
    if limits.is_empty() {
        return;
    }
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut short = 0;
    loop {
        ticks.tick().await;
        // What ended connections had is otherwise kept, and memory stays short without anyone using it.
        short = if pressure.is_high() { short + 1 } else { 0 };
        if short == GIVE_BACK {
            give_back_free_memory();
            short = 0;
        }
        let tenths = if pressure.is_high() { 8 } else { 9 };
        let near = limits.iter().find_map(|limit| match limit.used() {
            Ok(used) => (used / tenths > limit.limit / 10).then_some((used, limit.limit)),
            Err(error) => {
                tracing::debug!(%error, "memory in use");
                None
            }
        });
        if pressure.set(near.is_some()) {
            match near {
                Some((used, limit)) => {
                    tracing::warn!(used, limit, "memory is short: new connections are refused");
                }
                None => tracing::info!("there is memory again: new connections are taken"),
            }
        }
    }
}

/// Tells the service manager, where there is one.
pub(super) fn tell(states: &[NotifyState]) {
    if let Err(error) = notify(false, states) {
        tracing::debug!(%error, "service manager was not told");
    }
}

/// Has the service manager throw away what it keeps and nobody has taken: what an earlier version or
/// other options had it keep.
pub(super) fn throw_away(kept: &Kept) {
    for (name, _) in kept.descriptors.take(steer::is_kept) {
        tracing::info!(name, "a kept socket that nobody wants is closed");
        kept.keeper.forget(&name);
    }
}

/// Says that a reload has begun; [`NotifyState::Ready`] ends it.
pub(super) fn reloading() {
    // The time tells the manager that this answers its own request and not an earlier one.
    let now = crate::sys::monotonic().as_micros();
    tell(&[
        NotifyState::Reloading,
        NotifyState::Other(format!("MONOTONIC_USEC={now}")),
    ]);
}

/// One line about all namespaces.
fn line(published: &Published) -> String {
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

/// Says how things stand, and again when that changes, until dropped.
pub(super) async fn status(mut published: watch::Receiver<Arc<Published>>) {
    let mut last = String::new();
    loop {
        let line = line(&published.borrow_and_update().clone());
        if line != last {
            tell(&[NotifyState::Status(line.clone())]);
            last = line;
        }
        tokio::time::sleep(SETTLE).await;
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// Feeds the watchdog for as long as every event loop answers, until dropped. Without a watchdog it
/// ends at once.
pub(super) async fn watchdog(health: Health) {
    let Some(limit) = watchdog_enabled(false) else {
        return;
    };
    let every = limit / SIGNS;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stuck = Vec::new();
    loop {
        ticks.tick().await;
        // Asking takes this runtime's loop too: it is one of those that have to be alive.
        let silent = health.silent(every).await;
        if silent.is_empty() {
            tell(&[NotifyState::Watchdog]);
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
    fn the_line_counts_what_works_and_what_does_not() {
        let entry = |kind: Kind, name: &str, status: &str| {
            let document = json!({"status": {"status": status}});
            (Key::new(kind, Name::new(name).unwrap()), Arc::new(document))
        };
        assert_eq!(line(&Published::default()), "0 sites");
        let documents: Documents = [
            entry(Kind::Site, "a", "Ready"),
            entry(Kind::Link, "x", "Pending"),
            entry(Kind::Link, "y", "Ready"),
            entry(Kind::Listener, "l", "Ready"),
        ]
        .into();
        let published = Published::from([(Namespace::default_namespace(), documents)]);
        assert_eq!(
            line(&published),
            "1 site, links up 1/2, listeners ready 1/1"
        );
    }
}
