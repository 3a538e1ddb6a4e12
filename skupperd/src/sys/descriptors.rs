//! Descriptors that pass through the service manager: sockets that it has opened for us, and what an
//! earlier process of this service has left with it (the file descriptor store of systemd).
//!
//! Names say whose a descriptor is; what it really is, whoever takes it has to look at.

use super::owned;
use libsystemd::{
    activation::receive_descriptors_with_names,
    daemon::{NotifyState, notify_with_fds},
    errors::SdError,
};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

/// Time that the service manager has to take what waits to be stored.
const FLUSH: Duration = Duration::from_secs(2);

/// What this process was started with.
#[derive(Clone, Debug, Default)]
pub struct Descriptors(Arc<Mutex<Vec<(String, OwnedFd)>>>);

impl Descriptors {
    /// Takes over what `$LISTEN_FDS` speaks of and removes it from the environment: once, at the
    /// start of the process, before there are threads.
    pub fn receive() -> Result<Self, SdError> {
        let given = receive_descriptors_with_names(true)?;
        let given = given.into_iter();
        let given = given.map(|(fd, name)| (name, owned(fd.into_raw_fd())));
        Ok(Self(Arc::new(Mutex::new(given.collect()))))
    }

    /// What a test has in place of a service manager.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(given: [(&str, OwnedFd); N]) -> Self {
        let given = given.map(|(name, fd)| (name.to_owned(), fd));
        Self(Arc::new(Mutex::new(given.into())))
    }

    /// How many there are of each name.
    fn counts(&self) -> HashMap<String, usize> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = HashMap::new();
        for (name, _) in left.iter() {
            *counts.entry(name.clone()).or_default() += 1;
        }
        counts
    }

    /// Takes those whose name is wanted, in the order in which they were passed.
    pub fn take(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, OwnedFd)> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left.extract_if(.., |(name, _)| wanted(name)).collect()
    }
}

/// How many the store takes, as the service manager says.
const MOST: &str = "FDSTORE";

/// What is in the service manager's store, as far as it can be known: it does not answer.
struct Store {
    most: Option<usize>,
    kept: HashMap<String, usize>,
    full: bool,
}

impl Store {
    /// Counts a message. The limit, when it is passed for the first time since there was room.
    fn overrun(&mut self, message: &Message) -> Option<usize> {
        match message {
            Message::Keep(name, _) => *self.kept.entry(name.clone()).or_default() += 1,
            Message::Forget(name) => drop(self.kept.remove(name)),
            Message::Flush(_) => return None,
        }
        let most = self.most?;
        let full = self.kept.values().sum::<usize>() > most;
        let was = std::mem::replace(&mut self.full, full);
        (full && !was).then_some(most)
    }
}

enum Message {
    Keep(String, OwnedFd),
    Forget(String),
    Flush(mpsc::SyncSender<()>),
}

/// Leaves descriptors with the service manager, for the next process of this service. Without one
/// that keeps them, nothing happens.
#[derive(Clone, Debug, Default)]
pub struct Keeper(Option<mpsc::Sender<Message>>);

impl Keeper {
    /// The store of whoever `$NOTIFY_SOCKET` names. A thread of its own does the talking: the
    /// manager may take its time.
    /// `given` is what it has kept of an earlier process.
    pub fn of_service(given: &Descriptors) -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Self(None));
        }
        let (messages, waiting) = mpsc::channel();
        // From systemd 254 on. An older one does not say, and what is too much is lost unsaid.
        let most = std::env::var(MOST).ok().and_then(|most| most.parse().ok());
        let mut store = Store {
            most,
            kept: given.counts(),
            full: false,
        };
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                for message in waiting {
                    if let Some(most) = store.overrun(&message) {
                        tracing::warn!(
                            most,
                            "the service manager keeps no more sockets (FileDescriptorStoreMax): \
                             clients of the others are not kept waiting in a restart"
                        );
                    }
                    send(message);
                }
            })?;
        Ok(Self(Some(messages)))
    }

    /// Whether anybody keeps what is given.
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Leaves a copy of a descriptor; several may have the same name. Names are of printable ASCII
    /// without colons.
    pub fn keep(&self, name: &str, fd: impl AsFd) -> io::Result<()> {
        if self.keeps() {
            let copy = fd.as_fd().try_clone_to_owned()?;
            self.send(Message::Keep(name.to_owned(), copy));
        }
        Ok(())
    }

    /// Has all of this name thrown away.
    pub fn forget(&self, name: &str) {
        self.send(Message::Forget(name.to_owned()));
    }

    /// Waits until everything so far is with the service manager, or for two seconds.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        self.send(Message::Flush(done));
        if self.keeps() && wait.recv_timeout(FLUSH).is_err() {
            tracing::warn!("the service manager is slow to take what it is to keep");
        }
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.0
            && messages.send(message).is_err()
        {
            tracing::error!("the thread that talks to the service manager has ended");
        }
    }
}

fn send(message: Message) {
    let (states, fd) = match message {
        // Not polled: a socket that has been shut down looks like one that is broken.
        Message::Keep(name, fd) => (
            vec![
                NotifyState::Fdstore,
                NotifyState::FdpollDisable,
                NotifyState::Fdname(name),
            ],
            Some(fd),
        ),
        Message::Forget(name) => (
            vec![NotifyState::FdstoreRemove, NotifyState::Fdname(name)],
            None,
        ),
        Message::Flush(done) => {
            // Nobody waits any more when the time is over.
            let _ = done.send(());
            return;
        }
    };
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    if let Err(error) = notify_with_fds(false, &states, &fds) {
        tracing::warn!(%error, "the service manager does not keep a descriptor");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn more_than_the_store_takes_is_said_once() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let mut store = Store {
            most: Some(2),
            kept: HashMap::from([("old".to_owned(), 1)]),
            full: false,
        };
        let keep = |name: &str| Message::Keep(name.to_owned(), file());
        assert_eq!(store.overrun(&keep("a")), None);
        assert_eq!(store.overrun(&keep("b")), Some(2));
        assert_eq!(store.overrun(&keep("c")), None);
        let forget = |name: &str| Message::Forget(name.to_owned());
        for name in ["b", "c", "none"] {
            assert_eq!(store.overrun(&forget(name)), None);
        }
        assert_eq!(store.overrun(&keep("d")), Some(2));
        store.most = None;
        assert_eq!(store.overrun(&keep("e")), None);
    }

    #[test]
    fn each_is_taken_once_by_whom_its_name_says() {
        let file = || OwnedFd::from(File::open("/dev/null").unwrap());
        let given = ["a1", "b", "a2"].map(|name| (name.to_owned(), file()));
        let given = Descriptors(Arc::new(Mutex::new(given.into())));
        let names = |prefix: &str| {
            let taken = given.take(|name| name.starts_with(prefix));
            taken.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names("a"), ["a1", "a2"]);
        assert!(names("a").is_empty());
        assert_eq!(names(""), ["b"]);
    }
}
