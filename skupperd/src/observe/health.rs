//! Whether every event loop still turns.

use crate::link::{
    core::CoreSender,
    worker::{Command, Senders},
};
use std::time::Duration;
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

/// Asks the event loops.
#[derive(Clone)]
pub struct Health {
    workers: Senders,
    core: CoreSender,
}

impl Health {
    /// Health of these.
    pub fn new(workers: Senders, core: CoreSender) -> Self {
        Self { workers, core }
    }

    /// The threads that do not answer within this time. Whoever waits for this is on a loop of its
    /// own, which answers by that.
    pub async fn silent(&self, limit: Duration) -> Vec<String> {
        let mut asked = JoinSet::new();
        for worker in 0..self.workers.count() {
            let (answer, answered) = oneshot::channel();
            self.workers.send(worker, Command::Ping(answer));
            asked.spawn(async move {
                let alive = matches!(timeout(limit, answered).await, Ok(Ok(_)));
                (!alive).then(|| format!("worker-{worker}"))
            });
        }
        let core = self.core.clone();
        asked.spawn(async move {
            let alive = matches!(timeout(limit, core.call(|_| ())).await, Ok(Some(())));
            (!alive).then(|| "core".to_owned())
        });
        let mut silent: Vec<String> = asked.join_all().await.into_iter().flatten().collect();
        silent.sort();
        silent
    }
}
