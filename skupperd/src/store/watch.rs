//! Notices changes of manifests and of the credentials beside them.
//!
//! A [`Watcher`] belongs to the reconciler's loop. It reports that something has changed and no more: the
//! loop then reads all namespaces again, and files that are as they were cost it one `stat` each.
//! Watched are every directory of input, the targets of symbolic links in them, and, while the
//! directory of namespaces is missing, the nearest one above it.
//!
//! A burst of events is one change: it is reported when [`QUIET`] has passed without an event, or
//! [`MAX_DELAY`] after the first one. What inotify cannot see (network file systems, too many watches)
//! is covered by the loop's resync timer, which calls [`Watcher::rewatch`] before it reads. While the
//! kernel refuses an inotify instance, that timer is all there is.
//!
//! It never reads manifests, and it ignores temporary files of our own writers.

mod dirs;

use super::Layout;
use crate::sys;
use dirs::{WatchEffect, WatchedDirs};
use inotify::Inotify;
use std::{
    future::pending,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
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
    base: PathBuf,
    /// `None` while the kernel refuses it.
    inotify: Option<WatchedInput>,
    /// The last refusal, which was logged.
    refusal: Option<String>,
    buffer: Vec<u8>,
    /// Of changes that are not reported yet: when the first and the last came.
    pending: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct WatchedInput {
    inotify: AsyncFd<Inotify>,
    dirs: WatchedDirs,
}

impl WatchedInput {
    fn new(base: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mut dirs = WatchedDirs::new(base.to_owned());
        dirs.rescan(&mut inotify.watches());
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an Inotify keeps its descriptor"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Self { inotify, dirs })
    }

    /// Waits for events. Returns whether input has changed. Cancel-safe.
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut ready = self.inotify.readable_mut().await?;
        let changed = read_events(ready.get_inner_mut(), buffer, &mut self.dirs);
        ready.clear_ready();
        changed
    }
}

impl Watcher {
    /// Starts to watch. To be called in a runtime.
    pub fn new(layout: &Layout) -> Self {
        let mut watcher = Self {
            base: layout.input_namespaces(),
            inotify: None,
            refusal: None,
            buffer: vec![0; BUFFER],
            pending: None,
        };
        watcher.start();
        watcher
    }

    /// Whether changes are noticed. Otherwise the caller has to read everything again now and then.
    pub fn is_watching(&self) -> bool {
        self.inotify.is_some()
    }

    fn start(&mut self) {
        match WatchedInput::new(&self.base) {
            Ok(input) => {
                self.inotify = Some(input);
                if self.refusal.take().is_some() {
                    tracing::info!(dir = %self.base.display(), "manifests are watched again");
                }
            }
            Err(error) => self.unavailable(&error),
        }
    }

    /// Logs a refusal, unless it is the same as before.
    fn unavailable(&mut self, error: &io::Error) {
        self.inotify = None;
        let refusal = error.to_string();
        if self.refusal.as_ref() != Some(&refusal) {
            let hint = (error.raw_os_error() == Some(sys::TOO_MANY_FILES)).then_some(
                "programs of this user have all instances: raise fs.inotify.max_user_instances",
            );
            tracing::warn!(
                dir = %self.base.display(),
                error = refusal,
                hint,
                "cannot watch manifests; reading them every few seconds"
            );
            self.refusal = Some(refusal);
        }
    }

    /// Waits until input has changed, for ever while nothing is watched. Cancel-safe: a change that was
    /// noticed and not reported is reported by the next call.
    pub async fn changed(&mut self) {
        loop {
            let due = self
                .pending
                .map(|(first, last)| (first + MAX_DELAY).min(last + QUIET));
            if due.is_some_and(|due| Instant::now() >= due) {
                self.pending = None;
                return;
            }
            let Some(input) = &mut self.inotify else {
                return pending().await;
            };
            // Both arms are cancel-safe: events that were not read stay in the queue, and the time
            // is kept here.
            let changed = tokio::select! {
                changed = input.read(&mut self.buffer) => changed,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            let changed = changed.unwrap_or_else(|error| {
                self.unavailable(&error);
                // What was missed is unknown.
                true
            });
            if changed {
                let now = Instant::now();
                let (first, _) = self.pending.unwrap_or((now, now));
                self.pending = Some((first, now));
            }
        }
    }

    /// Watches everything that is there now: what could not be watched before may be by now. Comes
    /// before the namespaces are read, so that no change falls in between.
    pub fn rewatch(&mut self) {
        match &mut self.inotify {
            Some(input) => input.dirs.rescan(&mut input.inotify.get_mut().watches()),
            None => self.start(),
        }
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
    // Before the first read, so that no change is missed.
    if effect == WatchEffect::Outdated {
        dirs.rescan(&mut watches);
    }
    Ok(effect != WatchEffect::Unchanged)
}

#[cfg(test)]
mod tests;
