//! Noticing changes of manifests.

use super::{Layout, StoreError};
use inotify::{Inotify, WatchMask};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Depth of directories below the namespaces' directory that are watched:
/// `<namespace>/input/resources` and eight more, as deep as manifests are looked for.
const MAX_DEPTH: usize = 11;

/// Watches all namespaces' input from now on. The channel gets a word for each burst of changes;
/// it does not say which: the reader looks at everything again.
pub fn watch(layout: &Layout) -> Result<mpsc::Receiver<()>, StoreError> {
    let base = layout.namespaces();
    let mut inotify = Inotify::init().map_err(StoreError::new("watching", &base))?;
    add(&inotify, &base, MAX_DEPTH).map_err(StoreError::new("watching", &base))?;
    // One waiting word is enough for any number of changes.
    let (changed, receiver) = mpsc::channel(1);
    std::thread::Builder::new()
        .name("watch".into())
        .spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                match inotify.read_events_blocking(&mut buffer) {
                    Ok(events) => events.for_each(drop),
                    Err(error) => {
                        tracing::error!(%error, "watching manifests ended");
                        return;
                    }
                }
                // New directories are watched before anybody looks at what is in them; watching
                // one again changes nothing.
                if let Err(error) = add(&inotify, &base, MAX_DEPTH) {
                    tracing::warn!(%error, path = %base.display(), "watching a directory failed");
                }
                match changed.try_send(()) {
                    Err(mpsc::error::TrySendError::Closed(())) => return,
                    Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
                }
            }
        })
        .map_err(StoreError::new(
            "starting the watcher of",
            &layout.namespaces(),
        ))?;
    Ok(receiver)
}

fn add(inotify: &Inotify, dir: &Path, depth: usize) -> std::io::Result<()> {
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE
        | WatchMask::ATTRIB
        | WatchMask::ONLYDIR;
    inotify.watches().add(dir, mask)?;
    if depth == 0 {
        return Ok(());
    }
    let directories: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|p| p.is_dir() && !(p.ends_with("runtime") || p.ends_with("internal")))
        .collect();
    for directory in directories {
        match add(inotify, &directory, depth - 1) {
            // Gone again already.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}
