//! Health of the event loops.

use crate::{
    core::{CoreHandle, CoreRequest},
    messages::{Command, Senders},
};
use std::time::Duration;
use tokio::{task::JoinSet, time::timeout};

/// Pings the event loops of the core and of the workers.
#[derive(Clone)]
pub struct LoopHealth {
    workers: Senders,
    core: CoreHandle,
}

impl LoopHealth {
    pub fn new(workers: Senders, core: CoreHandle) -> Self {
        Self { workers, core }
    }

    /// The threads that do not answer within this time. The main loop is not pinged: it runs this.
    pub async fn find_silent_threads(&self, limit: Duration) -> Vec<String> {
        let mut pings = JoinSet::new();
        let answers = self.workers.ask_all(Command::Ping);
        for (worker, replied) in answers.into_iter().enumerate() {
            pings.spawn(async move {
                let alive = matches!(timeout(limit, replied).await, Ok(Ok(_)));
                (!alive).then(|| format!("worker-{worker}"))
            });
        }
        let core = self.core.clone();
        pings.spawn(async move {
            let alive = matches!(
                timeout(limit, core.ask(CoreRequest::Ping)).await,
                Ok(Ok(()))
            );
            (!alive).then(|| "core".to_owned())
        });
        let mut silent: Vec<String> = pings.join_all().await.into_iter().flatten().collect();
        silent.sort();
        silent
    }
}
