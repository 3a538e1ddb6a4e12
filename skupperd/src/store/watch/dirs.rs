//! The directories and files that are watched, and the effect of an event on them.

use crate::{
    model::Namespace,
    store::{
        files::TEMPORARY,
        walk::{MAX_DEPTH, VisitedDirs, is_ignored, is_manifest},
    },
};
use inotify::{Event, EventMask, WatchDescriptor, WatchMask, Watches};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Why a directory or file is watched. There may be several reasons: symbolic links make it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum WatchReason {
    /// The nearest directory above a base that is missing.
    AboveBase,
    /// The directory of namespaces.
    Base,
    /// A namespace's directory, of which only `input` matters.
    Namespace,
    /// Anything in or below `input`.
    Input,
}

/// What the last rescan found.
type CurrentWatches = HashSet<(WatchDescriptor, WatchReason)>;

#[derive(Debug)]
struct WatchedDir {
    path: PathBuf,
    reasons: BTreeSet<WatchReason>,
}

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchEffect {
    /// Nothing that matters.
    Unchanged,
    /// Input has changed; the watches are right.
    Changed,
    /// Input has changed, and there may be other things to watch now.
    Outdated,
}

#[derive(Debug)]
pub(super) struct WatchedDirs {
    base: PathBuf,
    watched: HashMap<WatchDescriptor, WatchedDir>,
    /// Paths that cannot be watched and were logged.
    failed: BTreeSet<PathBuf>,
}

fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::CLOSE_WRITE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::MASK_ADD
}

impl WatchedDirs {
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            watched: HashMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Watches everything that is there now, and nothing else.
    pub(super) fn rescan(&mut self, watches: &mut Watches) {
        let mut current = CurrentWatches::new();
        if self.watch_base(watches, &mut current) {
            for entry in fs::read_dir(&self.base)
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
            {
                if is_namespace(&entry.file_name()) {
                    self.watch_namespace(watches, &entry.path(), &mut current);
                }
            }
        }
        self.forget_others(watches, &current);
    }

