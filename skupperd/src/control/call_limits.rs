//! Limits how many calls use files at the same time.
//!
//! Each user has a limit, so that a busy user does not delay others. Calls that change something,
//! which need authorization, do not wait for calls that only read.

use super::Error;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls at the same time, of all users, that read, and as many that change something.
const MAX_BLOCKING: usize = 4;
/// Calls at the same time of one user.
const MAX_OF_USER: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Needs no authorization.
    Read,
    /// Needs authorization.
    Change,
}

pub(super) struct CallLimits {
    reads: Arc<Semaphore>,
    changes: Arc<Semaphore>,
    users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// Allows a call to run until this is dropped.
pub(super) struct CallPermit {
    _of_user: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            reads: Arc::new(Semaphore::new(MAX_BLOCKING)),
            changes: Arc::new(Semaphore::new(MAX_BLOCKING)),
            users: Mutex::default(),
        }
    }
}

impl CallLimits {
    pub(super) async fn acquire(&self, user: u32, kind: CallKind) -> Result<CallPermit, Error> {
        let of_user = self.of_user(user);
        let of_all = match kind {
            CallKind::Read => &self.reads,
            CallKind::Change => &self.changes,
        };
        let failed = |e| Error::Failed(format!("the operation was aborted: {e}"));
        // The permit of the user first: who waits for it holds no permit of the others.
        let of_user = of_user.acquire_owned().await.map_err(failed)?;
        let of_all = of_all.clone().acquire_owned().await.map_err(failed)?;
        Ok(CallPermit {
            _of_user: of_user,
            _of_all: of_all,
        })
    }

    fn of_user(&self, user: u32) -> Arc<Semaphore> {
        let mut users = self.users.lock();
        // Users without a call are forgotten.
        users.retain(|_, limits| Arc::strong_count(limits) > 1);
        let limits = users
            .entry(user)
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_OF_USER)));
        limits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    async fn is_permitted(limits: &CallLimits, user: u32, kind: CallKind) -> bool {
        let permit = limits.acquire(user, kind);
        timeout(Duration::from_millis(10), permit).await.is_ok()
    }

    #[tokio::test]
    async fn a_user_who_calls_all_the_time_delays_nobody_else() {
        let limits = CallLimits::default();
        let mut held = Vec::new();
        for _ in 0..MAX_OF_USER {
            held.push(limits.acquire(1000, CallKind::Read).await.unwrap());
        }
        assert!(!is_permitted(&limits, 1000, CallKind::Read).await);
        assert!(is_permitted(&limits, 1001, CallKind::Read).await);
        for user in 1001..1003 {
            held.push(limits.acquire(user, CallKind::Read).await.unwrap());
        }
        // All permits for reading are taken.
        assert!(!is_permitted(&limits, 0, CallKind::Read).await);
        assert!(is_permitted(&limits, 0, CallKind::Change).await);
        held.clear();
        assert!(is_permitted(&limits, 1000, CallKind::Read).await);
        assert!(limits.users.lock().len() <= 1);
    }
}
