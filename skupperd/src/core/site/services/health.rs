//! Health of a connector's server, from its probes.

use crate::{
    core::site::services::{
        ConnectorSpec,
        probe::{self, Probe, Server},
    },
    messages::{CoreEvent, CoreSender},
};
use tokio::task::AbortHandle;

/// What is known of one server. Probes end when it is dropped.
pub(super) struct Health {
    /// Consecutive failed probes after which a server is unhealthy.
    patience: u32,
    /// Why it is not well; none when it is.
    unwell: Option<String>,
    failed: u32,
    task: AbortHandle,
}

impl Drop for Health {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Health {
    /// Begins to probe. Until something is known the server is not well.
    pub(super) fn watch(
        sender: &CoreSender,
        site: u32,
        spec: &ConnectorSpec,
        probe: &Probe,
        id: u64,
    ) -> Self {
        let sender = sender.clone();
        let server = Server {
            host: spec.host.clone(),
            port: spec.port,
            tls: spec.tls.clone(),
            proxy_protocol: spec.settings.proxy_protocol,
        };
        let (patience, probe) = (probe.failures, probe.clone());
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
            patience,
            unwell: Some("has not been probed yet".to_owned()),
            failed: patience,
            task: task.abort_handle(),
        }
    }

    pub(super) fn is_well(&self) -> bool {
        self.unwell.is_none()
    }

    pub(super) fn state(&self) -> Result<(), String> {
        self.unwell.clone().map_or(Ok(()), Err)
    }

    /// Stores the result of a probe. Returns whether the health changed.
    pub(super) fn found(&mut self, connector: &str, result: Result<(), String>) -> bool {
        let Err(reason) = result else {
            self.failed = 0;
            let better = self.unwell.take().is_some();
            if better {
                tracing::info!(connector, "server passes its probes");
            }
            return better;
        };
        self.failed = self.failed.saturating_add(1);
        if self.failed < self.patience || self.unwell.as_ref() == Some(&reason) {
            return false;
        }
        tracing::warn!(connector, reason, "server fails its probes");
        self.unwell = Some(reason);
        true
    }
}
