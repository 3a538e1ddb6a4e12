//! Where the BPF programs outlive the daemon: a directory for each instance in the BPF file system.
//!
//! A directory is made under another name and renamed when it is complete. It is locked for as long
//! as its daemon lives, and longer: the service manager keeps the descriptor that the lock is on,
//! together with the accept sockets. What nobody has locked is left over from a dead instance.

use super::bpf::BpfError;
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

/// The mode of directories, and that of what is in them.
const DIR: u32 = 0o750;
const PIN: u32 = 0o640;

/// Mark of a directory that is being made, and of one that another has replaced.
const NEW: &str = "new";
const OLD: &str = "old";

/// Why there is no place that outlives the daemon.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Nothing to write to.
    #[error("{0}: no BPF file system, or none of this user's")]
    NoHome(PathBuf),
    /// Somebody else's.
    #[error("{0}: another daemon has it")]
    InUse(PathBuf),
    /// The system refused.
    #[error("{path}: {op}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was being done.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Bpf(#[from] BpfError),
}

pub(super) fn failed(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PinError {
    let path = path.to_owned();
    move |source| PinError::Io { path, op, source }
}

/// Directories of instances.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// A directory and the lock on it.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) dir: PathBuf,
    pub(super) lock: File,
}

impl Home {
    /// This directory, which is made when it is missing. It has to be in a BPF file system.
    pub fn open(dir: &Path) -> Result<Self, PinError> {
        let made = DirBuilder::new().mode(DIR).create(dir);
        let missing = made.is_err_and(|e| e.kind() != io::ErrorKind::AlreadyExists);
        if missing || !sys::is_bpffs(dir) {
            return Err(PinError::NoHome(dir.to_owned()));
        }
        Ok(Self(dir.to_owned()))
    }

    fn place(&self, instance: &str, mark: &str) -> PathBuf {
        // No dots: the BPF file system has none.
        self.0.join(format!("{mark}-{instance}"))
    }

    /// What this instance has left, locked; `lock` is what an earlier process had locked it with.
    pub(super) fn find(
        &self,
        instance: &str,
        lock: Option<OwnedFd>,
    ) -> Result<Option<Pinned>, PinError> {
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
            Ok(()) => Ok(Some(Pinned { dir, lock })),
            Err(TryLockError::WouldBlock) => Err(PinError::InUse(dir)),
            Err(TryLockError::Error(e)) => Err(failed(&dir, "locking")(e)),
        }
    }

    /// A directory to fill, locked, which [`Self::publish`] gives the instance's name.
    pub(super) fn make(&self, instance: &str) -> Result<Pinned, PinError> {
        let dir = self.place(instance, NEW);
        // Of one that was killed here. Only the daemon of this instance makes it, and there is one.
        remove(&dir)?;
        let made = DirBuilder::new().mode(DIR).create(&dir);
        made.map_err(failed(&dir, "making"))?;
        // Whatever the mask of this process takes away.
        std::fs::set_permissions(&dir, Permissions::from_mode(DIR))
            .map_err(failed(&dir, "setting the mode"))?;
        let lock = File::open(&dir).map_err(failed(&dir, "opening"))?;
        lock.try_lock()
            .map_err(io::Error::from)
            .map_err(failed(&dir, "locking"))?;
        Ok(Pinned { dir, lock })
    }

    /// Gives a directory that was filled the instance's name. One that has it is kept until
    /// [`Self::forget_old`].
    pub(super) fn publish(&self, instance: &str, made: Pinned) -> Result<Pinned, PinError> {
        let entries = made.dir.read_dir().map_err(failed(&made.dir, "reading"))?;
        for entry in entries {
            let path = entry.map_err(failed(&made.dir, "reading"))?.path();
            std::fs::set_permissions(&path, Permissions::from_mode(PIN))
                .map_err(failed(&path, "setting the mode"))?;
        }
        let (dir, old) = (self.0.join(instance), self.place(instance, OLD));
        if dir.exists() {
            remove(&old)?;
            std::fs::rename(&dir, &old).map_err(failed(&dir, "renaming"))?;
        }
        std::fs::rename(&made.dir, &dir).map_err(failed(&dir, "renaming"))?;
        Ok(Pinned { dir, ..made })
    }

    /// Removes the directory that another has replaced.
    pub(super) fn forget_old(&self, instance: &str) -> Result<(), PinError> {
        remove(&self.place(instance, OLD))
    }

    /// Removes what this instance has left, whatever it is.
    pub(super) fn discard(&self, instance: &str, lock: Option<OwnedFd>) -> Result<(), PinError> {
        self.forget_old(instance)?;
        match self.find(instance, lock)? {
            Some(pinned) => remove(&pinned.dir),
            None => Ok(()),
        }
    }

    /// Removes directories that nobody has locked; says which.
    pub fn sweep(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut gone = Vec::new();
        let entries = self.0.read_dir().map_err(failed(&self.0, "reading"))?;
        for entry in entries {
            let path = entry.map_err(failed(&self.0, "reading"))?.path();
            let Ok(dir) = File::open(&path) else {
                continue;
            };
            // A lock that is there is a daemon's, or its service manager's.
            if dir.try_lock().is_ok() {
                remove(&path)?;
                gone.push(path);
            }
        }
        gone.sort();
        Ok(gone)
    }
}

/// Removes a directory with what is in it; what was attached by that alone is detached.
pub(super) fn remove(dir: &Path) -> Result<(), PinError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(dir, "removing")(e)),
        _ => Ok(()),
    }
}
