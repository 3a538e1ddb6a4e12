//! The descriptor store of the service manager (systemd's `FileDescriptorStoreMax=`): listening sockets
//! outlive the process in it, so that clients wait during a restart.

use super::InheritedDescriptors;
use libsystemd::daemon::{NotifyState, notify_with_fds};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::mpsc,
    time::Duration,
};

/// Time for the service manager to receive the messages that wait.
const FLUSH: Duration = Duration::from_secs(2);

/// Environment variable with the limit of the store.
const LIMIT_VARIABLE: &str = "FDSTORE";

/// What should be in the store. The service manager does not report it.
struct StoreAccount {
    limit: Option<usize>,
    stored: HashMap<String, usize>,
    full: bool,
}

impl StoreAccount {
    /// Counts a message. Returns the limit when this message exceeds it and the one before did not.
    fn exceeded_limit(&mut self, message: &StoreMessage) -> Option<usize> {
        match message {
            StoreMessage::Store(name, _) => *self.stored.entry(name.clone()).or_default() += 1,
            StoreMessage::Remove(name) => drop(self.stored.remove(name)),
            StoreMessage::Flush(_) => return None,
        }
        let limit = self.limit?;
        let full = self.stored.values().sum::<usize>() > limit;
        let was_full = std::mem::replace(&mut self.full, full);
        (full && !was_full).then_some(limit)
    }
}

enum StoreMessage {
    Store(String, OwnedFd),
    Remove(String),
    Flush(mpsc::SyncSender<()>),
}

/// The descriptor store of the service manager, where descriptors wait for the next process of this
/// service. Without a service manager it does nothing. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DescriptorStore(Option<mpsc::Sender<StoreMessage>>);

impl DescriptorStore {
    /// The store of the service manager that `$NOTIFY_SOCKET` names. `inherited`: what it passed. A
    /// thread talks to it, because it may be slow.
    pub fn of_service(inherited: &InheritedDescriptors) -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (messages, waiting) = mpsc::channel();
        // Since systemd 254. Older versions silently drop what exceeds the limit.
        let limit = std::env::var(LIMIT_VARIABLE)
            .ok()
            .and_then(|limit| limit.parse().ok());
        let mut account = StoreAccount {
            limit,
            stored: inherited.counts(),
            full: false,
        };
        std::thread::Builder::new()
            .name("fd-store".to_owned())
            .spawn(move || {
                for message in waiting {
                    if let Some(limit) = account.exceeded_limit(&message) {
                        tracing::warn!(
                            limit,
                            "descriptor store is full (FileDescriptorStoreMax): clients of further \
                             listeners are refused during a restart"
                        );
                    }
                    send(message);
                }
            })?;
        Ok(Self(Some(messages)))
    }

    /// Whether there is a service manager to store descriptors.
    pub fn is_available(&self) -> bool {
        self.0.is_some()
    }

    /// Stores a copy of a descriptor; several may have the same name. Names are printable ASCII
    /// without colons.
    pub fn store(&self, name: &str, fd: impl AsFd) -> io::Result<()> {
        if self.is_available() {
            let copy = fd.as_fd().try_clone_to_owned()?;
            self.send(StoreMessage::Store(name.to_owned(), copy));
        }
        Ok(())
    }

    /// Removes all descriptors with this name.
    pub fn remove(&self, name: &str) {
        self.send(StoreMessage::Remove(name.to_owned()));
    }

    /// Waits until the service manager has received all messages so far, for at most two seconds.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        self.send(StoreMessage::Flush(done));
        if self.is_available() && wait.recv_timeout(FLUSH).is_err() {
            tracing::warn!("service manager is slow to store descriptors");
        }
    }

    fn send(&self, message: StoreMessage) {
        if let Some(messages) = &self.0
            && messages.send(message).is_err()
        {
            tracing::error!("cannot reach the thread of the descriptor store");
        }
    }
}

fn send(message: StoreMessage) {
    let (states, fd) = match message {
        // Without polling: systemd would remove a socket that was shut down as broken.
        StoreMessage::Store(name, fd) => (
            vec![
                NotifyState::Fdstore,
                NotifyState::FdpollDisable,
                NotifyState::Fdname(name),
            ],
            Some(fd),
        ),
        StoreMessage::Remove(name) => (
            vec![NotifyState::FdstoreRemove, NotifyState::Fdname(name)],
            None,
        ),
        StoreMessage::Flush(done) => {
            // After the timeout there is no receiver.
            let _ = done.send(());
            return;
        }
    };
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    if let Err(error) = notify_with_fds(false, &states, &fds) {
        tracing::warn!(%error, "cannot store descriptor with service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn exceeding_the_limit_is_reported_once() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let mut account = StoreAccount {
            limit: Some(2),
            stored: HashMap::from([("old".to_owned(), 1)]),
            full: false,
        };
        let store = |name: &str| StoreMessage::Store(name.to_owned(), file());
        assert_eq!(account.exceeded_limit(&store("a")), None);
        assert_eq!(account.exceeded_limit(&store("b")), Some(2));
        assert_eq!(account.exceeded_limit(&store("c")), None);
        let remove = |name: &str| StoreMessage::Remove(name.to_owned());
        for name in ["b", "c", "none"] {
            assert_eq!(account.exceeded_limit(&remove(name)), None);
        }
        assert_eq!(account.exceeded_limit(&store("d")), Some(2));
        account.limit = None;
        assert_eq!(account.exceeded_limit(&store("e")), None);
    }
}
