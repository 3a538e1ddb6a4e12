//! Pinned BPF programs, which outlive the daemon: one directory for each instance in the BPF file
//! system.
//!
//! A directory is created under a temporary name and renamed when it is complete. The daemon locks
//! it, and the service manager stores the locked descriptor together with the accept sockets, so
//! the lock outlives the process. Unlocked directories belong to dead instances.

use super::bpf_error::BpfError;
use crate::sys;
use std::{
    fs::{DirBuilder, File, Permissions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Modes of directories and of their files.
const DIR: u32 = 0o750;
const PIN: u32 = 0o640;

/// Prefixes of a directory that is not complete yet, and of one that was replaced.
const NEW: &str = "new";
const OLD: &str = "old";

/// Why programs cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The BPF file system is missing or not writable.
    #[error("{0} is not a BPF file system that this user can write to")]
    NoHome(PathBuf),
    /// Another process has locked it.
    #[error("{0} is locked by another daemon")]
    InUse(PathBuf),
    /// A system call failed.
    #[error("{path}: {op}: {source}")]
    Io {
        path: PathBuf,
        op: &'static str,
        source: io::Error,
    },
    /// A BPF operation failed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

pub(super) fn failed(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { path, op, source }
}

/// The parent of the directories of all instances.
#[derive(Clone, Debug)]
pub struct PinRoot(PathBuf);

/// A directory and the lock on it.
#[derive(Debug)]
pub(super) struct PinDir {
    pub(super) dir: PathBuf,
    pub(super) lock: File,
}

impl PinRoot {
    /// Opens or creates this directory. It must be in a BPF file system.
    pub fn open(dir: &Path) -> Result<Self, PinError> {
        let made = DirBuilder::new().mode(DIR).create(dir);
        let missing = made.is_err_and(|e| e.kind() != io::ErrorKind::AlreadyExists);
        if missing || !sys::is_bpffs(dir) {
            return Err(PinError::NoHome(dir.to_owned()));
        }
        Ok(Self(dir.to_owned()))
    }

    fn path(&self, instance: &str, mark: &str) -> PathBuf {
        // The BPF file system allows no dots in names.
        self.0.join(format!("{mark}-{instance}"))
    }

    /// The locked directory of this instance, if there is one. `lock` is the descriptor of the
    /// previous process's lock.
    pub(super) fn find(
        &self,
        instance: &str,
        lock: Option<OwnedFd>,
    ) -> Result<Option<PinDir>, PinError> {
        let dir = self.0.join(instance);
        let found = match File::open(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed(&dir, "opening"))?,
        };
        let same = |held: &File| {
            let (held, found) = (held.metadata(), found.metadata());
            matches!((held, found), (Ok(a), Ok(b)) if (a.dev(), a.ino()) == (b.dev(), b.ino()))
        };
        let lock = lock.map(File::from).filter(same).unwrap_or(found);
        match lock.try_lock() {
            Ok(()) => Ok(Some(PinDir { dir, lock })),
            Err(TryLockError::WouldBlock) => Err(PinError::InUse(dir)),
            Err(TryLockError::Error(e)) => Err(failed(&dir, "locking")(e)),
        }
    }

    /// Keeps directories that are not locked yet from being removed, until dropped.
    fn lock(&self) -> Result<File, PinError> {
        let root = File::open(&self.0).map_err(failed(&self.0, "opening"))?;
        root.lock().map_err(failed(&self.0, "locking"))?;
        Ok(root)
    }

    /// Creates a locked directory under a temporary name; [`Self::publish`] renames it.
    pub(super) fn make(&self, instance: &str) -> Result<PinDir, PinError> {
        let _lock = self.lock()?;
        let dir = self.path(instance, NEW);
        // Left by a process that was killed here. Only the one daemon of this instance creates it.
        remove(&dir)?;
        let made = DirBuilder::new().mode(DIR).create(&dir);
        made.map_err(failed(&dir, "making"))?;
        // Overrides the umask.
        std::fs::set_permissions(&dir, Permissions::from_mode(DIR))
            .map_err(failed(&dir, "setting the mode"))?;
        let lock = File::open(&dir).map_err(failed(&dir, "opening"))?;
        lock.try_lock()
            .map_err(io::Error::from)
            .map_err(failed(&dir, "locking"))?;
        Ok(PinDir { dir, lock })
    }

    /// Renames a complete directory to the instance's name. A replaced one stays until
    /// [`Self::forget_old`].
    pub(super) fn publish(&self, instance: &str, made: PinDir) -> Result<PinDir, PinError> {
        let entries = made.dir.read_dir().map_err(failed(&made.dir, "reading"))?;
        for entry in entries {
            let path = entry.map_err(failed(&made.dir, "reading"))?.path();
            std::fs::set_permissions(&path, Permissions::from_mode(PIN))
                .map_err(failed(&path, "setting the mode"))?;
        }
        let (dir, old) = (self.0.join(instance), self.path(instance, OLD));
        if dir.exists() {
            remove(&old)?;
            std::fs::rename(&dir, &old).map_err(failed(&dir, "renaming"))?;
        }
        std::fs::rename(&made.dir, &dir).map_err(failed(&dir, "renaming"))?;
        Ok(PinDir { dir, ..made })
    }

    /// Removes the replaced directory.
    pub(super) fn forget_old(&self, instance: &str) -> Result<(), PinError> {
        remove(&self.path(instance, OLD))
    }

    /// Removes all directories of this instance.
    pub(super) fn discard(&self, instance: &str, lock: Option<OwnedFd>) -> Result<(), PinError> {
        self.forget_old(instance)?;
        match self.find(instance, lock)? {
            Some(pinned) => remove(&pinned.dir),
            None => Ok(()),
        }
    }

    /// Removes unlocked directories and returns their paths.
    pub fn sweep(&self) -> Result<Vec<PathBuf>, PinError> {
        let _lock = self.lock()?;
        let mut gone = Vec::new();
        let entries = self.0.read_dir().map_err(failed(&self.0, "reading"))?;
        for entry in entries {
            let path = entry.map_err(failed(&self.0, "reading"))?.path();
            let Ok(dir) = File::open(&path) else {
                continue;
            };
            // A daemon or its service manager holds the lock.
            if dir.try_lock().is_ok() {
                remove(&path)?;
                gone.push(path);
            }
        }
        gone.sort();
        Ok(gone)
    }
}

/// Removes a directory and its pins, which detaches programs without other references.
pub(super) fn remove(dir: &Path) -> Result<(), PinError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(dir, "removing")(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    /// It was removed between its creation and its lock.
    #[test]
    fn a_directory_that_is_being_made_is_not_swept() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = PinRoot(dir.path().to_owned());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    root.sweep().expect("swept");
                }
            });
            let is_made = || root.make("one").is_ok_and(|made| made.dir.exists());
            let swept = (0..2000).find(|_| !is_made());
            // Before an assertion: the other thread would not end.
            done.store(true, Ordering::Relaxed);
            assert_eq!(swept, None, "the round in which it was swept");
        });
    }
}
