//! Notices changes of manifests and of the credentials beside them.
//!
//! A [`Watcher`] belongs to the reconciler's loop. It reports that something has changed and no more: the
//! loop then reads all namespaces again, and files that are as they were cost it one `stat` each.
//! Watched are every directory of input, the targets of symbolic links in them, and, while the
//! directory of namespaces is missing, the nearest one above it.
//!
//! A burst of events is one change: it is reported when [`QUIET`] has passed without an event, or
//! [`MAX_DELAY`] after the first one. What inotify cannot see (network file systems, too many watches)
//! is covered by the loop's resync timer, which calls [`Watcher::rewatch`] before it reads.
//!
//! It never reads manifests, and it ignores temporary files of our own writers.

mod dirs;

use super::{Layout, StoreError};
use dirs::{WatchEffect, WatchedDirs};
use inotify::Inotify;
use std::{io, path::PathBuf, time::Duration};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

/// An editor writes, renames and touches: changes are reported after this time without one.
const QUIET: Duration = Duration::from_millis(50);
/// Changes are reported after this time even if they go on.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// Bytes for events that are read at once.
const BUFFER: usize = 64 * 1024;

/// Watches the input of all namespaces.
///
/// It watches from its creation: create it before reading the namespaces to miss no change.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Inotify>,
    dirs: WatchedDirs,
    buffer: Vec<u8>,
    /// Of changes that are not reported yet: when the first and the last came.
    pending: Option<(Instant, Instant)>,
}

impl Watcher {
    /// Starts to watch. To be called in a runtime.
    pub fn new(layout: &Layout) -> Result<Self, StoreError> {
        let base: PathBuf = layout.input_namespaces();
        let failed = |e: io::Error| StoreError::io("watching", &base)(e);
        let inotify = Inotify::init().map_err(failed)?;
        let mut dirs = WatchedDirs::new(base.clone());
        dirs.rescan(&mut inotify.watches());
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an Inotify keeps its descriptor"
        )]
        let inotify = AsyncFd::new(inotify).map_err(failed)?;
        Ok(Self {
            inotify,
            dirs,
            buffer: vec![0; BUFFER],
            pending: None,
        })
    }

    /// Waits until input has changed. Cancel-safe: a change that was noticed and not reported is reported
    /// by the next call.
    pub async fn changed(&mut self) -> Result<(), StoreError> {
        loop {
            let due = self
                .pending
                .map(|(first, last)| (first + MAX_DELAY).min(last + QUIET));
            if due.is_some_and(|due| Instant::now() >= due) {
                self.pending = None;
                return Ok(());
            }
            // Both arms are cancel-safe: events that were not read stay in the queue, and the time
            // is kept here.
            tokio::select! {
                ready = self.inotify.readable_mut() => {
                    let mut ready = ready.map_err(StoreError::io("watching", self.dirs.base()))?;
                    let inotify = ready.get_inner_mut();
                    let changed = read_events(inotify, &mut self.buffer, &mut self.dirs);
                    ready.clear_ready();
                    if changed.map_err(StoreError::io("watching", self.dirs.base()))? {
                        let now = Instant::now();
                        let (first, _) = self.pending.unwrap_or((now, now));
                        self.pending = Some((first, now));
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Watches everything that is there now: what could not be watched before may be by now. Comes
    /// before the namespaces are read, so that no change falls in between.
    pub fn rewatch(&mut self) {
        self.dirs.rescan(&mut self.inotify.get_mut().watches());
    }
}

/// Reads all events that are there; whether something has changed.
fn read_events(
    inotify: &mut Inotify,
    buffer: &mut [u8],
    dirs: &mut WatchedDirs,
) -> io::Result<bool> {
    let mut effect = WatchEffect::Unchanged;
    let mut watches = inotify.watches();
    loop {
        match inotify.read_events(buffer) {
            Ok(events) => {
                let mut any = false;
                for event in events {
                    any = true;
                    effect = effect.max(dirs.effect_of(&event));
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
    // Before anybody reads what is there, so that no change falls in between.
    if effect == WatchEffect::Outdated {
        dirs.rescan(&mut watches);
    }
    Ok(effect != WatchEffect::Unchanged)
}

#[cfg(test)]
mod tests;
