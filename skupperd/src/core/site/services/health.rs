//! Health of a connector's server, from its probes.

use crate::{
    core::site::services::{
        ConnectorSpec,
        probe::{self, Probe, ProbeTarget},
    },
    messages::{CoreEvent, CoreSender},
};
use tokio::task::AbortHandle;

/// What is known of one server. Probes end when it is dropped.
pub(super) struct ServerHealth {
    /// Consecutive failed probes after which a server is unhealthy.
    failures_allowed: u32,
    /// Consecutive successful probes after which it is healthy.
    successes_needed: u32,
    /// Why it is not well; none when it is.
    failure: Option<String>,
    failed: u32,
    /// Successful probes in a row while it is not well.
    succeeded: u32,
    task: AbortHandle,
}

impl Drop for ServerHealth {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServerHealth {
    /// Begins to probe. Until something is known the server is not well.
    pub(super) fn watch(
        sender: &CoreSender,
        site: u32,
        spec: &ConnectorSpec,
        probe: &Probe,
        id: u64,
    ) -> Self {
        let sender = sender.clone();
        let server = ProbeTarget {
            host: spec.host.clone(),
            port: spec.port,
            tls: spec.tls.clone(),
            proxy_protocol: spec.settings.proxy_protocol,
        };
        let (failures_allowed, probe) = (probe.failures, probe.clone());
        let task = tokio::spawn(async move {
            let mut due = tokio::time::interval(probe.interval);
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                due.tick().await;
                let result = probe::once(&probe, &server).await;
                sender.send(CoreEvent::Probed {
                    site,
                    connector: id,
                    result,
                });
            }
        });
        Self {
            failures_allowed,
            successes_needed: spec.settings.health_check_successes,
            failure: Some("has not been probed yet".to_owned()),
            failed: failures_allowed,
            succeeded: 0,
            task: task.abort_handle(),
        }
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.failure.is_none()
    }

    pub(super) fn state(&self) -> Result<(), String> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Stores the result of a probe. Returns whether the health changed.
    pub(super) fn record_probe(&mut self, connector: &str, result: Result<(), String>) -> bool {
        let Err(reason) = result else {
            self.failed = 0;
            self.succeeded = self.succeeded.saturating_add(1);
            if self.succeeded < self.successes_needed || self.failure.take().is_none() {
                return false;
            }
            tracing::info!(connector, "server passes its probes");
            return true;
        };
        self.succeeded = 0;
        self.failed = self.failed.saturating_add(1);
        if self.failed < self.failures_allowed || self.failure.as_ref() == Some(&reason) {
            return false;
        }
        tracing::warn!(connector, reason, "server fails its probes");
        self.failure = Some(reason);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_offered_after_successes_in_a_row_and_withdrawn_after_failures() {
        let task = tokio::spawn(async {});
        let mut health = ServerHealth {
            failures_allowed: 2,
            successes_needed: 3,
            failure: Some("has not been probed yet".to_owned()),
            failed: 2,
            succeeded: 0,
            task: task.abort_handle(),
        };
        let mut probe = |is_good: bool| {
            let result = if is_good {
                Ok(())
            } else {
                Err("no answer".to_owned())
            };
            (health.record_probe("c", result), health.is_healthy())
        };
        // At first, and with a failure in between.
        assert_eq!([true, true].map(&mut probe), [(false, false); 2]);
        assert_eq!(probe(false), (false, false));
        assert_eq!([true, true].map(&mut probe), [(false, false); 2]);
        assert_eq!(probe(true), (true, true));
        assert_eq!([true, true].map(&mut probe), [(false, true); 2]);
        // One failure changes nothing, and the successes after it neither.
        assert_eq!([false, true, false].map(&mut probe), [(false, true); 3]);
        assert_eq!(probe(false), (true, false));
        assert_eq!([true, true].map(&mut probe), [(false, false); 2]);
        assert_eq!(probe(true), (true, true));
    }
}