    pub(super) fn effect_of(&mut self, event: &Event<&OsStr>) -> WatchEffect {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            tracing::warn!("too many file changes at once; reading all manifests again");
            return WatchEffect::Outdated;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.watched.remove(&event.wd);
            return WatchEffect::Unchanged;
        }
        let Some(watched) = self.watched.get(&event.wd) else {
            return WatchEffect::Unchanged;
        };
        let effects = watched.reasons.iter().map(|reason| match event.name {
            None => WatchEffect::Outdated,
            Some(entry) => match reason {
                WatchReason::AboveBase => WatchEffect::Outdated,
                WatchReason::Base if is_namespace(entry) => WatchEffect::Outdated,
                WatchReason::Namespace if entry == "input" => WatchEffect::Outdated,
                WatchReason::Base | WatchReason::Namespace => WatchEffect::Unchanged,
                WatchReason::Input => effect_of_entry(&watched.path, entry, event.mask),
            },
        });
        effects.max().unwrap_or(WatchEffect::Unchanged)
    }

    /// False: the directory is missing, and one above it is watched.
    fn watch_base(&mut self, watches: &mut Watches, current: &mut CurrentWatches) -> bool {
        loop {
            let nearest = self.base.ancestors().find(|dir| dir.is_dir());
            let Some(nearest) = nearest.map(Path::to_owned) else {
                return false;
            };
            let is_base = nearest == self.base;
            let reason = if is_base {
                WatchReason::Base
            } else {
                WatchReason::AboveBase
            };
            let added = self.add(watches, &nearest, WatchMask::ONLYDIR, reason, current);
            if is_base || !added {
                return is_base;
            }
            // The base may have come before the watch was there.
            let now = self.base.ancestors().find(|dir| dir.is_dir());
            if now == Some(nearest.as_path()) {
                return false;
            }
        }
    }

    fn watch_namespace(&mut self, watches: &mut Watches, dir: &Path, current: &mut CurrentWatches) {
        let reason = WatchReason::Namespace;
        if self.add(watches, dir, WatchMask::ONLYDIR, reason, current) {
            let input = dir.join("input");
            let mut visited = VisitedDirs::below(&input);
            self.watch_below(watches, &input, 0, &mut visited, current);
        }
    }

    fn watch_below(
        &mut self,
        watches: &mut Watches,
        dir: &Path,
        depth: usize,
        visited: &mut VisitedDirs,
        current: &mut CurrentWatches,
    ) {
        let entered = fs::metadata(dir).is_ok_and(|dir| dir.is_dir() && visited.enter(&dir));
        // One more level than manifests are searched on: `resources` itself.
        if !entered || depth > MAX_DEPTH + 1 {
            return;
        }
        // Watched before it is read, so that no entry falls in between.
        let reason = WatchReason::Input;
        if !self.add(watches, dir, WatchMask::ONLYDIR, reason, current) {
            return;
        }
        for entry in fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
        {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
                if !is_ignored(&name) {
                    self.watch_below(watches, &path, depth + 1, visited, current);
                }
            } else if kind.is_symlink() && is_manifest(&name) {
                // Changes of the target are seen at the target only.
                self.add(watches, &path, WatchMask::empty(), reason, current);
            }
        }
    }

    fn add(
        &mut self,
        watches: &mut Watches,
        path: &Path,
        extra: WatchMask,
        reason: WatchReason,
        current: &mut CurrentWatches,
    ) -> bool {
        match watches.add(path, mask() | extra) {
            Ok(wd) => {
                self.failed.remove(path);
                let new = || WatchedDir {
                    path: PathBuf::new(),
                    reasons: BTreeSet::new(),
                };
                let watched = self.watched.entry(wd.clone()).or_insert_with(new);
                // It may have been renamed.
                path.clone_into(&mut watched.path);
                watched.reasons.insert(reason);
                current.insert((wd, reason));
                true
            }
            // Removed meanwhile, or a link to nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                if self.failed.insert(path.to_owned()) {
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        "cannot watch path; changes take effect at the next resync"
                    );
                }
                false
            }
        }
    }

    /// Forgets reasons that the rescan has not found again, and watches without a reason.
    fn forget_others(&mut self, watches: &mut Watches, current: &CurrentWatches) {
        let mut gone = Vec::new();
        for (wd, watched) in &mut self.watched {
            let is_current = |reason: &WatchReason| current.contains(&(wd.clone(), *reason));
            watched.reasons.retain(is_current);
            if watched.reasons.is_empty() {
                gone.push(wd.clone());
            }
        }
        for wd in gone {
            self.watched.remove(&wd);
            // It fails when the directory is gone, and then there is nothing to remove.
            drop(watches.remove(wd));
        }
    }
}

fn is_namespace(name: &OsStr) -> bool {
    name.to_str()
        .is_some_and(|name| Namespace::new(name).is_ok())
}

/// What an event of an entry of an input directory means.
fn effect_of_entry(dir: &Path, entry: &OsStr, mask: EventMask) -> WatchEffect {
    let name = entry.to_string_lossy();
    // Our own writers' files before they get their names.
    if name.starts_with(TEMPORARY) {
        return WatchEffect::Unchanged;
    }
    if mask.contains(EventMask::ISDIR) {
        return WatchEffect::Outdated;
    }
    if mask.contains(EventMask::CREATE) {
        // A new file is noticed when it is closed; a link or a hard link is never opened for that.
        return match fs::symlink_metadata(dir.join(entry)) {
            Ok(file) if file.is_file() && file.nlink() == 1 => WatchEffect::Unchanged,
            Ok(file) if file.is_symlink() => WatchEffect::Outdated,
            Ok(_) | Err(_) => WatchEffect::Changed,
        };
    }
    // A name that comes or goes may be that of a link.
    if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO) {
        WatchEffect::Outdated
    } else {
        WatchEffect::Changed
    }
}
