//! What is watched, and what an event means for it.

use crate::{
    model::Namespace,
    store::{
        files::TEMPORARY,
        walk::{MAX_DEPTH, Visited, is_ignored, is_manifest},
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

/// What a watched directory or file is. One may be several: symbolic links make it so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Role {
    /// The nearest directory above a base that is missing.
    Above,
    /// The directory of namespaces.
    Base,
    /// A namespace's directory, of which only `input` matters.
    Namespace(Namespace),
    /// Anything in or below `input`.
    Input(Namespace),
}

impl Role {
    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Above | Self::Base => None,
            Self::Namespace(name) | Self::Input(name) => Some(name),
        }
    }
}

/// What was found to be there by a look.
type Fresh = HashSet<(WatchDescriptor, Role)>;

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    roles: BTreeSet<Role>,
}

/// What events have meant.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// Anything may have changed.
    pub(super) everything: bool,
    /// Namespaces of which something has changed.
    pub(super) namespaces: BTreeSet<Namespace>,
    /// Of these, what there is to watch may have changed.
    moved: BTreeSet<Namespace>,
}

impl Noticed {
    pub(super) fn is_empty(&self) -> bool {
        !self.everything && self.namespaces.is_empty()
    }

    fn change(&mut self, namespace: &Namespace, moved: bool) {
        self.namespaces.insert(namespace.clone());
        if moved {
            self.moved.insert(namespace.clone());
        }
    }
}

/// All that is watched.
#[derive(Debug)]
pub(super) struct Tree {
    base: PathBuf,
    watched: HashMap<WatchDescriptor, Watched>,
    /// Paths that could not be watched and were told of.
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

impl Tree {
    pub(super) fn new(base: PathBuf) -> Self {
        Self {
            base,
            watched: HashMap::new(),
            failed: BTreeSet::new(),
        }
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Watches everything that is there now, and nothing else.
    pub(super) fn watch_all(&mut self, watches: &mut Watches) {
        let mut fresh = Fresh::new();
        if self.watch_base(watches, &mut fresh) {
            for entry in fs::read_dir(&self.base)
                .into_iter()
                .flatten()
                .filter_map(Result::ok)
            {
                if let Some(name) = namespace(&entry.file_name()) {
                    self.watch_namespace(watches, &name, &mut fresh);
                }
            }
        }
        self.forget(watches, |_| true, &fresh);
    }

    /// Takes in one event.
    pub(super) fn event(&mut self, event: &Event<&OsStr>, noticed: &mut Noticed) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            tracing::warn!("too many changes at once: looking at all manifests");
            noticed.everything = true;
            return;
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.watched.remove(&event.wd);
            return;
        }
        let Some(watched) = self.watched.get(&event.wd) else {
            return;
        };
        let itself = event.name.is_none();
        for role in &watched.roles {
            match role {
                Role::Above => noticed.everything = true,
                Role::Base if itself => noticed.everything = true,
                Role::Base => {
                    if let Some(name) = event.name.and_then(namespace) {
                        noticed.change(&name, true);
                    }
                }
                Role::Namespace(name) => {
                    if itself || event.name.is_some_and(|n| n == "input") {
                        noticed.change(name, true);
                    }
                }
                Role::Input(name) => match event.name {
                    None => noticed.change(name, true),
                    Some(entry) => {
                        if let Some(moved) = meaning(&watched.path, entry, event.mask) {
                            noticed.change(name, moved);
                        }
                    }
                },
            }
        }
    }

    /// Watches what has come, and no longer what has gone. Comes before anybody looks at what is
    /// there, so nothing falls in between.
    pub(super) fn follow(&mut self, watches: &mut Watches, noticed: &Noticed) {
        if noticed.everything {
            self.watch_all(watches);
            return;
        }
        for name in &noticed.moved {
            let mut fresh = Fresh::new();
            self.watch_namespace(watches, name, &mut fresh);
            self.forget(watches, |role| role.namespace() == Some(name), &fresh);
        }
    }

