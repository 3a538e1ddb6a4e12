//! Noticing changes of manifests.
//!
//! What is watched is every directory of input, the files that symbolic links point at, and, while
//! the directory of namespaces is missing, the nearest one above it. A full look at everything from
//! time to time covers what watching misses.

mod tree;

use super::{Layout, StoreError};
use crate::model::Namespace;
use inotify::Inotify;
use std::{collections::BTreeSet, io, path::PathBuf, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};
use tree::{Noticed, Tree};

/// Changes are told of when none has come for this time: an editor writes, renames and touches.
const QUIET: Duration = Duration::from_millis(50);
/// Changes are told of after this time, quiet or not.
const PATIENCE: Duration = Duration::from_millis(100);
/// Interval of full looks.
const RESYNC: Duration = Duration::from_secs(30);
/// Room for events that are read at once.
const BUFFER: usize = 64 * 1024;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something in the input of these namespaces, or one has come or gone.
    Namespaces(BTreeSet<Namespace>),
    /// Nobody knows: look at everything.
    Resync,
}

/// Watches the input of all namespaces.
///
/// It watches from when it is made: whoever makes it first and looks at everything then misses
/// nothing.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Inotify>,
    tree: Tree,
    buffer: Vec<u8>,
    pending: BTreeSet<Namespace>,
    resync: bool,
    /// Of the changes that are pending: when the first and the last came.
    since: Option<(Instant, Instant)>,
    next_resync: Instant,
    interval: Duration,
}

impl Watcher {
    /// Starts to watch. To be called in a runtime.
    pub fn new(layout: &Layout) -> Result<Self, StoreError> {
        Self::with_interval(layout, RESYNC)
    }

    fn with_interval(layout: &Layout, interval: Duration) -> Result<Self, StoreError> {
        let base: PathBuf = layout.input_namespaces();
        let failed = |e: io::Error| StoreError::io("watching", &base)(e);
        let inotify = Inotify::init().map_err(failed)?;
        let mut tree = Tree::new(base.clone());
        tree.watch_all(&mut inotify.watches());
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an Inotify keeps its descriptor"
        )]
        let inotify = AsyncFd::new(inotify).map_err(failed)?;
        Ok(Self {
            inotify,
            tree,
            buffer: vec![0; BUFFER],
            pending: BTreeSet::new(),
            resync: false,
            since: None,
            next_resync: Instant::now() + interval,
            interval,
        })
    }

    /// Waits for the next change. Cancel-safe: what was noticed and not told of is told of next time.
    pub async fn next(&mut self) -> Result<Change, StoreError> {
        loop {
            let due = match self.since {
                Some((first, last)) => (first + PATIENCE).min(last + QUIET).min(self.next_resync),
                None => self.next_resync,
            };
            if Instant::now() >= due {
                return Ok(self.take());
            }
            // Both arms are cancel-safe: events that were not read stay in the queue, and the time
            // is kept here.
            tokio::select! {
                ready = self.inotify.readable_mut() => {
                    let mut ready = ready.map_err(StoreError::io("watching", self.tree.base()))?;
                    let inotify = ready.get_inner_mut();
                    let noticed = read(inotify, &mut self.buffer, &mut self.tree);
                    ready.clear_ready();
                    let noticed = noticed.map_err(StoreError::io("watching", self.tree.base()))?;
                    self.note(noticed);
                }
                () = sleep_until(due) => {}
            }
        }
    }

    fn note(&mut self, noticed: Noticed) {
        if noticed.is_empty() {
            return;
        }
        let now = Instant::now();
        let (first, _) = self.since.unwrap_or((now, now));
        self.since = Some((first, now));
        self.resync |= noticed.everything;
        self.pending.extend(noticed.namespaces);
    }

    fn take(&mut self) -> Change {
        let now = Instant::now();
        self.since = None;
        let pending = std::mem::take(&mut self.pending);
        let timer = now >= self.next_resync;
        if timer {
            // What could not be watched before may be watched now.
            self.tree.watch_all(&mut self.inotify.get_mut().watches());
        }
        if std::mem::take(&mut self.resync) || timer {
            self.next_resync = now + self.interval;
            return Change::Resync;
        }
        Change::Namespaces(pending)
    }
}

/// Reads all events that are there.
fn read(inotify: &mut Inotify, buffer: &mut [u8], tree: &mut Tree) -> io::Result<Noticed> {
    let mut noticed = Noticed::default();
    let mut watches = inotify.watches();
    loop {
        match inotify.read_events(buffer) {
            Ok(events) => {
                let mut any = false;
                for event in events {
                    any = true;
                    tree.event(&event, &mut noticed);
                }
                if !any {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    tree.follow(&mut watches, &noticed);
    Ok(noticed)
}

#[cfg(test)]
mod tests;
