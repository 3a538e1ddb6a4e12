//! Collects the statuses of all namespaces, has them written, and publishes them.

use super::{Reconciler, resume_panic};
use crate::{
    model::Namespace,
    reconcile::attachments::BindingStatuses,
    store::{BatchResult, ResourceSnapshot, STOPPING, mark_unknown},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinError,
    time::{Instant, timeout_at},
};

/// Namespaces whose statuses are written at a time.
const STATUS_WRITERS: usize = 4;
/// Time for which statuses wait for their files before they are published: whoever is told of one over
/// D-Bus finds it on disk too, unless the disk is slow.
const WRITE_WAIT: Duration = Duration::from_millis(200);

impl Reconciler {
    /// While connections drain nothing is reported any more, and no listener accepts.
    pub(super) fn publish_stopping(&self) {
        self.published.send_modify(|known| {
            let mut all = (**known).clone();
            for (key, document) in all.values_mut().flatten() {
                if key.kind.is_served() {
                    mark_unknown(Arc::make_mut(document), STOPPING);
                }
            }
            *known = Arc::new(all);
        });
        let stopping = self.published.borrow().clone();
        self.latest.send_replace(stopping);
    }

    /// Sets the statuses, has them written, and publishes them. Returns false when some could not be
    /// written.
    pub(super) async fn report(&mut self) -> bool {
        let mut bindings = BindingStatuses::new();
        for (namespace, state) in &self.namespaces {
            let of_namespace = |(name, status)| ((namespace.clone(), name), status);
            bindings.extend(state.binding_statuses().map(of_namespace));
        }
        for state in self.namespaces.values_mut() {
            state.report(&bindings).await;
        }
        let namespaces = self.namespaces.iter();
        let all: ResourceSnapshot = namespaces
            .map(|(name, state)| (name.clone(), state.statuses.documents().clone()))
            .collect();
        let all = Arc::new(all);
        self.latest.send_replace(all.clone());
        // A disk that is slow is not waited for twice.
        let is_idle = self.status_writers.is_empty();
        self.write_statuses(true);
        let mut all_written = true;
        let deadline = Instant::now() + WRITE_WAIT;
        while is_idle
            && let Ok(Some(written)) = timeout_at(deadline, self.status_writers.join_next()).await
        {
            all_written &= self.statuses_written(written);
        }
        self.published.send_if_modified(|known| {
            let changed = *known != all;
            if changed {
                *known = all;
            }
            changed
        });
        all_written
    }

    /// Has outdated status files written, on other threads. `retry`: also where that has failed.
    pub(super) fn write_statuses(&mut self, retry: bool) {
        for (name, state) in &mut self.namespaces {
            if self.status_writers.len() >= STATUS_WRITERS {
                return;
            }
            if state.statuses_failed && !retry {
                continue;
            }
            if let Some(batch) = state.statuses.take_batch() {
                let name = name.clone();
                self.status_writers
                    .spawn_blocking(move || (name, batch.write()));
            }
        }
    }

    /// Returns whether all of a batch is on disk.
    pub(super) fn statuses_written(
        &mut self,
        written: Result<(Namespace, BatchResult), JoinError>,
    ) -> bool {
        let (name, result) = written.unwrap_or_else(|error| resume_panic(error));
        // The namespace may be gone.
        if let Some(state) = self.namespaces.get_mut(&name) {
            state.statuses_written(&result);
        }
        // Those that waited for a thread.
        self.write_statuses(false);
        result.error.is_none()
    }
}
