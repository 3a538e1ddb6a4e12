//! Readers of the local socket: who they are, and how many connections each may have.
//!
//! Every user of the host may read health and metrics, so connections are limited for each user. Root
//! and the daemon's own user have a limit apart from all others, which others cannot exhaust.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::net::{UnixStream, unix::UCred};

/// Connections of one user at a time. A response takes a moment: that is a few dozen commands at once.
const MAX_OF_USER: usize = 16;
/// Connections at a time of all users but the trusted ones.
const MAX_OF_OTHERS: usize = 128;
/// Connections at a time of a trusted user.
const MAX_OF_TRUSTED: usize = 128;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LocalReader {
    /// `None` if the kernel does not report it.
    user: Option<u32>,
    /// May see clients' addresses: root, or the user that the daemon runs as.
    pub(super) trusted: bool,
}

impl LocalReader {
    pub(super) fn of(socket: &UnixStream) -> Self {
        let this = std::process::id();
        match socket.peer_cred() {
            Ok(reader) => Self::identified(&reader, crate::sys::user(), this),
            Err(_) => Self {
                user: None,
                trusted: false,
            },
        }
    }

    /// `own` is the user and `this` the process of the daemon. A connection that the daemon itself opened
    /// belongs to another process: a connector forwards it.
    fn identified(reader: &UCred, own: u32, this: u32) -> Self {
        let process = reader.pid().and_then(|pid| u32::try_from(pid).ok());
        let is_self = process.is_none_or(|pid| pid == this);
        Self {
            user: Some(reader.uid()),
            trusted: !is_self && (reader.uid() == 0 || reader.uid() == own),
        }
    }
}

/// Connections that are open, by reader.
#[derive(Clone, Default)]
pub(super) struct OpenConnections(Arc<Mutex<HashMap<LocalReader, usize>>>);

/// One of a reader's connections, until it is dropped.
pub(super) struct ReaderConnection {
    all: OpenConnections,
    reader: LocalReader,
}

impl OpenConnections {
    /// `None` when the reader has too many, or all readers together have.
    pub(super) fn add(&self, reader: LocalReader) -> Option<ReaderConnection> {
        let mut open = self.0.lock();
        let own = open.get(&reader).copied().unwrap_or(0);
        let others = open.iter().filter(|(reader, _)| !reader.trusted);
        let others: usize = others.map(|(_, count)| *count).sum();
        let is_full = match reader.trusted {
            true => own >= MAX_OF_TRUSTED,
            false => own >= MAX_OF_USER || others >= MAX_OF_OTHERS,
        };
        if is_full {
            return None;
        }
        open.insert(reader, own + 1);
        Some(ReaderConnection {
            all: self.clone(),
            reader,
        })
    }
}

impl Drop for ReaderConnection {
    fn drop(&mut self) {
        let mut open = self.all.0.lock();
        match open.get_mut(&self.reader) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.reader)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user: u32, trusted: bool) -> LocalReader {
        let user = Some(user);
        LocalReader { user, trusted }
    }

    #[test]
    fn one_user_does_not_block_others() {
        let all = OpenConnections::default();
        let take = |reader, count| -> Vec<ReaderConnection> {
            (0..count).map_while(|_| all.add(reader)).collect()
        };
        let hog = take(user(1000, false), 1000);
        assert_eq!(hog.len(), MAX_OF_USER);
        let mut held: Vec<_> = (1001..1100)
            .flat_map(|id| take(user(id, false), 1000))
            .collect();
        assert_eq!(hog.len() + held.len(), MAX_OF_OTHERS);
        assert_eq!(take(user(0, true), 1000).len(), MAX_OF_TRUSTED);
        held.truncate(1);
        assert!(all.add(user(1099, false)).is_some());
        drop((hog, held));
        assert!(all.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_connection_of_the_daemon_to_itself_is_not_trusted() {
        let (here, _there) = UnixStream::pair().unwrap();
        // Both ends are of this process, as with a connector to the daemon's socket.
        assert!(!LocalReader::of(&here).trusted);
        let peer = here.peer_cred().unwrap();
        assert!(LocalReader::identified(&peer, peer.uid(), 0).trusted);
        let other = LocalReader::identified(&peer, peer.uid() + 1, 0);
        assert_eq!(other.trusted, peer.uid() == 0);
    }
}