    /// False: the directory is missing, and one above it is watched.
    fn watch_base(&mut self, watches: &mut Watches, fresh: &mut Fresh) -> bool {
        loop {
            let there = self.base.ancestors().find(|dir| dir.is_dir());
            let Some(there) = there.map(Path::to_owned) else {
                return false;
            };
            let is_base = there == self.base;
            let role = if is_base { Role::Base } else { Role::Above };
            let added = self.add(watches, &there, WatchMask::ONLYDIR, role, fresh);
            if is_base || !added {
                return is_base;
            }
            // It may have come while nobody watched.
            let now = self.base.ancestors().find(|dir| dir.is_dir());
            if now == Some(there.as_path()) {
                return false;
            }
        }
    }

    fn watch_namespace(&mut self, watches: &mut Watches, name: &Namespace, fresh: &mut Fresh) {
        let dir = self.base.join(name.as_str());
        let role = Role::Namespace(name.clone());
        if self.add(watches, &dir, WatchMask::ONLYDIR, role, fresh) {
            let role = Role::Input(name.clone());
            let mut visited = Visited::default();
            self.watch_below(watches, &dir.join("input"), 0, &role, &mut visited, fresh);
        }
    }

    fn watch_below(
        &mut self,
        watches: &mut Watches,
        dir: &Path,
        depth: usize,
        role: &Role,
        visited: &mut Visited,
        fresh: &mut Fresh,
    ) {
        let entered = fs::metadata(dir).is_ok_and(|dir| dir.is_dir() && visited.enter(&dir));
        // One more level than manifests are looked for on: `resources` itself.
        if !entered || depth > MAX_DEPTH + 1 {
            return;
        }
        // First watched, then looked at.
        if !self.add(watches, dir, WatchMask::ONLYDIR, role.clone(), fresh) {
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
                    self.watch_below(watches, &path, depth + 1, role, visited, fresh);
                }
            } else if kind.is_symlink() && is_manifest(&name) {
                // What happens to the target happens elsewhere.
                self.add(watches, &path, WatchMask::empty(), role.clone(), fresh);
            }
        }
    }

    fn add(
        &mut self,
        watches: &mut Watches,
        path: &Path,
        extra: WatchMask,
        role: Role,
        fresh: &mut Fresh,
    ) -> bool {
        match watches.add(path, mask() | extra) {
            Ok(wd) => {
                self.failed.remove(path);
                let new = || Watched {
                    path: PathBuf::new(),
                    roles: BTreeSet::new(),
                };
                let watched = self.watched.entry(wd.clone()).or_insert_with(new);
                // It may have been renamed.
                path.clone_into(&mut watched.path);
                watched.roles.insert(role.clone());
                fresh.insert((wd, role));
                true
            }
            // Gone again, or a link to nothing.
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                if self.failed.insert(path.to_owned()) {
                    tracing::warn!(
                        path = %path.display(),
                        %error,
                        "can not be watched: changes are noticed within half a minute"
                    );
                }
                false
            }
        }
    }

    /// Forgets roles that are not among the fresh ones.
    fn forget(&mut self, watches: &mut Watches, which: impl Fn(&Role) -> bool, fresh: &Fresh) {
        let mut gone = Vec::new();
        for (wd, watched) in &mut self.watched {
            watched
                .roles
                .retain(|r| !which(r) || fresh.contains(&(wd.clone(), r.clone())));
            if watched.roles.is_empty() {
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

fn namespace(name: &OsStr) -> Option<Namespace> {
    Namespace::new(name.to_str()?).ok()
}

/// What an event of an entry means: nothing, or a change, and whether there may be other things to
/// watch now.
fn meaning(dir: &Path, entry: &OsStr, mask: EventMask) -> Option<bool> {
    let name = entry.to_string_lossy();
    // What our own writers make before it gets its name.
    if name.starts_with(TEMPORARY) {
        return None;
    }
    if mask.contains(EventMask::ISDIR) {
        return Some(true);
    }
    if mask.contains(EventMask::CREATE) {
        // A new file is told of when it is closed; what is never opened for that is told of now.
        return match fs::symlink_metadata(dir.join(entry)) {
            Ok(file) if file.is_file() && file.nlink() == 1 => None,
            Ok(file) => Some(file.is_symlink()),
            Err(_) => Some(false),
        };
    }
    // A name that comes or goes may be that of a link.
    Some(mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM | EventMask::MOVED_TO))
}
