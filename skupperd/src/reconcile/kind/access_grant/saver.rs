//! Saves the grants of a namespace beside its syncs, one save at a time.

use crate::{
    access::{GrantStoreError, SharedGrantStore},
    reconcile::memory::new_id,
};
use std::{path::PathBuf, sync::Arc};
use tokio::{sync::Notify, task::JoinHandle};

/// Saves grants on another thread.
#[derive(Default)]
pub(super) struct GrantSaver {
    running: Option<JoinHandle<Result<(), GrantStoreError>>>,
    /// Of the last attempt, until one succeeds.
    error: Option<Arc<GrantStoreError>>,
}

impl GrantSaver {
    /// Whether an attempt has ended with an error, and the next sync starts another.
    pub(super) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// Starts to save the grants if they differ from the file, unless the namespace's directory `input`
    /// is gone. `saved` is notified at the end. Returns the error of the last attempt.
    pub(super) async fn save(
        &mut self,
        store: &SharedGrantStore,
        input: PathBuf,
        saved: &Arc<Notify>,
    ) -> Result<(), Arc<GrantStoreError>> {
        if let Some(ended) = self.running.take_if(|task| task.is_finished()) {
            let result = ended.await;
            let result = result.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
            if let Err(error) = result {
                // Not at once: the next sync tries again.
                return Err(self.error.insert(Arc::new(error)).clone());
            }
            self.error = None;
        }
        if store.is_saved() {
            self.error = None;
        } else if self.running.is_none() {
            let (store, saved) = (store.clone(), saved.clone());
            self.running = Some(tokio::task::spawn_blocking(move || {
                // If the namespace was removed meanwhile, its directories must not be made again.
                let result = match input.exists() {
                    true => store.save(jiff::Timestamp::now(), new_id),
                    false => Ok(()),
                };
                saved.notify_one();
                result
            }));
        }
        self.error.clone().map_or(Ok(()), Err)
    }
}
